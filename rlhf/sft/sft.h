/* sft.h - the program rlhf-sft: its config, its state, and the trainer on the shared loop. */
#ifndef RLHF_SFT_SFT_H
#define RLHF_SFT_SFT_H

#include "common/model/llama.h"
#include "common/train/mix.h"
#include "common/train/optim.h"
#include "common/train/trainer.h"

typedef enum { INIT_CHECKPOINT, INIT_RANDOM } InitFrom; /* "checkpoint|random" */

typedef struct {
    RunConfig run;
    const char *model, *eval_path;
    int init; /* InitFrom */
    bool pretrain;
    int template_kind, on_bad_row, on_long;
    ConfigList train; /* DataSource */
    int64_t max_length, epochs, batch_size, micro_batch_tokens;
    int recompute; /* Recompute */
    OptimConfig optim;
} SftConfig;

extern const CfgField sft_fields[];

/* Sequences ready for training, with the sources they came from. */
typedef struct {
    RecordSet records;
    ExampleSet examples;
    int64_t *source_first; /* examples of source i: [source_first[i], source_first[i + 1]) */
} SftData;

int sft_data_read(SftData *d, const DataSource *sources, int n_sources, const ChatTemplate *chat,
                  const SftConfig *c);
/* Over ids, masks and weights of all sequences, in order. */
uint64_t sft_data_hash(const SftData *d, uint64_t seed);
void sft_data_free(SftData *d);

/* Sums over target tokens in global order, in f64. */
typedef struct {
    double loss, entropy; /* weighted negative log-likelihood; entropy */
    double weight;        /* sum of the tokens' weights */
    int64_t n_targets, n_hits, n_tokens; /* hits: targets that were the most likely token */
} SftSums;

typedef struct {
    const SftConfig *c;
    Tokenizer *tok;
    ChatTemplate chat;
    ModelConfig config;
    SftData train, eval;
    Model model;
    ParamSet params;
    Grads grads;
    Optim optim;
    Acts *acts;
    Batch batch;
    LmHead head;
    Pack pack;
    Arena weights, gradients, moments, work, host;
    int32_t *rows, *target;       /* (micro_batch_tokens): staging */
    float *weight, *logp, *entropy, *hit;
    int64_t *order, n_order, order_epoch;
    int64_t steps_per_epoch;
    int64_t tokens_seen;
    uint64_t data_hash, saved_hash; /* of the data now, and of those the run began with */
} Sft;

extern const TrainerDef sft_trainer;

#endif
