/* ppo_math.h - the formulas of one PPO iteration on host arrays, in f64, in sample order: switch, scale
 * of the two models, whitening, the rule for unfinished answers, KL penalty, GAE, advantages of groups,
 * advantage whitening. No device, no model: small enough to be recomputed by hand or by another
 * program. */
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

/* What puts one model's scores on the common scale (reward.normalize): (score - mean) / sd. It rises with
 * the score and is rounded monotonically, so no answer is on another side of the mapped threshold. */
typedef struct {
    double mean, sd;
} ScoreScale;

double ppo_scaled(const ScoreScale *s, double score);
/* Mean and biased standard deviation over the n scores with use[i]. False, and the scale that changes
 * nothing (0, 1), when fewer than two are used or they spread by less than PPO_FLAT. */
bool ppo_scale_estimate(ScoreScale *s, const double *score, const bool *use, int64_t n);

#define PPO_FLAT 1e-4 /* a smaller standard deviation says that all scores are equal */

/* x[i] = (x[i] - mean) / sqrt(var + 1e-8) over entries with use[i], biased variance (use NULL = all);
 * the others are left alone. With shift_mean false the mean is added back (the published example).
 * Returns the standard deviation; *mean_out may be NULL. Nothing changes, and 0 is returned, when no
 * entry is used. */
double ppo_whiten(double *x, const bool *use, int64_t n, bool shift_mean, double *mean_out);

/* Count, mean and sum of squared distances from it, over everything added so far (Chan et al. 1979). */
typedef struct {
    double n, mean, m2;
} ScoreMoments;

/* Adds the entries with use[i] (NULL = all). */
void ppo_moments_add(ScoreMoments *m, const double *x, const bool *use, int64_t n);

typedef enum { SCORES_WHITEN, SCORES_RUNNING, SCORES_NONE } ScoresKind; /* "whiten|running|none" */

/* Scores -> rewards of a batch, in place. First the finished answers: whitened over the batch; or with
 * the mean and variance of all finished answers so far, this batch included ("Secrets of RLHF", eq. 18:
 * running; only then *running may not be NULL, and it grows); or left. Then they are cut to [-clip, clip]
 * (0 = not), then every unfinished answer gets min(-1, lowest score). When the spread of the batch's
 * finished answers is below PPO_FLAT all scores become 0 (only the KL penalty is left) and *flat is
 * set. */
void ppo_shape_scores(double *score, const bool *finished, int64_t n, ScoresKind kind, double clip,
                      ScoreMoments *running, bool *flat);

/* Per-token rewards of one answer: r_t = -beta (logp_t - ref_t), plus the score on the last token. */
void ppo_rewards(double *reward, const float *logp, const float *ref, int n, double beta, double score);

/* Generalized advantage estimation (Schulman 2016, eq. 16) over one answer of n tokens; value[t] is
 * the value before token t; after the last token it is 0. ret = adv + value. */
void ppo_gae(double *adv, double *ret, const double *reward, const float *value, int n, double gamma,
             double lambda);

typedef enum { ADV_GAE, ADV_RLOO, ADV_GRPO } AdvantageKind; /* "gae|rloo|grpo" */

#define PPO_GROUP_EPS 1e-4 /* TRL's, beside the standard deviation of a group */

/* Advantages of whole answers, in groups of G neighbours that answer one prompt; n is a multiple of G,
 * G >= 2. reward = shaped score - beta k1 of the sequence.
 * ADV_RLOO: reward - mean of the other G - 1 (Ahmadian et al. 2024).
 * ADV_GRPO: reward - mean of the group, with scale divided by its standard deviation (G - 1 in the
 * denominator, as TRL) + PPO_GROUP_EPS (Shao et al. 2024, section 4.1.2). */
void ppo_group_advantages(double *adv, const double *reward, int64_t n, int64_t G, AdvantageKind kind,
                          bool scale);

/* The adaptive coefficient after a batch of n answers whose mean sequence KL was kl (Ziegler et al. 2019,
 * as their code has it): beta (1 + clip(kl / target - 1, -0.2, 0.2) n / horizon). */
double ppo_adapt_kl(double beta, double kl, double target, double horizon, int64_t n);

/* k1 = sum (logp - ref), k3 = sum (exp(ref - logp) - 1 - (ref - logp)) over an answer. */
void ppo_kl(double *k1, double *k3, const float *logp, const float *ref, int n);

/* 1 - Var(ret - value) / Var(ret) over n entries; NaN when Var(ret) is 0. */
double ppo_explained_variance(const double *ret, const float *value, int64_t n);

#endif
