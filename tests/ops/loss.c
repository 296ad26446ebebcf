/* loss.c - per-sample losses against formulas in double, and their gradients. Gradients come from
 * the same call as the loss, so the gradient check runs the op twice: once for the loss, once with
 * the harness's weights. */
#include "tests/ops/test_ops.h"

#include <math.h>

static const int sizes[] = {1, 7, 33, 100};

static int size_of(const Case *c, int variant)
{
    return (size_t)variant < sizeof sizes / sizeof *sizes && !(case_grad(c) && variant > 2)
               ? sizes[variant]
               : 0;
}

static double log_sigmoid(double x)
{
    return x < 0 ? x - log1p(exp(x)) : -log1p(exp(-x));
}

static void expect_near(Case *c, const char *what, int64_t i, double got, double want)
{
    case_expect(c, fabs(got - want) <= 4e-6 * (1 + fabs(want)), "%s[%lld] is %.9g, not %.9g", what,
                (long long)i, got, want);
}

bool test_rank_loss(Case *c, int variant)
{
    int n = size_of(c, variant);
    if (!n)
        return false;
    Tensor scores = case_rows(c, "scores", 2 * n, 0, FILL_NORMAL);
    Tensor margin = case_rows(c, "margin", n, 0, FILL_POSITIVE);
    Tensor weight = case_rows(c, "weight", n, 0, FILL_POSITIVE);
    Tensor loss = case_rows(c, "loss", n, 0, FILL_ZERO), d = case_rows(c, "d", 2 * n, 0, FILL_ZERO);
    if (!case_grad(c) && n > 1) { /* saturated both ways */
        *case_at(&scores, 0) = 200;
        *case_at(&scores, 2) = -200;
    }
    CASE_RUN(c)
    op_rank_loss(&loss, &d, &scores, &margin, &weight);
    case_output(c, "loss", &loss);
    case_output(c, "d", &d);
    for (int i = 0; i < n; i++) {
        double x =
            (double)*case_at(&scores, 2 * i) - *case_at(&scores, 2 * i + 1) - *case_at(&margin, i);
        double g = *case_at(&weight, i) / (1 + exp(x));
        expect_near(c, "loss", i, *case_at(&loss, i), -log_sigmoid(x));
        expect_near(c, "d chosen", i, *case_at(&d, 2 * i), -g);
        expect_near(c, "d rejected", i, *case_at(&d, 2 * i + 1), g);
    }
    case_loss(c, &loss);
    if (!case_grad(c) || case_forward_only(c))
        return true;
    Tensor dx = case_rows(c, "dx", 2 * n, 0, FILL_ZERO);
    case_dy(c, &loss, &weight);
    op_rank_loss(&loss, &dx, &scores, &margin, &weight);
    case_check(c, "dscores", &scores, &dx);
    return true;
}

bool test_bce_loss(Case *c, int variant)
{
    int n = size_of(c, variant);
    if (!n)
        return false;
    Tensor scores = case_rows(c, "scores", n, 0, FILL_NORMAL),
           labels = case_rows(c, "labels", n, 0, FILL_ZERO);
    Tensor weight = case_rows(c, "weight", n, 0, FILL_POSITIVE);
    Tensor loss = case_rows(c, "loss", n, 0, FILL_ZERO), d = case_rows(c, "d", n, 0, FILL_ZERO);
    for (int i = 0; i < n; i++)
        *case_at(&labels, i) = i % 2;
    if (!case_grad(c) && n > 2) {
        *case_at(&scores, 1) = 150;
        *case_at(&scores, 2) = -150;
    }
    CASE_RUN(c)
    op_bce_loss(&loss, &d, &scores, &labels, &weight);
    case_output(c, "loss", &loss);
    case_output(c, "d", &d);
    for (int i = 0; i < n; i++) {
        double x = *case_at(&scores, i), y = *case_at(&labels, i);
        expect_near(c, "loss", i, *case_at(&loss, i),
                    -(y * log_sigmoid(x) + (1 - y) * log_sigmoid(-x)));
        expect_near(c, "d", i, *case_at(&d, i), *case_at(&weight, i) * (1 / (1 + exp(-x)) - y));
    }
    case_loss(c, &loss);
    if (!case_grad(c) || case_forward_only(c))
        return true;
    Tensor dx = case_rows(c, "dx", n, 0, FILL_ZERO);
    case_dy(c, &loss, &weight);
    op_bce_loss(&loss, &dx, &scores, &labels, &weight);
    case_check(c, "dscores", &scores, &dx);
    return true;
}

/* x moved to where differences do not cross a kink: nearer than 0.01 to an edge goes beyond it. */
static void avoid(Case *c, real_t *x, double edge)
{
    if (case_grad(c) && fabs((double)*x - edge) < 0.01)
        *x = (real_t)(edge + 0.02);
}

bool test_policy_loss(Case *c, int variant)
{
    const double clip = 0.2;
    int n = size_of(c, variant);
    if (!n)
        return false;
    Tensor logp = case_rows(c, "logp", n, 0, FILL_ZERO),
           old = case_rows(c, "old", n, 0, FILL_NORMAL);
    Tensor step = case_rows(c, "step", n, 0, FILL_NORMAL),
           adv = case_rows(c, "adv", n, 0, FILL_NORMAL);
    Tensor weight = case_rows(c, "weight", n, 0, FILL_POSITIVE),
           ratio = case_rows(c, "ratio", n, 0, FILL_ZERO);
    Tensor loss = case_rows(c, "loss", n, 0, FILL_ZERO), d = case_rows(c, "d", n, 0, FILL_ZERO);
    for (int i = 0; i < n; i++) {
        real_t *s = case_at(&step, i); /* log ratio: inside and outside of the clip range */
        *s = i % 5 == 0 && !case_grad(c) ? 0 : *s * (real_t)0.3;
        avoid(c, s, log(1 - clip));
        avoid(c, s, log(1 + clip));
        *case_at(&logp, i) += *case_at(&old, i) + *s;
    }
    CASE_RUN(c)
    op_policy_loss(&loss, &d, &ratio, &logp, &old, &adv, &weight, clip);
    case_output(c, "loss", &loss);
    case_output(c, "d", &d);
    case_output(c, "ratio", &ratio);
    for (int i = 0; i < n; i++) {
        double r = exp((double)*case_at(&logp, i) - *case_at(&old, i)), a = *case_at(&adv, i);
        double cut = fmin(fmax(r, 1 - clip), 1 + clip);
        expect_near(c, "loss", i, *case_at(&loss, i), -fmin(r * a, cut * a));
        if (i % 5 == 0 && !case_grad(c))
            case_expect(c, *case_at(&ratio, i) == 1, "ratio of equal log-probabilities is %a",
                        (double)*case_at(&ratio, i));
    }
    case_loss(c, &loss);
    if (!case_grad(c) || case_forward_only(c))
        return true;
    Tensor dx = case_rows(c, "dx", n, 0, FILL_ZERO);
    case_dy(c, &loss, &weight);
    op_policy_loss(&loss, &dx, &ratio, &logp, &old, &adv, &weight, clip);
    case_check(c, "dlogp", &logp, &dx);
    return true;
}

bool test_xent_loss(Case *c, int variant)
{
    int n = size_of(c, variant);
    if (!n)
        return false;
    Tensor logp = case_rows(c, "logp", n, 0, FILL_NORMAL), weight = case_rows(c, "weight", n, 0, FILL_POSITIVE);
    Tensor loss = case_rows(c, "loss", n, 0, FILL_ZERO), d = case_rows(c, "d", n, 0, FILL_ZERO);
    if (!case_grad(c)) /* a gradient of zero has no error relative to its norm */
        *case_at(&weight, 0) = 0;
    CASE_RUN(c)
    op_xent_loss(&loss, &d, &logp, &weight);
    case_output(c, "loss", &loss);
    case_output(c, "d", &d);
    for (int i = 0; i < n; i++)
        expect_near(c, "loss", i, *case_at(&loss, i), -(double)*case_at(&weight, i) * *case_at(&logp, i));
    case_loss(c, &loss);
    if (!case_grad(c) || case_forward_only(c))
        return true;
    Tensor dx = case_rows(c, "dx", n, 0, FILL_ZERO), w = case_rows(c, "w", n, 0, FILL_ZERO);
    case_dy(c, &loss, &w);
    for (int i = 0; i < n; i++)
        *case_at(&w, i) *= *case_at(&weight, i);
    op_xent_loss(&loss, &dx, &logp, &w);
    case_check(c, "dlogp", &logp, &dx);
    return true;
}

bool test_value_loss(Case *c, int variant)
{
    int n = size_of(c, variant / 2);
    double clip = variant % 2 ? 0.2 : 0;
    if (!n)
        return false;
    Tensor value = case_rows(c, "value", n, 0, FILL_ZERO),
           old = case_rows(c, "old", n, 0, FILL_NORMAL);
    Tensor step = case_rows(c, "step", n, 0, FILL_NORMAL),
           ret = case_rows(c, "ret", n, 0, FILL_NORMAL);
    Tensor weight = case_rows(c, "weight", n, 0, FILL_POSITIVE);
    Tensor loss = case_rows(c, "loss", n, 0, FILL_ZERO), d = case_rows(c, "d", n, 0, FILL_ZERO);
    for (int i = 0; i < n; i++) {
        real_t *s = case_at(&step, i);
        *s *= (real_t)0.3;
        avoid(c, s, -0.2);
        avoid(c, s, 0.2);
        *case_at(&value, i) += *case_at(&old, i) + *s;
    }
    CASE_RUN(c)
    op_value_loss(&loss, &d, &value, &old, &ret, &weight, clip);
    case_output(c, "loss", &loss);
    case_output(c, "d", &d);
    for (int i = 0; i < n; i++) {
        double v = *case_at(&value, i), o = *case_at(&old, i), e = v - *case_at(&ret, i);
        double near = clip > 0 ? fmin(fmax(v, o - clip), o + clip) - *case_at(&ret, i) : e;
        expect_near(c, "loss", i, *case_at(&loss, i), 0.5 * fmax(e * e, near * near));
    }
    case_loss(c, &loss);
    if (!case_grad(c) || case_forward_only(c))
        return true;
    Tensor dx = case_rows(c, "dx", n, 0, FILL_ZERO);
    case_dy(c, &loss, &weight);
    op_value_loss(&loss, &dx, &value, &old, &ret, &weight, clip);
    case_check(c, "dvalue", &value, &dx);
    return true;
}
