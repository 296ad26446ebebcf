/* test_json.c - reading with places, exact integers and odd strings; a writer whose text is always
 * valid and reads back to the same values. */
#include "common/base/error.h"
#include "common/base/json.h"
#include "common/base/text.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

static Json *parse(const char *text)
{
    Json *j;
    int rc = json_parse(&j, text, strlen(text), "t", 1);
    if (rc < 0)
        print_message("%s\n", error_text());
    assert_int_equal(rc, 0);
    return j;
}

static void test_kinds(void **state)
{
    (void)state;
    Json *j = parse("\xEF\xBB\xBF{\"o\": {}, \"a\": [1, 2.5], \"s\": \"x\\u0000y\", \"t\": true, "
                    "\"n\": null, \"r\": 3.0}");
    assert_int_equal(json_kind(j), JSON_OBJ);
    assert_int_equal(json_len(j), 6);
    assert_int_equal(json_kind(json_get(j, "none")), JSON_NONE);
    assert_int_equal(json_kind(json_get(json_get(j, "a"), "x")), JSON_NONE);
    assert_int_equal(json_int(json_at(json_get(j, "a"), 0), -1), 1);
    assert_true(json_num(json_at(json_get(j, "a"), 1), 0) == 2.5);
    assert_null(json_at(json_get(j, "a"), 2));
    assert_int_equal(json_int(json_at(json_get(j, "a"), 1), -1), -1); /* 2.5 is not integral */
    assert_int_equal(json_int(json_get(j, "r"), -1), 3);
    assert_int_equal(json_str_len(json_get(j, "s")), 3);
    assert_memory_equal(json_str(json_get(j, "s")), "x\0y", 4);
    assert_null(json_str(json_get(j, "t")));
    assert_true(json_bool(json_get(j, "t"), false));
    assert_int_equal(json_kind(json_get(j, "n")), JSON_NIL);
    static const char *const order[] = {"o", "a", "s", "t", "n", "r"};
    int i = 0;
    for (void *it = json_iter(j); it; it = json_iter_next(j, it))
        assert_string_equal(json_iter_key(it), order[i++]);
    assert_int_equal(i, 6);
    json_free(j);
}

static void test_large_integers(void **state)
{
    (void)state;
    Json *j = parse("{\"big\": 1000000000000000019884624838656, \"neg\": -99999999999999999999, "
                    "\"id\": 9007199254740993, \"max\": 9223372036854775807, "
                    "\"s\": \"\\\"99999999999999999999\"}");
    assert_true(json_num(json_get(j, "big"), 0) == 1e30);
    assert_int_equal(json_int(json_get(j, "big"), -7), -7);
    assert_true(json_num(json_get(j, "neg"), 0) == -1e20);
    assert_int_equal(json_int(json_get(j, "id"), 0), 9007199254740993); /* 2^53 + 1: no double */
    assert_int_equal(json_int(json_get(j, "max"), 0), INT64_MAX);
    assert_string_equal(json_str(json_get(j, "s")), "\"99999999999999999999");
    json_free(j);
}

static void expect_error(const char *text, const char *place)
{
    Json *j;
    assert_int_equal(json_parse(&j, text, strlen(text), "f.jsonl", 7), ERR_DATA);
    assert_null(j);
    if (strncmp(error_text(), place, strlen(place)) != 0)
        fail_msg("found \"%s\", expected \"%s...\"", error_text(), place);
}

static void test_errors(void **state)
{
    (void)state;
    expect_error("{\"a\": 1,\n \"a\": 2}", "f.jsonl:8:4: not valid JSON: duplicate object key");
    expect_error("{\"a\": }", "f.jsonl:7:7: not valid JSON: ");
    expect_error("[1, 2", "f.jsonl:7:5: not valid JSON: ");
    expect_error("", "f.jsonl:7:1: not valid JSON: ");
    expect_error("[NaN]", "f.jsonl:7:4: not valid JSON: ");
    expect_error("[1e400]", "f.jsonl:7:6: not valid JSON: real number overflow");
    expect_error("[\"\\ud800\"]", "f.jsonl:7:9: not valid JSON: invalid Unicode");
    expect_error("[\"\xff\"]", "f.jsonl:7:2: not valid JSON: unable to decode byte 0xff");
    /* large integers in front are read in another way, which must not move the place */
    expect_error("[99999999999999999999, 99999999999999999999, x]", "f.jsonl:7:46: not valid JSON: ");
    expect_error("[99999999999999999999,\n99999999999999999999 x]", "f.jsonl:8:22: not valid JSON: ");
    expect_error("[123, x, 99999999999999999999]", "f.jsonl:7:7: not valid JSON: ");
    expect_error("{} x", "f.jsonl:7:4: not valid JSON: end of file expected");
}

/* Where a value begins: lines and characters, not bytes; what is not there gives its parent. */
static void test_places(void **state)
{
    (void)state;
    static const char text[] = "\xEF\xBB\xBF {\"a\\\"\": \"[,\", \"\xC3\xA9\": 1, \"m\": [ 10 , [],\n"
                               "  {\"content\": \"x\", \"n\": {\"k\" : null}} ] , \"z\":[]}";
    static const struct {
        const char *path;
        int line, column;
    } cases[] = {
        {"", 5, 4},          {"m", 5, 31},            {"m[0]", 5, 33},     {"m[1]", 5, 38},
        {"m[2]", 6, 3},      {"m[2].content", 6, 15}, {"m[2].n.k", 6, 32}, {"m[3]", 5, 31},
        {"m[2].role", 6, 3}, {"m.k", 5, 31},          {"none", 5, 4},      {"z", 6, 47},
        {"z[0]", 6, 47},     {"[0]", 5, 4},           {"m[2]x", 6, 3},     {"\xC3\xA9", 5, 23},
    };
    Json *j = parse(text);
    json_free(j);
    const JsonSource from = {"t", 5, 3, text, sizeof text - 1};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t line, column;
        json_place(&from, cases[i].path, &line, &column);
        if (line != cases[i].line || column != cases[i].column)
            fail_msg("'%s': %d:%d, expected %d:%d", cases[i].path, (int)line, (int)column,
                     cases[i].line, cases[i].column);
    }
    /* the column of a syntax error counts from the source's on its first line */
    assert_int_equal(json_parse_at(&j, &(JsonSource){"t", 5, 3, "{x", 2}), ERR_DATA);
    assert_memory_equal(error_text(), "t:5:4: not valid JSON", 21);
    assert_int_equal(json_parse_at(&j, &(JsonSource){"t", 5, 3, "{\nx", 3}), ERR_DATA);
    assert_memory_equal(error_text(), "t:6:1: not valid JSON", 21);
}

static void test_write(void **state)
{
    (void)state;
    Str out = {0};
    JsonWriter w;
    jw_init(&w, &out, false);
    jw_object(&w);
    jw_kint(&w, "i", INT64_MIN);
    jw_knum(&w, "d", 0.1);
    jw_key(&w, "f");
    jw_float(&w, 0.1f);
    jw_key(&w, "list");
    jw_array(&w);
    jw_num(&w, NAN);
    jw_num(&w, -INFINITY);
    jw_num(&w, -0.0);
    jw_bool(&w, false);
    jw_null(&w);
    jw_object(&w);
    jw_object_end(&w);
    jw_array_end(&w);
    jw_kbool(&w, "b", true);
    jw_kstr(&w, "q\"\\", "\b\n\x01\x7f \xC3\xA9");
    jw_object_end(&w);
    assert_string_equal(out.s, "{\"i\": -9223372036854775808, \"d\": 0.1, \"f\": 0.1, "
                               "\"list\": [null, null, -0.0, false, null, {}], \"b\": true, "
                               "\"q\\\"\\\\\": \"\\b\\n\\u0001\x7f \xC3\xA9\"}");
    str_free(&out);
}

static void test_pretty(void **state)
{
    (void)state;
    Str out = {0};
    JsonWriter w;
    Json *j = parse("{\"a\":[],\"b\":[1,{\"c\":10000.0}],\"d\":{}}");
    jw_init(&w, &out, true);
    jw_json(&w, j);
    assert_string_equal(out.s, "{\n  \"a\": [],\n  \"b\": [\n    1,\n    {\n      \"c\": 10000.0\n"
                               "    }\n  ],\n  \"d\": {}\n}");
    json_free(j);
    str_free(&out);
}

/* At most 80 bytes, cut between characters. */
static void test_short(void **state)
{
    (void)state;
    static const struct {
        int n; /* characters of two bytes */
        const char *odd;
        size_t bytes;
    } cases[] = {{39, "", 80}, {40, "", 80}, {40, "x", 79}};
    Json *j = parse("{\"a\": [1, null]}");
    char *text = json_short(j);
    assert_string_equal(text, "{\"a\": [1, null]}");
    free(text);
    json_free(j);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Str s = {0};
        str_addf(&s, "\"%s", cases[i].odd);
        for (int k = 0; k < cases[i].n; k++)
            str_add(&s, "\xc3\xa9");
        str_add(&s, "\"");
        j = parse(s.s);
        text = json_short(j);
        assert_int_equal(strlen(text), cases[i].bytes);
        assert_true(text_is_utf8(text, strlen(text)));
        assert_int_equal(!strcmp(text + strlen(text) - 3, "..."), i > 0);
        free(text);
        json_free(j);
        str_free(&s);
    }
}

/* Each maximal piece of a broken character, one byte at a time, becomes U+FFFD. */
static void test_broken_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"a\xffz", "\"a\xEF\xBF\xBDz\""},
        {"\xC3", "\"\xEF\xBF\xBD\""},
        {"\xC0\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\""},                 /* overlong */
        {"\xED\xA0\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""}, /* surrogate */
        {"\xF0\x9F\x98\x80", "\"\xF0\x9F\x98\x80\""},                 /* U+1F600 */
        {"\xF4\x90\x80\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""}, /* > 10FFFF */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Str out = {0};
        JsonWriter w;
        jw_init(&w, &out, false);
        jw_str(&w, cases[i].text);
        assert_string_equal(out.s, cases[i].want);
        str_free(&out);
    }
    Str out = {0};
    JsonWriter w;
    jw_init(&w, &out, false);
    jw_str_n(&w, "x\0y", 3);
    assert_string_equal(out.s, "\"x\\u0000y\"");
    str_free(&out);
}

static void test_numbers_survive(void **state)
{
    (void)state;
    static const double values[] = {0.1,     1.0 / 3, 1e300,         5e-324, DBL_MAX, 1e-5,
                                    123456., 2e15,    0x1.fffffp-30, 1e22,   -2.5e-8, 3};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        Str out = {0};
        JsonWriter w;
        jw_init(&w, &out, false);
        jw_num(&w, values[i]);
        Json *j = parse(out.s);
        assert_true(json_num(j, NAN) == values[i]);
        json_free(j);
        str_clear(&out);
        float f = (float)values[i];
        jw_init(&w, &out, false);
        jw_float(&w, f);
        if (isfinite(f))
            assert_true(strtof(out.s, NULL) == f);
        else
            assert_string_equal(out.s, "null");
        str_free(&out);
    }
}

/* Deeper than the writer's own levels: copied all the same. */
static void test_deep(void **state)
{
    (void)state;
    enum { DEPTH = 200 };
    char text[2 * DEPTH + 1];
    memset(text, '[', DEPTH);
    memset(text + DEPTH, ']', DEPTH);
    text[2 * DEPTH] = 0;
    Json *j = parse(text);
    Str out = {0};
    JsonWriter w;
    jw_init(&w, &out, false);
    jw_json(&w, j);
    assert_string_equal(out.s, text);
    json_free(j);
    str_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),  cmocka_unit_test(test_large_integers),
        cmocka_unit_test(test_errors), cmocka_unit_test(test_places), cmocka_unit_test(test_write),
        cmocka_unit_test(test_pretty), cmocka_unit_test(test_short), cmocka_unit_test(test_broken_utf8),
        cmocka_unit_test(test_deep),   cmocka_unit_test(test_numbers_survive),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
