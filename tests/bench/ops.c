/* ops.c - the perf cases of test_ops, read from what it prints: an op has one description of its work,
 * beside its test. An op's row is its largest case of a dtype (every case with --full).
 *
 * The fitting ceiling is a roofline: FLOPs at the multiply-add rate or bytes at the read rate of a buffer
 * as large as they are, whichever takes longer, and the row has the unit of that one. */
#include "tests/bench/bench.h"

#include "common/base/error.h"
#include "common/base/mem.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char op[32], shape[40];
    bool bf16; /* its weights */
    double seconds, flops, bytes;
} OpCase;

/* "x f32 rows (2048, 512)  w f32 panel (512, 512)  ..." -> "2048x512 512x512": the first two. */
static void read_shape(char *out, size_t room, const char *text)
{
    size_t n = 0;
    int tensors = 0;
    for (bool inside = false; *text && tensors < 2 && n + 2 < room; text++) {
        if (*text == '(')
            inside = true;
        else if (*text == ')')
            tensors++, inside = false, out[n++] = ' ';
        else if (inside && *text == ',')
            out[n++] = 'x';
        else if (inside && isdigit((unsigned char)*text))
            out[n++] = *text;
    }
    out[n ? n - 1 : 0] = '\0';
}

static bool read_case(OpCase *c, const char *line)
{
    double us, gflops, gbytes;
    int at = 0;
    if (sscanf(line, "%31s %lf us %lf GFLOP/s %lf GB/s %n", c->op, &us, &gflops, &gbytes, &at) < 4 || !at)
        return false;
    c->seconds = 1e-6 * us;
    c->flops = 1e9 * gflops * c->seconds;
    c->bytes = 1e9 * gbytes * c->seconds;
    read_shape(c->shape, sizeof c->shape, line + at);
    char *label = strstr(c->op, ".bf16"); /* the row has a dtype of its own */
    c->bf16 = label || strstr(line + at, "bf16");
    if (label)
        *label = '\0';
    return c->seconds > 0;
}

/* Cases of one run: the largest of each op, or all. */
typedef struct {
    OpCase *at;
    int n, cap;
} OpCases;

/* Work is read from rounded numbers, so of equal cases the first one stays. */
static bool is_larger(const OpCase *a, const OpCase *b)
{
    return a->flops > 1.5 * b->flops || (a->flops >= b->flops / 1.5 && a->bytes > 1.5 * b->bytes);
}

static void keep_case(OpCases *cases, const OpCase *c, bool all)
{
    for (int i = cases->n; !all && i > 0; i--) {
        OpCase *kept = &cases->at[i - 1];
        if (strcmp(kept->op, c->op) != 0 || kept->bf16 != c->bf16)
            continue;
        if (is_larger(c, kept))
            *kept = *c;
        return;
    }
    int i = VEC_GROW(cases->at, cases->n, cases->cap);
    cases->at[i] = *c;
}

/* The row of the i-th case, which each of the n runs has measured. */
static void add_case(Bench *b, int which, const OpCases *runs, int n, int i, const double *share)
{
    const OpCase *c = &runs[0].at[i];
    const Ceiling *top = bench_ceiling(b, which);
    double rate = ceiling_read(top, c->bytes), flops = ceiling_flops(top, c->bf16 ? DTYPE_BF16 : DTYPE_F32);
    bool by_flops = c->flops / flops >= c->bytes / rate;
    b->dtype = c->bf16 ? DTYPE_BF16 : DTYPE_F32;
    bool product = strncmp(c->op, "linear", 6) == 0 && c->flops > 1e9;
    Row row = bench_row(b, which, by_flops ? "GFLOP/s" : "GB/s", product && !c->bf16 ? 0.90 : 0);
    row.roof = 1e-9 * (by_flops ? flops : rate);
    snprintf(row.name, sizeof row.name, "op %s %s", c->op, c->shape);
    if (product)
        row.target = c->bf16 ? 0.85 : 0.87; /* 0.90 of the best library, at a steady clock */
    for (int k = 0; k < n; k++) {
        const OpCase *again = &runs[k].at[i];
        CHECK(i < runs[k].n && strcmp(c->op, again->op) == 0 && strcmp(c->shape, again->shape) == 0,
              "test_ops perf printed other cases of %s the second time", c->op);
        bench_take(&row, 1e-9 * (by_flops ? again->flops : again->bytes) / again->seconds, share[k]);
    }
    row_add(&b->rows, row);
}

static OpCases run_once(const Bench *b, const char *command)
{
    char line[512];
    OpCases cases = {0};
    OpCase c;
    FILE *f = popen(command, "r");
    CHECK(f, "%s cannot be started", b->test_ops);
    while (fgets(line, sizeof line, f))
        if (read_case(&c, line))
            keep_case(&cases, &c, b->full);
    CHECK(pclose(f) == 0 && cases.n, "%s failed; run it by hand", command);
    return cases;
}

/* The rows are added when the other program is gone: nothing may run beside a measured rate. */
void ops_run(Bench *b, int which)
{
    char command[4096];
    OpCases runs[REPEATS_MAX];
    double share[REPEATS_MAX], started = bench_now(0);
    int n = 0;
    snprintf(command, sizeof command, "'%s' -t %d%s%s%s%s perf", b->test_ops, b->threads[which],
             bench_is_cuda(b) ? " -b cuda" : "", b->match ? " -o '" : "", b->match ? b->match : "",
             b->match ? "'" : "");
    for (; bench_again(b, n, started); n++) {
        bench_share(b, which);
        runs[n] = run_once(b, command);
        share[n] = bench_share(b, which);
    }
    for (int i = 0; i < runs[0].n; i++)
        add_case(b, which, runs, n, i, share);
    b->dtype = DTYPE_F32;
    for (int k = 0; k < n; k++)
        free(runs[k].at);
}
