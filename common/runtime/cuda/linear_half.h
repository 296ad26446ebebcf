/* linear_half.h - stages of bf16 operands in shared memory, and the results of mma: what the kernels for
 * many rows (linear_bf16.cu) and for few (linear_few.cu) have in common. For these two alone. */
#ifndef RLHF_RUNTIME_CUDA_LINEAR_HALF_H
#define RLHF_RUNTIME_CUDA_LINEAR_HALF_H

#include "common/runtime/cuda/linear.h"
#include "common/runtime/cuda/ptx.h"
#include "common/runtime/cuda/tile.h"

enum { CHAIN = 32 }; /* links of a stage of the tiles, and of one set of fragments: two steps */

enum { ALONG_CHAIN, ALONG_TILE }; /* how an operand's memory runs: see HalfOperand */

/* What a kernel gets: the product, and what the launcher knows of its alignment. */
typedef struct {
    HalfProduct g;
    bool a_wide, b_wide, c_wide; /* eight elements of a row at once; c: two */
} HalfLaunch;

/* Up to FEW_ROWS_BF16 rows of y (linear_few.cu). */
void linear_few(cudaStream_t stream, const HalfLaunch *l);

/* ---- stages ---------------------------------------------------------------------------------- */

/* Elements from a stage's start to the 16 bytes `chunk` of a row of 4, 8 or 16 such. */
static __device__ __forceinline__ int place(int row, int chunk, int chunks)
{
    const int turn = chunks == 4 ? row / 2 % 4 : row % 8;
    return (row * chunks + (chunk ^ turn)) * 8;
}

/* Begins to bring the first `left` of eight elements at p, zeros behind; left may be negative. */
static __device__ __forceinline__ void bring8(uint16_t *to, const uint16_t *p, int left, bool wide)
{
    if (wide) {
        cp_async16(to, p, left >= 8 ? 16 : left > 0 ? 2 * left : 0);
        return;
    }
    uint32_t x[4] = {0, 0, 0, 0};
#pragma unroll
    for (int e = 0; e < 8; e++)
        if (e < left)
            x[e / 2] |= (uint32_t)p[e] << e % 2 * 16;
    float4 all = {k_float(x[0]), k_float(x[1]), k_float(x[2]), k_float(x[3])};
    store4((float *)to, all);
}

/* What a thread brings of an operand in every stage: 16 bytes of each `per`-th row of memory. */
typedef struct {
    const uint16_t *p;
    int row, chunk;  /* in the stage */
    int rows, along; /* from there to the operand's end: rows of memory, elements of a row */
} Source;

static __device__ __forceinline__ int source_chunks(int form, int size, int links)
{
    return (form == ALONG_CHAIN ? links : size) / 8;
}

/* Rows [row0, row0 + size) of an operand, `links` of the chain a stage; all but o, row0, n_k
 * constant. */
static __device__ __forceinline__ Source source_start(const HalfOperand *o, int form, int64_t row0,
                                                      int size, int n_k, int links)
{
    const int chunks = source_chunks(form, size, links);
    Source s;
    s.row = (int)threadIdx.x / chunks;
    s.chunk = (int)threadIdx.x % chunks;
    const int rows = least(o->n - row0, size);
    s.rows = (form == ALONG_CHAIN ? rows : n_k) - s.row;
    s.along = (form == ALONG_CHAIN ? n_k : rows) - s.chunk * 8;
    s.p = o->p + (form == ALONG_CHAIN ? (row0 + s.row) * o->step : s.row * o->step + row0) +
          s.chunk * 8;
    return s;
}

/* Begins to bring a stage to `to`, and moves on by one. */
static __device__ __forceinline__ void source_bring(Source *s, const HalfOperand *o, bool wide,
                                                    int form, int size, int links, int threads,
                                                    uint16_t *to)
{
    const int chunks = source_chunks(form, size, links), per = threads / chunks;
#pragma unroll
    for (int u = 0; u < size * links / 8 / threads; u++)
        bring8(to + place(s->row + u * per, s->chunk, chunks), s->p + u * per * o->step,
               u * per < s->rows ? s->along : 0, wide);
    if (form == ALONG_CHAIN) {
        s->p += links;
        s->along -= links;
    } else {
        s->p += links * o->step;
        s->rows -= links;
    }
}

/* All threads' copies are there but those of the youngest stages - 2 groups; a constant. */
static __device__ __forceinline__ void stage_wait(int stages)
{
    switch (stages) {
    case 3:
        cp_async_wait(1);
        break;
    case 4:
        cp_async_wait(2);
        break;
    case 6:
        cp_async_wait(4);
        break;
    default:
        cp_async_wait(6);
    }
    __syncthreads();
}

/* ---- results --------------------------------------------------------------------------------- */

/* Two neighbours of a row. */
static __device__ __forceinline__ void put_f32(const HalfLaunch *l, int64_t i, int64_t j, float x,
                                               float y)
{
    const HalfProduct *g = &l->g;
    float *c = (float *)g->c + i * g->c_step + j;
    if (l->c_wide && j + 1 < g->b.n) {
        float2 *pair = (float2 *)c;
        SHIM_ALIGNED(pair, 8);
        const float2 old = g->accumulate ? *pair : make_float2(0, 0);
        *pair = g->accumulate ? make_float2(old.x + x, old.y + y) : make_float2(x, y);
        return;
    }
    c[0] = g->accumulate ? c[0] + x : x;
    if (j + 1 < g->b.n)
        c[1] = g->accumulate ? c[1] + y : y;
}

static __device__ __forceinline__ void put_bf16(const HalfLaunch *l, int64_t i, int64_t j, float x,
                                                float y)
{
    const HalfProduct *g = &l->g;
    uint16_t *c = (uint16_t *)g->c + i * g->c_step + j;
    if (l->c_wide && j + 1 < g->b.n) {
        uint32_t *pair = (uint32_t *)c;
        SHIM_ALIGNED(pair, 4);
        const uint32_t old = g->accumulate ? *pair : 0;
        *pair = g->accumulate ? bf16_low_high(bf16_low(old) + x, bf16_high(old) + y) : bf16_low_high(x, y);
        return;
    }
    c[0] = bf16_of(g->accumulate ? bf16_float(c[0]) + x : x);
    if (j + 1 < g->b.n)
        c[1] = bf16_of(g->accumulate ? bf16_float(c[1]) + y : y);
}

/* An mma's 16 x 8 sums, (i, j) at its corner. */
static __device__ __forceinline__ void put_sums(const HalfLaunch *l, int64_t i, int64_t j,
                                                const float c[4])
{
    const int lane = (int)threadIdx.x % WARP;
    i += lane / 4;
    j += lane % 4 * 2;
    if (j >= l->g.b.n)
        return;
#pragma unroll
    for (int half = 0; half < 2; half++, i += 8)
        if (i < l->g.a.n) {
            if (l->g.c_bf16)
                put_bf16(l, i, j, c[2 * half], c[2 * half + 1]);
            else
                put_f32(l, i, j, c[2 * half], c[2 * half + 1]);
        }
}

#endif
