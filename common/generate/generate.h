/* generate.h - batched decoding and sampling with the trainer's own weights: no copy, no second
 * engine. Continuous batching over `slots` sequences; a draw depends only on (seed, round, prompt
 * id, sample, position), so the batch never changes an answer. The log-probabilities are bit for
 * bit those of lm_head_run on the same tokens.
 *
 * Requests that stand next to each other and point to the same prompt are a group: the prompt runs
 * through the model once, and each of them refers to its pages of the KV cache. */
#ifndef RLHF_GENERATE_GENERATE_H
#define RLHF_GENERATE_GENERATE_H

#include "common/model/llama.h"

typedef struct {
    uint64_t seed;
    uint32_t round;
    double temperature; /* 0 = greedy */
    int max_new_tokens;
    const int32_t *stop; /* ids that end an answer (kept as its last token) */
    int n_stop;
    void (*on_token)(void *ctx, int64_t request, int32_t id); /* each token as it is drawn; NULL = none */
    void *ctx;
} GenOptions;

typedef struct {
    const int32_t *prompt; /* borrowed; the same pointer and length as the neighbour's: one group */
    int n_prompt;
    uint64_t prompt_id;
    uint32_t sample;
    int option; /* index into the options of the call: members of a group may differ in it */
} GenRequest;

typedef struct {
    int32_t *ids; /* the answer; caller's memory, room for max_new_tokens */
    float *logp;  /* of each answer token at the sampling temperature (greedy: 1); may be NULL */
    int n;
    bool finished; /* ended by a stop id */
} GenResult;

/* Ids that end an answer: `end` (a template's closing token; -1 = none), then the model's eos ids. Returns the
 * number; out has room for MODEL_MAX_EOS + 1. */
int generate_stop_ids(int32_t *out, int32_t end, const ModelConfig *c);

typedef struct Generator Generator;

/* Room for n_slots sequences of at most max_length tokens (prompt + answer) and prefill in chunks of
 * max_rows rows. Between calls of generate() the device's part may serve others (arena_share). */
Generator *generator_new(const Model *m, int64_t n_slots, int64_t max_length, int64_t max_rows);
void generator_alloc(Generator *g, Arena *device, Arena *host);
void generator_free(Generator *g);

/* Whether steps run as graphs where the device records them (they do): never changes a bit. */
void generator_graphs(Generator *g, bool on);
/* Steps that were the launch of one. */
int64_t generator_launches(const Generator *g);

/* Rows the model has run for this generator: prompt tokens and answer tokens. */
int64_t generator_rows(const Generator *g);
/* Pages of the cache that its slots refer to now; after generate(): what the last answers needed. */
int64_t generator_pages(const Generator *g);

/* Runs all requests; o: one set of options, or as many as the requests' `option` point into. Returns
 * 0, or 1 when *stop (may be NULL) became non-zero in between: results are then incomplete and to be
 * thrown away. A prompt that leaves no room for one new token is ERR_DATA naming its index and
 * length. */
int generate(Generator *g, const ParamSet *p, const GenRequest *req, int64_t n, const GenOptions *o,
             GenResult *out, const volatile int *stop, void (*progress)(void *ctx, int64_t done),
             void *ctx);

#endif
