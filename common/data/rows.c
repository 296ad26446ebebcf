/* rows.c - JSON lines and JSON arrays as a sequence of objects with line numbers.
 *
 * The elements of an array are cut out of the text by counting brackets outside strings and parsed
 * one by one: that keeps a line number for each and never holds two parsed rows at once. Tested by
 * tests/unit/test_record.c. */
#include "common/data/rows.h"

#include "common/base/error.h"

#include <stdlib.h>
#include <string.h>

int rows_open(Rows *r, const char *path)
{
    memset(r, 0, sizeof *r);
    return reader_open(&r->reader, path);
}

void rows_close(Rows *r)
{
    json_free(r->row);
    reader_close(r->reader);
    free(r->array);
    memset(r, 0, sizeof *r);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_blank(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!is_space(s[i]))
            return false;
    return true;
}

/* 1 with r->row, or 1 without when the text is no object. */
static int parse_row(Rows *r, const char *text, size_t n, int64_t line, const Json **j)
{
    r->line = line;
    if (json_parse(&r->row, text, n, reader_path(r->reader), line) < 0) {
        r->row = NULL;
    } else if (json_kind(r->row) != JSON_OBJ) {
        error_set(ERR_DATA, "%s:%lld: found %s, expected an object with the fields of a record",
                  reader_path(r->reader), (long long)line, json_kind_name(json_kind(r->row)));
        json_free(r->row);
        r->row = NULL;
    }
    *j = r->row;
    return 1;
}

static void skip_space(Rows *r)
{
    for (; r->at < r->n && is_space(r->array[r->at]); r->at++)
        r->array_line += r->array[r->at] == '\n';
}

static int array_error(const Rows *r, const char *what)
{
    return error_set(ERR_DATA, "%s:%lld: %s", reader_path(r->reader), (long long)r->array_line,
                     what);
}

/* The text from r->at to the comma or bracket that ends this element. */
static int next_element(Rows *r, const Json **j)
{
    skip_space(r);
    const int64_t line = r->array_line;
    const size_t from = r->at;
    int depth = 0;
    bool in_string = false;
    for (; r->at < r->n; r->at++) {
        const char c = r->array[r->at];
        r->array_line += c == '\n';
        if (in_string) {
            if (c == '\\' && r->at + 1 < r->n)
                r->at++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (depth > 0 && (c == '}' || c == ']')) {
            depth--;
        } else if (depth == 0 && (c == ',' || c == ']')) {
            break;
        }
    }
    if (r->at == r->n)
        return array_error(
            r, "the file ends inside its JSON array; it is cut off, or a bracket is missing");
    const size_t n = r->at - from;
    r->array_end = r->array[r->at++] == ']';
    return parse_row(r, r->array + from, n, line, j);
}

/* Takes the first line and the rest of the file into r->array; stands behind the "[". */
static int start_array(Rows *r, const char *line, size_t n, size_t bracket)
{
    Str all = {0};
    char *rest = NULL;
    size_t n_rest = 0;
    str_add_bytes(&all, line, n);
    str_add(&all, "\n");
    r->array_line = reader_line_number(r->reader);
    int rc = reader_rest(r->reader, &rest, &n_rest);
    if (rc >= 0)
        str_add_bytes(&all, rest, n_rest);
    free(rest);
    r->n = all.n;
    r->array = str_take(&all);
    r->at = bracket + 1;
    if (rc < 0)
        return rc;
    skip_space(r);
    if (r->at < r->n && r->array[r->at] == ']') {
        r->at++;
        r->array_end = true;
    }
    return 0;
}

int rows_next(Rows *r, const Json **j)
{
    int rc;
    char *line;
    size_t n;
    json_free(r->row);
    r->row = NULL;
    *j = NULL;
    while (!r->array) {
        if ((rc = reader_line(r->reader, &line, &n)) <= 0)
            return rc;
        if (is_blank(line, n))
            continue;
        size_t first = 0;
        if (!r->started && n >= 3 && !memcmp(line, "\xef\xbb\xbf", 3))
            first = 3;
        while (first < n && is_space(line[first]))
            first++;
        if (r->started || first == n || line[first] != '[') {
            r->started = true;
            return parse_row(r, line, n, reader_line_number(r->reader), j);
        }
        if ((rc = start_array(r, line, n, first)) < 0)
            return rc;
    }
    if (!r->array_end)
        return next_element(r, j);
    skip_space(r);
    return r->at == r->n
               ? 0
               : array_error(r, "text follows the end of the JSON array; a file holds one array, "
                                "or one object per line");
}
