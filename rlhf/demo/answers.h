/* answers.h - samples.jsonl read back (generate/samples.h writes it), with the gold of each answer. */
#ifndef RLHF_DEMO_ANSWERS_H
#define RLHF_DEMO_ANSWERS_H

#include "rlhf/demo/gold.h"

typedef struct {
    char *id, *prompt, *answer;
    int64_t sample;
    int tokens;
    double kl, reward_helpful, reward_safety; /* NaN: not in the file */
    bool tagged;
    WorldKind kind;
    WorldStyle style;
    Gold gold;
} Answer;

typedef struct {
    Answer *at;
    int64_t n, cap;
} AnswerSet;

/* Appends the answers of a file. ERR_DATA with file:line for a line without id, prompt, answer or
 * finished, or a prompt that is not of this world. */
int answer_set_read(AnswerSet *s, const char *path);
/* Sorts by id, then sample; ERR_DATA when two answers have both in common. */
int answer_set_sort(AnswerSet *s);
const Answer *answer_set_find(const AnswerSet *sorted, const char *id, int64_t sample); /* or NULL */
void answer_set_free(AnswerSet *s);

#endif
