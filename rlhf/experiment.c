/* experiment.c - reading and expanding an experiment file. Tested by tests/unit/test_experiment.c, tests/fuzz and
 * tests/e2e/test_run.sh. */
#include "rlhf/experiment.h"

#include "common/base/config.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/text.h"

#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const stage_keys[] = {"name", "program", "presets", "config", "args", "inputs", "if"};
static const char *const top_keys[] = {"root", "vars", "stages"};

static int bad(const YamlNode *n, const char *what)
{
    return error_set(ERR_CONFIG, "%s:%d:%d: %s", n->file, n->line, n->column, what);
}

static int known_keys(const YamlNode *map, const char *const *keys, size_t n_keys)
{
    for (const YamlNode *c = map->child; c; c = c->next) {
        size_t i = 0;
        while (i < n_keys && strcmp(c->key, keys[i]) != 0)
            i++;
        if (i == n_keys)
            return error_set(ERR_CONFIG, "%s:%d:%d: unknown key '%s'", c->file, c->key_line,
                             c->key_column, c->key);
    }
    return 0;
}

static void var_set(Experiment *e, const char *name, const char *value)
{
    for (int i = 0; i < e->n_vars; i++) {
        if (!strcmp(e->vars[i].name, name)) {
            free(e->vars[i].value);
            e->vars[i].value = xstrdup(value);
            return;
        }
    }
    int i = VEC_GROW(e->vars, e->n_vars, e->cap_vars);
    e->vars[i].name = xstrdup(name);
    e->vars[i].value = xstrdup(value);
}

static const char *var_get(const Experiment *e, const char *name, size_t n)
{
    for (int i = 0; i < e->n_vars; i++) {
        if (strlen(e->vars[i].name) == n && !strncmp(e->vars[i].name, name, n))
            return e->vars[i].value;
    }
    return NULL;
}

/* What one text may become: variables that hold others several times grow as powers. */
enum { DEPTH_MAX = 16, REPLACED_MAX = 10000, EXPANDED_MAX = 1 << 20 };

/* Appends text with every ${name} replaced; values may hold further ones. `left`: replacements that are left. */
static int expand(const Experiment *e, const YamlNode *at, const char *text, Str *out, int depth, int *left)
{
    while (*text) {
        const char *open = strstr(text, "${"), *close = open ? strchr(open, '}') : NULL;
        if (!open) {
            str_add(out, text);
            return 0;
        }
        if (!close || depth > DEPTH_MAX)
            return bad(at, close ? "variables refer to each other in a circle" : "${ without }");
        str_add_bytes(out, text, (size_t)(open - text));
        if (--*left < 0 || out->n > EXPANDED_MAX)
            return bad(at, "variables that hold each other many times make too long a text");
        size_t n = (size_t)(close - open - 2);
        const char *value = var_get(e, open + 2, n);
        if (!value)
            return error_set(ERR_CONFIG, "%s:%d:%d: unknown variable ${%.*s}; add it to vars", at->file,
                             at->line, at->column, (int)n, open + 2);
        int rc = expand(e, at, value, out, depth + 1, left);
        if (rc < 0)
            return rc;
        text = close + 1;
    }
    return 0;
}

static int expanded(const Experiment *e, const YamlNode *n, char **out)
{
    Str s = {0};
    int left = REPLACED_MAX;
    if (n->kind != YAML_SCALAR)
        return bad(n, "expected a text or number");
    int rc = expand(e, n, n->text, &s, 0, &left);
    if (rc < 0)
        str_free(&s);
    else
        *out = s.s ? str_take(&s) : xstrdup("");
    return rc;
}

static void add_input(Stage *s, const char *path)
{
    if (!path[0] || !file_exists(path))
        return;
    int i = VEC_GROW(s->inputs, s->n_inputs, s->cap_inputs);
    s->inputs[i] = xstrdup(path);
}

/* Output keys never count as inputs. */
static bool is_output(const char *key)
{
    return key && (!strcmp(key, "out_dir") || !strcmp(key, "out"));
}

/* *text becomes what stands in for it, if anything does. */
static void replace(const Experiment *e, char **text)
{
    bool here = e->stand_in.text && e->n - 1 == e->stand_in_at;
    const char *other = here ? e->stand_in.text(e->stand_in.ctx, *text) : NULL;
    if (!other)
        return;
    char *copy = xstrdup(other);
    free(*text);
    *text = copy;
}

/* Single quotes fold line breaks, and YAML takes some characters beyond ASCII for such: texts with them are
 * escaped in double quotes. */
static void emit_quoted(const char *text, Str *out)
{
    static const char *const breaks[] = {"\xE2\x80\xA8", "\xE2\x80\xA9", "\xEF\xBB\xBF"};
    bool escape = false;
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        escape |= *c < 0x20 || *c == 0x7F || (*c == 0xC2 && c[1] < 0xA0);
    for (size_t i = 0; i < sizeof breaks / sizeof *breaks; i++)
        escape |= strstr(text, breaks[i]) != NULL;
    if (escape) {
        config_print_text(out, text);
        return;
    }
    str_add(out, "'");
    for (const char *c = text; *c; c++)
        str_addf(out, *c == '\'' ? "''" : "%c", *c);
    str_add(out, "'");
}

static const char plain_letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-";

static bool is_plain(const char *text)
{
    return text[0] && text[strspn(text, plain_letters)] == 0 && strcmp(text, "-") != 0;
}

/* Prints a node as YAML with variables replaced, and notes paths it names. */
static int emit(Experiment *e, Stage *s, const YamlNode *n, int indent, const char *key, Str *out)
{
    int rc = 0;
    if (n->kind == YAML_SCALAR) {
        char *text = NULL;
        if ((rc = expanded(e, n, &text)) < 0)
            return rc;
        if (!is_output(key)) {
            replace(e, &text);
            add_input(s, text);
        }
        bool literal = n->quoted && !strstr(n->text, "${"); /* "${x}" is quoted only for YAML's sake */
        bool null = !n->quoted && (!text[0] || !strcmp(text, "~"));
        str_add(out, " ");
        if (!null && (literal || !is_plain(text)))
            emit_quoted(text, out);
        else
            str_add(out, text);
        str_add(out, "\n");
        free(text);
        return 0;
    }
    if (!n->child)
        str_add(out, n->kind == YAML_MAP ? " {}\n" : " []\n");
    else if (indent > 0)
        str_add(out, "\n");
    for (const YamlNode *c = n->child; c; c = c->next) {
        str_addf(out, "%*s", indent, "");
        if (n->kind == YAML_MAP && is_plain(c->key))
            str_add(out, c->key);
        else if (n->kind == YAML_MAP)
            emit_quoted(c->key, out);
        str_add(out, n->kind == YAML_MAP ? ":" : "-");
        if ((rc = emit(e, s, c, indent + 2, n->kind == YAML_MAP ? c->key : key, out)) < 0)
            return rc;
    }
    return rc;
}

static void add_arg(Stage *s, int *cap, const char *word)
{
    int i = VEC_GROW(s->argv, s->argc, *cap);
    s->argv[i] = word ? xstrdup(word) : NULL;
}

/* "rlhf-reward train" -> words. */
static void add_program(Stage *s, int *cap, char *text)
{
    char *save = NULL;
    for (char *w = strtok_r(text, " \t", &save); w; w = strtok_r(NULL, " \t", &save))
        add_arg(s, cap, w);
}

static bool is_trainer(const Stage *s)
{
    const char *const names[] = {"rlhf-sft", "rlhf-rejection", "rlhf-ppo"};
    for (size_t i = 0; i < 3; i++) {
        if (!strcmp(s->argv[0], names[i]))
            return true;
    }
    return s->argc > 1 && !strcmp(s->argv[0], "rlhf-reward") && !strcmp(s->argv[1], "train");
}

static int read_config(Experiment *e, Stage *s, const YamlNode *node, int *cap)
{
    Str text = {0};
    if (node->kind != YAML_MAP)
        return bad(node, "config: expected a map of the program's keys");
    int rc = emit(e, s, node, 0, NULL, &text);
    s->config = text.s ? str_take(&text) : xstrdup("");
    if (rc < 0)
        return rc;
    s->config_path = xasprintf("%s/configs/%s.yaml", e->root, s->name);
    add_arg(s, cap, "-c");
    add_arg(s, cap, s->config_path);
    return 0;
}

/* The value in a word KEY=VALUE. */
static void replace_value(const Experiment *e, char **word)
{
    const char *eq = strchr(*word, '=');
    if (!eq)
        return;
    char *key = xstrndup(*word, (size_t)(eq - *word)), *value = xstrdup(eq + 1);
    if (!is_output(key))
        replace(e, &value);
    free(*word);
    *word = xasprintf("%s=%s", key, value);
    free(key);
    free(value);
}

/* What becomes of the words of a list, beside being inputs. */
typedef enum { LIST_INPUTS, LIST_ARGS, LIST_PRESETS } ListUse;

static int read_list(Experiment *e, Stage *s, const YamlNode *list, ListUse use, int *cap)
{
    if (list->kind != YAML_LIST)
        return bad(list, "expected a list");
    for (const YamlNode *c = list->child; c; c = c->next) {
        char *text = NULL;
        int rc = expanded(e, c, &text);
        if (rc < 0)
            return rc;
        add_input(s, text);
        if (use == LIST_ARGS)
            replace_value(e, &text);
        if (use == LIST_PRESETS)
            add_arg(s, cap, "-c");
        if (use != LIST_INPUTS)
            add_arg(s, cap, text);
        free(text);
    }
    return 0;
}

/* 1 = left out by `if`. */
static int read_condition(Experiment *e, const YamlNode *node)
{
    char *text = NULL;
    if (!node)
        return 0;
    int rc = expanded(e, node, &text);
    if (rc == 0 && strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
        rc = error_set(ERR_CONFIG, "%s:%d:%d: if: expected true or false, found '%s'", node->file,
                       node->line, node->column, text);
    else if (rc == 0)
        rc = !strcmp(text, "false");
    free(text);
    return rc;
}

/* The stage's folder and config lie in the experiment's under this name. */
static int check_name(const Experiment *e, const YamlNode *at, const char *name)
{
    if (!name[0] || name[0] == '.' || strchr(name, '/') || strspn(name, plain_letters) != strlen(name))
        return error_set(ERR_CONFIG, "%s:%d:%d: name: found '%s', expected letters, digits, '_', '-', '.': it becomes "
                                     "the name of a folder", at->file, at->line, at->column, name);
    for (int i = 0; i < e->n; i++) {
        if (!strcmp(e->stages[i].name, name))
            return bad(at, "two stages have this name");
    }
    return 0;
}

static int read_stage(Experiment *e, const YamlNode *node)
{
    const YamlNode *name, *program, *list;
    char *text = NULL;
    int rc = 0, cap = 0;
    if (node->kind != YAML_MAP)
        return bad(node, "expected a stage: a map with name and program");
    TRY(known_keys(node, stage_keys, sizeof stage_keys / sizeof *stage_keys));
    if (!(name = yaml_get(node, "name")) || !(program = yaml_get(node, "program")))
        return bad(node, "a stage needs name and program");
    char *stage_name = NULL;
    TRY(expanded(e, name, &stage_name));
    if ((rc = check_name(e, name, stage_name)) < 0) {
        free(stage_name);
        return rc;
    }
    var_set(e, "name", stage_name);
    char *out = path_join(e->root, stage_name);
    var_set(e, "out", out);
    free(out);
    rc = read_condition(e, yaml_get(node, "if"));
    if (rc) {
        free(stage_name);
        return rc < 0 ? rc : 0;
    }
    int index = VEC_GROW(e->stages, e->n, e->cap);
    Stage *s = &e->stages[index];
    *s = (Stage){.name = stage_name, .line = node->line};
    TRY(expanded(e, program, &text));
    add_program(s, &cap, text);
    if (s->argc == 0) {
        rc = bad(program, "program is empty");
        goto fail;
    }
    if ((list = yaml_get(node, "presets"))) {
        s->has_presets = true;
        TRY(read_list(e, s, list, LIST_PRESETS, &cap));
    }
    if ((list = yaml_get(node, "config")))
        TRY(read_config(e, s, list, &cap));
    else
        s->config = xstrdup("");
    if ((list = yaml_get(node, "args")))
        TRY(read_list(e, s, list, LIST_ARGS, &cap));
    if ((list = yaml_get(node, "inputs")))
        TRY(read_list(e, s, list, LIST_INPUTS, NULL));
    s->resumable = is_trainer(s);
    add_arg(s, &cap, NULL);
    s->argc--;
fail:
    free(text);
    return rc;
}

static int apply_sets(Experiment *e, const char *const *sets, int n)
{
    for (int i = 0; i < n; i++) {
        const char *eq = strchr(sets[i], '=');
        if (!text_is_utf8(sets[i], strlen(sets[i])))
            return error_set(ERR_USAGE, "--set argument %d: it is not UTF-8", i + 1);
        if (eq && !strncmp(sets[i], "root=", 5)) {
            free(e->root);
            e->root = xstrdup(eq + 1);
        } else if (eq && !strncmp(sets[i], "vars.", 5)) {
            char *name = xstrndup(sets[i] + 5, (size_t)(eq - sets[i] - 5));
            bool there = false;
            for (int k = 0; k < e->n_vars; k++)
                there |= !strcmp(e->vars[k].name, name);
            if (there)
                var_set(e, name, eq + 1);
            free(name);
            if (!there)
                return error_set(ERR_CONFIG, "--set argument %d: %s: the experiment has no such variable",
                                 i + 1, sets[i]);
        } else {
            return error_set(ERR_USAGE, "--set argument %d: expected root=DIR or vars.NAME=VALUE, found "
                                        "\"%s\"", i + 1, sets[i]);
        }
    }
    return 0;
}

static int read_vars(Experiment *e, const YamlNode *vars)
{
    if (vars && vars->kind != YAML_MAP && (vars->kind == YAML_LIST || vars->text[0]))
        return bad(vars, "vars: expected a map, name: value");
    for (const YamlNode *c = vars ? vars->child : NULL; c; c = c->next) {
        if (c->kind != YAML_SCALAR)
            return bad(c, "a variable is a text or number");
        var_set(e, c->key, c->text);
    }
    return 0;
}

/* May hold variables of the file itself. */
static int read_root(Experiment *e, const YamlNode *at)
{
    Str root = {0};
    int left = REPLACED_MAX, rc = expand(e, at, e->root, &root, 0, &left);
    if (rc == 0 && !root.n)
        rc = bad(at, "root: is empty; expected the folder of all stages");
    if (rc < 0) {
        str_free(&root);
        return rc;
    }
    free(e->root);
    e->root = str_take(&root);
    var_set(e, "root", e->root);
    return 0;
}

int experiment_read(Experiment *e, const char *path, const char *const *sets, int n_sets)
{
    return experiment_read_stage(e, path, sets, n_sets, INT_MAX - 1, (ExperimentStandIn){0});
}

int experiment_read_stage(Experiment *e, const char *path, const char *const *sets, int n_sets, int index,
                          ExperimentStandIn stand_in)
{
    const YamlNode *top, *root, *stages;
    int rc = 0;
    *e = (Experiment){.path = path, .stand_in = stand_in, .stand_in_at = index};
    TRY(yaml_read_file(&e->doc, path));
    top = yaml_root(e->doc);
    TRY(known_keys(top, top_keys, sizeof top_keys / sizeof *top_keys));
    root = yaml_get(top, "root");
    if (root && root->kind != YAML_SCALAR)
        return bad(root, "root: expected the name of a folder");
    e->root = xstrdup(root ? root->text : "runs");
    TRY(read_vars(e, yaml_get(top, "vars")));
    TRY(apply_sets(e, sets, n_sets));
    TRY(read_root(e, root ? root : top));
    stages = yaml_get(top, "stages");
    if (!stages || stages->kind != YAML_LIST)
        return bad(stages ? stages : top, "expected a list of stages under 'stages'");
    for (const YamlNode *c = stages->child; c && e->n <= index; c = c->next)
        TRY(read_stage(e, c));
fail:
    return rc;
}

char *stage_program_path(const Stage *s)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0 || strchr(s->argv[0], '/'))
        return xstrdup(s->argv[0]);
    self[n] = 0;
    return path_join(dirname(self), s->argv[0]);
}

int stage_write_config(const Experiment *e, const Stage *s)
{
    if (!s->config_path)
        return 0;
    char *dir = path_join(e->root, "configs");
    int rc = dir_make(dir);
    free(dir);
    return rc < 0 ? rc : file_write_atomic(s->config_path, s->config, strlen(s->config));
}

static void free_words(char **w, int n)
{
    for (int i = 0; i < n; i++)
        free(w[i]);
    free(w);
}

void experiment_free(Experiment *e)
{
    for (int i = 0; i < e->n; i++) {
        Stage *s = &e->stages[i];
        free(s->name);
        free(s->config);
        free(s->config_path);
        free_words(s->argv, s->argc);
        free_words(s->inputs, s->n_inputs);
    }
    for (int i = 0; i < e->n_vars; i++) {
        free(e->vars[i].name);
        free(e->vars[i].value);
    }
    free(e->vars);
    free(e->stages);
    free(e->root);
    yaml_doc_free(e->doc);
    *e = (Experiment){0};
}
