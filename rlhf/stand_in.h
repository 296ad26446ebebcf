/* stand_in.h - inputs that earlier stages will make, as far as a plan needs them: of a model its config.json
 * and tokenizer, of data as many records of such a length. Everything lies in one temporary folder.
 *
 * What a stage makes it says itself (train/run_plan.h). A program that does not is taken to make, under
 * ROOT/STAGE/, files of as many records as the largest of its known inputs, of the same lengths. */
#ifndef RLHF_RLHF_STAND_IN_H
#define RLHF_RLHF_STAND_IN_H

#include "common/train/run_plan.h"
#include "rlhf/experiment.h"

typedef enum {
    MADE_MODEL,
    MADE_DATA,
    MADE_UNKNOWN /* all under a folder: of a stage that does not say, or could not be planned */
} MadeKind;

typedef struct {
    MadeKind kind;
    char *path, *stage;
    char *stand_in;   /* what it was replaced by last; NULL: never */
    char *base;       /* MODEL: a folder that is there, with the same shape and tokenizer */
    bool scalar, anchored;
    double answer;    /* MODEL: tokens of its answers; 0: not known */
    double records, prompt_tokens, answer_tokens; /* DATA, and UNKNOWN where inputs were known */
} Made;

typedef struct {
    char *dir; /* temporary */
    Made *at;
    int n, cap, n_files;
    double fraction; /* of the records that are written: a plan of many is that of few, stretched */
    /* of the stage being read: */
    double records;  /* stood in for; before `fraction` */
    bool approx;     /* whether any were */
    const char *missing, *missing_stage; /* an input that nothing can stand in for; else NULL */
    double in_records, in_prompt, in_answer; /* the largest known data it names */
    char *text;      /* last result */
    int rc;          /* of writing a stand-in */
} StandIns;

int stand_ins_open(StandIns *s);
void stand_ins_close(StandIns *s); /* and the folder */

/* Before a stage is read. */
void stand_ins_begin(StandIns *s, double fraction);
/* For experiment_read_stage. */
ExperimentStandIn stand_ins_hook(StandIns *s);

/* After a stage was planned: what it makes. answer: tokens of an answer of its policy. */
void stand_ins_add_plan(StandIns *s, const char *stage, const RunPlan *p, double answer);
/* After one that was not: everything under `dir`. */
void stand_ins_add_unknown(StandIns *s, const char *stage, const char *dir, bool guess);

/* Tokens of the answers of a model, by its folder or what stands in for it; 0: not known. */
double stand_ins_answer(const StandIns *s, const char *model);

#endif
