/* config.c - reads a model folder's config.json, in the dialects of transformers 4 and 5.
 *
 * What this code cannot honour is refused with the field's name and value: computing with a setting
 * ignored gives wrong numbers without an error. Tested by tests/unit/test_hf.c. */
#include "common/model/config.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json.h"

#include <float.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool absent(const Json *j)
{
    return json_kind(j) == JSON_NONE || json_kind(j) == JSON_NIL;
}

/* "FILE:LINE:COLUMN: KEY WHAT". The place of a key that is not there is that of what lacks it. */
static int fail_at(const JsonSource *from, const char *key, const char *what)
{
    int64_t line, column;
    json_place(from, key, &line, &column);
    return error_set(ERR_DATA, "%s:%lld:%lld: %s %s", from->file, (long long)line, (long long)column, key,
                     what);
}

static int refuse(const JsonSource *from, const char *key, const Json *value, const char *expected)
{
    char *text = json_short(value), *what = xasprintf("is %s; %s", text, expected);
    int rc = fail_at(from, key, what);
    free(text);
    free(what);
    return rc;
}

/* A key may stand in an object of the root: "rope_scaling.factor". */
static const Json *value_of(const Json *root, const char *key)
{
    const char *dot = strchr(key, '.');
    if (!dot)
        return json_get(root, key);
    char *outer = xstrndup(key, (size_t)(dot - key));
    const Json *j = json_get(json_get(root, outer), dot + 1);
    free(outer);
    return j;
}

/* A whole number in [1, 2^31). otherwise < 0: the field is required. */
static int size_read(int64_t *out, const Json *root, const char *key, int64_t otherwise,
                     const JsonSource *from)
{
    const Json *j = json_get(root, key);
    if (absent(j) && otherwise >= 0) {
        *out = otherwise;
        return 0;
    }
    if (json_kind(j) == JSON_NONE)
        return fail_at(from, key, "is missing; expected a whole number from 1 to 2147483647");
    *out = json_kind(j) == JSON_INT ? json_int(j, 0) : 0;
    if (*out < 1 || *out > INT32_MAX)
        return refuse(from, key, j, "expected a whole number from 1 to 2147483647");
    return 0;
}

/* A number that f32 can hold. otherwise < 0: the field is required. */
static int positive_read(double *out, const Json *root, const char *key, double otherwise,
                         const JsonSource *from)
{
    const Json *j = value_of(root, key);
    *out = absent(j) ? otherwise : json_num(j, -1);
    if (json_kind(j) == JSON_NONE && otherwise < 0)
        return fail_at(from, key, "is missing; expected a number above 0");
    if (!(*out >= FLT_MIN) || *out > FLT_MAX)
        return refuse(from, key, j, "expected a number above 0, from 1.2e-38 to 3.4e38");
    return 0;
}

static int flag_read(bool *out, const Json *root, const char *key, bool otherwise, const JsonSource *from)
{
    const Json *j = json_get(root, key);
    *out = json_bool(j, otherwise);
    if (!absent(j) && json_kind(j) != JSON_BOOLEAN)
        return refuse(from, key, j, "expected true or false");
    return 0;
}

/* ---- parts ---------------------------------------------------------------------------------- */

/* What the name of a family says and no key repeats. */
typedef struct {
    const char *name, *model_type;
    bool qkv_bias, qk_norm;
    bool bias_key; /* attention_bias: q, k, v and o */
    bool kv_key;   /* num_key_value_heads has a default of its own in transformers: it must be given */
} Family;
static const Family families[] = {
    {.name = "Llama", .model_type = "llama", .bias_key = true},
    {.name = "Mistral", .model_type = "mistral", .kv_key = true},
    {.name = "Qwen2", .model_type = "qwen2", .qkv_bias = true, .kv_key = true},
    {.name = "Qwen3", .model_type = "qwen3", .qk_norm = true, .bias_key = true, .kv_key = true},
};
enum { N_FAMILIES = sizeof families / sizeof *families };

static int architecture_read(ModelConfig *c, const Family **family, const Json *root,
                             const JsonSource *from)
{
    const Json *list = json_get(root, "architectures");
    const char *name = json_len(list) == 1 ? json_str(json_at(list, 0)) : NULL;
    static const struct {
        const char *suffix;
        HeadKind head;
    } heads[] = {{"ForCausalLM", HEAD_LM}, {"ForSequenceClassification", HEAD_SCALAR}};
    for (size_t f = 0; name && f < N_FAMILIES; f++)
        for (size_t h = 0; h < sizeof heads / sizeof *heads; h++) {
            size_t n = strlen(families[f].name);
            if (strncmp(name, families[f].name, n) || strcmp(name + n, heads[h].suffix))
                continue;
            strcpy(c->architecture, families[f].name);
            c->head = heads[h].head;
            *family = &families[f];
            return 0;
        }
    if (absent(list))
        return fail_at(from, "architectures", "is missing; expected [\"LlamaForCausalLM\"] or the like");
    return refuse(from, "architectures", list,
                  "supported: ForCausalLM and ForSequenceClassification of Llama, Mistral, Qwen2, Qwen3");
}

/* One label; transformers derives num_labels from id2label and takes 2 when it is absent. */
static int labels_check(const Json *root, const JsonSource *from)
{
    const Json *labels = json_get(root, "id2label"), *count = json_get(root, "num_labels");
    if (absent(labels) && absent(count))
        return fail_at(from, "id2label",
                       "is missing, which means two labels; a scalar head has one: "
                       "\"id2label\": {\"0\": \"LABEL_0\"}");
    if (!absent(labels) && (json_kind(labels) != JSON_OBJ || json_len(labels) != 1))
        return refuse(from, "id2label", labels, "a scalar head has one label: {\"0\": \"LABEL_0\"}");
    if (!absent(count) && json_int(count, 0) != 1)
        return refuse(from, "num_labels", count, "a scalar head has one label: 1");
    return 0;
}

/* The object `key` of the root. */
static int scaling_read(RopeScaling *r, const Json *root, const char *key, const JsonSource *from)
{
    const Json *scaling = json_get(root, key), *type = json_get(scaling, "rope_type");
    if (absent(type))
        type = json_get(scaling, "type");
    static const char *const kinds[] = {"default", "linear", "llama3"};
    const char *name = json_str(type);
    int rc = 0, kind = 0;
    while (name && kind < 3 && strcmp(name, kinds[kind]))
        kind++;
    if (json_kind(scaling) != JSON_OBJ)
        return refuse(from, key, scaling, "expected an object with rope_type: default, linear or llama3");
    if (!name || kind == 3)
        return refuse(from, key, scaling, "supported rope_type: default, linear, llama3");
    r->kind = (RopeKind)kind;
    struct {
        const char *name;
        double *to;
        RopeKind from_kind; /* required from this kind on */
    } fields[] = {{"factor", &r->factor, ROPE_LINEAR},
                  {"low_freq_factor", &r->low_freq, ROPE_LLAMA3},
                  {"high_freq_factor", &r->high_freq, ROPE_LLAMA3},
                  {"original_max_position_embeddings", &r->original_max_position, ROPE_LLAMA3}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        char full[80];
        snprintf(full, sizeof full, "%s.%s", key, fields[i].name);
        if (r->kind >= fields[i].from_kind)
            TRY(positive_read(fields[i].to, root, full, -1, from));
    }
    if (r->kind == ROPE_LLAMA3 && (r->original_max_position > INT32_MAX ||
                                   r->original_max_position != (double)(int32_t)r->original_max_position))
        return refuse(from, key, scaling, "original_max_position_embeddings must be a whole number");
    if (r->kind == ROPE_LLAMA3 && r->high_freq <= r->low_freq)
        return refuse(from, key, scaling, "high_freq_factor must be above low_freq_factor");
fail:
    return rc;
}

static bool same_scaling(const RopeScaling *a, const RopeScaling *b)
{
    return a->kind == b->kind && a->factor == b->factor && a->low_freq == b->low_freq &&
           a->high_freq == b->high_freq && a->original_max_position == b->original_max_position;
}

/* transformers 5's place for theta and scaling. What stands in the old places too must say the same: version 4
 * reads those, version 5 these. */
static int rope_parameters_read(ModelConfig *c, const Json *root, const JsonSource *from)
{
    int rc = 0;
    const Json *parameters = json_get(root, "rope_parameters"), *old = json_get(root, "rope_scaling");
    if (absent(parameters))
        return 0;
    if (json_kind(parameters) != JSON_OBJ)
        return refuse(from, "rope_parameters", parameters, "expected an object");
    const double theta = c->rope_theta;
    TRY(positive_read(&c->rope_theta, root, "rope_parameters.rope_theta", theta, from));
    if (c->rope_theta != theta && !absent(json_get(root, "rope_theta")))
        return refuse(from, "rope_parameters.rope_theta", json_get(parameters, "rope_theta"),
                      "it contradicts rope_theta; keep one of them");
    const RopeScaling was = c->rope;
    if (!absent(json_get(parameters, "rope_type")) || !absent(json_get(parameters, "type")))
        TRY(scaling_read(&c->rope, root, "rope_parameters", from));
    else if (!absent(json_get(parameters, "factor")))
        return refuse(from, "rope_parameters", parameters, "it has a factor, but no rope_type");
    if (!absent(old) && !same_scaling(&c->rope, &was))
        return refuse(from, "rope_parameters", parameters, "it contradicts rope_scaling; keep one of them");
fail:
    return rc;
}

static int rope_read(ModelConfig *c, const Json *root, const JsonSource *from)
{
    int rc = 0;
    static const char *const partial[] = {"partial_rotary_factor", "rope_parameters.partial_rotary_factor"};
    TRY(positive_read(&c->rope_theta, root, "rope_theta", 10000, from));
    if (!absent(json_get(root, "rope_scaling")))
        TRY(scaling_read(&c->rope, root, "rope_scaling", from));
    TRY(rope_parameters_read(c, root, from));
    for (int i = 0; i < 2; i++) {
        const Json *j = value_of(root, partial[i]);
        if (!absent(j) && json_num(j, 0) != 1)
            return refuse(from, partial[i], j, "only 1 is supported");
    }
fail:
    return rc;
}

/* A window is allowed where the file itself switches it off, as Qwen2's do. */
static int window_check(const Json *root, const JsonSource *from)
{
    const Json *use = json_get(root, "use_sliding_window"), *window = json_get(root, "sliding_window");
    const Json *layers = json_get(root, "layer_types");
    bool used;
    int rc = flag_read(&used, root, "use_sliding_window", !absent(window), from);
    if (rc < 0)
        return rc;
    if (used)
        return refuse(from, absent(use) ? "sliding_window" : "use_sliding_window", absent(use) ? window : use,
                      "attention over a window is not supported");
    if (!absent(layers) && json_kind(layers) != JSON_ARR)
        return refuse(from, "layer_types", layers, "expected a list");
    for (size_t i = 0; i < json_len(layers); i++) {
        char key[48];
        const char *kind = json_str(json_at(layers, i));
        snprintf(key, sizeof key, "layer_types[%zu]", i);
        if (!kind || strcmp(kind, "full_attention"))
            return refuse(from, key, json_at(layers, i), "only \"full_attention\" is supported");
    }
    return 0;
}

static int bias_read(ModelConfig *c, const Family *f, const Json *root, const JsonSource *from)
{
    bool attention, mlp;
    int rc = 0;
    TRY(flag_read(&attention, root, "attention_bias", false, from));
    TRY(flag_read(&mlp, root, "mlp_bias", false, from));
    if (attention && !f->bias_key)
        return refuse(from, "attention_bias", json_get(root, "attention_bias"), "this family has no such key");
    if (mlp)
        return refuse(from, "mlp_bias", json_get(root, "mlp_bias"), "only false is supported");
    c->qkv_bias = f->qkv_bias || attention;
    c->o_bias = attention;
    c->qk_norm = f->qk_norm;
fail:
    return rc;
}

static int unsupported_check(const Family *f, const Json *root, const JsonSource *from)
{
    const Json *j = json_get(root, "quantization_config");
    if (!absent(j))
        return refuse(from, "quantization_config", j, "quantized weights are not supported");
    const Json *act = json_get(root, "hidden_act");
    if (!absent(act) && (!json_str(act) || strcmp(json_str(act), "silu")))
        return refuse(from, "hidden_act", act, "only \"silu\" is supported");
    const Json *type = json_get(root, "model_type");
    if (!absent(type) && (!json_str(type) || strcmp(json_str(type), f->model_type)))
        return refuse(from, "model_type", type, "it contradicts architectures");
    return window_check(root, from);
}

static int id_read(int32_t *out, const Json *j, const char *key, const JsonSource *from)
{
    *out = -1;
    if (absent(j))
        return 0;
    int64_t id = json_kind(j) == JSON_INT ? json_int(j, -2) : -2;
    if (id < -1 || id > INT32_MAX) /* -1: some files say "none" so */
        return refuse(from, key, j, "expected a token id");
    *out = (int32_t)id;
    return 0;
}

static int tokens_read(ModelConfig *c, const Json *root, const JsonSource *from)
{
    int rc = 0;
    TRY(id_read(&c->bos, json_get(root, "bos_token_id"), "bos_token_id", from));
    TRY(id_read(&c->pad, json_get(root, "pad_token_id"), "pad_token_id", from));
    const Json *eos = json_get(root, "eos_token_id");
    bool list = json_kind(eos) == JSON_ARR;
    size_t n = list ? json_len(eos) : absent(eos) ? 0 : 1;
    if (n > MODEL_MAX_EOS)
        return refuse(from, "eos_token_id", eos, "at most 8 ids are supported");
    for (size_t i = 0; i < n; i++) {
        int32_t id;
        char key[32] = "eos_token_id";
        if (list)
            snprintf(key, sizeof key, "eos_token_id[%zu]", i);
        TRY(id_read(&id, list ? json_at(eos, i) : eos, key, from));
        if (id >= 0)
            c->eos[c->n_eos++] = id;
    }
fail:
    return rc;
}

/* ---- what fits together --------------------------------------------------------------------- */

enum { LAYERS_MAX = 10000, HEAD_DIM_MAX = 16384 };
static const double PARAMETERS_MAX = 0x1p45; /* their bytes, gradients and moments can be counted in 64 bits */

static double parameters_about(const ModelConfig *c)
{
    const double C = (double)c->C, Q = (double)c->H * (double)c->D, G = (double)c->K * (double)c->D;
    return 2 * C * (double)c->V + (double)c->L * C * (2 * Q + 2 * G + 3 * (double)c->F);
}

/* Gives the key back, with the reason in `why`. */
__attribute__((format(printf, 3, 4))) static const char *misfit(const char *key, Str *why, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    str_addv(why, fmt, ap);
    va_end(ap);
    return key;
}

static const char *token_misfit(const ModelConfig *c, Str *why)
{
    static const char outside[] = "%d is outside the vocabulary of %lld";
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos[i] >= c->V)
            return misfit("eos_token_id", why, outside, c->eos[i], (long long)c->V);
    return c->bos >= c->V ? misfit("bos_token_id", why, outside, c->bos, (long long)c->V) : NULL;
}

/* The key that does not fit with the others, with the reason in `why`; NULL when all do. */
static const char *find_misfit(const ModelConfig *c, Str *why)
{
    const long long C = c->C, V = c->V, F = c->F, L = c->L, H = c->H, K = c->K, D = c->D;
    if (D < 1)
        return misfit("hidden_size", why, "%lld is no multiple of num_attention_heads %lld and head_dim is not given",
                      C, H);
    if (D % 2)
        return misfit("head_dim", why, "%lld is odd; RoPE turns pairs", D);
    if (D > HEAD_DIM_MAX)
        return misfit("head_dim", why, "%lld is above %d", D, HEAD_DIM_MAX);
    if (H % K)
        return misfit("num_attention_heads", why, "%lld is no multiple of num_key_value_heads %lld", H, K);
    if (L > LAYERS_MAX)
        return misfit("num_hidden_layers", why, "%lld is above %d", L, LAYERS_MAX);
    if (parameters_about(c) > PARAMETERS_MAX)
        return misfit("hidden_size", why,
                      "%lld with vocab_size %lld, intermediate_size %lld, %lld heads of %lld and %lld layers makes "
                      "about %.1e parameters; expected at most %.1e",
                      C, V, F, H, D, L, parameters_about(c), PARAMETERS_MAX);
    return token_misfit(c, why);
}

/* ---- the whole ------------------------------------------------------------------------------ */

static int fields_read(ModelConfig *c, const Json *root, const JsonSource *from)
{
    int rc = 0;
    const Family *family = NULL;
    TRY(architecture_read(c, &family, root, from));
    if (c->head == HEAD_SCALAR)
        TRY(labels_check(root, from));
    TRY(unsupported_check(family, root, from));
    TRY(bias_read(c, family, root, from));
    TRY(size_read(&c->V, root, "vocab_size", -1, from));
    TRY(size_read(&c->C, root, "hidden_size", -1, from));
    TRY(size_read(&c->F, root, "intermediate_size", -1, from));
    TRY(size_read(&c->L, root, "num_hidden_layers", -1, from));
    TRY(size_read(&c->H, root, "num_attention_heads", -1, from));
    TRY(size_read(&c->K, root, "num_key_value_heads", family->kv_key ? -1 : c->H, from));
    TRY(size_read(&c->D, root, "head_dim", family->qk_norm ? -1 : c->C % c->H ? 0 : c->C / c->H, from));
    TRY(size_read(&c->max_position, root, "max_position_embeddings", 2048, from));
    TRY(positive_read(&c->norm_eps, root, "rms_norm_eps", 1e-6, from));
    TRY(rope_read(c, root, from));
    TRY(tokens_read(c, root, from));
    TRY(flag_read(&c->tied, root, "tie_word_embeddings", false, from));
fail:
    return rc;
}

int model_config_read(ModelConfig *c, const char *folder)
{
    *c = (ModelConfig){.bos = -1, .pad = -1, .folder = folder};
    int rc = 0;
    Json *root = NULL;
    Str why = {0};
    char *text = NULL, *path = path_join(folder, "config.json");
    JsonSource from = {path, 1, 1, NULL, 0};
    TRY(file_read_stored(path, &text, &from.n));
    from.text = text;
    TRY(json_parse_at(&root, &from));
    if (json_kind(root) != JSON_OBJ) {
        int64_t line, column;
        json_place(&from, "", &line, &column);
        rc = error_set(ERR_DATA, "%s:%lld:%lld: found %s, expected an object", path, (long long)line,
                       (long long)column, json_kind_name(json_kind(root)));
        goto fail;
    }
    TRY(fields_read(c, root, &from));
    const char *key = find_misfit(c, &why);
    if (key)
        rc = fail_at(&from, key, why.s);
fail:
    str_free(&why);
    json_free(root);
    free(text);
    free(path);
    return rc;
}
