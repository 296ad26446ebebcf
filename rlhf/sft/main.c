/* main.c - rlhf-sft: supervised fine-tuning. Everything is in sft_trainer.c. */
#include "rlhf/sft/sft.h"

int main(int argc, char **argv)
{
    return trainer_main(&sft_trainer, argc, argv);
}
