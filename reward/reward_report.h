/* reward_report.h - several models on several test sets (Llama 2, tables 7, 8, 29 and figures 6, 29): all that
 * `rlhf-reward eval` shows, as text, JSON and a page. The numbers are made once, by reward_report_fill.
 * Tested by tests/unit/test_reward_report.c. */
#ifndef RLHF_REWARD_REPORT_H
#define RLHF_REWARD_REPORT_H

#include "reward/reward_eval.h"
#include "reward/reward_grid.h"
#include "reward/reward_judge.h"

typedef struct {
    const char *name;   /* borrowed */
    int64_t first, end; /* items of `all` */
    PairSet view;       /* the same; owns nothing */
    int64_t n_pairs, n_answers, n_prompts;
} EvalSet;

/* One who is measured: a model, length, a judge, or a point of the curve of accuracy against training-set size. */
typedef struct {
    const char *name, *path; /* borrowed; path NULL: length */
    EvalWho who;
    Calibration calibration; /* of a model */
    double examples;         /* of a point of the curve: what it was trained on */
    float (*score)[2];       /* by item of `all`; owned */
    EvalTable *table;        /* by set; owned, made by reward_report_fill */
    Interval mean;           /* accuracy, mean over the sets that have pairs, each counting the same */
} EvalRow;

/* Row 0 compared with another row on one set. */
typedef struct {
    int row, set;
    Interval accuracy;       /* row 0 - row, paired */
    bool has_detect;         /* both are models and there are labels */
    DetectComparison detect;
} EvalComparison;

typedef struct {
    const PairSet *all;
    double precision;        /* of reward_detect.h */
    EvalSet *set;
    int n_sets;
    EvalRow *row;            /* models, then length, then the judge */
    int n_rows;
    EvalRow *curve;          /* models; neighbours of one name are one line */
    int n_curve;
    const JudgeAnswer *answer; /* by item of `all`, NULL without a judge; borrowed */
    JudgeStats *judge;         /* by set; n_long is the caller's; owned */
    const char *judge_prompt;  /* borrowed */
    EvalComparison *comparison;
    int n_comparisons;
} RewardReport;

/* From sets, rows with their scores and answers: everything else. */
void reward_report_fill(RewardReport *e);
void reward_report_free(RewardReport *e);
void reward_report_print(const RewardReport *e, Str *out);
void reward_report_json(const RewardReport *e, Str *out);
void reward_report_html(const RewardReport *e, Str *out); /* reward_page.c */

/* The tables of text and page, and the text that says what intervals are; for reward_page.c. */
typedef struct {
    Grid *at;
    int n, cap;
} GridList;
void reward_report_grids(const RewardReport *e, GridList *out); /* reward_tables.c */
void grid_list_free(GridList *l);
extern const char *const reward_report_note;

#endif
