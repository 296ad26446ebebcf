/* kv.c - the KV cache and the forward pass over it.
 *
 * A page holds KV_TILE consecutive positions of a slot for all kv heads: the tile attention walks
 * in training too. Each slot has its own pages from the start, so writing past the planned length
 * is the only thing that can go wrong, and that is checked. Tested by tests/unit/test_model.c. */
#include "common/base/error.h"
#include "common/base/mem.h"
#include "common/model/acts.h"
#include "common/runtime/device.h"

#include <stdlib.h>

/* ---- pages ---------------------------------------------------------------------------------- */

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
                    .n_slots = n_slots,
                    .pages_per_slot = per_slot,
                    .n_pages = n_slots * per_slot};
    for (int64_t l = 0; l < c->L; l++) {
        k[l] = arena_tensor(a, DTYPE_REAL, LAYOUT_KV_PAGE, 4,
                            (int64_t[]){kv->n_pages, c->K, c->D, KV_TILE});
        v[l] = arena_tensor(a, DTYPE_REAL, LAYOUT_KV_PAGE, 4,
                            (int64_t[]){kv->n_pages, c->K, KV_TILE, c->D});
    }
    kv->page_table = arena_rows2(a, DTYPE_I32, n_slots, per_slot);
    if (!kv->page_table.data)
        return;
    int32_t *pages = xmalloc((size_t)kv->n_pages * sizeof *pages);
    for (int64_t i = 0; i < kv->n_pages; i++)
        pages[i] = (int32_t)i;
    device_upload(&kv->page_table, pages, (size_t)kv->n_pages * sizeof *pages);
    free(pages);
}

void kv_free(KvCache *kv)
{
    free(kv->k);
    free(kv->v);
    *kv = (KvCache){0};
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
    w->acts = acts_new(m, max_rows, false);
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
    const ModelConfig *c = &m->table.config;
    CHECK(R > 0 && R <= w->max_rows, "%lld rows, planned for %lld", (long long)R,
          (long long)w->max_rows);
    for (int64_t r = 0; r < R; r++)
        CHECK(row_seq[r] >= 0 && row_seq[r] < kv->n_slots && row_pos[r] >= 0 &&
                  row_pos[r] < kv->pages_per_slot * KV_TILE && row_pos[r] < m->max_positions,
              "row %lld: slot %d, position %d", (long long)r, row_seq[r], row_pos[r]);
    Tensor tokens = upload_rows(&w->ids, ids, R), seqs = upload_rows(&w->seqs, row_seq, R);
    Tensor pos = upload_rows(&w->pos, row_pos, R);

    params_acquire(p, -1);
    Tensor x = acts_view(w->acts, A_X, 0, R);
    op_embedding(&x, &tokens, &p->w[m->table.embed]);
    params_release(p, -1);
    for (int64_t l = 0; l < c->L; l++) {
        LayerView t = layer_view(w->acts, l, c->L, R);
        AttendTo to = {.k_pages = &kv->k[l],
                       .v_pages = &kv->v[l],
                       .page_table = &kv->page_table,
                       .seqs = &seqs};
        layer_forward(m, p, lora, l, &t, &pos, &to);
    }
    params_acquire(p, (int)c->L);
    Tensor rstd = acts_view(w->acts, A_RSTD, 0, R), hidden = acts_view(w->acts, A_HIDDEN, 0, R);
    op_rmsnorm(&hidden, &rstd, &x, &p->w[m->table.final_norm], c->norm_eps);
    params_release(p, (int)c->L);
    return hidden;
}
