/* weights.h - the tensors of a Hugging Face folder, in one safetensors file or in shards.
 *
 * One file: model.safetensors. Shards: model.safetensors.index.json, whose weight_map names the file
 * of every tensor: model-00001-of-00003.safetensors. All files are mapped, none is read ahead. */
#ifndef RLHF_MODEL_WEIGHTS_H
#define RLHF_MODEL_WEIGHTS_H

#include "common/base/hash.h"
#include "common/model/safetensors.h"

typedef struct {
    SafeTensors *file; /* (n_files), in the order of their names */
    int n_files;
    char *where; /* the file, or the index: for messages */
} Weights;

/* Beside what safetensors_open refuses: an index that is not of this form, names a file outside the
 * folder, a file that is missing, or a tensor that its file does not hold; a file with a tensor that the
 * index does not give to it. ERR_DATA, ERR_NOINPUT; files of PyTorch alone are named as such. */
int weights_open(Weights *w, const char *folder);
void weights_close(Weights *w);
bool weights_exist(const char *folder);
/* *file: the one that holds the tensor. NULL when none does. */
const StTensor *weights_find(const Weights *w, const char *name, const SafeTensors **file);

/* Writes `sources` (reordered) into the folder: one file where it takes at most max_shard bytes, else shards of
 * at most so many, in the order given, a tensor larger than that alone; and the index. */
int weights_write(const char *folder, StSource *sources, int n, int64_t max_shard);

/* Hash of the names and the bytes of all weight files, for one file that of its bytes alone. */
int weights_hash(const char *folder, Hash128 *out);

#endif
