/* vec.h - one vector type, so that a product kernel is written once for every instruction set.
 *
 * vf is __m512, __m256 or, in the plain body, one real_t (VF_LANES = 1): the same chain per lane,
 * so the same bits. Only what product kernels need is here, what attention, softmax and SwiGLU need
 * beside it in vmath.h; other elementwise loops and row reductions are plain C over kmath.h and leave
 * vectors to the compiler. */
#ifndef RLHF_RUNTIME_CPU_VEC_H
#define RLHF_RUNTIME_CPU_VEC_H

#include "common/runtime/cpu/kmath.h"

#if defined(__AVX512F__) && !defined(RLHF_REAL_DOUBLE)
#include <immintrin.h>

#define VF_FLUSH_BY_HAND 0 /* MXCSR flushes denormals when asked (bf16.h) */
enum { VF_LANES = 16 };
typedef __m512 vf;

K_INLINE vf vf_zero(void)
{
    return _mm512_setzero_ps();
}
K_INLINE vf vf_set1(real_t x)
{
    return _mm512_set1_ps(x);
}
K_INLINE vf vf_load(const real_t *p)
{
    return _mm512_loadu_ps(p);
}
K_INLINE void vf_store(real_t *p, vf x)
{
    _mm512_storeu_ps(p, x);
}
K_INLINE void vf_store_past(real_t *p, vf x) /* past the caches; p aligned to a vector */
{
    _mm512_stream_ps(p, x);
}
K_INLINE vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
K_INLINE vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
K_INLINE vf vf_fma(vf a, vf b, vf c) /* a * b + c */
{
    return _mm512_fmadd_ps(a, b, c);
}
/* Of pairs of bf16: the number in the upper (lower) half of each lane, widened. */
K_INLINE vf vf_upper_half(vf a)
{
    const __m512i mask = _mm512_set1_epi32((int)0xffff0000);
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), mask));
}
K_INLINE vf vf_lower_half(vf a)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 16));
}

#elif defined(__AVX2__) && defined(__FMA__) && !defined(RLHF_REAL_DOUBLE)
#include <immintrin.h>

#define VF_FLUSH_BY_HAND 0
enum { VF_LANES = 8 };
typedef __m256 vf;

K_INLINE vf vf_zero(void)
{
    return _mm256_setzero_ps();
}
K_INLINE vf vf_set1(real_t x)
{
    return _mm256_set1_ps(x);
}
K_INLINE vf vf_load(const real_t *p)
{
    return _mm256_loadu_ps(p);
}
K_INLINE void vf_store(real_t *p, vf x)
{
    _mm256_storeu_ps(p, x);
}
K_INLINE void vf_store_past(real_t *p, vf x) /* past the caches; p aligned to a vector */
{
    _mm256_stream_ps(p, x);
}
K_INLINE vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}
K_INLINE vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}
K_INLINE vf vf_fma(vf a, vf b, vf c) /* a * b + c */
{
    return _mm256_fmadd_ps(a, b, c);
}
K_INLINE vf vf_upper_half(vf a)
{
    const __m256i mask = _mm256_set1_epi32((int)0xffff0000);
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(a), mask));
}
K_INLINE vf vf_lower_half(vf a)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 16));
}

#else

#ifdef RLHF_REAL_DOUBLE
#define VF_FLUSH_BY_HAND 0 /* sums of f64 do not get there */
#else
#define VF_FLUSH_BY_HAND 1
#endif
enum { VF_LANES = 1 };
typedef real_t vf;

K_INLINE vf vf_zero(void)
{
    return 0;
}
K_INLINE vf vf_set1(real_t x)
{
    return x;
}
K_INLINE vf vf_load(const real_t *p)
{
    return *p;
}
K_INLINE void vf_store(real_t *p, vf x)
{
    *p = x;
}
K_INLINE void vf_store_past(real_t *p, vf x)
{
    *p = x;
}
K_INLINE vf vf_add(vf a, vf b)
{
    return a + b;
}
K_INLINE vf vf_mul(vf a, vf b)
{
    return a * b;
}
K_INLINE vf vf_fma(vf a, vf b, vf c) /* a * b + c */
{
    return real_fma(a, b, c);
}
K_INLINE vf vf_upper_half(vf a) /* of no use here: weights are widened as they are packed */
{
    return a;
}
K_INLINE vf vf_lower_half(vf a)
{
    return a;
}
#endif

enum { PANEL_VF = PANEL_N / VF_LANES }; /* vectors in one row of a panel */

/* Before others may read what vf_store_past wrote. */
K_INLINE void vf_fence(void)
{
#ifdef __AVX2__
    _mm_sfence();
#endif
}

#endif
