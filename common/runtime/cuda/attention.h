/* attention.h - what the two attention files share: tiles of packed sequences as blocks of a grid,
 * and the slabs in which rows of a head pass through shared memory. */
#ifndef RLHF_RUNTIME_CUDA_ATTENTION_H
#define RLHF_RUNTIME_CUDA_ATTENTION_H

#include "common/runtime/cuda/tile.h"

extern __typeof__(op_attention) cuda_attention__bf16;
extern __typeof__(op_attention_backward) cuda_attention_backward__bf16;

enum {
    TILE_STEP = KV_TILE + 4, /* a row of KV_TILE floats in shared memory, padded: see slab_across */
    SLAB_DIMS = 32,          /* head dims of a transposed slab */
    SLAB_FLOATS = SLAB_DIMS * TILE_STEP,
    ROW_FLOATS = 2048, /* of a slab of whole rows: 16 of 128 columns, 32 of 64 */
};

/* Positions of one sequence from `first`, a multiple of the tile's size; rows count from the start
 * of the packed tensors. */
typedef struct {
    int64_t start;  /* row of the sequence's position 0 */
    int64_t length; /* of the sequence */
    int64_t first;
} SeqTile;

/* Rows [0, n) of one head: element (r, d) at p[r * stride + d]. */
typedef struct {
    const float *p;
    int64_t stride;
    int n;
    bool wide;
} HeadRows;

/* Tiles of `size` positions: sequence s owns the slots from starts[s] / size + s up to those of
 * s + 1: never fewer than it has tiles, so a grid needs no look at the lengths. */
static inline int64_t tile_slots(int64_t n_tokens, int64_t n_seqs, int size)
{
    return n_tokens / size + n_seqs;
}

/* The tile in a slot; of an empty slot it begins behind the sequence. */
static __device__ __forceinline__ SeqTile tile_in_slot(const int32_t *starts, int64_t n_seqs,
                                                       int64_t slot, int size)
{
    int64_t lo = 0, hi = n_seqs; /* the sequence is in [lo, hi) */
    while (hi - lo > 1) {
        int64_t mid = (lo + hi) / 2;
        if (starts[mid] / size + mid <= slot)
            lo = mid;
        else
            hi = mid;
    }
    const int64_t start = starts[lo];
    SeqTile t = {start, starts[lo + 1] - start, (slot - (start / size + lo)) * size};
    return t;
}

/* The rows of positions [first, first + KV_TILE) of t's sequence, from column `col`. */
static __device__ __forceinline__ HeadRows head_rows(const float *p, int64_t stride,
                                                     const SeqTile *t, int64_t first, int64_t col,
                                                     bool wide)
{
    HeadRows r = {p + (t->start + first) * stride + col, stride, least(t->length - first, KV_TILE),
                  wide};
    return r;
}

/* Dims [d0, d0 + SLAB_DIMS) of KV_TILE rows, transposed: s[d][place]; absent rows are zero. Place i
 * holds row i, or, spread, row i % 4 * 16 + i / 4: then four neighbours are the rows a lane of 16
 * needs. A warp's lanes are 2 groups of four dims x 16 places: whole sectors of global memory, and
 * with the padding 32 different banks. */
static __device__ __forceinline__ void slab_across(float *s, const HeadRows *x, int64_t d0,
                                                   int64_t D, bool spread, int threads)
{
    const int tid = (int)threadIdx.x, place = tid / 2 % KV_TILE;
    const int d = tid / (2 * KV_TILE) * 8 + tid % 2 * 4, d_step = threads / (2 * KV_TILE) * 8;
    const int r = spread ? place % 4 * 16 + place / 4 : place;
    const int left = r < x->n ? least(D - d0, SLAB_DIMS) - d : 0;
    const float *p = x->p + r * x->stride + d0 + d;
    s += d * TILE_STEP + place;
#pragma unroll
    for (int u = 0; u < SLAB_DIMS; u += d_step)
        store_down(s + u * TILE_STEP, TILE_STEP, fetch4(p + u, left - u, x->wide));
}

/* Columns [c0, c0 + columns) of rows from r0 on, as they lie: s[r][columns], ROW_FLOATS in all;
 * zeros where there is no row or column. */
static __device__ __forceinline__ void slab_along(float *s, const HeadRows *x, int r0, int64_t c0,
                                                  int64_t D, int columns, int threads)
{
    const int tid = (int)threadIdx.x, c = tid % (columns / 4) * 4,
              left = least(D - c0, columns) - c;
    const int r_step = threads / (columns / 4), r = r0 + tid / (columns / 4);
    const float *p = x->p + r * x->stride + c0 + c;
#pragma unroll
    for (int u = 0; u < ROW_FLOATS / columns; u += r_step)
        store4(s + u * columns + tid * 4,
               fetch4(p + u * x->stride, r + u < x->n ? left : 0, x->wide));
}

#endif
