/* bpe.c - the BPE model: a word to ids, merge by merge, and its two hash tables.
 *
 * The merge order is that of Hugging Face: the pair of the lowest rank, the leftmost among equals.
 * A heap over a linked list of symbols makes that O(n log n), because Llama 2 knows no words: a
 * whole document is one. Short words are remembered. Tested by tests/unit/test_tokenizer.c. */
#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

enum { CACHE_SLOTS = 1 << 15, CACHE_MAX = CACHE_SLOTS / 2, CACHE_WORD_BYTES = 64 };

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

/* ---- a word */

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
    b->n_symbols = 0;
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
    if (b->n_symbols)
        b->symbols[b->n_symbols - 1].next = -1;
}

static void word_merge(Bpe *b)
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

/* ---- words seen before */

static void cache_clear(Bpe *b)
{
    for (int i = 0; b->cache && i < CACHE_SLOTS; i++) {
        free(b->cache[i].ids);
        b->cache[i] = (CacheSlot){0};
    }
    b->n_cached = 0;
}

static CacheSlot *cache_slot(Bpe *b, uint64_t hash, const char *s, size_t n)
{
    uint32_t i = (uint32_t)hash & (CACHE_SLOTS - 1);
    if (!b->cache)
        b->cache = xcalloc(CACHE_SLOTS, sizeof *b->cache);
    while (b->cache[i].s &&
           (b->cache[i].hash != hash || b->cache[i].n != n || memcmp(b->cache[i].s, s, n) != 0))
        i = (i + 1) & (CACHE_SLOTS - 1);
    return &b->cache[i];
}

static void cache_store(Bpe *b, uint64_t hash, const char *s, size_t n, const int32_t *ids,
                        int n_ids)
{
    size_t ids_bytes = (size_t)n_ids * sizeof *ids;
    CacheSlot *c;
    if (b->n_cached >= CACHE_MAX)
        cache_clear(b);
    c = cache_slot(b, hash, s, n);
    c->hash = hash;
    c->ids = xmalloc(ids_bytes + n);
    if (n_ids)
        memcpy(c->ids, ids, ids_bytes);
    c->s = memcpy((char *)c->ids + ids_bytes, s, n);
    c->n = (uint32_t)n;
    c->n_ids = n_ids;
    b->n_cached++;
}

void bpe_encode_word(Bpe *b, const char *s, size_t n, IdList *out)
{
    uint64_t hash = 0;
    int from = out->n;
    if (n == 0)
        return;
    if (b->ignore_merges) {
        int32_t id = vocab_get(&b->vocab, s, n);
        if (id >= 0) {
            id_list_add(out, id);
            return;
        }
    }
    if (n <= CACHE_WORD_BYTES) {
        const CacheSlot *c;
        hash = hash64(s, n, 0);
        c = cache_slot(b, hash, s, n);
        if (c->s) {
            id_list_add_all(out, c->ids, c->n_ids);
            return;
        }
    }
    word_split(b, s, n);
    word_merge(b);
    for (int i = 0; i < b->n_symbols; i++)
        if (b->symbols[i].id >= 0)
            id_list_add(out, b->symbols[i].id);
    if (n <= CACHE_WORD_BYTES)
        cache_store(b, hash, s, n, out->at + from, out->n - from);
}

void bpe_free(Bpe *b)
{
    cache_clear(b);
    free(b->cache);
    free(b->symbols);
    free(b->queue);
    free(b->merges.at);
    vocab_free(&b->vocab);
    *b = (Bpe){0};
}
