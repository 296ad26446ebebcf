/* linear_tile.h - the register tile that all products of linear layers share.
 *
 * It computes a few rows x a few vectors of c[i, lane] = chain over j of a[i, j] * b[j, lane], j
 * ascending, from c or from +0. Lanes lie along the contiguous side, each lane is one FMA chain in
 * every instruction set, and blocks of the chain reload the destination, so block sizes, edges and
 * threads cannot change a bit. For linear.c and linear_bf16.c alone. */
#ifndef RLHF_RUNTIME_CPU_LINEAR_TILE_H
#define RLHF_RUNTIME_CPU_LINEAR_TILE_H

#include "common/runtime/cpu/bf16.h"
#include "common/runtime/cpu/cpu.h"
#include "common/runtime/cpu/vec.h"

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
    bool bf16; /* operands are of bf16: sums are flushed */
} Product;

/* One link of a chain. In vector bodies both kinds are the same instruction (bf16.h). */
K_INLINE vf vf_step(bool bf16, vf a, vf b, vf c)
{
#if VF_FLUSH_BY_HAND
    if (bf16)
        return bf16_fma(a, b, c);
#endif
    (void)bf16;
    return vf_fma(a, b, c);
}

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
                acc[i][v] = vf_step(p->bf16, x, bj[v], acc[i][v]);
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

/* The products with bf16 operands (linear_bf16.c). */
void CPU_OP(linear_bf16)(Tensor *y, const Tensor *x, const Tensor *w, bool accumulate);
void CPU_OP(linear_bf16_dx)(Tensor *dx, const Tensor *dy, const Tensor *w, bool accumulate);
void CPU_OP(linear_bf16_dw)(Tensor *dw, const Tensor *dy, const Tensor *x, bool accumulate);

#endif
