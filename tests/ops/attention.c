/* attention.c - attention, packed and paged, and its gradients: lengths around the reduction width
 * (32), the tile (64) and the chunk (512), heads around CUDA's widths (64 and 128 columns), groups of
 * 1 to 9 heads, strided operands. Values
 * against a reference: tests/unit/test_attention.c. */
#include "tests/ops/test_ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SEQS_MAX = 160 };

typedef struct {
    int D, H, K;
    int S;      /* sequences; 0: as many as len has */
    int len[8]; /* cyclic, S of them */
} Shape;

static const Shape shapes[] = {
    {16, 4, 2, 0, {1}},         {16, 4, 2, 0, {25, 1, 31, 32, 33, 2}},
    {8, 2, 2, 0, {63, 64, 65}}, {64, 2, 1, 0, {129}},
    {4, 1, 1, 0, {511, 513}},   {8, 2, 1, 0, {600, 3}},
    {20, 3, 3, 0, {70, 9}},     {4, 1, 1, 0, {1030}},
    {64, 4, 2, 0, {1, 63, 65}}, {128, 2, 1, 0, {1, 64, 66}},
    {64, 1, 1, 0, {577}},       {128, 1, 1, 0, {513}},
    {132, 3, 1, 0, {67}},       {6, 18, 2, 0, {10, 127}},
};
/* with weights that are 0, zeros of both signs, sums beyond the largest number */
static const Shape extreme_shapes[] = {{8, 2, 1, 0, {1, 70, 5}}, {4, 4, 1, 0, {520}}};
static const Shape grad_shapes[] = {
    {4, 2, 1, 0, {3, 1, 5}}, {8, 4, 4, 0, {6, 2}}, {16, 4, 1, 0, {40}},
    {4, 2, 2, 0, {66, 3}},   {4, 1, 1, 0, {520}},
};
static const Shape perf_shapes[] = {
    {16, 4, 2, 160, {20, 25, 30}},
    {64, 8, 2, 8, {256}},
    {64, 9, 3, 1, {1024}},
    {64, 4, 4, 1, {2048}},
};

/* bf16's come behind them. */
static const int n_variants = (int)(sizeof shapes / sizeof *shapes +
                                    sizeof extreme_shapes / sizeof *extreme_shapes);

static bool is_extreme(const Case *c, int variant)
{
    return !case_perf(c) && !case_grad(c) && variant >= (int)(sizeof shapes / sizeof *shapes);
}

static bool pick(const Case *c, int variant, Shape *s)
{
    const int n_shapes = (int)(sizeof shapes / sizeof *shapes);
    const Shape *from = case_perf(c)               ? perf_shapes
                        : case_grad(c)             ? grad_shapes
                        : is_extreme(c, variant) ? extreme_shapes
                                                   : shapes;
    const size_t n = case_perf(c)               ? sizeof perf_shapes / sizeof *from
                     : case_grad(c)             ? sizeof grad_shapes / sizeof *from
                     : is_extreme(c, variant) ? sizeof extreme_shapes / sizeof *from
                                                : sizeof shapes / sizeof *from;
    const size_t i = (size_t)(variant - (is_extreme(c, variant) ? n_shapes : 0));
    if (i >= n)
        return false;
    *s = from[i];
    if (s->S == 0)
        while (s->S < 8 && s->len[s->S])
            s->S++;
    return true;
}

static int length(const Shape *s, int i)
{
    int n = 0;
    while (n < 8 && s->len[n])
        n++;
    return s->len[i % n];
}

typedef struct {
    int64_t T, HD, KD;
    double scale, pairs; /* pairs: query-key pairs of all heads */
    int32_t start[SEQS_MAX + 1];
    Tensor starts, q, k, v, o, lse;
} World;

static World make(Case *c, const Shape *s, int variant)
{
    const Fill fill = is_extreme(c, variant) ? FILL_EXTREME : FILL_NORMAL;
    World w = {.HD = s->H * s->D, .KD = s->K * s->D, .scale = 1 / sqrt(s->D)};
    for (int i = 0; i < s->S; i++) {
        const int n = length(s, i);
        w.start[i + 1] = w.start[i] + n;
        w.pairs += 0.5 * n * (n + 1) * s->H;
    }
    w.T = w.start[s->S];
    w.starts = case_i32(c, "starts", w.start, s->S + 1);
    /* odd variants: rows of one wider matrix, as when q, k and v are one product */
    Tensor (*matrix)(Case *, const char *, int64_t, int64_t, Fill) =
        variant % 2 ? case_strided : case_rows;
    w.q = matrix(c, "q", w.T, w.HD, fill);
    w.k = matrix(c, "k", w.T, w.KD, fill);
    w.v = matrix(c, "v", w.T, w.KD, fill);
    if (fill == FILL_EXTREME) /* what a token does not see must not reach it, not even times 0 */
        for (int i = 0; i < s->S; i++)
            *case_at(&w.v, (w.start[i + 1] - 1) * w.KD) = (real_t)INFINITY;
    w.o = matrix(c, "o", w.T, w.HD, FILL_ZERO);
    w.lse = case_rows(c, "lse", w.T, s->H, FILL_ZERO);
    return w;
}

static double bytes(const World *w, double passes)
{
    return passes * (double)sizeof(real_t) * (double)(w->T * (w->HD + w->KD));
}

bool test_attention(Case *c, int variant)
{
    Shape s;
    if (!pick(c, variant, &s))
        return !case_grad(c) && attention_rows(c, ROWS_PACKED, variant - n_variants);
    World w = make(c, &s, variant);
    case_flops(c, w.pairs * 4 * s.D, bytes(&w, 2));
    CASE_RUN(c)
    op_attention(&w.o, &w.lse, &w.q, &w.k, &w.v, &w.starts, s.D, w.scale);
    case_output(c, "o", &w.o);
    case_output(c, "lse", &w.lse);
    if (is_extreme(c, variant))
        return true;
    /* a sequence's first token sees itself alone */
    const real_t *q = case_at(&w.q, 0), *k = case_at(&w.k, 0);
    real_t score = 0;
    for (int d = 0; d < s.D; d++)
        score = (real_t)fma(q[d], k[d], score);
    case_expect(c, fabs((double)(*case_at(&w.lse, 0) - score * (real_t)w.scale)) < 1e-5,
                "lse of a lone token is not its score");
    case_expect(c, memcmp(case_at(&w.o, 0), case_at(&w.v, 0), (size_t)s.D * sizeof(real_t)) == 0,
                "a lone token's output is not its value");
    return true;
}

bool test_attention_backward(Case *c, int variant)
{
    Shape s;
    if (!pick(c, variant, &s))
        return !case_grad(c) && attention_rows(c, ROWS_BACKWARD, variant - n_variants);
    World w = make(c, &s, variant);
    op_attention(&w.o, &w.lse, &w.q, &w.k, &w.v, &w.starts, s.D, w.scale);
    case_loss(c, &w.o);
    if (case_forward_only(c))
        return true;
    Tensor d_o = case_rows(c, "d_o", w.T, w.HD, is_extreme(c, variant) ? FILL_EXTREME : FILL_NORMAL);
    Tensor dq = case_rows(c, "dq", w.T, w.HD, FILL_NORMAL); /* overwritten, not added to */
    Tensor dk = case_rows(c, "dk", w.T, w.KD, FILL_NORMAL);
    Tensor dv = case_rows(c, "dv", w.T, w.KD, FILL_NORMAL);
    Tensor delta = case_rows(c, "delta", w.T, s.H, FILL_NORMAL);
    case_dy(c, &w.o, &d_o);
    case_flops(c, w.pairs * 10 * s.D, bytes(&w, 4));
    CASE_RUN(c)
    op_attention_backward(&dq, &dk, &dv, &delta, &d_o, &w.o, &w.lse, &w.q, &w.k, &w.v, &w.starts,
                          s.D, w.scale);
    case_output(c, "dq", &dq);
    case_output(c, "dk", &dk);
    case_output(c, "dv", &dv);
    case_check(c, "q", &w.q, &dq);
    case_check(c, "k", &w.k, &dk);
    case_check(c, "v", &w.v, &dv);
    return true;
}

/* ---- pages ------------------------------------------------------------------------------------
 */

typedef struct {
    Tensor k, v, table;
} Pages;

static Pages pages_make(Case *c, const Shape *s)
{
    int32_t entry[4096];
    int64_t n_pages = 0, width = 0, n = 0;
    for (int i = 0; i < s->S; i++) {
        const int64_t used = (length(s, i) + KV_TILE - 1) / KV_TILE;
        n_pages += used;
        width = used > width ? used : width;
    }
    memset(entry, 0, sizeof entry);
    for (int i = 0; i < s->S; i++) /* handed out from the last down */
        for (int64_t j = 0; j * KV_TILE < length(s, i); j++)
            entry[i * width + j] = (int32_t)(n_pages - ++n);
    Pages p;
    p.k = case_tensor(c, "k pages", DTYPE_REAL, LAYOUT_KV_PAGE, 4,
                      (int64_t[]){n_pages, s->K, s->D, KV_TILE}, FILL_NORMAL);
    p.v = case_tensor(c, "v pages", DTYPE_REAL, LAYOUT_KV_PAGE, 4,
                      (int64_t[]){n_pages, s->K, KV_TILE, s->D}, FILL_NORMAL);
    p.table = case_tensor(c, "page table", DTYPE_I32, LAYOUT_ROWS, 2, (int64_t[]){s->S, width},
                          FILL_ZERO);
    memcpy(p.table.data, entry, (size_t)(s->S * width) * sizeof *entry);
    return p;
}

/* The slot and position of every packed token. */
static void row_places(Case *c, const World *w, const Shape *s, Tensor *row_seq, Tensor *row_pos)
{
    *row_seq = case_ids(c, "row_seq", w->T, 1);
    *row_pos = case_ids(c, "row_pos", w->T, 1);
    for (int i = 0; i < s->S; i++)
        for (int32_t t = w->start[i]; t < w->start[i + 1]; t++) {
            ((int32_t *)row_seq->data)[t] = i;
            ((int32_t *)row_pos->data)[t] = t - w->start[i];
        }
}

bool test_kv_write(Case *c, int variant)
{
    Shape s;
    if (case_grad(c))
        return false;
    if (!pick(c, variant, &s))
        return attention_rows(c, ROWS_WRITTEN, variant - n_variants);
    World w = make(c, &s, variant);
    Pages p = pages_make(c, &s);
    Tensor row_seq, row_pos;
    row_places(c, &w, &s, &row_seq, &row_pos);
    case_flops(c, 0, 4.0 * sizeof(real_t) * (double)(w.T * w.KD));
    CASE_RUN(c)
    op_kv_write(&p.k, &p.v, &w.k, &w.v, &p.table, &row_seq, &row_pos);
    case_output(c, "k pages", &p.k);
    case_output(c, "v pages", &p.v);
    bool placed = true;
    for (int64_t t = 0; t < w.T; t++) {
        const int32_t slot = ((int32_t *)row_seq.data)[t], pos = ((int32_t *)row_pos.data)[t];
        const int64_t page = ((int32_t *)p.table.data)[slot * p.table.dim[1] + pos / KV_TILE];
        for (int64_t e = 0; e < w.KD; e++) {
            const int64_t at = (page * s.K + e / s.D) * s.D * KV_TILE, d = e % s.D;
            const int64_t lane = pos % KV_TILE;
            placed =
                placed &&
                ((real_t *)p.k.data)[at + d * KV_TILE + lane] == *case_at(&w.k, t * w.KD + e) &&
                ((real_t *)p.v.data)[at + lane * s.D + d] == *case_at(&w.v, t * w.KD + e);
        }
    }
    case_expect(c, placed, "a key or value is not where the page layout says");
    return true;
}

bool test_kv_copy(Case *c, int variant)
{
    static const struct {
        int K, D, pages, n;
        int32_t pair[6][2]; /* a source may be read twice; perf: i -> n + i */
    } sizes[] = {
        {1, 1, 2, 1, {{1, 0}}},
        {2, 16, 7, 3, {{0, 6}, {5, 2}, {0, 3}}},
        {3, 20, 5, 0, {{0, 0}}},
        {4, 33, 12, 6, {{11, 0}, {9, 1}, {7, 2}, {11, 3}, {10, 5}, {7, 6}}},
    };
    const bool perf = case_perf(c);
    if (case_grad(c))
        return false;
    if (variant >= (perf ? 1 : 4))
        return attention_rows(c, ROWS_COPIED, variant - 4);
    const int K = perf ? 8 : sizes[variant].K, D = perf ? 64 : sizes[variant].D;
    const int P = perf ? 128 : sizes[variant].pages, n = perf ? 64 : sizes[variant].n;
    Tensor k = case_tensor(c, "k pages", DTYPE_REAL, LAYOUT_KV_PAGE, 4,
                           (int64_t[]){P, K, D, KV_TILE}, FILL_NORMAL);
    Tensor v = case_tensor(c, "v pages", DTYPE_REAL, LAYOUT_KV_PAGE, 4,
                           (int64_t[]){P, K, KV_TILE, D}, FILL_NORMAL);
    Tensor pairs = case_tensor(c, "pairs", DTYPE_I32, LAYOUT_ROWS, 2, (int64_t[]){n, 2}, FILL_ZERO);
    int32_t *pair = pairs.data, from[128];
    for (int i = 0; i < P; i++)
        from[i] = i;
    for (int i = 0; i < n; i++) {
        pair[2 * i] = perf ? i : sizes[variant].pair[i][0];
        pair[2 * i + 1] = perf ? n + i : sizes[variant].pair[i][1];
        from[pair[2 * i + 1]] = pair[2 * i];
    }
    const size_t page = (size_t)(K * D * KV_TILE), bytes_of_page = page * sizeof(real_t);
    real_t *before = malloc(2 * (size_t)P * bytes_of_page), *before_v = before + (size_t)P * page;
    memcpy(before, k.data, (size_t)P * bytes_of_page);
    memcpy(before_v, v.data, (size_t)P * bytes_of_page);
    case_flops(c, 0, 4.0 * n * (double)bytes_of_page);
    CASE_RUN(c)
    op_kv_copy(&k, &v, &pairs);
    case_output(c, "k pages", &k);
    case_output(c, "v pages", &v);
    for (int i = 0; i < P; i++) {
        const size_t at = (size_t)i * page, src = (size_t)from[i] * page;
        case_expect(c,
                    memcmp((real_t *)k.data + at, before + src, bytes_of_page) == 0 &&
                        memcmp((real_t *)v.data + at, before_v + src, bytes_of_page) == 0,
                    "page %d is not page %d as it was", i, from[i]);
    }
    free(before);
    return true;
}

bool test_attention_paged(Case *c, int variant)
{
    Shape s;
    if (case_grad(c))
        return false;
    if (!pick(c, variant, &s))
        return attention_rows(c, ROWS_PAGED, variant - n_variants);
    World w = make(c, &s, variant);
    Pages p = pages_make(c, &s);
    Tensor row_seq, row_pos;
    row_places(c, &w, &s, &row_seq, &row_pos);
    op_kv_write(&p.k, &p.v, &w.k, &w.v, &p.table, &row_seq, &row_pos);
    op_attention(&w.o, &w.lse, &w.q, &w.k, &w.v, &w.starts, s.D, w.scale);

    /* decoding: the last token of every slot */
    Tensor q = case_rows(c, "last q", s.S, w.HD, FILL_ZERO);
    Tensor o = case_rows(c, "last o", s.S, w.HD, FILL_NORMAL);
    Tensor seq = case_ids(c, "last slot", s.S, 1), pos = case_ids(c, "last pos", s.S, 1);
    const size_t row_bytes = (size_t)w.HD * sizeof(real_t);
    double keys = 0;
    for (int i = 0; i < s.S; i++) {
        const int slot = s.S - 1 - i, t = w.start[slot + 1] - 1;
        ((int32_t *)seq.data)[i] = slot;
        ((int32_t *)pos.data)[i] = t - w.start[slot];
        memcpy(case_at(&q, i * w.HD), case_at(&w.q, t * w.HD), row_bytes);
        keys += length(&s, slot);
    }
    case_flops(c, keys * s.H * 4 * s.D, keys * (double)w.KD * 2 * sizeof(real_t));
    CASE_RUN(c)
    op_attention_paged(&o, &q, &p.k, &p.v, &p.table, &seq, &pos, s.D, w.scale);
    case_output(c, "last o", &o);
    for (int i = 0; i < s.S; i++)
        case_expect(c,
                    memcmp(case_at(&o, i * w.HD), case_at(&w.o, (w.start[s.S - i] - 1) * w.HD),
                           row_bytes) == 0,
                    "slot %d: the decoded row differs from the packed row", s.S - 1 - i);
    if (case_perf(c))
        return true;

    /* reading prompts: all tokens at once */
    Tensor all = case_rows(c, "all o", w.T, w.HD, FILL_NORMAL);
    op_attention_paged(&all, &w.q, &p.k, &p.v, &p.table, &row_seq, &row_pos, s.D, w.scale);
    case_output(c, "all o", &all);
    for (int64_t t = 0; t < w.T; t++)
        case_expect(c, memcmp(case_at(&all, t * w.HD), case_at(&w.o, t * w.HD), row_bytes) == 0,
                    "row %lld read through pages differs from the packed row", (long long)t);

    /* every third row is none: its o stays, its neighbours' does not change, no page does */
    Tensor some = case_rows(c, "some o", w.T, w.HD, FILL_ZERO);
    const size_t page_bytes = tensor_bytes(&p.k);
    void *before = malloc(2 * page_bytes);
    memcpy(before, p.k.data, page_bytes);
    memcpy((char *)before + page_bytes, p.v.data, page_bytes);
    for (int64_t t = 0; t < w.T; t += 3) {
        ((int32_t *)row_seq.data)[t] = -1;
        memset(case_at(&w.k, t * w.KD), 0x7f, (size_t)w.KD * sizeof(real_t));
        memset(case_at(&w.v, t * w.KD), 0x7f, (size_t)w.KD * sizeof(real_t));
    }
    op_kv_write(&p.k, &p.v, &w.k, &w.v, &p.table, &row_seq, &row_pos);
    op_attention_paged(&some, &w.q, &p.k, &p.v, &p.table, &row_seq, &row_pos, s.D, w.scale);
    case_output(c, "some o", &some);
    case_expect(c,
                memcmp(before, p.k.data, page_bytes) == 0 &&
                    memcmp((char *)before + page_bytes, p.v.data, page_bytes) == 0,
                "a row of no slot wrote into a page");
    free(before);
    for (int64_t t = 0; t < w.T; t++)
        for (int64_t e = 0; e < w.HD; e++)
            case_expect(c,
                        t % 3 ? memcmp(case_at(&some, t * w.HD + e), case_at(&w.o, t * w.HD + e),
                                       sizeof(real_t)) == 0
                              : *case_at(&some, t * w.HD + e) == 0,
                        "row %lld among rows of no slot", (long long)t);
    return true;
}
