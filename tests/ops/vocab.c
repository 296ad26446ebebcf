/* vocab.c - log-probabilities, their gradient, and sampling: vocabularies around the reduction
 * width (32) and the tile (512). Values against a reference, and the distribution of draws:
 * tests/unit/test_vocab.c. */
#include "tests/ops/test_ops.h"

#include <math.h>
#include <string.h>

typedef struct {
    int R, V;
    double inv_temp;
} Shape;

static const Shape shapes[] = {{1, 1, 1},      {3, 31, 1},     {2, 32, 0.5}, {5, 33, 2},
                               {7, 108, 1},    {3, 511, 1.25}, {3, 512, 1},  {3, 513, 1},
                               {4, 1000, 0.8}, {2, 32000, 1},  {0, 64, 1}};
static const Shape grad_shapes[] = {{2, 7, 1}, {3, 33, 0.5}, {2, 600, 1.25}};
static const Shape perf_shapes[] = {
    {1, 108, 1}, {1024, 108, 1}, {1, 32000, 1}, {64, 32000, 1}, {16, 152000, 1}};

static bool pick(const Case *c, int variant, Shape *s)
{
    const Shape *from = case_perf(c) ? perf_shapes : case_grad(c) ? grad_shapes : shapes;
    const size_t n = case_perf(c)   ? sizeof perf_shapes / sizeof *from
                     : case_grad(c) ? sizeof grad_shapes / sizeof *from
                                    : sizeof shapes / sizeof *from;
    if ((size_t)variant >= n)
        return false;
    *s = from[variant];
    return true;
}

typedef struct {
    Tensor logits, targets, logp, lse, entropy, hit;
} World;

static World make(Case *c, const Shape *s)
{
    World w;
    w.logits = case_strided(c, "logits", s->R, s->V, FILL_NORMAL);
    w.targets = case_ids(c, "targets", s->R, s->V);
    w.logp = case_rows(c, "logp", s->R, 0, FILL_ZERO);
    w.lse = case_rows(c, "lse", s->R, 0, FILL_ZERO);
    w.entropy = case_rows(c, "entropy", s->R, 0, FILL_ZERO);
    w.hit = case_rows(c, "hit", s->R, 0, FILL_ZERO);
    for (int v = 0; v < s->V && s->R > 2 && !case_grad(c) && !case_perf(c); v++) {
        *case_at(&w.logits, s->V + v) = v % 7 ? -(real_t)INFINITY : v; /* most of weight 0 */
        *case_at(&w.logits, 2 * s->V + v) = v % 3 ? (real_t)0 : (real_t)-0.0;
    }
    return w;
}

/* About 25 operations an exponential. */
static void cost(Case *c, const Shape *s)
{
    case_flops(c, 25.0 * s->R * s->V, (double)sizeof(real_t) * s->R * s->V);
}

bool test_logprob(Case *c, int variant)
{
    Shape s;
    if (!pick(c, variant, &s))
        return false;
    World w = make(c, &s);
    cost(c, &s);
    CASE_RUN(c)
    op_logprob(&w.logp, &w.lse, &w.entropy, &w.hit, &w.logits, &w.targets, s.inv_temp);
    case_output(c, "logp", &w.logp);
    case_output(c, "lse", &w.lse);
    case_output(c, "entropy", &w.entropy);
    case_output(c, "hit", &w.hit);
    for (int r = 0; r < s.R; r++) {
        const double entropy = *case_at(&w.entropy, r);
        case_expect(c, *case_at(&w.logp, r) <= 0, "row %d: a probability above 1", r);
        case_expect(c, entropy >= -1e-5 && entropy <= log(s.V) + 1e-5,
                    "row %d: entropy %g of %d entries", r, entropy, s.V);
    }
    return true;
}

/* lse = 0 and dlogp = -1 leave e^x of the logits: where it is 0, a denormal, ordinary, beyond the
 * largest number, and of numbers that are none. */
static bool exponentials(Case *c)
{
    enum { R = 4, V = 2051 };
    static const double from[R] = {-108, -0.01, -30, 60}, step[R] = {0.011, 1e-5, 0.02, 0.017};
    static const real_t odd[] = {0, (real_t)-0.0, -INFINITY, INFINITY, NAN, -1e38F, 1e38F, 1e-40F};
    Tensor x = case_rows(c, "x", R, V, FILL_ZERO), e = case_rows(c, "e", R, V, FILL_ZERO);
    Tensor lse = case_rows(c, "lse", R, 0, FILL_ZERO),
           dlogp = case_rows(c, "dlogp", R, 0, FILL_ZERO);
    Tensor targets = case_ids(c, "targets", R, 1); /* column 0 */
    for (int r = 0; r < R; r++) {
        *case_at(&dlogp, r) = -1;
        for (int v = 0; v < V; v++)
            *case_at(&x, r * V + v) =
                v > 0 && v % 256 < 8 ? odd[v % 256] : (real_t)(from[r] + v * step[r]);
    }
    memcpy(e.data, x.data, tensor_bytes(&x));
    op_logprob_backward(&e, &dlogp, &lse, &targets, 1);
    case_output(c, "e", &e);
    for (int i = 0; i < R * V; i++) {
        const double want = exp((double)*case_at(&x, i)), got = *case_at(&e, i);
        if (i % V > 0 && (double)*case_at(&x, i) < 88)
            case_expect(c, fabs(got - want) <= 1.2e-7 * want + 1e-45, "e^%a is %g, not %g",
                        (double)*case_at(&x, i), got, want);
    }
    return true;
}

bool test_logprob_backward(Case *c, int variant)
{
    Shape s;
    if (variant == sizeof shapes / sizeof *shapes && !case_grad(c) && !case_perf(c))
        return exponentials(c);
    if (!pick(c, variant, &s))
        return false;
    World w = make(c, &s);
    op_logprob(&w.logp, &w.lse, &w.entropy, &w.hit, &w.logits, &w.targets, s.inv_temp);
    case_loss(c, &w.logp);
    if (case_forward_only(c))
        return true;
    Tensor dlogp = case_rows(c, "dlogp", s.R, 0, FILL_NORMAL);
    Tensor grad = case_rows(c, "gradient", s.R, s.V, FILL_ZERO);
    case_dy(c, &w.logp, &dlogp);
    cost(c, &s);
    CASE_RUN(c)
    {
        if (!case_perf(c)) /* in place: when timed, of what the last run left */
            for (int64_t e = 0; e < tensor_len(&grad); e++)
                *case_at(&grad, e) = *case_at(&w.logits, e);
        op_logprob_backward(&grad, &dlogp, &w.lse, &w.targets, s.inv_temp);
    }
    case_output(c, "gradient", &grad);
    case_check(c, "logits", &w.logits, &grad);
    return true;
}

bool test_sample(Case *c, int variant)
{
    Shape s;
    if (case_grad(c) || !pick(c, variant, &s))
        return false;
    World w = make(c, &s);
    Tensor keys = case_tensor(c, "keys", DTYPE_I32, LAYOUT_ROWS, 2, (int64_t[]){s.R, 6}, FILL_ZERO);
    for (int r = 0; r < s.R; r++)
        ((RngKey *)keys.data)[r] = rng_key(7, RNG_SAMPLE, 0, (uint64_t)r, 0, (uint32_t)variant);
    Tensor ids = case_ids(c, "ids", s.R, 1), drawn = case_rows(c, "drawn", s.R, 0, FILL_ZERO);
    cost(c, &s);
    Tensor inv_temp = case_rows(c, "inv_temp", s.R, 0, FILL_ZERO);
    op_fill(&inv_temp, s.inv_temp);
    CASE_RUN(c)
    op_sample(&ids, &drawn, &w.logits, &keys, &inv_temp);
    for (int greedy = 0; greedy < 2 && !case_perf(c); greedy++) {
        op_fill(&inv_temp, greedy ? 0 : s.inv_temp);
        op_sample(&ids, &drawn, &w.logits, &keys, &inv_temp);
        case_output(c, greedy ? "greedy ids" : "ids", &ids);
        case_output(c, greedy ? "greedy logp" : "sampled logp", &drawn);
        op_logprob(&w.logp, &w.lse, &w.entropy, &w.hit, &w.logits, &ids, greedy ? 1 : s.inv_temp);
        case_expect(c, memcmp(drawn.data, w.logp.data, (size_t)s.R * sizeof(real_t)) == 0,
                    "the sampler's log-probability is not op_logprob's");
        for (int r = 0; greedy && r < s.R; r++)
            case_expect(c, *case_at(&w.hit, r) == 1, "row %d: the greedy id is no hit", r);
    }
    return true;
}
