/* file.c - whole files, atomic replacement, folders.
 *
 * The one idea: an output appears under its name only when it is complete and on the disk. It is
 * written to NAME.tmp, synced, renamed, and the folder is synced, in that order. Tested by
 * tests/unit/test_file.c. */
#include "common/base/file.h"

#include "common/base/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail_read(const char *path, const char *what)
{
    int code = errno == EIO ? ERR_IO : ERR_NOINPUT;
    return error_set(code, "%s: %s: %s", path, what, strerror(errno));
}

static int fail_write(const char *path, const char *what)
{
    return error_set(ERR_CANTCREATE, "%s: %s: %s", path, what, strerror(errno));
}

bool file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool file_is_there(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

bool file_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int64_t file_bytes(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return fail_read(path, "cannot be found");
    return (int64_t)st.st_size;
}

/* ---- reading ---- */

typedef enum { ANY_FILE, STORED_FILE } InputKind;

/* Opens a file for reading and refuses folders, which open() would accept. Opening a pipe waits for its
 * other end, unless told not to. */
static int open_input(const char *path, InputKind kind, int *fd, struct stat *st)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC | (kind == STORED_FILE ? O_NONBLOCK : 0));
    if (*fd < 0 && errno == ENOENT && file_is_there(path))
        return error_set(ERR_NOINPUT, "%s: is a link to a file that is not there", path);
    if (*fd < 0)
        return fail_read(path, "cannot be opened");
    int rc, bad = fstat(*fd, st);
    if (bad == 0 && (S_ISREG(st->st_mode) || (kind == ANY_FILE && !S_ISDIR(st->st_mode))))
        return 0;
    if (bad == 0 && !S_ISDIR(st->st_mode)) {
        rc = error_set(ERR_NOINPUT, "%s: is a pipe or device; expected a file", path);
    } else {
        if (bad == 0)
            errno = EISDIR;
        rc = fail_read(path, "cannot be read");
    }
    close(*fd);
    *fd = -1;
    return rc;
}

static int read_whole(const char *path, InputKind kind, char **data, size_t *n)
{
    int rc, fd;
    struct stat st;
    *data = NULL;
    *n = 0;
    if ((rc = open_input(path, kind, &fd, &st)) < 0)
        return rc;
    /* The size is a hint only: pipes and /proc say 0. */
    size_t cap = (st.st_size > 0 ? (size_t)st.st_size : 4096) + 1, used = 0;
    char *buf = try_malloc(cap);
    for (;;) {
        if (buf && used + 1 == cap) {
            char *more = realloc(buf, cap *= 2);
            if (!more)
                free(buf);
            buf = more;
        }
        if (!buf) {
            rc = error_set(ERR_IO, "%s: too large for the memory (%zu bytes)", path, cap);
            goto fail;
        }
        ssize_t got = read(fd, buf + used, cap - used - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            rc = error_set(ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
            goto fail;
        }
        if (got == 0)
            break;
        used += (size_t)got;
        if ((off_t)used == st.st_size && S_ISREG(st.st_mode))
            break;
    }
    close(fd);
    buf[used] = 0;
    *data = buf;
    *n = used;
    return 0;
fail:
    free(buf);
    close(fd);
    return rc;
}

int file_read(const char *path, char **data, size_t *n)
{
    return read_whole(path, ANY_FILE, data, n);
}

int file_read_stored(const char *path, char **data, size_t *n)
{
    return read_whole(path, STORED_FILE, data, n);
}

int file_map(FileMap *m, const char *path)
{
    int rc, fd;
    struct stat st;
    *m = (FileMap){0};
    if ((rc = open_input(path, STORED_FILE, &fd, &st)) < 0)
        return rc;
    if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            rc = error_set(ERR_IO, "%s: cannot be mapped: %s", path, strerror(errno));
        else
            *m = (FileMap){p, (size_t)st.st_size};
    }
    close(fd);
    return rc;
}

void file_unmap(FileMap *m)
{
    if (m->data)
        munmap((void *)(uintptr_t)m->data, m->n);
    *m = (FileMap){0};
}

/* ---- writing ---- */

int file_write_all(int fd, const char *path, const void *data, size_t n)
{
    const char *p = data;
    while (n) {
        ssize_t put = write(fd, p, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return fail_write(path, "cannot be written");
        p += put;
        n -= (size_t)put;
    }
    return 0;
}

/* Syncs a file or folder by name. Some file systems cannot sync a folder and say EINVAL. */
static int sync_path(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_write(path, "cannot be opened to be synced");
    int rc = 0;
    if (fsync(fd) < 0 && errno != EINVAL && errno != EROFS)
        rc = fail_write(path, "cannot be synced to the disk");
    close(fd);
    return rc;
}

int file_sync_parent(const char *path)
{
    char *dir = path_dir(path);
    int rc = sync_path(dir);
    free(dir);
    return rc;
}

bool file_is_special(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

static int write_special(const char *path, const void *data, size_t n)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_write(path, "cannot be opened to be written");
    int rc = file_write_all(fd, path, data, n);
    close(fd);
    return rc;
}

int file_write_atomic(const char *path, const void *data, size_t n)
{
    int rc, fd = -1;
    if (file_is_special(path))
        return write_special(path, data, n);
    char *tmp = xasprintf("%s.tmp", path);
    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        rc = fail_write(path, "cannot be created");
        goto done;
    }
    TRY(file_write_all(fd, path, data, n));
    int bad = fsync(fd) < 0;
    bad |= close(fd) < 0;
    fd = -1;
    if (bad || rename(tmp, path) < 0) {
        rc = fail_write(path, "cannot be written");
        goto fail;
    }
    rc = file_sync_parent(path);
    goto done;
fail:
    if (fd >= 0)
        close(fd);
    unlink(tmp);
done:
    free(tmp);
    return rc;
}

int file_copy(const char *from, const char *to)
{
    FileMap m;
    int rc = file_map(&m, from);
    if (rc < 0)
        return rc;
    rc = file_write_atomic(to, m.data, m.n);
    file_unmap(&m);
    return rc;
}

/* ---- folders ---- */

int dir_make(const char *path)
{
    char *p = xstrdup(path);
    int rc = 0;
    for (char *s = p;; s++) {
        if (*s && *s != '/')
            continue;
        char was = *s;
        *s = 0;
        if (s > p && mkdir(p, 0777) < 0 && !(errno == EEXIST && file_is_dir(p)) &&
            !file_is_dir(p)) {
            rc = fail_write(p, "the folder cannot be created");
            break;
        }
        *s = was;
        if (!was)
            break;
    }
    free(p);
    return rc;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int dir_list(const char *path, char ***names, int *n)
{
    *names = NULL;
    *n = 0;
    int cap = 0;
    DIR *d = opendir(path);
    if (!d)
        return fail_read(path, "the folder cannot be opened");
    struct dirent *e;
    while (errno = 0, (e = readdir(d))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        int i = VEC_GROW(*names, *n, cap);
        (*names)[i] = xstrdup(e->d_name);
    }
    int rc =
        errno ? error_set(ERR_IO, "%s: the folder cannot be read: %s", path, strerror(errno)) : 0;
    closedir(d);
    if (rc < 0) {
        dir_list_free(*names, *n);
        *names = NULL;
        *n = 0;
    } else if (*n) {
        qsort(*names, (size_t)*n, sizeof **names, compare_names);
    }
    return rc;
}

void dir_list_free(char **names, int n)
{
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

/* Calls `each` for every file below `path` and then for every folder, children first; links are
 * not followed. */
static int dir_walk(const char *path, int (*each)(const char *path, bool is_dir))
{
    int rc, n;
    char **names;
    if ((rc = dir_list(path, &names, &n)) < 0)
        return rc;
    for (int i = 0; i < n && rc >= 0; i++) {
        char *p = path_join(path, names[i]);
        struct stat st;
        bool is_dir = lstat(p, &st) == 0 && S_ISDIR(st.st_mode);
        rc = is_dir ? dir_walk(p, each) : each(p, false);
        free(p);
    }
    dir_list_free(names, n);
    return rc < 0 ? rc : each(path, true);
}

static int remove_one(const char *path, bool is_dir)
{
    if ((is_dir ? rmdir(path) : unlink(path)) < 0 && errno != ENOENT)
        return fail_write(path, "cannot be removed");
    return 0;
}

int dir_make_parent(const char *path)
{
    if (strcmp(path, "-") == 0)
        return 0;
    char *dir = path_dir(path);
    int rc = dir_make(dir);
    free(dir);
    return rc;
}

int dir_remove(const char *path)
{
    struct stat st;
    if (lstat(path, &st) < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return 0;
        return fail_write(path, "cannot be removed");
    }
    return S_ISDIR(st.st_mode) ? dir_walk(path, remove_one) : remove_one(path, false);
}

static int sync_one(const char *path, bool is_dir)
{
    struct stat st;
    if (!is_dir && (lstat(path, &st) < 0 || !S_ISREG(st.st_mode)))
        return 0;
    return sync_path(path);
}

/* Exchanging is one step for the reader; where the file system cannot, the old folder is moved
 * away first, and a crash in between leaves it as PATH.old. */
static int replace_dir(const char *tmp, const char *path)
{
    if (renameat2(AT_FDCWD, tmp, AT_FDCWD, path, RENAME_EXCHANGE) == 0)
        return dir_remove(tmp);
    int rc;
    char *old = xasprintf("%s.old", path);
    TRY(dir_remove(old));
    if (rename(path, old) < 0 || rename(tmp, path) < 0) {
        rc = fail_write(path, "the folder cannot be replaced");
        goto fail;
    }
    rc = dir_remove(old);
fail:
    free(old);
    return rc;
}

int dir_commit(const char *tmp, const char *path)
{
    int rc;
    TRY(dir_walk(tmp, sync_one));
    struct stat st;
    if (lstat(path, &st) == 0)
        TRY(replace_dir(tmp, path));
    else if (rename(tmp, path) < 0)
        return fail_write(path, "the folder cannot be renamed to this");
    TRY(file_sync_parent(path));
    return 0;
fail:
    return rc;
}

/* ---- names ---- */

char *path_join(const char *a, const char *b)
{
    size_t n = strlen(a);
    if (b[0] == '/' || n == 0)
        return xstrdup(b);
    return xasprintf("%s%s%s", a, a[n - 1] == '/' ? "" : "/", b);
}

char *path_dir(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') /* "a/b/" is "a/b" */
        n--;
    while (n > 0 && path[n - 1] != '/')
        n--;
    while (n > 1 && path[n - 1] == '/')
        n--;
    return n ? xstrndup(path, n) : xstrdup(".");
}

const char *path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}
