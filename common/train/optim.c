/* optim.c - AdamW over the parameters that have bytes of their own, in table order.
 *
 * The norm is a f64 sum over fixed blocks of SUMSQ_BLOCK elements, block by block and tensor by tensor,
 * so it depends on the gradients alone. A gradient that is not finite never reaches a weight or a
 * moment. Tested by tests/unit/test_optim.c and test_schedule.c. */
#include "common/train/optim.h"

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/runtime/device.h"
#include "common/runtime/ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double schedule_lr(const OptimConfig *c, int64_t step, int64_t total)
{
    if (c->schedule == SCHEDULE_CONSTANT)
        return c->learning_rate;
    int64_t warm = (int64_t)ceil(c->warmup_ratio * (double)total);
    if (warm < c->warmup_steps)
        warm = c->warmup_steps;
    if (step < warm)
        return c->learning_rate * (double)(step + 1) / (double)warm;
    double rest = total - warm > 1 ? (double)(total - warm) : 1;
    double done = (double)(step - warm) / rest, low = c->min_lr_ratio * c->learning_rate;
    return low + (c->learning_rate - low) * (1 + cos(M_PI * (done < 1 ? done : 1))) / 2;
}

static int64_t n_blocks(const Tensor *t)
{
    return (tensor_slots(t) + SUMSQ_BLOCK - 1) / SUMSQ_BLOCK;
}

void optim_alloc(Optim *o, const OptimConfig *c, ParamSet *p, Grads *g, Arena *a)
{
    const ParamTable *t = p->table;
    int64_t blocks = 0;
    o->config = c;
    o->params = p;
    o->grads = g;
    if (!o->m) {
        o->m = xcalloc((size_t)t->n, sizeof *o->m);
        o->v = xcalloc((size_t)t->n, sizeof *o->v);
    }
    for (int i = 0; i < t->n; i++) {
        if (!grads_is_own(t, i))
            continue;
        const Tensor *w = &p->w[i];
        o->m[i] = arena_tensor(a, w->dtype, w->layout, w->n_dims, w->dim);
        o->v[i] = arena_tensor(a, w->dtype, w->layout, w->n_dims, w->dim);
        blocks += n_blocks(w);
    }
    o->partial = arena_rows1(a, DTYPE_F64, blocks);
}

void optim_free(Optim *o)
{
    free(o->m);
    free(o->v);
    memset(o, 0, sizeof *o);
}

enum { PARTIALS_RUN = 512 }; /* partial sums fetched from the device at a time */

/* Sum of squares of all gradients; *bad = the first parameter whose own sum is not finite. All sums
 * are queued before the first is fetched, so a card is waited for once. */
static double sum_of_squares(Optim *o, const char **bad)
{
    const ParamTable *t = o->params->table;
    double sum = 0, x[PARTIALS_RUN];
    int64_t at = 0;
    for (int i = 0; i < t->n; i++) {
        if (!grads_is_own(t, i))
            continue;
        Tensor part = tensor_slice(&o->partial, at, n_blocks(&o->grads->g[i]));
        op_sumsq(&part, &o->grads->g[i]);
        at += part.dim[0];
    }
    at = 0;
    for (int i = 0; i < t->n; i++) {
        if (!grads_is_own(t, i))
            continue;
        double own = 0;
        int64_t end = at + n_blocks(&o->grads->g[i]);
        while (at < end) {
            int64_t n = end - at < PARTIALS_RUN ? end - at : PARTIALS_RUN;
            Tensor part = tensor_slice(&o->partial, at, n);
            device_download(x, &part, (size_t)n * sizeof *x);
            for (int64_t b = 0; b < n; b++) {
                own += x[b];
                sum += x[b];
            }
            at += n;
        }
        if (!isfinite(own) && !*bad)
            *bad = t->def[i].hf_name;
    }
    return sum;
}

static void update(Optim *o, double lr, double scale)
{
    const ParamTable *t = o->params->table;
    const OptimConfig *c = o->config;
    for (int i = 0; i < t->n; i++) {
        if (!grads_is_own(t, i))
            continue;
        AdamwArgs args = {.lr = lr,
                          .beta1 = c->beta1,
                          .beta2 = c->beta2,
                          .eps = c->eps,
                          .decay = t->def[i].decay ? c->weight_decay : 0,
                          .grad_scale = scale,
                          .step = o->step};
        op_adamw(&o->params->w[i], &o->m[i], &o->v[i], param_copy(o->params, i), &o->grads->g[i], args);
    }
}

void optim_drop(Optim *o)
{
    o->skipped++;
    o->in_row++;
    grads_zero(o->grads);
}

double optim_step(Optim *o, double lr, const char **bad)
{
    *bad = NULL;
    grads_finish(o->grads);
    double norm = sqrt(sum_of_squares(o, bad));
    if (!isfinite(norm)) {
        if (!*bad)
            *bad = "the sum over all tensors";
        optim_drop(o);
        return norm;
    }
    double max = o->config->max_grad_norm, scale = max > 0 ? max / (norm + 1e-6) : 1;
    o->step++;
    o->in_row = 0;
    update(o, lr, scale < 1 ? scale : 1);
    grads_zero(o->grads);
    return norm;
}

int optim_check(const Optim *o, int64_t update_number, const char *bad)
{
    if (!bad)
        return 0;
    if (o->in_row >= OPTIM_MAX_SKIPS)
        return error_set(ERR_DIVERGED, "step %lld: %s is not finite, the %lldth dropped step in a row; "
                                       "lower optim.learning_rate or optim.max_grad_norm, and look at "
                                       "grad_norm in metrics.jsonl",
                         (long long)update_number, bad, (long long)o->in_row);
    log_warn("step %lld: %s is not finite: step dropped (%lld so far)", (long long)update_number, bad,
             (long long)o->skipped);
    return 0;
}
