#include "common/runtime/cuda/linear.h"
bool blas_product(CudaDevice *d, const HalfProduct *g) { (void)d; (void)g; return false; }
void blas_close(CudaDevice *d) { (void)d; }
void blas_report(const CudaDevice *d, void (*line)(void *ctx, const char *text), void *ctx) { (void)d;(void)line;(void)ctx; }
