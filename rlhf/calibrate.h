/* calibrate.h - what a model costs on this machine, measured with the code that the stages run: the model's
 * forward and backward, the heads, the optimizer and the generator, on a slice of the model that keeps its
 * widths and has fewer layers and words. Costs of a slice are multiplied by what was left out. */
#ifndef RLHF_RLHF_CALIBRATE_H
#define RLHF_RLHF_CALIBRATE_H

#include "rlhf/estimate.h"

typedef struct {
    ModelConfig config;
    const char *device;
    int64_t threads;
    int isa, dtype;
    int64_t tokens;           /* micro_batch_tokens */
    int64_t length;           /* tokens of a sequence */
    int64_t slots;            /* answers decoded at a time; 0 = none are */
    int recompute;            /* of the backward pass */
    bool train;               /* else forward and decoding alone */
} CalibrateAsk;

/* Small random values wherever the parameter is a matrix, ones in a vector: what they are does not
 * matter to a clock as long as no number is denormal or infinite, and this is quicker than
 * params_init_random. */
void calibrate_fill(ParamSet *p);

/* Measures for about `seconds`. ERR_UNAVAILABLE when the device is not there, or half of its memory would not
 * hold a slice of the model. */
int calibrate(Rates *r, const CalibrateAsk *ask, double seconds);

/* The slice of a model that is measured: at least one layer, at most `params` parameters where that is more. */
void calibrate_slice(ModelConfig *c, double params);

#endif
