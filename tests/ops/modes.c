/* modes.c - what test_ops does: runs the tests of all ops on the bodies of this machine, times them,
 * lists them, hashes their results; see test_ops.h. */
#include "tests/ops/harness.h"

#include "common/base/error.h"
#include "common/base/hash.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS_TESTED = 3 };

static const OpTest op_tests[] = {
#define X(name) {#name, test_##name},
    OPS(X)
#undef X
};
static const int n_op_tests = (int)(sizeof op_tests / sizeof *op_tests);

typedef struct {
    uint64_t seed;
    const char *only; /* one op */
    const char *body; /* one body: plain, avx2, avx512, avx512bf16, cuda */
    int threads;      /* for perf */
    int every;        /* of the variants, this one in so many: for builds that are slow */
    Device *cuda;     /* NULL: there is none, or it is not asked for */
    int passed, failed, skipped;
} Session;

static const char *const body_name[] = {"auto", "plain", "avx2", "avx512", "avx512bf16"}; /* by CpuIsa */

static bool body_wanted(const Session *s, const char *name)
{
    return !s->body || strcmp(s->body, name) == 0;
}

static Device *open_body(CpuIsa isa, int threads)
{
    Device *dev;
    return device_open(&dev, &(DeviceOptions){"cpu", threads, isa}) == 0 ? dev : NULL;
}

/* The device of perf and hash, which take one: the best of the CPU unless -b names another. */
static Device *open_one(const Session *s)
{
    CpuIsa isa = ISA_COUNT - 1;
    while (isa > ISA_AUTO && (!s->body || strcmp(s->body, body_name[isa]) != 0))
        isa--;
    Device *dev = s->cuda ? s->cuda : open_body(isa, s->threads);
    CHECK(dev, "%s", error_text());
    return dev;
}

static void close_one(const Session *s, Device *dev)
{
    if (dev != s->cuda)
        device_close(dev);
}

static void tally(Session *s, const Case *c)
{
    if (c->n_failed)
        s->failed++;
    else
        s->passed++;
}

/* The variant once more, on another device; what differs from ref counts as ref's failures. */
static void run_body(Case *ref, Device *dev, const OpTest *t)
{
    Case c = *ref;
    c.buffer = NULL, c.output = NULL, c.check = NULL;
    c.n_buffers = c.n_outputs = c.n_checks = c.n_losses = c.n_failed = 0;
    c.dev = dev;
    case_once(&c, t->fn);
    case_compare(&c, ref);
    ref->n_failed += c.n_failed;
    case_clear(&c);
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
        if (there && variant % s->every) {
            case_clear(&ref);
            device_close(ref.dev);
            continue;
        }
        for (CpuIsa isa = ISA_PLAIN; there && !ref.card_only && isa < ISA_COUNT; isa++)
            for (int threads = 1; threads <= THREADS_TESTED; threads++) {
                Device *dev = body_wanted(s, body_name[isa]) ? open_body(isa, threads) : NULL;
                if (dev)
                    run_body(&ref, dev, t);
                device_close(dev);
            }
        if (there && s->cuda && !ref.cpu_only)
            run_body(&ref, s->cuda, t);
        s->skipped += there && s->cuda && ref.cpu_only;
        if (there && (s->cuda || !ref.card_only)) /* without a card the op counts as skipped, below */
            tally(s, &ref);
        case_clear(&ref);
        device_close(ref.dev);
        if (!there)
            break;
    }
    s->skipped += !s->cuda && body_wanted(s, "cuda");
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
    Device *dev = open_one(s);
    for (int variant = 0;; variant++) {
        Case c = {.op = t->name,
                  .mode = MODE_PERF,
                  .seed = s->seed,
                  .variant = variant,
                  .perturb.buffer = -1,
                  .dev = dev};
        bool there = case_once(&c, t->fn);
        if (there && c.seconds > 0 && (c.flops > 0 || c.bytes > 0)) {
            char name[64];
            snprintf(name, sizeof name, "%s%s%s", t->name, c.label ? "." : "", c.label ? c.label : "");
            printf("%-20s %10.2f us %8.1f GFLOP/s %7.1f GB/s ", name, c.seconds * 1e6,
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
    close_one(s, dev);
}

static void run_list(Session *s, const OpTest *t)
{
    printf("%-20s cpu: plain", t->name);
    for (CpuIsa isa = ISA_AVX2; isa < ISA_COUNT; isa++) {
        Device *dev = open_body(isa, 1);
        if (dev)
            printf(" %s", body_name[isa]);
        device_close(dev);
    }
    printf("%s%s\n", s->cuda ? "; " : "", s->cuda ? device_text(s->cuda) : "");
    s->passed++;
}

/* One number an op over all outputs of the best body: equal between compilers and machines that
 * promise the same bits. NaNs count as one value. */
static void run_hash(Session *s, const OpTest *t)
{
    Device *dev = open_one(s);
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
    close_one(s, dev);
    s->passed++;
}

static const struct {
    const char *name;
    void (*run)(Session *, const OpTest *);
} modes[N_MODES] = {[MODE_TEST] = {"test", run_test},
                    [MODE_GRAD] = {"grad", run_grad},
                    [MODE_PERF] = {"perf", run_perf},
                    [MODE_LIST] = {"list", run_list},
                    [MODE_HASH] = {"hash", run_hash}};

static int usage(void)
{
    fprintf(stderr, "usage: test_ops [-o OP] [-s SEED] [-t THREADS] [-e N] [-b plain|avx2|avx512|avx512bf16|cuda] "
                    "[test|grad|perf|list|hash]\n");
    return -ERR_USAGE;
}

/* Opens the card where one is wanted; a tree without the library or a machine without a card skips
 * it, unless it was asked for by name. */
static int open_cuda(Session *s, int mode)
{
    bool one = mode == MODE_PERF || mode == MODE_HASH; /* these take one body, the CPU's by default */
    bool named = s->body && strcmp(s->body, "cuda") == 0;
    if (mode == MODE_GRAD || !body_wanted(s, "cuda") || (one && !named))
        return 0;
    if (mode == MODE_TEST) /* tests read results as soon as an op returns */
        setenv("CUDA_LAUNCH_BLOCKING", "1", 1);
    int rc = device_open(&s->cuda, &(DeviceOptions){.name = "cuda"});
    if (rc < 0 && named)
        fprintf(stderr, "test_ops: %s\n", error_text());
    else if (rc < 0 && mode == MODE_TEST)
        printf("skip cuda: %s\n", error_text());
    return named ? rc : 0;
}

static bool body_known(const char *name)
{
    for (CpuIsa isa = ISA_PLAIN; isa < ISA_COUNT; isa++)
        if (strcmp(name, body_name[isa]) == 0)
            return true;
    return strcmp(name, "cuda") == 0;
}

/* The arguments into *s and *mode; false: usage. */
static bool read_arguments(int argc, char **argv, Session *s, int *mode)
{
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-') {
            for (*mode = 0; *mode < N_MODES && strcmp(argv[i], modes[*mode].name) != 0; ++*mode)
                ;
            if (*mode == N_MODES)
                return false;
            continue;
        }
        char option = argv[i][1];
        const char *value = argv[++i];
        if (!option || !value)
            return false;
        if (option == 'o')
            s->only = value;
        else if (option == 's')
            s->seed = strtoull(value, NULL, 10);
        else if (option == 't')
            s->threads = atoi(value);
        else if (option == 'e' && atoi(value) > 0)
            s->every = atoi(value);
        else if (option == 'b' && body_known(value))
            s->body = value;
        else
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    Session s = {.seed = 42, .threads = 1, .every = 1};
    int mode = DTYPE_REAL == DTYPE_F64 ? MODE_GRAD : MODE_TEST, n = 0;
    if (!read_arguments(argc, argv, &s, &mode))
        return usage();
    if ((mode == MODE_GRAD) != (DTYPE_REAL == DTYPE_F64) && mode <= MODE_GRAD) {
        fprintf(stderr, "test_ops: '%s' is for the other build (test_grad is the one in double)\n",
                modes[mode].name);
        return -ERR_USAGE;
    }
    int rc = open_cuda(&s, mode);
    if (rc < 0)
        return -rc;
    for (int i = 0; i < n_op_tests; i++)
        if (!s.only || strcmp(s.only, op_tests[i].name) == 0) {
            modes[mode].run(&s, &op_tests[i]);
            n++;
        }
    device_close(s.cuda);
    if (!n) {
        fprintf(stderr, "test_ops: no op '%s'; see test_ops list\n", s.only);
        return -ERR_USAGE;
    }
    printf("%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped);
    return s.failed > 0;
}
