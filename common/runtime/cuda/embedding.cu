/* embedding.cu - rows of a table by id, and their gradient: gather_rows and scatter_rows of
 * elementwise.cu, but for a table in panels. Tested by tests/ops/embedding.c. */
#include "common/runtime/bf16.h"
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

/* A row of a bf16 table: of pairs of columns in panels, or as it is. */
SPAN_KERNEL half_rows_kernel(Span s, float *y, int64_t y_stride, const int32_t *ids,
                             const uint16_t *w, int64_t w_stride, bool panel)
{
    SPAN_ROWS(t, s)
    {
        const int64_t id = ids[t], from = id / PANEL_N * (s.cols + s.cols % 2) * PANEL_N + id % PANEL_N * 2;
        SPAN_REST(i, s)
        {
            int64_t at = panel ? from + (i - i % 2) * PANEL_N + 1 - i % 2 : id * w_stride + i;
            y[t * y_stride + i] = f32_of_bf16(w[at]);
        }
    }
}

void cuda_embedding(Tensor *y, const Tensor *ids, const Tensor *w)
{
    Span s = {y->dim[0], y->dim[1], 0};
    if (w->dtype == DTYPE_BF16)
        SPAN_LAUNCH(half_rows_kernel, s, y, f32_data(y), y->stride, i32_data(ids),
                    (const uint16_t *)w->data, w->stride, w->layout == LAYOUT_PANEL);
    else if (w->layout == LAYOUT_ROWS)
        cuda_gather_rows(y, w, ids);
    else
        SPAN_LAUNCH(panel_rows_kernel, s, y, f32_data(y), y->stride, i32_data(ids), f32_data(w));
}

void cuda_embedding_backward(Tensor *dw, const Tensor *dy, const Tensor *ids)
{
    cuda_scatter_rows(dw, dy, ids);
}
