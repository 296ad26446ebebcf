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

static int positive_read(double *out, const Json *root, const char *key, double otherwise,
                         const char *where)
{
    const Json *j = json_get(root, key);
    *out = absent(j) ? otherwise : json_num(j, -1);
    if (!(*out > 0) || !isfinite(*out))
        return refuse(where, key, j, "expected a number above 0");
    return 0;
}

/* ---- parts ---------------------------------------------------------------------------------- */

static const char *const families[] = {"Llama"};

static int architecture_read(ModelConfig *c, const Json *root, const char *where)
{
    const Json *list = json_get(root, "architectures");
    const char *name = json_len(list) == 1 ? json_str(json_at(list, 0)) : NULL;
    static const struct {
        const char *suffix;
        HeadKind head;
    } heads[] = {{"ForCausalLM", HEAD_LM}, {"ForSequenceClassification", HEAD_SCALAR}};
    for (size_t f = 0; name && f < sizeof families / sizeof *families; f++)
        for (size_t h = 0; h < sizeof heads / sizeof *heads; h++) {
            size_t n = strlen(families[f]);
            if (strncmp(name, families[f], n) || strcmp(name + n, heads[h].suffix))
                continue;
            strcpy(c->architecture, families[f]);
            c->head = heads[h].head;
            return 0;
        }
    if (absent(list))
        return error_set(ERR_DATA, "%s: architectures is missing", where);
    return refuse(where, "architectures", list,
                  "supported: [\"LlamaForCausalLM\"], [\"LlamaForSequenceClassification\"]");
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

/* rope_theta and the scaling, in the old places and in rope_parameters. */
static int rope_read(ModelConfig *c, const Json *root, const char *where)
{
    int rc = 0;
    const Json *parameters = json_get(root, "rope_parameters");
    TRY(positive_read(&c->rope_theta, root, "rope_theta", 10000, where));
    if (!absent(json_get(parameters, "rope_theta")))
        TRY(positive_read(&c->rope_theta, parameters, "rope_theta", 10000, where));
    static const char *const places[] = {"rope_scaling", "rope_parameters"};
    for (int i = 0; i < 2; i++) {
        const Json *scaling = json_get(root, places[i]), *type = json_get(scaling, "rope_type");
        if (absent(type))
            type = json_get(scaling, "type");
        if (absent(scaling) || (i == 1 && absent(type)))
            continue;
        if (!json_str(type) || strcmp(json_str(type), "default"))
            return refuse(where, places[i], scaling,
                          "only unscaled RoPE (\"default\") is supported");
    }
    const Json *partial = json_get(root, "partial_rotary_factor");
    if (absent(partial))
        partial = json_get(parameters, "partial_rotary_factor");
    if (!absent(partial) && json_num(partial, 0) != 1)
        return refuse(where, "partial_rotary_factor", partial, "only 1 is supported");
fail:
    return rc;
}

static int unsupported_check(const Json *root, const char *where)
{
    static const char *const must_be_false[] = {"attention_bias", "mlp_bias"};
    static const char *const must_be_absent[] = {"sliding_window", "quantization_config"};
    for (int i = 0; i < 2; i++) {
        const Json *j = json_get(root, must_be_false[i]);
        if (!absent(j) && json_bool(j, true))
            return refuse(where, must_be_false[i], j, "only false is supported");
        j = json_get(root, must_be_absent[i]);
        if (!absent(j))
            return refuse(where, must_be_absent[i], j, "not supported");
    }
    const Json *act = json_get(root, "hidden_act");
    if (!absent(act) && (!json_str(act) || strcmp(json_str(act), "silu")))
        return refuse(where, "hidden_act", act, "only \"silu\" is supported");
    const Json *type = json_get(root, "model_type");
    if (!absent(type) && (!json_str(type) || strcmp(json_str(type), "llama")))
        return refuse(where, "model_type", type, "expected \"llama\" with this architecture");
    return 0;
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
    *c = (ModelConfig){.bos = -1, .pad = -1};
    int rc = 0;
    Json *root = NULL;
    char *path = path_join(folder, "config.json");
    TRY(json_read_file(&root, path));
    if (json_kind(root) != JSON_OBJ) {
        rc = error_set(ERR_DATA, "%s: expected an object, found %s", path,
                       json_kind_name(json_kind(root)));
        goto fail;
    }
    TRY(architecture_read(c, root, path));
    if (c->head == HEAD_SCALAR)
        TRY(labels_check(root, path));
    TRY(unsupported_check(root, path));
    TRY(size_read(&c->V, root, "vocab_size", -1, path));
    TRY(size_read(&c->C, root, "hidden_size", -1, path));
    TRY(size_read(&c->F, root, "intermediate_size", -1, path));
    TRY(size_read(&c->L, root, "num_hidden_layers", -1, path));
    TRY(size_read(&c->H, root, "num_attention_heads", -1, path));
    TRY(size_read(&c->K, root, "num_key_value_heads", c->H, path));
    TRY(size_read(&c->D, root, "head_dim", c->C % c->H ? 0 : c->C / c->H, path));
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
