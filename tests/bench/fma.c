/* fma.c - how many f32 multiply-adds and bf16 dot products a core does in registers: the ceiling of every product. One loop
 * per instruction set, as the CPU bodies have; ACCUMULATORS chains hide the latency of any core so far
 * (2 units x 4 to 5 cycles). The value stays finite: x -> x * 0.999 + 0.001. */
#include "tests/bench/bench.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { ACCUMULATORS = 12, ROUNDS = 1 << 16 };

#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)

/* One function a vector type: ROUNDS x ACCUMULATORS multiply-adds. The empty asm keeps every accumulator
 * in a register and the loop in place. */
#define FMA_LOOP(NAME, TARGET, V, SET, STEP, CONSTRAINT)                                             \
    TARGET static void NAME(void)                                                                    \
    {                                                                                                \
        V a = SET(0.999F), b = SET(0.001F);                                                          \
        V acc0 = SET(0), acc1 = a, acc2 = b, acc3 = SET(1), acc4 = a, acc5 = b, acc6 = SET(2);       \
        V acc7 = a, acc8 = b, acc9 = SET(3), acc10 = a, acc11 = b;                                   \
        for (int r = 0; r < ROUNDS; r++) {                                                           \
            EACH(STEP)                                                                               \
            __asm__ volatile("" : CONSTRAINT(acc0), CONSTRAINT(acc1), CONSTRAINT(acc2),              \
                                  CONSTRAINT(acc3), CONSTRAINT(acc4), CONSTRAINT(acc5),              \
                                  CONSTRAINT(acc6), CONSTRAINT(acc7), CONSTRAINT(acc8),              \
                                  CONSTRAINT(acc9), CONSTRAINT(acc10), CONSTRAINT(acc11));           \
        }                                                                                            \
    }

#ifdef __x86_64__
/* the plain bodies have no FMA instruction to use: a product and a sum */
#define PLAIN(i)  acc##i = _mm_add_ps(_mm_mul_ps(acc##i, a), b);
#define AVX2(i)   acc##i = _mm256_fmadd_ps(acc##i, a, b);
#define AVX512(i) acc##i = _mm512_fmadd_ps(acc##i, a, b);
FMA_LOOP(loop_plain, , __m128, _mm_set1_ps, PLAIN, "+x")
FMA_LOOP(loop_avx2, __attribute__((target("avx2,fma"))), __m256, _mm256_set1_ps, AVX2, "+x")
FMA_LOOP(loop_avx512, __attribute__((target("avx512f"))), __m512, _mm512_set1_ps, AVX512, "+v")
#else
typedef float Lanes __attribute__((vector_size(16)));
#define SET4(x)  ((Lanes){x, x, x, x})
#define PLAIN(i) acc##i = acc##i * a + b;
FMA_LOOP(loop_plain, , Lanes, SET4, PLAIN, "+w")
#define loop_avx2   loop_plain
#define loop_avx512 loop_plain
#endif

#ifdef __x86_64__
/* 1 and 0.001 times 0.001: after all rounds a sum is below 1000. */
#define DOT(i) acc##i = _mm512_dpbf16_ps(acc##i, x, y);
__attribute__((target("avx512f,avx512bf16"))) static void loop_dot(void)
{
    const __m512bh x = (__m512bh)_mm512_set1_epi32(0x3a833f80), y = (__m512bh)_mm512_set1_epi32(0x3a823a82);
    __m512 acc0 = _mm512_set1_ps(1), acc1 = acc0, acc2 = acc0, acc3 = acc0, acc4 = acc0, acc5 = acc0, acc6 = acc0;
    __m512 acc7 = acc0, acc8 = acc0, acc9 = acc0, acc10 = acc0, acc11 = acc0;
    for (int r = 0; r < ROUNDS; r++) {
        EACH(DOT)
        __asm__ volatile("" : "+v"(acc0), "+v"(acc1), "+v"(acc2), "+v"(acc3), "+v"(acc4), "+v"(acc5), "+v"(acc6),
                              "+v"(acc7), "+v"(acc8), "+v"(acc9), "+v"(acc10), "+v"(acc11));
    }
}

static bool has_dot(CpuIsa isa)
{
    return isa >= ISA_AVX512 && __builtin_cpu_supports("avx512bf16");
}
#else
static void loop_dot(void)
{
}

static bool has_dot(CpuIsa isa)
{
    (void)isa;
    return false;
}
#endif

/* FLOP/s of a loop of ROUNDS x ACCUMULATORS steps of `flops` each. */
static double loop_rate(void (*loop)(void), double flops, int threads, double seconds)
{
    double started = bench_now(threads), passed, n = 0;
    do {
        loop();
        n++;
        passed = bench_now(threads) - started;
    } while (passed < seconds);
    return n * ROUNDS * ACCUMULATORS * flops / passed;
}

double dot_rate(CpuIsa isa, int threads, double seconds)
{
    return has_dot(isa) ? loop_rate(loop_dot, 64, threads, seconds) : 0; /* 16 lanes of two products and sums */
}

double fma_rate(CpuIsa isa, int threads, double seconds)
{
    static void (*const loops[])(void) = {NULL, loop_plain, loop_avx2, loop_avx512};
    static const int lanes[] = {0, 4, 8, 16};
    return loop_rate(loops[isa], 2.0 * lanes[isa], threads, seconds);
}
