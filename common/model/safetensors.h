/* safetensors.h - the file format (spec of 2026-05): header checks, mmap reading, writing. */
#ifndef RLHF_MODEL_SAFETENSORS_H
#define RLHF_MODEL_SAFETENSORS_H

#include "common/base/file.h"

#include <stdbool.h>
#include <stdint.h>

enum { ST_MAX_DIMS = 8 };

typedef enum { ST_F32, ST_F16, ST_BF16, ST_F64, ST_OTHER } StDType;

typedef struct {
    char *name;
    StDType dtype;
    char dtype_text[16];
    int n_dims;
    int64_t dim[ST_MAX_DIMS];
    uint64_t begin, end; /* relative to the data section */
} StTensor;

typedef struct {
    FileMap map;
    char *path;
    const unsigned char *data;
    StTensor *at;
    int n;
} SafeTensors;

/* Refuses: header longer than the file or 100 MB, malformed JSON, duplicate names, holes, overlaps,
 * sizes that do not match shapes, truncated files. ERR_DATA with path and tensor. */
int safetensors_open(SafeTensors *s, const char *path);
void safetensors_close(SafeTensors *s);
const StTensor *safetensors_find(const SafeTensors *s, const char *name);
/* Element i of a tensor as float (F32, F16, BF16). */
void safetensors_read_f32(const SafeTensors *s, const StTensor *t, int64_t first, int64_t n, float *dst);

/* What is written: a tensor, and who gives its elements. */
typedef struct {
    const char *name;
    StDType dtype;
    int n_dims;
    int64_t dim[ST_MAX_DIMS];
    /* fills `dst` with n elements from `first` on, as f32 row-major; called in ascending order */
    void (*fill)(void *ctx, int index, int64_t first, int64_t n, float *dst);
    void *ctx;
    int index;
} StSource;
int64_t safetensors_source_bytes(const StSource *s); /* of its data */
/* Sorts by dtype size descending, then name; pads the header to 8; __metadata__ {"format":"pt"};
 * atomic. BF16 rounds to nearest even. */
int safetensors_write(const char *path, StSource *sources, int n);

#endif
