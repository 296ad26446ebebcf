/* hash.c - the hashes, from the library that defines them where there is one. Tested by tests/unit/test_base.c. */
#include "common/base/hash.h"

#include "common/base/error.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include <zlib.h>

uint64_t hash64(const void *data, size_t n, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, n, seed);
}

Hash128 hash128(const void *data, size_t n)
{
    XXH128_hash_t h = XXH3_128bits(data, n);
    return (Hash128){h.low64, h.high64};
}

void hash128_hex(Hash128 h, char out[33])
{
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)h.hi, (unsigned long long)h.lo);
}

int hash128_file(const char *path, Hash128 *out)
{
    enum { CHUNK = 1 << 18 };
    int rc = 0;
    XXH3_state_t *state = NULL;
    unsigned char *buf = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(ERR_NOINPUT, "%s: cannot be opened: %s", path, strerror(errno));
    state = XXH3_createState();
    CHECK(state, "out of memory");
    XXH3_128bits_reset(state);
    buf = xmalloc(CHUNK);
    for (;;) {
        ssize_t n = read(fd, buf, CHUNK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            rc = error_set(ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
            goto fail;
        }
        if (n == 0)
            break;
        XXH3_128bits_update(state, buf, (size_t)n);
    }
    XXH128_hash_t h = XXH3_128bits_digest(state);
    *out = (Hash128){h.low64, h.high64};
fail:
    XXH3_freeState(state);
    free(buf);
    close(fd);
    return rc;
}

uint32_t hash_crc32(const void *data, size_t n)
{
    return (uint32_t)crc32_z(0, data, n);
}

uint32_t hash_crc32c(const void *data, size_t n)
{
    const unsigned char *p = data;
    uint32_t crc = ~0U;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78U : 0); /* the polynomial, bits reversed (RFC 3720) */
    }
    return ~crc;
}
