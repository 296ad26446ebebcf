/* json_place.c - line and column of a value inside its JSON text.
 *
 * jansson keeps no places, and few rows of a large file are ever complained about, so the text is
 * searched again when a message needs a place. Everything is a forward scan over text that is known
 * to parse; whatever looks otherwise ends the search early, never out of bounds. Tested by
 * tests/unit/test_json.c. */
#include "common/base/json.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *at, *end;
} Scan;

static char peek(const Scan *s)
{
    return s->at < s->end ? *s->at : 0;
}

static void skip_blanks(Scan *s)
{
    while (s->at < s->end && memchr(" \t\r\n", *s->at, 4))
        s->at++;
}

static void skip_string(Scan *s)
{
    for (s->at++; s->at < s->end && *s->at != '"'; s->at++)
        if (*s->at == '\\' && s->at + 1 < s->end)
            s->at++;
    s->at += s->at < s->end;
}

/* Ends at the comma, or at the bracket of what holds the value. */
static void skip_value(Scan *s)
{
    for (int depth = 0; s->at < s->end;) {
        const char c = *s->at;
        if (c == '"') {
            skip_string(s);
            continue;
        }
        if (depth == 0 && (c == ',' || c == ']' || c == '}'))
            return;
        depth += c == '{' || c == '[';
        depth -= c == '}' || c == ']';
        s->at++;
    }
}

/* From the value that holds it to the entry `index`, or `key` when that is not NULL. */
static bool enter(Scan *s, const char *key, size_t n_key, int64_t index)
{
    if (peek(s) != (key ? '{' : '['))
        return false;
    s->at++;
    for (int64_t i = 0;; i++) {
        bool found = !key && i == index;
        skip_blanks(s);
        if (key) {
            const char *name = s->at + 1;
            if (peek(s) != '"')
                return false;
            skip_string(s);
            found = s->at - name == (ptrdiff_t)n_key + 1 && !memcmp(name, key, n_key);
            skip_blanks(s);
            if (peek(s) != ':')
                return false;
            s->at++;
            skip_blanks(s);
        }
        if (found)
            return s->at < s->end && !memchr(",]}", *s->at, 3);
        skip_value(s);
        if (peek(s) != ',')
            return false;
        s->at++;
    }
}

void json_place(const JsonSource *from, const char *path, int64_t *line, int64_t *column)
{
    const char *begin = from->text;
    Scan s = {begin, begin + from->n};
    if (from->n >= 3 && !memcmp(begin, "\xEF\xBB\xBF", 3))
        begin = s.at = begin + 3;
    skip_blanks(&s);
    const char *found = s.at;
    while (*path) {
        const size_t n = strcspn(path, ".[");
        char *rest = (char *)(uintptr_t)path + n;
        const bool there = n ? enter(&s, path, n, 0)
                             : *path == '[' && enter(&s, NULL, 0, strtoll(path + 1, &rest, 10));
        if (!there)
            break;
        found = s.at;
        path = rest + (*rest == ']');
        path += *path == '.';
    }
    *line = from->line;
    *column = from->column;
    for (const char *c = begin; c < found; c++) {
        *column += ((unsigned char)*c & 0xc0) != 0x80; /* UTF-8: characters, not bytes */
        if (*c == '\n') {
            ++*line;
            *column = 1;
        }
    }
}
