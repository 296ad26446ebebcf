/* attention_bf16_backward.cu - gradients of causal attention in bf16 on tensor cores, without atomics and
 * without stored weights, in two passes as in attention_backward.cu: a block owns 64 keys of a kv head
 * for dk and dv, or 64 queries of a head for dq, and adds up in its registers what the others give it,
 * ascending. Each of its four warps has 16 of the rows.
 *
 * The first pass works on transposed scores (keys x queries), so that weights and their gradients leave
 * one product as the fragments of the next in both passes. With p = 2^(s scale - lse), scale and lse times
 * log2 e, and ds = p (dp - delta), both rounded to bf16 for the products: dv = sum p do, dk = scale sum
 * ds q, dq = scale sum ds k by mma over 16 queries or keys ascending, 16 that are all masked left out.
 * Tested by tests/ops/attention_rows.c. */
#include "common/runtime/cuda/attention_bf16.h"

enum {
    THREADS = 128,
    ROWS = 64, /* of a block, and of the tiles it walks over */
    DELTA_THREADS = 128,
};

typedef struct {
    const uint16_t *q, *k, *v, *d_o, *o;
    const float *lse;
    uint16_t *dq, *dk, *dv;
    float *delta;
    int64_t q_stride, k_stride, v_stride, d_o_stride, o_stride, lse_stride, delta_stride;
    int64_t dq_stride, dk_stride, dv_stride;
    const int32_t *starts;
    int64_t T, n_seqs, n_slots, H, K;
    int D, G;
    float scale;
} Backward;

/* Tiles of 64 rows: two of the block's own, and two pairs that they meet in turn. */
typedef struct {
    uint16_t *tiles;
    float *stats; /* by turn: lse and delta of the queries, ROWS each; first pass */
    int columns;
} Shared;

static __device__ __forceinline__ uint16_t *own(const Shared *sh, int i)
{
    return sh->tiles + i * ROWS * sh->columns;
}
static __device__ __forceinline__ uint16_t *met(const Shared *sh, int turn, int i)
{
    return sh->tiles + (2 + 2 * turn + i) * ROWS * sh->columns;
}
static __device__ __forceinline__ float *stat(const Shared *sh, int turn, int i)
{
    return sh->stats + (2 * turn + i) * ROWS;
}

static __device__ __forceinline__ int warp_row(void)
{
    return not_ahead((int)threadIdx.x) / WARP * 16;
}
static __device__ __forceinline__ int lane_row(void)
{
    return (int)threadIdx.x % WARP / 4;
}
static __device__ __forceinline__ int lane_column(void)
{
    return (int)threadIdx.x % 4 * 2;
}

static __device__ __forceinline__ void rows_load(uint16_t *s, const uint16_t *p, int64_t stride,
                                                 const SeqTile *t, int64_t first, int64_t col,
                                                 const Backward *bw, int columns, bool wide)
{
    tile_load(s, half_rows(p, stride, t, first, ROWS, col), ROWS, columns, bw->D, wide, THREADS);
}

/* c = a . b of the warp's 16 rows of a and the 64 rows of b, over the columns. */
static __device__ __forceinline__ void square(float c[8][4], const uint16_t *a, const uint16_t *b,
                                              int row0, int columns)
{
    const int down = place_down(columns), across = place_across(columns);
#pragma unroll
    for (int n = 0; n < 8; n++)
        c[n][0] = c[n][1] = c[n][2] = c[n][3] = 0;
#pragma unroll 2
    for (int d = 0; d < columns; d += STEP) {
        uint32_t x[4];
        frag_a(x, a, down, row0, d, columns);
#pragma unroll
        for (int n = 0; n < 4; n++) {
            uint32_t y[4];
            frag_b(y, b, across, n * 16, d, columns);
            mma_bf16(c[2 * n], x, y);
            mma_bf16(c[2 * n + 1], x, y + 2);
        }
    }
}

/* sum += c rows: c's 64 columns are the rows' numbers; 16 at a time from `from` to below `to`. */
static __device__ __forceinline__ void gradient_add(float sum[HALF_COLUMNS_MAX / 8][4],
                                                    const float c[8][4], const uint16_t *rows,
                                                    int from, int to, int columns)
{
    const int down = place_down(columns);
#pragma unroll
    for (int j = 0; j < ROWS / STEP; j++) {
        const uint32_t x[4] = {
            bf16_low_high(c[2 * j][0], c[2 * j][1]), bf16_low_high(c[2 * j][2], c[2 * j][3]),
            bf16_low_high(c[2 * j + 1][0], c[2 * j + 1][1]), bf16_low_high(c[2 * j + 1][2], c[2 * j + 1][3])};
        if (j < from || j >= to)
            continue;
#pragma unroll
        for (int n = 0; n < columns / 16; n++) {
            uint32_t y[4];
            frag_b_down(y, rows, down, j * STEP, n * 16, columns);
            mma_bf16(sum[2 * n], x, y);
            mma_bf16(sum[2 * n + 1], x, y + 2);
        }
    }
}

static __device__ __forceinline__ void gradient_clear(float sum[HALF_COLUMNS_MAX / 8][4], int columns)
{
#pragma unroll
    for (int n = 0; n < columns / 8; n++)
        sum[n][0] = sum[n][1] = sum[n][2] = sum[n][3] = 0;
}

/* Rows of the warp from position `first` of t's sequence on, times a. */
static __device__ __forceinline__ void gradient_write(uint16_t *p, int64_t stride, const SeqTile *t,
                                                      int64_t first, int64_t col, float a,
                                                      const float sum[HALF_COLUMNS_MAX / 8][4], int D,
                                                      int columns, bool wide)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int64_t pos = first + lane_row() + 8 * h;
        uint16_t *to = p + (t->start + pos) * stride + col + lane_column();
        if (pos >= t->length)
            continue;
#pragma unroll
        for (int n = 0; n < columns / 8; n++)
            put_pair(to + 8 * n, sum[n][2 * h] * a, sum[n][2 * h + 1] * a,
                     D - 8 * n - lane_column(), wide);
    }
}

/* ---- delta -------------------------------------------------------------------------------------- */

/* A warp for a token's head: an FMA chain in each lane, then the tree. */
static __global__ void __launch_bounds__(DELTA_THREADS) delta_bf16_kernel(Backward bw)
{
    const int64_t i = ((int64_t)blockIdx.x * DELTA_THREADS + threadIdx.x) / WARP;
    const int lane = (int)threadIdx.x % WARP;
    const bool there = i < bw.T * bw.H;
    const int64_t t = there ? i / bw.H : 0, h = there ? i % bw.H : 0;
    const uint16_t *x = bw.d_o + t * bw.d_o_stride + h * bw.D, *y = bw.o + t * bw.o_stride + h * bw.D;
    float a = 0;
    for (int d = lane; d < bw.D; d += WARP)
        a = real_fma(bf16_float(x[d]), bf16_float(y[d]), a);
    a = warp_sum_tree(a);
    if (there && lane == 0)
        bw.delta[t * bw.delta_stride + h] = a;
}

/* ---- dk and dv ---------------------------------------------------------------------------------- */

/* Where a block of keys is in its walk: query head by head, their tiles ascending. */
typedef struct {
    int head;
    int64_t i0;
} Walk;

static __device__ __forceinline__ bool step_next(Walk *s, const SeqTile *t, int last_head)
{
    s->i0 += ROWS;
    if (s->i0 >= t->length) {
        s->i0 = t->first;
        s->head++;
    }
    return s->head <= last_head;
}

static __device__ __forceinline__ void queries_load(const Backward *bw, const SeqTile *t,
                                                    const Shared *sh, int turn, Walk s, int columns,
                                                    bool wide)
{
    const int64_t col = (int64_t)s.head * bw->D;
    rows_load(met(sh, turn, 0), bw->q, bw->q_stride, t, s.i0, col, bw, columns, wide);
    rows_load(met(sh, turn, 1), bw->d_o, bw->d_o_stride, t, s.i0, col, bw, columns, wide);
    cp_async_commit();
}

/* lse (times log2 e) of the tile's queries by half of the threads, delta by the other half; 0 where there is
 * no query: its row of d_o is 0 too. */
static __device__ __forceinline__ float stat_load(const Backward *bw, const SeqTile *t, Walk s)
{
    const int64_t pos = s.i0 + threadIdx.x % ROWS, row = t->start + pos;
    if (pos >= t->length)
        return 0;
    return threadIdx.x < ROWS ? bw->lse[row * bw->lse_stride + s.head] * LOG2_E
                              : bw->delta[row * bw->delta_stride + s.head];
}

/* One tile of queries. p, ds: rows are the warp's keys, columns queries. */
static __device__ __forceinline__ void keys_step(float dk[HALF_COLUMNS_MAX / 8][4],
                                                 float dv[HALF_COLUMNS_MAX / 8][4], const Backward *bw,
                                                 const Shared *sh, int turn, bool diagonal, int columns)
{
    const int row0 = warp_row(), from = diagonal ? row0 / STEP : 0;
    const uint16_t *q = met(sh, turn, 0), *d_o = met(sh, turn, 1);
    const float *lse = stat(sh, turn, 0), *delta = stat(sh, turn, 1);
    float p[8][4], ds[8][4];
    square(p, own(sh, 0), q, row0, columns);
#pragma unroll
    for (int n = 0; n < 8; n++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int query = n * 8 + lane_column() + e % 2, key = row0 + lane_row() + e / 2 * 8;
            p[n][e] = diagonal && key > query
                          ? 0.0f
                          : exp2_approx(real_fma(p[n][e], bw->scale * LOG2_E, -lse[query]));
        }
    }
    gradient_add(dv, p, d_o, from, ROWS / STEP, columns);
    square(ds, own(sh, 1), d_o, row0, columns);
#pragma unroll
    for (int n = 0; n < 8; n++) {
#pragma unroll
        for (int e = 0; e < 4; e++)
            ds[n][e] = p[n][e] * (ds[n][e] - delta[n * 8 + lane_column() + e % 2]);
    }
    gradient_add(dk, ds, q, from, ROWS / STEP, columns);
}

/* Key tiles ascending: the first, which most queries see, start first. */
static __device__ __forceinline__ void keys_block(const Backward *bw, const Shared *sh, SeqTile *t,
                                                  int columns, bool wide)
{
    const int kv_head = (int)(blockIdx.x % bw->K), last_head = (kv_head + 1) * bw->G - 1;
    const int64_t col = (int64_t)kv_head * bw->D;
    if (threadIdx.x == 0)
        *t = tile_in_slot(bw->starts, bw->n_seqs, blockIdx.x / bw->K, ROWS);
    __syncthreads();
    if (t->first >= t->length)
        return;
    float dk[HALF_COLUMNS_MAX / 8][4], dv[HALF_COLUMNS_MAX / 8][4];
    gradient_clear(dk, columns);
    gradient_clear(dv, columns);
    Walk now = {kv_head * bw->G, t->first}, next = now;
    rows_load(own(sh, 0), bw->k, bw->k_stride, t, t->first, col, bw, columns, wide);
    rows_load(own(sh, 1), bw->v, bw->v_stride, t, t->first, col, bw, columns, wide);
    queries_load(bw, t, sh, 0, now, columns, wide);
    stat(sh, 0, 0)[threadIdx.x] = stat_load(bw, t, now);
    bool more = true;
#pragma unroll 1
    for (int turn = 0; more; turn = 1 - turn) {
        float of_next = 0;
        cp_async_wait(0);
        __syncthreads(); /* this pair is there, the other one is used */
        more = step_next(&next, t, last_head);
        if (more) {
            queries_load(bw, t, sh, 1 - turn, next, columns, wide);
            of_next = stat_load(bw, t, next);
        }
        keys_step(dk, dv, bw, sh, turn, now.i0 == t->first, columns);
        stat(sh, 1 - turn, 0)[threadIdx.x] = of_next;
        now = next;
    }
    gradient_write(bw->dk, bw->dk_stride, t, t->first + warp_row(), col, bw->scale, dk, bw->D, columns,
                   wide);
    gradient_write(bw->dv, bw->dv_stride, t, t->first + warp_row(), col, 1.0f, dv, bw->D, columns, wide);
}

/* ---- dq ----------------------------------------------------------------------------------------- */

static __device__ __forceinline__ void keys_load(const Backward *bw, const SeqTile *t,
                                                 const Shared *sh, int turn, int head, int64_t key0,
                                                 int columns, bool wide)
{
    const int64_t col = (int64_t)(head / bw->G) * bw->D;
    rows_load(met(sh, turn, 0), bw->k, bw->k_stride, t, key0, col, bw, columns, wide);
    rows_load(met(sh, turn, 1), bw->v, bw->v_stride, t, key0, col, bw, columns, wide);
    cp_async_commit();
}

/* One tile of keys. ds: rows are the warp's queries, columns keys. */
static __device__ __forceinline__ void queries_step(float dq[HALF_COLUMNS_MAX / 8][4],
                                                    const Backward *bw, const Shared *sh, int turn,
                                                    bool diagonal, const float lse[2],
                                                    const float delta[2], int columns)
{
    const int row0 = warp_row();
    float p[8][4], ds[8][4];
    square(p, own(sh, 0), met(sh, turn, 0), row0, columns);
    square(ds, own(sh, 1), met(sh, turn, 1), row0, columns);
#pragma unroll
    for (int n = 0; n < 8; n++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int key = n * 8 + lane_column() + e % 2, query = row0 + lane_row() + e / 2 * 8;
            const float w = diagonal && key > query
                                ? 0.0f
                                : exp2_approx(real_fma(p[n][e], bw->scale * LOG2_E, -lse[e / 2]));
            ds[n][e] = w * (ds[n][e] - delta[e / 2]);
        }
    }
    gradient_add(dq, ds, met(sh, turn, 0), 0, diagonal ? row0 / STEP + 1 : ROWS / STEP, columns);
}

/* Blocks go from the last tile of a sequence, which sees most keys, to the first. */
static __device__ __forceinline__ void queries_block(const Backward *bw, const Shared *sh, SeqTile *t,
                                                     int columns, bool wide)
{
    const int head = (int)(blockIdx.x % bw->H);
    const int64_t col = (int64_t)head * bw->D;
    if (threadIdx.x == 0)
        *t = tile_in_slot(bw->starts, bw->n_seqs, bw->n_slots - 1 - blockIdx.x / bw->H, ROWS);
    __syncthreads();
    if (t->first >= t->length)
        return;
    float dq[HALF_COLUMNS_MAX / 8][4], lse[2], delta[2];
    gradient_clear(dq, columns);
#pragma unroll
    for (int h = 0; h < 2; h++) { /* 0 where there is no query */
        const int64_t pos = t->first + warp_row() + lane_row() + 8 * h, row = t->start + pos;
        const bool there = pos < t->length;
        lse[h] = there ? bw->lse[row * bw->lse_stride + head] * LOG2_E : 0.0f;
        delta[h] = there ? bw->delta[row * bw->delta_stride + head] : 0.0f;
    }
    rows_load(own(sh, 0), bw->q, bw->q_stride, t, t->first, col, bw, columns, wide);
    rows_load(own(sh, 1), bw->d_o, bw->d_o_stride, t, t->first, col, bw, columns, wide);
    keys_load(bw, t, sh, 0, head, 0, columns, wide);
#pragma unroll 1
    for (int64_t key0 = 0; key0 <= t->first; key0 += ROWS) {
        const int turn = (int)(key0 / ROWS % 2);
        cp_async_wait(0);
        __syncthreads(); /* this pair is there, the other one is used */
        if (key0 < t->first)
            keys_load(bw, t, sh, 1 - turn, head, key0 + ROWS, columns, wide);
        queries_step(dq, bw, sh, turn, key0 == t->first, lse, delta, columns);
    }
    gradient_write(bw->dq, bw->dq_stride, t, t->first + warp_row(), col, bw->scale, dq, bw->D, columns,
                   wide);
}

/* wide: all tensors are; rows that are not aligned go element by element. */
#define BACKWARD_KERNEL(NAME, WHAT, COLUMNS, WIDE)                                                 \
    static __global__ void __launch_bounds__(THREADS, 2) NAME(Backward bw)                         \
    {                                                                                              \
        DYN_SHARED(uint16_t, tiles);                                                               \
        __shared__ float stats[4 * ROWS];                                                          \
        __shared__ SeqTile t;                                                                      \
        const Shared sh = {tiles, stats, COLUMNS};                                                 \
        WHAT##_block(&bw, &sh, &t, COLUMNS, WIDE);                                                 \
    }
BACKWARD_KERNEL(keys_bf16_64_kernel, keys, 64, true)
BACKWARD_KERNEL(keys_bf16_128_kernel, keys, 128, true)
BACKWARD_KERNEL(queries_bf16_64_kernel, queries, 64, true)
BACKWARD_KERNEL(queries_bf16_128_kernel, queries, 128, true)
BACKWARD_KERNEL(keys_bf16_64_narrow_kernel, keys, 64, false)
BACKWARD_KERNEL(keys_bf16_128_narrow_kernel, keys, 128, false)
BACKWARD_KERNEL(queries_bf16_64_narrow_kernel, queries, 64, false)
BACKWARD_KERNEL(queries_bf16_128_narrow_kernel, queries, 128, false)

#define BACKWARD_LAUNCH(kernel, blocks)                                                            \
    do {                                                                                           \
        CUDA_CALL(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,        \
                                       (int)smem));                                                \
        LAUNCH(kernel, blocks, THREADS, smem, stream, bw);                                         \
    } while (0)

void cuda_attention_backward__bf16(Tensor *dq, Tensor *dk, Tensor *dv, Tensor *delta,
                                   const Tensor *d_o, const Tensor *o, const Tensor *lse,
                                   const Tensor *q, const Tensor *k, const Tensor *v,
                                   const Tensor *starts, int64_t head_dim, double scale)
{
    const int64_t D = head_dim, H = q->dim[1] / D, K = k->dim[1] / D, S = starts->dim[0] - 1;
    const int64_t T = q->dim[0];
    const int columns = half_columns(D);
    const size_t smem = (size_t)(6 * ROWS) * (size_t)columns * sizeof(uint16_t);
    const Tensor *const moved[] = {q, k, v, d_o, dq, dk, dv};
    bool wide = true;
    for (int i = 0; i < 7; i++)
        wide = wide && half_wide(moved[i], D);
    Backward bw = {bf16_data(q),
                   bf16_data(k),
                   bf16_data(v),
                   bf16_data(d_o),
                   bf16_data(o),
                   f32_data(lse),
                   bf16_data(dq),
                   bf16_data(dk),
                   bf16_data(dv),
                   f32_data(delta),
                   q->stride,
                   k->stride,
                   v->stride,
                   d_o->stride,
                   o->stride,
                   lse->stride,
                   delta->stride,
                   dq->stride,
                   dk->stride,
                   dv->stride,
                   i32_data(starts),
                   T,
                   S,
                   tile_slots(T, S, ROWS),
                   H,
                   K,
                   (int)D,
                   (int)(H / K),
                   (float)scale};
    const cudaStream_t stream = cuda_stream(q);
    if (T == 0)
        return;
    LAUNCH(delta_bf16_kernel, cuda_blocks(T * H, DELTA_THREADS / WARP), DELTA_THREADS, 0, stream, bw);
    const unsigned keys = cuda_blocks(bw.n_slots * K, 1), queries = cuda_blocks(bw.n_slots * H, 1);
    if (columns == 64 && wide) {
        BACKWARD_LAUNCH(keys_bf16_64_kernel, keys);
        BACKWARD_LAUNCH(queries_bf16_64_kernel, queries);
    } else if (columns == 64) {
        BACKWARD_LAUNCH(keys_bf16_64_narrow_kernel, keys);
        BACKWARD_LAUNCH(queries_bf16_64_narrow_kernel, queries);
    } else if (wide) {
        BACKWARD_LAUNCH(keys_bf16_128_kernel, keys);
        BACKWARD_LAUNCH(queries_bf16_128_kernel, queries);
    } else {
        BACKWARD_LAUNCH(keys_bf16_128_narrow_kernel, keys);
        BACKWARD_LAUNCH(queries_bf16_128_narrow_kernel, queries);
    }
}
