/* families.c - what must not change a bit: prefill chunks, decode batches, packing, other documents,
 * micro-batches, threads, instruction sets, what backward computes again. See exact.h; sampler.c has the
 * sampler. */
#include "tests/exact/exact.h"

#include "common/model/acts.h"

#include <stdio.h>

static void all_of(const Docs *d, int *list)
{
    for (int i = 0; i < d->n; i++)
        list[i] = i;
}

static void shuffle(Case *c, int *list, int n)
{
    for (int i = n - 1; i > 0; i--) {
        int k = (int)draw(c, 0, i), t = list[i];
        list[i] = list[k];
        list[k] = t;
    }
}

static void first_pass(Case *c, const Pass *p)
{
    case_first(c, p->hidden, (size_t)(p->T * p->C) * sizeof *p->hidden);
    case_first(c, p->values, (size_t)p->T * sizeof *p->values);
    if (p->dx)
        case_first(c, p->dx, (size_t)(p->T * p->C) * sizeof *p->dx);
}

/* ---- token by token, or many at once ------------------------------------------------------------ */

/* A slot of the cache that reads a document; doc < 0: idle. */
typedef struct {
    int doc, at;
} Reader;

typedef struct {
    Case *c;
    Net *n;
    const Docs *d;
    const Pass *want; /* of all documents as one pack */
    Reader reader[DOCS_MAX];
    int slots, chunk, next;
    int32_t ids[TOKENS_MAX], slot[TOKENS_MAX], pos[TOKENS_MAX], target[TOKENS_MAX];
} Reading;

static int doc_length(const Docs *d, int doc)
{
    return d->starts[doc + 1] - d->starts[doc];
}

/* The rows of the next call: up to `chunk` of each slot, slots in a drawn order. */
static int reading_rows(Reading *x)
{
    int order[DOCS_MAX], R = 0;
    for (int s = 0; s < x->slots; s++) {
        Reader *r = &x->reader[s];
        order[s] = s;
        if (r->doc >= 0 && r->at < doc_length(x->d, r->doc))
            continue;
        *r = (Reader){x->next < x->d->n ? x->next++ : -1, 0};
        kv_share(&x->n->kv, s, s, 0);
    }
    shuffle(x->c, order, x->slots);
    for (int i = 0; i < x->slots; i++) {
        Reader *r = &x->reader[order[i]];
        for (int k = 0; r->doc >= 0 && k < x->chunk && r->at < doc_length(x->d, r->doc); k++, R++, r->at++) {
            int from = x->d->starts[r->doc] + r->at;
            x->ids[R] = x->d->ids[from];
            x->target[R] = r->at + 1 < doc_length(x->d, r->doc) ? x->d->ids[from + 1] : 0;
            x->slot[R] = order[i];
            x->pos[R] = r->at;
        }
    }
    return R;
}

static void reading_check(Reading *x, int R, const Tensor *hidden)
{
    RowValues *v = xmalloc((size_t)R * sizeof *v);
    net_values(x->n, hidden, x->target, R, v);
    for (int r = 0; r < R; r++) {
        int doc = x->reader[x->slot[r]].doc;
        int64_t row = x->d->starts[doc] + x->pos[r], C = x->want->C;
        case_same(x->c, (float *)hidden->data + r * C, x->want->hidden + row * C, (size_t)C * sizeof(float),
                  "%d slots, chunks of %d: hidden state of token %d of document %d", x->slots, x->chunk, x->pos[r],
                  doc);
        case_same(x->c, &v[r], &x->want->values[row], sizeof v[r],
                  "%d slots, chunks of %d: head's values of token %d of document %d", x->slots, x->chunk, x->pos[r],
                  doc);
    }
    free(v);
}

/* All documents through the cache, in `slots` slots and by calls of `chunk` tokens a slot. */
static void read_all(Case *c, Net *n, const Pass *want, int slots, int chunk)
{
    Reading *x = xcalloc(1, sizeof *x);
    x->c = c, x->n = n, x->d = &c->docs, x->want = want, x->slots = slots, x->chunk = chunk;
    for (int s = 0; s < DOCS_MAX; s++)
        x->reader[s].doc = -1;
    for (int R; (R = reading_rows(x)) > 0;) {
        Tensor hidden = model_extend(&n->f.m, &n->f.p, NULL, &n->kv, n->work, x->ids, x->slot, x->pos, R);
        reading_check(x, R, &hidden);
    }
    for (int s = 0; s < slots; s++)
        kv_share(&n->kv, s, s, 0);
    free(x);
}

/* slots[i] and chunks[i] of way i; 0: as many as there are. */
static void read_in_ways(Case *c, const int *slots, const int *chunks, int n_ways)
{
    Net n;
    int list[DOCS_MAX], T = c->docs.starts[c->docs.n];
    net_open_any(&n, c, T);
    net_open_cache(&n, c->docs.n > 33 ? c->docs.n : 33, LONG_TOKENS, T);
    all_of(&c->docs, list);
    Pass want = net_pass(&n, c, &c->docs, list, c->docs.n, false);
    first_pass(c, &want);
    net_plant(&n, c);
    for (int i = 0; i < n_ways; i++)
        read_all(c, &n, &want, slots[i] ? slots[i] : c->docs.n, chunks[i] ? chunks[i] : LONG_TOKENS);
    pass_free(&want);
    net_close(&n);
}

static void prefill(Case *c)
{
    static const int slots[5] = {0}, chunks[5] = {1, 2, 7, 16, 0};
    draw_model(c, true);
    draw_docs(c, &c->docs, 1, 5, 80);
    read_in_ways(c, slots, chunks, 5);
}

static void decode(Case *c)
{
    static const int slots[5] = {1, 2, 3, 8, 33}, chunks[5] = {1, 1, 1, 1, 1};
    draw_model(c, true);
    draw_docs(c, &c->docs, 34, 40, 20);
    read_in_ways(c, slots, chunks, 5);
}

/* ---- packs -------------------------------------------------------------------------------------- */

/* Rows [at, at + rows) of `got` are rows [from, from + rows) of `want`. */
static void same_rows(Case *c, const Pass *got, int64_t at, const Pass *want, int64_t from, int64_t rows,
                      const char *what, int doc)
{
    size_t bytes = (size_t)(rows * want->C) * sizeof(float);
    case_same(c, got->hidden + at * got->C, want->hidden + from * want->C, bytes,
              "%s: hidden states of document %d", what, doc);
    case_same(c, got->values + at, want->values + from, (size_t)rows * sizeof *want->values,
              "%s: head's values of document %d", what, doc);
    case_same(c, got->dx + at * got->C, want->dx + from * want->C, bytes,
              "%s: gradient of document %d's embeddings", what, doc);
}

static void packed(Case *c)
{
    Net n;
    int list[DOCS_MAX];
    Pass alone[DOCS_MAX];
    draw_model(c, true);
    draw_docs(c, &c->docs, 2, 6, 90);
    net_open_any(&n, c, c->docs.starts[c->docs.n]);
    for (int i = 0; i < c->docs.n; i++) {
        alone[i] = net_pass(&n, c, &c->docs, &i, 1, true);
        first_pass(c, &alone[i]);
    }
    net_plant(&n, c);
    all_of(&c->docs, list);
    for (int k = 0; k < 2; k++) {
        Pass all = net_pass(&n, c, &c->docs, list, c->docs.n, true);
        for (int64_t i = 0, at = 0; i < c->docs.n; at += alone[list[i]].T, i++)
            same_rows(c, &all, at, &alone[list[i]], 0, alone[list[i]].T, "packed", list[i]);
        pass_free(&all);
        shuffle(c, list, c->docs.n);
    }
    for (int i = 0; i < c->docs.n; i++)
        pass_free(&alone[i]);
    net_close(&n);
}

/* The same document between others, of other lengths and other tokens. */
static void replace_others(Case *c, int kept, Docs *out)
{
    Docs *fresh = xmalloc(sizeof *fresh);
    draw_docs(c, fresh, c->docs.n, c->docs.n, 90);
    out->n = c->docs.n;
    out->starts[0] = 0;
    for (int i = 0; i < out->n; i++) {
        const Docs *from = i == kept ? &c->docs : fresh;
        out->starts[i + 1] = out->starts[i] + doc_length(from, i);
        memcpy(out->ids + out->starts[i], from->ids + from->starts[i],
               (size_t)doc_length(from, i) * sizeof *out->ids);
    }
    free(fresh);
}

static void apart(Case *c)
{
    Net n;
    int list[DOCS_MAX];
    Docs *other = xmalloc(sizeof *other);
    draw_model(c, true);
    draw_docs(c, &c->docs, 2, 6, 90);
    int kept = (int)draw(c, 0, c->docs.n - 1);
    replace_others(c, kept, other);
    int T = c->docs.starts[c->docs.n], U = other->starts[other->n];
    net_open_any(&n, c, T > U ? T : U);
    all_of(&c->docs, list);
    Pass a = net_pass(&n, c, &c->docs, list, c->docs.n, true);
    first_pass(c, &a);
    net_plant(&n, c);
    Pass b = net_pass(&n, c, other, list, other->n, true);
    same_rows(c, &b, other->starts[kept], &a, c->docs.starts[kept], doc_length(other, kept), "others changed",
              kept);
    pass_free(&a);
    pass_free(&b);
    free(other);
    net_close(&n);
}

/* ---- gradients ---------------------------------------------------------------------------------- */

/* Adds up the gradients of all documents; after each the pack ends where bit i of `cuts` is set. */
static size_t cut_grads(Net *n, Case *c, uint64_t cuts, char **out)
{
    int list[DOCS_MAX];
    all_of(&c->docs, list);
    grads_zero(&n->f.g);
    for (int from = 0, i = 0; i < c->docs.n; i++) {
        if (i + 1 < c->docs.n && !(cuts >> i & 1))
            continue;
        Pass p = net_pass(n, c, &c->docs, list + from, i + 1 - from, true);
        pass_free(&p);
        from = i + 1;
    }
    grads_finish(&n->f.g);
    return net_grads(n, out);
}

static void cuts(Case *c)
{
    Net n;
    char *want, *got;
    draw_model(c, true);
    draw_docs(c, &c->docs, 2, 8, 70);
    net_open_any(&n, c, c->docs.starts[c->docs.n]);
    size_t bytes = cut_grads(&n, c, 0, &want);
    case_first(c, want, bytes);
    net_plant(&n, c);
    for (int way = 0; way < 4; way++) {
        uint64_t at = way == 0 ? ~0ULL : (uint64_t)draw(c, 0, 255);
        cut_grads(&n, c, at, &got);
        case_same(c, got, want, bytes, "gradients of %d documents cut at bits %llx", c->docs.n,
                  (unsigned long long)at);
        free(got);
    }
    free(want);
    net_close(&n);
}

/* Two packs, so that a slot that is shared among layers has other rows in it before the second. */
static void recompute(Case *c)
{
    Net n;
    char *want, *got;
    draw_model(c, true);
    draw_docs(c, &c->docs, 2, 6, 90);
    const int T = c->docs.starts[c->docs.n];
    net_open_any(&n, c, T);
    size_t bytes = cut_grads(&n, c, 1, &want);
    case_first(c, want, bytes);
    for (c->recompute = RECOMPUTE_ELEMENTWISE; c->recompute < RECOMPUTE_LEVELS; c->recompute++) {
        net_close(&n);
        net_open_any(&n, c, T);
        net_plant(&n, c);
        cut_grads(&n, c, 1, &got);
        case_same(c, got, want, bytes, "gradients at level %d", (int)c->recompute);
        free(got);
    }
    free(want);
    net_close(&n);
}

/* ---- whole programs ----------------------------------------------------------------------------- */

/* Parts of what a run leaves, compared one by one. */
enum { HIDDEN, VALUES, DX, GRADS, WEIGHTS, SAMPLED, N_PARTS };
static const char *const part_names[] = {
    "hidden states", "head's values", "embedding gradients", "gradients", "weights after two updates",
    "sampled tokens"};
typedef struct {
    char *at[N_PARTS];
    size_t bytes[N_PARTS];
    char bodies[64];
} Outcome;

static void keep(Outcome *o, int part, const void *data, size_t bytes)
{
    o->at[part] = memcpy(xmalloc(bytes), data, bytes);
    o->bytes[part] = bytes;
}

static void outcome_free(Outcome *o)
{
    for (int i = 0; i < N_PARTS; i++)
        free(o->at[i]);
}

typedef struct {
    int32_t ids[16];
    float logp[16];
} Answer;

/* Answers to the beginnings of the documents. */
static void sample_some(Net *n, const Case *c, Outcome *o)
{
    enum { NEW = 16 };
    GenOptions options = {.seed = c->seed, .temperature = 1, .max_new_tokens = NEW};
    GenRequest req[DOCS_MAX];
    GenResult res[DOCS_MAX];
    Answer *a = xcalloc(DOCS_MAX, sizeof *a);
    net_open_generator(n, 3, LONG_TOKENS + NEW, 24);
    for (int i = 0; i < c->docs.n; i++) {
        int length = doc_length(&c->docs, i);
        req[i] = (GenRequest){c->docs.ids + c->docs.starts[i], length, (uint64_t)i, 0, 0};
        res[i] = (GenResult){.ids = a[i].ids, .logp = a[i].logp};
    }
    CHECK(generate(n->gen, &n->f.p, req, c->docs.n, &options, res, NULL, NULL, NULL) == 0, "%s", error_text());
    keep(o, SAMPLED, a, (size_t)c->docs.n * sizeof *a);
    free(a);
}

/* Two updates of two micro-batches each, then generation. false: no such bodies. */
static bool whole(const Case *c, CpuIsa isa, int threads, bool planted, Outcome *o)
{
    Net n;
    int list[DOCS_MAX];
    const char *bad;
    if (!net_open(&n, c, isa, threads, c->docs.starts[c->docs.n]))
        return false;
    snprintf(o->bodies, sizeof o->bodies, "%s", device_text(n.f.dev));
    if (planted)
        net_plant(&n, c);
    net_open_optim(&n);
    all_of(&c->docs, list);
    for (int step = 0; step < 2; step++) {
        int cut = c->docs.n / 2;
        Pass first = net_pass(&n, c, &c->docs, list, cut, true);
        Pass p = net_pass(&n, c, &c->docs, list + cut, c->docs.n - cut, true);
        if (step == 0) {
            keep(o, HIDDEN, p.hidden, (size_t)(p.T * p.C) * sizeof(float));
            keep(o, VALUES, p.values, (size_t)p.T * sizeof *p.values);
            keep(o, DX, p.dx, (size_t)(p.T * p.C) * sizeof(float));
            o->bytes[GRADS] = net_grads(&n, &o->at[GRADS]);
        }
        pass_free(&first);
        pass_free(&p);
        optim_step(&n.optim, 1e-2, &bad);
    }
    o->bytes[WEIGHTS] = net_weights(&n, &o->at[WEIGHTS]);
    if (c->config.head == HEAD_LM)
        sample_some(&n, c, o);
    net_close(&n);
    return true;
}

static void draw_whole(Case *c, Outcome *first, CpuIsa isa)
{
    draw_model(c, true);
    draw_docs(c, &c->docs, 2, 6, 60);
    whole(c, isa, 1, false, first);
    for (int i = 0; i < N_PARTS; i++)
        case_first(c, first->at[i], first->bytes[i]);
}

static void whole_same(Case *c, const Outcome *first, CpuIsa isa, int threads)
{
    Outcome o = {0};
    if (whole(c, isa, threads, c->planted, &o))
        for (int i = 0; i < N_PARTS; i++)
            case_same(c, o.at[i], first->at[i], first->bytes[i], "%s: %s", o.bodies, part_names[i]);
    outcome_free(&o);
}

static void threads(Case *c)
{
    static const int counts[] = {2, 3, 8};
    Outcome first = {0};
    draw_whole(c, &first, ISA_AUTO);
    for (int i = 0; i < 3; i++)
        whole_same(c, &first, ISA_AUTO, counts[i]);
    outcome_free(&first);
}

static void bodies(Case *c)
{
    Outcome first = {0};
    draw_whole(c, &first, ISA_PLAIN);
    for (CpuIsa isa = ISA_AVX2; isa < ISA_COUNT; isa++)
        whole_same(c, &first, isa, (int)draw(c, 1, 2));
    outcome_free(&first);
}

const Family families[] = {
    {"prefill", prefill, "prompts in chunks of 1, 2, 7, 16, all: a packed forward's rows"},
    {"decode", decode, "tokens one by one, 1, 2, 3, 8, 33 at a time: a packed forward's rows"},
    {"packed", packed, "documents in a pack and alone: forward and gradient of the inputs"},
    {"apart", apart, "other documents of the pack change: forward and gradient of the inputs"},
    {"cuts", cuts, "micro-batches cut elsewhere: every gradient"},
    {"threads", threads, "1, 2, 3, 8 threads: forward, gradients, weights after two updates, samples"},
    {"bodies", bodies, "plain, AVX2, AVX-512: forward, gradients, weights after two updates, samples"},
    {"sampler", sampler, "recorded log-probabilities are the trainer's, the first ratio is 1"},
    {"recompute", recompute, "activations kept or computed again, at every level: every gradient"},
};
const int n_families = sizeof families / sizeof *families;
