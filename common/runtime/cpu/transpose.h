/* transpose.h - blocks of 32-bit words between row-major and panels. Blocks of 4 x 4 have instructions
 * on every x86-64; one word at a time takes four times as long. */
#ifndef RLHF_RUNTIME_CPU_TRANSPOSE_H
#define RLHF_RUNTIME_CPU_TRANSPOSE_H

#include "common/runtime/cpu/kmath.h"

#ifdef __SSE__
#include <xmmintrin.h>

K_INLINE void transpose_4x4(void *dst, int64_t dst_step, const void *src, int64_t src_step)
{
    const float *s = (const float *)src; /* bits alone: loads and shuffles look at no value */
    float *d = (float *)dst;
    __m128 r0 = _mm_loadu_ps(s), r1 = _mm_loadu_ps(s + src_step);
    __m128 r2 = _mm_loadu_ps(s + 2 * src_step), r3 = _mm_loadu_ps(s + 3 * src_step);
    _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
    _mm_storeu_ps(d, r0);
    _mm_storeu_ps(d + dst_step, r1);
    _mm_storeu_ps(d + 2 * dst_step, r2);
    _mm_storeu_ps(d + 3 * dst_step, r3);
}
#else
K_INLINE void transpose_4x4(void *dst, int64_t dst_step, const void *src, int64_t src_step)
{
    for (int r = 0; r < 4; r++)
        for (int c = 0; c < 4; c++)
            memcpy((char *)dst + 4 * (c * dst_step + r), (const char *)src + 4 * (r * src_step + c), 4);
}
#endif

/* dst[c * dst_step + r] = src[r * src_step + c] for r < rows, c < cols. */
K_INLINE void transpose_words(uint32_t *dst, int64_t dst_step, const uint32_t *src,
                              int64_t src_step, int64_t rows, int64_t cols)
{
    const int64_t r4 = rows / 4 * 4, c4 = cols / 4 * 4;
    for (int64_t r = 0; r < r4; r += 4)
        for (int64_t c = 0; c < c4; c += 4)
            transpose_4x4(dst + c * dst_step + r, dst_step, src + r * src_step + c, src_step);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = r < r4 ? c4 : 0; c < cols; c++)
            dst[c * dst_step + r] = src[r * src_step + c];
}

#endif
