/* spm_read.c - SentencePiece's tokenizer.model (BPE with scores, as Llama 2 has it) into a Tokenizer.
 *
 * SentencePiece merges the pair whose joined text is a piece of the highest score, the leftmost among
 * equals: the merge table of bpe.c, with one row for each way to cut a piece in two and the order of the
 * scores as ranks. What merges are pieces and single characters; a character that is part of pieces without
 * being one gets an id behind them (Bpe.loose). User-defined symbols are found first and never merge;
 * UNUSED pieces merge, and fall apart again into what they were made of. Control, unknown and byte pieces
 * are never reached by a text. The fields' numbers are those of sentencepiece_model.proto.
 * Tested by tests/unit/test_sentencepiece.c and test_text_golden.c. */
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/text.h"
#include "common/text/protobuf.h"
#include "common/text/tokenizer_read.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 1024 };

typedef enum { SPM_NORMAL = 1, SPM_UNKNOWN, SPM_CONTROL, SPM_USER_DEFINED, SPM_UNUSED, SPM_BYTE } SpmType;

typedef struct {
    const char *s; /* in the file */
    size_t n;
    float score;
    SpmType type;
    int32_t rank; /* 0: the highest score */
} SpmPiece;

typedef struct {
    Tokenizer *t;
    SpmPiece *at;
    int n, cap;
    uint64_t model_type;
    bool byte_fallback, space_as_suffix;
    bool add_dummy_prefix, trim, escape;
} SpmModel;

static int broken(const Tokenizer *t)
{
    return error_prefix("%s", t->path);
}

/* ---- the three messages */

static int read_one_piece(SpmModel *m, PbMessage message)
{
    SpmPiece p = {.type = SPM_NORMAL};
    PbField f;
    int rc, i;
    while ((rc = pb_next(&message, &f)) > 0) {
        if (f.number == 1 && f.type == PB_BYTES) {
            p.s = (const char *)f.bytes.at;
            p.n = (size_t)(f.bytes.end - f.bytes.at);
        } else if (f.number == 2 && f.type == PB_FIXED32) {
            p.score = pb_float(&f);
        } else if (f.number == 3 && f.type == PB_VARINT) {
            p.type = (SpmType)(f.value > SPM_BYTE ? 0 : f.value);
        } else if (f.number <= 3) {
            return read_fail(m->t, "byte %zu: piece %d: field %u has the wrong type", f.place, m->n,
                             f.number);
        }
    }
    if (rc < 0)
        return broken(m->t);
    i = VEC_GROW(m->at, m->n, m->cap);
    m->at[i] = p;
    return 0;
}

static int read_trainer(SpmModel *m, PbMessage message)
{
    PbField f;
    int rc;
    while ((rc = pb_next(&message, &f)) > 0) {
        if (f.number == 3 && f.type == PB_VARINT)
            m->model_type = f.value;
        else if (f.number == 24 && f.type == PB_VARINT)
            m->space_as_suffix = f.value;
        else if (f.number == 35 && f.type == PB_VARINT)
            m->byte_fallback = f.value;
        else if (f.number == 44 && f.type == PB_BYTES) {
            str_clear(&m->t->unk_surface);
            str_add_bytes(&m->t->unk_surface, f.bytes.at, (size_t)(f.bytes.end - f.bytes.at));
        }
    }
    return rc < 0 ? broken(m->t) : 0;
}

static int read_normalizer(SpmModel *m, PbMessage message, const char *name)
{
    PbField f;
    int rc;
    while ((rc = pb_next(&message, &f)) > 0) {
        if (f.number == 2 && f.type == PB_BYTES && f.bytes.at < f.bytes.end)
            return read_fail(m->t,
                             "byte %zu: %s.precompiled_charsmap is not empty; only models without "
                             "a character map (normalization \"identity\") are supported: "
                             "convert it to tokenizer.json",
                             f.place, name);
        if (f.number == 3 && f.type == PB_VARINT)
            m->add_dummy_prefix = f.value;
        else if (f.number == 4 && f.type == PB_VARINT)
            m->trim = f.value;
        else if (f.number == 5 && f.type == PB_VARINT)
            m->escape = f.value;
    }
    return rc < 0 ? broken(m->t) : 0;
}

static int read_messages(SpmModel *m, PbMessage file)
{
    SpmModel ignored = {.t = m->t};
    PbField f;
    int rc, r = 0;
    while ((rc = pb_next(&file, &f)) > 0) {
        if (f.type != PB_BYTES && f.number <= 5)
            return read_fail(m->t, "byte %zu: field %u has the wrong type; this is no model of "
                                   "SentencePiece",
                             f.place, f.number);
        if (f.number == 1)
            r = read_one_piece(m, f.bytes);
        else if (f.number == 2)
            r = read_trainer(m, f.bytes);
        else if (f.number == 3)
            r = read_normalizer(m, f.bytes, "normalizer_spec");
        else if (f.number == 5)
            r = read_normalizer(&ignored, f.bytes, "denormalizer_spec");
        if (r < 0)
            return r;
    }
    return rc < 0 ? broken(m->t) : 0;
}

/* ---- what is understood */

static int check_model(const SpmModel *m)
{
    static const char *const names[] = {"?", "unigram", "bpe", "word", "char"};
    if (m->n == 0)
        return read_fail(m->t, "there are no pieces; this is no model of SentencePiece");
    if (m->model_type != 2)
        return read_fail(m->t, "trainer_spec.model_type is \"%s\"; only \"bpe\" is supported: convert "
                               "it to tokenizer.json",
                         names[m->model_type < 5 ? m->model_type : 0]);
    if (m->space_as_suffix)
        return read_fail(m->t, "trainer_spec.treat_whitespace_as_suffix is set, which is not supported");
    if (!m->escape)
        return read_fail(m->t, "normalizer_spec.escape_whitespaces is false, which is not supported");
    return 0;
}

static int check_piece(const SpmModel *m, int id)
{
    const SpmPiece *p = &m->at[id];
    if (p->n == 0)
        return read_fail(m->t, "piece %d is empty", id);
    if (p->n > PIECE_BYTES)
        return read_fail(m->t, "piece %d has %zu bytes; expected at most %d", id, p->n, PIECE_BYTES);
    if (!text_is_utf8(p->s, p->n) || memchr(p->s, 0, p->n))
        return read_fail(m->t, "piece %d is not UTF-8 text", id);
    if (!p->type)
        return read_fail(m->t, "piece %d (\"%.*s\") is of an unknown type", id, (int)p->n, p->s);
    if (!isfinite(p->score))
        return read_fail(m->t, "piece %d (\"%.*s\") has a score that is no number", id, (int)p->n, p->s);
    return 0;
}

static int take_byte(Tokenizer *t, const SpmPiece *p, int id)
{
    char name[8];
    unsigned b;
    char text[8] = {0};
    memcpy(text, p->s, p->n < 7 ? p->n : 7);
    if (sscanf(text, "<0x%2X>", &b) == 1) {
        snprintf(name, sizeof name, "<0x%02X>", b);
        if (strcmp(name, text) == 0) {
            t->bpe.byte_ids[b] = id;
            return 0;
        }
    }
    return read_fail(t, "piece %d (\"%.*s\") is of type BYTE; expected \"<0x00>\" to \"<0xFF>\"", id,
                     (int)p->n, p->s);
}

static int take_special(Tokenizer *t, const SpmPiece *p, int id)
{
    int k = VEC_GROW(t->added, t->n_added, t->cap_added);
    AddedToken *a = &t->added[k];
    *a = (AddedToken){.id = id, .special = true};
    str_add_bytes(&a->content, p->s, p->n);
    str_add_bytes(&a->pattern, p->s, p->n);
    vocab_add(&t->added_ids, p->s, p->n, id);
    if (p->type != SPM_UNKNOWN)
        return 0;
    if (t->bpe.unk >= 0)
        return read_fail(t, "piece %d (\"%.*s\") is a second one of type UNKNOWN", id, (int)p->n, p->s);
    t->bpe.unk = id;
    return 0;
}

static void take_user_defined(Bpe *b, const SpmPiece *p, int id)
{
    vocab_add(&b->user_defined, p->s, p->n, id);
    b->user_starts[(unsigned char)p->s[0]] = true;
    if (p->n > b->user_defined_bytes)
        b->user_defined_bytes = p->n;
}

static int take_piece(SpmModel *m, Vocab *seen, int id)
{
    Tokenizer *t = m->t;
    const SpmPiece *p = &m->at[id];
    bool special = p->type == SPM_CONTROL || p->type == SPM_UNKNOWN;
    char where[24];
    int rc = check_piece(m, id), before;
    if (rc < 0)
        return rc;
    if ((before = vocab_add(seen, p->s, p->n, id)) >= 0)
        return read_fail(t, "piece %d (\"%.*s\") is piece %d already", id, (int)p->n, p->s, before);
    snprintf(where, sizeof where, "piece %d", id);
    if ((rc = read_piece(t, id, p->s, p->n, special, where)) < 0)
        return rc;
    if (special)
        return take_special(t, p, id);
    if (p->type == SPM_BYTE)
        return take_byte(t, p, id);
    vocab_add(&t->bpe.vocab, p->s, p->n, id);
    if (p->type == SPM_USER_DEFINED)
        take_user_defined(&t->bpe, p, id);
    return 0;
}

static int take_pieces(SpmModel *m)
{
    Tokenizer *t = m->t;
    Vocab seen = {0};
    int rc = 0;
    for (int id = 0; id < m->n; id++)
        TRY(take_piece(m, &seen, id));
    if (t->bpe.unk < 0) {
        rc = read_fail(t, "there is no piece of type UNKNOWN");
        goto fail;
    }
    for (int b = 0; m->byte_fallback && b < 256; b++)
        if (t->bpe.byte_ids[b] < 0) {
            rc = read_fail(t, "trainer_spec.byte_fallback is set, but there is no piece <0x%02X>",
                           (unsigned)b);
            goto fail;
        }
fail:
    vocab_free(&seen);
    return rc;
}

/* ---- merges */

static int by_score(const void *x, const void *y, void *ctx)
{
    const SpmPiece *at = ctx;
    float a = at[*(const int *)x].score, b = at[*(const int *)y].score;
    return (a < b) - (a > b);
}

/* Equal scores are equal ranks. */
static void rank_pieces(SpmModel *m)
{
    int *order = xmalloc((size_t)m->n * sizeof *order);
    int32_t rank = 0;
    for (int i = 0; i < m->n; i++)
        order[i] = i;
    qsort_r(order, (size_t)m->n, sizeof *order, by_score, m->at);
    for (int i = 0; i < m->n; i++) {
        if (i > 0 && m->at[order[i]].score != m->at[order[i - 1]].score)
            rank++;
        m->at[order[i]].rank = rank;
    }
    free(order);
}

static bool is_mergeable(const SpmPiece *p)
{
    return p->type == SPM_NORMAL || p->type == SPM_UNUSED;
}

/* What a side of a pair can be: a piece that merges, or one character, to which an id is given if it
 * has none. -1: neither. */
static int32_t side_id(SpmModel *m, const char *s, size_t n)
{
    Bpe *b = &m->t->bpe;
    int32_t id = vocab_get(&b->vocab, s, n);
    int len;
    if (id >= 0)
        return is_mergeable(&m->at[id]) ? id : -1;
    utf8_get(s, &len);
    if ((size_t)len != n)
        return -1;
    if ((id = vocab_get(&b->loose, s, n)) >= 0)
        return id;
    id = b->n_ids + (int32_t)b->loose.n;
    b->loose_text = xrealloc(b->loose_text, (b->loose.n + 1) * sizeof *b->loose_text);
    memset(b->loose_text[b->loose.n], 0, sizeof *b->loose_text);
    memcpy(b->loose_text[b->loose.n], s, n);
    vocab_add(&b->loose, s, n, id);
    return id;
}

static void make_merges(SpmModel *m)
{
    Bpe *b = &m->t->bpe;
    rank_pieces(m);
    for (int id = 0; id < m->n; id++) {
        const SpmPiece *p = &m->at[id];
        int len;
        if (!is_mergeable(p))
            continue;
        utf8_get(p->s, &len);
        for (size_t cut = (size_t)len; cut < p->n; cut += (size_t)len) {
            int32_t left = side_id(m, p->s, cut), right = side_id(m, p->s + cut, p->n - cut);
            if (left >= 0 && right >= 0)
                merges_put(&b->merges, left, right, p->rank, id);
            utf8_get(p->s + cut, &len);
        }
    }
}

/* The cut of tokenizer_read.c's namesake: here every piece counts, and UNUSED ones remember across words
 * what they were made of. */
static void decide_cuts(SpmModel *m)
{
    Bpe *b = &m->t->bpe;
    b->cuts_at_spaces = vocab_get(&b->vocab, SPM_SPACE, 3) >= 0;
    for (int id = 0; id < m->n; id++) {
        const SpmPiece *p = &m->at[id];
        if (p->type == SPM_UNUSED) {
            if (!b->unused)
                b->unused = xcalloc((size_t)m->n, sizeof *b->unused);
            b->unused[id] = (BpeUnused){true, -1, -1};
        }
        if (p->type == SPM_UNUSED || space_inside(p->s, p->n))
            b->cuts_at_spaces = false;
    }
}

static void set_steps(const SpmModel *m)
{
    Tokenizer *t = m->t;
    t->normalizer.at = xcalloc(1, sizeof *t->normalizer.at);
    t->normalizer.n = t->normalizer.cap = 1;
    t->normalizer.at[0] = (NormStep){
        .kind = NORM_SPM, .bpe = &t->bpe, .prefix = m->add_dummy_prefix, .trim = m->trim};
    t->decoder.at = xcalloc(1, sizeof *t->decoder.at);
    t->decoder.n = t->decoder.cap = 1;
    t->decoder.at[0] = (DecStep){.kind = DEC_SPM, .prefix = m->add_dummy_prefix, .trim = m->trim};
}

int tokenizer_read_spm(Tokenizer *t)
{
    SpmModel m = {.t = t, .model_type = 1, .add_dummy_prefix = true, .trim = true, .escape = true};
    char *data = NULL;
    size_t n;
    int rc;
    str_add(&t->unk_surface, " \xE2\x81\x87 ");
    memset(t->bpe.byte_ids, -1, sizeof t->bpe.byte_ids);
    TRY(file_read_stored(t->path, &data, &n));
    TRY(read_messages(&m, pb_message(data, n)));
    TRY(check_model(&m));
    t->bpe.spm = true;
    t->bpe.byte_fallback = m.byte_fallback;
    t->bpe.n_ids = m.n;
    TRY(take_pieces(&m));
    make_merges(&m);
    decide_cuts(&m);
    set_steps(&m);
    read_pieces_end(t);
    read_added_end(t);
fail:
    free(m.at);
    free(data);
    return rc;
}
