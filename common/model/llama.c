/* llama.c - forward and backward of the Llama family.
 *
 * layer_forward() is the one body of a layer: the packed forward and the cached one (kv.c) differ
 * only in what attention reads, so their rows are equal bit for bit. Backward walks the same lines
 * upwards, after those of forward again for what acts do not keep. Tested by tests/unit/test_model.c
 * (golden, bits) and tests/grad_model.c (double). */
#include "common/model/llama.h"

#include "common/base/error.h"
#include "common/base/mem.h"
#include "common/model/acts.h"
#include "common/runtime/device.h"

#include <math.h>
#include <stdlib.h>

/* ---- constants ------------------------------------------------------------------------------ */

/* Angle a token of the pair (i, i + D/2): theta^(-2i/D), stretched as the model was trained to. llama3 divides
 * low frequencies by the factor, keeps high ones and mixes the two in between, by the number of turns that a
 * pair makes in the original context (transformers, modeling_rope_utils.py). */
static double rope_frequency(const ModelConfig *c, int64_t i)
{
    const RopeScaling *r = &c->rope;
    double f = pow(c->rope_theta, -2 * (double)i / (double)c->D);
    if (r->kind == ROPE_DEFAULT)
        return f;
    double turns = r->original_max_position * f / (2 * M_PI);
    if (r->kind == ROPE_LINEAR || turns < r->low_freq)
        return f / r->factor;
    if (turns > r->high_freq)
        return f;
    double keep = (turns - r->low_freq) / (r->high_freq - r->low_freq);
    return (1 - keep) * f / r->factor + keep * f;
}

static void rope_fill(Tensor *rope, const ModelConfig *c)
{
    int64_t P = rope->dim[0], half = rope->dim[1] / 2;
    real_t *row = xmalloc((size_t)(2 * half) * sizeof *row);
    for (int64_t t = 0; t < P; t++) {
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)t * rope_frequency(c, i);
            row[i] = (real_t)cos(angle);
            row[half + i] = (real_t)sin(angle);
        }
        Tensor v = tensor_slice(rope, t, 1);
        device_upload(&v, row, (size_t)(2 * half) * sizeof *row);
    }
    free(row);
}

DType model_acts_dtype(const Model *m)
{
    return m->table.dtype == DTYPE_BF16 && device_can_bf16(m->dev) ? DTYPE_BF16 : DTYPE_REAL;
}

/* A card's bf16 attention is made for heads of some widths. */
static int check_heads(const ModelConfig *c, DType dtype, const Device *dev)
{
    if (dtype != DTYPE_BF16 || !device_can_bf16(dev) || c->D <= BF16_HEAD_DIM_MAX)
        return 0;
    return error_set(ERR_CONFIG, "%s%sconfig.json: head_dim: heads of %lld, but with dtype: bf16 %s takes up to %d; "
                                 "set dtype: f32, or device: cpu",
                     c->folder ? c->folder : "", c->folder ? "/" : "", (long long)c->D, device_text(dev),
                     BF16_HEAD_DIM_MAX);
}

int model_init(Model *m, const ModelConfig *c, DType dtype, Device *dev, Arena *a, int64_t max_positions)
{
    if (max_positions < 1 || max_positions > c->max_position)
        return error_set(ERR_CONFIG,
                         "sequences of %lld tokens, but the model has max_position_embeddings %lld; "
                         "lower max_length (or max_prompt_length, max_new_tokens)",
                         (long long)max_positions, (long long)c->max_position);
    int rc = check_heads(c, dtype, dev);
    if (rc < 0)
        return rc;
    if (!m->table.def)
        param_table_init(&m->table, c, dtype, device_can_bf16(dev));
    m->dev = dev;
    if (model_acts_dtype(m) == DTYPE_BF16)
        device_use_bf16(dev);
    m->max_positions = max_positions;
    m->rope = arena_rows2(a, DTYPE_REAL, max_positions, c->D);
    if (m->rope.data)
        rope_fill(&m->rope, c);
    return 0;
}

void model_free(Model *m)
{
    param_table_free(&m->table);
    *m = (Model){0};
}

/* ---- batches -------------------------------------------------------------------------------- */

void batch_alloc(Batch *b, Arena *a, Device *dev, int64_t max_tokens, int64_t max_seqs)
{
    *b = (Batch){.ids = arena_rows1(a, DTYPE_I32, max_tokens),
                 .pos = arena_rows1(a, DTYPE_I32, max_tokens),
                 .starts = arena_rows1(a, DTYPE_I32, max_seqs + 1),
                 .max_tokens = max_tokens,
                 .max_seqs = max_seqs};
    b->ids.dev = b->pos.dev = b->starts.dev = dev;
}

static void upload_i32(Tensor *t, const int32_t *src, int64_t n)
{
    *t = tensor_make1(t->data, t->dev, DTYPE_I32, n);
    device_upload(t, src, (size_t)n * sizeof *src);
}

void batch_set(Batch *b, const Pack *p)
{
    CHECK(p->n_tokens > 0 && p->n_tokens <= b->max_tokens && p->n_seqs <= b->max_seqs,
          "a pack of %d tokens in %d sequences, planned for %lld in %lld", p->n_tokens, p->n_seqs,
          (long long)b->max_tokens, (long long)b->max_seqs);
    b->T = p->n_tokens;
    b->S = p->n_seqs;
    b->units = p->units;
    b->n_units = p->n_units;
    upload_i32(&b->ids, p->ids, b->T);
    upload_i32(&b->pos, p->pos, b->T);
    upload_i32(&b->starts, p->starts, b->S + 1);
}

/* ---- linears -------------------------------------------------------------------------------- */

void model_linear(Tensor *y, const Tensor *x, const ParamSet *p, int index, const Adapter *lora,
                  bool accumulate)
{
    CHECK(!lora, "adapters on %s", p->table->def[index].name);
    op_linear(y, x, &p->in[index], accumulate);
    int bias = p->table->def[index].bias;
    if (bias >= 0)
        op_bias(y, &p->in[bias]);
}

/* dw += dy^T x, a sum for each unit. */
static void add_dw(const Grads *g, int index, const Tensor *dy, const Tensor *x, DType operands)
{
    const int32_t all[] = {0, (int32_t)x->dim[0]}, *at = g->units ? g->units : all;
    const int n = g->units ? g->n_units : 1;
    CHECK(at[n] == x->dim[0], "units of %d rows, %lld of %s", at[n], (long long)x->dim[0],
          g->table->def[index].name);
    for (int u = 0; u < n; u++) {
        const Tensor dy_unit = tensor_slice(dy, at[u], at[u + 1] - at[u]);
        const Tensor x_unit = tensor_slice(x, at[u], at[u + 1] - at[u]);
        op_linear_dw(&g->g[index], &dy_unit, &x_unit, operands, true);
    }
}

void model_linear_backward(Tensor *dx, const Tensor *dy, const Tensor *x, const ParamSet *p,
                           int index, const Adapter *lora, Grads *g, const Tensor *starts,
                           bool accumulate)
{
    CHECK(!lora, "adapters on %s", p->table->def[index].name);
    int bias = p->table->def[index].bias;
    if (bias >= 0)
        op_bias_backward(&g->g[bias], dy, starts);
    add_dw(g, index, dy, x, p->in[index].dtype);
    op_linear_dx(dx, dy, &p->in[index], accumulate);
}

/* ---- forward -------------------------------------------------------------------------------- */

static double attention_scale(const ModelConfig *c)
{
    return 1 / sqrt((double)c->D);
}

/* Rows of n heads as rows of one head, and the statistic of each. */
static Tensor heads_of(const Tensor *t, int64_t head_dim)
{
    return tensor_view2(t, tensor_len(t) / head_dim, head_dim);
}

static Tensor stat_of(const Tensor *t)
{
    return tensor_make1(t->data, t->dev, t->dtype, tensor_len(t));
}

/* q or k: the product, each head's norm where the model has one, RoPE. raw: before the norm. */
static void project(const Model *m, const ParamSet *p, const Adapter *lora, int linear, int norm, Tensor *y,
                    Tensor *raw, Tensor *rstd, const Tensor *x, const Tensor *pos)
{
    const ModelConfig *c = &m->table.config;
    model_linear(norm < 0 ? y : raw, x, p, linear, lora, false);
    if (norm >= 0) {
        Tensor to = heads_of(y, c->D), from = heads_of(raw, c->D), stat = stat_of(rstd);
        op_rmsnorm(&to, &stat, &from, &p->in[norm], c->norm_eps);
    }
    op_rope(y, pos, &m->rope, c->D, false);
}

/* From x to mid. */
static void attention_forward(const Model *m, const ParamSet *p, const Adapter *lora, int64_t layer,
                              LayerView *t, const Tensor *pos, AttendTo *to)
{
    const ModelConfig *c = &m->table.config;
    int base = param_layer(&m->table, layer, 0);
    op_rmsnorm(&t->n1, &t->rstd1, &t->x, &p->in[base + P_NORM1], c->norm_eps);
    project(m, p, lora, base + P_Q, param_layer(&m->table, layer, P_Q_NORM), &t->q, &t->q_raw, &t->rstd_q,
            &t->n1, pos);
    project(m, p, lora, base + P_K, param_layer(&m->table, layer, P_K_NORM), &t->k, &t->k_raw, &t->rstd_k,
            &t->n1, pos);
    model_linear(&t->v, &t->n1, p, base + P_V, lora, false);
    if (to->starts) {
        op_attention(&t->o, &t->lse, &t->q, &t->k, &t->v, to->starts, c->D, attention_scale(c));
    } else {
        op_kv_write(to->k_pages, to->v_pages, &t->k, &t->v, to->page_table, to->seqs, pos);
        op_attention_paged(&t->o, &t->q, to->k_pages, to->v_pages, to->page_table, to->seqs, pos,
                           c->D, attention_scale(c));
    }
    model_linear(&t->mid, &t->o, p, base + P_O, lora, false);
    op_add(&t->mid, &t->x, &t->mid);
}

/* From mid to act. */
static void mlp_forward(const Model *m, const ParamSet *p, const Adapter *lora, int64_t layer, LayerView *t)
{
    const ModelConfig *c = &m->table.config;
    int base = param_layer(&m->table, layer, 0);
    op_rmsnorm(&t->n2, &t->rstd2, &t->mid, &p->in[base + P_NORM2], c->norm_eps);
    model_linear(&t->gate, &t->n2, p, base + P_GATE, lora, false);
    model_linear(&t->up, &t->n2, p, base + P_UP, lora, false);
    op_swiglu(&t->act, &t->gate, &t->up);
}

void layer_forward(const Model *m, const ParamSet *p, const Adapter *lora, int64_t layer,
                   LayerView *t, const Tensor *pos, AttendTo *to)
{
    params_acquire(p, (int)layer);
    attention_forward(m, p, lora, layer, t, pos, to);
    mlp_forward(m, p, lora, layer, t);
    model_linear(&t->out, &t->act, p, param_layer(&m->table, layer, P_DOWN), lora, false);
    op_add(&t->out, &t->mid, &t->out);
    params_release(p, (int)layer);
}

/* The slot, or nothing where the model has no use for it. */
static Tensor view_if(const Acts *a, ActSlot slot, int64_t layer, int64_t T)
{
    return acts_has(a, slot) ? acts_view(a, slot, layer, T) : (Tensor){0};
}

LayerView layer_view(const Acts *a, int64_t layer, int64_t L, int64_t T)
{
    return (LayerView){
        .x = acts_view(a, A_X, layer, T),
        .rstd1 = acts_view(a, A_RSTD1, layer, T),
        .n1 = acts_view(a, A_N1, layer, T),
        .q = acts_view(a, A_Q, layer, T),
        .k = acts_view(a, A_K, layer, T),
        .v = acts_view(a, A_V, layer, T),
        .q_raw = view_if(a, A_Q_RAW, layer, T),
        .k_raw = view_if(a, A_K_RAW, layer, T),
        .rstd_q = view_if(a, A_RSTD_Q, layer, T),
        .rstd_k = view_if(a, A_RSTD_K, layer, T),
        .o = acts_view(a, A_O, layer, T),
        .lse = acts_view(a, A_LSE, layer, T),
        .mid = acts_view(a, A_MID, layer, T),
        .rstd2 = acts_view(a, A_RSTD2, layer, T),
        .n2 = acts_view(a, A_N2, layer, T),
        .gate = acts_view(a, A_GATE, layer, T),
        .up = acts_view(a, A_UP, layer, T),
        .act = acts_view(a, A_ACT, layer, T),
        .out = layer + 1 < L ? acts_view(a, A_X, layer + 1, T) : acts_view(a, A_LAST, 0, T),
    };
}

void model_forward(const Model *m, const ParamSet *p, const Adapter *lora, const Batch *b, Acts *a)
{
    const ModelConfig *c = &m->table.config;
    params_acquire(p, -1);
    Tensor x = acts_view(a, A_X, 0, b->T);
    op_embedding(&x, &b->ids, &p->in[m->table.embed]);
    params_release(p, -1);
    for (int64_t l = 0; l < c->L; l++) {
        LayerView t = layer_view(a, l, c->L, b->T);
        layer_forward(m, p, lora, l, &t, &b->pos, &(AttendTo){.starts = &b->starts});
    }
    params_acquire(p, (int)c->L);
    Tensor last = acts_view(a, A_LAST, 0, b->T), rstd = acts_view(a, A_RSTD, 0, b->T);
    Tensor hidden = acts_hidden(a, b);
    op_rmsnorm(&hidden, &rstd, &last, &p->in[m->table.final_norm], c->norm_eps);
    params_release(p, (int)c->L);
    if (acts_has_backward(a)) {
        Tensor d = acts_dhidden(a, b);
        op_fill(&d, 0);
    }
}

/* ---- backward ------------------------------------------------------------------------------- */

/* From dy, the gradient of q or k, which is overwritten: dx (+)= that of the layer's input. */
static void project_backward(const Model *m, const ParamSet *p, const Adapter *lora, int linear, int norm,
                             Tensor *dx, Tensor *dy, Tensor *draw, const Tensor *raw, const Tensor *rstd,
                             const Tensor *x, const Batch *b, Grads *g, bool accumulate)
{
    const ModelConfig *c = &m->table.config;
    op_rope(dy, &b->pos, &m->rope, c->D, true);
    if (norm >= 0) {
        Tensor to = heads_of(draw, c->D), from = heads_of(dy, c->D), value = heads_of(raw, c->D);
        Tensor stat = stat_of(rstd);
        op_fill(draw, 0);
        op_rmsnorm_backward(&to, &g->g[norm], &from, &value, &p->in[norm], &stat, &b->starts,
                            dy->dim[1] / c->D);
        dy = draw;
    }
    model_linear_backward(dx, dy, x, p, linear, lora, g, &b->starts, accumulate);
}

/* The residual stream's gradient as products read it, which is twice: rounded once where they read bf16. */
static Tensor as_operand(const Acts *a, const Tensor *dx)
{
    if (!acts_has(a, A_DY))
        return *dx;
    Tensor dy = acts_view(a, A_DY, 0, dx->dim[0]);
    op_convert(&dy, dx);
    return dy;
}

/* What forward left in the layer's slots and later layers overwrote: the same ops on the same numbers. The
 * last layer's is still there; the product behind act is not needed by backward. */
static void layer_again(const Model *m, const ParamSet *p, const Adapter *lora, int64_t layer, const Batch *b,
                        const Acts *a, LayerView *t)
{
    const ModelConfig *c = &m->table.config;
    int base = param_layer(&m->table, layer, 0);
    if (layer + 1 == c->L)
        return;
    if (acts_again(a, A_MID))
        attention_forward(m, p, lora, layer, t, &b->pos, &(AttendTo){.starts = &b->starts});
    else if (acts_again(a, A_N1))
        op_rmsnorm(&t->n1, &t->rstd1, &t->x, &p->in[base + P_NORM1], c->norm_eps);
    if (acts_again(a, A_GATE)) {
        mlp_forward(m, p, lora, layer, t);
    } else if (acts_again(a, A_ACT)) {
        op_rmsnorm(&t->n2, &t->rstd2, &t->mid, &p->in[base + P_NORM2], c->norm_eps);
        op_swiglu(&t->act, &t->gate, &t->up);
    }
}

/* dx: gradient of the layer's output on entry, of its input on return. */
static void layer_backward(const Model *m, const ParamSet *p, const Adapter *lora, int64_t layer,
                           const Batch *b, Acts *a, Tensor *dx, Grads *g)
{
    const ModelConfig *c = &m->table.config;
    int base = param_layer(&m->table, layer, 0);
    LayerView t = layer_view(a, layer, c->L, b->T);
    Tensor dn = acts_view(a, A_DN, 0, b->T), dact = acts_view(a, A_DACT, 0, b->T);
    Tensor dq = acts_view(a, A_DQ, 0, b->T), dk = acts_view(a, A_DK, 0, b->T);
    Tensor dv = acts_view(a, A_DV, 0, b->T), d_o = acts_view(a, A_DO, 0, b->T);
    Tensor delta = acts_view(a, A_DELTA, 0, b->T);
    params_acquire(p, (int)layer);
    layer_again(m, p, lora, layer, b, a, &t);

    Tensor dy = as_operand(a, dx);
    model_linear_backward(&dact, &dy, &t.act, p, base + P_DOWN, lora, g, &b->starts, false);
    op_swiglu_backward(&t.gate, &t.up, &dact, &t.gate, &t.up); /* gate, up become their gradients */
    model_linear_backward(&dn, &t.gate, &t.n2, p, base + P_GATE, lora, g, &b->starts, false);
    model_linear_backward(&dn, &t.up, &t.n2, p, base + P_UP, lora, g, &b->starts, true);
    op_rmsnorm_backward(dx, &g->g[base + P_NORM2], &dn, &t.mid, &p->in[base + P_NORM2], &t.rstd2,
                        &b->starts, 1);

    dy = as_operand(a, dx);
    model_linear_backward(&d_o, &dy, &t.o, p, base + P_O, lora, g, &b->starts, false);
    op_attention_backward(&dq, &dk, &dv, &delta, &d_o, &t.o, &t.lse, &t.q, &t.k, &t.v, &b->starts,
                          c->D, attention_scale(c));
    Tensor dq_raw = view_if(a, A_DQ_RAW, 0, b->T), dk_raw = view_if(a, A_DK_RAW, 0, b->T);
    project_backward(m, p, lora, base + P_Q, param_layer(&m->table, layer, P_Q_NORM), &dn, &dq, &dq_raw,
                     &t.q_raw, &t.rstd_q, &t.n1, b, g, false);
    project_backward(m, p, lora, base + P_K, param_layer(&m->table, layer, P_K_NORM), &dn, &dk, &dk_raw,
                     &t.k_raw, &t.rstd_k, &t.n1, b, g, true);
    model_linear_backward(&dn, &dv, &t.n1, p, base + P_V, lora, g, &b->starts, true);
    op_rmsnorm_backward(dx, &g->g[base + P_NORM1], &dn, &t.x, &p->in[base + P_NORM1], &t.rstd1,
                        &b->starts, 1);

    params_release(p, (int)layer);
}

void model_backward(const Model *m, const ParamSet *p, const Adapter *lora, const Batch *b, Acts *a,
                    Grads *g)
{
    const ModelConfig *c = &m->table.config;
    CHECK(acts_has_backward(a) && !p->frozen, "backward of %s", p->role ? p->role : "a model");
    Tensor dx = acts_view(a, A_DX, 0, b->T), dhidden = acts_dhidden(a, b);
    Tensor last = acts_view(a, A_LAST, 0, b->T), rstd = acts_view(a, A_RSTD, 0, b->T);
    int norm = m->table.final_norm;
    Grads by_unit = {g->table, g->g, b->units, b->n_units};
    g = &by_unit;

    op_fill(&dx, 0);
    params_acquire(p, (int)c->L);
    op_rmsnorm_backward(&dx, &g->g[norm], &dhidden, &last, &p->in[norm], &rstd, &b->starts, 1);
    params_release(p, (int)c->L);
    for (int64_t l = c->L - 1; l >= 0; l--)
        layer_backward(m, p, lora, l, b, a, &dx, g);
    op_embedding_backward(&g->g[m->table.embed], &dx, &b->ids);
}
