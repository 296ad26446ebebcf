/* plan.h - what `rlhf plan` found out about a stage; for plan.c and plan_print.c. */
#ifndef RLHF_RLHF_PLAN_H
#define RLHF_RLHF_PLAN_H

#include "rlhf/estimate.h"

#include <stdbool.h>

typedef enum {
    STAGE_PLANNED,
    STAGE_WAITS, /* for an input that an earlier stage makes and nothing can stand in for */
    STAGE_OTHER, /* a program that plans nothing */
    STAGE_FAILED /* its program refused it */
} StageState;

typedef struct {
    char *name, *program; /* "reward-helpful", "rlhf-reward train" */
    StageState state;
    char *why;            /* WAITS, FAILED */
    int code;             /* FAILED: its exit code */
    RunPlan plan;         /* PLANNED */
    double params;        /* of the model it works on */
    double answer;        /* tokens taken for an answer of unknown length */
    bool answer_is_most;  /* it is max_new_tokens: an upper bound */
    bool approx;          /* data stand in for what an earlier stage makes */
    double startup;       /* seconds until the first step: reading, tokenizing */
    double seconds;       /* estimate, startup included; NaN: not calibrated */
    double took;          /* of the run that is done; NaN: none */
    double free_bytes;    /* of the file system of its output */
} PlannedStage;

typedef struct {
    PlannedStage *at;
    int n, cap;
    double calibration_s;
    char *calibrated;     /* what was measured, a line each; "" = nothing */
    char *not_calibrated; /* why not; "" = was */
} Plan;

double planned_tokens(const PlannedStage *s, WorkKind kind); /* of TRAIN, FORWARD, DECODE answers alone */

/* plan_time.c: measures for about `seconds` in all, and fills in the stages' seconds. A machine that cannot is
 * no error: plan->not_calibrated says why. */
int plan_time(Plan *plan, double seconds);

void plan_print(const Plan *p);
void plan_print_cards(const Plan *p); /* which cards hold each stage */
void plan_print_json(const Plan *p);

#endif
