/* test_weights.c - one file or shards: what is written reads back whatever the cut, and an index that the files
 * contradict is refused with the place. */
#include "common/base/error.h"
#include "common/base/json.h"
#include "common/model/weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64];

static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/test_weights.%d", (int)getpid());
    return dir_make(root);
}

static int teardown(void **state)
{
    (void)state;
    return dir_remove(root);
}

static char *at(const char *name)
{
    static char text[4][256];
    static int next;
    char *t = text[next++ % 4];
    snprintf(t, sizeof text[0], "%s/%s", root, name);
    return t;
}

static void put(const char *name, const char *text)
{
    assert_int_equal(file_write_atomic(at(name), text, strlen(text)), 0);
}

static void fresh(void)
{
    assert_int_equal(dir_remove(root), 0);
    assert_int_equal(dir_make(root), 0);
}

/* ---- writing and reading back --------------------------------------------------------------- */

enum { N = 5 };
static const char *const names[N] = {"c", "a", "e.weight", "b", "d"};
static const int64_t lengths[N] = {10, 3, 40, 1, 7};

/* Element e of tensor i is 100 i + e. */
static void fill(void *ctx, int index, int64_t first, int64_t n, float *dst)
{
    (void)ctx;
    for (int64_t e = 0; e < n; e++)
        dst[e] = (float)(100 * index + first + e);
}

static void write_all(int64_t max_shard)
{
    StSource s[N];
    for (int i = 0; i < N; i++)
        s[i] = (StSource){.name = names[i],
                          .dtype = i == 3 ? ST_BF16 : ST_F32,
                          .n_dims = 1,
                          .dim = {lengths[i]},
                          .fill = fill,
                          .index = i};
    fresh();
    assert_int_equal(weights_write(root, s, N, max_shard), 0);
}

/* Files of at most max bytes of data, but for a tensor that is larger alone. */
static void read_back(int64_t max, int n_files)
{
    Weights w;
    if (weights_open(&w, root) < 0)
        fail_msg("%s", error_text());
    assert_int_equal(w.n_files, n_files);
    int seen = 0;
    for (int f = 0; f < w.n_files; f++) {
        uint64_t bytes = 0;
        for (int t = 0; t < w.file[f].n; t++)
            bytes += w.file[f].at[t].end - w.file[f].at[t].begin;
        assert_true(bytes <= (uint64_t)max || w.file[f].n == 1);
        seen += w.file[f].n;
    }
    assert_int_equal(seen, N);
    for (int i = 0; i < N; i++) {
        const SafeTensors *file = NULL;
        const StTensor *t = weights_find(&w, names[i], &file);
        assert_non_null(t);
        float x[40], want[40];
        safetensors_read_f32(file, t, 0, lengths[i], x);
        fill(NULL, i, 0, lengths[i], want);
        assert_memory_equal(x, want, (size_t)lengths[i] * sizeof *x);
    }
    const SafeTensors *file = NULL;
    assert_null(weights_find(&w, "f", &file));
    weights_close(&w);
}

static void any_cut(void **state)
{
    (void)state;
    /* sizes in the order given: 40, 12, 160, 2, 28 bytes */
    static const struct {
        int64_t max;
        int n_files;
    } cases[] = {{1000, 1}, {242, 1}, {241, 2}, {160, 3}, {52, 3}, {51, 4}, {30, 4}, {1, 5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_all(cases[i].max);
        assert_int_equal(file_exists(at("model.safetensors")), cases[i].n_files == 1);
        assert_true(weights_exist(root));
        read_back(cases[i].max, cases[i].n_files);
    }
    Json *j = NULL; /* of the last: five shards */
    assert_int_equal(json_read_file(&j, at("model.safetensors.index.json")), 0);
    assert_int_equal(json_int(json_get(json_get(j, "metadata"), "total_size"), 0), 242);
    assert_string_equal(json_str(json_get(json_get(j, "weight_map"), "e.weight")),
                        "model-00003-of-00005.safetensors");
    json_free(j);
}

static void hash_tells_bytes(void **state)
{
    (void)state;
    Hash128 h[3];
    write_all(60);
    assert_int_equal(weights_hash(root, &h[0]), 0);
    write_all(60);
    assert_int_equal(weights_hash(root, &h[1]), 0);
    assert_memory_equal(&h[0], &h[1], sizeof h[0]);
    char *data;
    size_t n;
    assert_int_equal(file_read(at("model-00002-of-00003.safetensors"), &data, &n), 0);
    data[n - 1] ^= 1;
    assert_int_equal(file_write_atomic(at("model-00002-of-00003.safetensors"), data, n), 0);
    free(data);
    assert_int_equal(weights_hash(root, &h[2]), 0);
    assert_memory_not_equal(&h[0], &h[2], sizeof h[0]);
    write_all(1000); /* one file: the hash that checkpoints of before know */
    Hash128 bytes;
    assert_int_equal(weights_hash(root, &h[0]), 0);
    assert_int_equal(hash128_file(at("model.safetensors"), &bytes), 0);
    assert_memory_equal(&h[0], &bytes, sizeof bytes);
}

/* ---- what does not fit together ------------------------------------------------------------- */

#define INDEX "model.safetensors.index.json"
#define MAP(text) "{\"weight_map\": {" text "}}"
#define S(i) "\"model-0000" #i "-of-00003.safetensors\""
#define ALL_BUT_E "\"c\": " S(1) ", \"a\": " S(1) ", \"b\": " S(3) ", \"d\": " S(3)

static void refusals(void **state)
{
    (void)state;
    static const struct {
        const char *index, *named[2];
        int code;
    } cases[] = {
        {"{\"weight_map\": {", {"json:1:", ""}, ERR_DATA},
        {"[]", {"weight_map", INDEX}, ERR_DATA},
        {"{\"weight_map\": {}}", {"weight_map", ""}, ERR_DATA},
        {MAP("\"a\": 3"), {"weight_map.a", "name of a file"}, ERR_DATA},
        {MAP("\"a\": \"../model.safetensors\""), {"weight_map.a", "../model.safetensors"}, ERR_DATA},
        {MAP("\"a\": \"/etc/passwd.safetensors\""), {"weight_map.a", "of this folder"}, ERR_DATA},
        {MAP("\"a\": \".safetensors\""), {"weight_map.a", "\".safetensors\""}, ERR_DATA},
        {MAP("\"a\": \"model.bin\""), {"weight_map.a", "model.bin"}, ERR_DATA},
        {MAP(ALL_BUT_E ", \"e.weight\": \"model-00004-of-00003.safetensors\""),
         {"a shard is missing", "model-00004-of-00003"},
         ERR_NOINPUT},
        {MAP(ALL_BUT_E ", \"e.weight\": " S(2) ", \"f\": " S(2)), {"gives f to", "does not hold it"}, ERR_DATA},
        {MAP(ALL_BUT_E ", \"e.weight\": " S(1)), {"gives e.weight to", "00001-of"}, ERR_DATA},
        {MAP("\"c\": " S(1) ", \"e.weight\": " S(2) ", \"b\": " S(3) ", \"d\": " S(3)),
         {"00001-of-00003.safetensors: holds a", "to no file"},
         ERR_DATA},
        {MAP(ALL_BUT_E), {"", ""}, 0}, /* e's file is not looked at: nothing asks for it */
    };
    write_all(60);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Weights w;
        put(INDEX, cases[i].index);
        int rc = weights_open(&w, root);
        if (rc != cases[i].code)
            fail_msg("%s: %d \"%s\"", cases[i].index, rc, rc ? error_text() : "");
        for (int k = 0; rc < 0 && k < 2; k++)
            if (!strstr(error_text(), cases[i].named[k]))
                fail_msg("%s: \"%s\"", cases[i].index, error_text());
        weights_close(&w);
    }
    assert_int_equal(file_write_atomic(at("model-00002-of-00003.safetensors"), "12345678", 8), 0);
    put(INDEX, MAP(ALL_BUT_E ", \"e.weight\": " S(2)));
    Weights w;
    assert_int_equal(weights_open(&w, root), ERR_DATA);
    assert_non_null(strstr(error_text(), "00002-of-00003.safetensors"));
}

static void no_weights(void **state)
{
    (void)state;
    Weights w;
    fresh();
    assert_false(weights_exist(root));
    assert_int_equal(weights_open(&w, root), ERR_NOINPUT);
    assert_non_null(strstr(error_text(), "holds no weights"));
    put("pytorch_model.bin.index.json", "{}");
    assert_int_equal(weights_open(&w, root), ERR_DATA);
    assert_non_null(strstr(error_text(), "safe_serialization"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_cut),
        cmocka_unit_test(hash_tells_bytes),
        cmocka_unit_test(refusals),
        cmocka_unit_test(no_weights),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
