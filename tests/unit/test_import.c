/* test_import.c - imports as a whole: what is kept and counted, options, overlap, the report, and
 * the public files where present. The sets one by one: test_import_sets.c. */
#include "tests/unit/import_fixture.h"

static void assert_report_has(ImportReport *r, const char *line)
{
    Str s = {0};
    import_report_print(r, &s);
    if (!strstr(str_get(&s), line))
        fail_msg("'%s' is not in the report:\n%s", line, str_get(&s));
    str_free(&s);
}

#define HH(q, a) "'\\n\\nHuman: " q "\\n\\nAssistant: " a "'"

static void test_hh_rows(void **state)
{
    Folder *f = *state;
    ImportReport r;
    static const char
        rows[] =
            "{'chosen':" HH("q", "ab") ",'rejected':" HH(
                "q",
                "abc") "}\n"
                       "{'chosen':" HH("q", "ab") ",'rejected':" HH(
                           "q",
                           "abc ") "}\n"
                                   "{'chosen':" HH("q", "a") ",'rejected':" HH(
                                       "q",
                                       "a") "}\n"
                                            "{'chosen':" HH("q", "") ",'rejected':" HH(
                                                "q",
                                                "a") "}\n"
                                                     "{'chosen':" HH("q", "a") ",'rejected':" HH(
                                                         "z", "b") "}\n"
                                                                   "{'chosen':" HH("q", "\xc3\xa9") ",'rejected':" HH(
                                                                       "q",
                                                                       "b") "}\n"
                                                                            "{'chosen':" HH("q", "b") ",'rejected':" HH(
                                                                                "q",
                                                                                "\xc3\xa9") "}\n"
                                                                                            "{'"
                                                                                            "chosen"
                                                                                            "':" HH(
                                                                                                "q",
                                                                                                "a") "}\n";
    put_rows(f->in, rows);
    assert_int_equal(run(f, "hh-rlhf", (ImportOptions){0}, &r), ERR_DATA);
    assert_non_null(strstr(error_text(), "in.jsonl:8:1: rejected: missing"));
    assert_false(file_exists(f->out)); /* nothing half-written */
    import_report_free(&r);

    assert_int_equal(run(f, "hh-rlhf", (ImportOptions){.tagged = true, .on_bad = BAD_ROW_SKIP}, &r),
                     0);
    assert_int_equal(r.n_read, 8);
    assert_int_equal(r.n_kept, 3);
    assert_int_equal(r.dropped[DROP_DUPLICATE], 1); /* the second, blanks aside */
    assert_int_equal(r.dropped[DROP_IDENTICAL], 1);
    assert_int_equal(r.dropped[DROP_EMPTY], 1);
    assert_int_equal(r.dropped[DROP_NO_COMMON_PROMPT], 1);
    assert_int_equal(r.dropped[DROP_BAD_ROW], 1);
    assert_int_equal(r.n_contradict, 1); /* the seventh turns the sixth round */
    assert_int_equal(r.n_prompts, 1);
    assert_int_equal(r.chars[LENGTH_ANSWER].at[1], 1); /* one e with an accent */
    assert_report_has(&r, "kept      3 preference records\n");
    assert_report_has(&r, "no common prompt");
    assert_report_has(&r, "the first bad row: ");
    assert_report_has(&r, "contradict an earlier record         1   33.3 %\n");
    import_report_free(&r);

    RecordSet s = {0};
    assert_int_equal(record_set_read(&s, f->out, RECORD_PAIR, BAD_ROW_ERROR), 0);
    assert_int_equal(s.n, 3);
    assert_true(s.at[0].tagged);
    assert_string_equal(s.at[0].source, "hh-rlhf");
    assert_string_equal(s.at[0].text[1], "abc");
    record_set_free(&s);
}

static void test_ours(void **state)
{
    Folder *f = *state;
    ImportReport r;
    put_rows(
        f->in,
        "{'prompt':'p','chosen':'a','rejected':'b','strength':'slight','margin':0.5,"
        "'chosen_safe':true,'rejected_safe':false,'source':'s'}\n"
        "{'prompt':'p','chosen':'c','rejected':'b','chosen_safe':false,'rejected_safe':true}\n"
        "{'prompt':'p','chosen':'d','rejected':'b','chosen_safe':false,'rejected_safe':false}\n"
        "{'prompt':'p','chosen':'f','rejected':'b','chosen_safe':false,'rejected_safe':false}\n"
        "{'prompt':'p','chosen':'e','rejected':'b','chosen_safe':true}\n");
    assert_int_equal(run(f, "ours", (ImportOptions){0}, &r), 0);
    assert_int_equal(r.strength[STRENGTH_SLIGHT], 1);
    assert_int_equal(r.strength[STRENGTH_UNKNOWN], 4);
    assert_int_equal(r.n_margin, 1);
    static const int64_t bins[4] = {1, 0, 2, 1}; /* the last row has one label only */
    assert_memory_equal(r.safety_bins, bins, sizeof bins);
    assert_report_has(&r, "  chosen unsafe, rejected safe         1   20.0 %  ########\n");
    assert_report_has(&r, "  without both labels                  1   20.0 %");
    assert_report_has(&r, "  with a margin of its own             1");
    import_report_free(&r);

    put_rows(f->in, "{'prompt':'p','chosen':'a','rejected':'b'}\n{'prompt':'p'}\n");
    assert_int_equal(run(f, "ours", (ImportOptions){0}, &r), ERR_DATA);
    assert_non_null(strstr(error_text(), "in.jsonl:2: a prompt record among preference records"));
    import_report_free(&r);
    assert_null(importer_find("nothing"));
}

/* ---- options */

static void assert_refused(Folder *f, const char *format, ImportOptions o, const char *error)
{
    ImportReport r;
    assert_int_equal(run(f, format, o, &r), ERR_CONFIG);
    if (!strstr(error_text(), error))
        fail_msg("found '%s', expected '%s'", error_text(), error);
    import_report_free(&r);
}

static void test_options(void **state)
{
    Folder *f = *state;
    ImportReport r;
    put_rows(f->in, "{'prompt':'p','chosen':'a','rejected':'b'}\n");
    assert_refused(f, "hh-rlhf",
                   (ImportOptions){.levels = (const double[]){3, 2, 1}, .n_levels = 3},
                   "levels: hh-rlhf rates no pairs");
    assert_refused(f, "hh-rlhf", (ImportOptions){.min_rating = 1},
                   "min_rating: hh-rlhf rates no pairs");
    assert_refused(f, "shp", (ImportOptions){.levels = (const double[]){1, 2, 3}, .n_levels = 3},
                   "levels: expected three falling numbers");
    assert_refused(f, "shp", (ImportOptions){.levels = (const double[]){2, 1}, .n_levels = 2},
                   "levels: expected three falling numbers");
    assert_refused(f, "shp", (ImportOptions){.task = TASK_SAFETY},
                   "task: shp holds one preference");
    assert_refused(f, "shp", (ImportOptions){.pairs = PAIRS_BEST_REST},
                   "pairs: shp holds pairs already");
    assert_refused(f, "shp", (ImportOptions){.held_out_every = 2}, "held_out and held_out_every");
    assert_int_equal(run(f, "ours", (ImportOptions){.split = "train"}, &r), ERR_DATA);
    assert_non_null(strstr(error_text(), "in.jsonl:1:1: split: missing"));
    import_report_free(&r);
    assert_int_equal(run(f, "shp", (ImportOptions){.on_bad = BAD_ROW_SKIP}, &r), ERR_DATA);
    assert_non_null(strstr(
        error_text(), "none of 1 rows could be kept as shp; is it the right format? The first: "));
    import_report_free(&r);
}

static void test_overlap(void **state)
{
    Folder *f = *state;
    ImportReport r;
    const char *against[1] = {f->other};
    ImportOptions o = {.against = against, .n_against = 1};
    /* records of other kinds: what counts is the prompt */
    put_rows(f->other,
             "{'prompt':'p','completion':'x'}\n{'prompt':'q','response':'x','is_safe':true}\n"
             "{'messages':[{'role':'user','content':'r'},{'role':'assistant','content':'x'}]}\n");
    put_rows(
        f->in,
        "{'prompt':'p','chosen':'a','rejected':'b'}\n{'prompt':' q','chosen':'a','rejected':'b'}\n"
        "{'prompt':'r','chosen':'a','rejected':'b'}\n{'prompt':'s','chosen':'a','rejected':'b'}\n");
    assert_int_equal(run(f, "ours", o, &r), 0);
    assert_int_equal(r.n_kept, 1);
    assert_int_equal(r.dropped[DROP_OVERLAP], 3);
    assert_report_has(&r, "  prompt stands in against             3   75.0 %\n");
    import_report_free(&r);
    o.on_overlap = OVERLAP_KEEP;
    assert_int_equal(run(f, "ours", o, &r), 0);
    assert_int_equal(r.n_kept, 4);
    assert_int_equal(r.n_overlap, 3);
    assert_report_has(&r, "  kept, stand in against               3   75.0 %\n");
    import_report_free(&r);
    o.on_overlap = OVERLAP_ERROR;
    assert_int_equal(run(f, "ours", o, &r), ERR_DATA);
    assert_non_null(
        strstr(error_text(), "in.jsonl:1: its prompt also stands in a file of against"));
    import_report_free(&r);
    put_rows(f->other, "{'prompt':'p'}\n{'prompt':5}\n");
    assert_int_equal(run(f, "ours", o, &r), ERR_DATA);
    assert_non_null(strstr(error_text(), "other.jsonl:2:11: prompt: found an integer"));
    import_report_free(&r);
}

/* Lengths 1..100 of the answers: quantiles by their definition, in both forms of the report. */
static void test_report(void **state)
{
    Folder *f = *state;
    ImportReport r;
    Str rows = {0}, text = {0};
    for (int i = 100; i >= 1; i--)
        str_addf(&rows, "{\"prompt\":\"pp\",\"response\":\"%0*d\",\"is_safe\":%s}\n", i, 0,
                 i % 4 ? "false" : "true");
    put(f->in, rows.s);
    str_free(&rows);
    assert_int_equal(run(f, "ours", (ImportOptions){0}, &r), 0);
    assert_report_has(
        &r, "  answer                             50.5        50        90        99       100\n");
    assert_report_has(
        &r, "  prompt and answer                  52.5        52        92       101       102\n");
    assert_report_has(&r, "  safe                                25   25.0 %  ##########\n");
    import_report_json(&r, &text);
    Json *j;
    assert_int_equal(json_parse(&j, text.s, text.n, "report", 1), 0);
    assert_string_equal(json_str(json_get(j, "kind")), "labelled");
    assert_int_equal(json_int(json_get(j, "kept"), -1), 100);
    assert_int_equal(json_int(json_get(json_get(j, "label"), "unsafe"), -1), 75);
    assert_int_equal(json_int(json_get(json_get(j, "dropped"), "duplicate"), -1), 0);
    assert_int_equal(json_int(json_get(json_get(json_get(j, "chars"), "answer"), "p90"), -1), 90);
    assert_true(json_num(json_get(json_get(json_get(j, "chars"), "whole"), "mean"), 0) == 52.5);
    assert_null(json_get(j, "tokens"));
    json_free(j);
    str_free(&text);
    import_report_free(&r);

    /* in tokens: every character is one for this tokenizer, but words it knows are one as well */
    ImportOptions o = {0};
    assert_int_equal(tokenizer_open(&o.tokenizer, "tests/golden/text/words"), 0);
    put_rows(f->in, "{'prompt':'hello there','response':'hello','is_safe':true}\n");
    assert_int_equal(run(f, "ours", o, &r), 0);
    IdList ids = {0};
    assert_int_equal(tokenizer_encode(o.tokenizer, "hello there", 11, true, &ids), 0);
    assert_int_equal(r.tokens[LENGTH_PROMPT].at[0], ids.n);
    assert_int_equal(r.chars[LENGTH_PROMPT].at[0], 11);
    assert_true(ids.n < 11);
    assert_report_has(&r, "length in tokens, no template ");
    id_list_free(&ids);
    import_report_free(&r);
    tokenizer_close(o.tokenizer);
}

/* ---- public files. Expected numbers: tests/golden/count_data.py, which shares nothing with us. */

static void need_file(const char *path)
{
    if (!file_exists(path))
        skip();
}

static int64_t sum_of(const ImportLengths *l)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < l->n; i++)
        sum += l->at[i];
    return sum;
}

static void check_hh(Folder *f, const char *path, const int64_t expected[8])
{
    ImportReport r;
    RecordSet train = {0}, held = {0};
    need_file(path);
    const ImportOptions o = {.held_out = f->held, .held_out_every = 10};
    assert_int_equal(import_run(importer_find("hh-rlhf"), path, f->out, &o, &r), 0);
    const int64_t found[8] = {r.n_read,
                              r.n_kept,
                              r.dropped[DROP_IDENTICAL],
                              r.dropped[DROP_EMPTY],
                              sum_of(&r.chars[LENGTH_PROMPT]),
                              sum_of(&r.chars[LENGTH_ANSWER]),
                              sum_of(&r.chars[LENGTH_REJECTED]),
                              r.n_turns};
    for (int i = 0; i < 8; i++)
        if (found[i] != expected[i])
            fail_msg("%s: number %d is %lld, expected %lld", path, i, (long long)found[i],
                     (long long)expected[i]);
    assert_int_equal(r.n_read, r.n_kept + r.dropped[DROP_IDENTICAL] + r.dropped[DROP_EMPTY]);

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
    import_report_free(&r);
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

typedef struct {
    const char *file;
    bool against;  /* the test file, as it was imported last */
    int64_t n[11]; /* read, kept, empty, duplicate, overlap, safe, unsafe, prompts, contradict,
                      characters */
} DiaSafety;

static void check_diasafety(Folder *f, const DiaSafety *d)
{
    ImportReport r;
    char path[96];
    const char *against[1] = {f->other};
    snprintf(path, sizeof path, "../shared/data/diasafety/%s.json", d->file);
    const ImportOptions o = {.against = against, .n_against = d->against, .tagged = true};
    const char *out = strcmp(d->file, "test") ? f->out : f->other;
    assert_int_equal(import_run(importer_find("diasafety"), path, out, &o, &r), 0);
    const int64_t found[11] = {r.n_read,
                               r.n_kept,
                               r.dropped[DROP_EMPTY],
                               r.dropped[DROP_DUPLICATE],
                               r.dropped[DROP_OVERLAP],
                               r.n_safe,
                               r.n_unsafe,
                               r.n_prompts,
                               r.n_contradict,
                               sum_of(&r.chars[LENGTH_PROMPT]),
                               sum_of(&r.chars[LENGTH_ANSWER])};
    for (int i = 0; i < 11; i++)
        if (found[i] != d->n[i])
            fail_msg("%s: number %d is %lld, expected %lld", path, i, (long long)found[i],
                     (long long)d->n[i]);
    import_report_free(&r);
}

static void test_diasafety(void **state)
{
    static const DiaSafety files[] = {
        {"test", false, {1095, 1094, 1, 0, 0, 593, 501, 1045, 0, 116204, 84182}},
        {"val", false, {1097, 1097, 0, 0, 0, 595, 502, 1029, 0, 116627, 85218}},
        {"train", false, {9017, 9014, 2, 1, 0, 4836, 4178, 6509, 1, 970251, 706736}},
        {"train", true, {9017, 8076, 2, 1, 938, 4157, 3919, 6093, 1, 854086, 628512}},
    };
    need_file("../shared/data/diasafety/train.json");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        check_diasafety(*state, &files[i]);
}

static void test_other_files(void **state)
{
    Folder *f = *state;
    ImportReport r;
    RecordSet s = {0};
    need_file("../shared/data/README.md");
    const ImportOptions skip_bad = {.on_bad = BAD_ROW_SKIP}, strict = {0};
    assert_int_equal(import_run(importer_find("tulu-human-pref"),
                                "../shared/data/tulu_human_pref/tulu_human_pref.jsonl", f->out,
                                &skip_bad, &r),
                     0);
    assert_int_equal(r.n_read, 1150);
    assert_int_equal(r.dropped[DROP_TIE], 376);
    /* 774 rated rows, counted as above: 63 repeat another in words and answers, 1 has equal answers
     */
    assert_int_equal(r.dropped[DROP_DUPLICATE], 63);
    assert_int_equal(r.dropped[DROP_IDENTICAL], 1);
    assert_int_equal(r.strength[STRENGTH_BETTER], 325);
    assert_int_equal(r.strength[STRENGTH_SLIGHT], 385);
    import_report_free(&r);

    assert_int_equal(import_run(importer_find("alpaca"), "../shared/data/sft/alpaca_en_demo.json",
                                f->out, &strict, &r),
                     0);
    assert_int_equal(r.n_read, 999);
    import_report_free(&r);
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
        cmocka_unit_test_setup_teardown(test_options, setup, teardown),
        cmocka_unit_test_setup_teardown(test_overlap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_report, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hh_helpful, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hh_harmless, setup, teardown),
        cmocka_unit_test_setup_teardown(test_diasafety, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_files, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
