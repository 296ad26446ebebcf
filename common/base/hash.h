/* hash.h - XXH3 (library xxhash), CRC-32 and CRC-32C. */
#ifndef RLHF_BASE_HASH_H
#define RLHF_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t lo, hi;
} Hash128;

uint64_t hash64(const void *data, size_t n, uint64_t seed); /* XXH3-64 */
Hash128 hash128(const void *data, size_t n);                /* XXH3-128 */
void hash128_hex(Hash128 h, char out[33]);                  /* high word first */
int hash128_file(const char *path, Hash128 *out);           /* 0 or ERR_* */
uint32_t hash_crc32(const void *data, size_t n);            /* zlib's CRC-32 */
uint32_t hash_crc32c(const void *data, size_t n);           /* Castagnoli's; for small records */

#endif
