/* inspect.c - `rlhf inspect`: what a record becomes. Every token with its id and whether it is trained on,
 * so that a wrong template, a doubled BOS or an empty mask is seen before a run. */
#include "rlhf/rlhf.h"

#include "common/base/cli.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/data/example.h"

#include <stdio.h>

typedef struct {
    const char *model, *data;
    int template_kind, kind, on_bad_row;
    int64_t max_length, count, first;
} InspectConfig;

#define AT(m) offsetof(InspectConfig, m)

static const CfgField fields[] = {
    {"model", CFG_STRING, AT(model), .flags = CFG_REQUIRED, .help = "folder with the tokenizer"},
    {"data", CFG_STRING, AT(data), .flags = CFG_REQUIRED, .help = "record file"},
    {"kind", CFG_ENUM, AT(kind), "sft", .choices = "text|prompt|sft|pair|labelled", .help = "kind of record"},
    {"template", CFG_ENUM, AT(template_kind), "auto", .choices = TEMPLATE_CHOICES, .help = "chat template"},
    {"on_bad_row", CFG_ENUM, AT(on_bad_row), "error", .choices = "error|skip", .help = "what a malformed record does"},
    {"max_length", CFG_INT, AT(max_length), "4096", 1, 1e9, .help = "tokens"},
    {"first", CFG_INT, AT(first), "0", 0, 1e12, .help = "first record to show"},
    {"count", CFG_INT, AT(count), "3", 1, 1e9, .help = "records to show"},
    {0},
};

static const CliSpec spec = {
    .program = "rlhf inspect",
    .summary = "show ids, loss mask and template of records",
    .examples = "  rlhf inspect model=runs/sft/export data=pairs.jsonl kind=pair count=1\n",
    .fields = fields,
    .config_bytes = sizeof(InspectConfig),
};

static void print_example(const Example *e, Tokenizer *tok, const char *what)
{
    int trained = 0;
    for (int i = 0; i < e->n; i++)
        trained += e->mask[i];
    printf("  %s: %d tokens, %d before the answer, %d trained\n", what, e->n, e->n_prompt, trained);
    for (int i = 0; i < e->n; i++)
        printf("    %5d  %7d  %c  %s%s\n", i, e->ids[i], e->mask[i] ? '*' : ' ',
               tokenizer_piece(tok, e->ids[i]), tokenizer_is_special(tok, e->ids[i]) ? "  (special)" : "");
}

static int show(const InspectConfig *c, const RecordSet *set, const ChatTemplate *chat, int64_t i)
{
    const Record *r = &set->at[i];
    static const char *const pair_names[2] = {"chosen", "rejected"};
    printf("%s:%lld  id %016llx%s\n", r->file, (long long)r->line, (unsigned long long)r->id,
           r->tagged ? "  tagged safety" : "");
    for (int which = 0; which < (r->kind == RECORD_PAIR ? 2 : 1); which++) {
        Example e = {0};
        bool dropped = false;
        int rc = example_make(&e, r, which, chat, (int)c->max_length, LONG_DROP, &dropped);
        if (rc < 0)
            return rc;
        if (dropped)
            printf("  longer than max_length %lld: dropped\n", (long long)c->max_length);
        else
            print_example(&e, chat->tok, r->kind == RECORD_PAIR ? pair_names[which] : "sequence");
        example_free(&e);
    }
    return 0;
}

static int run(const InspectConfig *c)
{
    Tokenizer *tok = NULL;
    ChatTemplate chat = {0};
    RecordSet set = {0};
    int rc = 0;
    TRY(tokenizer_open(&tok, c->model));
    if (c->kind == RECORD_TEXT && c->template_kind == TEMPLATE_AUTO)
        TRY(template_init(&chat, TEMPLATE_PLAIN, tok));
    else
        TRY(template_init(&chat, (TemplateKind)c->template_kind, tok));
    printf("template %s; ids: position, id, * = trained on, token\n", template_name(chat.kind));
    TRY(record_set_read(&set, c->data, (RecordKind)c->kind, (BadRow)c->on_bad_row));
    for (int64_t i = c->first; i < set.n && i < c->first + c->count; i++)
        TRY(show(c, &set, &chat, i));
    printf("%lld records in %s, %lld rows skipped as bad\n", (long long)set.n, c->data,
           (long long)set.n_bad);
fail:
    record_set_free(&set);
    tokenizer_close(tok);
    return rc;
}

int inspect_main(int argc, char **argv)
{
    Cli cli = {0};
    log_init(0);
    int rc = cli_parse(&cli, &spec, argc, argv);
    if (rc == 0)
        rc = run(config_data(cli.config));
    int code = rc < 0 ? cli_fail(spec.program, rc) : 0;
    cli_free(&cli);
    return code;
}
