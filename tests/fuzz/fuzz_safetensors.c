/* fuzz_safetensors.c - any header over any data, any bytes as a file, any index over two shards: what is refused is
 * refused by name, and what is read tiles its file, is found by name, and written again reads back bit for bit.
 * The first byte says what the rest is: 's' header and data (the length in front is computed), 'r' a whole file,
 * 'i' index, header and data of the shards a and b. */
#include "tests/fuzz/fuzz.h"

#include "common/base/error.h"
#include "common/model/weights.h"
#include "common/runtime/bf16.h"

#include <stdlib.h>
#include <string.h>

const char *const fuzz_words[] = {
    "\"F32\"", "\"F16\"", "\"BF16\"", "\"U8\"", "\"F64\"", "\"C64\"", "\"F4\"", "\"dtype\":", "\"shape\":",
    "\"data_offsets\":", "\"__metadata__\":", "{\"format\":\"pt\"}", "null", "[]", "[0]", "[1]", "[2]", "[0,4]", "[4,8]",
    "[0,0]", "[2,2]", "[0,9223372036854775807]", "9223372036854775807", "18446744073709551616", "-1", "1.5", "1e3", "{}",
    "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\"b\":", "\"a.safetensors\"", "\"b.safetensors\"", "\"../a.safetensors\"",
    "\"weight_map\":", "\\u0000", " ", "\xff", "\x7f\xc0", FUZZ_BORDER, NULL,
};

#define ENTRY(name, dtype, shape, from, to)                                                                            \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" from "," to "]}"

bool fuzz_seed(int k, Str *out)
{
    static const char *const seeds[] = {
        "s{" ENTRY("a", "F32", "2", "0", "8") "," ENTRY("b", "BF16", "2,1", "8", "12") "}" FUZZ_BORDER "abcdefgh\x80\x3f\xc0\x7f",
        "s{\"__metadata__\":{\"format\":\"pt\"}," ENTRY("z", "F16", "3", "0", "6") "," ENTRY("e", "F16", "0,7", "0", "0") ","
            ENTRY("s", "F32", "", "6", "10") "," ENTRY("u", "U8", "1", "10", "11") "}   " FUZZ_BORDER "\x01\x3c\x01\x7c\x01\xfc\x01\x02\xa0\x7f\x05",
        "s{}" FUZZ_BORDER,
        "i{\"metadata\":{\"total_size\":8},\"weight_map\":{\"a\":\"a.safetensors\",\"b\":\"b.safetensors\"}}" FUZZ_BORDER "{"
            ENTRY("a", "F32", "1", "0", "4") "}" FUZZ_BORDER "abcd" FUZZ_BORDER "{" ENTRY("b", "F32", "1", "0", "4") "}" FUZZ_BORDER "efgh",
        "i{\"weight_map\":{\"a\":\"a.safetensors\",\"b\":\"a.safetensors\"}}" FUZZ_BORDER "{" ENTRY("a", "BF16", "1", "0", "2") ","
            ENTRY("b", "F16", "1", "2", "4") "}" FUZZ_BORDER "abcd",
        /* to be refused, each for one reason: a hole, an overlap, a product beyond 64 bits, a tensor in two shards */
        "s{" ENTRY("a", "U8", "1", "0", "1") "," ENTRY("b", "U8", "1", "2", "3") "}" FUZZ_BORDER "abc",
        "s{" ENTRY("a", "F16", "2", "0", "4") "," ENTRY("b", "F16", "2", "2", "6") "}" FUZZ_BORDER "abcdef",
        "s{" ENTRY("a", "F32", "4294967296,4294967296", "0", "0") "}" FUZZ_BORDER,
        "i{\"weight_map\":{\"a\":\"a.safetensors\",\"b\":\"b.safetensors\"}}" FUZZ_BORDER "{" ENTRY("a", "F32", "1", "0", "4")
            "}" FUZZ_BORDER "abcd" FUZZ_BORDER "{" ENTRY("a", "BF16", "1", "0", "2") "," ENTRY("b", "BF16", "1", "2", "4") "}" FUZZ_BORDER "efgh",
    };
    static const char raw[] = "r\x37\0\0\0\0\0\0\0{" ENTRY("a", "F32", "1", "0", "4") "}";
    const int n = sizeof seeds / sizeof *seeds;
    if (k == n) {
        str_add_bytes(out, raw, sizeof raw - 1);
        str_add(out, "abcd");
        ((unsigned char *)out->s)[1] = (unsigned char)(sizeof raw - 1 - 9);
        return true;
    }
    return fuzz_seed_text(seeds, (size_t)n, k, out);
}

/* A header with its length in front, and data. */
static const char *put_file(const char *name, FuzzPart header, FuzzPart data)
{
    Str file = {0};
    uint64_t n = header.n;
    str_add_bytes(&file, &n, sizeof n);
    str_add_bytes(&file, header.s, header.n);
    str_add_bytes(&file, data.s, data.n);
    fuzz_put(name, file.s, file.n);
    str_free(&file);
    return fuzz_path(name);
}

static void fill(void *ctx, int index, int64_t first, int64_t n, float *dst)
{
    const SafeTensors *s = ctx;
    safetensors_read_f32(s, &s->at[index], first, n, dst);
}

static int64_t elements(const StTensor *t)
{
    return (int64_t)(t->end - t->begin) / (t->dtype == ST_F32 ? 4 : 2);
}

/* The tensors that can be read, F16 as F32. */
static void write_again(SafeTensors *s, const char *path)
{
    StSource *sources = xcalloc((size_t)s->n, sizeof *sources);
    int n = 0;
    for (int i = 0; i < s->n; i++) {
        const StTensor *t = &s->at[i];
        if (t->dtype > ST_BF16)
            continue;
        sources[n] = (StSource){.name = t->name, .dtype = t->dtype == ST_BF16 ? ST_BF16 : ST_F32, .n_dims = t->n_dims,
                                .fill = fill, .ctx = s, .index = i};
        memcpy(sources[n++].dim, t->dim, sizeof t->dim);
    }
    CHECK(safetensors_write(path, sources, n) == 0, "%s", error_text());
    free(sources);
}

static void check_equal(const SafeTensors *s, const StTensor *t, const SafeTensors *copy)
{
    const StTensor *c = safetensors_find(copy, t->name);
    CHECK(c && c->n_dims == t->n_dims && !memcmp(c->dim, t->dim, sizeof t->dim), "%s is another one", t->name);
    const int64_t n = elements(t);
    float *x = xmalloc((size_t)n * sizeof *x), *y = xmalloc((size_t)n * sizeof *y);
    safetensors_read_f32(s, t, 0, n, x);
    safetensors_read_f32(copy, c, 0, n, y);
    for (int64_t i = 0; i < n && t->dtype == ST_BF16; i++)
        x[i] = f32_of_bf16(bf16_of_f32(x[i])); /* a NaN becomes quiet */
    CHECK(!memcmp(x, y, (size_t)n * sizeof *x), "%s reads back as something else", t->name);
    free(x);
    free(y);
}

static void round_trip(SafeTensors *s)
{
    SafeTensors copy, twice;
    write_again(s, fuzz_path("copy.safetensors"));
    CHECK(safetensors_open(&copy, fuzz_path("copy.safetensors")) == 0, "%s", error_text());
    for (int i = 0; i < s->n; i++)
        if (s->at[i].dtype <= ST_BF16)
            check_equal(s, &s->at[i], &copy);
    write_again(&copy, fuzz_path("twice.safetensors"));
    CHECK(safetensors_open(&twice, fuzz_path("twice.safetensors")) == 0, "%s", error_text());
    CHECK(copy.map.n == twice.map.n && !memcmp(copy.map.data, twice.map.data, copy.map.n), "two files of one content");
    safetensors_close(&copy);
    safetensors_close(&twice);
}

/* Bytes of an element by its dimensions, which must be those of one of the format's types. */
static void check_size(const StTensor *t)
{
    double n = 1;
    for (int i = 0; i < t->n_dims; i++)
        n *= (double)t->dim[i];
    const double bytes = (double)(t->end - t->begin);
    CHECK(n == 0 ? bytes == 0 : bytes == n || bytes == 2 * n || bytes == 4 * n || bytes == 8 * n, "%s: %g bytes for %g elements",
          t->name, bytes, n);
}

static void describe(const SafeTensors *s, Str *out)
{
    uint64_t bytes = 0;
    for (int i = 0; i < s->n; i++) {
        const StTensor *t = &s->at[i];
        CHECK(safetensors_find(s, t->name) == t, "%s is not found", t->name);
        CHECK(t->end >= t->begin && s->data + t->end <= s->map.data + s->map.n, "%s lies outside", t->name);
        check_size(t);
        bytes += t->end - t->begin;
        str_addf(out, "%s %s %d %llu %llu\n", t->name, t->dtype_text, t->n_dims, (unsigned long long)t->begin,
                 (unsigned long long)t->end);
    }
    CHECK(s->data + bytes == s->map.data + s->map.n, "the tensors do not tile the file");
}

static void run_single(const char *path, Str *out)
{
    SafeTensors s;
    int rc = safetensors_open(&s, path);
    if (rc < 0) {
        fuzz_refused(rc, path, out);
        return;
    }
    describe(&s, out);
    round_trip(&s);
    safetensors_close(&s);
}

static void run_index(const FuzzPart *part, Str *out)
{
    static const char index[] = "model.safetensors.index.json";
    Weights w;
    Hash128 hash;
    fuzz_put(index, part[0].s, part[0].n);
    put_file("a.safetensors", part[1], part[2]);
    put_file("b.safetensors", part[3], part[4]);
    int rc = weights_open(&w, fuzz_folder());
    if (rc < 0) {
        fuzz_refused(rc, fuzz_folder(), out);
        return;
    }
    for (int f = 0; f < w.n_files; f++) {
        describe(&w.file[f], out);
        for (int i = 0; i < w.file[f].n; i++) {
            const SafeTensors *file = NULL;
            const StTensor *t = weights_find(&w, w.file[f].at[i].name, &file);
            CHECK(t == &w.file[f].at[i] && file == &w.file[f], "%s is in two files", t ? t->name : "?");
        }
    }
    weights_close(&w);
    CHECK(weights_hash(fuzz_folder(), &hash) == 0, "%s", error_text());
}

static void run(const uint8_t *data, size_t n, Str *out)
{
    FuzzPart part[5] = {{"", 0}, {"", 0}, {"", 0}, {"", 0}, {"", 0}};
    const char kind = n ? (char)data[0] : 'r';
    if (kind != 's' && kind != 'i') {
        fuzz_put("raw.safetensors", n ? data + 1 : data, n ? n - 1 : 0);
        run_single(fuzz_path("raw.safetensors"), out);
        return;
    }
    fuzz_parts(part, kind == 's' ? 2 : 5, data + 1, n - 1);
    if (kind == 's')
        run_single(put_file("single.safetensors", part[0], part[1]), out);
    else
        run_index(part, out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    fuzz_twice(run, data, n);
    return 0;
}
