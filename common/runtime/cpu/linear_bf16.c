/* linear_bf16.c - the three products with bf16 operands, by widening: a chain of VDPBF16PS is the
 * chain of f32 multiply-adds over the rounded operands in the same order, with denormals flushed
 * (bf16.h). So operands are rounded and weights widened into scratch, block by block, and the tile is
 * the one of f32. Tested by tests/ops/linear.c. */
#include "common/runtime/cpu/linear_tile.h"

static void round_rows(real_t *dst, const Tensor *src, int64_t row, int64_t n_rows, int64_t col,
                       int64_t n_cols)
{
    for (int64_t i = 0; i < n_rows; i++) {
        const real_t *x = real_data(src) + (row + i) * src->stride + col;
        for (int64_t j = 0; j < n_cols; j++)
            dst[i * n_cols + j] = bf16_round(x[j]);
    }
}

/* Row k of panel q: pairs of k side by side, the earlier in the odd slot (tensor.h). */
static const uint16_t *panel_row(const Tensor *w, int64_t q, int64_t k)
{
    int64_t k2 = w->dim[1] + w->dim[1] % 2;
    return (const uint16_t *)w->data + (q * k2 + k - k % 2) * PANEL_N + 1 - k % 2;
}

/* dst[j][lane] = w[q * PANEL_N + lane, k + j]. */
static void widen_panel(real_t *dst, const Tensor *w, int64_t q, int64_t k, int64_t n_k)
{
    for (int64_t j = 0; j < n_k; j++) {
        const uint16_t *row = panel_row(w, q, k + j);
        for (int lane = 0; lane < PANEL_N; lane++)
            dst[j * PANEL_N + lane] = bf16_value(row[2 * lane]);
    }
}

/* ---- y = x w^T --------------------------------------------------------------------------------- */

static void linear_part(int part, int n_parts, void *ctx)
{
    const LinearCtx *c = ctx;
    int64_t n = c->b->dim[0], k = c->b->dim[1], row[2], panel[2];
    grid(part, n_parts, c->a->dim[0], panels_of(n), row, panel);
    if (row[0] == row[1] || panel[0] == panel[1])
        return;
    real_t *a = device_scratch(c->dst->dev, part, (ROW_BLOCK + PANEL_N) * k * (int64_t)sizeof *a);
    real_t *b = a + ROW_BLOCK * k;
    Bf16Scope scope = bf16_begin();
    for (int64_t m = row[0]; m < row[1]; m += ROW_BLOCK) {
        int64_t n_m = least(ROW_BLOCK, row[1] - m);
        round_rows(a, c->a, m, n_m, 0, k);
        for (int64_t q = panel[0]; q < panel[1]; q++) {
            widen_panel(b, c->b, q, 0, k);
            Product p = {
                .c = real_data(c->dst) + m * c->dst->stride + q * PANEL_N,
                .c_row = c->dst->stride,
                .c_panel = PANEL_N,
                .a = a,
                .a_row = k,
                .a_step = 1,
                .b = b,
                .n_j = k,
                .accumulate = c->accumulate,
                .bf16 = true,
            };
            product(&p, n_m, least(PANEL_N, n - q * PANEL_N), tile_rows_along_j);
        }
    }
    bf16_end(scope);
}

void CPU_OP(linear_bf16)(Tensor *y, const Tensor *x, const Tensor *w, bool accumulate)
{
    LinearCtx c = {y, x, w, accumulate};
    cpu_run(y->dev, linear_part, &c, work_ns(x->dim[0], w->dim[0], w->dim[1]));
}

/* ---- dx = dy w --------------------------------------------------------------------------------- */

/* dst[n][lane] = w[n0 + n, k0 + lane]; lanes beyond K zero. */
static void pack_transposed(real_t *dst, const Tensor *w, int64_t n0, int64_t n_n, int64_t k0)
{
    for (int64_t lane = 0; lane < PANEL_N; lane++)
        for (int64_t n = 0; n < n_n; n++)
            dst[n * PANEL_N + lane] =
                k0 + lane < w->dim[1]
                    ? bf16_value(panel_row(w, (n0 + n) / PANEL_N, k0 + lane)[2 * ((n0 + n) % PANEL_N)])
                    : 0;
}

static void linear_dx_part(int part, int n_parts, void *ctx)
{
    const LinearCtx *c = ctx; /* a = dy, b = w */
    int64_t n = c->b->dim[0], k = c->b->dim[1], row[2], panel[2];
    grid(part, n_parts, c->a->dim[0], panels_of(k), row, panel);
    if (row[0] == row[1] || panel[0] == panel[1])
        return;
    real_t *a = device_scratch(c->dst->dev, part, (ROW_BLOCK + PANEL_N) * DX_BLOCK * (int64_t)sizeof *a);
    real_t *b = a + ROW_BLOCK * DX_BLOCK;
    Bf16Scope scope = bf16_begin();
    for (int64_t m = row[0]; m < row[1]; m += ROW_BLOCK)
        for (int64_t n0 = 0; n0 < n || n0 == 0; n0 += DX_BLOCK) {
            int64_t n_m = least(ROW_BLOCK, row[1] - m), n_n = least(DX_BLOCK, n - n0);
            round_rows(a, c->a, m, n_m, n0, n_n);
            for (int64_t q = panel[0]; q < panel[1]; q++) {
                int64_t k0 = q * PANEL_N;
                pack_transposed(b, c->b, n0, n_n, k0);
                Product p = {
                    .c = real_data(c->dst) + m * c->dst->stride + k0,
                    .c_row = c->dst->stride,
                    .c_panel = PANEL_N,
                    .a = a,
                    .a_row = n_n,
                    .a_step = 1,
                    .b = b,
                    .n_j = n_n,
                    .accumulate = c->accumulate || n0 > 0,
                    .bf16 = true,
                };
                product(&p, n_m, least(PANEL_N, k - k0), tile_rows_along_j);
            }
        }
    bf16_end(scope);
}

void CPU_OP(linear_bf16_dx)(Tensor *dx, const Tensor *dy, const Tensor *w, bool accumulate)
{
    LinearCtx c = {dx, dy, w, accumulate};
    cpu_run(dx->dev, linear_dx_part, &c, work_ns(dy->dim[0], w->dim[0], w->dim[1]));
}

/* ---- dw = dy^T x ------------------------------------------------------------------------------- */

/* dst[m][lane] = dy[m0 + m, n0 + lane] rounded, lanes beyond N zero. */
static void pack_dy(real_t *dst, const Tensor *dy, int64_t m0, int64_t n_m, int64_t n0,
                    int64_t lanes)
{
    for (int64_t m = 0; m < n_m; m++) {
        const real_t *src = real_data(dy) + (m0 + m) * dy->stride + n0;
        for (int64_t lane = 0; lane < PANEL_N; lane++)
            dst[m * PANEL_N + lane] = lane < lanes ? bf16_round(src[lane]) : 0;
    }
}

static void linear_dw_part(int part, int n_parts, void *ctx)
{
    const LinearCtx *c = ctx; /* a = x, b = dy */
    int64_t n = c->dst->dim[0], k = c->dst->dim[1], n_m = c->a->dim[0], row[2], panel[2];
    grid(part, n_parts, k, panels_of(n), row, panel);
    int64_t rows = row[1] - row[0];
    if (rows == 0 || panel[0] == panel[1])
        return;
    real_t *b = device_scratch(c->dst->dev, part, DW_BLOCK * (PANEL_N + rows) * (int64_t)sizeof *b);
    real_t *a = b + DW_BLOCK * PANEL_N;
    Bf16Scope scope = bf16_begin();
    for (int64_t m = 0; m < n_m || m == 0; m += DW_BLOCK) {
        int64_t tokens = least(DW_BLOCK, n_m - m);
        round_rows(a, c->a, m, tokens, row[0], rows);
        for (int64_t q = panel[0]; q < panel[1]; q++) {
            int64_t n0 = q * PANEL_N, lanes = least(PANEL_N, n - n0);
            pack_dy(b, c->b, m, tokens, n0, lanes);
            Product p = {
                .c = real_data(c->dst) + (q * k + row[0]) * PANEL_N,
                .c_row = PANEL_N,
                .a = a,
                .a_row = 1,
                .a_step = rows,
                .b = b,
                .n_j = tokens,
                .accumulate = c->accumulate || m > 0,
                .bf16 = true,
            };
            product(&p, rows, lanes, tile_rows_along_i);
        }
    }
    bf16_end(scope);
}

void CPU_OP(linear_bf16_dw)(Tensor *dw, const Tensor *dy, const Tensor *x, bool accumulate)
{
    LinearCtx c = {dw, x, dy, accumulate};
    cpu_run(dw->dev, linear_dw_part, &c, work_ns(dy->dim[0], dw->dim[0], dw->dim[1]));
}
