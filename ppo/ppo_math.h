/* ppo_math.h - the formulas of one PPO iteration on host arrays, in f64, in sample order: switch,
 * whitening, the rule for unfinished answers, KL penalty, GAE, advantage whitening. No device, no
 * model: small enough to be recomputed by hand or by another program. */
#ifndef RLHF_PPO_MATH_H
#define RLHF_PPO_MATH_H

#include <stdbool.h>
#include <stdint.h>

/* log(p / (1 - p)): the threshold 0.15 on the linear score is -1.7346. */
double ppo_logit(double p);

typedef enum { BRANCH_HELPFUL, BRANCH_TAGGED, BRANCH_UNSAFE, BRANCH_COUNT } PpoBranch;

/* Which model speaks for an answer (Llama 2, section 3.2.3): the safety model when the prompt is
 * tagged or its linear score is < logit(threshold); else the helpfulness model. Off: always helpful. */
PpoBranch ppo_switch(double safety, bool tagged, double threshold, bool on);

/* x[i] = (x[i] - mean) / sqrt(var + 1e-8) over entries with use[i], biased variance (use NULL = all);
 * the others are left alone. With shift_mean false the mean is added back (the published example).
 * Returns the standard deviation; *mean_out may be NULL. Nothing changes, and 0 is returned, when no
 * entry is used. */
double ppo_whiten(double *x, const bool *use, int64_t n, bool shift_mean, double *mean_out);

/* Scores -> rewards of a batch, in place: whitening over finished answers only, then every unfinished
 * answer gets min(-1, lowest score). When the spread of the finished ones is below 1e-4 all scores
 * become 0 (only the KL penalty is left) and *flat is set. whiten false: finished scores stay. */
void ppo_shape_scores(double *score, const bool *finished, int64_t n, bool whiten, bool *flat);

/* Per-token rewards of one answer: r_t = -beta (logp_t - ref_t), plus the score on the last token. */
void ppo_rewards(double *reward, const float *logp, const float *ref, int n, double beta, double score);

/* Generalized advantage estimation (Schulman 2016, eq. 16) over one answer of n tokens; value[t] is
 * the value before token t; after the last token it is 0. ret = adv + value. */
void ppo_gae(double *adv, double *ret, const double *reward, const float *value, int n, double gamma,
             double lambda);

/* k1 = sum (logp - ref), k3 = sum (exp(ref - logp) - 1 - (ref - logp)) over an answer. */
void ppo_kl(double *k1, double *k3, const float *logp, const float *ref, int n);

/* 1 - Var(ret - value) / Var(ret) over n entries; NaN when Var(ret) is 0. */
double ppo_explained_variance(const double *ret, const float *value, int64_t n);

#endif
