/* reward_reliability.c - see reward_reliability.h. */
#include "reward/reward_reliability.h"

#include <math.h>
#include <stdlib.h>

/* A probability and what came true. */
typedef struct {
    double p, weight;
    bool hit;
    int prompt;
} Case;

typedef struct {
    Case *at;
    int64_t n;
    Prompts prompts;
} Cases;

typedef struct {
    double n, p, hits; /* sums of weights */
} Sum;

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static int bin_of(double p, double low)
{
    int b = (int)((p - low) / (1 - low) * RELIABILITY_BINS);
    return b < 0 ? 0 : b < RELIABILITY_BINS ? b : RELIABILITY_BINS - 1;
}

/* Bins and the Brier score of the cases, each counted times[prompt] times. */
static double sum_cases(const Cases *c, const int *times, double low, Sum bin[RELIABILITY_BINS])
{
    double n = 0, squares = 0;
    for (int b = 0; b < RELIABILITY_BINS; b++)
        bin[b] = (Sum){0};
    for (int64_t i = 0; i < c->n; i++) {
        const Case *k = &c->at[i];
        double w = k->weight * times[k->prompt], miss = k->p - k->hit;
        Sum *b = &bin[bin_of(k->p, low)];
        b->n += w;
        b->p += w * k->p;
        b->hits += w * k->hit;
        n += w;
        squares += w * miss * miss;
    }
    return n > 0 ? squares / n : NAN;
}

static double error_of(const Sum bin[RELIABILITY_BINS])
{
    double n = 0, sum = 0;
    for (int b = 0; b < RELIABILITY_BINS; b++) {
        n += bin[b].n;
        sum += fabs(bin[b].p - bin[b].hits);
    }
    return n > 0 ? sum / n : NAN;
}

static void make(Reliability *r, const Cases *c, double low)
{
    Sum bin[RELIABILITY_BINS];
    double brier[PROMPT_DRAWS], error[PROMPT_DRAWS];
    int *times = xcalloc((size_t)c->prompts.n + 1, sizeof *times);
    for (int d = 0; d < PROMPT_DRAWS; d++) {
        prompts_draw(&c->prompts, d, times);
        brier[d] = sum_cases(c, times, low, bin);
        error[d] = error_of(bin);
    }
    prompts_draw(&c->prompts, -1, times);
    *r = (Reliability){.low = low};
    r->brier = prompts_interval(&c->prompts, sum_cases(c, times, low, bin), brier);
    r->error = prompts_interval(&c->prompts, error_of(bin), error);
    for (int b = 0; b < RELIABILITY_BINS; b++) {
        r->n += bin[b].n;
        r->bin[b] = (ReliabilityBin){bin[b].n, bin[b].n > 0 ? bin[b].p / bin[b].n : NAN,
                                     interval_wilson(bin[b].hits, bin[b].n)};
    }
    free(times);
}

static void cases_free(Cases *c)
{
    free(c->at);
    prompts_free(&c->prompts);
}

static bool is_pair(const PairItem *it)
{
    return it->n_seqs == 2;
}

void reliability_of_pairs(Reliability *r, const PairSet *s, const float (*score)[2])
{
    Cases c = {.at = xcalloc(2 * (size_t)s->n + 1, sizeof *c.at)};
    prompts_make(&c.prompts, s, is_pair);
    for (int64_t i = 0; i < s->n; i++) {
        double d = (double)score[i][0] - (double)score[i][1];
        if (!is_pair(&s->at[i]) || isnan(d))
            continue;
        Case k = {sigmoid(fabs(d)), d == 0 ? .5 : 1, d >= 0, c.prompts.of[i]};
        c.at[c.n++] = k;
        if (d == 0) {
            k.hit = false;
            c.at[c.n++] = k;
        }
    }
    make(r, &c, .5);
    cases_free(&c);
}

void reliability_of_labels(Reliability *r, const PairSet *s, const float (*score)[2])
{
    Cases c = {.at = xcalloc(2 * (size_t)s->n + 1, sizeof *c.at)};
    prompts_make(&c.prompts, s, prompts_labelled);
    for (int64_t i = 0; i < s->n; i++) {
        for (int q = 0; q < s->at[i].n_seqs; q++) {
            if (s->at[i].label[q] != SAFETY_UNKNOWN)
                c.at[c.n++] = (Case){sigmoid((double)score[i][q]), 1, s->at[i].label[q] == SAFETY_SAFE,
                                     c.prompts.of[i]};
        }
    }
    make(r, &c, 0);
    cases_free(&c);
}

void reliability_json(const Reliability *r, JsonWriter *w)
{
    const double first = 20 * r->low, width = 20 * (1 - r->low) / RELIABILITY_BINS; /* whole: 0.6 is written 0.6 */
    jw_object(w);
    jw_knum(w, "n", r->n);
    interval_json(w, "expected_calibration_error", r->error);
    interval_json(w, "brier", r->brier);
    jw_key(w, "bins");
    jw_array(w);
    for (int b = 0; b < RELIABILITY_BINS; b++) {
        jw_object(w);
        jw_knum(w, "from", (first + b * width) / 20);
        jw_knum(w, "to", (first + (b + 1) * width) / 20);
        jw_knum(w, "n", r->bin[b].n);
        jw_knum(w, "predicted", r->bin[b].predicted);
        interval_json(w, "observed", r->bin[b].observed);
        jw_object_end(w);
    }
    jw_array_end(w);
    jw_object_end(w);
}
