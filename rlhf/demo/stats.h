/* stats.h - means over prompts with bootstrap intervals.
 *
 * A measure is a sum over answers divided by a count of answers, and answers to one prompt are not
 * independent: so whole prompts are drawn with replacement (a ratio estimate over clusters). Every
 * measure of every version uses the same draws, which makes differences paired by themselves.
 * Tested by tests/unit/test_demo_stats.c. */
#ifndef RLHF_DEMO_STATS_H
#define RLHF_DEMO_STATS_H

#include "common/base/interval.h"

typedef struct {
    int n_columns;  /* measures, of all versions */
    int n_clusters; /* prompts */
    int n_draws;
    double *sum, *count; /* (n_clusters, n_columns) */
    double *value;       /* (n_columns): of the data themselves */
    double *draw;        /* (n_draws, n_columns): of the resampled data */
} Bootstrap;

void bootstrap_init(Bootstrap *b, int n_clusters, int n_columns, int n_draws);
void bootstrap_free(Bootstrap *b);
void bootstrap_add(Bootstrap *b, int cluster, int column, double x); /* NaN adds nothing */
void bootstrap_run(Bootstrap *b, uint64_t seed);

Interval bootstrap_mean(const Bootstrap *b, int column);
Interval bootstrap_difference(const Bootstrap *b, int column, int minus);
/* (column - minus) / (top - bottom) */
Interval bootstrap_share(const Bootstrap *b, int column, int minus, int top, int bottom);

#endif
