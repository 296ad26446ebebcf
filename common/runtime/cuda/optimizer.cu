/* optimizer.cu - the sum of squares behind the global norm, and AdamW. Both walk over storage
 * slots. Tested by tests/ops/optimizer.c. */
#include "common/runtime/cuda/span.h"

#include "common/runtime/cpu/formula.h"

enum {
    SUMSQ_AHEAD = 64
}; /* loads in flight per lane: a block is one warp's, latency is the cost */

/* One warp per block of SUMSQ_BLOCK slots: lane j is accumulator j. */
static __global__ void __launch_bounds__(WARP)
    sumsq_kernel(double *partial, const float *x, int64_t n)
{
    int64_t from = (int64_t)blockIdx.x * SUMSQ_BLOCK;
    int64_t end = from + SUMSQ_BLOCK < n ? from + SUMSQ_BLOCK : n, i = from + threadIdx.x;
    double a = 0;
    for (; i + (SUMSQ_AHEAD - 1) * WARP < end; i += SUMSQ_AHEAD * WARP) {
        float v[SUMSQ_AHEAD];
#pragma unroll
        for (int k = 0; k < SUMSQ_AHEAD; k++)
            v[k] = x[i + k * WARP];
#pragma unroll
        for (int k = 0; k < SUMSQ_AHEAD; k++)
            a = fma((double)v[k], (double)v[k], a);
    }
    for (; i < end; i += WARP)
        a = fma((double)x[i], (double)x[i], a);
    __syncwarp(FULL_MASK);
    for (int w = SUM_LANES / 2; w > 0; w /= 2)
        a += __shfl_down_sync(FULL_MASK, a, w);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = a;
}

void cuda_sumsq(Tensor *partial, const Tensor *x)
{
    int64_t n = tensor_slots(x);
    if (n > 0)
        LAUNCH(sumsq_kernel, cuda_blocks(n, SUMSQ_BLOCK), WARP, 0, cuda_stream(x),
               (double *)partial->data, f32_data(x), n);
}

/* Four values of a bf16 copy, at a multiple of 8 bytes. */
static __device__ __forceinline__ void copy4(uint16_t *copy, float4 a)
{
    const uint32_t lo = bf16_pair(f32_bits(a.y), f32_bits(a.x));
    const uint32_t hi = bf16_pair(f32_bits(a.w), f32_bits(a.z));
    *(uint64_t *)copy = (uint64_t)hi << 32 | lo;
}

SPAN_KERNEL adamw_kernel(Span s, FormulaAdamw k, float *w, float *m, float *v, uint16_t *copy,
                         const float *grad)
{
    SPAN_WIDE(i, s)
    {
        float4 a = load4(w + i), b = load4(m + i), c = load4(v + i), g = load4(grad + i);
        formula_adamw(&k, &a.x, &b.x, &c.x, g.x);
        formula_adamw(&k, &a.y, &b.y, &c.y, g.y);
        formula_adamw(&k, &a.z, &b.z, &c.z, g.z);
        formula_adamw(&k, &a.w, &b.w, &c.w, g.w);
        store4(w + i, a);
        store4(m + i, b);
        store4(v + i, c);
        if (copy)
            copy4(copy + i, a);
    }
    SPAN_REST(i, s)
    {
        formula_adamw(&k, w + i, m + i, v + i, grad[i]);
        if (copy)
            copy[i] = bf16_of_f32(w[i]);
    }
}

void cuda_adamw(Tensor *w, Tensor *m, Tensor *v, Tensor *copy, const Tensor *grad, AdamwArgs args)
{
    const Tensor *all[] = {w, m, v, grad};
    Span s = span_of(all, 4);
    bool same = copy && copy->layout != LAYOUT_PANEL; /* the copy's slots are those of w */
    SPAN_LAUNCH(adamw_kernel, s, w, formula_adamw_scalars(&args), f32_data(w), f32_data(m),
                f32_data(v), same ? (uint16_t *)copy->data : NULL, f32_data(grad));
    if (copy && !same) /* a card keeps weights as rows: of use to tests alone */
        cuda_convert(copy, w);
}
