/* samples.h - a line of samples.jsonl: one answer to one prompt, with whatever is known of it.
 *
 *   {"id", "prompt", "tags", "sample", "temperature", "answer", "finished", "tokens", "logp",
 *    "ref_logp", "kl", "reward_helpful", "reward_safety", "pool", "selected"}
 *
 * prompt is a string when it is one user message, else a list of {role, content}. Keys whose value is
 * unknown (NaN, negative, NULL) are left out. pool names the file of an earlier round that the answer
 * comes from; a fresh one has none. */
#ifndef RLHF_GENERATE_SAMPLES_H
#define RLHF_GENERATE_SAMPLES_H

#include "common/data/record.h"

typedef struct {
    const Record *record;  /* the prompt */
    int sample;            /* -1 = unknown */
    double temperature;    /* NaN = unknown */
    const char *answer;
    bool finished;
    int tokens;
    double logp, ref_logp; /* sums over the answer; NaN = unknown */
    double helpful, safety; /* linear scores; NaN = unknown */
    const char *pool;      /* NULL = sampled here */
    int selected;          /* -1 = unknown */
} Sample;

void sample_write(const Sample *s, Str *out); /* one line with its newline */
/* The prompt of a record as a value: string or list. */
void sample_write_prompt(JsonWriter *w, const Record *r);

#endif
