/* fuzz_records.c - any text as a record of any kind: it is refused with one line that names a place
 * in the text, or it is a record whose canonical form reads back as itself. */
#include "tests/fuzz/fuzz.h"

#include "common/base/error.h"
#include "common/data/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const seeds[] = {
    "{\"text\": \"once\"}",
    "{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\", \"strength\": \"slight\", "
    "\"margin\": 0.5, "
    "\"chosen_safe\": true, \"rejected_safe\": false, \"tags\": [\"safety\"], \"weight\": 2, "
    "\"source\": \"s\"}",
    "{\"chosen\": \"one two three\", \"rejected\": \"one two four\", \"id\": 7}",
    "{\"chosen\": \"\\n\\nHuman: q\\n\\nAssistant: x\\n\\nHuman: r\\n\\nAssistant: a\", "
    "\"rejected\": "
    "\"\\n\\nHuman: q\\n\\nAssistant: x\\n\\nHuman: r\\n\\nAssistant: b\"}",
    "{\"chosen\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "
    "\"content\": \"a\"}], "
    "\"rejected\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "
    "\"content\": \"b\"}]}",
    "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": "
    "[{\"type\": "
    "\"text\", \"text\": \"q\"}]}, {\"role\": \"assistant\", \"content\": \"\\u00e9\xc3\xa9\"}]}",
    "{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", \"value\": "
    "\"a\"}], "
    "\"system\": \"s\"}",
    "{\"instruction\": \"do\", \"input\": \"this\", \"output\": \"done\", \"history\": [[\"x\", "
    "\"y\"]]}",
    "{\"prompt\": [{\"role\": \"user\", \"content\": \"q\"}], \"completion\": \"a\", \"label\": "
    "true}",
    "{\"prompt\": \"q\", \"response\": \"a\", \"is_safe\": false}",
    "{\"completion\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "
    "\"content\": \"a\"}], "
    "\"label\": false}",
};

const char *const fuzz_words[] = {
    FUZZ_ROW_VALUES,
    "\"prompt\":", "\"chosen\":", "\"rejected\":", "\"messages\":", "\"conversations\":",
    "\"completion\":", "\"response\":", "\"instruction\":", "\"input\":", "\"output\":",
    "\"history\":", "\"system\":", "\"label\":", "\"is_safe\":", "\"role\":", "\"content\":",
    "\"from\":", "\"value\":", "\"user\"", "\"assistant\"", "\"system\"", "\"margin\":", "\"id\":",
    "\"tags\":", "\"tools\":", "1e400", "99999999999999999999", "-0", "\\", "\\ud83d\\ude00",
    "\\ud800", "\\n", " ", "\xef\xbb\xbf", "\xc3", "[[[[[[[[", NULL,
};

bool fuzz_seed(int k, Str *out)
{
    return fuzz_seed_text(seeds, sizeof seeds / sizeof *seeds, k, out);
}

/* "f:LINE:COLUMN: ..." with a place inside the text, on one line. */
static void check_message(const char *text, size_t n)
{
    long long line, column, lines = 1;
    CHECK(sscanf(error_text(), "f:%lld:%lld: ", &line, &column) == 2, "no place: %s", error_text());
    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    CHECK(line >= 1 && line <= lines && column >= 1 && column <= (long long)n + 2, "place: %s",
          error_text());
    CHECK(!strchr(error_text(), '\n') || strstr(error_text(), "not valid JSON"), "lines: %s",
          error_text());
}

static void check_back(const Record *r)
{
    Str first = {0}, second = {0};
    Record again;
    Json *j;
    RecordFault fault;
    record_write(r, &first);
    const JsonSource from = {"f", 1, 1, first.s, first.n};
    CHECK(json_parse_at(&j, &from) == 0, "written: %s: %s", first.s, error_text());
    CHECK(record_parse_at(&again, j, r->kind, &from, &fault) == 0, "written: %s: %s", first.s,
          error_text());
    record_write(&again, &second);
    CHECK(first.n == second.n && !memcmp(first.s, second.s, first.n), "%s\n%s", first.s, second.s);
    CHECK(again.prompt_hash == r->prompt_hash && again.id == r->id, "%s", first.s);
    CHECK(record_kind_of(j) == r->kind, "written as another kind: %s", first.s);
    json_free(j);
    record_free(&again);
    str_free(&first);
    str_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *text = (const char *)data;
    const JsonSource from = {"f", 1, 1, text, n};
    Json *j;
    if (json_parse_at(&j, &from) < 0) {
        check_message(text, n);
        return 0;
    }
    for (RecordKind kind = RECORD_TEXT; kind <= RECORD_LABELLED && json_kind(j) == JSON_OBJ;
         kind++) {
        Record r;
        RecordFault fault;
        if (record_parse_at(&r, j, kind, &from, &fault) < 0) {
            CHECK(fault != FAULT_NONE && !r.messages && !r.text[0], "left behind: %s",
                  error_text());
            check_message(text, n);
            continue;
        }
        check_back(&r);
        record_free(&r);
    }
    json_free(j);
    return 0;
}
