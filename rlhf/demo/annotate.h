/* annotate.h - the judgement of one simulated annotator on one pair. */
#ifndef RLHF_DEMO_ANNOTATE_H
#define RLHF_DEMO_ANNOTATE_H

#include "common/data/record.h"
#include "rlhf/demo/answers.h"

typedef struct {
    int chosen; /* 0: the first answer */
    Strength strength;
    bool safe[2]; /* safety pairs: of the first and the second answer */
} Judgement;

/* What the annotator values: helpfulness, or safety (on prompts that are not unsafe: .3 of
 * helpfulness, so that safe answers still differ). */
double annotate_value(const Answer *a, bool safety);
/* Noise: the standard deviation added to the difference; flip: the probability that a safety label
 * is wrong; shuffle: judgements that say nothing about the answers (a control). */
Judgement annotate_pair(const Answer *a, const Answer *b, bool safety, double noise, double flip,
                        bool shuffle, Rng *r);

#endif
