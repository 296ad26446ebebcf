/* attention_backward.c - gradients of causal attention, without atomics and without stored weights:
 * a tile of weights is computed again from q, k and the forward's log-sum-exp.
 *
 * dv[j], dk[j] are chains over (head of the group, query) ascending, dq[i] over keys ascending.
 * Walking key tiles, then heads, then query tiles, all ascending, satisfies both at once, so a
 * short sequence is one unit per kv head. A sequence too long for an even split is cut into units
 * that make either one key tile's dk, dv or one query tile's dq: two tile products more, the same
 * chains. delta's row sums are fma chains per lane. Tested by tests/ops/attention.c. */
#include "common/runtime/cpu/attention.h"

#include "common/runtime/cpu/cpu.h"

typedef struct {
    Tensor *dq, *dk, *dv, *delta;
    const Tensor *d_o, *o, *lse, *q, *k, *v, *starts;
    int64_t D, K, G;
    int64_t total;      /* cost of all units */
    int64_t split_from; /* sequences of more pairs than this are cut */
    real_t scale;
} Backward;

/* What a unit makes: gradients of the keys, of the queries, or both. */
enum { MAKE_KEYS = 1, MAKE_QUERIES = 2 };

typedef struct {
    real_t *kt, *vt; /* (D, KV_TILE): one key tile */
    real_t *p, *ds;  /* (KV_TILE queries, KV_TILE keys) */
} Scratch;

static Scratch scratch_make(const Backward *bw, int part)
{
    const int64_t tile = bw->D * KV_TILE, square = KV_TILE * KV_TILE;
    real_t *x = device_scratch(bw->q->dev, part, 2 * (tile + square) * (int64_t)sizeof(real_t));
    return (Scratch){x, x + tile, x + 2 * tile, x + 2 * tile + square};
}

static real_t *row_at(const Tensor *t, int64_t row, int64_t col)
{
    return real_data(t) + row * t->stride + col;
}

/* p holds q . k and becomes the weights; ds holds do . v and becomes the scores' gradient. */
K_INLINE void weights_row(real_t *restrict p, real_t *restrict ds, int width, real_t scale,
                          real_t lse, real_t delta)
{
    const vf by = vf_set1(scale);
    for (int j = 0; j < width; j += VF_LANES) {
        const vf w = vf_exp(vf_sub(vf_mul(vf_load(p + j), by), vf_set1(lse)));
        const vf slope = vf_sub(vf_load(ds + j), vf_set1(delta));
        vf_store(p + j, w);
        vf_store(ds + j, vf_mul(vf_mul(w, slope), by));
    }
}

typedef struct {
    int64_t start; /* the sequence's first row */
    int64_t kv_head;
    int64_t key0, n_keys;
} KeyTile;

static void tile_load(const Backward *bw, const KeyTile *kt, const Scratch *sc)
{
    const int64_t row = kt->start + kt->key0, head = kt->kv_head * bw->D;
    tile_transpose(sc->kt, row_at(bw->k, row, head), bw->k->stride, kt->n_keys, bw->D);
    tile_transpose(sc->vt, row_at(bw->v, row, head), bw->v->stride, kt->n_keys, bw->D);
}

/* Queries [i0, i0 + n), n <= KV_TILE, of one head against a loaded key tile. Lanes of keys that a
 * query does not see hold numbers that no chain reads. Chains of the keys (queries) that are told
 * to start do so from +0. */
static void tile_pair(const Backward *bw, const KeyTile *kt, const Scratch *sc, int64_t head,
                      int64_t i0, int64_t n, int make, int start)
{
    const int64_t D = bw->D, row = kt->start + i0, width = tile_width(kt->n_keys);
    const int64_t key_row = kt->start + kt->key0, q_col = head * D, k_col = kt->kv_head * D;
    int64_t lo[KV_TILE], hi[KV_TILE];
    for (int64_t r = 0; r < n; r++) {
        lo[r] = 0;
        hi[r] = D;
    }
    chain_rows(&(Chain){.c = sc->p,
                        .c_row = KV_TILE,
                        .a = row_at(bw->q, row, q_col),
                        .a_row = bw->q->stride,
                        .a_step = 1,
                        .b = sc->kt,
                        .b_row = KV_TILE,
                        .n = width},
               n, lo, hi);
    chain_rows(&(Chain){.c = sc->ds,
                        .c_row = KV_TILE,
                        .a = row_at(bw->d_o, row, q_col),
                        .a_row = bw->d_o->stride,
                        .a_step = 1,
                        .b = sc->vt,
                        .b_row = KV_TILE,
                        .n = width},
               n, lo, hi);
    for (int64_t r = 0; r < n; r++) {
        real_t *p = sc->p + r * KV_TILE, *ds = sc->ds + r * KV_TILE;
        const real_t lse = *row_at(bw->lse, row + r, head);
        const real_t delta = *row_at(bw->delta, row + r, head);
        if (width == KV_TILE)
            weights_row(p, ds, KV_TILE, bw->scale, lse, delta);
        else
            weights_row(p, ds, SUM_LANES, bw->scale, lse, delta);
    }
    if (make & MAKE_KEYS) {
        for (int64_t j = 0; j < kt->n_keys; j++) {
            lo[j] = kt->key0 + j > i0 ? kt->key0 + j - i0 : 0;
            hi[j] = n;
            lo[j] = lo[j] < n ? lo[j] : n;
        }
        Chain ch = {.a_row = 1, .a_step = KV_TILE, .n = D};
        ch.accumulate = !(start & MAKE_KEYS);
        ch.c = row_at(bw->dv, key_row, k_col), ch.c_row = bw->dv->stride;
        ch.a = sc->p;
        ch.b = row_at(bw->d_o, row, q_col), ch.b_row = bw->d_o->stride;
        chain_rows(&ch, kt->n_keys, lo, hi);
        ch.c = row_at(bw->dk, key_row, k_col), ch.c_row = bw->dk->stride;
        ch.a = sc->ds;
        ch.b = row_at(bw->q, row, q_col), ch.b_row = bw->q->stride;
        chain_rows(&ch, kt->n_keys, lo, hi);
    }
    if (make & MAKE_QUERIES) {
        for (int64_t r = 0; r < n; r++) {
            const int64_t seen = i0 + r + 1 - kt->key0;
            lo[r] = 0;
            hi[r] = seen < kt->n_keys ? seen : kt->n_keys;
        }
        chain_rows(&(Chain){.c = row_at(bw->dq, row, q_col),
                            .c_row = bw->dq->stride,
                            .a = sc->ds,
                            .a_row = KV_TILE,
                            .a_step = 1,
                            .b = row_at(bw->k, key_row, k_col),
                            .b_row = bw->k->stride,
                            .n = D,
                            .accumulate = !(start & MAKE_QUERIES)},
                   n, lo, hi);
    }
}

/* Key tiles from key_from on against queries [from, to): those that see them. Positions in the
 * sequence; from and key_from are multiples of KV_TILE. */
static void unit_run(const Backward *bw, const Scratch *sc, int64_t start, int64_t length,
                     int64_t kv_head, int64_t key_from, int64_t key_to, int64_t from, int64_t to,
                     int make)
{
    const int64_t G = bw->G;
    for (int64_t key0 = key_from; key0 < key_to; key0 += KV_TILE) {
        KeyTile kt = {start, kv_head, key0, length - key0 < KV_TILE ? length - key0 : KV_TILE};
        const int64_t first = key0 > from ? key0 : from;
        tile_load(bw, &kt, sc);
        for (int64_t g = 0; g < G; g++)
            for (int64_t i = first; i < to; i += KV_TILE)
                tile_pair(
                    bw, &kt, sc, kv_head * G + g, i, to - i < KV_TILE ? to - i : KV_TILE, make,
                    (g == 0 && i == first ? MAKE_KEYS : 0) | (key0 == key_from ? MAKE_QUERIES : 0));
    }
}

/* Costs in pairs; the two halves of a cut sequence cost 4 and 3 products of a whole one's 5. */
static void sequence_run(const Backward *bw, const Scratch *sc, Share *share, int64_t start,
                         int64_t n, int64_t kv_head)
{
    const int64_t pairs = causal_pairs(0, n);
    if (pairs <= bw->split_from) {
        if (share_takes(share, pairs))
            unit_run(bw, sc, start, n, kv_head, 0, n, 0, n, MAKE_KEYS | MAKE_QUERIES);
        return;
    }
    for (int64_t from = 0; from < n; from += KV_TILE) {
        const int64_t to = from + KV_TILE < n ? from + KV_TILE : n;
        if (share_takes(share, (n - from) * (to - from)))
            unit_run(bw, sc, start, n, kv_head, from, to, from, n, MAKE_KEYS);
        if (share_takes(share, to * (to - from)))
            unit_run(bw, sc, start, n, kv_head, 0, to, from, to, MAKE_QUERIES);
    }
}

static int64_t sequence_cost(const Backward *bw, int64_t n)
{
    if (causal_pairs(0, n) <= bw->split_from)
        return causal_pairs(0, n);
    int64_t sum = 0;
    for (int64_t from = 0; from < n; from += KV_TILE) {
        const int64_t to = from + KV_TILE < n ? from + KV_TILE : n;
        sum += (n - from + to) * (to - from);
    }
    return sum;
}

static void gradient_part(int part, int n_parts, void *ctx)
{
    const Backward *bw = ctx;
    const int32_t *start = i32_data(bw->starts);
    Scratch sc = scratch_make(bw, part);
    Share share = {.total = bw->total, .part = part, .n_parts = n_parts};
    for (int64_t s = 0; s + 1 < bw->starts->dim[0]; s++)
        for (int64_t h = 0; h < bw->K; h++)
            sequence_run(bw, &sc, &share, start[s], start[s + 1] - start[s], h);
}

static void delta_part(int part, int n_parts, void *ctx)
{
    const Backward *bw = ctx;
    int64_t from, to;
    part_range(bw->q->dim[0], 1, part, n_parts, &from, &to);
    for (int64_t t = from; t < to; t++)
        for (int64_t h = 0; h < bw->K * bw->G; h++)
            *row_at(bw->delta, t, h) =
                row_dot(row_at(bw->d_o, t, h * bw->D), row_at(bw->o, t, h * bw->D), bw->D);
}

void CPU_OP(attention_backward)(Tensor *dq, Tensor *dk, Tensor *dv, Tensor *delta,
                                const Tensor *d_o, const Tensor *o, const Tensor *lse,
                                const Tensor *q, const Tensor *k, const Tensor *v,
                                const Tensor *starts, int64_t head_dim, double scale)
{
    Backward bw = {.dq = dq,
                   .dk = dk,
                   .dv = dv,
                   .delta = delta,
                   .d_o = d_o,
                   .o = o,
                   .lse = lse,
                   .q = q,
                   .k = k,
                   .v = v,
                   .starts = starts,
                   .D = head_dim,
                   .K = k->dim[1] / head_dim,
                   .scale = (real_t)scale};
    bw.G = q->dim[1] / k->dim[1];
    const int32_t *start = i32_data(starts);
    int64_t pairs = 0;
    for (int64_t s = 0; s + 1 < starts->dim[0]; s++)
        pairs += causal_pairs(0, start[s + 1] - start[s]);
    /* whole units up to a quarter of a part's work keep the parts within that of even */
    const int n_parts = device_threads(q->dev);
    bw.split_from = n_parts == 1 ? INT64_MAX : pairs * bw.K / (4 * n_parts);
    for (int64_t s = 0; s + 1 < starts->dim[0]; s++)
        bw.total += bw.K * sequence_cost(&bw, start[s + 1] - start[s]);
    if (bw.total == 0)
        return;
    const double rows = (double)q->dim[0] * (double)(bw.K * bw.G);
    cpu_run(q->dev, delta_part, &bw, rows * ((double)head_dim + 40.0) / 25.0);
    cpu_run(q->dev, gradient_part, &bw,
            (double)(pairs * bw.K * bw.G) * (10.0 * (double)head_dim + 40.0) / 50.0);
}
