/* demo.c - dispatch of `rlhf-demo COMMAND`. */
#include "rlhf/demo/demo.h"

#include "common/base/cli.h"
#include "common/base/error.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*main)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"world", world_main, "write the model folder, the texts and the prompts of a generated world"},
    {"annotate", annotate_main, "rate two answers to each prompt as noisy annotators would"},
    {"evaluate", evaluate_main, "score answers with the gold rules; table, intervals, verdicts"},
    {"report", report_main, "one HTML page of the whole round"},
    {"controls", controls_main, "the verdict on each control of make demo-controls"},
};

static void usage(FILE *f)
{
    fprintf(f, "usage: rlhf-demo COMMAND [options]\n\n"
               "A small generated world whose true reward is known.\n\ncommands:\n");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].help);
    fprintf(f, "\n'rlhf-demo COMMAND --help' tells more.\n");
}

int demo_main(int argc, char **argv)
{
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        usage(argc < 2 ? stderr : stdout);
        return argc < 2 ? -ERR_USAGE : 0;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("rlhf-demo %s\n", rlhf_version);
        return 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (!strcmp(argv[1], commands[i].name))
            return commands[i].main(argc - 1, argv + 1);
    }
    error_set(ERR_USAGE, "unknown command '%s'; 'rlhf-demo --help' lists them", argv[1]);
    return cli_fail("rlhf-demo", ERR_USAGE);
}
