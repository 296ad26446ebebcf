/* config.c - walks YAML trees and --set texts over the table and fills the struct.
 *
 * The one idea: a value from a default, a file or a --set is always a YamlNode, stored by
 * the same code; a problem is written down with its place and the walk goes on, so that one run
 * shows all of them. Values are in config_value.c, output in config_print.c. Tested by
 * tests/unit/test_config.c. */
#include "common/base/config.h"

#include "common/base/config_impl.h"
#include "common/base/error.h"
#include "common/base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where the walk is: a struct, its table, and how messages name its keys. */
typedef struct {
    const CfgField *fields;
    char *base;
    const char *name; /* "" at the top, "sources[1]." inside an entry */
    const char *set;  /* "--set argument 2"; NULL in a file, where nodes have places */
} Scope;

void *config_own(Config *c, void *p)
{
    int i = VEC_GROW(c->pool, c->n_pool, c->cap_pool);
    c->pool[i] = p;
    return p;
}

void config_error(Config *c, const char *where, const char *fmt, ...)
{
    if (c->n_errors++)
        str_add(&c->errors, "\n");
    str_addf(&c->errors, "%s: ", where);
    va_list ap;
    va_start(ap, fmt);
    str_addv(&c->errors, fmt, ap);
    va_end(ap);
}

/* ---- places ---- */

static ConfigPlace *find_place(const Config *c, const char *key)
{
    for (int i = 0; i < c->n_place; i++) {
        if (strcmp(c->place[i].key, key) == 0)
            return &c->place[i];
    }
    return NULL;
}

static void set_place(Config *c, const char *key, const char *where)
{
    ConfigPlace *p = find_place(c, key);
    if (!p) {
        int i = VEC_GROW(c->place, c->n_place, c->cap_place);
        p = &c->place[i];
        *p = (ConfigPlace){.key = xstrdup(key)};
    }
    char *copy = xstrdup(where); /* `where` may be the one that is replaced */
    free(p->where);
    p->where = copy;
    p->source = c->source;
}

/* Forgets the places of all entries of a list that is replaced. */
static void drop_entry_places(Config *c, const char *list)
{
    size_t n = strlen(list);
    int kept = 0;
    for (int i = 0; i < c->n_place; i++) {
        ConfigPlace *p = &c->place[i];
        if (strncmp(p->key, list, n) == 0 && p->key[n] == '[') {
            free(p->key);
            free(p->where);
        } else {
            c->place[kept++] = *p;
        }
    }
    c->n_place = kept;
}

static char *place_text(const Scope *s, const YamlNode *n, bool of_key)
{
    if (s->set)
        return xstrdup(s->set);
    return xasprintf("%s:%d:%d", n->file, of_key ? n->key_line : n->line,
                     of_key ? n->key_column : n->column);
}

static void error_at(Config *c, const Scope *s, const YamlNode *n, bool of_key, const char *key,
                     const char *problem)
{
    char *where = place_text(s, n, of_key);
    config_error(c, where, "%s%s: %s", s->name, key, problem);
    free(where);
}

/* ---- the walk ---- */

static const CfgField *find_field(const CfgField *fields, const char *key)
{
    for (const CfgField *f = fields; f->key; f++) {
        if (strcmp(f->key, key) == 0)
            return f;
    }
    return NULL;
}

static bool is_group(const CfgField *fields, const char *key)
{
    size_t n = strlen(key);
    for (const CfgField *f = fields; f->key; f++) {
        if (strncmp(f->key, key, n) == 0 && f->key[n] == '.')
            return true;
    }
    return false;
}

static void error_unknown(Config *c, const Scope *s, const YamlNode *n, const char *key)
{
    TextNearest near;
    Str problem = {0};
    char *group = NULL;
    text_nearest_init(&near, key);
    for (const CfgField *f = s->fields; f->key; f++)
        text_nearest_try(&near, f->key);
    for (const CfgField *f = s->fields; f->key && !near.found; f++) {
        free(group);
        group = xstrndup(f->key, strcspn(f->key, "."));
        if (strchr(f->key, '.'))
            text_nearest_try(&near, group);
    }
    str_add(&problem, "unknown key");
    if (near.found)
        str_addf(&problem, " (did you mean '%s'?)", near.found);
    error_at(c, s, n, true, key, problem.s);
    str_free(&problem);
    free(group);
}

static void fill_defaults(Config *c, const Scope *s);
static void walk_map(Config *c, const Scope *s, const YamlNode *map, const char *group);

static void check_required(Config *c, const Scope *s, const char *where)
{
    for (const CfgField *f = s->fields; f->key; f++) {
        char *full = xasprintf("%s%s", s->name, f->key);
        if ((f->flags & CFG_REQUIRED) && !find_place(c, full))
            config_error(c, where, "%s: required, but not given (%s)", full,
                         f->help ? f->help : "no default");
        free(full);
    }
}

static void store_items(Config *c, const Scope *s, const CfgField *f, const YamlNode *n, void *to)
{
    bool empty = n->kind == YAML_SCALAR && !n->quoted && !*n->text;
    if (n->kind != YAML_LIST && !empty) {
        error_at(c, s, n, false, f->key,
                 n->kind == YAML_MAP ? "expected a list of maps, found a map (put '- ' before its "
                                       "first key)"
                                     : "expected a list of maps, found a text");
        return;
    }
    int count = empty ? 0 : yaml_count(n), i = 0;
    char *at = count ? config_own(c, xcalloc((size_t)count, f->item_bytes)) : NULL;
    for (const YamlNode *e = n->child; e && !empty; e = e->next, i++) {
        char *name = xasprintf("%s%s[%d].", s->name, f->key, i);
        Scope item = {f->item_fields, at + (size_t)i * f->item_bytes, name, s->set};
        char *where = place_text(s, e, false);
        fill_defaults(c, &item);
        if (e->kind == YAML_MAP) {
            walk_map(c, &item, e, "");
            check_required(c, &item, where);
        } else {
            config_error(c, where, "%s%s[%d]: expected a map of keys, found a %s", s->name, f->key,
                         i, e->kind == YAML_LIST ? "list" : "text");
        }
        free(where);
        free(name);
    }
    *(ConfigList *)to = (ConfigList){at, count};
}

/* A value was given for a field. */
static void assign(Config *c, const Scope *s, const CfgField *f, const YamlNode *n)
{
    char *full = xasprintf("%s%s", s->name, f->key);
    char *where = place_text(s, n, false);
    ConfigPlace *before = find_place(c, full);
    if (before && before->source == c->source) {
        Str problem = {0};
        str_addf(&problem, "the key is given twice (also at %s)", before->where);
        error_at(c, s, n, true, f->key, problem.s);
        str_free(&problem);
    } else if (f->type == CFG_LIST) {
        drop_entry_places(c, full);
        set_place(c, full, where);
        store_items(c, s, f, n, s->base + f->offset);
    } else {
        Str problem = {0};
        set_place(c, full, where);
        const YamlNode *bad = config_store(c, f, n, s->base + f->offset, &problem);
        if (bad)
            error_at(c, s, bad, false, f->key, problem.s);
        str_free(&problem);
    }
    free(where);
    free(full);
}

static void walk_map(Config *c, const Scope *s, const YamlNode *map, const char *group)
{
    for (const YamlNode *n = map->child; n; n = n->next) {
        char *key = xasprintf("%s%s", group, n->key);
        const CfgField *f = find_field(s->fields, key);
        if (f) {
            assign(c, s, f, n);
        } else if (!is_group(s->fields, key)) {
            error_unknown(c, s, n, key);
        } else if (n->kind == YAML_MAP) {
            char *inner = xasprintf("%s.", key);
            walk_map(c, s, n, inner);
            free(inner);
        } else if (n->kind == YAML_LIST || n->quoted || *n->text) {
            error_at(c, s, n, false, key, "expected a map of keys, found a single value or list");
        }
        free(key);
    }
}

/* ---- values given as one text: defaults and --set ---- */

/* Lists and quoted texts are YAML; anything else is taken as it stands, so that a path or a text
 * with ':' or '#' needs no quoting. */
static void assign_text(Config *c, const Scope *s, const CfgField *f, const char *text)
{
    bool list = f->type == CFG_STRINGS || f->type == CFG_FLOATS || f->type == CFG_LIST;
    if (!(list && *text == '[') && *text != '"' && *text != '\'') {
        YamlNode plain = {.kind = YAML_SCALAR, .file = "", .text = text};
        assign(c, s, f, &plain);
        return;
    }
    YamlDoc *doc;
    char *line = xasprintf("v: %s\n", text);
    int rc = yaml_read_text(&doc, "", line);
    if (rc < 0 || yaml_count(yaml_root(doc)) != 1) {
        const char *where = s->set ? s->set : "default";
        char *full = xasprintf("%s%s", s->name, f->key);
        config_error(c, where, "%s: the value %s is not valid YAML", full, text);
        set_place(c, full, where); /* given, if badly: not missing as well */
        free(full);
    } else {
        assign(c, s, f, yaml_root(doc)->child);
    }
    if (rc >= 0)
        yaml_doc_free(doc);
    free(line);
}

static void fill_defaults(Config *c, const Scope *s)
{
    Scope d = {s->fields, s->base, "", "default"};
    int errors = c->n_errors;
    Config scratch = {.fields = s->fields}; /* defaults leave no places behind */
    for (const CfgField *f = s->fields; f->key; f++) {
        if (f->type == CFG_STRING)
            *(const char **)(void *)(s->base + f->offset) = "";
        if (f->def)
            assign_text(&scratch, &d, f, f->def);
    }
    CHECK(c->n_errors == errors && !scratch.n_errors, "a default in the table is wrong: %s",
          str_get(&scratch.errors));
    for (int i = 0; i < scratch.n_pool; i++)
        config_own(c, scratch.pool[i]);
    for (int i = 0; i < scratch.n_place; i++) {
        free(scratch.place[i].key);
        free(scratch.place[i].where);
    }
    free(scratch.pool);
    free(scratch.place);
    str_free(&scratch.errors);
}

static void load_set(Config *c, const Scope *top, const char *set, const char *where)
{
    const char *eq = strchr(set, '=');
    Scope s = *top;
    s.set = where;
    if (!eq || eq == set) {
        config_error(c, where, "expected KEY=VALUE, found \"%s\"", set);
        return;
    }
    if (!text_is_utf8(set, strlen(set))) {
        config_error(c, where, "%.*s: the value is not UTF-8", (int)(eq - set), set);
        return;
    }
    char *key = xstrndup(set, (size_t)(eq - set));
    const CfgField *f = find_field(s.fields, key);
    if (f)
        assign_text(c, &s, f, eq + 1);
    else if (is_group(s.fields, key))
        config_error(c, where, "%s: a group of keys; set one of them, as in %s.NAME=VALUE", key,
                     key);
    else
        error_unknown(c, &s, NULL, key);
    free(key);
}

/* False when the file cannot be read at all. */
static bool load_file(Config *c, const Scope *top, const char *path)
{
    YamlDoc *doc;
    int rc = yaml_read_file(&doc, path);
    if (rc >= 0) {
        walk_map(c, top, yaml_root(doc), "");
        yaml_doc_free(doc);
        return true;
    }
    if (c->n_errors++)
        str_add(&c->errors, "\n");
    str_add(&c->errors, error_text());
    c->n_missing_files += rc == ERR_NOINPUT;
    return false;
}

int config_load(Config **out, const CfgField *fields, size_t bytes, const ConfigSources *from)
{
    Config *c = *out = xcalloc(1, sizeof *c);
    c->fields = fields;
    c->data = xcalloc(1, bytes);
    c->data_bytes = bytes;
    Scope top = {fields, c->data, "", NULL};
    fill_defaults(c, &top);
    bool unread = false;
    for (int i = 0; i < from->n_files; i++) {
        c->source++;
        unread |= !load_file(c, &top, from->files[i]);
    }
    for (int i = 0; i < from->n_sets; i++) {
        char *own = NULL;
        const char *where = from->set_names ? from->set_names[i] : NULL;
        c->source++;
        load_set(c, &top, from->sets[i],
                 where ? where : (own = xasprintf("--set argument %d", i + 1)));
        free(own);
    }
    if (!unread) /* what a broken file would have given is not missing */
        check_required(c, &top, from->n_files ? from->files[from->n_files - 1] : "config");
    if (!c->n_errors)
        return 0;
    int code = c->n_missing_files == c->n_errors ? ERR_NOINPUT : ERR_CONFIG;
    error_set(code, "%s", c->errors.s);
    config_free(c);
    *out = NULL;
    return code;
}

void config_free(Config *c)
{
    if (!c)
        return;
    for (int i = 0; i < c->n_pool; i++)
        free(c->pool[i]);
    for (int i = 0; i < c->n_place; i++) {
        free(c->place[i].key);
        free(c->place[i].where);
    }
    free(c->pool);
    free(c->place);
    free(c->data);
    str_free(&c->errors);
    free(c);
}

void *config_data(Config *c)
{
    return c->data;
}

const char *config_where(const Config *c, const char *key)
{
    const ConfigPlace *p = find_place(c, key);
    return p ? p->where : "default";
}

bool config_is_set(const Config *c, const char *key)
{
    return find_place(c, key) != NULL;
}
