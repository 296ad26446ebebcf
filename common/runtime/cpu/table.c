/* table.c - the op table of one instruction set; see cpu.h. */
#include "common/runtime/cpu/cpu.h"

const OpTable CPU_OP(table) = {
#define X(name) .name = CPU_OP(name),
    OPS(X)
#undef X
};
