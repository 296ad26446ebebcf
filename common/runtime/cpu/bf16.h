/* bf16.h - what a product with bf16 operands does to them and to its sums, so that all bodies agree
 * with the instruction VDPBF16PS: operands are rounded to nearest even, every product is exact and
 * added with one rounding, and denormal operands and sums count as zero of their sign.
 *
 * Bodies with vector registers let the processor flush (Bf16Scope: MXCSR, for this kernel alone);
 * the plain body does it by hand, which defines the arithmetic. Tested by tests/ops/linear.c, also
 * against the instruction. */
#ifndef RLHF_RUNTIME_CPU_BF16_H
#define RLHF_RUNTIME_CPU_BF16_H

#include "common/runtime/bf16.h"
#include "common/runtime/cpu/vec.h"

/* The bits of x rounded to bf16; a NaN stays one. */
K_INLINE uint16_t bf16_bits(real_t x)
{
    return bf16_of_f32((float)x);
}

K_INLINE real_t bf16_value(uint16_t bits)
{
    return (real_t)f32_of_bf16(bits);
}

K_INLINE real_t bf16_round(real_t x)
{
    return bf16_value(bf16_bits(x));
}

#if VF_FLUSH_BY_HAND
K_INLINE float bf16_zero_denormal(float x)
{
    return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0, x) : x;
}

/* a * b + c with a, b of bf16. A sum counts as denormal if it is one after rounding to 24 bits:
 * what rounds up to 2^-126 with the fewer bits of a denormal alone does not count as normal. To
 * tell, the sum is repeated 2^64 times as large; it is tiny and not zero, so |c| < 2^-100, |a b| <
 * 2^-99 and the smaller of a and b < 2^-49: nothing overflows. */
K_INLINE float bf16_fma(float a, float b, float c)
{
    const float least = 0x1p-126f, up = 0x1p64f;
    a = bf16_zero_denormal(a), b = bf16_zero_denormal(b), c = bf16_zero_denormal(c);
    float sum = real_fma(a, b, c);
    if (!(__builtin_fabsf(sum) <= least))
        return sum;
    bool a_less = __builtin_fabsf(a) < __builtin_fabsf(b);
    float large = real_fma(a_less ? a * up : a, a_less ? b : b * up, c * up);
    return __builtin_fabsf(large) < least * up ? __builtin_copysignf(0, sum) : sum;
}
#endif

/* Between begin and end the vector instructions of this thread flush. The fences keep loads and
 * stores of operands inside, and with them the arithmetic. */
typedef struct {
    bool on;
    unsigned saved;
} Bf16Scope;

K_INLINE Bf16Scope bf16_begin(bool on)
{
    Bf16Scope s = {.on = on};
#if !VF_FLUSH_BY_HAND && !defined(RLHF_REAL_DOUBLE)
    enum { FLUSH_RESULTS = 0x8000, ZERO_OPERANDS = 0x40 };
    if (on) {
        s.saved = _mm_getcsr();
        _mm_setcsr(s.saved | FLUSH_RESULTS | ZERO_OPERANDS);
    }
    __asm__ volatile("" ::: "memory");
#endif
    return s;
}

K_INLINE void bf16_end(Bf16Scope s)
{
    (void)s;
#if !VF_FLUSH_BY_HAND && !defined(RLHF_REAL_DOUBLE)
    __asm__ volatile("" ::: "memory");
    if (s.on)
        _mm_setcsr(s.saved);
#endif
}

#endif
