/* test_run_plan.c - the plan of a run: through its file and back, how many checkpoints lie on a disk at a time,
 * and what is no plan. */
#include "common/train/run_plan.h"

#include "common/base/error.h"
#include "common/base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[] = "/tmp/test_run_plan.XXXXXX";

static void checkpoints_on_disk(void **state)
{
    (void)state;
    RunPlan p = {.checkpoint = 100, .keep = 3, .save_steps = 500, .steps = 100};
    assert_true(run_plan_checkpoints(&p) == 1); /* none is due; a signal makes one */
    p.steps = 1001;                             /* after 500 and 1000, and one being written */
    assert_true(run_plan_checkpoints(&p) == 3);
    p.steps = 1000; /* the last step's weights are the export */
    assert_true(run_plan_checkpoints(&p) == 2);
    p.steps = 1e6;
    assert_true(run_plan_checkpoints(&p) == 4);
    p.keeps_best = true;
    assert_true(run_plan_checkpoints(&p) == 5);
    p.save_steps = 0;
    assert_true(run_plan_checkpoints(&p) == 2);
    run_plan_disk(&p, "export", 1000, true);
    assert_true(run_plan_disk_bytes(&p) == 1200);
    p.checkpoint = 0; /* a tool that saves nothing */
    assert_true(run_plan_disk_bytes(&p) == 1000);
    run_plan_free(&p);
}

static void there_and_back(void **state)
{
    (void)state;
    RunPlan p = {.program = strdup("rlhf-sft"), .out = strdup("runs/\"x\""), .device = strdup("cpu"),
                 .device_text = strdup("cpu, 1 thread"), .threads = 2, .isa = 3, .dtype = 1, .recompute = 2, .have = 1e10,
                 .micro_batch_tokens = 4096, .steps = 12.5, .checkpoint = 7, .save_steps = 500, .keep = 3,
                 .keeps_best = true, .answer_tokens = 9.25};
    RunPlan q;
    Work w = {.kind = WORK_DECODE, .model = (char *)"m", .scalar = true, .tokens = 1, .rows = 2, .sequences = 3,
              .answers = 4, .max_new = 5, .calls = 6, .slots = 7, .params = 8};
    Work nothing = {.kind = WORK_TRAIN, .model = (char *)"m", .sequences = 3};
    MadeData d = {.records = 10, .prompt_tokens = 11, .answer_tokens = 12, .max_new = 13};
    char *path = path_join(dir, "plan.json");
    run_plan_work(&p, &w);
    run_plan_work(&p, &nothing);
    run_plan_work_times(&p, &w, 2);
    run_plan_disk(&p, "export", 99, false);
    run_plan_data(&p, "a.jsonl", &d);
    assert_int_equal(run_plan_write(&p, path), 0);
    assert_int_equal(run_plan_read(&q, path), 0);
    assert_string_equal(q.program, "rlhf-sft");
    assert_string_equal(q.out, "runs/\"x\"");
    assert_string_equal(q.device_text, "cpu, 1 thread");
    assert_true(q.threads == 2 && q.isa == 3 && q.dtype == 1 && q.recompute == 2 && q.have == 1e10 && q.steps == 12.5);
    assert_true(q.checkpoint == 7 && q.save_steps == 500 && q.keep == 3 && q.keeps_best && q.answer_tokens == 9.25);
    assert_int_equal(q.n_work, 2);
    Work *v = &q.work[0];
    assert_true(v->kind == WORK_DECODE && v->scalar && v->tokens == 1 && v->rows == 2 && v->sequences == 3);
    assert_true(v->answers == 4 && v->max_new == 5 && v->calls == 6 && v->slots == 7 && v->params == 8);
    v = &q.work[1]; /* counts are multiplied; sizes are not */
    assert_true(v->tokens == 2 && v->rows == 4 && v->sequences == 6 && v->answers == 8 && v->calls == 12);
    assert_true(v->max_new == 5 && v->slots == 7 && v->params == 8);
    assert_int_equal(q.n_disk, 2); /* the export, and 10 records of 11 + 12 tokens */
    assert_true(q.disk[1].bytes == 10 * (200 + 5 * 23) && !q.disk[1].exact);
    assert_true(q.disk[0].bytes == 99 && !q.disk[0].exact && !strcmp(q.disk[0].what, "export"));
    assert_int_equal(q.n_data, 1);
    assert_true(q.data[0].records == 10 && q.data[0].answer_tokens == 12 && !strcmp(q.data[0].path, "a.jsonl"));
    run_plan_free(&p);
    run_plan_free(&q);
    run_plan_free(&q); /* twice is fine */
    free(path);
}

static void what_is_no_plan(void **state)
{
    (void)state;
    static const char *const texts[] = {"{}", "[]", "{\"program\": 1}"};
    char *path = path_join(dir, "other.json");
    RunPlan p;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_int_equal(file_write_atomic(path, texts[i], strlen(texts[i])), 0);
        assert_int_equal(run_plan_read(&p, path), ERR_DATA);
        assert_non_null(strstr(error_text(), "other.json: no plan of a run"));
    }
    free(path);
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checkpoints_on_disk),
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(what_is_no_plan),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
