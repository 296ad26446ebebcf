/* vmath.h - k_exp, max and row reductions over vectors vf, with the bits of kmath.h in every lane,
 * for loops that are little else than exponentials.
 *
 * Results that are 0 come from a mask, not from an underflow, for which some processors take a
 * hundred cycles: masked keys and unlikely words are many. Tested by tests/ops/vocab.c over all
 * kinds of exponents and by every op that uses it: the plain body's vf_exp is k_exp. */
#ifndef RLHF_RUNTIME_CPU_VMATH_H
#define RLHF_RUNTIME_CPU_VMATH_H

#include "common/runtime/cpu/vec.h"

/* k_exp of anything below is 0. */
#ifdef RLHF_REAL_DOUBLE
#define K_EXP_LOW (-746.0)
#else
#define K_EXP_LOW (-104.0f)
#endif

/* Loops over a few vectors become straight code, their accumulators registers. */
#ifdef __clang__
#define VF_UNROLL _Pragma("clang loop unroll(full)")
#else
#define VF_UNROLL _Pragma("GCC unroll 16")
#endif

#if defined(__AVX512F__) && !defined(RLHF_REAL_DOUBLE)

typedef __mmask16 vmask;

K_INLINE vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
K_INLINE vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
K_INLINE vf vf_max(vf a, vf b) /* k_max */
{
    return _mm512_max_ps(a, b);
}
K_INLINE vf vf_min(vf a, vf b) /* a < b ? a : b */
{
    return _mm512_min_ps(a, b);
}
K_INLINE vmask vf_not_below(vf a, real_t b) /* NaN is not */
{
    return _mm512_cmp_ps_mask(a, _mm512_set1_ps(b), _CMP_NLT_UQ);
}
K_INLINE vf vf_keep(vmask m, vf x) /* 0 where not m */
{
    return _mm512_maskz_mov_ps(m, x);
}
/* p * 2^k rounded once, 0 where not m; n holds k in its low bits. */
K_INLINE vf vf_scale(vmask m, vf p, vf k, vf n)
{
    (void)n;
    return _mm512_maskz_scalef_ps(m, p, k);
}
K_INLINE void vf_transpose(vf r[VF_LANES])
{
    vf t[VF_LANES];
    VF_UNROLL
    for (int i = 0; i < 16; i += 2) { /* pairs, then fours inside lanes of 128 bits */
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    VF_UNROLL
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    VF_UNROLL
    for (int j = 0; j < 4; j++) { /* then the lanes: a 4 x 4 of them for each j */
        t[j] = _mm512_shuffle_f32x4(r[j], r[4 + j], 0x88);
        t[4 + j] = _mm512_shuffle_f32x4(r[j], r[4 + j], 0xdd);
        t[8 + j] = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0x88);
        t[12 + j] = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0xdd);
    }
    VF_UNROLL
    for (int j = 0; j < 4; j++) {
        r[j] = _mm512_shuffle_f32x4(t[j], t[8 + j], 0x88);
        r[4 + j] = _mm512_shuffle_f32x4(t[4 + j], t[12 + j], 0x88);
        r[8 + j] = _mm512_shuffle_f32x4(t[j], t[8 + j], 0xdd);
        r[12 + j] = _mm512_shuffle_f32x4(t[4 + j], t[12 + j], 0xdd);
    }
}

#elif defined(__AVX2__) && defined(__FMA__) && !defined(RLHF_REAL_DOUBLE)

typedef __m256 vmask;

K_INLINE vf vf_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}
K_INLINE vf vf_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}
K_INLINE vf vf_max(vf a, vf b) /* k_max */
{
    return _mm256_max_ps(a, b);
}
K_INLINE vf vf_min(vf a, vf b) /* a < b ? a : b */
{
    return _mm256_min_ps(a, b);
}
K_INLINE vmask vf_not_below(vf a, real_t b) /* NaN is not */
{
    return _mm256_cmp_ps(a, _mm256_set1_ps(b), _CMP_NLT_UQ);
}
K_INLINE vf vf_keep(vmask m, vf x) /* 0 where not m */
{
    return _mm256_and_ps(m, x);
}
K_INLINE vf vf_power_of_2(__m256i k)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(k, _mm256_set1_epi32(127)), 23));
}
/* p * 2^k rounded once, 0 where not m; n holds k in its low bits. Two factors, since 2^k may not be
 * a normal number. */
K_INLINE vf vf_scale(vmask m, vf p, vf k, vf n)
{
    (void)k;
    const __m256i whole = _mm256_srai_epi32(_mm256_slli_epi32(_mm256_castps_si256(n), 10), 10);
    const __m256i half = _mm256_srai_epi32(whole, 1);
    const vf e = vf_mul(p, vf_power_of_2(half));
    return vf_keep(m, vf_mul(e, vf_power_of_2(_mm256_sub_epi32(whole, half))));
}

K_INLINE void vf_transpose(vf r[VF_LANES])
{
    vf t[VF_LANES];
    VF_UNROLL
    for (int i = 0; i < 8; i += 2) { /* pairs, then fours inside lanes of 128 bits */
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    VF_UNROLL
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    VF_UNROLL
    for (int j = 0; j < 4; j++) {
        t[j] = _mm256_permute2f128_ps(r[j], r[4 + j], 0x20);
        t[4 + j] = _mm256_permute2f128_ps(r[j], r[4 + j], 0x31);
    }
    VF_UNROLL
    for (int j = 0; j < 8; j++)
        r[j] = t[j];
}

#else

K_INLINE void vf_transpose(vf r[VF_LANES])
{
    (void)r;
}
K_INLINE vf vf_sub(vf a, vf b)
{
    return a - b;
}
K_INLINE vf vf_div(vf a, vf b)
{
    return a / b;
}
K_INLINE vf vf_max(vf a, vf b)
{
    return k_max(a, b);
}
K_INLINE vf vf_exp(vf x)
{
    return k_exp(x);
}
#define VF_EXP_IS_K_EXP
#endif

#ifndef VF_EXP_IS_K_EXP
K_INLINE vf vf_exp(vf x)
{
    const vf magic = vf_set1(0x1.8p23f);
    const vmask some = vf_not_below(x, K_EXP_LOW);
    x = vf_keep(some, vf_min(vf_set1(90.0f), x));
    const vf n = vf_fma(x, vf_set1(0x1.715476p+0f), magic), k = vf_sub(n, magic);
    vf r = vf_fma(k, vf_set1(-0x1.62e430p-1f), x);
    r = vf_fma(k, vf_set1(0x1.05c610p-29f), r);
    vf q = vf_fma(vf_set1(0x1.6a2430p-10f), r, vf_set1(0x1.1239e4p-7f));
    q = vf_fma(q, r, vf_set1(0x1.5558f2p-5f));
    q = vf_fma(q, r, vf_set1(0x1.555492p-3f));
    q = vf_fma(q, r, vf_set1(0x1.fffffcp-2f));
    const vf p = vf_add(vf_fma(vf_mul(r, r), q, r), vf_set1(1));
    return vf_scale(some, p, k, n);
}
#endif

/* k_sigmoid: e^-80 added to 1 is as good as the denormals further down, which take long. */
K_INLINE vf vf_sigmoid(vf x)
{
    const vf one = vf_set1(1), e = vf_exp(vf_max(vf_set1(-80), vf_sub(vf_zero(), x)));
    return vf_div(one, vf_add(one, e));
}

/* dst[c * dst_row + r] = src[r * src_row + c] for VF_LANES rows and columns; rows from n on count
 * as 0 and are not read. */
K_INLINE void block_transpose(real_t *dst, int64_t dst_row, const real_t *src, int64_t src_row,
                              int64_t n)
{
    vf r[VF_LANES];
    VF_UNROLL
    for (int i = 0; i < VF_LANES; i++)
        r[i] = i < n ? vf_load(src + i * src_row) : vf_zero();
    vf_transpose(r);
    VF_UNROLL
    for (int i = 0; i < VF_LANES; i++)
        vf_store(dst + i * dst_row, r[i]);
}

/* ---- row reductions: lane l of a[v] is accumulator v * VF_LANES + l of kmath.h
 * -------------------- */

enum { SUM_VF = SUM_LANES / VF_LANES };

/* The trees of kmath.h, written out: with a loop over the widths gcc keeps every level a loop of
 * its own, which costs a row of 32 keys more than its exponentials. */
K_INLINE real_t tree_sum(real_t a[SUM_LANES])
{
    for (int j = 0; j < 16; j++)
        a[j] += a[j + 16];
    for (int j = 0; j < 8; j++)
        a[j] += a[j + 8];
    return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}
K_INLINE real_t tree_max(real_t a[SUM_LANES])
{
    for (int j = 0; j < 16; j++)
        a[j] = k_max(a[j + 16], a[j]);
    for (int j = 0; j < 8; j++)
        a[j] = k_max(a[j + 8], a[j]);
    return k_max(k_max(k_max(a[7], a[3]), k_max(a[5], a[1])),
                 k_max(k_max(a[6], a[2]), k_max(a[4], a[0])));
}
/* Row i's accumulators r[i][v] end in lane i of the result: all rows climb their trees together. */
K_INLINE vf rows_tree_sum(vf r[VF_LANES][SUM_VF])
{
    vf one[VF_LANES];
    VF_UNROLL
    for (int i = 0; i < VF_LANES; i++) {
        VF_UNROLL
        for (int w = SUM_VF / 2; w > 0; w /= 2) {
            VF_UNROLL
            for (int v = 0; v < w; v++)
                r[i][v] = vf_add(r[i][v], r[i][v + w]);
        }
        one[i] = r[i][0];
    }
    vf_transpose(one);
    VF_UNROLL
    for (int w = VF_LANES / 2; w > 0; w /= 2) {
        VF_UNROLL
        for (int j = 0; j < w; j++)
            one[j] = vf_add(one[j], one[j + w]);
    }
    return one[0];
}
K_INLINE vf rows_tree_max(vf r[VF_LANES][SUM_VF])
{
    vf one[VF_LANES];
    VF_UNROLL
    for (int i = 0; i < VF_LANES; i++) {
        VF_UNROLL
        for (int w = SUM_VF / 2; w > 0; w /= 2) {
            VF_UNROLL
            for (int v = 0; v < w; v++)
                r[i][v] = vf_max(r[i][v + w], r[i][v]);
        }
        one[i] = r[i][0];
    }
    vf_transpose(one);
    VF_UNROLL
    for (int w = VF_LANES / 2; w > 0; w /= 2) {
        VF_UNROLL
        for (int j = 0; j < w; j++)
            one[j] = vf_max(one[j + w], one[j]);
    }
    return one[0];
}
K_INLINE real_t vf_tree_sum(const vf a[SUM_VF])
{
    real_t lane[SUM_LANES];
    VF_UNROLL
    for (int v = 0; v < SUM_VF; v++)
        vf_store(lane + v * VF_LANES, a[v]);
    return tree_sum(lane);
}
K_INLINE real_t vf_tree_max(const vf a[SUM_VF])
{
    real_t lane[SUM_LANES];
    VF_UNROLL
    for (int v = 0; v < SUM_VF; v++)
        vf_store(lane + v * VF_LANES, a[v]);
    return tree_max(lane);
}

#endif
