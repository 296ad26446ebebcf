/* acts.c - activations of one micro-batch, allocated by a slot table.
 *
 * A LIFE_LAYER slot is kept per layer when a backward pass follows that does not compute it again;
 * else one copy is shared among the layers, so forward-only work does not grow with depth. Tested by
 * tests/unit/test_model.c. */
#include "common/model/acts.h"

#include "common/base/error.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

typedef enum { LIFE_LAYER, LIFE_PASS, LIFE_BACKWARD } Lifetime;
enum { KEPT = RECOMPUTE_LEVELS };

/* half: bf16 where model_acts_dtype says so. width: '1' a vector (T), C channels, Q = H * D, G = K * D, H heads, K kv heads,
 * F feed-forward. again: the first level that computes it again; what it is made from is kept at that level
 * or comes before it in layer_again (llama.c). */
static const struct {
    const char *name;
    char width;
    Lifetime life;
    bool half;
    int again; /* a Recompute, or KEPT at every level */
} slots[ACTS_SLOTS] = {
    [A_X] = {"x", 'C', LIFE_LAYER, false, KEPT},
    [A_RSTD1] = {"rstd1", '1', LIFE_LAYER, false, RECOMPUTE_ELEMENTWISE},
    [A_N1] = {"n1", 'C', LIFE_LAYER, true, RECOMPUTE_ELEMENTWISE},
    [A_Q] = {"q", 'Q', LIFE_LAYER, true, RECOMPUTE_LAYER},
    [A_K] = {"k", 'G', LIFE_LAYER, true, RECOMPUTE_LAYER},
    [A_V] = {"v", 'G', LIFE_LAYER, true, RECOMPUTE_LAYER},
    [A_Q_RAW] = {"q_raw", 'Q', LIFE_LAYER, true, RECOMPUTE_LAYER},
    [A_K_RAW] = {"k_raw", 'G', LIFE_LAYER, true, RECOMPUTE_LAYER},
    [A_RSTD_Q] = {"rstd_q", 'H', LIFE_LAYER, false, RECOMPUTE_LAYER},
    [A_RSTD_K] = {"rstd_k", 'K', LIFE_LAYER, false, RECOMPUTE_LAYER},
    [A_O] = {"o", 'Q', LIFE_LAYER, true, RECOMPUTE_LAYER},
    [A_LSE] = {"lse", 'H', LIFE_LAYER, false, RECOMPUTE_LAYER},
    [A_MID] = {"mid", 'C', LIFE_LAYER, false, RECOMPUTE_LAYER},
    [A_RSTD2] = {"rstd2", '1', LIFE_LAYER, false, RECOMPUTE_ELEMENTWISE},
    [A_N2] = {"n2", 'C', LIFE_LAYER, true, RECOMPUTE_ELEMENTWISE},
    [A_GATE] = {"gate", 'F', LIFE_LAYER, true, RECOMPUTE_MLP},
    [A_UP] = {"up", 'F', LIFE_LAYER, true, RECOMPUTE_MLP},
    [A_ACT] = {"act", 'F', LIFE_LAYER, true, RECOMPUTE_ELEMENTWISE},
    [A_LAST] = {"last", 'C', LIFE_PASS, false, KEPT},
    [A_RSTD] = {"rstd", '1', LIFE_PASS, false, KEPT},
    [A_HIDDEN] = {"hidden", 'C', LIFE_PASS, false, KEPT},
    [A_DHIDDEN] = {"dhidden", 'C', LIFE_BACKWARD, false, KEPT},
    [A_DX] = {"dx", 'C', LIFE_BACKWARD, false, KEPT},
    [A_DY] = {"dy", 'C', LIFE_BACKWARD, true, KEPT},
    [A_DN] = {"dn", 'C', LIFE_BACKWARD, false, KEPT},
    [A_DQ] = {"dq", 'Q', LIFE_BACKWARD, true, KEPT},
    [A_DK] = {"dk", 'G', LIFE_BACKWARD, true, KEPT},
    [A_DV] = {"dv", 'G', LIFE_BACKWARD, true, KEPT},
    [A_DQ_RAW] = {"dq_raw", 'Q', LIFE_BACKWARD, true, KEPT},
    [A_DK_RAW] = {"dk_raw", 'G', LIFE_BACKWARD, true, KEPT},
    [A_DO] = {"do", 'Q', LIFE_BACKWARD, true, KEPT},
    [A_DELTA] = {"delta", 'H', LIFE_BACKWARD, false, KEPT},
    [A_DACT] = {"dact", 'F', LIFE_BACKWARD, true, KEPT},
};

struct Acts {
    ModelConfig config;
    DType half; /* what slots with `half` are */
    int64_t max_tokens;
    bool backward;
    Recompute recompute;
    Tensor *at[ACTS_SLOTS]; /* n_copies() tensors of max_tokens rows */
};

bool acts_has(const Acts *a, ActSlot slot)
{
    switch (slot) {
    case A_Q_RAW:
    case A_K_RAW:
    case A_RSTD_Q:
    case A_RSTD_K:
    case A_DQ_RAW:
    case A_DK_RAW:
        return a->config.qk_norm;
    case A_DY:
        return a->half == DTYPE_BF16;
    default:
        return true;
    }
}

bool acts_again(const Acts *a, ActSlot slot)
{
    return (int)a->recompute >= slots[slot].again;
}

static int64_t n_copies(const Acts *a, ActSlot slot)
{
    if (!acts_has(a, slot))
        return 0;
    switch (slots[slot].life) {
    case LIFE_LAYER:
        return a->backward && !acts_again(a, slot) ? a->config.L : 1;
    case LIFE_PASS:
        /* forward-only work runs every layer in place, from x to x */
        return slot == A_LAST && !a->backward ? 0 : 1;
    default:
        return a->backward ? 1 : 0;
    }
}

static int64_t width_of(const ModelConfig *c, char letter)
{
    switch (letter) {
    case 'C':
        return c->C;
    case 'Q':
        return c->H * c->D;
    case 'G':
        return c->K * c->D;
    case 'H':
        return c->H;
    case 'K':
        return c->K;
    case 'F':
        return c->F;
    default:
        return 0;
    }
}

Acts *acts_new(const Model *m, int64_t max_tokens, bool backward, Recompute recompute)
{
    CHECK(max_tokens > 0, "activations for %lld tokens", (long long)max_tokens);
    Acts *a = xcalloc(1, sizeof *a);
    a->config = m->table.config;
    a->half = model_acts_dtype(m);
    a->max_tokens = max_tokens;
    a->backward = backward;
    a->recompute = recompute;
    for (int s = 0; s < ACTS_SLOTS; s++)
        a->at[s] = xcalloc((size_t)n_copies(a, s), sizeof(Tensor));
    return a;
}

static Tensor slot_tensor(const Acts *a, ActSlot slot, Arena *arena)
{
    int64_t width = width_of(&a->config, slots[slot].width);
    return width ? arena_rows2(arena, slots[slot].half ? a->half : DTYPE_REAL, a->max_tokens, width)
                 : arena_rows1(arena, DTYPE_REAL, a->max_tokens);
}

void acts_alloc(Acts *a, Arena *arena)
{
    for (int s = 0; s < ACTS_SLOTS; s++)
        for (int64_t i = 0; i < n_copies(a, s); i++)
            a->at[s][i] = slot_tensor(a, s, arena);
}

void acts_free(Acts *a)
{
    if (!a)
        return;
    for (int s = 0; s < ACTS_SLOTS; s++)
        free(a->at[s]);
    free(a);
}

/* ---- the plan ------------------------------------------------------------------------------- */

typedef enum { PART_KEPT, PART_AGAIN, PART_ONCE, PARTS } Part;

static Part part_of(const Acts *a, ActSlot slot)
{
    return slots[slot].life != LIFE_LAYER ? PART_ONCE : acts_again(a, slot) ? PART_AGAIN : PART_KEPT;
}

/* As acts_alloc takes them. */
static size_t part_bytes(const Acts *a, Part part)
{
    Arena plan;
    arena_init(&plan, NULL, ARENA_DEVICE, "part");
    for (int s = 0; s < ACTS_SLOTS; s++)
        for (int64_t i = 0; part_of(a, s) == part && i < n_copies(a, s); i++)
            slot_tensor(a, s, &plan);
    return arena_planned(&plan);
}

static size_t level_bytes(const Acts *a, Recompute level)
{
    Acts other = *a;
    size_t sum = 0;
    other.recompute = level;
    for (int part = 0; part < PARTS; part++)
        sum += part_bytes(&other, part);
    return sum;
}

static void note_part(const Acts *a, Part part, const char *what, MemoryPlan *plan, const Arena *arena,
                      const char *whose)
{
    char size[32];
    Str names = {0};
    for (int s = 0; s < ACTS_SLOTS; s++)
        if (part_of(a, s) == part && acts_has(a, s))
            str_addf(&names, " %s", slots[s].name);
    if (names.n)
        memory_plan_note(plan, arena, "%s%s: %s,%s", whose, what, memory_size_text(size, part_bytes(a, part)),
                         str_get(&names));
    str_free(&names);
}

void acts_note(const Acts *a, MemoryPlan *plan, const Arena *arena, const char *whose)
{
    const char *name = RECOMPUTE_CHOICES;
    char size[32];
    Str levels = {0};
    note_part(a, PART_KEPT, "kept for every layer", plan, arena, whose);
    note_part(a, PART_AGAIN, "recomputed", plan, arena, whose);
    note_part(a, PART_ONCE, "once", plan, arena, whose);
    for (int level = 0; level < RECOMPUTE_LEVELS; level++) {
        int n = (int)strcspn(name, "|");
        str_addf(&levels, "%s %.*s %s", level ? "," : "", n, name, memory_size_text(size, level_bytes(a, level)));
        name += n + 1;
    }
    memory_plan_note(plan, arena, "%sall of these by gradient_checkpointing:%s", whose, str_get(&levels));
    str_free(&levels);
}

/* ---- views ---------------------------------------------------------------------------------- */

Tensor acts_view(const Acts *a, ActSlot slot, int64_t layer, int64_t T)
{
    if (slot == A_LAST && !a->backward)
        slot = A_X;
    int64_t n = n_copies(a, slot);
    CHECK(n > 0 && T > 0 && T <= a->max_tokens, "slot %s for %lld tokens, planned for %lld%s",
          slots[slot].name, (long long)T, (long long)a->max_tokens,
          a->backward ? "" : " and forward only");
    return tensor_slice(&a->at[slot][n > 1 ? layer : 0], 0, T);
}

const char *acts_slot_name(ActSlot slot)
{
    return slots[slot].name;
}

bool acts_has_backward(const Acts *a)
{
    return a->backward;
}

int64_t acts_max_tokens(const Acts *a)
{
    return a->max_tokens;
}

Tensor acts_hidden(const Acts *a, const Batch *b)
{
    return acts_view(a, A_HIDDEN, 0, b->T);
}

Tensor acts_dhidden(const Acts *a, const Batch *b)
{
    return acts_view(a, A_DHIDDEN, 0, b->T);
}
