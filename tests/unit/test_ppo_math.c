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

static void scores_are_cut_before_the_rule_for_unfinished_answers(void **s)
{
    (void)s;
    bool flat;
    double x[5] = {10, 10, 10, 0, 7};
    const bool done[5] = {true, true, true, true, false};
    /* mean 7.5, sd 4.3301: 0.5774 three times and -1.7321, cut to -1.2; unfinished: the lowest */
    ppo_shape_scores(x, done, 5, SCORES_WHITEN, 1.2, NULL, &flat);
    NEAR(x[0], 1 / sqrt(3), 1e-7);
    assert_true(x[3] == -1.2 && x[4] == -1.2);
    double y[3] = {5, -0.5, 9};
    const bool two[3] = {true, true, false};
    ppo_shape_scores(y, two, 3, SCORES_NONE, 2, NULL, &flat);
    assert_true(y[0] == 2 && y[1] == -0.5 && y[2] == -1);
}

static void running_scores_remember_every_batch(void **s)
{
    (void)s;
    ScoreMoments m = {0};
    bool flat;
    double first[3] = {1, 3, 50}, whitened[3] = {1, 3, 50}, second[3] = {5, -50, 7};
    const bool done[3] = {true, true, false}, ends[3] = {true, false, true};
    ppo_shape_scores(first, done, 3, SCORES_RUNNING, 0, &m, &flat);
    ppo_shape_scores(whitened, done, 3, SCORES_WHITEN, 0, NULL, &flat);
    for (int i = 0; i < 3; i++) /* the first batch is all there is */
        NEAR(first[i], whitened[i], 1e-12);
    ppo_shape_scores(second, ends, 3, SCORES_RUNNING, 0, &m, &flat);
    /* 1, 3, 5, 7: mean 4, variance 5 */
    NEAR(m.n, 4, 0);
    NEAR(m.mean, 4, 1e-12);
    NEAR(m.m2, 20, 1e-12);
    NEAR(second[0], 1 / sqrt(5), 1e-8);
    NEAR(second[2], 3 / sqrt(5), 1e-8);
    assert_true(second[1] == -1);
    double equal[2] = {8, 8};
    const bool all[2] = {true, true};
    ppo_shape_scores(equal, all, 2, SCORES_RUNNING, 0, &m, &flat);
    assert_true(flat && equal[0] == 0 && equal[1] == 0 && m.n == 6);
    ppo_shape_scores(equal, (const bool[2]){false, false}, 2, SCORES_RUNNING, 0, &m, &flat);
    assert_true(!flat && equal[0] == -1 && m.n == 6); /* nothing was added */
}

static void the_scale_of_a_model(void **s)
{
    (void)s;
    ScoreScale scale;
    const double x[4] = {1, 99, 3, 5};
    const bool use[4] = {true, false, true, true}, one[4] = {true}, none[4] = {false};
    /* 1, 3, 5: mean 3, biased variance 8 / 3 */
    assert_true(ppo_scale_estimate(&scale, x, use, 4));
    NEAR(scale.mean, 3, 1e-15);
    NEAR(scale.sd, sqrt(8.0 / 3), 1e-15);
    NEAR(ppo_scaled(&scale, 5), 2 / sqrt(8.0 / 3), 1e-15);
    const double equal[4] = {2, 2.00001, 2, 2};
    assert_false(ppo_scale_estimate(&scale, x, one, 4));
    assert_false(ppo_scale_estimate(&scale, x, none, 4));
    assert_false(ppo_scale_estimate(&scale, equal, NULL, 4));
    assert_true(scale.mean == 0 && scale.sd == 1);
    assert_true(ppo_scaled(&scale, -1.25) == -1.25);
}

/* Whatever the scale, an answer is on the same side of the threshold and of the mapped one. */
static void the_mapped_threshold_decides_alike(void **s)
{
    (void)s;
    const double thresholds[3] = {0.15, 0.5, 0.9};
    const ScoreScale scales[3] = {{0, 1}, {-3.7, 0.31}, {12.5, 4.1}};
    int unsafe = 0;
    for (int t = 0; t < 3; t++) {
        double limit = ppo_logit(thresholds[t]);
        for (int k = 0; k < 3; k++) {
            double mapped = ppo_scaled(&scales[k], limit);
            for (double x = -8; x <= 8; x += 0.0625 / 3) {
                bool below = ppo_switch(x, false, thresholds[t], true) == BRANCH_UNSAFE;
                assert_true(below == (ppo_scaled(&scales[k], x) < mapped));
                unsafe += below;
            }
            assert_false(ppo_scaled(&scales[k], limit) < mapped); /* at the threshold: not below */
        }
    }
    assert_true(unsafe > 100);
}

static void groups_by_hand(void **s)
{
    (void)s;
    const double r[6] = {1, 2, 6, -1, -1, -1};
    double adv[6];
    /* others of 1: (2 + 6) / 2 = 4; of 2: 3.5; of 6: 1.5 */
    ppo_group_advantages(adv, r, 6, 3, ADV_RLOO, true);
    NEAR(adv[0], -3, 1e-12);
    NEAR(adv[1], -1.5, 1e-12);
    NEAR(adv[2], 4.5, 1e-12);
    NEAR(adv[4], 0, 1e-12);
    /* mean 3, squares 4 + 1 + 9 = 14, 14 / 2 = 7 */
    ppo_group_advantages(adv, r, 6, 3, ADV_GRPO, true);
    NEAR(adv[0], -2 / (sqrt(7) + 1e-4), 1e-12);
    NEAR(adv[2], 3 / (sqrt(7) + 1e-4), 1e-12);
    assert_true(adv[3] == 0 && adv[5] == 0); /* equal answers teach nothing */
    ppo_group_advantages(adv, r, 6, 3, ADV_GRPO, false);
    NEAR(adv[0], -2, 1e-12);
    NEAR(adv[2], 3, 1e-12);
    ppo_group_advantages(adv, r, 6, 2, ADV_RLOO, false); /* pairs: (1, 2), (6, -1), (-1, -1) */
    NEAR(adv[2], 7, 1e-12);
    NEAR(adv[3], -7, 1e-12);
}

static void beta_follows_its_target(void **s)
{
    (void)s;
    /* 512 answers of a horizon of 10,000: at most 0.2 * 0.0512 = 1.024 % a time */
    NEAR(ppo_adapt_kl(0.1, 6, 6, 10000, 512), 0.1, 1e-15);
    NEAR(ppo_adapt_kl(0.1, 60, 6, 10000, 512), 0.1 * 1.01024, 1e-15);
    NEAR(ppo_adapt_kl(0.1, -3, 6, 10000, 512), 0.1 * 0.98976, 1e-15);
    NEAR(ppo_adapt_kl(0.1, 6.6, 6, 10000, 512), 0.1 * 1.00512, 1e-15);
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
        cmocka_unit_test(scores_are_cut_before_the_rule_for_unfinished_answers),
        cmocka_unit_test(running_scores_remember_every_batch),
        cmocka_unit_test(the_scale_of_a_model),
        cmocka_unit_test(the_mapped_threshold_decides_alike),
        cmocka_unit_test(groups_by_hand),
        cmocka_unit_test(beta_follows_its_target),
        cmocka_unit_test(kl_estimators),
        cmocka_unit_test(explained_variance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
