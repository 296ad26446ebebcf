/* text.c - how fast text becomes ids on one thread: 4 MB of made-up words as common as those of a language
 * (the n-th as often as 1/n), with capitals, numbers, punctuation and some accents, through the small
 * tokenizers of tests/golden/text. The tokenizer is opened anew for each measurement, so its cache is cold. */
#include "tests/bench/bench.h"

#include "common/base/error.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/text/tokenizer.h"

#include <math.h>

enum { WORDS = 50000 };

/* Word number n, always the same: two letters a syllable, more of them the rarer it is. */
static void add_word(Str *out, uint32_t n)
{
    static const char consonants[] = "bcdfghlmnprstvwz", vowels[] = "aeiou";
    uint32_t bits = n * 2654435761u;
    for (uint32_t left = n + 3; left > 0; left /= 20, bits = bits >> 7 | bits << 25) {
        str_add_bytes(out, &consonants[bits % 16], 1);
        str_add_bytes(out, &vowels[bits / 16 % 5], 1);
    }
    if (n % 40 == 39)
        str_add(out, "\xC3\xA9");
}

static void make_text(Str *out, size_t bytes)
{
    static const char *const ends[] = {", ", ". ", "; ", "\n", "'s ", "! ", ".\n\n", " - "};
    Rng r = rng_make(1, RNG_TEST, 0, 0, 0);
    while (out->n < bytes) {
        if (rng_next_below(&r, 40) == 0)
            str_addf(out, "%u", (unsigned)rng_next_below(&r, 5000));
        else
            add_word(out, (uint32_t)exp(rng_next_uniform(&r) * log((double)WORDS)));
        str_add(out, rng_next_below(&r, 8) ? " " : ends[rng_next_below(&r, 8)]);
    }
}

static void encode_row(Bench *b, const char *name, const char *folder, const Str *text, double target)
{
    Row row = {.threads = 1, .target = target, .unit = "MB/s"};
    double started = bench_now(0);
    snprintf(row.name, sizeof row.name, "encode %s", name);
    if (!bench_wanted(b, row.name))
        return;
    while (bench_again(b, row.n, started)) {
        Tokenizer *t;
        IdList ids = {0};
        CHECK(tokenizer_open(&t, folder) == 0, "%s", error_text());
        double from = bench_now(1);
        CHECK(tokenizer_encode(t, str_get(text), text->n, true, &ids) == 0, "%s", error_text());
        bench_take(&row, 1e-6 * (double)text->n / (bench_now(1) - from), 1);
        id_list_free(&ids);
        tokenizer_close(t);
    }
    row_add(&b->rows, row);
}

void text_run(Bench *b)
{
    Str text = {0};
    make_text(&text, b->quick ? 1 << 16 : 4 << 20);
    encode_row(b, "llama3", "tests/golden/text/llama3", &text, 20);
    encode_row(b, "qwen2", "tests/golden/text/qwen2", &text, 0);
    encode_row(b, "smollm2", "tests/golden/text/smollm2", &text, 0);
    encode_row(b, "tokenizer.model", "tests/golden/text/spm_llama2", &text, 5);
    str_free(&text);
}
