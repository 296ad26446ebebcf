/* attention_backward.cu - gradients of causal attention without atomics and without stored weights:
 * a tile of weights is computed again from q, k and the forward's log-sum-exp.
 *
 * One kernel makes dk and dv: a block owns a key tile of a kv head and walks the heads of the
 * group, then the query tiles that see it, both ascending; another makes dq: a block owns a query
 * tile of a head and walks the key tiles ascending. So every chain of ops.h grows in one block's
 * registers. Both compute two products of 64 x 64 a tile pair (s = q . k and dp = do . v, 4 x 4 a
 * thread) and bring the result through shared memory as rows of the chain. Tested by
 * tests/ops/attention.c. */
#include "common/runtime/cuda/attention.h"

enum { THREADS = 256, DELTA_THREADS = 128 };

typedef struct {
    const float *q, *k, *v, *d_o, *o, *lse;
    float *dq, *dk, *dv, *delta;
    int64_t q_stride, k_stride, v_stride, d_o_stride, o_stride, lse_stride, delta_stride;
    int64_t dq_stride, dk_stride, dv_stride;
    const int32_t *starts;
    int64_t T, n_seqs, n_slots, D, H, K, G, n_groups; /* n_groups: of gradient columns */
    float scale;
    bool q_wide, k_wide, v_wide, d_o_wide, dq_wide, dk_wide, dv_wide;
} Backward;

/* A thread's place in a 64 x 64 product and in the 64 x columns gradient: rows i .. i + 3 of both,
 * columns j .. j + 3 of the first; a warp's lanes are 4 x 8. */
typedef struct {
    int i, j;
} Corner;

typedef struct {
    float *a, *b; /* (SLAB_DIMS, TILE_STEP) each */
    float *p;     /* (KV_TILE, TILE_STEP): rows along the chain */
    SeqTile *tile;
} Shared;

static __device__ __forceinline__ Corner corner(void)
{
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    Corner c = {warp / 2 * 16 + lane / 8 * 4, warp % 2 * 32 + lane % 8 * 4};
    return c;
}

/* c[r][e] = a[i + r] . b[j + e]: chains over the head dims from +0. */
static __device__ __forceinline__ void square(float c[4][4], HeadRows a, HeadRows b, int64_t D,
                                              Corner at, const Shared *sh)
{
#pragma unroll
    for (int r = 0; r < 4; r++)
        c[r][0] = c[r][1] = c[r][2] = c[r][3] = 0;
    for (int64_t d0 = 0; d0 < D; d0 += SLAB_DIMS) {
        __syncthreads();
        slab_across(sh->a, &a, d0, D, false, THREADS);
        slab_across(sh->b, &b, d0, D, false, THREADS);
        __syncthreads();
        const int n = least(D - d0, SLAB_DIMS);
#pragma unroll 2
        for (int d = 0; d < n; d++) {
            float x[4], y[4];
            unpack4(x, load4(sh->a + d * TILE_STEP + at.i));
            unpack4(y, load4(sh->b + d * TILE_STEP + at.j));
#pragma unroll
            for (int r = 0; r < 4; r++) {
#pragma unroll
                for (int e = 0; e < 4; e++)
                    c[r][e] = real_fma(x[r], y[e], c[r][e]);
            }
        }
    }
}

static __device__ __forceinline__ void square_store(const float c[4][4], Corner at,
                                                    const Shared *sh)
{
#pragma unroll
    for (int r = 0; r < 4; r++) {
        float4 x = {c[r][0], c[r][1], c[r][2], c[r][3]};
        store4(sh->p + (at.i + r) * TILE_STEP + at.j, x);
    }
}

/* Columns of a thread's row of the gradient: 4 from here on, and 4 more 32 further. */
static __device__ __forceinline__ int gradient_column(int columns)
{
    return (int)threadIdx.x / WARP % 2 * (columns / 2) + (int)threadIdx.x % 8 * 4;
}

/* grad[r] += p[x][i + r] * rows[x] over the chain x < rows.n ascending, the sum's columns from
 * col0. On the diagonal a chain has those x alone with x >= i + r (queries = true, x is one) or x
 * <= i + r: a weight of 0 is not nothing, it would change -0 and inf. */
static __device__ __forceinline__ void gradient_add(float grad[4][8], HeadRows rows, int col0,
                                                    int64_t D, int columns, Corner at,
                                                    bool diagonal, bool queries, const Shared *sh)
{
    const int step = ROW_FLOATS / columns, column = gradient_column(columns);
    for (int x0 = 0; x0 < rows.n; x0 += step) {
        __syncthreads();
        slab_along(sh->a, &rows, x0, col0, D, columns, THREADS);
        __syncthreads();
        const int n = rows.n - x0 < step ? rows.n - x0 : step;
#pragma unroll 2
        for (int x = 0; x < n; x++) {
            float p[4], b[8];
            unpack4(p, load4(sh->p + (x0 + x) * TILE_STEP + at.i));
#pragma unroll
            for (int v = 0; v < columns / 64; v++)
                unpack4(b + 4 * v, load4(sh->a + x * columns + column + 32 * v));
#pragma unroll
            for (int r = 0; r < 4; r++) {
                const bool seen = queries ? x0 + x >= at.i + r : x0 + x <= at.i + r;
                if (!diagonal || seen) {
#pragma unroll
                    for (int c = 0; c < columns / 16; c++)
                        grad[r][c] = real_fma(p[r], b[c], grad[r][c]);
                }
            }
        }
    }
}

static __device__ __forceinline__ void gradient_clear(float grad[4][8])
{
#pragma unroll
    for (int r = 0; r < 4; r++) {
#pragma unroll
        for (int c = 0; c < 8; c++)
            grad[r][c] = 0;
    }
}

static __device__ __forceinline__ void gradient_write(float *p, int64_t stride, const SeqTile *t,
                                                      int64_t col, int64_t col0, int64_t D,
                                                      int columns, Corner at,
                                                      const float grad[4][8], bool wide)
{
    const int column = gradient_column(columns), left = least(D - col0, columns) - column;
    p += (t->start + t->first + at.i) * stride + col + col0 + column;
#pragma unroll
    for (int r = 0; r < 4; r++) {
        if (t->first + at.i + r >= t->length)
            continue;
#pragma unroll
        for (int v = 0; v < columns / 64; v++)
            put4(p + r * stride + 32 * v, &grad[r][4 * v], left - 32 * v, wide);
    }
}

/* Rows of a head of q or d_o, of the group's k or v, from position `first`. Made anew from the tile
 * in shared memory wherever they are used, so that no registers hold them in between. */
#define ROWS_OF(x, head) head_rows(bw->x, bw->x##_stride, t, first, (head)*bw->D, bw->x##_wide)
static __device__ __forceinline__ HeadRows rows_q(const Backward *bw, const SeqTile *t,
                                                  int64_t first, int head)
{
    return ROWS_OF(q, head);
}
static __device__ __forceinline__ HeadRows rows_d_o(const Backward *bw, const SeqTile *t,
                                                    int64_t first, int head)
{
    return ROWS_OF(d_o, head);
}
static __device__ __forceinline__ HeadRows rows_k(const Backward *bw, const SeqTile *t,
                                                  int64_t first, int head)
{
    return ROWS_OF(k, head / bw->G);
}
static __device__ __forceinline__ HeadRows rows_v(const Backward *bw, const SeqTile *t,
                                                  int64_t first, int head)
{
    return ROWS_OF(v, head / bw->G);
}

/* lse or delta of a query, which may be absent. */
static __device__ __forceinline__ float of_query(const float *p, int64_t stride, const SeqTile *t,
                                                 int64_t query, int head)
{
    return query < t->length ? p[(t->start + query) * stride + head] : 0.0f;
}

/* ---- delta -------------------------------------------------------------------------------------
 */

/* A warp for a token's head: an FMA chain in each lane, then the tree. */
static __global__ void delta_kernel(Backward bw)
{
    const int64_t i = ((int64_t)blockIdx.x * DELTA_THREADS + threadIdx.x) / WARP;
    const int lane = (int)threadIdx.x % WARP;
    const bool there = i < bw.T * bw.H;
    const int64_t t = there ? i / bw.H : 0, h = there ? i % bw.H : 0;
    const float *x = bw.d_o + t * bw.d_o_stride + h * bw.D, *y = bw.o + t * bw.o_stride + h * bw.D;
    float a = 0;
    for (int64_t d = lane; d < bw.D; d += WARP)
        a = real_fma(x[d], y[d], a);
    a = warp_sum_tree(a);
    if (there && lane == 0)
        bw.delta[t * bw.delta_stride + h] = a;
}

/* ---- dk and dv ---------------------------------------------------------------------------------
 */

/* One head's queries from i0 on. p: rows are queries, columns keys. */
static __device__ __forceinline__ void keys_pair(float dk[4][8], float dv[4][8], const Backward *bw,
                                                 const Shared *sh, int head, int64_t i0, int col0,
                                                 int columns)
{
    const SeqTile *t = sh->tile;
    const int64_t D = bw->D;
    const Corner at = corner();
    const bool diagonal = i0 == t->first;
    float c[4][4];
    square(c, rows_q(bw, t, i0, head), rows_k(bw, t, t->first, head), D, at, sh);
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const float lse = of_query(bw->lse, bw->lse_stride, t, i0 + at.i + r, head);
#pragma unroll
        for (int e = 0; e < 4; e++)
            c[r][e] = k_exp(c[r][e] * bw->scale - lse);
    }
    square_store(c, at, sh);
    gradient_add(dv, rows_d_o(bw, t, i0, head), col0, D, columns, at, diagonal, true, sh);
    square(c, rows_d_o(bw, t, i0, head), rows_v(bw, t, t->first, head), D, at, sh);
#pragma unroll
    for (int r = 0; r < 4; r++) { /* the thread's own weights lie where it stored them */
        const float delta = of_query(bw->delta, bw->delta_stride, t, i0 + at.i + r, head);
        float p[4];
        unpack4(p, load4(sh->p + (at.i + r) * TILE_STEP + at.j));
#pragma unroll
        for (int e = 0; e < 4; e++)
            c[r][e] = p[e] * (c[r][e] - delta) * bw->scale;
    }
    square_store(c, at, sh);
    gradient_add(dk, rows_q(bw, t, i0, head), col0, D, columns, at, diagonal, true, sh);
}

/* Key tiles ascending: the first, which most queries see, start first. */
static __device__ __forceinline__ void keys_block(const Backward *bw, const Shared *sh, int columns)
{
    const int64_t b = blockIdx.x;
    const int col0 = (int)(b % bw->n_groups) * columns, kv_head = (int)(b / bw->n_groups % bw->K);
    const SeqTile *t = sh->tile;
    float dk[4][8], dv[4][8];
    if (threadIdx.x == 0)
        *sh->tile = tile_in_slot(bw->starts, bw->n_seqs, b / bw->n_groups / bw->K, KV_TILE);
    __syncthreads();
    if (t->first >= t->length)
        return;
    gradient_clear(dk);
    gradient_clear(dv);
    for (int g = 0; g < bw->G; g++)
        for (int64_t i0 = t->first; i0 < t->length; i0 += KV_TILE)
            keys_pair(dk, dv, bw, sh, kv_head * (int)bw->G + g, i0, col0, columns);
    gradient_write(bw->dk, bw->dk_stride, t, kv_head * bw->D, col0, bw->D, columns, corner(), dk,
                   bw->dk_wide);
    gradient_write(bw->dv, bw->dv_stride, t, kv_head * bw->D, col0, bw->D, columns, corner(), dv,
                   bw->dv_wide);
}

/* ---- dq ----------------------------------------------------------------------------------------
 */

/* Keys from key0 on. ds: rows are keys, columns queries. */
static __device__ __forceinline__ void queries_pair(float dq[4][8], const Backward *bw,
                                                    const Shared *sh, int head, int64_t key0,
                                                    int col0, int columns)
{
    const SeqTile *t = sh->tile;
    const int64_t D = bw->D;
    const Corner at = corner();
    float p[4][4], ds[4][4];
    square(p, rows_k(bw, t, key0, head), rows_q(bw, t, t->first, head), D, at, sh);
    square(ds, rows_v(bw, t, key0, head), rows_d_o(bw, t, t->first, head), D, at, sh);
#pragma unroll
    for (int e = 0; e < 4; e++) {
        const float lse = of_query(bw->lse, bw->lse_stride, t, t->first + at.j + e, head);
        const float delta = of_query(bw->delta, bw->delta_stride, t, t->first + at.j + e, head);
#pragma unroll
        for (int r = 0; r < 4; r++)
            ds[r][e] = k_exp(p[r][e] * bw->scale - lse) * (ds[r][e] - delta) * bw->scale;
    }
    square_store(ds, at, sh);
    gradient_add(dq, rows_k(bw, t, key0, head), col0, D, columns, at, key0 == t->first, false, sh);
}

/* Blocks go from the last tile of a sequence, which sees most keys, to the first. */
static __device__ __forceinline__ void queries_block(const Backward *bw, const Shared *sh,
                                                     int columns)
{
    const int64_t b = blockIdx.x;
    const int col0 = (int)(b % bw->n_groups) * columns, head = (int)(b / bw->n_groups % bw->H);
    const SeqTile *t = sh->tile;
    float dq[4][8];
    if (threadIdx.x == 0)
        *sh->tile =
            tile_in_slot(bw->starts, bw->n_seqs, bw->n_slots - 1 - b / bw->n_groups / bw->H,
                         KV_TILE);
    __syncthreads();
    if (t->first >= t->length)
        return;
    gradient_clear(dq);
    for (int64_t key0 = 0; key0 <= t->first; key0 += KV_TILE)
        queries_pair(dq, bw, sh, head, key0, col0, columns);
    gradient_write(bw->dq, bw->dq_stride, t, head * bw->D, col0, bw->D, columns, corner(), dq,
                   bw->dq_wide);
}

#define BACKWARD_KERNEL(WHAT, COLUMNS, BLOCKS)                                                     \
    static __global__ void __launch_bounds__(THREADS, BLOCKS)                                      \
        WHAT##_##COLUMNS##_kernel(Backward bw)                                                     \
    {                                                                                              \
        __shared__ __align__(16) float a[SLAB_FLOATS], b[SLAB_FLOATS], p[KV_TILE * TILE_STEP];     \
        __shared__ SeqTile tile;                                                                   \
        const Shared sh = {a, b, p, &tile};                                                        \
        WHAT##_block(&bw, &sh, COLUMNS);                                                           \
    }
BACKWARD_KERNEL(keys, 64, 2)
BACKWARD_KERNEL(keys, 128, 2)
BACKWARD_KERNEL(queries, 64, 2)
BACKWARD_KERNEL(queries, 128, 2)

void cuda_attention_backward(Tensor *dq, Tensor *dk, Tensor *dv, Tensor *delta, const Tensor *d_o,
                             const Tensor *o, const Tensor *lse, const Tensor *q, const Tensor *k,
                             const Tensor *v, const Tensor *starts, int64_t head_dim, double scale)
{
    if (q->dtype == DTYPE_BF16) {
        cuda_attention_backward__bf16(dq, dk, dv, delta, d_o, o, lse, q, k, v, starts, head_dim,
                                      scale);
        return;
    }
    const int64_t D = head_dim, H = q->dim[1] / D, K = k->dim[1] / D, S = starts->dim[0] - 1;
    const int64_t T = q->dim[0];
    const int columns = D <= 64 ? 64 : 128;
    const bool wide = D % 4 == 0; /* heads start at multiples of 4 */
    Backward bw = {f32_data(q),
                   f32_data(k),
                   f32_data(v),
                   f32_data(d_o),
                   f32_data(o),
                   f32_data(lse),
                   f32_data(dq),
                   f32_data(dk),
                   f32_data(dv),
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
                   tile_slots(T, S, KV_TILE),
                   D,
                   H,
                   K,
                   H / K,
                   (D + columns - 1) / columns,
                   (float)scale,
                   wide && is_wide(q),
                   wide && is_wide(k),
                   wide && is_wide(v),
                   wide && is_wide(d_o),
                   wide && is_wide(dq),
                   wide && is_wide(dk),
                   wide && is_wide(dv)};
    cudaStream_t stream = cuda_stream(q);
    if (T == 0)
        return;
    LAUNCH(delta_kernel, cuda_blocks(T * H, DELTA_THREADS / WARP), DELTA_THREADS, 0, stream, bw);
    const unsigned keys = cuda_blocks(bw.n_slots * K * bw.n_groups, 1);
    const unsigned queries = cuda_blocks(bw.n_slots * H * bw.n_groups, 1);
    if (columns == 64) {
        LAUNCH(keys_64_kernel, keys, THREADS, 0, stream, bw);
        LAUNCH(queries_64_kernel, queries, THREADS, 0, stream, bw);
    } else {
        LAUNCH(keys_128_kernel, keys, THREADS, 0, stream, bw);
        LAUNCH(queries_128_kernel, queries, THREADS, 0, stream, bw);
    }
}
