/* reward.c - dispatch of `rlhf-reward train|eval|score`. */
#include "reward/reward.h"

#include "common/base/error.h"

#include <stdio.h>
#include <string.h>

static void usage(FILE *f)
{
    fprintf(f, "usage: rlhf-reward train|eval|score [options]\n\n"
               "commands:\n"
               "  train   a helpfulness or safety reward model from preference pairs\n"
               "  eval    models on test sets: accuracy, calibration, a judge and length beside them\n"
               "  score   add rewards to the answers of a .jsonl file\n\n"
               "'rlhf-reward COMMAND --help' tells more.\n");
}

int reward_main(int argc, char **argv)
{
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        usage(argc < 2 ? stderr : stdout);
        return argc < 2 ? -ERR_USAGE : 0;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("rlhf-reward %s\n", rlhf_version);
        return 0;
    }
    if (!strcmp(argv[1], "train"))
        return trainer_main(&reward_trainer, argc - 1, argv + 1);
    if (!strcmp(argv[1], "eval"))
        return reward_eval_main(argc - 1, argv + 1);
    if (!strcmp(argv[1], "score"))
        return reward_score_main(argc - 1, argv + 1);
    error_set(ERR_USAGE, "unknown command '%s'; expected train, eval or score", argv[1]);
    return cli_fail("rlhf-reward", ERR_USAGE);
}
