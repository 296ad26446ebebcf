/* token_sums.h - gradients of vectors that every token shares (norm.cu; also for bias.cu). */
#ifndef RLHF_RUNTIME_CUDA_TOKEN_SUMS_H
#define RLHF_RUNTIME_CUDA_TOKEN_SUMS_H

#include "common/runtime/cuda/mixed.h"

/* dst[c] += sum_t dy[t][c] * (x[t][c] * rstd[t]), or of dy alone where x.p is NULL: partials over NORM_BLOCK tokens
 * (rows, where a token has several) counted from each sequence's start, added ascending. dst: (n); dy, x: rows of n. */
typedef struct {
    Mixed dy, x;
    const float *rstd;
    int64_t n;
    int64_t per_token; /* rows a token */
} TokenSums;
void cuda_token_sums(Tensor *dst, const TokenSums *a, const Tensor *starts, int64_t n_rows);

#endif
