/* optimizer.c - the sum of squares behind the global norm, and AdamW (Loshchilov & Hutter 2019) in
 * PyTorch's form. Both walk over storage slots, whatever the layout: padding lanes are zero in
 * weights and gradients, and AdamW leaves zero at zero. Tested by tests/ops/optimizer.c. */
#include "common/runtime/cpu/cpu.h"
#include "common/runtime/cpu/formula.h"

typedef struct {
    Tensor *w, *m, *v;
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

static void adamw_part(int part, int n_parts, void *ctx)
{
    const AdamwCtx *c = ctx;
    int64_t from, to;
    part_range(tensor_slots(c->w), 64, part, n_parts, &from, &to);
    real_t *restrict w = c->w->data, *restrict m = c->m->data, *restrict v = c->v->data;
    const real_t *restrict grad = c->grad->data;
    const FormulaAdamw k = c->scalars;
    for (int64_t i = from; i < to; i++)
        formula_adamw(&k, w + i, m + i, v + i, grad[i]);
}

void CPU_OP(adamw)(Tensor *w, Tensor *m, Tensor *v, Tensor *copy, const Tensor *grad, AdamwArgs a)
{
    AdamwCtx c = {w, m, v, grad, formula_adamw_scalars(&a)};
    cpu_run(w->dev, adamw_part, &c, (double)tensor_slots(w) * 2);
}
