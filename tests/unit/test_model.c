/* test_model.c - the model against transformers (tests/golden/make_model.py), in bf16 against PyTorch in
 * double that rounds what products read (make_bf16.py), and what must hold in bits in both: packing,
 * micro-batches, threads, activations computed again, the KV cache. */
#include "tests/unit/golden.h"

/* Losses after steps in bf16: once weights have moved, a number next to a boundary of the rounding may fall to
 * either side in f32, some of 6,000 in ten steps, each worth 2^-8 of itself. They come down by 0.7. */
static const struct {
    const char *root, *name;
    DType dtype;
    double of_steps; /* bound of the ten losses */
} causal[] = {{"tests/golden/model", "gqa_tied", DTYPE_F32, 1e-6},
              {"tests/golden/model", "gqa_untied", DTYPE_F32, 1e-6},
              {"tests/golden/model", "mha", DTYPE_F32, 1e-6},
              {"tests/golden/bf16", "tied", DTYPE_BF16, 2e-3},
              {"tests/golden/bf16", "untied", DTYPE_BF16, 2e-3},
              {"tests/golden/bf16", "qwen2", DTYPE_BF16, 2e-3},
              {"tests/golden/bf16", "qwen3", DTYPE_BF16, 2e-3}};

enum { MAX_TOKENS = 256 };

/* ---- golden --------------------------------------------------------------------------------- */

static void golden_causal(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof causal / sizeof *causal; i++) {
        Golden gold = {0};
        Fixture f = {.dtype = causal[i].dtype};
        char folder[128];
        float loss[2];
        golden_open(&gold, folder, causal[i].root, causal[i].name);
        fixture_open(&f, folder, 2, MAX_TOKENS);
        int64_t count = gold.n_ids - gold.n_seqs;
        Tensor hidden = fixture_forward(&f, gold.ids, gold.starts, 0, gold.n_seqs);
        golden_logits(&gold, &f, &hidden, 2e-6);

        double got = fixture_train(&f, gold.ids, gold.starts, 0, gold.n_seqs, count);
        assert_int_equal(golden_read(&gold, "loss", loss, 2), 2);
        assert_close("loss", got, (double)loss[0] + loss[1], 1e-6);
        grads_finish(&f.g);
        grads_finish(&f.g); /* adds nothing the second time */
        golden_gradients(&gold, &f, 1e-5);

        golden_steps(&gold, &f, causal[i].of_steps);
        fixture_close(&f);
        safetensors_close(&gold.file);
    }
}

static void score_check(const char *root, const char *name, DType dtype)
{
    Golden gold = {0};
    Fixture f = {.dtype = dtype};
    char folder[128];
    golden_open(&gold, folder, root, name);
    fixture_open(&f, folder, 2, MAX_TOKENS);
    Tensor hidden = fixture_forward(&f, gold.ids, gold.starts, 0, gold.n_seqs);
    golden_logits(&gold, &f, &hidden, 2e-6);

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
    assert_int_equal(golden_read(&gold, "loss", loss, 2), 2);
    assert_close("weighted scores", sum, (double)loss[0] + loss[1], 2e-5);
    scalar_head_backward(&f.scalar, &f.m, &f.p, gold.n_seqs, &dhidden, &f.g);
    model_backward(&f.m, &f.p, NULL, &f.batch, f.acts, &f.g);
    grads_finish(&f.g);
    golden_gradients(&gold, &f, 1e-5);
    fixture_close(&f);
    safetensors_close(&gold.file);
}

static void golden_score(void **state)
{
    if (dtype_of(state) == DTYPE_BF16) {
        score_check("tests/golden/bf16", "score", DTYPE_BF16);
        return;
    }
    score_check("tests/golden/model", "score", DTYPE_F32);
    score_check("tests/golden/model", "qwen2_score", DTYPE_F32);
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
            param_store(&f->p.w[i], fill_around_one, &r); /* vectors have no copies to refresh */
}

/* Gradients of all sequences, cut into micro-batches at the given sequences. */
static size_t cut_grads(const int *cuts, int threads, DType dtype, Recompute recompute, char **to)
{
    Fixture f = {.config = bits_config, .dtype = dtype, .recompute = recompute};
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
    static const int cuts[][BITS_SEQS + 2] = {
        {0, 5, -1}, {0, 1, 5, -1}, {0, 1, 2, 3, 4, 5, -1}, {0, 3, 5, -1}};
    char *first, *other;
    size_t n = cut_grads(cuts[0], 1, dtype_of(state), RECOMPUTE_NONE, &first);
    double size = 0;
    for (size_t i = 0; i < n / 4; i++)
        size += fabs(((float *)first)[i]);
    assert_true(size > 0 && isfinite(size));
    for (int threads = 1; threads <= 3; threads++)
        for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
            assert_int_equal(cut_grads(cuts[c], threads, dtype_of(state), RECOMPUTE_NONE, &other), n);
            assert_memory_equal(first, other, n);
            free(other);
        }
    free(first);
}

/* The first micro-batch is the longest: its rows lie behind those of the others in shared slots. */
static void bits_of_recompute(void **state)
{
    static const int cuts[] = {0, 1, 3, 5, -1};
    char *first, *other;
    size_t n = cut_grads(cuts, 2, dtype_of(state), RECOMPUTE_NONE, &first);
    for (Recompute level = RECOMPUTE_ELEMENTWISE; level < RECOMPUTE_LEVELS; level++) {
        assert_int_equal(cut_grads(cuts, 2, dtype_of(state), level, &other), n);
        assert_memory_equal(first, other, n);
        free(other);
    }
    free(first);
}

/* Bytes that each level saves: L - 1 of L copies of the slots that it computes again, of T rows, a multiple of
 * the arena's alignment. The note says what the arenas say. */
static void plan_of_recompute(void **state)
{
    enum { T = 256 };
    Fixture f = {.config = bits_config, .dtype = dtype_of(state)};
    const ModelConfig *c = &f.config;
    const int64_t Q = c->H * c->D, G = c->K * c->D, raw = c->qk_norm ? Q + G + c->H + c->K : 0;
    const int64_t width[RECOMPUTE_LEVELS] = {0, 2 * c->C + c->F + 2 /* n1, n2, act, rstd1, rstd2 */, 2 * c->F,
                                             2 * Q + 2 * G + c->H + c->C + raw /* q, o, k, v, lse, mid */};
    MemoryPlan plan = {0};
    char size[32], text[192] = "policy all of these by gradient_checkpointing:";
    static const char *const name[] = {"none", "elementwise", "mlp", "layer"};
    size_t kept = 0, saved = 0;
    fixture_open(&f, NULL, 1, 8);
    for (Recompute level = RECOMPUTE_NONE; level < RECOMPUTE_LEVELS; level++) {
        Arena a;
        Acts *acts = acts_new(&f.m, T, true, level);
        arena_init(&a, f.dev, ARENA_DEVICE, "activations");
        acts_alloc(acts, &a);
        kept = level ? kept : arena_planned(&a);
        saved += (size_t)((c->L - 1) * T * width[level]) * sizeof(float);
        assert_int_equal(arena_planned(&a), kept - saved);
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s %s %s", level ? "," : "", name[level],
                 memory_size_text(size, kept - saved));
        plan.n_notes = 0;
        acts_note(acts, &plan, &a, "policy ");
        assert_ptr_equal(plan.note[0].of, &a);
        acts_free(acts);
    }
    assert_string_equal(plan.note[plan.n_notes - 1].text, text);
    /* x alone is left: 3 layers, 256 rows of 48 floats */
    assert_string_equal(plan.note[0].text, "policy kept for every layer: 144.00 KiB, x");
    fixture_close(&f);
}

static void bits_of_packing(void **state)
{
    Fixture f = {.config = bits_config, .dtype = dtype_of(state)};
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
    enum { SLOTS = 3, FIRST = 100, COMMON = 70, PER_SLOT = 3 };
    Fixture f = {.config = bits_config, .dtype = dtype_of(state)};
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
    Fixture f = {.config = bits_config, .dtype = dtype_of(state)};
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
    Fixture f = {.config = bits_config, .dtype = dtype_of(state)};
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

/* Loss and gradient of eight rows in [from, from + step) at a time, with logits so wide that a call
 * takes them a few rows further: values and both gradients. */
static size_t head_grads(int step, int threads, float loss[8], char **grads, char **dhidden)
{
    Fixture f = {.config = bits_config};
    f.config.V = 70000;
    int32_t ids[9];
    const int32_t starts[] = {0, 9};
    random_ids(ids, 9, f.config.V, 9);
    fixture_open(&f, NULL, threads, 9);
    Tensor hidden = fixture_forward(&f, ids, starts, 0, 1), dx = acts_dhidden(f.acts, &f.batch);
    for (int from = 0; from < 8; from += step) {
        for (int r = 0; r < step; r++) {
            ((int32_t *)f.lm.rows.data)[r] = from + r;
            ((int32_t *)f.lm.target.data)[r] = ids[from + r + 1];
            ((float *)f.lm.weight.data)[r] = 0.125F;
        }
        lm_head_run(&f.lm, &f.m, &f.p, LM_XENT, step, &hidden, &dx, &f.g, 1, 0);
        memcpy(loss + from, f.lm.loss.data, (size_t)step * sizeof *loss);
    }
    *dhidden = xmalloc(tensor_bytes(&dx));
    memcpy(*dhidden, dx.data, tensor_bytes(&dx));
    size_t n = grads_copy(&f.g, grads);
    fixture_close(&f);
    return n;
}

static void head_rows(void **state)
{
    (void)state;
    const size_t width = (size_t)(9 * bits_config.C) * sizeof(float);
    float loss[8], other_loss[8];
    char *grads, *dhidden, *other, *other_dhidden;
    size_t n = head_grads(1, 1, loss, &grads, &dhidden);
    for (int threads = 1; threads <= 3; threads++) {
        assert_int_equal(head_grads(8, threads, other_loss, &other, &other_dhidden), n);
        assert_memory_equal(loss, other_loss, sizeof loss);
        assert_memory_equal(dhidden, other_dhidden, width);
        assert_memory_equal(grads, other, n);
        free(other);
        free(other_dhidden);
    }
    assert_true(loss[7] > 1 && loss[7] < 100);
    free(grads);
    free(dhidden);
}

/* ---- the table ------------------------------------------------------------------------------ */

static void table_and_init(void **state)
{
    Fixture f = {.config = bits_config, .dtype = dtype_of(state)};
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
        cmocka_unit_test(bits_of_recompute), IN_BF16(bits_of_recompute),
        cmocka_unit_test(plan_of_recompute), IN_BF16(plan_of_recompute),
        cmocka_unit_test(bits_of_extend),
        cmocka_unit_test(shared_pages_are_copied_on_write),  cmocka_unit_test(head_chunks),
        cmocka_unit_test(head_rows),       cmocka_unit_test(table_and_init),  IN_BF16(golden_score),
        IN_BF16(bits_of_packing),          IN_BF16(bits_of_cuts_and_threads),
        IN_BF16(bits_of_extend),           IN_BF16(shared_pages_are_copied_on_write),
        IN_BF16(head_chunks),              IN_BF16(table_and_init),
        cmocka_unit_test_setup_teardown(bits_of_packing, with_extras, without_extras),
        cmocka_unit_test_setup_teardown(bits_of_cuts_and_threads, with_extras, without_extras),
        cmocka_unit_test_setup_teardown(bits_of_recompute, with_extras, without_extras),
        cmocka_unit_test_setup_teardown(plan_of_recompute, with_extras, without_extras),
        cmocka_unit_test_setup_teardown(bits_of_extend, with_extras, without_extras),
        cmocka_unit_test_setup_teardown(shared_pages_are_copied_on_write, with_extras, without_extras),
    };
    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
