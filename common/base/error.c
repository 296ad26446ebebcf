/* error.c - the thread's last-error text and CHECK's last words.
 *
 * The text is a fixed buffer per thread, so that setting an error never allocates and works when
 * memory is short; what does not fit is cut with "...". Tested by tests/unit/test_base.c. */
#include "common/base/error.h"

#include "common/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ERROR_BYTES = 16384 };

static _Thread_local char last_text[ERROR_BYTES];
static _Thread_local int last_code;

/* Leaves room to mark a cut, so that a reader knows that something is missing. */
static void mark_cut(char *text, int wanted)
{
    if (wanted >= ERROR_BYTES)
        memcpy(text + ERROR_BYTES - 4, "...", 4);
}

int error_set(int code, const char *fmt, ...)
{
    char text[ERROR_BYTES]; /* an argument may be error_text() itself */
    va_list ap;
    va_start(ap, fmt);
    int wanted = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    mark_cut(text, wanted);
    memcpy(last_text, text, strlen(text) + 1);
    last_code = code;
    return code;
}

int error_prefix(const char *fmt, ...)
{
    char text[ERROR_BYTES];
    va_list ap;
    va_start(ap, fmt);
    int wanted = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (wanted < 0 || wanted >= ERROR_BYTES)
        wanted = (int)strlen(text);
    mark_cut(text,
             wanted + snprintf(text + wanted, sizeof text - (size_t)wanted, ": %s", last_text));
    memcpy(last_text, text, strlen(text) + 1);
    return last_code;
}

const char *error_text(void)
{
    return last_text;
}

_Noreturn void check_failed(const char *file, int line, const char *cond, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fflush(stdout);
    fprintf(stderr, "rank %d %s:%d: check failed: %s: %s\n", log_rank(), file, line, cond, text);
    fflush(stderr);
    abort();
}
