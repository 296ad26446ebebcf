/* pack.c - sequences laid one after another for one model step.
 *
 * Plain host arrays and nothing else, so the double build of the gradient test can use this file
 * too: no call into the tokenizer or the records. Tested by tests/unit/test_pack.c. */
#include "common/base/error.h"
#include "common/data/example.h"

#include <stdlib.h>
#include <string.h>

void pack_init(Pack *p, int max_tokens, int max_seqs)
{
    CHECK(max_tokens > 0 && max_seqs > 0, "room for %d tokens, %d sequences", max_tokens, max_seqs);
    const size_t t = (size_t)max_tokens, s = (size_t)max_seqs;
    memset(p, 0, sizeof *p);
    p->ids = xmalloc(t * sizeof *p->ids);
    p->pos = xmalloc(t * sizeof *p->pos);
    p->target = xmalloc(t * sizeof *p->target);
    p->weight = xmalloc(t * sizeof *p->weight);
    p->starts = xmalloc((s + 1) * sizeof *p->starts);
    p->units = xmalloc((s + 1) * sizeof *p->units);
    p->item = xmalloc(s * sizeof *p->item);
    p->max_tokens = max_tokens;
    p->max_seqs = max_seqs;
    pack_clear(p);
}

void pack_free(Pack *p)
{
    free(p->ids);
    free(p->pos);
    free(p->target);
    free(p->weight);
    free(p->starts);
    free(p->units);
    free(p->item);
    memset(p, 0, sizeof *p);
}

void pack_clear(Pack *p)
{
    p->n_tokens = p->n_seqs = p->n_units = p->n_targets = p->n_open = 0;
    p->starts[0] = p->units[0] = 0;
}

/* Whether an item of n tokens goes into the unit under way. */
static bool joins_unit(const Pack *p, int n)
{
    if (p->n_units == 0)
        return false;
    return p->unit_tokens == 0 || n <= p->unit_tokens - (p->n_tokens - p->units[p->n_units - 1]);
}

bool pack_fits(const Pack *p, int n)
{
    const int need = n > p->unit_tokens || joins_unit(p, n) ? n : p->unit_tokens;
    return need <= p->max_tokens - p->n_tokens && p->n_seqs < p->max_seqs;
}

bool pack_open(Pack *p, int n)
{
    if (!pack_fits(p, n))
        return false;
    if (!joins_unit(p, n))
        p->units[++p->n_units] = p->n_tokens;
    p->n_open = n;
    return true;
}

void pack_add(Pack *p, const int32_t *ids, const uint8_t *mask, int n, int64_t item)
{
    CHECK(n > 0, "sequence %lld has %d tokens", (long long)item, n);
    CHECK(n <= p->max_tokens - p->n_tokens && p->n_seqs < p->max_seqs,
          "%d tokens do not fit: %d of %d tokens and %d of %d sequences are taken", n, p->n_tokens,
          p->max_tokens, p->n_seqs, p->max_seqs);
    CHECK(p->unit_tokens == 0 || n <= p->n_open, "%d tokens of sequence %lld, room was made for %d", n,
          (long long)item, p->n_open);
    p->n_open -= p->unit_tokens ? n : 0;
    p->n_units += p->n_units == 0;
    const int from = p->n_tokens;
    for (int t = 0; t < n; t++) {
        const bool last = t + 1 == n, trained = !last && mask && mask[t + 1];
        p->ids[from + t] = ids[t];
        p->pos[from + t] = t;
        p->target[from + t] = last ? 0 : ids[t + 1];
        p->weight[from + t] = trained ? 1.0f : 0.0f;
        p->n_targets += trained;
    }
    p->item[p->n_seqs++] = item;
    p->n_tokens += n;
    p->starts[p->n_seqs] = p->units[p->n_units] = p->n_tokens;
}

int64_t pack_list_targets(const Pack *p, float weight, int32_t *rows, int32_t *target, float *weights, int64_t n)
{
    for (int i = p->starts[p->n_seqs - 1]; i < p->n_tokens; i++) {
        if (p->weight[i] == 0)
            continue;
        rows[n] = i;
        target[n] = p->target[i];
        weights[n++] = weight;
    }
    return n;
}
