/* template_detect.c - which of the built-in templates the model's own Jinja text is.
 *
 * A text counts as known only when the expressions that write a message are there word for word; a marker
 * alone, such as [INST], stands for templates that differ in a space. What a template may do besides
 * (default prompts, dates, <think> blocks, trimming) is looked for as well, because it would change what a
 * conversation becomes. Everything else is refused: a wrong template is not seen in a loss curve.
 * Tested by tests/unit/test_template.c and test_chat_golden.c. */
#include "common/base/error.h"
#include "common/text/template_impl.h"
#include "common/text/tokenizer_impl.h"

#include <string.h>

/* The text without blanks and line ends, written or as "\n", and with one kind of quotes, so that layout does
 * not matter. */
static void squeeze(Str *dst, const char *s)
{
    for (; *s; s++) {
        if (s[0] == '\\' && s[1] == 'n')
            s++;
        else if (!strchr(" \t\r\n", *s))
            str_add_bytes(dst, *s == '"' ? "'" : s, 1);
    }
}

/* Whether the literal is there with a line end behind it, written or as "\n". */
static bool has_line(const char *text, const char *literal)
{
    size_t n = strlen(literal);
    for (const char *at = strstr(text, literal); at; at = strstr(at + n, literal))
        if (at[n] == '\n' || (at[n] == '\\' && at[n + 1] == 'n'))
            return true;
    return false;
}

static bool is_llama3(const char *text, const char *squeezed)
{
    return has_line(text, "<|end_header_id|>") &&
           strstr(squeezed, "'<|start_header_id|>'+message['role']+'<|end_header_id|>'"
                            "+message['content']|trim+'<|eot_id|>'");
}

static bool is_zephyr(const char *text, const char *squeezed)
{
    return has_line(text, "<|user|>") && has_line(text, "<|assistant|>") &&
           strstr(squeezed, "'<|user|>'+message['content']+eos_token}}") &&
           strstr(squeezed, "'<|assistant|>'+message['content']+eos_token}}") &&
           !strstr(text, "bos_token");
}

static bool is_mistral(const char *text, const char *squeezed)
{
    return strstr(text, "[INST] ") && strstr(text, " [/INST]") && !strstr(text, "system_message") &&
           strstr(squeezed, "{{bos_token}}") &&
           strstr(squeezed, "{{'[INST]'+message['content']+'[/INST]'}}") &&
           strstr(squeezed, "{{message['content']+eos_token}}");
}

static bool is_llama2(const char *text)
{
    return strstr(text, "[INST]") && strstr(text, "<<SYS>>") && strstr(text, "content.strip()");
}

static bool is_chatml(const char *text)
{
    return strstr(text, "<|im_start|>") && strstr(text, "<|im_end|>") && !strstr(text, "<|im_sep|>");
}

/* The system prompt that stands in a literal of the text: "<|im_start|>system\n...<|im_end|>". */
static bool find_system(ChatTemplate *t, const char *text)
{
    static const char head[] = "<|im_start|>system";
    for (const char *at = strstr(text, head); at; at = strstr(at, head)) {
        size_t n;
        at += sizeof head - 1;
        if (*at != '\n' && strncmp(at, "\\n", 2) != 0)
            continue;
        at += *at == '\n' ? 1 : 2;
        if (strchr("'\"{", *at))
            continue; /* a message's own content follows */
        n = strcspn(at, "'\"{}\\<\n");
        if (strncmp(at + n, "<|im_end|>", 10) != 0)
            return false;
        t->system = at;
        t->system_n = n;
        return true;
    }
    return !strstr(text, "You are") && !strstr(text, "default_system");
}

/* Why a text of a known family is not that family's template; NULL: it is. */
static const char *find_kind(ChatTemplate *t, const char *text, const char *squeezed)
{
    if (strstr(text, "</think>"))
        return "it rewrites <think> blocks of earlier turns";
    if (is_chatml(text)) {
        if (strstr(text, "trim") || strstr(text, "strip"))
            return "it strips contents";
        t->kind = TEMPLATE_CHATML;
        return find_system(t, text) ? NULL : "its default system prompt is not plain text";
    }
    if (is_llama3(text, squeezed)) {
        bool dated = strstr(text, "Cutting Knowledge Date: December 2023") && strstr(text, "26 Jul 2024");
        t->kind = dated ? TEMPLATE_LLAMA31 : TEMPLATE_LLAMA3;
        return dated || !strstr(text, "Date") ? NULL : "it puts in a date";
    }
    if (is_llama2(text))
        t->kind = TEMPLATE_LLAMA2;
    else if (is_mistral(text, squeezed))
        t->kind = TEMPLATE_MISTRAL;
    else if (is_zephyr(text, squeezed))
        t->kind = TEMPLATE_ZEPHYR;
    else if (strstr(text, "Human:") && strstr(text, "Assistant:"))
        t->kind = TEMPLATE_PLAIN;
    else
        return "its text is none of those that are known";
    return NULL;
}

int template_detect(ChatTemplate *t)
{
    const char *text = tokenizer_chat_template(t->tok), *why;
    Str squeezed = {0};
    if (!text)
        return error_set(ERR_CONFIG, "%s: the model has no chat template; set `template` to one of "
                                     "those that --help lists",
                         t->tok->path);
    squeeze(&squeezed, text);
    why = find_kind(t, text, str_get(&squeezed));
    str_free(&squeezed);
    if (!why)
        return 0;
    return error_set(ERR_CONFIG, "%s: the model's chat template is not supported: %s; set `template` to force "
                                 "one of those that --help lists",
                     t->tok->path, why);
}
