/* test_reward_prompts.c - prompts, not items, are numbered and drawn. */
#include "reward/reward_prompts.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

enum { MANY = 40 };

static PairItem item(int32_t *id, SafetyLabel label)
{
    return (PairItem){.seq = {{.ids = id, .n = 1, .n_prompt = 1}}, .n_seqs = 1, .label = {label}};
}

static void equal_ids_are_one_prompt(void **state)
{
    (void)state;
    int32_t id[4] = {7, 8, 7, 9};
    PairItem items[4] = {item(&id[0], SAFETY_SAFE), item(&id[1], SAFETY_UNKNOWN), item(&id[2], SAFETY_UNKNOWN),
                         item(&id[3], SAFETY_UNSAFE)};
    PairSet set = {.at = items, .n = 4};
    Prompts all, labelled;
    prompts_make(&all, &set, NULL);
    assert_int_equal(all.n, 3);
    assert_true(all.of[0] == all.of[2] && all.of[0] != all.of[1] && all.of[1] != all.of[3]);
    prompts_make(&labelled, &set, prompts_labelled);
    assert_int_equal(labelled.n, 2);
    assert_true(labelled.of[1] == -1 && labelled.of[2] == -1 && labelled.of[0] >= 0);
    prompts_free(&all);
    prompts_free(&labelled);
    prompts_free(&labelled);
}

static void draws(void **state)
{
    (void)state;
    int32_t id[MANY];
    PairItem items[MANY];
    int times[MANY], again[MANY], left_out = 0;
    for (int i = 0; i < MANY; i++) {
        id[i] = i;
        items[i] = item(&id[i], SAFETY_SAFE);
    }
    PairSet set = {.at = items, .n = MANY};
    Prompts p;
    prompts_make(&p, &set, NULL);
    prompts_draw(&p, -1, times);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(times[i], 1);
    for (int d = 0; d < 50; d++) {
        int sum = 0;
        prompts_draw(&p, d, times);
        prompts_draw(&p, d, again);
        assert_memory_equal(times, again, sizeof times);
        for (int i = 0; i < MANY; i++) {
            sum += times[i];
            left_out += times[i] == 0;
        }
        assert_int_equal(sum, MANY);
    }
    /* of 2000, a share (1 - 1/40)^40 = 0.363, that is 726 +- 5 standard deviations of at most 22 */
    assert_in_range(left_out, 616, 836);
    prompts_free(&p);
}

static void mean_of_what_there_is(void **state)
{
    (void)state;
    int32_t id[6] = {1, 1, 2, 2, 3, 4};
    PairItem items[6];
    double value[6] = {1, 1, 0, 0, NAN, NAN}, one[6] = {1, 0, NAN, NAN, NAN, NAN};
    for (int i = 0; i < 6; i++)
        items[i] = item(&id[i], SAFETY_SAFE);
    PairSet set = {.at = items, .n = 6}, first = {.at = items, .n = 2}, none = {0};
    Prompts p;
    prompts_make(&p, &set, NULL);
    Interval v = prompts_mean(&p, value, 6);
    /* draws of prompts 1 and 2 alone give 0 or 1, which both come up */
    assert_true(v.value == 0.5 && v.low == 0 && v.high == 1);
    double *both[2] = {one, value}; /* columns share the draws and nothing else */
    Interval w[2];
    prompts_means(&p, both, 2, 6, w);
    assert_true(w[0].value == 0.5 && w[1].low == v.low && w[1].high == v.high);
    prompts_free(&p);
    prompts_make(&p, &first, NULL);
    v = prompts_mean(&p, one, 2); /* one prompt: a value, and nothing known of others */
    assert_true(v.value == 0.5 && isnan(v.low) && isnan(v.high));
    prompts_free(&p);
    prompts_make(&p, &none, NULL);
    assert_true(isnan(prompts_mean(&p, NULL, 0).value));
    prompts_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_ids_are_one_prompt),
        cmocka_unit_test(draws),
        cmocka_unit_test(mean_of_what_there_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
