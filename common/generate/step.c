/* step.c - one step on the device, op by op or as a graph; see step.h. Tested by
 * tests/unit/test_generate.c. */
#include "common/generate/step.h"

#include "common/base/hash.h"

#include <string.h>

/* The block of a step, in 32-bit words: id, slot, pos of the rows; index, 1 / temperature and key of the
 * wanted ones. */
enum { ROW_WORDS = 3, KEY_WORDS = sizeof(RngKey) / sizeof(int32_t), WANTED_WORDS = 2 + KEY_WORDS };
_Static_assert(sizeof(real_t) == sizeof(int32_t), "logp and 1 / temperature are words of a block");

static int64_t block_words(int64_t rows, int64_t wanted)
{
    return rows * ROW_WORDS + wanted * WANTED_WORDS;
}

void step_init(Step *s, const Model *m, int64_t n_slots, int64_t max_rows)
{
    *s = (Step){.m = m, .n_slots = n_slots, .max_rows = max_rows};
    s->graphs = device_can_capture(m->dev);
    s->work = extend_new(m, max_rows);
}

static void graphs_free(Step *s)
{
    for (int i = 0; i < STEP_GRAPHS; i++) {
        graph_free(&s->graph[i].graph, s->m->dev);
        s->graph[i] = (StepGraph){0};
    }
}

void step_alloc(Step *s, int64_t max_length, Arena *device, Arena *host)
{
    const ModelConfig *c = &s->m->table.config;
    const int64_t chunk = lm_head_chunk(s->m, s->n_slots);
    const size_t rows = (size_t)s->max_rows, slots = (size_t)s->n_slots;
    graphs_free(s); /* of other memory */
    kv_alloc(&s->kv, s->m, device, s->n_slots, max_length);
    extend_alloc(s->work, device);
    s->hidden = arena_rows2(device, DTYPE_REAL, chunk, c->C);
    s->logits = arena_rows2(device, DTYPE_REAL, chunk, c->V);
    s->block = arena_rows1(device, DTYPE_I32, block_words(s->max_rows, s->n_slots));
    s->result = arena_rows1(device, DTYPE_I32, 2 * s->n_slots);
    s->block_host = arena_bytes(host, tensor_bytes(&s->block));
    s->result_host = arena_bytes(host, tensor_bytes(&s->result));
    s->id = arena_bytes(host, rows * sizeof *s->id);
    s->slot = arena_bytes(host, rows * sizeof *s->slot);
    s->pos = arena_bytes(host, rows * sizeof *s->pos);
    s->wanted = arena_bytes(host, slots * sizeof *s->wanted);
    s->key = arena_bytes(host, slots * sizeof *s->key);
    s->inv_temp = arena_bytes(host, slots * sizeof *s->inv_temp);
}

void step_free(Step *s)
{
    if (s->m)
        graphs_free(s);
    kv_free(&s->kv);
    extend_free(s->work);
    *s = (Step){0};
}

void step_weights(Step *s, const ParamSet *p)
{
    uint64_t at = 0;
    for (int i = 0; i < p->table->n; i++)
        at = hash64(&p->in[i].data, sizeof p->in[i].data, at);
    if (at != s->weights)
        graphs_free(s);
    s->weights = at;
}

/* ---- the block ------------------------------------------------------------------------------ */

static void fill(int32_t *to, const void *from, int64_t n, int64_t room, int32_t rest)
{
    memcpy(to, from, (size_t)n * sizeof *to);
    for (int64_t i = n; i < room; i++)
        to[i] = rest;
}

/* Rows beyond n_rows are of no slot; what is wanted beyond n_wanted is row 0, drawn for nothing. */
static void block_upload(Step *s, StepSize z)
{
    int32_t *at = s->block_host;
    fill(at, s->id, s->n_rows, z.rows, 0);
    fill(at += z.rows, s->slot, s->n_rows, z.rows, -1);
    fill(at += z.rows, s->pos, s->n_rows, z.rows, 0);
    fill(at += z.rows, s->wanted, s->n_wanted, z.wanted, 0);
    fill(at += z.wanted, s->inv_temp, s->n_wanted, z.wanted, 0);
    fill(at + z.wanted, s->key, s->n_wanted * KEY_WORDS, z.wanted * KEY_WORDS, 0);
    device_upload(&s->block, s->block_host,
                  (size_t)block_words(z.rows, z.wanted) * sizeof *s->block_host);
}

/* n words of a tensor from *at on, which moves behind them. */
static Tensor words(const Tensor *t, int64_t *at, int64_t n)
{
    Tensor part = tensor_slice(t, *at, n);
    *at += n;
    return part;
}

/* ---- the ops -------------------------------------------------------------------------------- */

/* From the block to the result: nothing here touches the host. */
static void ops_run(Step *s, const ParamSet *p, StepSize z)
{
    int64_t at = 0, out = 0;
    Tensor id = words(&s->block, &at, z.rows), slot = words(&s->block, &at, z.rows);
    Tensor pos = words(&s->block, &at, z.rows), wanted = words(&s->block, &at, z.wanted);
    Tensor inv_temp = words(&s->block, &at, z.wanted);
    Tensor key = words(&s->block, &at, z.wanted * KEY_WORDS);
    Tensor drawn = words(&s->result, &out, z.wanted), logp = words(&s->result, &out, z.wanted);
    inv_temp.dtype = logp.dtype = DTYPE_REAL;
    key = tensor_view2(&key, z.wanted, KEY_WORDS);

    Tensor hidden = extend_rows(s->m, p, NULL, &s->kv, s->work, &id, &slot, &pos, z.pages);
    const int64_t chunk = s->logits.dim[0];
    for (int64_t from = 0; from < z.wanted; from += chunk) {
        int64_t n = z.wanted - from < chunk ? z.wanted - from : chunk;
        Tensor rows = tensor_slice(&wanted, from, n), keys = tensor_slice(&key, from, n);
        Tensor x = tensor_slice(&s->hidden, 0, n), logits = tensor_slice(&s->logits, 0, n);
        Tensor ids = tensor_slice(&drawn, from, n), lp = tensor_slice(&logp, from, n);
        Tensor inv = tensor_slice(&inv_temp, from, n);
        op_gather_rows(&x, &hidden, &rows);
        lm_head_logits(&logits, &x, s->m, p);
        op_sample(&ids, &lp, &logits, &keys, &inv);
    }
}

/* ---- graphs --------------------------------------------------------------------------------- */

/* 1, 2, 4, 8, 16, then also the numbers half-way: 24, 32, 48, 64, ... */
static int64_t round_up(int64_t n, int64_t most)
{
    int64_t to = n > 0;
    while (to < n)
        to = to % 3 == 0 ? to / 3 * 4 : to < 16 ? 2 * to : to / 2 * 3;
    return to < most ? to : most;
}

static StepSize size_of_graph(const Step *s, StepSize z)
{
    const int64_t tiles = KV_CHUNK / KV_TILE, most = s->kv.pages_per_slot;
    const int64_t pages = round_up((z.pages + tiles - 1) / tiles, most) * tiles;
    return (StepSize){.rows = round_up(z.rows, s->max_rows),
                      .wanted = round_up(z.wanted, s->n_slots),
                      .pages = pages < most ? pages : most};
}

/* The entry of a size, or the one to give up for it: unused, else the oldest. */
static StepGraph *graph_of(Step *s, StepSize z)
{
    StepGraph *old = s->graph;
    for (int i = 0; i < STEP_GRAPHS; i++) {
        StepGraph *g = &s->graph[i];
        if (memcmp(&g->size, &z, sizeof z) == 0)
            return g;
        if (g->last < old->last)
            old = g;
    }
    graph_free(&old->graph, s->m->dev);
    *old = (StepGraph){.size = z};
    return old;
}

/* The first step of a size runs as it is, the second is recorded. */
static void graph_run(Step *s, const ParamSet *p, StepSize z)
{
    StepGraph *g = graph_of(s, z);
    bool seen = g->last > 0;
    g->last = s->n_steps;
    if (!seen) {
        ops_run(s, p, z);
        return;
    }
    if (!g->graph.handle) {
        graph_begin(s->m->dev);
        ops_run(s, p, z);
        graph_end(&g->graph, s->m->dev);
    }
    graph_launch(&g->graph, s->m->dev);
    s->n_launched++;
}

void step_run(Step *s, const ParamSet *p)
{
    StepSize z = {s->n_rows, s->n_wanted, 0};
    bool graph = s->graphs && s->n_rows <= STEP_GRAPH_ROWS;
    z.pages = extend_prepare(s->m, &s->kv, s->slot, s->pos, s->n_rows);
    s->n_steps++;
    if (graph)
        z = size_of_graph(s, z);
    block_upload(s, z);
    if (graph)
        graph_run(s, p, z);
    else
        ops_run(s, p, z);
    if (s->n_wanted)
        device_download(s->result_host, &s->result, (size_t)(2 * z.wanted) * sizeof *s->result_host);
    s->drawn = s->result_host;
    s->logp = (const real_t *)(s->result_host + z.wanted);
}
