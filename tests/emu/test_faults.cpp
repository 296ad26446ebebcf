/* test_faults.cpp - planted faults: each is a small kernel with one mistake, and the check that is
 * there for it must name it. A fault runs in a process of its own (test_faults NAME); what it prints
 * is searched for the check's words. Some checks are in one build only: overruns in the one with the
 * address sanitizer, races in the one with the thread sanitizer. Mistakes that change results with
 * the order of threads or blocks run in four orders, of which two must differ. */
#include "common/runtime/cuda/ptx.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N = 64 }; /* two warps */

static float *card(int n) /* zeros */
{
    float *p = NULL;
    CUDA_CALL(cudaMalloc(&p, (size_t)n * sizeof *p));
    CUDA_CALL(cudaMemsetAsync(p, 0, (size_t)n * sizeof *p, NULL));
    return p;
}

static void show(const float *p, int n)
{
    for (int i = 0; i < n; i++)
        printf("%08x ", k_bits(p[i]));
    putchar('\n');
}

/* What a fault's launcher does with a kernel of (out, in). */
#define RUN(kernel, threads)                                                                       \
    do {                                                                                           \
        float *out = card(N), *in = card(N + 4);                                                   \
        for (int i = 0; i < N; i++)                                                                \
            in[i] = (float)i;                                                                      \
        LAUNCH(kernel, 1, threads, 64 * sizeof(float), NULL, out, in);                             \
        show(out, N);                                                                              \
        cudaFree(out);                                                                             \
        cudaFree(in);                                                                              \
    } while (0)

/* ---- barriers ------------------------------------------------------------------------------------ */

static __global__ void barrier_missing_kernel(float *out, const float *in)
{
    __shared__ float s[N];
    s[threadIdx.x] = in[threadIdx.x];
    out[threadIdx.x] = s[N - 1 - threadIdx.x];
}
static void barrier_missing(void)
{
    RUN(barrier_missing_kernel, N);
}

/* Read, barrier missing, written again for the next use. */
static __global__ void reuse_kernel(float *out, const float *in)
{
    __shared__ float s[N];
    s[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    float a = s[N - 1 - threadIdx.x];
    s[threadIdx.x] = a;
    __syncthreads();
    out[threadIdx.x] = s[N - 1 - threadIdx.x];
}
static void reuse(void)
{
    RUN(reuse_kernel, N);
}

static __global__ void syncwarp_missing_kernel(float *out, const float *in)
{
    __shared__ float s[N];
    s[threadIdx.x] = in[threadIdx.x];
    float a = __shfl_sync(FULL_MASK, in[threadIdx.x], 0); /* orders nothing */
    out[threadIdx.x] = a + s[threadIdx.x ^ 1];
}
static void syncwarp_missing(void)
{
    RUN(syncwarp_missing_kernel, N);
}

static __global__ void barrier_divergent_kernel(float *out, const float *in)
{
    if (threadIdx.x < 20)
        __syncthreads();
    out[threadIdx.x] = in[threadIdx.x];
}
static void barrier_divergent(void)
{
    RUN(barrier_divergent_kernel, N);
}

static __global__ void barrier_two_lines_kernel(float *out, const float *in)
{
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = in[threadIdx.x];
}
static void barrier_two_lines(void)
{
    RUN(barrier_two_lines_kernel, N);
}

static __global__ void barrier_after_return_kernel(float *out, const float *in)
{
    if (threadIdx.x >= 50)
        return;
    out[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
}
static void barrier_after_return(void)
{
    RUN(barrier_after_return_kernel, N);
}

/* ---- warps --------------------------------------------------------------------------------------- */

static __global__ void shuffle_divergent_kernel(float *out, const float *in)
{
    float a = in[threadIdx.x];
    if (threadIdx.x < 20)
        a += __shfl_xor_sync(FULL_MASK, a, 1);
    __syncthreads();
    out[threadIdx.x] = a;
}
static void shuffle_divergent(void)
{
    RUN(shuffle_divergent_kernel, N);
}

static __global__ void shuffle_short_warp_kernel(float *out, const float *in)
{
    out[threadIdx.x] = warp_sum_tree(in[threadIdx.x]);
}
static void shuffle_short_warp(void)
{
    RUN(shuffle_short_warp_kernel, 40);
}

static __global__ void shuffle_outside_kernel(float *out, const float *in)
{
    if (threadIdx.x < 16)
        out[threadIdx.x] = __shfl_sync(0x0000ffffu, in[threadIdx.x], 16);
}
static void shuffle_outside(void)
{
    RUN(shuffle_outside_kernel, 32);
}

static __global__ void shuffle_other_mask_kernel(float *out, const float *in)
{
    out[threadIdx.x] = __shfl_sync(0x0000ffffu, in[threadIdx.x], 0);
}
static void shuffle_other_mask(void)
{
    RUN(shuffle_other_mask_kernel, 32);
}

/* ---- memory -------------------------------------------------------------------------------------- */

static __global__ void overrun_global_kernel(float *out, const float *in)
{
    out[threadIdx.x + 1] = in[threadIdx.x];
}
static void overrun_global(void)
{
    RUN(overrun_global_kernel, N);
}

static __global__ void overrun_dynamic_kernel(float *out, const float *in)
{
    DYN_SHARED(float, s);
    s[threadIdx.x + 1] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
}
static void overrun_dynamic(void)
{
    RUN(overrun_dynamic_kernel, N);
}

static __global__ void overrun_shared_kernel(float *out, const float *in)
{
    __shared__ float s[N];
    float *next = s + (int)in[threadIdx.x] + 1;
    asm("" : "+r"(next)); /* where it points to is not known: only the address tells */
    *next = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
}
static void overrun_shared(void)
{
    RUN(overrun_shared_kernel, N);
}

/* Poison shows as NaN whatever the order. */
static __global__ void unwritten_kernel(float *out, const float *in)
{
    __shared__ float s[N];
    if (threadIdx.x != 7)
        s[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x] * 0;
    if (s[threadIdx.x] != s[threadIdx.x])
        emu_fail(__FILE__, __LINE__, "read NaN");
}
static void unwritten(void)
{
    RUN(unwritten_kernel, N);
}

static __global__ void vector_kernel(float *out, const float *in)
{
    store4(out, load4(in));
}
static void vector_misaligned(void)
{
    float *p = card(N);
    LAUNCH(vector_kernel, 1, 1, 0, NULL, p, p + 5);
}
static void vector_null(void)
{
    LAUNCH(vector_kernel, 1, 1, 0, NULL, card(N), (const float *)NULL);
}

static __global__ void index_kernel(float *out, int row, int width)
{
    out[(row * width) % N] = 1; /* in 32 bits */
}
static void index_overflow(void)
{
    LAUNCH(index_kernel, 1, 1, 0, NULL, card(N), 70000, 70000);
}

/* ---- copies on their way, operations of a whole warp ---------------------------------------------- */

/* One group is waited for, the copy is in the second. */
static __global__ void async_wait_missing_kernel(float *out, const float *in)
{
    __shared__ __align__(16) float s[2 * N];
    for (int i = 0; i < 2; i++) {
        if (threadIdx.x < N / 4)
            cp_async16(s + i * N + 4 * threadIdx.x, in + 4 * threadIdx.x, 16);
        cp_async_commit();
    }
    cp_async_wait(1);
    __syncthreads();
    if (s[N + threadIdx.x] != s[N + threadIdx.x])
        emu_fail(__FILE__, __LINE__, "read NaN");
    cp_async_wait(0);
    out[threadIdx.x] = s[threadIdx.x];
}
static void async_wait_missing(void)
{
    RUN(async_wait_missing_kernel, N);
}

static __global__ void async_left_kernel(float *out, const float *in)
{
    __shared__ __align__(16) float s[4 * N];
    cp_async16(s + 4 * threadIdx.x, in, 16);
    cp_async_commit();
    out[threadIdx.x] = in[threadIdx.x];
}
static void async_left(void)
{
    RUN(async_left_kernel, N);
}

/* Copied into again while the other warp may still read. */
static __global__ void async_reuse_kernel(float *out, const float *in)
{
    __shared__ __align__(16) float s[4 * N];
    float sum = 0;
    for (int i = 0; i < 2; i++) {
        cp_async16(s + 4 * threadIdx.x, in + 4 * (threadIdx.x % 16), 16);
        cp_async_commit();
        cp_async_wait(0);
        __syncthreads();
        sum += s[4 * (N - 1 - threadIdx.x)];
    }
    out[threadIdx.x] = sum;
}
static void async_reuse(void)
{
    RUN(async_reuse_kernel, N);
}

static __global__ void async_global_kernel(float *out, const float *in)
{
    cp_async16(out + 4 * threadIdx.x, in, 16);
    cp_async_commit();
    cp_async_wait(0);
}
static void async_global(void)
{
    RUN(async_global_kernel, 8);
}

static __global__ void async_misaligned_kernel(float *out, const float *in)
{
    __shared__ __align__(16) float s[N + 4];
    cp_async16(s + threadIdx.x, in, 16);
    cp_async_commit();
    cp_async_wait(0);
    out[threadIdx.x] = s[threadIdx.x];
}
static void async_misaligned(void)
{
    RUN(async_misaligned_kernel, 8);
}

static __global__ void mma_divergent_kernel(float *out, const float *in)
{
    const uint32_t a[4] = {1, 2, 3, 4};
    float c[4] = {0, 0, 0, 0};
    if (threadIdx.x != 40)
        mma_bf16(c, a, a);
    out[threadIdx.x] = c[0] + in[threadIdx.x];
    __syncthreads();
}
static void mma_divergent(void)
{
    RUN(mma_divergent_kernel, N);
}

static __global__ void ldmatrix_misaligned_kernel(float *out, const float *in)
{
    __shared__ __align__(16) float s[N];
    uint32_t x[4];
    s[threadIdx.x] = in[threadIdx.x];
    s[threadIdx.x + 32] = in[threadIdx.x];
    __syncwarp();
    ldmatrix_x4(x, (const uint16_t *)(s + threadIdx.x));
    out[threadIdx.x] = (float)x[0];
}
static void ldmatrix_misaligned(void)
{
    RUN(ldmatrix_misaligned_kernel, 32);
}

/* Rows that other lanes have written, without a barrier. */
static __global__ void ldmatrix_unordered_kernel(float *out, const float *in)
{
    __shared__ __align__(16) float s[4 * 32];
    uint32_t x[4];
    for (int i = 0; i < 4; i++)
        s[4 * threadIdx.x + i] = in[threadIdx.x];
    ldmatrix_x4(x, (const uint16_t *)(s + 4 * threadIdx.x));
    out[threadIdx.x] = (float)x[0];
}
static void ldmatrix_unordered(void)
{
    RUN(ldmatrix_unordered_kernel, 32);
}

/* ---- order of blocks ----------------------------------------------------------------------------- */

/* A float atomic made of integer ones: its sum depends on who comes first. */
static __global__ void atomic_sum_kernel(float *out, const float *in)
{
    unsigned *word = (unsigned *)out, old = *word, seen;
    for (;;) {
        seen = atomicCAS(word, old, __float_as_uint(__uint_as_float(old) + in[blockIdx.x]));
        if (seen == old)
            break;
        old = seen;
    }
}
static void atomic_sum(void)
{
    float *out = card(1), *in = card(N);
    for (int i = 0; i < N; i++)
        in[i] = 1.0f / (float)(i * i + 1);
    LAUNCH(atomic_sum_kernel, N, 1, 0, NULL, out, in);
    show(out, 1);
}

/* A block reads what another writes in the same launch. */
static __global__ void neighbour_kernel(float *out)
{
    out[blockIdx.x] = out[(blockIdx.x + 1) % gridDim.x] + 1;
}
static void neighbour(void)
{
    float *out = card(N);
    LAUNCH(neighbour_kernel, N, 1, 0, NULL, out);
    show(out, N);
}

/* ---- launches ------------------------------------------------------------------------------------ */

static __global__ void empty_kernel(int) {}
static void launch_block(void)
{
    LAUNCH(empty_kernel, 1, 1025, 0, NULL, 0);
}
static void launch_empty(void)
{
    LAUNCH(empty_kernel, 0, 32, 0, NULL, 0);
}
static void launch_grid(void)
{
    LAUNCH(empty_kernel, dim3(1, 65536), 32, 0, NULL, 0);
}
static void launch_smem(void)
{
    LAUNCH(empty_kernel, 1, 32, 48 * 1024 + 4, NULL, 0);
}
static void launch_stream(void)
{
    cudaStream_t s;
    cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
    cudaStreamDestroy(s);
    LAUNCH(empty_kernel, 1, 32, 0, s, 0);
}
static void copy_overrun(void)
{
    float *p = card(4), x[8] = {0};
    CUDA_CALL(cudaMemcpyAsync(p, x, sizeof x, cudaMemcpyHostToDevice, NULL));
}

/* A recording keeps work of the card alone. */
static cudaStream_t recording(void)
{
    cudaStream_t s;
    CUDA_CALL(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    CUDA_CALL(cudaStreamBeginCapture(s, cudaStreamCaptureModeRelaxed));
    return s;
}
static void graph_waits(void)
{
    CUDA_CALL(cudaStreamSynchronize(recording()));
}
static void graph_uploads(void)
{
    float *p = card(4), x[4] = {0};
    CUDA_CALL(cudaMemcpyAsync(p, x, sizeof x, cudaMemcpyHostToDevice, recording()));
}
static void graph_allocates(void)
{
    float *p;
    recording();
    CUDA_CALL(cudaMalloc(&p, 4));
}
static void graph_is_gone(void)
{
    cudaStream_t s = recording();
    cudaGraph_t graph;
    CUDA_CALL(cudaStreamEndCapture(s, &graph));
    CUDA_CALL(cudaGraphDestroy(graph));
    CUDA_CALL(cudaGraphLaunch(graph, s));
}

/* Managed memory is for both sides, the card's for kernels and copies. */
static void host_reads_card(void)
{
    setenv("EMU_PROTECT", "1", 1);
    float *p = card(4), x[4];
    LAUNCH(index_kernel, 1, 1, 0, NULL, p, 0, 0);
    CUDA_CALL(cudaMemcpyAsync(x, p, sizeof x, cudaMemcpyDeviceToHost, NULL));
    printf("copied %g, read %g\n", (double)x[0], (double)*(volatile float *)p);
}

/* ---- the list ------------------------------------------------------------------------------------ */

typedef enum { ALWAYS, PLAIN, ADDRESS, THREAD, ORDERS } Build;

static const struct Fault {
    const char *name;
    void (*run)(void);
    Build build;
    const char *words[2];
} faults[] = {
    {"barrier_missing", barrier_missing, ORDERS, {}},
    {"barrier_missing", barrier_missing, THREAD, {"data race", "in barrier_missing_kernel"}},
    {"reuse", reuse, THREAD, {"data race", "in reuse_kernel"}},
    {"syncwarp_missing", syncwarp_missing, THREAD, {"data race", "in syncwarp_missing_kernel"}},
    {"barrier_divergent", barrier_divergent, ALWAYS, {"__syncthreads with exited threads", "thread (0,0,0)"}},
    {"barrier_two_lines", barrier_two_lines, ALWAYS, {"divergent barrier", "thread (32,0,0) waits at"}},
    {"barrier_after_return", barrier_after_return, ALWAYS, {"__syncthreads with exited threads", "(50,0,0) has returned"}},
    {"shuffle_divergent", shuffle_divergent, ALWAYS, {"a lane of the mask never arrived", "lane 20 waits at"}},
    {"shuffle_short_warp", shuffle_short_warp, ALWAYS, {"a lane of the mask never arrived", "lane 8, the block ends"}},
    {"shuffle_outside", shuffle_outside, ALWAYS, {"reads lane 16, which is not in mask", ""}},
    {"shuffle_other_mask", shuffle_other_mask, ALWAYS, {"by a lane that is not in mask", "0000ffff"}},
    {"overrun_global", overrun_global, ADDRESS, {"heap-buffer-overflow", "in overrun_global_kernel"}},
    {"overrun_dynamic", overrun_dynamic, ADDRESS, {"heap-buffer-overflow", "in overrun_dynamic_kernel"}},
    {"overrun_shared", overrun_shared, ADDRESS, {"global-buffer-overflow", "in overrun_shared_kernel"}},
    {"index_overflow", index_overflow, ADDRESS, {"signed integer overflow: 70000 * 70000", ""}},
    {"unwritten", unwritten, ALWAYS, {"read NaN", "thread (7,0,0)"}},
    {"vector_misaligned", vector_misaligned, ALWAYS, {"vector access", "misaligned"}},
    {"vector_null", vector_null, ALWAYS, {"vector access", "null pointer"}},
    {"async_wait_missing", async_wait_missing, ALWAYS, {"read NaN", "async_wait_missing_kernel"}},
    {"async_left", async_left, ALWAYS, {"copies of cp_async16 are on their way", "async_left_kernel"}},
    {"async_reuse", async_reuse, THREAD, {"data race", "in async_reuse_kernel"}},
    {"async_global", async_global, ALWAYS, {"cp_async16 at", "not in shared memory"}},
    {"async_misaligned", async_misaligned, ALWAYS, {"cp_async16 at", "misaligned"}},
    {"mma_divergent", mma_divergent, ALWAYS, {"mma_bf16", "a lane of the mask never arrived: lane 8"}},
    {"ldmatrix_misaligned", ldmatrix_misaligned, ALWAYS, {"ldmatrix at", "misaligned"}},
    {"ldmatrix_unordered", ldmatrix_unordered, THREAD, {"data race", "in ldmatrix_x4"}},
    {"atomic_sum", atomic_sum, ORDERS, {}},
    {"neighbour", neighbour, ORDERS, {}},
    {"launch_block", launch_block, ALWAYS, {"a block of (1025,1,1) threads", "empty_kernel"}},
    {"launch_empty", launch_empty, ALWAYS, {"a grid of (0,1,1) blocks", "empty_kernel"}},
    {"launch_grid", launch_grid, ALWAYS, {"a grid of (1,65536,1) blocks", ""}},
    {"launch_smem", launch_smem, ALWAYS, {"49156 bytes of dynamic shared memory", "49152"}},
    {"launch_stream", launch_stream, ALWAYS, {"a stream that does not exist", ""}},
    {"host_reads_card", host_reads_card, PLAIN, {"the host touched memory of the card", ""}},
    {"graph_waits", graph_waits, ALWAYS, {"CUDA: operation not permitted when stream is capturing", "cudaStreamSynchronize"}},
    {"graph_uploads", graph_uploads, ALWAYS, {"CUDA: operation not permitted when stream is capturing", "cudaMemcpyAsync"}},
    {"graph_allocates", graph_allocates, ALWAYS, {"CUDA: operation not permitted when stream is capturing", "cudaMalloc"}},
    {"graph_is_gone", graph_is_gone, ALWAYS, {"CUDA: invalid resource handle", "cudaGraphLaunch"}},
    {"copy_overrun", copy_overrun, ALWAYS, {"CUDA: invalid argument", ""}},
};

static bool is_this_build(Build b)
{
#ifdef EMU_ASAN
    return b != THREAD && b != PLAIN;
#elif defined(EMU_TSAN)
    return b == ALWAYS || b == THREAD;
#else
    return b != ADDRESS && b != THREAD;
#endif
}

/* What `test_faults NAME` prints on both streams under an order. */
static void output_of(const char *name, const char *order, char *text, size_t size)
{
    int fd[2];
    if (pipe(fd) < 0)
        abort();
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fd[1], 1);
        dup2(fd[1], 2);
        close(fd[0]);
        setenv("EMU_ORDER", order, 1);
        execl("/proc/self/exe", "test_faults", name, (char *)NULL);
        _exit(127);
    }
    close(fd[1]);
    size_t used = 0;
    ssize_t n;
    char rest[4096]; /* a report longer than the text is read to its end */
    while ((n = read(fd[0], used < size - 1 ? text + used : rest,
                     used < size - 1 ? size - 1 - used : sizeof rest)) > 0)
        used += used < size - 1 ? (size_t)n : 0;
    text[used] = 0;
    close(fd[0]);
    waitpid(pid, NULL, 0);
}

static bool is_caught(const Fault *f)
{
    static const char *const order[] = {"forward", "reverse", "random:1", "random:2"};
    static char first[1 << 16], text[1 << 16];
    bool differs = false;
    for (int i = 0; i < 4; i++) {
        output_of(f->name, order[i], text, sizeof text);
        if (f->build == ORDERS) {
            if (i == 0)
                memcpy(first, text, sizeof first);
            differs = differs || strcmp(first, text) != 0;
        } else if (!strstr(text, f->words[0]) || !strstr(text, f->words[1])) {
            printf("%s, %s: no '%s' and '%s' in:\n%.2000s\n", f->name, order[i], f->words[0],
                   f->words[1], text);
            return false;
        }
    }
    if (f->build == ORDERS && !differs)
        printf("%s: the same in every order: %s\n", f->name, first);
    return f->build != ORDERS || differs;
}

int main(int argc, char **argv)
{
    int passed = 0, failed = 0;
    for (const Fault &f : faults) {
        if (argc > 1 && strcmp(argv[1], f.name) == 0) {
            f.run();
            return 0;
        }
        if (argc > 1 || !is_this_build(f.build))
            continue;
        if (is_caught(&f))
            passed++;
        else
            failed++;
    }
    if (argc > 1)
        return 2;
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
