/* attention.c - bf16 attention of a card, forward and backward over packed sequences, as a fraction of the
 * rate of a large bf16 product by the vendor's library in the same run.
 *
 * FLOPs are those of the causal half: 4 D a query-key pair and head forward, 10 D backward, whatever is
 * computed twice. Values are random: a card's clock sees what it multiplies. */
#include "tests/bench/bench.h"

#include "common/base/error.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/runtime/arena.h"
#include "common/runtime/ops.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    const char *name;
    int H, K, D, S, T; /* S sequences of T tokens */
} Heads;

typedef struct {
    Arena arena;
    Tensor starts, q, k, v, o, lse, d_o, dq, dk, dv, delta;
} World;

static void world_alloc(World *w, const Heads *h)
{
    const int64_t n = (int64_t)h->S * h->T, wide = h->H * h->D, narrow = h->K * h->D;
    w->starts = arena_rows1(&w->arena, DTYPE_I32, h->S + 1);
    Tensor *const of_queries[] = {&w->q, &w->o, &w->d_o, &w->dq}, *const of_keys[] = {&w->k, &w->v, &w->dk, &w->dv};
    for (int i = 0; i < 4; i++) {
        *of_queries[i] = arena_rows2(&w->arena, DTYPE_BF16, n, wide);
        *of_keys[i] = arena_rows2(&w->arena, DTYPE_BF16, n, narrow);
    }
    w->lse = arena_rows2(&w->arena, DTYPE_REAL, n, h->H);
    w->delta = arena_rows2(&w->arena, DTYPE_REAL, n, h->H);
}

/* Numbers between -2 and 2, rounded. */
static void fill_random(Tensor *t, uint64_t seed)
{
    int64_t n = tensor_len(t);
    uint16_t *x = xmalloc((size_t)n * sizeof *x);
    Rng r = rng_make(seed, RNG_TEST, 0, 0, 0);
    for (int64_t i = 0; i < n; i++)
        x[i] = (uint16_t)(0x3f00 | (rng_next_u32(&r) & 0x80ff));
    device_upload(t, x, (size_t)n * sizeof *x);
    free(x);
}

static void world_open(World *w, Device *dev, const Heads *h)
{
    int32_t starts[65];
    arena_init(&w->arena, dev, ARENA_DEVICE, "attention");
    for (int pass = 0; pass < 2; pass++) {
        world_alloc(w, h);
        if (!pass)
            CHECK(arena_commit(&w->arena) == 0, "%s", error_text());
    }
    for (int s = 0; s <= h->S; s++)
        starts[s] = s * h->T;
    device_upload(&w->starts, starts, (size_t)(h->S + 1) * sizeof *starts);
    Tensor *const filled[] = {&w->q, &w->k, &w->v, &w->d_o};
    for (int i = 0; i < 4; i++)
        fill_random(filled[i], (uint64_t)i);
}

static void run(World *w, const Heads *h, bool backward)
{
    const double scale = 1 / sqrt(h->D);
    if (backward)
        op_attention_backward(&w->dq, &w->dk, &w->dv, &w->delta, &w->d_o, &w->o, &w->lse, &w->q, &w->k, &w->v,
                              &w->starts, h->D, scale);
    else
        op_attention(&w->o, &w->lse, &w->q, &w->k, &w->v, &w->starts, h->D, scale);
}

/* Seconds of a call, of as many as take some 20 ms. */
static double seconds_of(Device *dev, void (*fn)(void *ctx), void *ctx)
{
    fn(ctx);
    for (int n = 1;; n *= 4) {
        device_sync(dev);
        double started = bench_now(0);
        for (int i = 0; i < n; i++)
            fn(ctx);
        device_sync(dev);
        double took = bench_now(0) - started;
        if (took > 0.02)
            return took / n;
    }
}

typedef struct {
    World w;
    const Heads *h;
    bool backward;
} Call;

static void call_run(void *ctx)
{
    Call *c = ctx;
    run(&c->w, c->h, c->backward);
}

typedef struct {
    Arena arena;
    Tensor y, x, w;
} Product;

static void product_run(void *ctx)
{
    Product *p = ctx;
    op_linear(&p->y, &p->x, &p->w, false);
}

/* FLOP/s of y = x w^T in bf16, M cubed. */
static double product_rate(Bench *b, Device *dev)
{
    const int64_t M = b->quick ? 128 : 8192;
    Product p = {0};
    Row row = {.unit = "GFLOP/s"};
    arena_init(&p.arena, dev, ARENA_DEVICE, "product");
    for (int pass = 0; pass < 2; pass++) {
        p.y = arena_rows2(&p.arena, DTYPE_BF16, M, M);
        p.x = arena_rows2(&p.arena, DTYPE_BF16, M, M);
        p.w = arena_rows2(&p.arena, DTYPE_BF16, M, M);
        if (!pass)
            CHECK(arena_commit(&p.arena) == 0, "%s", error_text());
    }
    fill_random(&p.x, 1);
    fill_random(&p.w, 2);
    snprintf(row.name, sizeof row.name, "ceiling bf16 product %lld cubed", (long long)M);
    for (double from = bench_now(0); bench_again(b, row.n, from);)
        bench_take(&row, 2e-9 * (double)M * (double)M * (double)M / seconds_of(dev, product_run, &p), 1);
    row_add(&b->rows, row);
    arena_free(&p.arena);
    return 1e9 * b->rows.at[b->rows.n - 1].value[row.n - 1];
}

static void measure(Bench *b, Device *dev, const Heads *h, double rate)
{
    Call c = {.h = h};
    world_open(&c.w, dev, h);
    run(&c.w, h, false);
    for (int backward = 0; backward < 2; backward++) {
        const double flops = (backward ? 10.0 : 4.0) * h->D * h->H * h->S * 0.5 * h->T * (h->T + 1);
        Row row = {.unit = "GFLOP/s", .roof = 1e-9 * rate, .of_card = true};
        row.target = h->T < 4096 ? 0 : backward ? 0.28 : 0.42;
        snprintf(row.name, sizeof row.name, "attention %s %dx%d %s", h->name, h->S, h->T,
                 backward ? "backward" : "forward");
        c.backward = backward;
        for (double from = bench_now(0); bench_again(b, row.n, from);)
            bench_take(&row, 1e-9 * flops / seconds_of(dev, call_run, &c), 1);
        row_add(&b->rows, row);
    }
    arena_free(&c.w.arena);
}

void attention_run(Bench *b)
{
    static const Heads heads[] = {{"1.5b", 12, 2, 128, 8, 1024}, {"1.5b", 12, 2, 128, 2, 4096},
                                  {"7b", 32, 32, 128, 8, 1024},  {"7b", 32, 32, 128, 2, 4096},
                                  {"135m", 9, 3, 64, 8, 1024},   {"135m", 9, 3, 64, 2, 4096}};
    static const Heads tiny = {"tiny", 2, 1, 64, 2, 96};
    Device *dev = bench_open_device(b, 1);
    if (device_can_bf16(dev)) {
        device_choose_products(dev, PRODUCTS_LIBRARY);
        double rate = product_rate(b, dev);
        for (size_t i = 0; i < (b->quick ? 1 : sizeof heads / sizeof *heads); i++)
            measure(b, dev, b->quick ? &tiny : &heads[i], rate);
    }
    device_close(dev);
}
