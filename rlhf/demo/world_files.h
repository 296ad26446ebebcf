/* world_files.h - the files of a generated world. */
#ifndef RLHF_DEMO_WORLD_FILES_H
#define RLHF_DEMO_WORLD_FILES_H

#include "common/base/config.h"

typedef struct {
    const char *out;
    int64_t seed;
    int64_t n_base, n_sft, n_helpful, n_safety, n_test, n_rejection, n_ppo, n_eval;
    int64_t hidden, layers;
} WorldConfig;

extern const CfgField world_fields[];

int world_files_write(const WorldConfig *c);

#endif
