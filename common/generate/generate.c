/* generate.c - continuous batching over the KV cache.
 *
 * Every step is one pass through the model (step.c): a row for each slot that is decoding, and with the room that is
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
#include "common/generate/step.h"


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
    Step step;
    Slot *slots;     /* (n_slots) */
    bool *row_draws; /* (max_rows): whether the row's logits are wanted */
    int64_t rows_run;
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
    step_init(&g->step, m, n_slots, g->max_rows);
    return g;
}

void generator_alloc(Generator *g, Arena *device, Arena *host)
{
    step_alloc(&g->step, g->max_length, device, host);
    g->slots = arena_bytes(host, (size_t)g->n_slots * sizeof *g->slots);
    g->row_draws = arena_bytes(host, (size_t)g->max_rows * sizeof *g->row_draws);
}

void generator_graphs(Generator *g, bool on)
{
    g->step.graphs = on && device_can_capture(g->m->dev);
}

int64_t generator_launches(const Generator *g)
{
    return g->step.n_launched;
}

int64_t generator_rows(const Generator *g)
{
    return g->rows_run;
}

int64_t generator_pages(const Generator *g)
{
    return g->step.kv.n_pages - g->step.kv.n_free;
}

void generator_free(Generator *g)
{
    if (!g)
        return;
    step_free(&g->step);
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
} Run;

static int requests_check(Run *r)
{
    for (int64_t i = 0; i < r->n; i++) {
        const GenRequest *q = &r->req[i];
        CHECK(q->option >= 0, "request %lld: option %d", (long long)i, q->option);
        const GenOptions *o = &r->o[q->option];
        CHECK(o->max_new_tokens > 0 && o->temperature >= 0, "%d new tokens at temperature %g",
              o->max_new_tokens, o->temperature);
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
    kv_share(&g->step.kv, s, slot->source, n);
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
        kv_share(&r->g->step.kv, s, s, 0);
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
    int64_t row = g->step.n_rows++;
    g->step.id[row] = id;
    g->step.slot[row] = (int32_t)slot;
    g->step.pos[row] = pos;
    g->row_draws[row] = draws;
}

/* First the decoding slots, then prompts, as far as there is room. */
static void rows_plan(Run *r)
{
    Generator *g = r->g;
    g->step.n_rows = 0;
    for (int64_t s = 0; s < g->n_slots; s++) {
        Slot *slot = &g->slots[s];
        if (slot->request >= 0 && r->out[slot->request].n > 0)
            row_add(g, s, slot->last, slot->n_cached++, true);
    }
    for (int64_t s = 0; s < g->n_slots && g->step.n_rows < g->max_rows; s++) {
        Slot *slot = &g->slots[s];
        if (slot->request < 0 || slot->source >= 0 || r->out[slot->request].n > 0)
            continue;
        const GenRequest *q = &r->req[slot->request];
        while (slot->n_cached < q->n_prompt && g->step.n_rows < g->max_rows) {
            int at = slot->n_cached++;
            row_add(g, s, q->prompt[at], at, slot->n_cached == q->n_prompt);
        }
    }
}

/* Rows that draw a token, each with its request's key and temperature. */
static void rows_want(Run *r)
{
    Step *s = &r->g->step;
    s->n_wanted = 0;
    for (int64_t row = 0; row < s->n_rows; row++) {
        if (!r->g->row_draws[row])
            continue;
        const GenRequest *q = &r->req[r->g->slots[s->slot[row]].request];
        const GenOptions *o = &r->o[q->option];
        int64_t i = s->n_wanted++;
        s->wanted[i] = (int32_t)row;
        s->inv_temp[i] = o->temperature > 0 ? (real_t)(1 / o->temperature) : 0;
        s->key[i] = rng_key(o->seed, RNG_SAMPLE, o->round, q->prompt_id, q->sample,
                            (uint32_t)r->out[q - r->req].n);
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

/* One pass through the model, and a token for every slot that can have one. */
static void step(Run *r)
{
    Generator *g = r->g;
    slots_fill(r);
    rows_plan(r);
    rows_want(r);
    step_run(&g->step, r->p);
    g->rows_run += g->step.n_rows;
    for (int64_t i = 0; i < g->step.n_wanted; i++)
        token_take(r, &g->slots[g->step.slot[g->step.wanted[i]]], g->step.drawn[i],
                   g->step.logp[i]);
}

int generate(Generator *g, const ParamSet *p, const GenRequest *req, int64_t n, const GenOptions *o,
             GenResult *out, const volatile int *stop, void (*progress)(void *ctx, int64_t done),
             void *ctx)
{
    Run r = {.g = g, .p = p, .req = req, .o = o, .out = out, .n = n};
    int rc = requests_check(&r);
    if (rc < 0)
        return rc;
    step_weights(&g->step, p);
    for (int64_t s = 0; s < g->n_slots; s++) {
        g->slots[s].request = -1;
        kv_share(&g->step.kv, s, s, 0);
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
