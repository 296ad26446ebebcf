/* stream_write.c - writing plain, gzip and zstd files that appear under their name only when whole.
 *
 * Everything goes to NAME.tmp; the first failure is remembered and reported again by every later
 * call, so a caller may look at writer_close alone. Tested by tests/unit/test_stream.c. */
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

enum { OUT_BYTES = 1 << 17 };

struct Writer {
    char *path, *tmp; /* tmp NULL: written in place (stdout, a device, a pipe) */
    int fd;
    int error; /* errno of the first failure */
    z_stream z;
    bool z_ready;
    ZSTD_CCtx *zstd;
    unsigned char *out; /* bytes on their way to the file */
    size_t n;
};

static int fail_writer(Writer *w)
{
    if (!w->error)
        w->error = errno ? errno : EIO;
    return error_set(ERR_CANTCREATE, "%s: cannot be written: %s", w->path, strerror(w->error));
}

static int flush_out(Writer *w)
{
    if (file_write_all(w->fd, w->path, w->out, w->n) < 0)
        return fail_writer(w);
    w->n = 0;
    return 0;
}

static int put_plain(Writer *w, const char *data, size_t n)
{
    int rc = 0;
    while (n && rc == 0) {
        size_t take = n < OUT_BYTES - w->n ? n : OUT_BYTES - w->n;
        memcpy(w->out + w->n, data, take);
        w->n += take;
        data += take;
        n -= take;
        if (w->n == OUT_BYTES)
            rc = flush_out(w);
    }
    return rc;
}

static int put_gzip(Writer *w, const char *data, size_t n, bool finish)
{
    int code;
    w->z.next_in = (unsigned char *)(uintptr_t)data;
    do {
        size_t take = n < UINT_MAX ? n : UINT_MAX;
        w->z.avail_in = (unsigned)take;
        w->z.next_out = w->out + w->n;
        w->z.avail_out = (unsigned)(OUT_BYTES - w->n);
        code = deflate(&w->z, finish ? Z_FINISH : Z_NO_FLUSH);
        CHECK(code != Z_STREAM_ERROR, "zlib refuses to compress");
        n -= take - w->z.avail_in;
        w->n = OUT_BYTES - w->z.avail_out;
        if (w->n == OUT_BYTES && flush_out(w) < 0)
            return ERR_CANTCREATE;
    } while (n || (finish && code != Z_STREAM_END));
    return 0;
}

static int put_zstd(Writer *w, const char *data, size_t n, bool finish)
{
    ZSTD_inBuffer in = {data, n, 0};
    size_t left;
    do {
        ZSTD_outBuffer out = {w->out, OUT_BYTES, w->n};
        left = ZSTD_compressStream2(w->zstd, &out, &in, finish ? ZSTD_e_end : ZSTD_e_continue);
        CHECK(!ZSTD_isError(left), "zstd refuses to compress: %s", ZSTD_getErrorName(left));
        w->n = out.pos;
        if (w->n == OUT_BYTES && flush_out(w) < 0)
            return ERR_CANTCREATE;
    } while (in.pos < n || (finish && left));
    return 0;
}

static int put(Writer *w, const void *data, size_t n, bool finish)
{
    if (w->error)
        return fail_writer(w);
    if (w->z_ready)
        return put_gzip(w, data, n, finish);
    if (w->zstd)
        return put_zstd(w, data, n, finish);
    return put_plain(w, data, n);
}

static bool has_suffix(const char *path, const char *suffix)
{
    size_t n = strlen(path), m = strlen(suffix);
    return n > m && strcmp(path + n - m, suffix) == 0;
}

static void start_encoder(Writer *w)
{
    if (has_suffix(w->path, ".gz")) {
        int code = deflateInit2(&w->z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
        CHECK(code == Z_OK, "zlib does not start");
        w->z_ready = true;
    } else if (has_suffix(w->path, ".zst")) {
        w->zstd = ZSTD_createCCtx();
        CHECK(w->zstd, "zstd does not start");
        ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_checksumFlag, 1);
    }
}

int writer_open(Writer **out, const char *path)
{
    Writer *w = *out = xcalloc(1, sizeof *w);
    bool is_stdout = strcmp(path, "-") == 0;
    w->path = xstrdup(is_stdout ? "<stdout>" : path);
    if (!is_stdout && !file_is_special(path))
        w->tmp = xasprintf("%s.tmp", path);
    if (is_stdout) {
        fflush(stdout);
        w->fd = dup(STDOUT_FILENO);
    } else {
        w->fd = open(w->tmp ? w->tmp : path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    }
    if (w->fd < 0) {
        int rc = error_set(ERR_CANTCREATE, "%s: cannot be created: %s", w->path, strerror(errno));
        free(w->tmp);
        w->tmp = NULL;
        writer_abort(w);
        *out = NULL;
        return rc;
    }
    w->out = xmalloc(OUT_BYTES);
    start_encoder(w);
    return 0;
}

int writer_write(Writer *w, const void *data, size_t n)
{
    return put(w, data, n, false);
}

void writer_abort(Writer *w)
{
    if (!w)
        return;
    if (w->z_ready)
        deflateEnd(&w->z);
    ZSTD_freeCCtx(w->zstd);
    if (w->fd >= 0)
        close(w->fd);
    if (w->tmp)
        unlink(w->tmp);
    free(w->out);
    free(w->tmp);
    free(w->path);
    free(w);
}

/* Syncs, closes and renames; afterwards nothing is left for writer_abort to remove. */
static int publish(Writer *w)
{
    int bad = fsync(w->fd) < 0;
    bad |= close(w->fd) < 0;
    w->fd = -1;
    if (bad || rename(w->tmp, w->path) < 0)
        return fail_writer(w);
    free(w->tmp);
    w->tmp = NULL;
    return file_sync_parent(w->path);
}

int writer_close(Writer *w)
{
    int rc;
    TRY(put(w, NULL, 0, true));
    TRY(flush_out(w));
    if (w->tmp)
        TRY(publish(w));
fail:
    writer_abort(w);
    return rc;
}
