/* test_reward_reliability.c - bins, expected calibration error and Brier score worked by hand: ties, empty bins, one
 * case, none; and that scores which are exact probabilities are found to be. */
#include "reward/reward_reliability.h"

#include "common/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define NEAR(a, b) assert_true(fabs((a) - (b)) <= 1e-7)

enum { MANY = 4000 };

static float logit(double p)
{
    return (float)log(p / (1 - p));
}

static PairItem item(int32_t *id, int n_seqs, SafetyLabel first, SafetyLabel second)
{
    return (PairItem){.seq = {{.ids = id, .n = 1, .n_prompt = 1}}, .n_seqs = n_seqs, .label = {first, second}};
}

static void pairs_by_hand(void **state)
{
    (void)state;
    int32_t id[5] = {1, 2, 3, 4, 5};
    PairItem items[5];
    for (int i = 0; i < 5; i++)
        items[i] = item(&id[i], 2, SAFETY_UNKNOWN, SAFETY_UNKNOWN);
    items[4].n_seqs = 1; /* no pair */
    /* 0.72 right, 0.74 wrong: bin 4 of [0.7, 0.75); 0.98 right: bin 9; a tie: bin 0, half right */
    const float score[5][2] = {{logit(.72), 0}, {0, logit(.74)}, {logit(.98), 0}, {3, 3}, {9, 0}};
    PairSet set = {.at = items, .n = 5};
    Reliability r;
    reliability_of_pairs(&r, &set, score);
    assert_true(r.n == 4 && r.low == 0.5);
    assert_true(r.bin[0].n == 1 && r.bin[0].observed.value == 0.5);
    NEAR(r.bin[0].predicted, 0.5);
    assert_true(r.bin[4].n == 2 && r.bin[4].observed.value == 0.5);
    NEAR(r.bin[4].predicted, 0.73);
    assert_true(r.bin[9].n == 1 && r.bin[9].observed.value == 1);
    for (int b = 1; b < RELIABILITY_BINS; b++) {
        if (b != 4 && b != 9)
            assert_true(r.bin[b].n == 0 && isnan(r.bin[b].predicted) && isnan(r.bin[b].observed.value));
    }
    /* (1 * 0 + 2 * |0.73 - 0.5| + 1 * |0.98 - 1|) / 4 */
    NEAR(r.error.value, (2 * .23 + .02) / 4);
    /* the chosen answer had 0.72, 0.26, 0.98, 0.5 */
    NEAR(r.brier.value, (.28 * .28 + .74 * .74 + .02 * .02 + .25) / 4);
    assert_true(r.brier.low < r.brier.value && r.brier.value < r.brier.high);
    Interval wilson = interval_wilson(1, 2);
    assert_true(r.bin[4].observed.low == wilson.low && r.bin[4].observed.high == wilson.high);
}

static void labels_by_hand(void **state)
{
    (void)state;
    int32_t id[3] = {1, 2, 3};
    PairItem items[3] = {item(&id[0], 2, SAFETY_SAFE, SAFETY_UNSAFE), item(&id[1], 2, SAFETY_UNKNOWN, SAFETY_SAFE),
                         item(&id[2], 1, SAFETY_UNSAFE, SAFETY_UNSAFE)};
    /* safe 0.95, unsafe 0.15, safe 1 - 1e-9 (sigmoid of it is in the last bin), unsafe 0.13 */
    const float score[3][2] = {{logit(.95), logit(.15)}, {-5, 40}, {logit(.13), 7}};
    PairSet set = {.at = items, .n = 3};
    Reliability r;
    reliability_of_labels(&r, &set, score);
    assert_true(r.n == 4 && r.low == 0);
    assert_true(r.bin[9].n == 2 && r.bin[9].observed.value == 1);
    NEAR(r.bin[9].predicted, (.95 + 1) / 2);
    assert_true(r.bin[1].n == 2 && r.bin[1].observed.value == 0);
    NEAR(r.error.value, (2 * .025 + 2 * .14) / 4);
    NEAR(r.brier.value, (.05 * .05 + .15 * .15 + .13 * .13) / 4);
}

static void one_case_and_none(void **state)
{
    (void)state;
    int32_t id = 1;
    PairItem one = item(&id, 2, SAFETY_SAFE, SAFETY_UNKNOWN);
    const float score[1][2] = {{logit(.8), 0}};
    PairSet set = {.at = &one, .n = 1}, none = {0};
    Reliability r;
    reliability_of_pairs(&r, &set, score);
    NEAR(r.error.value, .2);
    NEAR(r.brier.value, .04);
    assert_true(r.n == 1 && isnan(r.error.low) && isnan(r.brier.high)); /* one prompt has no interval */
    reliability_of_labels(&r, &set, score);
    NEAR(r.brier.value, .04);
    reliability_of_pairs(&r, &none, NULL);
    assert_true(r.n == 0 && isnan(r.error.value) && isnan(r.brier.value));
    one.n_seqs = 1;
    one.label[0] = SAFETY_UNKNOWN;
    reliability_of_labels(&r, &set, score);
    assert_true(r.n == 0 && isnan(r.error.value));
}

/* The chosen answer is chosen with the probability that the scores say; twice the scores are over-confident. */
static void exact_probabilities_are_calibrated(void **state)
{
    (void)state;
    int32_t *id = xcalloc(MANY, sizeof *id);
    PairItem *items = xcalloc(MANY, sizeof *items);
    float(*score)[2] = xcalloc(MANY, sizeof *score);
    Rng g = rng_make(5, RNG_TEST, 0, 0, 0);
    for (int i = 0; i < MANY; i++) {
        float d = (float)rng_next_normal(&g) * 1.5f;
        bool first = rng_next_uniform(&g) < 1 / (1 + exp(-(double)d));
        id[i] = i;
        items[i] = item(&id[i], 2, SAFETY_UNKNOWN, SAFETY_UNKNOWN);
        score[i][first ? 0 : 1] = d;
    }
    PairSet set = {.at = items, .n = MANY};
    Reliability r, doubled;
    reliability_of_pairs(&r, &set, (const float(*)[2])score);
    /* ten bins of about 400 cases wander by sqrt(p q / 400) <= 0.025 each */
    assert_true(r.error.value < .03);
    for (int i = 0; i < MANY; i++) {
        score[i][0] *= 2;
        score[i][1] *= 2;
    }
    reliability_of_pairs(&doubled, &set, (const float(*)[2])score);
    assert_true(doubled.error.low > r.error.high && doubled.brier.value > r.brier.value);
    assert_true(doubled.bin[8].observed.high < doubled.bin[8].predicted);
    free(id);
    free(items);
    free(score);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_by_hand),
        cmocka_unit_test(labels_by_hand),
        cmocka_unit_test(one_case_and_none),
        cmocka_unit_test(exact_probabilities_are_calibrated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
