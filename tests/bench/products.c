/* products.c - a card's products of bf16 rows at the shapes of 1.5B and 7B models: our kernels and
 * what AUTO takes, each as a fraction of what the vendor's library chooses by itself for that very
 * product. Weights go round among copies that together are larger than any cache, as they do in a
 * model. At the end the table of the probe: which shapes the library may serve. Nothing on a CPU.
 */
#include "tests/bench/bench.h"

#include "common/base/error.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/runtime/arena.h"
#include "common/runtime/ops.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name;
    int64_t n, k;
} Weight;

static const Weight weights[] = {
    {"1.5b q", 1536, 1536},    {"1.5b kv", 256, 1536},      {"1.5b up", 8960, 1536},
    {"1.5b down", 1536, 8960}, {"1.5b head", 151936, 1536}, {"7b q", 4096, 4096},
    {"7b up", 11008, 4096},    {"7b down", 4096, 11008},    {"7b head", 32000, 4096}};
static const Weight quick_weights[] = {{"tiny", 96, 64}};
static const int64_t rows_of_use[] = {1, 8, 64, 2048, 8192}, quick_rows[] = {1, 80};

enum {
    N_CHOICES = 3, /* ProductsChoice */
    MANY = 65,     /* rows from which backward products count, and FLOPs instead of bytes */
    DRAWN = 1 << 22,
    COPIES_BYTES = 512 << 20,
};
static const double RUN_SECONDS = 0.02;

typedef enum { Y, DX, DW, N_PRODUCTS } Product;
static const char *const product_name[N_PRODUCTS] = {"y", "dx", "dw"};

/* Room for the largest of everything; a case takes views. */
typedef struct {
    const Weight *weight;
    const int64_t *rows;
    int n_weights, n_rows;
    Device *dev;
    Arena arena;
    Tensor x, dy, out, w, dw;         /* flat; x and dy as large as any, out for y and dx */
    int64_t copies_bytes, n_recorded; /* calls of a graph */
} Rig;

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Copies of a weight that together are no cache's. */
static int64_t copies(const Rig *r, const Weight *w)
{
    return larger(1, r->copies_bytes / (2 * w->n * w->k));
}

static void fill_random(Tensor *t)
{
    uint16_t *drawn = xmalloc(DRAWN * sizeof *drawn);
    Rng g = rng_make(1, RNG_TEST, 0, 0, 0);
    for (int i = 0; i < DRAWN; i++) { /* both signs, magnitudes from 2^-4 to 2 */
        uint64_t u = rng_next_below(&g, 1u << 16);
        drawn[i] = (uint16_t)((u & 0x807f) | ((123 + (u >> 8 & 3)) << 7));
    }
    for (int64_t at = 0; at < t->dim[0]; at += DRAWN) {
        Tensor part = tensor_slice(t, at, t->dim[0] - at < DRAWN ? t->dim[0] - at : DRAWN);
        device_upload(&part, drawn, tensor_bytes(&part));
    }
    free(drawn);
}

static void rig_open(Rig *r, Bench *b, Device *dev)
{
    int64_t most = 0, side = 0, w = 0;
    *r = (Rig){.dev = dev,
               .weight = weights,
               .rows = rows_of_use,
               .n_weights = sizeof weights / sizeof *weights,
               .n_rows = sizeof rows_of_use / sizeof *rows_of_use,
               .copies_bytes = COPIES_BYTES,
               .n_recorded = 24};
    if (b->quick) {
        r->weight = quick_weights, r->rows = quick_rows, r->copies_bytes = 1 << 16,
        r->n_recorded = 2;
        r->n_weights = 1, r->n_rows = 2;
    }
    for (int i = 0; i < r->n_weights; i++) {
        side = larger(side, larger(r->weight[i].n, r->weight[i].k));
        most = larger(most, r->weight[i].n * r->weight[i].k);
        w = larger(w, copies(r, &r->weight[i]) * r->weight[i].n * r->weight[i].k);
    }
    arena_init(&r->arena, dev, ARENA_DEVICE, "products");
    for (int pass = 0; pass < 2; pass++) {
        r->x = arena_rows1(&r->arena, DTYPE_BF16, r->rows[r->n_rows - 1] * side);
        r->dy = arena_rows1(&r->arena, DTYPE_BF16, r->rows[r->n_rows - 1] * side);
        r->out = arena_rows1(&r->arena, DTYPE_BF16, r->rows[r->n_rows - 1] * side);
        r->w = arena_rows1(&r->arena, DTYPE_BF16, w);
        r->dw = arena_rows1(&r->arena, DTYPE_F32, most);
        if (!pass)
            CHECK(arena_commit(&r->arena) == 0, "%s", error_text());
    }
    fill_random(&r->x);
    fill_random(&r->dy);
    fill_random(&r->w);
}

static Tensor view(const Tensor *t, int64_t from, int64_t d0, int64_t d1)
{
    return tensor_make2((char *)t->data + (size_t)from * dtype_bytes(t->dtype), t->dev, t->dtype,
                        d0, d1);
}

/* One call; the i-th copy of the weight. */
static void call(const Rig *r, Product p, const Weight *w, int64_t M, int64_t i)
{
    Tensor x = view(&r->x, 0, M, w->k), dy = view(&r->dy, 0, M, w->n);
    Tensor out = view(&r->out, 0, M, p == DX ? w->k : w->n), dw = view(&r->dw, 0, w->n, w->k);
    Tensor wi = view(&r->w, i % copies(r, w) * w->n * w->k, w->n, w->k);
    if (p == Y)
        op_linear(&out, &x, &wi, false);
    else if (p == DX)
        op_linear_dx(&out, &dy, &wi, false);
    else
        op_linear_dw(&dw, &dy, &x, DTYPE_BF16, true);
}

/* Calls in one graph, so that what is timed is the card and not the host that launches. */
static Graph record_calls(const Rig *r, Product p, const Weight *w, int64_t M)
{
    Graph g = {0};
    graph_begin(r->dev);
    for (int64_t i = 0; i < r->n_recorded; i++)
        call(r, p, w, M, i);
    graph_end(&g, r->dev);
    return g;
}

/* Seconds of one call, over n launches of a graph of them. */
static double time_calls(const Rig *r, const Graph *g, int64_t n)
{
    device_sync(r->dev);
    double started = bench_now(0);
    for (int64_t i = 0; i < n; i++)
        graph_launch(g, r->dev);
    device_sync(r->dev);
    return (bench_now(0) - started) / (double)(n * r->n_recorded);
}

typedef struct {
    double value[REPEATS_MAX];
} Values;

static void measure(Bench *b, const Rig *r, Product p, const Weight *w, int64_t M, Values *v)
{
    double work = 2.0 * (double)w->n * (double)w->k * (M >= MANY ? (double)M : 1);
    call(r, p, w, M, 0); /* the probe, and the first launch */
    Graph g = record_calls(r, p, w, M);
    double once = time_calls(r, &g, 1);
    int64_t n = b->quick ? 1 : larger(1, (int64_t)(RUN_SECONDS / once / (double)r->n_recorded));
    for (int k = 0; k < b->repeat; k++)
        v->value[k] = 1e-9 * work / time_calls(r, &g, n);
    graph_free(&g, r->dev);
}

static int ascending(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double middle(const Bench *b, const Values *v)
{
    Row row = {.n = b->repeat};
    memcpy(row.value, v->value, sizeof row.value);
    qsort(row.value, (size_t)row.n, sizeof *row.value, ascending);
    return row_median(&row);
}

static void add_rows(Bench *b, Product p, const Weight *w, int64_t M, const Values v[N_CHOICES])
{
    static const char *const by[N_CHOICES] = {"auto", "ours", "cuBLASLt"};
    bool library = v[PRODUCTS_LIBRARY].value[0] > 0;
    for (int choice = N_CHOICES - 1; choice >= 0; choice--) {
        if (choice == PRODUCTS_LIBRARY && !library)
            continue;
        Row row = {.roof =
                       library && choice != PRODUCTS_LIBRARY ? middle(b, &v[PRODUCTS_LIBRARY]) : 0};
        snprintf(row.unit, sizeof row.unit, M >= MANY ? "GFLOP/s" : "GB/s");
        snprintf(row.name, sizeof row.name, "product %s %s M=%lld %s", product_name[p], w->name,
                 (long long)M, by[choice]);
        for (int k = 0; k < b->repeat; k++)
            bench_take(&row, v[choice].value[k], 1);
        row_add(&b->rows, row);
    }
}

static void print_line(void *ctx, const char *text)
{
    (void)ctx;
    printf("probe: %s\n", text);
}

static void see_library(void *ctx, const char *text)
{
    *(bool *)ctx = *(bool *)ctx || strncmp(text, "products: cuBLASLt", 18) == 0;
}

/* All cases with one choice; then the next, since a choice forgets what was probed. */
static void measure_all(Bench *b, const Rig *r, ProductsChoice choice, Values (*v)[N_CHOICES])
{
    device_choose_products(r->dev, choice);
    for (int i = 0, at = 0; i < r->n_weights; i++)
        for (int j = 0; j < r->n_rows; j++)
            for (int p = 0; p < N_PRODUCTS; p++, at++)
                if (p == Y || r->rows[j] >= MANY)
                    measure(b, r, (Product)p, &r->weight[i], r->rows[j], &v[at][choice]);
}

void products_run(Bench *b)
{
    Device *dev = bench_open_device(b, 1);
    Rig r;
    if (!device_can_bf16(dev) || !device_can_capture(dev)) {
        device_close(dev);
        return;
    }
    rig_open(&r, b, dev);
    Values(*v)[N_CHOICES] = xcalloc((size_t)(r.n_weights * r.n_rows * N_PRODUCTS), sizeof *v);
    bool library = false;
    call(&r, Y, &r.weight[0], 1, 0);
    device_products(dev, see_library, &library);
    measure_all(b, &r, PRODUCTS_OWN, v);
    if (library)
        measure_all(b, &r, PRODUCTS_LIBRARY, v);
    measure_all(b, &r, PRODUCTS_AUTO, v);
    for (int i = 0, at = 0; i < r.n_weights; i++)
        for (int j = 0; j < r.n_rows; j++)
            for (int p = 0; p < N_PRODUCTS; p++, at++)
                if (p == Y || r.rows[j] >= MANY)
                    add_rows(b, (Product)p, &r.weight[i], r.rows[j], v[at]);
    device_products(dev, print_line, NULL);
    free(v);
    arena_free(&r.arena);
    device_close(dev);
}
