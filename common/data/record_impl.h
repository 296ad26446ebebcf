/* record_impl.h - records out of conversations that were read: what record_parse.c and the importers
 * share. */
#ifndef RLHF_DATA_RECORD_IMPL_H
#define RLHF_DATA_RECORD_IMPL_H

#include "common/data/talk.h"

void record_begin(Record *r, RecordKind kind, const JsonSource *from);
void record_end(Record *r); /* hashes and id, when everything else is there */

/* Fields of an object; what is absent leaves the record as it is. */
int record_read_bool(RowPlace *p, const Json *j, const char *name, SafetyLabel *out);
int record_read_rating(Record *r, RowPlace *p, const Json *j); /* strength, margin, labels */
int record_read_common(Record *r, RowPlace *p, const Json *j); /* id, tags, weight, source */

/* A prompt of its own, checked: optional system, turns, the user last. */
int record_check_prompt(RowPlace *p, const Talk *prompt, const char *name);
/* prompt, chosen and rejected -> r, which takes the prompt's messages. The prompt may stand in front
 * of the answers once more. Errors name the answers by `name`. */
int record_set_pair(Record *r, RowPlace *p, Talk *prompt, Talk answer[2], const char *const name[2]);
/* prompt and response -> r; the same. */
int record_set_labelled(Record *r, RowPlace *p, Talk *prompt, Talk *answer, const char *name);

#endif
