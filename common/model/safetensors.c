/* safetensors.c - the file format: eight bytes of header length, a JSON header, the bytes.
 *
 * Reading maps the file and checks everything before a byte of data is looked at: the entries must
 * tile the data section without holes or overlaps. Tested by tests/unit/test_safetensors.c. */
#include "common/model/safetensors.h"

#include "common/base/error.h"
#include "common/base/json.h"
#include "common/base/stream.h"
#include "common/runtime/bf16.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int bytes;
    StDType dtype;
} dtypes[] = {
    {"F32", 4, ST_F32},       {"F16", 2, ST_F16},           {"BF16", 2, ST_BF16},
    {"F64", 8, ST_F64},       {"BOOL", 1, ST_OTHER},        {"U8", 1, ST_OTHER},
    {"I8", 1, ST_OTHER},      {"F8_E5M2", 1, ST_OTHER},     {"F8_E4M3", 1, ST_OTHER},
    {"F8_E8M0", 1, ST_OTHER}, {"F8_E5M2FNUZ", 1, ST_OTHER}, {"F8_E4M3FNUZ", 1, ST_OTHER},
    {"I16", 2, ST_OTHER},     {"U16", 2, ST_OTHER},         {"I32", 4, ST_OTHER},
    {"U32", 4, ST_OTHER},     {"I64", 8, ST_OTHER},         {"U64", 8, ST_OTHER},
    {"C64", 8, ST_OTHER},
};
enum { N_DTYPES = sizeof dtypes / sizeof *dtypes };

/* ---- reading: the header -------------------------------------------------------------------- */

static const uint64_t MAX_HEADER = 100000000;

/* A number of the header: a whole number from 0 on. */
static bool number_read(uint64_t *out, const Json *j)
{
    int64_t v = json_kind(j) == JSON_INT ? json_int(j, -1) : -1;
    *out = (uint64_t)v;
    return v >= 0;
}

/* "FILE: tensor NAME: WHAT is VALUE; expected ..." */
static int refuse(const StTensor *t, const char *path, const char *what, const Json *value, const char *expected)
{
    char *text = value ? json_short(value) : xstrdup("missing");
    int rc = error_set(ERR_DATA, "%s: tensor %s: %s is %s; expected %s", path, t->name, what, text, expected);
    free(text);
    return rc;
}

static int entry_dtype(StTensor *t, const Json *entry, int *bytes, const char *path)
{
    const Json *dtype = json_get(entry, "dtype");
    const char *name = json_str(dtype);
    for (int i = 0; name && i < N_DTYPES; i++)
        if (!strcmp(name, dtypes[i].name)) {
            t->dtype = dtypes[i].dtype;
            *bytes = dtypes[i].bytes;
            strcpy(t->dtype_text, name);
            return 0;
        }
    return refuse(t, path, "dtype", dtype, "F32, F16, BF16 or another of safetensors' names");
}

static int entry_shape(StTensor *t, const Json *entry, int bytes, uint64_t *size, const char *path)
{
    const Json *shape = json_get(entry, "shape");
    uint64_t dim;
    if (json_kind(shape) != JSON_ARR || json_len(shape) > ST_MAX_DIMS)
        return refuse(t, path, "shape", shape, "a list of at most 8 sizes");
    *size = (uint64_t)bytes;
    t->n_dims = (int)json_len(shape);
    for (int i = 0; i < t->n_dims; i++) {
        const Json *j = json_at(shape, (size_t)i);
        char what[32];
        snprintf(what, sizeof what, "shape[%d]", i);
        if (!number_read(&dim, j))
            return refuse(t, path, what, j, "a whole number from 0 on");
        if (__builtin_mul_overflow(*size, dim, size))
            return refuse(t, path, "shape", shape, "sizes whose product fits 64 bits");
        t->dim[i] = (int64_t)dim;
    }
    return 0;
}

static int entry_read(StTensor *t, const Json *entry, const char *path)
{
    int bytes = 0, rc = 0;
    uint64_t size = 0;
    const Json *offsets = json_get(entry, "data_offsets");
    if (json_kind(entry) != JSON_OBJ)
        return refuse(t, path, "its entry", entry, "an object {dtype, shape, data_offsets}");
    TRY(entry_dtype(t, entry, &bytes, path));
    TRY(entry_shape(t, entry, bytes, &size, path));
    if (json_kind(offsets) != JSON_ARR || json_len(offsets) != 2 || !number_read(&t->begin, json_at(offsets, 0)) ||
        !number_read(&t->end, json_at(offsets, 1)) || t->end < t->begin)
        return refuse(t, path, "data_offsets", offsets, "[begin, end], whole numbers from 0 on, ascending");
    if (t->end - t->begin != size)
        return error_set(ERR_DATA,
                         "%s: tensor %s: data_offsets span %llu bytes, its shape and %s need %llu",
                         path, t->name, (unsigned long long)(t->end - t->begin), t->dtype_text,
                         (unsigned long long)size);
fail:
    return rc;
}

static int by_offset(const void *a, const void *b)
{
    const StTensor *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const StTensor *)a)->name, ((const StTensor *)b)->name);
}

/* The tensors must tile the data section exactly. */
static int tiling_check(SafeTensors *s, uint64_t data_bytes)
{
    if (s->n > 1)
        qsort(s->at, (size_t)s->n, sizeof *s->at, by_offset);
    uint64_t at = 0;
    for (int i = 0; i < s->n; i++) {
        if (s->at[i].begin != at)
            return error_set(ERR_DATA,
                             "%s: tensor %s: begins at byte %llu, %s: the one before ends at "
                             "%llu",
                             s->path, s->at[i].name, (unsigned long long)s->at[i].begin,
                             s->at[i].begin > at ? "a hole" : "an overlap", (unsigned long long)at);
        at = s->at[i].end;
    }
    if (at != data_bytes)
        return error_set(ERR_DATA,
                         "%s: the header describes %llu bytes of data, the file holds %llu%s",
                         s->path, (unsigned long long)at, (unsigned long long)data_bytes,
                         at > data_bytes ? ": it is truncated" : ": the rest belongs to no tensor");
    if (s->n > 1)
        qsort(s->at, (size_t)s->n, sizeof *s->at, by_name);
    return 0;
}

static int metadata_check(const Json *j, const char *path)
{
    if (json_kind(j) == JSON_NIL)
        return 0;
    if (json_kind(j) != JSON_OBJ)
        return error_set(ERR_DATA, "%s: __metadata__ is %s; expected an object of texts", path,
                         json_kind_name(json_kind(j)));
    for (void *it = json_iter(j); it; it = json_iter_next(j, it))
        if (json_kind(json_iter_value(it)) != JSON_STR)
            return error_set(ERR_DATA, "%s: __metadata__.%s is %s; expected a string", path, json_iter_key(it),
                             json_kind_name(json_kind(json_iter_value(it))));
    return 0;
}

static int header_read(SafeTensors *s, const Json *header)
{
    int rc = 0;
    s->at = xcalloc(json_len(header), sizeof *s->at);
    for (void *it = json_iter(header); it; it = json_iter_next(header, it)) {
        const char *key = json_iter_key(it);
        if (!strcmp(key, "__metadata__")) {
            TRY(metadata_check(json_iter_value(it), s->path));
            continue;
        }
        StTensor *t = &s->at[s->n++];
        t->name = xstrdup(key);
        TRY(entry_read(t, json_iter_value(it), s->path));
    }
fail:
    return rc;
}

/* Bytes of the JSON behind the first eight. */
static int header_bytes(const SafeTensors *s, uint64_t *n)
{
    const unsigned char *first = s->map.data;
    const unsigned long long bytes = s->map.n;
    *n = 0;
    static const char lfs[] = "version https://git-lfs";
    if (bytes >= sizeof lfs && !memcmp(first, lfs, sizeof lfs - 1))
        return error_set(ERR_DATA, "%s: is a pointer of Git LFS and not the weights; fetch them with git lfs pull", s->path);
    if (bytes < 8)
        return error_set(ERR_DATA, "%s: %llu bytes: truncated, or no safetensors file", s->path, bytes);
    for (int i = 7; i >= 0; i--)
        *n = *n << 8 | first[i];
    if (*n > MAX_HEADER)
        return error_set(ERR_DATA, "%s: the first 8 bytes announce a header of %llu bytes, at most %llu are allowed: "
                                   "damaged, or no safetensors file",
                         s->path, (unsigned long long)*n, (unsigned long long)MAX_HEADER);
    if (*n > bytes - 8)
        return error_set(ERR_DATA, "%s: %llu bytes, with a header of %llu bytes: it is truncated", s->path, bytes,
                         (unsigned long long)*n);
    if (*n == 0 || first[8] != '{')
        return error_set(ERR_DATA, "%s: no JSON object at byte 8: damaged, or no safetensors file", s->path);
    return 0;
}

int safetensors_open(SafeTensors *s, const char *path)
{
    *s = (SafeTensors){.path = xstrdup(path)};
    int rc = 0;
    uint64_t n = 0;
    Json *header = NULL;
    char *name = xasprintf("%s: header", path);
    TRY(file_map(&s->map, path));
    TRY(header_bytes(s, &n));
    TRY(json_parse(&header, (const char *)s->map.data + 8, n, name, 1));
    TRY(header_read(s, header));
    TRY(tiling_check(s, s->map.n - 8 - n));
    s->data = s->map.data + 8 + n;
fail:
    free(name);
    json_free(header);
    if (rc < 0)
        safetensors_close(s);
    return rc;
}

void safetensors_close(SafeTensors *s)
{
    for (int i = 0; i < s->n; i++)
        free(s->at[i].name);
    free(s->at);
    free(s->path);
    file_unmap(&s->map);
    *s = (SafeTensors){0};
}

const StTensor *safetensors_find(const SafeTensors *s, const char *name)
{
    StTensor key = {.name = (char *)name};
    return s->n ? bsearch(&key, s->at, (size_t)s->n, sizeof *s->at, by_name) : NULL;
}

/* ---- reading: elements ---------------------------------------------------------------------- */

static float f32_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static float f32_of_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
    if (exponent == 31)
        return f32_of_bits(sign | 0x7f800000 | fraction << 13);
    if (exponent)
        return f32_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
    float f = (float)fraction * 0x1p-24f; /* zero and subnormals: exact */
    return sign ? -f : f;
}

void safetensors_read_f32(const SafeTensors *s, const StTensor *t, int64_t first, int64_t n,
                          float *dst)
{
    int bytes = t->dtype == ST_F32 ? 4 : 2;
    CHECK(t->dtype <= ST_BF16 && first >= 0 && n >= 0 &&
              (uint64_t)(first + n) * (uint64_t)bytes <= t->end - t->begin,
          "elements %lld + %lld of %s %s", (long long)first, (long long)n, t->dtype_text, t->name);
    const unsigned char *src = s->data + t->begin + (uint64_t)first * (uint64_t)bytes;
    if (t->dtype == ST_F32) { /* the data section need not be aligned */
        memcpy(dst, src, (size_t)n * 4);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, sizeof h);
        dst[i] = t->dtype == ST_F16 ? f32_of_f16(h) : f32_of_bf16(h);
    }
}

/* ---- writing -------------------------------------------------------------------------------- */

static int source_bytes(const StSource *s)
{
    return s->dtype == ST_F32 ? 4 : 2;
}

static int by_dtype_and_name(const void *a, const void *b)
{
    const StSource *x = a, *y = b;
    int d = source_bytes(y) - source_bytes(x);
    return d ? d : strcmp(x->name, y->name);
}

static int64_t source_len(const StSource *s)
{
    int64_t n = 1;
    for (int i = 0; i < s->n_dims; i++)
        n *= s->dim[i];
    return n;
}

int64_t safetensors_source_bytes(const StSource *s)
{
    return source_len(s) * source_bytes(s);
}

static char *header_text(const StSource *sources, int n, size_t *len)
{
    Str text = {0};
    JsonWriter w;
    jw_init(&w, &text, false);
    jw_object(&w);
    jw_key(&w, "__metadata__");
    jw_object(&w);
    jw_kstr(&w, "format", "pt");
    jw_object_end(&w);
    int64_t at = 0;
    for (int i = 0; i < n; i++) {
        const StSource *s = &sources[i];
        jw_key(&w, s->name);
        jw_object(&w);
        jw_kstr(&w, "dtype", s->dtype == ST_F32 ? "F32" : "BF16");
        jw_key(&w, "shape");
        jw_array(&w);
        for (int d = 0; d < s->n_dims; d++)
            jw_int(&w, s->dim[d]);
        jw_array_end(&w);
        jw_key(&w, "data_offsets");
        jw_array(&w);
        jw_int(&w, at);
        at += safetensors_source_bytes(s);
        jw_int(&w, at);
        jw_array_end(&w);
        jw_object_end(&w);
    }
    jw_object_end(&w);
    while (text.n % 8)
        str_add(&text, " ");
    *len = text.n;
    return str_take(&text);
}

enum { WRITE_RUN = 1 << 18 }; /* elements converted and written at a time */

static int source_write(Writer *w, const StSource *s, float *values, uint16_t *half)
{
    int64_t len = source_len(s);
    for (int64_t at = 0; at < len; at += WRITE_RUN) {
        int64_t n = len - at < WRITE_RUN ? len - at : WRITE_RUN;
        s->fill(s->ctx, s->index, at, n, values);
        if (s->dtype == ST_BF16)
            for (int64_t i = 0; i < n; i++)
                half[i] = bf16_of_f32(values[i]);
        int rc = s->dtype == ST_BF16 ? writer_write(w, half, (size_t)n * 2)
                                     : writer_write(w, values, (size_t)n * 4);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int safetensors_write(const char *path, StSource *sources, int n)
{
    int rc = 0;
    Writer *w = NULL;
    size_t len;
    for (int i = 0; i < n; i++)
        CHECK(sources[i].dtype == ST_F32 || sources[i].dtype == ST_BF16, "%s", sources[i].name);
    if (n > 1)
        qsort(sources, (size_t)n, sizeof *sources, by_dtype_and_name);
    char *header = header_text(sources, n, &len);
    float *values = xmalloc(WRITE_RUN * sizeof *values);
    uint16_t *half = xmalloc(WRITE_RUN * sizeof *half);
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)len >> 8 * i);
    TRY(writer_open(&w, path));
    TRY(writer_write(w, length, sizeof length));
    TRY(writer_write(w, header, len));
    for (int i = 0; i < n; i++)
        TRY(source_write(w, &sources[i], values, half));
    rc = writer_close(w);
    w = NULL;
fail:
    writer_abort(w);
    free(header);
    free(values);
    free(half);
    return rc;
}
