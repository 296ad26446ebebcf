/* reward_train.c - `rlhf-reward train`: a scalar head on a chat checkpoint, trained with
 *
 *   L = mean over pairs of -log sigmoid(r_chosen - r_rejected - margin)
 *     + safety_loss.weight * mean over labelled answers of binary cross-entropy(r, safe)
 *
 * (Llama 2, eq. 2 and A.3.4; the second term anchors the zero of the scale, which the first leaves free).
 * Means are over the global batch; items go through in order, so micro_batch_tokens never changes a bit.
 * Tested by tests/e2e/test_reward.sh and against PyTorch by tests/golden. */
#include "reward/reward.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/model/grads_file.h"
#include "common/model/safetensors.h"
#include "reward/reward_eval.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    RunConfig run;
    const char *model;
    int template_kind, on_bad_row, on_long, margin;
    ConfigList train, eval;
    bool safety_filter, shuffle_labels;
    double safety_weight, fraction;
    int64_t max_length, epochs, batch_size, micro_batch_tokens;
    int recompute; /* Recompute */
    OptimConfig optim;
    const char *dump_dir;
} RewardConfig;

#define AT(m) offsetof(RewardConfig, m)

static const CfgField fields[] = {
    RUN_FIELDS(RewardConfig),
    BEST_FIELDS(RewardConfig, "highest eval_accuracy"),
    UNIT_FIELDS(RewardConfig),
    {"model", CFG_STRING, AT(model), .flags = CFG_REQUIRED,
     .help = "start: a chat checkpoint (its trunk, fresh head) or a reward model to go on with"},
    {"template", CFG_ENUM, AT(template_kind), "auto", .choices = TEMPLATE_CHOICES,
     .help = "chat template; auto = the model's own"},
    {"data.train", CFG_LIST, AT(train), .item_fields = pair_source_fields,
     .item_bytes = sizeof(PairSource), .flags = CFG_REQUIRED, .help = "sources: {path, weight, kind}"},
    {"data.eval", CFG_LIST, AT(eval), .item_fields = pair_source_fields,
     .item_bytes = sizeof(PairSource), .help = "held-out sources: evaluation and calibration"},
    {"data.on_bad_row", CFG_ENUM, AT(on_bad_row), "error", .choices = "error|skip",
     .help = "what a malformed record does"},
    {"data.on_long", CFG_ENUM, AT(on_long), "drop", .choices = "drop|truncate_left|error",
     .help = "sequences longer than max_length"},
    {"data.safety_filter", CFG_BOOL, AT(safety_filter), "true",
     .help = "drop pairs with an unsafe chosen and a safe rejected answer"},
    {"data.fraction", CFG_FLOAT, AT(fraction), "1", 1e-9, 1,
     .help = "train on this share of the prompts; a smaller share is part of a larger one: accuracy against size"},
    {"data.shuffle_labels", CFG_BOOL, AT(shuffle_labels), "false",
     .help = "control: swap chosen and rejected by a coin"},
    {"margin", CFG_ENUM, AT(margin), "small", .choices = "none|small|large",
     .help = "margin by rating: 1, 2/3, 1/3, 0 or 3, 2, 1, 0; a record's own margin wins"},
    {"safety_loss.weight", CFG_FLOAT, AT(safety_weight), "0", 0, 1e6,
     .help = "classification loss on safety labels; needed for a safety model (1.0)"},
    {"max_length", CFG_INT, AT(max_length), "4096", 2, 1e9, .help = "tokens of prompt and answer"},
    {"epochs", CFG_INT, AT(epochs), "1", 1, 1e6, .help = "the paper trains one; longer over-fits"},
    {"batch_size", CFG_INT, AT(batch_size), "512", 1, 1e7, .help = "pairs (items) per step"},
    {"micro_batch_tokens", CFG_INT, AT(micro_batch_tokens), "8192", 2, 1e9, .flags = CFG_NO_RESULT,
     .help = "tokens per forward and backward; never changes a result"},
    RECOMPUTE_FIELD(RewardConfig, recompute),
    OPTIM_FIELDS(RewardConfig, optim, "optim", "1e-5", "cosine", "1e-5"),
    {"dump.dir", CFG_STRING, AT(dump_dir), "", .flags = CFG_NO_RESULT,
     .help = "write the first step (inputs, losses, gradients, weights) to this folder"},
    {0},
};

static const CliOption options[] = {
    {"--dump-step", "DIR", "dump.dir", "write the first step with all intermediates to DIR"},
    {0},
};

typedef struct {
    const RewardConfig *c;
    Tokenizer *tok;
    ChatTemplate chat;
    RecordSet train_records, eval_records;
    PairSet train, eval;
    RewardModel rm;
    Grads grads;
    Optim optim;
    Arena weights, gradients, moments, work, host;
    Tensor pair_score, pair_dscore;       /* (2 P): gathered rows of pairs */
    Tensor label_score, label_dscore;     /* (N) */
    Tensor margin, pair_weight, pair_loss;   /* (P) */
    Tensor label, label_weight, label_loss;  /* (N) */
    float *stage, *stage_score, *stage_d;
    int64_t *order, n_order, order_epoch;
    int64_t steps_per_epoch, tokens_seen, items_seen;
} Reward;

/* ---- inputs ------------------------------------------------------------------------------------- */

static PairOptions pair_options(const RewardConfig *c, bool eval)
{
    return (PairOptions){.margin = (MarginKind)c->margin,
                         .safety_filter = c->safety_filter && !eval,
                         .shuffle_labels = c->shuffle_labels && !eval,
                         .max_length = c->max_length,
                         .on_long = (OnLong)c->on_long,
                         .on_bad_row = (BadRow)c->on_bad_row,
                         .seed = (uint64_t)c->run.seed,
                         .fraction = eval ? 1 : c->fraction};
}

static int read_data(Reward *p)
{
    const RewardConfig *c = p->c;
    PairOptions o = pair_options(c, false), oe = pair_options(c, true);
    int rc = 0;
    TRY(pair_set_read(&p->train, c->train.at, c->train.n, &p->chat, &o, &p->train_records));
    TRY(pair_set_read(&p->eval, c->eval.at, c->eval.n, &p->chat, &oe, &p->eval_records));
    TRY(record_check_overlap(&p->train_records, "data.train", &p->eval_records, "data.eval"));
    if (p->train.n == 0) {
        rc = error_set(ERR_DATA, "data.train: no item is left (%lld longer than max_length, %lld dropped by "
                                 "data.safety_filter)", (long long)p->train.n_long,
                       (long long)p->train.n_filtered);
        goto fail;
    }
    if (c->safety_weight > 0 && p->train.n_labels == 0) {
        rc = error_set(ERR_DATA, "safety_loss.weight is %g, but no record of data.train has a safety label "
                                 "(chosen_safe, rejected_safe, is_safe)", c->safety_weight);
        goto fail;
    }
    log_info("%lld items (%lld safety labels); dropped: %lld too long, %lld chosen unsafe and rejected "
             "safe, %lld malformed, %lld by data.fraction", (long long)p->train.n, (long long)p->train.n_labels,
             (long long)p->train.n_long, (long long)p->train.n_filtered,
             (long long)(p->train_records.n_bad + p->train.n_bad), (long long)p->train.n_thinned);
fail:
    return rc;
}

static int reward_init(Trainer *t)
{
    Reward *p = t->state;
    const RewardConfig *c = p->c = t->config;
    int rc = 0;
    if (2 * c->max_length > c->micro_batch_tokens)
        return error_set(ERR_CONFIG, "%s: micro_batch_tokens: %lld cannot hold a pair of 2 x max_length = "
                                     "%lld tokens; raise it or lower max_length",
                         config_where(t->cli.config, "micro_batch_tokens"),
                         (long long)c->micro_batch_tokens, (long long)(2 * c->max_length));
    TRY(trainer_check_units(t, c->micro_batch_tokens));
    TRY(tokenizer_open(&p->tok, c->model));
    TRY(template_init(&p->chat, (TemplateKind)c->template_kind, p->tok));
    TRY(model_config_read(&p->rm.config, c->model));
    p->rm.config.head = HEAD_SCALAR;
    p->rm.config.tied = false;
    p->rm.dev = t->dev;
    p->rm.folder = c->model;
    p->rm.recompute = (Recompute)c->recompute;
    TRY(tokenizer_check_vocab(p->tok, c->model, p->rm.config.V));
    TRY(read_data(p));
    p->order_epoch = -1;
    p->n_order = pair_set_order(&p->train, (uint64_t)c->run.seed, 0, &p->order);
    p->steps_per_epoch = (p->n_order + c->batch_size - 1) / c->batch_size;
    t->total_steps = p->steps_per_epoch * c->epochs;
    t->memory_advice = "gradient_checkpointing, micro_batch_tokens, max_length";
fail:
    return rc;
}

static int reward_alloc(Trainer *t)
{
    Reward *p = t->state;
    int64_t n = p->c->micro_batch_tokens;
    int rc = 0;
    if (t->planning) {
        arena_init(&p->weights, t->dev, ARENA_DEVICE, "weights");
        arena_init(&p->gradients, t->dev, ARENA_DEVICE, "gradients");
        arena_init(&p->moments, t->dev, ARENA_DEVICE, "optimizer");
        arena_init(&p->work, t->dev, ARENA_DEVICE, "activations");
        arena_init(&p->host, t->dev, ARENA_HOST, "staging");
        memory_plan_add(&t->plan, &p->weights);
        memory_plan_add(&t->plan, &p->gradients);
        memory_plan_add(&t->plan, &p->moments);
        memory_plan_add(&t->plan, &p->work);
        memory_plan_add(&t->plan, &p->host);
    }
    TRY(reward_model_alloc(&p->rm, &p->weights, &p->work, (int)n, (int)p->c->max_length, true,
                           trainer_dtype(t)));
    p->rm.pack.unit_tokens = trainer_unit_tokens(t);
    if (t->planning)
        acts_note(p->rm.acts, &t->plan, &p->work, "");
    grads_alloc(&p->grads, &p->rm.model.table, &p->gradients);
    optim_alloc(&p->optim, &p->c->optim, &p->rm.params, &p->grads, &p->moments);
    Tensor *const rows[] = {&p->pair_score, &p->pair_dscore, &p->label_score, &p->label_dscore,
                            &p->margin, &p->pair_weight, &p->pair_loss, &p->label, &p->label_weight,
                            &p->label_loss};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        *rows[i] = arena_rows1(&p->work, DTYPE_F32, n);
    p->stage = arena_bytes(&p->host, (size_t)n * sizeof *p->stage);
    p->stage_score = arena_bytes(&p->host, (size_t)n * sizeof *p->stage_score);
    p->stage_d = arena_bytes(&p->host, (size_t)n * sizeof *p->stage_d);
fail:
    return rc;
}

/* Of items order[0..n), or the first n. */
static Work data_work(const Reward *p, WorkKind kind, const PairSet *s, const int64_t *order, int64_t n)
{
    Work w = {.kind = kind, .model = (char *)p->c->model, .scalar = true};
    for (int64_t i = 0; i < n; i++) {
        const PairItem *it = &s->at[order ? order[i] : i];
        for (int k = 0; k < it->n_seqs; k++)
            w.tokens += it->seq[k].n;
        w.sequences += it->n_seqs;
    }
    return w;
}

static void reward_plan(Trainer *t, RunPlan *plan)
{
    Reward *p = t->state;
    const ParamTable *table = &p->rm.model.table;
    Work train = data_work(p, WORK_TRAIN, &p->train, p->order, p->n_order);
    Work eval = data_work(p, WORK_FORWARD, &p->eval, NULL, p->eval.n);
    plan->micro_batch_tokens = (double)p->c->micro_batch_tokens;
    plan->recompute = p->c->recompute;
    run_plan_work_times(plan, &train, (double)t->total_steps / (double)p->steps_per_epoch);
    run_plan_update(plan, table, p->c->model, (double)t->total_steps);
    run_plan_work_times(plan, &eval, (double)trainer_n_evals(t) + 1); /* eval.json at the end */
    char *folder = path_join(t->run->out_dir, "export");
    run_plan_model(plan, folder, p->c->model, table, run_element(t->run), p->c->safety_weight > 0);
    free(folder);
}

static int reward_load(Trainer *t)
{
    Reward *p = t->state;
    ModelConfig stored;
    int rc = 0;
    TRY(model_config_read(&stored, p->c->model));
    TRY(hf_load_params(&p->rm.params, p->c->model,
                       stored.head == HEAD_SCALAR ? HEAD_AS_STORED : HEAD_FRESH_SCALAR,
                       (uint64_t)t->run->seed));
    grads_zero(&p->grads);
fail:
    return rc;
}

/* ---- one step ----------------------------------------------------------------------------------- */

typedef struct {
    double rank_loss, safety_loss, reward_sum, reward_min, reward_max, margin_sum;
    int64_t n_pairs, n_right, n_labels, n_unsafe, n_hit, n_rewards, n_tokens;
} StepStats;

static void view(Tensor *v, const Tensor *t, int64_t n)
{
    *v = tensor_slice(t, 0, n);
}

static void put(const Tensor *t, const float *src, int64_t n)
{
    Tensor v = tensor_slice(t, 0, n);
    device_upload(&v, src, (size_t)n * sizeof *src);
}

/* Loss of the pairs of a pack: scores by sequence in p->stage_score; gradients added to p->stage_d. */
static void pair_loss(Reward *p, const int64_t *items, int64_t n, double weight, StepStats *s)
{
    Tensor loss, d, score, margin, w;
    int64_t P = 0, q = 0;
    float *pairs = xmalloc((size_t)(2 * n + 1) * sizeof *pairs), *zero = xcalloc((size_t)(2 * n + 1), sizeof *zero);
    float *m = xmalloc((size_t)(n + 1) * sizeof *m), *ws = xmalloc((size_t)(n + 1) * sizeof *ws);
    for (int64_t i = 0; i < n; i++) {
        const PairItem *it = &p->train.at[items[i]];
        if (it->n_seqs == 2) {
            pairs[2 * P] = p->stage_score[q];
            pairs[2 * P + 1] = p->stage_score[q + 1];
            m[P] = (float)it->margin;
            ws[P++] = (float)weight;
        }
        q += it->n_seqs;
    }
    if (P) {
        put(&p->pair_score, pairs, 2 * P);
        put(&p->pair_dscore, zero, 2 * P);
        put(&p->margin, m, P);
        put(&p->pair_weight, ws, P);
        view(&loss, &p->pair_loss, P);
        view(&d, &p->pair_dscore, 2 * P);
        view(&score, &p->pair_score, 2 * P);
        view(&margin, &p->margin, P);
        view(&w, &p->pair_weight, P);
        op_rank_loss(&loss, &d, &score, &margin, &w);
        device_download(zero, &d, (size_t)(2 * P) * sizeof *zero);
        device_download(ws, &loss, (size_t)P * sizeof *ws);
    }
    P = q = 0;
    for (int64_t i = 0; i < n; i++) {
        const PairItem *it = &p->train.at[items[i]];
        if (it->n_seqs == 2) {
            double c = (double)pairs[2 * P], r = (double)pairs[2 * P + 1];
            p->stage_d[q] += zero[2 * P];
            p->stage_d[q + 1] += zero[2 * P + 1];
            s->rank_loss += (double)ws[P++];
            s->n_right += c > r;
            s->margin_sum += c - r;
            s->n_pairs++;
        }
        q += it->n_seqs;
    }
    free(pairs);
    free(zero);
    free(m);
    free(ws);
}

/* Loss of the labelled sequences of a pack, likewise. */
static void safety_loss(Reward *p, const int64_t *items, int64_t n, double weight, StepStats *s)
{
    Tensor loss, d, score, label, w;
    int64_t N = 0, q = 0, room = 2 * n + 1;
    float *x = xmalloc((size_t)room * sizeof *x), *y = xmalloc((size_t)room * sizeof *y);
    float *g = xcalloc((size_t)room, sizeof *g), *ws = xmalloc((size_t)room * sizeof *ws);
    int64_t *at = xmalloc((size_t)room * sizeof *at);
    for (int64_t i = 0; i < n; i++) {
        const PairItem *it = &p->train.at[items[i]];
        for (int k = 0; k < it->n_seqs; k++, q++) {
            if (it->label[k] == SAFETY_UNKNOWN)
                continue;
            x[N] = p->stage_score[q];
            y[N] = it->label[k] == SAFETY_SAFE;
            ws[N] = (float)weight;
            at[N++] = q;
            s->n_labels++;
            s->n_unsafe += it->label[k] == SAFETY_UNSAFE;
            s->n_hit += it->label[k] == SAFETY_UNSAFE && p->stage_score[q] < 0;
        }
    }
    if (N && weight > 0) {
        put(&p->label_score, x, N);
        put(&p->label_dscore, g, N);
        put(&p->label, y, N);
        put(&p->label_weight, ws, N);
        view(&loss, &p->label_loss, N);
        view(&d, &p->label_dscore, N);
        view(&score, &p->label_score, N);
        view(&label, &p->label, N);
        view(&w, &p->label_weight, N);
        op_bce_loss(&loss, &d, &score, &label, &w);
        device_download(g, &d, (size_t)N * sizeof *g);
        device_download(ws, &loss, (size_t)N * sizeof *ws);
        for (int64_t i = 0; i < N; i++) {
            p->stage_d[at[i]] += g[i];
            s->safety_loss += (double)ws[i];
        }
    }
    free(x);
    free(y);
    free(g);
    free(ws);
    free(at);
}

/* Forward, losses, backward of the packed items. */
static void run_pack(Reward *p, const int64_t *items, int64_t n, double pair_weight, double label_weight,
                     StepStats *s)
{
    RewardModel *r = &p->rm;
    int S = r->pack.n_seqs;
    size_t bytes = (size_t)S * sizeof(float);
    for (int i = 0; i < S; i++)
        r->rows[i] = r->pack.starts[i + 1] - 1;
    batch_set(&r->batch, &r->pack);
    model_forward(&r->model, &r->params, NULL, &r->batch, r->acts);
    Tensor hidden = acts_hidden(r->acts, &r->batch), dhidden = acts_dhidden(r->acts, &r->batch);
    device_upload(&r->head.rows, r->rows, (size_t)S * sizeof *r->rows);
    scalar_head_forward(&r->head, &r->model, &r->params, S, &hidden);
    device_download(p->stage_score, &r->head.score, bytes);
    memset(p->stage_d, 0, bytes);
    pair_loss(p, items, n, pair_weight, s);
    safety_loss(p, items, n, label_weight, s);
    for (int i = 0; i < S; i++) {
        double x = (double)p->stage_score[i];
        s->reward_sum += x;
        s->reward_min = s->n_rewards == 0 || x < s->reward_min ? x : s->reward_min;
        s->reward_max = s->n_rewards == 0 || x > s->reward_max ? x : s->reward_max;
        s->n_rewards++;
    }
    s->n_tokens += r->pack.n_tokens;
    device_upload(&r->head.dscore, p->stage_d, bytes);
    scalar_head_backward(&r->head, &r->model, &r->params, S, &dhidden, &p->grads);
    model_backward(&r->model, &r->params, NULL, &r->batch, r->acts, &p->grads);
}

static void run_batch(Reward *p, const int64_t *items, int64_t n, StepStats *s)
{
    int64_t pairs = 0, labels = 0;
    for (int64_t i = 0; i < n; i++) {
        const PairItem *it = &p->train.at[items[i]];
        pairs += it->n_seqs == 2;
        for (int k = 0; k < it->n_seqs; k++)
            labels += it->label[k] != SAFETY_UNKNOWN;
    }
    double wp = pairs ? 1.0 / (double)pairs : 0, wl = labels ? p->c->safety_weight / (double)labels : 0;
    Pack *pack = &p->rm.pack;
    for (int64_t i = 0, first = 0; i < n; first = i) {
        pack_clear(pack);
        for (; i < n; i++) {
            const PairItem *it = &p->train.at[items[i]];
            int len = it->seq[0].n + (it->n_seqs == 2 ? it->seq[1].n : 0);
            if (pack->n_seqs + it->n_seqs > pack->max_seqs || !pack_open(pack, len))
                break;
            for (int k = 0; k < it->n_seqs; k++)
                pack_add(pack, it->seq[k].ids, NULL, it->seq[k].n, items[i]);
        }
        run_pack(p, items + first, i - first, wp, wl, s);
    }
    s->rank_loss = pairs ? s->rank_loss / (double)pairs : 0;
    s->safety_loss = labels ? s->safety_loss / (double)labels : 0;
}

static void step_metrics(Trainer *t, const Reward *p, const StepStats *s, double lr, double norm)
{
    Metrics *m = &t->metrics;
    double n = s->n_pairs ? (double)s->n_pairs : NAN;
    double loss = s->rank_loss + p->c->safety_weight * s->safety_loss;
    metrics_set(m, "loss", loss);
    metrics_set(m, "rank_loss", s->rank_loss);
    metrics_set(m, "accuracy", (double)s->n_right / n);
    metrics_set(m, "margin", s->margin_sum / n);
    metrics_set(m, "mean_reward", s->reward_sum / (double)s->n_rewards);
    metrics_set(m, "min_reward", s->reward_min);
    metrics_set(m, "max_reward", s->reward_max);
    if (p->c->safety_weight > 0) {
        metrics_set(m, "safety_loss", s->safety_loss);
        metrics_set(m, "unsafe_recall", (double)s->n_hit / (s->n_unsafe ? (double)s->n_unsafe : NAN));
    }
    metrics_set(m, "learning_rate", lr);
    metrics_set(m, "grad_norm", norm);
    metrics_set(m, "num_tokens", (double)p->tokens_seen);
    metrics_set(m, "epoch", (double)(t->step + 1) / (double)p->steps_per_epoch);
    snprintf(t->progress, sizeof t->progress, "loss %.4f  accuracy %.3f  lr %.2e", loss,
             (double)s->n_right / n, lr);
}

/* ---- --dump-step: the first step for another program (tests/golden/check_reward_dump.py) ------------- */

static void dump_item(JsonWriter *w, const PairItem *it)
{
    jw_object(w);
    jw_knum(w, "margin", it->margin);
    jw_key(w, "sequences");
    jw_array(w);
    for (int k = 0; k < it->n_seqs; k++) {
        jw_array(w);
        for (int i = 0; i < it->seq[k].n; i++)
            jw_int(w, it->seq[k].ids[i]);
        jw_array_end(w);
    }
    jw_array_end(w);
    jw_key(w, "labels"); /* 1 safe, 0 unsafe, null unknown */
    jw_array(w);
    for (int k = 0; k < it->n_seqs; k++) {
        if (it->label[k] == SAFETY_UNKNOWN)
            jw_null(w);
        else
            jw_int(w, it->label[k] == SAFETY_SAFE);
    }
    jw_array_end(w);
    jw_object_end(w);
}

static int dump_weights(Reward *p, const char *name)
{
    char *folder = path_join(p->c->dump_dir, name);
    int rc = hf_save(&p->rm.params, folder, p->c->model, (HfFormat){ST_F32, 0}, NULL, 0);
    free(folder);
    return rc;
}

static int dump_batch(Reward *p, const int64_t *items, int64_t n, const StepStats *s, double lr)
{
    const OptimConfig *o = &p->c->optim;
    Str out = {0};
    JsonWriter w;
    jw_init(&w, &out, false);
    jw_object(&w);
    jw_knum(&w, "rank_loss", s->rank_loss);
    jw_knum(&w, "safety_loss", s->safety_loss);
    jw_knum(&w, "safety_weight", p->c->safety_weight);
    jw_knum(&w, "learning_rate", lr);
    jw_knum(&w, "beta1", o->beta1);
    jw_knum(&w, "beta2", o->beta2);
    jw_knum(&w, "eps", o->eps);
    jw_knum(&w, "weight_decay", o->weight_decay);
    jw_knum(&w, "max_grad_norm", o->max_grad_norm);
    jw_key(&w, "items");
    jw_array(&w);
    for (int64_t i = 0; i < n; i++)
        dump_item(&w, &p->train.at[items[i]]);
    jw_array_end(&w);
    jw_object_end(&w);
    str_add(&out, "\n");
    char *path = path_join(p->c->dump_dir, "step.json");
    char *grads = path_join(p->c->dump_dir, "gradients.safetensors");
    int rc = file_write_atomic(path, str_get(&out), out.n);
    if (rc == 0)
        rc = grads_write(&p->grads, grads);
    free(path);
    free(grads);
    str_free(&out);
    return rc;
}

static int reward_step(Trainer *t)
{
    Reward *p = t->state;
    const RewardConfig *c = p->c;
    int64_t epoch = t->step / p->steps_per_epoch, first = t->step % p->steps_per_epoch * c->batch_size;
    const char *bad = NULL;
    StepStats s = {0};
    if (epoch != p->order_epoch) {
        free(p->order);
        p->n_order = pair_set_order(&p->train, (uint64_t)c->run.seed, epoch, &p->order);
        p->order_epoch = epoch;
    }
    int64_t n = p->n_order - first < c->batch_size ? p->n_order - first : c->batch_size;
    bool dump = c->dump_dir[0] && t->step == 0;
    double lr = schedule_lr(&c->optim, t->step, t->total_steps);
    int rc = 0;
    if (dump) {
        TRY(dir_make(c->dump_dir));
        TRY(dump_weights(p, "before"));
    }
    run_batch(p, p->order + first, n, &s);
    p->tokens_seen += s.n_tokens;
    p->items_seen += n;
    if (dump)
        TRY(dump_batch(p, p->order + first, n, &s, lr));
    double norm = optim_step(&p->optim, lr, &bad);
    if (dump)
        TRY(dump_weights(p, "after"));
    step_metrics(t, p, &s, lr, norm);
    rc = optim_check(&p->optim, t->step + 1, bad);
fail:
    return rc;
}

/* ---- evaluation and results ----------------------------------------------------------------------- */

/* whole: with the intervals, which take time and go into eval.json alone. */
static void evaluate(Reward *p, EvalTable *table, bool whole)
{
    float(*score)[2] = xcalloc((size_t)p->eval.n + 1, sizeof *score);
    eval_score(&p->rm, &p->eval, score);
    if (whole)
        eval_table(table, &p->eval, (const float(*)[2])score, EVAL_MODEL, DETECT_PRECISION);
    else
        eval_counts(table, &p->eval, (const float(*)[2])score, EVAL_MODEL);
    free(score);
}

static int reward_eval_step(Trainer *t)
{
    Reward *p = t->state;
    EvalTable table;
    if (!p->eval.n)
        return 0;
    evaluate(p, &table, false);
    metrics_set(&t->metrics, "eval_accuracy", accuracy_of(table.all));
    metrics_set(&t->metrics, "eval_loss", table.loss);
    metrics_set(&t->metrics, "eval_margin", table.margin);
    metrics_set(&t->metrics, "eval_mean_reward", table.mean_reward);
    metrics_set(&t->metrics, "eval_min_reward", table.min_reward);
    metrics_set(&t->metrics, "eval_max_reward", table.max_reward);
    return 0;
}

static int reward_state(Trainer *t, BlobList *l)
{
    Reward *p = t->state;
    blob_add_params(l, "model", &p->rm.params);
    blob_add_optim(l, "model", &p->optim);
    blob_add(l, "tokens_seen", &p->tokens_seen, sizeof p->tokens_seen);
    blob_add(l, "items_seen", &p->items_seen, sizeof p->items_seen);
    return 0;
}

static void calibration_json(Str *out, const Calibration *k)
{
    JsonWriter w;
    jw_init(&w, out, false);
    jw_object(&w);
    jw_kbool(&w, "anchored", k->anchored);
    jw_knum(&w, "precision_50", k->precision50);
    jw_knum(&w, "recall_50", k->recall50);
    jw_knum(&w, "precision_15", k->precision15);
    jw_knum(&w, "recall_15", k->recall15);
    jw_kint(&w, "n_labels", k->n_labels);
    jw_object_end(&w);
}

/* What the exported weights have learned from ("rlhf_training" in config.json). */
static void training_json(Str *out, const Reward *p)
{
    JsonWriter w;
    jw_init(&w, out, false);
    jw_object(&w);
    jw_kint(&w, "items", p->train.n); /* pairs, and answers with a label alone */
    jw_kint(&w, "pairs", p->train.n_pairs);
    jw_kint(&w, "labels", p->train.n_labels);
    jw_kint(&w, "items_seen", p->items_seen); /* those seen twice counted twice */
    jw_object_end(&w);
}

static int write_eval(Trainer *t, const EvalTable *table)
{
    Str json = {0}, text = {0};
    JsonWriter w;
    jw_init(&w, &json, true);
    eval_json(table, &w);
    str_add(&json, "\n");
    char *path = path_join(t->run->out_dir, "eval.json");
    int rc = file_write_atomic(path, str_get(&json), json.n);
    eval_print(table, &text);
    if (rc == 0)
        log_info("%s", str_get(&text));
    free(path);
    str_free(&json);
    str_free(&text);
    return rc;
}

static int reward_finish(Trainer *t)
{
    Reward *p = t->state;
    EvalTable table = {0};
    Str json = {0}, training = {0};
    int rc = 0;
    char *folder = path_join(t->run->out_dir, "export");
    if (p->eval.n) {
        evaluate(p, &table, true);
        TRY(write_eval(t, &table));
    }
    Calibration k = eval_calibration(&table, p->c->safety_weight > 0);
    calibration_json(&json, &k);
    training_json(&training, p);
    HfExtra extra[] = {{"rlhf_calibration", str_get(&json)}, {"rlhf_training", str_get(&training)}};
    TRY(hf_save(&p->rm.params, folder, p->c->model, run_format(t->run), extra, 2));
fail:
    free(folder);
    str_free(&json);
    str_free(&training);
    return rc;
}

static void reward_free(Trainer *t)
{
    Reward *p = t->state;
    free(p->order);
    reward_model_free(&p->rm);
    optim_free(&p->optim);
    grads_free(&p->grads);
    pair_set_free(&p->train);
    pair_set_free(&p->eval);
    record_set_free(&p->train_records);
    record_set_free(&p->eval_records);
    tokenizer_close(p->tok);
    arena_free(&p->weights);
    arena_free(&p->gradients);
    arena_free(&p->moments);
    arena_free(&p->work);
    arena_free(&p->host);
}

const TrainerDef reward_trainer = {
    .cli = {.program = "rlhf-reward train",
            .summary = "train a helpfulness or safety reward model from preference pairs",
            .description =
                "The result is a sequence-classification folder OUT_DIR/export. A safety model needs\n"
                "safety_loss.weight > 0 and labels: only then does sigmoid(score) < 0.15 mean anything.",
            .examples = "  rlhf-reward train -c configs/reward-helpful.yaml --set model=runs/sft/export\n",
            .fields = fields,
            .config_bytes = sizeof(RewardConfig),
            .options = options,
            .plans = true},
    .state_bytes = sizeof(Reward),
    .init = reward_init,
    .alloc = reward_alloc,
    .plan = reward_plan,
    .load = reward_load,
    .step = reward_step,
    .eval = reward_eval_step,
    .best_metric = "eval_accuracy",
    .best_is_highest = true,
    .state = reward_state,
    .finish = reward_finish,
    .free = reward_free,
};
