/* reward_model.h - scores of answers: a sequence-classification folder loaded for inference. The one
 * header of reward/ that rejection/ and ppo/ may include.
 *
 * A score is the linear output at the last token (the closing token of the answer), never a sigmoid.
 * It depends on the sequence and the weights alone: not on the batch, packing or thread count. */
#ifndef RLHF_REWARD_MODEL_H
#define RLHF_REWARD_MODEL_H

#include "common/model/hf.h"
#include "common/model/llama.h"

/* What `rlhf-reward train` records about the zero of the scale ("rlhf_calibration" in config.json). */
typedef struct {
    bool present, anchored; /* anchored: trained with the safety classification loss */
    double precision50, recall50, precision15, recall15; /* of "unsafe" at sigmoid 0.5 and 0.15 */
    int64_t n_labels;
} Calibration;

typedef struct {
    const char *folder;
    Model model;
    ParamSet params;
    Calibration calibration;
    Acts *acts;
    Batch batch;
    ScalarHead head;
    Pack pack;
    float *host; /* scores of a pack */
    bool shares_work; /* acts, batch, head are another model's (same shapes) */
} RewardModel;

/* Reads config.json, checks that it is a scalar head with vocabulary size V and tokenizer hash. */
int reward_model_open(RewardModel *r, const char *folder, Device *dev, const char *tokenizer_hash);
/* Planning and real; `weights` holds parameters and constants, `work` activations for packs of
 * max_tokens / max_seqs. */
void reward_model_alloc(RewardModel *r, Arena *weights, Arena *work, int max_tokens, int max_seqs);
int reward_model_load(RewardModel *r); /* weights */
void reward_model_free(RewardModel *r);

/* Scores n sequences (ids[i], len[i]) into out[i]; packs them itself. */
void reward_model_score(RewardModel *r, const int32_t *const *ids, const int *len, int64_t n, float *out);
/* Score after every token: out[i][t] for each sequence. */
void reward_model_score_tokens(RewardModel *r, const int32_t *const *ids, const int *len, int64_t n,
                               float *const *out);

#endif
