/* model_folder.h - a folder of the smallest model, good until a test bends one of its files, and the way every program
 * opens it: tokenizer, config.json, the two against each other, weights. */
#ifndef RLHF_TEST_MODEL_FOLDER_H
#define RLHF_TEST_MODEL_FOLDER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/model/hf.h"
#include "common/runtime/device.h"
#include "common/text/tokenizer.h"
#include "tests/unit/scratch_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static Device *folder_dev;

static const char good_config[] = "{\n"
                                  "  \"architectures\": [\"LlamaForCausalLM\"],\n"
                                  "  \"model_type\": \"llama\",\n"
                                  "  \"vocab_size\": 8,\n"
                                  "  \"hidden_size\": 8,\n"
                                  "  \"intermediate_size\": 12,\n"
                                  "  \"num_hidden_layers\": 1,\n"
                                  "  \"num_attention_heads\": 2,\n"
                                  "  \"num_key_value_heads\": 1,\n"
                                  "  \"head_dim\": 4,\n"
                                  "  \"hidden_act\": \"silu\",\n"
                                  "  \"rms_norm_eps\": 1e-05,\n"
                                  "  \"rope_theta\": 10000.0,\n"
                                  "  \"max_position_embeddings\": 32,\n"
                                  "  \"tie_word_embeddings\": false,\n"
                                  "  \"bos_token_id\": 0,\n"
                                  "  \"eos_token_id\": 1\n"
                                  "}\n";
static const char good_tokenizer[] =
    "{\"added_tokens\": [{\"id\": 0, \"content\": \"<s>\", \"special\": true}, {\"id\": 1, \"content\": \"</s>\", "
    "\"special\": true}],\n"
    " \"model\": {\"type\": \"BPE\", \"unk_token\": \"<unk>\",\n"
    "  \"vocab\": {\"<s>\": 0, \"</s>\": 1, \"a\": 2, \"b\": 3, \"c\": 4, \"ab\": 5, \"abc\": 6, \"<unk>\": 7},\n"
    "  \"merges\": [\"a b\", \"ab c\"]}}\n";
static const char good_generation[] = "{\"bos_token_id\": 0, \"eos_token_id\": [1, 2]}\n";
static const char good_tokenizer_config[] = "{\"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"</s>\"}}\n";

static const struct {
    const char *name;
    int rows, cols; /* cols 0: a vector */
} good_tensors[] = {
    {"model.embed_tokens.weight", 8, 8},
    {"model.layers.0.input_layernorm.weight", 8, 0},
    {"model.layers.0.self_attn.q_proj.weight", 8, 8},
    {"model.layers.0.self_attn.k_proj.weight", 4, 8},
    {"model.layers.0.self_attn.v_proj.weight", 4, 8},
    {"model.layers.0.self_attn.o_proj.weight", 8, 8},
    {"model.layers.0.post_attention_layernorm.weight", 8, 0},
    {"model.layers.0.mlp.gate_proj.weight", 12, 8},
    {"model.layers.0.mlp.up_proj.weight", 12, 8},
    {"model.layers.0.mlp.down_proj.weight", 8, 12},
    {"model.norm.weight", 8, 0},
    {"lm_head.weight", 8, 8},
};
enum { GOOD_TENSORS = sizeof good_tensors / sizeof *good_tensors };

static void folder_put(const char *name, const void *bytes, size_t n)
{
    assert_int_equal(dir_remove(name), 0);
    if (file_write_atomic(name, bytes, n) < 0)
        fail_msg("%s", error_text());
}

/* Tensors [from, to) as F32: a header in the order of good_tensors, and their bytes, element i being i / 64. */
static void good_weights(int from, int to, Str *header, Str *data)
{
    str_add(header, "{");
    for (int t = from; t < to; t++) {
        const int rows = good_tensors[t].rows, cols = good_tensors[t].cols;
        const size_t begin = data->n;
        for (int i = 0; i < rows * (cols ? cols : 1); i++) {
            const float x = (float)i / 64;
            str_add_bytes(data, &x, sizeof x);
        }
        str_addf(header, "%s\"%s\": {\"dtype\": \"F32\", \"shape\": [%d", t > from ? ", " : "",
                 good_tensors[t].name, rows);
        if (cols)
            str_addf(header, ", %d", cols);
        str_addf(header, "], \"data_offsets\": [%zu, %zu]}", begin, data->n);
    }
    str_add(header, "}");
}

static void put_weights(const char *name, const Str *header, const Str *data)
{
    Str file = {0};
    uint64_t n = header->n;
    str_add_bytes(&file, &n, sizeof n);
    str_add_bytes(&file, header->s, header->n);
    str_add_bytes(&file, data->s, data->n);
    folder_put(name, file.s, file.n);
    str_free(&file);
}

static void put_good_weights(const char *name, int from, int to)
{
    Str header = {0}, data = {0};
    good_weights(from, to, &header, &data);
    put_weights(name, &header, &data);
    str_free(&header);
    str_free(&data);
}

static void put_good_folder(void)
{
    folder_put("config.json", good_config, strlen(good_config));
    folder_put("tokenizer.json", good_tokenizer, strlen(good_tokenizer));
    folder_put("tokenizer_config.json", good_tokenizer_config, strlen(good_tokenizer_config));
    folder_put("generation_config.json", good_generation, strlen(good_generation));
    put_good_weights("model.safetensors", 0, GOOD_TENSORS);
}

/* `text` with `put` in the place of its first `find`; with NULL for `find`: `put` alone. */
static void edited(const char *text, const char *find, const char *put, Str *out)
{
    if (!find) {
        str_add(out, put);
        return;
    }
    const char *at = strstr(text, find);
    if (!at)
        fail_msg("nothing to replace: %s", find);
    str_add_bytes(out, text, (size_t)(at - text));
    str_add(out, put);
    str_add(out, at + strlen(find));
}

static int load_weights(const ModelConfig *c)
{
    ParamTable table;
    Arena arena;
    ParamSet p = {0};
    param_table_init(&table, c, DTYPE_REAL, false);
    arena_init(&arena, folder_dev, ARENA_DEVICE, "model");
    params_alloc(&p, &table, &arena, "policy", false);
    int rc = arena_commit(&arena);
    if (rc == 0) {
        params_alloc(&p, &table, &arena, "policy", false);
        rc = hf_load_params(&p, ".", HEAD_AS_STORED, 0);
    }
    params_free(&p);
    param_table_free(&table);
    arena_free(&arena);
    return rc;
}

/* Opens the folder as programs do. */
static int folder_load(void)
{
    ModelConfig c;
    Tokenizer *t = NULL;
    int rc;
    TRY(model_config_read(&c, "."));
    TRY(tokenizer_open(&t, "."));
    TRY(tokenizer_check_vocab(t, ".", c.V));
    TRY(load_weights(&c));
fail:
    tokenizer_close(t);
    return rc;
}

/* The folder is refused with this code and a message that begins so behind "./". */
static void assert_refused(const char *what, int code, const char *message)
{
    const int rc = folder_load();
    const size_t n = strlen(message);
    if (rc != code || strncmp(error_text(), "./", 2) || strncmp(error_text() + 2, message, n))
        fail_msg("%s\nfound    %d %s\nexpected %d ./%s", what, rc, rc ? error_text() : "accepted", code, message);
}

static int folder_enter(void **state)
{
    const DeviceOptions o = {.name = "cpu", .threads = 1};
    if (enter(state) < 0 || device_open(&folder_dev, &o) < 0)
        return -1;
    put_good_folder();
    if (folder_load() == 0)
        return 0;
    print_error("the good folder: %s\n", error_text());
    return -1;
}

static int folder_leave(void **state)
{
    device_close(folder_dev);
    return leave(state);
}

#endif
