/* embedding.c - rows of a table by id, and their gradient. The gradient of a row is one chain of
 * additions onto the stored gradient, tokens ascending, so that any cut of the tokens into calls
 * gives the same bits; parts split the columns, never the tokens. Tested by tests/ops/embedding.c.
 */
#include "common/runtime/cpu/cpu.h"
#include "common/runtime/cpu/kmath.h"

#include <string.h>

enum { COLUMN_BLOCK = 16 }; /* a cache line of columns */

typedef struct {
    Tensor *dst;
    const Tensor *ids, *src;
} EmbeddingCtx;

static void embedding_part(int part, int n_parts, void *ctx)
{
    const EmbeddingCtx *c = ctx;
    const int32_t *ids = i32_data(c->ids);
    const real_t *w = real_data(c->src);
    int64_t width = c->src->dim[1], from, to;
    part_range(c->dst->dim[0], 1, part, n_parts, &from, &to);
    for (int64_t t = from; t < to; t++) {
        real_t *y = real_data(c->dst) + t * c->dst->stride;
        if (c->src->layout == LAYOUT_ROWS) {
            memcpy(y, w + ids[t] * c->src->stride, (size_t)width * sizeof(real_t));
            continue;
        }
        const real_t *row = w + ids[t] / PANEL_N * width * PANEL_N + ids[t] % PANEL_N;
        for (int64_t i = 0; i < width; i++)
            y[i] = row[i * PANEL_N];
    }
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
