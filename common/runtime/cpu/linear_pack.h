/* linear_pack.h - operands as the tile of linear_tile.h wants them: blocks of rows copied,
 * transposed, rounded to bf16 and widened again, or put together in pairs, the earlier in the upper
 * half, which is the one the instruction adds first. For linear.c alone. */
#ifndef RLHF_RUNTIME_CPU_LINEAR_PACK_H
#define RLHF_RUNTIME_CPU_LINEAR_PACK_H

#include "common/runtime/cpu/linear_tile.h"

/* Elements of a chain in one step of the tile, and steps of a chain of n. */
K_INLINE int64_t step_elements(bool bf16)
{
    return bf16 && PAIRS ? 2 : 1;
}

K_INLINE int64_t steps_of(bool bf16, int64_t n)
{
    return (n + step_elements(bf16) - 1) / step_elements(bf16);
}

K_INLINE real_t pair_of(uint16_t first, uint16_t second)
{
    uint32_t u = (uint32_t)first << 16 | second;
    real_t x = 0;
    memcpy(&x, &u, sizeof u);
    return x;
}

enum { MINUS_ZERO = 0x8000 }; /* bf16; a missing element of a: its product changes no sum */

/* dst[j] = src[j] in the form of a chain along j. */
K_INLINE void pack_row(real_t *dst, const real_t *src, int64_t n, bool bf16)
{
    if (!bf16) {
        memcpy(dst, src, (size_t)n * sizeof *dst);
    } else if (!PAIRS) {
        for (int64_t j = 0; j < n; j++)
            dst[j] = bf16_round(src[j]);
        if (n % 2)
            dst[n] = bf16_value(MINUS_ZERO); /* of a pair that the tile widens */
    } else {
        for (int64_t j = 0; j < n / 2; j++)
            dst[j] = pair_of(bf16_bits(src[2 * j]), bf16_bits(src[2 * j + 1]));
        if (n % 2)
            dst[n / 2] = pair_of(bf16_bits(src[n - 1]), MINUS_ZERO);
    }
}

/* dst[i] = src[i], or where steps are pairs those of src and of `next` (NULL: missing), for n
 * elements that lie across the chain; missing: the bits in place of a missing element. */
K_INLINE void pack_across(real_t *dst, const real_t *src, const real_t *next, int64_t n, bool bf16,
                          uint16_t missing)
{
    if (!bf16) {
        memcpy(dst, src, (size_t)n * sizeof *dst);
    } else if (!PAIRS) {
        for (int64_t i = 0; i < n; i++)
            dst[i] = bf16_round(src[i]);
    } else {
        for (int64_t i = 0; i < n; i++)
            dst[i] = pair_of(bf16_bits(src[i]), next ? bf16_bits(next[i]) : missing);
    }
}

/* a along j: rows [row, row + n_rows) x columns [col, col + n_cols), row after row. */
static void pack_rows(real_t *dst, const Tensor *src, int64_t row, int64_t n_rows, int64_t col,
                      int64_t n_cols, bool bf16)
{
    const real_t *x = real_data(src) + row * src->stride + col;
    for (int64_t i = 0; i < n_rows; i++)
        pack_row(dst + i * A_ROW, x + i * src->stride, n_cols, bf16);
}

/* a along i: row tiles are columns of src, steps its rows, [tile][step][ROWS_MAX]. */
static void pack_columns(real_t *dst, const Tensor *src, int64_t row, int64_t n_rows, int64_t col,
                         int64_t n_cols, bool bf16)
{
    const int64_t each = step_elements(bf16), stride = src->stride, rest = n_cols % ROWS_MAX;
    const int64_t to_next_tile = steps_of(bf16, n_rows) * ROWS_MAX;
    real_t line[ROWS_FIT];
    for (int64_t j = 0; j < n_rows; j += each, dst += ROWS_MAX) {
        const real_t *x = real_data(src) + (row + j) * stride + col;
        real_t *to = dst;
        if (bf16) { /* all at once: the compiler makes vectors of long loops */
            pack_across(line, x, j + 1 < n_rows ? x + stride : NULL, n_cols, true, MINUS_ZERO);
            x = line;
        }
        for (int64_t i = 0; i + ROWS_MAX <= n_cols; i += ROWS_MAX, to += to_next_tile)
            memcpy(to, x + i, ROWS_MAX * sizeof *to);
        memcpy(to, x + n_cols - rest, (size_t)rest * sizeof *to);
    }
}

/* b of dw: rows of src are steps, `lanes` of its columns from col on lanes; the others are zero. */
static void pack_lanes(real_t *dst, const Tensor *src, int64_t row, int64_t n_rows, int64_t col,
                       int64_t lanes, bool bf16)
{
    const int64_t each = step_elements(bf16), stride = src->stride;
    for (int64_t j = 0; j < n_rows; j += each, dst += PANEL_N) {
        const real_t *x = real_data(src) + (row + j) * stride + col;
        const real_t *next = j + 1 < n_rows ? x + stride : NULL;
        if (lanes == PANEL_N) { /* a constant: vectors */
            pack_across(dst, x, next, PANEL_N, bf16, 0);
            continue;
        }
        pack_across(dst, x, next, lanes, bf16, 0);
        memset(dst + lanes, 0, (size_t)(PANEL_N - lanes) * sizeof *dst);
    }
}

/* ---- weights ------------------------------------------------------------------------------------
 */

typedef uint32_t __attribute__((may_alias)) Word; /* an f32, or a pair of bf16 */

/* Rows of PANEL_N words of one panel. */
K_INLINE int64_t panel_rows(const Tensor *w)
{
    return w->dtype == DTYPE_BF16 ? (w->dim[1] + 1) / 2 : w->dim[1];
}

/* b of y: steps [from, from + n_j) of a bf16 panel, widened. */
static void widen_panel(real_t *dst, const Tensor *w, int64_t panel, int64_t from, int64_t n_j)
{
    const Word *src = (const Word *)w->data + panel * panel_rows(w) * PANEL_N + from / 2 * PANEL_N;
    for (int64_t j = 0; j < n_j; j += 2, src += PANEL_N, dst += 2 * PANEL_N) {
        for (int l = 0; l < PANEL_N; l++)
            dst[l] = bf16_value((uint16_t)(src[l] >> 16));
        for (int l = 0; l < PANEL_N; l++)
            dst[PANEL_N + l] = bf16_value((uint16_t)src[l]);
    }
}

/* dst[i][l] = src[l][i]; rows of src are PANEL_N apart, those of dst n_l; n_i, n_l multiples of 8.
 */
K_INLINE void transpose(Word *dst, const Word *src, int n_i, int n_l)
{
#ifdef __AVX__
    for (int l = 0; l < n_l; l += 8)
        for (int i = 0; i < n_i; i += 8) {
            __m256 r[8], s[8];
            const float *from = (const float *)src + l * PANEL_N + i;
            for (int q = 0; q < 4; q++) /* r[q]: columns 0..3 of rows q and q + 4; r[q + 4]: 4..7 */
                for (int h = 0; h < 8; h += 4)
                    r[q + h] = _mm256_insertf128_ps(
                        _mm256_castps128_ps256(_mm_loadu_ps(from + q * PANEL_N + h)),
                        _mm_loadu_ps(from + (q + 4) * PANEL_N + h), 1);
            for (int h = 0; h < 8; h += 4) {
                __m256 a = _mm256_unpacklo_ps(r[h], r[h + 1]),
                       b = _mm256_unpackhi_ps(r[h], r[h + 1]);
                __m256 c = _mm256_unpacklo_ps(r[h + 2], r[h + 3]);
                __m256 d = _mm256_unpackhi_ps(r[h + 2], r[h + 3]);
                s[h] = _mm256_shuffle_ps(a, c, 0x44);
                s[h + 1] = _mm256_shuffle_ps(a, c, 0xee);
                s[h + 2] = _mm256_shuffle_ps(b, d, 0x44);
                s[h + 3] = _mm256_shuffle_ps(b, d, 0xee);
            }
            for (int q = 0; q < 8; q++)
                _mm256_storeu_ps((float *)dst + (i + q) * n_l + l, s[q]);
        }
#else
    for (int i = 0; i < n_i; i++)
        for (int l = 0; l < n_l; l++)
            dst[i * n_l + l] = src[l * PANEL_N + i];
#endif
}

/* PANEL_N elements of k (lanes) of PANEL_N elements of n (the chain), of a bf16 panel. */
static void transpose_bf16(real_t *dst, const Word *src)
{
    enum { HALF = PANEL_N / 2 };
    Word t[PANEL_N][HALF]; /* [n][pair of k] */
    transpose(t[0], src, PANEL_N, HALF);
    for (int n = 0; n < PANEL_N && !PAIRS; n++)
        for (int l = 0; l < HALF; l++) {
            dst[n * PANEL_N + 2 * l] = bf16_value((uint16_t)(t[n][l] >> 16));
            dst[n * PANEL_N + 2 * l + 1] = bf16_value((uint16_t)t[n][l]);
        }
    for (int n = 0; n < PANEL_N && PAIRS; n += 2)
        for (int l = 0; l < HALF; l++) {
            Word a = t[n][l], b = t[n + 1][l];
            ((Word *)dst)[n / 2 * PANEL_N + 2 * l] = (a & 0xffff0000) | b >> 16;
            ((Word *)dst)[n / 2 * PANEL_N + 2 * l + 1] = a << 16 | (b & 0xffff);
        }
}

static void transpose_real(real_t *dst, const real_t *src)
{
#ifdef RLHF_REAL_DOUBLE
    for (int i = 0; i < PANEL_N; i++)
        for (int l = 0; l < PANEL_N; l++)
            dst[i * PANEL_N + l] = src[l * PANEL_N + i];
#else
    transpose((Word *)dst, (const Word *)src, PANEL_N, PANEL_N);
#endif
}

/* b of dx: lanes [k0, k0 + PANEL_N) of chain elements [n0, n0 + n_n), n0 a multiple of PANEL_N: a
 * panel of the transposed weight. Lanes beyond K are zero, and dst has room for whole panels of n.
 */
static void pack_transposed(real_t *dst, const Tensor *w, int64_t n0, int64_t n_n, int64_t k0)
{
    const bool bf16 = w->dtype == DTYPE_BF16;
    const size_t size = bf16 ? sizeof(Word) : sizeof(real_t);
    const int64_t rows = panel_rows(w), row = bf16 ? k0 / 2 : k0,
                  want = bf16 ? PANEL_N / 2 : PANEL_N;
    for (int64_t n = 0; n < n_n; n += PANEL_N) {
        real_t block[PANEL_N * PANEL_N];
        const void *src = (char *)w->data + (size_t)((n0 + n) * rows + row * PANEL_N) * size;
        if (rows - row < want) {
            memset(block, 0, sizeof block);
            memcpy(block, src, (size_t)(rows - row) * PANEL_N * size);
            src = block;
        }
        if (bf16)
            transpose_bf16(dst + n / step_elements(true) * PANEL_N, src);
        else
            transpose_real(dst + n * PANEL_N, src);
    }
}

#endif
