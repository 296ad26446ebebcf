/* generate.c - continuous batching over fixed slots. Every turn of the loop runs one model_extend over one row
 * of each decoding slot plus as many prompt rows as fit, samples for the slots whose last row was in it, and
 * gives finished slots the next request. A row's bits never depend on the others, so neither the order of
 * requests nor the number of slots changes an answer. Tested by tests/unit/test_generate.c. */
#include "common/generate/generate.h"

#include "common/base/error.h"
#include "common/base/mem.h"
#include "common/runtime/device.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    int64_t req; /* -1 = free */
    int fed;     /* tokens in the cache */
    int limit;   /* answer tokens allowed */
} Slot;

struct Generator {
    const Model *model;
    int64_t n_slots, max_length, max_rows;
    KvCache kv;
    ExtendWork *work;
    Tensor rows, hidden, logits, ids, logp, keys; /* a chunk of HEAD_CHUNK rows */
    /* host */
    Slot *slot;
    int32_t *row_id, *row_seq, *row_pos; /* (max_rows) */
    int32_t *need_row, *need_slot;       /* rows to sample from, and their slots */
    int32_t *new_id;
    float *new_logp;
    RngKey *key;
};

Generator *generator_new(const Model *m, int64_t n_slots, int64_t max_length, int64_t max_rows)
{
    Generator *g = xcalloc(1, sizeof *g);
    g->model = m;
    g->n_slots = n_slots;
    g->max_length = max_length;
    g->max_rows = max_rows > n_slots ? max_rows : n_slots;
    g->work = extend_new(m, g->max_rows);
    return g;
}

void generator_alloc(Generator *g, Arena *device, Arena *host)
{
    const ModelConfig *c = &g->model->table.config;
    size_t R = (size_t)g->max_rows, S = (size_t)g->n_slots;
    kv_alloc(&g->kv, g->model, device, g->n_slots, g->max_length);
    extend_alloc(g->work, device);
    g->rows = arena_rows1(device, DTYPE_I32, HEAD_CHUNK);
    g->hidden = arena_rows2(device, DTYPE_F32, HEAD_CHUNK, c->C);
    g->logits = arena_rows2(device, DTYPE_F32, HEAD_CHUNK, c->V);
    g->ids = arena_rows1(device, DTYPE_I32, HEAD_CHUNK);
    g->logp = arena_rows1(device, DTYPE_F32, HEAD_CHUNK);
    g->keys = arena_rows2(device, DTYPE_I32, HEAD_CHUNK, sizeof(RngKey) / sizeof(int32_t));
    g->slot = arena_bytes(host, S * sizeof *g->slot);
    g->row_id = arena_bytes(host, R * sizeof *g->row_id);
    g->row_seq = arena_bytes(host, R * sizeof *g->row_seq);
    g->row_pos = arena_bytes(host, R * sizeof *g->row_pos);
    g->need_row = arena_bytes(host, S * sizeof *g->need_row);
    g->need_slot = arena_bytes(host, S * sizeof *g->need_slot);
    g->new_id = arena_bytes(host, S * sizeof *g->new_id);
    g->new_logp = arena_bytes(host, S * sizeof *g->new_logp);
    g->key = arena_bytes(host, S * sizeof *g->key);
}

void generator_free(Generator *g)
{
    if (!g)
        return;
    kv_free(&g->kv);
    extend_free(g->work);
    free(g);
}

static int check_requests(const Generator *g, const GenRequest *req, int64_t n, const GenOptions *o)
{
    CHECK(o->max_new_tokens > 0, "max_new_tokens %d", o->max_new_tokens);
    for (int64_t i = 0; i < n; i++) {
        if (req[i].n_prompt < 1 || req[i].n_prompt + 1 > g->max_length)
            return error_set(ERR_DATA, "prompt %lld has %d tokens; there is room for %lld with one new token; "
                                       "shorten it or raise the maximal length",
                             (long long)i + 1, req[i].n_prompt, (long long)g->max_length - 1);
    }
    return 0;
}

/* Gives free slots the next requests. */
static void refill(Generator *g, const GenRequest *req, int64_t n, const GenOptions *o, GenResult *out,
                   int64_t *next)
{
    for (int64_t s = 0; s < g->n_slots && *next < n; s++) {
        if (g->slot[s].req >= 0)
            continue;
        int room = (int)g->max_length - req[*next].n_prompt;
        g->slot[s] = (Slot){.req = *next, .limit = o->max_new_tokens < room ? o->max_new_tokens : room};
        out[*next].n = 0;
        out[*next].finished = false;
        (*next)++;
    }
}

static void add_row(Generator *g, int64_t *R, int32_t id, int64_t s)
{
    g->row_id[*R] = id;
    g->row_seq[*R] = (int32_t)s;
    g->row_pos[*R] = g->slot[s].fed++;
    (*R)++;
}

/* Rows of this turn: a token of every decoding slot, then prompts while there is room. Notes the last row of
 * each slot that now waits for a sample; *need counts them. */
static int64_t gather_rows(Generator *g, const GenRequest *req, const GenResult *out, int64_t *need)
{
    int64_t R = 0, decoding = 0;
    *need = 0;
    for (int64_t s = 0; s < g->n_slots; s++)
        decoding += g->slot[s].req >= 0 && out[g->slot[s].req].n > 0;
    int64_t prompt_room = g->max_rows - decoding;
    for (int64_t s = 0; s < g->n_slots; s++) {
        Slot *slot = &g->slot[s];
        if (slot->req < 0)
            continue;
        const GenRequest *q = &req[slot->req];
        if (out[slot->req].n > 0) {
            add_row(g, &R, out[slot->req].ids[out[slot->req].n - 1], s);
        } else {
            for (; slot->fed < q->n_prompt && prompt_room > 0; prompt_room--)
                add_row(g, &R, q->prompt[slot->fed], s);
            if (slot->fed < q->n_prompt)
                continue;
        }
        g->need_row[*need] = (int32_t)R - 1;
        g->need_slot[(*need)++] = (int32_t)s;
    }
    return R;
}

/* Samples for rows [from, from + n) of the needed ones. */
static void sample_chunk(Generator *g, const ParamSet *p, const Tensor *hidden, int64_t from, int64_t n,
                         double inv_temp)
{
    Tensor rows = tensor_slice(&g->rows, 0, n), x = tensor_slice(&g->hidden, 0, n);
    Tensor logits = tensor_slice(&g->logits, 0, n), ids = tensor_slice(&g->ids, 0, n);
    Tensor logp = tensor_slice(&g->logp, 0, n), keys = tensor_slice(&g->keys, 0, n);
    device_upload(&rows, g->need_row + from, (size_t)n * sizeof *g->need_row);
    device_upload(&keys, g->key + from, (size_t)n * sizeof *g->key);
    op_gather_rows(&x, hidden, &rows);
    op_linear(&logits, &x, &p->w[g->model->table.head], false);
    op_sample(&ids, &logp, &logits, &keys, inv_temp);
    device_download(g->new_id + from, &ids, (size_t)n * sizeof *g->new_id);
    device_download(g->new_logp + from, &logp, (size_t)n * sizeof *g->new_logp);
}

static bool is_stop(const GenOptions *o, int32_t id)
{
    for (int i = 0; i < o->n_stop; i++) {
        if (o->stop[i] == id)
            return true;
    }
    return false;
}

/* Appends the new tokens; returns how many answers ended. */
static int64_t append(Generator *g, int64_t need, const GenOptions *o, GenResult *out)
{
    int64_t ended = 0;
    for (int64_t i = 0; i < need; i++) {
        Slot *slot = &g->slot[g->need_slot[i]];
        GenResult *r = &out[slot->req];
        if (r->logp)
            r->logp[r->n] = g->new_logp[i];
        r->ids[r->n++] = g->new_id[i];
        r->finished = is_stop(o, g->new_id[i]);
        if (r->finished || r->n == slot->limit) {
            slot->req = -1;
            ended++;
        }
    }
    return ended;
}

int generate(Generator *g, const ParamSet *p, const GenRequest *req, int64_t n, const GenOptions *o, GenResult *out,
             const volatile int *stop, void (*progress)(void *ctx, int64_t done), void *ctx)
{
    const double inv_temp = o->temperature > 0 ? 1 / o->temperature : 0;
    int64_t next = 0, done = 0;
    int rc = check_requests(g, req, n, o);
    if (rc < 0)
        return rc;
    for (int64_t s = 0; s < g->n_slots; s++)
        g->slot[s].req = -1;
    params_acquire(p, (int)g->model->table.config.L);
    while (done < n && !(stop && *stop)) {
        int64_t need;
        refill(g, req, n, o, out, &next);
        int64_t R = gather_rows(g, req, out, &need);
        Tensor hidden = model_extend(g->model, p, NULL, &g->kv, g->work, g->row_id, g->row_seq, g->row_pos, R);
        for (int64_t i = 0; i < need; i++) {
            const GenRequest *q = &req[g->slot[g->need_slot[i]].req];
            uint32_t position = (uint32_t)out[g->slot[g->need_slot[i]].req].n;
            g->key[i] = rng_key(o->seed, RNG_SAMPLE, o->round, q->prompt_id, q->sample, position);
        }
        for (int64_t from = 0; from < need; from += HEAD_CHUNK)
            sample_chunk(g, p, &hidden, from, need - from < HEAD_CHUNK ? need - from : HEAD_CHUNK, inv_temp);
        done += append(g, need, o, out);
        if (progress)
            progress(ctx, done);
    }
    params_release(p, (int)g->model->table.config.L);
    return done < n;
}
