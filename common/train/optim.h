/* optim.h - AdamW over a ParamSet with global-norm clipping, and learning-rate schedules. */
#ifndef RLHF_TRAIN_OPTIM_H
#define RLHF_TRAIN_OPTIM_H

#include "common/base/config.h"
#include "common/model/params.h"

typedef enum { SCHEDULE_COSINE, SCHEDULE_CONSTANT } ScheduleKind; /* "cosine|constant" */

/* Config section `optim.*` of every trainer; see OPTIM_FIELDS. */
typedef struct {
    double learning_rate, min_lr_ratio; /* cosine ends at ratio * learning_rate */
    int schedule;                       /* ScheduleKind */
    double warmup_ratio;
    int64_t warmup_steps;               /* minimum number of warm-up steps */
    double beta1, beta2, eps, weight_decay, max_grad_norm;
} OptimConfig;

#define OPTIM_FIELDS(S, m, PREFIX, LR, SCHEDULE, EPS)                                                \
    {PREFIX ".learning_rate", CFG_FLOAT, offsetof(S, m.learning_rate), LR, 1e-12, 10, .help = "peak learning rate"}, \
    {PREFIX ".schedule", CFG_ENUM, offsetof(S, m.schedule), SCHEDULE, .choices = "cosine|constant", .help = "shape of the learning rate"}, \
    {PREFIX ".min_lr_ratio", CFG_FLOAT, offsetof(S, m.min_lr_ratio), "0.1", 0, 1, .help = "cosine ends at this fraction of the peak"}, \
    {PREFIX ".warmup_ratio", CFG_FLOAT, offsetof(S, m.warmup_ratio), "0.03", 0, 1, .help = "fraction of the steps spent warming up (not with constant)"}, \
    {PREFIX ".warmup_steps", CFG_INT, offsetof(S, m.warmup_steps), "5", 0, 1e9, .help = "at least so many warm-up steps (not with constant)"}, \
    {PREFIX ".beta1", CFG_FLOAT, offsetof(S, m.beta1), "0.9", 0, 0.999999, .help = "AdamW"},         \
    {PREFIX ".beta2", CFG_FLOAT, offsetof(S, m.beta2), "0.95", 0, 0.999999, .help = "AdamW"},        \
    {PREFIX ".eps", CFG_FLOAT, offsetof(S, m.eps), EPS, 1e-12, 1, .help = "AdamW, outside the bias correction"}, \
    {PREFIX ".weight_decay", CFG_FLOAT, offsetof(S, m.weight_decay), "0.1", 0, 10, .help = "decoupled, on matrices only"}, \
    {PREFIX ".max_grad_norm", CFG_FLOAT, offsetof(S, m.max_grad_norm), "1.0", 0, 1e9, .help = "global-norm clipping; 0 = off"}

/* Learning rate of update `step` (0-based) of `total`: linear warm-up over w = max(warmup_steps,
 * ceil(warmup_ratio * total)) updates, (step + 1) / w of the peak, then
 * min + (peak - min) * (1 + cos(pi * (step - w) / max(1, total - w))) / 2. Constant: the peak. */
double schedule_lr(const OptimConfig *c, int64_t step, int64_t total);

typedef struct {
    const OptimConfig *config;
    ParamSet *params;
    Grads *grads;
    Tensor *m, *v;    /* per own parameter */
    Tensor partial;   /* f64 partial sums of the norm, tensor by tensor in table order */
    int64_t step;     /* updates done */
    int64_t skipped;  /* updates dropped for non-finite losses or gradients */
    int64_t in_row;   /* of those, the last ones without an update between */
} Optim;

enum { OPTIM_MAX_SKIPS = 10 }; /* dropped updates in a row that a run bears */

void optim_alloc(Optim *o, const OptimConfig *c, ParamSet *p, Grads *g, Arena *a);
void optim_free(Optim *o);
/* grads_finish, norm (f64, table order), clip, AdamW, grads_zero. Returns the norm before clipping
 * (by max_grad_norm / (norm + 1e-6) where that is below 1, as PyTorch does); when it is not finite
 * nothing is updated, `skipped` grows and *bad names the tensor. *bad is NULL otherwise. */
double optim_step(Optim *o, double lr, const char **bad);
/* Drops an update whose loss is not finite: gradients to zero, counted like one of optim_step. */
void optim_drop(Optim *o);
/* After an update that named `bad` (NULL = went well): warns, and is ERR_DIVERGED from the
 * OPTIM_MAX_SKIPS-th dropped update in a row on. `update` is 1-based. */
int optim_check(const Optim *o, int64_t update, const char *bad);

#endif
