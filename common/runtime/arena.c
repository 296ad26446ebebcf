/* arena.c - memory with one lifetime, planned before it is taken; see arena.h.
 *
 * While planning, `used` moves as it will later, and `planned` is the highest it got. Under
 * AddressSanitizer everything that no tensor covers is poisoned, so a body that writes past its
 * tensor or keeps one across arena_reset is named. Tested by tests/unit/test_runtime.c. */
#include "common/runtime/arena.h"

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/runtime/device.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN
#endif
#endif
#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#define ARENA_HIDE(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define ARENA_SHOW(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define ARENA_HIDE(p, n) ((void)(p), (void)(n))
#define ARENA_SHOW(p, n) ((void)(p), (void)(n))
#endif

static const char *const arena_kind_name[] = {"device", "pinned", "host", "shared"};

/* Device memory of a CPU is the host's. */
static bool arena_on_host(const Arena *a)
{
    return a->kind != ARENA_DEVICE || device_kind(a->dev) == DEVICE_CPU;
}

static void arena_hide(const Arena *a, size_t from, size_t n)
{
    if (arena_on_host(a))
        ARENA_HIDE(a->base + from, n);
}

static void arena_show(const Arena *a, size_t from, size_t n)
{
    if (arena_on_host(a))
        ARENA_SHOW(a->base + from, n);
}

void arena_init(Arena *a, Device *dev, ArenaKind kind, const char *name)
{
    *a = (Arena){.dev = dev, .kind = kind, .name = name};
}

/* At least one unit, so that a committed arena always has a base. */
static size_t arena_mapped(const Arena *a)
{
    return a->planned ? a->planned : ARENA_ALIGN;
}

int arena_commit(Arena *a)
{
    CHECK(!a->committed, "arena '%s' is committed twice", a->name);
    a->base = device_alloc(a->dev, arena_mapped(a), a->kind);
    if (!a->base)
        return error_set(
            ERR_UNAVAILABLE,
            "memory: the system did not give %zu bytes for '%s' (%s); it has %zu bytes", a->planned,
            a->name, device_text(a->dev), device_memory_bytes(a->dev));
    a->committed = true;
    a->used = a->high = 0;
    arena_hide(a, 0, arena_mapped(a));
    return 0;
}

void arena_free(Arena *a)
{
    if (a->base) {
        arena_show(a, 0, arena_mapped(a));
        device_free(a->dev, a->base, arena_mapped(a), a->kind);
    }
    *a = (Arena){0};
}

static void *arena_take(Arena *a, size_t bytes)
{
    size_t room = (bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    CHECK(room >= bytes && a->used + room >= a->used, "%zu bytes for '%s'", bytes, a->name);
    size_t at = a->used;
    a->used += room;
    if (a->used > a->high)
        a->high = a->used;
    if (!a->committed) {
        a->planned = a->high;
        return NULL;
    }
    CHECK(a->used <= a->planned,
          "arena '%s': %zu bytes more than were planned (%zu): the second run of the allocation "
          "code asked for other sizes than the first",
          a->name, a->used - a->planned, a->planned);
    arena_show(a, at, bytes);
    return a->base + at;
}

Tensor arena_tensor(Arena *a, DType dtype, Layout layout, int n_dims, const int64_t *dims)
{
    CHECK(n_dims >= 1 && n_dims <= TENSOR_MAX_DIMS, "arena '%s': %d dims", a->name, n_dims);
    CHECK(layout != LAYOUT_PANEL || n_dims == 2, "arena '%s': a panel of %d dims", a->name, n_dims);
    Tensor t = {.dev = a->dev, .dtype = dtype, .layout = layout, .n_dims = n_dims};
    for (int i = 0; i < n_dims; i++) {
        CHECK(dims[i] >= 0, "arena '%s': dim %d is %lld", a->name, i, (long long)dims[i]);
        t.dim[i] = dims[i];
    }
    t.stride = dims[n_dims - 1];
    t.data = arena_take(a, tensor_bytes(&t));
    return t;
}

Tensor arena_rows1(Arena *a, DType dtype, int64_t d0)
{
    return arena_tensor(a, dtype, LAYOUT_ROWS, 1, (int64_t[]){d0});
}

Tensor arena_rows2(Arena *a, DType dtype, int64_t d0, int64_t d1)
{
    return arena_tensor(a, dtype, LAYOUT_ROWS, 2, (int64_t[]){d0, d1});
}

Tensor arena_rows3(Arena *a, DType dtype, int64_t d0, int64_t d1, int64_t d2)
{
    return arena_tensor(a, dtype, LAYOUT_ROWS, 3, (int64_t[]){d0, d1, d2});
}

Tensor arena_panel(Arena *a, DType dtype, int64_t n, int64_t k)
{
    return arena_tensor(a, dtype, LAYOUT_PANEL, 2, (int64_t[]){n, k});
}

void *arena_bytes(Arena *a, size_t n)
{
    CHECK(a->kind != ARENA_DEVICE || device_kind(a->dev) == DEVICE_CPU,
          "arena '%s': bytes of device memory are not for the host", a->name);
    return arena_take(a, n);
}

size_t arena_mark(const Arena *a)
{
    return a->used;
}

void arena_reset(Arena *a, size_t mark)
{
    CHECK(mark <= a->used, "arena '%s': reset to %zu, beyond the %zu in use", a->name, mark,
          a->used);
    if (a->base)
        arena_hide(a, mark, a->used - mark);
    a->used = mark;
}

ArenaShare arena_share(Arena *a)
{
    return (ArenaShare){.arena = a, .from = a->used, .end = a->used};
}

/* Not arena_reset: the bytes stay in use. */
static void part_end(ArenaShare *s)
{
    Arena *a = s->arena;
    if (s->n > 0)
        s->part[s->n - 1].bytes = a->used - s->from;
    s->end = a->used > s->end ? a->used : s->end;
    a->used = s->from;
}

void arena_share_part(ArenaShare *s, const char *name)
{
    CHECK(s->n < ARENA_PARTS_MAX, "arena '%s': more than %d parts", s->arena->name, ARENA_PARTS_MAX);
    part_end(s);
    s->part[s->n++].name = name;
}

void arena_share_end(ArenaShare *s)
{
    part_end(s);
    s->arena->used = s->end;
}

size_t arena_planned(const Arena *a)
{
    return a->planned;
}

bool arena_is_on_card(const Arena *a)
{
    return !arena_on_host(a);
}

const char *arena_kind_text(const Arena *a)
{
    return arena_kind_name[a->kind];
}

size_t arena_high(const Arena *a)
{
    return a->high;
}

/* ---- the plan of a whole program ------------------------------------------------------------- */

const char *memory_size_text(char s[32], size_t bytes)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double x = (double)bytes;
    int u = 0;
    for (; x >= 1024 && u < 4; u++)
        x /= 1024;
    snprintf(s, 32, u ? "%.2f %s" : "%.0f %s", x, unit[u]);
    return s;
}

static size_t host_bytes(void)
{
    return (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
}

void memory_plan_add(MemoryPlan *p, Arena *a)
{
    CHECK(p->n < MEMORY_PLAN_MAX, "more than %d arenas in one plan", MEMORY_PLAN_MAX);
    p->arena[p->n++] = a;
}

void memory_plan_note(MemoryPlan *p, const Arena *of, const char *fmt, ...)
{
    CHECK(p->n_notes < MEMORY_NOTES_MAX, "more than %d notes in one plan", MEMORY_NOTES_MAX);
    MemoryNote *note = &p->note[p->n_notes++];
    va_list ap;
    va_start(ap, fmt);
    note->of = of;
    vsnprintf(note->text, sizeof note->text, fmt, ap);
    va_end(ap);
}

void memory_plan_note_share(MemoryPlan *p, const ArenaShare *s)
{
    char size[32];
    Str parts = {0};
    if (s->n < 2)
        return;
    for (int i = 0; i < s->n; i++)
        str_addf(&parts, "%s %s %s", i ? "," : "", s->part[i].name, memory_size_text(size, s->part[i].bytes));
    memory_plan_note(p, s->arena, "one at a time in the same %s:%s", memory_size_text(size, s->end - s->from),
                     str_get(&parts));
    str_free(&parts);
}

void memory_plan_print(const MemoryPlan *p)
{
    char s[32];
    size_t total = 0;
    log_info("%-24s %-8s %18s", "memory", "kind", "bytes");
    for (int i = 0; i < p->n; i++) {
        const Arena *a = p->arena[i];
        log_info("%-24s %-8s %18zu  %s", a->name, arena_kind_name[a->kind], a->planned,
                 memory_size_text(s, a->planned));
        for (int k = 0; k < p->n_notes; k++)
            if (p->note[k].of == a)
                log_info("  %s", p->note[k].text);
        total += a->planned;
    }
    log_info("%-24s %-8s %18zu  %s", "total", "", total, memory_size_text(s, total));
    log_info("%-24s %-8s %18zu  %s", "this machine has", "", host_bytes(),
             memory_size_text(s, host_bytes()));
}

/* "weights 12.00 GiB, gradients 12.00 GiB" */
static void plan_parts(Str *text, const MemoryPlan *p, bool host)
{
    char s[32];
    for (int i = 0; i < p->n; i++)
        if (arena_on_host(p->arena[i]) == host)
            str_addf(text, "%s%s %s", text->n ? ", " : "", p->arena[i]->name,
                     memory_size_text(s, p->arena[i]->planned));
}

static int plan_fits(const MemoryPlan *p, bool host, const char *advice)
{
    size_t need = 0, have = host ? host_bytes() : 0;
    for (int i = 0; i < p->n; i++) {
        if (arena_on_host(p->arena[i]) != host)
            continue;
        need += p->arena[i]->planned;
        if (!host)
            have = device_memory_bytes(p->arena[i]->dev);
    }
    if (need <= have)
        return 0;
    char s[32], h[32];
    Str parts = {0};
    plan_parts(&parts, p, host);
    int rc = error_set(ERR_UNAVAILABLE, "memory: %s are needed (%s), the %s has %s%s%s",
                       memory_size_text(s, need), str_get(&parts), host ? "machine" : "device",
                       memory_size_text(h, have), advice && *advice ? "; " : "", advice ? advice : "");
    str_free(&parts);
    return rc;
}

int memory_plan_commit(MemoryPlan *p, const char *advice)
{
    int rc;
    TRY(plan_fits(p, true, advice));
    TRY(plan_fits(p, false, advice));
    for (int i = 0; i < p->n; i++)
        if (!p->arena[i]->committed)
            TRY(arena_commit(p->arena[i]));
    return 0;
fail:
    return rc;
}

void memory_plan_verify(const MemoryPlan *p)
{
    for (int i = 0; i < p->n; i++)
        CHECK(p->arena[i]->high == p->arena[i]->planned,
              "arena '%s' planned %zu bytes, at most %zu were in use", p->arena[i]->name,
              p->arena[i]->planned, p->arena[i]->high);
}
