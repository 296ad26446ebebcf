/* test_mix.c - the order of epochs: every item once, shares of weighted sources, even use over epochs. */
#include "common/train/mix.h"

#include "common/base/error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void without_weights_each_once(void **state)
{
    (void)state;
    const DataSource s[2] = {{"a", 0}, {"b", 0}};
    const int64_t first[3] = {0, 7, 10};
    int64_t *a, *b, *again, seen[10] = {0};
    assert_int_equal(mix_order(&a, first, s, 2, 5, 0), 10);
    assert_int_equal(mix_order(&b, first, s, 2, 5, 1), 10);
    assert_int_equal(mix_order(&again, first, s, 2, 5, 0), 10);
    assert_memory_equal(a, again, 10 * sizeof *a);
    assert_memory_not_equal(a, b, 10 * sizeof *a);
    for (int k = 0; k < 10; k++)
        seen[a[k]]++;
    for (int k = 0; k < 10; k++)
        assert_int_equal(seen[k], 1);
    free(a);
    free(b);
    free(again);
}

/* 6 and 18 items, shares 1 : 1: 12 of each per epoch. Over 3 epochs each of the 6 comes 36 / 6 = 6
 * times, each of the 18 comes 36 / 18 = 2 times: walks go on where the epoch before ended. */
static void shares_are_kept_and_items_used_evenly(void **state)
{
    (void)state;
    const DataSource s[2] = {{"a", 2}, {"b", 2}};
    const int64_t first[3] = {0, 6, 24};
    int64_t seen[24] = {0};
    for (uint64_t e = 0; e < 3; e++) {
        int64_t *order, small = 0;
        assert_int_equal(mix_order(&order, first, s, 2, 5, e), 24);
        for (int k = 0; k < 24; k++) {
            seen[order[k]]++;
            small += order[k] < 6;
        }
        assert_int_equal(small, 12);
        free(order);
    }
    for (int k = 0; k < 24; k++)
        assert_int_equal(seen[k], k < 6 ? 6 : 2);
}

static void weights_are_all_or_none(void **state)
{
    (void)state;
    const DataSource s[2] = {{"a", 2}, {"b", 0}}, none[2] = {{"a", 0}, {"b", 0}};
    assert_int_equal(mix_check(s, 2, "data.train"), ERR_CONFIG);
    assert_non_null(strstr(error_text(), "data.train"));
    assert_int_equal(mix_check(none, 2, "data.train"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(without_weights_each_once),
                                       cmocka_unit_test(shares_are_kept_and_items_used_evenly),
                                       cmocka_unit_test(weights_are_all_or_none)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
