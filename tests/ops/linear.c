/* linear.c - the products of a linear layer: sizes around the tiles of the CPU (12 rows, 32 lanes,
 * pieces of 312 rows and 640 lanes, blocks of 288 steps) and of CUDA (16 rows and steps of 128;
 * tiles of 32, 64 and 128, the last of which the emulated card of 4 multiprocessors takes from 4
 * tiles on), strided operands, the invariants of exact mode, bf16 against a scalar model of
 * VDPBF16PS (tests/unit/test_bf16.c has the instruction itself), and speed at the shapes of use. */
#include "tests/ops/test_ops.h"

#include <math.h>
#include <string.h>

typedef struct {
    int m, n, k;
} Shape;

static const Shape shapes[] = {
    {1, 1, 1},      {1, 32, 31},   {2, 33, 33},    {3, 64, 7},     {5, 31, 65},   {7, 96, 32},
    {11, 100, 40},  {12, 32, 32},  {13, 63, 64},   {24, 97, 33},   {25, 160, 20}, {64, 36, 96},
    {241, 40, 17},  {257, 33, 12}, {20, 300, 40},  {0, 32, 32},    {4, 31, 127},  {8, 32, 128},
    {9, 65, 129},   {16, 33, 260}, {17, 34, 31},   {31, 63, 15},   {33, 65, 33},  {65, 129, 63},
    {128, 127, 5},  {225, 256, 9}, {256, 193, 16}, {200, 9, 255},  {7, 193, 250}, {313, 70, 34},
    {290, 33, 325}, {5, 700, 289}, {3, 33, 577},   {13, 1157, 20}, {578, 20, 9},  {2, 130, 33},
    {37, 65, 31},   {37, 33, 300}, {7, 928, 289},  {6, 910, 289}}; /* the last two: weights of a MiB */
/* with zeros of both signs, and products that vanish or are huge */
static const Shape extreme_shapes[] = {{5, 33, 13}, {19, 35, 13}, {194, 195, 11}, {5, 33, 1},
                                       {18, 40, 1}, {18, 1, 40},  {1, 40, 33}};
static const Shape grad_shapes[] = {{1, 1, 1}, {3, 5, 7}, {4, 33, 6}, {6, 7, 34}};
static const Shape perf_shapes[] = {{1, 288, 288},    {4, 288, 288},     {16, 288, 288},
                                    {16, 1536, 576},  {64, 64, 64},      {64, 288, 288},
                                    {64, 1536, 576},  {128, 32000, 288}, {1024, 288, 288},
                                    {2048, 576, 576}, {2048, 576, 1536}};

/* A variant: a shape, what fills it, f32 or bf16 operands; odd ones accumulate, and their rows are
 * strided. */
typedef struct {
    Shape s;
    Fill fill;
    bool bf16, accumulate;
} Kind;

#define COUNT(list) (sizeof(list) / sizeof *(list))
/* Of f32 and of bf16 panels; behind them come linear_rows.c's, on a card. */
static const int n_variants = 4 * (int)(COUNT(shapes) + COUNT(extreme_shapes));

static bool pick(Case *c, int variant, Kind *kind)
{
    size_t i = (size_t)(case_perf(c) ? variant : variant / 2);
    size_t n_normal = case_perf(c)   ? COUNT(perf_shapes)
                      : case_grad(c) ? COUNT(grad_shapes)
                                     : COUNT(shapes);
    size_t n = n_normal + (case_perf(c) || case_grad(c) ? 0 : COUNT(extreme_shapes));
    *kind = (Kind){.bf16 = i >= n, .accumulate = !case_perf(c) && variant % 2};
    bool card = device_kind(case_device(c)) != DEVICE_CPU; /* has its own layout of bf16 weights */
    if (i >= 2 * n || (kind->bf16 && (case_grad(c) || card))) /* rounding has no gradient */
        return false;
    i %= n;
    kind->fill = i < n_normal ? FILL_NORMAL : FILL_EXTREME;
    kind->s = case_perf(c)   ? perf_shapes[i]
              : case_grad(c) ? grad_shapes[i]
              : i < n_normal ? shapes[i]
                             : extreme_shapes[i - n_normal];
    if (kind->bf16)
        case_cpu_only(c), case_label(c, "bf16");
    return true;
}

static Tensor matrix(Case *c, const char *name, int64_t d0, int64_t d1, const Kind *kind)
{
    return kind->accumulate ? case_strided(c, name, d0, d1, kind->fill)
                            : case_rows(c, name, d0, d1, kind->fill);
}

static void cost(Case *c, const Kind *kind)
{
    double m = kind->s.m, n = kind->s.n, k = kind->s.k;
    double weight = kind->bf16 ? sizeof(uint16_t) : sizeof(real_t);
    case_flops(c, 2 * m * n * k, sizeof(real_t) * (m * n + m * k) + weight * n * k);
}

/* ---- bf16 ---------------------------------------------------------------------------------------
 */

static uint16_t rounded_bits(real_t x)
{
    uint32_t u;
    float f = (float)x;
    memcpy(&u, &f, sizeof u);
    return (uint16_t)(f != f ? u >> 16 | 0x40 : (u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static double rounded(real_t x)
{
    uint32_t u = (uint32_t)rounded_bits(x) << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* The bf16 panel of an f32 one, by the rule of tensor.h. */
static Tensor bf16_panel(Case *c, const Tensor *w)
{
    int64_t n = w->dim[0], k = w->dim[1], k2 = k + k % 2;
    Tensor t = case_tensor(c, "w bf16", DTYPE_BF16, LAYOUT_PANEL, 2, w->dim, FILL_ZERO);
    for (int64_t e = 0; e < n * k; e++) {
        int64_t i = e / k, j = e % k;
        int64_t at = ((i / PANEL_N) * k2 + j - j % 2) * PANEL_N + i % PANEL_N * 2 + 1 - j % 2;
        ((uint16_t *)t.data)[at] = rounded_bits(*case_at(w, e));
    }
    return t;
}

static double zero_denormal(double x)
{
    return fabs(x) < 0x1p-126 ? copysign(0, x) : x;
}

/* a * b + c as VDPBF16PS has it, exactly: the sum in double is rounded to odd, which keeps what the
 * rounding to 24 bits must know (Boldo & Melquiond 2008); near the smallest normal number that is
 * done 2^100 times as large, so that it has all 24 bits. */
static double model_fma(double a, double b, double c)
{
    double p = zero_denormal(a) * zero_denormal(b), q = zero_denormal(c), sum = p + q;
    double rest = fabs(p) > fabs(q) ? q - (sum - p) : p - (sum - q);
    uint64_t u;
    memcpy(&u, &sum, sizeof u);
    if (isfinite(sum) && rest != 0 && u % 2 == 0)
        sum = nextafter(sum, rest > 0 ? INFINITY : -INFINITY);
    if (fabs(sum) > 0x1p-100)
        return (float)sum;
    return zero_denormal((double)(float)(sum * 0x1p100) * 0x1p-100);
}

/* out[e] is a chain from +0 over a[i + j * step], b[i' + j * step'] for every e, or some of many.
 */
typedef struct {
    const Tensor *t;
    int64_t row, col, step; /* where element (r, c) of the product begins, and how it goes on */
} Side;

static void check_model(Case *c, const Kind *kind, const Tensor *out, int64_t n_j, Side a, Side b)
{
    int64_t cols = tensor_cols(out), stride = kind->fill == FILL_EXTREME ? 1 : 37;
    for (int64_t e = 0; kind->bf16 && !kind->accumulate && e < tensor_len(out); e += stride) {
        double sum = 0;
        for (int64_t j = 0; j < n_j; j++) {
            int64_t at = e / cols * a.row + e % cols * a.col + j * a.step;
            int64_t bt = e / cols * b.row + e % cols * b.col + j * b.step;
            sum = model_fma(rounded(*case_at(a.t, at)), rounded(*case_at(b.t, bt)), sum);
        }
        real_t got = *case_at(out, e), want = (real_t)sum;
        case_expect(c, memcmp(&got, &want, sizeof got) == 0 || (isnan(got) && isnan(want)),
                    "[%lld] is %a, VDPBF16PS gives %a", (long long)e, got, want);
    }
}

/* ---- tests --------------------------------------------------------------------------------------
 */

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

/* Against f64: at most K roundings of the running sum. */
static void check_sums(Case *c, const Kind *kind, const Tensor *y, const Tensor *x, const Tensor *w)
{
    Shape s = kind->s;
    if (kind->bf16 || kind->accumulate || kind->fill != FILL_NORMAL || case_grad(c) || case_perf(c))
        return;
    for (int64_t e = 0; e < s.m * s.n; e += 37) {
        double sum = 0, size = 0;
        for (int64_t k = 0; k < s.k; k++) {
            double p = (double)*case_at(x, e / s.n * s.k + k) * *case_at(w, e % s.n * s.k + k);
            sum += p;
            size += p < 0 ? -p : p;
        }
        double err = *case_at(y, e) - sum;
        case_expect(c, err * err <= size * size * s.k * s.k * 0x1p-48, "y[%lld] is off by %g",
                    (long long)e, err);
    }
}

bool test_linear(Case *c, int variant)
{
    Kind kind;
    if (!pick(c, variant, &kind))
        return linear_rows(c, ROWS_Y, variant - n_variants);
    Shape s = kind.s;
    Tensor x = matrix(c, "x", s.m, s.k, &kind);
    Tensor w = case_panel(c, "w", s.n, s.k, kind.fill);
    Tensor y = matrix(c, "y", s.m, s.n, &kind);
    Tensor read = kind.bf16 ? bf16_panel(c, &w) : w;
    CASE_RUN(c)
    op_linear(&y, &x, &read, kind.accumulate);
    cost(c, &kind);
    case_output(c, "y", &y);
    case_loss(c, &y);
    if (!kind.accumulate)
        check_rows_alone(c, &y, &x, &read, false);
    check_sums(c, &kind, &y, &x, &w);
    if (!case_perf(c))
        check_model(c, &kind, &y, s.k, (Side){&x, s.k, 0, 1}, (Side){&w, 0, s.k, 1});
    if (case_forward_only(c))
        return true;
    Tensor dy = case_rows(c, "dy", s.m, s.n, FILL_ZERO);
    Tensor dx = case_rows(c, "dx", s.m, s.k, FILL_ZERO),
           dw = case_panel(c, "dw", s.n, s.k, FILL_ZERO);
    case_dy(c, &y, &dy);
    if (!case_grad(c))
        return true;
    op_linear_dx(&dx, &dy, &w, kind.accumulate);
    op_linear_dw(&dw, &dy, &x, DTYPE_REAL, kind.accumulate);
    case_check(c, "dx", &x, &dx);
    case_check(c, "dw", &w, &dw);
    return true;
}

bool test_linear_dx(Case *c, int variant)
{
    Kind kind;
    if (case_grad(c)) /* test_linear checks the gradient */
        return false;
    if (!pick(c, variant, &kind))
        return linear_rows(c, ROWS_DX, variant - n_variants);
    Shape s = kind.s;
    Tensor dy = matrix(c, "dy", s.m, s.n, &kind);
    Tensor w = case_panel(c, "w", s.n, s.k, kind.fill);
    Tensor dx = matrix(c, "dx", s.m, s.k, &kind);
    Tensor read = kind.bf16 ? bf16_panel(c, &w) : w;
    CASE_RUN(c)
    op_linear_dx(&dx, &dy, &read, kind.accumulate);
    cost(c, &kind);
    case_output(c, "dx", &dx);
    if (!kind.accumulate)
        check_rows_alone(c, &dx, &dy, &read, true);
    if (!case_perf(c))
        check_model(c, &kind, &dx, s.n, (Side){&dy, s.n, 0, 1}, (Side){&w, 0, 1, s.k});
    return true;
}

bool test_linear_dw(Case *c, int variant)
{
    Kind kind;
    if (case_grad(c))
        return false;
    if (!pick(c, variant, &kind))
        return linear_rows(c, ROWS_DW, variant - n_variants);
    Shape s = kind.s;
    DType operands = kind.bf16 ? DTYPE_BF16 : DTYPE_REAL;
    Tensor dy = matrix(c, "dy", s.m, s.n, &kind);
    Tensor x = matrix(c, "x", s.m, s.k, &kind);
    Tensor dw = case_panel(c, "dw", s.n, s.k, kind.fill);
    CASE_RUN(c)
    op_linear_dw(&dw, &dy, &x, operands, kind.accumulate);
    cost(c, &kind);
    case_output(c, "dw", &dw);
    if (case_perf(c) || kind.accumulate)
        return true;
    check_model(c, &kind, &dw, s.m, (Side){&dy, 1, 0, s.n}, (Side){&x, 0, 1, s.k});
    /* The tokens cut in two calls: the same bits. */
    Tensor cut = case_panel(c, "cut", s.n, s.k, FILL_ZERO);
    int64_t half = s.m / 3;
    Tensor dy0 = tensor_slice(&dy, 0, half), dy1 = tensor_slice(&dy, half, s.m - half);
    Tensor x0 = tensor_slice(&x, 0, half), x1 = tensor_slice(&x, half, s.m - half);
    op_linear_dw(&cut, &dy0, &x0, operands, false);
    op_linear_dw(&cut, &dy1, &x1, operands, true);
    case_expect(c, memcmp(cut.data, dw.data, tensor_bytes(&dw)) == 0,
                "tokens cut at %lld give other bits", (long long)half);
    return true;
}
