/* import_formats.c - one row function per public data set, and the table of them.
 *
 * A row function maps fields and counts what it drops; reading, writing, duplicates and the split
 * are import.c's. Sources of the schemas: the data sets' own cards. Tested by
 * tests/unit/test_import.c. */
#include "common/data/import.h"

#include "common/base/error.h"

#include <stdlib.h>
#include <string.h>

/* Parses `text` as a row of ours: formats whose fields map one to one are rewritten and parsed. */
static int parse_rewritten(Record *r, const Str *text, RecordKind kind, const char *file,
                           int64_t line, ImportReport *report)
{
    Json *j;
    RecordFault fault;
    int rc = json_parse(&j, text->s, text->n, file, line);
    if (rc < 0)
        return rc;
    rc = record_parse_fault(r, j, kind, file, line, &fault);
    json_free(j);
    if (rc == 0)
        return 1;
    report->n_empty += fault == FAULT_EMPTY;
    report->n_identical += fault == FAULT_IDENTICAL;
    return fault == FAULT_EMPTY || fault == FAULT_IDENTICAL ? 0 : rc;
}

static int need_str(const Json *j, const char *key, const char **out, const char *file,
                    int64_t line)
{
    *out = json_str(json_get(j, key));
    return *out ? 0
                : error_set(ERR_DATA, "%s:%lld: %s: %s, expected a string", file, (long long)line,
                            key, json_get(j, key) ? "no string" : "missing");
}

/* Anthropic hh-rlhf: {chosen, rejected}, transcripts with the prompt inside both. */
static int row_hh(Record *r, const Json *j, const char *file, int64_t line, ImportReport *report)
{
    RecordFault fault;
    const int rc = record_parse_fault(r, j, RECORD_PAIR, file, line, &fault);
    if (rc == 0) {
        free(r->source);
        r->source = xstrdup("hh-rlhf");
        return 1;
    }
    report->n_empty += fault == FAULT_EMPTY;
    report->n_identical += fault == FAULT_IDENTICAL;
    report->n_no_common_prompt += fault == FAULT_NO_COMMON_PROMPT;
    return fault == FAULT_OTHER ? rc : 0;
}

/* Records of record.h, any kind: everything that is wrong is an error. */
static int row_ours(Record *r, const Json *j, const char *file, int64_t line, ImportReport *report)
{
    const int rc = record_parse(r, j, record_kind_of(j), file, line);
    (void)report;
    return rc < 0 ? rc : 1;
}

/* DiaSafety: {context, response, category, label "Safe"|"Unsafe"}. */
static int row_diasafety(Record *r, const Json *j, const char *file, int64_t line,
                         ImportReport *report)
{
    int rc;
    const char *context, *response, *label;
    Str text = {0};
    JsonWriter w;
    TRY(need_str(j, "context", &context, file, line));
    TRY(need_str(j, "response", &response, file, line));
    TRY(need_str(j, "label", &label, file, line));
    if (strcmp(label, "Safe") && strcmp(label, "Unsafe")) {
        rc = error_set(ERR_DATA, "%s:%lld: label: found '%.40s', expected Safe or Unsafe", file,
                       (long long)line, label);
        goto fail;
    }
    jw_init(&w, &text, false);
    jw_object(&w);
    jw_kstr(&w, "prompt", context);
    jw_kstr(&w, "response", response);
    jw_kbool(&w, "is_safe", !strcmp(label, "Safe"));
    jw_kstr(&w, "source", "diasafety");
    jw_object_end(&w);
    rc = parse_rewritten(r, &text, RECORD_LABELLED, file, line, report);
fail:
    str_free(&text);
    return rc;
}

/* Tulu human preferences: {prompt, completion_a, completion_b, strength -2..2 (above 0: a), ...}.
 * Its two steps are mapped to better and slight: our choice, the set itself says "better" and
 * "slightly better". */
static int row_tulu(Record *r, const Json *j, const char *file, int64_t line, ImportReport *report)
{
    int rc;
    const char *prompt, *a, *b;
    Str text = {0};
    JsonWriter w;
    TRY(need_str(j, "prompt", &prompt, file, line));
    TRY(need_str(j, "completion_a", &a, file, line));
    TRY(need_str(j, "completion_b", &b, file, line));
    const int64_t s = json_int(json_get(j, "strength"), 99);
    if (s < -2 || s > 2) {
        rc = error_set(ERR_DATA, "%s:%lld: strength: expected an integer from -2 to 2", file,
                       (long long)line);
        goto fail;
    }
    if (s == 0) {
        report->n_tie++;
        return 0;
    }
    jw_init(&w, &text, false);
    jw_object(&w);
    jw_kstr(&w, "prompt", prompt);
    jw_kstr(&w, "chosen", s > 0 ? a : b);
    jw_kstr(&w, "rejected", s > 0 ? b : a);
    jw_kstr(&w, "strength", strength_name(s == 2 || s == -2 ? STRENGTH_BETTER : STRENGTH_SLIGHT));
    jw_kstr(&w, "source", "tulu-human-pref");
    jw_object_end(&w);
    rc = parse_rewritten(r, &text, RECORD_PAIR, file, line, report);
fail:
    str_free(&text);
    return rc;
}

/* Alpaca: {instruction, input, output}. */
static int row_alpaca(Record *r, const Json *j, const char *file, int64_t line,
                      ImportReport *report)
{
    int rc;
    const char *instruction, *output, *input = json_str(json_get(j, "input"));
    Str text = {0}, prompt = {0};
    JsonWriter w;
    TRY(need_str(j, "instruction", &instruction, file, line));
    TRY(need_str(j, "output", &output, file, line));
    str_addf(&prompt, "%s%s%s", instruction, input && *input ? "\n\n" : "", input ? input : "");
    jw_init(&w, &text, false);
    jw_object(&w);
    jw_kstr(&w, "prompt", str_get(&prompt));
    jw_kstr(&w, "completion", output);
    jw_kstr(&w, "source", "alpaca");
    jw_object_end(&w);
    rc = parse_rewritten(r, &text, RECORD_SFT, file, line, report);
fail:
    str_free(&prompt);
    str_free(&text);
    return rc;
}

const Importer importers[] = {
    {"hh-rlhf", "Anthropic hh-rlhf transcripts: chosen, rejected", RECORD_PAIR, row_hh},
    {"ours", "records of this project: checked, written in canonical form", RECORD_PAIR, row_ours},
    {"diasafety", "DiaSafety: context, response, label", RECORD_LABELLED, row_diasafety},
    {"tulu-human-pref", "Tulu human preferences: completion_a, completion_b, strength", RECORD_PAIR,
     row_tulu},
    {"alpaca", "instruction, input, output", RECORD_SFT, row_alpaca},
    {0},
};
