/* test_emu.cpp - the shim does what CUDA does: indices, barriers, warp operations, shared memory,
 * atomics, the runtime's functions; every result is the same in every order of threads and blocks.
 * That it finds mistakes is test_faults.cpp. */
#include "common/runtime/cuda/ptx.h"

#include <stdio.h>
#include <stdlib.h>

static int passed, failed;

static void expect(bool ok, const char *what, int line)
{
    if (ok)
        passed++;
    else
        failed++, printf("not ok test_emu.cpp:%d: %s\n", line, what);
}
#define EXPECT(cond) expect((cond), #cond, __LINE__)

static void *card(size_t bytes)
{
    void *p = NULL;
    CUDA_CALL(cudaMallocManaged(&p, bytes, cudaMemAttachGlobal));
    return p;
}

/* ---- indices: every thread of a three-dimensional launch writes its own number ------------------ */

static __global__ void number_kernel(int *out, int add)
{
    int block = (int)((blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x);
    int thread = (int)((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x);
    out[block * (int)(blockDim.x * blockDim.y * blockDim.z) + thread] += thread + 1000 * block + add;
}

static void test_indices(void)
{
    int *out = (int *)card(24 * 30 * sizeof *out), wrong = 0;
    memset(out, 0, 24 * 30 * sizeof *out);
    LAUNCH(number_kernel, dim3(2, 3, 4), dim3(5, 3, 2), 0, NULL, out, 7);
    for (int i = 0; i < 24 * 30; i++)
        wrong += out[i] != i % 30 + 1000 * (i / 30) + 7;
    EXPECT(wrong == 0);
    cudaFree(out);
}

/* ---- a block's sum through warps and shared memory ---------------------------------------------- */

static __global__ void sum_kernel(float *out, const float *x, int n)
{
    __shared__ float part[WARP];
    float a = 0;
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
        a += x[(int64_t)blockIdx.x * n + i];
    a = warp_sum_tree(a);
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    if (lane == 0)
        part[warp] = a;
    __syncthreads();
    a = lane < (int)blockDim.x / WARP ? part[lane] : 0;
    a = warp_sum_tree(a);
    if (threadIdx.x == 0)
        out[blockIdx.x] = a;
}

static void test_block_sum(void)
{
    enum { ROWS = 9, N = 1000 };
    float *x = (float *)card(ROWS * N * sizeof *x), *y = (float *)card(ROWS * sizeof *y);
    for (int i = 0; i < ROWS * N; i++)
        x[i] = (float)(i % 17); /* small whole numbers: any order gives the sum */
    LAUNCH(sum_kernel, ROWS, 128, 0, NULL, y, x, N);
    bool same = true;
    for (int r = 0; r < ROWS; r++) {
        float want = 0;
        for (int i = 0; i < N; i++)
            want += x[r * N + i];
        same = same && y[r] == want;
    }
    EXPECT(same);
    cudaFree(x);
    cudaFree(y);
}

/* ---- RMSNorm of a row by a block with dynamic shared memory, against kmath.h by bits ------------- */

static __global__ void __launch_bounds__(128) norm_kernel(float *y, const float *x, int64_t n)
{
    DYN_SHARED(float, row);
    __shared__ float scale;
    x += (int64_t)blockIdx.x * n;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
        row[i] = x[i];
    __syncthreads();
    if (threadIdx.x < WARP) { /* a whole warp */
        float a = 0;
        for (int64_t i = threadIdx.x; i < n; i += WARP)
            a = real_fma(row[i], row[i], a);
        a = warp_sum_tree(a);
        if (threadIdx.x == 0)
            scale = 1.0f / k_sqrt(a / (float)n + 1e-5f);
    }
    __syncthreads();
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
        y[(int64_t)blockIdx.x * n + i] = row[i] * scale;
}

static void test_norm(void)
{
    static const int width[] = {1, 31, 32, 33, 1000, 20000};
    CUDA_CALL(cudaFuncSetAttribute(norm_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 80000));
    for (size_t k = 0; k < sizeof width / sizeof *width; k++) {
        int n = width[k], rows = 3, wrong = 0;
        float *x = (float *)card((size_t)(rows * n) * 4), *y = (float *)card((size_t)(rows * n) * 4);
        for (int i = 0; i < rows * n; i++)
            x[i] = (float)((i * 7919) % 1013) / 100.0f - 5.0f;
        LAUNCH(norm_kernel, (unsigned)rows, 128, (size_t)n * 4, NULL, y, x, n);
        for (int r = 0; r < rows; r++) {
            float s = 1.0f / k_sqrt(row_dot(x + r * n, x + r * n, n) / (float)n + 1e-5f);
            for (int i = 0; i < n; i++)
                wrong += k_bits(y[r * n + i]) != k_bits(x[r * n + i] * s);
        }
        EXPECT(wrong == 0);
        cudaFree(x);
        cudaFree(y);
    }
}

/* ---- warp operations, each against its definition ------------------------------------------------ */

static __global__ void warp_kernel(int *out, double *big)
{
    int lane = (int)threadIdx.x, x = 100 + lane, *o = out + lane * 20;
    o[0] = __shfl_sync(FULL_MASK, x, 5);
    o[1] = __shfl_sync(FULL_MASK, x, 5, 8);
    o[2] = __shfl_up_sync(FULL_MASK, x, 3);
    o[3] = __shfl_up_sync(FULL_MASK, x, 3, 16);
    o[4] = __shfl_down_sync(FULL_MASK, x, 3);
    o[5] = __shfl_down_sync(FULL_MASK, x, 3, 16);
    o[6] = __shfl_xor_sync(FULL_MASK, x, 9);
    o[7] = (int)__ballot_sync(FULL_MASK, lane % 3 == 0);
    o[8] = __any_sync(FULL_MASK, lane == 31) + 2 * __any_sync(FULL_MASK, lane == 32);
    o[9] = __all_sync(FULL_MASK, lane < 32) + 2 * __all_sync(FULL_MASK, lane < 31);
    o[10] = __reduce_add_sync(FULL_MASK, lane - 20);
    o[11] = __reduce_min_sync(FULL_MASK, lane - 20);
    o[12] = __reduce_max_sync(FULL_MASK, lane - 20);
    o[13] = (int)__reduce_xor_sync(FULL_MASK, (unsigned)lane);
    if (lane < 16) /* both halves of the warp wait in their own mask */
        o[14] = __shfl_xor_sync(0x0000ffffu, x, 1);
    else
        o[14] = __shfl_sync(0xffff0000u, x, 31);
    __syncwarp();
    o[15] = __popc((unsigned)lane) + 100 * __clz(lane) + 10000 * __ffs(lane);
    big[lane] = __shfl_sync(FULL_MASK, 1e300 * lane, 31 - lane);
}

static void test_warp(void)
{
    int *out = (int *)card(32 * 20 * sizeof *out), wrong = 0;
    double *big = (double *)card(32 * sizeof *big);
    LAUNCH(warp_kernel, 1, 32, 0, NULL, out, big);
    for (int i = 0; i < 32; i++) {
        const int *o = out + i * 20;
        int third = 0;
        for (int j = 0; j < 32; j += 3)
            third = (int)((unsigned)third | 1u << j);
        const int want[] = {105,
                            100 + (i & ~7) + 5,
                            100 + (i < 3 ? i : i - 3),
                            100 + (i % 16 < 3 ? i : i - 3),
                            100 + (i > 28 ? i : i + 3),
                            100 + (i % 16 > 12 ? i : i + 3),
                            100 + (i ^ 9),
                            third,
                            1,
                            1,
                            31 * 16 - 20 * 32, /* sum of 0..31 is 496 */
                            -20,
                            11,
                            0, /* every bit is set in 16 of the 32 numbers */
                            i < 16 ? 100 + (i ^ 1) : 131,
                            __builtin_popcount((unsigned)i) + 100 * (i ? __builtin_clz((unsigned)i) : 32) +
                                10000 * __builtin_ffs(i)};
        wrong += memcmp(o, want, sizeof want) != 0 || big[i] != 1e300 * (31 - i);
    }
    EXPECT(wrong == 0);
    cudaFree(out);
    cudaFree(big);
}

/* ---- tensor cores: a (16, 16) b (16, 16), both through shared memory ----------------------------- */

enum { MMA_K = 16, MMA_ROW = 24 }; /* a row of 24: others than the next must be told apart */

/* b lies as (column, k), or transposed as (k, column). c: two tiles of 16 x 8 side by side. */
static __global__ void mma_kernel(float *c, const uint16_t *a, const uint16_t *b, int transposed)
{
    __shared__ __align__(16) uint16_t as[16 * MMA_ROW], bs[16 * MMA_ROW];
    const int lane = (int)threadIdx.x, g = lane / 4, t = lane % 4;
    for (int i = 0; i < 2; i++) { /* rows of 16 are two copies */
        const int to = lane / 2 * MMA_ROW + lane % 2 * 8;
        cp_async16((i ? bs : as) + to, (i ? b : a) + lane * 8, 16);
        cp_async_commit();
    }
    cp_async_wait(1);
    __syncwarp();
    uint32_t af[4], bf[4];
    float sum[2][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
    ldmatrix_x4(af, as + lane % 16 * MMA_ROW + lane / 16 * 8);
    cp_async_wait(0);
    __syncwarp();
    if (transposed)
        ldmatrix_x4_trans(bf, bs + lane % 16 * MMA_ROW + lane / 16 * 8);
    else
        ldmatrix_x4(bf, bs + (lane % 8 + lane / 16 * 8) * MMA_ROW + lane / 8 % 2 * 8);
    for (int tile = 0; tile < 2; tile++) {
        mma_bf16(sum[tile], af, bf + 2 * tile);
        for (int i = 0; i < 4; i++)
            c[(g + i / 2 * 8) * 16 + tile * 8 + 2 * t + i % 2] = sum[tile][i];
    }
}

static void test_mma(void)
{
    uint16_t *a = (uint16_t *)card(256 * 2), *b = (uint16_t *)card(256 * 2);
    float *c = (float *)card(256 * 4);
    for (int i = 0; i < 256; i++) {
        a[i] = (uint16_t)(k_bits((float)(i * 37 % 101 - 50)) >> 16); /* whole, and few bits */
        b[i] = (uint16_t)(k_bits((float)(i * 53 % 89) * 0x1p-3f) >> 16);
    }
    for (int transposed = 0; transposed < 2; transposed++) {
        int wrong = 0;
        LAUNCH(mma_kernel, 1, 32, 0, NULL, c, a, b, transposed);
        for (int i = 0; i < 256; i++) {
            float sum = 0;
            for (int k = 0; k < MMA_K; k++)
                sum = fmaf(bf16_float(a[i / 16 * 16 + k]),
                           bf16_float(b[transposed ? k * 16 + i % 16 : i % 16 * 16 + k]), sum);
            wrong += c[i] != sum;
        }
        EXPECT(wrong == 0);
    }
    cudaFree(a);
    cudaFree(b);
    cudaFree(c);
}

/* ---- copies in groups: each stage is waited for before it is read; ends fill with zeros ---------- */

static __global__ void async_kernel(uint32_t *out, const uint32_t *in, int n)
{
    __shared__ __align__(16) uint32_t s[3][64 * 4];
    const int tid = (int)threadIdx.x;
    uint32_t sum = 0;
    for (int step = 0; step < 6; step++) {
        if (step < 4) {
            const int left = n - (step * 64 + tid) * 16;
            cp_async16(s[step % 3] + 4 * tid, in + (step * 64 + tid) * 4,
                       left > 16 ? 16 : left > 0 ? left : 0);
        }
        cp_async_commit();
        if (step < 2)
            continue;
        cp_async_wait(2);
        __syncthreads();
        for (int i = 0; i < 4; i++)
            sum = sum * 31 + s[(step - 2) % 3][4 * (63 - tid) + i];
        __syncthreads();
    }
    out[tid] = sum;
}

static void test_async(void)
{
    enum { WORDS = 64 * 4 * 4, BYTES = WORDS * 4 - 100 };
    uint32_t *in = (uint32_t *)card(WORDS * 4), *out = (uint32_t *)card(64 * 4);
    int wrong = 0;
    for (uint32_t i = 0; i < WORDS; i++)
        in[i] = i * 2654435761u;
    LAUNCH(async_kernel, 1, 64, 0, NULL, out, in, (int)BYTES);
    for (int tid = 0; tid < 64; tid++) {
        uint32_t sum = 0;
        for (int i = 0; i < 16; i++) {
            const int word = (i / 4 * 64 + 63 - tid) * 4 + i % 4;
            sum = sum * 31 + (word < BYTES / 4 ? in[word] : 0);
        }
        wrong += out[tid] != sum;
    }
    EXPECT(wrong == 0);
    cudaFree(in);
    cudaFree(out);
}

static void test_bf16(void)
{
    EXPECT(bf16_of(1.0f) == 0x3f80 && bf16_of(-0.0f) == 0x8000 && bf16_float(0xc040) == -3.0f);
    EXPECT(bf16_of(0x1.01p0f) == 0x3f80 && bf16_of(0x1.03p0f) == 0x3f82); /* ties to even */
    EXPECT(bf16_of(0x1.010002p0f) == 0x3f81 && bf16_of(0x1.fffffep127f) == 0x7f80);
    EXPECT(bf16_of(0x1p-133f) == 1 && bf16_float(1) == 0x1p-133f);
    EXPECT(bf16_float(bf16_of(NAN)) != bf16_float(bf16_of(NAN)));
    EXPECT(bf16_low_high(2.0f, -4.0f) == 0xc0804000u && bf16_low(0xc0804000u) == 2.0f &&
           bf16_high(0xc0804000u) == -4.0f);
}

/* ---- barriers that count, atomics, values of a fresh block --------------------------------------- */

static __global__ void barrier_kernel(int *out, int *sum, unsigned long long *most)
{
    __shared__ float fresh[4];
    if (threadIdx.x < 4 && fresh[threadIdx.x] == fresh[threadIdx.x]) /* poison is NaN */
        out[7] = 1;
    int n = __syncthreads_count(threadIdx.x % 3 == 0);
    int all = __syncthreads_and(threadIdx.x < 70), any = __syncthreads_or(threadIdx.x == 69);
    int none = __syncthreads_or(threadIdx.x == 70), not_all = __syncthreads_and(threadIdx.x != 3);
    if (threadIdx.x < 4)
        fresh[threadIdx.x] = 1; /* the next block must not see it */
    if (threadIdx.x == 69) {
        const int got[] = {n, all, any, none, not_all};
        for (int i = 0; i < 5; i++)
            out[i] = got[i];
    }
    atomicAdd(sum, 2);
    atomicMax(most, (unsigned long long)(blockIdx.x * 1000 + threadIdx.x));
}

static void test_barriers(void)
{
    int *out = (int *)card(8 * sizeof *out), *sum = (int *)card(sizeof *sum);
    unsigned long long *most = (unsigned long long *)card(sizeof *most);
    memset(out, 0, 8 * sizeof *out);
    *sum = 0, *most = 0;
    LAUNCH(barrier_kernel, 5, 70, 0, NULL, out, sum, most);
    const int want[8] = {24, 1, 1, 0, 0}; /* 0, 3 .. 69 */
    EXPECT(memcmp(out, want, sizeof want) == 0);
    EXPECT(*sum == 2 * 5 * 70 && *most == 4069);
    cudaFree(out);
    cudaFree(sum);
    cudaFree(most);
}

/* ---- the runtime's functions --------------------------------------------------------------------- */

static void test_runtime(void)
{
    float *d = NULL, h[3] = {1, 2, 3}, back[3] = {0};
    cudaStream_t s = NULL;
    EXPECT(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking) == cudaSuccess);
    EXPECT(cudaMalloc(&d, sizeof h) == cudaSuccess && (uintptr_t)d % 256 == 0);
    EXPECT(cudaMemcpyAsync(back, d, sizeof back, cudaMemcpyDeviceToHost, s) == cudaSuccess &&
           back[2] != back[2]); /* fresh memory is NaN */
    EXPECT(cudaMemcpyAsync(d, h, sizeof h, cudaMemcpyHostToDevice, s) == cudaSuccess);
    EXPECT(cudaMemcpyAsync(back, d, sizeof back, cudaMemcpyDeviceToHost, s) == cudaSuccess);
    EXPECT(memcmp(h, back, sizeof h) == 0);
    EXPECT(cudaMemcpyAsync(h, d, sizeof h, cudaMemcpyHostToDevice, s) == cudaErrorInvalidValue);
    EXPECT(cudaMemcpyAsync(d, h, sizeof h + 1, cudaMemcpyHostToDevice, s) == cudaErrorInvalidValue);
    EXPECT(cudaGetLastError() == cudaErrorInvalidValue && cudaGetLastError() == cudaSuccess);
    EXPECT(cudaFreeHost(d) == cudaErrorInvalidValue && cudaFree(d) == cudaSuccess);
    EXPECT(cudaFree(d) == cudaErrorInvalidValue);
    EXPECT(cudaStreamDestroy(s) == cudaSuccess);
    EXPECT(cudaStreamSynchronize(s) == cudaErrorInvalidResourceHandle);
    EXPECT(cudaFuncSetAttribute(norm_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 1 << 20) ==
           cudaErrorInvalidValue);
    setenv("EMU_FAIL", "cudaMalloc:2", 1);
    EXPECT(cudaMalloc(&d, 4) == cudaSuccess && cudaFree(d) == cudaSuccess);
    EXPECT(cudaMalloc(&d, 4) == cudaErrorMemoryAllocation);
    EXPECT(cudaMalloc(&d, 4) == cudaSuccess && cudaFree(d) == cudaSuccess);
    unsetenv("EMU_FAIL");
    cudaGetLastError();
}

static __global__ void add_kernel(float *x, float a)
{
    x[threadIdx.x] += a;
}

/* Work is kept in its order with the arguments it was given, and runs at every launch. */
static void test_graphs(void)
{
    enum { N = 4 };
    float *d = NULL, *e = NULL, back[N];
    cudaStream_t s = NULL;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    EXPECT(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking) == cudaSuccess);
    EXPECT(cudaMalloc(&d, sizeof back) == cudaSuccess && cudaMalloc(&e, sizeof back) == cudaSuccess);
    EXPECT(cudaMemsetAsync(d, 0, sizeof back, s) == cudaSuccess);
    EXPECT(cudaStreamEndCapture(s, &graph) == cudaErrorInvalidValue);
    EXPECT(cudaStreamBeginCapture(s, cudaStreamCaptureModeRelaxed) == cudaSuccess);
    EXPECT(cudaStreamBeginCapture(s, cudaStreamCaptureModeRelaxed) == cudaErrorStreamCaptureUnsupported);
    cudaGetLastError();
    float a = 2;
    LAUNCH(add_kernel, 1, N, 0, s, d, a);
    a = 3;
    LAUNCH(add_kernel, 1, N, 0, s, d, a);
    EXPECT(cudaMemcpyAsync(e, d, sizeof back, cudaMemcpyDeviceToDevice, s) == cudaSuccess);
    EXPECT(cudaMemsetAsync(d, 0, sizeof *d, s) == cudaSuccess);
    EXPECT(cudaMemcpyAsync(back, d, sizeof back, cudaMemcpyDeviceToHost, s) == cudaErrorStreamCaptureUnsupported);
    EXPECT(cudaStreamSynchronize(s) == cudaErrorStreamCaptureUnsupported);
    EXPECT(cudaFree(d) == cudaErrorStreamCaptureUnsupported);
    EXPECT(cudaStreamEndCapture(s, &graph) == cudaSuccess);
    EXPECT(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess && cudaGraphDestroy(graph) == cudaSuccess);
    for (int i = 1; i <= 3; i++) {
        EXPECT(cudaGraphLaunch(exec, s) == cudaSuccess);
        EXPECT(cudaMemcpyAsync(back, e, sizeof back, cudaMemcpyDeviceToHost, s) == cudaSuccess);
        EXPECT(back[0] == 5 && back[N - 1] == 5 * i);
    }
    EXPECT(cudaGraphExecDestroy(exec) == cudaSuccess && cudaGraphExecDestroy(exec) == cudaErrorInvalidResourceHandle);
    EXPECT(cudaGraphLaunch(exec, s) == cudaErrorInvalidResourceHandle);
    EXPECT(cudaFree(d) == cudaSuccess && cudaFree(e) == cudaSuccess && cudaStreamDestroy(s) == cudaSuccess);
    cudaGetLastError();
}

static void test_arithmetic(void)
{
    EXPECT(max(3, 5u) == 5u && max(-1, 0u) == 0xffffffffu && min((int64_t)-7, (int64_t)2) == -7);
    EXPECT(max(__int_as_float(0x7fc00000), 2.0f) == 2.0f && min(1.0f, 2.0f) == 1.0f);
    EXPECT(__float_as_uint(-0.0f) == 0x80000000u && __umulhi(0xffffffffu, 16) == 15);
    EXPECT(__umul64hi(1ull << 63, 6) == 3 && __clzll(1) == 63 && __ffsll(0) == 0);
}

int main(void)
{
    static const char *const order[] = {"forward", "reverse", "random:1", "random:2"};
    for (int i = 0; i < 4; i++) {
        setenv("EMU_ORDER", order[i], 1);
        test_indices();
        test_block_sum();
        test_norm();
        test_warp();
        test_barriers();
        test_mma();
        test_async();
    }
    test_bf16();
    test_runtime();
    test_graphs();
    test_arithmetic();
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
