/* config_impl.h - what config.c, config_value.c and config_print.c share. */
#ifndef RLHF_BASE_CONFIG_IMPL_H
#define RLHF_BASE_CONFIG_IMPL_H

#include "common/base/config.h"

typedef struct {
    char *key;   /* "optim.learning_rate", "sources[1].path" */
    char *where; /* "train.yaml:12:3", "--set argument 2" */
    int source;  /* which file or set, counted through */
} ConfigPlace;

struct Config {
    const CfgField *fields;
    void *data;
    size_t data_bytes;
    void **pool; /* every string and array of the struct */
    int n_pool, cap_pool;
    ConfigPlace *place; /* one for each value that was given */
    int n_place, cap_place;
    Str errors; /* lines */
    int n_errors, n_missing_files;
    int source; /* the one being read */
};

void *config_own(Config *c, void *p); /* p is freed with c */
void config_error(Config *c, const char *where, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- config_value.c: values of all types but CFG_LIST ---- */

/* "an integer in [1, 10]"; for --help and for "expected ...". */
void config_describe(Str *out, const CfgField *f);
/* Stores node's value at `to`. NULL, or the node (itself or an entry of it) that does not fit, with
 * the reason in `problem`. */
const YamlNode *config_store(Config *c, const CfgField *f, const YamlNode *node, void *to,
                             Str *problem);
bool config_parse_float(const char *text, double *v); /* YAML 1.2 core: integers too */
int config_enum_count(const CfgField *f);
const char *config_enum_name(const CfgField *f, int i, int *length); /* borrowed, not terminated */

/* ---- config_print.c ---- */

void config_print_value(Str *out, const CfgField *f,
                        const void *at); /* on one line; not CFG_LIST */

#endif
