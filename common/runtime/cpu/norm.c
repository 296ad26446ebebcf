/* norm.c - RMSNorm (Zhang & Sennrich 2019, eq. 4) and its backward. A row's sum is a row reduction
 * (kmath.h); the weight's gradient is summed in blocks of NORM_BLOCK tokens counted from each
 * sequence's start, so it does not depend on how sequences are packed into calls. Parts split rows
 * for dx and columns for dw. Tested by tests/ops/norm.c. */
#include "common/runtime/cpu/cpu.h"
#include "common/runtime/cpu/kmath.h"

enum { COLUMN_BLOCK = 64 }; /* columns whose partial sums are on the stack */

typedef struct {
    Tensor *y, *rstd_out, *dx, *dw;
    const Tensor *dy, *x, *w, *rstd, *starts;
    int64_t per_token;
    real_t eps;
} NormCtx;

static void rmsnorm_part(int part, int n_parts, void *ctx)
{
    const NormCtx *c = ctx;
    const real_t *w = real_data(c->w);
    int64_t n = c->x->dim[1], from, to;
    part_range(c->x->dim[0], 1, part, n_parts, &from, &to);
    for (int64_t t = from; t < to; t++) {
        const real_t *x = real_data(c->x) + t * c->x->stride;
        real_t *y = real_data(c->y) + t * c->y->stride;
        real_t r = (real_t)1 / k_sqrt(row_dot(x, x, n) / (real_t)n + c->eps);
        real_data(c->rstd_out)[t] = r;
        K_INDEPENDENT
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] * r * w[i];
    }
}

void CPU_OP(rmsnorm)(Tensor *y, Tensor *rstd, const Tensor *x, const Tensor *w, double eps)
{
    NormCtx c = {.y = y, .rstd_out = rstd, .x = x, .w = w, .eps = (real_t)eps};
    cpu_run(y->dev, rmsnorm_part, &c, (double)tensor_len(x));
}

/* With g = dy * w, r = rstd: dx += r * (g - x * (r^2 sum(g x) / C)). */
static void rmsnorm_dx_part(int part, int n_parts, void *ctx)
{
    const NormCtx *c = ctx;
    const real_t *w = real_data(c->w);
    int64_t n = c->x->dim[1], from, to;
    part_range(c->x->dim[0], 1, part, n_parts, &from, &to);
    for (int64_t t = from; t < to; t++) {
        const real_t *x = real_data(c->x) + t * c->x->stride;
        const real_t *dy = real_data(c->dy) + t * c->dy->stride;
        real_t *dx = real_data(c->dx) + t * c->dx->stride;
        real_t r = real_data(c->rstd)[t], a[SUM_LANES];
        sum_init(a);
        SUM_EACH(i, n, a, real_fma(dy[i] * w[i], x[i], acc));
        real_t s = sum_tree(a) * (r * r) / (real_t)n;
        K_INDEPENDENT
        for (int64_t i = 0; i < n; i++)
            dx[i] = real_fma(r, real_fma(-s, x[i], dy[i] * w[i]), dx[i]);
    }
}

/* dw[from..to) += dy * (x * rstd) over the tokens of one block, from +0. */
static void rmsnorm_dw_block(const NormCtx *c, int64_t t0, int64_t t1, int64_t from, int64_t to)
{
    real_t sum[COLUMN_BLOCK] = {0};
    for (int64_t t = t0; t < t1; t++) {
        const real_t *x = real_data(c->x) + t * c->x->stride + from;
        const real_t *dy = real_data(c->dy) + t * c->dy->stride + from;
        real_t r = real_data(c->rstd)[t];
        for (int64_t i = 0; i < to - from; i++)
            sum[i] = real_fma(dy[i], x[i] * r, sum[i]);
    }
    real_t *dw = real_data(c->dw) + from;
    for (int64_t i = 0; i < to - from; i++)
        dw[i] += sum[i];
}

static void rmsnorm_dw_part(int part, int n_parts, void *ctx)
{
    const NormCtx *c = ctx;
    const int32_t *starts = i32_data(c->starts);
    int64_t n_seq = tensor_len(c->starts) - 1, from, to;
    part_range(c->x->dim[1], COLUMN_BLOCK, part, n_parts, &from, &to);
    for (int64_t s = 0; s < n_seq; s++)
        for (int64_t t = starts[s] * c->per_token, last = starts[s + 1] * c->per_token; t < last;
             t += NORM_BLOCK) {
            int64_t end = t + NORM_BLOCK < last ? t + NORM_BLOCK : last;
            for (int64_t i = from; i < to; i += COLUMN_BLOCK)
                rmsnorm_dw_block(c, t, end, i, i + COLUMN_BLOCK < to ? i + COLUMN_BLOCK : to);
        }
}

void CPU_OP(rmsnorm_backward)(Tensor *dx, Tensor *dw, const Tensor *dy, const Tensor *x,
                              const Tensor *w, const Tensor *rstd, const Tensor *starts,
                              int64_t per_token)
{
    NormCtx c = {.dx = dx, .dw = dw, .dy = dy, .x = x, .w = w, .rstd = rstd, .starts = starts, .per_token = per_token};
    cpu_run(dx->dev, rmsnorm_dx_part, &c, (double)tensor_len(x));
    if (dw->n_dims)
        cpu_run(dx->dev, rmsnorm_dw_part, &c, (double)tensor_len(x));
}
