/* embedding.c - rows of a table by id, and their gradient. The gradient of a row is one chain of
 * additions onto the stored gradient, tokens ascending, so that any cut of the tokens into calls
 * gives the same bits; parts split the columns, never the tokens. Tested by tests/ops/embedding.c.
 */
#include "common/runtime/bf16.h"
#include "common/runtime/cpu/cpu.h"
#include "common/runtime/cpu/kmath.h"

#include <string.h>

enum {
    COLUMN_BLOCK = 16, /* a cache line of columns */
    AHEAD = 24,
};

typedef struct {
    Tensor *dst;
    const Tensor *ids, *src;
} EmbeddingCtx;

/* Columns of a panel's row lie a row of the panel apart, so each comes in a line of its own: lines are
 * asked for AHEAD steps early, beyond what the core has in flight by itself. */
static void row_of_panel(real_t *restrict y, const real_t *restrict row, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        __builtin_prefetch(row + (i + AHEAD) * PANEL_N);
        y[i] = row[i * PANEL_N];
    }
}

/* The same of pairs: the earlier of two columns is a word's upper half. */
static void row_of_pairs(real_t *restrict y, const uint32_t *restrict row, int64_t n)
{
    for (int64_t i = 0; i < n / 2; i++) {
        uint32_t pair = row[i * PANEL_N];
        __builtin_prefetch(row + (i + AHEAD) * PANEL_N);
        y[2 * i] = (real_t)f32_of_bf16((uint16_t)(pair >> 16));
        y[2 * i + 1] = (real_t)f32_of_bf16((uint16_t)pair);
    }
    if (n % 2)
        y[n - 1] = (real_t)f32_of_bf16((uint16_t)(row[n / 2 * PANEL_N] >> 16));
}

static void embedding_row(real_t *restrict y, const Tensor *w, int64_t id)
{
    const int64_t n = w->dim[1], at = tensor_slot(w, id, 0);
    if (w->layout == LAYOUT_PANEL && w->dtype == DTYPE_BF16) {
        row_of_pairs(y, (const uint32_t *)w->data + at / 2, n);
    } else if (w->layout == LAYOUT_PANEL) {
        row_of_panel(y, real_data(w) + at, n);
    } else if (w->dtype == DTYPE_BF16) {
        const uint16_t *restrict row = (const uint16_t *)w->data + at;
        for (int64_t i = 0; i < n; i++)
            y[i] = (real_t)f32_of_bf16(row[i]);
    } else {
        memcpy(y, real_data(w) + at, (size_t)n * sizeof(real_t));
    }
}

static void embedding_part(int part, int n_parts, void *ctx)
{
    const EmbeddingCtx *c = ctx;
    const int32_t *ids = i32_data(c->ids);
    int64_t from, to;
    part_range(c->dst->dim[0], 1, part, n_parts, &from, &to);
    for (int64_t t = from; t < to; t++)
        embedding_row(real_data(c->dst) + t * c->dst->stride, c->src, ids[t]);
}

void CPU_OP(embedding)(Tensor *y, const Tensor *ids, const Tensor *w)
{
    EmbeddingCtx c = {y, ids, w};
    cpu_run(y->dev, embedding_part, &c, (double)tensor_len(y));
}

static void embedding_backward_part(int part, int n_parts, void *ctx)
{
    const EmbeddingCtx *c = ctx;
    const int32_t *ids = i32_data(c->ids);
    int64_t from, to;
    part_range(c->dst->dim[1], COLUMN_BLOCK, part, n_parts, &from, &to);
    for (int64_t t = 0; t < c->src->dim[0]; t++) {
        real_t *restrict dw = real_data(c->dst) + ids[t] * c->dst->stride;
        const real_t *restrict dy = real_data(c->src) + t * c->src->stride;
        for (int64_t i = from; i < to; i++)
            dw[i] += dy[i];
    }
}

void CPU_OP(embedding_backward)(Tensor *dw, const Tensor *dy, const Tensor *ids)
{
    EmbeddingCtx c = {dw, ids, dy};
    cpu_run(dw->dev, embedding_backward_part, &c, (double)tensor_len(dy));
}
