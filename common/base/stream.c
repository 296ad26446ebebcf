/* stream.c - reading lines through plain, gzip and zstd files.
 *
 * One buffer holds [pos, n) of decompressed text; fill() appends to it in whichever way the file's
 * first bytes ask for, and a line is cut out in place. An archive that ends early is an error,
 * never a short file. Tested by tests/unit/test_stream.c; writing is in stream_write.c. */
#include "common/base/stream.h"

#include "common/base/error.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

enum { IN_BYTES = 1 << 17, FILL_BYTES = 1 << 17 };
static const size_t line_bytes_max = (size_t)64 << 20;

typedef enum { STREAM_PLAIN, STREAM_GZIP, STREAM_ZSTD } StreamKind;

struct Reader {
    char *path;
    int fd;
    StreamKind kind;
    unsigned char *in; /* bytes of the file not yet consumed: [in_pos, in_n) */
    size_t in_pos, in_n;
    bool in_end;
    z_stream z;
    bool z_ready;
    ZSTD_DCtx *zstd;
    bool damaged; /* gzip: seen behind the text that was handed over */
    bool inside;  /* within a gzip member or zstd frame: the file must not end here */
    char *buf;
    size_t pos, n, cap;
    bool end;
    int64_t line;
};

/* Refills `in` when it is empty; 0 or a negative error. */
static int read_input(Reader *r)
{
    while (r->in_pos == r->in_n && !r->in_end) {
        ssize_t got = read(r->fd, r->in, IN_BYTES);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(ERR_IO, "%s: cannot be read: %s", r->path, strerror(errno));
        r->in_pos = 0;
        r->in_n = (size_t)got;
        r->in_end = got == 0;
    }
    return 0;
}

/* At the place in the text up to which the data were good. */
static int fail_archive(const Reader *r, const char *what)
{
    int64_t line = r->line + 1;
    size_t begin = r->pos;
    for (size_t i = r->pos; i < r->n; i++)
        if (r->buf[i] == '\n') {
            line++;
            begin = i + 1;
        }
    return error_set(ERR_DATA, "%s:%lld:%zu: %s", r->path, (long long)line, r->n - begin + 1, what);
}

/* The three ways to append at most `room` bytes at `to`: bytes added, 0 = try again or, with
 * r->end, nothing is left; or a negative error. `in` holds at least a byte unless the file ended.
 */
static ssize_t fill_plain(Reader *r, char *to, size_t room)
{
    size_t n = r->in_n - r->in_pos;
    if (n > room)
        n = room;
    memcpy(to, r->in + r->in_pos, n);
    r->in_pos += n;
    r->end = r->in_end;
    return (ssize_t)n;
}

static int fail_gzip(const Reader *r)
{
    return fail_archive(r, "damaged gzip data (or something else behind them)");
}

static ssize_t fill_gzip(Reader *r, char *to, size_t room)
{
    if (r->damaged)
        return fail_gzip(r);
    if (r->in_end) {
        r->end = true;
        return r->inside ? fail_archive(r, "the gzip data end early (truncated file?)") : 0;
    }
    if (!r->inside) {
        if (r->in[r->in_pos] == 0) { /* zero padding behind the last member is customary */
            r->in_pos++;
            return 0;
        }
        inflateReset(&r->z);
        r->inside = true;
    }
    r->z.next_in = r->in + r->in_pos;
    r->z.avail_in = (unsigned)(r->in_n - r->in_pos);
    r->z.next_out = (unsigned char *)to;
    r->z.avail_out = (unsigned)room;
    int code = inflate(&r->z, Z_NO_FLUSH);
    r->in_pos = r->in_n - r->z.avail_in;
    if (code == Z_STREAM_END)
        r->inside = false;
    else
        r->damaged = code != Z_OK && code != Z_BUF_ERROR; /* told behind the text before it */
    if (r->damaged && r->z.avail_out == room)
        return fail_gzip(r);
    return (ssize_t)(room - r->z.avail_out);
}

static ssize_t fill_zstd(Reader *r, char *to, size_t room)
{
    ZSTD_inBuffer in = {r->in, r->in_n, r->in_pos};
    ZSTD_outBuffer out = {to, room, 0};
    if (r->in_end && !r->inside) {
        r->end = true;
        return 0;
    }
    size_t left = ZSTD_decompressStream(r->zstd, &out, &in);
    r->in_pos = in.pos;
    if (ZSTD_getErrorCode(left) == ZSTD_error_frameParameter_windowTooLarge)
        return fail_archive(r, "the zstd data need a window of more than 128 MiB; compress them again without --long");
    if (ZSTD_isError(left))
        return fail_archive(r, "damaged zstd data (or something else behind them)");
    if (r->in_end && left > 0 && out.pos == 0)
        return fail_archive(r, "the zstd data end early (truncated file?)");
    r->inside = left > 0;
    return (ssize_t)out.pos;
}

/* Appends to the buffer; bytes added, 0 = the end, or a negative error. */
static ssize_t fill(Reader *r)
{
    if (r->pos > 0) {
        memmove(r->buf, r->buf + r->pos, r->n - r->pos);
        r->n -= r->pos;
        r->pos = 0;
    }
    if (r->cap - r->n < FILL_BYTES + 1) {
        r->cap = 2 * (r->n + FILL_BYTES + 1);
        r->buf = xrealloc(r->buf, r->cap);
    }
    while (!r->end) {
        int rc = read_input(r);
        if (rc < 0)
            return rc;
        char *to = r->buf + r->n;
        ssize_t got = r->kind == STREAM_GZIP   ? fill_gzip(r, to, FILL_BYTES)
                      : r->kind == STREAM_ZSTD ? fill_zstd(r, to, FILL_BYTES)
                                               : fill_plain(r, to, FILL_BYTES);
        if (got > 0)
            r->n += (size_t)got;
        if (got != 0)
            return got;
    }
    return 0;
}

/* What people do hand over, and the way from there. */
static int refuse_foreign(const Reader *r)
{
    static const struct {
        const char *magic;
        size_t n;
        const char *what;
    } foreign[] = {
        {"\xFD\x37zXZ\0", 6, "xz data; decompress them first: xz -d"},
        {"BZh", 3, "bzip2 data; decompress them first: bzip2 -d"},
        {"PK\3\4", 4, "a zip archive; unpack it first"},
        {"PAR1", 4,
         "a Parquet file; write it as JSON lines first, with duckdb -c \"COPY (FROM "
         "'x.parquet') TO 'x.jsonl'\" or datasets' to_json"},
        {"ARROW1", 6, "an Arrow file; write it as JSON lines first, with datasets' to_json"},
        {"\x04\x22\x4D\x18", 4, "lz4 data; decompress them first: lz4 -d"},
        {"\xFF\xFE", 2, "UTF-16 text; write it as UTF-8: iconv -f UTF-16 -t UTF-8"},
        {"\xFE\xFF", 2, "UTF-16 text; write it as UTF-8: iconv -f UTF-16 -t UTF-8"},
    };
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (r->in_n >= foreign[i].n && !memcmp(r->in, foreign[i].magic, foreign[i].n))
            return error_set(ERR_DATA, "%s: holds %s", r->path, foreign[i].what);
    return 0;
}

/* Looks at the first six bytes; a pipe may hand them over one at a time. */
static int detect_kind(Reader *r)
{
    while (r->in_n < 6) {
        ssize_t got = read(r->fd, r->in + r->in_n, IN_BYTES - r->in_n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(errno == EISDIR ? ERR_NOINPUT : ERR_IO, "%s: cannot be read: %s",
                             r->path, strerror(errno));
        if (got == 0)
            break;
        r->in_n += (size_t)got;
    }
    const unsigned char *m = r->in;
    if (r->in_n >= 2 && m[0] == 0x1F && m[1] == 0x8B)
        r->kind = STREAM_GZIP;
    else if (r->in_n >= 4 && (memcmp(m, "\x28\xB5\x2F\xFD", 4) == 0 ||
                              ((m[0] & 0xF0) == 0x50 && memcmp(m + 1, "\x2A\x4D\x18", 3) == 0)))
        r->kind = STREAM_ZSTD; /* the second form is a skippable frame */
    return r->kind == STREAM_PLAIN ? refuse_foreign(r) : 0;
}

static int start_decoder(Reader *r)
{
    if (r->kind == STREAM_GZIP) {
        CHECK(inflateInit2(&r->z, 15 + 16) == Z_OK, "zlib does not start");
        r->z_ready = true;
    } else if (r->kind == STREAM_ZSTD) {
        r->zstd = ZSTD_createDCtx();
        CHECK(r->zstd, "zstd does not start");
    }
    return 0;
}

static int skip_bom(Reader *r)
{
    while (r->n < 3 && !r->end) {
        ssize_t got = fill(r);
        if (got < 0)
            return (int)got;
    }
    if (r->n >= 3 && memcmp(r->buf, "\xEF\xBB\xBF", 3) == 0)
        r->pos = 3;
    return 0;
}

int reader_open(Reader **out, const char *path)
{
    int rc;
    Reader *r = *out = xcalloc(1, sizeof *r);
    bool is_stdin = strcmp(path, "-") == 0;
    r->path = xstrdup(is_stdin ? "<stdin>" : path);
    r->in = xmalloc(IN_BYTES);
    r->fd = is_stdin ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0) {
        rc = error_set(ERR_NOINPUT, "%s: cannot be opened: %s", r->path, strerror(errno));
        goto fail;
    }
    TRY(detect_kind(r));
    TRY(start_decoder(r));
    TRY(skip_bom(r));
    return 0;
fail:
    reader_close(r);
    *out = NULL;
    return rc;
}

void reader_close(Reader *r)
{
    if (!r)
        return;
    if (r->z_ready)
        inflateEnd(&r->z);
    ZSTD_freeDCtx(r->zstd);
    if (r->fd >= 0)
        close(r->fd);
    free(r->buf);
    free(r->in);
    free(r->path);
    free(r);
}

/* Cuts [pos, end) out as a line and goes on behind its newline, of which there are `newline`. */
static int take_line(Reader *r, size_t end, size_t newline, char **line, size_t *n)
{
    *line = r->buf + r->pos;
    *n = end - r->pos;
    if (*n && (*line)[*n - 1] == '\r')
        --*n;
    (*line)[*n] = 0;
    r->pos = end + newline;
    r->line++;
    return 1;
}

int reader_line(Reader *r, char **line, size_t *n)
{
    size_t seen = 0; /* bytes behind pos known to hold no newline */
    for (;;) {
        size_t have = r->n - r->pos;
        char *nl = have > seen ? memchr(r->buf + r->pos + seen, '\n', have - seen) : NULL;
        if ((nl ? (size_t)(nl - r->buf) - r->pos : have) > line_bytes_max)
            return error_set(ERR_DATA, "%s:%lld: the line is longer than 64 MiB", r->path,
                             (long long)r->line + 1);
        if (nl)
            return take_line(r, (size_t)(nl - r->buf), 1, line, n);
        seen = have;
        ssize_t got = fill(r);
        if (got < 0)
            return (int)got;
        if (got == 0)
            return have ? take_line(r, r->n, 0, line, n) : 0;
    }
}

int64_t reader_line_number(const Reader *r)
{
    return r->line;
}

int reader_peek(Reader *r, char *first)
{
    for (size_t k = 0;; k++) {
        while (r->pos + k == r->n) { /* fill moves pos to 0 */
            const ssize_t got = fill(r);
            *first = 0;
            if (got <= 0)
                return (int)got;
        }
        *first = r->buf[r->pos + k];
        if (!memchr(" \t\r\n", *first, 4))
            return 0;
    }
}

int reader_rest(Reader *r, char **data, size_t *n)
{
    ssize_t got;
    *data = NULL;
    *n = 0;
    do
        got = fill(r);
    while (got > 0);
    if (got < 0)
        return (int)got;
    /* fill moved pos to 0 and keeps room for a byte more */
    *data = r->buf;
    *n = r->n;
    r->buf[r->n] = 0;
    r->buf = NULL;
    r->n = r->cap = 0;
    return 0;
}

const char *reader_path(const Reader *r)
{
    return r->path;
}
