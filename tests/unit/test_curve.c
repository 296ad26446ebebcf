/* test_curve.c - best-of-n curves of rejection sampling, against values worked out by hand. */
#include "rejection/curve.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void near(double got, double want)
{
    if (!(fabs(got - want) < 1e-12))
        fail_msg("%.17g, expected %.17g", got, want);
}

static void sums_over_prompts(void **state)
{
    (void)state;
    Curve c = {0};
    double a[3] = {1, 5, 3}, b[3] = {0, 0, 9};
    curve_add(&c, a, 3, 1);
    /* n = 1: the mean, 3; n = 2: pairs (1,5) (1,3) (5,3) -> 5, 3, 5; n = 3: 5 */
    near(c.max[0], 3);
    near(c.max[1], 13.0 / 3);
    near(c.max[2], 5);
    near(c.best, 5);
    near(c.median, 3);
    curve_add(&c, b, 3, 0);
    near(c.max[0], 6);
    near(c.max[1], 13.0 / 3 + 6);
    near(curve_best(&c), 7);
    near(c.median, 3);
    assert_int_equal(c.prompts, 2);
    assert_int_equal(c.unfinished, 0);
}

/* A temperature whose answers do not end must not win by the few that do. */
static void unfinished_counts_as_the_floor(void **state)
{
    (void)state;
    Curve c = {0};
    double a[4] = {NAN, 4, NAN, NAN}, b[2] = {NAN, NAN};
    curve_add(&c, a, 4, -2);
    near(c.max[0], (4 - 2 * 3) / 4.0);
    near(c.max[3], 4);
    near(c.median, -2);
    assert_int_equal(c.unfinished, 3);
    curve_add(&c, b, 2, -7);
    near(c.best, -3);
    assert_int_equal(c.answers, 6);
}

static void longer_than_the_curve(void **state)
{
    (void)state;
    enum { K = CURVE_MAX + 72 };
    Curve c = {0};
    double x[K];
    for (int i = 0; i < K; i++)
        x[i] = i;
    curve_add(&c, x, K, 0);
    near(c.best, K - 1); /* of all K, which the curve itself does not reach */
    /* E[max of n of 0 .. K - 1] = n (K + 1) / (n + 1) - 1 */
    near(c.max[CURVE_MAX - 1] / 1e3, (CURVE_MAX * (K + 1.0) / (CURVE_MAX + 1) - 1) / 1e3);
}

static void highest_by_best_of_k(void **state)
{
    (void)state;
    Curve c[6] = {{.prompts = 2, .best = 4}, {0}, {.prompts = 3, .best = 9}, {0}, {.prompts = 3, .best = 9}, {0}};
    assert_int_equal(curve_highest(c, 3, 2), 1); /* the first of two equal ones */
    assert_int_equal(curve_highest(c + 1, 3, 2), -1);
    c[0].best = 7;
    assert_int_equal(curve_highest(c, 3, 2), 0);
    assert_int_equal(curve_highest(c, 0, 2), -1);
    assert_true(isnan(curve_best(&c[1])));
}

static void written(void **state)
{
    (void)state;
    Curve c = {0}, none = {0};
    double a[2] = {1, 2};
    Str s = {0};
    JsonWriter w;
    curve_add(&c, a, 2, 1);
    jw_init(&w, &s, false);
    jw_array(&w);
    curve_write(&c, 2, &w);
    curve_write(&none, 2, &w);
    jw_array_end(&w);
    Json *j, *one;
    assert_int_equal(json_parse(&j, str_get(&s), s.n, "curve", 1), 0);
    one = json_at(j, 0);
    near(json_num(json_get(one, "best_of_k"), 0), 2);
    near(json_num(json_at(json_get(one, "max_of_n"), 0), 0), 1.5);
    assert_int_equal(json_len(json_get(one, "max_of_n")), 2);
    assert_int_equal(json_kind(json_get(json_at(j, 1), "best_of_k")), JSON_NIL);
    assert_int_equal(json_len(json_get(json_at(j, 1), "max_of_n")), 0);
    json_free(j);
    str_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_over_prompts),     cmocka_unit_test(unfinished_counts_as_the_floor),
        cmocka_unit_test(longer_than_the_curve), cmocka_unit_test(highest_by_best_of_k),
        cmocka_unit_test(written),
    };
    return cmocka_run_group_tests_name("curve", tests, NULL, NULL);
}
