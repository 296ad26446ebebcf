/* measures.h - what the evaluation measures of an answer: one table row per measure. */
#ifndef RLHF_DEMO_MEASURES_H
#define RLHF_DEMO_MEASURES_H

#include "rlhf/demo/answers.h"
#include "rlhf/demo/stats.h"

typedef enum {
    M_GOLD,
    M_GOLD_HELPFUL,
    M_GOLD_SAFE,
    M_GOLD_SAFE_UNTAGGED,
    M_EXACT,
    M_VIOLATION,
    M_REFUSED_UNSAFE,
    M_REFUSED_HARMLESS,
    M_REFUSED_LOOK,
    M_REWARD_HELPFUL,
    M_REWARD_SAFETY,
    M_KL,
    M_TOKENS,
    M_FINISHED,
    M_COUNT,                              /* the rows of the table; then, per kind: */
    M_KIND_GOLD = M_COUNT,                /* + kind */
    M_KIND_EXACT = M_KIND_GOLD + WORLD_KINDS, /* + kind */
    M_ORACLE = M_KIND_EXACT + WORLD_KINDS, /* gold of the best answer */
    M_ALL
} Measure;

typedef struct {
    const char *key;   /* in demo.json */
    const char *label; /* in tables */
    bool percent;
    int digits;
} MeasureInfo;

extern const MeasureInfo measures[M_COUNT];

/* NaN: the answer does not count for this measure. */
double measure_answer(const Answer *a, int measure);

enum { V_SFT, V_RS, V_PPO, V_COUNT };
extern const char *const version_keys[V_COUNT]; /* "sft", "rs", "ppo" */

typedef struct {
    Bootstrap boot;
    int64_t answers[V_COUNT];
    int n_prompts; /* distinct */
} Evaluation;

/* Versions must answer the same ids and samples. ERR_DATA otherwise. */
int evaluation_make(Evaluation *e, const AnswerSet version[V_COUNT], int draws, uint64_t seed);
void evaluation_free(Evaluation *e);

Interval evaluation_mean(const Evaluation *e, int version, int measure);
Interval evaluation_difference(const Evaluation *e, int version, int minus, int measure);
/* Gain from `minus` to `version`, as a share of the gap between SFT and the best answers. */
Interval evaluation_gap_share(const Evaluation *e, int version, int minus);

/* The acceptance rules, each with what was found. */
typedef struct {
    const char *rule;
    bool pass;
    char found[200];
} Rule;

enum { RULES_MAX = 12 };
int evaluation_rules(const Evaluation *e, Rule out[RULES_MAX]); /* number of rules */

#endif
