/* acts.h - the slot table of activations and the parts of a forward pass that llama.c, heads.c and
 * kv.c share; nobody else includes it.
 *
 * A slot is a named (T, width) buffer. LIFE_LAYER: one per layer where backward finds it kept, one
 * shared by all layers where it computes it again or there is no backward. LIFE_PASS: one.
 * LIFE_BACKWARD: one, only with backward. */
#ifndef RLHF_MODEL_ACTS_H
#define RLHF_MODEL_ACTS_H

#include "common/model/llama.h"

typedef enum {
    /* LIFE_LAYER */
    A_X,     /* residual stream at the layer's start */
    A_RSTD1, /* of norm1 */
    A_N1,
    A_Q, /* after rope */
    A_K,
    A_V,
    A_Q_RAW, /* of models with qk_norm: before it, and its rstd */
    A_K_RAW,
    A_RSTD_Q,
    A_RSTD_K,
    A_O,   /* attention output */
    A_LSE, /* of attention */
    A_MID, /* residual stream after attention */
    A_RSTD2,
    A_N2,
    A_GATE,
    A_UP,
    A_ACT, /* silu(gate) * up */
    /* LIFE_PASS */
    A_LAST, /* residual stream at the end */
    A_RSTD,
    A_HIDDEN,
    /* LIFE_BACKWARD */
    A_DHIDDEN,
    A_DX, /* gradient of the residual stream, in place through all layers */
    A_DY, /* of models whose activations are bf16: the residual stream's gradient as products read it */
    A_DN,
    A_DQ,
    A_DK,
    A_DV,
    A_DQ_RAW,
    A_DK_RAW,
    A_DO,
    A_DELTA,
    A_DACT,
    ACTS_SLOTS
} ActSlot;

/* The first T rows of a slot; layer is ignored for slots that have one copy. */
Tensor acts_view(const Acts *a, ActSlot slot, int64_t layer, int64_t T);
const char *acts_slot_name(ActSlot slot);
bool acts_has(const Acts *a, ActSlot slot); /* this model has use for it */
bool acts_has_backward(const Acts *a);
/* Whether the slot holds what the last layer that ran left in it, so that backward has to compute it
 * again: the one place that says keep | recompute. */
bool acts_again(const Acts *a, ActSlot slot);
int64_t acts_max_tokens(const Acts *a);

/* ---- linears (llama.c) ---------------------------------------------------------------------- */

/* y (+)= x w^T of parameter `index`, and its bias. The one place where an adapter adds its part. */
void model_linear(Tensor *y, const Tensor *x, const ParamSet *p, int index, const Adapter *lora,
                  bool accumulate);
/* dx (+)= dy w, and the gradients of the weight (a sum for each of g's units) and its bias added into g. starts:
 * of the batch. */
void model_linear_backward(Tensor *dx, const Tensor *dy, const Tensor *x, const ParamSet *p,
                           int index, const Adapter *lora, Grads *g, const Tensor *starts,
                           bool accumulate);

/* ---- shared by the packed forward and by model_extend (llama.c) ----------------------------- */

/* Views of one layer's buffers, T rows each. out may be x. */
typedef struct {
    Tensor x, rstd1, n1, q, k, v, q_raw, k_raw, rstd_q, rstd_k, o, lse, mid, rstd2, n2, gate, up, act, out;
} LayerView;

LayerView layer_view(const Acts *a, int64_t layer, int64_t L, int64_t T);

/* What attention reads: packed sequences, or pages. */
typedef struct {
    const Tensor *starts;            /* packed; NULL with pages */
    Tensor *k_pages, *v_pages;       /* of this layer */
    const Tensor *page_table, *seqs; /* seqs: i32 (T), slot of each row */
} AttendTo;

void layer_forward(const Model *m, const ParamSet *p, const Adapter *lora, int64_t layer,
                   LayerView *t, const Tensor *pos, AttendTo *to);

#endif
