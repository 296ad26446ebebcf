/* rig.c - see rig.h. */
#include "tests/bench/rig.h"

#include "common/base/error.h"
#include "rlhf/calibrate.h"

#include <stdlib.h>

enum { PREFILL_ROWS = 2048, UNIT_TOKENS = 4096 }; /* as micro_batch_tokens and unit_tokens of the trainers */

const OptimConfig rig_optim_config = {.learning_rate = 1e-5, .schedule = SCHEDULE_CONSTANT, .beta1 = 0.9,
                                      .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .max_grad_norm = 1};

void rig_random_ids(int32_t *ids, int64_t n, int64_t V, uint64_t seed)
{
    Rng r = rng_make(seed, RNG_TEST, 0, 0, 0);
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)rng_next_below(&r, (uint64_t)V);
}

static void begin(Rig *r, const Bench *b, const Shape *s, int threads)
{
    *r = (Rig){.config = s->config, .optim_config = rig_optim_config};
    r->dev = bench_open_device(b, threads);
    arena_init(&r->weights, r->dev, ARENA_DEVICE, "weights");
    arena_init(&r->work, r->dev, ARENA_DEVICE, "work");
    arena_init(&r->host, r->dev, ARENA_HOST, "host");
}

bool rig_fits(MemoryPlan *plan, const char *row)
{
    if (memory_plan_commit(plan, "") == 0)
        return true;
    printf("%s is left out: %s\n", row, error_text());
    return false;
}

static bool commit(Rig *r, const char *row)
{
    MemoryPlan plan = {0};
    memory_plan_add(&plan, &r->weights);
    memory_plan_add(&plan, &r->work);
    memory_plan_add(&plan, &r->host);
    if (rig_fits(&plan, row))
        return true;
    rig_close(r);
    return false;
}

bool rig_open_training(Rig *r, const Bench *b, const Shape *s, HeadKind head, int threads, const char *row)
{
    const int64_t tokens = (int64_t)s->S * s->T;
    begin(r, b, s, threads);
    r->config.head = head;
    r->config.tied = head == HEAD_LM && s->config.tied;
    pack_init(&r->pack, (int)tokens, s->S);
    if (device_sums_by_unit(r->dev, b->dtype))
        r->pack.unit_tokens = tokens < UNIT_TOKENS ? (int)tokens : UNIT_TOKENS;
    for (int pass = 0; pass < 2; pass++) {
        CHECK(model_init(&r->model, &r->config, b->dtype, r->dev, &r->weights, s->T) == 0, "%s", error_text());
        params_alloc(&r->params, &r->model.table, &r->weights, "policy", false);
        grads_alloc(&r->grads, &r->model.table, &r->weights);
        optim_alloc(&r->optim, &r->optim_config, &r->params, &r->grads, &r->weights);
        if (!pass)
            r->acts = acts_new(&r->model, tokens, true, b->level);
        acts_alloc(r->acts, &r->work);
        batch_alloc(&r->batch, &r->work, r->dev, tokens, s->S);
        if (head == HEAD_LM)
            lm_head_alloc(&r->lm, &r->model, &r->work, &r->host, tokens, true);
        else
            scalar_head_alloc(&r->scalar, &r->model, &r->work, s->S, true);
        r->loss = arena_rows1(&r->work, DTYPE_REAL, s->S);
        r->margin = arena_rows1(&r->work, DTYPE_REAL, s->S);
        r->weight = arena_rows1(&r->work, DTYPE_REAL, s->S);
        if (!pass && !commit(r, row))
            return false;
    }
    calibrate_fill(&r->params);
    grads_zero(&r->grads);
    return true;
}

bool rig_open_generation(Rig *r, const Bench *b, const Shape *s, int64_t slots, int64_t max_length, int threads, const char *row)
{
    begin(r, b, s, threads);
    for (int pass = 0; pass < 2; pass++) {
        CHECK(model_init(&r->model, &r->config, b->dtype, r->dev, &r->weights, max_length) == 0, "%s", error_text());
        params_alloc(&r->params, &r->model.table, &r->weights, "policy", false);
        if (!pass)
            r->gen = generator_new(&r->model, slots, max_length, PREFILL_ROWS);
        generator_alloc(r->gen, &r->work, &r->host);
        if (!pass && !commit(r, row))
            return false;
    }
    calibrate_fill(&r->params);
    return true;
}

void rig_close(Rig *r)
{
    generator_free(r->gen);
    acts_free(r->acts);
    pack_free(&r->pack);
    optim_free(&r->optim);
    grads_free(&r->grads);
    params_free(&r->params);
    model_free(&r->model);
    arena_free(&r->weights);
    arena_free(&r->work);
    arena_free(&r->host);
    device_close(r->dev);
    *r = (Rig){0};
}
