/* linear.c - the three products of a linear layer over the tile of linear_tile.h: b is a weight
 * panel (forward), a panel of the transposed weight packed on the fly (dx), or a panel of dy with the
 * weight's rows as i (dw). Tested by tests/ops/linear.c. */
#include "common/runtime/cpu/linear_tile.h"

#include <string.h>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

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
    if (w->dtype == DTYPE_BF16) {
        CPU_OP(linear_bf16)(y, x, w, accumulate);
        return;
    }
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
    if (w->dtype == DTYPE_BF16) {
        CPU_OP(linear_bf16_dx)(dx, dy, w, accumulate);
        return;
    }
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
    if (operands == DTYPE_BF16) {
        CPU_OP(linear_bf16_dw)(dw, dy, x, accumulate);
        return;
    }
    LinearCtx c = {dw, x, dy, accumulate};
    cpu_run(dw->dev, linear_dw_part, &c, work_ns(dy->dim[0], dw->dim[0], dw->dim[1]));
}
