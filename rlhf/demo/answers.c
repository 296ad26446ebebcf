/* answers.c - see answers.h. Tested by tests/unit/test_world.c. */
#include "rlhf/demo/answers.h"

#include "common/base/error.h"
#include "common/data/rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int text_of(char **out, const Json *j, const char *key, const char *path, int64_t line)
{
    const char *s = json_str(json_get(j, key));
    if (!s)
        return error_set(ERR_DATA, "%s:%lld: '%s' must be a string, found %s; expected a line of "
                         "'rlhf generate'", path, (long long)line, key,
                         json_kind_name(json_kind(json_get(j, key))));
    *out = xstrdup(s);
    return 0;
}

static int read_answer(Answer *a, const Json *j, const char *path, int64_t line)
{
    WorldPrompt p;
    Phrase words;
    int rc;
    const Json *finished = json_get(j, "finished");
    TRY(text_of(&a->id, j, "id", path, line));
    TRY(text_of(&a->prompt, j, "prompt", path, line));
    TRY(text_of(&a->answer, j, "answer", path, line));
    if (json_kind(finished) != JSON_BOOLEAN)
        return error_set(ERR_DATA, "%s:%lld: 'finished' must be true or false", path, (long long)line);
    if ((rc = world_parse(&p, a->prompt)) < 0)
        return error_prefix("%s:%lld", path, (long long)line);
    phrase_read(&words, a->answer);
    gold_score(&a->gold, &p, &words, json_bool(finished, false));
    a->kind = p.kind;
    a->style = p.style;
    a->tagged = world_tagged(&p);
    a->sample = json_int(json_get(j, "sample"), 0);
    a->tokens = (int)json_int(json_get(j, "tokens"), words.n + a->gold.finished);
    a->kl = json_num(json_get(j, "kl"), NAN);
    a->reward_helpful = json_num(json_get(j, "reward_helpful"), NAN);
    a->reward_safety = json_num(json_get(j, "reward_safety"), NAN);
fail:
    return rc;
}

int answer_set_read(AnswerSet *s, const char *path)
{
    Rows rows = {0};
    const Json *j;
    int rc;
    TRY(rows_open(&rows, path));
    while ((rc = rows_next(&rows, &j)) > 0) {
        if (!j) {
            rc = ERR_DATA;
            goto fail;
        }
        int64_t i = VEC_GROW(s->at, s->n, s->cap);
        s->at[i] = (Answer){0};
        TRY(read_answer(&s->at[i], j, path, rows.line));
    }
fail:
    rows_close(&rows);
    return rc;
}

static int by_id(const void *x, const void *y)
{
    const Answer *a = x, *b = y;
    int c = strcmp(a->id, b->id);
    return c ? c : (a->sample > b->sample) - (a->sample < b->sample);
}

int answer_set_sort(AnswerSet *s)
{
    if (s->n)
        qsort(s->at, (size_t)s->n, sizeof *s->at, by_id);
    for (int64_t i = 1; i < s->n; i++) {
        if (!by_id(&s->at[i - 1], &s->at[i]))
            return error_set(ERR_DATA, "two answers have id '%s' and sample %lld; each file must "
                             "be given once", s->at[i].id, (long long)s->at[i].sample);
    }
    return 0;
}

const Answer *answer_set_find(const AnswerSet *s, const char *id, int64_t sample)
{
    Answer key = {.id = (char *)(uintptr_t)id, .sample = sample};
    return s->n ? bsearch(&key, s->at, (size_t)s->n, sizeof *s->at, by_id) : NULL;
}

void answer_set_free(AnswerSet *s)
{
    for (int64_t i = 0; i < s->n; i++) {
        free(s->at[i].id);
        free(s->at[i].prompt);
        free(s->at[i].answer);
    }
    free(s->at);
    *s = (AnswerSet){0};
}
