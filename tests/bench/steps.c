/* steps.c - whole training steps: forward, loss, backward, clipping and AdamW over one pack, as
 * rlhf-sft and rlhf-reward run them. Compared with the time in which the step's products alone would run
 * at the ceiling. */
#include "tests/bench/rig.h"

#include "common/base/error.h"
#include "common/base/mem.h"

#include <math.h>
#include <stdlib.h>

void steps_fill(Rig *r, const Shape *s, int n)
{
    int32_t *ids = xmalloc((size_t)s->T * sizeof *ids);
    uint8_t *mask = xmalloc((size_t)s->T);
    for (int t = 0; t < s->T; t++)
        mask[t] = 1;
    pack_clear(&r->pack);
    for (int i = 0; i < n; i++) {
        rig_random_ids(ids, s->T, s->config.V, (uint64_t)i + 1);
        CHECK(pack_open(&r->pack, s->T), "%d sequences of %d tokens", n, s->T);
        pack_add(&r->pack, ids, mask, s->T, i);
    }
    free(ids);
    free(mask);
}

static void update(Rig *r)
{
    const char *bad;
    double norm = optim_step(&r->optim, r->optim_config.learning_rate, &bad);
    CHECK(isfinite(norm), "%s is not finite", bad);
    device_sync(r->dev);
}

/* Every token but the last of each sequence predicts its successor. */
static void lm_rows(Rig *r, int64_t *n)
{
    const Pack *k = &r->pack;
    size_t room = (size_t)k->n_tokens * sizeof(int32_t);
    int32_t *rows = xmalloc(room), *target = xmalloc(room);
    float *weight = xmalloc(room);
    *n = 0;
    for (int t = 0; t < k->n_tokens; t++) {
        if (k->weight[t] == 0)
            continue;
        rows[*n] = t;
        target[*n] = k->target[t];
        weight[(*n)++] = 1.0F / (float)k->n_targets;
    }
    lm_head_set(&r->lm, &r->batch, rows, target, *n);
    device_upload(&r->lm.weight, weight, (size_t)*n * sizeof *weight);
    free(rows);
    free(target);
    free(weight);
}

void steps_sft(Rig *r)
{
    int64_t n;
    batch_set(&r->batch, &r->pack);
    model_forward(&r->model, &r->params, NULL, &r->batch, r->acts);
    Tensor hidden = acts_hidden(r->acts, &r->batch), dhidden = acts_dhidden(r->acts, &r->batch);
    lm_rows(r, &n);
    lm_head_run(&r->lm, &r->model, &r->params, LM_XENT, n, &hidden, &dhidden, &r->grads, 1.0, 0);
    model_backward(&r->model, &r->params, NULL, &r->batch, r->acts, &r->grads);
    update(r);
}

/* Sequences 2i and 2i + 1 are the answers of pair i; its score stands at the last token. */
void steps_reward(Rig *r)
{
    const int64_t S = r->pack.n_seqs;
    int32_t last[1024];
    CHECK(S <= 1024, "%lld sequences", (long long)S);
    for (int64_t i = 0; i < S; i++)
        last[i] = r->pack.starts[i + 1] - 1;
    batch_set(&r->batch, &r->pack);
    model_forward(&r->model, &r->params, NULL, &r->batch, r->acts);
    Tensor hidden = acts_hidden(r->acts, &r->batch), dhidden = acts_dhidden(r->acts, &r->batch);
    device_upload(&r->scalar.rows, last, (size_t)S * sizeof *last);
    scalar_head_forward(&r->scalar, &r->model, &r->params, S, &hidden);
    Tensor score = tensor_make1(r->scalar.score.data, r->dev, DTYPE_REAL, S);
    Tensor dscore = tensor_make1(r->scalar.dscore.data, r->dev, DTYPE_REAL, S);
    Tensor loss = tensor_slice(&r->loss, 0, S / 2), margin = tensor_slice(&r->margin, 0, S / 2);
    Tensor weight = tensor_slice(&r->weight, 0, S / 2);
    op_fill(&dscore, 0);
    op_fill(&weight, 2.0 / (double)S);
    op_rank_loss(&loss, &dscore, &score, &margin, &weight);
    scalar_head_backward(&r->scalar, &r->model, &r->params, S, &dhidden, &r->grads);
    model_backward(&r->model, &r->params, NULL, &r->batch, r->acts, &r->grads);
    update(r);
}

static void measure(Bench *b, const Shape *s, int which, HeadKind head)
{
    void (*step)(Rig *r) = head == HEAD_LM ? steps_sft : steps_reward;
    double tokens = (double)s->S * s->T, flops = shape_step_flops(s, head);
    Row row = bench_row(b, which, "tok/s", 1.15);
    Rig rig;
    row.target = b->level ? 0 : s->target[bench_is_bf16(b)].step;
    row.roof = ceiling_flops(bench_ceiling(b, which), b->dtype) / flops;
    snprintf(row.name, sizeof row.name, "%s %s %dx%d%s%s", head == HEAD_LM ? "sft" : "reward", s->name, s->S,
             s->T, b->level ? " " : "", b->level ? bench_levels[b->level] : "");
    if (!bench_wanted(b, row.name))
        return;
    if (!rig_open_training(&rig, b, s, head, b->threads[which], row.name))
        return;
    steps_fill(&rig, s, 2);
    step(&rig); /* touches all memory but most of the activations */
    steps_fill(&rig, s, s->S);
    bench_share(b, which);
    for (double from = bench_now(0); bench_again(b, row.n, from);) {
        double started = bench_now(row.threads);
        step(&rig);
        double passed = bench_now(row.threads) - started;
        bench_take(&row, tokens / passed, bench_share(b, which));
    }
    if (row_add(&b->rows, row) || b->profile) {
        profile_begin(rig.dev);
        step(&rig);
        profile_end(b, which, bench_share(b, which));
    }
    rig_close(&rig);
}

void steps_run(Bench *b, const Shape *s, int which)
{
    if (!s->S)
        return;
    measure(b, s, which, HEAD_LM);
    measure(b, s, which, HEAD_SCALAR);
}
