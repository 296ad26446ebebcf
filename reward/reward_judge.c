/* reward_judge.c - see reward_judge.h. */
#include "reward/reward_judge.h"

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/progress.h"
#include "common/base/rng.h"
#include "common/generate/logp.h"
#include "reward/reward_tools.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SEED = 1, ITEMS_AT_ONCE = 256 };

/* ---- the question ------------------------------------------------------------------------------ */

/* A lone message of the user as it is, anything longer with names. */
static void put_talk(Str *out, const Record *r)
{
    static const char *const names[] = {
        [ROLE_SYSTEM] = "System", [ROLE_USER] = "User", [ROLE_ASSISTANT] = "Assistant"};
    if (r->n_messages == 1 && r->messages[0].role == ROLE_USER) {
        str_add(out, r->messages[0].text);
        return;
    }
    for (int i = 0; i < r->n_messages; i++)
        str_addf(out, "%s%s: %s", i ? "\n\n" : "", names[r->messages[i].role], r->messages[i].text);
}

void judge_question(Str *out, const char *prompt, const Record *r, bool swapped)
{
    while (*prompt) {
        if (!strncmp(prompt, "{prompt}", 8)) {
            put_talk(out, r);
            prompt += 8;
        } else if (!strncmp(prompt, "{a}", 3) || !strncmp(prompt, "{b}", 3)) {
            str_add(out, r->text[(prompt[1] == 'b') != swapped]);
            prompt += 3;
        } else {
            str_add_bytes(out, prompt++, 1);
        }
    }
}

static int check_config(const JudgeConfig *c)
{
    static const char *const wanted[] = {"{prompt}", "{a}", "{b}"};
    for (int i = 0; i < 3; i++) {
        if (!strstr(c->prompt, wanted[i]))
            return error_set(ERR_CONFIG, "judge.prompt: has no %s in it", wanted[i]);
    }
    if (c->letters.n != 2)
        return error_set(ERR_CONFIG, "judge.letters: expected two, found %d", c->letters.n);
    return 0;
}

/* ---- the model --------------------------------------------------------------------------------- */

typedef struct {
    Device *dev;
    Tokenizer *tok;
    ChatTemplate chat;
    ModelConfig config;
    Model model;
    ParamSet params;
    LogpWork work;
    Arena weights, acts, host;
    MemoryPlan plan;
    int64_t max_length;
    int32_t letter[2];
} Judge;

static void judge_free(Judge *j)
{
    logp_free(&j->work);
    params_free(&j->params);
    model_free(&j->model);
    arena_free(&j->weights);
    arena_free(&j->acts);
    arena_free(&j->host);
    tokenizer_close(j->tok);
}

static int alloc(Judge *j, const JudgeTask *task)
{
    int64_t tokens = task->micro_batch_tokens > j->max_length ? task->micro_batch_tokens : j->max_length;
    int rc = model_init(&j->model, &j->config, task->dtype, j->dev, &j->weights, j->max_length);
    if (rc < 0)
        return error_prefix("judge.max_length");
    params_alloc(&j->params, &j->model.table, &j->weights, "judge", true);
    logp_alloc(&j->work, &j->model, &j->acts, &j->host, tokens);
    return 0;
}

/* The id with which an answer begins that is this letter: an answer's ids do not depend on its prompt. */
static int first_token(const Judge *j, const char *letter, int32_t *id)
{
    char question[] = "?";
    Message talk[2] = {{ROLE_USER, question, 1}, {ROLE_ASSISTANT, (char *)letter, strlen(letter)}};
    Span span[2];
    IdList ids = {0};
    int rc = template_render(&j->chat, talk, 2, false, &ids, span);
    if (rc == 0)
        *id = ids.at[span[1].from];
    id_list_free(&ids);
    return rc;
}

static int open_model(Judge *j, const JudgeConfig *c, const JudgeTask *task)
{
    int rc = 0;
    TRY(tokenizer_open(&j->tok, c->model));
    TRY(template_init(&j->chat, (TemplateKind)c->template_kind, j->tok));
    TRY(hf_read_causal(&j->config, c->model, j->tok, " as judge"));
    for (int k = 0; k < 2; k++)
        TRY(first_token(j, c->letters.at[k], &j->letter[k]));
    if (j->letter[0] == j->letter[1]) {
        rc = error_set(ERR_CONFIG,
                       "judge.letters: '%s' and '%s' begin with the same token of %s; choose others and "
                       "name them in judge.prompt",
                       c->letters.at[0], c->letters.at[1], c->model);
        goto fail;
    }
    j->max_length = c->max_length ? c->max_length : tool_default_length(&j->config);
    arena_init(&j->weights, j->dev, ARENA_DEVICE, "judge: weights");
    arena_init(&j->acts, j->dev, ARENA_DEVICE, "judge: activations");
    arena_init(&j->host, j->dev, ARENA_HOST, "judge: host");
    memory_plan_add(&j->plan, &j->weights);
    memory_plan_add(&j->plan, &j->acts);
    memory_plan_add(&j->plan, &j->host);
    TRY(alloc(j, task));
    if (task->plan)
        run_plan_memory(task->plan, &j->plan);
    if (task->dry_run) {
        memory_plan_print(&j->plan);
        return 0;
    }
    TRY(memory_plan_commit(&j->plan, "micro_batch_tokens, judge.max_length"));
    TRY(alloc(j, task));
    TRY(hf_load_params(&j->params, c->model, HEAD_AS_STORED, 0));
fail:
    return rc;
}

/* ---- asking ------------------------------------------------------------------------------------ */

/* The questions of all sets: number 2 q and 2 q + 1 are the two orders of pair item[q]. */
typedef struct {
    LogpItem *at;
    int64_t *item;
    int64_t n, cap, n_pairs, cap_pairs;
} Questions;

static void questions_free(Questions *q)
{
    for (int64_t i = 0; i < q->n; i++)
        free((int32_t *)q->at[i].ids);
    free(q->at);
    free(q->item);
}

static int render(const Judge *j, const JudgeConfig *c, const Record *r, bool swapped, IdList *ids)
{
    Str text = {0};
    judge_question(&text, c->prompt, r, swapped);
    Message question = {ROLE_USER, text.s, text.n};
    int rc = template_render(&j->chat, &question, 1, true, ids, NULL);
    if (rc < 0)
        error_prefix("%s:%lld: as a question to judge.model", r->file, (long long)r->line);
    str_free(&text);
    return rc;
}

/* 1: asked; 0: too long. */
static int add_pair(Questions *q, const Judge *j, const JudgeConfig *c, const Record *r, int64_t item,
                    JudgeAnswer *answer)
{
    IdList ids[2] = {{0}, {0}};
    int rc = 0;
    for (int k = 0; k < 2; k++)
        TRY(render(j, c, r, k == 1, &ids[k]));
    if (ids[0].n <= j->max_length && ids[1].n <= j->max_length) {
        int64_t at = VEC_GROW(q->item, q->n_pairs, q->cap_pairs);
        q->item[at] = item;
        for (int k = 0; k < 2; k++) {
            int64_t to = VEC_GROW(q->at, q->n, q->cap);
            q->at[to] = (LogpItem){ids[k].at, ids[k].n, ids[k].n, answer->logp[k]};
            ids[k] = (IdList){0};
        }
        rc = 1;
    }
fail:
    id_list_free(&ids[0]);
    id_list_free(&ids[1]);
    return rc;
}

/* Marks max_pairs of the pairs [from, to) at random, the same for every judge. */
static void draw_pairs(const PairSet *all, int64_t from, int64_t to, int64_t max_pairs, bool *asked)
{
    int64_t n = 0, *pair = xmalloc((size_t)(to - from + 1) * sizeof *pair);
    int64_t *order = xmalloc((size_t)(to - from + 1) * sizeof *order);
    for (int64_t i = from; i < to; i++) {
        if (all->at[i].n_seqs == 2)
            pair[n++] = i;
    }
    rng_permutation(order, n, SEED, RNG_SPLIT, 0);
    for (int64_t i = 0; i < n && (max_pairs == 0 || i < max_pairs); i++)
        asked[pair[order[i]]] = true;
    free(pair);
    free(order);
}

static int make_questions(Questions *q, const Judge *j, const JudgeConfig *c, const JudgeTask *task,
                          JudgeAnswer *answer, int64_t *n_long)
{
    bool *asked = xcalloc((size_t)task->all->n + 1, sizeof *asked);
    int64_t n_bad = 0;
    int rc = 0;
    for (int k = 0; k < task->n_sets; k++)
        draw_pairs(task->all, task->first[k], task->first[k + 1], c->max_pairs, asked);
    for (int k = 0; k < task->n_sets; k++) {
        n_long[k] = 0;
        for (int64_t i = task->first[k]; i < task->first[k + 1]; i++) {
            if (!asked[i])
                continue;
            rc = add_pair(q, j, c, &task->records->at[task->all->at[i].seq[0].record], i, &answer[i]);
            if (rc == ERR_DATA && task->on_bad_row == BAD_ROW_SKIP) {
                n_bad++;
                continue;
            }
            TRY(rc);
            n_long[k] += rc == 0;
        }
    }
    rc = 0;
    if (n_bad)
        log_warn("%lld pairs are not judged: the judge's template refuses their text", (long long)n_bad);
fail:
    free(asked);
    return rc;
}

static void plan_questions(const Questions *q, const JudgeConfig *c, RunPlan *plan)
{
    Work w = {.kind = WORK_FORWARD, .model = (char *)c->model, .rows = (double)q->n, .sequences = (double)q->n};
    for (int64_t i = 0; i < q->n; i++)
        w.tokens += q->at[i].n;
    run_plan_work(plan, &w);
}

/* ERR_DIVERGED for an answer that is no number. */
static int ask(Judge *j, const JudgeConfig *c, const Questions *q)
{
    Progress p;
    progress_init(&p, "judge", "questions", 0, q->n);
    for (int64_t i = 0; i < q->n; i += ITEMS_AT_ONCE) {
        int64_t n = q->n - i < ITEMS_AT_ONCE ? q->n - i : ITEMS_AT_ONCE;
        logp_choices(&j->work, &j->model, &j->params, q->at + i, n, j->letter, 2);
        progress_update(&p, i + n, NULL);
    }
    progress_done(&p);
    for (int64_t i = 0; i < q->n; i++) {
        if (!isfinite(q->at[i].logp[0]) || !isfinite(q->at[i].logp[1]))
            return error_set(ERR_DIVERGED, "%s: a log-probability is not finite: the weights are broken",
                             c->model);
    }
    return 0;
}

int judge_run(const JudgeConfig *c, const JudgeTask *task, Device *dev, JudgeAnswer *answer,
              int64_t *n_long)
{
    Judge j = {.dev = dev};
    Questions q = {0};
    int rc = 0;
    for (int64_t i = 0; i < task->all->n; i++) {
        for (int k = 0; k < 2; k++)
            answer[i].logp[k][0] = answer[i].logp[k][1] = NAN;
    }
    TRY(check_config(c));
    TRY(open_model(&j, c, task));
    if (task->dry_run && !task->plan)
        goto fail;
    TRY(make_questions(&q, &j, c, task, answer, n_long));
    if (task->plan)
        plan_questions(&q, c, task->plan);
    if (!task->dry_run)
        rc = ask(&j, c, &q);
fail:
    questions_free(&q);
    judge_free(&j);
    return rc;
}

/* ---- what its answers say ---------------------------------------------------------------------- */

/* x_k of reward_judge.h. */
static double log_odds(const JudgeAnswer *a, int k)
{
    double x = (double)a->logp[k][0] - (double)a->logp[k][1];
    return k ? -x : x;
}

void judge_scores(const JudgeAnswer *answer, int64_t n, float (*score)[2])
{
    for (int64_t i = 0; i < n; i++) {
        score[i][0] = (float)(.5 * (log_odds(&answer[i], 0) + log_odds(&answer[i], 1)));
        score[i][1] = 0;
    }
}

/* 1 for what is above 0, 0 below, a half for a tie. */
static double sign_share(double x)
{
    return x > 0 ? 1 : x < 0 ? 0 : .5;
}

static void count(Accuracy *a, double x)
{
    a->n++;
    a->right += x > 0;
    a->tied += x == 0;
}

enum { AGREES, SAYS_FIRST, LIKING, MASS, COLUMNS };

static void look_at(JudgeStats *s, const JudgeAnswer *a, double column[COLUMNS])
{
    double x0 = log_odds(a, 0), x1 = log_odds(a, 1), p = 0;
    count(&s->order[0], x0);
    count(&s->order[1], x1);
    count(&s->both, x0 + x1);
    for (int k = 0; k < 2; k++)
        p += .5 * (exp((double)a->logp[k][0]) + exp((double)a->logp[k][1]));
    column[AGREES] = sign_share(x0) == sign_share(x1);
    column[SAYS_FIRST] = .5 * (sign_share(x0) + sign_share(-x1));
    column[LIKING] = .5 * (x0 - x1);
    column[MASS] = p;
}

/* Rows of `value`, NaN where nothing was asked; returns how many prompts were asked about. */
static int64_t look_at_all(JudgeStats *s, const PairSet *set, const JudgeAnswer *answer, const Prompts *prompts,
                           double *const value[COLUMNS])
{
    bool *seen = xcalloc((size_t)prompts->n + 1, sizeof *seen);
    double row[COLUMNS];
    int64_t n = 0;
    for (int64_t i = 0; i < set->n; i++) {
        bool asked = set->at[i].n_seqs == 2 && !isnan(answer[i].logp[0][0]);
        if (asked) {
            look_at(s, &answer[i], row);
            n += !seen[prompts->of[i]];
            seen[prompts->of[i]] = true;
        }
        for (int c = 0; c < COLUMNS; c++)
            value[c][i] = asked ? row[c] : NAN;
    }
    free(seen);
    return n;
}

void judge_stats(JudgeStats *s, const PairSet *set, const JudgeAnswer *answer)
{
    double *value[COLUMNS];
    Interval mean[COLUMNS];
    Prompts prompts;
    *s = (JudgeStats){.n_long = s->n_long};
    prompts_make(&prompts, set, NULL);
    for (int c = 0; c < COLUMNS; c++)
        value[c] = xmalloc((size_t)(set->n + 1) * sizeof *value[c]);
    int64_t n = look_at_all(s, set, answer, &prompts, value);
    prompts_means(&prompts, value, COLUMNS, set->n, mean);
    s->agreement = prompts_share(mean[AGREES], n);
    s->says_first = prompts_share(mean[SAYS_FIRST], n);
    s->liking = mean[LIKING];
    s->mass = mean[MASS];
    for (int c = 0; c < COLUMNS; c++)
        free(value[c]);
    prompts_free(&prompts);
}

void judge_json(const JudgeStats *s, const char *set, JsonWriter *w)
{
    jw_object(w);
    jw_kstr(w, "set", set);
    jw_kint(w, "pairs", s->both.n);
    jw_kint(w, "too_long", s->n_long);
    interval_json(w, "accuracy", accuracy_interval(s->both));
    interval_json(w, "accuracy_chosen_first", accuracy_interval(s->order[0]));
    interval_json(w, "accuracy_chosen_second", accuracy_interval(s->order[1]));
    interval_json(w, "agreement", s->agreement);
    interval_json(w, "says_first", s->says_first);
    interval_json(w, "log_odds_of_first", s->liking);
    interval_json(w, "mass_on_letters", s->mass);
    jw_object_end(w);
}
