/* interval.h - an estimate with its 95 % interval: of a share, and from bootstrap draws.
 * Tested by tests/unit/test_interval.c. */
#ifndef RLHF_BASE_INTERVAL_H
#define RLHF_BASE_INTERVAL_H

#include "common/base/json.h"

typedef struct {
    double value, low, high; /* NaN: nothing measured */
} Interval;

/* Percentile interval (Efron and Tibshirani 1993, ch. 13) of `value` from n draws of it, which are sorted in
 * place. NaN draws say nothing and are left out; a NaN value has no interval. */
Interval interval_of_draws(double value, double *draw, int n);

/* The share `hits` / n of n independent trials, with Wilson's score interval (Wilson 1927). Both may be fractions:
 * a half is a trial that went either way. n = 0: NaN. */
Interval interval_wilson(double hits, double n);

/* Mean of n independent estimates. Distances from value to the bounds add in quadrature, each side by
 * itself (Zou and Donner 2008), so skewed intervals stay skewed; for n = 1 the interval itself. */
Interval interval_mean(const Interval *v, int n);

void interval_json(JsonWriter *w, const char *key, Interval v); /* {"value", "low", "high"} */
Interval interval_from_json(const Json *j);                     /* NaN where a number is missing */

#endif
