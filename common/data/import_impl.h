/* import_impl.h - what import.c, import_report.c and the row functions share. */
#ifndef RLHF_DATA_IMPORT_IMPL_H
#define RLHF_DATA_IMPORT_IMPL_H

#include "common/data/import.h"
#include "common/data/record_impl.h"

/* Answers to one prompt with a score each. */
typedef struct {
    Talk prompt;
    Talk *answer;
    double *score;
    int n, cap;
    const char *prompt_name, *answer_name;
    JsonSource from; /* of its first row; without the text, if more rows may follow */
} ImportGroup;

/* One import under way. */
struct Import {
    const Importer *imp;
    const ImportOptions *o;
    ImportReport *report;
    RowPlace place; /* of the row in hand */
    Record *made;   /* what it gave */
    int n_made, cap_made;
    ImportGroup group; /* a format whose rows are single answers fills it over several rows */
};

typedef struct {
    const Talk *prompt, *answer[2]; /* not changed */
    const char *prompt_name, *name[2]; /* paths, for messages */
    int better;         /* 0 or 1: index of the preferred answer */
    double rating;      /* how much better; NAN: not said */
    SafetyLabel safety[2];
    const char *source; /* "NAME/SOURCE"; may be NULL */
} ImportPair;

/* The rest checks a pair and adds it as a record, or counts why not. Negative: a malformed row. */
int import_add_pair(Import *im, const ImportPair *q);
int import_add_labelled(Import *im, Talk *prompt, const char *prompt_name, Talk *answer,
                        const char *name, SafetyLabel label); /* takes the messages */
/* Pairs by the scores of the group, as the option `pairs` says; empties it. */
int import_add_group(Import *im);
void import_drop_group(Import *im); /* without a count */
/* A row that is a record of ours, of the kind given; the source is the format's name. */
int import_add_parsed(Import *im, const Json *j, RecordKind kind);
void import_drop(Import *im, ImportDrop why);

/* Fields by path ("question.full_text", "summaries[0].text"); negative after a message. */
const Json *import_get(const Json *j, const char *path); /* NULL: absent or null */
int import_missing(Import *im, const Json *j, const char *path);
int import_str(Import *im, const Json *j, const char *path, const char **out);
int import_num(Import *im, const Json *j, const char *path, double min, double max, double *out);
int import_int(Import *im, const Json *j, const char *path, int min, int max, int *out);
int import_bool(Import *im, const Json *j, const char *path, bool needed, SafetyLabel *out);
int import_talk(Import *im, const Json *j, const char *path, Role lone, Talk *out);

/* import_report.c */
void import_count(ImportReport *r, const Record *rec, Tokenizer *tok);

/* Row functions: import_formats.c, import_rated.c. */
int import_row_tulu(Import *im, const Json *j);
int import_row_helpsteer(Import *im, const Json *j);
int import_row_helpsteer2(Import *im, const Json *j);
int import_row_helpsteer3(Import *im, const Json *j);
int import_row_shp(Import *im, const Json *j);
int import_row_webgpt(Import *im, const Json *j);
int import_row_summarize(Import *im, const Json *j);
int import_row_ultrafeedback(Import *im, const Json *j);
int import_row_ultrafeedback_binarized(Import *im, const Json *j);

#endif
