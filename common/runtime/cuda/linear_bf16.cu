/* linear_bf16.cu - products of bf16 operands on tensor cores, with f32 sums.
 *
 * One order for every kernel: a sum starts at +0 and takes steps of 16 links ascending, an mma each, up
 * to a whole number of CHAIN links, zeros behind the last; then what is stored is added once, if the
 * product accumulates. No chain is split, an mma treats its rows alike and apart, so neither the kernel
 * nor the tile nor M can change a row's bits.
 *
 * Stages of the operands pass through shared memory by cp.async, their 16 bytes swizzled so that the
 * eight rows of an ldmatrix lie in all banks; fragments of the next half stage are on their way while
 * this one's are multiplied. Up to FEW_ROWS_BF16 rows y is a stream of weights: a warp owns 8 columns.
 * f32 operands are rounded into scratch before. Tested by tests/ops/linear.c. */
#include "common/runtime/cuda/linear.h"
#include "common/runtime/cuda/ptx.h"
#include "common/runtime/cuda/tile.h"

enum {
    CHAIN = 32, /* links of a stage of the tiles, and of one set of fragments: two steps */
    TILE_THREADS = 128,
    GROUP = 16, /* rows of tiles that go together, so that operands stay in the L2 cache */
};

enum { ALONG_CHAIN, ALONG_TILE }; /* how an operand's memory runs: see HalfOperand */

/* What a kernel gets: the product, and what the launcher knows of its alignment. */
typedef struct {
    HalfProduct g;
    bool a_wide, b_wide, c_wide; /* eight elements of a row at once; c: two */
} HalfLaunch;

/* ---- stages -------------------------------------------------------------------------------------- */

/* Elements from a stage's start to the 16 bytes `chunk` of a row of 4, 8 or 16 such. */
static __device__ __forceinline__ int place(int row, int chunk, int chunks)
{
    const int turn = chunks == 4 ? row / 2 % 4 : row % 8;
    return (row * chunks + (chunk ^ turn)) * 8;
}

/* Begins to bring the first `left` of eight elements at p, zeros behind; left may be negative. */
static __device__ __forceinline__ void bring8(uint16_t *to, const uint16_t *p, int left, bool wide)
{
    if (wide) {
        cp_async16(to, p, left >= 8 ? 16 : left > 0 ? 2 * left : 0);
        return;
    }
    uint32_t x[4] = {0, 0, 0, 0};
#pragma unroll
    for (int e = 0; e < 8; e++)
        if (e < left)
            x[e / 2] |= (uint32_t)p[e] << e % 2 * 16;
    float4 all = {k_float(x[0]), k_float(x[1]), k_float(x[2]), k_float(x[3])};
    store4((float *)to, all);
}

/* What a thread brings of an operand in every stage: 16 bytes of each `per`-th row of memory. */
typedef struct {
    const uint16_t *p;
    int row, chunk;  /* in the stage */
    int rows, along; /* from there to the operand's end: rows of memory, elements of a row */
} Source;

static __device__ __forceinline__ int source_chunks(int form, int size, int links)
{
    return (form == ALONG_CHAIN ? links : size) / 8;
}

/* Rows [row0, row0 + size) of an operand, `links` of the chain a stage; all but o, row0, n_k constant. */
static __device__ __forceinline__ Source source_start(const HalfOperand *o, int form, int64_t row0,
                                                      int size, int n_k, int links)
{
    const int chunks = source_chunks(form, size, links);
    Source s;
    s.row = (int)threadIdx.x / chunks;
    s.chunk = (int)threadIdx.x % chunks;
    const int rows = least(o->n - row0, size);
    s.rows = (form == ALONG_CHAIN ? rows : n_k) - s.row;
    s.along = (form == ALONG_CHAIN ? n_k : rows) - s.chunk * 8;
    s.p = o->p + (form == ALONG_CHAIN ? (row0 + s.row) * o->step : s.row * o->step + row0) +
          s.chunk * 8;
    return s;
}

/* Begins to bring a stage to `to`, and moves on by one. */
static __device__ __forceinline__ void source_bring(Source *s, const HalfOperand *o, bool wide,
                                                    int form, int size, int links, int threads,
                                                    uint16_t *to)
{
    const int chunks = source_chunks(form, size, links), per = threads / chunks;
#pragma unroll
    for (int u = 0; u < size * links / 8 / threads; u++)
        bring8(to + place(s->row + u * per, s->chunk, chunks), s->p + u * per * o->step,
               u * per < s->rows ? s->along : 0, wide);
    if (form == ALONG_CHAIN) {
        s->p += links;
        s->along -= links;
    } else {
        s->p += links * o->step;
        s->rows -= links;
    }
}

/* All threads' copies are there but those of the youngest stages - 2 groups; a constant. */
static __device__ __forceinline__ void stage_wait(int stages)
{
    switch (stages) {
    case 3:
        cp_async_wait(1);
        break;
    case 4:
        cp_async_wait(2);
        break;
    case 6:
        cp_async_wait(4);
        break;
    default:
        cp_async_wait(6);
    }
    __syncthreads();
}

/* ---- results ------------------------------------------------------------------------------------- */

/* Two neighbours of a row. */
static __device__ __forceinline__ void put_f32(const HalfLaunch *l, int64_t i, int64_t j, float x,
                                               float y)
{
    const HalfProduct *g = &l->g;
    float *c = (float *)g->c + i * g->c_step + j;
    if (l->c_wide && j + 1 < g->b.n) {
        float2 *pair = (float2 *)c;
        SHIM_ALIGNED(pair, 8);
        const float2 old = g->accumulate ? *pair : make_float2(0, 0);
        *pair = g->accumulate ? make_float2(old.x + x, old.y + y) : make_float2(x, y);
        return;
    }
    c[0] = g->accumulate ? c[0] + x : x;
    if (j + 1 < g->b.n)
        c[1] = g->accumulate ? c[1] + y : y;
}

static __device__ __forceinline__ void put_bf16(const HalfLaunch *l, int64_t i, int64_t j, float x,
                                                float y)
{
    const HalfProduct *g = &l->g;
    uint16_t *c = (uint16_t *)g->c + i * g->c_step + j;
    if (l->c_wide && j + 1 < g->b.n) {
        uint32_t *pair = (uint32_t *)c;
        SHIM_ALIGNED(pair, 4);
        const uint32_t old = g->accumulate ? *pair : 0;
        *pair = g->accumulate ? bf16_pair(bf16_low(old) + x, bf16_high(old) + y) : bf16_pair(x, y);
        return;
    }
    c[0] = bf16_of(g->accumulate ? bf16_float(c[0]) + x : x);
    if (j + 1 < g->b.n)
        c[1] = bf16_of(g->accumulate ? bf16_float(c[1]) + y : y);
}

/* An mma's 16 x 8 sums, (i, j) at its corner. */
static __device__ __forceinline__ void put_sums(const HalfLaunch *l, int64_t i, int64_t j,
                                                const float c[4])
{
    const int lane = (int)threadIdx.x % WARP;
    i += lane / 4;
    j += lane % 4 * 2;
    if (j >= l->g.b.n)
        return;
#pragma unroll
    for (int half = 0; half < 2; half++, i += 8)
        if (i < l->g.a.n) {
            if (l->g.c_bf16)
                put_bf16(l, i, j, c[2 * half], c[2 * half + 1]);
            else
                put_f32(l, i, j, c[2 * half], c[2 * half + 1]);
        }
}

/* ---- tiles of many rows -------------------------------------------------------------------------- */

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
            ldmatrix_x4(f->a[i], as + place(wi + i * 16 + lane % 16, ks * 2 + lane / 16, CHAIN / 8));
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
    const int warp = (int)threadIdx.x / WARP, wi = warp / 2 * (size / 2), wj = warp % 2 * (size / 2);
    const int stage = size * CHAIN, n_k = (int)g->n_k, n_steps = (n_k + CHAIN - 1) / CHAIN;
    int64_t i0, j0;
    tile_corner(g, size, &i0, &j0);
    Source a = source_start(&g->a, form_a, i0, size, n_k, CHAIN),
           b = source_start(&g->b, form_b, j0, size, n_k, CHAIN);
#define BRING(at, step)                                                                            \
    do {                                                                                           \
        if ((step) < n_steps) {                                                                    \
            source_bring(&a, &g->a, l->a_wide, form_a, size, CHAIN, TILE_THREADS, as + (at) * stage); \
            source_bring(&b, &g->b, l->b_wide, form_b, size, CHAIN, TILE_THREADS, bs + (at) * stage); \
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
        fragments_load(&f[1], as + here * stage, bs + here * stage, form_a, form_b, size, 1, wi, wj);
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
enum { y_A = ALONG_CHAIN, y_B = ALONG_CHAIN, dx_A = ALONG_CHAIN, dx_B = ALONG_TILE, dw_A = ALONG_TILE, dw_B = ALONG_TILE };
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

/* ---- few rows of y ------------------------------------------------------------------------------- */

/* A warp's fragments of CHAIN links: its 8 columns, and all rows in groups of 8. */
typedef struct {
    uint32_t a[4][2][4]; /* [16 rows][step] */
    uint32_t b[2][2];
} FewFragments;

/* Set h of a stage of `links`. Up to 8 rows, an mma's other 8 are zero and have no place in memory. */
static __device__ __forceinline__ void few_load(FewFragments *f, const uint16_t *ws,
                                                const uint16_t *xs, int groups, int links, int h)
{
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP, chunks = links / 8;
    ldmatrix_x4(f->b[0], ws + place(warp * 8 + lane % 8, h * 4 + lane / 8, chunks));
    if (groups == 1) {
        uint32_t x[4];
        ldmatrix_x4(x, xs + place(lane % 8, h * 4 + lane / 8, chunks));
#pragma unroll
        for (int s = 0; s < 2; s++) {
            f->a[0][s][0] = x[2 * s];
            f->a[0][s][2] = x[2 * s + 1];
            f->a[0][s][1] = f->a[0][s][3] = 0;
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < groups / 2; i++)
#pragma unroll
        for (int s = 0; s < 2; s++)
            ldmatrix_x4(f->a[i][s],
                        xs + place(i * 16 + lane % 16, h * 4 + s * 2 + lane / 16, chunks));
}

/* A block's `warps` times 8 columns of up to 8 * groups rows. A stage has a whole number of pairs of
 * fragment sets, of which the last stage's sets beyond the chain are left out, as in a tile. */
static __device__ __forceinline__ void few_product(const HalfLaunch *l, int groups, int warps,
                                                   int links, int stages, uint16_t *ws, uint16_t *xs)
{
    const HalfProduct *g = &l->g;
    const int columns = warps * 8, rows = groups * 8, warp = (int)threadIdx.x / WARP;
    const int sets = links / CHAIN, tiles = (groups + 1) / 2;
    const int n_k = (int)g->n_k, n_steps = (n_k + links - 1) / links;
    const int64_t j0 = (int64_t)blockIdx.x * columns;
    Source w = source_start(&g->b, ALONG_CHAIN, j0, columns, n_k, links),
           x = source_start(&g->a, ALONG_CHAIN, 0, rows, n_k, links);
    float acc[4][4];
    FewFragments f[2];
#pragma unroll
    for (int i = 0; i < 4; i++)
        acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = 0;
#define BRING(at, step)                                                                            \
    do {                                                                                           \
        if ((step) < n_steps) {                                                                    \
            source_bring(&w, &g->b, l->b_wide, ALONG_CHAIN, columns, links, warps * WARP,          \
                         ws + (at) * columns * links);                                             \
            source_bring(&x, &g->a, l->a_wide, ALONG_CHAIN, rows, links, warps * WARP,             \
                         xs + (at) * rows * links);                                                \
        }                                                                                          \
        cp_async_commit();                                                                         \
    } while (0)
#define LOAD(to, h) few_load(to, ws + here * columns * links, xs + here * rows * links, groups, links, h)
#pragma unroll
    for (int s = 0; s < stages - 1; s++)
        BRING(s, s);
    int here = 0, next = stages - 1;
    stage_wait(stages);
    if (n_steps > 0)
        LOAD(&f[0], 0);
#pragma unroll 1
    for (int step = 0; step < n_steps; step++) {
#pragma unroll
        for (int h = 0; h < sets; h++) {
            if (h + 1 < sets) {
                LOAD(&f[(h + 1) % 2], h + 1);
            }
            if (h == 0) {
                BRING(next, step + stages - 1);
                next = next + 1 == stages ? 0 : next + 1;
            }
            if (h + 1 == sets) {
                here = here + 1 == stages ? 0 : here + 1;
                stage_wait(stages);
                if (step + 1 < n_steps)
                    LOAD(&f[0], 0);
            }
            if (h > 0 && step * links + h * CHAIN >= n_k)
                continue; /* the chain has ended: uniform */
#pragma unroll
            for (int s = 0; s < 2; s++)
#pragma unroll
                for (int i = 0; i < tiles; i++)
                    mma_bf16(acc[i], f[h % 2].a[i][s], f[h % 2].b[s]);
        }
    }
#undef LOAD
#undef BRING
#pragma unroll
    for (int i = 0; i < tiles; i++)
        put_sums(l, i * 16, j0 + warp * 8, acc[i]);
}

/* X(groups of 8 rows, warps, links of a stage, stages: 48 KiB each, blocks). Where a stage's chain is long, its
 * latency is hidden; where rows are many, more columns share them. */
/* clang-format off */
#define FEW(X)                                                                                     \
    X(1, 2, 128, 8, 4)                                                                             \
    X(2, 2, 128, 6, 4)                                                                             \
    X(4, 4, 64, 6, 4)                                                                              \
    X(8, 4, 64, 4, 3)
/* clang-format on */

#define FEW_KERNEL(GROUPS, WARPS, LINKS, STAGES, BLOCKS)                                           \
    static __global__ void __launch_bounds__(WARPS *WARP, BLOCKS)                                  \
        half_few_##GROUPS##_kernel(HalfLaunch l)                                                   \
    {                                                                                              \
        __shared__ __align__(16) uint16_t ws[STAGES * WARPS * 8 * LINKS],                          \
            xs[STAGES * GROUPS * 8 * LINKS];                                                       \
        few_product(&l, GROUPS, WARPS, LINKS, STAGES, ws, xs);                                     \
    }
FEW(FEW_KERNEL)

/* ---- which kernel -------------------------------------------------------------------------------- */

#define FEW_LAUNCH(GROUPS, WARPS, LINKS, STAGES, BLOCKS)                                           \
    if (g->a.n <= GROUPS * 8) {                                                                    \
        LAUNCH(half_few_##GROUPS##_kernel, cuda_blocks(g->b.n, WARPS * 8), WARPS *WARP, 0, stream, \
               l);                                                                                 \
        return;                                                                                    \
    }

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
    if (g->op == PRODUCT_Y) {
        FEW(FEW_LAUNCH)
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

/* ---- operands ------------------------------------------------------------------------------------ */

/* y = x rounded to bf16. */
static __global__ void __launch_bounds__(256, 4)
    round_kernel(uint16_t *y, int64_t y_step, const float *x, int64_t x_step, int64_t cols)
{
    const int64_t row = blockIdx.x;
    for (int64_t c = 2 * (int64_t)threadIdx.x; c < cols; c += 2 * blockDim.x) {
        const float low = x[row * x_step + c], high = c + 1 < cols ? x[row * x_step + c + 1] : 0;
        *(uint32_t *)(y + row * y_step + c) = bf16_pair(low, high); /* y_step is even */
    }
}

/* Elements between rows of a rounded copy: 16 bytes are aligned. */
static int64_t round_step(const Tensor *t)
{
    return t->dtype == DTYPE_BF16 ? 0 : (t->dim[1] + 7) / 8 * 8;
}

/* Rows of a slice, so that rounded copies of so many elements a row fit scratch together. A function of
 * the shape alone: slices of dw are sums of their own. */
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
        const HalfProduct g = {op,        half_rows(a, from, n, scratch), b,         n_k,
                               rows.data, c->stride,                      c->dtype == DTYPE_BF16,
                               accumulate};
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
        const HalfProduct g = {PRODUCT_DW, a,     b,         n, dw->data, dw->stride, false,
                               accumulate || from > 0};
        product_run(dw, &g);
        from += n;
    } while (from < M);
}
