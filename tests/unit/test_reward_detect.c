/* test_reward_detect.c - measures of "unsafe" worked by hand; prompts, not answers, are what the bootstrap
 * draws; what a term of the prompt in the score does to them. */
#include "reward/reward_detect.h"
#include "reward/reward_eval.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#define NEAR(a, b) assert_true(fabs((a) - (b)) <= 1e-12)

enum { PROMPTS = 60 };

/* A pair (or one labelled answer) to a prompt of the single token *id. */
static PairItem item(int32_t *id, int n_seqs, SafetyLabel first, SafetyLabel second)
{
    return (PairItem){.seq = {{.ids = id, .n = 1, .n_prompt = 1}}, .n_seqs = n_seqs, .label = {first, second}};
}

/* By score: -3 unsafe, -1 unsafe, -1 safe, 0.5 unsafe, 2 safe, 3 safe; one answer without a label. */
static void by_hand(void **state)
{
    (void)state;
    int32_t id[4] = {1, 2, 3, 4};
    PairItem items[4] = {item(&id[0], 2, SAFETY_SAFE, SAFETY_UNSAFE), item(&id[1], 2, SAFETY_SAFE, SAFETY_UNSAFE),
                         item(&id[2], 2, SAFETY_UNSAFE, SAFETY_SAFE), item(&id[3], 1, SAFETY_UNKNOWN, SAFETY_UNSAFE)};
    const float score[4][2] = {{-1, -3}, {2, 0.5f}, {-1, 3}, {-9, -9}};
    PairSet set = {.at = items, .n = 4};
    Detect d;
    detect_make(&d, &set, score, 0.75);
    assert_true(d.n == 6 && d.n_unsafe == 3 && d.n_prompts == 3);
    /* of 9 (unsafe, safe) couples: -3 below all 3; -1 below 2, one tie; 0.5 below 2 */
    NEAR(d.at[DETECT_AUC].value, 7.5 / 9);
    /* precision 1, 2/3 (the tie comes as one), 3/4 where a third of the recall is gained each time */
    NEAR(d.at[DETECT_AVERAGE_PRECISION].value, (1 + 2.0 / 3 + 3.0 / 4) / 3);
    NEAR(d.at[DETECT_RECALL_AT].value, 1);
    NEAR(d.threshold, 1.25); /* between 0.5 and 2 */
    NEAR(d.at[DETECT_PRECISION_50].value, 2.0 / 3);
    NEAR(d.at[DETECT_RECALL_50].value, 2.0 / 3);
    NEAR(d.at[DETECT_F1_50].value, 2.0 / 3);
    NEAR(d.at[DETECT_BALANCED_50].value, 2.0 / 3);
    /* -3 alone is below -1.7346: 2 * 1 / (1 + 3); (1/3 + 3/3) / 2 */
    NEAR(d.at[DETECT_PRECISION_15].value, 1);
    NEAR(d.at[DETECT_RECALL_15].value, 1.0 / 3);
    NEAR(d.at[DETECT_F1_15].value, 0.5);
    NEAR(d.at[DETECT_BALANCED_15].value, 2.0 / 3);

    detect_make(&d, &set, score, 0.76); /* 3 of 4 is not enough any more: -3 alone */
    NEAR(d.at[DETECT_RECALL_AT].value, 1.0 / 3);
    NEAR(d.threshold, -2);
    const float reversed[4][2] = {{-1, 9}, {2, 8}, {7, -3}, {0, 0}};
    detect_make(&d, &set, reversed, 0.76); /* no threshold: the lowest are safe */
    assert_true(d.at[DETECT_RECALL_AT].value == 0 && isnan(d.threshold));
}

static void one_class_has_no_measure(void **state)
{
    (void)state;
    int32_t id = 1;
    PairItem one = item(&id, 2, SAFETY_SAFE, SAFETY_SAFE);
    const float score[1][2] = {{1, 2}};
    PairSet set = {.at = &one, .n = 1}, none = {0};
    Detect d;
    Str text = {0};
    detect_make(&d, &set, score, 0.9);
    assert_true(d.n == 2 && isnan(d.at[DETECT_AUC].value) && isnan(d.at[DETECT_F1_50].value));
    detect_make(&d, &none, score, 0.9);
    detect_print(&d, &text);
    assert_true(d.n == 0 && text.n == 0);
}

/* A safe and an unsafe answer to each prompt, scores 2 apart around 0 with a wobble; `shift` times a term of the
 * prompt on top. */
static void make_world(int32_t *id, PairItem *items, float (*plain)[2], float (*moved)[2], float shift)
{
    for (int i = 0; i < PROMPTS; i++) {
        float wobble = .8f * (float)((i * 37) % 11 - 5) / 5, term = shift * (float)((i * 29) % 13 - 6) / 6;
        id[i] = i + 1;
        items[i] = item(&id[i], 2, SAFETY_SAFE, SAFETY_UNSAFE);
        plain[i][0] = 1 + wobble * .9f;
        plain[i][1] = -1 + wobble;
        moved[i][0] = plain[i][0] + term;
        moved[i][1] = plain[i][1] + term;
    }
}

/* What ranking cannot see: accuracy within prompts stays, everything across prompts falls. */
static void a_term_of_the_prompt(void **state)
{
    (void)state;
    int32_t id[PROMPTS];
    PairItem items[PROMPTS];
    float plain[PROMPTS][2], moved[PROMPTS][2];
    make_world(id, items, plain, moved, 4);
    PairSet set = {.at = items, .n = PROMPTS};
    EvalTable a, b;
    eval_table(&a, &set, (const float(*)[2])plain, EVAL_MODEL, 0.9);
    eval_table(&b, &set, (const float(*)[2])moved, EVAL_MODEL, 0.9);
    assert_int_equal(a.all.right, PROMPTS);
    assert_int_equal(b.all.right, PROMPTS);
    DetectComparison c;
    detect_compare(&c, &set, (const float(*)[2])moved, (const float(*)[2])plain, 0.9);
    NEAR(c.difference[DETECT_AUC].value, c.model.at[DETECT_AUC].value - c.other.at[DETECT_AUC].value);
    assert_true(c.difference[DETECT_AUC].high < 0 && c.difference[DETECT_F1_50].high < 0);
    assert_true(c.recall_difference_at_same.high < 0);
    NEAR(c.recall_difference_at_same.value, c.recall_at_same.value - c.other.at[DETECT_RECALL_50].value);
    assert_true(c.other.at[DETECT_AUC].value == a.detect.at[DETECT_AUC].value);
}

/* The draws are shared: a model differs from itself by nothing in any of them, although its own interval is wide. */
static void differences_are_paired(void **state)
{
    (void)state;
    int32_t id[PROMPTS];
    PairItem items[PROMPTS];
    float plain[PROMPTS][2], moved[PROMPTS][2];
    make_world(id, items, plain, moved, 3);
    PairSet set = {.at = items, .n = PROMPTS};
    DetectComparison c;
    detect_compare(&c, &set, (const float(*)[2])moved, (const float(*)[2])moved, 0.9);
    assert_true(c.model.at[DETECT_F1_50].high - c.model.at[DETECT_F1_50].low > .02);
    for (int m = 0; m < DETECT_COUNT; m++)
        assert_true(c.difference[m].value == 0 && c.difference[m].low == 0 && c.difference[m].high == 0);
    assert_true(c.recall_difference_at_same.low >= 0); /* its own threshold is among those tried */
}

/* Every pair four times is no more evidence: the same prompts, the same draws, the same interval. */
static void prompts_are_drawn_not_answers(void **state)
{
    (void)state;
    int32_t id[PROMPTS];
    PairItem items[4 * PROMPTS];
    float plain[PROMPTS][2], moved[4 * PROMPTS][2];
    make_world(id, items, plain, moved, 3);
    PairSet set = {.at = items, .n = PROMPTS};
    Detect once, often;
    detect_make(&once, &set, (const float(*)[2])moved, 0.9);
    for (int i = PROMPTS; i < 4 * PROMPTS; i++) {
        items[i] = items[i - PROMPTS];
        memcpy(moved[i], moved[i - PROMPTS], sizeof moved[i]);
    }
    set.n = 4 * PROMPTS;
    detect_make(&often, &set, (const float(*)[2])moved, 0.9);
    assert_true(often.n == 4 * once.n && often.n_prompts == once.n_prompts);
    for (int m = 0; m < DETECT_COUNT; m++) {
        NEAR(often.at[m].value, once.at[m].value);
        NEAR(often.at[m].low, once.at[m].low);
        NEAR(often.at[m].high, once.at[m].high);
    }
    assert_true(once.at[DETECT_AUC].low < once.at[DETECT_AUC].value);
}

/* A bootstrap of 0 of 20 gives 0 in every draw, which is no certainty. */
static void a_share_of_none_or_all(void **state)
{
    (void)state;
    int32_t id[20];
    PairItem items[20];
    float score[20][2];
    for (int i = 0; i < 20; i++) {
        id[i] = i;
        items[i] = item(&id[i], 2, SAFETY_SAFE, SAFETY_UNSAFE);
        score[i][0] = 3;
        score[i][1] = i < 5 ? -3 : -1; /* all below 0.5, a quarter of them below 0.15 */
    }
    PairSet set = {.at = items, .n = 20};
    Detect d;
    detect_make(&d, &set, (const float(*)[2])score, 0.9);
    Interval all = interval_wilson(20, 20), few = interval_wilson(5, 5);
    assert_true(d.at[DETECT_RECALL_50].value == 1 && d.at[DETECT_RECALL_50].low == all.low);
    assert_true(d.at[DETECT_PRECISION_50].low == all.low && d.at[DETECT_RECALL_AT].low == all.low);
    assert_true(d.at[DETECT_PRECISION_15].value == 1 && d.at[DETECT_PRECISION_15].low == few.low);
    assert_true(d.at[DETECT_RECALL_15].value == .25 && d.at[DETECT_RECALL_15].low > 0); /* the bootstrap's */
    for (int i = 0; i < 20; i++)
        score[i][1] = 2;
    detect_make(&d, &set, (const float(*)[2])score, 0.9);
    assert_true(d.at[DETECT_RECALL_50].value == 0 && d.at[DETECT_RECALL_50].high == interval_wilson(0, 20).high);
    assert_true(isnan(d.at[DETECT_PRECISION_50].value) && isnan(d.at[DETECT_PRECISION_50].high));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_hand),
        cmocka_unit_test(one_class_has_no_measure),
        cmocka_unit_test(a_term_of_the_prompt),
        cmocka_unit_test(differences_are_paired),
        cmocka_unit_test(prompts_are_drawn_not_answers),
        cmocka_unit_test(a_share_of_none_or_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
