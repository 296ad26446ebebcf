/* fuzz_streams.c - any bytes as a file: lines, the whole rest and rows agree on what they hold and
 * on whether they are damaged; nothing is read beyond it, nothing hangs. */
#include "tests/fuzz/fuzz.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/data/rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const fuzz_words[] = {
    "\x1f\x8b",
    "\x1f\x8b\x08",
    "\x28\xb5\x2f\xfd",
    "\x50\x2a\x4d\x18",
    "\x5f\x2a\x4d\x18",
    "\xff\xff\xff\xff",
    "\n",
    "\r\n",
    "[",
    "]",
    "{}",
    ",",
    "\"",
    "\\",
    "PAR1",
    "\xff\xfe",
    "\xef\xbb\xbf",
    " ",
    NULL,
};

static void pack(const char *suffix, const char *text, Str *out)
{
    char path[64], *data;
    size_t n;
    Writer *w;
    snprintf(path, sizeof path, "/tmp/fuzz_streams.%d%s", (int)getpid(), suffix);
    CHECK(writer_open(&w, path) == 0 && writer_write(w, text, strlen(text)) == 0 &&
              writer_close(w) == 0 && file_read(path, &data, &n) == 0,
          "%s", error_text());
    unlink(path);
    str_add_bytes(out, data, n);
    free(data);
}

/* Plain, gzip and zstd of lines, an array and something long; two members or frames; a skippable
 * frame. */
bool fuzz_seed(int k, Str *out)
{
    static const char *const suffixes[] = {".txt", ".gz", ".zst"};
    static const char *const texts[] = {"{\"a\": 1}\n{\"b\": \"x\"}\r\n\n[1]\n{\"c\": [2, \"]\"]}",
                                        " [{\"a\": 1},\n {\"b\": \"\\\"]\"} , 7]\n", ""};
    const int text = k / 3;
    Str repeated = {0};
    if (text < 3) {
        pack(suffixes[k % 3], texts[text], out);
    } else if (text == 3) {
        for (int i = 0; i < 200; i++)
            str_addf(&repeated, "{\"n\": %d}\n", i * i % 977);
        pack(suffixes[k % 3], repeated.s, out);
    } else if (text == 4) {
        pack(suffixes[k % 3], "{\"a\": 1}\n{\"b\":", out);
        pack(suffixes[k % 3], " 2}\n", out);
    } else if (text == 5) {
        str_add_bytes(out, "\x50\x2a\x4d\x18\3\0\0\0abc", 11);
        pack(".zst", texts[k % 3], out);
    } else {
        return false;
    }
    str_free(&repeated);
    return true;
}

/* All lines, each with a newline; the last result. */
static int read_lines(const char *path, Str *out)
{
    Reader *r;
    char *line;
    size_t n;
    int rc = reader_open(&r, path);
    if (rc < 0)
        return rc;
    while ((rc = reader_line(r, &line, &n)) == 1) {
        CHECK(line[n] == 0 && !memchr(line, '\n', n), "line");
        str_add_bytes(out, line, n);
        str_add(out, "\n");
    }
    reader_close(r);
    return rc;
}

/* The same out of reader_rest: newlines alone, one at the end. */
static int read_rest(const char *path, Str *out)
{
    Reader *r;
    char *data, first;
    size_t n;
    int rc = reader_open(&r, path);
    if (rc < 0)
        return rc;
    rc = reader_peek(r, &first);
    if (rc == 0 && (rc = reader_rest(r, &data, &n)) == 0) {
        CHECK(data[n] == 0 && (first == 0 || memchr(data, first, n)), "rest");
        for (size_t i = 0; i < n; i++)
            if (!(data[i] == '\r' && (i + 1 == n || data[i + 1] == '\n')))
                str_add_bytes(out, data + i, 1);
        if (n && data[n - 1] != '\n')
            str_add(out, "\n");
        free(data);
    }
    reader_close(r);
    return rc;
}

static void read_rows(const char *path, int rc_lines)
{
    Rows rows;
    const Json *j;
    int rc = rows_open(&rows, path);
    for (int64_t n = 0; rc == 0 && (rc = rows_next(&rows, &j)) > 0; n++, rc = 0) {
        CHECK(rows.line >= 1 && rows.from.column >= 1 && n < 1 << 20, "row");
        CHECK(j ? json_kind(j) == JSON_OBJ : strstr(error_text(), ": ") != NULL, "row");
    }
    CHECK(rc_lines == 0 || rc < 0, "rows end well in a file that is damaged");
    rows_close(&rows);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    Str lines = {0}, rest = {0};
    const char *path = fuzz_file(data, n);
    const int rc_lines = read_lines(path, &lines), rc_rest = read_rest(path, &rest);
    CHECK(rc_lines == rc_rest, "lines give %d, the rest %d: %s", rc_lines, rc_rest, error_text());
    if (rc_lines == 0)
        CHECK(lines.n == rest.n && !memcmp(str_get(&lines), str_get(&rest), lines.n),
              "%zu and %zu bytes", lines.n, rest.n);
    read_rows(path, rc_lines);
    str_free(&lines);
    str_free(&rest);
    return 0;
}
