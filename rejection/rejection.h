/* rejection.h - the state of rlhf-rejection, shared by its files. */
#ifndef RLHF_REJECTION_REJECTION_H
#define RLHF_REJECTION_REJECTION_H

#include "common/generate/generate.h"
#include "rejection/curve.h"
#include "rejection/pool.h"
#include "rejection/rejection_config.h"
#include "rejection/select.h"
#include "reward/reward_model.h"

/* A candidate of a block besides its scores. */
typedef struct {
    const int32_t *ids;     /* n tokens, the closing one included */
    int n;
    size_t text;            /* where its text begins in Block.text */
    const float *logp;      /* (n); NULL for an answer of a pool */
    const PoolAnswer *pool; /* NULL for an answer of this run */
} Answer;

/* A block of prompts: its candidates by prompt, those of this run first (temperature, then sample). */
typedef struct {
    int64_t first, n;                 /* prompts [first, first + n) */
    int64_t max_fresh, max_all, max_tokens; /* room: answers of this run; all; tokens of all with prompts */
    int64_t *from;                    /* (block_prompts + 1): rows of prompt i are from[i] .. from[i + 1] */
    GenRequest *req;                  /* (max_fresh) */
    GenResult *res;                   /* (max_fresh) */
    int32_t *ids;                     /* (max_fresh, max_new_tokens) */
    float *logp;                      /* (max_fresh, max_new_tokens) */
    Answer *answer;                   /* (max_all) */
    Candidate *cand;                  /* (max_all) */
    int32_t *flat;                    /* (max_tokens) prompt and answer, one after another */
    const int32_t **seq;              /* (max_all) into flat */
    int *len;                         /* (max_all) */
    float *score;                     /* (max_all) */
    double *sorted;                   /* (k) */
    Str text;
} Block;

enum { CURVE_UNTAGGED, CURVE_TAGGED, CURVE_KINDS };
enum { INPUT_MODEL, INPUT_HELPFUL, INPUT_SAFETY, INPUT_PROMPTS, INPUT_POOLS }; /* the pools follow */

typedef struct {
    const RejectionConfig *c;
    Tokenizer *tok;
    ChatTemplate chat;
    RecordSet records;
    ExampleSet prompts;
    Pool pool;
    ModelConfig policy_config;
    Model model;
    ParamSet policy; /* empty with k = 0, like gen */
    RewardModel helpful, safety;
    bool has_safety;
    Generator *gen;
    Arena weights, work, host;
    GenOptions *options; /* (temperatures) */
    int32_t stop_ids[MODEL_MAX_EOS + 1];
    int n_stop;
    int64_t per_prompt; /* answers of this run to a prompt: temperatures x k */
    Block block;
    char (*inputs)[33], (*saved_inputs)[33]; /* (n_inputs) hashes: now, and when the run began */
    int n_inputs;

    /* totals; part of a checkpoint */
    Curve *curves; /* (temperatures, CURVE_KINDS) */
    struct {
        int64_t n_prompts, n_answers, n_unfinished, n_selected, n_none, n_all_unsafe;
        int64_t n_pool, n_pool_same, n_pool_selected; /* competed; equal to a fresh answer; chosen */
        double sum_selected_helpful, sum_selected_safety;
    } total;
} Rejection;

static inline const Record *rejection_record(const Rejection *p, int64_t prompt)
{
    return &p->records.at[p->prompts.at[prompt].record];
}

/* block.c: one step */
void block_plan(Rejection *p);  /* the room that the largest block needs */
void block_alloc(Rejection *p); /* in p->host; planning and real */
/* Answers prompts [first, first + n), adds those of the pools, scores all, chooses, counts, and writes
 * the step's part. 1 = stopped meanwhile: nothing was counted or written. */
int block_run(Trainer *t, Rejection *p, int64_t first, int64_t n);
void block_free(Block *b);

/* results.c: samples.jsonl, selected.jsonl, curves.json, and the last lines of the log */
int results_write(Trainer *t, Rejection *p);

#endif
