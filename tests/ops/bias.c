/* bias.c - a vector added to every row, and its gradient: widths around a vector, packings of sequences. */
#include "tests/ops/test_ops.h"

#include <math.h>
#include <string.h>

typedef struct {
    int t, n;
} Shape;
static const Shape shapes[] = {{1, 1}, {0, 5}, {3, 31}, {7, 32}, {66, 33}, {130, 64}, {200, 129}, {67, 1000}};
static const Shape grad_shapes[] = {{2, 3}, {5, 33}, {70, 4}};
static const Shape perf_shapes[] = {{1, 288}, {64, 288}, {2048, 576}};

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

bool test_bias(Case *c, int variant)
{
    Shape s;
    if (!pick(c, variant, &s))
        return elementwise_rows(c, ROWS_BIAS, variant - (int)(sizeof shapes / sizeof *shapes));
    Fill fill = variant == 2 && !case_grad(c) ? FILL_EXTREME : FILL_NORMAL;
    Tensor y = case_strided(c, "y", s.t, s.n, fill), b = case_rows(c, "b", s.n, 0, fill);
    Tensor before = case_rows(c, "before", s.t, s.n, FILL_ZERO);
    op_convert(&before, &y);
    CASE_RUN(c)
    op_bias(&y, &b);
    case_flops(c, (double)s.t * s.n, 2.0 * sizeof(real_t) * s.t * s.n);
    case_output(c, "y", &y);
    case_loss(c, &y);
    for (int64_t e = 0; !case_perf(c) && e < (int64_t)s.t * s.n; e++) {
        real_t want = *case_at(&before, e) + *case_at(&b, e % s.n);
        case_expect(c, *case_at(&y, e) == want || isnan(want), "y[%lld] is %g, not %g", (long long)e,
                    (double)*case_at(&y, e), (double)want);
    }
    if (!case_grad(c) || case_forward_only(c))
        return true;
    Tensor dy = case_rows(c, "dy", s.t, s.n, FILL_ZERO), db = case_rows(c, "db", s.n, 0, FILL_ZERO);
    Tensor starts = case_i32(c, "starts", (int32_t[]){0, s.t / 3, s.t}, 3);
    case_dy(c, &y, &dy);
    op_bias_backward(&db, &dy, &starts);
    case_check(c, "db", &b, &db);
    return true;
}

bool test_bias_backward(Case *c, int variant)
{
    Shape s;
    if (case_grad(c) || !pick(c, variant, &s))
        return elementwise_rows(c, ROWS_BIAS_BACKWARD, variant - (int)(sizeof shapes / sizeof *shapes)); /* test_bias checks the gradient */
    Tensor dy = case_strided(c, "dy", s.t, s.n, FILL_NORMAL), db = case_rows(c, "db", s.n, 0, FILL_NORMAL);
    Tensor cut = case_rows(c, "cut", s.n, 0, FILL_ZERO);
    Tensor starts = case_i32(c, "starts", (int32_t[]){0, s.t / 3, s.t / 3, s.t}, 4); /* one of them empty */
    op_convert(&cut, &db);
    CASE_RUN(c)
    op_bias_backward(&db, &dy, &starts);
    case_flops(c, (double)s.t * s.n, sizeof(real_t) * (double)s.t * s.n);
    case_output(c, "db", &db);
    for (int i = 0, from = 0; i < 2 && !case_perf(c); i++) { /* one call per sequence: the same sums */
        int to = i ? s.t : s.t / 3;
        Tensor part = tensor_slice(&dy, from, to - from);
        Tensor one = case_i32(c, "one", (int32_t[]){0, to - from}, 2);
        op_bias_backward(&cut, &part, &one);
        from = to;
    }
    case_expect(c, case_perf(c) || memcmp(cut.data, db.data, tensor_bytes(&db)) == 0,
                "one call per sequence gives another db");
    return true;
}
