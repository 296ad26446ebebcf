/* params.h - the one parameter table of an architecture, and sets of bytes laid out by it.
 *
 * Weight decay: every matrix decays (linears, embedding, lm_head, score), norm weights do not.
 * A tied pair is one parameter: the head owns the bytes (PANEL) and stands in the file under the
 * embedding's name; a scalar model has no lm_head, so its embedding is always its own.
 *
 * The table alone drives allocation, init, checkpoint names, weight decay, trainability, later
 * sharding and tensor parallelism, and tests. ParamSet = bytes (shared or owned, frozen or trained);
 * forward and backward bracket each group (layer) with params_acquire / params_release: nothing
 * today; gathering of shards and host offload later.
 *
 * The table's dtype says what products multiply. f32: the weights themselves. bf16: copies of the matrices, rounded to
 * nearest even, beside f32 masters which the optimizer, checkpoints and exports see; op_adamw writes the
 * copies as it goes, and whoever else writes masters calls params_refresh. A frozen set has no masters
 * of its matrices: its copies are all there is of them. Vectors (norms) and a scalar head are f32 in
 * both. */
#ifndef RLHF_MODEL_PARAMS_H
#define RLHF_MODEL_PARAMS_H

#include "common/model/config.h"
#include "common/runtime/arena.h"

typedef enum { INIT_ONES, INIT_NORMAL, INIT_ZERO } InitKind;
typedef enum { AXIS_NONE = -1, AXIS_OUT = 0, AXIS_IN = 1 } ParamAxis;

typedef struct {
    char name[48];      /* "layers.3.attn.q" */
    char hf_name[80];   /* "model.layers.3.self_attn.q_proj.weight" */
    int64_t dim[2];     /* (N, K) of a matrix; (C, 0) of a vector */
    Layout layout;      /* PANEL: matrices; ROWS: vectors and an untied embedding */
    int group;          /* -1 = embedding, 0..L-1 = layer, L = final norm and head */
    InitKind init;
    double init_std;
    bool decay;         /* weight decay applies (matrices; not norms) */
    int tied_to;        /* index of the parameter whose bytes this one is; -1 */
    int bias;           /* of a matrix: index of the vector added to its product; -1 */
    bool lora_target;
    ParamAxis shard_axis, tp_axis;
} ParamDef;

/* Order inside a layer: what every family has, then what some have. */
typedef enum {
    P_NORM1,
    P_Q,
    P_K,
    P_V,
    P_O,
    P_NORM2,
    P_GATE,
    P_UP,
    P_DOWN,
    P_Q_BIAS,
    P_K_BIAS,
    P_V_BIAS,
    P_O_BIAS,
    P_Q_NORM, /* over each head */
    P_K_NORM,
    LAYER_PARAMS
} LayerParam;

typedef struct {
    ModelConfig config;
    DType dtype;                    /* of products: DTYPE_REAL or DTYPE_BF16 */
    ParamDef *def;
    int n;                          /* entries, tied ones included */
    int per_layer;
    int in_layer[LAYER_PARAMS];     /* place among a layer's parameters; -1: this model has none */
    int embed, final_norm, head;    /* indices; head: lm_head or score */
} ParamTable;

/* rows: matrices that products read in bf16 are ROWS, as a card's are, instead of PANEL. xmalloc'ed. */
void param_table_init(ParamTable *t, const ModelConfig *c, DType dtype, bool rows);
void param_table_free(ParamTable *t);
int param_layer(const ParamTable *t, int64_t layer, LayerParam p); /* index; -1: there is none */
int64_t param_table_count(const ParamTable *t);  /* parameters, tied counted once */

typedef struct {
    const ParamTable *table;
    Tensor *w;          /* (n): where values are kept; a tied entry is a view of the same bytes */
    Tensor *in;         /* (n): what forward and backward read: the tensor w, or a bf16 copy of it */
    const char *role;   /* "policy", "reference", ...: for messages */
    bool frozen;
} ParamSet;

/* A program's key `dtype`: member `m` of struct S, an int, is a DType. */
#define DTYPE_FIELD(S, m)                                                                            \
    {"dtype", CFG_ENUM, offsetof(S, m), "f32", .choices = "f32|bf16", .help = "what matrix products multiply; sums, weights that are trained and the optimizer are f32 in both"}

/* Tensors of every parameter from the arena (same call for planning and for real; the arrays themselves
 * are made once). */
void params_alloc(ParamSet *p, const ParamTable *t, Arena *a, const char *role, bool frozen);
void params_free(ParamSet *p); /* the arrays only */
/* The copies become what their masters are; to be called after w was written by anything but op_adamw
 * and the functions of this file. */
void params_refresh(ParamSet *p);
/* The bf16 copy of parameter i that is to follow w[i]; NULL: there is none beside it. */
Tensor *param_copy(const ParamSet *p, int i);
void params_init_random(ParamSet *p, uint64_t seed);
/* One parameter, the same values. Its copy is stale until params_refresh. */
void param_init_random(ParamSet *p, int index, uint64_t seed);
void params_copy(ParamSet *dst, const ParamSet *src); /* same table shapes, whatever the dtypes */

/* Row-major access to a parameter whatever its layout: elements [first, first + n) of the tensor as
 * Hugging Face lays it out. Both go through a staging buffer of one panel of rows, so no second copy
 * of a weight ever exists. w: real, or bf16, which is rounded to when stored. */
typedef void (*ParamFill)(void *ctx, int64_t first, int64_t n, real_t *dst);
void param_store(Tensor *w, ParamFill fill, void *ctx); /* calls fill for ascending runs */
void param_fetch(const Tensor *w, int64_t first, int64_t n, real_t *dst);

void params_acquire(const ParamSet *p, int group);
void params_release(const ParamSet *p, int group);

/* Gradients: one tensor per parameter in its layout; a tied head has its own (head part) beside the
 * embedding's (ROWS), and grads_finish() adds the two once, in the head's layout. */
typedef struct {
    const ParamTable *table;
    Tensor *g;          /* (n): for a tied pair, g[embed] is ROWS (V, C), g[head] is PANEL */
    /* Of one backward pass: rows [units[u], units[u + 1]) are one sum of a matrix's gradient; NULL: all are.
     * Matters where device_sums_by_unit; borrowed. */
    const int32_t *units; /* (n_units + 1) */
    int n_units;
} Grads;

void grads_alloc(Grads *g, const ParamTable *t, Arena *a);
void grads_free(Grads *g);
void grads_zero(Grads *g);
/* Adds the embedding part of a tied head into the head's gradient; call once per optimizer step,
 * after the last micro-batch. Afterwards g[head] is the gradient of the shared bytes. */
void grads_finish(Grads *g);
/* Whether parameter i has bytes and a gradient of its own after grads_finish (an embedding tied to
 * the head is served by the head's entry). What optimizer and norm walk over, in table order. */
bool grads_is_own(const ParamTable *t, int i);

#endif
