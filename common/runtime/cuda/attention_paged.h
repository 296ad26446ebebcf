/* attention_paged.h - how the rows of paged attention become blocks of a grid: a block has one chunk of
 * keys for a few vectors (rows x heads of a group) that share them. What the f32 and the bf16 kernels
 * have in common. */
#ifndef RLHF_RUNTIME_CUDA_ATTENTION_PAGED_H
#define RLHF_RUNTIME_CUDA_ATTENTION_PAGED_H

#include "common/runtime/cuda/cuda.h"

extern __typeof__(op_attention_paged) cuda_attention_paged__bf16;

enum {
    VECS_MAX = 16,
    TILES = KV_CHUNK / KV_TILE,
};

typedef struct {
    const int32_t *table, *row_seq, *row_pos;
    int64_t table_stride, D, H, K, G, n_chunks, n_parts; /* n_parts: of a group's heads */
    int64_t row_from, row_to;
    int part_heads; /* heads of a part */
    int joined;     /* rows of a block at most, a power of two */
} PagedRows;

/* What a block works on, in shared memory: vector i is head head0 + i % heads of row + i / heads;
 * vectors there are not stand in for others and are not written. */
typedef struct {
    int64_t row, pos, chunk, kv_head, head0;
    int n_rows, heads;
    int row_of[VECS_MAX]; /* i / heads, at most n_rows - 1 */
} Vectors;

static inline PagedRows paged_rows(const Tensor *q, const Tensor *k_pages, const Tensor *page_table,
                                   const Tensor *row_seq, const Tensor *row_pos, int part_heads,
                                   int joined)
{
    const int64_t D = k_pages->dim[2], K = k_pages->dim[1], H = q->dim[1] / D, G = H / K;
    PagedRows r = {i32_data(page_table),
                   i32_data(row_seq),
                   i32_data(row_pos),
                   page_table->stride,
                   D,
                   H,
                   K,
                   G,
                   (page_table->dim[1] + TILES - 1) / TILES,
                   (G + part_heads - 1) / part_heads,
                   0,
                   0,
                   part_heads,
                   joined};
    return r;
}

/* Chunks' states of a row wait in scratch: (H, n_chunks, 2 + D). */
static inline int64_t paged_state_bytes(const PagedRows *r)
{
    return r->n_chunks > 1 ? r->H * r->n_chunks * (2 + r->D) * (int64_t)sizeof(float) : 1;
}

/* Rows whose states fit the scratch block; at least one, which cuda_scratch then refuses. */
static inline int64_t paged_slice(const PagedRows *r)
{
    const int64_t n = CUDA_SCRATCH_BYTES / paged_state_bytes(r);
    return n < 1 ? 1 : n;
}

static inline unsigned paged_blocks(const PagedRows *r)
{
    return cuda_blocks((r->row_to - r->row_from) * r->n_chunks * r->K * r->n_parts, 1);
}

/* Row r goes on from row r - 1, at a position that is no multiple of `joined`. */
static __device__ __forceinline__ bool joins(const PagedRows *at, int64_t r)
{
    return r > at->row_from && r < at->row_to && at->row_pos[r] % at->joined != 0 &&
           at->row_seq[r] == at->row_seq[r - 1] && at->row_pos[r] == at->row_pos[r - 1] + 1;
}

/* By one thread; n_rows = 0 when there is nothing to do. A prompt's rows at positions [joined i, joined i
 * + joined) are one block's: they share tiles and chunk. */
static __device__ void vectors_make(Vectors *x, const PagedRows *at, int64_t b)
{
    const int64_t parts = at->K * at->n_parts, part = b % parts,
                  first = part % at->n_parts * at->part_heads, left = at->G - first;
    x->chunk = b / parts % at->n_chunks;
    x->row = at->row_from + b / parts / at->n_chunks;
    x->pos = at->row_pos[x->row];
    x->kv_head = part / at->n_parts;
    x->head0 = x->kv_head * at->G + first;
    x->heads = left < at->part_heads ? (int)left : at->part_heads;
    x->n_rows = at->row_seq[x->row] >= 0 && x->chunk * KV_CHUNK <= x->pos && !joins(at, x->row);
    while (x->n_rows && joins(at, x->row + x->n_rows))
        x->n_rows++;
    for (int i = 0; i < VECS_MAX; i++)
        x->row_of[i] = i / x->heads < x->n_rows ? i / x->heads : x->n_rows - 1;
}

/* Keys of tile t of the chunk that the block's r-th row sees; may be negative. */
static __device__ __forceinline__ int keys_seen(const Vectors *x, int r, int t)
{
    const int64_t n = x->pos + r + 1 - x->chunk * KV_CHUNK - t * KV_TILE;
    return n < KV_TILE ? (int)n : (int)KV_TILE;
}

/* Where tile t of the chunk begins in the pages, for the block's kv head. */
static __device__ __forceinline__ int64_t page_at(const PagedRows *at, const Vectors *x, int t)
{
    const int64_t page =
        at->table[at->row_seq[x->row] * at->table_stride + x->chunk * TILES + t];
    return (page * at->K + x->kv_head) * at->D * KV_TILE;
}

#endif
