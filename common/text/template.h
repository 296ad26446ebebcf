/* template.h - chat templates rendered straight to ids, with a span per message, from which loss
 * masks come. Nothing is rendered to text and tokenized again.
 *
 *   llama2  <s>[INST] <<SYS>>\n{sys}\n<</SYS>>\n\n{user} [/INST] {assistant} </s><s>[INST] ...
 *           BOS and EOS as ids on every turn; contents stripped
 *   chatml  <|im_start|>{role}\n{content}<|im_end|>\n
 *   plain   {BOS}\n\nHuman: {user}\n\nAssistant: {assistant}{EOS}   (hh-rlhf); a system message is
 *           put in front as it is
 *
 * What is encoded as one text: in llama2 "[INST] ... [/INST]" and the answer with its spaces; in
 * chatml and plain each marker and each content ("role\n"; content; " " + content). So a prompt's
 * ids never depend on the answer. Contents are stripped in llama2 only, as in the originals.
 * Content holding a template's own markers is refused (ERR_DATA). */
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

/* Config choices in this order: "auto|llama2|chatml|plain". */
typedef enum { TEMPLATE_AUTO, TEMPLATE_LLAMA2, TEMPLATE_CHATML, TEMPLATE_PLAIN } TemplateKind;

typedef struct {
    TemplateKind kind; /* never AUTO after template_init */
    Tokenizer *tok;    /* borrowed */
    int32_t bos, end;  /* end: the id that closes an assistant message (EOS, <|im_end|>) */
} ChatTemplate;

/* AUTO recognises the model's own template by its markers and refuses an unknown one or none
 * (ERR_CONFIG), naming the config key that forces a choice. Missing marker tokens are ERR_DATA. */
int template_init(ChatTemplate *t, TemplateKind kind, Tokenizer *tok);
const char *template_name(TemplateKind kind);

typedef struct {
    int from, to; /* ids [from, to): the message's content; for an assistant message the closing
                     token is included: that is what training puts a loss on. In llama2 and plain
                     the space before a content belongs to it. In llama2 the span of a user or
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
