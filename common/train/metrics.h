/* metrics.h - metrics.jsonl: one object per step with fixed keys, TRL's names where they exist (README.md
 * lists them). */
#ifndef RLHF_TRAIN_METRICS_H
#define RLHF_TRAIN_METRICS_H

#include <stdint.h>

enum { METRICS_MAX = 96 };

typedef struct {
    const char *name[METRICS_MAX]; /* string literals */
    double value[METRICS_MAX];
    int n;
    char *path;
    int64_t offset; /* bytes of metrics.jsonl that belong to finished steps; part of a checkpoint */
    int fd;
} Metrics;

/* Opens run_dir/metrics.jsonl and cuts it to `offset` (0 for a new run): lines written after the
 * checkpoint that is resumed from are written again, the same. No wall times in this file: two equal
 * runs have equal files (timing.jsonl holds them). */
int metrics_open(Metrics *m, const char *run_dir, int64_t offset);
void metrics_close(Metrics *m);
void metrics_set(Metrics *m, const char *name, double value); /* non-finite values are written as null */
double metrics_get(const Metrics *m, const char *name);       /* NaN if absent */
int metrics_write(Metrics *m, int64_t step);                  /* appends the line and clears the set */
int metrics_sync(Metrics *m);                                 /* before a checkpoint counts on offset */

#endif
