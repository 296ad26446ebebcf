/* logp.c - see logp.h. Tested by tests/e2e/test_generate.sh (KL of a model to itself is exactly 0). */
#include "common/generate/logp.h"

#include "common/base/error.h"
#include "common/runtime/device.h"

#include <string.h>

void logp_alloc(LogpWork *w, const Model *m, Arena *work, Arena *host, int64_t max_tokens)
{
    size_t n = (size_t)max_tokens;
    if (!w->acts) {
        w->acts = acts_new(m, max_tokens, false, RECOMPUTE_NONE);
        pack_init(&w->pack, (int)max_tokens, (int)max_tokens);
    }
    w->max_tokens = max_tokens;
    acts_alloc(w->acts, work);
    batch_alloc(&w->batch, work, m->dev, max_tokens, max_tokens);
    lm_head_alloc(&w->head, m, work, host, max_tokens, false);
    w->rows = arena_bytes(host, n * sizeof *w->rows);
    w->target = arena_bytes(host, n * sizeof *w->target);
    w->host = arena_bytes(host, n * sizeof *w->host);
}

void logp_free(LogpWork *w)
{
    acts_free(w->acts);
    pack_free(&w->pack);
    memset(w, 0, sizeof *w);
}

/* What is asked about each item: its answer, or k tokens after its end. */
typedef struct {
    const int32_t *choice; /* NULL: the answer */
    int k;
} Asked;

static int n_asked(const LogpItem *item, Asked a)
{
    return a.choice ? a.k : item->n - item->n_prompt;
}

/* Packs items from `first` on; returns how many. */
static int64_t fill(LogpWork *w, const LogpItem *items, int64_t first, int64_t n, Asked a, int64_t *rows)
{
    int64_t i = first;
    *rows = 0;
    pack_clear(&w->pack);
    for (; i < n && pack_fits(&w->pack, items[i].n); i++) {
        const LogpItem *it = &items[i];
        int last = w->pack.n_tokens + it->n - 1, start = w->pack.n_tokens;
        CHECK(!a.choice || it->n >= a.k, "%d tokens, %d choices", it->n, a.k);
        pack_add(&w->pack, it->ids, NULL, it->n, i);
        for (int t = 0; t < n_asked(it, a); t++) {
            w->rows[*rows] = a.choice ? last : start + it->n_prompt + t - 1;
            w->target[(*rows)++] = a.choice ? a.choice[t] : it->ids[it->n_prompt + t];
        }
    }
    CHECK(i > first, "a sequence of %d tokens does not fit a pack of %d", items[first].n,
          w->pack.max_tokens);
    return i - first;
}

static void run(LogpWork *w, const Model *m, const ParamSet *p, const LogpItem *items, int64_t n, Asked a,
                double temperature)
{
    for (int64_t i = 0; i < n;) {
        int64_t rows, taken = fill(w, items, i, n, a, &rows), at = 0;
        batch_set(&w->batch, &w->pack);
        model_forward(m, p, NULL, &w->batch, w->acts);
        Tensor hidden = acts_hidden(w->acts, &w->batch);
        lm_head_set(&w->head, &w->batch, w->rows, w->target, rows);
        lm_head_run(&w->head, m, p, LM_LOGP, rows, &hidden, NULL, NULL, 1.0 / temperature, 0);
        device_download(w->host, &w->head.logp, (size_t)rows * sizeof *w->host);
        for (int64_t k = i; k < i + taken; k++) {
            int answer = n_asked(&items[k], a);
            memcpy(items[k].logp, w->host + at, (size_t)answer * sizeof *w->host);
            at += answer;
        }
        i += taken;
    }
}

void logp_run(LogpWork *w, const Model *m, const ParamSet *p, const LogpItem *items, int64_t n,
              double temperature)
{
    run(w, m, p, items, n, (Asked){NULL, 0}, temperature);
}

void logp_choices(LogpWork *w, const Model *m, const ParamSet *p, const LogpItem *items, int64_t n,
                  const int32_t *choice, int k)
{
    run(w, m, p, items, n, (Asked){choice, k}, 1);
}
