/* json_write.c - the JSON writer: appends to a Str, puts commas and indentation itself.
 *
 * What it writes is always valid JSON: broken UTF-8 becomes U+FFFD, NaN and Inf become null, and a
 * value without its key (or a key outside an object) is our bug. Tested by tests/unit/test_json.c.
 */
#include "common/base/error.h"
#include "common/base/json.h"
#include "common/base/text.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void jw_init(JsonWriter *w, Str *out, bool pretty)
{
    *w = (JsonWriter){.out = out, .pretty = pretty};
}

static void new_line(JsonWriter *w)
{
    if (!w->pretty)
        return;
    str_add(w->out, "\n");
    for (int i = 0; i < w->depth; i++)
        str_add(w->out, "  ");
}

/* Comma and indentation in front of a key or of an array's value. */
static void begin_entry(JsonWriter *w)
{
    if (w->depth == 0)
        return;
    uint64_t bit = 1ull << w->depth;
    if (w->has_entry & bit)
        str_add(w->out, w->pretty ? "," : ", ");
    w->has_entry |= bit;
    new_line(w);
}

static void begin_value(JsonWriter *w)
{
    bool in_object = w->depth > 0 && (w->is_object >> w->depth & 1);
    CHECK(in_object == w->after_key, "a JSON value in an object needs a key, another has none");
    if (!in_object)
        begin_entry(w);
    w->after_key = false;
}

static void open_level(JsonWriter *w, const char *bracket, bool is_object)
{
    begin_value(w);
    str_add(w->out, bracket);
    w->depth++;
    CHECK(w->depth < 64, "JSON deeper than 63 levels");
    uint64_t bit = 1ull << w->depth;
    w->has_entry &= ~bit;
    w->is_object = is_object ? w->is_object | bit : w->is_object & ~bit;
}

static void close_level(JsonWriter *w, const char *bracket, bool is_object)
{
    CHECK(w->depth > 0 && !w->after_key && (w->is_object >> w->depth & 1) == is_object,
          "\"%s\" without its opening bracket", bracket);
    bool had = w->has_entry >> w->depth & 1;
    w->depth--;
    if (had)
        new_line(w);
    str_add(w->out, bracket);
}

void jw_object(JsonWriter *w)
{
    open_level(w, "{", true);
}

void jw_object_end(JsonWriter *w)
{
    close_level(w, "}", true);
}

void jw_array(JsonWriter *w)
{
    open_level(w, "[", false);
}

void jw_array_end(JsonWriter *w)
{
    close_level(w, "]", false);
}

static void add_control(Str *out, unsigned char c)
{
    static const char short_form[] = "\b\f\n\r\t\"\\", letter[] = "bfnrt\"\\";
    const char *p = c ? strchr(short_form, c) : NULL;
    if (p)
        str_addf(out, "\\%c", letter[p - short_form]);
    else
        str_addf(out, "\\u%04x", c);
}

static void add_quoted(Str *out, const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;
    str_add(out, "\"");
    for (size_t i = 0; i < n;) {
        size_t start = i;
        while (i < n && p[i] >= 0x20 && p[i] < 0x80 && p[i] != '"' && p[i] != '\\')
            i++;
        str_add_bytes(out, s + start, i - start);
        if (i == n)
            break;
        if (p[i] < 0x80) {
            add_control(out, p[i++]);
            continue;
        }
        size_t len = text_utf8_length(s + i, n - i);
        if (len)
            str_add_bytes(out, s + i, len);
        else
            str_add(out, "\xEF\xBF\xBD");
        i += len ? len : 1;
    }
    str_add(out, "\"");
}

void jw_key(JsonWriter *w, const char *key)
{
    CHECK(w->depth > 0 && (w->is_object >> w->depth & 1) && !w->after_key,
          "the key \"%s\" stands outside an object or follows another key", key);
    begin_entry(w);
    add_quoted(w->out, key, strlen(key));
    str_add(w->out, ": ");
    w->after_key = true;
}

void jw_str_n(JsonWriter *w, const char *s, size_t n)
{
    begin_value(w);
    add_quoted(w->out, s, n);
}

void jw_str(JsonWriter *w, const char *s)
{
    jw_str_n(w, s, strlen(s));
}

void jw_int(JsonWriter *w, int64_t v)
{
    begin_value(w);
    str_addf(w->out, "%lld", (long long)v);
}

/* null for what JSON cannot say; "-0" would be read back as the integer 0. */
static bool add_special(JsonWriter *w, double v)
{
    begin_value(w);
    if (!isfinite(v))
        str_add(w->out, "null");
    else if (v == 0 && signbit(v))
        str_add(w->out, "-0.0");
    else
        return false;
    return true;
}

void jw_num(JsonWriter *w, double v)
{
    if (!add_special(w, v))
        str_add_double(w->out, v);
}

void jw_float(JsonWriter *w, float v)
{
    if (!add_special(w, (double)v))
        str_add_float(w->out, v);
}

void jw_bool(JsonWriter *w, bool v)
{
    begin_value(w);
    str_add(w->out, v ? "true" : "false");
}

void jw_null(JsonWriter *w)
{
    begin_value(w);
    str_add(w->out, "null");
}

/* A real stays a real: 10000.0 in somebody's config.json does not become the integer 10000. */
static void write_real(JsonWriter *w, double v)
{
    size_t before = w->out->n;
    jw_num(w, v);
    if (!strpbrk(w->out->s + before, ".en"))
        str_add(w->out, ".0");
}

/* Somebody else's nesting may be deeper than ours; such depths are copied on one line. */
static void write_deep(JsonWriter *w, const Json *j)
{
    char *text = json_dumps(j, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    CHECK(text, "a JSON value that was read cannot be written");
    begin_value(w);
    str_add(w->out, text);
    free(text);
}

void jw_json(JsonWriter *w, const Json *j)
{
    if (j && w->depth >= 60) {
        write_deep(w, j);
        return;
    }
    switch (json_kind(j)) {
    case JSON_OBJ:
        jw_object(w);
        for (void *it = json_iter(j); it; it = json_iter_next(j, it)) {
            jw_key(w, json_iter_key(it));
            jw_json(w, json_iter_value(it));
        }
        jw_object_end(w);
        break;
    case JSON_ARR:
        jw_array(w);
        for (size_t i = 0; i < json_len(j); i++)
            jw_json(w, json_at(j, i));
        jw_array_end(w);
        break;
    case JSON_STR:
        jw_str_n(w, json_str(j), json_str_len(j));
        break;
    case JSON_INT:
        jw_int(w, json_int(j, 0));
        break;
    case JSON_NUM:
        write_real(w, json_num(j, 0));
        break;
    case JSON_BOOLEAN:
        jw_bool(w, json_bool(j, false));
        break;
    case JSON_NONE:
    case JSON_NIL:
        jw_null(w);
        break;
    }
}

char *json_short(const Json *j)
{
    enum { SHORT = 80 };
    Str s = {0};
    JsonWriter w;
    jw_init(&w, &s, false);
    jw_json(&w, j);
    if (s.n > SHORT) {
        size_t cut = SHORT - 3;
        while (((unsigned char)s.s[cut] & 0xC0) == 0x80) /* not within a character */
            cut--;
        memcpy(s.s + cut, "...", 4);
    }
    return str_take(&s);
}

void jw_kstr(JsonWriter *w, const char *key, const char *s)
{
    jw_key(w, key);
    jw_str(w, s);
}

void jw_kint(JsonWriter *w, const char *key, int64_t v)
{
    jw_key(w, key);
    jw_int(w, v);
}

void jw_knum(JsonWriter *w, const char *key, double v)
{
    jw_key(w, key);
    jw_num(w, v);
}

void jw_kbool(JsonWriter *w, const char *key, bool v)
{
    jw_key(w, key);
    jw_bool(w, v);
}
