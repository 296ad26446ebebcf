/* config_value.c - from a YAML scalar or list to a value of the table's type, by the YAML 1.2 core
 * schema: 1e-5 and 0x10 are numbers, yes and no are texts, a quoted number is a text. Tested by
 * tests/unit/test_config.c. */
#include "common/base/config_impl.h"
#include "common/base/error.h"
#include "common/base/text.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- scalars of the core schema ---- */

static bool is_null(const YamlNode *n)
{
    static const char *const forms[] = {"", "~", "null", "Null", "NULL"};
    if (n->kind != YAML_SCALAR || n->quoted)
        return false;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (strcmp(n->text, forms[i]) == 0)
            return true;
    }
    return false;
}

static bool parse_bool(const char *text, bool *v)
{
    *v = strcmp(text, "true") == 0 || strcmp(text, "True") == 0 || strcmp(text, "TRUE") == 0;
    return *v || strcmp(text, "false") == 0 || strcmp(text, "False") == 0 ||
           strcmp(text, "FALSE") == 0;
}

static size_t count_digits(const char *s)
{
    size_t n = 0;
    while (isdigit((unsigned char)s[n]))
        n++;
    return n;
}

/* 0x1F and 0o17; no sign. False also when it does not fit. */
static bool parse_hex_or_octal(const char *text, int64_t *v)
{
    bool hex = strncmp(text, "0x", 2) == 0;
    if (!hex && strncmp(text, "0o", 2) != 0)
        return false;
    const char *digits = text + 2;
    if (!*digits || strspn(digits, hex ? "0123456789abcdefABCDEF" : "01234567") != strlen(digits))
        return false;
    errno = 0;
    *v = strtoll(digits, NULL, hex ? 16 : 8);
    return errno == 0;
}

bool config_parse_float(const char *text, double *v)
{
    int64_t i;
    if (parse_hex_or_octal(text, &i)) {
        *v = (double)i;
        return true;
    }
    const char *s = text + (*text == '-' || *text == '+');
    if (strcmp(s, ".inf") == 0 || strcmp(s, ".Inf") == 0 || strcmp(s, ".INF") == 0) {
        *v = *text == '-' ? -INFINITY : INFINITY;
        return true;
    }
    size_t before = count_digits(s), after = 0;
    s += before;
    if (*s == '.') {
        after = count_digits(++s);
        s += after;
    }
    if (before + after == 0)
        return false;
    if (*s == 'e' || *s == 'E') {
        s += s[1] == '-' || s[1] == '+' ? 2 : 1;
        size_t n = count_digits(s);
        if (n == 0)
            return false;
        s += n;
    }
    *v = strtod(text, NULL);
    return !*s && isfinite(*v);
}

static bool parse_int(const char *text, int64_t *v)
{
    if (parse_hex_or_octal(text, v))
        return true;
    const char *s = text + (*text == '-' || *text == '+');
    size_t n = count_digits(s);
    if (n && !s[n]) {
        errno = 0;
        *v = strtoll(text, NULL, 10);
        return errno == 0;
    }
    double d; /* 1e6: exact as long as a double counts in ones */
    if (!config_parse_float(text, &d) || fabs(d) > 0x1p53 || d != floor(d))
        return false;
    *v = (int64_t)d;
    return true;
}

/* ---- enums ---- */

int config_enum_count(const CfgField *f)
{
    int n = 1;
    for (const char *s = f->choices; *s; s++)
        n += *s == '|';
    return n;
}

const char *config_enum_name(const CfgField *f, int i, int *length)
{
    const char *s = f->choices;
    for (; i > 0; i--)
        s = strchr(s, '|') + 1;
    *length = (int)strcspn(s, "|");
    return s;
}

static bool parse_enum(const CfgField *f, const char *text, int *v)
{
    for (int i = 0; i < config_enum_count(f); i++) {
        int n;
        const char *name = config_enum_name(f, i, &n);
        if (strlen(text) == (size_t)n && memcmp(text, name, (size_t)n) == 0) {
            *v = i;
            return true;
        }
    }
    return false;
}

static void suggest_enum(const CfgField *f, const char *text, Str *out)
{
    TextNearest near;
    text_nearest_init(&near, text);
    char *names = xstrdup(f->choices), *rest = names, *name;
    while ((name = strsep(&rest, "|")))
        text_nearest_try(&near, name);
    if (near.found)
        str_addf(out, " (did you mean '%s'?)", near.found);
    free(names);
}

/* ---- messages ---- */

static bool has_range(const CfgField *f)
{
    return f->min != 0 || f->max != 0;
}

static bool out_of_range(const CfgField *f, double v)
{
    return has_range(f) && !(v >= f->min && v <= f->max);
}

static void add_range(Str *out, const CfgField *f)
{
    if (!has_range(f))
        return;
    str_add(out, " in [");
    str_add_double(out, f->min);
    str_add(out, ", ");
    str_add_double(out, f->max);
    str_add(out, "]");
}

void config_describe(Str *out, const CfgField *f)
{
    switch (f->type) {
    case CFG_BOOL:
        str_add(out, "true or false");
        break;
    case CFG_INT:
        str_add(out, "an integer");
        add_range(out, f);
        break;
    case CFG_FLOAT:
        str_add(out, "a number");
        add_range(out, f);
        break;
    case CFG_STRING:
        str_add(out, "a text");
        break;
    case CFG_ENUM:
        str_add(out, "one of ");
        for (int i = 0; i < config_enum_count(f); i++) {
            int n;
            const char *name = config_enum_name(f, i, &n);
            str_addf(out, "%s%.*s", i ? ", " : "", n, name);
        }
        break;
    case CFG_STRINGS:
        str_add(out, "a list of texts");
        break;
    case CFG_FLOATS:
        str_add(out, "a list of numbers");
        add_range(out, f);
        break;
    case CFG_LIST:
        str_add(out, "a list of maps");
        break;
    }
}

static void add_found(Str *out, const YamlNode *n)
{
    if (n->kind == YAML_MAP)
        str_add(out, "a map");
    else if (n->kind == YAML_LIST)
        str_add(out, "a list");
    else if (is_null(n))
        str_add(out, "nothing");
    else
        str_addf(out, "%s\"%s\"", n->quoted ? "the quoted text " : "", n->text);
}

/* ---- storing ---- */

static bool store_number(const CfgField *f, const YamlNode *n, void *to)
{
    double d;
    int64_t i;
    if (n->kind != YAML_SCALAR || n->quoted)
        return false;
    if (f->type == CFG_INT) {
        if (!parse_int(n->text, &i) || out_of_range(f, (double)i))
            return false;
        *(int64_t *)to = i;
    } else {
        if (!config_parse_float(n->text, &d) || out_of_range(f, d))
            return false;
        *(double *)to = d;
    }
    return true;
}

/* NULL unless a text; null is the empty text. */
static const char *take_string(Config *c, const YamlNode *n)
{
    if (n->kind != YAML_SCALAR)
        return NULL;
    return config_own(c, xstrdup(is_null(n) ? "" : n->text));
}

static bool store_string(Config *c, const YamlNode *n, void *to)
{
    const char *s = take_string(c, n);
    if (s)
        *(const char **)to = s;
    return s != NULL;
}

/* A list of scalars, or one scalar as a list of one; `bad` is the entry that does not fit. */
static bool store_list(Config *c, const CfgField *f, const YamlNode *n, void *to,
                       const YamlNode **bad)
{
    const YamlNode *first = n->kind == YAML_LIST ? n->child : is_null(n) ? NULL : n;
    int count = n->kind == YAML_LIST ? yaml_count(n) : first != NULL, i = 0;
    size_t bytes = f->type == CFG_STRINGS ? sizeof(char *) : sizeof(double);
    char *at = count ? config_own(c, xcalloc((size_t)count, bytes)) : NULL;
    for (const YamlNode *e = first; i < count; e = e->next, i++) {
        void *slot = at + (size_t)i * bytes;
        if (f->type == CFG_STRINGS ? !store_string(c, e, slot) : !store_number(f, e, slot)) {
            *bad = e;
            return false;
        }
    }
    if (f->type == CFG_STRINGS)
        *(ConfigStrings *)to = (ConfigStrings){(const char **)(void *)at, count};
    else
        *(ConfigFloats *)to = (ConfigFloats){(double *)(void *)at, count};
    return true;
}

const YamlNode *config_store(Config *c, const CfgField *f, const YamlNode *n, void *to,
                             Str *problem)
{
    bool ok = false;
    bool plain = n->kind == YAML_SCALAR && !n->quoted;
    const YamlNode *bad = n;
    switch (f->type) {
    case CFG_BOOL:
        ok = plain && parse_bool(n->text, to);
        break;
    case CFG_INT:
    case CFG_FLOAT:
        ok = store_number(f, n, to);
        break;
    case CFG_STRING:
        ok = store_string(c, n, to);
        break;
    case CFG_ENUM:
        ok = n->kind == YAML_SCALAR && parse_enum(f, n->text, to);
        break;
    case CFG_STRINGS:
    case CFG_FLOATS:
        ok = store_list(c, f, n, to, &bad);
        break;
    case CFG_LIST:
        CHECK(false, "%s: a list of maps is no single value", f->key);
    }
    if (ok)
        return NULL;
    str_add(problem, "expected ");
    config_describe(problem, f);
    str_add(problem, ", found ");
    add_found(problem, bad);
    if (f->type == CFG_ENUM && n->kind == YAML_SCALAR)
        suggest_enum(f, n->text, problem);
    return bad;
}
