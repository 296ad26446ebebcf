/* cuda.h - what the files of this folder share: names of the bodies, the open device, small index
 * helpers. A file holds, in this order: device helpers, kernels, launchers cuda_NAME (the op's body).
 *
 * Bodies trust their arguments (ops.c has checked shapes); index values on the device are trusted
 * too. Everything runs on the compute stream of the tensor's device. Every tensor is device memory,
 * `starts` too: kernels find a token's sequence themselves. One card is open at a time per thread of
 * control; device.cu makes it current. */
#ifndef RLHF_RUNTIME_CUDA_CUDA_H
#define RLHF_RUNTIME_CUDA_CUDA_H

#define _Noreturn __attribute__((noreturn)) /* C11's word in the shared headers */
extern "C" {
#include "common/base/error.h"
#include "common/runtime/device_impl.h"
}
#include "common/runtime/cuda/cuda_shim.h"
#include "common/runtime/cpu/kmath.h"

/* Prototypes of the bodies. C++ mangles their types, so a body of another type is another function
 * and the one the table wants is missing at the link. */
#define X(name) extern __typeof__(op_##name) cuda_##name;
OPS(X)
#undef X
extern const OpTable cuda_table;

enum {
    WARP = 32, /* = SUM_LANES: a row reduction is one warp, lane j holds accumulator j */
    CUDA_SCRATCH_BYTES = 32 << 20,
};

struct Blas;

typedef struct {
    int ordinal, n_sm;
    bool bf16; /* tensor cores with bf16: sm_80 and later */
    ProductsChoice products;
    struct Blas *blas; /* linear_blas.cu; NULL until the first bf16 product */
    cudaStream_t stream[STREAM_COUNT];
    void *scratch; /* CUDA_SCRATCH_BYTES */
    size_t memory;
    char text[BACKEND_TEXT];
} CudaDevice;

static inline CudaDevice *cuda_device(const Tensor *t)
{
    return (CudaDevice *)t->dev->handle;
}
static inline cudaStream_t cuda_stream(const Tensor *t)
{
    return cuda_device(t)->stream[STREAM_COMPUTE];
}
/* The device's one scratch block: for a body's own use until it returns; the stream keeps the next
 * body's use behind it. Bodies that need more work in slices. */
static inline void *cuda_scratch(const Tensor *t, size_t bytes)
{
    CHECK(bytes <= (size_t)CUDA_SCRATCH_BYTES, "%zu bytes of scratch, there are %d", bytes,
          CUDA_SCRATCH_BYTES);
    return cuda_device(t)->scratch;
}

static inline float *f32_data(const Tensor *t)
{
    return (float *)t->data;
}
static inline int32_t *i32_data(const Tensor *t)
{
    return (int32_t *)t->data;
}

/* Blocks of `size` that n items need. CHECKs that they fit a grid's x. */
static inline unsigned cuda_blocks(int64_t n, int64_t size)
{
    int64_t b = (n + size - 1) / size;
    CHECK(b >= 0 && b <= 0x7fffffff, "%lld blocks", (long long)b);
    return (unsigned)b;
}

/* ---- the row reductions of kmath.h by one warp: lane j holds accumulator j --------------------- */

/* a[j] += a[j + 16], 8, 4, 2, 1; every lane gets a[0]. All 32 lanes must call. */
static __device__ __forceinline__ float warp_sum_tree(float a)
{
    for (int w = SUM_LANES / 2; w > 0; w /= 2)
        a += __shfl_down_sync(FULL_MASK, a, w);
    return __shfl_sync(FULL_MASK, a, 0);
}
static __device__ __forceinline__ float warp_max_tree(float a)
{
    for (int w = SUM_LANES / 2; w > 0; w /= 2)
        a = k_max(__shfl_down_sync(FULL_MASK, a, w), a);
    return __shfl_sync(FULL_MASK, a, 0);
}

/* The sequence of token t: the last s with starts[s] <= t (empty sequences are skipped over).
 * starts: (S + 1). */
static __device__ __forceinline__ int64_t sequence_of(const int32_t *starts, int64_t S, int64_t t)
{
    int64_t lo = 0, hi = S; /* starts[lo] <= t < starts[hi] */
    while (hi - lo > 1) {
        int64_t mid = (lo + hi) / 2;
        if (starts[mid] <= t)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

#endif
