/* main.c - rlhf-reward: train, evaluate and use reward models. Everything is in reward.c. */
#include "reward/reward.h"

int main(int argc, char **argv)
{
    return reward_main(argc, argv);
}
