/* device.h - where tensors live and ops run: "cpu", or "cuda:N" through librlhf_cuda.so.
 *
 * Opaque. A device has a compute and a copy stream (on the CPU everything is done when the call
 * returns), a table of op bodies, and capabilities. Asking for a kind that is not there is one
 * clear line and ERR_UNAVAILABLE. */
#ifndef RLHF_RUNTIME_DEVICE_H
#define RLHF_RUNTIME_DEVICE_H

#include "common/runtime/tensor.h"

typedef enum { DEVICE_CPU, DEVICE_CUDA } DeviceKind;
/* config choices in this order */
typedef enum { ISA_AUTO, ISA_PLAIN, ISA_AVX2, ISA_AVX512, ISA_AVX512BF16, ISA_COUNT } CpuIsa;

typedef struct {
    const char *name; /* "auto", "cpu", "cuda", "cuda:1" */
    int threads;      /* CPU team; 0 = all cores this process may use */
    CpuIsa isa;       /* ISA_AUTO = fastest the CPU has; asking for one it lacks is an error */
} DeviceOptions;

int device_open(Device **dev, const DeviceOptions *options); /* 0, ERR_UNAVAILABLE, ERR_CONFIG */
/* The same for a plan alone: "cuda" where none is gives a device that has a card's layouts and dtypes, and
 * on which nothing can be allocated or run. */
int device_open_to_plan(Device **dev, const DeviceOptions *options);
void device_close(Device *dev);                              /* NULL is fine */

/* ERR_CONFIG, in one line that begins with `where`, when models cannot run in this dtype there. */
int device_check_dtype(const Device *dev, DType dtype, const char *where);
DeviceKind device_kind(const Device *dev);
const char *device_text(const Device *dev); /* "cpu, 2 threads, avx512" */
int device_threads(const Device *dev);
size_t device_memory_bytes(const Device *dev); /* of the machine or card; 0: a card that is not there */

typedef struct OpTable OpTable;
const OpTable *device_ops(const Device *dev);

/* Raw memory; arena.c is the only caller. NULL when there is not that much. Zero-filled. */
void *device_alloc(Device *dev, size_t bytes, int arena_kind);
void device_free(Device *dev, void *p, size_t bytes, int arena_kind);

/* Copies between ordinary host memory and a dense tensor (or storage of a PANEL tensor, as it is). The
 * host's side may be used again when the call returns. */
void device_upload(Tensor *dst, const void *src, size_t bytes);
void device_download(void *dst, const Tensor *src, size_t bytes);

/* Streams and events: on the CPU all of them return at once. */
typedef enum { STREAM_COMPUTE, STREAM_COPY, STREAM_COUNT } StreamId;
typedef struct {
    void *handle;
} Event;
void device_sync(Device *dev);
void event_record(Event *e, Device *dev, StreamId on);
void event_wait(Event *e, Device *dev, StreamId on);
void event_free(Event *e, Device *dev); /* one that was never recorded, or is freed, is fine */

/* Ops between graph_begin and graph_end are recorded, not run. graph_launch runs them all, in their order
 * on the compute stream, at the cost of one launch: with the tensors and numbers they were given, on what
 * is in those tensors then. In between nothing may be copied from or to the host, waited for or allocated,
 * and ops must have run once before: what a body sets up at its first use it sets up then. */
typedef struct {
    void *handle; /* NULL: none */
} Graph;
bool device_can_capture(const Device *dev); /* false on the CPU: there the calls below are a CHECK */
void graph_begin(Device *dev);
void graph_end(Graph *g, Device *dev);
void graph_launch(const Graph *g, Device *dev);
void graph_free(Graph *g, Device *dev); /* none is fine */
/* Whether ops take the mixtures of bf16 ROWS and f32 that ops.h lists; false on the CPU, true of a card that is
 * planned for. */
bool device_can_bf16(const Device *dev);
/* Whether op_linear_dw of operands of this dtype is a sum of its own that is then added, so that it matters
 * where rows are cut into calls, and not one chain from what is stored. */
bool device_sums_by_unit(const Device *dev, DType operands);
/* Who makes a card's bf16 products: AUTO takes the vendor's library where a probe finds that rows keep
 * their bits for every number of rows, else the kernels of runtime/cuda; OWN: these alone; LIBRARY: the
 * library alone, without the promise about rows. The others than AUTO are for measurements.
 * Graphs recorded before a choice are not to be launched after it. */
typedef enum { PRODUCTS_AUTO, PRODUCTS_OWN, PRODUCTS_LIBRARY } ProductsChoice;
void device_choose_products(Device *dev, ProductsChoice choice);
/* What serves each shape of bf16 products so far, a line each; none on the CPU. */
void device_products(const Device *dev, void (*line)(void *ctx, const char *text), void *ctx);
/* bf16 products are to run here: on a card device_memory_bytes is a GiB less from now on, the vendor's library's. */
void device_use_bf16(Device *dev);

#endif
