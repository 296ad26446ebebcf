/* elementwise_rows.c - ops of rows with bf16 among their tensors, on a card. Their arithmetic is the one of
 * their f32 form, rounded once, so each is compared bit by bit with that op on the widened operands.
 * Widths around 8 (16 bytes), rows that are aligned and that are not. */
#include "tests/ops/test_ops.h"

#include <string.h>

typedef struct {
    int t, c, gap;
} Shape;

static const Shape shapes[] = {{1, 2, 0},   {3, 8, 0},    {5, 30, 0},   {7, 64, 8},   {4, 66, 3},
                               {33, 40, 0}, {2, 4104, 0}, {130, 16, 0}, {3, 12002, 0}};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

/* ---- bf16 on the host ---------------------------------------------------------------------------- */

static uint16_t half_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if (x != x)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static float half_value(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* The same values as f32 and as bf16. */
typedef struct {
    Tensor f, h;
} Pair;

static Pair pair(Case *c, const char *name, const Shape *s, Fill fill)
{
    Pair p = {case_rows(c, name, s->t, s->c, fill), case_gapped_of(c, name, DTYPE_BF16, s->t, s->c, s->gap)};
    for (int64_t i = 0; i < s->t; i++)
        for (int64_t j = 0; j < s->c; j++) {
            uint16_t h = half_of(*case_at(&p.f, i * s->c + j));
            ((uint16_t *)p.h.data)[i * p.h.stride + j] = h;
            *case_at(&p.f, i * s->c + j) = half_value(h);
        }
    return p;
}

/* What the bf16 op left is what the f32 op left, rounded. */
static void same_rounded(Case *c, const char *name, const Pair *p)
{
    device_sync(p->f.dev);
    for (int64_t i = 0; i < p->f.dim[0]; i++)
        for (int64_t j = 0; j < p->f.dim[1]; j++) {
            uint16_t want = half_of(*case_at(&p->f, i * p->f.dim[1] + j));
            uint16_t got = ((const uint16_t *)p->h.data)[i * p->h.stride + j];
            case_expect(c, got == want || (half_value(got) != half_value(got) && half_value(want) != half_value(want)),
                        "%s (%lld, %lld) is %a, not %a", name, (long long)i, (long long)j,
                        (double)half_value(got), (double)half_value(want));
        }
}

static void same_bits(Case *c, const char *name, const Tensor *a, const Tensor *b)
{
    device_sync(a->dev);
    case_expect(c, memcmp(a->data, b->data, tensor_bytes(a)) == 0, "%s is not the f32 op's", name);
}

/* ---- each op -------------------------------------------------------------------------------------- */

static void add(Case *c, const Shape *s)
{
    Pair b = pair(c, "b", s, FILL_EXTREME);
    Tensor a = case_rows(c, "a", s->t, s->c, FILL_EXTREME), y = case_rows(c, "y", s->t, s->c, FILL_ZERO);
    op_add(&y, &a, &b.f);
    op_add(&a, &a, &b.h);
    same_bits(c, "sum", &a, &y);
}

static void swiglu(Case *c, const Shape *s, Fill fill)
{
    Pair gate = pair(c, "gate", s, fill), up = pair(c, "up", s, fill), y = pair(c, "y", s, FILL_ZERO);
    op_swiglu(&y.f, &gate.f, &up.f);
    op_swiglu(&y.h, &gate.h, &up.h);
    same_rounded(c, "y", &y);
}

static void swiglu_backward(Case *c, const Shape *s)
{
    Pair gate = pair(c, "gate", s, FILL_NORMAL), up = pair(c, "up", s, FILL_NORMAL);
    Pair dy = pair(c, "dy", s, FILL_NORMAL);
    op_swiglu_backward(&gate.f, &up.f, &dy.f, &gate.f, &up.f);
    op_swiglu_backward(&gate.h, &up.h, &dy.h, &gate.h, &up.h);
    same_rounded(c, "dgate", &gate);
    same_rounded(c, "dup", &up);
}

static void rope(Case *c, const Shape *s, bool backward)
{
    enum { POSITIONS = 50 };
    const int64_t D = s->c % 3 == 0 ? s->c / 3 : s->c;
    Pair x = pair(c, "x", s, FILL_NORMAL);
    Tensor pos = case_ids(c, "pos", s->t, POSITIONS), table = case_rows(c, "table", POSITIONS, D, FILL_NORMAL);
    op_rope(&x.f, &pos, &table, D, backward);
    op_rope(&x.h, &pos, &table, D, backward);
    same_rounded(c, "x", &x);
}

static void gather(Case *c, const Shape *s)
{
    enum { ROWS = 21 };
    const Shape to = {ROWS, s->c, s->gap};
    Pair x = pair(c, "x", s, FILL_NORMAL), y = pair(c, "y", &to, FILL_ZERO);
    Tensor wide = case_rows(c, "widened", ROWS, s->c, FILL_ZERO), rows = case_ids(c, "rows", ROWS, s->t);
    op_gather_rows(&y.f, &x.f, &rows);
    op_gather_rows(&y.h, &x.h, &rows);
    op_gather_rows(&wide, &x.h, &rows);
    same_rounded(c, "y", &y);
    same_bits(c, "widened", &wide, &y.f);
    Pair again = pair(c, "again", &to, FILL_ZERO);
    again.f = y.f;
    op_gather_rows(&again.h, &x.f, &rows);
    same_rounded(c, "rounded", &again);
}

static void scatter(Case *c, const Shape *s)
{
    enum { ROWS = 9 };
    Pair x = pair(c, "x", s, FILL_NORMAL);
    Tensor y = case_rows(c, "y", ROWS, s->c, FILL_ZERO), z = case_rows(c, "z", ROWS, s->c, FILL_ZERO);
    Tensor rows = case_ids(c, "rows", s->t, ROWS);
    op_scatter_rows(&y, &x.f, &rows);
    op_scatter_rows(&z, &x.h, &rows);
    same_bits(c, "y", &z, &y);
}

static void rmsnorm(Case *c, const Shape *s)
{
    Pair x = pair(c, "x", s, FILL_NORMAL), y = pair(c, "y", s, FILL_ZERO);
    Tensor w = case_rows(c, "w", s->c, 0, FILL_NORMAL);
    Tensor r = case_rows(c, "rstd", s->t, 0, FILL_ZERO), q = case_rows(c, "rstd", s->t, 0, FILL_ZERO);
    op_rmsnorm(&y.f, &r, &x.f, &w, 1e-5);
    op_rmsnorm(&y.h, &q, &x.f, &w, 1e-5);
    same_rounded(c, "y", &y);
    same_bits(c, "rstd", &q, &r);
    op_rmsnorm(&x.h, &q, &x.h, &w, 1e-5); /* in place */
    y.h = x.h;
    same_rounded(c, "y in place", &y);
    same_bits(c, "rstd in place", &q, &r);
}

/* dx is added to: an f32 one, then a bf16 one. */
static void rmsnorm_backward(Case *c, const Shape *s)
{
    Pair x = pair(c, "x", s, FILL_NORMAL), dy = pair(c, "dy", s, FILL_NORMAL), dx = pair(c, "dx", s, FILL_NORMAL);
    Tensor w = case_rows(c, "w", s->c, 0, FILL_NORMAL), other = case_rows(c, "dx", s->t, s->c, FILL_ZERO);
    Tensor rstd = case_rows(c, "rstd", s->t, 0, FILL_POSITIVE), dw[3];
    Tensor starts = case_i32(c, "starts", (int32_t[]){0, s->t / 2, s->t}, 3);
    for (int i = 0; i < 3; i++)
        dw[i] = case_rows(c, "dw", s->c, 0, FILL_ZERO);
    op_convert(&other, &dx.f);
    op_rmsnorm_backward(&dx.f, &dw[0], &dy.f, &x.f, &w, &rstd, &starts, 1);
    op_rmsnorm_backward(&other, &dw[1], &dy.h, &x.f, &w, &rstd, &starts, 1);
    op_rmsnorm_backward(&dx.h, &dw[2], &dy.h, &x.h, &w, &rstd, &starts, 1);
    same_bits(c, "dx", &other, &dx.f);
    same_rounded(c, "rounded dx", &dx);
    same_bits(c, "dw", &dw[1], &dw[0]);
    same_bits(c, "dw of bf16 x", &dw[2], &dw[0]);
}

static void bias(Case *c, const Shape *s)
{
    Pair y = pair(c, "y", s, FILL_EXTREME);
    Tensor b = case_rows(c, "b", s->c, 0, FILL_NORMAL);
    op_bias(&y.f, &b);
    op_bias(&y.h, &b);
    same_rounded(c, "y", &y);
}

static void bias_backward(Case *c, const Shape *s)
{
    Pair dy = pair(c, "dy", s, FILL_NORMAL);
    Tensor starts = case_i32(c, "starts", (int32_t[]){0, s->t / 2, s->t}, 3);
    Tensor a = case_rows(c, "db", s->c, 0, FILL_ZERO), b = case_rows(c, "db", s->c, 0, FILL_ZERO);
    op_bias_backward(&a, &dy.f, &starts);
    op_bias_backward(&b, &dy.h, &starts);
    same_bits(c, "db", &b, &a);
}

static void embedding(Case *c, const Shape *s)
{
    enum { IDS = 40 };
    Pair w = pair(c, "w", s, FILL_NORMAL);
    Tensor ids = case_ids(c, "ids", IDS, s->t);
    Tensor x = case_rows(c, "x", IDS, s->c, FILL_ZERO), y = case_rows(c, "y", IDS, s->c, FILL_ZERO);
    op_embedding(&x, &ids, &w.f);
    op_embedding(&y, &ids, &w.h);
    same_bits(c, "y", &y, &x);
}

bool elementwise_rows(Case *c, ElementwiseRows op, int variant)
{
    if (case_perf(c) || case_grad(c) || variant < 0 || variant >= N_SHAPES)
        return false;
    if (case_card_only(c))
        return true;
    const Shape *s = &shapes[variant];
    switch (op) {
    case ROWS_ADD:
        add(c, s);
        break;
    case ROWS_SWIGLU:
        swiglu(c, s, variant % 2 ? FILL_EXTREME : FILL_NORMAL);
        break;
    case ROWS_SWIGLU_BACKWARD:
        swiglu_backward(c, s);
        break;
    case ROWS_ROPE:
        rope(c, s, variant % 2);
        break;
    case ROWS_GATHER:
        gather(c, s);
        break;
    case ROWS_SCATTER:
        scatter(c, s);
        break;
    case ROWS_RMSNORM:
        rmsnorm(c, s);
        break;
    case ROWS_RMSNORM_BACKWARD:
        rmsnorm_backward(c, s);
        break;
    case ROWS_BIAS:
        bias(c, s);
        break;
    case ROWS_BIAS_BACKWARD:
        bias_backward(c, s);
        break;
    case ROWS_EMBEDDING:
        embedding(c, s);
        break;
    }
    return true;
}
