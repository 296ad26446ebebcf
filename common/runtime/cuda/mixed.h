/* mixed.h - rows that are f32 or bf16 in memory and f32 in registers, eight elements at once where all
 * tensors of a kernel are aligned for it. What is written as bf16 is rounded to nearest even. */
#ifndef RLHF_RUNTIME_CUDA_MIXED_H
#define RLHF_RUNTIME_CUDA_MIXED_H

#include "common/runtime/cuda/ptx.h"
#include "common/runtime/cuda/span.h"

extern __typeof__(op_add) cuda_add__bf16;
extern __typeof__(op_swiglu) cuda_swiglu__bf16;
extern __typeof__(op_swiglu_backward) cuda_swiglu_backward__bf16;
extern __typeof__(op_rope) cuda_rope__bf16;
extern __typeof__(op_gather_rows) cuda_gather_rows__bf16;

typedef struct {
    void *p;
    int64_t stride;
    bool half;
} Mixed;

static inline Mixed mixed_of(const Tensor *t)
{
    Mixed m = {t->data, t->n_dims > 1 ? t->stride : 0, t->dtype == DTYPE_BF16};
    return m;
}

/* Columns of a row that kernels do eight at a time: all whole eights, or none. */
static inline Span mixed_span(int64_t rows, int64_t cols, const Tensor *const *t, int n)
{
    bool aligned = true;
    for (int i = 0; i < n; i++)
        aligned = aligned && (uintptr_t)t[i]->data % 16 == 0 &&
                  (rows == 1 || t[i]->stride % (t[i]->dtype == DTYPE_BF16 ? 8 : 4) == 0);
    Span s = {rows, cols, aligned ? cols / 8 * 8 : 0};
    return s;
}

#define MIXED_WIDE(i, s) for (int64_t i = 8 * span_first(); i < (s).wide; i += 8 * span_step())

static __device__ __forceinline__ float mixed_read(const Mixed *m, int64_t at)
{
    return m->half ? bf16_float(((const uint16_t *)m->p)[at]) : ((const float *)m->p)[at];
}

static __device__ __forceinline__ void mixed_write(const Mixed *m, int64_t at, float x)
{
    if (m->half)
        ((uint16_t *)m->p)[at] = bf16_of(x);
    else
        ((float *)m->p)[at] = x;
}

static __device__ __forceinline__ void mixed_read8(float x[8], const Mixed *m, int64_t at)
{
    if (m->half) {
        const float4 v = load4((const float *)((const uint16_t *)m->p + at));
        const float pair[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            x[2 * i] = bf16_low(k_bits(pair[i]));
            x[2 * i + 1] = bf16_high(k_bits(pair[i]));
        }
        return;
    }
    const float4 a = load4((const float *)m->p + at), b = load4((const float *)m->p + at + 4);
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
    x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}

static __device__ __forceinline__ void mixed_write8(const Mixed *m, int64_t at, const float x[8])
{
    if (m->half) {
        store4((float *)((uint16_t *)m->p + at),
               make_float4(k_float(bf16_low_high(x[0], x[1])), k_float(bf16_low_high(x[2], x[3])),
                           k_float(bf16_low_high(x[4], x[5])), k_float(bf16_low_high(x[6], x[7]))));
        return;
    }
    store4((float *)m->p + at, make_float4(x[0], x[1], x[2], x[3]));
    store4((float *)m->p + at + 4, make_float4(x[4], x[5], x[6], x[7]));
}

#endif
