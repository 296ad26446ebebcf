/* ptx.h - instructions that CUDA C++ has no function for, each once: PTX for the card, C for the shim
 * (tests/emu). The only file of this folder with asm.
 *
 * A warp's operations (mma, ldmatrix) are called by all 32 lanes together. With g = lane / 4 and
 * t = lane % 4, two bf16 in a register, the lower half first:
 *
 *   a[4]  16 x 16   a[0]: (g, 2t..2t+1)  a[1]: (g + 8, 2t..)  a[2]: (g, 2t + 8..)  a[3]: (g + 8, 2t + 8..)
 *   b[2]  16 x 8    b[0]: (2t..2t+1, g)  b[1]: (2t + 8.., g)      (k, column)
 *   c[4]  16 x 8    c[0..1]: (g, 2t..2t+1)  c[2..3]: (g + 8, 2t..2t+1)
 *
 * Lane tables: PTX ISA, "Matrix fragments for mma.m16n8k16" and "ldmatrix". Neither orders memory: what
 * another lane has written is read behind __syncwarp or __syncthreads. Tested by tests/emu/test_emu.cpp. */
#ifndef RLHF_RUNTIME_CUDA_PTX_H
#define RLHF_RUNTIME_CUDA_PTX_H

#include "common/runtime/cuda/cuda.h" /* first: it gives C's headers their linkage */

#include "common/runtime/cpu/formula.h"

/* ---- bf16: the upper half of an f32, in a uint16_t; pairs in a uint32_t ------------------------- */

static __device__ __forceinline__ float bf16_float(uint16_t x)
{
    return k_float((uint32_t)x << 16);
}
static __device__ __forceinline__ float bf16_low(uint32_t pair)
{
    return k_float(pair << 16);
}
static __device__ __forceinline__ float bf16_high(uint32_t pair)
{
    return k_float(pair & 0xffff0000u);
}

/* Rounded to nearest even; denormals stay, a NaN is one. */
static __device__ __forceinline__ uint16_t bf16_of(float x)
{
    uint16_t h;
#ifdef RLHF_EMU
    formula_write(&h, DTYPE_BF16, 0, x);
#else
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(x));
#endif
    return h;
}
static __device__ __forceinline__ uint32_t bf16_low_high(float low, float high)
{
#ifdef RLHF_EMU
    return bf16_of(low) | (uint32_t)bf16_of(high) << 16;
#else
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#endif
}

/* x, and the compiler does not know that: what is computed from it is not computed ahead of a loop, where
 * it would occupy registers. */
static __device__ __forceinline__ int not_ahead(int x)
{
#ifndef RLHF_EMU
    asm volatile("" : "+r"(x));
#endif
    return x;
}

/* 2^x, relative error at most 2^-22; 2^0 = 1, 2^-inf = 0, what would be denormal is 0. The sums and
 * products of bf16 attention leave 2^-9 of every weight, so this is enough there. */
static __device__ __forceinline__ float exp2_approx(float x)
{
#ifdef RLHF_EMU
    const float y = k_exp(x * 0x1.62e430p-1f);
    return y < 0x1p-126f ? 0.0f : y;
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

#ifdef RLHF_EMU

/* ---- the shim's bodies -------------------------------------------------------------------------- */

static inline float emu_half(const EmuLanes *all, int lane, int reg, int half)
{
    return k_float((uint32_t)(all->word[lane][reg / 2] >> (32 * (reg % 2) + 16 * half)) << 16);
}

static inline void mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2], EMU_HERE)
{
    const uint64_t mine[3] = {a[0] | (uint64_t)a[1] << 32, a[2] | (uint64_t)a[3] << 32,
                              b[0] | (uint64_t)b[1] << 32};
    const EmuLanes *all = emu_exchange(mine, 3, "mma_bf16", file, line);
    const int g = emu_lane() / 4, t = emu_lane() % 4;
    for (int k = 0; k < 16; k++) {
        const int at = k % 8 / 2, half = k % 2;
        const float a0 = emu_half(all, g * 4 + at, k / 8 * 2, half),
                    a1 = emu_half(all, g * 4 + at, k / 8 * 2 + 1, half),
                    b0 = emu_half(all, 2 * t * 4 + at, 4 + k / 8, half),
                    b1 = emu_half(all, (2 * t + 1) * 4 + at, 4 + k / 8, half);
        c[0] = real_fma(a0, b0, c[0]);
        c[1] = real_fma(a0, b1, c[1]);
        c[2] = real_fma(a1, b0, c[2]);
        c[3] = real_fma(a1, b1, c[3]);
    }
}

/* Matrix i of a load: its row r begins where lane 8 i + r says. */
static inline const uint16_t *emu_matrix_row(const EmuLanes *all, int i, int r, const char *file,
                                             int line)
{
    const uint16_t *row = (const uint16_t *)all->word[8 * i + r][0];
    emu_shared_access(row, 16, "ldmatrix", file, line);
    return row;
}

static inline void ldmatrix_x4(uint32_t x[4], const uint16_t *row, EMU_HERE)
{
    const uint64_t mine = (uintptr_t)row;
    const EmuLanes *all = emu_exchange(&mine, 1, "ldmatrix_x4", file, line);
    const int g = emu_lane() / 4, t = emu_lane() % 4;
    for (int i = 0; i < 4; i++) {
        const uint16_t *from = emu_matrix_row(all, i, g, file, line);
        x[i] = from[2 * t] | (uint32_t)from[2 * t + 1] << 16;
    }
}

static inline void ldmatrix_x4_trans(uint32_t x[4], const uint16_t *row, EMU_HERE)
{
    const uint64_t mine = (uintptr_t)row;
    const EmuLanes *all = emu_exchange(&mine, 1, "ldmatrix_x4_trans", file, line);
    const int g = emu_lane() / 4, t = emu_lane() % 4;
    for (int i = 0; i < 4; i++)
        x[i] = emu_matrix_row(all, i, 2 * t, file, line)[g] |
               (uint32_t)emu_matrix_row(all, i, 2 * t + 1, file, line)[g] << 16;
}

static inline void cp_async16(void *to, const void *from, int n, EMU_HERE)
{
    emu_async_copy(to, from, n, file, line);
}
static inline void cp_async_commit(EMU_HERE)
{
    emu_async_commit(file, line);
}
#define cp_async_wait(left) emu_async_wait(left)

#else

/* ---- the card's --------------------------------------------------------------------------------- */

static __device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* c += a b, f32 sums of exact products. The order inside one call is the hardware's own (it is the same
 * for every element and in every call); the shim's is one FMA chain over k ascending. */
static __device__ __forceinline__ void mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four 8 x 8 matrices of 16-bit elements from shared memory. Lane 8 i + r says where row r of matrix i
 * begins, a multiple of 16 bytes; x[i] = (g, 2t..2t+1) of matrix i, _trans: of its transpose. */
static __device__ __forceinline__ void ldmatrix_x4(uint32_t x[4], const uint16_t *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row))
                 : "memory");
}
static __device__ __forceinline__ void ldmatrix_x4_trans(uint32_t x[4], const uint16_t *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* Begins to copy n bytes (0 to 16; the rest of the 16 become zero, and nothing is read for n = 0) from
 * global to shared memory, both multiples of 16. What is there may be read by this thread behind
 * cp_async_wait, by others behind a barrier after it; until then the 16 bytes are undefined. */
static __device__ __forceinline__ void cp_async16(void *to, const void *from, int n)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(to)), "l"(from), "r"(n)
                 : "memory");
}
/* Puts the copies begun since the last commit into a group, which may be empty. */
static __device__ __forceinline__ void cp_async_commit(void)
{
    asm volatile("cp.async.commit_group;" : : : "memory");
}
/* Waits until at most `left` of this thread's groups, the youngest, are not done. A constant. */
#define cp_async_wait(left) asm volatile("cp.async.wait_group %0;" : : "n"(left) : "memory")

#endif
#endif
