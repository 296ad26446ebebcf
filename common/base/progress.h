/* progress.h - one status line with rate and time left: redrawn in place on a terminal, a plain
 * line about every 10 s elsewhere, nothing when log level is below info or rank > 0. */
#ifndef RLHF_BASE_PROGRESS_H
#define RLHF_BASE_PROGRESS_H

#include <stdint.h>

typedef struct {
    const char *what; /* "sft" */
    const char *unit; /* "steps" */
    int64_t total, first;
    double t_start, t_drawn;
    int tty, drawn;
} Progress;

void progress_init(Progress *p, const char *what, const char *unit, int64_t first, int64_t total);
/* `detail` (may be NULL) follows the rate: "loss 1.234  lr 1e-05". */
void progress_update(Progress *p, int64_t done, const char *detail);
void progress_done(Progress *p); /* clears the line */
double time_now(void);           /* monotonic seconds */

#endif
