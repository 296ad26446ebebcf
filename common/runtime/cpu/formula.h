/* formula.h - what one element, pair or sample of an op is, written once for the CPU's bodies and
 * for the kernels of cuda/: what is left to a body is which element a thread owns. Formulas and
 * their sources: ops.h. Tested by tests/ops. */
#ifndef RLHF_RUNTIME_CPU_FORMULA_H
#define RLHF_RUNTIME_CPU_FORMULA_H

#include "common/runtime/bf16.h"
#include "common/runtime/cpu/kmath.h"
#include "common/runtime/ops.h"

/* ---- elementwise ----------------------------------------------------------------------------- */

K_INLINE real_t formula_swiglu(real_t gate, real_t up)
{
    return gate * k_sigmoid(gate) * up;
}

/* With s = sigmoid(g): dup = dy g s, dgate = dy up s (1 + g (1 - s)). */
K_INLINE void formula_swiglu_backward(real_t *dgate, real_t *dup, real_t dy, real_t gate, real_t up)
{
    real_t s = k_sigmoid(gate);
    real_t slope = s * real_fma(gate, (real_t)1 - s, (real_t)1);
    *dup = dy * (gate * s);
    *dgate = dy * up * slope;
}

/* Rotates (a, b) by the angle of this cosine and sine. */
K_INLINE void formula_rope(real_t *a, real_t *b, real_t cosine, real_t sine)
{
    real_t x = *a, y = *b;
    *a = real_fma(x, cosine, -(y * sine));
    *b = real_fma(y, cosine, x * sine);
}

/* Element `at` of f32, f64 or bf16 storage: exact. */
K_INLINE double formula_read(const void *data, DType dtype, int64_t at)
{
    if (dtype == DTYPE_F64)
        return ((const double *)data)[at];
    if (dtype == DTYPE_F32)
        return ((const float *)data)[at];
    return f32_of_bf16(((const uint16_t *)data)[at]);
}

/* f64 -> f32 and f32 -> bf16 round to nearest even; f64 -> bf16 is the two one after the other. A
 * NaN stays one. */
K_INLINE void formula_write(void *data, DType dtype, int64_t at, double value)
{
    if (dtype == DTYPE_F64) {
        ((double *)data)[at] = value;
        return;
    }
    float f = (float)value;
    if (dtype == DTYPE_F32) {
        ((float *)data)[at] = f;
        return;
    }
    ((uint16_t *)data)[at] = bf16_of_f32(f);
}

/* ---- vocabulary rows ------------------------------------------------------------------------- */

/* Gradient of one logit; hit = 1 at the target, else 0; g = dlogp * inv_temp. */
K_INLINE real_t formula_dlogit(real_t z, real_t hit, real_t g, real_t lse, real_t inv_temp)
{
    return g * (hit - k_exp(z * inv_temp - lse));
}

/* The index at which `sum` + w[0] + w[1] + ... passes target. What rounding leaves over falls to
 * the last positive weight, so a weight of 0 is never drawn; -1 when none is positive. *below: the
 * sum before that index. */
K_INLINE int64_t formula_walk(const real_t *w, int64_t n, double sum, double target, double *below)
{
    int64_t at = -1;
    *below = sum;
    for (int64_t i = 0; i < n; i++) {
        if (w[i] > 0) {
            at = i;
            *below = sum;
        }
        sum += (double)w[i];
        if (target < sum)
            break;
    }
    return at;
}

/* ---- losses: sample i ------------------------------------------------------------------------ */

K_INLINE real_t formula_clamp(real_t x, real_t low, real_t high)
{
    return x < low ? low : x > high ? high : x;
}

K_INLINE void formula_xent_loss(int64_t i, real_t *loss, real_t *dlogp, const real_t *logp,
                                const real_t *weight)
{
    dlogp[i] = -weight[i];
    loss[i] = dlogp[i] * logp[i];
}

K_INLINE void formula_rank_loss(int64_t i, real_t *loss, real_t *dscores, const real_t *scores,
                                const real_t *margin, const real_t *weight)
{
    real_t x = scores[2 * i] - scores[2 * i + 1] - margin[i];
    real_t g = weight[i] * k_sigmoid(-x); /* d(-log sigmoid(x)) / dx = -sigmoid(-x) */
    loss[i] = k_neg_log_sigmoid(x);
    dscores[2 * i] -= g;
    dscores[2 * i + 1] += g;
}

K_INLINE void formula_bce_loss(int64_t i, real_t *loss, real_t *dscores, const real_t *scores,
                               const real_t *labels, const real_t *weight)
{
    real_t x = scores[i], y = labels[i];
    real_t other = ((real_t)1 - y) * k_neg_log_sigmoid(-x);
    loss[i] = real_fma(y, k_neg_log_sigmoid(x), other);
    dscores[i] = real_fma(weight[i], k_sigmoid(x) - y, dscores[i]);
}

/* low, high = 1 -+ clip. */
K_INLINE void formula_policy_loss(int64_t i, real_t *loss, real_t *dlogp, real_t *ratio,
                                  const real_t *logp, const real_t *old_logp, const real_t *adv,
                                  const real_t *weight, real_t low, real_t high)
{
    real_t r = k_exp(logp[i] - old_logp[i]), a = adv[i];
    real_t open = r * a, clipped = formula_clamp(r, low, high) * a;
    bool flat = clipped < open; /* the clipped branch is the smaller: r is outside, slope 0 */
    real_t slope = weight[i] * -open;
    ratio[i] = r;
    loss[i] = flat ? -clipped : -open;
    dlogp[i] = flat ? (real_t)0 : slope;
}

K_INLINE void formula_value_loss(int64_t i, real_t *loss, real_t *dvalue, const real_t *value,
                                 const real_t *old_value, const real_t *ret, const real_t *weight,
                                 real_t clip)
{
    real_t v = value[i], old = old_value[i];
    real_t near = clip > 0 ? formula_clamp(v, old - clip, old + clip) : v;
    real_t e = v - ret[i], e_near = near - ret[i];
    bool flat = e_near * e_near > e * e; /* then v is outside the clip range */
    real_t worst = flat ? e_near : e, slope = weight[i] * e;
    loss[i] = (real_t)0.5 * (worst * worst);
    dvalue[i] = flat ? (real_t)0 : slope;
}

/* ---- AdamW ----------------------------------------------------------------------------------- */

typedef struct {
    real_t grad_scale, beta1, beta2, rest1, rest2, keep, lr, inv_root2, eps;
} FormulaAdamw;

/* b^n by squaring: the same bits everywhere, which pow does not promise. */
static inline double formula_power(double b, int64_t n)
{
    double p = 1;
    for (; n; n /= 2, b *= b)
        if (n % 2)
            p *= b;
    return p;
}

/* The scalars of a step, combined in f64 on the host and rounded once. */
static inline FormulaAdamw formula_adamw_scalars(const AdamwArgs *a)
{
    FormulaAdamw k;
    k.grad_scale = (real_t)a->grad_scale;
    k.beta1 = (real_t)a->beta1;
    k.beta2 = (real_t)a->beta2;
    k.rest1 = (real_t)(1 - a->beta1);
    k.rest2 = (real_t)(1 - a->beta2);
    k.keep = (real_t)(1 - a->lr * a->decay);
    k.lr = (real_t)(a->lr / (1 - formula_power(a->beta1, a->step)));
    k.inv_root2 = (real_t)(1 / __builtin_sqrt(1 - formula_power(a->beta2, a->step)));
    k.eps = (real_t)a->eps;
    return k;
}

K_INLINE void formula_adamw(const FormulaAdamw *k, real_t *w, real_t *m, real_t *v, real_t grad)
{
    real_t g = grad * k->grad_scale;
    *m = real_fma(k->beta1, *m, k->rest1 * g);
    *v = real_fma(k->beta2, *v, k->rest2 * g * g);
    real_t denominator = real_fma(k_sqrt(*v), k->inv_root2, k->eps);
    *w = real_fma(-k->lr, *m / denominator, *w * k->keep);
}

#endif
