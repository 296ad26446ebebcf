/* ppo_trainer.h - the trainer behind rlhf-ppo. */
#ifndef RLHF_PPO_TRAINER_H
#define RLHF_PPO_TRAINER_H

#include "common/train/trainer.h"

extern const TrainerDef ppo_trainer;

#endif
