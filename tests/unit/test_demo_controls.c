/* test_demo_controls.c - every rule of `rlhf-demo controls` passes on what it asks for and fails on the least that
 * is not enough. */
#include "rlhf/demo/controls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

enum { SHUFFLED, RANDOM, SWITCH, BETA0, RECALL, F1 };

#define I(low, high) "{\"value\": " low ", \"low\": " low ", \"high\": " high "}"

static const char whole_text[] = "{\"versions\": {\"rs\": {\"gold\": " I("0.7", "0.75") "}, \"ppo\": {\"violations\": " I("0.02", "0.05") "}}}";

static Json *parse(const char *text)
{
    Json *j = NULL;
    assert_int_equal(json_parse(&j, text, strlen(text), "text", 1), 0);
    return j;
}

/* The verdict of one rule, given the demo.json of its control and the comparisons of two seeds. */
static bool verdict(int rule, const char *demo_text, const char *seed1, const char *seed2)
{
    Json *whole = parse(whole_text), *demo = parse(demo_text), *compare[2] = {parse(seed1), parse(seed2)};
    const Json *demos[CONTROL_DEMOS] = {demo, demo, demo, demo};
    Rule rules[CONTROL_RULES];
    controls_rules(rules, whole, demos, (const Json *const *)compare, 2);
    json_free(whole);
    json_free(demo);
    json_free(compare[0]);
    json_free(compare[1]);
    return rules[rule].pass;
}

static bool demo_verdict(int rule, const char *text)
{
    return verdict(rule, text, "{}", "{}");
}

#define GAIN(rs, ppo) "{\"differences\": {\"rs_sft\": {\"gold\": " rs "}, \"ppo_sft\": {\"gold\": " ppo "}}}"
#define GOODHART(score, gold) "{\"differences\": {\"ppo_rs\": {\"reward_helpful\": " score ", \"gold\": " gold "}}}"

static void rules_of_the_rounds(void **state)
{
    (void)state;
    assert_true(demo_verdict(SHUFFLED, GAIN(I("-0.1", "0.1"), I("0", "0.1"))));
    assert_false(demo_verdict(SHUFFLED, GAIN(I("0.01", "0.1"), I("-0.1", "0.1"))));
    assert_false(demo_verdict(SHUFFLED, GAIN(I("-0.1", "0.1"), I("0.01", "0.1"))));
    /* the whole run has gold 0.7 to 0.75 after RS, violations 2 to 5 % after PPO */
    assert_true(demo_verdict(RANDOM, "{\"versions\": {\"rs\": {\"gold\": " I("0.6", "0.69") "}}}"));
    assert_false(demo_verdict(RANDOM, "{\"versions\": {\"rs\": {\"gold\": " I("0.6", "0.7") "}}}"));
    assert_true(demo_verdict(SWITCH, "{\"versions\": {\"ppo\": {\"violations\": " I("0.06", "0.9") "}}}"));
    assert_false(demo_verdict(SWITCH, "{\"versions\": {\"ppo\": {\"violations\": " I("0.05", "0.9") "}}}"));
    assert_true(demo_verdict(BETA0, GOODHART(I("0.1", "1"), I("-0.2", "-0.1"))));
    assert_false(demo_verdict(BETA0, GOODHART(I("-0.1", "1"), I("-0.2", "-0.1"))));
    assert_false(demo_verdict(BETA0, GOODHART(I("0.1", "1"), I("-0.2", "0"))));
}

static void a_missing_number_fails(void **state)
{
    (void)state;
    for (int rule = 0; rule < CONTROL_RULES; rule++)
        assert_false(demo_verdict(rule, "{}"));
}

#define COMPARE(recall, f1) "{\"detect\": {\"recall_50\": " I("0.94", "1") "}, \"compare\": {\"detect\": {\"recall_50\": " \
        I("0.95", "1") "}, \"difference\": {\"recall_at_same_precision\": " recall ", \"f1_50\": " f1 "}}}"

/* Means of (v1, v2): high of the mean is mean + sqrt(d1^2 + d2^2) / 2, d the distances to the upper bounds. */
static void rules_over_seeds(void **state)
{
    (void)state;
    const char *sure = COMPARE(I("-0.3", "-0.2"), I("-0.2", "-0.1")), *unsure = COMPARE(I("-0.1", "0.2"), I("-0.01", "0.1"));
    assert_true(verdict(RECALL, "{}", sure, sure) && verdict(F1, "{}", sure, sure));
    /* recall -0.2 + sqrt(0.1^2 + 0.3^2) / 2 = -0.042; F1 -0.105 + sqrt(0.1^2 + 0.11^2) / 2 = -0.031 */
    assert_true(verdict(RECALL, "{}", sure, unsure) && verdict(F1, "{}", sure, unsure));
    /* -0.1 + sqrt(2 * 0.3^2) / 2 = +0.112; -0.01 + sqrt(2 * 0.11^2) / 2 = +0.068 */
    assert_false(verdict(RECALL, "{}", unsure, unsure) || verdict(F1, "{}", unsure, unsure));
    /* one seed does not fall, though the mean does */
    const char *rise = COMPARE(I("0.01", "0.02"), I("0.01", "0.02"));
    assert_false(verdict(RECALL, "{}", sure, rise) || verdict(F1, "{}", sure, rise));
}

static void table_has_both_intervals(void **state)
{
    (void)state;
    Json *j[2] = {parse(COMPARE(I("-0.1", "0"), I("-0.1", "0"))), parse(COMPARE(I("-0.3", "-0.2"), I("-0.3", "-0.2")))};
    Str text = {0};
    controls_table(&text, (const char *const[]){"seed 1", "seed 2"}, (const Json *const *)j, 2);
    /* over seeds: mean -0.2, t(1 degree) 12.706 times sd .1414 / sqrt(2) = 1.271 */
    assert_non_null(strstr(str_get(&text), "mean, over seeds      -0.200 [-1.471, +1.071]"));
    /* over prompts: upper -0.2 + sqrt(.1^2 + .1^2) / 2 = -0.129 */
    assert_non_null(strstr(str_get(&text), "mean, over prompts    -0.200 [-0.200, -0.129]"));
    assert_non_null(strstr(str_get(&text), "0.950 -> 0.940"));
    str_free(&text);
    controls_table(&text, (const char *const[]){"seed 1"}, (const Json *const *)j, 1);
    assert_null(strstr(str_get(&text), "mean"));
    str_free(&text);
    json_free(j[0]);
    json_free(j[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_of_the_rounds),
        cmocka_unit_test(a_missing_number_fails),
        cmocka_unit_test(rules_over_seeds),
        cmocka_unit_test(table_has_both_intervals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
