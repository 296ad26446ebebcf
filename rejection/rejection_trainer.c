/* rejection_trainer.c - rlhf-rejection: K answers per prompt, scored by both reward models; every
 * answer is kept with its scores (samples.jsonl), the best of each prompt becomes a training record
 * (selected.jsonl), and best-of-n curves say what a larger K would give (curves.json).
 *
 * A step is a block of prompts whose lines go to parts/part-N.jsonl, written atomically; a draw depends
 * on (seed, temperature index, prompt id, sample) alone, so a block made again is the same file. Tested by
 * tests/e2e/test_rejection.sh. */
#include "rejection/rejection_trainer.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/stream.h"
#include "common/generate/generate.h"
#include "common/generate/samples.h"
#include "rejection/rejection_config.h"
#include "rejection/select.h"
#include "reward/reward_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CURVE_MAX = 128 };

/* Means over prompts of E[max of n] and of the median, per kind of prompt. */
typedef struct {
    double max[CURVE_MAX], median;
    int64_t prompts;
} Curve;

typedef struct {
    const RejectionConfig *c;
    Tokenizer *tok;
    ChatTemplate chat;
    RecordSet records;
    ExampleSet prompts;
    ModelConfig policy_config;
    Model model;
    ParamSet policy;
    RewardModel helpful, safety;
    bool has_safety;
    Generator *gen;
    Arena weights, work, host;
    int32_t stop_ids[MODEL_MAX_EOS + 1];
    int n_stop;

    /* a block: n answers, per prompt temperatures x k */
    int64_t per_prompt, room;
    int32_t *ids; /* (room, max_new) */
    float *logp;  /* (room, max_new) */
    Candidate *cand;
    int *n_tokens;

    /* totals; part of a checkpoint */
    struct {
        Curve tagged, untagged;
        int64_t n_prompts, n_answers, n_unfinished, n_selected, n_none, n_all_unsafe;
        double sum_selected_helpful, sum_selected_safety;
    } total;
} Rejection;

/* ---- inputs ------------------------------------------------------------------------------------- */

static int check_models(Rejection *p, Device *dev)
{
    const RejectionConfig *c = p->c;
    int rc = 0;
    TRY(model_config_read(&p->policy_config, c->model));
    if (p->policy_config.head != HEAD_LM) {
        rc = error_set(ERR_DATA, "%s/config.json: architectures: found a scalar head, expected a causal "
                                 "model that can answer", c->model);
        goto fail;
    }
    TRY(tokenizer_check_vocab(p->tok, c->model, p->policy_config.V));
    TRY(reward_model_open(&p->helpful, c->reward_helpful, dev, tokenizer_hash(p->tok)));
    p->has_safety = c->reward_safety[0] != 0;
    if (p->has_safety) {
        TRY(reward_model_open(&p->safety, c->reward_safety, dev, tokenizer_hash(p->tok)));
        if (!p->safety.calibration.anchored && !c->allow_unanchored)
            rc = error_set(ERR_DATA, "%s: the safety model is not anchored, so sigmoid(score) < %g means "
                                     "nothing; train it with safety_loss.weight > 0 or set "
                                     "reward.allow_unanchored: true", c->reward_safety, c->threshold);
    }
fail:
    return rc;
}

static int rejection_init(Trainer *t)
{
    Rejection *p = t->state;
    const RejectionConfig *c = p->c = t->config;
    int rc = 0;
    if (c->max_prompt_length + c->max_new_tokens > c->micro_batch_tokens)
        return error_set(ERR_CONFIG, "%s: micro_batch_tokens: %lld cannot hold one sequence of "
                                     "max_prompt_length + max_new_tokens = %lld; raise it or lower those",
                         config_where(t->cli.config, "micro_batch_tokens"),
                         (long long)c->micro_batch_tokens,
                         (long long)(c->max_prompt_length + c->max_new_tokens));
    TRY(tokenizer_open(&p->tok, c->model));
    TRY(template_init(&p->chat, (TemplateKind)c->template_kind, p->tok));
    TRY(check_models(p, t->dev));
    p->n_stop = generate_stop_ids(p->stop_ids, p->chat.end, &p->policy_config);
    TRY(record_set_read(&p->records, c->prompts_path, RECORD_PROMPT, (BadRow)c->on_bad_row));
    TRY(example_set_make(&p->prompts, &p->records, 0, &p->chat, (int)c->max_prompt_length,
                         (OnLong)c->on_long, (BadRow)c->on_bad_row));
    if (p->prompts.n == 0) {
        rc = error_set(ERR_DATA, "%s: no prompt of at most %lld tokens; raise max_prompt_length",
                       c->prompts_path, (long long)c->max_prompt_length);
        goto fail;
    }
    p->per_prompt = c->k * c->temperatures.n;
    p->room = p->per_prompt * c->block_prompts;
    t->total_steps = (p->prompts.n + c->block_prompts - 1) / c->block_prompts;
    t->memory_advice = "block_prompts, slots, micro_batch_tokens, max_new_tokens";
fail:
    return rc;
}

static int rejection_alloc(Trainer *t)
{
    Rejection *p = t->state;
    const RejectionConfig *c = p->c;
    int64_t tokens = c->micro_batch_tokens, room = p->room * c->max_new_tokens;
    int64_t longest = c->max_prompt_length + c->max_new_tokens;
    int rc = 0;
    if (t->planning) {
        arena_init(&p->weights, t->dev, ARENA_DEVICE, "weights (policy, reward models)");
        arena_init(&p->work, t->dev, ARENA_DEVICE, "activations and KV cache");
        arena_init(&p->host, t->dev, ARENA_HOST, "answers of a block");
        memory_plan_add(&t->plan, &p->weights);
        memory_plan_add(&t->plan, &p->work);
        memory_plan_add(&t->plan, &p->host);
    }
    TRY(model_init(&p->model, &p->policy_config, t->dev, &p->weights, longest));
    params_alloc(&p->policy, &p->model.table, &p->weights, "policy", true);
    TRY(reward_model_alloc(&p->helpful, &p->weights, &p->work, (int)tokens, (int)longest, false));
    if (p->has_safety)
        TRY(reward_model_alloc(&p->safety, &p->weights, &p->work, (int)tokens, (int)longest, false));
    if (!p->gen)
        p->gen = generator_new(&p->model, c->slots, longest, tokens);
    generator_alloc(p->gen, &p->work, &p->host);
    p->ids = arena_bytes(&p->host, (size_t)room * sizeof *p->ids);
    p->logp = arena_bytes(&p->host, (size_t)room * sizeof *p->logp);
    p->cand = arena_bytes(&p->host, (size_t)p->room * sizeof *p->cand);
    p->n_tokens = arena_bytes(&p->host, (size_t)p->room * sizeof *p->n_tokens);
fail:
    return rc;
}

static int rejection_load(Trainer *t)
{
    Rejection *p = t->state;
    int rc = 0;
    TRY(hf_load_params(&p->policy, p->c->model, HEAD_AS_STORED, 0));
    TRY(reward_model_load(&p->helpful));
    if (p->has_safety)
        TRY(reward_model_load(&p->safety));
fail:
    return rc;
}

/* ---- a block ------------------------------------------------------------------------------------ */

static const Record *record_of(const Rejection *p, int64_t prompt)
{
    return &p->records.at[p->prompts.at[prompt].record];
}

/* Answers to prompts [first, first + n): prompt i, temperature j, sample s at row (i * nt + j) * k + s,
 * so that the answers to one prompt are neighbours and share its keys. */
static int answer_block(Trainer *t, Rejection *p, int64_t first, int64_t n)
{
    const RejectionConfig *c = p->c;
    int64_t rows = n * p->per_prompt, M = c->max_new_tokens;
    GenOptions *o = xcalloc((size_t)c->temperatures.n, sizeof *o);
    GenRequest *req = xcalloc((size_t)rows, sizeof *req);
    GenResult *res = xcalloc((size_t)rows, sizeof *res);
    for (int j = 0; j < c->temperatures.n; j++)
        o[j] = (GenOptions){.seed = (uint64_t)t->run->seed,
                            .round = (uint32_t)j,
                            .temperature = c->temperatures.at[j],
                            .max_new_tokens = (int)M,
                            .stop = p->stop_ids,
                            .n_stop = p->n_stop};
    for (int64_t row = 0; row < rows; row++) {
        int64_t prompt = first + row / p->per_prompt;
        const Example *e = &p->prompts.at[prompt];
        req[row] = (GenRequest){.prompt = e->ids,
                                .n_prompt = e->n,
                                .prompt_id = record_of(p, prompt)->id,
                                .sample = (uint32_t)(row % c->k),
                                .option = (int)(row / c->k % c->temperatures.n)};
        res[row] = (GenResult){.ids = p->ids + row * M, .logp = p->logp + row * M};
    }
    int rc = generate(p->gen, &p->policy, req, rows, o, res, t->stop, NULL, NULL);
    for (int64_t row = 0; row < rows; row++) {
        p->n_tokens[row] = res[row].n;
        p->cand[row].finished = res[row].finished;
    }
    free(o);
    free(req);
    free(res);
    return rc;
}

static void score_block(Rejection *p, int64_t first, int64_t n)
{
    int64_t rows = n * p->per_prompt, total = 0, M = p->c->max_new_tokens;
    for (int64_t r = 0; r < rows; r++)
        total += p->prompts.at[first + r / p->per_prompt].n + p->n_tokens[r];
    int32_t *flat = xmalloc((size_t)total * sizeof *flat), *at = flat;
    const int32_t **ids = xcalloc((size_t)rows, sizeof *ids);
    int *len = xcalloc((size_t)rows, sizeof *len);
    float *out = xcalloc((size_t)rows, sizeof *out);
    for (int64_t r = 0; r < rows; r++) {
        const Example *e = &p->prompts.at[first + r / p->per_prompt];
        ids[r] = at;
        len[r] = e->n + p->n_tokens[r];
        memcpy(at, e->ids, (size_t)e->n * sizeof *at);
        memcpy(at + e->n, p->ids + r * M, (size_t)p->n_tokens[r] * sizeof *at);
        at += len[r];
    }
    reward_model_score(&p->helpful, ids, len, rows, out);
    for (int64_t r = 0; r < rows; r++)
        p->cand[r].helpful = (double)out[r];
    if (p->has_safety)
        reward_model_score(&p->safety, ids, len, rows, out);
    for (int64_t r = 0; r < rows; r++)
        p->cand[r].safety = p->has_safety ? (double)out[r] : NAN;
    free(flat);
    free(ids);
    free(len);
    free(out);
}

/* Curves over the finished answers of one prompt, by the model that decides it. */
static void add_curve(Rejection *p, const Candidate *c, bool tagged)
{
    bool by_safety = tagged && p->has_safety;
    Curve *curve = tagged ? &p->total.tagged : &p->total.untagged;
    int K = (int)p->per_prompt, m = 0;
    double *x = xmalloc((size_t)K * sizeof *x);
    for (int i = 0; i < K; i++) {
        if (c[i].finished)
            x[m++] = by_safety ? c[i].safety : c[i].helpful;
    }
    if (m == K) { /* a pool cut by unfinished answers would bend the curve */
        for (int n = 1; n <= K && n <= CURVE_MAX; n++)
            curve->max[n - 1] += select_expected_max(x, K, n);
        curve->median += select_median(x, K);
        curve->prompts++;
    }
    free(x);
}

static int choose(Rejection *p, const Record *rec, const Candidate *c, uint64_t seed)
{
    int K = (int)p->per_prompt;
    double threshold = log(p->c->threshold / (1 - p->c->threshold));
    bool any_safe = !p->has_safety || rec->tagged;
    for (int i = 0; i < K && !any_safe; i++)
        any_safe = c[i].finished && c[i].safety >= threshold;
    p->total.n_all_unsafe += !any_safe;
    if (p->c->select_mode == SELECT_RANDOM) {
        RngKey key = rng_key(seed, RNG_MIX, 0, rec->id, 0, 0);
        return select_random(c, K, rng_uniform(&key));
    }
    return select_best(c, K, rec->tagged, p->has_safety, threshold, (AllUnsafe)p->c->all_unsafe);
}

static int write_block(Trainer *t, Rejection *p, int64_t first, int64_t n)
{
    Str out = {0}, text = {0};
    int64_t M = p->c->max_new_tokens;
    int rc = 0;
    for (int64_t i = 0; i < n; i++) {
        const Record *rec = record_of(p, first + i);
        const Candidate *c = p->cand + i * p->per_prompt;
        int best = choose(p, rec, c, (uint64_t)t->run->seed);
        add_curve(p, c, rec->tagged);
        p->total.n_prompts++;
        p->total.n_selected += best >= 0;
        p->total.n_none += best < 0;
        p->total.sum_selected_helpful += best >= 0 ? c[best].helpful : 0;
        p->total.sum_selected_safety += best >= 0 && p->has_safety ? c[best].safety : 0;
        for (int64_t s = 0; s < p->per_prompt; s++) {
            int64_t row = i * p->per_prompt + s;
            double logp = 0;
            for (int k = 0; k < p->n_tokens[row]; k++)
                logp += (double)p->logp[row * M + k];
            p->total.n_answers++;
            p->total.n_unfinished += !c[s].finished;
            str_clear(&text);
            TRY(template_answer_text(&p->chat, p->ids + row * M, p->n_tokens[row], &text));
            Sample sample = {.record = rec, .sample = (int)(s % p->c->k),
                             .temperature = p->c->temperatures.at[s / p->c->k],
                             .answer = str_get(&text), .finished = c[s].finished,
                             .tokens = p->n_tokens[row], .logp = logp, .ref_logp = NAN,
                             .helpful = c[s].helpful, .safety = c[s].safety, .selected = s == best};
            sample_write(&sample, &out);
        }
    }
    char *dir = path_join(t->run->out_dir, "parts"), *name = xasprintf("part-%06lld.jsonl", (long long)t->step);
    char *path = path_join(dir, name);
    rc = dir_make(dir);
    if (rc == 0)
        rc = file_write_atomic(path, str_get(&out), out.n);
    free(dir);
    free(name);
    free(path);
fail:
    str_free(&out);
    str_free(&text);
    return rc;
}

static int rejection_step(Trainer *t)
{
    Rejection *p = t->state;
    int64_t first = t->step * p->c->block_prompts, n = p->prompts.n - first;
    if (n > p->c->block_prompts)
        n = p->c->block_prompts;
    int rc = answer_block(t, p, first, n);
    if (rc)
        return rc < 0 ? rc : TRAINER_ABANDONED;
    score_block(p, first, n);
    if ((rc = write_block(t, p, first, n)) < 0)
        return rc;
    double chosen = p->total.n_selected ? (double)p->total.n_selected : 1;
    metrics_set(&t->metrics, "rejection/prompts", (double)p->total.n_prompts);
    metrics_set(&t->metrics, "rejection/answers", (double)p->total.n_answers);
    metrics_set(&t->metrics, "rejection/unfinished", (double)p->total.n_unfinished);
    metrics_set(&t->metrics, "rejection/selected", (double)p->total.n_selected);
    metrics_set(&t->metrics, "rejection/selected_helpful", p->total.sum_selected_helpful / chosen);
    metrics_set(&t->metrics, "rejection/selected_safety", p->total.sum_selected_safety / chosen);
    snprintf(t->progress, sizeof t->progress, "%lld answers, %lld selected",
             (long long)p->total.n_answers, (long long)p->total.n_selected);
    return 0;
}

static int rejection_state(Trainer *t, BlobList *l)
{
    Rejection *p = t->state;
    blob_add(l, "totals", &p->total, sizeof p->total);
    return 0;
}

/* ---- results ------------------------------------------------------------------------------------- */

/* One line of samples.jsonl that is selected -> a training record. */
static int write_selected(Writer *w, const Json *j)
{
    static const char *const keep[] = {"id", "prompt", "tags", "reward_helpful", "reward_safety"};
    Str out = {0};
    JsonWriter jw;
    jw_init(&jw, &out, false);
    jw_object(&jw);
    for (size_t i = 0; i < sizeof keep / sizeof *keep; i++) {
        const Json *v = json_get(j, keep[i]);
        if (v) {
            jw_key(&jw, keep[i]);
            jw_json(&jw, v);
        }
    }
    jw_key(&jw, "completion");
    jw_json(&jw, json_get(j, "answer"));
    jw_object_end(&jw);
    str_add(&out, "\n");
    int rc = writer_write(w, str_get(&out), out.n);
    str_free(&out);
    return rc;
}

static int append_part(const char *path, Writer *samples, Writer *selected, int64_t *n_empty)
{
    Reader *r = NULL;
    char *line;
    size_t n;
    int rc = 0, more;
    TRY(reader_open(&r, path));
    while ((more = reader_line(r, &line, &n)) > 0) {
        Json *j = NULL;
        TRY(writer_write(samples, line, n));
        TRY(writer_write(samples, "\n", 1));
        TRY(json_parse(&j, line, n, path, reader_line_number(r)));
        if (json_bool(json_get(j, "selected"), false)) {
            if (json_str_len(json_get(j, "answer")) == 0)
                (*n_empty)++; /* an empty answer cannot be trained on */
            else
                rc = write_selected(selected, j);
        }
        json_free(j);
        TRY(rc);
    }
    rc = more;
fail:
    reader_close(r);
    return rc;
}

static int merge_parts(Trainer *t, int64_t *n_empty)
{
    Writer *samples = NULL, *selected = NULL;
    char *all = path_join(t->run->out_dir, "samples.jsonl");
    char *best = path_join(t->run->out_dir, "selected.jsonl");
    int rc = 0;
    TRY(writer_open(&samples, all));
    TRY(writer_open(&selected, best));
    for (int64_t i = 0; i < t->total_steps; i++) {
        char *name = xasprintf("%s/parts/part-%06lld.jsonl", t->run->out_dir, (long long)i);
        rc = append_part(name, samples, selected, n_empty);
        free(name);
        TRY(rc);
    }
    rc = writer_close(samples);
    samples = NULL;
    TRY(rc);
    rc = writer_close(selected);
    selected = NULL;
fail:
    writer_abort(samples);
    writer_abort(selected);
    free(all);
    free(best);
    return rc;
}

static void curve_write(JsonWriter *w, const char *key, const Curve *c, int K)
{
    double n = c->prompts ? (double)c->prompts : 1;
    jw_key(w, key);
    jw_object(w);
    jw_kint(w, "prompts", c->prompts);
    jw_knum(w, "median", c->median / n);
    jw_key(w, "max_of_n");
    jw_array(w);
    for (int i = 0; i < K && i < CURVE_MAX; i++)
        jw_num(w, c->max[i] / n);
    jw_array_end(w);
    jw_object_end(w);
}

static int write_curves(Trainer *t, Rejection *p)
{
    Str out = {0};
    JsonWriter w;
    jw_init(&w, &out, true);
    jw_object(&w);
    jw_kint(&w, "k", p->per_prompt);
    curve_write(&w, "untagged_by_helpful", &p->total.untagged, (int)p->per_prompt);
    curve_write(&w, p->has_safety ? "tagged_by_safety" : "tagged_by_helpful", &p->total.tagged,
                (int)p->per_prompt);
    jw_object_end(&w);
    str_add(&out, "\n");
    char *path = path_join(t->run->out_dir, "curves.json");
    int rc = file_write_atomic(path, str_get(&out), out.n);
    free(path);
    str_free(&out);
    return rc;
}

static int rejection_finish(Trainer *t)
{
    Rejection *p = t->state;
    int64_t n_empty = 0;
    int rc = 0;
    TRY(merge_parts(t, &n_empty));
    TRY(write_curves(t, p));
    log_info("%lld prompts, %lld answers (%lld without an end, never chosen), %lld selected, %lld prompts "
             "without a choice, %lld with no safe answer, %lld chosen answers empty and left out",
             (long long)p->total.n_prompts, (long long)p->total.n_answers,
             (long long)p->total.n_unfinished, (long long)(p->total.n_selected - n_empty),
             (long long)p->total.n_none, (long long)p->total.n_all_unsafe, (long long)n_empty);
    log_info("training records: %s/selected.jsonl; every answer with its scores: %s/samples.jsonl",
             t->run->out_dir, t->run->out_dir);
fail:
    return rc;
}

static void rejection_free(Trainer *t)
{
    Rejection *p = t->state;
    generator_free(p->gen);
    reward_model_free(&p->helpful);
    reward_model_free(&p->safety);
    params_free(&p->policy);
    model_free(&p->model);
    example_set_free(&p->prompts);
    record_set_free(&p->records);
    tokenizer_close(p->tok);
    arena_free(&p->weights);
    arena_free(&p->work);
    arena_free(&p->host);
}

const TrainerDef rejection_trainer = {
    .cli = {.program = "rlhf-rejection",
            .summary = "sample K answers per prompt, score them, keep the best for fine-tuning",
            .description =
                "A tagged prompt is decided by the safety model alone. Any other prompt first drops answers\n"
                "with sigmoid(safety) < switch.threshold and is then decided by the helpfulness model alone.\n"
                "Answers that did not end by themselves are never chosen.",
            .examples = "  rlhf-rejection -c configs/rejection.yaml --set k=16 --resume auto\n",
            .fields = rejection_fields,
            .config_bytes = sizeof(RejectionConfig)},
    .state_bytes = sizeof(Rejection),
    .init = rejection_init,
    .alloc = rejection_alloc,
    .load = rejection_load,
    .step = rejection_step,
    .state = rejection_state,
    .finish = rejection_finish,
    .free = rejection_free,
};
