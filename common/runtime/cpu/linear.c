/* linear.c - the three products of a linear layer, over one register tile.
 *
 * The tile computes a few rows x a few vectors of c[i, lane] = chain over j of a[i, j] * b[j,
 * lane], j ascending, from c or from +0: b is a weight panel (forward), a panel of the transposed
 * weight packed on the fly (dx), or a panel of dy with the weight's rows as i (dw). Lanes lie along
 * the contiguous side, each lane is one FMA chain in every instruction set, and blocks of the chain
 * reload the destination, so block sizes, edges and threads cannot change a bit.
 * Tested by tests/ops/linear.c. */
#include "common/runtime/cpu/cpu.h"
#include "common/runtime/cpu/vec.h"

#include <string.h>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

/* The tile: at most ROWS_MAX rows of one panel pass. Few rows take more vectors instead, to have
 * enough independent chains and one long run over each weight. */
#if defined(__AVX512F__) && !defined(RLHF_REAL_DOUBLE)
enum { ROWS_MAX = 12 }; /* x 2 vectors = 24 of 32 registers */
#elif defined(__AVX2__) && !defined(RLHF_REAL_DOUBLE)
enum { ROWS_MAX = 6 }; /* x 2 vectors = 12 of 16 registers */
#else
enum { ROWS_MAX = 1 };
#endif

/* Weights that come from memory: the more chains a step of the tile feeds, the later it asks for the
 * next line, and the core's own prefetcher falls behind. With few rows it does not. */
enum {
    AHEAD = 64,                    /* rows of a panel asked for in advance: 8 KiB */
    FEW_ROWS = 2,
    LINE_VF = 16 / VF_LANES < 1 ? 1 : 16 / VF_LANES, /* vectors of a cache line */
};

enum {
    ROW_BLOCK = 20 * ROWS_MAX, /* rows of a that stay in L2 while the panels pass */
    DX_BLOCK = 256,            /* n per packed block of the transposed weight: 32 KiB */
    DW_BLOCK = 256,            /* tokens per packed block of dy: 32 KiB */
};

/* One operand set: c[i] at c + i * c_row, a[i, j] at a + i * a_row + j * a_step, b[j] at b + j *
 * PANEL_N; panels of b lie b_panel apart, those of c lie c_panel apart. */
typedef struct {
    real_t *c;
    int64_t c_row, c_panel;
    const real_t *a;
    int64_t a_row, a_step;
    const real_t *b;
    int64_t b_panel;
    int64_t n_j;
    bool accumulate;
} Product;

/* `rows` rows x `n_vec` vectors, the first of them vector `v0` of the panel run; both constants
 * after inlining. a_row or a_step being the constant 1 spares address registers. */
K_INLINE void tile(const Product *p, int rows, int n_vec, int64_t v0, int64_t a_row, int64_t a_step)
{
    vf acc[12][32];
    const real_t *b[32];
    real_t *c[32];
    for (int v = 0; v < n_vec; v++) {
        int64_t panel = (v0 + v) / PANEL_VF, lane = (v0 + v) % PANEL_VF * VF_LANES;
        b[v] = p->b + panel * p->b_panel + lane;
        c[v] = p->c + panel * p->c_panel + lane;
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < n_vec; v++)
            acc[i][v] = p->accumulate ? vf_load(c[v] + i * p->c_row) : vf_zero();
    const real_t *a = p->a;
    for (int64_t j = 0; j < p->n_j; j++) {
        vf bj[32];
        for (int v = 0; v < n_vec; v++)
            bj[v] = vf_load(b[v] + j * PANEL_N);
        if (rows > FEW_ROWS) {
            for (int v = 0; v < n_vec; v += LINE_VF)
                __builtin_prefetch(b[v] + (j + AHEAD) * PANEL_N);
        }
        for (int i = 0; i < rows; i++) {
            vf x = vf_set1(a[i * a_row]);
            for (int v = 0; v < n_vec; v++)
                acc[i][v] = vf_fma(x, bj[v], acc[i][v]);
        }
        a += a_step;
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < n_vec; v++)
            vf_store(c[v] + i * p->c_row, acc[i][v]);
}

/* Rows of one tile, `n_panels` whole panels. W: 1 = a's rows are contiguous along j (forward, dx),
 * 0 = along i (dw). */
#define TILE_CASES(W, A_ROW, A_STEP)                                                               \
    static void tile_rows_##W(const Product *p, int rows, int64_t n_panels)                        \
    {                                                                                              \
        const int64_t n_vec = n_panels * PANEL_VF;                                                 \
        int64_t v = 0;                                                                             \
        switch (rows) {                                                                            \
            TILE_LIST(A_ROW, A_STEP)                                                               \
        }                                                                                          \
    }
#define TILE(ROWS, N_VEC, A_ROW, A_STEP)                                                           \
    for (; v + (N_VEC) <= n_vec; v += (N_VEC))                                                     \
        tile(p, ROWS, N_VEC, v, A_ROW, A_STEP);

#if defined(__AVX512F__) && !defined(RLHF_REAL_DOUBLE)
/* clang-format off */
#define TILE_LIST(R, S)                                                                            \
    case 1: TILE(1, 8, R, S) TILE(1, 2, R, S) break;                                               \
    case 2: TILE(2, 8, R, S) TILE(2, 2, R, S) break;                                               \
    case 3: TILE(3, 4, R, S) TILE(3, 2, R, S) break;                                               \
    case 4: TILE(4, 4, R, S) TILE(4, 2, R, S) break;                                               \
    case 5: TILE(5, 4, R, S) TILE(5, 2, R, S) break;                                               \
    case 6: TILE(6, 2, R, S) break;                                                                \
    case 7: TILE(7, 2, R, S) break;                                                                \
    case 8: TILE(8, 2, R, S) break;                                                                \
    case 9: TILE(9, 2, R, S) break;                                                                \
    case 10: TILE(10, 2, R, S) break;                                                              \
    case 11: TILE(11, 2, R, S) break;                                                              \
    case 12: TILE(12, 2, R, S) break;
#elif defined(__AVX2__) && !defined(RLHF_REAL_DOUBLE)
#define TILE_LIST(R, S)                                                                            \
    case 1: TILE(1, 8, R, S) TILE(1, 4, R, S) break;                                               \
    case 2: TILE(2, 4, R, S) break;                                                                \
    case 3: TILE(3, 2, R, S) break;                                                                \
    case 4: TILE(4, 2, R, S) break;                                                                \
    case 5: TILE(5, 2, R, S) break;                                                                \
    case 6: TILE(6, 2, R, S) break;
#else
#define TILE_LIST(R, S)                                                                            \
    case 1: TILE(1, 32, R, S) break;
#endif
/* clang-format on */

TILE_CASES(along_j, p->a_row, 1)
TILE_CASES(along_i, 1, p->a_step)

/* The last panel when N is no multiple of PANEL_N: a tile into a small block, of which only the
 * first `lanes` lanes are read from and written to the destination. */
static void edge_rows(const Product *p, int rows, int lanes,
                      void (*tile_rows)(const Product *, int, int64_t))
{
    real_t block[ROWS_MAX][PANEL_N] = {0};
    for (int i = 0; p->accumulate && i < rows; i++)
        memcpy(block[i], p->c + i * p->c_row, (size_t)lanes * sizeof(real_t));
    Product q = *p;
    q.c = block[0];
    q.c_row = PANEL_N;
    tile_rows(&q, rows, 1);
    for (int i = 0; i < rows; i++)
        memcpy(p->c + i * p->c_row, block[i], (size_t)lanes * sizeof(real_t));
}

/* All rows and `lanes` lanes (the last panel may be a part). Row tiles are as even as can be: 16
 * rows are 8 + 8, not 12 + 4. */
static void product(const Product *p, int64_t rows, int64_t lanes,
                    void (*tile_rows)(const Product *, int, int64_t))
{
    int64_t whole = lanes / PANEL_N, rest = lanes % PANEL_N;
    int64_t n_tiles = (rows + ROWS_MAX - 1) / ROWS_MAX;
    for (int64_t t = 0; t < n_tiles; t++) {
        int64_t from = rows * t / n_tiles, to = rows * (t + 1) / n_tiles;
        Product q = *p;
        q.c += from * p->c_row;
        q.a += from * p->a_row;
        if (whole)
            tile_rows(&q, (int)(to - from), whole);
        q.c += whole * p->c_panel;
        q.b += whole * p->b_panel;
        if (rest)
            edge_rows(&q, (int)(to - from), (int)rest, tile_rows);
    }
}

/* Parts form a grid over rows x panels: rows first, as long as each part has two tiles of them. */
static void grid(int part, int n_parts, int64_t rows, int64_t panels, int64_t row[2],
                 int64_t panel[2])
{
    int64_t tiles = (rows + ROWS_MAX - 1) / ROWS_MAX;
    int by_rows = n_parts;
    while (by_rows > 1 && (n_parts % by_rows || tiles < 2 * by_rows))
        by_rows--;
    int by_panels = n_parts / by_rows;
    part_range(rows, 1, part / by_panels, by_rows, &row[0], &row[1]);
    part_range(panels, 1, part % by_panels, by_panels, &panel[0], &panel[1]);
}

static int64_t panels_of(int64_t n)
{
    return (n + PANEL_N - 1) / PANEL_N;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Multiply-adds at 50 a nanosecond, and the weight's bytes at 20. */
static double work_ns(int64_t m, int64_t n, int64_t k)
{
    double mac = (double)m * (double)n * (double)k;
    double move = (double)n * (double)k * sizeof(real_t);
    return mac / (VF_LANES * 3.0) + move / 20;
}

typedef struct {
    Tensor *dst;
    const Tensor *a, *b;
    bool accumulate;
} LinearCtx;

/* ---- y = x w^T --------------------------------------------------------------------------------
 */

static void linear_part(int part, int n_parts, void *ctx)
{
    const LinearCtx *c = ctx;
    int64_t n = c->b->dim[0], k = c->b->dim[1], row[2], panel[2];
    grid(part, n_parts, c->a->dim[0], panels_of(n), row, panel);
    int64_t lanes = least(panel[1] * PANEL_N, n) - panel[0] * PANEL_N;
    /* With more rows than a tile has, one panel at a time stays in the cache while they pass. */
    int64_t step = row[1] - row[0] > ROWS_MAX ? PANEL_N : lanes;
    for (int64_t m = row[0]; m < row[1]; m += ROW_BLOCK)
        for (int64_t l = 0; l < lanes; l += step) {
            int64_t col = panel[0] * PANEL_N + l;
            Product p = {
                .c = real_data(c->dst) + m * c->dst->stride + col,
                .c_row = c->dst->stride,
                .c_panel = PANEL_N,
                .a = real_data(c->a) + m * c->a->stride,
                .a_row = c->a->stride,
                .a_step = 1,
                .b = real_data(c->b) + col * k,
                .b_panel = PANEL_N * k,
                .n_j = k,
                .accumulate = c->accumulate,
            };
            product(&p, least(ROW_BLOCK, row[1] - m), least(step, lanes - l), tile_rows_along_j);
        }
}

void CPU_OP(linear)(Tensor *y, const Tensor *x, const Tensor *w, bool accumulate)
{
    LinearCtx c = {y, x, w, accumulate};
    cpu_run(y->dev, linear_part, &c, work_ns(x->dim[0], w->dim[0], w->dim[1]));
}

/* ---- dx = dy w ----------------------------------------------------------------------------------
 */

/* dst[i][l] = src[l][i], both PANEL_N x PANEL_N: by blocks of 4 x 4, which every x86-64 has
 * instructions for; one row at a time takes four times as long. */
static void transpose_panel(real_t *dst, const real_t *src)
{
#if defined(__SSE__) && !defined(RLHF_REAL_DOUBLE)
    for (int i = 0; i < PANEL_N; i += 4)
        for (int l = 0; l < PANEL_N; l += 4) {
            __m128 a = _mm_loadu_ps(src + l * PANEL_N + i);
            __m128 b = _mm_loadu_ps(src + (l + 1) * PANEL_N + i);
            __m128 c = _mm_loadu_ps(src + (l + 2) * PANEL_N + i);
            __m128 d = _mm_loadu_ps(src + (l + 3) * PANEL_N + i);
            _MM_TRANSPOSE4_PS(a, b, c, d);
            _mm_storeu_ps(dst + i * PANEL_N + l, a);
            _mm_storeu_ps(dst + (i + 1) * PANEL_N + l, b);
            _mm_storeu_ps(dst + (i + 2) * PANEL_N + l, c);
            _mm_storeu_ps(dst + (i + 3) * PANEL_N + l, d);
        }
#else
    for (int i = 0; i < PANEL_N; i++)
        for (int l = 0; l < PANEL_N; l++)
            dst[i * PANEL_N + l] = src[l * PANEL_N + i];
#endif
}

/* dst[n][lane] = w[n0 + n, k0 + lane] for n < n_n, lane < lanes: the panel of w^T that starts at
 * k0. */
static void pack_transposed(real_t *dst, const Tensor *w, int64_t n0, int64_t n_n, int64_t k0,
                            int64_t lanes)
{
    for (int64_t n = 0; n < n_n; n += PANEL_N) {
        const real_t *src = real_data(w) + ((n0 + n) * w->dim[1]) + k0 * PANEL_N;
        int64_t rows = least(PANEL_N, n_n - n);
        if (rows == PANEL_N && lanes == PANEL_N) {
            transpose_panel(dst + n * PANEL_N, src);
            continue;
        }
        for (int64_t i = 0; i < rows; i++)
            for (int64_t l = 0; l < PANEL_N; l++)
                dst[(n + i) * PANEL_N + l] = l < lanes ? src[l * PANEL_N + i] : (real_t)0;
    }
}

static void linear_dx_part(int part, int n_parts, void *ctx)
{
    const LinearCtx *c = ctx; /* a = dy, b = w */
    int64_t n = c->b->dim[0], k = c->b->dim[1], row[2], panel[2];
    grid(part, n_parts, c->a->dim[0], panels_of(k), row, panel);
    if (row[0] == row[1] || panel[0] == panel[1])
        return;
    real_t *pack = device_scratch(c->dst->dev, part, DX_BLOCK * PANEL_N * sizeof(real_t));
    for (int64_t q = panel[0]; q < panel[1]; q++)
        for (int64_t n0 = 0; n0 < n || n0 == 0; n0 += DX_BLOCK) {
            int64_t k0 = q * PANEL_N, lanes = least(PANEL_N, k - k0), n_n = least(DX_BLOCK, n - n0);
            pack_transposed(pack, c->b, n0, n_n, k0, lanes);
            Product p = {
                .c = real_data(c->dst) + row[0] * c->dst->stride + k0,
                .c_row = c->dst->stride,
                .c_panel = PANEL_N,
                .a = real_data(c->a) + row[0] * c->a->stride + n0,
                .a_row = c->a->stride,
                .a_step = 1,
                .b = pack,
                .n_j = n_n,
                .accumulate = c->accumulate || n0 > 0,
            };
            product(&p, row[1] - row[0], lanes, tile_rows_along_j);
        }
}

void CPU_OP(linear_dx)(Tensor *dx, const Tensor *dy, const Tensor *w, bool accumulate)
{
    LinearCtx c = {dx, dy, w, accumulate};
    cpu_run(dx->dev, linear_dx_part, &c, work_ns(dy->dim[0], w->dim[0], w->dim[1]));
}

/* ---- dw = dy^T x --------------------------------------------------------------------------------
 */

/* dst[m][lane] = dy[m0 + m, n0 + lane], lanes beyond N zero. */
static void pack_dy(real_t *dst, const Tensor *dy, int64_t m0, int64_t n_m, int64_t n0,
                    int64_t lanes)
{
    for (int64_t m = 0; m < n_m; m++) {
        const real_t *src = real_data(dy) + (m0 + m) * dy->stride + n0;
        memcpy(dst + m * PANEL_N, src, (size_t)lanes * sizeof(real_t));
        if (lanes < PANEL_N)
            memset(dst + m * PANEL_N + lanes, 0, (size_t)(PANEL_N - lanes) * sizeof(real_t));
    }
}

/* The weight's rows k are the tile's rows: 32 lanes of n for each, tokens m the chain. */
static void linear_dw_part(int part, int n_parts, void *ctx)
{
    const LinearCtx *c = ctx; /* a = x, b = dy */
    int64_t n = c->dst->dim[0], k = c->dst->dim[1], n_m = c->a->dim[0], row[2], panel[2];
    grid(part, n_parts, k, panels_of(n), row, panel);
    if (row[0] == row[1] || panel[0] == panel[1])
        return;
    real_t *pack = device_scratch(c->dst->dev, part, DW_BLOCK * PANEL_N * sizeof(real_t));
    for (int64_t m = 0; m < n_m || m == 0; m += DW_BLOCK)
        for (int64_t q = panel[0]; q < panel[1]; q++) {
            int64_t n0 = q * PANEL_N, lanes = least(PANEL_N, n - n0);
            pack_dy(pack, c->b, m, least(DW_BLOCK, n_m - m), n0, lanes);
            Product p = {
                .c = real_data(c->dst) + (q * k + row[0]) * PANEL_N,
                .c_row = PANEL_N,
                .a = real_data(c->a) + m * c->a->stride + row[0],
                .a_row = 1,
                .a_step = c->a->stride,
                .b = pack,
                .n_j = least(DW_BLOCK, n_m - m),
                .accumulate = c->accumulate || m > 0,
            };
            product(&p, row[1] - row[0], lanes, tile_rows_along_i);
        }
}

void CPU_OP(linear_dw)(Tensor *dw, const Tensor *dy, const Tensor *x, DType operands,
                         bool accumulate)
{
    LinearCtx c = {dw, x, dy, accumulate};
    cpu_run(dw->dev, linear_dw_part, &c, work_ns(dy->dim[0], dw->dim[0], dw->dim[1]));
}
