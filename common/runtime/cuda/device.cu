/* device.cu - the functions behind backend.h: cards, memory, copies, streams.
 *
 * Arenas are plain cudaMalloc: one allocation each, made before step 0. Uploads do
 * not wait for the card, downloads do; what overlaps later goes through the copy stream.
 * Tested by tests/unit/test_cuda.c, and by every op's test. */
#include "common/runtime/cuda/linear.h"

extern "C" {
#include "common/runtime/arena.h"
}

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static BackendHost host;

extern "C" void check_failed(const char *file, int line, const char *cond, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    host.check_failed(file, line, cond, text);
    abort();
}

static int say(char why[BACKEND_TEXT], const char *what, cudaError_t error)
{
    snprintf(why, BACKEND_TEXT, "%s: %s", what, cudaGetErrorString(error));
    cudaGetLastError(); /* forget it: the caller goes on without a card */
    return -1;
}

static int count(char why[BACKEND_TEXT])
{
    int n = 0;
    cudaError_t error = cudaGetDeviceCount(&n);
    if (error == cudaErrorInsufficientDriver || error == cudaErrorStubLibrary)
        return say(why, "no usable NVIDIA driver", error);
    if (error != cudaSuccess)
        return say(why, "no NVIDIA card", error);
    return n;
}

static void close_device(void *p)
{
    CudaDevice *d = (CudaDevice *)p;
    if (!d)
        return;
    blas_close(d);
    if (d->scratch)
        cudaFree(d->scratch);
    for (int i = 0; i < STREAM_COUNT; i++)
        if (d->stream[i])
            cudaStreamDestroy(d->stream[i]);
    free(d);
}

static int open_device(void **out, int ordinal, char why[BACKEND_TEXT])
{
    CudaDevice *d = (CudaDevice *)calloc(1, sizeof *d);
    cudaDeviceProp prop;
    size_t free_bytes = 0, total_bytes = 0;
    const char *what = "out of memory";
    cudaError_t error = cudaErrorMemoryAllocation;
    if (!d)
        return say(why, what, error);
    d->ordinal = ordinal;
    what = "cannot be made current";
    error = cudaSetDevice(ordinal);
    if (error == cudaSuccess) {
        what = "cannot be opened";
        error = cudaGetDeviceProperties(&prop, ordinal);
    }
    for (int i = 0; i < STREAM_COUNT && error == cudaSuccess; i++)
        error = cudaStreamCreateWithFlags(&d->stream[i], cudaStreamNonBlocking);
    if (error == cudaSuccess)
        error = cudaMalloc(&d->scratch, CUDA_SCRATCH_BYTES);
    if (error == cudaSuccess)
        error = cudaMemGetInfo(&free_bytes, &total_bytes);
    if (error != cudaSuccess) {
        close_device(d);
        return say(why, what, error);
    }
    d->n_sm = prop.multiProcessorCount;
    d->bf16 = prop.major >= 8;
    d->memory = free_bytes;
    snprintf(d->text, sizeof d->text, "cuda:%d, %.100s, sm_%d%d", ordinal, prop.name, prop.major,
             prop.minor);
    *out = d;
    return 0;
}

static const char *device_name(const void *d)
{
    return ((const CudaDevice *)d)->text;
}

static bool can_bf16(const void *d)
{
    return ((const CudaDevice *)d)->bf16;
}

static void choose_products(void *p, int choice)
{
    CudaDevice *d = (CudaDevice *)p;
    blas_close(d);
    d->products = (ProductsChoice)choice;
}

static void products(const void *d, void (*line)(void *ctx, const char *text), void *ctx)
{
    blas_report((const CudaDevice *)d, line, ctx);
}

/* f32 products are our own and need no more than scratch, which is taken already. */
static size_t memory_bytes(const void *d, bool bf16)
{
    size_t bytes = ((const CudaDevice *)d)->memory, reserve = bf16 ? (size_t)LINEAR_RESERVE_BYTES : 0;
    return bytes > reserve ? bytes - reserve : 0;
}

static void sync(void *p)
{
    CudaDevice *d = (CudaDevice *)p;
    for (int i = 0; i < STREAM_COUNT; i++)
        CUDA_CALL(cudaStreamSynchronize(d->stream[i]));
}

static void release(void *p, void *memory, int arena_kind)
{
    sync(p);
    CUDA_CALL(arena_kind == ARENA_PINNED ? cudaFreeHost(memory) : cudaFree(memory));
}

static void *alloc(void *p, size_t bytes, int arena_kind)
{
    CudaDevice *d = (CudaDevice *)p;
    void *memory = NULL;
    cudaError_t error = arena_kind == ARENA_PINNED ? cudaMallocHost(&memory, bytes)
                        : arena_kind == ARENA_SHARED
                            ? cudaMallocManaged(&memory, bytes, cudaMemAttachGlobal)
                            : cudaMalloc(&memory, bytes);
    if (error != cudaSuccess) {
        cudaGetLastError();
        return NULL;
    }
    if (arena_kind == ARENA_PINNED) {
        memset(memory, 0, bytes);
        return memory;
    }
    CUDA_CALL(cudaMemsetAsync(memory, 0, bytes, d->stream[STREAM_COMPUTE]));
    CUDA_CALL(cudaStreamSynchronize(d->stream[STREAM_COMPUTE]));
    return memory;
}

/* The source is ordinary memory, so it has been staged when the call returns; the stream brings it to
 * the card in order. */
static void upload(void *p, void *dst, const void *src, size_t bytes)
{
    cudaStream_t stream = ((CudaDevice *)p)->stream[STREAM_COMPUTE];
    CUDA_CALL(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, stream));
}

static void download(void *p, void *dst, const void *src, size_t bytes)
{
    cudaStream_t stream = ((CudaDevice *)p)->stream[STREAM_COMPUTE];
    CUDA_CALL(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, stream));
    CUDA_CALL(cudaStreamSynchronize(stream));
}

static void record(void *p, void **event, int stream)
{
    if (!*event)
        CUDA_CALL(cudaEventCreateWithFlags((cudaEvent_t *)event, cudaEventDisableTiming));
    CUDA_CALL(cudaEventRecord((cudaEvent_t)*event, ((CudaDevice *)p)->stream[stream]));
}

static void wait(void *p, void *event, int stream)
{
    if (event)
        CUDA_CALL(cudaStreamWaitEvent(((CudaDevice *)p)->stream[stream], (cudaEvent_t)event, 0));
}

static void event_free(void *, void *event)
{
    CUDA_CALL(cudaEventDestroy((cudaEvent_t)event));
}

/* ---- graphs ------------------------------------------------------------------------------------
 */

/* Relaxed: a kernel's code may still be on its way to the card when it is first launched. */
static void graph_begin(void *p)
{
    CUDA_CALL(cudaStreamBeginCapture(((CudaDevice *)p)->stream[STREAM_COMPUTE],
                                     cudaStreamCaptureModeRelaxed));
}

static void *graph_end(void *p)
{
    cudaGraph_t recorded = NULL;
    cudaGraphExec_t graph = NULL;
    CUDA_CALL(cudaStreamEndCapture(((CudaDevice *)p)->stream[STREAM_COMPUTE], &recorded));
    CUDA_CALL(cudaGraphInstantiate(&graph, recorded, 0));
    CUDA_CALL(cudaGraphDestroy(recorded));
    return graph;
}

static void graph_launch(void *p, void *graph)
{
    CUDA_CALL(
        cudaGraphLaunch((cudaGraphExec_t)graph, ((CudaDevice *)p)->stream[STREAM_COMPUTE]));
}

/* Not while it runs: what it holds on the card goes with it. */
static void graph_free(void *p, void *graph)
{
    sync(p);
    CUDA_CALL(cudaGraphExecDestroy((cudaGraphExec_t)graph));
}

static const CudaBackend backend = {
    &cuda_table, count, open_device, close_device, device_name, can_bf16, choose_products, products,
    memory_bytes, alloc, release, upload, download, sync, record, wait, event_free, graph_begin,
    graph_end, graph_launch, graph_free};

extern "C" __attribute__((visibility("default"))) const CudaBackend *
rlhf_cuda_backend(uint32_t hash, const BackendHost *h)
{
    if (hash != BACKEND_HASH)
        return NULL;
    host = *h;
    return &backend;
}
