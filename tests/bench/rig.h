/* rig.h - a model with random weights and what a training step or generation needs around it. */
#ifndef RLHF_BENCH_RIG_H
#define RLHF_BENCH_RIG_H

#include "common/generate/generate.h"
#include "common/train/optim.h"
#include "tests/bench/bench.h"

typedef struct {
    Device *dev;
    ModelConfig config;
    Arena weights, work, host;
    Model model;
    ParamSet params;
    /* for training */
    Grads grads;
    Optim optim;
    OptimConfig optim_config;
    Acts *acts;
    Batch batch;
    Pack pack;
    LmHead lm;
    ScalarHead scalar;
    Tensor loss, margin, weight; /* of pairs */
    /* for generation */
    Generator *gen;
} Rig;

/* Commits the arenas of a row; where there is not that much memory, says so, and the row is left out. */
bool rig_fits(MemoryPlan *plan, const char *row);

/* For steps of S sequences of T tokens, with a language-model or a scalar head (untied then). False, and nothing is open:
 * rig_fits says no; so do the others. */
bool rig_open_training(Rig *r, const Bench *b, const Shape *s, HeadKind head, int threads, const char *row);
/* For `slots` sequences of at most max_length tokens. */
bool rig_open_generation(Rig *r, const Bench *b, const Shape *s, int64_t slots, int64_t max_length, int threads, const char *row);
void rig_close(Rig *r);

/* ---- training steps (steps.c) ------------------------------------------------------------------- */

void steps_fill(Rig *r, const Shape *s, int n); /* n sequences of random tokens, all of them targets */
void steps_sft(Rig *r);
void steps_reward(Rig *r);

/* ---- generation (decode.c) ---------------------------------------------------------------------- */

typedef struct {
    int B, n_prompt, n_new;
} Load;

typedef struct {
    Rig rig;
    Load load;
    int threads;
    int32_t *prompts, *answers;
    GenRequest *req;
    GenResult *res;
    double started, first; /* of the last run: when, and seconds to its first token */
} Decoding;

bool decoding_open(Decoding *d, const Bench *b, const Shape *s, Load l, int threads, const char *row);
/* Seconds of B answers of n_new tokens; shared: to one prompt. Nothing ends an answer early. */
double decoding_run(Decoding *d, int n_new, bool shared);
/* Seconds of that without the prompts: all but the first token of each answer; *prompts: those of the rest. */
double decoding_alone(Decoding *d, double *prompts);
void decoding_close(Decoding *d);

/* n ids below V, others for every seed. */
void rig_random_ids(int32_t *ids, int64_t n, int64_t V, uint64_t seed);

extern const OptimConfig rig_optim_config;

#endif
