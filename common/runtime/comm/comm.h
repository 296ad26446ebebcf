/* comm.h - ranks and collectives. One process (world 1) today; MPI and NCCL come as plug-ins behind
 * the same calls, which is why every program already goes through them.
 *
 * Calls are in the same order on all ranks. A failing rank calls comm_abort (CHECK does), so peers
 * never hang; every collective has the deadline given at open. Gradients are never summed by NCCL's
 * or MPI's own reductions: shards are exchanged and added by their owner in lane order. */
#ifndef RLHF_RUNTIME_COMM_H
#define RLHF_RUNTIME_COMM_H

#include "common/runtime/tensor.h"

typedef struct Comm Comm;

/* Reads the launcher's variables (torchrun, OpenMPI, PMI, Slurm). World 1 opens at once; a larger
 * world is ERR_UNAVAILABLE until a plug-in serves it. */
int comm_open(Comm **c, double deadline_seconds);
void comm_close(Comm *c);
int comm_rank(const Comm *c);
int comm_world(const Comm *c);
_Noreturn void comm_abort(Comm *c, int code);

int comm_all_to_all(Comm *c, Tensor *dst, const Tensor *src); /* equal shares by rank */
int comm_all_gather(Comm *c, Tensor *dst, const Tensor *src);
int comm_broadcast(Comm *c, Tensor *t, int root);
/* dst: world * n doubles on every rank, in rank order: for reductions in sample order. */
int comm_gather_f64(Comm *c, double *dst, const double *src, int64_t n);
int comm_max_i64(Comm *c, int64_t *value); /* the stop flag, once a step */
int comm_barrier(Comm *c);

#endif
