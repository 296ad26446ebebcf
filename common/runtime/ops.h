/* ops.h - every operation, once: documented prototype, then its name in OPS.
 *
 * op_x() (ops.c) checks shapes, dtypes, layouts and devices once for all backends and calls the
 * device's body, so bodies trust their arguments. A shape mistake is a CHECK. From OPS follow the
 * prototypes of the bodies cpu_x, cuda_x, the table of a backend and the test table: a name without
 * a body is a link error, without a test a compile error.
 *
 * Letters: T tokens of all sequences packed, S sequences, C channels, F feed-forward width, V
 * vocabulary, H query heads, K kv heads, D head size, N x K a weight's rows x columns. "real" is
 * f32 (f64 in the double build). Unless said otherwise tensors are real, ROWS; row stride may
 * exceed the row length. A vector (R) may also be given as a dense column (R, 1). Aliasing is
 * allowed only where it is said.
 *
 * Arithmetic (exact mode, design note in runtime/README.md): a product is one FMA chain over the
 * summed index ascending; row reductions use SUM_LANES interleaved accumulators (element i goes to
 * lane i % 32 in ascending order), then the tree 16, 8, 4, 2, 1 (a[i] += a[i + 16], ...); exp, log,
 * sigmoid are those of cpu/kmath.h. A row's result depends on that row, the weights and the build
 * alone. */
#ifndef RLHF_RUNTIME_OPS_H
#define RLHF_RUNTIME_OPS_H

#include "common/base/rng.h"
#include "common/runtime/tensor.h"

/* ---- linear layers (cpu/linear.c) ------------------------------------------------------------ */

/* With a bf16 weight the operands of the product are bf16: x and dy are rounded to nearest even as they
 * are read, sums stay in real, and the chain is the one of VDPBF16PS: denormal operands and sums count
 * as zero of their sign, and every sum that comes out denormal becomes one. Where K, N or the number
 * of rows of a chain is odd, the missing product is one that changes no sum (-0).
 *
 * A device that device_can_bf16 also takes w as bf16 ROWS (N, K), and then x, dy, y and dx as bf16 or f32
 * ROWS (f32 operands are rounded first), dw as f32 ROWS (N, K). There a sum runs in steps of 16 links
 * ascending from +0, zeros behind the last; the order inside a step is the tensor core's; c (+)= adds the
 * stored value once at the end, and one rounding to bf16 where the result is bf16. A row's bits depend on
 * the row, the weights, the card and the library alone (and on whether rows are whole 16 bytes), not on M.
 *
 * y[m, n] (+)= sum_k x[m, k] w[n, k]: one FMA chain over k ascending, from +0, or from y when
 * accumulate. y: (M, N); x: (M, K); w: PANEL (N, K), real or bf16. */
void op_linear(Tensor *y, const Tensor *x, const Tensor *w, bool accumulate);
/* dx[m, k] (+)= sum_n dy[m, n] w[n, k], n ascending. dx: (M, K); dy: (M, N); w: PANEL (N, K), real or
 * bf16. */
void op_linear_dx(Tensor *dx, const Tensor *dy, const Tensor *w, bool accumulate);
/* dw[n, k] (+)= sum_m dy[m, n] x[m, k], m ascending: the chain starts from the stored gradient, so
 * any cut of the rows into calls gives the same bits, except where device_sums_by_unit. operands: DTYPE_REAL,
 * or DTYPE_BF16 to round dy and x as they are read. dw: PANEL (N, K), real; dy: (M, N); x: (M, K). */
void op_linear_dw(Tensor *dw, const Tensor *dy, const Tensor *x, DType operands, bool accumulate);

/* ---- embedding (cpu/embedding.c) --------------------------------------------------------------
 */

/* y[t] = w[ids[t]]. y: (T, C); ids: i32 (T), 0 <= id < V; w: (V, C), ROWS or PANEL, real or bf16. */
void op_embedding(Tensor *y, const Tensor *ids, const Tensor *w);
/* dw[ids[t]] += dy[t], t ascending: one chain from the stored gradient, so any cut of the tokens
 * into calls gives the same bits. dw: (V, C) ROWS; dy: (T, C). */
void op_embedding_backward(Tensor *dw, const Tensor *dy, const Tensor *ids);

/* A device that device_can_bf16 takes bf16 ROWS below for x and y of op_rmsnorm, x, dx and dy of its backward, y
 * and dy of op_bias, b of op_add, x of op_rope, all of op_swiglu and of its backward, x and y of
 * op_gather_rows and x of op_scatter_rows: the arithmetic is f32, each result is rounded once. */

/* ---- norms (cpu/norm.c) ------------------------------------------------------------------------
 */

/* r[t] = 1 / sqrt(sum_c x^2 / C + eps); y = (x * r) * w. y, x: (T, C); w: (C); rstd: (T).
 * y may alias x. (Zhang & Sennrich 2019, eq. 4.) */
void op_rmsnorm(Tensor *y, Tensor *rstd, const Tensor *x, const Tensor *w, double eps);
/* With g = dy * w, r = rstd: s = (sum_c g x) * (r * r) / C; dx = fma(r, fma(-s, x, g), dx).
 * dw += sum_t dy * (x * r) as partials over NORM_BLOCK tokens counted from each sequence's start,
 * tokens ascending inside a block from +0, blocks added ascending. starts: i32 (S + 1),
 * offsets of the sequences, starts[0] = 0, starts[S] = T. dw may be an empty tensor
 * (data NULL, n_dims 0): frozen. A token may have several rows of its own, side by side (heads, each
 * normed): then T = starts[S] * per_token, and blocks are of NORM_BLOCK rows. */
void op_rmsnorm_backward(Tensor *dx, Tensor *dw, const Tensor *dy, const Tensor *x, const Tensor *w,
                         const Tensor *rstd, const Tensor *starts, int64_t per_token);

/* ---- biases (cpu/bias.c) -----------------------------------------------------------------------
 */

/* y[t] += b. y: (T, N); b: (N). */
void op_bias(Tensor *y, const Tensor *b);
/* db += sum_t dy[t] as partials over NORM_BLOCK tokens counted from each sequence's start, tokens
 * ascending inside a block from +0, blocks added ascending. db: (N); dy: (T, N); starts: i32 (S + 1). */
void op_bias_backward(Tensor *db, const Tensor *dy, const Tensor *starts);

/* ---- elementwise (cpu/elementwise.c) ------------------------------------------------------------
 */

/* y = a + b. Same shapes; y may alias a or b. */
void op_add(Tensor *y, const Tensor *a, const Tensor *b);
/* y = silu(gate) * up, silu(x) = x * sigmoid(x). All (T, F); y may alias neither. (Shazeer 2020.)
 */
void op_swiglu(Tensor *y, const Tensor *gate, const Tensor *up);
/* dgate, dup from dy; dgate may alias gate, dup may alias up. */
void op_swiglu_backward(Tensor *dgate, Tensor *dup, const Tensor *dy, const Tensor *gate,
                        const Tensor *up);
/* Rotates pairs (d, d + D/2) of every head by the token's position (rotate_half, as Hugging Face):
 * (a, b) -> (a cos - b sin, b cos + a sin), each as fma(a, cos, -(b * sin)). x: (T, n * D) in
 * place; pos: i32 (T); table: (P, D) with cos in [0, D/2) and sin in [D/2, D), made in double by
 * the model. backward = true rotates the other way. */
void op_rope(Tensor *x, const Tensor *pos, const Tensor *table, int64_t head_dim, bool backward);
/* y = x for every element; dtypes and layouts may differ (ROWS <-> PANEL; f32, f64, bf16; to bf16 rounded
 * to nearest even). y's padding becomes zero. Same dims, no aliasing; integers only to their own dtype and
 * layout. */
void op_convert(Tensor *y, const Tensor *x);
/* y (+)= a * x, one FMA an element from y (or a product). Same dims; layouts may differ. */
void op_axpy(Tensor *y, double a, const Tensor *x, bool accumulate);
/* Every element = value; panel padding stays zero. Any dtype; a bf16 panel takes 0 alone. */
void op_fill(Tensor *y, double value);
/* y[i] = x[rows[i]]. y: (R, C); x: (T, C); rows: i32 (R). */
void op_gather_rows(Tensor *y, const Tensor *x, const Tensor *rows);
/* y[rows[i]] += x[i], i ascending; rows may repeat. y: (T, C); x: (R, C). */
void op_scatter_rows(Tensor *y, const Tensor *x, const Tensor *rows);

/* ---- attention (cpu/attention.c)
 * ----------------------------------------------------------------- */

/* Causal grouped-query attention inside each packed sequence. Query i of a sequence sees keys 0..i.
 * Key tiles of KV_TILE inside chunks of KV_CHUNK, both at absolute positions in the sequence:
 * scores s = (q . k) * scale, q . k one FMA chain over d; within a chunk an online softmax by tile
 *     m' = max(m, max s), p = exp(s - m'), c = exp(m - m'),
 *     l = fma(l, c, rowsum p), o = o * c, then o[d] FMA chain over the tile's keys ascending,
 * from m = -inf, l = 0, o = 0; chunk states merged ascending, the first a copy:
 *     m' = max(m1, m2), l = fma(l1, exp(m1 - m'), l2 * exp(m2 - m')), o likewise;
 * out = o / l, lse = m + log(l). Masked keys are never read. (Milakov & Gimelshein 2018; Dao 2022.)
 * o, q: (T, H * D); k, v: (T, K * D); lse: (T, H); starts: i32 (S + 1).
 *
 * A device that device_can_bf16 takes q, k, v, o, their gradients and KV pages in bf16 too, all of them, with
 * lse and delta real and heads of up to BF16_HEAD_DIM_MAX: sums are f32 in the steps of an mma, weights are rounded to
 * bf16 for the products with v, d_o, q and k. The walk over tiles and chunks is the same
 * (cuda/attention_bf16.h has the rest), a row's bits depend on the row alone, and a paged row has
 * the bits of the packed one; what a masked weight is multiplied with must be finite. */
void op_attention(Tensor *o, Tensor *lse, const Tensor *q, const Tensor *k, const Tensor *v,
                  const Tensor *starts, int64_t head_dim, double scale);
/* p = exp(s - lse); delta[t, h] = rowsum(do * o); ds = p * (dp - delta) * scale.
 * dv[j], dk[j]: chains over query heads of the group ascending, then queries ascending, from +0;
 * dq[i]: chain over keys ascending, from +0. delta: (T, H) scratch. Overwrites dq, dk, dv. */
void op_attention_backward(Tensor *dq, Tensor *dk, Tensor *dv, Tensor *delta, const Tensor *d_o,
                           const Tensor *o, const Tensor *lse, const Tensor *q, const Tensor *k,
                           const Tensor *v, const Tensor *starts, int64_t head_dim, double scale);
/* Puts k, v of row r into the page of (row_seq[r], row_pos[r]).
 * k, v: (R, K * D); k_pages: KV_PAGE (P, K, D, KV_TILE); v_pages: KV_PAGE (P, K, KV_TILE, D);
 * page_table: i32 (S, max pages): page of positions [64 i, 64 i + 64) of slot s; row_seq, row_pos:
 * i32 (R). row_seq = -1: there is no such row, nothing is written. */
void op_kv_write(Tensor *k_pages, Tensor *v_pages, const Tensor *k, const Tensor *v,
                 const Tensor *page_table, const Tensor *row_seq, const Tensor *row_pos);
/* Page pairs[i][1] becomes a copy of page pairs[i][0], in both tensors. Destinations are distinct and
 * no destination is a source. pairs: i32 (n, 2), dense; n may be 0. */
void op_kv_copy(Tensor *k_pages, Tensor *v_pages, const Tensor *pairs);
/* Row r attends to positions 0..row_pos[r] of slot row_seq[r]: bit for bit the row that
 * op_attention gives, whatever bits lie behind the last position of a page. row_seq = -1: there is no such
 * row, its o stays as it is. o, q: (R, H * D). */
void op_attention_paged(Tensor *o, const Tensor *q, const Tensor *k_pages, const Tensor *v_pages,
                        const Tensor *page_table, const Tensor *row_seq, const Tensor *row_pos,
                        int64_t head_dim, double scale);

/* ---- vocabulary rows (cpu/vocab.c)
 * ---------------------------------------------------------------- */

/* With z = logits * inv_temp, per row: max, sum of e = exp(z - max) over VOCAB_TILE tiles (each
 * tile a row reduction, tiles added ascending), lse = max + log(sum), logp = (z[target] - max) -
 * log(sum), entropy = log(sum) - rowsum(e * (z - max)) / sum   (tiles as above), hit = 1 where
 * z[target] = max (ties too), else 0. logits: (R, V); targets: i32 (R); logp, lse, entropy, hit:
 * (R). inv_temp = (float)(1 / T). */
void op_logprob(Tensor *logp, Tensor *lse, Tensor *entropy, Tensor *hit, const Tensor *logits,
                const Tensor *targets, double inv_temp);
/* In place: logits become dlogits[v] = dlogp[r] * inv_temp * ([v = target] - exp(z - lse)).
 * Cross-entropy of weight w is dlogp = -w. */
void op_logprob_backward(Tensor *logits, const Tensor *dlogp, const Tensor *lse,
                         const Tensor *targets, double inv_temp);
/* Draws one id per row by inverse CDF over the same tiles and exponentials as op_logprob: u in
 * [0, 1) (53 bits) of keys[r], target u * sum walked in f64 over tile sums, then over elements;
 * a rest left by rounding takes the last entry with e > 0. logp is bit for bit op_logprob's.
 * inv_temp = 0: greedy, lowest id among equal maxima, logp at temperature 1.
 * ids: i32 (R); logp, inv_temp: (R); logits: (R, V); keys: i32 (R, 6), rows are RngKey. */
void op_sample(Tensor *ids, Tensor *logp, const Tensor *logits, const Tensor *keys,
               const Tensor *inv_temp);

/* ---- losses (cpu/loss.c): per-sample values and gradients; reductions are the host's, in f64
 * ----- */

/* Cross-entropy of given log-probabilities: dlogp = -weight, loss = dlogp * logp. All (R). */
void op_xent_loss(Tensor *loss, Tensor *dlogp, const Tensor *logp, const Tensor *weight);
/* loss[i] = -log sigmoid(chosen - rejected - margin), dscores = weight[i] * its gradient.
 * scores, dscores: (2 B): pair i is rows 2i (chosen) and 2i + 1 (rejected); margin, weight, loss:
 * (B). (Llama 2, eq. 2.) -log sigmoid(x) = log(1 + exp(-|x|)) - min(x, 0). Adds to dscores. */
void op_rank_loss(Tensor *loss, Tensor *dscores, const Tensor *scores, const Tensor *margin,
                  const Tensor *weight);
/* Binary cross-entropy on the linear score: loss[i] = -(y log s(x) + (1 - y) log s(-x)); label 1 =
 * safe. scores, labels, weight, loss: (B); adds weight * (s(x) - y) to dscores. */
void op_bce_loss(Tensor *loss, Tensor *dscores, const Tensor *scores, const Tensor *labels,
                 const Tensor *weight);
/* PPO's clipped surrogate per token (Schulman 2017, eq. 7), ratio = exp(logp - old_logp):
 *     loss = -min(ratio * adv, clamp(ratio, 1 - clip, 1 + clip) * adv); dlogp = weight * d loss / d
 * logp (0 where the clipped branch is the smaller and flat), overwritten. All (R). ratio is an
 * output. */
void op_policy_loss(Tensor *loss, Tensor *dlogp, Tensor *ratio, const Tensor *logp,
                    const Tensor *old_logp, const Tensor *adv, const Tensor *weight, double clip);
/* loss = 0.5 max((v - ret)^2, (clamp(v, old - clip, old + clip) - ret)^2), dvalue = weight * d loss
 * / d v. clip <= 0: no clipping. Overwrites dvalue. All (R). */
void op_value_loss(Tensor *loss, Tensor *dvalue, const Tensor *value, const Tensor *old_value,
                   const Tensor *ret, const Tensor *weight, double clip);

/* ---- optimizer (cpu/optimizer.c)
 * ------------------------------------------------------------------- */

/* partial[b] = sum in f64 of the squares of slots [b * SUMSQ_BLOCK, ...), one f64 chain ascending
 * per SUM_LANES lane, then the tree. partial: f64 (ceil(slots / SUMSQ_BLOCK)); x: any layout. */
void op_sumsq(Tensor *partial, const Tensor *x);

typedef struct {
    double lr, beta1, beta2, eps, decay; /* decay: decoupled (Loshchilov & Hutter 2019) */
    double grad_scale;                   /* clip factor, applied to the gradient as it is read */
    int64_t step;                        /* 1 for the first update */
} AdamwArgs;
/* PyTorch's AdamW: w -= lr * decay * w; m, v moments; w -= lr / (1 - b1^t) * m / (sqrt(v) /
 * sqrt(1 - b2^t) + eps). Scalars are combined in f64 and rounded once to real:
 *     g = grad * grad_scale; m = fma(b1, m, (1 - b1) g); v = fma(b2, v, (1 - b2) g g);
 *     w = fma(-lr / (1 - b1^t), m / fma(sqrt(v), 1 / sqrt(1 - b2^t), eps), w * (1 - lr decay)).
 * Same layout and dims; elementwise over storage slots. copy: bf16, same dims, becomes w rounded to
 * nearest even in the same pass; NULL: none. */
void op_adamw(Tensor *w, Tensor *m, Tensor *v, Tensor *copy, const Tensor *grad, AdamwArgs args);

#define OPS(X)                                                                                     \
    X(linear)                                                                                      \
    X(linear_dx) X(linear_dw) X(embedding) X(embedding_backward) X(rmsnorm) X(rmsnorm_backward)    \
        X(bias) X(bias_backward)                                                                   \
        X(add) X(swiglu) X(swiglu_backward) X(rope) X(convert) X(axpy) X(fill) X(gather_rows)      \
            X(scatter_rows) X(attention) X(attention_backward) X(kv_write) X(kv_copy)              \
                X(attention_paged) X(logprob) X(logprob_backward) X(sample) X(xent_loss) X(rank_loss) X(bce_loss) X(policy_loss)   \
                    X(value_loss) X(sumsq) X(adamw)

struct OpTable {
#define X(name) __typeof__(&op_##name) name;
    OPS(X)
#undef X
};
typedef struct OpTable OpTable;

#endif
