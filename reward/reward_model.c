/* reward_model.c - loading and scoring for reward_model.h. One idea: sequences are packed in the
 * order given until a pack is full; a row's bits never depend on its pack, so the packing is free to
 * be whatever is fast. Tested by tests/unit/test_reward_model.c and the PPO and rejection runs. */
#include "reward/reward_model.h"

#include "common/base/error.h"
#include "common/runtime/device.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int read_calibration(RewardModel *r)
{
    Json *j = NULL;
    int rc = hf_read_extra(r->folder, "rlhf_calibration", &j);
    if (rc < 0 || !j)
        return rc;
    Calibration *c = &r->calibration;
    c->present = true;
    c->anchored = json_bool(json_get(j, "anchored"), false);
    c->precision50 = json_num(json_get(j, "precision_50"), NAN);
    c->recall50 = json_num(json_get(j, "recall_50"), NAN);
    c->precision15 = json_num(json_get(j, "precision_15"), NAN);
    c->recall15 = json_num(json_get(j, "recall_15"), NAN);
    c->n_labels = json_int(json_get(j, "n_labels"), 0);
    json_free(j);
    return 0;
}

int reward_model_open(RewardModel *r, const char *folder, Device *dev, const char *tok_hash)
{
    int rc = 0;
    Tokenizer *tok = NULL;
    memset(r, 0, sizeof *r);
    r->folder = folder;
    r->dev = dev;
    TRY(model_config_read(&r->config, folder));
    if (r->config.head != HEAD_SCALAR) {
        rc = error_set(ERR_DATA,
                       "%s/config.json: architectures: found a causal model, expected a "
                       "...ForSequenceClassification folder as rlhf-reward train exports it",
                       folder);
        goto fail;
    }
    if (tok_hash) {
        TRY(tokenizer_open(&tok, folder));
        if (strcmp(tokenizer_hash(tok), tok_hash) != 0) {
            rc = error_set(ERR_DATA,
                           "%s/tokenizer.json: differs from the tokenizer of the other model; both read "
                           "the same ids, so train this one from a model of the same family",
                           folder);
            goto fail;
        }
        TRY(tokenizer_check_vocab(tok, folder, r->config.V));
    }
    TRY(read_calibration(r));
fail:
    tokenizer_close(tok);
    return rc;
}

int reward_model_alloc(RewardModel *r, Arena *weights, Arena *work, int max_tokens, int max_length,
                       bool training, DType dtype)
{
    int rc = model_init(&r->model, &r->config, dtype, r->dev, weights, max_length);
    if (rc < 0)
        return rc;
    params_alloc(&r->params, &r->model.table, weights, r->folder, !training);
    if (!r->acts) {
        r->acts = acts_new(&r->model, max_tokens, training, r->recompute);
        pack_init(&r->pack, max_tokens, max_tokens);
        r->host = xcalloc((size_t)max_tokens, sizeof *r->host);
        r->rows = xcalloc((size_t)max_tokens, sizeof *r->rows);
    }
    acts_alloc(r->acts, work);
    batch_alloc(&r->batch, work, r->dev, max_tokens, max_tokens);
    scalar_head_alloc(&r->head, &r->model, work, max_tokens, training);
    return 0;
}

int reward_model_load(RewardModel *r)
{
    return hf_load_params(&r->params, r->folder, HEAD_AS_STORED, 0);
}

void reward_model_free(RewardModel *r)
{
    acts_free(r->acts);
    pack_free(&r->pack);
    free(r->host);
    free(r->rows);
    params_free(&r->params);
    model_free(&r->model);
    memset(r, 0, sizeof *r);
}

/* Runs the pack and leaves the scores of R rows in r->host. */
static void score_rows(RewardModel *r, int R)
{
    batch_set(&r->batch, &r->pack);
    model_forward(&r->model, &r->params, NULL, &r->batch, r->acts);
    Tensor hidden = acts_hidden(r->acts, &r->batch);
    device_upload(&r->head.rows, r->rows, (size_t)R * sizeof *r->rows);
    scalar_head_forward(&r->head, &r->model, &r->params, R, &hidden);
    device_download(r->host, &r->head.score, (size_t)R * sizeof *r->host);
}

/* Packs from sequence `first` on; returns the number taken (at least one). */
static int64_t fill_pack(RewardModel *r, const int32_t *const *ids, const int *len, int64_t first,
                         int64_t n)
{
    pack_clear(&r->pack);
    int64_t i = first;
    CHECK(len[i] > 0 && pack_fits(&r->pack, len[i]), "sequence %lld of %d tokens, packs hold %d",
          (long long)i, len[i], r->pack.max_tokens);
    while (i < n && pack_open(&r->pack, len[i])) {
        pack_add(&r->pack, ids[i], NULL, len[i], i);
        i++;
    }
    return i - first;
}

void reward_model_score(RewardModel *r, const int32_t *const *ids, const int *len, int64_t n,
                        float *out)
{
    for (int64_t i = 0; i < n;) {
        int64_t taken = fill_pack(r, ids, len, i, n);
        for (int s = 0; s < r->pack.n_seqs; s++)
            r->rows[s] = r->pack.starts[s + 1] - 1;
        score_rows(r, r->pack.n_seqs);
        memcpy(out + i, r->host, (size_t)taken * sizeof *out);
        i += taken;
    }
}

void reward_model_score_tokens(RewardModel *r, const int32_t *const *ids, const int *len, int64_t n,
                               float *const *out)
{
    for (int64_t i = 0; i < n;) {
        int64_t taken = fill_pack(r, ids, len, i, n);
        for (int t = 0; t < r->pack.n_tokens; t++)
            r->rows[t] = t;
        score_rows(r, r->pack.n_tokens);
        for (int64_t s = 0; s < taken; s++)
            memcpy(out[i + s], r->host + r->pack.starts[s], (size_t)len[i + s] * sizeof **out);
        i += taken;
    }
}
