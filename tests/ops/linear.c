/* linear.c - the products of a linear layer: sizes around the tiles of the CPU (12 rows, 32 lanes,
 * blocks of 240 rows and 256 tokens) and of CUDA (16 rows and steps of 128; tiles of 32, 64 and 128,
 * the last of which the emulated card of 4 multiprocessors takes from 4 tiles on), strided operands,
 * the invariants of exact mode, and speed at the shapes of use. */
#include "tests/ops/test_ops.h"

#include <string.h>

typedef struct {
    int m, n, k;
} Shape;

static const Shape shapes[] = {{1, 1, 1},     {1, 32, 31},   {2, 33, 33},   {3, 64, 7},
                               {5, 31, 65},   {7, 96, 32},   {11, 100, 40}, {12, 32, 32},
                               {13, 63, 64},  {24, 97, 33},  {25, 160, 20}, {64, 36, 96},
                               {241, 40, 17}, {257, 33, 12}, {20, 300, 40}, {0, 32, 32},
                               {4, 31, 127},  {8, 32, 128},  {9, 65, 129},  {16, 33, 260},
                               {17, 34, 31},  {31, 63, 15},  {33, 65, 33},  {65, 129, 63},
                               {128, 127, 5}, {225, 256, 9}, {256, 193, 16}, {200, 9, 255},
                               {7, 193, 250}};
/* with zeros of both signs, and products that vanish or are huge */
static const Shape extreme_shapes[] = {{5, 33, 13}, {19, 35, 13}, {194, 195, 11}, {5, 33, 1},
                                       {18, 40, 1}, {18, 1, 40},  {1, 40, 33}};
static const Shape grad_shapes[] = {{1, 1, 1}, {3, 5, 7}, {4, 33, 6}, {6, 7, 34}};
static const Shape perf_shapes[] = {{1, 288, 288},    {4, 288, 288},    {16, 288, 288},
                                    {64, 64, 64},     {64, 288, 288},   {256, 96, 96},
                                    {1024, 108, 192}, {1024, 288, 288}, {2048, 512, 512}};

#define LIST(s) s, sizeof s / sizeof *s

/* Every shape twice, but for perf: see matrix(). */
static bool pick(const Case *c, int variant, Shape *s, Fill *fill)
{
    const struct {
        const Shape *shape;
        size_t n;
        Fill fill;
    } list[] = {{LIST(shapes), FILL_NORMAL}, {LIST(extreme_shapes), FILL_EXTREME},
                {LIST(grad_shapes), FILL_NORMAL}, {LIST(perf_shapes), FILL_NORMAL}};
    size_t i = (size_t)(case_perf(c) ? variant : variant / 2);
    int from = case_perf(c) ? 3 : case_grad(c) ? 2 : i >= list[0].n;
    i -= from == 1 ? list[0].n : 0;
    if (i >= list[from].n)
        return false;
    *s = list[from].shape[i];
    *fill = list[from].fill;
    return true;
}

/* Odd variants accumulate, and their rows are strided. */
static Tensor matrix(Case *c, const char *name, int64_t d0, int64_t d1, Fill fill, int variant)
{
    return variant % 2 && !case_perf(c) ? case_strided(c, name, d0, d1, fill)
                                        : case_rows(c, name, d0, d1, fill);
}

static void cost(Case *c, Shape s)
{
    double m = s.m, n = s.n, k = s.k;
    case_flops(c, 2 * m * n * k, sizeof(real_t) * (m * n + m * k + n * k));
}

/* Rows from `from` on, as a product of their own: the bits must be the same. */
static void check_rows_alone(Case *c, const Tensor *y, const Tensor *x, const Tensor *w, bool dx)
{
    int64_t n = tensor_cols(y), rows = y->dim[0];
    if (rows < 2 || case_perf(c))
        return;
    Tensor one = case_rows(c, "alone", 1, n, FILL_ZERO);
    for (int64_t r = 0; r < rows; r += rows - 1) {
        Tensor xr = tensor_slice(x, r, 1);
        if (dx)
            op_linear_dx(&one, &xr, w, false);
        else
            op_linear(&one, &xr, w, false);
        case_expect(c, memcmp(one.data, case_at(y, r * n), (size_t)n * sizeof(real_t)) == 0,
                    "row %lld of %lld differs from the row alone", (long long)r, (long long)rows);
    }
}

bool test_linear(Case *c, int variant)
{
    Shape s;
    Fill fill;
    if (!pick(c, variant, &s, &fill))
        return false;
    bool accumulate = variant % 2;
    Tensor x = matrix(c, "x", s.m, s.k, fill, variant);
    Tensor w = case_panel(c, "w", s.n, s.k, fill);
    Tensor y = matrix(c, "y", s.m, s.n, fill, variant);
    CASE_RUN(c)
    op_linear(&y, &x, &w, accumulate);
    cost(c, s);
    case_output(c, "y", &y);
    case_loss(c, &y);
    if (!accumulate)
        check_rows_alone(c, &y, &x, &w, false);
    const bool sums = !accumulate && fill == FILL_NORMAL && !case_grad(c) && !case_perf(c);
    for (int64_t e = 0; sums && e < s.m * s.n; e += 37) {
        double sum = 0, size = 0; /* against f64: at most K roundings of the running sum */
        for (int64_t k = 0; k < s.k; k++) {
            double p = (double)*case_at(&x, e / s.n * s.k + k) * *case_at(&w, e % s.n * s.k + k);
            sum += p;
            size += p < 0 ? -p : p;
        }
        double err = *case_at(&y, e) - sum;
        case_expect(c, err * err <= size * size * s.k * s.k * 0x1p-48, "y[%lld] is off by %g",
                    (long long)e, err);
    }
    if (case_forward_only(c))
        return true;
    Tensor dy = case_rows(c, "dy", s.m, s.n, FILL_ZERO);
    Tensor dx = case_rows(c, "dx", s.m, s.k, FILL_ZERO),
           dw = case_panel(c, "dw", s.n, s.k, FILL_ZERO);
    case_dy(c, &y, &dy);
    if (!case_grad(c))
        return true;
    op_linear_dx(&dx, &dy, &w, accumulate);
    op_linear_dw(&dw, &dy, &x, DTYPE_REAL, accumulate);
    case_check(c, "dx", &x, &dx);
    case_check(c, "dw", &w, &dw);
    return true;
}

bool test_linear_dx(Case *c, int variant)
{
    Shape s;
    Fill fill;
    if (case_grad(c) || !pick(c, variant, &s, &fill))
        return false; /* test_linear checks the gradient */
    bool accumulate = variant % 2;
    Tensor dy = matrix(c, "dy", s.m, s.n, fill, variant);
    Tensor w = case_panel(c, "w", s.n, s.k, fill);
    Tensor dx = matrix(c, "dx", s.m, s.k, fill, variant);
    CASE_RUN(c)
    op_linear_dx(&dx, &dy, &w, accumulate);
    cost(c, s);
    case_output(c, "dx", &dx);
    if (!accumulate)
        check_rows_alone(c, &dx, &dy, &w, true);
    return true;
}

bool test_linear_dw(Case *c, int variant)
{
    Shape s;
    Fill fill;
    if (case_grad(c) || !pick(c, variant, &s, &fill))
        return false;
    bool accumulate = variant % 2;
    Tensor dy = matrix(c, "dy", s.m, s.n, fill, variant);
    Tensor x = matrix(c, "x", s.m, s.k, fill, variant);
    Tensor dw = case_panel(c, "dw", s.n, s.k, fill);
    CASE_RUN(c)
    op_linear_dw(&dw, &dy, &x, DTYPE_REAL, accumulate);
    cost(c, s);
    case_output(c, "dw", &dw);
    if (case_perf(c) || accumulate)
        return true;
    /* The tokens cut in two calls: the same bits. */
    Tensor cut = case_panel(c, "cut", s.n, s.k, FILL_ZERO);
    int64_t half = s.m / 3;
    Tensor dy0 = tensor_slice(&dy, 0, half), dy1 = tensor_slice(&dy, half, s.m - half);
    Tensor x0 = tensor_slice(&x, 0, half), x1 = tensor_slice(&x, half, s.m - half);
    op_linear_dw(&cut, &dy0, &x0, DTYPE_REAL, false);
    op_linear_dw(&cut, &dy1, &x1, DTYPE_REAL, true);
    case_expect(c, memcmp(cut.data, dw.data, tensor_bytes(&dw)) == 0,
                "tokens cut at %lld give other bits", (long long)half);
    return true;
}
