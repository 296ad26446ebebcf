/* mix.h - data sources with weights, and the order in which an epoch goes through their items. */
#ifndef RLHF_TRAIN_MIX_H
#define RLHF_TRAIN_MIX_H

#include "common/base/config.h"

typedef struct {
    const char *path;
    double weight; /* share of the mix; 0 = every item once */
} DataSource;

extern const CfgField data_source_fields[];

/* Either no source has a weight or each has one; else ERR_CONFIG naming `key`. */
int mix_check(const DataSource *sources, int n_sources, const char *key);

/* Items of epoch `epoch` in training order. Source i owns items [first[i], first[i + 1]).
 * Without weights: a permutation of all items. With weights: as many items as there are in all, source
 * i having its share of them: each source is an endless walk over one permutation after another, and an
 * epoch takes the next piece, so a source is repeated or thinned evenly over the epochs; then the epoch
 * is shuffled. A function of (seed, epoch) alone. Returns the number; *order is xmalloc'ed. */
int64_t mix_order(int64_t **order, const int64_t *first, const DataSource *sources, int n_sources,
                  uint64_t seed, uint64_t epoch);

#endif
