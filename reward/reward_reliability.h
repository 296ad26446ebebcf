/* reward_reliability.h - whether probabilities mean what they say: of the cases called with p, a share p should
 * come true.
 *
 * Of pairs, the probability is Bradley-Terry's, sigmoid(|difference of the scores|), that the answer with the higher
 * score is the chosen one; it lies in [0.5, 1]. Turned that way no order of the two answers enters. (Chosen first,
 * the observed rate would be 1 in every bin; both orders would show each pair twice.) Equal scores are half a hit
 * and half a miss. Of labelled answers it is sigmoid(score), that the answer is safe. Tested by
 * tests/unit/test_reward_reliability.c. */
#ifndef RLHF_REWARD_RELIABILITY_H
#define RLHF_REWARD_RELIABILITY_H

#include "reward/reward_prompts.h"

enum { RELIABILITY_BINS = 10 };

typedef struct {
    double n;          /* cases; a tie is two halves */
    double predicted;  /* mean probability; NaN: empty */
    Interval observed; /* share that came true, Wilson */
} ReliabilityBin;

typedef struct {
    double n, low;                        /* bins are equal parts of [low, 1] */
    ReliabilityBin bin[RELIABILITY_BINS];
    Interval error; /* expected calibration error: mean over cases of |predicted - observed| of their bin (Naeini et
                       al. 2015). It is above 0 by chance alone, the more the fewer cases there are */
    Interval brier; /* mean of (p - what came true)^2 (Brier 1950); 0.25 when every p is 0.5 */
} Reliability;      /* intervals over prompts; NaN without cases */

/* score[i][0..1] as in reward_eval.h. */
void reliability_of_pairs(Reliability *r, const PairSet *s, const float (*score)[2]);
void reliability_of_labels(Reliability *r, const PairSet *s, const float (*score)[2]);
void reliability_json(const Reliability *r, JsonWriter *w);

#endif
