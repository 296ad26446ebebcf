/* reward_evaluate.c - `rlhf-reward eval`: reads the test sets, runs model after model over them (one in memory at a
 * time), then the judge, and leaves the rest to reward_report.c. Models may have different tokenizers: the sets are
 * read once per tokenizer, and an item that one of them drops is dropped for all. Tested by
 * tests/e2e/test_reward_eval.sh. */
#include "reward/reward.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "reward/reward_report.h"
#include "reward/reward_tools.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *path, *name;
    double examples;
} ModelItem;

typedef struct {
    const char *path, *name;
    int kind;
} SetItem;

typedef struct {
    ToolConfig tool;
    const char *model, *compare, *out_dir;
    ConfigList models, data, curve;
    JudgeConfig judge;
    double precision;
    int on_long;
} EvalConfig;

#define AT(m) offsetof(EvalConfig, m)

static const CfgField model_fields[] = {
    {"path", CFG_STRING, offsetof(ModelItem, path), .flags = CFG_REQUIRED, .help = "reward model folder"},
    {"name", CFG_STRING, offsetof(ModelItem, name), "", .help = "in tables; empty = the run's folder"},
    {0},
};

static const CfgField curve_fields[] = {
    {"path", CFG_STRING, offsetof(ModelItem, path), .flags = CFG_REQUIRED, .help = "reward model folder"},
    {"name", CFG_STRING, offsetof(ModelItem, name), "accuracy", .help = "points of one name are one line"},
    {"examples", CFG_FLOAT, offsetof(ModelItem, examples), "0", 0, 1e15, .help = "it was trained on; 0 = as its config.json says"},
    {0},
};

static const CfgField set_fields[] = {
    {"path", CFG_STRING, offsetof(SetItem, path), .flags = CFG_REQUIRED, .help = "record file"},
    {"name", CFG_STRING, offsetof(SetItem, name), "", .help = "of the test set; files of one name are one set; empty = the file's"},
    {"kind", CFG_ENUM, offsetof(SetItem, kind), "pair", .choices = "pair|labelled", .help = "pairs, or single answers with is_safe"},
    {0},
};

static const CfgField fields[] = {
    {"models", CFG_LIST, AT(models), .item_fields = model_fields, .item_bytes = sizeof(ModelItem), .help = "reward models: {path, name}; the first is compared with the others"},
    {"model", CFG_STRING, AT(model), "", .help = "the same as models=[{path: DIR}]"},
    {"compare", CFG_STRING, AT(compare), "", .help = "with model: the second one"},
    {"data", CFG_LIST, AT(data), .item_fields = set_fields, .item_bytes = sizeof(SetItem), .flags = CFG_REQUIRED, .help = "test sets: {path, name, kind}"},
    {"curve", CFG_LIST, AT(curve), .item_fields = curve_fields, .item_bytes = sizeof(ModelItem), .help = "models trained on sets of different sizes: {path, name, examples}"},
    JUDGE_FIELDS(EvalConfig, judge),
    {"precision", CFG_FLOAT, AT(precision), "0.9", 1e-6, 1, .help = "of 'unsafe': which threshold has it, and with what recall"},
    {"out_dir", CFG_STRING, AT(out_dir), "", .flags = CFG_NO_RESULT, .help = "gets eval.json and eval.html; empty = text alone"},
    {"on_bad_row", CFG_ENUM, AT(tool.on_bad_row), "error", .choices = "error|skip", .help = "what a malformed record does"},
    {"on_long", CFG_ENUM, AT(on_long), "drop", .choices = "drop|truncate_left|error", .help = "sequences longer than max_length"},
    TOOL_FIELDS(EvalConfig),
    {0},
};

static const CliSpec spec = {
    .program = "rlhf-reward eval",
    .summary = "reward models on test sets: accuracy, safety, calibration, with intervals",
    .description =
        "Prints every model on every test set: accuracy, by rating, by safety labels and by length; how well\n"
        "unsafe answers are told from safe ones (ROC AUC, precision and recall at sigmoid 0.5 and 0.15, the\n"
        "threshold of a wished precision, which is what switch.threshold of rlhf-ppo takes); calibration. Beside\n"
        "them stand a rule that prefers the longer answer and, with judge.model, a chat model that is asked\n"
        "which answer is better, in both orders. curve takes models trained with different data.fraction.",
    .examples =
        "  rlhf-reward eval model=runs/rm/export 'data=[{path: held_out.jsonl}]'\n"
        "  rlhf-reward eval 'models=[{path: runs/rm-helpful/export}, {path: runs/rm-safety/export}]' \\\n"
        "      'data=[{path: helpful_test.jsonl}, {path: safety_test.jsonl}]' judge.model=runs/sft/export \\\n"
        "      out_dir=runs/eval\n",
    .fields = fields,
    .config_bytes = sizeof(EvalConfig),
    .plans = true,
};

/* The test sets as one tokenizer sees them. */
typedef struct {
    Tokenizer *tok;
    ChatTemplate chat;
    RecordSet records;
    PairSet set;
    int64_t max_length;
} Reading;

typedef struct {
    EvalConfig *c;
    bool dry_run;
    Device *dev;
    PairSource *source; /* data, files of one set side by side */
    int *set_of;        /* by source */
    Reading *reading;   /* room for one per model */
    int n_readings;
    Reading **of_row, **of_curve; /* borrowed from `reading` */
    char **owned;       /* names that were made */
    int n_owned, cap_owned;
    JudgeAnswer *answer;
    RewardReport e;
} Evaluation;

static void evaluation_free(Evaluation *w)
{
    reward_report_free(&w->e);
    for (int i = 0; i < w->n_readings; i++) {
        pair_set_free(&w->reading[i].set);
        record_set_free(&w->reading[i].records);
        tokenizer_close(w->reading[i].tok);
    }
    for (int i = 0; i < w->n_owned; i++)
        free(w->owned[i]);
    free(w->owned);
    free(w->reading);
    free(w->of_row);
    free(w->of_curve);
    free(w->source);
    free(w->set_of);
    free(w->answer);
    device_close(w->dev);
}

/* ---- names ------------------------------------------------------------------------------------------- */

static const char *own(Evaluation *w, char *name)
{
    int at = VEC_GROW(w->owned, w->n_owned, w->cap_owned);
    return w->owned[at] = name;
}

/* "runs/rm-safety/export" is rm-safety. */
static const char *model_name(Evaluation *w, const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    char *whole = xstrndup(path, n), *parent = path_dir(whole);
    bool is_export = !strcmp(path_base(whole), "export") && strcmp(parent, ".") && strcmp(parent, "/");
    char *name = xstrdup(path_base(is_export ? parent : whole));
    free(whole);
    free(parent);
    return own(w, name);
}

/* "pairs/safety_test.jsonl.gz" is safety_test. */
static const char *set_name(Evaluation *w, const char *path)
{
    const char *base = path_base(path), *suffix = strstr(base, ".json");
    return own(w, suffix && suffix > base ? xstrndup(base, (size_t)(suffix - base)) : xstrdup(base));
}

static int index_of_row(const EvalRow *row, int n, const char *name)
{
    for (int i = 0; i < n; i++) {
        if (!strcmp(row[i].name, name))
            return i;
    }
    return -1;
}

/* ---- what is to be measured -------------------------------------------------------------------------- */

static int add_model(Evaluation *w, const char *path, const char *name)
{
    RewardReport *e = &w->e;
    const bool given = name[0];
    const char *called = given ? name : model_name(w, path);
    if (!given && index_of_row(e->row, e->n_rows, called) >= 0)
        called = path;
    if (index_of_row(e->row, e->n_rows, called) >= 0)
        return error_set(ERR_CONFIG, "models: two are called '%s'; give them different names", called);
    e->row[e->n_rows++] = (EvalRow){.name = called, .path = path, .who = EVAL_MODEL};
    return 0;
}

static int list_models(Evaluation *w)
{
    const EvalConfig *c = w->c;
    const ModelItem *m = c->models.at;
    int rc = 0;
    w->e.row = xcalloc((size_t)c->models.n + 4, sizeof *w->e.row);
    if ((c->models.n > 0) == (c->model[0] != 0))
        return error_set(ERR_CONFIG, "give either model=DIR or models=[{path: DIR}, ...]");
    if (c->compare[0] && !c->model[0])
        return error_set(ERR_CONFIG, "compare goes with model; with models, add it to the list");
    for (int i = 0; i < c->models.n; i++)
        TRY(add_model(w, m[i].path, m[i].name));
    if (c->model[0])
        TRY(add_model(w, c->model, ""));
    if (c->compare[0])
        TRY(add_model(w, c->compare, ""));
fail:
    return rc;
}

/* What `rlhf-reward train` says the weights have learned from, each item once. */
static int read_examples(EvalRow *r)
{
    Json *j = NULL;
    int rc = hf_read_extra(r->path, "rlhf_training", &j);
    if (rc < 0)
        return rc;
    double items = json_num(json_get(j, "items"), NAN), seen = json_num(json_get(j, "items_seen"), NAN);
    r->examples = fmin(items, seen);
    json_free(j);
    if (isnan(items) || isnan(seen))
        return error_set(ERR_DATA, "%s/config.json: no rlhf_training says what it has learned from; give "
                                   "examples in curve", r->path);
    return 0;
}

/* Points of one name side by side, by size. */
static int list_curve(Evaluation *w)
{
    const ModelItem *m = w->c->curve.at;
    RewardReport *e = &w->e;
    int rc = 0;
    e->curve = xcalloc((size_t)w->c->curve.n + 1, sizeof *e->curve);
    for (int i = 0; i < w->c->curve.n; i++) {
        EvalRow r = {.name = m[i].name, .path = m[i].path, .who = EVAL_MODEL, .examples = m[i].examples};
        int at = e->n_curve, line = index_of_row(e->curve, e->n_curve, r.name);
        if (r.examples == 0)
            TRY(read_examples(&r));
        for (; line >= 0 && at > line; at--) {
            const EvalRow *before = &e->curve[at - 1];
            if (!strcmp(before->name, r.name) && before->examples <= r.examples)
                break;
            e->curve[at] = *before;
        }
        e->curve[at] = r;
        e->n_curve++;
    }
fail:
    return rc;
}

static int index_of_set(const RewardReport *e, const char *name)
{
    for (int k = 0; k < e->n_sets; k++) {
        if (!strcmp(e->set[k].name, name))
            return k;
    }
    return -1;
}

static void list_sets(Evaluation *w)
{
    const ConfigList *data = &w->c->data;
    const SetItem *item = data->at;
    RewardReport *e = &w->e;
    int n = 0, *of = xcalloc((size_t)data->n + 1, sizeof *of);
    e->set = xcalloc((size_t)data->n + 1, sizeof *e->set);
    w->source = xcalloc((size_t)data->n + 1, sizeof *w->source);
    w->set_of = xcalloc((size_t)data->n + 1, sizeof *w->set_of);
    for (int i = 0; i < data->n; i++) {
        const char *name = item[i].name[0] ? item[i].name : set_name(w, item[i].path);
        of[i] = index_of_set(e, name);
        if (of[i] < 0) {
            of[i] = e->n_sets;
            e->set[e->n_sets++].name = name;
        }
    }
    for (int k = 0; k < e->n_sets; k++) {
        for (int i = 0; i < data->n; i++) {
            if (of[i] != k)
                continue;
            w->source[n] = (PairSource){.path = item[i].path, .kind = item[i].kind};
            w->set_of[n++] = k;
        }
    }
    free(of);
}

/* ---- reading ----------------------------------------------------------------------------------------- */

/* The reading of the tokenizer of this folder, made when there is none yet. */
static int find_reading(Evaluation *w, const char *folder, Reading **found)
{
    Reading *r = &w->reading[w->n_readings];
    const EvalConfig *c = w->c;
    ToolConfig own_length = c->tool;
    int rc = 0;
    *r = (Reading){0};
    TRY(tokenizer_open(&r->tok, folder));
    for (int i = 0; i < w->n_readings; i++) {
        if (!strcmp(tokenizer_hash(w->reading[i].tok), tokenizer_hash(r->tok))) {
            *found = &w->reading[i];
            tokenizer_close(r->tok);
            return 0;
        }
    }
    *found = r;
    w->n_readings++;
    TRY(tool_resolve_max_length(&own_length, folder));
    r->max_length = own_length.max_length;
    TRY(template_init(&r->chat, (TemplateKind)c->tool.template_kind, r->tok));
    PairOptions o = {.max_length = r->max_length, .on_long = (OnLong)c->on_long,
                     .on_bad_row = (BadRow)c->tool.on_bad_row};
    TRY(pair_set_read(&r->set, w->source, w->c->data.n, &r->chat, &o, &r->records));
fail:
    return rc;
}

static int read_all(Evaluation *w)
{
    RewardReport *e = &w->e;
    int rc = 0;
    w->reading = xcalloc((size_t)(e->n_rows + e->n_curve) + 1, sizeof *w->reading);
    w->of_row = xcalloc((size_t)e->n_rows + 1, sizeof *w->of_row);
    w->of_curve = xcalloc((size_t)e->n_curve + 1, sizeof *w->of_curve);
    for (int i = 0; i < e->n_rows; i++)
        TRY(find_reading(w, e->row[i].path, &w->of_row[i]));
    for (int i = 0; i < e->n_curve; i++)
        TRY(find_reading(w, e->curve[i].path, &w->of_curve[i]));
fail:
    return rc;
}

/* Leaves in every reading the items that all of them have. */
static void keep_common(Evaluation *w)
{
    const int64_t n = w->reading[0].records.n;
    int *readers = xcalloc((size_t)n + 1, sizeof *readers);
    for (int i = 0; i < w->n_readings; i++) {
        for (int64_t k = 0; k < w->reading[i].set.n; k++)
            readers[w->reading[i].set.at[k].seq[0].record]++;
    }
    for (int i = 0; i < w->n_readings; i++) {
        PairSet *s = &w->reading[i].set;
        int64_t kept = 0;
        for (int64_t k = 0; k < s->n; k++) {
            if (readers[s->at[k].seq[0].record] == w->n_readings) {
                s->at[kept++] = s->at[k];
                continue;
            }
            example_free(&s->at[k].seq[0]);
            example_free(&s->at[k].seq[1]);
        }
        s->n = kept;
    }
    free(readers);
}

static int cut_sets(Evaluation *w)
{
    const Reading *r = &w->reading[0];
    RewardReport *e = &w->e;
    e->all = &r->set;
    for (int k = 0; k < e->n_sets; k++)
        e->set[k].first = e->set[k].end = -1;
    for (int64_t i = 0; i < r->set.n; i++) {
        EvalSet *s = &e->set[w->set_of[r->set.at[i].source]];
        s->first = s->first < 0 ? i : s->first;
        s->end = i + 1;
    }
    for (int k = 0; k < e->n_sets; k++) {
        if (e->set[k].first < 0)
            return error_set(ERR_DATA, "data: no item of test set '%s' is left; they are longer than max_length "
                                       "%lld, or their text is refused", e->set[k].name, (long long)r->max_length);
    }
    int64_t gone = r->records.n - r->set.n;
    if (gone || r->records.n_bad)
        log_warn("%lld of %lld records are left out: %lld malformed, %lld too long or refused by a template",
                 (long long)(gone + r->records.n_bad), (long long)(r->records.n + r->records.n_bad),
                 (long long)r->records.n_bad, (long long)gone);
    return 0;
}

/* ---- scores ------------------------------------------------------------------------------------------ */

static void plan_scores(const Evaluation *w, const EvalRow *row, const PairSet *s)
{
    double tokens = 0, n = 0;
    for (int64_t i = 0; i < s->n; i++) {
        for (int k = 0; k < s->at[i].n_seqs; k++)
            tokens += s->at[i].seq[k].n;
        n += s->at[i].n_seqs;
    }
    tool_plan_scores(&w->c->tool, row->path, tokens, n);
}

static int score_row(Evaluation *w, EvalRow *row, const Reading *r)
{
    LoadedModel l = {0};
    ToolConfig c = w->c->tool;
    int rc = 0;
    c.max_length = r->max_length;
    if (w->dry_run)
        printf("%s (%s)\n", row->name, row->path);
    TRY(tool_load(&l, row->path, r->tok, w->dev, &c, w->dry_run));
    row->calibration = l.rm.calibration;
    plan_scores(w, row, &r->set);
    if (w->dry_run)
        goto fail;
    row->score = xcalloc((size_t)r->set.n + 1, sizeof *row->score);
    eval_score(&l.rm, &r->set, row->score);
    for (int64_t i = 0; i < r->set.n; i++) {
        if (!isfinite(row->score[i][0]) || !isfinite(row->score[i][1])) {
            rc = error_set(ERR_DIVERGED, "%s: a score is not finite: the weights are broken", row->path);
            goto fail;
        }
    }
fail:
    tool_unload(&l);
    return rc;
}

static void add_length(RewardReport *e)
{
    EvalRow *row = &e->row[e->n_rows++];
    *row = (EvalRow){.name = "length", .who = EVAL_LENGTH};
    row->score = xcalloc((size_t)e->all->n + 1, sizeof *row->score);
    eval_length(e->all, row->score);
}

static int add_judge(Evaluation *w)
{
    RewardReport *e = &w->e;
    const EvalConfig *c = w->c;
    int64_t *first = xcalloc((size_t)e->n_sets + 1, sizeof *first);
    int64_t *n_long = xcalloc((size_t)e->n_sets + 1, sizeof *n_long);
    int rc = 0;
    for (int k = 0; k < e->n_sets; k++)
        first[k] = e->set[k].first;
    first[e->n_sets] = e->all->n;
    JudgeTask task = {.records = &w->reading[0].records, .all = e->all, .first = first, .n_sets = e->n_sets,
                      .on_bad_row = (BadRow)c->tool.on_bad_row, .micro_batch_tokens = c->tool.micro_batch_tokens,
                      .dtype = (DType)c->tool.dtype, .dry_run = w->dry_run, .plan = c->tool.plan};
    w->answer = xcalloc((size_t)e->all->n + 1, sizeof *w->answer);
    if (w->dry_run)
        printf("judge (%s)\n", c->judge.model);
    TRY(judge_run(&c->judge, &task, w->dev, w->answer, n_long));
    EvalRow *row = &e->row[e->n_rows++];
    *row = (EvalRow){.name = "judge", .path = c->judge.model, .who = EVAL_JUDGE};
    row->score = xcalloc((size_t)e->all->n + 1, sizeof *row->score);
    judge_scores(w->answer, e->all->n, row->score);
    e->answer = w->answer;
    e->judge_prompt = c->judge.prompt;
    e->judge = xcalloc((size_t)e->n_sets + 1, sizeof *e->judge);
    for (int k = 0; k < e->n_sets; k++)
        e->judge[k].n_long = n_long[k];
fail:
    free(first);
    free(n_long);
    return rc;
}

static int score_all(Evaluation *w)
{
    RewardReport *e = &w->e;
    const int models = e->n_rows;
    int rc = 0;
    for (int i = 0; i < models; i++)
        TRY(score_row(w, &e->row[i], w->of_row[i]));
    for (int i = 0; i < e->n_curve; i++)
        TRY(score_row(w, &e->curve[i], w->of_curve[i]));
    add_length(e);
    if (w->c->judge.model[0])
        TRY(add_judge(w));
fail:
    return rc;
}

/* ---- results ----------------------------------------------------------------------------------------- */

static int write_file(const char *dir, const char *name, const Str *text)
{
    char *path = path_join(dir, name);
    int rc = file_write_atomic(path, str_get(text), text->n);
    free(path);
    return rc;
}

/* What makes a judge's row worth little. */
static void warn_of_judge(const RewardReport *e)
{
    for (int k = 0; e->answer && k < e->n_sets; k++) {
        const JudgeStats *s = &e->judge[k];
        if (e->set[k].n_pairs && !s->both.n)
            log_warn("judge: all %lld questions about '%s' are longer than judge.max_length", (long long)s->n_long,
                     e->set[k].name);
        else if (s->mass.value < .1)
            log_warn("judge: on '%s' its letters have a probability of %.3f together: it does not answer the question; "
                     "see judge.prompt, judge.template", e->set[k].name, s->mass.value);
    }
}

static int report(Evaluation *w)
{
    const char *dir = w->c->out_dir;
    Str text = {0}, json = {0}, page = {0};
    int rc = 0;
    w->e.precision = w->c->precision;
    reward_report_fill(&w->e);
    reward_report_print(&w->e, &text);
    fputs(str_get(&text), stdout);
    warn_of_judge(&w->e);
    if (dir[0]) {
        reward_report_json(&w->e, &json);
        reward_report_html(&w->e, &page);
        TRY(dir_make(dir));
        TRY(write_file(dir, "eval.json", &json));
        TRY(write_file(dir, "eval.html", &page));
        log_info("written: %s/eval.json, %s/eval.html", dir, dir);
    }
fail:
    str_free(&text);
    str_free(&json);
    str_free(&page);
    return rc;
}

static int eval_run(void *config, bool dry_run)
{
    Evaluation w = {.c = config, .dry_run = dry_run};
    int rc = 0;
    TRY(list_models(&w));
    TRY(list_curve(&w));
    list_sets(&w);
    TRY(tool_open_device(&w.dev, &w.c->tool, dry_run));
    tool_plan(&w.c->tool, &spec, w.c->out_dir, w.dev);
    TRY(read_all(&w));
    keep_common(&w);
    TRY(cut_sets(&w));
    TRY(score_all(&w));
    if (!dry_run)
        rc = report(&w);
fail:
    evaluation_free(&w);
    return rc;
}

int reward_eval_main(int argc, char **argv)
{
    return tool_main(&spec, eval_run, argc, argv);
}
