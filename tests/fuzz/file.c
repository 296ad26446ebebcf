/* file.c - inputs as files, and what holds of every input. */
#include "tests/fuzz/fuzz.h"

#include "common/base/error.h"
#include "common/base/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

bool fuzz_seed_text(const char *const *seeds, size_t n, int k, Str *out)
{
    if ((size_t)k >= n)
        return false;
    str_add(out, seeds[k]);
    return true;
}

int fuzz_parts(FuzzPart *part, int max, const void *data, size_t n)
{
    static const size_t border = sizeof FUZZ_BORDER - 1;
    const char *at = data;
    for (int i = 0;; i++) {
        const char *cut = n && i + 1 < max ? memmem(at, n, FUZZ_BORDER, border) : NULL;
        part[i] = (FuzzPart){n ? at : "", cut ? (size_t)(cut - at) : n};
        if (!cut)
            return i + 1;
        n -= part[i].n + border;
        at = cut + border;
    }
}

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

/* ---- a folder */

static char folder[64];

const char *fuzz_folder(void)
{
    if (!folder[0]) {
        const char *root = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
        snprintf(folder, sizeof folder, "%s/rlhf_fuzz.XXXXXX", root);
        CHECK(mkdtemp(folder), "no folder");
    }
    return folder;
}

void fuzz_folder_remove(void)
{
    if (folder[0])
        CHECK(dir_remove(folder) == 0, "%s", error_text());
    folder[0] = 0;
}

const char *fuzz_path(const char *name)
{
    static char text[4][256];
    static int next;
    char *t = text[next++ % 4];
    snprintf(t, sizeof text[0], "%s/%s", fuzz_folder(), name);
    return t;
}

void fuzz_put(const char *name, const void *data, size_t n)
{
    const char *path = fuzz_path(name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        CHECK(dir_make_parent(path) == 0, "%s", error_text());
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    }
    CHECK(fd >= 0 && write(fd, data, n) == (ssize_t)n && close(fd) == 0, "%s cannot be written", path);
}

void fuzz_put_nothing(const char *name)
{
    unlink(fuzz_path(name));
}

/* ---- what holds of every input */

void fuzz_twice(FuzzRun run, const uint8_t *data, size_t n)
{
    Str first = {0}, second = {0};
    run(data, n, &first);
    run(data, n, &second);
    CHECK(first.n == second.n && !memcmp(str_get(&first), str_get(&second), first.n),
          "two results of one input:\n%s\n%s", str_get(&first), str_get(&second));
    str_free(&first);
    str_free(&second);
}

void fuzz_refused(int rc, const char *file, Str *out)
{
    const size_t n = strlen(file);
    CHECK(rc == ERR_DATA || rc == ERR_CONFIG || rc == ERR_NOINPUT || rc == ERR_USAGE, "code %d: %s", rc,
          error_text());
    CHECK(!strncmp(error_text(), file, n) && error_text()[n] && strchr(":/", error_text()[n]) && strlen(error_text()) > n + 8,
          "no place in front (%s): %s", file, error_text());
    str_addf(out, "%d %s", rc, error_text());
}

int fuzz_lowest_free_descriptor(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0, "no descriptor");
    close(fd);
    return fd;
}

int fuzz_mapped_files(void)
{
    char *text, *line, *rest;
    size_t size;
    int n = 0;
    CHECK(file_read("/proc/self/maps", &text, &size) == 0, "%s", error_text());
    for (rest = text; (line = strsep(&rest, "\n"));)
        n += strstr(line, "/memfd:fuzz") || (folder[0] && strstr(line, folder));
    free(text);
    return n;
}
