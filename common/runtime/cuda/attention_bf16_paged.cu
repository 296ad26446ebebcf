/* attention_bf16_paged.cu - attention over KV pages, bf16 on tensor cores: row for row the bits of
 * attention_bf16.cu.
 *
 * A block has one chunk of 512 keys for up to 16 vectors (rows x heads of a group), the 16 rows of an
 * mma, which share its keys; a second kernel merges the chunks of a row. Tiles of keys, then of values,
 * arrive in a ring while those before are in use: what bounds decoding is bytes on their way. Each of
 * the four warps makes the scores of 16 keys of every tile and, later, a quarter of the columns. Rows of a
 * prompt that share a block stand within 16 positions, so all of them end in the same 16 keys.
 * Tested by tests/ops/attention_rows.c. */
#include "common/runtime/cuda/attention_bf16.h"
#include "common/runtime/cuda/attention_paged.h"

enum {
    THREADS = 128,
    WARPS = THREADS / WARP,
    STAGES = 4, /* tiles on their way or in use */
    MERGE_THREADS = 128,
};

typedef struct {
    const uint16_t *q, *k, *v;
    uint16_t *o;
    float *state; /* (rows, H, n_chunks, 2 + D): m, l, o */
    int64_t q_stride, o_stride;
    PagedRows r;
    float scale;             /* times log2 e */
    bool q_pairs, v_wide;    /* pairs of q, pieces of 8 of v are aligned */
} Paged;

/* Of one block. keys and values: rows of a page in a stage of the ring. */
typedef struct {
    uint16_t *ring;                    /* STAGES tiles */
    uint4 (*p)[WARPS][WARP];           /* (TILES): weights of 16 keys as fragments */
    float (*top)[WARPS][VECS_MAX];     /* (TILES): largest score of 16 keys */
    float (*sum)[WARPS][VECS_MAX][4];  /* (TILES): of each lane's weights of 16 keys */
    float (*c)[VECS_MAX];              /* (TILES): what o and l are scaled by before a tile is added */
    float *m, *l;                      /* (VECS_MAX) */
    Vectors x;
    int n_tiles;                       /* that the vectors see in this chunk */
    int last;                          /* 16 keys of the last tile that they see, from 0 */
} Block;

static __device__ __forceinline__ int lane_row(void)
{
    return (int)threadIdx.x % WARP / 4;
}
static __device__ __forceinline__ int lane_key(void)
{
    return (int)threadIdx.x % 4 * 2;
}
static __device__ __forceinline__ int warp_of(void)
{
    return (int)threadIdx.x / WARP;
}

/* Elements d, d + 1 of vector i. */
static __device__ __forceinline__ uint32_t query_pair(const Paged *at, const Vectors *x, int i, int d)
{
    const int r = x->row_of[i], left = i < x->n_rows * x->heads ? (int)at->r.D - d : 0;
    const uint16_t *q =
        at->q + (x->row + r) * at->q_stride + (x->head0 + i - r * x->heads) * at->r.D + d;
    if (left >= 2 && at->q_pairs)
        return *(const uint32_t *)q;
    return (left > 0 ? q[0] : 0u) | (left > 1 ? (uint32_t)q[1] << 16 : 0u);
}

/* ---- the ring: keys of all tiles, then their values --------------------------------------------- */

/* A page of keys lies as (D, KV_TILE): always in whole pieces. */
static __device__ __forceinline__ void keys_load(const Paged *at, const Block *b, uint16_t *stage,
                                                 int tile, int columns)
{
    const HalfRows k = {at->k + page_at(&at->r, &b->x, tile), KV_TILE, (int)at->r.D};
    tile_load(stage, k, columns, KV_TILE, KV_TILE, true, THREADS);
}

static __device__ __forceinline__ void values_load(const Paged *at, const Block *b, uint16_t *stage,
                                                   int tile, int columns)
{
    const HalfRows v = {at->v + page_at(&at->r, &b->x, tile), at->r.D,
                        keys_seen(&b->x, b->x.n_rows - 1, tile)};
    if (at->v_wide)
        tile_load(stage, v, KV_TILE, columns, (int)at->r.D, true, THREADS);
    else
        tile_load(stage, v, KV_TILE, columns, (int)at->r.D, false, THREADS);
}

static __device__ __forceinline__ uint16_t *stage_of(const Block *b, int i, int columns)
{
    return b->ring + i % STAGES * KV_TILE * columns;
}

/* Load i of the chunk, when there is one; a group in any case, so that groups can be counted. */
static __device__ __forceinline__ void ring_load(const Paged *at, const Block *b, int i, int columns)
{
    const int n = b->n_tiles;
    if (i < n)
        keys_load(at, b, stage_of(b, i, columns), i, columns);
    else if (i < 2 * n)
        values_load(at, b, stage_of(b, i, columns), i - n, columns);
    cp_async_commit();
}

/* Waits for load i and sends off the one that takes the place of load i - 1. */
static __device__ __forceinline__ const uint16_t *ring_next(const Paged *at, const Block *b, int i,
                                                            int columns)
{
    cp_async_wait(STAGES - 2);
    __syncthreads();
    ring_load(at, b, i + STAGES - 1, columns);
    return stage_of(b, i, columns);
}

/* ---- scores and weights ------------------------------------------------------------------------- */

/* s[tile]: of the warp's 16 keys. */
static __device__ __forceinline__ void scores(float s[TILES][2][4], const Paged *at, const Block *b,
                                              int columns)
{
    uint32_t q[HALF_COLUMNS_MAX / STEP][4];
    const int down = place_down(KV_TILE);
#pragma unroll
    for (int d = 0; d < columns / STEP; d++) {
        const int row = lane_row(), col = d * STEP + lane_key();
        q[d][0] = query_pair(at, &b->x, row, col);
        q[d][1] = query_pair(at, &b->x, row + 8, col);
        q[d][2] = query_pair(at, &b->x, row, col + 8);
        q[d][3] = query_pair(at, &b->x, row + 8, col + 8);
    }
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
        if (tile >= b->n_tiles)
            break;
        const uint16_t *k = ring_next(at, b, tile, columns);
#pragma unroll
        for (int i = 0; i < 4; i++)
            s[tile][0][i] = s[tile][1][i] = 0;
#pragma unroll
        for (int d = 0; d < columns / STEP; d++) {
            uint32_t kf[4];
            frag_b_down(kf, k, down, d * STEP, warp_of() * STEP, KV_TILE);
            mma_bf16(s[tile][0], q[d], kf);
            mma_bf16(s[tile][1], q[d], kf + 2);
        }
    }
}

/* Masks what a vector does not see, and the largest of the rest. */
static __device__ __forceinline__ void tops(float s[TILES][2][4], const Block *b)
{
    const int g = lane_row(), key = warp_of() * STEP + lane_key();
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
        if (tile >= b->n_tiles)
            break;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int n = keys_seen(&b->x, b->x.row_of[g + 8 * h], tile) - key;
            float top = -K_INF;
#pragma unroll
            for (int e = 0; e < 4; e++) {
                float *x = &s[tile][e / 2][2 * h + e % 2];
                if (e / 2 * 8 + e % 2 >= n)
                    *x = -K_INF;
                top = k_max(*x, top);
            }
            top = quad_max(top);
            if (lane_key() == 0)
                b->top[tile][warp_of()][g + 8 * h] = top;
        }
    }
}

/* m of row `row` once tile `tile` is in, given what it was before. */
static __device__ __forceinline__ float top_after(const Paged *at, const Block *b, int tile, int row,
                                                  float m)
{
    float top = b->top[tile][0][row];
#pragma unroll
    for (int w = 1; w < WARPS; w++)
        top = k_max(b->top[tile][w][row], top);
    return k_max(top * at->scale, m);
}

/* Scores become weights, which are left in shared memory as fragments. */
static __device__ __forceinline__ void weights(float s[TILES][2][4], const Paged *at, const Block *b)
{
    const int g = lane_row(), w = warp_of();
    float m[2] = {-K_INF, -K_INF};
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
        if (tile >= b->n_tiles)
            break;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = g + 8 * h;
            const float top = top_after(at, b, tile, row, m[h]);
            float *x = &s[tile][0][2 * h], *y = &s[tile][1][2 * h];
            x[0] = exp2_approx(real_fma(x[0], at->scale, -top));
            x[1] = exp2_approx(real_fma(x[1], at->scale, -top));
            y[0] = exp2_approx(real_fma(y[0], at->scale, -top));
            y[1] = exp2_approx(real_fma(y[1], at->scale, -top));
            b->sum[tile][w][row][lane_key() / 2] = quarter_sum(x[0], x[1], y[0], y[1]);
            if (w == 0 && lane_key() == 0)
                b->c[tile][row] = exp2_approx(m[h] - top);
            m[h] = top;
        }
        const float(*p)[4] = s[tile];
        const uint4 frag = {bf16_low_high(p[0][0], p[0][1]), bf16_low_high(p[0][2], p[0][3]),
                            bf16_low_high(p[1][0], p[1][1]), bf16_low_high(p[1][2], p[1][3])};
        b->p[tile][w][threadIdx.x % WARP] = frag;
    }
    if (w == 0 && lane_key() == 0) {
        b->m[g] = m[0];
        b->m[g + 8] = m[1];
    }
}

/* l of all vectors: a row's four lanes by four threads. */
static __device__ __forceinline__ void sums(const Block *b)
{
    const int row = (int)threadIdx.x / 4 % VECS_MAX, t = (int)threadIdx.x % 4;
    float l = 0;
    for (int tile = 0; tile < b->n_tiles; tile++) {
        float sum = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++)
            sum += b->sum[tile][w][row][t];
        l = real_fma(l, b->c[tile][row], sum);
    }
    l = quad_sum(l);
    if (t == 0 && threadIdx.x < 4 * VECS_MAX)
        b->l[row] = l;
}

/* ---- values ------------------------------------------------------------------------------------- */

/* o: of the warp's quarter of the columns. */
static __device__ __forceinline__ void values(float o[4][4], const Paged *at, const Block *b,
                                              int columns)
{
    const int down = place_down(columns), g = lane_row(), col0 = warp_of() * columns / WARPS;
#pragma unroll
    for (int n = 0; n < columns / 32; n++)
        o[n][0] = o[n][1] = o[n][2] = o[n][3] = 0;
#pragma unroll 1
    for (int tile = 0; tile < b->n_tiles; tile++) {
        const uint16_t *v = ring_next(at, b, b->n_tiles + tile, columns);
        const float c0 = b->c[tile][g], c1 = b->c[tile][g + 8];
        const int end = tile + 1 < b->n_tiles ? KV_TILE / STEP : b->last + 1;
#pragma unroll
        for (int n = 0; n < columns / 32; n++) {
            o[n][0] *= c0;
            o[n][1] *= c0;
            o[n][2] *= c1;
            o[n][3] *= c1;
        }
#pragma unroll
        for (int j = 0; j < KV_TILE / STEP; j++) {
            if (j >= end)
                break;
            const uint4 frag = b->p[tile][j][threadIdx.x % WARP];
            const uint32_t p[4] = {frag.x, frag.y, frag.z, frag.w};
#pragma unroll
            for (int n = 0; n < columns / 64; n++) {
                uint32_t vf[4];
                frag_b_down(vf, v, down, j * STEP, col0 + n * STEP, columns);
                mma_bf16(o[2 * n], p, vf);
                mma_bf16(o[2 * n + 1], p, vf + 2);
            }
        }
    }
}

static __device__ __forceinline__ float *state_at(const Paged *at, int64_t row, int64_t head,
                                                  int64_t chunk)
{
    return at->state +
           (((row - at->r.row_from) * at->r.H + head) * at->r.n_chunks + chunk) * (2 + at->r.D);
}

static __device__ __forceinline__ uint16_t half_out(float o, float l)
{
    return bf16_of(real_fma(o, 1.0f / l, 0.0f));
}

/* Two columns of vector i. A row that has no other chunk is finished. */
static __device__ __forceinline__ void values_write(const Paged *at, const Block *b, int i, int64_t d,
                                                    float low, float high)
{
    const Vectors *x = &b->x;
    const int64_t row = x->row + x->row_of[i], head = x->head0 + i - x->row_of[i] * x->heads;
    if (i >= x->n_rows * x->heads || d >= at->r.D)
        return;
    const bool both = d + 1 < at->r.D;
    if (x->pos < KV_CHUNK) {
        uint16_t *o = at->o + row * at->o_stride + head * at->r.D + d;
        o[0] = half_out(low, b->l[i]);
        if (both)
            o[1] = half_out(high, b->l[i]);
        return;
    }
    float *state = state_at(at, row, head, x->chunk);
    state[2 + d] = low;
    if (both)
        state[3 + d] = high;
    if (d == 0) {
        state[0] = b->m[i];
        state[1] = b->l[i];
    }
}

/* ---- a block ------------------------------------------------------------------------------------ */

static __device__ __forceinline__ void paged_block(const Paged *at, Block *b, int columns)
{
    if (threadIdx.x == 0) {
        vectors_make(&b->x, &at->r, blockIdx.x);
        const int64_t seen = b->x.pos + b->x.n_rows - b->x.chunk * KV_CHUNK;
        b->n_tiles = (least(seen, KV_CHUNK) + KV_TILE - 1) / KV_TILE;
        b->last = (least(seen, KV_CHUNK) - 1) % KV_TILE / STEP;
    }
    __syncthreads();
    if (b->x.n_rows == 0)
        return;
    for (int i = 0; i < STAGES - 1; i++)
        ring_load(at, b, i, columns);
    float s[TILES][2][4], o[4][4];
    scores(s, at, b, columns);
    tops(s, b);
    __syncthreads();
    weights(s, at, b);
    __syncthreads();
    sums(b); /* seen behind the barriers of the ring */
    values(o, at, b, columns);
#pragma unroll
    for (int n = 0; n < columns / 32; n++) {
        const int64_t d = warp_of() * columns / WARPS + n * 8 + lane_key();
        values_write(at, b, lane_row(), d, o[n][0], o[n][1]);
        values_write(at, b, lane_row() + 8, d, o[n][2], o[n][3]);
    }
    cp_async_wait(0);
}

#define PAGED_KERNEL(NAME, COLUMNS)                                                                \
    static __global__ void __launch_bounds__(THREADS, 2) NAME(Paged at)                            \
    {                                                                                              \
        DYN_SHARED(uint16_t, ring);                                                                \
        __shared__ __align__(16) uint4 p[TILES][WARPS][WARP];                                      \
        __shared__ float top[TILES][WARPS][VECS_MAX], sum[TILES][WARPS][VECS_MAX][4];              \
        __shared__ float c[TILES][VECS_MAX], m[VECS_MAX], l[VECS_MAX];                             \
        __shared__ Block b;                                                                        \
        if (threadIdx.x == 0) {                                                                    \
            b.ring = ring;                                                                         \
            b.p = p;                                                                               \
            b.top = top;                                                                           \
            b.sum = sum;                                                                           \
            b.c = c;                                                                               \
            b.m = m;                                                                               \
            b.l = l;                                                                               \
        }                                                                                          \
        paged_block(&at, &b, COLUMNS);                                                             \
    }
PAGED_KERNEL(paged_bf16_64_kernel, 64)
PAGED_KERNEL(paged_bf16_128_kernel, 128)

/* A block for a row and head of several chunks. */
static __global__ void __launch_bounds__(MERGE_THREADS) paged_merge_bf16_kernel(Paged at)
{
    const int64_t row = at.r.row_from + blockIdx.x / at.r.H, head = blockIdx.x % at.r.H;
    const int64_t n = at.r.row_seq[row] < 0 ? 0 : at.r.row_pos[row] / KV_CHUNK + 1;
    for (int64_t d = threadIdx.x; n > 1 && d < at.r.D; d += blockDim.x) {
        const float *st = state_at(&at, row, head, 0);
        float m = st[0], l = st[1], o = st[2 + d];
        for (int64_t i = 1; i < n; i++) {
            float one, two, m_of = m, l_of = l;
            st = state_at(&at, row, head, i);
            m = st[0];
            l = st[1];
            half_merge(&m, &l, m_of, l_of, &one, &two);
            o = real_fma(o, one, st[2 + d] * two);
        }
        at.o[row * at.o_stride + head * at.r.D + d] = half_out(o, l);
    }
}

#define PAGED_LAUNCH(kernel)                                                                       \
    do {                                                                                           \
        CUDA_CALL(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,        \
                                       (int)smem));                                                \
        LAUNCH(kernel, paged_blocks(&at.r), THREADS, smem, cuda_stream(q), at);                    \
    } while (0)

/* Rows go in slices whose states fit the scratch block. */
void cuda_attention_paged__bf16(Tensor *o, const Tensor *q, const Tensor *k_pages,
                                const Tensor *v_pages, const Tensor *page_table,
                                const Tensor *row_seq, const Tensor *row_pos, int64_t head_dim,
                                double scale)
{
    const int64_t R = q->dim[0], H = q->dim[1] / head_dim, G = H / k_pages->dim[1];
    const int heads = G < VECS_MAX ? (int)G : (int)VECS_MAX, columns = half_columns(head_dim);
    const size_t smem = (size_t)STAGES * KV_TILE * (size_t)columns * sizeof(uint16_t);
    int joined = VECS_MAX;
    while (joined * heads > VECS_MAX)
        joined /= 2;
    CHECK(scale > 0 && (uintptr_t)k_pages->data % 16 == 0, "scores times %g", scale);
    Paged at = {bf16_data(q),
                bf16_data(k_pages),
                bf16_data(v_pages),
                bf16_data(o),
                NULL,
                q->stride,
                o->stride,
                paged_rows(q, k_pages, page_table, row_seq, row_pos, heads, joined),
                (float)scale * LOG2_E,
                head_dim % 2 == 0 && (uintptr_t)q->data % 4 == 0 && q->stride % 2 == 0,
                half_wide(v_pages, head_dim)};
    const int64_t slice = paged_slice(&at.r);
    at.state = (float *)cuda_scratch(q, (size_t)paged_state_bytes(&at.r));
    for (at.r.row_from = 0; at.r.row_from < R; at.r.row_from = at.r.row_to) {
        at.r.row_to = R - at.r.row_from < slice ? R : at.r.row_from + slice;
        if (columns == 64)
            PAGED_LAUNCH(paged_bf16_64_kernel);
        else
            PAGED_LAUNCH(paged_bf16_128_kernel);
        if (at.r.n_chunks > 1)
            LAUNCH(paged_merge_bf16_kernel, cuda_blocks((at.r.row_to - at.r.row_from) * H, 1),
                   MERGE_THREADS, 0, cuda_stream(q), at);
    }
}
