/* gradient.c - hand-written backward passes against central differences in double; see test_ops.h.
 *
 * loss(x + h u) is taken at -2h, -h, h, 2h: the five-point rule has error O(h^4), about 1e-12 at h
 * = 1e-3, and rounding of 1e-16 / h = 1e-13, so the bound of 1e-7 is far from both and from any
 * real mistake. The check itself is checked: a gradient with one wrong entry must be refused. */
#include "tests/ops/harness.h"

#include "common/base/error.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { EVERY_COORDINATE = 200, DIRECTIONS = 12 };
static const double STEP = 1e-3, BOUND = 1e-7, PLANTED = 1e-3;

static Loss *loss_of(Case *c, const Tensor *y)
{
    for (int i = 0; i < c->n_losses; i++)
        if (c->loss[i].data == y->data)
            return &c->loss[i];
    return NULL;
}

void case_loss(Case *c, const Tensor *y)
{
    if (!case_grad(c))
        return;
    CHECK(c->n_losses < LOSSES_MAX, "%s: too many losses", c->op);
    Loss *l = &c->loss[c->n_losses];
    Rng r = rng_make(c->seed, RNG_TEST, 2000, (uint64_t)c->n_losses++, 0);
    int64_t n = tensor_len(y);
    l->data = y->data;
    l->r = xmalloc((size_t)n * sizeof *l->r);
    for (int64_t e = 0; e < n; e++) {
        l->r[e] = rng_next_normal(&r);
        c->loss_sum += (long double)*case_at(y, e) * l->r[e];
    }
}

void case_dy(Case *c, const Tensor *y, Tensor *dy)
{
    if (!case_grad(c))
        return;
    const Loss *l = loss_of(c, y);
    CHECK(l && tensor_len(dy) == tensor_len(y), "%s: case_dy without its case_loss", c->op);
    for (int64_t e = 0; e < tensor_len(dy); e++)
        *case_at(dy, e) = (real_t)l->r[e];
}

void case_check(Case *c, const char *name, const Tensor *x, const Tensor *dx)
{
    if (!case_grad(c) || c->forward_only)
        return;
    int i = VEC_GROW(c->check, c->n_checks, c->cap_checks);
    Check *k = &c->check[i];
    *k = (Check){.buffer = -1, .n = tensor_len(x)};
    snprintf(k->name, sizeof k->name, "%s", name);
    for (int b = 0; b < c->n_buffers; b++)
        if (c->buffer[b].t.data == x->data)
            k->buffer = b;
    CHECK(k->buffer >= 0 && tensor_len(dx) == k->n, "%s: %s is not the gradient of a case tensor",
          c->op, name);
    k->dx = xmalloc((size_t)k->n * sizeof *k->dx);
    for (int64_t e = 0; e < k->n; e++)
        k->dx[e] = *case_at(dx, e);
}

/* Derivative of the loss along element `at`, or along random direction number `d` when at < 0. */
static double difference(const Case *c, CaseFn fn, int buffer, int64_t at, uint64_t d)
{
    static const double weight[] = {1, -8, 8, -1};
    static const double place[] = {-2, -1, 1, 2};
    long double sum = 0;
    for (int i = 0; i < 4; i++) {
        Case p = {.op = c->op,
                  .mode = MODE_GRAD,
                  .seed = c->seed,
                  .variant = c->variant,
                  .dev = c->dev,
                  .forward_only = true};
        p.perturb.buffer = buffer;
        p.perturb.at = at;
        p.perturb.direction = d;
        p.perturb.amount = place[i] * STEP;
        case_once(&p, fn);
        sum += (long double)weight[i] * p.loss_sum;
        case_clear(&p);
    }
    return (double)(sum / (12 * (long double)STEP));
}

/* The claimed gradient along the same direction. */
static double along(const Case *c, const Check *k, int64_t at, uint64_t d)
{
    if (at >= 0)
        return k->dx[at];
    Rng u = rng_make(c->seed, RNG_TEST, 1000, d, 0);
    double sum = 0;
    for (int64_t e = 0; e < k->n; e++)
        sum += k->dx[e] * rng_next_normal(&u);
    return sum;
}

/* Norm of the difference over the norm of the claim, over all probes. */
static double relative_error(const Case *c, const Check *k, const double *num, int n, bool each)
{
    double err = 0, norm = 0;
    for (int i = 0; i < n; i++) {
        double a = along(c, k, each ? i : -1, (uint64_t)i);
        err += (a - num[i]) * (a - num[i]);
        norm += num[i] * num[i];
    }
    return sqrt(err) / (sqrt(norm) + 1e-12);
}

static void check_one(Case *c, CaseFn fn, Check *k)
{
    bool each = k->n <= EVERY_COORDINATE;
    int n = each ? (int)k->n : DIRECTIONS;
    double *num = xmalloc((size_t)n * sizeof *num), norm = 0;
    for (int i = 0; i < n; i++)
        num[i] = difference(c, fn, k->buffer, each ? i : -1, (uint64_t)i);
    double err = relative_error(c, k, num, n, each);
    case_expect(c, err <= BOUND, "%s: relative error %.3g against differences (bound %g)", k->name,
                err, BOUND);
    for (int64_t e = 0; e < k->n; e++)
        norm += k->dx[e] * k->dx[e];
    Rng r = rng_make(c->seed, RNG_TEST, 3000, (uint64_t)k->n, 0);
    int64_t wrong = (int64_t)rng_next_below(&r, (uint64_t)k->n);
    double was = k->dx[wrong];
    k->dx[wrong] += PLANTED * sqrt(norm);
    err = relative_error(c, k, num, n, each);
    case_expect(c, err > BOUND,
                "%s: entry %lld is wrong by %g of the norm and the check accepts it", k->name,
                (long long)wrong, PLANTED);
    k->dx[wrong] = was;
    free(num);
    c->n_checked++;
}

bool gradient_check(Case *c, CaseFn fn)
{
    if (!case_once(c, fn))
        return false;
    int n = c->n_checks;
    for (int i = 0; i < n; i++)
        if (c->check[i].n > 0)
            check_one(c, fn, &c->check[i]);
    return true;
}
