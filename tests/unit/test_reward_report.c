/* test_reward_report.c - two models, length and a judge on two test sets: every table by hand where it is new, the JSON
 * read back, the page closed and free of nan. */
#include "reward/reward_report.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define NEAR(a, b) assert_true(fabs((a) - (b)) <= 1e-12)

enum { HELPFUL = 8, SAFE = 12, N = HELPFUL + SAFE };

typedef struct {
    int32_t id[N];
    PairItem items[N];
    PairSet all;
    JudgeAnswer answer[N];
    RewardReport e;
} World;

static EvalRow *add_row(RewardReport *e, const char *name, EvalWho who)
{
    EvalRow *r = &e->row[e->n_rows++];
    *r = (EvalRow){.name = name, .path = who == EVAL_LENGTH ? NULL : "a <folder>", .who = who,
                   .score = xcalloc(N, sizeof *r->score)};
    return r;
}

/* Set "helpful": rated pairs without labels; model A is right about 6 of 8, B about 4, the chosen answer is longer in
 * 5, the judge is asked about 4. Set "safe": labelled pairs; A is right about 9 of 12, B about all. */
static int setup(void **state)
{
    World *w = xcalloc(1, sizeof *w);
    *state = w;
    w->all = (PairSet){.at = w->items, .n = N};
    RewardReport *e = &w->e;
    *e = (RewardReport){.all = &w->all, .precision = .9, .n_sets = 2, .answer = w->answer, .judge_prompt = "A & B?"};
    e->set = xcalloc(2, sizeof *e->set);
    e->row = xcalloc(4, sizeof *e->row);
    e->curve = xcalloc(3, sizeof *e->curve);
    e->judge = xcalloc(2, sizeof *e->judge);
    e->set[0] = (EvalSet){.name = "helpful", .first = 0, .end = HELPFUL};
    e->set[1] = (EvalSet){.name = "safe <1>", .first = HELPFUL, .end = N};
    EvalRow *a = add_row(e, "A", EVAL_MODEL), *b = add_row(e, "B", EVAL_MODEL);
    for (int i = 0; i < N; i++) {
        bool safe = i >= HELPFUL;
        int k = safe ? i - HELPFUL : i;
        w->id[i] = i;
        w->items[i] = (PairItem){.n_seqs = 2, .strength = safe ? STRENGTH_UNKNOWN : (Strength)(k % 2)};
        w->items[i].seq[0] = (Example){.ids = &w->id[i], .n_prompt = 1, .n = k < 5 ? 9 : 4};
        w->items[i].seq[1] = (Example){.ids = &w->id[i], .n_prompt = 1, .n = 6};
        if (safe) {
            w->items[i].label[0] = SAFETY_SAFE;
            w->items[i].label[1] = k % 3 ? SAFETY_UNSAFE : SAFETY_SAFE;
        }
        a->score[i][0] = k < (safe ? 9 : 6) ? 2 : -2;
        b->score[i][0] = safe || k < 4 ? 1 : -1;
        w->answer[i] = (JudgeAnswer){{{-1, -2}, {k < 2 ? -2 : -1, k < 2 ? -1 : -3}}};
        if (safe || k >= 4)
            w->answer[i].logp[0][0] = NAN;
    }
    EvalRow *length = add_row(e, "length", EVAL_LENGTH), *judge = add_row(e, "judge", EVAL_JUDGE);
    eval_length(&w->all, length->score);
    judge_scores(w->answer, N, judge->score);
    for (int i = 0; i < 3; i++) {
        e->curve[i] = (EvalRow){.name = i < 2 ? "7B" : "13B", .path = "x", .who = EVAL_MODEL, .examples = 1000 * (i % 2 + 1),
                                .score = xcalloc(N, sizeof *e->curve[i].score)};
        memcpy(e->curve[i].score, i ? b->score : a->score, N * sizeof *a->score);
    }
    e->n_curve = 3;
    reward_report_fill(e);
    return 0;
}

static int teardown(void **state)
{
    World *w = *state;
    reward_report_free(&w->e);
    free(w);
    return 0;
}

static void numbers(void **state)
{
    const RewardReport *e = &((World *)*state)->e;
    assert_true(e->set[0].n_pairs == HELPFUL && e->set[1].n_pairs == SAFE && e->set[1].n_prompts == SAFE);
    NEAR(accuracy_of(e->row[0].table[0].all), 6. / 8);
    NEAR(accuracy_of(e->row[0].table[1].all), 9. / 12);
    NEAR(accuracy_of(e->row[1].table[0].all), 4. / 8);
    NEAR(accuracy_of(e->row[1].table[1].all), 1);
    NEAR(accuracy_of(e->row[2].table[0].all), 5. / 8); /* length */
    NEAR(accuracy_of(e->row[2].table[1].all), 5. / 12);
    /* judge: x_0 = 1; x_1 = 1 for the first two, -2 for the next */
    assert_true(e->row[3].table[0].all.n == 4 && e->row[3].table[0].all.right == 2);
    assert_true(e->row[3].table[1].all.n == 0 && e->judge[1].both.n == 0);
    NEAR(e->judge[0].says_first.value, .75);
    NEAR(e->row[0].mean.value, .75);
    NEAR(e->row[1].mean.value, .75); /* sets count the same: not (4 + 12) / 20 */
    assert_true(e->row[1].mean.low < .75 && e->row[1].mean.high > .75);
}

static void comparisons(void **state)
{
    const RewardReport *e = &((World *)*state)->e;
    assert_int_equal(e->n_comparisons, 6);
    const EvalComparison *c = e->comparison; /* A against B, length, judge, on each set */
    assert_true(c[0].row == 1 && c[0].set == 0 && c[3].row == 2 && c[3].set == 1);
    NEAR(c[0].accuracy.value, 2. / 8);
    NEAR(c[1].accuracy.value, -3. / 12);
    NEAR(c[2].accuracy.value, 1. / 8);
    NEAR(c[4].accuracy.value, .5); /* on the four that the judge was asked about A is always right */
    assert_true(isnan(c[5].accuracy.value));
    assert_true(!c[0].has_detect && c[1].has_detect && !c[3].has_detect);
    NEAR(c[1].detect.difference[DETECT_AUC].value,
         e->row[0].table[1].detect.at[DETECT_AUC].value - e->row[1].table[1].detect.at[DETECT_AUC].value);
}

static void the_text(void **state)
{
    Str out = {0};
    reward_report_print(&((World *)*state)->e, &out);
    const char *text = str_get(&out);
    assert_non_null(strstr(text, "Accuracy of A minus that of each other"));
    assert_non_null(strstr(text, "75.0 [40.9, 92.9]")); /* 6 of 8 */
    assert_non_null(strstr(text, "+25.0 ["));
    assert_non_null(strstr(text, "significant"));
    assert_null(strstr(text, "negligible")); /* a rating nobody gave has no column */
    assert_non_null(strstr(text, "Calling an answer unsafe: safe <1>"));
    assert_null(strstr(text, "Calling an answer unsafe: helpful"));
    assert_null(strstr(text, "nan"));
    str_free(&out);
}

static double number(const Json *j, const char *key)
{
    return json_num(json_get(json_get(j, key), "value"), NAN);
}

static void the_json(void **state)
{
    Str out = {0};
    Json *j = NULL;
    reward_report_json(&((World *)*state)->e, &out);
    assert_int_equal(json_parse(&j, str_get(&out), out.n, "text", 1), 0);
    assert_int_equal(json_len(json_get(j, "models")), 4);
    const Json *b = json_at(json_get(j, "models"), 1), *on_safe = json_at(json_get(b, "sets"), 1);
    assert_string_equal(json_str(json_get(b, "name")), "B");
    assert_string_equal(json_str(json_get(on_safe, "set")), "safe <1>");
    NEAR(json_num(json_get(json_get(on_safe, "all"), "accuracy"), NAN), 1);
    assert_int_equal(json_int(json_get(on_safe, "n_unsafe"), 0), 8);
    NEAR(number(b, "mean_accuracy"), .75);
    const Json *c = json_at(json_get(j, "comparisons"), 1);
    assert_string_equal(json_str(json_get(c, "against")), "B");
    NEAR(number(c, "accuracy_difference"), -.25);
    assert_int_equal(json_kind(json_get(json_get(json_get(c, "compare"), "difference"), "recall_50")), JSON_OBJ);
    NEAR(number(json_at(json_get(json_get(j, "judge"), "sets"), 0), "says_first"), .75);
    NEAR(json_num(json_get(json_at(json_get(j, "curve"), 1), "examples"), NAN), 2000);
    json_free(j);
    str_free(&out);
}

static int count(const char *text, const char *what)
{
    int n = 0;
    for (; (text = strstr(text, what)); text++)
        n++;
    return n;
}

/* Every element that is opened is closed, in order; void and self-closing ones aside. */
static void assert_closed(const char *text)
{
    const char *open[64];
    size_t length[64];
    int depth = 0;
    for (const char *p = strchr(text, '<'); p; p = strchr(p + 1, '<')) {
        const char *name = p + 1, *end = strchr(p, '>');
        assert_non_null(end);
        size_t n = strcspn(name + (*name == '/'), " >/");
        if (*name == '!' || end[-1] == '/' || (n == 4 && !strncmp(name, "meta", 4)))
            continue;
        if (*name == '/') {
            assert_true(depth > 0);
            depth--;
            assert_true(length[depth] == n && !strncmp(open[depth], name + 1, n));
            continue;
        }
        assert_true(depth < 64);
        open[depth] = name;
        length[depth++] = n;
    }
    assert_int_equal(depth, 0);
}

static void the_page(void **state)
{
    Str out = {0};
    reward_report_html(&((World *)*state)->e, &out);
    const char *text = str_get(&out);
    assert_closed(text);
    assert_int_equal(count(text, "nan") + count(text, "inf\""), 0);
    assert_non_null(strstr(text, "safe &lt;1&gt;"));
    assert_null(strstr(text, "safe <1>"));
    assert_non_null(strstr(text, "a &lt;folder&gt;"));
    assert_non_null(strstr(text, "A &amp; B?"));
    assert_null(strstr(text, "<script"));
    assert_int_equal(count(text, "src=") + count(text, "href="), 0); /* nothing is loaded */
    /* ratings 1 (the second set is not rated), safety 1, curves 2 + 1 significant, reliability 2 + 1, differences 1,
     * scores 4 */
    assert_int_equal(count(text, "<svg"), 1 + 1 + 3 + 3 + 1 + 4);
    str_free(&out);
}

/* One model, one set of labelled answers without pairs: most tables have nothing to say and are not there. */
static void labels_alone(void **state)
{
    (void)state;
    int32_t id[2] = {1, 2};
    PairItem items[2];
    for (int i = 0; i < 2; i++)
        items[i] = (PairItem){.n_seqs = 1, .seq = {{.ids = &id[i], .n = 2, .n_prompt = 1}},
                              .label = {i ? SAFETY_SAFE : SAFETY_UNSAFE}};
    PairSet all = {.at = items, .n = 2};
    RewardReport e = {.all = &all, .precision = .9, .n_sets = 1, .n_rows = 1};
    e.set = xcalloc(1, sizeof *e.set);
    e.set[0] = (EvalSet){.name = "labels", .end = 2};
    e.row = xcalloc(1, sizeof *e.row);
    e.row[0] = (EvalRow){.name = "A", .path = "a", .who = EVAL_MODEL, .score = xcalloc(2, sizeof *e.row[0].score)};
    e.row[0].score[1][0] = 3;
    reward_report_fill(&e);
    Str text = {0}, page = {0}, json = {0};
    reward_report_print(&e, &text);
    reward_report_html(&e, &page);
    reward_report_json(&e, &json);
    assert_null(strstr(str_get(&text), "Accuracy, %"));
    assert_non_null(strstr(str_get(&text), "Calling an answer unsafe: labels"));
    assert_closed(str_get(&page));
    assert_true(isnan(e.row[0].mean.value));
    reward_report_free(&e);
    reward_report_free(&e);
    str_free(&text);
    str_free(&page);
    str_free(&json);
}

static void cells(void **state)
{
    (void)state;
    Grid g;
    Str out = {0};
    grid_init(&g, "T", NULL, "", "x", NULL);
    grid_column(&g, "long head");
    grid_text(&g, "a");
    grid_interval(&g, (Interval){.5, .25, .75}, 100, 1, false);
    grid_interval(&g, (Interval){-.0001, -.5, .5}, 1, 2, true);
    grid_text(&g, "b");
    grid_interval(&g, (Interval){NAN, NAN, NAN}, 1, 1, false);
    grid_interval(&g, (Interval){.2, NAN, NAN}, 10, 0, true);
    assert_true(g.rows == 3 && g.cols == 3);
    grid_print(&g, &out);
    assert_string_equal(str_get(&out), "T\n"
                                       "     x                  long head\n"
                                       "  a  50.0 [25.0, 75.0]  +0.00 [-0.50, +0.50]\n"
                                       "  b  -                  +2\n\n");
    grid_free(&g);
    grid_free(&g);
    str_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(comparisons, setup, teardown),
        cmocka_unit_test_setup_teardown(the_text, setup, teardown),
        cmocka_unit_test_setup_teardown(the_json, setup, teardown),
        cmocka_unit_test_setup_teardown(the_page, setup, teardown),
        cmocka_unit_test(labels_alone),
        cmocka_unit_test(cells),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
