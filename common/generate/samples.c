/* samples.c - see samples.h. Tested by tests/e2e/test_generate.sh and the rejection runs. */
#include "common/generate/samples.h"

#include <math.h>

void sample_write_prompt(JsonWriter *w, const Record *r)
{
    if (r->n_messages == 1 && r->messages[0].role == ROLE_USER) {
        jw_str_n(w, r->messages[0].text, r->messages[0].n);
        return;
    }
    jw_array(w);
    for (int i = 0; i < r->n_messages; i++) {
        jw_object(w);
        jw_kstr(w, "role", role_name(r->messages[i].role));
        jw_key(w, "content");
        jw_str_n(w, r->messages[i].text, r->messages[i].n);
        jw_object_end(w);
    }
    jw_array_end(w);
}

static void known(JsonWriter *w, const char *key, double v)
{
    if (!isnan(v))
        jw_knum(w, key, v);
}

void sample_write(const Sample *s, Str *out)
{
    JsonWriter w;
    jw_init(&w, out, false);
    jw_object(&w);
    if (s->record->id_text)
        jw_kstr(&w, "id", s->record->id_text);
    jw_key(&w, "prompt");
    sample_write_prompt(&w, s->record);
    if (s->record->tagged) {
        jw_key(&w, "tags");
        jw_array(&w);
        jw_str(&w, "safety");
        jw_array_end(&w);
    }
    if (s->sample >= 0)
        jw_kint(&w, "sample", s->sample);
    known(&w, "temperature", s->temperature);
    jw_kstr(&w, "answer", s->answer);
    jw_kbool(&w, "finished", s->finished);
    jw_kint(&w, "tokens", s->tokens);
    known(&w, "logp", s->logp);
    known(&w, "ref_logp", s->ref_logp);
    known(&w, "kl", s->logp - s->ref_logp);
    known(&w, "reward_helpful", s->helpful);
    known(&w, "reward_safety", s->safety);
    if (s->pool)
        jw_kstr(&w, "pool", s->pool);
    if (s->selected >= 0)
        jw_kbool(&w, "selected", s->selected);
    jw_object_end(&w);
    str_add(out, "\n");
}
