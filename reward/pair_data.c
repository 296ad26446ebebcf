/* pair_data.c - see pair_data.h. Tested by tests/unit/test_pair_data.c. */
#include "reward/pair_data.h"

#include "common/base/error.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const CfgField pair_source_fields[] = {
    {"path", CFG_STRING, offsetof(PairSource, path), .flags = CFG_REQUIRED, .help = "record file"},
    {"weight", CFG_FLOAT, offsetof(PairSource, weight), "0", 0, 1e9,
     .help = "share of the mix; 0 = every item once"},
    {"kind", CFG_ENUM, offsetof(PairSource, kind), "pair", .choices = "pair|labelled",
     .help = "pairs, or single answers with is_safe"},
    {0},
};

static void swap_item(PairItem *it)
{
    Example e = it->seq[0];
    SafetyLabel l = it->label[0];
    it->seq[0] = it->seq[1];
    it->seq[1] = e;
    it->label[0] = it->label[1];
    it->label[1] = l;
}

static bool coin(uint64_t seed, int64_t item)
{
    RngKey key = rng_key(seed, RNG_SPLIT, 0, (uint64_t)item, 0, 0);
    return rng_u64(&key) & 1;
}

/* Whether `fraction` keeps a prompt. */
static bool is_drawn(const Record *r, const PairOptions *o)
{
    RngKey key = rng_key(o->seed, RNG_SPLIT, 1, r->prompt_hash, 0, 0);
    return o->fraction == 0 || o->fraction == 1 || rng_uniform(&key) < o->fraction;
}

/* 1 = kept, 0 = dropped. */
static int make_item(PairItem *it, const Record *r, const ChatTemplate *chat, const PairOptions *o,
                     PairSet *s)
{
    int rc = 0;
    bool dropped = false;
    memset(it, 0, sizeof *it);
    if (!is_drawn(r, o)) {
        s->n_thinned++;
        return 0;
    }
    it->n_seqs = r->kind == RECORD_PAIR ? 2 : 1;
    it->strength = r->strength;
    it->margin = isnan(r->margin) ? strength_margin(r->strength, o->margin) : r->margin;
    it->label[0] = r->safety[0];
    it->label[1] = r->safety[1];
    if (it->n_seqs == 2 && o->safety_filter && r->safety[0] == SAFETY_UNSAFE &&
        r->safety[1] == SAFETY_SAFE) {
        s->n_filtered++;
        return 0;
    }
    for (int i = 0; i < it->n_seqs; i++) {
        TRY(example_make(&it->seq[i], r, i, chat, (int)o->max_length, o->on_long, &dropped));
        if (dropped) {
            example_free(&it->seq[0]);
            example_free(&it->seq[1]);
            s->n_long++;
            return 0;
        }
    }
    if (o->shuffle_labels && coin(o->seed, s->n)) {
        if (it->n_seqs == 2)
            swap_item(it);
        else
            it->label[0] = it->label[0] == SAFETY_SAFE ? SAFETY_UNSAFE : SAFETY_SAFE;
    }
    return 1;
fail:
    example_free(&it->seq[0]);
    example_free(&it->seq[1]);
    return rc;
}

int pair_set_read(PairSet *s, const PairSource *sources, int n_sources, const ChatTemplate *chat,
                  const PairOptions *o, RecordSet *records)
{
    int rc = 0;
    s->n_sources = n_sources;
    s->source_first = xcalloc((size_t)n_sources + 1, sizeof *s->source_first);
    s->mix = xcalloc((size_t)n_sources + 1, sizeof *s->mix);
    for (int i = 0; i < n_sources; i++)
        s->mix[i] = (DataSource){sources[i].path, sources[i].weight};
    TRY(mix_check(s->mix, n_sources, "data.train"));
    for (int i = 0; i < n_sources; i++) {
        int64_t first = records->n;
        TRY(record_set_read(records, sources[i].path, sources[i].kind ? RECORD_LABELLED : RECORD_PAIR,
                            o->on_bad_row));
        for (int64_t k = first; k < records->n; k++) {
            PairItem it;
            rc = make_item(&it, &records->at[k], chat, o, s);
            if (rc == ERR_DATA && o->on_bad_row == BAD_ROW_SKIP) {
                s->n_bad++;
                continue;
            }
            TRY(rc);
            if (rc == 0)
                continue;
            it.source = i;
            s->n_pairs += it.n_seqs == 2;
            for (int q = 0; q < it.n_seqs; q++) {
                it.seq[q].record = k;
                s->n_labels += it.label[q] != SAFETY_UNKNOWN;
            }
            int64_t at = VEC_GROW(s->at, s->n, s->cap);
            s->at[at] = it;
        }
        s->source_first[i + 1] = s->n;
    }
    rc = 0;
fail:
    return rc;
}

void pair_set_free(PairSet *s)
{
    for (int64_t i = 0; i < s->n; i++) {
        example_free(&s->at[i].seq[0]);
        example_free(&s->at[i].seq[1]);
    }
    free(s->at);
    free(s->source_first);
    free(s->mix);
    memset(s, 0, sizeof *s);
}

int64_t pair_set_order(const PairSet *s, uint64_t seed, int64_t epoch, int64_t **order)
{
    return mix_order(order, s->source_first, s->mix, s->n_sources, seed, (uint64_t)epoch);
}
