/* mem.h - host memory for small, variable things (names, records, lists), and a string builder.
 * Numbers that are computed with live in an Arena (runtime/arena.h), not here. */
#ifndef RLHF_BASE_MEM_H
#define RLHF_BASE_MEM_H

#include <stdarg.h>
#include <stddef.h>

/* x*: never return NULL; out of memory is a CHECK. Zero bytes give a valid pointer. */
void *xmalloc(size_t bytes);
void *xcalloc(size_t n, size_t bytes);
void *xrealloc(void *p, size_t bytes);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* NULL when there is not that much memory: only for sizes that come from a file. */
void *try_malloc(size_t bytes);

/* Makes room for one more element at the end of a growing array and evaluates to the new element's
 * index. `p` is the pointer variable, `n` its count (incremented), `cap` its capacity; all three
 * start as 0. New memory is not cleared.  i = VEC_GROW(v->x, v->n, v->cap); v->x[i] = ...; */
#define VEC_GROW(p, n, cap)                                                                        \
    ((n) == (cap) ? ((p) = xrealloc((p), (size_t)((cap) = (cap) ? 2 * (cap) : 8) * sizeof *(p)),   \
                     (n)++)                                                                        \
                  : (n)++)

/* String builder; zeroed is empty. `s` is NUL-terminated once anything was added, else NULL. */
typedef struct {
    char *s;
    size_t n, cap; /* bytes used (without the NUL), bytes allocated */
} Str;

void str_add(Str *b, const char *s);
void str_add_bytes(Str *b, const void *s, size_t n);
/* `s` with `to` wherever `from`, which is not empty, stands in it. */
void str_add_replaced(Str *b, const char *s, const char *from, const char *to);
void str_addf(Str *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void str_addv(Str *b, const char *fmt, va_list ap);
void str_add_double(Str *b, double v); /* shortest text that reads back to the same number */
void str_add_float(Str *b, float v);
void str_clear(Str *b); /* empties, keeps the memory */
void str_free(Str *b);
const char *str_get(const Str *b); /* the text, "" when empty; never NULL */
char *str_take(Str *b);            /* the caller owns the text from now on; b becomes empty */

#endif
