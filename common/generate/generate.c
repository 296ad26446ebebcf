/* generate.c - continuous batching over the KV cache.
 *
 * Every step is one model_extend: a row for each slot that is decoding, and with the room that is
 * left, prompt rows of slots that are still filling. A slot whose answer ends takes the next
 * request before the next step. What a row computes does not depend on its neighbours, so neither
 * the mix nor the number of slots changes an answer.
 *
 * The first request of a group fills its slot with the prompt; the others wait for all of it but the
 * last token, take it by reference (kv_share) and run the last token themselves, for its logits.
 * Requests start in order, so until the last member of a group has started, whatever starts in the
 * first one's slot is a member too: that slot holds the prompt for as long as it is needed. Tested
 * by tests/unit/test_generate.c. */
#include "common/generate/generate.h"

#include "common/base/error.h"
#include "common/base/mem.h"
#include "common/runtime/device.h"

#include <stdlib.h>

typedef struct {
    int64_t request; /* -1: idle; the cache keeps what it holds */
    int64_t source;  /* slot whose prompt this one waits for; -1: none */
    int n_cached;    /* tokens whose keys are in the cache */
    int32_t last;    /* newest token of the answer, not cached yet */
} Slot;

struct Generator {
    const Model *m;
    int64_t n_slots, max_length, max_rows;
    KvCache kv;
    ExtendWork *work;
    Tensor hidden, logits;          /* lm_head_chunk rows */
    Tensor wanted, keys, ids, logp; /* a row a slot: at most one token each is drawn in a step */
    Slot *slots;                                    /* (n_slots) */
    /* Rows of one step (max_rows), and those of them whose logits are wanted, by option. */
    int32_t *row_id, *row_slot, *row_pos, *row_wanted;
    bool *row_draws;
    RngKey *drawn_key; /* of the wanted rows (n_slots): what is drawn with, and what came of it */
    int32_t *drawn_id;
    real_t *drawn_logp;
    int64_t n_rows, n_wanted, rows_run;
};

int generate_stop_ids(int32_t *out, int32_t end, const ModelConfig *c)
{
    int n = 0;
    if (end >= 0)
        out[n++] = end;
    for (int i = 0; i < c->n_eos; i++) {
        if (c->eos[i] != end)
            out[n++] = c->eos[i];
    }
    return n;
}

Generator *generator_new(const Model *m, int64_t n_slots, int64_t max_length, int64_t max_rows)
{
    CHECK(n_slots > 0 && max_length > 1 && max_rows > 0, "%lld slots of %lld tokens, %lld rows",
          (long long)n_slots, (long long)max_length, (long long)max_rows);
    Generator *g = xcalloc(1, sizeof *g);
    g->m = m;
    g->n_slots = n_slots;
    g->max_length = max_length;
    g->max_rows = max_rows > n_slots ? max_rows : n_slots; /* a decoding slot always gets its row */
    g->work = extend_new(m, g->max_rows);
    return g;
}

void generator_alloc(Generator *g, Arena *device, Arena *host)
{
    const ModelConfig *c = &g->m->table.config;
    size_t rows = (size_t)g->max_rows * sizeof(int32_t);
    kv_alloc(&g->kv, g->m, device, g->n_slots, g->max_length);
    extend_alloc(g->work, device);
    g->wanted = arena_rows1(device, DTYPE_I32, g->n_slots);
    int64_t chunk = lm_head_chunk(g->m, g->n_slots);
    g->hidden = arena_rows2(device, DTYPE_REAL, chunk, c->C);
    g->logits = arena_rows2(device, DTYPE_REAL, chunk, c->V);
    g->keys = arena_rows2(device, DTYPE_I32, g->n_slots, sizeof(RngKey) / sizeof(int32_t));
    g->ids = arena_rows1(device, DTYPE_I32, g->n_slots);
    g->logp = arena_rows1(device, DTYPE_REAL, g->n_slots);
    g->drawn_key = arena_bytes(host, (size_t)g->n_slots * sizeof *g->drawn_key);
    g->drawn_id = arena_bytes(host, (size_t)g->n_slots * sizeof *g->drawn_id);
    g->drawn_logp = arena_bytes(host, (size_t)g->n_slots * sizeof *g->drawn_logp);
    g->slots = arena_bytes(host, (size_t)g->n_slots * sizeof *g->slots);
    g->row_id = arena_bytes(host, rows);
    g->row_slot = arena_bytes(host, rows);
    g->row_pos = arena_bytes(host, rows);
    g->row_wanted = arena_bytes(host, rows);
    g->row_draws = arena_bytes(host, (size_t)g->max_rows * sizeof *g->row_draws);
}

int64_t generator_rows(const Generator *g)
{
    return g->rows_run;
}

void generator_free(Generator *g)
{
    if (!g)
        return;
    kv_free(&g->kv);
    extend_free(g->work);
    free(g);
}

/* One call of generate(). */
typedef struct {
    Generator *g;
    const ParamSet *p;
    const GenRequest *req;
    const GenOptions *o;
    GenResult *out;
    int64_t n, next, done; /* requests; the next to start; finished */
    int64_t source;        /* slot of the first member of the group that started last */
    int n_options;
} Run;

static int requests_check(Run *r)
{
    for (int64_t i = 0; i < r->n; i++) {
        const GenRequest *q = &r->req[i];
        CHECK(q->option >= 0, "request %lld: option %d", (long long)i, q->option);
        r->n_options = q->option + 1 > r->n_options ? q->option + 1 : r->n_options;
        if (q->n_prompt < 1 || q->n_prompt >= r->g->max_length)
            return error_set(
                ERR_DATA,
                "prompt %lld has %d tokens; with room for one new token it must have 1 to "
                "%lld: shorten it or raise the maximum length",
                (long long)i, q->n_prompt, (long long)r->g->max_length - 1);
    }
    return 0;
}

/* ---- slots ---------------------------------------------------------------------------------- */

/* A waiting slot takes the prompt without its last token, as soon as all of that is cached. */
static void slot_share(Run *r, int64_t s)
{
    Generator *g = r->g;
    Slot *slot = &g->slots[s];
    int n = r->req[slot->request].n_prompt - 1;
    if (g->slots[slot->source].n_cached < n)
        return;
    kv_share(&g->kv, s, slot->source, n);
    slot->n_cached = n;
    slot->source = -1;
}

/* The next request into an idle slot. */
static void slot_start(Run *r, int64_t s)
{
    Slot *slot = &r->g->slots[s];
    const GenRequest *q = &r->req[r->next];
    bool first = r->next == 0 || q->prompt != q[-1].prompt || q->n_prompt != q[-1].n_prompt;
    slot->request = r->next++;
    if (first) {
        r->source = s;
        slot->source = -1;
        slot->n_cached = 0;
        kv_share(&r->g->kv, s, s, 0);
    } else {
        slot->source = r->source; /* may be s: then what it has cached begins with the prompt */
        slot_share(r, s);
    }
}

/* Waiting slots come first: what they wait for may end, and its slot go to another group. */
static void slots_fill(Run *r)
{
    Slot *slots = r->g->slots;
    for (int64_t s = 0; s < r->g->n_slots; s++) {
        if (slots[s].request >= 0 && slots[s].source >= 0)
            slot_share(r, s);
    }
    for (int64_t s = 0; s < r->g->n_slots && r->next < r->n; s++) {
        if (slots[s].request < 0)
            slot_start(r, s);
    }
}

/* ---- rows of a step ------------------------------------------------------------------------- */

static void row_add(Generator *g, int64_t slot, int32_t id, int pos, bool draws)
{
    int64_t row = g->n_rows++;
    g->row_id[row] = id;
    g->row_slot[row] = (int32_t)slot;
    g->row_pos[row] = pos;
    g->row_draws[row] = draws;
}

/* First the decoding slots, then prompts, as far as there is room. */
static void rows_plan(Run *r)
{
    Generator *g = r->g;
    g->n_rows = 0;
    for (int64_t s = 0; s < g->n_slots; s++) {
        Slot *slot = &g->slots[s];
        if (slot->request >= 0 && r->out[slot->request].n > 0)
            row_add(g, s, slot->last, slot->n_cached++, true);
    }
    for (int64_t s = 0; s < g->n_slots && g->n_rows < g->max_rows; s++) {
        Slot *slot = &g->slots[s];
        if (slot->request < 0 || slot->source >= 0 || r->out[slot->request].n > 0)
            continue;
        const GenRequest *q = &r->req[slot->request];
        while (slot->n_cached < q->n_prompt && g->n_rows < g->max_rows) {
            int at = slot->n_cached++;
            row_add(g, s, q->prompt[at], at, slot->n_cached == q->n_prompt);
        }
    }
}

static const GenRequest *row_request(const Run *r, int64_t row)
{
    return &r->req[r->g->slots[r->g->row_slot[row]].request];
}

/* Rows that draw a token, those of one option side by side: an op_sample has one temperature. */
static void rows_want(Run *r)
{
    Generator *g = r->g;
    g->n_wanted = 0;
    for (int o = 0; o < r->n_options; o++) {
        for (int64_t row = 0; row < g->n_rows; row++) {
            if (g->row_draws[row] && row_request(r, row)->option == o)
                g->row_wanted[g->n_wanted++] = (int32_t)row;
        }
    }
}

/* ---- drawing -------------------------------------------------------------------------------- */

static bool is_stop(const GenOptions *o, int32_t id)
{
    for (int i = 0; i < o->n_stop; i++)
        if (o->stop[i] == id)
            return true;
    return false;
}

/* A new token of a slot; frees the slot when it is the answer's last. */
static void token_take(Run *r, Slot *slot, int32_t id, real_t logp)
{
    GenResult *out = &r->out[slot->request];
    const GenRequest *q = &r->req[slot->request];
    const GenOptions *o = &r->o[q->option];
    out->ids[out->n] = id;
    if (out->logp)
        out->logp[out->n] = (float)logp;
    out->n++;
    slot->last = id;
    if (o->on_token)
        o->on_token(o->ctx, slot->request, id);
    out->finished = is_stop(o, id);
    if (out->finished || out->n >= o->max_new_tokens ||
        q->n_prompt + out->n >= r->g->max_length) {
        slot->request = -1;
        r->done++;
    }
}

/* A token for each of the wanted rows [from, from + n), whose logits are made; each run of one option by
 * itself. */
static void chunk_draw(const Run *r, int64_t from, int64_t n)
{
    Generator *g = r->g;
    for (int64_t at = 0, to; at < n; at = to) {
        int option = row_request(r, g->row_wanted[from + at])->option;
        double temperature = r->o[option].temperature;
        for (to = at + 1; to < n && row_request(r, g->row_wanted[from + to])->option == option;)
            to++;
        Tensor logits = tensor_slice(&g->logits, at, to - at);
        Tensor key = tensor_slice(&g->keys, from + at, to - at);
        Tensor id = tensor_slice(&g->ids, from + at, to - at);
        Tensor logp = tensor_slice(&g->logp, from + at, to - at);
        op_sample(&id, &logp, &logits, &key, temperature > 0 ? 1 / temperature : 0);
    }
}

static void keys_make(const Run *r)
{
    Generator *g = r->g;
    for (int64_t i = 0; i < g->n_wanted; i++) {
        const GenRequest *q = row_request(r, g->row_wanted[i]);
        const GenOptions *o = &r->o[q->option];
        g->drawn_key[i] = rng_key(o->seed, RNG_SAMPLE, o->round, q->prompt_id, q->sample,
                                  (uint32_t)r->out[q - r->req].n);
    }
}

/* A token for every wanted row. Logits of a chunk of rows exist at a time, but the device is waited for once. */
static void rows_draw(Run *r, const Tensor *hidden)
{
    Generator *g = r->g;
    int64_t n = g->n_wanted;
    if (n == 0)
        return;
    keys_make(r);
    device_upload(&g->wanted, g->row_wanted, (size_t)n * sizeof *g->row_wanted);
    device_upload(&g->keys, g->drawn_key, (size_t)n * sizeof *g->drawn_key);
    const int64_t chunk = g->logits.dim[0];
    for (int64_t from = 0; from < n; from += chunk) {
        int64_t rows = n - from < chunk ? n - from : chunk;
        Tensor wanted = tensor_slice(&g->wanted, from, rows), x = tensor_slice(&g->hidden, 0, rows);
        Tensor logits = tensor_slice(&g->logits, 0, rows);
        op_gather_rows(&x, hidden, &wanted);
        lm_head_logits(&logits, &x, g->m, r->p);
        chunk_draw(r, from, rows);
    }
    device_download(g->drawn_id, &g->ids, (size_t)n * sizeof *g->drawn_id);
    device_download(g->drawn_logp, &g->logp, (size_t)n * sizeof *g->drawn_logp);
    for (int64_t i = 0; i < n; i++)
        token_take(r, &g->slots[g->row_slot[g->row_wanted[i]]], g->drawn_id[i], g->drawn_logp[i]);
}

/* One model_extend, and a token for every slot that can have one. */
static void step(Run *r)
{
    Generator *g = r->g;
    slots_fill(r);
    rows_plan(r);
    rows_want(r);
    Tensor hidden = model_extend(g->m, r->p, NULL, &g->kv, g->work, g->row_id, g->row_slot,
                                 g->row_pos, g->n_rows);
    g->rows_run += g->n_rows;
    rows_draw(r, &hidden);
}

int generate(Generator *g, const ParamSet *p, const GenRequest *req, int64_t n, const GenOptions *o,
             GenResult *out, const volatile int *stop, void (*progress)(void *ctx, int64_t done),
             void *ctx)
{
    Run r = {.g = g, .p = p, .req = req, .o = o, .out = out, .n = n, .n_options = 1};
    int rc = requests_check(&r);
    if (rc < 0)
        return rc;
    for (int i = 0; i < r.n_options; i++)
        CHECK(o[i].max_new_tokens > 0 && o[i].temperature >= 0, "%d new tokens at temperature %g",
              o[i].max_new_tokens, o[i].temperature);
    for (int64_t s = 0; s < g->n_slots; s++) {
        g->slots[s].request = -1;
        kv_share(&g->kv, s, s, 0);
    }
    for (int64_t i = 0; i < n; i++) {
        out[i].n = 0;
        out[i].finished = false;
    }
    while (r.done < n) {
        if (stop && *stop)
            return 1;
        int64_t done = r.done;
        step(&r);
        if (progress && r.done > done)
            progress(ctx, r.done);
    }
    return 0;
}
