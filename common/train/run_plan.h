/* run_plan.h - what a run will take, stated by the program that would run: memory by arena, disk, what
 * passes through its models, what it leaves behind. A program writes it as JSON with `--plan FILE`, which
 * is --dry-run for other programs; `rlhf plan` reads it, turns the work into seconds, and plans the
 * stages that go on from what is made.
 *
 * Counts are doubles: they are multiplied, scaled and compared, never indexed with. Answers that do not
 * exist yet have no length: work on them is counted in answers, each of at most max_new tokens. */
#ifndef RLHF_TRAIN_RUN_PLAN_H
#define RLHF_TRAIN_RUN_PLAN_H

#include "common/base/json.h"
#include "common/model/params.h"

typedef enum {
    WORK_TRAIN,   /* forward and backward */
    WORK_FORWARD, /* scores, log-probabilities, evaluations */
    WORK_DECODE,  /* prompts through the model once, then answers token by token */
    WORK_UPDATE,  /* AdamW over all parameters */
    WORK_KINDS
} WorkKind;

typedef struct {
    WorkKind kind;
    char *model;      /* Hugging Face folder whose config.json has the shape */
    bool scalar;      /* the head that is used is a scalar, which costs nothing */
    double tokens;    /* through the trunk, answers of unknown length left out */
    double rows;      /* of these, the rows that go through the LM head */
    double sequences; /* that tokens and answers make up */
    double answers;   /* of unknown length: each adds its tokens, and as many rows */
    double max_new;   /* most tokens of one */
    double calls;     /* DECODE: rounds that share the answers evenly; UPDATE: updates */
    double slots;     /* DECODE: answers at a time */
    double params;    /* UPDATE: parameters of the model */
} Work;

/* Files that a run leaves, beside checkpoints. */
typedef struct {
    char *what; /* "export" */
    double bytes;
    bool exact; /* but for a few KB of text beside the weights */
} PlanDisk;

typedef struct {
    char *path;    /* folder: OUT_DIR/export */
    char *model;   /* the folder that it is derived from: same shape and tokenizer */
    bool scalar;   /* a reward model */
    bool anchored; /* with a safety classification loss */
} MadeModel;

typedef struct {
    char *path;            /* .jsonl */
    double records;
    double prompt_tokens;  /* mean */
    double answer_tokens;  /* mean; 0: not known yet, at most max_new */
    double max_new;
} MadeData;

typedef struct {
    char *name, *kind; /* of the arena: "weights", "device" */
    bool on_card;      /* else memory of the host */
    double bytes;
} PlanArena;

typedef struct {
    char *program, *out;   /* folder or file the results go to */
    char *device;          /* as in the config: what a calibration opens */
    char *device_text;
    int64_t threads;
    int isa, dtype;
    int recompute;         /* of a backward pass: a Recompute */
    double have;           /* bytes of memory of the card, or of the machine where there is none */
    double micro_batch_tokens;
    double steps;
    double checkpoint;     /* bytes of one */
    double save_steps, keep;
    bool keeps_best;       /* one more, of the best evaluation */
    double answer_tokens;  /* SFT: mean trained tokens of a sequence: how long its model's answers will be */
    PlanArena *arena;
    int n_arenas, cap_arenas;
    PlanDisk *disk;
    int n_disk, cap_disk;
    Work *work;
    int n_work, cap_work;
    MadeModel *models;
    int n_models, cap_models;
    MadeData *data;
    int n_data, cap_data;
} RunPlan;

/* Who runs on what: what a calibration has to share, with micro_batch_tokens, which is set beside it. */
void run_plan_setting(RunPlan *p, const char *program, const char *out, const Device *dev, const char *device,
                      int64_t threads, int isa, int dtype);
/* The arenas of a planned MemoryPlan; called again, the larger of the two stays: models that are loaded
 * one after another. */
void run_plan_memory(RunPlan *p, const MemoryPlan *m);
void run_plan_disk(RunPlan *p, const char *what, double bytes, bool exact);
/* A copy; nothing when neither tokens, answers nor calls are left. */
void run_plan_work(RunPlan *p, const Work *w);
void run_plan_work_times(RunPlan *p, const Work *w, double times); /* all of it so many times */
void run_plan_update(RunPlan *p, const ParamTable *t, const char *model, double calls);
/* A model folder at `path`: with its bytes on disk. element: bytes of a weight there. */
void run_plan_model(RunPlan *p, const char *path, const char *from, const ParamTable *t, int element,
                    bool anchored);
void run_plan_data(RunPlan *p, const char *path, const MadeData *d); /* with its bytes on disk */
double run_plan_data_bytes(const MadeData *d); /* about */

int run_plan_write(const RunPlan *p, const char *path); /* JSON; path may be a pipe */
/* What run_plan_write wrote. ERR_DATA when it is anything else. */
int run_plan_read(RunPlan *p, const char *path);
void run_plan_free(RunPlan *p);

/* Bytes in memory: of a card, or of the host. */
double run_plan_bytes(const RunPlan *p, bool on_card);
/* Checkpoints on disk at a time at most: those kept, the one being written (a signal makes one whatever
 * save_steps says), and the best. */
double run_plan_checkpoints(const RunPlan *p);
double run_plan_disk_bytes(const RunPlan *p); /* of these and of all files */
const char *work_name(WorkKind kind);

#endif
