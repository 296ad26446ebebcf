/* plan_time.c - the seconds of planned stages: what of them has the same model in the same setting is measured
 * once. Tested by tests/e2e/test_plan.sh. */
#include "rlhf/plan.h"

#include "common/base/error.h"
#include "common/base/progress.h"
#include "rlhf/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What is measured once for all stages with this model in this setting. */
typedef struct {
    CalibrateAsk ask;
    Rates rates;
} Measured;

typedef struct {
    Measured *at;
    int n, cap;
} MeasuredList;

static bool same_shape(const ModelConfig *a, const ModelConfig *b)
{
    return a->C == b->C && a->F == b->F && a->V == b->V && a->L == b->L && a->H == b->H && a->K == b->K &&
           a->D == b->D && a->qkv_bias == b->qkv_bias && a->o_bias == b->o_bias && a->qk_norm == b->qk_norm;
}

/* *m: of this work's model in this plan's setting, added where there is none. Good until the next call. */
static int find_measured(MeasuredList *l, const RunPlan *p, const Work *w, Measured **m)
{
    ModelConfig c;
    int rc = model_config_read(&c, w->model), i = 0;
    if (rc < 0)
        return rc;
    for (; i < l->n; i++) {
        const CalibrateAsk *a = &l->at[i].ask;
        if (same_shape(&a->config, &c) && !strcmp(a->device, p->device) && a->threads == p->threads &&
            a->isa == p->isa && a->dtype == p->dtype && a->recompute == p->recompute)
            break;
    }
    if (i == l->n) {
        i = VEC_GROW(l->at, l->n, l->cap);
        l->at[i] = (Measured){.ask = {.config = c, .device = p->device, .threads = p->threads, .isa = p->isa,
                                      .dtype = p->dtype, .recompute = p->recompute}};
    }
    *m = &l->at[i];
    return 0;
}

static void grow(int64_t *at, double v)
{
    *at = v > (double)*at ? (int64_t)ceil(v) : *at;
}

/* Adds what a stage needs to be known to the list. */
static int ask_rates(MeasuredList *l, const PlannedStage *p)
{
    for (int i = 0; i < p->plan.n_work; i++) {
        const Work *w = &p->plan.work[i];
        Measured *m;
        int rc = find_measured(l, &p->plan, w, &m);
        if (rc < 0)
            return rc;
        CalibrateAsk *a = &m->ask;
        a->train = a->train || w->kind == WORK_TRAIN || w->kind == WORK_UPDATE;
        grow(&a->tokens, p->plan.micro_batch_tokens);
        if (w->kind != WORK_UPDATE && w->sequences > 0)
            grow(&a->length, (w->tokens + w->answers * (w->kind == WORK_DECODE ? 0 : p->answer)) / w->sequences);
        if (w->kind == WORK_DECODE && w->calls > 0)
            grow(&a->slots, fmin(w->slots, ceil(w->answers / w->calls)));
    }
    return 0;
}

static int sum_seconds(MeasuredList *l, PlannedStage *p)
{
    p->seconds = p->startup;
    for (int i = 0; i < p->plan.n_work; i++) {
        const Work *w = &p->plan.work[i];
        Measured *m;
        int rc = find_measured(l, &p->plan, w, &m);
        if (rc < 0)
            return rc;
        p->seconds += work_seconds(w, &m->ask.config, &m->rates, p->answer);
    }
    return 0;
}

static void describe(Str *out, const Measured *m)
{
    const Rates *r = &m->rates;
    char s[QUANTITY_TEXT];
    if (r->train_token > 0)
        str_addf(out, "%s%s tokens/s trained", out->n ? "; " : "", count_text(s, 1 / r->train_token));
    if (r->step_full > 0)
        str_addf(out, "%s%s tokens/s sampled by %.0f at a time", out->n ? ", " : "",
                 count_text(s, r->slots / r->step_full), r->slots);
}

int plan_time(Plan *plan, double seconds)
{
    MeasuredList l = {0};
    Str text = {0};
    int rc = 0;
    double start = time_now();
    for (int i = 0; i < plan->n; i++) {
        if (plan->at[i].state == STAGE_PLANNED)
            TRY(ask_rates(&l, &plan->at[i]));
    }
    for (int i = 0; i < l.n; i++) {
        rc = calibrate(&l.at[i].rates, &l.at[i].ask, seconds / l.n);
        if (rc == ERR_UNAVAILABLE) {
            plan->not_calibrated = xstrdup(error_text());
            rc = 0;
            goto fail;
        }
        TRY(rc);
        describe(&text, &l.at[i]);
    }
    for (int i = 0; i < plan->n; i++) {
        if (plan->at[i].state == STAGE_PLANNED)
            TRY(sum_seconds(&l, &plan->at[i]));
    }
    plan->calibrated = xstrdup(str_get(&text));
    plan->calibration_s = time_now() - start;
fail:
    free(l.at);
    str_free(&text);
    return rc;
}
