/* pool.h - answers of earlier rounds that compete again (Llama 2, section 3.2.3: from V4 on the best
 * samples of all rounds). Files are samples.jsonl (field "answer", with "finished") or selected.jsonl
 * ("completion"). An answer belongs to every prompt of this run with the same messages, by
 * prompt_hash: an id may mean another prompt in another file. Scores in the files are not looked at. */
#ifndef RLHF_REJECTION_POOL_H
#define RLHF_REJECTION_POOL_H

#include "common/base/config.h"
#include "common/data/example.h"

typedef struct {
    int64_t prompt;     /* index into the ExampleSet */
    int64_t order;      /* of its line among all lines */
    const char *file;   /* as in the config */
    char *text;
    int32_t *ids;       /* its tokens as the template writes an answer, with the closing one */
    int n;
    int sample;         /* of its line; -1 = not given */
    double temperature; /* of its line; NaN = not given */
} PoolAnswer;

typedef struct {
    PoolAnswer *at;     /* by prompt, then in the order of the files and lines */
    int64_t n, cap;
    int64_t *first;     /* (prompts + 1): answers to prompt i are at[first[i]] .. at[first[i + 1]] */
    /* Left out: lines that are no record (on_bad: skip); to other prompts; without an end; the same
     * text again for the same prompt; more than max_tokens; refused by the template (its markers in
     * the text, or no text), so that no training record could hold them. */
    int64_t n_lines, n_bad, n_elsewhere, n_unfinished, n_twice, n_long, n_refused;
} Pool;

/* ERR_DATA with file:line for a malformed line, ERR_NOINPUT for a missing file. Without files there
 * are no answers, but `first` is made. */
int pool_read(Pool *p, const ConfigStrings *files, const RecordSet *records,
              const ExampleSet *prompts, const ChatTemplate *chat, int64_t max_tokens, BadRow on_bad);
void pool_free(Pool *p);

#endif
