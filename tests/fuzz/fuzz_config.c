/* fuzz_config.c - any text as a YAML file over a table of every type, any lines behind a border as --set arguments:
 * refused with places, or printed as a file that loads as the same, hashes the same and differs in nothing. What the
 * YAML reader alone accepts is printed and read again as the same tree. */
#include "tests/fuzz/fuzz.h"

#include "common/base/config.h"
#include "common/base/error.h"
#include "common/base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *path;
    double weight;
    ConfigStrings tags;
} Source;

typedef struct {
    bool shuffle;
    int64_t steps, seed;
    double rate, any;
    const char *model, *out;
    int mode;
    ConfigStrings names;
    ConfigFloats grid;
    ConfigList sources;
} Settings;

static const CfgField source_fields[] = {
    {"path", CFG_STRING, offsetof(Source, path), .flags = CFG_REQUIRED, .help = "a file"},
    {"weight", CFG_FLOAT, offsetof(Source, weight), .def = "1", .max = 100},
    {"more.tags", CFG_STRINGS, offsetof(Source, tags), .help = "labels"},
    {.key = NULL},
};
static const CfgField fields[] = {
    {"shuffle", CFG_BOOL, offsetof(Settings, shuffle), .def = "true"},
    {"steps", CFG_INT, offsetof(Settings, steps), .def = "10", .min = 1, .max = 1000000},
    {"seed", CFG_INT, offsetof(Settings, seed), .help = "any"},
    {"optim.rate", CFG_FLOAT, offsetof(Settings, rate), .def = "1e-5", .max = 1},
    {"optim.any", CFG_FLOAT, offsetof(Settings, any), .help = "any"},
    {"model", CFG_STRING, offsetof(Settings, model), .def = "a b"},
    {"out", CFG_STRING, offsetof(Settings, out), .flags = CFG_NO_RESULT},
    {"mode", CFG_ENUM, offsetof(Settings, mode), .def = "fast", .choices = "slow|fast|on|3"},
    {"names", CFG_STRINGS, offsetof(Settings, names), .def = "[x, 'y z']"},
    {"grid", CFG_FLOATS, offsetof(Settings, grid), .def = "[0.5]", .min = -10, .max = 10},
    {"data.sources", CFG_LIST, offsetof(Settings, sources), .item_fields = source_fields, .item_bytes = sizeof(Source)},
    {.key = NULL},
};

static const char *const seeds[] = {
    "shuffle: false\nsteps: 1e3\nseed: -7\noptim:\n  rate: 0x1\n  any: -.inf\nmodel: \"q\\u00e9\\n\"\nmode: 'on'\n"
    "names: [a, \"b\", 'c d', ~]\ngrid: [1, -2.5e0, 0o7]\ndata:\n  sources:\n    - path: x\n      weight: 2\n"
    "      more: {tags: [s]}\n    - {path: y, more.tags: one}\n" FUZZ_BORDER "steps=5\noptim.rate=.5\nnames=[p, q]",
    "# a comment\noptim.rate: 1\ndata.sources: []\nnames: one\ngrid: 3\nmodel: |\n  two\n  lines\nout: >-\n  folded\n  text\n",
    "{steps: 3, model: [1, 2], mode: 3, unknown: {a: b}}\n" FUZZ_BORDER
    "data.sources=[{path: z, weight: 0.25}, {path: 'w'}]\nmodel=\"in quotes\"\nmodel2=x",
    "---\nmodel: plain text # comment\nnames:\n- a\n- 'b'\n- \"c\\x41\\u0000\"\n",
    "\xef\xbb\xbfmodel: caf\xc3\xa9\nout: \"\\U0001F600\\N\\_\\L\"\n" FUZZ_BORDER "optim.any=+1.\nshuffle=True\nmode=slow",
    "a: 1\n\"a\": 2\n", /* to be refused */
    "",
};

const char *const fuzz_words[] = {
    "shuffle: ", "steps: ", "optim:", "optim.rate: ", "model: ", "names: ", "grid: ", "mode: ", "data:", "sources:", "path: ",
    "weight: ", "more.tags: ", "true", "False", "null", "~", "yes", "on", "3", "-1", "1e3", "1e400", "0x10", "0xg", "0o9", ".inf",
    "-.INF", ".nan", "1_000", "99999999999999999999", "''", "\"\"", "'it''s'", "\"\\u2028\"", "\"\\x07\"", "\"\\uD800\"", "\"\\", "|\n  ",
    ">+\n  ", "- ", "\n", "\n  ", "\n- ", ": ", ", ", "[", "]", "{", "}", "&a ", "*a", "!!str ", "<<: ", "---\n", "...\n", "? ", "%YAML 1.2\n",
    "# ", "\t", "\r\n", "\xc2\x85", "\xe2\x80\xa8", "\xef\xbb\xbf", "\xff", "@", "`", "=", "names=[", "optim.any=", "data.sources=[{", FUZZ_BORDER,
    NULL,
};

bool fuzz_seed(int k, Str *out)
{
    return fuzz_seed_text(seeds, sizeof seeds / sizeof *seeds, k, out);
}

/* ---- the tree alone */

/* On one line. False: a key is too long for a line, which YAML allows 1024 characters. */
static bool print_node(const YamlNode *n, Str *out)
{
    bool good = true;
    if (n->kind == YAML_SCALAR) {
        config_print_text(out, n->text);
        return true;
    }
    str_add(out, n->kind == YAML_MAP ? "{" : "[");
    for (const YamlNode *c = n->child; c && good; c = c->next) {
        CHECK((c->key != NULL) == (n->kind == YAML_MAP), "a key");
        CHECK(c->line >= n->line && c->column >= 1, "line %d column %d", c->line, c->column);
        CHECK(!c->key || yaml_get(n, c->key) == c, "%s is there twice", c->key);
        good = !c->key || strlen(c->key) < 150;
        if (c->key)
            config_print_text(out, c->key);
        str_add(out, c->key ? ": " : "");
        good = good && print_node(c, out);
        str_add(out, c->next ? ", " : "");
    }
    str_add(out, n->kind == YAML_MAP ? "}" : "]");
    return good;
}

static void check_tree(const YamlDoc *doc, Str *out)
{
    Str first = {0}, second = {0};
    YamlDoc *again;
    if (print_node(yaml_root(doc), &first)) {
        CHECK(yaml_read_text(&again, "again", first.s) == 0, "printed: %s\n%s", error_text(), first.s);
        CHECK(print_node(yaml_root(again), &second) && !strcmp(first.s, second.s), "%s\n%s", first.s, second.s);
        yaml_doc_free(again);
        str_add(out, first.s);
    }
    str_free(&first);
    str_free(&second);
}

/* "FILE:LINE:COLUMN: " or, for bytes that are no text, "at byte N". */
static void check_place(const char *path, FuzzPart text)
{
    long long line, column, lines = 1;
    for (size_t i = 0; i < text.n; i++)
        lines += text.s[i] == '\n' || text.s[i] == '\r' || (unsigned char)text.s[i] >= 0x80;
    if (sscanf(error_text() + strlen(path), ":%lld:%lld: ", &line, &column) == 2)
        CHECK(line >= 1 && line <= lines + 1 && column >= 1 && column <= (long long)text.n + 2, "place: %s", error_text());
    else
        CHECK(strstr(error_text(), "at byte "), "no place: %s", error_text());
}

static void run_tree(FuzzPart text, Str *out)
{
    YamlDoc *doc, *other;
    const char *path = fuzz_path("config.yaml");
    char *copy = xstrndup(text.s, text.n);
    int rc = yaml_read_file(&doc, path);
    if (rc < 0) {
        fuzz_refused(rc, path, out);
        check_place(path, text);
    } else {
        check_tree(doc, out);
        yaml_doc_free(doc);
    }
    if (strlen(copy) == text.n) { /* a text is what a file is */
        int rc_text = yaml_read_text(&other, path, copy);
        CHECK(rc_text == rc, "%d from the file, %d from the text", rc, rc_text);
        if (rc_text == 0)
            yaml_doc_free(other);
    }
    free(copy);
}

/* ---- the table */

static int load(Config **c, const char *path, const char *const *sets, int n)
{
    return config_load(c, fields, sizeof(Settings), &(ConfigSources){.files = &path, .n_files = 1, .sets = sets, .n_sets = n});
}

static void check_settings(Settings *s)
{
    CHECK(s->steps >= 1 && s->steps <= 1000000 && s->rate >= 0 && s->rate <= 1 && s->mode >= 0 && s->mode < 4, "range");
    CHECK(s->model && s->out, "a text is NULL");
    for (int i = 0; i < s->names.n; i++)
        CHECK(s->names.at[i], "name %d", i);
    for (int i = 0; i < s->grid.n; i++)
        CHECK(s->grid.at[i] >= -10 && s->grid.at[i] <= 10, "grid %g", s->grid.at[i]);
    for (int i = 0; i < s->sources.n; i++) {
        const Source *e = (const Source *)s->sources.at + i;
        CHECK(e->path && e->weight >= 0 && e->weight <= 100, "source %d", i);
    }
}

static void check_printed(Config *c, Str *out)
{
    for (int help = 0; help < 2; help++) {
        Config *again;
        Str first = {0}, second = {0}, diff = {0};
        config_print(c, &first, help);
        fuzz_put("printed.yaml", first.s, first.n);
        CHECK(load(&again, fuzz_path("printed.yaml"), NULL, 0) == 0, "printed: %s\n%s", error_text(), first.s);
        config_print(again, &second, help);
        CHECK(!strcmp(first.s, second.s), "%s\n%s", first.s, second.s);
        CHECK(config_hash(c) == config_hash(again), "another hash:\n%s", first.s);
        CHECK(config_diff(c, fuzz_path("printed.yaml"), &diff) == 0 && diff.n == 0, "differs: %s", str_get(&diff));
        config_free(again);
        str_add(out, first.s);
        str_free(&first);
        str_free(&second);
        str_free(&diff);
    }
}

/* Every line of a message begins with the file or the argument that it is about. Values may hold newlines. */
static void check_errors(const char *path, FuzzPart yaml, FuzzPart sets)
{
    const bool one_line = !memchr(sets.s, '\\', sets.n) && !memmem(yaml.s, yaml.n, "\\", 1) && !memmem(yaml.s, yaml.n, "|", 1) &&
                          !memmem(yaml.s, yaml.n, ">", 1) && !memmem(yaml.s, yaml.n, "\n\n", 2) &&
                          !memmem(yaml.s, yaml.n, "\n \n", 3) && !memchr(yaml.s, '\r', yaml.n) && !memmem(yaml.s, yaml.n, "\xc2\x85", 2);
    char *copy = xstrdup(error_text()), *rest = copy, *line;
    for (int i = 0; (line = strsep(&rest, "\n")); i++) {
        if (i == 0 || one_line)
            CHECK(!strncmp(line, path, strlen(path)) || !strncmp(line, "--set argument ", 15), "no place in front: %s", line);
    }
    free(copy);
}

static void run_table(FuzzPart yaml, FuzzPart lines, Str *out)
{
    enum { SETS_MAX = 16 };
    const char *sets[SETS_MAX], *path = fuzz_path("config.yaml");
    char *copy = xstrndup(lines.s, lines.n), *rest = copy, *line;
    int n = 0;
    while (lines.n && n < SETS_MAX && (line = strsep(&rest, "\n")))
        sets[n++] = line;
    Config *c;
    int rc = load(&c, path, sets, n);
    if (rc < 0) {
        CHECK(rc == ERR_CONFIG && !c, "code %d", rc);
        check_errors(path, yaml, lines);
        str_add(out, error_text());
    } else {
        check_settings(config_data(c));
        check_printed(c, out);
        config_free(c);
    }
    free(copy);
}

static void run(const uint8_t *data, size_t n, Str *out)
{
    FuzzPart part[2] = {{"", 0}, {"", 0}};
    fuzz_parts(part, 2, data, n);
    fuzz_put("config.yaml", part[0].s, part[0].n);
    run_tree(part[0], out);
    run_table(part[0], part[1], out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    fuzz_twice(run, data, n);
    return 0;
}
