/* linear.h - products of bf16 operands: what linear.cu (which op), linear_bf16.cu (our kernels) and
 * linear_blas.cu (the vendor's library, and who serves which shape) say to each other. */
#ifndef RLHF_RUNTIME_CUDA_LINEAR_H
#define RLHF_RUNTIME_CUDA_LINEAR_H

#include "common/runtime/cuda/cuda.h"

typedef enum { PRODUCT_Y, PRODUCT_DX, PRODUCT_DW, PRODUCT_COUNT } ProductOp;

/* Element (row i, chain index k): p[i * step + k], or p[k * step + i] where rows lie along the tile
 * (w of dx, both operands of dw). */
typedef struct {
    const uint16_t *p;
    int64_t step;
    int64_t n; /* rows */
} HalfOperand;

/* c[i, j] (+)= sum over k of a[i, k] b[j, k]; c[i * c_step + j] is f32 or bf16. */
typedef struct {
    ProductOp op;
    HalfOperand a, b;
    int64_t n_k;
    void *c;
    int64_t c_step;
    bool c_bf16, accumulate;
} HalfProduct;

enum {
    FEW_ROWS_BF16 = 64, /* of y: up to here it is a stream of weights */
    PROBE_ROWS = 4096,
    /* Of the card's memory, not for arenas of a bf16 run: the library's workspace and what a probe takes
       for a moment. */
    LINEAR_RESERVE_BYTES = 1 << 30,
#ifdef RLHF_EMU
    ROUND_BYTES =
        64 << 10, /* of scratch, for rounded operands: little, so that tests come in slices */
#else
    ROUND_BYTES = CUDA_SCRATCH_BYTES,
#endif
};

/* The bodies of ops whose weight is bf16 ROWS (linear_bf16.cu). */
void linear_bf16(Tensor *y, const Tensor *x, const Tensor *w, bool accumulate);
void linear_bf16_dx(Tensor *dx, const Tensor *dy, const Tensor *w, bool accumulate);
void linear_bf16_dw(Tensor *dw, const Tensor *dy, const Tensor *x, bool accumulate);

/* Our kernels. A row of y or dx has the same bits whichever of them makes it, so for every M. */
void linear_own(const CudaDevice *d, const HalfProduct *g);
/* The library where it is there and the probe of this shape lets it serve M = g->a.n rows; false:
 * it is ours. The first product of a shape probes. */
bool blas_product(CudaDevice *d, const HalfProduct *g);
void blas_close(CudaDevice *d); /* forgets the library and all verdicts */
void blas_report(const CudaDevice *d, void (*line)(void *ctx, const char *text), void *ctx);

#endif
