/* norm.cu - RMSNorm and its backward: a block per row, staged in shared memory so that the one warp
 * that owns the row's sum reads it from there while all others wait for its result. The weight's
 * gradient: a partial sum per block of NORM_BLOCK tokens, then the partials in order.
 * Tested by tests/ops/norm.c. */
#include "common/runtime/cuda/token_sums.h"

enum {
    NORM_THREADS = 256,
    NORM_STAGE = 12000, /* floats that fit 48 KiB; wider rows are read from global memory again */
    DW_THREADS = 128,
    DW_BLOCKS = 1024, /* partial sums at once */
};

static unsigned norm_block(int64_t width)
{
    int64_t whole = (width + WARP - 1) / WARP * WARP, most = NORM_THREADS;
    return (unsigned)(whole < most ? whole : most);
}

/* A row that is f32 or bf16; NULL of none. */
typedef struct {
    const void *p;
    bool half;
} Row;

static __device__ __forceinline__ Row row_of(const Mixed *m, int64_t t)
{
    Row r = {m->p ? (const char *)m->p + t * m->stride * (m->half ? 2 : 4) : NULL, m->half};
    return r;
}

static __device__ __forceinline__ float row_at(Row r, int64_t i)
{
    return r.half ? bf16_float(((const uint16_t *)r.p)[i]) : ((const float *)r.p)[i];
}

/* Element i of g: of dy * w where w is given, else of dy. */
static __device__ __forceinline__ float product_at(Row dy, const float *w, int64_t i)
{
    return w ? row_at(dy, i) * w[i] : row_at(dy, i);
}

/* sum_i (dy * w)[i] x[i], a row reduction by the block's first warp; the block gets it by way of
 * *shared. What the block put into shared memory before may be read after. */
static __device__ __forceinline__ float block_dot(Row dy, const float *w, Row x, int64_t n,
                                                  float *shared)
{
    __syncthreads();
    if (threadIdx.x < WARP) {
        float a = 0;
#pragma unroll 8
        for (int64_t i = threadIdx.x; i < n; i += WARP)
            a = real_fma(product_at(dy, w, i), row_at(x, i), a);
        __syncwarp(FULL_MASK);
        a = warp_sum_tree(a);
        if (threadIdx.x == 0)
            *shared = a;
    }
    __syncthreads();
    return *shared;
}

static __global__ void __launch_bounds__(NORM_THREADS)
    rmsnorm_kernel(Mixed y, float *rstd, Mixed x, const float *w, int64_t n, float eps, bool staged)
{
    __shared__ float dot;
    DYN_SHARED(float, stage);
    const int64_t t = blockIdx.x;
    Row row = row_of(&x, t);
    if (staged) {
        for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
            stage[i] = row_at(row, i);
        row.p = stage;
        row.half = false;
    }
    float r = 1.0f / k_sqrt(block_dot(row, NULL, row, n, &dot) / (float)n + eps);
    if (threadIdx.x == 0)
        rstd[t] = r;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
        mixed_write(&y, t * y.stride + i, row_at(row, i) * r * w[i]);
}

void cuda_rmsnorm(Tensor *y, Tensor *rstd, const Tensor *x, const Tensor *w, double eps)
{
    int64_t n = x->dim[1];
    bool staged = n <= NORM_STAGE;
    if (x->dim[0] == 0 || n == 0)
        return;
    LAUNCH(rmsnorm_kernel, cuda_blocks(x->dim[0], 1), norm_block(n),
           (size_t)(staged ? n : 1) * sizeof(float), cuda_stream(y), mixed_of(y), f32_data(rstd),
           mixed_of(x), f32_data(w), n, (float)eps, staged);
}

typedef struct {
    Mixed dx, dy, x;
    const float *w, *rstd;
    int64_t n;
} NormBackward;

/* The stage holds g = dy * w and x of a row, where they fit. */
static __global__ void __launch_bounds__(NORM_THREADS)
    rmsnorm_dx_kernel(NormBackward a, bool staged)
{
    __shared__ float dot;
    DYN_SHARED(float, stage);
    const int64_t t = blockIdx.x, n = a.n;
    const float *w = a.w;
    Row dy = row_of(&a.dy, t), x = row_of(&a.x, t);
    if (staged) {
        for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
            stage[i] = product_at(dy, w, i);
            stage[n + i] = row_at(x, i);
        }
        dy.p = stage;
        x.p = stage + n;
        dy.half = x.half = false;
        w = NULL;
    }
    const float r = a.rstd[t], s = block_dot(dy, w, x, n, &dot) * (r * r) / (float)n;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
        const int64_t at = t * a.dx.stride + i;
        mixed_write(&a.dx, at, real_fma(r, real_fma(-s, row_at(x, i), product_at(dy, w, i)),
                                        mixed_read(&a.dx, at)));
    }
}

/* Blocks of rows are numbered without a list: those of sequence s begin at number
 * (first row of s) / NORM_BLOCK + s, which leaves room for them all; numbers in between have no rows.
 * Returns the number of rows of block b, and the first in *from. */
static __device__ __forceinline__ int token_block(int64_t *from, const int32_t *starts, int64_t S,
                                                  int64_t per_token, int64_t b)
{
    int64_t lo = 0, hi = S; /* the last sequence that begins at or before b */
    while (hi - lo > 1) {
        int64_t mid = (lo + hi) / 2;
        if (starts[mid] * per_token / NORM_BLOCK + mid <= b)
            lo = mid;
        else
            hi = mid;
    }
    const int64_t first = starts[lo] * per_token;
    *from = first + (b - (first / NORM_BLOCK + lo)) * NORM_BLOCK;
    int64_t left = starts[lo + 1] * per_token - *from;
    return left <= 0 ? 0 : left < NORM_BLOCK ? (int)left : (int)NORM_BLOCK;
}

/* partial[b][c]: the chain of token block first + b; of a number without tokens -0, which added
 * changes nothing. */
static __global__ void __launch_bounds__(DW_THREADS)
    token_sums_kernel(float *partial, TokenSums a, const int32_t *starts, int64_t S, int64_t first)
{
    const int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y;
    if (c >= a.n)
        return;
    int64_t t;
    const int n = token_block(&t, starts, S, a.per_token, first + b);
    const Row x = row_of(&a.x, t);
    float sum = n ? 0.0f : -0.0f;
#pragma unroll 4
    for (int i = 0; i < n; i++) {
        const float dy = mixed_read(&a.dy, (t + i) * a.dy.stride + c);
        sum = x.p ? real_fma(dy, row_at(x, i * a.x.stride + c) * a.rstd[t + i], sum) : sum + dy;
    }
    partial[b * a.n + c] = sum;
}

static __global__ void __launch_bounds__(DW_THREADS)
    partials_add_kernel(float *dst, const float *partial, int64_t n_blocks, int64_t n)
{
    const int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= n)
        return;
    float sum = dst[c];
#pragma unroll 8
    for (int64_t b = 0; b < n_blocks; b++)
        sum += partial[b * n + c];
    dst[c] = sum;
}

/* Slices of token blocks ascending, as many as scratch holds. */
void cuda_token_sums(Tensor *dst, const TokenSums *a, const Tensor *starts, int64_t n_rows)
{
    if (n_rows == 0 || a->n == 0)
        return;
    const int64_t S = tensor_len(starts) - 1, n_blocks = n_rows / NORM_BLOCK + S;
    const int64_t row_bytes = a->n * (int64_t)sizeof(float), room = CUDA_SCRATCH_BYTES / row_bytes;
    const int64_t at_once = room < 1 ? 1 : room < DW_BLOCKS ? room : (int64_t)DW_BLOCKS;
    float *partial = (float *)cuda_scratch(dst, (size_t)(at_once * row_bytes));
    for (int64_t b = 0; b < n_blocks; b += at_once) {
        const int64_t n = n_blocks - b < at_once ? n_blocks - b : at_once;
        dim3 grid(cuda_blocks(a->n, DW_THREADS), (unsigned)n);
        LAUNCH(token_sums_kernel, grid, DW_THREADS, 0, cuda_stream(dst), partial, *a, i32_data(starts), S, b);
        LAUNCH(partials_add_kernel, grid.x, DW_THREADS, 0, cuda_stream(dst), f32_data(dst), partial, n, a->n);
    }
}

void cuda_rmsnorm_backward(Tensor *dx, Tensor *dw, const Tensor *dy, const Tensor *x,
                           const Tensor *w, const Tensor *rstd, const Tensor *starts,
                           int64_t per_token)
{
    int64_t T = x->dim[0], n = x->dim[1];
    NormBackward a = {mixed_of(dx), mixed_of(dy), mixed_of(x), f32_data(w), f32_data(rstd), n};
    if (T == 0 || n == 0)
        return;
    bool staged = 2 * n <= NORM_STAGE;
    LAUNCH(rmsnorm_dx_kernel, cuda_blocks(T, 1), norm_block(n),
           (size_t)(staged ? 2 * n : 1) * sizeof(float), cuda_stream(dx), a, staged);
    TokenSums sums = {a.dy, a.x, a.rstd, n, per_token};
    if (dw->n_dims)
        cuda_token_sums(dw, &sums, starts, T);
}
