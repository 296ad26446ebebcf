/* rejection_trainer.h - the program rlhf-rejection on the shared loop: a step is a block of prompts. */
#ifndef RLHF_REJECTION_TRAINER_H
#define RLHF_REJECTION_TRAINER_H

#include "common/train/trainer.h"

extern const TrainerDef rejection_trainer;

#endif
