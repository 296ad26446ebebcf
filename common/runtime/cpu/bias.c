/* bias.c - a vector added to every row, and its gradient: sums of NORM_BLOCK tokens counted from each
 * sequence's start, as for norm weights, so that packing and cuts between sequences change nothing. Parts
 * split rows forward, columns backward. Tested by tests/ops/bias.c. */
#include "common/runtime/cpu/cpu.h"
#include "common/runtime/cpu/kmath.h"

enum { COLUMN_BLOCK = 64 }; /* columns whose partial sums are on the stack */

typedef struct {
    Tensor *dst;
    const Tensor *src, *starts;
} BiasCtx;

static void bias_part(int part, int n_parts, void *ctx)
{
    const BiasCtx *c = ctx;
    const real_t *restrict b = real_data(c->src);
    int64_t n = c->dst->dim[1], from, to;
    part_range(c->dst->dim[0], 1, part, n_parts, &from, &to);
    for (int64_t t = from; t < to; t++) {
        real_t *restrict y = real_data(c->dst) + t * c->dst->stride;
        for (int64_t i = 0; i < n; i++)
            y[i] += b[i];
    }
}

void CPU_OP(bias)(Tensor *y, const Tensor *b)
{
    BiasCtx c = {.dst = y, .src = b};
    cpu_run(y->dev, bias_part, &c, (double)tensor_len(y) / 2);
}

/* db[from..to) += the sum of one block's tokens, from +0. */
static void bias_block(const BiasCtx *c, int64_t t0, int64_t t1, int64_t from, int64_t to)
{
    real_t sum[COLUMN_BLOCK] = {0};
    for (int64_t t = t0; t < t1; t++) {
        const real_t *dy = real_data(c->src) + t * c->src->stride + from;
        for (int64_t i = 0; i < to - from; i++)
            sum[i] += dy[i];
    }
    real_t *db = real_data(c->dst) + from;
    for (int64_t i = 0; i < to - from; i++)
        db[i] += sum[i];
}

static void bias_backward_part(int part, int n_parts, void *ctx)
{
    const BiasCtx *c = ctx;
    const int32_t *starts = i32_data(c->starts);
    int64_t n_seq = tensor_len(c->starts) - 1, from, to;
    part_range(c->src->dim[1], COLUMN_BLOCK, part, n_parts, &from, &to);
    for (int64_t s = 0; s < n_seq; s++)
        for (int64_t t = starts[s]; t < starts[s + 1]; t += NORM_BLOCK) {
            int64_t end = t + NORM_BLOCK < starts[s + 1] ? t + NORM_BLOCK : starts[s + 1];
            for (int64_t i = from; i < to; i += COLUMN_BLOCK)
                bias_block(c, t, end, i, i + COLUMN_BLOCK < to ? i + COLUMN_BLOCK : to);
        }
}

void CPU_OP(bias_backward)(Tensor *db, const Tensor *dy, const Tensor *starts)
{
    BiasCtx c = {db, dy, starts};
    cpu_run(db->dev, bias_backward_part, &c, (double)tensor_len(dy) / 2);
}
