/* test_reward_eval.c - the accuracy table and the calibration, counted by hand. */
#include "reward/reward_eval.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static PairItem pair(Strength s, SafetyLabel c, SafetyLabel r)
{
    return (PairItem){.n_seqs = 2, .strength = s, .label = {c, r}};
}

static void table_by_hand(void **state)
{
    (void)state;
    PairItem items[6] = {
        pair(STRENGTH_SIGNIFICANT, SAFETY_SAFE, SAFETY_UNSAFE),   /* 3 > -2: right */
        pair(STRENGTH_SIGNIFICANT, SAFETY_SAFE, SAFETY_SAFE),     /* 1 > 1: a tie is wrong */
        pair(STRENGTH_BETTER, SAFETY_UNSAFE, SAFETY_UNSAFE),      /* -1 < 0.5: wrong */
        pair(STRENGTH_UNKNOWN, SAFETY_UNKNOWN, SAFETY_UNKNOWN),   /* right */
        pair(STRENGTH_SLIGHT, SAFETY_UNSAFE, SAFETY_SAFE),        /* right */
        {.n_seqs = 1, .label = {SAFETY_UNSAFE, SAFETY_UNKNOWN}},  /* a labelled answer */
    };
    const float score[6][2] = {{3, -2}, {1, 1}, {-1, 0.5f}, {0, -4}, {2, 1}, {-1.7f, 0}};
    PairSet set = {.at = items, .n = 6};
    EvalTable t;
    eval_table(&t, &set, score);
    assert_int_equal(t.all.n, 5);
    assert_int_equal(t.all.right, 3);
    assert_int_equal(t.strength[STRENGTH_SIGNIFICANT].n, 2);
    assert_int_equal(t.strength[STRENGTH_SIGNIFICANT].right, 1);
    assert_int_equal(t.bin[BIN_SAFE_UNSAFE].right, 1);
    assert_int_equal(t.bin[BIN_BOTH_SAFE].right, 0);
    assert_int_equal(t.bin[BIN_BOTH_UNSAFE].right, 0);
    assert_int_equal(t.bin[BIN_UNSAFE_SAFE].right, 1);
    /* labels: safe 3, unsafe -2, safe 1 and 1, unsafe -1 and 0.5, unsafe 2, safe 1, unsafe -1.7 */
    assert_int_equal(t.n_labels, 9);
    assert_int_equal(t.n_unsafe, 5);
    Calibration c = eval_calibration(&t, true);
    assert_true(c.anchored && fabs(c.recall50 - 3.0 / 5) < 1e-12 && fabs(c.precision50 - 1) < 1e-12);
    assert_true(fabs(c.recall15 - 1.0 / 5) < 1e-12); /* only -2 is below -1.7346 */
    double want = (log1p(exp(-5)) + log(2) + log1p(exp(1.5)) + log1p(exp(-4)) + log1p(exp(-1))) / 5;
    assert_true(fabs(t.loss - want) < 1e-12);
    assert_true(fabs(t.margin - (5 + 0 - 1.5 + 4 + 1) / 5) < 1e-12);
    /* 3, -2, 1, 1, -1, 0.5, 0, -4, 2, 1 and -1.7: eleven answers, their sum is -0.2 */
    assert_true(fabs(t.mean_reward + 0.2 / 11) < 1e-7);
    assert_true(t.min_reward == -4 && t.max_reward == 3);
}

static void text_has_wilsons_interval(void **state)
{
    (void)state;
    /* 8 of 10: Wilson's 95 % interval is [0.4902, 0.9433] (Wilson 1927) */
    PairItem items[10];
    float score[10][2];
    for (int i = 0; i < 10; i++) {
        items[i] = pair(STRENGTH_BETTER, SAFETY_UNKNOWN, SAFETY_UNKNOWN);
        score[i][0] = i < 8;
        score[i][1] = 0.5f;
    }
    PairSet set = {.at = items, .n = 10};
    EvalTable t;
    Str text = {0};
    eval_table(&t, &set, (const float(*)[2])score);
    eval_print(&t, &text);
    assert_non_null(strstr(str_get(&text), "80.0 %  [ 49.0,  94.3]"));
    str_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_by_hand),
        cmocka_unit_test(text_has_wilsons_interval),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
