/* grad_model.c - the whole model's backward pass against differences in double: every parameter of
 * tied and untied language models under cross-entropy and PPO's surrogate, and of a scalar model, with
 * activations kept and computed again.
 * Linked with librlhf64.a.
 *
 * Along a random direction u the five-point difference of the loss must equal grad . u: with h =
 * 1e-3 its error is of the order h^4 = 1e-12 of the loss's fifth derivative, rounding 1e-16 / h =
 * 1e-13. */
#include "common/base/error.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/model/llama.h"
#include "common/runtime/device.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

typedef enum { LOSS_XENT, LOSS_POLICY, LOSS_SCORE } Loss;

static const int32_t starts[] = {0, 70, 71,
                                 80}; /* past a key tile and a norm block; a lone token */
enum { SEQS = 3, TOKENS = 80, DIRECTIONS = 3 };

typedef struct {
    Device *dev;
    Arena arena, host;
    Model m;
    ParamSet p;
    Grads g;
    Acts *acts;
    Pack pack; /* its units are read by the backward pass */
    Batch batch;
    LmHead lm;
    ScalarHead scalar;
    Loss loss;
    int64_t R;
    double score_weight[SEQS];
} Setup;

static void setup_rows(Setup *s, const int32_t *ids)
{
    Rng r = rng_make(2, RNG_TEST, 0, 0, 0);
    if (s->loss == LOSS_SCORE) {
        for (int i = 0; i < SEQS; i++) {
            ((int32_t *)s->scalar.rows.data)[i] = starts[i + 1] - 1;
            s->score_weight[i] = rng_next_normal(&r);
        }
        return;
    }
    for (int i = 0; i < SEQS; i++)
        for (int t = starts[i]; t + 1 < starts[i + 1]; t++) {
            ((int32_t *)s->lm.rows.data)[s->R] = t;
            ((int32_t *)s->lm.target.data)[s->R] = ids[t + 1];
            ((real_t *)s->lm.weight.data)[s->R] = rng_next_uniform(&r);
            ((real_t *)s->lm.adv.data)[s->R++] = rng_next_normal(&r);
        }
}

/* A surrogate with some ratios inside the clip range of 0.2 and some outside, none near its edge.
 */
static void setup_old_logp(Setup *s, const Tensor *hidden)
{
    static const double step[] = {0.1, -0.1, 0.4, -0.4, 0};
    lm_head_run(&s->lm, &s->m, &s->p, LM_LOGP, s->R, hidden, NULL, NULL, 1 / 0.7, 0);
    for (int64_t r = 0; r < s->R; r++)
        ((real_t *)s->lm.old_logp.data)[r] = ((real_t *)s->lm.logp.data)[r] + step[r % 5];
}

static double loss_run(Setup *s, bool backward)
{
    model_forward(&s->m, &s->p, NULL, &s->batch, s->acts);
    Tensor hidden = acts_hidden(s->acts, &s->batch), dhidden = acts_dhidden(s->acts, &s->batch);
    double sum = 0;
    if (s->loss == LOSS_SCORE) {
        scalar_head_forward(&s->scalar, &s->m, &s->p, SEQS, &hidden);
        for (int i = 0; i < SEQS; i++) {
            double score = ((real_t *)s->scalar.score.data)[i];
            sum += s->score_weight[i] * score + 0.5 * score * score;
            ((real_t *)s->scalar.dscore.data)[i] = s->score_weight[i] + score;
        }
        if (backward)
            scalar_head_backward(&s->scalar, &s->m, &s->p, SEQS, &dhidden, &s->g);
    } else {
        lm_head_run(&s->lm, &s->m, &s->p, s->loss == LOSS_XENT ? LM_XENT : LM_POLICY, s->R, &hidden,
                    backward ? &dhidden : NULL, backward ? &s->g : NULL, 1 / 0.7, 0.2);
        for (int64_t r = 0; r < s->R; r++) /* a policy loss is weighted in its gradient only */
            sum += ((real_t *)s->lm.loss.data)[r] *
                   (s->loss == LOSS_POLICY ? ((real_t *)s->lm.weight.data)[r] : 1);
    }
    if (backward) {
        model_backward(&s->m, &s->p, NULL, &s->batch, s->acts, &s->g);
        grads_finish(&s->g);
    }
    return sum;
}

/* extras: what some families add to a layer. */
static void setup_open(Setup *s, Loss loss, bool tied, bool extras, Recompute recompute)
{
    const ModelConfig c = {.architecture = "Llama",
                           .head = loss == LOSS_SCORE ? HEAD_SCALAR : HEAD_LM,
                           .C = 16,
                           .F = 20,
                           .V = 37,
                           .L = 2,
                           .H = 4,
                           .K = 2,
                           .D = 6,
                           .norm_eps = 1e-5,
                           .rope_theta = 100,
                           .rope = {extras ? ROPE_LLAMA3 : ROPE_DEFAULT, 4, 1, 4, 32},
                           .qkv_bias = extras,
                           .o_bias = extras,
                           .qk_norm = extras,
                           .tied = tied,
                           .max_position = 70,
                           .bos = 1,
                           .pad = -1};
    int32_t ids[TOKENS];
    Rng r = rng_make(1, RNG_TEST, 0, 0, 0);
    *s = (Setup){.loss = loss};
    if (device_open(&s->dev, &(DeviceOptions){.name = "cpu", .threads = 1}) < 0)
        fail_msg("%s", error_text());
    arena_init(&s->arena, s->dev, ARENA_DEVICE, "model");
    arena_init(&s->host, s->dev, ARENA_HOST, "host");
    for (int pass = 0; pass < 2; pass++) {
        assert_int_equal(model_init(&s->m, &c, DTYPE_REAL, s->dev, &s->arena, 70), 0);
        params_alloc(&s->p, &s->m.table, &s->arena, "policy", false);
        grads_alloc(&s->g, &s->m.table, &s->arena);
        if (!s->acts)
            s->acts = acts_new(&s->m, TOKENS, true, recompute);
        acts_alloc(s->acts, &s->arena);
        batch_alloc(&s->batch, &s->arena, s->dev, TOKENS, SEQS);
        if (loss == LOSS_SCORE)
            scalar_head_alloc(&s->scalar, &s->m, &s->arena, SEQS, true);
        else
            lm_head_alloc(&s->lm, &s->m, &s->arena, &s->host, TOKENS, true);
        if (!pass)
            assert_true(arena_commit(&s->arena) == 0 && arena_commit(&s->host) == 0);
    }
    params_init_random(&s->p, 4);
    for (int i = 0; i < s->m.table.n;
         i++) { /* norm weights of 1 hide mistakes, small embeddings too */
        real_t *w = s->p.w[i].data;
        if (!s->m.table.def[i].dim[1])
            for (int64_t e = 0; e < s->m.table.def[i].dim[0]; e++)
                w[e] = 1 + 0.3 * rng_next_normal(&r);
    }
    op_axpy(&s->p.w[s->m.table.embed], 9, &s->p.w[s->m.table.embed], true);

    pack_init(&s->pack, TOKENS, SEQS);
    for (int t = 0; t < TOKENS; t++)
        ids[t] = (int32_t)rng_next_below(&r, (uint64_t)c.V);
    for (int i = 0; i < SEQS; i++)
        pack_add(&s->pack, ids + starts[i], NULL, starts[i + 1] - starts[i], i);
    batch_set(&s->batch, &s->pack);
    setup_rows(s, ids);
    if (loss == LOSS_POLICY) {
        model_forward(&s->m, &s->p, NULL, &s->batch, s->acts);
        Tensor hidden = acts_hidden(s->acts, &s->batch);
        setup_old_logp(s, &hidden);
    }
}

static void setup_close(Setup *s)
{
    pack_free(&s->pack);
    acts_free(s->acts);
    grads_free(&s->g);
    params_free(&s->p);
    model_free(&s->m);
    arena_free(&s->arena);
    arena_free(&s->host);
    device_close(s->dev);
}

typedef struct {
    const real_t *from, *direction;
    double step;
} Shift;

static void shifted(void *ctx, int64_t first, int64_t n, real_t *dst)
{
    const Shift *s = ctx;
    for (int64_t i = 0; i < n; i++)
        dst[i] = s->from[first + i] + s->step * s->direction[first + i];
}

/* |difference - grad . u| / |grad . u| over DIRECTIONS directions of one parameter; planted: the
 * same with one entry of grad off by 1e-3 of its norm, which must be seen. */
typedef struct {
    double error, planted;
} Errors;

static Errors parameter_errors(Setup *s, int index)
{
    static const double at[] = {-2, -1, 1, 2},
                        factor[] = {1.0 / 12, -8.0 / 12, 8.0 / 12, -1.0 / 12};
    const double h = 1e-3;
    int64_t n = tensor_len(&s->g.g[index]);
    size_t bytes = (size_t)n * sizeof(real_t);
    real_t *grad = xmalloc(bytes), *from = xmalloc(bytes), *u = xmalloc(bytes);
    double norm = 0, size = 0, off = 0, off_planted = 0;
    param_fetch(&s->g.g[index], 0, n, grad);
    param_fetch(&s->p.w[index], 0, n, from);
    for (int64_t e = 0; e < n; e++)
        norm += grad[e] * grad[e];
    for (int d = 0; d < DIRECTIONS; d++) {
        Rng r = rng_make(9, RNG_TEST, 0, (uint64_t)index, (uint32_t)d);
        double dot = 0, difference = 0;
        for (int64_t e = 0; e < n; e++) {
            u[e] = rng_next_normal(&r) / sqrt((double)n);
            dot += u[e] * grad[e];
        }
        for (int k = 0; k < 4; k++) {
            param_store(&s->p.w[index], shifted, &(Shift){from, u, h * at[k]});
            difference += factor[k] * loss_run(s, false) / h;
        }
        double planted = dot + 1e-3 * sqrt(norm) * u[n / 2];
        off += (difference - dot) * (difference - dot);
        off_planted += (difference - planted) * (difference - planted);
        size += dot * dot;
    }
    param_store(&s->p.w[index], shifted, &(Shift){from, u, 0});
    free(grad);
    free(from);
    free(u);
    return (Errors){sqrt(off / size), sqrt(off_planted / size)};
}

static void model_check(Loss loss, bool tied, bool extras, Recompute recompute)
{
    Setup s;
    setup_open(&s, loss, tied, extras, recompute);
    loss_run(&s, true);
    for (int i = 0; i < s.m.table.n; i++) {
        if (!grads_is_own(&s.m.table, i))
            continue;
        Errors e = parameter_errors(&s, i);
        if (!(e.error <= 1e-7))
            fail_msg("%s: gradient off by %.3g", s.m.table.def[i].name, e.error);
        if (!(e.planted > 1e-7))
            fail_msg("%s: a wrong gradient passed with %.3g", s.m.table.def[i].name, e.planted);
    }
    setup_close(&s);
}

static void xent_tied(void **state)
{
    (void)state;
    model_check(LOSS_XENT, true, false, RECOMPUTE_NONE);
}

static void xent_untied(void **state)
{
    (void)state;
    model_check(LOSS_XENT, false, false, RECOMPUTE_ELEMENTWISE);
}

static void policy_tied(void **state)
{
    (void)state;
    model_check(LOSS_POLICY, true, false, RECOMPUTE_MLP);
}

static void score(void **state)
{
    (void)state;
    model_check(LOSS_SCORE, true, false, RECOMPUTE_LAYER); /* tied in config.json: no head to tie to, so untied */
}

static void xent_extras(void **state)
{
    (void)state;
    model_check(LOSS_XENT, true, true, RECOMPUTE_LAYER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(xent_tied), cmocka_unit_test(xent_untied),
                                       cmocka_unit_test(policy_tied), cmocka_unit_test(score),
                                       cmocka_unit_test(xent_extras)};
    return cmocka_run_group_tests_name("grad_model", tests, NULL, NULL);
}
