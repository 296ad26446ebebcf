/* elementwise.cu - ops whose elements do not meet: sums, SwiGLU, RoPE, copies between dtypes and
 * layouts, rows by index. Dense tensors are one long row (span.h); between layouts, tiles of 32 x
 * 32 pass through shared memory so that both sides are read and written in whole lines.
 * scatter_rows, where elements may meet, sorts the rows by destination: a destination is one chain.
 * Tested by tests/ops/elementwise.c. */
#include "common/runtime/cuda/mixed.h"

#include "common/runtime/cpu/formula.h"

/* f(a, b) of each of four columns. */
#define MAP4(f, a, b) make_float4(f(a.x, b.x), f(a.y, b.y), f(a.z, b.z), f(a.w, b.w))

/* ---- y = a + b ------------------------------------------------------------------------------- */

static __device__ __forceinline__ float sum_of(float a, float b)
{
    return a + b;
}

SPAN_KERNEL add_kernel(Span s, float *y, int64_t y_stride, const float *a, int64_t a_stride,
                       const float *b, int64_t b_stride)
{
    SPAN_ROWS(r, s)
    {
        float *to = y + r * y_stride;
        const float *p = a + r * a_stride, *q = b + r * b_stride;
        SPAN_WIDE(i, s)
        {
            float4 u = load4(p + i), v = load4(q + i);
            store4(to + i, MAP4(sum_of, u, v));
        }
        SPAN_REST(i, s)
        to[i] = sum_of(p[i], q[i]);
    }
}

void cuda_add(Tensor *y, const Tensor *a, const Tensor *b)
{
    const Tensor *all[] = {y, a, b};
    if (b->dtype == DTYPE_BF16) {
        cuda_add__bf16(y, a, b);
        return;
    }
    Span s = span_of(all, 3);
    SPAN_LAUNCH(add_kernel, s, y, f32_data(y), y->stride, f32_data(a), a->stride, f32_data(b),
                b->stride);
}

/* ---- SwiGLU ---------------------------------------------------------------------------------- */

SPAN_KERNEL swiglu_kernel(Span s, float *y, int64_t y_stride, const float *gate,
                          int64_t gate_stride, const float *up, int64_t up_stride)
{
    SPAN_ROWS(r, s)
    {
        float *to = y + r * y_stride;
        const float *p = gate + r * gate_stride, *q = up + r * up_stride;
        SPAN_WIDE(i, s)
        {
            float4 g = load4(p + i), u = load4(q + i);
            store4(to + i, MAP4(formula_swiglu, g, u));
        }
        SPAN_REST(i, s)
        to[i] = formula_swiglu(p[i], q[i]);
    }
}

void cuda_swiglu(Tensor *y, const Tensor *gate, const Tensor *up)
{
    const Tensor *all[] = {y, gate, up};
    if (y->dtype == DTYPE_BF16) {
        cuda_swiglu__bf16(y, gate, up);
        return;
    }
    Span s = span_of(all, 3);
    SPAN_LAUNCH(swiglu_kernel, s, y, f32_data(y), y->stride, f32_data(gate), gate->stride,
                f32_data(up), up->stride);
}

typedef struct {
    float *dgate, *dup;
    const float *dy, *gate, *up;
    int64_t dgate_stride, dup_stride, dy_stride, gate_stride, up_stride;
} SwigluBackward;

SPAN_KERNEL swiglu_backward_kernel(Span s, SwigluBackward t)
{
    SPAN_ROWS(r, s)
    {
        float *dgate = t.dgate + r * t.dgate_stride, *dup = t.dup + r * t.dup_stride;
        const float *dy = t.dy + r * t.dy_stride, *gate = t.gate + r * t.gate_stride;
        const float *up = t.up + r * t.up_stride;
        SPAN_WIDE(i, s)
        {
            float4 d = load4(dy + i), g = load4(gate + i), u = load4(up + i), a, b;
            formula_swiglu_backward(&a.x, &b.x, d.x, g.x, u.x);
            formula_swiglu_backward(&a.y, &b.y, d.y, g.y, u.y);
            formula_swiglu_backward(&a.z, &b.z, d.z, g.z, u.z);
            formula_swiglu_backward(&a.w, &b.w, d.w, g.w, u.w);
            store4(dgate + i, a);
            store4(dup + i, b);
        }
        SPAN_REST(i, s)
        formula_swiglu_backward(dgate + i, dup + i, dy[i], gate[i], up[i]);
    }
}

void cuda_swiglu_backward(Tensor *dgate, Tensor *dup, const Tensor *dy, const Tensor *gate,
                          const Tensor *up)
{
    const Tensor *all[] = {dgate, dup, dy, gate, up};
    if (dy->dtype == DTYPE_BF16) {
        cuda_swiglu_backward__bf16(dgate, dup, dy, gate, up);
        return;
    }
    Span s = span_of(all, 5);
    SwigluBackward t = {f32_data(dgate), f32_data(dup), f32_data(dy), f32_data(gate), f32_data(up),
                        dgate->stride,   dup->stride,   dy->stride,   gate->stride,   up->stride};
    SPAN_LAUNCH(swiglu_backward_kernel, s, dgate, t);
}

/* ---- RoPE: a thread per pair ----------------------------------------------------------------- */

SPAN_KERNEL rope_kernel(Span s, float *x, int64_t x_stride, const int32_t *pos, const float *table,
                        int64_t table_stride, int half, float sign)
{
    SPAN_ROWS(t, s)
    {
        const float *cosine = table + pos[t] * table_stride;
        SPAN_REST(i, s) /* pair i of the row: d of head h */
        {
            int h = (int)i / half, d = (int)i - h * half;
            float *a = x + t * x_stride + (i + (int64_t)h * half);
            formula_rope(a, a + half, cosine[d], sign * cosine[half + d]);
        }
    }
}

void cuda_rope(Tensor *x, const Tensor *pos, const Tensor *table, int64_t head_dim, bool backward)
{
    Span s = {x->dim[0], x->dim[1] / 2, 0};
    if (x->dtype == DTYPE_BF16) {
        cuda_rope__bf16(x, pos, table, head_dim, backward);
        return;
    }
    SPAN_LAUNCH(rope_kernel, s, x, f32_data(x), x->stride, i32_data(pos), f32_data(table),
                table->stride, (int)(head_dim / 2), backward ? -1.0f : 1.0f);
}

/* ---- convert, axpy, fill: any layout --------------------------------------------------------- */

enum { TILE = 32, TILE_ROWS = 8 }; /* a tile's side; its rows per pass, so 256 threads */

/* What becomes of an element x on its way to y. */
typedef enum { TILE_MOVE, TILE_CONVERT, TILE_SCALE, TILE_ADD } TileMode;

typedef struct {
    void *data;
    DType dtype;
    bool panel;
    int64_t stride; /* ROWS */
} Place;

static Place place_of(const Tensor *t)
{
    Place p = {t->data, t->dtype, t->layout == LAYOUT_PANEL, t->n_dims > 1 ? t->stride : 0};
    return p;
}

/* Columns that are stored: those of a bf16 panel come in pairs. */
static __host__ __device__ __forceinline__ int64_t place_cols(const Place *p, int64_t cols)
{
    return p->panel && p->dtype == DTYPE_BF16 ? cols + cols % 2 : cols;
}

static __device__ __forceinline__ int64_t place_at(const Place *p, int64_t r, int64_t k,
                                                   int64_t cols)
{
    if (p->panel && p->dtype == DTYPE_BF16) /* pairs of k, the earlier in the odd slot */
        return (r / PANEL_N * place_cols(p, cols) + k - k % 2) * PANEL_N + r % PANEL_N * 2 + 1 - k % 2;
    return p->panel ? (r / PANEL_N * cols + k) * PANEL_N + r % PANEL_N : r * p->stride + k;
}

/* An element in 64 bits: its own bits when nothing is to be rounded, else its value as f64. */
static __device__ __forceinline__ uint64_t tile_read(const Place *x, int64_t at, TileMode mode)
{
    uint64_t u;
    if (mode == TILE_CONVERT) {
        double value = formula_read(x->data, x->dtype, at);
        memcpy(&u, &value, sizeof u);
        return u;
    }
    return x->dtype == DTYPE_BF16  ? ((const uint16_t *)x->data)[at]
           : x->dtype == DTYPE_F64 ? ((const uint64_t *)x->data)[at]
                                   : ((const uint32_t *)x->data)[at];
}

static __device__ __forceinline__ void tile_write(const Place *y, int64_t at, uint64_t u,
                                                  TileMode mode, float a)
{
    if (mode == TILE_CONVERT) {
        double value;
        memcpy(&value, &u, sizeof value);
        formula_write(y->data, y->dtype, at, value);
    } else if (mode == TILE_MOVE) {
        if (y->dtype == DTYPE_BF16)
            ((uint16_t *)y->data)[at] = (uint16_t)u;
        else if (y->dtype == DTYPE_F64)
            ((uint64_t *)y->data)[at] = u;
        else
            ((uint32_t *)y->data)[at] = (uint32_t)u;
    } else {
        float *to = (float *)y->data + at, x = k_float((uint32_t)u);
        *to = mode == TILE_ADD ? real_fma(a, x, *to) : a * x;
    }
}

/* A block takes a tile in the order of x and gives it in the order of y; ROWS run along columns,
 * PANEL along rows. Rows beyond the last are padding of y's panel, and so is the column that an odd number
 * of them leaves of the pairs of a bf16 panel: all bits 0 in every dtype. */
static __global__ void __launch_bounds__(TILE *TILE_ROWS, 4)
    tile_kernel(Place y, Place x, int64_t rows, int64_t cols, TileMode mode, float a)
{
    __shared__ uint64_t tile[TILE][TILE + 1];
    const int lane = threadIdx.x % TILE, first = threadIdx.x / TILE;
    const int64_t k0 = (int64_t)blockIdx.x * TILE;
    const int64_t all = place_cols(&y, cols);
    for (int64_t r0 = (int64_t)blockIdx.y * TILE; r0 < rows; r0 += (int64_t)gridDim.y * TILE) {
        for (int j = first; j < TILE; j += TILE_ROWS) {
            int r = x.panel ? lane : j, k = x.panel ? j : lane;
            bool inside = r0 + r < rows && k0 + k < cols;
            tile[r][k] = inside ? tile_read(&x, place_at(&x, r0 + r, k0 + k, cols), mode) : 0;
        }
        __syncthreads();
        for (int j = first; j < TILE; j += TILE_ROWS) {
            int r = y.panel ? lane : j, k = y.panel ? j : lane;
            int64_t at = place_at(&y, r0 + r, k0 + k, cols);
            if (k0 + k < cols && r0 + r < rows)
                tile_write(&y, at, tile[r][k], mode, a);
            else if (k0 + k < all && y.panel)
                tile_write(&y, at, 0, mode == TILE_CONVERT ? TILE_CONVERT : TILE_MOVE, a);
        }
        __syncthreads();
    }
}

static void tile_launch(const Tensor *y, const Tensor *x, TileMode mode, float a)
{
    int64_t rows = tensor_rows(y), cols = tensor_cols(y), down = (rows + TILE - 1) / TILE;
    Place to = place_of(y);
    if (rows > 0 && cols > 0)
        LAUNCH(tile_kernel, dim3(cuda_blocks(place_cols(&to, cols), TILE), span_min(down, GRID_Y_MAX)),
               TILE * TILE_ROWS, 0, cuda_stream(y), to, place_of(x), rows, cols, mode, a);
}

/* Byte i of what is cleared lies in column i / pad of the last panel. */
SPAN_KERNEL padding_kernel(Span s, unsigned char *last, int64_t column, int64_t pad)
{
    SPAN_REST(i, s)
    last[i / pad * column + column - pad + i % pad] = 0;
}

/* Lanes n >= N of the last panel stay zero. */
static void clear_padding(Tensor *y)
{
    if (y->layout != LAYOUT_PANEL || y->dim[0] % PANEL_N == 0)
        return;
    int64_t bytes = (int64_t)dtype_bytes(y->dtype), column = PANEL_N * bytes;
    int64_t pad = (PANEL_N - y->dim[0] % PANEL_N) * bytes;
    Span s = {1, y->dim[1] * pad, 0};
    SPAN_LAUNCH(padding_kernel, s, y,
                (unsigned char *)y->data + y->dim[0] / PANEL_N * y->dim[1] * column, column, pad);
}

SPAN_KERNEL convert_kernel(Span s, void *y, DType y_dtype, const void *x, DType x_dtype)
{
    SPAN_REST(i, s)
    formula_write(y, y_dtype, i, formula_read(x, x_dtype, i));
}

void cuda_convert(Tensor *y, const Tensor *x)
{
    bool flat = y->layout == x->layout && span_dense(y) && span_dense(x) &&
                (y->dtype == x->dtype || y->layout != LAYOUT_PANEL);
    if (flat && y->dtype == x->dtype) {
        if (tensor_len(y))
            CUDA_CALL(cudaMemcpyAsync(y->data, x->data, tensor_bytes(y), cudaMemcpyDeviceToDevice,
                                      cuda_stream(y)));
        return;
    }
    CHECK(y->dtype <= DTYPE_F64 && y->layout != LAYOUT_KV_PAGE && x->layout != LAYOUT_KV_PAGE,
          "op_convert: %s from %s", tensor_text(y), tensor_text(x));
    Span s = {1, tensor_slots(y), 0};
    if (flat) /* padding is +0 in x, so in y */
        SPAN_LAUNCH(convert_kernel, s, y, y->data, y->dtype, x->data, x->dtype);
    else
        tile_launch(y, x, y->dtype == x->dtype ? TILE_MOVE : TILE_CONVERT, 0);
}

SPAN_KERNEL axpy_kernel(Span s, float *y, int64_t y_stride, float a, const float *x,
                        int64_t x_stride, bool accumulate)
{
    SPAN_ROWS(r, s)
    {
        float *to = y + r * y_stride;
        const float *p = x + r * x_stride;
        SPAN_WIDE(i, s)
        {
            float4 v = load4(p + i), o;
            if (accumulate) {
                o = load4(to + i);
                o = make_float4(real_fma(a, v.x, o.x), real_fma(a, v.y, o.y), real_fma(a, v.z, o.z),
                                real_fma(a, v.w, o.w));
            } else {
                o = make_float4(a * v.x, a * v.y, a * v.z, a * v.w);
            }
            store4(to + i, o);
        }
        SPAN_REST(i, s)
        to[i] = accumulate ? real_fma(a, p[i], to[i]) : a * p[i];
    }
}

void cuda_axpy(Tensor *y, double a, const Tensor *x, bool accumulate)
{
    const Tensor *all[] = {y, x};
    Span s = span_of(all, 2);
    if (y->layout != x->layout) {
        tile_launch(y, x, accumulate ? TILE_ADD : TILE_SCALE, (float)a);
        return;
    }
    SPAN_LAUNCH(axpy_kernel, s, y, f32_data(y), y->stride, (float)a, f32_data(x), x->stride,
                accumulate);
    clear_padding(y); /* a * +0 may be -0 */
}

/* The element `value` of a dtype, repeated over 8 bytes. */
static __device__ __forceinline__ uint64_t fill_pattern(DType dtype, double value)
{
    uint64_t u = 0;
    if (dtype == DTYPE_U8)
        return (uint8_t)value * 0x0101010101010101ull;
    if (dtype == DTYPE_I32)
        u = (uint32_t)(int32_t)value;
    else
        formula_write(&u, dtype, 0, value);
    return dtype == DTYPE_F64 ? u : dtype == DTYPE_BF16 ? u * 0x0001000100010001ull : u << 32 | u;
}

/* Spans count elements of `bytes`; the wide part is stored 16 bytes at a time. */
SPAN_KERNEL fill_kernel(Span s, unsigned char *y, int64_t row_bytes, int bytes, DType dtype,
                        double value)
{
    const uint64_t u = fill_pattern(dtype, value);
    const float lo = k_float((uint32_t)u), hi = k_float((uint32_t)(u >> 32));
    SPAN_ROWS(r, s)
    {
        unsigned char *to = y + r * row_bytes;
        for (int64_t i = 16 * span_first(); i < s.wide * bytes; i += 16 * span_step())
            store4((float *)(to + i), make_float4(lo, hi, lo, hi));
        SPAN_REST(i, s)
        {
            if (bytes == 1)
                to[i] = (uint8_t)u;
            else if (bytes == 2)
                ((uint16_t *)to)[i] = (uint16_t)u;
            else if (bytes == 4)
                ((uint32_t *)to)[i] = (uint32_t)u;
            else
                ((uint64_t *)to)[i] = u;
        }
    }
}

void cuda_fill(Tensor *y, double value)
{
    bool dense = span_dense(y);
    if (tensor_len(y) == 0)
        return;
    if (value == 0 && dense) {
        CUDA_CALL(cudaMemsetAsync(y->data, 0, tensor_bytes(y), cuda_stream(y)));
        return;
    }
    int bytes = (int)dtype_bytes(y->dtype);
    Span s = {dense ? 1 : tensor_rows(y), dense ? tensor_slots(y) : tensor_cols(y), 0};
    if (dense && (uintptr_t)y->data % 16 == 0)
        s.wide = s.cols / 16 * 16;
    SPAN_LAUNCH(fill_kernel, s, y, (unsigned char *)y->data, y->stride * bytes, bytes, y->dtype,
                value);
    clear_padding(y);
}

/* ---- rows by index --------------------------------------------------------------------------- */

SPAN_KERNEL gather_kernel(Span s, float *y, int64_t y_stride, const float *x, int64_t x_stride,
                          const int32_t *rows)
{
    SPAN_ROWS(r, s)
    {
        float *to = y + r * y_stride;
        const float *from = x + rows[r] * x_stride;
        SPAN_WIDE(i, s)
        store4(to + i, load4(from + i));
        SPAN_REST(i, s)
        to[i] = from[i];
    }
}

void cuda_gather_rows(Tensor *y, const Tensor *x, const Tensor *rows)
{
    const Tensor *all[] = {y, x};
    if (y->dtype == DTYPE_BF16 || x->dtype == DTYPE_BF16) {
        cuda_gather_rows__bf16(y, x, rows);
        return;
    }
    Span s = span_rows(y->dim[0], y->dim[1], all, 2);
    SPAN_LAUNCH(gather_kernel, s, y, f32_data(y), y->stride, f32_data(x), x->stride,
                i32_data(rows));
}

enum {
    SORT_THREADS = 128,
    SORT_MAX = 8192, /* rows sorted at once: every pair is compared */
    SCATTER_THREADS = 128,
    SCATTER_AHEAD = 8, /* rows of a chain whose loads are in flight together */
};

/* order = the rows i sorted by (rows[i], i): i goes to the place that counts those before it. */
static __global__ void __launch_bounds__(SORT_THREADS)
    sort_kernel(int32_t *order, const int32_t *rows, int n)
{
    __shared__ int32_t part[SORT_THREADS];
    const int i = (int)(blockIdx.x * SORT_THREADS + threadIdx.x);
    const int32_t mine = i < n ? rows[i] : 0;
    int before = 0;
    for (int from = 0; from < n; from += SORT_THREADS) {
        int other = from + (int)threadIdx.x;
        part[threadIdx.x] = other < n ? rows[other] : INT32_MAX;
        __syncthreads();
#pragma unroll 8
        for (int j = 0; j < SORT_THREADS; j++)
            before += part[j] < mine + (from + j < i ? 1 : 0);
        __syncthreads();
    }
    if (i < n)
        order[before] = i;
}

/* Block (p, columns): when p begins the run of a destination, that row's chain over the run. */
static __global__ void __launch_bounds__(SCATTER_THREADS, 8)
    scatter_kernel(float *y, int64_t y_stride, Mixed x, const int32_t *rows, const int32_t *order,
                   int n, int64_t cols)
{
    int p = (int)blockIdx.x;
    const int32_t to = rows[order[p]];
    const int64_t c = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    if (c >= cols || (p > 0 && rows[order[p - 1]] == to))
        return;
    float *dst = y + to * y_stride + c, sum = *dst;
    for (bool more = true; more; p += SCATTER_AHEAD) {
        bool same[SCATTER_AHEAD];
        float v[SCATTER_AHEAD];
#pragma unroll
        for (int j = 0; j < SCATTER_AHEAD; j++) {
            int i = p + j < n ? order[p + j] : -1;
            same[j] = i >= 0 && rows[i] == to;
            v[j] = same[j] ? mixed_read(&x, i * x.stride + c) : 0;
        }
#pragma unroll
        for (int j = 0; j < SCATTER_AHEAD; j++)
            sum = same[j] ? sum + v[j] : sum;
        more = same[SCATTER_AHEAD - 1];
    }
    *dst = sum;
}

/* Slices of rows ascending: a chain starts from what is stored, so a cut changes no bit. */
void cuda_scatter_rows(Tensor *y, const Tensor *x, const Tensor *rows)
{
    int64_t n_rows = x->dim[0], cols = x->dim[1];
    int32_t *order = (int32_t *)cuda_scratch(y, SORT_MAX * sizeof *order);
    unsigned block = span_min((cols + WARP - 1) / WARP * WARP, SCATTER_THREADS);
    for (int64_t from = 0; from < n_rows && cols > 0; from += SORT_MAX) {
        int n = (int)span_min(n_rows - from, SORT_MAX);
        const int32_t *to = i32_data(rows) + from;
        const Tensor part = tensor_slice(x, from, n);
        LAUNCH(sort_kernel, cuda_blocks(n, SORT_THREADS), SORT_THREADS, 0, cuda_stream(y), order,
               to, n);
        LAUNCH(scatter_kernel, dim3((unsigned)n, cuda_blocks(cols, block)), block, 0,
               cuda_stream(y), f32_data(y), y->stride, mixed_of(&part), to, order, n, cols);
    }
}
