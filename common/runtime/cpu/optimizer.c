/* optimizer.c - the sum of squares behind the global norm, and AdamW (Loshchilov & Hutter 2019) in
 * PyTorch's form. Both walk over storage slots, whatever the layout: padding lanes are zero in
 * weights and gradients, and AdamW leaves zero at zero. A bf16 copy of the weight is made in the same
 * pass: the new value is rounded before it leaves the core's cache. Tested by tests/ops/optimizer.c. */
#include "common/runtime/cpu/cpu.h"
#include "common/runtime/cpu/formula.h"

typedef struct {
    Tensor *w, *m, *v, *copy; /* copy: may be NULL */
    const Tensor *grad;
    FormulaAdamw scalars;
} AdamwCtx;

typedef struct {
    Tensor *partial;
    const Tensor *x;
} SumsqCtx;

static double sumsq_block(const real_t *x, int64_t n)
{
    double a[SUM_LANES] = {0};
    int64_t i = 0;
    for (; i + SUM_LANES <= n; i += SUM_LANES)
        for (int j = 0; j < SUM_LANES; j++)
            a[j] = __builtin_fma((double)x[i + j], (double)x[i + j], a[j]);
    for (int j = 0; i + j < n; j++)
        a[j] = __builtin_fma((double)x[i + j], (double)x[i + j], a[j]);
    for (int w = SUM_LANES / 2; w > 0; w /= 2)
        for (int j = 0; j < w; j++)
            a[j] += a[j + w];
    return a[0];
}

static void sumsq_part(int part, int n_parts, void *ctx)
{
    const SumsqCtx *c = ctx;
    double *partial = c->partial->data;
    int64_t n = tensor_slots(c->x), from, to;
    part_range(n, SUMSQ_BLOCK, part, n_parts, &from, &to);
    for (int64_t at = from; at < to; at += SUMSQ_BLOCK)
        partial[at / SUMSQ_BLOCK] =
            sumsq_block(real_data(c->x) + at, to - at < SUMSQ_BLOCK ? to - at : SUMSQ_BLOCK);
}

void CPU_OP(sumsq)(Tensor *partial, const Tensor *x)
{
    SumsqCtx c = {partial, x};
    cpu_run(partial->dev, sumsq_part, &c, (double)tensor_slots(x) / 2);
}

/* Slots [at, at + n) of the tensors of c. */
K_INLINE void adamw_run(const AdamwCtx *c, int64_t at, int64_t n)
{
    real_t *restrict w = real_data(c->w) + at, *restrict m = real_data(c->m) + at;
    real_t *restrict v = real_data(c->v) + at;
    const real_t *restrict grad = real_data(c->grad) + at;
    const FormulaAdamw k = c->scalars;
    for (int64_t i = 0; i < n; i++)
        formula_adamw(&k, w + i, m + i, v + i, grad[i]);
}

/* Rows of a weight in the order of its slots, while the new values are near the core. */
static void adamw_copy_rows(const AdamwCtx *c, int64_t from, int64_t to)
{
    enum { NEAR = 512 };
    uint16_t *restrict copy = c->copy->data;
    for (int64_t at = from; at < to; at += NEAR) {
        int64_t end = to - at < NEAR ? to : at + NEAR;
        const real_t *restrict w = real_data(c->w);
        adamw_run(c, at, end - at);
        for (int64_t i = at; i < end; i++)
            copy[i] = bf16_of_f32((float)w[i]);
    }
}

/* A panel's pairs of k become words of both; the last of an odd K is paired with zero. */
static void adamw_copy_panel(const AdamwCtx *c, int64_t from, int64_t to)
{
    const int64_t K = c->w->dim[1], pairs = (K + 1) / 2;
    for (int64_t pair = from; pair < to; pair++) {
        int64_t k = pair % pairs * 2, at = (pair / pairs * K + k) * PANEL_N;
        const real_t *restrict w = real_data(c->w) + at;
        uint32_t *restrict copy = (uint32_t *)c->copy->data + pair * PANEL_N;
        if (k + 1 < K) {
            adamw_run(c, at, 2 * PANEL_N);
            for (int n = 0; n < PANEL_N; n++)
                copy[n] = bf16_pair(f32_bits((float)w[n]), f32_bits((float)w[PANEL_N + n]));
        } else {
            adamw_run(c, at, PANEL_N);
            for (int n = 0; n < PANEL_N; n++)
                copy[n] = bf16_pair(f32_bits((float)w[n]), 0);
        }
    }
}

static void adamw_part(int part, int n_parts, void *ctx)
{
    const AdamwCtx *c = ctx;
    const bool pairs = c->copy && c->copy->layout == LAYOUT_PANEL;
    int64_t from, to;
    if (pairs)
        part_range(tensor_slots(c->copy) / (2 * PANEL_N), 1, part, n_parts, &from, &to);
    else
        part_range(tensor_slots(c->w), 64, part, n_parts, &from, &to);
    if (pairs)
        adamw_copy_panel(c, from, to);
    else if (c->copy)
        adamw_copy_rows(c, from, to);
    else
        adamw_run(c, from, to - from);
}

void CPU_OP(adamw)(Tensor *w, Tensor *m, Tensor *v, Tensor *copy, const Tensor *grad, AdamwArgs a)
{
    AdamwCtx c = {w, m, v, copy, grad, formula_adamw_scalars(&a)};
    cpu_run(w->dev, adamw_part, &c, (double)tensor_slots(w) * 2);
}
