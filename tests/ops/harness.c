/* harness.c - the tensors of a case, the comparison of bodies and the clock; see test_ops.h. The
 * gradient check is in gradient.c. A case is run once per body from the same seed, and its outputs,
 * copied out densely, are compared bit by bit with those of the plain body on one thread (modes.c). */
#include "tests/ops/harness.h"

#include "common/base/error.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p))
#endif

enum { GUARD = 256, STRIDE_GAP = 5, SAID_MAX = 3 };
static const unsigned char GUARD_BYTE = 0xA5;
static const double PERF_SECONDS = 0.15;

/* ---- tensors ------------------------------------------------------------------------------------
 */

Device *case_device(Case *c)
{
    return c->dev;
}

bool case_grad(const Case *c)
{
    return c->mode == MODE_GRAD;
}

bool case_perf(const Case *c)
{
    return c->mode == MODE_PERF;
}

void case_cpu_only(Case *c)
{
    c->cpu_only = true;
}

void case_label(Case *c, const char *label)
{
    c->label = label;
}

bool case_card_only(Case *c)
{
    c->card_only = true;
    return device_kind(c->dev) == DEVICE_CPU;
}

bool case_forward_only(const Case *c)
{
    return c->forward_only;
}

int64_t case_slot(const Tensor *t, int64_t e)
{
    int64_t cols = tensor_cols(t);
    return t->layout == LAYOUT_KV_PAGE || t->n_dims < 2 ? e : tensor_slot(t, e / cols, e % cols);
}

real_t *case_at(const Tensor *t, int64_t e)
{
    return (real_t *)t->data + case_slot(t, e);
}

static double fill_value(Rng *r, Fill fill, int64_t e, int64_t cols)
{
    static const double extreme[] = {0,     -0.0, 1,    -1,   1e-40, -3e-39, 1e-20, 88.5,
                                     -88.5, 1e4,  -2e4, 3e18, -5e18, 1e-3,   104.5, -103.5};
    switch (fill) {
    case FILL_ZERO:
        return 0;
    case FILL_ONE_HOT:
        return e % cols == (e / cols) % cols;
    case FILL_EXTREME:
        return extreme[rng_next_below(r, sizeof extreme / sizeof *extreme)];
    case FILL_POSITIVE:
        return 0.1 + rng_next_uniform(r);
    default:
        return rng_next_normal(r);
    }
}

static void fill_tensor(Case *c, Tensor *t, Fill fill)
{
    Rng r = rng_make(c->seed, RNG_TEST, (uint32_t)c->variant, (uint64_t)c->n_buffers, 0);
    int64_t n = tensor_len(t), cols = tensor_cols(t);
    for (int64_t e = 0; e < n; e++)
        *case_at(t, e) = (real_t)fill_value(&r, fill, e, cols);
    if (c->perturb.buffer != c->n_buffers - 1)
        return;
    Rng u = rng_make(c->seed, RNG_TEST, 1000, c->perturb.direction, 0);
    for (int64_t e = 0; e < n; e++) {
        double step = c->perturb.at >= 0 ? e == c->perturb.at : rng_next_normal(&u);
        *case_at(t, e) += (real_t)(c->perturb.amount * step);
    }
}

/* The zones around a tensor may be neither read nor written while ops run; the sanitizer sees reads,
 * check_guards the writes. */
static void close_guards(Buffer *b)
{
    ASAN_POISON_MEMORY_REGION(b->raw, GUARD);
    ASAN_POISON_MEMORY_REGION(b->raw + GUARD + b->bytes, b->room - GUARD - b->bytes);
}

static void open_guards(Buffer *b)
{
    ASAN_UNPOISON_MEMORY_REGION(b->raw, b->room);
}

/* On a card: memory that the host and kernels see. */
static unsigned char *buffer_alloc(Device *dev, size_t room)
{
    return device_kind(dev) == DEVICE_CPU ? aligned_alloc(64, room)
                                          : device_alloc(dev, room, ARENA_SHARED);
}

static void buffer_free(Buffer *b)
{
    open_guards(b);
    if (device_kind(b->t.dev) == DEVICE_CPU)
        free(b->raw);
    else
        device_free(b->t.dev, b->raw, b->room, ARENA_SHARED);
}

static Tensor make_tensor(Case *c, const char *name, DType dtype, Layout layout, int n_dims,
                          const int64_t *dims, int gap)
{
    Tensor t = {.dev = c->dev, .dtype = dtype, .layout = layout, .n_dims = n_dims};
    memcpy(t.dim, dims, (size_t)n_dims * sizeof *dims);
    t.stride = dims[n_dims - 1] + gap;
    size_t bytes = (size_t)tensor_slots(&t) * dtype_bytes(dtype);
    int i = VEC_GROW(c->buffer, c->n_buffers, c->cap_buffers);
    Buffer *b = &c->buffer[i];
    size_t room = (bytes + 2 * GUARD + 63) / 64 * 64;
    b->raw = buffer_alloc(c->dev, room);
    CHECK(b->raw, "out of memory");
    b->bytes = bytes;
    b->room = room;
    memset(b->raw, GUARD_BYTE, room);
    t.data = b->raw + GUARD;
    if (!gap)
        memset(t.data, 0, bytes); /* panel padding is zero */
    snprintf(b->name, sizeof b->name, "%s", name);
    b->t = t;
    close_guards(b);
    return t;
}

Tensor case_tensor(Case *c, const char *name, DType dtype, Layout layout, int n_dims,
                   const int64_t *dims, Fill fill)
{
    Tensor t = make_tensor(c, name, dtype, layout, n_dims, dims, 0);
    if (dtype == DTYPE_REAL)
        fill_tensor(c, &t, fill);
    return t;
}

Tensor case_rows(Case *c, const char *name, int64_t d0, int64_t d1, Fill fill)
{
    return case_tensor(c, name, DTYPE_REAL, LAYOUT_ROWS, d1 ? 2 : 1, (int64_t[]){d0, d1}, fill);
}

Tensor case_gapped_of(Case *c, const char *name, DType dtype, int64_t d0, int64_t d1, int gap)
{
    return make_tensor(c, name, dtype, LAYOUT_ROWS, 2, (int64_t[]){d0, d1}, gap);
}

Tensor case_strided_of(Case *c, const char *name, DType dtype, int64_t d0, int64_t d1)
{
    return case_gapped_of(c, name, dtype, d0, d1, STRIDE_GAP);
}

Tensor case_strided(Case *c, const char *name, int64_t d0, int64_t d1, Fill fill)
{
    Tensor t = case_strided_of(c, name, DTYPE_REAL, d0, d1);
    fill_tensor(c, &t, fill);
    return t;
}

Tensor case_panel(Case *c, const char *name, int64_t n, int64_t k, Fill fill)
{
    return case_tensor(c, name, DTYPE_REAL, LAYOUT_PANEL, 2, (int64_t[]){n, k}, fill);
}

Tensor case_i32(Case *c, const char *name, const int32_t *values, int64_t n)
{
    Tensor t = make_tensor(c, name, DTYPE_I32, LAYOUT_ROWS, 1, &n, 0);
    memcpy(t.data, values, (size_t)n * sizeof *values);
    return t;
}

Tensor case_ids(Case *c, const char *name, int64_t n, int64_t below)
{
    Tensor t = make_tensor(c, name, DTYPE_I32, LAYOUT_ROWS, 1, &n, 0);
    Rng r = rng_make(c->seed, RNG_TEST, (uint32_t)c->variant, (uint64_t)c->n_buffers, 0);
    for (int64_t i = 0; i < n; i++)
        ((int32_t *)t.data)[i] = (int32_t)rng_next_below(&r, (uint64_t)below);
    return t;
}

Tensor case_f64(Case *c, const char *name, int64_t n)
{
    return make_tensor(c, name, DTYPE_F64, LAYOUT_ROWS, 1, &n, 0);
}

/* ---- results
 * ---------------------------------------------------------------------------------------- */

void case_expect(Case *c, bool ok, const char *fmt, ...)
{
    if (ok || case_perf(c)) /* repeated runs pile up in what accumulates */
        return;
    va_list ap;
    va_start(ap, fmt);
    case_fail_v(c, fmt, ap);
    va_end(ap);
}

void case_fail_v(Case *c, const char *fmt, va_list ap)
{
    if (c->n_failed++ >= SAID_MAX)
        return;
    printf("FAIL %s variant %d, seed %llu, %s: ", c->op, c->variant, (unsigned long long)c->seed,
           device_text(c->dev));
    vprintf(fmt, ap);
    putchar('\n');
}

void case_output(Case *c, const char *name, const Tensor *t)
{
    int i = VEC_GROW(c->output, c->n_outputs, c->cap_outputs);
    Output *o = &c->output[i];
    size_t size = dtype_bytes(t->dtype);
    device_sync(c->dev);
    o->n = t->layout == LAYOUT_PANEL ? tensor_slots(t) : tensor_len(t);
    o->dtype = t->dtype;
    snprintf(o->name, sizeof o->name, "%s", name);
    o->data = xmalloc((size_t)o->n * size);
    for (int64_t e = 0; e < o->n; e++) /* panels with their padding, which must stay zero */
        memcpy((char *)o->data + (size_t)e * size,
               (char *)t->data + (size_t)(t->layout == LAYOUT_PANEL ? e : case_slot(t, e)) * size,
               size);
}

double output_value(const Output *o, int64_t e)
{
    switch (o->dtype) {
    case DTYPE_F32:
        return ((const float *)o->data)[e];
    case DTYPE_F64:
        return ((const double *)o->data)[e];
    case DTYPE_I32:
        return ((const int32_t *)o->data)[e];
    case DTYPE_BF16:
        return ((const uint16_t *)o->data)[e];
    default:
        return ((const uint8_t *)o->data)[e];
    }
}

void case_compare(Case *c, const Case *ref)
{
    case_expect(c, c->n_outputs == ref->n_outputs, "%d outputs, the plain body %d", c->n_outputs,
                ref->n_outputs);
    for (int i = 0; i < c->n_outputs && i < ref->n_outputs; i++) {
        const Output *a = &c->output[i], *b = &ref->output[i];
        size_t size = dtype_bytes(a->dtype);
        case_expect(c, a->n == b->n && a->dtype == b->dtype, "%s: another shape", a->name);
        for (int64_t e = 0; e < a->n && a->n == b->n; e++) {
            if (memcmp((char *)a->data + (size_t)e * size, (char *)b->data + (size_t)e * size,
                       size) == 0)
                continue;
            double x = output_value(a, e), y = output_value(b, e);
            if (isnan(x) && isnan(y))
                continue;
            case_expect(c, false, "%s[%lld] is %a, the plain body on one thread gives %a", a->name,
                        (long long)e, x, y);
            break;
        }
    }
}

/* Bytes around every buffer, and between the rows of a strided one, are as they were. */
static void check_guards(Case *c)
{
    device_sync(c->dev);
    for (int i = 0; i < c->n_buffers; i++) {
        Buffer *b = &c->buffer[i];
        open_guards(b);
        bool strided =
            b->t.layout == LAYOUT_ROWS && b->t.n_dims > 1 && b->t.stride != tensor_cols(&b->t);
        size_t row = (size_t)b->t.stride * dtype_bytes(b->t.dtype);
        size_t used = (size_t)tensor_cols(&b->t) * dtype_bytes(b->t.dtype);
        for (size_t at = 0; at < b->room; at++) {
            bool inside = at >= GUARD && at < GUARD + b->bytes;
            if (inside && !(strided && (at - GUARD) % row >= used))
                continue;
            if (b->raw[at] != GUARD_BYTE) {
                case_expect(c, false, "%s: byte %lld beside the tensor was written", b->name,
                            (long long)at - GUARD);
                break;
            }
        }
    }
}

/* ---- one run
 * ------------------------------------------------------------------------------------------ */

void case_clear(Case *c)
{
    for (int i = 0; i < c->n_buffers; i++)
        buffer_free(&c->buffer[i]);
    for (int i = 0; i < c->n_outputs; i++)
        free(c->output[i].data);
    for (int i = 0; i < c->n_losses; i++)
        free(c->loss[i].r);
    for (int i = 0; i < c->n_checks; i++)
        free(c->check[i].dx);
    free(c->buffer);
    free(c->output);
    free(c->check);
    *c = (Case){.op = c->op,
                .mode = c->mode,
                .seed = c->seed,
                .variant = c->variant,
                .dev = c->dev,
                .perturb = c->perturb,
                .forward_only = c->forward_only,
                .n_failed = c->n_failed};
}

bool case_once(Case *c, CaseFn fn)
{
    case_clear(c);
    bool there = fn(c, c->variant);
    if (there)
        check_guards(c);
    return there;
}

/* One CPU thread is timed by what it gets of the machine, as in tests/bench. */
static double now(const Case *c)
{
    bool one = device_kind(c->dev) == DEVICE_CPU && device_threads(c->dev) == 1;
    struct timespec t;
    clock_gettime(one ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void case_run_begin(Case *c)
{
    c->runs = 0;
    c->seconds = 0;
    c->started = now(c);
}

/* Timed runs go on in batches that double until one takes PERF_SECONDS; the last one counts. What was
 * queued is done when the clock is read, and before the host looks at results. */
bool case_run_next(Case *c)
{
    if (c->mode != MODE_PERF) {
        device_sync(c->dev);
        return c->runs++ == 0;
    }
    if (c->runs == 0 || c->runs == c->batch) {
        device_sync(c->dev);
        double t = now(c);
        if (c->runs && t - c->started >= PERF_SECONDS) {
            c->seconds = (t - c->started) / (double)c->runs;
            return false;
        }
        c->batch = c->runs ? 2 * c->batch : 1;
        c->runs = 0;
        c->started = now(c);
    }
    c->runs++;
    return true;
}

void case_flops(Case *c, double flops, double bytes)
{
    c->flops = flops;
    c->bytes = bytes;
}
