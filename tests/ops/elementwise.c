/* elementwise.c - sums, SwiGLU, RoPE, copies between dtypes and layouts, rows by index. */
#include "tests/ops/test_ops.h"

#include <math.h>
#include <string.h>

typedef struct {
    int t, c;
} Shape;
static const Shape shapes[] = {{1, 1}, {3, 31}, {7, 33}, {64, 64}, {33, 96}, {300, 100}};
static const Shape grad_shapes[] = {{2, 3}, {5, 17}};
static const Shape perf_shapes[] = {{1, 288}, {64, 768}, {1024, 768}};

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

static double moved(Shape s, int n_tensors)
{
    return (double)n_tensors * s.t * s.c * (double)sizeof(real_t);
}

/* Vectors that begin between the 16 byte steps of vector loads, each somewhere else. */
static bool unaligned_add(Case *c)
{
    Tensor y = case_rows(c, "y", 1100, 0, FILL_ZERO), a = case_rows(c, "a", 1100, 0, FILL_NORMAL);
    Tensor b = case_rows(c, "b", 1100, 0, FILL_NORMAL), to = tensor_slice(&y, 1, 1031);
    Tensor p = tensor_slice(&a, 2, 1031), q = tensor_slice(&b, 4, 1031);
    op_add(&to, &p, &q);
    op_axpy(&to, 0.25, &q, true);
    case_output(c, "y", &y);
    Tensor part = tensor_slice(&b, 3, 70);
    op_fill(&part, 2);
    case_output(c, "b", &b);
    return true;
}

bool test_add(Case *c, int variant)
{
    Shape s;
    if (!case_perf(c) && variant == 3 * sizeof shapes / sizeof *shapes && !case_grad(c))
        return unaligned_add(c);
    if (!pick(c, variant / 3, &s))
        return elementwise_rows(c, ROWS_ADD, variant - (int)(3 * (sizeof shapes / sizeof *shapes) + 1));
    Tensor a = variant % 3 == 1 ? case_strided(c, "a", s.t, s.c, FILL_NORMAL)
                                : case_rows(c, "a", s.t, s.c, FILL_EXTREME);
    Tensor b = case_rows(c, "b", s.t, s.c, FILL_NORMAL);
    bool in_place = variant % 3 == 2;
    Tensor y = in_place ? a : case_rows(c, "y", s.t, s.c, FILL_ZERO);
    CASE_RUN(c)
    op_add(&y, &a, &b);
    case_flops(c, 0, moved(s, 3));
    case_output(c, "y", &y);
    for (int64_t e = 0; !in_place && !case_perf(c) && e < tensor_len(&y); e++)
        case_expect(c, *case_at(&y, e) == *case_at(&a, e) + *case_at(&b, e), "y[%lld]",
                    (long long)e);
    return true;
}

bool test_swiglu(Case *c, int variant)
{
    Shape s;
    if (!pick(c, variant / 2, &s))
        return elementwise_rows(c, ROWS_SWIGLU, variant - (int)(2 * (sizeof shapes / sizeof *shapes)));
    Fill fill = variant % 2 && !case_grad(c) ? FILL_EXTREME : FILL_NORMAL;
    Tensor gate = case_strided(c, "gate", s.t, s.c, fill);
    Tensor up = case_strided(c, "up", s.t, s.c, FILL_NORMAL);
    Tensor y = case_rows(c, "y", s.t, s.c, FILL_ZERO);
    CASE_RUN(c)
    op_swiglu(&y, &gate, &up);
    case_flops(c, 0, moved(s, 3));
    case_output(c, "y", &y);
    for (int64_t e = 0; fill == FILL_NORMAL && !case_perf(c) && e < tensor_len(&y); e++) {
        double g = *case_at(&gate, e), want = g / (1 + exp(-g)) * *case_at(&up, e);
        /* six roundings and an exp within 1 ulp: under 2^-20 of the value */
        case_expect(c, fabs(*case_at(&y, e) - want) <= fabs(want) * 0x1p-20,
                    "y[%lld] is %g, not %g", (long long)e, (double)*case_at(&y, e), want);
    }
    case_loss(c, &y);
    if (!case_grad(c) || case_forward_only(c))
        return true;
    Tensor dy = case_rows(c, "dy", s.t, s.c, FILL_ZERO),
           dgate = case_rows(c, "dgate", s.t, s.c, FILL_ZERO);
    Tensor dup = case_rows(c, "dup", s.t, s.c, FILL_ZERO);
    case_dy(c, &y, &dy);
    op_swiglu_backward(&dgate, &dup, &dy, &gate, &up);
    case_check(c, "dgate", &gate, &dgate);
    case_check(c, "dup", &up, &dup);
    return true;
}

bool test_swiglu_backward(Case *c, int variant)
{
    Shape s;
    if (case_grad(c) || !pick(c, variant, &s))
        return elementwise_rows(c, ROWS_SWIGLU_BACKWARD, variant - (int)(sizeof shapes / sizeof *shapes));
    Tensor gate = case_strided(c, "gate", s.t, s.c, FILL_NORMAL),
           up = case_rows(c, "up", s.t, s.c, FILL_NORMAL);
    Tensor dy = case_rows(c, "dy", s.t, s.c, FILL_NORMAL);
    Tensor dgate = case_rows(c, "dgate", s.t, s.c, FILL_ZERO),
           dup = case_rows(c, "dup", s.t, s.c, FILL_ZERO);
    CASE_RUN(c)
    op_swiglu_backward(&dgate, &dup, &dy, &gate, &up);
    case_flops(c, 0, moved(s, 5));
    case_output(c, "dgate", &dgate);
    case_output(c, "dup", &dup);
    if (case_perf(c))
        return true;
    op_swiglu_backward(&gate, &up, &dy, &gate, &up); /* in place: the same */
    for (int64_t e = 0; e < tensor_len(&dup); e++)
        case_expect(
            c, *case_at(&gate, e) == *case_at(&dgate, e) && *case_at(&up, e) == *case_at(&dup, e),
            "[%lld] differs in place", (long long)e);
    return true;
}

bool test_rope(Case *c, int variant)
{
    static const int sizes[][3] = {{1, 1, 2}, {5, 3, 16}, {9, 2, 6}, {64, 6, 48}, {33, 1, 64}};
    if ((size_t)variant >= 2 * sizeof sizes / sizeof *sizes)
        return elementwise_rows(c, ROWS_ROPE, variant - (int)(2 * (sizeof sizes / sizeof *sizes)));
    int t = case_perf(c) ? 1024 : sizes[variant / 2][0], d = sizes[variant / 2][2];
    int width = sizes[variant / 2][1] * d;
    if (case_grad(c) && t > 9)
        return false;
    enum { POSITIONS = 40 };
    bool backward = variant % 2;
    Tensor x = case_strided(c, "x", t, width, FILL_NORMAL), pos = case_ids(c, "pos", t, POSITIONS);
    Tensor was = case_rows(c, "was", t, width, FILL_ZERO),
           table = case_rows(c, "table", POSITIONS, d, FILL_ZERO);
    for (int64_t e = 0; e < POSITIONS * d; e++) {
        double angle = (double)(e / d) * pow(10000, -2.0 * (double)(e % d % (d / 2)) / d);
        *case_at(&table, e) = (real_t)(e % d < d / 2 ? cos(angle) : sin(angle));
    }
    op_convert(&was, &x);
    CASE_RUN(c)
    op_rope(&x, &pos, &table, d, backward);
    case_flops(c, 0, 2.0 * t * width * sizeof(real_t));
    case_output(c, "x", &x);
    for (int64_t e = 0; !case_perf(c) && e < tensor_len(&x); e += 7) {
        int64_t i = e % width % d, h = d / 2, p = ((int32_t *)pos.data)[e / width];
        double co = *case_at(&table, p * d + i % h), si = *case_at(&table, p * d + i % h + h);
        double other = *case_at(&was, i < h ? e + h : e - h);
        double want = *case_at(&was, e) * co + ((i < h) != backward ? -1 : 1) * si * other;
        case_expect(c, fabs(*case_at(&x, e) - want) <= 1e-5, "x[%lld] is %g, not %g", (long long)e,
                    (double)*case_at(&x, e), want);
    }
    case_loss(c, &x);
    if (!case_grad(c) || case_forward_only(c))
        return true;
    Tensor dx = case_rows(c, "dx", t, width, FILL_ZERO);
    case_dy(c, &x, &dx);
    op_rope(&dx, &pos, &table, d, !backward);
    case_check(c, "dx", &x, &dx);
    return true;
}

static uint16_t bf16_of(float f) /* by way of double arithmetic: nearest, ties to even mantissa */
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    uint32_t low = u & 0xffff, high = u >> 16;
    return (uint16_t)(low > 0x8000 || (low == 0x8000 && high % 2) ? high + 1 : high);
}

/* Copies that keep layout and density, or the dtype: slots in order, or bits alone. */
static void convert_alike(Case *c, const Tensor *x, const Tensor *half, const Tensor *half_panel)
{
    int64_t dims[] = {x->dim[0], x->dim[1]}, n = dims[0] * dims[1];
    Tensor rows = case_tensor(c, "rows", DTYPE_F32, LAYOUT_ROWS, 2, dims, FILL_ZERO);
    Tensor panel = case_tensor(c, "wide panel", DTYPE_F64, LAYOUT_PANEL, 2, dims, FILL_ZERO);
    Tensor narrow = case_tensor(c, "narrow panel", DTYPE_BF16, LAYOUT_PANEL, 2, dims, FILL_NORMAL);
    Tensor gaps = case_strided(c, "gaps", dims[0], dims[1], FILL_ZERO);
    Tensor ids = case_ids(c, "ids", n, 1 << 30), copy = case_ids(c, "copy", n, 5);
    op_convert(&rows, half);
    op_convert(&panel, half_panel);
    op_convert(&narrow, &panel);
    op_convert(&gaps, x);
    op_convert(&copy, &ids);
    case_output(c, "rows", &rows);
    case_output(c, "wide panel", &panel);
    case_output(c, "narrow panel", &narrow);
    case_output(c, "gaps", &gaps);
    case_output(c, "copy", &copy);
    for (int64_t e = 0; e < n; e++)
        case_expect(c, *case_at(&gaps, e) == *case_at(x, e), "gaps[%lld]", (long long)e);
}

/* Where a bf16 panel keeps element (n, k): word pair * PANEL_N + lane holds the pair's earlier column in its
 * upper half. */
static uint16_t in_pairs(const Tensor *t, int64_t n, int64_t k)
{
    int64_t pairs = (t->dim[1] + 1) / 2;
    uint32_t word = ((uint32_t *)t->data)[(n / PANEL_N * pairs + k / 2) * PANEL_N + n % PANEL_N];
    return (uint16_t)(k % 2 ? word : word >> 16);
}

/* Every pair of layouts and of f32 and bf16: what two steps by way of dense f32 give. */
static void convert_all(Case *c, const Tensor *x)
{
    int64_t dims[] = {x->dim[0], x->dim[1]};
    Tensor flat = case_tensor(c, "flat", DTYPE_F32, LAYOUT_ROWS, 2, dims, FILL_ZERO);
    op_convert(&flat, x);
    for (int from = 0; from < 4; from++)
        for (int to = 0; to < 4; to++) {
            DType d[2] = {from % 2 ? DTYPE_BF16 : DTYPE_F32, to % 2 ? DTYPE_BF16 : DTYPE_F32};
            Tensor a = case_tensor(c, "from", d[0], from < 2 ? LAYOUT_ROWS : LAYOUT_PANEL, 2, dims, FILL_ZERO);
            Tensor b = case_tensor(c, "to", d[1], to < 2 ? LAYOUT_ROWS : LAYOUT_PANEL, 2, dims, FILL_ZERO);
            memset(b.data, 0x55, tensor_bytes(&b));
            op_convert(&a, &flat);
            op_convert(&b, &a);
            case_output(c, "to", &b);
            for (int64_t e = 0; e < tensor_slots(&b) && to >= 2; e++) {
                bool bf16 = d[1] == DTYPE_BF16;
                int64_t columns = bf16 ? (dims[1] + 1) / 2 : dims[1], word = bf16 ? e / 2 : e;
                int64_t n = word / PANEL_N / columns * PANEL_N + word % PANEL_N;
                int64_t k = word / PANEL_N % columns * (bf16 ? 2 : 1) + (bf16 && e % 2 == 0);
                bool used = n < dims[0] && k < dims[1];
                uint32_t got = bf16 ? ((uint16_t *)b.data)[e] : ((uint32_t *)b.data)[e];
                case_expect(c, used || got == 0, "padding %lld of %s", (long long)e, tensor_text(&b));
            }
            for (int64_t e = 0; e < tensor_len(x); e++) {
                int64_t n = e / dims[1], k = e % dims[1];
                float v = (float)*case_at(&flat, e), got;
                uint16_t half = bf16_of(v);
                uint32_t bits = (uint32_t)half << 16;
                if (to % 2 == 0) {
                    if (from % 2)
                        memcpy(&v, &bits, sizeof v);
                    got = (float)*case_at(&b, e);
                    case_expect(c, memcmp(&got, &v, sizeof v) == 0, "%lld of %s from %s", (long long)e,
                                tensor_text(&b), tensor_text(&a));
                    continue;
                }
                uint16_t have = to < 2 ? ((uint16_t *)b.data)[e] : in_pairs(&b, n, k);
                case_expect(c, have == half, "%lld of %s from %s is %04x, not %04x", (long long)e,
                            tensor_text(&b), tensor_text(&a), have, half);
            }
        }
}

/* NaN stays NaN (quiet), infinities and the largest values round as they must. */
static void convert_special(Case *c)
{
    static const uint32_t in[] = {0x7fc00000, 0x7f800001, 0xff80ffff, 0x7f800000, 0xff800000, 0x7f7fffff,
                                  0x00000001, 0x80008000, 0x00008001, 0x3f808000, 0x3f818000, 0x7f7f7fff};
    static const uint16_t out[] = {0x7fc0, 0x7fc0, 0xffc0, 0x7f80, 0xff80, 0x7f80,
                                   0x0000, 0x8000, 0x0001, 0x3f80, 0x3f82, 0x7f7f};
    enum { N = sizeof in / sizeof *in };
    int64_t dims[] = {N, 1};
    Tensor x = case_tensor(c, "special", DTYPE_F32, LAYOUT_ROWS, 2, dims, FILL_ZERO);
    Tensor y = case_tensor(c, "special half", DTYPE_BF16, LAYOUT_ROWS, 2, dims, FILL_ZERO);
    memcpy(x.data, in, sizeof in);
    op_convert(&y, &x);
    for (int i = 0; i < N; i++)
        case_expect(c, ((uint16_t *)y.data)[i] == out[i], "bf16 of %08x is %04x, not %04x", in[i],
                    ((uint16_t *)y.data)[i], out[i]);
}

/* x -> panel -> bf16 rows -> f64 rows, from any layout to any other. */
bool test_convert(Case *c, int variant)
{
    Shape s;
    if (case_grad(c) || !pick(c, variant / 2, &s))
        return false;
    int64_t dims[] = {s.t, s.c};
    Tensor x = variant % 2 ? case_strided(c, "x", s.t, s.c, FILL_EXTREME)
                           : case_rows(c, "x", s.t, s.c, FILL_NORMAL);
    Tensor panel = case_panel(c, "panel", s.t, s.c, FILL_ZERO);
    Tensor half = case_tensor(c, "half", DTYPE_BF16, LAYOUT_ROWS, 2, dims, FILL_ZERO);
    Tensor half_panel = case_tensor(c, "half panel", DTYPE_BF16, LAYOUT_PANEL, 2, dims, FILL_ZERO);
    Tensor wide = case_tensor(c, "wide", DTYPE_F64, LAYOUT_ROWS, 2, dims, FILL_ZERO);
    memset(panel.data, 0x55, tensor_bytes(&panel)); /* padding becomes zero */
    memset(half_panel.data, 0x55, tensor_bytes(&half_panel));
    CASE_RUN(c)
    op_convert(&panel, &x);
    case_flops(c, 0, moved(s, 2));
    op_convert(&half, &panel);
    op_convert(&half_panel, &half);
    op_convert(&wide, &half_panel);
    if (!case_perf(c)) {
        convert_alike(c, &x, &half, &half_panel);
        convert_all(c, &x);
        convert_special(c);
    }
    case_output(c, "panel", &panel);
    case_output(c, "half", &half);
    case_output(c, "half panel", &half_panel);
    case_output(c, "wide", &wide);
    for (int64_t e = 0; !case_perf(c) && e < tensor_len(&x); e++) {
        uint16_t want = bf16_of((float)*case_at(&x, e));
        uint32_t bits = (uint32_t)want << 16;
        float back;
        memcpy(&back, &bits, sizeof back);
        case_expect(c, memcmp(case_at(&panel, e), case_at(&x, e), sizeof(real_t)) == 0,
                    "panel[%lld]", (long long)e);
        case_expect(c, ((uint16_t *)half.data)[e] == want, "bf16 of %a is %04x, not %04x",
                    (double)*case_at(&x, e), ((uint16_t *)half.data)[e], want);
        case_expect(c, ((double *)wide.data)[e] == back, "wide[%lld]", (long long)e);
    }
    return true;
}

bool test_axpy(Case *c, int variant)
{
    Shape s;
    if (case_grad(c) || !pick(c, variant / 8, &s))
        return false;
    bool accumulate = variant % 2;
    Tensor x = variant & 2 ? case_panel(c, "x", s.t, s.c, FILL_NORMAL)
                           : case_strided(c, "x", s.t, s.c, FILL_NORMAL);
    Tensor y = variant & 4 ? case_panel(c, "y", s.t, s.c, FILL_NORMAL)
                           : case_rows(c, "y", s.t, s.c, FILL_NORMAL);
    Tensor was = case_rows(c, "was", s.t, s.c, FILL_ZERO);
    op_convert(&was, &y);
    CASE_RUN(c)
    op_axpy(&y, -0.3, &x, accumulate);
    case_flops(c, 0, moved(s, accumulate ? 3 : 2));
    case_output(c, "y", &y);
    for (int64_t e = 0; !case_perf(c) && e < tensor_len(&y); e++) {
        real_t a = (real_t)-0.3, v = *case_at(&x, e);
        real_t want = accumulate ? (real_t)fma(a, v, *case_at(&was, e)) : a * v;
        /* fma in f64 of f32 values rounds twice: one ulp of slack */
        case_expect(c,
                    fabs((double)(*case_at(&y, e) - want)) <= fabs((double)want) * 0x1p-23 + 1e-9,
                    "y[%lld] is %a, not %a", (long long)e, (double)*case_at(&y, e), (double)want);
    }
    return true;
}

bool test_fill(Case *c, int variant)
{
    static const DType dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F64, DTYPE_I32, DTYPE_U8};
    if (case_grad(c) || variant >= 12)
        return false;
    int64_t dims[] = {37, 45};
    double value = variant % 2 ? 0 : 3;
    Tensor y = variant < 10
                   ? case_tensor(c, "y", dtypes[variant / 2], LAYOUT_ROWS, 2, dims, FILL_NORMAL)
                   : case_panel(c, "y", 37, 45, FILL_NORMAL);
    Tensor gaps = case_strided(c, "gaps", 20, 33, FILL_NORMAL);
    CASE_RUN(c)
    op_fill(&y, value);
    op_fill(&gaps, value);
    case_output(c, "y", &y);
    case_output(c, "gaps", &gaps);
    for (int64_t e = 0; variant >= 10 && e < 37 * 45; e++)
        case_expect(c, (double)*case_at(&y, e) == value, "y[%lld]", (long long)e);
    for (int64_t e = 0; e < 20 * 33; e++)
        case_expect(c, (double)*case_at(&gaps, e) == value, "gaps[%lld]", (long long)e);
    return true;
}

bool test_gather_rows(Case *c, int variant)
{
    Shape s;
    if (case_grad(c) || !pick(c, variant, &s))
        return elementwise_rows(c, ROWS_GATHER, variant - (int)(sizeof shapes / sizeof *shapes));
    int n = s.t * 2 / 3 + 1;
    Tensor x = case_strided(c, "x", s.t, s.c, FILL_NORMAL), rows = case_ids(c, "rows", n, s.t);
    Tensor y = case_strided(c, "y", n, s.c, FILL_ZERO);
    CASE_RUN(c)
    op_gather_rows(&y, &x, &rows);
    case_flops(c, 0, moved((Shape){n, s.c}, 2));
    case_output(c, "y", &y);
    for (int64_t e = 0; !case_perf(c) && e < tensor_len(&y); e++)
        case_expect(c,
                    *case_at(&y, e) ==
                        *case_at(&x, ((int32_t *)rows.data)[e / s.c] * (int64_t)s.c + e % s.c),
                    "y[%lld] is another row's", (long long)e);
    return true;
}

/* Also the backward of gather_rows: checked as its gradient. */
bool test_scatter_rows(Case *c, int variant)
{
    Shape s;
    if (!pick(c, variant, &s))
        return elementwise_rows(c, ROWS_SCATTER, variant - (int)(sizeof shapes / sizeof *shapes));
    int n = s.t * 2 / 3 + 1;
    Tensor x = case_strided(c, "x", n, s.c, FILL_NORMAL), rows = case_ids(c, "rows", n, s.t);
    Tensor y = case_strided(c, "y", s.t, s.c, FILL_NORMAL),
           was = case_rows(c, "was", s.t, s.c, FILL_ZERO);
    op_convert(&was, &y);
    CASE_RUN(c)
    op_scatter_rows(&y, &x, &rows);
    case_flops(c, 0, moved((Shape){n, s.c}, 3));
    case_output(c, "y", &y);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < s.c; j++)
            *case_at(&was, ((int32_t *)rows.data)[i] * (int64_t)s.c + j) +=
                *case_at(&x, i * s.c + j);
    for (int64_t e = 0; !case_perf(c) && e < tensor_len(&y); e++)
        case_expect(c, *case_at(&y, e) == *case_at(&was, e), "y[%lld]", (long long)e);
    case_loss(c, &y);
    if (!case_grad(c) || case_forward_only(c))
        return true;
    Tensor dy = case_rows(c, "dy", s.t, s.c, FILL_ZERO), dx = case_rows(c, "dx", n, s.c, FILL_ZERO);
    case_dy(c, &y, &dy);
    op_gather_rows(&dx, &dy, &rows);
    case_check(c, "dx", &x, &dx);
    return true;
}
