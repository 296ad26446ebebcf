/* attention_rows.c - bf16 attention on a card, which has no twin on the CPU: packed, paged and backward
 * against f64 over the same rounded operands, and what must hold in bits: a sequence alone and in a
 * batch, pages and packed rows, rows one by one. Lengths around 16 (an mma), 64 (a tile), 128 (a block)
 * and 512 (a chunk); heads around 64 and 128 columns and of sizes that are no whole pieces of 8. */
#include "tests/ops/test_ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int D, H, K;
    int len[8];
    int gap; /* rows lie apart */
} Shape;

static const Shape shapes[] = {
    {64, 2, 1, {1, 17, 64, 65}, 0},   {128, 2, 2, {130, 3}, 0},       {32, 4, 1, {127, 128, 129}, 0},
    {12, 3, 1, {33, 70}, 0},          {16, 4, 2, {48, 31, 2, 16}, 8}, {64, 1, 1, {580}, 0},
    {128, 1, 1, {513, 40}, 0},        {72, 2, 1, {66}, 0},            {7, 3, 3, {80, 5}, 5},
    {64, 20, 1, {37, 90}, 0},         {40, 1, 1, {1030}, 0},          {104, 6, 2, {100}, 3},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes, SEQS_MAX = 8 };

/* ---- bf16 on the host ---------------------------------------------------------------------------- */

static uint16_t half_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static float half_value(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static uint16_t *half_at(const Tensor *t, int64_t row, int64_t col)
{
    return (uint16_t *)t->data + row * t->stride + col;
}

static double value(const Tensor *t, int64_t row, int64_t col)
{
    return half_value(*half_at(t, row, col));
}

/* bf16 rows of normal numbers. */
static Tensor matrix(Case *c, const char *name, int64_t d0, int64_t d1, int gap)
{
    Tensor x = case_rows(c, name, d0, d1, FILL_NORMAL);
    Tensor h = case_gapped_of(c, name, DTYPE_BF16, d0, d1, gap);
    for (int64_t i = 0; i < d0; i++)
        for (int64_t j = 0; j < d1; j++)
            *half_at(&h, i, j) = half_of((float)*case_at(&x, i * d1 + j));
    return h;
}

static bool same_row(const Tensor *a, int64_t i, const Tensor *b, int64_t j)
{
    return memcmp(half_at(a, i, 0), half_at(b, j, 0), (size_t)a->dim[1] * sizeof(uint16_t)) == 0;
}

/* ---- a world -------------------------------------------------------------------------------------- */

typedef struct {
    Shape s;
    int S;
    int64_t T, HD, KD;
    double scale;
    int32_t start[SEQS_MAX + 1];
    Tensor starts, q, k, v, o, lse;
} World;

static World make(Case *c, const Shape *s)
{
    World w = {.s = *s, .HD = s->H * s->D, .KD = s->K * s->D, .scale = 1 / sqrt(s->D)};
    for (; w.S < SEQS_MAX && s->len[w.S]; w.S++)
        w.start[w.S + 1] = w.start[w.S] + s->len[w.S];
    w.T = w.start[w.S];
    w.starts = case_i32(c, "starts", w.start, w.S + 1);
    w.q = matrix(c, "q", w.T, w.HD, s->gap);
    w.k = matrix(c, "k", w.T, w.KD, s->gap);
    w.v = matrix(c, "v", w.T, w.KD, s->gap);
    w.o = matrix(c, "o", w.T, w.HD, s->gap);
    w.lse = case_rows(c, "lse", w.T, s->H, FILL_ZERO);
    return w;
}

static void run_packed(World *w)
{
    op_attention(&w->o, &w->lse, &w->q, &w->k, &w->v, &w->starts, w->s.D, w->scale);
    device_sync(w->o.dev);
}

static double dot(const Tensor *a, int64_t i, int64_t ca, const Tensor *b, int64_t j, int64_t cb, int D)
{
    double sum = 0;
    for (int d = 0; d < D; d++)
        sum += value(a, i, ca + d) * value(b, j, cb + d);
    return sum;
}

/* Weights p (n keys) of row t (position n - 1 of a sequence that begins at s0) and head h; the log-sum-exp. */
static double weights(const World *w, int64_t s0, int64_t n, int h, double *p)
{
    const int64_t kv = h / (w->s.H / w->s.K) * w->s.D;
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < n; j++) {
        p[j] = dot(&w->q, s0 + n - 1, (int64_t)h * w->s.D, &w->k, s0 + j, kv, w->s.D) * w->scale;
        top = fmax(top, p[j]);
    }
    for (int64_t j = 0; j < n; j++)
        sum += p[j] = exp(p[j] - top);
    for (int64_t j = 0; j < n; j++)
        p[j] /= sum;
    return top + log(sum);
}

/* Scores: D products truncated at 2^-23 of some |q| |k|, twice; weights: 2^-9 each, and as much for their
 * rounding in the sum with v; the result 2^-9 of itself. Values are below 5. */
static void check_packed(Case *c, const World *w)
{
    double *p = malloc((size_t)w->T * sizeof *p);
    for (int s = 0; s < w->S; s++)
        for (int64_t n = 1; n <= w->start[s + 1] - w->start[s]; n++)
            for (int h = 0; h < w->s.H; h++) {
                const int64_t t = w->start[s] + n - 1, kv = h / (w->s.H / w->s.K) * w->s.D;
                double lse = weights(w, w->start[s], n, h, p);
                case_expect(c, fabs(*case_at(&w->lse, t * w->s.H + h) - lse) < 2e-5 * (1 + fabs(lse)),
                            "lse (%lld, %d) is %g, not %g", (long long)t, h,
                            (double)*case_at(&w->lse, t * w->s.H + h), lse);
                for (int d = 0; d < w->s.D; d++) {
                    double want = 0, size = 0;
                    for (int64_t j = 0; j < n; j++) {
                        want += p[j] * value(&w->v, w->start[s] + j, kv + d);
                        size += p[j] * fabs(value(&w->v, w->start[s] + j, kv + d));
                    }
                    double got = value(&w->o, t, (int64_t)h * w->s.D + d);
                    case_expect(c, fabs(got - want) <= 0x1p-8 * size + 0x1p-9 * fabs(want),
                                "o (%lld, %d, %d) is %g, not %g", (long long)t, h, d, got, want);
                }
            }
    free(p);
}

/* Each sequence alone gives the rows it has in the batch. */
static void check_alone(Case *c, const World *w)
{
    for (int s = 0; s < w->S && w->S > 1; s++) {
        const int64_t n = w->start[s + 1] - w->start[s];
        World one = *w;
        one.T = n;
        one.starts = case_i32(c, "its starts", (int32_t[]){0, (int32_t)n}, 2);
        one.q = tensor_slice(&w->q, w->start[s], n);
        one.k = tensor_slice(&w->k, w->start[s], n);
        one.v = tensor_slice(&w->v, w->start[s], n);
        one.o = case_gapped_of(c, "its o", DTYPE_BF16, n, w->HD, 0);
        one.lse = case_rows(c, "its lse", n, w->s.H, FILL_ZERO);
        run_packed(&one);
        for (int64_t t = 0; t < n; t++)
            case_expect(c,
                        same_row(&one.o, t, &w->o, w->start[s] + t) &&
                            memcmp(case_at(&one.lse, t * w->s.H),
                                   case_at(&w->lse, (w->start[s] + t) * w->s.H),
                                   (size_t)w->s.H * sizeof(real_t)) == 0,
                        "row %lld of sequence %d differs alone", (long long)t, s);
    }
}

static bool packed(Case *c, const Shape *s)
{
    World w = make(c, s);
    run_packed(&w);
    check_packed(c, &w);
    check_alone(c, &w);
    return true;
}

/* ---- gradients ------------------------------------------------------------------------------------ */

typedef struct {
    Tensor d_o, dq, dk, dv, delta;
} Gradients;

static void run_backward(const World *w, Gradients *g)
{
    op_attention_backward(&g->dq, &g->dk, &g->dv, &g->delta, &g->d_o, &w->o, &w->lse, &w->q, &w->k, &w->v,
                          &w->starts, w->s.D, w->scale);
    device_sync(w->o.dev);
}

/* Adds to sum, and its size to size, what query t of head h gives: to dq[t], to dk and dv of every key. */
typedef struct {
    double *dq, *dk, *dv, *dq_size, *dk_size, *dv_size;
} Reference;

static void reference_row(const World *w, const Gradients *g, const Reference *r, int s, int64_t n, int h,
                          double *p)
{
    const int D = w->s.D;
    const int64_t s0 = w->start[s], t = s0 + n - 1, kv = h / (w->s.H / w->s.K) * D, qh = (int64_t)h * D;
    double delta = dot(&g->d_o, t, qh, &w->o, t, qh, D);
    weights(w, s0, n, h, p);
    for (int64_t j = 0; j < n; j++) {
        const double dp = dot(&g->d_o, t, qh, &w->v, s0 + j, kv, D), ds = p[j] * (dp - delta);
        /* rounding of ds, and what the rounding of the products leaves in dp - delta and p */
        const double off = 0x1p-8 * fabs(ds) + 1e-5 * p[j] * (fabs(dp) + fabs(delta) + 1);
        for (int d = 0; d < D; d++) {
            const int64_t key = (s0 + j) * w->KD + kv + d, query = t * w->HD + qh + d;
            const double kd = value(&w->k, s0 + j, kv + d), qd = value(&w->q, t, qh + d);
            const double od = value(&g->d_o, t, qh + d);
            r->dq[query] += w->scale * ds * kd;
            r->dk[key] += w->scale * ds * qd;
            r->dv[key] += p[j] * od;
            r->dq_size[query] += w->scale * off * fabs(kd);
            r->dk_size[key] += w->scale * off * fabs(qd);
            r->dv_size[key] += 0x1p-8 * p[j] * fabs(od);
        }
    }
}

static void check_gradient(Case *c, const char *name, const Tensor *got, const double *want,
                           const double *size)
{
    for (int64_t i = 0; i < got->dim[0]; i++)
        for (int64_t j = 0; j < got->dim[1]; j++) {
            const double x = value(got, i, j), y = want[i * got->dim[1] + j];
            case_expect(c, fabs(x - y) <= size[i * got->dim[1] + j] + 0x1p-8 * fabs(y),
                        "%s (%lld, %lld) is %g, not %g within %g", name, (long long)i, (long long)j, x, y,
                        size[i * got->dim[1] + j]);
        }
}

static void check_gradients(Case *c, const World *w, const Gradients *g)
{
    const int64_t a = w->T * w->HD, b = w->T * w->KD;
    double *room = calloc((size_t)(2 * a + 4 * b + w->T), sizeof *room), *p = room + 2 * a + 4 * b;
    const Reference r = {room, room + 2 * a, room + 2 * a + b, room + a, room + 2 * a + 2 * b, room + 2 * a + 3 * b};
    for (int s = 0; s < w->S; s++)
        for (int64_t n = 1; n <= w->start[s + 1] - w->start[s]; n++)
            for (int h = 0; h < w->s.H; h++)
                reference_row(w, g, &r, s, n, h, p);
    check_gradient(c, "dq", &g->dq, r.dq, r.dq_size);
    check_gradient(c, "dk", &g->dk, r.dk, r.dk_size);
    check_gradient(c, "dv", &g->dv, r.dv, r.dv_size);
    free(room);
}

static Gradients gradients_make(Case *c, const World *w, int64_t n, int gap)
{
    return (Gradients){.dq = case_gapped_of(c, "dq", DTYPE_BF16, n, w->HD, gap),
                       .dk = case_gapped_of(c, "dk", DTYPE_BF16, n, w->KD, gap),
                       .dv = case_gapped_of(c, "dv", DTYPE_BF16, n, w->KD, gap),
                       .delta = case_rows(c, "delta", n, w->s.H, FILL_ZERO)};
}

/* Chunks are the forward's: three tiles are enough. */
static bool backward(Case *c, const Shape *whole)
{
    Shape shape = *whole, *s = &shape;
    for (int i = 0; i < SEQS_MAX; i++)
        s->len[i] = s->len[i] < 150 ? s->len[i] : 150;
    World w = make(c, s);
    run_packed(&w);
    Gradients g = gradients_make(c, &w, w.T, s->gap);
    g.d_o = matrix(c, "d_o", w.T, w.HD, s->gap);
    run_backward(&w, &g);
    check_gradients(c, &w, &g);
    for (int i = 0; i < w.S && w.S > 1; i++) { /* a sequence alone */
        const int64_t from = w.start[i], n = w.start[i + 1] - from;
        World one = w;
        one.starts = case_i32(c, "its starts", (int32_t[]){0, (int32_t)n}, 2);
        one.q = tensor_slice(&w.q, from, n);
        one.k = tensor_slice(&w.k, from, n);
        one.v = tensor_slice(&w.v, from, n);
        one.o = tensor_slice(&w.o, from, n);
        one.lse = tensor_slice(&w.lse, from, n);
        Gradients h = gradients_make(c, &w, n, 0);
        h.d_o = tensor_slice(&g.d_o, from, n);
        run_backward(&one, &h);
        for (int64_t t = 0; t < n; t++)
            case_expect(c,
                        same_row(&h.dq, t, &g.dq, from + t) && same_row(&h.dk, t, &g.dk, from + t) &&
                            same_row(&h.dv, t, &g.dv, from + t),
                        "gradients of row %lld of sequence %d differ alone", (long long)t, i);
    }
    return true;
}

/* ---- pages ---------------------------------------------------------------------------------------- */

typedef struct {
    Tensor k, v, table, seq, pos;
} Pages;

static Pages pages_make(Case *c, const World *w)
{
    Pages p;
    int64_t width = 0, n = 0;
    for (int s = 0; s < w->S; s++) {
        const int64_t used = (w->s.len[s] + KV_TILE - 1) / KV_TILE;
        n += used;
        width = used > width ? used : width;
    }
    p.k = case_tensor(c, "k pages", DTYPE_BF16, LAYOUT_KV_PAGE, 4,
                      (int64_t[]){n, w->s.K, w->s.D, KV_TILE}, FILL_ZERO);
    p.v = case_tensor(c, "v pages", DTYPE_BF16, LAYOUT_KV_PAGE, 4,
                      (int64_t[]){n, w->s.K, KV_TILE, w->s.D}, FILL_ZERO);
    memset(p.k.data, 0x7f, tensor_bytes(&p.k)); /* what was there before: 3e38 */
    memset(p.v.data, 0xff, tensor_bytes(&p.v)); /* no numbers */
    p.table = case_tensor(c, "table", DTYPE_I32, LAYOUT_ROWS, 2, (int64_t[]){w->S, width}, FILL_ZERO);
    p.seq = case_ids(c, "row_seq", w->T, 1);
    p.pos = case_ids(c, "row_pos", w->T, 1);
    for (int s = 0; s < w->S; s++) {
        for (int64_t j = 0; j * KV_TILE < w->s.len[s]; j++)
            ((int32_t *)p.table.data)[s * width + j] = (int32_t)--n;
        for (int32_t t = 0; t < w->s.len[s]; t++) {
            ((int32_t *)p.seq.data)[w->start[s] + t] = s;
            ((int32_t *)p.pos.data)[w->start[s] + t] = t;
        }
    }
    return p;
}

/* Rows [from, from + n) through pages have the bits of the packed ones. */
static void check_rows(Case *c, const World *w, const Pages *p, int64_t from, int64_t n)
{
    Tensor q = tensor_slice(&w->q, from, n), seq = tensor_slice(&p->seq, from, n);
    Tensor pos = tensor_slice(&p->pos, from, n);
    Tensor o = case_gapped_of(c, "paged o", DTYPE_BF16, n, w->HD, w->s.gap);
    op_attention_paged(&o, &q, &p->k, &p->v, &p->table, &seq, &pos, w->s.D, w->scale);
    device_sync(o.dev);
    for (int64_t t = 0; t < n; t++)
        case_expect(c, same_row(&o, t, &w->o, from + t),
                    "row %lld, read through pages with %lld, is not the packed row", (long long)(from + t),
                    (long long)n);
}

static bool paged(Case *c, const Shape *s)
{
    World w = make(c, s);
    run_packed(&w);
    Pages p = pages_make(c, &w);
    op_kv_write(&p.k, &p.v, &w.k, &w.v, &p.table, &p.seq, &p.pos);
    device_sync(w.o.dev);
    check_rows(c, &w, &p, 0, w.T);
    for (int64_t t = 0; t < w.T; t += t < 70 ? 9 : 197) /* alone: other companions in the block */
        check_rows(c, &w, &p, t, 1);
    check_rows(c, &w, &p, w.T - 1 - w.T % 20, 1 + w.T % 20);
    /* rows that are none: neighbours keep their bits, pages and the rows' o stay */
    Tensor o = case_gapped_of(c, "some o", DTYPE_BF16, w.T, w.HD, 0);
    for (int64_t t = 0; t < w.T; t += 3)
        ((int32_t *)p.seq.data)[t] = -1;
    memset(o.data, 0x11, tensor_bytes(&o));
    op_attention_paged(&o, &w.q, &p.k, &p.v, &p.table, &p.seq, &p.pos, s->D, w.scale);
    device_sync(o.dev);
    for (int64_t t = 0; t < w.T; t++)
        case_expect(c, t % 3 ? same_row(&o, t, &w.o, t) : *half_at(&o, t, w.HD - 1) == 0x1111,
                    "row %lld among rows that are none", (long long)t);
    return true;
}

static bool written(Case *c, const Shape *s)
{
    World w = make(c, s);
    Pages p = pages_make(c, &w);
    op_kv_write(&p.k, &p.v, &w.k, &w.v, &p.table, &p.seq, &p.pos);
    device_sync(w.o.dev);
    bool placed = true;
    for (int64_t t = 0; t < w.T; t++) {
        const int64_t pos = ((int32_t *)p.pos.data)[t], slot = ((int32_t *)p.seq.data)[t];
        const int64_t page = ((int32_t *)p.table.data)[slot * p.table.dim[1] + pos / KV_TILE];
        for (int64_t e = 0; e < w.KD; e++) {
            const int64_t at = (page * s->K + e / s->D) * s->D * KV_TILE, d = e % s->D, lane = pos % KV_TILE;
            placed = placed && ((uint16_t *)p.k.data)[at + d * KV_TILE + lane] == *half_at(&w.k, t, e) &&
                     ((uint16_t *)p.v.data)[at + lane * s->D + d] == *half_at(&w.v, t, e);
        }
    }
    case_expect(c, placed, "a key or value is not where the page layout says");
    return true;
}

static bool copied(Case *c, const Shape *s)
{
    World w = make(c, s);
    Pages p = pages_make(c, &w);
    op_kv_write(&p.k, &p.v, &w.k, &w.v, &p.table, &p.seq, &p.pos);
    const int64_t n = p.k.dim[0], page = s->K * s->D * KV_TILE;
    Tensor pairs = case_tensor(c, "pairs", DTYPE_I32, LAYOUT_ROWS, 2, (int64_t[]){n / 2, 2}, FILL_ZERO);
    for (int32_t i = 0; i < n / 2; i++) {
        ((int32_t *)pairs.data)[2 * i] = i;
        ((int32_t *)pairs.data)[2 * i + 1] = (int32_t)n - 1 - i;
    }
    op_kv_copy(&p.k, &p.v, &pairs);
    device_sync(w.o.dev);
    const size_t bytes = (size_t)page * sizeof(uint16_t);
    for (int64_t i = 0; i < n / 2; i++)
        case_expect(c,
                    memcmp((uint16_t *)p.k.data + i * page, (uint16_t *)p.k.data + (n - 1 - i) * page, bytes) == 0 &&
                        memcmp((uint16_t *)p.v.data + i * page, (uint16_t *)p.v.data + (n - 1 - i) * page, bytes) == 0,
                    "page %lld is no copy", (long long)(n - 1 - i));
    return true;
}

/* ---- the variants --------------------------------------------------------------------------------- */

bool attention_rows(Case *c, AttentionRows op, int variant)
{
    if (case_perf(c) || variant >= N_SHAPES)
        return false;
    if (case_card_only(c))
        return true;
    const Shape *s = &shapes[variant];
    switch (op) {
    case ROWS_PACKED:
        return packed(c, s);
    case ROWS_BACKWARD:
        return backward(c, s);
    case ROWS_PAGED:
        return paged(c, s);
    case ROWS_WRITTEN:
        return written(c, s);
    case ROWS_COPIED:
        return copied(c, s);
    }
    return false;
}
