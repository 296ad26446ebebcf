/* thread.h - the CPU team. The only file with threads (thread.c): a body is fn(part, n_parts, ctx),
 * run once per part by cpu_for; parts must not depend on each other, and results must not depend
 * on n_parts.
 *
 * Workers spin for a bounded time between calls, then sleep on a futex; the spin is off when the
 * machine has fewer cores than threads. */
#ifndef RLHF_RUNTIME_THREAD_H
#define RLHF_RUNTIME_THREAD_H

#include <stdint.h>

typedef struct Team Team;
typedef void (*TeamFn)(int part, int n_parts, void *ctx);

Team *team_open(int n_threads); /* the caller is one of them */
void team_close(Team *t);       /* NULL is fine */
int team_size(const Team *t);
void cpu_for(Team *t, TeamFn fn, void *ctx); /* returns when all parts are done */

/* Splits 0..n into n_parts runs of whole blocks, as even as can be: [*from, *to). */
void part_range(int64_t n, int64_t block, int part, int n_parts, int64_t *from, int64_t *to);

/* For op bodies: the team of a CPU device, and `bytes` of 64-byte-aligned scratch private to one
 * part: one block a part, so a body asks once for all it needs and a second call takes the place of
 * the first. Grown at first use and kept; bodies ask for tiles, whose sizes are bounded by the model's
 * widths and never by the number of tokens. device_scratch_bytes: what all parts hold now. */
struct Device;
Team *device_team(const struct Device *dev);
void *device_scratch(struct Device *dev, int part, int64_t bytes);
int64_t device_scratch_bytes(const struct Device *dev);

#endif
