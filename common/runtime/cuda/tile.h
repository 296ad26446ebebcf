/* tile.h - four floats at once where memory is aligned, and one by one where it is not or ends; the
 * tiles of linear.cu and of the two attention files are read and written by these alone. */
#ifndef RLHF_RUNTIME_CUDA_TILE_H
#define RLHF_RUNTIME_CUDA_TILE_H

#include "common/runtime/cuda/cuda.h"

/* Whether any four elements of a row (of a panel, of a page) that start at a multiple of 4 may be
 * moved at once. */
static inline bool is_wide(const Tensor *t)
{
    return (uintptr_t)t->data % 16 == 0 && (t->layout != LAYOUT_ROWS || t->stride % 4 == 0);
}

static __device__ __forceinline__ int least(int64_t a, int b)
{
    return a < b ? (int)a : b;
}

/* The first `left` of four elements at p, zeros behind; left may be negative. */
static __device__ __forceinline__ float4 fetch4(const float *p, int left, bool wide)
{
    float4 x = {0, 0, 0, 0};
    if (wide && left >= 4)
        return load4(p);
    if (left > 0)
        x.x = p[0];
    if (left > 1)
        x.y = p[1];
    if (left > 2)
        x.z = p[2];
    if (left > 3)
        x.w = p[3];
    return x;
}

/* Writes the first `left` of four elements. */
static __device__ __forceinline__ void put4(float *p, const float *x, int left, bool wide)
{
    if (wide && left >= 4) {
        float4 v = {x[0], x[1], x[2], x[3]};
        store4(p, v);
        return;
    }
#pragma unroll
    for (int e = 0; e < 4; e++)
        if (e < left)
            p[e] = x[e];
}

static __device__ __forceinline__ void unpack4(float *x, float4 v)
{
    x[0] = v.x;
    x[1] = v.y;
    x[2] = v.z;
    x[3] = v.w;
}

/* The four under each other, `step` apart. */
static __device__ __forceinline__ void store_down(float *s, int step, float4 v)
{
    s[0] = v.x;
    s[step] = v.y;
    s[2 * step] = v.z;
    s[3 * step] = v.w;
}

#endif
