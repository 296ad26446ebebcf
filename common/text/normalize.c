/* normalize.c - normalizers: Prepend, Replace (of a plain string), NFC, and what SentencePiece does
 * with spaces. */
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

/* Marks that are younger than the tables of Hugging Face's NFC, which are those of Unicode 9: there they are
 * characters like any other (tests/golden/make_young_marks.py). U+11930 is half of a composition. */
static const uint32_t young_marks[][2] = {
    {0x7FD, 0x7FD}, {0x898, 0x89F}, {0x8CA, 0x8D3}, {0x9FE, 0x9FE}, {0xC3C, 0xC3C}, {0xD3B, 0xD3C},
    {0xEBA, 0xEBA}, {0x1715, 0x1715}, {0x1ABF, 0x1ACE}, {0x1DF6, 0x1DFA}, {0xA82C, 0xA82C},
    {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50},
    {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E},
    {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99},
    {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42},
    {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE},
    {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF},
};

static bool is_young(uint32_t c)
{
    for (size_t i = 0; i < sizeof young_marks / sizeof *young_marks && young_marks[i][0] <= c; i++)
        if (c <= young_marks[i][1])
            return true;
    return false;
}

/* Whether a character stays itself whatever stands before it: it has no canonical decomposition, class 0, and no
 * composition takes it. Below U+0300 all are so, and Hangul syllables; the vowels and finals are not. */
static bool is_settled(uint32_t c)
{
    const utf8proc_property_t *k;
    if (c < 0x300 || (c >= 0xAC00 && c <= 0xD7A3))
        return true;
    if (c >= 0x1160 && c <= 0x11FF)
        return false;
    k = utf8proc_get_property((utf8proc_int32_t)c);
    if (k->combining_class == 0 && k->comb_index == UINT16_MAX)
        return k->decomp_seqindex == UINT16_MAX || k->decomp_type != 0;
    return is_young(c);
}

static void add_composed(Str *dst, const char *s, size_t n)
{
    utf8proc_uint8_t *composed = NULL;
    utf8proc_ssize_t len = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &composed,
                                        UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    CHECK(len >= 0, "NFC of checked UTF-8: %s", utf8proc_errmsg(len));
    str_add_bytes(dst, composed, (size_t)len);
    free(composed);
}

/* NFC. Only what is not settled, with the character in front of it, goes through the library; a young mark
 * does not. */
static void add_nfc(Str *dst, const char *s, size_t n)
{
    size_t done = 0, last = 0;
    int len;
    for (size_t i = 0; i < n;) {
        size_t end = i;
        for (; end < n; end += (size_t)len) {
            len = 1;
            if ((unsigned char)s[end] < 0x80 || is_settled(utf8_get(s + end, &len)))
                break;
        }
        if (end > i) {
            str_add_bytes(dst, s + done, last - done);
            add_composed(dst, s + last, end - last);
            done = end;
        }
        i = end < n ? end + (size_t)len : end;
        last = end < n && (unsigned char)s[end] >= 0x80 && is_young(utf8_get(s + end, &len)) ? i : end;
    }
    str_add_bytes(dst, s + done, n - done);
}

static size_t spm_prefix(const Bpe *b, const char *s, size_t n)
{
    int32_t id;
    int len = (int)spm_match(b, s, n, &id);
    if (!len)
        utf8_get(s, &len);
    return (size_t)len;
}

/* SentencePiece's Normalizer::Normalize without a character map: user-defined symbols whole, the rest by
 * characters; spaces become U+2581, with `trim` one for a run and none at the ends. */
static void add_spm(Str *dst, const NormStep *step, const char *s, size_t n, PiecePlace place)
{
    const Bpe *b = step->bpe;
    size_t i = 0, start = dst->n;
    bool after_space = step->trim && place != PIECE_CONTINUES;
    while (after_space && i < n && s[i] == ' ' && spm_prefix(b, s + i, n - i) == 1)
        i++;
    if (i == n)
        return;
    if (step->prefix && place != PIECE_CONTINUES &&
        !(step->prefix_at_start_only && place == PIECE_AFTER_TOKEN))
        str_add(dst, SPM_SPACE);
    while (i < n) {
        size_t end = i + spm_prefix(b, s + i, n - i);
        while (after_space && i < end && s[i] == ' ')
            i++;
        if (i < end)
            after_space = step->trim && s[end - 1] == ' ';
        for (; i < end; i++)
            str_add_bytes(dst, s[i] == ' ' ? SPM_SPACE : s + i, s[i] == ' ' ? 3 : 1);
    }
    while (step->trim && dst->n >= start + 3 && memcmp(dst->s + dst->n - 3, SPM_SPACE, 3) == 0)
        dst->n -= 3;
}

void normalizer_run(const Normalizer *m, const char *s, size_t n, PiecePlace place, Str *dst)
{
    Str a = {0}, b = {0};
    str_add_bytes(&a, s, n);
    for (int i = 0; i < m->n; i++) {
        const NormStep *step = &m->at[i];
        Str swap;
        str_clear(&b);
        if (step->kind == NORM_REPLACE) {
            text_replace(&b, str_get(&a), a.n, &step->pattern, &step->content);
        } else if (step->kind == NORM_SPM) {
            add_spm(&b, step, str_get(&a), a.n, place);
        } else if (step->kind == NORM_NFC) {
            add_nfc(&b, str_get(&a), a.n);
        } else {
            if (a.n == 0 || place == PIECE_CONTINUES)
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
