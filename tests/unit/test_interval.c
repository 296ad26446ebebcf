/* test_interval.c - intervals from draws and of means, worked by hand. */
#include "common/base/interval.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define NEAR(a, b) assert_true(fabs((a) - (b)) <= 1e-12)

static void percentiles_of_draws(void **state)
{
    (void)state;
    double draw[45];
    for (int i = 0; i < 41; i++)
        draw[i] = (i * 17) % 41; /* 0 .. 40 in another order: 2.5 % lies at 0.025 * 40 = 1 */
    for (int i = 41; i < 45; i++)
        draw[i] = NAN;
    Interval v = interval_of_draws(20, draw, 45);
    assert_true(v.value == 20);
    NEAR(v.low, 1);
    NEAR(v.high, 39);
    double two[2] = {4, 0}; /* between order statistics: 0 + 0.025 * 4 */
    v = interval_of_draws(1, two, 2);
    NEAR(v.low, 0.1);
    NEAR(v.high, 3.9);
    double nothing[1] = {NAN};
    v = interval_of_draws(1, nothing, 1);
    assert_true(v.value == 1 && isnan(v.low) && isnan(v.high));
    double some[2] = {1, 2};
    assert_true(isnan(interval_of_draws(NAN, some, 2).low));
}

static void mean_of_independent_estimates(void **state)
{
    (void)state;
    /* below: sqrt(3^2 + 4^2) = 5, above: sqrt(5^2 + 12^2) = 13 */
    const Interval v[2] = {{10, 7, 15}, {20, 16, 32}};
    Interval m = interval_mean(v, 2), one = interval_mean(v, 1);
    NEAR(m.value, 15);
    NEAR(m.low, 12.5);
    NEAR(m.high, 21.5);
    assert_true(one.value == 10 && one.low == 7 && one.high == 15);
    const Interval unknown[2] = {{1, 0, 2}, {NAN, NAN, NAN}};
    assert_true(isnan(interval_mean(unknown, 2).value) && isnan(interval_mean(unknown, 2).high));
}

static void shares(void **state)
{
    (void)state;
    /* 8 of 10: Wilson's interval is [0.4902, 0.9433]; 0 of 1: [0, z^2 / (1 + z^2)] = [0, 0.79345] */
    Interval v = interval_wilson(8, 10);
    assert_true(v.value == 0.8 && fabs(v.low - 0.4901625) < 1e-6 && fabs(v.high - 0.9433178) < 1e-6);
    v = interval_wilson(0, 1);
    NEAR(v.low, 0);
    assert_true(v.value == 0 && fabs(v.high - 0.7934507) < 1e-6);
    v = interval_wilson(1, 1); /* the mirror image */
    NEAR(v.high, 1);
    assert_true(fabs(v.low - 0.2065493) < 1e-6);
    v = interval_wilson(2.5, 5);
    NEAR(v.low + v.high, 1);
    v = interval_wilson(0, 0);
    assert_true(isnan(v.value) && isnan(v.low) && isnan(v.high));
}

static void json_there_and_back(void **state)
{
    (void)state;
    Str text = {0};
    JsonWriter w;
    Json *j = NULL;
    jw_init(&w, &text, false);
    jw_object(&w);
    interval_json(&w, "x", (Interval){.25, -1, NAN});
    jw_object_end(&w);
    assert_int_equal(json_parse(&j, str_get(&text), text.n, "text", 1), 0);
    Interval v = interval_from_json(json_get(j, "x"));
    assert_true(v.value == .25 && v.low == -1 && isnan(v.high));
    assert_true(isnan(interval_from_json(json_get(j, "y")).value));
    json_free(j);
    str_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_of_draws),
        cmocka_unit_test(mean_of_independent_estimates),
        cmocka_unit_test(shares),
        cmocka_unit_test(json_there_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
