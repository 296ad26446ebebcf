/* emu_sched.cpp - runs a kernel: blocks one after another, the threads of a block in rounds.
 *
 * A round runs every thread that can run, each until it is done or waits at a barrier or a warp
 * operation; it is the waiting thread that picks the next one and switches to it. When a round is
 * over, warp operations whose whole mask has arrived are carried out; when there is none, the block
 * barrier, if all are there. Otherwise nothing can go on, and the kernel is wrong. Threads that
 * never wait run one after another on the same fiber, without a switch.
 *
 * Race checker: barriers are the only order between threads. Keys alternate, so that a thread
 * which runs ahead to the next barrier does not order itself before those that still leave this one. */
#include "tests/emu/emu.h"
#include "tests/emu/emu_fiber.h"

#include <mutex>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { WARP = 32, THREADS_MAX = 1024 };
enum Order { FORWARD, REVERSE, RANDOM };
enum State { FRESH, READY, WAITS_WARP, WAITS_BLOCK, DONE };

struct EmuThread {
    EmuIndex index; /* first: emu_now points at it */
    State state;
    EmuFiber *fiber; /* NULL before it first runs */
    /* what it waits for */
    EmuOp op;
    const char *name, *file;
    int line, from;
    unsigned mask;
    uint64_t value, result;
    unsigned n_syncwarp;
    EmuAsync async;
};

EmuIndex *emu_now;

static std::mutex one_launch;
static EmuThread thread[THREADS_MAX];
static struct {
    const EmuLaunch *launch;
    int n; /* threads of a block */
    Order order;
    uint64_t seed, random;
    EmuFiber *main, *pool[THREADS_MAX], *retired[THREADS_MAX];
    int n_pool, n_retired;
    int ready[THREADS_MAX], n_ready, next, end; /* ready[next..end) is the rest of this round */
    unsigned n_barrier;
    void *dynamic;
    char start_key, end_key, barrier_key[2], warp_key[THREADS_MAX / WARP][2 + WARP];
    EmuLanes lanes[THREADS_MAX / WARP];
} sched;

static EmuThread *self(void)
{
    return (EmuThread *)emu_now;
}

#ifdef EMU_TSAN
EmuIndex *emu_index(void)
{
    return emu_now;
}
#endif

/* ---- saying what is wrong ------------------------------------------------------------------------ */

static void say_where(const EmuThread *t, const char *file, int line)
{
    const EmuLaunch *l = sched.launch;
    fprintf(stderr, "emu: %s (launched at %s:%d)", l->name, l->file, l->line);
    if (t)
        fprintf(stderr, ", block (%u,%u,%u), thread (%u,%u,%u)", t->index.block.x, t->index.block.y,
                t->index.block.z, t->index.thread.x, t->index.thread.y, t->index.thread.z);
    if (file)
        fprintf(stderr, ", %s:%d", file, line);
    fputs(": ", stderr);
}

[[noreturn]] static void fail_v(const EmuThread *t, const char *file, int line, const char *fmt,
                                va_list ap)
{
    fflush(stdout);
    if (sched.launch)
        say_where(t, file, line);
    else
        fputs("emu: outside kernels: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    fflush(stderr);
    abort();
}

__attribute__((format(printf, 2, 3), noreturn)) static void fail_thread(const EmuThread *t,
                                                                        const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fail_v(t, t ? t->file : NULL, t ? t->line : 0, fmt, ap);
}

void emu_fail(const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fail_v(self(), file, line, fmt, ap);
}

/* ---- order --------------------------------------------------------------------------------------- */

static uint64_t random_below(uint64_t n)
{
    uint64_t z = sched.random += 0x9E3779B97F4A7C15u; /* splitmix64 */
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (z ^ z >> 31) % n;
}

static void read_order(void)
{
    const char *order = getenv("EMU_ORDER");
    sched.order = FORWARD;
    if (!order || strcmp(order, "forward") == 0)
        return;
    if (strcmp(order, "reverse") == 0) {
        sched.order = REVERSE;
    } else if (strncmp(order, "random:", 7) == 0) {
        sched.order = RANDOM;
        uint64_t seed = strtoull(order + 7, NULL, 10);
        if (seed != sched.seed)
            sched.random = sched.seed = seed;
    } else {
        fprintf(stderr, "emu: EMU_ORDER=%s is not forward, reverse or random:SEED\n", order);
        abort();
    }
}

/* A random round takes some of the ready threads, so that warps drift apart between barriers. */
static void begin_round(void)
{
    int *r = sched.ready, n = sched.n_ready;
    sched.next = 0;
    sched.end = n;
    if (sched.order == REVERSE) {
        for (int i = 0; i < n / 2; i++) {
            int other = r[i];
            r[i] = r[n - 1 - i];
            r[n - 1 - i] = other;
        }
    } else if (sched.order == RANDOM && n > 0) {
        for (int i = n - 1; i > 0; i--) {
            int j = (int)random_below((uint64_t)i + 1), other = r[i];
            r[i] = r[j];
            r[j] = other;
        }
        sched.end = 1 + (int)random_below((uint64_t)n);
    }
}

/* ---- releasing ----------------------------------------------------------------------------------- */

static uint64_t combine(EmuOp op, uint64_t a, uint64_t b)
{
    uint32_t x = (uint32_t)a, y = (uint32_t)b;
    switch (op) {
    case EMU_ADD:
        return x + y;
    case EMU_MIN:
        return x < y ? x : y;
    case EMU_MAX:
        return x > y ? x : y;
    case EMU_AND:
        return x & y;
    case EMU_OR:
        return x | y;
    default:
        return x ^ y;
    }
}

/* Word by word: a call of memcpy would be seen by the sanitizers as this fiber's. */
static uint64_t gather(const EmuThread *lane)
{
    EmuLanes *all = &sched.lanes[(lane - thread) / WARP];
    for (int i = 0; i < WARP; i++)
        for (int k = 0; k < lane[i].from; k++)
            all->word[i][k] = ((const volatile uint64_t *)lane[i].value)[k];
    return (uintptr_t)all;
}

/* All lanes of the mask of `first` have arrived at its operation. */
static void finish_warp_op(EmuThread *lane, const EmuThread *first)
{
    unsigned mask = first->mask;
    uint64_t gathered = first->op == EMU_EXCHANGE ? gather(lane) : 0;
    uint64_t all = 0;
    bool begun = false;
    for (int i = 0; i < WARP; i++) {
        if (!(mask >> i & 1))
            continue;
        if (first->op == EMU_SHFL && !(mask >> lane[i].from & 1))
            fail_thread(&lane[i], "%s reads lane %d, which is not in mask %08x", lane[i].name,
                        lane[i].from, mask);
        if (first->op == EMU_SHFL)
            lane[i].result = lane[lane[i].from].value;
        else if (first->op == EMU_BALLOT)
            all |= (lane[i].value != 0) << (uint64_t)i;
        else
            all = begun ? combine(first->op, all, lane[i].value) : lane[i].value;
        begun = true;
    }
    for (int i = 0; i < WARP; i++)
        if (mask >> i & 1) {
            if (first->op != EMU_SHFL)
                lane[i].result = first->op == EMU_EXCHANGE ? gathered : all;
            lane[i].state = READY;
        }
}

static bool same_op(const EmuThread *a, const EmuThread *b)
{
    return b->state == WAITS_WARP && a->op == b->op && a->mask == b->mask && a->line == b->line &&
           (a->file == b->file || strcmp(a->file, b->file) == 0);
}

static bool mask_has_arrived(const EmuThread *lane, int n_lanes, const EmuThread *t)
{
    if (n_lanes < WARP && t->mask >> n_lanes)
        return false;
    for (int i = 0; i < n_lanes; i++)
        if (t->mask >> i & 1 && !same_op(t, &lane[i]))
            return false;
    return true;
}

static int lanes_of(int warp)
{
    int n = sched.n - warp * WARP;
    return n < WARP ? n : WARP;
}

static void release_warps(void)
{
    for (int w = 0; w * WARP < sched.n; w++) {
        EmuThread *lane = &thread[w * WARP];
        for (int i = 0, n = lanes_of(w); i < n; i++)
            if (lane[i].state == WAITS_WARP && mask_has_arrived(lane, n, &lane[i]))
                finish_warp_op(lane, &lane[i]);
    }
}

static void add_ready(void)
{
    sched.n_ready = 0;
    for (int i = 0; i < sched.n; i++)
        if (thread[i].state == READY || thread[i].state == FRESH)
            sched.ready[sched.n_ready++] = i;
}

[[noreturn]] static void warp_is_stuck(const EmuThread *t)
{
    int first = (int)(t - thread) / WARP * WARP;
    for (int i = 0; i < WARP; i++) {
        const EmuThread *o = &thread[first + i];
        if (!(t->mask >> i & 1) || (first + i < sched.n && same_op(t, o)))
            continue;
        if (first + i >= sched.n)
            fail_thread(t, "%s: a lane of the mask never arrived: lane %d, the block ends before it",
                        t->name, i);
        if (o->state == DONE)
            fail_thread(t, "%s: a lane of the mask never arrived: lane %d has returned", t->name,
                        i);
        fail_thread(t, "%s, mask %08x: a lane of the mask never arrived: lane %d waits at %s:%d (%s, mask %08x)",
                    t->name, t->mask, i, o->file, o->line, o->name, o->mask);
    }
    fail_thread(t, "%s: stuck", t->name);
}

/* Nobody can run: the whole block is at one barrier, or the kernel is wrong. False: all are done. */
static bool release_block(void)
{
    const EmuThread *first = NULL, *done = NULL;
    for (int i = 0; i < sched.n; i++) {
        if (thread[i].state == WAITS_WARP)
            warp_is_stuck(&thread[i]);
        if (thread[i].state == DONE && !done)
            done = &thread[i];
        if (thread[i].state != DONE && !first)
            first = &thread[i];
    }
    if (!first)
        return false;
    if (done)
        fail_thread(first, "%s with exited threads: thread (%u,%u,%u) has returned", first->name,
                    done->index.thread.x, done->index.thread.y, done->index.thread.z);
    uint64_t count = 0;
    for (int i = 0; i < sched.n; i++) {
        EmuThread *t = &thread[i];
        if (t->op != first->op || t->line != first->line || strcmp(t->file, first->file) != 0)
            fail_thread(first, "divergent barrier: thread (%u,%u,%u) waits at %s:%d",
                        t->index.thread.x, t->index.thread.y, t->index.thread.z, t->file, t->line);
        count += t->value;
        t->state = READY;
    }
    for (int i = 0; i < sched.n; i++)
        thread[i].result = count;
    sched.n_barrier++;
    return true;
}

/* The next thread to run, NULL when the block is done. */
static EmuThread *pick(void)
{
    while (sched.next == sched.end) {
        add_ready();
        if (sched.n_ready == 0 || random_below(2)) { /* only a random round leaves some */
            release_warps();
            add_ready();
        }
        if (sched.n_ready == 0) {
            if (!release_block())
                return NULL;
            add_ready();
        }
        begin_round();
    }
    return &thread[sched.ready[sched.next++]];
}

/* ---- running ------------------------------------------------------------------------------------- */

static void run_thread(EmuThread *t, EmuFiber *on)
{
    t->fiber = on;
    t->state = READY;
    emu_now = &t->index;
    EMU_ACQUIRE(&sched.start_key);
    sched.launch->run(sched.launch->args);
    if (t->async.n_copies)
        fail_thread(t, "returned, and %d copies of cp_async16 are on their way", t->async.n_copies);
    EMU_RELEASE(&sched.end_key);
    t->state = DONE;
}

/* Under the race checker a fiber is one thread of a block, and all are made by the caller of the
 * launch: what makes a fiber is ordered before it. Otherwise a fiber goes on with the next thread. */
#ifdef EMU_TSAN
static const bool one_thread_a_fiber = true;
#else
static const bool one_thread_a_fiber = false;
#endif

/* The fiber that t waits on, or an idle one to begin it. */
static EmuFiber *fiber_for(EmuThread *t);

static void fiber_body(EmuFiber *me)
{
    for (;;) {
        EmuThread *t = self();
        do {
            run_thread(t, me);
            t = pick();
        } while (t && !t->fiber && !one_thread_a_fiber);
        sched.retired[sched.n_retired++] = me;
        if (t)
            emu_now = &t->index;
        emu_fiber_switch(me, t ? fiber_for(t) : sched.main);
    }
}

static EmuFiber *fiber_for(EmuThread *t)
{
    if (t->fiber)
        return t->fiber;
    return sched.n_pool ? sched.pool[--sched.n_pool] : emu_fiber_make(fiber_body);
}

static void wait_for_release(EmuThread *t)
{
    EmuThread *next = pick();
    emu_now = &next->index;
    if (next != t)
        emu_fiber_switch(t->fiber, fiber_for(next));
}

static EmuThread *arrive(State state, EmuOp op, const char *name, const char *file, int line)
{
    EmuThread *t = self();
    if (!t)
        emu_fail(file, line, "%s", name);
    t->op = op;
    t->name = name;
    t->file = file;
    t->line = line;
    t->state = state;
    return t;
}

int emu_lane(void)
{
    return (int)(self() - thread) % WARP;
}

/* Alternating keys for whole warps; a partial mask has one key, which may hide a race. */
static char *warp_key(EmuThread *t)
{
    char *key = sched.warp_key[(t - thread) / WARP];
    return t->mask == 0xffffffffu ? key + (t->n_syncwarp++ & 1) : key + 2 + __builtin_ctz(t->mask);
}

uint64_t emu_warp(EmuOp op, unsigned mask, uint64_t value, int from, const char *name,
                  const char *file, int line)
{
    EmuThread *t = arrive(WAITS_WARP, op, name, file, line);
    t->mask = mask;
    t->value = value;
    t->from = from;
    if (!(mask >> emu_lane() & 1))
        fail_thread(t, "%s by a lane that is not in mask %08x", name, mask);
    if (op == EMU_SHFL && (from < 0 || from >= WARP))
        fail_thread(t, "%s reads lane %d", name, from);
    char *key = op == EMU_SYNCWARP ? warp_key(t) : NULL; /* the others order nothing */
    if (key)
        EMU_RELEASE(key);
    wait_for_release(t);
    if (key)
        EMU_ACQUIRE(key);
    return t->result;
}

const EmuLanes *emu_exchange(const uint64_t *mine, int n, const char *name, const char *file,
                             int line)
{
    return (const EmuLanes *)emu_warp(EMU_EXCHANGE, 0xffffffffu, (uintptr_t)mine, n, name, file, line);
}

EmuAsync *emu_async(void)
{
    return &self()->async;
}

int emu_barrier(EmuOp op, int value, const char *name, const char *file, int line)
{
    EmuThread *t = arrive(WAITS_BLOCK, op, name, file, line);
    t->value = value != 0;
    char *key = &sched.barrier_key[sched.n_barrier & 1];
    EMU_RELEASE(key);
    wait_for_release(t);
    EMU_ACQUIRE(key);
    return (int)t->result;
}

/* ---- a launch ------------------------------------------------------------------------------------ */

extern char shared_begin[] __asm__("__start_emu_shared") __attribute__((weak, visibility("hidden")));
extern char shared_end[] __asm__("__stop_emu_shared") __attribute__((weak, visibility("hidden")));

/* By hand: memset would stop at the address sanitizer's zones between the arrays. */
static void poison(void *p, size_t n)
{
#ifdef __x86_64__
    asm volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(0xff) : "memory");
#else
    for (volatile unsigned char *c = (volatile unsigned char *)p; n; n--)
        *c++ = 0xff;
#endif
}

void *emu_dynamic_shared(const char *file, int line)
{
    if (!sched.dynamic)
        emu_fail(file, line, "DYN_SHARED, but the launch gave no dynamic shared memory");
    return sched.dynamic;
}

void emu_shared_access(const void *p, size_t n, const char *name, const char *file, int line)
{
    const char *c = (const char *)p, *dynamic = (const char *)sched.dynamic;
    bool in_static = c >= shared_begin && c + n <= shared_end;
    bool in_dynamic = dynamic && c >= dynamic && c + n <= dynamic + sched.launch->dynamic_bytes;
    if (!in_static && !in_dynamic)
        emu_fail(file, line, "%s at %p, which is not in shared memory", name, p);
    if ((uintptr_t)p % n)
        emu_fail(file, line, "%s at %p, which is misaligned", name, p);
}

static void check_launch(const EmuLaunch *l)
{
    dim3 g = l->grid, b = l->block;
    uint64_t n = (uint64_t)b.x * b.y * b.z;
    if (n == 0 || n > THREADS_MAX || b.z > 64)
        fail_thread(NULL, "a block of (%u,%u,%u) threads", b.x, b.y, b.z);
    if (g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7fffffff || g.y > 65535 || g.z > 65535)
        fail_thread(NULL, "a grid of (%u,%u,%u) blocks", g.x, g.y, g.z);
    if (l->dynamic_bytes > emu_smem_limit(l->kernel))
        fail_thread(NULL, "%zu bytes of dynamic shared memory, the kernel may have %zu",
                    l->dynamic_bytes, emu_smem_limit(l->kernel));
    if (!emu_stream_is_live(l->stream))
        fail_thread(NULL, "a stream that does not exist");
}

static void begin_block(uint64_t at)
{
    const EmuLaunch *l = sched.launch;
    dim3 g = l->grid;
    uint3 block = {(unsigned)(at % g.x), (unsigned)(at / g.x % g.y),
                   (unsigned)(at / g.x / g.y)};
    poison(shared_begin, (size_t)(shared_end - shared_begin));
    sched.dynamic = l->dynamic_bytes ? malloc(l->dynamic_bytes) : NULL;
    if (sched.dynamic)
        poison(sched.dynamic, l->dynamic_bytes);
    for (int i = 0; i < sched.n; i++) {
        thread[i].index.block = block;
        thread[i].state = FRESH;
        thread[i].fiber = NULL;
        thread[i].n_syncwarp = 0;
        thread[i].async.n_groups = 0;
        thread[i].file = NULL; /* no operation yet */
    }
    add_ready();
    begin_round();
}

static void run_block(uint64_t at)
{
    begin_block(at);
    EMU_RELEASE(&sched.start_key);
    EmuThread *first = pick();
    emu_now = &first->index;
    emu_fiber_switch(sched.main, fiber_for(first));
    EMU_ACQUIRE(&sched.end_key);
    emu_now = NULL;
    while (sched.n_retired)
        sched.pool[sched.n_pool++] = sched.retired[--sched.n_retired];
    free(sched.dynamic);
}

static uint64_t gcd(uint64_t a, uint64_t b)
{
    return b ? gcd(b, a % b) : a;
}

/* Block i of a random order is (i * step + first) % n, step prime to n. */
static void run_blocks(uint64_t n)
{
    uint64_t step = 1, first = 0;
    if (sched.order == RANDOM) {
        first = random_below(n);
        do
            step = 1 + random_below(n);
        while (gcd(step, n) != 1);
    }
    for (uint64_t i = 0; i < n; i++)
        run_block(sched.order == REVERSE ? n - 1 - i : (i * step % n + first) % n);
}

void emu_launch(const EmuLaunch *l)
{
    std::lock_guard<std::mutex> lock(one_launch); /* static shared memory is there once */
    sched.launch = l;
    check_launch(l);
    read_order();
    sched.main = emu_fiber_main();
    sched.n = (int)(l->block.x * l->block.y * l->block.z);
    for (int i = 0; i < sched.n; i++) {
        unsigned u = (unsigned)i;
        dim3 b = l->block;
        thread[i].index.thread = {u % b.x, u / b.x % b.y, u / b.x / b.y};
        thread[i].index.block_dim = b;
        thread[i].index.grid_dim = l->grid;
    }
    while (one_thread_a_fiber && sched.n_pool < sched.n)
        sched.pool[sched.n_pool++] = emu_fiber_make(fiber_body);
    emu_card_memory(true);
    run_blocks((uint64_t)l->grid.x * l->grid.y * l->grid.z);
    emu_card_memory(false);
    sched.launch = NULL;
}
