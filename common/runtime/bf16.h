/* bf16.h - the 16-bit float that is the upper half of an f32, for the host, the CPU's bodies and the
 * kernels of cuda/. Rounding is to nearest even; a NaN stays one, made quiet. Tested by
 * tests/ops/elementwise.c (op_convert) and tests/unit/test_safetensors.c. */
#ifndef RLHF_RUNTIME_BF16_H
#define RLHF_RUNTIME_BF16_H

#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define BF16_INLINE static __device__ __forceinline__
#else
#define BF16_INLINE static inline __attribute__((always_inline, unused))
#endif

/* Bits of an f32 rounded to bf16, still as an f32: the lower half is zero. */
BF16_INLINE uint32_t bf16_round_bits(uint32_t f)
{
    uint32_t even = f + 0x7fff + (f >> 16 & 1);
    return ((f & 0x7fffffff) > 0x7f800000 ? f | 0x400000 : even) & 0xffff0000;
}

/* Bits of two f32 as a pair of a bf16 panel, one little-endian word: the earlier element is in the odd
 * slot, the upper half. */
BF16_INLINE uint32_t bf16_pair(uint32_t earlier, uint32_t later)
{
    return bf16_round_bits(earlier) | bf16_round_bits(later) >> 16;
}

BF16_INLINE uint32_t f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

BF16_INLINE uint16_t bf16_of_f32(float f)
{
    return (uint16_t)(bf16_round_bits(f32_bits(f)) >> 16);
}

BF16_INLINE float f32_of_bf16(uint16_t bits)
{
    uint32_t u = (uint32_t)bits << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

#endif
