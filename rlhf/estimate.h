/* estimate.h - seconds from counted work and measured rates: arithmetic alone, so that it can be checked by
 * hand. The rates are measured by calibrate.c, on this machine, in the stage's own setting. */
#ifndef RLHF_RLHF_ESTIMATE_H
#define RLHF_RLHF_ESTIMATE_H

#include "common/model/config.h"
#include "common/train/run_plan.h"

/* Of one model in one setting; seconds. A rate that was not asked for is 0. */
typedef struct {
    double train_token, forward_token; /* a token through all layers, in sequences of `length` */
    double train_row, forward_row;     /* a row through the LM head */
    double length;
    double step_one, step_full;        /* a decoding step of 1 and of `slots` answers, `depth` tokens deep */
    double slots, depth;
    double update_param;               /* AdamW, its norm and the gradient's zero, for a parameter */
    double byte;                       /* a byte read from memory */
    double kv_bytes;                   /* of a token in the KV cache */
} Rates;

/* Multiply-adds times two of a token through all layers, in a sequence of `length` tokens: products of the
 * weights, and attention, whose mean row sees half of the sequence (2 products forward, 5 backward). */
double flops_per_token(const ModelConfig *c, double length, bool train);

/* Tokens that the work handles when an answer of unknown length has `answer` of them. */
double work_tokens(const Work *w, double answer);

/* Seconds of the work. TRAIN and FORWARD: tokens at the measured rate, corrected by flops_per_token for
 * another length, and rows of the head. DECODE: prompts forward; then waves of `slots` answers, the last of
 * them smaller, step by step; a step's cost is linear between 1 and `slots` answers, and grows by what it
 * reads of the KV cache with the depth. UPDATE: parameters times updates. */
double work_seconds(const Work *w, const ModelConfig *c, const Rates *r, double answer);

/* "38 s", "2.3 min", "11.6 h", "5.0 d"; "512 B", "1.50 GiB"; "950", "12.3 k", "1.54 B" into a buffer. */
enum { QUANTITY_TEXT = 32 };
const char *seconds_text(char s[QUANTITY_TEXT], double seconds);
const char *bytes_text(char s[QUANTITY_TEXT], double bytes);
const char *count_text(char s[QUANTITY_TEXT], double n);

#endif
