/* backend.h - the seam between the programs and librlhf_cuda.so.
 *
 * The plug-in exports one symbol, rlhf_cuda_backend. device.c opens the library when a GPU is asked
 * for, hands over what the plug-in may call back, and gets a table of functions, provided both were
 * built from the same ops.h, tensor.h, device_impl.h and this file (BACKEND_HASH, a checksum the
 * Makefile computes). No other symbol crosses the border in either direction: the plug-in links
 * without undefined symbols, so a missing op body is a link error.
 *
 * Functions that can fail because of the world (no driver, no card) return a negative number and
 * put one sentence into `why`; a CUDA error after that is a dead machine and goes to check_failed. */
#ifndef RLHF_RUNTIME_BACKEND_H
#define RLHF_RUNTIME_BACKEND_H

#include "common/runtime/ops.h"

enum { BACKEND_TEXT = 160 };

typedef struct {
    void (*check_failed)(const char *file, int line, const char *cond, const char *text);
} BackendHost;

/* `d` is the plug-in's own struct of an open device. */
typedef struct {
    const OpTable *ops;
    /* Number of cards, or -1 with the reason why there is none to use. */
    int (*count)(char why[BACKEND_TEXT]);
    int (*open)(void **d, int ordinal, char why[BACKEND_TEXT]);
    void (*close)(void *d);
    const char *(*text)(const void *d);    /* "cuda:0, NVIDIA H200, sm_90" */
    bool (*can_bf16)(const void *d);       /* ops take bf16 ROWS where ops.h says so */
    void (*choose_products)(void *d, int choice); /* a ProductsChoice of device.h */
    /* A line for each shape of bf16 products so far: which kernels serve it, and why. */
    void (*products)(const void *d, void (*line)(void *ctx, const char *text), void *ctx);
    /* What arenas may take: what was free when it was opened, in bf16 less what the products need beside them. */
    size_t (*memory_bytes)(const void *d, bool bf16);
    void *(*alloc)(void *d, size_t bytes, int arena_kind); /* zero-filled; NULL when there is not that much */
    void (*release)(void *d, void *p, int arena_kind);
    /* In order with the work queued before. src of an upload is ordinary memory and free for other use when
     * the call returns; a download is done. */
    void (*upload)(void *d, void *dst, const void *src, size_t bytes);
    void (*download)(void *d, void *dst, const void *src, size_t bytes);
    void (*sync)(void *d);
    void (*event_record)(void *d, void **event, int stream);
    void (*event_wait)(void *d, void *event, int stream);
    void (*event_free)(void *d, void *event);
    /* Work queued on the compute stream in between is kept instead of run; every graph_launch runs it. */
    void (*graph_begin)(void *d);
    void *(*graph_end)(void *d);
    void (*graph_launch)(void *d, void *graph);
    void (*graph_free)(void *d, void *graph);
} CudaBackend;

/* NULL when `hash` is not the hash this library was built with. */
typedef const CudaBackend *(*CudaBackendFn)(uint32_t hash, const BackendHost *host);
#define CUDA_BACKEND_SYMBOL "rlhf_cuda_backend"

#endif
