/* test_experiment.c - experiment files of `rlhf run`: what their variables become, the config that a stage gets, and
 * what they can be wrong in, with the place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/error.h"
#include "common/base/file.h"
#include "rlhf/experiment.h"
#include "tests/unit/scratch_folder.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int read_text(Experiment *e, const char *text, const char *const *sets, int n_sets)
{
    assert_int_equal(file_write_atomic("x", text, strlen(text)), 0);
    return experiment_read(e, "x", sets, n_sets);
}

#define STAGE  "stages:\n- name: a\n  program: rlhf-sft\n"
#define CONFIG STAGE "  config:\n"

/* The config of a stage reads as what the file says, with variables replaced. */
static void configs(void **state)
{
    (void)state;
    static const struct {
        const char *text, *config;
    } cases[] = {
        {CONFIG "    a: 5\n    b: '5'\n    c: x y\n    d: it's\n", "a: 5\nb: '5'\nc: 'x y'\nd: 'it''s'\n"},
        {CONFIG "    a: |\n      two\n      lines\n", "a: \"two\\nlines\\n\"\n"},
        {CONFIG "    a: \"\\u2028\\x07\\N\"\n    \"b c\": \"caf\\xe9\"\n", "a: \"\\u2028\\u0007\\u0085\"\n'b c': 'caf\xc3\xa9'\n"},
        {CONFIG "    a:\n    b: ~\n    c: ''\n    d: '-'\n", "a: \nb: ~\nc: ''\nd: '-'\n"},
        {CONFIG "    a: {}\n    b: [1, [2, {c: d}]]\n    e: []\n", "a: {}\nb:\n  - 1\n  -\n    - 2\n    -\n      c: d\ne: []\n"},
        {"vars: {x: 1, y: \"${x}${x}\"}\n" CONFIG "    a: ${y}\n    b: \"${y}\"\n    c: \"$ ${y}\"\n", "a: 11\nb: 11\nc: '$ 11'\n"},
        {"root: r\n" CONFIG "    a: ${root}\n    b: ${out}\n    c: ${name}\n", "a: r\nb: r/a\nc: a\n"},
        {"root: r-${s}\nvars: {s: 2}\n" CONFIG "    a: ${out}\n", "a: r-2/a\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Experiment e;
        YamlDoc *doc;
        if (read_text(&e, cases[i].text, NULL, 0) < 0)
            fail_msg("%s\n%s", cases[i].text, error_text());
        assert_int_equal(e.n, 1);
        assert_string_equal(e.stages[0].config, cases[i].config);
        if (yaml_read_text(&doc, "config", e.stages[0].config) < 0)
            fail_msg("%s", error_text());
        yaml_doc_free(doc);
        experiment_free(&e);
    }
}

static void settings(void **state)
{
    (void)state;
    static const char *const sets[] = {"root=q", "vars.s=7"};
    Experiment e;
    assert_int_equal(read_text(&e, "root: r\nvars: {s: 2, flag: false}\n" CONFIG "    a: ${out}-${s}\n"
                                   "- {name: b, program: x, if: \"${flag}\"}\n"
                                   "- {name: c, program: rlhf-reward train, args: [\"${s}\", z]}\n",
                               sets, 2), 0);
    assert_int_equal(e.n, 2);
    assert_string_equal(e.stages[0].config, "a: q/a-7\n");
    assert_string_equal(e.stages[0].config_path, "q/configs/a.yaml");
    assert_true(e.stages[0].resumable && e.stages[1].resumable && e.stages[1].argc == 4);
    assert_string_equal(e.stages[1].argv[1], "train");
    assert_string_equal(e.stages[1].argv[2], "7");
    experiment_free(&e);
}

/* Variables that hold others ten times, nine deep: a thousand million texts. */
static char *many(const char *leaf)
{
    Str s = {0};
    str_addf(&s, "vars:\n  v0: '%s'\n", leaf);
    for (int i = 1; i < 10; i++) {
        str_addf(&s, "  v%d: \"", i);
        for (int k = 0; k < 10; k++)
            str_addf(&s, "${v%d}", i - 1);
        str_add(&s, "\"\n");
    }
    str_add(&s, CONFIG "    a: ${v9}\n");
    return str_take(&s);
}

static void refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "x:1:1: expected a list of stages under 'stages'"},
        {"- a\n", "x:1:1: expected \"key: value\" lines, found a list"},
        {"stages: {}\n", "x:1:9: expected a list of stages under 'stages'"},
        {"stage: []\n", "x:1:1: unknown key 'stage'"},
        {"root: [a]\nstages: []\n", "x:1:7: root: expected the name of a folder"},
        {"root: ''\nstages: []\n", "x:1:7: root: is empty; expected the folder"},
        {"root: ${no}\nstages: []\n", "x:1:7: unknown variable ${no}; add it to vars"},
        {"root: ${root}\nstages: []\n", "x:1:7: unknown variable ${root}"},
        {"vars: [a]\nstages: []\n", "x:1:7: vars: expected a map, name: value"},
        {"vars: a\nstages: []\n", "x:1:7: vars: expected a map, name: value"},
        {"vars: {a: [1]}\nstages: []\n", "x:1:11: a variable is a text or number"},
        {"stages:\n- a\n", "x:2:3: expected a stage: a map with name and program"},
        {"stages:\n- name: a\n", "x:2:3: a stage needs name and program"},
        {"stages:\n- {name: a, program: b, progam: c}\n", "x:2:25: unknown key 'progam'"},
        {"stages:\n- {name: [a], program: b}\n", "x:2:10: expected a text or number"},
        {"stages:\n- {name: '', program: b}\n", "x:2:10: name: found '', expected letters"},
        {"stages:\n- {name: ../a, program: b}\n", "x:2:10: name: found '../a', expected letters"},
        {"stages:\n- {name: /a, program: b}\n", "x:2:10: name: found '/a', expected letters"},
        {"stages:\n- {name: a b, program: b}\n", "x:2:10: name: found 'a b', expected letters"},
        {"stages:\n- {name: .., program: b}\n", "x:2:10: name: found '..', expected letters"},
        {"stages:\n- {name: a, program: b}\n- {name: a, program: b}\n", "x:3:10: two stages have this name"},
        {"stages:\n- {name: a, program: ' '}\n", "x:2:22: program is empty"},
        {"stages:\n- {name: a, program: [b]}\n", "x:2:22: expected a text or number"},
        {STAGE "  config: text\n", "x:4:11: config: expected a map of the program's keys"},
        {STAGE "  config: [a]\n", "x:4:11: config: expected a map of the program's keys"},
        {STAGE "  args: a\n", "x:4:9: expected a list"},
        {STAGE "  args: [{a: b}]\n", "x:4:10: expected a text or number"},
        {STAGE "  inputs: {a: b}\n", "x:4:11: expected a list"},
        {STAGE "  if: maybe\n", "x:4:7: if: expected true or false, found 'maybe'"},
        {CONFIG "    a: ${b\n", "x:5:8: ${ without }"},
        {CONFIG "    a: ${b}\n", "x:5:8: unknown variable ${b}; add it to vars"},
        {"vars: {b: \"${c}\", c: \"${b}\"}\n" CONFIG "    a: ${b}\n", "x:6:8: variables refer to each other in a circle"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Experiment e;
        int rc = read_text(&e, cases[i].text, NULL, 0);
        if (rc != ERR_CONFIG || strncmp(error_text(), cases[i].message, strlen(cases[i].message)))
            fail_msg("%s\nfound    %d %s\nexpected %s", cases[i].text, rc, error_text(), cases[i].message);
        experiment_free(&e);
    }
    static const char *const leaves[] = {"", "a long text"};
    for (int i = 0; i < 2; i++) {
        Experiment e;
        char *text = many(leaves[i]);
        assert_int_equal(read_text(&e, text, NULL, 0), ERR_CONFIG);
        assert_non_null(strstr(error_text(), ": variables that hold each other many times"));
        experiment_free(&e);
        free(text);
    }
}

static void wrong_settings(void **state)
{
    (void)state;
    static const struct {
        const char *set, *message;
        int code;
    } cases[] = {
        {"seed=1", "--set argument 1: expected root=DIR or vars.NAME=VALUE, found \"seed=1\"", ERR_USAGE},
        {"vars.no=1", "--set argument 1: vars.no=1: the experiment has no such variable", ERR_CONFIG},
        {"root=\xff", "--set argument 1: it is not UTF-8", ERR_USAGE},
        {"root=", "x:1:1: root: is empty", ERR_CONFIG},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Experiment e;
        assert_int_equal(read_text(&e, STAGE, &cases[i].set, 1), cases[i].code);
        if (strncmp(error_text(), cases[i].message, strlen(cases[i].message)))
            fail_msg("found    %s\nexpected %s", error_text(), cases[i].message);
        experiment_free(&e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configs),
        cmocka_unit_test(settings),
        cmocka_unit_test(refusals),
        cmocka_unit_test(wrong_settings),
    };
    return cmocka_run_group_tests_name("experiment", tests, enter, leave);
}
