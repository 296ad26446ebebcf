/* model_fixture.h - a model of a folder with everything a step needs, for the tests of the model
 * and of generation. */
#ifndef RLHF_TEST_MODEL_FIXTURE_H
#define RLHF_TEST_MODEL_FIXTURE_H

#include "common/base/error.h"
#include "common/base/mem.h"
#include "common/model/hf.h"
#include "common/model/llama.h"
#include "common/runtime/device.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

typedef struct {
    const char *device; /* to open; NULL: cpu */
    Device *dev;
    CpuIsa isa; /* set before fixture_open */
    ModelConfig config;
    Arena arena, host;
    Model m;
    ParamSet p;
    Grads g;
    Acts *acts;
    Batch batch;
    LmHead lm;
    ScalarHead scalar;
    Pack pack;
    DType dtype; /* of products; set before fixture_open, as is: */
    Recompute recompute;
} Fixture;

/* A test that runs in both dtypes: cmocka_unit_test(test) and IN_BF16(test), which sees it as its state. */
static const DType fixture_bf16 = DTYPE_BF16;
#define IN_BF16(test) {#test " in bf16", test, NULL, NULL, (void *)(uintptr_t)&fixture_bf16}

static inline DType dtype_of(void **state)
{
    return *state ? *(const DType *)*state : DTYPE_F32;
}

/* A card, or the shim of tests/emu. */
static inline bool fixture_has_card(void)
{
    Device *dev;
    if (device_open(&dev, &(DeviceOptions){.name = "cuda"}) < 0)
        return false;
    device_close(dev);
    return true;
}

/* A folder of tests/golden, or NULL to take f->config as it is with random weights of seed 1.
 */
static inline void fixture_open(Fixture *f, const char *folder, int threads, int max_tokens)
{
    DeviceOptions o = {.name = f->device ? f->device : "cpu", .threads = threads, .isa = f->isa};
    if (device_open(&f->dev, &o) < 0)
        fail_msg("%s", error_text());
    if (folder && model_config_read(&f->config, folder) < 0)
        fail_msg("%s", error_text());
    int64_t positions = f->config.max_position;
    pack_init(&f->pack, max_tokens, max_tokens);
    arena_init(&f->arena, f->dev, ARENA_DEVICE, "model");
    arena_init(&f->host, f->dev, ARENA_HOST, "host");
    for (int pass = 0; pass < 2; pass++) {
        assert_int_equal(model_init(&f->m, &f->config, f->dtype, f->dev, &f->arena, positions), 0);
        params_alloc(&f->p, &f->m.table, &f->arena, "policy", false);
        grads_alloc(&f->g, &f->m.table, &f->arena);
        if (!f->acts)
            f->acts = acts_new(&f->m, max_tokens, true, f->recompute);
        acts_alloc(f->acts, &f->arena);
        batch_alloc(&f->batch, &f->arena, f->dev, max_tokens, max_tokens);
        if (f->config.head == HEAD_LM)
            lm_head_alloc(&f->lm, &f->m, &f->arena, &f->host, max_tokens, true);
        else
            scalar_head_alloc(&f->scalar, &f->m, &f->arena, max_tokens, true);
        if (!pass && (arena_commit(&f->arena) < 0 || arena_commit(&f->host) < 0))
            fail_msg("%s", error_text());
    }
    if (!folder)
        params_init_random(&f->p, 1);
    else if (hf_load_params(&f->p, folder, HEAD_AS_STORED, 0) < 0)
        fail_msg("%s", error_text());
}

static inline void fixture_close(Fixture *f)
{
    acts_free(f->acts);
    pack_free(&f->pack);
    grads_free(&f->g);
    params_free(&f->p);
    model_free(&f->m);
    arena_free(&f->arena);
    arena_free(&f->host);
    device_close(f->dev);
    memset(f, 0, sizeof *f);
}

/* Packs sequences [from, to) of ids cut by starts, and runs the forward pass. */
static inline Tensor fixture_forward(Fixture *f, const int32_t *ids, const int32_t *starts,
                                     int from, int to)
{
    pack_clear(&f->pack);
    for (int s = from; s < to; s++)
        pack_add(&f->pack, ids + starts[s], NULL, starts[s + 1] - starts[s], s);
    batch_set(&f->batch, &f->pack);
    model_forward(&f->m, &f->p, NULL, &f->batch, f->acts);
    return acts_hidden(f->acts, &f->batch);
}

/* Forward, cross-entropy of all next tokens with weight 1 / count each, backward. Returns the loss
 * of these sequences, summed in f64. */
static inline double fixture_train(Fixture *f, const int32_t *ids, const int32_t *starts, int from,
                                   int to, int64_t count)
{
    Tensor hidden = fixture_forward(f, ids, starts, from, to);
    Tensor dhidden = acts_dhidden(f->acts, &f->batch);
    int32_t *rows = f->lm.rows.data, *target = f->lm.target.data;
    float *weight = f->lm.weight.data, *loss = f->lm.loss.data;
    int64_t R = 0;
    for (int s = from; s < to; s++)
        for (int t = starts[s]; t + 1 < starts[s + 1]; t++) {
            rows[R] = t - starts[from];
            target[R] = ids[t + 1];
            weight[R++] = 1.0F / (float)count;
        }
    lm_head_run(&f->lm, &f->m, &f->p, LM_XENT, R, &hidden, &dhidden, &f->g, 1, 0);
    model_backward(&f->m, &f->p, NULL, &f->batch, f->acts, &f->g);
    double sum = 0;
    for (int64_t r = 0; r < R; r++)
        sum += loss[r];
    return sum;
}

/* ids below V, different in every sequence. */
static inline void random_ids(int32_t *ids, int n, int64_t V, uint64_t seed)
{
    Rng r = rng_make(seed, RNG_TEST, 0, 0, 0);
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)rng_next_below(&r, (uint64_t)V);
}

#endif
