/* test_malformed.c - what files of records can be wrong in: each is refused with the place where
 * and the reason why, under on_bad_row: error; under skip the good rows around it remain, unless
 * the file itself cannot be read on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/stream.h"
#include "common/data/record.h"
#include "tests/unit/scratch_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void put(const char *path, const char *text, size_t n)
{
    assert_int_equal(file_write_atomic(path, text, n), 0);
}

static void pack(const char *path, const char *text, size_t n)
{
    Writer *w;
    assert_int_equal(writer_open(&w, path), 0);
    assert_int_equal(writer_write(w, text, n), 0);
    assert_int_equal(writer_close(w), 0);
}

static int read_pairs(const char *path, BadRow on_bad, RecordSet *s)
{
    memset(s, 0, sizeof *s);
    return record_set_read(s, path, RECORD_PAIR, on_bad);
}

static void assert_message(const char *what, const char *expected)
{
    if (strncmp(error_text(), expected, strlen(expected)) || strchr(error_text(), '\n'))
        fail_msg("%s\nfound    %s\nexpected %s", what, error_text(), expected);
}

#define GOOD                "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\"}\n"
#define HEAD                "{\"prompt\":\"q\",\"chosen\":\"a\","
#define MESSAGE(role, text) "{\"role\":\"" role "\",\"content\":\"" text "\"}"

/* A bad row between two good ones; NUL bytes are written as \1 and put in. */
static const struct {
    const char *row, *error;
} rows[] = {
    /* not JSON */
    {"{", "x:2:1: not valid JSON: string or '}' expected near end of file"},
    {"}", "x:2:1: not valid JSON: unexpected token near '}'"},
    {"hello", "x:2:5: not valid JSON: invalid token near 'hello'"},
    {HEAD "\"rejected\":\"b\"", "x:2:41: not valid JSON: '}' expected near end of file"},
    {HEAD "\"rejected\":\"b", "x:2:40: not valid JSON: premature end of input near '\"b'"},
    {HEAD "\"rejected\":}", "x:2:39: not valid JSON: unexpected token near '}'"},
    {HEAD "\"rejected\" \"b\"}", "x:2:41: not valid JSON: ':' expected near '\"b\"'"},
    {HEAD "}", "x:2:28: not valid JSON: string or '}' expected near '}'"},
    {HEAD "\"rejected\":\"b\"} {}", "x:2:44: not valid JSON: end of file expected near '{'"},
    {HEAD "\"rejected\":\"b\"},", "x:2:43: not valid JSON: end of file expected near ','"},
    {"{'prompt':'q'}", "x:2:2: not valid JSON: string or '}' expected near '''"},
    {HEAD "\"rejected\":NaN}", "x:2:41: not valid JSON: invalid token near 'NaN'"},
    {HEAD "\"rejected\":\"b\",\"margin\":1e400}",
     "x:2:56: not valid JSON: real number overflow near '1e400'"},
    {HEAD "\"rejected\":\"b\",\"margin\":01}", "x:2:52: not valid JSON: invalid token near '0'"},
    {HEAD "\"rejected\":\"b\",\"margin\":-}", "x:2:52: not valid JSON: invalid token near '-'"},
    {HEAD "\"chosen\":\"b\"}", "x:2:35: not valid JSON: duplicate object key near '\"chosen\"'"},
    {HEAD "\"rejected\":\"\\ud800\"}", "x:2:46: not valid JSON: invalid Unicode"},
    {HEAD "\"rejected\":\"\\x\"}", "x:2:41: not valid JSON: invalid escape near '\"\\x'"},
    {HEAD "\"rejected\":\"\xff\"}", "x:2:39: not valid JSON: unable to decode byte 0xff near '\"'"},
    {HEAD "\"rejected\":\"\xc3\"}", "x:2:39: not valid JSON: unable to decode byte 0xc3 near '\"'"},
    {HEAD "\"rejected\":\"\xc0\xaf\"}",
     "x:2:39: not valid JSON: unable to decode byte 0xc0 near '\"'"},
    {HEAD "\"rejected\":\"\xed\xa0\x80\"}",
     "x:2:39: not valid JSON: unable to decode byte 0xed near '\"'"},
    {HEAD "\"rejected\":\"\1\"}", "x:2:39: not valid JSON: control character 0x0 near '\"'"},
    {HEAD "\"rejected\":\"b\tc\"}", "x:2:40: not valid JSON: control character 0x9"},
    {"\xef\xbb\xbf" HEAD, "x:2:27: not valid JSON: string or '}' expected near end of file"},
    /* JSON, but no row */
    {"[" HEAD "\"rejected\":\"b\"}]", "x:2:1: found an array, expected an object"},
    {"\"text\"", "x:2:1: found a string, expected an object"},
    {"null", "x:2:1: found null, expected an object"},
    {"17", "x:2:1: found an integer, expected an object"},
    {"{}", "x:2:1: chosen: missing; a preference record has prompt, chosen and rejected (found: no "
           "fields)"},
    /* wrong fields */
    {"{\"Prompt\":\"q\",\"chosen\":\"a\"}",
     "x:2:1: rejected: missing; a preference record has prompt, chosen "
     "and rejected (found: Prompt, chosen)"},
    {HEAD "\"rejected\":null}", "x:2:39: rejected: missing; a preference record has prompt, chosen "
                                "and rejected (found: prompt, chosen, rejected)"},
    {HEAD "\"rejected\":[\"b\"]}",
     "x:2:40: rejected[0]: found a string, expected a message {role, content}"},
    {HEAD "\"rejected\":[]}", "x:2:39: rejected: holds no messages"},
    {HEAD "\"rejected\":true}",
     "x:2:39: rejected: found a boolean, expected a string or a list of messages"},
    {HEAD "\"rejected\":[" MESSAGE("user", "r") "]}",
     "x:2:39: rejected: the last message is of the user, expected the assistant"},
    {HEAD "\"rejected\":[" MESSAGE("assistant", "b") ",{\"role\":1}]}",
     "x:2:75: rejected[1]: is no string: 'role'; expected a message {role, content}"},
    {HEAD "\"rejected\":[" MESSAGE("tool", "b") "]}",
     "x:2:40: rejected[0]: unknown role 'tool', expected system, user or assistant"},
    {HEAD "\"rejected\":[" MESSAGE("a\\nb", "b") "]}",
     "x:2:40: rejected[0]: unknown role 'a b', expected system, user or assistant"},
    {HEAD "\"rejected\":{\"role\":\"assistant\",\"content\":[{\"type\":\"image\"}]}}",
     "x:2:39: rejected: part 1 is of type 'image'; only text is supported"},
    {HEAD "\"rejected\":\"\"}", "x:2:39: rejected: empty answer"},
    {HEAD "\"rejected\":\" a \"}", "x:2:24: chosen: is the same as rejected"},
    {HEAD "\"rejected\":\"b\\u0000\"}", "x:2:39: rejected: holds a NUL character (\\u0000)"},
    {"{\"prompt\":[" MESSAGE("assistant", "q") "],\"chosen\":\"a\",\"rejected\":\"b\"}",
     "x:2:11: prompt: message 1 is of the assistant, expected the user"},
    {HEAD "\"rejected\":\"b\",\"strength\":\"much\"}",
     "x:2:54: strength: found 'much', expected significant, better, slight, negligible, unsure or "
     "unknown"},
    {HEAD "\"rejected\":\"b\",\"margin\":\"1\"}",
     "x:2:52: margin: found a string, expected a number"},
    {HEAD "\"rejected\":\"b\",\"chosen_safe\":0}",
     "x:2:57: chosen_safe: found an integer, expected true or false"},
    {HEAD "\"rejected\":\"b\",\"id\":[1]}",
     "x:2:48: id: found an array, expected a string or an integer"},
    {HEAD "\"rejected\":\"b\",\"id\":\"\\u0000\"}", "x:2:48: id: holds a NUL character (\\u0000)"},
    {HEAD "\"rejected\":\"b\",\"tags\":[1]}", "x:2:50: tags: entry 1 is no string"},
    {HEAD "\"rejected\":\"b\",\"weight\":-1}",
     "x:2:52: weight: found one that is not, expected a number above 0"},
    {HEAD "\"rejected\":\"b\",\"source\":7}",
     "x:2:52: source: found an integer, expected a string"},
    {HEAD "\"rejected\":\"b\",\"tools\":[{}]}", "x:2:51: tools: tools are not supported"},
};

static void test_rows(void **state)
{
    (void)state;
    static const char *const names[] = {"x", "x.gz", "x.zst"};
    assert_true(sizeof rows / sizeof *rows >= 40);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[512];
        RecordSet s;
        const int n = snprintf(text, sizeof text, GOOD "%s\n" GOOD, rows[i].row);
        for (int k = 0; k < n; k++)
            text[k] = text[k] == 1 ? 0 : text[k];
        /* written under the three names, read under the first: the bytes decide, not the name */
        pack(names[i % 3], text, (size_t)n);
        if (i % 3)
            assert_int_equal(rename(names[i % 3], "x"), 0);
        assert_int_equal(read_pairs("x", BAD_ROW_ERROR, &s), ERR_DATA);
        assert_message(rows[i].row, rows[i].error);
        assert_non_null(strstr(error_text(), "; remove the row or set on_bad_row: skip"));
        record_set_free(&s);
        if (read_pairs("x", BAD_ROW_SKIP, &s) != 0 || s.n != 2 || s.n_bad != 1)
            fail_msg("%s: %d good rows, %d bad ones", rows[i].row, (int)s.n, (int)s.n_bad);
        assert_int_equal(s.at[1].line, 3);
        record_set_free(&s);
    }
}

/* Files that cannot be read on: on_bad_row: skip does not hide that. */
static const struct {
    const char *text, *error;
} files[] = {
    {"", "x: holds no preference record"},
    {"\n \n\t\n", "x: holds no preference record"},
    {"\xef\xbb\xbf", "x: holds no preference record"},
    {"[", "x:1:2: the file ends inside its JSON array; it is cut off, or a bracket is missing"},
    {"[ ]", "x: holds no preference record"},
    {"[\n" GOOD, "x:3:1: the file ends inside its JSON array"},
    {"[" GOOD ",", "x:2:2: the file ends inside its JSON array"},
    {"[" GOOD ",{\"prompt\":\"]", "x:2:14: the file ends inside its JSON array"},
    {"[" GOOD "]\n" GOOD, "x:3:1: text follows the end of the JSON array"},
    {"[" GOOD "]]", "x:2:2: text follows the end of the JSON array"},
    {"\xff\xfe{", "x: holds UTF-16 text"},
    {"PAR1", "x: holds a Parquet file"},
};

static void test_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        RecordSet s;
        put("x", files[i].text, strlen(files[i].text));
        assert_int_equal(read_pairs("x", BAD_ROW_SKIP, &s), ERR_DATA);
        assert_message(files[i].text, files[i].error);
        record_set_free(&s);
    }
}

/* Rows of an array that begin and end in the middle of lines. */
static void test_array_places(void **state)
{
    (void)state;
    static const char good[] = "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\"}";
    static const struct {
        const char *row, *error;
    } cases[] = {
        {"{\"prompt\":\"\xc3\xa9\",\n \"chosen\": \"a\",\n \"rejected\": 7}",
         "x:4:14: rejected: found an integer"},
        {"{\"prompt\":\"q\",\"chosen\":7,\"rejected\":\"b\"}", "x:2:26: chosen: found an integer"},
        {"{\"prompt\" 7}", "x:2:13: not valid JSON: ':' expected"},
        {"{\"prompt\":\n 7 7}", "x:3:4: not valid JSON: '}' expected"},
        {"7", "x:2:3: found an integer, expected an object"},
        {"", "x:2:3: not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512];
        RecordSet s;
        const int n = snprintf(text, sizeof text, "[%s,\n  %s,%s]\n", good, cases[i].row, good);
        put("x", text, (size_t)n);
        assert_int_equal(read_pairs("x", BAD_ROW_ERROR, &s), ERR_DATA);
        assert_message(cases[i].row, cases[i].error);
        record_set_free(&s);
        assert_int_equal(read_pairs("x", BAD_ROW_SKIP, &s), 0);
        assert_int_equal(s.n, 2);
        assert_int_equal(s.n_bad, 1);
        record_set_free(&s);
    }
}

/* Nesting beyond jansson's 2048 levels, in every place; up to there it is one more ignored field.
 */
static void test_deep(void **state)
{
    (void)state;
    enum { DEEP = 1 << 20 };
    char *text = xmalloc(3 * DEEP);
    static const struct {
        int depth;
        bool closed;
        const char *error;
    } cases[] = {
        {2000, true, NULL},
        {3000, true, "x:1:2096: not valid JSON: maximum parsing depth reached near '['"},
        {DEEP, true, "x:1:2096: not valid JSON: maximum parsing depth reached near '['"},
        {DEEP, false, "x:1:2096: not valid JSON: maximum parsing depth reached near '['"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        RecordSet s;
        const size_t depth = (size_t)cases[i].depth;
        size_t n = (size_t)sprintf(text, "{\"x\":\"%033d\",\"deep\":", 0);
        memset(text + n, '[', depth);
        n += depth;
        memset(text + n, ']', depth);
        n += cases[i].closed ? depth : 0;
        n += (size_t)sprintf(text + n, ",%s", &GOOD[1]);
        put("x", text, n);
        const int rc = read_pairs("x", BAD_ROW_ERROR, &s);
        assert_int_equal(rc, cases[i].error ? ERR_DATA : 0);
        if (cases[i].error)
            assert_message("deep", cases[i].error);
        record_set_free(&s);
    }
    free(text);
}

/* gzip and zstd of a hundred rows, damaged in one place each. */
static const struct {
    const char *name;
    bool gzip;
    int cut;  /* bytes kept; below 0: that many fewer than all */
    int flip; /* this byte is changed; below 0: from the end; 0: none */
    const char *more;
    const char *error;
} archives[] = {
    {"gz: its magic alone", true, 2, 0, "", "x:1:1: the gzip data end early (truncated file?)"},
    {"gz: header alone", true, 10, 0, "", "x:1:1: the gzip data end early"},
    {"gz: half", true, 200, 0, "", "x:"},
    {"gz: without its length", true, -4, 0, "", "x:101:1: the gzip data end early"},
    {"gz: without its last byte", true, -1, 0, "", "x:101:1: the gzip data end early"},
    {"gz: method", true, 0, 2, "", "x:1:1: damaged gzip data"},
    {"gz: flags", true, 0, 3, "", "x:1:1: damaged gzip data"},
    {"gz: checksum", true, 0, -6, "", "x:101:1: damaged gzip data (or something else behind them)"},
    {"gz: length", true, 0, -2, "", "x:101:1: damaged gzip data"},
    {"gz: text behind", true, 0, 0, "hello",
     "x:101:1: damaged gzip data (or something else behind them)"},
    {"gz: half a member behind", true, 0, 0, "\x1f\x8b\x08", "x:101:1: the gzip data end early"},
    {"zst: its magic alone", false, 4, 0, "", "x:1:1: the zstd data end early (truncated file?)"},
    {"zst: half", false, 120, 0, "", "x:1:1: the zstd data end early"},
    {"zst: without its last byte", false, -1, 0, "", "x:1"},
    {"zst: window of 2 TiB", false, 0, 5, "",
     "x:1:1: the zstd data need a window of more than 128 MiB"},
    {"zst: reserved bit", false, 0, 4, "", "x:1:1: damaged zstd data"},
    {"zst: checksum", false, 0, -2, "", "x:1"},
    {"zst: text behind", false, 0, 0, "hello",
     "x:101:1: damaged zstd data (or something else behind them)"},
    {"zst: half a frame behind", false, 0, 0, "\x28\xb5\x2f\xfd",
     "x:101:1: the zstd data end early"},
};

static void test_archives(void **state)
{
    (void)state;
    Str text = {0};
    for (int i = 0; i < 100; i++)
        str_addf(&text, "{\"prompt\":\"q%d\",\"chosen\":\"a%d\",\"rejected\":\"b%d\"}\n", i, i * i,
                 i * 7);
    for (size_t i = 0; i < sizeof archives / sizeof *archives; i++) {
        char *data;
        size_t n;
        RecordSet s;
        Str file = {0};
        const int cut = archives[i].cut, flip = archives[i].flip;
        const char *packed = archives[i].gzip ? "y.gz" : "y.zst";
        pack(packed, text.s, text.n);
        assert_int_equal(file_read(packed, &data, &n), 0);
        assert_true(n > 300);
        str_add_bytes(&file, data, cut > 0 ? (size_t)cut : n - (size_t)-cut);
        if (flip) /* all bits of a window's exponent, or some */
            file.s[flip > 0 ? (size_t)flip : file.n - (size_t)-flip] ^= flip == 5 ? 0xa0 : 0x78;
        str_add(&file, archives[i].more);
        put("x", file.s, file.n);
        for (int on_bad = BAD_ROW_ERROR; on_bad <= BAD_ROW_SKIP; on_bad++) {
            if (read_pairs("x", (BadRow)on_bad, &s) != ERR_DATA)
                fail_msg("%s: accepted", archives[i].name);
            assert_message(archives[i].name, archives[i].error);
            record_set_free(&s);
        }
        str_free(&file);
        free(data);
    }
    str_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),         cmocka_unit_test(test_files),
        cmocka_unit_test(test_array_places), cmocka_unit_test(test_deep),
        cmocka_unit_test(test_archives),
    };
    return cmocka_run_group_tests_name("malformed", tests, enter, leave);
}
