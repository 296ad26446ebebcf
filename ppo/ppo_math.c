/* ppo_math.c - see ppo_math.h. Every reduction is one f64 chain in sample order, so a result never
 * depends on batch cuts or threads. Tested by tests/unit/test_ppo_math.c (values worked by hand and
 * the published whitening example) and by the dumped iteration that PyTorch recomputes. */
#include "ppo/ppo_math.h"

#include <math.h>
#include <stddef.h>

double ppo_logit(double p)
{
    return log(p / (1.0 - p));
}

PpoBranch ppo_switch(double safety, bool tagged, double threshold, bool on)
{
    if (!on)
        return BRANCH_HELPFUL;
    if (tagged)
        return BRANCH_TAGGED;
    return safety < ppo_logit(threshold) ? BRANCH_UNSAFE : BRANCH_HELPFUL;
}

/* Mean and biased variance over the used entries; returns their number. */
static int64_t moments(const double *x, const bool *use, int64_t n, double *mean, double *var)
{
    double sum = 0, sq = 0;
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        if (use && !use[i])
            continue;
        sum += x[i];
        count++;
    }
    *mean = count ? sum / (double)count : 0;
    for (int64_t i = 0; i < n; i++) {
        if (use && !use[i])
            continue;
        sq += (x[i] - *mean) * (x[i] - *mean);
    }
    *var = count ? sq / (double)count : 0;
    return count;
}

double ppo_scaled(const ScoreScale *s, double score)
{
    return (score - s->mean) / s->sd;
}

bool ppo_scale_estimate(ScoreScale *s, const double *score, const bool *use, int64_t n)
{
    double mean, var;
    bool good = moments(score, use, n, &mean, &var) >= 2 && sqrt(var) >= PPO_FLAT;
    *s = good ? (ScoreScale){mean, sqrt(var)} : (ScoreScale){0, 1};
    return good;
}

double ppo_whiten(double *x, const bool *use, int64_t n, bool shift_mean, double *mean_out)
{
    double mean, var;
    if (!moments(x, use, n, &mean, &var))
        return 0;
    double scale = 1.0 / sqrt(var + 1e-8);
    for (int64_t i = 0; i < n; i++) {
        if (use && !use[i])
            continue;
        x[i] = (x[i] - mean) * scale + (shift_mean ? 0 : mean);
    }
    if (mean_out)
        *mean_out = mean;
    return sqrt(var);
}

void ppo_moments_add(ScoreMoments *m, const double *x, const bool *use, int64_t n)
{
    double mean, var;
    double count = (double)moments(x, use, n, &mean, &var);
    if (count == 0)
        return;
    double all = m->n + count, d = mean - m->mean;
    m->m2 += var * count + d * d * (m->n * count / all);
    m->mean += d * (count / all);
    m->n = all;
}

/* What a kind does to the finished answers. */
static void standardize(double *score, const bool *finished, int64_t n, ScoresKind kind,
                        const ScoreMoments *running)
{
    if (kind == SCORES_WHITEN)
        ppo_whiten(score, finished, n, true, NULL);
    if (kind != SCORES_RUNNING || running->n == 0)
        return;
    double scale = 1.0 / sqrt(running->m2 / running->n + 1e-8);
    for (int64_t i = 0; i < n; i++) {
        if (finished[i])
            score[i] = (score[i] - running->mean) * scale;
    }
}

void ppo_shape_scores(double *score, const bool *finished, int64_t n, ScoresKind kind, double clip,
                      ScoreMoments *running, bool *flat)
{
    double mean, var, missing = -1;
    int64_t count = moments(score, finished, n, &mean, &var);
    *flat = count > 0 && sqrt(var) < PPO_FLAT;
    if (kind == SCORES_RUNNING)
        ppo_moments_add(running, score, finished, n);
    for (int64_t i = 0; *flat && i < n; i++)
        score[i] = 0;
    if (*flat)
        return;
    standardize(score, finished, n, kind, running);
    for (int64_t i = 0; i < n; i++) {
        if (!finished[i])
            continue;
        if (clip > 0)
            score[i] = fmin(fmax(score[i], -clip), clip);
        missing = fmin(missing, score[i]);
    }
    for (int64_t i = 0; i < n; i++) {
        if (!finished[i])
            score[i] = missing;
    }
}

void ppo_rewards(double *reward, const float *logp, const float *ref, int n, double beta, double score)
{
    for (int t = 0; t < n; t++)
        reward[t] = -beta * ((double)logp[t] - (double)ref[t]);
    if (n > 0)
        reward[n - 1] += score;
}

void ppo_gae(double *adv, double *ret, const double *reward, const float *value, int n, double gamma,
             double lambda)
{
    double next_adv = 0, next_value = 0;
    for (int t = n - 1; t >= 0; t--) {
        double v = (double)value[t];
        double delta = reward[t] + gamma * next_value - v;
        next_adv = delta + gamma * lambda * next_adv;
        adv[t] = next_adv;
        ret[t] = next_adv + v;
        next_value = v;
    }
}

void ppo_group_advantages(double *adv, const double *reward, int64_t n, int64_t G, AdvantageKind kind,
                          bool scale)
{
    for (int64_t from = 0; from < n; from += G) {
        double mean, var;
        moments(reward + from, NULL, G, &mean, &var);
        /* r - (sum - r) / (G - 1) = (r - mean) G / (G - 1) */
        double factor = kind == ADV_RLOO ? (double)G / (double)(G - 1) : 1;
        if (kind == ADV_GRPO && scale)
            factor = 1 / (sqrt(var * (double)G / (double)(G - 1)) + PPO_GROUP_EPS);
        for (int64_t i = from; i < from + G; i++)
            adv[i] = (reward[i] - mean) * factor;
    }
}

double ppo_adapt_kl(double beta, double kl, double target, double horizon, int64_t n)
{
    double error = fmin(fmax(kl / target - 1, -0.2), 0.2);
    return beta * (1 + error * (double)n / horizon);
}

void ppo_kl(double *k1, double *k3, const float *logp, const float *ref, int n)
{
    *k1 = *k3 = 0;
    for (int t = 0; t < n; t++) {
        double d = (double)logp[t] - (double)ref[t];
        *k1 += d;
        *k3 += exp(-d) - 1 + d;
    }
}

double ppo_explained_variance(const double *ret, const float *value, int64_t n)
{
    double mr = 0, md = 0, vr = 0, vd = 0;
    for (int64_t i = 0; i < n; i++) {
        mr += ret[i];
        md += ret[i] - (double)value[i];
    }
    mr /= (double)n;
    md /= (double)n;
    for (int64_t i = 0; i < n; i++) {
        double r = ret[i] - mr, d = ret[i] - (double)value[i] - md;
        vr += r * r;
        vd += d * d;
    }
    return vr > 0 ? 1 - vd / vr : NAN;
}
