/* decode.c - decoders: tokens back to text, one step after another over the list of tokens. */
#include "common/base/error.h"
#include "common/text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

static void str_swap(Str *a, Str *b)
{
    Str c = *a;
    *a = *b;
    *b = c;
}

/* All tokens to bytes, the bytes to one text. A token with a character outside GPT-2's mapping (an
 * added token) stands for its own bytes. */
static int decode_byte_level(Str *tokens, int n)
{
    Str bytes = {0};
    if (n == 0)
        return 0;
    for (int i = 0; i < n; i++) {
        const char *s = str_get(&tokens[i]);
        size_t from = bytes.n, at = 0;
        int len;
        while (at < tokens[i].n) {
            int b = byte_level_byte(utf8_get(s + at, &len));
            if (b < 0)
                break;
            str_add_bytes(&bytes, &(char){(char)b}, 1);
            at += (size_t)len;
        }
        if (at < tokens[i].n) {
            bytes.n = from;
            str_add_bytes(&bytes, s, tokens[i].n);
        }
    }
    str_clear(&tokens[0]);
    utf8_add_lossy(&tokens[0], str_get(&bytes), bytes.n);
    str_free(&bytes);
    return 1;
}

/* The replacement character becomes a space; in the first token it vanishes unless nothing was ever
 * put in front. */
static void decode_metaspace(const DecStep *d, Str *token, bool first)
{
    const Str space = {(char[]){" "}, 1, 0}, nothing = {(char[]){""}, 0, 0};
    Str out = {0};
    text_replace(&out, str_get(token), token->n, &d->pattern,
                 first && d->scheme != SCHEME_NEVER ? &nothing : &space);
    str_swap(token, &out);
    str_free(&out);
}

static void decode_replace(const DecStep *d, Str *token)
{
    Str out = {0};
    text_replace(&out, str_get(token), token->n, &d->pattern, &d->content);
    str_swap(token, &out);
    str_free(&out);
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* "<0xE2>" is byte 0xE2; -1 for other tokens. */
static int byte_token(const Str *t)
{
    const char *s = str_get(t);
    if (t->n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>' || hex_digit(s[3]) < 0 ||
        hex_digit(s[4]) < 0)
        return -1;
    return hex_digit(s[3]) * 16 + hex_digit(s[4]);
}

static void add_bytes_one_by_one(Str *dst, const Str *bytes)
{
    int bad;
    for (size_t i = 0; i < bytes->n;) {
        int len = utf8_check(bytes->s + i, bytes->n - i, &bad);
        str_add_bytes(dst, len ? bytes->s + i : "\xEF\xBF\xBD", len ? (size_t)len : 3);
        i += len ? (size_t)len : 1;
    }
}

/* A run of byte tokens becomes its text in its first token; when it is not valid UTF-8, each byte
 * becomes U+FFFD. The others of the run become empty. */
static void decode_byte_fallback(Str *tokens, int n)
{
    for (int i = 0, j; i < n; i = j) {
        Str bytes = {0};
        int b;
        for (j = i; j < n && (b = byte_token(&tokens[j])) >= 0; j++)
            str_add_bytes(&bytes, &(char){(char)b}, 1);
        if (j == i) {
            j++;
            continue;
        }
        for (int k = i; k < j; k++)
            str_clear(&tokens[k]);
        if (utf8_find_invalid(str_get(&bytes), bytes.n) == bytes.n)
            str_add_bytes(&tokens[i], str_get(&bytes), bytes.n);
        else
            for (int k = i; k < j; k++)
                str_add(&tokens[k], "\xEF\xBF\xBD");
        str_free(&bytes);
    }
}

/* SentencePiece's Decode: of the first token that is text one U+2581 in front is dropped when the model puts
 * it there (with `trim` of every token before there is any text); of bytes that are no UTF-8 each becomes
 * U+FFFD, valid characters between them stay. */
static int decode_spm(const DecStep *d, Str *tokens, int n)
{
    const Str mark = {(char[]){SPM_SPACE}, 3, 0}, space = {(char[]){" "}, 1, 0};
    Str out = {0}, bytes = {0};
    bool first = true;
    for (int i = 0; i < n; i++) {
        const char *s = str_get(&tokens[i]);
        bool drop;
        int b = byte_token(&tokens[i]);
        if (b >= 0)
            str_add_bytes(&bytes, &(char){(char)b}, 1);
        if (b >= 0 && i + 1 < n && byte_token(&tokens[i + 1]) >= 0)
            continue;
        add_bytes_one_by_one(&out, &bytes);
        str_clear(&bytes);
        if (b >= 0)
            continue;
        first &= out.n == 0;
        drop = first && (d->prefix || d->trim) && tokens[i].n >= 3 && memcmp(s, SPM_SPACE, 3) == 0;
        text_replace(&out, drop ? s + 3 : s, tokens[i].n - (drop ? 3 : 0), &mark, &space);
        first &= !drop || d->trim;
    }
    str_free(&bytes);
    for (int i = 1; i < n; i++)
        str_clear(&tokens[i]);
    if (n)
        str_swap(&tokens[0], &out);
    str_free(&out);
    return n > 0;
}

static void decode_strip(const DecStep *d, Str *token)
{
    const char *mark = str_get(&d->pattern), *s = str_get(token);
    size_t len = d->pattern.n, from = 0, to = token->n;
    Str out = {0};
    for (int i = 0; i < d->start && to - from >= len && memcmp(s + from, mark, len) == 0; i++)
        from += len;
    for (int i = 0; i < d->stop && to - from >= len && memcmp(s + to - len, mark, len) == 0; i++)
        to -= len;
    str_add_bytes(&out, s + from, to - from);
    str_swap(token, &out);
    str_free(&out);
}

static int decode_fuse(Str *tokens, int n)
{
    for (int i = 1; i < n; i++)
        str_add_bytes(&tokens[0], str_get(&tokens[i]), tokens[i].n);
    return n > 0;
}

void decoder_run(const Decoder *d, Str *tokens, int n, Str *dst)
{
    for (int k = 0; k < d->n; k++) {
        const DecStep *step = &d->at[k];
        if (step->kind == DEC_BYTE_LEVEL)
            n = decode_byte_level(tokens, n);
        else if (step->kind == DEC_BYTE_FALLBACK)
            decode_byte_fallback(tokens, n);
        else if (step->kind == DEC_FUSE)
            n = decode_fuse(tokens, n);
        else if (step->kind == DEC_SPM)
            n = decode_spm(step, tokens, n);
        for (int i = 0; i < n; i++) {
            if (step->kind == DEC_METASPACE)
                decode_metaspace(step, &tokens[i], i == 0);
            else if (step->kind == DEC_REPLACE)
                decode_replace(step, &tokens[i]);
            else if (step->kind == DEC_STRIP)
                decode_strip(step, &tokens[i]);
        }
    }
    for (int i = 0; i < n; i++) {
        if (d->none && i > 0)
            str_add(dst, " ");
        str_add_bytes(dst, str_get(&tokens[i]), tokens[i].n);
    }
}

void decoder_free(Decoder *d)
{
    for (int i = 0; i < d->n; i++) {
        str_free(&d->at[i].pattern);
        str_free(&d->at[i].content);
    }
    free(d->at);
    *d = (Decoder){0};
}
