/* weights.c - one safetensors file, or shards under an index. The index says where a tensor is; that
 * the files agree with it is checked before the first tensor is read. Tested by tests/unit/test_weights.c. */
#include "common/model/weights.h"

#include "common/base/error.h"
#include "common/base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SINGLE "model.safetensors"
#define INDEX  SINGLE ".index.json"

static bool holds(const char *folder, const char *name)
{
    char *path = path_join(folder, name);
    bool yes = file_is_there(path);
    free(path);
    return yes;
}

bool weights_exist(const char *folder)
{
    return holds(folder, SINGLE) || holds(folder, INDEX);
}

/* ---- the index ------------------------------------------------------------------------------ */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A shard lies in the folder itself: no path leads elsewhere. */
static int shard_name_check(const Json *file, const char *tensor, const char *index)
{
    const char *name = json_str(file);
    if (!name || strlen(name) != json_str_len(file))
        return error_set(ERR_DATA, "%s: weight_map.%s is %s; expected the name of a file", index, tensor,
                         name ? "a text with a NUL character" : json_kind_name(json_kind(file)));
    size_t n = strlen(name), suffix = strlen(".safetensors");
    if (strchr(name, '/') || name[0] == '.' || n <= suffix || strcmp(name + n - suffix, ".safetensors"))
        return error_set(ERR_DATA,
                         "%s: weight_map.%s is \"%s\"; expected the name of a .safetensors file of this "
                         "folder",
                         index, tensor, name);
    return 0;
}

/* The distinct file names of an index, sorted, borrowed from it; *n of them. */
static int shard_names(const Json *map, const char *index, const char ***out, int *n)
{
    const char **name = xcalloc(json_len(map) + 1, sizeof *name);
    int count = 0;
    for (void *it = json_iter(map); it; it = json_iter_next(map, it)) {
        const char *file = json_str(json_iter_value(it));
        int rc = shard_name_check(json_iter_value(it), json_iter_key(it), index);
        if (rc < 0) {
            free(name);
            return rc;
        }
        name[count++] = file;
    }
    if (count > 1)
        qsort(name, (size_t)count, sizeof *name, by_text);
    int kept = 0;
    for (int i = 0; i < count; i++) {
        if (kept == 0 || strcmp(name[kept - 1], name[i]))
            name[kept++] = name[i];
    }
    *out = name;
    *n = kept;
    return 0;
}

static int index_read(Json **root, const char *path)
{
    int rc = json_read_file(root, path);
    if (rc < 0)
        return rc;
    const Json *map = json_get(*root, "weight_map");
    if (json_kind(map) != JSON_OBJ || json_len(map) == 0)
        return error_set(ERR_DATA, "%s: weight_map is %s; expected an object that names the file of every tensor",
                         path,
                         json_kind(map) == JSON_NONE  ? "missing"
                         : json_kind(map) == JSON_OBJ ? "empty"
                                                      : json_kind_name(json_kind(map)));
    return 0;
}

/* Every tensor of the index is in its file, and every tensor of a file is given to it by the index. */
static int index_check(const Weights *w, const Json *map, const char *const *name)
{
    for (void *it = json_iter(map); it; it = json_iter_next(map, it)) {
        const char *tensor = json_iter_key(it), *file = json_str(json_iter_value(it));
        int i = 0;
        while (strcmp(name[i], file))
            i++;
        if (!safetensors_find(&w->file[i], tensor))
            return error_set(ERR_DATA, "%s: weight_map gives %s to %s, which does not hold it", w->where,
                             tensor, file);
    }
    for (int i = 0; i < w->n_files; i++)
        for (int t = 0; t < w->file[i].n; t++) {
            const char *tensor = w->file[i].at[t].name, *given = json_str(json_get(map, tensor));
            if (!given || strcmp(given, name[i]))
                return error_set(ERR_DATA, "%s: holds %s, which %s gives to %s", w->file[i].path, tensor,
                                 w->where, given ? given : "no file");
        }
    return 0;
}

static int shards_open(Weights *w, const char *folder)
{
    int rc = 0, n = 0;
    Json *root = NULL;
    const char **name = NULL;
    TRY(index_read(&root, w->where));
    const Json *map = json_get(root, "weight_map");
    TRY(shard_names(map, w->where, &name, &n));
    w->file = xcalloc((size_t)n, sizeof *w->file);
    for (; w->n_files < n; w->n_files++) {
        char *path = path_join(folder, name[w->n_files]);
        rc = safetensors_open(&w->file[w->n_files], path);
        free(path);
        if (rc == ERR_NOINPUT)
            rc = error_prefix("%s: a shard is missing", w->where);
        if (rc < 0)
            goto fail;
    }
    TRY(index_check(w, map, name));
fail:
    free(name);
    json_free(root);
    return rc;
}

/* ---- both forms ----------------------------------------------------------------------------- */

static int none_found(const char *folder)
{
    static const char *const old[] = {"pytorch_model.bin", "pytorch_model.bin.index.json"};
    for (int i = 0; i < 2; i++) {
        if (holds(folder, old[i]))
            return error_set(ERR_DATA,
                             "%s/%s: weights in PyTorch's format; save the model again as safetensors "
                             "(safe_serialization=True)",
                             folder, old[i]);
    }
    return error_set(ERR_NOINPUT, "%s/%s: no such file; the folder holds no weights", folder, SINGLE);
}

int weights_open(Weights *w, const char *folder)
{
    *w = (Weights){0};
    int rc = 0;
    if (holds(folder, SINGLE)) { /* as transformers: it wins over an index */
        w->where = path_join(folder, SINGLE);
        w->file = xcalloc(1, sizeof *w->file);
        TRY(safetensors_open(w->file, w->where));
        w->n_files = 1;
    } else if (holds(folder, INDEX)) {
        w->where = path_join(folder, INDEX);
        TRY(shards_open(w, folder));
    } else {
        TRY(none_found(folder));
    }
    return 0;
fail:
    weights_close(w);
    return rc;
}

void weights_close(Weights *w)
{
    for (int i = 0; i < w->n_files; i++)
        safetensors_close(&w->file[i]);
    free(w->file);
    free(w->where);
    *w = (Weights){0};
}

const StTensor *weights_find(const Weights *w, const char *name, const SafeTensors **file)
{
    for (int i = 0; i < w->n_files; i++) {
        const StTensor *t = safetensors_find(&w->file[i], name);
        if (t) {
            *file = &w->file[i];
            return t;
        }
    }
    return NULL;
}

int weights_hash(const char *folder, Hash128 *out)
{
    char *single = path_join(folder, SINGLE), *index = path_join(folder, INDEX);
    int rc = 0, n = 0;
    Json *root = NULL;
    const char **name = NULL;
    Hash128 *part = NULL;
    if (file_exists(single) || !file_exists(index)) {
        rc = hash128_file(single, out);
        goto fail;
    }
    TRY(index_read(&root, index));
    TRY(shard_names(json_get(root, "weight_map"), index, &name, &n));
    part = xcalloc(2 * (size_t)n, sizeof *part);
    for (int i = 0; i < n; i++) {
        char *path = path_join(folder, name[i]);
        part[2 * i] = hash128(name[i], strlen(name[i]));
        rc = hash128_file(path, &part[2 * i + 1]);
        free(path);
        if (rc < 0)
            goto fail;
    }
    *out = hash128(part, 2 * (size_t)n * sizeof *part);
fail:
    free(part);
    free(name);
    json_free(root);
    free(single);
    free(index);
    return rc;
}

/* ---- writing -------------------------------------------------------------------------------- */

/* Number of sources from the first on that one shard of at most `max` bytes takes; at least one. */
static int shard_take(const StSource *sources, int n, int64_t max)
{
    int64_t bytes = 0;
    int taken = 0;
    while (taken < n) {
        int64_t more = safetensors_source_bytes(&sources[taken]);
        if (taken > 0 && bytes + more > max)
            break;
        bytes += more;
        taken++;
    }
    return taken;
}

static void shard_name(char *out, size_t size, int i, int n)
{
    snprintf(out, size, "model-%05d-of-%05d.safetensors", i + 1, n);
}

/* weight_map is written as the shards are: tensor names of shard i before those of shard i + 1. */
static int shards_write(const char *folder, StSource *sources, int n, int n_shards, int64_t max)
{
    int rc = 0, i = 0;
    int64_t total = 0;
    Str text = {0};
    JsonWriter w;
    jw_init(&w, &text, true);
    jw_object(&w);
    jw_key(&w, "metadata");
    jw_object(&w);
    for (int s = 0; s < n; s++)
        total += safetensors_source_bytes(&sources[s]);
    jw_kint(&w, "total_size", total);
    jw_object_end(&w);
    jw_key(&w, "weight_map");
    jw_object(&w);
    for (int at = 0; at < n; i++) {
        char name[64];
        int taken = shard_take(sources + at, n - at, max);
        shard_name(name, sizeof name, i, n_shards);
        for (int s = 0; s < taken; s++)
            jw_kstr(&w, sources[at + s].name, name);
        char *path = path_join(folder, name);
        rc = safetensors_write(path, sources + at, taken);
        free(path);
        if (rc < 0)
            goto fail;
        at += taken;
    }
    jw_object_end(&w);
    jw_object_end(&w);
    str_add(&text, "\n");
    char *path = path_join(folder, INDEX);
    rc = file_write_atomic(path, text.s, text.n);
    free(path);
fail:
    str_free(&text);
    return rc;
}

int weights_write(const char *folder, StSource *sources, int n, int64_t max_shard)
{
    int n_shards = 0;
    for (int at = 0; at < n; n_shards++)
        at += shard_take(sources + at, n - at, max_shard);
    if (n_shards > 1)
        return shards_write(folder, sources, n, n_shards, max_shard);
    char *path = path_join(folder, SINGLE);
    int rc = safetensors_write(path, sources, n);
    free(path);
    return rc;
}
