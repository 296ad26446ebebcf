/* config_print.c - the configuration as text: YAML that loads back, --help, hash and difference.
 *
 * Hash and difference compare printed values, so what counts as equal is what prints the same.
 * Tested by tests/unit/test_config.c. */
#include "common/base/config_impl.h"
#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/text.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- single values ---- */

static void add_number(Str *out, double v)
{
    if (isinf(v))
        str_add(out, v > 0 ? ".inf" : "-.inf");
    else
        str_add_double(out, v);
}

/* Texts that no YAML reader, 1.1 or 1.2, takes for anything else need no quotes. */
static bool is_plain(const char *s)
{
    static const char *const words[] = {"null", "true", "false", "yes", "no",
                                        "on",   "off",  "y",     "n"};
    double v;
    if (!isalpha((unsigned char)*s) && *s != '/' && *s != '_')
        return false;
    for (const char *p = s; *p; p++) {
        if (!isalnum((unsigned char)*p) && !strchr("_./+-", *p))
            return false;
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcasecmp(s, words[i]) == 0)
            return false;
    }
    return !config_parse_float(s, &v);
}

static unsigned decode(const unsigned char *s, size_t n)
{
    if (n == 1)
        return s[0];
    unsigned c = s[0] & (0x7Fu >> n);
    for (size_t i = 1; i < n; i++)
        c = c << 6 | (s[i] & 0x3Fu);
    return c;
}

static bool must_escape(unsigned c)
{
    return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x2028 || c == 0x2029 || c == 0xFEFF ||
           c == 0xFFFE || c == 0xFFFF;
}

void config_print_text(Str *out, const char *s)
{
    if (is_plain(s)) {
        str_add(out, s);
        return;
    }
    str_add(out, "\"");
    for (size_t n; *s; s += n) {
        n = text_utf8_length(s, strlen(s));
        CHECK(n, "a text in the configuration is not UTF-8");
        unsigned c = decode((const unsigned char *)s, n);
        if (c == '"' || c == '\\')
            str_addf(out, "\\%c", (int)c);
        else if (c == '\n')
            str_add(out, "\\n");
        else if (c == '\t')
            str_add(out, "\\t");
        else if (must_escape(c))
            str_addf(out, "\\u%04X", c);
        else
            str_add_bytes(out, s, n);
    }
    str_add(out, "\"");
}

void config_print_value(Str *out, const CfgField *f, const void *at)
{
    const ConfigStrings *strings = at;
    const ConfigFloats *floats = at;
    int n;
    switch (f->type) {
    case CFG_BOOL:
        str_add(out, *(const bool *)at ? "true" : "false");
        break;
    case CFG_INT:
        str_addf(out, "%lld", (long long)*(const int64_t *)at);
        break;
    case CFG_FLOAT:
        add_number(out, *(const double *)at);
        break;
    case CFG_STRING:
        config_print_text(out, *(const char *const *)at);
        break;
    case CFG_ENUM: {
        const char *name = config_enum_name(f, *(const int *)at, &n);
        char *copy = xstrndup(name, (size_t)n);
        config_print_text(out, copy);
        free(copy);
        break;
    }
    case CFG_STRINGS:
        str_add(out, "[");
        for (int i = 0; i < strings->n; i++) {
            str_add(out, i ? ", " : "");
            config_print_text(out, strings->at[i]);
        }
        str_add(out, "]");
        break;
    case CFG_FLOATS:
        str_add(out, "[");
        for (int i = 0; i < floats->n; i++) {
            str_add(out, i ? ", " : "");
            add_number(out, floats->at[i]);
        }
        str_add(out, "]");
        break;
    case CFG_LIST:
        CHECK(false, "%s: a list of maps is no single value", f->key);
    }
}

/* ---- whole structs ---- */

typedef struct {
    bool help;
    bool results_only; /* leave out CFG_NO_RESULT */
} PrintHow;

static const void *value_at(const void *base, const CfgField *f)
{
    return (const char *)base + f->offset;
}

/* Whether f counts in this struct, whose table is `fields`. */
static bool changes_results(const CfgField *f, const CfgField *fields, const void *base)
{
    if ((f->flags & CFG_NO_RESULT) || !f->only_with)
        return !(f->flags & CFG_NO_RESULT);
    const char *value = strchr(f->only_with, '=') + 1;
    const size_t n = (size_t)(value - 1 - f->only_with);
    const CfgField *other = fields;
    while (other->key && (strncmp(other->key, f->only_with, n) != 0 || other->key[n]))
        other++;
    CHECK(other->key, "%s: only with %s, which there is not", f->key, f->only_with);
    Str text = {0};
    config_print_value(&text, other, value_at(base, other));
    bool same = strcmp(str_get(&text), value) == 0;
    str_free(&text);
    return same;
}

static void add_indent(Str *out, int depth)
{
    for (int i = 0; i < depth; i++)
        str_add(out, "  ");
}

/* In an entry of a list the first key stands behind "- ", two columns to the left. */
static void print_fields(Str *out, const CfgField *fields, const void *base, int depth, bool entry,
                         PrintHow how)
{
    bool dash = entry;
    for (const CfgField *f = fields; f->key; f++) {
        if (how.results_only && !changes_results(f, fields, base))
            continue;
        if (how.help && f->help && !entry)
            str_addf(out, "%s# %s\n", out->n ? "\n" : "", f->help);
        add_indent(out, dash ? depth - 1 : depth);
        str_addf(out, "%s%s:", dash ? "- " : "", f->key);
        dash = false;
        if (f->type != CFG_LIST) {
            str_add(out, " ");
            config_print_value(out, f, value_at(base, f));
            str_add(out, "\n");
            continue;
        }
        const ConfigList *list = value_at(base, f);
        str_add(out, list->n ? "\n" : " []\n");
        for (int i = 0; i < list->n; i++)
            print_fields(out, f->item_fields, (char *)list->at + (size_t)i * f->item_bytes,
                         depth + 2, true, how);
    }
    if (dash) { /* an entry of which nothing is left */
        add_indent(out, depth - 1);
        str_add(out, "- {}\n");
    }
}

void config_print(const Config *c, Str *out, bool help)
{
    print_fields(out, c->fields, c->data, 0, false, (PrintHow){.help = help});
}

uint64_t config_hash(const Config *c)
{
    Str text = {0};
    print_fields(&text, c->fields, c->data, 0, false, (PrintHow){.results_only = true});
    uint64_t hash = hash64(str_get(&text), text.n, 0);
    str_free(&text);
    return hash;
}

/* ---- difference ---- */

static void diff_fields(Str *out, const CfgField *fields, const void *was, const void *is,
                        const char *prefix);

static void diff_lists(Str *out, const CfgField *f, const ConfigList *was, const ConfigList *is,
                       const char *prefix)
{
    if (was->n != is->n) {
        str_addf(out, "%s%s (had %d entries, has %d)\n", prefix, f->key, was->n, is->n);
        return;
    }
    for (int i = 0; i < is->n; i++) {
        size_t at = (size_t)i * f->item_bytes;
        char *name = xasprintf("%s%s[%d].", prefix, f->key, i);
        diff_fields(out, f->item_fields, (char *)was->at + at, (char *)is->at + at, name);
        free(name);
    }
}

static void diff_fields(Str *out, const CfgField *fields, const void *was, const void *is,
                        const char *prefix)
{
    for (const CfgField *f = fields; f->key; f++) {
        if (!changes_results(f, fields, is))
            continue;
        if (f->type == CFG_LIST) {
            diff_lists(out, f, value_at(was, f), value_at(is, f), prefix);
            continue;
        }
        Str a = {0}, b = {0};
        config_print_value(&a, f, value_at(was, f));
        config_print_value(&b, f, value_at(is, f));
        if (strcmp(a.s, b.s) != 0)
            str_addf(out, "%s%s (was %s, is %s)\n", prefix, f->key, a.s, b.s);
        str_free(&a);
        str_free(&b);
    }
}

int config_diff(const Config *c, const char *resolved_yaml_path, Str *out)
{
    Config *was;
    int rc = config_load(&was, c->fields, c->data_bytes,
                         &(ConfigSources){.files = &resolved_yaml_path, .n_files = 1});
    if (rc < 0)
        return rc;
    diff_fields(out, c->fields, was->data, c->data, "");
    config_free(was);
    return 0;
}

/* ---- --help ---- */

static void help_fields(Str *out, const CfgField *fields, int depth)
{
    for (const CfgField *f = fields; f->key; f++) {
        size_t start = out->n;
        add_indent(out, depth);
        str_add(out, f->key);
        if (f->def && *f->def)
            str_addf(out, " = %s", f->def);
        size_t width = out->n - start;
        str_addf(out, "%*s", width < 38 ? (int)(38 - width) : 1, "");
        str_addf(out, "  %s", f->flags & CFG_REQUIRED ? "required, " : "");
        config_describe(out, f);
        str_add(out, "\n");
        if (f->help) {
            add_indent(out, depth + 2);
            str_addf(out, "%s\n", f->help);
        }
        if (f->type == CFG_LIST) {
            add_indent(out, depth + 2);
            str_add(out, "each entry has:\n");
            help_fields(out, f->item_fields, depth + 3);
        }
    }
}

void config_help(const CfgField *fields, Str *out)
{
    help_fields(out, fields, 1);
}
