/* main.c - rlhf-rejection: N-best rejection sampling. Everything is in rejection_trainer.c. */
#include "rejection/rejection_trainer.h"

int main(int argc, char **argv)
{
    return trainer_main(&rejection_trainer, argc, argv);
}
