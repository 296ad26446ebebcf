/* cpu.h - names of the CPU bodies. Every file of this folder is compiled once per instruction set
 * with -DCPU_ISA=plain|avx2|avx512|avx512bf16, and a body is written as
 *
 *     void CPU_OP(rmsnorm)(Tensor *y, ...)        -> cpu_plain_rmsnorm, cpu_avx2_rmsnorm, ...
 *
 * table.c gathers them into one OpTable per instruction set; device.c picks one. The prototypes
 * come from OPS, so a body of the wrong type does not compile and a missing one does not link.
 * Bodies trust their arguments: ops.c has checked them. */
#ifndef RLHF_RUNTIME_CPU_CPU_H
#define RLHF_RUNTIME_CPU_CPU_H

#include "common/runtime/device.h"
#include "common/runtime/ops.h"
#include "common/runtime/thread.h"

#define CPU_PASTE_(isa, name) cpu_##isa##_##name
#define CPU_PASTE(isa, name)  CPU_PASTE_(isa, name)
#define CPU_OP(name)          CPU_PASTE(CPU_ISA, name)

#define X(name)                                                                                    \
    __typeof__(op_##name) cpu_plain_##name;                                                        \
    __typeof__(op_##name) cpu_avx2_##name;                                                         \
    __typeof__(op_##name) cpu_avx512_##name;                                                       \
    __typeof__(op_##name) cpu_avx512bf16_##name;
OPS(X)
#undef X

extern const OpTable cpu_plain_table, cpu_avx2_table, cpu_avx512_table, cpu_avx512bf16_table;

/* What one op's work costs on one core, in units of about a nanosecond: flops / 50 or bytes / 10.
 * Below this a second thread costs more than it gives. */
enum { CPU_SMALL_NS = 20000 };

/* Runs fn(part, n_parts, ctx) on the team, or once on this thread when the work is small. */
static inline void cpu_run(Device *dev, TeamFn fn, void *ctx, double work_ns)
{
    if (work_ns < CPU_SMALL_NS)
        fn(0, 1, ctx);
    else
        cpu_for(device_team(dev), fn, ctx);
}

static inline real_t *real_data(const Tensor *t)
{
    return t->data;
}
static inline const int32_t *i32_data(const Tensor *t)
{
    return t->data;
}

#endif
