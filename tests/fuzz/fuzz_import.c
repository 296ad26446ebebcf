/* fuzz_import.c - any text as a file of each public set: an error with a place, or a report in
 * which every record is either kept or dropped for a reason. */
#include "tests/fuzz/fuzz.h"

#include "common/base/error.h"
#include "common/data/import.h"

#include <string.h>

/* The first byte chooses the format, the second the options. */
static const char *const seeds[] = {
    "a {\"chosen\": \"\\n\\nHuman: q\\n\\nAssistant: a\", \"rejected\": \"\\n\\nHuman: "
    "q\\n\\nAssistant: b\"}\n",
    "b {\"prompt\": \"q\", \"response_0\": \"a\", \"response_1\": \"b\", \"better_response_id\": "
    "0, "
    "\"safer_response_id\": 1, \"is_response_0_safe\": false}\n",
    "c {\"prompt\": \"q\", \"response\": \"a\", \"is_safe\": true}\n",
    "d [{\"context\": \"q\", \"response\": \"a\", \"label\": \"Safe\"}, {\"context\": \"q\", "
    "\"response\": \"a\", "
    "\"label\": \"Unsafe\"}]",
    "e {\"prompt\": \"q\", \"response\": \"a\", \"helpfulness\": 4}\n{\"prompt\": \"q\", "
    "\"response\": \"b\", "
    "\"helpfulness\": 1}\n{\"prompt\": \"q<extra_id_1>Assistant\\nx<extra_id_1>User\\nr\", "
    "\"response\": \"b\", "
    "\"helpfulness\": 1}\n",
    "f {\"prompt\": \"q\", \"response_1\": \"a\", \"response_2\": \"b\", \"preference_strength\": "
    "-2, \"split\": \"x\"}\n",
    "g {\"context\": [{\"role\": \"user\", \"content\": \"q\"}], \"response1\": \"a\", "
    "\"response2\": \"b\", "
    "\"overall_preference\": 3}\n",
    "h {\"history\": \"q\", \"human_ref_A\": \"a\", \"human_ref_B\": \"b\", \"labels\": 1, "
    "\"score_ratio\": 2.5, "
    "\"domain\": \"d\"}\n",
    "i {\"question\": {\"full_text\": \"q\"}, \"answer_0\": \"a\", \"answer_1\": \"b\", "
    "\"score_0\": 0.5, \"score_1\": -0.5}\n",
    "j {\"info\": {\"post\": \"p\", \"title\": \"t\", \"subreddit\": \"s\"}, \"summaries\": "
    "[{\"text\": \"a\"}, "
    "{\"text\": \"b\"}], \"choice\": 1, \"extra\": {\"confidence\": 8}}\n",
    "k {\"instruction\": \"q\", \"completions\": [{\"response\": \"a\", \"overall_score\": 3}, "
    "{\"response\": \"b\", "
    "\"overall_score\": 8}, {\"response\": \"c\", \"overall_score\": 3}]}\n",
    "l {\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\", \"score_chosen\": 8, "
    "\"score_rejected\": 7.5}\n",
    "m {\"prompt\": \"q\", \"completion_a\": \"a\", \"completion_b\": \"b\", \"strength\": -1}\n",
    "n {\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\", \"subset\": \"x\"}\n",
    "o {\"instruction\": \"do\", \"input\": \"this\", \"output\": \"a\"}\n",
    "p {\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", "
    "\"value\": \"a\"}]}\n",
    "q {\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\"}\n{\"prompt\": \"q\", "
    "\"chosen\": \"b\", \"rejected\": \"a\"}\n",
};

const char *const fuzz_words[] = {
    FUZZ_ROW_VALUES,
    "-3", "0", "<extra_id_1>", "<extra_id_1>User\\n", "1e300", "0.25", NULL,
};

bool fuzz_seed(int k, Str *out)
{
    return fuzz_seed_text(seeds, sizeof seeds / sizeof *seeds, k, out);
}

static void check_report(ImportReport *r)
{
    int64_t made = r->n_kept, strengths = 0;
    Str text = {0};
    for (int d = 0; d < DROP_COUNT; d++) {
        CHECK(r->dropped[d] >= 0, "drop %d", d);
        made += r->dropped[d];
    }
    for (int s = 0; s < STRENGTH_COUNT; s++)
        strengths += r->strength[s];
    CHECK(r->n_kept > 0 && r->chars[LENGTH_WHOLE].n == r->n_kept, "nothing kept");
    CHECK(r->kind != RECORD_PAIR || strengths == r->n_kept, "strengths");
    CHECK(strcmp(r->format, "helpsteer") == 0 || made >= r->n_read, "%lld rows, %lld records",
          (long long)r->n_read, (long long)made);
    import_report_print(r, &text);
    str_clear(&text);
    import_report_json(r, &text);
    Json *j;
    CHECK(json_parse(&j, text.s, text.n, "report", 1) == 0, "%s", error_text());
    json_free(j);
    str_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    ImportReport r;
    int n_formats = 0;
    if (n < 2)
        return 0;
    while (importers[n_formats].name)
        n_formats++;
    const Importer *imp = &importers[(data[0] - 'a' + 256) % n_formats];
    const unsigned bits = data[1] & 15;
    const ImportOptions o = {
        .on_bad = bits & 1 ? BAD_ROW_SKIP : BAD_ROW_ERROR,
        .task = bits & 2 && (imp->flags & IMPORT_TASK) ? TASK_SAFETY : TASK_HELPFUL,
        .pairs = imp->flags & IMPORT_SCORED ? (ImportPairs)((bits >> 1) % 3) : PAIRS_ALL,
        .min_rating = bits & 8 && (imp->flags & IMPORT_RATED) ? 1 : 0,
    };
    const char *path = fuzz_file(data + 2, n - 2);
    const int rc = import_run(imp, path, "/dev/null", &o, &r);
    if (rc == 0)
        check_report(&r);
    else
        CHECK(rc == ERR_DATA && strstr(error_text(), path), "%d: %s", rc, error_text());
    import_report_free(&r);
    return 0;
}
