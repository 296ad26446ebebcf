/* stats.c - see stats.h. Tested by tests/unit/test_demo_stats.c. */
#include "rlhf/demo/stats.h"

#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdlib.h>

void bootstrap_init(Bootstrap *b, int n_clusters, int n_columns, int n_draws)
{
    size_t cells = (size_t)n_clusters * (size_t)n_columns;
    *b = (Bootstrap){.n_clusters = n_clusters, .n_columns = n_columns, .n_draws = n_draws};
    b->sum = xcalloc(cells, sizeof *b->sum);
    b->count = xcalloc(cells, sizeof *b->count);
    b->value = xcalloc((size_t)n_columns, sizeof *b->value);
    b->draw = xcalloc((size_t)n_draws * (size_t)n_columns, sizeof *b->draw);
}

void bootstrap_free(Bootstrap *b)
{
    free(b->sum);
    free(b->count);
    free(b->value);
    free(b->draw);
    *b = (Bootstrap){0};
}

void bootstrap_add(Bootstrap *b, int cluster, int column, double x)
{
    size_t i = (size_t)cluster * (size_t)b->n_columns + (size_t)column;
    if (isnan(x))
        return;
    b->sum[i] += x;
    b->count[i] += 1;
}

/* times[c]: how often cluster c was drawn. */
static void ratios(const Bootstrap *b, const int *times, double *out, double *sum, double *count)
{
    for (int k = 0; k < b->n_columns; k++)
        sum[k] = count[k] = 0;
    for (int c = 0; c < b->n_clusters; c++) {
        size_t row = (size_t)c * (size_t)b->n_columns;
        for (int k = 0; k < b->n_columns && times[c]; k++) {
            sum[k] += times[c] * b->sum[row + (size_t)k];
            count[k] += times[c] * b->count[row + (size_t)k];
        }
    }
    for (int k = 0; k < b->n_columns; k++)
        out[k] = count[k] > 0 ? sum[k] / count[k] : NAN;
}

void bootstrap_run(Bootstrap *b, uint64_t seed)
{
    int *times = xcalloc((size_t)b->n_clusters, sizeof *times);
    double *work = xcalloc(2 * (size_t)b->n_columns, sizeof *work);
    for (int c = 0; c < b->n_clusters; c++)
        times[c] = 1;
    ratios(b, times, b->value, work, work + b->n_columns);
    for (int d = 0; d < b->n_draws; d++) {
        Rng r = rng_make(seed, RNG_BOOTSTRAP, 0, (uint64_t)d, 0);
        for (int c = 0; c < b->n_clusters; c++)
            times[c] = 0;
        for (int c = 0; c < b->n_clusters; c++)
            times[rng_next_below(&r, (uint64_t)b->n_clusters)]++;
        ratios(b, times, b->draw + (size_t)d * (size_t)b->n_columns, work, work + b->n_columns);
    }
    free(times);
    free(work);
}

typedef double (*Estimate)(const double *v, const int *column);

static Interval interval(const Bootstrap *b, Estimate f, const int *column)
{
    double *x = xcalloc((size_t)b->n_draws, sizeof *x); /* NaN: a draw without such an answer */
    for (int d = 0; d < b->n_draws; d++)
        x[d] = f(b->draw + (size_t)d * (size_t)b->n_columns, column);
    Interval v = interval_of_draws(f(b->value, column), x, b->n_draws);
    free(x);
    return v;
}

static double mean_of(const double *v, const int *k)
{
    return v[k[0]];
}

static double difference_of(const double *v, const int *k)
{
    return v[k[0]] - v[k[1]];
}

static double share_of(const double *v, const int *k)
{
    return (v[k[0]] - v[k[1]]) / (v[k[2]] - v[k[3]]);
}

Interval bootstrap_mean(const Bootstrap *b, int column)
{
    return interval(b, mean_of, (int[]){column});
}

Interval bootstrap_difference(const Bootstrap *b, int column, int minus)
{
    return interval(b, difference_of, (int[]){column, minus});
}

Interval bootstrap_share(const Bootstrap *b, int column, int minus, int top, int bottom)
{
    return interval(b, share_of, (int[]){column, minus, top, bottom});
}
