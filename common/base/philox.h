/* philox.h - the block function of rng.h, inline so that kernels draw the same numbers: Philox4x32-10
 * (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). */
#ifndef RLHF_BASE_PHILOX_H
#define RLHF_BASE_PHILOX_H

#include <stdint.h>

#ifdef __CUDACC__
#define PHILOX_INLINE static __device__ __forceinline__
#else
#define PHILOX_INLINE static inline __attribute__((unused))
#endif

PHILOX_INLINE void philox_block(uint32_t out[4], const uint32_t ctr[4], const uint32_t key[2])
{
    uint32_t c0 = ctr[0], c1 = ctr[1], c2 = ctr[2], c3 = ctr[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u; /* golden ratio */
        k1 += 0xBB67AE85u; /* sqrt(3) - 1 */
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* [0, 1): the upper 53 bits of u. */
PHILOX_INLINE double philox_unit(uint64_t u)
{
    return (double)(u >> 11) * 0x1p-53;
}

/* [0, 1) from words 0 and 1 of a block. */
PHILOX_INLINE double philox_uniform(const uint32_t word[4])
{
    return philox_unit(word[0] | (uint64_t)word[1] << 32);
}

#endif
