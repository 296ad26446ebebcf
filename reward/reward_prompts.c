/* reward_prompts.c - see reward_prompts.h. */
#include "reward/reward_prompts.h"

#include "common/base/hash.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdlib.h>

enum { SEED = 1 };

static int by_key(const void *x, const void *y)
{
    uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;
    return (a > b) - (a < b);
}

static uint64_t prompt_key(const PairItem *it)
{
    const Example *e = &it->seq[0];
    return hash64(e->ids ? (const void *)e->ids : "", (size_t)e->n_prompt * sizeof *e->ids, 0);
}

bool prompts_labelled(const PairItem *it)
{
    return it->label[0] != SAFETY_UNKNOWN || (it->n_seqs > 1 && it->label[1] != SAFETY_UNKNOWN);
}

void prompts_make(Prompts *p, const PairSet *s, bool (*wanted)(const PairItem *))
{
    uint64_t *key = xcalloc((size_t)s->n + 1, sizeof *key);
    int64_t n = 0;
    *p = (Prompts){.of = xcalloc((size_t)s->n + 1, sizeof *p->of)};
    for (int64_t i = 0; i < s->n; i++) {
        if (!wanted || wanted(&s->at[i]))
            key[n++] = prompt_key(&s->at[i]);
    }
    qsort(key, (size_t)n, sizeof *key, by_key);
    for (int64_t i = 0; i < n; i++) {
        if (!p->n || key[i] != key[p->n - 1])
            key[p->n++] = key[i];
    }
    for (int64_t i = 0; i < s->n; i++) {
        uint64_t k = prompt_key(&s->at[i]);
        const uint64_t *found = bsearch(&k, key, (size_t)p->n, sizeof k, by_key);
        p->of[i] = found && (!wanted || wanted(&s->at[i])) ? (int)(found - key) : -1;
    }
    free(key);
}

void prompts_free(Prompts *p)
{
    free(p->of);
    *p = (Prompts){0};
}

void prompts_draw(const Prompts *p, int d, int *times)
{
    for (int i = 0; i < p->n; i++)
        times[i] = d < 0;
    if (d < 0)
        return;
    Rng g = rng_make(SEED, RNG_BOOTSTRAP, 0, (uint64_t)d, 0);
    for (int i = 0; i < p->n; i++)
        times[rng_next_below(&g, (uint64_t)p->n)]++;
}

Interval prompts_interval(const Prompts *p, double value, double draw[PROMPT_DRAWS])
{
    return p->n > 1 ? interval_of_draws(value, draw, PROMPT_DRAWS) : (Interval){value, NAN, NAN};
}

Interval prompts_share(Interval v, int64_t n)
{
    bool sure = v.low == v.high && (v.value == 0 || v.value == 1);
    return sure ? interval_wilson(v.value * (double)n, (double)n) : v;
}

/* Sums by prompt: of the values, and of how many there are. */
typedef struct {
    double sum, count;
} Cell;

static double mean_of_draw(const Cell *cell, const int *times, int n_prompts)
{
    double sum = 0, count = 0;
    for (int q = 0; q < n_prompts; q++) {
        sum += times[q] * cell[q].sum;
        count += times[q] * cell[q].count;
    }
    return count > 0 ? sum / count : NAN;
}

void prompts_means(const Prompts *p, double *const *value, int n_columns, int64_t n_items, Interval *out)
{
    const size_t n = (size_t)p->n;
    Cell *cell = xcalloc(n * (size_t)n_columns + 1, sizeof *cell);
    double(*draw)[PROMPT_DRAWS] = xcalloc((size_t)n_columns + 1, sizeof *draw);
    int *times = xcalloc(n + 1, sizeof *times);
    for (int c = 0; c < n_columns; c++) {
        for (int64_t i = 0; i < n_items; i++) {
            if (p->of[i] < 0 || isnan(value[c][i]))
                continue;
            cell[(size_t)c * n + (size_t)p->of[i]].sum += value[c][i];
            cell[(size_t)c * n + (size_t)p->of[i]].count++;
        }
    }
    for (int d = 0; d < PROMPT_DRAWS; d++) {
        prompts_draw(p, d, times);
        for (int c = 0; c < n_columns; c++)
            draw[c][d] = mean_of_draw(cell + (size_t)c * n, times, p->n);
    }
    prompts_draw(p, -1, times);
    for (int c = 0; c < n_columns; c++)
        out[c] = prompts_interval(p, mean_of_draw(cell + (size_t)c * n, times, p->n), draw[c]);
    free(cell);
    free(draw);
    free(times);
}

Interval prompts_mean(const Prompts *p, double *value, int64_t n_items)
{
    Interval v;
    prompts_means(p, &value, 1, n_items, &v);
    return v;
}
