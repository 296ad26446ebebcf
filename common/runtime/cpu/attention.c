/* attention.c - causal attention over packed sequences, and over KV pages in decoding.
 *
 * Both are one engine: a unit is one kv head and a run of queries at consecutive positions of one
 * sequence, walking that sequence's key tiles; only where a tile comes from differs (transposed
 * from packed rows into scratch, or a page as it lies). So a paged row equals a packed row bit for
 * bit by construction. A unit's rows are (query, head of the group), heads fastest, each with its
 * running softmax state. Tested by tests/ops/attention.c and tests/unit/test_attention.c. */
#include "common/runtime/cpu/attention.h"

#include "common/runtime/cpu/cpu.h"

#include <string.h>

/* Rows whose scores with a key tile exist at a time: whole vectors of rows, whole blocks of chains.
 */
enum { TILE_ROWS = 2 * ROW_BLOCK };

typedef struct {
    const Tensor *q, *k, *v;  /* k, v: rows, or pages */
    Tensor *o, *lse;          /* lse is NULL when paged */
    const Tensor *starts;     /* packed */
    const Tensor *page_table; /* paged; NULL when packed */
    const int32_t *row_seq, *row_pos;
    int64_t D, H, K, G;   /* G = H / K heads share a kv head */
    int64_t unit_queries; /* longest run of queries in a unit */
    int64_t max_unit;     /* rows of scratch: the longest run there is, times G */
    int64_t total;        /* cost of all units */
    real_t scale;
} Attention;

typedef struct {
    int64_t row;         /* of q and o: the first query's */
    int64_t n;           /* queries */
    int64_t first;       /* position of the first query */
    int64_t seq_row;     /* packed: row of position 0 */
    const int32_t *page; /* paged: page of each tile */
    int64_t kv_head;
} Unit;

/* Online softmax of rows: weights relative to m sum to l; o is the weighted sum of values. */
typedef struct {
    real_t *m, *l, *o; /* (rows), (rows), (rows, D) */
} State;

typedef struct {
    real_t *q;         /* (rows, D) */
    real_t *kt;        /* (D, KV_TILE) */
    real_t *s;         /* (TILE_ROWS, KV_TILE) */
    State total, part; /* merged chunks; the chunk being walked */
} Scratch;

static int64_t scratch_round(int64_t n)
{
    return (n + 15) / 16 * 16;
}

static int64_t scratch_len(int64_t rows, int64_t D)
{
    return 3 * scratch_round(rows * D) + 4 * scratch_round(rows) + (D + TILE_ROWS) * KV_TILE;
}

static real_t *scratch_take(real_t **p, int64_t n)
{
    real_t *x = *p;
    *p += scratch_round(n);
    return x;
}

static Scratch scratch_make(const Attention *at, int part)
{
    const int64_t rows = at->max_unit, D = at->D;
    real_t *p = device_scratch(at->q->dev, part, scratch_len(rows, D) * (int64_t)sizeof(real_t));
    Scratch s;
    s.kt = scratch_take(&p, D * KV_TILE);
    s.s = scratch_take(&p, TILE_ROWS * KV_TILE);
    s.q = scratch_take(&p, rows * D);
    s.total.m = scratch_take(&p, rows);
    s.total.l = scratch_take(&p, rows);
    s.total.o = scratch_take(&p, rows * D);
    s.part.m = scratch_take(&p, rows);
    s.part.l = scratch_take(&p, rows);
    s.part.o = scratch_take(&p, rows * D);
    return s;
}

static void state_reset(State *st, int64_t from, int64_t rows, int64_t D)
{
    for (int64_t r = from; r < rows; r++) {
        st->m[r] = -K_INF;
        st->l[r] = 0;
    }
    memset(st->o + from * D, 0, (size_t)((rows - from) * D) * sizeof(real_t));
}

/* total = total merged with part, rows [from, rows). */
static void state_merge(State *total, const State *part, int64_t from, int64_t rows, int64_t D)
{
    for (int64_t r = from; r < rows; r++) {
        const real_t m = k_max(part->m[r], total->m[r]);
        const real_t e1 = k_exp(total->m[r] - m), e2 = k_exp(part->m[r] - m);
        total->m[r] = m;
        total->l[r] = real_fma(total->l[r], e1, part->l[r] * e2);
        real_t *restrict o = total->o + r * D;
        const real_t *restrict p = part->o + r * D;
        for (int64_t d = 0; d < D; d++)
            o[d] = real_fma(o[d], e1, p[d] * e2);
    }
}

/* Row of s (width): q . k becomes the scores, -inf for keys >= n; a gathers their maxima. */
K_INLINE void scores_row(real_t *s, int width, int n, real_t scale, vf a[SUM_VF])
{
    for (int j = 0; j < width; j++)
        s[j] = j < n ? s[j] * scale : -K_INF;
    VF_UNROLL
    for (int v = 0; v < SUM_VF; v++) {
        a[v] = vf_max(vf_load(s + v * VF_LANES), vf_set1(-K_INF));
        if (width > SUM_LANES)
            a[v] = vf_max(vf_load(s + SUM_LANES + v * VF_LANES), a[v]);
    }
}

/* Scores become weights relative to top; a gathers their sums. Weights are never -0: the first is
 * as if added to a 0. */
K_INLINE void weights_row(real_t *s, int width, real_t top, vf a[SUM_VF])
{
    VF_UNROLL
    for (int v = 0; v < SUM_VF; v++) {
        a[v] = vf_exp(vf_sub(vf_load(s + v * VF_LANES), vf_set1(top)));
        vf_store(s + v * VF_LANES, a[v]);
        if (width > SUM_LANES) {
            const vf p = vf_exp(vf_sub(vf_load(s + SUM_LANES + v * VF_LANES), vf_set1(top)));
            vf_store(s + SUM_LANES + v * VF_LANES, p);
            a[v] = vf_add(a[v], p);
        }
    }
}

/* n <= VF_LANES rows, one tile: s (n, KV_TILE) holds q . k and becomes the weights p, 0 for keys
 * that a row does not see. */
K_INLINE void softmax_rows(real_t *s, int width, int n, const int64_t *n_keys, real_t scale,
                           real_t *m, real_t *l, real_t *o, int64_t D)
{
    vf a[VF_LANES][SUM_VF];
    real_t top[VF_LANES], sum[VF_LANES], c[VF_LANES] = {0};
    for (int i = 0; i < n; i++)
        scores_row(s + i * KV_TILE, width, (int)n_keys[i], scale, a[i]);
    for (int i = n; i < VF_LANES; i++)
        for (int v = 0; v < SUM_VF; v++)
            a[i][v] = vf_zero();
    vf_store(sum, rows_tree_max(a));
    for (int i = 0; i < n; i++) {
        top[i] = k_max(sum[i], m[i]);
        c[i] = m[i] - top[i];
        weights_row(s + i * KV_TILE, width, top[i], a[i]);
    }
    vf_store(c, vf_exp(vf_load(c)));
    vf_store(sum, rows_tree_sum(a));
    for (int i = 0; i < n; i++) {
        if (m[i] == -K_INF) { /* the chunk's first tile: l and o are 0 and stay so */
            l[i] = sum[i];
        } else {
            l[i] = real_fma(l[i], c[i], sum[i]);
            if (c[i] != 1) /* times 1 is the identity */
                for (int64_t d = 0; d < D; d++)
                    o[i * D + d] *= c[i];
        }
        m[i] = top[i];
    }
}

/* Rows [from, rows) of a unit against one key tile. */
static void unit_tile(const Attention *at, const Unit *u, const Scratch *sc, State *st,
                      int64_t from, int64_t tile, const real_t *kt, const real_t *v, int64_t v_row,
                      int64_t ahead)
{
    static const int64_t zero[TILE_ROWS];
    const int64_t D = at->D, G = at->G, rows = u->n * G, key0 = tile * KV_TILE;
    int64_t all_d[TILE_ROWS], n_keys[TILE_ROWS];
    for (int r = 0; r < TILE_ROWS; r++)
        all_d[r] = D;
    for (int64_t r0 = from; r0 < rows; r0 += TILE_ROWS) {
        const int64_t n = rows - r0 < TILE_ROWS ? rows - r0 : TILE_ROWS;
        for (int64_t r = 0; r < n; r++) {
            int64_t seen = u->first + (r0 + r) / G + 1 - key0;
            n_keys[r] = seen < KV_TILE ? seen : KV_TILE;
        }
        const int64_t width = tile_width(n_keys[n - 1]);
        chain_rows(&(Chain){.c = sc->s,
                            .c_row = KV_TILE,
                            .a = sc->q + r0 * D,
                            .a_row = D,
                            .a_step = 1,
                            .b = kt,
                            .b_row = KV_TILE,
                            .ahead = ahead,
                            .n = (n_keys[n - 1] + VF_LANES - 1) / VF_LANES * VF_LANES},
                   n, zero, all_d);
        for (int64_t r = 0; r < n; r += VF_LANES) {
            real_t *s = sc->s + r * KV_TILE, *o = st->o + (r0 + r) * D;
            real_t *m = st->m + r0 + r, *l = st->l + r0 + r;
            const int some = (int)(n - r < VF_LANES ? n - r : VF_LANES);
            if (width == KV_TILE)
                softmax_rows(s, KV_TILE, some, n_keys + r, at->scale, m, l, o, D);
            else
                softmax_rows(s, SUM_LANES, some, n_keys + r, at->scale, m, l, o, D);
        }
        chain_rows(&(Chain){.c = st->o + r0 * D,
                            .c_row = D,
                            .a = sc->s,
                            .a_row = KV_TILE,
                            .a_step = 1,
                            .b = v,
                            .b_row = v_row,
                            .ahead = ahead,
                            .n = D,
                            .accumulate = true},
                   n, zero, n_keys);
    }
}

/* The first row of the unit that sees position `key`. */
static int64_t unit_first_row(const Attention *at, const Unit *u, int64_t key)
{
    return key > u->first ? (key - u->first) * at->G : 0;
}

static void unit_finish(const Attention *at, const Unit *u, const State *st)
{
    const int64_t D = at->D, G = at->G;
    for (int64_t i = 0; i < u->n; i++) {
        const int64_t row = u->row + i;
        real_t *restrict o = real_data(at->o) + row * at->o->stride + u->kv_head * G * D;
        for (int64_t g = 0; g < G; g++) {
            const real_t *restrict src = st->o + (i * G + g) * D;
            const real_t l = st->l[i * G + g];
            for (int64_t d = 0; d < D; d++)
                o[g * D + d] = src[d] / l;
            if (at->lse)
                real_data(at->lse)[row * at->lse->stride + u->kv_head * G + g] =
                    st->m[i * G + g] + k_log(l);
        }
    }
}

/* Elements from a page's keys (or values) to those that are read after them: of the unit's next
 * page or of the first page for the next head; 0 after the last head. */
static int64_t page_ahead(const Attention *at, const Unit *u, int64_t tile)
{
    const bool last = (tile + 1) * KV_TILE >= u->first + u->n;
    if (last && u->kv_head + 1 == at->K)
        return 0;
    const int64_t pages = u->page[last ? 0 : tile + 1] - u->page[tile];
    return (pages * at->K + last) * at->D * KV_TILE;
}

static void unit_run(const Attention *at, const Unit *u, Scratch *sc)
{
    const int64_t D = at->D, G = at->G, rows = u->n * G, end = u->first + u->n;
    for (int64_t i = 0; i < u->n; i++)
        memcpy(sc->q + i * G * D,
               real_data(at->q) + (u->row + i) * at->q->stride + u->kv_head * G * D,
               (size_t)(G * D) * sizeof(real_t));
    state_reset(&sc->total, 0, rows, D);
    for (int64_t tile = 0; tile * KV_TILE < end; tile++) {
        const int64_t key0 = tile * KV_TILE, n = end - key0 < KV_TILE ? end - key0 : KV_TILE;
        const int64_t from = unit_first_row(at, u, key0);
        State *st = key0 < KV_CHUNK ? &sc->total : &sc->part;
        if (key0 > 0 && key0 % KV_CHUNK == 0)
            state_reset(st, from, rows, D);
        if (u->page) {
            const int64_t at_page = (u->page[tile] * at->K + u->kv_head) * D * KV_TILE;
            unit_tile(at, u, sc, st, from, tile, real_data(at->k) + at_page,
                      real_data(at->v) + at_page, D, page_ahead(at, u, tile));
        } else {
            const int64_t row = u->seq_row + key0, head = u->kv_head * D;
            tile_transpose(sc->kt, real_data(at->k) + row * at->k->stride + head, at->k->stride, n,
                           D);
            unit_tile(at, u, sc, st, from, tile, sc->kt,
                      real_data(at->v) + row * at->v->stride + head, at->v->stride, 0);
        }
        if (st == &sc->part && ((key0 + KV_TILE) % KV_CHUNK == 0 || key0 + KV_TILE >= end))
            state_merge(&sc->total, st, unit_first_row(at, u, key0 / KV_CHUNK * KV_CHUNK), rows, D);
    }
    unit_finish(at, u, &sc->total);
}

/* Runs one kv head after the other over the run of queries, cut into units. */
static void run_queries(const Attention *at, Unit u, int64_t n, Share *share, Scratch *sc)
{
    const int64_t row = u.row, first = u.first;
    for (u.kv_head = 0; u.kv_head < at->K; u.kv_head++)
        for (int64_t i = 0; i < n; i += at->unit_queries) {
            u.n = n - i < at->unit_queries ? n - i : at->unit_queries;
            u.row = row + i;
            u.first = first + i;
            if (share_takes(share, causal_pairs(u.first, u.first + u.n)))
                unit_run(at, &u, sc);
        }
}

/* Rows in a unit: many, so that a transposed tile is used often; fewer when there are parts to
 * feed. */
static void set_units(Attention *at, int64_t longest, int64_t pairs)
{
    enum { UNIT_ROWS = 256, UNIT_ROWS_SMALL = 64 };
    const int64_t rows = at->q->dim[0] * at->H;
    const bool few = rows < (int64_t)8 * UNIT_ROWS * device_threads(at->q->dev);
    const int64_t n = (few ? UNIT_ROWS_SMALL : UNIT_ROWS) / at->G;
    at->unit_queries = n > 1 ? n : 1;
    at->max_unit = (longest < at->unit_queries ? longest : at->unit_queries) * at->G;
    at->total = pairs * at->K;
}

static double work_ns(const Attention *at)
{
    return (double)at->total * (double)at->G * (4.0 * (double)at->D + 40.0) / 50.0;
}

/* ---- packed -----------------------------------------------------------------------------------
 */

static void packed_part(int part, int n_parts, void *ctx)
{
    const Attention *at = ctx;
    Scratch sc = scratch_make(at, part);
    Share share = {.total = at->total, .part = part, .n_parts = n_parts};
    const int32_t *start = i32_data(at->starts);
    for (int64_t s = 0; s + 1 < at->starts->dim[0]; s++)
        run_queries(at, (Unit){.row = start[s], .seq_row = start[s]}, start[s + 1] - start[s],
                    &share, &sc);
}

void CPU_OP(attention)(Tensor *o, Tensor *lse, const Tensor *q, const Tensor *k, const Tensor *v,
                       const Tensor *starts, int64_t head_dim, double scale)
{
    Attention at = {.q = q,
                    .k = k,
                    .v = v,
                    .o = o,
                    .lse = lse,
                    .starts = starts,
                    .D = head_dim,
                    .H = q->dim[1] / head_dim,
                    .K = k->dim[1] / head_dim,
                    .scale = (real_t)scale};
    at.G = at.H / at.K;
    int64_t longest = 0, pairs = 0;
    for (int64_t s = 0; s + 1 < starts->dim[0]; s++) {
        const int64_t n = i32_data(starts)[s + 1] - i32_data(starts)[s];
        longest = n > longest ? n : longest;
        pairs += causal_pairs(0, n);
    }
    set_units(&at, longest, pairs);
    if (pairs > 0)
        cpu_run(q->dev, packed_part, &at, work_ns(&at));
}

/* ---- paged ------------------------------------------------------------------------------------
 */

typedef struct {
    Tensor *k_pages, *v_pages;
    const Tensor *k, *v, *page_table;
    const int32_t *row_seq, *row_pos;
} KvWrite;

/* Rows [r, result), at most VF_LANES of them, lie side by side in one page. */
static int64_t page_run(const KvWrite *w, int64_t r, int64_t end)
{
    const int64_t page_end = r + KV_TILE - w->row_pos[r] % KV_TILE;
    int64_t to = r + 1;
    end = end < page_end ? end : page_end;
    end = end < r + VF_LANES ? end : r + VF_LANES;
    while (to < end && w->row_seq[to] == w->row_seq[r] && w->row_pos[to] == w->row_pos[to - 1] + 1)
        to++;
    return to;
}

/* n rows at src become columns of a (D, KV_TILE) tile of keys. */
static void keys_write(real_t *dst, const real_t *src, int64_t stride, int64_t n, int64_t D)
{
    int64_t d = 0;
    for (; n == VF_LANES && d + VF_LANES <= D; d += VF_LANES)
        block_transpose(dst + d * KV_TILE, KV_TILE, src + d, stride, n);
    for (; d < D; d++)
        for (int64_t i = 0; i < n; i++)
            dst[d * KV_TILE + i] = src[i * stride + d];
}

/* Where row r goes in head 0: a column of keys, a row of values; NULL: there is no such row. */
typedef struct {
    real_t *k, *v;
} Place;

static Place place_of(const KvWrite *w, int64_t r)
{
    if (w->row_seq[r] < 0)
        return (Place){0};
    const int64_t K = w->k_pages->dim[1], D = w->k_pages->dim[2];
    const int64_t lane = w->row_pos[r] % KV_TILE, tile = w->row_pos[r] / KV_TILE;
    const int64_t page = i32_data(w->page_table)[w->row_seq[r] * w->page_table->stride + tile];
    const int64_t at_page = page * K * D * KV_TILE;
    return (Place){real_data(w->k_pages) + at_page + lane, real_data(w->v_pages) + at_page + lane * D};
}

/* One row in decoding, each element into a cache line of its own: it is a third faster when those of `next`
 * are asked for in between, one for one, and not when they are asked for all at once or to be written. */
static void head_write(Place to, const real_t *k, const real_t *v, Place next, int64_t D)
{
    for (int64_t d = 0; d < D; d++) {
        __builtin_prefetch(next.k + d * KV_TILE);
        to.k[d * KV_TILE] = k[d];
    }
    for (int64_t d = 0; d < D; d += 64 / (int64_t)sizeof *v)
        __builtin_prefetch(next.v + d);
    memcpy(to.v, v, (size_t)D * sizeof *v);
}

static void kv_write_part(int part, int n_parts, void *ctx)
{
    const KvWrite *w = ctx;
    const int64_t K = w->k_pages->dim[1], D = w->k_pages->dim[2];
    int64_t r, end, to;
    for (part_range(w->k->dim[0], 1, part, n_parts, &r, &end); r < end; r = to) {
        to = page_run(w, r, end);
        Place at = place_of(w, r), next = place_of(w, to < end ? to : r);
        if (!at.k)
            continue;
        if (!next.k)
            next = at;
        const real_t *k = real_data(w->k) + r * w->k->stride, *v = real_data(w->v) + r * w->v->stride;
        for (int64_t h = 0; h < K; h++, k += D, v += D) {
            if (to == r + 1) {
                head_write(at, k, v, next, D);
            } else {
                keys_write(at.k, k, w->k->stride, to - r, D);
                for (int64_t i = 0; i < to - r; i++)
                    memcpy(at.v + i * D, v + i * w->v->stride, (size_t)D * sizeof *v);
            }
            at.k += D * KV_TILE, at.v += D * KV_TILE;
            next.k += D * KV_TILE, next.v += D * KV_TILE;
        }
    }
}

/* In decoding every key element lies in a cache line of its own: some 5 ns each. */
void CPU_OP(kv_write)(Tensor *k_pages, Tensor *v_pages, const Tensor *k, const Tensor *v,
                      const Tensor *page_table, const Tensor *row_seq, const Tensor *row_pos)
{
    KvWrite w = {k_pages, v_pages, k, v, page_table, i32_data(row_seq), i32_data(row_pos)};
    cpu_run(k->dev, kv_write_part, &w, (double)tensor_len(k) * 5);
}

void CPU_OP(kv_copy)(Tensor *k_pages, Tensor *v_pages, const Tensor *pairs)
{
    const int64_t len = k_pages->dim[1] * k_pages->dim[2] * KV_TILE; /* of a page in each tensor */
    for (int64_t i = 0; i < pairs->dim[0]; i++) {
        const int64_t src = i32_data(pairs)[2 * i], dst = i32_data(pairs)[2 * i + 1];
        memcpy(real_data(k_pages) + dst * len, real_data(k_pages) + src * len,
               (size_t)len * sizeof(real_t));
        memcpy(real_data(v_pages) + dst * len, real_data(v_pages) + src * len,
               (size_t)len * sizeof(real_t));
    }
}

/* Rows [r, result) are one slot's at consecutive positions: a prompt being read; or there is no row
 * r. */
static int64_t run_end(const Attention *at, int64_t r)
{
    const int64_t R = at->q->dim[0];
    int64_t to = r + 1;
    while (to < R && at->row_seq[r] >= 0 && at->row_seq[to] == at->row_seq[r] &&
           at->row_pos[to] == at->row_pos[to - 1] + 1)
        to++;
    return to;
}

static void paged_part(int part, int n_parts, void *ctx)
{
    const Attention *at = ctx;
    Scratch sc = scratch_make(at, part);
    Share share = {.total = at->total, .part = part, .n_parts = n_parts};
    for (int64_t r = 0, to; r < at->q->dim[0]; r = to) {
        to = run_end(at, r);
        if (at->row_seq[r] < 0)
            continue;
        Unit u = {.row = r, .first = at->row_pos[r]};
        u.page = i32_data(at->page_table) + at->row_seq[r] * at->page_table->stride;
        run_queries(at, u, to - r, &share, &sc);
    }
}

void CPU_OP(attention_paged)(Tensor *o, const Tensor *q, const Tensor *k_pages,
                             const Tensor *v_pages, const Tensor *page_table, const Tensor *row_seq,
                             const Tensor *row_pos, int64_t head_dim, double scale)
{
    Attention at = {.q = q,
                    .k = k_pages,
                    .v = v_pages,
                    .o = o,
                    .page_table = page_table,
                    .row_seq = i32_data(row_seq),
                    .row_pos = i32_data(row_pos),
                    .D = head_dim,
                    .H = q->dim[1] / head_dim,
                    .K = k_pages->dim[1],
                    .scale = (real_t)scale};
    at.G = at.H / at.K;
    int64_t longest = 0, pairs = 0;
    for (int64_t r = 0, to; r < q->dim[0]; r = to) {
        to = run_end(&at, r);
        if (at.row_seq[r] < 0)
            continue;
        longest = to - r > longest ? to - r : longest;
        pairs += causal_pairs(at.row_pos[r], at.row_pos[r] + to - r);
    }
    set_units(&at, longest, pairs);
    if (pairs > 0)
        cpu_run(q->dev, paged_part, &at, work_ns(&at));
}
