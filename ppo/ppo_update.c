/* ppo_update.c - the gradient of one minibatch. Answers are packed in rollout order and the gradient is
 * one chain over tokens in that order (in bf16 on a card: over units of unit_tokens), so micro_batch_tokens
 * never changes a bit. The loss is the mean
 * over the minibatch's answer tokens. Tested by the dumped iteration and the closed form of
 * tests/e2e/test_closed_form.sh. */
#include "ppo/ppo.h"

#include "common/base/error.h"
#include "common/runtime/device.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool ppo_next_pack(Ppo *p, const Rollout *r, const ExampleSet *set, int64_t *next, int64_t to,
                   int64_t *rows)
{
    pack_clear(&p->pack);
    *rows = 0;
    int32_t *seq = p->stage_seq;
    while (*next < to) {
        int n_prompt = set->at[r->prompt[*next]].n, n = r->n[*next];
        if (!pack_open(&p->pack, n_prompt + n))
            break;
        int start = p->pack.n_tokens;
        rollout_sequence(set, r, *next, seq);
        pack_add(&p->pack, seq, NULL, n_prompt + n, *next);
        for (int t = 0; t < n; t++) {
            p->stage_rows[*rows] = start + n_prompt - 1 + t;
            p->stage_target[*rows] = seq[n_prompt + t];
            (*rows)++;
        }
        (*next)++;
    }
    CHECK(*next >= to || *rows > 0, "answer %lld does not fit a pack of %d tokens",
          (long long)*next, p->pack.max_tokens);
    return *rows > 0;
}

/* Host rows of answers [from, to) of a (B, M) array, one after another, into `t`. */
static void upload_rows(Ppo *p, Tensor *t, const float *src, const Rollout *r, int64_t from, int64_t to)
{
    int64_t at = 0;
    for (int64_t b = from; b < to; b++) {
        memcpy(p->stage + at, src + b * r->M, (size_t)r->n[b] * sizeof *p->stage);
        at += r->n[b];
    }
    device_upload(t, p->stage, (size_t)at * sizeof *p->stage);
}

static void upload_constant(Ppo *p, Tensor *t, float value, int64_t rows)
{
    for (int64_t i = 0; i < rows; i++)
        p->stage[i] = value;
    device_upload(t, p->stage, (size_t)rows * sizeof *p->stage);
}

static void policy_pack(Ppo *p, const Rollout *r, int64_t from, int64_t to, int64_t rows, float weight,
                        UpdateStats *s)
{
    size_t bytes = (size_t)rows * sizeof(float);
    batch_set(&p->batch, &p->pack);
    lm_head_set(&p->head, &p->batch, p->stage_rows, p->stage_target, rows);
    upload_rows(p, &p->head.old_logp, r->logp, r, from, to);
    upload_rows(p, &p->head.adv, r->adv, r, from, to);
    upload_constant(p, &p->head.weight, weight, rows);
    model_forward(&p->model, &p->policy, NULL, &p->batch, p->acts);
    Tensor hidden = acts_hidden(p->acts, &p->batch), dhidden = acts_dhidden(p->acts, &p->batch);
    lm_head_run(&p->head, &p->model, &p->policy, LM_POLICY, rows, &hidden, &dhidden, &p->policy_grads,
                1.0 / p->c->temperature, p->c->clip);
    model_backward(&p->model, &p->policy, NULL, &p->batch, p->acts, &p->policy_grads);

    device_download(p->stage, &p->head.loss, bytes);
    device_download(p->stage_ratio, &p->head.ratio, bytes);
    device_download(p->stage_entropy, &p->head.entropy, bytes);
    for (int64_t i = 0; i < rows; i++) {
        double ratio = (double)p->stage_ratio[i], d = ratio - 1;
        s->policy_loss += (double)p->stage[i];
        s->entropy += (double)p->stage_entropy[i];
        s->ratio += ratio;
        s->clipfrac += fabs(d) > p->c->clip;
        s->approxkl += 0.5 * log(ratio) * log(ratio);
        if (!(fabs(d) <= s->ratio_max_dev))
            s->ratio_max_dev = fabs(d);
    }
}

static void critic_pack(Ppo *p, const Rollout *r, int64_t from, int64_t to, int64_t rows, float weight,
                        UpdateStats *s)
{
    size_t bytes = (size_t)rows * sizeof(float);
    batch_set(&p->batch, &p->pack);
    device_upload(&p->value_head.rows, p->stage_rows, (size_t)rows * sizeof *p->stage_rows);
    upload_rows(p, &p->value_ret, r->ret, r, from, to);
    upload_rows(p, &p->value_old, r->value, r, from, to);
    upload_constant(p, &p->value_weight, weight, rows);
    model_forward(&p->critic_model, &p->critic, NULL, &p->batch, p->critic_acts);
    Tensor hidden = acts_hidden(p->critic_acts, &p->batch);
    Tensor dhidden = acts_dhidden(p->critic_acts, &p->batch);
    scalar_head_forward(&p->value_head, &p->critic_model, &p->critic, rows, &hidden);
    Tensor v = tensor_make1(p->value_head.score.data, p->batch.ids.dev, DTYPE_F32, rows);
    Tensor dv = tensor_make1(p->value_head.dscore.data, p->batch.ids.dev, DTYPE_F32, rows);
    Tensor loss = tensor_slice(&p->value_loss, 0, rows), old = tensor_slice(&p->value_old, 0, rows);
    Tensor ret = tensor_slice(&p->value_ret, 0, rows), w = tensor_slice(&p->value_weight, 0, rows);
    op_value_loss(&loss, &dv, &v, &old, &ret, &w, p->c->clip_value);
    scalar_head_backward(&p->value_head, &p->critic_model, &p->critic, rows, &dhidden,
                         &p->critic_grads);
    model_backward(&p->critic_model, &p->critic, NULL, &p->batch, p->critic_acts, &p->critic_grads);

    device_download(p->stage, &loss, bytes);
    device_download(p->stage_ratio, &v, bytes);
    int64_t i = 0;
    for (int64_t b = from; b < to; b++) {
        for (int t = 0; t < r->n[b]; t++, i++) {
            double moved = (double)p->stage_ratio[i] - (double)r->value[b * r->M + t];
            s->value_loss += (double)p->stage[i];
            s->value_clipfrac += p->c->clip_value > 0 && fabs(moved) > p->c->clip_value;
        }
    }
}

typedef void PackFn(Ppo *p, const Rollout *r, int64_t from, int64_t to, int64_t rows, float weight, UpdateStats *s);

/* All packs of a minibatch; 1 / its answer tokens. */
static double each_pack(PackFn *run, Ppo *p, const Rollout *r, int64_t from, int64_t to, UpdateStats *s)
{
    int64_t total = 0, rows;
    for (int64_t b = from; b < to; b++)
        total += r->n[b];
    const float weight = (float)(1.0 / (double)total);
    for (int64_t next = from, first = from; ppo_next_pack(p, r, &p->prompts, &next, to, &rows); first = next)
        run(p, r, first, next, rows, weight, s);
    return 1.0 / (double)total;
}

void ppo_policy_gradients(Ppo *p, const Rollout *r, int64_t from, int64_t to, UpdateStats *s)
{
    const double inv = each_pack(policy_pack, p, r, from, to, s);
    s->policy_loss *= inv;
    s->ratio *= inv;
    s->clipfrac *= inv;
    s->approxkl *= inv;
    s->entropy *= inv;
    if (p->c->ptx.coef > 0)
        s->ptx_loss = ptx_gradients(p);
}

void ppo_critic_gradients(Ppo *p, const Rollout *r, int64_t from, int64_t to, UpdateStats *s)
{
    const double inv = each_pack(critic_pack, p, r, from, to, s);
    s->value_loss *= inv;
    s->value_clipfrac *= inv;
}
