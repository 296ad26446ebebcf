/* import_main.c - `rlhf import`: a public data set -> our records, with a report. */
#include "rlhf/rlhf.h"

#include "common/base/cli.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "common/data/import.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    const char *held_out, *split, *report, *tokenizer;
    int64_t held_out_every;
    bool tagged;
    int on_bad_row, task, pairs, on_overlap;
    double min_rating;
    ConfigFloats levels;
    ConfigStrings against;
} ImportConfig;

#define AT(m) offsetof(ImportConfig, m)

static const CfgField fields[] = {
    {"held_out", CFG_STRING, AT(held_out), "", .help = "file for the held-out records"},
    {"held_out_every", CFG_INT, AT(held_out_every), "0", 0, 1e9,
     .help = "hold out the prompts whose hash is divisible by this; 0 = none"},
    {"against", CFG_STRINGS, AT(against), "[]",
     .help = "files of records (a test set imported before) whose prompts must not come up"},
    {"on_overlap", CFG_ENUM, AT(on_overlap), "drop", .choices = "drop|keep|error",
     .help = "what a record does whose prompt stands in against"},
    {"split", CFG_STRING, AT(split), "", .help = "only rows whose field split is this"},
    {"task", CFG_ENUM, AT(task), "helpful", .choices = "helpful|safety",
     .help = "which of PKU-SafeRLHF's two preferences"},
    {"pairs", CFG_ENUM, AT(pairs), "all", .choices = "all|best_rest|best_worst",
     .help = "which pairs of several scored answers to one prompt"},
    {"levels", CFG_FLOATS, AT(levels), "[]",
     .help =
         "ratings from which a pair is significant, better, slight; below: negligible. Default: "
         "by format, see 'rlhf import list'"},
    {"min_rating", CFG_FLOAT, AT(min_rating), "0", 0, 1e9, .help = "drop pairs rated lower"},
    {"tagged", CFG_BOOL, AT(tagged), "false", .help = "put tags [safety] on every record"},
    {"on_bad_row", CFG_ENUM, AT(on_bad_row), "error", .choices = "error|skip",
     .help = "what a malformed row does"},
    {"tokenizer", CFG_STRING, AT(tokenizer), "",
     .help = "folder with a tokenizer: lengths in tokens as well"},
    {"report", CFG_STRING, AT(report), "", .help = "write the report as JSON here too"},
    {0},
};

static const CliSpec spec = {
    .program = "rlhf import",
    .summary = "turn a public data set into records",
    .usage = "FORMAT IN OUT [key=value ...]   or   list",
    .description =
        "FORMAT: one of those that 'rlhf import list' prints with their fields, such as hh-rlhf.\n"
        "IN: JSON lines or one JSON array, plain, gzip or zstd by its first bytes; - is standard "
        "input.\n"
        "OUT: JSON lines, compressed when it ends in .gz or .zst; - is standard output, and the "
        "report then goes to standard error.\n"
        "FORMAT 'ours' reads records of any kind: text; prompt; messages or prompt, completion; "
        "prompt, chosen, rejected\n"
        "(+ strength, margin, chosen_safe, rejected_safe); prompt, response, is_safe; with "
        "conversations or instruction, input,\n"
        "output in their place. The programs read all of these as they are; an import checks them, "
        "drops repeated ones and reports. "
        "--dry-run reads and reports, and writes nothing.",
    .examples = "  rlhf import hh-rlhf harmless-base.test.jsonl.gz harmless.jsonl tagged=true\n"
                "  rlhf import diasafety test.json test.jsonl\n"
                "  rlhf import diasafety train.json train.jsonl against=test.jsonl "
                "report=train.report.json\n"
                "  rlhf import shp train.jsonl shp.jsonl.zst levels=[8,4,2] min_rating=1.5\n",
    .fields = fields,
    .config_bytes = sizeof(ImportConfig),
    .max_args = 3,
};

static void print_list(void)
{
    for (const Importer *i = importers; i->name; i++) {
        printf("%-24s %s, %s records\n%-24s   %s\n", i->name, i->set, record_kind_name(i->kind), "",
               i->fields);
        if (i->flags & IMPORT_RATED)
            printf("%-24s   levels=[%g,%g,%g] over the %s\n", "", i->levels[0], i->levels[1],
                   i->levels[2], i->rating);
        if (i->flags & IMPORT_TASK)
            printf("%-24s   task=helpful|safety\n", "");
        if (i->flags & IMPORT_SCORED)
            printf("%-24s   pairs=all|best_rest|best_worst\n", "");
    }
}

static int find_importer(const char *name, const Importer **out)
{
    TextNearest near;
    *out = importer_find(name);
    if (*out)
        return 0;
    text_nearest_init(&near, name);
    for (const Importer *i = importers; i->name; i++)
        text_nearest_try(&near, i->name);
    return error_set(ERR_USAGE, "unknown format '%s'%s%s%s; 'rlhf import list' prints all", name,
                     near.found ? " (did you mean '" : "", near.found ? near.found : "",
                     near.found ? "'?)" : "");
}

static int show_report(const char *json, ImportReport *report, bool to_stderr)
{
    Str text = {0};
    int rc = 0;
    import_report_print(report, &text);
    fputs(str_get(&text), to_stderr ? stderr : stdout);
    str_clear(&text);
    import_report_json(report, &text);
    if (*json)
        rc = file_write_atomic(json, text.s, text.n);
    str_free(&text);
    return rc;
}

static int run(const Cli *cli)
{
    const ImportConfig *c = config_data(cli->config);
    const char *const *args = cli->args;
    ImportOptions o = {.held_out = c->held_out,
                       .held_out_every = c->held_out_every,
                       .tagged = c->tagged,
                       .on_bad = (BadRow)c->on_bad_row,
                       .split = c->split,
                       .task = (ImportTask)c->task,
                       .pairs = (ImportPairs)c->pairs,
                       .levels = c->levels.at,
                       .n_levels = c->levels.n,
                       .min_rating = c->min_rating,
                       .against = c->against.at,
                       .n_against = c->against.n,
                       .on_overlap = (ImportOverlap)c->on_overlap};
    ImportReport report = {0};
    const Importer *imp;
    const char *out;
    int rc = 0;
    if (cli->n_args && !strcmp(args[0], "list")) {
        print_list();
        return 0;
    }
    if (cli->n_args != 3)
        return error_set(ERR_USAGE, "expected FORMAT IN OUT, found %d arguments", cli->n_args);
    TRY(find_importer(args[0], &imp));
    if (c->tokenizer[0])
        TRY(tokenizer_open(&o.tokenizer, c->tokenizer));
    out = args[2];
    if (cli->dry_run) { /* reads and reports all the same */
        out = "/dev/null";
        o.held_out = c->held_out[0] ? out : c->held_out;
    } else if (!strcmp(c->held_out, out)) {
        rc = error_set(ERR_CONFIG, "held_out: '%s' is OUT as well; give it another name", out);
        goto fail;
    }
    TRY(import_run(imp, args[1], out, &o, &report));
    TRY(show_report(cli->dry_run ? "" : c->report, &report, !strcmp(args[2], "-")));
fail:
    import_report_free(&report);
    tokenizer_close(o.tokenizer);
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
