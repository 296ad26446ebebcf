/* test_units.c - units: runs of whole items whose gradients are one sum where the device's sums over tokens
 * have an order of their own. They follow from the items' order and lengths alone, so in bf16 on a card (a
 * real one or the shim) gradients do not depend on how much a micro-batch holds; elsewhere units change no
 * bit at all. */
#include "tests/unit/model_fixture.h"

#include "common/base/rng.h"

#include <stdio.h>

/* ---- packs -------------------------------------------------------------------------------------- */

enum { ITEMS = 60, UNIT_MAX = 64, ITEM_MAX = 80 };

/* Offsets of the units of n items in one go, by the rule as example.h has it. */
static int expected_units(const int *length, int n, int unit_tokens, int *at)
{
    int units = 0, used = 0, total = 0;
    for (int i = 0; i < n; i++) {
        if (i == 0 || used + length[i] > unit_tokens) {
            at[units++] = total;
            used = 0;
        }
        used += length[i];
        total += length[i];
    }
    at[units] = total;
    return units;
}

/* The same through packs of max_tokens. Items of an even number of tokens are two sequences. */
static int packed_units(const int *length, int n, int unit_tokens, int max_tokens, int *at)
{
    static const int32_t ids[ITEM_MAX];
    int units = 0, before = 0;
    Pack p;
    pack_init(&p, max_tokens, max_tokens);
    p.unit_tokens = unit_tokens;
    for (int i = 0; i < n; before += p.n_tokens) {
        for (pack_clear(&p); i < n && pack_open(&p, length[i]); i++) {
            const int first = length[i] % 2 ? length[i] : length[i] / 2;
            pack_add(&p, ids, NULL, first, i);
            if (first < length[i])
                pack_add(&p, ids, NULL, length[i] - first, i);
        }
        assert_true(p.n_tokens > 0);
        assert_int_equal(p.units[0], 0);
        assert_int_equal(p.units[p.n_units], p.n_tokens);
        for (int u = 0; u < p.n_units; u++)
            at[units++] = before + p.units[u];
    }
    at[units] = before;
    pack_free(&p);
    return units;
}

static void units_follow_from_lengths(void **state)
{
    (void)state;
    Rng r = rng_make(1, RNG_TEST, 0, 0, 0);
    for (int round = 0; round < 50; round++) {
        int length[ITEMS], want[ITEMS + 1], got[ITEMS + 1];
        const int unit_tokens = 1 + (int)rng_next_below(&r, UNIT_MAX), most = round % 2 ? ITEM_MAX : 20;
        for (int i = 0; i < ITEMS; i++)
            length[i] = 1 + (int)rng_next_below(&r, (uint64_t)most);
        const int n = expected_units(length, ITEMS, unit_tokens, want);
        const int least = unit_tokens > most ? unit_tokens : most;
        for (int room = least; room < 6 * least; room += 1 + (int)rng_next_below(&r, (uint64_t)least)) {
            assert_int_equal(packed_units(length, ITEMS, unit_tokens, room, got), n);
            assert_memory_equal(got, want, (size_t)(n + 1) * sizeof *got);
        }
    }
}

/* k x unit_tokens hold k units at least; without unit_tokens a pack is filled to the brim and is one. */
static void packs_are_filled(void **state)
{
    (void)state;
    static const int32_t ids[8];
    Pack p;
    pack_init(&p, 30, 30);
    p.unit_tokens = 10;
    for (int i = 0; pack_open(&p, 6); i++)
        pack_add(&p, ids, NULL, 6, i);
    assert_int_equal(p.n_units, 4); /* from 0, 6, 12 and 18; at 24 there is room for an item, but not for a unit */
    p.unit_tokens = 0;
    for (pack_clear(&p); pack_open(&p, 6);)
        pack_add(&p, ids, NULL, 6, 0);
    assert_int_equal(p.n_units, 1);
    assert_int_equal(p.n_tokens, 30);
    pack_free(&p);
}

/* ---- gradients ---------------------------------------------------------------------------------- */

enum { UNIT = 32, LONGEST = 45, CHUNK = 24 };
/* Units: 9 14, 20 3, 45, 12, 32, 1 17, 15, 30 2, 7, 26 5, 11; most begin where a row is 16 bytes aligned and no more. */
static const int lengths[] = {9, 14, 20, 3, 45, 12, 32, 1, 17, 15, 30, 2, 7, 26, 5, 11};
enum { DOCS = sizeof lengths / sizeof *lengths, TOKENS = 249, UNITS = 11 };
static const int rooms[] = {LONGEST, 2 * UNIT, 4 * UNIT, TOKENS}; /* a unit or two, two, four, all */
enum { ROOMS = sizeof rooms / sizeof *rooms };

static const ModelConfig language = {.architecture = "Llama", .head = HEAD_LM, .C = 32, .F = 48, .V = 40, .L = 1,
                                     .H = 2, .K = 1, .D = 16, .norm_eps = 1e-5, .rope_theta = 10000, .tied = true,
                                     .qkv_bias = true, .qk_norm = true, .max_position = 64, .bos = -1, .pad = -1};

static void open_model(Fixture *f, const char *device, DType dtype, HeadKind head)
{
    *f = (Fixture){.device = device, .dtype = dtype, .config = language};
    f->config.head = head;
    f->config.tied = head == HEAD_LM;
    fixture_open(f, NULL, 2, TOKENS);
    if (head == HEAD_LM) /* a unit's rows do not fit one chunk */
        f->lm.logits = tensor_slice(&f->lm.logits, 0, CHUNK);
}

/* Some number for token t of all, of both signs. */
static float pull(int t)
{
    return 0.01F * (float)(t * 37 % 23 - 11);
}

/* Gradients of the pack's rows, which begin at token `first` of all. */
static void backward_of_pack(Fixture *f, int first)
{
    int32_t rows[TOKENS], target[TOKENS];
    float value[TOKENS];
    int64_t R = 0;
    const bool lm = f->config.head == HEAD_LM;
    for (int t = 0; t < f->pack.n_tokens; t++) {
        if (lm && (t + 1 == f->pack.n_tokens || f->pack.pos[t + 1] == 0))
            continue; /* the last of a document predicts nothing */
        rows[R] = t;
        target[R] = f->pack.target[t];
        value[R++] = pull(first + t);
    }
    batch_set(&f->batch, &f->pack);
    model_forward(&f->m, &f->p, NULL, &f->batch, f->acts);
    Tensor hidden = acts_hidden(f->acts, &f->batch), dhidden = acts_dhidden(f->acts, &f->batch);
    if (lm) {
        lm_head_set(&f->lm, &f->batch, rows, target, R);
        device_upload(&f->lm.weight, value, (size_t)R * sizeof *value);
        lm_head_run(&f->lm, &f->m, &f->p, LM_XENT, R, &hidden, &dhidden, &f->g, 1, 0);
    } else {
        device_upload(&f->scalar.rows, rows, (size_t)R * sizeof *rows);
        scalar_head_forward(&f->scalar, &f->m, &f->p, R, &hidden);
        device_upload(&f->scalar.dscore, value, (size_t)R * sizeof *value);
        scalar_head_backward(&f->scalar, &f->m, &f->p, R, &dhidden, &f->g);
    }
    model_backward(&f->m, &f->p, NULL, &f->batch, f->acts, &f->g);
}

/* All gradients one after another, xmalloc'ed. */
static char *download(const Fixture *f, size_t *bytes)
{
    char *all = NULL;
    *bytes = 0;
    for (int i = 0; i < f->m.table.n; i++) {
        if (!grads_is_own(&f->m.table, i))
            continue;
        const size_t n = tensor_bytes(&f->g.g[i]);
        all = xrealloc(all, *bytes + n);
        device_download(all + *bytes, &f->g.g[i], n);
        *bytes += n;
    }
    return all;
}

/* Of all documents, in micro-batches of `room` tokens. */
static char *gradients(Fixture *f, int unit_tokens, int room, size_t *bytes)
{
    int32_t ids[TOKENS];
    int first = 0, units = 0;
    random_ids(ids, TOKENS, f->config.V, 7);
    f->pack.max_tokens = room;
    f->pack.unit_tokens = unit_tokens;
    grads_zero(&f->g);
    for (int i = 0; i < DOCS; first += f->pack.n_tokens) {
        int at = first;
        for (pack_clear(&f->pack); i < DOCS && pack_open(&f->pack, lengths[i]); at += lengths[i++])
            pack_add(&f->pack, ids + at, NULL, lengths[i], i);
        backward_of_pack(f, first);
        units += f->pack.n_units;
    }
    assert_int_equal(first, TOKENS);
    assert_true(!unit_tokens || units == UNITS);
    grads_finish(&f->g);
    return download(f, bytes);
}

/* Whether the gradients of this cut are those that `want` holds. */
static bool same_gradients(Fixture *f, int unit_tokens, int room, const char *want)
{
    size_t bytes;
    char *got = gradients(f, unit_tokens, room, &bytes);
    const bool same = memcmp(got, want, bytes) == 0;
    free(got);
    return same;
}

/* Where a product's chain starts from what is stored, neither cuts nor units leave a trace. */
static void units_change_nothing(const char *device, DType dtype)
{
    static const HeadKind heads[] = {HEAD_LM, HEAD_SCALAR};
    for (int h = 0; h < 2; h++) {
        size_t bytes;
        Fixture f;
        open_model(&f, device, dtype, heads[h]);
        assert_false(device_sums_by_unit(f.dev, dtype));
        char *want = gradients(&f, 0, TOKENS, &bytes);
        for (int i = 0; i < ROOMS; i += ROOMS - 1)
            for (int unit = 0; unit <= UNIT; unit += UNIT)
                assert_true(same_gradients(&f, unit, rooms[i], want));
        free(want);
        fixture_close(&f);
    }
}

static void nothing_on_the_cpu(void **state)
{
    (void)state;
    units_change_nothing("cpu", DTYPE_F32);
    units_change_nothing("cpu", DTYPE_BF16);
}

static void nothing_in_f32_on_a_card(void **state)
{
    (void)state;
    if (!fixture_has_card())
        skip();
    units_change_nothing("cuda", DTYPE_F32);
}

static void add_line(void *text, const char *line)
{
    strncat(text, line, 4095 - strlen(text));
}

/* library: the orders that the shim's library of products offers; NULL: there is none, or the card's. */
static void any_micro_batch(HeadKind head, const char *library)
{
    Fixture f;
    size_t bytes;
    char text[4096] = "";
    if (library)
        setenv("EMU_BLAS", library, 1);
    open_model(&f, "cuda", DTYPE_BF16, head);
    assert_true(device_sums_by_unit(f.dev, DTYPE_BF16));
    char *want = gradients(&f, UNIT, TOKENS, &bytes);
    for (int i = 0; i < ROOMS; i++)
        if (!same_gradients(&f, UNIT, rooms[i], want))
            fail_msg("micro-batches of %d tokens have other gradients than of %d (library: %s)", rooms[i], TOKENS,
                     library ? library : "none");
    /* and this can fail: a micro-batch that is one sum is another one */
    assert_false(same_gradients(&f, 0, TOKENS, want));
    assert_false(same_gradients(&f, 0, LONGEST, want));
    device_products(f.dev, add_line, text);
    if (library && !strstr(text, "product dw (48, 32) f32: cuBLASLt"))
        fail_msg("the library makes no gradients: %s", text);
    free(want);
    fixture_close(&f);
    if (library)
        unsetenv("EMU_BLAS");
}

static void any_micro_batch_in_bf16_on_a_card(void **state)
{
    (void)state;
    Device *dev;
    if (device_open(&dev, &(DeviceOptions){.name = "cuda"}) < 0)
        skip();
    const bool shim = strstr(device_text(dev), "host shim");
    device_close(dev);
    any_micro_batch(HEAD_LM, NULL);
    any_micro_batch(HEAD_SCALAR, NULL);
    if (shim) {
        any_micro_batch(HEAD_LM, "by_rows");
        any_micro_batch(HEAD_SCALAR, "descending");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(units_follow_from_lengths),
        cmocka_unit_test(packs_are_filled),
        cmocka_unit_test(nothing_on_the_cpu),
        cmocka_unit_test(nothing_in_f32_on_a_card),
        cmocka_unit_test(any_micro_batch_in_bf16_on_a_card),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
