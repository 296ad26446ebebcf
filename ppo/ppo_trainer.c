/* ppo_trainer.c - rlhf-ppo: PPO with a KL penalty whose reward switches to the safety model on tagged
 * prompts or below 0.15 (Llama 2, section 3.2.3). Order of one iteration:
 *
 *   answers from the policy -> scores -> switch -> common scale -> whitening -> EOS rule -> - beta KL
 *   -> GAE (or against the group) -> advantages whitened over the batch
 *   -> one gradient step per minibatch, policy (with the language-model loss) and critic
 *
 * rollout.c, critic.c, ppo_update.c and ppo_ptx.c hold the parts, ppo_math.c the formulas. Tested by
 * tests/e2e/test_ppo.sh. */
#include "ppo/ppo_trainer.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/model/safetensors.h"
#include "ppo/ppo.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool has_critic(const Ppo *p)
{
    return ppo_has_critic(p->c);
}

static int ppo_init(Trainer *t)
{
    Ppo *p = t->state;
    const PpoConfig *c = p->c = t->config;
    int rc = 0;
    p->best_score = -INFINITY;
    p->best_step = -1;
    p->kl_coef = c->kl_coef;
    p->scale[0] = p->scale[1] = (ScoreScale){0, 1};
    TRY(ppo_config_check(c, t->cli.config));
    TRY(trainer_check_units(t, c->micro_batch_tokens));
    TRY(ppo_open_inputs(p, t->dev));
    t->total_steps = c->iterations * (c->batch_size / c->minibatch_size);
    t->memory_advice = "gradient_checkpointing, micro_batch_tokens, slots, max_new_tokens, batch_size";
fail:
    return rc;
}

/* ---- memory ------------------------------------------------------------------------------------- */

static void plan_arenas(Trainer *t, Ppo *p)
{
    bool critic = has_critic(p);
    arena_init(&p->weights, t->dev, ARENA_DEVICE,
               critic ? "weights (policy, reference, rewards, critic)" : "weights (policy, reference, rewards)");
    arena_init(&p->grads, t->dev, ARENA_DEVICE, critic ? "gradients (policy, critic)" : "gradients (policy)");
    arena_init(&p->optim, t->dev, ARENA_DEVICE, critic ? "optimizer (policy, critic)" : "optimizer (policy)");
    arena_init(&p->work, t->dev, ARENA_DEVICE, "activations and KV cache");
    arena_init(&p->host, t->dev, ARENA_HOST, "rollout");
    memory_plan_add(&t->plan, &p->weights);
    memory_plan_add(&t->plan, &p->grads);
    memory_plan_add(&t->plan, &p->optim);
    memory_plan_add(&t->plan, &p->work);
    memory_plan_add(&t->plan, &p->host);
}

static void alloc_stage(Ppo *p, int64_t n)
{
    size_t words = (size_t)n;
    p->max_tokens = n;
    p->stage = arena_bytes(&p->host, words * sizeof *p->stage);
    p->stage_ratio = arena_bytes(&p->host, words * sizeof *p->stage_ratio);
    p->stage_entropy = arena_bytes(&p->host, words * sizeof *p->stage_entropy);
    p->stage_rows = arena_bytes(&p->host, words * sizeof *p->stage_rows);
    p->stage_target = arena_bytes(&p->host, words * sizeof *p->stage_target);
    p->stage_seq = arena_bytes(&p->host, words * sizeof *p->stage_seq);
}

static int alloc_critic(Trainer *t, Ppo *p, int64_t tokens, int64_t longest)
{
    int rc = 0;
    TRY(model_init(&p->critic_model, &p->critic_config, trainer_dtype(t), t->dev, &p->weights, longest));
    params_alloc(&p->critic, &p->critic_model.table, &p->weights, "critic", false);
    grads_alloc(&p->critic_grads, &p->critic_model.table, &p->grads);
    optim_alloc(&p->critic_optim, &p->c->critic, &p->critic, &p->critic_grads, &p->optim);
    if (!p->critic_acts)
        p->critic_acts = acts_new(&p->critic_model, tokens, true, (Recompute)p->c->recompute);
    acts_alloc(p->critic_acts, &p->work);
    scalar_head_alloc(&p->value_head, &p->critic_model, &p->work, tokens, true);
    p->value_loss = arena_rows1(&p->work, DTYPE_F32, tokens);
    p->value_old = arena_rows1(&p->work, DTYPE_F32, tokens);
    p->value_ret = arena_rows1(&p->work, DTYPE_F32, tokens);
    p->value_weight = arena_rows1(&p->work, DTYPE_F32, tokens);
fail:
    return rc;
}

static int alloc_policy(Trainer *t, Ppo *p, int64_t tokens, int64_t longest)
{
    const PpoConfig *c = p->c;
    int64_t positions = c->ptx.coef > 0 && c->ptx.max_length > longest ? c->ptx.max_length : longest;
    int rc = 0;
    TRY(model_init(&p->model, &p->policy_config, trainer_dtype(t), t->dev, &p->weights, positions));
    params_alloc(&p->policy, &p->model.table, &p->weights, "policy", false);
    params_alloc(&p->reference, &p->model.table, &p->weights, "reference", true);
    grads_alloc(&p->policy_grads, &p->model.table, &p->grads);
    optim_alloc(&p->policy_optim, &c->policy, &p->policy, &p->policy_grads, &p->optim);
    if (!p->acts) {
        p->acts = acts_new(&p->model, tokens, true, (Recompute)c->recompute);
        p->gen = generator_new(&p->model, c->slots, longest, tokens);
        pack_init(&p->pack, (int)tokens, (int)tokens);
        p->pack.unit_tokens = trainer_unit_tokens(t);
    }
    acts_alloc(p->acts, &p->work);
    lm_head_alloc(&p->head, &p->model, &p->work, &p->host, tokens, true);
fail:
    return rc;
}

/* What lies on the same bytes, a part at a time. */
typedef struct {
    ArenaShare work, grads;
} Shares;

/* Models take turns, in an iteration and in an update, and leave nothing on the device but their weights: neither
 * activations nor, behind the optimizer's step, gradients. */
static int alloc_models(Trainer *t, Ppo *p, Shares *s, int64_t tokens, int64_t longest)
{
    const DType dtype = trainer_dtype(t);
    int rc = 0;
    arena_share_part(&s->work, "policy");
    arena_share_part(&s->grads, "policy");
    TRY(alloc_policy(t, p, tokens, longest));
    arena_share_part(&s->work, "answers");
    generator_alloc(p->gen, &p->work, &p->host);
    arena_share_part(&s->work, "helpfulness");
    TRY(reward_model_alloc(&p->helpful, &p->weights, &p->work, (int)tokens, (int)longest, false, dtype));
    if (p->has_safety) {
        arena_share_part(&s->work, "safety");
        TRY(reward_model_alloc(&p->safety, &p->weights, &p->work, (int)tokens, (int)longest, false, dtype));
    }
    if (has_critic(p)) {
        arena_share_part(&s->work, "critic");
        arena_share_part(&s->grads, "critic");
        TRY(alloc_critic(t, p, tokens, longest));
    }
    arena_share_end(&s->work);
    arena_share_end(&s->grads);
fail:
    return rc;
}

static void note_parts(Trainer *t, const Ppo *p, const Shares *s)
{
    memory_plan_note_share(&t->plan, &s->grads);
    memory_plan_note_share(&t->plan, &s->work);
    acts_note(p->acts, &t->plan, &p->work, "policy ");
    if (has_critic(p))
        acts_note(p->critic_acts, &t->plan, &p->work, "critic ");
    lm_head_note(&p->head, &t->plan, &p->work);
}

static int ppo_alloc(Trainer *t)
{
    Ppo *p = t->state;
    const PpoConfig *c = p->c;
    int64_t tokens = c->micro_batch_tokens, longest = c->max_prompt_length + c->max_new_tokens;
    int rc = 0;
    if (t->planning)
        plan_arenas(t, p);
    Shares shares = {arena_share(&p->work), arena_share(&p->grads)};
    TRY(alloc_models(t, p, &shares, tokens, longest));
    if (t->planning)
        note_parts(t, p, &shares);
    batch_alloc(&p->batch, &p->work, t->dev, tokens, tokens);
    rollout_alloc(&p->roll, &p->host, c->batch_size, c->max_new_tokens, has_critic(p));
    rollout_alloc(&p->probe, &p->host, p->held_out.n > 0 ? p->held_out.n : 1, c->max_new_tokens, false);
    alloc_stage(p, tokens);
fail:
    return rc;
}

static int ppo_load(Trainer *t)
{
    Ppo *p = t->state;
    const PpoConfig *c = p->c;
    int rc = 0;
    TRY(hf_load_params(&p->policy, c->model, HEAD_AS_STORED, 0));
    TRY(hf_load_params(&p->reference, ppo_reference_folder(c), HEAD_AS_STORED, 0));
    TRY(reward_model_load(&p->helpful));
    if (p->has_safety)
        TRY(reward_model_load(&p->safety));
    grads_zero(&p->policy_grads);
    if (has_critic(p)) {
        TRY(hf_load_params(&p->critic, ppo_critic_folder(c), HEAD_AS_STORED, 0));
        grads_zero(&p->critic_grads);
    }
    TRY(ppo_hash_inputs(p));
fail:
    return rc;
}

/* ---- checkpoint --------------------------------------------------------------------------------- */

static void add_rollout(BlobList *l, Rollout *r)
{
    size_t b = (size_t)r->B, bm = (size_t)(r->B * r->M);
    blob_add(l, "rollout.n_used", &r->n_used, sizeof r->n_used);
    blob_add(l, "rollout.prompt", r->prompt, b * sizeof *r->prompt);
    blob_add(l, "rollout.n", r->n, b * sizeof *r->n);
    blob_add(l, "rollout.raw", r->raw, b * sizeof *r->raw);
    blob_add(l, "rollout.k1", r->k1, b * sizeof *r->k1);
    blob_add(l, "rollout.ids", r->ids, bm * sizeof *r->ids);
    blob_add(l, "rollout.logp", r->logp, bm * sizeof *r->logp);
    blob_add(l, "rollout.adv", r->adv, bm * sizeof *r->adv);
    if (r->value) {
        blob_add(l, "rollout.value", r->value, bm * sizeof *r->value);
        blob_add(l, "rollout.ret", r->ret, bm * sizeof *r->ret);
    }
}

static int ppo_state(Trainer *t, BlobList *l)
{
    Ppo *p = t->state;
    blob_add_params(l, "policy", &p->policy);
    blob_add_optim(l, "policy", &p->policy_optim);
    if (has_critic(p)) {
        blob_add_params(l, "critic", &p->critic);
        blob_add_optim(l, "critic", &p->critic_optim);
    }
    add_rollout(l, &p->roll);
    blob_add(l, "score_scale", p->scale, sizeof p->scale);
    blob_add(l, "score_running", &p->running, sizeof p->running);
    blob_add(l, "kl_coef", &p->kl_coef, sizeof p->kl_coef);
    blob_add(l, "ptx_cursor", &p->ptx.cursor, sizeof p->ptx.cursor);
    blob_add(l, "best_score", &p->best_score, sizeof p->best_score);
    blob_add(l, "best_step", &p->best_step, sizeof p->best_step);
    blob_add(l, "evals_without_gain", &p->evals_without_gain, sizeof p->evals_without_gain);
    blob_add(l, "inputs", p->saved_inputs, sizeof p->saved_inputs);
    return 0;
}

/* ---- one iteration ------------------------------------------------------------------------------ */

/* Prompts of an iteration: the next ones of an endless walk over per-epoch permutations, each for
 * samples_per_prompt neighbours. */
static void choose_prompts(const Ppo *p, Rollout *r, int64_t iteration, uint64_t seed)
{
    int64_t n = p->prompts.n, made = -1, G = p->c->samples_per_prompt;
    int64_t *order = xmalloc((size_t)n * sizeof *order);
    for (int64_t b = 0; b < r->B; b++) {
        int64_t at = (iteration * r->B + b) / G, epoch = at / n;
        if (epoch != made)
            rng_permutation(order, n, seed, RNG_SHUFFLE, (uint64_t)epoch);
        made = epoch;
        r->prompt[b] = order[at % n];
    }
    free(order);
}

static int check_first_kl(const Ppo *p, const Rollout *r)
{
    for (int64_t b = 0; strcmp(ppo_reference_folder(p->c), p->c->model) == 0 && b < r->n_used; b++) {
        if (r->k1[b] != 0)
            return error_set(ERR_INTERNAL, "answer %lld: KL to the reference is %g before the first "
                                           "update although policy and reference are equal",
                             (long long)b, r->k1[b]);
    }
    return 0;
}

/* Critic's values, once its head speaks in the units of the shaped scores. */
static int make_values(Ppo *p, Rollout *r, bool first, bool flat)
{
    int rc = 0;
    if (first && p->c->critic_refit && flat)
        log_warn("critic.refit: all scores of the first rollout are equal; the value head stays as it is");
    else if (first && p->c->critic_refit)
        rc = critic_refit(p, r, &p->prompts);
    if (rc == 0)
        critic_values(p, r, &p->prompts);
    return rc;
}

static void warn_of_scores(const Ppo *p, const Rollout *r, int64_t iteration, bool flat, double finished)
{
    if (flat)
        log_warn("iteration %lld: all finished answers have the same score (spread below 1e-4): only the "
                 "KL penalty is left", (long long)iteration);
    if (finished == 0)
        log_warn("iteration %lld: none of the %lld answers ended within max_new_tokens %lld, so all score "
                 "alike: raise it, or start from a model that ends its answers", (long long)iteration,
                 (long long)r->n_used, (long long)p->c->max_new_tokens);
}

/* 0, 1 = KL beyond kl_max: the run is over, TRAINER_ABANDONED, or an error. What a checkpoint holds
 * changes only after the answers are there, so an abandoned rollout leaves it as it was. */
static int begin_iteration(Trainer *t, Ppo *p, int64_t iteration)
{
    const PpoConfig *c = p->c;
    Rollout *r = &p->roll;
    bool flat;
    double kl_before = iteration ? ppo_mean(r->k1, r->n_used) : 0;
    choose_prompts(p, r, iteration, (uint64_t)t->run->seed);
    int rc = rollout_run(p, r, &p->prompts, &p->train, r->B, (uint32_t)iteration,
                         (uint64_t)t->run->seed, t->stop);
    if (rc)
        return rc < 0 ? rc : TRAINER_ABANDONED;
    if (iteration == 0 && (rc = check_first_kl(p, r)) < 0)
        return rc;
    p->before.running = p->running;
    p->before.kl_coef = p->kl_coef;
    p->before.kl = kl_before;
    p->before.ptx_cursor = p->ptx.cursor;
    if (iteration > 0 && c->kl_target > 0)
        p->kl_coef = ppo_adapt_kl(p->kl_coef, kl_before, c->kl_target, c->kl_horizon, r->B);
    if (iteration == 0 && c->normalize == NORMALIZE_PER_MODEL)
        rollout_measure_scale(p, r);
    rollout_scale(p, r);
    rollout_shape(p, r, &flat);
    if (has_critic(p) && (rc = make_values(p, r, iteration == 0, flat)) < 0)
        return rc;
    rollout_advantages(p, r);
    ppo_rollout_metrics(&t->metrics, p, r, flat);
    warn_of_scores(p, r, iteration, flat, metrics_get(&t->metrics, "objective/finished"));
    double kl = ppo_mean(r->k1, r->n_used);
    if (c->kl_max > 0 && kl > c->kl_max) {
        log_warn("iteration %lld: mean sequence KL %.3f exceeds eval.kl_max %.3f: stopping",
                 (long long)iteration, kl, c->kl_max);
        return 1;
    }
    return 0;
}

/* ---- step ---------------------------------------------------------------------------------------- */

static bool dumps(const Ppo *p, int64_t iteration)
{
    return p->c->dump_dir[0] && iteration == p->c->dump_iteration;
}

static int dump_gradients(const Ppo *p, const Grads *g, int64_t iteration, int64_t mini, const char *name)
{
    return dumps(p, iteration) && mini == 0 ? ppo_dump_gradients(g, p->c->dump_dir, name) : 0;
}

/* One step of the policy, or none while the critic trains alone. */
static int update_policy(Trainer *t, Ppo *p, int64_t iteration, int64_t mini, UpdateStats *s)
{
    const PpoConfig *c = p->c;
    const int64_t from = mini * c->minibatch_size, first = ppo_warmup(c) * (c->batch_size / c->minibatch_size);
    const bool moves = iteration >= ppo_warmup(c);
    const char *bad;
    if (moves)
        ppo_policy_gradients(p, &p->roll, from, from + c->minibatch_size, s);
    if (moves && mini == 0 && s->ratio_max_dev != 0)
        return error_set(ERR_INTERNAL, "iteration %lld: the ratio of the first minibatch is off by %g; "
                                       "sampler and trainer must give the same bits",
                         (long long)iteration, s->ratio_max_dev);
    int rc = dump_gradients(p, &p->policy_grads, iteration, mini, "policy");
    if (rc < 0 || !moves)
        return rc;
    s->lr = schedule_lr(&c->policy, t->step - first, t->total_steps - first);
    s->policy_norm = optim_step(&p->policy_optim, s->lr, &bad);
    return optim_check(&p->policy_optim, t->step + 1, bad);
}

static int update_critic(Trainer *t, Ppo *p, int64_t iteration, int64_t mini, UpdateStats *s)
{
    const PpoConfig *c = p->c;
    const int64_t from = mini * c->minibatch_size;
    const char *bad;
    ppo_critic_gradients(p, &p->roll, from, from + c->minibatch_size, s);
    int rc = dump_gradients(p, &p->critic_grads, iteration, mini, "critic");
    if (rc < 0)
        return rc;
    s->value_norm = optim_step(&p->critic_optim, schedule_lr(&c->critic, t->step, t->total_steps), &bad);
    return optim_check(&p->critic_optim, t->step + 1, bad);
}

static int ppo_step(Trainer *t)
{
    Ppo *p = t->state;
    int64_t per = p->c->batch_size / p->c->minibatch_size;
    int64_t iteration = t->step / per, mini = t->step % per;
    UpdateStats s = {0};
    int rc = 0;
    TRY(ppo_check_inputs(p));
    if (mini == 0) {
        TRY(begin_iteration(t, p, iteration));
        if (rc > 0)
            return rc;
        if (dumps(p, iteration)) {
            TRY(ppo_dump_rollout(p, p->c->dump_dir, metrics_get(&t->metrics, "objective/flat_scores") > 0,
                                 t->step, t->total_steps));
            TRY(ppo_dump_weights(p, p->c->dump_dir, "before"));
        }
    }
    TRY(update_policy(t, p, iteration, mini, &s));
    if (has_critic(p))
        TRY(update_critic(t, p, iteration, mini, &s));
    if (dumps(p, iteration) && mini == per - 1)
        TRY(ppo_dump_weights(p, p->c->dump_dir, "after"));
    ppo_update_metrics(t, p, &s, iteration, iteration >= ppo_warmup(p->c));
    bool last = t->step + 1 == t->total_steps;
    if (p->held_out.n && mini == per - 1 && (last || (iteration + 1) % p->c->eval_iterations == 0))
        return ppo_evaluate(t, p);
fail:
    return rc;
}

static int ppo_finish(Trainer *t)
{
    Ppo *p = t->state;
    char *folder = path_join(t->run->out_dir, "export");
    int rc = hf_save(&p->policy, folder, p->c->model, run_format(t->run), NULL, 0);
    if (rc == 0 && p->best_step >= 0)
        log_info("best on held-out prompts: step %lld, score - beta KL %.4f, in %s/best",
                 (long long)p->best_step, p->best_score, t->run->out_dir);
    free(folder);
    return rc;
}

static void ppo_free(Trainer *t)
{
    Ppo *p = t->state;
    acts_free(p->acts);
    acts_free(p->critic_acts);
    generator_free(p->gen);
    pack_free(&p->pack);
    reward_model_free(&p->helpful);
    reward_model_free(&p->safety);
    optim_free(&p->policy_optim);
    optim_free(&p->critic_optim);
    grads_free(&p->policy_grads);
    grads_free(&p->critic_grads);
    params_free(&p->policy);
    params_free(&p->reference);
    params_free(&p->critic);
    model_free(&p->model);
    model_free(&p->critic_model);
    ptx_free(&p->ptx);
    example_set_free(&p->prompts);
    example_set_free(&p->held_out);
    record_set_free(&p->train);
    record_set_free(&p->eval);
    tokenizer_close(p->tok);
    arena_free(&p->weights);
    arena_free(&p->grads);
    arena_free(&p->optim);
    arena_free(&p->work);
    arena_free(&p->host);
}

const TrainerDef ppo_trainer = {
    .cli = {.program = "rlhf-ppo",
            .summary = "train a policy with PPO against a helpfulness and a safety reward model",
            .description =
                "Each iteration samples batch_size answers, scores them, switches to the safety model on\n"
                "tagged prompts or where sigmoid(score) < switch.threshold, whitens the scores, subtracts\n"
                "the KL penalty and takes one gradient step per minibatch (Llama 2, section 3.2.3).",
            .examples = "  rlhf-ppo -c configs/ppo.yaml --set model=runs/sft/export --resume auto\n",
            .fields = ppo_fields,
            .config_bytes = sizeof(PpoConfig),
            .options = ppo_options,
            .plans = true},
    .state_bytes = sizeof(Ppo),
    .init = ppo_init,
    .alloc = ppo_alloc,
    .plan = ppo_plan,
    .load = ppo_load,
    .step = ppo_step,
    .state = ppo_state,
    .finish = ppo_finish,
    .free = ppo_free,
};
