/* grads_file.c - see grads_file.h. */
#include "common/model/grads_file.h"

#include "common/base/mem.h"
#include "common/model/safetensors.h"

#include <stdlib.h>

static void fill(void *ctx, int index, int64_t first, int64_t n, float *dst)
{
    const Grads *g = ctx;
    const ParamTable *t = g->table;
    const Tensor *embed = &g->g[t->embed];
    param_fetch(&g->g[index], first, n, dst);
    if (index != t->head || t->def[t->embed].tied_to != t->head || !embed->data)
        return;
    float *part = xmalloc((size_t)n * sizeof *part);
    param_fetch(embed, first, n, part);
    for (int64_t i = 0; i < n; i++)
        dst[i] += part[i];
    free(part);
}

int grads_write(const Grads *g, const char *path)
{
    const ParamTable *t = g->table;
    StSource *src = xcalloc((size_t)t->n, sizeof *src);
    int n = 0;
    for (int i = 0; i < t->n; i++) {
        if (!grads_is_own(t, i))
            continue;
        const ParamDef *d = &t->def[i];
        bool vector = d->dim[1] == 0;
        src[n++] = (StSource){.name = d->hf_name, .dtype = ST_F32, .n_dims = vector ? 1 : 2,
                              .dim = {d->dim[0], d->dim[1]}, .fill = fill, .ctx = (void *)g, .index = i};
    }
    int rc = safetensors_write(path, src, n);
    free(src);
    return rc;
}
