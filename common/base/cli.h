/* cli.h - the one command line of all programs:
 *   PROGRAM [COMMAND] -c FILE ... --set a.b=c ... [a.b=c ...] --resume auto|DIR --dry-run
 *           --plan FILE --print-config --help --version  and the program's own options and arguments. */
#ifndef RLHF_BASE_CLI_H
#define RLHF_BASE_CLI_H

#include "common/base/config.h"

typedef struct {
    const char *name;  /* "--pretrain" */
    const char *value; /* NULL: a flag, same as --set KEY=true; else a placeholder such as "DIR" */
    const char *key;   /* config key that it sets */
    const char *help;
} CliOption;

typedef struct {
    const char *program;      /* "rlhf-sft" or "rlhf generate" */
    const char *summary;      /* one line */
    const char *usage;        /* what follows the program's name; NULL = the common form */
    const char *description;  /* paragraph(s) for --help; may be NULL */
    const char *examples;     /* for --help; may be NULL */
    const CfgField *fields;   /* printed by --help with type, default, range */
    size_t config_bytes;
    const CliOption *options; /* ends with name NULL; may be NULL */
    int max_args;             /* positional arguments allowed */
    bool plans;               /* takes --plan FILE: writes what a run would take (train/run_plan.h) */
} CliSpec;

typedef struct {
    Config *config;
    const char *resume; /* NULL, "auto" or a folder */
    bool dry_run;             /* so it is with --plan */
    const char *plan;         /* file for the plan; NULL = none */
    int n_args;
    const char **args;
    void *owned;
} Cli;

/* Parses and loads the config. Returns 1 when the program is done (help, version or config was
 * printed, exit 0), 0 to go on, or a negative error. --help touches no file and no device. */
int cli_parse(Cli *cli, const CliSpec *spec, int argc, char **argv);
void cli_free(Cli *cli);

/* Prints error_text() to stderr as "PROGRAM: error: ..." (each line) and returns the exit code. */
int cli_fail(const char *program, int rc);

extern const char *const rlhf_version; /* "0.1.0 (git id)" */

#endif
