/* template.c - conversations to ids.
 *
 * A renderer writes literals, contents and ids one after another; what stands between two ids is encoded as
 * one text, as Hugging Face encodes the rendered conversation. An answer is cut off from what stands before
 * it, so the ids of a prompt never depend on the answer: what a policy generates from the open turn is what
 * training sees. Tested by tests/unit/test_template.c and test_chat_golden.c. */
#include "common/base/error.h"
#include "common/text/template_impl.h"
#include "common/text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

static const char *const role_names[] = {"system", "user", "assistant"};

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

/* ---- a text in the making */

typedef struct {
    const ChatTemplate *t;
    IdList *ids;
    Span *spans;     /* may be NULL */
    PiecePlace place; /* of the text */
    Str text;        /* not encoded yet */
    struct {
        int message;
        size_t from, to;
    } part[2]; /* the contents in it: at most system and user */
    int n_parts;
} Render;

static int encode_part(Render *r, size_t n, IdList *ids)
{
    return n ? tokenizer_encode_at(r->t->tok, str_get(&r->text), n, r->place, ids) : 0;
}

/* How many of the text's ids come before its byte `at`: those that the encoding of the text before it
 * has too. */
static int ids_before(Render *r, size_t at, int base, int *out)
{
    IdList part = {0};
    int n = r->ids->n - base, rc = 0;
    *out = at < r->text.n ? 0 : n;
    if (at > 0 && at < r->text.n)
        rc = encode_part(r, at, &part);
    while (*out < part.n && *out < n && part.at[*out] == r->ids->at[base + *out])
        ++*out;
    id_list_free(&part);
    return rc;
}

/* Encodes what was put; the next text continues it. */
static int render_flush(Render *r)
{
    int base = r->ids->n, rc = encode_part(r, r->text.n, r->ids);
    for (int i = 0; i < r->n_parts && rc >= 0 && r->spans; i++) {
        int from, to;
        if ((rc = ids_before(r, r->part[i].from, base, &from)) >= 0 &&
            (rc = ids_before(r, r->part[i].to, base, &to)) >= 0)
            r->spans[r->part[i].message] = (Span){base + from, base + (to > from ? to : from)};
    }
    if (r->text.n)
        r->place = PIECE_CONTINUES;
    str_clear(&r->text);
    r->n_parts = 0;
    return rc;
}

static void put(Render *r, const char *literal)
{
    str_add(&r->text, literal);
}

static void put_content(Render *r, int message, const char *s, size_t n)
{
    CHECK(r->n_parts < 2, "message %d", message);
    r->part[r->n_parts].message = message;
    r->part[r->n_parts].from = r->text.n;
    str_add_bytes(&r->text, s, n);
    r->part[r->n_parts++].to = r->text.n;
}

static int put_id(Render *r, int32_t id)
{
    int rc = render_flush(r);
    id_list_add(r->ids, id);
    r->place = PIECE_AFTER_TOKEN;
    return rc;
}

/* A marker that is a token of its own in some tokenizers and plain text in others. */
static int put_marker(Render *r, const char *marker)
{
    int32_t id = vocab_get(&r->t->tok->added_ids, marker, strlen(marker));
    if (id >= 0)
        return put_id(r, id);
    put(r, marker);
    return 0;
}

static int put_token(Render *r, const char *token)
{
    return put_id(r, tokenizer_id(r->t->tok, token));
}

/* The answer, its closing token, and its span. */
static int put_answer(Render *r, int message, const char *before, const char *s, size_t n,
                      const char *behind)
{
    int rc, from;
    TRY(render_flush(r));
    from = r->ids->n;
    put(r, before);
    str_add_bytes(&r->text, s, n);
    put(r, behind);
    TRY(put_id(r, r->t->end));
    if (r->spans)
        r->spans[message] = (Span){from, r->ids->n};
fail:
    return rc;
}

/* ---- stripping */

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

/* ---- the families */

/* What stands between "[INST] " and " [/INST]" is stripped as a whole: with a system block the user's text at
 * its end only, and where nothing is left of it the block's own line ends go. */
static int put_llama2_prompt(Render *r, const Message *m, int i, bool block)
{
    const char *s = m[i].text;
    size_t n = m[i].n;
    int rc;
    strip(&s, &n);
    TRY(put_id(r, r->t->bos));
    put(r, "[INST] ");
    if (block) {
        size_t end = n ? (size_t)(s + n - m[i].text) : 0;
        put(r, "<<SYS>>\n");
        put_content(r, 0, m[0].text, m[0].n);
        put(r, n ? "\n<</SYS>>\n\n" : "\n<</SYS>>");
        s = m[i].text;
        n = end;
    }
    put_content(r, i, s, n);
    put(r, " [/INST]");
fail:
    return rc;
}

static int render_llama2(Render *r, const Message *m, int n, bool open_turn)
{
    bool system = m[0].role == ROLE_SYSTEM;
    int rc = 0;
    (void)open_turn;
    for (int i = system; i < n && rc >= 0; i++) {
        const char *s = m[i].text;
        size_t bytes = m[i].n;
        strip(&s, &bytes);
        rc = m[i].role == ROLE_USER ? put_llama2_prompt(r, m, i, system && i == 1)
                                    : put_answer(r, i, " ", s, bytes, " ");
    }
    return rc;
}

static int put_llama3_head(Render *r, Role role)
{
    int rc;
    TRY(put_token(r, "<|start_header_id|>"));
    put(r, role_names[role]);
    TRY(put_token(r, "<|end_header_id|>"));
    put(r, "\n\n");
fail:
    return rc;
}

static int render_llama3(Render *r, const Message *m, int n, bool open_turn)
{
    bool dated = r->t->kind == TEMPLATE_LLAMA31;
    int rc = 0;
    TRY(put_id(r, r->t->bos));
    for (int i = dated && m[0].role != ROLE_SYSTEM ? -1 : 0; i < n; i++) {
        Role role = i < 0 ? ROLE_SYSTEM : m[i].role;
        const char *s = i < 0 ? "" : m[i].text;
        size_t bytes = i < 0 ? 0 : m[i].n;
        strip(&s, &bytes);
        TRY(put_llama3_head(r, role));
        if (dated && role == ROLE_SYSTEM)
            put(r, "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n");
        if (role == ROLE_ASSISTANT) {
            TRY(put_answer(r, i, "", s, bytes, ""));
            continue;
        }
        if (i >= 0)
            put_content(r, i, s, bytes);
        TRY(put_id(r, r->t->end));
    }
    if (open_turn)
        TRY(put_llama3_head(r, ROLE_ASSISTANT));
fail:
    return rc;
}

/* What follows a turn's head in chatml and zephyr: the content, the closing token, a line end. */
static int put_closed(Render *r, int i, const Message *m)
{
    int rc = 0;
    if (m->role == ROLE_ASSISTANT) {
        TRY(put_answer(r, i, "", m->text, m->n, ""));
    } else {
        put_content(r, i, m->text, m->n);
        TRY(put_id(r, r->t->end));
    }
    put(r, "\n");
fail:
    return rc;
}

static int put_chatml_head(Render *r, Role role)
{
    int rc = put_token(r, "<|im_start|>");
    put(r, role_names[role]);
    put(r, "\n");
    return rc;
}

static int render_chatml(Render *r, const Message *m, int n, bool open_turn)
{
    int rc = 0;
    if (m[0].role != ROLE_SYSTEM && r->t->system) {
        TRY(put_chatml_head(r, ROLE_SYSTEM));
        str_add_bytes(&r->text, r->t->system, r->t->system_n);
        TRY(put_id(r, r->t->end));
        put(r, "\n");
    }
    for (int i = 0; i < n; i++) {
        TRY(put_chatml_head(r, m[i].role));
        TRY(put_closed(r, i, &m[i]));
    }
    if (open_turn)
        TRY(put_chatml_head(r, ROLE_ASSISTANT));
fail:
    return rc;
}

static int put_zephyr_head(Render *r, Role role)
{
    static const char *const heads[] = {"<|system|>", "<|user|>", "<|assistant|>"};
    int rc = put_marker(r, heads[role]);
    put(r, "\n");
    return rc;
}

static int render_zephyr(Render *r, const Message *m, int n, bool open_turn)
{
    int rc = 0;
    for (int i = 0; i < n; i++) {
        TRY(put_zephyr_head(r, m[i].role));
        TRY(put_closed(r, i, &m[i]));
    }
    if (open_turn)
        TRY(put_zephyr_head(r, ROLE_ASSISTANT));
fail:
    return rc;
}

static int render_mistral(Render *r, const Message *m, int n, bool open_turn)
{
    int rc = 0;
    (void)open_turn;
    TRY(put_id(r, r->t->bos));
    for (int i = 0; i < n; i++) {
        if (m[i].role == ROLE_ASSISTANT) {
            TRY(put_answer(r, i, "", m[i].text, m[i].n, ""));
            continue;
        }
        TRY(put_marker(r, "[INST]"));
        put(r, " ");
        put_content(r, i, m[i].text, m[i].n);
        put(r, " ");
        TRY(put_marker(r, "[/INST]"));
    }
fail:
    return rc;
}

static int render_plain(Render *r, const Message *m, int n, bool open_turn)
{
    int rc = 0;
    if (r->t->bos >= 0)
        TRY(put_id(r, r->t->bos));
    r->place = PIECE_START; /* as in encode(text): the post-processor puts BOS in front */
    for (int i = 0; i < n; i++) {
        if (m[i].role == ROLE_SYSTEM) {
            put_content(r, i, m[i].text, m[i].n);
        } else if (m[i].role == ROLE_USER) {
            TRY(put_marker(r, plain_user));
            put_content(r, i, " ", 1);
            str_add_bytes(&r->text, m[i].text, m[i].n);
            r->part[r->n_parts - 1].to = r->text.n;
        } else {
            TRY(put_marker(r, plain_assistant));
            TRY(put_answer(r, i, " ", m[i].text, m[i].n, ""));
        }
    }
    if (open_turn)
        TRY(put_marker(r, plain_assistant));
fail:
    return rc;
}

/* ---- choosing one */

typedef int (*RenderFn)(Render *r, const Message *m, int n, bool open_turn);

typedef struct {
    const char *name;
    RenderFn render;
    const char *const *markers; /* that no content may hold */
    const char *end;            /* the token that closes an answer; NULL: EOS */
    const char *start;          /* another token that it needs */
    bool bos, no_system;
    const char *system; /* the default prompt */
} Family;

static const char *const llama2_markers[] = {"[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", NULL};
static const char *const llama3_markers[] = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
                                             NULL};
static const char *const chatml_markers[] = {"<|im_start|>", "<|im_end|>", NULL};
static const char *const zephyr_markers[] = {"<|system|>", "<|user|>", "<|assistant|>", NULL};
static const char *const mistral_markers[] = {"[INST]", "[/INST]", NULL};
static const char *const plain_markers[] = {plain_user, plain_assistant, NULL};

#define LLAMA3 render_llama3, llama3_markers, "<|eot_id|>", "<|start_header_id|>", true, false, NULL
#define CHATML(system) render_chatml, chatml_markers, "<|im_end|>", "<|im_start|>", false, false, system

static const Family families[TEMPLATE_COUNT] = {
    [TEMPLATE_AUTO] = {"auto", NULL, NULL, NULL, NULL, false, false, NULL},
    [TEMPLATE_LLAMA2] = {"llama2", render_llama2, llama2_markers, NULL, NULL, true, false, NULL},
    [TEMPLATE_LLAMA3] = {"llama3", LLAMA3},
    [TEMPLATE_LLAMA31] = {"llama3.1", LLAMA3},
    [TEMPLATE_CHATML] = {"chatml", CHATML(NULL)},
    [TEMPLATE_QWEN2] = {"qwen2", CHATML("You are a helpful assistant.")},
    [TEMPLATE_QWEN25] = {"qwen2.5", CHATML("You are Qwen, created by Alibaba Cloud. You are a helpful "
                                           "assistant.")},
    [TEMPLATE_SMOLLM2] = {"smollm2", CHATML("You are a helpful AI assistant named SmolLM, trained by "
                                            "Hugging Face")},
    [TEMPLATE_ZEPHYR] = {"zephyr", render_zephyr, zephyr_markers, NULL, NULL, false, false, NULL},
    [TEMPLATE_MISTRAL] = {"mistral", render_mistral, mistral_markers, NULL, NULL, true, true, NULL},
    [TEMPLATE_PLAIN] = {"plain", render_plain, plain_markers, NULL, NULL, false, false, NULL},
};

const char *template_name(TemplateKind kind)
{
    CHECK((unsigned)kind < TEMPLATE_COUNT, "template %d", (int)kind);
    return families[kind].name;
}

static int missing_token(const ChatTemplate *t, const char *what, const char *token)
{
    return error_set(ERR_DATA,
                     "%s: template %s needs %s%s, which the tokenizer has not; "
                     "set another `template`",
                     t->tok->path, template_name(t->kind), what, token);
}

int template_init(ChatTemplate *t, TemplateKind kind, Tokenizer *tok)
{
    const Family *f;
    int rc;
    *t = (ChatTemplate){.kind = kind, .tok = tok};
    if (kind == TEMPLATE_AUTO && (rc = template_detect(t)) < 0)
        return rc;
    f = &families[t->kind];
    if (f->system) {
        t->system = f->system;
        t->system_n = strlen(f->system);
    }
    t->bos = tokenizer_bos(tok);
    t->end = f->end ? tokenizer_id(tok, f->end) : tokenizer_eos(tok);
    if (t->end < 0)
        return missing_token(t, f->end ? "the token " : "an EOS token", f->end ? f->end : "");
    for (const char *const *marker = f->start ? f->markers : NULL; marker && *marker; marker++)
        if (tokenizer_id(tok, *marker) < 0)
            return missing_token(t, "the token ", *marker);
    if (f->bos && t->bos < 0)
        return missing_token(t, "a BOS token", "");
    return 0;
}

/* ---- checks of a conversation */

static int check_markers(const ChatTemplate *t, const Message *m, int i)
{
    for (const char *const *marker = families[t->kind].markers; *marker; marker++) {
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
    if (from && families[t->kind].no_system)
        return error_set(ERR_DATA, "template %s has no system message; put its text into the first "
                                   "user message",
                         template_name(t->kind));
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

/* ---- both ways */

int template_render(const ChatTemplate *t, const Message *messages, int n, bool open_turn,
                    IdList *ids, Span *spans)
{
    Render r = {.t = t, .ids = ids, .spans = spans, .place = PIECE_START};
    int rc = check_messages(t, messages, n, open_turn);
    if (rc < 0)
        return rc;
    TRY(families[t->kind].render(&r, messages, n, open_turn));
    TRY(render_flush(&r));
fail:
    str_free(&r.text);
    return rc;
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
