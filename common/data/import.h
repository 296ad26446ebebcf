/* import.h - public data sets -> our records (record.h), with a report. `rlhf import FORMAT IN OUT`. */
#ifndef RLHF_DATA_IMPORT_H
#define RLHF_DATA_IMPORT_H

#include "common/data/record.h"

typedef struct {
    int64_t n_read, n_kept;
    int64_t n_identical, n_empty, n_bad, n_no_common_prompt, n_duplicate;
    int64_t strength[STRENGTH_COUNT];
    int64_t safety_bins[4]; /* chosen safe & rejected unsafe, both safe, both unsafe, chosen unsafe & rejected safe */
} ImportReport;

typedef struct {
    const char *name; /* "hh-rlhf" */
    const char *help;
    RecordKind kind;
    /* One input object -> r; 1 kept, 0 dropped (a counter of the report says why), negative error. */
    int (*row)(Record *r, const Json *j, const char *file, int64_t line, ImportReport *report);
} Importer;

extern const Importer importers[]; /* ends with name NULL */
const Importer *importer_find(const char *name);
/* Reads `in` (.jsonl, .gz, .zst, "-"), writes `out` by suffix, prints nothing. held_out_every > 0
 * writes the records whose prompt_hash % held_out_every == 0 to held_out_path instead. tagged: put
 * tags ["safety"] on every record. */
int import_run(const Importer *imp, const char *in, const char *out, const char *held_out_path,
               int held_out_every, bool tagged, BadRow on_bad, ImportReport *report);
void import_report_print(const ImportReport *r, Str *out);

#endif
