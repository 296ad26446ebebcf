/* ppo.h - inside of ppo/: the trainer's state and its parts. Read ppo_trainer.c first.
 *
 * A step is one minibatch. The first step of an iteration makes the rollout: batch_size answers, their
 * scores, log-probabilities, values, advantages. The rollout lives in fixed arrays that a checkpoint
 * holds, so a run can stop between minibatches and go on to the bit. */
#ifndef RLHF_PPO_H
#define RLHF_PPO_H

#include "common/generate/generate.h"
#include "common/model/hf.h"
#include "ppo/ppo_config.h"
#include "ppo/ppo_math.h"
#include "reward/reward_model.h"

/* B answers of up to M tokens; row b of a (B, M) array belongs to answer b. Host memory. */
typedef struct {
    int64_t B, M;
    int64_t n_used;               /* answers in it (a held-out rollout may have fewer than B) */
    int64_t *prompt;              /* (B) index into the example set */
    int32_t *n, *ids;             /* (B), (B, M) */
    uint8_t *finished;            /* (B) */
    float *logp, *ref, *value;    /* (B, M): sampler's, reference's, old values */
    float *adv, *ret;             /* (B, M) */
    double *helpful, *safety;     /* (B) linear scores */
    double *raw, *shaped;         /* (B) score of the branch; after whitening and the EOS rule */
    double *k1, *k3;              /* (B) */
    uint8_t *branch;              /* (B) PpoBranch */
} Rollout;

typedef struct {
    const PpoConfig *c;
    Tokenizer *tok;
    ChatTemplate chat;
    RecordSet train, eval;
    ExampleSet prompts, held_out;
    int32_t stop_ids[MODEL_MAX_EOS + 1];
    int n_stop;

    ModelConfig policy_config, critic_config;
    Model model, critic_model;
    ParamSet policy, reference, critic;
    Grads policy_grads, critic_grads;
    Optim policy_optim, critic_optim;
    RewardModel helpful, safety;
    bool has_safety;

    Acts *acts, *critic_acts;
    Batch batch;
    Pack pack;
    LmHead head;
    ScalarHead value_head;
    Tensor value_loss, value_old, value_ret, value_weight; /* (R) */
    Generator *gen;
    Arena weights, grads, optim, work, host;

    Rollout roll, probe;          /* training and held-out */
    float *stage;                 /* (micro_batch_tokens) host side of uploads and downloads */
    float *stage_ratio, *stage_entropy;
    int32_t *stage_rows, *stage_target, *stage_seq;
    int64_t max_tokens;

    /* early stopping; part of a checkpoint */
    double best_score;
    int64_t best_step, evals_without_gain;
    /* hashes of reference, helpful, safety: what this run read, what the checkpoint was made with */
    char inputs[3][33], saved_inputs[3][33];
} Ppo;

/* rollout.c */
void rollout_alloc(Rollout *r, Arena *host, int64_t B, int64_t M);
/* Answers, scores, reference log-probabilities and values of n prompts of `set`, given by roll->prompt.
 * 0, 1 = stopped in between (contents void), or an error. */
int rollout_run(Ppo *p, Rollout *r, const ExampleSet *set, const RecordSet *records, int64_t n,
                uint32_t round, uint64_t seed, const volatile int *stop);
/* Switch, whitening, KL, advantages; `flat` as ppo_shape_scores. */
void rollout_advantages(Ppo *p, Rollout *r, bool *flat);
/* ids of prompt + answer of answer b; returns the length. */
int rollout_sequence(const ExampleSet *set, const Rollout *r, int64_t b, int32_t *out);

/* critic.c */
/* Values before each answer token, into r->value. */
void critic_values(Ppo *p, Rollout *r, const ExampleSet *set);
/* Ridge regression of the value head onto Monte Carlo returns of the rollout (design: the head starts
 * in whitened units). */
int critic_refit(Ppo *p, Rollout *r, const ExampleSet *set);

/* ppo_update.c */
typedef struct {
    double policy_loss, value_loss, ratio, clipfrac, approxkl, value_clipfrac, entropy;
    double ratio_max_dev; /* largest |ratio - 1| */
    double policy_norm, value_norm;
} UpdateStats;
/* Packs answers [from, to) of the rollout starting at *next into p->pack; false when none is left. The
 * rows of the answers' predictions go to p->stage_rows, the tokens to p->stage_target; *rows counts. */
bool ppo_next_pack(Ppo *p, const Rollout *r, const ExampleSet *set, int64_t *next, int64_t to,
                   int64_t *rows);
/* Gradients of one minibatch into policy_grads / critic_grads. */
void ppo_gradients(Ppo *p, const Rollout *r, int64_t from, int64_t to, bool policy, UpdateStats *s);

/* ppo_dump.c: one iteration for an outside program to recompute. */
/* `step` of `total` is the first minibatch of the iteration. */
int ppo_dump_rollout(Ppo *p, const char *dir, bool flat, int64_t step, int64_t total);
int ppo_dump_weights(Ppo *p, const char *dir, const char *when); /* "before" (and moments), "after" */
int ppo_dump_gradients(Ppo *p, const char *dir); /* of the first minibatch */

#endif
