/* real.h - the type that reference bodies compute in. librlhf.a: float. librlhf64.a (for the
 * gradient test alone, compiled with -DRLHF_REAL_DOUBLE): double, DTYPE_REAL = DTYPE_F64. */
#ifndef RLHF_RUNTIME_REAL_H
#define RLHF_RUNTIME_REAL_H

#ifdef RLHF_REAL_DOUBLE
typedef double real_t;
#define DTYPE_REAL DTYPE_F64
#else
typedef float real_t;
#define DTYPE_REAL DTYPE_F32
#endif

#endif
