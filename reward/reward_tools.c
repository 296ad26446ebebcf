/* reward_tools.c - `rlhf-reward eval` and `rlhf-reward score`: a trained model on pairs, or on the answers
 * of a .jsonl file. Tested by tests/e2e/test_reward.sh. */
#include "reward/reward.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/stream.h"
#include "reward/reward_eval.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *model, *out, *device;
    ConfigList data;
    int template_kind, on_bad_row, on_long, isa, dtype;
    int64_t max_length, micro_batch_tokens, threads;
    const char *helpful, *safety, *in, *compare;
    double precision;
    const char *dtype_where; /* file:line of key dtype; set by tool_main */
} ToolConfig;

#define AT(m) offsetof(ToolConfig, m)

#define COMMON_FIELDS                                                                                \
    {"template", CFG_ENUM, AT(template_kind), "auto", .choices = TEMPLATE_CHOICES, .help = "chat template; auto = the model's own"}, \
    {"max_length", CFG_INT, AT(max_length), "0", 0, 1e9, .help = "tokens of prompt and answer; 0 = what the model takes, at most 4096"}, \
    {"micro_batch_tokens", CFG_INT, AT(micro_batch_tokens), "8192", 2, 1e9, .flags = CFG_NO_RESULT, .help = "tokens per forward; never changes a score"}, \
    {"device", CFG_STRING, AT(device), "auto", .flags = CFG_NO_RESULT, .help = "auto, cpu, cuda or cuda:N"}, \
    {"threads", CFG_INT, AT(threads), "0", 0, 1024, .flags = CFG_NO_RESULT, .help = "CPU threads; 0 = all"}, \
    {"isa", CFG_ENUM, AT(isa), "auto", .choices = "auto|plain|avx2|avx512|avx512bf16", .flags = CFG_NO_RESULT, .help = "CPU bodies; never changes a result"}, \
    DTYPE_FIELD(ToolConfig, dtype)

static const CfgField eval_fields[] = {
    {"model", CFG_STRING, AT(model), .flags = CFG_REQUIRED, .help = "reward model folder"},
    {"data", CFG_LIST, AT(data), .item_fields = pair_source_fields, .item_bytes = sizeof(PairSource),
     .flags = CFG_REQUIRED, .help = "sources: {path, kind}"},
    {"compare", CFG_STRING, AT(compare), "", .help = "another reward model: paired differences, model - compare"},
    {"precision", CFG_FLOAT, AT(precision), "0.9", 1e-6, 1, .help = "of 'unsafe': which threshold has it, and with what recall"},
    {"out", CFG_STRING, AT(out), "", .flags = CFG_NO_RESULT, .help = "JSON file; empty = text alone"},
    {"on_bad_row", CFG_ENUM, AT(on_bad_row), "error", .choices = "error|skip", .help = "what a malformed record does"},
    {"on_long", CFG_ENUM, AT(on_long), "drop", .choices = "drop|truncate_left|error", .help = "sequences longer than max_length"},
    COMMON_FIELDS,
    {0},
};

static const CfgField score_fields[] = {
    {"helpful", CFG_STRING, AT(helpful), "", .help = "adds reward_helpful"},
    {"safety", CFG_STRING, AT(safety), "", .help = "adds reward_safety"},
    {"in", CFG_STRING, AT(in), .flags = CFG_REQUIRED, .help = ".jsonl with prompt and answer (or completion)"},
    {"out", CFG_STRING, AT(out), .flags = CFG_REQUIRED | CFG_NO_RESULT, .help = "the same lines with the scores; - = stdout"},
    {"on_bad_row", CFG_ENUM, AT(on_bad_row), "error", .choices = "error|skip", .help = "skip: a line that cannot be scored is written without scores and counted"},
    COMMON_FIELDS,
    {0},
};

static const CliSpec eval_spec = {
    .program = "rlhf-reward eval",
    .summary = "accuracy per rating and per safety bin; how well unsafe answers are told from safe ones",
    .description = "Needs no labels for the first. With safety labels: ROC AUC, average precision, the threshold\n"
                   "that has a wished precision, precision and recall at sigmoid 0.5 and 0.15, with intervals\n"
                   "over prompts; the sigmoid it prints is what switch.threshold of rlhf-ppo takes.",
    .examples = "  rlhf-reward eval model=runs/rm/export 'data=[{path: held_out.jsonl}]' compare=runs/old/export\n",
    .fields = eval_fields,
    .config_bytes = sizeof(ToolConfig),
};

static const CliSpec score_spec = {
    .program = "rlhf-reward score",
    .summary = "add rewards to the answers of a .jsonl file",
    .examples = "  rlhf-reward score helpful=runs/rm-h/export in=samples.jsonl out=scored.jsonl\n",
    .fields = score_fields,
    .config_bytes = sizeof(ToolConfig),
};

/* max_length: 0 becomes what the model in the folder was made for: a tool has no reason to ask for more,
 * and one number cannot be right for every model. */
static int resolve_max_length(ToolConfig *c, const char *folder)
{
    ModelConfig config;
    if (c->max_length)
        return 0;
    int rc = model_config_read(&config, folder);
    if (rc == 0)
        c->max_length = config.max_position < 4096 ? config.max_position : 4096;
    return rc;
}

static int64_t pack_tokens(const ToolConfig *c)
{
    return c->micro_batch_tokens > c->max_length ? c->micro_batch_tokens : c->max_length;
}

static int open_device(Device **dev, const ToolConfig *c)
{
    int rc = device_open(dev, &(DeviceOptions){c->device, (int)c->threads, (CpuIsa)c->isa});
    return rc < 0 ? rc : device_set_dtype(*dev, (DType)c->dtype, c->dtype_where);
}

/* A model with its arenas, ready to score. */
typedef struct {
    RewardModel rm;
    Arena weights, work;
    MemoryPlan plan;
} Loaded;

static int load(Loaded *l, const char *folder, const Tokenizer *tok, Device *dev, const ToolConfig *c,
                bool dry_run)
{
    const int tokens = (int)pack_tokens(c), length = (int)c->max_length;
    int rc = 0;
    TRY(reward_model_open(&l->rm, folder, dev, tokenizer_hash(tok)));
    arena_init(&l->weights, dev, ARENA_DEVICE, "weights");
    arena_init(&l->work, dev, ARENA_DEVICE, "activations");
    memory_plan_add(&l->plan, &l->weights);
    memory_plan_add(&l->plan, &l->work);
    TRY(reward_model_alloc(&l->rm, &l->weights, &l->work, tokens, length, false, (DType)c->dtype));
    if (dry_run) {
        memory_plan_print(&l->plan);
        return 0;
    }
    TRY(memory_plan_commit(&l->plan, "micro_batch_tokens, max_length"));
    TRY(reward_model_alloc(&l->rm, &l->weights, &l->work, tokens, length, false, (DType)c->dtype));
    TRY(reward_model_load(&l->rm));
fail:
    return rc;
}

static void unload(Loaded *l)
{
    reward_model_free(&l->rm);
    arena_free(&l->weights);
    arena_free(&l->work);
}

/* ---- eval ----------------------------------------------------------------------------------------- */

/* What eval reads and makes. */
typedef struct {
    Device *dev;
    Tokenizer *tok;
    ChatTemplate chat;
    RecordSet records;
    PairSet set;
    float (*score)[2], (*other)[2]; /* linear scores of the sequences of item i: model, compare */
} EvalWork;

static void eval_work_free(EvalWork *e)
{
    free(e->score);
    free(e->other);
    pair_set_free(&e->set);
    record_set_free(&e->records);
    tokenizer_close(e->tok);
    device_close(e->dev);
}

static int eval_scores(const EvalWork *e, const char *folder, const ToolConfig *c, bool dry_run,
                       float (**score)[2])
{
    Loaded l = {0};
    int rc = load(&l, folder, e->tok, e->dev, c, dry_run);
    if (rc == 0 && !dry_run) {
        *score = xcalloc((size_t)e->set.n + 1, sizeof **score);
        eval_score(&l.rm, &e->set, *score);
    }
    unload(&l);
    return rc;
}

static int eval_report(const EvalWork *e, const ToolConfig *c)
{
    const float(*score)[2] = (const float(*)[2])e->score, (*other)[2] = (const float(*)[2])e->other;
    EvalTable table, table_other;
    DetectComparison both;
    Str text = {0}, json = {0};
    JsonWriter w;
    int rc = 0;
    eval_table(&table, &e->set, score);
    detect_make(&table.detect, &e->set, score, c->precision);
    eval_print(&table, &text);
    jw_init(&w, &json, true);
    jw_object(&w);
    eval_json_keys(&table, &w);
    if (other) {
        eval_table(&table_other, &e->set, other);
        detect_compare(&both, &e->set, score, other, c->precision);
        str_addf(&text, "compared with %s: accuracy %.1f %% there\n", c->compare, 100 * accuracy_of(table_other.all));
        detect_compare_print(&both, &text);
        jw_key(&w, "compare");
        jw_object(&w);
        jw_kstr(&w, "model", c->compare);
        eval_json_accuracy(&w, "all", table_other.all);
        detect_compare_json(&both, &w);
        jw_object_end(&w);
    }
    jw_object_end(&w);
    str_add(&json, "\n");
    fputs(str_get(&text), stdout);
    if (c->out[0]) {
        TRY(dir_make_parent(c->out));
        TRY(file_write_atomic(c->out, str_get(&json), json.n));
    }
fail:
    str_free(&text);
    str_free(&json);
    return rc;
}

static int eval_run(ToolConfig *c, bool dry_run)
{
    EvalWork e = {0};
    int rc = 0;
    PairOptions o = {.on_long = (OnLong)c->on_long, .on_bad_row = (BadRow)c->on_bad_row};
    TRY(resolve_max_length(c, c->model));
    o.max_length = c->max_length;
    TRY(open_device(&e.dev, c));
    TRY(tokenizer_open(&e.tok, c->model));
    TRY(template_init(&e.chat, (TemplateKind)c->template_kind, e.tok));
    TRY(pair_set_read(&e.set, c->data.at, c->data.n, &e.chat, &o, &e.records));
    TRY(eval_scores(&e, c->model, c, dry_run, &e.score));
    if (c->compare[0])
        TRY(eval_scores(&e, c->compare, c, dry_run, &e.other));
    if (!dry_run)
        rc = eval_report(&e, c);
fail:
    eval_work_free(&e);
    return rc;
}

/* ---- score ---------------------------------------------------------------------------------------- */

/* Lines of the input as JSON, and as sequences of one tokenizer. */
typedef struct {
    Json **line;
    Example *seq;
    int64_t n, cap_line, cap_seq;
    int64_t n_bad, n_empty;
    float *helpful, *safety;
} ScoreSet;

/* Prompt and answer of a line as an sft record: {"prompt", "completion"}. */
static int parse_line(Example *e, const Json *j, const ChatTemplate *chat, const ToolConfig *c, int64_t line)
{
    Str text = {0};
    JsonWriter w;
    Json *pair = NULL;
    Record r = {0};
    bool dropped;
    int rc = 0;
    const Json *answer = json_get(j, "answer") ? json_get(j, "answer") : json_get(j, "completion");
    if (!json_get(j, "prompt") || !answer)
        return error_set(ERR_DATA, "%s:%lld: expected prompt and answer (or completion)", c->in,
                         (long long)line);
    jw_init(&w, &text, false);
    jw_object(&w);
    jw_key(&w, "prompt");
    jw_json(&w, json_get(j, "prompt"));
    jw_key(&w, "completion");
    jw_json(&w, answer);
    jw_object_end(&w);
    TRY(json_parse(&pair, str_get(&text), text.n, c->in, line));
    TRY(record_parse(&r, pair, RECORD_SFT, c->in, line));
    TRY(example_make(e, &r, 0, chat, (int)c->max_length, LONG_ERROR, &dropped));
    example_end_at_answer(e);
fail:
    record_free(&r);
    json_free(pair);
    str_free(&text);
    return rc;
}

static int read_lines(ScoreSet *s, const ToolConfig *c, const ChatTemplate *chat)
{
    Reader *r = NULL;
    char *line;
    size_t n;
    int rc = 0, more;
    TRY(reader_open(&r, c->in));
    while ((more = reader_line(r, &line, &n)) > 0) {
        Json *j = NULL;
        int64_t number = reader_line_number(r);
        TRY(json_parse(&j, line, n, c->in, number));
        int64_t k = s->n;
        (void)VEC_GROW(s->seq, k, s->cap_seq);
        memset(&s->seq[s->n], 0, sizeof *s->seq);
        int64_t at = VEC_GROW(s->line, s->n, s->cap_line);
        s->line[at] = j;
        const Json *a = json_get(j, "answer") ? json_get(j, "answer") : json_get(j, "completion");
        if (json_kind(a) == JSON_STR && json_str_len(a) == 0) {
            s->n_empty++; /* an empty answer has no score: the line stays as it is */
            continue;
        }
        rc = parse_line(&s->seq[at], j, chat, c, number);
        if (rc < 0 && c->on_bad_row == BAD_ROW_SKIP) {
            example_free(&s->seq[at]);
            s->n_bad++;
            rc = 0;
        }
        TRY(rc);
    }
    rc = more;
fail:
    reader_close(r);
    return rc;
}

static void score_with(RewardModel *r, const ScoreSet *s, float *out)
{
    const int32_t **ids = xcalloc((size_t)s->n + 1, sizeof *ids);
    int *len = xcalloc((size_t)s->n + 1, sizeof *len);
    float *x = xcalloc((size_t)s->n + 1, sizeof *x);
    int64_t n = 0;
    for (int64_t i = 0; i < s->n; i++) {
        if (s->seq[i].n) {
            ids[n] = s->seq[i].ids;
            len[n++] = s->seq[i].n;
        }
    }
    reward_model_score(r, ids, len, n, x);
    n = 0;
    for (int64_t i = 0; i < s->n; i++)
        out[i] = s->seq[i].n ? x[n++] : NAN;
    free(ids);
    free(len);
    free(x);
}

static int write_lines(const ScoreSet *s, const ToolConfig *c)
{
    Writer *w = NULL;
    Str line = {0};
    int rc = 0;
    TRY(dir_make_parent(c->out));
    TRY(writer_open(&w, c->out));
    for (int64_t i = 0; i < s->n; i++) {
        JsonWriter jw;
        str_clear(&line);
        jw_init(&jw, &line, false);
        jw_object(&jw);
        for (void *it = json_iter(s->line[i]); it; it = json_iter_next(s->line[i], it)) {
            const char *key = json_iter_key(it);
            if ((s->helpful && !strcmp(key, "reward_helpful")) || (s->safety && !strcmp(key, "reward_safety")))
                continue;
            jw_key(&jw, key);
            jw_json(&jw, json_iter_value(it));
        }
        if (s->helpful && !isnan(s->helpful[i]))
            jw_knum(&jw, "reward_helpful", (double)s->helpful[i]);
        if (s->safety && !isnan(s->safety[i]))
            jw_knum(&jw, "reward_safety", (double)s->safety[i]);
        jw_object_end(&jw);
        str_add(&line, "\n");
        TRY(writer_write(w, str_get(&line), line.n));
    }
    rc = writer_close(w);
    w = NULL;
fail:
    writer_abort(w);
    str_free(&line);
    return rc;
}

static int score_one(const char *folder, const Tokenizer *tok, Device *dev, const ToolConfig *c,
                     const ScoreSet *s, bool dry_run, float **out)
{
    Loaded l = {0};
    int rc = load(&l, folder, tok, dev, c, dry_run);
    if (rc == 0 && !dry_run) {
        *out = xcalloc((size_t)s->n + 1, sizeof **out);
        score_with(&l.rm, s, *out);
    }
    unload(&l);
    return rc;
}

static int score_run(ToolConfig *c, bool dry_run)
{
    const char *first = c->helpful[0] ? c->helpful : c->safety;
    Device *dev = NULL;
    Tokenizer *tok = NULL;
    ChatTemplate chat;
    ScoreSet s = {0};
    int rc = 0;
    if (!first[0])
        return error_set(ERR_CONFIG, "give helpful=DIR, safety=DIR or both");
    TRY(resolve_max_length(c, first));
    TRY(open_device(&dev, c));
    TRY(tokenizer_open(&tok, first));
    TRY(template_init(&chat, (TemplateKind)c->template_kind, tok));
    TRY(read_lines(&s, c, &chat));
    if (c->helpful[0])
        TRY(score_one(c->helpful, tok, dev, c, &s, dry_run, &s.helpful));
    if (c->safety[0])
        TRY(score_one(c->safety, tok, dev, c, &s, dry_run, &s.safety));
    if (!dry_run) {
        TRY(write_lines(&s, c));
        log_info("%lld answers scored in %s; without a score: %lld empty, %lld skipped as bad",
                 (long long)(s.n - s.n_bad - s.n_empty), c->out, (long long)s.n_empty, (long long)s.n_bad);
    }
fail:
    for (int64_t i = 0; i < s.n; i++) {
        json_free(s.line[i]);
        example_free(&s.seq[i]);
    }
    free(s.line);
    free(s.seq);
    free(s.helpful);
    free(s.safety);
    tokenizer_close(tok);
    device_close(dev);
    return rc;
}

/* ---- mains ----------------------------------------------------------------------------------------- */

static int tool_main(const CliSpec *spec, int (*run)(ToolConfig *, bool), int argc, char **argv)
{
    Cli cli = {0};
    log_init(0);
    int rc = cli_parse(&cli, spec, argc, argv);
    if (rc == 0) {
        ToolConfig *c = config_data(cli.config);
        c->dtype_where = config_where(cli.config, "dtype");
        rc = run(c, cli.dry_run);
    }
    int code = rc < 0 ? cli_fail(spec->program, rc) : 0;
    cli_free(&cli);
    return code;
}

int reward_eval_main(int argc, char **argv)
{
    return tool_main(&eval_spec, eval_run, argc, argv);
}

int reward_score_main(int argc, char **argv)
{
    return tool_main(&score_spec, score_run, argc, argv);
}
