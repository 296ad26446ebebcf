/* trainer.h - one loop for all training programs.
 *
 * trainer_main: arguments -> config -> log -> Device, Comm -> def->init (reads inputs) -> def->alloc
 * (planning) -> [--dry-run prints the plan, --plan writes it with def->plan; and stops] -> commit -> def->alloc (real) -> def->load
 * (weights) -> resume -> loop { def->step, metrics, def->eval, checkpoint } -> def->finish (export).
 * An evaluation that is the best so far is checkpointed at once, out of rotation's reach; the last step's
 * weights are the export. Its step and value are part of every checkpoint and stand in best.json.
 * SIGTERM and SIGINT: finish the step, checkpoint, exit 75. A second signal exits at once. */
#ifndef RLHF_TRAIN_TRAINER_H
#define RLHF_TRAIN_TRAINER_H

#include "common/base/cli.h"
#include "common/model/hf.h"
#include "common/runtime/arena.h"
#include "common/runtime/comm/comm.h"
#include "common/runtime/device.h"
#include "common/train/checkpoint.h"
#include "common/train/metrics.h"
#include "common/train/run_plan.h"

/* Keys every trainer has; put as member `run` first in its config struct. */
typedef struct {
    const char *out_dir;
    bool overwrite;
    int64_t seed;
    const char *device;
    int64_t threads;
    int isa; /* CpuIsa */
    int dtype; /* DType */
    int64_t max_steps;     /* 0 = what the data give */
    int64_t save_steps, keep;
    int64_t eval_steps;
    int64_t log_steps;     /* a progress line on stdout every so many steps when it is no terminal */
    bool tensorboard;
    int export_dtype;      /* 0 f32, 1 bf16 */
    double max_shard_size; /* GB */
    bool keep_best;        /* these two: only of programs with BEST_FIELDS */
    int export_from;       /* ExportFrom */
    int64_t unit_tokens;   /* only of programs with UNIT_FIELDS */
} RunConfig;

typedef enum { EXPORT_LAST, EXPORT_BEST } ExportFrom; /* "last|best" */

#define RUN_FIELDS(S)                                                                                \
    {"out_dir", CFG_STRING, offsetof(S, run.out_dir), .flags = CFG_REQUIRED | CFG_NO_RESULT, .help = "run folder: config.yaml, metrics.jsonl, checkpoints/, export/"}, \
    {"overwrite", CFG_BOOL, offsetof(S, run.overwrite), "false", .flags = CFG_NO_RESULT, .help = "empty an existing run folder first"}, \
    {"seed", CFG_INT, offsetof(S, run.seed), "1", 0, 9e15, .help = "same seed, config and data: same weights"}, \
    {"device", CFG_STRING, offsetof(S, run.device), "auto", .flags = CFG_NO_RESULT, .help = "auto, cpu, cuda or cuda:N"}, \
    {"threads", CFG_INT, offsetof(S, run.threads), "0", 0, 1024, .flags = CFG_NO_RESULT, .help = "CPU threads; 0 = all; never changes a result"}, \
    {"isa", CFG_ENUM, offsetof(S, run.isa), "auto", .choices = "auto|plain|avx2|avx512|avx512bf16", .flags = CFG_NO_RESULT, .help = "CPU bodies; never changes a result"}, \
    DTYPE_FIELD(S, run.dtype), \
    {"max_steps", CFG_INT, offsetof(S, run.max_steps), "0", 0, 1e12, .help = "stop after so many steps; 0 = what the data give"}, \
    {"save_steps", CFG_INT, offsetof(S, run.save_steps), "500", 0, 1e12, .flags = CFG_NO_RESULT, .help = "checkpoint every so many steps; 0 = only when stopped"}, \
    {"keep", CFG_INT, offsetof(S, run.keep), "3", 1, 1e6, .flags = CFG_NO_RESULT, .help = "checkpoints to keep"}, \
    {"eval_steps", CFG_INT, offsetof(S, run.eval_steps), "0", 0, 1e12, .help = "evaluate every so many steps; 0 = only at the end"}, \
    {"log_steps", CFG_INT, offsetof(S, run.log_steps), "10", 1, 1e12, .flags = CFG_NO_RESULT, .help = "steps between printed lines where stdout is no terminal"}, \
    {"tensorboard", CFG_BOOL, offsetof(S, run.tensorboard), "true", .flags = CFG_NO_RESULT, .help = "also write the metrics to out_dir/events.out.tfevents"}, \
    {"export_dtype", CFG_ENUM, offsetof(S, run.export_dtype), "f32", .choices = "f32|bf16", .help = "type of the exported weights"}, \
    {"max_shard_size", CFG_FLOAT, offsetof(S, run.max_shard_size), "5", 1e-6, 1e6, .flags = CFG_NO_RESULT, .help = "largest file of exported weights in GB (1e9 bytes); beyond it they are cut into shards with an index"}

/* For programs with def->best_metric, METRIC in words. */
#define BEST_FIELDS(S, METRIC)                                                                       \
    {"keep_best", CFG_BOOL, offsetof(S, run.keep_best), "true", .flags = CFG_NO_RESULT, .help = "also keep the checkpoint of the evaluation with the " METRIC "; best.json names it"}, \
    {"export", CFG_ENUM, offsetof(S, run.export_from), "last", .choices = "last|best", .help = "weights of export/: of the last step, or of the " METRIC}

/* For programs that compute gradients. */
#define UNIT_FIELDS(S)                                                                               \
    {"unit_tokens", CFG_INT, offsetof(S, run.unit_tokens), "4096", 1, 1e9, .only_with = "dtype=bf16", .help = "bf16 on a card: whole sequences of up to so many tokens have their gradient in one sum, so there it changes results; elsewhere it does nothing"}

/* How exports are written. */
HfFormat run_format(const RunConfig *run);
int run_element(const RunConfig *run); /* bytes of an exported weight */

typedef struct Trainer Trainer;

typedef struct {
    CliSpec cli;           /* program, help, fields (RUN_FIELDS first), config size, options */
    size_t state_bytes;    /* of the trainer's own struct, zeroed; t->state */
    /* Reads inputs, checks them, sets t->total_steps; no arena yet. */
    int (*init)(Trainer *t);
    /* Allocates everything from its arenas and lists them (memory_plan_add) when t->planning; called
     * twice with the same result. */
    int (*alloc)(Trainer *t);
    /* After alloc's first call, for --plan: the work of t->total_steps steps, and what it leaves in
     * out_dir beside checkpoints. */
    void (*plan)(Trainer *t, RunPlan *p);
    int (*load)(Trainer *t);   /* starting weights */
    /* One optimizer step; t->step is its 0-based number. Sets metrics. Returns 0, 1 = done early
     * (finish and export), or an error. When t->stop is set it may return TRAINER_ABANDONED with its
     * state as before the step. */
    int (*step)(Trainer *t);
    int (*eval)(Trainer *t);   /* NULL = none */
    const char *best_metric;   /* of those eval sets: the one that chooses the best evaluation; NULL = none */
    bool best_is_highest;
    int (*state)(Trainer *t, BlobList *l); /* blobs beyond step, seed and metrics offset */
    int (*finish)(Trainer *t); /* export, reports */
    void (*free)(Trainer *t);
} TrainerDef;

enum { TRAINER_ABANDONED = 2 };

struct Trainer {
    const TrainerDef *def;
    void *config;          /* the program's config struct; starts with RunConfig */
    const RunConfig *run;
    Cli cli;
    Device *dev;
    Comm *comm;
    MemoryPlan plan;
    const char *memory_advice; /* settings that would make the plan smaller */
    bool planning;
    bool dry_run;
    int64_t step, total_steps;
    Metrics metrics;
    volatile int *stop;    /* non-zero after SIGTERM / SIGINT */
    char progress[160];    /* filled by step: "loss 1.234  lr 1.0e-05" */
    void *state;           /* the program's own struct, state_bytes */
};

int trainer_main(const TrainerDef *def, int argc, char **argv); /* returns the exit code */

/* trainer_plan.c: for --plan. Evaluations that a run of t->total_steps makes; and the file itself, after
 * alloc's first call: `blobs` is what a checkpoint holds. */
int64_t trainer_n_evals(const Trainer *t);
int trainer_write_plan(Trainer *t, const BlobList *blobs);

/* Of products: what key `dtype` says. */
static inline DType trainer_dtype(const Trainer *t)
{
    return (DType)t->run->dtype;
}

/* Pack.unit_tokens: what key `unit_tokens` says where it matters, else 0. */
int trainer_unit_tokens(const Trainer *t);
/* ERR_CONFIG where a micro-batch, whose key is micro_batch_tokens, has no room for a unit. */
int trainer_check_units(const Trainer *t, int64_t micro_batch_tokens);

#endif
