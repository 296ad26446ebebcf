/* normalize.c - normalizers: Prepend, Replace (of a plain string), NFC. */
#include "common/base/error.h"
#include "common/text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void text_replace(Str *dst, const char *s, size_t n, const Str *pattern, const Str *content)
{
    size_t i = 0;
    for (;;) {
        const char *hit = n > i ? memmem(s + i, n - i, str_get(pattern), pattern->n) : NULL;
        if (!hit)
            break;
        str_add_bytes(dst, s + i, (size_t)(hit - (s + i)));
        str_add_bytes(dst, str_get(content), content->n);
        i = (size_t)(hit - s) + pattern->n;
    }
    str_add_bytes(dst, s + i, n - i);
}

static void add_nfc(Str *dst, const char *s, size_t n)
{
    utf8proc_uint8_t *composed = NULL;
    utf8proc_ssize_t len = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &composed,
                                        UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    CHECK(len >= 0, "NFC of checked UTF-8: %s", utf8proc_errmsg(len));
    str_add_bytes(dst, composed, (size_t)len);
    free(composed);
}

static bool is_ascii(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] >= 0x80)
            return false;
    return true;
}

void normalizer_run(const Normalizer *m, const char *s, size_t n, bool prefix, Str *dst)
{
    Str a = {0}, b = {0};
    str_add_bytes(&a, s, n);
    for (int i = 0; i < m->n; i++) {
        const NormStep *step = &m->at[i];
        Str swap;
        str_clear(&b);
        if (step->kind == NORM_REPLACE) {
            text_replace(&b, str_get(&a), a.n, &step->pattern, &step->content);
        } else if (step->kind == NORM_NFC) {
            if (is_ascii(str_get(&a), a.n))
                continue;
            add_nfc(&b, str_get(&a), a.n);
        } else {
            if (a.n == 0 || !prefix)
                continue;
            str_add_bytes(&b, str_get(&step->content), step->content.n);
            str_add_bytes(&b, str_get(&a), a.n);
        }
        swap = a;
        a = b;
        b = swap;
    }
    str_add_bytes(dst, str_get(&a), a.n);
    str_free(&a);
    str_free(&b);
}

void normalizer_free(Normalizer *m)
{
    for (int i = 0; i < m->n; i++) {
        str_free(&m->at[i].pattern);
        str_free(&m->at[i].content);
    }
    free(m->at);
    *m = (Normalizer){0};
}
