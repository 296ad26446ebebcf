/* test_checkpoint.c - what was saved comes back, and nothing that is not whole is ever believed. */
#include "common/train/checkpoint.h"

#include "common/base/error.h"
#include "common/base/file.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>

enum { N = 50000 };

typedef struct {
    char dir[64];
    int64_t step;
    double data[N];
    BlobList l;
} World;

static int setup(void **state)
{
    World *w = calloc(1, sizeof *w);
    strcpy(w->dir, "/tmp/test_checkpoint.XXXXXX");
    if (!mkdtemp(w->dir))
        return -1;
    blob_add(&w->l, "step", &w->step, sizeof w->step);
    blob_add(&w->l, "data", w->data, sizeof w->data);
    blob_add(&w->l, "nothing", NULL, 0);
    w->l.at[2].data = w->data; /* zero bytes of host memory */
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    World *w = *state;
    int rc = dir_remove(w->dir);
    blob_list_free(&w->l);
    free(w);
    return rc;
}

static void save(World *w, int64_t step)
{
    w->step = step;
    for (int i = 0; i < N; i++)
        w->data[i] = (double)step + 1.0 / (i + 1);
    assert_int_equal(checkpoint_save(w->dir, step, &w->l, "seed: 1\n"), 0);
}

static void expect(World *w, int64_t step)
{
    int64_t found = -1;
    assert_int_equal(checkpoint_find(w->dir, &found), 0);
    assert_int_equal(found, step);
    w->step = -1;
    memset(w->data, 0xff, sizeof w->data);
    assert_int_equal(checkpoint_load(w->dir, found, &w->l), 0);
    assert_int_equal(w->step, step);
    for (int i = 0; i < N; i++)
        assert_true(w->data[i] == (double)step + 1.0 / (i + 1));
}

static char *file_of(World *w, int64_t step, const char *name)
{
    char *path = xasprintf("%s/checkpoints/step-%lld/%s", w->dir, (long long)step, name);
    return path;
}

/* Changes one byte, or cuts the file there. */
static void damage(World *w, int64_t step, const char *name, long at, bool cut)
{
    char *path = file_of(w, step, name);
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    fseek(f, at, SEEK_SET);
    int c = fgetc(f);
    fseek(f, at, SEEK_SET);
    if (cut)
        assert_int_equal(ftruncate(fileno(f), at), 0);
    else
        fputc(c ^ 0x10, f);
    fclose(f);
    free(path);
}

static void comes_back(void **state)
{
    World *w = *state;
    int64_t step;
    assert_int_equal(checkpoint_find(w->dir, &step), ERR_NOINPUT);
    save(w, 9);
    save(w, 10);
    expect(w, 10); /* by number, not by name */
    save(w, 10);   /* again over the old one */
    expect(w, 10);
    char *config = file_of(w, 10, "config.yaml");
    assert_true(file_exists(config));
    free(config);
}

static void broken_ones_are_passed_over(void **state)
{
    World *w = *state;
    for (int64_t step = 1; step <= 7; step++)
        save(w, step);
    damage(w, 7, "state.bin", 8 + 8 * 40000 + 3, false);
    damage(w, 6, "state.bin", 8 + 8 * 40000, true);
    damage(w, 5, "state.bin", 0, true);
    damage(w, 4, "manifest.json", 60, true);
    char *manifest = file_of(w, 3, "manifest.json"), *whole, *copy = xasprintf("%s/checkpoints/step-8", w->dir);
    unlink(manifest);
    free(manifest);
    expect(w, 2);
    /* a folder under another number is not that step */
    whole = xasprintf("%s/checkpoints/step-2", w->dir);
    assert_int_equal(rename(whole, copy), 0);
    expect(w, 1);
    free(whole);
    free(copy);
}

static void a_bad_checksum_loads_nothing(void **state)
{
    World *w = *state;
    save(w, 1);
    damage(w, 1, "state.bin", 8 + 8 * 49999, false);
    w->step = 77;
    w->data[5] = 5;
    assert_int_equal(checkpoint_load(w->dir, 1, &w->l), ERR_DATA);
    assert_non_null(strstr(error_text(), "data"));
    assert_int_equal(w->step, 77);
    assert_true(w->data[5] == 5);
}

static void half_written_ones_are_not_seen(void **state)
{
    World *w = *state;
    save(w, 1);
    char *from = xasprintf("%s/checkpoints/step-1", w->dir), *tmp = xasprintf("%s/checkpoints/step-2.tmp", w->dir);
    save(w, 2);
    free(from);
    from = xasprintf("%s/checkpoints/step-2", w->dir);
    assert_int_equal(rename(from, tmp), 0); /* killed just before the rename */
    expect(w, 1);
    checkpoint_prune(w->dir, 3, NULL, 0);
    assert_false(file_exists(tmp));
    expect(w, 1);
    free(from);
    free(tmp);
}

static void another_list_is_refused(void **state)
{
    World *w = *state;
    BlobList other = {0};
    save(w, 1);
    blob_add(&other, "step", &w->step, sizeof w->step);
    assert_int_equal(checkpoint_load(w->dir, 1, &other), ERR_DATA);
    blob_add(&other, "data", w->data, sizeof w->data - 8);
    blob_add(&other, "nothing", w->data, 0);
    assert_int_equal(checkpoint_load(w->dir, 1, &other), ERR_DATA);
    assert_non_null(strstr(error_text(), "399992")); /* 8 * 50000 - 8 */
    blob_list_free(&other);
}

static void a_full_disk_leaves_the_old_ones(void **state)
{
    World *w = *state;
    struct rlimit old, small;
    save(w, 1);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 100000; /* state.bin has 400008 bytes */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    w->step = 2;
    int rc = checkpoint_save(w->dir, 2, &w->l, "seed: 1\n");
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(rc, ERR_CANTCREATE);
    char *tmp = xasprintf("%s/checkpoints/step-2.tmp", w->dir);
    assert_false(file_exists(tmp));
    free(tmp);
    expect(w, 1);
}

static void pruning_keeps_the_newest_and_the_named(void **state)
{
    World *w = *state;
    const int64_t kept[] = {2};
    char **names;
    int n;
    for (int64_t step = 1; step <= 12; step++)
        save(w, step);
    checkpoint_prune(w->dir, 3, kept, 1);
    char *dir = path_join(w->dir, "checkpoints");
    assert_int_equal(dir_list(dir, &names, &n), 0);
    assert_int_equal(n, 4);
    assert_string_equal(names[0], "step-10");
    assert_string_equal(names[1], "step-11");
    assert_string_equal(names[2], "step-12");
    assert_string_equal(names[3], "step-2");
    dir_list_free(names, n);
    assert_int_equal(checkpoint_remove_after(w->dir, 10), 0);
    expect(w, 10);
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(broken_ones_are_passed_over, setup, teardown),
        cmocka_unit_test_setup_teardown(a_bad_checksum_loads_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(half_written_ones_are_not_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(another_list_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_leaves_the_old_ones, setup, teardown),
        cmocka_unit_test_setup_teardown(pruning_keeps_the_newest_and_the_named, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
