/* ppo_dump.c - --dump-iteration: everything of one iteration, for another program to recompute:
 *   rollout.json          settings, ids, log-probabilities, values, scores, switch, rewards, advantages
 *   policy-before, critic-before, reference, policy-after, critic-after   Hugging Face folders
 *   moments-policy-m.safetensors, -v, moments-critic-m, -v                AdamW's, before the updates
 *   gradients-policy.safetensors, gradients-critic.safetensors            of the first minibatch, before
 *                                                                         clipping
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
    int64_t first = o == &c->policy ? c->critic_warmup * n : 0;
    jw_key(w, "learning_rates");
    jw_array(w);
    for (int64_t i = step; i < step + n && step >= first; i++)
        jw_num(w, schedule_lr(o, i - first, total - first));
    jw_array_end(w);
}

static void settings(JsonWriter *w, const Ppo *p, bool flat, int64_t step, int64_t total)
{
    const PpoConfig *c = p->c;
    jw_knum(w, "temperature", c->temperature);
    jw_knum(w, "kl_coef", c->kl_coef);
    jw_knum(w, "gamma", c->gamma);
    jw_knum(w, "lam", c->lam);
    jw_knum(w, "cliprange", c->clip);
    jw_knum(w, "cliprange_value", c->clip_value);
    jw_knum(w, "threshold", c->switch_threshold);
    jw_kbool(w, "switch", c->switch_on);
    jw_kbool(w, "whiten_scores", c->whiten_scores);
    jw_kbool(w, "whiten_advantages", c->whiten_advantages);
    jw_kint(w, "minibatch_size", c->minibatch_size);
    jw_kbool(w, "flat", flat);
    const OptimConfig *const o[2] = {&c->policy, &c->critic};
    const Optim *const optim[2] = {&p->policy_optim, &p->critic_optim};
    const char *const names[2] = {"optim", "critic_optim"};
    for (int i = 0; i < 2; i++) {
        jw_key(w, names[i]);
        jw_object(w);
        learning_rates(w, c, o[i], step, total);
        jw_kint(w, "updates", optim[i]->step);
        jw_knum(w, "beta1", o[i]->beta1);
        jw_knum(w, "beta2", o[i]->beta2);
        jw_knum(w, "eps", o[i]->eps);
        jw_knum(w, "weight_decay", o[i]->weight_decay);
        jw_knum(w, "max_grad_norm", o[i]->max_grad_norm);
        jw_object_end(w);
    }
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
    jw_knum(w, "shaped", r->shaped[b]);
    jw_knum(w, "k1", r->k1[b]);
    jw_knum(w, "k3", r->k3[b]);
    floats(w, "logp", r->logp + b * r->M, n);
    floats(w, "ref", r->ref + b * r->M, n);
    floats(w, "value", r->value + b * r->M, n);
    floats(w, "adv", r->adv + b * r->M, n);
    floats(w, "ret", r->ret + b * r->M, n);
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
    int rc = hf_save(params, path, base, ST_F32, NULL, 0);
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

int ppo_dump_weights(Ppo *p, const char *dir, const char *when)
{
    const char *critic = p->c->critic_model[0] ? p->c->critic_model : p->c->reward_helpful;
    int rc = save(&p->policy, dir, "policy", when, p->c->model);
    if (rc == 0)
        rc = save(&p->critic, dir, "critic", when, critic);
    if (rc == 0 && !strcmp(when, "before"))
        rc = save(&p->reference, dir, "reference", "", p->c->model);
    if (rc == 0 && !strcmp(when, "before"))
        rc = dump_moments(&p->policy_optim, dir, "policy");
    if (rc == 0 && !strcmp(when, "before"))
        rc = dump_moments(&p->critic_optim, dir, "critic");
    return rc;
}

static int dump_grads(const Grads *g, const char *dir, const char *name)
{
    char *path = path_join(dir, name);
    int rc = grads_write(g, path);
    free(path);
    return rc;
}

int ppo_dump_gradients(Ppo *p, const char *dir)
{
    int rc = dump_grads(&p->policy_grads, dir, "gradients-policy.safetensors");
    return rc < 0 ? rc : dump_grads(&p->critic_grads, dir, "gradients-critic.safetensors");
}
