/* checkpoint.h - everything a run needs to go on, to the bit.
 *
 * A folder checkpoints/step-N holds state.bin (the blobs, one after another), manifest.json (step; name,
 * bytes, XXH3-128 of each) and the resolved config.yaml. It is written as step-N.tmp, fsynced, renamed;
 * one with a bad or missing checksum is never loaded. The trainer lists its blobs once; the same list
 * saves and loads. */
#ifndef RLHF_TRAIN_CHECKPOINT_H
#define RLHF_TRAIN_CHECKPOINT_H

#include "common/model/params.h"
#include "common/train/optim.h"

typedef struct {
    char name[96];
    void *data;       /* host memory, or */
    Tensor tensor;    /* a device tensor when data is NULL */
    size_t bytes;
} Blob;

typedef struct {
    Blob *at;
    int n, cap;
    ParamSet **params; /* sets among the blobs: checkpoint_load refreshes their copies */
    int n_params, cap_params;
} BlobList;

void blob_add(BlobList *l, const char *name, void *data, size_t bytes);
void blob_add_tensor(BlobList *l, const char *name, const Tensor *t);
void blob_add_params(BlobList *l, const char *prefix, ParamSet *p);
void blob_add_optim(BlobList *l, const char *prefix, Optim *o); /* moments, step, skipped */
void blob_list_free(BlobList *l);

/* A failed save (a full disk) leaves neither a folder nor a .tmp, and older checkpoints as they were. */
int checkpoint_save(const char *run_dir, int64_t step, const BlobList *l, const char *config_yaml);
/* Newest step whose manifest and checksums hold; ERR_NOINPUT when there is none. Folders found broken
 * are named in a warning. */
int checkpoint_find(const char *run_dir, int64_t *step);
/* Loads blobs of checkpoint `step`; names and sizes must match exactly (ERR_DATA).
 * Blobs are changed only after all checksums held. */
int checkpoint_load(const char *run_dir, int64_t step, const BlobList *l);
/* Removes checkpoints of later steps: the run goes on from `step`. */
int checkpoint_remove_after(const char *run_dir, int64_t step);
/* Removes all but the newest `keep` and those in keep_steps; also leftover .tmp folders. */
void checkpoint_prune(const char *run_dir, int keep, const int64_t *keep_steps, int n_keep_steps);

#endif
