/* kmath.h - the arithmetic every body shares: fma, exp, log, sigmoid and the row reductions.
 *
 * One written order and one polynomial for all instruction sets (runtime/README.md, "exact mode"),
 * so that bodies are compared by memcmp. Everything is branch-free C over real_t with explicit fma:
 * the compiler turns loops over these functions into vectors, and since no step may be
 * re-associated or contracted, the number of lanes cannot change a bit. Never write -fma(a, b, c):
 * gcc makes it fnmsub where there is one, which differs in the sign of a zero; negate operands.
 * exp and log call libm in the double build alone. Tested by tests/unit/test_runtime.c against
 * libm, and by every op's test.
 */
#ifndef RLHF_RUNTIME_CPU_KMATH_H
#define RLHF_RUNTIME_CPU_KMATH_H

#include "common/runtime/tensor.h"

#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__ /* kernels use the same functions; fma, sqrt and division are IEEE's there too */
#define K_INLINE static __device__ __forceinline__
#else
#define K_INLINE static inline __attribute__((always_inline, unused))
#endif

/* The next loop's iterations touch different elements even when pointers are equal (an op that
 * allows y = x): lets the compiler vectorise without asking whether they overlap. */
#if defined(RLHF_REAL_DOUBLE)
#define K_INDEPENDENT /* libm's exp has no vectors, and clang warns of the promise not kept */
#elif defined(__clang__)
#define K_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define K_INDEPENDENT _Pragma("GCC ivdep")
#endif

#ifdef RLHF_REAL_DOUBLE
#include <math.h>

#define K_INF __builtin_inf()
K_INLINE real_t real_fma(real_t a, real_t b, real_t c)
{
    return __builtin_fma(a, b, c);
}
K_INLINE real_t k_sqrt(real_t x)
{
    return __builtin_sqrt(x);
}
K_INLINE real_t k_exp(real_t x)
{
    return exp(x);
}
K_INLINE real_t k_log(real_t x)
{
    return log(x);
}

#else
#ifdef __CUDACC__
#define K_INF       __int_as_float(0x7f800000)
#define K_FMA       fmaf
#define K_SQRT      sqrtf
#else
#define K_INF       __builtin_inff()
#define K_FMA       __builtin_fmaf
#define K_SQRT      __builtin_sqrtf
#endif

K_INLINE uint32_t k_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}
K_INLINE float k_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}
/* a * b + c, rounded once. */
K_INLINE real_t real_fma(real_t a, real_t b, real_t c)
{
    return K_FMA(a, b, c);
}
K_INLINE real_t k_sqrt(real_t x)
{
    return K_SQRT(x);
}

/* e^x within 1 ulp. exp(0) = 1, exp(-inf) = 0, denormal results are rounded once, overflow is inf,
 * NaN stays NaN. x = k ln 2 + r; e^r = 1 + r + r^2 q(r), q minimax on |r| <= ln 2 / 2 (relative
 * error 2^-28); 2^k is applied as two normal factors so that the last product rounds into
 * denormals. */
K_INLINE real_t k_exp(real_t x)
{
    x = x < -105.0f ? -105.0f : x; /* both comparisons are false for NaN */
    x = x > 90.0f ? 90.0f : x;
    const float magic = 0x1.8p23f; /* adding it rounds to an integer, kept in the low bits */
    float n = real_fma(x, 0x1.715476p+0f, magic);
    float k = n - magic;
    float r = real_fma(k, -0x1.62e430p-1f, x);
    r = real_fma(k, 0x1.05c610p-29f, r);
    float q = 0x1.6a2430p-10f;
    q = real_fma(q, r, 0x1.1239e4p-7f);
    q = real_fma(q, r, 0x1.5558f2p-5f);
    q = real_fma(q, r, 0x1.555492p-3f);
    q = real_fma(q, r, 0x1.fffffcp-2f);
    float p = real_fma(r * r, q, r) + 1.0f;
    /* k + 256 > 0, so halving it is a shift for every sign of k */
    uint32_t k256 = k_bits(n) - k_bits(magic) + 256;
    uint32_t half = k256 >> 1;
    return p * k_float((half - 128 + 127) << 23) * k_float((k256 - half - 128 + 127) << 23);
}

/* ln x within 1 ulp. log(1) = 0, log(0) = -inf, log(inf) = inf, x < 0 and NaN give NaN; denormals
 * are right. x = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)); ln(1 + f) = f - f^2/2 + f^3 P(f),
 * P minimax (relative error 2^-30). */
K_INLINE real_t k_log(real_t x)
{
    float y = x < 0x1p-126f ? x * 0x1p23f : x;
    float k0 = x < 0x1p-126f ? -23.0f : 0.0f;
    uint32_t u = k_bits(y) + (0x3f800000u - 0x3f3504f3u);
    float k = (float)((int32_t)(u >> 23) - 127) + k0;
    float f = k_float((u & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    float p = 0x1.145750p-4f;
    p = real_fma(p, f, -0x1.de3c18p-4f);
    p = real_fma(p, f, 0x1.e6f096p-4f);
    p = real_fma(p, f, -0x1.fc220ap-4f);
    p = real_fma(p, f, 0x1.233766p-3f);
    p = real_fma(p, f, -0x1.555c4ep-3f);
    p = real_fma(p, f, 0x1.99a4b6p-3f);
    p = real_fma(p, f, -0x1.000006p-2f);
    p = real_fma(p, f, 0x1.555548p-2f);
    float f2 = f * f;
    float t = real_fma(k, -0x1.bd0106p-13f, f2 * f * p); /* ln 2 = 0x1.63p-1 - 0x1.bd0106p-13 */
    t = real_fma(f2, -0.5f, t);
    float r = real_fma(k, 0x1.63p-1f, f + t);
    r = x > 0.0f ? r : (x == 0.0f ? -K_INF : K_INF - K_INF);
    r = x == K_INF ? x : r;
    return x != x ? x : r;
}
#endif

/* 1 / (1 + e^-x). */
K_INLINE real_t k_sigmoid(real_t x)
{
    return (real_t)1 / ((real_t)1 + k_exp(-x));
}
/* -log sigmoid(x) = log(1 + e^-|x|) - min(x, 0). */
K_INLINE real_t k_neg_log_sigmoid(real_t x)
{
    real_t low = x < 0 ? x : (real_t)0;
    real_t mag = x < 0 ? x : -x;
    return k_log((real_t)1 + k_exp(mag)) - low;
}
/* a > b ? a : b: the vector instructions' rule, NaN in a gives b. */
K_INLINE real_t k_max(real_t a, real_t b)
{
    return a > b ? a : b;
}

/* ---- row reductions: element i goes to lane i % SUM_LANES ascending, then the tree 16, 8, 4,
 * 2, 1.
 *
 *     real_t a[SUM_LANES];
 *     sum_init(a);  then SUM_EACH(i, n, a, real_fma(x[i], y[i], a_i))  then sum_tree(a)
 */

K_INLINE void sum_init(real_t a[SUM_LANES])
{
    for (int j = 0; j < SUM_LANES; j++)
        a[j] = 0;
}
K_INLINE real_t sum_tree(real_t a[SUM_LANES])
{
    for (int w = SUM_LANES / 2; w > 0; w /= 2)
        for (int j = 0; j < w; j++)
            a[j] += a[j + w];
    return a[0];
}

/* For i in 0..n ascending: a[i % SUM_LANES] = expr, where expr may use i and `acc`, the old value.
 */
#define SUM_EACH(i, n, a, expr)                                                                    \
    do {                                                                                           \
        int64_t sum_n_ = (n), sum_i_ = 0;                                                          \
        for (; sum_i_ + SUM_LANES <= sum_n_; sum_i_ += SUM_LANES)                                  \
            for (int sum_j_ = 0; sum_j_ < SUM_LANES; sum_j_++) {                                   \
                int64_t i = sum_i_ + sum_j_;                                                       \
                real_t acc = (a)[sum_j_];                                                          \
                (a)[sum_j_] = (expr);                                                              \
            }                                                                                      \
        for (int sum_j_ = 0; sum_i_ + sum_j_ < sum_n_; sum_j_++) {                                 \
            int64_t i = sum_i_ + sum_j_;                                                           \
            real_t acc = (a)[sum_j_];                                                              \
            (a)[sum_j_] = (expr);                                                                  \
        }                                                                                          \
    } while (0)

K_INLINE real_t row_sum(const real_t *x, int64_t n)
{
    real_t a[SUM_LANES];
    sum_init(a);
    SUM_EACH(i, n, a, acc + x[i]);
    return sum_tree(a);
}
/* sum of x[i] * y[i], each lane an fma chain. */
K_INLINE real_t row_dot(const real_t *x, const real_t *y, int64_t n)
{
    real_t a[SUM_LANES];
    sum_init(a);
    SUM_EACH(i, n, a, real_fma(x[i], y[i], acc));
    return sum_tree(a);
}
/* Largest element, -inf for an empty row. NaN elements are passed over. */
K_INLINE real_t row_max(const real_t *x, int64_t n)
{
    real_t a[SUM_LANES];
    for (int j = 0; j < SUM_LANES; j++)
        a[j] = -K_INF;
    SUM_EACH(i, n, a, k_max(x[i], acc));
    for (int w = SUM_LANES / 2; w > 0; w /= 2)
        for (int j = 0; j < w; j++)
            a[j] = k_max(a[j + w], a[j]);
    return a[0];
}

#endif
