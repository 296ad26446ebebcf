/* test_attention.c - attention against a naive double reference, paged rows against packed rows,
 * independence of packed documents, and equal bits of every body and thread count. The vocabulary
 * ops are in test_vocab.c; gradients are checked once more in double by tests/ops/attention.c. */
#include "common/base/error.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/runtime/cpu/kmath.h"
#include "common/runtime/device.h"
#include "common/runtime/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct {
    int64_t D, H, K;
    int64_t len[8]; /* sequences, until a 0 */
} Shape;

/* Around the reduction width (32), the tile (64) and the chunk (512); groups of 1, 2 and 4. */
static const Shape shapes[] = {
    {16, 4, 2, {1}},
    {16, 4, 2, {25, 1, 31, 32, 33, 20, 30}},
    {8, 2, 2, {63, 64, 65}},
    {64, 4, 1, {129, 7}},
    {8, 2, 1, {511, 512, 513}},
    {4, 2, 1, {600, 3, 1030}},
    {20, 3, 3, {70, 40}},
    {64, 2, 1, {577}},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

typedef struct {
    int64_t D, H, K, T, S;
    double scale;
    int32_t start[9];
    float *q, *k, *v, *o, *lse, *d_o, *dq, *dk, *dv, *delta;
} World;

static float *noise(Rng *rng, int64_t n)
{
    float *x = xmalloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)rng_next_normal(rng);
    return x;
}

static World world_make(const Shape *s, uint64_t seed)
{
    World w = {.D = s->D, .H = s->H, .K = s->K, .scale = 1 / sqrt((double)s->D)};
    while (w.S < 8 && s->len[w.S]) {
        w.T += s->len[w.S++];
        w.start[w.S] = (int32_t)w.T;
    }
    Rng rng = rng_make(seed, RNG_TEST, 0, 0, 0);
    w.q = noise(&rng, w.T * w.H * w.D);
    w.k = noise(&rng, w.T * w.K * w.D);
    w.v = noise(&rng, w.T * w.K * w.D);
    w.d_o = noise(&rng, w.T * w.H * w.D);
    for (int64_t i = 0; i < w.T * w.H * w.D; i += 7) /* sharp rows: the maximum moves late */
        w.q[i] *= 8;
    w.o = noise(&rng, w.T * w.H * w.D);
    w.dq = noise(&rng, w.T * w.H * w.D);
    w.dk = noise(&rng, w.T * w.K * w.D);
    w.dv = noise(&rng, w.T * w.K * w.D);
    w.lse = noise(&rng, w.T * w.H);
    w.delta = noise(&rng, w.T * w.H);
    return w;
}

static void world_free(World *w)
{
    float *all[] = {w->q, w->k, w->v, w->d_o, w->o, w->dq, w->dk, w->dv, w->lse, w->delta};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

static Device *open_device(CpuIsa isa, int threads)
{
    Device *dev;
    return device_open(&dev, &(DeviceOptions){"cpu", threads, isa}) == 0 ? dev : NULL;
}

static Tensor rows(float *p, Device *dev, int64_t d0, int64_t d1)
{
    return tensor_make2(p, dev, DTYPE_F32, d0, d1);
}

static void run_forward(World *w, Device *dev)
{
    Tensor o = rows(w->o, dev, w->T, w->H * w->D), lse = rows(w->lse, dev, w->T, w->H);
    Tensor q = rows(w->q, dev, w->T, w->H * w->D), k = rows(w->k, dev, w->T, w->K * w->D);
    Tensor v = rows(w->v, dev, w->T, w->K * w->D);
    Tensor starts = tensor_make1(w->start, dev, DTYPE_I32, w->S + 1);
    op_attention(&o, &lse, &q, &k, &v, &starts, w->D, w->scale);
}

static void run_backward(World *w, Device *dev)
{
    const int64_t HD = w->H * w->D, KD = w->K * w->D;
    Tensor o = rows(w->o, dev, w->T, HD), lse = rows(w->lse, dev, w->T, w->H);
    Tensor q = rows(w->q, dev, w->T, HD), k = rows(w->k, dev, w->T, KD);
    Tensor v = rows(w->v, dev, w->T, KD), d_o = rows(w->d_o, dev, w->T, HD);
    Tensor dq = rows(w->dq, dev, w->T, HD), dk = rows(w->dk, dev, w->T, KD);
    Tensor dv = rows(w->dv, dev, w->T, KD), delta = rows(w->delta, dev, w->T, w->H);
    Tensor starts = tensor_make1(w->start, dev, DTYPE_I32, w->S + 1);
    op_attention_backward(&dq, &dk, &dv, &delta, &d_o, &o, &lse, &q, &k, &v, &starts, w->D,
                          w->scale);
}

/* |got - want| / |want|, Euclidean norms. */
static double distance(const float *got, const double *want, int64_t n)
{
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        diff += (got[i] - want[i]) * (got[i] - want[i]);
        norm += want[i] * want[i];
    }
    return sqrt(diff / (norm > 0 ? norm : 1));
}

typedef struct {
    double *o, *lse, *dq, *dk, *dv;
} Reference;

/* Softmax by its definition, in double, one query and head at a time. */
static void reference_row(const World *w, Reference *ref, int64_t t, int64_t first, int64_t h)
{
    const int64_t D = w->D, H = w->H, K = w->K, kv = h / (H / K), n = t - first + 1;
    double *p = xcalloc((size_t)n, sizeof *p), *dp = xcalloc((size_t)n, sizeof *dp);
    double top = -INFINITY, sum = 0, delta = 0;
    const float *q = w->q + (t * H + h) * D, *d_o = w->d_o + (t * H + h) * D;
    for (int64_t j = 0; j < n; j++) {
        const float *k = w->k + ((first + j) * K + kv) * D;
        for (int64_t d = 0; d < D; d++)
            p[j] += (double)q[d] * k[d];
        p[j] *= w->scale;
        top = fmax(top, p[j]);
    }
    for (int64_t j = 0; j < n; j++)
        sum += exp(p[j] - top);
    ref->lse[t * H + h] = top + log(sum);
    for (int64_t j = 0; j < n; j++) {
        const float *v = w->v + ((first + j) * K + kv) * D;
        p[j] = exp(p[j] - top) / sum;
        for (int64_t d = 0; d < D; d++) {
            ref->o[(t * H + h) * D + d] += p[j] * v[d];
            ref->dv[((first + j) * K + kv) * D + d] += p[j] * d_o[d];
            dp[j] += (double)d_o[d] * v[d];
        }
        delta += p[j] * dp[j];
    }
    for (int64_t j = 0; j < n; j++) {
        const double ds = p[j] * (dp[j] - delta) * w->scale;
        for (int64_t d = 0; d < D; d++) {
            ref->dq[(t * H + h) * D + d] += ds * w->k[((first + j) * K + kv) * D + d];
            ref->dk[((first + j) * K + kv) * D + d] += ds * q[d];
        }
    }
    free(p);
    free(dp);
}

static Reference reference_make(const World *w)
{
    const size_t HD = (size_t)(w->T * w->H * w->D), KD = (size_t)(w->T * w->K * w->D);
    Reference ref = {xcalloc(HD, 8), xcalloc((size_t)(w->T * w->H), 8), xcalloc(HD, 8),
                     xcalloc(KD, 8), xcalloc(KD, 8)};
    for (int64_t s = 0; s < w->S; s++)
        for (int64_t t = w->start[s]; t < w->start[s + 1]; t++)
            for (int64_t h = 0; h < w->H; h++)
                reference_row(w, &ref, t, w->start[s], h);
    return ref;
}

static void reference_free(Reference *ref)
{
    free(ref->o);
    free(ref->lse);
    free(ref->dq);
    free(ref->dk);
    free(ref->dv);
}

/* f32 rounds at 6e-8. A score is a chain of D <= 64 terms and reaches about 30 here, so it, and
 * with it a weight's relative error, is off by some 1e-6; the bounds leave a factor of ten. */
static void attention_is_softmax(void **state)
{
    (void)state;
    Device *dev = open_device(ISA_AUTO, 2);
    for (int i = 0; i < N_SHAPES; i++) {
        World w = world_make(&shapes[i], 1);
        Reference ref = reference_make(&w);
        const int64_t HD = w.T * w.H * w.D, KD = w.T * w.K * w.D;
        run_forward(&w, dev);
        run_backward(&w, dev);
        assert_true(distance(w.o, ref.o, HD) < 1e-5);
        assert_true(distance(w.lse, ref.lse, w.T * w.H) < 1e-5);
        if (w.T > 1) { /* a lone token has no gradient of q and k: one weight, always 1 */
            assert_true(distance(w.dq, ref.dq, HD) < 2e-5);
            assert_true(distance(w.dk, ref.dk, KD) < 2e-5);
        }
        assert_true(distance(w.dv, ref.dv, KD) < 2e-5);
        reference_free(&ref);
        world_free(&w);
    }
    device_close(dev);
}

static void assert_same(const float *a, const float *b, int64_t n)
{
    assert_memory_equal(a, b, (size_t)n * sizeof *a);
}

static void bodies_agree(void **state)
{
    (void)state;
    static const struct {
        CpuIsa isa;
        int threads;
    } body[] = {{ISA_PLAIN, 3}, {ISA_AVX2, 1}, {ISA_AVX2, 2}, {ISA_AVX512, 1}, {ISA_AVX512, 5}, {ISA_AVX512BF16, 2}};
    for (int i = 0; i < N_SHAPES; i++) {
        World a = world_make(&shapes[i], 2);
        Device *plain = open_device(ISA_PLAIN, 1);
        run_forward(&a, plain);
        run_backward(&a, plain);
        device_close(plain);
        for (size_t j = 0; j < sizeof body / sizeof body[0]; j++) {
            Device *dev = open_device(body[j].isa, body[j].threads);
            if (!dev)
                continue; /* not on this CPU */
            World b = world_make(&shapes[i], 2);
            run_forward(&b, dev);
            run_backward(&b, dev);
            assert_same(a.o, b.o, a.T * a.H * a.D);
            assert_same(a.lse, b.lse, a.T * a.H);
            assert_same(a.dq, b.dq, a.T * a.H * a.D);
            assert_same(a.dk, b.dk, a.T * a.K * a.D);
            assert_same(a.dv, b.dv, a.T * a.K * a.D);
            world_free(&b);
            device_close(dev);
        }
        world_free(&a);
    }
}

/* ops.h's order of operations, word by word: one query, one head, no blocking. */
static void written_order(const World *w, int64_t t, int64_t first, int64_t h, float *o, float *lse)
{
    const int64_t D = w->D, kv = h / (w->H / w->K), n = t - first + 1;
    float m = -K_INF, l = 0;
    for (int64_t chunk = 0; chunk < n; chunk += KV_CHUNK) {
        float cm = -K_INF, cl = 0, co[64] = {0};
        for (int64_t tile = chunk; tile < n && tile < chunk + KV_CHUNK; tile += KV_TILE) {
            const int64_t keys = n - tile < KV_TILE ? n - tile : KV_TILE;
            float s[KV_TILE], top;
            for (int64_t j = 0; j < keys; j++) {
                const float *k = w->k + ((first + tile + j) * w->K + kv) * D;
                s[j] = 0;
                for (int64_t d = 0; d < D; d++)
                    s[j] = fmaf(w->q[(t * w->H + h) * D + d], k[d], s[j]);
                s[j] *= (float)w->scale;
            }
            top = fmaxf(cm, row_max(s, keys));
            const float c = k_exp(cm - top);
            for (int64_t j = 0; j < keys; j++)
                s[j] = k_exp(s[j] - top);
            cl = fmaf(cl, c, row_sum(s, keys));
            for (int64_t d = 0; d < D; d++) {
                co[d] *= c;
                for (int64_t j = 0; j < keys; j++)
                    co[d] = fmaf(s[j], w->v[((first + tile + j) * w->K + kv) * D + d], co[d]);
            }
            cm = top;
        }
        const float top = fmaxf(m, cm), e1 = k_exp(m - top), e2 = k_exp(cm - top);
        for (int64_t d = 0; d < D; d++)
            o[d] = chunk == 0 ? co[d] : fmaf(o[d], e1, co[d] * e2);
        l = chunk == 0 ? cl : fmaf(l, e1, cl * e2);
        m = top;
    }
    for (int64_t d = 0; d < D; d++)
        o[d] /= l;
    *lse = m + k_log(l);
}

/* The gradients in ops.h's order, from the forward's lse. Rows of a sequence in ascending order and
 * heads in the outer loop give dk and dv theirs; dq's chain is over keys ascending. */
static void written_gradient(const World *w, int64_t t, int64_t first, int64_t h, float *dq,
                             float *dk, float *dv)
{
    const int64_t D = w->D, kv = h / (w->H / w->K), row = (t * w->H + h) * D;
    const float delta = row_dot(w->d_o + row, w->o + row, D);
    for (int64_t j = first; j <= t; j++) {
        const int64_t key = (j * w->K + kv) * D;
        float s = 0, dp = 0;
        for (int64_t d = 0; d < D; d++) {
            s = fmaf(w->q[row + d], w->k[key + d], s);
            dp = fmaf(w->d_o[row + d], w->v[key + d], dp);
        }
        const float p = k_exp(s * (float)w->scale - w->lse[t * w->H + h]);
        const float ds = p * (dp - delta) * (float)w->scale;
        for (int64_t d = 0; d < D; d++) {
            dv[key + d] = fmaf(p, w->d_o[row + d], dv[key + d]);
            dk[key + d] = fmaf(ds, w->q[row + d], dk[key + d]);
            dq[row + d] = fmaf(ds, w->k[key + d], dq[row + d]);
        }
    }
}

static void bits_are_those_of_the_contract(void **state)
{
    (void)state;
    Device *dev = open_device(ISA_AUTO, 2);
    for (int i = 0; i < N_SHAPES; i++) {
        World w = world_make(&shapes[i], 6);
        const int64_t HD = w.H * w.D, KD = w.K * w.D;
        float *dq = xcalloc((size_t)(w.T * HD), 4), *dk = xcalloc((size_t)(w.T * KD), 4);
        float *dv = xcalloc((size_t)(w.T * KD), 4);
        run_forward(&w, dev);
        run_backward(&w, dev);
        for (int64_t s = 0; s < w.S; s++)
            for (int64_t h = 0; h < w.H; h++)
                for (int64_t t = w.start[s]; t < w.start[s + 1]; t++) {
                    float o[64], lse;
                    written_order(&w, t, w.start[s], h, o, &lse);
                    assert_same(o, w.o + t * HD + h * w.D, w.D);
                    assert_same(&lse, w.lse + t * w.H + h, 1);
                    written_gradient(&w, t, w.start[s], h, dq, dk, dv);
                }
        assert_same(dq, w.dq, w.T * HD);
        assert_same(dk, w.dk, w.T * KD);
        assert_same(dv, w.dv, w.T * KD);
        free(dq);
        free(dk);
        free(dv);
        world_free(&w);
    }
    device_close(dev);
}

/* What another document holds, even NaN, does not reach this one; nor does a later token. */
static void documents_are_apart(void **state)
{
    (void)state;
    const Shape shape = {16, 4, 2, {40, 90, 600}};
    Device *dev = open_device(ISA_AUTO, 2);
    World a = world_make(&shape, 3), b = world_make(&shape, 3);
    const int64_t HD = a.H * a.D, KD = a.K * a.D;
    /* spoil all of the outer documents, and the tail of the middle one from position 50 on */
    for (int64_t t = 0; t < b.T; t++) {
        if (t >= 40 && t < 90)
            continue;
        for (int64_t c = 0; c < HD; c++)
            b.q[t * HD + c] = t % 3 ? NAN : 1e30f;
        for (int64_t c = 0; c < KD; c++)
            b.k[t * KD + c] = b.v[t * KD + c] = t % 2 ? NAN : INFINITY;
    }
    run_forward(&a, dev);
    run_forward(&b, dev);
    assert_same(a.o + 40 * HD, b.o + 40 * HD, 50 * HD);
    assert_same(a.lse + 40 * a.H, b.lse + 40 * a.H, 50 * a.H);

    /* backward: one document's gradients alone and in company are the same */
    World alone = a;
    alone.S = 1;
    alone.T = 90;
    alone.start[0] = 0;
    alone.start[1] = 90;
    float *dq = xmalloc((size_t)(90 * HD) * 4), *dk = xmalloc((size_t)(90 * KD) * 4);
    float *dv = xmalloc((size_t)(90 * KD) * 4);
    run_backward(&a, dev);
    alone.q += 40 * HD, alone.o += 40 * HD, alone.d_o += 40 * HD;
    alone.k += 40 * KD, alone.v += 40 * KD;
    alone.lse += 40 * a.H;
    alone.dq = dq, alone.dk = dk, alone.dv = dv;
    run_backward(&alone, dev);
    assert_same(a.dq + 40 * HD, dq, 90 * HD);
    assert_same(a.dk + 40 * KD, dk, 90 * KD);
    assert_same(a.dv + 40 * KD, dv, 90 * KD);
    free(dq);
    free(dk);
    free(dv);
    world_free(&a);
    world_free(&b);
    device_close(dev);
}

/* ---- pages ------------------------------------------------------------------------------------
 */

typedef struct {
    int64_t n_pages, width; /* width: pages of the longest slot */
    int32_t *table;
    float *k, *v;
} Pages;

/* Pages handed out from the last down, so that a page's number says nothing; memory starts as NaN.
 */
static Pages pages_make(const World *w)
{
    Pages p = {0};
    for (int64_t s = 0; s < w->S; s++) {
        const int64_t n = (w->start[s + 1] - w->start[s] + KV_TILE - 1) / KV_TILE;
        p.n_pages += n;
        p.width = n > p.width ? n : p.width;
    }
    p.table = xcalloc((size_t)(w->S * p.width), sizeof *p.table);
    int32_t next = (int32_t)p.n_pages;
    for (int64_t s = 0; s < w->S; s++)
        for (int64_t i = 0; i * KV_TILE < w->start[s + 1] - w->start[s]; i++)
            p.table[s * p.width + i] = --next;
    const int64_t n = p.n_pages * w->K * w->D * KV_TILE;
    p.k = xmalloc((size_t)n * 4);
    p.v = xmalloc((size_t)n * 4);
    for (int64_t i = 0; i < n; i++)
        p.k[i] = p.v[i] = NAN;
    return p;
}

static void pages_free(Pages *p)
{
    free(p->table);
    free(p->k);
    free(p->v);
}

/* Reads all sequences through pages: each round takes from every unfinished slot a run of 1 to
 * `most` tokens, writes their keys and values, and attends. Gives o in packed order. */
static float *run_paged(const World *w, Device *dev, int64_t most, uint64_t seed)
{
    const int64_t HD = w->H * w->D, KD = w->K * w->D;
    Pages p = pages_make(w);
    int64_t at[8] = {0};
    float *out = xmalloc((size_t)(w->T * HD) * 4);
    const size_t R = (size_t)(w->S * most);
    float *q = xmalloc(R * (size_t)HD * 4), *o = xmalloc(R * (size_t)HD * 4);
    float *k = xmalloc(R * (size_t)KD * 4), *v = xmalloc(R * (size_t)KD * 4);
    int32_t *seq = xmalloc(R * 4), *pos = xmalloc(R * 4);
    Rng rng = rng_make(seed, RNG_TEST, 1, 0, 0);
    Tensor kp = {.data = p.k,
                 .dev = dev,
                 .dtype = DTYPE_F32,
                 .layout = LAYOUT_KV_PAGE,
                 .n_dims = 4,
                 .dim = {p.n_pages, w->K, w->D, KV_TILE},
                 .stride = KV_TILE};
    Tensor vp = {.data = p.v,
                 .dev = dev,
                 .dtype = DTYPE_F32,
                 .layout = LAYOUT_KV_PAGE,
                 .n_dims = 4,
                 .dim = {p.n_pages, w->K, KV_TILE, w->D},
                 .stride = w->D};
    Tensor table = tensor_make2(p.table, dev, DTYPE_I32, w->S, p.width);
    for (;;) {
        int64_t n = 0;
        for (int64_t s = 0; s < w->S; s++) {
            const int64_t len = w->start[s + 1] - w->start[s], left = len - at[s];
            int64_t take = left ? 1 + (int64_t)rng_next_below(&rng, (uint64_t)most) : 0;
            take = take < left ? take : left;
            for (int64_t i = 0; i < take; i++, n++) {
                const int64_t t = w->start[s] + at[s];
                memcpy(q + n * HD, w->q + t * HD, (size_t)HD * 4);
                memcpy(k + n * KD, w->k + t * KD, (size_t)KD * 4);
                memcpy(v + n * KD, w->v + t * KD, (size_t)KD * 4);
                seq[n] = (int32_t)s;
                pos[n] = (int32_t)at[s]++;
            }
        }
        if (n == 0)
            break;
        Tensor tq = rows(q, dev, n, HD), to = rows(o, dev, n, HD), tk = rows(k, dev, n, KD);
        Tensor tv = rows(v, dev, n, KD), tseq = tensor_make1(seq, dev, DTYPE_I32, n);
        Tensor tpos = tensor_make1(pos, dev, DTYPE_I32, n);
        op_kv_write(&kp, &vp, &tk, &tv, &table, &tseq, &tpos);
        op_attention_paged(&to, &tq, &kp, &vp, &table, &tseq, &tpos, w->D, w->scale);
        for (int64_t r = 0; r < n; r++)
            memcpy(out + (w->start[seq[r]] + pos[r]) * HD, o + r * HD, (size_t)HD * 4);
    }
    free(q);
    free(o);
    free(k);
    free(v);
    free(seq);
    free(pos);
    pages_free(&p);
    return out;
}

static void paged_is_packed(void **state)
{
    (void)state;
    static const int64_t most[] = {1, 5, 130, 1100};
    for (int threads = 1; threads <= 3; threads += 2) {
        Device *dev = open_device(ISA_AUTO, threads);
        for (int i = 0; i < N_SHAPES; i++) {
            World w = world_make(&shapes[i], 4);
            run_forward(&w, dev);
            for (size_t j = 0; j < sizeof most / sizeof most[0]; j++) {
                float *o = run_paged(&w, dev, most[j], 100 + j);
                assert_same(w.o, o, w.T * w.H * w.D);
                free(o);
            }
            world_free(&w);
        }
        device_close(dev);
    }
}

/* By hand: D = 2, one head, two tokens, scale 1, q = k = (0, 0) then q1 = (ln 3, 0), k0 = (1, 0),
 * k1 = (0, 0): scores of token 1 are ln 3 and 0, weights 3/4 and 1/4, lse = ln 4. */
static void two_tokens_by_hand(void **state)
{
    (void)state;
    Device *dev = open_device(ISA_AUTO, 1);
    float q[] = {0, 0, 1.0986123f, 0}, k[] = {1, 0, 0, 0}, v[] = {8, 4, 0, 12};
    float o[4], lse[2];
    World w = {.D = 2,
               .H = 1,
               .K = 1,
               .T = 2,
               .S = 1,
               .scale = 1,
               .start = {0, 2},
               .q = q,
               .k = k,
               .v = v,
               .o = o,
               .lse = lse};
    run_forward(&w, dev);
    assert_true(o[0] == 8 && o[1] == 4 && lse[0] == 0); /* token 0 sees itself alone */
    assert_true(fabs(o[2] - 6.0) < 1e-5 && fabs(o[3] - 6.0) < 1e-5);
    assert_true(fabs(lse[1] - 1.3862944) < 1e-6);
    device_close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_tokens_by_hand),  cmocka_unit_test(attention_is_softmax),
        cmocka_unit_test(bodies_agree),        cmocka_unit_test(bits_are_those_of_the_contract),
        cmocka_unit_test(documents_are_apart), cmocka_unit_test(paged_is_packed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
