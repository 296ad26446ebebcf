/* test_malformed_model.c - what the texts of a model's folder can be wrong in, and files that are none: each folder is
 * refused with the file, the place in it and the reason, whichever program opens it.
 *
 * Malformed inputs, and where they stand:
 *   config.json 141, tokenizer.json, tokenizer_config.json and generation_config.json 41, names that are no files
 *   (folder, pipe, link in a circle or to nothing, unreadable, empty) 46: here;
 *   safetensors and indices: test_malformed_weights.c, test_safetensors.c, test_weights.c;
 *   steps of tokenizers: test_tokenizer.c, test_sentencepiece.c; records and archives: test_malformed.c;
 *   configurations: test_config.c. */
#include "tests/unit/model_folder.h"

#include <sys/stat.h>

typedef struct {
    const char *find, *put, *message;
} Edit;

#define THETA      "10000.0"
#define SCALING    "10000.0,\n  \"rope_scaling\": "
#define PARAMETERS "10000.0,\n  \"rope_parameters\": "
#define LLAMA3(low, high, positions)                                                                                   \
    "{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": " low ", \"high_freq_factor\": " high                \
    ", \"original_max_position_embeddings\": " positions "}"
#define HEADS      "\"num_attention_heads\": 2,\n  \"num_key_value_heads\": 1,\n  \"head_dim\": 4"
#define SCORE      "[\"LlamaForSequenceClassification\"],\n  "

static const Edit config_cases[] = {
    {NULL, "",
     "config.json:1:1: not valid JSON: unexpected token near end of file"},
    {NULL, "{",
     "config.json:1:1: not valid JSON: string or '}' expected near end of file"},
    {NULL, "{\"architectures\": [\"Llama",
     "config.json:1:25: not valid JSON: premature end of input near '\"Llama'"},
    {NULL, "{\"vocab_size\": 8",
     "config.json:1:16: not valid JSON: '}' expected near end of file"},
    {NULL, "[1]",
     "config.json:1:1: found an array, expected an object"},
    {NULL, "null",
     "config.json:1:1: found null, expected an object"},
    {NULL, "\"config\"",
     "config.json:1:1: found a string, expected an object"},
    {NULL, "7",
     "config.json:1:1: found an integer, expected an object"},
    {NULL, "\xef\xbb\xbf\xef\xbb\xbf{}",
     "config.json:1:1: not valid JSON: invalid token near '\xef\xbb\xbf'"},
    {NULL, "\xff\xfe{",
     "config.json:1:1: not valid JSON: unable to decode byte 0xff"},
    {NULL, "{} {}",
     "config.json:1:4: not valid JSON: end of file expected near '{'"},
    {NULL, "{}",
     "config.json:1:1: architectures is missing; expected [\"LlamaForCausalLM\"] or the like"},
    {"\"vocab_size\": 8", "\"vocab_size\": 8, \"vocab_size\": 9",
     "config.json:4:31: not valid JSON: duplicate object key near '\"vocab_size\"'"},
    {"1e-05", "NaN",
     "config.json:12:21: not valid JSON: invalid token near 'NaN'"},
    {"1e-05", "Infinity",
     "config.json:12:26: not valid JSON: invalid token near 'Infinity'"},
    {"1e-05", "1e400",
     "config.json:12:23: not valid JSON: real number overflow near '1e400'"},
    {"1e-05", "0.00001.0",
     "config.json:12:26: not valid JSON: '}' expected near '.'"},
    {"\"eos_token_id\": 1\n", "\"eos_token_id\": 1,\n",
     "config.json:18:1: not valid JSON: string or '}' expected near '}'"},
    {"{\n", "{ // a comment\n",
     "config.json:1:3: not valid JSON: string or '}' expected near '/'"},
    {"\"silu\"", "'silu'",
     "config.json:11:17: not valid JSON: invalid token near '''"},
    {"\"silu\"", "\"si\xfflu\"",
     "config.json:11:19: not valid JSON: unable to decode byte 0xff near '\"si'"},
    {"\"silu\"", "\"si\nlu\"",
     "config.json:11:19: not valid JSON: unexpected newline near '\"si'"},
    {"\"silu\"", "\"\\ud800\"",
     "config.json:11:24: not valid JSON: invalid Unicode '\\uD800' near '\"\\ud800\"'"},
    {"  \"architectures\": [\"LlamaForCausalLM\"],\n", "",
     "config.json:1:1: architectures is missing; expected [\"LlamaForCausalLM\"] or the like"},
    {"  \"vocab_size\": 8,\n", "",
     "config.json:1:1: vocab_size is missing; expected a whole number from 1 to 2147483647"},
    {"  \"hidden_size\": 8,\n", "",
     "config.json:1:1: hidden_size is missing; expected a whole number from 1 to 2147483647"},
    {"  \"intermediate_size\": 12,\n", "",
     "config.json:1:1: intermediate_size is missing; expected a whole number from 1 to 2147483647"},
    {"  \"num_hidden_layers\": 1,\n", "",
     "config.json:1:1: num_hidden_layers is missing; expected a whole number from 1 to 2147483647"},
    {"  \"num_attention_heads\": 2,\n", "",
     "config.json:1:1: num_attention_heads is missing; expected a whole number from 1 to 2147483647"},
    {"\"vocab_size\": 8", "\"vocab_size\": \"8\"",
     "config.json:4:17: vocab_size is \"8\"; expected a whole number from 1 to 2147483647"},
    {"\"vocab_size\": 8", "\"vocab_size\": 8.5",
     "config.json:4:17: vocab_size is 8.5; expected a whole number from 1 to 2147483647"},
    {"\"vocab_size\": 8", "\"vocab_size\": null",
     "config.json:4:17: vocab_size is null; expected a whole number from 1 to 2147483647"},
    {"\"vocab_size\": 8", "\"vocab_size\": true",
     "config.json:4:17: vocab_size is true; expected a whole number from 1 to 2147483647"},
    {"\"vocab_size\": 8", "\"vocab_size\": [8]",
     "config.json:4:17: vocab_size is [8]; expected a whole number from 1 to 2147483647"},
    {"\"vocab_size\": 8", "\"vocab_size\": {}",
     "config.json:4:17: vocab_size is {}; expected a whole number from 1 to 2147483647"},
    {"\"vocab_size\": 8", "\"vocab_size\": 0",
     "config.json:4:17: vocab_size is 0; expected a whole number from 1 to 2147483647"},
    {"\"vocab_size\": 8", "\"vocab_size\": -8",
     "config.json:4:17: vocab_size is -8; expected a whole number from 1 to 2147483647"},
    {"\"vocab_size\": 8", "\"vocab_size\": 2147483648",
     "config.json:4:17: vocab_size is 2147483648; expected a whole number from 1 to 2147483647"},
    {"\"vocab_size\": 8", "\"vocab_size\": 99999999999999999999",
     "config.json:4:17: vocab_size is 1e+20; expected a whole number from 1 to 2147483647"},
    {"\"vocab_size\": 8", "\"vocab_size\": 8.0",
     "config.json:4:17: vocab_size is 8.0; expected a whole number from 1 to 2147483647"},
    {"\"hidden_size\": 8", "\"hidden_size\": 0",
     "config.json:5:18: hidden_size is 0; expected a whole number from 1 to 2147483647"},
    {HEADS, "\"num_attention_heads\": 3",
     "config.json:5:18: hidden_size 8 is no multiple of num_attention_heads 3 and head_dim is not given"},
    {"\"num_attention_heads\": 2", "\"num_attention_heads\": 0",
     "config.json:8:26: num_attention_heads is 0; expected a whole number from 1 to 2147483647"},
    {"\"num_attention_heads\": 2", "\"num_attention_heads\": \"2\"",
     "config.json:8:26: num_attention_heads is \"2\"; expected a whole number from 1 to 2147483647"},
    {"\"num_key_value_heads\": 1", "\"num_key_value_heads\": 3",
     "config.json:8:26: num_attention_heads 2 is no multiple of num_key_value_heads 3"},
    {"\"num_key_value_heads\": 1", "\"num_key_value_heads\": 0",
     "config.json:9:26: num_key_value_heads is 0; expected a whole number from 1 to 2147483647"},
    {"\"num_key_value_heads\": 1", "\"num_key_value_heads\": -1",
     "config.json:9:26: num_key_value_heads is -1; expected a whole number from 1 to 2147483647"},
    {"\"head_dim\": 4", "\"head_dim\": 5",
     "config.json:10:15: head_dim 5 is odd; RoPE turns pairs"},
    {"\"head_dim\": 4", "\"head_dim\": 0",
     "config.json:10:15: head_dim is 0; expected a whole number from 1 to 2147483647"},
    {"\"head_dim\": 4", "\"head_dim\": 32768",
     "config.json:10:15: head_dim 32768 is above 16384"},
    {"\"head_dim\": 4", "\"head_dim\": \"4\"",
     "config.json:10:15: head_dim is \"4\"; expected a whole number from 1 to 2147483647"},
    {"\"head_dim\": 4", "\"head_dim\": 4.0",
     "config.json:10:15: head_dim is 4.0; expected a whole number from 1 to 2147483647"},
    {"\"num_hidden_layers\": 1", "\"num_hidden_layers\": 0",
     "config.json:7:24: num_hidden_layers is 0; expected a whole number from 1 to 2147483647"},
    {"\"num_hidden_layers\": 1", "\"num_hidden_layers\": -1",
     "config.json:7:24: num_hidden_layers is -1; expected a whole number from 1 to 2147483647"},
    {"\"num_hidden_layers\": 1", "\"num_hidden_layers\": 10001",
     "config.json:7:24: num_hidden_layers 10001 is above 10000"},
    {"\"num_hidden_layers\": 1", "\"num_hidden_layers\": 1e3",
     "config.json:7:24: num_hidden_layers is 1000.0; expected a whole number from 1 to 2147483647"},
    {"\"intermediate_size\": 12", "\"intermediate_size\": []",
     "config.json:6:24: intermediate_size is []; expected a whole number from 1 to 2147483647"},
    {"\"vocab_size\": 8,\n  \"hidden_size\": 8", "\"vocab_size\": 2147483647,\n  \"hidden_size\": 2147483646",
     "config.json:5:18: hidden_size 2147483646 with vocab_size 2147483647, intermediate_size 12, 2 heads of 4"},
    {HEADS, "\"num_attention_heads\": 2147483647,\n  \"head_dim\": 16384",
     "config.json:5:18: hidden_size 8 with vocab_size 8, intermediate_size 12, 2147483647 heads of 16384 and 1"},
    {"\"max_position_embeddings\": 32", "\"max_position_embeddings\": 0",
     "config.json:14:30: max_position_embeddings is 0; expected a whole number from 1 to 2147483647"},
    {"\"max_position_embeddings\": 32", "\"max_position_embeddings\": \"long\"",
     "config.json:14:30: max_position_embeddings is \"long\"; expected a whole number from 1 to 2147483647"},
    {"1e-05", "0",
     "config.json:12:19: rms_norm_eps is 0; expected a number above 0, from 1.2e-38 to 3.4e38"},
    {"1e-05", "-1e-5",
     "config.json:12:19: rms_norm_eps is -1e-05; expected a number above 0, from 1.2e-38 to 3.4e38"},
    {"1e-05", "\"small\"",
     "config.json:12:19: rms_norm_eps is \"small\"; expected a number above 0, from 1.2e-38 to 3.4e38"},
    {"1e-05", "1e-60",
     "config.json:12:19: rms_norm_eps is 1e-60; expected a number above 0, from 1.2e-38 to 3.4e38"},
    {"1e-05", "1e60",
     "config.json:12:19: rms_norm_eps is 1e+60; expected a number above 0, from 1.2e-38 to 3.4e38"},
    {"1e-05", "[]",
     "config.json:12:19: rms_norm_eps is []; expected a number above 0, from 1.2e-38 to 3.4e38"},
    {"1e-05", "false",
     "config.json:12:19: rms_norm_eps is false; expected a number above 0, from 1.2e-38 to 3.4e38"},
    {THETA, "0",
     "config.json:13:17: rope_theta is 0; expected a number above 0, from 1.2e-38 to 3.4e38"},
    {THETA, "\"big\"",
     "config.json:13:17: rope_theta is \"big\"; expected a number above 0, from 1.2e-38 to 3.4e38"},
    {THETA, "-1",
     "config.json:13:17: rope_theta is -1; expected a number above 0, from 1.2e-38 to 3.4e38"},
    {THETA, "{}",
     "config.json:13:17: rope_theta is {}; expected a number above 0, from 1.2e-38 to 3.4e38"},
    {THETA, SCALING "3",
     "config.json:14:19: rope_scaling is 3; expected an object with rope_type: default, linear or llama3"},
    {THETA, SCALING "\"linear\"",
     "config.json:14:19: rope_scaling is \"linear\"; expected an object with rope_type: default, linear or"},
    {THETA, SCALING "{}",
     "config.json:14:19: rope_scaling is {}; supported rope_type: default, linear, llama3"},
    {THETA, SCALING "{\"factor\": 2}",
     "config.json:14:19: rope_scaling is {\"factor\": 2}; supported rope_type: default, linear, llama3"},
    {THETA, SCALING "{\"type\": \"yarn\", \"factor\": 2}",
     "config.json:14:19: rope_scaling is {\"type\": \"yarn\", \"factor\": 2}; supported rope_type: default,"},
    {THETA, SCALING "{\"rope_type\": 3}",
     "config.json:14:19: rope_scaling is {\"rope_type\": 3}; supported rope_type: default, linear, llama3"},
    {THETA, SCALING "{\"type\": \"linear\"}",
     "config.json:14:19: rope_scaling.factor is missing; expected a number above 0"},
    {THETA, SCALING "{\"type\": \"linear\", \"factor\": -2}",
     "config.json:14:48: rope_scaling.factor is -2; expected a number above 0, from 1.2e-38 to 3.4e38"},
    {THETA, SCALING "{\"type\": \"linear\", \"factor\": \"2\"}",
     "config.json:14:48: rope_scaling.factor is \"2\"; expected a number above 0, from 1.2e-38 to 3.4e38"},
    {THETA, SCALING "{\"rope_type\": \"llama3\", \"factor\": 8}",
     "config.json:14:19: rope_scaling.low_freq_factor is missing; expected a number above 0"},
    {THETA, SCALING LLAMA3("4", "1", "16"),
     "config.json:14:19: rope_scaling is {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4,"},
    {THETA, SCALING LLAMA3("1", "4", "1.5"),
     "config.json:14:19: rope_scaling is {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1,"},
    {THETA, PARAMETERS "[]",
     "config.json:14:22: rope_parameters is []; expected an object"},
    {THETA, PARAMETERS "{\"rope_theta\": 5}",
     "config.json:14:37: rope_parameters.rope_theta is 5; it contradicts rope_theta; keep one of them"},
    {THETA, PARAMETERS "{\"rope_theta\": \"x\"}",
     "config.json:14:37: rope_parameters.rope_theta is \"x\"; expected a number above 0, from 1.2e-38 to 3.4e38"},
    {THETA, PARAMETERS "{\"factor\": 2}",
     "config.json:14:22: rope_parameters is {\"factor\": 2}; it has a factor, but no rope_type"},
    {THETA, PARAMETERS "{\"rope_type\": \"dynamic\"}",
     "config.json:14:22: rope_parameters is {\"rope_type\": \"dynamic\"}; supported rope_type: default,"},
    {THETA, PARAMETERS "{\"rope_type\": \"linear\", \"factor\": 2, \"partial_rotary_factor\": 0.5}",
     "config.json:14:84: rope_parameters.partial_rotary_factor is 0.5; only 1 is supported"},
    {THETA, SCALING "{\"type\": \"linear\", \"factor\": 2},\n  \"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 4}",
     "config.json:15:22: rope_parameters is {\"rope_type\": \"linear\", \"factor\": 4}; it contradicts"},
    {"\"tie_word_embeddings\": false", "\"sliding_window\": 4096",
     "config.json:15:21: sliding_window is 4096; attention over a window is not supported"},
    {"\"tie_word_embeddings\": false", "\"use_sliding_window\": true",
     "config.json:15:25: use_sliding_window is true; attention over a window is not supported"},
    {"\"tie_word_embeddings\": false", "\"use_sliding_window\": \"no\"",
     "config.json:15:25: use_sliding_window is \"no\"; expected true or false"},
    {"\"tie_word_embeddings\": false", "\"layer_types\": \"full_attention\"",
     "config.json:15:18: layer_types is \"full_attention\"; expected a list"},
    {"\"tie_word_embeddings\": false", "\"layer_types\": [\"sliding_attention\"]",
     "config.json:15:19: layer_types[0] is \"sliding_attention\"; only \"full_attention\" is supported"},
    {"\"tie_word_embeddings\": false", "\"layer_types\": [7]",
     "config.json:15:19: layer_types[0] is 7; only \"full_attention\" is supported"},
    {"\"tie_word_embeddings\": false", "\"attention_bias\": \"false\"",
     "config.json:15:21: attention_bias is \"false\"; expected true or false"},
    {"\"tie_word_embeddings\": false", "\"attention_bias\": 1",
     "config.json:15:21: attention_bias is 1; expected true or false"},
    {"\"tie_word_embeddings\": false", "\"mlp_bias\": true",
     "config.json:15:15: mlp_bias is true; only false is supported"},
    {"\"tie_word_embeddings\": false", "\"mlp_bias\": 0",
     "config.json:15:15: mlp_bias is 0; expected true or false"},
    {"\"tie_word_embeddings\": false", "\"quantization_config\": {\"bits\": 4}",
     "config.json:15:26: quantization_config is {\"bits\": 4}; quantized weights are not supported"},
    {"\"tie_word_embeddings\": false", "\"partial_rotary_factor\": 0.25",
     "config.json:15:28: partial_rotary_factor is 0.25; only 1 is supported"},
    {"\"tie_word_embeddings\": false", "\"partial_rotary_factor\": \"1\"",
     "config.json:15:28: partial_rotary_factor is \"1\"; only 1 is supported"},
    {"\"tie_word_embeddings\": false", "\"tie_word_embeddings\": \"true\"",
     "config.json:15:26: tie_word_embeddings is \"true\"; expected true or false"},
    {"\"tie_word_embeddings\": false", "\"tie_word_embeddings\": 1",
     "config.json:15:26: tie_word_embeddings is 1; expected true or false"},
    {"\"silu\"", "\"gelu\"",
     "config.json:11:17: hidden_act is \"gelu\"; only \"silu\" is supported"},
    {"\"silu\"", "null_",
     "config.json:11:21: not valid JSON: '}' expected near '_'"},
    {"\"silu\"", "7",
     "config.json:11:17: hidden_act is 7; only \"silu\" is supported"},
    {"\"silu\"", "\"\"",
     "config.json:11:17: hidden_act is \"\"; only \"silu\" is supported"},
    {"\"model_type\": \"llama\"", "\"model_type\": \"qwen2\"",
     "config.json:3:17: model_type is \"qwen2\"; it contradicts architectures"},
    {"\"model_type\": \"llama\"", "\"model_type\": 1",
     "config.json:3:17: model_type is 1; it contradicts architectures"},
    {"[\"LlamaForCausalLM\"]", "\"LlamaForCausalLM\"",
     "config.json:2:20: architectures is \"LlamaForCausalLM\"; supported: ForCausalLM and"},
    {"[\"LlamaForCausalLM\"]", "[]",
     "config.json:2:20: architectures is []; supported: ForCausalLM and ForSequenceClassification of Llama,"},
    {"[\"LlamaForCausalLM\"]", "[1]",
     "config.json:2:20: architectures is [1]; supported: ForCausalLM and ForSequenceClassification of Llama,"},
    {"[\"LlamaForCausalLM\"]", "[\"LlamaForCausalLM\", \"LlamaModel\"]",
     "config.json:2:20: architectures is [\"LlamaForCausalLM\", \"LlamaModel\"]; supported: ForCausalLM and"},
    {"[\"LlamaForCausalLM\"]", "[\"GPT2LMHeadModel\"]",
     "config.json:2:20: architectures is [\"GPT2LMHeadModel\"]; supported: ForCausalLM and"},
    {"[\"LlamaForCausalLM\"]", "[\"LlamaForTokenClassification\"]",
     "config.json:2:20: architectures is [\"LlamaForTokenClassification\"]; supported: ForCausalLM and"},
    {"[\"LlamaForCausalLM\"]", "[\"MixtralForCausalLM\"]",
     "config.json:2:20: architectures is [\"MixtralForCausalLM\"]; supported: ForCausalLM and"},
    {"[\"LlamaForCausalLM\"]", "{\"0\": \"LlamaForCausalLM\"}",
     "config.json:2:20: architectures is {\"0\": \"LlamaForCausalLM\"}; supported: ForCausalLM and"},
    {"[\"LlamaForCausalLM\"]", "[\"LlamaForSequenceClassification\"]",
     "config.json:1:1: id2label is missing, which means two labels; a scalar head has one: \"id2label\":"},
    {"[\"LlamaForCausalLM\"]", SCORE "\"id2label\": {\"0\": \"a\", \"1\": \"b\"}",
     "config.json:3:15: id2label is {\"0\": \"a\", \"1\": \"b\"}; a scalar head has one label: {\"0\":"},
    {"[\"LlamaForCausalLM\"]", SCORE "\"id2label\": [\"a\"]",
     "config.json:3:15: id2label is [\"a\"]; a scalar head has one label: {\"0\": \"LABEL_0\"}"},
    {"[\"LlamaForCausalLM\"]", SCORE "\"num_labels\": 2",
     "config.json:3:17: num_labels is 2; a scalar head has one label: 1"},
    {"[\"LlamaForCausalLM\"]", "[\"MistralForCausalLM\"]",
     "config.json:3:17: model_type is \"llama\"; it contradicts architectures"},
    {"[\"LlamaForCausalLM\"]", "[\"Qwen3ForCausalLM\"]",
     "config.json:3:17: model_type is \"llama\"; it contradicts architectures"},
    {"\"bos_token_id\": 0", "\"bos_token_id\": 8",
     "config.json:16:19: bos_token_id 8 is outside the vocabulary of 8"},
    {"\"bos_token_id\": 0", "\"bos_token_id\": -2",
     "config.json:16:19: bos_token_id is -2; expected a token id"},
    {"\"bos_token_id\": 0", "\"bos_token_id\": \"<s>\"",
     "config.json:16:19: bos_token_id is \"<s>\"; expected a token id"},
    {"\"bos_token_id\": 0", "\"bos_token_id\": 1.5",
     "config.json:16:19: bos_token_id is 1.5; expected a token id"},
    {"\"bos_token_id\": 0", "\"bos_token_id\": [0]",
     "config.json:16:19: bos_token_id is [0]; expected a token id"},
    {"\"eos_token_id\": 1", "\"eos_token_id\": 8",
     "config.json:17:19: eos_token_id 8 is outside the vocabulary of 8"},
    {"\"eos_token_id\": 1", "\"eos_token_id\": -2",
     "config.json:17:19: eos_token_id is -2; expected a token id"},
    {"\"eos_token_id\": 1", "\"eos_token_id\": \"</s>\"",
     "config.json:17:19: eos_token_id is \"</s>\"; expected a token id"},
    {"\"eos_token_id\": 1", "\"eos_token_id\": [1, 8]",
     "config.json:17:19: eos_token_id 8 is outside the vocabulary of 8"},
    {"\"eos_token_id\": 1", "\"eos_token_id\": [1, null, \"x\"]",
     "config.json:17:29: eos_token_id[2] is \"x\"; expected a token id"},
    {"\"eos_token_id\": 1", "\"eos_token_id\": [0,1,2,3,4,5,6,7,0]",
     "config.json:17:19: eos_token_id is [0, 1, 2, 3, 4, 5, 6, 7, 0]; at most 8 ids are supported"},
    {"\"eos_token_id\": 1", "\"eos_token_id\": true",
     "config.json:17:19: eos_token_id is true; expected a token id"},
    {"\"eos_token_id\": 1", "\"eos_token_id\": {}",
     "config.json:17:19: eos_token_id is {}; expected a token id"},
    {"\"eos_token_id\": 1", "\"eos_token_id\": 1,\n  \"pad_token_id\": \"<pad>\"",
     "config.json:18:19: pad_token_id is \"<pad>\"; expected a token id"},
    {"\"eos_token_id\": 1", "\"eos_token_id\": 1,\n  \"pad_token_id\": 2147483648",
     "config.json:18:19: pad_token_id is 2147483648; expected a token id"},
};

static void config_texts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof config_cases / sizeof *config_cases; i++) {
        Str text = {0};
        edited(good_config, config_cases[i].find, config_cases[i].put, &text);
        folder_put("config.json", str_get(&text), text.n);
        assert_refused(config_cases[i].put, ERR_DATA, config_cases[i].message);
        str_free(&text);
    }
    put_good_folder();
    assert_int_equal(folder_load(), 0);
}

static const struct {
    const char *file;
    Edit edit;
} text_cases[] = {
    {"tokenizer.json", {NULL, "",
     "tokenizer.json:1:1: not valid JSON: unexpected token near end of file"}},
    {"tokenizer.json", {NULL, "{",
     "tokenizer.json:1:1: not valid JSON: string or '}' expected near end of file"}},
    {"tokenizer.json", {NULL, "[]",
     "tokenizer.json: holds an array; expected an object"}},
    {"tokenizer.json", {NULL, "{\"model\": {\"type\": \"WordPiece\", \"vocab\": {}}}",
     "tokenizer.json: model.type is \"WordPiece\"; only \"BPE\" is supported"}},
    {"tokenizer.json", {NULL, "\xef\xbb\xbf{",
     "tokenizer.json:1:1: not valid JSON: string or '}' expected near end of file"}},
    {"tokenizer.json", {"\"abc\": 6", "\"abc\": 8",
     "tokenizer.json: ids up to 8, but config.json: vocab_size is 8; the tokenizer belongs to another model"}},
    {"tokenizer.json", {"\"abc\": 6", "\"abc\": 5",
     "tokenizer.json: model.vocab: token \"abc\" has id 5, which is that of \"ab\""}},
    {"tokenizer.json", {"\"abc\": 6", "\"abc\": -1",
     "tokenizer.json: model.vocab: token \"abc\" has id -1; expected 0 to 4194303"}},
    {"tokenizer.json", {"\"abc\": 6", "\"abc\": 4194304",
     "tokenizer.json: model.vocab: token \"abc\" has id 4194304; expected 0 to 4194303"}},
    {"tokenizer.json", {"\"abc\": 6", "\"abc\": 6.5",
     "tokenizer.json: model.vocab: the id of \"abc\" is a number; expected an integer"}},
    {"tokenizer.json", {"\"abc\": 6", "\"abc\": 99999999999999999999",
     "tokenizer.json: model.vocab: the id of \"abc\" is a number; expected an integer"}},
    {"tokenizer.json", {"\"abc\": 6", "\"abc\": 6, \"abc\": 6",
     "tokenizer.json:3:81: not valid JSON: duplicate object key near '\"abc\"'"}},
    {"tokenizer.json", {"\"ab c\"", "\"ab d\"",
     "tokenizer.json: model.merges[1]: \"d\" is not in model.vocab"}},
    {"tokenizer.json", {"\"ab c\"", "\"b a\"",
     "tokenizer.json: model.merges[1]: \"ba\" is not in model.vocab"}},
    {"tokenizer.json", {"\"ab c\"", "7",
     "tokenizer.json: model.merges[1] is an integer; expected \"a b\" or [\"a\", \"b\"]"}},
    {"tokenizer.json", {"\"ab c\"", "[\"ab\", \"c\", \"a\"]",
     "tokenizer.json: model.merges[1] is an array; expected \"a b\" or [\"a\", \"b\"]"}},
    {"tokenizer.json", {"\"ab c\"", "\"abc\"",
     "tokenizer.json: model.merges[1] is \"abc\"; expected two tokens with one space between"}},
    {"tokenizer.json", {"{\"id\": 1, ", "{\"id\": 8, ",
     "tokenizer.json: added_tokens[1]: \"</s>\" has id 8, but 1 in the vocabulary"}},
    {"tokenizer.json", {"{\"id\": 1, ", "{\"id\": 0, ",
     "tokenizer.json: added_tokens[1]: \"</s>\" has id 0, but 1 in the vocabulary"}},
    {"tokenizer.json", {"{\"id\": 1, ", "{\"id\": \"1\", ",
     "tokenizer.json: added_tokens[1].id is a string; expected an integer"}},
    {"tokenizer.json", {"{\"id\": 1, ", "{",
     "tokenizer.json: added_tokens[1].id is missing"}},
    {"tokenizer.json", {"\"content\": \"</s>\"", "\"content\": 7",
     "tokenizer.json: added_tokens[1].content is an integer; expected a string"}},
    {"tokenizer.json", {"\"added_tokens\": [", "\"added_tokens\": [7, ",
     "tokenizer.json: added_tokens[0] is an integer; expected an object"}},
    {"tokenizer.json", {"\"unk_token\": \"<unk>\"", "\"unk_token\": \"<no>\"",
     "tokenizer.json: model.unk_token \"<no>\" is not in model.vocab"}},
    {"tokenizer.json", {"\"type\": \"BPE\"", "\"type\": \"Unigram\"",
     "tokenizer.json: model.type is \"Unigram\"; only \"BPE\" is supported"}},
    {"tokenizer.json", {"\"a\": 2", "\"\\u0000\": 2",
     "tokenizer.json:3:41: not valid JSON: NUL byte in object key not supported near '\"\\u0000\"'"}},
    {"tokenizer.json", {"\"a\": 2", "\"\": 2",
     "tokenizer.json: model.merges[0]: \"a\" is not in model.vocab"}},
    {"tokenizer_config.json", {NULL, "",
     "tokenizer_config.json:1:1: not valid JSON: unexpected token near end of file"}},
    {"tokenizer_config.json", {NULL, "[",
     "tokenizer_config.json:1:1: not valid JSON: ']' expected near end of file"}},
    {"tokenizer_config.json", {NULL, "{\"bos_token\": 7}",
     "tokenizer_config.json: bos_token is an integer; expected a string, null or {\"content\": \"...\"}"}},
    {"tokenizer_config.json", {NULL, "{\"bos_token\": \"<none>\"}",
     "tokenizer_config.json: bos_token \"<none>\" is not a token of ./tokenizer.json"}},
    {"tokenizer_config.json", {NULL, "{\"eos_token\": {\"content\": 3}}",
     "tokenizer_config.json: eos_token is an object; expected a string, null or {\"content\": \"...\"}"}},
    {"tokenizer_config.json", {NULL, "{\"eos_token\": \"</S>\"}",
     "tokenizer_config.json: eos_token \"</S>\" is not a token of ./tokenizer.json"}},
    {"generation_config.json", {NULL, "",
     "generation_config.json:1:1: not valid JSON: unexpected token near end of file"}},
    {"generation_config.json", {NULL, "[]",
     "generation_config.json: found an array, expected an object"}},
    {"generation_config.json", {NULL, "{\"eos_token_id\": 8}",
     "generation_config.json: eos_token_id is 8; expected a token id below vocab_size, 8"}},
    {"generation_config.json", {NULL, "{\"eos_token_id\": [1, 9]}",
     "generation_config.json: eos_token_id is 9; expected a token id below vocab_size, 8"}},
    {"generation_config.json", {NULL, "{\"eos_token_id\": \"</s>\"}",
     "generation_config.json: eos_token_id is \"</s>\"; expected a token id below vocab_size, 8"}},
    {"generation_config.json", {NULL, "{\"eos_token_id\": [[1]]}",
     "generation_config.json: eos_token_id is [1]; expected a token id below vocab_size, 8"}},
    {"generation_config.json", {NULL, "{\"eos_token_id\": 1, \"eos_token_id\": 1}",
     "generation_config.json:1:34: not valid JSON: duplicate object key near '\"eos_token_id\"'"}},
    {"generation_config.json", {NULL, "{\"temperature\": NaN}",
     "generation_config.json:1:19: not valid JSON: invalid token near 'NaN'"}},
};

static const char *good_text(const char *file)
{
    return !strcmp(file, "tokenizer.json")          ? good_tokenizer
           : !strcmp(file, "tokenizer_config.json") ? good_tokenizer_config
                                                    : good_generation;
}

static void other_texts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof text_cases / sizeof *text_cases; i++) {
        Str text = {0};
        edited(good_text(text_cases[i].file), text_cases[i].edit.find, text_cases[i].edit.put, &text);
        put_good_folder();
        folder_put(text_cases[i].file, str_get(&text), text.n);
        assert_refused(text_cases[i].edit.put, ERR_DATA, text_cases[i].edit.message);
        str_free(&text);
    }
    put_good_folder();
    assert_int_equal(folder_load(), 0);
}

/* ---- names that are no files ---------------------------------------------------------------- */

typedef enum { A_FOLDER, A_PIPE, A_DEVICE, A_CIRCLE, A_LINK_TO_NOTHING, UNREADABLE, KIND_COUNT } FileKind;

static void put_kind(const char *name, FileKind kind)
{
    assert_int_equal(dir_remove(name), 0);
    switch (kind) {
    case A_FOLDER:
        assert_int_equal(dir_make(name), 0);
        break;
    case A_PIPE:
        assert_int_equal(mkfifo(name, 0600), 0);
        break;
    case A_DEVICE:
        assert_int_equal(symlink("/dev/zero", name), 0);
        break;
    case A_CIRCLE:
        assert_int_equal(symlink(name, name), 0);
        break;
    case A_LINK_TO_NOTHING:
        assert_int_equal(symlink("blobs/1234", name), 0);
        break;
    default: /* for root too: nothing is mapped at its first byte */
        assert_int_equal(symlink("/proc/self/mem", name), 0);
        break;
    }
}

static void no_files(void **state)
{
    (void)state;
    static const char *const names[] = {"config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                                        "generation_config.json", "model.safetensors", "model.safetensors.index.json"};
    static const char *const messages[KIND_COUNT] = {
        ": cannot be read: Is a directory",
        ": is a pipe or device; expected a file",
        ": is a pipe or device; expected a file",
        ": cannot be opened: Too many levels of symbolic links",
        ": is a link to a file that is not there",
        ": cannot be read: Input/output error",
    };
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        for (FileKind kind = 0; kind < KIND_COUNT; kind++) {
            const bool mapped = kind == UNREADABLE && !strcmp(names[n], "model.safetensors");
            char want[128];
            put_good_folder();
            if (strstr(names[n], "index"))
                assert_int_equal(dir_remove("model.safetensors"), 0);
            put_kind(names[n], kind);
            snprintf(want, sizeof want, "%s%s", names[n], mapped ? ": 0 bytes: truncated" : messages[kind]);
            assert_refused(names[n], mapped ? ERR_DATA : kind == UNREADABLE ? ERR_IO : ERR_NOINPUT, want);
            assert_int_equal(dir_remove(names[n]), 0);
        }
    }
    put_kind("tokenizer.json", A_FOLDER);
    assert_int_equal(dir_remove("tokenizer.json"), 0);
    put_kind("tokenizer.model", A_PIPE);
    assert_refused("tokenizer.model", ERR_NOINPUT, "tokenizer.model: is a pipe or device");
    assert_int_equal(dir_remove("tokenizer.model"), 0);
    put_good_folder();
    assert_int_equal(folder_load(), 0);
}

static void missing_files(void **state)
{
    (void)state;
    static const char *const names[] = {"config.json", "tokenizer.json", "model.safetensors"};
    static const char *const messages[] = {"config.json: cannot be opened: No such file",
                                           "tokenizer.json: cannot be opened: No such file",
                                           "model.safetensors: no such file; the folder holds no weights"};
    for (size_t n = 0; n < 3; n++) {
        assert_int_equal(dir_remove(names[n]), 0);
        assert_refused(names[n], ERR_NOINPUT, messages[n]);
        put_good_folder();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_texts),
        cmocka_unit_test(other_texts),
        cmocka_unit_test(no_files),
        cmocka_unit_test(missing_files),
    };
    alarm(100); /* whatever waits for a pipe */
    return cmocka_run_group_tests_name("malformed_model", tests, folder_enter, folder_leave);
}
