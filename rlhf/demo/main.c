/* main.c - rlhf-demo: the stages of `make demo` that know the world. Everything is in demo.c. */
#include "rlhf/demo/demo.h"

int main(int argc, char **argv)
{
    return demo_main(argc, argv);
}
