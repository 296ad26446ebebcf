/* hf.h - Hugging Face folders in and out.
 *
 * In: config.json, model.safetensors, tokenizer files. Out: the same, loadable unmodified by
 * transformers, vLLM and llama.cpp's converter. A missing or extra tensor, or one of another shape,
 * is an error naming it, never a silent random init. */
#ifndef RLHF_MODEL_HF_H
#define RLHF_MODEL_HF_H

#include "common/base/json.h"
#include "common/model/params.h"
#include "common/model/weights.h"
#include "common/text/tokenizer.h"

typedef enum { HEAD_AS_STORED, HEAD_FRESH_SCALAR } HeadInit;

/* Fills p from the folder's weights, one file or shards. An element that is no finite number is refused with its
 * tensor and place, and so is a generation_config.json that could not be exported. HEAD_FRESH_SCALAR: the folder holds a causal model and p's
 * table a scalar head; the trunk is read, lm_head ignored, score drawn N(0, 1/(C + 1)) from seed. */
int hf_load_params(ParamSet *p, const char *folder, HeadInit head, uint64_t seed);

/* Keys added to config.json of a reward model, e.g. "rlhf_calibration": an object; NULL = none. */
typedef struct {
    const char *key;
    const char *json; /* value as JSON text */
} HfExtra;

/* How weights are written. */
typedef struct {
    StDType dtype;     /* ST_F32 or ST_BF16 */
    int64_t max_shard; /* bytes of one file; 0 = HF_MAX_SHARD */
} HfFormat;

static const int64_t HF_MAX_SHARD = 5000000000; /* as transformers 4 */

/* Writes folder (as folder.tmp, then renamed): config.json (the base's, changed only where needed),
 * weights, generation_config.json, and the tokenizer files of base_folder byte for byte. But a scalar model's
 * tokenizer_config.json and special_tokens_map.json name its pad_token_id, which is no end token, as pad_token. */
int hf_save(const ParamSet *p, const char *folder, const char *base_folder, HfFormat format,
            const HfExtra *extra, int n_extra);
/* The same without the weights, straight into `folder`, which exists: config.json of a model of shape c,
 * derived from base_folder, and the tokenizer files. */
int hf_save_shape(const ModelConfig *c, const char *folder, const char *base_folder, StDType dtype,
                  const HfExtra *extra, int n_extra);
/* A folder with config.json alone describes a model to be trained from scratch. */
bool hf_has_weights(const char *folder);
/* config.json of a language model with this tokenizer. ERR_DATA for a scalar head ("expected a causal model" and
 * role, such as " as policy"; "" is fine), and for a tokenizer with ids beyond the model's. */
int hf_read_causal(ModelConfig *c, const char *folder, const Tokenizer *tok, const char *role);
/* A value that hf_save put into config.json, a copy for the caller to json_free; 0 with *out = NULL when
 * absent. */
int hf_read_extra(const char *folder, const char *key, Json **out);
/* Hash of config.json and the weights, hex: "reference hash" of checkpoints. */
int hf_hash(const char *folder, char out[33]);

#endif
