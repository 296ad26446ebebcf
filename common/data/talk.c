/* talk.c - every way of writing a conversation -> one list of messages.
 *
 * Lists of {role, content} or {from, value}, a single such object, transcripts with "\n\nHuman:"
 * and plain strings all come out alike, so the record kinds need not know them. Tested by
 * tests/unit/test_record.c. */
#include "common/data/talk.h"

#include "common/base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int row_error(RowPlace *p, RecordFault fault, const char *field, const char *fmt, ...)
{
    Str what = {0};
    va_list ap;
    va_start(ap, fmt);
    str_addv(&what, fmt, ap);
    va_end(ap);
    for (size_t i = 0; i < what.n; i++) /* what was quoted from the row: one line, one message */
        if ((unsigned char)what.s[i] < ' ')
            what.s[i] = ' ';
    p->fault = fault;
    int64_t line = p->from->line, column = 0;
    if (p->from->text)
        json_place(p->from, field, &line, &column);
    char place[32] = "";
    if (column)
        snprintf(place, sizeof place, ":%lld", (long long)column);
    const int rc = error_set(ERR_DATA, "%s:%lld%s: %s: %s", p->from->file, (long long)line, place,
                             field, str_get(&what));
    str_free(&what);
    return rc;
}

const Json *json_field(const Json *j, const char *key)
{
    const Json *v = json_get(j, key);
    return json_kind(v) == JSON_NIL ? NULL : v;
}

const Json *json_field2(const Json *j, const char *a, const char *b, const char **name)
{
    const Json *v = json_field(j, a);
    *name = v || !json_field(j, b) ? a : b;
    return v ? v : json_field(j, b);
}

static bool is_blank_char(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

void text_strip(const char **s, size_t *n)
{
    while (*n && is_blank_char(**s))
        (*s)++, (*n)--;
    while (*n && is_blank_char((*s)[*n - 1]))
        (*n)--;
}

bool text_is_blank(const char *s, size_t n)
{
    text_strip(&s, &n);
    return n == 0;
}

void talk_add(Talk *t, Role role, const char *text, size_t n)
{
    const int i = VEC_GROW(t->at, t->n, t->cap);
    t->at[i] = (Message){.role = role, .text = xstrndup(text, n), .n = n};
}

void talk_set_system(Talk *t, const char *text, size_t n)
{
    if (text_is_blank(text, n) || (t->n && t->at[0].role == ROLE_SYSTEM))
        return;
    talk_add(t, ROLE_SYSTEM, text, n);
    const Message m = t->at[t->n - 1];
    memmove(t->at + 1, t->at, (size_t)(t->n - 1) * sizeof *t->at);
    t->at[0] = m;
}

void talk_drop_last(Talk *t)
{
    free(t->at[--t->n].text);
}

void talk_free(Talk *t)
{
    while (t->n)
        talk_drop_last(t);
    free(t->at);
    memset(t, 0, sizeof *t);
}

void talk_drop_first(Talk *t, int k)
{
    for (int i = 0; i < k; i++)
        free(t->at[i].text);
    t->n -= k;
    if (k)
        memmove(t->at, t->at + k, (size_t)t->n * sizeof *t->at);
}

static bool message_equal(const Message *a, const Message *b)
{
    const char *s = a->text, *t = b->text;
    size_t n = a->n, m = b->n;
    text_strip(&s, &n);
    text_strip(&t, &m);
    return a->role == b->role && n == m && !memcmp(s, t, n);
}

int talk_common(const Talk *a, const Talk *b)
{
    int k = 0;
    while (k < a->n && k < b->n && message_equal(&a->at[k], &b->at[k]))
        k++;
    return k;
}

void talk_copy(Talk *dst, const Talk *src, int n)
{
    for (int i = 0; i < n; i++)
        talk_add(dst, src->at[i].role, src->at[i].text, src->at[i].n);
}

/* A string, or a list of parts {"type": "text", "text": ...} put together. */
int talk_text(RowPlace *p, const Json *j, const char *name, Str *out)
{
    if (json_str(j)) {
        if (memchr(json_str(j), 0, json_str_len(j)))
            return row_error(p, FAULT_OTHER, name, "holds a NUL character (\\u0000)");
        str_add_bytes(out, json_str(j), json_str_len(j));
        return 0;
    }
    if (json_kind(j) != JSON_ARR)
        return row_error(p, FAULT_OTHER, name, "found %s, expected a string",
                         json_kind_name(json_kind(j)));
    for (size_t i = 0; i < json_len(j); i++) {
        const Json *part = json_at(j, i), *text = json_field(part, "text");
        const char *type = json_str(json_field(part, "type"));
        if (type && strcmp(type, "text"))
            return row_error(p, FAULT_OTHER, name,
                             "part %zu is of type '%s'; only text is supported", i + 1, type);
        text = text ? text : json_field(part, "value");
        if (!json_str(text))
            return row_error(p, FAULT_OTHER, name, "part %zu has no text", i + 1);
        const int rc = talk_text(p, text, name, out);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int add_message(RowPlace *p, Talk *t, const Json *m, const char *name)
{
    const char *key;
    Str text = {0};
    Role role;
    if (json_kind(m) != JSON_OBJ)
        return row_error(p, FAULT_OTHER, name, "found %s, expected a message {role, content}",
                         json_kind_name(json_kind(m)));
    if (json_len(json_field(m, "tool_calls")))
        return row_error(p, FAULT_OTHER, name, "holds tool_calls; tools are not supported");
    const Json *who = json_field2(m, "role", "from", &key);
    if (!json_str(who))
        return row_error(p, FAULT_OTHER, name, "%s '%s'; expected a message {role, content}",
                         who ? "is no string:" : "has no field", key);
    if (role_parse(json_str(who), &role) < 0)
        return row_error(p, FAULT_OTHER, name,
                         "unknown role '%.40s', expected system, user or assistant", json_str(who));
    const Json *what = json_field2(m, "content", "value", &key);
    if (!what)
        return row_error(p, FAULT_OTHER, name, "has no field '%s'", key);
    const int rc = talk_text(p, what, name, &text);
    if (rc < 0) {
        str_free(&text);
        return rc;
    }
    if (role == ROLE_SYSTEM && text_is_blank(str_get(&text), text.n)) {
        str_free(&text);
        return 0;
    }
    talk_add(t, role, str_get(&text), text.n);
    str_free(&text);
    return 0;
}

/* The next "\n\nHuman:" or "\n\nAssistant:" in s, or NULL. */
static const char *next_turn(const char *s, Role *role, size_t *marker)
{
    for (; (s = strstr(s, "\n\n")); s++) {
        if (!strncmp(s, "\n\nHuman:", 8)) {
            *role = ROLE_USER;
            *marker = 8;
            return s;
        }
        if (!strncmp(s, "\n\nAssistant:", 12)) {
            *role = ROLE_ASSISTANT;
            *marker = 12;
            return s;
        }
    }
    return NULL;
}

/* Turns of one speaker in a row are joined: in the public sets that is one speaker going on. */
static void add_turn(Talk *t, Role role, const char *s, size_t n)
{
    text_strip(&s, &n);
    Message *last = t->n ? &t->at[t->n - 1] : NULL;
    if (!last || last->role != role) {
        talk_add(t, role, s, n);
        return;
    }
    Str joined = {0};
    str_add_bytes(&joined, last->text, last->n);
    str_add(&joined, last->n && n ? "\n\n" : "");
    str_add_bytes(&joined, s, n);
    free(last->text);
    last->n = joined.n;
    last->text = joined.n ? str_take(&joined) : xstrdup("");
    str_free(&joined);
}

bool talk_is_transcript(const char *s)
{
    return !strncmp(s, "\n\nHuman:", 8) || !strncmp(s, "\n\nAssistant:", 12);
}

static void add_transcript(Talk *t, const char *s)
{
    Role role, next_role;
    size_t marker, next_marker;
    const char *at = next_turn(s, &role, &marker);
    while (at) {
        const char *from = at + marker, *next = next_turn(from, &next_role, &next_marker);
        add_turn(t, role, from, next ? (size_t)(next - from) : strlen(from));
        at = next;
        role = next_role;
        marker = next_marker;
    }
}

/* `lone`: the role of a string that is no transcript. */
int talk_read(RowPlace *p, Talk *t, const Json *j, const char *name, Role lone)
{
    char where[96];
    if (json_kind(j) == JSON_OBJ)
        return add_message(p, t, j, name);
    if (json_kind(j) == JSON_STR) {
        Str text = {0};
        const int rc = talk_text(p, j, name, &text);
        if (rc == 0 && talk_is_transcript(str_get(&text)))
            add_transcript(t, text.s);
        else if (rc == 0)
            talk_add(t, lone, str_get(&text), text.n);
        str_free(&text);
        return rc;
    }
    if (json_kind(j) != JSON_ARR)
        return row_error(p, FAULT_OTHER, name, "found %s, expected a string or a list of messages",
                         json_kind_name(json_kind(j)));
    for (size_t i = 0; i < json_len(j); i++) {
        snprintf(where, sizeof where, "%s[%zu]", name, i);
        const int rc = add_message(p, t, json_at(j, i), where);
        if (rc < 0)
            return rc;
    }
    return t->n ? 0 : row_error(p, FAULT_EMPTY, name, "holds no messages");
}

/* Optional system, then user and assistant in turns, none empty, `last` at the end. */
int talk_check(RowPlace *p, const Talk *t, const char *name, Role last)
{
    Role expected = ROLE_USER;
    if (t->n == 0)
        return row_error(p, FAULT_EMPTY, name, "holds no messages");
    for (int i = 0; i < t->n; i++) {
        const Message *m = &t->at[i];
        if (text_is_blank(m->text, m->n))
            return row_error(p, FAULT_EMPTY, name,
                             i + 1 == t->n && m->role == ROLE_ASSISTANT
                                 ? "empty answer"
                                 : "message %d (%s) is empty",
                             i + 1, role_name(m->role));
        if (i == 0 && m->role == ROLE_SYSTEM)
            continue;
        if (m->role != expected)
            return row_error(p, FAULT_OTHER, name,
                             "message %d is of the %s, expected the %s: user and assistant "
                             "alternate, the user first",
                             i + 1, role_name(m->role), role_name(expected));
        expected = expected == ROLE_USER ? ROLE_ASSISTANT : ROLE_USER;
    }
    if (t->at[t->n - 1].role != last)
        return row_error(p, FAULT_OTHER, name, "the last message is of the %s, expected the %s",
                         role_name(t->at[t->n - 1].role), role_name(last));
    return 0;
}
