/* test_estimate.c - seconds from counted work and rates, against numbers computed by hand; what a slice of a
 * model keeps; quantities as text. */
#include "rlhf/calibrate.h"
#include "rlhf/estimate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void close_to(double a, double b)
{
    if (!(fabs(a - b) <= 1e-12 * fabs(b)))
        fail_msg("%.17g, expected %.17g", a, b);
}

/* C 4, Q = H D = 4, G = K D = 2, F 8, L 3: a layer's weights are 2*16 + 2*8 + 3*32 = 144. */
static const ModelConfig tiny = {.C = 4, .F = 8, .V = 90, .L = 3, .H = 2, .K = 1, .D = 2};

static void flops_by_hand(void **state)
{
    (void)state;
    /* forward: 2 * 144, and two products of 10 / 2 keys * 2 * 4 flops = 2 * 40; times 3 layers */
    close_to(flops_per_token(&tiny, 10, false), 3 * (288 + 80));
    /* with backward: 6 * 144, and seven such products */
    close_to(flops_per_token(&tiny, 10, true), 3 * (864 + 280));
}

static void training_is_tokens_and_rows(void **state)
{
    (void)state;
    Rates r = {.train_token = 1e-3, .train_row = 1e-2, .forward_token = 1e-4, .forward_row = 1e-5, .length = 10};
    Work w = {.kind = WORK_TRAIN, .tokens = 1000, .rows = 300, .sequences = 100}; /* 10 tokens each, as measured */
    close_to(work_seconds(&w, &tiny, &r, 0), 1 + 3);
    w.scalar = true; /* a scalar head costs nothing */
    close_to(work_seconds(&w, &tiny, &r, 0), 1);
    w.sequences = 50; /* 20 tokens each: 864 + 560 instead of 864 + 280 flops */
    close_to(work_seconds(&w, &tiny, &r, 0), 1424.0 / 1144.0);
    w.kind = WORK_FORWARD;
    close_to(work_seconds(&w, &tiny, &r, 0), 0.1 * 448.0 / 368.0);
}

static void answers_add_their_tokens(void **state)
{
    (void)state;
    Rates r = {.forward_token = 1e-3, .forward_row = 1e-2, .length = 10};
    /* 50 prompts of 4 tokens and answers of 6: 500 tokens in sequences of 10, 300 rows */
    Work w = {.kind = WORK_FORWARD, .tokens = 200, .sequences = 50, .answers = 50, .max_new = 24};
    close_to(work_tokens(&w, 6), 500);
    close_to(work_seconds(&w, &tiny, &r, 6), 0.5 + 3);
}

static void decoding_goes_in_waves(void **state)
{
    (void)state;
    Rates r = {.forward_token = 1e-3, .length = 5, .step_one = 0.01, .step_full = 0.04, .slots = 4, .depth = 10};
    /* two calls of 6 answers: a wave of 4 and one of 2, each 10 steps long; step of 2: 0.01 + 0.03 / 3 */
    Work w = {.kind = WORK_DECODE, .tokens = 60, .sequences = 12, .answers = 12, .calls = 2, .slots = 4};
    close_to(work_seconds(&w, &tiny, &r, 10), 0.06 + 2 * 10 * (0.04 + 0.02));
    /* 5 tokens of prompt and half of the answer are the depth that was measured; 20 more are read from memory */
    r.kv_bytes = 100;
    r.byte = 1e-6;
    close_to(work_seconds(&w, &tiny, &r, 50), 0.06 + 2 * 50 * (0.04 + 4 * 20 * 1e-4 + 0.02 + 2 * 20 * 1e-4));
    w.answers = 0;
    close_to(work_seconds(&w, &tiny, &r, 50), 0.06);
}

static void updates_are_parameters(void **state)
{
    (void)state;
    Rates r = {.update_param = 2e-9, .length = 1};
    Work w = {.kind = WORK_UPDATE, .params = 1e6, .calls = 50};
    close_to(work_seconds(&w, &tiny, &r, 0), 0.1);
    close_to(work_tokens(&w, 9), 0);
}

static void a_slice_keeps_widths(void **state)
{
    (void)state;
    ModelConfig c = tiny;
    calibrate_slice(&c, 1e9); /* all of it */
    assert_int_equal(c.L, 3);
    assert_int_equal(c.V, 90);
    c = tiny; /* a layer and a third of the words: 144 + 90 * 4 / 3 = 264 */
    c.head = HEAD_SCALAR;
    calibrate_slice(&c, 2 * 264);
    assert_int_equal(c.L, 2);
    assert_int_equal(c.V, 64); /* two thirds of the words would be 60: never fewer than 64 of them */
    assert_int_equal(c.head, HEAD_LM);
    c = tiny;
    calibrate_slice(&c, 1); /* one layer at least */
    assert_int_equal(c.L, 1);
    assert_int_equal(c.C, 4);
}

static void quantities_as_text(void **state)
{
    (void)state;
    char s[QUANTITY_TEXT];
    assert_string_equal(seconds_text(s, 0.04), "0.0 s");
    assert_string_equal(seconds_text(s, 9.94), "9.9 s");
    assert_string_equal(seconds_text(s, 75), "75 s");
    assert_string_equal(seconds_text(s, 137), "2.3 min");
    assert_string_equal(seconds_text(s, 1200), "20 min");
    assert_string_equal(seconds_text(s, 7200), "2.0 h");
    assert_string_equal(seconds_text(s, 86400 * 3), "3.0 d");
    assert_string_equal(bytes_text(s, 512), "512 B");
    assert_string_equal(bytes_text(s, 1536), "1.50 KiB");
    assert_string_equal(bytes_text(s, 12.5 * 1048576), "12.5 MiB");
    assert_string_equal(bytes_text(s, 130.0 * 1073741824), "130 GiB");
    assert_string_equal(count_text(s, 999), "999");
    assert_string_equal(count_text(s, 12345), "12.3 k");
    assert_string_equal(count_text(s, 1.54e9), "1.54 B");
    assert_string_equal(count_text(s, 134.6e6), "135 M");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flops_by_hand),          cmocka_unit_test(training_is_tokens_and_rows),
        cmocka_unit_test(answers_add_their_tokens), cmocka_unit_test(decoding_goes_in_waves),
        cmocka_unit_test(updates_are_parameters), cmocka_unit_test(a_slice_keeps_widths),
        cmocka_unit_test(quantities_as_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
