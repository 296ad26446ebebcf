/* test_config.c - YAML and configuration: every kind of error as its exact text, the order of
 * sources, and that a printed configuration loads back as the same struct. */
#include "common/base/config.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/unit/scratch_folder.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

typedef struct {
    const char *path;
    double weight;
    ConfigStrings tags;
} Source;

typedef struct {
    const char *out_dir;
    int64_t batch_size;
    double learning_rate, decay;
    bool shuffle;
    int dtype;
    ConfigStrings names;
    ConfigFloats levels;
    ConfigList sources;
    int64_t threads;
} Settings;

static const CfgField source_fields[] = {
    {"path", CFG_STRING, offsetof(Source, path), .flags = CFG_REQUIRED, .help = "a file"},
    {"weight", CFG_FLOAT, offsetof(Source, weight), "1", 0, 100, .help = "share"},
    {"tags", CFG_STRINGS, offsetof(Source, tags), .help = "labels"},
    {0},
};

#define S(member) offsetof(Settings, member)
static const CfgField fields[] = {
    {"out_dir", CFG_STRING, S(out_dir), .flags = CFG_NO_RESULT, .help = "where it goes"},
    {"batch_size", CFG_INT, S(batch_size), "8", 1, 1000000, .help = "examples in a step"},
    {"optim.learning_rate", CFG_FLOAT, S(learning_rate), "1e-5", 0, 1, .help = "peak"},
    {"optim.decay", CFG_FLOAT, S(decay), "0.1", .help = "decay"},
    {"shuffle", CFG_BOOL, S(shuffle), "true", .help = "mix"},
    {"dtype", CFG_ENUM, S(dtype), "f32", .choices = "f32|bf16|off"},
    {"names", CFG_STRINGS, S(names), "[a, b]", .help = "names"},
    {"levels", CFG_FLOATS, S(levels), .min = 0, .max = 10},
    {"sources", CFG_LIST, S(sources), .item_fields = source_fields, .item_bytes = sizeof(Source)},
    {"threads", CFG_INT, S(threads), "0", 0, 64, .flags = CFG_NO_RESULT},
    {0},
};
#undef S

static void put(const char *path, const char *text)
{
    assert_int_equal(file_write_atomic(path, text, strlen(text)), 0);
}

static Config *load(const char *yaml, const char *set)
{
    Config *c;
    const char *file = "t.yaml";
    put(file, yaml);
    ConfigSources from = {&file, 1, &set, set != NULL, NULL};
    int rc = config_load(&c, fields, sizeof(Settings), &from);
    if (rc < 0)
        print_message("%s\n", error_text());
    assert_int_equal(rc, 0);
    return c;
}

static void expect_error(const char *yaml, const char *set, const char *text)
{
    Config *c;
    const char *file = "t.yaml";
    put(file, yaml);
    ConfigSources from = {&file, 1, &set, set != NULL, NULL};
    assert_int_equal(config_load(&c, fields, sizeof(Settings), &from), ERR_CONFIG);
    assert_string_equal(error_text(), text);
    assert_null(c);
}

static void test_defaults(void **state)
{
    (void)state;
    Config *c = load("# nothing\n", NULL);
    const Settings *s = config_data(c);
    assert_string_equal(s->out_dir, "");
    assert_int_equal(s->batch_size, 8);
    assert_true(s->learning_rate == 1e-5 && s->decay == 0.1 && s->shuffle);
    assert_int_equal(s->names.n, 2);
    assert_string_equal(s->names.at[1], "b");
    assert_int_equal(s->levels.n, 0);
    assert_int_equal(s->sources.n, 0);
    assert_string_equal(config_where(c, "batch_size"), "default");
    assert_false(config_is_set(c, "batch_size"));
    config_free(c);
}

static void test_values(void **state)
{
    (void)state;
    Config *c = load("batch_size: 0x10\n"
                     "optim:\n"
                     "  learning_rate: 5e-1\n"
                     "optim.decay: -.inf\n"
                     "shuffle: False\n"
                     "dtype: off\n"
                     "names: yes\n"
                     "levels: [1, 2.5, 1e1]\n"
                     "sources:\n"
                     "- path: a.jsonl\n"
                     "  tags: [x, '1']\n"
                     "- {path: b, weight: 2}\n",
                     NULL);
    const Settings *s = config_data(c);
    assert_int_equal(s->batch_size, 16);
    assert_true(s->learning_rate == 0.5 && s->decay == -INFINITY && !s->shuffle);
    assert_int_equal(s->dtype, 2);
    assert_int_equal(s->names.n, 1); /* one scalar is a list of one, and yes is a text */
    assert_string_equal(s->names.at[0], "yes");
    assert_true(s->levels.n == 3 && s->levels.at[1] == 2.5 && s->levels.at[2] == 10);
    const Source *source = s->sources.at;
    assert_int_equal(s->sources.n, 2);
    assert_string_equal(source[0].path, "a.jsonl");
    assert_true(source[0].weight == 1 && source[0].tags.n == 2 && source[1].weight == 2);
    assert_string_equal(config_where(c, "optim.learning_rate"), "t.yaml:3:18");
    assert_string_equal(config_where(c, "sources[1].weight"), "t.yaml:12:21");
    assert_string_equal(config_where(c, "sources[0].weight"), "default");
    config_free(c);
}

static void test_sources_order(void **state)
{
    (void)state;
    Config *c;
    put("a.yaml", "batch_size: 1\nthreads: 3\nsources: [{path: p}, {path: q}]\n");
    put("b.yaml", "batch_size: 2\nsources: [{path: r}]\n");
    const char *files[] = {"a.yaml", "b.yaml"};
    const char *sets[] = {"optim.decay=0.5", "out_dir=/x: #y", "optim.decay=0.25",
                          "names=[u, \"v w\"]", "batch_size=1e6"};
    ConfigSources from = {files, 2, sets, 5, NULL};
    assert_int_equal(config_load(&c, fields, sizeof(Settings), &from), 0);
    const Settings *s = config_data(c);
    assert_int_equal(s->batch_size, 1000000);
    assert_int_equal(s->threads, 3);
    assert_true(s->decay == 0.25);
    assert_string_equal(s->out_dir, "/x: #y");
    assert_string_equal(s->names.at[1], "v w");
    assert_int_equal(s->sources.n, 1); /* a list replaces the whole list */
    assert_string_equal(config_where(c, "threads"), "a.yaml:2:10");
    assert_string_equal(config_where(c, "optim.decay"), "--set argument 3");
    assert_string_equal(config_where(c, "sources[1].path"), "default");
    config_free(c);
}

static void test_errors(void **state)
{
    (void)state;
    expect_error("a: 1\noptim:\n  learning_rat: 1\n", NULL,
                 "t.yaml:1:1: a: unknown key\n"
                 "t.yaml:3:3: optim.learning_rat: unknown key (did you mean "
                 "'optim.learning_rate'?)");
    expect_error("learning_rate: 1\n", NULL,
                 "t.yaml:1:1: learning_rate: unknown key (did you mean 'optim.learning_rate'?)");
    expect_error("optm: {decay: 1}\n", NULL,
                 "t.yaml:1:1: optm: unknown key (did you mean 'optim'?)");
    expect_error("batch_size: many\n", NULL,
                 "t.yaml:1:13: batch_size: expected an integer in [1, 1000000], found \"many\"");
    expect_error("batch_size: 0\n", NULL,
                 "t.yaml:1:13: batch_size: expected an integer in [1, 1000000], found \"0\"");
    expect_error("batch_size: 99999999999999999999\n", NULL,
                 "t.yaml:1:13: batch_size: expected an integer in [1, 1000000], found "
                 "\"99999999999999999999\"");
    expect_error("batch_size: '8'\n", NULL,
                 "t.yaml:1:13: batch_size: expected an integer in [1, 1000000], found the quoted "
                 "text \"8\"");
    expect_error("batch_size:\n", NULL,
                 "t.yaml:1:12: batch_size: expected an integer in [1, 1000000], found nothing");
    expect_error("optim.decay: .nan\n", NULL,
                 "t.yaml:1:14: optim.decay: expected a number, found \".nan\"");
    expect_error("optim.decay: 1e400\n", NULL,
                 "t.yaml:1:14: optim.decay: expected a number, found \"1e400\"");
    expect_error("shuffle: yes\n", NULL,
                 "t.yaml:1:10: shuffle: expected true or false, found \"yes\"");
    expect_error("dtype: bf15\n", NULL,
                 "t.yaml:1:8: dtype: expected one of f32, bf16, off, found \"bf15\" (did you mean "
                 "'bf16'?)");
    expect_error("out_dir: [x]\n", NULL, "t.yaml:1:10: out_dir: expected a text, found a list");
    expect_error("names: {a: b}\n", NULL,
                 "t.yaml:1:8: names: expected a list of texts, found a map");
    expect_error("levels: [1, 11]\n", NULL,
                 "t.yaml:1:13: levels: expected a list of numbers in [0, 10], found \"11\"");
    expect_error("optim: 3\n", NULL,
                 "t.yaml:1:8: optim: expected a map of keys, found a single value or list");
    expect_error("optim.decay: 1\noptim: {decay: 2}\n", NULL,
                 "t.yaml:2:9: optim.decay: the key is given twice (also at t.yaml:1:14)");
}

static void test_list_errors(void **state)
{
    (void)state;
    expect_error("sources:\n- wieght: 1\n- path: x\n  weight: -1\n- 3\n", NULL,
                 "t.yaml:2:3: sources[0].wieght: unknown key (did you mean 'weight'?)\n"
                 "t.yaml:2:3: sources[0].path: required, but not given (a file)\n"
                 "t.yaml:4:11: sources[1].weight: expected a number in [0, 100], found \"-1\"\n"
                 "t.yaml:5:3: sources[2]: expected a map of keys, found a text");
    expect_error("sources: {path: x}\n", NULL,
                 "t.yaml:1:10: sources: expected a list of maps, found a map (put '- ' before its "
                 "first key)");
    expect_error("sources: x\n", NULL,
                 "t.yaml:1:10: sources: expected a list of maps, found a text");
}

static void test_set_errors(void **state)
{
    (void)state;
    expect_error("", "batch_sise=3",
                 "--set argument 1: batch_sise: unknown key (did you mean 'batch_size'?)");
    expect_error("", "batch_size=x",
                 "--set argument 1: batch_size: expected an integer in [1, 1000000], found \"x\"");
    expect_error("", "batch_size", "--set argument 1: expected KEY=VALUE, found \"batch_size\"");
    expect_error("", "optim=1",
                 "--set argument 1: optim: a group of keys; set one of them, as in "
                 "optim.NAME=VALUE");
    expect_error("", "names=[a", "--set argument 1: names: the value [a is not valid YAML");
    expect_error("shuffle: 1\n", "sources=[{weight: 1}]",
                 "t.yaml:1:10: shuffle: expected true or false, found \"1\"\n"
                 "--set argument 1: sources[0].path: required, but not given (a file)");
    expect_error("", "out_dir=\xff", "--set argument 1: out_dir: the value is not UTF-8");
}

static void test_yaml_errors(void **state)
{
    (void)state;
    expect_error("dtype: &x f32\n", NULL,
                 "t.yaml:1:8: YAML anchors (&name) are not supported; write the value out");
    expect_error("dtype: *x\n", NULL,
                 "t.yaml:1:8: YAML aliases (*name) are not supported; write the value out");
    expect_error("dtype: !!str f32\n", NULL,
                 "t.yaml:1:8: YAML tags (!name) are not supported; quote text that begins with "
                 "'!'");
    expect_error("<<: {a: b}\n", NULL,
                 "t.yaml:1:1: YAML merge keys (<<) are not supported; write the keys out");
    expect_error("dtype: f32\n\ndtype: f32\n", NULL,
                 "t.yaml:3:1: dtype: the key is given twice (first at line 1)");
    expect_error("dtype: f32\n---\ndtype: f32\n", NULL,
                 "t.yaml:2:1: a second YAML document (---) is not supported; use one file for "
                 "each");
    expect_error("[1, 2]\n", NULL, "t.yaml:1:1: expected \"key: value\" lines, found a list");
    expect_error("words\n", NULL,
                 "t.yaml:1:1: expected \"key: value\" lines, found a text without a key");
    expect_error("optim:\n\tdecay: 1\n", NULL,
                 "t.yaml:2:1: not valid YAML: found character that cannot start any token (indent "
                 "with spaces, not tabs; quote text that begins with @ or `)");
    expect_error("{a: {b: [c}\n", NULL,
                 "t.yaml:1:11: not valid YAML: did not find expected ',' or ']'");
}

static void test_missing(void **state)
{
    (void)state;
    Config *c;
    const CfgField need[] = {
        {"model.path", CFG_STRING, 0, .flags = CFG_REQUIRED, .help = "the folder"}, {0}};
    const char *file = "t.yaml", *none = "none.yaml";
    put(file, "");
    assert_int_equal(
        config_load(&c, need, sizeof(char *), &(ConfigSources){.files = &file, .n_files = 1}),
        ERR_CONFIG);
    assert_string_equal(error_text(), "t.yaml: model.path: required, but not given (the folder)");
    assert_int_equal(
        config_load(&c, need, sizeof(char *), &(ConfigSources){.files = &none, .n_files = 1}),
        ERR_NOINPUT);
    assert_string_equal(error_text(), "none.yaml: cannot be opened: No such file or directory");
    const char *set = "model.path='a"; /* one fault, one line: the key was given */
    assert_int_equal(
        config_load(&c, need, sizeof(char *), &(ConfigSources){.sets = &set, .n_sets = 1}),
        ERR_CONFIG);
    assert_string_equal(error_text(),
                        "--set argument 1: model.path: the value 'a is not valid YAML");
}

static const char *const awkward[] = {
    "",         "null",         "true",          "12",     "1e5",  "-",
    "a: b",     "#x",           "\"q\" \\",      "l1\nl2", " sp ", "\t\x01\x7f",
    "\xC3\xA9", "\xE2\x80\xA8", "\xEF\xBB\xBFz", "@a",     "a,b",  "[x]",
    "'x'",      "off",          "/p/q.yaml",     "~"};

static void test_round_trip(void **state)
{
    (void)state;
    Config *c = load("batch_size: 3\nlevels: [0.1, 1e-7, 3]\nsources: [{path: x, tags: [p, '2']}, "
                     "{path: '', weight: 0.3333333333333333}]\noptim.decay: .inf\n",
                     NULL);
    Settings *s = config_data(c);
    s->names = (ConfigStrings){(const char **)(uintptr_t)awkward, sizeof awkward / sizeof *awkward};
    s->out_dir = "1\n2";
    for (int help = 0; help < 2; help++) {
        Str first = {0}, second = {0}, diff = {0};
        config_print(c, &first, help);
        Config *d = load(first.s, NULL);
        const Settings *t = config_data(d);
        assert_int_equal(t->names.n, s->names.n);
        for (int i = 0; i < s->names.n; i++)
            assert_string_equal(t->names.at[i], s->names.at[i]);
        assert_string_equal(t->out_dir, s->out_dir);
        assert_true(((Source *)t->sources.at)[1].weight == 0.3333333333333333);
        config_print(d, &second, help);
        assert_string_equal(first.s, second.s);
        assert_true(config_hash(c) == config_hash(d));
        assert_int_equal(config_diff(d, "t.yaml", &diff), 0);
        assert_string_equal(str_get(&diff), "");
        config_free(d);
        str_free(&first);
        str_free(&second);
    }
    config_free(c);
}

static void test_print_text(void **state)
{
    (void)state;
    Config *c = load("sources: [{path: x, tags: [p, '2']}]\ndtype: off\n", NULL);
    Str text = {0};
    config_print(c, &text, false);
    assert_string_equal(text.s, "out_dir: \"\"\n"
                                "batch_size: 8\n"
                                "optim.learning_rate: 1e-05\n"
                                "optim.decay: 0.1\n"
                                "shuffle: true\n"
                                "dtype: \"off\"\n"
                                "names: [a, b]\n"
                                "levels: []\n"
                                "sources:\n"
                                "  - path: x\n"
                                "    weight: 1\n"
                                "    tags: [p, \"2\"]\n"
                                "threads: 0\n");
    str_free(&text);
    config_free(c);
}

static void test_hash_and_diff(void **state)
{
    (void)state;
    Config *a = load("sources: [{path: x}]\n", NULL);
    Str text = {0}, diff = {0};
    config_print(a, &text, true);
    put("was.yaml", text.s);
    Config *same = load("sources: [{path: x}]\nthreads: 4\nout_dir: elsewhere\n", NULL);
    assert_true(config_hash(a) == config_hash(same));
    assert_int_equal(config_diff(same, "was.yaml", &diff), 0);
    assert_string_equal(str_get(&diff), "");
    Config *other = load("sources: [{path: z}]\nbatch_size: 9\n", NULL);
    assert_true(config_hash(a) != config_hash(other));
    assert_int_equal(config_diff(other, "was.yaml", &diff), 0);
    assert_string_equal(str_get(&diff),
                        "batch_size (was 8, is 9)\nsources[0].path (was x, is z)\n");
    config_free(a);
    config_free(same);
    config_free(other);
    str_free(&text);
    str_free(&diff);
}

/* A key that counts only beside another's value. */
static void test_only_with(void **state)
{
    (void)state;
    typedef struct {
        int dtype;
        int64_t unit;
    } Pair;
    static const CfgField table[] = {
        {"dtype", CFG_ENUM, offsetof(Pair, dtype), "f32", .choices = "f32|bf16"},
        {"unit", CFG_INT, offsetof(Pair, unit), "3", .only_with = "dtype=bf16"},
        {0},
    };
    const char *const sets[2][2] = {{"dtype=f32", "unit=5"}, {"dtype=bf16", "unit=5"}};
    for (int counts = 0; counts < 2; counts++) {
        Config *c[2];
        Str text = {0}, diff = {0};
        for (int n = 0; n < 2; n++)
            assert_int_equal(config_load(&c[n], table, sizeof(Pair),
                                         &(ConfigSources){.sets = sets[counts], .n_sets = n + 1}), 0);
        config_print(c[0], &text, true);
        put("was.yaml", str_get(&text));
        assert_int_equal(config_hash(c[0]) != config_hash(c[1]), counts);
        assert_int_equal(config_diff(c[1], "was.yaml", &diff), 0);
        assert_string_equal(str_get(&diff), counts ? "unit (was 3, is 5)\n" : "");
        config_free(c[0]);
        config_free(c[1]);
        str_free(&text);
        str_free(&diff);
    }
}

static void test_bom(void **state)
{
    (void)state;
    Config *c = load("\xEF\xBB\xBF"
                     "batch_size: 5\r\nshuffle: false\r\n",
                     NULL);
    assert_int_equal(((Settings *)config_data(c))->batch_size, 5);
    config_free(c);
    YamlDoc *doc; /* its bytes are counted too */
    assert_int_equal(yaml_read_text(&doc, "x", "\xEF\xBB\xBF" "a: \x01"), ERR_CONFIG);
    assert_string_equal(error_text(), "x: not valid YAML: control characters are not allowed at byte 6");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),      cmocka_unit_test(test_values),
        cmocka_unit_test(test_sources_order), cmocka_unit_test(test_errors),
        cmocka_unit_test(test_list_errors),   cmocka_unit_test(test_set_errors),
        cmocka_unit_test(test_yaml_errors),   cmocka_unit_test(test_missing),
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_print_text),
        cmocka_unit_test(test_hash_and_diff), cmocka_unit_test(test_only_with),
        cmocka_unit_test(test_bom),
    };
    return cmocka_run_group_tests_name("config", tests, enter, leave);
}
