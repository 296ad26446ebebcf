/* select.h - choosing among K answers, and what a larger K would give. Pure functions.
 *
 * Scores of two models are never compared: a tagged prompt is decided by the safety model alone; any
 * other first drops what the safety model calls unsafe, then is decided by the helpfulness model alone. */
#ifndef RLHF_REJECTION_SELECT_H
#define RLHF_REJECTION_SELECT_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    double helpful, safety; /* linear scores */
    bool finished;          /* ended by itself; others are never chosen */
} Candidate;

typedef enum { ALL_UNSAFE_SAFEST, ALL_UNSAFE_DROP } AllUnsafe; /* "safest|drop" */
typedef enum { SELECT_BEST, SELECT_RANDOM } SelectMode;        /* "best|random" */

/* Index of the chosen candidate, the lowest among equals; -1 = none. `threshold` is linear:
 * logit(0.15). has_safety false: helpfulness alone. */
int select_best(const Candidate *c, int n, bool tagged, bool has_safety, double threshold,
                AllUnsafe all_unsafe);
/* A finished candidate at random (the control at equal budget); u in [0, 1). -1 = none. */
int select_random(const Candidate *c, int n, double u);

/* E[max of N] over draws without replacement from M scores (unbiased order statistic): with r ascending,
 * sum_i r_(i) C(i - 1, N - 1) / C(M, N). 1 <= N <= M. Sorts `score`. */
double select_expected_max(double *score, int M, int N);
double select_median(double *score, int M); /* sorts; mean of the two middle ones for even M */

#endif
