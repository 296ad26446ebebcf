/* bias.cu - a vector added to every row; its gradient is a sum over tokens (token_sums.h). Tested by
 * tests/ops/bias.c. */
#include "common/runtime/cuda/token_sums.h"

enum { BIAS_THREADS = 256 };

static __global__ void __launch_bounds__(BIAS_THREADS)
    bias_kernel(Mixed y, const float *b, int64_t rows, int64_t n)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int64_t at = i / n * y.stride + i % n;
    if (i < rows * n)
        mixed_write(&y, at, mixed_read(&y, at) + b[i % n]);
}

void cuda_bias(Tensor *y, const Tensor *b)
{
    const int64_t rows = y->dim[0], n = y->dim[1];
    if (rows * n > 0)
        LAUNCH(bias_kernel, cuda_blocks(rows * n, BIAS_THREADS), BIAS_THREADS, 0, cuda_stream(y), mixed_of(y),
               f32_data(b), rows, n);
}

void cuda_bias_backward(Tensor *db, const Tensor *dy, const Tensor *starts)
{
    TokenSums a = {.dy = mixed_of(dy), .x = {NULL, 0, false}, .rstd = NULL, .n = dy->dim[1], .per_token = 1};
    cuda_token_sums(db, &a, starts, dy->dim[0]);
}
