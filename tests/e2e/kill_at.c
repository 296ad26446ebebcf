/* kill_at.c - LD_PRELOAD: what happens to a program at its n-th operation on files, so that a test can
 * try every single one. KILL_AT=n: kill -9 before it, the write before it done by half. FULL_AT=n: from
 * then on the disk is full. COUNT_FILE: the number of operations is written there at exit.
 * Built and used by the scripts of this folder. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int n_done;

static int number(const char *name)
{
    const char *text = getenv(name);
    return text ? atoi(text) : 0;
}

static int is_full(void)
{
    int at = number("FULL_AT");
    return at && n_done >= at;
}

static void before(void)
{
    if (++n_done == number("KILL_AT"))
        kill(getpid(), SIGKILL);
}

__attribute__((destructor)) static void report(void)
{
    const char *path = getenv("COUNT_FILE");
    FILE *f = path ? fopen(path, "w") : NULL;
    if (f) {
        fprintf(f, "%d\n", n_done);
        fclose(f);
    }
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *p, size_t n)
{
    if (fd <= 2)
        return REAL(write)(fd, p, n);
    before();
    if (is_full()) {
        errno = ENOSPC;
        return -1;
    }
    if (n > 1 && n_done + 1 == number("KILL_AT"))
        n = (n + 1) / 2;
    return REAL(write)(fd, p, n);
}

int fsync(int fd)
{
    before();
    return REAL(fsync)(fd);
}

int ftruncate(int fd, off_t n)
{
    before();
    return REAL(ftruncate)(fd, n);
}

int rename(const char *a, const char *b)
{
    before();
    return REAL(rename)(a, b);
}

int renameat2(int fa, const char *a, int fb, const char *b, unsigned flags)
{
    before();
    return REAL(renameat2)(fa, a, fb, b, flags);
}

int mkdir(const char *path, mode_t mode)
{
    before();
    if (is_full()) {
        errno = ENOSPC;
        return -1;
    }
    return REAL(mkdir)(path, mode);
}

int rmdir(const char *path)
{
    before();
    return REAL(rmdir)(path);
}

int unlink(const char *path)
{
    before();
    return REAL(unlink)(path);
}

int open(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    if (flags & O_CREAT)
        before();
    return REAL(open)(path, flags, mode);
}
