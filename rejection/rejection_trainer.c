/* rejection_trainer.c - rlhf-rejection: K answers per prompt, scored by both reward models; every
 * answer is kept with its scores (samples.jsonl), the best of each prompt becomes a training record
 * (selected.jsonl), and best-of-n curves say what a larger K or another temperature would give
 * (curves.json). Answers of earlier rounds may compete (pool.h).
 *
 * A step is a block of prompts whose lines go to parts/part-N.jsonl (block.c); results.c joins them.
 * A draw depends on (seed, temperature index, prompt id, sample) alone. Tested by
 * tests/e2e/test_rejection.sh. */
#include "rejection/rejection_trainer.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "rejection/rejection.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- inputs ------------------------------------------------------------------------------------- */

static int check_config(const RejectionConfig *c, const Config *where)
{
    if (c->max_prompt_length + c->max_new_tokens > c->micro_batch_tokens)
        return error_set(ERR_CONFIG, "%s: micro_batch_tokens: %lld cannot hold one sequence of "
                                     "max_prompt_length + max_new_tokens = %lld; raise it or lower those",
                         config_where(where, "micro_batch_tokens"), (long long)c->micro_batch_tokens,
                         (long long)(c->max_prompt_length + c->max_new_tokens));
    if (c->k == 0 && c->pools.n == 0)
        return error_set(ERR_CONFIG, "%s: k: found 0, expected at least 1, or pools to choose from",
                         config_where(where, "k"));
    if (c->k > 0 && c->temperatures.n == 0)
        return error_set(ERR_CONFIG, "%s: temperatures: the list is empty; give at least one",
                         config_where(where, "temperatures"));
    return 0;
}

static int check_models(Rejection *p, Device *dev)
{
    const RejectionConfig *c = p->c;
    int rc = 0;
    TRY(hf_read_causal(&p->policy_config, c->model, p->tok, " that can answer"));
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

static int read_inputs(Rejection *p)
{
    const RejectionConfig *c = p->c;
    int rc = 0;
    TRY(record_set_read(&p->records, c->prompts_path, RECORD_PROMPT, (BadRow)c->on_bad_row));
    TRY(example_set_make(&p->prompts, &p->records, 0, &p->chat, (int)c->max_prompt_length,
                         (OnLong)c->on_long, (BadRow)c->on_bad_row));
    if (p->prompts.n == 0) {
        rc = error_set(ERR_DATA, "%s: no prompt of at most %lld tokens; raise max_prompt_length",
                       c->prompts_path, (long long)c->max_prompt_length);
        goto fail;
    }
    TRY(pool_read(&p->pool, &c->pools, &p->records, &p->prompts, &p->chat, c->max_new_tokens,
                  (BadRow)c->on_bad_row));
    if (c->k == 0 && p->pool.n == 0)
        rc = error_set(ERR_DATA, "pools: of %lld lines none is an answer to a prompt of %s that can be "
                                 "chosen, and with k: 0 there are no others; give the pools of these prompts",
                       (long long)p->pool.n_lines, c->prompts_path);
fail:
    return rc;
}

static int rejection_init(Trainer *t)
{
    Rejection *p = t->state;
    const RejectionConfig *c = p->c = t->config;
    int rc = 0;
    TRY(check_config(c, t->cli.config));
    TRY(tokenizer_open(&p->tok, c->model));
    TRY(template_init(&p->chat, (TemplateKind)c->template_kind, p->tok));
    TRY(check_models(p, t->dev));
    p->n_stop = generate_stop_ids(p->stop_ids, p->chat.end, &p->policy_config);
    TRY(read_inputs(p));
    p->per_prompt = c->k * c->temperatures.n;
    p->curves = xcalloc((size_t)c->temperatures.n * CURVE_KINDS, sizeof *p->curves);
    p->options = xcalloc((size_t)c->temperatures.n, sizeof *p->options);
    for (int j = 0; j < c->temperatures.n; j++)
        p->options[j] = (GenOptions){.seed = (uint64_t)t->run->seed,
                                     .round = (uint32_t)j,
                                     .temperature = c->temperatures.at[j],
                                     .max_new_tokens = (int)c->max_new_tokens,
                                     .stop = p->stop_ids,
                                     .n_stop = p->n_stop};
    p->n_inputs = INPUT_POOLS + c->pools.n;
    p->inputs = xcalloc((size_t)p->n_inputs, sizeof *p->inputs);
    p->saved_inputs = xcalloc((size_t)p->n_inputs, sizeof *p->saved_inputs);
    block_plan(p);
    t->total_steps = (p->prompts.n + c->block_prompts - 1) / c->block_prompts;
    t->memory_advice = "block_prompts, slots, micro_batch_tokens, max_new_tokens";
fail:
    return rc;
}

static int rejection_alloc(Trainer *t)
{
    Rejection *p = t->state;
    const RejectionConfig *c = p->c;
    int64_t tokens = c->micro_batch_tokens, longest = c->max_prompt_length + c->max_new_tokens;
    int rc = 0;
    if (t->planning) {
        arena_init(&p->weights, t->dev, ARENA_DEVICE, "weights (policy, reward models)");
        arena_init(&p->work, t->dev, ARENA_DEVICE, "activations and KV cache");
        arena_init(&p->host, t->dev, ARENA_HOST, "answers of a block");
        memory_plan_add(&t->plan, &p->weights);
        memory_plan_add(&t->plan, &p->work);
        memory_plan_add(&t->plan, &p->host);
    }
    ArenaShare share = arena_share(&p->work); /* answers, then scores */
    arena_share_part(&share, "helpfulness");
    TRY(reward_model_alloc(&p->helpful, &p->weights, &p->work, (int)tokens, (int)longest, false,
                           trainer_dtype(t)));
    if (p->has_safety) {
        arena_share_part(&share, "safety");
        TRY(reward_model_alloc(&p->safety, &p->weights, &p->work, (int)tokens, (int)longest, false,
                               trainer_dtype(t)));
    }
    if (c->k) {
        TRY(model_init(&p->model, &p->policy_config, trainer_dtype(t), t->dev, &p->weights, longest));
        params_alloc(&p->policy, &p->model.table, &p->weights, "policy", true);
        if (!p->gen)
            p->gen = generator_new(&p->model, c->slots, longest, tokens);
        arena_share_part(&share, "answers");
        generator_alloc(p->gen, &p->work, &p->host);
    }
    arena_share_end(&share);
    if (t->planning)
        memory_plan_note_share(&t->plan, &share);
    block_alloc(p);
fail:
    return rc;
}

static void plan_data(const Rejection *p, RunPlan *plan, const char *dir, double prompt_tokens, double answers)
{
    const struct {
        const char *name;
        double records;
    } file[] = {{"samples.jsonl", answers}, {"selected.jsonl", (double)p->prompts.n}};
    for (int i = 0; i < 2; i++) {
        MadeData d = {.records = file[i].records, .prompt_tokens = prompt_tokens,
                      .max_new = (double)p->c->max_new_tokens};
        char *path = path_join(dir, file[i].name);
        run_plan_data(plan, path, &d);
        free(path);
        run_plan_disk(plan, "parts", run_plan_data_bytes(&d), false); /* until they are joined */
    }
}

static void rejection_plan(Trainer *t, RunPlan *plan)
{
    const Rejection *p = t->state;
    const RejectionConfig *c = p->c;
    double prompts = 0, pooled = 0, fresh = (double)(p->prompts.n * p->per_prompt);
    double all = fresh + (double)p->pool.n;
    for (int64_t i = 0; i < p->prompts.n; i++)
        prompts += p->prompts.at[i].n;
    for (int64_t i = 0; i < p->pool.n; i++)
        pooled += p->pool.at[i].n + p->prompts.at[p->pool.at[i].prompt].n;
    plan->micro_batch_tokens = (double)c->micro_batch_tokens;
    Work decode = {.kind = WORK_DECODE, .model = (char *)c->model, .tokens = prompts,
                   .sequences = (double)p->prompts.n, .answers = fresh, .max_new = (double)c->max_new_tokens,
                   .calls = (double)t->total_steps, .slots = (double)c->slots};
    Work score = {.kind = WORK_FORWARD, .model = (char *)c->reward_helpful, .scalar = true,
                  .tokens = prompts * (double)p->per_prompt + pooled, .sequences = all, .answers = fresh,
                  .max_new = (double)c->max_new_tokens};
    if (c->k)
        run_plan_work(plan, &decode);
    run_plan_work(plan, &score);
    score.model = (char *)c->reward_safety;
    if (p->has_safety)
        run_plan_work(plan, &score);
    plan_data(p, plan, t->run->out_dir, prompts / (double)p->prompts.n, all);
}

static void log_pools(const Rejection *p)
{
    const Pool *o = &p->pool;
    if (!p->c->pools.n)
        return;
    log_info("pools: %lld lines of %d files, %lld answers compete; left out: %lld to prompts not in this "
             "run, %lld without an end, %lld repeated, %lld longer than max_new_tokens, %lld that the "
             "template refuses, %lld malformed",
             (long long)o->n_lines, p->c->pools.n, (long long)o->n, (long long)o->n_elsewhere,
             (long long)o->n_unfinished, (long long)o->n_twice, (long long)o->n_long,
             (long long)o->n_refused, (long long)o->n_bad);
    if (o->n == 0)
        log_warn("pools: no answer of theirs competes; do they hold the prompts of %s?", p->c->prompts_path);
}

static int hash_input(Rejection *p, int i, const char *file)
{
    Hash128 h;
    if (strcmp(file, "-") == 0)
        return 0; /* standard input cannot be read again */
    int rc = hash128_file(file, &h);
    if (rc == 0)
        hash128_hex(h, p->inputs[i]);
    return rc;
}

static int rejection_load(Trainer *t)
{
    Rejection *p = t->state;
    const RejectionConfig *c = p->c;
    int rc = 0;
    if (c->k) {
        TRY(hf_load_params(&p->policy, c->model, HEAD_AS_STORED, 0));
        TRY(hf_hash(c->model, p->inputs[INPUT_MODEL]));
    }
    TRY(reward_model_load(&p->helpful));
    TRY(hf_hash(c->reward_helpful, p->inputs[INPUT_HELPFUL]));
    if (p->has_safety) {
        TRY(reward_model_load(&p->safety));
        TRY(hf_hash(c->reward_safety, p->inputs[INPUT_SAFETY]));
    }
    TRY(hash_input(p, INPUT_PROMPTS, c->prompts_path));
    for (int i = 0; i < c->pools.n; i++)
        TRY(hash_input(p, INPUT_POOLS + i, c->pools.at[i]));
    log_pools(p);
fail:
    return rc;
}

/* ---- steps -------------------------------------------------------------------------------------- */

/* A part that a checkpoint counts as done must be what this run would have written. */
static int check_inputs(Rejection *p)
{
    const RejectionConfig *c = p->c;
    const char *const keys[] = {"model", "reward.helpful", "reward.safety", "data.prompts"};
    const char *const paths[] = {c->model, c->reward_helpful, c->reward_safety, c->prompts_path};
    if (!p->saved_inputs[INPUT_HELPFUL][0])
        memcpy(p->saved_inputs, p->inputs, (size_t)p->n_inputs * sizeof *p->inputs);
    for (int i = 0; i < p->n_inputs; i++) {
        if (strcmp(p->saved_inputs[i], p->inputs[i]) != 0)
            return error_set(ERR_DATA, "%s: %s: changed since this run began (hash %s, was %s); restore it "
                                       "or start a new run",
                             i < INPUT_POOLS ? keys[i] : "pools",
                             i < INPUT_POOLS ? paths[i] : c->pools.at[i - INPUT_POOLS], p->inputs[i],
                             p->saved_inputs[i]);
    }
    return 0;
}

static void set_metrics(Trainer *t, const Rejection *p)
{
    double chosen = p->total.n_selected ? (double)p->total.n_selected : 1;
    metrics_set(&t->metrics, "rejection/prompts", (double)p->total.n_prompts);
    metrics_set(&t->metrics, "rejection/answers", (double)p->total.n_answers);
    metrics_set(&t->metrics, "rejection/unfinished", (double)p->total.n_unfinished);
    metrics_set(&t->metrics, "rejection/selected", (double)p->total.n_selected);
    metrics_set(&t->metrics, "rejection/selected_helpful", p->total.sum_selected_helpful / chosen);
    metrics_set(&t->metrics, "rejection/selected_safety", p->total.sum_selected_safety / chosen);
    metrics_set(&t->metrics, "rejection/pool_answers", (double)p->total.n_pool);
    metrics_set(&t->metrics, "rejection/pool_selected", (double)p->total.n_pool_selected);
}

static int rejection_step(Trainer *t)
{
    Rejection *p = t->state;
    int64_t first = t->step * p->c->block_prompts, n = p->prompts.n - first;
    int rc = check_inputs(p);
    if (rc == 0)
        rc = block_run(t, p, first, n < p->c->block_prompts ? n : p->c->block_prompts);
    if (rc)
        return rc < 0 ? rc : TRAINER_ABANDONED;
    set_metrics(t, p);
    snprintf(t->progress, sizeof t->progress, "%lld answers, %lld selected",
             (long long)(p->total.n_answers + p->total.n_pool), (long long)p->total.n_selected);
    return 0;
}

static int rejection_state(Trainer *t, BlobList *l)
{
    Rejection *p = t->state;
    blob_add(l, "totals", &p->total, sizeof p->total);
    blob_add(l, "curves", p->curves, (size_t)p->c->temperatures.n * CURVE_KINDS * sizeof *p->curves);
    blob_add(l, "inputs", p->saved_inputs, (size_t)p->n_inputs * sizeof *p->saved_inputs);
    return 0;
}

static int rejection_finish(Trainer *t)
{
    return results_write(t, t->state);
}

static void rejection_free(Trainer *t)
{
    Rejection *p = t->state;
    generator_free(p->gen);
    reward_model_free(&p->helpful);
    reward_model_free(&p->safety);
    params_free(&p->policy);
    model_free(&p->model);
    pool_free(&p->pool);
    block_free(&p->block);
    example_set_free(&p->prompts);
    record_set_free(&p->records);
    tokenizer_close(p->tok);
    arena_free(&p->weights);
    arena_free(&p->work);
    arena_free(&p->host);
    free(p->options);
    free(p->curves);
    free(p->inputs);
    free(p->saved_inputs);
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
            .config_bytes = sizeof(RejectionConfig),
            .plans = true},
    .state_bytes = sizeof(Rejection),
    .init = rejection_init,
    .alloc = rejection_alloc,
    .plan = rejection_plan,
    .load = rejection_load,
    .step = rejection_step,
    .state = rejection_state,
    .finish = rejection_finish,
    .free = rejection_free,
};
