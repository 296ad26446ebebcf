/* test_stream.c - lines through plain, gzip and zstd files: the same lines each way, members and
 * frames one behind the other, damage and truncation as errors, outputs only when whole. */
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/stream.h"
#include "tests/unit/scratch_folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

static const char *const names[] = {"plain.txt", "packed.gz", "packed.zst"};
enum { KINDS = 3, LINES = 30000 };

static void put(const char *path, const void *data, size_t n)
{
    assert_int_equal(file_write_atomic(path, data, n), 0);
}

static void make(const char *path, const char *text)
{
    Writer *w;
    assert_int_equal(writer_open(&w, path), 0);
    assert_int_equal(writer_write(w, text, strlen(text)), 0);
    assert_int_equal(writer_close(w), 0);
}

/* All lines joined with '|', and reader_line's last result. */
static int read_all(const char *path, Str *out)
{
    Reader *r;
    char *line;
    size_t n;
    int rc = reader_open(&r, path);
    str_clear(out);
    if (rc < 0)
        return rc;
    while ((rc = reader_line(r, &line, &n)) == 1) {
        assert_int_equal(line[n], 0);
        str_add_bytes(out, line, n);
        str_add(out, "|");
    }
    reader_close(r);
    return rc;
}

static void expect_lines(const char *path, const char *want)
{
    Str out = {0};
    assert_int_equal(read_all(path, &out), 0);
    assert_string_equal(str_get(&out), want);
    str_free(&out);
}

/* Lengths 0 .. 199 in turn, hardly compressible, so that lines straddle every buffer's end. */
static size_t line_text(char *to, int i)
{
    size_t n = (size_t)(i * 37 % 200);
    unsigned x = (unsigned)i * 2654435761u;
    for (size_t k = 0; k < n; k++) {
        x = x * 1664525u + 1013904223u;
        to[k] = (char)('0' + (x >> 24) % 75);
    }
    return n;
}

static void test_many_lines(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        Writer *w;
        Reader *r;
        char want[256], *line;
        size_t n;
        assert_int_equal(writer_open(&w, names[k]), 0);
        for (int i = 0; i < LINES; i++) {
            n = line_text(want, i);
            want[n] = '\n';
            assert_int_equal(writer_write(w, want, n + 1), 0);
        }
        assert_false(file_exists(names[k])); /* not before it is whole */
        assert_int_equal(writer_close(w), 0);
        assert_int_equal(reader_open(&r, names[k]), 0);
        for (int i = 0; i < LINES; i++) {
            assert_int_equal(reader_line(r, &line, &n), 1);
            assert_int_equal(reader_line_number(r), i + 1);
            assert_int_equal(n, line_text(want, i));
            assert_memory_equal(line, want, n);
        }
        assert_int_equal(reader_line(r, &line, &n), 0);
        assert_int_equal(reader_line(r, &line, &n), 0);
        reader_close(r);
    }
}

static void test_ends(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"", ""},
        {"\n", "|"},
        {"a", "a|"},
        {"a\nb", "a|b|"},
        {"a\r\nb\r\n\r\n", "a|b||"},
        {"a\rb\n", "a\rb|"},
        {"\xEF\xBB\xBFx\n\xEF\xBB\xBFy\n", "x|\xEF\xBB\xBFy|"},
        {"\xEF\xBB", "\xEF\xBB|"},
    };
    for (int k = 0; k < KINDS; k++) {
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            make(names[k], cases[i].text);
            expect_lines(names[k], cases[i].want);
        }
    }
}

static void test_rest(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        Reader *r;
        char *line, *rest;
        size_t n;
        make(names[k], "one\ntwo\nthree");
        assert_int_equal(reader_open(&r, names[k]), 0);
        assert_int_equal(reader_line(r, &line, &n), 1);
        assert_int_equal(reader_rest(r, &rest, &n), 0);
        assert_int_equal(n, 9);
        assert_string_equal(rest, "two\nthree");
        assert_int_equal(reader_line(r, &line, &n), 0);
        free(rest);
        reader_close(r);
    }
}

/* Kind comes from the content, so the joined file may have any name. */
static void test_concatenated(void **state)
{
    (void)state;
    for (int k = 1; k < KINDS; k++) {
        char *data;
        size_t n;
        Str both = {0};
        make(names[k], "a\nb");
        assert_int_equal(file_read(names[k], &data, &n), 0);
        str_add_bytes(&both, data, n);
        str_add_bytes(&both, data, n);
        free(data);
        put("joined", both.s, both.n);
        expect_lines("joined", "a|ba|b|");

        str_add(&both, "garbage");
        put("joined", both.s, both.n);
        Str out = {0};
        assert_int_equal(read_all("joined", &out), ERR_DATA);
        str_free(&out);
        str_free(&both);
    }
    /* zeros behind a gzip file are padding */
    char *data;
    size_t n;
    Str padded = {0};
    make(names[1], "a\n");
    assert_int_equal(file_read(names[1], &data, &n), 0);
    str_add_bytes(&padded, data, n);
    str_add_bytes(&padded, "\0\0\0\0\0", 5);
    put("joined", padded.s, padded.n);
    expect_lines("joined", "a|");
    free(data);
    str_free(&padded);
}

/* The first byte that is no blank, left where it is, also when it lies behind the first buffer. */
static void test_peek(void **state)
{
    (void)state;
    const size_t n = 300000;
    char *text = xmalloc(n + 4);
    memset(text, ' ', n);
    memcpy(text + n, "\n[x", 4);
    for (int k = 0; k < KINDS; k++) {
        Reader *r;
        char first, *line;
        size_t len;
        make(names[k], text);
        assert_int_equal(reader_open(&r, names[k]), 0);
        for (int twice = 0; twice < 2; twice++) {
            assert_int_equal(reader_peek(r, &first), 0);
            assert_int_equal(first, '[');
        }
        assert_int_equal(reader_line(r, &line, &len), 1);
        assert_int_equal(len, n);
        reader_close(r);
        make(names[k], " \n");
        assert_int_equal(reader_open(&r, names[k]), 0);
        assert_int_equal(reader_peek(r, &first), 0);
        assert_int_equal(first, 0);
        reader_close(r);
    }
    free(text);
}

/* Other kinds of file, by their first bytes, with what to do. */
static void test_foreign(void **state)
{
    (void)state;
    static const struct {
        const char *magic;
        size_t n;
        const char *what;
    } cases[] = {
        {"\xFD\x37zXZ\0\0\4", 8, "x: holds xz data; decompress them first: xz -d"},
        {"BZh91AY", 7, "x: holds bzip2 data"},
        {"PK\3\4abcd", 8, "x: holds a zip archive"},
        {"PAR1\x15\4", 6, "x: holds a Parquet file; write it as JSON lines first"},
        {"ARROW1\0\0", 8, "x: holds an Arrow file"},
        {"\x04\x22\x4D\x18xx", 6, "x: holds lz4 data"},
        {"\xFF\xFE{\0}\0", 6, "x: holds UTF-16 text; write it as UTF-8: iconv"},
        {"\xFE\xFF\0{\0}", 6, "x: holds UTF-16 text"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Reader *r;
        put("x", cases[i].magic, cases[i].n);
        assert_int_equal(reader_open(&r, "x"), ERR_DATA);
        assert_memory_equal(error_text(), cases[i].what, strlen(cases[i].what));
        assert_null(r);
    }
}

/* Cut anywhere behind the magic bytes, an archive is an error; never a shorter file. */
static void test_truncated(void **state)
{
    (void)state;
    for (int k = 1; k < KINDS; k++) {
        char *data;
        size_t n;
        make(names[k], "the quick brown fox\njumps over\nthe lazy dog\n");
        assert_int_equal(file_read(names[k], &data, &n), 0);
        for (size_t cut = 4; cut < n; cut++) {
            Str out = {0};
            put("cut", data, cut);
            assert_int_equal(read_all("cut", &out), ERR_DATA);
            assert_non_null(strstr(error_text(), "data end early"));
            const size_t kept = out.n; /* lines read before, each with a '|' */
            int64_t line = 1;
            for (size_t i = 0; i < kept; i++)
                line += out.s[i] == '|';
            char place[32];
            snprintf(place, sizeof place, "cut:%lld:", (long long)line);
            assert_memory_equal(error_text(), place, strlen(place));
            str_free(&out);
        }
        data[n - 3] ^= 1; /* a checksum stands at the end of both */
        Str out = {0};
        put("cut", data, n);
        assert_int_equal(read_all("cut", &out), ERR_DATA);
        assert_non_null(strstr(error_text(), "damaged"));
        str_free(&out);
        free(data);
    }
}

static void test_long_line(void **state)
{
    (void)state;
    size_t n = ((size_t)64 << 20) + 1;
    char *text = xmalloc(n + 1);
    Str out = {0};
    memset(text, 'x', n);
    text[n] = '\n';
    Writer *w;
    assert_int_equal(writer_open(&w, "long.zst"), 0);
    assert_int_equal(writer_write(w, "a\n", 2), 0);
    assert_int_equal(writer_write(w, text, n + 1), 0);
    assert_int_equal(writer_close(w), 0);
    assert_int_equal(read_all("long.zst", &out), ERR_DATA);
    assert_string_equal(error_text(), "long.zst:2: the line is longer than 64 MiB");
    free(text);
    str_free(&out);
}

static void test_outputs(void **state)
{
    (void)state;
    Writer *w;
    put("kept", "old", 3);
    assert_int_equal(writer_open(&w, "kept"), 0);
    assert_int_equal(writer_write(w, "new", 3), 0);
    writer_abort(w);
    expect_lines("kept", "old|");
    assert_false(file_exists("kept.tmp"));
    writer_abort(NULL);
    reader_close(NULL);

    assert_int_equal(writer_open(&w, "none/x"), ERR_CANTCREATE);
    assert_string_equal(error_text(), "none/x: cannot be created: No such file or directory");
    assert_null(w);

    Reader *r;
    assert_int_equal(reader_open(&r, "none"), ERR_NOINPUT);
    assert_string_equal(error_text(), "none: cannot be opened: No such file or directory");
    assert_null(r);
    assert_int_equal(reader_open(&r, "."), ERR_NOINPUT);
}

/* /dev/full answers every write with ENOSPC; a device is written in place and never replaced. */
static void test_full_disk(void **state)
{
    (void)state;
    Writer *w;
    char *block = xcalloc(1, 1 << 20);
    if (access("/dev/full", W_OK) != 0) {
        free(block);
        skip();
    }
    assert_int_equal(writer_open(&w, "/dev/full"), 0);
    assert_int_equal(writer_write(w, block, 1 << 20), ERR_CANTCREATE);
    assert_int_equal(writer_write(w, "x", 1), ERR_CANTCREATE);
    assert_int_equal(writer_close(w), ERR_CANTCREATE);
    assert_string_equal(error_text(), "/dev/full: cannot be written: No space left on device");
    assert_int_equal(writer_open(&w, "/dev/full"), 0);
    assert_int_equal(writer_write(w, "x", 1), 0); /* buffered: close tells */
    assert_int_equal(writer_close(w), ERR_CANTCREATE);
    free(block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_lines), cmocka_unit_test(test_ends),
        cmocka_unit_test(test_rest),       cmocka_unit_test(test_concatenated),
        cmocka_unit_test(test_peek),        cmocka_unit_test(test_foreign),
        cmocka_unit_test(test_truncated),  cmocka_unit_test(test_long_line),
        cmocka_unit_test(test_outputs),    cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests_name("stream", tests, enter, leave);
}
