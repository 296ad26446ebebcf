/* attention_paged.cu - attention over KV pages, and what writes and copies them.
 *
 * A block makes the state of one chunk of 512 keys for a few vectors (rows x heads of a group) that
 * share its keys, a second kernel merges the chunks of a row: a few rows of a long context fill the
 * card. Every row is bit for bit the packed row (attention.cu). Tested by tests/ops/attention.c. */
#include "common/runtime/cuda/tile.h"

/* ---- paged -------------------------------------------------------------------------------------
 */

enum {
    PAGED_THREADS = KV_CHUNK / 4, /* a thread has four keys of the chunk */
    PAGED_DIMS = 128,             /* head dims of the vectors in shared memory at a time */
    VECS = 4,                     /* vectors of a block at most */
    TILES = KV_CHUNK / KV_TILE,
};

typedef struct {
    const float *q, *k, *v;
    float *o, *state; /* state: (rows, H, n_chunks, 2 + D): m, l, o */
    int64_t q_stride, o_stride, table_stride;
    const int32_t *table, *row_seq, *row_pos;
    int64_t D, H, K, G, n_chunks, n_parts; /* n_parts: of a group's heads */
    int64_t row_from, row_to;
    int part_heads; /* heads of a part, a power of two */
    float scale;
    bool k_wide;
} Paged;

/* What a block works on, in shared memory: vector i is head head0 + i % heads of row + i / heads;
 * vectors there are not stand in for others and are not written. */
typedef struct {
    int64_t row, pos, chunk, kv_head, head0;
    int n_rows, heads;
    int row_of[VECS]; /* i / heads, at most n_rows - 1 */
} Vectors;

typedef struct {
    float *q;   /* (VECS, PAGED_DIMS) */
    float *s;   /* (VECS, KV_CHUNK): scores, then weights */
    float *max; /* (VECS, TILES) of a tile's scores */
    float *sum; /* (VECS, TILES) of a tile's weights */
    float *c;   /* (VECS, TILES): what o and l are scaled by before a tile is added */
    float *m, *l;
} PagedShared;

/* Row r goes on from row r - 1, at a position that is no multiple of `rows`. */
static __device__ __forceinline__ bool joins(const Paged *at, int64_t r, int rows)
{
    return r > at->row_from && r < at->row_to && at->row_pos[r] % rows != 0 &&
           at->row_seq[r] == at->row_seq[r - 1] && at->row_pos[r] == at->row_pos[r - 1] + 1;
}

/* By one thread; n_rows = 0 when there is nothing to do. A prompt's rows at positions [4 i, 4 i +
 * 4), or as many as fit beside the heads, are one block's: they share tiles and chunk. */
static __device__ void vectors_make(Vectors *x, const Paged *at, int64_t b)
{
    const int rows = VECS / at->part_heads;
    const int64_t parts = at->K * at->n_parts, part = b % parts,
                  first = part % at->n_parts * at->part_heads;
    x->chunk = b / parts % at->n_chunks;
    x->row = at->row_from + b / parts / at->n_chunks;
    x->pos = at->row_pos[x->row];
    x->kv_head = part / at->n_parts;
    x->head0 = x->kv_head * at->G + first;
    x->heads = least(at->G - first, at->part_heads);
    x->n_rows = at->row_seq[x->row] >= 0 && x->chunk * KV_CHUNK <= x->pos &&
                !joins(at, x->row, rows);
    while (x->n_rows && joins(at, x->row + x->n_rows, rows))
        x->n_rows++;
    for (int i = 0; i < VECS; i++)
        x->row_of[i] = least(i / x->heads, x->n_rows - 1);
}

/* Keys of tile t of the chunk that the block's r-th row sees; may be negative. */
static __device__ __forceinline__ int keys_seen(const Vectors *x, int r, int t)
{
    return least(x->pos + r + 1 - x->chunk * KV_CHUNK - t * KV_TILE, KV_TILE);
}

static __device__ __forceinline__ int64_t page_of(const Paged *at, const Vectors *x, int t)
{
    const int64_t page = at->table[at->row_seq[x->row] * at->table_stride + x->chunk * TILES + t];
    return (page * at->K + x->kv_head) * at->D * KV_TILE;
}

static __device__ __forceinline__ void paged_scores(const Paged *at, const Vectors *x, int n_vecs,
                                                    const PagedShared *sh)
{
    const int tid = (int)threadIdx.x, tile = tid / 16;
    const bool present = keys_seen(x, 0, tile) > 0;
    const float *k = at->k + (present ? page_of(at, x, tile) : 0) + tid % 16 * 4;
    float acc[VECS][4];
#pragma unroll
    for (int i = 0; i < n_vecs; i++)
        acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = 0;
    for (int64_t d0 = 0; d0 < at->D; d0 += PAGED_DIMS, k += PAGED_DIMS * KV_TILE) {
        const int n = least(at->D - d0, PAGED_DIMS);
        __syncthreads();
        for (int e = tid; e < n_vecs * PAGED_DIMS; e += PAGED_THREADS) {
            const int i = e / PAGED_DIMS, d = e % PAGED_DIMS;
            const bool there = i < x->n_rows * x->heads && d < n;
            const int r = x->row_of[i], h = i - r * x->heads;
            sh->q[e] =
                there ? at->q[(x->row + r) * at->q_stride + (x->head0 + h) * at->D + d0 + d] : 0.0f;
        }
        __syncthreads();
        if (!present)
            continue;
#pragma unroll 8
        for (int d = 0; d < n; d++) {
            float b[4];
            unpack4(b, fetch4(k + d * KV_TILE, 4, at->k_wide));
#pragma unroll
            for (int i = 0; i < n_vecs; i++) {
                const float a = sh->q[i * PAGED_DIMS + d];
#pragma unroll
                for (int e = 0; e < 4; e++)
                    acc[i][e] = real_fma(a, b[e], acc[i][e]);
            }
        }
    }
    if (!present)
        return;
#pragma unroll
    for (int i = 0; i < n_vecs; i++) {
        float4 s = {acc[i][0] * at->scale, acc[i][1] * at->scale, acc[i][2] * at->scale,
                    acc[i][3] * at->scale};
        store4(sh->s + i * KV_CHUNK + tid * 4, s);
    }
}

/* Scores become weights relative to the largest score so far; a warp takes one tile of a vector. */
static __device__ __forceinline__ void paged_weights(const Vectors *x, int n_vecs,
                                                     const PagedShared *sh)
{
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    for (int e = warp; e < n_vecs * TILES; e += PAGED_THREADS / WARP) {
        const int i = e / TILES, t = e % TILES, n = keys_seen(x, x->row_of[i], t);
        const float *s = sh->s + i * KV_CHUNK + t * KV_TILE;
        if (n <= 0)
            continue;
        const float low = k_max(lane < n ? s[lane] : -K_INF, -K_INF);
        const float top = warp_max_tree(k_max(lane + WARP < n ? s[lane + WARP] : -K_INF, low));
        if (lane == 0)
            sh->max[e] = top;
    }
    __syncthreads();
    for (int e = warp; e < n_vecs * TILES; e += PAGED_THREADS / WARP) {
        const int i = e / TILES, t = e % TILES, n = keys_seen(x, x->row_of[i], t);
        float *s = sh->s + i * KV_CHUNK + t * KV_TILE, before = -K_INF;
        if (n <= 0)
            continue;
        for (int u = 0; u < t; u++)
            before = k_max(sh->max[i * TILES + u], before);
        const float top = k_max(sh->max[e], before);
        const float lo = k_exp((lane < n ? s[lane] : -K_INF) - top);
        const float hi = k_exp((lane + WARP < n ? s[lane + WARP] : -K_INF) - top);
        const float sum = warp_sum_tree(lo + hi);
        s[lane] = lo;
        s[lane + WARP] = hi;
        if (lane == 0) {
            sh->sum[e] = sum;
            sh->c[e] = before == -K_INF ? 1.0f : k_exp(before - top);
        }
    }
    __syncthreads();
    const int i = (int)threadIdx.x;
    if (i < n_vecs) {
        float m = -K_INF, l = 0;
        for (int t = 0; t < TILES && keys_seen(x, 0, t) > 0; t++) {
            const int e = i * TILES + t;
            l = m == -K_INF ? sh->sum[e] : real_fma(l, sh->c[e], sh->sum[e]);
            m = k_max(sh->max[e], m);
        }
        sh->m[i] = m;
        sh->l[i] = l;
    }
    __syncthreads();
}

/* o[i] of column d after tile t. Keys that all vectors see go 16 at a time: as many loads are under
 * way. */
static __device__ __forceinline__ void paged_values(const Paged *at, const Vectors *x, int n_vecs,
                                                    int t, int64_t d, const PagedShared *sh,
                                                    float o[VECS])
{
    enum { RUN = 16 };
    const float *v = at->v + page_of(at, x, t) + d, *p = sh->s + t * KV_TILE;
    const int joint = keys_seen(x, 0, t), end = keys_seen(x, x->n_rows - 1, t);
#pragma unroll
    for (int i = 0; i < n_vecs; i++)
        o[i] *= sh->c[i * TILES + t];
    int j = 0;
    for (; j + RUN <= joint; j += RUN) {
        float b[RUN], a[4];
#pragma unroll
        for (int e = 0; e < RUN; e++)
            b[e] = v[(j + e) * at->D];
#pragma unroll
        for (int i = 0; i < n_vecs; i++) {
#pragma unroll
            for (int e = 0; e < RUN; e++) {
                if (e % 4 == 0)
                    unpack4(a, load4(p + i * KV_CHUNK + j + e));
                o[i] = real_fma(a[e % 4], b[e], o[i]);
            }
        }
    }
    for (; j < end; j++) {
        const float b = v[j * at->D];
#pragma unroll
        for (int i = 0; i < n_vecs; i++)
            if (j < keys_seen(x, x->row_of[i], t))
                o[i] = real_fma(p[i * KV_CHUNK + j], b, o[i]);
    }
}

static __device__ __forceinline__ float *state_at(const Paged *at, int64_t row, int64_t head,
                                                  int64_t chunk)
{
    return at->state + (((row - at->row_from) * at->H + head) * at->n_chunks + chunk) * (2 + at->D);
}

/* n_vecs: a constant, not less than the vectors there are. */
static __device__ __forceinline__ void paged_chunk(const Paged *at, const Vectors *x, int n_vecs,
                                                   const PagedShared *sh)
{
    const bool whole = x->pos < KV_CHUNK; /* there is no other chunk */
    paged_scores(at, x, n_vecs, sh);
    __syncthreads();
    paged_weights(x, n_vecs, sh);
    for (int64_t d = threadIdx.x; d < at->D; d += PAGED_THREADS) {
        float o[VECS] = {0};
        for (int t = 0; t < TILES && keys_seen(x, 0, t) > 0; t++)
            paged_values(at, x, n_vecs, t, d, sh, o);
#pragma unroll
        for (int i = 0; i < n_vecs; i++) {
            const int64_t row = x->row + x->row_of[i];
            const int64_t head = x->head0 + i - x->row_of[i] * x->heads;
            if (i >= x->n_rows * x->heads)
                continue;
            if (whole) {
                at->o[row * at->o_stride + head * at->D + d] = o[i] / sh->l[i];
                continue;
            }
            float *state = state_at(at, row, head, x->chunk);
            state[2 + d] = o[i];
            if (d == 0) {
                state[0] = sh->m[i];
                state[1] = sh->l[i];
            }
        }
    }
}

static __global__ void __launch_bounds__(PAGED_THREADS, 4) paged_kernel(Paged at)
{
    __shared__ __align__(16) float q[VECS * PAGED_DIMS], s[VECS * KV_CHUNK];
    __shared__ float max[VECS * TILES], sum[VECS * TILES], c[VECS * TILES], m[VECS], l[VECS];
    __shared__ Vectors x;
    const PagedShared sh = {q, s, max, sum, c, m, l};
    if (threadIdx.x == 0)
        vectors_make(&x, &at, blockIdx.x);
    __syncthreads();
    if (x.n_rows == 0)
        return;
    const int n = x.n_rows * x.heads;
    if (n == 1)
        paged_chunk(&at, &x, 1, &sh);
    else if (n == 2)
        paged_chunk(&at, &x, 2, &sh);
    else
        paged_chunk(&at, &x, VECS, &sh);
}

/* A block for a row and head of several chunks. */
static __global__ void paged_merge_kernel(Paged at)
{
    const int64_t row = at.row_from + blockIdx.x / at.H, head = blockIdx.x % at.H;
    const int64_t n = at.row_seq[row] < 0 ? 0 : at.row_pos[row] / KV_CHUNK + 1;
    for (int64_t d = threadIdx.x; n > 1 && d < at.D; d += blockDim.x) {
        const float *st = state_at(&at, row, head, 0);
        float m = st[0], l = st[1], o = st[2 + d];
        for (int64_t i = 1; i < n; i++) {
            st = state_at(&at, row, head, i);
            const float top = k_max(st[0], m), e1 = k_exp(m - top), e2 = k_exp(st[0] - top);
            m = top;
            l = real_fma(l, e1, st[1] * e2);
            o = real_fma(o, e1, st[2 + d] * e2);
        }
        at.o[row * at.o_stride + head * at.D + d] = o / l;
    }
}

/* Rows go in slices whose states fit the scratch block. */
void cuda_attention_paged(Tensor *o, const Tensor *q, const Tensor *k_pages, const Tensor *v_pages,
                          const Tensor *page_table, const Tensor *row_seq, const Tensor *row_pos,
                          int64_t head_dim, double scale)
{
    const int64_t D = head_dim, H = q->dim[1] / D, K = k_pages->dim[1], G = H / K, R = q->dim[0];
    const int64_t n_chunks = (page_table->dim[1] + TILES - 1) / TILES;
    const int part_heads = G > 2 ? VECS : (int)G;
    const int64_t row_bytes = n_chunks > 1 ? H * n_chunks * (2 + D) * (int64_t)sizeof(float) : 1;
    int64_t slice = CUDA_SCRATCH_BYTES / row_bytes;
    slice = slice < 1 ? 1 : slice;
    Paged at = {f32_data(q),
                f32_data(k_pages),
                f32_data(v_pages),
                f32_data(o),
                (float *)cuda_scratch(q, (size_t)row_bytes),
                q->stride,
                o->stride,
                page_table->stride,
                i32_data(page_table),
                i32_data(row_seq),
                i32_data(row_pos),
                D,
                H,
                K,
                G,
                n_chunks,
                (G + part_heads - 1) / part_heads,
                0,
                0,
                part_heads,
                (float)scale,
                is_wide(k_pages)};
    for (at.row_from = 0; at.row_from < R; at.row_from = at.row_to) {
        at.row_to = R - at.row_from < slice ? R : at.row_from + slice;
        const int64_t rows = at.row_to - at.row_from;
        LAUNCH(paged_kernel, cuda_blocks(rows * n_chunks * K * at.n_parts, 1), PAGED_THREADS, 0,
               cuda_stream(q), at);
        if (n_chunks > 1)
            LAUNCH(paged_merge_kernel, cuda_blocks(rows * H, 1), PAGED_THREADS, 0, cuda_stream(q),
                   at);
    }
}

/* ---- pages -------------------------------------------------------------------------------------
 */

enum { COPY_THREADS = 256 };

typedef struct {
    float *k_pages, *v_pages;
    const float *k, *v;
    int64_t k_stride, v_stride, table_stride, K, D, n;
    const int32_t *table, *row_seq, *row_pos;
} Write;

/* A thread for an element of k and of v. */
static __global__ void kv_write_kernel(Write w)
{
    const int64_t e = (int64_t)blockIdx.x * COPY_THREADS + threadIdx.x, width = w.K * w.D;
    if (e >= w.n)
        return;
    const int64_t r = e / width, col = e % width, pos = w.row_pos[r], lane = pos % KV_TILE;
    if (w.row_seq[r] < 0)
        return;
    const int64_t page = w.table[w.row_seq[r] * w.table_stride + pos / KV_TILE];
    const int64_t at = (page * w.K + col / w.D) * w.D * KV_TILE, d = col % w.D;
    w.k_pages[at + d * KV_TILE + lane] = w.k[r * w.k_stride + col];
    w.v_pages[at + lane * w.D + d] = w.v[r * w.v_stride + col];
}

void cuda_kv_write(Tensor *k_pages, Tensor *v_pages, const Tensor *k, const Tensor *v,
                   const Tensor *page_table, const Tensor *row_seq, const Tensor *row_pos)
{
    Write w = {f32_data(k_pages),
               f32_data(v_pages),
               f32_data(k),
               f32_data(v),
               k->stride,
               v->stride,
               page_table->stride,
               k_pages->dim[1],
               k_pages->dim[2],
               k->dim[0] * k_pages->dim[1] * k_pages->dim[2],
               i32_data(page_table),
               i32_data(row_seq),
               i32_data(row_pos)};
    if (w.n)
        LAUNCH(kv_write_kernel, cuda_blocks(w.n, COPY_THREADS), COPY_THREADS, 0,
               cuda_stream(k_pages), w);
}

/* A thread for four elements of a page of k and of v; a page has whole fours. */
static __global__ void kv_copy_kernel(float *k, float *v, const int32_t *pairs, int64_t fours,
                                      int64_t n, bool wide)
{
    const int64_t e = (int64_t)blockIdx.x * COPY_THREADS + threadIdx.x;
    if (e >= n)
        return;
    const int32_t *pair = pairs + e / fours * 2;
    const int64_t src = (pair[0] * fours + e % fours) * 4, dst = (pair[1] * fours + e % fours) * 4;
    float x[4];
    unpack4(x, fetch4(k + src, 4, wide));
    put4(k + dst, x, 4, wide);
    unpack4(x, fetch4(v + src, 4, wide));
    put4(v + dst, x, 4, wide);
}

void cuda_kv_copy(Tensor *k_pages, Tensor *v_pages, const Tensor *pairs)
{
    const int64_t fours = k_pages->dim[1] * k_pages->dim[2] * KV_TILE / 4,
                  n = pairs->dim[0] * fours;
    if (n)
        LAUNCH(kv_copy_kernel, cuda_blocks(n, COPY_THREADS), COPY_THREADS, 0, cuda_stream(k_pages),
               f32_data(k_pages), f32_data(v_pages), i32_data(pairs), fours, n,
               is_wide(k_pages) && is_wide(v_pages));
}
