/* llama.h - forward and hand-written backward of the Llama family on packed sequences, the heads,
 * and the same forward over a KV cache. One file serves every family; flags in ModelConfig.
 *
 *   x = embed(ids)
 *   per layer:  x += o(attention(rope(q(n1)), rope(k(n1)), v(n1))), n1 = rmsnorm(x)
 *               x += down(swiglu(gate(n2), up(n2))),                 n2 = rmsnorm(x)
 *   hidden = rmsnorm(x)
 *
 * Every linear goes through model_linear(), which takes an optional adapter. */
#ifndef RLHF_MODEL_LLAMA_H
#define RLHF_MODEL_LLAMA_H

#include "common/data/example.h"
#include "common/model/params.h"
#include "common/runtime/ops.h"

/* LoRA, later: NULL everywhere today. */
typedef struct Adapter Adapter;

typedef struct {
    ParamTable table; /* table.config is the architecture */
    Device *dev;
    Tensor rope;      /* (max positions used, D): cos, sin; made in double */
    int64_t max_positions;
} Model;

/* Plans / allocates the constant tables (rope) in `a`; call for planning and for real. The table is
 * made at the first call. dtype: of products. max_positions <= config.max_position. ERR_CONFIG where these sequences
 * or heads cannot be, naming the key or the file. */
int model_init(Model *m, const ModelConfig *c, DType dtype, Device *dev, Arena *a, int64_t max_positions);
/* What activations between products, and the KV cache, are kept in: bf16 in bf16 mode on a device that has ops for
 * it, else real. The residual stream, its gradient, statistics and logits are real. */
DType model_acts_dtype(const Model *m);
void model_free(Model *m);

/* A micro-batch on the device: views filled from a Pack. */
typedef struct {
    Tensor ids, pos;      /* i32 (T) */
    Tensor starts;        /* i32 (S + 1) */
    const int32_t *units; /* (n_units + 1) on the host: those of the pack, which stays as it is until backward */
    int64_t T, S;
    int n_units;
    int64_t max_tokens, max_seqs;
} Batch;

void batch_alloc(Batch *b, Arena *a, Device *dev, int64_t max_tokens, int64_t max_seqs);
void batch_set(Batch *b, const Pack *p);

/* What backward computes again instead of finding it kept for every layer (gradient checkpointing), by
 * the ops that forward ran on the same numbers: the level never changes a bit. Each level adds to the
 * one before. */
typedef enum {
    RECOMPUTE_NONE,
    RECOMPUTE_ELEMENTWISE, /* norms and SwiGLU: no product */
    RECOMPUTE_MLP,         /* and the MLP: its two products of F columns */
    RECOMPUTE_LAYER,       /* and attention with its products: each layer's input is all that is kept */
    RECOMPUTE_LEVELS
} Recompute;

/* A training program's key: member `m` of struct S, an int, is a Recompute. */
#define RECOMPUTE_CHOICES "none|elementwise|mlp|layer"
#define RECOMPUTE_FIELD(S, m)                                                                        \
    {"gradient_checkpointing", CFG_ENUM, offsetof(S, m), "none", .choices = RECOMPUTE_CHOICES, .flags = CFG_NO_RESULT, \
     .help = "what backward computes again instead of keeping it: less memory, more time; never changes a result"}

/* Activations of one micro-batch, allocated for max_tokens; slots by layer where backward finds them
 * there, else shared. See the slot table in acts.c: name, shape, lifetime, keep | recompute.
 * recompute: of acts with backward. */
typedef struct Acts Acts;
Acts *acts_new(const Model *m, int64_t max_tokens, bool backward, Recompute recompute); /* host bookkeeping only */
void acts_alloc(Acts *a, Arena *arena);
void acts_free(Acts *a);
/* Notes under `arena` in the plan: what of it these acts keep, compute again and need once, and what they
 * would take at every level. whose: in front of each, "policy " or "". */
void acts_note(const Acts *a, MemoryPlan *plan, const Arena *arena, const char *whose);
Tensor acts_hidden(const Acts *a, const Batch *b);  /* (T, C): after the final norm */
Tensor acts_dhidden(const Acts *a, const Batch *b); /* (T, C): heads add to it; zeroed by forward */

/* Hidden states of a batch into acts_hidden. With acts of backward = false only the forward works. */
void model_forward(const Model *m, const ParamSet *p, const Adapter *lora, const Batch *b, Acts *a);
/* From acts_dhidden: adds into grads. The batch is the one that model_forward ran last on these acts. */
void model_backward(const Model *m, const ParamSet *p, const Adapter *lora, const Batch *b, Acts *a,
                    Grads *g);

/* ---- heads ---------------------------------------------------------------------------------- */

/* Rows of logits that exist at a time, for up to max_rows, so a device has its own. Changes no bit, except where
 * device_sums_by_unit that it is a sum of the head's gradient: there it is a matter of V alone, or at least
 * as many as a unit's rows. */
int64_t lm_head_chunk(const Model *m, int64_t max_rows);

typedef enum {
    LM_LOGP,   /* forward only: logp, entropy, hit */
    LM_XENT,   /* loss = -weight * logp, dlogp = -weight */
    LM_POLICY, /* PPO's clipped surrogate, op_policy_loss */
} LmLossKind;

/* Scratch and row vectors of the LM head, allocated for max_rows. */
typedef struct {
    Tensor rows, target;                      /* i32 (R): hidden rows, ids to predict; lm_head_set */
    int32_t *units;                           /* (n_units + 1) on the host: rows [units[u], units[u + 1]) are of unit u */
    int n_units;                              /* 0: all rows are of one */
    Tensor weight, old_logp, adv;             /* (R): inputs */
    Tensor logp, entropy, lse, hit;           /* (R): outputs, see op_logprob */
    Tensor loss, ratio, dlogp;                /* (R): outputs with a loss */
    Tensor hidden, dhidden;                   /* (chunk, C) */
    Tensor logits;                            /* (chunk, V) */
    Tensor dlogits;                           /* the same, their gradient as products read it, where that is bf16 */
    int64_t max_rows;
} LmHead;

void lm_head_alloc(LmHead *h, const Model *m, Arena *a, Arena *host, int64_t max_rows, bool backward);
/* What a batch is to predict, from the host: ids `target` at its R rows `rows`, ascending. */
void lm_head_set(LmHead *h, const Batch *b, const int32_t *rows, const int32_t *target, int64_t R);
/* A note under `arena` in the plan: what the logits that exist at a time take. */
void lm_head_note(const LmHead *h, MemoryPlan *plan, const Arena *arena);
/* R rows of hidden (T, C) by h->rows. With g and dhidden (T, C): adds gradients, in row order;
 * forward and backward of a chunk share one product, and no chunk holds rows of two units. inv_temp = 1 / temperature, 0 is not allowed. */
void lm_head_run(LmHead *h, const Model *m, const ParamSet *p, LmLossKind kind, int64_t R,
                 const Tensor *hidden, Tensor *dhidden, Grads *g, double inv_temp, double clip);
/* logits = x w^T: the product lm_head_run makes, for the sampler. x: (R, C); logits: (R, V). */
void lm_head_logits(Tensor *logits, const Tensor *x, const Model *m, const ParamSet *p);

/* Scalar head: scores of chosen rows. */
typedef struct {
    Tensor rows;             /* i32 (R) */
    Tensor hidden, dhidden;  /* (R, C) */
    Tensor score, dscore;    /* (R, 1) */
    int64_t max_rows;
} ScalarHead;

void scalar_head_alloc(ScalarHead *h, const Model *m, Arena *a, int64_t max_rows, bool backward);
void scalar_head_forward(ScalarHead *h, const Model *m, const ParamSet *p, int64_t R,
                         const Tensor *hidden); /* -> score */
void scalar_head_backward(ScalarHead *h, const Model *m, const ParamSet *p, int64_t R,
                          Tensor *dhidden, Grads *g); /* from dscore */

/* ---- KV cache: the same rows, one or many tokens at a time ---------------------------------- */

/* Pages of KV_TILE positions in one pool. A slot takes a page when it first writes into it; several
 * slots may refer to one page (kv_share), and a slot that writes into such a page first gets a copy
 * of its own. The pool has a page for every position of every slot, so it never runs out. */
typedef struct {
    Tensor *k, *v;       /* (L): KV_PAGE (pages, K, D, KV_TILE) and (pages, K, KV_TILE, D) */
    Tensor page_table;   /* i32 (slots, pages per slot), as of the last model_extend */
    Tensor copies;       /* i32 (slots, 2) for op_kv_copy */
    int64_t n_slots, pages_per_slot, n_pages, L;
    /* host */
    int32_t *table;      /* (slots, pages per slot): page, or -1 */
    int32_t *n_refs;     /* (pages): slots that refer to it */
    int32_t *free_pages; /* (n_free used) */
    int32_t *pairs;      /* (n_pairs used, 2): copies to be made before the next rows */
    int64_t n_free, n_pairs;
    bool changed;        /* table: since it was uploaded */
} KvCache;

void kv_alloc(KvCache *kv, const Model *m, Arena *a, int64_t n_slots, int64_t max_length);
void kv_free(KvCache *kv);
/* Slot dst holds the first n positions of slot src from now on, and nothing else; no key is computed
 * or copied. dst may be src: positions from n on are given back, with n = 0 all of them. What follows
 * in dst is to be written from position n on. */
void kv_share(KvCache *kv, int64_t dst, int64_t src, int64_t n);

/* Scratch for up to max_rows rows of model_extend. */
typedef struct ExtendWork ExtendWork;
ExtendWork *extend_new(const Model *m, int64_t max_rows);
void extend_alloc(ExtendWork *w, Arena *a);
void extend_free(ExtendWork *w);

/* Runs R rows (ids[r] at position row_pos[r] of slot row_seq[r]; rows of one slot ascending) through
 * the model, writing their keys and values into the cache, and returns their hidden states (R, C):
 * bit for bit those of model_forward on the whole sequences, for any cut into calls. Host arrays. */
Tensor model_extend(const Model *m, const ParamSet *p, const Adapter *lora, KvCache *kv,
                    ExtendWork *w, const int32_t *ids, const int32_t *row_seq, const int32_t *row_pos,
                    int64_t R);
/* Its two halves. Pages for the rows to be written into, on host and device; returns how many pages
 * of a slot the rows reach at most. */
int64_t extend_prepare(const Model *m, KvCache *kv, const int32_t *row_seq, const int32_t *row_pos,
                       int64_t R);
/* The ops alone, which a graph may record. ids, row_seq, row_pos: i32 (R) on the device, row_seq -1 for
 * rows there are not; pages: at least as many as the rows reach. */
Tensor extend_rows(const Model *m, const ParamSet *p, const Adapter *lora, KvCache *kv,
                   ExtendWork *w, const Tensor *ids, const Tensor *row_seq, const Tensor *row_pos,
                   int64_t pages);

#endif
