/* error.h - the two kinds of failure, and the exit codes.
 *
 * 1. Our bug or a dead machine: CHECK(cond, "fmt", ...) prints rank, place, condition and aborts.
 *    It is on in every build.
 * 2. The world's fault (config, data, checkpoint, file system): the function returns a negative
 *    ErrorCode after error_set() put one sentence into the thread's last-error text. Callers pass
 *    it up with TRY(); only main prints it and exits with -code.
 *
 * An error sentence names place (file:line:column), what was found, what was expected and what to
 * change. */
#ifndef RLHF_BASE_ERROR_H
#define RLHF_BASE_ERROR_H

/* Negative return values; the process exit code is the absolute value (sysexits where one fits).
 * 0 = success. 10 and 75 are not errors but documented exits, so they have names too. */
typedef enum {
    ERR_OK          = 0,
    ERR_UNEXPECTED  = -1,
    ERR_USAGE       = -2,  /* command line */
    ERR_DATA        = -65, /* a record, model file, tokenizer is malformed or contradicts another */
    ERR_NOINPUT     = -66, /* an input file is missing or unreadable */
    ERR_UNAVAILABLE = -69, /* device or library asked for is not there */
    ERR_INTERNAL    = -70, /* our bug; CHECK aborts instead where it can */
    ERR_CANTCREATE  = -73, /* an output cannot be created or the disk is full */
    ERR_IO          = -74, /* read error */
    ERR_DIVERGED    = -76, /* non-finite numbers, or a hard stop of training */
    ERR_CONFIG      = -78, /* configuration */
} ErrorCode;

enum {
    EXIT_WAITING = 10, /* an external stage wrote its input and waits for a file */
    EXIT_STOPPED = 75, /* stopped by a signal after a checkpoint; run again with --resume auto */
};

/* Sets the thread's last-error text and returns `code`, so that `return error_set(...)` works. */
int error_set(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts "prefix: " in front of the last-error text; returns the code of the last error_set. */
int error_prefix(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The thread's last-error text; may hold several lines (config errors are reported all at once).
 * Never NULL; valid until the next error_set of this thread. */
const char *error_text(void);

/* Passes a negative result to the function's one cleanup label. Needs `int rc` and `fail:`. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        if ((rc = (call)) < 0)                                                                     \
            goto fail;                                                                             \
    } while (0)

/* Prints "rank R file:line: check failed: cond: message" to stderr and aborts. */
_Noreturn void check_failed(const char *file, int line, const char *cond, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0))                                                          \
            check_failed(__FILE__, __LINE__, #cond, __VA_ARGS__);                                  \
    } while (0)

#endif
