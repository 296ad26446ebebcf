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
    const char *folder; /* borrowed */
    Device *dev;
    ModelConfig config;
    Model model;
    ParamSet params;
    Calibration calibration;
    Recompute recompute; /* of the trainer's backward */
    Acts *acts;
    Batch batch;
    ScalarHead head;
    Pack pack;
    float *host;    /* (max_tokens) scores of a pack */
    int32_t *rows;  /* (max_tokens) */
} RewardModel;

/* Reads config.json and the calibration; checks for a scalar head, and, unless tokenizer_hash is
 * NULL, that the folder's tokenizer is that of the policy. ERR_DATA, ERR_NOINPUT. */
int reward_model_open(RewardModel *r, const char *folder, Device *dev, const char *tokenizer_hash);
/* Called twice, planning and real: `weights` holds parameters and constants, `work` the activations
 * for packs of max_tokens, sequences being at most max_length long. training: room for backward too (the
 * trainer of this folder; r->config, r->dev, r->folder and r->recompute are then set by it instead of by
 * open). dtype: of products, as in params.h. */
int reward_model_alloc(RewardModel *r, Arena *weights, Arena *work, int max_tokens, int max_length,
                       bool training, DType dtype);
int reward_model_load(RewardModel *r); /* weights */
void reward_model_free(RewardModel *r);

/* Scores n sequences (ids[i], len[i]) into out[i]; packs them itself. */
void reward_model_score(RewardModel *r, const int32_t *const *ids, const int *len, int64_t n, float *out);
/* Score after every token: out[i][t] for each sequence. */
void reward_model_score_tokens(RewardModel *r, const int32_t *const *ids, const int *len, int64_t n,
                               float *const *out);

#endif
