/* rng.h - counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random
 * numbers: as easy as 1, 2, 3"), keyed by meaning. A draw depends on its key alone: batch size,
 * rank count, thread count and resume point never change it. */
#ifndef RLHF_BASE_RNG_H
#define RLHF_BASE_RNG_H

#include <stdint.h>

/* out = philox4x32-10(ctr, key). Known answers: tests/unit/test_rng.c. */
void philox4x32(uint32_t out[4], const uint32_t ctr[4], const uint32_t key[2]);

/* What a draw is for. */
typedef enum {
    RNG_INIT = 1,    /* weights: item = parameter index, position = element / 4 */
    RNG_SHUFFLE = 2, /* data order: item = epoch */
    RNG_SAMPLE = 3,  /* tokens: item = prompt id, sample, position = token position in the answer */
    RNG_SPLIT = 4,
    RNG_MIX = 5,     /* choice of a source */
    RNG_WORLD = 6,   /* the generated world of the demo */
    RNG_ANNOTATE = 7,
    RNG_BOOTSTRAP = 8,
    RNG_TEST = 99,
} RngStage;

/* 24 bytes, also the element of op_sample's key tensor: key = XXH3-64(seed, stage, round);
 * ctr = (item low, item high, sample, position). */
typedef struct {
    uint32_t key[2];
    uint32_t ctr[4];
} RngKey;

RngKey rng_key(uint64_t seed, RngStage stage, uint32_t round, uint64_t item, uint32_t sample,
               uint32_t position);
uint64_t rng_u64(const RngKey *k);     /* words 0, 1 of the block */
double rng_uniform(const RngKey *k);   /* [0, 1), 53 bits */

/* A sequence of draws under one key: position counts blocks. */
typedef struct {
    RngKey k;
    uint32_t word[4];
    int left;
} Rng;

Rng rng_make(uint64_t seed, RngStage stage, uint32_t round, uint64_t item, uint32_t sample);
uint32_t rng_next_u32(Rng *r);
double rng_next_uniform(Rng *r);               /* [0, 1), 53 bits */
uint64_t rng_next_below(Rng *r, uint64_t n);   /* 0 .. n-1 without bias */
double rng_next_normal(Rng *r);                /* N(0, 1), Box-Muller */
/* A permutation of 0..n-1 (Fisher-Yates), the same for the same (seed, epoch, n). */
void rng_permutation(int64_t *out, int64_t n, uint64_t seed, RngStage stage, uint64_t epoch);

#endif
