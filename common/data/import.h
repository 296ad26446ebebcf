/* import.h - public data sets -> our records (record.h), with a report. `rlhf import FORMAT IN OUT`. */
#ifndef RLHF_DATA_IMPORT_H
#define RLHF_DATA_IMPORT_H

#include "common/data/record.h"

typedef struct {
    int64_t n_read, n_kept;
    int64_t n_held_out; /* of the kept ones */
    int64_t n_identical, n_empty, n_bad, n_no_common_prompt, n_duplicate, n_tie;
    int64_t strength[STRENGTH_COUNT];
    /* pairs: chosen safe & rejected unsafe, both safe, both unsafe, chosen unsafe & rejected safe */
    int64_t safety_bins[4];
    int64_t n_safe, n_unsafe; /* labelled rows */
    int64_t n_margin, n_system, n_turns; /* rows with a margin; with a system message; user messages */
    /* length in characters: of the prompt (all messages), and of answer 0 (chosen) and 1 (rejected) */
    struct {
        int64_t n, sum, min, max;
    } chars[3];
    RecordKind kind;
} ImportReport;

typedef struct {
    const char *name; /* "hh-rlhf" */
    const char *help;
    RecordKind kind; /* of the records; "ours" keeps that of its first row */
    /* One input object -> r; 1 kept, 0 dropped (a counter of the report says why), negative error. */
    int (*row)(Record *r, const Json *j, const char *file, int64_t line, ImportReport *report);
} Importer;

extern const Importer importers[]; /* ends with name NULL */
const Importer *importer_find(const char *name);
/* Reads `in` (.jsonl, .gz, .zst, "-"), writes `out` by suffix, prints nothing. held_out_every > 0
 * writes the records whose prompt_hash % held_out_every == 0 to held_out_path instead. tagged: put
 * tags ["safety"] on every record. Records that repeat an earlier one word for word are dropped. */
int import_run(const Importer *imp, const char *in, const char *out, const char *held_out_path,
               int held_out_every, bool tagged, BadRow on_bad, ImportReport *report);
void import_report_print(const ImportReport *r, Str *out);

#endif
