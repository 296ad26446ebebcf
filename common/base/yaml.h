/* yaml.h - a YAML document as a tree with places, built from libyaml's event API.
 *
 * One document; anchors, aliases, merge keys, tags and duplicate keys are refused with
 * file:line:column. Scalars stay text here; config.c gives them types by the YAML 1.2 core rules
 * (1e-5 is a number; yes/no are strings). */
#ifndef RLHF_BASE_YAML_H
#define RLHF_BASE_YAML_H

#include <stdbool.h>
#include <stddef.h>

typedef enum { YAML_SCALAR, YAML_MAP, YAML_LIST } YamlKind;

typedef struct YamlNode YamlNode;
struct YamlNode {
    YamlKind kind;
    const char *file; /* borrowed from the document */
    int line, column; /* 1-based */
    const char *key;  /* inside a map; else NULL */
    int key_line, key_column;
    const char *text; /* scalar */
    bool quoted;      /* scalar was quoted: always a string */
    YamlNode *child;  /* first entry of a map or list */
    YamlNode *next;   /* next sibling */
};

typedef struct YamlDoc YamlDoc;

int yaml_read_file(YamlDoc **doc, const char *path);                   /* 0 or ERR_* */
int yaml_read_text(YamlDoc **doc, const char *name, const char *text); /* name stands for file */
void yaml_doc_free(YamlDoc *doc); /* NULL is fine; plain yaml_free is a symbol of libyaml itself */
const YamlNode *yaml_root(const YamlDoc *doc);                  /* a map; may be empty */
const YamlNode *yaml_get(const YamlNode *map, const char *key); /* NULL if absent */
int yaml_count(const YamlNode *node);                           /* entries */

#endif
