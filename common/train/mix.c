/* mix.c - see mix.h. Tested by tests/unit/test_mix.c. */
#include "common/train/mix.h"

#include "common/base/error.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdlib.h>

const CfgField data_source_fields[] = {
    {"path", CFG_STRING, offsetof(DataSource, path), .flags = CFG_REQUIRED,
     .help = "records: .jsonl or .json, plain, .gz or .zst"},
    {"weight", CFG_FLOAT, offsetof(DataSource, weight), "0", 0, 1e9,
     .help = "share of the mix; 0 = every record once per epoch"},
    {0},
};

int mix_check(const DataSource *sources, int n_sources, const char *key)
{
    int with = 0;
    for (int i = 0; i < n_sources; i++)
        with += sources[i].weight > 0;
    if (with == 0 || with == n_sources)
        return 0;
    return error_set(ERR_CONFIG, "%s: %d of %d sources have a weight; give one to each (its share of the "
                                 "mix) or to none (every record once)", key, with, n_sources);
}

/* Pieces [from, from + want) of the endless walk over permutations of source i. */
static void walk(int64_t *out, int64_t from, int64_t want, int64_t first, int64_t n, int i, uint64_t seed)
{
    int64_t *perm = xmalloc((size_t)n * sizeof *perm), made = -1;
    for (int64_t k = 0; k < want; k++) {
        int64_t round = (from + k) / n;
        if (round != made)
            rng_permutation(perm, n, seed, RNG_MIX, ((uint64_t)i << 40) + (uint64_t)round);
        made = round;
        out[k] = first + perm[(from + k) % n];
    }
    free(perm);
}

int64_t mix_order(int64_t **order, const int64_t *first, const DataSource *sources, int n_sources,
                  uint64_t seed, uint64_t epoch)
{
    double total = 0;
    int64_t all = first[n_sources], n = 0;
    for (int i = 0; i < n_sources; i++)
        total += sources[i].weight;
    int64_t room = all + n_sources + 1;
    int64_t *mix = xmalloc((size_t)room * sizeof *mix), *out = xmalloc((size_t)room * sizeof *out);
    for (int i = 0; i < n_sources; i++) {
        int64_t own = first[i + 1] - first[i], want = own;
        if (total > 0)
            want = own ? llround((double)all * (sources[i].weight / total)) : 0;
        if (want)
            walk(mix + n, (int64_t)epoch * want, want, first[i], own, i, seed);
        n += want;
    }
    if (n)
        rng_permutation(out, n, seed, RNG_SHUFFLE, epoch);
    for (int64_t k = 0; k < n; k++)
        out[k] = mix[out[k]];
    free(mix);
    *order = out;
    return n;
}
