/* attention.h - what the two attention files share: the FMA chain over rows, the key tile with
 * lanes along keys, and the sharing out of unequal work.
 *
 * Every product of attention (scores, weights times values, and the four of the backward pass) is
 *     c[r][x] = FMA chain over k in [lo_r, hi_r) ascending of a[r, k] * b[k][x], from c[r][x] or +0
 * and is computed by chain_rows alone, with lanes along x and a block of rows in registers. Lanes
 * and blocks only choose which chains run side by side, never the order inside one. */
#ifndef RLHF_RUNTIME_CPU_ATTENTION_H
#define RLHF_RUNTIME_CPU_ATTENTION_H

#include "common/runtime/cpu/vmath.h"

#include <stdbool.h>

typedef struct {
    real_t *c; /* c[r * c_row + x] */
    int64_t c_row;
    const real_t *a; /* a[r * a_row + k * a_step] */
    int64_t a_row, a_step;
    const real_t *b; /* b[k * b_row + x] */
    int64_t b_row;
    int64_t ahead;   /* elements from b to what is read next: few rows ask for it in time */
    int64_t n;       /* lanes x */
    bool accumulate; /* chains start from c, else from +0 */
} Chain;

/* Rows in registers: 2 vectors of accumulators a row fill half of the register file. */
enum { ROW_BLOCK = VF_LANES == 16 ? 8 : 4 };

/* One key of one row. */
K_INLINE void chain_step(int V, vf *acc, real_t w, const real_t *b)
{
    VF_UNROLL
    for (int v = 0; v < V; v++)
        acc[v] = vf_fma(vf_set1(w), vf_load(b + v * VF_LANES), acc[v]);
}

/* R rows by V vectors at lane x. All rows run together over the keys [joint_lo, joint_hi) they
 * share; before and after, each by itself. R and V are constants at every call. */
K_INLINE void chain_block(int R, int V, const Chain *ch, int64_t row, int64_t x, const int64_t *lo,
                          const int64_t *hi, int64_t joint_lo, int64_t joint_hi)
{
    vf acc[8][4];
    real_t *c = ch->c + row * ch->c_row + x;
    const real_t *a = ch->a + row * ch->a_row, *b = ch->b + x;
    const int64_t a_row = ch->a_row, a_step = ch->a_step, b_row = ch->b_row;
    VF_UNROLL
    for (int r = 0; r < R; r++) {
        VF_UNROLL
        for (int v = 0; v < V; v++)
            acc[r][v] = ch->accumulate ? vf_load(c + r * ch->c_row + v * VF_LANES) : vf_zero();
    }
    for (int64_t k = lo[0]; k < joint_lo; k++) {
        VF_UNROLL
        for (int r = 0; r < R; r++)
            if (lo[r] <= k)
                chain_step(V, acc[r], a[r * a_row + k * a_step], b + k * b_row);
    }
    for (int64_t k = joint_lo; k < joint_hi; k++) {
        vf bk[4];
        VF_UNROLL
        for (int v = 0; v < V; v++) {
            bk[v] = vf_load(b + k * b_row + v * VF_LANES);
            if (R < 4)
                __builtin_prefetch(b + k * b_row + v * VF_LANES + ch->ahead, 0, 2);
        }
        VF_UNROLL
        for (int r = 0; r < R; r++) {
            vf w = vf_set1(a[r * a_row + k * a_step]);
            VF_UNROLL
            for (int v = 0; v < V; v++)
                acc[r][v] = vf_fma(w, bk[v], acc[r][v]);
        }
    }
    for (int64_t k = joint_hi; k < hi[R - 1]; k++) {
        VF_UNROLL
        for (int r = 0; r < R; r++)
            if (k < hi[r])
                chain_step(V, acc[r], a[r * a_row + k * a_step], b + k * b_row);
    }
    VF_UNROLL
    for (int r = 0; r < R; r++) {
        VF_UNROLL
        for (int v = 0; v < V; v++)
            vf_store(c + r * ch->c_row + v * VF_LANES, acc[r][v]);
    }
}

/* The lanes [x, n) that do not fill a vector. */
K_INLINE void chain_tail(const Chain *ch, int64_t row, int64_t x, int64_t lo, int64_t hi)
{
    real_t acc[VF_LANES];
    const int64_t n = ch->n - x;
    real_t *c = ch->c + row * ch->c_row + x;
    for (int64_t i = 0; i < n; i++)
        acc[i] = ch->accumulate ? c[i] : 0;
    for (int64_t k = lo; k < hi; k++) {
        const real_t w = ch->a[row * ch->a_row + k * ch->a_step];
        const real_t *b = ch->b + k * ch->b_row + x;
        for (int64_t i = 0; i < n; i++)
            acc[i] = real_fma(w, b[i], acc[i]);
    }
    for (int64_t i = 0; i < n; i++)
        c[i] = acc[i];
}

K_INLINE void chain_strip(int R, const Chain *ch, int64_t row, const int64_t *lo, const int64_t *hi)
{
    int64_t joint_lo = lo[0], joint_hi = hi[0], x = 0;
    for (int r = 1; r < R; r++) {
        joint_lo = lo[r] > joint_lo ? lo[r] : joint_lo;
        joint_hi = hi[r] < joint_hi ? hi[r] : joint_hi;
    }
    joint_hi = joint_hi > joint_lo ? joint_hi : joint_lo;
    if (R * 4 <= 2 * ROW_BLOCK)
        for (; x + 4 * VF_LANES <= ch->n; x += 4 * VF_LANES)
            chain_block(R, 4, ch, row, x, lo, hi, joint_lo, joint_hi);
    for (; x + 2 * VF_LANES <= ch->n; x += 2 * VF_LANES)
        chain_block(R, 2, ch, row, x, lo, hi, joint_lo, joint_hi);
    for (; x + VF_LANES <= ch->n; x += VF_LANES)
        chain_block(R, 1, ch, row, x, lo, hi, joint_lo, joint_hi);
    if (x < ch->n)
        for (int r = 0; r < R; r++)
            chain_tail(ch, row + r, x, lo[r], hi[r]);
}

/* Rows [0, n_rows) of the chain; row r runs over k in [lo[r], hi[r]), lo <= hi. */
static void chain_rows(const Chain *ch, int64_t n_rows, const int64_t *lo, const int64_t *hi)
{
    int64_t r = 0;
    for (; r + ROW_BLOCK <= n_rows; r += ROW_BLOCK)
        chain_strip(ROW_BLOCK, ch, r, lo + r, hi + r);
    for (; r + 4 <= n_rows; r += 4)
        chain_strip(4, ch, r, lo + r, hi + r);
    if (n_rows - r == 3)
        chain_strip(3, ch, r, lo + r, hi + r);
    else if (n_rows - r == 2)
        chain_strip(2, ch, r, lo + r, hi + r);
    else if (n_rows - r == 1)
        chain_strip(1, ch, r, lo + r, hi + r);
}

/* Lanes that a tile of n <= KV_TILE keys needs: whole row reductions. */
K_INLINE int64_t tile_width(int64_t n)
{
    return n > SUM_LANES ? KV_TILE : SUM_LANES;
}

/* dst (D, KV_TILE) = the n rows of src (n, D), transposed; lanes n .. tile_width(n) become 0. */
static inline void tile_transpose(real_t *restrict dst, const real_t *restrict src, int64_t stride,
                                  int64_t n, int64_t D)
{
    const int64_t whole = D / VF_LANES * VF_LANES, width = tile_width(n);
    for (int64_t j = 0; j < width; j += VF_LANES)
        for (int64_t d = 0; d < whole; d += VF_LANES)
            block_transpose(dst + d * KV_TILE + j, KV_TILE, src + j * stride + d, stride, n - j);
    for (int64_t d = whole; d < D; d++)
        for (int64_t j = 0; j < width; j++)
            dst[d * KV_TILE + j] = j < n ? src[j * stride + d] : 0;
}

/* Every part walks all units of work in the same order and takes those whose middle lies in its
 * stretch of the summed cost. */
typedef struct {
    int64_t done, total;
    int part, n_parts;
} Share;

K_INLINE bool share_takes(Share *s, int64_t cost)
{
    int64_t middle = s->done + cost / 2;
    s->done += cost;
    return middle * s->n_parts / s->total == s->part;
}

/* Query-key pairs of queries at positions [from, to). */
K_INLINE int64_t causal_pairs(int64_t from, int64_t to)
{
    return (to * (to + 1) - from * (from + 1)) / 2;
}

#endif
