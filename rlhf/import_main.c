/* import_main.c - `rlhf import`: a public data set -> our records, with a report. */
#include "rlhf/rlhf.h"

#include "common/base/cli.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/data/import.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    const char *held_out;
    int64_t held_out_every;
    bool tagged;
    int on_bad_row;
} ImportConfig;

#define AT(m) offsetof(ImportConfig, m)

static const CfgField fields[] = {
    {"held_out", CFG_STRING, AT(held_out), "", .help = "file for the held-out records"},
    {"held_out_every", CFG_INT, AT(held_out_every), "0", 0, 1e9,
     .help = "hold out the prompts whose hash is divisible by this; 0 = none"},
    {"tagged", CFG_BOOL, AT(tagged), "false", .help = "put tags [safety] on every record"},
    {"on_bad_row", CFG_ENUM, AT(on_bad_row), "error", .choices = "error|skip",
     .help = "what a malformed row does"},
    {0},
};

static const CliSpec spec = {
    .program = "rlhf import",
    .summary = "turn a public data set into records",
    .usage = "FORMAT IN OUT [key=value ...]",
    .description = "FORMAT: hh-rlhf, ours, and those that 'rlhf import list - -' prints.\n"
                   "IN: .jsonl, .gz, .zst or - ; OUT: compressed by its suffix.",
    .examples = "  rlhf import hh-rlhf harmless-base.test.jsonl.gz harmless.jsonl tagged=true\n",
    .fields = fields,
    .config_bytes = sizeof(ImportConfig),
    .max_args = 3,
};

static int run(const Cli *cli)
{
    const ImportConfig *c = config_data(cli->config);
    ImportReport report = {0};
    Str text = {0};
    if (cli->n_args == 0 || cli->n_args != 3)
        return error_set(ERR_USAGE, "expected FORMAT IN OUT, found %d arguments", cli->n_args);
    if (!strcmp(cli->args[0], "list")) {
        for (const Importer *i = importers; i->name; i++)
            printf("%-16s %s\n", i->name, i->help);
        return 0;
    }
    const Importer *imp = importer_find(cli->args[0]);
    if (!imp)
        return error_set(ERR_USAGE, "unknown format '%s'; 'rlhf import list - -' prints them",
                         cli->args[0]);
    if ((c->held_out_every > 0) != (c->held_out[0] != 0))
        return error_set(ERR_CONFIG, "held_out and held_out_every belong together; give both or none");
    int rc = import_run(imp, cli->args[1], cli->args[2], c->held_out, (int)c->held_out_every, c->tagged,
                        (BadRow)c->on_bad_row, &report);
    if (rc == 0) {
        import_report_print(&report, &text);
        fputs(str_get(&text), strcmp(cli->args[2], "-") ? stdout : stderr);
    }
    str_free(&text);
    return rc;
}

int import_main(int argc, char **argv)
{
    Cli cli = {0};
    log_init(0);
    int rc = cli_parse(&cli, &spec, argc, argv);
    if (rc == 0)
        rc = run(&cli);
    int code = rc < 0 ? cli_fail(spec.program, rc) : 0;
    cli_free(&cli);
    return code;
}
