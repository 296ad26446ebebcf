/* file.c - an input as a file without a disk. */
#include "tests/fuzz/fuzz.h"

#include "common/base/error.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

const char *fuzz_file(const void *data, size_t n)
{
    static int fd = -1;
    static char name[32];
    if (fd < 0) {
        fd = memfd_create("fuzz", 0);
        CHECK(fd >= 0, "no memory file");
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    }
    CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, data, n, 0) == (ssize_t)n, "memory file");
    return name;
}
