/* reward.h - the subcommands of rlhf-reward. */
#ifndef RLHF_REWARD_H
#define RLHF_REWARD_H

#include "common/train/trainer.h"

extern const TrainerDef reward_trainer;        /* reward_train.c */
int reward_eval_main(int argc, char **argv);   /* reward_evaluate.c */
int reward_score_main(int argc, char **argv);  /* reward_score.c */
int reward_main(int argc, char **argv);        /* reward.c */

#endif
