/* cuda_shim.h - the one header behind which CUDA stands, so that every kernel of this folder also
 * compiles with a C++ compiler and runs on the CPU (tests/emu) against the CPU backend.
 *
 *   LAUNCH(kernel, grid, block, smem, stream, args...)   the only way to start a kernel
 *   DYN_SHARED(T, name)                                  T *name = the block's dynamic shared memory
 *   CUDA_CALL(call)                                      a CUDA error is a dead machine: stops
 *
 * Rules for kernels (lint.sh checks what it can): no other include of CUDA, no <<<>>>, no asm, no
 * templates, no STL, no float atomics; __syncthreads only in uniform control flow; every warp op has
 * an explicit mask; static __shared__ arrays have constant size and every cell is written before it
 * is read; 64-bit arithmetic for whatever is multiplied by a row length. */
#ifndef RLHF_RUNTIME_CUDA_SHIM_H
#define RLHF_RUNTIME_CUDA_SHIM_H

#ifdef RLHF_EMU
#include "emu.h" /* tests/emu: fibers instead of threads */
#else
#include <cublasLt.h>
#include <cuda_runtime.h>
#include <dlfcn.h>

#define LAUNCH(kernel, grid, block, smem, stream, ...)                                             \
    do {                                                                                           \
        kernel<<<(grid), (block), (smem), (stream)>>>(__VA_ARGS__);                                \
        CUDA_CALL(cudaGetLastError());                                                             \
    } while (0)
#define DYN_SHARED(T, name)                                                                        \
    extern __shared__ __align__(16) unsigned char dyn_shared_[];                                   \
    T *name = (T *)dyn_shared_
#define SHIM_ALIGNED(p, bytes) ((void)0)
/* cuBLASLt is opened when a product asks for it: found by name, or in the toolkit this was built with. */
#define SHIM_TEXT_(x)              #x
#define SHIM_TEXT(x)               SHIM_TEXT_(x)
#define SHIM_BLAS_LIBRARY()        dlopen("libcublasLt.so." SHIM_TEXT(CUBLAS_VER_MAJOR), RTLD_NOW | RTLD_LOCAL)
#define SHIM_SYMBOL(library, name) dlsym(library, #name)
#endif

#define CUDA_CALL(call)                                                                            \
    do {                                                                                           \
        cudaError_t error_ = (call);                                                               \
        CHECK(error_ == cudaSuccess, "CUDA: %s (%s)", cudaGetErrorString(error_), #call);          \
    } while (0)

#define FULL_MASK 0xffffffffu

/* Four floats at once; p is a multiple of 16 bytes, which the shim asserts. */
static __device__ __forceinline__ float4 load4(const float *p)
{
    SHIM_ALIGNED(p, 16);
    return *(const float4 *)p;
}
static __device__ __forceinline__ void store4(float *p, float4 x)
{
    SHIM_ALIGNED(p, 16);
    *(float4 *)p = x;
}

#endif
