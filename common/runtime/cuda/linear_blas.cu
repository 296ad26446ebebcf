/* linear_blas.cu - who makes a product of bf16: our kernels, or cuBLASLt where it keeps the promise
 * that a row's bits do not depend on the number of rows.
 *
 * The library is opened by the first product. A shape (op, the weight's sides, the result's dtype)
 * is probed once: for each algorithm that the library offers for many rows without splitting the
 * chain, best first, the rows of a batch of PROBE_ROWS are compared in bits with the same rows in
 * smaller batches. MANY: more than FEW_ROWS_BF16 rows of y by the library, fewer by our kernel,
 * since both agree ALL:  every number of rows by the library, which agrees with itself but not with
 * ours OWN:  ours alone dx has no kernel for few rows, so ALL or OWN; dw has no rows in that sense:
 * one algorithm a shape makes it a function of its operands. Probes draw their numbers from the
 * position, so a verdict depends on shape, card and library alone. Operands whose rows are not
 * whole 16 bytes are always ours. Tested by tests/unit/test_cuda.c with the shim's library; on a
 * card by tests/ops/linear_rows.c. */
#include "common/runtime/cuda/linear.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    WORKSPACE_BYTES = 32 << 20,
    VERDICTS_MAX = 256,
    CANDIDATES = 8,
    SIDE_MAX = 12288, /* of the columns and the chain that a probe tries */
    ALIGNMENT = 16,   /* bytes of operands that it may count on: is_aligned */
    PROBE_ALIGN = 64, /* a shorter chain keeps what is left over of so many links */
};

#define BLAS_CALLS(X)                                                                              \
    X(Create)                                                                                      \
    X(Destroy)                                                                                     \
    X(GetVersion)                                                                                  \
    X(MatmulDescCreate)                                                                            \
    X(MatmulDescDestroy)                                                                           \
    X(MatmulDescSetAttribute)                                                                      \
    X(MatrixLayoutCreate)                                                                          \
    X(MatrixLayoutDestroy)                                                                         \
    X(MatmulPreferenceCreate)                                                                      \
    X(MatmulPreferenceDestroy)                                                                     \
    X(MatmulPreferenceSetAttribute)                                                                \
    X(MatmulAlgoGetHeuristic)                                                                      \
    X(MatmulAlgoConfigGetAttribute)                                                                \
    X(Matmul)

typedef struct {
#define X(name) __typeof__(&cublasLt##name) name;
    BLAS_CALLS(X)
#undef X
} BlasCalls;

typedef enum { SERVE_OWN, SERVE_MANY, SERVE_ALL } Serve;

typedef struct {
    ProductOp op;
    int64_t n, k; /* the weight's sides: columns and chain of y, dx; rows and columns of dw */
    bool c_bf16;
    int64_t rows; /* 0; M where the library is measured by itself */
    Serve serve;
    cublasLtMatmulAlgo_t algo;
    int candidate, n_candidates;        /* the one that serves, of those tried */
    int equal_all, equal_many, n_tried; /* of the last one tried: batches of equal rows */
} Verdict;

typedef struct Blas {
    cublasLtHandle_t handle; /* NULL: there is no library */
    BlasCalls call;
    void *workspace; /* WORKSPACE_BYTES */
    const char *why; /* there is none */
    Verdict verdict[VERDICTS_MAX];
    int n;
} Blas;

/* The numbers of rows that a probe compares with PROBE_ROWS (design.md). */
static const int probe_rows[] = {1, 2, 3, 7, 8, 16, 17, 33, 64, 65, 129, 256, 1000};
enum { N_PROBES = sizeof probe_rows / sizeof *probe_rows };

/* ---- the library ----------------------------------------------------------------------------- */

static bool library_open(Blas *b)
{
    void *library = SHIM_BLAS_LIBRARY();
#define X(name)                                                                                    \
    *(void **)&b->call.name = SHIM_SYMBOL(library, cublasLt##name);                                \
    if (!b->call.name)                                                                             \
        return false;
    b->why = "no cuBLASLt: the library was not found";
    if (!library)
        return false;
    b->why = "no cuBLASLt: the library lacks a function";
    BLAS_CALLS(X)
#undef X
    b->why = "no cuBLASLt: the library does not start";
    if (b->call.Create(&b->handle) != CUBLAS_STATUS_SUCCESS) {
        b->handle = NULL;
        return false;
    }
    CUDA_CALL(cudaMalloc(&b->workspace, WORKSPACE_BYTES));
    return true;
}

/* The library stays loaded: its threads and exit handlers live in it. */
static Blas *blas_open(CudaDevice *d)
{
    if (d->blas)
        return d->blas;
    d->blas = (Blas *)calloc(1, sizeof *d->blas);
    CHECK(d->blas, "out of memory");
    if (d->products == PRODUCTS_OWN)
        d->blas->why = "not asked";
    else
        library_open(d->blas);
    CHECK(d->products != PRODUCTS_LIBRARY || d->blas->handle, "%s", d->blas->why);
    return d->blas;
}

void blas_close(CudaDevice *d)
{
    if (!d->blas)
        return;
    if (d->blas->handle) {
        CUDA_CALL(cudaStreamSynchronize(d->stream[STREAM_COMPUTE]));
        d->blas->call.Destroy(d->blas->handle);
    }
    cudaFree(d->blas->workspace);
    free(d->blas);
    d->blas = NULL;
}

#define BLAS(call_)                                                                                \
    do {                                                                                           \
        cublasStatus_t status_ = b->call.call_;                                                    \
        CHECK(status_ == CUBLAS_STATUS_SUCCESS, "cublasLt: status %d (%s)", (int)status_, #call_); \
    } while (0)

/* A product as the library sees it: D (columns of c x rows of c) = op(A) op(B), with A our b and B
 * our a, all by columns, which are our rows. */
typedef struct {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c;
} Call;

static void call_begin(Blas *b, const HalfProduct *g, Call *c)
{
    const cublasOperation_t ta = g->op == PRODUCT_Y ? CUBLAS_OP_T : CUBLAS_OP_N,
                            tb = g->op == PRODUCT_DW ? CUBLAS_OP_T : CUBLAS_OP_N;
    const uint64_t M = (uint64_t)g->a.n, n = (uint64_t)g->b.n, links = (uint64_t)g->n_k;
    const bool bt = ta == CUBLAS_OP_T, at = tb == CUBLAS_OP_T;
    BLAS(MatmulDescCreate(&c->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    BLAS(MatmulDescSetAttribute(c->desc, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta));
    BLAS(MatmulDescSetAttribute(c->desc, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb));
    BLAS(MatrixLayoutCreate(&c->a, CUDA_R_16BF, bt ? links : n, bt ? n : links, g->b.step));
    BLAS(MatrixLayoutCreate(&c->b, CUDA_R_16BF, at ? M : links, at ? links : M, g->a.step));
    BLAS(MatrixLayoutCreate(&c->c, g->c_bf16 ? CUDA_R_16BF : CUDA_R_32F, n, M, g->c_step));
}

static void call_end(Blas *b, Call *c)
{
    b->call.MatrixLayoutDestroy(c->c);
    b->call.MatrixLayoutDestroy(c->b);
    b->call.MatrixLayoutDestroy(c->a);
    b->call.MatmulDescDestroy(c->desc);
}

static cublasStatus_t run_library(Blas *b, const CudaDevice *d, const HalfProduct *g,
                                  const cublasLtMatmulAlgo_t *algo)
{
    const float alpha = 1, beta = g->accumulate ? 1 : 0;
    Call c;
    call_begin(b, g, &c);
    cublasStatus_t status =
        b->call.Matmul(b->handle, c.desc, &alpha, g->b.p, c.a, g->a.p, c.b, &beta, g->c, c.c, g->c,
                       c.c, algo, b->workspace, WORKSPACE_BYTES, d->stream[STREAM_COMPUTE]);
    call_end(b, &c);
    return status;
}

/* The library's algorithms for this very product, best first; `whole`: chains that are not split.
 */
static int candidates(Blas *b, const HalfProduct *g, bool whole,
                      cublasLtMatmulHeuristicResult_t found[CANDIDATES])
{
    const size_t workspace = WORKSPACE_BYTES;
    const uint32_t scheme = CUBLASLT_REDUCTION_SCHEME_NONE, alignment = ALIGNMENT;
    cublasLtMatmulPreference_t p;
    Call c;
    int n = 0, kept = 0;
    call_begin(b, g, &c);
    BLAS(MatmulPreferenceCreate(&p));
    BLAS(MatmulPreferenceSetAttribute(p, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                      sizeof workspace));
    if (whole)
        BLAS(MatmulPreferenceSetAttribute(p, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &scheme,
                                          sizeof scheme));
    if (g->op == PRODUCT_DW) { /* units begin at any row: the algorithm must not mind which */
        BLAS(MatmulPreferenceSetAttribute(p, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &alignment,
                                          sizeof alignment));
        BLAS(MatmulPreferenceSetAttribute(p, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &alignment,
                                          sizeof alignment));
    }
    if (b->call.MatmulAlgoGetHeuristic(b->handle, c.desc, c.a, c.b, c.c, c.c, p, CANDIDATES, found,
                                       &n) != CUBLAS_STATUS_SUCCESS)
        n = 0;
    b->call.MatmulPreferenceDestroy(p);
    call_end(b, &c);
    for (int i = 0; i < n; i++) {
        uint32_t split = 1;
        b->call.MatmulAlgoConfigGetAttribute(&found[i].algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
                                             &split, sizeof split, NULL);
        if (found[i].state == CUBLAS_STATUS_SUCCESS && (split <= 1 || !whole))
            found[kept++] = found[i];
    }
    return kept;
}

/* ---- probes ---------------------------------------------------------------------------------- */

/* An operand of n elements, rows of `cols`, bf16 of both signs and eight exponents drawn from the
 * position (splitmix64's finish). The second half of a chain is the first once more, with the sign
 * turned where `turn`: every sum is zero but for its roundings, so that another order shows, in
 * bf16 too. */
static __global__ void __launch_bounds__(256, 4)
    draw_kernel(uint16_t *p, int64_t n, int64_t cols, bool chain_down, int64_t half, bool turn)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t k = chain_down ? i / cols : i % cols, row = chain_down ? i % cols : i / cols;
        uint64_t z = (uint64_t)(row * half + k % half) + ((uint64_t)turn << 40);
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        z ^= z >> 31;
        if (turn && k >= half)
            z ^= 0x8000;
        p[i] = (uint16_t)((z & 0x807f) | ((z >> 16 & 7) + 120) << 7);
    }
}

/* *differs becomes 1 where a word of a is not b's. */
static __global__ void __launch_bounds__(256, 4)
    differs_kernel(int *differs, const uint32_t *a, const uint32_t *b, int64_t n)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x)
        if (a[i] != b[i])
            atomicOr(differs, 1);
}

enum { BY_LIBRARY, BY_OURS, N_MAKERS };

/* What a probe works on: one block of the card's memory, for its time alone. */
typedef struct {
    HalfProduct g; /* PROBE_ROWS rows into `whole` */
    void *memory, *whole, *part;
    int *differs; /* (N_MAKERS, N_PROBES) */
} Probe;

static int64_t side(int64_t n)
{
    return n <= SIDE_MAX + PROBE_ALIGN ? n : SIDE_MAX + n % PROBE_ALIGN;
}

static unsigned draw_blocks(int64_t n)
{
    return cuda_blocks(n < 256 * 1024 ? n : 256 * 1024, 256);
}

/* The verdict's shape, dense, with numbers of its own. */
static void probe_begin(Probe *p, const CudaDevice *d, const Verdict *v)
{
    const int64_t n = side(v->n), k = side(v->k), M = PROBE_ROWS, size = v->c_bf16 ? 2 : 4;
    const int64_t a = M * k, b = n * k, c = M * n * size; /* multiples of 16 bytes: blas_product */
    cudaStream_t stream = d->stream[STREAM_COMPUTE];
    memset(p, 0, sizeof *p);
    CUDA_CALL(cudaMalloc(&p->memory, (size_t)(2 * (a + b + c) + N_MAKERS * N_PROBES * 4)));
    uint16_t *ap = (uint16_t *)p->memory, *bp = ap + a;
    p->whole = bp + b;
    p->part = (char *)p->whole + c;
    p->differs = (int *)((char *)p->part + c);
    const int64_t b_step = v->op == PRODUCT_Y ? k : n;
    LAUNCH(draw_kernel, draw_blocks(a), 256, 0, stream, ap, a, k, false, k / 2, false);
    LAUNCH(draw_kernel, draw_blocks(b), 256, 0, stream, bp, b, b_step, v->op == PRODUCT_DX, k / 2,
           true);
    const HalfProduct g = {v->op, {ap, k, M}, {bp, b_step, n}, k, p->whole, n, v->c_bf16, false};
    p->g = g;
}

/* Compares batches of the first rows by one maker with the whole, which is the library's. */
static void probe_parts(const Probe *p, Blas *b, const CudaDevice *d,
                        const cublasLtMatmulAlgo_t *algo, int maker)
{
    for (int i = 0; i < N_PROBES; i++) {
        HalfProduct g = p->g;
        g.a.n = probe_rows[i];
        g.c = p->part;
        const int64_t words = g.a.n * g.c_step / (g.c_bf16 ? 2 : 1);
        if (maker == BY_OURS)
            linear_own(d, &g);
        else if (run_library(b, d, &g, algo) != CUBLAS_STATUS_SUCCESS)
            CUDA_CALL(cudaMemsetAsync(p->part, 0xff, (size_t)words * 4, d->stream[STREAM_COMPUTE]));
        LAUNCH(differs_kernel, draw_blocks(words), 256, 0, d->stream[STREAM_COMPUTE],
               p->differs + maker * N_PROBES + i, (const uint32_t *)p->part,
               (const uint32_t *)p->whole, words);
    }
}

/* What an algorithm may serve; how many batches had equal rows goes into *v. */
static Serve probe_candidate(const Probe *p, Blas *b, const CudaDevice *d, Verdict *v,
                             const cublasLtMatmulAlgo_t *algo)
{
    int differs[N_MAKERS * N_PROBES];
    cudaStream_t stream = d->stream[STREAM_COMPUTE];
    if (run_library(b, d, &p->g, algo) != CUBLAS_STATUS_SUCCESS)
        return SERVE_OWN;
    CUDA_CALL(cudaMemsetAsync(p->differs, 0, sizeof differs, stream));
    probe_parts(p, b, d, algo, BY_LIBRARY);
    if (v->op == PRODUCT_Y)
        probe_parts(p, b, d, algo, BY_OURS);
    CUDA_CALL(cudaMemcpyAsync(differs, p->differs, sizeof differs, cudaMemcpyDeviceToHost, stream));
    CUDA_CALL(cudaStreamSynchronize(stream));
    v->n_tried = N_PROBES;
    v->equal_all = v->equal_many = 0;
    for (int i = 0; i < N_PROBES; i++) {
        const bool few = probe_rows[i] <= FEW_ROWS_BF16;
        v->equal_all += !differs[i];
        v->equal_many += !differs[few ? N_PROBES + i : i];
    }
    return v->op == PRODUCT_Y && v->equal_many == N_PROBES ? SERVE_MANY
           : v->equal_all == N_PROBES                      ? SERVE_ALL
                                                           : SERVE_OWN;
}

/* The best that any candidate may serve: MANY before ALL, since ours is the faster for few rows. */
static void probe(Blas *b, const CudaDevice *d, Verdict *v)
{
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    Verdict best;
    Probe p;
    probe_begin(&p, d, v);
    v->n_candidates = candidates(b, &p.g, true, found);
    best = *v;
    for (int i = 0; i < v->n_candidates && best.serve != SERVE_MANY; i++) {
        const Serve serve = probe_candidate(&p, b, d, v, &found[i].algo);
        const bool better = serve == SERVE_MANY || (serve == SERVE_ALL && best.serve == SERVE_OWN);
        if (!better && best.serve != SERVE_OWN)
            continue;
        best = *v;
        if (!better)
            continue;
        best.serve = serve;
        best.algo = found[i].algo;
        best.candidate = i;
        if (v->op != PRODUCT_Y)
            break;
    }
    *v = best;
    CUDA_CALL(cudaFree(p.memory));
}

/* The library's choice for this very product. */
static void take_first(Blas *b, const HalfProduct *g, Verdict *v, bool whole)
{
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    v->n_candidates = candidates(b, g, whole, found);
    if (v->n_candidates == 0)
        return;
    v->serve = SERVE_ALL;
    v->algo = found[0].algo;
}

/* dw sums over rows: the algorithm is the one for PROBE_ROWS of them, whatever their number. */
static void take_for_dw(Blas *b, const HalfProduct *g, Verdict *v)
{
    HalfProduct many = *g;
    many.n_k = PROBE_ROWS;
    take_first(b, &many, v, true);
}

/* ---- who serves ------------------------------------------------------------------------------ */

static Verdict verdict_key(const CudaDevice *d, const HalfProduct *g)
{
    Verdict v;
    memset(&v, 0, sizeof v);
    v.op = g->op;
    v.n = g->op == PRODUCT_DW ? g->a.n : g->b.n;
    v.k = g->op == PRODUCT_DW ? g->b.n : g->n_k;
    v.c_bf16 = g->c_bf16;
    if (d->products == PRODUCTS_LIBRARY)
        v.rows = g->op == PRODUCT_DW ? g->n_k : g->a.n;
    return v;
}

static const Verdict *verdict_of(CudaDevice *d, Blas *b, const HalfProduct *g)
{
    Verdict v = verdict_key(d, g);
    for (int i = 0; i < b->n; i++) {
        const Verdict *o = &b->verdict[i];
        if (o->op == v.op && o->n == v.n && o->k == v.k && o->c_bf16 == v.c_bf16 &&
            o->rows == v.rows)
            return o;
    }
    CHECK(b->n < VERDICTS_MAX, "more than %d shapes of products", VERDICTS_MAX);
    if (d->products == PRODUCTS_LIBRARY)
        take_first(b, g, &v, false);
    else if (v.op == PRODUCT_DW)
        take_for_dw(b, g, &v);
    else
        probe(b, d, &v);
    b->verdict[b->n] = v;
    return &b->verdict[b->n++];
}

/* ALIGNMENT bytes at once, everywhere. */
static bool is_aligned(const HalfProduct *g)
{
    const int64_t size = g->c_bf16 ? 2 : 4;
    return (uintptr_t)g->a.p % ALIGNMENT == 0 && (uintptr_t)g->b.p % ALIGNMENT == 0 &&
           (uintptr_t)g->c % ALIGNMENT == 0 && g->a.step % 8 == 0 && g->b.step % 8 == 0 &&
           g->c_step * size % ALIGNMENT == 0 && g->b.n % 8 == 0 &&
           (g->op == PRODUCT_DW ? g->a.n : g->n_k) % 8 == 0;
}

bool blas_product(CudaDevice *d, const HalfProduct *g)
{
    Blas *b = blas_open(d);
    if (!b->handle || !is_aligned(g) || g->a.n == 0 || g->b.n == 0 || g->n_k == 0)
        return false;
    const Verdict *v = verdict_of(d, b, g);
    if (v->serve == SERVE_OWN || (v->serve == SERVE_MANY && g->a.n <= FEW_ROWS_BF16))
        return false;
    cublasStatus_t status = run_library(b, d, g, &v->algo);
    if (status != CUBLAS_STATUS_SUCCESS && g->op == PRODUCT_DW)
        return false; /* not for so many tokens: decided by the shape, so the same every time */
    CHECK(status == CUBLAS_STATUS_SUCCESS, "cuBLASLt: status %d for %lld x %lld x %lld",
          (int)status, (long long)g->a.n, (long long)g->b.n, (long long)g->n_k);
    return true;
}

/* ---- the table ------------------------------------------------------------------------------- */

static uint32_t config(const Blas *b, const Verdict *v, cublasLtMatmulAlgoConfigAttributes_t what)
{
    uint32_t value = 0;
    b->call.MatmulAlgoConfigGetAttribute(&v->algo, what, &value, sizeof value, NULL);
    return value;
}

static void report_verdict(const Blas *b, const Verdict *v, char *text, size_t room)
{
    static const char *const op[PRODUCT_COUNT] = {"y", "dx", "dw"};
    static const char *const serve[] = {"ours", "cuBLASLt above 64 rows, ours below", "cuBLASLt"};
    int n = snprintf(text, room, "product %s (%lld, %lld) %s: %s", op[v->op], (long long)v->n,
                     (long long)v->k, v->c_bf16 ? "bf16" : "f32", serve[v->serve]);
    if (v->rows)
        n += snprintf(text + n, room - n, ", %lld rows", (long long)v->rows);
    if (v->serve != SERVE_OWN)
        n += snprintf(
            text + n, room - n, ", algorithm %u tile %u stages %u, choice %d of %d",
            config(b, v, CUBLASLT_ALGO_CONFIG_ID), config(b, v, CUBLASLT_ALGO_CONFIG_TILE_ID),
            config(b, v, CUBLASLT_ALGO_CONFIG_STAGES_ID), v->candidate + 1, v->n_candidates);
    else
        n += snprintf(text + n, room - n, ", %d algorithms tried", v->n_candidates);
    if (v->n_tried)
        snprintf(text + n, room - n, "; equal rows: cuBLASLt alone %d, with ours %d of %d",
                 v->equal_all, v->op == PRODUCT_Y ? v->equal_many : 0, v->n_tried);
}

void blas_report(const CudaDevice *d, void (*line)(void *ctx, const char *text), void *ctx)
{
    char text[256];
    const Blas *b = d->blas;
    if (!b)
        return;
    if (b->handle)
        snprintf(text, sizeof text, "products: cuBLASLt %zu", b->call.GetVersion());
    else
        snprintf(text, sizeof text, "products: ours, %s", b->why);
    line(ctx, text);
    for (int i = 0; i < b->n; i++) {
        report_verdict(b, &b->verdict[i], text, sizeof text);
        line(ctx, text);
    }
}
