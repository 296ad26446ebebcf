/* talk.h - conversations out of JSON, for record_parse.c and the importers. */
#ifndef RLHF_DATA_TALK_H
#define RLHF_DATA_TALK_H

#include "common/data/record.h"

typedef struct {
    const JsonSource *from; /* the row */
    RecordFault fault;      /* of the last row_error */
} RowPlace;

/* ERR_DATA "file:line:column: field: ..." and the fault noted in p. `field` is a path of json_place;
 * the column, and a line inside the row, are named when its text is at hand. */
int row_error(RowPlace *p, RecordFault fault, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

const Json *json_field(const Json *j, const char *key); /* NULL also for null */
/* The first of two names that is there; *name is that one, or `a`. */
const Json *json_field2(const Json *j, const char *a, const char *b, const char **name);

void text_strip(const char **s, size_t *n); /* blanks and newlines at both ends */
bool text_is_blank(const char *s, size_t n);

typedef struct {
    Message *at; /* texts owned */
    int n, cap;
} Talk;

void talk_free(Talk *t);
void talk_add(Talk *t, Role role, const char *text, size_t n);
void talk_drop_last(Talk *t);
void talk_drop_first(Talk *t, int k);
void talk_copy(Talk *dst, const Talk *src, int n); /* appends the first n */
void talk_set_system(Talk *t, const char *text, size_t n); /* in front, unless there is one */
int talk_common(const Talk *a,
                const Talk *b); /* messages equal from the start, blanks at the ends aside */

/* A string, or a list of parts {"type": "text", "text": ...} put together. */
int talk_text(RowPlace *p, const Json *j, const char *name, Str *out);
/* Appends a conversation in any form. `lone`: the role of a string that is no transcript. */
int talk_read(RowPlace *p, Talk *t, const Json *j, const char *name, Role lone);
/* Optional system, then user and assistant in turns, none empty, `last` at the end. */
int talk_check(RowPlace *p, const Talk *t, const char *name, Role last);
bool talk_is_transcript(const char *s);

#endif
