/* harness.c - the tensors of a case, the comparison of bodies and the clock; see test_ops.h. The
 * gradient check is in gradient.c. A case is run once per body from the same seed, and its outputs,
 * copied out densely, are compared bit by bit with those of the plain body on one thread. */
#include "tests/ops/harness.h"

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { GUARD = 256, STRIDE_GAP = 5, THREADS_TESTED = 3, SAID_MAX = 3, N_MODES = 5 };
static const unsigned char GUARD_BYTE = 0xA5;
static const double PERF_SECONDS = 0.15;

const OpTest op_tests[] = {
#define X(name) {#name, test_##name},
    OPS(X)
#undef X
};
const int n_op_tests = (int)(sizeof op_tests / sizeof *op_tests);

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

bool case_forward_only(const Case *c)
{
    return c->forward_only;
}

int64_t case_slot(const Tensor *t, int64_t e)
{
    int64_t cols = tensor_cols(t), row = e / cols, col = e % cols;
    if (t->layout == LAYOUT_PANEL)
        return (row / PANEL_N * cols + col) * PANEL_N + row % PANEL_N;
    return t->layout == LAYOUT_ROWS && t->n_dims > 1 ? row * t->stride + col : e;
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
    b->raw = aligned_alloc(64, room);
    CHECK(b->raw, "out of memory");
    b->bytes = bytes;
    b->room = room;
    memset(b->raw, GUARD_BYTE, room);
    t.data = b->raw + GUARD;
    if (!gap)
        memset(t.data, 0, bytes); /* panel padding is zero */
    snprintf(b->name, sizeof b->name, "%s", name);
    b->t = t;
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

Tensor case_strided(Case *c, const char *name, int64_t d0, int64_t d1, Fill fill)
{
    Tensor t = make_tensor(c, name, DTYPE_REAL, LAYOUT_ROWS, 2, (int64_t[]){d0, d1}, STRIDE_GAP);
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
    o->n = t->layout == LAYOUT_PANEL ? tensor_slots(t) : tensor_len(t);
    o->dtype = t->dtype;
    snprintf(o->name, sizeof o->name, "%s", name);
    o->data = xmalloc((size_t)o->n * size);
    for (int64_t e = 0; e < o->n; e++) /* panels with their padding, which must stay zero */
        memcpy((char *)o->data + (size_t)e * size,
               (char *)t->data + (size_t)(t->layout == LAYOUT_PANEL ? e : case_slot(t, e)) * size,
               size);
}

static double output_value(const Output *o, int64_t e)
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

static void compare(Case *c, const Case *ref)
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
    for (int i = 0; i < c->n_buffers; i++) {
        const Buffer *b = &c->buffer[i];
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
        free(c->buffer[i].raw);
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

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void case_run_begin(Case *c)
{
    c->runs = 0;
    c->seconds = 0;
    c->started = now();
}

/* Timed runs go on in batches that double until one takes PERF_SECONDS; the last one counts. */
bool case_run_next(Case *c)
{
    if (c->mode != MODE_PERF)
        return c->runs++ == 0;
    if (c->runs == 0 || c->runs == c->batch) {
        double t = now();
        if (c->runs && t - c->started >= PERF_SECONDS) {
            c->seconds = (t - c->started) / (double)c->runs;
            return false;
        }
        c->batch = c->runs ? 2 * c->batch : 1;
        c->runs = 0;
        c->started = now();
    }
    c->runs++;
    return true;
}

void case_flops(Case *c, double flops, double bytes)
{
    c->flops = flops;
    c->bytes = bytes;
}

/* ---- modes
 * -----------------------------------------------------------------------------------------------
 */

typedef struct {
    uint64_t seed;
    const char *only; /* one op */
    int threads;      /* for perf */
    int passed, failed;
} Session;

static Device *open_body(CpuIsa isa, int threads)
{
    Device *dev;
    return device_open(&dev, &(DeviceOptions){"cpu", threads, isa}) == 0 ? dev : NULL;
}

static void tally(Session *s, const Case *c)
{
    if (c->n_failed)
        s->failed++;
    else
        s->passed++;
}

static void run_test(Session *s, const OpTest *t)
{
    for (int variant = 0;; variant++) {
        Case ref = {.op = t->name,
                    .mode = MODE_TEST,
                    .seed = s->seed,
                    .variant = variant,
                    .perturb.buffer = -1};
        ref.dev = open_body(ISA_PLAIN, 1);
        bool there = case_once(&ref, t->fn);
        for (CpuIsa isa = ISA_PLAIN; there && isa <= ISA_AVX512; isa++)
            for (int threads = 1; threads <= THREADS_TESTED; threads++) {
                Case c = ref;
                c.buffer = NULL, c.output = NULL, c.check = NULL;
                c.n_buffers = c.n_outputs = c.n_checks = c.n_losses = c.n_failed = 0;
                if (!(c.dev = open_body(isa, threads)))
                    continue;
                case_once(&c, t->fn);
                compare(&c, &ref);
                ref.n_failed += c.n_failed;
                case_clear(&c);
                device_close(c.dev);
            }
        if (there)
            tally(s, &ref);
        case_clear(&ref);
        device_close(ref.dev);
        if (!there)
            return;
    }
}

static void run_grad(Session *s, const OpTest *t)
{
    Device *dev = open_body(ISA_AUTO, 1);
    for (int variant = 0;; variant++) {
        Case c = {.op = t->name,
                  .mode = MODE_GRAD,
                  .seed = s->seed,
                  .variant = variant,
                  .perturb.buffer = -1,
                  .dev = dev};
        bool there = gradient_check(&c, t->fn);
        if (c.n_checked || c.n_failed) /* ops without a gradient have no checks */
            tally(s, &c);
        case_clear(&c);
        if (!there)
            break;
    }
    device_close(dev);
}

static void run_perf(Session *s, const OpTest *t)
{
    Device *dev = open_body(ISA_AUTO, s->threads);
    CHECK(dev, "%s", error_text());
    for (int variant = 0;; variant++) {
        Case c = {.op = t->name,
                  .mode = MODE_PERF,
                  .seed = s->seed,
                  .variant = variant,
                  .perturb.buffer = -1,
                  .dev = dev};
        bool there = case_once(&c, t->fn);
        if (there && c.seconds > 0 && (c.flops > 0 || c.bytes > 0)) {
            printf("%-20s %10.2f us %8.1f GFLOP/s %7.1f GB/s ", t->name, c.seconds * 1e6,
                   c.flops / c.seconds * 1e-9, c.bytes / c.seconds * 1e-9);
            for (int i = 0; i < c.n_buffers && i < 3; i++)
                printf("  %s %s", c.buffer[i].name, tensor_text(&c.buffer[i].t));
            putchar('\n');
            tally(s, &c);
        }
        case_clear(&c);
        if (!there)
            break;
    }
    device_close(dev);
}

static void run_list(Session *s, const OpTest *t)
{
    printf("%-20s cpu: plain", t->name);
    for (CpuIsa isa = ISA_AVX2; isa <= ISA_AVX512; isa++) {
        Device *dev = open_body(isa, 1);
        if (dev)
            printf(" %s", isa == ISA_AVX2 ? "avx2" : "avx512");
        device_close(dev);
    }
    putchar('\n');
    s->passed++;
}

/* One number an op over all outputs of the best body: equal between compilers and machines that
 * promise the same bits. NaNs count as one value. */
static void run_hash(Session *s, const OpTest *t)
{
    Device *dev = open_body(ISA_AUTO, s->threads);
    CHECK(dev, "%s", error_text());
    uint64_t hash = 0;
    for (int variant = 0;; variant++) {
        Case c = {.op = t->name,
                  .mode = MODE_TEST,
                  .seed = s->seed,
                  .variant = variant,
                  .perturb.buffer = -1,
                  .dev = dev};
        bool there = case_once(&c, t->fn);
        for (int i = 0; i < c.n_outputs; i++) {
            Output *o = &c.output[i];
            size_t size = dtype_bytes(o->dtype);
            for (int64_t e = 0; e < o->n; e++)
                if (isnan(output_value(o, e)))
                    memset((char *)o->data + (size_t)e * size, 0xff, size);
            hash = hash64(o->data, (size_t)o->n * size, hash);
        }
        case_clear(&c);
        if (!there)
            break;
    }
    printf("%-20s %016llx\n", t->name, (unsigned long long)hash);
    device_close(dev);
    s->passed++;
}

static int usage(void)
{
    fprintf(stderr, "usage: test_ops [-o OP] [-s SEED] [-t THREADS] [test|grad|perf|list|hash]\n");
    return -ERR_USAGE;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(Session *, const OpTest *);
    } modes[N_MODES] = {{"test", run_test},
                        {"grad", run_grad},
                        {"perf", run_perf},
                        {"list", run_list},
                        {"hash", run_hash}};
    Session s = {.seed = 42, .threads = 1};
    int mode = DTYPE_REAL == DTYPE_F64;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-') {
            if (i + 1 >= argc || !strchr("ost", argv[i][1]) || !argv[i][1])
                return usage();
            const char *value = argv[++i];
            if (argv[i - 1][1] == 'o')
                s.only = value;
            else if (argv[i - 1][1] == 's')
                s.seed = strtoull(value, NULL, 10);
            else
                s.threads = atoi(value);
            continue;
        }
        for (mode = 0; mode < N_MODES && strcmp(argv[i], modes[mode].name) != 0; mode++)
            ;
        if (mode == N_MODES)
            return usage();
    }
    if ((mode == MODE_GRAD) != (DTYPE_REAL == DTYPE_F64) && mode <= MODE_GRAD) {
        fprintf(stderr, "test_ops: '%s' is for the other build (test_grad is the one in double)\n",
                modes[mode].name);
        return -ERR_USAGE;
    }
    int n = 0;
    for (int i = 0; i < n_op_tests; i++)
        if (!s.only || strcmp(s.only, op_tests[i].name) == 0) {
            modes[mode].run(&s, &op_tests[i]);
            n++;
        }
    if (!n) {
        fprintf(stderr, "test_ops: no op '%s'; see test_ops list\n", s.only);
        return -ERR_USAGE;
    }
    printf("%d passed, %d failed\n", s.passed, s.failed);
    return s.failed > 0;
}
