/* test_cli.c - the command line: what ends up in the config, messages, and exit codes. What goes to
 * stdout and stderr is caught in a file. */
#include "common/base/cli.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/unit/scratch_folder.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

typedef struct {
    const char *model;
    int64_t steps;
    bool fast;
} Settings;

static const CfgField fields[] = {
    {"model.path", CFG_STRING, offsetof(Settings, model), .flags = CFG_REQUIRED, .help = "folder"},
    {"steps", CFG_INT, offsetof(Settings, steps), "10", 1, 100, .help = "how many"},
    {"fast", CFG_BOOL, offsetof(Settings, fast), .help = "hurry"},
    {0},
};

static const CliOption options[] = {
    {"--model", "DIR", "model.path", "same as model.path"},
    {"--fast", NULL, "fast", "same as fast=true"},
    {0},
};

static const CliSpec spec = {.program = "prog",
                             .summary = "does it",
                             .fields = fields,
                             .config_bytes = sizeof(Settings),
                             .options = options,
                             .max_args = 1};

enum { WORDS_MAX = 16 };

static int parse(Cli *cli, const char *line)
{
    static char words[512];
    char *argv[WORDS_MAX] = {"prog"}, *rest = words, *word;
    int n = 1;
    snprintf(words, sizeof words, "%s", line);
    while ((word = strsep(&rest, " "))) {
        if (*word)
            argv[n++] = word;
    }
    return cli_parse(cli, &spec, n, argv);
}

/* Runs `parse` or, with line NULL, cli_fail, with descriptor `fd` going to a file. */
static int caught(int fd, const char *line, Cli *cli, char **text)
{
    size_t n;
    fflush(stdout);
    fflush(stderr);
    int kept = dup(fd), file = open("caught", O_WRONLY | O_CREAT | O_TRUNC, 0666);
    dup2(file, fd);
    int rc = line ? parse(cli, line) : cli_fail("prog", ERR_CONFIG);
    fflush(stdout);
    fflush(stderr);
    dup2(kept, fd);
    close(kept);
    close(file);
    assert_int_equal(file_read("caught", text, &n), 0);
    return rc;
}

static void expect_error(const char *line, int code, const char *text)
{
    Cli cli;
    assert_int_equal(parse(&cli, line), code);
    assert_string_equal(error_text(), text);
    assert_null(cli.config);
    cli_free(&cli); /* fine on what failed */
}

static void test_values(void **state)
{
    (void)state;
    Cli cli;
    assert_int_equal(file_write_atomic("a.yaml", "steps: 3\nmodel: {path: x}\n", 26), 0);
    assert_int_equal(parse(&cli, "-c a.yaml --fast --model=m --set steps=4 --resume auto "
                                 "--dry-run in.txt"),
                     0);
    const Settings *s = config_data(cli.config);
    assert_string_equal(s->model, "m");
    assert_true(s->fast && s->steps == 4 && cli.dry_run);
    assert_string_equal(cli.resume, "auto");
    assert_int_equal(cli.n_args, 1);
    assert_string_equal(cli.args[0], "in.txt");
    assert_string_equal(config_where(cli.config, "model.path"), "--model");
    cli_free(&cli);
    cli_free(&cli);

    /* the later set wins, wherever files stand; behind -- nothing is an option or a set */
    assert_int_equal(parse(&cli, "steps=5 --model a steps=6 --config=a.yaml -- steps=7"), 0);
    s = config_data(cli.config);
    assert_string_equal(s->model, "a");
    assert_int_equal(s->steps, 6);
    assert_string_equal(cli.args[0], "steps=7");
    assert_null(cli.resume);
    cli_free(&cli);
}

static void test_errors(void **state)
{
    (void)state;
    expect_error("--modle x", ERR_USAGE, "--modle: unknown option (did you mean '--model'?)");
    expect_error("--dryrun", ERR_USAGE, "--dryrun: unknown option (did you mean '--dry-run'?)");
    expect_error("--path x", ERR_USAGE,
                 "--path: unknown option (did you mean 'model.path=VALUE'?)");
    expect_error("-x", ERR_USAGE, "-x: unknown option; prog --help lists all");
    expect_error("--model", ERR_USAGE,
                 "--model: expected DIR behind it, found the end of the line");
    expect_error("--fast=1", ERR_USAGE, "--fast=1: --fast takes no value");
    expect_error("--model a b c.yaml", ERR_USAGE,
                 "c.yaml: unexpected argument; prog takes at most 1 (a config file needs -c before "
                 "it)");
    expect_error("steps=0", ERR_CONFIG,
                 "--set argument 1: steps: expected an integer in [1, 100], found \"0\"\n"
                 "config: model.path: required, but not given (folder)");
    expect_error("--model x --set stesp=2", ERR_CONFIG,
                 "--set argument 2: stesp: unknown key (did you mean 'steps'?)");
    expect_error("-c none.yaml", ERR_NOINPUT,
                 "none.yaml: cannot be opened: No such file or directory");
}

static void test_help(void **state)
{
    (void)state;
    Cli cli;
    char *text;
    assert_int_equal(caught(STDOUT_FILENO, "-c none.yaml --help", &cli, &text), 1);
    static const char *const wanted[] = {
        "prog - does it\n",  "Usage: prog -c FILE", "--model DIR",
        "--resume auto|DIR", "steps = 10",          "an integer in [1, 100]",
        "how many",          "required, a text",    "75  stopped"};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        if (!strstr(text, wanted[i]))
            fail_msg("--help lacks \"%s\"", wanted[i]);
    }
    free(text);
    cli_free(&cli);

    assert_int_equal(caught(STDOUT_FILENO, "--version", &cli, &text), 1);
    assert_int_equal(strncmp(text, "prog ", 5), 0);
    assert_non_null(strstr(text, rlhf_version));
    free(text);
    cli_free(&cli);
}

static void test_print_config(void **state)
{
    (void)state;
    Cli cli;
    char *text;
    assert_int_equal(caught(STDOUT_FILENO, "--model /m --print-config", &cli, &text), 1);
    assert_string_equal(text, "# folder\nmodel.path: /m\n\n# how many\nsteps: 10\n\n# hurry\n"
                              "fast: false\n");
    free(text);
    cli_free(&cli);
}

static void test_fail(void **state)
{
    (void)state;
    char *text;
    error_set(ERR_CONFIG, "one\ntwo");
    assert_int_equal(caught(STDERR_FILENO, NULL, NULL, &text), 78);
    assert_string_equal(text, "prog: error: one\nprog: error: two\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values), cmocka_unit_test(test_errors),
        cmocka_unit_test(test_help),   cmocka_unit_test(test_print_config),
        cmocka_unit_test(test_fail),
    };
    return cmocka_run_group_tests_name("cli", tests, enter, leave);
}
