/* test_bf16.c - the arithmetic of bf16 products (cpu/bf16.h) against the instruction that defines
 * it: VDPBF16PS, on some ten million lanes that look for its corners: sums near the smallest normal
 * number from both sides, cancellation, ties, denormal operands, infinities. All bodies of this CPU
 * and the plain rule must have its bits. Skipped where the CPU lacks the instruction. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/runtime/cpu/bf16.h"
#include "common/runtime/device.h"
#include "common/runtime/ops.h"

#include <math.h>
#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { ROWS = 16, COLS = 64, BATCH = ROWS * COLS, PANELS = COLS / PANEL_N };

static uint32_t draw(Rng *r, uint32_t below)
{
    return (uint32_t)rng_next_below(r, below);
}

/* A bf16 number of an exponent that makes trouble: products near 2^-126, denormals, overflow. */
static uint16_t hard_bf16(Rng *r, uint32_t kind)
{
    uint32_t any = draw(r, 1 << 16), exponent;
    switch (kind) {
    case 0:
        return (uint16_t)any;
    case 1:
        exponent = 58 + draw(r, 12);
        break;
    case 2:
        exponent = draw(r, 6);
        break;
    case 3:
        exponent = 123 + draw(r, 9);
        break;
    case 4:
        exponent = 248 + draw(r, 8);
        break;
    default:
        exponent = 50 + draw(r, 30);
    }
    return (uint16_t)((any & 0x807f) | exponent << 7);
}

/* Something to add to a b + c d that leaves little, or little to round with. */
static float hard_start(Rng *r, float ab, float cd)
{
    uint32_t any = draw(r, 1u << 31) << 1 | draw(r, 2), step = draw(r, 7) - 3;
    switch (draw(r, 8)) {
    case 0:
        return k_float(any);
    case 1:
        return k_float(k_bits(-cd) + step);
    case 2:
        return k_float(k_bits(-(ab + cd)) + step);
    case 3:
        return k_float((any & 0x807fffff) | draw(r, 4) << 23);
    case 4:
        return k_float(any & 0x80000000);
    case 5:
        return k_float(any & 0x80ffffff);
    case 6:
        return k_float(k_bits(ab) + step);
    default:
        return k_float(k_bits(-ab) + step);
    }
}

/* y (ROWS, COLS) starts at `start` and takes one pair of each row of x (ROWS, 2) and w (COLS, 2).
 */
typedef struct {
    uint16_t x[ROWS][2], w[COLS][2];
    float start[ROWS][COLS];
} Batch;

static void batch_make(Batch *b, uint64_t number)
{
    Rng r = rng_make(7, RNG_TEST, 0, number, 0);
    uint32_t kind = draw(&r, 7), other = kind % 2 ? kind : draw(&r, 7);
    for (int i = 0; i < ROWS; i++)
        for (int p = 0; p < 2; p++)
            b->x[i][p] = hard_bf16(&r, i % 2 ? kind : draw(&r, 7));
    for (int i = 0; i < COLS; i++)
        for (int p = 0; p < 2; p++)
            b->w[i][p] = hard_bf16(&r, i % 2 ? other : draw(&r, 7));
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLS; j++)
            b->start[i][j] = hard_start(&r, bf16_value(b->x[i][0]) * bf16_value(b->w[j][0]),
                                        bf16_value(b->x[i][1]) * bf16_value(b->w[j][1]));
}

#ifdef __x86_64__
static bool has_instruction(void)
{
    return __builtin_cpu_supports("avx512bf16");
}

__attribute__((target("avx512f,avx512bf16"))) static void by_instruction(float y[ROWS][COLS],
                                                                         const Batch *b)
{
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLS; j += 16) {
            uint32_t x = (uint32_t)b->x[i][0] << 16 | b->x[i][1], w[16];
            for (int l = 0; l < 16; l++)
                w[l] = (uint32_t)b->w[j + l][0] << 16 | b->w[j + l][1];
            __m512 sum = _mm512_dpbf16_ps(_mm512_loadu_ps(&b->start[i][j]),
                                          (__m512bh)_mm512_set1_epi32((int)x),
                                          (__m512bh)_mm512_loadu_si512(w));
            _mm512_storeu_ps(&y[i][j], sum);
        }
}
#else
static bool has_instruction(void)
{
    return false;
}

static void by_instruction(float y[ROWS][COLS], const Batch *b)
{
    (void)y, (void)b;
}
#endif

static void by_rule(float y[ROWS][COLS], const Batch *b)
{
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLS; j++) {
            float first = bf16_fma(bf16_value(b->x[i][0]), bf16_value(b->w[j][0]), b->start[i][j]);
            y[i][j] = bf16_fma(bf16_value(b->x[i][1]), bf16_value(b->w[j][1]), first);
        }
}

static void by_body(float y[ROWS][COLS], const Batch *b, Device *dev)
{
    float x[ROWS][2];
    uint16_t panel[PANELS][PANEL_N][2];
    for (int i = 0; i < ROWS; i++)
        for (int p = 0; p < 2; p++)
            x[i][p] = bf16_value(b->x[i][p]);
    for (int i = 0; i < COLS; i++)
        for (int p = 0; p < 2; p++)
            panel[i / PANEL_N][i % PANEL_N][1 - p] = b->w[i][p];
    memcpy(y, b->start, sizeof b->start);
    Tensor ty = tensor_make2(y, dev, DTYPE_F32, ROWS, COLS);
    Tensor tx = tensor_make2(x, dev, DTYPE_F32, ROWS, 2);
    Tensor tw = tensor_make2(panel, dev, DTYPE_BF16, COLS, 2);
    tw.layout = LAYOUT_PANEL;
    op_linear(&ty, &tx, &tw, true);
}

static void expect_same(float got[ROWS][COLS], float want[ROWS][COLS], const Batch *b,
                        const char *who)
{
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLS; j++)
            if (k_bits(got[i][j]) != k_bits(want[i][j]) && !(isnan(got[i][j]) && isnan(want[i][j])))
                fail_msg("%s: %a + %a %a + %a %a is %a, the instruction gives %a", who,
                         b->start[i][j], bf16_value(b->x[i][0]), bf16_value(b->w[j][0]),
                         bf16_value(b->x[i][1]), bf16_value(b->w[j][1]), got[i][j], want[i][j]);
}

static void corners_are_those_of_the_instruction(void **state)
{
    (void)state;
    if (!has_instruction())
        skip();
    Device *dev[ISA_COUNT] = {0};
    for (CpuIsa isa = ISA_PLAIN; isa < ISA_COUNT; isa++)
        device_open(&dev[isa], &(DeviceOptions){"cpu", 1, isa}); /* NULL where the CPU lacks it */
    static float want[ROWS][COLS], got[ROWS][COLS];
    static Batch b;
    for (uint64_t n = 0; n < 10000; n++) {
        batch_make(&b, n);
        by_instruction(want, &b);
        by_rule(got, &b);
        expect_same(got, want, &b, "the plain rule");
        for (CpuIsa isa = ISA_PLAIN; isa < ISA_COUNT; isa++)
            if (dev[isa]) {
                by_body(got, &b, dev[isa]);
                expect_same(got, want, &b, device_text(dev[isa]));
            }
    }
    for (CpuIsa isa = ISA_PLAIN; isa < ISA_COUNT; isa++)
        device_close(dev[isa]);
}

/* Half of the smallest normal number's last place: what a denormal's fewer bits round up to 2^-126
 * is flushed, what 24 bits round up is not. */
static void tininess_is_seen_after_rounding(void **state)
{
    (void)state;
    /* 2^-126 - 2^-150 rounds to 2^-126 in 23 bits (a tie, to even) but is itself in 24 bits */
    assert_int_equal(k_bits(bf16_fma(0x1p-75f, -0x1p-75f, 0x1p-126f)), 0);
    /* 2^-126 - 2^-152 rounds to 2^-126 in both */
    assert_int_equal(k_bits(bf16_fma(0x1p-76f, -0x1p-76f, 0x1p-126f)), k_bits(0x1p-126f));
    /* 2^-126 - 2^-151 is halfway to 2^-126 in 24 bits: to even, so normal */
    assert_int_equal(k_bits(bf16_fma(0x1p-75f, -0x1p-76f, 0x1p-126f)), k_bits(0x1p-126f));
    /* a denormal operand is a zero of its sign, and so is a denormal sum */
    assert_int_equal(k_bits(bf16_fma(1, 1, 0x1p-127f)), k_bits(1));
    assert_int_equal(k_bits(bf16_fma(-0x1p-80f, 0x1p-80f, 0)), k_bits(-0.0F));
    assert_int_equal(k_bits(bf16_fma(bf16_value(0x0040), 0x1p100f, 1)), k_bits(1));
    /* the missing product of an odd chain changes no sum */
    assert_int_equal(k_bits(bf16_fma(-0.0F, 0, -0.0F)), k_bits(-0.0F));
    assert_int_equal(k_bits(bf16_fma(-0.0F, 0, 0)), 0);
}

static void rounds_to_nearest_even(void **state)
{
    (void)state;
    assert_int_equal(bf16_bits(k_float(0x3f808000)), 0x3f80); /* ties */
    assert_int_equal(bf16_bits(k_float(0x3f818000)), 0x3f82);
    assert_int_equal(bf16_bits(k_float(0x3f808001)), 0x3f81);
    assert_int_equal(bf16_bits(k_float(0x7f7fffff)), 0x7f80); /* overflow */
    assert_int_equal(bf16_bits(k_float(0x007fffff)), 0x0080); /* a denormal rounds up to normal */
    assert_true(isnan(bf16_round(k_float(0x7f800001))) && isnan(bf16_round(k_float(0xffffffff))));
    assert_int_equal(k_bits(bf16_round(-0.0F)), 0x80000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(corners_are_those_of_the_instruction),
        cmocka_unit_test(tininess_is_seen_after_rounding),
        cmocka_unit_test(rounds_to_nearest_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
