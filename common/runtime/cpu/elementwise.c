/* elementwise.c - ops whose elements do not meet: sums, SwiGLU, RoPE, copies between dtypes and
 * layouts, rows by index. Parts split rows (columns where rows may repeat). Loops are plain C that
 * the compiler vectorises; SwiGLU, all exponentials and a division, is written in vectors. Tested
 * by tests/ops/elementwise.c. */
#include "common/base/error.h"
#include "common/runtime/cpu/cpu.h"
#include "common/runtime/cpu/formula.h"
#include "common/runtime/cpu/transpose.h"
#include "common/runtime/cpu/vmath.h"

#include <string.h>

typedef struct {
    Tensor *y, *y2;
    const Tensor *a, *b, *c;
    double scalar;
    int64_t head_dim;
    bool flag; /* accumulate, or backward */
} ElementCtx;

/* Rows of a ROWS tensor of any rank: element (0, 0) of row r. */
static real_t *row_at(const Tensor *t, int64_t r)
{
    return real_data(t) + r * (t->n_dims > 1 ? t->stride : 0);
}

/* A rank 1 tensor is one long row: cut it into rows of RUN elements so that parts have work. */
enum { RUN = 4096 };

static bool is_dense(const Tensor *t)
{
    return t->layout != LAYOUT_ROWS || t->n_dims < 2 || t->stride == tensor_cols(t);
}

/* ---- y = a + b
 * ------------------------------------------------------------------------------------ */

static void add_run(real_t *y, const real_t *a, const real_t *b, int64_t n)
{
    K_INDEPENDENT
    for (int64_t i = 0; i < n; i++)
        y[i] = a[i] + b[i];
}

static void add_part(int part, int n_parts, void *ctx)
{
    const ElementCtx *c = ctx;
    int64_t from, to, cols = tensor_cols(c->y);
    if (is_dense(c->y) && is_dense(c->a) && is_dense(c->b)) {
        part_range(tensor_len(c->y), RUN, part, n_parts, &from, &to);
        if (from < to)
            add_run(real_data(c->y) + from, real_data(c->a) + from, real_data(c->b) + from,
                    to - from);
        return;
    }
    part_range(tensor_rows(c->y), 1, part, n_parts, &from, &to);
    for (int64_t r = from; r < to; r++)
        add_run(row_at(c->y, r), row_at(c->a, r), row_at(c->b, r), cols);
}

void CPU_OP(add)(Tensor *y, const Tensor *a, const Tensor *b)
{
    ElementCtx c = {.y = y, .a = a, .b = b};
    cpu_run(y->dev, add_part, &c, (double)tensor_len(y));
}

/* ---- SwiGLU (Shazeer 2020)
 * -------------------------------------------------------------------------- */

static void swiglu_part(int part, int n_parts, void *ctx)
{
    const ElementCtx *c = ctx;
    int64_t from, to, cols = c->y->dim[1];
    part_range(c->y->dim[0], 1, part, n_parts, &from, &to);
    for (int64_t r = from; r < to; r++) {
        real_t *restrict y = row_at(c->y, r);
        const real_t *restrict gate = row_at(c->a, r), *restrict up = row_at(c->b, r);
        int64_t i = 0;
        for (; i + VF_LANES <= cols; i += VF_LANES) {
            const vf g = vf_load(gate + i);
            vf_store(y + i, vf_mul(vf_mul(g, vf_sigmoid(g)), vf_load(up + i)));
        }
        for (; i < cols; i++)
            y[i] = formula_swiglu(gate[i], up[i]);
    }
}

void CPU_OP(swiglu)(Tensor *y, const Tensor *gate, const Tensor *up)
{
    ElementCtx c = {.y = y, .a = gate, .b = up};
    cpu_run(y->dev, swiglu_part, &c, (double)tensor_len(y) * 2);
}

/* formula_swiglu_backward of VF_LANES elements. */
K_INLINE void swiglu_backward_vector(real_t *dgate, real_t *dup, const real_t *dy,
                                     const real_t *gate, const real_t *up)
{
    const vf d = vf_load(dy), g = vf_load(gate), u = vf_load(up), s = vf_sigmoid(g);
    const vf slope = vf_mul(s, vf_fma(g, vf_sub(vf_set1(1), s), vf_set1(1)));
    vf_store(dup, vf_mul(d, vf_mul(g, s)));
    vf_store(dgate, vf_mul(vf_mul(d, u), slope));
}

static void swiglu_backward_part(int part, int n_parts, void *ctx)
{
    const ElementCtx *c = ctx;
    int64_t from, to, cols = c->y->dim[1];
    part_range(c->y->dim[0], 1, part, n_parts, &from, &to);
    for (int64_t r = from; r < to; r++) {
        real_t *dgate = row_at(c->y, r), *dup = row_at(c->y2, r);
        const real_t *dy = row_at(c->a, r), *gate = row_at(c->b, r), *up = row_at(c->c, r);
        int64_t i = 0;
        for (; i + VF_LANES <= cols; i += VF_LANES)
            swiglu_backward_vector(dgate + i, dup + i, dy + i, gate + i, up + i);
        for (; i < cols; i++)
            formula_swiglu_backward(dgate + i, dup + i, dy[i], gate[i], up[i]);
    }
}

void CPU_OP(swiglu_backward)(Tensor *dgate, Tensor *dup, const Tensor *dy, const Tensor *gate,
                             const Tensor *up)
{
    ElementCtx c = {.y = dgate, .y2 = dup, .a = dy, .b = gate, .c = up};
    cpu_run(dgate->dev, swiglu_backward_part, &c, (double)tensor_len(dy) * 2);
}

/* ---- RoPE (Su et al. 2021, in the rotate_half form)
 * --------------------------------------------------- */

static void rope_head(real_t *restrict a, real_t *restrict b, const real_t *restrict cosine,
                      const real_t *restrict sine, real_t sign, int64_t half)
{
    for (int64_t d = 0; d < half; d++)
        formula_rope(a + d, b + d, cosine[d], sign * sine[d]);
}

static void rope_part(int part, int n_parts, void *ctx)
{
    const ElementCtx *c = ctx;
    int64_t from, to, half = c->head_dim / 2;
    part_range(c->y->dim[0], 1, part, n_parts, &from, &to);
    for (int64_t t = from; t < to; t++) {
        const real_t *table = row_at(c->b, i32_data(c->a)[t]);
        real_t *x = row_at(c->y, t);
        for (int64_t h = 0; h < c->y->dim[1]; h += c->head_dim)
            rope_head(x + h, x + h + half, table, table + half, c->flag ? -1 : 1, half);
    }
}

void CPU_OP(rope)(Tensor *x, const Tensor *pos, const Tensor *table, int64_t head_dim,
                  bool backward)
{
    ElementCtx c = {.y = x, .a = pos, .b = table, .head_dim = head_dim, .flag = backward};
    cpu_run(x->dev, rope_part, &c, (double)tensor_len(x));
}

/* ---- convert: between f32 and bf16 by tiles, with f64 one by one
 * ------------------------------------------------------------------------------------------------- */

/* PANEL_N rows x TILE_K columns as bits of f32, columns first: what a panel of f32 holds. Every layout
 * and dtype is read into one and written from one, so each pair of them costs two passes of L1. */
enum { TILE_K = 64 };
typedef struct {
    uint32_t at[TILE_K][PANEL_N];
} Tile;

static void widen(uint32_t *restrict dst, const uint16_t *restrict src, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = (uint32_t)src[i] << 16;
}

static void narrow(uint16_t *restrict dst, const uint32_t *restrict src, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = (uint16_t)(bf16_round_bits(src[i]) >> 16);
}

/* Rows [row, row + rows) and columns [k, k + cols) of x; rows beyond them become zero. */
static void tile_read(Tile *t, const Tensor *x, int64_t row, int64_t rows, int64_t k, int64_t cols)
{
    const int64_t at = tensor_slot(x, row, k);
    uint32_t line[PANEL_N][TILE_K];
    if (x->layout == LAYOUT_PANEL && x->dtype == DTYPE_F32) {
        memcpy(t->at, (const float *)x->data + at, (size_t)cols * sizeof t->at[0]);
    } else if (x->layout == LAYOUT_PANEL) {
        const uint32_t *pair = (const uint32_t *)x->data + at / 2; /* k is even: (k, lane 0) is odd */
        for (int64_t j = 0; j < cols; j += 2, pair += PANEL_N)
            for (int n = 0; n < PANEL_N; n++) {
                t->at[j][n] = pair[n] & 0xffff0000;
                t->at[j + 1][n] = pair[n] << 16;
            }
    } else {
        if (rows < PANEL_N)
            memset(t->at, 0, sizeof t->at);
        for (int64_t r = 0; x->dtype == DTYPE_BF16 && r < rows; r++)
            widen(line[r], (const uint16_t *)x->data + at + r * x->stride, cols);
        if (x->dtype == DTYPE_BF16)
            transpose_words(t->at[0], PANEL_N, line[0], TILE_K, rows, cols);
        else
            transpose_words(t->at[0], PANEL_N, (const uint32_t *)x->data + at, x->stride, rows, cols);
    }
}

static void tile_write(Tensor *y, Tile *t, int64_t row, int64_t rows, int64_t k, int64_t cols)
{
    const int64_t at = tensor_slot(y, row, k);
    uint32_t line[PANEL_N][TILE_K];
    if (y->layout == LAYOUT_PANEL && y->dtype == DTYPE_F32) {
        memcpy((float *)y->data + at, t->at, (size_t)cols * sizeof t->at[0]);
    } else if (y->layout == LAYOUT_PANEL) {
        uint32_t *pair = (uint32_t *)y->data + at / 2;
        if (cols % 2) /* the last of an odd K is paired with zero */
            memset(t->at[cols], 0, sizeof t->at[0]);
        for (int64_t j = 0; j < cols; j += 2, pair += PANEL_N)
            for (int n = 0; n < PANEL_N; n++)
                pair[n] = bf16_pair(t->at[j][n], t->at[j + 1][n]);
    } else if (y->dtype == DTYPE_F32) {
        transpose_words((uint32_t *)y->data + at, y->stride, t->at[0], PANEL_N, cols, rows);
    } else {
        transpose_words(line[0], TILE_K, t->at[0], PANEL_N, cols, rows);
        for (int64_t r = 0; r < rows; r++)
            narrow((uint16_t *)y->data + at + r * y->stride, line[r], cols);
    }
}

static void convert_tiles_part(int part, int n_parts, void *ctx)
{
    const ElementCtx *c = ctx;
    const int64_t N = c->y->dim[0], K = c->y->dim[1];
    int64_t from, to;
    Tile t;
    part_range(N, PANEL_N, part, n_parts, &from, &to);
    for (int64_t row = from; row < to; row += PANEL_N)
        for (int64_t k = 0; k < K; k += TILE_K) {
            int64_t rows = to - row < PANEL_N ? to - row : PANEL_N;
            int64_t cols = K - k < TILE_K ? K - k : TILE_K;
            tile_read(&t, c->a, row, rows, k, cols);
            tile_write(c->y, &t, row, rows, k, cols);
        }
}

/* Elements that lie in the same order on both sides: n of them from offsets y0 and x0. */
static void convert_run(Tensor *y, int64_t y0, const Tensor *x, int64_t x0, int64_t n)
{
    char *to = (char *)y->data + (size_t)y0 * dtype_bytes(y->dtype);
    const char *from = (const char *)x->data + (size_t)x0 * dtype_bytes(x->dtype);
    if (y->dtype == x->dtype)
        memcpy(to, from, (size_t)n * dtype_bytes(y->dtype));
    else if (y->dtype == DTYPE_F32 && x->dtype == DTYPE_BF16)
        widen((uint32_t *)to, (const uint16_t *)from, n);
    else if (y->dtype == DTYPE_BF16 && x->dtype == DTYPE_F32)
        narrow((uint16_t *)to, (const uint32_t *)from, n);
    else
        for (int64_t i = 0; i < n; i++)
            formula_write(to, y->dtype, i, formula_read(from, x->dtype, i));
}

static void convert_runs_part(int part, int n_parts, void *ctx)
{
    const ElementCtx *c = ctx;
    int64_t from, to, n = tensor_cols(c->y);
    if (is_dense(c->y) && is_dense(c->a)) {
        part_range(tensor_slots(c->y), RUN, part, n_parts, &from, &to);
        if (from < to)
            convert_run(c->y, from, c->a, from, to - from);
        return;
    }
    part_range(tensor_rows(c->y), 1, part, n_parts, &from, &to);
    for (int64_t r = from; r < to; r++)
        convert_run(c->y, tensor_slot(c->y, r, 0), c->a, tensor_slot(c->a, r, 0), n);
}

/* Whatever the others do not know: f64, which only tests use, in or out of a panel. */
static void convert_elements(Tensor *y, const Tensor *x)
{
    if (y->layout == LAYOUT_PANEL)
        memset(y->data, 0, tensor_bytes(y)); /* padding */
    for (int64_t r = 0; r < y->dim[0]; r++)
        for (int64_t k = 0; k < y->dim[1]; k++)
            formula_write(y->data, y->dtype, tensor_slot(y, r, k),
                          formula_read(x->data, x->dtype, tensor_slot(x, r, k)));
}

void CPU_OP(convert)(Tensor *y, const Tensor *x)
{
    ElementCtx c = {.y = y, .a = x};
    bool panels = y->layout == LAYOUT_PANEL || x->layout == LAYOUT_PANEL;
    if (tensor_len(y) == 0)
        return;
    if (!panels || (y->layout == x->layout && y->dtype == x->dtype)) {
        cpu_run(y->dev, convert_runs_part, &c, (double)tensor_len(y));
        return;
    }
    CHECK(y->dtype <= DTYPE_F64 && y->layout != LAYOUT_KV_PAGE && x->layout != LAYOUT_KV_PAGE,
          "op_convert: %s from %s", tensor_text(y), tensor_text(x));
    if (y->dtype <= DTYPE_BF16 && x->dtype <= DTYPE_BF16)
        cpu_run(y->dev, convert_tiles_part, &c, (double)tensor_len(y));
    else
        convert_elements(y, x);
}

/* ---- axpy, fill: any layout
 * ------------------------------------------------------------------------------------------------- */

/* Where row r of a matrix of reals lies: first element, and elements from one column to the next. */
static int64_t row_offset(const Tensor *t, int64_t r)
{
    return tensor_slot(t, r, 0);
}

static int64_t column_step(const Tensor *t)
{
    return t->layout == LAYOUT_PANEL ? PANEL_N : 1;
}

/* Lanes n >= N of the last panel stay zero. */
static void clear_padding(Tensor *t)
{
    if (t->layout != LAYOUT_PANEL || t->dim[0] % PANEL_N == 0)
        return;
    size_t b = dtype_bytes(t->dtype);
    unsigned char *p = t->data;
    p += (size_t)(t->dim[0] / PANEL_N * t->dim[1] * PANEL_N) * b;
    for (int64_t k = 0; k < t->dim[1]; k++, p += PANEL_N * b)
        memset(p + (size_t)(t->dim[0] % PANEL_N) * b, 0,
               (size_t)(PANEL_N - t->dim[0] % PANEL_N) * b);
}

static void axpy_run(real_t *y, real_t a, const real_t *x, int64_t n, bool accumulate)
{
    if (accumulate) {
        K_INDEPENDENT
        for (int64_t i = 0; i < n; i++)
            y[i] = real_fma(a, x[i], y[i]);
    } else {
        K_INDEPENDENT
        for (int64_t i = 0; i < n; i++)
            y[i] = a * x[i];
    }
}

static void axpy_part(int part, int n_parts, void *ctx)
{
    const ElementCtx *c = ctx;
    int64_t from, to, n = tensor_cols(c->y);
    real_t a = (real_t)c->scalar;
    if (c->y->layout == c->a->layout && is_dense(c->y) && is_dense(c->a)) {
        part_range(tensor_slots(c->y), RUN, part, n_parts, &from, &to);
        if (from < to)
            axpy_run(real_data(c->y) + from, a, real_data(c->a) + from, to - from, c->flag);
        return;
    }
    int64_t y_step = column_step(c->y), x_step = column_step(c->a);
    part_range(tensor_rows(c->y), PANEL_N, part, n_parts, &from, &to);
    for (int64_t r = from; r < to; r++) {
        real_t *y = real_data(c->y) + row_offset(c->y, r);
        const real_t *x = real_data(c->a) + row_offset(c->a, r);
        if (y_step == 1 && x_step == 1)
            axpy_run(y, a, x, n, c->flag);
        else
            for (int64_t i = 0; i < n; i++)
                y[i * y_step] =
                    c->flag ? real_fma(a, x[i * x_step], y[i * y_step]) : a * x[i * x_step];
    }
}

void CPU_OP(axpy)(Tensor *y, double a, const Tensor *x, bool accumulate)
{
    ElementCtx c = {.y = y, .a = x, .scalar = a, .flag = accumulate};
    cpu_run(y->dev, axpy_part, &c, (double)tensor_len(y));
    clear_padding(y);
}

static void fill_part(int part, int n_parts, void *ctx)
{
    const ElementCtx *c = ctx;
    Tensor *y = c->y;
    int64_t from, to, n = tensor_cols(y);
    bool dense = is_dense(y);
    part_range(dense ? tensor_slots(y) : tensor_rows(y), dense ? RUN : 1, part, n_parts, &from,
               &to);
    int64_t start = dense ? from : from * y->stride, end = dense ? to : to * y->stride;
    int64_t run = dense ? to - from : n, step = dense ? run + !run : y->stride;
    for (int64_t at = start; at < end; at += step)
        for (int64_t i = at; i < at + run; i++) {
            if (y->dtype == DTYPE_I32)
                ((int32_t *)y->data)[i] = (int32_t)c->scalar;
            else if (y->dtype == DTYPE_U8)
                ((uint8_t *)y->data)[i] = (uint8_t)c->scalar;
            else
                formula_write(y->data, y->dtype, i, c->scalar);
        }
}

void CPU_OP(fill)(Tensor *y, double value)
{
    if (value == 0 && is_dense(y)) {
        if (tensor_len(y))
            memset(y->data, 0, tensor_bytes(y));
        return;
    }
    ElementCtx c = {.y = y, .scalar = value};
    cpu_run(y->dev, fill_part, &c, (double)tensor_len(y));
    clear_padding(y);
}

/* ---- rows by index
 * ---------------------------------------------------------------------------------------- */

static void gather_part(int part, int n_parts, void *ctx)
{
    const ElementCtx *c = ctx;
    int64_t from, to;
    part_range(c->y->dim[0], 1, part, n_parts, &from, &to);
    for (int64_t r = from; r < to; r++)
        memcpy(row_at(c->y, r), row_at(c->a, i32_data(c->b)[r]),
               (size_t)c->y->dim[1] * sizeof(real_t));
}

void CPU_OP(gather_rows)(Tensor *y, const Tensor *x, const Tensor *rows)
{
    ElementCtx c = {.y = y, .a = x, .b = rows};
    cpu_run(y->dev, gather_part, &c, (double)tensor_len(y));
}

static void scatter_part(int part, int n_parts, void *ctx)
{
    const ElementCtx *c = ctx;
    int64_t from, to;
    part_range(c->y->dim[1], 16, part, n_parts, &from, &to);
    for (int64_t r = 0; r < c->a->dim[0] && from < to; r++)
        add_run(row_at(c->y, i32_data(c->b)[r]) + from, row_at(c->y, i32_data(c->b)[r]) + from,
                row_at(c->a, r) + from, to - from);
}

void CPU_OP(scatter_rows)(Tensor *y, const Tensor *x, const Tensor *rows)
{
    ElementCtx c = {.y = y, .a = x, .b = rows};
    cpu_run(y->dev, scatter_part, &c, (double)tensor_len(x));
}
