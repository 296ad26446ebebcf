/* logp.h - log-probabilities of given answers under a model: packed forward, LM head, nothing sampled.
 * Bit for bit those the sampler recorded when the weights are the sampler's. */
#ifndef RLHF_GENERATE_LOGP_H
#define RLHF_GENERATE_LOGP_H

#include "common/model/llama.h"

typedef struct {
    const int32_t *ids; /* prompt + answer */
    int n, n_prompt;    /* answer tokens are [n_prompt, n) */
    float *logp;        /* (n - n_prompt): result */
} LogpItem;

typedef struct {
    Acts *acts;
    Batch batch;
    Pack pack;
    LmHead head;
    int32_t *rows, *target; /* (max_tokens) */
    float *host;            /* (max_tokens) */
    int64_t max_tokens;
} LogpWork;

/* Planning and real, like every alloc; sequences are at most max_tokens long. */
void logp_alloc(LogpWork *w, const Model *m, Arena *work, Arena *host, int64_t max_tokens);
void logp_free(LogpWork *w);
/* Log-probabilities of k tokens that may follow each item: its n_prompt is not looked at, logp holds k, items have at
 * least k tokens. */
void logp_choices(LogpWork *w, const Model *m, const ParamSet *p, const LogpItem *items, int64_t n,
                  const int32_t *choice, int k);
/* temperature > 0 divides the logits. */
void logp_run(LogpWork *w, const Model *m, const ParamSet *p, const LogpItem *items, int64_t n,
              double temperature);

#endif
