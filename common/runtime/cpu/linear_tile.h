/* linear_tile.h - the register tile that all products of linear layers share, and what feeds it.
 *
 * It computes a few rows x a few vectors of c[i, lane] = chain over j of a[i, j] * b[j, lane], j
 * ascending, from c or from +0. Lanes lie along the contiguous side, each lane is one FMA chain in
 * every instruction set, and blocks of the chain reload the destination, so block sizes, edges and
 * threads cannot change a bit.
 *
 * a is packed (a block of at most J_MAX steps, at distances known when this is compiled, so that
 * one register addresses all rows); b is a block of a panel, as it stands in a weight or packed. A
 * block of b stays in the first cache while the row tiles pass over it; meanwhile the tile asks for
 * what comes next, spread over its steps. For linear.c and linear_bf16.c alone. */
#ifndef RLHF_RUNTIME_CPU_LINEAR_TILE_H
#define RLHF_RUNTIME_CPU_LINEAR_TILE_H

#include "common/runtime/cpu/bf16.h"
#include "common/runtime/cpu/cpu.h"
#include "common/runtime/cpu/vec.h"

#include <string.h>

/* The tile: at most ROWS_MAX rows of one panel pass. Few rows take more vectors instead, to have
 * enough independent chains and one long run over each weight. */
#if defined(__AVX512F__) && !defined(RLHF_REAL_DOUBLE)
enum { ROWS_MAX = 12 }; /* x 2 vectors = 24 of 32 registers */
#elif defined(__AVX2__) && !defined(RLHF_REAL_DOUBLE)
enum { ROWS_MAX = 6 }; /* x 2 vectors = 12 of 16 registers */
#else
enum { ROWS_MAX = 1 };
#endif

enum {
    J_MAX = 288,        /* steps of a block: 36 KiB of b, 9 panels of a transposed weight */
    A_ROW = J_MAX + 16, /* packed along j: from row to row; rows do not share a set of the cache */
    ROWS_FIT = 312,     /* rows of a packed at a time */
    FEW_ROWS = 5,       /* up to so many rows pass over several panels at once */
    FEW_PANELS = 4,
    LINE = 64 / sizeof(real_t),
};

/* What a step of the chain takes from b and the packed a. */
typedef enum {
    STEP_REAL,  /* a real of each */
    STEP_FLUSH, /* the same, of bf16: in vector bodies the processor flushes, so it is STEP_REAL */
    STEP_WIDEN, /* two bf16 numbers from b as a weight has them, two reals of a */
    STEP_PAIR,  /* two bf16 numbers of each */
} Step;

#ifdef __AVX512BF16__
enum { PAIRS = 1 };
#else
enum { PAIRS = 0 };
#endif

/* Prefetches during a block: `at` in the first step of the first tile, from there `step` further
 * each step and `tile` further each of the first `tiles` tiles. */
typedef struct {
    const real_t *at;
    int64_t step, tile, tiles;
    bool both; /* and the line behind, each time */
} Ahead;

/* Lines to be asked for during products, a share before each tile: `per_row` lines of each row. */
typedef struct {
    const real_t *at;
    int64_t stride, per_row, lines;
    int64_t product, n_products; /* this product's number of all that share them */
} Later;

/* One operand set: c[i] at c + i * c_row, b[j] at b + j * PANEL_N; panels of b lie b_panel apart,
 * those of c c_panel. a: packed. */
typedef struct {
    real_t *c;
    int64_t c_row, c_panel;
    const real_t *a;
    const real_t *b;
    int64_t b_panel;
    int64_t n_j;
    bool accumulate;
    bool along_j; /* a is packed row after row, else step after step */
    Step step;
    Ahead ahead;
    Later later;
} Product;

/* One link of a chain. */
K_INLINE vf vf_link(Step step, vf a, vf b, vf c)
{
#ifdef __AVX512BF16__
    if (step == STEP_PAIR)
        return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
#elif VF_FLUSH_BY_HAND
    if (step == STEP_FLUSH)
        return bf16_fma(a, b, c);
#endif
    (void)step;
    return vf_fma(a, b, c);
}

/* `rows` rows x `n_vec` vectors, the first of them vector `v0` of the panel run; all but v0 are
 * constants after inlining. */
K_INLINE void tile(const Product *p, int rows, int n_vec, int64_t v0, int a_row, int a_step,
                   Step step)
{
    enum { VECS = 32, PANELS_MAX = 4 };
    vf acc[12][VECS];
    const real_t *b[PANELS_MAX];
    real_t *c[PANELS_MAX];
    for (int q = 0; q * PANEL_VF < n_vec; q++) {
        int64_t panel = v0 / PANEL_VF + q, lane = v0 % PANEL_VF * VF_LANES;
        b[q] = p->b + panel * p->b_panel + lane;
        c[q] = p->c + panel * p->c_panel + lane;
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < n_vec; v++)
            acc[i][v] = p->accumulate
                            ? vf_load(c[v / PANEL_VF] + i * p->c_row + v % PANEL_VF * VF_LANES)
                            : vf_zero();
    const real_t *a = p->a, *ahead = p->ahead.at;
    const int64_t ahead_step = p->ahead.step;
    const bool both = p->ahead.both;
    for (int64_t j = p->n_j; j > 0; j--) {
        vf bj[VECS], second[VECS];
        for (int v = 0; v < n_vec; v++)
            bj[v] = vf_load(b[v / PANEL_VF] + v % PANEL_VF * VF_LANES);
        for (int v = 0; step == STEP_WIDEN && v < n_vec; v++) {
            second[v] = vf_lower_half(bj[v]);
            bj[v] = vf_upper_half(bj[v]);
        }
        if (rows > FEW_ROWS) {
            __builtin_prefetch(ahead, 0, 2);
            if (both)
                __builtin_prefetch(ahead + LINE, 0, 2);
            ahead += ahead_step;
        }
        for (int i = 0; i < rows; i++) {
            vf x = vf_set1(a[i * a_row]);
            for (int v = 0; v < n_vec; v++)
                acc[i][v] = vf_link(step, x, bj[v], acc[i][v]);
        }
        if (step == STEP_WIDEN) {
            for (int i = 0; i < rows; i++) {
                vf x = vf_set1(a[i * a_row + 1]);
                for (int v = 0; v < n_vec; v++)
                    acc[i][v] = vf_fma(x, second[v], acc[i][v]);
            }
        }
        a += a_step;
        for (int q = 0; q * PANEL_VF < n_vec; q++)
            b[q] += PANEL_N;
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < n_vec; v++)
            vf_store(c[v / PANEL_VF] + i * p->c_row + v % PANEL_VF * VF_LANES, acc[i][v]);
}

typedef void (*TileRows)(const Product *p, int rows, int64_t n_panels);

/* Rows of one tile, `n_panels` whole panels. */
#define TILE_CASES(NAME, ROW, A_STEP, STEP)                                                        \
    static void tile_rows_##NAME(const Product *p, int rows, int64_t n_panels)                     \
    {                                                                                              \
        const int64_t n_vec = n_panels * PANEL_VF;                                                 \
        int64_t v = 0;                                                                             \
        switch (rows) {                                                                            \
            TILE_LIST(ROW, A_STEP, STEP)                                                           \
        }                                                                                          \
    }
#define TILE(ROWS, N_VEC, ...)                                                                     \
    for (; v + (N_VEC) <= n_vec; v += (N_VEC))                                                     \
        tile(p, ROWS, N_VEC, v, __VA_ARGS__);

#if defined(__AVX512F__) && !defined(RLHF_REAL_DOUBLE)
/* clang-format off */
#define TILE_LIST(...)                                                                            \
    case 1: TILE(1, 8, __VA_ARGS__) TILE(1, 2, __VA_ARGS__) break;                                               \
    case 2: TILE(2, 8, __VA_ARGS__) TILE(2, 2, __VA_ARGS__) break;                                               \
    case 3: TILE(3, 4, __VA_ARGS__) TILE(3, 2, __VA_ARGS__) break;                                               \
    case 4: TILE(4, 4, __VA_ARGS__) TILE(4, 2, __VA_ARGS__) break;                                               \
    case 5: TILE(5, 4, __VA_ARGS__) TILE(5, 2, __VA_ARGS__) break;                                               \
    case 6: TILE(6, 2, __VA_ARGS__) break;                                                                \
    case 7: TILE(7, 2, __VA_ARGS__) break;                                                                \
    case 8: TILE(8, 2, __VA_ARGS__) break;                                                                \
    case 9: TILE(9, 2, __VA_ARGS__) break;                                                                \
    case 10: TILE(10, 2, __VA_ARGS__) break;                                                              \
    case 11: TILE(11, 2, __VA_ARGS__) break;                                                              \
    case 12: TILE(12, 2, __VA_ARGS__) break;
#elif defined(__AVX2__) && !defined(RLHF_REAL_DOUBLE)
#define TILE_LIST(...)                                                                            \
    case 1: TILE(1, 8, __VA_ARGS__) TILE(1, 4, __VA_ARGS__) break;                                               \
    case 2: TILE(2, 4, __VA_ARGS__) break;                                                                \
    case 3: TILE(3, 2, __VA_ARGS__) break;                                                                \
    case 4: TILE(4, 2, __VA_ARGS__) break;                                                                \
    case 5: TILE(5, 2, __VA_ARGS__) break;                                                                \
    case 6: TILE(6, 2, __VA_ARGS__) break;
#else
#define TILE_LIST(...)                                                                            \
    case 1: TILE(1, 32, __VA_ARGS__) break;
#endif
/* clang-format on */

TILE_CASES(along_j, A_ROW, 1, STEP_REAL)
TILE_CASES(along_i, 1, ROWS_MAX, STEP_REAL)
#ifdef __AVX512BF16__
TILE_CASES(along_j_pair, A_ROW, 1, STEP_PAIR)
TILE_CASES(along_i_pair, 1, ROWS_MAX, STEP_PAIR)
#elif VF_FLUSH_BY_HAND
TILE_CASES(along_j_flush, A_ROW, 1, STEP_FLUSH)
TILE_CASES(along_i_flush, 1, ROWS_MAX, STEP_FLUSH)
#else
TILE_CASES(along_j_widen, A_ROW, 2, STEP_WIDEN)
#endif

static TileRows tile_rows_of(const Product *p)
{
#ifdef __AVX512BF16__
    if (p->step == STEP_PAIR)
        return p->along_j ? tile_rows_along_j_pair : tile_rows_along_i_pair;
#elif VF_FLUSH_BY_HAND
    if (p->step == STEP_FLUSH)
        return p->along_j ? tile_rows_along_j_flush : tile_rows_along_i_flush;
#else
    if (p->step == STEP_WIDEN)
        return tile_rows_along_j_widen;
#endif
    return p->along_j ? tile_rows_along_j : tile_rows_along_i;
}

/* The last panel when N is no multiple of PANEL_N: a tile into a small block, of which only the
 * first `lanes` lanes are read from and written to the destination. */
static void edge_rows(const Product *p, int rows, int lanes, TileRows tile_rows)
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

/* Where row tile t begins. Along j tiles are as even as can be: 16 rows are 8 + 8, not 12 + 4. */
static int64_t tiles_of(int64_t rows)
{
    return (rows + ROWS_MAX - 1) / ROWS_MAX;
}

static int64_t tile_row(const Product *p, int64_t rows, int64_t n_tiles, int64_t t)
{
    return p->along_j ? rows * t / n_tiles : t < n_tiles ? t * ROWS_MAX : rows;
}

/* Rows of c that the next tile reads or writes. */
static void ask_for_rows(const real_t *c, int64_t c_row, int rows)
{
    for (int i = 0; i < rows; i++)
        for (int l = 0; l < PANEL_N; l += LINE)
            __builtin_prefetch(c + i * c_row + l, 1);
}

static void ask_for_share(const Later *l, int64_t t, int64_t n_tiles)
{
    if (!l->lines)
        return;
    const int64_t share = l->product * n_tiles + t, n_shares = l->n_products * n_tiles;
    int64_t i = l->lines * share / n_shares, end = l->lines * (share + 1) / n_shares;
    if (i == end)
        return;
    int64_t col = i % l->per_row;
    const real_t *row = l->at + i / l->per_row * l->stride;
    for (; i < end; i++) {
        __builtin_prefetch(row + col * LINE, 0, 2);
        if (++col == l->per_row)
            col = 0, row += l->stride;
    }
}

/* All rows and `lanes` lanes (the last panel may be a part). */
static void product(const Product *p, int64_t rows, int64_t lanes)
{
    int64_t whole = lanes / PANEL_N, rest = lanes % PANEL_N, n_tiles = tiles_of(rows);
    TileRows tile_rows = tile_rows_of(p);
    Product q = *p;
    for (int64_t t = 0; t < n_tiles; t++) {
        int64_t from = tile_row(p, rows, n_tiles, t), to = tile_row(p, rows, n_tiles, t + 1);
        q.c = p->c + from * p->c_row;
        q.a = p->a + (p->along_j ? from * A_ROW : t * ROWS_MAX * p->n_j);
        if (t == p->ahead.tiles)
            q.ahead.step = 0;
        if (t + 1 < n_tiles)
            ask_for_rows(p->c + to * p->c_row, p->c_row, ROWS_MAX);
        else
            ask_for_rows(p->c + p->c_panel, p->c_row, rows < ROWS_MAX ? (int)rows : ROWS_MAX);
        ask_for_share(&p->later, t, n_tiles);
        if (whole)
            tile_rows(&q, (int)(to - from), whole);
        if (rest) {
            Product e = q;
            e.c += whole * p->c_panel;
            e.b += whole * p->b_panel;
            edge_rows(&e, (int)(to - from), (int)rest, tile_rows);
        }
        q.ahead.at += p->ahead.tile;
    }
}

/* Parts form a grid over rows x panels: rows first, as long as each part has two tiles of them. */
static void grid(int part, int n_parts, int64_t rows, int64_t panels, int64_t row[2],
                 int64_t panel[2])
{
    int by_rows = n_parts;
    while (by_rows > 1 && (n_parts % by_rows || tiles_of(rows) < 2 * by_rows))
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

#endif
