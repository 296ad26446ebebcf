/* events.h - the curves of metrics.jsonl as a TensorBoard event file, RUN_DIR/events.out.tfevents.
 *
 * A record is u64 length, u32 masked CRC-32C of it, data, u32 masked CRC-32C of the data, little-endian
 * (TensorFlow, record_writer.cc); the data are a protobuf Event (event.proto, summary.proto). The file holds
 * wall times, so it is no part of determinism; its size is, because no field's width depends on them. */
#ifndef RLHF_TRAIN_EVENTS_H
#define RLHF_TRAIN_EVENTS_H

#include "common/base/mem.h"
#include "common/train/metrics.h"

typedef struct {
    char *path; /* NULL = not open */
    int fd;
    Str record; /* scratch */
} Events;

/* Opens the file for a run that goes on after `step`: of an existing one whole records up to that step stay,
 * the rest is cut off. Needs nothing from a checkpoint. */
int events_open(Events *e, const char *run_dir, int64_t step);
/* All of m as scalars of one event; before metrics_write, which clears m. Not open: does nothing. */
int events_write(Events *e, int64_t step, const Metrics *m);
int events_sync(const Events *e);
void events_close(Events *e);

#endif
