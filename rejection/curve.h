/* curve.h - what more answers and another temperature would give: sums over prompts of one kind at one
 * temperature (Llama 2, figures 7 and 8). Pure functions.
 *
 * Every prompt counts at every temperature, or the temperatures would be compared on different prompts.
 * So an answer that did not end, which is never chosen, counts as `floor`: the lowest score among all
 * finished answers to the prompt, whatever their temperature. */
#ifndef RLHF_REJECTION_CURVE_H
#define RLHF_REJECTION_CURVE_H

#include "common/base/json.h"

enum { CURVE_MAX = 128 }; /* lengths of a curve; the best of all k is kept besides */

typedef struct {
    int64_t prompts, answers, unfinished;
    double max[CURVE_MAX]; /* [n - 1]: sum of E[max of n], n <= k */
    double best, median;   /* sums of the maximum and the median of all k */
} Curve;

/* score: of k answers to one prompt, NaN for one that did not end. Changes score. */
void curve_add(Curve *c, double *score, int k, double floor);
double curve_best(const Curve *c); /* mean over prompts of the best of k; NaN without prompts */
/* {"prompts", "unfinished": share of the answers, "median", "best_of_k", "max_of_n": [n = 1, 2, ...]} */
void curve_write(const Curve *c, int k, JsonWriter *w);
/* Index of the curve with the highest best of k, the first among equals; -1 = no prompts. The curves
 * lie `stride` apart. */
int curve_highest(const Curve *c, int n, int stride);

#endif
