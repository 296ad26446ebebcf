/* reward_eval.h - how good a reward model is on one set: accuracy per rating and per safety bin (Llama 2, tables 8
 * and 29), how well it tells safe from unsafe (reward_detect.h), whether its probabilities hold
 * (reward_reliability.h), and whether it follows length. The same table serves what a model is measured against:
 * length alone, and a generative judge (reward_judge.h). Tested by tests/unit/test_reward_eval.c. */
#ifndef RLHF_REWARD_EVAL_H
#define RLHF_REWARD_EVAL_H

#include "reward/pair_data.h"
#include "reward/reward_detect.h"
#include "reward/reward_model.h"
#include "reward/reward_reliability.h"

typedef enum { BIN_SAFE_UNSAFE, BIN_BOTH_SAFE, BIN_BOTH_UNSAFE, BIN_UNSAFE_SAFE, BIN_COUNT } SafetyBin;

/* Who gives the scores of a table. Equal scores count as wrong of a model, which must separate, and as half right
 * of the others, which often cannot. A length is no probability and only a model speaks of safety. */
typedef enum { EVAL_MODEL, EVAL_LENGTH, EVAL_JUDGE } EvalWho;

typedef struct {
    int64_t n, right; /* right: chosen > rejected, no margin */
    int64_t tied;     /* of n: equal and counted half; 0 of a model */
} Accuracy;

typedef struct {
    Accuracy all, strength[STRENGTH_COUNT], bin[BIN_COUNT];
    Interval difference[STRENGTH_COUNT];    /* mean of chosen - rejected, over prompts */
    Accuracy chosen_longer, chosen_shorter; /* pairs whose chosen answer has more, fewer tokens */
    double loss;               /* mean ranking loss without margin */
    double margin;             /* mean of chosen - rejected */
    double mean_reward, min_reward, max_reward; /* over all answers, pairs or not */
    int64_t n_labels, n_unsafe;
    int64_t flagged50, hit50;  /* called unsafe at sigmoid < 0.5; of these really unsafe */
    int64_t flagged15, hit15;
    Detect detect;
    Reliability pairs, labels; /* n = 0 where there is nothing to say */
} EvalTable;

/* score[i][0..1]: linear scores of item i's sequences; NaN: a pair that was not looked at (EVAL_JUDGE). precision:
 * reward_detect.h. */
void eval_table(EvalTable *t, const PairSet *s, const float (*score)[2], EvalWho who, double precision);
/* What needs no bootstrap, for the evaluations during training: all but difference, detect, pairs and labels. */
void eval_counts(EvalTable *t, const PairSet *s, const float (*score)[2], EvalWho who);
double accuracy_of(Accuracy a);          /* NaN when empty */
Interval accuracy_interval(Accuracy a);  /* Wilson */
/* Score of item i that EVAL_LENGTH gives: tokens of its answers. The longer answer is preferred, always: nothing is
 * fitted. Below 50 % the shorter ones are. */
void eval_length(const PairSet *s, float (*score)[2]);
/* Accuracy of a minus that of b on the pairs that both looked at, paired, interval over prompts. */
Interval eval_difference(const PairSet *s, const float (*a)[2], EvalWho who_a, const float (*b)[2], EvalWho who_b);

Calibration eval_calibration(const EvalTable *t, bool anchored);
const char *safety_bin_name(SafetyBin b);
void eval_print(const EvalTable *t, Str *out); /* for people */
void eval_json(const EvalTable *t, JsonWriter *w);
void eval_json_keys(const EvalTable *t, EvalWho who, JsonWriter *w); /* the same into an open object */
/* Scores all sequences of a set, packs as large as the model has room for. */
void eval_score(RewardModel *r, const PairSet *s, float (*score)[2]);

#endif
