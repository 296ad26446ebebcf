/* tokenizer_steps.c - the parts of tokenizer.json around the model: normalizer, pre_tokenizer,
 * decoder, post_processor. Each is a step or a Sequence of steps; sequences are read flat.
 * Tested by tests/unit/test_tokenizer.c. */
#include "common/base/error.h"
#include "common/text/tokenizer_read.h"

#include <stdlib.h>
#include <string.h>

typedef int (*StepReader)(Tokenizer *t, const Json *j, const char *where, const char *type);

/* Reads one step, or those of a Sequence, whose list is called `list`. */
static int read_step(Tokenizer *t, const Json *j, const char *where, const char *list,
                     StepReader read)
{
    Json *type, *steps;
    int rc;
    if (json_kind(j) != JSON_OBJ)
        return read_fail(t, "%s is %s; expected an object or null", where,
                         json_kind_name(json_kind(j)));
    if ((rc = read_member(t, &type, j, where, "type", JSON_STR)) < 0)
        return rc;
    if (strcmp(json_str(type), "Sequence") != 0)
        return read(t, j, where, json_str(type));
    if ((rc = read_member(t, &steps, j, where, list, JSON_ARR)) < 0)
        return rc;
    for (size_t i = 0; i < json_len(steps); i++) {
        char *inner = xasprintf("%s.%s[%zu]", where, list, i);
        rc = strlen(inner) > 400 ? read_fail(t, "%s is nested too deep", where)
                                 : read_step(t, json_at(steps, i), inner, list, read);
        free(inner);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int refuse_type(const Tokenizer *t, const char *where, const char *type,
                       const char *supported)
{
    return read_fail(t, "%s \"%s\" is not supported (supported: %s)", where, type, supported);
}

/* A member holding exactly one character. */
static int read_char(Tokenizer *t, Str *dst, const Json *j, const char *where, const char *key)
{
    Json *c;
    int len = 0, rc = read_member(t, &c, j, where, key, JSON_STR);
    if (rc < 0)
        return rc;
    if (json_str_len(c))
        utf8_get(json_str(c), &len);
    if (len == 0 || (size_t)len != json_str_len(c))
        return read_fail(t, "%s.%s is \"%s\"; expected one character", where, key, json_str(c));
    read_str(dst, c);
    return 0;
}

/* {"String": "..."}, and {"Regex": "..."} where regex is wanted. */
static int read_pattern(Tokenizer *t, Str *dst, const Json *j, const char *where, bool *regex)
{
    const Json *pattern = json_get(j, "pattern"), *text = json_get(pattern, "String");
    if (regex)
        *regex = false;
    if (!text && regex) {
        text = json_get(pattern, "Regex");
        *regex = true;
    }
    if (!text && json_get(pattern, "Regex"))
        return read_fail(t, "%s.pattern is a Regex, which is not supported here; expected a String",
                         where);
    if (!json_str(text) || json_str_len(text) == 0)
        return read_fail(t, "%s.pattern is missing or empty", where);
    read_str(dst, text);
    return 0;
}

/* A count of characters to strip. */
static int read_count(const Tokenizer *t, int *out, const Json *j, const char *where, const char *key)
{
    int64_t n = json_int(json_get(j, key), -1);
    if (n < 0 || n > 1000)
        return read_fail(t, "%s.%s is not an integer from 0 to 1000", where, key);
    *out = (int)n;
    return 0;
}

static int read_scheme(Tokenizer *t, PrependScheme *out, const Json *j, const char *where)
{
    static const char *const names[] = {"always", "first", "never"};
    const Json *scheme = json_get(j, "prepend_scheme");
    bool prefix;
    int rc = read_flag(t, &prefix, j, where, "add_prefix_space", true);
    if (rc < 0)
        return rc;
    *out = prefix ? SCHEME_ALWAYS : SCHEME_NEVER; /* files before 2024 have the flag alone */
    if (read_absent(scheme))
        return 0;
    for (int i = 0; i < 3 && json_str(scheme); i++)
        if (strcmp(json_str(scheme), names[i]) == 0) {
            *out = prefix ? (PrependScheme)i : SCHEME_NEVER;
            return 0;
        }
    return read_fail(t, "%s.prepend_scheme is \"%s\"; expected always, first or never", where,
                     json_str(scheme) ? json_str(scheme) : json_kind_name(json_kind(scheme)));
}

/* ---- normalizer */

static int read_normalizer(Tokenizer *t, const Json *j, const char *where, const char *type)
{
    Normalizer *m = &t->normalizer;
    NormStep *step;
    Json *text;
    int i, rc;
    if (strcmp(type, "Prepend") != 0 && strcmp(type, "Replace") != 0 && strcmp(type, "NFC") != 0)
        return refuse_type(t, where, type, "Prepend, Replace, NFC, Sequence");
    i = VEC_GROW(m->at, m->n, m->cap);
    step = &m->at[i];
    *step = (NormStep){.kind = NORM_NFC};
    if (strcmp(type, "Prepend") == 0) {
        step->kind = NORM_PREPEND;
        if ((rc = read_member(t, &text, j, where, "prepend", JSON_STR)) < 0)
            return rc;
        read_str(&step->content, text);
    } else if (strcmp(type, "Replace") == 0) {
        step->kind = NORM_REPLACE;
        if ((rc = read_pattern(t, &step->pattern, j, where, NULL)) < 0 ||
            (rc = read_member(t, &text, j, where, "content", JSON_STR)) < 0)
            return rc;
        read_str(&step->content, text);
    }
    return 0;
}

/* ---- pre-tokenizer */

static int read_split(Tokenizer *t, PreStep *step, const Json *j, const char *where)
{
    Str pattern = {0};
    Json *behavior;
    char *what = xasprintf("%s: %s", t->path, where);
    bool regex;
    int k, rc;
    TRY(read_pattern(t, &pattern, j, where, &regex));
    TRY(regex_compile(&step->re, str_get(&pattern), pattern.n, !regex, what));
    TRY(read_flag(t, &step->invert, j, where, "invert", false));
    TRY(read_member(t, &behavior, j, where, "behavior", JSON_STR));
    for (k = 0; k < SPLIT_COUNT && strcmp(json_str(behavior), split_behavior_names[k]) != 0; k++)
        ;
    step->behavior = (SplitBehavior)k;
    if (k == SPLIT_COUNT)
        rc = read_fail(t, "%s.behavior \"%s\" is not supported", where, json_str(behavior));
fail:
    str_free(&pattern);
    free(what);
    return rc;
}

static int read_pre_tokenizer(Tokenizer *t, const Json *j, const char *where, const char *type)
{
    PreTokenizer *p = &t->pre;
    PreStep *step;
    bool regex;
    int i, rc;
    i = VEC_GROW(p->at, p->n, p->cap);
    step = &p->at[i];
    *step = (PreStep){0};
    if (strcmp(type, "Split") == 0) {
        step->kind = PRE_SPLIT;
        return read_split(t, step, j, where);
    }
    if (strcmp(type, "Digits") == 0) {
        step->kind = PRE_DIGITS;
        return read_flag(t, &step->individual, j, where, "individual_digits", false);
    }
    if (strcmp(type, "ByteLevel") == 0) {
        step->kind = PRE_BYTE_LEVEL;
        if ((rc = read_flag(t, &step->prefix_space, j, where, "add_prefix_space", true)) < 0 ||
            (rc = read_flag(t, &regex, j, where, "use_regex", true)) < 0)
            return rc;
        return regex ? regex_compile(&step->re, gpt2_pattern, strlen(gpt2_pattern), false, where)
                     : 0;
    }
    if (strcmp(type, "Metaspace") == 0) {
        step->kind = PRE_METASPACE;
        if ((rc = read_char(t, &step->replacement, j, where, "replacement")) < 0 ||
            (rc = read_scheme(t, &step->scheme, j, where)) < 0)
            return rc;
        return read_flag(t, &step->split, j, where, "split", true);
    }
    return refuse_type(t, where, type, "ByteLevel, Split, Digits, Metaspace, Sequence");
}

/* ---- decoder */

static int read_decoder(Tokenizer *t, const Json *j, const char *where, const char *type)
{
    static const char *const names[] = {"ByteLevel",    "Metaspace", "Replace",
                                        "ByteFallback", "Fuse",      "Strip"};
    Decoder *d = &t->decoder;
    DecStep *step;
    Json *text;
    int k, i, rc;
    for (k = 0; k < 6 && strcmp(type, names[k]) != 0; k++)
        ;
    if (k == 6)
        return refuse_type(t, where, type,
                           "ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip, Sequence");
    i = VEC_GROW(d->at, d->n, d->cap);
    step = &d->at[i];
    *step = (DecStep){.kind = (DecKind)k};
    switch (step->kind) {
    case DEC_METASPACE:
        if ((rc = read_char(t, &step->pattern, j, where, "replacement")) < 0)
            return rc;
        return read_scheme(t, &step->scheme, j, where);
    case DEC_REPLACE:
        if ((rc = read_pattern(t, &step->pattern, j, where, NULL)) < 0 ||
            (rc = read_member(t, &text, j, where, "content", JSON_STR)) < 0)
            return rc;
        read_str(&step->content, text);
        return 0;
    case DEC_STRIP:
        if ((rc = read_count(t, &step->start, j, where, "start")) < 0 ||
            (rc = read_count(t, &step->stop, j, where, "stop")) < 0)
            return rc;
        return read_char(t, &step->pattern, j, where, "content");
    default:
        return 0;
    }
}

/* ---- post-processor: only the ids it puts around one text */

static int read_template_token(Tokenizer *t, IdList *dst, const Json *special, const char *name,
                               const char *where)
{
    const Json *ids = json_get(json_get(special, name), "ids");
    for (size_t i = 0; i < json_len(ids); i++) {
        int64_t id = json_int(json_at(ids, i), -1);
        if (id < 0 || id > INT32_MAX)
            return read_fail(t, "%s.special_tokens: bad id of \"%s\"", where, name);
        id_list_add(dst, (int32_t)id);
    }
    if (json_len(ids) == 0)
        return read_fail(t, "%s.special_tokens has no ids for \"%s\"", where, name);
    return 0;
}

static int read_post_processor(Tokenizer *t, const Json *j, const char *where, const char *type)
{
    Json *single;
    bool behind = false;
    int rc;
    if (strcmp(type, "ByteLevel") == 0)
        return 0; /* moves offsets only */
    if (strcmp(type, "TemplateProcessing") != 0)
        return refuse_type(t, where, type, "TemplateProcessing, ByteLevel, Sequence");
    if ((rc = read_member(t, &single, j, where, "single", JSON_ARR)) < 0)
        return rc;
    for (size_t i = 0; i < json_len(single); i++) {
        const Json *part = json_at(single, i);
        const char *token = json_str(json_get(json_get(part, "SpecialToken"), "id"));
        if (json_get(part, "Sequence")) {
            behind = true;
        } else if (!token) {
            return read_fail(t, "%s.single[%zu] is neither a SpecialToken nor a Sequence", where,
                             i);
        } else if ((rc = read_template_token(t, behind ? &t->after : &t->before,
                                             json_get(j, "special_tokens"), token, where)) < 0) {
            return rc;
        }
    }
    return 0;
}

int read_steps(Tokenizer *t, const Json *root)
{
    static const struct {
        const char *key, *list;
        StepReader read;
    } parts[] = {
        {"normalizer", "normalizers", read_normalizer},
        {"pre_tokenizer", "pretokenizers", read_pre_tokenizer},
        {"decoder", "decoders", read_decoder},
        {"post_processor", "processors", read_post_processor},
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const Json *j = json_get(root, parts[i].key);
        int rc;
        if (read_absent(j))
            continue;
        if ((rc = read_step(t, j, parts[i].key, parts[i].list, parts[i].read)) < 0)
            return rc;
    }
    t->decoder.none = read_absent(json_get(root, "decoder"));
    return 0;
}
