/* tensor.h - a Tensor is a value and a view: copy it freely, it owns nothing. Bytes belong to an
 * Arena (arena.h).
 *
 * Layouts:
 *   ROWS    element (i, j) of a (d0, d1) tensor at data[i * stride + j]; higher ranks are row-major
 *           with the first dims folded: (d0, d1, d2) has stride between rows of the last dim.
 *   PANEL   a weight matrix (N, K), Hugging Face's [out, in], cut along N into panels of PANEL_N
 *           columns of the product: element (n, k) at
 *               data[((n / PANEL_N) * K + k) * PANEL_N + n % PANEL_N]
 *           so that the lanes of y[m, n] = sum_k x[m, k] w[n, k] are contiguous. Lanes n >= N of the
 *           last panel are zero and stay zero. The f32 master of a weight *is* its panel.
 *           A bf16 panel keeps pairs of k side by side, the earlier in the odd slot, because that is
 *           the one a dot-product instruction adds first: element (n, k) at
 *               data[((n / PANEL_N) * K2 + k - k % 2) * PANEL_N + n % PANEL_N * 2 + 1 - k % 2]
 *           with K2 = K rounded up to even; for odd K the place of k = K is zero and stays zero.
 *   KV_PAGE a page of KV_TILE consecutive positions of one sequence and one kv head:
 *           keys (D, KV_TILE), values (KV_TILE, D). See model/kv.h.
 */
#ifndef RLHF_RUNTIME_TENSOR_H
#define RLHF_RUNTIME_TENSOR_H

#include "common/runtime/real.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { DTYPE_F32, DTYPE_BF16, DTYPE_F64, DTYPE_I32, DTYPE_U8, DTYPE_COUNT } DType;
typedef enum { LAYOUT_ROWS, LAYOUT_PANEL, LAYOUT_KV_PAGE } Layout;

enum {
    TENSOR_MAX_DIMS = 5,
    PANEL_N = 32,    /* width of a weight panel, in output columns */
    KV_TILE = 64,    /* keys per tile and per page */
    KV_CHUNK = 512,  /* keys per chunk: 8 tiles */
    BF16_HEAD_DIM_MAX = 128, /* of attention in bf16 */
    VOCAB_TILE = 512, /* entries per tile of log-sum-exp and sampling */
    SUM_LANES = 32,   /* interleaved accumulators of a row reduction */
    NORM_BLOCK = 64,  /* tokens per partial sum of norm and bias gradients, from a sequence's start */
    SUMSQ_BLOCK = 65536, /* elements per partial of the global gradient norm */
};

typedef struct Device Device;

typedef struct Tensor {
    void *data; /* NULL while planning, and for empty tensors */
    Device *dev;
    DType dtype;
    Layout layout;
    int n_dims;
    int64_t dim[TENSOR_MAX_DIMS];
    int64_t stride; /* ROWS: elements from one row (last dim) to the next; = last dim when dense */
} Tensor;

size_t dtype_bytes(DType t);
const char *dtype_name(DType t); /* "f32" */

int64_t tensor_len(const Tensor *t);    /* product of dims */
size_t tensor_bytes(const Tensor *t);   /* bytes of storage, panel padding included */
int64_t tensor_slots(const Tensor *t);  /* elements of storage: what AdamW and the norm walk over */
int64_t tensor_slot(const Tensor *t, int64_t row, int64_t col); /* where ROWS or PANEL keeps an element */
int64_t tensor_rows(const Tensor *t);   /* product of all dims but the last; 1 for rank 0 and 1 */
int64_t tensor_cols(const Tensor *t);   /* last dim */
bool tensor_same_shape(const Tensor *a, const Tensor *b);
/* A view of rows [from, from + n) of the first dim (ROWS only). */
Tensor tensor_slice(const Tensor *t, int64_t from, int64_t n);
/* A dense ROWS view over foreign memory. tensor_make2(data, dev, DTYPE_F32, T, C). */
Tensor tensor_make1(void *data, Device *dev, DType dtype, int64_t d0);
Tensor tensor_make2(void *data, Device *dev, DType dtype, int64_t d0, int64_t d1);
/* The same bytes with other dims of equal product (dense ROWS only). */
Tensor tensor_view2(const Tensor *t, int64_t d0, int64_t d1);
/* "f32 rows (128, 64)": static text per thread, a few calls stay valid. */
const char *tensor_text(const Tensor *t);

#endif
