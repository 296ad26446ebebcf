/* hf.c - Hugging Face folders written: weights, config.json kept but for what changed, tokenizer files. Reading is
 * in hf_load.c. Tested by tests/unit/test_hf.c. */
#include "common/model/hf.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

static bool has_file(const char *folder, const char *name)
{
    char *path = path_join(folder, name);
    bool yes = file_exists(path);
    free(path);
    return yes;
}

bool hf_has_weights(const char *folder)
{
    return weights_exist(folder);
}

/* ---- saving: config.json -------------------------------------------------------------------- */

static bool is_eos(const ModelConfig *c, int64_t id)
{
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos[i] == id)
            return true;
    return false;
}

static bool can_pad(const ModelConfig *c, int64_t id)
{
    return id >= 0 && id < c->V && id != c->bos && !is_eos(c, id);
}

/* The tokens of a folder by id and by name: tokenizer.json as it is written, or a tokenizer.model and what
 * tokenizer_config.json adds to it. Neither where the folder has none. */
typedef struct {
    Json *json;
    Tokenizer *model;
} TokenNames;

static int names_open(TokenNames *n, const char *folder)
{
    char *path = path_join(folder, "tokenizer.json");
    int rc = 0;
    *n = (TokenNames){0};
    if (file_exists(path))
        rc = json_read_file(&n->json, path);
    else if (tokenizer_open(&n->model, folder) < 0)
        n->model = NULL;
    free(path);
    return rc;
}

static void names_close(TokenNames *n)
{
    json_free(n->json);
    tokenizer_close(n->model);
}

/* Of added tokens alone, in a tokenizer.json; -1: there is none. */
static int64_t names_id(const TokenNames *n, const char *content)
{
    if (n->model)
        return tokenizer_id(n->model, content);
    const Json *added = json_get(n->json, "added_tokens");
    for (size_t i = 0; i < json_len(added); i++) {
        const char *text = json_str(json_get(json_at(added, i), "content"));
        if (text && !strcmp(text, content))
            return json_int(json_get(json_at(added, i), "id"), -1);
    }
    return -1;
}

/* NULL: there is none. */
static const char *names_text(const TokenNames *n, int64_t id)
{
    if (n->model)
        return id < tokenizer_vocab_size(n->model) ? tokenizer_piece(n->model, (int32_t)id) : NULL;
    const Json *added = json_get(n->json, "added_tokens"), *vocab = json_get(json_get(n->json, "model"), "vocab");
    for (size_t i = 0; i < json_len(added); i++)
        if (json_int(json_get(json_at(added, i), "id"), -1) == id)
            return json_str(json_get(json_at(added, i), "content"));
    for (void *it = json_kind(vocab) == JSON_OBJ ? json_iter(vocab) : NULL; it; it = json_iter_next(vocab, it))
        if (json_int(json_iter_value(it), -1) == id)
            return json_iter_key(it);
    return NULL;
}

/* A token that is meant for padding, by name. -1: there is none. */
static int64_t named_pad(const ModelConfig *c, const TokenNames *names)
{
    static const char *const wanted[] = {"<pad>",
                                         "[PAD]",
                                         "<|pad|>",
                                         "<|finetune_right_pad_id|>",
                                         "<unk>",
                                         "<|endoftext|>",
                                         "<|reserved_special_token_0|>"};
    for (size_t w = 0; w < sizeof wanted / sizeof *wanted; w++) {
        int64_t id = names_id(names, wanted[w]);
        if (can_pad(c, id))
            return id;
    }
    return -1;
}

/* transformers pools a sequence at its last token before padding, so the padding id of a scalar
 * model must not be one that ends or fills answers. The base's own pad_token_id if it is no eos;
 * else a token of the tokenizer that is meant for it, by name; else the lowest id that is
 * neither bos nor eos (0, <unk>, in the Llama 2 vocabulary). */
static int64_t scalar_pad(const ModelConfig *c, const TokenNames *names)
{
    if (c->pad >= 0 && c->pad < c->V && !is_eos(c, c->pad))
        return c->pad;
    int64_t found = named_pad(c, names);
    for (int64_t id = 0; found < 0 && id < c->V; id++)
        found = can_pad(c, id) ? id : -1;
    return found < 0 ? 0 : found;
}

static const HfExtra *find_extra(const HfExtra *extra, int n, const char *key)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(extra[i].key, key))
            return &extra[i];
    return NULL;
}

/* Keys that are written anew, whatever the base has. */
static bool is_ours(const char *key, bool scalar)
{
    static const char *const always[] = {"architectures", "torch_dtype"};
    static const char *const of_scalar[] = {"id2label", "label2id", "num_labels", "problem_type",
                                            "pad_token_id"};
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        if (!strcmp(key, always[i]))
            return true;
    for (size_t i = 0; scalar && i < sizeof of_scalar / sizeof *of_scalar; i++)
        if (!strcmp(key, of_scalar[i]))
            return true;
    return false;
}

static void scalar_keys(JsonWriter *w, int64_t pad)
{
    jw_key(w, "id2label");
    jw_object(w);
    jw_kstr(w, "0", "LABEL_0");
    jw_object_end(w);
    jw_key(w, "label2id");
    jw_object(w);
    jw_kint(w, "LABEL_0", 0);
    jw_object_end(w);
    jw_kstr(w, "problem_type", "regression");
    jw_kint(w, "pad_token_id", pad);
}

/* transformers 4 does not look into rope_parameters: what is there alone is said in its words too. */
static void rope_keys(JsonWriter *w, const ModelConfig *c, const Json *base)
{
    static const char *const kind[] = {"default", "linear", "llama3"};
    JsonKind scaling = json_kind(json_get(base, "rope_scaling"));
    if (!json_get(base, "rope_theta"))
        jw_knum(w, "rope_theta", c->rope_theta);
    if (c->rope.kind == ROPE_DEFAULT || scaling == JSON_OBJ)
        return;
    jw_key(w, "rope_scaling");
    jw_object(w);
    jw_kstr(w, "rope_type", kind[c->rope.kind]);
    jw_knum(w, "factor", c->rope.factor);
    if (c->rope.kind == ROPE_LLAMA3) {
        jw_knum(w, "low_freq_factor", c->rope.low_freq);
        jw_knum(w, "high_freq_factor", c->rope.high_freq);
        jw_kint(w, "original_max_position_embeddings", (int64_t)c->rope.original_max_position);
    }
    jw_object_end(w);
}

static int extra_keys(JsonWriter *w, const HfExtra *extra, int n)
{
    for (int i = 0; i < n; i++) {
        Json *value = NULL;
        int rc = json_parse(&value, extra[i].json, strlen(extra[i].json), extra[i].key, 1);
        if (rc < 0)
            return rc;
        jw_key(w, extra[i].key);
        jw_json(w, value);
        json_free(value);
    }
    return 0;
}

/* pad: of a scalar model. */
static int config_write(const ModelConfig *c, const char *folder, const char *base_folder, int dtype, int64_t pad,
                        const HfExtra *extra, int n_extra)
{
    bool scalar = c->head == HEAD_SCALAR;
    const char *dtype_text = dtype == ST_BF16 ? "bfloat16" : "float32";
    int rc = 0;
    Json *base = NULL;
    Str text = {0};
    JsonWriter w;
    char *from = path_join(base_folder, "config.json"), *to = path_join(folder, "config.json");
    TRY(json_read_file(&base, from));
    jw_init(&w, &text, true);
    jw_object(&w);
    char *name =
        xasprintf("%s%s", c->architecture, scalar ? "ForSequenceClassification" : "ForCausalLM");
    jw_key(&w, "architectures");
    jw_array(&w);
    jw_str(&w, name);
    jw_array_end(&w);
    free(name);
    for (void *it = json_iter(base); it; it = json_iter_next(base, it)) {
        const char *key = json_iter_key(it);
        if (is_ours(key, scalar) || find_extra(extra, n_extra, key))
            continue;
        if (!strcmp(key, "rope_scaling") && json_kind(json_iter_value(it)) == JSON_NIL)
            continue; /* says nothing, and rope_keys may say it */
        if (!strcmp(key, "dtype")) { /* transformers 5's name */
            jw_kstr(&w, key, dtype_text);
            continue;
        }
        jw_key(&w, key);
        jw_json(&w, json_iter_value(it));
    }
    rope_keys(&w, c, base);
    jw_kstr(&w, "torch_dtype", dtype_text);
    if (scalar)
        scalar_keys(&w, pad);
    TRY(extra_keys(&w, extra, n_extra));
    jw_object_end(&w);
    str_add(&text, "\n");
    TRY(file_write_atomic(to, text.s, text.n));
fail:
    json_free(base);
    str_free(&text);
    free(from);
    free(to);
    return rc;
}

static int generation_config_write(const ModelConfig *c, const char *folder)
{
    Str text = {0};
    JsonWriter w;
    jw_init(&w, &text, true);
    jw_object(&w);
    if (c->bos >= 0)
        jw_kint(&w, "bos_token_id", c->bos);
    if (c->n_eos == 1)
        jw_kint(&w, "eos_token_id", c->eos[0]);
    if (c->n_eos > 1) {
        jw_key(&w, "eos_token_id");
        jw_array(&w);
        for (int i = 0; i < c->n_eos; i++)
            jw_int(&w, c->eos[i]);
        jw_array_end(&w);
    }
    if (c->pad >= 0)
        jw_kint(&w, "pad_token_id", c->pad);
    jw_object_end(&w);
    str_add(&text, "\n");
    char *path = path_join(folder, "generation_config.json");
    int rc = file_write_atomic(path, text.s, text.n);
    free(path);
    str_free(&text);
    return rc;
}

/* ---- saving: weights and the folder --------------------------------------------------------- */

static void fill_from_params(void *ctx, int index, int64_t first, int64_t n, float *dst)
{
    const ParamSet *p = ctx;
    param_fetch(&p->w[index], first, n, dst);
}

static int params_write(const ParamSet *p, const char *folder, HfFormat format)
{
    const ParamTable *t = p->table;
    StSource *sources = xcalloc((size_t)t->n, sizeof *sources);
    int n = 0;
    for (int i = 0; i < t->n; i++) {
        const ParamDef *d = &t->def[i];
        if (d->tied_to < 0)
            sources[n++] = (StSource){.name = d->hf_name,
                                      .dtype = format.dtype,
                                      .n_dims = d->dim[1] ? 2 : 1,
                                      .dim = {d->dim[0], d->dim[1]},
                                      .fill = fill_from_params,
                                      .ctx = (void *)p,
                                      .index = i};
    }
    int rc = weights_write(folder, sources, n, format.max_shard ? format.max_shard : HF_MAX_SHARD);
    free(sources);
    return rc;
}

static int tokenizer_copy(const char *folder, const char *base_folder)
{
    static const char *const files[] = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "tokenizer.model",
                                        "chat_template.jinja",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "generation_config.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *from = path_join(base_folder, files[i]), *to = path_join(folder, files[i]);
        int rc = file_exists(from) ? file_copy(from, to) : 0;
        free(from);
        free(to);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* The JSON object in a file, with another pad_token; a file that is not there, or has it, stays as it is. */
static int pad_token_write(const char *folder, const char *name, const char *token)
{
    char *path = path_join(folder, name);
    Json *root = NULL;
    Str text = {0};
    JsonWriter w;
    int rc = file_exists(path) ? json_read_file(&root, path) : 0;
    const Json *old = json_get(root, "pad_token");
    const char *has = json_str(json_kind(old) == JSON_OBJ ? json_get(old, "content") : old);
    if (!root || (has && !strcmp(has, token)))
        goto fail;
    jw_init(&w, &text, true);
    jw_object(&w);
    for (void *it = json_iter(root); it; it = json_iter_next(root, it)) {
        if (!strcmp(json_iter_key(it), "pad_token"))
            continue;
        jw_key(&w, json_iter_key(it));
        jw_json(&w, json_iter_value(it));
    }
    jw_kstr(&w, "pad_token", token);
    jw_object_end(&w);
    str_add(&text, "\n");
    rc = file_write_atomic(path, text.s, text.n);
fail:
    json_free(root);
    str_free(&text);
    free(path);
    return rc;
}

/* What the tokenizer pads a batch with must be what a scalar model takes for padding, *pad: at another token
 * transformers reads the score among the padding. */
static int choose_pad(int64_t *pad, const ModelConfig *c, const char *folder)
{
    static const char *const files[] = {"tokenizer_config.json", "special_tokens_map.json"};
    TokenNames names;
    int rc = names_open(&names, folder);
    *pad = scalar_pad(c, &names);
    const char *token = names_text(&names, *pad);
    for (size_t i = 0; i < sizeof files / sizeof *files && rc == 0 && token; i++)
        rc = pad_token_write(folder, files[i], token);
    names_close(&names);
    return rc;
}

int hf_save_shape(const ModelConfig *c, const char *folder, const char *base_folder, StDType dtype,
                  const HfExtra *extra, int n_extra)
{
    int64_t pad = -1;
    int rc = tokenizer_copy(folder, base_folder);
    if (rc == 0 && c->head == HEAD_SCALAR)
        rc = choose_pad(&pad, c, folder);
    if (rc == 0 && !has_file(folder, "generation_config.json"))
        rc = generation_config_write(c, folder);
    return rc < 0 ? rc : config_write(c, folder, base_folder, (int)dtype, pad, extra, n_extra);
}

int hf_save(const ParamSet *p, const char *folder, const char *base_folder, HfFormat format,
            const HfExtra *extra, int n_extra)
{
    CHECK(format.dtype == ST_F32 || format.dtype == ST_BF16, "dtype %d", (int)format.dtype);
    int rc = 0;
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/')
        n--;
    char *path = xstrndup(folder, n), *tmp = xasprintf("%s.tmp", path);
    TRY(dir_remove(tmp));
    TRY(dir_make(tmp));
    TRY(hf_save_shape(&p->table->config, tmp, base_folder, format.dtype, extra, n_extra));
    TRY(params_write(p, tmp, format));
    TRY(dir_commit(tmp, path));
fail:
    free(path);
    free(tmp);
    return rc;
}

/* ---- the rest ------------------------------------------------------------------------------- */

int hf_read_extra(const char *folder, const char *key, Json **out)
{
    *out = NULL;
    int rc = 0;
    Json *root = NULL;
    Str text = {0};
    char *path = path_join(folder, "config.json");
    TRY(json_read_file(&root, path));
    const Json *value = json_get(root, key);
    if (json_kind(value) == JSON_NONE || json_kind(value) == JSON_NIL)
        goto fail;
    JsonWriter w; /* a copy: borrowed values die with their root */
    jw_init(&w, &text, false);
    jw_json(&w, value);
    TRY(json_parse(out, text.s, text.n, path, 1));
fail:
    str_free(&text);
    json_free(root);
    free(path);
    return rc;
}

int hf_hash(const char *folder, char out[33])
{
    Hash128 h[2];
    char *path = path_join(folder, "config.json");
    int rc = hash128_file(path, &h[0]);
    free(path);
    if (rc < 0 || (rc = weights_hash(folder, &h[1])) < 0)
        return rc;
    hash128_hex(hash128(h, sizeof h), out);
    return 0;
}
