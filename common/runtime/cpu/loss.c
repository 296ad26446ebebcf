/* loss.c - per-sample losses and their gradients: ranking, safety classification, PPO's policy and
 * value losses. Vectors of at most a few thousand elements, so one thread; the sums are the host's.
 * Tested by tests/ops/loss.c. */
#include "common/runtime/cpu/cpu.h"
#include "common/runtime/cpu/kmath.h"

static real_t clamp(real_t x, real_t low, real_t high)
{
    return x < low ? low : x > high ? high : x;
}

void CPU_OP(rank_loss)(Tensor *loss, Tensor *dscores, const Tensor *scores, const Tensor *margin,
                       const Tensor *weight)
{
    const real_t *s = real_data(scores);
    real_t *d = real_data(dscores);
    for (int64_t i = 0; i < loss->dim[0]; i++) {
        real_t x = s[2 * i] - s[2 * i + 1] - real_data(margin)[i];
        real_t g =
            real_data(weight)[i] * k_sigmoid(-x); /* d(-log sigmoid(x)) / dx = -sigmoid(-x) */
        real_data(loss)[i] = k_neg_log_sigmoid(x);
        d[2 * i] -= g;
        d[2 * i + 1] += g;
    }
}

void CPU_OP(bce_loss)(Tensor *loss, Tensor *dscores, const Tensor *scores, const Tensor *labels,
                      const Tensor *weight)
{
    for (int64_t i = 0; i < loss->dim[0]; i++) {
        real_t x = real_data(scores)[i], y = real_data(labels)[i];
        real_t other = ((real_t)1 - y) * k_neg_log_sigmoid(-x);
        real_data(loss)[i] = real_fma(y, k_neg_log_sigmoid(x), other);
        real_t *d = real_data(dscores) + i;
        *d = real_fma(real_data(weight)[i], k_sigmoid(x) - y, *d);
    }
}

void CPU_OP(policy_loss)(Tensor *loss, Tensor *dlogp, Tensor *ratio, const Tensor *logp,
                         const Tensor *old_logp, const Tensor *adv, const Tensor *weight,
                         double clip)
{
    real_t low = (real_t)(1 - clip), high = (real_t)(1 + clip);
    for (int64_t i = 0; i < loss->dim[0]; i++) {
        real_t r = k_exp(real_data(logp)[i] - real_data(old_logp)[i]), a = real_data(adv)[i];
        real_t open = r * a, clipped = clamp(r, low, high) * a;
        bool flat = clipped < open; /* the clipped branch is the smaller: r is outside, slope 0 */
        real_data(ratio)[i] = r;
        real_data(loss)[i] = flat ? -clipped : -open;
        real_data(dlogp)[i] = flat ? (real_t)0 : real_data(weight)[i] * -open;
    }
}

void CPU_OP(value_loss)(Tensor *loss, Tensor *dvalue, const Tensor *value, const Tensor *old_value,
                        const Tensor *ret, const Tensor *weight, double clip)
{
    real_t c = (real_t)clip;
    for (int64_t i = 0; i < loss->dim[0]; i++) {
        real_t v = real_data(value)[i], old = real_data(old_value)[i];
        real_t near = clip > 0 ? clamp(v, old - c, old + c) : v;
        real_t e = v - real_data(ret)[i], e_near = near - real_data(ret)[i];
        bool flat = e_near * e_near > e * e; /* then v is outside the clip range */
        real_t worst = flat ? e_near : e;
        real_data(loss)[i] = (real_t)0.5 * (worst * worst);
        real_data(dvalue)[i] = flat ? (real_t)0 : real_data(weight)[i] * e;
    }
}
