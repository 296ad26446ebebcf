/* norm.c - RMSNorm: widths around the 32 lanes, packings of sequences, y over x. */
#include "tests/ops/test_ops.h"

#include <math.h>
#include <string.h>

typedef struct {
    int t, c;
} Shape;
/* The last: rows around the shared memory of a GPU's block, of one tensor and of two. */
static const Shape shapes[] = {{1, 1},     {3, 31},   {7, 32},   {66, 33},   {130, 64},
                               {200, 288}, {5, 1000}, {3, 6000}, {2, 12000}, {2, 12300}};
static const Shape grad_shapes[] = {{2, 3}, {5, 33}, {70, 4}};
static const Shape perf_shapes[] = {{1, 288}, {64, 288}, {1024, 96}, {1024, 512}};

static bool pick(const Case *c, int variant, Shape *s)
{
    const Shape *from = case_perf(c) ? perf_shapes : case_grad(c) ? grad_shapes : shapes;
    size_t n = case_perf(c)   ? sizeof perf_shapes / sizeof *from
               : case_grad(c) ? sizeof grad_shapes / sizeof *from
                              : sizeof shapes / sizeof *from;
    if ((size_t)variant >= n)
        return false;
    *s = from[variant];
    return true;
}

/* Two sequences, the second from a third of the tokens on. */
static Tensor two_sequences(Case *c, int t)
{
    return case_i32(c, "starts", (int32_t[]){0, t / 3, t}, 3);
}

bool test_rmsnorm(Case *c, int variant)
{
    Shape s;
    if (!pick(c, variant / 2, &s))
        return elementwise_rows(c, ROWS_RMSNORM, variant - (int)(2 * (sizeof shapes / sizeof *shapes)));
    Tensor x =
        case_strided(c, "x", s.t, s.c, variant == 2 && !case_grad(c) ? FILL_EXTREME : FILL_NORMAL);
    Tensor w = case_rows(c, "w", s.c, 0, FILL_NORMAL),
           rstd = case_rows(c, "rstd", s.t, 0, FILL_ZERO);
    Tensor copy = case_rows(c, "copy", s.t, s.c, FILL_ZERO);
    op_convert(&copy, &x);
    bool in_place = variant % 2 && !case_perf(c);
    Tensor y = in_place ? x : case_rows(c, "y", s.t, s.c, FILL_ZERO);
    CASE_RUN(c)
    op_rmsnorm(&y, &rstd, &x, &w, 1e-5);
    case_flops(c, 4.0 * s.t * s.c, 2.0 * sizeof(real_t) * s.t * s.c);
    case_output(c, "y", &y);
    case_output(c, "rstd", &rstd);
    case_loss(c, &y);
    if (!case_grad(c) || case_forward_only(c))
        return true;
    Tensor dy = case_rows(c, "dy", s.t, s.c, FILL_ZERO),
           dx = case_rows(c, "dx", s.t, s.c, FILL_ZERO);
    Tensor dw = case_rows(c, "dw", s.c, 0, FILL_ZERO), starts = two_sequences(c, s.t);
    case_dy(c, &y, &dy);
    op_rmsnorm_backward(&dx, &dw, &dy, &copy, &w, &rstd, &starts, 1);
    case_check(c, "dx", &x, &dx);
    case_check(c, "dw", &w, &dw);
    return true;
}

/* Empty sequences before, between and after others add nothing to dw; there are more of them than a
 * GPU sums at once. */
static void empty_sequences(Case *c)
{
    enum { S = 1100, AT = 1050, T = 70, C = 3 };
    int32_t offset[S + 1] = {0};
    for (int i = AT; i <= S; i++)
        offset[i] = i < S - 2 ? 67 : T;
    Tensor starts = case_i32(c, "starts", offset, S + 1);
    Tensor x = case_rows(c, "x", T, C, FILL_NORMAL), dy = case_rows(c, "dy", T, C, FILL_NORMAL);
    Tensor w = case_rows(c, "w", C, 0, FILL_NORMAL);
    Tensor rstd = case_rows(c, "rstd", T, 0, FILL_POSITIVE);
    Tensor dx = case_rows(c, "dx", T, C, FILL_ZERO), dw = case_rows(c, "dw", C, 0, FILL_NORMAL);
    op_rmsnorm_backward(&dx, &dw, &dy, &x, &w, &rstd, &starts, 1);
    case_output(c, "dw", &dw);
}

/* Nothing is not a zero: with dw = -0, no tokens leave -0, and so does an empty sequence before one
 * whose product rounds to -0. */
static void negative_zeros(Case *c)
{
    for (int t = 0; t < 2; t++) {
        Tensor x = case_rows(c, "x", t, 1, FILL_ZERO), dy = case_rows(c, "dy", t, 1, FILL_ZERO);
        Tensor w = case_rows(c, "w", 1, 0, FILL_ZERO), dx = case_rows(c, "dx", t, 1, FILL_ZERO);
        Tensor rstd = case_rows(c, "rstd", t, 0, FILL_POSITIVE);
        Tensor dw = case_rows(c, "dw", 1, 0, FILL_ZERO);
        Tensor starts = case_i32(c, "starts", (int32_t[]){0, 0, t}, 3);
        *case_at(&dw, 0) = (real_t)-0.0;
        if (t) {
            *case_at(&x, 0) = (real_t)1e-30;
            *case_at(&dy, 0) = (real_t)-1e-30;
        }
        op_rmsnorm_backward(&dx, &dw, &dy, &x, &w, &rstd, &starts, 1);
        case_output(c, "dw", &dw);
        case_expect(c, *case_at(&dw, 0) == 0 && signbit(*case_at(&dw, 0)), "dw is %a of %d tokens",
                    (double)*case_at(&dw, 0), t);
    }
}

/* Three heads a token: the sum over rows in blocks that begin with a sequence's first row. */
static void heads(Case *c)
{
    enum { T = 50, H = 3, D = 5, CUT = 23 };
    Tensor x = case_rows(c, "x", T * H, D, FILL_NORMAL), dy = case_rows(c, "dy", T * H, D, FILL_NORMAL);
    Tensor w = case_rows(c, "w", D, 0, FILL_NORMAL), rstd = case_rows(c, "rstd", T * H, 0, FILL_POSITIVE);
    Tensor dx = case_rows(c, "dx", T * H, D, FILL_ZERO), dw = case_rows(c, "dw", D, 0, FILL_ZERO);
    Tensor same = case_rows(c, "same", D, 0, FILL_ZERO), dx2 = case_rows(c, "dx2", T * H, D, FILL_ZERO);
    Tensor tokens = case_i32(c, "tokens", (int32_t[]){0, CUT, T}, 3);
    Tensor rows = case_i32(c, "rows", (int32_t[]){0, CUT * H, T * H}, 3);
    op_rmsnorm_backward(&dx, &dw, &dy, &x, &w, &rstd, &tokens, H);
    op_rmsnorm_backward(&dx2, &same, &dy, &x, &w, &rstd, &rows, 1);
    case_output(c, "dx", &dx);
    case_output(c, "dw", &dw);
    case_expect(c, memcmp(dw.data, same.data, tensor_bytes(&dw)) == 0, "heads and rows sum differently");
}

bool test_rmsnorm_backward(Case *c, int variant)
{
    Shape s;
    if (!case_grad(c) && !case_perf(c) && variant == sizeof shapes / sizeof *shapes) {
        empty_sequences(c);
        negative_zeros(c);
        heads(c);
        return true;
    }
    if (case_grad(c) || !pick(c, variant, &s))
        return elementwise_rows(c, ROWS_RMSNORM_BACKWARD, variant - (int)(sizeof shapes / sizeof *shapes + 1));
    Tensor x = case_strided(c, "x", s.t, s.c, FILL_NORMAL),
           dy = case_rows(c, "dy", s.t, s.c, FILL_NORMAL);
    Tensor w = case_rows(c, "w", s.c, 0, FILL_NORMAL),
           rstd = case_rows(c, "rstd", s.t, 0, FILL_POSITIVE);
    Tensor dx = case_strided(c, "dx", s.t, s.c, FILL_NORMAL),
           dw = case_rows(c, "dw", s.c, 0, FILL_NORMAL);
    Tensor starts = two_sequences(c, s.t), cut = case_rows(c, "cut", s.c, 0, FILL_ZERO);
    Tensor dx2 = case_rows(c, "dx2", s.t, s.c, FILL_ZERO), frozen = {0};
    op_convert(&cut, &dw);
    CASE_RUN(c)
    op_rmsnorm_backward(&dx, &dw, &dy, &x, &w, &rstd, &starts, 1);
    case_flops(c, 8.0 * s.t * s.c, 4.0 * sizeof(real_t) * s.t * s.c);
    case_output(c, "dx", &dx);
    case_output(c, "dw", &dw);
    if (case_perf(c))
        return true;
    op_rmsnorm_backward(&dx2, &frozen, &dy, &x, &w, &rstd, &starts, 1); /* no dw */
    /* One call per sequence: the same weight gradient. */
    for (int i = 0, from = 0; i < 2; i++) {
        int to = i ? s.t : s.t / 3;
        Tensor xs = tensor_slice(&x, from, to - from), dys = tensor_slice(&dy, from, to - from);
        Tensor rs = tensor_slice(&rstd, from, to - from), dxs = tensor_slice(&dx2, from, to - from);
        Tensor one = case_i32(c, "one", (int32_t[]){0, to - from}, 2);
        op_rmsnorm_backward(&dxs, &cut, &dys, &xs, &w, &rs, &one, 1);
        from = to;
    }
    case_expect(c, memcmp(cut.data, dw.data, tensor_bytes(&dw)) == 0,
                "one call per sequence gives another dw");
    return true;
}
