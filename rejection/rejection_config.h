/* rejection_config.h - the keys of rlhf-rejection. */
#ifndef RLHF_REJECTION_CONFIG_H
#define RLHF_REJECTION_CONFIG_H

#include "common/train/trainer.h"

typedef struct {
    RunConfig run;
    const char *model, *reward_helpful, *reward_safety;
    bool allow_unanchored;
    int template_kind;
    const char *prompts_path;
    int on_bad_row, on_long;
    int64_t max_prompt_length, max_new_tokens;
    int64_t k, block_prompts, slots, micro_batch_tokens;
    ConfigFloats temperatures;
    ConfigStrings pools;
    double threshold;
    int all_unsafe;  /* AllUnsafe */
    int select_mode; /* SelectMode */
} RejectionConfig;

extern const CfgField rejection_fields[];

#endif
