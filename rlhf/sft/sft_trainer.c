/* sft_trainer.c - supervised fine-tuning (Llama 2, section 3.1): next-token loss on the answers,
 *
 *   L = sum over target tokens t of the batch of w[t] * -log p(t) / sum of w,
 *
 * w[t] = the record's weight (1 unless given). The denominator belongs to the whole batch and is known
 * before its first micro-batch; sequences go through whole and in order, and gradients are one chain
 * over tokens in that order (in bf16 on a card: over units of unit_tokens): micro_batch_tokens never
 * changes a bit.
 * Tested by tests/e2e/test_sft.sh and against PyTorch by tests/golden. */
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/model/hf.h"
#include "common/model/safetensors.h"
#include "rlhf/sft/sft.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- inputs ---- */

static int open_model(Sft *p)
{
    const SftConfig *c = p->c;
    int rc = 0;
    TRY(tokenizer_open(&p->tok, c->model));
    TemplateKind kind = (TemplateKind)c->template_kind;
    if (c->pretrain && kind == TEMPLATE_AUTO)
        kind = TEMPLATE_PLAIN; /* a text has no turns; only BOS and EOS are used */
    TRY(template_init(&p->chat, kind, p->tok));
    TRY(hf_read_causal(&p->config, c->model, p->tok, ""));
    if (c->init == INIT_CHECKPOINT && !hf_has_weights(c->model))
        return error_set(ERR_NOINPUT, "%s: no model.safetensors; give a folder with weights, or set init: "
                                      "random to train from scratch", c->model);
fail:
    return rc;
}

static int check_sizes(const Trainer *t, const Sft *p)
{
    const SftConfig *c = p->c;
    const Config *cfg = t->cli.config;
    if (c->max_length > p->config.max_position)
        return error_set(ERR_CONFIG, "%s: max_length: %lld, but the model has max_position_embeddings %lld; "
                                     "lower max_length", config_where(cfg, "max_length"),
                         (long long)c->max_length, (long long)p->config.max_position);
    if (c->max_length > c->micro_batch_tokens)
        return error_set(ERR_CONFIG, "%s: micro_batch_tokens: %lld cannot hold one sequence of max_length %lld; "
                                     "raise it or lower max_length", config_where(cfg, "micro_batch_tokens"),
                         (long long)c->micro_batch_tokens, (long long)c->max_length);
    int rc = trainer_check_units(t, c->micro_batch_tokens);
    return rc < 0 ? rc : mix_check(c->train.at, c->train.n, "data.train");
}

static int sft_init(Trainer *t)
{
    Sft *p = t->state;
    const SftConfig *c = p->c = t->config;
    int rc = 0;
    t->memory_advice = "gradient_checkpointing, micro_batch_tokens, max_length";
    TRY(open_model(p));
    TRY(check_sizes(t, p));
    TRY(sft_data_read(&p->train, c->train.at, c->train.n, &p->chat, c));
    if (c->eval_path[0]) {
        DataSource eval = {c->eval_path, 0};
        TRY(sft_data_read(&p->eval, &eval, 1, &p->chat, c));
        TRY(record_check_overlap(&p->train.records, "data.train", &p->eval.records, "data.eval"));
    }
    p->data_hash = sft_data_hash(&p->eval, sft_data_hash(&p->train, 1));
    p->n_order = mix_order(&p->order, p->train.source_first, c->train.at, c->train.n,
                           (uint64_t)c->run.seed, 0);
    if (p->n_order == 0) {
        rc = error_set(ERR_DATA, "data.train: no sequence is left");
        goto fail;
    }
    p->steps_per_epoch = (p->n_order + c->batch_size - 1) / c->batch_size;
    t->total_steps = p->steps_per_epoch * c->epochs;
fail:
    return rc;
}

static void plan_arenas(Trainer *t, Sft *p)
{
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

static int sft_alloc(Trainer *t)
{
    Sft *p = t->state;
    int64_t tokens = p->c->micro_batch_tokens;
    size_t n = (size_t)tokens;
    int rc = 0;
    if (t->planning)
        plan_arenas(t, p);
    TRY(model_init(&p->model, &p->config, trainer_dtype(t), t->dev, &p->weights, p->c->max_length));
    params_alloc(&p->params, &p->model.table, &p->weights, "policy", false);
    grads_alloc(&p->grads, &p->model.table, &p->gradients);
    optim_alloc(&p->optim, &p->c->optim, &p->params, &p->grads, &p->moments);
    if (!p->acts) {
        p->acts = acts_new(&p->model, tokens, true, (Recompute)p->c->recompute);
        pack_init(&p->pack, (int)tokens, (int)tokens);
        p->pack.unit_tokens = trainer_unit_tokens(t);
    }
    acts_alloc(p->acts, &p->work);
    batch_alloc(&p->batch, &p->work, t->dev, tokens, tokens);
    lm_head_alloc(&p->head, &p->model, &p->work, &p->host, tokens, true);
    if (t->planning) {
        acts_note(p->acts, &t->plan, &p->work, "");
        lm_head_note(&p->head, &t->plan, &p->work);
    }
    p->rows = arena_bytes(&p->host, n * sizeof *p->rows);
    p->target = arena_bytes(&p->host, n * sizeof *p->target);
    p->weight = arena_bytes(&p->host, n * sizeof *p->weight);
    p->logp = arena_bytes(&p->host, n * sizeof *p->logp);
    p->entropy = arena_bytes(&p->host, n * sizeof *p->entropy);
    p->hit = arena_bytes(&p->host, n * sizeof *p->hit);
fail:
    return rc;
}

/* Of sequences items[0..n), or the first n, and the number of trained spans in them. */
static Work data_work(const Sft *p, WorkKind kind, const SftData *d, const int64_t *items, int64_t n, double *spans)
{
    Work w = {.kind = kind, .model = (char *)p->c->model, .sequences = (double)n};
    *spans = 0;
    for (int64_t i = 0; i < n; i++) {
        const Example *e = &d->examples.at[items ? items[i] : i];
        w.tokens += e->n;
        for (int k = 1; k < e->n; k++) {
            w.rows += e->mask[k];
            *spans += e->mask[k] && !e->mask[k - 1];
        }
    }
    return w;
}

static void sft_plan(Trainer *t, RunPlan *plan)
{
    Sft *p = t->state;
    double answers, ignored, epochs = (double)t->total_steps / (double)p->steps_per_epoch;
    Work train = data_work(p, WORK_TRAIN, &p->train, p->order, p->n_order, &answers);
    Work eval = data_work(p, WORK_FORWARD, &p->eval, NULL, p->eval.examples.n, &ignored);
    plan->micro_batch_tokens = (double)p->c->micro_batch_tokens;
    plan->recompute = p->c->recompute;
    plan->answer_tokens = p->c->pretrain || answers == 0 ? 0 : train.rows / answers;
    run_plan_work_times(plan, &train, epochs);
    run_plan_update(plan, &p->model.table, p->c->model, (double)t->total_steps);
    run_plan_work_times(plan, &eval, (double)trainer_n_evals(t));
    char *folder = path_join(t->run->out_dir, "export");
    run_plan_model(plan, folder, p->c->model, &p->model.table, run_element(t->run), false);
    free(folder);
}

static int sft_load(Trainer *t)
{
    Sft *p = t->state;
    int rc = 0;
    if (p->c->init == INIT_RANDOM)
        params_init_random(&p->params, (uint64_t)t->run->seed);
    else
        TRY(hf_load_params(&p->params, p->c->model, HEAD_AS_STORED, (uint64_t)t->run->seed));
    grads_zero(&p->grads);
    /* later stages check their held-out prompts against these */
    char *path = path_join(t->run->out_dir, "prompts.bin");
    rc = prompt_hashes_write(path, &p->train.records);
    free(path);
fail:
    return rc;
}

/* ---- one step ---- */

static double record_weight(const SftData *d, const Example *e)
{
    return d->records.at[e->record].weight;
}

/* Packs the sequences items[*next...to) while they fit, and lists their target rows with the records'
 * weights. Returns the number of rows. */
static int64_t next_pack(Sft *p, const SftData *d, const int64_t *items, int64_t *next, int64_t to)
{
    Pack *k = &p->pack;
    int64_t rows = 0, first = *next;
    pack_clear(k);
    for (; *next < to; (*next)++) {
        const Example *e = &d->examples.at[items ? items[*next] : *next];
        if (!pack_open(k, e->n))
            break;
        pack_add(k, e->ids, e->mask, e->n, *next);
        rows = pack_list_targets(k, (float)record_weight(d, e), p->rows, p->target, p->weight, rows);
    }
    CHECK(*next > first, "sequence %lld does not fit a pack of %d tokens", (long long)first, k->max_tokens);
    return rows;
}

/* Forward over the packed rows, with scale > 0 also backward of weight * scale * -logp. */
static void run_pack(Sft *p, int64_t rows, double scale, SftSums *s)
{
    LmHead *h = &p->head;
    size_t floats = (size_t)rows * sizeof(float);
    s->n_tokens += p->pack.n_tokens;
    batch_set(&p->batch, &p->pack);
    model_forward(&p->model, &p->params, NULL, &p->batch, p->acts);
    Tensor hidden = acts_hidden(p->acts, &p->batch), dhidden = acts_dhidden(p->acts, &p->batch);
    lm_head_set(h, &p->batch, p->rows, p->target, rows);
    if (scale > 0) {
        float *scaled = p->entropy; /* free until the download below */
        for (int64_t i = 0; i < rows; i++)
            scaled[i] = (float)((double)p->weight[i] * scale);
        device_upload(&h->weight, scaled, floats);
        lm_head_run(h, &p->model, &p->params, LM_XENT, rows, &hidden, &dhidden, &p->grads, 1.0, 0);
        model_backward(&p->model, &p->params, NULL, &p->batch, p->acts, &p->grads);
    } else {
        lm_head_run(h, &p->model, &p->params, LM_LOGP, rows, &hidden, NULL, NULL, 1.0, 0);
    }
    device_download(p->logp, &h->logp, floats);
    device_download(p->entropy, &h->entropy, floats);
    device_download(p->hit, &h->hit, floats);
    for (int64_t i = 0; i < rows; i++) {
        s->loss -= (double)p->weight[i] * (double)p->logp[i];
        s->entropy += (double)p->entropy[i];
        s->weight += (double)p->weight[i];
        s->n_hits += p->hit[i] == 1;
    }
    s->n_targets += rows;
}

static void run_batch(Sft *p, const int64_t *items, int64_t n, SftSums *s)
{
    double weight = 0;
    for (int64_t i = 0; i < n; i++) {
        const Example *e = &p->train.examples.at[items[i]];
        for (int k = 1; k < e->n; k++)
            weight += e->mask[k] ? (double)(float)record_weight(&p->train, e) : 0;
    }
    for (int64_t next = 0; next < n;) {
        int64_t rows = next_pack(p, &p->train, items, &next, n);
        run_pack(p, rows, 1.0 / weight, s);
    }
}

static void step_metrics(Trainer *t, const Sft *p, const SftSums *s, double lr, double norm)
{
    Metrics *m = &t->metrics;
    double loss = s->loss / s->weight;
    metrics_set(m, "loss", loss);
    metrics_set(m, "entropy", s->entropy / (double)s->n_targets);
    metrics_set(m, "mean_token_accuracy", (double)s->n_hits / (double)s->n_targets);
    metrics_set(m, "learning_rate", lr);
    metrics_set(m, "grad_norm", norm);
    metrics_set(m, "epoch", (double)(t->step + 1) / (double)p->steps_per_epoch);
    metrics_set(m, "num_tokens", (double)p->tokens_seen);
    snprintf(t->progress, sizeof t->progress, "loss %.4f  lr %.2e", loss, lr);
}

/* The same config with other records would be another run. */
static int check_data(Sft *p)
{
    if (!p->saved_hash)
        p->saved_hash = p->data_hash;
    if (p->saved_hash == p->data_hash)
        return 0;
    return error_set(ERR_DATA, "data.train or data.eval changed since this run began (hash %016llx, was "
                               "%016llx); restore the files, or start again with overwrite=true",
                     (unsigned long long)p->data_hash, (unsigned long long)p->saved_hash);
}

static int sft_step(Trainer *t)
{
    Sft *p = t->state;
    const SftConfig *c = p->c;
    int64_t epoch = t->step / p->steps_per_epoch, first = t->step % p->steps_per_epoch * c->batch_size;
    const char *bad = NULL;
    SftSums s = {0};
    int rc = check_data(p);
    if (rc < 0)
        return rc;
    if (epoch != p->order_epoch) {
        free(p->order);
        p->n_order = mix_order(&p->order, p->train.source_first, c->train.at, c->train.n,
                               (uint64_t)c->run.seed, (uint64_t)epoch);
        p->order_epoch = epoch;
    }
    int64_t n = p->n_order - first < c->batch_size ? p->n_order - first : c->batch_size;
    run_batch(p, p->order + first, n, &s);
    p->tokens_seen += s.n_tokens;
    double lr = schedule_lr(&c->optim, t->step, t->total_steps), norm = NAN;
    if (isfinite(s.loss)) {
        norm = optim_step(&p->optim, lr, &bad);
    } else {
        optim_drop(&p->optim);
        bad = "the loss";
    }
    step_metrics(t, p, &s, lr, norm);
    return optim_check(&p->optim, t->step + 1, bad);
}

/* ---- evaluation and results ---- */

static int sft_eval(Trainer *t)
{
    Sft *p = t->state;
    SftSums s = {0};
    if (!p->eval.examples.n)
        return 0;
    for (int64_t next = 0; next < p->eval.examples.n;) {
        int64_t rows = next_pack(p, &p->eval, NULL, &next, p->eval.examples.n);
        run_pack(p, rows, 0, &s);
    }
    metrics_set(&t->metrics, "eval_loss", s.loss / s.weight);
    metrics_set(&t->metrics, "eval_entropy", s.entropy / (double)s.n_targets);
    metrics_set(&t->metrics, "eval_mean_token_accuracy", (double)s.n_hits / (double)s.n_targets);
    return 0;
}

static int sft_state(Trainer *t, BlobList *l)
{
    Sft *p = t->state;
    blob_add_params(l, "model", &p->params);
    blob_add_optim(l, "model", &p->optim);
    blob_add(l, "tokens_seen", &p->tokens_seen, sizeof p->tokens_seen);
    blob_add(l, "data_hash", &p->saved_hash, sizeof p->saved_hash);
    return 0;
}

static int sft_finish(Trainer *t)
{
    Sft *p = t->state;
    char *folder = path_join(t->run->out_dir, "export");
    int rc = hf_save(&p->params, folder, p->c->model, run_format(t->run), NULL, 0);
    if (rc == 0)
        log_info("%s %s: %lld sequences x %lld epochs, %lld tokens", p->c->pretrain ? "pretrained" : "fine-tuned",
                 p->c->model, (long long)p->n_order, (long long)p->c->epochs, (long long)p->tokens_seen);
    free(folder);
    return rc;
}

static void sft_free(Trainer *t)
{
    Sft *p = t->state;
    free(p->order);
    acts_free(p->acts);
    pack_free(&p->pack);
    optim_free(&p->optim);
    grads_free(&p->grads);
    params_free(&p->params);
    model_free(&p->model);
    sft_data_free(&p->train);
    sft_data_free(&p->eval);
    tokenizer_close(p->tok);
    arena_free(&p->weights);
    arena_free(&p->gradients);
    arena_free(&p->moments);
    arena_free(&p->work);
    arena_free(&p->host);
}

static const CliOption options[] = {
    {"--pretrain", NULL, "pretrain", "train a base model on {text} records"},
    {0},
};

const TrainerDef sft_trainer = {
    .cli = {.program = "rlhf-sft",
            .summary = "supervised fine-tuning: next-token loss on the assistant's answers",
            .description =
                "Reads {messages} or {prompt, completion} records, trains on the answers (their closing\n"
                "token included) and writes a Hugging Face folder to OUT_DIR/export. A run that was\n"
                "killed or stopped goes on, to the same bits, with --resume auto.",
            .examples = "  rlhf-sft -c configs/sft.yaml out_dir=runs/sft model=llama-2-7b-hf \\\n"
                        "           'data.train=[{path: train.jsonl}]' --resume auto\n"
                        "  rlhf-sft --pretrain init=random ...\n",
            .fields = sft_fields,
            .config_bytes = sizeof(SftConfig),
            .options = options,
            .plans = true},
    .state_bytes = sizeof(Sft),
    .init = sft_init,
    .alloc = sft_alloc,
    .plan = sft_plan,
    .load = sft_load,
    .step = sft_step,
    .eval = sft_eval,
    .best_metric = "eval_loss",
    .state = sft_state,
    .finish = sft_finish,
    .free = sft_free,
};
