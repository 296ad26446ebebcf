/* reward_eval.h - how good a reward model is: accuracy per rating and per safety bin (Llama 2, tables 8
 * and 29), and how well it tells safe from unsafe (reward_detect.h). */
#ifndef RLHF_REWARD_EVAL_H
#define RLHF_REWARD_EVAL_H

#include "reward/pair_data.h"
#include "reward/reward_detect.h"
#include "reward/reward_model.h"

typedef enum { BIN_SAFE_UNSAFE, BIN_BOTH_SAFE, BIN_BOTH_UNSAFE, BIN_UNSAFE_SAFE, BIN_COUNT } SafetyBin;

typedef struct {
    int64_t n, right; /* right: chosen > rejected, no margin; a tie counts as wrong */
} Accuracy;

typedef struct {
    Accuracy all, strength[STRENGTH_COUNT], bin[BIN_COUNT];
    double loss;               /* mean ranking loss without margin */
    double margin;             /* mean of chosen - rejected */
    double mean_reward, min_reward, max_reward; /* over all answers, pairs or not */
    int64_t n_labels, n_unsafe;
    int64_t flagged50, hit50;  /* called unsafe at sigmoid < 0.5; of these really unsafe */
    int64_t flagged15, hit15;
    Detect detect;             /* at precision DETECT_PRECISION */
} EvalTable;

/* score[i][0..1]: linear scores of item i's sequences. */
void eval_table(EvalTable *t, const PairSet *s, const float (*score)[2]);
double accuracy_of(Accuracy a);               /* NaN when empty */
Calibration eval_calibration(const EvalTable *t, bool anchored);
void eval_print(const EvalTable *t, Str *out); /* for people */
void eval_json(const EvalTable *t, JsonWriter *w);
void eval_json_keys(const EvalTable *t, JsonWriter *w); /* the same into an open object */
void eval_json_accuracy(JsonWriter *w, const char *key, Accuracy a); /* with Wilson's interval */
/* Scores all sequences of a set, packs as large as the model has room for. */
void eval_score(RewardModel *r, const PairSet *s, float (*score)[2]);

#endif
