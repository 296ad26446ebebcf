/* test_dtype.c - parameters in bf16: copies that products read are their masters rounded, after every way
 * of writing a master; a frozen set holds the same copies and nothing else; and a model trains in bf16
 * along the curve of f32. That its numbers are right is test_model.c's. */
#include "tests/unit/model_fixture.h"

#include "common/base/file.h"
#include "common/train/checkpoint.h"

#include <math.h>

/* Odd widths: the last of a pair is alone. */
static const ModelConfig config = {.architecture = "Llama",
                                   .head = HEAD_LM,
                                   .C = 45,
                                   .F = 71,
                                   .V = 91,
                                   .L = 2,
                                   .H = 3,
                                   .K = 1,
                                   .D = 12,
                                   .norm_eps = 1e-5,
                                   .rope_theta = 10000,
                                   .tied = true,
                                   .max_position = 64,
                                   .bos = 1,
                                   .pad = -1,
                                   .eos = {2},
                                   .n_eos = 1};

enum { MAX_TOKENS = 64 };

static void open_in(Fixture *f, DType dtype, bool tied)
{
    *f = (Fixture){.config = config, .dtype = dtype};
    f->config.tied = tied;
    fixture_open(f, NULL, 1, MAX_TOKENS);
}

/* Bits of a master rounded by hand: v = m * 2^e with |m| in [1, 2) has 7 bits behind the point. */
static float rounded(float v)
{
    int e;
    float m = frexpf(v, &e);
    return ldexpf(rintf(m * 256), e - 8); /* to nearest, ties to even */
}

/* Every copy is its rounded master, element by element; the number of copies. */
static int assert_fresh(const ParamSet *p)
{
    int copies = 0;
    for (int i = 0; i < p->table->n; i++) {
        int64_t n = tensor_len(&p->w[i]);
        if (!param_copy(p, i)) {
            assert_ptr_equal(p->in[i].data, p->w[i].data);
            continue;
        }
        float *master = xmalloc((size_t)n * sizeof *master), *copy = xmalloc((size_t)n * sizeof *copy);
        param_fetch(&p->w[i], 0, n, master);
        param_fetch(&p->in[i], 0, n, copy);
        for (int64_t e = 0; e < n; e++)
            if (copy[e] != rounded(master[e]))
                fail_msg("%s[%lld]: the copy is %a, its master %a", p->table->def[i].name, (long long)e,
                         (double)copy[e], (double)master[e]);
        free(master);
        free(copy);
        copies++;
    }
    return copies;
}

static void copies_follow_their_masters(void **state)
{
    (void)state;
    enum { MATRICES = 2 * 7 };
    for (int tied = 0; tied < 2; tied++) {
        Fixture f, g;
        open_in(&f, DTYPE_BF16, tied);
        open_in(&g, DTYPE_BF16, tied);
        assert_int_equal(assert_fresh(&f.p), MATRICES + 2); /* after init; a tied pair has two entries */
        params_init_random(&g.p, 5);
        params_copy(&f.p, &g.p);
        assert_int_equal(assert_fresh(&f.p), MATRICES + 2);
        for (int i = 0; i < f.p.table->n; i++)
            assert_memory_equal(f.p.in[i].data, g.p.in[i].data, tensor_bytes(&g.p.in[i]));
        op_fill(&f.p.w[f.m.table.head], 1.00390625); /* 1 + 2^-8: half way, to the even 1 */
        params_refresh(&f.p);
        assert_fresh(&f.p);
        fixture_close(&f);
        fixture_close(&g);
    }
}

static void loading_makes_the_copies(void **state)
{
    (void)state;
    static const char *const folders[] = {"tests/golden/bf16/tied", "tests/golden/bf16/untied",
                                          "tests/golden/bf16/score", "tests/golden/model/mha"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        Fixture f = {.dtype = DTYPE_BF16};
        fixture_open(&f, folders[i], 1, MAX_TOKENS);
        assert_true(assert_fresh(&f.p) >= 15);
        if (f.config.head == HEAD_SCALAR)
            assert_int_equal(f.p.in[f.m.table.head].dtype, DTYPE_F32);
        fixture_close(&f);
    }
}

static void random_grads(Grads *g)
{
    Rng r = rng_make(3, RNG_TEST, 0, 0, 0);
    for (int i = 0; i < g->table->n; i++)
        for (int64_t e = 0; e < tensor_slots(&g->g[i]); e++) /* padding lanes move too, and no one looks */
            ((float *)g->g[i].data)[e] = (float)rng_next_normal(&r);
}

typedef struct {
    Optim o;
    OptimConfig c;
    Arena a;
} Updates;

static void updates_open(Updates *u, Fixture *f)
{
    u->c = (OptimConfig){.learning_rate = 1, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-5, .weight_decay = 0.1,
                         .max_grad_norm = 0};
    arena_init(&u->a, f->dev, ARENA_DEVICE, "optimizer");
    optim_alloc(&u->o, &u->c, &f->p, &f->g, &u->a);
    assert_int_equal(arena_commit(&u->a), 0);
    optim_alloc(&u->o, &u->c, &f->p, &f->g, &u->a);
}

static void updates_close(Updates *u)
{
    optim_free(&u->o);
    arena_free(&u->a);
}

static void updates_and_checkpoints_too(void **state)
{
    (void)state;
    for (int tied = 0; tied < 2; tied++) {
        char dir[] = "/tmp/test_dtype.XXXXXX";
        const char *bad;
        BlobList l = {0};
        Updates u = {0};
        Fixture f;
        open_in(&f, DTYPE_BF16, tied);
        updates_open(&u, &f);
        assert_non_null(mkdtemp(dir));
        blob_add_params(&l, "policy", &f.p);
        assert_int_equal(checkpoint_save(dir, 1, &l, "seed: 1\n"), 0);
        random_grads(&f.g);
        uint16_t *before = xmalloc(tensor_bytes(&f.p.in[f.m.table.head]));
        memcpy(before, f.p.in[f.m.table.head].data, tensor_bytes(&f.p.in[f.m.table.head]));
        optim_step(&u.o, 0.1, &bad);
        assert_null(bad);
        assert_fresh(&f.p);
        assert_memory_not_equal(before, f.p.in[f.m.table.head].data, tensor_bytes(&f.p.in[f.m.table.head]));
        assert_int_equal(checkpoint_load(dir, 1, &l), 0);
        assert_fresh(&f.p);
        assert_memory_equal(before, f.p.in[f.m.table.head].data, tensor_bytes(&f.p.in[f.m.table.head]));
        free(before);
        blob_list_free(&l);
        assert_int_equal(dir_remove(dir), 0);
        updates_close(&u);
        fixture_close(&f);
    }
}

static size_t set_bytes(const ModelConfig *c, Device *dev, bool frozen, DType dtype)
{
    Arena a;
    ParamSet p = {0};
    ParamTable t;
    param_table_init(&t, c, dtype, false);
    arena_init(&a, dev, ARENA_DEVICE, "set");
    params_alloc(&p, &t, &a, "set", frozen);
    params_free(&p);
    param_table_free(&t);
    return arena_planned(&a);
}

/* A frozen set: loaded, copied from masters or exported, the copies of a trained one and half its bytes. */
static void frozen_sets_hold_copies_alone(void **state)
{
    (void)state;
    static const char *const folders[] = {"tests/golden/bf16/tied", "tests/golden/bf16/untied",
                                          "tests/golden/bf16/score"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        Fixture f = {.dtype = DTYPE_BF16};
        ParamSet loaded = {0}, copied = {0};
        Arena a;
        fixture_open(&f, folders[i], 1, MAX_TOKENS);
        arena_init(&a, f.dev, ARENA_DEVICE, "frozen");
        for (int pass = 0; pass < 2; pass++) {
            params_alloc(&loaded, &f.m.table, &a, "reference", true);
            params_alloc(&copied, &f.m.table, &a, "reference", true);
            if (!pass)
                assert_int_equal(arena_commit(&a), 0);
        }
        assert_int_equal(hf_load_params(&loaded, folders[i], HEAD_AS_STORED, 0), 0);
        params_copy(&copied, &f.p);
        for (int k = 0; k < f.m.table.n; k++) {
            assert_null(param_copy(&loaded, k));
            assert_int_equal(loaded.in[k].dtype, f.p.in[k].dtype);
            assert_memory_equal(loaded.in[k].data, f.p.in[k].data, tensor_bytes(&f.p.in[k]));
            assert_memory_equal(copied.in[k].data, f.p.in[k].data, tensor_bytes(&f.p.in[k]));
        }
        params_free(&loaded);
        params_free(&copied);
        arena_free(&a);
        fixture_close(&f);
    }
    Device *dev;
    assert_int_equal(device_open(&dev, &(DeviceOptions){.name = "cpu", .threads = 1}), 0);
    ModelConfig large = config;
    large.C = large.H * large.D;
    large.F = 512;
    large.V = 4096;
    double f32 = (double)set_bytes(&large, dev, true, DTYPE_F32), half = (double)set_bytes(&large, dev, true, DTYPE_BF16);
    double trained = (double)set_bytes(&large, dev, false, DTYPE_BF16);
    assert_true(half / f32 > 0.5 && half / f32 < 0.51); /* vectors stay f32 */
    assert_true(trained / f32 > 1.49 && trained / f32 < 1.51);
    device_close(dev);
}

/* Elements go in and out of both layouts whatever the dtype, a few at a time. */
static void elements_of_bf16(void **state)
{
    (void)state;
    for (int tied = 0; tied < 2; tied++) { /* the embedding: PANEL, then ROWS */
        Fixture f;
        open_in(&f, DTYPE_BF16, tied);
        const Tensor *w = &f.p.w[f.m.table.embed], *in = &f.p.in[f.m.table.embed];
        enum { N = 91 * 45 };
        static float all[N], part[N];
        assert_int_equal(in->dtype, DTYPE_BF16);
        assert_int_equal(in->layout, tied ? LAYOUT_PANEL : LAYOUT_ROWS);
        param_fetch(in, 0, N, all);
        param_fetch(w, 0, N, part);
        for (int e = 0; e < N; e++)
            assert_true(all[e] == rounded(part[e]));
        param_fetch(in, 1501, 1000, part);
        assert_memory_equal(part, all + 1501, 1000 * sizeof *part);
        fixture_close(&f);
    }
}

/* The same data and seed for 60 steps in both dtypes; the losses. */
static void train(DType dtype, double *loss)
{
    enum { STEPS = 60, SEQS = 4, LEN = 16 };
    static const int32_t starts[] = {0, 16, 32, 48, 64};
    const char *bad;
    Updates u = {0};
    Fixture f;
    open_in(&f, dtype, true);
    updates_open(&u, &f);
    for (int step = 0; step < STEPS; step++) {
        int32_t ids[SEQS * LEN];
        for (int i = 0; i < SEQS * LEN; i++) /* counting by a step that the first two ids show */
            ids[i] = 3 + (step * 7 + i / LEN * 11 + i % LEN * (1 + (step + i / LEN) % 3)) % 80;
        loss[step] = fixture_train(&f, ids, starts, 0, SEQS, SEQS * (LEN - 1));
        optim_step(&u.o, 3e-3, &bad);
        assert_null(bad);
    }
    updates_close(&u);
    fixture_close(&f);
}

/* bf16 has 8 bits of mantissa: a weight or an activation moves by a relative 2^-9 at most. Both curves fall from
 * ln 91 = 4.5 to below 0.6 of it, and never are 2 % apart (measured: 0.6 %). */
static void learns_like_f32(void **state)
{
    (void)state;
    double f32[60], bf16[60], apart = 0;
    train(DTYPE_F32, f32);
    train(DTYPE_BF16, bf16);
    for (int i = 0; i < 60; i++)
        apart = fmax(apart, fabs(bf16[i] / f32[i] - 1));
    if (!(apart > 0 && apart < 0.02 && f32[59] < 0.6 * f32[0] && bf16[59] < 0.6 * bf16[0]))
        fail_msg("the curves are %.3g apart, f32 from %.4g to %.4g, bf16 from %.4g to %.4g", apart, f32[0],
                 f32[59], bf16[0], bf16[59]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_follow_their_masters), cmocka_unit_test(loading_makes_the_copies),
        cmocka_unit_test(updates_and_checkpoints_too), cmocka_unit_test(frozen_sets_hold_copies_alone),
        cmocka_unit_test(elements_of_bf16),            cmocka_unit_test(learns_like_f32),
    };
    return cmocka_run_group_tests_name("dtype", tests, NULL, NULL);
}
