/* test_base.c - the small modules: errors, strings, hashes, nearest names, log and progress. */
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/progress.h"
#include "common/base/text.h"
#include "tests/unit/scratch_folder.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

static int half_way(int code)
{
    int rc;
    TRY(code);
    return 1;
fail:
    return rc;
}

static void test_error(void **state)
{
    (void)state;
    assert_int_equal(error_set(ERR_DATA, "row %d", 3), ERR_DATA);
    assert_int_equal(error_prefix("file %s", "x"), ERR_DATA);
    assert_string_equal(error_text(), "file x: row 3");
    assert_int_equal(error_set(ERR_IO, "again: %s", error_text()), ERR_IO);
    assert_string_equal(error_text(), "again: file x: row 3");
    assert_int_equal(half_way(ERR_CONFIG), ERR_CONFIG);
    assert_int_equal(half_way(0), 1);

    char *big = xmalloc(40001);
    memset(big, 'x', 40000);
    big[40000] = 0;
    error_set(ERR_DATA, "%s", big);
    size_t n = strlen(error_text());
    assert_true(n > 10000 && strcmp(error_text() + n - 4, "x...") == 0);
    error_prefix("here");
    n = strlen(error_text());
    assert_true(strncmp(error_text(), "here: xxx", 9) == 0 &&
                strcmp(error_text() + n - 4, "x...") == 0);
    free(big);
}

static void test_str(void **state)
{
    (void)state;
    Str b = {0};
    int *v = NULL, n = 0, cap = 0;
    assert_string_equal(str_get(&b), "");
    for (int i = 0; i < 1000; i++)
        str_addf(&b, "%d,", i);
    assert_int_equal(b.n, 10 * 2 + 90 * 3 + 900 * 4); /* one, two, three digits and a comma */
    assert_int_equal(strlen(b.s), b.n);
    str_clear(&b);
    assert_string_equal(str_get(&b), "");
    str_add_bytes(&b, "a\0b", 3);
    assert_int_equal(b.n, 3);
    char *s = str_take(&b);
    assert_memory_equal(s, "a\0b", 4);
    free(s);
    str_free(&b);
    s = str_take(&b);
    assert_string_equal(s, "");
    free(s);
    for (int i = 0; i < 100; i++) {
        int at = VEC_GROW(v, n, cap);
        assert_int_equal(at, i);
        v[at] = i;
    }
    assert_int_equal(v[99], 99);
    free(v);
}

static void test_numbers(void **state)
{
    (void)state;
    Str b = {0};
    str_add_replaced(&b, "/a/b:/a/b/c", "/a", "${r}");
    str_add_replaced(&b, " none", "/a", "x");
    str_add_replaced(&b, "", "/a", "x");
    assert_string_equal(str_get(&b), "${r}/b:${r}/b/c none");
    str_clear(&b);
    str_add_double(&b, 0.1);
    str_add(&b, " ");
    str_add_double(&b, 0.1 + 0.2); /* needs all 17 digits */
    str_add(&b, " ");
    str_add_float(&b, 0.1f);
    str_add(&b, " ");
    str_add_float(&b, 16777217.f); /* 2^24 + 1 rounds to 2^24: 8 digits */
    assert_string_equal(b.s, "0.1 0.30000000000000004 0.1 16777216");
    str_free(&b);
}

static void test_hash(void **state)
{
    (void)state;
    /* XXH3 of nothing as its specification's vectors give it; CRC-32's check value */
    Hash128 h = hash128("", 0), f;
    char hex[33];
    assert_true(hash64("", 0, 0) == 0x2d06800538d394c2);
    hash128_hex(h, hex);
    assert_string_equal(hex, "99aa06d3014798d86001c324468d497f");
    assert_int_equal(hash_crc32("123456789", 9), 0xcbf43926);
    /* the check value of CRC-32C, and RFC 3720, B.4: 32 bytes of 0 and of 255 */
    assert_int_equal(hash_crc32c("123456789", 9), 0xe3069283);
    unsigned char same[32] = {0};
    assert_int_equal(hash_crc32c(same, 32), 0x8a9136aa);
    memset(same, 255, 32);
    assert_int_equal(hash_crc32c(same, 32), 0x62a8ab43);

    char *data = xcalloc(1, 700001);
    for (int i = 0; i < 700001; i++)
        data[i] = (char)(i * 31 >> 3);
    assert_int_equal(file_write_atomic("h", data, 700001), 0);
    assert_int_equal(hash128_file("h", &f), 0);
    h = hash128(data, 700001);
    assert_true(f.lo == h.lo && f.hi == h.hi);
    assert_int_equal(hash128_file("none", &f), ERR_NOINPUT);
    free(data);
}

static const char *nearest(const char *word)
{
    static const char *const known[] = {"optim.learning_rate", "batch_size", "seed"};
    TextNearest near;
    text_nearest_init(&near, word);
    for (int i = 0; i < 3; i++)
        text_nearest_try(&near, known[i]);
    return near.found ? near.found : "";
}

static void test_nearest(void **state)
{
    (void)state;
    assert_string_equal(nearest("optim.learning_rat"), "optim.learning_rate");
    assert_string_equal(nearest("learning_rate"), "optim.learning_rate");
    assert_string_equal(nearest("batchsize"), "batch_size");
    assert_string_equal(nearest("abtch_size"), "batch_size"); /* neighbours swapped */
    assert_string_equal(nearest("sede"), "seed");
    assert_string_equal(nearest("temperature"), "");
    assert_string_equal(nearest(""), "");
    assert_true(text_is_utf8("a\xC3\xA9", 3) && !text_is_utf8("a\xC3", 2));
}

/* CHECK ends the process with SIGABRT and says where and why. */
static void test_check(void **state)
{
    (void)state;
    char *text;
    size_t n;
    int status;
    fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int fd = open("caught", O_WRONLY | O_CREAT | O_TRUNC, 0666);
        dup2(fd, STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        CHECK(1 + 1 == 3, "sum %d", 2);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_int_equal(file_read("caught", &text, &n), 0);
    assert_non_null(strstr(text, "rank 0 tests/unit/test_base.c:"));
    assert_non_null(strstr(text, ": check failed: 1 + 1 == 3: sum 2\n"));
    free(text);
}

/* What levels print, with stdout and stderr both in a file. */
static void expect_log(const char *level, int rank, const char *want)
{
    char *text;
    size_t n;
    fflush(stdout);
    fflush(stderr);
    int out = dup(STDOUT_FILENO), err = dup(STDERR_FILENO);
    int fd = open("caught", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0666);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    setenv("RLHF_LOG", level, 1);
    log_init(rank);
    log_error("e %d", 1);
    log_warn("w");
    log_info("i");
    log_debug("d");
    Progress p;
    progress_init(&p, "sft", "steps", 10, 110);
    p.t_start -= 20; /* 20 s ago */
    p.t_drawn -= 20;
    progress_update(&p, 60, "loss 1");
    progress_update(&p, 61, "loss 2"); /* too soon after the line before */
    progress_done(&p);
    unsetenv("RLHF_LOG");
    log_init(0);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    close(out);
    close(err);
    close(fd);
    assert_int_equal(file_read("caught", &text, &n), 0);
    assert_string_equal(text, want);
    free(text);
}

static void test_log(void **state)
{
    (void)state;
    /* 50 steps in 20 s are 2.5/s; the 50 left take 20 s */
    expect_log("info", 0,
               "error: e 1\nwarning: w\ni\nsft  60/110 steps  2.5/s  20s left  loss 1\n");
    expect_log("error", 0, "error: e 1\n");
    expect_log("debug", 2, "rank 2: error: e 1\nrank 2: warning: w\nrank 2: d\n");
    char *text;
    size_t n;
    log_set_file("log.txt");
    expect_log("warn", 0, "error: e 1\nwarning: w\n");
    log_set_file(NULL);
    assert_int_equal(file_read("log.txt", &text, &n), 0);
    assert_non_null(strstr(text, " error: e 1\n"));
    assert_null(strstr(text, " d\n"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error),   cmocka_unit_test(test_str),
        cmocka_unit_test(test_numbers), cmocka_unit_test(test_hash),
        cmocka_unit_test(test_nearest), cmocka_unit_test(test_check),
        cmocka_unit_test(test_log),
    };
    return cmocka_run_group_tests_name("base", tests, enter, leave);
}
