/* reward_prompts.h - the prompts of a set, and bootstrap draws of them. Pairs and answers of one prompt are not
 * independent, so intervals come from drawing prompts, not items. Draw d is the same for every measure and every
 * model, so differences are paired. Tested by tests/unit/test_reward_prompts.c. */
#ifndef RLHF_REWARD_PROMPTS_H
#define RLHF_REWARD_PROMPTS_H

#include "common/base/interval.h"
#include "reward/pair_data.h"

enum { PROMPT_DRAWS = 1000 };

typedef struct {
    int *of; /* prompt of item i: 0 .. n - 1; -1: an item that is not wanted */
    int n;
} Prompts;

bool prompts_labelled(const PairItem *it); /* has an answer with a safety label */
/* wanted NULL: every item. Prompts are equal when their ids are. */
void prompts_make(Prompts *p, const PairSet *s, bool (*wanted)(const PairItem *));
void prompts_free(Prompts *p);

/* times[q]: how often prompt q is in draw d of n prompts with replacement; d = -1: each once. */
void prompts_draw(const Prompts *p, int d, int *times);

/* Of a value and its draws, which are sorted; one prompt says nothing of others and has no interval. */
Interval prompts_interval(const Prompts *p, double value, double draw[PROMPT_DRAWS]);
/* Where every draw gives the same 0 or 1 a bootstrap knows no uncertainty: v, or Wilson's interval with the n prompts
 * that a share rests on as trials. */
Interval prompts_share(Interval v, int64_t n);
/* Column c: mean of value[c][i] over the items that have one (not NaN). */
void prompts_means(const Prompts *p, double *const *value, int n_columns, int64_t n_items, Interval *out);
Interval prompts_mean(const Prompts *p, double *value, int64_t n_items);

#endif
