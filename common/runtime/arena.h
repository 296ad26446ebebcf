/* arena.h - owns bytes; one arena per lifetime (weights, gradients, optimizer, activations, rollout).
 *
 * The memory plan *is* the allocation code run without memory. An arena starts in planning: tensors
 * get data = NULL and only the sum grows. arena_commit() maps that many bytes at once (huge pages
 * where the system gives them) and rewinds; running the same allocation code again hands out real
 * memory, and asking for one byte more than planned is a CHECK. So
 *
 *     arena_init(&a, dev, ARENA_DEVICE, "weights");
 *     build(&a, &thing);              planning: thing's tensors have data = NULL
 *     arena_commit(&a);               or, under --dry-run, print arena_planned(&a) and stop
 *     build(&a, &thing);              the same calls: now with memory, zero-filled
 *
 * Nothing is allocated inside a step: steps take views of what was allocated for the largest size,
 * or use mark/reset in a scratch arena whose plan ran at the largest size. */
#ifndef RLHF_RUNTIME_ARENA_H
#define RLHF_RUNTIME_ARENA_H

#include "common/runtime/tensor.h"

/* SHARED: seen by host and device alike; slow, for tests that poke into tensors. */
typedef enum { ARENA_DEVICE, ARENA_PINNED, ARENA_HOST, ARENA_SHARED } ArenaKind;

enum { ARENA_ALIGN = 256 }; /* every tensor starts at a multiple of this */

typedef struct Arena {
    Device *dev;
    ArenaKind kind;
    const char *name;
    unsigned char *base; /* NULL while planning */
    size_t used, planned, high; /* bytes */
    bool committed;
} Arena;

void arena_init(Arena *a, Device *dev, ArenaKind kind, const char *name);
int arena_commit(Arena *a); /* ERR_UNAVAILABLE with the sizes when the memory is not there */
void arena_free(Arena *a);  /* zeroed and freed arenas are fine */

Tensor arena_tensor(Arena *a, DType dtype, Layout layout, int n_dims, const int64_t *dims);
Tensor arena_rows1(Arena *a, DType dtype, int64_t d0);
Tensor arena_rows2(Arena *a, DType dtype, int64_t d0, int64_t d1);
Tensor arena_rows3(Arena *a, DType dtype, int64_t d0, int64_t d1, int64_t d2);
Tensor arena_panel(Arena *a, DType dtype, int64_t n, int64_t k);
void *arena_bytes(Arena *a, size_t n); /* host and pinned arenas; NULL while planning */

size_t arena_mark(const Arena *a);
void arena_reset(Arena *a, size_t mark);

/* Parts that are never in use at the same time, on the same bytes:
 *
 *     ArenaShare s = arena_share(&a);
 *     arena_share_part(&s, "policy");
 *     build(&a, &policy);
 *     arena_share_part(&s, "critic");
 *     build(&a, &critic);
 *     arena_share_end(&s);            what follows lies behind the largest
 *
 * Once another part was used, a part's memory holds whatever bits that one left: it writes before it reads. */
enum { ARENA_PARTS_MAX = 8 };
typedef struct {
    Arena *arena;
    size_t from, end; /* offsets */
    int n;
    struct {
        const char *name;
        size_t bytes;
    } part[ARENA_PARTS_MAX];
} ArenaShare;

ArenaShare arena_share(Arena *a);
void arena_share_part(ArenaShare *s, const char *name);
void arena_share_end(ArenaShare *s);

size_t arena_planned(const Arena *a); /* bytes the plan asked for */
bool arena_is_on_card(const Arena *a); /* else its bytes are the host's */
const char *arena_kind_text(const Arena *a); /* "device" */
size_t arena_high(const Arena *a);    /* most bytes in use since commit; equals the plan */

/* A list of arenas for --dry-run, the refusal before step 0 and the high-water check; and lines that say what
 * is in them. */
enum { MEMORY_PLAN_MAX = 32, MEMORY_NOTES_MAX = 16 };
typedef struct {
    const Arena *of;
    char text[192];
} MemoryNote;
typedef struct {
    Arena *arena[MEMORY_PLAN_MAX];
    MemoryNote note[MEMORY_NOTES_MAX];
    int n, n_notes;
} MemoryPlan;

void memory_plan_add(MemoryPlan *p, Arena *a);
void memory_plan_note(MemoryPlan *p, const Arena *of, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void memory_plan_note_share(MemoryPlan *p, const ArenaShare *s); /* its parts and their sizes */
const char *memory_size_text(char s[32], size_t bytes); /* "1.50 GiB" */
/* A table: name, kind, bytes, with the notes under each; total; memory of the machine. */
void memory_plan_print(const MemoryPlan *p);
/* Commits all arenas; refuses (ERR_UNAVAILABLE, naming `advice`, the settings that would help) when
 * the sum exceeds what the device and the host have. */
int memory_plan_commit(MemoryPlan *p, const char *advice);
/* CHECKs that each arena's high-water mark equals its plan; called at the end of step 1. */
void memory_plan_verify(const MemoryPlan *p);

#endif
