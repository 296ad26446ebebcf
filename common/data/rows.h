/* rows.h - the JSON objects of a data file, one after another, each with its place.
 *
 * A file is JSON lines, or one JSON array ("[" comes first); plain, .gz or .zst; "-" is stdin. */
#ifndef RLHF_DATA_ROWS_H
#define RLHF_DATA_ROWS_H

#include "common/base/json.h"
#include "common/base/stream.h"

typedef struct {
    Reader *reader;
    bool started;
    char *array; /* the whole text, when the file is an array; else NULL */
    size_t n, at;
    int64_t array_line, array_column; /* of array[at] */
    bool array_end;
    Json *row;
    int64_t line;    /* where the row returned last begins, from 1 */
    JsonSource from; /* its text and place, valid until the next call */
} Rows;

int rows_open(Rows *r, const char *path);
/* 1: a row. *j is valid until the next call, or NULL when this row alone is not a JSON object (the
 * error text says why and the next call goes on). 0: the end. Negative: the file cannot be read on.
 */
int rows_next(Rows *r, const Json **j);
void rows_close(Rows *r);

#endif
