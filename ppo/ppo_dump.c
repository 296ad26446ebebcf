/* ppo_dump.c - --dump-iteration: everything of one iteration, for another program to recompute:
 *   rollout.json          settings, ids, log-probabilities, values, scores, switch, rewards, advantages,
 *                         what running statistics and beta were before, sequences of ptx.data used
 *   policy-before, critic-before, reference, policy-after, critic-after   Hugging Face folders
 *   moments-policy-m.safetensors, -v, moments-critic-m, -v                AdamW's, before the updates
 *   gradients-policy.safetensors, gradients-critic.safetensors            of the first minibatch, before
 *                                                                         clipping
 * Without a critic (advantage: rloo, grpo) nothing of it is there.
 * tests/golden/check_ppo_dump.py does so with PyTorch. */
#include "ppo/ppo.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/model/grads_file.h"
#include "common/model/safetensors.h"

#include <stdlib.h>
#include <string.h>

static void floats(JsonWriter *w, const char *key, const float *x, int64_t n)
{
    jw_key(w, key);
    jw_array(w);
    for (int64_t i = 0; i < n; i++)
        jw_float(w, x[i]);
    jw_array_end(w);
}

static void ints(JsonWriter *w, const char *key, const int32_t *x, int64_t n)
{
    jw_key(w, key);
    jw_array(w);
    for (int64_t i = 0; i < n; i++)
        jw_int(w, x[i]);
    jw_array_end(w);
}

/* Learning rates of the iteration's updates, first minibatch first; none while the policy waits for the
 * critic. */
static void learning_rates(JsonWriter *w, const PpoConfig *c, const OptimConfig *o, int64_t step,
                           int64_t total)
{
    int64_t n = c->batch_size / c->minibatch_size;
    int64_t first = o == &c->policy ? ppo_warmup(c) * n : 0;
    jw_key(w, "learning_rates");
    jw_array(w);
    for (int64_t i = step; i < step + n && step >= first; i++)
        jw_num(w, schedule_lr(o, i - first, total - first));
    jw_array_end(w);
}

static void optimizer(JsonWriter *w, const PpoConfig *c, const OptimConfig *o, const Optim *optim,
                      int64_t step, int64_t total)
{
    jw_object(w);
    learning_rates(w, c, o, step, total);
    jw_kint(w, "updates", optim->step);
    jw_knum(w, "beta1", o->beta1);
    jw_knum(w, "beta2", o->beta2);
    jw_knum(w, "eps", o->eps);
    jw_knum(w, "weight_decay", o->weight_decay);
    jw_knum(w, "max_grad_norm", o->max_grad_norm);
    jw_object_end(w);
}

static void pair(JsonWriter *w, double a, double b)
{
    jw_array(w);
    jw_num(w, a);
    jw_num(w, b);
    jw_array_end(w);
}

/* Scales of the models, running statistics and beta as they were before the iteration. */
static void score_settings(JsonWriter *w, const Ppo *p, int64_t step)
{
    static const char *const kinds[] = {"whiten", "running", "none"};
    const PpoConfig *c = p->c;
    jw_kstr(w, "scores", kinds[c->scores]);
    jw_knum(w, "score_clip", c->score_clip);
    jw_kbool(w, "normalize", c->normalize == NORMALIZE_PER_MODEL);
    jw_kbool(w, "first", step == 0);
    jw_key(w, "scale");
    jw_array(w);
    for (int i = 0; i < 2; i++)
        pair(w, p->scale[i].mean, p->scale[i].sd);
    jw_array_end(w);
    jw_key(w, "running_before");
    jw_object(w);
    jw_knum(w, "n", p->before.running.n);
    jw_knum(w, "mean", p->before.running.mean);
    jw_knum(w, "m2", p->before.running.m2);
    jw_object_end(w);
    jw_knum(w, "kl_coef", p->kl_coef);
    jw_knum(w, "kl_coef_before", p->before.kl_coef);
    jw_knum(w, "kl_before", p->before.kl);
    jw_knum(w, "kl_target", c->kl_target);
    jw_knum(w, "kl_horizon", c->kl_horizon);
}

static void settings(JsonWriter *w, const Ppo *p, bool flat, int64_t step, int64_t total)
{
    static const char *const kinds[] = {"gae", "rloo", "grpo"};
    const PpoConfig *c = p->c;
    jw_knum(w, "temperature", c->temperature);
    jw_kstr(w, "advantage", kinds[c->advantage]);
    jw_kint(w, "samples_per_prompt", c->samples_per_prompt);
    jw_kbool(w, "scale_rewards", c->scale_rewards);
    jw_knum(w, "gamma", c->gamma);
    jw_knum(w, "lam", c->lam);
    jw_knum(w, "cliprange", c->clip);
    jw_knum(w, "cliprange_value", c->clip_value);
    jw_knum(w, "threshold", c->switch_threshold);
    jw_kbool(w, "switch", c->switch_on);
    jw_kbool(w, "whiten_advantages", ppo_whitens_advantages(c));
    jw_kint(w, "minibatch_size", c->minibatch_size);
    jw_kbool(w, "flat", flat);
    score_settings(w, p, step);
    jw_key(w, "optim");
    optimizer(w, c, &c->policy, &p->policy_optim, step, total);
    if (!ppo_has_critic(c))
        return;
    jw_key(w, "critic_optim");
    optimizer(w, c, &c->critic, &p->critic_optim, step, total);
}

/* The sequences that the iteration's minibatches take from ptx.data, minibatch after minibatch. */
static void ptx(JsonWriter *w, Ppo *p, bool policy)
{
    const PpoConfig *c = p->c;
    int64_t from = p->before.ptx_cursor, n = c->batch_size / c->minibatch_size * c->ptx.batch_size;
    jw_knum(w, "ptx_coef", c->ptx.coef);
    jw_kint(w, "ptx_batch_size", c->ptx.batch_size);
    jw_key(w, "ptx");
    jw_array(w);
    for (int64_t k = from; policy && c->ptx.coef > 0 && k < from + n; k++) {
        const Example *e = ptx_item(p, k);
        jw_object(w);
        ints(w, "ids", e->ids, e->n);
        jw_key(w, "mask");
        jw_array(w);
        for (int i = 0; i < e->n; i++)
            jw_int(w, e->mask[i]);
        jw_array_end(w);
        jw_knum(w, "weight", ptx_weight(p, e));
        jw_object_end(w);
    }
    jw_array_end(w);
}

static void answer(JsonWriter *w, const Ppo *p, const Rollout *r, int64_t b)
{
    const Example *e = &p->prompts.at[r->prompt[b]];
    int n = r->n[b];
    jw_object(w);
    ints(w, "prompt_ids", e->ids, e->n);
    ints(w, "answer_ids", r->ids + b * r->M, n);
    jw_kbool(w, "tagged", p->train.at[e->record].tagged);
    jw_kbool(w, "finished", r->finished[b]);
    jw_knum(w, "helpful", r->helpful[b]);
    jw_knum(w, "safety", r->safety[b]);
    jw_kint(w, "branch", r->branch[b]);
    jw_knum(w, "raw", r->raw[b]);
    jw_knum(w, "scaled", r->scaled[b]);
    jw_knum(w, "shaped", r->shaped[b]);
    jw_knum(w, "k1", r->k1[b]);
    jw_knum(w, "k3", r->k3[b]);
    floats(w, "logp", r->logp + b * r->M, n);
    floats(w, "ref", r->ref + b * r->M, n);
    floats(w, "adv", r->adv + b * r->M, n);
    if (r->value) {
        floats(w, "value", r->value + b * r->M, n);
        floats(w, "ret", r->ret + b * r->M, n);
    }
    jw_object_end(w);
}

int ppo_dump_rollout(Ppo *p, const char *dir, bool flat, int64_t step, int64_t total)
{
    Str out = {0};
    JsonWriter w;
    int rc = dir_make(dir);
    if (rc < 0)
        return rc;
    jw_init(&w, &out, false);
    jw_object(&w);
    settings(&w, p, flat, step, total);
    jw_kstr(&w, "reward_helpful", p->c->reward_helpful);
    jw_kstr(&w, "reward_safety", p->c->reward_safety);
    ptx(&w, p, step >= ppo_warmup(p->c) * (p->c->batch_size / p->c->minibatch_size));
    jw_key(&w, "answers");
    jw_array(&w);
    for (int64_t b = 0; b < p->roll.n_used; b++)
        answer(&w, p, &p->roll, b);
    jw_array_end(&w);
    jw_object_end(&w);
    str_add(&out, "\n");
    char *path = path_join(dir, "rollout.json");
    rc = file_write_atomic(path, str_get(&out), out.n);
    free(path);
    str_free(&out);
    return rc;
}

static int save(const ParamSet *params, const char *dir, const char *name, const char *when,
                const char *base)
{
    char *leaf = xasprintf("%s%s%s", name, when[0] ? "-" : "", when), *path = path_join(dir, leaf);
    int rc = hf_save(params, path, base, (HfFormat){ST_F32, 0}, NULL, 0);
    free(leaf);
    free(path);
    return rc;
}

static int dump_moments(const Optim *o, const char *dir, const char *name)
{
    int rc = 0;
    for (int i = 0; i < 2 && rc == 0; i++) {
        const Grads view = {.table = o->params->table, .g = i == 0 ? o->m : o->v};
        char *leaf = xasprintf("moments-%s-%c.safetensors", name, "mv"[i]), *path = path_join(dir, leaf);
        rc = grads_write(&view, path);
        free(leaf);
        free(path);
    }
    return rc;
}

/* A trained model, and before its updates the moments. */
static int dump_trained(const ParamSet *params, const Optim *o, const char *dir, const char *name,
                        const char *when, const char *base)
{
    int rc = save(params, dir, name, when, base);
    return rc < 0 || strcmp(when, "before") != 0 ? rc : dump_moments(o, dir, name);
}

int ppo_dump_weights(Ppo *p, const char *dir, const char *when)
{
    int rc = dump_trained(&p->policy, &p->policy_optim, dir, "policy", when, p->c->model);
    if (rc == 0 && ppo_has_critic(p->c))
        rc = dump_trained(&p->critic, &p->critic_optim, dir, "critic", when, ppo_critic_folder(p->c));
    if (rc == 0 && !strcmp(when, "before"))
        rc = save(&p->reference, dir, "reference", "", p->c->model);
    return rc;
}

int ppo_dump_gradients(const Grads *g, const char *dir, const char *name)
{
    char *path = xasprintf("%s/gradients-%s.safetensors", dir, name);
    int rc = grads_write(g, path);
    free(path);
    return rc;
}
