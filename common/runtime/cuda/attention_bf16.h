/* attention_bf16.h - what the bf16 attention files share: tiles of a head in shared memory, their
 * fragments, and the softmax of a row in the order that every path keeps.
 *
 * A tile is rows x 64 or 128 columns (heads of up to 64, up to 128; columns that a head does not have
 * are zero). The arithmetic of a row, whichever kernel makes it:
 *   s = q . k by mma over the columns, 16 at a time ascending;
 *   by tile of 64 keys: m' = max(m, max s * scale), p = 2^(s * scale - m'), c = 2^(m - m'), scale
 *   times log2 e; lane t of the row's four has keys 2 t, 2 t + 1 of every eight, and per 16 keys
 *   (p0 + p1) + (p8 + p9), the four of a tile ascending, l = fma(l, c, that); o = o * c, then
 *   mma over keys, 16 at a time, as far as the 16 that hold the row's own position;
 *   chunks merged ascending as in ops.h, l = (l0 + l1) + (l2 + l3) of the lanes before;
 *   o * (1 / l) + 0, which has no sign when it is zero, rounded to bf16; lse = m ln 2 + log(l).
 * Weights that are masked are 0; what they are multiplied with must be finite. */
#ifndef RLHF_RUNTIME_CUDA_ATTENTION_BF16_H
#define RLHF_RUNTIME_CUDA_ATTENTION_BF16_H

#include "common/runtime/cuda/attention.h"
#include "common/runtime/cuda/ptx.h"

#define LOG2_E 0x1.715476p+0f
#define LN_2   0x1.62e430p-1f

enum { HALF_COLUMNS_MAX = BF16_HEAD_DIM_MAX, STEP = 16 /* of an mma's sum */ };

/* Rows [0, n) of one head: element (r, d) at p[r * stride + d]. */
typedef struct {
    const uint16_t *p;
    int64_t stride;
    int n;
} HalfRows;

static inline uint16_t *bf16_data(const Tensor *t)
{
    return (uint16_t *)t->data;
}

/* Whether pieces of 8 of every head are aligned. */
static inline bool half_wide(const Tensor *t, int64_t D)
{
    return D % 8 == 0 && (uintptr_t)t->data % 16 == 0 &&
           (t->layout != LAYOUT_ROWS || t->stride % 8 == 0);
}

/* Columns of the tiles of heads of D. */
static inline int half_columns(int64_t D)
{
    CHECK(D <= HALF_COLUMNS_MAX, "bf16 attention has heads of up to %d, not of %lld",
          HALF_COLUMNS_MAX, (long long)D);
    return D <= 64 ? 64 : 128;
}

static __device__ __forceinline__ HalfRows half_rows(const uint16_t *p, int64_t stride,
                                                     const SeqTile *t, int64_t first, int n,
                                                     int64_t col)
{
    HalfRows r = {p + (t->start + first) * stride + col, stride, least(t->length - first, n)};
    return r;
}

/* Where element (r, c) of a tile lies: the pieces of 8 of a row in an order that its number changes, so
 * that the same piece of eight rows is in eight different banks. */
static __device__ __forceinline__ int tile_at(int r, int c, int columns)
{
    return r * columns + ((c / 8 ^ r % 8) * 8 | c % 8);
}

/* Begins to bring rows [0, rows) of x, D columns of them, into a tile; the rest becomes zero. A thread has
 * the same columns of every rows_step-th row. wide: as in x, but a constant. */
static __device__ __forceinline__ void tile_load(uint16_t *s, HalfRows x, int rows, int columns,
                                                 int D, bool wide, int threads)
{
    const int pieces = columns / 8, step = threads / pieces; /* a multiple of 8: no other banks */
    const int tid = not_ahead((int)threadIdx.x), r0 = tid / pieces, c = tid % pieces * 8;
    const uint16_t *from = x.p + r0 * x.stride + c;
    uint16_t *to = s + tile_at(r0, c, columns);
    if (wide) {
#pragma unroll 4
        for (int r = r0; r < rows; r += step, to += step * columns, from += step * x.stride)
            cp_async16(to, from, r < x.n && c < D ? 16 : 0);
        return;
    }
    for (int r = r0; r < rows; r += step, to += step * columns, from += step * x.stride)
        for (int j = 0; j < 8; j++)
            to[j] = r < x.n && c + j < D ? from[j] : (uint16_t)0;
}

/* ---- fragments (ptx.h) of a tile, 16 x 16 from (row, col), both multiples of 16 ------------------ */

/* A lane's place in a fragment whose lanes have 16 rows by 8 pieces (of two), and the other way round. That of
 * another fragment is a multiple of rows away, and its column is one of the bits that nothing else sets. */
static __device__ __forceinline__ int place_down(int columns)
{
    const int lane = (int)threadIdx.x % WARP;
    return not_ahead(tile_at(lane % 16, lane / 16 * 8, columns));
}
static __device__ __forceinline__ int place_across(int columns)
{
    const int lane = (int)threadIdx.x % WARP;
    return not_ahead(tile_at(lane % 8 + lane / 16 * 8, lane / 8 % 2 * 8, columns));
}
static __device__ __forceinline__ const uint16_t *frag_at(const uint16_t *s, int place, int row,
                                                          int col, int columns)
{
    return s + row * columns + (place ^ col);
}

/* a: rows of the tile are rows of the product. place: _down. */
static __device__ __forceinline__ void frag_a(uint32_t a[4], const uint16_t *s, int place, int row, int col, int columns)
{
    ldmatrix_x4(a, frag_at(s, place, row, col, columns));
}
/* a, transposed: rows of the tile are summed over, its columns are rows of the product. place: _across. */
static __device__ __forceinline__ void frag_a_down(uint32_t a[4], const uint16_t *s, int place, int row, int col, int columns)
{
    ldmatrix_x4_trans(a, frag_at(s, place, row, col, columns));
}
/* b of two neighbours of 8 columns each: b + 0 and b + 2. Rows of the tile are columns of the product.
 * place: _across. */
static __device__ __forceinline__ void frag_b(uint32_t b[4], const uint16_t *s, int place, int row, int col, int columns)
{
    ldmatrix_x4(b, frag_at(s, place, row, col, columns));
}
/* b, rows of the tile are summed over. place: _down. */
static __device__ __forceinline__ void frag_b_down(uint32_t b[4], const uint16_t *s, int place, int row, int col, int columns)
{
    ldmatrix_x4_trans(b, frag_at(s, place, row, col, columns));
}

/* ---- a row's softmax ---------------------------------------------------------------------------- */

/* The two sums of four lanes of a row become those of the row. */
static __device__ __forceinline__ float quad_sum(float x)
{
    x += __shfl_xor_sync(FULL_MASK, x, 1);
    return x + __shfl_xor_sync(FULL_MASK, x, 2);
}
static __device__ __forceinline__ float quad_max(float x)
{
    x = k_max(__shfl_xor_sync(FULL_MASK, x, 1), x);
    return k_max(__shfl_xor_sync(FULL_MASK, x, 2), x);
}

/* Of a lane's four scores of 16 keys, s of the first 8 keys, then of the others. */
static __device__ __forceinline__ float quarter_sum(float a, float b, float c, float d)
{
    return (a + b) + (c + d);
}

/* (m, l) becomes the state of both chunks, *one and *two the factors of their o. */
static __device__ __forceinline__ void half_merge(float *m, float *l, float m_before,
                                                  float l_before, float *one, float *two)
{
    const float top = k_max(*m, m_before);
    *one = exp2_approx(m_before - top);
    *two = exp2_approx(*m - top);
    *l = real_fma(l_before, *one, *l * *two);
    *m = top;
}

static __device__ __forceinline__ float half_lse(float m, float l)
{
    return real_fma(m, LN_2, k_log(l));
}

/* Two neighbours of a row at p, of which `left` are to be written: none or both where rows are wide. */
static __device__ __forceinline__ void put_pair(uint16_t *p, float low, float high, int left,
                                                bool wide)
{
    if (wide) {
        if (left > 0)
            *(uint32_t *)p = bf16_low_high(low, high);
        return;
    }
    if (left > 0)
        p[0] = bf16_of(low);
    if (left > 1)
        p[1] = bf16_of(high);
}

#endif
