/* emu.h - CUDA C++ as a plain C++ library, so that kernels run on the CPU: one fiber per CUDA
 * thread, one block after another. Stands in for cuda_runtime.h behind cuda_shim.h; it has what the
 * kernels of this project use, and lacks on purpose what they must not (float atomics, masks left
 * out). What it checks, and how to run it: tests/README.md.
 *
 * A mistake ends the process with one line: "emu: KERNEL (launched at FILE:LINE), block (x,y,z),
 * thread (x,y,z): what is wrong". Environment:
 *   EMU_ORDER=forward|reverse|random:SEED   order of threads and of blocks
 *   EMU_FAIL=CALL:N[:CODE]                  the N-th call of CALL fails (2 = out of memory)
 *   EMU_CARDS=N                             number of cards (1)
 *   EMU_PROTECT=1                           the host may not touch memory of the card
 *   EMU_BLAS=ORDER[,ORDER]                  there is a library of products (emu_blas.h) */
#ifndef RLHF_EMU_H
#define RLHF_EMU_H

#include "tests/emu/emu_blas.h"

#include <functional>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <tuple>
#include <type_traits>

/* ---- words ------------------------------------------------------------------------------------ */

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__   static __attribute__((section("emu_shared")))

enum { warpSize = 32 };

/* ---- vector types ----------------------------------------------------------------------------- */

#define EMU_VECTORS(T, name, a2, a4)                                                               \
    struct __align__(a2) name##2 {                                                                 \
        T x, y;                                                                                    \
    };                                                                                             \
    struct name##3 {                                                                               \
        T x, y, z;                                                                                 \
    };                                                                                             \
    struct __align__(a4) name##4 {                                                                 \
        T x, y, z, w;                                                                              \
    };                                                                                             \
    static inline name##2 make_##name##2(T x, T y)                                                 \
    {                                                                                              \
        return {x, y};                                                                             \
    }                                                                                              \
    static inline name##3 make_##name##3(T x, T y, T z)                                            \
    {                                                                                              \
        return {x, y, z};                                                                          \
    }                                                                                              \
    static inline name##4 make_##name##4(T x, T y, T z, T w)                                       \
    {                                                                                              \
        return {x, y, z, w};                                                                       \
    }
EMU_VECTORS(float, float, 8, 16)
EMU_VECTORS(double, double, 16, 16)
EMU_VECTORS(int, int, 8, 16)
EMU_VECTORS(unsigned, uint, 8, 16)
EMU_VECTORS(long long, longlong, 16, 16)

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

/* ---- the running thread ----------------------------------------------------------------------- */

struct EmuThread;
struct EmuIndex {
    uint3 thread, block;
    dim3 block_dim, grid_dim;
};
extern EmuIndex *emu_now; /* NULL outside kernels */
#ifdef EMU_TSAN
EmuIndex *emu_index(void); /* the scheduler is not instrumented, so its variables are not watched */
#else
static inline EmuIndex *emu_index(void)
{
    return emu_now;
}
#endif
#define threadIdx (emu_index()->thread)
#define blockIdx  (emu_index()->block)
#define blockDim  (emu_index()->block_dim)
#define gridDim   (emu_index()->grid_dim)

/* A place in the source, taken where the call stands. */
#define EMU_HERE                                                                                   \
    const char *file = __builtin_FILE(), int line = __builtin_LINE()

typedef enum {
    EMU_SYNCWARP, EMU_SHFL, EMU_BALLOT, EMU_ADD, EMU_MIN, EMU_MAX, EMU_AND, EMU_OR, EMU_XOR,
    EMU_EXCHANGE, EMU_BARRIER, EMU_BARRIER_COUNT
} EmuOp;
/* Waits for the lanes of mask. SHFL: the value of lane `from`; the others combine 32-bit values
 * (MIN and MAX unsigned, of values with `flip` added). */
uint64_t emu_warp(EmuOp op, unsigned mask, uint64_t value, int from, const char *name,
                  const char *file, int line);
/* Waits for the block; the number of threads whose value was not 0. */
int emu_barrier(EmuOp op, int value, const char *name, const char *file, int line);
int emu_lane(void);
[[noreturn]] void emu_fail(const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static inline void __syncthreads(EMU_HERE)
{
    emu_barrier(EMU_BARRIER, 0, "__syncthreads", file, line);
}
static inline int __syncthreads_count(int p, EMU_HERE)
{
    return emu_barrier(EMU_BARRIER_COUNT, p, "__syncthreads_count", file, line);
}
static inline int __syncthreads_or(int p, EMU_HERE)
{
    return emu_barrier(EMU_BARRIER_COUNT, p, "__syncthreads_or", file, line) > 0;
}
static inline int __syncthreads_and(int p, EMU_HERE)
{
    return emu_barrier(EMU_BARRIER_COUNT, !p, "__syncthreads_and", file, line) == 0;
}
static inline void __syncwarp(unsigned mask = 0xffffffffu, EMU_HERE)
{
    emu_warp(EMU_SYNCWARP, mask, 0, 0, "__syncwarp", file, line);
}

/* ---- warp operations -------------------------------------------------------------------------- */

template <class T>
static inline T emu_shfl(unsigned mask, T x, int from, const char *name, const char *file, int line)
{
    static_assert(std::is_arithmetic<T>::value && (sizeof(T) == 4 || sizeof(T) == 8), "type");
    uint64_t bits = 0;
    memcpy(&bits, &x, sizeof x);
    bits = emu_warp(EMU_SHFL, mask, bits, from, name, file, line);
    memcpy(&x, &bits, sizeof x);
    return x;
}
/* A lane keeps its own value where the source would lie outside its segment of `width` lanes. */
template <class T>
static inline T __shfl_sync(unsigned mask, T x, int from, int width = 32, EMU_HERE)
{
    int base = emu_lane() & ~(width - 1);
    return emu_shfl(mask, x, base | (from & (width - 1)), "__shfl_sync", file, line);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T x, unsigned by, int width = 32, EMU_HERE)
{
    int lane = emu_lane(), base = lane & ~(width - 1), from = lane - (int)by;
    return emu_shfl(mask, x, from < base ? lane : from, "__shfl_up_sync", file, line);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T x, unsigned by, int width = 32, EMU_HERE)
{
    int lane = emu_lane(), end = (lane & ~(width - 1)) + width, from = lane + (int)by;
    return emu_shfl(mask, x, from >= end ? lane : from, "__shfl_down_sync", file, line);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T x, int by, int width = 32, EMU_HERE)
{
    int lane = emu_lane(), end = (lane & ~(width - 1)) + width, from = lane ^ by;
    return emu_shfl(mask, x, from >= end ? lane : from, "__shfl_xor_sync", file, line);
}
static inline unsigned __ballot_sync(unsigned mask, int p, EMU_HERE)
{
    return (unsigned)emu_warp(EMU_BALLOT, mask, p != 0, 0, "__ballot_sync", file, line);
}
static inline int __any_sync(unsigned mask, int p, EMU_HERE)
{
    return emu_warp(EMU_BALLOT, mask, p != 0, 0, "__any_sync", file, line) != 0;
}
static inline int __all_sync(unsigned mask, int p, EMU_HERE)
{
    return emu_warp(EMU_BALLOT, mask, p == 0, 0, "__all_sync", file, line) == 0;
}
#define EMU_REDUCE(name, op)                                                                       \
    static inline unsigned name(unsigned mask, unsigned x, EMU_HERE)                               \
    {                                                                                              \
        return (unsigned)emu_warp(op, mask, x, 0, #name, file, line);                              \
    }
EMU_REDUCE(__reduce_add_sync, EMU_ADD)
EMU_REDUCE(__reduce_min_sync, EMU_MIN)
EMU_REDUCE(__reduce_max_sync, EMU_MAX)
EMU_REDUCE(__reduce_and_sync, EMU_AND)
EMU_REDUCE(__reduce_or_sync, EMU_OR)
EMU_REDUCE(__reduce_xor_sync, EMU_XOR)
/* signed: the sign bit flipped keeps the order */
static inline int __reduce_add_sync(unsigned mask, int x, EMU_HERE)
{
    return (int)__reduce_add_sync(mask, (unsigned)x, file, line);
}
static inline int __reduce_min_sync(unsigned mask, int x, EMU_HERE)
{
    return (int)(__reduce_min_sync(mask, (unsigned)x ^ 0x80000000u, file, line) ^ 0x80000000u);
}
static inline int __reduce_max_sync(unsigned mask, int x, EMU_HERE)
{
    return (int)(__reduce_max_sync(mask, (unsigned)x ^ 0x80000000u, file, line) ^ 0x80000000u);
}

/* What operations of a whole warp are made of (common/runtime/cuda/ptx.h): waits for all 32 lanes; what
 * each has put up, n words of it, stays as it is until the caller's next operation. Orders nothing. */
enum { EMU_LANE_WORDS = 4 };
struct EmuLanes {
    uint64_t word[32][EMU_LANE_WORDS];
};
const EmuLanes *emu_exchange(const uint64_t *mine, int n, const char *name, const char *file,
                             int line);

/* ---- copies that go on while the thread does -------------------------------------------------- */

/* p is a multiple of n bytes in the block's shared memory. */
void emu_shared_access(const void *p, size_t n, const char *name, const char *file, int line);

/* cp.async: the destination is NaN from here on, and is written only when it is waited for, so that
 * neither a missing wait nor a buffer still read by others stays unseen. */
enum { EMU_ASYNC_COPIES = 64, EMU_ASYNC_GROUPS = 16 };
struct EmuAsync {
    struct {
        unsigned char *to;
        const unsigned char *from;
        int n;
    } copy[EMU_ASYNC_COPIES];
    int end[EMU_ASYNC_GROUPS]; /* of each group's copies */
    int n_copies, n_groups;
};
EmuAsync *emu_async(void); /* of the running thread */

static inline void emu_async_copy(void *to, const void *from, int n, const char *file, int line)
{
    EmuAsync *a = emu_async();
    emu_shared_access(to, 16, "cp_async16", file, line);
    if (n < 0 || n > 16 || (n > 0 && (uintptr_t)from % 16))
        emu_fail(file, line, "cp_async16 of %d bytes from %p", n, from);
    if (a->n_copies == EMU_ASYNC_COPIES)
        emu_fail(file, line, "cp_async16: more than %d copies on their way", EMU_ASYNC_COPIES);
    for (int i = 0; i < 16; i++)
        ((unsigned char *)to)[i] = 0xff;
    a->copy[a->n_copies++] = {(unsigned char *)to, (const unsigned char *)from, n};
}
static inline void emu_async_commit(const char *file, int line)
{
    EmuAsync *a = emu_async();
    if (a->n_groups == EMU_ASYNC_GROUPS)
        emu_fail(file, line, "cp_async_commit: more than %d groups on their way", EMU_ASYNC_GROUPS);
    a->end[a->n_groups++] = a->n_copies;
}
static inline void emu_async_wait(int left)
{
    EmuAsync *a = emu_async();
    int done = a->n_groups > left ? a->n_groups - left : 0, n = done ? a->end[done - 1] : 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < 16; j++)
            a->copy[i].to[j] = j < a->copy[i].n ? a->copy[i].from[j] : 0;
    for (int i = n; i < a->n_copies; i++)
        a->copy[i - n] = a->copy[i];
    for (int i = done; i < a->n_groups; i++)
        a->end[i - done] = a->end[i] - n;
    a->n_copies -= n;
    a->n_groups -= done;
}

/* ---- atomics: integers alone ------------------------------------------------------------------- */

template <class T> struct EmuAtomicType { /* int, unsigned, unsigned long long, as in CUDA */
    static const bool ok = std::is_same<T, int>::value || std::is_same<T, unsigned>::value ||
                           std::is_same<T, unsigned long long>::value;
};
#define EMU_ATOMIC(name, new_value)                                                                \
    template <class T> static inline T name(T *p, typename std::common_type<T>::type x)            \
    {                                                                                              \
        static_assert(EmuAtomicType<T>::ok, "atomics are for integers");                           \
        T old = __atomic_load_n(p, __ATOMIC_RELAXED);                                              \
        while (!__atomic_compare_exchange_n(p, &old, (new_value), false, __ATOMIC_RELAXED,         \
                                            __ATOMIC_RELAXED))                                     \
            ;                                                                                      \
        return old;                                                                                \
    }
EMU_ATOMIC(atomicAdd, old + x)
EMU_ATOMIC(atomicSub, old - x)
EMU_ATOMIC(atomicExch, x)
EMU_ATOMIC(atomicMin, old < x ? old : x)
EMU_ATOMIC(atomicMax, old > x ? old : x)
EMU_ATOMIC(atomicAnd, old & x)
EMU_ATOMIC(atomicOr, old | x)
EMU_ATOMIC(atomicXor, old ^ x)
template <class T>
static inline T atomicCAS(T *p, typename std::common_type<T>::type expected,
                          typename std::common_type<T>::type x)
{
    static_assert(EmuAtomicType<T>::ok, "atomics are for integers");
    __atomic_compare_exchange_n(p, &expected, x, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}
static inline void __threadfence(void) {}
static inline void __threadfence_block(void) {}

/* ---- arithmetic -------------------------------------------------------------------------------- */

template <class To, class From> static inline To emu_bits(From x)
{
    static_assert(sizeof(To) == sizeof(From), "size");
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}
static inline float __int_as_float(int x) { return emu_bits<float>(x); }
static inline int __float_as_int(float x) { return emu_bits<int>(x); }
static inline float __uint_as_float(unsigned x) { return emu_bits<float>(x); }
static inline unsigned __float_as_uint(float x) { return emu_bits<unsigned>(x); }
static inline double __longlong_as_double(long long x) { return emu_bits<double>(x); }
static inline long long __double_as_longlong(double x) { return emu_bits<long long>(x); }

static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
template <class T> static inline T __ldg(const T *p)
{
    return *p;
}

/* Integers like CUDA's overloads: mixed signs compare unsigned; of floats a NaN loses. */
template <class A, class B>
static inline typename std::enable_if<std::is_integral<A>::value && std::is_integral<B>::value,
                                      typename std::common_type<A, B>::type>::type
min(A a, B b)
{
    typedef typename std::common_type<A, B>::type T;
    return (T)a < (T)b ? (T)a : (T)b;
}
template <class A, class B>
static inline typename std::enable_if<std::is_integral<A>::value && std::is_integral<B>::value,
                                      typename std::common_type<A, B>::type>::type
max(A a, B b)
{
    typedef typename std::common_type<A, B>::type T;
    return (T)a > (T)b ? (T)a : (T)b;
}
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

/* ---- launches ---------------------------------------------------------------------------------- */

typedef struct EmuStream *cudaStream_t;

struct EmuLaunch {
    const char *name, *file;
    int line;
    const void *kernel;
    dim3 grid, block;
    size_t dynamic_bytes;
    cudaStream_t stream;
    void (*run)(const void *args); /* the kernel's body for the thread that calls it */
    const void *args;
};
void emu_launch(const EmuLaunch *launch);
/* Between cudaStreamBeginCapture and cudaStreamEndCapture of the stream: keeps the work and returns true. */
bool emu_record(cudaStream_t stream, const std::function<void()> &work);

/* Arguments are converted to the parameters' types once, as by a call, and copied to each thread. */
template <class... P>
static inline void emu_launch_args(EmuLaunch launch, void (*kernel)(P...),
                                   typename std::common_type<P>::type... args)
{
    struct Call {
        void (*kernel)(P...);
        std::tuple<P...> args;
    } call = {kernel, std::tuple<P...>(args...)};
    launch.kernel = (const void *)kernel;
    launch.run = [](const void *p) {
        const Call *c = (const Call *)p;
        std::apply(c->kernel, c->args);
    };
    bool recorded = emu_record(launch.stream, [launch, call]() {
        EmuLaunch again = launch;
        again.args = &call;
        emu_launch(&again);
    });
    launch.args = &call;
    if (!recorded)
        emu_launch(&launch);
}
#define LAUNCH(kernel, grid, block, smem, stream, ...)                                             \
    do {                                                                                           \
        emu_launch_args(EmuLaunch{#kernel, __FILE__, __LINE__, NULL, (grid), (block), (smem),      \
                                  (stream), NULL, NULL},                                           \
                        kernel, __VA_ARGS__);                                                      \
        CUDA_CALL(cudaGetLastError());                                                             \
    } while (0)

void *emu_dynamic_shared(const char *file, int line);
#define DYN_SHARED(T, name) T *name = (T *)emu_dynamic_shared(__FILE__, __LINE__)

static inline void emu_aligned(const void *p, size_t bytes, const char *file, int line)
{
    if (!p || (uintptr_t)p % bytes)
        emu_fail(file, line, "vector access at %p, which is %s", p,
                 p ? "misaligned" : "a null pointer");
}
#define SHIM_BLAS_LIBRARY()           emu_blas_library()
#define SHIM_SYMBOL(library, name)    ((void)(library), (void *)name)
/* The line of the caller where the helper is inlined is not known: the helper's own. */
#define SHIM_ALIGNED(p, bytes) emu_aligned((p), (bytes), __FILE__, __LINE__)

/* ---- the runtime's functions (emu_rt.cpp) -------------------------------------------------------- */

typedef enum {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorStubLibrary = 34,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchFailure = 719,
    cudaErrorStreamCaptureUnsupported = 900,
} cudaError_t;
typedef enum {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault,
} cudaMemcpyKind;
typedef enum {
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
    cudaFuncAttributePreferredSharedMemoryCarveout = 9,
} cudaFuncAttribute;
enum {
    cudaStreamNonBlocking = 1,
    cudaEventDisableTiming = 2,
    cudaMemAttachGlobal = 1,
};
struct cudaDeviceProp {
    char name[256];
    int major, minor, multiProcessorCount, warpSize, maxThreadsPerBlock;
    size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin, sharedMemPerMultiprocessor;
};
typedef struct EmuEvent *cudaEvent_t;
typedef struct EmuGraph *cudaGraph_t, *cudaGraphExec_t;
typedef enum {
    cudaStreamCaptureModeGlobal,
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed,
} cudaStreamCaptureMode;

const char *cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError(void);
cudaError_t cudaPeekAtLastError(void);
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *prop, int device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaDeviceSynchronize(void);
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes);
cudaError_t emu_malloc(void **p, size_t bytes, const char *call);
template <class T> static inline cudaError_t cudaMalloc(T **p, size_t bytes)
{
    return emu_malloc((void **)p, bytes, "cudaMalloc");
}
template <class T> static inline cudaError_t cudaMallocHost(T **p, size_t bytes)
{
    return emu_malloc((void **)p, bytes, "cudaMallocHost");
}
template <class T>
static inline cudaError_t cudaMallocManaged(T **p, size_t bytes, unsigned = cudaMemAttachGlobal)
{
    return emu_malloc((void **)p, bytes, "cudaMallocManaged");
}
cudaError_t cudaFree(void *p);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = NULL);
cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream = NULL);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = NULL);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
/* Kernels, copies on the card and memsets of the stream are kept; what needs the host meanwhile is an error. */
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);

/* 48 KiB of dynamic shared memory, more after cudaFuncSetAttribute up to what sm_80 has. */
enum { EMU_SMEM_DEFAULT = 48 << 10, EMU_SMEM_OPTIN = 163 << 10 };
cudaError_t emu_set_attribute(const void *kernel, cudaFuncAttribute attribute, int value);
size_t emu_smem_limit(const void *kernel);
bool emu_stream_is_live(cudaStream_t stream);
void emu_card_memory(bool open); /* to the host, under EMU_PROTECT */
template <class... P>
static inline cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute,
                                               int value)
{
    return emu_set_attribute((const void *)kernel, attribute, value);
}

#endif
