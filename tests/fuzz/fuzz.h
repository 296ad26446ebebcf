/* fuzz.h - what a fuzz target is: the function that libFuzzer calls, and seeds for our own driver.
 *
 * driver.c needs no other compiler or library: input i of a seed is a pure function of both, made
 * of the target's seeds by changes of bytes, cuts, repeats, splices and words of the target. A
 * target CHECKs what must hold of every input; the sanitizers of the build watch the rest. */
#ifndef RLHF_TESTS_FUZZ_H
#define RLHF_TESTS_FUZZ_H

#include "common/base/mem.h"

#include <stdbool.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Seed k of the target appended to `out`; false behind the last. */
bool fuzz_seed(int k, Str *out);
extern const char *const fuzz_words[]; /* ends with NULL */

/* The bytes as a file that can be opened by name; the same name and file each time. */
const char *fuzz_file(const void *data, size_t n);

#endif
