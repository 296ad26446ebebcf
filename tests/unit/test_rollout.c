/* test_rollout.c - one iteration of PPO on tiny random models: which row a score, a value and a
 * log-probability is read at, in what order scores become advantages, and that the old
 * log-probabilities and the reference stay what they were. Everything expected is computed here, one
 * sequence at a time. */
#include "ppo/ppo.h"
#include "ppo/ppo_trainer.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/runtime/device.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { B = 6, M = 8, TOKENS = 40, LONGEST = 20, V = 40, N_PTX = 3, SHARED_BYTES = 1 << 20 };

typedef struct {
    char dir[64];
    DType dtype;
    PpoConfig c;
    Device *dev;
    Ppo p;
    Example prompts[B];
    Record records[B];
    int32_t ids[B][LONGEST];
    Example ptx[N_PTX];
    Record ptx_records[N_PTX];
    int32_t ptx_ids[N_PTX][LONGEST];
    uint8_t ptx_mask[N_PTX][LONGEST];
} World;

static int build(World *w)
{
    Ppo *p = &w->p;
    int rc = 0;
    TRY(model_init(&p->model, &p->policy_config, w->dtype, w->dev, &p->weights, LONGEST));
    TRY(model_init(&p->critic_model, &p->critic_config, w->dtype, w->dev, &p->weights, LONGEST));
    params_alloc(&p->policy, &p->model.table, &p->weights, "policy", false);
    params_alloc(&p->reference, &p->model.table, &p->weights, "reference", true);
    params_alloc(&p->critic, &p->critic_model.table, &p->weights, "critic", false);
    ArenaShare g = arena_share(&p->weights);
    arena_share_part(&g, "policy");
    grads_alloc(&p->policy_grads, &p->model.table, &p->weights);
    arena_share_part(&g, "critic");
    grads_alloc(&p->critic_grads, &p->critic_model.table, &p->weights);
    arena_share_end(&g);
    optim_alloc(&p->policy_optim, &w->c.policy, &p->policy, &p->policy_grads, &p->weights);
    optim_alloc(&p->critic_optim, &w->c.critic, &p->critic, &p->critic_grads, &p->weights);
    if (!p->acts) {
        p->acts = acts_new(&p->model, TOKENS, true, RECOMPUTE_NONE);
        p->critic_acts = acts_new(&p->critic_model, TOKENS, true, RECOMPUTE_NONE);
        p->gen = generator_new(&p->model, 4, LONGEST, TOKENS);
        pack_init(&p->pack, TOKENS, TOKENS);
    }
    ArenaShare s = arena_share(&p->work);
    arena_share_part(&s, "not a number"); /* as a first part leaves the memory to the others */
    Tensor others = arena_rows1(&p->work, DTYPE_I32, SHARED_BYTES / 4);
    if (others.data)
        op_fill(&others, -1);
    arena_share_part(&s, "helpfulness");
    TRY(reward_model_alloc(&p->helpful, &p->weights, &p->work, TOKENS, LONGEST, false, w->dtype));
    arena_share_part(&s, "policy");
    acts_alloc(p->acts, &p->work);
    lm_head_alloc(&p->head, &p->model, &p->work, &p->host, TOKENS, true);
    arena_share_part(&s, "critic");
    acts_alloc(p->critic_acts, &p->work);
    scalar_head_alloc(&p->value_head, &p->critic_model, &p->work, TOKENS, true);
    p->value_loss = arena_rows1(&p->work, DTYPE_F32, TOKENS);
    p->value_old = arena_rows1(&p->work, DTYPE_F32, TOKENS);
    p->value_ret = arena_rows1(&p->work, DTYPE_F32, TOKENS);
    p->value_weight = arena_rows1(&p->work, DTYPE_F32, TOKENS);
    arena_share_part(&s, "answers");
    generator_alloc(p->gen, &p->work, &p->host);
    arena_share_end(&s);
    assert_int_equal(s.end, SHARED_BYTES); /* the others lie within the first */
    batch_alloc(&p->batch, &p->work, w->dev, TOKENS, TOKENS);
    rollout_alloc(&p->roll, &p->host, B, M, true);
    p->stage = arena_bytes(&p->host, TOKENS * sizeof *p->stage);
    p->stage_ratio = arena_bytes(&p->host, TOKENS * sizeof *p->stage_ratio);
    p->stage_entropy = arena_bytes(&p->host, TOKENS * sizeof *p->stage_entropy);
    p->stage_rows = arena_bytes(&p->host, TOKENS * sizeof *p->stage_rows);
    p->stage_target = arena_bytes(&p->host, TOKENS * sizeof *p->stage_target);
    p->stage_seq = arena_bytes(&p->host, TOKENS * sizeof *p->stage_seq);
fail:
    return rc;
}

/* A head of random weights: one that starts at zero would score everything 0. */
static void fill_head(ParamSet *s, float scale)
{
    Tensor *t = &s->w[s->table->head];
    float *x = t->data;
    for (int64_t i = 0; i < tensor_slots(t); i++)
        x[i] = scale * (float)sin(1.0 + 0.7 * (double)i);
}

static int setup_in(void **state, DType dtype)
{
    World *w = xcalloc(1, sizeof *w);
    Ppo *p = &w->p;
    *state = w;
    w->dtype = dtype;
    strcpy(w->dir, "/tmp/test_rollout.XXXXXX");
    if (!mkdtemp(w->dir))
        return -1;
    const OptimConfig adam = {.learning_rate = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-5};
    w->c = (PpoConfig){.model = "policy", .reference = "reference", .critic_model = "",
                       .reward_helpful = "helpful", .reward_safety = "", .dump_dir = "",
                       .max_new_tokens = M, .temperature = 0.7, .batch_size = B, .minibatch_size = 3,
                       .iterations = 1, .kl_coef = 0.5, .gamma = 0.9, .lam = 0.8, .clip = 0.2,
                       .clip_value = 0.2, .samples_per_prompt = 1,
                       .switch_threshold = 0.15, .policy = adam, .critic = adam};
    w->c.run.out_dir = w->dir;
    p->c = &w->c;
    p->kl_coef = w->c.kl_coef;
    p->scale[0] = p->scale[1] = (ScoreScale){0, 1};
    p->max_tokens = TOKENS;
    p->policy_config = (ModelConfig){.architecture = "Llama", .head = HEAD_LM, .C = 16, .F = 24, .V = V,
                                     .L = 2, .H = 2, .K = 1, .D = 8, .norm_eps = 1e-5,
                                     .rope_theta = 1e4, .max_position = 64, .tied = true, .bos = 1,
                                     .pad = -1};
    p->critic_config = p->policy_config;
    p->critic_config.head = HEAD_SCALAR;
    for (p->n_stop = 0; p->n_stop < 6; p->n_stop++) /* six of 40 ids, so that most answers end */
        p->stop_ids[p->n_stop] = p->n_stop;
    for (int b = 0; b < B; b++) {
        const int n = 3 + b;
        for (int i = 0; i < n; i++)
            w->ids[b][i] = 7 + (11 * b + 5 * i) % (V - 7);
        w->prompts[b] = (Example){.ids = w->ids[b], .n = n, .n_prompt = n, .record = b};
        w->records[b] = (Record){.kind = RECORD_PROMPT, .id = (uint64_t)b};
    }
    p->prompts = (ExampleSet){.at = w->prompts, .n = B};
    p->train = (RecordSet){.at = w->records, .n = B};
    assert_int_equal(device_open(&w->dev, &(DeviceOptions){.name = "cpu", .threads = 1}), 0);
    p->helpful = (RewardModel){.folder = "helpful", .dev = w->dev, .config = p->critic_config};
    arena_init(&p->weights, w->dev, ARENA_DEVICE, "weights");
    arena_init(&p->work, w->dev, ARENA_DEVICE, "work");
    arena_init(&p->host, w->dev, ARENA_HOST, "host");
    assert_int_equal(build(w), 0);
    assert_int_equal(arena_commit(&p->weights), 0);
    assert_int_equal(arena_commit(&p->work), 0);
    assert_int_equal(arena_commit(&p->host), 0);
    assert_int_equal(build(w), 0);
    params_init_random(&p->policy, 1);
    params_init_random(&p->reference, 2);
    params_init_random(&p->critic, 3);
    fill_head(&p->critic, 1);
    params_copy(&p->helpful.params, &p->critic); /* so the reward model knows every value */
    for (int b = 0; b < B; b++)
        p->roll.prompt[b] = (b + 2) % B; /* not the order of the set */
    return 0;
}

static int setup(void **state)
{
    return setup_in(state, DTYPE_F32);
}

static int setup_bf16(void **state)
{
    return setup_in(state, DTYPE_BF16);
}

/* Three sequences for the language-model loss: the last tokens trained, one of them with a weight of 2. */
static void add_ptx(World *w)
{
    Ppo *p = &w->p;
    static const DataSource source = {.path = "ptx"};
    w->c.ptx.coef = 0.25;
    w->c.ptx.batch_size = 2;
    w->c.ptx.data = (ConfigList){.at = (void *)&source, .n = 1};
    for (int i = 0; i < N_PTX; i++) {
        const int n = 12 + 3 * i;
        for (int t = 0; t < n; t++) {
            w->ptx_ids[i][t] = (3 * i + 7 * t) % V;
            w->ptx_mask[i][t] = t >= n - 4 - i;
        }
        w->ptx[i] = (Example){.ids = w->ptx_ids[i], .mask = w->ptx_mask[i], .n = n, .record = i};
        w->ptx_records[i] = (Record){.kind = RECORD_SFT, .weight = i == 1 ? 2 : 1};
    }
    p->ptx.examples = (ExampleSet){.at = w->ptx, .n = N_PTX};
    p->ptx.records = (RecordSet){.at = w->ptx_records, .n = N_PTX};
    p->ptx.first = xcalloc(2, sizeof *p->ptx.first);
    p->ptx.first[1] = N_PTX;
    p->ptx.n_order = mix_order(&p->ptx.order, p->ptx.first, &source, 1, (uint64_t)w->c.run.seed, 0);
}

static int teardown(void **state)
{
    World *w = *state;
    Ppo *p = &w->p;
    acts_free(p->acts);
    acts_free(p->critic_acts);
    generator_free(p->gen);
    pack_free(&p->pack);
    free(p->ptx.first);
    free(p->ptx.order);
    reward_model_free(&p->helpful);
    optim_free(&p->policy_optim);
    optim_free(&p->critic_optim);
    grads_free(&p->policy_grads);
    grads_free(&p->critic_grads);
    params_free(&p->policy);
    params_free(&p->reference);
    params_free(&p->critic);
    model_free(&p->model);
    model_free(&p->critic_model);
    arena_free(&p->weights);
    arena_free(&p->work);
    arena_free(&p->host);
    device_close(w->dev);
    int rc = dir_remove(w->dir);
    free(w);
    return rc;
}

static void sample(World *w)
{
    assert_int_equal(rollout_run(&w->p, &w->p.roll, &w->p.prompts, &w->p.train, B, 0, 5, NULL), 0);
}

/* Prompt and answer b, joined here. */
static int join(const World *w, int b, int32_t *out)
{
    const Rollout *r = &w->p.roll;
    const Example *e = &w->prompts[r->prompt[b]];
    for (int i = 0; i < e->n; i++)
        out[i] = e->ids[i];
    for (int t = 0; t < r->n[b]; t++)
        out[e->n + t] = r->ids[b * M + t];
    return e->n + r->n[b];
}

/* Log-probabilities of answer b under `params`, in a pack of its own. */
static void logp_alone(World *w, const ParamSet *params, int b, float *out)
{
    Ppo *p = &w->p;
    int32_t ids[LONGEST];
    const int len = join(w, b, ids), n = p->roll.n[b];
    pack_clear(&p->pack);
    pack_add(&p->pack, ids, NULL, len, 0);
    batch_set(&p->batch, &p->pack);
    model_forward(&p->model, params, NULL, &p->batch, p->acts);
    Tensor hidden = acts_hidden(p->acts, &p->batch);
    for (int t = 0; t < n; t++) { /* the row before a token predicts it */
        ((int32_t *)p->head.rows.data)[t] = len - n + t - 1;
        ((int32_t *)p->head.target.data)[t] = ids[len - n + t];
    }
    lm_head_run(&p->head, &p->model, params, LM_LOGP, n, &hidden, NULL, NULL, 1 / w->c.temperature, 0);
    memcpy(out, p->head.logp.data, (size_t)n * sizeof *out);
}

static void scores_and_values_are_read_at_their_rows(void **state)
{
    World *w = *state;
    Rollout *r = &w->p.roll;
    int finished = 0;
    sample(w);
    critic_values(&w->p, r, &w->p.prompts);
    for (int b = 0; b < B; b++) {
        int32_t ids[LONGEST];
        float score[LONGEST], *const out = score;
        const int len = join(w, b, ids), n_prompt = len - r->n[b];
        const int32_t *const one = ids;
        reward_model_score_tokens(&w->p.helpful, &one, &len, 1, &out);
        assert_true(r->helpful[b] == (double)score[len - 1]); /* the last token of the answer */
        assert_true(score[len - 1] != score[n_prompt - 1]);
        for (int t = 0; t < r->n[b]; t++) /* critic and reward model have the same weights here */
            assert_true(r->value[b * M + t] == score[n_prompt - 1 + t]);
        finished += r->finished[b];
    }
    assert_true(finished > 0);
}

static void the_reference_is_not_the_policy(void **state)
{
    World *w = *state;
    Rollout *r = &w->p.roll;
    sample(w);
    for (int b = 0; b < B; b++) {
        float policy[M], ref[M];
        double k1 = 0;
        logp_alone(w, &w->p.policy, b, policy);
        logp_alone(w, &w->p.reference, b, ref);
        for (int t = 0; t < r->n[b]; t++) {
            assert_true(r->logp[b * M + t] == policy[t]);
            assert_true(r->ref[b * M + t] == ref[t]);
            k1 += (double)policy[t] - (double)ref[t];
        }
        assert_true(k1 != 0 && fabs(r->k1[b] - k1) < 1e-12);
    }
}

static void rows_stand_before_their_targets(void **state)
{
    World *w = *state;
    Ppo *p = &w->p;
    Rollout *r = &p->roll;
    int64_t next = 0, first = 0, rows;
    int packs = 0;
    sample(w);
    for (; ppo_next_pack(p, r, &p->prompts, &next, B, &rows); first = next, packs++) {
        int64_t i = 0;
        int at = 0;
        for (int64_t b = first; b < next; b++) {
            int32_t ids[LONGEST];
            const int len = join(w, (int)b, ids), n = r->n[b];
            for (int t = 0; t < n; t++, i++) {
                assert_int_equal(p->stage_rows[i], at + len - n - 1 + t);
                assert_int_equal(p->stage_target[i], r->ids[b * M + t]);
                assert_int_equal(p->pack.ids[p->stage_rows[i] + 1], p->stage_target[i]);
            }
            at += len;
        }
        assert_int_equal(rows, i);
    }
    assert_int_equal(next, B);
    assert_true(packs > 1);
}

/* After the policy moved, the ratio is that of the new to the sampler's probabilities. */
static void old_log_probabilities_stay(void **state)
{
    World *w = *state;
    Ppo *p = &w->p;
    Rollout *r = &p->roll;
    UpdateStats s = {0};
    bool flat;
    double sum = 0, n = 0;
    sample(w);
    critic_values(p, r, &p->prompts);
    rollout_scale(p, r);
    rollout_shape(p, r, &flat);
    rollout_advantages(p, r);
    ppo_policy_gradients(p, r, 0, B, &s);
    assert_true(s.ratio_max_dev == 0 && s.approxkl == 0);
    s = (UpdateStats){0};
    params_init_random(&p->policy, 9);
    for (int b = 0; b < B; b++) {
        float now[M];
        logp_alone(w, &p->policy, b, now);
        for (int t = 0; t < r->n[b]; t++, n++)
            sum += exp((double)now[t] - (double)r->logp[b * M + t]);
    }
    ppo_policy_gradients(p, r, 0, B, &s);
    assert_true(s.ratio_max_dev > 0);
    assert_true(fabs(s.ratio - sum / n) < 1e-5);
}

/* What the refitted head says is what later values are made of: with all but nothing but the ridge to fit,
 * they are all but zero. */
static void a_refitted_head_is_used(void **state)
{
    World *w = *state;
    Ppo *p = &w->p;
    Rollout *r = &p->roll;
    bool flat;
    sample(w);
    rollout_scale(p, r);
    rollout_shape(p, r, &flat);
    critic_values(p, r, &p->prompts);
    assert_true(fabs((double)r->value[0]) > 1e-2);
    w->c.critic_ridge = 1e9;
    assert_int_equal(critic_refit(p, r, &p->prompts), 0);
    critic_values(p, r, &p->prompts);
    for (int b = 0; b < B; b++)
        for (int t = 0; t < r->n[b]; t++)
            assert_true(r->value[b * M + t] != 0 && fabs((double)r->value[b * M + t]) < 1e-4);
}

/* x[i] -> (x[i] - mean) / sqrt(var + 1e-8) */
static void whiten(double *x, int n)
{
    double mean = 0, var = 0;
    for (int i = 0; i < n; i++)
        mean += x[i] / n;
    for (int i = 0; i < n; i++)
        var += (x[i] - mean) * (x[i] - mean) / n;
    for (int i = 0; i < n; i++)
        x[i] = (x[i] - mean) / sqrt(var + 1e-8);
}

/* Scores whitened over the batch, then the KL penalty per token, then advantages as the sum
 * A_t = sum_k (gamma lambda)^k delta_(t+k) over the rest of the same answer, then whitened. */
static void advantages_by_hand(void **state)
{
    World *w = *state;
    Rollout *r = &w->p.roll;
    const int n[B] = {3, 1, 4, 2, 8, 5};
    const double raw[B] = {1, -2, 0.5, 3, 7, -1};
    double finished[B - 1], score[B], adv[B * M], ret[B][M];
    int total = 0, k = 0;
    bool flat;
    r->n_used = B;
    for (int b = 0; b < B; b++) {
        r->n[b] = n[b];
        r->raw[b] = raw[b];
        r->finished[b] = b != 4;
        r->k1[b] = 0;
        for (int t = 0; t < n[b]; t++) {
            r->logp[b * M + t] = (float)(-1 - 0.25 * ((3 * b + t) % 5));
            r->ref[b * M + t] = (float)(-1 - 0.25 * ((b + 2 * t) % 7));
            r->value[b * M + t] = (float)(0.125 * ((5 * b + 3 * t) % 9) - 0.5);
            r->k1[b] += (double)r->logp[b * M + t] - (double)r->ref[b * M + t];
        }
        if (r->finished[b])
            finished[k++] = raw[b];
    }
    rollout_scale(&w->p, r);
    rollout_shape(&w->p, r, &flat);
    rollout_advantages(&w->p, r);
    assert_false(flat);

    whiten(finished, B - 1);
    double lowest = -1;
    for (int i = 0; i < B - 1; i++)
        lowest = fmin(lowest, finished[i]);
    k = 0;
    for (int b = 0; b < B; b++)
        score[b] = b == 4 ? lowest : finished[k++];
    for (int b = 0; b < B; b++) {
        for (int t = 0; t < n[b]; t++) {
            double sum = 0;
            for (int u = t; u < n[b]; u++) {
                const float *v = r->value + b * M;
                double reward = -w->c.kl_coef * ((double)r->logp[b * M + u] - (double)r->ref[b * M + u]);
                double after = u + 1 < n[b] ? (double)v[u + 1] : 0;
                if (u == n[b] - 1)
                    reward += score[b];
                sum += pow(w->c.gamma * w->c.lam, u - t) * (reward + w->c.gamma * after - (double)v[u]);
            }
            adv[total++] = sum;
            ret[b][t] = sum + (double)r->value[b * M + t];
        }
    }
    whiten(adv, total);
    k = 0;
    for (int b = 0; b < B; b++) {
        assert_true(fabs(r->shaped[b] - score[b]) < 1e-9);
        for (int t = 0; t < n[b]; t++) {
            assert_true(fabs((double)r->adv[b * M + t] - adv[k++]) < 1e-6);
            assert_true(fabs((double)r->ret[b * M + t] - ret[b][t]) < 1e-6);
        }
    }
}

/* Mean -logp of the target tokens of two sequences, each in a pack of its own. */
static double ptx_loss_alone(World *w, const Example *const e[2])
{
    Ppo *p = &w->p;
    double loss = 0, weight = 0;
    for (int i = 0; i < 2; i++) {
        int rows = 0;
        pack_clear(&p->pack);
        pack_add(&p->pack, e[i]->ids, NULL, e[i]->n, 0);
        batch_set(&p->batch, &p->pack);
        model_forward(&p->model, &p->policy, NULL, &p->batch, p->acts);
        Tensor hidden = acts_hidden(p->acts, &p->batch);
        for (int t = 1; t < e[i]->n; t++) {
            if (!e[i]->mask[t])
                continue;
            ((int32_t *)p->head.rows.data)[rows] = t - 1;
            ((int32_t *)p->head.target.data)[rows++] = e[i]->ids[t];
        }
        lm_head_run(&p->head, &p->model, &p->policy, LM_LOGP, rows, &hidden, NULL, NULL, 1, 0);
        for (int t = 0; t < rows; t++)
            loss -= w->ptx_records[e[i]->record].weight * (double)((float *)p->head.logp.data)[t];
        weight += w->ptx_records[e[i]->record].weight * rows;
    }
    return loss / weight;
}

/* w += step * g for every parameter; the sum of squares of g. */
static double move(ParamSet *set, const Grads *g, double step)
{
    double sum = 0;
    for (int i = 0; i < set->table->n; i++) {
        if (!grads_is_own(set->table, i))
            continue;
        float *x = set->w[i].data;
        const float *d = g->g[i].data;
        for (int64_t k = 0; k < tensor_slots(&set->w[i]); k++) {
            x[k] += (float)(step * (double)d[k]);
            sum += (double)d[k] * (double)d[k];
        }
    }
    return sum;
}

/* With advantages of 0 the gradient is the language-model loss's alone: along itself that loss changes by
 * its squared length over coef. At a temperature of 0.7, which is the rollouts' alone. */
static void the_language_model_loss_is_added(void **state)
{
    World *w = *state;
    Ppo *p = &w->p;
    UpdateStats s = {0};
    sample(w);
    critic_values(p, &p->roll, &p->prompts);
    memset(p->roll.adv, 0, B * M * sizeof *p->roll.adv);
    add_ptx(w);
    const Example *const first[2] = {ptx_item(p, 0), ptx_item(p, 1)};
    const double at = ptx_loss_alone(w, first);
    ppo_policy_gradients(p, &p->roll, 0, B, &s);
    assert_int_equal(p->ptx.cursor, 2);
    assert_true(fabs(s.ptx_loss - at) < 1e-6);
    grads_finish(&p->policy_grads);
    const double size = move(&p->policy, &p->policy_grads, 0), h = 0.002 / sqrt(size);
    assert_true(size > 0);
    move(&p->policy, &p->policy_grads, h);
    const double up = ptx_loss_alone(w, first);
    move(&p->policy, &p->policy_grads, -2 * h);
    const double slope = (up - ptx_loss_alone(w, first)) / (2 * h);
    assert_true(fabs(slope * w->c.ptx.coef / size - 1) < 2e-3);
    grads_zero(&p->policy_grads);

    /* the next two are the third and, of the next epoch, the first; without the policy none is taken */
    const Example *const next[2] = {ptx_item(p, 2), ptx_item(p, 3)};
    assert_true(next[0] != first[0] && next[0] != first[1] && p->ptx.epoch == 1);
    ppo_policy_gradients(p, &p->roll, 0, B, &s);
    assert_true(fabs(s.ptx_loss - ptx_loss_alone(w, next)) < 1e-6 && p->ptx.cursor == 4);
    s = (UpdateStats){0};
    ppo_critic_gradients(p, &p->roll, 0, B, &s);
    assert_true(p->ptx.cursor == 4 && s.ptx_loss == 0 && s.value_loss > 0);
}

/* Without a critic each token has its answer's reward minus the mean of the other answers to the prompt. */
static void groups_need_no_critic(void **state)
{
    World *w = *state;
    Ppo *p = &w->p;
    Rollout *r = &p->roll;
    const double raw[B] = {1, -2, 0.5, 3, 7, -1};
    UpdateStats s = {0};
    bool flat;
    w->c.advantage = ADV_RLOO;
    w->c.samples_per_prompt = 3;
    w->c.scores = SCORES_NONE;
    for (int b = 0; b < B; b++)
        r->prompt[b] = b / 3;
    sample(w);
    for (int b = 0; b < B; b++) {
        r->raw[b] = raw[b];
        r->finished[b] = 1;
    }
    rollout_scale(p, r);
    rollout_shape(p, r, &flat);
    rollout_advantages(p, r);
    for (int b = 0; b < B; b++) {
        double others = 0;
        for (int i = b / 3 * 3; i < b / 3 * 3 + 3; i++)
            others += i == b ? 0 : (raw[i] - 0.5 * r->k1[i]) / 2;
        for (int t = 0; t < r->n[b]; t++)
            assert_true(fabs((double)r->adv[b * M + t] - (raw[b] - 0.5 * r->k1[b] - others)) < 1e-6);
    }
    assert_true(memcmp(r->ids, r->ids + M, M * sizeof *r->ids) != 0); /* samples of a prompt differ */
    ppo_policy_gradients(p, r, 0, B, &s);
    assert_true(s.ratio_max_dev == 0 && s.value_loss == 0);
}

/* Both models are measured on the same answers, whichever spoke for them; the switch stays the raw one. */
static void both_models_on_one_scale(void **state)
{
    World *w = *state;
    Ppo *p = &w->p;
    Rollout *r = &p->roll;
    const double helpful[B] = {1, 2, 3, 4, 90, 5}, safety[B] = {-20, 10, 0, -10, 90, 20};
    r->n_used = B;
    for (int b = 0; b < B; b++) {
        r->helpful[b] = helpful[b];
        r->safety[b] = safety[b];
        r->finished[b] = b != 4;
        r->branch[b] = (uint8_t)ppo_switch(safety[b], b == 1, 0.15, true);
        r->raw[b] = r->branch[b] == BRANCH_HELPFUL ? helpful[b] : safety[b];
    }
    rollout_measure_scale(p, r);
    rollout_scale(p, r);
    /* 1 2 3 4 5: mean 3, variance 2; -20 10 0 -10 20: mean 0, variance 200 */
    assert_true(fabs(p->scale[0].mean - 3) < 1e-12 && fabs(p->scale[0].sd - sqrt(2)) < 1e-12);
    assert_true(fabs(p->scale[1].mean) < 1e-12 && fabs(p->scale[1].sd - sqrt(200)) < 1e-12);
    const double want[B] = {-20 / sqrt(200), 10 / sqrt(200), 0, -10 / sqrt(200), 87 / sqrt(2), sqrt(2)};
    for (int b = 0; b < B; b++)
        assert_true(fabs(r->scaled[b] - want[b]) < 1e-12);
    for (int b = 0; b < B; b++)
        r->safety[b] = 7;
    rollout_measure_scale(p, r); /* nothing to measure: both keep their own */
    assert_true(p->scale[0].mean == 0 && p->scale[0].sd == 1 && p->scale[1].mean == 0 && p->scale[1].sd == 1);
}

/* What the options keep between iterations goes through a checkpoint. */
static void a_checkpoint_holds_the_state_of_the_options(void **state)
{
    World *w = *state;
    Ppo *p = &w->p;
    Trainer t = {.def = &ppo_trainer, .config = &w->c, .run = &w->c.run, .state = p, .dev = w->dev};
    BlobList l = {0};
    p->scale[1] = (ScoreScale){-2, 3};
    p->running = (ScoreMoments){4, 5, 6};
    p->kl_coef = 0.125;
    p->ptx.cursor = 77;
    assert_int_equal(ppo_trainer.state(&t, &l), 0);
    assert_int_equal(checkpoint_save(w->dir, 1, &l, "seed: 1\n"), 0);
    p->scale[1] = (ScoreScale){0, 1};
    p->running = (ScoreMoments){0};
    p->kl_coef = 0;
    p->ptx.cursor = 0;
    assert_int_equal(checkpoint_load(w->dir, 1, &l), 0);
    assert_true(p->scale[1].mean == -2 && p->scale[1].sd == 3 && p->running.m2 == 6 && p->kl_coef == 0.125 &&
                p->ptx.cursor == 77);
    blob_list_free(&l);
}

/* A checkpoint remembers the reference: a run that goes on with another one is refused. */
static void a_checkpoint_knows_its_reference(void **state)
{
    World *w = *state;
    Ppo *p = &w->p;
    Trainer t = {.def = &ppo_trainer, .config = &w->c, .run = &w->c.run, .state = p, .dev = w->dev};
    BlobList l = {0};
    strcpy(p->inputs[0], "first");
    strcpy(p->inputs[1], "helpful");
    memcpy(p->saved_inputs, p->inputs, sizeof p->inputs); /* what the first step of a run does */
    assert_int_equal(ppo_trainer.state(&t, &l), 0);
    assert_int_equal(checkpoint_save(w->dir, 1, &l, "seed: 1\n"), 0);
    memset(p->saved_inputs, 0, sizeof p->saved_inputs); /* a new process */
    strcpy(p->inputs[0], "second");
    assert_int_equal(checkpoint_load(w->dir, 1, &l), 0);
    assert_string_equal(p->saved_inputs[0], "first");
    assert_int_equal(ppo_trainer.step(&t), ERR_DATA);
    assert_non_null(strstr(error_text(), "reference: its weights changed"));
    blob_list_free(&l);
}

#define IN_BF16(test) {#test " in bf16", test, setup_bf16, teardown, NULL}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(scores_and_values_are_read_at_their_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(the_reference_is_not_the_policy, setup, teardown),
        cmocka_unit_test_setup_teardown(rows_stand_before_their_targets, setup, teardown),
        cmocka_unit_test_setup_teardown(old_log_probabilities_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(advantages_by_hand, setup, teardown),
        cmocka_unit_test_setup_teardown(the_language_model_loss_is_added, setup, teardown),
        cmocka_unit_test_setup_teardown(groups_need_no_critic, setup, teardown),
        cmocka_unit_test_setup_teardown(both_models_on_one_scale, setup, teardown),
        cmocka_unit_test_setup_teardown(a_checkpoint_holds_the_state_of_the_options, setup, teardown),
        cmocka_unit_test_setup_teardown(a_checkpoint_knows_its_reference, setup, teardown),
        cmocka_unit_test_setup_teardown(a_refitted_head_is_used, setup, teardown),
        IN_BF16(scores_and_values_are_read_at_their_rows),
        IN_BF16(the_reference_is_not_the_policy),
        IN_BF16(old_log_probabilities_stay),
        IN_BF16(a_refitted_head_is_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
