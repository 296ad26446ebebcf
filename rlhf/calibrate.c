/* calibrate.c - see calibrate.h. A measurement warms up with few tokens, chooses as many as fill its share of
 * the time, and takes the mean, because a run takes the mean too.
 *
 * Weights are drawn by a shift register: zeros that nobody wrote would lie in one page of memory, and be read
 * from a cache. Tested by tests/e2e/test_plan.sh. */
#include "rlhf/calibrate.h"

#include "common/base/error.h"
#include "common/base/progress.h"
#include "common/generate/generate.h"
#include "common/model/llama.h"
#include "common/runtime/device.h"
#include "common/train/optim.h"

#include <stdlib.h>
#include <string.h>

enum {
    FIRST_TOKENS = 32,        /* of the warm-up */
    MOST_TOKENS = 4096,       /* of a measurement */
    PROMPT = 16,              /* tokens of a prompt: prefilled once, all answers share it */
    FEW_STEPS = 2,
    MOST_STEPS = 64,
    READ_FLOATS = 16 << 20,   /* 64 MiB: beyond the caches of most machines */
    MEASUREMENTS = 7,         /* that share the time */
};
static const double SLICE_CPU = 16e6, SLICE_CARD = 512e6; /* parameters */

typedef struct {
    const CalibrateAsk *ask;
    Device *dev;
    ModelConfig config; /* of the slice */
    OptimConfig optim_config;
    Model model;
    ParamSet params;
    Grads grads;
    Optim optim;
    Acts *acts;
    Batch batch;
    Pack pack;
    LmHead head;
    Generator *gen;
    Tensor read, sums;  /* (READ_FLOATS), their partial sums */
    Arena weights, work, host;
    int64_t tokens, length, slots;
    bool train;
    int32_t *ids;       /* (tokens) below V */
    double part;        /* seconds of a measurement */
} Bench;

/* ---- the slice ---- */

static double layer_params(const ModelConfig *c)
{
    double Q = (double)(c->H * c->D), G = (double)(c->K * c->D);
    return (double)c->C * (2 * Q + 2 * G + 3 * (double)c->F);
}

void calibrate_slice(ModelConfig *c, double params)
{
    double head = (double)(c->V * c->C) / (double)c->L, layers = params / (layer_params(c) + head);
    int64_t L = layers < 1 ? 1 : layers > (double)c->L ? c->L : (int64_t)layers;
    int64_t V = c->V * L / c->L;
    c->V = V > 64 ? V : c->V < 64 ? c->V : 64;
    c->L = L;
    c->head = HEAD_LM;
    c->max_position = PROMPT + MOST_TOKENS; /* no weight depends on it */
}

/* Values over [-0.05, 0.05), the spread of a usual initialization, by xorshift: a prime number of them, again and
 * again, since a clock does not see more and billions are asked for. */
enum { FILL_VALUES = 65521 };
typedef struct {
    real_t value[FILL_VALUES];
    int64_t at;
} Filling;

static void filling_init(Filling *f)
{
    uint32_t x = 2463534242U;
    f->at = 0;
    for (int i = 0; i < FILL_VALUES; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        f->value[i] = (real_t)(0.1 * ((double)x / 4294967296.0 - 0.5));
    }
}

static void fill_run(void *ctx, int64_t first, int64_t n, real_t *dst)
{
    Filling *f = ctx;
    (void)first;
    while (n > 0) {
        const int64_t some = n < FILL_VALUES - f->at ? n : FILL_VALUES - f->at;
        memcpy(dst, f->value + f->at, (size_t)some * sizeof *dst);
        f->at = (f->at + some) % FILL_VALUES;
        dst += some;
        n -= some;
    }
}

void calibrate_fill(ParamSet *p)
{
    Filling *f = xmalloc(sizeof *f);
    filling_init(f);
    for (int i = 0; i < p->table->n; i++) {
        if (p->table->def[i].tied_to >= 0)
            continue;
        if (p->w[i].n_dims == 1)
            op_fill(&p->w[i], 1);
        else
            param_store(&p->w[i], fill_run, f);
    }
    free(f);
    params_refresh(p);
}

/* ---- memory ---- */

static int64_t positions(const Bench *b)
{
    int64_t longest = PROMPT + FEW_STEPS + MOST_STEPS;
    return b->length > longest ? b->length : longest;
}

static int bench_alloc(Bench *b)
{
    int rc = model_init(&b->model, &b->config, (DType)b->ask->dtype, b->dev, &b->weights, positions(b));
    if (rc < 0)
        return rc;
    params_alloc(&b->params, &b->model.table, &b->weights, "model", !b->train);
    if (!b->acts)
        b->acts = acts_new(&b->model, b->tokens, b->train, (Recompute)b->ask->recompute);
    acts_alloc(b->acts, &b->work);
    batch_alloc(&b->batch, &b->work, b->dev, b->tokens, b->tokens);
    lm_head_alloc(&b->head, &b->model, &b->work, &b->host, b->tokens, b->train);
    if (b->train) {
        grads_alloc(&b->grads, &b->model.table, &b->weights);
        optim_alloc(&b->optim, &b->optim_config, &b->params, &b->grads, &b->weights);
        return 0;
    }
    b->read = arena_rows1(&b->work, DTYPE_F32, READ_FLOATS);
    b->sums = arena_rows1(&b->work, DTYPE_F64, (READ_FLOATS + SUMSQ_BLOCK - 1) / SUMSQ_BLOCK);
    if (b->slots && !b->gen)
        b->gen = generator_new(&b->model, b->slots, PROMPT + FEW_STEPS + MOST_STEPS,
                               b->tokens > b->slots ? b->tokens : b->slots);
    if (b->slots)
        generator_alloc(b->gen, &b->work, &b->host);
    return 0;
}

/* All but the device, and the number of tokens. */
static void bench_close(Bench *b)
{
    generator_free(b->gen);
    acts_free(b->acts);
    optim_free(&b->optim);
    grads_free(&b->grads);
    params_free(&b->params);
    model_free(&b->model);
    arena_free(&b->weights);
    arena_free(&b->work);
    arena_free(&b->host);
    b->gen = NULL;
    b->acts = NULL;
}

static size_t bench_plan(Bench *b)
{
    Arena *const all[] = {&b->weights, &b->work, &b->host};
    size_t sum = 0;
    arena_init(&b->weights, b->dev, ARENA_DEVICE, "weights");
    arena_init(&b->work, b->dev, ARENA_DEVICE, "work");
    arena_init(&b->host, b->dev, ARENA_HOST, "host");
    if (bench_alloc(b) < 0)
        return SIZE_MAX;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        sum += arena_planned(all[i]);
    return sum;
}

/* Fewer tokens until half of the memory holds it all. */
static int bench_open(Bench *b)
{
    size_t most = device_memory_bytes(b->dev) / 2;
    int rc = 0;
    b->tokens = b->ask->tokens < MOST_TOKENS ? b->ask->tokens : MOST_TOKENS;
    b->tokens = b->tokens < FIRST_TOKENS ? FIRST_TOKENS : b->tokens;
    while (bench_plan(b) > most) {
        bench_close(b);
        if (b->tokens <= FIRST_TOKENS)
            return error_set(ERR_UNAVAILABLE, "a layer of this model does not fit into half of the memory of %s",
                             device_text(b->dev));
        b->tokens /= 2;
    }
    TRY(arena_commit(&b->weights));
    TRY(arena_commit(&b->work));
    TRY(arena_commit(&b->host));
    TRY(bench_alloc(b));
    calibrate_fill(&b->params);
    if (b->train)
        grads_zero(&b->grads);
    else
        op_fill(&b->read, 1);
    b->length = b->length < b->tokens ? b->length : b->tokens;
    for (int64_t i = 0; i < b->tokens; i++)
        b->ids[i] = (int32_t)((i * 7919) % b->config.V);
fail:
    return rc;
}

/* ---- what is measured ---- */

static void pack_tokens(Bench *b, int64_t n)
{
    pack_clear(&b->pack);
    for (int64_t at = 0; at < n; at += b->length)
        pack_add(&b->pack, b->ids + at, NULL, (int)(n - at < b->length ? n - at : b->length), at);
    batch_set(&b->batch, &b->pack);
}

static void trunk(Bench *b, int64_t n)
{
    pack_tokens(b, n);
    model_forward(&b->model, &b->params, NULL, &b->batch, b->acts);
    if (b->train)
        model_backward(&b->model, &b->params, NULL, &b->batch, b->acts, &b->grads);
}

/* Rows of the hidden states that the trunk left. */
static void head(Bench *b, int64_t n)
{
    Tensor hidden = acts_hidden(b->acts, &b->batch), dhidden = {0};
    int32_t *rows = xmalloc((size_t)n * sizeof *rows);
    for (int64_t i = 0; i < n; i++)
        rows[i] = (int32_t)(i % b->batch.T);
    device_upload(&b->head.rows, rows, (size_t)n * sizeof *rows);
    device_upload(&b->head.target, b->ids, (size_t)n * sizeof *b->ids);
    free(rows);
    if (b->train) {
        dhidden = acts_dhidden(b->acts, &b->batch);
        lm_head_run(&b->head, &b->model, &b->params, LM_XENT, n, &hidden, &dhidden, &b->grads, 1, 0);
    } else {
        lm_head_run(&b->head, &b->model, &b->params, LM_LOGP, n, &hidden, NULL, NULL, 1, 0);
    }
}

static void update(Bench *b, int64_t n)
{
    const char *bad;
    for (int64_t i = 0; i < n; i++)
        optim_step(&b->optim, 1e-6, &bad);
}

static void read_memory(Bench *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        op_sumsq(&b->sums, &b->read);
}

typedef void Pass(Bench *b, int64_t n);

static double time_pass(Bench *b, Pass *pass, int64_t n)
{
    double start = time_now();
    pass(b, n);
    device_sync(b->dev);
    return time_now() - start + 1e-9;
}

/* Seconds for each of the n that a pass is given, at the largest n that its share of the time allows. */
static double measure(Bench *b, Pass *pass, int64_t first, int64_t most)
{
    int64_t n = first < most ? first : most, count = 0;
    time_pass(b, pass, n); /* pages, tables, a card's choice of kernels */
    double once = time_pass(b, pass, n), want = (double)n * b->part / once, sum = 0;
    n = want > (double)most ? most : want < (double)n ? n : (int64_t)want;
    do {
        sum += time_pass(b, pass, n);
        count++;
    } while (sum < b->part && count < 1000);
    return sum / (double)(count * n);
}

static double generate_seconds(Bench *b, int64_t rows, int64_t steps)
{
    GenRequest *req = xcalloc((size_t)rows, sizeof *req);
    GenResult *res = xcalloc((size_t)rows, sizeof *res);
    int32_t *ids = xmalloc((size_t)(rows * steps) * sizeof *ids);
    GenOptions o = {.seed = 1, .temperature = 1, .max_new_tokens = (int)steps};
    for (int64_t i = 0; i < rows; i++) {
        req[i] = (GenRequest){b->ids, PROMPT, 1, (uint32_t)i, 0};
        res[i].ids = ids + i * steps;
    }
    double start = time_now();
    CHECK(generate(b->gen, &b->params, req, rows, &o, res, NULL, NULL, NULL) == 0, "%s", error_text());
    double s = time_now() - start;
    free(req);
    free(res);
    free(ids);
    return s;
}

/* Seconds of a step with `rows` answers: many steps less few, which leaves the prompt out. */
static double measure_step(Bench *b, int64_t rows)
{
    generate_seconds(b, rows, FEW_STEPS);
    double few = generate_seconds(b, rows, FEW_STEPS), sum = 0;
    int64_t steps = (int64_t)(b->part / few * FEW_STEPS), count = 0;
    steps = steps < 4 ? 4 : steps > MOST_STEPS ? MOST_STEPS : steps;
    do {
        few = generate_seconds(b, rows, FEW_STEPS);
        sum += generate_seconds(b, rows, FEW_STEPS + steps) - few;
        count++;
    } while (sum < b->part / 2 && count < 100);
    return sum > 0 ? sum / (double)(count * steps) : 0;
}

/* ---- the whole ---- */

static int calibrate_train(Rates *r, Bench *b, double deeper, double wider)
{
    int rc = 0;
    b->train = true;
    TRY(bench_open(b));
    r->train_token = measure(b, trunk, FIRST_TOKENS, b->tokens) * deeper;
    r->train_row = measure(b, head, FIRST_TOKENS, b->tokens) * wider;
    r->update_param = measure(b, update, 1, 1) / (double)param_table_count(&b->model.table);
fail:
    bench_close(b);
    return rc;
}

static int calibrate_forward(Rates *r, Bench *b, double deeper, double wider)
{
    int rc = 0;
    b->train = false;
    TRY(bench_open(b));
    r->forward_token = measure(b, trunk, FIRST_TOKENS, b->tokens) * deeper;
    r->forward_row = measure(b, head, FIRST_TOKENS, b->tokens) * wider;
    r->byte = measure(b, read_memory, 1, 1) / (READ_FLOATS * sizeof(float));
    r->kv_bytes = 2.0 * (double)(b->ask->config.L * b->config.K * b->config.D) *
                  (double)dtype_bytes(model_acts_dtype(&b->model));
    if (b->slots) {
        r->slots = (double)b->slots;
        r->depth = PROMPT + MOST_STEPS / 4.0;
        r->step_one = measure_step(b, 1) * deeper;
        r->step_full = b->slots > 1 ? measure_step(b, b->slots) * deeper : r->step_one;
    }
fail:
    bench_close(b);
    return rc;
}

int calibrate(Rates *r, const CalibrateAsk *ask, double seconds)
{
    Bench b = {.ask = ask, .config = ask->config, .slots = ask->slots, .part = seconds / MEASUREMENTS,
               .optim_config = {.learning_rate = 1e-6, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-5, .weight_decay = 0.1,
                                .max_grad_norm = 1}};
    DeviceOptions o = {.name = ask->device, .threads = (int)ask->threads, .isa = (CpuIsa)ask->isa};
    int rc = 0;
    *r = (Rates){0};
    TRY(device_open(&b.dev, &o));
    calibrate_slice(&b.config, device_kind(b.dev) == DEVICE_CPU ? SLICE_CPU : SLICE_CARD);
    double deeper = (double)ask->config.L / (double)b.config.L, wider = (double)ask->config.V / (double)b.config.V;
    b.length = ask->length < 1 ? 1 : ask->length > MOST_TOKENS ? MOST_TOKENS : ask->length;
    b.ids = xmalloc(MOST_TOKENS * sizeof *b.ids);
    pack_init(&b.pack, MOST_TOKENS, MOST_TOKENS);
    if (ask->train)
        TRY(calibrate_train(r, &b, deeper, wider));
    TRY(calibrate_forward(r, &b, deeper, wider));
    r->length = (double)b.length;
fail:
    if (b.ids)
        pack_free(&b.pack);
    free(b.ids);
    device_close(b.dev);
    return rc;
}
