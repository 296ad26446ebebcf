/* mem.c - allocation that cannot fail, and the string builder.
 *
 * Running out of host memory for small things is a dead machine, so it is a CHECK; sizes read from
 * a file go through try_malloc instead. Tested by tests/unit/test_base.c. */
#include "common/base/mem.h"

#include "common/base/error.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *xmalloc(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    CHECK(p, "out of memory: %zu bytes", bytes);
    return p;
}

void *xcalloc(size_t n, size_t bytes)
{
    void *p = calloc(n ? n : 1, bytes ? bytes : 1);
    CHECK(p, "out of memory: %zu times %zu bytes", n, bytes);
    return p;
}

void *xrealloc(void *p, size_t bytes)
{
    void *q = realloc(p, bytes ? bytes : 1);
    CHECK(q, "out of memory: %zu bytes", bytes);
    return q;
}

char *xstrndup(const char *s, size_t n)
{
    char *p = xmalloc(n + 1);
    if (n)
        memcpy(p, s, n);
    p[n] = 0;
    return p;
}

char *xstrdup(const char *s)
{
    return xstrndup(s, strlen(s));
}

char *xasprintf(const char *fmt, ...)
{
    Str b = {0};
    va_list ap;
    va_start(ap, fmt);
    str_addv(&b, fmt, ap);
    va_end(ap);
    return str_take(&b);
}

void *try_malloc(size_t bytes)
{
    return malloc(bytes ? bytes : 1);
}

/* Room for n more bytes and the NUL. */
static void str_reserve(Str *b, size_t n)
{
    CHECK(n < SIZE_MAX / 4 - b->n, "a string of %zu + %zu bytes", b->n, n);
    size_t need = b->n + n + 1;
    if (need <= b->cap)
        return;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need)
        cap *= 2;
    b->s = xrealloc(b->s, cap);
    b->cap = cap;
}

void str_add_bytes(Str *b, const void *s, size_t n)
{
    str_reserve(b, n);
    if (n)
        memcpy(b->s + b->n, s, n);
    b->n += n;
    b->s[b->n] = 0;
}

void str_add(Str *b, const char *s)
{
    str_add_bytes(b, s, strlen(s));
}

void str_add_replaced(Str *b, const char *s, const char *from, const char *to)
{
    for (const char *at; (at = strstr(s, from)); s = at + strlen(from)) {
        str_add_bytes(b, s, (size_t)(at - s));
        str_add(b, to);
    }
    str_add(b, s);
}

void str_addv(Str *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    str_reserve(b, 0);
    int n = vsnprintf(b->s + b->n, b->cap - b->n, fmt, ap);
    CHECK(n >= 0, "bad format \"%s\"", fmt);
    if ((size_t)n >= b->cap - b->n) {
        str_reserve(b, (size_t)n);
        vsnprintf(b->s + b->n, b->cap - b->n, fmt, again);
    }
    va_end(again);
    b->n += (size_t)n;
}

void str_addf(Str *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    str_addv(b, fmt, ap);
    va_end(ap);
}

/* A number of at most 15 (6) digits survives text -> double (float) -> text, so the first precision
 * that reads back is also the shortest; %g drops the zeros at the end. */
void str_add_double(Str *b, double v)
{
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    str_add(b, text);
}

void str_add_float(Str *b, float v)
{
    char text[40];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)v);
        if (strtof(text, NULL) == v)
            break;
    }
    str_add(b, text);
}

void str_clear(Str *b)
{
    b->n = 0;
    if (b->s)
        b->s[0] = 0;
}

void str_free(Str *b)
{
    free(b->s);
    *b = (Str){0};
}

const char *str_get(const Str *b)
{
    return b->s ? b->s : "";
}

char *str_take(Str *b)
{
    char *s = b->s ? b->s : xstrdup("");
    *b = (Str){0};
    return s;
}
