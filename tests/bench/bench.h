/* bench.h - the parts of build/tests/bench: what is measured against which ceiling of the same run.
 *
 * A section (ceilings, ops, steps, decode, ppo, growth, text) measures and adds rows; main prints them, writes
 * bench.jsonl and bench.svg, and joins them with those of another program (--peer). Rates are of work
 * done in a run's wall time; a roof is the rate that the ceilings would allow. */
#ifndef RLHF_BENCH_H
#define RLHF_BENCH_H

#include "common/base/json.h"
#include "common/model/llama.h"
#include "common/runtime/device.h"

#include <stdio.h>

typedef struct Bench Bench;

enum { REPEATS_MAX = 32, READ_POINTS = 6, THREADS_MAX = 8 };

/* ---- rows (rows.c) ------------------------------------------------------------------------------ */

typedef struct {
    char name[88];    /* "sft 15m 8x256": section's word, shape, sizes; what a peer is joined by */
    char dtype[8];    /* of products: "f32", "bf16" */
    char unit[12];    /* "tok/s", "GFLOP/s", "GB/s": more is better; "s", "x": less is better */
    int threads;      /* 0 on a card */
    double value[REPEATS_MAX]; /* ascending once row_add has it */
    double fraction[REPEATS_MAX]; /* of the roof in that measurement, ascending too */
    int n;
    double roof;      /* in `unit`; 0 = none */
    double target;    /* of value / roof; of the value itself where there is no roof; 0 = none */
    bool of_card;     /* target: it is meant for a card, the others for a CPU */
    double floor;     /* against PyTorch in f32; 0 = none */
} Row;

typedef struct {
    Row *at;
    int n, cap;
    char *machine;    /* what the rows were measured on */
    bool without_targets; /* the fractions of a roof that are aimed at are a CPU's */
} Rows;

/* Sorts the values, keeps the row and prints its line; whether it misses its target. */
bool row_add(Rows *rows, Row row);
bool row_misses(const Row *r);
double row_median(const Row *r);
double row_fraction(const Row *r); /* of the roof; NaN without one */
void row_number(char out[32], double value); /* 4 digits, no exponent where it can be helped */
bool row_less_is_better(const Row *r);
void rows_free(Rows *rows);
void rows_print_header(void);
void rows_print_targets(const Rows *rows); /* the rows that have one: target, measured, spread, met or missed */
int rows_write(const Rows *rows, const char *path);      /* one JSON object a line */
int rows_read(Rows *rows, const char *path);             /* what rows_write wrote */
int rows_print_peer(const Rows *rows, const char *path); /* ratios to rows of the same name, threads, unit */
int rows_write_svg(const Rows *rows, const char *path);  /* svg.c */

/* ---- ceilings (ceiling.c, fma.c) ---------------------------------------------------------------- */

/* Measured by --only ceilings or before the first section that needs them. */
typedef struct {
    int threads;
    CpuIsa isa;
    double flops, flops_bf16;     /* multiply-adds and bf16 dot products, FLOP/s; the best measurement */
    int64_t bytes[READ_POINTS];   /* buffer sizes, ascending */
    double rate[READ_POINTS];     /* bytes/s read from such a buffer */
    int n_points;                 /* 1 on a card: its memory */
} Ceiling;

/* FLOP/s of one thread in registers for about `seconds`, with the instructions that the CPU bodies of
 * `isa` use (fma.c); threads: that run at once, for the clock. */
double fma_rate(CpuIsa isa, int threads, double seconds);
/* The multiply-add rate of this moment, as a fraction of the ceiling; 1 on a card. */
double ceiling_now(Bench *b, int which);
double ceiling_read(const Ceiling *c, double bytes); /* bytes/s, between the points by log size */
double ceiling_flops(const Ceiling *c, DType dtype); /* of products */
/* The same of bf16 dot products, where there is an instruction for them (fma.c); else 0. */
double dot_rate(CpuIsa isa, int threads, double seconds);

/* ---- the session (bench.c) ---------------------------------------------------------------------- */

/* A model shape and the sizes that fit its cost. */
typedef struct {
    const char *name;
    ModelConfig config;
    int S, T;                     /* sequences and tokens of each in a training step; 0: neither steps nor decode */
    struct {
        int B, n_prompt, n_new;   /* answers of an iteration; 0: none */
    } ppo;
    struct {
        double step, decode_one, decode_many; /* fractions of a roof; 0 = none */
    } target[2];                  /* f32, bf16 */
    bool of_cards;                /* measured on a card alone, in bf16 */
} Shape;

struct Bench {
    const char *device_name;      /* "cpu", "cuda", "cuda:1" */
    DType dtype;                  /* of the products of steps, decode, ppo: one of the list at a time */
    const char *dtypes;           /* comma list */
    Recompute level;              /* of the backward passes of steps: one of the list at a time */
    const char *recompute;        /* comma list */
    const char *self, *test_ops;  /* paths of this program and of the one beside it */
    const char *point;            /* of growth, to be measured alone; NULL */
    const char *out;              /* folder of what is written */
    const char *torch;            /* a Python that has PyTorch; NULL */
    const char *llama;            /* a checkout of llama.cpp; NULL */
    int threads[THREADS_MAX], n_threads;
    int repeat;
    double seconds;               /* a row is not repeated for longer */
    bool quick, full;
    bool profile;                 /* of every row of steps and decode, not only where a target is missed */
    const char *only, *shapes;    /* comma lists; NULL = all */
    const char *match;            /* what --match says; NULL = all */
    Rows rows;
    double rate_before;           /* of bench_share */
    Ceiling ceiling[THREADS_MAX]; /* by index of threads; n_points = 0: not measured yet */
};

/* Seconds. One CPU thread is timed by the CPU time it gets, which a busy machine does not stretch; several
 * threads (and a card: 0) by the wall clock. */
double bench_now(int threads);
Device *bench_open_device(const Bench *b, int threads);
bool bench_is_cuda(const Bench *b);
const Ceiling *bench_ceiling(Bench *b, int which); /* of threads[which] */
/* Whether a row with n values, begun at `started`, is to be measured once more: up to b->repeat times,
 * and at least twice whatever it takes. */
bool bench_again(const Bench *b, int n, double started); /* of bench_now(0) */
/* A row of this dtype. floor: against PyTorch in f32; a bf16 row has the one of its own. */
Row bench_row(const Bench *b, int which, const char *unit, double floor);
bool bench_is_bf16(const Bench *b);
extern const char *const bench_levels[RECOMPUTE_LEVELS]; /* the choices of gradient_checkpointing */
/* Whether a row of steps or decode is asked for. */
bool bench_wanted(const Bench *b, const char *name);
/* The share of the ceiling that the machine gives: the mean of the multiply-add rates just before and just
 * after a measurement, so that a neighbour who takes half of the one takes half of the roof as well. To be
 * called before the first measurement, where the result means nothing, and after each; 1 for one thread,
 * whose clock stands still meanwhile, and for a card. */
double bench_share(Bench *b, int which);
/* Adds a measurement to a row; its fraction is of `share` times the roof. */
void bench_take(Row *row, double value, double share);

/* The shapes asked for: calls fn for each with the index of a thread count, in every dtype. Costly ones run
 * with the last thread count alone. */
void bench_shapes(Bench *b, void (*fn)(Bench *b, const Shape *s, int which));
/* Multiplied weights of a token: FLOPs of a forward pass are 2 a weight. */
double shape_layer_weights(const Shape *s);
double shape_head_weights(const Shape *s);
/* FLOPs of a training step per token: 6 N + 6 L d T, the causal half of attention. */
double shape_step_flops(const Shape *s, HeadKind head);

/* ---- profiles (profile.c) ----------------------------------------------------------------------- */

/* What is run on the device from here on is timed op by op; with a wait after each on a card. */
void profile_begin(Device *dev);
/* Prints the ops by their share of the time and as fractions of their roofs; share: of bench_share. */
void profile_end(Bench *b, int which, double share);

/* ---- sections: each for thread count number `which` or for all; nothing where a shape has no sizes for it ---- */

void ceilings_measure(Bench *b, int which); /* fills b->ceiling[which] and adds rows */
void ops_run(Bench *b, int which);          /* ops.c: the perf cases of test_ops */
void steps_run(Bench *b, const Shape *s, int which);
void decode_run(Bench *b, const Shape *s, int which);
void ppo_run(Bench *b, const Shape *s, int which);
int growth_run(Bench *b);                   /* growth.c: 0, or the files cannot be written */
int growth_child(Bench *b);                 /* a point of it in a process of its own: b->point */
void text_run(Bench *b);                    /* text.c: one thread of the host */
void products_run(Bench *b);                /* of a card with bf16, once */
void attention_run(Bench *b);               /* attention.c: bf16, on a card that can */

#endif
