/* events.c - see events.h: a writer of the three messages that TensorBoard needs, by hand. Tested by
 * tests/unit/test_events.c; tests/golden/check_tensorboard.py reads a run with TensorBoard itself. */
#include "common/train/events.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 12, TAIL = 4 }; /* bytes before and after a record's data */

/* Field number << 3 | wire type: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes. */
enum {
    EVENT_WALL_TIME = 1 << 3 | 1,
    EVENT_STEP = 2 << 3 | 0,
    EVENT_FILE_VERSION = 3 << 3 | 2,
    EVENT_SUMMARY = 5 << 3 | 2,
    SUMMARY_VALUE = 1 << 3 | 2,
    VALUE_TAG = 1 << 3 | 2,
    VALUE_SIMPLE = 2 << 3 | 5,
};

static int fail(const Events *e, const char *what)
{
    return error_set(ERR_CANTCREATE, "%s: %s: %s", e->path, what, strerror(errno));
}

/* ---- writing ---- */

static void add_byte(Str *out, unsigned char byte)
{
    str_add_bytes(out, &byte, 1);
}

static void add_le(Str *out, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        add_byte(out, (unsigned char)(v >> 8 * i));
}

static void add_varint(Str *out, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        add_byte(out, (unsigned char)(v | 0x80));
    add_byte(out, (unsigned char)v);
}

static size_t varint_bytes(uint64_t v)
{
    size_t n = 1;
    for (; v >= 0x80; v >>= 7)
        n++;
    return n;
}

static void add_text(Str *out, unsigned char field, const char *text)
{
    add_byte(out, field);
    add_varint(out, strlen(text));
    str_add(out, text);
}

/* Bytes of a Value: a tag, its length and text; a tag and four bytes. */
static size_t value_bytes(const char *name)
{
    size_t n = strlen(name);
    return 1 + varint_bytes(n) + n + 1 + 4;
}

static void add_summary(Str *out, const Metrics *m)
{
    size_t all = 0;
    for (int i = 0; i < m->n; i++) {
        size_t n = value_bytes(m->name[i]);
        all += 1 + varint_bytes(n) + n;
    }
    add_byte(out, EVENT_SUMMARY);
    add_varint(out, all);
    for (int i = 0; i < m->n; i++) {
        float value = (float)m->value[i];
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        add_byte(out, SUMMARY_VALUE);
        add_varint(out, value_bytes(m->name[i]));
        add_text(out, VALUE_TAG, m->name[i]);
        add_byte(out, VALUE_SIMPLE);
        add_le(out, bits, 4);
    }
}

static uint32_t masked_crc(const void *data, size_t n)
{
    uint32_t crc = hash_crc32c(data, n);
    return (crc >> 15 | crc << 17) + 0xa282ead8U;
}

/* Leaves room for the head, which needs the length, and begins the Event. */
static void record_begin(Str *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    double seconds = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    uint64_t bits;
    memcpy(&bits, &seconds, sizeof bits);
    str_clear(out);
    add_le(out, 0, 8);
    add_le(out, 0, 4);
    add_byte(out, EVENT_WALL_TIME);
    add_le(out, bits, 8);
}

/* Completes the record and appends it in one write. */
static int record_end(Events *e)
{
    Str *out = &e->record, head = {0};
    size_t n = out->n - HEAD;
    add_le(&head, n, 8);
    add_le(&head, masked_crc(head.s, 8), 4);
    memcpy(out->s, head.s, HEAD);
    str_free(&head);
    add_le(out, masked_crc(out->s + HEAD, n), 4);
    return file_write_all(e->fd, e->path, out->s, out->n);
}

int events_write(Events *e, int64_t step, const Metrics *m)
{
    if (!e->path)
        return 0;
    record_begin(&e->record);
    add_byte(&e->record, EVENT_STEP);
    add_varint(&e->record, (uint64_t)step);
    add_summary(&e->record, m);
    return record_end(e);
}

/* ---- opening ---- */

static uint64_t read_le(const unsigned char *p, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << 8 * i;
    return v;
}

/* Step of an Event as written above; one without a step says 0. -1 = not ours. */
static int64_t event_step(const unsigned char *data, size_t n)
{
    uint64_t step = 0;
    if (n < 9 || data[0] != EVENT_WALL_TIME)
        return -1;
    if (n == 9 || data[9] != EVENT_STEP)
        return 0;
    for (size_t i = 10, shift = 0; i < n && shift < 63; i++, shift += 7) {
        step |= (uint64_t)(data[i] & 0x7F) << shift;
        if (data[i] < 0x80)
            return (int64_t)step;
    }
    return -1;
}

/* Length of the longest run of whole records from the beginning, all of steps up to `step`. */
static size_t good_bytes(const unsigned char *p, size_t n, int64_t step)
{
    size_t at = 0;
    while (n - at >= HEAD + TAIL) {
        const unsigned char *r = p + at;
        uint64_t len = read_le(r, 8);
        if (read_le(r + 8, 4) != masked_crc(r, 8) || len > n - at - HEAD - TAIL ||
            read_le(r + HEAD + len, 4) != masked_crc(r + HEAD, len))
            break;
        int64_t its = event_step(r + HEAD, len);
        if (its < 0 || its > step)
            break;
        at += HEAD + len + TAIL;
    }
    return at;
}

static int cut_back(Events *e, int64_t step)
{
    FileMap old = {0};
    int rc = file_map(&old, e->path);
    if (rc < 0)
        return rc;
    size_t keep = good_bytes(old.data, old.n, step);
    file_unmap(&old);
    if (ftruncate(e->fd, (off_t)keep) < 0 || lseek(e->fd, (off_t)keep, SEEK_SET) < 0)
        return fail(e, "cannot be cut back");
    if (keep > 0)
        return 0;
    record_begin(&e->record);
    add_text(&e->record, EVENT_FILE_VERSION, "brain.Event:2");
    return record_end(e);
}

int events_open(Events *e, const char *run_dir, int64_t step)
{
    *e = (Events){.path = path_join(run_dir, "events.out.tfevents")};
    e->fd = open(e->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    return e->fd < 0 ? fail(e, "cannot be opened for writing") : cut_back(e, step);
}

int events_sync(const Events *e)
{
    return e->path && fsync(e->fd) < 0 && errno != EINVAL ? fail(e, "cannot be synced to the disk") : 0;
}

void events_close(Events *e)
{
    if (e->path && e->fd >= 0)
        close(e->fd);
    free(e->path);
    str_free(&e->record);
    *e = (Events){0};
}
