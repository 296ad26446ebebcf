/* test_rng.c - Philox against the known answers of Random123 (kat_vectors, philox4x32 10 rounds);
 * keys, ranges and moments of what is drawn from it. */
#include "common/base/hash.h"
#include "common/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

static void test_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t ctr[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t out[4];
        philox4x32(out, known[i].ctr, known[i].key);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

/* The layout that rng.h promises: key = XXH3-64 of (seed, stage, round), little-endian. */
static void test_key(void **state)
{
    (void)state;
    const unsigned char text[16] = {8, 7, 6, 5, 4, 3, 2, 1, RNG_TEST, 0, 0, 0, 0x0d, 0x0c, 0, 0};
    uint64_t want = hash64(text, sizeof text, 0);
    RngKey k = rng_key(0x0102030405060708, RNG_TEST, 0x0c0d, 0x1122334455667788, 9, 10);
    assert_int_equal(k.key[0], (uint32_t)want);
    assert_int_equal(k.key[1], want >> 32);
    const uint32_t ctr[4] = {0x55667788, 0x11223344, 9, 10};
    assert_memory_equal(k.ctr, ctr, sizeof ctr);
    uint32_t w[4];
    philox4x32(w, k.ctr, k.key);
    assert_true(rng_u64(&k) == (w[0] | (uint64_t)w[1] << 32));
    assert_true(rng_uniform(&k) == ldexp((double)(rng_u64(&k) >> 11), -53));
}

/* A sequence is the blocks of positions 0, 1, ... in order. */
static void test_sequence(void **state)
{
    (void)state;
    Rng r = rng_make(5, RNG_TEST, 1, 2, 3);
    for (uint32_t block = 0; block < 3; block++) {
        RngKey k = rng_key(5, RNG_TEST, 1, 2, 3, block);
        uint32_t w[4];
        philox4x32(w, k.ctr, k.key);
        for (int i = 0; i < 4; i++)
            assert_int_equal(rng_next_u32(&r), w[i]);
    }
}

/* Counts of n cells: each within 5 standard deviations, sqrt(N p (1 - p)). */
static void test_below(void **state)
{
    (void)state;
    enum { CELLS = 7, DRAWS = 70000 };
    int count[CELLS] = {0};
    Rng r = rng_make(1, RNG_TEST, 0, 0, 0);
    for (int i = 0; i < DRAWS; i++)
        count[rng_next_below(&r, CELLS)]++;
    for (int i = 0; i < CELLS; i++)
        assert_true(fabs(count[i] - 10000.0) < 5 * sqrt(10000.0 * 6 / 7));
    assert_int_equal(rng_next_below(&r, 1), 0);
    assert_true(rng_next_below(&r, ~0ull) < ~0ull);
}

static void test_normal(void **state)
{
    (void)state;
    enum { DRAWS = 200000 };
    Rng r = rng_make(2, RNG_TEST, 0, 0, 0), uniform = r;
    double s1 = 0, s2 = 0, s4 = 0;
    for (int i = 0; i < DRAWS; i++) {
        double x = rng_next_normal(&r);
        double u1 = 1 - rng_next_uniform(&uniform), u2 = rng_next_uniform(&uniform);
        double want = sqrt(-2 * log(u1)) * cos(2 * 3.14159265358979323846 * u2);
        /* the angle 2 pi u2 is rounded by up to 2^-51 in `want`, times a radius below 9 */
        assert_true(fabs(x - want) < 1e-14);
        s1 += x;
        s2 += x * x;
        s4 += x * x * x * x;
    }
    /* moments 0, 1, 3 with variances 1, 2, 96 over the number of draws; 5 deviations */
    assert_true(fabs(s1 / DRAWS) < 5 * sqrt(1.0 / DRAWS));
    assert_true(fabs(s2 / DRAWS - 1) < 5 * sqrt(2.0 / DRAWS));
    assert_true(fabs(s4 / DRAWS - 3) < 5 * sqrt(96.0 / DRAWS));
}

static void test_permutation(void **state)
{
    (void)state;
    enum { N = 1000 };
    int64_t a[N], b[N];
    char seen[N] = {0};
    int fixed = 0, same = 0;
    rng_permutation(a, N, 3, RNG_SHUFFLE, 0);
    rng_permutation(b, N, 3, RNG_SHUFFLE, 0);
    assert_memory_equal(a, b, sizeof a);
    rng_permutation(b, N, 3, RNG_SHUFFLE, 1);
    for (int i = 0; i < N; i++) {
        assert_in_range(a[i], 0, N - 1);
        assert_false(seen[a[i]]++);
        fixed += a[i] == i;
        same += a[i] == b[i];
    }
    /* both counts are Poisson(1): above 10 has probability 1e-8 */
    assert_true(fixed <= 10 && same <= 10);
    rng_permutation(a, 0, 3, RNG_SHUFFLE, 0);
    rng_permutation(a, 1, 3, RNG_SHUFFLE, 0);
    assert_int_equal(a[0], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers), cmocka_unit_test(test_key),
        cmocka_unit_test(test_sequence),      cmocka_unit_test(test_below),
        cmocka_unit_test(test_normal),        cmocka_unit_test(test_permutation),
    };
    return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}
