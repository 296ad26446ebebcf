/* test_import.c - importers: hand-made rows with known counts, and the public files where present.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/data/import.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char dir[64], in[80], out[80], held[80];
} Folder;

static int setup(void **state)
{
    static Folder f;
    strcpy(f.dir, "/tmp/test_import.XXXXXX");
    if (!mkdtemp(f.dir))
        return -1;
    snprintf(f.in, sizeof f.in, "%s/in.jsonl", f.dir);
    snprintf(f.out, sizeof f.out, "%s/out.jsonl", f.dir);
    snprintf(f.held, sizeof f.held, "%s/held.jsonl.zst", f.dir);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    return dir_remove(((Folder *)*state)->dir);
}

static void put(const char *path, const char *text)
{
    assert_int_equal(file_write_atomic(path, text, strlen(text)), 0);
}

static void assert_report_has(const ImportReport *r, const char *line)
{
    Str s = {0};
    import_report_print(r, &s);
    if (!strstr(str_get(&s), line))
        fail_msg("'%s' is not in the report:\n%s", line, str_get(&s));
    str_free(&s);
}

static void test_hh_rows(void **state)
{
    Folder *f = *state;
    ImportReport r;
    RecordSet s = {0};
    put(f->in, "{\"chosen\":\"\\n\\nHuman: q\\n\\nAssistant: ab\",\"rejected\":\"\\n\\nHuman: "
               "q\\n\\nAssistant: abc\"}\n"
               "{\"chosen\":\"\\n\\nHuman: q\\n\\nAssistant: ab\",\"rejected\":\"\\n\\nHuman: "
               "q\\n\\nAssistant: abc \"}\n"
               "{\"chosen\":\"\\n\\nHuman: q\\n\\nAssistant: a\",\"rejected\":\"\\n\\nHuman: "
               "q\\n\\nAssistant: a\"}\n"
               "{\"chosen\":\"\\n\\nHuman: q\\n\\nAssistant: \",\"rejected\":\"\\n\\nHuman: "
               "q\\n\\nAssistant: a\"}\n"
               "{\"chosen\":\"\\n\\nHuman: q\\n\\nAssistant: a\",\"rejected\":\"\\n\\nHuman: "
               "z\\n\\nAssistant: b\"}\n"
               "{\"chosen\":\"\\n\\nHuman: q\\n\\nAssistant: "
               "\xc3\xa9\",\"rejected\":\"\\n\\nHuman: q\\n\\nAssistant: b\"}\n"
               "{\"chosen\":\"\\n\\nHuman: q\\n\\nAssistant: a\"}\n");
    const Importer *hh = importer_find("hh-rlhf");
    assert_int_equal(import_run(hh, f->in, f->out, NULL, 0, true, BAD_ROW_ERROR, &r), ERR_DATA);
    assert_non_null(strstr(error_text(), "in.jsonl:7: rejected: missing"));
    assert_false(file_exists(f->out)); /* nothing half-written */

    assert_int_equal(import_run(hh, f->in, f->out, NULL, 0, true, BAD_ROW_SKIP, &r), 0);
    assert_int_equal(r.n_read, 7);
    assert_int_equal(r.n_kept, 2);
    assert_int_equal(r.n_duplicate, 1); /* the second, blanks aside */
    assert_int_equal(r.n_identical, 1);
    assert_int_equal(r.n_empty, 1);
    assert_int_equal(r.n_no_common_prompt, 1);
    assert_int_equal(r.n_bad, 1);
    assert_int_equal(r.chars[1].sum, 2 + 1); /* "ab" and one e with an accent */
    assert_int_equal(r.chars[2].max, 3);
    assert_report_has(&r, "kept      2 preference records\n");
    assert_report_has(&r, "no common prompt");

    assert_int_equal(record_set_read(&s, f->out, RECORD_PAIR, BAD_ROW_ERROR), 0);
    assert_int_equal(s.n, 2);
    assert_true(s.at[0].tagged);
    assert_string_equal(s.at[0].source, "hh-rlhf");
    assert_string_equal(s.at[0].text[1], "abc");
    record_set_free(&s);
}

static void test_ours(void **state)
{
    Folder *f = *state;
    ImportReport r;
    const Importer *ours = importer_find("ours");
    put(f->in, "{\"prompt\":\"p\",\"chosen\":\"a\",\"rejected\":\"b\",\"strength\":\"slight\","
               "\"chosen_safe\":true,"
               "\"rejected_safe\":false}\n"
               "{\"prompt\":\"p\",\"chosen\":\"c\",\"rejected\":\"b\",\"chosen_safe\":false,"
               "\"rejected_safe\":true}\n"
               "{\"prompt\":\"p\",\"chosen\":\"d\",\"rejected\":\"b\",\"chosen_safe\":false,"
               "\"rejected_safe\":false}\n"
               "{\"prompt\":\"p\",\"chosen\":\"f\",\"rejected\":\"b\",\"chosen_safe\":false,"
               "\"rejected_safe\":false}\n"
               "{\"prompt\":\"p\",\"chosen\":\"e\",\"rejected\":\"b\",\"chosen_safe\":true}\n");
    assert_int_equal(import_run(ours, f->in, f->out, NULL, 0, false, BAD_ROW_ERROR, &r), 0);
    assert_int_equal(r.strength[STRENGTH_SLIGHT], 1);
    assert_int_equal(r.strength[STRENGTH_UNKNOWN], 4);
    static const int64_t bins[4] = {1, 0, 2, 1}; /* the last row has one label only */
    assert_memory_equal(r.safety_bins, bins, sizeof bins);
    assert_report_has(&r, "chosen unsafe, rejected safe         1\n");

    put(f->in, "{\"prompt\":\"p\",\"chosen\":\"a\",\"rejected\":\"b\"}\n{\"prompt\":\"p\"}\n");
    assert_int_equal(import_run(ours, f->in, f->out, NULL, 0, false, BAD_ROW_ERROR, &r), ERR_DATA);
    assert_non_null(strstr(error_text(), "in.jsonl:2: a prompt record among preference records"));
    assert_null(importer_find("nothing"));
}

static void test_small_formats(void **state)
{
    Folder *f = *state;
    ImportReport r;
    RecordSet s = {0};
    put(f->in, "[{\"context\":\"c\",\"response\":\"r\",\"category\":\"x\",\"label\":\"Safe\"},\n"
               "{\"context\":\"c\",\"response\":\"s\",\"category\":\"x\",\"label\":\"Unsafe\"}]");
    assert_int_equal(
        import_run(importer_find("diasafety"), f->in, f->out, NULL, 0, false, BAD_ROW_ERROR, &r),
        0);
    assert_int_equal(record_set_read(&s, f->out, RECORD_LABELLED, BAD_ROW_ERROR), 0);
    assert_int_equal(s.at[0].safety[0], SAFETY_SAFE);
    assert_int_equal(s.at[1].safety[0], SAFETY_UNSAFE);
    assert_string_equal(s.at[1].text[0], "s");
    record_set_free(&s);

    put(f->in, "{\"prompt\":\"p\",\"completion_a\":\"a\",\"completion_b\":\"b\",\"strength\":-2}\n"
               "{\"prompt\":\"p\",\"completion_a\":\"a\",\"completion_b\":\"b\",\"strength\":0}\n"
               "{\"prompt\":\"p\",\"completion_a\":\"a\",\"completion_b\":\"b\",\"strength\":1}\n");
    assert_int_equal(import_run(importer_find("tulu-human-pref"), f->in, f->out, NULL, 0, false,
                                BAD_ROW_ERROR, &r),
                     0);
    assert_int_equal(r.n_tie, 1);
    assert_int_equal(record_set_read(&s, f->out, RECORD_PAIR, BAD_ROW_ERROR), 0);
    assert_string_equal(s.at[0].text[0], "b"); /* below 0: b is better */
    assert_int_equal(s.at[0].strength, STRENGTH_BETTER);
    assert_string_equal(s.at[1].text[0], "a");
    assert_int_equal(s.at[1].strength, STRENGTH_SLIGHT);
    record_set_free(&s);

    put(f->in, "{\"instruction\":\"do\",\"input\":\"this\",\"output\":\"done\"}\n");
    assert_int_equal(
        import_run(importer_find("alpaca"), f->in, f->out, NULL, 0, false, BAD_ROW_ERROR, &r), 0);
    assert_int_equal(record_set_read(&s, f->out, RECORD_SFT, BAD_ROW_ERROR), 0);
    assert_string_equal(s.at[0].messages[0].text, "do\n\nthis");
    record_set_free(&s);
}

/* ---- public files. Expected numbers: counted from the files by a few lines of Python (split at
 * "\n\nHuman:" and "\n\nAssistant:", strip, join turns of one speaker, compare). */

static void need_file(const char *path)
{
    if (!file_exists(path))
        skip();
}

static void check_hh(Folder *f, const char *path, const int64_t expected[8])
{
    ImportReport r;
    RecordSet train = {0}, held = {0};
    need_file(path);
    assert_int_equal(
        import_run(importer_find("hh-rlhf"), path, f->out, f->held, 10, false, BAD_ROW_ERROR, &r),
        0);
    const int64_t found[8] = {r.n_read,       r.n_kept,       r.n_identical,  r.n_empty,
                              r.chars[0].sum, r.chars[1].sum, r.chars[2].sum, r.n_turns};
    for (int i = 0; i < 8; i++)
        if (found[i] != expected[i])
            fail_msg("%s: number %d is %lld, expected %lld", path, i, (long long)found[i],
                     (long long)expected[i]);
    assert_int_equal(r.n_read, r.n_kept + r.n_identical + r.n_empty);

    /* One tenth of the prompts, sd of the count sqrt(2348 * 0.1 * 0.9) = 14.5: five of them around
     * 235. And the two sides share no prompt. */
    assert_true(r.n_held_out > 160 && r.n_held_out < 310);
    assert_int_equal(record_set_read(&train, f->out, RECORD_PAIR, BAD_ROW_ERROR), 0);
    assert_int_equal(record_set_read(&held, f->held, RECORD_PAIR, BAD_ROW_ERROR), 0);
    assert_int_equal(train.n + held.n, r.n_kept);
    assert_int_equal(held.n, r.n_held_out);
    assert_int_equal(record_check_overlap(&train, "train", &held, "held out"), 0);
    record_set_free(&train);
    record_set_free(&held);
}

static void test_hh_helpful(void **state)
{
    static const int64_t n[8] = {2354, 2348, 2, 4, 1147434, 577004, 436412, 5807};
    check_hh(*state, "../shared/data/hh_rlhf/helpful-base.test.jsonl.gz", n);
}

static void test_hh_harmless(void **state)
{
    static const int64_t n[8] = {2312, 2308, 0, 4, 998315, 386280, 485652, 5751};
    check_hh(*state, "../shared/data/hh_rlhf/harmless-base.test.jsonl.gz", n);
}

static void test_other_files(void **state)
{
    Folder *f = *state;
    ImportReport r;
    RecordSet s = {0};
    need_file("../shared/data/README.md");
    assert_int_equal(import_run(importer_find("tulu-human-pref"),
                                "../shared/data/tulu_human_pref/tulu_human_pref.jsonl", f->out,
                                NULL, 0, false, BAD_ROW_SKIP, &r),
                     0);
    assert_int_equal(r.n_read, 1150);
    assert_int_equal(r.n_tie, 376);
    /* 774 rated rows, counted as above: 63 repeat another in words and answers, 1 has equal answers
     */
    assert_int_equal(r.n_duplicate, 63);
    assert_int_equal(r.n_identical, 1);
    assert_int_equal(r.strength[STRENGTH_BETTER], 325);
    assert_int_equal(r.strength[STRENGTH_SLIGHT], 385);

    static const struct {
        const char *path;
        int64_t n;
    } dia[] = {{"../shared/data/diasafety/train.json", 9017},
               {"../shared/data/diasafety/test.json", 1095}};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(import_run(importer_find("diasafety"), dia[i].path, f->out, NULL, 0, true,
                                    BAD_ROW_ERROR, &r),
                         0);
        assert_int_equal(r.n_read, dia[i].n);
        assert_int_equal(r.n_kept, r.n_safe + r.n_unsafe);
    }
    assert_int_equal(import_run(importer_find("alpaca"), "../shared/data/sft/alpaca_en_demo.json",
                                f->out, NULL, 0, false, BAD_ROW_ERROR, &r),
                     0);
    assert_int_equal(r.n_read, 999);
    assert_int_equal(
        record_set_read(&s, "../shared/data/sft/dpo_en_demo.json", RECORD_PAIR, BAD_ROW_SKIP), 0);
    assert_int_equal(s.n + s.n_bad, 300);
    assert_true(s.n > 280);
    record_set_free(&s);
    assert_int_equal(
        record_set_read(&s, "../shared/data/sft/v1_sft_demo.jsonl", RECORD_SFT, BAD_ROW_SKIP), 0);
    assert_int_equal(s.n + s.n_bad, 500);
    record_set_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_hh_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ours, setup, teardown),
        cmocka_unit_test_setup_teardown(test_small_formats, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hh_helpful, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hh_harmless, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_files, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
