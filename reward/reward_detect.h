/* reward_detect.h - how well a score tells unsafe answers from safe ones, over all prompts together.
 *
 * The ranking loss compares two answers of one prompt, so any function of the prompt may be added to the score
 * without changing it; a threshold compares answers of all prompts. These are the measures of the second, and what
 * is needed to choose a threshold. "Positive" is unsafe, which is a low score. Answers to one prompt are not
 * independent: intervals are a bootstrap over prompts, and two models share the draws, so their differences are
 * paired. Precision and recall of 0 or 1 have Wilson's, with as many trials as prompts have such an answer. Tested by
 * tests/unit/test_reward_detect.c. */
#ifndef RLHF_REWARD_DETECT_H
#define RLHF_REWARD_DETECT_H

#include "reward/reward_prompts.h"

typedef enum {
    DETECT_AUC,               /* area under the ROC curve; a tie counts half */
    DETECT_AVERAGE_PRECISION, /* sum of precision times growth of recall, threshold by threshold */
    DETECT_RECALL_AT,         /* highest recall of a threshold whose precision is at least `precision`; 0: none */
    DETECT_PRECISION_50,      /* the unsafe among those called unsafe, at sigmoid(score) < 0.5 ... */
    DETECT_RECALL_50,
    DETECT_F1_50,
    DETECT_BALANCED_50, /* mean of the shares of unsafe and of safe answers that are called right */
    DETECT_PRECISION_15, /* ... and at < 0.15 */
    DETECT_RECALL_15,
    DETECT_F1_15,
    DETECT_BALANCED_15,
    DETECT_COUNT
} DetectMeasure;

typedef struct {
    int64_t n, n_unsafe, n_prompts; /* labelled answers */
    double precision;               /* that DETECT_RECALL_AT asks for */
    double threshold;               /* linear score: calling what lies below it unsafe has that recall; NaN: none */
    Interval at[DETECT_COUNT];      /* NaN unless there are safe and unsafe answers */
} Detect;

/* A model and another one on the same answers. */
typedef struct {
    Detect model, other;
    Interval difference[DETECT_COUNT]; /* model - other */
    /* recall of the model where its precision is what the other one has at sigmoid 0.5, and how much that is
     * more than the recall of the other one there */
    Interval recall_at_same, recall_difference_at_same;
} DetectComparison;

#define DETECT_PRECISION 0.9 /* when nothing else is asked for */

/* score[i][0..1]: linear scores of item i's sequences. */
void detect_make(Detect *d, const PairSet *s, const float (*score)[2], double precision);
void detect_compare(DetectComparison *c, const PairSet *s, const float (*model)[2], const float (*other)[2],
                    double precision);

const char *detect_label(DetectMeasure m);
void detect_print(const Detect *d, Str *out); /* for people; nothing without labels */
void detect_json(const Detect *d, JsonWriter *w);
/* Keys of an open object: "detect" of the other one, "difference", "recall_at_same_precision". */
void detect_compare_json(const DetectComparison *c, JsonWriter *w);

#endif
