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

/* B answers of up to M tokens; row b of a (B, M) array belongs to answer b. Answers to one prompt are
 * neighbours, samples_per_prompt of them. Host memory. */
typedef struct {
    int64_t B, M;
    int64_t n_used;               /* answers in it (a held-out rollout may have fewer than B) */
    int64_t *prompt;              /* (B) index into the example set */
    int32_t *n, *ids;             /* (B), (B, M) */
    uint8_t *finished;            /* (B) */
    float *logp, *ref, *adv;      /* (B, M): sampler's, reference's */
    float *value, *ret;           /* (B, M): old values, returns; NULL without a critic */
    double *helpful, *safety;     /* (B) linear scores */
    double *raw, *scaled;         /* (B) score of the branch; on the common scale */
    double *shaped;               /* (B) after whitening and the EOS rule */
    double *k1, *k3;              /* (B) */
    uint8_t *branch;              /* (B) PpoBranch */
} Rollout;

/* Sequences of the language-model loss that is mixed in (ppo_ptx.c). */
typedef struct {
    RecordSet records;
    ExampleSet examples;
    int64_t *first;               /* (sources + 1): examples of source i are [first[i], first[i + 1]) */
    int64_t *order, n_order, epoch; /* order: of `epoch` */
    int64_t cursor;               /* sequences used so far; part of a checkpoint */
} PtxData;

/* What a run read, by hash: reference, helpful, safety, data.train, ptx.data. */
enum { N_INPUTS = 5 };

typedef struct {
    const PpoConfig *c;
    Tokenizer *tok;
    ChatTemplate chat;
    RecordSet train, eval;
    ExampleSet prompts, held_out;
    PtxData ptx;
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

    /* part of a checkpoint: the scales of both models, all scores so far, beta, early stopping */
    ScoreScale scale[2];          /* helpful, safety */
    ScoreMoments running;
    double kl_coef;
    double best_score;
    int64_t best_step, evals_without_gain;
    /* what this run read, what the checkpoint was made with */
    char inputs[N_INPUTS][33], saved_inputs[N_INPUTS][33];

    /* what the iteration began with, for the dump */
    struct {
        ScoreMoments running;
        double kl_coef, kl;       /* beta of the iteration before and its mean sequence KL */
        int64_t ptx_cursor;
    } before;
    bool warned_of_mixed;
} Ppo;

/* ppo_inputs.c */
const char *ppo_reference_folder(const PpoConfig *c);
const char *ppo_critic_folder(const PpoConfig *c); /* that the critic starts from */
int ppo_open_inputs(Ppo *p, Device *dev);
int ppo_hash_inputs(Ppo *p);  /* into p->inputs */
int ppo_check_inputs(Ppo *p); /* ERR_DATA where models or data are not those the run began with */

/* rollout.c */
void rollout_alloc(Rollout *r, Arena *host, int64_t B, int64_t M, bool critic);
/* Answers, scores and reference log-probabilities of n prompts of `set`, given by roll->prompt.
 * 0, 1 = stopped in between (contents void), or an error. */
int rollout_run(Ppo *p, Rollout *r, const ExampleSet *set, const RecordSet *records, int64_t n,
                uint32_t round, uint64_t seed, const volatile int *stop);
/* Measures p->scale on the finished answers of r, whichever model speaks for them. When a model gives
 * them (nearly) one score both models keep their own scale for the whole run, with a warning: one of
 * them on another scale would be worse than none. */
void rollout_measure_scale(Ppo *p, const Rollout *r);
void rollout_scale(Ppo *p, Rollout *r); /* raw -> scaled */
/* scaled -> shaped, once a rollout (p->running grows); `flat` as ppo_shape_scores. */
void rollout_shape(Ppo *p, Rollout *r, bool *flat);
/* KL penalty and advantages from shaped scores (and values). */
void rollout_advantages(Ppo *p, Rollout *r);
/* ids of prompt + answer of answer b; returns the length. */
int rollout_sequence(const ExampleSet *set, const Rollout *r, int64_t b, int32_t *out);

/* critic.c */
/* Values before each answer token, into r->value. */
void critic_values(Ppo *p, Rollout *r, const ExampleSet *set);
/* Ridge regression of the value head onto Monte Carlo returns of the rollout, whose scores are shaped:
 * the head starts in whitened units. */
int critic_refit(Ppo *p, const Rollout *r, const ExampleSet *set);

/* ppo_update.c */
typedef struct {
    double policy_loss, value_loss, ratio, clipfrac, approxkl, value_clipfrac, entropy;
    double ratio_max_dev; /* largest |ratio - 1| */
    double ptx_loss;      /* mean over its target tokens */
    double policy_norm, value_norm, lr;
} UpdateStats;
/* Packs answers [from, to) of the rollout starting at *next into p->pack; false when none is left. The
 * rows of the answers' predictions go to p->stage_rows, the tokens to p->stage_target; *rows counts. */
bool ppo_next_pack(Ppo *p, const Rollout *r, const ExampleSet *set, int64_t *next, int64_t to,
                   int64_t *rows);
/* Gradients of one minibatch, answers [from, to), into policy_grads, with the language-model loss, or into
 * critic_grads, and into s what is said of them. Both lie on the same bytes, so the step of the optimizer, which leaves
 * zeros, comes before the other's. */
void ppo_policy_gradients(Ppo *p, const Rollout *r, int64_t from, int64_t to, UpdateStats *s);
void ppo_critic_gradients(Ppo *p, const Rollout *r, int64_t from, int64_t to, UpdateStats *s);

/* ppo_ptx.c: the language-model loss that keeps a policy to its data (InstructGPT, "PPO-ptx"). */
int ptx_read(Ppo *p);
/* Sequence number k of the endless walk over epochs. */
const Example *ptx_item(Ppo *p, int64_t k);
double ptx_weight(const Ppo *p, const Example *e); /* its record's */
/* Gradient of ptx.coef * the weighted mean of -logp over the target tokens of the next ptx.batch_size
 * sequences, added to policy_grads. Returns that mean; the cursor moves on. */
double ptx_gradients(Ppo *p);
void ptx_free(PtxData *d);

/* ppo_metrics.c */
double ppo_mean(const double *x, int64_t n); /* NaN when n is 0 */
void ppo_rollout_metrics(Metrics *m, Ppo *p, const Rollout *r, bool flat);
void ppo_update_metrics(Trainer *t, const Ppo *p, const UpdateStats *s, int64_t iteration, bool policy);

/* ppo_eval.c: the held-out prompts. */
/* Score - beta KL on them; keeps the best weights; 1 = patience is over. */
int ppo_evaluate(Trainer *t, Ppo *p);

/* ppo_plan.c */
void ppo_plan(Trainer *t, RunPlan *plan);

/* ppo_dump.c: one iteration for an outside program to recompute. */
/* `step` of `total` is the first minibatch of the iteration. */
int ppo_dump_rollout(Ppo *p, const char *dir, bool flat, int64_t step, int64_t total);
int ppo_dump_weights(Ppo *p, const char *dir, const char *when); /* "before" (and moments), "after" */
int ppo_dump_gradients(const Grads *g, const char *dir, const char *name); /* of the first minibatch; "policy", "critic" */

#endif
