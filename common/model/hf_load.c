/* hf_load.c - Hugging Face folders read: the parameter table decides what a folder must hold; tensors stream from
 * the mapped file into their layout a few rows at a time, and every number is looked at on its way. Tested by
 * tests/unit/test_hf.c, test_malformed_model.c. */
#include "common/model/hf.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/runtime/bf16.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int hf_read_causal(ModelConfig *c, const char *folder, const Tokenizer *tok, const char *role)
{
    int rc = model_config_read(c, folder);
    if (rc < 0)
        return rc;
    if (c->head != HEAD_LM)
        return error_set(ERR_DATA,
                         "%s/config.json: architectures: found a scalar head, expected a causal model%s", folder,
                         role);
    return tokenizer_check_vocab(tok, folder, c->V);
}

static char *shape_text(int n_dims, const int64_t *dim)
{
    Str s = {0};
    str_add(&s, "(");
    for (int i = 0; i < n_dims; i++)
        str_addf(&s, "%s%lld", i ? ", " : "", (long long)dim[i]);
    str_add(&s, ")");
    return str_take(&s);
}

static int tensor_check(const ParamDef *d, const StTensor *t, const char *path)
{
    int n_dims = d->dim[1] ? 2 : 1;
    char *want = shape_text(n_dims, d->dim), *found = t ? shape_text(t->n_dims, t->dim) : NULL;
    int rc = 0;
    if (!t)
        rc = error_set(ERR_DATA, "%s: tensor %s %s is missing", path, d->hf_name, want);
    else if (strcmp(want, found))
        rc = error_set(ERR_DATA, "%s: tensor %s is %s, config.json asks for %s", path, d->hf_name,
                       found, want);
    else if (t->dtype > ST_BF16)
        rc = error_set(ERR_DATA, "%s: tensor %s is %s; F32, F16 and BF16 are supported", path,
                       d->hf_name, t->dtype_text);
    free(want);
    free(found);
    return rc;
}

typedef struct {
    const SafeTensors *file;
    const StTensor *tensor;
    int64_t bad; /* the first element that is no finite number; -1 */
    float bad_value;
} TensorFill;

static bool is_finite(float x)
{
    return (f32_bits(x) & 0x7f800000) != 0x7f800000;
}

static void find_not_finite(TensorFill *f, int64_t first, int64_t n, const real_t *x)
{
    bool all = true;
    for (int64_t i = 0; i < n; i++)
        all &= is_finite(x[i]);
    for (int64_t i = 0; !all && f->bad < 0 && i < n; i++)
        if (!is_finite(x[i])) {
            f->bad = first + i;
            f->bad_value = x[i];
        }
}

static void fill_from_file(void *ctx, int64_t first, int64_t n, real_t *dst)
{
    TensorFill *f = ctx;
    safetensors_read_f32(f->file, f->tensor, first, n, dst);
    find_not_finite(f, first, n, dst);
}

/* One nan makes every output nan: better said before the first step than by its loss. */
static int tensor_load(Tensor *w, const SafeTensors *file, const StTensor *t)
{
    TensorFill f = {file, t, -1, 0};
    param_store(w, fill_from_file, &f);
    if (f.bad < 0)
        return 0;
    int64_t cols = t->n_dims == 2 ? t->dim[1] : 1;
    char column[32] = "";
    if (t->n_dims == 2)
        snprintf(column, sizeof column, ", %lld", (long long)(f.bad % cols));
    return error_set(ERR_DATA, "%s: tensor %s: element [%lld%s] is %g, expected finite numbers; the file is "
                               "damaged or its training diverged",
                     file->path, t->name, (long long)(f.bad / cols), column, (double)f.bad_value);
}

/* A tied model may hold lm_head.weight too, if it is the embedding. */
static bool is_copy_of_embedding(const Weights *w, const SafeTensors *s, const StTensor *t)
{
    const SafeTensors *of = NULL;
    const StTensor *e = weights_find(w, "model.embed_tokens.weight", &of);
    return e && e->dtype == t->dtype && e->end - e->begin == t->end - t->begin &&
           !memcmp(of->data + e->begin, s->data + t->begin, t->end - t->begin);
}

/* Tensors that no parameter asks for are errors, but for those known to say nothing. */
static int extra_check_file(const ParamTable *t, const Weights *w, const SafeTensors *s, HeadInit head)
{
    for (int i = 0; i < s->n; i++) {
        const char *name = s->at[i].name;
        bool known = strstr(name, ".rotary_emb.inv_freq") != NULL; /* buffers in old files */
        for (int p = 0; p < t->n && !known; p++)
            known = !strcmp(t->def[p].hf_name, name);
        if (known)
            continue;
        if (!strcmp(name, "lm_head.weight") &&
            (head == HEAD_FRESH_SCALAR || (t->config.tied && is_copy_of_embedding(w, s, &s->at[i]))))
            continue;
        return error_set(ERR_DATA, "%s: tensor %s belongs to no parameter of this %s model%s",
                         s->path, name, t->config.architecture,
                         !strcmp(name, "lm_head.weight") && t->config.tied
                             ? ": tie_word_embeddings is true, but it differs from the embedding"
                             : "");
    }
    return 0;
}

static int extra_check(const ParamTable *t, const Weights *w, HeadInit head)
{
    int rc = 0;
    for (int i = 0; i < w->n_files && rc == 0; i++)
        rc = extra_check_file(t, w, &w->file[i], head);
    return rc;
}

/* It is not used here, but copied into every export, and a generator that reads a wrong end token never stops:
 * said now and not after the training. */
static int generation_config_check(const ModelConfig *c, const char *folder)
{
    int rc = 0;
    Json *root = NULL;
    char *path = path_join(folder, "generation_config.json");
    if (!file_is_there(path))
        goto fail;
    TRY(json_read_file(&root, path));
    if (json_kind(root) != JSON_OBJ) {
        rc = error_set(ERR_DATA, "%s: found %s, expected an object", path, json_kind_name(json_kind(root)));
        goto fail;
    }
    const Json *eos = json_get(root, "eos_token_id");
    bool list = json_kind(eos) == JSON_ARR;
    for (size_t i = 0; i < (list ? json_len(eos) : eos != NULL); i++) {
        const Json *id = list ? json_at(eos, i) : eos;
        if (json_kind(id) == JSON_NIL || (json_kind(id) == JSON_INT && json_int(id, 0) < c->V))
            continue;
        char *text = json_short(id);
        rc = error_set(ERR_DATA, "%s: eos_token_id is %s; expected a token id below vocab_size, %lld", path, text,
                       (long long)c->V);
        free(text);
        goto fail;
    }
fail:
    json_free(root);
    free(path);
    return rc;
}

int hf_load_params(ParamSet *p, const char *folder, HeadInit head, uint64_t seed)
{
    const ParamTable *t = p->table;
    CHECK(head == HEAD_AS_STORED || t->config.head == HEAD_SCALAR, "a fresh scalar head");
    Weights w = {0};
    const SafeTensors *file = NULL;
    int rc = 0;
    TRY(generation_config_check(&t->config, folder));
    TRY(weights_open(&w, folder));
    for (int i = 0; i < t->n; i++) {
        bool fresh = head == HEAD_FRESH_SCALAR && i == t->head;
        if (fresh || t->def[i].tied_to >= 0)
            continue;
        const StTensor *found = weights_find(&w, t->def[i].hf_name, &file);
        TRY(tensor_check(&t->def[i], found, found ? file->path : w.where));
    }
    TRY(extra_check(t, &w, head));
    for (int i = 0; i < t->n; i++) {
        if (t->def[i].tied_to >= 0)
            continue;
        if (head == HEAD_FRESH_SCALAR && i == t->head) {
            param_init_random(p, i, seed);
            continue;
        }
        const StTensor *found = weights_find(&w, t->def[i].hf_name, &file);
        TRY(tensor_load(&p->w[i], file, found));
    }
    params_refresh(p);
fail:
    weights_close(&w);
    return rc;
}
