/* emu_blas.cpp - see emu_blas.h. Matrices are columns of `ld`; operands are bf16, sums f32. */
#include "tests/emu/emu.h"

#include <stdlib.h>

struct EmuBlas {
    int opened;
};
struct EmuBlasDesc {
    cublasOperation_t a, b;
};
struct EmuBlasLayout {
    cudaDataType type;
    int64_t rows, cols, ld;
};
struct EmuBlasPreference {
    size_t workspace;
    bool no_reduction;
    uint32_t a_bytes, b_bytes;
};
static EmuBlas the_library;
enum { ASCENDING, DESCENDING, BY_ROWS };

void *emu_blas_library(void)
{
    return getenv("EMU_BLAS") ? &the_library : NULL;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = &the_library;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t)
{
    return CUBLAS_STATUS_SUCCESS;
}
size_t cublasLtGetVersion(void)
{
    return 1;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t,
                                        cudaDataType)
{
    *desc = new EmuBlasDesc();
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t)
{
    (attribute == CUBLASLT_MATMUL_DESC_TRANSA ? desc->a : desc->b) =
        *(const cublasOperation_t *)value;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    *layout = new EmuBlasLayout{type, (int64_t)rows, (int64_t)cols, ld};
    return ld >= (int64_t)rows ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = new EmuBlasPreference{0, false, 256, 256};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t)
{
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
        preference->workspace = *(const size_t *)value;
    else if (attribute == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES)
        preference->a_bytes = *(const uint32_t *)value;
    else if (attribute == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES)
        preference->b_bytes = *(const uint32_t *)value;
    else
        preference->no_reduction = *(const uint32_t *)value == CUBLASLT_REDUCTION_SCHEME_NONE;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t preference, int asked,
                                              cublasLtMatmulHeuristicResult_t *results, int *n)
{
    const char *at = getenv("EMU_BLAS");
    *n = 0;
    while (at && *at && *n < asked) {
        cublasLtMatmulHeuristicResult_t *r = &results[(*n)++];
        *r = {};
        r->algo.data[0] = *at == 'a' ? ASCENDING : *at == 'd' ? DESCENDING : BY_ROWS;
        r->algo.data[1] = preference->a_bytes;
        r->algo.data[2] = preference->b_bytes;
        at = strchr(at, ',');
        at += at != NULL;
    }
    return *n ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void *value, size_t, size_t *)
{
    *(uint32_t *)value = attribute == CUBLASLT_ALGO_CONFIG_SPLITK_NUM ? 1 : (uint32_t)algo->data[0];
    return CUBLAS_STATUS_SUCCESS;
}

static float half_at(const void *p, int64_t at)
{
    return emu_bits<float>((uint32_t)((const uint16_t *)p)[at] << 16);
}

static void put(void *p, cudaDataType type, int64_t at, float x)
{
    uint32_t u = emu_bits<uint32_t>(x);
    if (type == CUDA_R_32F)
        ((float *)p)[at] = x;
    else
        ((uint16_t *)p)[at] = (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* A product, by value: what a graph keeps. */
struct Job {
    cublasOperation_t ta, tb;
    EmuBlasLayout a, b, c, d;
    const void *A, *B, *C;
    void *D;
    bool add, back;
};

/* D = A B (+ C), rows i, columns j. */
static void run(const Job &p)
{
    const bool ta = p.ta == CUBLAS_OP_T, tb = p.tb == CUBLAS_OP_T;
    const int64_t links = ta ? p.a.rows : p.a.cols;
    emu_card_memory(true);
    for (int64_t j = 0; j < p.d.cols; j++)
        for (int64_t i = 0; i < p.d.rows; i++) {
            float sum = 0;
            for (int64_t n = 0; n < links; n++) {
                const int64_t k = p.back ? links - 1 - n : n;
                sum = fmaf(half_at(p.A, ta ? i * p.a.ld + k : k * p.a.ld + i),
                           half_at(p.B, tb ? k * p.b.ld + j : j * p.b.ld + k), sum);
            }
            const int64_t at = j * p.c.ld + i;
            if (p.add)
                sum += p.c.type == CUDA_R_32F ? ((const float *)p.C)[at] : half_at(p.C, at);
            put(p.D, p.d.type, j * p.d.ld + i, sum);
        }
    emu_card_memory(false);
}

/* alpha is 1, beta 0 or 1. */
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void *,
                              const void *A, cublasLtMatrixLayout_t a, const void *B,
                              cublasLtMatrixLayout_t b, const void *beta, const void *C,
                              cublasLtMatrixLayout_t c, void *D, cublasLtMatrixLayout_t d,
                              const cublasLtMatmulAlgo_t *algo, void *, size_t,
                              struct EmuStream *stream)
{
    const bool ta = desc->a == CUBLAS_OP_T, tb = desc->b == CUBLAS_OP_T;
    if ((ta ? a->rows : a->cols) != (tb ? b->cols : b->rows) ||
        d->rows != (ta ? a->cols : a->rows) || d->cols != (tb ? b->rows : b->cols) ||
        a->type != CUDA_R_16BF || b->type != CUDA_R_16BF || c->type != d->type ||
        (uintptr_t)A % algo->data[1] || (uintptr_t)B % algo->data[2])
        return CUBLAS_STATUS_NOT_SUPPORTED;
    const int64_t links = ta ? a->rows : a->cols;
    const bool back =
        algo->data[0] == DESCENDING || (algo->data[0] == BY_ROWS && (d->cols + links) % 2);
    const Job job = {desc->a, desc->b, *a, *b, *c, *d, A, B, C, D, *(const float *)beta != 0, back};
    if (!emu_record(stream, [job] { run(job); }))
        run(job);
    return CUBLAS_STATUS_SUCCESS;
}
