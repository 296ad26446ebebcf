/* test_hf.c - Hugging Face folders: config dialects and refusals, loading, saving, what a reward
 * model's folder holds. */
#include "tests/unit/model_fixture.h"

#include "common/base/file.h"
#include "common/model/safetensors.h"

#include <stdio.h>
#include <unistd.h>

static char root[64];

static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/test_hf.%d", (int)getpid());
    return dir_make(root);
}

static int teardown(void **state)
{
    (void)state;
    return dir_remove(root);
}

static char *at(const char *name)
{
    static char text[4][256];
    static int next;
    char *t = text[next++ % 4];
    snprintf(t, sizeof text[0], "%s/%s", root, name);
    return t;
}

/* ---- config.json ---------------------------------------------------------------------------- */

#define BASE                                                                                       \
    "\"vocab_size\": 64, \"hidden_size\": 32, \"intermediate_size\": 48, \"num_hidden_layers\": "  \
    "2, "                                                                                          \
    "\"num_attention_heads\": 4"
#define CAUSAL "{\"architectures\": [\"LlamaForCausalLM\"], " BASE

#define FAMILY(name, more)                                                                         \
    "{\"architectures\": [\"" name "ForCausalLM\"], \"num_key_value_heads\": 2, " more ", " BASE "}"

static int config_of(ModelConfig *c, const char *text)
{
    assert_int_equal(file_write_atomic(at("config.json"), text, strlen(text)), 0);
    return model_config_read(c, root);
}

static void config_dialects(void **state)
{
    (void)state;
    ModelConfig c;
    assert_int_equal(config_of(&c, CAUSAL "}"), 0);
    assert_string_equal(c.architecture, "Llama");
    assert_true(c.head == HEAD_LM && c.K == 4 && c.D == 8 && c.max_position == 2048 && !c.tied);
    assert_true(c.norm_eps == 1e-6 && c.rope_theta == 10000);
    assert_true(c.bos == -1 && c.pad == -1 && c.n_eos == 0);

    assert_int_equal(config_of(&c, CAUSAL
                               ", \"rope_theta\": 5e5, \"rope_scaling\": null, \"head_dim\": 6, "
                               "\"num_key_value_heads\": 2, \"eos_token_id\": [2, 7], "
                               "\"pad_token_id\": null, \"bos_token_id\": 1, "
                               "\"tie_word_embeddings\": true, \"sliding_window\": null}"),
                     0);
    assert_true(c.rope_theta == 5e5 && c.D == 6 && c.K == 2 && c.tied && c.bos == 1);
    assert_true(c.n_eos == 2 && c.eos[1] == 7);

    assert_int_equal(config_of(&c, CAUSAL ", \"rope_parameters\": {\"rope_type\": \"default\", "
                                          "\"rope_theta\": 777}, \"dtype\": \"bfloat16\"}"),
                     0);
    assert_true(c.rope_theta == 777);

    assert_int_equal(
        config_of(&c, "{\"architectures\": [\"LlamaForSequenceClassification\"], \"id2label\": "
                      "{\"0\": \"LABEL_0\"}, " BASE "}"),
        0);
    assert_true(c.head == HEAD_SCALAR);
}

static void config_families(void **state)
{
    (void)state;
    ModelConfig c;
    assert_int_equal(config_of(&c, CAUSAL ", \"attention_bias\": true}"), 0);
    assert_true(c.qkv_bias && c.o_bias && !c.qk_norm && c.rope.kind == ROPE_DEFAULT);
    assert_int_equal(config_of(&c, FAMILY("Mistral", "\"sliding_window\": null, \"model_type\": \"mistral\"")), 0);
    assert_true(!c.qkv_bias && !c.o_bias && !c.qk_norm && c.D == 8 && c.K == 2);
    assert_string_equal(c.architecture, "Mistral");
    assert_int_equal(config_of(&c, FAMILY("Qwen2", "\"use_sliding_window\": false, \"sliding_window\": 32768, "
                                                   "\"max_window_layers\": 21")),
                     0);
    assert_true(c.qkv_bias && !c.o_bias && !c.qk_norm);
    assert_int_equal(config_of(&c, FAMILY("Qwen3", "\"head_dim\": 16, \"attention_bias\": false, \"layer_types\": "
                                                   "[\"full_attention\", \"full_attention\"]")),
                     0);
    assert_true(!c.qkv_bias && !c.o_bias && c.qk_norm && c.D == 16);

#define LLAMA3                                                                                     \
    "{\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, " \
    "\"original_max_position_embeddings\": 8192, \"rope_theta\": 7e5}"
    static const char *const dialects[] = {CAUSAL ", \"rope_theta\": 7e5, \"rope_scaling\": " LLAMA3 "}",
                                           CAUSAL ", \"rope_parameters\": " LLAMA3 "}"};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(config_of(&c, dialects[i]), 0);
        assert_true(c.rope.kind == ROPE_LLAMA3 && c.rope.factor == 8 && c.rope.low_freq == 1);
        assert_true(c.rope.high_freq == 4 && c.rope.original_max_position == 8192 && c.rope_theta == 7e5);
    }
}

static void config_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text, *named;
    } cases[] = {
        {"[1]", "object"},
        {"{" BASE "}", "architectures"},
        {"{\"architectures\": [\"GPT2LMHeadModel\"], " BASE "}", "GPT2LMHeadModel"},
        {"{\"architectures\": [\"LlamaForSequenceClassification\"], " BASE "}", "id2label"},
        {"{\"architectures\": [\"LlamaForSequenceClassification\"], \"id2label\": {\"0\": \"a\", "
         "\"1\": \"b\"}, " BASE "}",
         "one label"},
        {"{\"architectures\": [\"LlamaForCausalLM\"], \"vocab_size\": 64}",
         "hidden_size is missing"},
        {CAUSAL ", \"mlp_bias\": true}", "mlp_bias"},
        {CAUSAL ", \"sliding_window\": 4096}", "sliding_window is 4096"},
        {CAUSAL ", \"quantization_config\": {}}", "quantization_config"},
        {CAUSAL ", \"hidden_act\": \"gelu\"}", "gelu"},
        {CAUSAL ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2}}", "yarn"},
        {CAUSAL ", \"rope_scaling\": {\"factor\": 2}}", "supported rope_type"},
        {CAUSAL ", \"rope_scaling\": {\"type\": \"linear\"}}", "factor is missing"},
        {CAUSAL ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 0}}", "factor is 0"},
        {CAUSAL ", \"rope_parameters\": {\"rope_type\": \"llama3\", \"factor\": 8}}", "low_freq_factor is missing"},
        {CAUSAL ", \"rope_parameters\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, "
                "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 16}}",
         "must be above low_freq_factor"},
        {"{\"architectures\": [\"MistralForCausalLM\"], " BASE "}", "num_key_value_heads is missing"},
        {FAMILY("Mistral", "\"sliding_window\": 4096"), "sliding_window is 4096"},
        {FAMILY("Mistral", "\"attention_bias\": true"), "attention_bias is true"},
        {FAMILY("Qwen2", "\"use_sliding_window\": true"), "use_sliding_window is true"},
        {FAMILY("Qwen2", "\"layer_types\": [\"full_attention\", \"sliding_attention\"]"), "layer_types"},
        {FAMILY("Qwen2", "\"model_type\": \"llama\""), "model_type is \"llama\""},
        {FAMILY("Qwen3", "\"tie_word_embeddings\": true"), "head_dim is missing"},
        {FAMILY("Qwen4", "\"head_dim\": 8"), "Qwen4ForCausalLM"},
        {CAUSAL ", \"partial_rotary_factor\": 0.5}", "partial_rotary_factor"},
        {CAUSAL ", \"num_key_value_heads\": 3}", "num_key_value_heads 3"},
        {CAUSAL ", \"head_dim\": 7}", "head_dim 7 is odd"},
        {CAUSAL ", \"rms_norm_eps\": 0}", "rms_norm_eps is 0"},
        {CAUSAL ", \"rope_theta\": \"big\"}", "rope_theta"},
        {CAUSAL ", \"eos_token_id\": 64}", "eos_token_id 64"},
        {CAUSAL ", \"eos_token_id\": \"</s>\"}", "eos_token_id"},
        {CAUSAL ", \"max_position_embeddings\": 0}", "max_position_embeddings is 0"},
    };
    ModelConfig c;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (config_of(&c, cases[i].text) != ERR_DATA || !strstr(error_text(), cases[i].named) ||
            !strstr(error_text(), "config.json"))
            fail_msg("%s: \"%s\"", cases[i].text, error_text());
    assert_int_equal(model_config_read(&c, at("nowhere")), ERR_NOINPUT);
}

/* ---- weights -------------------------------------------------------------------------------- */

static void params_equal(const Fixture *a, const Fixture *b, int but)
{
    for (int i = 0; i < a->m.table.n; i++)
        if (i != but)
            assert_memory_equal(a->p.w[i].data, b->p.w[i].data, tensor_bytes(&a->p.w[i]));
}

static void save_and_load(void **state)
{
    (void)state;
    static const char *const models[] = {"gqa_tied", "gqa_untied", "score"};
    for (int i = 0; i < 3; i++) {
        char base[128], hash[2][33];
        snprintf(base, sizeof base, "tests/golden/model/%s", models[i]);
        Fixture f = {0}, g = {0};
        fixture_open(&f, base, 1, 8);
        for (int again = 0; again < 2; again++) { /* the second save replaces the first */
            if (hf_save(&f.p, at("saved/"), base, (HfFormat){ST_F32, 0}, NULL, 0) < 0)
                fail_msg("%s", error_text());
            assert_int_equal(hf_hash(at("saved"), hash[again]), 0);
        }
        assert_string_equal(hash[0], hash[1]);
        assert_true(hf_has_weights(at("saved")) && !file_exists(at("saved.tmp")));
        fixture_open(&g, at("saved"), 1, 8);
        params_equal(&f, &g, -1);
        fixture_close(&g);

        /* weights that are bf16 already survive bf16 */
        assert_int_equal(hf_save(&f.p, at("bf16"), base, (HfFormat){ST_BF16, 0}, NULL, 0), 0);
        fixture_open(&g, at("bf16"), 1, 8);
        if (i)
            params_equal(&f, &g, -1);
        assert_true(file_bytes(at("bf16/model.safetensors")) <
                    file_bytes(at("saved/model.safetensors")) * 2 / 3);
        fixture_close(&g);
        fixture_close(&f);
    }
}

static void scalar_from_causal(void **state)
{
    (void)state;
    for (int tied = 0; tied < 2; tied++) {
        const char *base = tied ? "tests/golden/model/gqa_tied" : "tests/golden/model/gqa_untied";
        Fixture f = {0}, g = {0};
        if (model_config_read(&f.config, base) < 0)
            fail_msg("%s", error_text());
        f.config.head = HEAD_SCALAR;
        fixture_open(&f, NULL, 1, 8);
        memset(f.p.w[f.m.table.head].data, 0, tensor_bytes(&f.p.w[f.m.table.head]));
        assert_int_equal(hf_load_params(&f.p, base, HEAD_FRESH_SCALAR, 3), 0);
        float score[32], again[32];
        double squares = 0;
        param_fetch(&f.p.w[f.m.table.head], 0, 32, score);
        for (int i = 0; i < 32; i++)
            squares += (double)score[i] * score[i];
        /* 32 / 33 in the mean; its standard deviation is sqrt(2 * 32) / 33 = 0.24 */
        assert_true(squares > 0.97 - 4 * 0.24 && squares < 0.97 + 4 * 0.24);
        assert_int_equal(hf_load_params(&f.p, base, HEAD_FRESH_SCALAR, 4), 0);
        param_fetch(&f.p.w[f.m.table.head], 0, 32, again);
        assert_memory_not_equal(score, again, sizeof score);

        HfExtra extra[] = {{"rlhf_calibration", "{\"anchored\": true, \"at\": [1, 2.5]}"}};
        assert_int_equal(hf_save(&f.p, at("rm"), base, (HfFormat){ST_F32, 0}, extra, 1), 0);
        fixture_open(&g, at("rm"), 1, 8);
        assert_true(g.config.head == HEAD_SCALAR);
        assert_true(g.config.pad == 0 && g.config.eos[0] == 2); /* not the eos: it counts */
        params_equal(&f, &g, -1);
        fixture_close(&g);

        Json *j = NULL;
        assert_int_equal(hf_read_extra(at("rm"), "rlhf_calibration", &j), 0);
        assert_true(json_bool(json_get(j, "anchored"), false));
        assert_true(json_num(json_at(json_get(j, "at"), 1), 0) == 2.5);
        json_free(j);
        assert_int_equal(hf_read_extra(at("rm"), "nothing", &j), 0);
        assert_null(j);
        assert_int_equal(json_read_file(&j, at("rm/config.json")), 0);
        assert_string_equal(json_str(json_get(j, "problem_type")), "regression");
        assert_string_equal(json_str(json_get(json_get(j, "id2label"), "0")), "LABEL_0");
        assert_int_equal(json_int(json_get(json_get(j, "label2id"), "LABEL_0"), -1), 0);
        assert_string_equal(json_str(json_get(j, "transformers_version")), "4.46.3"); /* kept */
        json_free(j);
        SafeTensors s;
        assert_int_equal(safetensors_open(&s, at("rm/model.safetensors")), 0);
        assert_non_null(safetensors_find(&s, "score.weight"));
        assert_non_null(safetensors_find(&s, "model.embed_tokens.weight"));
        assert_null(safetensors_find(&s, "lm_head.weight"));
        safetensors_close(&s);

        /* a causal folder holds no score */
        assert_int_equal(hf_load_params(&f.p, base, HEAD_AS_STORED, 0), ERR_DATA);
        assert_non_null(strstr(error_text(), "score.weight (1, 32) is missing"));
        fixture_close(&f);
    }
}

static void keys_and_files(void **state)
{
    (void)state;
    const char *config =
        CAUSAL ", \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 777}, "
               "\"dtype\": \"bfloat16\", \"pad_token_id\": 2, \"eos_token_id\": [2, 3], "
               "\"bos_token_id\": 1, \"x\": {\"kept\": [1e30, null]}}";
    const char *tokenizer = "{\"added_tokens\": [{\"id\": 5, \"content\": \"<unk>\"}]}\n\n";
    const char *words = "{\"pad_token\": \"</s>\",\"eos_token\": {\"content\": \"</s>\"}, \"model_max_length\": 1e30}";
    Fixture f = {0};
    Json *j;
    char *text;
    size_t n;
    assert_int_equal(dir_make(at("base")), 0);
    assert_int_equal(file_write_atomic(at("base/config.json"), config, strlen(config)), 0);
    assert_int_equal(file_write_atomic(at("base/tokenizer.json"), tokenizer, strlen(tokenizer)), 0);
    assert_int_equal(file_write_atomic(at("base/tokenizer_config.json"), words, strlen(words)), 0);
    assert_false(hf_has_weights(at("base")));
    assert_int_equal(model_config_read(&f.config, at("base")), 0);
    f.config.head = HEAD_SCALAR;
    fixture_open(&f, NULL, 1, 8);
    assert_int_equal(hf_load_params(&f.p, at("base"), HEAD_AS_STORED, 0), ERR_NOINPUT);
    assert_int_equal(hf_save(&f.p, at("new"), at("base"), (HfFormat){ST_F32, 0}, NULL, 0), 0);
    assert_int_equal(file_read(at("new/tokenizer.json"), &text, &n), 0);
    assert_int_equal(n, strlen(tokenizer));
    assert_memory_equal(text, tokenizer, n);
    free(text);
    assert_int_equal(json_read_file(&j, at("new/config.json")), 0);
    assert_true(json_num(json_get(j, "rope_theta"), 0) == 777); /* for transformers 4 */
    assert_string_equal(json_str(json_get(j, "dtype")), "float32");
    assert_string_equal(json_str(json_get(j, "torch_dtype")), "float32");
    assert_int_equal(json_int(json_get(j, "pad_token_id"), -1), 5); /* 2 is an eos, <unk> is not */
    assert_true(json_num(json_at(json_get(json_get(j, "x"), "kept"), 0), 0) == 1e30);
    json_free(j);
    assert_int_equal(json_read_file(&j, at("new/tokenizer_config.json")), 0); /* pads with that too */
    assert_string_equal(json_str(json_get(j, "pad_token")), "<unk>");
    assert_string_equal(json_str(json_get(json_get(j, "eos_token"), "content")), "</s>");
    assert_true(json_num(json_get(j, "model_max_length"), 0) == 1e30);
    assert_false(file_exists(at("new/special_tokens_map.json")));
    json_free(j);
    assert_int_equal(json_read_file(&j, at("new/generation_config.json")), 0);
    assert_int_equal(json_len(json_get(j, "eos_token_id")), 2);
    json_free(j);
    assert_int_equal(hf_save(&f.p, "/proc/nothing/x", at("base"), (HfFormat){ST_F32, 0}, NULL, 0), ERR_CANTCREATE);
    fixture_close(&f);
}

/* A piece as on the wire of a tokenizer.model. */
static void piece_add(Str *out, char type, const char *text)
{
    const size_t n = strlen(text);
    const float score = 0;
    const char head[] = {0x0A, (char)(9 + n), 0x0A, (char)n}, tail[] = {0x18, type};
    str_add_bytes(out, head, sizeof head);
    str_add_bytes(out, text, n);
    str_add(out, "\x15");
    str_add_bytes(out, &score, sizeof score);
    str_add_bytes(out, tail, sizeof tail);
}

/* A folder with a tokenizer.model alone: its padding, its unknown piece; never an id that is no row. */
static void pad_of_tokenizer_model(void **state)
{
    (void)state;
    static const struct {
        const char *pad; /* in config.json: an eos, an id beyond the 64 rows, or a good one */
        bool padding;    /* the model has a piece for it */
        const char *added;
        int64_t want;
    } cases[] = {{"2", true, NULL, 4}, {"2", false, NULL, 3}, {"64", true, NULL, 4}, {"5", true, NULL, 5},
                 {"2", false, "{\"added_tokens_decoder\": {\"9\": {\"content\": \"[PAD]\", \"special\": true}}}", 9}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Str model = {0};
        Fixture f = {0};
        Json *j;
        char *config = xasprintf(CAUSAL ", \"bos_token_id\": 1, \"eos_token_id\": 2, \"pad_token_id\": %s}", cases[i].pad);
        piece_add(&model, 1, "x");
        piece_add(&model, 3, "<s>");
        piece_add(&model, 3, "</s>");
        piece_add(&model, 2, "<unk>");
        if (cases[i].padding)
            piece_add(&model, 3, "<pad>");
        str_add(&model, "\x12\x02\x18\x02"); /* trainer_spec.model_type: BPE */
        assert_int_equal(dir_remove(at("spm")), 0);
        assert_int_equal(dir_make(at("spm")), 0);
        assert_int_equal(file_write_atomic(at("spm/config.json"), config, strlen(config)), 0);
        assert_int_equal(file_write_atomic(at("spm/tokenizer.model"), model.s, model.n), 0);
        if (cases[i].added)
            assert_int_equal(file_write_atomic(at("spm/tokenizer_config.json"), cases[i].added, strlen(cases[i].added)), 0);
        assert_int_equal(model_config_read(&f.config, at("spm")), 0);
        f.config.head = HEAD_SCALAR;
        fixture_open(&f, NULL, 1, 8);
        assert_int_equal(hf_save(&f.p, at("spm_new"), at("spm"), (HfFormat){ST_F32, 0}, NULL, 0), 0);
        assert_int_equal(json_read_file(&j, at("spm_new/config.json")), 0);
        assert_int_equal(json_int(json_get(j, "pad_token_id"), -1), cases[i].want);
        json_free(j);
        if (cases[i].added) { /* and the tokenizer's own file says the same */
            assert_int_equal(json_read_file(&j, at("spm_new/tokenizer_config.json")), 0);
            assert_string_equal(json_str(json_get(j, "pad_token")), "[PAD]");
            json_free(j);
        }
        fixture_close(&f);
        str_free(&model);
        free(config);
    }
}

/* ---- folders that contradict themselves ----------------------------------------------------- */

typedef struct {
    const char *skip, *rename_to, *shape_of; /* of what a copy leaves out, adds, bends */
} Bend;

static void zeros(void *ctx, int index, int64_t first, int64_t n, float *dst)
{
    (void)ctx, (void)index, (void)first;
    memset(dst, 0, (size_t)n * sizeof *dst);
}

/* Writes gqa_untied's tensors, all zeros, bent. */
static void bent_write(const ParamTable *t, Bend b)
{
    StSource sources[64];
    int n = 0;
    for (int i = 0; i < t->n; i++) {
        const ParamDef *d = &t->def[i];
        sources[n] = (StSource){.name = d->hf_name,
                                .dtype = ST_F32,
                                .n_dims = d->dim[1] ? 2 : 1,
                                .dim = {d->dim[0], d->dim[1]},
                                .fill = zeros};
        if (b.shape_of && !strcmp(b.shape_of, d->hf_name))
            sources[n].dim[0]++;
        if (!b.skip || strcmp(b.skip, d->hf_name))
            n++;
        else if (b.rename_to)
            sources[n++].name = b.rename_to;
    }
    if (!b.skip && b.rename_to)
        sources[n++] = (StSource){
            .name = b.rename_to, .dtype = ST_F32, .n_dims = 1, .dim = {1}, .fill = zeros};
    assert_int_equal(dir_make(at("bent")), 0);
    assert_int_equal(safetensors_write(at("bent/model.safetensors"), sources, n), 0);
}

static void contradictions(void **state)
{
    (void)state;
    static const struct {
        Bend bend;
        const char *named;
    } cases[] = {
        {{"model.norm.weight", NULL, NULL}, "model.norm.weight (32) is missing"},
        {{"lm_head.weight", "head.weight", NULL}, "lm_head.weight (70, 32) is missing"},
        {{NULL, "model.layers.0.self_attn.q_proj.bias", NULL},
         "q_proj.bias belongs to no parameter"},
        {{NULL, NULL, "model.layers.1.mlp.up_proj.weight"},
         "model.layers.1.mlp.up_proj.weight is (41, 32), config.json asks for (40, 32)"},
    };
    Fixture f = {0};
    fixture_open(&f, "tests/golden/model/gqa_untied", 1, 8);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bent_write(&f.m.table, cases[i].bend);
        if (hf_load_params(&f.p, at("bent"), HEAD_AS_STORED, 0) != ERR_DATA ||
            !strstr(error_text(), cases[i].named))
            fail_msg("%s: \"%s\"", cases[i].named, error_text());
    }
    /* old files carry the rotary frequencies; they say nothing new */
    bent_write(&f.m.table, (Bend){NULL, "model.layers.0.self_attn.rotary_emb.inv_freq", NULL});
    assert_int_equal(hf_load_params(&f.p, at("bent"), HEAD_AS_STORED, 0), 0);
    fixture_close(&f);

    /* tied: lm_head.weight beside the embedding is fine if it is its copy */
    fixture_open(&f, "tests/golden/model/gqa_untied", 1, 8);
    bent_write(&f.m.table, (Bend){0});
    Fixture tied = {.config = f.config};
    tied.config.tied = true;
    fixture_open(&tied, NULL, 1, 8);
    assert_int_equal(hf_load_params(&tied.p, at("bent"), HEAD_AS_STORED, 0), 0);
    assert_int_equal(hf_load_params(&tied.p, "tests/golden/model/gqa_untied", HEAD_AS_STORED, 0),
                     ERR_DATA);
    assert_non_null(strstr(error_text(), "differs from the embedding"));
    fixture_close(&tied);
    fixture_close(&f);

}

/* Shards hold what one file holds; a tensor that no shard has is named with the index. */
static void shards(void **state)
{
    (void)state;
    Fixture f = {0}, g = {0};
    char one[33], cut[33], text[64];
    fixture_open(&f, "tests/golden/model/gqa_tied", 1, 8);
    assert_int_equal(hf_save(&f.p, at("cut"), "tests/golden/model/gqa_tied", (HfFormat){ST_F32, 10000}, NULL, 0), 0);
    assert_int_equal(hf_save(&f.p, at("one"), "tests/golden/model/gqa_tied", (HfFormat){ST_F32, 0}, NULL, 0), 0);
    assert_true(hf_has_weights(at("cut")) && !file_exists(at("cut/model.safetensors")));
    fixture_open(&g, at("cut"), 1, 8);
    params_equal(&f, &g, -1);
    fixture_close(&g);
    assert_int_equal(hf_hash(at("one"), one), 0);
    assert_int_equal(hf_hash(at("cut"), cut), 0);
    assert_string_not_equal(one, cut);
    Fixture untied = {.config = f.config};
    fixture_close(&f);

    /* the tied model's shards hold no head of their own */
    untied.config.tied = false;
    fixture_open(&untied, NULL, 1, 8);
    assert_int_equal(hf_load_params(&untied.p, at("cut"), HEAD_AS_STORED, 0), ERR_DATA);
    assert_non_null(strstr(error_text(), "index.json: tensor lm_head.weight"));
    snprintf(text, sizeof text, "(%lld, %lld) is missing", (long long)untied.config.V, (long long)untied.config.C);
    assert_non_null(strstr(error_text(), text));
    fixture_close(&untied);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_dialects), cmocka_unit_test(config_families), cmocka_unit_test(config_refusals),
        cmocka_unit_test(save_and_load),   cmocka_unit_test(scalar_from_causal),
        cmocka_unit_test(keys_and_files), cmocka_unit_test(pad_of_tokenizer_model), cmocka_unit_test(shards),  cmocka_unit_test(contradictions),
    };
    return cmocka_run_group_tests_name("hf", tests, setup, teardown);
}
