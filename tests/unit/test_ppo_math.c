/* test_ppo_math.c - the formulas of a PPO iteration against values worked by hand. */
#include "ppo/ppo_math.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define NEAR(a, b, tol) assert_true(fabs((a) - (b)) <= (tol))

static void whitening_published_example(void **s)
{
    (void)s;
    double x[9] = {1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0};
    ppo_whiten(x, NULL, 9, false, NULL);
    const double want[6] = {0.0508, 0.4381, 0.8254, 2.3746, 2.7619, 3.1492};
    for (int i = 0; i < 3; i++) {
        NEAR(x[i], want[i], 5e-5);
        NEAR(x[6 + i], want[3 + i], 5e-5);
    }
}

static void whitening_uses_only_what_is_marked(void **s)
{
    (void)s;
    double x[4] = {1, 100, 3, -50}, mean;
    const bool use[4] = {true, false, true, false};
    /* mean 2, biased sd 1 */
    NEAR(ppo_whiten(x, use, 4, true, &mean), 1, 1e-12);
    NEAR(mean, 2, 1e-12);
    NEAR(x[0], -1, 1e-7);
    NEAR(x[2], 1, 1e-7);
    assert_true(x[1] == 100 && x[3] == -50);
}

static void the_switch_is_strictly_below(void **s)
{
    (void)s;
    double t = ppo_logit(0.15);
    NEAR(t, -1.7346010553881064, 1e-15);
    assert_int_equal(ppo_switch(t, false, 0.15, true), BRANCH_HELPFUL);
    assert_int_equal(ppo_switch(nextafter(t, -9), false, 0.15, true), BRANCH_UNSAFE);
    assert_int_equal(ppo_switch(5, true, 0.15, true), BRANCH_TAGGED);
    assert_int_equal(ppo_switch(-5, true, 0.15, false), BRANCH_HELPFUL);
}

static void unfinished_answers_get_the_lowest(void **s)
{
    (void)s;
    bool flat;
    double x[4] = {1, 3, 1000, 1};
    const bool done[4] = {true, true, false, true};
    /* finished: mean 5/3, biased sd sqrt(8/9): lowest whitened -0.7071 > -1, so -1 */
    ppo_shape_scores(x, done, 4, SCORES_WHITEN, 0, NULL, &flat);
    assert_false(flat);
    NEAR(x[1], (3 - 5.0 / 3) / sqrt(8.0 / 9), 1e-7);
    assert_true(x[2] == -1);
    double y[5] = {10, 10, 10, 0, 7};
    const bool all_but_last[5] = {true, true, true, true, false};
    ppo_shape_scores(y, all_but_last, 5, SCORES_WHITEN, 0, NULL, &flat);
    /* mean 7.5, sd 4.3301: lowest (0 - 7.5) / 4.3301 = -1.7321 */
    NEAR(y[4], -sqrt(3), 1e-7);
    NEAR(y[3], -sqrt(3), 1e-7);
}

static void equal_scores_leave_only_the_kl(void **s)
{
    (void)s;
    bool flat;
    double x[3] = {2, 2, -8};
    const bool done[3] = {true, true, false};
    ppo_shape_scores(x, done, 3, SCORES_WHITEN, 0, NULL, &flat);
    assert_true(flat && x[0] == 0 && x[1] == 0 && x[2] == 0);
}

static void rewards_and_gae_by_hand(void **s)
{
    (void)s;
    const float logp[3] = {-1, -2, -0.5f}, ref[3] = {-1.5f, -1, -0.5f}, v[3] = {0.5f, 0.25f, -1};
    double r[3], adv[3], ret[3];
    ppo_rewards(r, logp, ref, 3, 0.1, 2);
    NEAR(r[0], -0.05, 1e-15);
    NEAR(r[1], 0.1, 1e-15);
    NEAR(r[2], 2, 1e-15);
    ppo_gae(adv, ret, r, v, 3, 1.0, 0.95);
    /* delta2 = 2 + 1 = 3; delta1 = .1 - 1 - .25 = -1.15; delta0 = -.05 + .25 - .5 = -.3 */
    NEAR(adv[2], 3, 1e-12);
    NEAR(adv[1], -1.15 + 0.95 * 3, 1e-12);
    NEAR(adv[0], -0.3 + 0.95 * (-1.15 + 0.95 * 3), 1e-12);
    for (int t = 0; t < 3; t++)
        NEAR(ret[t], adv[t] + (double)v[t], 1e-15);
}

static void kl_estimators(void **s)
{
    (void)s;
    const float logp[2] = {-1, -2}, ref[2] = {-1.5f, -1};
    double k1, k3;
    ppo_kl(&k1, &k3, logp, ref, 2);
    NEAR(k1, 0.5 - 1, 1e-15);
    NEAR(k3, (exp(-0.5) - 1 + 0.5) + (exp(1) - 1 - 1), 1e-12);
    ppo_kl(&k1, &k3, logp, logp, 2);
    assert_true(k1 == 0 && k3 == 0);
}

static void explained_variance(void **s)
{
    (void)s;
    const double ret[4] = {1, 2, 3, 4};
    const float good[4] = {2, 3, 4, 5}, none[4] = {0, 0, 0, 0};
    NEAR(ppo_explained_variance(ret, good, 4), 1, 1e-12);
    NEAR(ppo_explained_variance(ret, none, 4), 0, 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whitening_published_example),
        cmocka_unit_test(whitening_uses_only_what_is_marked),
        cmocka_unit_test(the_switch_is_strictly_below),
        cmocka_unit_test(unfinished_answers_get_the_lowest),
        cmocka_unit_test(equal_scores_leave_only_the_kl),
        cmocka_unit_test(rewards_and_gae_by_hand),
        cmocka_unit_test(kl_estimators),
        cmocka_unit_test(explained_variance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
