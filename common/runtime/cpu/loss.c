/* loss.c - per-sample losses and their gradients: ranking, safety classification, PPO's policy and
 * value losses (formula.h). Vectors of at most a few thousand elements, so one thread; the sums are
 * the host's.
 * Tested by tests/ops/loss.c. */
#include "common/runtime/cpu/cpu.h"
#include "common/runtime/cpu/formula.h"

void CPU_OP(xent_loss)(Tensor *loss, Tensor *dlogp, const Tensor *logp, const Tensor *weight)
{
    for (int64_t i = 0; i < loss->dim[0]; i++)
        formula_xent_loss(i, real_data(loss), real_data(dlogp), real_data(logp),
                          real_data(weight));
}

void CPU_OP(rank_loss)(Tensor *loss, Tensor *dscores, const Tensor *scores, const Tensor *margin,
                       const Tensor *weight)
{
    for (int64_t i = 0; i < loss->dim[0]; i++)
        formula_rank_loss(i, real_data(loss), real_data(dscores), real_data(scores),
                          real_data(margin), real_data(weight));
}

void CPU_OP(bce_loss)(Tensor *loss, Tensor *dscores, const Tensor *scores, const Tensor *labels,
                      const Tensor *weight)
{
    for (int64_t i = 0; i < loss->dim[0]; i++)
        formula_bce_loss(i, real_data(loss), real_data(dscores), real_data(scores),
                         real_data(labels), real_data(weight));
}

void CPU_OP(policy_loss)(Tensor *loss, Tensor *dlogp, Tensor *ratio, const Tensor *logp,
                         const Tensor *old_logp, const Tensor *adv, const Tensor *weight,
                         double clip)
{
    real_t low = (real_t)(1 - clip), high = (real_t)(1 + clip);
    for (int64_t i = 0; i < loss->dim[0]; i++)
        formula_policy_loss(i, real_data(loss), real_data(dlogp), real_data(ratio),
                            real_data(logp), real_data(old_logp), real_data(adv),
                            real_data(weight), low, high);
}

void CPU_OP(value_loss)(Tensor *loss, Tensor *dvalue, const Tensor *value, const Tensor *old_value,
                        const Tensor *ret, const Tensor *weight, double clip)
{
    for (int64_t i = 0; i < loss->dim[0]; i++)
        formula_value_loss(i, real_data(loss), real_data(dvalue), real_data(value),
                           real_data(old_value), real_data(ret), real_data(weight), (real_t)clip);
}
