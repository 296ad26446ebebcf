/* test_demo.c - the subcommands of rlhf-demo from end to end on a small world: answers of three
 * qualities play the three versions; bad input is refused with the documented exit codes. */
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/data/rows.h"
#include "rlhf/demo/demo.h"
#include "rlhf/demo/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[64];

/* rlhf-demo WORD ...; the words end with NULL and may hold one %s for the folder. */
static int demo(const char *command, ...)
{
    char *argv[24] = {"rlhf-demo", (char *)(uintptr_t)command};
    int argc = 2;
    va_list ap;
    va_start(ap, command);
    for (const char *a; (a = va_arg(ap, const char *));) {
        const char *at = strstr(a, "%s");
        argv[argc++] = at ? xasprintf("%.*s%s%s", (int)(at - a), a, dir, at + 2) : xstrdup(a);
    }
    va_end(ap);
    int rc = demo_main(argc, argv);
    for (int i = 2; i < argc; i++)
        free(argv[i]);
    return rc;
}

static void write_text(const char *name, const char *text)
{
    char *path = path_join(dir, name);
    assert_int_equal(file_write_atomic(path, text, strlen(text)), 0);
    free(path);
}

static char *read_text(const char *name)
{
    char *path = path_join(dir, name), *text;
    size_t n;
    assert_int_equal(file_read(path, &text, &n), 0);
    free(path);
    return text;
}

static int count_lines(const char *name)
{
    char *text = read_text(name);
    int n = 0;
    for (char *c = text; *c; c++)
        n += *c == '\n';
    free(text);
    return n;
}

/* What a model of this quality could answer, two samples a prompt. */
static void write_samples(const char *prompts, const char *name, const WorldQuality *q, uint64_t seed)
{
    char *path = path_join(dir, prompts);
    Rows rows = {0};
    const Json *j;
    Str out = {0}, answer = {0};
    JsonWriter w;
    assert_int_equal(rows_open(&rows, path), 0);
    for (uint64_t i = 0; rows_next(&rows, &j) > 0; i++) {
        WorldPrompt p;
        Phrase a;
        assert_int_equal(world_parse(&p, json_str(json_get(j, "prompt"))), 0);
        for (uint32_t k = 0; k < 2; k++) {
            Rng r = rng_make(seed, RNG_TEST, 0, i, k);
            world_demonstrate(&a, &p, q, &r);
            str_clear(&answer);
            phrase_write(&answer, &a);
            jw_init(&w, &out, false);
            jw_object(&w);
            jw_kstr(&w, "id", json_str(json_get(j, "id")));
            jw_kstr(&w, "prompt", json_str(json_get(j, "prompt")));
            jw_kint(&w, "sample", k);
            jw_kstr(&w, "answer", str_get(&answer));
            jw_kbool(&w, "finished", true);
            jw_knum(&w, "kl", .25);
            jw_object_end(&w);
            str_add(&out, "\n");
        }
    }
    rows_close(&rows);
    write_text(name, str_get(&out));
    str_free(&out);
    str_free(&answer);
    free(path);
}

static int setup(void **state)
{
    static const WorldQuality good = {.error = .1, .filler = .1};
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_demo.XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(demo("world", "%s/world", "n_base=10", "n_sft=10", "n_helpful=80", "n_safety=60",
                          "n_test=20", "n_rejection=10", "n_ppo=10", "n_eval=80", NULL), 0);
    write_samples("world/prompts_pairs.jsonl", "a.jsonl", &world_quality_sft, 1);
    write_samples("world/prompts_pairs.jsonl", "b.jsonl", &world_quality_sft, 2);
    write_samples("world/prompts_eval.jsonl", "sft.jsonl", &world_quality_sft, 3);
    write_samples("world/prompts_eval.jsonl", "rs.jsonl", &good, 4);
    write_samples("world/prompts_eval.jsonl", "ppo.jsonl", &world_quality_flawless, 5);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return dir_remove(dir);
}

static void annotate_makes_pairs(void **state)
{
    (void)state;
    assert_int_equal(demo("annotate", "a=%s/a.jsonl", "b=%s/b.jsonl", "out=%s/pairs", NULL), 0);
    Json *j;
    char *path = path_join(dir, "pairs/annotate.json");
    assert_int_equal(json_read_file(&j, path), 0);
    free(path);
    static const char *const uses[] = {"helpful", "safety", "helpful_test", "safety_test"};
    static const int prompts[] = {80, 60, 20, 20};
    for (int k = 0; k < 4; k++) {
        const Json *u = json_get(j, uses[k]);
        char *name = xasprintf("pairs/%s.jsonl", uses[k]);
        int64_t pairs = json_int(json_get(u, "pairs"), -1);
        assert_int_equal(count_lines(name), pairs);
        assert_int_equal(pairs + json_int(json_get(u, "identical"), -1) +
                             json_int(json_get(u, "empty"), -1), 2 * prompts[k]);
        free(name);
    }
    json_free(j);
    char *text = read_text("pairs/safety.jsonl");
    assert_non_null(strstr(text, "\"chosen_safe\": "));
    assert_non_null(strstr(text, "\"tags\": [\"safety\"]"));
    free(text);
    text = read_text("pairs/helpful.jsonl");
    assert_null(strstr(text, "\"chosen_safe\": "));
    assert_null(strstr(text, "\"tags\""));
    free(text);
    /* the same seed, the same judgements */
    assert_int_equal(demo("annotate", "a=%s/a.jsonl", "b=%s/b.jsonl", "out=%s/again", NULL), 0);
    char *again = read_text("again/safety.jsonl");
    text = read_text("pairs/safety.jsonl");
    assert_string_equal(text, again);
    free(text);
    free(again);
}

static void evaluate_and_report(void **state)
{
    (void)state;
    assert_int_equal(demo("evaluate", "sft=%s/sft.jsonl", "rs=%s/rs.jsonl", "ppo=%s/ppo.jsonl",
                          "out=%s/evaluation", "draws=200", NULL), 0);
    Json *j;
    char *path = path_join(dir, "evaluation/demo.json");
    assert_int_equal(json_read_file(&j, path), 0);
    free(path);
    const Json *versions = json_get(j, "versions");
    double gold[3];
    static const char *const keys[] = {"sft", "rs", "ppo"};
    for (int v = 0; v < 3; v++) {
        const Json *g = json_get(json_get(versions, keys[v]), "gold");
        gold[v] = json_num(json_get(g, "value"), -1);
        assert_true(json_num(json_get(g, "low"), 2) < gold[v] + 1e-9);
        assert_true(json_num(json_get(g, "high"), -2) > gold[v] - 1e-9);
        assert_true(json_num(json_get(json_get(json_get(versions, keys[v]), "kl"), "value"), 0) == .25);
        /* no scores were given: null, not 0 */
        assert_int_equal(json_kind(json_get(json_get(json_get(versions, keys[v]), "reward_helpful"),
                                            "value")), JSON_NIL);
    }
    assert_true(gold[0] < gold[1] && gold[1] < gold[2]);
    assert_int_equal(json_int(json_get(j, "answers"), 0), 160);
    json_free(j);
    assert_int_equal(count_lines("evaluation/generations.jsonl"), 3 * 160);
    assert_true(count_lines("evaluation/table.txt") > 40);

    write_text("reward.json", "{\"all\": {\"n\": 9, \"accuracy\": 0.75, \"low\": 0.5, \"high\": 0.9}}");
    write_text("metrics.jsonl", "{\"step\": 0, \"loss\": 2.5}\n{\"step\": 1, \"loss\": 1.5}\n");
    Str yaml = {0};
    str_addf(&yaml, "rewards: [{title: \"A & B\", path: %s/reward.json}]\n"
                    "metrics: [{title: Base, path: %s/metrics.jsonl}]\n", dir, dir);
    write_text("report.yaml", str_get(&yaml));
    str_free(&yaml);
    assert_int_equal(demo("report", "-c", "%s/report.yaml", "demo=%s/evaluation/demo.json",
                          "generations=%s/evaluation/generations.jsonl", "out=%s/html/report.html", NULL), 0);
    char *page = read_text("html/report.html");
    assert_non_null(strstr(page, "<svg"));
    assert_null(strstr(page, "A & B")); /* escaped */
    assert_null(strstr(page, "<script"));
    assert_null(strstr(page, "src=\"http")); /* self-contained */
    static const char *const balanced[][2] = {{"<table", "</table>"}, {"<tr>", "</tr>"}, {"<td", "</td>"},
                                              {"<div", "</div>"}, {"<details", "</details>"}};
    for (size_t k = 0; k < sizeof balanced / sizeof *balanced; k++) {
        int open = 0;
        for (int side = 0; side < 2; side++) {
            for (const char *c = page; (c = strstr(c, balanced[k][side])); c++)
                open += side ? -1 : 1;
        }
        assert_int_equal(open, 0);
    }
    free(page);
}

static void strict_fails_when_a_rule_does(void **state)
{
    (void)state;
    assert_int_equal(demo("evaluate", "sft=%s/rs.jsonl", "rs=%s/rs.jsonl", "ppo=%s/sft.jsonl",
                          "out=%s/strict", "draws=50", NULL), 0);
    assert_int_equal(demo("evaluate", "sft=%s/rs.jsonl", "rs=%s/rs.jsonl", "ppo=%s/sft.jsonl",
                          "out=%s/strict", "draws=50", "strict=true", NULL), 1);
}

static void bad_input_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        const char *said;
    } bad[] = {
        {"{\"prompt\": \"add 1 1\", \"answer\": \"2\", \"finished\": true}", "'id'"},
        {"{\"id\": \"helpful-0\", \"prompt\": \"add 1 1\", \"answer\": \"2\"}", "'finished'"},
        {"{\"id\": \"helpful-0\", \"prompt\": \"dance\", \"answer\": \"2\", \"finished\": true}", "dance"},
        {"{\"id\": \"x-0\", \"prompt\": \"add 1 1\", \"answer\": \"2\", \"finished\": true}", "x-0"},
        {"{\"id\": \"helpful-7777\", \"prompt\": \"add 1 1\", \"answer\": \"2\", \"finished\": true}",
         "no such answer"},
        {"{\"id\": \"helpful-0\", \"prompt\": \"add 1 1\", \"answer\": \"2\", \"finished\": true}",
         "another prompt"},
        {"not json", "bad.jsonl"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_text("bad.jsonl", bad[i].line);
        assert_int_equal(demo("annotate", "a=%s/bad.jsonl", "b=%s/b.jsonl", "out=%s/bad", NULL), 65);
        if (!strstr(error_text(), bad[i].said))
            fail_msg("'%s' does not say '%s'", error_text(), bad[i].said);
    }
    assert_int_equal(demo("evaluate", "sft=%s/none.jsonl", "rs=%s/rs.jsonl", "ppo=%s/rs.jsonl",
                          "out=%s/bad", NULL), 66);
    assert_int_equal(demo("world", NULL), 2);
    assert_int_equal(demo("world", "%s/x", "hidden_size=20", NULL), 78);
    assert_int_equal(demo("dance", NULL), 2);
    char *path = path_join(dir, "dry");
    assert_int_equal(demo("world", "%s/dry", "--dry-run", NULL), 0); /* the configuration alone */
    assert_int_equal(demo("world", "%s/dry", "--dry-run", "seed=no", NULL), 78);
    assert_false(file_exists(path));
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(annotate_makes_pairs),
        cmocka_unit_test(evaluate_and_report),
        cmocka_unit_test(strict_fails_when_a_rule_does),
        cmocka_unit_test(bad_input_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
