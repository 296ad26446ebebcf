/* emu_rt.cpp - the CUDA runtime's functions over the host's memory. Copies and kernels are done when
 * the call returns. Memory of the card has its exact size, so that the address sanitizer sees every
 * overrun, and begins as NaN; a copy whose pointers do not fit its kind is an error as in CUDA. */
#include "tests/emu/emu.h"

#include <map>
#include <mutex>
#include <set>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

struct EmuGraph {
    std::vector<std::function<void()>> work;
};
struct EmuStream {
    EmuGraph *recording; /* NULL: none */
};
struct EmuEvent {
    bool recorded;
};
enum Kind { DEVICE, PINNED, MANAGED };
struct Block {
    size_t bytes;
    Kind kind;
};

struct Runtime {
    std::map<uintptr_t, Block> memory; /* by address */
    std::set<const void *> streams, events, graphs;
    int n_recording; /* streams that record */
    std::map<const void *, int> smem; /* what kernels opted in to */
    size_t used;
    int n_calls; /* of the call EMU_FAIL names */
    char fail[64];
};

static std::mutex lock;
static thread_local cudaError_t last_error = cudaSuccess;
static Runtime &rt = *new Runtime(); /* outlives static objects, and what it points at is no leak */

static cudaError_t result(cudaError_t error)
{
    if (error != cudaSuccess)
        last_error = error;
    return error;
}

/* Whether EMU_FAIL=CALL:N[:CODE] says that this call fails: then its code. */
static cudaError_t planned(const char *call)
{
    const char *plan = getenv("EMU_FAIL");
    size_t n = strlen(call);
    if (!plan || strncmp(plan, call, n) != 0 || plan[n] != ':')
        return cudaSuccess;
    if (strcmp(plan, rt.fail) != 0) {
        snprintf(rt.fail, sizeof rt.fail, "%s", plan);
        rt.n_calls = 0;
    }
    char *end;
    if (++rt.n_calls != strtol(plan + n + 1, &end, 10))
        return cudaSuccess;
    return *end == ':' ? (cudaError_t)atoi(end + 1) : cudaErrorMemoryAllocation;
}
#define BEGIN                                                                                      \
    std::lock_guard<std::mutex> guard(lock);                                                       \
    cudaError_t planned_ = planned(__func__);                                                      \
    if (planned_ != cudaSuccess)                                                                   \
    return result(planned_)

/* ---- errors, cards ------------------------------------------------------------------------------- */

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorStubLibrary:
        return "CUDA driver is a stub library";
    case cudaErrorInsufficientDriver:
        return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle:
        return "invalid resource handle";
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorIllegalAddress:
        return "an illegal memory access was encountered";
    default:
        return "unknown error";
    }
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

static int cards(void)
{
    const char *n = getenv("EMU_CARDS");
    return n ? atoi(n) : 1;
}

cudaError_t cudaGetDeviceCount(int *n)
{
    BEGIN;
    *n = cards();
    return result(*n > 0 ? cudaSuccess : cudaErrorNoDevice);
}

static size_t machine_bytes(void)
{
    return (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *prop, int device)
{
    BEGIN;
    if (device < 0 || device >= cards())
        return result(cudaErrorInvalidDevice);
    memset(prop, 0, sizeof *prop);
    snprintf(prop->name, sizeof prop->name, "host shim");
    prop->major = 8; /* the least that the real build serves */
    prop->multiProcessorCount = 4;
    prop->warpSize = warpSize;
    prop->maxThreadsPerBlock = 1024;
    prop->totalGlobalMem = machine_bytes();
    prop->sharedMemPerBlock = EMU_SMEM_DEFAULT;
    prop->sharedMemPerBlockOptin = EMU_SMEM_OPTIN;
    prop->sharedMemPerMultiprocessor = EMU_SMEM_OPTIN + 1024;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    BEGIN;
    return result(device >= 0 && device < cards() ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaGetDevice(int *device)
{
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    BEGIN;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    BEGIN;
    *total_bytes = machine_bytes();
    *free_bytes = *total_bytes - (rt.used < *total_bytes ? rt.used : *total_bytes);
    return cudaSuccess;
}

/* ---- memory -------------------------------------------------------------------------------------- */

/* EMU_PROTECT=1: memory of the card is closed to the host, and open while a kernel or a copy runs; the
 * host's reading it, which works here and nowhere else, stops the process. Costs two system calls a
 * block of memory and launch. The address sanitizer needs malloc's memory, so not there. */
static bool protects(void)
{
#if defined(EMU_ASAN) || defined(EMU_TSAN)
    return false;
#else
    static const char *const on = getenv("EMU_PROTECT");
    return on && strcmp(on, "1") == 0;
#endif
}

static void touched(int signal_number, siginfo_t *info, void *)
{
    for (const auto &block : rt.memory)
        if (block.second.kind == DEVICE && (uintptr_t)info->si_addr - block.first < block.second.bytes) {
            static const char text[] = "emu: outside kernels: the host touched memory of the card\n";
            if (write(2, text, sizeof text - 1) < 0)
                break;
        }
    signal(signal_number, SIG_DFL); /* and happens again */
}

void emu_card_memory(bool open)
{
    if (!protects())
        return;
    for (const auto &block : rt.memory)
        if (block.second.kind == DEVICE)
            mprotect((void *)block.first, block.second.bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

static bool take(void **p, size_t bytes, bool closed)
{
    if (!closed)
        return posix_memalign(p, 256, bytes) == 0;
    struct sigaction action = {};
    action.sa_sigaction = touched;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, NULL);
    *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return *p != MAP_FAILED;
}

/* Memory comes and goes, and the host waits, outside recordings. */
#define NOT_RECORDING                                                                              \
    if (rt.n_recording)                                                                            \
    return result(cudaErrorStreamCaptureUnsupported)

cudaError_t emu_malloc(void **p, size_t bytes, const char *call)
{
    std::lock_guard<std::mutex> guard(lock);
    NOT_RECORDING;
    *p = NULL;
    cudaError_t error = planned(call);
    if (error != cudaSuccess || bytes == 0)
        return result(error);
    Kind kind = strcmp(call, "cudaMalloc") == 0       ? DEVICE
                : strcmp(call, "cudaMallocHost") == 0 ? PINNED
                                                      : MANAGED;
    if (bytes > machine_bytes() || !take(p, bytes, kind == DEVICE && protects()))
        return result(cudaErrorMemoryAllocation);
    memset(*p, 0xff, bytes);
    rt.memory[(uintptr_t)*p] = {bytes, kind};
    rt.used += kind == PINNED ? 0 : bytes;
    emu_card_memory(false);
    return cudaSuccess;
}

static cudaError_t give_back(void *p, bool pinned)
{
    NOT_RECORDING;
    if (!p)
        return cudaSuccess;
    auto at = rt.memory.find((uintptr_t)p);
    if (at == rt.memory.end() || (at->second.kind == PINNED) != pinned)
        return result(cudaErrorInvalidValue);
    rt.used -= pinned ? 0 : at->second.bytes;
    if (at->second.kind == DEVICE && protects())
        munmap(p, at->second.bytes);
    else
        free(p);
    rt.memory.erase(at);
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    BEGIN;
    return give_back(p, false);
}

cudaError_t cudaFreeHost(void *p)
{
    BEGIN;
    return give_back(p, true);
}

/* Whether [p, p + bytes) may stand on the card's (or the host's) side of a copy. */
static bool fits(const void *p, size_t bytes, bool card)
{
    uintptr_t u = (uintptr_t)p;
    auto at = rt.memory.upper_bound(u);
    if (at == rt.memory.begin())
        return !card && p;
    --at;
    if (u >= at->first + at->second.bytes)
        return !card && p;
    if (u + bytes > at->first + at->second.bytes)
        return false;
    return at->second.kind != DEVICE || card;
}

static cudaError_t copy(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind)
{
    if (bytes == 0)
        return cudaSuccess;
    bool to_card = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_card = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    bool ok = kind == cudaMemcpyDefault
                  ? (fits(dst, bytes, true) || fits(dst, bytes, false)) &&
                        (fits(src, bytes, true) || fits(src, bytes, false))
                  : fits(dst, bytes, to_card) && fits(src, bytes, from_card);
    if (!ok)
        return result(cudaErrorInvalidValue);
    emu_card_memory(true);
    memmove(dst, src, bytes);
    emu_card_memory(false);
    return cudaSuccess;
}

bool emu_stream_is_live(cudaStream_t stream)
{
    std::lock_guard<std::mutex> guard(lock);
    return !stream || rt.streams.count(stream);
}

#define STREAM_OK(s)                                                                               \
    if ((s) && !rt.streams.count(s))                                                               \
    return result(cudaErrorInvalidResourceHandle)
#define EVENT_OK(e)                                                                                \
    if (!rt.events.count(e))                                                                       \
    return result(cudaErrorInvalidResourceHandle)

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    BEGIN;
    STREAM_OK(stream);
    if (stream && stream->recording) {
        if (kind != cudaMemcpyDeviceToDevice || !fits(dst, bytes, true) || !fits(src, bytes, true))
            return result(cudaErrorStreamCaptureUnsupported);
        stream->recording->work.push_back([=]() { copy(dst, src, bytes, kind); });
        return cudaSuccess;
    }
    return copy(dst, src, bytes, kind);
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind)
{
    BEGIN;
    return copy(dst, src, bytes, kind);
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream)
{
    BEGIN;
    STREAM_OK(stream);
    if (bytes && !fits(dst, bytes, true))
        return result(cudaErrorInvalidValue);
    auto work = [=]() {
        emu_card_memory(true);
        memset(dst, value, bytes);
        emu_card_memory(false);
    };
    if (stream && stream->recording)
        stream->recording->work.push_back(work);
    else
        work();
    return cudaSuccess;
}

/* ---- streams, events ----------------------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    BEGIN;
    *stream = new EmuStream();
    rt.streams.insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    BEGIN;
    if (!rt.streams.erase(stream))
        return result(cudaErrorInvalidResourceHandle);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    BEGIN;
    STREAM_OK(stream);
    NOT_RECORDING;
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    BEGIN;
    STREAM_OK(stream);
    EVENT_OK(event);
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    BEGIN;
    *event = new EmuEvent();
    rt.events.insert(*event);
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    BEGIN;
    if (!rt.events.erase(event))
        return result(cudaErrorInvalidResourceHandle);
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    BEGIN;
    STREAM_OK(stream);
    EVENT_OK(event);
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    BEGIN;
    EVENT_OK(event);
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    return cudaEventSynchronize(event);
}

/* ---- graphs -------------------------------------------------------------------------------------- */

bool emu_record(cudaStream_t stream, const std::function<void()> &work)
{
    std::lock_guard<std::mutex> guard(lock);
    if (!stream || !rt.streams.count(stream) || !stream->recording)
        return false;
    stream->recording->work.push_back(work);
    return true;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode)
{
    BEGIN;
    STREAM_OK(stream);
    if (!stream || stream->recording)
        return result(cudaErrorStreamCaptureUnsupported);
    stream->recording = new EmuGraph();
    rt.n_recording++;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    BEGIN;
    STREAM_OK(stream);
    if (!stream || !stream->recording)
        return result(cudaErrorInvalidValue);
    *graph = stream->recording;
    rt.graphs.insert(*graph);
    stream->recording = NULL;
    rt.n_recording--;
    return cudaSuccess;
}

#define GRAPH_OK(g)                                                                                \
    if (!rt.graphs.count(g))                                                                       \
    return result(cudaErrorInvalidResourceHandle)

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    BEGIN;
    GRAPH_OK(graph);
    *exec = new EmuGraph(*graph);
    rt.graphs.insert(*exec);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    {
        BEGIN;
        STREAM_OK(stream);
        GRAPH_OK(exec);
    }
    for (const auto &work : exec->work)
        work();
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    BEGIN;
    GRAPH_OK(graph);
    rt.graphs.erase(graph);
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    return cudaGraphDestroy(exec);
}

/* ---- kernels' attributes ------------------------------------------------------------------------- */

cudaError_t emu_set_attribute(const void *kernel, cudaFuncAttribute attribute, int value)
{
    std::lock_guard<std::mutex> guard(lock);
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout)
        return cudaSuccess;
    if (value < 0 || value > EMU_SMEM_OPTIN)
        return result(cudaErrorInvalidValue);
    rt.smem[kernel] = value;
    return cudaSuccess;
}

size_t emu_smem_limit(const void *kernel)
{
    std::lock_guard<std::mutex> guard(lock);
    auto at = rt.smem.find(kernel);
    return at == rt.smem.end() || at->second < EMU_SMEM_DEFAULT ? (size_t)EMU_SMEM_DEFAULT
                                                                 : (size_t)at->second;
}
