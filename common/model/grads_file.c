/* grads_file.c - see grads_file.h. */
#include "common/model/grads_file.h"

#include "common/base/mem.h"
#include "common/model/safetensors.h"
#include "common/runtime/device.h"

#include <stdlib.h>

typedef struct {
    const Grads *g;
    float *host, *tied; /* storage of the entry being written; of the embedding's part of a tied head */
    int loaded;
} GradSource;

static int64_t slot(const Tensor *t, int64_t i)
{
    if (t->layout != LAYOUT_PANEL)
        return i;
    int64_t K = t->dim[1], n = i / K, k = i % K;
    return ((n / PANEL_N) * K + k) * PANEL_N + n % PANEL_N;
}

static void fill(void *ctx, int index, int64_t first, int64_t n, float *dst)
{
    GradSource *s = ctx;
    const ParamTable *t = s->g->table;
    const Tensor *g = &s->g->g[index];
    bool tied = index == t->head && t->def[t->embed].tied_to == t->head && s->g->g[t->embed].data;
    if (s->loaded != index) {
        free(s->host);
        free(s->tied);
        s->host = xmalloc(tensor_bytes(g));
        device_download(s->host, g, tensor_bytes(g));
        s->tied = NULL;
        if (tied) {
            const Tensor *e = &s->g->g[t->embed];
            s->tied = xmalloc(tensor_bytes(e));
            device_download(s->tied, e, tensor_bytes(e));
        }
        s->loaded = index;
    }
    for (int64_t i = 0; i < n; i++)
        dst[i] = s->host[slot(g, first + i)] + (s->tied ? s->tied[first + i] : 0);
}

int grads_write(const Grads *g, const char *path)
{
    const ParamTable *t = g->table;
    GradSource s = {.g = g, .loaded = -1};
    StSource *src = xcalloc((size_t)t->n, sizeof *src);
    int n = 0;
    for (int i = 0; i < t->n; i++) {
        if (!grads_is_own(t, i))
            continue;
        const ParamDef *d = &t->def[i];
        bool vector = d->dim[1] == 0;
        src[n++] = (StSource){.name = d->hf_name, .dtype = ST_F32, .n_dims = vector ? 1 : 2,
                              .dim = {d->dim[0], d->dim[1]}, .fill = fill, .ctx = &s, .index = i};
    }
    int rc = safetensors_write(path, src, n);
    free(src);
    free(s.host);
    free(s.tied);
    return rc;
}
