/* golden.h - golden values of models (tests/golden/make_model.py, make_bf16.py) and what compares with
 * them. */
#ifndef RLHF_TEST_GOLDEN_H
#define RLHF_TEST_GOLDEN_H

#include "common/model/safetensors.h"
#include "tests/unit/model_fixture.h"

#include <math.h>
#include <stdio.h>

typedef struct {
    SafeTensors file;
    int32_t ids[64], starts[16];
    int n_ids, n_seqs;
} Golden;

static inline int64_t golden_read(const Golden *g, const char *name, float *dst, int64_t max)
{
    const StTensor *t = safetensors_find(&g->file, name);
    if (!t)
        return 0;
    int64_t n = (int64_t)(t->end - t->begin) / 4;
    assert_true(n <= max);
    safetensors_read_f32(&g->file, t, 0, n, dst);
    return n;
}

/* Values of a model folder ROOT/name, whose path goes to `folder`. */
static inline void golden_open(Golden *g, char *folder, const char *root, const char *name)
{
    char path[256];
    float values[64];
    snprintf(folder, 128, "%s/%s", root, name);
    snprintf(path, sizeof path, "%s/golden.safetensors", folder);
    if (safetensors_open(&g->file, path) < 0)
        fail_msg("%s", error_text());
    g->n_ids = (int)golden_read(g, "ids", values, 64);
    for (int i = 0; i < g->n_ids; i++)
        g->ids[i] = (int32_t)values[i];
    g->n_seqs = (int)golden_read(g, "starts", values, 16) - 1;
    for (int i = 0; i <= g->n_seqs; i++)
        g->starts[i] = (int32_t)values[i];
}

static inline void assert_close(const char *name, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s: %.9g, expected %.9g, off by %.2g > %.2g", name, got, want, fabs(got - want),
                 tolerance);
}

/* |got - want| <= rel |want| in the 2-norm. */
static inline void assert_norm_close(const char *name, const float *got, const float *want, int64_t n,
                              double rel)
{
    double diff = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        diff += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        size += (double)want[i] * want[i];
    }
    if (!(sqrt(diff) <= rel * sqrt(size)))
        fail_msg("%s: off by %.3g of its norm %.3g", name, sqrt(diff / size), sqrt(size));
}

/* The gradient of each parameter: whole, or by its norm and three products. */
static inline void golden_gradients(const Golden *gold, Fixture *f, double rel)
{
    static float got[8192], want[8192];
    for (int i = 0; i < f->m.table.n; i++) {
        if (!grads_is_own(&f->m.table, i))
            continue;
        const ParamDef *d = &f->m.table.def[i];
        char name[128];
        int64_t n = tensor_len(&f->g.g[i]);
        param_fetch(&f->g.g[i], 0, n, got);
        snprintf(name, sizeof name, "grad.%s", d->hf_name);
        if (golden_read(gold, name, want, n) == n) {
            assert_norm_close(name, got, want, n, rel);
            continue;
        }
        snprintf(name, sizeof name, "probe.%s", d->hf_name);
        assert_int_equal(golden_read(gold, name, want, 4), 4);
        double norm = 0, probe[3] = {0};
        for (int64_t e = 0; e < n; e++) {
            norm += (double)got[e] * got[e];
            for (int k = 0; k < 3; k++)
                probe[k] += got[e] * cos(0.37 * (double)e + k);
        }
        /* |cos| <= 1, so an error of norm r |g| moves a product by at most r |g| sqrt(n) */
        assert_close(name, sqrt(norm), want[0], rel * want[0]);
        for (int k = 0; k < 3; k++)
            assert_close(name, probe[k], want[k + 1], rel * want[0] * 3);
    }
}

/* rel: of the norm; a single logit may be ten times further off. */
static inline void golden_logits(const Golden *gold, Fixture *f, const Tensor *hidden, double rel)
{
    static float want[64 * 128], got[64 * 128];
    int64_t V = f->config.head == HEAD_LM ? f->config.V : 1;
    assert_int_equal(golden_read(gold, "logits", want, 64 * 128), gold->n_ids * V);
    Tensor logits = tensor_make2(got, f->dev, DTYPE_F32, gold->n_ids, V);
    lm_head_logits(&logits, hidden, &f->m, &f->p);
    assert_norm_close("logits", got, want, gold->n_ids * V, rel);
    double largest = 0;
    for (int64_t i = 0; i < gold->n_ids * V; i++)
        largest = fmax(largest, fabs(want[i]));
    for (int64_t i = 0; i < gold->n_ids * V; i++)
        assert_close("logit", got[i], want[i], 10 * rel * largest);
}

static inline void adamw_step(Fixture *f, float *moments, int64_t step)
{
    int64_t at = 0;
    grads_finish(&f->g);
    for (int i = 0; i < f->m.table.n; i++) {
        if (!grads_is_own(&f->m.table, i))
            continue;
        Tensor m = f->p.w[i], v = m;
        m.data = moments + at;
        at += tensor_slots(&m);
        v.data = moments + at;
        at += tensor_slots(&v);
        op_adamw(&f->p.w[i], &m, &v, param_copy(&f->p, i), &f->g.g[i],
                 (AdamwArgs){.lr = 1e-3,
                             .beta1 = 0.9,
                             .beta2 = 0.95,
                             .eps = 1e-5,
                             .decay = f->m.table.def[i].decay ? 0.1 : 0,
                             .grad_scale = 1,
                             .step = step});
    }
    grads_zero(&f->g);
}

/* Ten AdamW steps over all sequences: every loss within `tolerance` of the golden one. */
static inline void golden_steps(const Golden *gold, Fixture *f, double tolerance)
{
    float losses[22], *moments = xcalloc(100000, sizeof *moments);
    assert_int_equal(golden_read(gold, "losses", losses, 22), 22);
    grads_zero(&f->g);
    for (int step = 0; step <= 10; step++) {
        double got = fixture_train(f, gold->ids, gold->starts, 0, gold->n_seqs, gold->n_ids - gold->n_seqs);
        assert_close("loss of a step", got, (double)losses[2 * step] + losses[2 * step + 1], tolerance);
        adamw_step(f, moments, step + 1);
    }
    free(moments);
}

#endif
