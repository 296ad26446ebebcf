/* main.c - rlhf-ppo: train a policy with PPO. Everything is in ppo_trainer.c. */
#include "ppo/ppo_trainer.h"

int main(int argc, char **argv)
{
    return trainer_main(&ppo_trainer, argc, argv);
}
