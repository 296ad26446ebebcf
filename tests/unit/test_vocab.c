/* test_vocab.c - log-probabilities against a double reference, and the sampler: draws against the
 * cumulative distribution one by one, frequencies, edges of u, tokens of zero probability, and its
 * log-probability bit for bit op_logprob's. */
#include "common/base/error.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/runtime/device.h"
#include "common/runtime/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct {
    int64_t R, V;
    float *logits, *logp, *lse, *entropy, *hit;
    int32_t *ids;
    RngKey *keys;
} World;

static World world_make(int64_t R, int64_t V, double spread, uint64_t seed)
{
    World w = {.R = R, .V = V};
    w.logits = xmalloc((size_t)(R * V) * 4);
    w.logp = xcalloc((size_t)R, 4);
    w.lse = xcalloc((size_t)R, 4);
    w.entropy = xcalloc((size_t)R, 4);
    w.hit = xcalloc((size_t)R, 4);
    w.ids = xcalloc((size_t)R, 4);
    w.keys = xcalloc((size_t)R, sizeof *w.keys);
    Rng rng = rng_make(seed, RNG_TEST, 0, 0, 0);
    for (int64_t i = 0; i < R * V; i++)
        w.logits[i] = (float)(spread * rng_next_normal(&rng));
    for (int64_t r = 0; r < R; r++) {
        w.ids[r] = (int32_t)rng_next_below(&rng, (uint64_t)V);
        w.keys[r] = rng_key(seed, RNG_TEST, 0, 7, (uint32_t)r, 3);
    }
    return w;
}

static void world_free(World *w)
{
    free(w->logits);
    free(w->logp);
    free(w->lse);
    free(w->entropy);
    free(w->hit);
    free(w->ids);
    free(w->keys);
}

static Device *open_device(CpuIsa isa, int threads)
{
    Device *dev;
    return device_open(&dev, &(DeviceOptions){"cpu", threads, isa}) == 0 ? dev : NULL;
}

static Tensor vec(float *p, Device *dev, int64_t n)
{
    return tensor_make1(p, dev, DTYPE_F32, n);
}

static void run_logprob(World *w, Device *dev, double inv_temp)
{
    Tensor logp = vec(w->logp, dev, w->R), lse = vec(w->lse, dev, w->R);
    Tensor entropy = vec(w->entropy, dev, w->R), hit = vec(w->hit, dev, w->R);
    Tensor logits = tensor_make2(w->logits, dev, DTYPE_F32, w->R, w->V);
    Tensor ids = tensor_make1(w->ids, dev, DTYPE_I32, w->R);
    op_logprob(&logp, &lse, &entropy, &hit, &logits, &ids, inv_temp);
}

static void run_sample(World *w, Device *dev, double inv_temp)
{
    Tensor logp = vec(w->logp, dev, w->R), ids = tensor_make1(w->ids, dev, DTYPE_I32, w->R);
    Tensor logits = tensor_make2(w->logits, dev, DTYPE_F32, w->R, w->V);
    Tensor keys = tensor_make2(w->keys, dev, DTYPE_I32, w->R, 6);
    float *each = xmalloc((size_t)w->R * sizeof *each);
    Tensor inv_temps = vec(each, dev, w->R);
    op_fill(&inv_temps, inv_temp);
    op_sample(&ids, &logp, &logits, &keys, &inv_temps);
    free(each);
}

/* Around the reduction width (32) and the tile (512); a Llama vocabulary; two odd ones. */
static const int64_t vocabs[] = {1, 2, 31, 32, 33, 108, 511, 512, 513, 1024, 5000, 32000};
enum { N_VOCABS = sizeof vocabs / sizeof vocabs[0] };

/* Sums of up to 32000 terms in 32 lanes of at most 16 per tile: relative error of some 1e-6. */
static void logprob_is_log_softmax(void **state)
{
    (void)state;
    Device *dev = open_device(ISA_AUTO, 2);
    for (int i = 0; i < N_VOCABS; i++) {
        const double inv_temp = i % 2 ? (float)(1 / 0.7) : 1;
        World w = world_make(5, vocabs[i], 3, 11);
        if (w.V > 2)
            w.logits[(w.ids[0] + 1) % w.V] = -INFINITY; /* a banned token of row 0 */
        w.logits[w.V + w.ids[1]] = 40;                  /* the largest of row 1 */
        run_logprob(&w, dev, inv_temp);
        float *p = xmalloc((size_t)(w.R * w.V) * 4), dlogp[5] = {1, -2, 0, 0.5f, 3};
        memcpy(p, w.logits, (size_t)(w.R * w.V) * 4);
        Tensor grad = tensor_make2(p, dev, DTYPE_F32, w.R, w.V), lse = vec(w.lse, dev, w.R);
        Tensor ids = tensor_make1(w.ids, dev, DTYPE_I32, w.R), dl = vec(dlogp, dev, w.R);
        op_logprob_backward(&grad, &dl, &lse, &ids, inv_temp);
        for (int64_t r = 0; r < w.R; r++) {
            const float *z = w.logits + r * w.V;
            double top = -INFINITY, sum = 0, dot = 0;
            for (int64_t v = 0; v < w.V; v++)
                top = fmax(top, z[v] * inv_temp);
            for (int64_t v = 0; v < w.V; v++) {
                const double x = z[v] * inv_temp - top;
                sum += exp(x);
                dot += isinf(x) ? 0 : exp(x) * x;
            }
            assert_true(fabs(w.lse[r] - (top + log(sum))) < 1e-5);
            assert_true(fabs(w.logp[r] - (z[w.ids[r]] * inv_temp - top - log(sum))) < 1e-5);
            assert_true(fabs(w.entropy[r] - (log(sum) - dot / sum)) < 2e-5);
            assert_true(w.hit[r] == (z[w.ids[r]] * inv_temp == top));
            for (int64_t v = 0; v < w.V; v++) {
                const double prob = exp(z[v] * inv_temp - top) / sum;
                const double want = dlogp[r] * inv_temp * ((v == w.ids[r]) - prob);
                assert_true(fabs(p[r * w.V + v] - want) < 1e-5);
            }
        }
        free(p);
        world_free(&w);
    }
    device_close(dev);
}

/* By hand: V = 3, logits ln 1, ln 2, ln 5 -> p = 1/8, 2/8, 5/8; entropy = ln 8 - (2 ln 2 + 5 ln 5)
 * / 8. V = 1: certain, exactly. */
static void rows_by_hand(void **state)
{
    (void)state;
    Device *dev = open_device(ISA_AUTO, 1);
    World w = world_make(1, 3, 1, 1);
    w.logits[0] = 0, w.logits[1] = 0.6931472f, w.logits[2] = 1.6094379f;
    w.ids[0] = 1;
    run_logprob(&w, dev, 1);
    assert_true(fabs(w.logp[0] + 1.3862944) < 1e-6);
    assert_true(fabs(w.lse[0] - 2.0794415) < 1e-6);
    assert_true(fabs(w.entropy[0] - 0.9002561) < 1e-6);
    assert_true(w.hit[0] == 0);
    w.ids[0] = 2;
    run_logprob(&w, dev, 1);
    assert_true(w.hit[0] == 1);
    w.logits[0] = w.logits[2]; /* of two equal maxima, the later one */
    run_logprob(&w, dev, 1);
    assert_true(w.hit[0] == 1);
    w.logits[1] = NAN; /* passed over by the maximum; itself it equals nothing */
    w.ids[0] = 1;
    run_logprob(&w, dev, 1);
    assert_true(w.hit[0] == 0);
    world_free(&w);
    w = world_make(1, 1, 5, 1);
    run_logprob(&w, dev, 1);
    assert_true(w.logp[0] == 0 && w.entropy[0] == 0 && w.lse[0] == w.logits[0]);
    world_free(&w);
    device_close(dev);
}

static void bodies_agree(void **state)
{
    (void)state;
    static const CpuIsa isa[] = {ISA_PLAIN, ISA_AVX2, ISA_AVX512, ISA_AVX512BF16};
    Device *plain = open_device(ISA_PLAIN, 1);
    for (int i = 0; i < N_VOCABS; i++)
        for (size_t j = 0; j < sizeof isa / sizeof *isa; j++) {
            Device *dev = open_device(isa[j], 3);
            if (!dev)
                continue; /* not on this CPU */
            World a = world_make(9, vocabs[i], 4, 5), b = world_make(9, vocabs[i], 4, 5);
            run_logprob(&a, plain, 1.25);
            run_logprob(&b, dev, 1.25);
            assert_memory_equal(a.logp, b.logp, 9 * 4);
            assert_memory_equal(a.lse, b.lse, 9 * 4);
            assert_memory_equal(a.entropy, b.entropy, 9 * 4);
            assert_memory_equal(a.hit, b.hit, 9 * 4);
            run_sample(&a, plain, 1.25);
            run_sample(&b, dev, 1.25);
            assert_memory_equal(a.logp, b.logp, 9 * 4);
            assert_memory_equal(a.ids, b.ids, 9 * 4);
            world_free(&a);
            world_free(&b);
            device_close(dev);
        }
    device_close(plain);
}

/* Each draw is the id at which the double cumulative distribution passes u. The sampler's sums
 * differ from it by rounding, some 1e-6 of the whole; and its log-probability is the trainer's. */
static void draws_invert_the_cdf(void **state)
{
    (void)state;
    Device *dev = open_device(ISA_AUTO, 2);
    for (int i = 0; i < N_VOCABS; i++) {
        const double inv_temp = i % 3 ? 1 : (float)(1 / 1.3);
        World w = world_make(vocabs[i] > 5000 ? 20 : 300, vocabs[i], 2.5, 21);
        run_sample(&w, dev, inv_temp);
        float *drawn_logp = xmalloc((size_t)w.R * 4);
        memcpy(drawn_logp, w.logp, (size_t)w.R * 4);
        run_logprob(&w, dev, inv_temp);
        assert_memory_equal(drawn_logp, w.logp, (size_t)w.R * 4);
        free(drawn_logp);
        for (int64_t r = 0; r < w.R; r++) {
            const float *z = w.logits + r * w.V;
            const double u = rng_uniform(&w.keys[r]);
            double top = -INFINITY, sum = 0, before = 0;
            for (int64_t v = 0; v < w.V; v++)
                top = fmax(top, z[v] * inv_temp);
            for (int64_t v = 0; v < w.V; v++)
                sum += exp(z[v] * inv_temp - top);
            for (int64_t v = 0; v < w.ids[r]; v++)
                before += exp(z[v] * inv_temp - top);
            const double after = before + exp(z[w.ids[r]] * inv_temp - top);
            assert_true(before / sum - 2e-6 <= u && u <= after / sum + 2e-6);
        }
        world_free(&w);
    }
    device_close(dev);
}

/* 100,000 draws from 8 tokens, two of them impossible. Under the right probabilities the statistic
 * is chi-square with 5 degrees of freedom: mean 5, and above 35.9 with probability 1e-6. A token
 * off by 3 % of p = 0.2 alone would add 100000 * 0.2 * 0.03^2 = 18. */
static void frequencies_fit(void **state)
{
    (void)state;
    enum { N = 100000, V = 8 };
    static const double p[V] = {0.05, 0, 0.2, 0.3, 0.01, 0.24, 0.2, 0};
    Device *dev = open_device(ISA_AUTO, 2);
    World w = world_make(N, V, 1, 31);
    for (int64_t r = 0; r < N; r++)
        for (int v = 0; v < V; v++)
            w.logits[r * V + v] = p[v] > 0 ? (float)log(p[v]) : -INFINITY;
    run_sample(&w, dev, 1);
    int count[V] = {0};
    for (int64_t r = 0; r < N; r++)
        count[w.ids[r]]++;
    double chi2 = 0;
    for (int v = 0; v < V; v++) {
        if (p[v] == 0)
            assert_int_equal(count[v], 0);
        else
            chi2 += (count[v] - N * p[v]) * (count[v] - N * p[v]) / (N * p[v]);
    }
    assert_true(chi2 < 35.9);
    world_free(&w);
    device_close(dev);
}

/* The smallest and the largest u among many keys draw the first and the last possible token, though
 * impossible ones surround them and the sums span tiles. */
static void ends_of_the_interval(void **state)
{
    (void)state;
    enum { N = 200000, V = 1500 };
    Device *dev = open_device(ISA_AUTO, 1);
    World w = world_make(2, V, 0, 1);
    double low = 1, high = 0;
    for (uint32_t i = 0; i < N; i++) {
        const RngKey key = rng_key(9, RNG_TEST, 0, 0, i, 0);
        const double u = rng_uniform(&key);
        if (u < low) {
            low = u;
            w.keys[0] = key;
        }
        if (u > high) {
            high = u;
            w.keys[1] = key;
        }
    }
    assert_true(low < 1.0 / V && 1 - high < 1.0 / V);
    for (int64_t r = 0; r < 2; r++)
        for (int64_t v = 0; v < V; v++)
            if (v < 520 || v == 600 || v > 1300)
                w.logits[r * V + v] = -INFINITY;
    run_sample(&w, dev, 1);
    assert_int_equal(w.ids[0], 520);
    assert_int_equal(w.ids[1], 1300);
    assert_true(fabs(w.logp[0] + log(780)) < 1e-5); /* 521 .. 1300 less 600, and 520: 780 equals */
    world_free(&w);
    device_close(dev);
}

/* What rounding leaves over: u = 1 - 9.7e-9, the largest of 10^8 draws, and rows whose f32 sum
 * exceeds the sum of their exponentials by more than that, which rounding makes of some; the last
 * tile and the end of the last possible one are impossible. The draw is possible all the same. */
static void rests_are_drawn_from_the_possible(void **state)
{
    (void)state;
    enum { N = 400, V = 1700, LAST = 1100 };
    Device *dev = open_device(ISA_AUTO, 1);
    World w = world_make(N, V, 1, 77);
    int n_rests = 0;
    for (int64_t r = 0; r < N; r++) {
        w.keys[r] = rng_key(3, RNG_TEST, 0, 0, 0, 381552);
        for (int64_t v = LAST + 1; v < V; v++)
            w.logits[r * V + v] = -INFINITY;
    }
    assert_true(1 - rng_uniform(&w.keys[0]) < 1e-8);
    run_sample(&w, dev, 1);
    for (int64_t r = 0; r < N; r++) {
        assert_true(isfinite(w.logp[r]));
        assert_true(w.ids[r] <= LAST && w.ids[r] > LAST - 5);
        n_rests += w.ids[r] == LAST;
    }
    assert_true(n_rests > N / 4);
    world_free(&w);
    device_close(dev);
}

static void greedy_takes_the_first_maximum(void **state)
{
    (void)state;
    Device *dev = open_device(ISA_AUTO, 2);
    World w = world_make(3, 700, 1, 41);
    w.logits[0 * 700 + 530] = w.logits[0 * 700 + 640] = 9; /* a tie across tiles' insides */
    w.logits[1 * 700 + 699] = 9;
    for (int64_t v = 0; v < 700; v++)
        w.logits[2 * 700 + v] = -2;
    run_sample(&w, dev, 0);
    assert_int_equal(w.ids[0], 530);
    assert_int_equal(w.ids[1], 699);
    assert_int_equal(w.ids[2], 0);
    float logp[3];
    memcpy(logp, w.logp, sizeof logp);
    run_logprob(&w, dev, 1); /* at temperature 1, of the drawn ids */
    assert_memory_equal(logp, w.logp, sizeof logp);
    world_free(&w);
    device_close(dev);
}

/* A diverged model gives NaN: the id stays in range and the log-probability says NaN. */
static void nan_stays_in_range(void **state)
{
    (void)state;
    Device *dev = open_device(ISA_AUTO, 1);
    World w = world_make(2, 600, 1, 51);
    for (int64_t v = 0; v < 600; v++)
        w.logits[v] = NAN;
    w.logits[600 + 77] = NAN;
    run_sample(&w, dev, 1);
    for (int r = 0; r < 2; r++) {
        assert_in_range(w.ids[r], 0, 599);
        assert_true(isnan(w.logp[r]));
    }
    world_free(&w);
    device_close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_by_hand),
        cmocka_unit_test(logprob_is_log_softmax),
        cmocka_unit_test(bodies_agree),
        cmocka_unit_test(draws_invert_the_cdf),
        cmocka_unit_test(frequencies_fit),
        cmocka_unit_test(ends_of_the_interval),
        cmocka_unit_test(rests_are_drawn_from_the_possible),
        cmocka_unit_test(greedy_takes_the_first_maximum),
        cmocka_unit_test(nan_stays_in_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
