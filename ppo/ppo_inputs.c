/* ppo_inputs.c - what a run reads before it plans its memory: tokenizer, models, prompts, sequences of the
 * language-model loss; and the hashes by which a resumed run knows that they are still the same. Tested
 * by tests/e2e/test_ppo.sh and tests/unit/test_rollout.c. */
#include "ppo/ppo.h"

#include "common/base/error.h"
#include "common/base/hash.h"

#include <stdio.h>
#include <string.h>

const char *ppo_reference_folder(const PpoConfig *c)
{
    return c->reference[0] ? c->reference : c->model;
}

const char *ppo_critic_folder(const PpoConfig *c)
{
    return c->critic_model[0] ? c->critic_model : c->reward_helpful;
}

static int read_prompts(Ppo *p)
{
    const PpoConfig *c = p->c;
    int rc = 0;
    TRY(record_set_read(&p->train, c->train_path, RECORD_PROMPT, (BadRow)c->on_bad_row));
    TRY(example_set_make(&p->prompts, &p->train, 0, &p->chat, (int)c->max_prompt_length,
                         (OnLong)c->on_long, (BadRow)c->on_bad_row));
    if (p->prompts.n == 0) {
        rc = error_set(ERR_DATA, "%s: no prompt of at most %lld tokens is left; raise "
                                 "max_prompt_length or give other prompts",
                       c->train_path, (long long)c->max_prompt_length);
        goto fail;
    }
    if (c->eval_path[0]) {
        TRY(record_set_read(&p->eval, c->eval_path, RECORD_PROMPT, (BadRow)c->on_bad_row));
        TRY(record_check_overlap(&p->train, c->train_path, &p->eval, c->eval_path));
        TRY(example_set_make(&p->held_out, &p->eval, 0, &p->chat, (int)c->max_prompt_length,
                             (OnLong)c->on_long, (BadRow)c->on_bad_row));
        if (p->held_out.n > c->eval_prompts)
            p->held_out.n = c->eval_prompts;
    }
    if (c->ptx.coef > 0) {
        TRY(ptx_read(p));
        if (p->eval.n && !c->ptx.pretrain)
            TRY(record_check_overlap(&p->ptx.records, "ptx.data", &p->eval, c->eval_path));
    }
fail:
    return rc;
}

static int check_safety_model(Ppo *p)
{
    const Calibration *k = &p->safety.calibration;
    if (k->anchored || p->c->allow_unanchored || !p->c->switch_on)
        return 0;
    return error_set(ERR_DATA,
                     "%s: the safety model is not anchored (%s), so sigmoid(score) < %g means nothing; "
                     "train it with safety_loss.weight > 0 or set reward.allow_unanchored: true",
                     p->safety.folder,
                     k->present ? "trained without the classification loss" : "no rlhf_calibration",
                     p->c->switch_threshold);
}

static int same_tokenizer(const Ppo *p, const char *folder)
{
    Tokenizer *tok = NULL;
    int rc = tokenizer_open(&tok, folder);
    if (rc == 0 && strcmp(tokenizer_hash(tok), tokenizer_hash(p->tok)) != 0)
        rc = error_set(ERR_DATA, "%s/tokenizer.json: differs from the policy's; all models of a run "
                                 "share one tokenizer", folder);
    tokenizer_close(tok);
    return rc;
}

static int open_reference(const Ppo *p)
{
    const char *folder = ppo_reference_folder(p->c);
    const ModelConfig *m = &p->policy_config;
    ModelConfig ref;
    int rc = model_config_read(&ref, folder);
    if (rc < 0)
        return rc;
    if (ref.head != HEAD_LM || ref.C != m->C || ref.L != m->L || ref.F != m->F || ref.V != m->V ||
        ref.H != m->H || ref.K != m->K || ref.D != m->D || ref.tied != m->tied)
        return error_set(ERR_DATA, "%s/config.json: the reference has another shape than the policy %s; "
                                   "the KL penalty needs the same architecture",
                         folder, p->c->model);
    return same_tokenizer(p, folder);
}

static int open_critic(Ppo *p)
{
    const char *folder = ppo_critic_folder(p->c);
    int rc = model_config_read(&p->critic_config, folder);
    if (rc < 0)
        return rc;
    if (p->critic_config.head != HEAD_SCALAR)
        return error_set(ERR_DATA, "%s/config.json: critic.model: found a causal model, expected a "
                                   "reward model", folder);
    return same_tokenizer(p, folder);
}

static int open_models(Ppo *p, Device *dev)
{
    const PpoConfig *c = p->c;
    const char *hash = tokenizer_hash(p->tok);
    int rc = 0;
    TRY(hf_read_causal(&p->policy_config, c->model, p->tok, " as policy"));
    TRY(open_reference(p));
    TRY(reward_model_open(&p->helpful, c->reward_helpful, dev, hash));
    p->has_safety = c->switch_on;
    if (p->has_safety) {
        TRY(reward_model_open(&p->safety, c->reward_safety, dev, hash));
        TRY(check_safety_model(p));
    }
    if (ppo_has_critic(c))
        TRY(open_critic(p));
fail:
    return rc;
}

int ppo_open_inputs(Ppo *p, Device *dev)
{
    const PpoConfig *c = p->c;
    int rc = 0;
    TRY(tokenizer_open(&p->tok, c->model));
    TRY(template_init(&p->chat, (TemplateKind)c->template_kind, p->tok));
    TRY(open_models(p, dev));
    p->n_stop = generate_stop_ids(p->stop_ids, p->chat.end, &p->policy_config);
    TRY(read_prompts(p));
fail:
    return rc;
}

/* Ids and tags of what prompts became, as the hash of a file's contents would be: 32 hex digits. */
static void hash_examples(const ExampleSet *set, const RecordSet *records, char out[33])
{
    uint64_t h[2] = {(uint64_t)set->n, 1};
    for (int64_t i = 0; i < set->n; i++) {
        const Example *e = &set->at[i];
        const Record *r = &records->at[e->record];
        const uint64_t about[2] = {r->id, r->tagged};
        for (int k = 0; k < 2; k++) {
            h[k] = hash64(e->ids, (size_t)e->n * sizeof *e->ids, h[k]);
            h[k] = hash64(e->mask, (size_t)e->n * sizeof *e->mask, h[k]);
            h[k] = hash64(about, sizeof about, h[k]);
            h[k] = hash64(&r->weight, sizeof r->weight, h[k]);
        }
    }
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)h[0], (unsigned long long)h[1]);
}

int ppo_hash_inputs(Ppo *p)
{
    const PpoConfig *c = p->c;
    int rc = 0;
    TRY(hf_hash(ppo_reference_folder(c), p->inputs[0]));
    TRY(hf_hash(c->reward_helpful, p->inputs[1]));
    if (p->has_safety)
        TRY(hf_hash(c->reward_safety, p->inputs[2]));
    hash_examples(&p->prompts, &p->train, p->inputs[3]);
    if (c->ptx.coef > 0)
        hash_examples(&p->ptx.examples, &p->ptx.records, p->inputs[4]);
fail:
    return rc;
}

int ppo_check_inputs(Ppo *p)
{
    const char *const names[N_INPUTS] = {ppo_reference_folder(p->c), p->c->reward_helpful, p->c->reward_safety,
                                         p->c->train_path, "its records"};
    const char *const keys[N_INPUTS] = {"reference", "reward.helpful", "reward.safety", "data.train",
                                        "ptx.data"};
    if (!p->saved_inputs[0][0])
        memcpy(p->saved_inputs, p->inputs, sizeof p->inputs);
    for (int i = 0; i < N_INPUTS; i++) {
        if (strcmp(p->saved_inputs[i], p->inputs[i]) != 0)
            return error_set(ERR_DATA, "%s: its %s changed since this run began (%s, hash %s, was %s); restore "
                                       "it or start a new run",
                             keys[i], i < 3 ? "weights" : "records", names[i], p->inputs[i],
                             p->saved_inputs[i]);
    }
    return 0;
}
