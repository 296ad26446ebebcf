/* test_tokenizer.c - ids and texts against golden files of Hugging Face tokenizers (see
 * tests/golden/make_text.py), hand-made cases of each step, and the sentences for broken files. */
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/text/tokenizer_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define GOLDEN "tests/golden/text/"

static Tokenizer *open_golden(const char *name)
{
    char *folder = path_join(GOLDEN, name);
    Tokenizer *t = NULL;
    if (tokenizer_open(&t, folder) < 0)
        fail_msg("%s", error_text());
    free(folder);
    return t;
}

/* Lines of a .jsonl file; the caller frees each and the list. */
static int read_lines(const char *path, Json ***out)
{
    char *text, *line, *rest;
    size_t bytes;
    int n = 0, cap = 0;
    Json **list = NULL;
    if (file_read(path, &text, &bytes) < 0)
        fail_msg("%s", error_text());
    for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        int i = VEC_GROW(list, n, cap);
        if (json_parse(&list[i], line, strlen(line), path, i + 1) < 0)
            fail_msg("%s", error_text());
    }
    free(text);
    *out = list;
    return n;
}

static void free_lines(Json **list, int n)
{
    for (int i = 0; i < n; i++)
        json_free(list[i]);
    free(list);
}

static void assert_ids(const IdList *got, const Json *want, const char *name, int line)
{
    if (got->n != (int)json_len(want))
        fail_msg("%s, case %d: %d ids, expected %d", name, line + 1, got->n, (int)json_len(want));
    for (int i = 0; i < got->n; i++)
        if (got->at[i] != json_int(json_at(want, (size_t)i), -1))
            fail_msg("%s, case %d: id %d is %d, expected %d", name, line + 1, i, got->at[i],
                     (int)json_int(json_at(want, (size_t)i), -1));
}

static void assert_text(const Str *got, const Json *want, const char *name, int line)
{
    if (got->n != json_str_len(want) || memcmp(str_get(got), json_str(want), got->n) != 0)
        fail_msg("%s, case %d: \"%s\", expected \"%s\"", name, line + 1, str_get(got),
                 json_str(want));
}

static void check_golden(Tokenizer *t, const char *name)
{
    char *path = xasprintf(GOLDEN "%s/golden.jsonl", name);
    Json **cases, **want;
    int n = read_lines(GOLDEN "cases.jsonl", &cases), m = read_lines(path, &want);
    assert_true(n >= 200);
    assert_int_equal(n, m);
    for (int i = 0; i < n; i++) {
        const Json *text = json_get(cases[i], "text");
        IdList user = {0}, special = {0};
        Str all = {0}, plain = {0};
        assert_int_equal(tokenizer_encode(t, json_str(text), json_str_len(text), true, &user), 0);
        assert_ids(&user, json_at(want[i], 0), name, i);
        for (int k = 0; k < user.n; k++)
            if (tokenizer_is_special(t, user.at[k]) && user.at[k] != tokenizer_id(t, "<unk>"))
                fail_msg("%s, case %d: a special token from user text", name, i + 1);
        assert_int_equal(
            tokenizer_encode_special(t, json_str(text), json_str_len(text), true, &special), 0);
        assert_ids(&special, json_at(want[i], 1), name, i);
        tokenizer_decode(t, special.at, special.n, false, &all);
        assert_text(&all, json_at(want[i], 2), name, i);
        tokenizer_decode(t, special.at, special.n, true, &plain);
        assert_text(&plain, json_at(want[i], 3), name, i);
        id_list_free(&user);
        id_list_free(&special);
        str_free(&all);
        str_free(&plain);
    }
    free_lines(cases, n);
    free_lines(want, m);
    free(path);
}

static void ids_and_texts_are_those_of_hugging_face(void **s)
{
    static const char *const names[] = {"byte_level",      "byte_level_split", "fallback",
                                        "metaspace_first", "metaspace_always", "words"};
    (void)s;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        Tokenizer *t = open_golden(names[i]);
        check_golden(t, names[i]);
        check_golden(t, names[i]); /* now out of the cache */
        tokenizer_close(t);
    }
}

/* ---- steps */

static void words_of(PreTokenizer *p, const char *text, Str *out)
{
    assert_int_equal(pretokenizer_run(p, text, strlen(text), PIECE_START), 0);
    str_clear(out);
    for (int i = 0; i < p->n_words; i++) {
        str_add(out, i ? "|" : "");
        str_add_bytes(out, str_get(&p->text) + p->words[i].from, p->words[i].to - p->words[i].from);
    }
}

/* The examples of Hugging Face's documentation of SplitDelimiterBehavior. */
static void split_behaviors(void **s)
{
    static const char *const want[SPLIT_COUNT] = {
        "the|-|final|-|-|countdown", "the|final|countdown",      "the-|final-|-|countdown",
        "the|-final|-|-countdown",   "the|-|final|--|countdown",
    };
    (void)s;
    for (int b = 0; b < SPLIT_COUNT; b++) {
        PreStep step = {.kind = PRE_SPLIT, .behavior = (SplitBehavior)b};
        PreTokenizer p = {.at = xmalloc(sizeof step), .n = 1, .cap = 1};
        Str out = {0};
        assert_int_equal(regex_compile(&step.re, "-", 1, true, "test"), 0);
        p.at[0] = step;
        words_of(&p, "the-final--countdown", &out);
        assert_string_equal(str_get(&out), want[b]);
        p.at[0].invert = true; /* the letters are the delimiters now */
        p.at[0].behavior = SPLIT_REMOVED;
        words_of(&p, "the-final--countdown", &out);
        assert_string_equal(str_get(&out), "-|-|-");
        str_free(&out);
        pretokenizer_free(&p);
        pretokenizer_free(&p);
    }
}

static void digits_alone_or_in_runs(void **s)
{
    PreTokenizer p = {.at = xmalloc(sizeof(PreStep)), .n = 1, .cap = 1};
    Str out = {0};
    (void)s;
    p.at[0] = (PreStep){.kind = PRE_DIGITS, .individual = true};
    words_of(&p, "ab12c\xC2\xBD", &out); /* one half is a number too */
    assert_string_equal(str_get(&out), "ab|1|2|c|\xC2\xBD");
    p.at[0].individual = false;
    words_of(&p, "12ab345", &out);
    assert_string_equal(str_get(&out), "12|ab|345");
    str_free(&out);
    pretokenizer_free(&p);
}

/* U+180E is a space to PCRE2 and none to Oniguruma, for which the patterns were written; U+2003 is
 * one to both. */
static void spaces_are_those_of_oniguruma(void **s)
{
    PreTokenizer p = {.at = xcalloc(1, sizeof(PreStep)), .n = 1, .cap = 1};
    Str out = {0};
    (void)s;
    assert_int_equal(
        regex_compile(&p.at[0].re, gpt2_pattern, strlen(gpt2_pattern), false, "test"), 0);
    words_of(&p, "!\xE1\xA0\x8E!", &out);
    assert_string_equal(str_get(&out), "!\xE1\xA0\x8E!");
    words_of(&p, "!\xE2\x80\x83!", &out);
    assert_string_equal(str_get(&out), "!|\xE2\x80\x83|!");
    words_of(&p, "it's  12ab \n", &out);
    assert_string_equal(str_get(&out), "it|'s| | 12|ab| \n");
    str_free(&out);
    pretokenizer_free(&p);
}

static void assert_nfc(const char *text, const char *want)
{
    NormStep step = {.kind = NORM_NFC};
    Normalizer m = {&step, 1, 1};
    Str out = {0};
    normalizer_run(&m, text, strlen(text), PIECE_START, &out);
    assert_string_equal(str_get(&out), want);
    str_free(&out);
}

/* Also where a mark is younger than Hugging Face's tables: U+1ABF (class 220 since Unicode 13) keeps e and acute
 * apart, and comes before no other mark. */
static void nfc_is_that_of_hugging_face(void **s)
{
    (void)s;
    assert_nfc("", "");
    assert_nfc("e\xCC\x81 caf\xC3\xA9 \xE2\x80\xA6", "\xC3\xA9 caf\xC3\xA9 \xE2\x80\xA6");
    assert_nfc("q\xCC\x87\xCC\xA3", "q\xCC\xA3\xCC\x87");
    assert_nfc("\xCC\x87\xCC\xA3", "\xCC\xA3\xCC\x87");
    assert_nfc("\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB", "\xED\x95\x9C");
    assert_nfc("\xED\x95\x98\xE1\x86\xAB", "\xED\x95\x9C");
    assert_nfc("e\xE1\xAA\xBF\xCC\x81", "e\xE1\xAA\xBF\xCC\x81");
    assert_nfc("e\xCC\x87\xE1\xAA\xBF\xCC\xA3", "\xC4\x97\xE1\xAA\xBF\xCC\xA3");
    assert_nfc("\xF0\x91\xA4\xB5\xF0\x91\xA4\xB0", "\xF0\x91\xA4\xB5\xF0\x91\xA4\xB0");
}

static void byte_mapping_is_one_to_one(void **s)
{
    (void)s;
    for (int b = 0; b < 256; b++)
        assert_int_equal(byte_level_byte(byte_level_char((unsigned char)b)), b);
    assert_int_equal(byte_level_char(' '), 0x120);  /* G with a dot */
    assert_int_equal(byte_level_char('\n'), 0x10A); /* C with a dot */
    assert_int_equal(byte_level_char(0xAD), 0x143); /* the last of the 68 */
    assert_int_equal(byte_level_byte(0x144), -1);
    assert_int_equal(byte_level_byte(' '), -1);
}

static void utf8_is_judged_as_in_the_standard(void **s)
{
    Str out = {0};
    (void)s;
    assert_int_equal(utf8_find_invalid("a\xC3\xA9\xF0\x9F\xA6\x99", 7), 7);
    assert_int_equal(utf8_find_invalid("ab\xC0\x80", 4), 2);        /* overlong */
    assert_int_equal(utf8_find_invalid("\xED\xA0\x80", 3), 0);      /* a surrogate */
    assert_int_equal(utf8_find_invalid("x\xF4\x90\x80\x80", 5), 1); /* beyond U+10FFFF */
    assert_int_equal(utf8_find_invalid("\xE2\x82", 2), 0);          /* cut off */
    /* one U+FFFD for the cut sequence, one for each stray byte (Unicode, table 3-8) */
    utf8_add_lossy(&out, "a\xE2\x82z\x80\xFF", 6);
    assert_string_equal(str_get(&out), "a\xEF\xBF\xBDz\xEF\xBF\xBD\xEF\xBF\xBD");
    str_free(&out);
}

static void merges_go_by_rank_then_from_the_left(void **s)
{
    Bpe b = {.unk = -1};
    IdList ids = {0};
    (void)s;
    /* a b c ab bc abc aa; ranks: bc before ab, then a+bc, then aa */
    static const char *const words[] = {"a", "b", "c", "ab", "bc", "abc", "aa"};
    for (int i = 0; i < 7; i++)
        assert_int_equal(vocab_add(&b.vocab, words[i], strlen(words[i]), i), -1);
    assert_int_equal(vocab_add(&b.vocab, "aa", 2, 9), 6);
    merges_put(&b.merges, 1, 2, 0, 4);
    merges_put(&b.merges, 0, 1, 1, 3);
    merges_put(&b.merges, 0, 4, 2, 5);
    merges_put(&b.merges, 0, 0, 3, 6);
    bpe_encode_word(&b, "ababcaaa", 8, &ids); /* ab + abc + aa + a */
    assert_int_equal(ids.n, 4);
    assert_int_equal(ids.at[0], 3);
    assert_int_equal(ids.at[1], 5);
    assert_int_equal(ids.at[2], 6);
    assert_int_equal(ids.at[3], 0);
    id_list_free(&ids);
    bpe_free(&b);
    bpe_free(&b);
}

static void a_continuation_gets_no_prefix(void **s)
{
    static const char *const names[] = {"fallback", "metaspace_first", "metaspace_always"};
    (void)s;
    for (size_t i = 0; i < 3; i++) {
        Tokenizer *t = open_golden(names[i]);
        IdList whole = {0}, parts = {0}, bare = {0};
        assert_int_equal(tokenizer_encode(t, "the end", 7, true, &whole), 0);
        assert_int_equal(tokenizer_encode(t, "the", 3, true, &parts), 0);
        assert_int_equal(tokenizer_encode(t, " end", 4, false, &parts), 0);
        assert_int_equal(parts.n, whole.n);
        assert_memory_equal(parts.at, whole.at, (size_t)whole.n * sizeof *whole.at);
        assert_int_equal(tokenizer_encode(t, "a", 1, false, &bare), 0);
        assert_int_equal(bare.n, 1);
        assert_string_equal(tokenizer_piece(t, bare.at[0]), "a");
        id_list_free(&whole);
        id_list_free(&parts);
        id_list_free(&bare);
        tokenizer_close(t);
    }
}

/* Llama 2 takes a document as one word: 600,000 characters must not take quadratic time, and come
 * back as they were. */
static void a_long_document_is_one_word(void **s)
{
    Tokenizer *t = open_golden("fallback");
    Str text = {0}, back = {0};
    IdList ids = {0};
    (void)s;
    for (int i = 0; i < 50000; i++)
        str_add(&text, i ? " hello there" : "hello there");
    assert_int_equal(tokenizer_encode(t, str_get(&text), text.n, true, &ids), 0);
    assert_true(ids.n < (int)text.n / 2);
    tokenizer_decode(t, ids.at, ids.n, true, &back);
    assert_int_equal(back.n, text.n);
    assert_memory_equal(str_get(&back), str_get(&text), text.n);
    id_list_free(&ids);
    str_free(&text);
    str_free(&back);
    tokenizer_close(t);
}

static void what_a_tokenizer_knows(void **s)
{
    Tokenizer *t = open_golden("words");
    const int32_t outside[] = {-1, 99999};
    Str out = {0};
    IdList ids = {0};
    (void)s;
    assert_int_equal(tokenizer_vocab_size(t), 15);
    assert_int_equal(tokenizer_check_vocab(t, "m", 15), 0);
    assert_int_equal(tokenizer_check_vocab(t, "m", 14), ERR_DATA);
    assert_string_equal(error_text(), "m/tokenizer.json: ids up to 14, but config.json: vocab_size is 14; "
                                      "the tokenizer belongs to another model");
    assert_int_equal(tokenizer_bos(t), -1); /* null in tokenizer_config.json */
    assert_int_equal(tokenizer_eos(t), 2);
    assert_int_equal(tokenizer_id(t, "\n\nHuman:"), 3);
    assert_int_equal(tokenizer_id(t, "nothing"), -1);
    assert_true(tokenizer_is_special(t, 2));
    assert_false(tokenizer_is_special(t, 3));
    assert_false(tokenizer_is_special(t, 15));
    assert_string_equal(tokenizer_piece(t, 5), "\xE2\x96\x81"
                                               "copy");
    assert_string_equal(tokenizer_piece(t, 15), "<invalid>");
    assert_int_equal(strlen(tokenizer_hash(t)), 32);
    assert_int_equal(tokenizer_decode(t, outside, 2, false, &out), 0);
    assert_string_equal(str_get(&out), "");
    assert_int_equal(tokenizer_encode(t, "ok\xFFno", 5, true, &ids), ERR_DATA);
    assert_string_equal(error_text(),
                        "the text is not UTF-8: byte 2 is 0xFF; convert the file to UTF-8");
    tokenizer_close(t);
    tokenizer_close(NULL);
}

/* ---- broken files */

#define HEAD "{\"added_tokens\":[],\"model\":{\"type\":\"BPE\","
#define AB   "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}"

static void broken_files_are_named(void **s)
{
    static const struct {
        const char *json, *want; /* behind "FOLDER/tokenizer.json: " */
    } cases[] = {
        {"[1]", "holds an array; expected an object"},
        {"{}", "tokenizer.model is missing"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}",
         "model.type is \"Unigram\"; only \"BPE\" is supported"},
        {HEAD "\"merges\":[]}}", "model.vocab is missing"},
        {HEAD "\"vocab\":\"x\",\"merges\":[]}}", "model.vocab is a string; expected an object"},
        {HEAD "\"vocab\":{},\"merges\":[]}}", "model.vocab is empty"},
        {HEAD "\"vocab\":{\"a\":\"0\"},\"merges\":[]}}",
         "model.vocab: the id of \"a\" is a string; expected an integer"},
        {HEAD "\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}",
         "model.vocab: token \"b\" has id 0, which is that of \"a\""},
        {HEAD "\"vocab\":{\"a\":-3},\"merges\":[]}}",
         "model.vocab: token \"a\" has id -3; expected 0 to 4194303"},
        {HEAD "\"vocab\":{\"a\":0}}}", "model.merges is missing"},
        {HEAD "\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}}",
         "model.merges[0]: \"ab\" is not in model.vocab"},
        {HEAD "\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"xy\"]]}}",
         "model.merges[0]: \"xy\" is not in model.vocab"},
        {HEAD "\"vocab\":{\"a\":0},\"merges\":[\"a b c\"]}}",
         "model.merges[0] is \"a b c\"; expected two tokens with one space between"},
        {HEAD "\"vocab\":{\"a\":0},\"merges\":[7]}}",
         "model.merges[0] is an integer; expected \"a b\" or [\"a\", \"b\"]"},
        {HEAD "\"dropout\":0.1," AB "}",
         "model.dropout is set, which is not supported; expected null"},
        {HEAD "\"end_of_word_suffix\":\"</w>\"," AB "}",
         "model.end_of_word_suffix is set, which is not supported; expected null"},
        {HEAD "\"unk_token\":\"<unk>\"," AB "}", "model.unk_token \"<unk>\" is not in model.vocab"},
        {HEAD "\"fuse_unk\":3," AB "}", "model.fuse_unk is an integer; expected true or false"},
        {HEAD AB ",\"normalizer\":{\"type\":\"NFKC\"}}",
         "normalizer \"NFKC\" is not supported (supported: Prepend, Replace, NFC, Sequence)"},
        {HEAD AB ",\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a\"}}}",
         "normalizer.pattern is a Regex, which is not supported here; expected a String"},
        {HEAD AB ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
                 "{\"type\":\"ByteLevel\"},{\"type\":\"Whitespace\"}]}}",
         "pre_tokenizer.pretokenizers[1] \"Whitespace\" is not supported (supported: ByteLevel, "
         "Split, "
         "Digits, Metaspace, Sequence)"},
        {HEAD AB ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"},"
                 "\"behavior\":\"Isolated\"}}",
         "pre_tokenizer: the pattern \"(a\" cannot be used: missing closing parenthesis"},
        {HEAD AB ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a&&b]\"},"
                 "\"behavior\":\"Isolated\"}}",
         "pre_tokenizer: the pattern \"[a&&b]\" uses && inside brackets, which is not supported"},
        {HEAD AB ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},"
                 "\"behavior\":\"Odd\"}}",
         "pre_tokenizer.behavior \"Odd\" is not supported"},
        {HEAD AB ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}}",
         "pre_tokenizer.replacement is \"ab\"; expected one character"},
        {HEAD AB ",\"decoder\":{\"type\":\"WordPiece\"}}",
         "decoder \"WordPiece\" is not supported (supported: ByteLevel, Metaspace, Replace, "
         "ByteFallback, Fuse, Strip, Sequence)"},
        {HEAD AB ",\"post_processor\":{\"type\":\"BertProcessing\"}}",
         "post_processor \"BertProcessing\" is not supported (supported: TemplateProcessing, "
         "ByteLevel, Sequence)"},
        {"{\"model\":[]}", "tokenizer.model is an array; expected an object"},
        {HEAD "\"vocab\":{\"a\":0},\"merges\":{}}}", "model.merges is an object; expected an array"},
        {HEAD "\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}",
         "model.merges[0] is an array; expected \"a b\" or [\"a\", \"b\"]"},
        {HEAD "\"vocab\":{\"a\":0},\"merges\":[\"ab\"]}}",
         "model.merges[0] is \"ab\"; expected two tokens with one space between"},
        {HEAD "\"unk_token\":4," AB "}", "model.unk_token is an integer; expected a string or null"},
        {HEAD "\"continuing_subword_prefix\":\"##\"," AB "}",
         "model.continuing_subword_prefix is set, which is not supported; expected null"},
        {HEAD AB ",\"normalizer\":\"NFC\"}",
         "normalizer is a string; expected an object or null"},
        {HEAD AB ",\"normalizer\":{}}", "normalizer.type is missing"},
        {HEAD AB ",\"normalizer\":{\"type\":\"Prepend\"}}", "normalizer.prepend is missing"},
        {HEAD AB ",\"normalizer\":{\"type\":\"Replace\",\"content\":\"\"}}",
         "normalizer.pattern is missing or empty"},
        {HEAD AB ",\"normalizer\":{\"type\":\"Sequence\"}}", "normalizer.normalizers is missing"},
        {HEAD AB ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\","
                 "\"prepend_scheme\":\"odd\"}}",
         "pre_tokenizer.prepend_scheme is \"odd\"; expected always, first or never"},
        {HEAD AB ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"}}}",
         "pre_tokenizer.behavior is missing"},
        {HEAD AB ",\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"use_regex\":1}}",
         "pre_tokenizer.use_regex is an integer; expected true or false"},
        {HEAD AB ",\"pre_tokenizer\":{\"type\":\"Digits\",\"individual_digits\":\"x\"}}",
         "pre_tokenizer.individual_digits is a string; expected true or false"},
        {HEAD AB ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\h+\"},"
                 "\"behavior\":\"Isolated\"}}",
         "pre_tokenizer: the pattern \"\\h+\" uses one of \\h \\H \\R \\X, which is not supported"},
        {HEAD AB ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\C\"},"
                 "\"behavior\":\"Isolated\"}}",
         "pre_tokenizer: the pattern \"\\C\" cannot be used: using \\C is disabled by the application"},
        {HEAD AB ",\"decoder\":{\"type\":\"Strip\",\"content\":\" \",\"start\":-1,\"stop\":0}}",
         "decoder.start is not an integer from 0 to 1000"},
        {HEAD AB ",\"decoder\":{\"type\":\"Strip\",\"content\":\"\",\"start\":1,\"stop\":0}}",
         "decoder.content is \"\"; expected one character"},
        {HEAD AB ",\"post_processor\":{\"type\":\"TemplateProcessing\"}}",
         "post_processor.single is missing"},
        {HEAD AB ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{}]}}",
         "post_processor.single[0] is neither a SpecialToken nor a Sequence"},
        {HEAD AB ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
                 "{\"id\":\"<s>\"}}]}}",
         "post_processor.special_tokens has no ids for \"<s>\""},
        {HEAD AB ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
                 "{\"id\":\"<s>\"}}],\"special_tokens\":{\"<s>\":{\"ids\":[-1]}}}}",
         "post_processor.special_tokens: bad id of \"<s>\""},
        {HEAD AB ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
                 "{\"id\":\"<s>\"}}],\"special_tokens\":{\"<s>\":{\"ids\":[77]}}}}",
         "post_processor: id 77 is no token"},
        {"{\"added_tokens\":\"x\",\"model\":{" AB "}", "added_tokens is a string; expected an array"},
        {"{\"added_tokens\":[1],\"model\":{" AB "}", "added_tokens[0] is an integer; expected an object"},
        {"{\"added_tokens\":[{\"id\":3}],\"model\":{" AB "}", "added_tokens[0].content is missing"},
        {"{\"added_tokens\":[{\"id\":3,\"content\":\"x\",\"lstrip\":0}],\"model\":{" AB "}",
         "added_tokens[0].lstrip is an integer; expected true or false"},
        {"{\"added_tokens\":[{\"id\":3,\"content\":\"x\"},{\"id\":3,\"content\":\"x\"}],\"model\":{" AB "}",
         "added_tokens[1]: \"x\" is listed twice"},
        {"{\"added_tokens\":[{\"id\":5000000,\"content\":\"x\"}],\"model\":{" AB "}",
         "added_tokens[0]: token \"x\" has id 5000000; expected 0 to 4194303"},
        {"{\"added_tokens\":[{\"id\":5,\"content\":\"a\"}],\"model\":{" AB "}",
         "added_tokens[0]: \"a\" has id 5, but 0 in the vocabulary"},
        {"{\"added_tokens\":[{\"content\":\"x\"}],\"model\":{" AB "}",
         "added_tokens[0].id is missing"},
        {"{\"added_tokens\":[{\"id\":1,\"content\":\"x\"}],\"model\":{" AB "}",
         "added_tokens[0]: token \"x\" has id 1, which is that of \"b\""},
    };
    char folder[] = "/tmp/test_tokenizer_XXXXXX";
    char *path, *config;
    Tokenizer *t = NULL;
    (void)s;
    assert_non_null(mkdtemp(folder));
    path = path_join(folder, "tokenizer.json");
    config = path_join(folder, "tokenizer_config.json");
    assert_int_equal(tokenizer_open(&t, folder), ERR_NOINPUT);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *want = xasprintf("%s: %s", path, cases[i].want);
        assert_int_equal(file_write_atomic(path, cases[i].json, strlen(cases[i].json)), 0);
        assert_int_equal(tokenizer_open(&t, folder), ERR_DATA);
        assert_null(t);
        assert_string_equal(error_text(), want);
        free(want);
    }
    /* cut short: the parser's message, with file and line */
    assert_int_equal(file_write_atomic(path, HEAD, strlen(HEAD)), 0);
    assert_int_equal(tokenizer_open(&t, folder), ERR_DATA);
    assert_int_equal(strncmp(error_text(), path, strlen(path)), 0);
    assert_int_equal(strncmp(error_text() + strlen(path), ":1:", 3), 0);
    /* a sound file, and a config that names a token it has not */
    assert_int_equal(file_write_atomic(path, HEAD AB "}", strlen(HEAD AB "}")), 0);
    assert_int_equal(tokenizer_open(&t, folder), 0);
    assert_int_equal(tokenizer_eos(t), -1);
    tokenizer_close(t);
    assert_int_equal(file_write_atomic(config, "{\"eos_token\":\"</s>\"}", 20), 0);
    assert_int_equal(tokenizer_open(&t, folder), ERR_DATA);
    assert_non_null(strstr(error_text(), "eos_token \"</s>\" is not a token of"));
    dir_remove(folder);
    free(path);
    free(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_and_texts_are_those_of_hugging_face),
        cmocka_unit_test(split_behaviors),
        cmocka_unit_test(digits_alone_or_in_runs),
        cmocka_unit_test(spaces_are_those_of_oniguruma),
        cmocka_unit_test(nfc_is_that_of_hugging_face),
        cmocka_unit_test(byte_mapping_is_one_to_one),
        cmocka_unit_test(utf8_is_judged_as_in_the_standard),
        cmocka_unit_test(merges_go_by_rank_then_from_the_left),
        cmocka_unit_test(a_continuation_gets_no_prefix),
        cmocka_unit_test(a_long_document_is_one_word),
        cmocka_unit_test(what_a_tokenizer_knows),
        cmocka_unit_test(broken_files_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
