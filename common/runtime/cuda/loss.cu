/* loss.cu - per-sample losses and their gradients: a thread per sample, the formulas of
 * cpu/formula.h. Tested by tests/ops/loss.c. */
#include "common/runtime/cuda/cuda.h"

#include "common/runtime/cpu/formula.h"

enum { LOSS_THREADS = 128 };

static __device__ __forceinline__ int64_t sample_index(void)
{
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

static __global__ void xent_loss_kernel(int64_t n, float *loss, float *dlogp, const float *logp,
                                        const float *weight)
{
    int64_t i = sample_index();
    if (i < n)
        formula_xent_loss(i, loss, dlogp, logp, weight);
}

static __global__ void rank_loss_kernel(int64_t n, float *loss, float *dscores, const float *scores,
                                        const float *margin, const float *weight)
{
    int64_t i = sample_index();
    if (i < n)
        formula_rank_loss(i, loss, dscores, scores, margin, weight);
}

static __global__ void bce_loss_kernel(int64_t n, float *loss, float *dscores, const float *scores,
                                       const float *labels, const float *weight)
{
    int64_t i = sample_index();
    if (i < n)
        formula_bce_loss(i, loss, dscores, scores, labels, weight);
}

static __global__ void policy_loss_kernel(int64_t n, float *loss, float *dlogp, float *ratio,
                                          const float *logp, const float *old_logp,
                                          const float *adv, const float *weight, float low,
                                          float high)
{
    int64_t i = sample_index();
    if (i < n)
        formula_policy_loss(i, loss, dlogp, ratio, logp, old_logp, adv, weight, low, high);
}

static __global__ void value_loss_kernel(int64_t n, float *loss, float *dvalue, const float *value,
                                         const float *old_value, const float *ret,
                                         const float *weight, float clip)
{
    int64_t i = sample_index();
    if (i < n)
        formula_value_loss(i, loss, dvalue, value, old_value, ret, weight, clip);
}

/* One thread per element of `loss`. */
#define LAUNCH_SAMPLES(kernel, loss, ...)                                                          \
    do {                                                                                           \
        int64_t n_ = (loss)->dim[0];                                                               \
        if (n_ > 0)                                                                                \
            LAUNCH(kernel, cuda_blocks(n_, LOSS_THREADS), LOSS_THREADS, 0, cuda_stream(loss), n_,  \
                   f32_data(loss), __VA_ARGS__);                                                   \
    } while (0)

void cuda_xent_loss(Tensor *loss, Tensor *dlogp, const Tensor *logp, const Tensor *weight)
{
    LAUNCH_SAMPLES(xent_loss_kernel, loss, f32_data(dlogp), f32_data(logp), f32_data(weight));
}

void cuda_rank_loss(Tensor *loss, Tensor *dscores, const Tensor *scores, const Tensor *margin,
                    const Tensor *weight)
{
    LAUNCH_SAMPLES(rank_loss_kernel, loss, f32_data(dscores), f32_data(scores), f32_data(margin),
                   f32_data(weight));
}

void cuda_bce_loss(Tensor *loss, Tensor *dscores, const Tensor *scores, const Tensor *labels,
                   const Tensor *weight)
{
    LAUNCH_SAMPLES(bce_loss_kernel, loss, f32_data(dscores), f32_data(scores), f32_data(labels),
                   f32_data(weight));
}

void cuda_policy_loss(Tensor *loss, Tensor *dlogp, Tensor *ratio, const Tensor *logp,
                      const Tensor *old_logp, const Tensor *adv, const Tensor *weight, double clip)
{
    LAUNCH_SAMPLES(policy_loss_kernel, loss, f32_data(dlogp), f32_data(ratio), f32_data(logp),
                   f32_data(old_logp), f32_data(adv), f32_data(weight), (float)(1 - clip),
                   (float)(1 + clip));
}

void cuda_value_loss(Tensor *loss, Tensor *dvalue, const Tensor *value, const Tensor *old_value,
                     const Tensor *ret, const Tensor *weight, double clip)
{
    LAUNCH_SAMPLES(value_loss_kernel, loss, f32_data(dvalue), f32_data(value), f32_data(old_value),
                   f32_data(ret), f32_data(weight), (float)clip);
}
