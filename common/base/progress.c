/* progress.c - rate and time left of a long run: a redrawn line on a terminal, else a plain line
 * about every ten seconds, so that a log file stays readable. Tested by tests/unit/test_base.c. */
#include "common/base/progress.h"

#include "common/base/log.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

double time_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void progress_init(Progress *p, const char *what, const char *unit, int64_t first, int64_t total)
{
    double now = time_now();
    *p = (Progress){.what = what,
                    .unit = unit,
                    .total = total,
                    .first = first,
                    .t_start = now,
                    .t_drawn = now,
                    .tty = isatty(STDOUT_FILENO)};
}

static void add_duration(Str *b, double seconds)
{
    long long s = (long long)(seconds + 0.5);
    if (s < 60)
        str_addf(b, "%llds", s);
    else if (s < 3600)
        str_addf(b, "%lldm%02llds", s / 60, s % 60);
    else
        str_addf(b, "%lldh%02lldm", s / 3600, s / 60 % 60);
}

static void add_line(Str *b, const Progress *p, int64_t done, const char *detail, double now)
{
    str_addf(b, "%s  %lld", p->what, (long long)done);
    if (p->total > 0)
        str_addf(b, "/%lld", (long long)p->total);
    str_addf(b, " %s", p->unit);
    double rate = (double)(done - p->first) / (now - p->t_start + 1e-9);
    if (rate > 0) {
        str_addf(b, rate < 100 ? "  %.3g/s" : "  %.0f/s", rate);
        if (p->total > done) {
            str_add(b, "  ");
            add_duration(b, (double)(p->total - done) / rate);
            str_add(b, " left");
        }
    }
    if (detail && *detail)
        str_addf(b, "  %s", detail);
}

/* A line wider than the terminal would wrap and could not be redrawn. */
static void cut_to_terminal(Str *b)
{
    struct winsize size;
    size_t wide = 80;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        wide = size.ws_col;
    if (b->n >= wide) {
        b->n = wide - 1;
        b->s[b->n] = 0;
    }
}

void progress_update(Progress *p, int64_t done, const char *detail)
{
    double now = time_now();
    bool last = p->total > 0 && done >= p->total;
    double wait = p->tty ? (p->drawn ? 0.1 : 0) : 10;
    if (!log_enabled(LOG_INFO) || (now - p->t_drawn < wait && !(last && p->tty)))
        return;
    Str b = {0};
    add_line(&b, p, done, detail, now);
    if (p->tty) {
        cut_to_terminal(&b);
        log_status(b.s);
    } else {
        log_info("%s", b.s);
    }
    str_free(&b);
    p->t_drawn = now;
    p->drawn = 1;
}

void progress_done(Progress *p)
{
    if (p->drawn && p->tty)
        log_status(NULL);
    p->drawn = 0;
}
