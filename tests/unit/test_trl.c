/* test_trl.c - against TRL itself (tests/golden/make_trl.py): the loss that its RewardTrainer computes for pairs, the
 * ids and loss masks that its SFTTrainer makes of records, the loss over them, PPO's whitening. */
#include "tests/unit/model_fixture.h"

#include "common/base/json.h"
#include "common/runtime/ops.h"
#include "ppo/ppo_math.h"
#include "reward/reward_model.h"

#include <math.h>
#include <stdio.h>

#define GOLDEN "tests/golden/"

enum { MAX_PAIRS = 16, MAX_IDS = 64, MAX_TOKENS = 512 };

static int setup(void **state)
{
    return json_read_file((Json **)state, GOLDEN "trl.json");
}

static int teardown(void **state)
{
    json_free(*state);
    return 0;
}

static void assert_near(const char *name, double ours, double theirs)
{
    if (!(fabs(ours - theirs) <= 1e-6 * fabs(theirs)))
        fail_msg("%s: %.9g, TRL says %.9g", name, ours, theirs);
}

static int read_ids(const Json *list, int32_t *ids)
{
    assert_true(json_len(list) > 0 && json_len(list) <= MAX_IDS);
    for (size_t i = 0; i < json_len(list); i++)
        ids[i] = (int32_t)json_int(json_at(list, i), -1);
    return (int)json_len(list);
}

/* ---- reward model ---------------------------------------------------------------------------------- */

/* score[2i], score[2i + 1]: chosen and rejected of pair i, by our forward of the same weights. */
static int score_pairs(Device *dev, const Json *j, float *score)
{
    static int32_t ids[2 * MAX_PAIRS][MAX_IDS];
    const int32_t *seq[2 * MAX_PAIRS];
    int len[2 * MAX_PAIRS], n = (int)json_len(json_get(j, "chosen"));
    RewardModel r = {0};
    Arena weights, work;
    assert_true(n > 0 && n <= MAX_PAIRS);
    for (int i = 0; i < 2 * n; i++) {
        seq[i] = ids[i];
        len[i] = read_ids(json_at(json_get(j, i % 2 ? "rejected" : "chosen"), (size_t)i / 2), ids[i]);
    }
    assert_int_equal(reward_model_open(&r, GOLDEN "model/score", dev, NULL), 0);
    arena_init(&weights, dev, ARENA_DEVICE, "weights");
    arena_init(&work, dev, ARENA_DEVICE, "activations");
    for (int pass = 0; pass < 2; pass++) {
        assert_int_equal(reward_model_alloc(&r, &weights, &work, MAX_TOKENS, MAX_IDS, false, DTYPE_F32), 0);
        assert_true(pass || (arena_commit(&weights) == 0 && arena_commit(&work) == 0));
    }
    assert_int_equal(reward_model_load(&r), 0);
    reward_model_score(&r, seq, len, 2 * n, score);
    reward_model_free(&r);
    arena_free(&weights);
    arena_free(&work);
    return n;
}

static void ranking_loss_of_reward_trainer(void **state)
{
    const Json *j = json_get(*state, "reward");
    const char *const kinds[] = {"none", "small", "large"};
    Device *dev;
    float s[2 * MAX_PAIRS], d[2 * MAX_PAIRS], m[MAX_PAIRS], w[MAX_PAIRS], l[MAX_PAIRS];
    assert_int_equal(device_open(&dev, &(DeviceOptions){.name = "cpu", .threads = 1}), 0);
    int n = score_pairs(dev, j, s);
    for (int k = 0; k < 3; k++) {
        const Json *one = json_get(j, kinds[k]);
        double sum = 0;
        for (int i = 0; i < n; i++) {
            m[i] = (float)json_num(json_at(json_get(one, "margin"), (size_t)i), NAN);
            w[i] = 1.0F / (float)n;
        }
        Tensor loss = tensor_make1(l, dev, DTYPE_F32, n), grad = tensor_make1(d, dev, DTYPE_F32, 2 * n);
        Tensor score = tensor_make1(s, dev, DTYPE_F32, 2 * n), margin = tensor_make1(m, dev, DTYPE_F32, n);
        Tensor weight = tensor_make1(w, dev, DTYPE_F32, n);
        op_rank_loss(&loss, &grad, &score, &margin, &weight);
        for (int i = 0; i < n; i++)
            sum += (double)l[i];
        assert_near(kinds[k], sum / n, json_num(json_get(one, "loss"), NAN));
    }
    device_close(dev);
}

/* ---- SFT ------------------------------------------------------------------------------------------- */

typedef struct {
    Tokenizer *tok;
    ChatTemplate chat;
} Text;

static void text_open(Text *t, const char *name)
{
    char *folder = path_join(GOLDEN "text", name);
    assert_int_equal(tokenizer_open(&t->tok, folder), 0);
    assert_int_equal(template_init(&t->chat, TEMPLATE_AUTO, t->tok), 0);
    free(folder);
}

static void example_of(Example *e, const Text *t, const Json *record)
{
    Record r;
    bool dropped;
    if (record_parse(&r, record, RECORD_SFT, "trl.json", 1) < 0 ||
        example_make(e, &r, 0, &t->chat, MAX_IDS, LONG_ERROR, &dropped) < 0)
        fail_msg("%s", error_text());
    record_free(&r);
}

/* TRL's mask is what follows the rendered prompt; with ChatML that is also the newline after the closing token, which
 * no model has to learn: generation ends before it. */
static void check_masks(const Json *all, const char *set, const char *tokenizer, bool newline)
{
    const Json *list = json_get(json_get(all, "sft"), set);
    Text t;
    text_open(&t, tokenizer);
    assert_true(json_len(list) > 1);
    for (size_t i = 0; i < json_len(list); i++) {
        const Json *one = json_at(list, i), *mask = json_get(one, "mask");
        int32_t ids[MAX_IDS];
        int n = read_ids(json_get(one, "ids"), ids);
        Example e;
        example_of(&e, &t, json_get(one, "record"));
        assert_int_equal(e.n, n);
        for (int k = 0; k < n; k++) {
            bool extra = newline && k == n - 1;
            assert_int_equal(e.ids[k], ids[k]);
            assert_int_equal(e.mask[k], extra ? 0 : json_int(json_at(mask, (size_t)k), -1));
            assert_true(!extra || json_int(json_at(mask, (size_t)k), -1) == 1);
        }
        example_free(&e);
    }
    tokenizer_close(t.tok);
}

static void masks_of_sft_trainer(void **state)
{
    check_masks(*state, "words", "words", false);           /* plain */
    check_masks(*state, "fallback", "fallback", false);     /* llama2 */
    check_masks(*state, "byte_level", "byte_level", true);  /* chatml */
    check_masks(*state, "words_dialogues", "words", false); /* every answer of a dialogue */
}

/* Mean over the trained tokens of all records in one pack (the head weights its losses). */
static double loss_of_records(const Json *list)
{
    Fixture f = {0};
    Text t;
    int64_t R = 0;
    double sum = 0;
    text_open(&t, "words");
    fixture_open(&f, GOLDEN "model/mha", 1, MAX_TOKENS);
    for (size_t i = 0; i < json_len(list); i++) {
        Example e;
        example_of(&e, &t, json_get(json_at(list, i), "record"));
        pack_add(&f.pack, e.ids, e.mask, e.n, (int64_t)i);
        example_free(&e);
    }
    batch_set(&f.batch, &f.pack);
    model_forward(&f.m, &f.p, NULL, &f.batch, f.acts);
    Tensor hidden = acts_hidden(f.acts, &f.batch), dhidden = acts_dhidden(f.acts, &f.batch);
    for (int k = 0; k < f.pack.n_tokens; k++) {
        if (f.pack.weight[k] == 0)
            continue;
        ((int32_t *)f.lm.rows.data)[R] = k;
        ((int32_t *)f.lm.target.data)[R] = f.pack.target[k];
        ((float *)f.lm.weight.data)[R++] = 1.0F / (float)f.pack.n_targets;
    }
    assert_int_equal(R, f.pack.n_targets);
    lm_head_run(&f.lm, &f.m, &f.p, LM_XENT, R, &hidden, &dhidden, &f.g, 1, 0);
    for (int64_t r = 0; r < R; r++)
        sum += (double)((float *)f.lm.loss.data)[r];
    fixture_close(&f);
    tokenizer_close(t.tok);
    return sum;
}

static void loss_of_sft_trainer(void **state)
{
    const Json *sft = json_get(*state, "sft"), *loss = json_get(*state, "sft_loss");
    assert_near("prompt and completion", loss_of_records(json_get(sft, "words")), json_num(json_get(loss, "completion"), NAN));
    assert_near("assistant turns", loss_of_records(json_get(sft, "words_dialogues")),
                json_num(json_get(loss, "assistant"), NAN));
}

/* ---- PPO ------------------------------------------------------------------------------------------- */

/* Mean and biased variance are TRL's. What TRL whitens with is the unbiased variance: undone here, since Llama 2's
 * formula takes the variance of the batch itself. */
static void whitening(void **state)
{
    const Json *list = json_get(*state, "whiten");
    assert_int_equal(json_len(list), 4);
    for (size_t c = 0; c < json_len(list); c++) {
        const Json *one = json_at(list, c), *values = json_get(one, "values");
        double x[MAX_IDS], mean, biased = json_num(json_get(one, "var_biased"), NAN);
        double unbiased = json_num(json_get(one, "var_unbiased"), NAN);
        bool use[MAX_IDS], shift = json_bool(json_get(one, "shift_mean"), true);
        int n = (int)json_len(values);
        for (int i = 0; i < n; i++) {
            x[i] = json_num(json_at(values, (size_t)i), NAN);
            use[i] = json_bool(json_at(json_get(one, "use"), (size_t)i), false);
        }
        double sd = ppo_whiten(x, use, n, shift, &mean);
        assert_true(fabs(mean - json_num(json_get(one, "mean"), NAN)) < 1e-12);
        assert_true(fabs(sd * sd - biased) < 1e-7);
        for (int i = 0; i < n; i++) {
            double theirs = json_num(json_at(json_get(one, "whitened"), (size_t)i), NAN), back = shift ? 0 : mean;
            double want = (theirs - back) * sqrt((unbiased + 1e-8) / (biased + 1e-8)) + back;
            assert_true(fabs(x[i] - (use[i] ? want : json_num(json_at(values, (size_t)i), NAN))) < 1e-12);
        }
    }
    /* the row that "The N Implementation Details of RLHF with PPO" prints, with the biased variance */
    double x[9] = {1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0};
    const double row[3] = {0.0508, 0.4381, 0.8254};
    ppo_whiten(x, NULL, 9, false, NULL);
    for (int i = 0; i < 3; i++)
        assert_true(fabs(x[i] - row[i]) < 5e-5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranking_loss_of_reward_trainer),
        cmocka_unit_test(masks_of_sft_trainer),
        cmocka_unit_test(loss_of_sft_trainer),
        cmocka_unit_test(whitening),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
