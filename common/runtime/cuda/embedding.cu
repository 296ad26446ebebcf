/* embedding.cu - rows of a table by id, and their gradient: gather_rows and scatter_rows of
 * elementwise.cu, but for a table in panels. Tested by tests/ops/embedding.c. */
#include "common/runtime/cuda/span.h"

SPAN_KERNEL panel_rows_kernel(Span s, float *y, int64_t y_stride, const int32_t *ids,
                              const float *w)
{
    SPAN_ROWS(t, s)
    {
        const float *row = w + ids[t] / PANEL_N * s.cols * PANEL_N + ids[t] % PANEL_N;
        SPAN_REST(i, s)
        y[t * y_stride + i] = row[i * PANEL_N];
    }
}

void cuda_embedding(Tensor *y, const Tensor *ids, const Tensor *w)
{
    Span s = {y->dim[0], y->dim[1], 0};
    if (w->layout == LAYOUT_ROWS)
        cuda_gather_rows(y, w, ids);
    else
        SPAN_LAUNCH(panel_rows_kernel, s, y, f32_data(y), y->stride, i32_data(ids), f32_data(w));
}

void cuda_embedding_backward(Tensor *dw, const Tensor *dy, const Tensor *ids)
{
    cuda_scatter_rows(dw, dy, ids);
}
