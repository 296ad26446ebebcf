/* test_pack.c - packs: offsets, positions and targets at the borders of sequences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/data/example.h"

static void test_two_sequences(void **state)
{
    (void)state;
    Pack p;
    pack_init(&p, 7, 2);
    const int32_t a[] = {10, 11, 12}, b[] = {20, 21, 22, 23};
    const uint8_t mask_a[] = {1, 0, 1}, mask_b[] = {0, 0, 1, 1};
    assert_true(pack_fits(&p, 7));
    assert_false(pack_fits(&p, 8));
    pack_add(&p, a, mask_a, 3, 100);
    assert_true(pack_fits(&p, 4));
    assert_false(pack_fits(&p, 5));
    pack_add(&p, b, mask_b, 4, 7);
    assert_false(pack_fits(&p, 0)); /* two sequences are the limit */

    /* Row t speaks about token t + 1: weight[t] = mask[t + 1], and the last row of a sequence has
     * none. mask_a[0] = 1 has no row that could predict it. */
    const int32_t ids[] = {10, 11, 12, 20, 21, 22, 23}, pos[] = {0, 1, 2, 0, 1, 2, 3};
    const int32_t target[] = {11, 12, 0, 21, 22, 23, 0};
    const float weight[] = {0, 1, 0, 0, 1, 1, 0};
    const int32_t starts[] = {0, 3, 7};
    assert_memory_equal(p.ids, ids, sizeof ids);
    assert_memory_equal(p.pos, pos, sizeof pos);
    assert_memory_equal(p.target, target, sizeof target);
    assert_memory_equal(p.weight, weight, sizeof weight);
    assert_memory_equal(p.starts, starts, sizeof starts);
    assert_int_equal(p.n_tokens, 7);
    assert_int_equal(p.n_seqs, 2);
    assert_int_equal(p.n_targets, 3);
    assert_int_equal(p.item[0], 100);
    assert_int_equal(p.item[1], 7);

    pack_clear(&p);
    assert_int_equal(p.n_tokens + p.n_seqs + p.n_targets, 0);
    pack_add(&p, b, NULL, 4, 1); /* no mask: nothing is trained, targets are there all the same */
    assert_int_equal(p.n_targets, 0);
    assert_int_equal(p.target[0], 21);
    assert_true(p.weight[0] == 0);
    assert_int_equal(p.starts[1], 4);
    pack_free(&p);
    pack_free(&p);
}

static void test_single_token(void **state)
{
    (void)state;
    Pack p;
    const int32_t id = 5;
    const uint8_t mask = 1;
    pack_init(&p, 3, 3);
    for (int i = 0; i < 3; i++)
        pack_add(&p, &id, &mask, 1, i);
    assert_int_equal(p.n_targets, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(p.pos[i], 0);
        assert_int_equal(p.target[i], 0);
        assert_true(p.weight[i] == 0);
        assert_int_equal(p.starts[i + 1], i + 1);
    }
    assert_false(pack_fits(&p, 1));
    pack_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_sequences),
        cmocka_unit_test(test_single_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
