/* record_parse.c - one JSON object -> one record, or one clear line about the field at fault.
 *
 * Every way of writing a conversation is first turned into a list of messages (Talk); the kinds
 * differ only in how they cut such lists into prompt and answers. Tested by
 * tests/unit/test_record.c and, on public data, tests/unit/test_import.c. */
#include "common/data/talk.h"

#include "common/base/error.h"
#include "common/base/hash.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int missing(RowPlace *p, const Json *j, RecordKind want, const char *name)
{
    static const char *const shape[] = {
        [RECORD_TEXT] = "text",
        [RECORD_PROMPT] = "prompt",
        [RECORD_SFT] = "messages, or prompt and completion",
        [RECORD_PAIR] = "prompt, chosen and rejected",
        [RECORD_LABELLED] = "prompt, response and is_safe",
    };
    Str have = {0};
    int n = 0;
    for (void *it = json_iter(j); it && n < 8; it = json_iter_next(j, it), n++)
        str_addf(&have, "%s%.40s", n ? ", " : "", json_iter_key(it));
    const int rc = row_error(p, FAULT_OTHER, name, "missing; a %s record has %s (found: %s)",
                             record_kind_name(want), shape[want], have.n ? have.s : "no fields");
    str_free(&have);
    return rc;
}

static int get_prompt(RowPlace *p, Talk *prompt, const Json *j)
{
    const char *name;
    const Json *v = json_field2(j, "prompt", "conversations", &name);
    int rc = talk_read(p, prompt, v, name, ROLE_USER);
    if (rc < 0)
        return rc;
    /* "...\n\nAssistant:" opens the answer's turn and is no message */
    const Message *last = prompt->n ? &prompt->at[prompt->n - 1] : NULL;
    if (json_str(v) && last && prompt->n > 1 && last->role == ROLE_ASSISTANT && last->n == 0)
        talk_drop_last(prompt);
    return talk_check(p, prompt, name, ROLE_USER);
}

static int check_answer(RowPlace *p, const Talk *t, const char *name)
{
    const Message *last = t->n ? &t->at[t->n - 1] : NULL;
    if (!last || (last->role == ROLE_ASSISTANT && text_is_blank(last->text, last->n)))
        return row_error(p, FAULT_EMPTY, name, "empty answer");
    if (last->role != ROLE_ASSISTANT)
        return row_error(p, FAULT_OTHER, name,
                         "the last message is of the %s, expected the assistant",
                         role_name(last->role));
    return 0;
}

/* What is left of an answer without the prompt must be one message. */
static int cut_answer(RowPlace *p, char **text, const Talk *t, const char *name)
{
    if (t->n != 1)
        return row_error(
            p, FAULT_NO_COMMON_PROMPT, name,
            "%d messages follow the common prompt, expected one answer of the assistant", t->n);
    *text = xstrndup(t->at[0].text, t->at[0].n);
    return 0;
}

static void set_messages_take(Record *r, Talk *t)
{
    r->messages = t->at;
    r->n_messages = t->n;
    memset(t, 0, sizeof *t);
}

/* prompt + chosen + rejected -> r->messages, r->text. */
static int parse_pair(Record *r, RowPlace *p, const Json *j)
{
    int rc = 0;
    Talk prompt = {0}, answer[2] = {{0}, {0}};
    static const char *const name[] = {"chosen", "rejected"};
    const bool explicit_prompt = json_field(j, "prompt") || json_field(j, "conversations");
    for (int k = 0; k < 2; k++) {
        const Json *v = json_field(j, name[k]);
        if (!v) {
            rc = missing(p, j, RECORD_PAIR, name[k]);
            goto fail;
        }
        if (!explicit_prompt && json_str(v) && !talk_is_transcript(json_str(v))) {
            rc = row_error(p, FAULT_OTHER, "prompt",
                           "missing, and %s does not begin with \"\\n\\nHuman:\"; add the field "
                           "prompt, or write %s as a list of messages",
                           name[k], name[k]);
            goto fail;
        }
        TRY(talk_read(p, &answer[k], v, name[k], ROLE_ASSISTANT));
        TRY(check_answer(p, &answer[k], name[k]));
    }
    if (explicit_prompt)
        TRY(get_prompt(p, &prompt, j));
    const int common = talk_common(&answer[0], &answer[1]);
    if (answer[0].n == answer[1].n && common == answer[0].n) {
        rc = row_error(p, FAULT_IDENTICAL, "chosen", "is the same as rejected");
        goto fail;
    }
    if (explicit_prompt) {
        for (int k = 0; k < 2; k++)
            if (answer[k].n > prompt.n && talk_common(&prompt, &answer[k]) == prompt.n)
                talk_drop_first(&answer[k], prompt.n);
    } else {
        if (common == 0) {
            rc = row_error(p, FAULT_NO_COMMON_PROMPT, "chosen",
                           "does not begin with the same prompt as rejected");
            goto fail;
        }
        talk_copy(&prompt, &answer[0], common);
        TRY(talk_check(p, &prompt, "chosen", ROLE_USER));
        for (int k = 0; k < 2; k++)
            talk_drop_first(&answer[k], common);
    }
    for (int k = 0; k < 2; k++)
        TRY(cut_answer(p, &r->text[k], &answer[k], name[k]));
    set_messages_take(r, &prompt);
fail:
    talk_free(&prompt);
    talk_free(&answer[0]);
    talk_free(&answer[1]);
    return rc;
}

static int parse_sft(Record *r, RowPlace *p, const Json *j)
{
    int rc = 0;
    Talk all = {0}, tail = {0};
    const char *name, *answer_name;
    const Json *v = json_field2(j, "messages", "conversations", &name);
    if (v) {
        TRY(talk_read(p, &all, v, name, ROLE_USER));
    } else {
        const Json *answer = json_field2(j, "completion", "response", &answer_name);
        if (!json_field(j, "prompt") || !answer) {
            const bool neither = !json_field(j, "prompt") && !answer;
            rc = missing(p, j, RECORD_SFT, neither ? "messages" : answer ? "prompt" : "completion");
            goto fail;
        }
        TRY(get_prompt(p, &all, j));
        TRY(talk_read(p, &tail, answer, answer_name, ROLE_ASSISTANT));
        TRY(check_answer(p, &tail, answer_name));
        r->n_context = all.n;
        talk_copy(&all, &tail, tail.n);
        name = answer_name;
    }
    TRY(talk_check(p, &all, name, ROLE_ASSISTANT));
    set_messages_take(r, &all);
fail:
    talk_free(&all);
    talk_free(&tail);
    return rc;
}

static int parse_prompt(Record *r, RowPlace *p, const Json *j)
{
    int rc = 0;
    Talk t = {0};
    if (json_field(j, "prompt")) {
        TRY(get_prompt(p, &t, j));
    } else if (json_field(j, "chosen") && json_field(j, "rejected")) {
        TRY(parse_pair(r, p, j));
        for (int k = 0; k < 2; k++) {
            free(r->text[k]);
            r->text[k] = NULL;
        }
        return 0;
    } else if (json_field(j, "messages") || json_field(j, "conversations")) {
        const char *name;
        const Json *v = json_field2(j, "messages", "conversations", &name);
        TRY(talk_read(p, &t, v, name, ROLE_USER));
        if (t.n && t.at[t.n - 1].role == ROLE_ASSISTANT)
            talk_drop_last(&t);
        TRY(talk_check(p, &t, name, ROLE_USER));
    } else {
        rc = missing(p, j, RECORD_PROMPT, "prompt");
        goto fail;
    }
    set_messages_take(r, &t);
fail:
    talk_free(&t);
    return rc;
}

static int get_bool(RowPlace *p, const Json *j, const char *name, SafetyLabel *out)
{
    const Json *v = json_field(j, name);
    if (!v)
        return 0;
    if (json_kind(v) != JSON_BOOLEAN)
        return row_error(p, FAULT_OTHER, name, "found %s, expected true or false",
                         json_kind_name(json_kind(v)));
    *out = json_bool(v, false) ? SAFETY_SAFE : SAFETY_UNSAFE;
    return 0;
}

static int parse_labelled(Record *r, RowPlace *p, const Json *j)
{
    int rc = 0;
    Talk prompt = {0}, answer = {0};
    const char *name, *label;
    const Json *v = json_field2(j, "response", "completion", &name),
               *l = json_field2(j, "is_safe", "label", &label);
    if (!v || !l || !(json_field(j, "prompt") || json_field(j, "conversations"))) {
        rc = missing(p, j, RECORD_LABELLED, !v ? name : !l ? label : "prompt");
        goto fail;
    }
    TRY(get_prompt(p, &prompt, j));
    TRY(talk_read(p, &answer, v, name, ROLE_ASSISTANT));
    TRY(check_answer(p, &answer, name));
    if (answer.n > prompt.n && talk_common(&prompt, &answer) == prompt.n)
        talk_drop_first(&answer, prompt.n);
    TRY(cut_answer(p, &r->text[0], &answer, name));
    TRY(get_bool(p, j, label, &r->safety[0]));
    set_messages_take(r, &prompt);
fail:
    talk_free(&prompt);
    talk_free(&answer);
    return rc;
}

static int parse_text(Record *r, RowPlace *p, const Json *j)
{
    Str text = {0};
    if (!json_field(j, "text"))
        return missing(p, j, RECORD_TEXT, "text");
    int rc = talk_text(p, json_field(j, "text"), "text", &text);
    if (rc == 0 && text_is_blank(str_get(&text), text.n))
        rc = row_error(p, FAULT_EMPTY, "text", "empty text");
    if (rc == 0)
        r->text[0] = str_take(&text);
    str_free(&text);
    return rc;
}

static int parse_rating(Record *r, RowPlace *p, const Json *j)
{
    int rc;
    const Json *v = json_field(j, "strength");
    r->strength = STRENGTH_UNKNOWN;
    if (v) {
        int s = 0;
        while (s < STRENGTH_COUNT &&
               !(json_str(v) && !strcmp(json_str(v), strength_name((Strength)s))))
            s++;
        if (s == STRENGTH_COUNT)
            return row_error(p, FAULT_OTHER, "strength",
                             "found %s%.40s%s, expected significant, better, slight, "
                             "negligible, unsure or unknown",
                             json_str(v) ? "'" : "",
                             json_str(v) ? json_str(v) : json_kind_name(json_kind(v)),
                             json_str(v) ? "'" : "");
        r->strength = (Strength)s;
    }
    if ((v = json_field(j, "margin"))) {
        r->margin = json_num(v, NAN);
        if (!isfinite(r->margin))
            return row_error(p, FAULT_OTHER, "margin", "found %s, expected a number",
                             json_kind_name(json_kind(v)));
    }
    if ((rc = get_bool(p, j, "chosen_safe", &r->safety[0])) < 0)
        return rc;
    return get_bool(p, j, "rejected_safe", &r->safety[1]);
}

static int parse_common(Record *r, RowPlace *p, const Json *j)
{
    const Json *v = json_field(j, "id");
    if (json_kind(v) == JSON_STR)
        r->id_text = xstrdup(json_str(v));
    else if (json_kind(v) == JSON_INT)
        r->id_text = xasprintf("%lld", (long long)json_int(v, 0));
    else if (v)
        return row_error(p, FAULT_OTHER, "id", "found %s, expected a string or an integer",
                         json_kind_name(json_kind(v)));
    if ((v = json_field(j, "tags"))) {
        if (json_kind(v) != JSON_ARR)
            return row_error(p, FAULT_OTHER, "tags",
                             "found %s, expected a list such as [\"safety\"]",
                             json_kind_name(json_kind(v)));
        for (size_t i = 0; i < json_len(v); i++) {
            const char *tag = json_str(json_at(v, i));
            if (!tag)
                return row_error(p, FAULT_OTHER, "tags", "entry %zu is no string", i + 1);
            r->tagged |= !strcmp(tag, "safety");
        }
    }
    if ((v = json_field(j, "weight"))) {
        r->weight = json_num(v, NAN);
        if (!(r->weight > 0 && isfinite(r->weight)))
            return row_error(p, FAULT_OTHER, "weight", "found %s, expected a number above 0",
                             isnan(r->weight) ? json_kind_name(json_kind(v)) : "one that is not");
    }
    if ((v = json_field(j, "source"))) {
        if (!json_str(v))
            return row_error(p, FAULT_OTHER, "source", "found %s, expected a string",
                             json_kind_name(json_kind(v)));
        r->source = xstrdup(json_str(v));
    }
    if (json_len(json_field(j, "tools")) || json_len(json_field(j, "tool_calls")))
        return row_error(p, FAULT_OTHER, json_len(json_field(j, "tools")) ? "tools" : "tool_calls",
                         "tools are not supported; remove the row");
    return 0;
}

static uint64_t hash_prompt(const Record *r)
{
    Str all = {0};
    int n = r->n_messages;
    if (r->kind == RECORD_SFT)
        n--; /* the last answer */
    for (int i = 0; i < n; i++) {
        const char *s = r->messages[i].text;
        size_t len = r->messages[i].n;
        text_strip(&s, &len);
        /* the length in front keeps "a", "bc" apart from "ab", "c" */
        const uint64_t head[2] = {(uint64_t)r->messages[i].role, len};
        str_add_bytes(&all, head, sizeof head);
        str_add_bytes(&all, s, len);
    }
    if (r->kind == RECORD_TEXT)
        str_add(&all, r->text[0]);
    const uint64_t h = hash64(str_get(&all), all.n, 0);
    str_free(&all);
    return h;
}

RecordKind record_kind_of(const Json *j)
{
    if (json_field(j, "chosen") || json_field(j, "rejected"))
        return RECORD_PAIR;
    if (json_field(j, "is_safe") || json_field(j, "label"))
        return RECORD_LABELLED;
    if (json_field(j, "messages") || json_field(j, "completion") || json_field(j, "response") ||
        (json_field(j, "conversations") && !json_field(j, "prompt")))
        return RECORD_SFT;
    return json_field(j, "text") && !json_field(j, "prompt") ? RECORD_TEXT : RECORD_PROMPT;
}

int record_parse_fault(Record *r, const Json *j, RecordKind want, const char *file, int64_t line,
                       RecordFault *fault)
{
    int rc;
    RowPlace p = {.file = file, .line = line};
    memset(r, 0, sizeof *r);
    r->kind = want;
    r->file = file;
    r->line = line;
    r->margin = NAN;
    r->weight = 1;
    r->strength = STRENGTH_UNKNOWN;
    TRY(parse_common(r, &p, j));
    switch (want) {
    case RECORD_TEXT:
        TRY(parse_text(r, &p, j));
        break;
    case RECORD_PROMPT:
        TRY(parse_prompt(r, &p, j));
        break;
    case RECORD_SFT:
        TRY(parse_sft(r, &p, j));
        break;
    case RECORD_PAIR:
        TRY(parse_rating(r, &p, j));
        TRY(parse_pair(r, &p, j));
        break;
    case RECORD_LABELLED:
        TRY(parse_labelled(r, &p, j));
        break;
    }
    r->prompt_hash = hash_prompt(r);
    r->id = r->id_text ? hash64(r->id_text, strlen(r->id_text), 0) : r->prompt_hash;
    *fault = FAULT_NONE;
    return 0;
fail:
    *fault = p.fault;
    record_free(r);
    return rc;
}

int record_parse(Record *r, const Json *j, RecordKind want, const char *file, int64_t line)
{
    RecordFault fault;
    return record_parse_fault(r, j, want, file, line, &fault);
}
