/* test_metrics.c - lines of metrics.jsonl, and that a resumed file is that of a whole run. */
#include "common/train/metrics.h"

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

static char dir[64];

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/test_metrics.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return dir_remove(dir);
}

static void assert_file(const char *want)
{
    char *path = path_join(dir, "metrics.jsonl"), *text;
    size_t n;
    assert_int_equal(file_read(path, &text, &n), 0);
    assert_string_equal(text, want);
    free(text);
    free(path);
}

static void line(Metrics *m, int64_t step, double loss)
{
    metrics_set(m, "loss", loss);
    assert_int_equal(metrics_write(m, step), 0);
}

static void lines_hold_step_and_keys_in_order(void **state)
{
    (void)state;
    Metrics m;
    assert_int_equal(metrics_open(&m, dir, 0), 0);
    metrics_set(&m, "loss", 1);
    metrics_set(&m, "lr", 0.1);
    metrics_set(&m, "loss", 0.5); /* set again: replaced in place */
    assert_true(metrics_get(&m, "loss") == 0.5);
    assert_true(isnan(metrics_get(&m, "kl")));
    assert_int_equal(metrics_write(&m, 1), 0);
    assert_true(isnan(metrics_get(&m, "loss"))); /* cleared */
    metrics_set(&m, "loss", NAN);
    metrics_set(&m, "lr", INFINITY);
    assert_int_equal(metrics_write(&m, 2), 0);
    assert_int_equal(m.offset, file_bytes(m.path));
    metrics_close(&m);
    metrics_close(&m);
    char *path = path_join(dir, "metrics.jsonl"), *text;
    size_t n;
    assert_int_equal(file_read(path, &text, &n), 0);
    assert_non_null(strstr(text, "{\"step\":"));
    assert_non_null(strstr(text, "null"));
    assert_true(strchr(text, '\n') < strstr(text, "null"));
    free(text);
    free(path);
}

static void resumed_equals_whole(void **state)
{
    (void)state;
    Metrics m;
    char *path = path_join(dir, "metrics.jsonl"), *whole;
    size_t n;
    assert_int_equal(metrics_open(&m, dir, 0), 0);
    line(&m, 1, 0.25);
    int64_t offset = m.offset;
    line(&m, 2, 1.0 / 3);
    metrics_close(&m);
    assert_int_equal(file_read(path, &whole, &n), 0);
    /* the run wrote a third line and half a fourth, then was killed; its checkpoint is of step 1 */
    FILE *f = fopen(path, "a");
    fputs("{\"step\":3,\"loss\":9}\n{\"step\":4,\"lo", f);
    fclose(f);
    assert_int_equal(metrics_open(&m, dir, offset), 0);
    line(&m, 2, 1.0 / 3);
    metrics_close(&m);
    assert_file(whole);
    /* from scratch again */
    assert_int_equal(metrics_open(&m, dir, 0), 0);
    metrics_close(&m);
    assert_file("");
    free(whole);
    free(path);
}

static void a_lost_file_is_an_error(void **state)
{
    (void)state;
    Metrics m;
    assert_int_equal(metrics_open(&m, dir, 100), ERR_DATA);
    assert_non_null(strstr(error_text(), "100"));
    metrics_close(&m);
    assert_int_equal(metrics_open(&m, "/nonexistent/run", 0), ERR_CANTCREATE);
    metrics_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lines_hold_step_and_keys_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(resumed_equals_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lost_file_is_an_error, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
