/* linear_bf16.cu - products of bf16 operands on tensor cores, with f32 sums.
 *
 * One order for every kernel: a sum starts at +0 and takes steps of 16 links ascending, an mma
 * each, up to a whole number of CHAIN links, zeros behind the last; then what is stored is added
 * once, if the product accumulates. No chain is split, an mma treats its rows alike and apart, so
 * neither the kernel nor the tile nor M can change a row's bits.
 *
 * Stages of the operands pass through shared memory by cp.async, their 16 bytes swizzled so that
 * the eight rows of an ldmatrix lie in all banks; fragments of the next half stage are on their way
 * while this one's are multiplied. f32 operands are rounded into scratch before. y of few rows is
 * linear_few.cu. Tested by tests/ops/linear_rows.c. */
#include "common/runtime/cuda/linear_half.h"

enum {
    TILE_THREADS = 128,
    GROUP = 16, /* rows of tiles that go together, so that operands stay in the L2 cache */
};

/* ---- tiles of many rows ---------------------------------------------------------------------- */

/* What a warp multiplies in one step of 16 links: up to 64 x 64. */
typedef struct {
    uint32_t a[4][4], b[8][2];
} Fragments;

/* Of step ks of a stage: rows from wi on, columns from wj on, of a tile of `size`. */
static __device__ __forceinline__ void fragments_load(Fragments *f, const uint16_t *as,
                                                      const uint16_t *bs, int form_a, int form_b,
                                                      int size, int ks, int wi, int wj)
{
    const int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < size / 32; i++) {
        if (form_a == ALONG_CHAIN)
            ldmatrix_x4(f->a[i],
                        as + place(wi + i * 16 + lane % 16, ks * 2 + lane / 16, CHAIN / 8));
        else
            ldmatrix_x4_trans(f->a[i], as + place(ks * 16 + lane % 8 + lane / 16 * 8,
                                                  (wi + i * 16) / 8 + lane / 8 % 2, size / 8));
    }
#pragma unroll
    for (int j = 0; j < size / 16; j += 2) {
        if (form_b == ALONG_CHAIN)
            ldmatrix_x4(f->b[j], bs + place(wj + j * 8 + lane % 8 + lane / 16 * 8,
                                            ks * 2 + lane / 8 % 2, CHAIN / 8));
        else
            ldmatrix_x4_trans(
                f->b[j], bs + place(ks * 16 + lane % 16, (wj + j * 8) / 8 + lane / 16, size / 8));
    }
}

static __device__ __forceinline__ void fragments_mma(float acc[4][8][4], const Fragments *f,
                                                     int size)
{
#pragma unroll
    for (int i = 0; i < size / 32; i++) {
#pragma unroll
        for (int j = 0; j < size / 16; j++)
            mma_bf16(acc[i][j], f->a[i], f->b[j]);
    }
}

/* The corner of this block's tile: GROUP rows of tiles column by column. */
static __device__ __forceinline__ void tile_corner(const HalfProduct *g, int size, int64_t *i,
                                                   int64_t *j)
{
    const int64_t rows = (g->a.n + size - 1) / size, columns = (g->b.n + size - 1) / size;
    const int64_t first = blockIdx.x / (GROUP * columns) * GROUP;
    const int64_t at = blockIdx.x % (GROUP * columns), high = least(rows - first, GROUP);
    *i = (first + at % high) * size;
    *j = at / high * size;
}

/* A tile of size x size by four warps, 2 x 2 of them. as, bs: `stages` stages. */
static __device__ __forceinline__ void tile_product(const HalfLaunch *l, int form_a, int form_b,
                                                    int size, int stages, uint16_t *as,
                                                    uint16_t *bs)
{
    const HalfProduct *g = &l->g;
    const int warp = (int)threadIdx.x / WARP, wi = warp / 2 * (size / 2),
              wj = warp % 2 * (size / 2);
    const int stage = size * CHAIN, n_k = (int)g->n_k, n_steps = (n_k + CHAIN - 1) / CHAIN;
    int64_t i0, j0;
    tile_corner(g, size, &i0, &j0);
    Source a = source_start(&g->a, form_a, i0, size, n_k, CHAIN),
           b = source_start(&g->b, form_b, j0, size, n_k, CHAIN);
#define BRING(at, step)                                                                            \
    do {                                                                                           \
        if ((step) < n_steps) {                                                                    \
            source_bring(&a, &g->a, l->a_wide, form_a, size, CHAIN, TILE_THREADS,                  \
                         as + (at)*stage);                                                         \
            source_bring(&b, &g->b, l->b_wide, form_b, size, CHAIN, TILE_THREADS,                  \
                         bs + (at)*stage);                                                         \
        }                                                                                          \
        cp_async_commit();                                                                         \
    } while (0)
    float acc[4][8][4];
    Fragments f[2];
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 8; j++)
            acc[i][j][0] = acc[i][j][1] = acc[i][j][2] = acc[i][j][3] = 0;
#pragma unroll
    for (int s = 0; s < stages - 1; s++)
        BRING(s, s);
    int here = 0, next = stages - 1; /* the stage that is read, and the one to fill */
    stage_wait(stages);
    if (n_steps > 0)
        fragments_load(&f[0], as, bs, form_a, form_b, size, 0, wi, wj);
#pragma unroll 1
    for (int step = 0; step < n_steps; step++) {
        fragments_load(&f[1], as + here * stage, bs + here * stage, form_a, form_b, size, 1, wi,
                       wj);
        BRING(next, step + stages - 1);
        next = next + 1 == stages ? 0 : next + 1;
        here = here + 1 == stages ? 0 : here + 1;
        fragments_mma(acc, &f[0], size);
        stage_wait(stages);
        if (step + 1 < n_steps)
            fragments_load(&f[0], as + here * stage, bs + here * stage, form_a, form_b, size, 0, wi,
                           wj);
        fragments_mma(acc, &f[1], size);
    }
#undef BRING
#pragma unroll
    for (int i = 0; i < size / 32; i++)
#pragma unroll
        for (int j = 0; j < size / 16; j++)
            put_sums(l, i0 + wi + i * 16, j0 + wj + j * 8, acc[i][j]);
}

/* ALONG_CHAIN and ALONG_TILE of a and b. */
enum {
    y_A = ALONG_CHAIN,
    y_B = ALONG_CHAIN,
    dx_A = ALONG_CHAIN,
    dx_B = ALONG_TILE,
    dw_A = ALONG_TILE,
    dw_B = ALONG_TILE
};
enum { TILE_STAGES = 3 };

/* COST: the time of a multiply-add relative to the others'. */
/* clang-format off */
#define TILES(X, OP)                                                                               \
    X(OP, 128, 2, 16)                                                                              \
    X(OP, 64, 4, 24)
/* clang-format on */

#define TILE_KERNEL(OP, SIZE, BLOCKS, COST)                                                        \
    static __global__ void __launch_bounds__(TILE_THREADS, BLOCKS)                                 \
        half_##OP##_##SIZE##_kernel(HalfLaunch l)                                                  \
    {                                                                                              \
        __shared__ __align__(16) uint16_t as[TILE_STAGES * SIZE * CHAIN],                          \
            bs[TILE_STAGES * SIZE * CHAIN];                                                        \
        tile_product(&l, OP##_A, OP##_B, SIZE, TILE_STAGES, as, bs);                               \
    }
TILES(TILE_KERNEL, y)
TILES(TILE_KERNEL, dx)
TILES(TILE_KERNEL, dw)

/* ---- which kernel ---------------------------------------------------------------------------- */

static int64_t tile_count(const HalfProduct *g, int size)
{
    return ((g->a.n + size - 1) / size) * ((g->b.n + size - 1) / size);
}

#define TILE_COST(OP, SIZE, BLOCKS, COST)                                                          \
    {                                                                                              \
        const int64_t cost = (tile_count(g, SIZE) + n_sm - 1) / n_sm * SIZE * SIZE * COST;         \
        if (!size || cost < lowest) {                                                              \
            size = SIZE;                                                                           \
            lowest = cost;                                                                         \
        }                                                                                          \
    }

/* The size whose busiest multiprocessor is done first. */
static int tile_pick(const HalfProduct *g, int n_sm)
{
    int size = 0;
    int64_t lowest = 0;
    TILES(TILE_COST, )
    return size;
}

#define TILE_LAUNCH(OP, SIZE, BLOCKS, COST)                                                        \
    if (size == SIZE)                                                                              \
        LAUNCH(half_##OP##_##SIZE##_kernel, cuda_blocks(tile_count(g, SIZE), 1), TILE_THREADS, 0,  \
               stream, l);

static bool is_wide_half(const HalfOperand *o)
{
    return (uintptr_t)o->p % 16 == 0 && o->step % 8 == 0;
}

void linear_own(const CudaDevice *d, const HalfProduct *g)
{
    const cudaStream_t stream = d->stream[STREAM_COMPUTE];
    const bool pairs = (uintptr_t)g->c % (g->c_bf16 ? 4 : 8) == 0 && g->c_step % 2 == 0;
    const HalfLaunch l = {*g, is_wide_half(&g->a), is_wide_half(&g->b), pairs};
    CHECK(g->n_k <= INT32_MAX - 128, "a chain of %lld", (long long)g->n_k);
    if (g->a.n == 0 || g->b.n == 0)
        return;
    if (g->op == PRODUCT_Y && g->a.n <= FEW_ROWS_BF16) {
        linear_few(stream, &l);
        return;
    }
    const int size = tile_pick(g, d->n_sm);
    if (g->op == PRODUCT_Y) {
        TILES(TILE_LAUNCH, y)
    } else if (g->op == PRODUCT_DX) {
        TILES(TILE_LAUNCH, dx)
    } else {
        TILES(TILE_LAUNCH, dw)
    }
}

/* ---- operands -------------------------------------------------------------------------------- */

/* y = x rounded to bf16. */
static __global__ void __launch_bounds__(256, 4)
    round_kernel(uint16_t *y, int64_t y_step, const float *x, int64_t x_step, int64_t cols)
{
    const int64_t row = blockIdx.x;
    for (int64_t c = 2 * (int64_t)threadIdx.x; c < cols; c += 2 * blockDim.x) {
        const float low = x[row * x_step + c], high = c + 1 < cols ? x[row * x_step + c + 1] : 0;
        *(uint32_t *)(y + row * y_step + c) = bf16_low_high(low, high); /* y_step is even */
    }
}

/* Elements between rows of a rounded copy: 16 bytes are aligned. */
static int64_t round_step(const Tensor *t)
{
    return t->dtype == DTYPE_BF16 ? 0 : (t->dim[1] + 7) / 8 * 8;
}

/* Rows of a slice, so that rounded copies of so many elements a row fit scratch together. A
 * function of the shape alone: slices of dw are sums of their own. */
static int64_t slice_rows(int64_t rows, int64_t step)
{
    const int64_t fit = step ? ROUND_BYTES / 2 / step : rows;
    CHECK(fit > 0 || rows == 0, "a row of %lld elements does not fit scratch", (long long)step);
    return fit < rows ? fit : rows;
}

/* Rows [from, from + n) of a bf16 tensor as they are, of an f32 one rounded into scratch at *used. */
static HalfOperand half_rows(const Tensor *t, int64_t from, int64_t n, uint16_t *scratch)
{
    const Tensor rows = tensor_slice(t, from, n);
    if (t->dtype == DTYPE_BF16) {
        const HalfOperand o = {(const uint16_t *)rows.data, t->stride, n};
        return o;
    }
    const HalfOperand o = {scratch, round_step(t), n};
    if (n > 0 && t->dim[1] > 0)
        LAUNCH(round_kernel, cuda_blocks(n, 1), 256, 0, cuda_stream(t), scratch, o.step,
               (const float *)rows.data, t->stride, t->dim[1]);
    return o;
}

static void product_run(const Tensor *t, const HalfProduct *g)
{
    if (!blas_product(cuda_device(t), g))
        linear_own(cuda_device(t), g);
}

/* y and dx: rows of a are apart, so they may come in slices. */
static void rows_product(ProductOp op, Tensor *c, const Tensor *a, HalfOperand b, int64_t n_k,
                         bool accumulate)
{
    const int64_t M = a->dim[0], most = slice_rows(M, round_step(a));
    uint16_t *scratch = (uint16_t *)cuda_scratch(a, ROUND_BYTES);
    for (int64_t from = 0; from < M; from += most) {
        const int64_t n = from + most < M ? most : M - from;
        const Tensor rows = tensor_slice(c, from, n);
        const HalfProduct g = {op,        half_rows(a, from, n, scratch), b,         n_k, rows.data,
                               c->stride, c->dtype == DTYPE_BF16,         accumulate};
        product_run(c, &g);
    }
}

void linear_bf16(Tensor *y, const Tensor *x, const Tensor *w, bool accumulate)
{
    const HalfOperand b = {(const uint16_t *)w->data, w->stride, w->dim[0]};
    rows_product(PRODUCT_Y, y, x, b, w->dim[1], accumulate);
}

void linear_bf16_dx(Tensor *dx, const Tensor *dy, const Tensor *w, bool accumulate)
{
    const HalfOperand b = {(const uint16_t *)w->data, w->stride, w->dim[1]};
    rows_product(PRODUCT_DX, dx, dy, b, w->dim[0], accumulate);
}

void linear_bf16_dw(Tensor *dw, const Tensor *dy, const Tensor *x, bool accumulate)
{
    const int64_t M = dy->dim[0], most = slice_rows(M, round_step(dy) + round_step(x));
    uint16_t *scratch = (uint16_t *)cuda_scratch(dw, ROUND_BYTES);
    int64_t from = 0;
    do {
        const int64_t n = from + most < M ? most : M - from;
        HalfOperand a = half_rows(dy, from, n, scratch),
                    b = half_rows(x, from, n, scratch + n * round_step(dy));
        a.n = dw->dim[0];
        b.n = dw->dim[1];
        const HalfProduct g = {PRODUCT_DW, a,          b,     n,
                               dw->data,   dw->stride, false, accumulate || from > 0};
        product_run(dw, &g);
        from += n;
    } while (from < M);
}
