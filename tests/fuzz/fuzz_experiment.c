/* fuzz_experiment.c - any text as an experiment file of `rlhf run`, any lines behind a border as settings: refused with
 * a place, or stages with words to run, folders inside the experiment's, and a config that reads as what the file says
 * with its variables replaced. */
#include "tests/fuzz/fuzz.h"

#include "common/base/error.h"
#include "rlhf/experiment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const seeds[] = {
    "root: runs/x\nvars: {seed: 1, deep: \"${seed}-${seed}\", flag: true}\nstages:\n  - name: sft\n    program: rlhf-sft\n"
    "    config:\n      seed: ${seed}\n      model: \"${root}/${deep}\"\n      text: 'it''s ${name}: ${out}'\n      list: [a, ${seed}, {b: c}]\n"
    "      none:\n      nil: ~\n      map: {}\n      empty: []\n    args: [--dry-run, \"x=${seed}\"]\n    inputs: [/dev/null]\n    if: ${flag}\n"
    "  - {name: b, program: rlhf-reward train, config: {out_dir: \"${out}\"}}\n" FUZZ_BORDER "vars.seed=2\nroot=/tmp/y",
    ("stages:\n- name: one\n  program: rlhf generate\n  config:\n    text: |\n      two\n      lines\n"
     "    \"a key\": \"tab\\there\\u0007\\u2028\"\n"
     "    quoted: \"5\"\n    plain: 5\n- name: two\n  program: x\n  if: false\n"),
    "root: r-${v}\nvars:\n  v: a b\n  w: ${v}${v}\nstages: [{name: n, program: p, config: {k: \"${w}${w}\", '-': '-', 'x: y': '#'}}]\n",
    "vars: [a, b]\nstages: []\n", /* to be refused */
};

const char *const fuzz_words[] = {
    "root: ", "vars:", "stages:", "- name: ", "program: ", "config:", "args: ", "inputs: ", "if: ", "${seed}", "${root}", "${name}", "${out}",
    "${w}", "${v}", "${", "}", "$", "true", "false", "null", "~", "''", "\"\"", "\"\\n\"", "\"\\u0085\"", "\"\\x01\"", "'-'", "'#'", "|\n  ",
    ">\n  ", "- ", "\n", "\n  ", "\n    ", ": ", ", ", "[", "]", "{", "}", "../x", "/", ".", "-", "---", "vars.seed=", "root=", "vars.no=1", "\xff",
    FUZZ_BORDER, NULL,
};

bool fuzz_seed(int k, Str *out)
{
    return fuzz_seed_text(seeds, sizeof seeds / sizeof *seeds, k, out);
}

/* The same kinds and keys, and texts that are equal where the file's hold no variable. */
static void check_config(const YamlNode *was, const YamlNode *is)
{
    const bool null = was->kind == YAML_SCALAR && !was->quoted && !was->text[0];
    CHECK(was->kind == is->kind || (null && is->kind == YAML_MAP), "line %d: another kind", was->line);
    if (was->kind == YAML_SCALAR && is->kind == YAML_SCALAR && !strstr(was->text, "${")) {
        CHECK(!strcmp(was->text, is->text), "'%s' became '%s'", was->text, is->text);
        CHECK(!was->quoted || is->quoted, "'%s' lost its quotes", was->text);
    }
    const YamlNode *b = is->child;
    for (const YamlNode *a = was->child; a; a = a->next, b = b->next) {
        CHECK(b && (a->key ? b->key && !strcmp(a->key, b->key) : !b->key), "key %s is not there", a->key ? a->key : "?");
        check_config(a, b);
    }
    CHECK(!b, "an entry too many");
}

static bool has_long_key(const YamlNode *n)
{
    bool found = n->key && strlen(n->key) > 150;
    for (const YamlNode *c = n->child; c && !found; c = c->next)
        found = has_long_key(c);
    return found;
}

static const YamlNode *stage_of(const YamlNode *stages, int line)
{
    const YamlNode *n = stages->child;
    while (n && n->line != line)
        n = n->next;
    return n;
}

static void check_stage(const Experiment *e, const Stage *s, Str *out)
{
    char *folder = xasprintf("%s/configs/", e->root);
    CHECK(s->name[0] && !strchr(s->name, '/') && s->name[0] != '.', "name '%s'", s->name);
    CHECK(s->argc > 0 && s->argv[0][0] && !s->argv[s->argc], "words");
    CHECK(!s->config_path || !strncmp(s->config_path, folder, strlen(folder)), "config in %s", s->config_path);
    const YamlNode *node = stage_of(yaml_get(yaml_root(e->doc), "stages"), s->line);
    const YamlNode *config = node ? yaml_get(node, "config") : NULL;
    if (config && config->kind == YAML_MAP && !has_long_key(config)) {
        YamlDoc *doc;
        CHECK(yaml_read_text(&doc, "config", s->config) == 0, "%s\n%s", error_text(), s->config);
        if (node->next == NULL || node->next->line != node->line) /* the line says which stage it is */
            check_config(config, yaml_root(doc));
        yaml_doc_free(doc);
    }
    str_addf(out, "%s %s\n", s->name, s->config ? s->config : "");
    for (int i = 0; i < s->argc; i++)
        str_addf(out, "[%s]", s->argv[i]);
    free(folder);
}

static void run(const uint8_t *data, size_t n, Str *out)
{
    enum { SETS_MAX = 8 };
    FuzzPart part[2] = {{"", 0}, {"", 0}};
    const char *sets[SETS_MAX], *path = fuzz_path("experiment.yaml");
    int n_sets = 0;
    fuzz_parts(part, 2, data, n);
    fuzz_put("experiment.yaml", part[0].s, part[0].n);
    char *copy = xstrndup(part[1].s, part[1].n), *rest = copy, *line;
    while (part[1].n && n_sets < SETS_MAX && (line = strsep(&rest, "\n")))
        sets[n_sets++] = line;
    Experiment e = {0};
    int rc = experiment_read(&e, path, sets, n_sets);
    if (rc < 0 && !strncmp(error_text(), "--set argument ", 15))
        str_add(out, error_text());
    else if (rc < 0)
        fuzz_refused(rc, path, out);
    for (int i = 0; i < e.n && rc == 0; i++)
        check_stage(&e, &e.stages[i], out);
    experiment_free(&e);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    fuzz_twice(run, data, n);
    return 0;
}
