/* attention.cu - causal attention over packed sequences.
 *
 * A block makes the 64 queries of one tile and head, walking the key tiles up to its own with
 * the running softmax in registers; 16 lanes share a row. A chunk that ends before the last leaves
 * its state in o, unfinished, for the next to be merged with.
 * The steps are those of ops.h in its order. The largest of a set of keys may be found in any
 * order: no NaN is in it, and the sign of a zero drops out of every difference. Tested by
 * tests/ops/attention.c. */
#include "common/runtime/cuda/attention.h"

enum { PACKED_THREADS = 128, LANES = 16, ROWS = 8 /* of a thread, which holds 4 keys of each */ };

typedef struct {
    const float *q, *k, *v;
    float *o, *lse;
    int64_t q_stride, k_stride, v_stride, o_stride, lse_stride;
    const int32_t *starts;
    int64_t n_seqs, n_slots, D, H, G, n_groups; /* n_groups: of output columns */
    float scale;
    bool q_wide, k_wide, v_wide, o_wide;
} Packed;

/* The online softmax of a thread's rows: o in registers, columns 4 * lane + 64 * v of the block's;
 * m and l beside each other in shared memory, read and written between barriers of the warp alone,
 * whose lanes share the rows. */
typedef struct {
    float o[ROWS][8];
    float *ml; /* (KV_TILE, 2) */
} State;

/* Where a block and a thread of it are. */
typedef struct {
    const SeqTile *tile; /* in shared memory: addresses made of it are not kept in registers */
    int64_t head, col0;  /* first output column */
    int row0, lane;      /* first row of the thread */
    bool first_group;
} Place;

static __device__ __forceinline__ void ml_load(float m[ROWS], float l[ROWS], const float *ml,
                                               int row0)
{
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        m[r] = ml[2 * (row0 + r)];
        l[r] = ml[2 * (row0 + r) + 1];
    }
}

/* After a barrier of the warp: its lanes have loaded what was there. */
static __device__ __forceinline__ void ml_store(float *ml, const float m[ROWS], const float l[ROWS],
                                                const Place *pl)
{
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        if (pl->lane == r) {
            ml[2 * (pl->row0 + r)] = m[r];
            ml[2 * (pl->row0 + r) + 1] = l[r];
        }
}

static __device__ __forceinline__ void state_reset(State *st, const Place *pl, int columns)
{
    if (pl->lane < ROWS) {
        st->ml[2 * (pl->row0 + pl->lane)] = -K_INF;
        st->ml[2 * (pl->row0 + pl->lane) + 1] = 0;
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int c = 0; c < columns / LANES; c++)
            st->o[r][c] = 0;
    }
}

static __device__ __forceinline__ float *out_at(const Packed *at, const Place *pl, int r, int v)
{
    return at->o + (pl->tile->start + pl->tile->first + pl->row0 + r) * at->o_stride +
           pl->head * at->D + pl->col0 + 4 * pl->lane + 64 * v;
}

/* Elements of the four at out_at that exist. */
static __device__ __forceinline__ int out_left(const Packed *at, const Place *pl, int r, int v)
{
    const bool row = pl->tile->first + pl->row0 + r < pl->tile->length;
    return row ? least(at->D - pl->col0 - 4 * pl->lane - 64 * v, 4) : 0;
}

/* s[r][i] = q . k of the thread's rows and keys lane + 16 i. */
static __device__ __forceinline__ void scores(float s[ROWS][4], const HeadRows *q,
                                              const HeadRows *k, int64_t D, const Place *pl,
                                              float *qs, float *ks)
{
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        s[r][0] = s[r][1] = s[r][2] = s[r][3] = 0;
    for (int64_t d0 = 0; d0 < D; d0 += SLAB_DIMS) {
        __syncthreads();
        slab_across(qs, q, d0, D, false, PACKED_THREADS);
        slab_across(ks, k, d0, D, true, PACKED_THREADS);
        __syncthreads();
        const int n = least(D - d0, SLAB_DIMS);
#pragma unroll 2
        for (int d = 0; d < n; d++) {
            float a[ROWS], b[4];
            unpack4(a, load4(qs + d * TILE_STEP + pl->row0));
            unpack4(a + 4, load4(qs + d * TILE_STEP + pl->row0 + 4));
            unpack4(b, load4(ks + d * TILE_STEP + 4 * pl->lane));
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
#pragma unroll
                for (int i = 0; i < 4; i++)
                    s[r][i] = real_fma(a[r], b[i], s[r][i]);
            }
        }
    }
}

/* One row, one tile, by its 16 lanes: s becomes the weights. n: keys the row sees. The sum is a
 * lane j's p[j] + p[j + 32], then the tree. */
static __device__ __forceinline__ void softmax_row(float s[4], int n, float scale, int lane,
                                                   float *m, float *l, float *o, int n_o)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        s[i] = lane + LANES * i < n ? s[i] * scale : -K_INF;
    float top = k_max(s[3], k_max(s[2], k_max(s[1], k_max(s[0], -K_INF))));
#pragma unroll
    for (int w = LANES / 2; w > 0; w /= 2)
        top = k_max(__shfl_xor_sync(FULL_MASK, top, w), top);
    top = k_max(top, *m);
#pragma unroll
    for (int i = 0; i < 4; i++)
        s[i] = k_exp(s[i] - top);
    float sum = (s[0] + s[2]) + (s[1] + s[3]);
#pragma unroll
    for (int w = LANES / 2; w > 0; w /= 2)
        sum += __shfl_xor_sync(FULL_MASK, sum, w);
    const bool first = *m == -K_INF; /* of the chunk: l and o are 0 and stay so */
    const float c = first ? 1.0f : k_exp(*m - top);
    *l = first ? sum : real_fma(*l, c, sum);
    *m = top;
#pragma unroll
    for (int i = 0; i < n_o; i++)
        o[i] *= c; /* times 1 is the identity */
}

/* o += p v over the keys that each row sees. ps: [key][row], rows of a warp its own. */
static __device__ __forceinline__ void add_values(State *st, const HeadRows *v, const Packed *at,
                                                  const Place *pl, bool diagonal, int columns,
                                                  const float *ps, float *vs)
{
    const int step = ROW_FLOATS / columns;
    for (int j0 = 0; j0 < v->n; j0 += step) {
        __syncthreads();
        slab_along(vs, v, j0, pl->col0, at->D, columns, PACKED_THREADS);
        __syncthreads();
        const int n = v->n - j0 < step ? v->n - j0 : step;
#pragma unroll 2
        for (int j = 0; j < n; j++) {
            float p[ROWS], b[8];
            unpack4(p, load4(ps + (j0 + j) * TILE_STEP + pl->row0));
            unpack4(p + 4, load4(ps + (j0 + j) * TILE_STEP + pl->row0 + 4));
#pragma unroll
            for (int c = 0; c < columns / LANES; c += 4)
                unpack4(b + c, load4(vs + j * columns + 4 * pl->lane + 16 * c));
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                if (!diagonal ||
                    j0 + j <= pl->row0 + r) { /* a weight of 0 is not nothing: -0, inf */
#pragma unroll
                    for (int c = 0; c < columns / LANES; c++)
                        st->o[r][c] = real_fma(p[r], b[c], st->o[r][c]);
                }
            }
        }
    }
}

/* The chunk's state becomes the merged one of all chunks so far. total: (KV_TILE, 2), m and l of
 * the chunks before, whose o lies in the output; lane r of the row makes the two factors of row r.
 */
static __device__ __forceinline__ void merge(State *st, const Packed *at, const Place *pl,
                                             int columns, float *total)
{
    if (pl->lane < ROWS) {
        float *one = total + 2 * (pl->row0 + pl->lane), *two = st->ml + 2 * (pl->row0 + pl->lane);
        const float m = k_max(two[0], one[0]), e1 = k_exp(one[0] - m), e2 = k_exp(two[0] - m);
        two[0] = m;
        two[1] = real_fma(one[1], e1, two[1] * e2);
        one[0] = e1;
        one[1] = e2;
    }
    __syncwarp();
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const float e1 = total[2 * (pl->row0 + r)], e2 = total[2 * (pl->row0 + r) + 1];
#pragma unroll
        for (int v = 0; v < columns / 64; v++) {
            float o[4];
            unpack4(o, fetch4(out_at(at, pl, r, v), out_left(at, pl, r, v), at->o_wide));
#pragma unroll
            for (int e = 0; e < 4; e++)
                st->o[r][4 * v + e] = real_fma(o[e], e1, st->o[r][4 * v + e] * e2);
        }
    }
    __syncwarp(); /* total is read */
}

static __device__ __forceinline__ void write_out(const State *st, const Packed *at, const Place *pl,
                                                 int columns)
{
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int v = 0; v < columns / 64; v++)
            put4(out_at(at, pl, r, v), &st->o[r][4 * v], out_left(at, pl, r, v), at->o_wide);
    }
}

static __device__ __forceinline__ void finish(State *st, const Packed *at, const Place *pl,
                                              int columns)
{
    const int64_t row = pl->tile->first + pl->row0 + pl->lane;
    if (pl->lane < ROWS && pl->first_group && row < pl->tile->length) {
        const float *ml = st->ml + 2 * (pl->row0 + pl->lane);
        at->lse[(pl->tile->start + row) * at->lse_stride + pl->head] = ml[0] + k_log(ml[1]);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const float l = st->ml[2 * (pl->row0 + r) + 1];
#pragma unroll
        for (int c = 0; c < columns / LANES; c++)
            st->o[r][c] /= l;
    }
    write_out(st, at, pl, columns);
}

/* Rows of one key tile: scores, weights, values. */
static __device__ __forceinline__ void packed_tile(State *st, const Packed *at, const Place *pl,
                                                   int64_t key0, int columns, float *slab,
                                                   float *ps)
{
    const int64_t kv = pl->head / at->G * at->D;
    const HeadRows q =
        head_rows(at->q, at->q_stride, pl->tile, pl->tile->first, pl->head * at->D, at->q_wide);
    const HeadRows k = head_rows(at->k, at->k_stride, pl->tile, key0, kv, at->k_wide);
    const HeadRows v = head_rows(at->v, at->v_stride, pl->tile, key0, kv, at->v_wide);
    const bool diagonal = key0 == pl->tile->first;
    float s[ROWS][4];
    scores(s, &q, &k, at->D, pl, slab, slab + SLAB_FLOATS);
    float m[ROWS], l[ROWS];
    ml_load(m, l, st->ml, pl->row0);
    __syncwarp();
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        softmax_row(s[r], diagonal ? pl->row0 + r + 1 : KV_TILE, at->scale, pl->lane, &m[r], &l[r],
                    st->o[r], columns / LANES);
    ml_store(st->ml, m, l, pl);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float *p = ps + (pl->lane + LANES * i) * TILE_STEP + pl->row0;
        float4 lo = {s[0][i], s[1][i], s[2][i], s[3][i]}, hi = {s[4][i], s[5][i], s[6][i], s[7][i]};
        store4(p, lo);
        store4(p + 4, hi);
    } /* add_values begins with a barrier */
    if (diagonal)
        add_values(st, &v, at, pl, true, columns, ps, slab);
    else
        add_values(st, &v, at, pl, false, columns, ps, slab);
}

/* Blocks go from the last tile of a sequence to the first: the longest work starts first. */
static __device__ __forceinline__ void packed_block(const Packed *at, int columns, float *slab,
                                                    float *ps, float *ml, SeqTile *tile)
{
    const int64_t b = blockIdx.x, group = b % at->n_groups;
    Place pl;
    pl.head = b / at->n_groups % at->H;
    pl.col0 = group * columns;
    pl.first_group = group == 0;
    pl.row0 = (int)threadIdx.x / LANES * ROWS;
    pl.lane = (int)threadIdx.x % LANES;
    pl.tile = tile;
    if (threadIdx.x == 0)
        *tile = tile_in_slot(at->starts, at->n_seqs, at->n_slots - 1 - b / at->n_groups / at->H,
                             KV_TILE);
    __syncthreads();
    if (tile->first >= tile->length)
        return;
    State st;
    float *total = ml + 2 * KV_TILE; /* m and l of the chunks before */
    st.ml = ml;
    state_reset(&st, &pl, columns);
    for (int64_t key0 = 0;; key0 += KV_TILE) {
        packed_tile(&st, at, &pl, key0, columns, slab, ps);
        const bool last = key0 == pl.tile->first;
        if (!last && (key0 + KV_TILE) % KV_CHUNK)
            continue;
        if (key0 >= KV_CHUNK)
            merge(&st, at, &pl, columns, total);
        if (last)
            break;
        if (pl.lane < ROWS) { /* of a row always the same lane writes */
            total[2 * (pl.row0 + pl.lane)] = ml[2 * (pl.row0 + pl.lane)];
            total[2 * (pl.row0 + pl.lane) + 1] = ml[2 * (pl.row0 + pl.lane) + 1];
        }
        write_out(&st, at, &pl, columns);
        state_reset(&st, &pl, columns);
    }
    finish(&st, at, &pl, columns);
}

#define PACKED_KERNEL(COLUMNS, BLOCKS)                                                             \
    static __global__ void __launch_bounds__(PACKED_THREADS, BLOCKS)                               \
        attention_##COLUMNS##_kernel(Packed at)                                                    \
    {                                                                                              \
        __shared__ __align__(16) float slab[2 * SLAB_FLOATS], ps[KV_TILE * TILE_STEP];             \
        __shared__ float ml[4 * KV_TILE];                                                          \
        __shared__ SeqTile tile;                                                                   \
        packed_block(&at, COLUMNS, slab, ps, ml, &tile);                                           \
    }
PACKED_KERNEL(64, 3)
PACKED_KERNEL(128, 2)

void cuda_attention(Tensor *o, Tensor *lse, const Tensor *q, const Tensor *k, const Tensor *v,
                    const Tensor *starts, int64_t head_dim, double scale)
{
    if (q->dtype == DTYPE_BF16) {
        cuda_attention__bf16(o, lse, q, k, v, starts, head_dim, scale);
        return;
    }
    const int64_t D = head_dim, H = q->dim[1] / D, S = starts->dim[0] - 1, T = q->dim[0];
    const int columns = D <= 64 ? 64 : 128;
    const bool heads_wide = D % 4 == 0;
    Packed at = {f32_data(q),
                 f32_data(k),
                 f32_data(v),
                 f32_data(o),
                 f32_data(lse),
                 q->stride,
                 k->stride,
                 v->stride,
                 o->stride,
                 lse->stride,
                 i32_data(starts),
                 S,
                 tile_slots(T, S, KV_TILE),
                 D,
                 H,
                 H / (k->dim[1] / D),
                 (D + columns - 1) / columns,
                 (float)scale,
                 heads_wide && is_wide(q),
                 heads_wide && is_wide(k),
                 heads_wide && is_wide(v),
                 heads_wide && is_wide(o)};
    if (T == 0)
        return;
    const unsigned blocks = cuda_blocks(at.n_slots * H * at.n_groups, 1);
    if (columns == 64)
        LAUNCH(attention_64_kernel, blocks, PACKED_THREADS, 0, cuda_stream(q), at);
    else
        LAUNCH(attention_128_kernel, blocks, PACKED_THREADS, 0, cuda_stream(q), at);
}
