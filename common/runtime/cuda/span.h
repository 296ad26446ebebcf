/* span.h - elementwise kernels: tensors seen as rows x cols, or as one long row when all are dense.
 *
 *     SPAN_KERNEL add_kernel(Span s, float *y, int64_t y_stride, ...)
 *     {
 *         SPAN_ROWS(r, s) {
 *             SPAN_WIDE(i, s) store4(...);   columns i .. i + 3, whose addresses are whole 16 bytes
 *             SPAN_REST(i, s) y[...] = ...;  the other columns, one by one
 *         }
 *     }
 *     Span s = span_of(all, 3);  SPAN_LAUNCH(add_kernel, s, y, f32_data(y), y->stride, ...);
 *
 * Elements do not meet, so the shape of the grid changes no bit. */
#ifndef RLHF_RUNTIME_CUDA_SPAN_H
#define RLHF_RUNTIME_CUDA_SPAN_H

#include "common/runtime/cuda/cuda.h"

enum { SPAN_THREADS = 256, SPAN_WAVES = 16, GRID_Y_MAX = 65535 };

/* Four blocks on a multiprocessor leave 64 registers. Left to itself ptxas aims at 32 for sm_100 and
 * spills. */
#define SPAN_KERNEL static __global__ void __launch_bounds__(SPAN_THREADS, 4)

typedef struct {
    int64_t rows, cols;
    int64_t wide; /* columns [0, wide) are done four at a time; a multiple of 4 */
} Span;

static inline bool span_dense(const Tensor *t)
{
    return t->layout != LAYOUT_ROWS || t->n_dims < 2 || t->stride == tensor_cols(t);
}

/* Rows stay rows: for kernels that treat them differently. Tensors are f32. */
static inline Span span_rows(int64_t rows, int64_t cols, const Tensor *const *t, int n)
{
    bool aligned = true;
    for (int i = 0; i < n; i++)
        aligned =
            aligned && (uintptr_t)t[i]->data % 16 == 0 && (rows == 1 || t[i]->stride % 4 == 0);
    Span s = {rows, cols, aligned ? cols / 4 * 4 : 0};
    return s;
}

/* Of f32 tensors of one shape and layout: one row of all storage slots when all are dense. */
static inline Span span_of(const Tensor *const *t, int n)
{
    bool dense = true;
    for (int i = 0; i < n; i++)
        dense = dense && span_dense(t[i]);
    return dense ? span_rows(1, tensor_slots(t[0]), t, n)
                 : span_rows(tensor_rows(t[0]), tensor_cols(t[0]), t, n);
}

static inline unsigned span_min(int64_t a, int64_t b)
{
    return (unsigned)(a < b ? a : b);
}

/* Steps that a row takes: fours, or single columns. */
static inline int64_t span_steps(const Span *s)
{
    return s->wide ? s->wide / 4 : s->cols;
}

/* Threads of a block: what a row can use, in whole warps. */
static inline unsigned span_block(const Span *s)
{
    return span_min((span_steps(s) + WARP - 1) / WARP * WARP, SPAN_THREADS);
}

/* Enough blocks for SPAN_WAVES on every multiprocessor; loops take the rest. */
static inline dim3 span_grid(const Span *s, const CudaDevice *d)
{
    int64_t block = span_block(s), x = (span_steps(s) + block - 1) / block;
    return dim3(span_min(x, (int64_t)d->n_sm * SPAN_WAVES), span_min(s->rows, GRID_Y_MAX));
}

#define SPAN_LAUNCH(kernel, s, tensor, ...)                                                        \
    do {                                                                                           \
        if ((s).rows > 0 && (s).cols > 0)                                                          \
            LAUNCH(kernel, span_grid(&(s), cuda_device(tensor)), span_block(&(s)), 0,              \
                   cuda_stream(tensor), (s), __VA_ARGS__);                                         \
    } while (0)

static __device__ __forceinline__ int64_t span_first(void)
{
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}
static __device__ __forceinline__ int64_t span_step(void)
{
    return (int64_t)gridDim.x * blockDim.x;
}
#define SPAN_ROWS(r, s) for (int64_t r = blockIdx.y; r < (s).rows; r += gridDim.y)
#define SPAN_WIDE(i, s) for (int64_t i = 4 * span_first(); i < (s).wide; i += 4 * span_step())
#define SPAN_REST(i, s) for (int64_t i = (s).wide + span_first(); i < (s).cols; i += span_step())

#endif
