/* device_impl.h - what a Device is made of; for device.c and cuda/ alone. */
#ifndef RLHF_RUNTIME_DEVICE_IMPL_H
#define RLHF_RUNTIME_DEVICE_IMPL_H

#include "common/runtime/backend.h"
#include "common/runtime/device.h"

struct Team;
struct DeviceScratch;

struct Device {
    DeviceKind kind;
    bool bf16; /* device_use_bf16 was called */
    const OpTable *ops;
    char text[BACKEND_TEXT];

    /* DEVICE_CPU */
    CpuIsa isa;
    struct Team *team;
    int n_parts;
    struct DeviceScratch *scratch; /* (n_parts) */

    /* DEVICE_CUDA */
    const CudaBackend *cuda;
    void *handle;  /* the plug-in's own struct */
    void *library; /* of dlopen */
    bool planned;  /* kind DEVICE_CUDA without one */
};

/* device_cuda.c: whether this machine looks as if it had a card (cheap: no library is opened); opens
 * the plug-in and a card of it into *d. ERR_UNAVAILABLE with the reason. */
bool device_cuda_likely(void);
int device_cuda_open(Device *d, int ordinal);
void device_cuda_close(Device *d);

#endif
