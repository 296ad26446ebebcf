/* json.c - reading: jansson behind our own names, with places that count from the file's start.
 *
 * jansson either refuses integers beyond 2^63 or reads every integer as a real; ours are kept
 * exact, so a text that holds a larger one is read again with ".0" behind just that number. Tested
 * by tests/unit/test_json.c. */
#include "common/base/json.h"

#include "common/base/error.h"
#include "common/base/file.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char real_mark[] = ".0";

typedef struct {
    Str text;
    size_t *at; /* where a mark stands in it, ascending */
    int n, cap;
} Marked;

/* Copies `text`, marking integers that do not fit 64 bits as reals. */
static void mark_large_integers(Marked *m, const char *text, size_t n)
{
    Str *out = &m->text;
    bool in_string = false;
    for (size_t i = 0; i < n;) {
        char c = text[i];
        if (in_string || !(isdigit((unsigned char)c) || c == '-')) {
            size_t take = in_string && c == '\\' && i + 1 < n ? 2 : 1;
            in_string ^= c == '"';
            str_add_bytes(out, text + i, take);
            i += take;
            continue;
        }
        size_t end = i + 1;
        bool real = false;
        while (end < n && text[end] &&
               (isdigit((unsigned char)text[end]) || strchr("+-.eE", text[end]))) {
            real |= !isdigit((unsigned char)text[end]);
            end++;
        }
        str_add_bytes(out, text + i, end - i);
        errno = 0;
        char *copy = xstrndup(text + i, end - i);
        (void)strtoll(copy, NULL, 10);
        free(copy);
        if (!real && errno == ERANGE) {
            const int mark = VEC_GROW(m->at, m->n, m->cap);
            m->at[mark] = out->n;
            str_add(out, real_mark);
        }
        i = end;
    }
}

/* What the marks add to the column of a byte. */
static int marks_before(const Marked *m, size_t position)
{
    size_t line = position < m->text.n ? position : m->text.n;
    int n = 0;
    while (line && m->text.s[line - 1] != '\n')
        line--;
    for (int i = 0; i < m->n; i++)
        n += m->at[i] >= line && m->at[i] < position;
    return n * (int)strlen(real_mark);
}

static const char bom[] = "\xEF\xBB\xBF";

int json_parse_at(Json **out, const JsonSource *from)
{
    const size_t flags = JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL;
    const char *text = from->text;
    size_t n = from->n;
    if (n >= 3 && memcmp(text, bom, 3) == 0) {
        text += 3;
        n -= 3;
    }
    json_error_t e;
    *out = json_loadb(text, n, flags, &e);
    if (!*out && json_error_code(&e) == json_error_numeric_overflow) {
        Marked m = {0};
        mark_large_integers(&m, text, n);
        *out = json_loadb(str_get(&m.text), m.text.n, flags, &e);
        if (!*out)
            e.column -= marks_before(&m, (size_t)e.position);
        str_free(&m.text);
        free(m.at);
    }
    if (*out)
        return 0;
    const int64_t column = e.column > 0 ? e.column : 1;
    return error_set(ERR_DATA, "%s:%lld:%lld: not valid JSON: %s", from->file,
                     (long long)(from->line + (e.line > 0 ? e.line - 1 : 0)),
                     (long long)(e.line > 1 ? column : column + from->column - 1), e.text);
}

int json_parse(Json **out, const char *text, size_t n, const char *name, int64_t line)
{
    return json_parse_at(out, &(JsonSource){name, line, 1, text, n});
}

int json_read_file(Json **out, const char *path)
{
    char *text;
    size_t n;
    *out = NULL;
    int rc = file_read_stored(path, &text, &n);
    if (rc < 0)
        return rc;
    rc = json_parse(out, text, n, path, 1);
    free(text);
    return rc;
}

void json_free(Json *j)
{
    json_decref(j);
}

JsonKind json_kind(const Json *j)
{
    if (!j)
        return JSON_NONE;
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        return JSON_OBJ;
    case JSON_ARRAY:
        return JSON_ARR;
    case JSON_STRING:
        return JSON_STR;
    case JSON_INTEGER:
        return JSON_INT;
    case JSON_REAL:
        return JSON_NUM;
    case JSON_TRUE:
    case JSON_FALSE:
        return JSON_BOOLEAN;
    case JSON_NULL:
        return JSON_NIL;
    }
    return JSON_NONE;
}

const char *json_kind_name(JsonKind kind)
{
    static const char *const names[] = {
        [JSON_NONE] = "nothing",      [JSON_OBJ] = "an object",  [JSON_ARR] = "an array",
        [JSON_STR] = "a string",      [JSON_INT] = "an integer", [JSON_NUM] = "a number",
        [JSON_BOOLEAN] = "a boolean", [JSON_NIL] = "null",
    };
    return names[kind];
}

Json *json_get(const Json *obj, const char *key)
{
    return json_object_get(obj, key);
}

Json *json_at(const Json *arr, size_t i)
{
    return json_array_get(arr, i);
}

size_t json_len(const Json *j)
{
    return json_is_array(j) ? json_array_size(j) : json_object_size(j);
}

const char *json_str(const Json *j)
{
    return json_string_value(j);
}

size_t json_str_len(const Json *j)
{
    return json_string_length(j);
}

int64_t json_int(const Json *j, int64_t otherwise)
{
    if (json_is_integer(j))
        return json_integer_value(j);
    if (json_is_real(j)) {
        double v = json_real_value(j);
        if (v >= -0x1p63 && v < 0x1p63 && v == (double)(int64_t)v)
            return (int64_t)v;
    }
    return otherwise;
}

double json_num(const Json *j, double otherwise)
{
    return json_is_number(j) ? json_number_value(j) : otherwise;
}

bool json_bool(const Json *j, bool otherwise)
{
    return json_is_boolean(j) ? json_is_true(j) : otherwise;
}

void *json_iter(const Json *obj)
{
    return json_object_iter((Json *)(uintptr_t)obj);
}

void *json_iter_next(const Json *obj, void *it)
{
    return json_object_iter_next((Json *)(uintptr_t)obj, it);
}

const char *json_iter_key(void *it)
{
    return json_object_iter_key(it);
}

Json *json_iter_value(void *it)
{
    return json_object_iter_value(it);
}
