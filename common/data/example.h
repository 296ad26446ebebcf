/* example.h - records turned into ids, and packs: what a model step reads.
 *
 * There are no padding tokens anywhere. Sequences lie one after another; `starts` holds their
 * offsets, positions restart at 0. Target and weight of row t speak about predicting token t + 1 of
 * the same sequence, so the last row of a sequence has weight 0. */
#ifndef RLHF_DATA_EXAMPLE_H
#define RLHF_DATA_EXAMPLE_H

#include "common/data/record.h"

typedef struct {
    int32_t *ids;
    uint8_t *mask; /* 1: this token is trained on (it is a target) */
    int n;
    int n_prompt;  /* ids before the (last) answer */
    int64_t record; /* index into the RecordSet */
} Example;

typedef struct {
    Example *at;
    int64_t n, cap;
    int64_t n_long; /* dropped or cut by on_long */
    int64_t n_bad;  /* skipped by on_bad: the template refuses the content */
    int64_t n_tokens, n_targets;
} ExampleSet;

typedef enum { LONG_DROP, LONG_TRUNCATE_LEFT, LONG_ERROR } OnLong; /* "drop|truncate_left|error" */

/* RECORD_TEXT: BOS text EOS, every token but BOS trained. RECORD_SFT: assistant spans
 * trained, but not those of the prompt of a {prompt, completion}.
 * RECORD_PROMPT: the open prompt, nothing trained. PAIR and LABELLED: which = 0 / 1 chooses the
 * answer; trained span = the answer, and nothing comes behind it. ERR_DATA with file:line for an empty trained span.
 * truncate_left keeps the last max_length tokens; BOS is cut like any other token. A dropped
 * example is left zeroed. */
int example_make(Example *e, const Record *r, int which, const ChatTemplate *t, int max_length,
                 OnLong on_long, bool *dropped);
/* on_bad: what a record does that the template refuses (a marker in its text, an empty span). */
int example_set_make(ExampleSet *s, const RecordSet *records, int which, const ChatTemplate *t,
                     int max_length, OnLong on_long, BadRow on_bad);
/* Leaves out what a template puts behind the closing token of the last answer (ChatML's line end). A sampled
 * answer has none of it, and a score is read at the last token: both must end alike. */
void example_end_at_answer(Example *e);
void example_free(Example *e);
void example_set_free(ExampleSet *s);

/* A pack on the host; arrays have room for max_tokens / max_seqs.
 *
 * Where a device's sum over tokens has an order of its own (device_sums_by_unit), a pack is a whole number of
 * units, each of which is one sum. An item (a sequence, or several that must stay together) goes into
 * the unit under way while that has at most unit_tokens tokens, else it begins the next one; an item that is
 * longer is a unit alone. A unit begins only where unit_tokens tokens fit the pack, so units follow from
 * the items' order and lengths, never from where packs end. */
typedef struct {
    int32_t *ids, *pos;     /* (T) */
    int32_t *target;        /* (T): next token of the same sequence, 0 at its end */
    float *weight;          /* (T): mask of the target */
    int32_t *starts;        /* (S + 1) */
    int32_t *units;         /* (n_units + 1): their offsets */
    int64_t *item;          /* (S): caller's index of the sequence */
    int n_tokens, n_seqs, n_units, n_targets;
    int max_tokens, max_seqs;
    int unit_tokens;        /* set after pack_init; 0: all is one unit */
    int n_open;             /* tokens that pack_open made room for */
} Pack;

void pack_init(Pack *p, int max_tokens, int max_seqs); /* xmalloc'ed host arrays */
void pack_free(Pack *p);
void pack_clear(Pack *p);
/* Whether an item of n tokens fits. */
bool pack_fits(const Pack *p, int n);
/* The same, and opens the unit that the item's sequences go into. Packs with unit_tokens want it before
 * pack_add, others may do without. */
bool pack_open(Pack *p, int n);
void pack_add(Pack *p, const int32_t *ids, const uint8_t *mask, int n, int64_t item); /* mask NULL: all weights 0 */
/* Lists the trained rows of the sequence added last behind the n that are listed: row of the pack, id to
 * predict, `weight`. Returns how many are listed then. */
int64_t pack_list_targets(const Pack *p, float weight, int32_t *rows, int32_t *target, float *weights, int64_t n);

#endif
