/* device.c - opens a device: the CPU with a team of threads and the best instruction set it has, or
 * a card through the plug-in (device_cuda.c).
 *
 * A device owns its team, its table of op bodies and the scratch blocks of its parts; tensors and
 * arenas point at it. The double build (gradient test) has the plain bodies alone.
 * Tested by tests/unit/test_runtime.c and test_cuda.c. */
#include "common/runtime/device_impl.h"

#include "common/base/error.h"
#include "common/base/mem.h"
#include "common/runtime/arena.h"
#include "common/runtime/cpu/cpu.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HUGE_PAGE = 2 << 20, SCRATCH_UNIT = 64 << 10, THREADS_MAX = 1024 };

typedef struct DeviceScratch {
    void *p;
    int64_t bytes;
} __attribute__((aligned(64))) Scratch; /* a line of its own: parts grow theirs at the same time */

static const char *const isa_name[] = {"auto", "plain", "avx2", "avx512", "avx512bf16"};

/* The table of an instruction set, or NULL when this CPU or this build lacks it. */
static const OpTable *isa_table(CpuIsa isa)
{
#if defined(__x86_64__) && !defined(RLHF_REAL_DOUBLE)
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (isa == ISA_AVX512BF16 && avx512 && __builtin_cpu_supports("avx512bf16"))
        return &cpu_avx512bf16_table;
    if (isa == ISA_AVX512 && avx512)
        return &cpu_avx512_table;
    if (isa == ISA_AVX2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &cpu_avx2_table;
#endif
    return isa == ISA_PLAIN ? &cpu_plain_table : NULL;
}

/* The last table is not the fastest everywhere. Intel's cores begin a VDPBF16PS of 512 bits every second
 * cycle, which is half the products of two f32 multiply-adds a cycle over widened operands; AMD's do
 * twice as many products with it. The bits are the same. */
static CpuIsa isa_fastest(void)
{
    CpuIsa isa = ISA_COUNT - 1;
#if defined(__x86_64__) && !defined(RLHF_REAL_DOUBLE)
    if (!__builtin_cpu_is("amd"))
        isa = ISA_AVX512;
#endif
    while (!isa_table(isa))
        isa--;
    return isa;
}

static int cores_available(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n < 1 ? 1 : n > THREADS_MAX ? THREADS_MAX : n;
}

/* "auto", "cpu", "cuda" and "cuda:N" are names; nothing else is. *ordinal: the card, -1 for the
 * CPU. */
static int name_read(const char *name, int *ordinal)
{
    *ordinal = -1;
    if (strcmp(name, "cpu") == 0 || (strcmp(name, "auto") == 0 && !device_cuda_likely()))
        return 0;
    const char *n = name + 5;
    *ordinal = 0;
    if (strcmp(name, "cuda") == 0 || strcmp(name, "auto") == 0)
        return 0;
    if (strncmp(name, "cuda:", 5) != 0 || !*n || strspn(n, "0123456789") != strlen(n) ||
        strlen(n) > 4)
        return error_set(ERR_CONFIG, "device: '%s' is not a device (auto, cpu, cuda, cuda:N)",
                         name);
    *ordinal = atoi(n);
    return 0;
}

static int open_cpu(Device *d, const DeviceOptions *o)
{
    if (o->threads < 0 || o->threads > THREADS_MAX)
        return error_set(ERR_CONFIG, "threads: %d is not in 0..%d (0 = all cores)", o->threads,
                         THREADS_MAX);
    if ((unsigned)o->isa >= ISA_COUNT)
        return error_set(ERR_CONFIG, "isa: %d is not an instruction set", (int)o->isa);
    d->isa = o->isa == ISA_AUTO ? isa_fastest() : o->isa;
    d->ops = isa_table(d->isa);
    if (!d->ops)
        return error_set(ERR_UNAVAILABLE, "isa: this CPU has no %s; use isa: auto",
                         isa_name[d->isa]);
    d->n_parts = o->threads ? o->threads : cores_available();
    d->scratch = aligned_alloc(64, (size_t)d->n_parts * sizeof *d->scratch);
    CHECK(d->scratch, "out of memory");
    memset(d->scratch, 0, (size_t)d->n_parts * sizeof *d->scratch);
    d->team = team_open(d->n_parts);
    snprintf(d->text, sizeof d->text, "cpu, %d thread%s, %s", d->n_parts, d->n_parts > 1 ? "s" : "",
             isa_name[d->isa]);
    return 0;
}

/* All that a plan of memory asks a card: it is one, and takes bf16, as every card from sm_80 on. */
static void plan_card(Device *d)
{
    d->kind = DEVICE_CUDA;
    d->planned = true;
    snprintf(d->text, sizeof d->text, "cuda (not here: planned as for a card with bf16)");
}

static int open_device(Device **dev, const DeviceOptions *options, bool to_plan)
{
    *dev = NULL;
    int rc, ordinal;
    const char *name = options->name ? options->name : "auto";
    Device *d = xcalloc(1, sizeof *d);
    TRY(name_read(name, &ordinal));
    rc = ordinal >= 0 ? device_cuda_open(d, ordinal) : 0;
    if (rc == ERR_UNAVAILABLE && to_plan && strcmp(name, "auto") != 0) {
        plan_card(d);
        rc = 0;
    }
    if (rc < 0 && strcmp(name, "auto") != 0)
        goto fail;
    if (!d->cuda && !d->planned)
        TRY(open_cpu(d, options));
    *dev = d;
    return 0;
fail:
    device_close(d);
    return rc;
}

int device_open(Device **dev, const DeviceOptions *options)
{
    return open_device(dev, options, false);
}

int device_open_to_plan(Device **dev, const DeviceOptions *options)
{
    return open_device(dev, options, true);
}

static void scratch_free(Device *dev, Scratch *s)
{
    if (s->p)
        device_free(dev, s->p, (size_t)s->bytes, ARENA_HOST);
}

void device_close(Device *dev)
{
    if (!dev)
        return;
    if (dev->cuda)
        device_cuda_close(dev);
    if (dev->team)
        team_close(dev->team);
    for (int i = 0; dev->scratch && i < dev->n_parts; i++)
        scratch_free(dev, &dev->scratch[i]);
    free(dev->scratch);
    free(dev);
}

int device_check_dtype(const Device *dev, DType dtype, const char *where)
{
    if (dtype != DTYPE_BF16 || !dev->cuda || device_can_bf16(dev))
        return 0;
    return error_set(ERR_CONFIG, "%s: dtype: bf16, which %s cannot multiply; set dtype: f32, or device: cpu", where,
                     device_text(dev));
}

DeviceKind device_kind(const Device *dev)
{
    return dev->kind;
}

const char *device_text(const Device *dev)
{
    return dev->text;
}

int device_threads(const Device *dev)
{
    return dev->kind == DEVICE_CUDA ? 1 : dev->n_parts;
}

size_t device_memory_bytes(const Device *dev)
{
    if (dev->cuda)
        return dev->cuda->memory_bytes(dev->handle, dev->bf16);
    if (dev->planned)
        return 0;
    return (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
}

const OpTable *device_ops(const Device *dev)
{
    return dev->ops;
}

Team *device_team(const Device *dev)
{
    return dev->team;
}

void *device_scratch(Device *dev, int part, int64_t bytes)
{
    CHECK(part >= 0 && part < dev->n_parts, "part %d of %d", part, dev->n_parts);
    Scratch *s = &dev->scratch[part];
    if (s->bytes < bytes) {
        scratch_free(dev, s);
        int64_t unit = bytes > HUGE_PAGE / 8 ? HUGE_PAGE : SCRATCH_UNIT;
        s->bytes = (bytes + unit - 1) / unit * unit;
        s->p = device_alloc(dev, (size_t)s->bytes, ARENA_HOST);
        CHECK(s->p, "out of memory: %lld bytes of scratch", (long long)bytes);
    }
    return s->p;
}

int64_t device_scratch_bytes(const Device *dev)
{
    int64_t sum = 0;
    for (int i = 0; i < dev->n_parts; i++)
        sum += dev->scratch[i].bytes;
    return sum;
}

/* ---- memory ------------------------------------------------------------------------------------
 */

static size_t map_bytes(size_t bytes)
{
    size_t unit = bytes >= HUGE_PAGE ? HUGE_PAGE : (size_t)sysconf(_SC_PAGESIZE);
    return (bytes + unit - 1) / unit * unit;
}

/* From a huge page on, the block starts at one and asks for them: reads from L3 double. */
void *device_alloc(Device *dev, size_t bytes, int arena_kind)
{
    CHECK(!dev->planned, "%zu bytes of a card that is planned for", bytes);
    if (dev->cuda && arena_kind != ARENA_HOST)
        return dev->cuda->alloc(dev->handle, bytes, arena_kind);
    size_t n = map_bytes(bytes);
    if (n < bytes || n > SIZE_MAX / 2)
        return NULL;
    size_t extra = n >= HUGE_PAGE ? HUGE_PAGE : 0;
    unsigned char *p =
        mmap(NULL, n + extra, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (extra) {
        size_t head = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
        if (head)
            munmap(p, head);
        if (extra - head)
            munmap(p + head + n, extra - head);
        p += head;
        madvise(p, n, MADV_HUGEPAGE);
    }
    return p;
}

void device_free(Device *dev, void *p, size_t bytes, int arena_kind)
{
    if (dev->cuda && arena_kind != ARENA_HOST)
        dev->cuda->release(dev->handle, p, arena_kind);
    else
        munmap(p, map_bytes(bytes));
}

static void check_copy(const Tensor *t, size_t bytes)
{
    CHECK(t->layout != LAYOUT_ROWS || t->n_dims < 2 || t->stride == tensor_cols(t),
          "copy of %s, which is not dense", tensor_text(t));
    CHECK(bytes <= tensor_bytes(t) && (t->data || bytes == 0), "copy of %zu bytes, %s has %zu",
          bytes, tensor_text(t), tensor_bytes(t));
}

void device_upload(Tensor *dst, const void *src, size_t bytes)
{
    check_copy(dst, bytes);
    if (bytes && dst->dev->cuda)
        dst->dev->cuda->upload(dst->dev->handle, dst->data, src, bytes);
    else if (bytes)
        memcpy(dst->data, src, bytes);
}

void device_download(void *dst, const Tensor *src, size_t bytes)
{
    check_copy(src, bytes);
    if (bytes && src->dev->cuda)
        src->dev->cuda->download(src->dev->handle, dst, src->data, bytes);
    else if (bytes)
        memcpy(dst, src->data, bytes);
}

/* ---- streams: the CPU is done when a call returns ----------------------------------------------
 */

void device_sync(Device *dev)
{
    if (dev->cuda)
        dev->cuda->sync(dev->handle);
}

void event_record(Event *e, Device *dev, StreamId on)
{
    if (dev->cuda)
        dev->cuda->event_record(dev->handle, &e->handle, (int)on);
}

void event_wait(Event *e, Device *dev, StreamId on)
{
    if (dev->cuda)
        dev->cuda->event_wait(dev->handle, e->handle, (int)on);
}

void event_free(Event *e, Device *dev)
{
    if (dev->cuda && e->handle)
        dev->cuda->event_free(dev->handle, e->handle);
    e->handle = NULL;
}

/* ---- graphs ------------------------------------------------------------------------------------
 */

bool device_can_capture(const Device *dev)
{
    return dev->cuda;
}

void graph_begin(Device *dev)
{
    CHECK(dev->cuda, "%s records no graphs", dev->text);
    dev->cuda->graph_begin(dev->handle);
}

void graph_end(Graph *g, Device *dev)
{
    CHECK(!g->handle, "a graph is recorded over another");
    g->handle = dev->cuda->graph_end(dev->handle);
}

void graph_launch(const Graph *g, Device *dev)
{
    CHECK(g->handle, "launch of a graph that was not recorded");
    dev->cuda->graph_launch(dev->handle, g->handle);
}

void graph_free(Graph *g, Device *dev)
{
    if (g->handle)
        dev->cuda->graph_free(dev->handle, g->handle);
    g->handle = NULL;
}

bool device_can_bf16(const Device *dev)
{
    return dev->planned || (dev->cuda && dev->cuda->can_bf16(dev->handle));
}

bool device_sums_by_unit(const Device *dev, DType operands)
{
    return operands == DTYPE_BF16 && device_can_bf16(dev);
}

void device_choose_products(Device *dev, ProductsChoice choice)
{
    if (dev->cuda)
        dev->cuda->choose_products(dev->handle, (int)choice);
}

void device_products(const Device *dev, void (*line)(void *ctx, const char *text), void *ctx)
{
    if (dev->cuda)
        dev->cuda->products(dev->handle, line, ctx);
}

void device_use_bf16(Device *dev)
{
    dev->bf16 = true;
}
