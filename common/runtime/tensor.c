/* tensor.c - sizes, views and names of tensors; see tensor.h. Owns nothing, computes nothing.
 * Tested by tests/unit/test_runtime.c. */
#include "common/runtime/tensor.h"

#include "common/base/error.h"

#include <stdio.h>

size_t dtype_bytes(DType t)
{
    static const size_t bytes[DTYPE_COUNT] = {
        [DTYPE_F32] = 4, [DTYPE_BF16] = 2, [DTYPE_F64] = 8, [DTYPE_I32] = 4, [DTYPE_U8] = 1};
    CHECK((unsigned)t < DTYPE_COUNT, "dtype %d", (int)t);
    return bytes[t];
}

const char *dtype_name(DType t)
{
    static const char *const name[DTYPE_COUNT] = {[DTYPE_F32] = "f32",
                                                  [DTYPE_BF16] = "bf16",
                                                  [DTYPE_F64] = "f64",
                                                  [DTYPE_I32] = "i32",
                                                  [DTYPE_U8] = "u8"};
    return (unsigned)t < DTYPE_COUNT ? name[t] : "?";
}

int64_t tensor_len(const Tensor *t)
{
    if (t->n_dims == 0)
        return t->data ? 1 : 0;
    int64_t n = 1;
    for (int i = 0; i < t->n_dims; i++)
        n *= t->dim[i];
    return n;
}

int64_t tensor_rows(const Tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->n_dims - 1; i++)
        n *= t->dim[i];
    return n;
}

int64_t tensor_cols(const Tensor *t)
{
    return t->n_dims ? t->dim[t->n_dims - 1] : 1;
}

int64_t tensor_slots(const Tensor *t)
{
    if (t->layout == LAYOUT_PANEL) {
        int64_t k = t->dim[1] + (t->dtype == DTYPE_BF16 ? t->dim[1] % 2 : 0);
        return (t->dim[0] + PANEL_N - 1) / PANEL_N * PANEL_N * k;
    }
    if (t->layout == LAYOUT_ROWS && t->n_dims > 1 && tensor_len(t) > 0)
        return (tensor_rows(t) - 1) * t->stride + tensor_cols(t);
    return tensor_len(t);
}

int64_t tensor_slot(const Tensor *t, int64_t row, int64_t col)
{
    int64_t K = tensor_cols(t), panel = row / PANEL_N, lane = row % PANEL_N;
    if (t->layout != LAYOUT_PANEL)
        return row * (t->n_dims > 1 ? t->stride : 0) + col;
    if (t->dtype != DTYPE_BF16)
        return (panel * K + col) * PANEL_N + lane;
    return (panel * (K + K % 2) + col - col % 2) * PANEL_N + 2 * lane + 1 - col % 2;
}

size_t tensor_bytes(const Tensor *t)
{
    return (size_t)tensor_slots(t) * dtype_bytes(t->dtype);
}

bool tensor_same_shape(const Tensor *a, const Tensor *b)
{
    if (a->n_dims != b->n_dims)
        return false;
    for (int i = 0; i < a->n_dims; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    return true;
}

static Tensor tensor_moved(Tensor t, int64_t elements)
{
    if (t.data)
        t.data = (unsigned char *)t.data + (size_t)elements * dtype_bytes(t.dtype);
    return t;
}

Tensor tensor_slice(const Tensor *t, int64_t from, int64_t n)
{
    CHECK(t->layout == LAYOUT_ROWS && t->n_dims >= 1, "slice of %s", tensor_text(t));
    CHECK(from >= 0 && n >= 0 && from + n <= t->dim[0], "rows [%lld, %lld) of %s", (long long)from,
          (long long)(from + n), tensor_text(t));
    int64_t step = 1; /* elements from one index of the first dim to the next */
    for (int i = 1; i < t->n_dims; i++)
        step *= i == t->n_dims - 1 ? t->stride : t->dim[i];
    Tensor s = tensor_moved(*t, from * step);
    s.dim[0] = n;
    if (s.n_dims == 1)
        s.stride = n;
    return s;
}

Tensor tensor_make1(void *data, Device *dev, DType dtype, int64_t d0)
{
    return (Tensor){
        .data = data, .dev = dev, .dtype = dtype, .n_dims = 1, .dim = {d0}, .stride = d0};
}

Tensor tensor_make2(void *data, Device *dev, DType dtype, int64_t d0, int64_t d1)
{
    return (Tensor){
        .data = data, .dev = dev, .dtype = dtype, .n_dims = 2, .dim = {d0, d1}, .stride = d1};
}

Tensor tensor_view2(const Tensor *t, int64_t d0, int64_t d1)
{
    bool dense = t->layout == LAYOUT_ROWS && (t->n_dims < 2 || t->stride == tensor_cols(t));
    CHECK(dense && d0 >= 0 && d1 >= 0 && d0 * d1 == tensor_len(t), "%s seen as (%lld, %lld)",
          tensor_text(t), (long long)d0, (long long)d1);
    return tensor_make2(t->data, t->dev, t->dtype, d0, d1);
}

const char *tensor_text(const Tensor *t)
{
    enum { RING = 8, LENGTH = 160 };
    static _Thread_local char ring[RING][LENGTH];
    static _Thread_local unsigned next;
    static const char *const layout[] = {"rows", "panel", "kv_page"};
    char *s = ring[next++ % RING];
    int n = snprintf(s, LENGTH, "%s %s (", dtype_name(t->dtype),
                     (unsigned)t->layout < 3 ? layout[t->layout] : "?");
    for (int i = 0; i < t->n_dims && i < TENSOR_MAX_DIMS; i++)
        n += snprintf(s + n, (size_t)(LENGTH - n), "%s%lld", i ? ", " : "", (long long)t->dim[i]);
    n += snprintf(s + n, (size_t)(LENGTH - n), ")");
    if (t->layout == LAYOUT_ROWS && t->n_dims > 1 && t->stride != tensor_cols(t))
        snprintf(s + n, (size_t)(LENGTH - n), " stride %lld", (long long)t->stride);
    return s;
}
