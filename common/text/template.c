/* template.c - conversations to ids: llama2, chatml, plain.
 *
 * An answer is always encoded apart from what stands before it, and its closing token is an id, so
 * the ids of a prompt never depend on the answer: what a policy generates from the open turn is
 * what training sees. Tested by tests/unit/test_template.c. */
#include "common/base/error.h"
#include "common/text/template.h"
#include "common/text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

static const char *const role_names[] = {"system", "user", "assistant"};
static const char *const template_names[] = {"auto", "llama2", "chatml", "plain"};

static const char im_start[] = "<|im_start|>", im_end[] = "<|im_end|>";
static const char *const chatml_heads[] = {"system\n", "user\n", "assistant\n"}; /* by Role */
static const char plain_user[] = "\n\nHuman:", plain_assistant[] = "\n\nAssistant:";

const char *role_name(Role r)
{
    CHECK((unsigned)r <= ROLE_ASSISTANT, "role %d", (int)r);
    return role_names[r];
}

int role_parse(const char *name, Role *out)
{
    static const struct {
        const char *name;
        Role role;
    } known[] = {
        {"system", ROLE_SYSTEM},       {"user", ROLE_USER},     {"human", ROLE_USER},
        {"assistant", ROLE_ASSISTANT}, {"gpt", ROLE_ASSISTANT}, {"bot", ROLE_ASSISTANT},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0) {
            *out = known[i].role;
            return 0;
        }
    return -1;
}

const char *template_name(TemplateKind kind)
{
    CHECK((unsigned)kind <= TEMPLATE_PLAIN, "template %d", (int)kind);
    return template_names[kind];
}

/* ---- choosing a template */

static int template_detect(TemplateKind *kind, const Tokenizer *tok)
{
    const char *text = tokenizer_chat_template(tok);
    if (!text)
        return error_set(ERR_CONFIG,
                         "%s: the model has no chat template; "
                         "set `template: llama2`, `chatml` or `plain`",
                         tok->path);
    if (strstr(text, im_start) && strstr(text, im_end) && !strstr(text, "<|im_sep|>"))
        *kind = TEMPLATE_CHATML;
    else if (strstr(text, "[INST]") && strstr(text, "<<SYS>>"))
        *kind = TEMPLATE_LLAMA2;
    else if (strstr(text, "Human:") && strstr(text, "Assistant:"))
        *kind = TEMPLATE_PLAIN;
    else
        return error_set(ERR_CONFIG,
                         "%s: the model's chat template is none of llama2, chatml, plain; "
                         "set `template: llama2`, `chatml` or `plain` to force one",
                         tok->path);
    return 0;
}

static int missing_token(const ChatTemplate *t, const char *what)
{
    return error_set(ERR_DATA,
                     "%s: template %s needs %s, which the tokenizer has not; "
                     "set another `template`",
                     t->tok->path, template_name(t->kind), what);
}

int template_init(ChatTemplate *t, TemplateKind kind, Tokenizer *tok)
{
    int rc;
    *t = (ChatTemplate){.kind = kind, .tok = tok};
    if (kind == TEMPLATE_AUTO && (rc = template_detect(&t->kind, tok)) < 0)
        return rc;
    t->bos = tokenizer_bos(tok);
    t->end = t->kind == TEMPLATE_CHATML ? tokenizer_id(tok, im_end) : tokenizer_eos(tok);
    if (t->end < 0)
        return missing_token(t,
                             t->kind == TEMPLATE_CHATML ? "the token <|im_end|>" : "an EOS token");
    if (t->kind == TEMPLATE_CHATML && tokenizer_id(tok, im_start) < 0)
        return missing_token(t, "the token <|im_start|>");
    if (t->kind == TEMPLATE_LLAMA2 && t->bos < 0)
        return missing_token(t, "a BOS token");
    return 0;
}

/* ---- checks of a conversation */

static const char *const llama2_markers[] = {"[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", NULL};
static const char *const chatml_markers[] = {im_start, im_end, NULL};
static const char *const plain_markers[] = {plain_user, plain_assistant, NULL};

static int check_markers(const ChatTemplate *t, const Message *m, int i)
{
    const char *const *marker = t->kind == TEMPLATE_LLAMA2   ? llama2_markers
                                : t->kind == TEMPLATE_CHATML ? chatml_markers
                                                             : plain_markers;
    for (; *marker; marker++) {
        const char *shown = *marker;
        if (!memmem(m->text, m->n, shown, strlen(shown)))
            continue;
        while (*shown == '\n')
            shown++;
        return error_set(ERR_DATA,
                         "message %d (%s) holds \"%s\", a marker of template %s; remove it", i + 1,
                         role_name(m->role), shown, template_name(t->kind));
    }
    return 0;
}

static int check_messages(const ChatTemplate *t, const Message *m, int n, bool open_turn)
{
    int rc, from = n > 0 && m[0].role == ROLE_SYSTEM;
    if (n == from)
        return error_set(ERR_DATA, "a conversation needs a user message");
    for (int i = from; i < n; i++) {
        Role want = (i - from) % 2 ? ROLE_ASSISTANT : ROLE_USER;
        if (m[i].role != want)
            return error_set(
                ERR_DATA,
                "message %d is of role %s; expected %s, since user and assistant alternate", i + 1,
                role_name(m[i].role), role_name(want));
    }
    if (open_turn && m[n - 1].role == ROLE_ASSISTANT)
        return error_set(ERR_DATA,
                         "message %d is of role assistant; a prompt ends with a user message", n);
    for (int i = 0; i < n; i++)
        if ((rc = check_markers(t, &m[i], i)) < 0)
            return rc;
    return 0;
}

/* ---- rendering */

/* Python's str.strip(), which the original templates apply; U+001C..001F are spaces there. */
static bool is_strip_space(uint32_t c)
{
    return utf8_is_space(c) || (c >= 0x1C && c <= 0x1F);
}

static void strip(const char **text, size_t *n)
{
    const char *s = *text, *end = s + *n;
    int len;
    if (utf8_find_invalid(s, *n) < *n)
        return; /* the tokenizer says so */
    while (s < end && is_strip_space(utf8_get(s, &len)))
        s += len;
    while (end > s) {
        const char *last = end - 1;
        while (((unsigned char)*last & 0xC0) == 0x80)
            last--;
        if (!is_strip_space(utf8_get(last, &len)))
            break;
        end = last;
    }
    *text = s;
    *n = (size_t)(end - s);
}

static int add_text(const ChatTemplate *t, const char *s, size_t n, PiecePlace place, IdList *ids)
{
    return n ? tokenizer_encode_at(t->tok, s, n, place, ids) : 0;
}

static int add_literal(const ChatTemplate *t, const char *s, PiecePlace place, IdList *ids)
{
    return add_text(t, s, strlen(s), place, ids);
}

static void span_set(Span *spans, int i, int from, int to)
{
    if (spans)
        spans[i] = (Span){from, to};
}

/* The prompt of a turn is one text, as Meta encodes it, so a token may hold bytes of a marker and
 * of a message. A message's span begins where the encoding of the text before it first differs from
 * the whole, and ends likewise. */
static int span_find(const ChatTemplate *t, Span *span, const Str *text, size_t from, size_t to,
                     const int32_t *ids, int n, int base)
{
    size_t ends[2] = {from, to};
    int at[2] = {0, 0};
    IdList part = {0};
    int rc = 0;
    for (int k = 0; k < 2; k++) {
        part.n = 0;
        TRY(add_text(t, str_get(text), ends[k], PIECE_AFTER_TOKEN, &part));
        while (at[k] < n && at[k] < part.n && part.at[at[k]] == ids[at[k]])
            at[k]++;
    }
    *span = (Span){base + at[0], base + (at[1] > at[0] ? at[1] : at[0])};
fail:
    id_list_free(&part);
    return rc;
}

/* <s>[INST] (<<SYS>>\n{system}\n<</SYS>>\n\n){user} [/INST]; what stands between "[INST] " and
 * " [/INST]" is stripped as a whole. */
static int add_llama2_prompt(const ChatTemplate *t, const Message *system, const Message *user,
                             IdList *ids, Span *system_span, Span *user_span)
{
    Str text = {0};
    const char *s = user->text;
    size_t n = user->n, sys_from = 0, sys_to = 0, from;
    int base, rc;
    id_list_add(ids, t->bos);
    base = ids->n;
    str_add(&text, "[INST] ");
    if (system) {
        /* the user's text is stripped at its end only: its start is inside the stripped whole */
        const char *tail = s;
        size_t tail_n = n;
        strip(&tail, &tail_n);
        n = tail_n ? (size_t)(tail + tail_n - s) : 0;
        str_add(&text, "<<SYS>>\n");
        sys_from = text.n;
        str_add_bytes(&text, system->text, system->n);
        sys_to = text.n;
        str_add(&text, "\n<</SYS>>\n\n");
        if (n == 0) /* then the stripping reaches the block's own newlines */
            text.n -= 2;
    } else {
        strip(&s, &n);
    }
    from = text.n;
    str_add_bytes(&text, s, n);
    str_add(&text, " [/INST]");
    TRY(add_text(t, str_get(&text), text.n, PIECE_AFTER_TOKEN, ids));
    if (system_span)
        TRY(span_find(t, system_span, &text, sys_from, sys_to, ids->at + base, ids->n - base,
                      base));
    if (user_span)
        TRY(span_find(t, user_span, &text, from, from + n, ids->at + base, ids->n - base, base));
fail:
    str_free(&text);
    return rc;
}

/* " {answer} " and EOS. */
static int add_llama2_answer(const ChatTemplate *t, const Message *m, IdList *ids)
{
    Str text = {0};
    const char *s = m->text;
    size_t n = m->n;
    int rc;
    strip(&s, &n);
    str_add(&text, " ");
    str_add_bytes(&text, s, n);
    str_add(&text, " ");
    rc = add_text(t, str_get(&text), text.n, PIECE_CONTINUES, ids);
    str_free(&text);
    id_list_add(ids, t->end);
    return rc;
}

static int render_llama2(const ChatTemplate *t, const Message *m, int n, IdList *ids, Span *spans)
{
    const Message *system = m[0].role == ROLE_SYSTEM ? m : NULL;
    int rc = 0;
    for (int i = system != NULL; i < n && rc >= 0; i++) {
        int from = ids->n;
        if (m[i].role == ROLE_USER) {
            bool block = system && i == 1;
            rc = add_llama2_prompt(t, block ? system : NULL, &m[i], ids,
                                   block && spans ? &spans[0] : NULL, spans ? &spans[i] : NULL);
        } else {
            rc = add_llama2_answer(t, &m[i], ids);
            span_set(spans, i, from, ids->n);
        }
    }
    return rc;
}

/* "{role}\n", the content and the "\n" behind <|im_end|> are encoded apart. */
static int render_chatml(const ChatTemplate *t, const Message *m, int n, bool open_turn,
                         IdList *ids, Span *spans)
{
    int32_t start = tokenizer_id(t->tok, im_start);
    int rc;
    for (int i = 0; i < n; i++) {
        int from;
        id_list_add(ids, start);
        TRY(add_literal(t, chatml_heads[m[i].role], PIECE_AFTER_TOKEN, ids));
        from = ids->n;
        TRY(add_text(t, m[i].text, m[i].n, PIECE_CONTINUES, ids));
        if (m[i].role == ROLE_ASSISTANT)
            id_list_add(ids, t->end);
        span_set(spans, i, from, ids->n);
        if (m[i].role != ROLE_ASSISTANT)
            id_list_add(ids, t->end);
        TRY(add_literal(t, "\n", PIECE_AFTER_TOKEN, ids));
    }
    if (open_turn) {
        id_list_add(ids, start);
        TRY(add_literal(t, chatml_heads[ROLE_ASSISTANT], PIECE_AFTER_TOKEN, ids));
    }
    return 0;
fail:
    return rc;
}

/* A marker; *place becomes that of the text behind it: an added token ends a piece. */
static int add_plain_marker(const ChatTemplate *t, const char *marker, PiecePlace *place,
                            IdList *ids)
{
    int32_t id = vocab_get(&t->tok->added_ids, marker, strlen(marker));
    int rc = 0;
    if (id >= 0)
        id_list_add(ids, id);
    else
        rc = add_literal(t, marker, *place, ids);
    *place = id >= 0 ? PIECE_AFTER_TOKEN : PIECE_CONTINUES;
    return rc;
}

/* Markers and contents are encoded apart, each content with its space in front. */
static int render_plain(const ChatTemplate *t, const Message *m, int n, bool open_turn, IdList *ids,
                        Span *spans)
{
    PiecePlace place = PIECE_START; /* as in encode(text): the post-processor puts BOS in front */
    Str text = {0};
    int rc = 0;
    if (t->bos >= 0)
        id_list_add(ids, t->bos);
    for (int i = 0; i < n; i++) {
        bool answer = m[i].role == ROLE_ASSISTANT;
        int from;
        str_clear(&text);
        if (m[i].role != ROLE_SYSTEM) {
            TRY(add_plain_marker(t, answer ? plain_assistant : plain_user, &place, ids));
            str_add(&text, " ");
        }
        str_add_bytes(&text, m[i].text, m[i].n);
        from = ids->n;
        TRY(add_text(t, str_get(&text), text.n, place, ids));
        if (text.n)
            place = PIECE_CONTINUES;
        if (answer) {
            id_list_add(ids, t->end);
            place = PIECE_AFTER_TOKEN;
        }
        span_set(spans, i, from, ids->n);
    }
    if (open_turn)
        TRY(add_plain_marker(t, plain_assistant, &place, ids));
fail:
    str_free(&text);
    return rc;
}

int template_render(const ChatTemplate *t, const Message *messages, int n, bool open_turn,
                    IdList *ids, Span *spans)
{
    int rc = check_messages(t, messages, n, open_turn);
    if (rc < 0)
        return rc;
    if (t->kind == TEMPLATE_LLAMA2)
        return render_llama2(t, messages, n, ids, spans);
    if (t->kind == TEMPLATE_CHATML)
        return render_chatml(t, messages, n, open_turn, ids, spans);
    CHECK(t->kind == TEMPLATE_PLAIN, "template %d", (int)t->kind);
    return render_plain(t, messages, n, open_turn, ids, spans);
}

int template_answer_text(const ChatTemplate *t, const int32_t *ids, int n, Str *out)
{
    Str text = {0};
    const char *s;
    size_t len;
    int rc;
    if (n > 0 && ids[n - 1] == t->end)
        n--;
    rc = tokenizer_decode(t->tok, ids, n, true, &text);
    s = str_get(&text);
    len = text.n;
    strip(&s, &len);
    str_add_bytes(out, s, len);
    str_free(&text);
    return rc;
}
