/* test_malformed_weights.c - what a safetensors file, an index of shards and the numbers in them can be wrong in: each
 * folder is refused with the file, the tensor or key, and the reason. 69 headers, 26 indices, 24 others;
 * test_malformed_model.c says where the rest is. */
#include "tests/unit/model_folder.h"

#include <math.h>

/* ---- headers -------------------------------------------------------------------------------- */

static const struct {
    const char *find, *put;
    int more; /* bytes of data put behind; below 0: cut off */
    const char *message;
} header_cases[] = {
    {NULL, "", 0,
     "model.safetensors: no JSON object at byte 8: damaged, or no safetensors file"},
    {NULL, "{", 0,
     "model.safetensors: header:1:1: not valid JSON: string or '}' expected near end of file"},
    {NULL, "[]", 0,
     "model.safetensors: no JSON object at byte 8: damaged, or no safetensors file"},
    {NULL, " {}", 0,
     "model.safetensors: no JSON object at byte 8: damaged, or no safetensors file"},
    {NULL, "{}", 0,
     "model.safetensors: the header describes 0 bytes of data, the file holds 2528: the rest belongs to no"},
    {NULL, "hello", 0,
     "model.safetensors: no JSON object at byte 8: damaged, or no safetensors file"},
    {NULL, "\xef\xbb\xbf{}", 0,
     "model.safetensors: no JSON object at byte 8: damaged, or no safetensors file"},
    {NULL, "{\"\xff\": 1}", 0,
     "model.safetensors: header:1:2: not valid JSON: unable to decode byte 0xff near '\"'"},
    {NULL, "{} x", 0,
     "model.safetensors: header:1:4: not valid JSON: end of file expected near 'x'"},
    {NULL, "{\"\\u0000\": {}}", 0,
     "model.safetensors: header:1:9: not valid JSON: NUL byte in object key not supported near '\"\\u0000\"'"},
    {"{\"dtype\": \"F32\", \"shape\": [8, 8], \"data_offsets\": [0, 256]}", "7", 0,
     "model.safetensors: tensor model.embed_tokens.weight: its entry is 7; expected an object {dtype, shape,"},
    {"{\"dtype\": \"F32\", \"shape\": [8, 8], \"data_offsets\": [0, 256]}", "[]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: its entry is []; expected an object {dtype, shape,"},
    {"\"dtype\": \"F32\"", "\"dtype\": \"F4\"", 0,
     "model.safetensors: tensor model.embed_tokens.weight: dtype is \"F4\"; expected F32, F16, BF16 or another"},
    {"\"dtype\": \"F32\"", "\"dtype\": \"f32\"", 0,
     "model.safetensors: tensor model.embed_tokens.weight: dtype is \"f32\"; expected F32, F16, BF16 or"},
    {"\"dtype\": \"F32\"", "\"dtype\": 32", 0,
     "model.safetensors: tensor model.embed_tokens.weight: dtype is 32; expected F32, F16, BF16 or another of"},
    {"\"dtype\": \"F32\"", "\"dtype\": null", 0,
     "model.safetensors: tensor model.embed_tokens.weight: dtype is null; expected F32, F16, BF16 or another"},
    {"\"dtype\": \"F32\"", "\"Dtype\": \"F32\"", 0,
     "model.safetensors: tensor model.embed_tokens.weight: dtype is missing; expected F32, F16, BF16 or"},
    {"\"dtype\": \"F32\"", "\"dtype\": \"F64\"", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets span 256 bytes, its shape and F64 need"},
    {"\"dtype\": \"F32\"", "\"dtype\": \"F16\"", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets span 256 bytes, its shape and F16 need"},
    {"\"dtype\": \"F32\"", "\"dtype\": \"F32\", \"dtype\": \"F32\"", 0,
     "model.safetensors: header:1:54: not valid JSON: duplicate object key near '\"dtype\"'"},
    {"[8, 8]", "[8]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets span 256 bytes, its shape and F32 need"},
    {"[8, 8]", "[8, 9]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets span 256 bytes, its shape and F32 need"},
    {"[8, 8]", "[64]", 0,
     "model.safetensors: tensor model.embed_tokens.weight is (64), config.json asks for (8, 8)"},
    {"[8, 8]", "[8, -8]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: shape[1] is -8; expected a whole number from 0 on"},
    {"[8, 8]", "[8, 8.0]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: shape[1] is 8.0; expected a whole number from 0 on"},
    {"[8, 8]", "[8, \"8\"]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: shape[1] is \"8\"; expected a whole number from 0 on"},
    {"[8, 8]", "[8, 8, 1]", 0,
     "model.safetensors: tensor model.embed_tokens.weight is (8, 8, 1), config.json asks for (8, 8)"},
    {"[8, 8]", "[1, 1, 1, 1, 1, 1, 1, 8, 8]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: shape is [1, 1, 1, 1, 1, 1, 1, 8, 8]; expected a"},
    {"[8, 8]", "8", 0,
     "model.safetensors: tensor model.embed_tokens.weight: shape is 8; expected a list of at most 8 sizes"},
    {"[8, 8]", "{}", 0,
     "model.safetensors: tensor model.embed_tokens.weight: shape is {}; expected a list of at most 8 sizes"},
    {"[8, 8]", "null", 0,
     "model.safetensors: tensor model.embed_tokens.weight: shape is null; expected a list of at most 8 sizes"},
    {"[8, 8]", "[4294967296, 4294967296]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: shape is [4294967296, 4294967296]; expected sizes"},
    {"[8, 8]", "[9223372036854775807, 8]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: shape is [9223372036854775807, 8]; expected sizes"},
    {"[8, 8]", "[9223372036854775808]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: shape[0] is 9.223372036854776e+18; expected a whole"},
    {"[8, 8]", "[0, 8]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets span 256 bytes, its shape and F32 need"},
    {"[8, 8]", "[]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets span 256 bytes, its shape and F32 need"},
    {"[8, 8]", "[[8, 8]]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: shape[0] is [8, 8]; expected a whole number from 0"},
    {"[8, 8]", "[4, 16]", 0,
     "model.safetensors: tensor model.embed_tokens.weight is (4, 16), config.json asks for (8, 8)"},
    {", \"shape\": [8, 8]", "", 0,
     "model.safetensors: tensor model.embed_tokens.weight: shape is missing; expected a list of at most 8 sizes"},
    {"[0, 256]", "[0, 255]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets span 255 bytes, its shape and F32 need"},
    {"[0, 256]", "[0, 260]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets span 260 bytes, its shape and F32 need"},
    {"[0, 256]", "[4, 260]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: begins at byte 4, a hole: the one before ends at 0"},
    {"[0, 256]", "[256, 0]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets is [256, 0]; expected [begin, end],"},
    {"[0, 256]", "[0]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets is [0]; expected [begin, end], whole"},
    {"[0, 256]", "[0, 256, 256]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets is [0, 256, 256]; expected [begin,"},
    {"[0, 256]", "[0, 256.5]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets is [0, 256.5]; expected [begin, end],"},
    {"[0, 256]", "[-4, 252]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets is [-4, 252]; expected [begin, end],"},
    {"[0, 256]", "[\"0\", \"256\"]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets is [\"0\", \"256\"]; expected [begin,"},
    {"[0, 256]", "null", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets is null; expected [begin, end], whole"},
    {"[0, 256]", "{\"begin\": 0, \"end\": 256}", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets is {\"begin\": 0, \"end\": 256};"},
    {"[0, 256]", "[0, 9223372036854775807]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets span 9223372036854775807 bytes, its"},
    {"[0, 256]", "[0, 18446744073709551616]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets is [0, 1.8446744073709552e+19];"},
    {"[0, 256]", "[1e30, 2e30]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets is [1e+30, 2e+30]; expected [begin,"},
    {", \"data_offsets\": [0, 256]", "", 0,
     "model.safetensors: tensor model.embed_tokens.weight: data_offsets is missing; expected [begin, end],"},
    {"[256, 288]", "[252, 284]", 0,
     "model.safetensors: tensor model.layers.0.input_layernorm.weight: begins at byte 252, an overlap: the one"},
    {"[256, 288]", "[260, 292]", 0,
     "model.safetensors: tensor model.layers.0.input_layernorm.weight: begins at byte 260, a hole: the one"},
    {"[256, 288]", "[0, 32]", 0,
     "model.safetensors: tensor model.embed_tokens.weight: begins at byte 0, an overlap: the one before ends"},
    {"{\"model", "{\"__metadata__\": 3, \"model", 0,
     "model.safetensors: __metadata__ is an integer; expected an object of texts"},
    {"{\"model", "{\"__metadata__\": {\"format\": 1}, \"model", 0,
     "model.safetensors: __metadata__.format is an integer; expected a string"},
    {"{\"model", "{\"__metadata__\": {}, \"__metadata__\": {}, \"model", 0,
     "model.safetensors: header:1:35: not valid JSON: duplicate object key near '\"__metadata__\"'"},
    {"model.embed_tokens.weight", "model.norm.weight", 0,
     "model.safetensors: header:1:1049: not valid JSON: duplicate object key near '\"model.norm.weight\"'"},
    {"model.embed_tokens.weight", "model.embed_tokens.bias", 0,
     "model.safetensors: tensor model.embed_tokens.weight (8, 8) is missing"},
    {"lm_head.weight", "lm_head.bias", 0,
     "model.safetensors: tensor lm_head.weight (8, 8) is missing"},
    {"model.layers.0.mlp", "model.layers.1.mlp", 0,
     "model.safetensors: tensor model.layers.0.mlp.gate_proj.weight (12, 8) is missing"},
    {"model.embed_tokens.weight", "", 0,
     "model.safetensors: tensor model.embed_tokens.weight (8, 8) is missing"},
    {"{", "{", 1,
     "model.safetensors: the header describes 2528 bytes of data, the file holds 2529: the rest belongs to no"},
    {"{", "{", -1,
     "model.safetensors: the header describes 2528 bytes of data, the file holds 2527: it is truncated"},
    {"{", "{", -2000,
     "model.safetensors: the header describes 2528 bytes of data, the file holds 528: it is truncated"},
    {"{", "{", 1000,
     "model.safetensors: the header describes 2528 bytes of data, the file holds 3528: the rest belongs to no"},
};

static void headers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof header_cases / sizeof *header_cases; i++) {
        static const char more[1000];
        Str good = {0}, header = {0}, data = {0};
        const int n = header_cases[i].more;
        good_weights(0, GOOD_TENSORS, &good, &data);
        edited(good.s, header_cases[i].find, header_cases[i].put, &header);
        str_add(&header, "");
        str_add_bytes(&data, more, n > 0 ? (size_t)n : 0);
        data.n -= n < 0 ? (size_t)-n : 0;
        put_weights("model.safetensors", &header, &data);
        assert_refused(header_cases[i].put, ERR_DATA, header_cases[i].message);
        str_free(&good);
        str_free(&header);
        str_free(&data);
    }
    put_good_folder();
    assert_int_equal(folder_load(), 0);
}

/* ---- the bytes in front --------------------------------------------------------------------- */

static void lengths(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        int n;
        const char *message;
    } cases[] = {
        {"", 0, "model.safetensors: 0 bytes: truncated, or no safetensors file"},
        {"\x02\0\0\0\0\0\0", 7, "model.safetensors: 7 bytes: truncated, or no safetensors file"},
        {"\x02\0\0\0\0\0\0\0", 8, "model.safetensors: 8 bytes, with a header of 2 bytes: it is truncated"},
        {"\x03\0\0\0\0\0\0\0{}", 10, "model.safetensors: 10 bytes, with a header of 3 bytes: it is truncated"},
        {"\x01\xe1\xf5\x05\0\0\0\0{}", 10,
         "model.safetensors: the first 8 bytes announce a header of 100000001 bytes, at most 100000000 are"},
        {"\xff\xff\xff\xff\xff\xff\xff\xff{}", 10,
         "model.safetensors: the first 8 bytes announce a header of 18446744073709551615 bytes, at most"},
        {"\xf8\xff\xff\xff\xff\xff\xff\xff{}", 10,
         "model.safetensors: the first 8 bytes announce a header of 18446744073709551608 bytes, at most"},
        {"\x02\0\0\0\0\0\0\0{}x", 11,
         "model.safetensors: the header describes 0 bytes of data, the file holds 1: the rest belongs to no"},
        {"PK\x03\x04\0\0\0\0\0\0", 10,
         "model.safetensors: 10 bytes, with a header of 67324752 bytes: it is truncated"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", 66,
         "model.safetensors: is a pointer of Git LFS and not the weights; fetch them with git lfs pull"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        folder_put("model.safetensors", cases[i].bytes, (size_t)cases[i].n);
        assert_refused(cases[i].message, ERR_DATA, cases[i].message);
    }
    put_good_folder();
}

/* ---- an index and its shards ---------------------------------------------------------------- */

#define LM_HEAD  "\"lm_head.weight\": "
#define LAST     LM_HEAD "\"model-00002-of-00002.safetensors\""
#define SHARD(i) "model-0000" #i "-of-00002.safetensors"
enum { FIRST_SHARD = 5 }; /* tensors in it */

static const struct {
    const char *find, *put;
    int code;
    const char *message;
} index_cases[] = {
    {NULL, "", ERR_DATA,
     "model.safetensors.index.json:1:1: not valid JSON: unexpected token near end of file"},
    {NULL, "{", ERR_DATA,
     "model.safetensors.index.json:1:1: not valid JSON: string or '}' expected near end of file"},
    {NULL, "[]", ERR_DATA,
     "model.safetensors.index.json: weight_map is missing; expected an object that names the file of every"},
    {NULL, "{}", ERR_DATA,
     "model.safetensors.index.json: weight_map is missing; expected an object that names the file of every"},
    {NULL, "null", ERR_DATA,
     "model.safetensors.index.json: weight_map is missing; expected an object that names the file of every"},
    {NULL, "{\"weight_map\": {}}", ERR_DATA,
     "model.safetensors.index.json: weight_map is empty; expected an object that names the file of every tensor"},
    {NULL, "{\"weight_map\": []}", ERR_DATA,
     "model.safetensors.index.json: weight_map is an array; expected an object that names the file of every"},
    {NULL, "{\"weight_map\": \"x\"}", ERR_DATA,
     "model.safetensors.index.json: weight_map is a string; expected an object that names the file of every"},
    {NULL, "{\"weight_map\": null}", ERR_DATA,
     "model.safetensors.index.json: weight_map is null; expected an object that names the file of every tensor"},
    {LAST, LM_HEAD "7", ERR_DATA,
     "model.safetensors.index.json: weight_map.lm_head.weight is an integer; expected the name of a file"},
    {LAST, LM_HEAD "null", ERR_DATA,
     "model.safetensors.index.json: weight_map.lm_head.weight is null; expected the name of a file"},
    {LAST, LM_HEAD "[\"model-00002-of-00002.safetensors\"]", ERR_DATA,
     "model.safetensors.index.json: weight_map.lm_head.weight is an array; expected the name of a file"},
    {LAST, LM_HEAD "\"../model-00002-of-00002.safetensors\"", ERR_DATA,
     "model.safetensors.index.json: weight_map.lm_head.weight is \"../model-00002-of-00002.safetensors\";"},
    {LAST, LM_HEAD "\"/etc/passwd\"", ERR_DATA,
     "model.safetensors.index.json: weight_map.lm_head.weight is \"/etc/passwd\"; expected the name of a"},
    {LAST, LM_HEAD "\"shards/model.safetensors\"", ERR_DATA,
     "model.safetensors.index.json: weight_map.lm_head.weight is \"shards/model.safetensors\"; expected the"},
    {LAST, LM_HEAD "\".hidden.safetensors\"", ERR_DATA,
     "model.safetensors.index.json: weight_map.lm_head.weight is \".hidden.safetensors\"; expected the name of"},
    {LAST, LM_HEAD "\".safetensors\"", ERR_DATA,
     "model.safetensors.index.json: weight_map.lm_head.weight is \".safetensors\"; expected the name of a"},
    {LAST, LM_HEAD "\"\"", ERR_DATA,
     "model.safetensors.index.json: weight_map.lm_head.weight is \"\"; expected the name of a .safetensors"},
    {LAST, LM_HEAD "\"model.bin\"", ERR_DATA,
     "model.safetensors.index.json: weight_map.lm_head.weight is \"model.bin\"; expected the name of a"},
    {LAST, LM_HEAD "\"model-00002-of-00002.safetensors\\u0000\"", ERR_DATA,
     "model.safetensors.index.json: weight_map.lm_head.weight is a text with a NUL character; expected the"},
    {LAST, LM_HEAD "\"model-00003-of-00002.safetensors\"", ERR_NOINPUT,
     "model.safetensors.index.json: a shard is missing: ./model-00003-of-00002.safetensors: cannot be opened:"},
    {LAST, LM_HEAD "\"model-00001-of-00002.safetensors\"", ERR_DATA,
     "model.safetensors.index.json: weight_map gives lm_head.weight to model-00001-of-00002.safetensors, which"},
    {", " LAST, "", ERR_DATA,
     "model-00002-of-00002.safetensors: holds lm_head.weight, which ./model.safetensors.index.json gives to no"},
    {LAST, LAST ", \"lm_head.bias\": \"model-00002-of-00002.safetensors\"", ERR_DATA,
     "model.safetensors.index.json: weight_map gives lm_head.bias to model-00002-of-00002.safetensors, which"},
    {LAST, LAST ", " LAST, ERR_DATA,
     "model.safetensors.index.json:2:906: not valid JSON: duplicate object key near '\"lm_head.weight\"'"},
    {"\"model.embed_tokens.weight\": \"model-00001-of-00002.safetensors\"", "\"model.embed_tokens.weight\": \"model-00002-of-00002.safetensors\"", ERR_DATA,
     "model.safetensors.index.json: weight_map gives model.embed_tokens.weight to"},
};

static void put_shards(void)
{
    put_good_folder();
    assert_int_equal(dir_remove("model.safetensors"), 0);
    put_good_weights(SHARD(1), 0, FIRST_SHARD);
    put_good_weights(SHARD(2), FIRST_SHARD, GOOD_TENSORS);
}

static void good_index(Str *out)
{
    str_add(out, "{\"metadata\": {\"total_size\": 1},\n \"weight_map\": {");
    for (int t = 0; t < GOOD_TENSORS; t++)
        str_addf(out, "%s\"%s\": \"%s\"", t ? ", " : "", good_tensors[t].name, t < FIRST_SHARD ? SHARD(1) : SHARD(2));
    str_add(out, "}}\n");
}

static void indices(void **state)
{
    (void)state;
    Str good = {0};
    good_index(&good);
    put_shards();
    folder_put("model.safetensors.index.json", good.s, good.n);
    if (folder_load() < 0)
        fail_msg("%s", error_text());
    for (size_t i = 0; i < sizeof index_cases / sizeof *index_cases; i++) {
        Str text = {0};
        edited(good.s, index_cases[i].find, index_cases[i].put, &text);
        folder_put("model.safetensors.index.json", str_get(&text), text.n);
        assert_refused(index_cases[i].put, index_cases[i].code, index_cases[i].message);
        str_free(&text);
    }
    folder_put("model.safetensors.index.json", good.s, good.n);
    str_free(&good);
}

/* After indices: the folder has shards and their index. */
static void shards(void **state)
{
    (void)state;
    put_good_weights(SHARD(2), FIRST_SHARD - 1, GOOD_TENSORS);
    assert_refused("a tensor in two shards", ERR_DATA,
                   "model-00002-of-00002.safetensors: holds model.layers.0.self_attn.v_proj.weight, which");
    put_good_weights(SHARD(2), FIRST_SHARD + 1, GOOD_TENSORS);
    assert_refused("a tensor in none", ERR_DATA,
                   "model.safetensors.index.json: weight_map gives model.layers.0.self_attn.o_proj.weight to");
    folder_put(SHARD(2), "1234567", 7);
    assert_refused("a shard that is cut off", ERR_DATA,
                   "model-00002-of-00002.safetensors: 7 bytes: truncated, or no safetensors file");
    assert_int_equal(dir_remove(SHARD(2)), 0);
    assert_int_equal(symlink("blobs/12", SHARD(2)), 0);
    assert_refused("a shard that is a link to nothing", ERR_NOINPUT,
                   "model.safetensors.index.json: a shard is missing: ./model-00002-of-00002.safetensors: is a");
    assert_int_equal(dir_remove(SHARD(1)), 0);
    assert_refused("no shard", ERR_NOINPUT,
                   "model.safetensors.index.json: a shard is missing: ./model-00001-of-00002.safetensors: cannot");
    assert_int_equal(dir_remove("model.safetensors.index.json"), 0);
    folder_put("pytorch_model.bin", "PK", 2);
    assert_refused("weights of PyTorch", ERR_DATA,
                   "pytorch_model.bin: weights in PyTorch's format; save the model again as safetensors");
    assert_int_equal(dir_remove("pytorch_model.bin"), 0);
    put_good_folder();
    assert_int_equal(folder_load(), 0);
}

/* ---- numbers -------------------------------------------------------------------------------- */

/* One element of one tensor is no finite number: it is named, in each format that is read. */
static void not_finite(void **state)
{
    (void)state;
    static const struct {
        int tensor, row, col;
        float value;
        const char *message;
    } cases[] = {
        {0, 7, 0, NAN, "model.safetensors: tensor model.embed_tokens.weight: element [7, 0] is nan, expected finite"},
        {1, 3, 0, -INFINITY, "model.safetensors: tensor model.layers.0.input_layernorm.weight: element [3] is -inf, "
                             "expected finite"},
        {7, 11, 7, INFINITY, "model.safetensors: tensor model.layers.0.mlp.gate_proj.weight: element [11, 7] is inf, "
                             "expected finite"},
        {11, 0, 0, NAN, "model.safetensors: tensor lm_head.weight: element [0, 0] is nan, expected finite"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Str header = {0}, data = {0};
        good_weights(0, GOOD_TENSORS, &header, &data);
        size_t at = (size_t)(cases[i].row * (good_tensors[cases[i].tensor].cols ? 8 : 1) + cases[i].col);
        for (int t = 0; t < cases[i].tensor; t++)
            at += (size_t)(good_tensors[t].rows * (good_tensors[t].cols ? good_tensors[t].cols : 1));
        memcpy(data.s + 4 * at, &cases[i].value, 4);
        put_weights("model.safetensors", &header, &data);
        assert_refused("a number", ERR_DATA, cases[i].message);
        str_free(&header);
        str_free(&data);
    }
    put_good_folder();
}

/* The same in the halves of F16 and BF16: a model of one such tensor among F32. */
static void not_finite_halves(void **state)
{
    (void)state;
    static const struct {
        const char *dtype;
        uint16_t bits;
        const char *value;
    } cases[] = {{"F16", 0x7e00, "nan"}, {"F16", 0xfc00, "-inf"}, {"BF16", 0x7fc0, "nan"}, {"BF16", 0x7f80, "inf"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Str good = {0}, header = {0}, data = {0};
        char entry[128], want[160];
        good_weights(0, GOOD_TENSORS, &good, &data);
        /* the last tensor, of half the bytes */
        const size_t end = data.n - 128, begin = data.n - 256;
        snprintf(entry, sizeof entry, "\"lm_head.weight\": {\"dtype\": \"%s\", \"shape\": [8, 8], \"data_offsets\": [%zu, %zu]}}",
                 cases[i].dtype, begin, end);
        edited(good.s, strstr(good.s, "\"lm_head.weight\""), entry, &header);
        memset(data.s + begin, 0, 128);
        memcpy(data.s + begin + 2 * 13, &cases[i].bits, 2);
        data.n = end;
        put_weights("model.safetensors", &header, &data);
        snprintf(want, sizeof want, "model.safetensors: tensor lm_head.weight: element [1, 5] is %s, expected", cases[i].value);
        assert_refused(cases[i].dtype, ERR_DATA, want);
        str_free(&good);
        str_free(&header);
        str_free(&data);
    }
    put_good_folder();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers), cmocka_unit_test(lengths),    cmocka_unit_test(indices),
        cmocka_unit_test(shards),  cmocka_unit_test(not_finite), cmocka_unit_test(not_finite_halves),
    };
    return cmocka_run_group_tests_name("malformed_weights", tests, folder_enter, folder_leave);
}
