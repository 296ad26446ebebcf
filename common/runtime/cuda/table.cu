/* table.cu - the op table of the CUDA backend; a missing body is a link error. */
#include "common/runtime/cuda/cuda.h"

#define X(name) cuda_##name,
extern const OpTable cuda_table = {OPS(X)};
#undef X
