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

/* The text without blanks and line ends (as such or as "\n"), with one kind of quotes, and x['y'] as x.y, so
 * that layout and taste do not matter. */
static void squeeze(Str *dst, const char *s)
{
    for (; *s; s++) {
        if (s[0] == '\\' && s[1] == 'n') {
            s++;
        } else if (s[0] == '[' && (s[1] == '\'' || s[1] == '"')) {
            size_t n = strspn(s + 2, "abcdefghijklmnopqrstuvwxyz_");
            bool member = n && s[2 + n] == s[1] && s[3 + n] == ']';
            str_add(dst, member ? "." : "[");
            if (member) {
                str_add_bytes(dst, s + 2, n);
                s += n + 3;
            }
        } else if (!strchr(" \t\r\n", *s)) {
            str_add_bytes(dst, *s == '"' ? "'" : s, 1);
        }
    }
}

/* Whether the squeezed text holds an expression; in it, % is a message: "message" or "m". */
static bool says(const char *squeezed, const char *expression)
{
    static const char *const names[] = {"message", "m"};
    bool found = false;
    for (int i = 0; i < 2 && !found; i++) {
        Str want = {0};
        for (const char *c = expression; *c; c++)
            *c == '%' ? str_add(&want, names[i]) : str_add_bytes(&want, c, 1);
        found = strstr(squeezed, str_get(&want));
        str_free(&want);
    }
    return found;
}

/* Whether `head`, line ends and `tail` stand in the text in this order, the line ends as such or as "\n". */
static bool has_lines(const char *text, const char *head, int lines, const char *tail)
{
    size_t n = strlen(head);
    for (const char *at = strstr(text, head); at && *at; at = strstr(at + 1, head)) {
        const char *s = at + n;
        int k = 0;
        for (; k < lines && (*s == '\n' || (s[0] == '\\' && s[1] == 'n')); k++)
            s += *s == '\n' ? 1 : 2;
        if (k == lines && strncmp(s, tail, strlen(tail)) == 0)
            return true;
    }
    return false;
}

static bool is_llama2(const char *text, const char *squeezed)
{
    return says(squeezed, "{{bos_token+'[INST]'+content.strip()+'[/INST]'}}") && strstr(text, "[INST] ") &&
           strstr(text, " [/INST]") && says(squeezed, "{{''+content.strip()+''+eos_token}}") &&
           says(squeezed, "'<<SYS>>'+system_message+'<</SYS>>'+%.content") &&
           has_lines(text, "<</SYS>>", 2, "'");
}

static bool is_llama3(const char *text, const char *squeezed)
{
    return has_lines(text, "<|end_header_id|>", 2, "'") &&
           says(squeezed, "'<|start_header_id|>'+%.role+'<|end_header_id|>'+%.content|trim+'<|eot_id|>'");
}

static bool is_chatml(const char *squeezed)
{
    return says(squeezed, "'<|im_start|>'+%.role+''+%.content+'<|im_end|>'") && !strstr(squeezed, "<|im_sep|>");
}

static bool is_zephyr(const char *text, const char *squeezed)
{
    return has_lines(text, "<|user|>", 1, "'") && has_lines(text, "<|assistant|>", 1, "'") &&
           says(squeezed, "'<|user|>'+%.content+eos_token}}") &&
           says(squeezed, "'<|assistant|>'+%.content+eos_token}}") && !strstr(text, "bos_token");
}

static bool is_mistral(const char *text, const char *squeezed)
{
    return strstr(text, "[INST] ") && strstr(text, " [/INST]") && !strstr(text, "system_message") &&
           says(squeezed, "{{bos_token}}") && says(squeezed, "{{'[INST]'+%.content+'[/INST]'}}") &&
           says(squeezed, "{{%.content+eos_token}}");
}

static bool is_plain(const char *text, const char *squeezed)
{
    return has_lines(text, "", 2, "Human: ") && has_lines(text, "", 2, "Assistant: ") &&
           says(squeezed, "'Human:'+%.content") && says(squeezed, "'Assistant:'+%.content+eos_token");
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

/* Why the text is no template that is known; NULL: it is one. */
static const char *find_kind(ChatTemplate *t, const char *text, const char *squeezed)
{
    if (strstr(text, "</think>"))
        return "it rewrites <think> blocks of earlier turns";
    if (is_chatml(squeezed)) {
        t->kind = TEMPLATE_CHATML;
        return find_system(t, text) ? NULL : "its default system prompt is not plain text";
    }
    if (is_llama3(text, squeezed)) {
        bool dated = strstr(text, "Cutting Knowledge Date: December 2023") && strstr(text, "26 Jul 2024");
        t->kind = dated ? TEMPLATE_LLAMA31 : TEMPLATE_LLAMA3;
        return dated || !strstr(text, "Date") ? NULL : "it puts in a date";
    }
    if (is_llama2(text, squeezed)) {
        t->kind = TEMPLATE_LLAMA2;
        return strstr(squeezed, "system_message='") ? "it puts in a default system prompt" : NULL;
    }
    if (is_mistral(text, squeezed))
        t->kind = TEMPLATE_MISTRAL;
    else if (is_zephyr(text, squeezed))
        t->kind = TEMPLATE_ZEPHYR;
    else if (is_plain(text, squeezed))
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
