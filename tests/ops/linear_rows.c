/* linear_rows.c - products of bf16 rows on a card: each sum against f64 over the same rounded
 * operands and against the CPU's, within the roundings of its steps; and the equalities that must
 * hold in bits: a row alone and in a batch, for every number of rows that the probe tries; f32
 * operands and their rounded copies; what is stored, added once. Sizes lie around 8, 16 and 32 (an
 * mma, a stage), 64 and 128 (tiles); rows that are not whole 16 bytes go another way. */
#include "tests/ops/test_ops.h"

#include "common/base/error.h"
#include "common/runtime/bf16.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int m, n, k;
} Shape;

static const Shape shapes[] = {
    {1, 1, 1},    {1, 16, 128},   {2, 8, 31},    {3, 17, 33},    {7, 33, 129}, {8, 16, 256},
    {9, 31, 16},  {16, 15, 136},  {17, 40, 200}, {33, 65, 127},  {64, 32, 64}, {64, 7, 95},
    {65, 64, 40}, {100, 129, 72}, {129, 63, 17}, {128, 128, 64}, {0, 24, 40},  {200, 24, 264},
    {24, 130, 8}, {31, 256, 160}, {250, 250, 96}};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };
/* The numbers of rows of design.md's probe; the last is the batch. */
static const int rows_tried[] = {1, 2, 3, 7, 8, 16, 17, 33, 64, 65, 129, 256, 4096};
enum { N_ROWS = sizeof rows_tried / sizeof *rows_tried, N_TRIALS = 2 };

/* ---- tensors ------------------------------------------------------------------------------------
 */

/* Element e as a product reads it: rounded. */
static double operand(const Tensor *t, int64_t row, int64_t col)
{
    int64_t at = row * t->stride + col;
    return t->dtype == DTYPE_BF16 ? f32_of_bf16(((const uint16_t *)t->data)[at])
                                  : f32_of_bf16(bf16_of_f32(((const float *)t->data)[at]));
}

static double stored(const Tensor *t, int64_t row, int64_t col)
{
    int64_t at = row * t->stride + col;
    return t->dtype == DTYPE_BF16 ? f32_of_bf16(((const uint16_t *)t->data)[at])
                                  : ((const float *)t->data)[at];
}

/* A tensor of normal numbers, f32 or rounded. gap: rows that lie apart. */
static Tensor matrix(Case *c, const char *name, DType dtype, int64_t d0, int64_t d1, bool gap)
{
    Tensor x =
        gap ? case_strided(c, name, d0, d1, FILL_NORMAL) : case_rows(c, name, d0, d1, FILL_NORMAL);
    if (dtype == DTYPE_F32)
        return x;
    Tensor h = gap ? case_strided_of(c, name, dtype, d0, d1)
                   : case_tensor(c, name, dtype, LAYOUT_ROWS, 2, (int64_t[]){d0, d1}, FILL_ZERO);
    for (int64_t i = 0; i < d0; i++)
        for (int64_t j = 0; j < d1; j++)
            ((uint16_t *)h.data)[i * h.stride + j] =
                bf16_of_f32(((const float *)x.data)[i * x.stride + j]);
    return h;
}

static bool same_rows(const Tensor *a, const Tensor *b)
{
    size_t size = dtype_bytes(a->dtype);
    for (int64_t i = 0; i < a->dim[0]; i++)
        if (memcmp((const char *)a->data + (size_t)(i * a->stride) * size,
                   (const char *)b->data + (size_t)(i * b->stride) * size,
                   (size_t)a->dim[1] * size) != 0)
            return false;
    return true;
}

/* ---- a product ------------------------------------------------------------------------------- */

/* c (+)= a b, as the ops name them: a is x or dy, b is w, or x of dw. */
static void run(RowsProduct op, Tensor *c, const Tensor *a, const Tensor *b, bool accumulate)
{
    if (op == ROWS_Y)
        op_linear(c, a, b, accumulate);
    else if (op == ROWS_DX)
        op_linear_dx(c, a, b, accumulate);
    else
        op_linear_dw(c, a, b, DTYPE_BF16, accumulate);
    device_sync(c->dev);
}

/* sum a b of element (i, j), and the sum of the links' sizes. */
static double sum_of(RowsProduct op, const Tensor *a, const Tensor *b, int64_t i, int64_t j,
                     double *size)
{
    double sum = 0;
    int64_t links = op == ROWS_DW ? a->dim[0] : a->dim[1];
    *size = 0;
    for (int64_t k = 0; k < links; k++) {
        double p = operand(a, op == ROWS_DW ? k : i, op == ROWS_DW ? i : k) *
                   operand(b, op == ROWS_Y ? j : k, op == ROWS_Y ? k : j);
        sum += p;
        *size += fabs(p);
    }
    return sum;
}

/* A tensor core adds exact products to a running sum, each addition truncated at worst: 2^-23 of
 * the largest value it has seen, twice for the alignment of the products. A result in bf16 is
 * rounded once more, 2^-9 of itself. */
static void check_sums(Case *c, RowsProduct op, const Tensor *y, const Tensor *old, const Tensor *a,
                       const Tensor *b)
{
    int64_t links = op == ROWS_DW ? a->dim[0] : a->dim[1];
    for (int64_t i = 0; i < y->dim[0]; i++)
        for (int64_t j = 0; j < y->dim[1]; j++) {
            double size, sum = sum_of(op, a, b, i, j, &size), was = old ? stored(old, i, j) : 0;
            double got = stored(y, i, j), want = sum + was;
            double bound = 0x1p-22 * (double)(links + 1) * size + 0x1p-23 * fabs(want) +
                           (y->dtype == DTYPE_BF16 ? 0x1p-8 * fabs(want) : 0);
            if (fabs(got - want) <= bound)
                continue;
            case_expect(c, false, "(%lld, %lld) is %g, not %g within %g", (long long)i,
                        (long long)j, got, want, bound);
            return;
        }
}

/* A tensor like t, rows as far apart: whether they are whole 16 bytes may choose the kernel. */
static Tensor empty_like(Case *c, const Tensor *t)
{
    return t->stride > t->dim[1]
               ? case_strided_of(c, "like", t->dtype, t->dim[0], t->dim[1])
               : case_tensor(c, "like", t->dtype, LAYOUT_ROWS, 2, t->dim, FILL_ZERO);
}

static Tensor copy_of(Case *c, const Tensor *t)
{
    Tensor copy = empty_like(c, t);
    size_t size = dtype_bytes(t->dtype);
    for (int64_t i = 0; i < t->dim[0]; i++)
        memcpy((char *)copy.data + (size_t)(i * copy.stride) * size,
               (const char *)t->data + (size_t)(i * t->stride) * size, (size_t)t->dim[1] * size);
    return copy;
}

/* The same values, in bf16. */
static Tensor rounded(Case *c, const Tensor *t)
{
    Tensor h = case_tensor(c, "rounded", DTYPE_BF16, LAYOUT_ROWS, 2, t->dim, FILL_ZERO);
    for (int64_t i = 0; i < t->dim[0]; i++)
        for (int64_t j = 0; j < t->dim[1]; j++)
            ((uint16_t *)h.data)[i * h.stride + j] = bf16_of_f32((float)operand(t, i, j));
    return h;
}

/* c = old + the product, one addition: from the product alone. f32. */
static void check_once(Case *c, RowsProduct op, const Tensor *y, const Tensor *old, const Tensor *a,
                       const Tensor *b)
{
    Tensor alone = empty_like(c, y);
    run(op, &alone, a, b, false);
    for (int64_t i = 0; i < y->dim[0]; i++)
        for (int64_t j = 0; j < y->dim[1]; j++) {
            float want = (float)stored(old, i, j) + (float)stored(&alone, i, j);
            if ((float)stored(y, i, j) == want)
                continue;
            case_expect(c, false, "(%lld, %lld) is not what was stored plus the product",
                        (long long)i, (long long)j);
            return;
        }
}

/* The CPU's product of the same operands, in rows. */
static void cpu_product(RowsProduct op, Arena *arena, Tensor *out, const Tensor *a, const Tensor *b)
{
    Tensor af = {0}, bf = {0}, panel = {0};
    const int64_t M = a->dim[0], cols = op == ROWS_Y ? b->dim[0] : b->dim[1];
    for (int pass = 0; pass < 2; pass++) {
        af = arena_rows2(arena, DTYPE_F32, M, a->dim[1]);
        bf = arena_rows2(arena, DTYPE_F32, b->dim[0], b->dim[1]);
        panel = op == ROWS_DW ? arena_panel(arena, DTYPE_F32, a->dim[1], cols)
                              : arena_panel(arena, DTYPE_BF16, b->dim[0], b->dim[1]);
        *out = arena_rows2(arena, DTYPE_F32, op == ROWS_DW ? a->dim[1] : M, cols);
        if (!pass)
            CHECK(arena_commit(arena) == 0, "%s", error_text());
    }
    for (int64_t e = 0; e < tensor_len(&af); e++)
        ((float *)af.data)[e] = (float)operand(a, e / a->dim[1], e % a->dim[1]);
    for (int64_t e = 0; e < tensor_len(&bf); e++)
        ((float *)bf.data)[e] = (float)operand(b, e / b->dim[1], e % b->dim[1]);
    if (op == ROWS_DW) {
        op_linear_dw(&panel, &af, &bf, DTYPE_BF16, false);
        op_convert(out, &panel);
        return;
    }
    op_convert(&panel, &bf);
    run(op, out, &af, &panel, false);
}

/* The CPU's bf16 mode: an order of its own, so within the roundings of both. The shim's tensor core
 * has the CPU's order, and then the bits. */
static void check_cpu(Case *c, RowsProduct op, const Tensor *a, const Tensor *b)
{
    const bool same_order = strstr(device_text(case_device(c)), "host shim") && !getenv("EMU_BLAS");
    const int64_t links = op == ROWS_DW ? a->dim[0] : a->dim[1];
    Device *cpu = NULL;
    Arena arena;
    Tensor want;
    CHECK(device_open(&cpu, &(DeviceOptions){.name = "cpu", .threads = 1, .isa = ISA_PLAIN}) == 0, "%s",
          error_text());
    arena_init(&arena, cpu, ARENA_HOST, "cpu");
    cpu_product(op, &arena, &want, a, b);
    Tensor got = case_rows(c, "card", want.dim[0], want.dim[1], FILL_ZERO);
    run(op, &got, a, b, false);
    for (int64_t e = 0; e < tensor_len(&got); e++) {
        const int64_t i = e / got.dim[1], j = e % got.dim[1];
        double size, x = ((const float *)got.data)[e], y = ((const float *)want.data)[e];
        sum_of(op, a, b, i, j, &size);
        if (x == y || (!same_order && fabs(x - y) <= 0x1p-21 * (double)(links + 1) * size))
            continue;
        case_expect(c, false, "(%lld, %lld) is %a, the CPU's is %a", (long long)i, (long long)j, x,
                    y);
        break;
    }
    arena_free(&arena);
    device_close(cpu);
}

/* mode 0: bf16 throughout, dense. 1: f32 operands and result, rows apart, accumulating. 2: bf16
 * into f32, accumulating. 3: f32 into bf16, rows apart, accumulating. */
static void try_shape(Case *c, RowsProduct op, Shape s, int mode)
{
    const bool gap = mode % 2, accumulate = mode > 0;
    const DType in = mode % 2 ? DTYPE_F32 : DTYPE_BF16;
    const DType out = op == ROWS_DW || mode == 1 || mode == 2 ? DTYPE_F32 : DTYPE_BF16;
    Tensor a =
        op == ROWS_Y ? matrix(c, "x", in, s.m, s.k, gap) : matrix(c, "dy", in, s.m, s.n, gap);
    Tensor b = op == ROWS_DW ? matrix(c, "x", mode == 3 ? DTYPE_BF16 : in, s.m, s.k, gap)
                             : matrix(c, "w", DTYPE_BF16, s.n, s.k, gap);
    Tensor y = matrix(c, "c", out, op == ROWS_DW ? s.n : s.m, op == ROWS_Y ? s.n : s.k, gap);
    Tensor old = copy_of(c, &y);
    run(op, &y, &a, &b, accumulate);
    check_sums(c, op, &y, accumulate ? &old : NULL, &a, &b);
    Tensor ha = in == DTYPE_F32 ? rounded(c, &a) : a, again = copy_of(c, &old);
    Tensor hb = b.dtype == DTYPE_F32 ? rounded(c, &b) : b;
    const bool sliced = op == ROWS_DW && gap && s.m > 64; /* of f32 operands: sums of their own */
    run(op, &again, &ha, &hb, accumulate);
    case_expect(c, sliced || same_rows(&y, &again), "operands rounded before give other bits");
    if (mode == 2)
        check_cpu(c, op, &a, &b);
    if (accumulate && !sliced && out == DTYPE_F32)
        check_once(c, op, &y, &old, &a, &b);
}

/* ---- rows alone and in a batch --------------------------------------------------------------- */

/* Links from the middle of the chain on become those before, times -1 in w: sums are zero but for
 * their roundings, so another order shows, in bf16 too. down: the chain runs over rows. */
static void fold(Tensor *t, bool down, bool turn)
{
    const int64_t links = t->dim[down ? 0 : 1], others = t->dim[down ? 1 : 0], half = links / 2;
    const size_t size = dtype_bytes(t->dtype);
    for (int64_t i = 0; i < others; i++)
        for (int64_t k = half; k < 2 * half; k++) {
            const int64_t step = down ? t->stride : 1, row = i * (down ? 1 : t->stride);
            char *to = (char *)t->data + (size_t)(row + k * step) * size;
            memcpy(to, to - (size_t)(half * step) * size, size);
            to[size - 1] ^= turn ? (char)0x80 : 0;
        }
}

static void try_rows(Case *c, RowsProduct op, int trial)
{
    const int64_t M = rows_tried[N_ROWS - 1], n = trial ? 40 : 19, k = trial ? 72 : 33;
    const DType in = trial ? DTYPE_BF16 : DTYPE_F32, out = trial ? DTYPE_BF16 : DTYPE_F32;
    Tensor a = op == ROWS_Y ? matrix(c, "x", in, M, k, false) : matrix(c, "dy", in, M, n, false);
    Tensor w = matrix(c, "w", DTYPE_BF16, n, k, false);
    Tensor y = matrix(c, "c", out, M, op == ROWS_Y ? n : k, false);
    fold(&a, false, false);
    fold(&w, op == ROWS_DX, true);
    run(op, &y, &a, &w, false);
    for (int i = 0; i < N_ROWS - 1; i++)
        for (int last = 0; last < 2; last++) {
            const int64_t rows = rows_tried[i], from = last ? M - rows : 0;
            Tensor part = matrix(c, "part", out, rows, y.dim[1], false),
                   ar = tensor_slice(&a, from, rows), yr = tensor_slice(&y, from, rows);
            run(op, &part, &ar, &w, false);
            case_expect(c, same_rows(&part, &yr), "%lld rows alone differ from the same in %lld",
                        (long long)rows, (long long)M);
        }
}

/* Tokens in units, one product each, in order: the gradient after both is the first plus the
 * second, which does not depend on where its rows lie. */
static void try_units(Case *c, int trial)
{
    const int64_t M = 150, cut = trial ? 64 : 77, n = 40, k = trial ? 70 : 72;
    Tensor dy = matrix(c, "dy", DTYPE_BF16, M, n, false),
           x = matrix(c, "x", DTYPE_BF16, M, k, false);
    Tensor dw = case_rows(c, "dw", n, k, FILL_ZERO), first = case_rows(c, "first", n, k, FILL_ZERO);
    for (int unit = 0; unit < 2; unit++) {
        Tensor dyu = tensor_slice(&dy, unit ? cut : 0, unit ? M - cut : cut),
               xu = tensor_slice(&x, unit ? cut : 0, unit ? M - cut : cut);
        run(ROWS_DW, &dw, &dyu, &xu, unit);
        if (!unit) {
            memcpy(first.data, dw.data, tensor_bytes(&dw));
            continue;
        }
        Tensor dy_alone = copy_of(c, &dyu), x_alone = copy_of(c, &xu);
        check_once(c, ROWS_DW, &dw, &first, &dy_alone, &x_alone);
    }
    check_sums(c, ROWS_DW, &dw, NULL, &dy, &x);
}

bool linear_rows(Case *c, RowsProduct op, int variant)
{
    if (case_grad(c) || case_perf(c) || variant < 0 || variant >= 4 * N_SHAPES + N_TRIALS)
        return false;
    if (case_card_only(c))
        return true;
    if (!device_can_bf16(case_device(c)))
        case_expect(c, false, "this card has no products of bf16");
    else if (variant < 4 * N_SHAPES)
        try_shape(c, op, shapes[variant / 4], variant % 4);
    else if (op == ROWS_DW)
        try_units(c, variant - 4 * N_SHAPES);
    else
        try_rows(c, op, variant - 4 * N_SHAPES);
    return true;
}
