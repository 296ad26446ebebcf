/* text_strings.h - generated strings and conversations for the tokenizer and template tests, the same for the
 * same number on every machine: words, digits, contractions, spaces of all kinds, control characters, code
 * points of all 17 planes, Hangul composed and not, marks in any order, text that looks like tokens, and
 * broken UTF-8. Their ids by other programs are in tests/golden/text (make_strings.py).
 *
 * Code points are drawn from ranges whose properties no Unicode version since 13 has changed, so that the
 * versions of libraries do not matter. */
#ifndef RLHF_TEST_TEXT_STRINGS_H
#define RLHF_TEST_TEXT_STRINGS_H

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/text/template.h"

#include <string.h>

enum { STRING_SEED = 20261127, CHAT_MAX = 8 };

#define COUNT_OF(a) (sizeof(a) / sizeof *(a))

static const uint32_t string_ranges[][2] = {
    {0x21, 0x7E},       {0xA0, 0x24F},      {0x250, 0x2AF},     {0x300, 0x36F},     {0x391, 0x3A1},
    {0x3B1, 0x3C9},     {0x400, 0x4FF},     {0x531, 0x556},     {0x5B0, 0x5BD},     {0x5D0, 0x5EA},
    {0x620, 0x65F},     {0x660, 0x669},     {0x905, 0x94D},     {0x958, 0x96F},     {0x9C7, 0x9C8},
    {0x9BE, 0x9BE},     {0xB47, 0xB4C},     {0xE01, 0xE3A},     {0xE40, 0xE5B},     {0xF40, 0xF47},
    {0xF71, 0xF84},     {0x10A0, 0x10C5},   {0x1100, 0x1112},   {0x1161, 0x1175},   {0x11A8, 0x11C2},
    {0x1E00, 0x1EFF},   {0x1F00, 0x1F15},   {0x1FB6, 0x1FC4},   {0x2000, 0x206F},   {0x2070, 0x2071},
    {0x2074, 0x208E},   {0x2100, 0x214F},   {0x2150, 0x2189},   {0x2190, 0x23FF},   {0x2460, 0x24FF},
    {0x2500, 0x27BF},   {0x2A00, 0x2AFF},   {0x3000, 0x303F},   {0x3041, 0x3096},   {0x3099, 0x309F},
    {0x30A1, 0x30FF},   {0x3131, 0x318E},   {0x4E00, 0x9FA5},   {0xA000, 0xA48C},   {0xAC00, 0xD7A3},
    {0xE000, 0xF8FF},   {0xF900, 0xFA6D},   {0xFB00, 0xFB06},   {0xFB1D, 0xFB36},   {0xFE00, 0xFE0F},
    {0xFE20, 0xFE2D},   {0xFF01, 0xFF5E},   {0xFFF9, 0xFFFF},   {0x10000, 0x1000B}, {0x10300, 0x1031F},
    {0x10400, 0x1044F}, {0x11083, 0x110BA}, {0x12000, 0x12399}, {0x13000, 0x1342E}, {0x1D15E, 0x1D164},
    {0x1D400, 0x1D454}, {0x1D7CE, 0x1D7FF}, {0x1F1E6, 0x1F1FF}, {0x1F300, 0x1F5FF}, {0x1F600, 0x1F64F},
    {0x20000, 0x2A6D6}, {0x2F800, 0x2FA1D}, {0x30000, 0x3134A}, {0x40000, 0x4FFFF}, {0x50000, 0x5FFFF},
    {0x60000, 0x6FFFF}, {0x70000, 0x7FFFF}, {0x80000, 0x8FFFF}, {0x90000, 0x9FFFF}, {0xA0000, 0xAFFFF},
    {0xB0000, 0xBFFFF}, {0xC0000, 0xCFFFF}, {0xD0000, 0xDFFFF}, {0xE0020, 0xE007F}, {0xE0100, 0xE01EF},
    {0xF0000, 0xFFFFF}, {0x100000, 0x10FFFF},
};

static const char *const string_words[] = {
    "the",     "of",       "and",       "Hello",      "World",     "copy",      "answer", "is",       "not",
    "THE",     "tokenizer", "Lily",     "once",       "upon",      "a",         "time",   "int",      "return",
    "x",       "I",        "we",        "can",        "running",   "Grüße",     "déjà",   "naïve",    "Núñez",
    "Привет",  "мир",      "спасибо",   "你好",       "世界",      "今天",      "日本語", "テキスト", "한국어",
    "안녕",    "नमस्ते",       "สวัสดี",      "שלום",       "مرحبا",     "ΑΒΓ",       "straße", "ǆungla",   "ﬁne",
    "self.x",  "__init__", "https://a.b/c?d=e", "foo_bar", "CamelCase", "user",   "assistant", "system", "word",
};
static const char *const string_spaces[] = {
    " ", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", "\xC2\xA0", "\xE3\x80\x80",
    "\xE2\x80\x83", "\xE1\xA0\x8E", "\xE2\x80\x8B", "\xC2\x85", "\xE2\x80\xA8", "\x0B", "\x0C", "\r", "        ",
};
static const char *const string_short[] = {
    "'s", "'S", "'t", "'RE", "'ve", "'m", "'LL", "'d", "'", "\xE2\x80\x99s", "'\xC5\xBF", "n't", "'x", "''",
    ".", ",", "!", "?", "...", "!?", ";", ":", "-", "--", "(", ")", "[", "]", "{}", "\"", "#", "/*", "=", "==",
    "_", "$", "\xE2\x82\xAC", "\xE3\x80\x82", "\xEF\xBC\x8C", "\xC2\xBF",
};
static const char *const string_digits[] = {
    "0", "1", "12", "123", "1234", "12345678", "3.14", "1,000", "\xD9\xA3\xD9\xA4", "\xC2\xBD", "\xE2\x85\xA7",
    "\xE2\x91\xA0", "\xE0\xA5\xA7\xE0\xA5\xA8", "\xC2\xB2", "\xF0\x9D\x9F\x98", "\xEF\xBC\x91", "2024-11-27",
};
static const char *const string_marked[] = {
    "e\xCC\x81", "A\xCC\x8A", "\xC3\xA9", "\xE2\x84\xAB", "q\xCC\xA3\xCC\x87", "q\xCC\x87\xCC\xA3",
    "\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB", "\xE1\x84\x80\xE1\x85\xAE", "\xED\x95\x9C", "\xEA\xB0\x80\xE1\x86\xA8",
    "\xE1\x85\xA1", "\xE1\x86\xAB", "\xE1\xBA\x9B\xCC\xA3", "\xE0\xA4\xA8\xE0\xA4\xBC", "\xE0\xA5\x98",
    "\xE3\x81\x8B\xE3\x82\x99", "\xE2\xAB\x9D\xCC\xB8", "\xCC\x81", "\xCD\x84", "\xE1\x84\x92\xCC\x81\xE1\x85\xA1",
    "s\xCC\xA3\xCC\x87", "\xC3\x85\xCC\xA3", "\xF0\x91\x82\x99\xF0\x91\x82\xBA", "\xF0\x9D\x85\x97\xF0\x9D\x85\xA5",
    "\xEF\xAC\xAC", "\xE0\xBD\xB1\xE0\xBD\xB2", "\xCE\xB1\xCD\x85\xCC\x81", "\xE0\xA7\x87\xE0\xA6\xBE",
};
static const char *const string_emoji[] = {
    "\xF0\x9F\xA6\x99", "\xF0\x9F\x91\x8D\xF0\x9F\x8F\xBD", "\xF0\x9F\x87\xA9\xF0\x9F\x87\xAA",
    "\xF0\x9F\x91\xA8\xE2\x80\x8D\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7", "\xE2\x9D\xA4\xEF\xB8\x8F",
    "\xF3\xA0\x81\xA7", "\xE2\x80\x8D",
};
static const char *const string_tokens[] = {
    "<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<think>", "<lstrip>",
    "<rstrip>", "<norm>", "cafe\xCC\x81tok", "caf\xC3\xA9tok", "<0x0A>", "<0xFF>", "\xE2\x96\x81",
    "\xE2\x96\x81\xE2\x96\x81", "[INST]", "\n\nHuman:", "<|user|>", "<sep>", "<ctl>", "<x y>", "@@", "\xC4\xA0",
    "<|begin_of_text|>", "<|start_header_id|>",
};
static const char *const string_broken[] = {
    "\x80", "\xBF\xBF", "\xC0\x80", "\xC1\xBF", "\xC3", "\xE2\x82", "\xE0\x9F\xBF", "\xED\xA0\x80",
    "\xED\xBF\xBF", "\xF0\x9F\xA6", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFE", "\xFF",
};

#define ONE_OF(rng, list) list[rng_next_below(rng, COUNT_OF(list))]

static void string_add_char(Str *out, uint32_t c)
{
    char s[4];
    int n = 0;
    if (c < 0x80) {
        s[n++] = (char)c;
    } else if (c < 0x800) {
        s[n++] = (char)(0xC0 | c >> 6);
    } else if (c < 0x10000) {
        s[n++] = (char)(0xE0 | c >> 12);
        s[n++] = (char)(0x80 | (c >> 6 & 0x3F));
    } else {
        s[n++] = (char)(0xF0 | c >> 18);
        s[n++] = (char)(0x80 | (c >> 12 & 0x3F));
        s[n++] = (char)(0x80 | (c >> 6 & 0x3F));
    }
    if (c >= 0x80)
        s[n++] = (char)(0x80 | (c & 0x3F));
    str_add_bytes(out, s, (size_t)n);
}

static void string_add_random(Rng *r, Str *out)
{
    const uint32_t *range = ONE_OF(r, string_ranges);
    uint32_t c = range[0] + (uint32_t)rng_next_below(r, range[1] - range[0] + 1);
    string_add_char(out, c);
}

/* Letters in a row, of one script: what a word never seen before is. */
static void string_add_letters(Rng *r, Str *out)
{
    static const uint32_t first[][2] = {{'a', 26}, {'A', 26}, {0x430, 32}, {0x3B1, 25}, {0x4E00, 900}, {0xAC00, 2000},
                                        {0x3041, 80}};
    const uint32_t *script = first[rng_next_below(r, rng_next_below(r, 2) ? 1 : COUNT_OF(first))];
    for (uint64_t n = 1 + rng_next_below(r, 12); n > 0; n--)
        string_add_char(out, script[0] + (uint32_t)rng_next_below(r, script[1]));
}

enum { KIND_WORD, KIND_SPACED, KIND_SPACE, KIND_SHORT, KIND_DIGITS, KIND_LETTERS, KIND_MARKED, KIND_RANDOM, KIND_EMOJI,
       KIND_CONTROL, KIND_TOKEN, N_KINDS };

static void string_add_part(Rng *r, int kind, Str *out)
{
    switch (kind) {
    case KIND_WORD: str_add(out, ONE_OF(r, string_words)); break;
    case KIND_SPACED: str_add(out, " "); str_add(out, ONE_OF(r, string_words)); break;
    case KIND_SPACE: str_add(out, ONE_OF(r, string_spaces)); break;
    case KIND_SHORT: str_add(out, ONE_OF(r, string_short)); break;
    case KIND_DIGITS: str_add(out, ONE_OF(r, string_digits)); break;
    case KIND_LETTERS: string_add_letters(r, out); break;
    case KIND_MARKED: str_add(out, ONE_OF(r, string_marked)); break;
    case KIND_RANDOM: string_add_random(r, out); break;
    case KIND_EMOJI: str_add(out, ONE_OF(r, string_emoji)); break;
    case KIND_CONTROL: string_add_char(out, (uint32_t)rng_next_below(r, 0xA0)); break;
    default: str_add(out, ONE_OF(r, string_tokens)); break;
    }
}

/* Parts of four kinds, one of them the commonest; one string in fifty is long. */
static void string_add_parts(Rng *r, int n_kinds, Str *out)
{
    int kinds[4];
    uint64_t n = 1 + rng_next_below(r, 12);
    if (rng_next_below(r, 50) == 0)
        n *= 15;
    for (int i = 0; i < 4; i++)
        kinds[i] = (int)rng_next_below(r, (uint64_t)n_kinds);
    for (; n > 0; n--)
        string_add_part(r, kinds[rng_next_below(r, 2) ? 0 : rng_next_below(r, 4)], out);
}

/* String number `index`; one in twenty is not UTF-8. */
static void text_string(uint32_t index, Str *out)
{
    Rng r = rng_make(STRING_SEED, RNG_TEST, 0, index, 0);
    str_clear(out);
    string_add_parts(&r, N_KINDS, out);
    if (index % 20 == 19) {
        str_add(out, ONE_OF(&r, string_broken));
        string_add_parts(&r, N_KINDS, out);
    }
}

/* Conversation number `index`: contents without text that looks like a token, some of them empty or with blanks
 * at their ends. m[i].text are owned by `texts`, which has room for CHAT_MAX. Returns the messages' count. */
static __attribute__((unused)) int text_chat(uint32_t index, Message *m, Str *texts, bool *open_turn)
{
    Rng r = rng_make(STRING_SEED, RNG_TEST, 1, index, 0);
    int n = 0, turns = 1 + (int)rng_next_below(&r, 3);
    bool system = rng_next_below(&r, 2);
    *open_turn = rng_next_below(&r, 2);
    for (int i = 0; i < 2 * turns + system - *open_turn; i++) {
        Str *s = &texts[n];
        str_clear(s);
        if (rng_next_below(&r, 4) == 0)
            str_add(s, ONE_OF(&r, string_spaces));
        if (rng_next_below(&r, 20))
            string_add_parts(&r, KIND_TOKEN, s);
        if (rng_next_below(&r, 4) == 0)
            str_add(s, ONE_OF(&r, string_spaces));
        m[n] = (Message){i < system ? ROLE_SYSTEM : (i - system) % 2 ? ROLE_ASSISTANT : ROLE_USER, NULL, s->n};
        m[n++].text = (char *)str_get(s);
    }
    return n;
}

#endif
