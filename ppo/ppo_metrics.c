/* ppo_metrics.c - what an iteration and a minibatch report to metrics.jsonl, and the alarms that follow
 * from it. Names are TRL's where the meaning is the same. */
#include "ppo/ppo.h"

#include "common/base/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

double ppo_mean(const double *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    return n ? sum / (double)n : NAN;
}

static double mean_length(const Rollout *r)
{
    double sum = 0;
    for (int64_t b = 0; b < r->n_used; b++)
        sum += r->n[b];
    return r->n_used ? sum / (double)r->n_used : NAN;
}

typedef struct {
    double mean, sd;
    int64_t n;
} Spread;

/* Of x over the answers of a branch. */
static Spread branch_spread(const Rollout *r, int branch, const double *x)
{
    double sum = 0, sq = 0;
    int64_t n = 0;
    for (int64_t b = 0; b < r->n_used; b++) {
        if (r->branch[b] != branch)
            continue;
        sum += x[b];
        sq += x[b] * x[b];
        n++;
    }
    double mu = n ? sum / (double)n : 0, var = n ? sq / (double)n - mu * mu : 0;
    return (Spread){mu, sqrt(var > 0 ? var : 0), n};
}

/* How much better untagged answers below the threshold do by being judged unsafe than by staying with the
 * helpfulness model: on the scale the reward is on. */
static void switching_metrics(Metrics *m, const Ppo *p, const Rollout *r)
{
    double raw = 0, scaled = 0;
    int64_t n = 0;
    for (int64_t b = 0; b < r->n_used; b++) {
        if (r->branch[b] != BRANCH_UNSAFE)
            continue;
        raw += r->safety[b] - r->helpful[b];
        scaled += ppo_scaled(&p->scale[1], r->safety[b]) - ppo_scaled(&p->scale[0], r->helpful[b]);
        n++;
    }
    raw = n ? raw / (double)n : 0;
    scaled = n ? scaled / (double)n : 0;
    metrics_set(m, "branch/gain_of_switching", raw);
    if (p->c->normalize)
        metrics_set(m, "branch/gain_of_switching_scaled", scaled);
    if (n * 50 >= r->n_used && scaled > 0) /* 2 % of the answers: less is noise */
        log_warn("%lld untagged answers below the safety threshold score %.3f higher by the safety model "
                 "than by the helpful one: becoming unsafe pays", (long long)n, scaled);
}

/* Count, mean and spread of the score per branch, raw and on the common scale. */
static void branch_metrics(Metrics *m, const Ppo *p, const Rollout *r)
{
    static const char *const names[BRANCH_COUNT][5] = {
        {"branch/helpful_n", "branch/helpful_mean", "branch/helpful_std", "branch/helpful_scaled_mean",
         "branch/helpful_scaled_std"},
        {"branch/tagged_n", "branch/tagged_mean", "branch/tagged_std", "branch/tagged_scaled_mean",
         "branch/tagged_scaled_std"},
        {"branch/unsafe_n", "branch/unsafe_mean", "branch/unsafe_std", "branch/unsafe_scaled_mean",
         "branch/unsafe_scaled_std"}};
    for (int k = 0; k < BRANCH_COUNT; k++) {
        Spread raw = branch_spread(r, k, r->raw), scaled = branch_spread(r, k, r->scaled);
        metrics_set(m, names[k][0], (double)raw.n);
        metrics_set(m, names[k][1], raw.mean);
        metrics_set(m, names[k][2], raw.sd);
        if (p->c->normalize) {
            metrics_set(m, names[k][3], scaled.mean);
            metrics_set(m, names[k][4], scaled.sd);
        }
    }
    switching_metrics(m, p, r);
}

/* The scale of each model and where the threshold lies on it. */
static void scale_metrics(Metrics *m, const Ppo *p)
{
    metrics_set(m, "reward/helpful_mean", p->scale[0].mean);
    metrics_set(m, "reward/helpful_std", p->scale[0].sd);
    metrics_set(m, "reward/safety_mean", p->scale[1].mean);
    metrics_set(m, "reward/safety_std", p->scale[1].sd);
    metrics_set(m, "reward/threshold_scaled", ppo_scaled(&p->scale[1], ppo_logit(p->c->switch_threshold)));
}

/* Groups whose answers are scored by both models: their scores are compared with each other. */
static void group_metrics(Metrics *m, Ppo *p, const Rollout *r)
{
    const PpoConfig *c = p->c;
    int64_t G = c->samples_per_prompt, mixed = 0;
    for (int64_t from = 0; from < r->n_used; from += G) {
        int64_t helpful = 0;
        for (int64_t b = from; b < from + G; b++)
            helpful += r->branch[b] == BRANCH_HELPFUL;
        mixed += helpful > 0 && helpful < G;
    }
    metrics_set(m, "branch/mixed_groups", (double)mixed);
    if (mixed && !ppo_has_critic(c) && c->normalize == NORMALIZE_NONE && !p->warned_of_mixed) {
        log_warn("%lld of %lld groups hold scores of both reward models, which the baseline compares as if they "
                 "were on one scale; set reward.normalize: per_model (branch/mixed_groups counts them)",
                 (long long)mixed, (long long)(r->n_used / G));
        p->warned_of_mixed = true;
    }
}

static void critic_metric(Metrics *m, const Rollout *r)
{
    int64_t n = 0, at = 0;
    for (int64_t b = 0; b < r->n_used; b++)
        n += r->n[b];
    double *ret = xmalloc((size_t)n * sizeof *ret);
    float *value = xmalloc((size_t)n * sizeof *value);
    for (int64_t b = 0; b < r->n_used; b++) {
        for (int t = 0; t < r->n[b]; t++, at++) {
            ret[at] = (double)r->ret[b * r->M + t];
            value[at] = r->value[b * r->M + t];
        }
    }
    metrics_set(m, "critic/explained_variance", ppo_explained_variance(ret, value, n));
    free(ret);
    free(value);
}

void ppo_rollout_metrics(Metrics *m, Ppo *p, const Rollout *r, bool flat)
{
    double kl = ppo_mean(r->k1, r->n_used), eos = 0;
    for (int64_t b = 0; b < r->n_used; b++)
        eos += r->finished[b];
    metrics_set(m, "objective/kl", kl);
    metrics_set(m, "objective/kl_k3", ppo_mean(r->k3, r->n_used));
    metrics_set(m, "objective/scores", ppo_mean(r->raw, r->n_used));
    metrics_set(m, "objective/scores_helpful", ppo_mean(r->helpful, r->n_used));
    metrics_set(m, "objective/scores_safety", ppo_mean(r->safety, r->n_used));
    metrics_set(m, "objective/non_score_reward", -p->kl_coef * kl);
    metrics_set(m, "objective/rlhf_reward", ppo_mean(r->shaped, r->n_used) - p->kl_coef * kl);
    metrics_set(m, "objective/length", mean_length(r));
    metrics_set(m, "objective/finished", eos / (double)r->n_used);
    metrics_set(m, "val/num_eos_tokens", eos);
    metrics_set(m, "objective/flat_scores", flat);
    branch_metrics(m, p, r);
    if (p->c->normalize)
        scale_metrics(m, p);
    if (p->c->scores == SCORES_RUNNING) {
        metrics_set(m, "scores/running_mean", p->running.mean);
        metrics_set(m, "scores/running_std", p->running.n > 0 ? sqrt(p->running.m2 / p->running.n) : 0);
    }
    if (p->c->kl_target > 0)
        metrics_set(m, "objective/kl_coef", p->kl_coef);
    if (p->c->samples_per_prompt > 1)
        group_metrics(m, p, r);
    if (ppo_has_critic(p->c))
        critic_metric(m, r);
}

void ppo_update_metrics(Trainer *t, const Ppo *p, const UpdateStats *s, int64_t iteration, bool policy)
{
    Metrics *m = &t->metrics;
    metrics_set(m, "episode", (double)((iteration + 1) * p->c->batch_size));
    metrics_set(m, "iteration", (double)iteration);
    if (policy) {
        metrics_set(m, "loss/policy_avg", s->policy_loss);
        metrics_set(m, "policy/approxkl_avg", s->approxkl);
        metrics_set(m, "policy/clipfrac_avg", s->clipfrac);
        metrics_set(m, "policy/entropy_avg", s->entropy);
        metrics_set(m, "val/ratio", s->ratio);
        metrics_set(m, "grad_norm", s->policy_norm);
    }
    if (policy && p->c->ptx.coef > 0)
        metrics_set(m, "loss/ptx_avg", s->ptx_loss);
    if (ppo_has_critic(p->c)) {
        metrics_set(m, "loss/value_avg", s->value_loss);
        metrics_set(m, "val/clipfrac_avg", s->value_clipfrac);
        metrics_set(m, "critic/grad_norm", s->value_norm);
    }
    metrics_set(m, "lr", s->lr);
    snprintf(t->progress, sizeof t->progress, "score %.3f  kl %.3f  length %.1f",
             ppo_mean(p->roll.raw, p->roll.n_used), ppo_mean(p->roll.k1, p->roll.n_used), mean_length(&p->roll));
}
