/* grads_file.h - gradients as a safetensors file under Hugging Face names, for another program to check. */
#ifndef RLHF_MODEL_GRADS_FILE_H
#define RLHF_MODEL_GRADS_FILE_H

#include "common/model/params.h"

/* Before grads_finish: the two parts of a tied head are added here. An optimizer's moments may stand for
 * the gradients; they have no embedding part to add. F32. 0 or ERR_CANTCREATE. */
int grads_write(const Grads *g, const char *path);

#endif
