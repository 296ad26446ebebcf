/* rlhf.c - dispatch of `rlhf COMMAND`. */
#include "rlhf/rlhf.h"

#include "common/base/cli.h"
#include "common/base/error.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*main)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"run", run_main, "run the stages of an experiment file; done ones are skipped"},
    {"plan", plan_main, "memory, disk and time of an experiment's stages, or of one program"},
    {"generate", generate_main, "answer prompts with a model"},
    {"chat", chat_main, "hold a conversation with a model"},
    {"inspect", inspect_main, "show ids, loss mask and template of records"},
    {"import", import_main, "turn a public data set into records"},
};

static void usage(FILE *f)
{
    fprintf(f, "usage: rlhf COMMAND [options]\n\n"
               "RLHF from a Hugging Face checkpoint to a Hugging Face checkpoint.\n\ncommands:\n");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].help);
    fprintf(f, "\nThe other programs: rlhf-sft, rlhf-reward, rlhf-rejection, rlhf-ppo.\n"
               "'rlhf COMMAND --help' tells more.\n");
}

int rlhf_main(int argc, char **argv)
{
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        usage(argc < 2 ? stderr : stdout);
        return argc < 2 ? -ERR_USAGE : 0;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("rlhf %s\n", rlhf_version);
        return 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (!strcmp(argv[1], commands[i].name))
            return commands[i].main(argc - 1, argv + 1);
    }
    error_set(ERR_USAGE, "unknown command '%s'; 'rlhf --help' lists them", argv[1]);
    return cli_fail("rlhf", ERR_USAGE);
}
