/* checkpoint.c - see checkpoint.h. The one idea: a folder step-N appears by a rename after everything in
 * it is on the disk, and nothing is believed before its checksum held, so a kill at any moment leaves
 * either the old state or the new one. Tested by tests/unit/test_checkpoint.c and tests/e2e. */
#include "common/train/checkpoint.h"

#include "common/base/cli.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/runtime/device.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the list ---- */

static Blob *blob_new(BlobList *l, const char *name)
{
    int i = VEC_GROW(l->at, l->n, l->cap);
    Blob *b = &l->at[i];
    memset(b, 0, sizeof *b);
    CHECK(strlen(name) < sizeof b->name, "blob name %s is too long", name);
    memcpy(b->name, name, strlen(name) + 1);
    return b;
}

void blob_add(BlobList *l, const char *name, void *data, size_t bytes)
{
    Blob *b = blob_new(l, name);
    b->data = data;
    b->bytes = bytes;
}

void blob_add_tensor(BlobList *l, const char *name, const Tensor *t)
{
    Blob *b = blob_new(l, name);
    b->tensor = *t;
    b->bytes = tensor_bytes(t);
}

static void add_per_param(BlobList *l, const char *prefix, const char *what, const ParamTable *table,
                          const Tensor *t)
{
    for (int i = 0; i < table->n; i++) {
        if (!grads_is_own(table, i))
            continue;
        char *name = xasprintf("%s.%s.%s", prefix, what, table->def[i].name);
        blob_add_tensor(l, name, &t[i]);
        free(name);
    }
}

void blob_add_params(BlobList *l, const char *prefix, ParamSet *p)
{
    add_per_param(l, prefix, "w", p->table, p->w);
    int i = VEC_GROW(l->params, l->n_params, l->cap_params);
    l->params[i] = p;
}

void blob_add_optim(BlobList *l, const char *prefix, Optim *o)
{
    char *name = xasprintf("%s.optim", prefix);
    add_per_param(l, prefix, "m", o->params->table, o->m);
    add_per_param(l, prefix, "v", o->params->table, o->v);
    int64_t *const count[] = {&o->step, &o->skipped, &o->in_row};
    const char *const what[] = {"step", "skipped", "in_row"};
    for (int i = 0; i < 3; i++) {
        char *full = xasprintf("%s.%s", name, what[i]);
        blob_add(l, full, count[i], sizeof *count[i]);
        free(full);
    }
    free(name);
}

void blob_list_free(BlobList *l)
{
    free(l->at);
    free(l->params);
    memset(l, 0, sizeof *l);
}

/* The tensor's own bytes where the host can see them; else NULL: they go through a copy. */
static void *host_bytes(const Blob *b)
{
    if (b->data)
        return b->data;
    return device_kind(b->tensor.dev) == DEVICE_CPU ? b->tensor.data : NULL;
}

/* ---- saving ---- */

static char *checkpoints_dir(const char *run_dir)
{
    return path_join(run_dir, "checkpoints");
}

static char *step_dir(const char *run_dir, int64_t step)
{
    return xasprintf("%s/checkpoints/step-%lld", run_dir, (long long)step);
}

static int write_blob(int fd, const char *path, const Blob *b, Hash128 *hash)
{
    void *p = host_bytes(b), *copy = NULL;
    if (!p) {
        p = copy = xmalloc(b->bytes);
        device_download(copy, &b->tensor, b->bytes);
    }
    *hash = hash128(p, b->bytes);
    int rc = file_write_all(fd, path, p, b->bytes);
    free(copy);
    return rc;
}

static int write_state(const char *dir, const BlobList *l, JsonWriter *w)
{
    int rc = 0;
    char *path = path_join(dir, "state.bin");
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        rc = error_set(ERR_CANTCREATE, "%s: cannot be created: %s", path, strerror(errno));
        goto fail;
    }
    for (int i = 0; i < l->n; i++) {
        Hash128 hash;
        char hex[33];
        TRY(write_blob(fd, path, &l->at[i], &hash));
        hash128_hex(hash, hex);
        jw_object(w);
        jw_kstr(w, "name", l->at[i].name);
        jw_kint(w, "bytes", (int64_t)l->at[i].bytes);
        jw_kstr(w, "xxh3_128", hex);
        jw_object_end(w);
    }
fail:
    if (fd >= 0 && close(fd) < 0 && rc == 0)
        rc = error_set(ERR_CANTCREATE, "%s: cannot be written: %s", path, strerror(errno));
    free(path);
    return rc;
}

static int write_text(const char *dir, const char *name, const char *text)
{
    char *path = path_join(dir, name);
    int rc = file_write_atomic(path, text, strlen(text));
    free(path);
    return rc;
}

int checkpoint_save(const char *run_dir, int64_t step, const BlobList *l, const char *config_yaml)
{
    char *dir = step_dir(run_dir, step), *tmp = xasprintf("%s.tmp", dir);
    Str manifest = {0};
    JsonWriter w;
    int rc = 0;
    TRY(dir_remove(tmp));
    TRY(dir_make(tmp));
    jw_init(&w, &manifest, true);
    jw_object(&w);
    jw_kint(&w, "format", 1);
    jw_kstr(&w, "version", rlhf_version);
    jw_kint(&w, "step", step);
    jw_key(&w, "blobs");
    jw_array(&w);
    TRY(write_state(tmp, l, &w));
    jw_array_end(&w);
    jw_object_end(&w);
    str_add(&manifest, "\n");
    TRY(write_text(tmp, "manifest.json", str_get(&manifest)));
    TRY(write_text(tmp, "config.yaml", config_yaml));
    TRY(dir_commit(tmp, dir));
fail:
    if (rc < 0) {
        char *why = xstrdup(error_text());
        if (dir_remove(tmp) < 0)
            log_debug("%s", error_text());
        rc = error_set(rc, "%s", why);
        free(why);
    }
    str_free(&manifest);
    free(dir);
    free(tmp);
    return rc;
}

/* ---- loading ---- */

/* A checkpoint whose manifest was read and whose checksums held. */
typedef struct {
    Json *manifest;
    const Json *blobs; /* in the manifest */
    FileMap state;
} Stored;

static void stored_close(Stored *s)
{
    json_free(s->manifest);
    file_unmap(&s->state);
    memset(s, 0, sizeof *s);
}

static int stored_check(const Stored *s, const char *dir, int64_t step)
{
    uint64_t at = 0;
    if (json_int(json_get(s->manifest, "format"), 0) != 1 ||
        json_int(json_get(s->manifest, "step"), -1) != step || json_kind(s->blobs) != JSON_ARR)
        return error_set(ERR_DATA, "%s/manifest.json: no manifest of step %lld", dir, (long long)step);
    for (size_t i = 0; i < json_len(s->blobs); i++) {
        const Json *b = json_at(s->blobs, i);
        const char *name = json_str(json_get(b, "name")), *want = json_str(json_get(b, "xxh3_128"));
        int64_t bytes = json_int(json_get(b, "bytes"), -1);
        char hex[33];
        if (!name || !want || bytes < 0)
            return error_set(ERR_DATA, "%s/manifest.json: entry %zu is malformed", dir, i);
        if ((uint64_t)bytes > s->state.n - at)
            return error_set(ERR_DATA, "%s/state.bin: cut off at %zu bytes, inside %s", dir, s->state.n, name);
        hash128_hex(hash128(s->state.data + at, (size_t)bytes), hex);
        if (strcmp(hex, want) != 0)
            return error_set(ERR_DATA, "%s/state.bin: %s: the checksum is %s, expected %s", dir, name, hex, want);
        at += (uint64_t)bytes;
    }
    if (at != s->state.n)
        return error_set(ERR_DATA, "%s/state.bin: has %zu bytes, expected %llu", dir, s->state.n,
                         (unsigned long long)at);
    return 0;
}

static int stored_open(Stored *s, const char *dir, int64_t step)
{
    int rc = 0;
    char *manifest = path_join(dir, "manifest.json"), *state = path_join(dir, "state.bin");
    memset(s, 0, sizeof *s);
    TRY(json_read_file(&s->manifest, manifest));
    s->blobs = json_get(s->manifest, "blobs");
    TRY(file_map(&s->state, state));
    TRY(stored_check(s, dir, step));
fail:
    free(manifest);
    free(state);
    if (rc < 0)
        stored_close(s);
    return rc;
}

/* Steps of the folders step-N, ascending; -1 for no number. */
static int64_t parse_step(const char *name)
{
    char *end;
    if (strncmp(name, "step-", 5) != 0 || !isdigit((unsigned char)name[5]))
        return -1;
    errno = 0;
    long long v = strtoll(name + 5, &end, 10);
    return *end || errno ? -1 : (int64_t)v;
}

static int compare_steps(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int list_steps(const char *run_dir, int64_t **steps, int *n)
{
    char *dir = checkpoints_dir(run_dir), **names = NULL;
    int rc = 0, n_names = 0, cap = 0;
    *steps = NULL;
    *n = 0;
    if (file_is_dir(dir))
        TRY(dir_list(dir, &names, &n_names));
    for (int i = 0; i < n_names; i++) {
        int64_t step = parse_step(names[i]);
        if (step < 0)
            continue;
        int k = VEC_GROW(*steps, *n, cap);
        (*steps)[k] = step;
    }
    if (*n)
        qsort(*steps, (size_t)*n, sizeof **steps, compare_steps);
fail:
    if (names)
        dir_list_free(names, n_names);
    free(dir);
    return rc;
}

int checkpoint_find(const char *run_dir, int64_t *step)
{
    int64_t *steps;
    int n, rc = list_steps(run_dir, &steps, &n);
    bool found = false;
    for (int i = n - 1; rc == 0 && i >= 0 && !found; i--) {
        Stored s;
        char *dir = step_dir(run_dir, steps[i]);
        found = stored_open(&s, dir, steps[i]) == 0;
        stored_close(&s);
        if (found)
            *step = steps[i];
        else
            log_warn("%s; this checkpoint is passed over", error_text());
        free(dir);
    }
    free(steps);
    if (rc == 0 && !found)
        rc = error_set(ERR_NOINPUT, "%s/checkpoints: no complete checkpoint", run_dir);
    return rc;
}

static int check_names(const Stored *s, const char *dir, const BlobList *l)
{
    if (json_len(s->blobs) != (size_t)l->n)
        return error_set(ERR_DATA, "%s: holds %zu entries, this program saves %d; it belongs to another "
                                   "program or config", dir, json_len(s->blobs), l->n);
    for (int i = 0; i < l->n; i++) {
        const Json *b = json_at(s->blobs, (size_t)i);
        const char *name = json_str(json_get(b, "name"));
        int64_t bytes = json_int(json_get(b, "bytes"), -1);
        if (strcmp(name, l->at[i].name) != 0 || bytes != (int64_t)l->at[i].bytes)
            return error_set(ERR_DATA, "%s: entry %d is %s (%lld bytes), expected %s (%zu bytes); it belongs "
                                       "to another program or config", dir, i, name, (long long)bytes,
                             l->at[i].name, l->at[i].bytes);
    }
    return 0;
}

int checkpoint_load(const char *run_dir, int64_t step, const BlobList *l)
{
    Stored s = {0};
    char *dir = step_dir(run_dir, step);
    int rc = 0;
    TRY(stored_open(&s, dir, step));
    TRY(check_names(&s, dir, l));
    const char *version = json_str(json_get(s.manifest, "version"));
    if (version && strcmp(version, rlhf_version) != 0)
        log_warn("%s was written by version %s, this is %s: the same bits are promised within one version",
                 dir, version, rlhf_version);
    const unsigned char *p = s.state.data;
    for (int i = 0; i < l->n; p += l->at[i].bytes, i++) {
        Blob *b = &l->at[i];
        void *host = host_bytes(b);
        if (!b->bytes)
            continue;
        if (host)
            memcpy(host, p, b->bytes);
        else
            device_upload(&b->tensor, p, b->bytes);
    }
    for (int i = 0; i < l->n_params; i++)
        params_refresh(l->params[i]);
fail:
    stored_close(&s);
    free(dir);
    return rc;
}

/* ---- pruning ---- */

int checkpoint_remove_after(const char *run_dir, int64_t step)
{
    int64_t *steps;
    int n, rc = list_steps(run_dir, &steps, &n);
    for (int i = 0; i < n && rc == 0; i++) {
        char *dir = step_dir(run_dir, steps[i]);
        if (steps[i] > step)
            rc = dir_remove(dir);
        free(dir);
    }
    free(steps);
    return rc;
}

static bool is_kept(int64_t step, const int64_t *keep_steps, int n)
{
    for (int i = 0; i < n; i++) {
        if (keep_steps[i] == step)
            return true;
    }
    return false;
}

/* What an interrupted save or removal left. */
static void remove_leftovers(const char *dir)
{
    char **names;
    int n;
    if (!file_is_dir(dir) || dir_list(dir, &names, &n) < 0)
        return;
    for (int i = 0; i < n; i++) {
        size_t len = strlen(names[i]);
        char *path = path_join(dir, names[i]);
        if (len > 4 && (strcmp(names[i] + len - 4, ".tmp") == 0 || strcmp(names[i] + len - 4, ".old") == 0) &&
            dir_remove(path) < 0)
            log_warn("%s", error_text());
        free(path);
    }
    dir_list_free(names, n);
}

void checkpoint_prune(const char *run_dir, int keep, const int64_t *keep_steps, int n_keep_steps)
{
    int64_t *steps;
    int n;
    if (list_steps(run_dir, &steps, &n) < 0) {
        log_warn("%s", error_text());
        n = 0;
    }
    for (int i = 0; i < n - keep; i++) {
        char *dir = step_dir(run_dir, steps[i]), *gone = xasprintf("%s.old", dir);
        /* renamed first: a kill in the middle must not leave a folder that looks like a checkpoint */
        if (!is_kept(steps[i], keep_steps, n_keep_steps) && rename(dir, gone) < 0)
            log_warn("%s: cannot be removed: %s", dir, strerror(errno));
        free(gone);
        free(dir);
    }
    free(steps);
    char *dir = checkpoints_dir(run_dir);
    remove_leftovers(dir);
    free(dir);
}
