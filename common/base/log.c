/* log.c - the one place that prints messages.
 *
 * Level, rank, the log file and the status line are the process's state and live here behind a
 * lock; each message is formatted first and written with one call, so lines of different threads
 * never mix. Tested by tests/unit/test_base.c. */
#include "common/base/log.h"

#include "common/base/mem.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static LogLevel level_max = LOG_INFO;
static int rank_own;
static FILE *log_file;
static Str status_line; /* empty: none is shown */

static const char *const level_names[] = {"error", "warn", "info", "debug"};

void log_init(int rank)
{
    rank_own = rank;
    level_max = LOG_INFO;
    const char *want = getenv("RLHF_LOG");
    if (!want || !*want)
        return;
    for (int i = 0; i < 4; i++) {
        if (strcmp(want, level_names[i]) == 0) {
            level_max = (LogLevel)i;
            return;
        }
    }
    log_warn("RLHF_LOG is \"%s\"; expected error, warn, info or debug; using info", want);
}

int log_rank(void)
{
    return rank_own;
}

bool log_enabled(LogLevel level)
{
    return level <= level_max && (level != LOG_INFO || rank_own == 0);
}

void log_set_file(const char *path)
{
    FILE *f = path ? fopen(path, "ae") : NULL;
    if (path && !f)
        log_warn("%s: the log file cannot be opened: %m; going on without it", path);
    pthread_mutex_lock(&lock);
    if (log_file)
        fclose(log_file);
    log_file = f;
    pthread_mutex_unlock(&lock);
}

static void write_file_line(const char *text)
{
    char when[32];
    struct tm tm;
    time_t now = time(NULL);
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", localtime_r(&now, &tm));
    fprintf(log_file, "%s %s\n", when, text);
    fflush(log_file);
}

void log_print(LogLevel level, const char *fmt, ...)
{
    if (!log_enabled(level))
        return;
    Str b = {0};
    if (level != LOG_INFO && rank_own > 0)
        str_addf(&b, "rank %d: ", rank_own);
    if (level == LOG_ERROR)
        str_add(&b, "error: ");
    else if (level == LOG_WARN)
        str_add(&b, "warning: ");
    va_list ap;
    va_start(ap, fmt);
    str_addv(&b, fmt, ap);
    va_end(ap);

    pthread_mutex_lock(&lock);
    if (status_line.n) {
        fputs("\r\033[K", stdout);
        fflush(stdout);
    }
    FILE *to = level == LOG_INFO ? stdout : stderr;
    fprintf(to, "%s\n", b.s);
    if (log_file)
        write_file_line(b.s);
    if (status_line.n)
        fputs(status_line.s, stdout);
    fflush(stdout);
    pthread_mutex_unlock(&lock);
    str_free(&b);
}

void log_status(const char *line)
{
    if (!log_enabled(LOG_INFO) || !isatty(STDOUT_FILENO))
        return;
    pthread_mutex_lock(&lock);
    bool shown = status_line.n > 0;
    if (line && *line) {
        str_clear(&status_line);
        str_add(&status_line, line);
        printf("\r%s\033[K", line);
    } else {
        str_free(&status_line);
        if (shown)
            fputs("\r\033[K", stdout);
    }
    fflush(stdout);
    pthread_mutex_unlock(&lock);
}
