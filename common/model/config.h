/* config.h - what a Hugging Face config.json says about a model: Llama 2 and 3, SmolLM2, Mistral without a
 * window, Qwen2 and Qwen2.5, Qwen3. All of them are one architecture with flags. */
#ifndef RLHF_MODEL_CONFIG_H
#define RLHF_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

enum { MODEL_MAX_EOS = 8 };

typedef enum { HEAD_LM, HEAD_SCALAR } HeadKind;

/* How RoPE's frequencies are stretched for contexts longer than those of pretraining. */
typedef enum { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3 } RopeKind;
typedef struct {
    RopeKind kind;
    double factor;                /* linear, llama3: low frequencies are divided by it */
    double low_freq, high_freq;   /* llama3: wavelengths per original context, ends of the mixed band */
    double original_max_position; /* llama3 */
} RopeScaling;

typedef struct {
    char architecture[64]; /* "LlamaForCausalLM" without the head part: "Llama" */
    HeadKind head;         /* ...ForSequenceClassification with one label = HEAD_SCALAR */
    int64_t C, F, V, L, H, K, D; /* hidden, intermediate, vocab, layers, heads, kv heads, head size */
    double norm_eps, rope_theta;
    bool tied;             /* lm_head is embed_tokens */
    int64_t max_position;
    int32_t bos, pad;      /* -1 unless given */
    int32_t eos[MODEL_MAX_EOS];
    int n_eos;
    /* what some families have beside Llama 2 */
    RopeScaling rope;
    bool qkv_bias, o_bias; /* biases on q, k, v and on the attention's output */
    bool qk_norm;          /* RMSNorm over each head of q and k before RoPE (Qwen3) */
    const char *folder;    /* borrowed: where it was read, for messages; NULL: made by hand */
} ModelConfig;

/* Both dialects (transformers 4 and 5; a file that has both must say the same in both). Fields this code cannot
 * honour (other RoPE scalings, sliding windows, biases in the MLP, other activations), of another type than
 * they have, or that do not fit together (heads that do not divide, ids beyond the vocabulary, sizes whose
 * products no machine holds) are ERR_DATA with file:line:column, the field and its value. */
int model_config_read(ModelConfig *c, const char *folder);

#endif
