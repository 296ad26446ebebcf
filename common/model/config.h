/* config.h - what a Hugging Face config.json says about a Llama-family model. */
#ifndef RLHF_MODEL_CONFIG_H
#define RLHF_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

enum { MODEL_MAX_EOS = 8 };

typedef enum { HEAD_LM, HEAD_SCALAR } HeadKind;

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
} ModelConfig;

/* Both dialects (transformers 4 and 5). Fields this code cannot honour (rope scaling, sliding
 * window, biases, other activations) are ERR_DATA naming the field and its value. */
int model_config_read(ModelConfig *c, const char *folder);
int model_config_check(const ModelConfig *c, const char *where); /* divisibility, ranges */

#endif
