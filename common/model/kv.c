/* kv.c - the KV cache and the forward pass over it.
 *
 * A page holds KV_TILE consecutive positions of a slot for all kv heads: the tile attention walks
 * in training too. Pages are counted references into one pool: slots with the same beginning refer
 * to the same pages, and whoever writes into a page that others refer to gets a copy first. The pool
 * cannot run out: there are n_slots * pages_per_slot pages, as many as table entries, and taking a
 * page either fills an empty entry or replaces one of several references to the same page. Tested by
 * tests/unit/test_model.c. */
#include "common/base/error.h"
#include "common/base/mem.h"
#include "common/model/acts.h"
#include "common/runtime/device.h"

#include <stdlib.h>

/* ---- pages ---------------------------------------------------------------------------------- */

/* Host bookkeeping: everything free. One block, which `table` owns. */
static void pool_reset(KvCache *kv)
{
    size_t P = (size_t)kv->n_pages, S = (size_t)kv->n_slots;
    if (!kv->table)
        kv->table = xcalloc(3 * P + 2 * S, sizeof *kv->table);
    kv->n_refs = kv->table + P;
    kv->free_pages = kv->n_refs + P;
    kv->pairs = kv->free_pages + P;
    for (int64_t i = 0; i < kv->n_pages; i++) {
        kv->table[i] = -1;
        kv->n_refs[i] = 0;
        kv->free_pages[i] = (int32_t)(kv->n_pages - 1 - i);
    }
    kv->n_free = kv->n_pages;
}

void kv_alloc(KvCache *kv, const Model *m, Arena *a, int64_t n_slots, int64_t max_length)
{
    const ModelConfig *c = &m->table.config;
    CHECK(n_slots > 0 && max_length > 0 && max_length <= m->max_positions,
          "%lld slots of %lld tokens, positions up to %lld", (long long)n_slots,
          (long long)max_length, (long long)m->max_positions);
    size_t L = (size_t)c->L;
    Tensor *k = kv->k ? kv->k : xcalloc(L, sizeof *k), *v = kv->v ? kv->v : xcalloc(L, sizeof *v);
    int64_t per_slot = (max_length + KV_TILE - 1) / KV_TILE;
    *kv = (KvCache){.k = k,
                    .v = v,
                    .table = kv->table,
                    .L = c->L,
                    .n_slots = n_slots,
                    .pages_per_slot = per_slot,
                    .n_pages = n_slots * per_slot};
    for (int64_t l = 0; l < c->L; l++) {
        k[l] = arena_tensor(a, model_acts_dtype(m), LAYOUT_KV_PAGE, 4,
                            (int64_t[]){kv->n_pages, c->K, c->D, KV_TILE});
        v[l] = arena_tensor(a, model_acts_dtype(m), LAYOUT_KV_PAGE, 4,
                            (int64_t[]){kv->n_pages, c->K, KV_TILE, c->D});
    }
    kv->page_table = arena_rows2(a, DTYPE_I32, n_slots, per_slot);
    kv->copies = arena_rows2(a, DTYPE_I32, n_slots, 2);
    pool_reset(kv);
}

void kv_free(KvCache *kv)
{
    free(kv->k);
    free(kv->v);
    free(kv->table);
    *kv = (KvCache){0};
}

static int32_t page_take(KvCache *kv)
{
    CHECK(kv->n_free > 0, "all %lld pages are in use", (long long)kv->n_pages);
    int32_t page = kv->free_pages[--kv->n_free];
    kv->n_refs[page] = 1;
    return page;
}

void kv_share(KvCache *kv, int64_t dst, int64_t src, int64_t n)
{
    CHECK(dst >= 0 && dst < kv->n_slots && src >= 0 && src < kv->n_slots && n >= 0 &&
              n <= kv->pages_per_slot * KV_TILE,
          "%lld positions of slot %lld into slot %lld", (long long)n, (long long)src,
          (long long)dst);
    int32_t *to = kv->table + dst * kv->pages_per_slot;
    const int32_t *from = kv->table + src * kv->pages_per_slot;
    for (int64_t i = 0; i < kv->pages_per_slot; i++) {
        int32_t page = i * KV_TILE < n ? from[i] : -1, old = to[i];
        CHECK(i * KV_TILE >= n || page >= 0, "slot %lld does not hold %lld positions",
              (long long)src, (long long)n);
        if (page == old)
            continue;
        if (page >= 0)
            kv->n_refs[page]++;
        if (old >= 0 && --kv->n_refs[old] == 0)
            kv->free_pages[kv->n_free++] = old;
        to[i] = page;
        kv->changed = true;
    }
}

/* Makes the page of a position one that its slot alone refers to. */
static void page_own(KvCache *kv, int32_t slot, int32_t pos)
{
    int32_t *at = &kv->table[slot * kv->pages_per_slot + pos / KV_TILE], old = *at;
    if (old >= 0 && kv->n_refs[old] == 1)
        return;
    *at = page_take(kv);
    kv->changed = true;
    if (old < 0)
        return;
    /* kv_share promises that only a slot's last page is shared when it writes: one copy a slot */
    CHECK(kv->n_pairs < kv->n_slots, "slot %d writes into shared pages at %d", slot, pos);
    kv->n_refs[old]--;
    kv->pairs[2 * kv->n_pairs] = old;
    kv->pairs[2 * kv->n_pairs++ + 1] = *at;
}

/* Brings the device up to date with the host's bookkeeping, before rows are written. */
static void pages_sync(KvCache *kv)
{
    if (kv->changed)
        device_upload(&kv->page_table, kv->table, (size_t)kv->n_pages * sizeof *kv->table);
    kv->changed = false;
    if (kv->n_pairs == 0)
        return;
    Tensor pairs = tensor_slice(&kv->copies, 0, kv->n_pairs);
    device_upload(&pairs, kv->pairs, (size_t)kv->n_pairs * 2 * sizeof *kv->pairs);
    for (int64_t l = 0; l < kv->L; l++)
        op_kv_copy(&kv->k[l], &kv->v[l], &pairs);
    kv->n_pairs = 0;
}

/* ---- forward -------------------------------------------------------------------------------- */

struct ExtendWork {
    Acts *acts; /* forward only: one layer's buffers */
    int64_t max_rows;
    Tensor ids, seqs, pos; /* i32 (max_rows) */
};

ExtendWork *extend_new(const Model *m, int64_t max_rows)
{
    ExtendWork *w = xcalloc(1, sizeof *w);
    w->max_rows = max_rows;
    w->acts = acts_new(m, max_rows, false, RECOMPUTE_NONE);
    return w;
}

void extend_alloc(ExtendWork *w, Arena *a)
{
    acts_alloc(w->acts, a);
    w->ids = arena_rows1(a, DTYPE_I32, w->max_rows);
    w->seqs = arena_rows1(a, DTYPE_I32, w->max_rows);
    w->pos = arena_rows1(a, DTYPE_I32, w->max_rows);
}

void extend_free(ExtendWork *w)
{
    if (!w)
        return;
    acts_free(w->acts);
    free(w);
}

int64_t extend_prepare(const Model *m, KvCache *kv, const int32_t *row_seq, const int32_t *row_pos,
                       int64_t R)
{
    int32_t last = 0;
    for (int64_t r = 0; r < R; r++) {
        CHECK(row_seq[r] >= 0 && row_seq[r] < kv->n_slots && row_pos[r] >= 0 &&
                  row_pos[r] < kv->pages_per_slot * KV_TILE && row_pos[r] < m->max_positions,
              "row %lld: slot %d, position %d", (long long)r, row_seq[r], row_pos[r]);
        page_own(kv, row_seq[r], row_pos[r]);
        last = row_pos[r] > last ? row_pos[r] : last;
    }
    pages_sync(kv);
    return last / KV_TILE + 1;
}

Tensor extend_rows(const Model *m, const ParamSet *p, const Adapter *lora, KvCache *kv,
                   ExtendWork *w, const Tensor *ids, const Tensor *row_seq, const Tensor *row_pos,
                   int64_t pages)
{
    const ModelConfig *c = &m->table.config;
    const int64_t R = ids->dim[0];
    CHECK(R > 0 && R <= w->max_rows && pages > 0 && pages <= kv->pages_per_slot,
          "%lld rows in %lld pages, planned for %lld in %lld", (long long)R, (long long)pages,
          (long long)w->max_rows, (long long)kv->pages_per_slot);
    Tensor table = kv->page_table;
    table.dim[1] = pages;

    params_acquire(p, -1);
    Tensor x = acts_view(w->acts, A_X, 0, R);
    op_embedding(&x, ids, &p->in[m->table.embed]);
    params_release(p, -1);
    for (int64_t l = 0; l < c->L; l++) {
        LayerView t = layer_view(w->acts, l, c->L, R);
        AttendTo to = {.k_pages = &kv->k[l],
                       .v_pages = &kv->v[l],
                       .page_table = &table,
                       .seqs = row_seq};
        layer_forward(m, p, lora, l, &t, row_pos, &to);
    }
    params_acquire(p, (int)c->L);
    Tensor rstd = acts_view(w->acts, A_RSTD, 0, R), hidden = acts_view(w->acts, A_HIDDEN, 0, R);
    op_rmsnorm(&hidden, &rstd, &x, &p->in[m->table.final_norm], c->norm_eps);
    params_release(p, (int)c->L);
    return hidden;
}

static Tensor upload_rows(const Tensor *room, const int32_t *src, int64_t R)
{
    Tensor t = tensor_slice(room, 0, R);
    device_upload(&t, src, (size_t)R * sizeof *src);
    return t;
}

Tensor model_extend(const Model *m, const ParamSet *p, const Adapter *lora, KvCache *kv,
                    ExtendWork *w, const int32_t *ids, const int32_t *row_seq,
                    const int32_t *row_pos, int64_t R)
{
    int64_t pages = extend_prepare(m, kv, row_seq, row_pos, R);
    Tensor tokens = upload_rows(&w->ids, ids, R), seqs = upload_rows(&w->seqs, row_seq, R);
    Tensor pos = upload_rows(&w->pos, row_pos, R);
    return extend_rows(m, p, lora, kv, w, &tokens, &seqs, &pos, pages);
}
