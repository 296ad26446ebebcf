/* test_reward_eval.c - the accuracy table, the calibration, length and paired differences, counted by hand. */
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
    eval_table(&t, &set, score, EVAL_MODEL, 0.9);
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
    assert_true(t.difference[STRENGTH_SIGNIFICANT].value == 2.5 && t.difference[STRENGTH_BETTER].value == -1.5);
    assert_true(isnan(t.difference[STRENGTH_NEGLIGIBLE].value));
    /* 3, -2, 1, 1, -1, 0.5, 0, -4, 2, 1 and -1.7: eleven answers, their sum is -0.2 */
    assert_true(fabs(t.mean_reward + 0.2 / 11) < 1e-7);
    assert_true(t.min_reward == -4 && t.max_reward == 3);
    EvalTable quick;
    eval_counts(&quick, &set, score, EVAL_MODEL);
    assert_memory_equal(&quick.all, &t.all, sizeof t.all);
    assert_true(quick.loss == t.loss && quick.margin == t.margin && quick.hit50 == t.hit50 && quick.pairs.n == 0);
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
    eval_table(&t, &set, (const float(*)[2])score, EVAL_MODEL, 0.9);
    eval_print(&t, &text);
    assert_non_null(strstr(str_get(&text), "80.0 %  [ 49.0,  94.3]"));
    str_free(&text);
}

/* Answers of 5 and 3, 2 and 6, 4 and 4 tokens, to prompts of one token. */
static void by_length(PairItem items[3], int32_t id[3])
{
    static const int tokens[3][2] = {{5, 3}, {2, 6}, {4, 4}};
    for (int i = 0; i < 3; i++) {
        id[i] = i;
        items[i] = pair(STRENGTH_UNKNOWN, SAFETY_UNKNOWN, SAFETY_UNKNOWN);
        for (int q = 0; q < 2; q++)
            items[i].seq[q] = (Example){.ids = &id[i], .n_prompt = 1, .n = 1 + tokens[i][q]};
    }
}

static void length_prefers_the_longer_answer(void **state)
{
    (void)state;
    int32_t id[3];
    PairItem items[3];
    float score[3][2];
    by_length(items, id);
    PairSet set = {.at = items, .n = 3};
    EvalTable t;
    eval_length(&set, score);
    assert_true(score[0][0] == 5 && score[0][1] == 3 && score[1][1] == 6 && score[2][0] == score[2][1]);
    eval_table(&t, &set, (const float(*)[2])score, EVAL_LENGTH, 0.9);
    assert_true(t.all.n == 3 && t.all.right == 1 && t.all.tied == 1); /* right, wrong, half */
    assert_true(accuracy_of(t.all) == 0.5);
    assert_true(t.chosen_longer.n == 1 && t.chosen_longer.right == 1);
    assert_true(t.chosen_shorter.n == 1 && t.chosen_shorter.right == 0);
    assert_true(t.pairs.n == 0 && t.labels.n == 0 && t.n_labels == 0); /* a length is no probability */
    eval_table(&t, &set, (const float(*)[2])score, EVAL_MODEL, 0.9);
    assert_true(t.all.right == 1 && t.all.tied == 0); /* of a model, the tie is wrong */
}

/* A judge looks at some pairs only; what it has not looked at is neither right nor wrong. */
static void a_judge_on_part_of_the_pairs(void **state)
{
    (void)state;
    int32_t id[3];
    PairItem items[3];
    const float judge[3][2] = {{2, 0}, {NAN, 0}, {0, 0}}, model[3][2] = {{0, 1}, {0, 1}, {1, 1}};
    by_length(items, id);
    PairSet set = {.at = items, .n = 3};
    EvalTable t;
    eval_table(&t, &set, judge, EVAL_JUDGE, 0.9);
    assert_true(t.all.n == 2 && t.all.right == 1 && t.all.tied == 1);
    /* confidence sigmoid(2) right; sigmoid(0), half a hit and half a miss */
    assert_true(t.pairs.n == 2 && t.n_labels == 0 && isnan(t.min_reward));
    assert_true(fabs(t.loss - (log1p(exp(-2)) + log(2)) / 2) < 1e-12);
    /* on pairs 0 and 2: 1 - 0 and 0.5 - 0 */
    Interval v = eval_difference(&set, judge, EVAL_JUDGE, model, EVAL_MODEL);
    assert_true(v.value == 0.75 && v.low >= 0.5 && v.high <= 1);
    v = eval_difference(&set, model, EVAL_MODEL, judge, EVAL_JUDGE);
    assert_true(v.value == -0.75);
    v = eval_difference(&set, model, EVAL_MODEL, model, EVAL_MODEL);
    assert_true(v.value == 0 && v.low == 0 && v.high == 0);
}

static void nothing_to_measure(void **state)
{
    (void)state;
    PairSet none = {0};
    EvalTable t;
    Str text = {0};
    JsonWriter w;
    eval_table(&t, &none, NULL, EVAL_MODEL, 0.9);
    assert_true(isnan(accuracy_of(t.all)) && isnan(t.loss) && isnan(accuracy_interval(t.all).low));
    assert_true(isnan(t.pairs.error.value) && isnan(t.labels.brier.value));
    jw_init(&w, &text, false);
    eval_json(&t, &w);
    Json *j = NULL;
    assert_int_equal(json_parse(&j, str_get(&text), text.n, "text", 1), 0);
    assert_int_equal(json_kind(json_get(json_get(j, "all"), "accuracy")), JSON_NIL);
    json_free(j);
    str_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_by_hand),
        cmocka_unit_test(text_has_wilsons_interval),
        cmocka_unit_test(length_prefers_the_longer_answer),
        cmocka_unit_test(a_judge_on_part_of_the_pairs),
        cmocka_unit_test(nothing_to_measure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
