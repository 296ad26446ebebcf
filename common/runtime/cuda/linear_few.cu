/* linear_few.cu - y of up to FEW_ROWS_BF16 rows: a stream of weights. A warp owns 8 columns, whose
 * weights no other warp reads, and multiplies them with all rows; the few warps of a block share
 * the rows. Many stages are on their way. The order of sums is that of linear_bf16.cu. Tested by
 * tests/ops/linear.c. */
#include "common/runtime/cuda/linear_half.h"

/* A warp's fragments of CHAIN links: its 8 columns, and all rows in groups of 8. */
typedef struct {
    uint32_t a[4][2][4]; /* [16 rows][step] */
    uint32_t b[2][2];
} FewFragments;

/* Set h of a stage of `links`. Up to 8 rows, an mma's other 8 are zero and have no place in memory. */
static __device__ __forceinline__ void few_load(FewFragments *f, const uint16_t *ws,
                                                const uint16_t *xs, int groups, int links, int h)
{
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP, chunks = links / 8;
    ldmatrix_x4(f->b[0], ws + place(warp * 8 + lane % 8, h * 4 + lane / 8, chunks));
    if (groups == 1) {
        uint32_t x[4];
        ldmatrix_x4(x, xs + place(lane % 8, h * 4 + lane / 8, chunks));
#pragma unroll
        for (int s = 0; s < 2; s++) {
            f->a[0][s][0] = x[2 * s];
            f->a[0][s][2] = x[2 * s + 1];
            f->a[0][s][1] = f->a[0][s][3] = 0;
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < groups / 2; i++)
#pragma unroll
        for (int s = 0; s < 2; s++)
            ldmatrix_x4(f->a[i][s],
                        xs + place(i * 16 + lane % 16, h * 4 + s * 2 + lane / 16, chunks));
}

/* A block's `warps` times 8 columns of up to 8 * groups rows. A stage has a whole number of pairs
 * of fragment sets, of which the last stage's sets beyond the chain are left out, as in a tile. */
static __device__ __forceinline__ void few_product(const HalfLaunch *l, int groups, int warps,
                                                   int links, int stages, uint16_t *ws,
                                                   uint16_t *xs)
{
    const HalfProduct *g = &l->g;
    const int columns = warps * 8, rows = groups * 8, warp = (int)threadIdx.x / WARP;
    const int sets = links / CHAIN, tiles = (groups + 1) / 2;
    const int n_k = (int)g->n_k, n_steps = (n_k + links - 1) / links;
    const int64_t j0 = (int64_t)blockIdx.x * columns;
    Source w = source_start(&g->b, ALONG_CHAIN, j0, columns, n_k, links),
           x = source_start(&g->a, ALONG_CHAIN, 0, rows, n_k, links);
    float acc[4][4];
    FewFragments f[2];
#pragma unroll
    for (int i = 0; i < 4; i++)
        acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = 0;
#define BRING(at, step)                                                                            \
    do {                                                                                           \
        if ((step) < n_steps) {                                                                    \
            source_bring(&w, &g->b, l->b_wide, ALONG_CHAIN, columns, links, warps *WARP,           \
                         ws + (at)*columns * links);                                               \
            source_bring(&x, &g->a, l->a_wide, ALONG_CHAIN, rows, links, warps *WARP,              \
                         xs + (at)*rows * links);                                                  \
        }                                                                                          \
        cp_async_commit();                                                                         \
    } while (0)
#define LOAD(to, h)                                                                                \
    few_load(to, ws + here * columns * links, xs + here * rows * links, groups, links, h)
#pragma unroll
    for (int s = 0; s < stages - 1; s++)
        BRING(s, s);
    int here = 0, next = stages - 1;
    stage_wait(stages);
    if (n_steps > 0)
        LOAD(&f[0], 0);
#pragma unroll 1
    for (int step = 0; step < n_steps; step++) {
#pragma unroll
        for (int h = 0; h < sets; h++) {
            if (h + 1 < sets) {
                LOAD(&f[(h + 1) % 2], h + 1);
            }
            if (h == 0) {
                BRING(next, step + stages - 1);
                next = next + 1 == stages ? 0 : next + 1;
            }
            if (h + 1 == sets) {
                here = here + 1 == stages ? 0 : here + 1;
                stage_wait(stages);
                if (step + 1 < n_steps)
                    LOAD(&f[0], 0);
            }
            if (h > 0 && step * links + h * CHAIN >= n_k)
                continue; /* the chain has ended: uniform */
#pragma unroll
            for (int s = 0; s < 2; s++)
#pragma unroll
                for (int i = 0; i < tiles; i++)
                    mma_bf16(acc[i], f[h % 2].a[i][s], f[h % 2].b[s]);
        }
    }
#undef LOAD
#undef BRING
#pragma unroll
    for (int i = 0; i < tiles; i++)
        put_sums(l, i * 16, j0 + warp * 8, acc[i]);
}

/* X(groups of 8 rows, warps, links of a stage, stages: 48 KiB each, blocks). Where a stage's chain
 * is long, its latency is hidden; where rows are many, more columns share them. */
/* clang-format off */
#define FEW(X)                                                                                     \
    X(1, 2, 128, 8, 4)                                                                             \
    X(2, 2, 128, 6, 4)                                                                             \
    X(4, 4, 64, 6, 4)                                                                              \
    X(8, 4, 64, 4, 3)
/* clang-format on */

#define FEW_KERNEL(GROUPS, WARPS, LINKS, STAGES, BLOCKS)                                           \
    static __global__ void __launch_bounds__(WARPS *WARP, BLOCKS)                                  \
        half_few_##GROUPS##_kernel(HalfLaunch l)                                                   \
    {                                                                                              \
        __shared__ __align__(16) uint16_t ws[STAGES * WARPS * 8 * LINKS],                          \
            xs[STAGES * GROUPS * 8 * LINKS];                                                       \
        few_product(&l, GROUPS, WARPS, LINKS, STAGES, ws, xs);                                     \
    }
FEW(FEW_KERNEL)

#define FEW_LAUNCH(GROUPS, WARPS, LINKS, STAGES, BLOCKS)                                           \
    if (l->g.a.n <= GROUPS * 8) {                                                                  \
        LAUNCH(half_few_##GROUPS##_kernel, cuda_blocks(l->g.b.n, WARPS * 8), WARPS *WARP, 0,       \
               stream, *l);                                                                        \
        return;                                                                                    \
    }

void linear_few(cudaStream_t stream, const HalfLaunch *l)
{
    FEW(FEW_LAUNCH)
}
