/* example.c - records rendered to ids, with a mask of the tokens that are trained on.
 *
 * Masks come from the spans of the chat template and from nothing else: an assistant message with
 * its closing token. `n_prompt` is where the last answer begins, which is also the length of the
 * open prompt, so what training sees is what sampling continues. Tested by
 * tests/unit/test_example.c. */
#include "common/data/example.h"

#include "common/base/error.h"

#include <stdlib.h>
#include <string.h>

void example_free(Example *e)
{
    free(e->ids);
    free(e->mask);
    memset(e, 0, sizeof *e);
}

void example_end_at_answer(Example *e)
{
    while (e->n > e->n_prompt && !e->mask[e->n - 1])
        e->n--;
}

void example_set_free(ExampleSet *s)
{
    for (int64_t i = 0; i < s->n; i++)
        example_free(&s->at[i]);
    free(s->at);
    memset(s, 0, sizeof *s);
}

/* BOS text EOS; all but BOS trained. */
static int render_text(const Record *r, const ChatTemplate *t, IdList *ids)
{
    const int32_t eos = tokenizer_eos(t->tok);
    if (t->bos >= 0)
        id_list_add(ids, t->bos);
    const int rc = tokenizer_encode(t->tok, r->text[0], strlen(r->text[0]), true, ids);
    if (eos >= 0)
        id_list_add(ids, eos);
    return rc;
}

/* The record as one conversation; `answer` (may be NULL) comes last. Spans: caller frees. */
static int render_messages(const Record *r, const char *answer, bool open_turn,
                           const ChatTemplate *t, IdList *ids, Span **spans, int *n)
{
    *n = r->n_messages + (answer != NULL);
    Message *all = xmalloc((size_t)*n * sizeof *all);
    memcpy(all, r->messages, (size_t)r->n_messages * sizeof *all);
    if (answer)
        all[r->n_messages] = (Message){ROLE_ASSISTANT, (char *)answer, strlen(answer)};
    *spans = xcalloc((size_t)*n, sizeof **spans);
    const int rc = template_render(t, all, *n, open_turn, ids, *spans);
    free(all);
    return rc;
}

/* Message i of a record to fine-tune on. */
static bool is_trained(const Record *r, int i)
{
    return r->kind == RECORD_SFT && i >= r->n_context && r->messages[i].role == ROLE_ASSISTANT;
}

static void set_mask(uint8_t *mask, const Record *r, int only, const Span *spans, int n)
{
    for (int i = 0; i < n; i++) {
        const bool answer = i == r->n_messages || is_trained(r, i);
        if (only < 0 ? answer : i == only)
            memset(mask + spans[i].from, 1, (size_t)(spans[i].to - spans[i].from));
    }
}

/* Every trained message has text besides its closing token, or nothing would be learned from it. */
static int check_spans(const Record *r, const Span *spans, int n)
{
    for (int i = 0; i < n; i++) {
        const bool answer = i == r->n_messages || is_trained(r, i);
        if (answer && spans[i].to - spans[i].from < 2)
            return error_set(ERR_DATA,
                             "message %d (assistant) has no tokens to train on; remove the row",
                             i + 1);
    }
    return 0;
}

/* A text is learned from its beginning on, but one rule serves all kinds: the last max_length
 * tokens are kept, BOS is not put back, so that the ids stay a suffix of what was rendered. */
static void cut_left(Example *e, int max_length)
{
    const int gone = e->n - max_length;
    memmove(e->ids, e->ids + gone, (size_t)max_length * sizeof *e->ids);
    memmove(e->mask, e->mask + gone, (size_t)max_length);
    e->n = max_length;
    e->n_prompt = e->n_prompt > gone ? e->n_prompt - gone : 0;
}

/* The whole record, however long. */
static int make_whole(Example *e, const Record *r, int which, const ChatTemplate *t)
{
    int rc = 0, n = 0;
    IdList ids = {0};
    Span *spans = NULL;
    const bool open_turn = r->kind == RECORD_PROMPT, text = r->kind == RECORD_TEXT;
    const bool has_answer = r->kind == RECORD_PAIR || r->kind == RECORD_LABELLED;
    memset(e, 0, sizeof *e);
    if (text)
        TRY(render_text(r, t, &ids));
    else
        TRY(render_messages(r, has_answer ? r->text[which] : NULL, open_turn, t, &ids, &spans, &n));
    e->ids = ids.at;
    e->n = ids.n;
    memset(&ids, 0, sizeof ids);
    e->mask = xcalloc((size_t)e->n, 1);
    if (text) {
        const int first = t->bos >= 0;
        memset(e->mask + first, 1, (size_t)(e->n - first));
        e->n_prompt = first;
    } else if (open_turn) {
        e->n_prompt = e->n;
    } else {
        TRY(check_spans(r, spans, n));
        set_mask(e->mask, r, has_answer ? r->n_messages : -1, spans, n);
        e->n_prompt = spans[n - 1].from;
        if (has_answer)
            example_end_at_answer(e);
    }
fail:
    id_list_free(&ids);
    free(spans);
    return rc;
}

static int make(Example *e, const Record *r, int which, const ChatTemplate *t, int max_length,
                OnLong on_long, bool *is_long)
{
    CHECK(max_length > 1, "max_length %d", max_length);
    CHECK(which == 0 || (which == 1 && r->kind == RECORD_PAIR), "answer %d of a %s record", which,
          record_kind_name(r->kind));
    int rc = make_whole(e, r, which, t);
    *is_long = rc == 0 && e->n > max_length;
    if (*is_long && on_long == LONG_ERROR)
        rc =
            error_set(ERR_DATA,
                      "the record has %d tokens, more than max_length %d; raise max_length, or set "
                      "on_long: drop or truncate_left",
                      e->n, max_length);
    if (rc < 0) {
        error_prefix("%s:%lld", r->file, (long long)r->line);
        example_free(e);
    } else if (*is_long && on_long == LONG_TRUNCATE_LEFT) {
        cut_left(e, max_length);
    } else if (*is_long) {
        example_free(e);
    }
    return rc;
}

int example_make(Example *e, const Record *r, int which, const ChatTemplate *t, int max_length,
                 OnLong on_long, bool *dropped)
{
    bool is_long;
    const int rc = make(e, r, which, t, max_length, on_long, &is_long);
    *dropped = rc == 0 && is_long && on_long == LONG_DROP;
    return rc;
}

int example_set_make(ExampleSet *s, const RecordSet *records, int which, const ChatTemplate *t,
                     int max_length, OnLong on_long, BadRow on_bad)
{
    int64_t n_kept = 0;
    for (int64_t i = 0; i < records->n; i++) {
        Example e;
        bool is_long;
        const int rc = make(&e, &records->at[i], which, t, max_length, on_long, &is_long);
        if (rc < 0 && (on_bad == BAD_ROW_ERROR || rc != ERR_DATA || is_long))
            return rc;
        if (rc < 0) {
            s->n_bad++;
            continue;
        }
        s->n_long += is_long;
        if (is_long && on_long == LONG_DROP)
            continue;
        e.record = i;
        const int64_t k = VEC_GROW(s->at, s->n, s->cap);
        s->at[k] = e;
        s->n_tokens += e.n;
        for (int j = 1; j < e.n; j++)
            s->n_targets += e.mask[j];
        n_kept++;
    }
    if (n_kept == 0 && records->n)
        return error_set(
            ERR_DATA,
            "%s: all %lld records are longer than max_length %d; raise it or set on_long: "
            "truncate_left",
            records->at[0].file, (long long)records->n, max_length);
    return 0;
}
