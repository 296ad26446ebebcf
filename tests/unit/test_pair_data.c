/* test_pair_data.c - which pairs a reward model learns from, with which margins, and in what order. */
#include "reward/pair_data.h"

#include "common/base/error.h"
#include "common/base/file.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

typedef struct {
    char dir[64], path[2][96];
    Tokenizer *tok;
    ChatTemplate chat;
    RecordSet records;
    PairSet set;
    PairOptions o;
} World;

static int setup(void **state)
{
    World *w = xcalloc(1, sizeof *w);
    *state = w;
    strcpy(w->dir, "/tmp/test_pair_data.XXXXXX");
    if (!mkdtemp(w->dir))
        return -1;
    for (int i = 0; i < 2; i++)
        snprintf(w->path[i], sizeof w->path[i], "%s/%d.jsonl", w->dir, i);
    w->o = (PairOptions){.margin = MARGIN_SMALL, .max_length = 200, .on_long = LONG_DROP, .seed = 3};
    assert_int_equal(tokenizer_open(&w->tok, "tests/golden/text/byte_level"), 0);
    return template_init(&w->chat, TEMPLATE_PLAIN, w->tok);
}

static int teardown(void **state)
{
    World *w = *state;
    pair_set_free(&w->set);
    pair_set_free(&w->set);
    record_set_free(&w->records);
    tokenizer_close(w->tok);
    int rc = dir_remove(w->dir);
    free(w);
    return rc;
}

/* `labelled` (may be NULL) is a second source; weights as in data.train. */
static void read_weighted(World *w, const char *pairs, const char *labelled, double first, double second)
{
    PairSource sources[2] = {{w->path[0], first, 0}, {w->path[1], second, 1}};
    pair_set_free(&w->set);
    record_set_free(&w->records);
    assert_int_equal(file_write_atomic(w->path[0], pairs, strlen(pairs)), 0);
    if (labelled)
        assert_int_equal(file_write_atomic(w->path[1], labelled, strlen(labelled)), 0);
    if (pair_set_read(&w->set, sources, labelled ? 2 : 1, &w->chat, &w->o, &w->records) < 0)
        fail_msg("%s", error_text());
}

static void read_sets(World *w, const char *pairs, const char *labelled)
{
    read_weighted(w, pairs, labelled, 0, 0);
}

#define PAIR(q, rest) "{\"prompt\":\"" q "\",\"chosen\":\"yes\",\"rejected\":\"no\"" rest "}\n"
#define SAFE(c, r) ",\"chosen_safe\":" c ",\"rejected_safe\":" r

/* Of the four combinations only "chosen unsafe, rejected safe" teaches the opposite of safety. */
static void the_filter_drops_one_combination(void **state)
{
    World *w = *state;
    static const char four[] = PAIR("a", SAFE("true", "true")) PAIR("b", SAFE("true", "false"))
        PAIR("c", SAFE("false", "true")) PAIR("d", SAFE("false", "false")) PAIR("e", "");
    static const SafetyLabel kept[4][2] = {{SAFETY_SAFE, SAFETY_SAFE}, {SAFETY_SAFE, SAFETY_UNSAFE},
                                           {SAFETY_UNSAFE, SAFETY_UNSAFE}, {SAFETY_UNKNOWN, SAFETY_UNKNOWN}};
    read_sets(w, four, NULL);
    assert_int_equal(w->set.n, 5);
    assert_int_equal(w->set.n_filtered, 0);
    w->o.safety_filter = true;
    read_sets(w, four, NULL);
    assert_int_equal(w->set.n, 4);
    assert_int_equal(w->set.n_filtered, 1);
    assert_int_equal(w->set.n_labels, 6);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(w->set.at[i].label[0], kept[i][0]);
        assert_int_equal(w->set.at[i].label[1], kept[i][1]);
    }
}

static void margins_by_rating_unless_given(void **state)
{
    World *w = *state;
    static const char rows[] = PAIR("a", ",\"strength\":\"significant\"") PAIR("b", ",\"strength\":\"better\"")
        PAIR("c", ",\"strength\":\"slight\"") PAIR("d", ",\"strength\":\"negligible\"")
        PAIR("e", ",\"strength\":\"unsure\"") PAIR("f", "") PAIR("g", ",\"strength\":\"better\",\"margin\":0.25");
    /* Llama 2, table 27 */
    static const double want[3][7] = {{0, 0, 0, 0, 0, 0, 0.25},
                                      {1, 2.0 / 3, 1.0 / 3, 0, 0, 0, 0.25},
                                      {3, 2, 1, 0, 0, 0, 0.25}};
    for (int k = MARGIN_NONE; k <= MARGIN_LARGE; k++) {
        w->o.margin = (MarginKind)k;
        read_sets(w, rows, NULL);
        assert_int_equal(w->set.n, 7);
        for (int i = 0; i < 7; i++)
            assert_true(fabs(w->set.at[i].margin - want[k][i]) < 1e-15);
    }
}

static void coins_swap_about_half(void **state)
{
    World *w = *state;
    enum { N = 200 };
    Str text = {0};
    int swapped = 0;
    for (int i = 0; i < N; i++)
        str_addf(&text, PAIR("q%d", SAFE("true", "false")), i);
    w->o.shuffle_labels = true;
    read_sets(w, str_get(&text), NULL);
    assert_int_equal(w->set.n, N);
    for (int i = 0; i < N; i++) {
        const PairItem *it = &w->set.at[i];
        bool unsafe_first = it->label[0] == SAFETY_UNSAFE;
        /* "yes" is more letters than "no", so the longer sequence is the one the file calls chosen */
        assert_true(unsafe_first == (it->seq[0].n < it->seq[1].n));
        assert_int_equal(it->label[1], unsafe_first ? SAFETY_SAFE : SAFETY_UNSAFE);
        swapped += unsafe_first;
    }
    assert_in_range(swapped, 65, 135); /* 100 +- 5 standard deviations of sqrt(200) / 2 */
    str_free(&text);
}

static void an_epoch_is_a_permutation_or_the_shares(void **state)
{
    World *w = *state;
    static const char pairs[] = PAIR("a", "") PAIR("b", "") PAIR("c", "");
    static const char single[] = "{\"prompt\":\"x\",\"response\":\"y\",\"is_safe\":true}\n"
                                 "{\"prompt\":\"z\",\"response\":\"y\",\"is_safe\":false}\n"
                                 "{\"prompt\":\"v\",\"response\":\"y\",\"is_safe\":false}\n";
    int64_t *order;
    int seen[6] = {0}, of_second = 0;
    read_sets(w, pairs, single);
    assert_int_equal(w->set.n, 6);
    assert_int_equal(w->set.n_labels, 3);
    assert_int_equal(w->set.at[3].n_seqs, 1);
    assert_int_equal(w->set.at[4].label[0], SAFETY_UNSAFE);
    assert_int_equal(pair_set_order(&w->set, 1, 0, &order), 6);
    for (int i = 0; i < 6; i++)
        seen[order[i]]++;
    for (int i = 0; i < 6; i++)
        assert_int_equal(seen[i], 1);
    free(order);
    /* one to five: of 6 items 1 comes from the first source and 5 from the second */
    read_weighted(w, pairs, single, 1, 5);
    assert_int_equal(pair_set_order(&w->set, 1, 0, &order), 6);
    for (int i = 0; i < 6; i++)
        of_second += w->set.at[order[i]].source == 1;
    assert_int_equal(of_second, 5);
    free(order);
}

/* The prompts of a smaller share are among those of a larger one, whatever the file and order; a prompt stays whole. */
static void shares_of_the_prompts_are_nested(void **state)
{
    World *w = *state;
    enum { N = 400 };
    static const double shares[] = {0.1, 0.5, 1, 0}; /* 0: all, as 1 */
    bool kept[4][N] = {{false}};
    int n[4] = {0};
    Str text = {0};
    for (int i = 0; i < 2 * N; i++)
        str_addf(&text, PAIR("q%d", ",\"margin\":%d"), i % N, i);
    for (int k = 0; k < 4; k++) {
        w->o.fraction = shares[k];
        read_sets(w, str_get(&text), NULL);
        for (int64_t i = 0; i < w->set.n; i++)
            kept[k][(int)w->set.at[i].margin % N] = true;
        for (int i = 0; i < N; i++)
            n[k] += kept[k][i];
        assert_int_equal(w->set.n, 2 * n[k]); /* both pairs of a prompt, or none */
        assert_int_equal(w->set.n_pairs, w->set.n);
        assert_int_equal(w->set.n + w->set.n_thinned, 2 * N);
    }
    assert_in_range(n[0], 10, 70);   /* 40 +- 5 standard deviations of 6 */
    assert_in_range(n[1], 150, 250); /* 200 +- 5 of 10 */
    assert_true(n[2] == N && n[3] == N);
    for (int i = 0; i < N; i++)
        assert_true(!kept[0][i] || kept[1][i]);
    str_free(&text);
}

static void items_know_their_records(void **state)
{
    World *w = *state;
    read_sets(w, PAIR("a", "") PAIR("b", ""), "{\"prompt\":\"x\",\"response\":\"y\",\"is_safe\":true}\n");
    assert_int_equal(w->set.n_pairs, 2);
    for (int i = 0; i < 3; i++)
        assert_int_equal(w->set.at[i].seq[0].record, i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_filter_drops_one_combination, setup, teardown),
        cmocka_unit_test_setup_teardown(margins_by_rating_unless_given, setup, teardown),
        cmocka_unit_test_setup_teardown(coins_swap_about_half, setup, teardown),
        cmocka_unit_test_setup_teardown(shares_of_the_prompts_are_nested, setup, teardown),
        cmocka_unit_test_setup_teardown(items_know_their_records, setup, teardown),
        cmocka_unit_test_setup_teardown(an_epoch_is_a_permutation_or_the_shares, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
