/* metrics.c - see metrics.h. A line is one write, and lines behind the offset of the checkpoint that a
 * run is resumed from are cut off, so the file of a killed and resumed run is that of a whole one.
 * Tested by tests/unit/test_metrics.c. */
#include "common/train/metrics.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fail(const Metrics *m, const char *what)
{
    return error_set(ERR_CANTCREATE, "%s: %s: %s", m->path, what, strerror(errno));
}

int metrics_open(Metrics *m, const char *run_dir, int64_t offset)
{
    memset(m, 0, sizeof *m);
    m->path = path_join(run_dir, "metrics.jsonl");
    m->fd = open(m->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (m->fd < 0)
        return fail(m, "cannot be opened for writing");
    off_t size = lseek(m->fd, 0, SEEK_END);
    if (size < offset)
        return error_set(ERR_DATA, "%s: has %lld bytes, but the checkpoint was written after %lld; bring "
                                   "the file back or start again with overwrite=true",
                         m->path, (long long)size, (long long)offset);
    if (ftruncate(m->fd, (off_t)offset) < 0 || lseek(m->fd, (off_t)offset, SEEK_SET) < 0)
        return fail(m, "cannot be cut back");
    m->offset = offset;
    return 0;
}

void metrics_close(Metrics *m)
{
    if (m->path && m->fd >= 0)
        close(m->fd);
    free(m->path);
    memset(m, 0, sizeof *m);
    m->fd = -1;
}

void metrics_set(Metrics *m, const char *name, double value)
{
    int i = 0;
    while (i < m->n && strcmp(m->name[i], name) != 0)
        i++;
    CHECK(i < METRICS_MAX, "more than %d metrics: %s", METRICS_MAX, name);
    m->name[i] = name;
    m->value[i] = value;
    if (i == m->n)
        m->n++;
}

double metrics_get(const Metrics *m, const char *name)
{
    for (int i = 0; i < m->n; i++) {
        if (strcmp(m->name[i], name) == 0)
            return m->value[i];
    }
    return NAN;
}

int metrics_write(Metrics *m, int64_t step)
{
    Str line = {0};
    JsonWriter w;
    jw_init(&w, &line, false);
    jw_object(&w);
    jw_kint(&w, "step", step);
    for (int i = 0; i < m->n; i++)
        jw_knum(&w, m->name[i], m->value[i]);
    jw_object_end(&w);
    str_add(&line, "\n");
    m->n = 0;

    int rc = file_write_all(m->fd, m->path, line.s, line.n);
    if (rc == 0)
        m->offset += (int64_t)line.n;
    str_free(&line);
    return rc;
}

int metrics_sync(Metrics *m)
{
    return fsync(m->fd) < 0 && errno != EINVAL ? fail(m, "cannot be synced to the disk") : 0;
}
