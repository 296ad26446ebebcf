/* test_file.c - atomic replacement, also when the disk is full; folders; names. */
#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/unit/scratch_folder.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

static void put(const char *path, const char *text)
{
    assert_int_equal(file_write_atomic(path, text, strlen(text)), 0);
}

static void expect_file(const char *path, const char *text)
{
    char *data;
    size_t n;
    assert_int_equal(file_read(path, &data, &n), 0);
    assert_int_equal(n, strlen(text));
    assert_string_equal(data, text);
    free(data);
}

static void test_read_write(void **state)
{
    (void)state;
    char *data;
    size_t n;
    put("a", "one");
    expect_file("a", "one");
    put("a", "");
    expect_file("a", "");
    put("a", "longer than before");
    expect_file("a", "longer than before");
    assert_false(file_exists("a.tmp"));
    assert_int_equal(file_bytes("a"), 18);
    assert_int_equal(file_copy("b", "a"), ERR_NOINPUT);
    assert_int_equal(file_copy("a", "b"), 0);
    expect_file("b", "longer than before");

    assert_int_equal(file_read("none", &data, &n), ERR_NOINPUT);
    assert_string_equal(error_text(), "none: cannot be opened: No such file or directory");
    assert_null(data);
    assert_int_equal(file_read(".", &data, &n), ERR_NOINPUT);
    assert_string_equal(error_text(), ".: cannot be read: Is a directory");
    assert_int_equal(file_bytes("none"), ERR_NOINPUT);
    assert_int_equal(file_write_atomic("none/x", "", 0), ERR_CANTCREATE);
    assert_string_equal(error_text(), "none/x: cannot be created: No such file or directory");
    /* /proc files say size 0 and hold text */
    assert_int_equal(file_read("/proc/self/status", &data, &n), 0);
    assert_true(n > 0 && strncmp(data, "Name:", 5) == 0);
    free(data);
}

static void test_map(void **state)
{
    (void)state;
    FileMap m;
    put("a", "mapped");
    assert_int_equal(file_map(&m, "a"), 0);
    assert_int_equal(m.n, 6);
    assert_memory_equal(m.data, "mapped", 6);
    file_unmap(&m);
    file_unmap(&m);
    put("a", "");
    assert_int_equal(file_map(&m, "a"), 0);
    assert_int_equal(m.n, 0);
    file_unmap(&m);
    assert_int_equal(file_map(&m, "none"), ERR_NOINPUT);
}

/* What is no file on a disk is refused at once where one is expected; a pipe is read to its end elsewhere. */
static void test_stored(void **state)
{
    (void)state;
    char *data;
    size_t n;
    FileMap m;
    put("a", "text");
    assert_int_equal(file_read_stored("a", &data, &n), 0);
    assert_string_equal(data, "text");
    free(data);
    assert_int_equal(mkfifo("pipe", 0600), 0);
    alarm(20); /* instead of waiting for a writer */
    assert_int_equal(file_read_stored("pipe", &data, &n), ERR_NOINPUT);
    assert_string_equal(error_text(), "pipe: is a pipe or device; expected a file");
    assert_int_equal(file_map(&m, "pipe"), ERR_NOINPUT);
    assert_int_equal(file_read_stored("/dev/zero", &data, &n), ERR_NOINPUT);
    assert_int_equal(file_read_stored(".", &data, &n), ERR_NOINPUT);
    assert_string_equal(error_text(), ".: cannot be read: Is a directory");
    int end[2];
    assert_true(pipe(end) == 0 && write(end[1], "through", 7) == 7 && close(end[1]) == 0);
    char *path = xasprintf("/proc/self/fd/%d", end[0]); /* as a shell's <(...) */
    assert_int_equal(file_read(path, &data, &n), 0);
    assert_string_equal(data, "through");
    alarm(0);
    close(end[0]);
    free(data);
    free(path);
    assert_int_equal(symlink("gone", "link"), 0);
    assert_true(file_is_there("link") && !file_exists("link") && !file_is_there("gone"));
    assert_int_equal(file_read("link", &data, &n), ERR_NOINPUT);
    assert_string_equal(error_text(), "link: is a link to a file that is not there");
}

/* A limit on the size of files fails the write half way, as a full disk does. */
static void test_full_disk(void **state)
{
    (void)state;
    enum { LIMIT = 4096 };
    struct rlimit before, small;
    char *data = calloc(1, 2 * LIMIT);
    assert_non_null(data);
    put("kept", "old");
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = LIMIT;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int rc = file_write_atomic("kept", data, 2 * LIMIT);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, handler);
    free(data);
    assert_int_equal(rc, ERR_CANTCREATE);
    assert_string_equal(error_text(), "kept: cannot be written: File too large");
    expect_file("kept", "old");
    assert_false(file_exists("kept.tmp"));
    if (access("/dev/full", W_OK) == 0) {
        assert_int_equal(file_write_atomic("/dev/full", "x", 1), ERR_CANTCREATE);
        assert_string_equal(error_text(), "/dev/full: cannot be written: No space left on device");
    }
}

static void test_folders(void **state)
{
    (void)state;
    char **names;
    int n;
    assert_int_equal(dir_make("d/e//f/"), 0);
    assert_int_equal(dir_make("d/e/f"), 0);
    assert_true(file_is_dir("d/e/f"));
    put("d/z", "");
    put("d/B", "");
    put("d/.hidden", "");
    assert_int_equal(symlink("/", "d/link"), 0); /* must not be followed */
    assert_int_equal(dir_list("d", &names, &n), 0);
    assert_int_equal(n, 5);
    static const char *const want[] = {".hidden", "B", "e", "link", "z"};
    for (int i = 0; i < n; i++)
        assert_string_equal(names[i], want[i]);
    dir_list_free(names, n);
    assert_int_equal(dir_make("d/z/x"), ERR_CANTCREATE);
    assert_string_equal(error_text(), "d/z: the folder cannot be created: File exists");
    assert_int_equal(dir_remove("d"), 0);
    assert_false(file_exists("d"));
    assert_true(file_is_dir("/"));
    assert_int_equal(dir_remove("d"), 0);
    assert_int_equal(dir_list("d", &names, &n), ERR_NOINPUT);
}

static void test_commit(void **state)
{
    (void)state;
    assert_int_equal(dir_make("c.tmp/sub"), 0);
    put("c.tmp/sub/x", "1");
    assert_int_equal(dir_commit("c.tmp", "c"), 0);
    expect_file("c/sub/x", "1");
    assert_false(file_exists("c.tmp"));

    assert_int_equal(dir_make("c.tmp"), 0);
    put("c.tmp/y", "2");
    assert_int_equal(dir_commit("c.tmp", "c"), 0);
    expect_file("c/y", "2");
    assert_false(file_exists("c/sub")); /* replaced, not merged */
    assert_false(file_exists("c.tmp"));
    assert_false(file_exists("c.old"));
    assert_true(dir_commit("none", "c") < 0);
    expect_file("c/y", "2");
}

static void expect_path(char *path, const char *want)
{
    assert_string_equal(path, want);
    free(path);
}

static void test_names(void **state)
{
    (void)state;
    expect_path(path_join("a", "b"), "a/b");
    expect_path(path_join("a/", "b"), "a/b");
    expect_path(path_join("", "b"), "b");
    expect_path(path_join("a", "/b"), "/b");
    expect_path(path_dir("a"), ".");
    expect_path(path_dir("a/b"), "a");
    expect_path(path_dir("a/b/"), "a");
    expect_path(path_dir("/a"), "/");
    expect_path(path_dir("/"), "/");
    assert_string_equal(path_base("a/b.c"), "b.c");
    assert_string_equal(path_base("b"), "b");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_write), cmocka_unit_test(test_map), cmocka_unit_test(test_stored),
        cmocka_unit_test(test_full_disk),  cmocka_unit_test(test_folders),
        cmocka_unit_test(test_commit),     cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests_name("file", tests, enter, leave);
}
