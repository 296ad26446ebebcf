/* record_parse.c - one JSON object -> one record, or one clear line about the field at fault.
 *
 * Every way of writing a conversation is first turned into a list of messages (Talk); the kinds
 * differ only in how they cut such lists into prompt and answers. Tested by
 * tests/unit/test_record.c and, on public data, tests/unit/test_import.c. */
#include "common/data/record_impl.h"

#include "common/base/error.h"
#include "common/base/hash.h"

#include <math.h>
#include <stdio.h>
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

static bool has_prompt(const Json *j)
{
    return json_field(j, "prompt") || json_field(j, "conversations") ||
           json_field(j, "instruction");
}

int record_check_prompt(RowPlace *p, const Talk *prompt, const char *name)
{
    return talk_check(p, prompt, name, ROLE_USER);
}

/* Alpaca: "history" [[instruction, output], ...], "instruction", and "input" behind a blank line.
 */
static int read_alpaca(RowPlace *p, Talk *t, const Json *j)
{
    int rc = 0;
    char where[64];
    Str text = {0};
    const Json *history = json_field(j, "history"), *input = json_field(j, "input");
    for (size_t i = 0; i < json_len(history); i++) {
        for (size_t k = 0; k < 2; k++) {
            snprintf(where, sizeof where, "history[%zu][%zu]", i, k);
            TRY(talk_read(p, t, json_at(json_at(history, i), k), where,
                          k ? ROLE_ASSISTANT : ROLE_USER));
        }
    }
    TRY(talk_text(p, json_field(j, "instruction"), "instruction", &text));
    if (input && !(json_str(input) && text_is_blank(json_str(input), json_str_len(input)))) {
        str_add(&text, text.n ? "\n\n" : "");
        TRY(talk_text(p, input, "input", &text));
    }
    talk_add(t, ROLE_USER, str_get(&text), text.n);
fail:
    str_free(&text);
    return rc;
}

/* "system" is a column of Alpaca's and ShareGPT's forms alone: TRL's have it among the messages. */
static int read_system(RowPlace *p, Talk *t, const Json *j)
{
    Str text = {0};
    const Json *v = json_field(j, "system");
    const int rc = v ? talk_text(p, v, "system", &text) : 0;
    if (rc == 0)
        talk_set_system(t, str_get(&text), text.n);
    str_free(&text);
    return rc;
}

/* The messages of one of the three names, whoever speaks last. */
static int read_prompt(RowPlace *p, Talk *t, const Json *j, const char **name)
{
    int rc = 0;
    const Json *v = json_field2(j, "prompt", "conversations", name);
    if (!v) {
        *name = "instruction";
        TRY(read_alpaca(p, t, j));
    } else {
        TRY(talk_read(p, t, v, *name, ROLE_USER));
    }
    if (**name != 'p')
        TRY(read_system(p, t, j));
fail:
    return rc;
}

static int get_prompt(RowPlace *p, Talk *prompt, const Json *j)
{
    const char *name;
    const int rc = read_prompt(p, prompt, j, &name);
    if (rc < 0)
        return rc;
    /* "...\n\nAssistant:" opens the answer's turn and is no message */
    const Message *last = prompt->n ? &prompt->at[prompt->n - 1] : NULL;
    if (json_str(json_field(j, name)) && prompt->n > 1 && last->role == ROLE_ASSISTANT &&
        last->n == 0)
        talk_drop_last(prompt);
    return record_check_prompt(p, prompt, name);
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

static int check_answers(RowPlace *p, const Talk answer[2], const char *const name[2])
{
    int rc;
    for (int k = 0; k < 2; k++)
        if ((rc = check_answer(p, &answer[k], name[k])) < 0)
            return rc;
    if (answer[0].n == answer[1].n && talk_common(&answer[0], &answer[1]) == answer[0].n)
        return row_error(p, FAULT_IDENTICAL, name[0], "is the same as %s", name[1]);
    return 0;
}

int record_set_pair(Record *r, RowPlace *p, Talk *prompt, Talk answer[2], const char *const name[2])
{
    int rc = 0;
    TRY(check_answers(p, answer, name));
    for (int k = 0; k < 2; k++) {
        if (answer[k].n > prompt->n && talk_common(prompt, &answer[k]) == prompt->n)
            talk_drop_first(&answer[k], prompt->n);
        TRY(cut_answer(p, &r->text[k], &answer[k], name[k]));
    }
    set_messages_take(r, prompt);
fail:
    return rc;
}

/* The prompt inside two conversations: their longest common start in whole messages. */
static int cut_talks(RowPlace *p, Talk *prompt, Talk answer[2], const char *const name[2])
{
    int rc;
    const int common = talk_common(&answer[0], &answer[1]);
    if ((rc = check_answers(p, answer, name)) < 0)
        return rc;
    if (common == 0)
        return row_error(p, FAULT_NO_COMMON_PROMPT, name[0],
                         "does not begin with the same prompt as %s", name[1]);
    talk_copy(prompt, &answer[0], common);
    if ((rc = record_check_prompt(p, prompt, name[0])) < 0)
        return rc;
    for (int k = 0; k < 2; k++)
        talk_drop_first(&answer[k], common);
    return 0;
}

static void keep_from(Message *m, size_t from)
{
    const char *s = m->text + from;
    size_t n = m->n - from;
    text_strip(&s, &n);
    memmove(m->text, s, n);
    m->text[n] = 0;
    m->n = n;
}

/* The prompt inside two plain strings, as TRL has it: their longest common start, cut in front of a
 * blank. TRL also cuts inside a word ("a ca|t", "a ca|r"); here both keep the word whole, since the
 * answer is a message of its own. */
static int cut_strings(RowPlace *p, Talk *prompt, Talk answer[2], const char *const name[2])
{
    int rc;
    Message *a = &answer[0].at[0], *b = &answer[1].at[0];
    size_t n = 0;
    if ((rc = check_answers(p, answer, name)) < 0)
        return rc;
    while (n < a->n && n < b->n && a->text[n] == b->text[n])
        n++;
    while (n && (!text_is_blank(a->text + n - 1, 1) || text_is_blank(a->text + n, a->n - n) ||
                 text_is_blank(b->text + n, b->n - n)))
        n--;
    if (text_is_blank(a->text, n))
        return row_error(p, FAULT_NO_COMMON_PROMPT, "prompt",
                         "missing, and %s and %s have no first word in common; add the field "
                         "prompt, or write both as lists of messages",
                         name[0], name[1]);
    talk_add(prompt, ROLE_USER, a->text, n - 1);
    keep_from(a, n);
    keep_from(b, n);
    return 0;
}

/* prompt + chosen + rejected -> r->messages, r->text. */
static int parse_pair(Record *r, RowPlace *p, const Json *j)
{
    int rc = 0, n_plain = 0;
    Talk prompt = {0}, answer[2] = {{0}, {0}};
    static const char *const name[] = {"chosen", "rejected"};
    for (int k = 0; k < 2; k++) {
        const Json *v = json_field(j, name[k]);
        if (!v) {
            rc = missing(p, j, RECORD_PAIR, name[k]);
            goto fail;
        }
        n_plain += json_str(v) && !talk_is_transcript(json_str(v));
        TRY(talk_read(p, &answer[k], v, name[k], ROLE_ASSISTANT));
    }
    if (has_prompt(j))
        TRY(get_prompt(p, &prompt, j));
    else if (n_plain == 2)
        TRY(cut_strings(p, &prompt, answer, name));
    else
        TRY(cut_talks(p, &prompt, answer, name));
    TRY(record_set_pair(r, p, &prompt, answer, name));
fail:
    talk_free(&prompt);
    talk_free(&answer[0]);
    talk_free(&answer[1]);
    return rc;
}

static const Json *completion_of(const Json *j, const char **name)
{
    const Json *v = json_field2(j, "completion", "response", name);
    if (v || !json_field(j, "output"))
        return v;
    *name = "output";
    return json_field(j, "output");
}

/* {prompt, completion}: the answers inside the prompt are not trained on. */
static int parse_completion(Record *r, RowPlace *p, const Json *j, Talk *all, const char **name)
{
    int rc = 0;
    Talk tail = {0};
    const Json *answer = completion_of(j, name);
    if (!has_prompt(j) || !answer) {
        const bool neither = !has_prompt(j) && !answer;
        rc = missing(p, j, RECORD_SFT, neither ? "messages" : answer ? "prompt" : "completion");
        goto fail;
    }
    TRY(get_prompt(p, all, j));
    TRY(talk_read(p, &tail, answer, *name, ROLE_ASSISTANT));
    TRY(check_answer(p, &tail, *name));
    r->n_context = all->n;
    talk_copy(all, &tail, tail.n);
fail:
    talk_free(&tail);
    return rc;
}

static int parse_sft(Record *r, RowPlace *p, const Json *j)
{
    int rc = 0;
    Talk all = {0};
    const char *name;
    if (json_field(j, "messages")) {
        name = "messages";
        TRY(talk_read(p, &all, json_field(j, name), name, ROLE_USER));
    } else if (json_field(j, "conversations") && !json_field(j, "prompt")) {
        TRY(read_prompt(p, &all, j, &name));
    } else {
        TRY(parse_completion(r, p, j, &all, &name));
    }
    TRY(talk_check(p, &all, name, ROLE_ASSISTANT));
    set_messages_take(r, &all);
fail:
    talk_free(&all);
    return rc;
}

static int parse_prompt(Record *r, RowPlace *p, const Json *j)
{
    int rc = 0;
    Talk t = {0};
    const char *name;
    if (json_field(j, "prompt") || json_field(j, "instruction")) {
        TRY(get_prompt(p, &t, j));
    } else if (json_field(j, "chosen") && json_field(j, "rejected")) {
        TRY(parse_pair(r, p, j));
        for (int k = 0; k < 2; k++) {
            free(r->text[k]);
            r->text[k] = NULL;
        }
        return 0;
    } else if (json_field(j, "messages") || json_field(j, "conversations")) {
        if (json_field(j, "messages"))
            TRY(talk_read(p, &t, json_field(j, "messages"), name = "messages", ROLE_USER));
        else
            TRY(read_prompt(p, &t, j, &name));
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

int record_set_labelled(Record *r, RowPlace *p, Talk *prompt, Talk *answer, const char *name)
{
    int rc = 0;
    TRY(check_answer(p, answer, name));
    if (answer->n > prompt->n && talk_common(prompt, answer) == prompt->n)
        talk_drop_first(answer, prompt->n);
    TRY(cut_answer(p, &r->text[0], answer, name));
    set_messages_take(r, prompt);
fail:
    return rc;
}

static int parse_labelled(Record *r, RowPlace *p, const Json *j)
{
    int rc = 0;
    Talk prompt = {0}, answer = {0};
    const char *name, *label;
    const Json *v = json_field2(j, "response", "completion", &name),
               *l = json_field2(j, "is_safe", "label", &label);
    if (!v || !l) {
        rc = missing(p, j, RECORD_LABELLED, !v ? name : label);
        goto fail;
    }
    TRY(talk_read(p, &answer, v, name, ROLE_ASSISTANT));
    if (has_prompt(j)) {
        TRY(get_prompt(p, &prompt, j));
    } else if (answer.n > 1) { /* TRL unpairs a pair with the prompt inside that way */
        talk_copy(&prompt, &answer, answer.n - 1);
        TRY(record_check_prompt(p, &prompt, name));
    } else {
        rc = missing(p, j, RECORD_LABELLED, "prompt");
        goto fail;
    }
    TRY(record_set_labelled(r, p, &prompt, &answer, name));
    TRY(record_read_bool(p, j, label, &r->safety[0]));
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
    const char *name;
    if (json_field(j, "chosen") || json_field(j, "rejected"))
        return RECORD_PAIR;
    if (json_field(j, "is_safe") || json_field(j, "label"))
        return RECORD_LABELLED;
    if (json_field(j, "messages") || completion_of(j, &name) ||
        (json_field(j, "conversations") && !json_field(j, "prompt")))
        return RECORD_SFT;
    return json_field(j, "text") && !has_prompt(j) ? RECORD_TEXT : RECORD_PROMPT;
}

void record_begin(Record *r, RecordKind kind, const JsonSource *from)
{
    *r = (Record){.kind = kind,
                  .file = from->file,
                  .line = from->line,
                  .margin = NAN,
                  .weight = 1,
                  .strength = STRENGTH_UNKNOWN};
}

void record_end(Record *r)
{
    r->prompt_hash = hash_prompt(r);
    r->id = r->id_text ? hash64(r->id_text, strlen(r->id_text), 0) : r->prompt_hash;
}

int record_parse_at(Record *r, const Json *j, RecordKind want, const JsonSource *from,
                    RecordFault *fault)
{
    int rc;
    RowPlace p = {.from = from};
    record_begin(r, want, from);
    TRY(record_read_common(r, &p, j));
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
        TRY(record_read_rating(r, &p, j));
        TRY(parse_pair(r, &p, j));
        break;
    case RECORD_LABELLED:
        TRY(parse_labelled(r, &p, j));
        break;
    }
    record_end(r);
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
    return record_parse_at(r, j, want, &(JsonSource){.file = file, .line = line}, &fault);
}
