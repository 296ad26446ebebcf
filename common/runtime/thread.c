/* thread.c - the team of cpu_for; see thread.h. The only file with threads.
 *
 * A call publishes (fn, ctx) by raising `epoch`; each worker runs its part once per epoch and
 * counts `pending` down. Whoever waits looks for SPIN_NS, then sleeps on a futex. The one subtle
 * point is going to sleep: the sleeper announces itself first and the kernel compares the word
 * again, the waker changes the word first and then looks for sleepers (both sequentially
 * consistent), so one of the two always sees the other. Tested by tests/unit/test_runtime.c. */
#include "common/runtime/thread.h"

#include "common/base/error.h"
#include "common/base/mem.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SPIN_NS = 30000, TEAM_MAX = 1024, CACHE_LINE = 64 };

typedef struct {
    Team *team;
    int part;
    pthread_t thread;
} Worker;

struct Team {
    int n;
    int64_t spin_ns; /* 0 when there are fewer cores than threads */
    TeamFn fn;
    void *ctx;
    bool stop;
    Worker *worker; /* n - 1 of them, parts 1..n-1 */
    _Alignas(CACHE_LINE) atomic_uint epoch;
    atomic_int sleepers;
    _Alignas(CACHE_LINE) atomic_int pending;
    atomic_int caller_sleeps;
};

static void futex_wait(void *word, int expected)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake(void *word, int n)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* The next epoch after `seen`. */
static unsigned team_wait_epoch(Team *t, unsigned seen)
{
    unsigned e;
    for (int64_t until = t->spin_ns ? now_ns() + t->spin_ns : 0; until && now_ns() < until;) {
        for (int i = 0; i < 64; i++) {
            if ((e = atomic_load_explicit(&t->epoch, memory_order_acquire)) != seen)
                return e;
            cpu_relax();
        }
    }
    atomic_fetch_add(&t->sleepers, 1);
    while ((e = atomic_load(&t->epoch)) == seen)
        futex_wait(&t->epoch, (int)seen);
    atomic_fetch_sub(&t->sleepers, 1);
    return e;
}

static void team_wait_done(Team *t)
{
    for (int64_t until = t->spin_ns ? now_ns() + t->spin_ns : 0; until && now_ns() < until;) {
        for (int i = 0; i < 64; i++) {
            if (atomic_load_explicit(&t->pending, memory_order_acquire) == 0)
                return;
            cpu_relax();
        }
    }
    atomic_store(&t->caller_sleeps, 1);
    int left;
    while ((left = atomic_load(&t->pending)) != 0)
        futex_wait(&t->pending, left);
    atomic_store(&t->caller_sleeps, 0);
}

static void *worker_main(void *arg)
{
    const Worker *w = arg;
    Team *t = w->team;
    for (unsigned seen = 0;;) {
        seen = team_wait_epoch(t, seen);
        if (t->stop)
            return NULL;
        t->fn(w->part, t->n, t->ctx);
        if (atomic_fetch_sub(&t->pending, 1) == 1 && atomic_load(&t->caller_sleeps))
            futex_wake(&t->pending, 1);
    }
}

static void team_publish(Team *t, TeamFn fn, void *ctx, bool stop)
{
    t->fn = fn;
    t->ctx = ctx;
    t->stop = stop;
    atomic_store_explicit(&t->pending, t->n - 1, memory_order_relaxed);
    atomic_fetch_add(&t->epoch, 1);
    if (atomic_load(&t->sleepers))
        futex_wake(&t->epoch, INT_MAX);
}

Team *team_open(int n_threads)
{
    CHECK(n_threads >= 1 && n_threads <= TEAM_MAX, "a team of %d threads (1 to %d)", n_threads,
          TEAM_MAX);
    Team *t = aligned_alloc(CACHE_LINE, sizeof *t);
    CHECK(t, "out of memory");
    *t = (Team){.n = 1};
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    t->spin_ns = n_threads <= cores ? SPIN_NS : 0;
    t->worker = xcalloc((size_t)n_threads, sizeof *t->worker);
    t->n = n_threads;
    for (int i = 0; i < n_threads - 1; i++) {
        t->worker[i].team = t;
        t->worker[i].part = i + 1;
        int e = pthread_create(&t->worker[i].thread, NULL, worker_main, &t->worker[i]);
        CHECK(e == 0, "cannot start thread %d of %d (error %d)", i + 2, n_threads, e);
    }
    return t;
}

void team_close(Team *t)
{
    if (!t)
        return;
    if (t->n > 1)
        team_publish(t, NULL, NULL, true);
    for (int i = 0; i < t->n - 1; i++)
        pthread_join(t->worker[i].thread, NULL);
    free(t->worker);
    free(t);
}

int team_size(const Team *t)
{
    return t->n;
}

void cpu_for(Team *t, TeamFn fn, void *ctx)
{
    if (t->n == 1) {
        fn(0, 1, ctx);
        return;
    }
    team_publish(t, fn, ctx, false);
    fn(0, t->n, ctx);
    team_wait_done(t);
}

void part_range(int64_t n, int64_t block, int part, int n_parts, int64_t *from, int64_t *to)
{
    int64_t blocks = (n + block - 1) / block;
    int64_t each = blocks / n_parts, rest = blocks % n_parts;
    int64_t first = part * each + (part < rest ? part : rest);
    int64_t last = first + each + (part < rest);
    *from = first * block < n ? first * block : n;
    *to = last * block < n ? last * block : n;
}
