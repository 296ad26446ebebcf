/* test_plot.c - plots are closed, finite and escaped, whatever the numbers are; ticks are round. */
#include "common/train/plot.h"

#include "common/base/file.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static int count(const char *text, const char *what)
{
    int n = 0;
    while ((text = strstr(text, what))) {
        n++;
        text += strlen(what);
    }
    return n;
}

static void assert_sound(const Str *s)
{
    assert_int_equal(count(str_get(s), "<svg"), count(str_get(s), "</svg>"));
    assert_int_equal(count(str_get(s), "<text"), count(str_get(s), "</text>"));
    assert_int_equal(count(str_get(s), "nan") + count(str_get(s), "inf"), 0);
}

static void ticks_are_round(void **state)
{
    (void)state;
    const double x[] = {0, 50, 100}, y[] = {0.03, 0.41, 0.97};
    PlotSeries s = {"loss", x, y, NULL, NULL, 3};
    Str out = {0};
    plot_svg(&out, &(Plot){.title = "a < b & c", .series = &s, .n_series = 1});
    assert_sound(&out);
    assert_non_null(strstr(str_get(&out), "a &lt; b &amp; c"));
    /* y: 0.94 / 6 -> steps of 0.2 from 0 to 1.0; x: 100 / 7 -> steps of 20 */
    assert_non_null(strstr(str_get(&out), ">0.2<"));
    assert_non_null(strstr(str_get(&out), ">1.0<"));
    assert_non_null(strstr(str_get(&out), ">20<"));
    assert_null(strstr(str_get(&out), ">10<"));
    str_free(&out);
}

static void gaps_and_degenerate_data(void **state)
{
    (void)state;
    const double x[] = {0, 1, 2, 3}, y[] = {1, NAN, 2, INFINITY}, none[] = {NAN, NAN, NAN, NAN};
    const double flat[] = {5, 5, 5, 5}, low[] = {4, 4, NAN, 4}, high[] = {6, 6, 6, 6};
    static const char *const ticks[] = {"one", "two", "three, with a long name", "four"};
    PlotSeries s[] = {{"gaps", x, y, NULL, NULL, 4}, {"none", x, none, low, high, 4}, {"flat", x, flat, low, high, 4}};
    Str out = {0};
    for (int k = 0; k < 3; k++) {
        plot_svg(&out, &(Plot){.title = "t", .series = &s[k], .n_series = 1, .x_label = "x", .y_label = "y"});
        assert_sound(&out);
    }
    plot_svg(&out, &(Plot){.title = "all", .series = s, .n_series = 3, .x_ticks = ticks, .n_x_ticks = 4});
    plot_svg(&out, &(Plot){.title = "empty"});
    assert_sound(&out);
    str_free(&out);
}

/* Where the first circle behind `at` stands. */
static double circle_after(const char **at)
{
    *at = strstr(*at, "cx=\"");
    assert_non_null(*at);
    *at += strlen("cx=\"");
    return strtod(*at, NULL);
}

/* Whiskers of the same categories stand side by side; a series with its own places stands there. */
static void categories_beside_each_other(void **state)
{
    (void)state;
    const double x[] = {0}, own[] = {0}, y[] = {1};
    static const char *const ticks[] = {"only"};
    PlotSeries s[] = {{"a", x, y, y, y, 1}, {"b", x, y, y, y, 1}, {"c", own, y, NULL, NULL, 1}};
    for (int beside = 0; beside < 2; beside++) {
        Str out = {0};
        s[1].x = beside ? x : own;
        plot_svg(&out, &(Plot){.title = "t", .series = s, .n_series = 3, .x_ticks = ticks, .n_x_ticks = 1});
        const char *at = str_get(&out);
        const double a = circle_after(&at), b = circle_after(&at), c = circle_after(&at);
        assert_true(fabs(b - a - (beside ? 9 : 0)) < 0.11);
        assert_true(fabs((a + b) / 2 - c) < 0.11); /* one decimal is written */
        str_free(&out);
        PlotSeries between[] = {s[0], s[2], s[1]}; /* another order, the same places */
        plot_svg(&out, &(Plot){.title = "t", .series = between, .n_series = 3, .x_ticks = ticks, .n_x_ticks = 1});
        at = str_get(&out);
        assert_true(circle_after(&at) == a && circle_after(&at) == c && circle_after(&at) == b);
        str_free(&out);
    }
}

static void groups_of_a_metrics_file(void **state)
{
    (void)state;
    char dir[] = "/tmp/test_plot.XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *path = path_join(dir, "metrics.jsonl");
    Str file = {0}, out = {0};
    for (int i = 1; i <= 2000; i++)
        str_addf(&file, "{\"step\": %d, \"loss\": %g, \"objective/kl\": %s, \"val/ratio\": 1}\n", i, 1.0 / i,
                 i % 2 ? "null" : "0.5");
    assert_int_equal(file_write_atomic(path, str_get(&file), file.n), 0);
    html_begin(&out, "run");
    assert_int_equal(plot_metrics(&out, path), 0);
    html_end(&out);
    assert_sound(&out);
    assert_int_equal(count(str_get(&out), "<svg"), 3);
    assert_int_equal(count(str_get(&out), "<h2>"), 3);
    assert_non_null(strstr(str_get(&out), "<h2>objective</h2>"));
    assert_true(out.n < 100000); /* 2000 steps are thinned to 400 points */
    assert_true(plot_metrics(&out, "/nonexistent/metrics.jsonl") < 0);
    str_free(&file);
    str_free(&out);
    free(path);
    dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(ticks_are_round), cmocka_unit_test(gaps_and_degenerate_data),
                                       cmocka_unit_test(categories_beside_each_other),
                                       cmocka_unit_test(groups_of_a_metrics_file)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
