/* pretokenize.c - pre-tokenizers: Split, Digits, ByteLevel, Metaspace; a piece becomes words.
 *
 * The steps of the file run one after another over all words, as in Hugging Face. Patterns were
 * written for Oniguruma and run on PCRE2 (UTF, UCP, JIT): its \s has U+180E, Oniguruma's has not,
 * so \s and \S are spelled out. Tested by tests/unit/test_tokenizer.c against golden files. */
#include "common/base/error.h"
#include "common/text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

const char *const split_behavior_names[SPLIT_COUNT] = {
    "Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous",
};

const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---- patterns */

#define SPACES                                                                                     \
    "\\x{09}-\\x{0D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}"  \
    "\\x{205F}\\x{3000}"

static void pattern_translate(Str *dst, const char *p, size_t n)
{
    int depth = 0; /* of brackets */
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\\' && i + 1 < n) {
            i++;
            if (p[i] == 's')
                str_add(dst, depth ? SPACES : "[" SPACES "]");
            else if (p[i] == 'S' && !depth)
                str_add(dst, "[^" SPACES "]");
            else
                str_add_bytes(dst, p + i - 1, 2);
            continue;
        }
        if (p[i] == '[')
            depth++;
        else if (p[i] == ']' && depth)
            depth--;
        str_add_bytes(dst, p + i, 1);
    }
}

/* Constructs that Oniguruma reads otherwise than PCRE2: hex digits, and sets inside brackets. */
static const char *pattern_foreign(const char *p, size_t n)
{
    int depth = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\\' && i + 1 < n) {
            i++;
            if (p[i] == 'h' || p[i] == 'H' || p[i] == 'R' || p[i] == 'X')
                return "one of \\h \\H \\R \\X";
            if (p[i] == 'S' && depth)
                return "\\S inside brackets";
        } else if (p[i] == '[' && ++depth > 1) {
            return "nested brackets";
        } else if (p[i] == ']' && depth) {
            depth--;
        } else if (depth && p[i] == '&' && i + 1 < n && p[i + 1] == '&') {
            return "&& inside brackets";
        }
    }
    return NULL;
}

/* JIT's own entry checks nothing twice; it serves only patterns that were compiled so. */
static int match_at(PreTokenizer *p, const pcre2_code *re, const char *s, size_t n, size_t at)
{
    int rc = p->no_jit ? PCRE2_ERROR_JIT_BADOPTION
                       : pcre2_jit_match(re, (PCRE2_SPTR)s, n, at, 0, p->match, p->context);
    if (rc != PCRE2_ERROR_JIT_BADOPTION)
        return rc;
    p->no_jit = true;
    return pcre2_match(re, (PCRE2_SPTR)s, n, at, PCRE2_NO_UTF_CHECK, p->match, p->context);
}

int regex_compile(pcre2_code **out, const char *pattern, size_t n, bool literal, const char *what)
{
    const char *foreign = literal ? NULL : pattern_foreign(pattern, n);
    pcre2_compile_context *context;
    Str text = {0};
    int code = 0;
    PCRE2_SIZE at = 0;
    /* \C would cut a character in two */
    uint32_t flags = PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C);
    if (foreign)
        return error_set(ERR_DATA, "%s: the pattern \"%.*s\" uses %s, which is not supported", what,
                         (int)n, pattern, foreign);
    if (literal)
        str_add_bytes(&text, pattern, n);
    else
        pattern_translate(&text, pattern, n);
    context = pcre2_compile_context_create(NULL);
    CHECK(context, "out of memory");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF); /* ^ and $ are those of lines in Oniguruma */
    *out = pcre2_compile((PCRE2_SPTR)str_get(&text), text.n, flags, &code, &at, context);
    pcre2_compile_context_free(context);
    str_free(&text);
    if (!*out) {
        PCRE2_UCHAR message[160];
        pcre2_get_error_message(code, message, sizeof message);
        return error_set(ERR_DATA, "%s: the pattern \"%.*s\" cannot be used: %s", what, (int)n,
                         pattern, (const char *)message);
    }
    pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE); /* without JIT the interpreter serves */
    return 0;
}

static void match_prepare(PreTokenizer *p)
{
    if (p->match)
        return;
    p->match = pcre2_match_data_create(1, NULL);
    p->context = pcre2_match_context_create(NULL);
    CHECK(p->match && p->context, "out of memory");
    p->stack = pcre2_jit_stack_create(32 * 1024, 16 * 1024 * 1024, NULL);
    if (p->stack)
        pcre2_jit_stack_assign(p->context, NULL, p->stack);
    pcre2_set_match_limit(p->context, 10 * 1000 * 1000);
}

/* ---- cutting a word */

static void cut_add(PreTokenizer *p, size_t from, size_t to, bool match)
{
    int i = VEC_GROW(p->cuts, p->n_cuts, p->cap_cuts);
    p->cuts[i] = (Word){from, to, match};
}

static void word_add(PreTokenizer *p, size_t from, size_t to, bool first)
{
    int i;
    if (from == to)
        return;
    i = VEC_GROW(p->next_words, p->n_next, p->cap_next);
    p->next_words[i] = (Word){from, to, first};
}

/* Matches of a pattern and what lies between them, covering [w.from, w.to). */
static int cut_by_regex(PreTokenizer *p, const PreStep *step, Word w)
{
    const char *s = str_get(&p->text) + w.from;
    size_t n = w.to - w.from, at = 0, done = 0;
    bool any = false;
    match_prepare(p);
    while (at <= n) {
        int rc = match_at(p, step->re, s, n, at);
        const PCRE2_SIZE *o = pcre2_get_ovector_pointer(p->match);
        int len;
        if (rc == PCRE2_ERROR_NOMATCH)
            break;
        if (rc < 0)
            return error_set(ERR_DATA,
                             "the tokenizer's pattern gives up on a text of %zu bytes "
                             "(PCRE2 error %d); shorten or split the text",
                             n, rc);
        if (o[0] == o[1] && any && o[1] == done) { /* an empty match right behind the last one */
            if (at >= n)
                break;
            utf8_get(s + at, &len);
            at += (size_t)len;
            continue;
        }
        if (done != o[0])
            cut_add(p, w.from + done, w.from + o[0], step->invert);
        cut_add(p, w.from + o[0], w.from + o[1], !step->invert);
        any = true;
        at = done = o[1];
    }
    if (done != n)
        cut_add(p, w.from + done, w.to, step->invert);
    return 0;
}

/* Matches are single characters: digits, or the replacement character of Metaspace. */
static void cut_by_character(PreTokenizer *p, const PreStep *step, Word w)
{
    const char *s = str_get(&p->text);
    size_t done = w.from;
    int len;
    for (size_t i = w.from; i < w.to; i += (size_t)len) {
        uint32_t c = utf8_get(s + i, &len);
        bool hit = step->kind == PRE_DIGITS
                       ? utf8_is_numeric(c)
                       : (size_t)len == step->replacement.n &&
                             memcmp(s + i, str_get(&step->replacement), (size_t)len) == 0;
        if (!hit)
            continue;
        if (done < i)
            cut_add(p, done, i, false);
        done = i + (size_t)len;
        cut_add(p, i, done, true);
    }
    if (done < w.to)
        cut_add(p, done, w.to, false);
}

/* The cuts of a word become words, as the behavior says. A cut merges only with one neighbour that
 * is not itself a delimiter; of a run of delimiters the others stand alone. */
static void cuts_join(PreTokenizer *p, SplitBehavior behavior, bool first)
{
    Word *c = p->cuts;
    int n = p->n_cuts;
    for (int i = 0, j; i < n; i = j) {
        j = i + 1;
        if (behavior == SPLIT_REMOVED && c[i].first) {
            first = false;
            continue;
        }
        if (behavior == SPLIT_MERGED_WITH_PREVIOUS && !c[i].first && j < n && c[j].first)
            j++;
        else if (behavior == SPLIT_MERGED_WITH_NEXT && c[i].first && j < n && !c[j].first)
            j++;
        while (behavior == SPLIT_CONTIGUOUS && j < n && c[j].first == c[i].first)
            j++;
        word_add(p, c[i].from, c[j - 1].to, first);
        first = false;
    }
    p->n_cuts = 0;
}

/* ---- the steps */

static void words_swap(PreTokenizer *p)
{
    Word *words = p->words;
    int cap = p->cap_words;
    p->words = p->next_words;
    p->cap_words = p->cap_next;
    p->n_words = p->n_next;
    p->next_words = words;
    p->cap_next = cap;
    p->n_next = 0;
}

static void texts_swap(PreTokenizer *p)
{
    Str text = p->text;
    p->text = p->next_text;
    p->next_text = text;
    str_clear(&p->next_text);
}

static int step_split(PreTokenizer *p, const PreStep *step, SplitBehavior behavior)
{
    for (int i = 0; i < p->n_words; i++) {
        if (step->re) {
            int rc = cut_by_regex(p, step, p->words[i]);
            if (rc < 0)
                return rc;
        } else {
            cut_by_character(p, step, p->words[i]);
        }
        cuts_join(p, behavior, p->words[i].first);
    }
    words_swap(p);
    return 0;
}

/* Writes every word anew through fn into next_text. */
static void words_rewrite(PreTokenizer *p, const PreStep *step, PiecePlace place,
                          void (*fn)(PreTokenizer *p, const PreStep *step, Word w,
                                     PiecePlace place))
{
    for (int i = 0; i < p->n_words; i++) {
        size_t from = p->next_text.n;
        fn(p, step, p->words[i], place);
        word_add(p, from, p->next_text.n, p->words[i].first);
    }
    words_swap(p);
    texts_swap(p);
}

static void rewrite_metaspace(PreTokenizer *p, const PreStep *step, Word w, PiecePlace place)
{
    const Str space = {(char[]){" "}, 1, 0};
    const char *s = str_get(&p->text) + w.from;
    const Str *mark = &step->replacement;
    size_t n = w.to - w.from;
    bool marked = s[0] == ' ' || (n >= mark->n && memcmp(s, str_get(mark), mark->n) == 0);
    bool wanted = step->scheme == SCHEME_ALWAYS
                      ? !(w.first && place == PIECE_CONTINUES)
                      : step->scheme == SCHEME_FIRST && w.first && place == PIECE_START;
    if (wanted && !marked)
        str_add_bytes(&p->next_text, str_get(mark), mark->n);
    text_replace(&p->next_text, s, n, &space, mark);
}

static void rewrite_prefix_space(PreTokenizer *p, const PreStep *step, Word w, PiecePlace place)
{
    const char *s = str_get(&p->text) + w.from;
    if (step->prefix_space && s[0] != ' ' && !(w.first && place == PIECE_CONTINUES))
        str_add(&p->next_text, " ");
    str_add_bytes(&p->next_text, s, w.to - w.from);
}

static void rewrite_bytes(PreTokenizer *p, const PreStep *step, Word w, PiecePlace place)
{
    const char *s = str_get(&p->text) + w.from;
    char c[4];
    (void)step;
    (void)place;
    for (size_t i = 0; i < w.to - w.from; i++)
        str_add_bytes(&p->next_text, c, (size_t)utf8_put(c, byte_level_char((unsigned char)s[i])));
}

static int step_run(PreTokenizer *p, const PreStep *step, PiecePlace place)
{
    int rc = 0;
    switch (step->kind) {
    case PRE_SPLIT:
        return step_split(p, step, step->behavior);
    case PRE_DIGITS:
        return step_split(p, step, step->individual ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS);
    case PRE_METASPACE:
        words_rewrite(p, step, place, rewrite_metaspace);
        return step->split ? step_split(p, step, SPLIT_MERGED_WITH_NEXT) : 0;
    case PRE_BYTE_LEVEL:
        if (step->prefix_space)
            words_rewrite(p, step, place, rewrite_prefix_space);
        if (step->re)
            rc = step_split(p, step, SPLIT_ISOLATED);
        if (rc == 0 && step != &p->at[p->n - 1]) /* else bpe.c takes the bytes as they are */
            words_rewrite(p, step, place, rewrite_bytes);
        return rc;
    }
    CHECK(false, "pre-tokenizer kind %d", (int)step->kind);
    return rc;
}

int pretokenizer_run(PreTokenizer *p, const char *s, size_t n, PiecePlace place)
{
    str_clear(&p->text);
    str_clear(&p->next_text);
    str_add_bytes(&p->text, s, n);
    p->n_next = p->n_cuts = 0;
    word_add(p, 0, n, true);
    words_swap(p);
    for (int i = 0; i < p->n; i++) {
        int rc = step_run(p, &p->at[i], place);
        if (rc < 0)
            return rc;
    }
    return 0;
}

void pretokenizer_free(PreTokenizer *p)
{
    for (int i = 0; i < p->n; i++) {
        pcre2_code_free(p->at[i].re);
        str_free(&p->at[i].replacement);
    }
    free(p->at);
    pcre2_match_data_free(p->match);
    pcre2_match_context_free(p->context);
    pcre2_jit_stack_free(p->stack);
    str_free(&p->text);
    str_free(&p->next_text);
    free(p->words);
    free(p->next_words);
    free(p->cuts);
    *p = (PreTokenizer){0};
}

/* ---- GPT-2's bytes: printable Latin-1 stands for itself, the other 68 follow from U+0100 on */

static bool byte_is_printable(int b)
{
    return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
}

uint32_t byte_level_char(unsigned char b)
{
    if (byte_is_printable(b))
        return b;
    /* the other bytes are 0x00-0x20, 0x7F-0xA0 and 0xAD, in that order */
    return 0x100u + (b <= 0x20 ? b : b <= 0xA0 ? b - 0x7Fu + 33 : 67);
}

int byte_level_byte(uint32_t c)
{
    if (c < 0x100)
        return byte_is_printable((int)c) ? (int)c : -1;
    if (c >= 0x100 + 68)
        return -1;
    c -= 0x100;
    return (int)(c < 33 ? c : c < 67 ? c - 33 + 0x7F : 0xAD);
}
