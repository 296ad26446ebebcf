/* ppo_ptx.c - the language-model loss that is mixed into PPO (InstructGPT's PPO-ptx, an option of "Secrets
 * of RLHF"): each minibatch takes the next ptx.batch_size sequences of an endless walk over shuffled
 * epochs, keyed by the seed. Packs follow those of the answers and are cut as they are, so
 * micro_batch_tokens never changes a bit. Tested by tests/unit/test_rollout.c, tests/e2e/test_ppo.sh and the
 * dumped iteration. */
#include "ppo/ppo.h"

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/runtime/device.h"

#include <stdlib.h>
#include <string.h>

static void make_order(Ppo *p, int64_t epoch)
{
    PtxData *d = &p->ptx;
    free(d->order);
    d->n_order = mix_order(&d->order, d->first, p->c->ptx.data.at, p->c->ptx.data.n,
                           (uint64_t)p->c->run.seed, (uint64_t)epoch);
    d->epoch = epoch;
    CHECK(d->n_order > 0, "an empty epoch of ptx.data");
}

int ptx_read(Ppo *p)
{
    const PpoConfig *c = p->c;
    const DataSource *sources = c->ptx.data.at;
    const int n = c->ptx.data.n;
    const RecordKind kind = c->ptx.pretrain ? RECORD_TEXT : RECORD_SFT;
    PtxData *d = &p->ptx;
    int64_t *end = xcalloc((size_t)n, sizeof *end); /* records up to and with source i */
    int rc = 0;
    d->first = xcalloc((size_t)n + 1, sizeof *d->first);
    for (int i = 0; i < n; i++) {
        TRY(record_set_read(&d->records, sources[i].path, kind, (BadRow)c->on_bad_row));
        end[i] = d->records.n;
    }
    TRY(example_set_make(&d->examples, &d->records, 0, &p->chat, (int)c->ptx.max_length, (OnLong)c->on_long,
                         (BadRow)c->on_bad_row));
    for (int64_t i = 0, k = 0; i < n; i++) { /* examples keep the order of the records */
        while (k < d->examples.n && d->examples.at[k].record < end[i])
            k++;
        d->first[i + 1] = k;
    }
    make_order(p, 0);
    log_info("ptx: %lld sequences, %lld tokens, %lld of them trained on", (long long)d->examples.n,
             (long long)d->examples.n_tokens, (long long)d->examples.n_targets);
fail:
    free(end);
    return rc;
}

const Example *ptx_item(Ppo *p, int64_t k)
{
    const PtxData *d = &p->ptx; /* every epoch has as many items as the first */
    if (k / d->n_order != d->epoch)
        make_order(p, k / d->n_order);
    return &d->examples.at[d->order[k % d->n_order]];
}

double ptx_weight(const Ppo *p, const Example *e)
{
    return p->ptx.records.at[e->record].weight;
}

/* Packs the sequences from number *next on while they fit, and lists their target rows: ids in
 * p->stage_target, the records' weights in p->stage. Returns the number of rows. */
static int64_t next_pack(Ppo *p, int64_t *next, int64_t to)
{
    Pack *k = &p->pack;
    int64_t rows = 0;
    pack_clear(k);
    for (; *next < to; (*next)++) {
        const Example *e = ptx_item(p, *next);
        if (!pack_open(k, e->n))
            break;
        pack_add(k, e->ids, e->mask, e->n, *next);
        rows = pack_list_targets(k, (float)ptx_weight(p, e), p->stage_rows, p->stage_target, p->stage, rows);
    }
    CHECK(k->n_seqs > 0, "sequence %lld of ptx.data does not fit a pack", (long long)*next);
    return rows;
}

/* Forward and backward of the packed rows; *loss += sum of weight * -logp, one chain over all packs. */
static void run_pack(Ppo *p, int64_t rows, double scale, double *loss)
{
    LmHead *h = &p->head;
    size_t floats = (size_t)rows * sizeof(float);
    float *scaled = p->stage_ratio, *logp = p->stage_entropy;
    for (int64_t i = 0; i < rows; i++)
        scaled[i] = (float)((double)p->stage[i] * scale);
    batch_set(&p->batch, &p->pack);
    model_forward(&p->model, &p->policy, NULL, &p->batch, p->acts);
    Tensor hidden = acts_hidden(p->acts, &p->batch), dhidden = acts_dhidden(p->acts, &p->batch);
    lm_head_set(h, &p->batch, p->stage_rows, p->stage_target, rows);
    device_upload(&h->weight, scaled, floats);
    lm_head_run(h, &p->model, &p->policy, LM_XENT, rows, &hidden, &dhidden, &p->policy_grads, 1.0, 0);
    model_backward(&p->model, &p->policy, NULL, &p->batch, p->acts, &p->policy_grads);
    device_download(logp, &h->logp, floats);
    for (int64_t i = 0; i < rows; i++)
        *loss -= (double)p->stage[i] * (double)logp[i];
}

double ptx_gradients(Ppo *p)
{
    int64_t from = p->ptx.cursor, to = from + p->c->ptx.batch_size;
    double weight = 0, loss = 0;
    for (int64_t k = from; k < to; k++) {
        const Example *e = ptx_item(p, k);
        for (int i = 1; i < e->n; i++)
            weight += e->mask[i] ? (double)(float)ptx_weight(p, e) : 0;
    }
    for (int64_t next = from; next < to;) {
        int64_t rows = next_pack(p, &next, to);
        run_pack(p, rows, p->c->ptx.coef / weight, &loss);
    }
    p->ptx.cursor = to;
    return loss / weight;
}

void ptx_free(PtxData *d)
{
    example_set_free(&d->examples);
    record_set_free(&d->records);
    free(d->first);
    free(d->order);
    memset(d, 0, sizeof *d);
}
