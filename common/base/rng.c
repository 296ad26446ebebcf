/* rng.c - Philox4x32-10 and what is drawn from it.
 *
 * The normal draw uses the two short series below and not libm, whose last bit depends on the
 * library and on the CPU; so every draw is the same on every machine. Tested by
 * tests/unit/test_rng.c. */
#include "common/base/rng.h"

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/philox.h"

#include <math.h>
#include <stdbool.h>

void philox4x32(uint32_t out[4], const uint32_t ctr[4], const uint32_t key[2])
{
    philox_block(out, ctr, key);
}

RngKey rng_key(uint64_t seed, RngStage stage, uint32_t round, uint64_t item, uint32_t sample,
               uint32_t position)
{
    unsigned char text[16]; /* little-endian whatever the machine */
    for (int i = 0; i < 8; i++)
        text[i] = (unsigned char)(seed >> 8 * i);
    for (int i = 0; i < 4; i++) {
        text[8 + i] = (unsigned char)((uint32_t)stage >> 8 * i);
        text[12 + i] = (unsigned char)(round >> 8 * i);
    }
    uint64_t key = hash64(text, sizeof text, 0);
    return (RngKey){{(uint32_t)key, (uint32_t)(key >> 32)},
                    {(uint32_t)item, (uint32_t)(item >> 32), sample, position}};
}

uint64_t rng_u64(const RngKey *k)
{
    uint32_t w[4];
    philox4x32(w, k->ctr, k->key);
    return w[0] | (uint64_t)w[1] << 32;
}

double rng_uniform(const RngKey *k)
{
    return philox_unit(rng_u64(k));
}

Rng rng_make(uint64_t seed, RngStage stage, uint32_t round, uint64_t item, uint32_t sample)
{
    return (Rng){.k = rng_key(seed, stage, round, item, sample, 0)};
}

uint32_t rng_next_u32(Rng *r)
{
    if (r->left == 0) {
        philox4x32(r->word, r->k.ctr, r->k.key);
        r->k.ctr[3]++;
        CHECK(r->k.ctr[3], "2^32 blocks were drawn under one key");
        r->left = 4;
    }
    return r->word[4 - r->left--];
}

static uint64_t next_u64(Rng *r)
{
    uint64_t low = rng_next_u32(r);
    return low | (uint64_t)rng_next_u32(r) << 32;
}

double rng_next_uniform(Rng *r)
{
    return philox_unit(next_u64(r));
}

uint64_t rng_next_below(Rng *r, uint64_t n)
{
    CHECK(n > 0, "a number below 0 was asked for");
    /* 2^64 mod n values at the bottom would come once too often: draw again for them. */
    uint64_t excess = -n % n;
    uint64_t u;
    do
        u = next_u64(r);
    while (u < excess);
    return u % n;
}

/* ln(x) for 0 < x <= 1: x = m 2^e with m in [sqrt(1/2), sqrt(2)), ln m = 2 artanh((m-1)/(m+1)). */
static double series_log(double x)
{
    int e;
    double m = frexp(x, &e);
    if (m < 0.70710678118654752) {
        m *= 2;
        e--;
    }
    double s = (m - 1) / (m + 1), z = s * s, sum = 0;
    for (int k = 23; k >= 1; k -= 2) /* z <= 0.0295: the next term is below 2^-60 */
        sum = sum * z + 1.0 / k;
    return 2 * s * sum + e * 0.69314718055994531;
}

/* cos(2 pi u) for 0 <= u < 1, by folding to [0, 1/8] turns and a Taylor series. */
static double series_cos_turns(double u)
{
    int eighth = (int)(u * 8);
    double rest = u * 8 - eighth; /* exact */
    if (eighth & 1)
        rest = 1 - rest;
    double x = rest * 0.78539816339744831, z = x * x, sum = 0;
    bool is_sin = ((eighth + 1) & 3) >= 2; /* eighths 1, 2, 5, 6 lie around the sine's zeros */
    double sign = eighth >= 2 && eighth <= 5 ? -1 : 1;
    for (int k = is_sin ? 17 : 16; k >= 2; k -= 2)
        sum = (1 + sum) * -z / (k * (k - 1));
    return sign * (is_sin ? x : 1) * (1 + sum);
}

double rng_next_normal(Rng *r)
{
    double u1 = 1 - rng_next_uniform(r); /* (0, 1]: its logarithm is finite */
    double u2 = rng_next_uniform(r);
    return sqrt(-2 * series_log(u1)) * series_cos_turns(u2);
}

void rng_permutation(int64_t *out, int64_t n, uint64_t seed, RngStage stage, uint64_t epoch)
{
    Rng r = rng_make(seed, stage, 0, epoch, 0);
    for (int64_t i = 0; i < n; i++)
        out[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = (int64_t)rng_next_below(&r, (uint64_t)i + 1);
        int64_t t = out[i];
        out[i] = out[j];
        out[j] = t;
    }
}
