/* decode.c - generation. A call of generate() for one new token runs the prompts, a call for all of them
 * the prompts and the decoding; the difference of the two, taken in one repetition, is decoding alone. With
 * one sequence the clock of the second call at its first token says the same, and behind a long prompt better.
 *
 * On a device that records graphs also with every op launched by itself.
 *
 * Its roof: FLOPs of the weights at the ceiling plus the cache's bytes at the rate of a buffer as large
 * as the cache; with one sequence, bytes of weights and cache at the rate of a buffer as large as the
 * weights. The prompts' roof is the FLOPs of a forward pass. */
#include "tests/bench/rig.h"

#include "common/base/error.h"
#include "common/base/mem.h"

#include <stdlib.h>

bool decoding_open(Decoding *g, const Bench *b, const Shape *s, Load l, int threads, const char *row)
{
    *g = (Decoding){.load = l, .threads = threads};
    if (!rig_open_generation(&g->rig, b, s, l.B, l.n_prompt + l.n_new, threads, row))
        return false;
    g->prompts = xmalloc((size_t)l.B * (size_t)l.n_prompt * sizeof *g->prompts);
    g->answers = xmalloc((size_t)l.B * (size_t)l.n_new * sizeof *g->answers);
    g->req = xcalloc((size_t)l.B, sizeof *g->req);
    g->res = xcalloc((size_t)l.B, sizeof *g->res);
    rig_random_ids(g->prompts, (int64_t)l.B * l.n_prompt, s->config.V, 7);
    decoding_run(g, 2, false); /* touches all memory but the end of the cache */
    return true;
}

void decoding_close(Decoding *g)
{
    rig_close(&g->rig);
    free(g->prompts);
    free(g->answers);
    free(g->req);
    free(g->res);
}

static void take_token(void *ctx, int64_t request, int32_t id)
{
    Decoding *g = ctx;
    (void)request, (void)id;
    if (g->first == 0)
        g->first = bench_now(g->threads) - g->started;
}

double decoding_run(Decoding *g, int n_new, bool shared)
{
    Load l = g->load;
    GenOptions o = {.seed = 1, .temperature = 1, .max_new_tokens = n_new, .on_token = take_token, .ctx = g};
    for (int i = 0; i < l.B; i++) {
        g->req[i] = (GenRequest){.prompt = g->prompts + (shared ? 0 : (size_t)i * (size_t)l.n_prompt),
                                 .n_prompt = l.n_prompt,
                                 .prompt_id = (uint64_t)i};
        g->res[i] = (GenResult){.ids = g->answers + (size_t)i * (size_t)l.n_new};
    }
    g->first = 0;
    g->started = bench_now(g->threads);
    CHECK(generate(g->rig.gen, &g->rig.params, g->req, l.B, &o, g->res, NULL, NULL, NULL) == 0, "%s",
          error_text());
    return bench_now(g->threads) - g->started;
}

double decoding_alone(Decoding *g, double *prompts)
{
    const double all = decoding_run(g, g->load.n_new, false);
    /* one sequence: the same run; of several the first tokens come one after another, so a run for these */
    *prompts = g->load.B == 1 ? g->first : decoding_run(g, 1, false);
    return all > *prompts ? all - *prompts : all;
}

/* cached: of a key or value. */
static double decode_roof(const Shape *s, const Ceiling *c, DType dtype, DType cached, Load l)
{
    const ModelConfig *m = &s->config;
    double N = shape_layer_weights(s) + shape_head_weights(s);
    double per_position = 2.0 * (double)(m->L * m->K * m->D) * (double)dtype_bytes(cached);
    double cache = l.B * per_position * (l.n_prompt + 0.5 * l.n_new); /* of a step in the middle */
    double weights = N * (double)dtype_bytes(dtype);
    double time = l.B == 1 ? (weights + cache) / ceiling_read(c, weights)
                           : l.B * 2 * N / ceiling_flops(c, dtype) + cache / ceiling_read(c, cache);
    return l.B / time;
}

static double prompt_roof(const Shape *s, const Ceiling *c, DType dtype, Load l)
{
    double attention = 2.0 * (double)(s->config.L * s->config.H * s->config.D) * l.n_prompt;
    return ceiling_flops(c, dtype) / (2 * shape_layer_weights(s) + attention);
}

static void measure(Bench *b, const Shape *s, int which, Load l)
{
    const Ceiling *c = bench_ceiling(b, which);
    Row prompt = bench_row(b, which, "tok/s", 0), by_op;
    Row decode = bench_row(b, which, "tok/s", l.B == 16 ? 3 : l.B == 64 ? 2.2 : 0);
    prompt.roof = prompt_roof(s, c, b->dtype, l);
    decode.roof = decode_roof(s, c, b->dtype, bench_is_cuda(b) ? b->dtype : DTYPE_F32, l);
    decode.of_card = s->of_cards;
    if (l.B == 1 || l.B == 64)
        decode.target = l.B == 1 ? s->target[bench_is_bf16(b)].decode_one : s->target[bench_is_bf16(b)].decode_many;
    snprintf(prompt.name, sizeof prompt.name, "prompt %s B=%d %d", s->name, l.B, l.n_prompt);
    snprintf(decode.name, sizeof decode.name, "decode %s B=%d %d+%d", s->name, l.B, l.n_prompt, l.n_new);
    by_op = decode;
    by_op.target = by_op.floor = 0;
    snprintf(by_op.name, sizeof by_op.name, "decode %s B=%d %d+%d, op by op", s->name, l.B, l.n_prompt, l.n_new);
    if (!bench_wanted(b, prompt.name) && !bench_wanted(b, decode.name))
        return;
    Decoding g;
    if (!decoding_open(&g, b, s, l, b->threads[which], decode.name))
        return;
    bench_share(b, which);
    for (double from = bench_now(0); bench_again(b, decode.n, from);) {
        double first, alone = decoding_alone(&g, &first), share = bench_share(b, which);
        bench_take(&prompt, (double)l.B * l.n_prompt / first, share);
        bench_take(&decode, (double)l.B * (l.n_new - 1) / alone, share);
        if (generator_launches(g.rig.gen) == 0)
            continue;
        generator_graphs(g.rig.gen, false);
        alone = decoding_alone(&g, &first);
        generator_graphs(g.rig.gen, true);
        bench_take(&by_op, (double)l.B * (l.n_new - 1) / alone, share);
    }
    if (l.n_prompt >= 256 || b->quick)
        row_add(&b->rows, prompt);
    if (row_add(&b->rows, decode) || b->profile) { /* prompts included: they are few */
        generator_graphs(g.rig.gen, false);
        profile_begin(g.rig.dev);
        decoding_run(&g, l.n_new, true);
        profile_end(b, which, bench_share(b, which));
    }
    if (by_op.n)
        row_add(&b->rows, by_op);
    decoding_close(&g);
}

/* All answers to one prompt, against decoding alone of as many answers to prompts of their own: what the
 * prompt still costs. */
static void measure_shared(Bench *b, const Shape *s, int which, Load l)
{
    Row row = bench_row(b, which, "x", 0);
    row.target = 1.3;
    snprintf(row.name, sizeof row.name, "shared %s %d on one prompt %d+%d", s->name, l.B, l.n_prompt, l.n_new);
    if (!bench_wanted(b, row.name))
        return;
    Decoding g;
    if (!decoding_open(&g, b, s, l, b->threads[which], row.name))
        return;
    for (double from = bench_now(0); bench_again(b, row.n, from);) {
        double first, alone = decoding_alone(&g, &first), shared = decoding_run(&g, l.n_new, true);
        bench_take(&row, shared / alone, 1);
    }
    decoding_close(&g);
    row_add(&b->rows, row);
}

void decode_run(Bench *b, const Shape *s, int which)
{
    static const Load quick[] = {{1, 16, 16}, {4, 16, 16}};
    static const Load small[] = {{1, 16, 64}, {16, 16, 64}, {64, 16, 64}, {1, 256, 256}, {16, 256, 256}, {64, 256, 256}};
    static const Load large[] = {{1, 16, 32}, {16, 16, 32}, {64, 16, 32}, {1, 256, 32}, {16, 256, 32}};
    bool short_ones = s->config.C > 512 && !b->full;
    if (!s->S)
        return;
    const Load *loads = b->quick ? quick : short_ones ? large : small;
    int n = b->quick ? 2 : s->of_cards ? 3 : short_ones ? 5 : 6;
    for (int i = 0; i < n; i++)
        measure(b, s, which, loads[i]);
    if (!short_ones)
        measure_shared(b, s, which, b->quick ? (Load){4, 16, 16} : (Load){16, 256, 64});
}
