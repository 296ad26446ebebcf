/* record_write.c - the canonical form of a record: TRL's conversational columns, one JSON line.
 *
 * What is written reads back as the same record (tests/unit/test_record.c), and TRL can read it
 * too; its own extra columns (strength, chosen_safe, ...) stand beside. Values that say nothing are
 * left out. */
#include "common/data/record.h"

#include <math.h>

static void write_message(JsonWriter *w, Role role, const char *text, size_t n)
{
    jw_object(w);
    jw_kstr(w, "role", role_name(role));
    jw_key(w, "content");
    jw_str_n(w, text, n);
    jw_object_end(w);
}

/* Messages [from, to). */
static void write_messages(JsonWriter *w, const char *key, const Record *r, int from, int to)
{
    jw_key(w, key);
    jw_array(w);
    for (int i = from; i < to; i++)
        write_message(w, r->messages[i].role, r->messages[i].text, r->messages[i].n);
    jw_array_end(w);
}

static void write_answer(JsonWriter *w, const char *key, const char *text)
{
    jw_key(w, key);
    jw_array(w);
    jw_object(w);
    jw_kstr(w, "role", role_name(ROLE_ASSISTANT));
    jw_kstr(w, "content", text);
    jw_object_end(w);
    jw_array_end(w);
}

static void write_pair(JsonWriter *w, const Record *r)
{
    write_messages(w, "prompt", r, 0, r->n_messages);
    write_answer(w, "chosen", r->text[0]);
    write_answer(w, "rejected", r->text[1]);
    if (r->strength != STRENGTH_UNKNOWN)
        jw_kstr(w, "strength", strength_name(r->strength));
    if (!isnan(r->margin))
        jw_knum(w, "margin", r->margin);
    if (r->safety[0] != SAFETY_UNKNOWN)
        jw_kbool(w, "chosen_safe", r->safety[0] == SAFETY_SAFE);
    if (r->safety[1] != SAFETY_UNKNOWN)
        jw_kbool(w, "rejected_safe", r->safety[1] == SAFETY_SAFE);
}

void record_write(const Record *r, Str *out)
{
    JsonWriter w;
    jw_init(&w, out, false);
    jw_object(&w);
    if (r->id_text)
        jw_kstr(&w, "id", r->id_text);
    switch (r->kind) {
    case RECORD_TEXT:
        jw_kstr(&w, "text", r->text[0]);
        break;
    case RECORD_PROMPT:
        write_messages(&w, "prompt", r, 0, r->n_messages);
        break;
    case RECORD_SFT:
        if (r->n_context)
            write_messages(&w, "prompt", r, 0, r->n_context);
        write_messages(&w, r->n_context ? "completion" : "messages", r, r->n_context, r->n_messages);
        break;
    case RECORD_PAIR:
        write_pair(&w, r);
        break;
    case RECORD_LABELLED:
        write_messages(&w, "prompt", r, 0, r->n_messages);
        write_answer(&w, "response", r->text[0]);
        jw_kbool(&w, "is_safe", r->safety[0] == SAFETY_SAFE);
        break;
    }
    if (r->tagged) {
        jw_key(&w, "tags");
        jw_array(&w);
        jw_str(&w, "safety");
        jw_array_end(&w);
    }
    if (r->weight != 1)
        jw_knum(&w, "weight", r->weight);
    if (r->source)
        jw_kstr(&w, "source", r->source);
    jw_object_end(&w);
}
