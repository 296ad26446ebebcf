/* bpe.c - the BPE model: a word to ids, merge by merge, and its two hash tables.
 *
 * The merge order is that of Hugging Face: the pair of the lowest rank, the leftmost among equals;
 * SentencePiece's is the same with the score's place for a rank (spm_read.c). Few symbols are merged
 * by looking over all pairs, many by a heap over a linked list, O(n log n), because a text without
 * spaces is one word. Short words are remembered. Tested by tests/unit/test_tokenizer.c and
 * test_text_golden.c. */
#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/text/tokenizer_impl.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { CACHE_SLOTS = 1 << 16, SMALL = 24 };

/* ---- vocabulary */

static VocabSlot *vocab_slot(const Vocab *v, const char *s, size_t n)
{
    uint32_t i = (uint32_t)hash64(s, n, 0) & (v->size - 1);
    while (v->at[i].id >= 0 && (v->at[i].n != n || memcmp(v->at[i].s, s, n) != 0))
        i = (i + 1) & (v->size - 1);
    return &v->at[i];
}

static void vocab_grow(Vocab *v)
{
    Vocab old = *v;
    v->size = old.size ? 2 * old.size : 1024;
    v->at = xmalloc(v->size * sizeof *v->at);
    for (uint32_t i = 0; i < v->size; i++)
        v->at[i] = (VocabSlot){.id = -1};
    for (uint32_t i = 0; i < old.size; i++)
        if (old.at[i].id >= 0)
            *vocab_slot(v, old.at[i].s, old.at[i].n) = old.at[i];
    free(old.at);
}

int32_t vocab_get(const Vocab *v, const char *s, size_t n)
{
    const VocabSlot *slot;
    if (v->size == 0)
        return -1;
    slot = vocab_slot(v, s, n);
    return slot->hidden ? -1 : slot->id;
}

int32_t vocab_add(Vocab *v, const char *s, size_t n, int32_t id)
{
    VocabSlot *slot;
    CHECK(id >= 0, "id %d", (int)id);
    if (2 * (v->n + 1) > v->size)
        vocab_grow(v);
    slot = vocab_slot(v, s, n);
    if (slot->id >= 0)
        return slot->id;
    *slot = (VocabSlot){xstrndup(s, n), (uint32_t)n, id, false};
    v->n++;
    return -1;
}

void vocab_hide(Vocab *v, const char *s, size_t n)
{
    VocabSlot *slot = v->size ? vocab_slot(v, s, n) : NULL;
    if (slot && slot->id >= 0)
        slot->hidden = true;
}

void vocab_free(Vocab *v)
{
    for (uint32_t i = 0; i < v->size; i++)
        if (v->at[i].id >= 0)
            free(v->at[i].s);
    free(v->at);
    *v = (Vocab){0};
}

/* ---- merges */

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* The finalizer of splitmix64: both ids must reach the low bits. */
static Merge *merge_slot(const MergeTable *m, uint64_t pair)
{
    uint64_t h = pair;
    uint32_t i;
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9u;
    h = (h ^ (h >> 27)) * 0x94D049BB133111EBu;
    i = (uint32_t)(h ^ (h >> 31)) & (m->size - 1);
    while (m->at[i].id >= 0 && m->at[i].pair != pair)
        i = (i + 1) & (m->size - 1);
    return &m->at[i];
}

static void merges_grow(MergeTable *m)
{
    MergeTable old = *m;
    m->size = old.size ? 2 * old.size : 1024;
    m->at = xmalloc(m->size * sizeof *m->at);
    for (uint32_t i = 0; i < m->size; i++)
        m->at[i].id = -1;
    for (uint32_t i = 0; i < old.size; i++)
        if (old.at[i].id >= 0)
            *merge_slot(m, old.at[i].pair) = old.at[i];
    free(old.at);
}

void merges_put(MergeTable *m, int32_t left, int32_t right, int32_t rank, int32_t id)
{
    Merge *slot;
    if (2 * (m->n + 1) > m->size)
        merges_grow(m);
    slot = merge_slot(m, pair_of(left, right));
    if (slot->id < 0)
        m->n++;
    *slot = (Merge){pair_of(left, right), rank, id}; /* of two equal pairs the later one counts */
}

const Merge *merges_get(const MergeTable *m, int32_t left, int32_t right)
{
    const Merge *slot;
    if (m->size == 0)
        return NULL;
    slot = merge_slot(m, pair_of(left, right));
    return slot->id >= 0 && slot->rank >= 0 ? slot : NULL;
}

/* ---- the heap: a binary heap with the smallest key on top */

static void queue_add(Bpe *b, int32_t left_at)
{
    const BpeSymbol *left = &b->symbols[left_at];
    const Merge *m = merges_get(&b->merges, left->id, b->symbols[left->next].id);
    BpeQueued x;
    int i;
    if (!m)
        return;
    if (b->unused && b->unused[m->id].is)
        b->unused[m->id] = (BpeUnused){true, left->id, b->symbols[left->next].id};
    x = (BpeQueued){(uint64_t)(uint32_t)m->rank << 32 | (uint32_t)left_at, m->id};
    i = VEC_GROW(b->queue, b->n_queue, b->cap_queue);
    while (i > 0 && b->queue[(i - 1) / 2].key > x.key) {
        b->queue[i] = b->queue[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    b->queue[i] = x;
}

static BpeQueued queue_take(Bpe *b)
{
    BpeQueued top = b->queue[0], x = b->queue[--b->n_queue];
    int i = 0;
    for (;;) {
        int child = 2 * i + 1;
        if (child >= b->n_queue)
            break;
        if (child + 1 < b->n_queue && b->queue[child + 1].key < b->queue[child].key)
            child++;
        if (b->queue[child].key >= x.key)
            break;
        b->queue[i] = b->queue[child];
        i = child;
    }
    b->queue[i] = x;
    return top;
}

/* ---- a word to symbols */

static void symbol_add(Bpe *b, int32_t id)
{
    int i = VEC_GROW(b->symbols, b->n_symbols, b->cap_symbols);
    b->symbols[i] = (BpeSymbol){id, i - 1, i + 1};
}

/* "<0xXX>" for every byte of a character, or nothing when one of them is not in the vocabulary. */
static bool symbols_add_bytes(Bpe *b, const char *s, int n)
{
    for (int i = 0; i < n; i++)
        if (b->byte_ids[(unsigned char)s[i]] < 0)
            return false;
    for (int i = 0; i < n; i++)
        symbol_add(b, b->byte_ids[(unsigned char)s[i]]);
    return true;
}

/* One symbol a character. An unknown character waits, so that its neighbours can fuse with it; as
 * in the original, bytes of a fallback overtake it. Without an unk token it vanishes. */
static void word_split(Bpe *b, const char *s, size_t n)
{
    bool unk_waits = false;
    for (size_t i = 0; i < n;) {
        int len;
        int32_t id;
        utf8_get(s + i, &len);
        id = vocab_get(&b->vocab, s + i, (size_t)len);
        if (id >= 0) {
            if (unk_waits)
                symbol_add(b, b->unk);
            unk_waits = false;
            symbol_add(b, id);
        } else if (!(b->byte_fallback && symbols_add_bytes(b, s + i, len)) && b->unk >= 0) {
            if (unk_waits && !b->fuse_unk)
                symbol_add(b, b->unk);
            unk_waits = true;
        }
        i += (size_t)len;
    }
    if (unk_waits)
        symbol_add(b, b->unk);
}

/* The bytes of a word written as GPT-2's characters, of which each is a symbol. */
static void word_split_bytes(Bpe *b, const char *s, size_t n)
{
    char c[4];
    str_clear(&b->mapped);
    for (size_t i = 0; i < n; i++)
        str_add_bytes(&b->mapped, c, (size_t)utf8_put(c, byte_level_char((unsigned char)s[i])));
    if (b->ignore_merges) {
        int32_t id = vocab_get(&b->vocab, str_get(&b->mapped), b->mapped.n);
        if (id >= 0) {
            symbol_add(b, id);
            return;
        }
    }
    word_split(b, str_get(&b->mapped), b->mapped.n);
}

size_t spm_match(const Bpe *b, const char *s, size_t n, int32_t *id)
{
    size_t longest = b->user_defined_bytes < n ? b->user_defined_bytes : n;
    for (size_t len = b->user_starts[(unsigned char)*s] ? longest : 0; len > 0; len--)
        if ((*id = vocab_get(&b->user_defined, s, len)) >= 0)
            return len;
    return 0;
}

/* SentencePiece: user-defined symbols first, which never merge; else characters. One that is part of
 * pieces without being one has a number behind the pieces, since it may still merge. */
static void word_split_spm(Bpe *b, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        int32_t id;
        int len = (int)spm_match(b, s + i, n - i, &id);
        if (!len) {
            utf8_get(s + i, &len);
            id = vocab_get(&b->vocab, s + i, (size_t)len);
            if (id < 0)
                id = vocab_get(&b->loose, s + i, (size_t)len);
            if (id < 0 && b->byte_fallback)
                symbols_add_bytes(b, s + i, len);
            else
                symbol_add(b, id < 0 ? b->unk : id);
        } else {
            symbol_add(b, id);
        }
        i += (size_t)len;
    }
}

/* ---- merging */

static void merge_by_heap(Bpe *b)
{
    b->n_queue = 0;
    for (int i = 0; i + 1 < b->n_symbols; i++)
        queue_add(b, i);
    while (b->n_queue) {
        BpeQueued top = queue_take(b);
        int32_t at = (int32_t)(uint32_t)top.key, gone;
        BpeSymbol *left = &b->symbols[at];
        const Merge *m;
        if (left->id < 0 || left->next < 0)
            continue;
        gone = left->next;
        m = merges_get(&b->merges, left->id, b->symbols[gone].id);
        if (!m || m->id != top.id)
            continue; /* one of the two has merged with another neighbour since */
        left->id = top.id;
        left->next = b->symbols[gone].next;
        b->symbols[gone].id = -1;
        if (left->next >= 0)
            b->symbols[left->next].prev = at;
        if (left->prev >= 0)
            queue_add(b, left->prev);
        if (left->next >= 0)
            queue_add(b, at);
    }
}

static void pair_look_up(const Bpe *b, int i, int32_t *rank, int32_t *made)
{
    const Merge *m = merges_get(&b->merges, b->symbols[i].id, b->symbols[i + 1].id);
    rank[i] = m ? m->rank : INT32_MAX;
    made[i] = m ? m->id : -1;
}

/* The same merges over an array: for a few symbols cheaper than a heap. */
static void merge_by_scan(Bpe *b)
{
    int32_t rank[SMALL], made[SMALL];
    int n = b->n_symbols;
    for (int i = 0; i + 1 < n; i++)
        pair_look_up(b, i, rank, made);
    for (;;) {
        int best = 0;
        for (int i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (n < 2 || rank[best] == INT32_MAX)
            break;
        b->symbols[best].id = made[best];
        for (int i = best + 1; i + 1 < n; i++) {
            b->symbols[i].id = b->symbols[i + 1].id;
            rank[i] = i + 2 < n ? rank[i + 1] : INT32_MAX;
            made[i] = i + 2 < n ? made[i + 1] : -1;
        }
        n--;
        if (best > 0)
            pair_look_up(b, best - 1, rank, made);
        if (best + 1 < n)
            pair_look_up(b, best, rank, made);
    }
    b->n_symbols = n;
}

/* ---- symbols to ids */

static void id_add_spm(Bpe *b, int32_t id, IdList *out, int from)
{
    const char *s;
    if (b->unused && id < b->n_ids && b->unused[id].is && b->unused[id].left >= 0) {
        BpeUnused parts = b->unused[id];
        id_add_spm(b, parts.left, out, from);
        id_add_spm(b, parts.right, out, from);
        return;
    }
    if (id >= b->n_ids) {
        s = b->loose_text[id - b->n_ids];
        for (size_t i = 0; b->byte_fallback && s[i]; i++)
            id_list_add(out, b->byte_ids[(unsigned char)s[i]]);
        if (b->byte_fallback)
            return;
        id = b->unk;
    }
    if (id == b->unk && out->n > from && out->at[out->n - 1] == id)
        return; /* a run of unknown characters is one unk */
    id_list_add(out, id);
}

static void word_encode(Bpe *b, const char *s, size_t n, IdList *out)
{
    int from = out->n;
    b->n_symbols = 0;
    if (b->spm)
        word_split_spm(b, s, n);
    else if (b->bytes)
        word_split_bytes(b, s, n);
    else
        word_split(b, s, n);
    if (b->n_symbols)
        b->symbols[b->n_symbols - 1].next = -1;
    if (b->n_symbols <= SMALL && !b->unused)
        merge_by_scan(b);
    else
        merge_by_heap(b);
    for (int i = 0; i < b->n_symbols; i++) {
        if (b->symbols[i].id < 0)
            continue;
        if (b->spm)
            id_add_spm(b, b->symbols[i].id, out, from);
        else
            id_list_add(out, b->symbols[i].id);
    }
}

/* ---- words seen before: one place a word, the newest stays */

static CacheSlot *cache_slot(Bpe *b, uint64_t hash)
{
    if (!b->cache)
        b->cache = xcalloc(CACHE_SLOTS, sizeof *b->cache);
    return &b->cache[hash & (CACHE_SLOTS - 1)];
}

/* The ids of a word are those of `out` from `from` on. */
static void cache_store(CacheSlot *c, uint64_t hash, const char *s, size_t n, const IdList *out, int from)
{
    int n_ids = out->n - from;
    if (n_ids > CACHE_IDS)
        return;
    c->hash = hash;
    c->n = (uint8_t)n;
    c->n_ids = (uint8_t)n_ids;
    memcpy(c->s, s, n);
    for (int i = 0; i < n_ids; i++)
        c->ids[i] = out->at[from + i];
}

void bpe_encode_word(Bpe *b, const char *s, size_t n, IdList *out)
{
    uint64_t hash;
    CacheSlot *c;
    int from = out->n;
    if (n == 0)
        return;
    if (b->ignore_merges && !b->bytes) {
        int32_t id = vocab_get(&b->vocab, s, n);
        if (id >= 0) {
            id_list_add(out, id);
            return;
        }
    }
    if (n > CACHE_WORD_BYTES) {
        word_encode(b, s, n, out);
        return;
    }
    hash = hash64(s, n, 0);
    c = cache_slot(b, hash);
    if (c->hash == hash && c->n == n && memcmp(c->s, s, n) == 0) {
        id_list_add_all(out, c->ids, c->n_ids);
        return;
    }
    word_encode(b, s, n, out);
    cache_store(c, hash, s, n, out, from);
}

void bpe_free(Bpe *b)
{
    free(b->cache);
    free(b->symbols);
    free(b->queue);
    free(b->merges.at);
    free(b->unused);
    free(b->loose_text);
    str_free(&b->mapped);
    vocab_free(&b->vocab);
    vocab_free(&b->user_defined);
    vocab_free(&b->loose);
    *b = (Bpe){0};
}
