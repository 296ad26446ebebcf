/* fuzz_model.c - any text as a config.json (behind a border: a generation_config.json): it is refused with a place in
 * the text, or what was read can be computed with, says the same printed in another form, and a model saved from it
 * reads back as itself, numbers and all. */
#include "tests/fuzz/fuzz.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/model/hf.h"
#include "common/runtime/device.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZES                                                                                                          \
    "\"vocab_size\":9,\"hidden_size\":8,\"intermediate_size\":12,\"num_hidden_layers\":1,\"num_attention_heads\":2"
#define SCALED                                                                                                         \
    "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"                             \
    "\"original_max_position_embeddings\":64,\"rope_theta\":5e5}"

static const char *const seeds[] = {
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\"," SIZES ",\"bos_token_id\":1,\"eos_token_id\":2,"
    "\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,\"rope_scaling\":null,\"hidden_act\":\"silu\",\"torch_dtype\":\"float16\","
    "\"tie_word_embeddings\":false,\"attention_bias\":false,\"mlp_bias\":false,\"max_position_embeddings\":64}" FUZZ_BORDER
    "{\"bos_token_id\":1,\"eos_token_id\":[2,3]}",
    "{\"architectures\":[\"LlamaForCausalLM\"]," SIZES ",\"rope_parameters\":" SCALED ",\"dtype\":\"bfloat16\","
    "\"eos_token_id\":[2,3,4],\"pad_token_id\":2,\"tie_word_embeddings\":true,\"num_key_value_heads\":1,\"head_dim\":6}",
    "{\"architectures\":[\"LlamaForCausalLM\"]," SIZES ",\"rope_theta\":5e5,\"rope_scaling\":" SCALED ",\"rope_parameters\":"
    SCALED ",\"attention_bias\":true}",
    "{\"architectures\":[\"LlamaForSequenceClassification\"]," SIZES ",\"id2label\":{\"0\":\"LABEL_0\"},\"num_labels\":1,"
    "\"pad_token_id\":0,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}",
    "{\"architectures\":[\"MistralForCausalLM\"],\"model_type\":\"mistral\"," SIZES ",\"num_key_value_heads\":2,"
    "\"sliding_window\":null}",
    "{\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"qwen2\"," SIZES ",\"num_key_value_heads\":1,"
    "\"use_sliding_window\":false,\"sliding_window\":32,\"layer_types\":[\"full_attention\"],\"max_window_layers\":1}",
    "{\"architectures\":[\"Qwen3ForCausalLM\"],\"model_type\":\"qwen3\"," SIZES ",\"num_key_value_heads\":2,\"head_dim\":4,"
    "\"partial_rotary_factor\":1,\"bos_token_id\":null}",
    /* to be refused: heads that do not divide, ids that are no row, a product beyond all memory */
    "{\"architectures\":[\"LlamaForCausalLM\"],\"vocab_size\":9,\"hidden_size\":9,\"intermediate_size\":12,"
    "\"num_hidden_layers\":1,\"num_attention_heads\":3,\"num_key_value_heads\":2,\"head_dim\":4,\"eos_token_id\":9}",
    "{\"architectures\":[\"LlamaForCausalLM\"]," SIZES ",\"eos_token_id\":9,\"bos_token_id\":9}",
    "{\"architectures\":[\"LlamaForCausalLM\"],\"vocab_size\":2147483647,\"hidden_size\":2147483646,\"intermediate_size\":"
    "2147483647,\"num_hidden_layers\":10000,\"num_attention_heads\":2}",
};

const char *const fuzz_words[] = {
    "null", "true", "false", "0", "1", "2", "3", "-1", "7", "64", "1.5", "1e3", "1e-300", "1e300", "2147483647", "2147483648",
    "9223372036854775807", "99999999999999999999", "\"1\"", "\"\"", "[]", "{}", "[1,2]", "[1,2,3,4,5,6,7,8,9]", "{\"0\":\"a\"}",
    "\"silu\"", "\"gelu\"", "\"default\"", "\"linear\"", "\"llama3\"", "\"yarn\"", "\"full_attention\"", "\"sliding_attention\"",
    "[\"LlamaForCausalLM\"]", "[\"Qwen2ForCausalLM\"]", "[\"Qwen3ForSequenceClassification\"]", "[\"GPT2LMHeadModel\"]",
    "\"llama\"", "\"architectures\":", "\"vocab_size\":", "\"hidden_size\":", "\"intermediate_size\":", "\"num_hidden_layers\":",
    "\"num_attention_heads\":", "\"num_key_value_heads\":", "\"head_dim\":", "\"rope_theta\":", "\"rope_scaling\":",
    "\"rope_parameters\":", "\"rope_type\":", "\"factor\":", "\"sliding_window\":", "\"use_sliding_window\":", "\"layer_types\":",
    "\"id2label\":", "\"num_labels\":", "\"attention_bias\":", "\"tie_word_embeddings\":", "\"eos_token_id\":", "\"pad_token_id\":",
    "\"quantization_config\":", "\"partial_rotary_factor\":", "{", "}", "[", "]", ",", ":", "\"", "\\u0000", "\xef\xbb\xbf",
    "\n", FUZZ_BORDER, NULL,
};

bool fuzz_seed(int k, Str *out)
{
    return fuzz_seed_text(seeds, sizeof seeds / sizeof *seeds, k, out);
}

/* All that the file says; the padding of a scalar model is chosen anew when it is saved. */
static void describe(const ModelConfig *c, bool with_pad, Str *out)
{
    str_addf(out, "%s %d C %lld F %lld V %lld L %lld H %lld K %lld D %lld at most %lld", c->architecture, c->head,
             (long long)c->C, (long long)c->F, (long long)c->V, (long long)c->L, (long long)c->H, (long long)c->K,
             (long long)c->D, (long long)c->max_position);
    str_addf(out, " eps %a theta %a tied %d rope %d %a %a %a %a flags %d %d %d bos %d pad %d eos", c->norm_eps,
             c->rope_theta, c->tied, c->rope.kind, c->rope.factor, c->rope.low_freq, c->rope.high_freq,
             c->rope.original_max_position, c->qkv_bias, c->o_bias, c->qk_norm, c->bos, with_pad ? c->pad : 0);
    for (int i = 0; i < c->n_eos; i++)
        str_addf(out, " %d", c->eos[i]);
    str_add(out, "\n");
}

static void check_config(const ModelConfig *c)
{
    const int64_t sizes[] = {c->C, c->F, c->V, c->L, c->H, c->K, c->D, c->max_position};
    const double numbers[] = {c->norm_eps, c->rope_theta};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        CHECK(sizes[i] >= 1 && sizes[i] <= INT32_MAX, "size %zu is %lld", i, (long long)sizes[i]);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        CHECK((float)numbers[i] > 0 && isfinite((float)numbers[i]), "number %zu is %g", i, numbers[i]);
    CHECK(c->H % c->K == 0 && c->D % 2 == 0, "heads %lld, %lld of %lld", (long long)c->H, (long long)c->K, (long long)c->D);
    CHECK(c->rope.kind == ROPE_DEFAULT || (float)c->rope.factor > 0, "factor %g", c->rope.factor);
    for (int i = -1; i < c->n_eos; i++)
        CHECK((i < 0 ? c->bos : c->eos[i]) < c->V, "an id beyond the vocabulary");
    const double bytes = 16.0 * (2.0 * (double)c->V * (double)c->C + (double)c->L * (double)c->C * (double)c->F);
    CHECK(bytes < 0x1p60, "%g bytes", bytes);
}

/* ---- a model of it */

typedef struct {
    ParamTable table;
    Arena arena;
    ParamSet params;
} Weight;

static void weight_open(Weight *w, const ModelConfig *c, Device *dev)
{
    memset(w, 0, sizeof *w);
    param_table_init(&w->table, c, DTYPE_REAL, false);
    arena_init(&w->arena, dev, ARENA_DEVICE, "model");
    params_alloc(&w->params, &w->table, &w->arena, "policy", false);
    CHECK(arena_commit(&w->arena) == 0, "%s", error_text());
    params_alloc(&w->params, &w->table, &w->arena, "policy", false);
}

static void weight_close(Weight *w)
{
    params_free(&w->params);
    param_table_free(&w->table);
    arena_free(&w->arena);
}

static void save_and_read(const ModelConfig *c, Device *dev)
{
    const char *saved = fuzz_path("saved");
    Weight a, b;
    ModelConfig back;
    Str was = {0}, is = {0};
    weight_open(&a, c, dev);
    params_init_random(&a.params, 1);
    CHECK(hf_save(&a.params, saved, fuzz_path("model"), (HfFormat){ST_F32, 0}, NULL, 0) == 0, "%s", error_text());
    CHECK(model_config_read(&back, saved) == 0, "saved: %s", error_text());
    describe(c, c->head == HEAD_LM, &was);
    describe(&back, c->head == HEAD_LM, &is);
    CHECK(!strcmp(was.s, is.s), "saved\n%sread back\n%s", was.s, is.s);
    CHECK(c->head == HEAD_LM || (back.pad >= 0 && back.pad < back.V), "padding %d", back.pad);
    weight_open(&b, &back, dev);
    CHECK(hf_load_params(&b.params, saved, HEAD_AS_STORED, 0) == 0, "saved: %s", error_text());
    for (int i = 0; i < a.table.n; i++)
        CHECK(!memcmp(a.params.w[i].data, b.params.w[i].data, tensor_bytes(&a.params.w[i])), "%s is another one",
              a.table.def[i].name);
    weight_close(&a);
    weight_close(&b);
    str_free(&was);
    str_free(&is);
}

static bool is_small(const ModelConfig *c)
{
    return c->C <= 32 && c->F <= 32 && c->V <= 64 && c->L <= 2 && c->H <= 8 && c->D <= 16;
}

/* ---- the whole */

/* "FILE:LINE:COLUMN: " with a place in the text. */
static void check_place(const char *path, FuzzPart text)
{
    long long line, column, lines = 1;
    CHECK(sscanf(error_text() + strlen(path), ":%lld:%lld: ", &line, &column) == 2, "no place: %s", error_text());
    for (size_t i = 0; i < text.n; i++)
        lines += text.s[i] == '\n';
    CHECK(line >= 1 && line <= lines && column >= 1 && column <= (long long)text.n + 2, "place: %s", error_text());
}

/* The same values in another text. */
static void check_printed(FuzzPart text, const ModelConfig *c)
{
    Json *j;
    Str printed = {0}, was = {0}, is = {0};
    JsonWriter w;
    ModelConfig again;
    CHECK(json_parse(&j, text.s, text.n, "text", 1) == 0, "%s", error_text());
    jw_init(&w, &printed, true);
    jw_json(&w, j);
    fuzz_put("printed/config.json", printed.s, printed.n);
    CHECK(model_config_read(&again, fuzz_path("printed")) == 0, "printed: %s", error_text());
    describe(c, true, &was);
    describe(&again, true, &is);
    CHECK(!strcmp(was.s, is.s), "%sprinted\n%s", was.s, is.s);
    json_free(j);
    str_free(&printed);
    str_free(&was);
    str_free(&is);
}

static void run(const uint8_t *data, size_t n, Str *out)
{
    static Device *dev;
    FuzzPart part[2] = {{"", 0}, {"", 0}};
    ModelConfig c;
    fuzz_parts(part, 2, data, n);
    if (!dev)
        CHECK(device_open(&dev, &(DeviceOptions){.name = "cpu", .threads = 1}) == 0, "%s", error_text());
    fuzz_put("model/config.json", part[0].s, part[0].n);
    if (part[1].n)
        fuzz_put("model/generation_config.json", part[1].s, part[1].n);
    else
        fuzz_put_nothing("model/generation_config.json");
    int rc = model_config_read(&c, fuzz_path("model"));
    if (rc < 0) {
        fuzz_refused(rc, fuzz_path("model/config.json"), out);
        check_place(fuzz_path("model/config.json"), part[0]);
        return;
    }
    check_config(&c);
    describe(&c, true, out);
    check_printed(part[0], &c);
    if (!is_small(&c) || n % 4)
        return;
    Weight w;
    weight_open(&w, &c, dev);
    rc = hf_load_params(&w.params, fuzz_path("model"), HEAD_AS_STORED, 0); /* a folder without weights */
    fuzz_refused(rc, fuzz_path("model"), out);
    weight_close(&w);
    if (!strstr(error_text(), "generation_config.json"))
        save_and_read(&c, dev);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    fuzz_twice(run, data, n);
    return 0;
}
