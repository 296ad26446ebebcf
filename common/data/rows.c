/* rows.c - JSON lines and JSON arrays as a sequence of objects with their places.
 *
 * The elements of an array are cut out of the text by counting brackets outside strings and parsed
 * one by one: that keeps a place for each and never holds two parsed rows at once. Tested by
 * tests/unit/test_record.c and test_malformed.c. */
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
static int parse_row(Rows *r, const char *text, size_t n, int64_t line, int64_t column,
                     const Json **j)
{
    r->line = line;
    r->from = (JsonSource){reader_path(r->reader), line, column, text, n};
    if (json_parse_at(&r->row, &r->from) < 0) {
        r->row = NULL;
    } else if (json_kind(r->row) != JSON_OBJ) {
        error_set(
            ERR_DATA, "%s:%lld:%lld: found %s, expected an object with the fields of a record",
            r->from.file, (long long)line, (long long)column, json_kind_name(json_kind(r->row)));
        json_free(r->row);
        r->row = NULL;
    }
    *j = r->row;
    return 1;
}

/* One byte on. */
static void step(Rows *r)
{
    const char c = r->array[r->at++];
    r->array_column += ((unsigned char)c & 0xc0) != 0x80;
    if (c == '\n') {
        r->array_line++;
        r->array_column = 1;
    }
}

static void skip_space(Rows *r)
{
    while (r->at < r->n && is_space(r->array[r->at]))
        step(r);
}

static int array_error(const Rows *r, const char *what)
{
    return error_set(ERR_DATA, "%s:%lld:%lld: %s", reader_path(r->reader), (long long)r->array_line,
                     (long long)r->array_column, what);
}

/* The text from r->at to the comma or bracket that ends this element. */
static int next_element(Rows *r, const Json **j)
{
    skip_space(r);
    const int64_t line = r->array_line, column = r->array_column;
    const size_t from = r->at;
    int64_t depth = 0;
    bool in_string = false;
    for (; r->at < r->n; step(r)) {
        const char c = r->array[r->at];
        if (in_string) {
            if (c == '\\' && r->at + 1 < r->n)
                step(r);
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
    r->array_end = r->array[r->at] == ']';
    step(r);
    return parse_row(r, r->array + from, n, line, column, j);
}

/* Takes the whole file into r->array, beginning with blanks and the "["; stands behind that. */
static int start_array(Rows *r)
{
    const int rc = reader_rest(r->reader, &r->array, &r->n);
    if (rc < 0)
        return rc;
    r->at = 0;
    r->array_line = r->array_column = 1;
    skip_space(r);
    step(r);
    skip_space(r);
    if (r->at < r->n && r->array[r->at] == ']') {
        step(r);
        r->array_end = true;
    }
    return 0;
}

int rows_next(Rows *r, const Json **j)
{
    int rc;
    char *line, first = 0;
    size_t n;
    json_free(r->row);
    r->row = NULL;
    *j = NULL;
    if (!r->started) {
        if ((rc = reader_peek(r->reader, &first)) < 0)
            return rc;
        if (first == '[' && (rc = start_array(r)) < 0)
            return rc;
        r->started = true;
    }
    while (!r->array) {
        if ((rc = reader_line(r->reader, &line, &n)) <= 0)
            return rc;
        if (!is_blank(line, n))
            return parse_row(r, line, n, reader_line_number(r->reader), 1, j);
    }
    if (!r->array_end)
        return next_element(r, j);
    skip_space(r);
    return r->at == r->n
               ? 0
               : array_error(r, "text follows the end of the JSON array; a file holds one array, "
                                "or one object per line");
}
