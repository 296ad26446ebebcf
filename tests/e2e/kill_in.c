/* kill_in.c - runs a command under ptrace and kills it -9 at the n-th time that it does INNER while it is
 * inside OUTER; the program itself is not changed. Built and used by lib.sh, which gets addresses from nm.
 *
 *   kill_in N OUTER INNER COMMAND...    OUTER: address of a function in the program's file, or - for anywhere
 *                                       INNER: likewise, or `syscall`: before any system call
 *
 * N = 0 kills nothing and prints how often it happened (the command's own stdout goes to stderr). Exit
 * status: 137 = killed as asked, 77 = not possible here, with the reason on stderr, else the command's.
 * Only the first thread is watched: the functions meant here are called on no other. */
#include <elf.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static _Noreturn void impossible(const char *what)
{
    fprintf(stderr, "kill_in: %s: %s\n", what, strerror(errno));
    exit(77);
}

#ifdef __x86_64__

typedef struct {
    uintptr_t at;       /* 0 = none */
    unsigned char byte; /* what stood there */
} Break;

typedef struct {
    pid_t pid;
    Break outer, inner, leave; /* leave: where OUTER returns to */
    uintptr_t frame;           /* stack pointer at the entry of OUTER */
    bool inside, by_syscall, in_syscall;
    long n, wanted;
} Watch;

/* Returns the byte that stood there. */
static unsigned char poke(const Watch *w, uintptr_t at, unsigned char byte)
{
    long word = ptrace(PTRACE_PEEKTEXT, w->pid, at, 0);
    ptrace(PTRACE_POKETEXT, w->pid, at, (word & ~0xFFL) | byte);
    return (unsigned char)word;
}

static void break_set(const Watch *w, Break *b)
{
    b->byte = poke(w, b->at, 0xCC); /* int3 */
}

static int finish(const Watch *w, int status)
{
    if (!w->wanted)
        printf("%ld\n", w->n);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static _Noreturn void kill_now(const Watch *w)
{
    int status;
    kill(w->pid, SIGKILL);
    waitpid(w->pid, &status, 0);
    exit(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? 137 : 1);
}

static void happened(Watch *w)
{
    if (w->inside && ++w->n == w->wanted)
        kill_now(w);
}

/* Executes the instruction under a breakpoint. Returns false when the process ended in it. */
static bool step_over(Watch *w, Break *b, bool keep, int *status)
{
    poke(w, b->at, b->byte);
    ptrace(PTRACE_SINGLESTEP, w->pid, 0, 0);
    waitpid(w->pid, status, 0);
    if (!WIFSTOPPED(*status))
        return false;
    if (keep)
        break_set(w, b);
    else
        b->at = 0;
    return true;
}

static bool on_break(Watch *w, int *status)
{
    struct user_regs_struct regs;
    ptrace(PTRACE_GETREGS, w->pid, 0, &regs);
    uintptr_t at = regs.rip - 1;
    if (at != w->outer.at && at != w->inner.at && at != w->leave.at)
        return true; /* a trap of the program's own */
    regs.rip = at;
    ptrace(PTRACE_SETREGS, w->pid, 0, &regs);
    if (at == w->leave.at) {
        bool left = regs.rsp > w->frame;
        w->inside = !left;
        return step_over(w, &w->leave, !left, status);
    }
    if (at == w->outer.at && !w->inside) {
        w->inside = true;
        w->in_syscall = false;
        w->frame = regs.rsp;
        w->leave.at = (uintptr_t)ptrace(PTRACE_PEEKTEXT, w->pid, regs.rsp, 0);
        break_set(w, &w->leave);
    }
    if (at == w->inner.at)
        happened(w);
    return step_over(w, at == w->inner.at ? &w->inner : &w->outer, true, status);
}

static int watch(Watch *w)
{
    int status, deliver = 0;
    for (;;) {
        int how = w->by_syscall && w->inside ? PTRACE_SYSCALL : PTRACE_CONT;
        ptrace(how, w->pid, 0, deliver);
        deliver = 0;
        if (waitpid(w->pid, &status, 0) < 0)
            impossible("waitpid");
        if (!WIFSTOPPED(status))
            return finish(w, status);
        if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
            w->in_syscall = !w->in_syscall;
            if (w->in_syscall)
                happened(w);
        } else if (WSTOPSIG(status) != SIGTRAP) {
            deliver = WSTOPSIG(status);
        } else if (!on_break(w, &status)) {
            return finish(w, status);
        }
    }
}

/* Where the program's file is loaded: what nm's addresses count from. */
static uintptr_t load_base(pid_t pid)
{
    char path[64], exe[PATH_MAX], line[PATH_MAX + 128];
    Elf64_Ehdr head = {0};
    unsigned long start = 0;
    snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
    ssize_t n = readlink(path, exe, sizeof exe - 1);
    FILE *f = fopen(path, "r");
    if (n < 0 || !f || fread(&head, sizeof head, 1, f) != 1)
        impossible(path);
    fclose(f);
    exe[n] = 0;
    if (head.e_type != ET_DYN)
        return 0;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    if (!(f = fopen(path, "r")))
        impossible(path);
    while (!start && fgets(line, sizeof line, f))
        if (strstr(line, exe))
            start = strtoul(line, NULL, 16);
    fclose(f);
    return start;
}

static uintptr_t address(const char *text, uintptr_t base)
{
    return base + strtoul(text, NULL, 16);
}

int main(int argc, char **argv)
{
    Watch w = {.wanted = argc > 4 ? atol(argv[1]) : -1};
    int status;
    if (w.wanted < 0)
        return fprintf(stderr, "usage: kill_in N OUTER INNER COMMAND...\n"), 2;
    w.pid = fork();
    if (w.pid < 0)
        impossible("fork");
    if (w.pid == 0) {
        dup2(2, 1);
        if (ptrace(PTRACE_TRACEME, 0, 0, 0) < 0)
            impossible("ptrace");
        execvp(argv[4], argv + 4);
        impossible(argv[4]);
    }
    waitpid(w.pid, &status, 0);
    if (!WIFSTOPPED(status))
        return finish(&(Watch){.wanted = 1}, status);
    if (ptrace(PTRACE_SETOPTIONS, w.pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) < 0)
        impossible("ptrace");
    uintptr_t base = load_base(w.pid);
    w.inside = !strcmp(argv[2], "-");
    w.by_syscall = !strcmp(argv[3], "syscall");
    if (!w.inside) {
        w.outer.at = address(argv[2], base);
        break_set(&w, &w.outer);
    }
    if (!w.by_syscall) {
        w.inner.at = address(argv[3], base);
        break_set(&w, &w.inner);
    }
    return watch(&w);
}

#else

int main(void)
{
    errno = ENOSYS;
    impossible("breakpoints are written for x86-64 only");
}

#endif
