/* config.h - one table row per key fills a plain struct from YAML files and --set.
 *
 * Order, later wins: defaults of the table, each -c FILE, each --set a.b=c. Unknown key, wrong
 * type, out of range, missing required key: all errors are collected and reported together, one
 * line each, as "file:line:column: key: expected ..., found ... (did you mean ...?)"; a --set is
 * named "--set argument N". Lists of maps (data sources, stages) have an element table. */
#ifndef RLHF_BASE_CONFIG_H
#define RLHF_BASE_CONFIG_H

#include "common/base/mem.h"
#include "common/base/yaml.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    CFG_BOOL,   /* bool */
    CFG_INT,    /* int64_t */
    CFG_FLOAT,  /* double */
    CFG_STRING, /* const char * (never NULL; "" when unset and not required) */
    CFG_ENUM,   /* int: index into choices "a|b|c" */
    CFG_STRINGS, /* ConfigStrings; YAML: a list of scalars, or one scalar = list of one */
    CFG_FLOATS,  /* ConfigFloats; the same for numbers */
    CFG_LIST,    /* ConfigList of structs described by `item_fields` */
} CfgType;

typedef struct {
    const char **at;
    int n;
} ConfigStrings;

typedef struct {
    double *at;
    int n;
} ConfigFloats;

typedef struct {
    void *at; /* n structs of item_bytes each */
    int n;
} ConfigList;

enum {
    CFG_REQUIRED = 1, /* must be given */
    CFG_NO_RESULT = 2, /* does not change results (paths of outputs, logging, threads): left out of
                          config_hash and free to differ on resume */
};

typedef struct CfgField CfgField;
struct CfgField {
    const char *key; /* dotted: "optim.learning_rate"; in item tables relative to the item */
    CfgType type;
    size_t offset;
    const char *def; /* as YAML text; NULL = "" / empty list / 0 */
    double min, max; /* inclusive; both 0 = unchecked */
    const char *choices;         /* CFG_ENUM */
    const CfgField *item_fields; /* CFG_LIST; ends with key NULL */
    size_t item_bytes;
    unsigned flags;
    const char *help;
    const char *only_with; /* "dtype=bf16": where that key of the table has another value, this one changes no
                              result (as CFG_NO_RESULT) */
};

typedef struct Config Config; /* owns the struct, its strings, and where each value came from */

typedef struct {
    const char *const *files; /* -c, in order */
    int n_files;
    const char *const *sets; /* "a.b=c", in order */
    int n_sets;
    const char *const *set_names; /* what messages call each set, or NULL in it or for all:
                                     "--set argument N" */
} ConfigSources;

/* In files maps may be nested (optim: {learning_rate: 1e-5}) or keys dotted (optim.learning_rate:
 * 1e-5). A list replaces the whole list of an earlier source. In a set the value is plain text for
 * single values (quotes as in YAML are taken off) and YAML's [a, b] or [{k: v}] for lists. Numbers
 * follow the YAML 1.2 core schema; an integer may be written 1e6.
 *
 * Fills a struct of `bytes` by `fields` (ends with key NULL). On error returns ERR_CONFIG (or
 * ERR_NOINPUT) with every problem in the error text, one a line. Other layers may share a table:
 * see CFG_INCLUDE-style concatenation in trainer.h. */
int config_load(Config **out, const CfgField *fields, size_t bytes, const ConfigSources *from);
void config_free(Config *c);
void *config_data(Config *c); /* the struct */

/* "file:line:column" or "default" or "--set argument 2": for messages about a value found bad
 * later (a path that does not exist, two keys that contradict). */
/* The value of an entry of a list is named as in messages: "sources[1].path". */
const char *config_where(const Config *c, const char *key);
bool config_is_set(const Config *c, const char *key); /* given by a file or --set */

/* The resolved configuration as YAML, every key with its value, in table order; with `help`, each
 * key is preceded by its help as a comment. What --print-config prints and config.yaml holds;
 * loading it gives the same struct. Keys are written dotted, one a line: each line is also what
 * --set takes. */
void config_print(const Config *c, Str *out, bool help);

/* A text as one YAML scalar: bare where no reader takes it for anything else, else in double quotes. It must be
 * UTF-8. */
void config_print_text(Str *out, const char *text);

/* What --help says about the keys: name, default, type and range, help. */
void config_help(const CfgField *fields, Str *out);

/* 64-bit hash over all keys that change results. */
uint64_t config_hash(const Config *c);

/* Lines "key (was A, is B)" for each result-changing key that differs from a resolved YAML text;
 * empty when equal. Used on resume. */
int config_diff(const Config *c, const char *resolved_yaml_path, Str *out);

#endif
