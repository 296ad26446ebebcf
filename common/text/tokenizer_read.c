/* tokenizer_read.c - tokenizer.json into a Tokenizer: vocabulary, merges, added tokens.
 *
 * Every part of the file is either understood or refused by its name: a part that is skipped in
 * silence would give other ids than the model was trained on. The steps around the model are read
 * by tokenizer_steps.c. Tested by tests/unit/test_tokenizer.c. */
#include "common/base/error.h"
#include "common/text/tokenizer_read.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ID_LIMIT = 1 << 22 };

int read_fail(const Tokenizer *t, const char *fmt, ...)
{
    Str text = {0};
    va_list ap;
    int rc;
    va_start(ap, fmt);
    str_addv(&text, fmt, ap);
    va_end(ap);
    rc = error_set(ERR_DATA, "%s: %s", t->path, str_get(&text));
    str_free(&text);
    return rc;
}

int read_member(const Tokenizer *t, Json **out, const Json *obj, const char *where, const char *key,
                JsonKind kind)
{
    Json *j = json_get(obj, key);
    *out = j;
    if (!j)
        return read_fail(t, "%s.%s is missing", where, key);
    if (json_kind(j) != kind)
        return read_fail(t, "%s.%s is %s; expected %s", where, key, json_kind_name(json_kind(j)),
                         json_kind_name(kind));
    return 0;
}

bool read_absent(const Json *j)
{
    return json_kind(j) == JSON_NONE || json_kind(j) == JSON_NIL;
}

int read_flag(const Tokenizer *t, bool *out, const Json *obj, const char *where, const char *key,
              bool otherwise)
{
    const Json *j = json_get(obj, key);
    *out = json_bool(j, otherwise);
    if (!read_absent(j) && json_kind(j) != JSON_BOOLEAN)
        return read_fail(t, "%s.%s is %s; expected true or false", where, key,
                         json_kind_name(json_kind(j)));
    return 0;
}

void read_str(Str *dst, const Json *j)
{
    str_add_bytes(dst, json_str(j), json_str_len(j));
}

/* ---- pieces by id */

int read_piece(Tokenizer *t, int64_t id, const char *s, size_t n, bool special, const char *where)
{
    Piece *p;
    if (id < 0 || id >= ID_LIMIT)
        return read_fail(t, "%s: token \"%s\" has id %lld; expected 0 to %d", where, s,
                         (long long)id, ID_LIMIT - 1);
    if (id >= t->n_pieces) {
        int size = t->n_pieces ? t->n_pieces : 1024;
        while (size <= id)
            size *= 2;
        /* grown by doubling, trimmed at the end */
        t->pieces = xrealloc(t->pieces, (size_t)size * sizeof *t->pieces);
        memset(t->pieces + t->n_pieces, 0, (size_t)(size - t->n_pieces) * sizeof *t->pieces);
        t->n_pieces = size;
    }
    p = &t->pieces[id];
    if (p->s && (p->n != n || memcmp(p->s, s, n) != 0))
        return read_fail(t, "%s: token \"%s\" has id %lld, which is that of \"%s\"", where, s,
                         (long long)id, p->s);
    if (!p->s) {
        p->s = xstrndup(s, n);
        p->n = (uint32_t)n;
    }
    p->special |= special;
    return 0;
}

void read_pieces_end(Tokenizer *t)
{
    while (t->n_pieces > 0 && !t->pieces[t->n_pieces - 1].s)
        t->n_pieces--;
}

/* ---- the model */

static int read_vocab(Tokenizer *t, const Json *model)
{
    Json *vocab;
    int rc = read_member(t, &vocab, model, "model", "vocab", JSON_OBJ);
    if (rc < 0)
        return rc;
    if (json_len(vocab) == 0)
        return read_fail(t, "model.vocab is empty");
    for (void *it = json_iter(vocab); it; it = json_iter_next(vocab, it)) {
        const char *s = json_iter_key(it);
        const Json *id = json_iter_value(it);
        if (json_kind(id) != JSON_INT)
            return read_fail(t, "model.vocab: the id of \"%s\" is %s; expected an integer", s,
                             json_kind_name(json_kind(id)));
        if ((rc = read_piece(t, json_int(id, -1), s, strlen(s), false, "model.vocab")) < 0)
            return rc;
        vocab_add(&t->bpe.vocab, s, strlen(s), (int32_t)json_int(id, -1));
    }
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        t->bpe.byte_ids[b] = vocab_get(&t->bpe.vocab, name, 6);
    }
    return 0;
}

/* "a b" or ["a", "b"]. */
static int merge_sides(Tokenizer *t, const Json *j, size_t i, Str *left, Str *right)
{
    const char *s = json_str(j), *space;
    size_t n = json_str_len(j);
    str_clear(left);
    str_clear(right);
    if (json_kind(j) == JSON_ARR && json_len(j) == 2 && json_str(json_at(j, 0)) &&
        json_str(json_at(j, 1))) {
        read_str(left, json_at(j, 0));
        read_str(right, json_at(j, 1));
        return 0;
    }
    if (!s)
        return read_fail(t, "model.merges[%zu] is %s; expected \"a b\" or [\"a\", \"b\"]", i,
                         json_kind_name(json_kind(j)));
    space = memchr(s, ' ', n);
    if (!space || memchr(space + 1, ' ', n - (size_t)(space + 1 - s)))
        return read_fail(
            t, "model.merges[%zu] is \"%s\"; expected two tokens with one space between", i, s);
    str_add_bytes(left, s, (size_t)(space - s));
    str_add_bytes(right, space + 1, n - (size_t)(space + 1 - s));
    return 0;
}

static int read_merges(Tokenizer *t, const Json *model)
{
    Json *merges;
    Str left = {0}, right = {0};
    int32_t rank = 0;
    int rc;
    TRY(read_member(t, &merges, model, "model", "merges", JSON_ARR));
    for (size_t i = 0; i < json_len(merges); i++) {
        const Json *j = json_at(merges, i);
        const Str *unknown = NULL;
        int32_t l, r, both;
        if (json_str(j) && strncmp(json_str(j), "#version", 8) == 0)
            continue;
        TRY(merge_sides(t, j, i, &left, &right));
        if ((l = vocab_get(&t->bpe.vocab, str_get(&left), left.n)) < 0)
            unknown = &left;
        else if ((r = vocab_get(&t->bpe.vocab, str_get(&right), right.n)) < 0)
            unknown = &right;
        if (!unknown) {
            str_add_bytes(&left, str_get(&right), right.n);
            if ((both = vocab_get(&t->bpe.vocab, str_get(&left), left.n)) < 0)
                unknown = &left;
        }
        if (unknown) {
            rc = read_fail(t, "model.merges[%zu]: \"%s\" is not in model.vocab", i,
                           str_get(unknown));
            goto fail;
        }
        merges_put(&t->bpe.merges, l, r, rank++, both);
    }
    rc = 0;
fail:
    str_free(&left);
    str_free(&right);
    return rc;
}

/* Options that change the ids and that no model of the supported families sets. */
static int refuse_option(const Tokenizer *t, const Json *model, const char *key)
{
    const Json *j = json_get(model, key);
    if (read_absent(j) || (json_str(j) && json_str_len(j) == 0) ||
        (json_kind(j) != JSON_STR && json_num(j, 1) == 0))
        return 0;
    return read_fail(t, "model.%s is set, which is not supported; expected null", key);
}

static int read_model(Tokenizer *t, const Json *root)
{
    Json *model, *type = NULL;
    const Json *unk;
    int rc = read_member(t, &model, root, "tokenizer", "model", JSON_OBJ);
    if (rc < 0)
        return rc;
    type = json_get(model, "type"); /* files of 2019 have none; they are told by their merges */
    if (type ? !json_str(type) || strcmp(json_str(type), "BPE") != 0 : !json_get(model, "merges"))
        return read_fail(t, "model.type is \"%s\"; only \"BPE\" is supported",
                         type && json_str(type) ? json_str(type) : "missing");
    if ((rc = refuse_option(t, model, "dropout")) < 0 ||
        (rc = refuse_option(t, model, "continuing_subword_prefix")) < 0 ||
        (rc = refuse_option(t, model, "end_of_word_suffix")) < 0 ||
        (rc = read_flag(t, &t->bpe.fuse_unk, model, "model", "fuse_unk", false)) < 0 ||
        (rc = read_flag(t, &t->bpe.byte_fallback, model, "model", "byte_fallback", false)) < 0 ||
        (rc = read_flag(t, &t->bpe.ignore_merges, model, "model", "ignore_merges", false)) < 0 ||
        (rc = read_vocab(t, model)) < 0 || (rc = read_merges(t, model)) < 0)
        return rc;
    unk = json_get(model, "unk_token");
    if (read_absent(unk))
        return 0;
    if (!json_str(unk))
        return read_fail(t, "model.unk_token is %s; expected a string or null",
                         json_kind_name(json_kind(unk)));
    t->bpe.unk = vocab_get(&t->bpe.vocab, json_str(unk), json_str_len(unk));
    if (t->bpe.unk < 0)
        return read_fail(t, "model.unk_token \"%s\" is not in model.vocab", json_str(unk));
    return 0;
}

/* ---- added tokens */

int read_added_token(Tokenizer *t, const Json *j, int64_t id, const char *where)
{
    Json *content;
    AddedToken *a;
    int rc, k;
    int32_t known;
    if ((rc = read_member(t, &content, j, where, "content", JSON_STR)) < 0)
        return rc;
    if (json_str_len(content) == 0)
        return 0;
    known = vocab_get(&t->bpe.vocab, json_str(content), json_str_len(content));
    if (known >= 0 && known != id)
        return read_fail(t, "%s: \"%s\" has id %lld, but %d in the vocabulary", where,
                         json_str(content), (long long)id, (int)known);
    k = VEC_GROW(t->added, t->n_added, t->cap_added);
    a = &t->added[k];
    *a = (AddedToken){0};
    read_str(&a->content, content);
    if ((rc = read_flag(t, &a->special, j, where, "special", false)) < 0 ||
        (rc = read_flag(t, &a->normalized, j, where, "normalized", !a->special)) < 0 ||
        (rc = read_flag(t, &a->lstrip, j, where, "lstrip", false)) < 0 ||
        (rc = read_flag(t, &a->rstrip, j, where, "rstrip", false)) < 0 ||
        (rc = read_flag(t, &a->single_word, j, where, "single_word", false)) < 0 ||
        (rc = read_piece(t, id, a->content.s, a->content.n, a->special, where)) < 0)
        return rc;
    a->id = (int32_t)id;
    if (vocab_add(&t->added_ids, a->content.s, a->content.n, a->id) >= 0)
        return read_fail(t, "%s: \"%s\" is listed twice", where, a->content.s);
    if (a->normalized)
        normalizer_run(&t->normalizer, a->content.s, a->content.n, PIECE_START, &a->pattern);
    else
        str_add_bytes(&a->pattern, a->content.s, a->content.n);
    return 0;
}

static int compare_added(const void *x, const void *y, void *ctx)
{
    const AddedToken *added = ctx, *a = &added[*(const int *)x], *b = &added[*(const int *)y];
    unsigned char first_a = (unsigned char)a->pattern.s[0],
                  first_b = (unsigned char)b->pattern.s[0];
    if (first_a != first_b)
        return first_a < first_b ? -1 : 1;
    if (a->pattern.n != b->pattern.n)
        return a->pattern.n > b->pattern.n ? -1 : 1;
    if (a->special != b->special) /* equal patterns: the special one was entered first */
        return a->special ? -1 : 1;
    return *(const int *)x - *(const int *)y;
}

static void index_added(Tokenizer *t, AddedIndex *index, bool normalized)
{
    int k = 0;
    free(index->at);
    *index = (AddedIndex){0};
    index->at = xcalloc((size_t)t->n_added, sizeof *index->at);
    for (int i = 0; i < t->n_added; i++)
        if (t->added[i].normalized == normalized && t->added[i].pattern.n)
            index->at[index->n++] = i;
    qsort_r(index->at, (size_t)index->n, sizeof *index->at, compare_added, t->added);
    for (int b = 0; b <= 256; b++) {
        while (k < index->n && (unsigned char)t->added[index->at[k]].pattern.s[0] < b)
            k++;
        index->from[b] = k;
    }
}

void read_added_end(Tokenizer *t)
{
    index_added(t, &t->raw, false);
    index_added(t, &t->normalized, true);
}

static int read_added(Tokenizer *t, const Json *root)
{
    const Json *list = json_get(root, "added_tokens");
    char where[40];
    Json *id;
    int rc;
    if (!read_absent(list) && json_kind(list) != JSON_ARR)
        return read_fail(t, "added_tokens is %s; expected an array",
                         json_kind_name(json_kind(list)));
    for (size_t i = 0; i < json_len(list); i++) {
        const Json *j = json_at(list, i);
        snprintf(where, sizeof where, "added_tokens[%zu]", i);
        if (json_kind(j) != JSON_OBJ)
            return read_fail(t, "%s is %s; expected an object", where,
                             json_kind_name(json_kind(j)));
        if ((rc = read_member(t, &id, j, where, "id", JSON_INT)) < 0 ||
            (rc = read_added_token(t, j, json_int(id, -1), where)) < 0)
            return rc;
    }
    read_added_end(t);
    return 0;
}

/* A special token comes from an added token that was found as such, or from nowhere: with
 * ignore_merges a user's word "<s>" would else be looked up like any other. Any text reaches unk.
 */
static void hide_specials(Tokenizer *t)
{
    MergeTable *m = &t->bpe.merges;
    for (int i = 0; i < t->n_added; i++)
        if (t->added[i].special && t->added[i].id != t->bpe.unk)
            vocab_hide(&t->bpe.vocab, t->added[i].content.s, t->added[i].content.n);
    for (uint32_t i = 0; i < m->size; i++)
        if (m->at[i].id >= 0 && t->pieces[m->at[i].id].special)
            m->at[i].rank = -1;
}

/* The ids that the post-processor puts around a text are tokens. */
static int check_around(const Tokenizer *t, const IdList *ids)
{
    for (int i = 0; i < ids->n; i++)
        if (ids->at[i] >= t->n_pieces || !t->pieces[ids->at[i]].s)
            return read_fail(t, "post_processor: id %d is no token", (int)ids->at[i]);
    return 0;
}

/* Whether a text may be cut in front of every run of U+2581 that follows another character: then each
 * part is merged by itself, and a word seen before needs no merging. True of models trained on words,
 * which the vocabulary of Llama 2 is, though its file takes a document as one word. */
static bool cuts_at_spaces(const Tokenizer *t)
{
    const MergeTable *m = &t->bpe.merges;
    if (t->pre.n || t->bpe.ignore_merges || vocab_get(&t->bpe.vocab, SPM_SPACE, 3) < 0)
        return false;
    for (uint32_t i = 0; i < m->size; i++)
        if (m->at[i].id >= 0 && space_inside(t->pieces[m->at[i].id].s, t->pieces[m->at[i].id].n))
            return false;
    return true;
}

int tokenizer_read(Tokenizer *t)
{
    Json *root = NULL;
    int rc;
    TRY(json_read_file(&root, t->path));
    if (json_kind(root) != JSON_OBJ) {
        rc = read_fail(t, "holds %s; expected an object", json_kind_name(json_kind(root)));
        goto fail;
    }
    TRY(read_model(t, root));
    TRY(read_steps(t, root));
    TRY(read_added(t, root));
    TRY(check_around(t, &t->before));
    TRY(check_around(t, &t->after));
    t->bpe.bytes = t->pre.n && t->pre.at[t->pre.n - 1].kind == PRE_BYTE_LEVEL;
    t->bpe.cuts_at_spaces = cuts_at_spaces(t);
    hide_specials(t);
    read_pieces_end(t);
fail:
    json_free(root);
    return rc;
}
