/* ppo.c - one PPO iteration by phase, driven through the parts that rlhf-ppo is made of, on random
 * prompts and random weights: policy, reference, critic and both reward models have one shape. */
#include "tests/bench/rig.h"

#include "common/base/error.h"
#include "rlhf/calibrate.h"
#include "common/base/mem.h"
#include "common/generate/logp.h"
#include "ppo/ppo.h"
#include "ppo/ppo_trainer.h"

#include <math.h>
#include <stdlib.h>

enum { ROLLOUT, SCORING, REFERENCE, VALUES, UPDATE, WHOLE, N_PHASES };
static const char *const phase_names[] = {"rollout", "scoring", "reference", "values", "update", "iteration"};

typedef struct {
    PpoConfig config;
    Ppo ppo;
    Trainer trainer;
    LogpWork logp;
    Arena work, host;
    Row row[N_PHASES];
} PpoBench;

/* Micro-batches of 16 answers. */
static PpoConfig ppo_config(const Shape *s)
{
    const int64_t B = s->ppo.B, tokens = 16 * (s->ppo.n_prompt + s->ppo.n_new);
    return (PpoConfig){.max_prompt_length = s->ppo.n_prompt,
                       .max_new_tokens = s->ppo.n_new,
                       .temperature = 1,
                       .batch_size = B,
                       .minibatch_size = B,
                       .iterations = 1,
                       .samples_per_prompt = 1,
                       .micro_batch_tokens = tokens,
                       .run.unit_tokens = tokens,
                       .slots = B,
                       .kl_coef = 0.01,
                       .gamma = 1,
                       .lam = 0.95,
                       .clip = 0.2,
                       .clip_value = 0.2,
                       .advantage = ADV_GAE,
                       .scores = SCORES_WHITEN,
                       .whiten_advantages = CHOICE_TRUE,
                       .policy = rig_optim_config,
                       .critic = rig_optim_config};
}

/* The inputs that rlhf-ppo reads from files. */
static void make_inputs(Ppo *p, const Shape *s, Device *dev)
{
    const PpoConfig *c = p->c;
    RewardModel *rm[] = {&p->helpful, &p->safety};
    p->policy_config = p->critic_config = s->config;
    p->critic_config.head = HEAD_SCALAR;
    p->critic_config.tied = false;
    for (int i = 0; i < 2; i++) {
        rm[i]->config = p->critic_config;
        rm[i]->dev = dev;
        rm[i]->folder = "reward";
    }
    p->has_safety = true;
    p->prompts.n = p->prompts.cap = c->batch_size;
    p->prompts.at = xcalloc((size_t)c->batch_size, sizeof *p->prompts.at);
    for (int64_t i = 0; i < c->batch_size; i++) {
        Example *e = &p->prompts.at[i];
        e->n = e->n_prompt = (int)c->max_prompt_length;
        e->ids = xmalloc((size_t)e->n * sizeof *e->ids);
        e->mask = xcalloc((size_t)e->n, 1);
        rig_random_ids(e->ids, e->n, s->config.V, (uint64_t)i + 1);
    }
}

/* False: the machine has not that much memory, and the row is left out. */
static bool alloc_all(PpoBench *g, Device *dev, const char *row)
{
    Trainer *t = &g->trainer;
    Ppo *p = &g->ppo;
    const int64_t tokens = g->config.micro_batch_tokens;
    arena_init(&g->work, dev, ARENA_DEVICE, "reference");
    arena_init(&g->host, dev, ARENA_HOST, "reference rows");
    t->planning = true;
    CHECK(ppo_trainer.alloc(t) == 0, "%s", error_text());
    logp_alloc(&g->logp, &p->model, &g->work, &g->host, tokens);
    memory_plan_add(&t->plan, &g->work);
    memory_plan_add(&t->plan, &g->host);
    if (!rig_fits(&t->plan, row))
        return false;
    t->planning = false;
    CHECK(ppo_trainer.alloc(t) == 0, "%s", error_text());
    logp_alloc(&g->logp, &p->model, &g->work, &g->host, tokens);
    ParamSet *sets[] = {&p->policy, &p->reference, &p->critic, &p->helpful.params, &p->safety.params};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        calibrate_fill(sets[i]);
    grads_zero(&p->policy_grads);
    grads_zero(&p->critic_grads);
    return true;
}

static void sample(Ppo *p, Rollout *r)
{
    const PpoConfig *c = p->c;
    GenRequest *req = xcalloc((size_t)r->B, sizeof *req);
    GenResult *res = xcalloc((size_t)r->B, sizeof *res);
    GenOptions o = {.seed = 1, .temperature = c->temperature, .max_new_tokens = (int)r->M};
    r->n_used = r->B;
    for (int64_t b = 0; b < r->B; b++) {
        const Example *e = &p->prompts.at[b];
        r->prompt[b] = b;
        req[b] = (GenRequest){e->ids, e->n, (uint64_t)b, 0, 0};
        res[b] = (GenResult){.ids = r->ids + b * r->M, .logp = r->logp + b * r->M};
    }
    CHECK(generate(p->gen, &p->policy, req, r->B, &o, res, NULL, NULL, NULL) == 0, "%s", error_text());
    for (int64_t b = 0; b < r->B; b++) {
        r->n[b] = res[b].n;
        r->finished[b] = true;
    }
    free(req);
    free(res);
}

/* Prompt + answer of every answer, one after another; xmalloc'ed. */
static int32_t *sequences(const Ppo *p, const Rollout *r, const int32_t **ids, int *len)
{
    size_t room = (size_t)(r->B * (p->c->max_prompt_length + r->M));
    int32_t *flat = xmalloc(room * sizeof *flat), *at = flat;
    for (int64_t b = 0; b < r->B; b++) {
        ids[b] = at;
        len[b] = rollout_sequence(&p->prompts, r, b, at);
        at += len[b];
    }
    return flat;
}

static void score(Ppo *p, Rollout *r, const int32_t *const *ids, const int *len)
{
    float *out = xmalloc((size_t)r->B * sizeof *out);
    reward_model_score(&p->safety, ids, len, r->B, out);
    reward_model_score(&p->helpful, ids, len, r->B, out);
    for (int64_t b = 0; b < r->B; b++)
        r->scaled[b] = (double)out[b];
    free(out);
}

static void reference(PpoBench *g, Rollout *r, const int32_t *const *ids, const int *len)
{
    LogpItem *items = xmalloc((size_t)r->B * sizeof *items);
    for (int64_t b = 0; b < r->B; b++)
        items[b] = (LogpItem){ids[b], len[b], len[b] - r->n[b], r->ref + b * r->M};
    logp_run(&g->logp, &g->ppo.model, &g->ppo.reference, items, r->B, g->config.temperature);
    free(items);
}

static void update(Ppo *p, Rollout *r)
{
    UpdateStats s = {0};
    const char *bad;
    ppo_policy_gradients(p, r, 0, r->B, &s);
    CHECK(isfinite(optim_step(&p->policy_optim, 1e-6, &bad)), "%s is not finite", bad);
    ppo_critic_gradients(p, r, 0, r->B, &s);
    CHECK(isfinite(optim_step(&p->critic_optim, 1e-6, &bad)), "%s is not finite", bad);
}

static void iterate(PpoBench *g, double seconds[N_PHASES])
{
    Ppo *p = &g->ppo;
    Rollout *r = &p->roll;
    const int32_t **ids = xcalloc((size_t)r->B, sizeof *ids);
    int *len = xcalloc((size_t)r->B, sizeof *len);
    const int threads = device_kind(g->trainer.dev) == DEVICE_CPU ? device_threads(g->trainer.dev) : 0;
    double at[N_PHASES];
    bool flat;
    at[ROLLOUT] = bench_now(threads);
    sample(p, r);
    at[SCORING] = bench_now(threads);
    int32_t *memory = sequences(p, r, ids, len);
    score(p, r, ids, len);
    at[REFERENCE] = bench_now(threads);
    reference(g, r, ids, len);
    at[VALUES] = bench_now(threads);
    rollout_shape(p, r, &flat);
    critic_values(p, r, &p->prompts);
    rollout_advantages(p, r);
    at[UPDATE] = bench_now(threads);
    update(p, r);
    device_sync(g->trainer.dev);
    at[WHOLE] = bench_now(threads);
    for (int i = 0; i < WHOLE; i++)
        seconds[i] = at[i + 1] - at[i];
    seconds[WHOLE] = at[WHOLE] - at[ROLLOUT];
    free(memory);
    free(ids);
    free(len);
}

static void measure(Bench *b, const Shape *s, int which, PpoBench *g)
{
    const int B = s->ppo.B, n = s->ppo.n_prompt, M = s->ppo.n_new;
    Row samples = bench_row(b, which, "samples/s", 0);
    double seconds[N_PHASES];
    samples.of_card = true;
    samples.target = s->of_cards ? 6 : 0;
    snprintf(samples.name, sizeof samples.name, "ppo samples %s %dx(%d+%d)", s->name, B, n, M);
    for (int i = 0; i < N_PHASES; i++)
        g->row[i] = bench_row(b, which, "s", i == WHOLE ? 1.4 : 0);
    iterate(g, seconds); /* touches all memory */
    for (double from = bench_now(0); bench_again(b, samples.n, from);) {
        iterate(g, seconds);
        for (int i = 0; i < N_PHASES; i++)
            bench_take(&g->row[i], seconds[i], 1);
        bench_take(&samples, B / seconds[WHOLE], 1);
    }
    for (int i = 0; i < N_PHASES; i++) {
        Row *row = &g->row[i];
        snprintf(row->name, sizeof row->name, "ppo %s %s %dx(%d+%d)", phase_names[i], s->name, B, n, M);
        row_add(&b->rows, *row);
    }
    row_add(&b->rows, samples);
}

void ppo_run(Bench *b, const Shape *s, int which)
{
    if (!s->ppo.B)
        return;
    PpoBench *g = xcalloc(1, sizeof *g);
    Device *dev = bench_open_device(b, b->threads[which]);
    char *name = xasprintf("ppo %s", s->name);
    g->config = ppo_config(s);
    g->config.run.dtype = (int)b->dtype;
    g->ppo.c = &g->config;
    g->trainer = (Trainer){.dev = dev, .state = &g->ppo, .config = &g->config, .run = &g->config.run};
    make_inputs(&g->ppo, s, dev);
    if (alloc_all(g, dev, name))
        measure(b, s, which, g);
    logp_free(&g->logp);
    ppo_trainer.free(&g->trainer);
    arena_free(&g->work);
    arena_free(&g->host);
    device_close(dev);
    free(name);
    free(g);
}
