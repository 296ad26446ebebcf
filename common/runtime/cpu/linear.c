/* linear.c - the three products of a linear layer: how blocks of the operands pass through the
 * caches to the tile of linear_tile.h. b is a weight panel (forward), a panel of the transposed
 * weight (dx), or a panel of dy with the weight's rows as i (dw).
 *
 * bf16 operands: a chain of VDPBF16PS is the chain of f32 multiply-adds over the rounded operands
 * in the same order with denormals flushed (bf16.h). Where the processor has the instruction, a
 * step of the chain is a pair; elsewhere operands are widened as they are packed and the tile is
 * the one of f32. Tested by tests/ops/linear.c and tests/unit/test_bf16.c. */
#include "common/runtime/cpu/linear_pack.h"

/* A part goes through its share in pieces of rows x panels, and for each through the chain in blocks: rows
 * of a are packed for a block, panels of b one after the other, and the c of a piece stays in the second
 * cache meanwhile. Few rows are packed for the whole chain and the panels done one by one: so a weight
 * is read from its first byte to its last, as the processor prefetches. Where y and weights pass through
 * the second cache together, writing its scattered rows takes a third off the rate of that reading: a
 * panel of c is summed in a place of its own and leaves past the caches. */
enum {
    A_WORDS = ROWS_FIT * A_ROW, /* 371 KiB in f32 */
    B_BLOCK = J_MAX * PANEL_N,
    B_WORDS = FEW_PANELS * B_BLOCK,
    PIECE_PANELS = 20, /* 780 KiB of c */
    WHOLE_TILES = 6,   /* up to so many are packed for the whole chain if that fits */
    PAST_BYTES = 1 << 20, /* of a weight from which on its y is gone from the second cache at its next use */
    C_WORDS = WHOLE_TILES * ROWS_MAX * PANEL_N,
    SCRATCH_WORDS = A_WORDS + B_WORDS + C_WORDS,
    WIDEN_TILES = 3,   /* for more, a bf16 panel is widened once and not in each tile */
};

typedef enum { FORWARD, DX, DW } Kind;

/* One product: dst (+)= a chain of `chain` elements, over rows x lanes. */
typedef struct {
    Kind kind;
    Tensor *dst;
    const Tensor *a, *b;
    bool bf16, accumulate;
    int64_t rows, lanes, chain;
} Linear;

/* A piece of it: rows [row, row + n_rows), panels [panel, end), and a part of the chain. */
typedef struct {
    int64_t row, n_rows, panel, end, from, n;
} Piece;

/* The chain's blocks: whole panels of n, which dx needs, and as even as these allow. */
static int64_t block_length(const Linear *op)
{
    const int64_t most = J_MAX * step_elements(op->bf16), n_blocks = (op->chain + most - 1) / most;
    return n_blocks > 1 ? panels_of((op->chain + n_blocks - 1) / n_blocks) * PANEL_N : most;
}

static int64_t blocks_of(const Linear *op, int64_t n)
{
    return (n + block_length(op) - 1) / block_length(op);
}

static bool takes_whole_chain(const Linear *op, int64_t n_rows)
{
    return op->kind != DW && tiles_of(n_rows) <= WHOLE_TILES &&
           blocks_of(op, op->chain) * n_rows * A_ROW <= A_WORDS;
}

/* How far a piece of so many rows goes along the chain from an element on. */
static int64_t piece_length(const Linear *op, int64_t n_rows, int64_t from)
{
    return least(takes_whole_chain(op, n_rows) ? op->chain : block_length(op), op->chain - from);
}

static Step step_of(const Linear *op, const Piece *s)
{
    if (!op->bf16)
        return STEP_REAL;
    if (PAIRS)
        return STEP_PAIR;
    bool in_tile = VF_LANES > 1 && op->kind == FORWARD && tiles_of(s->n_rows) <= WIDEN_TILES;
    return in_tile ? STEP_WIDEN : STEP_FLUSH;
}

/* Element (row, lane 0 of panel q) of the destination, and how far others are. */
static void set_destination(const Linear *op, Product *p, int64_t row, int64_t q)
{
    const bool dw = op->kind == DW;
    p->c_row = dw ? PANEL_N : op->dst->stride;
    p->c_panel = dw ? PANEL_N * op->dst->dim[1] : PANEL_N;
    p->c = real_data(op->dst) + row * p->c_row + q * p->c_panel;
}

static void pack_a(const Linear *op, real_t *a, const Piece *s)
{
    if (op->kind == DW)
        pack_columns(a, op->a, s->from, s->n, s->row, s->n_rows, op->bf16);
    else
        pack_rows(a, op->a, s->row, s->n_rows, s->from, s->n, op->bf16);
}

/* The piece's block of panels [q, end), packed one after the other. */
static void pack_b(const Linear *op, real_t *b, const Piece *s, int64_t q, int64_t end)
{
    for (; q < end; q++, b += B_BLOCK)
        if (op->kind == DW)
            pack_lanes(b, op->b, s->from, s->n, q * PANEL_N,
                       least(PANEL_N, op->lanes - q * PANEL_N), op->bf16);
        else if (op->kind == DX)
            pack_transposed(b, op->b, s->from, s->n, q * PANEL_N);
        else
            widen_panel(b, op->b, q, s->from, s->n);
}

/* Where the weight's block of panel q begins, in words. */
static const real_t *weight_block(const Linear *op, const Piece *s, int64_t q)
{
    const int64_t rows = panel_rows(op->b), words = op->bf16 ? PANEL_N / 2 : PANEL_N;
    const real_t *w = op->b->data;
    if (op->kind == DX)
        return w + s->from * rows + q * words * PANEL_N;
    return w + (q * rows + (op->bf16 ? s->from / 2 : s->from)) * PANEL_N;
}

/* What a product asks for meanwhile: of what will be read of b, the block of panel q. */
static Ahead block_ahead(const Linear *op, const Piece *s, Step step, int64_t n_j, int64_t q)
{
    if (op->kind == DW) {
        const int64_t stride = op->b->stride, each = step_elements(op->bf16);
        return (Ahead){real_data(op->b) + s->from * stride + q * PANEL_N, stride * each,
                       each > 1 ? stride : LINE, 2, false};
    }
    const real_t *at = weight_block(op, s, q);
    if (op->kind == DX) {
        const int64_t words = (op->bf16 ? PANEL_N / 2 : PANEL_N) * PANEL_N;
        return (Ahead){at, words / J_MAX + 1, panel_rows(op->b) * PANEL_N, s->n / PANEL_N, false};
    }
    const int64_t n_tiles = tiles_of(s->n_rows), words = step == STEP_FLUSH ? PANEL_N / 2 : PANEL_N;
    const int64_t each = (words + n_tiles - 1) / n_tiles;
    return (Ahead){at, each, n_j * each, words / each, each > LINE};
}

/* What pack_a will read for the next piece, to be asked for during n_products; not for few rows, which
 * are soon there. */
static Later source_of_a(const Linear *op, const Piece *s, int64_t n_products)
{
    if (tiles_of(s->n_rows) <= WIDEN_TILES)
        return (Later){0};
    bool dw = op->kind == DW;
    int64_t row = dw ? s->from : s->row, n_rows = dw ? s->n : s->n_rows;
    int64_t col = dw ? s->row : s->from, n_cols = dw ? s->n_rows : s->n;
    int64_t per_row = (n_cols + LINE - 1) / LINE;
    return (Later){.at = real_data(op->a) + row * op->a->stride + col,
                   .stride = op->a->stride,
                   .per_row = per_row,
                   .lines = per_row * n_rows,
                   .n_products = n_products};
}

/* The block of a piece that begins at element `from` of the chain. */
static Piece block_of(const Linear *op, const Piece *s, int64_t from)
{
    Piece t = *s;
    t.from = from;
    t.n = least(block_length(op), s->from + s->n - from);
    return t;
}

/* A panel of c to its place. */
static void move_out(real_t *c, int64_t c_row, const real_t *from, int64_t rows, int64_t lanes)
{
    const bool vectors = lanes % VF_LANES == 0 && ((uintptr_t)c | (uintptr_t)c_row * sizeof *c) % sizeof(vf) == 0;
    for (int64_t i = 0; i < rows; i++, c += c_row, from += PANEL_N) {
        if (!vectors)
            memcpy(c, from, (size_t)lanes * sizeof *c);
        for (int64_t l = 0; vectors && l < lanes; l += VF_LANES)
            vf_store_past(c + l, vf_load(from + l));
    }
}

/* All blocks of a piece for the panels [q, end). */
static void run_panels(const Linear *op, Product *p, const real_t *a, real_t *b, const Piece *s, int64_t q, int64_t end)
{
    const bool packed = op->kind != FORWARD || p->step == STEP_FLUSH;
    const int64_t lanes = least(op->lanes, end * PANEL_N) - q * PANEL_N, after = s->from + s->n;
    int64_t from = s->from;
    do { /* once at least: no chain is a zero */
        const Piece t = block_of(op, s, from);
        const bool last = from + t.n == after;
        const Piece follows = block_of(op, s, last ? s->from : from + t.n);
        if (packed) /* just before use: the block is still in the first cache */
            pack_b(op, b, &t, q, end);
        p->n_j = p->step >= STEP_WIDEN ? (t.n + 1) / 2 : t.n;
        p->accumulate = op->accumulate || from > 0;
        p->a = a;
        p->b = packed ? b : weight_block(op, &t, q);
        p->b_panel = packed ? B_BLOCK : panel_rows(op->b) * PANEL_N;
        p->ahead = block_ahead(op, &follows, p->step, p->n_j, last ? end : q);
        product(p, s->n_rows, lanes);
        p->later.product++;
        a += s->n_rows * A_ROW;
        from += t.n;
    } while (from < after);
}

static void run_piece(const Linear *op, real_t *scratch, const Piece *s, const Piece *next)
{
    real_t *a = scratch, *b = a + A_WORDS, *c = b + B_WORDS;
    const int64_t n_blocks = blocks_of(op, s->n);
    const int64_t group = s->n_rows <= FEW_ROWS ? FEW_PANELS : 1;
    const bool apart = group == 1 && !op->accumulate && takes_whole_chain(op, s->n_rows) &&
                       tensor_bytes(op->b) >= PAST_BYTES;
    Product p = {.step = step_of(op, s),
                 .along_j = op->kind != DW,
                 .later = next ? source_of_a(op, next, (s->end - s->panel) * n_blocks) : (Later){0}};
    for (int64_t i = 0; i < n_blocks; i++) {
        const Piece t = block_of(op, s, s->from + i * block_length(op));
        pack_a(op, a + i * s->n_rows * A_ROW, &t);
    }
    for (int64_t q = s->panel; q < s->end; q += group) {
        const int64_t end = least(q + group, s->end);
        set_destination(op, &p, s->row, q);
        real_t *to = p.c;
        const int64_t to_row = p.c_row;
        if (apart)
            p.c = c, p.c_row = PANEL_N, p.c_panel = 0;
        run_panels(op, &p, a, b, s, q, end);
        if (apart)
            move_out(to, to_row, c, s->n_rows, least(PANEL_N, op->lanes - q * PANEL_N));
    }
}

/* A part's share of an op and how it is cut into pieces. */
typedef struct {
    const Linear *op;
    int64_t row[2], panel[2];
    int64_t tiles, n_panels, by_rows, by_panels;
} Share;

static Share share_of(const Linear *op, int part, int n_parts)
{
    Share h = {.op = op};
    grid(part, n_parts, op->rows, panels_of(op->lanes), h.row, h.panel);
    const int64_t fit = ROWS_FIT / ROWS_MAX;
    h.tiles = tiles_of(h.row[1] - h.row[0]);
    h.n_panels = h.panel[1] - h.panel[0];
    if (!h.tiles || !h.n_panels)
        return h;
    h.by_rows = (h.tiles + fit - 1) / fit;
    const bool whole = h.by_rows == 1 && takes_whole_chain(op, h.row[1] - h.row[0]);
    h.by_panels = whole || h.tiles == 1 ? 1 : (h.n_panels + PIECE_PANELS - 1) / PIECE_PANELS;
    return h;
}

/* Piece number i of by_rows x by_panels, before the chain is cut. */
static Piece piece_of(const Share *h, int64_t i)
{
    const int64_t r = i / h->by_panels, q = i % h->by_panels;
    Piece s = {.row = h->row[0] + h->tiles * r / h->by_rows * ROWS_MAX,
               .panel = h->panel[0] + h->n_panels * q / h->by_panels,
               .end = h->panel[0] + h->n_panels * (q + 1) / h->by_panels};
    s.n_rows = least(h->row[1], h->row[0] + h->tiles * (r + 1) / h->by_rows * ROWS_MAX) - s.row;
    return s;
}

static void linear_part(int part, int n_parts, void *ctx)
{
    const Linear *op = ctx;
    const Share h = share_of(op, part, n_parts);
    const int64_t n = h.by_rows * h.by_panels;
    real_t *scratch = device_scratch(op->dst->dev, part, SCRATCH_WORDS * sizeof *scratch);
    Bf16Scope scope = bf16_begin(op->bf16);
    for (int64_t i = 0; i < n; i++) {
        Piece s = piece_of(&h, i), next;
        do {
            s.n = piece_length(op, s.n_rows, s.from);
            next = s;
            next.from += s.n;
            if (next.from >= op->chain && i + 1 < n)
                next = piece_of(&h, i + 1);
            next.n = piece_length(op, next.n_rows, next.from);
            run_piece(op, scratch, &s, next.n > 0 ? &next : NULL);
            s.from += s.n;
        } while (s.from < op->chain);
    }
    bf16_end(scope);
    vf_fence();
}

/* Multiply-adds at 50 a nanosecond, and the weight's bytes at 20. */
static void run(Linear op)
{
    double macs = (double)op.rows * (double)op.lanes * (double)op.chain;
    double tokens = (double)(op.kind == DW ? op.chain : op.rows);
    double weight_bytes = tokens > 0 ? macs / tokens * sizeof(real_t) : 0;
    cpu_run(op.dst->dev, linear_part, &op, macs / (VF_LANES * 3.0) + weight_bytes / 20);
}

void CPU_OP(linear)(Tensor *y, const Tensor *x, const Tensor *w, bool accumulate)
{
    run((Linear){.kind = FORWARD,
                 .dst = y,
                 .a = x,
                 .b = w,
                 .bf16 = w->dtype == DTYPE_BF16,
                 .accumulate = accumulate,
                 .rows = x->dim[0],
                 .lanes = w->dim[0],
                 .chain = w->dim[1]});
}

void CPU_OP(linear_dx)(Tensor *dx, const Tensor *dy, const Tensor *w, bool accumulate)
{
    run((Linear){.kind = DX,
                 .dst = dx,
                 .a = dy,
                 .b = w,
                 .bf16 = w->dtype == DTYPE_BF16,
                 .accumulate = accumulate,
                 .rows = dy->dim[0],
                 .lanes = w->dim[1],
                 .chain = w->dim[0]});
}

/* The weight's rows k are the tile's rows: 32 lanes of n for each, tokens m the chain. */
void CPU_OP(linear_dw)(Tensor *dw, const Tensor *dy, const Tensor *x, DType operands,
                       bool accumulate)
{
    run((Linear){.kind = DW,
                 .dst = dw,
                 .a = x,
                 .b = dy,
                 .bf16 = operands == DTYPE_BF16,
                 .accumulate = accumulate,
                 .rows = dw->dim[1],
                 .lanes = dw->dim[0],
                 .chain = dy->dim[0]});
}
