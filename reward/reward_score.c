/* reward_score.c - `rlhf-reward score`: rewards for the answers of a .jsonl file. Tested by
 * tests/e2e/test_reward.sh. */
#include "reward/reward.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/stream.h"
#include "common/data/example.h"
#include "reward/reward_tools.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    ToolConfig tool;
    const char *helpful, *safety, *in, *out;
} ScoreConfig;

#define AT(m) offsetof(ScoreConfig, m)

static const CfgField fields[] = {
    {"helpful", CFG_STRING, AT(helpful), "", .help = "adds reward_helpful"},
    {"safety", CFG_STRING, AT(safety), "", .help = "adds reward_safety"},
    {"in", CFG_STRING, AT(in), .flags = CFG_REQUIRED, .help = ".jsonl with prompt and answer (or completion)"},
    {"out", CFG_STRING, AT(out), .flags = CFG_REQUIRED | CFG_NO_RESULT, .help = "the same lines with the scores; - = stdout"},
    {"on_bad_row", CFG_ENUM, AT(tool.on_bad_row), "error", .choices = "error|skip", .help = "skip: a line that cannot be scored is written without scores and counted"},
    TOOL_FIELDS(ScoreConfig),
    {0},
};

static const CliSpec spec = {
    .program = "rlhf-reward score",
    .summary = "add rewards to the answers of a .jsonl file",
    .examples = "  rlhf-reward score helpful=runs/rm-h/export in=samples.jsonl out=scored.jsonl\n",
    .fields = fields,
    .config_bytes = sizeof(ScoreConfig),
    .plans = true,
};

/* Lines of the input as JSON, and as sequences of one tokenizer. */
typedef struct {
    Json **line;
    Example *seq;
    int64_t n, cap_line, cap_seq;
    int64_t n_bad, n_empty;
    float *helpful, *safety;
} ScoreSet;

/* Prompt and answer of a line as an sft record: {"prompt", "completion"}. */
static int parse_line(Example *e, const Json *j, const ChatTemplate *chat, const ScoreConfig *c, int64_t line)
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
    TRY(example_make(e, &r, 0, chat, (int)c->tool.max_length, LONG_ERROR, &dropped));
    example_end_at_answer(e);
fail:
    record_free(&r);
    json_free(pair);
    str_free(&text);
    return rc;
}

static int read_lines(ScoreSet *s, const ScoreConfig *c, const ChatTemplate *chat)
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
        if (rc < 0 && c->tool.on_bad_row == BAD_ROW_SKIP) {
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

static int write_lines(const ScoreSet *s, const ScoreConfig *c)
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

static int score_one(const char *folder, const Tokenizer *tok, Device *dev, const ScoreConfig *c,
                     const ScoreSet *s, bool dry_run, float **out)
{
    LoadedModel l = {0};
    int rc = tool_load(&l, folder, tok, dev, &c->tool, dry_run);
    if (rc == 0 && !dry_run) {
        *out = xcalloc((size_t)s->n + 1, sizeof **out);
        score_with(&l.rm, s, *out);
    }
    tool_unload(&l);
    return rc;
}

static void score_plan(const ScoreSet *s, const ScoreConfig *c)
{
    MadeData made = {.records = (double)s->n};
    double n = 0, prompt = 0, all = 0;
    for (int64_t i = 0; i < s->n; i++) {
        n += s->seq[i].n > 0;
        prompt += s->seq[i].n_prompt;
        all += s->seq[i].n;
    }
    if (c->helpful[0])
        tool_plan_scores(&c->tool, c->helpful, all, n);
    if (c->safety[0])
        tool_plan_scores(&c->tool, c->safety, all, n);
    if (n > 0) {
        made.prompt_tokens = prompt / n;
        made.answer_tokens = (all - prompt) / n;
    }
    if (c->tool.plan)
        run_plan_data(c->tool.plan, c->out, &made);
}

static int score_run(void *config, bool dry_run)
{
    ScoreConfig *c = config;
    const char *first = c->helpful[0] ? c->helpful : c->safety;
    Device *dev = NULL;
    Tokenizer *tok = NULL;
    ChatTemplate chat;
    ScoreSet s = {0};
    int rc = 0;
    if (!first[0])
        return error_set(ERR_CONFIG, "give helpful=DIR, safety=DIR or both");
    TRY(tool_resolve_max_length(&c->tool, first));
    TRY(tool_open_device(&dev, &c->tool, dry_run));
    tool_plan(&c->tool, &spec, c->out, dev);
    TRY(tokenizer_open(&tok, first));
    TRY(template_init(&chat, (TemplateKind)c->tool.template_kind, tok));
    TRY(read_lines(&s, c, &chat));
    if (c->helpful[0])
        TRY(score_one(c->helpful, tok, dev, c, &s, dry_run, &s.helpful));
    if (c->safety[0])
        TRY(score_one(c->safety, tok, dev, c, &s, dry_run, &s.safety));
    score_plan(&s, c);
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

int reward_score_main(int argc, char **argv)
{
    return tool_main(&spec, score_run, argc, argv);
}
