/* test_hashes.c - f32 results are those of the first round, to the bit: a hash of every op's outputs on
 * fixed numbers, and of forward, gradients, updates and sampled tokens of three models, against
 * tests/golden/f32_hashes.txt, for every set of bodies of this CPU. `test_hashes print` prints them;
 * tests/golden/make_f32_hashes.sh says how the file was made. */
#include "tests/unit/model_fixture.h"

#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/generate/generate.h"
#include "common/train/optim.h"

#include <stdio.h>

/* ---- tensors of fixed numbers ------------------------------------------------------------------- */

enum { BLOCKS_MAX = 128 };

typedef struct {
    Device *dev;
    uint64_t state, hash;
    void *block[BLOCKS_MAX];
    int n;
} Lab;

/* In (-2, 2), a bell of sorts, without libm. */
static float next(Lab *l)
{
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        l->state = l->state * 6364136223846793005U + 1442695040888963407U;
        sum += (double)(l->state >> 40) / 16777216.0 - 0.5;
    }
    return (float)sum;
}

static Tensor blank(Lab *l, DType dtype, Layout layout, int n_dims, const int64_t *dim)
{
    Tensor t = {.dev = l->dev, .dtype = dtype, .layout = layout, .n_dims = n_dims, .stride = dim[n_dims - 1]};
    memcpy(t.dim, dim, (size_t)n_dims * sizeof *dim);
    size_t bytes = (tensor_bytes(&t) + 63) / 64 * 64;
    assert_true(l->n < BLOCKS_MAX);
    t.data = l->block[l->n++] = aligned_alloc(64, bytes + 64);
    memset(t.data, 0, bytes);
    return t;
}

static Tensor rows(Lab *l, int64_t d0, int64_t d1)
{
    Tensor t = blank(l, DTYPE_F32, LAYOUT_ROWS, d1 ? 2 : 1, (int64_t[]){d0, d1});
    t.stride = d1 ? d1 : d0;
    for (int64_t i = 0; i < tensor_len(&t); i++)
        ((float *)t.data)[i] = next(l);
    return t;
}

static Tensor panel(Lab *l, int64_t n, int64_t k)
{
    Tensor t = blank(l, DTYPE_F32, LAYOUT_PANEL, 2, (int64_t[]){n, k});
    for (int64_t r = 0; r < n; r++)
        for (int64_t c = 0; c < k; c++)
            ((float *)t.data)[(r / PANEL_N * k + c) * PANEL_N + r % PANEL_N] = next(l);
    return t;
}

static Tensor ints(Lab *l, int64_t n, const int32_t *values)
{
    Tensor t = blank(l, DTYPE_I32, LAYOUT_ROWS, 1, &n);
    memcpy(t.data, values, (size_t)n * sizeof *values);
    return t;
}

static Tensor ids(Lab *l, int64_t n, int64_t below)
{
    Tensor t = blank(l, DTYPE_I32, LAYOUT_ROWS, 1, &n);
    for (int64_t i = 0; i < n; i++)
        ((int32_t *)t.data)[i] = (int32_t)((next(l) + 2) / 4 * (float)below);
    return t;
}

/* Probabilities and variances are not negative. */
static Tensor positive(Lab *l, int64_t d0, int64_t d1)
{
    Tensor t = rows(l, d0, d1);
    for (int64_t i = 0; i < tensor_len(&t); i++)
        ((float *)t.data)[i] = ((float *)t.data)[i] + 2.125F;
    return t;
}

static void take(Lab *l, const Tensor *t)
{
    l->hash = hash64(t->data, tensor_bytes(t), l->hash);
}

/* ---- one function an op ------------------------------------------------------------------------- */

static const int64_t sizes[][3] = {{1, 31, 33}, {2, 64, 97}, {7, 130, 40}, {65, 33, 300}}; /* M, N, K */
enum { N_SIZES = 4 };

static void linear(Lab *l)
{
    for (int i = 0; i < N_SIZES; i++) {
        const int64_t *s = sizes[i];
        Tensor y = rows(l, s[0], s[1]), x = rows(l, s[0], s[2]), w = panel(l, s[1], s[2]);
        op_linear(&y, &x, &w, i % 2);
        take(l, &y);
    }
}

static void linear_dx(Lab *l)
{
    for (int i = 0; i < N_SIZES; i++) {
        const int64_t *s = sizes[i];
        Tensor dx = rows(l, s[0], s[2]), dy = rows(l, s[0], s[1]), w = panel(l, s[1], s[2]);
        op_linear_dx(&dx, &dy, &w, i % 2);
        take(l, &dx);
    }
}

static void linear_dw(Lab *l)
{
    for (int i = 0; i < N_SIZES; i++) {
        const int64_t *s = sizes[i];
        Tensor dw = panel(l, s[1], s[2]), dy = rows(l, s[0], s[1]), x = rows(l, s[0], s[2]);
        op_linear_dw(&dw, &dy, &x, DTYPE_REAL, i % 2);
        take(l, &dw);
    }
}

static void embedding(Lab *l)
{
    Tensor y = rows(l, 50, 37), id = ids(l, 50, 91), table = rows(l, 91, 37), tied = panel(l, 91, 37);
    op_embedding(&y, &id, &table);
    take(l, &y);
    op_embedding(&y, &id, &tied);
    take(l, &y);
}

static void embedding_backward(Lab *l)
{
    Tensor dw = rows(l, 20, 37), dy = rows(l, 70, 37), id = ids(l, 70, 20);
    op_embedding_backward(&dw, &dy, &id);
    take(l, &dw);
}

static void rmsnorm(Lab *l)
{
    for (int64_t C = 1; C < 400; C = 3 * C + 2) {
        Tensor y = rows(l, 9, C), rstd = rows(l, 9, 0), x = rows(l, 9, C), w = rows(l, C, 0);
        op_rmsnorm(&y, &rstd, &x, &w, 1e-5);
        take(l, &y);
        take(l, &rstd);
    }
}

static void rmsnorm_backward(Lab *l)
{
    static const int32_t starts[] = {0, 70, 71, 200};
    for (int64_t C = 1; C < 400; C = 3 * C + 2) {
        Tensor dx = rows(l, 200, C), dw = rows(l, C, 0), dy = rows(l, 200, C), x = rows(l, 200, C),
               w = rows(l, C, 0);
        Tensor rstd = positive(l, 200, 0), start = ints(l, 4, starts);
        op_rmsnorm_backward(&dx, &dw, &dy, &x, &w, &rstd, &start, 1);
        take(l, &dx);
        take(l, &dw);
    }
}

static void add(Lab *l)
{
    Tensor y = rows(l, 13, 45), a = rows(l, 13, 45), b = rows(l, 13, 45);
    op_add(&y, &a, &b);
    take(l, &y);
}

static void swiglu(Lab *l)
{
    Tensor y = rows(l, 13, 45), gate = rows(l, 13, 45), up = rows(l, 13, 45);
    op_swiglu(&y, &gate, &up);
    take(l, &y);
}

static void swiglu_backward(Lab *l)
{
    Tensor dgate = rows(l, 13, 45), dup = rows(l, 13, 45), dy = rows(l, 13, 45), gate = rows(l, 13, 45),
           up = rows(l, 13, 45);
    op_swiglu_backward(&dgate, &dup, &dy, &gate, &up);
    take(l, &dgate);
    take(l, &dup);
}

static void rope(Lab *l)
{
    for (int backward = 0; backward < 2; backward++) {
        Tensor x = rows(l, 30, 60), pos = ids(l, 30, 40), table = rows(l, 40, 20);
        op_rope(&x, &pos, &table, 20, backward);
        take(l, &x);
    }
}

static void convert(Lab *l)
{
    Tensor w = panel(l, 45, 13), y = rows(l, 45, 13), back = panel(l, 45, 13);
    Tensor half = blank(l, DTYPE_BF16, LAYOUT_ROWS, 2, (int64_t[]){45, 13});
    op_convert(&y, &w);
    op_convert(&back, &y);
    op_convert(&half, &y);
    take(l, &y);
    take(l, &back);
    take(l, &half);
}

static void axpy(Lab *l)
{
    Tensor y = panel(l, 45, 13), x = rows(l, 45, 13);
    op_axpy(&y, 0.3, &x, true);
    take(l, &y);
}

static void fill(Lab *l)
{
    Tensor y = panel(l, 45, 13);
    op_fill(&y, 0.7);
    take(l, &y);
}

static void gather_rows(Lab *l)
{
    Tensor y = rows(l, 40, 19), x = rows(l, 30, 19), at = ids(l, 40, 30);
    op_gather_rows(&y, &x, &at);
    take(l, &y);
}

static void scatter_rows(Lab *l)
{
    Tensor y = rows(l, 30, 19), x = rows(l, 40, 19), at = ids(l, 40, 30);
    op_scatter_rows(&y, &x, &at);
    take(l, &y);
}

/* Past a tile of keys and past a chunk; groups of two. */
static const int32_t attention_starts[] = {0, 1, 66, 700};
enum { ATT_T = 700, ATT_H = 4, ATT_K = 2, ATT_D = 12 };

static void attention(Lab *l)
{
    Tensor o = rows(l, ATT_T, ATT_H * ATT_D), lse = rows(l, ATT_T, ATT_H), q = rows(l, ATT_T, ATT_H * ATT_D);
    Tensor k = rows(l, ATT_T, ATT_K * ATT_D), v = rows(l, ATT_T, ATT_K * ATT_D),
           starts = ints(l, 4, attention_starts);
    op_attention(&o, &lse, &q, &k, &v, &starts, ATT_D, 0.3);
    take(l, &o);
    take(l, &lse);
}

static void attention_backward(Lab *l)
{
    const int64_t HD = ATT_H * ATT_D, KD = ATT_K * ATT_D;
    Tensor o = rows(l, ATT_T, HD), lse = rows(l, ATT_T, ATT_H), q = rows(l, ATT_T, HD), k = rows(l, ATT_T, KD);
    Tensor v = rows(l, ATT_T, KD), starts = ints(l, 4, attention_starts), d_o = rows(l, ATT_T, HD);
    Tensor dq = rows(l, ATT_T, HD), dk = rows(l, ATT_T, KD), dv = rows(l, ATT_T, KD), delta = rows(l, ATT_T, ATT_H);
    op_attention(&o, &lse, &q, &k, &v, &starts, ATT_D, 0.3);
    op_attention_backward(&dq, &dk, &dv, &delta, &d_o, &o, &lse, &q, &k, &v, &starts, ATT_D, 0.3);
    take(l, &dq);
    take(l, &dk);
    take(l, &dv);
}

/* Ten pages for one sequence of 640 positions. */
static void paged(Lab *l, bool attend)
{
    enum { PAGES = 10, N = PAGES * KV_TILE };
    int32_t table[PAGES], seq[N] = {0}, pos[N];
    for (int i = 0; i < PAGES; i++)
        table[i] = (7 * i + 3) % PAGES;
    for (int i = 0; i < N; i++)
        pos[i] = i;
    Tensor k_pages = blank(l, DTYPE_F32, LAYOUT_KV_PAGE, 4, (int64_t[]){PAGES, ATT_K, ATT_D, KV_TILE});
    Tensor v_pages = blank(l, DTYPE_F32, LAYOUT_KV_PAGE, 4, (int64_t[]){PAGES, ATT_K, KV_TILE, ATT_D});
    Tensor k = rows(l, N, ATT_K * ATT_D), v = rows(l, N, ATT_K * ATT_D), q = rows(l, N, ATT_H * ATT_D);
    Tensor page = ints(l, PAGES, table), row_seq = ints(l, N, seq), row_pos = ints(l, N, pos),
           o = rows(l, N, ATT_H * ATT_D);
    page = tensor_view2(&page, 1, PAGES);
    op_kv_write(&k_pages, &v_pages, &k, &v, &page, &row_seq, &row_pos);
    if (attend)
        op_attention_paged(&o, &q, &k_pages, &v_pages, &page, &row_seq, &row_pos, ATT_D, 0.3);
    take(l, attend ? &o : &k_pages);
    take(l, attend ? &o : &v_pages);
}

static void kv_write(Lab *l)
{
    paged(l, false);
}

static void attention_paged(Lab *l)
{
    paged(l, true);
}

static void logprob(Lab *l)
{
    for (int64_t V = 3; V < 2000; V = 5 * V + 1) {
        Tensor logits = rows(l, 17, V), target = ids(l, 17, V), logp = rows(l, 17, 0), lse = rows(l, 17, 0);
        Tensor entropy = rows(l, 17, 0), hit = rows(l, 17, 0);
        op_logprob(&logp, &lse, &entropy, &hit, &logits, &target, 1 / 0.7);
        take(l, &logp);
        take(l, &lse);
        take(l, &entropy);
    }
}

static void logprob_backward(Lab *l)
{
    for (int64_t V = 3; V < 2000; V = 5 * V + 1) {
        Tensor logits = rows(l, 17, V), target = ids(l, 17, V), dlogp = rows(l, 17, 0), lse = positive(l, 17, 0);
        op_logprob_backward(&logits, &dlogp, &lse, &target, 1 / 0.7);
        take(l, &logits);
    }
}

static void sample(Lab *l)
{
    static const double inv_temp[] = {0, 1, 1 / 0.7};
    for (int i = 0; i < 3; i++) {
        Tensor id = ids(l, 40, 2), logp = rows(l, 40, 0), logits = rows(l, 40, 1200), keys = ids(l, 240, 1 << 20);
        Tensor inv = blank(l, DTYPE_F32, LAYOUT_ROWS, 1, (int64_t[]){40});
        for (int r = 0; r < 40; r++)
            ((float *)inv.data)[r] = (float)inv_temp[i];
        keys = tensor_view2(&keys, 40, 6);
        op_sample(&id, &logp, &logits, &keys, &inv);
        take(l, &id);
        take(l, &logp);
    }
}

static void rank_loss(Lab *l)
{
    Tensor loss = rows(l, 20, 0), dscores = rows(l, 40, 0), scores = rows(l, 40, 0), margin = rows(l, 20, 0),
           weight = rows(l, 20, 0);
    op_rank_loss(&loss, &dscores, &scores, &margin, &weight);
    take(l, &loss);
    take(l, &dscores);
}

static void bce_loss(Lab *l)
{
    Tensor loss = rows(l, 20, 0), dscores = rows(l, 20, 0), scores = rows(l, 20, 0), label = rows(l, 20, 0),
           weight = rows(l, 20, 0);
    for (int i = 0; i < 20; i++)
        ((float *)label.data)[i] = (float)(i % 2);
    op_bce_loss(&loss, &dscores, &scores, &label, &weight);
    take(l, &loss);
    take(l, &dscores);
}

static void policy_loss(Lab *l)
{
    Tensor loss = rows(l, 50, 0), dlogp = rows(l, 50, 0), ratio = rows(l, 50, 0), logp = rows(l, 50, 0),
           old = rows(l, 50, 0);
    Tensor adv = rows(l, 50, 0), weight = rows(l, 50, 0);
    op_policy_loss(&loss, &dlogp, &ratio, &logp, &old, &adv, &weight, 0.2);
    take(l, &loss);
    take(l, &dlogp);
    take(l, &ratio);
}

static void value_loss(Lab *l)
{
    for (int clipped = 0; clipped < 2; clipped++) {
        Tensor loss = rows(l, 50, 0), dvalue = rows(l, 50, 0), value = rows(l, 50, 0), old = rows(l, 50, 0);
        Tensor ret = rows(l, 50, 0), weight = rows(l, 50, 0);
        op_value_loss(&loss, &dvalue, &value, &old, &ret, &weight, 0.2 * clipped);
        take(l, &loss);
        take(l, &dvalue);
    }
}

static void sumsq(Lab *l)
{
    Tensor x = rows(l, 700, 100), partial = blank(l, DTYPE_F64, LAYOUT_ROWS, 1, (int64_t[]){2});
    op_sumsq(&partial, &x);
    take(l, &partial);
}

static void adamw(Lab *l)
{
    Tensor w = panel(l, 45, 13), m = panel(l, 45, 13), v = panel(l, 45, 13), g = panel(l, 45, 13);
    for (int64_t i = 0; i < tensor_slots(&v); i++)
        ((float *)v.data)[i] *= ((float *)v.data)[i];
    for (int step = 1; step <= 3; step++)
        op_adamw(&w, &m, &v, NULL, &g, (AdamwArgs){1e-3, 0.9, 0.95, 1e-8, 0.1, 0.5, step});
    take(l, &w);
    take(l, &m);
    take(l, &v);
}

#define EVERY(X)                                                                                                   \
    X(linear)                                                                                                      \
    X(linear_dx) X(linear_dw) X(embedding) X(embedding_backward) X(rmsnorm) X(rmsnorm_backward) X(add) X(swiglu)   \
        X(swiglu_backward) X(rope) X(convert) X(axpy) X(fill) X(gather_rows) X(scatter_rows) X(attention)          \
            X(attention_backward) X(kv_write) X(attention_paged) X(logprob) X(logprob_backward) X(sample)          \
                X(rank_loss) X(bce_loss) X(policy_loss) X(value_loss) X(sumsq) X(adamw)

static const struct {
    const char *name;
    void (*run)(Lab *l);
} ops[] = {
#define X(name) {#name, name},
    EVERY(X)
#undef X
};

static Device *open_device(CpuIsa isa, int threads)
{
    Device *dev;
    return device_open(&dev, &(DeviceOptions){"cpu", threads, isa}) == 0 ? dev : NULL;
}

static void hash_ops(Str *out, CpuIsa isa)
{
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        Lab l = {.dev = open_device(isa, 2), .state = i + 1};
        ops[i].run(&l);
        str_addf(out, "%-32s %016llx\n", ops[i].name, (unsigned long long)l.hash);
        while (l.n)
            free(l.block[--l.n]);
        device_close(l.dev);
    }
}

/* ---- whole models ------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    ModelConfig config;
} models[] = {
    {"gqa tied",
     {.architecture = "Llama",
      .head = HEAD_LM,
      .C = 48,
      .F = 72,
      .V = 91,
      .L = 3,
      .H = 4,
      .K = 2,
      .D = 12,
      .norm_eps = 1e-5,
      .rope_theta = 10000,
      .tied = true,
      .max_position = 700,
      .bos = 1,
      .pad = -1}},
    {"odd untied",
     {.architecture = "Llama",
      .head = HEAD_LM,
      .C = 37,
      .F = 51,
      .V = 601,
      .L = 2,
      .H = 3,
      .K = 3,
      .D = 16,
      .norm_eps = 1e-6,
      .rope_theta = 100000,
      .tied = false,
      .max_position = 700,
      .bos = 1,
      .pad = -1}},
    {"scalar",
     {.architecture = "Llama",
      .head = HEAD_SCALAR,
      .C = 40,
      .F = 64,
      .V = 53,
      .L = 2,
      .H = 8,
      .K = 1,
      .D = 8,
      .norm_eps = 1e-5,
      .rope_theta = 10000,
      .tied = false,
      .max_position = 700,
      .bos = 1,
      .pad = -1}},
};
static const int32_t starts[] = {0, 130, 131, 140, 206, 800}; /* one sequence past a chunk of keys */
enum { SEQS = 5, TOKENS = 800, PROMPTS = 4, SAMPLES = 3, NEW = 30 };

static void line(Str *out, const char *model, const char *what, uint64_t hash)
{
    char *name = xasprintf("%s: %s", model, what);
    str_addf(out, "%-32s %016llx\n", name, (unsigned long long)hash);
    free(name);
}

static uint64_t hash_tensors(const Tensor *t, int n)
{
    uint64_t hash = 0;
    for (int i = 0; i < n; i++)
        hash = hash64(t[i].data, tensor_bytes(&t[i]), hash);
    return hash;
}

/* A micro-batch of sequences [from, to). */
static void train(Fixture *f, const int32_t *id, int from, int to)
{
    if (f->config.head == HEAD_LM) {
        fixture_train(f, id, starts, from, to, TOKENS);
        return;
    }
    Tensor hidden = fixture_forward(f, id, starts, from, to), dhidden = acts_dhidden(f->acts, &f->batch);
    int64_t R = hidden.dim[0];
    for (int64_t r = 0; r < R; r++) {
        ((int32_t *)f->scalar.rows.data)[r] = (int32_t)r;
        ((float *)f->scalar.dscore.data)[r] = (float)(r % 5 - 2) / TOKENS;
    }
    scalar_head_forward(&f->scalar, &f->m, &f->p, R, &hidden);
    scalar_head_backward(&f->scalar, &f->m, &f->p, R, &dhidden, &f->g);
    model_backward(&f->m, &f->p, NULL, &f->batch, f->acts, &f->g);
}

static void update(Str *out, Fixture *f, const int32_t *id, const char *name)
{
    static const OptimConfig config = {.learning_rate = 1e-2,
                                       .schedule = SCHEDULE_CONSTANT,
                                       .beta1 = 0.9,
                                       .beta2 = 0.95,
                                       .eps = 1e-8,
                                       .weight_decay = 0.1,
                                       .max_grad_norm = 1};
    Optim optim = {0};
    Arena a;
    const char *bad;
    arena_init(&a, f->dev, ARENA_DEVICE, "optimizer");
    for (int pass = 0; pass < 2; pass++) {
        optim_alloc(&optim, &config, &f->p, &f->g, &a);
        if (!pass)
            assert_int_equal(arena_commit(&a), 0);
    }
    for (int step = 0; step < 3; step++) {
        train(f, id, 0, 2);
        train(f, id, 2, SEQS);
        if (step == 0)
            line(out, name, "gradients", hash_tensors(f->g.g, f->m.table.n));
        optim_step(&optim, 1e-2, &bad);
        assert_null(bad);
    }
    line(out, name, "weights after 3 updates", hash_tensors(f->p.w, f->m.table.n));
    optim_free(&optim);
    arena_free(&a);
}

/* What the LM head makes of every token, or the scalar head. */
static void forward(Str *out, Fixture *f, const int32_t *id, const char *name)
{
    Tensor hidden = fixture_forward(f, id, starts, 0, SEQS);
    line(out, name, "hidden states", hash_tensors(&hidden, 1));
    int32_t *at = f->config.head == HEAD_LM ? f->lm.rows.data : f->scalar.rows.data;
    for (int i = 0; i < TOKENS; i++)
        at[i] = i;
    if (f->config.head == HEAD_SCALAR) {
        scalar_head_forward(&f->scalar, &f->m, &f->p, TOKENS, &hidden);
        line(out, name, "scores", hash_tensors(&f->scalar.score, 1));
        return;
    }
    for (int i = 0; i < TOKENS; i++)
        ((int32_t *)f->lm.target.data)[i] = id[(i + 1) % TOKENS];
    lm_head_run(&f->lm, &f->m, &f->p, LM_LOGP, TOKENS, &hidden, NULL, NULL, 1 / 0.7, 0);
    line(out, name, "log-probabilities", hash_tensors(&f->lm.logp, 1));
}

static void generation(Str *out, Fixture *f, const int32_t *id, const char *name)
{
    enum { N = PROMPTS * SAMPLES };
    static int32_t answer[N][NEW];
    static float logp[N][NEW];
    GenRequest req[N];
    GenResult res[N];
    GenOptions o = {.seed = 5, .round = 2, .temperature = 0.8, .max_new_tokens = NEW};
    Generator *g = generator_new(&f->m, 5, 600, 64);
    Arena device, host;
    arena_init(&device, f->dev, ARENA_DEVICE, "rollout");
    arena_init(&host, f->dev, ARENA_HOST, "host");
    for (int pass = 0; pass < 2; pass++) {
        generator_alloc(g, &device, &host);
        if (!pass)
            assert_int_equal(arena_commit(&device) | arena_commit(&host), 0);
    }
    for (int i = 0; i < N; i++) {
        int prompt = i / SAMPLES, length = prompt == 3 ? 520 : 20 * prompt + 1;
        req[i] = (GenRequest){.prompt = id + 206,
                              .n_prompt = length,
                              .prompt_id = (uint64_t)prompt,
                              .sample = (uint32_t)(i % SAMPLES)};
        res[i] = (GenResult){.ids = answer[i], .logp = logp[i]};
    }
    assert_int_equal(generate(g, &f->p, req, N, &o, res, NULL, NULL, NULL), 0);
    line(out, name, "sampled tokens", hash64(answer, sizeof answer, 0));
    line(out, name, "their log-probabilities", hash64(logp, sizeof logp, 0));
    generator_free(g);
    arena_free(&device);
    arena_free(&host);
}

static void hash_models(Str *out, CpuIsa isa)
{
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        Fixture f = {.isa = isa, .config = models[i].config};
        int32_t id[TOKENS];
        Lab l = {.state = 1000 + i};
        for (int t = 0; t < TOKENS; t++)
            id[t] = (int32_t)((next(&l) + 2) / 4 * (float)f.config.V);
        fixture_open(&f, NULL, 2, TOKENS);
        forward(out, &f, id, models[i].name);
        update(out, &f, id, models[i].name);
        if (f.config.head == HEAD_LM)
            generation(out, &f, id, models[i].name);
        fixture_close(&f);
    }
}

/* ---- against the file --------------------------------------------------------------------------- */

static int count_lines(const char *text)
{
    int n = 0;
    for (; *text; text = strchr(text, '\n') + 1)
        n += *text != '#';
    return n;
}

/* Lines that are not in both. */
static int compare(const char *want, const char *got, const char *bodies)
{
    int bad = count_lines(want) != count_lines(got);
    for (const char *at = got, *end; *at; at = end + 1) {
        end = strchr(at, '\n');
        char *text = xstrndup(at, (size_t)(end + 1 - at));
        if (!strstr(want, text)) {
            bad++;
            print_error("%s: not in tests/golden/f32_hashes.txt: %s", bodies, text);
        }
        free(text);
    }
    return bad;
}

static void f32_is_that_of_the_first_round(void **state)
{
    (void)state;
    char *want;
    size_t n;
    int bad = 0;
    assert_int_equal(file_read("tests/golden/f32_hashes.txt", &want, &n), 0);
    for (CpuIsa isa = ISA_PLAIN; isa < ISA_COUNT; isa++) {
        Device *dev = open_device(isa, 1);
        Str got = {0};
        if (!dev) {
            print_message("skip bodies: %s\n", error_text());
            continue;
        }
        hash_ops(&got, isa);
        hash_models(&got, isa);
        bad += compare(want, str_get(&got), device_text(dev));
        device_close(dev);
        str_free(&got);
    }
    free(want);
    assert_int_equal(bad, 0);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "print") == 0) {
        Str out = {0};
        hash_ops(&out, ISA_AUTO);
        hash_models(&out, ISA_AUTO);
        fputs(str_get(&out), stdout);
        str_free(&out);
        return 0;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(f32_is_that_of_the_first_round)};
    return cmocka_run_group_tests_name("hashes", tests, NULL, NULL);
}
