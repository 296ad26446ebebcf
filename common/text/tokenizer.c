/* tokenizer.c - text to ids and ids to text.
 *
 * A text is cut at added tokens, the rest goes through normalizer, pre-tokenizer and BPE. A special
 * token in a user's text is found and then treated as plain text, as Hugging Face does with
 * encode_special_tokens = true. Tested by tests/unit/test_tokenizer.c against golden files. */
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

/* ---- lists of ids */

void id_list_add(IdList *l, int32_t id)
{
    int i = VEC_GROW(l->at, l->n, l->cap);
    l->at[i] = id;
}

void id_list_add_all(IdList *l, const int32_t *ids, int n)
{
    for (int i = 0; i < n; i++)
        id_list_add(l, ids[i]);
}

void id_list_free(IdList *l)
{
    free(l->at);
    *l = (IdList){0};
}

/* ---- opening */

/* tokenizer.json; without one tokenizer.model. */
static int read_file_of(Tokenizer *t, const char *folder)
{
    char *model = path_join(folder, "tokenizer.model");
    t->path = path_join(folder, "tokenizer.json");
    if (file_is_there(t->path) || !file_is_there(model)) {
        free(model);
        return tokenizer_read(t);
    }
    free(t->path);
    t->path = model;
    return tokenizer_read_spm(t);
}

int tokenizer_open(Tokenizer **out, const char *folder)
{
    Tokenizer *t = xcalloc(1, sizeof *t);
    Hash128 h;
    int rc;
    *out = NULL;
    t->bpe.unk = t->bos = t->eos = -1;
    TRY(read_file_of(t, folder));
    TRY(tokenizer_read_config(t, folder));
    TRY(hash128_file(t->path, &h));
    hash128_hex(h, t->hash);
    *out = t;
    return 0;
fail:
    tokenizer_close(t);
    return rc;
}

void tokenizer_close(Tokenizer *t)
{
    if (!t)
        return;
    bpe_free(&t->bpe);
    normalizer_free(&t->normalizer);
    pretokenizer_free(&t->pre);
    decoder_free(&t->decoder);
    for (int i = 0; i < t->n_added; i++) {
        str_free(&t->added[i].content);
        str_free(&t->added[i].pattern);
    }
    free(t->added);
    free(t->raw.at);
    free(t->normalized.at);
    vocab_free(&t->added_ids);
    for (int i = 0; i < t->n_pieces; i++)
        free(t->pieces[i].s);
    free(t->pieces);
    id_list_free(&t->before);
    id_list_free(&t->after);
    free(t->chat_template);
    str_free(&t->unk_surface);
    str_free(&t->scratch);
    free(t->path);
    free(t);
}

/* ---- added tokens */

static size_t char_before(const char *s, size_t i)
{
    do
        i--;
    while (i > 0 && ((unsigned char)s[i] & 0xC0) == 0x80);
    return i;
}

/* The longest token that starts at s[i]; NULL if none does. */
static const AddedToken *added_at(const Tokenizer *t, const AddedIndex *index, const char *s,
                                  size_t n, size_t i)
{
    unsigned char b = (unsigned char)s[i];
    for (int k = index->from[b]; k < index->from[b + 1]; k++) {
        const AddedToken *a = &t->added[index->at[k]];
        if (a->pattern.n <= n - i && memcmp(s + i, str_get(&a->pattern), a->pattern.n) == 0)
            return a;
    }
    return NULL;
}

static bool stands_alone(const char *s, size_t n, size_t from, size_t to)
{
    int len;
    if (from > 0 && utf8_is_word(utf8_get(s + char_before(s, from), &len)))
        return false;
    return to >= n || !utf8_is_word(utf8_get(s + to, &len));
}

static size_t spaces_before(const char *s, size_t i)
{
    while (i > 0) {
        int len;
        size_t before = char_before(s, i);
        if (!utf8_is_space(utf8_get(s + before, &len)))
            break;
        i = before;
    }
    return i;
}

static size_t spaces_behind(const char *s, size_t n, size_t i)
{
    int len;
    while (i < n && utf8_is_space(utf8_get(s + i, &len)))
        i += (size_t)len;
    return i;
}

typedef struct {
    Tokenizer *t;
    IdList *out;
    bool specials; /* special tokens count as such */
} Encoding;

typedef int (*PieceFn)(Encoding *e, const char *s, size_t n, PiecePlace place);

/* Cuts s at the tokens of an index; fn gets what lies between. */
static int cut_at_added(Encoding *e, const AddedIndex *index, const char *s, size_t n,
                        PiecePlace place, PieceFn fn)
{
    size_t done = 0, next;
    int rc;
    for (size_t i = 0; i < n && index->n; i = next) {
        const AddedToken *a = added_at(e->t, index, s, n, i);
        size_t from = i, to;
        next = i + 1;
        if (!a)
            continue;
        next = to = i + a->pattern.n;
        if ((a->special && !e->specials) || (a->single_word && !stands_alone(s, n, from, to)))
            continue;
        if (a->lstrip)
            from = spaces_before(s, from);
        if (from < done)
            from = done;
        if (a->rstrip)
            to = spaces_behind(s, n, to);
        if (from > done &&
            (rc = fn(e, s + done, from - done, done ? PIECE_AFTER_TOKEN : place)) < 0)
            return rc;
        id_list_add(e->out, a->id);
        if (to > done)
            done = to;
    }
    return done < n ? fn(e, s + done, n - done, done ? PIECE_AFTER_TOKEN : place) : 0;
}

/* ---- encoding */

static bool run_starts(const char *s, size_t n, size_t i)
{
    return i + 3 <= n && memcmp(s + i, SPM_SPACE, 3) == 0 &&
           (i < 3 || memcmp(s + i - 3, SPM_SPACE, 3) != 0);
}

bool space_inside(const char *s, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (run_starts(s, n, i))
            return true;
    return false;
}

/* Words are the parts between the starts of runs of U+2581. */
static void encode_cut(Encoding *e, const char *s, size_t n)
{
    size_t from = 0;
    for (size_t i = 1; i < n; i++)
        if (s[i] == SPM_SPACE[0] && run_starts(s, n, i)) {
            bpe_encode_word(&e->t->bpe, s + from, i - from, e->out);
            from = i;
        }
    bpe_encode_word(&e->t->bpe, s + from, n - from, e->out);
}

static int encode_words(Encoding *e, const char *s, size_t n, PiecePlace place)
{
    PreTokenizer *p = &e->t->pre;
    int rc;
    if (e->t->bpe.cuts_at_spaces) {
        encode_cut(e, s, n);
        return 0;
    }
    rc = pretokenizer_run(p, s, n, place);
    if (rc < 0)
        return error_prefix("%s", e->t->path);
    for (int i = 0; i < p->n_words; i++)
        bpe_encode_word(&e->t->bpe, str_get(&p->text) + p->words[i].from,
                        p->words[i].to - p->words[i].from, e->out);
    return 0;
}

static int encode_raw(Encoding *e, const char *s, size_t n, PiecePlace place)
{
    Str *text = &e->t->scratch;
    if (e->t->normalizer.n == 0)
        return cut_at_added(e, &e->t->normalized, s, n, place, encode_words);
    str_clear(text);
    normalizer_run(&e->t->normalizer, s, n, place, text);
    return cut_at_added(e, &e->t->normalized, str_get(text), text->n, place, encode_words);
}

static int encode(Tokenizer *t, const char *text, size_t n, PiecePlace place, bool specials,
                  IdList *out)
{
    Encoding e = {t, out, specials};
    size_t bad = utf8_find_invalid(text, n);
    if (bad < n)
        return error_set(ERR_DATA,
                         "the text is not UTF-8: byte %zu is 0x%02X; convert the file to UTF-8",
                         bad, (unsigned char)text[bad]);
    if (n > 1u << 29)
        return error_set(ERR_DATA, "a text of %zu bytes; at most 512 MiB can be tokenized at once",
                         n);
    return cut_at_added(&e, &t->raw, text, n, place, encode_raw);
}

int tokenizer_encode_at(Tokenizer *t, const char *text, size_t n, PiecePlace place, IdList *out)
{
    return encode(t, text, n, place, false, out);
}

int tokenizer_encode(Tokenizer *t, const char *text, size_t n, bool first, IdList *out)
{
    return encode(t, text, n, first ? PIECE_START : PIECE_CONTINUES, false, out);
}

int tokenizer_encode_special(Tokenizer *t, const char *text, size_t n, bool add_special,
                             IdList *out)
{
    int rc;
    if (add_special)
        id_list_add_all(out, t->before.at, t->before.n);
    rc = encode(t, text, n, PIECE_START, true, out);
    if (rc == 0 && add_special)
        id_list_add_all(out, t->after.at, t->after.n);
    return rc;
}

/* ---- decoding */

int tokenizer_decode(const Tokenizer *t, const int32_t *ids, int n, bool skip_special, Str *out)
{
    Str *tokens = xcalloc((size_t)n, sizeof *tokens);
    int m = 0;
    for (int i = 0; i < n; i++) {
        const Piece *p = ids[i] >= 0 && ids[i] < t->n_pieces ? &t->pieces[ids[i]] : NULL;
        if (!p || !p->s || (skip_special && p->special))
            continue;
        if (t->bpe.spm && ids[i] == t->bpe.unk)
            str_add_bytes(&tokens[m++], str_get(&t->unk_surface), t->unk_surface.n);
        else
            str_add_bytes(&tokens[m++], p->s, p->n);
    }
    decoder_run(&t->decoder, tokens, m, out);
    for (int i = 0; i < m; i++)
        str_free(&tokens[i]);
    free(tokens);
    return 0;
}

const char *tokenizer_piece(const Tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_pieces && t->pieces[id].s ? t->pieces[id].s : "<invalid>";
}

/* ---- what it knows */

int tokenizer_vocab_size(const Tokenizer *t)
{
    return t->n_pieces;
}

int tokenizer_check_vocab(const Tokenizer *t, const char *folder, int64_t vocab_size)
{
    if (tokenizer_vocab_size(t) <= vocab_size)
        return 0;
    return error_set(ERR_DATA, "%s/%s: ids up to %d, but config.json: vocab_size is %lld; the "
                               "tokenizer belongs to another model",
                     folder, path_base(t->path), tokenizer_vocab_size(t) - 1, (long long)vocab_size);
}

int32_t tokenizer_id(const Tokenizer *t, const char *content)
{
    int32_t id = vocab_get(&t->added_ids, content, strlen(content));
    return id >= 0 ? id : vocab_get(&t->bpe.vocab, content, strlen(content));
}

int32_t tokenizer_bos(const Tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const Tokenizer *t)
{
    return t->eos;
}

bool tokenizer_is_special(const Tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_pieces && t->pieces[id].special;
}

const char *tokenizer_chat_template(const Tokenizer *t)
{
    return t->chat_template;
}

const char *tokenizer_hash(const Tokenizer *t)
{
    return t->hash;
}
