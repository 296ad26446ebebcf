/* elementwise_bf16.cu - the ops of elementwise.cu with bf16 among their tensors: the same formulas in f32,
 * each result rounded once. Tested by tests/ops/elementwise_rows.c. */
#include "common/runtime/cuda/mixed.h"

#include "common/runtime/cpu/formula.h"

/* ---- y = a + b ------------------------------------------------------------------------------- */

SPAN_KERNEL add_mixed_kernel(Span s, Mixed y, Mixed a, Mixed b)
{
    SPAN_ROWS(r, s)
    {
        MIXED_WIDE(i, s)
        {
            float u[8], v[8];
            mixed_read8(u, &a, r * a.stride + i);
            mixed_read8(v, &b, r * b.stride + i);
#pragma unroll
            for (int e = 0; e < 8; e++)
                u[e] += v[e];
            mixed_write8(&y, r * y.stride + i, u);
        }
        SPAN_REST(i, s)
        mixed_write(&y, r * y.stride + i,
                    mixed_read(&a, r * a.stride + i) + mixed_read(&b, r * b.stride + i));
    }
}

void cuda_add__bf16(Tensor *y, const Tensor *a, const Tensor *b)
{
    const Tensor *all[] = {y, a, b};
    Span s = mixed_span(tensor_rows(y), tensor_cols(y), all, 3);
    SPAN_LAUNCH(add_mixed_kernel, s, y, mixed_of(y), mixed_of(a), mixed_of(b));
}

/* ---- SwiGLU ---------------------------------------------------------------------------------- */

SPAN_KERNEL swiglu_mixed_kernel(Span s, Mixed y, Mixed gate, Mixed up)
{
    SPAN_ROWS(r, s)
    {
        MIXED_WIDE(i, s)
        {
            float g[8], u[8];
            mixed_read8(g, &gate, r * gate.stride + i);
            mixed_read8(u, &up, r * up.stride + i);
#pragma unroll
            for (int e = 0; e < 8; e++)
                g[e] = formula_swiglu(g[e], u[e]);
            mixed_write8(&y, r * y.stride + i, g);
        }
        SPAN_REST(i, s)
        mixed_write(&y, r * y.stride + i,
                    formula_swiglu(mixed_read(&gate, r * gate.stride + i),
                                   mixed_read(&up, r * up.stride + i)));
    }
}

void cuda_swiglu__bf16(Tensor *y, const Tensor *gate, const Tensor *up)
{
    const Tensor *all[] = {y, gate, up};
    Span s = mixed_span(tensor_rows(y), tensor_cols(y), all, 3);
    SPAN_LAUNCH(swiglu_mixed_kernel, s, y, mixed_of(y), mixed_of(gate), mixed_of(up));
}

SPAN_KERNEL swiglu_backward_mixed_kernel(Span s, Mixed dgate, Mixed dup, Mixed dy, Mixed gate, Mixed up)
{
    SPAN_ROWS(r, s)
    {
        MIXED_WIDE(i, s)
        {
            float d[8], g[8], u[8];
            mixed_read8(d, &dy, r * dy.stride + i);
            mixed_read8(g, &gate, r * gate.stride + i);
            mixed_read8(u, &up, r * up.stride + i);
#pragma unroll
            for (int e = 0; e < 8; e++) {
                float a, b;
                formula_swiglu_backward(&a, &b, d[e], g[e], u[e]);
                g[e] = a;
                u[e] = b;
            }
            mixed_write8(&dgate, r * dgate.stride + i, g);
            mixed_write8(&dup, r * dup.stride + i, u);
        }
        SPAN_REST(i, s)
        {
            float a, b;
            formula_swiglu_backward(&a, &b, mixed_read(&dy, r * dy.stride + i),
                                    mixed_read(&gate, r * gate.stride + i),
                                    mixed_read(&up, r * up.stride + i));
            mixed_write(&dgate, r * dgate.stride + i, a);
            mixed_write(&dup, r * dup.stride + i, b);
        }
    }
}

void cuda_swiglu_backward__bf16(Tensor *dgate, Tensor *dup, const Tensor *dy, const Tensor *gate,
                                const Tensor *up)
{
    const Tensor *all[] = {dgate, dup, dy, gate, up};
    Span s = mixed_span(tensor_rows(dy), tensor_cols(dy), all, 5);
    SPAN_LAUNCH(swiglu_backward_mixed_kernel, s, dy, mixed_of(dgate), mixed_of(dup), mixed_of(dy),
                mixed_of(gate), mixed_of(up));
}

/* ---- RoPE: a thread per pair ----------------------------------------------------------------- */

SPAN_KERNEL rope_mixed_kernel(Span s, Mixed x, const int32_t *pos, const float *table,
                              int64_t table_stride, int half, float sign)
{
    SPAN_ROWS(t, s)
    {
        const float *cosine = table + pos[t] * table_stride;
        SPAN_REST(i, s) /* pair i of the row: d of head h */
        {
            const int h = (int)i / half, d = (int)i - h * half;
            const int64_t at = t * x.stride + i + (int64_t)h * half;
            float a = mixed_read(&x, at), b = mixed_read(&x, at + half);
            formula_rope(&a, &b, cosine[d], sign * cosine[half + d]);
            mixed_write(&x, at, a);
            mixed_write(&x, at + half, b);
        }
    }
}

void cuda_rope__bf16(Tensor *x, const Tensor *pos, const Tensor *table, int64_t head_dim, bool backward)
{
    Span s = {x->dim[0], x->dim[1] / 2, 0};
    SPAN_LAUNCH(rope_mixed_kernel, s, x, mixed_of(x), i32_data(pos), f32_data(table), table->stride,
                (int)(head_dim / 2), backward ? -1.0f : 1.0f);
}

/* ---- rows by index --------------------------------------------------------------------------- */

SPAN_KERNEL gather_mixed_kernel(Span s, Mixed y, Mixed x, const int32_t *rows)
{
    SPAN_ROWS(r, s)
    {
        const int64_t from = rows[r] * x.stride;
        MIXED_WIDE(i, s)
        {
            float v[8];
            mixed_read8(v, &x, from + i);
            mixed_write8(&y, r * y.stride + i, v);
        }
        SPAN_REST(i, s)
        mixed_write(&y, r * y.stride + i, mixed_read(&x, from + i));
    }
}

void cuda_gather_rows__bf16(Tensor *y, const Tensor *x, const Tensor *rows)
{
    const Tensor *all[] = {y, x};
    Span s = mixed_span(y->dim[0], y->dim[1], all, 2);
    if (x->stride % (x->dtype == DTYPE_BF16 ? 8 : 4)) /* one row of y may be any of x */
        s.wide = 0;
    SPAN_LAUNCH(gather_mixed_kernel, s, y, mixed_of(y), mixed_of(x), i32_data(rows));
}
