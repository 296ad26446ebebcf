/* fuzz_streams.c - any bytes as a file: lines, the whole rest and rows agree on what they hold and
 * on whether they are damaged, gzip and zstd data with what the libraries' one-shot functions make of each
 * member and frame; nothing is read beyond it, nothing hangs. */
#include "tests/fuzz/fuzz.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/data/rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

const char *const fuzz_words[] = {
    "\x1f\x8b",
    "\x1f\x8b\x08",
    "\x28\xb5\x2f\xfd",
    "\x50\x2a\x4d\x18",
    "\x5f\x2a\x4d\x18",
    "\xff\xff\xff\xff",
    "\n",
    "\r\n",
    "[",
    "]",
    "{}",
    ",",
    "\"",
    "\\",
    "PAR1",
    "\xff\xfe",
    "\xef\xbb\xbf",
    " ",
    NULL,
};

static void pack(const char *suffix, const char *text, Str *out)
{
    char path[64], *data;
    size_t n;
    Writer *w;
    snprintf(path, sizeof path, "/tmp/fuzz_streams.%d%s", (int)getpid(), suffix);
    CHECK(writer_open(&w, path) == 0 && writer_write(w, text, strlen(text)) == 0 &&
              writer_close(w) == 0 && file_read(path, &data, &n) == 0,
          "%s", error_text());
    unlink(path);
    str_add_bytes(out, data, n);
    free(data);
}

/* Plain, gzip and zstd of lines, an array and something long; two members or frames; a skippable
 * frame. */
bool fuzz_seed(int k, Str *out)
{
    static const char *const suffixes[] = {".txt", ".gz", ".zst"};
    static const char *const texts[] = {"{\"a\": 1}\n{\"b\": \"x\"}\r\n\n[1]\n{\"c\": [2, \"]\"]}",
                                        " [{\"a\": 1},\n {\"b\": \"\\\"]\"} , 7]\n", ""};
    const int text = k / 3;
    Str repeated = {0};
    if (text < 3) {
        pack(suffixes[k % 3], texts[text], out);
    } else if (text == 3) {
        for (int i = 0; i < 200; i++)
            str_addf(&repeated, "{\"n\": %d}\n", i * i % 977);
        pack(suffixes[k % 3], repeated.s, out);
    } else if (text == 4) {
        pack(suffixes[k % 3], "{\"a\": 1}\n{\"b\":", out);
        pack(suffixes[k % 3], " 2}\n", out);
    } else if (text == 5) {
        str_add_bytes(out, "\x50\x2a\x4d\x18\3\0\0\0abc", 11);
        pack(".zst", texts[k % 3], out);
    } else if (text == 6) { /* frames with skippable ones between and behind them; one without a checksum or size */
        pack(".zst", texts[0], out);
        str_add_bytes(out, "\x5f\x2a\x4d\x18\0\0\0\0", 8);
        str_add_bytes(out, "\x28\xb5\x2f\xfd\0\x58\x21\0\0[7]\n", 13);
        if (k % 3 == 2) /* a byte 199,077 times in a block, more than there may be */
            str_add_bytes(out, "\x28\xb5\x2f\xfd\0\x50\x2b\x4d\x18x", 10);
        if (k % 3 == 1) /* an empty compressed block */
            str_add_bytes(out, "\x28\xb5\x2f\xfd\0\x58\5\0\0", 9);
        if (k % 3)
            str_add_bytes(out, "\x53\x2a\x4d\x18\1\0\0\0x", 9);
    } else {
        return false;
    }
    str_free(&repeated);
    return true;
}

/* All lines, each with a newline; the last result. */
static int read_lines(const char *path, Str *out)
{
    Reader *r;
    char *line;
    size_t n;
    int rc = reader_open(&r, path);
    if (rc < 0)
        return rc;
    while ((rc = reader_line(r, &line, &n)) == 1) {
        CHECK(line[n] == 0 && !memchr(line, '\n', n), "line");
        str_add_bytes(out, line, n);
        str_add(out, "\n");
    }
    reader_close(r);
    return rc;
}

/* As reader_line gives them: newlines alone, one at the end. */
static void add_lines(Str *out, const char *data, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(data[i] == '\r' && (i + 1 == n || data[i + 1] == '\n')))
            str_add_bytes(out, data + i, 1);
    if (n && data[n - 1] != '\n')
        str_add(out, "\n");
}

/* The same out of reader_rest. */
static int read_rest(const char *path, Str *out)
{
    Reader *r;
    char *data, first;
    size_t n;
    int rc = reader_open(&r, path);
    if (rc < 0)
        return rc;
    rc = reader_peek(r, &first);
    if (rc == 0 && (rc = reader_rest(r, &data, &n)) == 0) {
        CHECK(data[n] == 0 && (first == 0 || memchr(data, first, n)), "rest");
        add_lines(out, data, n);
        free(data);
    }
    reader_close(r);
    return rc;
}

/* ---- the libraries' own word */

enum { PLAIN_MAX = 1 << 20 };
static char plain[PLAIN_MAX]; /* what one frame or member holds */
static const uint64_t WINDOW_MAX = (uint64_t)1 << 27; /* what zstd's decoder takes unless told otherwise */

typedef enum { WHOLE, DAMAGED, UNTOLD /* too large for `plain`, or what zstd's two decoders disagree on */ } Verdict;

/* Bytes a decoder must keep for a frame. */
static uint64_t window_of(const uint8_t *frame, size_t n)
{
    const bool skippable = frame[0] != 0x28, single = frame[4] & 0x20;
    return skippable ? 0
           : single  ? ZSTD_getFrameContentSize(frame, n)
                     : ((uint64_t)1 << (10 + (frame[5] >> 3))) / 8 * (8 + (frame[5] & 7));
}

/* Whether zstd's two decoders see the same in the blocks of a frame (RFC 8878, 3.1.1.2). The one-shot one takes a
 * byte repeated more often than a block may be long. The streaming one, which is ours and that of zstd -d, takes an
 * empty compressed block as one that holds nothing, and behind an empty last block it does not ask whether the frame
 * had as many bytes as it said. Each refuses what the other takes. */
static bool blocks_agreed(const uint8_t *frame, size_t n, uint64_t window)
{
    enum { BLOCK_MAX = 128 << 10, REPEATED = 1, COMPRESSED = 2 };
    static const int id_bytes[] = {0, 1, 2, 4}, size_bytes[] = {0, 2, 4, 8};
    const bool skippable = frame[0] != 0x28, single = frame[4] & 0x20;
    const int size = frame[4] >> 6;
    const uint64_t said = ZSTD_getFrameContentSize(frame, n), most = window < BLOCK_MAX ? window : BLOCK_MAX;
    const uint8_t *at = frame + 5 + !single + id_bytes[frame[4] & 3] + (size ? size_bytes[size] : single);
    for (bool last = skippable; !last;) {
        const uint32_t head = at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16, bytes = head >> 3;
        const int kind = head >> 1 & 3;
        last = head & 1;
        if (bytes > most || (bytes == 0 && (kind == COMPRESSED || (last && said > 0 && said != ZSTD_CONTENTSIZE_UNKNOWN))))
            return false;
        at += 3 + (kind == REPEATED ? 1 : bytes);
    }
    return true;
}

/* A frame of n bytes. */
static Verdict frame_whole(const uint8_t *frame, size_t n, Str *out, uint64_t window)
{
    if (!blocks_agreed(frame, n, window))
        return UNTOLD;
    const size_t got = ZSTD_decompress(plain, PLAIN_MAX, frame, n);
    if (ZSTD_isError(got))
        return ZSTD_getErrorCode(got) == ZSTD_error_dstSize_tooSmall ? UNTOLD : DAMAGED;
    str_add_bytes(out, plain, got);
    return got <= window ? WHOLE : UNTOLD; /* with all of the output at hand it looks behind the window too */
}

/* Frame by frame. *window: the largest. */
static Verdict zstd_whole(const uint8_t *data, size_t n, Str *out, uint64_t *window)
{
    Verdict v = WHOLE;
    for (size_t frame; n && v == WHOLE; data += frame, n -= frame) {
        frame = ZSTD_findFrameCompressedSize(data, n);
        if (ZSTD_isError(frame))
            return DAMAGED;
        const uint64_t need = window_of(data, frame);
        *window = need > *window ? need : *window;
        v = frame_whole(data, frame, out, need);
    }
    return v;
}

/* Member by member; zeros between and behind them are padding. */
static Verdict gzip_whole(const uint8_t *data, size_t n, Str *out)
{
    Verdict v = WHOLE;
    while (n && v == WHOLE) {
        z_stream z = {.next_in = (uint8_t *)(uintptr_t)data, .avail_in = (unsigned)n, .next_out = (void *)plain,
                      .avail_out = PLAIN_MAX};
        if (!*data) {
            data++;
            n--;
            continue;
        }
        CHECK(inflateInit2(&z, 15 + 16) == Z_OK, "zlib does not start");
        if (inflate(&z, Z_FINISH) != Z_STREAM_END)
            v = z.avail_out ? DAMAGED : UNTOLD;
        str_add_bytes(out, plain, PLAIN_MAX - z.avail_out);
        data += n - z.avail_in;
        n = z.avail_in;
        inflateEnd(&z);
    }
    return v;
}

/* Our reader accepts what the library accepts, but for too large windows, and finds the same bytes there. */
static void check_library(const uint8_t *data, size_t n, int rc, const Str *rest)
{
    Str whole = {0}, lines = {0};
    uint64_t window = 0;
    const bool zstd = n >= 4 && (!memcmp(data, "\x28\xb5\x2f\xfd", 4) ||
                                 ((data[0] & 0xf0) == 0x50 && !memcmp(data + 1, "\x2a\x4d\x18", 3)));
    const bool gzip = n >= 2 && data[0] == 0x1f && data[1] == 0x8b;
    const Verdict v = zstd ? zstd_whole(data, n, &whole, &window) : gzip ? gzip_whole(data, n, &whole) : UNTOLD;
    CHECK(rc < 0 || v != DAMAGED, "the reader accepts what the library refuses");
    CHECK(rc == 0 || v != WHOLE || window > WINDOW_MAX, "refused, but whole: %s", error_text());
    if (rc == 0 && v == WHOLE) {
        const size_t skip = whole.n >= 3 && !memcmp(whole.s, "\xef\xbb\xbf", 3) ? 3 : 0;
        add_lines(&lines, str_get(&whole) + skip, whole.n - skip);
        CHECK(lines.n == rest->n && !memcmp(str_get(&lines), str_get(rest), lines.n), "%zu and %zu bytes", lines.n, rest->n);
    }
    str_free(&whole);
    str_free(&lines);
}

static void read_rows(const char *path, int rc_lines)
{
    Rows rows;
    const Json *j;
    int rc = rows_open(&rows, path);
    for (int64_t n = 0; rc == 0 && (rc = rows_next(&rows, &j)) > 0; n++, rc = 0) {
        CHECK(rows.line >= 1 && rows.from.column >= 1 && n < 1 << 20, "row");
        CHECK(j ? json_kind(j) == JSON_OBJ : strstr(error_text(), ": ") != NULL, "row");
    }
    CHECK(rc_lines == 0 || rc < 0, "rows end well in a file that is damaged");
    rows_close(&rows);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    Str lines = {0}, rest = {0};
    const char *path = fuzz_file(data, n);
    const int rc_lines = read_lines(path, &lines), rc_rest = read_rest(path, &rest);
    CHECK(rc_lines == rc_rest, "lines give %d, the rest %d: %s", rc_lines, rc_rest, error_text());
    check_library(data, n, rc_rest, &rest);
    if (rc_lines < 0)
        fuzz_refused(rc_lines, path, &lines);
    else
        CHECK(lines.n == rest.n && !memcmp(str_get(&lines), str_get(&rest), lines.n),
              "%zu and %zu bytes", lines.n, rest.n);
    read_rows(path, rc_lines);
    str_free(&lines);
    str_free(&rest);
    return 0;
}
