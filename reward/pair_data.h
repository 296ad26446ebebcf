/* pair_data.h - what a reward model learns from: pairs with margins, and single answers with a safety
 * label. An item is one or two sequences that stay together in a pack. */
#ifndef RLHF_REWARD_PAIR_DATA_H
#define RLHF_REWARD_PAIR_DATA_H

#include "common/base/config.h"
#include "common/data/example.h"
#include "common/train/mix.h"

/* One row of data.train. */
typedef struct {
    const char *path;
    double weight; /* share of the mix; 0 = every item once */
    int kind;      /* 0 pair, 1 labelled */
} PairSource;

extern const CfgField pair_source_fields[];

typedef struct {
    Example seq[2];       /* pair: chosen, rejected; labelled: [0]; seq[].record is set */
    int n_seqs;
    double margin;
    Strength strength;
    SafetyLabel label[2]; /* by sequence */
    int source;
} PairItem;

typedef struct {
    PairItem *at;
    int64_t n, cap;
    int64_t n_filtered; /* chosen unsafe, rejected safe: dropped from safety training */
    int64_t n_long, n_bad;
    int64_t n_thinned;  /* left out by `fraction` */
    int64_t n_pairs;
    int64_t n_labels;   /* sequences with a safety label */
    int64_t *source_first; /* items of source i: [source_first[i], source_first[i + 1]) */
    DataSource *mix;       /* path and weight of each source */
    int n_sources;
} PairSet;

typedef struct {
    MarginKind margin;
    bool safety_filter;  /* drop pairs with an unsafe chosen and a safe rejected answer */
    bool shuffle_labels; /* control: chosen and rejected, and safety labels, swapped by a coin */
    int64_t max_length;
    OnLong on_long;
    BadRow on_bad_row;
    uint64_t seed;
    double fraction;     /* this share of the prompts, drawn by their hashes and the seed, of every source alike; a
                            smaller share is part of a larger one. 0 or 1: all */
} PairOptions;

int pair_set_read(PairSet *s, const PairSource *sources, int n_sources, const ChatTemplate *chat,
                  const PairOptions *o, RecordSet *records);
void pair_set_free(PairSet *s);

/* Items of one epoch in training order: mix_order over the sources. *order is xmalloc'ed. */
int64_t pair_set_order(const PairSet *s, uint64_t seed, int64_t epoch, int64_t **order);

#endif
