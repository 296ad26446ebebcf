/* ceiling.c - what the device could do at best, measured in the same run as everything else, because a
 * shared machine gives another ceiling every minute.
 *
 * A CPU: multiply-adds in registers, and reads of buffers that fit L2, L3 or neither (huge pages, each
 * thread its own part). A card: a large op_linear and a large op_axpy, since this program holds no
 * kernels of its own. */
#include "tests/bench/bench.h"

#include "common/base/error.h"
#include "common/base/mem.h"
#include "common/runtime/arena.h"
#include "common/runtime/ops.h"
#include "common/runtime/thread.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>

static const double FMA_SECONDS = 0.2, READ_SECONDS = 0.15, NOW_SECONDS = 0.15;

/* ---- multiply-adds ------------------------------------------------------------------------------ */

typedef struct {
    double (*of)(CpuIsa isa, int threads, double seconds); /* fma_rate, dot_rate */
    CpuIsa isa;
    double seconds, rate[1024]; /* by part */
} FmaWork;

static void fma_part(int part, int n_parts, void *ctx)
{
    FmaWork *w = ctx;
    w->rate[part] = w->of(w->isa, n_parts, w->seconds);
}

static double fma_team(Team *team, double (*of)(CpuIsa, int, double), CpuIsa isa, double seconds)
{
    FmaWork w = {.of = of, .isa = isa, .seconds = seconds};
    cpu_for(team, fma_part, &w);
    double sum = 0;
    for (int i = 0; i < team_size(team); i++)
        sum += w.rate[i];
    return sum;
}

/* The bodies that `dev` runs: its text ends with their name. */
static CpuIsa device_isa(const Device *dev)
{
    const char *text = device_text(dev);
    return strstr(text, "avx512bf16") ? ISA_AVX512BF16
           : strstr(text, "avx512")   ? ISA_AVX512
           : strstr(text, "avx2")     ? ISA_AVX2
                                      : ISA_PLAIN;
}

/* ---- reads -------------------------------------------------------------------------------------- */

typedef struct {
    const unsigned char *data;
    int64_t bytes;
    int64_t passes;
    uint64_t sum[1024]; /* by part: keeps the reads */
} ReadWork;

/* Wide loads whatever the compiler's flags: four 64-byte vectors at a time. */
typedef uint64_t Line __attribute__((vector_size(64), aligned(64)));

#ifdef __x86_64__
__attribute__((target_clones("default", "avx2", "avx512f")))
#endif
static uint64_t read_lines(const Line *at, int64_t n)
{
    Line a = {0}, b = {0}, c = {0}, d = {0};
    for (int64_t i = 0; i + 4 <= n; i += 4) {
        a ^= at[i];
        b ^= at[i + 1];
        c ^= at[i + 2];
        d ^= at[i + 3];
    }
    a ^= b ^ c ^ d;
    return a[0] ^ a[1] ^ a[2] ^ a[3] ^ a[4] ^ a[5] ^ a[6] ^ a[7];
}

static void read_part(int part, int n_parts, void *ctx)
{
    ReadWork *w = ctx;
    int64_t from, to;
    part_range(w->bytes / 64, 4, part, n_parts, &from, &to);
    for (int64_t k = 0; k < w->passes; k++)
        w->sum[part] += read_lines((const Line *)w->data + from, to - from);
}

static double read_rate(Team *team, const unsigned char *data, int64_t bytes, double seconds)
{
    ReadWork w = {.data = data, .bytes = bytes, .passes = 1};
    cpu_for(team, read_part, &w);
    for (;; w.passes *= 2) {
        double started = bench_now(team_size(team));
        cpu_for(team, read_part, &w);
        double passed = bench_now(team_size(team)) - started;
        if (passed >= seconds)
            return (double)bytes * (double)w.passes / passed;
    }
}

static unsigned char *huge_map(size_t bytes)
{
    unsigned char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED, "no room for %zu bytes", bytes);
    madvise(p, bytes, MADV_HUGEPAGE);
    memset(p, 1, bytes);
    return p;
}

double ceiling_read(const Ceiling *c, double bytes)
{
    int i = 1;
    if (c->n_points == 1 || bytes <= (double)c->bytes[0])
        return c->rate[0];
    while (i < c->n_points - 1 && bytes > (double)c->bytes[i])
        i++;
    double from = log((double)c->bytes[i - 1]), to = log((double)c->bytes[i]), x = log(bytes);
    double f = x >= to ? 1 : (x - from) / (to - from);
    return c->rate[i - 1] + f * (c->rate[i] - c->rate[i - 1]);
}

/* bf16 operands may be widened for f32 multiply-adds, which some processors do faster than dot products. */
double ceiling_flops(const Ceiling *c, DType dtype)
{
    return dtype == DTYPE_BF16 && c->flops_bf16 > c->flops ? c->flops_bf16 : c->flops;
}

/* ---- both kinds of device ----------------------------------------------------------------------- */

static void add_value(Row *r, double value)
{
    r->value[r->n++] = value;
}

/* A ceiling is the best measurement: what disturbs one can only lower it. */
static double add_ceiling(Bench *b, Row row)
{
    row_add(&b->rows, row);
    return b->rows.at[b->rows.n - 1].value[row.n - 1];
}

static void cpu_flops(Bench *b, Ceiling *c, Team *team, CpuIsa isa)
{
    static const char *const names[] = {"", "plain", "avx2", "avx512"};
    c->isa = isa > ISA_AVX512 ? ISA_AVX512 : isa; /* of f32 multiply-adds */
    for (CpuIsa i = ISA_PLAIN; i <= c->isa; i++) {
        Row row = {.unit = "GFLOP/s", .threads = c->threads};
        snprintf(row.name, sizeof row.name, "ceiling fma %s", names[i]);
        for (int k = 0; k < b->repeat; k++)
            add_value(&row, 1e-9 * fma_team(team, fma_rate, i, b->quick ? 0.02 : FMA_SECONDS));
        c->flops = 1e9 * add_ceiling(b, row);
    }
    Row dot = {.name = "ceiling dot bf16", .unit = "GFLOP/s", .threads = c->threads};
    for (int k = 0; k < b->repeat; k++)
        add_value(&dot, 1e-9 * fma_team(team, dot_rate, isa, b->quick ? 0.02 : FMA_SECONDS));
    c->flops_bf16 = dot.value[0] > 0 ? 1e9 * add_ceiling(b, dot) : 0;
}

static void cpu_reads(Bench *b, Ceiling *c, Team *team)
{
    static const int mib[READ_POINTS] = {1, 4, 16, 64, 256, 1024};
    c->n_points = b->quick ? 4 : READ_POINTS;
    size_t most = (size_t)mib[c->n_points - 1] << 20;
    unsigned char *data = huge_map(most);
    for (int i = 0; i < c->n_points; i++) {
        Row row = {.unit = "GB/s", .threads = c->threads};
        c->bytes[i] = (int64_t)mib[i] << 20;
        snprintf(row.name, sizeof row.name, "ceiling read %d MiB", mib[i]);
        for (int k = 0; k < b->repeat; k++)
            add_value(&row, 1e-9 * read_rate(team, data, c->bytes[i], b->quick ? 0.01 : READ_SECONDS));
        c->rate[i] = 1e9 * add_ceiling(b, row);
    }
    munmap(data, most);
}

/* Seconds of one call of a card's product (M = N = K) or of y += a x over M * M elements. */
static double card_run(Device *dev, Tensor *y, const Tensor *x, const Tensor *w, int runs)
{
    device_sync(dev);
    double started = bench_now(0);
    for (int i = 0; i < runs; i++) {
        if (w)
            op_linear(y, x, w, false);
        else
            op_axpy(y, 0.5, x, true);
    }
    device_sync(dev);
    return (bench_now(0) - started) / runs;
}

/* FLOP/s of a card's bf16 product of 4096 cubed; 0 where it has none. */
static void card_bf16(Bench *b, Ceiling *c, Device *dev)
{
    const int64_t M = b->quick ? 64 : 4096;
    Arena a = {0};
    Tensor y = {0}, x = {0}, w = {0};
    if (!device_can_bf16(dev))
        return;
    arena_init(&a, dev, ARENA_DEVICE, "ceilings");
    for (int pass = 0; pass < 2; pass++) {
        y = arena_rows2(&a, DTYPE_BF16, M, M);
        x = arena_rows2(&a, DTYPE_BF16, M, M);
        w = arena_rows2(&a, DTYPE_BF16, M, M);
        if (!pass)
            CHECK(arena_commit(&a) == 0, "%s", error_text());
    }
    op_fill(&x, 0.5);
    op_fill(&w, 0.25);
    Row row = {.unit = "GFLOP/s"};
    snprintf(row.name, sizeof row.name, "ceiling op_linear bf16 %lld cubed", (long long)M);
    card_run(dev, &y, &x, &w, 1);
    for (int k = 0; k < b->repeat; k++)
        add_value(&row, 2e-9 * (double)(M * M * M) / card_run(dev, &y, &x, &w, b->quick ? 1 : 100));
    c->flops_bf16 = 1e9 * add_ceiling(b, row);
    arena_free(&a);
}

static void card_measure(Bench *b, Ceiling *c, Device *dev)
{
    const int64_t M = b->quick ? 64 : 4096, n = b->quick ? 1 << 12 : 1 << 14; /* 64 KiB or 1 GiB */
    Arena a = {0};
    Tensor y = {0}, x = {0}, w = {0}, to = {0}, from = {0};
    arena_init(&a, dev, ARENA_DEVICE, "ceilings");
    for (int pass = 0; pass < 2; pass++) {
        y = arena_rows2(&a, DTYPE_REAL, M, M);
        x = arena_rows2(&a, DTYPE_REAL, M, M);
        w = arena_panel(&a, DTYPE_REAL, M, M);
        to = arena_rows2(&a, DTYPE_REAL, n, b->quick ? 4 : n);
        from = arena_rows2(&a, DTYPE_REAL, n, b->quick ? 4 : n);
        if (!pass)
            CHECK(arena_commit(&a) == 0, "%s", error_text());
    }
    op_fill(&x, 0.5);
    op_fill(&w, 0.25);
    Row flops = {.unit = "GFLOP/s"};
    Row rate = {.name = "ceiling op_axpy", .unit = "GB/s"};
    snprintf(flops.name, sizeof flops.name, "ceiling op_linear %lld cubed", (long long)M);
    card_run(dev, &y, &x, &w, 1);
    card_run(dev, &to, &from, NULL, 1);
    for (int k = 0; k < b->repeat; k++) {
        double moved = 3.0 * (double)tensor_bytes(&to);
        add_value(&flops, 2e-9 * (double)(M * M * M) / card_run(dev, &y, &x, &w, b->quick ? 1 : 10));
        add_value(&rate, 1e-9 * moved / card_run(dev, &to, &from, NULL, b->quick ? 1 : 10));
    }
    c->flops = 1e9 * add_ceiling(b, flops);
    c->rate[0] = 1e9 * add_ceiling(b, rate);
    c->n_points = 1;
    arena_free(&a);
    card_bf16(b, c, dev);
}

double ceiling_now(Bench *b, int which)
{
    const Ceiling *c = bench_ceiling(b, which);
    if (bench_is_cuda(b) || c->threads == 1)
        return 1;
    Team *team = team_open(c->threads);
    double rate = fma_team(team, fma_rate, c->isa, b->quick ? 0.01 : NOW_SECONDS);
    team_close(team);
    return rate / c->flops;
}

void ceilings_measure(Bench *b, int which)
{
    Ceiling *c = &b->ceiling[which];
    Device *dev = bench_open_device(b, b->threads[which]);
    if (bench_is_cuda(b)) {
        card_measure(b, c, dev);
    } else {
        Team *team = team_open(b->threads[which]);
        c->threads = b->threads[which];
        cpu_flops(b, c, team, device_isa(dev));
        cpu_reads(b, c, team);
        team_close(team);
    }
    device_close(dev);
}
