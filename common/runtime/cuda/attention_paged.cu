/* attention_paged.cu - attention over KV pages, and what writes and copies them.
 *
 * A block makes the state of one chunk of 512 keys for a few vectors (rows x heads of a group) that
 * share its keys, a second kernel merges the chunks of a row: a few rows of a long context fill the
 * card. Every row is bit for bit the packed row (attention.cu). Tested by tests/ops/attention.c. */
#include "common/runtime/cuda/attention_paged.h"
#include "common/runtime/cuda/tile.h"

/* ---- paged -------------------------------------------------------------------------------------
 */

enum {
    PAGED_THREADS = KV_CHUNK / 4, /* a thread has four keys of the chunk */
    PAGED_DIMS = 128,             /* head dims of the vectors in shared memory at a time */
    VECS = 4,                     /* vectors of a block at most */
};

typedef struct {
    const float *q, *k, *v;
    float *o, *state; /* state: (rows, H, n_chunks, 2 + D): m, l, o */
    int64_t q_stride, o_stride;
    PagedRows r;
    float scale;
    bool k_wide;
} Paged;

typedef struct {
    float *q;   /* (VECS, PAGED_DIMS) */
    float *s;   /* (VECS, KV_CHUNK): scores, then weights */
    float *max; /* (VECS, TILES) of a tile's scores */
    float *sum; /* (VECS, TILES) of a tile's weights */
    float *c;   /* (VECS, TILES): what o and l are scaled by before a tile is added */
    float *m, *l;
} PagedShared;

static __device__ __forceinline__ void paged_scores(const Paged *at, const Vectors *x, int n_vecs,
                                                    const PagedShared *sh)
{
    const int tid = (int)threadIdx.x, tile = tid / 16;
    const bool present = keys_seen(x, 0, tile) > 0;
    const float *k = at->k + (present ? page_at(&at->r, x, tile) : 0) + tid % 16 * 4;
    float acc[VECS][4];
#pragma unroll
    for (int i = 0; i < n_vecs; i++)
        acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = 0;
    for (int64_t d0 = 0; d0 < at->r.D; d0 += PAGED_DIMS, k += PAGED_DIMS * KV_TILE) {
        const int n = least(at->r.D - d0, PAGED_DIMS);
        __syncthreads();
        for (int e = tid; e < n_vecs * PAGED_DIMS; e += PAGED_THREADS) {
            const int i = e / PAGED_DIMS, d = e % PAGED_DIMS;
            const bool there = i < x->n_rows * x->heads && d < n;
            const int r = x->row_of[i], h = i - r * x->heads;
            sh->q[e] =
                there ? at->q[(x->row + r) * at->q_stride + (x->head0 + h) * at->r.D + d0 + d] : 0.0f;
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
    const float *v = at->v + page_at(&at->r, x, t) + d, *p = sh->s + t * KV_TILE;
    const int joint = keys_seen(x, 0, t), end = keys_seen(x, x->n_rows - 1, t);
#pragma unroll
    for (int i = 0; i < n_vecs; i++)
        o[i] *= sh->c[i * TILES + t];
    int j = 0;
    for (; j + RUN <= joint; j += RUN) {
        float b[RUN], a[4];
#pragma unroll
        for (int e = 0; e < RUN; e++)
            b[e] = v[(j + e) * at->r.D];
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
        const float b = v[j * at->r.D];
#pragma unroll
        for (int i = 0; i < n_vecs; i++)
            if (j < keys_seen(x, x->row_of[i], t))
                o[i] = real_fma(p[i * KV_CHUNK + j], b, o[i]);
    }
}

static __device__ __forceinline__ float *state_at(const Paged *at, int64_t row, int64_t head,
                                                  int64_t chunk)
{
    return at->state + (((row - at->r.row_from) * at->r.H + head) * at->r.n_chunks + chunk) * (2 + at->r.D);
}

/* n_vecs: a constant, not less than the vectors there are. */
static __device__ __forceinline__ void paged_chunk(const Paged *at, const Vectors *x, int n_vecs,
                                                   const PagedShared *sh)
{
    const bool whole = x->pos < KV_CHUNK; /* there is no other chunk */
    paged_scores(at, x, n_vecs, sh);
    __syncthreads();
    paged_weights(x, n_vecs, sh);
    for (int64_t d = threadIdx.x; d < at->r.D; d += PAGED_THREADS) {
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
                at->o[row * at->o_stride + head * at->r.D + d] = o[i] / sh->l[i];
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
        vectors_make(&x, &at.r, blockIdx.x);
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
    const int64_t row = at.r.row_from + blockIdx.x / at.r.H, head = blockIdx.x % at.r.H;
    const int64_t n = at.r.row_seq[row] < 0 ? 0 : at.r.row_pos[row] / KV_CHUNK + 1;
    for (int64_t d = threadIdx.x; n > 1 && d < at.r.D; d += blockDim.x) {
        const float *st = state_at(&at, row, head, 0);
        float m = st[0], l = st[1], o = st[2 + d];
        for (int64_t i = 1; i < n; i++) {
            st = state_at(&at, row, head, i);
            const float top = k_max(st[0], m), e1 = k_exp(m - top), e2 = k_exp(st[0] - top);
            m = top;
            l = real_fma(l, e1, st[1] * e2);
            o = real_fma(o, e1, st[2 + d] * e2);
        }
        at.o[row * at.o_stride + head * at.r.D + d] = o / l;
    }
}

/* Rows go in slices whose states fit the scratch block. */
void cuda_attention_paged(Tensor *o, const Tensor *q, const Tensor *k_pages, const Tensor *v_pages,
                          const Tensor *page_table, const Tensor *row_seq, const Tensor *row_pos,
                          int64_t head_dim, double scale)
{
    if (q->dtype == DTYPE_BF16) {
        cuda_attention_paged__bf16(o, q, k_pages, v_pages, page_table, row_seq, row_pos, head_dim,
                                   scale);
        return;
    }
    const int64_t R = q->dim[0], H = q->dim[1] / head_dim, G = H / k_pages->dim[1];
    const int part_heads = G > 2 ? VECS : (int)G;
    Paged at = {f32_data(q),
                f32_data(k_pages),
                f32_data(v_pages),
                f32_data(o),
                NULL,
                q->stride,
                o->stride,
                paged_rows(q, k_pages, page_table, row_seq, row_pos, part_heads, VECS / part_heads),
                (float)scale,
                is_wide(k_pages)};
    const int64_t slice = paged_slice(&at.r);
    at.state = (float *)cuda_scratch(q, (size_t)paged_state_bytes(&at.r));
    for (at.r.row_from = 0; at.r.row_from < R; at.r.row_from = at.r.row_to) {
        at.r.row_to = R - at.r.row_from < slice ? R : at.r.row_from + slice;
        LAUNCH(paged_kernel, paged_blocks(&at.r), PAGED_THREADS, 0, cuda_stream(q), at);
        if (at.r.n_chunks > 1)
            LAUNCH(paged_merge_kernel, cuda_blocks((at.r.row_to - at.r.row_from) * H, 1),
                   PAGED_THREADS, 0, cuda_stream(q), at);
    }
}

/* ---- pages -------------------------------------------------------------------------------------
 */

enum { COPY_THREADS = 256 };

typedef struct {
    void *k_pages, *v_pages;
    const void *k, *v;
    int64_t k_stride, v_stride, table_stride, K, D, n;
    const int32_t *table, *row_seq, *row_pos;
    bool half; /* bf16 */
} Write;

static __device__ __forceinline__ void move(void *dst, int64_t to, const void *src, int64_t from,
                                            bool half)
{
    if (half)
        ((uint16_t *)dst)[to] = ((const uint16_t *)src)[from];
    else
        ((float *)dst)[to] = ((const float *)src)[from];
}

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
    move(w.k_pages, at + d * KV_TILE + lane, w.k, r * w.k_stride + col, w.half);
    move(w.v_pages, at + lane * w.D + d, w.v, r * w.v_stride + col, w.half);
}

void cuda_kv_write(Tensor *k_pages, Tensor *v_pages, const Tensor *k, const Tensor *v,
                   const Tensor *page_table, const Tensor *row_seq, const Tensor *row_pos)
{
    Write w = {k_pages->data,
               v_pages->data,
               k->data,
               v->data,
               k->stride,
               v->stride,
               page_table->stride,
               k_pages->dim[1],
               k_pages->dim[2],
               k->dim[0] * k_pages->dim[1] * k_pages->dim[2],
               i32_data(page_table),
               i32_data(row_seq),
               i32_data(row_pos),
               k->dtype == DTYPE_BF16};
    if (w.n)
        LAUNCH(kv_write_kernel, cuda_blocks(w.n, COPY_THREADS), COPY_THREADS, 0,
               cuda_stream(k_pages), w);
}

/* A thread for 16 bytes of a page of k and of v, as floats; a page is whole ones. */
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
    const int64_t bytes = k_pages->dim[1] * k_pages->dim[2] * KV_TILE *
                          (int64_t)dtype_bytes(k_pages->dtype),
                  fours = bytes / 16, n = pairs->dim[0] * fours;
    if (n)
        LAUNCH(kv_copy_kernel, cuda_blocks(n, COPY_THREADS), COPY_THREADS, 0, cuda_stream(k_pages),
               f32_data(k_pages), f32_data(v_pages), i32_data(pairs), fours, n,
               is_wide(k_pages) && is_wide(v_pages));
}
