/* heads.c - the language-model head with its loss, in chunks of rows, and the scalar head.
 *
 * One product gives a chunk's logits; they become their own gradient in place, so logits of a whole
 * batch never exist and the forward product is not done twice. Tested by tests/unit/test_model.c
 * and tests/grad_model.c. */
#include "common/base/error.h"
#include "common/model/acts.h"
#include "common/runtime/device.h"

/* ---- language model ------------------------------------------------------------------------- */

enum {
    CHUNK_CPU = 128,              /* the rows' logits stay near the core */
    CHUNK_CARD = 1024,            /* fewer leave most of a card idle: a chain over V is long */
    CHUNK_CARD_FLOATS = 160 << 20, /* of logits, 640 MiB: each chunk moves the head's whole gradient */
    NEAR_FLOATS = 128 << 10,      /* of logits, half of a small core's second cache */
};

int64_t lm_head_chunk(const Model *m, int64_t max_rows)
{
    int64_t rows = CHUNK_CPU;
    if (device_kind(m->dev) == DEVICE_CUDA) {
        rows = CHUNK_CARD_FLOATS / m->table.config.V / CHUNK_CPU * CHUNK_CPU;
        rows = rows < CHUNK_CPU ? CHUNK_CPU : rows > CHUNK_CARD ? CHUNK_CARD : rows;
    }
    return rows < max_rows ? rows : max_rows;
}

void lm_head_alloc(LmHead *h, const Model *m, Arena *a, Arena *host, int64_t max_rows,
                   bool backward)
{
    const ModelConfig *c = &m->table.config;
    CHECK(c->head == HEAD_LM && host->kind != ARENA_DEVICE, "LM head in %s", host->name);
    *h = (LmHead){.max_rows = max_rows};
    Tensor *ids[] = {&h->rows, &h->target};
    Tensor *vectors[] = {&h->weight, &h->old_logp, &h->adv,  &h->logp,  &h->entropy,
                         &h->lse,    &h->hit,      &h->loss, &h->ratio, &h->dlogp};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        *ids[i] = arena_rows1(a, DTYPE_I32, max_rows);
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        *vectors[i] = arena_rows1(a, DTYPE_REAL, max_rows);
    int64_t chunk = lm_head_chunk(m, max_rows);
    if (backward)
        h->units = arena_bytes(host, (size_t)(max_rows + 1) * sizeof *h->units);
    h->hidden = arena_rows2(a, DTYPE_REAL, chunk, c->C);
    if (backward)
        h->dhidden = arena_rows2(a, DTYPE_REAL, chunk, c->C);
    h->logits = arena_rows2(a, DTYPE_REAL, chunk, c->V);
    if (backward && model_acts_dtype(m) == DTYPE_BF16)
        h->dlogits = arena_rows2(a, DTYPE_BF16, chunk, c->V);
}

void lm_head_note(const LmHead *h, MemoryPlan *plan, const Arena *arena)
{
    const Tensor *const chunk[] = {&h->logits, &h->dlogits, &h->hidden, &h->dhidden};
    size_t bytes = 0;
    char size[32];
    for (size_t i = 0; i < sizeof chunk / sizeof *chunk; i++)
        bytes += chunk[i]->n_dims ? tensor_bytes(chunk[i]) : 0;
    memory_plan_note(plan, arena, "head: %s, logits of %lld rows at a time", memory_size_text(size, bytes),
                     (long long)h->logits.dim[0]);
}

void lm_head_logits(Tensor *logits, const Tensor *x, const Model *m, const ParamSet *p)
{
    int group = (int)m->table.config.L;
    params_acquire(p, group);
    model_linear(logits, x, p, m->table.head, NULL, false);
    params_release(p, group);
}

/* Rows that go through loss and gradient before the next ones: as many as leave their logits in the
 * caches of the cores, which read them three times. */
static int64_t near_rows(const Model *m, int64_t chunk)
{
    const int64_t rows = NEAR_FLOATS / m->table.config.V;
    return device_kind(m->dev) == DEVICE_CPU ? (rows > 1 ? rows : 1) * device_threads(m->dev)
                                             : chunk;
}

/* Loss of rows [from, from + n), whose logits become their gradient when backward. */
static void rows_loss(LmHead *h, LmLossKind kind, int64_t from, int64_t n, Tensor *logits,
                      bool backward, double inv_temp, double clip)
{
    Tensor target = tensor_slice(&h->target, from, n), logp = tensor_slice(&h->logp, from, n);
    Tensor lse = tensor_slice(&h->lse, from, n), hit = tensor_slice(&h->hit, from, n);
    Tensor entropy = tensor_slice(&h->entropy, from, n);
    op_logprob(&logp, &lse, &entropy, &hit, logits, &target, inv_temp);
    if (kind == LM_LOGP)
        return;
    Tensor loss = tensor_slice(&h->loss, from, n), dlogp = tensor_slice(&h->dlogp, from, n);
    Tensor weight = tensor_slice(&h->weight, from, n);
    if (kind == LM_XENT) {
        op_xent_loss(&loss, &dlogp, &logp, &weight);
    } else {
        Tensor old = tensor_slice(&h->old_logp, from, n), adv = tensor_slice(&h->adv, from, n);
        Tensor ratio = tensor_slice(&h->ratio, from, n);
        op_policy_loss(&loss, &dlogp, &ratio, &logp, &old, &adv, &weight, clip);
    }
    if (backward)
        op_logprob_backward(logits, &dlogp, &lse, &target, inv_temp);
}

void lm_head_set(LmHead *h, const Batch *b, const int32_t *rows, const int32_t *target, int64_t R)
{
    CHECK(R >= 0 && R <= h->max_rows && b->n_units <= h->max_rows, "%lld rows of %d units, planned for %lld",
          (long long)R, b->n_units, (long long)h->max_rows);
    device_upload(&h->rows, rows, (size_t)R * sizeof *rows);
    device_upload(&h->target, target, (size_t)R * sizeof *target);
    h->n_units = h->units ? b->n_units : 0;
    int32_t r = 0;
    for (int u = 0; u < h->n_units; u++) {
        h->units[u] = r;
        while (r < R && rows[r] < b->units[u + 1])
            r++;
        h->units[u + 1] = r;
    }
}

/* Rows [from, from + n), a chunk, forward and with g backward. */
static void chunk_run(LmHead *h, const Model *m, const ParamSet *p, LmLossKind kind, int64_t from, int64_t n,
                      const Tensor *hidden, Tensor *dhidden, Grads *g, double inv_temp, double clip)
{
    Tensor rows = tensor_slice(&h->rows, from, n), x = tensor_slice(&h->hidden, 0, n);
    Tensor logits = tensor_slice(&h->logits, 0, n);
    const int64_t near = near_rows(m, h->logits.dim[0]);

    op_gather_rows(&x, hidden, &rows);
    lm_head_logits(&logits, &x, m, p);
    for (int64_t at = 0; at < n; at += near) {
        Tensor some = tensor_slice(&logits, at, n - at < near ? n - at : near);
        rows_loss(h, kind, from + at, some.dim[0], &some, g != NULL, inv_temp, clip);
    }
    if (!g)
        return;

    Tensor dx = tensor_slice(&h->dhidden, 0, n), dlogits = logits;
    if (h->dlogits.n_dims) {
        dlogits = tensor_slice(&h->dlogits, 0, n);
        op_convert(&dlogits, &logits);
    }
    model_linear_backward(&dx, &dlogits, &x, p, m->table.head, NULL, g, NULL, false);
    op_scatter_rows(dhidden, &dx, &rows);
}

/* Chunks are counted from a unit's first row, so that the head's gradient is added up the same way whatever
 * else is in the micro-batch. Without a gradient nothing is added up. */
void lm_head_run(LmHead *h, const Model *m, const ParamSet *p, LmLossKind kind, int64_t R,
                 const Tensor *hidden, Tensor *dhidden, Grads *g, double inv_temp, double clip)
{
    CHECK(R >= 0 && R <= h->max_rows && inv_temp > 0, "%lld rows of %lld, 1 / temperature %g",
          (long long)R, (long long)h->max_rows, inv_temp);
    CHECK(!g || (kind != LM_LOGP && dhidden && h->dhidden.n_dims),
          "gradients of a forward-only head");
    const bool by_unit = g && h->n_units;
    const int32_t all[] = {0, (int32_t)R}, *units = by_unit ? h->units : all;
    const int n_units = by_unit ? h->n_units : 1;
    const int64_t chunk = h->logits.dim[0];
    int group = (int)m->table.config.L;
    CHECK(units[n_units] == R, "%lld rows, %d were set", (long long)R, units[n_units]);
    params_acquire(p, group);
    for (int u = 0; u < n_units; u++)
        for (int64_t from = units[u], to = units[u + 1]; from < to; from += chunk)
            chunk_run(h, m, p, kind, from, to - from < chunk ? to - from : chunk, hidden, dhidden, g,
                      inv_temp, clip);
    params_release(p, group);
}

/* ---- scalar --------------------------------------------------------------------------------- */

void scalar_head_alloc(ScalarHead *h, const Model *m, Arena *a, int64_t max_rows, bool backward)
{
    int64_t C = m->table.config.C;
    CHECK(m->table.config.head == HEAD_SCALAR, "scalar head of a language model");
    *h = (ScalarHead){.max_rows = max_rows};
    h->rows = arena_rows1(a, DTYPE_I32, max_rows);
    h->hidden = arena_rows2(a, DTYPE_REAL, max_rows, C);
    h->score = arena_rows2(a, DTYPE_REAL, max_rows, 1);
    if (backward) {
        h->dhidden = arena_rows2(a, DTYPE_REAL, max_rows, C);
        h->dscore = arena_rows2(a, DTYPE_REAL, max_rows, 1);
    }
}

void scalar_head_forward(ScalarHead *h, const Model *m, const ParamSet *p, int64_t R,
                         const Tensor *hidden)
{
    CHECK(R > 0 && R <= h->max_rows, "%lld scores, planned for %lld", (long long)R,
          (long long)h->max_rows);
    Tensor rows = tensor_slice(&h->rows, 0, R), x = tensor_slice(&h->hidden, 0, R);
    Tensor score = tensor_slice(&h->score, 0, R);
    params_acquire(p, (int)m->table.config.L);
    op_gather_rows(&x, hidden, &rows);
    model_linear(&score, &x, p, m->table.head, NULL, false);
    params_release(p, (int)m->table.config.L);
}

void scalar_head_backward(ScalarHead *h, const Model *m, const ParamSet *p, int64_t R,
                          Tensor *dhidden, Grads *g)
{
    CHECK(R > 0 && R <= h->max_rows && h->dscore.n_dims, "gradients of a forward-only head");
    Tensor rows = tensor_slice(&h->rows, 0, R), x = tensor_slice(&h->hidden, 0, R);
    Tensor dscore = tensor_slice(&h->dscore, 0, R), dx = tensor_slice(&h->dhidden, 0, R);
    params_acquire(p, (int)m->table.config.L);
    model_linear_backward(&dx, &dscore, &x, p, m->table.head, NULL, g, NULL, false);
    op_scatter_rows(dhidden, &dx, &rows);
    params_release(p, (int)m->table.config.L);
}
