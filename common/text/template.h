/* template.h - chat templates rendered straight to ids, with a span per message, from which loss
 * masks come. BOS, EOS and <|...|> below are ids; contents are stripped only where it says so.
 *
 *   llama2    BOS[INST] <<SYS>>\n{sys}\n<</SYS>>\n\n{user} [/INST] {assistant} EOS, BOS[INST] ...;
 *             contents stripped
 *   llama3    BOS, then <|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>; contents
 *             stripped. llama3.1: the same with a system block that says "Cutting Knowledge Date:
 *             December 2023\nToday Date: 26 Jul 2024\n\n" (the date its file has, never today's)
 *   chatml    <|im_start|>{role}\n{content}<|im_end|>\n; qwen2, qwen2.5, smollm2: the same with that
 *             model's system prompt where a conversation has none
 *   zephyr    <|user|>\n{content}EOS\n<|assistant|>\n{content}EOS\n
 *   mistral   BOS, then [INST] {user} [/INST]{assistant}EOS; no system message
 *   plain     BOS, then \n\nHuman: {user}\n\nAssistant: {assistant}EOS (hh-rlhf); a system message is
 *             put in front as it is
 *
 * The ids are those of the rendered text encoded as a whole, special tokens as such, but for two
 * rules: an answer is encoded apart from its prompt, so a prompt's ids never depend on the answer; and
 * no text of a message yields a special token. Content that holds a template's own markers is refused
 * (ERR_DATA). */
#ifndef RLHF_TEXT_TEMPLATE_H
#define RLHF_TEXT_TEMPLATE_H

#include "common/text/tokenizer.h"

typedef enum { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT } Role;

typedef struct {
    Role role;
    char *text; /* NUL-terminated; n counts bytes without it */
    size_t n;
} Message;

const char *role_name(Role r);                  /* "system", "user", "assistant" */
int role_parse(const char *name, Role *out);    /* also human, gpt, bot; -1 unknown */

/* Config choices, in the order of TemplateKind. */
#define TEMPLATE_CHOICES "auto|llama2|llama3|llama3.1|chatml|qwen2|qwen2.5|smollm2|zephyr|mistral|plain"

typedef enum {
    TEMPLATE_AUTO,
    TEMPLATE_LLAMA2,
    TEMPLATE_LLAMA3,
    TEMPLATE_LLAMA31,
    TEMPLATE_CHATML,
    TEMPLATE_QWEN2,
    TEMPLATE_QWEN25,
    TEMPLATE_SMOLLM2,
    TEMPLATE_ZEPHYR,
    TEMPLATE_MISTRAL,
    TEMPLATE_PLAIN,
    TEMPLATE_COUNT
} TemplateKind;

typedef struct {
    TemplateKind kind; /* never AUTO after template_init */
    Tokenizer *tok;    /* borrowed */
    int32_t bos, end;  /* end: the id that closes an assistant message (EOS, <|im_end|>, <|eot_id|>) */
    const char *system; /* put in where a conversation has no system message (borrowed); NULL: nothing */
    size_t system_n;
} ChatTemplate;

/* AUTO recognises the model's own template by its text and refuses an unknown one or none (ERR_CONFIG),
 * naming the config key that forces a choice. What it recognises as chatml keeps the system prompt that the
 * text itself puts in. Missing marker tokens are ERR_DATA. */
int template_init(ChatTemplate *t, TemplateKind kind, Tokenizer *tok);
const char *template_name(TemplateKind kind);

typedef struct {
    int from, to; /* ids [from, to): the message's content; for an assistant message the closing
                     token is included: that is what training puts a loss on. In llama2 the space before an
                     answer belongs to it, in plain the space before every content. The span of a user or
                     system message may begin or end with a token that reaches into a marker. */
} Span;

/* Appends the ids of the messages; spans[i] belongs to message i (positions in *ids; may be NULL).
 * open_turn: ends where an answer begins, so that
 *     render(prompt, open) + ids of the answer + end  ==  a prefix of render(prompt + answer)
 * holds for every answer. Roles must alternate user/assistant after an optional system message. */
int template_render(const ChatTemplate *t, const Message *messages, int n, bool open_turn, IdList *ids,
                    Span *spans);
/* Text of an answer from generated ids: closing token left out, spaces stripped at both ends. */
int template_answer_text(const ChatTemplate *t, const int32_t *ids, int n, Str *out);

#endif
