/* world.c - what a case is made of: draws, a model on a device, passes over documents; see exact.h. */
#include "tests/exact/exact.h"

#include "common/base/hash.h"
#include "common/model/acts.h"

#include <math.h>
#include <stdio.h>

/* ---- outcome ------------------------------------------------------------------------------------ */

static void say(Case *c, const char *fmt, va_list ap)
{
    if (c->difference)
        return;
    Str s = {0};
    str_addv(&s, fmt, ap);
    c->difference = str_take(&s);
}

void case_expect(Case *c, bool ok, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (!ok)
        say(c, fmt, ap);
    va_end(ap);
}

/* Equal NaNs would prove nothing, so they are a failure of the case. */
void case_first(Case *c, const void *data, size_t bytes)
{
    const float *x = data;
    for (size_t i = 0; i < bytes / sizeof *x; i++)
        case_expect(c, isfinite(x[i]), "value %zu is not finite", i);
    c->hash = hash64(data, bytes, c->hash);
}

void case_same(Case *c, const void *got, const void *want, size_t bytes, const char *fmt, ...)
{
    c->compared += (int64_t)bytes;
    if (bytes == 0 || memcmp(got, want, bytes) == 0)
        return;
    va_list ap;
    va_start(ap, fmt);
    say(c, fmt, ap);
    va_end(ap);
}

/* ---- draws -------------------------------------------------------------------------------------- */

int64_t draw(Case *c, int64_t from, int64_t to)
{
    return from + (int64_t)rng_next_below(&c->rng, (uint64_t)(to - from + 1));
}

bool draw_one_in(Case *c, int n)
{
    return rng_next_below(&c->rng, (uint64_t)n) == 0;
}

/* Widths on both sides of a panel (32), a vector (16) and a vocabulary tile (512); heads of 2 to 64. */
void draw_model(Case *c, bool either_head)
{
    static const double spreads[] = {0.5, 1, 3};
    bool wide = draw_one_in(c, 8);
    ModelConfig *m = &c->config;
    *m = (ModelConfig){.architecture = "Llama", .norm_eps = 1e-5, .rope_theta = 10000, .bos = -1, .pad = -1};
    m->K = draw(c, 1, wide ? 2 : 3);
    m->H = m->K * draw(c, 1, 4);
    m->D = wide ? 32 * draw(c, 1, 2) : 2 * draw(c, 1, 8);
    m->C = draw(c, 3, 70);
    m->F = draw(c, 1, 80);
    m->V = draw_one_in(c, 8) ? draw(c, VOCAB_TILE - 2, 2 * VOCAB_TILE + 2) : draw(c, 5, 130);
    m->L = draw(c, 1, 3);
    m->head = either_head && draw_one_in(c, 4) ? HEAD_SCALAR : HEAD_LM;
    m->tied = m->head == HEAD_LM && draw_one_in(c, 2);
    m->qkv_bias = draw_one_in(c, 4);
    m->o_bias = draw_one_in(c, 8);
    m->qk_norm = draw_one_in(c, 4);
    if (draw_one_in(c, 4))
        m->rope = (RopeScaling){ROPE_LLAMA3, 8, 1, 4, 256};
    m->max_position = LONG_TOKENS + 2 * KV_TILE;
    c->spread = spreads[draw(c, 0, 2)];
    c->policy = draw_one_in(c, 2);
}

void draw_docs(Case *c, Docs *d, int least, int most, int longest)
{
    int long_one = draw_one_in(c, 12) ? (int)draw(c, 0, least - 1) : -1;
    d->n = (int)draw(c, least, most);
    d->starts[0] = 0;
    for (int i = 0; i < d->n; i++) {
        int64_t n = draw_one_in(c, 3) ? draw(c, 1, 4) : draw(c, 1, longest);
        n = i == long_one ? draw(c, KV_CHUNK - 2, LONG_TOKENS) : n;
        d->starts[i + 1] = d->starts[i] + (int32_t)n;
    }
    for (int t = 0; t < d->starts[d->n]; t++)
        d->ids[t] = (int32_t)draw(c, 0, c->config.V - 1);
}

/* ---- a model on a device ------------------------------------------------------------------------ */

typedef struct {
    const Case *c;
    uint64_t state;
    double at, scale; /* numbers around `at` */
} Fill;

static void fill_run(void *ctx, int64_t first, int64_t n, real_t *dst)
{
    Fill *f = ctx;
    (void)first;
    for (int64_t i = 0; i < n; i++) {
        f->state = f->state * 6364136223846793005U + 1442695040888963407U;
        double u = (double)(f->state >> 32) / 4294967296.0 - 0.5;
        dst[i] = (real_t)(f->at + f->scale * u);
    }
}

/* Matrices as an initialization has them, norms around 1, biases around 0. */
static void fill_params(ParamSet *p, const Case *c)
{
    for (int i = 0; i < p->table->n; i++) {
        const ParamDef *def = &p->table->def[i];
        Fill f = {c, hash64(&c->number, sizeof c->number, c->seed + (uint64_t)i), def->init == INIT_ONES, 0.5};
        if (p->w[i].n_dims == 2)
            f.scale = c->spread * sqrt(12 / (double)def->dim[1]); /* 12: of a uniform draw */
        if (def->tied_to < 0)
            param_store(&p->w[i], fill_run, &f);
    }
    params_refresh(p);
}

bool net_open(Net *n, const Case *c, CpuIsa isa, int threads, int max_tokens)
{
    Device *dev = NULL;
    *n = (Net){.f = {.config = c->config, .isa = isa, .dtype = c->dtype, .recompute = c->recompute}};
    if (device_open(&dev, &(DeviceOptions){"cpu", threads, isa}) < 0)
        return false;
    device_close(dev);
    fixture_open(&n->f, NULL, threads, max_tokens);
    fill_params(&n->f.p, c);
    return true;
}

void net_open_any(Net *n, Case *c, int max_tokens)
{
    CHECK(net_open(n, c, ISA_AUTO, (int)draw(c, 1, 3), max_tokens), "%s", error_text());
}

void net_plant(Net *n, const Case *c)
{
    uint32_t *bits = n->f.p.w[n->f.m.table.final_norm].data;
    if (c->planted)
        bits[c->number % c->config.C] ^= 1U << 12;
}

static void commit(Arena *a)
{
    CHECK(arena_commit(a) == 0, "%s", error_text());
}

void net_open_cache(Net *n, int slots, int length, int rows)
{
    n->work = extend_new(&n->f.m, rows);
    arena_init(&n->cache, n->f.dev, ARENA_DEVICE, "cache");
    for (int pass = 0; pass < 2; pass++) {
        kv_alloc(&n->kv, &n->f.m, &n->cache, slots, length);
        extend_alloc(n->work, &n->cache);
        if (!pass)
            commit(&n->cache);
    }
}

void net_open_generator(Net *n, int slots, int length, int rows)
{
    n->gen = generator_new(&n->f.m, slots, length, rows);
    arena_init(&n->cache, n->f.dev, ARENA_DEVICE, "cache");
    arena_init(&n->host, n->f.dev, ARENA_HOST, "host");
    for (int pass = 0; pass < 2; pass++) {
        generator_alloc(n->gen, &n->cache, &n->host);
        if (!pass) {
            commit(&n->cache);
            commit(&n->host);
        }
    }
}

void net_open_optim(Net *n)
{
    static const OptimConfig config = {.learning_rate = 1e-2,
                                       .schedule = SCHEDULE_CONSTANT,
                                       .beta1 = 0.9,
                                       .beta2 = 0.95,
                                       .eps = 1e-8,
                                       .weight_decay = 0.1,
                                       .max_grad_norm = 1};
    arena_init(&n->optim_arena, n->f.dev, ARENA_DEVICE, "optimizer");
    for (int pass = 0; pass < 2; pass++) {
        optim_alloc(&n->optim, &config, &n->f.p, &n->f.g, &n->optim_arena);
        if (!pass)
            commit(&n->optim_arena);
    }
}

void net_close(Net *n)
{
    generator_free(n->gen);
    extend_free(n->work);
    kv_free(&n->kv);
    if (n->optim.params)
        optim_free(&n->optim);
    arena_free(&n->cache);
    arena_free(&n->host);
    arena_free(&n->optim_arena);
    fixture_close(&n->f);
    *n = (Net){0};
}

/* ---- passes ------------------------------------------------------------------------------------- */

void net_values(Net *n, const Tensor *hidden, const int32_t *target, int64_t R, RowValues *out)
{
    Fixture *f = &n->f;
    bool lm = f->config.head == HEAD_LM;
    int32_t *rows = lm ? f->lm.rows.data : f->scalar.rows.data;
    for (int64_t r = 0; r < R; r++)
        rows[r] = (int32_t)r;
    if (lm) {
        memcpy(f->lm.target.data, target, (size_t)R * sizeof *target);
        lm_head_run(&f->lm, &f->m, &f->p, LM_LOGP, R, hidden, NULL, NULL, 1 / 0.7, 0);
    } else {
        scalar_head_forward(&f->scalar, &f->m, &f->p, R, hidden);
    }
    const float *of[4] = {lm ? f->lm.logp.data : f->scalar.score.data, f->lm.lse.data, f->lm.entropy.data,
                          f->lm.hit.data};
    for (int64_t r = 0; r < R; r++)
        for (int i = 0; i < 4; i++)
            out[r].v[i] = i == 0 || lm ? of[i][r] : 0;
}

/* A number in [-0.5, 0.5) for token t of document i, whatever stands beside it. */
static float unit(const Case *c, int doc, int t, int what)
{
    int key[3] = {doc, t, what};
    return (float)((double)(hash64(key, sizeof key, c->seed) >> 40) / 16777216.0 - 0.5);
}

/* Every token but the last of a document predicts the next one. */
static void lm_backward(Net *n, const Case *c, const int *list, const Tensor *hidden, Tensor *dhidden)
{
    LmHead *h = &n->f.lm;
    const Pack *k = &n->f.pack;
    int64_t R = 0;
    for (int s = 0; s < k->n_seqs; s++)
        for (int t = k->starts[s]; t + 1 < k->starts[s + 1]; t++, R++) {
            int at = t - k->starts[s];
            ((int32_t *)h->rows.data)[R] = t;
            ((int32_t *)h->target.data)[R] = k->ids[t + 1];
            ((float *)h->weight.data)[R] = 0.02F * (1 + unit(c, list[s], at, 0));
            ((float *)h->old_logp.data)[R] = -3 + 4 * unit(c, list[s], at, 1);
            ((float *)h->adv.data)[R] = 2 * unit(c, list[s], at, 2);
        }
    lm_head_run(h, &n->f.m, &n->f.p, c->policy ? LM_POLICY : LM_XENT, R, hidden, dhidden, &n->f.g, 1 / 0.7, 0.2);
}

/* Every row has a score, as a critic's. */
static void scalar_backward(Net *n, const Case *c, const int *list, Tensor *dhidden)
{
    const Pack *k = &n->f.pack;
    for (int s = 0; s < k->n_seqs; s++)
        for (int t = k->starts[s]; t < k->starts[s + 1]; t++)
            ((float *)n->f.scalar.dscore.data)[t] = unit(c, list[s], t - k->starts[s], 3);
    scalar_head_backward(&n->f.scalar, &n->f.m, &n->f.p, k->n_tokens, dhidden, &n->f.g);
}

static float *copy_of(const Tensor *t)
{
    return memcpy(xmalloc(tensor_bytes(t)), t->data, tensor_bytes(t));
}

static void next_ids(const Pack *k, int32_t *target)
{
    for (int s = 0; s < k->n_seqs; s++)
        for (int t = k->starts[s]; t < k->starts[s + 1]; t++)
            target[t] = t + 1 < k->starts[s + 1] ? k->ids[t + 1] : 0;
}

Pass net_pass(Net *n, const Case *c, const Docs *d, const int *list, int n_list, bool train)
{
    Fixture *f = &n->f;
    pack_clear(&f->pack);
    for (int i = 0; i < n_list; i++)
        pack_add(&f->pack, d->ids + d->starts[list[i]], NULL, d->starts[list[i] + 1] - d->starts[list[i]], i);
    batch_set(&f->batch, &f->pack);
    model_forward(&f->m, &f->p, NULL, &f->batch, f->acts);
    Tensor hidden = acts_hidden(f->acts, &f->batch), dhidden = acts_dhidden(f->acts, &f->batch);
    Pass p = {.T = f->batch.T, .C = f->config.C, .hidden = copy_of(&hidden)};
    p.values = xmalloc((size_t)p.T * sizeof *p.values);
    int32_t *target = xmalloc((size_t)p.T * sizeof *target);
    next_ids(&f->pack, target);
    net_values(n, &hidden, target, p.T, p.values);
    free(target);
    if (!train)
        return p;
    if (f->config.head == HEAD_LM)
        lm_backward(n, c, list, &hidden, &dhidden);
    else
        scalar_backward(n, c, list, &dhidden);
    model_backward(&f->m, &f->p, NULL, &f->batch, f->acts, &f->g);
    Tensor dx = acts_view(f->acts, A_DX, 0, p.T);
    p.dx = copy_of(&dx);
    return p;
}

void pass_free(Pass *p)
{
    free(p->hidden);
    free(p->dx);
    free(p->values);
    *p = (Pass){0};
}

static size_t join(const Tensor *t, int n, char **out)
{
    size_t bytes = 0;
    for (int i = 0; i < n; i++)
        bytes += tensor_bytes(&t[i]);
    char *at = *out = xmalloc(bytes);
    for (int i = 0; i < n; i++) {
        memcpy(at, t[i].data, tensor_bytes(&t[i]));
        at += tensor_bytes(&t[i]);
    }
    return bytes;
}

size_t net_grads(const Net *n, char **out)
{
    return join(n->f.g.g, n->f.m.table.n, out);
}

size_t net_weights(const Net *n, char **out)
{
    return join(n->f.p.w, n->f.m.table.n, out);
}
