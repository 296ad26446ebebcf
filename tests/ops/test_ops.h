/* test_ops.h - one tool for every op: correctness between bodies, gradients, speed.
 *
 *   test_ops [-o OP] [-s SEED] [-t THREADS] [-e N] [-b BODY] [test|grad|perf|list|hash]
 *
 * BODY: plain, avx2, avx512, avx512bf16 or cuda.
 *
 * `test`  each body of this machine (plain, avx2, avx512, avx512bf16; threads 1, 2, 3; cuda where the library is
 *         beside the program and there is a card, or the shim of tests/emu) against the plain body
 *         on one thread: equal bits, guard zones untouched. -b: this body alone. An op without a
 *         card to run on counts as skipped. -e: every N-th variant. Built against librlhf.a.
 * `grad`  central differences in double. Built against librlhf64.a as test_grad, from the same files.
 * `perf`  time, GFLOP/s and GB/s of one body (-b; else the CPU's best on -t threads): variants that say what they cost
 *         (case_flops) and run their op in CASE_RUN.
 * `list`  the bodies of this machine.
 * `hash`  one number an op over its outputs, to compare compilers and machines.
 *
 * An op's file (tests/ops/linear.c) defines void test_linear(Case *c) for each op of its family: it
 * makes tensors with the case_* calls, runs the op, and says which outputs to compare. The harness
 * runs it once per body and compares. OPS builds the table of tests, so a missing one is a compile
 * error. */
#ifndef RLHF_TEST_OPS_H
#define RLHF_TEST_OPS_H

#include "common/runtime/arena.h"
#include "common/runtime/device.h"
#include "common/runtime/ops.h"

typedef enum { FILL_NORMAL, FILL_ZERO, FILL_EXTREME, FILL_ONE_HOT, FILL_POSITIVE } Fill;

typedef struct Case Case;

/* Sizes to try: the harness calls the test for variant 0, 1, ... until it returns false. Sizes must
 * include 1, 31, 33, tile - 1, tile, tile + 1 where a tile matters. */
typedef bool (*CaseFn)(Case *c, int variant);

Device *case_device(Case *c);
bool case_grad(const Case *c); /* this run is the gradient check: keep sizes small */
bool case_perf(const Case *c); /* this run is timed: sizes of real use */
/* This variant is not for a card, which counts as skipped. To be called before tensors are made. */
void case_cpu_only(Case *c);
/* Printed by perf after the op's name: "linear.bf16". */
void case_label(Case *c, const char *label);
/* A variant of what cards alone do. True on the CPU, where it ends here and does not count:
 *     if (case_card_only(c)) return true; */
bool case_card_only(Case *c);
/* The statement is what is timed; it runs once outside perf.  CASE_RUN(c) op_add(&y, &a, &b); */
#define CASE_RUN(c) for (case_run_begin(c); case_run_next(c);)
void case_run_begin(Case *c);
bool case_run_next(Case *c);
/* Fails the variant with a sentence when !ok: for values known by hand and for invariants. */
void case_expect(Case *c, bool ok, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Tensors with guard zones, filled by (seed, call number): the same values for every body. */
Tensor case_rows(Case *c, const char *name, int64_t d0, int64_t d1, Fill fill); /* d1 = 0: rank 1 */
/* The same with a row stride beyond d1; the gaps are guarded too. */
Tensor case_strided(Case *c, const char *name, int64_t d0, int64_t d1, Fill fill);
Tensor case_gapped_of(Case *c, const char *name, DType dtype, int64_t d0, int64_t d1, int gap); /* not filled */
Tensor case_strided_of(Case *c, const char *name, DType dtype, int64_t d0, int64_t d1); /* not filled */
/* Any dtype, layout and rank (KV pages); filled only when real. */
Tensor case_tensor(Case *c, const char *name, DType dtype, Layout layout, int n_dims,
                   const int64_t *dims, Fill fill);
Tensor case_panel(Case *c, const char *name, int64_t n, int64_t k, Fill fill);
Tensor case_ids(Case *c, const char *name, int64_t n, int64_t below); /* i32, random */
Tensor case_i32(Case *c, const char *name, const int32_t *values, int64_t n);
Tensor case_f64(Case *c, const char *name, int64_t n);
/* Element e (row-major over the dims) of a tensor of real, wherever its layout puts it. */
real_t *case_at(const Tensor *t, int64_t e);
/* The op's results: compared bit by bit between bodies (a NaN equals a NaN). */
void case_output(Case *c, const char *name, const Tensor *t);
void case_flops(Case *c, double flops, double bytes); /* for perf */

/* Gradient check. The test runs forward, then backward with dy chosen by the harness:
 *   case_loss(c, &y)          in the forward part: the scalar is sum(y * r) with a fixed random r
 *   case_dy(c, &y, &dy)       fills dy with r (the weights of an op that makes loss and gradient in
 *                             one call: run it, case_loss, case_dy(c, &loss, &weight), run it
 * again) case_check(c, "dx", &x, &dx)  x was an input, dx is claimed to be d loss / d x The harness
 * perturbs x as it is made (so x may be changed in place later), reruns the whole test function in
 * forward mode, and compares five-point differences by norm-relative error
 * <= 1e-7: every coordinate of a small tensor, random directions of a large one. Every planted
 * wrong backward (one entry of dx off by 1e-3 of its norm) must fail. */
void case_loss(Case *c, const Tensor *y);
void case_dy(Case *c, const Tensor *y, Tensor *dy);
void case_check(Case *c, const char *name, const Tensor *x, const Tensor *dx);
bool case_forward_only(const Case *c); /* a perturbed rerun: stop after case_loss */

#define X(name) bool test_##name(Case *c, int variant);
OPS(X)
#undef X

/* Products of bf16 rows, on a card (linear_rows.c); variants of the tests of linear.c behind theirs. */
typedef enum { ROWS_Y, ROWS_DX, ROWS_DW } RowsProduct;
bool linear_rows(Case *c, RowsProduct op, int variant);
/* bf16 attention (attention_rows.c), behind the variants of attention.c. */
typedef enum { ROWS_PACKED, ROWS_BACKWARD, ROWS_PAGED, ROWS_WRITTEN, ROWS_COPIED } AttentionRows;
bool attention_rows(Case *c, AttentionRows op, int variant);
/* Ops of rows with bf16 among them (elementwise_rows.c), behind the variants of their families. */
typedef enum {
    ROWS_ADD, ROWS_SWIGLU, ROWS_SWIGLU_BACKWARD, ROWS_ROPE, ROWS_GATHER, ROWS_SCATTER, ROWS_RMSNORM,
    ROWS_RMSNORM_BACKWARD, ROWS_BIAS, ROWS_BIAS_BACKWARD, ROWS_EMBEDDING
} ElementwiseRows;
bool elementwise_rows(Case *c, ElementwiseRows op, int variant);

#endif
