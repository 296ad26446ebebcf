/* yaml.c - libyaml's events as a tree in which every node knows its line and column.
 *
 * libyaml's own document API lets duplicate keys pass and turns aliases into cycles; the events
 * show both before they do harm. Config files need neither anchors, tags nor several documents, so
 * those are refused by name. Tested by tests/unit/test_config.c. */
#include "common/base/yaml.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { DEPTH_MAX = 32 };

struct YamlDoc {
    char *file;
    YamlNode *root;
};

typedef struct {
    yaml_parser_t parser;
    yaml_event_t event;
    bool have_event;
    const char *file;
    size_t skipped; /* a byte order mark in front */
} Source;

static void free_nodes(YamlNode *node)
{
    while (node) {
        YamlNode *next = node->next;
        free_nodes(node->child);
        free((char *)(uintptr_t)node->key);
        free((char *)(uintptr_t)node->text);
        free(node);
        node = next;
    }
}

static int fail_syntax(const Source *s)
{
    const yaml_parser_t *p = &s->parser;
    const char *problem = p->problem ? p->problem : "the text cannot be read";
    if (p->error == YAML_READER_ERROR)
        return error_set(ERR_CONFIG, "%s: not valid YAML: %s at byte %zu", s->file, problem,
                         s->skipped + p->problem_offset);
    const char *hint = strstr(problem, "cannot start any token")
                           ? " (indent with spaces, not tabs; quote text that begins with @ or `)"
                           : "";
    return error_set(ERR_CONFIG, "%s:%zu:%zu: not valid YAML: %s%s", s->file,
                     p->problem_mark.line + 1, p->problem_mark.column + 1, problem, hint);
}

static int fail_at(const Source *s, const char *what)
{
    return error_set(ERR_CONFIG, "%s:%zu:%zu: %s", s->file, s->event.start_mark.line + 1,
                     s->event.start_mark.column + 1, what);
}

/* Reads the next event into s->event and refuses what no config may hold. */
static int next_event(Source *s)
{
    if (s->have_event)
        yaml_event_delete(&s->event);
    s->have_event = false;
    if (!yaml_parser_parse(&s->parser, &s->event))
        return fail_syntax(s);
    s->have_event = true;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (s->event.type) {
    case YAML_ALIAS_EVENT:
        return fail_at(s, "YAML aliases (*name) are not supported; write the value out");
    case YAML_SCALAR_EVENT:
        anchor = s->event.data.scalar.anchor;
        tag = s->event.data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = s->event.data.sequence_start.anchor;
        tag = s->event.data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = s->event.data.mapping_start.anchor;
        tag = s->event.data.mapping_start.tag;
        break;
    default:
        break;
    }
    if (anchor)
        return fail_at(s, "YAML anchors (&name) are not supported; write the value out");
    if (tag)
        return fail_at(s, "YAML tags (!name) are not supported; quote text that begins with '!'");
    return 0;
}

static YamlNode *make_node(const Source *s, YamlKind kind)
{
    YamlNode *node = xcalloc(1, sizeof *node);
    node->kind = kind;
    node->file = s->file;
    node->line = (int)s->event.start_mark.line + 1;
    node->column = (int)s->event.start_mark.column + 1;
    return node;
}

/* The key of the next map entry, from the current event; the node gets its value's kind later. */
static int read_key(Source *s, const YamlNode *map, char **key)
{
    if (s->event.type != YAML_SCALAR_EVENT)
        return fail_at(s, "expected a key, found a map or list used as one");
    const char *text = (const char *)s->event.data.scalar.value;
    size_t n = s->event.data.scalar.length;
    if (strlen(text) != n)
        return fail_at(s, "the key holds a NUL character");
    if (strcmp(text, "<<") == 0 && s->event.data.scalar.plain_implicit)
        return fail_at(s, "YAML merge keys (<<) are not supported; write the keys out");
    const YamlNode *other = yaml_get(map, text);
    if (other)
        return error_set(ERR_CONFIG, "%s:%zu:%zu: %s: the key is given twice (first at line %d)",
                         s->file, s->event.start_mark.line + 1, s->event.start_mark.column + 1,
                         text, other->key_line);
    *key = xstrndup(text, n);
    return 0;
}

static int read_node(Source *s, YamlNode **out, int depth);

/* The entries up to the end event; the current event is the start event. */
static int read_entries(Source *s, YamlNode *node, int depth)
{
    int rc = 0;
    YamlNode **tail = &node->child;
    if (depth == DEPTH_MAX)
        return fail_at(s, "maps and lists are nested too deeply");
    for (;;) {
        char *key = NULL;
        TRY(next_event(s));
        if (s->event.type == YAML_MAPPING_END_EVENT || s->event.type == YAML_SEQUENCE_END_EVENT)
            return 0;
        int line = (int)s->event.start_mark.line + 1;
        int column = (int)s->event.start_mark.column + 1;
        if (node->kind == YAML_MAP) {
            TRY(read_key(s, node, &key));
            rc = next_event(s);
        }
        YamlNode *entry = NULL;
        if (rc >= 0)
            rc = read_node(s, &entry, depth + 1);
        if (rc < 0) {
            free(key);
            return rc;
        }
        entry->key = key;
        entry->key_line = line;
        entry->key_column = column;
        *tail = entry;
        tail = &entry->next;
    }
fail:
    return rc;
}

/* The value that begins with the current event. */
static int read_node(Source *s, YamlNode **out, int depth)
{
    YamlNode *node;
    int rc = 0;
    if (s->event.type == YAML_SCALAR_EVENT) {
        const char *text = (const char *)s->event.data.scalar.value;
        size_t n = s->event.data.scalar.length;
        if (strlen(text) != n)
            return fail_at(s, "the text holds a NUL character");
        node = make_node(s, YAML_SCALAR);
        node->text = xstrndup(text, n);
        node->quoted = s->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    } else {
        node = make_node(s, s->event.type == YAML_MAPPING_START_EVENT ? YAML_MAP : YAML_LIST);
        rc = read_entries(s, node, depth);
    }
    if (rc < 0) {
        free_nodes(node);
        return rc;
    }
    *out = node;
    return 0;
}

static int read_document(Source *s, YamlNode **root)
{
    int rc;
    TRY(next_event(s)); /* stream start */
    TRY(next_event(s));
    if (s->event.type == YAML_STREAM_END_EVENT) { /* nothing but comments */
        *root = make_node(s, YAML_MAP);
        return 0;
    }
    TRY(next_event(s));
    TRY(read_node(s, root, 0));
    YamlNode *node = *root;
    if (node->kind == YAML_SCALAR && !node->quoted && !*node->text)
        node->kind = YAML_MAP;
    if (node->kind != YAML_MAP)
        return error_set(ERR_CONFIG, "%s:%d:%d: expected \"key: value\" lines, found %s", s->file,
                         node->line, node->column,
                         node->kind == YAML_LIST ? "a list" : "a text without a key");
    TRY(next_event(s)); /* document end */
    TRY(next_event(s));
    if (s->event.type != YAML_STREAM_END_EVENT)
        return fail_at(s, "a second YAML document (---) is not supported; use one file for each");
    return 0;
fail:
    return rc;
}

static int parse(YamlDoc **out, const char *name, const char *text, size_t n)
{
    Source s = {0};
    if (n >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) { /* a byte order mark */
        text += 3;
        n -= 3;
        s.skipped = 3;
    }
    YamlDoc *doc = *out = xcalloc(1, sizeof *doc);
    doc->file = xstrdup(name);
    s.file = doc->file;
    CHECK(yaml_parser_initialize(&s.parser), "libyaml does not start");
    yaml_parser_set_input_string(&s.parser, (const unsigned char *)text, n);
    yaml_parser_set_encoding(&s.parser, YAML_UTF8_ENCODING);
    int rc = read_document(&s, &doc->root);
    if (s.have_event)
        yaml_event_delete(&s.event);
    yaml_parser_delete(&s.parser);
    if (rc < 0) {
        yaml_doc_free(doc);
        *out = NULL;
    }
    return rc;
}

int yaml_read_text(YamlDoc **doc, const char *name, const char *text)
{
    return parse(doc, name, text, strlen(text));
}

int yaml_read_file(YamlDoc **doc, const char *path)
{
    char *text;
    size_t n;
    *doc = NULL;
    int rc = file_read(path, &text, &n);
    if (rc < 0)
        return rc;
    rc = parse(doc, path, text, n);
    free(text);
    return rc;
}

void yaml_doc_free(YamlDoc *doc)
{
    if (!doc)
        return;
    free_nodes(doc->root);
    free(doc->file);
    free(doc);
}

const YamlNode *yaml_root(const YamlDoc *doc)
{
    return doc->root;
}

const YamlNode *yaml_get(const YamlNode *map, const char *key)
{
    if (map->kind != YAML_MAP)
        return NULL;
    for (const YamlNode *e = map->child; e; e = e->next) {
        if (strcmp(e->key, key) == 0)
            return e;
    }
    return NULL;
}

int yaml_count(const YamlNode *node)
{
    int n = 0;
    for (const YamlNode *e = node->child; e; e = e->next)
        n++;
    return n;
}
