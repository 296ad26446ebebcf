/* harness.h - what harness.c, modes.c and gradient.c share; tests see test_ops.h alone. */
#ifndef RLHF_TEST_HARNESS_H
#define RLHF_TEST_HARNESS_H

#include "tests/ops/test_ops.h"

#include <stdarg.h>

typedef enum { MODE_TEST, MODE_GRAD, MODE_PERF, MODE_LIST, MODE_HASH, N_MODES } CaseMode;
enum { LOSSES_MAX = 8 };

typedef struct {
    const char *name;
    CaseFn fn;
} OpTest;

typedef struct {
    char name[24];
    unsigned char *raw; /* guard, tensor, guard */
    size_t bytes, room;
    Tensor t;
} Buffer;

typedef struct {
    char name[24];
    DType dtype;
    int64_t n;
    void *data; /* dense copy */
} Output;

typedef struct {
    const void *data; /* of y */
    double *r;
} Loss;

typedef struct {
    char name[24];
    int buffer; /* that x lives in */
    int64_t n;
    double *dx;
} Check;

struct Case {
    const char *op;
    CaseMode mode;
    uint64_t seed;
    int variant;
    Device *dev;
    Buffer *buffer;
    int n_buffers, cap_buffers;
    Output *output;
    int n_outputs, cap_outputs;
    int n_failed, n_checked;
    bool cpu_only;
    const char *label;
    /* gradient */
    Loss loss[LOSSES_MAX];
    int n_losses;
    long double loss_sum;
    Check *check;
    int n_checks, cap_checks;
    bool forward_only, card_only;
    struct {
        int buffer; /* -1: none */
        int64_t at; /* the element moved; -1: all, along a random direction */
        uint64_t direction;
        double amount;
    } perturb;
    /* clock */
    int64_t runs, batch;
    double started, seconds, flops, bytes;
};

int64_t case_slot(const Tensor *t, int64_t e); /* storage slot of element e */
void case_clear(Case *c);                      /* frees a run's tensors and results */
bool case_once(Case *c, CaseFn fn);            /* false: no such variant */
void case_compare(Case *c, const Case *ref);   /* every output has ref's bits */
double output_value(const Output *o, int64_t e);
void case_fail_v(Case *c, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
bool gradient_check(Case *c, CaseFn fn);

#endif
