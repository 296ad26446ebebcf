/* vocab.c - rows over the vocabulary: log-probabilities, their gradient, sampling.
 *
 * The trainer's log-probability and the sampler's come from one function, row_stats, so they are
 * equal bit for bit. Sums run over tiles of VOCAB_TILE: the sampler draws a tile by its sum, then
 * an entry inside it, computing only that tile's exponentials again. Terms of zero weight add
 * nothing to the entropy (0 * -inf does not arise); the entropy's row sums are fma chains per lane.
 * Tested by tests/ops/vocab.c and tests/unit/test_attention.c. */
#include "common/runtime/cpu/cpu.h"
#include "common/runtime/cpu/formula.h"
#include "common/runtime/cpu/vmath.h"

#include <string.h>

typedef struct {
    real_t max, sum, log_sum;
} RowStats;

/* n <= SUM_LANES entries, filled up with entries of weight 0. */
K_INLINE void block_fill(real_t block[SUM_LANES], const real_t *z, int64_t n)
{
    for (int j = 0; j < SUM_LANES; j++)
        block[j] = j < n ? z[j] : -K_INF;
}

/* Largest z. */
static real_t row_top(const real_t *z, int64_t V, real_t inv_temp)
{
    real_t rest[SUM_LANES];
    vf a[SUM_VF];
    for (int v = 0; v < SUM_VF; v++)
        a[v] = vf_set1(-K_INF);
    for (int64_t i = 0; i < V; i += SUM_LANES) {
        const real_t *block = z + i;
        if (i + SUM_LANES > V) {
            block_fill(rest, block, V - i);
            block = rest;
        }
        VF_UNROLL
        for (int v = 0; v < SUM_VF; v++)
            a[v] = vf_max(vf_mul(vf_load(block + v * VF_LANES), vf_set1(inv_temp)), a[v]);
    }
    return vf_tree_max(a);
}

/* One block of a tile: a gathers e = exp(z - max), b e * (z - max). Where e is 0 any finite factor
 * leaves b as it is, which is never -0. */
K_INLINE void block_add(vf a[SUM_VF], vf b[SUM_VF], const real_t *z, real_t inv_temp, real_t max,
                        bool with_dot)
{
    VF_UNROLL
    for (int v = 0; v < SUM_VF; v++) {
        const vf scaled = vf_mul(vf_load(z + v * VF_LANES), vf_set1(inv_temp));
        const vf x = vf_sub(scaled, vf_set1(max)), e = vf_exp(x);
        a[v] = vf_add(a[v], e);
        if (with_dot)
            b[v] = vf_fma(e, vf_max(vf_set1(K_EXP_LOW), x), b[v]);
    }
}

/* rowsum(e) of a tile and, when asked, rowsum(e * (z - max)) into *dot. Entries of weight 0 add +0
 * to lanes that are never -0. */
K_INLINE real_t tile_sum(const real_t *z, int64_t n, real_t inv_temp, real_t max, int64_t ahead,
                         bool with_dot, real_t *dot)
{
    real_t rest[SUM_LANES];
    vf a[SUM_VF], b[SUM_VF];
    int64_t i = 0;
    for (int v = 0; v < SUM_VF; v++)
        a[v] = b[v] = vf_zero();
    for (; i + SUM_LANES <= n; i += SUM_LANES) {
        for (size_t byte = 0; byte < SUM_LANES * sizeof *z; byte += 64)
            __builtin_prefetch((const char *)(z + i + ahead) + byte, 0, 2);
        block_add(a, b, z + i, inv_temp, max, with_dot);
    }
    if (i < n) {
        block_fill(rest, z + i, n - i);
        block_add(a, b, rest, inv_temp, max, with_dot);
    }
    if (with_dot)
        *dot = vf_tree_sum(b);
    return vf_tree_sum(a);
}

static int64_t tile_len(int64_t V, int64_t from)
{
    return V - from < VOCAB_TILE ? V - from : VOCAB_TILE;
}

/* Where not NULL: entropy receives the row's, tiles (V / VOCAB_TILE rounded up) the sum of each
 * tile. The row `ahead` elements further on is asked for from memory meanwhile. */
static RowStats row_stats(const real_t *z, int64_t V, real_t inv_temp, int64_t ahead,
                          real_t *entropy, real_t *tiles)
{
    RowStats st = {.max = row_top(z, V, inv_temp)};
    real_t dot = 0;
    for (int64_t from = 0; from < V; from += VOCAB_TILE) {
        const int64_t n = tile_len(V, from);
        real_t sum, part;
        if (entropy) {
            sum = tile_sum(z + from, n, inv_temp, st.max, ahead, true, &part);
            dot += part;
        } else {
            sum = tile_sum(z + from, n, inv_temp, st.max, ahead, false, NULL);
        }
        if (tiles)
            tiles[from / VOCAB_TILE] = sum;
        st.sum += sum;
    }
    st.log_sum = k_log(st.sum);
    if (entropy)
        *entropy = st.log_sum - dot / st.sum;
    return st;
}

static real_t row_logp(const real_t *z, int64_t id, real_t inv_temp, const RowStats *st)
{
    return (z[id] * inv_temp - st->max) - st->log_sum;
}

typedef struct {
    Tensor *logp, *lse, *entropy, *hit, *ids;
    const Tensor *logits, *targets, *keys, *dlogp, *inv_temps;
    real_t inv_temp;
} Vocab;

static double work_ns(const Tensor *logits)
{
    return (double)tensor_len(logits);
}

static const real_t *logits_row(const Vocab *vo, int64_t r)
{
    return real_data(vo->logits) + r * vo->logits->stride;
}

static void logprob_part(int part, int n_parts, void *ctx)
{
    const Vocab *vo = ctx;
    int64_t from, to;
    part_range(vo->logits->dim[0], 1, part, n_parts, &from, &to);
    for (int64_t r = from; r < to; r++) {
        const real_t *z = logits_row(vo, r);
        const RowStats st =
            row_stats(z, vo->logits->dim[1], vo->inv_temp, r + 1 < to ? vo->logits->stride : 0,
                      real_data(vo->entropy) + r, NULL);
        const int64_t id = i32_data(vo->targets)[r];
        real_data(vo->logp)[r] = row_logp(z, id, vo->inv_temp, &st);
        real_data(vo->lse)[r] = st.max + st.log_sum;
        real_data(vo->hit)[r] = z[id] * vo->inv_temp == st.max ? 1 : 0;
    }
}

void CPU_OP(logprob)(Tensor *logp, Tensor *lse, Tensor *entropy, Tensor *hit, const Tensor *logits,
                     const Tensor *targets, double inv_temp)
{
    Vocab vo = {.logp = logp,
                .lse = lse,
                .entropy = entropy,
                .hit = hit,
                .logits = logits,
                .targets = targets,
                .inv_temp = (real_t)inv_temp};
    cpu_run(logits->dev, logprob_part, &vo, work_ns(logits));
}

static void logprob_backward_part(int part, int n_parts, void *ctx)
{
    const Vocab *vo = ctx;
    const int64_t V = vo->logits->dim[1];
    const real_t inv_temp = vo->inv_temp;
    int64_t from, to;
    part_range(vo->logits->dim[0], 1, part, n_parts, &from, &to);
    for (int64_t r = from; r < to; r++) {
        real_t *z = real_data(vo->logits) + r * vo->logits->stride;
        const real_t g = real_data(vo->dlogp)[r] * inv_temp, lse = real_data(vo->lse)[r];
        const int64_t id = i32_data(vo->targets)[r];
        const real_t hit = formula_dlogit(z[id], 1, g, lse, inv_temp);
        int64_t v = 0;
        for (; v + VF_LANES <= V; v += VF_LANES) {
            const vf x = vf_sub(vf_mul(vf_load(z + v), vf_set1(inv_temp)), vf_set1(lse));
            vf_store(z + v, vf_mul(vf_set1(g), vf_sub(vf_zero(), vf_exp(x))));
        }
        for (; v < V; v++)
            z[v] = formula_dlogit(z[v], 0, g, lse, inv_temp);
        z[id] = hit;
    }
}

void CPU_OP(logprob_backward)(Tensor *logits, const Tensor *dlogp, const Tensor *lse,
                              const Tensor *targets, double inv_temp)
{
    Vocab vo = {.logits = logits,
                .dlogp = dlogp,
                .lse = (Tensor *)lse,
                .targets = targets,
                .inv_temp = (real_t)inv_temp};
    cpu_run(logits->dev, logprob_backward_part, &vo, work_ns(logits));
}

/* The lowest id of the row's maximum; 0 when there is none (all NaN). */
static int64_t row_first_top(const real_t *z, int64_t V, real_t max)
{
    for (int64_t v = 0; v < V; v++)
        if (z[v] == max)
            return v;
    return 0;
}

/* The entry at which the running sum passes u * sum: first the tile, then inside it. A row of NaN,
 * where no weight is positive, gives 0. */
static int64_t row_draw(const real_t *z, int64_t V, real_t inv_temp, const RowStats *st,
                        const real_t *tiles, double u)
{
    const double target = u * (double)st->sum;
    double below;
    const int64_t n_tiles = (V + VOCAB_TILE - 1) / VOCAB_TILE;
    const int64_t tile = formula_walk(tiles, n_tiles, 0, target, &below);
    if (tile < 0)
        return 0;
    const int64_t first = tile * VOCAB_TILE, n = tile_len(V, first);
    real_t e[VOCAB_TILE];
    for (int64_t i = 0; i < n; i++)
        e[i] = k_exp(z[first + i] * inv_temp - st->max);
    const int64_t at = formula_walk(e, n, below, target, &below);
    return at < 0 ? 0 : first + at;
}

static void sample_part(int part, int n_parts, void *ctx)
{
    const Vocab *vo = ctx;
    const int64_t V = vo->logits->dim[1];
    const int64_t n_tiles = (V + VOCAB_TILE - 1) / VOCAB_TILE;
    real_t *tiles = device_scratch(vo->logits->dev, part, n_tiles * (int64_t)sizeof(real_t));
    int64_t from, to;
    part_range(vo->logits->dim[0], 1, part, n_parts, &from, &to);
    for (int64_t r = from; r < to; r++) {
        const real_t *z = logits_row(vo, r), asked = real_data(vo->inv_temps)[r];
        const real_t inv_temp = asked == 0 ? (real_t)1 : asked;
        const RowStats st = row_stats(z, V, inv_temp, r + 1 < to ? vo->logits->stride : 0, NULL, tiles);
        int64_t id;
        if (asked == 0) {
            id = row_first_top(z, V, st.max);
        } else {
            RngKey key;
            memcpy(&key, i32_data(vo->keys) + r * vo->keys->stride, sizeof key);
            id = row_draw(z, V, inv_temp, &st, tiles, rng_uniform(&key));
        }
        ((int32_t *)vo->ids->data)[r] = (int32_t)id;
        real_data(vo->logp)[r] = row_logp(z, id, inv_temp, &st);
    }
}

void CPU_OP(sample)(Tensor *ids, Tensor *logp, const Tensor *logits, const Tensor *keys,
                    const Tensor *inv_temp)
{
    Vocab vo = {.ids = ids,
                .logp = logp,
                .logits = logits,
                .keys = keys,
                .inv_temps = inv_temp};
    cpu_run(logits->dev, sample_part, &vo, work_ns(logits));
}
