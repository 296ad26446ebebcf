/* test_bradley_terry.c - the ranking loss at its optimum: four free scores, every pair compared a known
 * number of times, op_rank_loss and op_adamw until they rest. The scores, which the loss knows up to a
 * constant, must be the Bradley-Terry maximum likelihood estimate, found here by Newton's method in
 * double; with a margin, the optimum of the shifted likelihood. */
#include "common/runtime/arena.h"
#include "common/runtime/device.h"
#include "common/runtime/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

enum { ITEMS = 4, PAIRS = ITEMS * (ITEMS - 1) };

/* wins[i][j]: how often i was chosen over j; every item wins and loses, so the estimate is finite */
static const int wins[ITEMS][ITEMS] = {{0, 7, 9, 12}, {3, 0, 6, 8}, {2, 5, 0, 7}, {1, 2, 4, 0}};

static void centre(double *x)
{
    double mean = 0;
    for (int i = 0; i < ITEMS; i++)
        mean += x[i] / ITEMS;
    for (int i = 0; i < ITEMS; i++)
        x[i] -= mean;
}

/* Solves H x = g by elimination; H is positive definite. */
static void solve(double H[ITEMS][ITEMS], double *g)
{
    for (int k = 0; k < ITEMS; k++)
        for (int i = k + 1; i < ITEMS; i++) {
            double f = H[i][k] / H[k][k];
            for (int j = k; j < ITEMS; j++)
                H[i][j] -= f * H[k][j];
            g[i] -= f * g[k];
        }
    for (int k = ITEMS - 1; k >= 0; k--) {
        for (int j = k + 1; j < ITEMS; j++)
            g[k] -= H[k][j] * g[j];
        g[k] /= H[k][k];
    }
}

/* Minimises sum wins[i][j] * -log sigmoid(s_i - s_j - margin). The loss does not feel a constant, so
 * H has the null vector (1, 1, 1, 1); adding the matrix of ones pins the sum at zero. */
static void newton(double *s, double margin)
{
    memset(s, 0, ITEMS * sizeof *s);
    for (int round = 0; round < 50; round++) {
        double g[ITEMS] = {0}, H[ITEMS][ITEMS];
        for (int i = 0; i < ITEMS; i++)
            for (int j = 0; j < ITEMS; j++)
                H[i][j] = 1;
        for (int i = 0; i < ITEMS; i++)
            for (int j = 0; j < ITEMS; j++) {
                double lost = 1 / (1 + exp(s[i] - s[j] - margin)), h = wins[i][j] * lost * (1 - lost);
                g[i] -= wins[i][j] * lost;
                g[j] += wins[i][j] * lost;
                H[i][i] += h;
                H[j][j] += h;
                H[i][j] -= h;
                H[j][i] -= h;
            }
        solve(H, g);
        for (int i = 0; i < ITEMS; i++)
            s[i] -= g[i];
    }
    centre(s);
}

/* The same by the program's own kernels, in float. */
static void train(double *s, double margin)
{
    Device *dev;
    Arena arena;
    Tensor score = {0}, m = {0}, v = {0}, grad = {0}, pair = {0}, dpair = {0}, shift = {0}, weight = {0},
           loss = {0};
    const int64_t n = ITEMS;
    assert_int_equal(device_open(&dev, &(DeviceOptions){.name = "cpu", .threads = 1}), 0);
    arena_init(&arena, dev, ARENA_DEVICE, "all");
    for (int pass = 0; pass < 2; pass++) {
        Tensor *const of_items[4] = {&score, &m, &v, &grad}, *const of_pairs[3] = {&shift, &weight, &loss};
        for (int i = 0; i < 4; i++)
            *of_items[i] = arena_tensor(&arena, DTYPE_F32, LAYOUT_ROWS, 1, &n);
        for (int i = 0; i < 3; i++)
            *of_pairs[i] = arena_rows1(&arena, DTYPE_F32, PAIRS);
        pair = arena_rows1(&arena, DTYPE_F32, 2 * PAIRS);
        dpair = arena_rows1(&arena, DTYPE_F32, 2 * PAIRS);
        if (pass == 0)
            assert_int_equal(arena_commit(&arena), 0);
    }
    float *x = score.data, *g = grad.data, *p = pair.data, *d = dpair.data;
    memset(x, 0, ITEMS * sizeof *x);
    memset(m.data, 0, ITEMS * sizeof *x);
    memset(v.data, 0, ITEMS * sizeof *x);
    int total = 0;
    for (int i = 0; i < ITEMS; i++)
        for (int j = 0; j < ITEMS; j++)
            total += wins[i][j];
    for (int step = 1; step <= 6000; step++) {
        int k = 0;
        for (int i = 0; i < ITEMS; i++)
            for (int j = 0; j < ITEMS; j++) {
                if (i == j)
                    continue;
                p[2 * k] = x[i];
                p[2 * k + 1] = x[j];
                ((float *)shift.data)[k] = (float)margin;
                ((float *)weight.data)[k++] = (float)wins[i][j] / (float)total;
            }
        memset(d, 0, 2 * PAIRS * sizeof *d);
        op_rank_loss(&loss, &dpair, &pair, &shift, &weight);
        device_sync(dev);
        memset(g, 0, ITEMS * sizeof *g);
        k = 0;
        for (int i = 0; i < ITEMS; i++)
            for (int j = 0; j < ITEMS; j++)
                if (i != j) {
                    g[i] += d[2 * k];
                    g[j] += d[2 * k++ + 1];
                }
        op_adamw(&score, &m, &v, NULL, &grad,
                 (AdamwArgs){.lr = 1e-2 * pow(0.999, step), .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-5,
                             .grad_scale = 1, .step = step});
        device_sync(dev);
    }
    for (int i = 0; i < ITEMS; i++)
        s[i] = x[i];
    centre(s);
    arena_free(&arena);
    device_close(dev);
}

static void near_each_other(const double *got, const double *want)
{
    for (int i = 0; i < ITEMS; i++) {
        print_message("score %d: %.6f, maximum likelihood %.6f\n", i, got[i], want[i]);
        assert_true(fabs(got[i] - want[i]) < 1e-3);
    }
}

static void scores_are_the_maximum_likelihood(void **state)
{
    (void)state;
    double want[ITEMS], got[ITEMS];
    newton(want, 0);
    /* the defining property: expected wins are the counted wins */
    for (int i = 0; i < ITEMS; i++) {
        double expected = 0, counted = 0;
        for (int j = 0; j < ITEMS; j++) {
            expected += i == j ? 0 : (wins[i][j] + wins[j][i]) / (1 + exp(want[j] - want[i]));
            counted += wins[i][j];
        }
        assert_true(fabs(expected - counted) < 1e-9);
    }
    train(got, 0);
    near_each_other(got, want);
    assert_true(want[0] - want[3] > 1);
}

static void margin_shifts_the_optimum(void **state)
{
    (void)state;
    double plain[ITEMS], want[ITEMS], got[ITEMS];
    newton(plain, 0);
    newton(want, 1);
    train(got, 1);
    near_each_other(got, want);
    /* a chosen answer must lead by the margin as well: best and worst move apart */
    assert_true(want[0] - want[3] > plain[0] - plain[3] + 0.1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_the_maximum_likelihood),
        cmocka_unit_test(margin_shifts_the_optimum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
