/* device_cuda.c - finds librlhf_cuda.so beside the program, opens it when a card is asked for, and
 * only then: a run on the CPU maps no GPU library. See backend.h. Tested by tests/unit/test_cuda.c. */
#include "common/base/error.h"
#include "common/base/text.h"
#include "common/runtime/device_impl.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIBRARY "librlhf_cuda.so"

bool device_cuda_likely(void)
{
    return access("/dev/nvidiactl", F_OK) == 0 || access("/dev/dxg", F_OK) == 0;
}

static void host_check_failed(const char *file, int line, const char *cond, const char *text)
{
    check_failed(file, line, cond, "%s", text);
}

/* The first of the program's folder, its lib/ and bin/ beside it that holds the library. */
static bool find_library(char path[PATH_MAX])
{
    static const char *const place[] = {"", "../lib/", "../bin/"};
    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n < 0)
        return false;
    exe[n] = 0;
    char *slash = strrchr(exe, '/');
    if (!slash)
        return false;
    slash[1] = 0;
    for (int i = 0; i < 3; i++)
        if (snprintf(path, PATH_MAX, "%s%s%s", exe, place[i], LIBRARY) < PATH_MAX &&
            access(path, R_OK) == 0)
            return true;
    return false;
}

static int open_library(Device *d, int ordinal)
{
    static const BackendHost host = {host_check_failed};
    char path[PATH_MAX];
    if (!find_library(path))
        return error_set(ERR_UNAVAILABLE,
                         "device: cuda:%d asked for, but " LIBRARY " is not beside the program; set "
                         "device: cpu, or build with CUDA=1",
                         ordinal);
    d->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!d->library)
        return error_set(ERR_UNAVAILABLE, "device: cuda:%d asked for, but %s", ordinal, dlerror());
    CudaBackendFn fn = NULL;
    *(void **)&fn = dlsym(d->library, CUDA_BACKEND_SYMBOL);
    d->cuda = fn ? fn(BACKEND_HASH, &host) : NULL;
    if (!d->cuda)
        return error_set(ERR_UNAVAILABLE,
                         "device: cuda:%d asked for, but %s was built from other sources than this "
                         "program; build both again",
                         ordinal, path);
    return 0;
}

static int open_card(Device *d, int ordinal)
{
    char why[BACKEND_TEXT] = "";
    int n = d->cuda->count(why);
    if (n < 0)
        return error_set(ERR_UNAVAILABLE, "device: cuda:%d asked for, but there is %s; set device: cpu",
                         ordinal, why);
    if (ordinal >= n)
        return error_set(ERR_UNAVAILABLE, "device: cuda:%d asked for, but there %s %d card%s",
                         ordinal, n == 1 ? "is" : "are", n, n == 1 ? "" : "s");
    if (d->cuda->open(&d->handle, ordinal, why) < 0)
        return error_set(ERR_UNAVAILABLE, "device: cuda:%d %s", ordinal, why);
    return 0;
}

int device_cuda_open(Device *d, int ordinal)
{
    int rc;
    if (DTYPE_REAL != DTYPE_F32)
        return error_set(ERR_UNAVAILABLE, "device: the double build runs on the CPU alone");
    TRY(open_library(d, ordinal));
    TRY(open_card(d, ordinal));
    d->kind = DEVICE_CUDA;
    d->ops = d->cuda->ops;
    snprintf(d->text, sizeof d->text, "%s", d->cuda->text(d->handle));
    return 0;
fail:
    device_cuda_close(d);
    return rc;
}

void device_cuda_close(Device *d)
{
    if (d->handle)
        d->cuda->close(d->handle);
    /* The library stays: CUDA's own threads and exit handlers live in it. */
    d->handle = NULL;
    d->cuda = NULL;
}
