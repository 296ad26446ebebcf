/* run_folder.h - the folder of one run: who may write into it, and what state it is in.
 *
 *   config.yaml   resolved config       metrics.jsonl  one object per step (metrics.h)
 *   STATUS        running|stopped|done|failed|emptying
 *   log.txt       every message         timing.jsonl   wall times, no part of determinism
 *   checkpoints/  step-N (checkpoint.h) export/        the result; report.html: curves
 *   best.json     step and value of the best evaluation (BEST_FIELDS)
 *   events.out.tfevents  the metrics for TensorBoard (events.h)
 *
 * The folder itself is locked while a program writes into it, so a run whose driver died and was
 * started again cannot be written by two processes. */
#ifndef RLHF_TRAIN_RUN_FOLDER_H
#define RLHF_TRAIN_RUN_FOLDER_H

#include "common/base/config.h"

typedef enum {
    RUN_FRESH,  /* starts at step 0 in a new, empty or emptied folder */
    RUN_RESUME, /* goes on: from a checkpoint, or from step 0 where the run died before its first */
    RUN_DONE,   /* --resume auto on a finished run: nothing to do */
} RunMode;

typedef struct {
    RunMode mode;
    int64_t from_step; /* --resume DIR/checkpoints/step-N: that one; -1 = the newest */
    bool must_resume;  /* --resume DIR: a run without a checkpoint is an error */
    int lock;          /* descriptor of the locked folder; -1 = not open */
} RunFolder;

/* Decides by what stands in out_dir; changes nothing. `resume`: NULL, "auto", out_dir, or a
 * checkpoint folder in it. Refuses: a folder with files in it (unless resumed, or overwrite and it is
 * a run folder), and resuming with a config that differs in a key that changes results. */
int run_folder_check(RunFolder *f, const char *out_dir, bool overwrite, const char *resume,
                     const Config *config);
/* Makes, locks and (RUN_FRESH) empties the folder, writes config.yaml and STATUS: running. */
int run_folder_open(RunFolder *f, const char *out_dir, const char *config_yaml);
void run_folder_close(RunFolder *f); /* zeroed only with lock = -1 */
int run_folder_status(const char *out_dir, const char *status);

#endif
