/* test_reward_judge.c - what is asked, and what the answers to both orders say: verdicts, agreement, liking for a
 * place, all worked by hand. */
#include "reward/reward_judge.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#define NEAR(a, b) assert_true(fabs((a) - (b)) <= 1e-6)

static void the_question(void **state)
{
    (void)state;
    Message lone = {ROLE_USER, "why?", 4};
    Message talk[] = {{ROLE_SYSTEM, "be kind", 7}, {ROLE_USER, "hi", 2}, {ROLE_ASSISTANT, "ho", 2}, {ROLE_USER, "{a}", 3}};
    Record r = {.kind = RECORD_PAIR, .messages = &lone, .n_messages = 1, .text = {"good {b}", "bad"}};
    Str out = {0};
    judge_question(&out, "{prompt} A={a} B={b} {c", &r, false);
    assert_string_equal(str_get(&out), "why? A=good {b} B=bad {c"); /* what stands in an answer is no placeholder */
    str_clear(&out);
    judge_question(&out, "{b}|{a}|{a}", &r, true);
    assert_string_equal(str_get(&out), "good {b}|bad|bad");
    r.messages = talk;
    r.n_messages = 4;
    str_clear(&out);
    judge_question(&out, "{prompt}", &r, false);
    assert_string_equal(str_get(&out), "System: be kind\n\nUser: hi\n\nAssistant: ho\n\nUser: {a}");
    str_free(&out);
}

static float ln(double p)
{
    return (float)log(p);
}

/* p(A), p(B) with the chosen answer first, then second. */
static JudgeAnswer answer(double a0, double b0, double a1, double b1)
{
    return (JudgeAnswer){{{ln(a0), ln(b0)}, {ln(a1), ln(b1)}}};
}

static void both_orders(void **state)
{
    (void)state;
    int32_t id[5] = {1, 2, 3, 4, 5};
    PairItem items[5];
    for (int i = 0; i < 5; i++)
        items[i] = (PairItem){.seq = {{.ids = &id[i], .n = 1, .n_prompt = 1}}, .n_seqs = 2, .strength = STRENGTH_UNKNOWN};
    const JudgeAnswer a[5] = {
        answer(.8, .2, .3, .6),  /* chosen in both orders: log 4, log 2 */
        answer(.8, .1, .6, .3),  /* says A twice: log 8 for the chosen, log 2 against */
        answer(.2, .4, .5, .25), /* rejected in both: log 2 against, log 2 against */
        answer(.4, .4, .1, .1),  /* cannot tell: two ties */
        {{{NAN, NAN}, {NAN, NAN}}},
    };
    PairSet set = {.at = items, .n = 5};
    JudgeStats s = {.n_long = 7};
    float score[5][2];
    judge_stats(&s, &set, a);
    assert_int_equal(s.n_long, 7);
    assert_true(s.both.n == 4 && s.both.right == 2 && s.both.tied == 1); /* pair 1: log 8 - log 2 > 0 */
    assert_true(s.order[0].n == 4 && s.order[0].right == 2 && s.order[0].tied == 1);
    assert_true(s.order[1].n == 4 && s.order[1].right == 1 && s.order[1].tied == 1);
    assert_true(s.agreement.value == 0.75);
    /* A of two answers: 1/2, 2/2, 1/2 (B, then A), 1/2 */
    assert_true(s.says_first.value == (.5 + 1 + .5 + .5) / 4);
    /* (log 4 - log 2) / 2, (log 8 + log 2) / 2, 0, 0 */
    NEAR(s.liking.value, (.5 * log(2) + 2 * log(2)) / 4);
    NEAR(s.mass.value, (.95 + .9 + .675 + .5) / 4);
    assert_true(s.agreement.low < 0.75 && s.agreement.high > 0.75 && s.mass.low < s.mass.high);

    judge_scores(a, 5, score);
    NEAR(score[0][0], .5 * log(8));
    NEAR(score[1][0], log(2));
    NEAR(score[2][0], -log(2));
    assert_true(score[3][0] == 0 && isnan(score[4][0]) && score[0][1] == 0);
    EvalTable t;
    eval_table(&t, &set, (const float(*)[2])score, EVAL_JUDGE, 0.9);
    assert_true(t.all.n == 4 && t.all.right == s.both.right && t.all.tied == s.both.tied);
}

/* Swapping chosen and rejected swaps the orders: everything about places stays, accuracies turn round. */
static void a_swap_is_a_mirror(void **state)
{
    (void)state;
    int32_t id[3] = {1, 2, 3};
    PairItem items[3];
    JudgeAnswer a[3] = {answer(.8, .2, .3, .6), answer(.8, .1, .6, .3), answer(.2, .4, .5, .25)}, b[3];
    for (int i = 0; i < 3; i++) {
        items[i] = (PairItem){.seq = {{.ids = &id[i], .n = 1, .n_prompt = 1}}, .n_seqs = 2};
        memcpy(b[i].logp[0], a[i].logp[1], sizeof a[i].logp[1]);
        memcpy(b[i].logp[1], a[i].logp[0], sizeof a[i].logp[0]);
    }
    PairSet set = {.at = items, .n = 3};
    JudgeStats s = {0}, m = {0};
    judge_stats(&s, &set, a);
    judge_stats(&m, &set, b);
    assert_true(m.both.right == 3 - s.both.right && m.order[0].right == 3 - s.order[1].right);
    assert_true(m.agreement.value == s.agreement.value && m.says_first.value == s.says_first.value);
    assert_true(m.says_first.low == s.says_first.low && m.says_first.high == s.says_first.high);
    NEAR(m.liking.value, s.liking.value);
}

/* Always A: no draw of the bootstrap shows anything else, and yet three prompts are little evidence. */
static void always_the_first(void **state)
{
    (void)state;
    int32_t id[3] = {1, 2, 3};
    PairItem items[3];
    JudgeAnswer a[3];
    for (int i = 0; i < 3; i++) {
        items[i] = (PairItem){.seq = {{.ids = &id[i], .n = 1, .n_prompt = 1}}, .n_seqs = 2};
        a[i] = answer(.9, .1, .7 + .01 * i, .3);
    }
    PairSet set = {.at = items, .n = 3};
    JudgeStats s = {0};
    judge_stats(&s, &set, a);
    assert_true(s.says_first.value == 1 && s.says_first.low == interval_wilson(3, 3).low);
    assert_true(s.agreement.value == 0 && s.agreement.high == interval_wilson(0, 3).high);
}

static void nothing_asked(void **state)
{
    (void)state;
    PairSet none = {0};
    JudgeStats s = {0};
    Str text = {0};
    JsonWriter w;
    judge_stats(&s, &none, NULL);
    assert_true(s.both.n == 0 && isnan(s.agreement.value) && isnan(accuracy_of(s.both)));
    jw_init(&w, &text, false);
    judge_json(&s, "none", &w);
    assert_non_null(strstr(str_get(&text), "\"set\": \"none\""));
    str_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_question),
        cmocka_unit_test(both_orders),
        cmocka_unit_test(a_swap_is_a_mirror),
        cmocka_unit_test(always_the_first),
        cmocka_unit_test(nothing_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
