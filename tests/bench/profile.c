/* profile.c - which op takes how long: a device's table of ops is exchanged for one that reads the clock
 * around each. Printed where a target is missed, so that one sees what bounds the row.
 *
 * An op's body gets no context, so the open profile is the one static of this program. */
#include "tests/bench/bench.h"

#include "common/base/error.h"
#include "common/runtime/device_impl.h"
#include "common/runtime/ops.h"

#include <stdlib.h>
#include <string.h>

typedef enum {
#define X(name) OP_##name,
    OPS(X)
#undef X
        N_OPS
} OpId;
static const char *const op_names[N_OPS] = {
#define X(name) #name,
    OPS(X)
#undef X
};

typedef struct {
    double seconds, flops, bytes;
    int64_t calls;
} OpTotal;

static struct {
    Device *dev;
    const OpTable *ops; /* the device's own */
    OpTable timed;
    OpTotal total[N_OPS];
    int threads;
    double started;
} open_profile;

static double begin(void)
{
    device_sync(open_profile.dev);
    return bench_now(open_profile.threads);
}

/* Bytes: `more`, and each tensor once. */
static void end(OpId op, double started, double flops, double more, const Tensor *const *t, int n)
{
    OpTotal *o = &open_profile.total[op];
    device_sync(open_profile.dev);
    o->seconds += bench_now(open_profile.threads) - started;
    o->flops += flops;
    o->bytes += more;
    for (int i = 0; i < n; i++)
        o->bytes += t[i] && t[i]->n_dims ? (double)tensor_bytes(t[i]) : 0;
    o->calls++;
}

/* ---- work of the ops that have more of it than bytes -------------------------------------------- */

static double product(const Tensor *w, const Tensor *rows)
{
    return 2 * (double)tensor_len(w) * (double)tensor_rows(rows);
}

/* Of the causal half: a query of n sees (n + 1) / 2 keys; q k and p v. On a card `starts` is out of reach. */
static double attend(const Tensor *q, const Tensor *starts)
{
    double pairs = 0;
    const int32_t *s = starts->data;
    for (int64_t i = 0; device_kind(starts->dev) == DEVICE_CPU && i + 1 < tensor_len(starts); i++)
        pairs += 0.5 * (double)(s[i + 1] - s[i]) * (double)(s[i + 1] - s[i] + 1);
    return 4 * pairs * (double)tensor_cols(q);
}

static double keys_seen(const Tensor *row_pos)
{
    double keys = 0;
    const int32_t *pos = row_pos->data;
    for (int64_t i = 0; device_kind(row_pos->dev) == DEVICE_CPU && i < tensor_len(row_pos); i++)
        keys += pos[i] + 1;
    return keys;
}

/* ---- one function an op ------------------------------------------------------------------------- */

#define TIMED(NAME, PARAMETERS, ARGUMENTS, FLOPS, ...)                                                             \
    TIMED_MORE(NAME, PARAMETERS, ARGUMENTS, FLOPS, 0, __VA_ARGS__)
#define TIMED_MORE(NAME, PARAMETERS, ARGUMENTS, FLOPS, MORE, ...)                                                  \
    static void timed_##NAME PARAMETERS                                                                            \
    {                                                                                                              \
        const Tensor *tensors[] = {__VA_ARGS__};                                                                   \
        double started = begin();                                                                                  \
        open_profile.ops->NAME ARGUMENTS;                                                                          \
        end(OP_##NAME, started, FLOPS, MORE, tensors, sizeof tensors / sizeof *tensors);                           \
    }
#define T  Tensor *
#define CT const Tensor *

TIMED(linear, (T y, CT x, CT w, bool acc), (y, x, w, acc), product(w, y), y, x, w)
TIMED(linear_dx, (T dx, CT dy, CT w, bool acc), (dx, dy, w, acc), product(w, dy), dx, dy, w)
TIMED(linear_dw, (T dw, CT dy, CT x, DType operands, bool acc), (dw, dy, x, operands, acc), product(dw, dy), dw, dy,
      x)
TIMED(embedding, (T y, CT ids, CT w), (y, ids, w), 0, y)
TIMED(embedding_backward, (T dw, CT dy, CT ids), (dw, dy, ids), 0, dy)
TIMED(rmsnorm, (T y, T rstd, CT x, CT w, double eps), (y, rstd, x, w, eps), 0, y, x)
TIMED(rmsnorm_backward, (T dx, T dw, CT dy, CT x, CT w, CT rstd, CT starts, int64_t per_token),
      (dx, dw, dy, x, w, rstd, starts, per_token), 0, dx, dy, x)
TIMED(bias, (T y, CT b), (y, b), 0, y)
TIMED(bias_backward, (T db, CT dy, CT starts), (db, dy, starts), 0, dy)
TIMED(add, (T y, CT a, CT b), (y, a, b), 0, y, a, b)
TIMED(swiglu, (T y, CT gate, CT up), (y, gate, up), 0, y, gate, up)
TIMED(swiglu_backward, (T dgate, T dup, CT dy, CT gate, CT up), (dgate, dup, dy, gate, up), 0, dgate, dup, dy, gate,
      up)
TIMED(rope, (T x, CT pos, CT table, int64_t D, bool backward), (x, pos, table, D, backward), 0, x)
TIMED(convert, (T y, CT x), (y, x), 0, y, x)
TIMED(axpy, (T y, double a, CT x, bool acc), (y, a, x, acc), 0, y, x)
TIMED(fill, (T y, double value), (y, value), 0, y)
TIMED(gather_rows, (T y, CT x, CT rows), (y, x, rows), 0, y)
TIMED(scatter_rows, (T y, CT x, CT rows), (y, x, rows), 0, x)
TIMED(attention, (T o, T lse, CT q, CT k, CT v, CT starts, int64_t D, double scale),
      (o, lse, q, k, v, starts, D, scale), attend(q, starts), o, q, k, v)
TIMED(attention_backward,
      (T dq, T dk, T dv, T delta, CT d_o, CT o, CT lse, CT q, CT k, CT v, CT starts, int64_t D, double scale),
      (dq, dk, dv, delta, d_o, o, lse, q, k, v, starts, D, scale), 2.5 * attend(q, starts), dq, dk, dv, d_o, o, q,
      k, v)
TIMED(kv_write, (T kp, T vp, CT k, CT v, CT table, CT seq, CT pos), (kp, vp, k, v, table, seq, pos), 0, k, v)
TIMED(kv_copy, (T kp, T vp, CT pairs), (kp, vp, pairs), 0, pairs)
TIMED_MORE(attention_paged, (T o, CT q, CT kp, CT vp, CT table, CT seq, CT pos, int64_t D, double scale),
           (o, q, kp, vp, table, seq, pos, D, scale), 4 * keys_seen(pos) * (double)tensor_cols(q),
           2 * keys_seen(pos) * (double)(kp->dim[1] * D) * (double)dtype_bytes(kp->dtype), o, q)
TIMED(logprob, (T logp, T lse, T entropy, T hit, CT logits, CT targets, double inv_temp),
      (logp, lse, entropy, hit, logits, targets, inv_temp), 0, logits)
TIMED(logprob_backward, (T logits, CT dlogp, CT lse, CT targets, double inv_temp),
      (logits, dlogp, lse, targets, inv_temp), 0, logits)
TIMED(sample, (T ids, T logp, CT logits, CT keys, CT inv_temp), (ids, logp, logits, keys, inv_temp), 0, logits)
TIMED(sumsq, (T partial, CT x), (partial, x), 0, x)
TIMED(adamw, (T w, T m, T v, T copy, CT g, AdamwArgs a), (w, m, v, copy, g, a), 0, w, m, v, copy, g)

#define EVERY_TIMED(X)                                                                                             \
    X(linear)                                                                                                      \
    X(linear_dx) X(linear_dw) X(embedding) X(embedding_backward) X(rmsnorm) X(rmsnorm_backward) X(bias)            \
        X(bias_backward) X(add) X(swiglu) X(swiglu_backward) X(rope) X(convert) X(axpy) X(fill) X(gather_rows)     \
            X(scatter_rows) X(attention) X(attention_backward) X(kv_write) X(kv_copy) X(attention_paged)           \
                X(logprob) X(logprob_backward) X(sample) X(sumsq) X(adamw)

/* ---- a profile ---------------------------------------------------------------------------------- */

void profile_begin(Device *dev)
{
    CHECK(!open_profile.dev, "a profile within a profile");
    memset(&open_profile, 0, sizeof open_profile);
    open_profile.dev = dev;
    open_profile.ops = dev->ops;
    open_profile.timed = *dev->ops; /* ops without a function here (losses of a few rows) count as "other" */
#define X(name) open_profile.timed.name = timed_##name;
    EVERY_TIMED(X)
#undef X
    open_profile.threads = device_kind(dev) == DEVICE_CPU ? device_threads(dev) : 0;
    dev->ops = &open_profile.timed;
    open_profile.started = begin();
}

static int by_time(const void *a, const void *b)
{
    double x = open_profile.total[*(const int *)a].seconds, y = open_profile.total[*(const int *)b].seconds;
    return (x < y) - (x > y);
}

/* Time of FLOPs at the multiply-add rate or of bytes at the read rate of a buffer of one call's size,
 * whichever is longer. */
static double roof_seconds(const Ceiling *c, const OpTotal *o)
{
    double by_flops = o->flops / c->flops, by_bytes = o->bytes / ceiling_read(c, o->bytes / (double)o->calls);
    return by_flops > by_bytes ? by_flops : by_bytes;
}

void profile_end(Bench *b, int which, double share)
{
    const Ceiling *c = bench_ceiling(b, which);
    double whole = begin() - open_profile.started, rest = whole;
    int order[N_OPS], n = 0;
    open_profile.dev->ops = open_profile.ops;
    for (int i = 0; i < N_OPS; i++)
        if (open_profile.total[i].calls)
            order[n++] = i;
    qsort(order, (size_t)n, sizeof *order, by_time);
    for (int i = 0; i < n; i++) {
        const OpTotal *o = &open_profile.total[order[i]];
        rest -= o->seconds;
        if (o->seconds < 0.005 * whole)
            continue;
        printf("    %-20s %5.1f %% of the time, %7lld calls, %8.1f GFLOP/s %7.1f GB/s, %5.2f of its roof\n",
               op_names[order[i]], 100 * o->seconds / whole, (long long)o->calls, 1e-9 * o->flops / o->seconds,
               1e-9 * o->bytes / o->seconds, roof_seconds(c, o) / o->seconds / share);
    }
    printf("    %-20s %5.1f %% of the time\n", "other", 100 * rest / whole);
    open_profile.dev = NULL;
}
