/* test_safetensors.c - the file format: round trips, and every way a file can lie. */
#include "common/base/error.h"
#include "common/base/mem.h"
#include "common/model/safetensors.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char path[64];

static int setup(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/test_safetensors.%d", (int)getpid());
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    remove(path);
    return 0;
}

/* A file of this header (length written as given unless `length` says otherwise) and n data bytes.
 */
static void file_make(const char *header, int64_t length, size_t n)
{
    uint64_t len = length >= 0 ? (uint64_t)length : strlen(header);
    unsigned char first[8];
    for (int i = 0; i < 8; i++)
        first[i] = (unsigned char)(len >> 8 * i);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(first, 1, 8, f);
    fwrite(header, 1, strlen(header), f);
    for (size_t i = 0; i < n; i++)
        fputc((int)i, f);
    fclose(f);
}

static void malformed(void **state)
{
    (void)state;
    static const struct {
        const char *what, *header;
        int64_t length;
        size_t data;
        const char *text; /* in the error */
    } cases[] = {
        {"truncated data", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}",
         -1, 15, "truncated"},
        {"rest after the data", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         -1, 5, "holds 5"},
        {"header longer than the file", "{}", 3, 0, "truncated"},
        {"header over the limit", "{}", 100000001, 0, "header of 100000001"},
        {"header length all ones", "{}", INT64_MAX, 0, "at most 100000000"},
        {"empty header", "", 0, 0, "JSON"},
        {"not JSON", "hello, world", -1, 0, "JSON"},
        {"broken JSON", "{\"a\":", -1, 0, ":1:"},
        {"array", "[1]", -1, 0, "JSON"},
        {"hole at the start", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", -1,
         2, "a hole"},
        {"hole",
         "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}",
         -1, 3, "a hole"},
        {"overlap",
         "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
         -1, 3, "an overlap"},
        {"same bytes twice",
         "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
         -1, 2, "an overlap"},
        {"size against dtype",
         "{\"a\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[0,16]}}", -1, 16, "need 8"},
        {"size overflow",
         "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", -1,
         0, "shape is [4294967296, 4294967296]; expected sizes whose product fits"},
        {"negative dimension", "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}",
         -1, 4, "shape[0] is -1; expected a whole number"},
        {"fraction", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,6]}}", -1, 6,
         "shape[0] is 1.5; expected a whole number"},
        {"offsets backwards", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}}", -1,
         1, "data_offsets"},
        {"no offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", -1, 1, "data_offsets"},
        {"no shape", "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", -1, 1, "shape"},
        {"nine dimensions",
         "{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", -1, 1,
         "shape"},
        {"no entry", "{\"a\":7}", -1, 0, "dtype"},
        {"unknown dtype", "{\"a\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,1]}}", -1, 1,
         "F4"},
        {"duplicate",
         "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
         -1, 2, "a"},
        {"metadata of numbers", "{\"__metadata__\":{\"x\":1}}", -1, 0, "__metadata__"},
        {"metadata a list", "{\"__metadata__\":[]}", -1, 0, "__metadata__"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        SafeTensors s;
        file_make(cases[i].header, cases[i].length, cases[i].data);
        int rc = safetensors_open(&s, path);
        if (rc != ERR_DATA || !strstr(error_text(), cases[i].text) || !strstr(error_text(), path))
            fail_msg("%s: %d, \"%s\"", cases[i].what, rc, error_text());
        safetensors_close(&s); /* a second close is fine */
    }
    FILE *f = fopen(path, "wb"); /* too short for the length */
    fputs("abc", f);
    fclose(f);
    SafeTensors s;
    assert_int_equal(safetensors_open(&s, path), ERR_DATA);
    remove(path);
    assert_int_equal(safetensors_open(&s, path), ERR_NOINPUT);
}

static void allowed(void **state)
{
    (void)state;
    SafeTensors s;
    file_make(
        "{\"__metadata__\":null,\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[2,6]},"
        "\"e\":{\"dtype\":\"F16\",\"shape\":[0,3],\"data_offsets\":[2,2]},"
        "\"a\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]}}   ",
        -1, 6);
    if (safetensors_open(&s, path) < 0)
        fail_msg("%s", error_text());
    assert_int_equal(s.n, 3);
    assert_int_equal(safetensors_find(&s, "b")->n_dims, 0);
    assert_int_equal(safetensors_find(&s, "e")->dim[1], 3);
    assert_null(safetensors_find(&s, "c"));
    safetensors_close(&s);
    file_make("{}", -1, 0);
    assert_int_equal(safetensors_open(&s, path), 0);
    assert_null(safetensors_find(&s, "a"));
    safetensors_close(&s);
}

static void halves(void **state)
{
    (void)state;
    /* bits, value: 1, -2, largest, smallest normal, smallest subnormal, -0, inf, 1/3 rounded */
    static const struct {
        uint16_t bits;
        float value;
    } f16[] = {{0x3c00, 1},        {0xc000, -2},    {0x7bff, 65504},    {0x0400, 0x1p-14F},
               {0x0001, 0x1p-24F}, {0x8000, -0.0F}, {0x7c00, INFINITY}, {0x3555, 0.333251953125F}};
    FILE *f = fopen(path, "wb");
    const char *header = "{\"a\":{\"dtype\":\"F16\",\"shape\":[8],\"data_offsets\":[0,16]}}";
    uint64_t n = strlen(header);
    fwrite(&n, 8, 1, f);
    fwrite(header, 1, n, f);
    for (int i = 0; i < 8; i++)
        fwrite(&f16[i].bits, 2, 1, f);
    fclose(f);
    SafeTensors s;
    assert_int_equal(safetensors_open(&s, path), 0);
    for (int i = 0; i < 8; i++) {
        float v;
        safetensors_read_f32(&s, safetensors_find(&s, "a"), i, 1, &v);
        assert_memory_equal(&v, &f16[i].value, 4);
    }
    safetensors_close(&s);
}

static void fill(void *ctx, int index, int64_t first, int64_t n, float *dst)
{
    const float *values = ctx;
    for (int64_t i = 0; i < n; i++)
        dst[i] = values[(first + i) % 4] * (float)(index + 1);
}

static void round_trip(void **state)
{
    (void)state;
    /* 1 + 2^-8 is halfway between bf16 neighbours 1 and 1 + 2^-7: to even, 1. 1 + 3 * 2^-8 goes up.
     */
    static float values[] = {1.00390625F, 1.01171875F, -3.5F, 0x1p-130F};
    static const float as_bf16[] = {1, 1.015625F, -3.5F, 0x1p-130F};
    enum { BIG = 600000 }; /* several runs of the writer */
    StSource sources[] = {
        {.name = "z", .dtype = ST_BF16, .n_dims = 2, .dim = {2, 2}, .fill = fill, .ctx = values},
        {.name = "layers.10",
         .dtype = ST_F32,
         .n_dims = 1,
         .dim = {BIG},
         .fill = fill,
         .ctx = values,
         .index = 1},
        {.name = "layers.2",
         .dtype = ST_F32,
         .n_dims = 1,
         .dim = {3},
         .fill = fill,
         .ctx = values,
         .index = 2},
    };
    assert_int_equal(safetensors_write(path, sources, 3), 0);
    SafeTensors s;
    if (safetensors_open(&s, path) < 0)
        fail_msg("%s", error_text());
    assert_int_equal((s.data - s.map.data) % 8, 0);
    const char *header = (const char *)s.map.data + 8;
    const char *begin = "{\"__metadata__\": {\"format\": \"pt\"}, \"layers.10\"";
    assert_memory_equal(header, begin, strlen(begin));
    /* larger elements first, then by name */
    assert_int_equal(safetensors_find(&s, "layers.10")->begin, 0);
    assert_int_equal(safetensors_find(&s, "layers.2")->begin, 4 * BIG);
    assert_int_equal(safetensors_find(&s, "z")->begin, 4 * BIG + 12);
    float v[4];
    safetensors_read_f32(&s, safetensors_find(&s, "z"), 0, 4, v);
    assert_memory_equal(v, as_bf16, sizeof v);
    safetensors_read_f32(&s, safetensors_find(&s, "layers.10"), BIG - 1, 1, v);
    assert_true(v[0] == 2 * values[3]);
    safetensors_read_f32(&s, safetensors_find(&s, "layers.2"), 1, 2, v);
    assert_true(v[0] == 3 * values[1] && v[1] == 3 * values[2]);
    safetensors_close(&s);
    assert_int_equal(safetensors_write("/nonexistent/x", sources, 3), ERR_CANTCREATE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(malformed), cmocka_unit_test(allowed),
                                       cmocka_unit_test(halves), cmocka_unit_test(round_trip)};
    return cmocka_run_group_tests_name("safetensors", tests, setup, teardown);
}
