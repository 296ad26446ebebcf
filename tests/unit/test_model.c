/* test_model.c - the model against transformers (tests/golden/make_model.py), and what must hold in
 * bits: packing, micro-batches, threads, the KV cache. */
#include "tests/unit/model_fixture.h"

#include "common/model/safetensors.h"

#include <math.h>
#include <stdio.h>

static const char *const causal[] = {"gqa_tied",    "gqa_untied", "mha",   "llama3",
                                     "linear_bias", "mistral",    "qwen2", "qwen3"};
static const char *const scalar[] = {"score", "qwen2_score"};

enum { MAX_TOKENS = 256 };

typedef struct {
    SafeTensors file;
    int32_t ids[64], starts[16];
    int n_ids, n_seqs;
} Golden;

static int64_t read_all(const Golden *g, const char *name, float *dst, int64_t max)
{
    const StTensor *t = safetensors_find(&g->file, name);
    if (!t)
        return 0;
    int64_t n = (int64_t)(t->end - t->begin) / 4;
    assert_true(n <= max);
    safetensors_read_f32(&g->file, t, 0, n, dst);
    return n;
}

static void golden_open(Golden *g, char *folder, const char *name)
{
    char path[256];
    float values[64];
    snprintf(folder, 128, "tests/golden/model/%s", name);
    snprintf(path, sizeof path, "%s/golden.safetensors", folder);
    if (safetensors_open(&g->file, path) < 0)
        fail_msg("%s", error_text());
    g->n_ids = (int)read_all(g, "ids", values, 64);
    for (int i = 0; i < g->n_ids; i++)
        g->ids[i] = (int32_t)values[i];
    g->n_seqs = (int)read_all(g, "starts", values, 16) - 1;
    for (int i = 0; i <= g->n_seqs; i++)
        g->starts[i] = (int32_t)values[i];
}

static void assert_close(const char *name, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s: %.9g, expected %.9g, off by %.2g > %.2g", name, got, want, fabs(got - want),
                 tolerance);
}

/* |got - want| <= rel |want| in the 2-norm. */
static void assert_norm_close(const char *name, const float *got, const float *want, int64_t n,
                              double rel)
{
    double diff = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        diff += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        size += (double)want[i] * want[i];
    }
    if (!(sqrt(diff) <= rel * sqrt(size)))
        fail_msg("%s: off by %.3g of its norm %.3g", name, sqrt(diff / size), sqrt(size));
}

/* ---- golden --------------------------------------------------------------------------------- */

/* The gradient of each parameter: whole, or by its norm and three products. */
static void gradients_check(const Golden *gold, Fixture *f)
{
    static float got[8192], want[8192];
    for (int i = 0; i < f->m.table.n; i++) {
        if (!grads_is_own(&f->m.table, i))
            continue;
        const ParamDef *d = &f->m.table.def[i];
        char name[128];
        int64_t n = tensor_len(&f->g.g[i]);
        param_fetch(&f->g.g[i], 0, n, got);
        snprintf(name, sizeof name, "grad.%s", d->hf_name);
        if (read_all(gold, name, want, n) == n) {
            assert_norm_close(name, got, want, n, 1e-5);
            continue;
        }
        snprintf(name, sizeof name, "probe.%s", d->hf_name);
        assert_int_equal(read_all(gold, name, want, 4), 4);
        double norm = 0, probe[3] = {0};
        for (int64_t e = 0; e < n; e++) {
            norm += (double)got[e] * got[e];
            for (int k = 0; k < 3; k++)
                probe[k] += got[e] * cos(0.37 * (double)e + k);
        }
        /* |cos| <= 1, so an error of norm r |g| moves a product by at most r |g| sqrt(n) */
        assert_close(name, sqrt(norm), want[0], 1e-5 * want[0]);
        for (int k = 0; k < 3; k++)
            assert_close(name, probe[k], want[k + 1], 1e-5 * want[0] * 3);
    }
}

static void logits_check(const Golden *gold, Fixture *f, const Tensor *hidden)
{
    static float want[64 * 128], got[64 * 128];
    int64_t V = f->config.head == HEAD_LM ? f->config.V : 1;
    assert_int_equal(read_all(gold, "logits", want, 64 * 128), gold->n_ids * V);
    Tensor logits = tensor_make2(got, f->dev, DTYPE_F32, gold->n_ids, V);
    lm_head_logits(&logits, hidden, &f->m, &f->p);
    assert_norm_close("logits", got, want, gold->n_ids * V, 2e-6);
    double largest = 0;
    for (int64_t i = 0; i < gold->n_ids * V; i++)
        largest = fmax(largest, fabs(want[i]));
    for (int64_t i = 0; i < gold->n_ids * V; i++)
        assert_close("logit", got[i], want[i], 2e-5 * largest);
}

static void adamw_step(Fixture *f, float *moments, int64_t step)
{
    int64_t at = 0;
    grads_finish(&f->g);
    for (int i = 0; i < f->m.table.n; i++) {
        if (!grads_is_own(&f->m.table, i))
            continue;
        Tensor m = f->p.w[i], v = m;
        m.data = moments + at;
        at += tensor_slots(&m);
        v.data = moments + at;
        at += tensor_slots(&v);
        op_adamw(&f->p.w[i], &m, &v, NULL, &f->g.g[i],
                 (AdamwArgs){.lr = 1e-3,
                             .beta1 = 0.9,
                             .beta2 = 0.95,
                             .eps = 1e-5,
                             .decay = f->m.table.def[i].decay ? 0.1 : 0,
                             .grad_scale = 1,
                             .step = step});
    }
    grads_zero(&f->g);
}

static void golden_causal(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof causal / sizeof *causal; i++) {
        Golden gold = {0};
        Fixture f = {0};
        char folder[128];
        float loss[2], losses[22];
        golden_open(&gold, folder, causal[i]);
        fixture_open(&f, folder, 2, MAX_TOKENS);
        int64_t count = gold.n_ids - gold.n_seqs;
        Tensor hidden = fixture_forward(&f, gold.ids, gold.starts, 0, gold.n_seqs);
        logits_check(&gold, &f, &hidden);

        double got = fixture_train(&f, gold.ids, gold.starts, 0, gold.n_seqs, count);
        assert_int_equal(read_all(&gold, "loss", loss, 2), 2);
        assert_close("loss", got, (double)loss[0] + loss[1], 1e-6);
        grads_finish(&f.g);
        grads_finish(&f.g); /* adds nothing the second time */
        gradients_check(&gold, &f);

        float *moments = xcalloc(100000, sizeof *moments);
        assert_int_equal(read_all(&gold, "losses", losses, 22), 22);
        grads_zero(&f.g);
        for (int step = 0; step <= 10; step++) {
            got = fixture_train(&f, gold.ids, gold.starts, 0, gold.n_seqs, count);
            assert_close("loss of a step", got, (double)losses[2 * step] + losses[2 * step + 1],
                         1e-6);
            adamw_step(&f, moments, step + 1);
        }
        free(moments);
        fixture_close(&f);
        safetensors_close(&gold.file);
    }
}

static void golden_score(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof scalar / sizeof *scalar; i++) {
        Golden gold = {0};
        Fixture f = {0};
        char folder[128];
        golden_open(&gold, folder, scalar[i]);
        fixture_open(&f, folder, 2, MAX_TOKENS);
        Tensor hidden = fixture_forward(&f, gold.ids, gold.starts, 0, gold.n_seqs);
        logits_check(&gold, &f, &hidden);

        Tensor dhidden = acts_dhidden(f.acts, &f.batch);
        double sum = 0;
        float loss[2];
        for (int s = 0; s < gold.n_seqs; s++) {
            ((int32_t *)f.scalar.rows.data)[s] = gold.starts[s + 1] - 1;
            ((float *)f.scalar.dscore.data)[s] = (float)(s + 1);
        }
        scalar_head_forward(&f.scalar, &f.m, &f.p, gold.n_seqs, &hidden);
        for (int s = 0; s < gold.n_seqs; s++)
            sum += (s + 1) * (double)((float *)f.scalar.score.data)[s];
        assert_int_equal(read_all(&gold, "loss", loss, 2), 2);
        assert_close("weighted scores", sum, (double)loss[0] + loss[1], 2e-5);
        scalar_head_backward(&f.scalar, &f.m, &f.p, gold.n_seqs, &dhidden, &f.g);
        model_backward(&f.m, &f.p, NULL, &f.batch, f.acts, &f.g);
        grads_finish(&f.g);
        gradients_check(&gold, &f);
        fixture_close(&f);
        safetensors_close(&gold.file);
    }
}

/* ---- bits ----------------------------------------------------------------------------------- */

/* Tied, more layers than the golden ones, sequences longer than a key tile and a norm block. */
static ModelConfig bits_config = {.architecture = "Llama",
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
                                        .max_position = 160,
                                        .bos = 1,
                                        .pad = -1,
                                        .eos = {2},
                                        .n_eos = 1};
static const int32_t bits_starts[] = {0, 130, 131, 140, 206, 210};
enum { BITS_SEQS = 5, BITS_TOKENS = 210 };

static size_t grads_copy(const Grads *g, char **to)
{
    size_t n = 0;
    for (int i = 0; i < g->table->n; i++)
        n += tensor_bytes(&g->g[i]);
    char *at = *to = xmalloc(n);
    for (int i = 0; i < g->table->n; i++) {
        size_t bytes = tensor_bytes(&g->g[i]);
        memcpy(at, g->g[i].data, bytes);
        at += bytes;
    }
    return n;
}

/* The same tests on a model with everything that some family adds to a layer. */
static int with_extras(void **state)
{
    (void)state;
    bits_config.qkv_bias = bits_config.o_bias = bits_config.qk_norm = true;
    bits_config.rope = (RopeScaling){ROPE_LLAMA3, 4, 1, 4, 32};
    return 0;
}

static int without_extras(void **state)
{
    (void)state;
    bits_config.qkv_bias = bits_config.o_bias = bits_config.qk_norm = false;
    bits_config.rope.kind = ROPE_DEFAULT;
    return 0;
}

static void fill_around_one(void *ctx, int64_t first, int64_t n, real_t *dst)
{
    Rng *r = ctx;
    (void)first;
    for (int64_t i = 0; i < n; i++)
        dst[i] = (real_t)(1 + 0.3 * rng_next_normal(r));
}

/* Random weights, vectors too: biases of 0 and norms of 1 hide mistakes. */
static void bits_open(Fixture *f, int threads)
{
    Rng r = rng_make(3, RNG_TEST, 0, 0, 0);
    fixture_open(f, NULL, threads, MAX_TOKENS);
    for (int i = 0; i < f->m.table.n; i++)
        if (!f->m.table.def[i].dim[1])
            param_store(&f->p.w[i], fill_around_one, &r);
}

/* Gradients of all sequences, cut into micro-batches at the given sequences. */
static size_t cut_grads(const int *cuts, int threads, char **to)
{
    Fixture f = {.config = bits_config};
    int32_t ids[BITS_TOKENS];
    random_ids(ids, BITS_TOKENS, bits_config.V, 5);
    bits_open(&f, threads);
    for (; cuts[1] >= 0; cuts++)
        fixture_train(&f, ids, bits_starts, cuts[0], cuts[1], BITS_TOKENS - BITS_SEQS);
    size_t n = grads_copy(&f.g, to);
    fixture_close(&f);
    return n;
}

static void bits_of_cuts_and_threads(void **state)
{
    (void)state;
    static const int cuts[][BITS_SEQS + 2] = {
        {0, 5, -1}, {0, 1, 5, -1}, {0, 1, 2, 3, 4, 5, -1}, {0, 3, 5, -1}};
    char *first, *other;
    size_t n = cut_grads(cuts[0], 1, &first);
    double size = 0;
    for (size_t i = 0; i < n / 4; i++)
        size += fabs(((float *)first)[i]);
    assert_true(size > 0 && isfinite(size));
    for (int threads = 1; threads <= 3; threads++)
        for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
            assert_int_equal(cut_grads(cuts[c], threads, &other), n);
            assert_memory_equal(first, other, n);
            free(other);
        }
    free(first);
}

static void bits_of_packing(void **state)
{
    (void)state;
    Fixture f = {.config = bits_config};
    int32_t ids[BITS_TOKENS];
    random_ids(ids, BITS_TOKENS, bits_config.V, 6);
    bits_open(&f, 2);
    Tensor hidden = fixture_forward(&f, ids, bits_starts, 0, BITS_SEQS);
    float *packed = xmalloc(tensor_bytes(&hidden));
    memcpy(packed, hidden.data, tensor_bytes(&hidden));
    for (int s = 0; s < BITS_SEQS; s++) {
        hidden = fixture_forward(&f, ids, bits_starts, s, s + 1);
        assert_memory_equal(hidden.data, packed + bits_starts[s] * bits_config.C,
                            tensor_bytes(&hidden));
    }
    free(packed);
    fixture_close(&f);
}

/* Cuts of the rows into calls: every call takes up to `chunk` rows of each unfinished sequence, as
 * many as fit into `rows` rows. */
static void extend_check(Fixture *f, KvCache *kv, ExtendWork *w, const int32_t *ids,
                         const float *want, int chunk, int rows)
{
    int32_t id[MAX_TOKENS], seq[MAX_TOKENS], pos[MAX_TOKENS], at[BITS_SEQS] = {0};
    for (int left = BITS_TOKENS; left > 0;) {
        int R = 0;
        for (int s = 0; s < BITS_SEQS; s++)
            for (int i = 0; i < chunk && R < rows && at[s] < bits_starts[s + 1] - bits_starts[s];
                 i++) {
                id[R] = ids[bits_starts[s] + at[s]];
                seq[R] = (s + 2) % BITS_SEQS; /* slots in another order than the sequences */
                pos[R++] = at[s]++;
            }
        Tensor hidden = model_extend(&f->m, &f->p, NULL, kv, w, id, seq, pos, R);
        for (int r = 0; r < R; r++) {
            int s = (seq[r] + BITS_SEQS - 2) % BITS_SEQS;
            assert_memory_equal((float *)hidden.data + r * bits_config.C,
                                want + (bits_starts[s] + pos[r]) * bits_config.C,
                                (size_t)bits_config.C * sizeof(float));
        }
        left -= R;
    }
}

/* Rows [from, to) of ids into `slot`; their hidden states. */
static Tensor extend_slot(Fixture *f, KvCache *kv, ExtendWork *w, const int32_t *ids, int slot,
                          int from, int to)
{
    int32_t seq[MAX_TOKENS], pos[MAX_TOKENS];
    for (int i = from; i < to; i++) {
        seq[i - from] = slot;
        pos[i - from] = i;
    }
    return model_extend(&f->m, &f->p, NULL, kv, w, ids + from, seq, pos, to - from);
}

/* Pages of 64: slots 0, 1 and 2 share a whole page and the beginning of a second one, which is
 * copied for whoever writes into it while others refer to it. */
static void shared_pages_are_copied_on_write(void **state)
{
    (void)state;
    enum { SLOTS = 3, FIRST = 100, COMMON = 70, PER_SLOT = 3 };
    Fixture f = {.config = bits_config};
    KvCache kv = {0};
    Arena a;
    int32_t ids[MAX_TOKENS] = {0}, other[MAX_TOKENS], starts[2] = {0, FIRST};
    bits_open(&f, 2);
    random_ids(ids, FIRST, bits_config.V, 8);
    memcpy(other, ids, sizeof ids);
    random_ids(other + COMMON, FIRST - COMMON, bits_config.V, 9);
    const size_t row = (size_t)bits_config.C * sizeof(float);
    float *want[2] = {xmalloc(FIRST * row), xmalloc(FIRST * row)};
    memcpy(want[0], fixture_forward(&f, ids, starts, 0, 1).data, FIRST * row);
    memcpy(want[1], fixture_forward(&f, other, starts, 0, 1).data, FIRST * row);
    ExtendWork *w = extend_new(&f.m, FIRST);
    arena_init(&a, f.dev, ARENA_DEVICE, "cache");
    for (int pass = 0; pass < 2; pass++) {
        kv_alloc(&kv, &f.m, &a, SLOTS, 130);
        extend_alloc(w, &a);
        if (!pass)
            assert_int_equal(arena_commit(&a), 0);
    }
    assert_int_equal(kv.n_free, SLOTS * PER_SLOT);
    extend_slot(&f, &kv, w, ids, 0, 0, FIRST - 1);
    kv_share(&kv, 1, 0, COMMON);
    kv_share(&kv, 2, 0, COMMON);
    assert_int_equal(kv.n_free, SLOTS * PER_SLOT - 2); /* one set of pages for all three */

    Tensor h = extend_slot(&f, &kv, w, other, 1, COMMON, FIRST);
    assert_memory_equal(h.data, want[1] + COMMON * bits_config.C, (FIRST - COMMON) * row);
    assert_int_equal(kv.n_free, SLOTS * PER_SLOT - 3); /* its own second page */
    h = extend_slot(&f, &kv, w, ids, 0, FIRST - 1, FIRST); /* not what slot 1 wrote */
    assert_memory_equal(h.data, want[0] + (FIRST - 1) * bits_config.C, row);
    kv_share(&kv, 0, 0, 0);
    h = extend_slot(&f, &kv, w, other, 2, COMMON, FIRST); /* the last holder writes in place */
    assert_memory_equal(h.data, want[1] + COMMON * bits_config.C, (FIRST - COMMON) * row);
    assert_int_equal(kv.n_free, SLOTS * PER_SLOT - 3);

    kv_share(&kv, 2, 2, 64); /* cut to the shared page */
    assert_int_equal(kv.n_free, SLOTS * PER_SLOT - 2);
    kv_share(&kv, 1, 1, 0);
    kv_share(&kv, 2, 2, 0);
    assert_int_equal(kv.n_free, SLOTS * PER_SLOT);
    for (int s = 0; s < SLOTS; s++) /* every page of every slot at once */
        for (int from = 0; from < 130; from += 65)
            extend_slot(&f, &kv, w, other, s, from, from + 65);
    assert_int_equal(kv.n_free, 0);
    extend_free(w);
    kv_free(&kv);
    arena_free(&a);
    free(want[0]);
    free(want[1]);
    fixture_close(&f);
}

static void bits_of_extend(void **state)
{
    (void)state;
    Fixture f = {.config = bits_config};
    KvCache kv = {0};
    Arena a;
    int32_t ids[BITS_TOKENS];
    random_ids(ids, BITS_TOKENS, bits_config.V, 7);
    bits_open(&f, 2);
    ExtendWork *w = extend_new(&f.m, BITS_TOKENS);
    arena_init(&a, f.dev, ARENA_DEVICE, "cache");
    for (int pass = 0; pass < 2; pass++) {
        kv_alloc(&kv, &f.m, &a, BITS_SEQS, 130);
        extend_alloc(w, &a);
        if (!pass)
            assert_int_equal(arena_commit(&a), 0);
    }
    Tensor hidden = fixture_forward(&f, ids, bits_starts, 0, BITS_SEQS);
    extend_check(&f, &kv, w, ids, hidden.data, BITS_TOKENS, BITS_TOKENS);
    extend_check(&f, &kv, w, ids, hidden.data, 1, BITS_TOKENS);
    extend_check(&f, &kv, w, ids, hidden.data, 7, 20);
    extend_check(&f, &kv, w, ids, hidden.data, 65, 64);
    extend_free(w);
    kv_free(&kv);
    kv_free(&kv);
    arena_free(&a);
    fixture_close(&f);
}

/* lm_head_run: the chunking leaves no trace, and temperature reaches logp and gradient. */
static void head_chunks(void **state)
{
    (void)state;
    Fixture f = {.config = bits_config};
    int32_t ids[BITS_TOKENS];
    random_ids(ids, BITS_TOKENS, bits_config.V, 8);
    fixture_open(&f, NULL, 2, MAX_TOKENS);
    Tensor hidden = fixture_forward(&f, ids, bits_starts, 0, BITS_SEQS);
    int32_t *rows = f.lm.rows.data, *target = f.lm.target.data;
    float logp[BITS_TOKENS];
    for (int r = 0; r < BITS_TOKENS; r++) {
        rows[r] = BITS_TOKENS - 1 - r;
        target[r] = ids[r];
    }
    lm_head_run(&f.lm, &f.m, &f.p, LM_LOGP, BITS_TOKENS, &hidden, NULL, NULL, 1 / 0.7, 0);
    memcpy(logp, f.lm.logp.data, sizeof logp);
    float x[91];
    for (int r = 0; r < BITS_TOKENS; r++) {
        Tensor row = tensor_slice(&hidden, rows[r], 1),
               logits = tensor_make2(x, f.dev, DTYPE_F32, 1, 91);
        lm_head_logits(&logits, &row, &f.m, &f.p);
        double sum = 0;
        for (int v = 0; v < 91; v++)
            sum += exp((x[v] - x[target[r]]) / 0.7);
        assert_close("logp", logp[r], -log(sum), 2e-5);
    }
    lm_head_run(&f.lm, &f.m, &f.p, LM_LOGP, 0, &hidden, NULL, NULL, 1, 0); /* no rows: nothing */
    fixture_close(&f);
}

/* ---- the table ------------------------------------------------------------------------------ */

static void table_and_init(void **state)
{
    (void)state;
    Fixture f = {.config = bits_config};
    fixture_open(&f, NULL, 1, 8);
    const ParamTable *t = &f.m.table;
    /* 91 * 48 + 3 * (48 + 48 * 48 + 2 * 24 * 48 + 48 * 48 + 48 + 3 * 72 * 48) + 48 */
    assert_int_equal(param_table_count(t), 4368 + 3 * 17376 + 48);
    assert_string_equal(t->def[param_layer(t, 2, P_DOWN)].hf_name,
                        "model.layers.2.mlp.down_proj.weight");
    assert_string_equal(t->def[t->head].hf_name, "model.embed_tokens.weight");
    assert_ptr_equal(f.p.w[t->embed].data, f.p.w[t->head].data);
    assert_false(t->def[t->final_norm].decay);
    assert_true(t->def[t->head].decay);
    float w[4368];
    param_fetch(&f.p.w[t->head], 0, 4368, w);
    double sum = 0, squares = 0;
    for (int i = 0; i < 4368; i++) {
        sum += w[i];
        squares += (double)w[i] * w[i];
    }
    /* standard errors: mean 0.05 / sqrt(4368) = 7.6e-4, std 0.05 / sqrt(2 * 4368) = 5.3e-4; 4 of
     * them */
    assert_close("mean", sum / 4368, 0, 3.1e-3);
    assert_close("std", sqrt(squares / 4368), 0.05, 2.2e-3);
    float part[100]; /* a cut that begins inside a row and crosses rows */
    param_fetch(&f.p.w[t->head], 1501, 100, part);
    assert_memory_equal(part, w + 1501, sizeof part);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_causal),   cmocka_unit_test(golden_score),
        cmocka_unit_test(bits_of_packing), cmocka_unit_test(bits_of_cuts_and_threads),
        cmocka_unit_test(bits_of_extend),
        cmocka_unit_test(shared_pages_are_copied_on_write),  cmocka_unit_test(head_chunks),
        cmocka_unit_test(table_and_init),
        cmocka_unit_test_setup_teardown(bits_of_packing, with_extras, without_extras),
        cmocka_unit_test_setup_teardown(bits_of_cuts_and_threads, with_extras, without_extras),
        cmocka_unit_test_setup_teardown(bits_of_extend, with_extras, without_extras),
        cmocka_unit_test_setup_teardown(shared_pages_are_copied_on_write, with_extras, without_extras),
    };
    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
