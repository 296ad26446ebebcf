/* test_sentencepiece.c - tokenizer.model files made by hand: each rule of SentencePiece once, and the sentences
 * for broken files. Ids of whole models are compared in test_text_golden.c. */
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/text/tokenizer_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE, UNIGRAM = 1, BPE = 2 };

/* ---- a writer of the format */

static void put_varint(Str *b, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        str_add_bytes(b, &(char){(char)(v | 0x80)}, 1);
    str_add_bytes(b, &(char){(char)v}, 1);
}

static void put_number(Str *b, unsigned field, uint64_t v)
{
    put_varint(b, field << 3);
    put_varint(b, v);
}

static void put_bytes(Str *b, unsigned field, const void *s, size_t n)
{
    put_varint(b, field << 3 | 2);
    put_varint(b, n);
    str_add_bytes(b, s, n);
}

static void put_message(Str *b, unsigned field, Str *message)
{
    put_bytes(b, field, str_get(message), message->n);
    str_free(message);
}

static void put_piece(Str *b, const char *s, float score, int type)
{
    Str p = {0};
    put_bytes(&p, 1, s, strlen(s));
    put_varint(&p, 2 << 3 | 5);
    str_add_bytes(&p, &score, 4);
    put_number(&p, 3, (uint64_t)type);
    put_message(b, 1, &p);
}

static void put_trainer(Str *b, int model_type, bool byte_fallback)
{
    Str p = {0};
    put_number(&p, 3, (uint64_t)model_type);
    put_number(&p, 35, byte_fallback);
    put_message(b, 2, &p);
}

static void put_normalizer(Str *b, bool prefix, bool trim)
{
    Str p = {0};
    put_number(&p, 3, prefix);
    put_number(&p, 4, trim);
    put_message(b, 3, &p);
}

/* <unk> <s> </s>, then the pieces given as "text" with scores -1, -2, ... */
static void put_model(Str *b, const char *const *pieces, int n, bool prefix, bool trim)
{
    put_piece(b, "<unk>", 0, UNKNOWN);
    put_piece(b, "<s>", 0, CONTROL);
    put_piece(b, "</s>", 0, CONTROL);
    for (int i = 0; i < n; i++)
        put_piece(b, pieces[i], (float)-(i + 1), NORMAL);
    put_trainer(b, BPE, false);
    put_normalizer(b, prefix, trim);
}

/* ---- opening what was written */

static char folder[] = "/tmp/test_sentencepiece_XXXXXX";

static int open_model(Tokenizer **t, const Str *b)
{
    char *path = path_join(folder, "tokenizer.model");
    assert_int_equal(file_write_atomic(path, str_get(b), b->n), 0);
    free(path);
    return tokenizer_open(t, folder);
}

static Tokenizer *model_of(Str *b)
{
    Tokenizer *t;
    if (open_model(&t, b) < 0)
        fail_msg("%s", error_text());
    str_free(b);
    return t;
}

/* The pieces of a text with bars between. */
static void assert_pieces(Tokenizer *t, const char *text, bool first, const char *want)
{
    IdList ids = {0};
    Str got = {0};
    assert_int_equal(tokenizer_encode(t, text, strlen(text), first, &ids), 0);
    for (int i = 0; i < ids.n; i++) {
        str_add(&got, i ? "|" : "");
        str_add(&got, tokenizer_piece(t, ids.at[i]));
    }
    assert_string_equal(str_get(&got), want);
    id_list_free(&ids);
    str_free(&got);
}

static void assert_decoded(const Tokenizer *t, const int32_t *ids, int n, const char *want)
{
    Str got = {0};
    assert_int_equal(tokenizer_decode(t, ids, n, false, &got), 0);
    assert_string_equal(str_get(&got), want);
    str_free(&got);
}

/* ---- rules */

#define S SPM_SPACE

static void scores_decide_then_the_leftmost(void **state)
{
    static const char *const pieces[] = {"bc", "ab", "abc", "a", "b", "c", S, S "a", "aa"};
    Str b = {0};
    Tokenizer *t;
    (void)state;
    put_model(&b, pieces, 9, true, false);
    t = model_of(&b);
    /* "bc" has the best score, so "abc" is a + bc, which then is a piece itself */
    assert_pieces(t, "bcabcab", true, S "|bc|abc|ab");
    assert_pieces(t, "aaa", false, "aa|a"); /* the left of two equals */
    /* a space for every text that starts, none for one that goes on, one for each space written */
    assert_pieces(t, "a  a", true, S "a|" S "|" S "a");
    assert_pieces(t, "a a", false, "a|" S "a");
    assert_pieces(t, "", true, "");
    /* text that looks like a special token is text; a run of unknown characters is one <unk> */
    assert_pieces(t, "<s>b", true, S "|<unk>|b");
    tokenizer_close(t);
}

static void spaces_are_trimmed_where_the_model_says_so(void **state)
{
    static const char *const pieces[] = {"a", "b", S, S "a"};
    Str b = {0};
    Tokenizer *t;
    (void)state;
    put_model(&b, pieces, 4, true, true);
    t = model_of(&b);
    assert_pieces(t, "  a   b  ", true, S "a|" S "|b");
    assert_pieces(t, "   ", true, "");
    assert_pieces(t, " a", false, S "a"); /* a continuation keeps the space that parts it from before */
    tokenizer_close(t);
}

static void user_defined_symbols_stay_whole(void **state)
{
    static const char *const pieces[] = {"ab", "abab", "a", "b", S};
    Str b = {0};
    Tokenizer *t;
    (void)state;
    put_model(&b, pieces, 5, false, false);
    put_piece(&b, "ba", 0, USER_DEFINED);
    put_piece(&b, "bab", 0, USER_DEFINED);
    t = model_of(&b);
    assert_pieces(t, "ababa", true, "a|bab|a"); /* the longest, before any merge */
    assert_pieces(t, "aabba", true, "a|ab|ba");
    tokenizer_close(t);
}

static void unused_pieces_fall_apart(void **state)
{
    static const char *const pieces[] = {"a", "b", "c", S};
    Str b = {0};
    Tokenizer *t;
    (void)state;
    put_model(&b, pieces, 4, false, false);
    put_piece(&b, "ab", 9, UNUSED);
    put_piece(&b, "abc", 8, NORMAL);
    put_piece(&b, "xy", 7, NORMAL); /* of characters that are no pieces */
    put_piece(&b, "z", 6, UNUSED);  /* nothing to fall apart into */
    t = model_of(&b);
    assert_pieces(t, "ab", true, "a|b");
    assert_pieces(t, "abc", true, "abc"); /* but they merge on */
    assert_pieces(t, "xyx", true, "xy|<unk>");
    assert_pieces(t, "zab", true, "z|a|b");
    tokenizer_close(t);
}

static void bytes_stand_for_what_is_unknown(void **state)
{
    static const char e_acute[] = "<0xC3>|<0xA9>";
    Str b = {0};
    Tokenizer *t;
    char name[8];
    (void)state;
    put_piece(&b, "<unk>", 0, UNKNOWN);
    for (int i = 0; i < 256; i++) {
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        put_piece(&b, name, 0, BYTE);
    }
    put_piece(&b, S, -1, NORMAL);
    put_piece(&b, "a", -2, NORMAL);
    put_trainer(&b, BPE, true);
    put_normalizer(&b, true, false);
    t = model_of(&b);
    assert_pieces(t, "\xC3\xA9", false, e_acute);
    /* ids are 1 + byte; 257 is the space, 258 is a: one space in front is the model's own, a cut character is
     * U+FFFD for each of its bytes, unk is U+2047 between spaces */
    assert_decoded(t, (int32_t[]){257, 258, 257, 258}, 4, "a a");
    assert_decoded(t, (int32_t[]){1 + 0xE2, 1 + 0x82, 1 + 'x', 258}, 4, "\xEF\xBF\xBD\xEF\xBF\xBDxa");
    assert_decoded(t, (int32_t[]){1 + 0xC3, 1 + 0xA9, 257, 258}, 4, "\xC3\xA9 a");
    assert_decoded(t, (int32_t[]){258, 0}, 2, "a \xE2\x81\x87 ");
    tokenizer_close(t);
}

static void what_stands_beside_the_model_counts(void **state)
{
    static const char *const pieces[] = {"a", S, S "a"};
    static const char text[] = "a</s>a<|im_end|>";
    char *config = path_join(folder, "tokenizer_config.json");
    Str b = {0};
    Tokenizer *t;
    IdList ids = {0};
    (void)state;
    put_model(&b, pieces, 3, true, false);
    static const char modern[] =
        "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\",\"add_bos_token\":true,\"legacy\":false,"
        "\"added_tokens_decoder\":{\"1\":{\"content\":\"<s>\",\"special\":true},"
        "\"6\":{\"content\":\"<|im_end|>\",\"special\":true,\"normalized\":false}}}";
    assert_int_equal(file_write_atomic(config, modern, sizeof modern - 1), 0);
    t = model_of(&b);
    assert_int_equal(tokenizer_vocab_size(t), 7);
    assert_int_equal(tokenizer_id(t, "<|im_end|>"), 6);
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_eos(t), 2);
    assert_int_equal(tokenizer_encode_special(t, text, sizeof text - 1, true, &ids), 0);
    static const int32_t want[] = {1, 5, 2, 3, 6}; /* no space behind </s> */
    assert_int_equal(ids.n, 5);
    assert_memory_equal(ids.at, want, sizeof want);
    tokenizer_close(t);
    put_model(&b, pieces, 3, true, false);
    static const char bad[] = "{\"added_tokens_decoder\":{\"six\":{\"content\":\"x\"}}}";
    assert_int_equal(file_write_atomic(config, bad, sizeof bad - 1), 0);
    assert_int_equal(open_model(&t, &b), ERR_DATA);
    assert_non_null(strstr(error_text(), "added_tokens_decoder[\"six\"]: the key is not an id"));
    static const char taken[] = "{\"added_tokens_decoder\":{\"3\":{\"content\":\"x\"}}}";
    assert_int_equal(file_write_atomic(config, taken, sizeof taken - 1), 0);
    assert_int_equal(open_model(&t, &b), ERR_DATA);
    assert_non_null(strstr(error_text(), "token \"x\" has id 3, which is that of \"a\""));
    remove(config);
    id_list_free(&ids);
    str_free(&b);
    free(config);
}

/* ---- broken files */

static void assert_refused(Str *b, const char *want)
{
    char *path = path_join(folder, "tokenizer.model"), *whole = xasprintf("%s: %s", path, want);
    Tokenizer *t;
    assert_int_equal(open_model(&t, b), ERR_DATA);
    assert_null(t);
    assert_string_equal(error_text(), whole);
    str_free(b);
    free(whole);
    free(path);
}

#define RAW(bytes) str_add_bytes(&b, bytes, sizeof bytes - 1)

static void broken_wires(void **state)
{
    Str b = {0};
    (void)state;
    assert_refused(&b, "there are no pieces; this is no model of SentencePiece");
    RAW("\x0A");
    assert_refused(&b, "byte 1: a number is cut off");
    RAW("\x0A\x05xy");
    assert_refused(&b, "byte 1: a field is longer than what is left of its message");
    RAW("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01");
    assert_refused(&b, "byte 1: a field is longer than what is left of its message");
    RAW("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01");
    assert_refused(&b, "byte 1: a number of more than ten bytes");
    RAW("\x0F");
    assert_refused(&b, "byte 0: not a field type; this is no Protocol Buffers file");
    RAW("\x02\x00");
    assert_refused(&b, "byte 0: not a field number; this is no Protocol Buffers file");
    RAW("\x7B\"a\": 1}");
    assert_refused(&b, "byte 0: not a field type; this is no Protocol Buffers file");
    RAW("\x08\x01");
    assert_refused(&b, "byte 0: field 1 has the wrong type; this is no model of SentencePiece");
    RAW("\x0A\x02\x08\x01");
    assert_refused(&b, "byte 2: piece 0: field 1 has the wrong type");
    RAW("\x0A\x03\x15\x00\x00");
    assert_refused(&b, "byte 3: a number is cut off");
    RAW("\x0A\x00\x0A\x04\x0A\x07zz");
    assert_refused(&b, "byte 5: a field is longer than what is left of its message");
    RAW("\x12\x01\x18");
    assert_refused(&b, "byte 3: a number is cut off");
}

static void refused_models(void **state)
{
    static const float nan = __builtin_nanf("");
    Str b = {0}, p = {0};
    (void)state;
    put_piece(&b, "<unk>", 0, UNKNOWN);
    assert_refused(&b, "trainer_spec.model_type is \"unigram\"; only \"bpe\" is supported: convert it to "
                       "tokenizer.json");
    put_piece(&b, "<unk>", 0, UNKNOWN);
    put_trainer(&b, 99, false);
    assert_refused(&b, "trainer_spec.model_type is \"?\"; only \"bpe\" is supported: convert it to tokenizer.json");
    put_trainer(&b, BPE, false);
    assert_refused(&b, "there are no pieces; this is no model of SentencePiece");
    put_trainer(&b, BPE, false);
    put_piece(&b, "a", 0, NORMAL);
    assert_refused(&b, "there is no piece of type UNKNOWN");
    put_model(&b, NULL, 0, true, false);
    put_piece(&b, "<unk2>", 0, UNKNOWN);
    assert_refused(&b, "piece 3 (\"<unk2>\") is a second one of type UNKNOWN");
    put_model(&b, NULL, 0, true, false);
    put_piece(&b, "<s>", 0, NORMAL);
    assert_refused(&b, "piece 3 (\"<s>\") is piece 1 already");
    put_model(&b, NULL, 0, true, false);
    put_piece(&b, "", 0, NORMAL);
    assert_refused(&b, "piece 3 is empty");
    put_model(&b, NULL, 0, true, false);
    put_piece(&b, "a\xFF", 0, NORMAL);
    assert_refused(&b, "piece 3 is not UTF-8 text");
    put_model(&b, NULL, 0, true, false);
    put_piece(&b, "a", nan, NORMAL);
    assert_refused(&b, "piece 3 (\"a\") has a score that is no number");
    put_model(&b, NULL, 0, true, false);
    put_piece(&b, "a", 0, 7);
    assert_refused(&b, "piece 3 (\"a\") is of an unknown type");
    put_model(&b, NULL, 0, true, false);
    put_piece(&b, "<0x0g>", 0, BYTE);
    assert_refused(&b, "piece 3 (\"<0x0g>\") is of type BYTE; expected \"<0x00>\" to \"<0xFF>\"");
    put_model(&b, NULL, 0, true, false);
    put_piece(&b, "<0x00>", 0, BYTE);
    put_trainer(&b, BPE, true);
    assert_refused(&b, "trainer_spec.byte_fallback is set, but there is no piece <0x01>");
    put_model(&b, NULL, 0, true, false);
    put_number(&p, 24, 1);
    put_message(&b, 2, &p);
    assert_refused(&b, "trainer_spec.treat_whitespace_as_suffix is set, which is not supported");
    put_model(&b, NULL, 0, true, false);
    put_number(&p, 5, 0);
    put_message(&b, 3, &p);
    assert_refused(&b, "normalizer_spec.escape_whitespaces is false, which is not supported");
    put_bytes(&p, 2, "map", 3);
    put_message(&b, 3, &p);
    assert_refused(&b, "byte 2: normalizer_spec.precompiled_charsmap is not empty; only models without a character map "
                       "(normalization \"identity\") are supported: convert it to tokenizer.json");
    put_bytes(&p, 2, "map", 3);
    put_message(&b, 5, &p);
    assert_refused(&b, "byte 2: denormalizer_spec.precompiled_charsmap is not empty; only models without a character map "
                       "(normalization \"identity\") are supported: convert it to tokenizer.json");
    put_model(&b, NULL, 0, true, false);
    for (int i = 0; i < 1025; i++)
        str_add(&p, "a");
    put_piece(&b, str_get(&p), 0, NORMAL);
    str_free(&p);
    assert_refused(&b, "piece 3 has 1025 bytes; expected at most 1024");
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return dir_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_decide_then_the_leftmost),
        cmocka_unit_test(spaces_are_trimmed_where_the_model_says_so),
        cmocka_unit_test(user_defined_symbols_stay_whole),
        cmocka_unit_test(unused_pieces_fall_apart),
        cmocka_unit_test(bytes_stand_for_what_is_unknown),
        cmocka_unit_test(what_stands_beside_the_model_counts),
        cmocka_unit_test(broken_wires),
        cmocka_unit_test(refused_models),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
