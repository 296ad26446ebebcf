/* import.h - public data sets -> our records (record.h), with a report. `rlhf import FORMAT IN OUT`.
 *
 * A row gives no record, one, or several (answers scored one by one give pairs). What it gives is
 * kept, or dropped for one counted reason: n_kept and the sum of dropped[] account for everything. */
#ifndef RLHF_DATA_IMPORT_H
#define RLHF_DATA_IMPORT_H

#include "common/data/record.h"

typedef enum {
    DROP_EMPTY,            /* an empty message or answer */
    DROP_IDENTICAL,        /* chosen and rejected are the same */
    DROP_NO_COMMON_PROMPT,
    DROP_TIE,
    DROP_CLOSE,            /* rating below min_rating */
    DROP_ALONE,            /* an answer without another to compare it with */
    DROP_SPLIT,            /* not of the split asked for */
    DROP_DUPLICATE,        /* repeats an earlier record word for word */
    DROP_OVERLAP,          /* its prompt stands in a file of `against` */
    DROP_BAD_ROW,          /* malformed, under on_bad: skip */
    DROP_COUNT
} ImportDrop;

typedef struct {
    int32_t *at;
    int64_t n, cap;
} ImportLengths;

enum { LENGTH_PROMPT, LENGTH_ANSWER, LENGTH_REJECTED, LENGTH_WHOLE, LENGTH_COUNT };

typedef struct {
    const char *format, *in; /* borrowed */
    RecordKind kind;
    int64_t n_read; /* rows */
    int64_t n_kept, n_held_out; /* records; the held-out ones are among the kept */
    int64_t dropped[DROP_COUNT];
    char *first_bad; /* what was wrong with the first row under DROP_BAD_ROW, or NULL */
    int64_t strength[STRENGTH_COUNT];
    /* pairs: chosen safe & rejected unsafe, both safe, both unsafe, chosen unsafe & rejected safe */
    int64_t safety_bins[4];
    int64_t n_safe, n_unsafe; /* labelled rows */
    int64_t n_margin, n_system, n_turns; /* rows with a margin; with a system message; user messages */
    int64_t n_prompts;    /* different ones among the kept */
    int64_t n_contradict; /* kept, though an earlier record says the opposite of the same answers */
    int64_t n_overlap;    /* kept under on_overlap: keep */
    /* of each kept record: the prompt (all messages), answer 0 and 1, prompt and longer answer */
    ImportLengths chars[LENGTH_COUNT], tokens[LENGTH_COUNT];
} ImportReport;

typedef enum { TASK_HELPFUL, TASK_SAFETY } ImportTask;                     /* "helpful|safety" */
typedef enum { PAIRS_ALL, PAIRS_BEST_REST, PAIRS_BEST_WORST } ImportPairs; /* "all|best_rest|best_worst" */
typedef enum { OVERLAP_DROP, OVERLAP_KEEP, OVERLAP_ERROR } ImportOverlap;  /* "drop|keep|error" */

typedef struct {
    const char *held_out; /* file for the records with prompt_hash % held_out_every == 0 */
    int64_t held_out_every; /* 0: none */
    bool tagged;          /* put tags ["safety"] on every record */
    BadRow on_bad;
    const char *split;    /* only rows whose field "split" is this; NULL or "" = all */
    ImportTask task;      /* PKU-SafeRLHF: which of the two preferences */
    ImportPairs pairs;    /* of a row with more than two answers */
    const double *levels; /* ratings from which a pair is significant, better, slight; below:
                             negligible. n_levels 0: the format's own (importers[].levels) */
    int n_levels;         /* 0 or 3 */
    double min_rating;    /* pairs rated lower are dropped */
    const char *const *against; /* files of records whose prompts must not come up */
    int n_against;
    ImportOverlap on_overlap;
    Tokenizer *tokenizer; /* for lengths in tokens; NULL: none */
} ImportOptions;

typedef struct Import Import;

/* What of the options a format knows. */
enum { IMPORT_RATED = 1, IMPORT_TASK = 2, IMPORT_SCORED = 4 };

typedef struct {
    const char *name; /* "hh-rlhf" */
    const char *set;  /* what people call it */
    const char *fields; /* of a row */
    RecordKind kind;  /* of the records; "ours" keeps that of its first row */
    unsigned flags;
    double levels[3]; /* IMPORT_RATED: defaults */
    const char *rating; /* IMPORT_RATED: what the rating is */
    /* One input object: adds records or counts drops; 0, or negative when the row is malformed. */
    int (*row)(Import *im, const Json *j);
} Importer;

extern const Importer importers[]; /* ends with name NULL */
const Importer *importer_find(const char *name);
/* Reads `in` (.jsonl, .json, .gz, .zst, "-"), writes `out` by suffix, prints nothing. ERR_CONFIG when
 * an option says nothing about this format; ERR_DATA when nothing was left to keep. */
int import_run(const Importer *imp, const char *in, const char *out, const ImportOptions *o,
               ImportReport *report);
void import_report_print(ImportReport *r, Str *out); /* sorts the lengths */
void import_report_json(ImportReport *r, Str *out);  /* the same, pretty-printed */
void import_report_free(ImportReport *r);

#endif
