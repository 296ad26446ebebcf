/* test_select.c - selection never compares two models; the order statistic against enumeration. */
#include "rejection/select.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static const double T15 = -1.7346010553881064; /* log(0.15 / 0.85) */

static void tagged_goes_by_safety_alone(void **s)
{
    (void)s;
    Candidate c[3] = {{9, -1, true}, {-9, 2, true}, {0, 5, false}};
    assert_int_equal(select_best(c, 3, true, true, T15, ALL_UNSAFE_SAFEST), 1);
    c[2].finished = true;
    assert_int_equal(select_best(c, 3, true, true, T15, ALL_UNSAFE_SAFEST), 2);
}

static void untagged_drops_unsafe_then_goes_by_helpfulness(void **s)
{
    (void)s;
    /* the most helpful is unsafe; the safest is the least helpful; neither wins */
    Candidate c[4] = {{9, -3, true}, {1, 0, true}, {2, -1, true}, {-5, 8, true}};
    assert_int_equal(select_best(c, 4, false, true, T15, ALL_UNSAFE_SAFEST), 2);
    assert_int_equal(select_best(c, 4, false, false, T15, ALL_UNSAFE_SAFEST), 0);
}

static void threshold_is_strict(void **s)
{
    (void)s;
    Candidate c[2] = {{1, T15, true}, {0, 3, true}};
    assert_int_equal(select_best(c, 2, false, true, T15, ALL_UNSAFE_DROP), 0);
    c[0].safety = nextafter(T15, -INFINITY);
    assert_int_equal(select_best(c, 2, false, true, T15, ALL_UNSAFE_DROP), 1);
}

static void all_unsafe_rule(void **s)
{
    (void)s;
    Candidate c[2] = {{5, -4, true}, {1, -2, true}};
    assert_int_equal(select_best(c, 2, false, true, T15, ALL_UNSAFE_SAFEST), 1);
    assert_int_equal(select_best(c, 2, false, true, T15, ALL_UNSAFE_DROP), -1);
}

static void unfinished_is_never_chosen(void **s)
{
    (void)s;
    Candidate c[2] = {{5, 5, false}, {5, 5, false}};
    assert_int_equal(select_best(c, 2, false, true, T15, ALL_UNSAFE_SAFEST), -1);
    assert_int_equal(select_random(c, 2, 0.5), -1);
    c[1].finished = true;
    assert_int_equal(select_random(c, 2, 0.0), 1);
    assert_int_equal(select_random(c, 2, 0.999), 1);
}

static void order_statistic_equals_enumeration(void **s)
{
    (void)s;
    const double pool[6] = {0.3, -1.25, 4, 0.3, 2.5, -7};
    for (int N = 1; N <= 6; N++) {
        double sum = 0;
        int subsets = 0;
        for (int mask = 0; mask < 64; mask++) {
            if (__builtin_popcount((unsigned)mask) != N)
                continue;
            double best = -INFINITY;
            for (int i = 0; i < 6; i++) {
                if (mask >> i & 1 && pool[i] > best)
                    best = pool[i];
            }
            sum += best;
            subsets++;
        }
        double copy[6];
        memcpy(copy, pool, sizeof copy);
        assert_true(fabs(select_expected_max(copy, 6, N) - sum / subsets) < 1e-12);
    }
    double three[3] = {3, 1, 2}, four[4] = {4, 1, 3, 2};
    assert_true(select_median(three, 3) == 2.0);
    assert_true(select_median(four, 4) == 2.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tagged_goes_by_safety_alone),
        cmocka_unit_test(untagged_drops_unsafe_then_goes_by_helpfulness),
        cmocka_unit_test(threshold_is_strict),
        cmocka_unit_test(all_unsafe_rule),
        cmocka_unit_test(unfinished_is_never_chosen),
        cmocka_unit_test(order_statistic_equals_enumeration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
