/* main.c - rlhf: staged rounds and helpers. Everything is in rlhf.c. */
#include "rlhf/rlhf.h"

int main(int argc, char **argv)
{
    return rlhf_main(argc, argv);
}
