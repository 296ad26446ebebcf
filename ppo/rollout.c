/* rollout.c - one batch of answers with everything the update needs. The sampler's log-probabilities
 * are the old ones: nothing is recomputed, because the trainer's forward gives the same bits.
 * Tested by tests/e2e/test_ppo.sh (ratio exactly 1, KL exactly 0) and the dumped iteration. */
#include "ppo/ppo.h"

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/runtime/device.h"

#include <stdlib.h>
#include <string.h>

void rollout_alloc(Rollout *r, Arena *host, int64_t B, int64_t M, bool critic)
{
    size_t b = (size_t)B, bm = (size_t)(B * M);
    *r = (Rollout){.B = B, .M = M};
    r->prompt = arena_bytes(host, b * sizeof *r->prompt);
    r->n = arena_bytes(host, b * sizeof *r->n);
    r->ids = arena_bytes(host, bm * sizeof *r->ids);
    r->finished = arena_bytes(host, b);
    r->logp = arena_bytes(host, bm * sizeof *r->logp);
    r->ref = arena_bytes(host, bm * sizeof *r->ref);
    r->adv = arena_bytes(host, bm * sizeof *r->adv);
    if (critic) {
        r->value = arena_bytes(host, bm * sizeof *r->value);
        r->ret = arena_bytes(host, bm * sizeof *r->ret);
    }
    r->helpful = arena_bytes(host, b * sizeof *r->helpful);
    r->safety = arena_bytes(host, b * sizeof *r->safety);
    r->raw = arena_bytes(host, b * sizeof *r->raw);
    r->scaled = arena_bytes(host, b * sizeof *r->scaled);
    r->shaped = arena_bytes(host, b * sizeof *r->shaped);
    r->k1 = arena_bytes(host, b * sizeof *r->k1);
    r->k3 = arena_bytes(host, b * sizeof *r->k3);
    r->branch = arena_bytes(host, b);
}

int rollout_sequence(const ExampleSet *set, const Rollout *r, int64_t b, int32_t *out)
{
    const Example *e = &set->at[r->prompt[b]];
    memcpy(out, e->ids, (size_t)e->n * sizeof *out);
    memcpy(out + e->n, r->ids + b * r->M, (size_t)r->n[b] * sizeof *out);
    return e->n + r->n[b];
}

static int sample_answers(Ppo *p, Rollout *r, const ExampleSet *set, const RecordSet *records,
                          int64_t n, uint32_t round, uint64_t seed, const volatile int *stop)
{
    GenRequest *req = xcalloc((size_t)n, sizeof *req);
    GenResult *res = xcalloc((size_t)n, sizeof *res);
    for (int64_t b = 0; b < n; b++) {
        const Example *e = &set->at[r->prompt[b]];
        req[b] = (GenRequest){e->ids, e->n, records->at[e->record].id, (uint32_t)b, 0};
        res[b] = (GenResult){.ids = r->ids + b * r->M, .logp = r->logp + b * r->M};
    }
    GenOptions o = {.seed = seed,
                    .round = round,
                    .temperature = p->c->temperature,
                    .max_new_tokens = (int)r->M,
                    .stop = p->stop_ids,
                    .n_stop = p->n_stop};
    int rc = generate(p->gen, &p->policy, req, n, &o, res, stop, NULL, NULL);
    for (int64_t b = 0; b < n && rc == 0; b++) {
        r->n[b] = res[b].n;
        r->finished[b] = res[b].finished;
        CHECK(r->n[b] > 0, "answer %lld has no token", (long long)b);
    }
    free(req);
    free(res);
    return rc;
}

static void score_answers(Ppo *p, Rollout *r, const ExampleSet *set, const RecordSet *records)
{
    int64_t n = r->n_used, total = 0;
    for (int64_t b = 0; b < n; b++)
        total += set->at[r->prompt[b]].n + r->n[b];
    int32_t *flat = xmalloc((size_t)total * sizeof *flat);
    const int32_t **ids = xcalloc((size_t)n, sizeof *ids);
    int *len = xcalloc((size_t)n, sizeof *len);
    float *out = xcalloc((size_t)n, sizeof *out);
    int64_t at = 0;
    for (int64_t b = 0; b < n; b++) {
        ids[b] = flat + at;
        len[b] = rollout_sequence(set, r, b, flat + at);
        at += len[b];
    }
    reward_model_score(&p->helpful, ids, len, n, out);
    for (int64_t b = 0; b < n; b++)
        r->helpful[b] = (double)out[b];
    memset(out, 0, (size_t)n * sizeof *out);
    if (p->has_safety)
        reward_model_score(&p->safety, ids, len, n, out);
    for (int64_t b = 0; b < n; b++) {
        r->safety[b] = (double)out[b];
        bool tagged = records->at[set->at[r->prompt[b]].record].tagged;
        PpoBranch branch = ppo_switch(r->safety[b], tagged, p->c->switch_threshold, p->c->switch_on);
        r->branch[b] = (uint8_t)branch;
        r->raw[b] = branch == BRANCH_HELPFUL ? r->helpful[b] : r->safety[b];
    }
    free(flat);
    free(ids);
    free(len);
    free(out);
}

/* Log-probabilities of the answers under the reference, at the sampling temperature. */
static void reference_logp(Ppo *p, Rollout *r, const ExampleSet *set)
{
    int64_t next = 0, rows, first = 0;
    while (ppo_next_pack(p, r, set, &next, r->n_used, &rows)) {
        batch_set(&p->batch, &p->pack);
        model_forward(&p->model, &p->reference, NULL, &p->batch, p->acts);
        Tensor hidden = acts_hidden(p->acts, &p->batch);
        lm_head_set(&p->head, &p->batch, p->stage_rows, p->stage_target, rows);
        lm_head_run(&p->head, &p->model, &p->reference, LM_LOGP, rows, &hidden, NULL, NULL,
                    1.0 / p->c->temperature, 0);
        device_download(p->stage, &p->head.logp, (size_t)rows * sizeof *p->stage);
        int64_t at = 0;
        for (int64_t b = first; b < next; b++) {
            memcpy(r->ref + b * r->M, p->stage + at, (size_t)r->n[b] * sizeof *p->stage);
            at += r->n[b];
        }
        first = next;
    }
}

int rollout_run(Ppo *p, Rollout *r, const ExampleSet *set, const RecordSet *records, int64_t n,
                uint32_t round, uint64_t seed, const volatile int *stop)
{
    r->n_used = n;
    int rc = sample_answers(p, r, set, records, n, round, seed, stop);
    if (rc)
        return rc;
    score_answers(p, r, set, records);
    reference_logp(p, r, set);
    for (int64_t b = 0; b < n; b++)
        ppo_kl(&r->k1[b], &r->k3[b], r->logp + b * r->M, r->ref + b * r->M, r->n[b]);
    return 0;
}

/* bool flags of the finished answers; xmalloc'ed. */
static bool *finished_answers(const Rollout *r)
{
    bool *finished = xcalloc((size_t)r->n_used + 1, sizeof *finished);
    for (int64_t b = 0; b < r->n_used; b++)
        finished[b] = r->finished[b];
    return finished;
}

void rollout_measure_scale(Ppo *p, const Rollout *r)
{
    bool *finished = finished_answers(r);
    bool helpful = ppo_scale_estimate(&p->scale[0], r->helpful, finished, r->n_used);
    bool safety = ppo_scale_estimate(&p->scale[1], r->safety, finished, r->n_used);
    free(finished);
    if (helpful && safety)
        return;
    log_warn("reward.normalize: the %s model gives the finished answers of the first rollout one score (spread "
             "below %g), so there is no scale to map: both models keep their own", helpful ? "safety" : "helpful",
             PPO_FLAT);
    p->scale[0] = p->scale[1] = (ScoreScale){0, 1};
}

void rollout_scale(Ppo *p, Rollout *r)
{
    for (int64_t b = 0; b < r->n_used; b++)
        r->scaled[b] = ppo_scaled(&p->scale[r->branch[b] != BRANCH_HELPFUL], r->raw[b]);
}

void rollout_shape(Ppo *p, Rollout *r, bool *flat)
{
    const PpoConfig *c = p->c;
    bool *finished = finished_answers(r);
    memcpy(r->shaped, r->scaled, (size_t)r->n_used * sizeof *r->shaped);
    ppo_shape_scores(r->shaped, finished, r->n_used, (ScoresKind)c->scores, c->score_clip, &p->running, flat);
    free(finished);
}

/* One advantage a token into adv, answer after answer; returns into r->ret. */
static void gae_advantages(const Ppo *p, Rollout *r, double *adv)
{
    const PpoConfig *c = p->c;
    double *reward = xmalloc((size_t)r->M * sizeof *reward);
    double *ret = xmalloc((size_t)r->M * sizeof *ret);
    for (int64_t b = 0; b < r->n_used; b++) {
        ppo_rewards(reward, r->logp + b * r->M, r->ref + b * r->M, r->n[b], p->kl_coef, r->shaped[b]);
        ppo_gae(adv, ret, reward, r->value + b * r->M, r->n[b], c->gamma, c->lam);
        for (int t = 0; t < r->n[b]; t++)
            r->ret[b * r->M + t] = (float)ret[t];
        adv += r->n[b];
    }
    free(reward);
    free(ret);
}

/* An answer is one action: each of its tokens has the answer's advantage. */
static void group_advantages(const Ppo *p, const Rollout *r, double *adv)
{
    const PpoConfig *c = p->c;
    size_t bytes = (size_t)r->n_used * sizeof(double);
    double *reward = xmalloc(bytes), *answer = xmalloc(bytes);
    for (int64_t b = 0; b < r->n_used; b++)
        reward[b] = r->shaped[b] - p->kl_coef * r->k1[b];
    ppo_group_advantages(answer, reward, r->n_used, c->samples_per_prompt, (AdvantageKind)c->advantage,
                         c->scale_rewards);
    for (int64_t b = 0; b < r->n_used; b++) {
        for (int t = 0; t < r->n[b]; t++)
            *adv++ = answer[b];
    }
    free(reward);
    free(answer);
}

void rollout_advantages(Ppo *p, Rollout *r)
{
    int64_t total = 0, at = 0;
    for (int64_t b = 0; b < r->n_used; b++)
        total += r->n[b];
    double *adv = xmalloc((size_t)total * sizeof *adv);
    if (ppo_has_critic(p->c))
        gae_advantages(p, r, adv);
    else
        group_advantages(p, r, adv);
    if (ppo_whitens_advantages(p->c))
        ppo_whiten(adv, NULL, total, true, NULL);
    for (int64_t b = 0; b < r->n_used; b++) {
        for (int t = 0; t < r->n[b]; t++)
            r->adv[b * r->M + t] = (float)adv[at++];
    }
    free(adv);
}
