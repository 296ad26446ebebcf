/* ops.c - the public face of every op: checks shapes, dtypes, layouts and aliasing once for all
 * backends, then calls the device's body. Bodies therefore trust their arguments. A wrong argument
 * is our bug, so it is a CHECK that names the op, the argument and both shapes. Tested by every
 * test that runs an op, and by tests/unit/test_runtime.c for refusals. */
#include "common/runtime/ops.h"

#include "common/base/error.h"
#include "common/runtime/device.h"

enum { ANY = -1 };

/* `t`, argument `arg` of `op`, must be dtype, layout and (d0, d1) or, with d1 = 0, of rank 1; ANY
 * leaves a size open. A rank 1 tensor may also be given as a column (d0, 1). */
static void want(const char *op, const char *arg, const Tensor *t, DType dtype, Layout layout,
                 int64_t d0, int64_t d1)
{
    bool rank = d1 ? t->n_dims == 2 : t->n_dims == 1 || (t->n_dims == 2 && t->dim[1] == 1);
    bool ok = t->dtype == dtype && t->layout == layout && rank && t->dev &&
              (d0 == ANY || t->dim[0] == d0) && (d1 == ANY || d1 == 0 || t->dim[1] == d1);
    const char *kind = layout == LAYOUT_PANEL ? "panel" : "rows";
    if (d1)
        CHECK(ok, "op_%s: %s is %s, expected %s %s (%lld, %lld), -1: any", op, arg, tensor_text(t),
              dtype_name(dtype), kind, (long long)d0, (long long)d1);
    CHECK(ok, "op_%s: %s is %s, expected %s %s (%lld), -1: any", op, arg, tensor_text(t),
          dtype_name(dtype), kind, (long long)d0);
    CHECK(t->layout != LAYOUT_ROWS || t->n_dims < 2 || t->stride >= t->dim[1], "op_%s: %s is %s",
          op, arg, tensor_text(t));
    CHECK(d1 || t->n_dims < 2 || t->stride == 1, "op_%s: %s is %s, expected dense", op, arg,
          tensor_text(t));
    CHECK(t->data || tensor_len(t) == 0, "op_%s: %s is %s without memory", op, arg, tensor_text(t));
}

static void want_rows(const char *op, const char *arg, const Tensor *t, int64_t d0, int64_t d1)
{
    want(op, arg, t, DTYPE_REAL, LAYOUT_ROWS, d0, d1 ? d1 : ANY);
}

/* What an activation may be: real, or bf16 on a device that can. */
static DType acts_dtype(const Tensor *t)
{
    return t->dtype == DTYPE_BF16 && t->dev && device_can_bf16(t->dev) ? DTYPE_BF16 : DTYPE_REAL;
}

static void want_acts(const char *op, const char *arg, const Tensor *t, DType dtype, int64_t d0,
                      int64_t d1)
{
    want(op, arg, t, dtype, LAYOUT_ROWS, d0, d1);
}

static void want_vec(const char *op, const char *arg, const Tensor *t, int64_t n)
{
    want(op, arg, t, DTYPE_REAL, LAYOUT_ROWS, n, 0);
}

static void want_i32(const char *op, const char *arg, const Tensor *t, int64_t n)
{
    want(op, arg, t, DTYPE_I32, LAYOUT_ROWS, n, 0);
}

static void want_panel(const char *op, const char *arg, const Tensor *t, int64_t n, int64_t k)
{
    want(op, arg, t, DTYPE_REAL, LAYOUT_PANEL, n, k ? k : ANY);
}

/* A weight as products read it: real, or a bf16 panel, which is the CPU's. */
static void want_weight(const char *op, const Tensor *t, int64_t n, int64_t k)
{
    CHECK(t->dtype != DTYPE_BF16 || !t->dev || device_kind(t->dev) == DEVICE_CPU,
          "op_%s: w is %s, on a card expected bf16 rows", op, tensor_text(t));
    want(op, "w", t, t->dtype == DTYPE_BF16 ? DTYPE_BF16 : DTYPE_REAL, LAYOUT_PANEL, n, k);
}

/* Values of an index tensor are in [from, below); looked at where the host can read them. */
static void want_between(const char *op, const char *arg, const Tensor *t, int from, int64_t below)
{
    if (device_kind(t->dev) != DEVICE_CPU)
        return;
    const int32_t *id = t->data;
    for (int64_t i = 0, n = tensor_len(t); i < n; i++)
        CHECK(id[i] >= from && id[i] < below, "op_%s: %s[%lld] is %d, not in [%d, %lld)", op, arg,
              (long long)i, (int)id[i], from, (long long)below);
}

static void want_below(const char *op, const char *arg, const Tensor *t, int64_t below)
{
    want_between(op, arg, t, 0, below);
}

/* starts: i32 (S + 1) from 0 to n_tokens, not descending; looked at where the host can read them. */
static void want_starts(const char *op, const Tensor *starts, int64_t n_tokens)
{
    want_i32(op, "starts", starts, ANY);
    if (device_kind(starts->dev) != DEVICE_CPU)
        return;
    const int32_t *s = starts->data;
    int64_t n = tensor_len(starts);
    CHECK(n >= 1 && s[0] == 0 && s[n - 1] == n_tokens,
          "op_%s: starts of %lld entries do not run from 0 to %lld", op, (long long)n,
          (long long)n_tokens);
    for (int64_t i = 0; i + 1 < n; i++)
        CHECK(s[i] <= s[i + 1], "op_%s: starts[%lld] = %d, starts[%lld] = %d", op, (long long)i,
              (int)s[i], (long long)i + 1, (int)s[i + 1]);
}

static void want_same(const char *op, const char *arg, const Tensor *t, const Tensor *like)
{
    bool dense = t->layout != LAYOUT_ROWS || t->n_dims < 2 || t->stride == tensor_cols(t);
    CHECK(tensor_same_shape(t, like) && t->dtype == like->dtype && t->layout == like->layout &&
              (t->data || tensor_len(t) == 0),
          "op_%s: %s is %s, expected %s", op, arg, tensor_text(t), tensor_text(like));
    CHECK(dense || t->n_dims == 2, "op_%s: %s is %s, expected dense or of rank 2", op, arg,
          tensor_text(t));
}

static void want_dense(const char *op, const char *arg, const Tensor *t)
{
    CHECK(t->layout != LAYOUT_ROWS || t->n_dims < 2 || t->stride == tensor_cols(t),
          "op_%s: %s is %s, expected dense", op, arg, tensor_text(t));
}

static void want_apart(const char *op, const Tensor *dst, const Tensor *src)
{
    CHECK(dst->data != src->data || !dst->data, "op_%s: %s and %s share memory", op,
          tensor_text(dst), tensor_text(src));
}

#define RUN(name, first, ...) device_ops((first)->dev)->name(first, __VA_ARGS__)

/* ---- linear layers -----------------------------------------------------------------------------
 */

/* Whether w (a weight, or its gradient) is one of a device's bf16 products: ROWS instead of a panel. */
static bool is_rows_product(const Tensor *w)
{
    return w->layout == LAYOUT_ROWS && w->dev && device_can_bf16(w->dev);
}

/* bf16 or f32 ROWS (d0, d1). */
static void want_half(const char *op, const char *arg, const Tensor *t, int64_t d0, int64_t d1)
{
    want(op, arg, t, t->dtype == DTYPE_BF16 ? DTYPE_BF16 : DTYPE_REAL, LAYOUT_ROWS, d0, d1);
}

/* c (+)= the product of a, which has `rows`, and w, (n, k): of bf16 ROWS. */
static void want_bf16(const char *op, const char *arg_c, const Tensor *c, int64_t c_cols,
                      const char *arg_a, const Tensor *a, int64_t a_cols, const Tensor *w)
{
    want(op, "w", w, DTYPE_BF16, LAYOUT_ROWS, ANY, ANY);
    want_half(op, arg_a, a, ANY, a_cols);
    want_half(op, arg_c, c, a->dim[0], c_cols);
    want_apart(op, c, a);
}

void op_linear(Tensor *y, const Tensor *x, const Tensor *w, bool accumulate)
{
    if (is_rows_product(w)) {
        want_bf16("linear", "y", y, w->dim[0], "x", x, w->dim[1], w);
        RUN(linear, y, x, w, accumulate);
        return;
    }
    want_rows("linear", "x", x, ANY, ANY);
    want_weight("linear", w, ANY, x->dim[1]);
    want_rows("linear", "y", y, x->dim[0], w->dim[0]);
    want_apart("linear", y, x);
    RUN(linear, y, x, w, accumulate);
}

void op_linear_dx(Tensor *dx, const Tensor *dy, const Tensor *w, bool accumulate)
{
    if (is_rows_product(w)) {
        want_bf16("linear_dx", "dx", dx, w->dim[1], "dy", dy, w->dim[0], w);
        RUN(linear_dx, dx, dy, w, accumulate);
        return;
    }
    want_rows("linear_dx", "dy", dy, ANY, ANY);
    want_weight("linear_dx", w, dy->dim[1], ANY);
    want_rows("linear_dx", "dx", dx, dy->dim[0], w->dim[1]);
    want_apart("linear_dx", dx, dy);
    RUN(linear_dx, dx, dy, w, accumulate);
}

void op_linear_dw(Tensor *dw, const Tensor *dy, const Tensor *x, DType operands, bool accumulate)
{
    if (is_rows_product(dw)) {
        want_half("linear_dw", "dy", dy, ANY, ANY);
        want_half("linear_dw", "x", x, dy->dim[0], ANY);
        want("linear_dw", "dw", dw, DTYPE_REAL, LAYOUT_ROWS, dy->dim[1], x->dim[1]);
        CHECK(operands == DTYPE_BF16, "op_linear_dw: dw is %s, operands are %s", tensor_text(dw),
              dtype_name(operands));
        RUN(linear_dw, dw, dy, x, operands, accumulate);
        return;
    }
    want_rows("linear_dw", "dy", dy, ANY, ANY);
    want_rows("linear_dw", "x", x, dy->dim[0], ANY);
    want_panel("linear_dw", "dw", dw, dy->dim[1], x->dim[1]);
    CHECK(operands == DTYPE_REAL || (operands == DTYPE_BF16 && device_kind(dw->dev) == DEVICE_CPU),
          "op_linear_dw: dw is %s, operands are %s", tensor_text(dw), dtype_name(operands));
    RUN(linear_dw, dw, dy, x, operands, accumulate);
}

/* ---- embedding
 * ----------------------------------------------------------------------------------- */

void op_embedding(Tensor *y, const Tensor *ids, const Tensor *w)
{
    want("embedding", "w", w, w->dtype == DTYPE_BF16 ? DTYPE_BF16 : DTYPE_REAL,
         w->layout == LAYOUT_PANEL ? LAYOUT_PANEL : LAYOUT_ROWS, ANY, ANY);
    want_i32("embedding", "ids", ids, ANY);
    want_rows("embedding", "y", y, ids->dim[0], w->dim[1]);
    want_below("embedding", "ids", ids, w->dim[0]);
    RUN(embedding, y, ids, w);
}

void op_embedding_backward(Tensor *dw, const Tensor *dy, const Tensor *ids)
{
    want_rows("embedding_backward", "dw", dw, ANY, ANY);
    want_i32("embedding_backward", "ids", ids, ANY);
    want_rows("embedding_backward", "dy", dy, ids->dim[0], dw->dim[1]);
    want_below("embedding_backward", "ids", ids, dw->dim[0]);
    RUN(embedding_backward, dw, dy, ids);
}

/* ---- norms
 * --------------------------------------------------------------------------------------- */

void op_rmsnorm(Tensor *y, Tensor *rstd, const Tensor *x, const Tensor *w, double eps)
{
    want_acts("rmsnorm", "x", x, acts_dtype(x), ANY, ANY);
    want_acts("rmsnorm", "y", y, acts_dtype(y), x->dim[0], x->dim[1]);
    want_vec("rmsnorm", "w", w, x->dim[1]);
    want_vec("rmsnorm", "rstd", rstd, x->dim[0]);
    RUN(rmsnorm, y, rstd, x, w, eps);
}

void op_rmsnorm_backward(Tensor *dx, Tensor *dw, const Tensor *dy, const Tensor *x, const Tensor *w,
                         const Tensor *rstd, const Tensor *starts, int64_t per_token)
{
    want_acts("rmsnorm_backward", "x", x, acts_dtype(x), ANY, ANY);
    want_acts("rmsnorm_backward", "dx", dx, acts_dtype(dx), x->dim[0], x->dim[1]);
    want_acts("rmsnorm_backward", "dy", dy, acts_dtype(dy), x->dim[0], x->dim[1]);
    want_vec("rmsnorm_backward", "w", w, x->dim[1]);
    want_vec("rmsnorm_backward", "rstd", rstd, x->dim[0]);
    if (dw->n_dims)
        want_vec("rmsnorm_backward", "dw", dw, x->dim[1]);
    CHECK(per_token > 0 && x->dim[0] % per_token == 0, "op_rmsnorm_backward: %lld rows, %lld a token",
          (long long)x->dim[0], (long long)per_token);
    want_starts("rmsnorm_backward", starts, x->dim[0] / per_token);
    RUN(rmsnorm_backward, dx, dw, dy, x, w, rstd, starts, per_token);
}

/* ---- elementwise
 * ----------------------------------------------------------------------------------- */

static void want_real(const char *op, const char *arg, const Tensor *t)
{
    CHECK(t->dtype == DTYPE_REAL && t->dev, "op_%s: %s is %s, expected %s", op, arg, tensor_text(t),
          dtype_name(DTYPE_REAL));
    want_same(op, arg, t, t);
}

void op_bias(Tensor *y, const Tensor *b)
{
    want_acts("bias", "y", y, acts_dtype(y), ANY, ANY);
    want_vec("bias", "b", b, y->dim[1]);
    RUN(bias, y, b);
}

void op_bias_backward(Tensor *db, const Tensor *dy, const Tensor *starts)
{
    want_acts("bias_backward", "dy", dy, acts_dtype(dy), ANY, ANY);
    want_vec("bias_backward", "db", db, dy->dim[1]);
    want_starts("bias_backward", starts, dy->dim[0]);
    RUN(bias_backward, db, dy, starts);
}

void op_add(Tensor *y, const Tensor *a, const Tensor *b)
{
    want_real("add", "y", y);
    CHECK(y->layout == LAYOUT_ROWS, "op_add: y is %s, expected rows", tensor_text(y));
    want_same("add", "a", a, y);
    if (b->dtype == DTYPE_BF16)
        want_acts("add", "b", b, acts_dtype(b), y->dim[0], tensor_cols(y));
    else
        want_same("add", "b", b, y);
    RUN(add, y, a, b);
}

void op_swiglu(Tensor *y, const Tensor *gate, const Tensor *up)
{
    want_acts("swiglu", "y", y, acts_dtype(y), ANY, ANY);
    want_same("swiglu", "gate", gate, y);
    want_same("swiglu", "up", up, y);
    want_apart("swiglu", y, gate);
    want_apart("swiglu", y, up);
    RUN(swiglu, y, gate, up);
}

void op_swiglu_backward(Tensor *dgate, Tensor *dup, const Tensor *dy, const Tensor *gate,
                        const Tensor *up)
{
    want_acts("swiglu_backward", "dy", dy, acts_dtype(dy), ANY, ANY);
    want_same("swiglu_backward", "gate", gate, dy);
    want_same("swiglu_backward", "up", up, dy);
    want_same("swiglu_backward", "dgate", dgate, dy);
    want_same("swiglu_backward", "dup", dup, dy);
    want_apart("swiglu_backward", dgate, dup);
    RUN(swiglu_backward, dgate, dup, dy, gate, up);
}

void op_rope(Tensor *x, const Tensor *pos, const Tensor *table, int64_t head_dim, bool backward)
{
    want_acts("rope", "x", x, acts_dtype(x), ANY, ANY);
    want_rows("rope", "table", table, ANY, head_dim);
    want_i32("rope", "pos", pos, x->dim[0]);
    CHECK(head_dim > 0 && head_dim % 2 == 0 && x->dim[1] % head_dim == 0,
          "op_rope: x is %s, which is not whole heads of %lld", tensor_text(x),
          (long long)head_dim);
    want_below("rope", "pos", pos, table->dim[0]);
    RUN(rope, x, pos, table, head_dim, backward);
}

/* Dims and memory, whatever the dtype and layout: op_convert, op_axpy, op_fill. */
static void want_any(const char *op, const char *arg, const Tensor *t, const Tensor *like)
{
    CHECK(t->dev && tensor_same_shape(t, like) && (t->data || tensor_len(t) == 0),
          "op_%s: %s is %s, expected dims as %s", op, arg, tensor_text(t), tensor_text(like));
    want_same(op, arg, t, t);
    CHECK(t->layout == like->layout ||
              (t->n_dims == 2 && t->layout != LAYOUT_KV_PAGE && like->layout != LAYOUT_KV_PAGE),
          "op_%s: %s is %s, the other %s", op, arg, tensor_text(t), tensor_text(like));
}

void op_convert(Tensor *y, const Tensor *x)
{
    want_any("convert", "y", y, y);
    want_any("convert", "x", x, y);
    want_apart("convert", y, x);
    CHECK(y->dtype == x->dtype || (y->dtype <= DTYPE_F64 && x->dtype <= DTYPE_F64),
          "op_convert: %s from %s", tensor_text(y), tensor_text(x));
    RUN(convert, y, x);
}

void op_axpy(Tensor *y, double a, const Tensor *x, bool accumulate)
{
    want_real("axpy", "y", y);
    want_real("axpy", "x", x);
    want_any("axpy", "x", x, y);
    RUN(axpy, y, a, x, accumulate);
}

void op_fill(Tensor *y, double value)
{
    want_any("fill", "y", y, y);
    CHECK(value == 0 || y->layout != LAYOUT_PANEL || y->dtype != DTYPE_BF16, "op_fill: %s with %g",
          tensor_text(y), value); /* padding is between its elements, and no one fills it */
    RUN(fill, y, value);
}

void op_gather_rows(Tensor *y, const Tensor *x, const Tensor *rows)
{
    want_acts("gather_rows", "x", x, acts_dtype(x), ANY, ANY);
    want_i32("gather_rows", "rows", rows, ANY);
    want_acts("gather_rows", "y", y, acts_dtype(y), rows->dim[0], x->dim[1]);
    want_below("gather_rows", "rows", rows, x->dim[0]);
    want_apart("gather_rows", y, x);
    RUN(gather_rows, y, x, rows);
}

void op_scatter_rows(Tensor *y, const Tensor *x, const Tensor *rows)
{
    want_rows("scatter_rows", "y", y, ANY, ANY);
    want_i32("scatter_rows", "rows", rows, ANY);
    want_acts("scatter_rows", "x", x, acts_dtype(x), rows->dim[0], y->dim[1]);
    want_below("scatter_rows", "rows", rows, y->dim[0]);
    want_apart("scatter_rows", y, x);
    RUN(scatter_rows, y, x, rows);
}

/* ---- attention
 * ------------------------------------------------------------------------------------- */

/* q like (T, H * D), k and v (T', K * D) with H a multiple of K. */
static void want_heads(const char *op, const Tensor *q, DType dtype, int64_t kv_width,
                       int64_t head_dim)
{
    want_acts(op, "q", q, dtype, ANY, ANY);
    CHECK(head_dim > 0 && kv_width > 0 && q->dim[1] % head_dim == 0 && kv_width % head_dim == 0 &&
              q->dim[1] % kv_width == 0,
          "op_%s: q is %s, keys are %lld wide: not whole groups of heads of %lld", op,
          tensor_text(q), (long long)kv_width, (long long)head_dim);
}

void op_attention(Tensor *o, Tensor *lse, const Tensor *q, const Tensor *k, const Tensor *v,
                  const Tensor *starts, int64_t head_dim, double scale)
{
    const DType dtype = acts_dtype(q);
    want_acts("attention", "k", k, dtype, ANY, ANY);
    want_heads("attention", q, dtype, k->dim[1], head_dim);
    want_acts("attention", "k", k, dtype, q->dim[0], k->dim[1]);
    want_acts("attention", "v", v, dtype, q->dim[0], k->dim[1]);
    want_acts("attention", "o", o, dtype, q->dim[0], q->dim[1]);
    want_rows("attention", "lse", lse, q->dim[0], q->dim[1] / head_dim);
    want_apart("attention", o, q);
    want_starts("attention", starts, q->dim[0]);
    RUN(attention, o, lse, q, k, v, starts, head_dim, scale);
}

void op_attention_backward(Tensor *dq, Tensor *dk, Tensor *dv, Tensor *delta, const Tensor *d_o,
                           const Tensor *o, const Tensor *lse, const Tensor *q, const Tensor *k,
                           const Tensor *v, const Tensor *starts, int64_t head_dim, double scale)
{
    const char *op = "attention_backward";
    const DType dtype = acts_dtype(q);
    want_acts(op, "k", k, dtype, ANY, ANY);
    want_heads(op, q, dtype, k->dim[1], head_dim);
    int64_t n = q->dim[0], width = q->dim[1], kv_width = k->dim[1];
    want_acts(op, "k", k, dtype, n, kv_width);
    want_acts(op, "v", v, dtype, n, kv_width);
    want_acts(op, "dk", dk, dtype, n, kv_width);
    want_acts(op, "dv", dv, dtype, n, kv_width);
    want_acts(op, "dq", dq, dtype, n, width);
    want_acts(op, "o", o, dtype, n, width);
    want_acts(op, "d_o", d_o, dtype, n, width);
    want_rows(op, "lse", lse, n, width / head_dim);
    want_rows(op, "delta", delta, n, width / head_dim);
    want_apart(op, dq, q);
    want_apart(op, dk, k);
    want_apart(op, dv, v);
    want_starts(op, starts, n);
    RUN(attention_backward, dq, dk, dv, delta, d_o, o, lse, q, k, v, starts, head_dim, scale);
}

/* k_pages (P, K, D, KV_TILE), v_pages (P, K, KV_TILE, D). */
static void want_kv(const char *op, const Tensor *k_pages, const Tensor *v_pages)
{
    const Tensor *page[] = {k_pages, v_pages};
    for (int i = 0; i < 2; i++)
        CHECK(page[i]->dtype == acts_dtype(k_pages) && page[i]->layout == LAYOUT_KV_PAGE &&
                  page[i]->n_dims == 4 && page[i]->dim[3 - i] == KV_TILE &&
                  page[i]->dim[0] == k_pages->dim[0] && page[i]->dim[1] == k_pages->dim[1] &&
                  page[i]->dim[2 + i] == k_pages->dim[2],
              "op_%s: %s is %s, k_pages is %s", op, i ? "v_pages" : "k_pages", tensor_text(page[i]),
              tensor_text(k_pages));
}

/* Pages with page_table i32 (S, max pages); every row's slot, position and page exist. */
static void want_pages(const char *op, const Tensor *k_pages, const Tensor *v_pages,
                       const Tensor *page_table, const Tensor *row_seq, const Tensor *row_pos)
{
    want_kv(op, k_pages, v_pages);
    want(op, "page_table", page_table, DTYPE_I32, LAYOUT_ROWS, ANY, ANY);
    want_i32(op, "row_seq", row_seq, ANY);
    want_i32(op, "row_pos", row_pos, row_seq->dim[0]);
    want_between(op, "row_seq", row_seq, -1, page_table->dim[0]);
    want_below(op, "row_pos", row_pos, page_table->dim[1] * KV_TILE);
    if (device_kind(page_table->dev) != DEVICE_CPU)
        return;
    const int32_t *table = page_table->data, *seq = row_seq->data, *pos = row_pos->data;
    for (int64_t r = 0; r < row_seq->dim[0]; r++)
        for (int64_t i = 0; seq[r] >= 0 && i <= pos[r] / KV_TILE; i++) {
            int64_t at = table[seq[r] * page_table->stride + i];
            CHECK(at >= 0 && at < k_pages->dim[0],
                  "op_%s: page %lld of slot %d is %lld, there are %lld pages", op, (long long)i,
                  (int)seq[r], (long long)at, (long long)k_pages->dim[0]);
        }
}

void op_kv_write(Tensor *k_pages, Tensor *v_pages, const Tensor *k, const Tensor *v,
                 const Tensor *page_table, const Tensor *row_seq, const Tensor *row_pos)
{
    want_pages("kv_write", k_pages, v_pages, page_table, row_seq, row_pos);
    const int64_t width = k_pages->dim[1] * k_pages->dim[2];
    want_acts("kv_write", "k", k, k_pages->dtype, row_seq->dim[0], width);
    want_acts("kv_write", "v", v, k_pages->dtype, row_seq->dim[0], width);
    RUN(kv_write, k_pages, v_pages, k, v, page_table, row_seq, row_pos);
}

void op_kv_copy(Tensor *k_pages, Tensor *v_pages, const Tensor *pairs)
{
    want_kv("kv_copy", k_pages, v_pages);
    want("kv_copy", "pairs", pairs, DTYPE_I32, LAYOUT_ROWS, ANY, 2);
    want_dense("kv_copy", "pairs", pairs);
    want_below("kv_copy", "pairs", pairs, k_pages->dim[0]);
    const int32_t *p = pairs->data;
    int64_t n = device_kind(pairs->dev) == DEVICE_CPU ? pairs->dim[0] : 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            CHECK(p[2 * i + 1] != p[2 * j] && (i == j || p[2 * i + 1] != p[2 * j + 1]),
                  "op_kv_copy: page %d, written by pair %lld, is also in pair %lld", p[2 * i + 1],
                  (long long)i, (long long)j);
    RUN(kv_copy, k_pages, v_pages, pairs);
}

void op_attention_paged(Tensor *o, const Tensor *q, const Tensor *k_pages, const Tensor *v_pages,
                        const Tensor *page_table, const Tensor *row_seq, const Tensor *row_pos,
                        int64_t head_dim, double scale)
{
    want_pages("attention_paged", k_pages, v_pages, page_table, row_seq, row_pos);
    CHECK(k_pages->dim[2] == head_dim, "op_attention_paged: heads of %lld, k_pages is %s",
          (long long)head_dim, tensor_text(k_pages));
    want_heads("attention_paged", q, k_pages->dtype, k_pages->dim[1] * head_dim, head_dim);
    want_acts("attention_paged", "q", q, k_pages->dtype, row_seq->dim[0], q->dim[1]);
    want_acts("attention_paged", "o", o, k_pages->dtype, q->dim[0], q->dim[1]);
    want_apart("attention_paged", o, q);
    RUN(attention_paged, o, q, k_pages, v_pages, page_table, row_seq, row_pos, head_dim, scale);
}

/* ---- vocabulary rows
 * --------------------------------------------------------------------------------- */

void op_logprob(Tensor *logp, Tensor *lse, Tensor *entropy, Tensor *hit, const Tensor *logits,
                const Tensor *targets, double inv_temp)
{
    want_rows("logprob", "logits", logits, ANY, ANY);
    want_vec("logprob", "logp", logp, logits->dim[0]);
    want_vec("logprob", "lse", lse, logits->dim[0]);
    want_vec("logprob", "entropy", entropy, logits->dim[0]);
    want_vec("logprob", "hit", hit, logits->dim[0]);
    want_i32("logprob", "targets", targets, logits->dim[0]);
    want_below("logprob", "targets", targets, logits->dim[1]);
    RUN(logprob, logp, lse, entropy, hit, logits, targets, inv_temp);
}

void op_logprob_backward(Tensor *logits, const Tensor *dlogp, const Tensor *lse,
                         const Tensor *targets, double inv_temp)
{
    want_rows("logprob_backward", "logits", logits, ANY, ANY);
    want_vec("logprob_backward", "dlogp", dlogp, logits->dim[0]);
    want_vec("logprob_backward", "lse", lse, logits->dim[0]);
    want_i32("logprob_backward", "targets", targets, logits->dim[0]);
    want_below("logprob_backward", "targets", targets, logits->dim[1]);
    RUN(logprob_backward, logits, dlogp, lse, targets, inv_temp);
}

void op_sample(Tensor *ids, Tensor *logp, const Tensor *logits, const Tensor *keys,
               const Tensor *inv_temp)
{
    want_rows("sample", "logits", logits, ANY, ANY);
    want_i32("sample", "ids", ids, logits->dim[0]);
    want_vec("sample", "logp", logp, logits->dim[0]);
    want("sample", "keys", keys, DTYPE_I32, LAYOUT_ROWS, logits->dim[0], 6);
    want_vec("sample", "inv_temp", inv_temp, logits->dim[0]);
    CHECK(logits->dim[1] > 0 || logits->dim[0] == 0, "op_sample: logits is %s",
          tensor_text(logits));
    RUN(sample, ids, logp, logits, keys, inv_temp);
}

/* ---- losses
 * ------------------------------------------------------------------------------------------- */

void op_xent_loss(Tensor *loss, Tensor *dlogp, const Tensor *logp, const Tensor *weight)
{
    want_vec("xent_loss", "loss", loss, ANY);
    want_vec("xent_loss", "dlogp", dlogp, loss->dim[0]);
    want_vec("xent_loss", "logp", logp, loss->dim[0]);
    want_vec("xent_loss", "weight", weight, loss->dim[0]);
    RUN(xent_loss, loss, dlogp, logp, weight);
}

void op_rank_loss(Tensor *loss, Tensor *dscores, const Tensor *scores, const Tensor *margin,
                  const Tensor *weight)
{
    want_vec("rank_loss", "loss", loss, ANY);
    want_vec("rank_loss", "scores", scores, 2 * loss->dim[0]);
    want_vec("rank_loss", "dscores", dscores, 2 * loss->dim[0]);
    want_vec("rank_loss", "margin", margin, loss->dim[0]);
    want_vec("rank_loss", "weight", weight, loss->dim[0]);
    want_apart("rank_loss", dscores, scores);
    RUN(rank_loss, loss, dscores, scores, margin, weight);
}

void op_bce_loss(Tensor *loss, Tensor *dscores, const Tensor *scores, const Tensor *labels,
                 const Tensor *weight)
{
    want_vec("bce_loss", "loss", loss, ANY);
    want_vec("bce_loss", "scores", scores, loss->dim[0]);
    want_vec("bce_loss", "dscores", dscores, loss->dim[0]);
    want_vec("bce_loss", "labels", labels, loss->dim[0]);
    want_vec("bce_loss", "weight", weight, loss->dim[0]);
    want_apart("bce_loss", dscores, scores);
    RUN(bce_loss, loss, dscores, scores, labels, weight);
}

void op_policy_loss(Tensor *loss, Tensor *dlogp, Tensor *ratio, const Tensor *logp,
                    const Tensor *old_logp, const Tensor *adv, const Tensor *weight, double clip)
{
    want_vec("policy_loss", "loss", loss, ANY);
    want_vec("policy_loss", "dlogp", dlogp, loss->dim[0]);
    want_vec("policy_loss", "ratio", ratio, loss->dim[0]);
    want_vec("policy_loss", "logp", logp, loss->dim[0]);
    want_vec("policy_loss", "old_logp", old_logp, loss->dim[0]);
    want_vec("policy_loss", "adv", adv, loss->dim[0]);
    want_vec("policy_loss", "weight", weight, loss->dim[0]);
    RUN(policy_loss, loss, dlogp, ratio, logp, old_logp, adv, weight, clip);
}

void op_value_loss(Tensor *loss, Tensor *dvalue, const Tensor *value, const Tensor *old_value,
                   const Tensor *ret, const Tensor *weight, double clip)
{
    want_vec("value_loss", "loss", loss, ANY);
    want_vec("value_loss", "dvalue", dvalue, loss->dim[0]);
    want_vec("value_loss", "value", value, loss->dim[0]);
    want_vec("value_loss", "old_value", old_value, loss->dim[0]);
    want_vec("value_loss", "ret", ret, loss->dim[0]);
    want_vec("value_loss", "weight", weight, loss->dim[0]);
    RUN(value_loss, loss, dvalue, value, old_value, ret, weight, clip);
}

/* ---- optimizer
 * ------------------------------------------------------------------------------------------ */

void op_sumsq(Tensor *partial, const Tensor *x)
{
    want_real("sumsq", "x", x);
    want_dense("sumsq", "x", x);
    want("sumsq", "partial", partial, DTYPE_F64, LAYOUT_ROWS,
         (tensor_slots(x) + SUMSQ_BLOCK - 1) / SUMSQ_BLOCK, 0);
    RUN(sumsq, partial, x);
}

void op_adamw(Tensor *w, Tensor *m, Tensor *v, Tensor *copy, const Tensor *grad, AdamwArgs args)
{
    want_real("adamw", "w", w);
    want_same("adamw", "m", m, w);
    want_same("adamw", "v", v, w);
    want_same("adamw", "grad", grad, w);
    want_dense("adamw", "w", w);
    want_dense("adamw", "m", m);
    want_dense("adamw", "v", v);
    want_dense("adamw", "grad", grad);
    CHECK(args.step >= 1, "op_adamw: step %lld, the first update is 1", (long long)args.step);
    if (copy) {
        CHECK(copy->dtype == DTYPE_BF16, "op_adamw: copy is %s, expected bf16", tensor_text(copy));
        want_any("adamw", "copy", copy, w);
        want_dense("adamw", "copy", copy);
        CHECK(copy->layout == w->layout, "op_adamw: copy is %s of %s", tensor_text(copy),
              tensor_text(w));
    }
    RUN(adamw, w, m, v, copy, grad, args);
}
