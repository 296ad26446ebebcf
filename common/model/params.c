/* params.c - the parameter table of the Llama family, and what follows from it alone: allocation,
 * random init, copies, gradients, and row-major access to any layout.
 *
 * A tied pair is two table entries with one set of bytes: the head owns them, the embedding is a
 * view. Tested by tests/unit/test_model.c and, in double, tests/grad_model.c. */
#include "common/model/params.h"

#include "common/base/error.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/runtime/bf16.h"
#include "common/runtime/device.h"
#include "common/runtime/ops.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table ------------------------------------------------------------------------------ */

typedef enum { ALWAYS, WITH_QKV_BIAS, WITH_O_BIAS, WITH_QK_NORM } Presence;

/* One row per parameter of a layer, in the order of LayerParam. rows, cols: letters of ModelConfig,
 * Q = H * D, G = K * D (the keys' and values' width); '-' = a vector. */
static const struct {
    const char *name, *hf_name;
    char rows, cols;
    bool residual; /* writes into the residual stream: init divided by sqrt(2 L) */
    ParamAxis axis;
    Presence when;
} layer_rows[LAYER_PARAMS] = {
    {"norm1", "input_layernorm.weight", 'C', '-', false, AXIS_NONE, ALWAYS},
    {"attn.q", "self_attn.q_proj.weight", 'Q', 'C', false, AXIS_OUT, ALWAYS},
    {"attn.k", "self_attn.k_proj.weight", 'G', 'C', false, AXIS_OUT, ALWAYS},
    {"attn.v", "self_attn.v_proj.weight", 'G', 'C', false, AXIS_OUT, ALWAYS},
    {"attn.o", "self_attn.o_proj.weight", 'C', 'Q', true, AXIS_IN, ALWAYS},
    {"norm2", "post_attention_layernorm.weight", 'C', '-', false, AXIS_NONE, ALWAYS},
    {"mlp.gate", "mlp.gate_proj.weight", 'F', 'C', false, AXIS_OUT, ALWAYS},
    {"mlp.up", "mlp.up_proj.weight", 'F', 'C', false, AXIS_OUT, ALWAYS},
    {"mlp.down", "mlp.down_proj.weight", 'C', 'F', true, AXIS_IN, ALWAYS},
    {"attn.q.bias", "self_attn.q_proj.bias", 'Q', '-', false, AXIS_OUT, WITH_QKV_BIAS},
    {"attn.k.bias", "self_attn.k_proj.bias", 'G', '-', false, AXIS_OUT, WITH_QKV_BIAS},
    {"attn.v.bias", "self_attn.v_proj.bias", 'G', '-', false, AXIS_OUT, WITH_QKV_BIAS},
    {"attn.o.bias", "self_attn.o_proj.bias", 'C', '-', false, AXIS_NONE, WITH_O_BIAS},
    {"attn.q.norm", "self_attn.q_norm.weight", 'D', '-', false, AXIS_NONE, WITH_QK_NORM},
    {"attn.k.norm", "self_attn.k_norm.weight", 'D', '-', false, AXIS_NONE, WITH_QK_NORM},
};

static bool is_present(const ModelConfig *c, Presence when)
{
    switch (when) {
    case WITH_QKV_BIAS:
        return c->qkv_bias;
    case WITH_O_BIAS:
        return c->o_bias;
    case WITH_QK_NORM:
        return c->qk_norm;
    default:
        return true;
    }
}

static int64_t width_of(const ModelConfig *c, char letter)
{
    switch (letter) {
    case 'C':
        return c->C;
    case 'F':
        return c->F;
    case 'Q':
        return c->H * c->D;
    case 'G':
        return c->K * c->D;
    case 'D':
        return c->D;
    default:
        return 0;
    }
}

static ParamDef *def_add(ParamTable *t, int group, int64_t rows, int64_t cols)
{
    ParamDef *d = &t->def[t->n++];
    *d = (ParamDef){.dim = {rows, cols},
                    .layout = cols ? LAYOUT_PANEL : LAYOUT_ROWS,
                    .group = group,
                    .init = cols ? INIT_NORMAL : INIT_ONES,
                    .init_std = cols ? 1 / sqrt((double)cols) : 0,
                    .decay = cols > 0,
                    .tied_to = -1,
                    .bias = -1,
                    .shard_axis = cols ? AXIS_OUT : AXIS_NONE,
                    .tp_axis = AXIS_NONE};
    return d;
}

static void names_set(ParamDef *d, const char *name, const char *hf_name)
{
    snprintf(d->name, sizeof d->name, "%s", name);
    snprintf(d->hf_name, sizeof d->hf_name, "%s", hf_name);
}

static const double EMBED_STD = 0.05;

/* Whether products read parameter i in bf16. */
static bool in_bf16(const ParamTable *t, int i)
{
    return t->dtype == DTYPE_BF16 && t->def[i].dim[1] > 0 &&
           !(t->config.head == HEAD_SCALAR && i == t->head);
}

static bool is_bias(LayerParam p)
{
    return p >= P_Q_BIAS && p <= P_O_BIAS;
}

static void layer_add(ParamTable *t, int64_t l)
{
    const ModelConfig *c = &t->config;
    for (LayerParam p = 0; p < LAYER_PARAMS; p++) {
        if (t->in_layer[p] < 0)
            continue;
        ParamDef *d = def_add(t, (int)l, width_of(c, layer_rows[p].rows), width_of(c, layer_rows[p].cols));
        snprintf(d->name, sizeof d->name, "layers.%lld.%s", (long long)l, layer_rows[p].name);
        snprintf(d->hf_name, sizeof d->hf_name, "model.layers.%lld.%s", (long long)l,
                 layer_rows[p].hf_name);
        d->lora_target = d->dim[1] > 0;
        d->tp_axis = layer_rows[p].axis;
        if (layer_rows[p].residual)
            d->init_std /= sqrt(2 * (double)c->L);
        if (is_bias(p)) {
            d->init = INIT_ZERO;
            t->def[param_layer(t, l, P_Q + (p - P_Q_BIAS))].bias = t->n - 1;
        }
    }
}

void param_table_init(ParamTable *t, const ModelConfig *c, DType dtype, bool rows)
{
    CHECK(dtype == DTYPE_REAL || dtype == DTYPE_BF16, "parameters in %s", dtype_name(dtype));
    *t = (ParamTable){.config = *c, .dtype = dtype};
    for (LayerParam p = 0; p < LAYER_PARAMS; p++)
        t->in_layer[p] = is_present(c, layer_rows[p].when) ? t->per_layer++ : -1;
    t->def = xcalloc((size_t)(1 + t->per_layer * c->L + 2), sizeof *t->def);
    bool tied = c->tied && c->head == HEAD_LM;

    t->embed = t->n;
    ParamDef *embed = def_add(t, -1, c->V, c->C);
    names_set(embed, "embed", "model.embed_tokens.weight");
    embed->layout = tied ? LAYOUT_PANEL : LAYOUT_ROWS;
    embed->init_std = EMBED_STD;
    embed->tp_axis = AXIS_OUT;

    for (int64_t l = 0; l < c->L; l++)
        layer_add(t, l);

    t->final_norm = t->n;
    names_set(def_add(t, (int)c->L, c->C, 0), "norm", "model.norm.weight");

    t->head = t->n;
    ParamDef *head = def_add(t, (int)c->L, c->head == HEAD_LM ? c->V : 1, c->C);
    if (c->head == HEAD_SCALAR) {
        names_set(head, "score", "score.weight");
        head->init_std = 1 / sqrt((double)c->C + 1); /* Stiennon et al. 2020: N(0, 1 / (d + 1)) */
        head->shard_axis = AXIS_NONE;
    } else {
        names_set(head, "lm_head", tied ? embed->hf_name : "lm_head.weight");
        head->tp_axis = AXIS_OUT;
        if (tied) {
            head->init_std = EMBED_STD;
            embed->tied_to = t->head;
        }
    }
    for (int i = 0; rows && i < t->n; i++)
        if (in_bf16(t, i))
            t->def[i].layout = LAYOUT_ROWS;
}

void param_table_free(ParamTable *t)
{
    free(t->def);
    *t = (ParamTable){0};
}

int param_layer(const ParamTable *t, int64_t layer, LayerParam p)
{
    CHECK(layer >= 0 && layer < t->config.L, "layer %lld of %lld", (long long)layer,
          (long long)t->config.L);
    return t->in_layer[p] < 0 ? -1 : 1 + (int)layer * t->per_layer + t->in_layer[p];
}

int64_t param_table_count(const ParamTable *t)
{
    int64_t n = 0;
    for (int i = 0; i < t->n; i++)
        if (t->def[i].tied_to < 0)
            n += t->def[i].dim[0] * (t->def[i].dim[1] ? t->def[i].dim[1] : 1);
    return n;
}

/* ---- row-major access ----------------------------------------------------------------------- */

/* Panel p of a PANEL tensor as a tensor of its own; a panel's bytes are contiguous. */
static Tensor panel_of(const Tensor *w, int64_t p)
{
    int64_t left = w->dim[0] - p * PANEL_N;
    Tensor v = *w;
    v.dim[0] = left < PANEL_N ? left : PANEL_N;
    v.data = (char *)w->data + (size_t)p * tensor_bytes(&v);
    return v;
}

/* The same tensor in memory of the host. */
static Tensor on_host(const Tensor *t, void *data)
{
    Tensor v = *t;
    v.data = data;
    return v;
}

static void element_set(const Tensor *t, int64_t at, real_t value)
{
    if (t->dtype == DTYPE_BF16)
        ((uint16_t *)t->data)[at] = bf16_of_f32((float)value);
    else
        ((real_t *)t->data)[at] = value;
}

static real_t element_get(const Tensor *t, int64_t at)
{
    return t->dtype == DTYPE_BF16 ? (real_t)f32_of_bf16(((const uint16_t *)t->data)[at])
                                  : ((const real_t *)t->data)[at];
}

static void store_panels(Tensor *w, ParamFill fill, void *ctx)
{
    int64_t K = w->dim[1];
    real_t *rows = xmalloc((size_t)(K * PANEL_N) * sizeof *rows);
    Tensor first = panel_of(w, 0);
    void *panel = xcalloc(1, tensor_bytes(&first)); /* padding is zero */
    for (int64_t p = 0; p * PANEL_N < w->dim[0]; p++) {
        Tensor v = panel_of(w, p), host = on_host(&v, panel);
        fill(ctx, p * PANEL_N * K, v.dim[0] * K, rows);
        if (v.dim[0] < PANEL_N) /* lanes of the panel before */
            memset(panel, 0, tensor_bytes(&v));
        for (int64_t k = 0; k < K; k++)
            for (int64_t n = 0; n < v.dim[0]; n++)
                element_set(&host, tensor_slot(&host, n, k), rows[n * K + k]);
        device_upload(&v, panel, tensor_bytes(&v));
    }
    free(rows);
    free(panel);
}

enum { ROWS_RUN = 1 << 18 }; /* elements staged at a time for ROWS tensors */

/* Elements [first, first + n) of a dense ROWS tensor. */
static Tensor rows_run(const Tensor *w, int64_t first, int64_t n)
{
    return tensor_make1((char *)w->data + (size_t)first * dtype_bytes(w->dtype), w->dev, w->dtype, n);
}

static void store_rows(Tensor *w, ParamFill fill, void *ctx)
{
    int64_t len = tensor_len(w), run = len < ROWS_RUN ? len : ROWS_RUN;
    real_t *values = xmalloc((size_t)run * sizeof *values);
    void *half = w->dtype == DTYPE_BF16 ? xmalloc((size_t)run * sizeof(uint16_t)) : NULL;
    for (int64_t at = 0; at < len; at += run) {
        int64_t n = len - at < run ? len - at : run;
        Tensor v = rows_run(w, at, n), host = on_host(&v, half ? half : values);
        fill(ctx, at, n, values);
        for (int64_t i = 0; half && i < n; i++)
            element_set(&host, i, values[i]);
        device_upload(&v, host.data, tensor_bytes(&v));
    }
    free(values);
    free(half);
}

static void check_kept(const Tensor *w)
{
    CHECK(w->dtype == DTYPE_REAL || w->dtype == DTYPE_BF16, "parameter is %s", tensor_text(w));
}

void param_store(Tensor *w, ParamFill fill, void *ctx)
{
    check_kept(w);
    if (w->layout == LAYOUT_PANEL)
        store_panels(w, fill, ctx);
    else
        store_rows(w, fill, ctx);
}

static void fetch_rows(const Tensor *w, int64_t first, int64_t n, real_t *dst)
{
    enum { RUN = 4096 };
    uint16_t half[RUN];
    Tensor v = rows_run(w, first, n);
    if (w->dtype != DTYPE_BF16) {
        device_download(dst, &v, (size_t)n * sizeof *dst);
        return;
    }
    for (int64_t at = 0; at < n; at += v.dim[0]) {
        v = rows_run(w, first + at, n - at < RUN ? n - at : RUN);
        device_download(half, &v, tensor_bytes(&v));
        for (int64_t i = 0; i < v.dim[0]; i++)
            dst[at + i] = (real_t)f32_of_bf16(half[i]);
    }
}

void param_fetch(const Tensor *w, int64_t first, int64_t n, real_t *dst)
{
    check_kept(w);
    CHECK(first >= 0 && first + n <= tensor_len(w), "elements %lld + %lld of %s", (long long)first,
          (long long)n, tensor_text(w));
    if (w->layout != LAYOUT_PANEL) {
        fetch_rows(w, first, n, dst);
        return;
    }
    int64_t K = w->dim[1];
    Tensor panel = panel_of(w, 0), host = on_host(&panel, xmalloc(tensor_bytes(&panel)));
    for (int64_t i = first, have = -1; i < first + n;) {
        int64_t row = i / K, k = i % K;
        int64_t run = K - k < first + n - i ? K - k : first + n - i;
        if (row / PANEL_N != have) {
            have = row / PANEL_N;
            Tensor v = panel_of(w, have);
            device_download(host.data, &v, tensor_bytes(&v));
        }
        for (int64_t j = 0; j < run; j++)
            dst[i - first + j] = element_get(&host, tensor_slot(&host, row % PANEL_N, k + j));
        i += run;
    }
    free(host.data);
}

/* ---- sets of bytes -------------------------------------------------------------------------- */

static Tensor def_tensor(const ParamDef *d, Layout layout, Arena *a)
{
    if (!d->dim[1])
        return arena_rows1(a, DTYPE_REAL, d->dim[0]);
    return arena_tensor(a, DTYPE_REAL, layout, 2, d->dim);
}

void params_alloc(ParamSet *p, const ParamTable *t, Arena *a, const char *role, bool frozen)
{
    Tensor *w = p->w ? p->w : xcalloc((size_t)t->n, sizeof *w);
    Tensor *in = p->in ? p->in : xcalloc((size_t)t->n, sizeof *in);
    *p = (ParamSet){.table = t, .w = w, .in = in, .role = role, .frozen = frozen};
    for (int i = 0; i < t->n; i++) {
        const ParamDef *d = &t->def[i];
        bool half = in_bf16(t, i);
        if (d->tied_to >= 0)
            continue;
        if (half)
            in[i] = arena_tensor(a, DTYPE_BF16, d->layout, 2, d->dim);
        w[i] = half && frozen ? in[i] : def_tensor(d, d->layout, a);
        if (!half)
            in[i] = w[i];
    }
    for (int i = 0; i < t->n; i++)
        if (t->def[i].tied_to >= 0) {
            w[i] = w[t->def[i].tied_to];
            in[i] = in[t->def[i].tied_to];
        }
}

void params_free(ParamSet *p)
{
    free(p->w);
    free(p->in);
    *p = (ParamSet){0};
}

Tensor *param_copy(const ParamSet *p, int i)
{
    return p->in[i].dtype == p->w[i].dtype ? NULL : &p->in[i];
}

void params_refresh(ParamSet *p)
{
    for (int i = 0; i < p->table->n; i++)
        if (p->table->def[i].tied_to < 0 && param_copy(p, i))
            op_convert(&p->in[i], &p->w[i]);
}

typedef struct {
    uint64_t seed;
    int index;
    double std;
} NormalFill;

/* Element e of parameter i is normal number e % 4 of the Philox block (seed, i, e / 4), so the
 * values depend on neither layout nor order. */
static void fill_normal(void *ctx, int64_t first, int64_t n, real_t *dst)
{
    const NormalFill *f = ctx;
    double z[4] = {0};
    for (int64_t e = first, have = -1; e < first + n; e++) {
        if (e / 4 != have) {
            have = e / 4;
            RngKey k = rng_key(f->seed, RNG_INIT, 0, (uint64_t)f->index, 0, (uint32_t)have);
            uint32_t u[4];
            philox4x32(u, k.ctr, k.key);
            for (int j = 0; j < 4; j += 2) { /* Box-Muller; u in (0, 1] under the logarithm */
                double r = sqrt(-2 * log((u[j] + 1.0) / 4294967296.0));
                double angle = 2 * 3.14159265358979323846 * (u[j + 1] / 4294967296.0);
                z[j] = r * cos(angle);
                z[j + 1] = r * sin(angle);
            }
        }
        dst[e - first] = (real_t)(f->std * z[e % 4]);
    }
}

void param_init_random(ParamSet *p, int index, uint64_t seed)
{
    const ParamDef *d = &p->table->def[index];
    if (d->init != INIT_NORMAL) {
        op_fill(&p->w[index], d->init == INIT_ONES ? 1 : 0);
        return;
    }
    NormalFill f = {seed, index, d->init_std};
    param_store(&p->w[index], fill_normal, &f);
}

void params_init_random(ParamSet *p, uint64_t seed)
{
    for (int i = 0; i < p->table->n; i++)
        if (p->table->def[i].tied_to < 0)
            param_init_random(p, i, seed);
    params_refresh(p);
}

void params_copy(ParamSet *dst, const ParamSet *src)
{
    CHECK(dst->table->n == src->table->n, "%d parameters into %d", src->table->n, dst->table->n);
    for (int i = 0; i < src->table->n; i++)
        if (src->table->def[i].tied_to < 0)
            op_convert(&dst->w[i], &src->w[i]);
    params_refresh(dst);
}

void params_acquire(const ParamSet *p, int group)
{
    CHECK(group >= -1 && group <= p->table->config.L, "group %d", group);
}

void params_release(const ParamSet *p, int group)
{
    CHECK(group >= -1 && group <= p->table->config.L, "group %d", group);
}

/* ---- gradients ------------------------------------------------------------------------------ */

void grads_alloc(Grads *g, const ParamTable *t, Arena *a)
{
    Tensor *at = g->g ? g->g : xcalloc((size_t)t->n, sizeof *at);
    *g = (Grads){.table = t, .g = at};
    for (int i = 0; i < t->n; i++)
        at[i] = def_tensor(&t->def[i], i == t->embed ? LAYOUT_ROWS : t->def[i].layout, a);
}

void grads_free(Grads *g)
{
    free(g->g);
    *g = (Grads){0};
}

void grads_zero(Grads *g)
{
    for (int i = 0; i < g->table->n; i++)
        op_fill(&g->g[i], 0);
}

void grads_finish(Grads *g)
{
    const ParamTable *t = g->table;
    int head = t->def[t->embed].tied_to;
    if (head < 0)
        return;
    op_axpy(&g->g[head], 1, &g->g[t->embed], true);
    op_fill(&g->g[t->embed], 0); /* a second call adds nothing */
}

bool grads_is_own(const ParamTable *t, int i)
{
    return t->def[i].tied_to < 0;
}
