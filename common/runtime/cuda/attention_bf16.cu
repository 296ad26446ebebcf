/* attention_bf16.cu - causal attention over packed sequences, bf16 with f32 sums, on tensor cores.
 *
 * A block makes 128 queries of a head, each of its four warps 32 of them in two blocks of 16 rows, so that a
 * fragment of keys or values serves two products. Tiles of keys and of values are brought while the
 * other is in use. A chunk that ends before the last leaves its state in scratch, every thread its own
 * part. Blocks stay and take the next 128 queries there are, the longest first, so there is scratch
 * for each of them; who takes which changes no bit. The arithmetic: attention_bf16.h. Tested by
 * tests/ops/attention_rows.c. (Dao 2023, "FlashAttention-2".) */
#include "common/runtime/cuda/attention_bf16.h"

enum {
    QUERIES = 128, /* of a block */
    THREADS = 128,
    WARP_ROWS = 32,
    TILES = KV_CHUNK / KV_TILE,
    BLOCKS_64 = 2, /* on a multiprocessor */
    BLOCKS_128 = 2,
    COUNTER_BYTES = 256,
};

typedef struct {
    const uint16_t *q, *k, *v;
    uint16_t *o;
    float *lse;
    float4 *total;   /* by block: (parts of a thread, THREADS) */
    unsigned *taken; /* pieces of work */
    int64_t q_stride, k_stride, v_stride, o_stride, lse_stride;
    const int32_t *starts;
    int64_t n_seqs, n_slots, H, G;
    unsigned n_work;
    int D;
    float scale; /* times log2 e */
} Forward;

/* A thread's part of its warp's 32 rows: rows g and g + 8 of block b in [b][0] and [b][1]. */
typedef struct {
    float o[2][HALF_COLUMNS_MAX / 8][4];
    float m[2][2], l[2][2];
} State;

/* A block's, in shared memory. */
typedef struct {
    SeqTile tile;
    int head, end; /* end: tiles of keys */
    bool more;
} Work;

typedef struct {
    uint16_t *q, *k, *v;
    float4 *m, *l; /* (THREADS): of a thread's rows, kept here between tiles to have registers for o */
} Tiles;

static __device__ __forceinline__ void rows_keep(const State *st, const Tiles *sh)
{
    const int tid = not_ahead((int)threadIdx.x);
    sh->m[tid] = make_float4(st->m[0][0], st->m[0][1], st->m[1][0], st->m[1][1]);
    sh->l[tid] = make_float4(st->l[0][0], st->l[0][1], st->l[1][0], st->l[1][1]);
}

static __device__ __forceinline__ void rows_load(State *st, const Tiles *sh)
{
    const int tid = not_ahead((int)threadIdx.x);
    const float4 m = sh->m[tid], l = sh->l[tid];
    st->m[0][0] = m.x;
    st->m[0][1] = m.y;
    st->m[1][0] = m.z;
    st->m[1][1] = m.w;
    st->l[0][0] = l.x;
    st->l[0][1] = l.y;
    st->l[1][0] = l.z;
    st->l[1][1] = l.w;
}

static __device__ __forceinline__ void state_reset(State *st, int columns)
{
#pragma unroll
    for (int b = 0; b < 2; b++) {
        st->m[b][0] = st->m[b][1] = -K_INF;
        st->l[b][0] = st->l[b][1] = 0;
#pragma unroll
        for (int n = 0; n < columns / 8; n++)
            st->o[b][n][0] = st->o[b][n][1] = st->o[b][n][2] = st->o[b][n][3] = 0;
    }
}

/* s = q . k of the warp's rows from row0 on and the 64 keys. */
static __device__ __forceinline__ void scores(float s[2][8][4], const Tiles *sh, int row0,
                                              int columns)
{
    const int down = place_down(columns), across = place_across(columns);
#pragma unroll
    for (int b = 0; b < 2; b++) {
#pragma unroll
        for (int n = 0; n < 8; n++)
            s[b][n][0] = s[b][n][1] = s[b][n][2] = s[b][n][3] = 0;
    }
#pragma unroll 1
    for (int d = 0; d < columns; d += STEP) {
        uint32_t q[2][4];
        frag_a(q[0], sh->q, down, row0, d, columns);
        frag_a(q[1], sh->q, down, row0 + 16, d, columns);
#pragma unroll
        for (int n = 0; n < 4; n++) {
            uint32_t k[4];
            frag_b(k, sh->k, across, n * 16, d, columns);
#pragma unroll
            for (int b = 0; b < 2; b++) {
                mma_bf16(s[b][2 * n], q[b], k);
                mma_bf16(s[b][2 * n + 1], q[b], k + 2);
            }
        }
    }
}

/* On the diagonal row r sees keys up to its own place `at` + r. */
static __device__ __forceinline__ void mask(float s[2][8][4], int at)
{
    const int lane = not_ahead((int)threadIdx.x) % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int b = 0; b < 2; b++) {
#pragma unroll
        for (int n = 0; n < 8; n++) {
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (n * 8 + 2 * t + e % 2 > at + b * 16 + e / 2 * 8 + g)
                    s[b][n][e] = -K_INF;
        }
    }
}

/* Scores become weights; o, m and l are made ready for them. */
static __device__ __forceinline__ void softmax(State *st, float s[2][8][4], float scale, int columns)
{
#pragma unroll
    for (int b = 0; b < 2; b++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float top = -K_INF, sum = 0;
#pragma unroll
            for (int n = 0; n < 8; n++)
                top = k_max(s[b][n][2 * h + 1], k_max(s[b][n][2 * h], top));
            const float m = k_max(quad_max(top) * scale, st->m[b][h]);
            const float c = exp2_approx(st->m[b][h] - m);
#pragma unroll
            for (int n = 0; n < 8; n += 2) {
                float *x = &s[b][n][2 * h], *y = &s[b][n + 1][2 * h];
                x[0] = exp2_approx(real_fma(x[0], scale, -m));
                x[1] = exp2_approx(real_fma(x[1], scale, -m));
                y[0] = exp2_approx(real_fma(y[0], scale, -m));
                y[1] = exp2_approx(real_fma(y[1], scale, -m));
                sum += quarter_sum(x[0], x[1], y[0], y[1]);
            }
            st->l[b][h] = real_fma(st->l[b][h], c, sum);
            st->m[b][h] = m;
#pragma unroll
            for (int n = 0; n < columns / 8; n++) {
                st->o[b][n][2 * h] *= c;
                st->o[b][n][2 * h + 1] *= c;
            }
        }
    }
}

/* o += p v, over keys [0, 16 * (last + b)] of block b, at most 64. */
static __device__ __forceinline__ void add_values(State *st, const float s[2][8][4], const Tiles *sh,
                                                  int last, int columns)
{
    const int down = place_down(columns);
#pragma unroll
    for (int j = 0; j < KV_TILE / STEP; j++) {
        uint32_t p[2][4];
        if (j > last + 1)
            break;
#pragma unroll
        for (int b = 0; b < 2; b++) {
            p[b][0] = bf16_low_high(s[b][2 * j][0], s[b][2 * j][1]);
            p[b][1] = bf16_low_high(s[b][2 * j][2], s[b][2 * j][3]);
            p[b][2] = bf16_low_high(s[b][2 * j + 1][0], s[b][2 * j + 1][1]);
            p[b][3] = bf16_low_high(s[b][2 * j + 1][2], s[b][2 * j + 1][3]);
        }
#pragma unroll
        for (int n = 0; n < columns / 16; n++) {
            uint32_t v[4];
            frag_b_down(v, sh->v, down, j * STEP, n * 16, columns);
            if (j <= last) {
                mma_bf16(st->o[0][2 * n], p[0], v);
                mma_bf16(st->o[0][2 * n + 1], p[0], v + 2);
            }
            mma_bf16(st->o[1][2 * n], p[1], v);
            mma_bf16(st->o[1][2 * n + 1], p[1], v + 2);
        }
    }
}

/* ---- chunks ------------------------------------------------------------------------------------- */

/* A thread's part of block b of 16 rows: m and l of its two rows, then o. */
static __device__ __forceinline__ float4 *total_at(const Forward *f, int b, int columns)
{
    const int part = columns / 8 + 1;
    return f->total + ((int64_t)blockIdx.x * 2 + b) * part * THREADS + not_ahead((int)threadIdx.x);
}

static __device__ __forceinline__ void state_close(State *st)
{
#pragma unroll
    for (int b = 0; b < 2; b++) {
        st->l[b][0] = quad_sum(st->l[b][0]);
        st->l[b][1] = quad_sum(st->l[b][1]);
    }
}

/* The state becomes the one of all chunks so far. */
static __device__ __forceinline__ void state_merge(State *st, const Forward *f, int columns)
{
#pragma unroll
    for (int b = 0; b < 2; b++) {
        const float4 *total = total_at(f, b, columns), ml = total[0];
        __syncwarp(); /* block by block: there are no registers for more */
        float one[2], two[2];
        half_merge(&st->m[b][0], &st->l[b][0], ml.x, ml.z, &one[0], &two[0]);
        half_merge(&st->m[b][1], &st->l[b][1], ml.y, ml.w, &one[1], &two[1]);
#pragma unroll
        for (int n = 0; n < columns / 8; n++) {
            const float4 before = total[(1 + n) * THREADS];
            float *o = st->o[b][n];
            o[0] = real_fma(before.x, one[0], o[0] * two[0]);
            o[1] = real_fma(before.y, one[0], o[1] * two[0]);
            o[2] = real_fma(before.z, one[1], o[2] * two[1]);
            o[3] = real_fma(before.w, one[1], o[3] * two[1]);
        }
    }
}

static __device__ __forceinline__ void state_leave(const State *st, const Forward *f, int columns)
{
#pragma unroll
    for (int b = 0; b < 2; b++) {
        float4 *total = total_at(f, b, columns);
        total[0] = make_float4(st->m[b][0], st->m[b][1], st->l[b][0], st->l[b][1]);
#pragma unroll
        for (int n = 0; n < columns / 8; n++) {
            const float *o = st->o[b][n];
            total[(1 + n) * THREADS] = make_float4(o[0], o[1], o[2], o[3]);
        }
    }
}

static __device__ __forceinline__ void state_write(const State *st, const Forward *f, const Work *w,
                                                   int row0, int columns, bool wide)
{
    const int lane = not_ahead((int)threadIdx.x) % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int b = 0; b < 2; b++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int64_t pos = w->tile.first + row0 + b * 16 + h * 8 + g, row = w->tile.start + pos;
            const float l = st->l[b][h], r = 1.0f / l;
            if (pos >= w->tile.length)
                continue;
            if (t == 0)
                f->lse[row * f->lse_stride + w->head] = half_lse(st->m[b][h], l);
            uint16_t *o = f->o + row * f->o_stride + (int64_t)w->head * f->D + 2 * t;
#pragma unroll
            for (int n = 0; n < columns / 8; n++)
                put_pair(o + 8 * n, real_fma(st->o[b][n][2 * h], r, 0.0f),
                         real_fma(st->o[b][n][2 * h + 1], r, 0.0f), f->D - 8 * n - 2 * t, wide);
        }
    }
}

/* ---- a block ------------------------------------------------------------------------------------ */

static __device__ __forceinline__ void keys_load(const Forward *f, const Work *w, const Tiles *sh, int tile,
                                                 int columns, bool wide)
{
    tile_load(sh->k,
              half_rows(f->k, f->k_stride, &w->tile, (int64_t)tile * KV_TILE, KV_TILE,
                        w->head / f->G * f->D),
              KV_TILE, columns, f->D, wide, THREADS);
    cp_async_commit();
}
static __device__ __forceinline__ void values_load(const Forward *f, const Work *w, const Tiles *sh, int tile,
                                                   int columns, bool wide)
{
    tile_load(sh->v,
              half_rows(f->v, f->v_stride, &w->tile, (int64_t)tile * KV_TILE, KV_TILE,
                        w->head / f->G * f->D),
              KV_TILE, columns, f->D, wide, THREADS);
    cp_async_commit();
}

static __device__ __forceinline__ int warp_row(void)
{
    return not_ahead((int)threadIdx.x) / WARP * WARP_ROWS;
}

/* The tile of the warp's own positions, the last it sees; none when it has no row. */
static __device__ __forceinline__ int own_tile(const Work *w)
{
    const int first = (int)w->tile.first + warp_row();
    return first < w->tile.length ? first / KV_TILE : -1;
}

/* What a warp does with one tile of keys, while its values arrive, and then with those. */
static __device__ __forceinline__ void tile_weights(State *st, float s[2][8][4], const Forward *f,
                                                    const Work *w, const Tiles *sh, int tile,
                                                    int columns)
{
    const int at = warp_row() % KV_TILE;
    const bool last = tile == own_tile(w);
    if (last)
        mask(s, at);
    rows_load(st, sh);
    softmax(st, s, f->scale, columns);
    rows_keep(st, sh);
    add_values(st, s, sh, last ? at / STEP : KV_TILE / STEP, columns);
}

/* The tiles of the chunk that begins with tile `from`; of that one the first one's keys are on their way. */
static __device__ __forceinline__ void chunk_run(State *st, const Forward *f, const Work *w,
                                                 const Tiles *sh, int from, int columns,
                                                 bool wide)
{
    float s[2][8][4];
#pragma unroll 1
    for (int tile = from; tile < from + TILES && tile < w->end; tile++) {
        cp_async_wait(0);
        __syncthreads(); /* keys are there, the values before them are used */
        values_load(f, w, sh, tile, columns, wide);
        if (tile <= own_tile(w))
            scores(s, sh, warp_row(), columns);
        cp_async_wait(0);
        __syncthreads(); /* values are there, the keys are used */
        if (tile + 1 < w->end)
            keys_load(f, w, sh, tile + 1, columns, wide);
        if (tile <= own_tile(w))
            tile_weights(st, s, f, w, sh, tile, columns);
    }
}

static __device__ __forceinline__ void work_run(const Forward *f, const Work *w, const Tiles *sh,
                                                int columns, bool wide)
{
    State st;
    tile_load(sh->q,
              half_rows(f->q, f->q_stride, &w->tile, w->tile.first, QUERIES,
                        (int64_t)w->head * f->D),
              QUERIES, columns, f->D, wide, THREADS);
    keys_load(f, w, sh, 0, columns, wide);
#pragma unroll 1
    for (int from = 0; from < w->end; from += TILES) {
        state_reset(&st, columns);
        rows_keep(&st, sh);
        chunk_run(&st, f, w, sh, from, columns, wide);
        if (from > own_tile(w))
            continue;
        rows_load(&st, sh);
        state_close(&st);
        if (from > 0)
            state_merge(&st, f, columns);
        if (own_tile(w) < from + TILES)
            state_write(&st, f, w, warp_row(), columns, wide);
        else
            state_leave(&st, f, columns);
    }
}

/* By one thread. Slots from the last to the first: the longest work begins first. */
static __device__ __forceinline__ void work_take(const Forward *f, Work *w)
{
    const unsigned n = atomicAdd(f->taken, 1u);
    w->more = n < f->n_work;
    if (!w->more)
        return;
    w->tile = tile_in_slot(f->starts, f->n_seqs, f->n_slots - 1 - n / f->H, QUERIES);
    w->head = (int)(n % f->H);
    w->end = ((int)w->tile.first + least(w->tile.length - w->tile.first, QUERIES) - 1) / KV_TILE + 1;
}

static __device__ __forceinline__ void forward_block(const Forward *f, Work *w, const Tiles *sh,
                                                     int columns, bool wide)
{
    for (;;) {
        __syncthreads(); /* the last work is done */
        if (threadIdx.x == 0)
            work_take(f, w);
        __syncthreads();
        if (!w->more)
            return;
        if (w->tile.first < w->tile.length)
            work_run(f, w, sh, columns, wide);
    }
}

/* wide: q, k, v and o are; rows that are not aligned go element by element. */
#define FORWARD_KERNEL(NAME, COLUMNS, WIDE)                                                        \
    static __global__ void __launch_bounds__(THREADS, BLOCKS_##COLUMNS) NAME(Forward f)            \
    {                                                                                              \
        DYN_SHARED(uint16_t, tiles);                                                               \
        __shared__ Work w;                                                                         \
        __shared__ float4 m[THREADS], l[THREADS];                                                  \
        const Tiles sh = {tiles, tiles + QUERIES * (COLUMNS),                                      \
                          tiles + (QUERIES + KV_TILE) * (COLUMNS), m, l};                          \
        forward_block(&f, &w, &sh, COLUMNS, WIDE);                                                 \
    }
FORWARD_KERNEL(attention_bf16_64_kernel, 64, true)
FORWARD_KERNEL(attention_bf16_128_kernel, 128, true)
FORWARD_KERNEL(attention_bf16_64_narrow_kernel, 64, false)
FORWARD_KERNEL(attention_bf16_128_narrow_kernel, 128, false)

#define FORWARD_LAUNCH(kernel)                                                                     \
    do {                                                                                           \
        CUDA_CALL(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,        \
                                       (int)smem));                                                \
        LAUNCH(kernel, blocks, THREADS, smem, stream, f);                                          \
    } while (0)

void cuda_attention__bf16(Tensor *o, Tensor *lse, const Tensor *q, const Tensor *k, const Tensor *v,
                          const Tensor *starts, int64_t head_dim, double scale)
{
    const int64_t D = head_dim, H = q->dim[1] / D, S = starts->dim[0] - 1, T = q->dim[0];
    const int64_t n_slots = tile_slots(T, S, QUERIES);
    const int columns = half_columns(D);
    const size_t smem = (size_t)(QUERIES + 2 * KV_TILE) * (size_t)columns * sizeof(uint16_t);
    const int64_t total_bytes = (int64_t)(columns / 4 + 2) * THREADS * (int64_t)sizeof(float4);
    const int64_t most = (CUDA_SCRATCH_BYTES - COUNTER_BYTES) / total_bytes;
    const cudaStream_t stream = cuda_stream(q);
    CHECK(scale > 0, "scores times %g", scale);
    if (T == 0)
        return;
    const unsigned n_work = cuda_blocks(n_slots * H, 1);
    int64_t blocks = (int64_t)cuda_device(q)->n_sm * (columns == 64 ? BLOCKS_64 : BLOCKS_128);
    blocks = blocks < most ? blocks : most;
    blocks = blocks < n_work ? blocks : (int64_t)n_work;
    char *scratch = (char *)cuda_scratch(q, (size_t)(COUNTER_BYTES + blocks * total_bytes));
    Forward f = {bf16_data(q),
                 bf16_data(k),
                 bf16_data(v),
                 bf16_data(o),
                 f32_data(lse),
                 (float4 *)(scratch + COUNTER_BYTES),
                 (unsigned *)scratch,
                 q->stride,
                 k->stride,
                 v->stride,
                 o->stride,
                 lse->stride,
                 i32_data(starts),
                 S,
                 n_slots,
                 H,
                 H / (k->dim[1] / D),
                 n_work,
                 (int)D,
                 (float)scale * LOG2_E};
    const bool wide = half_wide(q, D) && half_wide(k, D) && half_wide(v, D) && half_wide(o, D);
    CUDA_CALL(cudaMemsetAsync(f.taken, 0, sizeof *f.taken, stream));
    if (columns == 64 && wide)
        FORWARD_LAUNCH(attention_bf16_64_kernel);
    else if (columns == 64)
        FORWARD_LAUNCH(attention_bf16_64_narrow_kernel);
    else if (wide)
        FORWARD_LAUNCH(attention_bf16_128_kernel);
    else
        FORWARD_LAUNCH(attention_bf16_128_narrow_kernel);
}
