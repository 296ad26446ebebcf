/* optimizer.c - sums of squares around the block size, and AdamW against PyTorch's formula in
 * double. */
#include "tests/ops/test_ops.h"

#include <math.h>
#include <string.h>

bool test_sumsq(Case *c, int variant)
{
    static const int sizes[] = {
        1, 31, 33, 1000, SUMSQ_BLOCK - 1, SUMSQ_BLOCK, SUMSQ_BLOCK + 1, 3 * SUMSQ_BLOCK + 77};
    if (case_grad(c) || (size_t)variant > sizeof sizes / sizeof *sizes)
        return false;
    bool panel = (size_t)variant == sizeof sizes / sizeof *sizes; /* padding adds nothing */
    Tensor x = panel ? case_panel(c, "x", 45, 1700, FILL_NORMAL)
                     : case_rows(c, "x", sizes[variant], 0, FILL_NORMAL);
    int64_t n = (tensor_slots(&x) + SUMSQ_BLOCK - 1) / SUMSQ_BLOCK;
    Tensor partial = case_f64(c, "partial", n);
    CASE_RUN(c)
    op_sumsq(&partial, &x);
    case_flops(c, 0, (double)tensor_bytes(&x));
    case_output(c, "partial", &partial);
    double sum = 0, want = 0;
    for (int64_t i = 0; i < n; i++)
        sum += ((double *)partial.data)[i];
    for (int64_t e = 0; e < tensor_len(&x); e++)
        want += (double)*case_at(&x, e) * *case_at(&x, e);
    /* products are exact in f64; under 2^18 additions of positive terms */
    case_expect(c, fabs(sum - want) <= want * 0x1p-34, "the sum is %.17g, not %.17g", sum, want);
    return true;
}

/* w, m, v of `t` updated with a copy made in the same pass. */
typedef struct {
    Tensor at[3], copy;
} WithCopy;

static WithCopy with_copy(Case *c, const Tensor *t, AdamwArgs a)
{
    int64_t dims[2] = {t[0].dim[0], t[0].n_dims > 1 ? t[0].dim[1] : 1};
    WithCopy o;
    for (int i = 0; i < 3; i++) {
        o.at[i] = case_tensor(c, "again", DTYPE_REAL, t[0].layout, t[0].n_dims, dims, FILL_ZERO);
        op_convert(&o.at[i], &t[i]);
    }
    o.copy = case_tensor(c, "copy", DTYPE_BF16, t[0].layout, t[0].n_dims, dims, FILL_ZERO);
    memset(o.copy.data, 0x55, tensor_bytes(&o.copy));
    op_adamw(&o.at[0], &o.at[1], &o.at[2], &o.copy, &t[3], a);
    case_output(c, "copy", &o.copy);
    return o;
}

/* The copy is what op_convert makes of the new weight; the rest is what it is without one. */
static void copy_check(Case *c, const WithCopy *o, const Tensor *t)
{
    Tensor want = case_tensor(c, "want", DTYPE_BF16, t[0].layout, t[0].n_dims, t[0].dim, FILL_ZERO);
    op_convert(&want, &t[0]);
    for (int i = 0; i < 3; i++)
        case_expect(c, memcmp(o->at[i].data, t[i].data, tensor_bytes(&t[i])) == 0,
                    "%c has other bits with a copy", "wmv"[i]);
    case_expect(c, memcmp(o->copy.data, want.data, tensor_bytes(&want)) == 0,
                "the copy is not the rounded weight");
}

/* Layouts and sizes: of vectors, then panels, the second of odd width; then rows. */
bool test_adamw(Case *c, int variant)
{
    static const int sizes[] = {1, 31, 33, 100, 5000};
    enum { VECTORS = sizeof sizes / sizeof *sizes };
    if (case_grad(c) || variant > VECTORS + 2)
        return false;
    bool panel = variant == VECTORS || variant == VECTORS + 1;
    int64_t d1 = variant == VECTORS + 1 ? 34 : variant == VECTORS + 2 ? 130 : 333;
    Tensor t[4], was[3];
    const char *const name[] = {"w", "m", "v", "grad"};
    for (int i = 0; i < 4; i++) {
        Fill fill = i == 2 ? FILL_POSITIVE : FILL_NORMAL;
        t[i] = panel ? case_panel(c, name[i], case_perf(c) ? 3200 : 45, d1, fill)
               : variant > VECTORS ? case_rows(c, name[i], 45, d1, fill)
               : case_rows(c, name[i], case_perf(c) ? 1 << 20 : sizes[variant], 0, fill);
        if (i < 3) {
            was[i] = case_rows(c, "was", tensor_rows(&t[i]), tensor_cols(&t[i]), FILL_ZERO);
            for (int64_t e = 0; e < tensor_len(&t[i]); e++)
                *case_at(&was[i], e) = *case_at(&t[i], e);
        }
    }
    AdamwArgs a = {.lr = 3e-3,
                   .beta1 = 0.9,
                   .beta2 = 0.95,
                   .eps = 1e-5,
                   .decay = 0.1,
                   .grad_scale = 0.5,
                   .step = variant == 0 ? 1 : 7};
    WithCopy other = with_copy(c, t, a);
    CASE_RUN(c)
    op_adamw(&t[0], &t[1], &t[2], case_perf(c) && panel ? &other.copy : NULL, &t[3], a);
    case_flops(c, 0, (panel ? 7.5 : 7.0) * (double)tensor_bytes(&t[0]));
    copy_check(c, &other, t);
    for (int i = 0; i < 3; i++)
        case_output(c, name[i], &t[i]);
    for (int64_t e = 0; !case_perf(c) && e < tensor_len(&t[0]); e++) {
        double g = *case_at(&t[3], e) * a.grad_scale;
        double m = a.beta1 * *case_at(&was[1], e) + (1 - a.beta1) * g;
        double v = a.beta2 * *case_at(&was[2], e) + (1 - a.beta2) * g * g;
        double w = *case_at(&was[0], e) * (1 - a.lr * a.decay);
        w -= a.lr / (1 - pow(a.beta1, (double)a.step)) * m /
             (sqrt(v) / sqrt(1 - pow(a.beta2, (double)a.step)) + a.eps);
        case_expect(c,
                    fabs(*case_at(&t[0], e) - w) <= 1e-6 * (1 + fabs(w)) &&
                        fabs(*case_at(&t[1], e) - m) <= 1e-6 * (1 + fabs(m)) &&
                        fabs(*case_at(&t[2], e) - v) <= 1e-6 * (1 + v),
                    "element %lld: w is %.9g, not %.9g", (long long)e, (double)*case_at(&t[0], e),
                    w);
    }
    return true;
}
