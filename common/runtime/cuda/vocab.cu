/* vocab.cu - rows over the vocabulary: log-probabilities, their gradient, sampling. A block per
 * row; each of its warps takes every n-th tile (a row reduction), one thread adds the tiles in
 * order and walks them. The trainer's log-probability and the sampler's come from one function,
 * row_stats, so they are equal bit for bit. Tested by tests/ops/vocab.c. */
#include "common/runtime/cuda/span.h"

#include "common/base/philox.h"
#include "common/runtime/cpu/formula.h"

enum {
    VOCAB_WARPS = 16,
    VOCAB_THREADS = VOCAB_WARPS * WARP,
    VOCAB_SHARED = 47 << 10, /* for tile sums and dots: 3 million entries */
};

typedef struct {
    float max, sum, log_sum, dot;
} RowStats;

/* Shared by the block of a row; every field is written by one thread before others read it. */
typedef struct {
    float top[VOCAB_WARPS];
    int32_t first[VOCAB_WARPS]; /* id of a warp's first maximum */
    RowStats st;
    int64_t tile;
    double below, target;
    float e[VOCAB_TILE];
} RowShared;

static __device__ __forceinline__ int row_warp(void)
{
    return (int)threadIdx.x / WARP;
}
static __device__ __forceinline__ int row_lane(void)
{
    return (int)threadIdx.x % WARP;
}

/* Largest z. Not in the lanes of the CPU body: only the sign of a zero could tell, and it is lost
 * in z - max, or against a log_sum that two zeros make positive. */
static __device__ __forceinline__ float row_top(RowShared *sh, const float *z, int64_t V,
                                                float inv_temp)
{
    float a = -K_INF;
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < V; i += blockDim.x)
        a = k_max(z[i] * inv_temp, a);
    __syncwarp(FULL_MASK);
    a = warp_max_tree(a);
    if (row_lane() == 0)
        sh->top[row_warp()] = a;
    __syncthreads();
    a = -K_INF;
    for (int w = 0; w < (int)blockDim.x / WARP; w++)
        a = k_max(sh->top[w], a);
    return a;
}

/* rowsum(e) of the n entries of a tile, e = exp(z - max), and, when asked, rowsum(e * (z - max)).
 * The last 32 are filled up with entries of weight 0, as in the CPU body. One warp. */
static __device__ __forceinline__ float tile_sum(const float *z, int n, float inv_temp, float max,
                                                 bool with_dot, float *dot)
{
    float a = 0, b = 0;
#pragma unroll 4
    for (int from = 0; from < n; from += WARP) {
        const int i = from + row_lane();
        const float x = (i < n ? z[i] : -K_INF) * inv_temp - max, e = k_exp(x);
        a += e;
        if (with_dot)
            b = real_fma(e, e == 0 ? 0.0f : x, b);
    }
    __syncwarp(FULL_MASK);
    if (with_dot)
        *dot = warp_sum_tree(b);
    return warp_sum_tree(a);
}

static __device__ __forceinline__ int tile_len(int64_t V, int64_t from)
{
    return V - from < VOCAB_TILE ? (int)(V - from) : (int)VOCAB_TILE;
}

/* The whole block calls and gets the result. tiles: the sum of each tile, then, when asked, dots.
 */
static __device__ __forceinline__ RowStats row_stats(RowShared *sh, float *tiles, const float *z,
                                                     int64_t V, float inv_temp, bool with_dot)
{
    const int64_t n_tiles = (V + VOCAB_TILE - 1) / VOCAB_TILE;
    const float max = row_top(sh, z, V, inv_temp);
    for (int64_t t = row_warp(); t < n_tiles; t += blockDim.x / WARP) {
        const int64_t from = t * VOCAB_TILE;
        float dot = 0, sum = tile_sum(z + from, tile_len(V, from), inv_temp, max, with_dot, &dot);
        if (row_lane() == 0) {
            tiles[t] = sum;
            if (with_dot)
                tiles[n_tiles + t] = dot;
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        float sum = 0, dot = 0;
        for (int64_t t = 0; t < n_tiles; t++) {
            sum += tiles[t];
            if (with_dot)
                dot += tiles[n_tiles + t];
        }
        RowStats st = {max, sum, k_log(sum), dot};
        sh->st = st;
    }
    __syncthreads();
    return sh->st;
}

static __device__ __forceinline__ float row_logp(const float *z, int64_t id, float inv_temp,
                                                 const RowStats *st)
{
    return (z[id] * inv_temp - st->max) - st->log_sum;
}

typedef struct {
    float *logp, *lse, *entropy, *hit;
    int32_t *ids;
    const float *logits;
    const int32_t *targets, *keys;
    int64_t stride, key_stride, V;
    float inv_temp;
    const float *inv_temps; /* of each row; 0: greedy */
} Vocab;

static __global__ void __launch_bounds__(VOCAB_THREADS) logprob_kernel(Vocab vo)
{
    __shared__ RowShared sh;
    DYN_SHARED(float, tiles);
    const int64_t r = blockIdx.x;
    const float *z = vo.logits + r * vo.stride;
    const RowStats st = row_stats(&sh, tiles, z, vo.V, vo.inv_temp, true);
    if (threadIdx.x != 0)
        return;
    const int64_t id = vo.targets[r];
    vo.logp[r] = row_logp(z, id, vo.inv_temp, &st);
    vo.lse[r] = st.max + st.log_sum;
    vo.entropy[r] = st.log_sum - st.dot / st.sum;
    vo.hit[r] = z[id] * vo.inv_temp == st.max ? 1.0f : 0.0f;
}

/* The lowest id of the row's maximum; 0 when there is none (all NaN). */
static __device__ __forceinline__ int64_t row_first_top(RowShared *sh, const float *z, int64_t V,
                                                        float max)
{
    int32_t first = INT32_MAX;
    for (int64_t i = threadIdx.x; i < V; i += blockDim.x)
        if (z[i] == max && i < first)
            first = (int32_t)i;
    __syncwarp(FULL_MASK);
    for (int w = WARP / 2; w > 0; w /= 2) {
        int32_t other = __shfl_down_sync(FULL_MASK, first, w);
        first = other < first ? other : first;
    }
    if (row_lane() == 0)
        sh->first[row_warp()] = first;
    __syncthreads();
    first = INT32_MAX;
    for (int w = 0; w < (int)blockDim.x / WARP; w++)
        first = sh->first[w] < first ? sh->first[w] : first;
    return first == INT32_MAX ? 0 : first;
}

static __device__ __forceinline__ double row_uniform(const int32_t *row)
{
    RngKey key;
    uint32_t word[4];
    memcpy(&key, row, sizeof key);
    philox_block(word, key.ctr, key.key);
    return philox_uniform(word);
}

/* row_draw of cpu/vocab.c: the tile at which the running sum passes u * sum, then the entry. */
static __device__ __forceinline__ int64_t row_draw(RowShared *sh, const float *tiles,
                                                   const float *z, int64_t V, float inv_temp,
                                                   const RowStats *st, const int32_t *key)
{
    if (threadIdx.x == 0) {
        sh->target = row_uniform(key) * (double)st->sum;
        sh->tile =
            formula_walk(tiles, (V + VOCAB_TILE - 1) / VOCAB_TILE, 0, sh->target, &sh->below);
    }
    __syncthreads();
    if (sh->tile < 0)
        return 0; /* for the whole block */
    const int64_t from = sh->tile * VOCAB_TILE;
    const int n = tile_len(V, from);
    for (int i = (int)threadIdx.x; i < n; i += blockDim.x)
        sh->e[i] = k_exp(z[from + i] * inv_temp - st->max);
    __syncthreads();
    double below;
    int64_t at = threadIdx.x == 0 ? formula_walk(sh->e, n, sh->below, sh->target, &below) : 0;
    return at < 0 ? 0 : from + at; /* thread 0's counts */
}

static __global__ void __launch_bounds__(VOCAB_THREADS) sample_kernel(Vocab vo)
{
    __shared__ RowShared sh;
    DYN_SHARED(float, tiles);
    const int64_t r = blockIdx.x;
    const float *z = vo.logits + r * vo.stride;
    const float asked = vo.inv_temps[r], inv_temp = asked == 0 ? 1.0f : asked;
    const RowStats st = row_stats(&sh, tiles, z, vo.V, inv_temp, false);
    const int64_t id = asked == 0 ? row_first_top(&sh, z, vo.V, st.max)
                                  : row_draw(&sh, tiles, z, vo.V, inv_temp, &st,
                                             vo.keys + r * vo.key_stride);
    if (threadIdx.x != 0)
        return;
    vo.ids[r] = (int32_t)id;
    vo.logp[r] = row_logp(z, id, inv_temp, &st);
}

/* Shared memory for the sums of a row's tiles, `per_tile` of them. */
static size_t tiles_bytes(int64_t V, int per_tile)
{
    size_t bytes = (size_t)((V + VOCAB_TILE - 1) / VOCAB_TILE) * (size_t)per_tile * sizeof(float);
    CHECK(bytes + sizeof(RowShared) <= (size_t)VOCAB_SHARED, "a vocabulary of %lld entries",
          (long long)V);
    return bytes;
}

/* A warp per tile. */
static unsigned row_threads(int64_t V)
{
    return span_min((V + VOCAB_TILE - 1) / VOCAB_TILE, VOCAB_WARPS) * WARP;
}

void cuda_logprob(Tensor *logp, Tensor *lse, Tensor *entropy, Tensor *hit, const Tensor *logits,
                  const Tensor *targets, double inv_temp)
{
    Vocab vo = {f32_data(logp),
                f32_data(lse),
                f32_data(entropy),
                f32_data(hit),
                NULL,
                f32_data(logits),
                i32_data(targets),
                NULL,
                logits->stride,
                0,
                logits->dim[1],
                (float)inv_temp,
                NULL};
    if (logits->dim[0] > 0)
        LAUNCH(logprob_kernel, cuda_blocks(logits->dim[0], 1), row_threads(vo.V),
               tiles_bytes(vo.V, 2), cuda_stream(logits), vo);
}

void cuda_sample(Tensor *ids, Tensor *logp, const Tensor *logits, const Tensor *keys,
                 const Tensor *inv_temp)
{
    Vocab vo = {f32_data(logp), NULL,           NULL,
                NULL,           i32_data(ids),  f32_data(logits),
                NULL,           i32_data(keys), logits->stride,
                keys->stride,   logits->dim[1], 0,
                f32_data(inv_temp)};
    if (logits->dim[0] > 0)
        LAUNCH(sample_kernel, cuda_blocks(logits->dim[0], 1), row_threads(vo.V),
               tiles_bytes(vo.V, 1), cuda_stream(logits), vo);
}

SPAN_KERNEL logprob_backward_kernel(Span s, float *logits, int64_t stride, const float *dlogp,
                                    const float *lse_of, const int32_t *targets, float inv_temp)
{
    SPAN_ROWS(r, s)
    {
        float *z = logits + r * stride;
        const float g = dlogp[r] * inv_temp, lse = lse_of[r];
        const int64_t id = targets[r];
        SPAN_WIDE(v, s)
        {
            float4 q = load4(z + v);
            q.x = formula_dlogit(q.x, v == id, g, lse, inv_temp);
            q.y = formula_dlogit(q.y, v + 1 == id, g, lse, inv_temp);
            q.z = formula_dlogit(q.z, v + 2 == id, g, lse, inv_temp);
            q.w = formula_dlogit(q.w, v + 3 == id, g, lse, inv_temp);
            store4(z + v, q);
        }
        SPAN_REST(v, s)
        z[v] = formula_dlogit(z[v], v == id, g, lse, inv_temp);
    }
}

void cuda_logprob_backward(Tensor *logits, const Tensor *dlogp, const Tensor *lse,
                           const Tensor *targets, double inv_temp)
{
    const Tensor *all[] = {logits};
    Span s = span_rows(logits->dim[0], logits->dim[1], all, 1);
    SPAN_LAUNCH(logprob_backward_kernel, s, logits, f32_data(logits), logits->stride,
                f32_data(dlogp), f32_data(lse), i32_data(targets), (float)inv_temp);
}
