/* linear.cu - the three products of a linear layer: one register tile in shared memory.
 *
 * Every product is c[i, j] = FMA chain over the chain index k ascending of a[i, k] * b[j, k], from
 * c or from +0. A block makes a tile of c, a thread a few rows by a few columns of it in registers;
 * the operands pass through shared memory as [k][i] and [k][j], a step of k at a time, the next
 * step on its way in registers. No chain is ever split, so tiles only choose which chains run side
 * by side: their choice cannot change a bit. Up to FEW_ROWS rows a product is a stream of weights,
 * for which there is a kernel of its own. f32; bf16 is linear_bf16.cu. Tested by tests/ops/linear.c. */
#include "common/runtime/cuda/linear.h"
#include "common/runtime/cuda/tile.h"

/* How an operand's element (row i, chain index k) lies. step: elements between rows, or the
 * weight's columns K. */
enum {
    ROWS_ALONG_CHAIN,  /* p[i * step + k]                                      x of y, dy of dx */
    ROWS_ALONG_TILE,   /* p[k * step + i]                                      x and dy of dw */
    PANEL_ALONG_TILE,  /* p[(i / PANEL_N * step + k) * PANEL_N + i % PANEL_N]  w of y */
    PANEL_ALONG_CHAIN, /* p[(k / PANEL_N * step + i) * PANEL_N + k % PANEL_N]  w of dx */
};

typedef struct {
    const float *p;
    int64_t step;
    int64_t n; /* rows there are; a panel's lanes beyond N may be read */
    bool wide; /* four elements along the contiguous side are aligned */
} Operand;

typedef struct {
    Operand a, b;
    int64_t n_k; /* length of the chain */
    float *c;    /* rows: c[i * c_step + j]; panel: c[(j / PANEL_N * c_step + i) * PANEL_N + j %
                    PANEL_N] */
    int64_t c_step, n_i, n_j;
    bool c_wide, accumulate;
} Product;

enum {
    PAD = 4, /* floats behind a row of shared memory: transposed stores of a warp hit all banks */
    FEW_ROWS = 16,
    FEW_THREADS = 128,
    FEW_WARPS = FEW_THREADS / WARP,
    FEW_STEP = 128, /* chain of a step: 16 KiB of weights on their way per block */
};

/* ---- operands ----------------------------------------------------------------------------------
 */

static __device__ __forceinline__ bool along_chain(int form)
{
    return form == ROWS_ALONG_CHAIN || form == PANEL_ALONG_CHAIN;
}

static __device__ __forceinline__ const float *operand_at(const Operand *o, int form, int64_t i,
                                                          int64_t k)
{
    switch (form) {
    case ROWS_ALONG_CHAIN:
        return o->p + i * o->step + k;
    case ROWS_ALONG_TILE:
        return o->p + k * o->step + i;
    case PANEL_ALONG_TILE:
        return o->p + (i / PANEL_N * o->step + k) * PANEL_N + i % PANEL_N;
    default:
        return o->p + (k / PANEL_N * o->step + i) * PANEL_N + k % PANEL_N;
    }
}

/* Elements from (i, k) to (i, k + by), by a divisor of PANEL_N and k a multiple of it. */
static __device__ __forceinline__ int64_t operand_step(const Operand *o, int form, int64_t k,
                                                       int by)
{
    switch (form) {
    case ROWS_ALONG_CHAIN:
        return by;
    case ROWS_ALONG_TILE:
        return by * o->step;
    case PANEL_ALONG_TILE:
        return by * PANEL_N;
    default:
        return (k + by) % PANEL_N ? by : PANEL_N * o->step - (PANEL_N - by);
    }
}

/* What a thread brings of an operand in each step: up to two groups of four. */
typedef struct {
    const float *p[2];
    int i[2], k[2]; /* row in the tile, chain index in the step */
    int rows[2];    /* rows from there on */
    float4 x[2];
} Stream;

/* Where the q-th group of a step of `size` rows lies. Along the chain a warp takes two groups of 16
 * rows: whole sectors of global memory, and no two lanes on one bank when the four are stored under
 * each other. */
static __device__ __forceinline__ void group_place(int form, int size, int q, int *i, int *k)
{
    if (along_chain(form)) {
        *i = q / 2 % size;
        *k = q / (2 * size) * 8 + q % 2 * 4;
    } else {
        *i = q % (size / 4) * 4;
        *k = q / (size / 4);
    }
}

/* n groups of each of `threads` threads; size, n and threads are constants. */
static __device__ __forceinline__ void stream_start(Stream *st, const Operand *o, int form,
                                                    int64_t row0, int size, int n, int threads)
{
#pragma unroll
    for (int u = 0; u < n; u++) {
        group_place(form, size, (int)threadIdx.x + u * threads, &st->i[u], &st->k[u]);
        st->rows[u] = least(o->n - row0 - st->i[u], size);
        st->p[u] = operand_at(o, form, row0 + st->i[u], st->k[u]);
    }
}

/* Moves on by `by` elements and fetches a step, n_k of the chain. */
static __device__ __forceinline__ void stream_fetch(Stream *st, const Operand *o, int form, int n,
                                                    int n_k, int64_t by)
{
#pragma unroll
    for (int u = 0; u < n; u++) {
        const int chain = n_k - st->k[u];
        const int left =
            along_chain(form) ? (st->rows[u] > 0 ? chain : 0) : (chain > 0 ? st->rows[u] : 0);
        st->p[u] += by;
        st->x[u] = fetch4(st->p[u], left, o->wide);
    }
}

/* s: [k][size + PAD]. */
static __device__ __forceinline__ void stream_store(const Stream *st, int form, int size, int n,
                                                    float *s)
{
#pragma unroll
    for (int u = 0; u < n; u++) {
        float *to = s + st->k[u] * (size + PAD) + st->i[u];
        if (along_chain(form))
            store_down(to, size + PAD, st->x[u]);
        else
            store4(to, st->x[u]);
    }
}

/* ---- the tile ----------------------------------------------------------------------------------
 */

/* A thread's corner of c; from there row r and column v, a multiple of PANEL_N, are constants away.
 */
static __device__ __forceinline__ float *result_at(const Product *g, bool panel, int64_t i,
                                                   int64_t j)
{
    return panel ? g->c + (j / PANEL_N * g->c_step + i) * PANEL_N + j % PANEL_N
                 : g->c + i * g->c_step + j;
}

static __device__ __forceinline__ float *result_move(const Product *g, bool panel, float *c, int r,
                                                     int v)
{
    return panel ? c + r * PANEL_N + v * g->c_step : c + r * g->c_step + v;
}

/* One step of the chain. A warp's lanes are 4 x 8; a thread's rows lie in runs of up to 4, its
 * columns in runs of 4, so that lanes read neighbouring 16 bytes. */
static __device__ __forceinline__ void tile_fma(float acc[8][8], const float *a, const float *b,
                                                int tm, int tn)
{
    float x[8], y[8];
    if (tm < 4) {
        x[0] = a[0];
        x[1] = a[1];
    } else {
#pragma unroll
        for (int r = 0; r < tm; r += 4)
            unpack4(x + r, load4(a + r * 4));
    }
#pragma unroll
    for (int v = 0; v < tn; v += 4)
        unpack4(y + v, load4(b + v * 8));
#pragma unroll
    for (int r = 0; r < tm; r++) {
#pragma unroll
        for (int v = 0; v < tn; v++)
            acc[r][v] = real_fma(x[r], y[v], acc[r][v]);
    }
}

/* Where a thread's part of a tile of size x size begins. */
typedef struct {
    int64_t i, j;
    int ti, tj; /* in the tile */
} Corner;

static __device__ __forceinline__ Corner corner(const Product *g, int size, int tm, int tn)
{
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP,
              warps_j = size / (8 * tn);
    const int64_t blocks_i = (g->n_i + size - 1) / size;
    Corner c;
    c.ti = warp / warps_j * 4 * tm + lane / 8 * (tm < 4 ? tm : 4);
    c.tj = warp % warps_j * 8 * tn + lane % 8 * 4;
    c.i = blockIdx.x % blocks_i * size + c.ti;
    c.j = blockIdx.x / blocks_i * size + c.tj;
    return c;
}

/* The row of the corner's r-th. */
static __device__ __forceinline__ int row_of(int r, int tm)
{
    const int run = tm < 4 ? tm : 4;
    return r / run * 4 * run + r % run;
}

static __device__ __forceinline__ void results_load(float acc[8][8], const Product *g, bool panel,
                                                    Corner at, int size, int tm, int tn)
{
    const int rows = g->accumulate ? least(g->n_i - at.i, size) : 0,
              columns = least(g->n_j - at.j, size);
#pragma unroll
    for (int r = 0; r < tm; r++) {
        float *c = result_at(g, panel, at.i, at.j);
#pragma unroll
        for (int v = 0; v < tn; v += 4)
            unpack4(&acc[r][v], fetch4(result_move(g, panel, c, row_of(r, tm), v * 8),
                                       row_of(r, tm) < rows ? columns - v * 8 : 0, g->c_wide));
    }
}

static __device__ __forceinline__ void results_store(float acc[8][8], const Product *g, bool panel,
                                                     Corner at, int size, int tm, int tn)
{
    const int rows = least(g->n_i - at.i, size), columns = least(g->n_j - at.j, size);
#pragma unroll
    for (int r = 0; r < tm; r++) {
        float *c = result_at(g, panel, at.i, at.j);
        if (row_of(r, tm) < rows) {
#pragma unroll
            for (int v = 0; v < tn; v += 4)
                put4(result_move(g, panel, c, row_of(r, tm), v * 8), &acc[r][v], columns - v * 8,
                     g->c_wide);
        }
    }
}

/* A tile of size x size by size / tm * size / tn threads, chain steps of bk; all are constants at
 * every call. as, bs: two steps each, one being read, the other written. */
static __device__ __forceinline__ void product_tile(const Product *g, int form_a, int form_b,
                                                    bool panel, int size, int tm, int tn, int bk,
                                                    float *as, float *bs)
{
    const int threads = size / tm * (size / tn), n = size * bk / 4 / threads, row = size + PAD;
    const int run = tm * tn < 64 ? 4 : 1; /* links unrolled: as registers allow */
    const Corner at = corner(g, size, tm, tn);
    float acc[8][8];
    Stream a, b;
    results_load(acc, g, panel, at, size, tm, tn);
    stream_start(&a, &g->a, form_a, at.i - at.ti, size, n, threads);
    stream_start(&b, &g->b, form_b, at.j - at.tj, size, n, threads);
    int next = least(g->n_k, bk); /* chain of the step that is on its way */
    stream_fetch(&a, &g->a, form_a, n, next, 0);
    stream_fetch(&b, &g->b, form_b, n, next, 0);
    stream_store(&a, form_a, size, n, as);
    stream_store(&b, form_b, size, n, bs);
    __syncthreads();
    int buffer = 0;
    for (int64_t k = 0; k < g->n_k; k += bk) {
        const int here = next;
        next = least(g->n_k - k - bk, bk);
        if (next > 0) {
            stream_fetch(&a, &g->a, form_a, n, next, operand_step(&g->a, form_a, k, bk));
            stream_fetch(&b, &g->b, form_b, n, next, operand_step(&g->b, form_b, k, bk));
        }
        const float *x = as + buffer * bk * row + at.ti, *y = bs + buffer * bk * row + at.tj;
        if (here == bk) {
#pragma unroll 1
            for (int e = 0; e < bk; e += run) {
#pragma unroll
                for (int f = e; f < e + run; f++)
                    tile_fma(acc, x + f * row, y + f * row, tm, tn);
            }
        } else { /* steps over zeros would turn -0 into +0 */
#pragma unroll 1
            for (int e = 0; e < here; e++)
                tile_fma(acc, x + e * row, y + e * row, tm, tn);
        }
        buffer ^= 1;
        if (next > 0) {
            stream_store(&a, form_a, size, n, as + buffer * bk * row);
            stream_store(&b, form_b, size, n, bs + buffer * bk * row);
        }
        __syncthreads();
    }
    results_store(acc, g, panel, at, size, tm, tn);
}

/* Tiles, largest first. COST: the time of a multiply-add relative to the others', in which small
 * tiles read shared memory more often. */
/* clang-format off */
#define TILES(X, OP)                                                                               \
    X(OP, 128, 8, 8, 8, 2, 16)                                                                     \
    X(OP, 64, 8, 4, 16, 3, 18)                                                                     \
    X(OP, 32, 2, 4, 32, 5, 26)
/* clang-format on */

#define TILE_KERNEL(OP, SIZE, TM, TN, BK, BLOCKS, COST)                                            \
    static __global__ void __launch_bounds__(SIZE / TM * (SIZE / TN), BLOCKS)                      \
        OP##_##SIZE##_kernel(Product g)                                                            \
    {                                                                                              \
        __shared__ __align__(16) float as[2 * BK * (SIZE + PAD)], bs[2 * BK * (SIZE + PAD)];       \
        product_tile(&g, OP##_A, OP##_B, OP##_PANEL, SIZE, TM, TN, BK, as, bs);                    \
    }

#define TILE_COST(OP, SIZE, TM, TN, BK, BLOCKS, COST)                                              \
    {                                                                                              \
        const int64_t cost = tile_rounds(g, SIZE, n_sm) * SIZE * SIZE * COST;                      \
        if (!size || cost < least) {                                                               \
            size = SIZE;                                                                           \
            least = cost;                                                                          \
        }                                                                                          \
    }

#define TILE_LAUNCH(OP, SIZE, TM, TN, BK, BLOCKS, COST)                                            \
    case SIZE:                                                                                     \
        LAUNCH(OP##_##SIZE##_kernel, tile_blocks(g, SIZE), SIZE / TM * (SIZE / TN), 0,             \
               cuda_stream(t), *g);                                                                \
        break;

static int64_t tile_count(const Product *g, int size)
{
    return ((g->n_i + size - 1) / size) * ((g->n_j + size - 1) / size);
}

static unsigned tile_blocks(const Product *g, int size)
{
    return cuda_blocks(tile_count(g, size), 1);
}

/* Tiles that the busiest multiprocessor makes. */
static int64_t tile_rounds(const Product *g, int size, int n_sm)
{
    return (tile_count(g, size) + n_sm - 1) / n_sm;
}

static int tile_pick(const Product *g, int n_sm)
{
    int size = 0;
    int64_t least = 0;
    TILES(TILE_COST, )
    return size;
}

/* The kernels of an op and the function that launches the one for the product's size. */
#define PRODUCT(OP)                                                                                \
    TILES(TILE_KERNEL, OP)                                                                         \
    static void OP##_launch(const Tensor *t, const Product *g)                                     \
    {                                                                                              \
        if (g->n_i == 0 || g->n_j == 0)                                                            \
            return;                                                                                \
        switch (tile_pick(g, cuda_device(t)->n_sm)) {                                              \
            TILES(TILE_LAUNCH, OP)                                                                 \
        }                                                                                          \
    }

enum { linear_A = ROWS_ALONG_CHAIN, linear_B = PANEL_ALONG_TILE, linear_PANEL = 0 };
enum { linear_dx_A = ROWS_ALONG_CHAIN, linear_dx_B = PANEL_ALONG_CHAIN, linear_dx_PANEL = 0 };
enum { linear_dw_A = ROWS_ALONG_TILE, linear_dw_B = ROWS_ALONG_TILE, linear_dw_PANEL = 1 };
PRODUCT(linear)
PRODUCT(linear_dx)
PRODUCT(linear_dw)

/* ---- few rows ----------------------------------------------------------------------------------
 */

/* `here` links of the chains of a lane's column and of every FEW_WARPS-th row. */
static __device__ __forceinline__ void few_fma(float *acc, int here, int r_n, const float *w,
                                               const float *x)
{
    if (here == FEW_STEP) {
#pragma unroll 4
        for (int k = 0; k < FEW_STEP; k += 4) {
            float wk[4];
#pragma unroll
            for (int e = 0; e < 4; e++)
                wk[e] = w[(k + e) * PANEL_N];
#pragma unroll
            for (int r = 0; r < r_n; r++) {
                const float4 xk = load4(x + r * FEW_WARPS * FEW_STEP + k);
                acc[r] = real_fma(xk.x, wk[0], acc[r]);
                acc[r] = real_fma(xk.y, wk[1], acc[r]);
                acc[r] = real_fma(xk.z, wk[2], acc[r]);
                acc[r] = real_fma(xk.w, wk[3], acc[r]);
            }
        }
    } else {
#pragma unroll 1
        for (int k = 0; k < here; k++) {
#pragma unroll
            for (int r = 0; r < r_n; r++)
                acc[r] = real_fma(x[r * FEW_WARPS * FEW_STEP + k], w[k * PANEL_N], acc[r]);
        }
    }
}

/* A block makes one panel's 32 columns of up to FEW_ROWS rows: all threads bring the weights, whose
 * step is one run of memory; warp w computes rows w, w + 4, ..., of which there are r_n at most, a
 * lane for each column. */
static __device__ __forceinline__ void few_rows(const Product *g, int r_n, float *ws, float *xs)
{
    enum { WARPS = FEW_WARPS, W_FETCH = FEW_STEP * PANEL_N / 4 / FEW_THREADS };
    const int tid = (int)threadIdx.x, warp = tid / WARP, lane = tid % WARP;
    const int64_t n = (int64_t)blockIdx.x * PANEL_N + lane, K = g->n_k;
    const float *w = g->b.p + (int64_t)blockIdx.x * PANEL_N * K + tid * 4;
    const float *x = g->a.p + warp * g->a.step + lane * 4;
    float acc[FEW_ROWS / WARPS];
    float4 wf[W_FETCH], xf[FEW_ROWS / WARPS];
#pragma unroll
    for (int r = 0; r < r_n; r++) {
        const int64_t m = warp + r * WARPS;
        acc[r] = g->accumulate && m < g->n_i && n < g->n_j ? g->c[m * g->c_step + n] : 0.0f;
    }
    for (int64_t k0 = -FEW_STEP; k0 < K; k0 += FEW_STEP) {
        const int here = k0 < 0 ? 0 : least(K - k0, FEW_STEP);
        const int next = least(K - k0 - FEW_STEP, FEW_STEP);
#pragma unroll
        for (int u = 0; u < W_FETCH; u++) {
            const int at = u * FEW_THREADS * 4;
            wf[u] = fetch4(w + (k0 + FEW_STEP) * PANEL_N + at, next * PANEL_N - tid * 4 - at,
                           g->b.wide);
        }
#pragma unroll
        for (int r = 0; r < r_n; r++)
            xf[r] = fetch4(x + r * WARPS * g->a.step + k0 + FEW_STEP,
                           warp + r * WARPS < g->n_i ? next - lane * 4 : 0, g->a.wide);
        few_fma(acc, here, r_n, ws + lane, xs + warp * FEW_STEP);
        __syncthreads();
#pragma unroll
        for (int u = 0; u < W_FETCH; u++)
            store4(ws + (u * FEW_THREADS + tid) * 4, wf[u]);
#pragma unroll
        for (int r = 0; r < r_n; r++)
            store4(xs + (warp + r * WARPS) * FEW_STEP + lane * 4, xf[r]);
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < r_n; r++) {
        const int64_t m = warp + r * WARPS;
        if (m < g->n_i && n < g->n_j)
            g->c[m * g->c_step + n] = acc[r];
    }
}

#define FEW_KERNEL(R)                                                                              \
    static __global__ void __launch_bounds__(FEW_THREADS, 4) linear_few_##R##_kernel(Product g)    \
    {                                                                                              \
        __shared__ __align__(16) float ws[FEW_STEP * PANEL_N], xs[R * 4 * FEW_STEP];               \
        few_rows(&g, R, ws, xs);                                                                   \
    }
FEW_KERNEL(1)
FEW_KERNEL(2)
FEW_KERNEL(3)
FEW_KERNEL(4)

static void linear_few(const Tensor *t, const Product *g)
{
    const unsigned blocks = cuda_blocks(g->n_j, PANEL_N);
    cudaStream_t stream = cuda_stream(t);
    if (g->n_i == 0 || blocks == 0)
        return;
    if (g->n_i <= 4)
        LAUNCH(linear_few_1_kernel, blocks, FEW_THREADS, 0, stream, *g);
    else if (g->n_i <= 8)
        LAUNCH(linear_few_2_kernel, blocks, FEW_THREADS, 0, stream, *g);
    else if (g->n_i <= 12)
        LAUNCH(linear_few_3_kernel, blocks, FEW_THREADS, 0, stream, *g);
    else
        LAUNCH(linear_few_4_kernel, blocks, FEW_THREADS, 0, stream, *g);
}

/* ---- launchers ---------------------------------------------------------------------------------
 */

static Operand operand_rows(const Tensor *t, int64_t n)
{
    Operand o = {f32_data(t), t->stride, n, is_wide(t)};
    return o;
}

static Operand operand_panel(const Tensor *w, int64_t n)
{
    Operand o = {f32_data(w), w->dim[1], n, is_wide(w)};
    return o;
}

void cuda_linear(Tensor *y, const Tensor *x, const Tensor *w, bool accumulate)
{
    if (w->dtype == DTYPE_BF16) {
        linear_bf16(y, x, w, accumulate);
        return;
    }
    const int64_t m = x->dim[0], n = w->dim[0], lanes = (n + PANEL_N - 1) / PANEL_N * PANEL_N;
    Product g = {operand_rows(x, m),
                 operand_panel(w, lanes),
                 w->dim[1],
                 f32_data(y),
                 y->stride,
                 m,
                 n,
                 is_wide(y),
                 accumulate};
    if (m <= FEW_ROWS)
        linear_few(y, &g);
    else
        linear_launch(y, &g);
}

void cuda_linear_dx(Tensor *dx, const Tensor *dy, const Tensor *w, bool accumulate)
{
    if (w->dtype == DTYPE_BF16) {
        linear_bf16_dx(dx, dy, w, accumulate);
        return;
    }
    const int64_t m = dy->dim[0], k = w->dim[1];
    Product g = {
        operand_rows(dy, m), operand_panel(w, k), w->dim[0], f32_data(dx), dx->stride, m, k,
        is_wide(dx),         accumulate};
    linear_dx_launch(dx, &g);
}

void cuda_linear_dw(Tensor *dw, const Tensor *dy, const Tensor *x, DType operands, bool accumulate)
{
    if (operands == DTYPE_BF16) {
        linear_bf16_dw(dw, dy, x, accumulate);
        return;
    }
    const int64_t n = dw->dim[0], k = dw->dim[1];
    Product g = {operand_rows(x, k), operand_rows(dy, n), dy->dim[0], f32_data(dw), k, k, n,
                 is_wide(dw),        accumulate};
    linear_dw_launch(dw, &g);
}
