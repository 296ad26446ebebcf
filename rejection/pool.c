/* pool.c - see pool.h. Everything is read at the start: the memory plan and the dry run know how many
 * answers compete in which block. Tested by tests/unit/test_pool.c, tests/e2e/test_rejection.sh. */
#include "rejection/pool.h"

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/data/rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint64_t hash;
    int64_t prompt;
} HashAt;

typedef struct {
    Pool *p;
    const RecordSet *records;
    const ExampleSet *prompts;
    const ChatTemplate *chat;
    int64_t max_tokens;
    HashAt *index; /* (prompts->n), ascending */
} Reading;

static int compare_hash(const void *a, const void *b)
{
    const HashAt *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return (x->prompt > y->prompt) - (x->prompt < y->prompt);
}

static int compare_answer(const void *a, const void *b)
{
    const PoolAnswer *x = a, *y = b;
    if (x->prompt != y->prompt)
        return x->prompt < y->prompt ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

static void answer_free(PoolAnswer *a)
{
    free(a->text);
    free(a->ids);
}

void pool_free(Pool *p)
{
    for (int64_t i = 0; i < p->n; i++)
        answer_free(&p->at[i]);
    free(p->at);
    free(p->first);
    memset(p, 0, sizeof *p);
}

static HashAt *index_make(const RecordSet *records, const ExampleSet *prompts)
{
    HashAt *at = xmalloc((size_t)prompts->n * sizeof *at);
    for (int64_t i = 0; i < prompts->n; i++)
        at[i] = (HashAt){records->at[prompts->at[i].record].prompt_hash, i};
    qsort(at, (size_t)prompts->n, sizeof *at, compare_hash);
    return at;
}

/* The first entry of the index with this hash; prompts->n when there is none. */
static int64_t index_find(const Reading *r, uint64_t hash)
{
    int64_t lo = 0, hi = r->prompts->n;
    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        if (r->index[mid].hash < hash)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < r->prompts->n && r->index[lo].hash == hash ? lo : r->prompts->n;
}

/* An answer as training and sampling have it: the trained span of a record with this answer. */
static bool answer_tokens(PoolAnswer *a, const Reading *r, const Record *rec)
{
    Example e;
    Record with = *rec;
    bool dropped;
    with.kind = RECORD_LABELLED;
    with.text[0] = a->text;
    if (example_make(&e, &with, 0, r->chat, INT32_MAX, LONG_ERROR, &dropped) < 0) {
        log_debug("%s: answer left out: %s", a->file, error_text());
        return false;
    }
    int from = e.n_prompt, to = from;
    while (to < e.n && e.mask[to])
        to++;
    a->n = to - from;
    a->ids = xmalloc((size_t)a->n * sizeof *a->ids);
    memcpy(a->ids, e.ids + from, (size_t)a->n * sizeof *a->ids);
    example_free(&e);
    return true;
}

/* The answer of a line, as an answer to one prompt. */
static void answer_add(Reading *r, const PoolAnswer *line, int64_t prompt)
{
    Pool *p = r->p;
    PoolAnswer a = *line;
    a.prompt = prompt;
    a.text = xstrdup(line->text);
    if (!answer_tokens(&a, r, &r->records->at[r->prompts->at[prompt].record]))
        p->n_refused++;
    else if (a.n > r->max_tokens)
        p->n_long++;
    else {
        int64_t i = VEC_GROW(p->at, p->n, p->cap);
        p->at[i] = a;
        return;
    }
    answer_free(&a);
}

static int line_add(Reading *r, const Json *j, const char *file, int64_t line)
{
    Pool *p = r->p;
    Record prompt;
    const Json *text = json_get(j, "answer");
    int rc = record_parse(&prompt, j, RECORD_PROMPT, file, line);
    if (rc < 0)
        return rc;
    uint64_t hash = prompt.prompt_hash;
    record_free(&prompt);
    if (!text)
        text = json_get(j, "completion");
    if (!json_str(text) || strlen(json_str(text)) != json_str_len(text))
        return error_set(ERR_DATA, "%s:%lld: answer: found %s, expected a text (a line of samples.jsonl "
                                   "or selected.jsonl)", file, (long long)line,
                         text ? json_kind_name(json_kind(text)) : "none");
    int64_t at = index_find(r, hash);
    if (at == r->prompts->n)
        p->n_elsewhere++;
    else if (!json_bool(json_get(j, "finished"), true))
        p->n_unfinished++;
    else {
        PoolAnswer a = {.order = p->n_lines,
                        .file = file,
                        .text = (char *)json_str(text), /* borrowed: answer_add copies it */
                        .sample = (int)json_int(json_get(j, "sample"), -1),
                        .temperature = json_num(json_get(j, "temperature"), NAN)};
        for (; at < r->prompts->n && r->index[at].hash == hash; at++)
            answer_add(r, &a, r->index[at].prompt);
    }
    return 0;
}

static int file_add(Reading *r, const char *file, BadRow on_bad)
{
    Rows rows = {0};
    const Json *j;
    int rc = 0, got;
    TRY(rows_open(&rows, file));
    while ((got = rows_next(&rows, &j)) > 0) {
        r->p->n_lines++;
        rc = j ? line_add(r, j, file, rows.line) : ERR_DATA;
        if (rc < 0 && on_bad == BAD_ROW_SKIP) {
            log_debug("skipped: %s", error_text());
            r->p->n_bad++;
            rc = 0;
        }
        TRY(rc);
    }
    rc = got;
fail:
    rows_close(&rows);
    return rc;
}

/* Sorts, and keeps the first of equal answers to a prompt. */
static void pool_order(Pool *p, int64_t n_prompts)
{
    int64_t n = 0, start = 0; /* kept so far; those of the same prompt begin at `start` */
    if (p->n)
        qsort(p->at, (size_t)p->n, sizeof *p->at, compare_answer);
    for (int64_t i = 0; i < p->n; i++) {
        if (n > 0 && p->at[n - 1].prompt != p->at[i].prompt)
            start = n;
        int64_t same = start;
        while (same < n && strcmp(p->at[same].text, p->at[i].text) != 0)
            same++;
        if (same < n) {
            p->n_twice++;
            answer_free(&p->at[i]);
        } else {
            p->at[n++] = p->at[i];
        }
    }
    p->n = n;
    p->first = xcalloc((size_t)n_prompts + 1, sizeof *p->first);
    for (int64_t i = 0; i < n; i++)
        p->first[p->at[i].prompt + 1]++;
    for (int64_t i = 0; i < n_prompts; i++)
        p->first[i + 1] += p->first[i];
}

int pool_read(Pool *p, const ConfigStrings *files, const RecordSet *records,
              const ExampleSet *prompts, const ChatTemplate *chat, int64_t max_tokens, BadRow on_bad)
{
    Reading r = {.p = p, .records = records, .prompts = prompts, .chat = chat,
                 .max_tokens = max_tokens, .index = index_make(records, prompts)};
    int rc = 0;
    for (int i = 0; i < files->n; i++)
        TRY(file_add(&r, files->at[i], on_bad));
    pool_order(p, prompts->n);
fail:
    free(r.index);
    return rc;
}
