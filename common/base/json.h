/* json.h - JSON values (jansson behind this header) and a writer.
 *
 * Reading refuses duplicate keys and gives line:column; integers beyond 2^63 are read as reals
 * (tokenizer_config.json holds 1e30); "\u0000" is allowed in strings, so strings have lengths. */
#ifndef RLHF_BASE_JSON_H
#define RLHF_BASE_JSON_H

#include "common/base/mem.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct json_t Json; /* jansson's own type; not to be used but through this header */

typedef enum {
    JSON_NONE,
    JSON_OBJ,
    JSON_ARR,
    JSON_STR,
    JSON_INT,
    JSON_NUM,
    JSON_BOOLEAN,
    JSON_NIL
} JsonKind;

/* Where a JSON text stands, for messages. `line` and `column` (in characters) are those of its first
 * byte, from 1. `text` NULL: not at hand, so that messages name the line alone. All borrowed. */
typedef struct {
    const char *file;
    int64_t line, column;
    const char *text;
    size_t n;
} JsonSource;

int json_parse_at(Json **out, const JsonSource *from);
/* Line and column of a value in a text that parses. `path` as in messages: "messages[3].content"; of
 * what is not there, the value that lacks it. */
void json_place(const JsonSource *from, const char *path, int64_t *line, int64_t *column);

/* `name` stands for the file in messages; `line` is the number of the first line (1 for a file,
 * the record's line for .jsonl). A leading BOM is skipped. 0 or ERR_DATA. */
int json_parse(Json **out, const char *text, size_t n, const char *name, int64_t line);
int json_read_file(Json **out, const char *path); /* a stored file; ERR_NOINPUT, ERR_DATA */
void json_free(Json *j);                          /* the root only; NULL is fine */

JsonKind json_kind(const Json *j);                /* JSON_NONE for NULL */
const char *json_kind_name(JsonKind kind);        /* "an object", "a string", ... */
Json *json_get(const Json *obj, const char *key); /* borrowed; NULL if absent or no object */
Json *json_at(const Json *arr, size_t i);         /* borrowed */
size_t json_len(const Json *j);                   /* array or object entries; else 0 */
const char *json_str(const Json *j);              /* NULL unless a string */
size_t json_str_len(const Json *j);
int64_t json_int(const Json *j, int64_t otherwise); /* integral numbers */
double json_num(const Json *j, double otherwise);   /* any number */
bool json_bool(const Json *j, bool otherwise);

/* for (void *it = json_iter(obj); it; it = json_iter_next(obj, it)) in file order. */
void *json_iter(const Json *obj);
void *json_iter_next(const Json *obj, void *it);
const char *json_iter_key(void *it);
Json *json_iter_value(void *it);

/* Writer: appends to a Str, puts commas itself. Numbers are the shortest text that reads back to
 * the same double/float. Keys only inside objects. NaN and Inf become null. */
typedef struct {
    Str *out;
    int depth;
    uint64_t has_entry; /* bit d: level d has an entry already */
    uint64_t is_object; /* bit d: level d is an object */
    bool after_key;
    bool pretty; /* newlines and two spaces of indentation */
} JsonWriter;

void jw_init(JsonWriter *w, Str *out, bool pretty);
void jw_object(JsonWriter *w);
void jw_object_end(JsonWriter *w);
void jw_array(JsonWriter *w);
void jw_array_end(JsonWriter *w);
void jw_key(JsonWriter *w, const char *key);
void jw_str(JsonWriter *w, const char *s);
void jw_str_n(JsonWriter *w, const char *s, size_t n); /* invalid UTF-8 becomes U+FFFD */
void jw_int(JsonWriter *w, int64_t v);
void jw_num(JsonWriter *w, double v);
void jw_float(JsonWriter *w, float v);
void jw_bool(JsonWriter *w, bool v);
void jw_null(JsonWriter *w);
void jw_json(JsonWriter *w, const Json *j); /* a copy of a value that was read */
/* A value as one line of at most 80 bytes, for messages; the caller frees. */
char *json_short(const Json *j);
/* key and value in one call */
void jw_kstr(JsonWriter *w, const char *key, const char *s);
void jw_kint(JsonWriter *w, const char *key, int64_t v);
void jw_knum(JsonWriter *w, const char *key, double v);
void jw_kbool(JsonWriter *w, const char *key, bool v);

#endif
