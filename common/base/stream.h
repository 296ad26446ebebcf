/* stream.h - reading and writing lines through plain, .gz (zlib) and .zst (zstd) files and "-".
 * Reading decides by magic bytes, writing by the suffix. Concatenated members/frames are fine. Other
 * kinds of file (xz, zip, Parquet, UTF-16, ...) are refused by name, with what to do. */
#ifndef RLHF_BASE_STREAM_H
#define RLHF_BASE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Reader Reader;

int reader_open(Reader **r, const char *path);
void reader_close(Reader *r); /* NULL is fine */
/* Next line without its newline (and without a CR before it); *line is valid until the next call
 * and NUL-terminated. 1 = a line, 0 = end, negative = error (truncated archive, line > 64 MiB). */
int reader_line(Reader *r, char **line, size_t *n);
int64_t reader_line_number(const Reader *r); /* of the line last returned, from 1 */
/* The first byte of the rest that is neither blank nor newline, left where it is; 0 when there is
 * none. */
int reader_peek(Reader *r, char *first);
/* The whole rest; caller frees. */
int reader_rest(Reader *r, char **data, size_t *n);
const char *reader_path(const Reader *r); /* "<stdin>" for "-" */

typedef struct Writer Writer;

/* Writes to path.tmp and renames on close, so a half-written output is never seen. "-" = stdout. */
int writer_open(Writer **w, const char *path);
int writer_write(Writer *w, const void *data, size_t n);
int writer_close(Writer *w); /* flush, fsync, rename; the Writer is gone also on error */
void writer_abort(Writer *w); /* forget the output; NULL is fine */

#endif
