/* fuzz_tokenizer.c - any bytes as a tokenizer.json or tokenizer.model, and as the tokenizer_config.json beside it, and
 * any text through what was read: what is refused is refused by name, what is read gives ids of its own tokens, and a
 * user's text no special one. An input is the file, a border, the text, and perhaps a border and the
 * configuration; a file that begins with '{' is JSON. */
#include "tests/fuzz/fuzz.h"

#include "common/base/error.h"
#include "common/base/text.h"
#include "common/text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

const char *const fuzz_words[] = {
    "null", "true", "{", "}", "[", "]", ",", "0", "-1", "99999999", "\"", "\\u2581", SPM_SPACE, "<0x0A>", "<unk>",
    "\"type\":", "\"Sequence\"", "\"Split\"", "\"ByteLevel\"", "\"Metaspace\"", "\"Digits\"", "\"Prepend\"", "\"NFC\"",
    "\"Replace\"", "\"Strip\"", "\"Fuse\"", "\"ByteFallback\"", "\"Removed\"", "\"MergedWithNext\"", "\"Contiguous\"",
    "\"first\"", "\"never\"", "\"special\":true", "\"normalized\":true", "\"lstrip\":true", "\"rstrip\":true",
    "\"single_word\":true", "\"ignore_merges\":true", "\"byte_fallback\":true", "\\\\s", "\\\\p{L}", "(?=", "(?<=a)", "(?i)",
    "*", "+", "|", "\\\\K", "^", "$", "\x0A\x04", "\x12\x04", "\x1A\x02", "\x18\x02", "\x18\x04", "\x18\x05", "\x20\x01",
    "\x98\x02\x01", "\xCC\x81", "\"bos_token\":", "\"eos_token\":", "\"legacy\":",
    "\"add_eos_token\":", "\"added_tokens_decoder\":", "\"30\":{\"content\":\"q\"}", "\"chat_template\":", "e\xCC\x81", "\xE1\x84\x92\xE1\x85\xA1", "\xFF", "\xF0\x9F\xA6\x99", FUZZ_BORDER, NULL,
};

#define ADDED "\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true,\"lstrip\":true,\"rstrip\":false}," \
              "{\"id\":9,\"content\":\"w\",\"single_word\":true,\"normalized\":true}]"
#define VOCAB "\"vocab\":{\"<s>\":0,\"a\":1,\"b\":2,\"ab\":3,\"\\u0120\":4,\"\\u2581\":5,\"\\u2581a\":6,\"<unk>\":7," \
              "\"abab\":8,\"<0x41>\":10},\"merges\":[\"a b\",[\"ab\",\"ab\"],\"\\u2581 a\"]"

static const char *const json_seeds[] = {
    "{" ADDED ",\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
    "\"Split\",\"pattern\":{\"Regex\":\"(?i:'s|'t)|[^\\\\r\\\\n\\\\p{L}]?\\\\p{L}+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":"
    "\"Isolated\"},{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true}]},\"decoder\":{\"type\":\"ByteLevel\"},"
    "\"model\":{\"type\":\"BPE\",\"ignore_merges\":true," VOCAB "}}\n----\na b<s> abab's caf\xC3\xA9 w 12",
    "{" ADDED ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\\u2581\"},{\"type\":"
    "\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\\u2581\"}]},\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":"
    "\"Replace\",\"pattern\":{\"String\":\"\\u2581\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":"
    "\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
    "{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{}}],\"special_tokens\":{\"<s>\":{\"ids\":[0]}}},\"model\":{\"unk_token\":"
    "\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true," VOCAB "}}\n----\na ab A \xE4\xB8\x96 <s>",
    "{" ADDED ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\",\"prepend_scheme\":\"first\",\"split\":true},"
    "\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\"},\"model\":{\"unk_token\":\"<unk>\"," VOCAB
    "}}\n----\n a b w aw",
    "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":\"Split\","
    "\"pattern\":{\"String\":\"b\"},\"behavior\":\"MergedWithPrevious\",\"invert\":true}]},\"model\":{" VOCAB "}}\n----\nab12bb",
    "{\"model\":{\"vocab\":{\"a\":0,\"b\":-1},\"merges\":[]}}\n----\nab", /* to be refused */
};

/* Pieces as on the wire: type and text; scores fall. */
static void add_model(Str *out, const char *const *pieces, bool byte_fallback, bool trim)
{
    for (int i = 0; pieces[i]; i++) {
        const size_t n = strlen(pieces[i] + 1);
        const float score = (float)-i;
        const char head[] = {0x0A, (char)(9 + n), 0x0A, (char)n}, type[] = {0x18, (char)(pieces[i][0] - '0')};
        str_add_bytes(out, head, 4);
        str_add_bytes(out, pieces[i] + 1, n);
        str_add_bytes(out, "\x15", 1);
        str_add_bytes(out, &score, 4);
        str_add_bytes(out, type, 2);
    }
    const char trainer[] = {0x12, 5, 0x18, 2, (char)0x98, 2, byte_fallback}, normalizer[] = {0x1A, 4, 0x18, 1, 0x20, trim};
    str_add_bytes(out, trainer, sizeof trainer);
    str_add_bytes(out, normalizer, sizeof normalizer);
}

bool fuzz_seed(int k, Str *out)
{
    static const char *const plain[] = {"2<unk>", "3<s>", "3</s>", "1ab", "1abab", "1" SPM_SPACE "a", "1a", "1b",
                                        "1" SPM_SPACE, "1xy", NULL};
    static const char *const odd[] = {"2<unk>", "3<s>", "4<sep>", "4ba", "1ab", "5abab", "1a", "1b", "1a" SPM_SPACE,
                                      "1" SPM_SPACE, "5\xC3\xA9t", NULL};
    const int n_json = sizeof json_seeds / sizeof *json_seeds;
    static const char *const configs[] = {
        "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"},\"legacy\":false,\"add_eos_token\":true,"
        "\"added_tokens_decoder\":{\"30\":{\"content\":\"<pad>\",\"special\":true},\"31\":{\"content\":\"w\"}}}",
        "{\"bos_token\":null,\"eos_token\":\"<s>\",\"add_bos_token\":false,\"chat_template\":[{\"name\":\"default\","
        "\"template\":\"{{ messages }}\"}]}",
    };
    if (k < n_json) {
        str_add(out, json_seeds[k]);
        if (k == 0)
            str_addf(out, FUZZ_BORDER "%s", configs[1]);
    } else if (k < n_json + 4) {
        add_model(out, k % 2 ? odd : plain, false, k >= n_json + 2);
        str_add(out, FUZZ_BORDER);
        str_add(out, "a  abab<s> xy \xC3\xA9t\xF0\x9F\xA6\x99<sep>baba ");
        if (k >= n_json + 2) /* `odd` has no </s> */
            str_addf(out, FUZZ_BORDER "%s", configs[k % 2]);
    } else {
        return false;
    }
    return true;
}

static void check_ids(const Tokenizer *t, const IdList *ids, bool user)
{
    for (int i = 0; i < ids->n; i++) {
        int32_t id = ids->at[i];
        CHECK(id >= 0 && id < t->n_pieces && t->pieces[id].s, "id %d of %d", (int)id, t->n_pieces);
        CHECK(!user || !t->pieces[id].special || id == t->bpe.unk, "special id %d from user text", (int)id);
    }
}

static void use(Tokenizer *t, const char *text, size_t n, Str *out)
{
    IdList ids = {0};
    Str back = {0};
    for (int mode = 0; mode < 3; mode++) {
        ids.n = 0;
        str_clear(&back);
        int rc = mode < 2 ? tokenizer_encode(t, text, n, mode == 0, &ids) : tokenizer_encode_special(t, text, n, true, &ids);
        CHECK(rc == 0 || rc == ERR_DATA, "code %d", rc);
        CHECK(rc == 0 || !text_is_utf8(text, n) || strstr(error_text(), "gives up"), "%s", error_text());
        check_ids(t, &ids, mode < 2);
        str_add_bytes(out, ids.at, (size_t)ids.n * sizeof *ids.at);
        CHECK(tokenizer_decode(t, ids.at, ids.n, mode == 2, &back) == 0, "decode");
        CHECK(text_is_utf8(str_get(&back), back.n), "decoded text is not UTF-8");
        str_add_bytes(out, str_get(&back), back.n);
    }
    id_list_free(&ids);
    str_free(&back);
}

/* What a folder has of the three, but for the file that begins otherwise. */
static const char *put_folder(const FuzzPart *part)
{
    const bool json = part[0].n && part[0].s[0] == '{';
    fuzz_put(json ? "tok/tokenizer.json" : "tok/tokenizer.model", part[0].s, part[0].n);
    fuzz_put_nothing(json ? "tok/tokenizer.model" : "tok/tokenizer.json");
    if (part[2].n)
        fuzz_put("tok/tokenizer_config.json", part[2].s, part[2].n);
    else
        fuzz_put_nothing("tok/tokenizer_config.json");
    return fuzz_path("tok");
}

static void run(const uint8_t *data, size_t n, Str *out)
{
    FuzzPart part[3] = {{"", 0}, {"", 0}, {"", 0}};
    Tokenizer *t;
    fuzz_parts(part, 3, data, n);
    const char *folder = put_folder(part);
    int rc = tokenizer_open(&t, folder);
    if (rc < 0) {
        fuzz_refused(rc, folder, out);
        return;
    }
    CHECK(t->bos < t->n_pieces && t->eos < t->n_pieces, "bos %d eos %d of %d", (int)t->bos, (int)t->eos, t->n_pieces);
    use(t, part[1].s, part[1].n, out);
    str_addf(out, " %d %d %s", (int)t->bos, (int)t->eos, t->chat_template ? t->chat_template : "");
    tokenizer_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    fuzz_twice(run, data, n);
    return 0;
}
