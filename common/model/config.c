/* config.c - reads a model folder's config.json, in the dialects of transformers 4 and 5.
 *
 * What this code cannot honour is refused with the field's name and value: computing with a setting
 * ignored gives wrong numbers without an error. Tested by tests/unit/test_hf.c. */
#include "common/model/config.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool absent(const Json *j)
{
    return json_kind(j) == JSON_NONE || json_kind(j) == JSON_NIL;
}

/* A value as short text, for messages. */
static char *value_text(const Json *j)
{
    Str s = {0};
    JsonWriter w;
    jw_init(&w, &s, false);
    jw_json(&w, j);
    if (s.n > 80) {
        s.s[77] = 0;
        char *cut = xasprintf("%s...", s.s);
        str_free(&s);
        return cut;
    }
    return str_take(&s);
}

static int refuse(const char *where, const char *key, const Json *value, const char *expected)
{
    char *text = value_text(value);
    int rc = error_set(ERR_DATA, "%s: %s is %s; %s", where, key, text, expected);
    free(text);
    return rc;
}

/* A whole number in [1, 2^31). otherwise < 0: the field is required. */
static int size_read(int64_t *out, const Json *root, const char *key, int64_t otherwise,
                     const char *where)
{
    const Json *j = json_get(root, key);
    if (absent(j) && otherwise >= 0) {
        *out = otherwise;
        return 0;
    }
    if (absent(j))
        return error_set(ERR_DATA, "%s: %s is missing", where, key);
    *out = json_kind(j) == JSON_INT ? json_int(j, 0) : 0;
    if (*out < 1 || *out > INT32_MAX)
        return refuse(where, key, j, "expected a whole number from 1 to 2147483647");
    return 0;
}

/* otherwise < 0: the field is required. */
static int positive_read(double *out, const Json *root, const char *key, double otherwise,
                         const char *where)
{
    const Json *j = json_get(root, key);
    *out = absent(j) ? otherwise : json_num(j, -1);
    if (absent(j) && otherwise < 0)
        return error_set(ERR_DATA, "%s: %s is missing", where, key);
    if (!(*out > 0) || !isfinite(*out))
        return refuse(where, key, j, "expected a number above 0");
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

static int architecture_read(ModelConfig *c, const Family **family, const Json *root, const char *where)
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
        return error_set(ERR_DATA, "%s: architectures is missing", where);
    return refuse(where, "architectures", list,
                  "supported: ForCausalLM and ForSequenceClassification of Llama, Mistral, Qwen2, Qwen3");
}

/* One label; transformers derives num_labels from id2label and takes 2 when it is absent. */
static int labels_check(const Json *root, const char *where)
{
    const Json *labels = json_get(root, "id2label"), *count = json_get(root, "num_labels");
    if (absent(labels) && absent(count))
        return error_set(ERR_DATA,
                         "%s: id2label is missing, which means two labels; a scalar head has one: "
                         "\"id2label\": {\"0\": \"LABEL_0\"}",
                         where);
    if (!absent(labels) && json_len(labels) != 1)
        return refuse(where, "id2label", labels, "a scalar head has one label");
    if (!absent(count) && json_int(count, 0) != 1)
        return refuse(where, "num_labels", count, "a scalar head has one label");
    return 0;
}

static int scaling_read(RopeScaling *r, const Json *scaling, const char *key, const char *where)
{
    const Json *type = json_get(scaling, "rope_type");
    if (absent(type))
        type = json_get(scaling, "type");
    static const char *const kinds[] = {"default", "linear", "llama3"};
    const char *name = json_str(type);
    int rc = 0, kind = 0;
    while (name && kind < 3 && strcmp(name, kinds[kind]))
        kind++;
    if (!name || kind == 3)
        return refuse(where, key, scaling, "supported rope_type: default, linear, llama3");
    r->kind = (RopeKind)kind;
    if (r->kind == ROPE_DEFAULT)
        return 0;
    TRY(positive_read(&r->factor, scaling, "factor", -1, where));
    if (r->kind == ROPE_LINEAR)
        return 0;
    TRY(positive_read(&r->low_freq, scaling, "low_freq_factor", -1, where));
    TRY(positive_read(&r->high_freq, scaling, "high_freq_factor", -1, where));
    TRY(positive_read(&r->original_max_position, scaling, "original_max_position_embeddings", -1, where));
    if (r->high_freq <= r->low_freq)
        return refuse(where, key, scaling, "high_freq_factor must be above low_freq_factor");
fail:
    return rc;
}

/* rope_theta and the scaling, in the old places and in rope_parameters. */
static int rope_read(ModelConfig *c, const Json *root, const char *where)
{
    int rc = 0;
    const Json *parameters = json_get(root, "rope_parameters");
    TRY(positive_read(&c->rope_theta, root, "rope_theta", 10000, where));
    if (!absent(json_get(parameters, "rope_theta")))
        TRY(positive_read(&c->rope_theta, parameters, "rope_theta", 10000, where));
    if (!absent(json_get(root, "rope_scaling")))
        TRY(scaling_read(&c->rope, json_get(root, "rope_scaling"), "rope_scaling", where));
    if (!absent(json_get(parameters, "rope_type")) || !absent(json_get(parameters, "type")))
        TRY(scaling_read(&c->rope, parameters, "rope_parameters", where));
    const Json *partial = json_get(root, "partial_rotary_factor");
    if (absent(partial))
        partial = json_get(parameters, "partial_rotary_factor");
    if (!absent(partial) && json_num(partial, 0) != 1)
        return refuse(where, "partial_rotary_factor", partial, "only 1 is supported");
fail:
    return rc;
}

/* A window is allowed where the file itself switches it off, as Qwen2's do. */
static int window_check(const Json *root, const char *where)
{
    const Json *use = json_get(root, "use_sliding_window"), *window = json_get(root, "sliding_window");
    const Json *layers = json_get(root, "layer_types");
    if (!absent(use) ? json_bool(use, true) : !absent(window))
        return refuse(where, absent(use) ? "sliding_window" : "use_sliding_window", absent(use) ? window : use,
                      "attention over a window is not supported");
    for (size_t i = 0; i < json_len(layers); i++) {
        const char *kind = json_str(json_at(layers, i));
        if (!kind || strcmp(kind, "full_attention"))
            return refuse(where, "layer_types", layers, "only full_attention is supported");
    }
    return 0;
}

static int bias_read(ModelConfig *c, const Family *f, const Json *root, const char *where)
{
    const Json *attention = json_get(root, "attention_bias"), *mlp = json_get(root, "mlp_bias");
    bool given = !absent(attention) && json_bool(attention, true);
    if (given && !f->bias_key)
        return refuse(where, "attention_bias", attention, "this family has no such key");
    if (!absent(mlp) && json_bool(mlp, true))
        return refuse(where, "mlp_bias", mlp, "only false is supported");
    c->qkv_bias = f->qkv_bias || given;
    c->o_bias = given;
    c->qk_norm = f->qk_norm;
    return 0;
}

static int unsupported_check(const Family *f, const Json *root, const char *where)
{
    const Json *j = json_get(root, "quantization_config");
    if (!absent(j))
        return refuse(where, "quantization_config", j, "not supported");
    const Json *act = json_get(root, "hidden_act");
    if (!absent(act) && (!json_str(act) || strcmp(json_str(act), "silu")))
        return refuse(where, "hidden_act", act, "only \"silu\" is supported");
    const Json *type = json_get(root, "model_type");
    if (!absent(type) && (!json_str(type) || strcmp(json_str(type), f->model_type)))
        return refuse(where, "model_type", type, "it contradicts architectures");
    return window_check(root, where);
}

static int id_read(int32_t *out, const Json *j, const char *key, const char *where)
{
    *out = -1;
    if (absent(j))
        return 0;
    int64_t id = json_kind(j) == JSON_INT ? json_int(j, -2) : -2;
    if (id < -1 || id > INT32_MAX) /* -1: some files say "none" so */
        return refuse(where, key, j, "expected a token id");
    *out = (int32_t)id;
    return 0;
}

static int tokens_read(ModelConfig *c, const Json *root, const char *where)
{
    int rc = 0;
    TRY(id_read(&c->bos, json_get(root, "bos_token_id"), "bos_token_id", where));
    TRY(id_read(&c->pad, json_get(root, "pad_token_id"), "pad_token_id", where));
    const Json *eos = json_get(root, "eos_token_id");
    bool list = json_kind(eos) == JSON_ARR;
    size_t n = list ? json_len(eos) : absent(eos) ? 0 : 1;
    if (n > MODEL_MAX_EOS)
        return refuse(where, "eos_token_id", eos, "at most 8 ids are supported");
    for (size_t i = 0; i < n; i++) {
        int32_t id;
        TRY(id_read(&id, list ? json_at(eos, i) : eos, "eos_token_id", where));
        if (id >= 0)
            c->eos[c->n_eos++] = id;
    }
fail:
    return rc;
}

/* ---- the whole ------------------------------------------------------------------------------ */

int model_config_read(ModelConfig *c, const char *folder)
{
    *c = (ModelConfig){.bos = -1, .pad = -1, .folder = folder};
    int rc = 0;
    Json *root = NULL;
    char *path = path_join(folder, "config.json");
    TRY(json_read_file(&root, path));
    if (json_kind(root) != JSON_OBJ) {
        rc = error_set(ERR_DATA, "%s: expected an object, found %s", path,
                       json_kind_name(json_kind(root)));
        goto fail;
    }
    const Family *family = NULL;
    TRY(architecture_read(c, &family, root, path));
    if (c->head == HEAD_SCALAR)
        TRY(labels_check(root, path));
    TRY(unsupported_check(family, root, path));
    TRY(bias_read(c, family, root, path));
    TRY(size_read(&c->V, root, "vocab_size", -1, path));
    TRY(size_read(&c->C, root, "hidden_size", -1, path));
    TRY(size_read(&c->F, root, "intermediate_size", -1, path));
    TRY(size_read(&c->L, root, "num_hidden_layers", -1, path));
    TRY(size_read(&c->H, root, "num_attention_heads", -1, path));
    TRY(size_read(&c->K, root, "num_key_value_heads", family->kv_key ? -1 : c->H, path));
    TRY(size_read(&c->D, root, "head_dim", family->qk_norm ? -1 : c->C % c->H ? 0 : c->C / c->H, path));
    TRY(size_read(&c->max_position, root, "max_position_embeddings", 2048, path));
    TRY(positive_read(&c->norm_eps, root, "rms_norm_eps", 1e-6, path));
    TRY(rope_read(c, root, path));
    TRY(tokens_read(c, root, path));
    c->tied = json_bool(json_get(root, "tie_word_embeddings"), false);
    TRY(model_config_check(c, path));
fail:
    json_free(root);
    free(path);
    return rc;
}

int model_config_check(const ModelConfig *c, const char *where)
{
    long long H = c->H, K = c->K, D = c->D;
    if (D < 1)
        return error_set(ERR_DATA,
                         "%s: hidden_size %lld is no multiple of num_attention_heads %lld "
                         "and head_dim is not given",
                         where, (long long)c->C, H);
    if (D % 2)
        return error_set(ERR_DATA, "%s: head_dim %lld is odd; RoPE turns pairs", where, D);
    if (H % K)
        return error_set(ERR_DATA,
                         "%s: num_attention_heads %lld is no multiple of "
                         "num_key_value_heads %lld",
                         where, H, K);
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos[i] >= c->V)
            return error_set(ERR_DATA, "%s: eos_token_id %d is outside the vocabulary of %lld",
                             where, c->eos[i], (long long)c->V);
    if (c->bos >= c->V)
        return error_set(ERR_DATA, "%s: bos_token_id %d is outside the vocabulary of %lld", where,
                         c->bos, (long long)c->V);
    return 0;
}
