/* embedding.c - rows by id from both layouts, and the chain of additions behind their gradient. */
#include "tests/ops/test_ops.h"

#include <string.h>

typedef struct {
    int t, v, c;
} Shape;
/* The last: more tokens than a GPU sorts at once. */
static const Shape shapes[] = {{1, 1, 1},     {5, 33, 31},   {40, 7, 33},
                               {64, 100, 96}, {700, 64, 64}, {8230, 300, 3}};
static const Shape grad_shapes[] = {{6, 4, 5}, {9, 34, 3}};

static bool pick(const Case *c, int variant, Shape *s)
{
    const Shape *from = case_grad(c) ? grad_shapes : shapes;
    size_t n = case_grad(c) ? sizeof grad_shapes / sizeof *from : sizeof shapes / sizeof *from;
    if ((size_t)variant >= n)
        return false;
    *s = from[variant];
    return true;
}

/* Rows of a bf16 table in either layout: those of the f32 table that it is a copy of, rounded. */
static void embedding_of_copy(Case *c, const Tensor *ids, const Tensor *w)
{
    int64_t dims[] = {w->dim[0], w->dim[1]};
    Tensor copy = case_tensor(c, "copy", DTYPE_BF16, w->layout, 2, dims, FILL_ZERO);
    Tensor back = case_rows(c, "back", dims[0], dims[1], FILL_ZERO);
    Tensor y = case_strided(c, "of copy", ids->dim[0], dims[1], FILL_ZERO);
    op_convert(&copy, w);
    op_convert(&back, &copy);
    op_embedding(&y, ids, &copy);
    case_output(c, "of copy", &y);
    for (int64_t e = 0; e < tensor_len(&y); e++) {
        int64_t from = ((int32_t *)ids->data)[e / dims[1]] * dims[1] + e % dims[1];
        case_expect(c, *case_at(&y, e) == *case_at(&back, from), "y[%lld] is %a, not %a", (long long)e,
                    (double)*case_at(&y, e), (double)*case_at(&back, from));
    }
}

bool test_embedding(Case *c, int variant)
{
    Shape s;
    if (!pick(c, variant / 2, &s))
        return elementwise_rows(c, ROWS_EMBEDDING, variant - (int)(2 * (sizeof shapes / sizeof *shapes)));
    Tensor ids = case_ids(c, "ids", s.t, s.v);
    Tensor w = variant % 2 ? case_panel(c, "w", s.v, s.c, FILL_NORMAL)
                           : case_strided(c, "w", s.v, s.c, FILL_NORMAL);
    if (!case_perf(c) && !case_grad(c))
        embedding_of_copy(c, &ids, &w);
    Tensor y = case_strided(c, "y", s.t, s.c, FILL_ZERO);
    CASE_RUN(c)
    op_embedding(&y, &ids, &w);
    case_flops(c, 0, 2.0 * sizeof(real_t) * s.t * s.c);
    case_output(c, "y", &y);
    for (int64_t e = 0; e < tensor_len(&y); e++)
        case_expect(c,
                    *case_at(&y, e) ==
                        *case_at(&w, ((int32_t *)ids.data)[e / s.c] * (int64_t)s.c + e % s.c),
                    "y[%lld] is another row's", (long long)e);
    case_loss(c, &y);
    if (!case_grad(c) || case_forward_only(c))
        return true;
    Tensor dy = case_rows(c, "dy", s.t, s.c, FILL_ZERO),
           dw = case_rows(c, "dw", s.v, s.c, FILL_ZERO);
    case_dy(c, &y, &dy);
    op_embedding_backward(&dw, &dy, &ids);
    case_check(c, "dw", &w, &dw);
    return true;
}

bool test_embedding_backward(Case *c, int variant)
{
    Shape s;
    if (case_grad(c) || !pick(c, variant, &s))
        return false;
    Tensor ids = case_ids(c, "ids", s.t, s.v);
    Tensor dy = case_strided(c, "dy", s.t, s.c, FILL_NORMAL);
    Tensor dw = case_strided(c, "dw", s.v, s.c, FILL_NORMAL);
    Tensor cut = case_strided(c, "cut", s.v, s.c, FILL_ZERO);
    op_convert(&cut, &dw);
    CASE_RUN(c)
    op_embedding_backward(&dw, &dy, &ids);
    case_flops(c, (double)s.t * s.c, 3.0 * sizeof(real_t) * s.t * s.c);
    case_output(c, "dw", &dw);
    if (case_perf(c))
        return true;
    /* Tokens cut in two calls: the same bits. */
    int64_t half = s.t / 2;
    Tensor dy0 = tensor_slice(&dy, 0, half), dy1 = tensor_slice(&dy, half, s.t - half);
    Tensor ids0 = tensor_slice(&ids, 0, half), ids1 = tensor_slice(&ids, half, s.t - half);
    op_embedding_backward(&cut, &dy0, &ids0);
    op_embedding_backward(&cut, &dy1, &ids1);
    for (int64_t e = 0; e < tensor_len(&dw); e++)
        case_expect(c, memcmp(case_at(&cut, e), case_at(&dw, e), sizeof(real_t)) == 0,
                    "dw[%lld]: tokens cut at %lld give other bits", (long long)e, (long long)half);
    return true;
}
