/* test_example.c - examples: what is trained, where the answer begins, what happens to long
 * records.
 *
 * The tokenizer is made here: one token per byte and four special tokens, so that every id can be
 * told by hand (3 letters = 3 tokens) and the trained ids can be read back as text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/data/example.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ID_BOS, ID_EOS, ID_IM_START, ID_IM_END, ID_BYTES, VOCAB = ID_BYTES + 256 };

typedef struct {
    char dir[64];
    Tokenizer *tok;
    ChatTemplate t[3]; /* llama2, chatml, plain */
} World;

enum { LLAMA2, CHATML, PLAIN, N_TEMPLATES };

static int32_t id_of(char c)
{
    return ID_BYTES + (unsigned char)c;
}

static void write_tokenizer(const char *dir)
{
    static const char *const special[] = {"<s>", "</s>", "<|im_start|>", "<|im_end|>"};
    Str s = {0};
    JsonWriter w;
    jw_init(&w, &s, false);
    jw_object(&w);
    jw_kstr(&w, "version", "1.0");
    jw_key(&w, "added_tokens");
    jw_array(&w);
    for (int i = 0; i < ID_BYTES; i++) {
        jw_object(&w);
        jw_kint(&w, "id", i);
        jw_kstr(&w, "content", special[i]);
        for (int k = 0; k < 4; k++)
            jw_kbool(&w, (const char *const[]){"single_word", "lstrip", "rstrip", "normalized"}[k],
                     false);
        jw_kbool(&w, "special", true);
        jw_object_end(&w);
    }
    jw_array_end(&w);
    jw_key(&w, "normalizer");
    jw_null(&w);
    for (int k = 0; k < 2; k++) {
        jw_key(&w, k ? "decoder" : "pre_tokenizer");
        jw_object(&w);
        jw_kstr(&w, "type", "ByteLevel");
        jw_kbool(&w, "add_prefix_space", false);
        jw_kbool(&w, "trim_offsets", true);
        jw_kbool(&w, "use_regex", true);
        jw_object_end(&w);
    }
    jw_key(&w, "post_processor");
    jw_null(&w);
    jw_key(&w, "model");
    jw_object(&w);
    jw_kstr(&w, "type", "BPE");
    jw_key(&w, "vocab");
    jw_object(&w);
    for (int i = 0; i < ID_BYTES; i++)
        jw_kint(&w, special[i], i);
    for (int b = 0, other = 256; b < 256; b++) {
        /* GPT-2's bytes_to_unicode: printable Latin-1 stands for itself, the rest from U+0100 on */
        const bool same = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        const int c = same ? b : other++;
        char utf8[3] = {(char)c};
        if (c >= 128) {
            utf8[0] = (char)(0xc0 | c >> 6);
            utf8[1] = (char)(0x80 | (c & 0x3f));
        }
        jw_kint(&w, utf8, ID_BYTES + b);
    }
    jw_object_end(&w);
    jw_key(&w, "merges");
    jw_array(&w);
    jw_array_end(&w);
    jw_object_end(&w);
    jw_object_end(&w);
    char *path = path_join(dir, "tokenizer.json");
    assert_int_equal(file_write_atomic(path, s.s, s.n), 0);
    free(path);
    static const char config[] = "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}";
    path = path_join(dir, "tokenizer_config.json");
    assert_int_equal(file_write_atomic(path, config, sizeof config - 1), 0);
    free(path);
    str_free(&s);
}

static int setup(void **state)
{
    static World w;
    strcpy(w.dir, "/tmp/test_example.XXXXXX");
    if (!mkdtemp(w.dir))
        return -1;
    write_tokenizer(w.dir);
    static const TemplateKind kinds[] = {TEMPLATE_LLAMA2, TEMPLATE_CHATML, TEMPLATE_PLAIN};
    int rc = tokenizer_open(&w.tok, w.dir);
    for (int k = 0; rc == 0 && k < N_TEMPLATES; k++)
        rc = template_init(&w.t[k], kinds[k], w.tok);
    if (rc)
        print_error("%s\n", error_text());
    *state = &w;
    return rc;
}

static int teardown(void **state)
{
    World *w = *state;
    tokenizer_close(w->tok);
    return dir_remove(w->dir);
}

static void parse(Record *r, const char *text, RecordKind kind)
{
    Json *j;
    assert_int_equal(json_parse(&j, text, strlen(text), "data.jsonl", 4), 0);
    assert_int_equal(record_parse(r, j, kind, "data.jsonl", 4), 0);
    json_free(j);
}

static void make(Example *e, const Record *r, int which, const ChatTemplate *t)
{
    bool dropped = true;
    if (example_make(e, r, which, t, 1000, LONG_ERROR, &dropped) < 0)
        fail_msg("%s: %s", template_name(t->kind), error_text());
    assert_false(dropped);
}

/* The bytes of ids whose mask is `on`, special tokens as "#". */
static char *bytes_of(const Example *e, int from, int on)
{
    Str s = {0};
    for (int i = from; i < e->n; i++) {
        const char c = e->ids[i] < ID_BYTES ? '#' : (char)(e->ids[i] - ID_BYTES);
        if (e->mask[i] == on)
            str_add_bytes(&s, &c, 1);
    }
    return s.s ? str_take(&s) : xstrdup("");
}

/* a equals b apart from blanks: templates differ in the blank before an answer. */
static void assert_same_words(const char *a, const char *b)
{
    const char *x = a, *y = b;
    for (;; x++, y++) {
        while (*x == ' ' || *x == '\n')
            x++;
        while (*y == ' ' || *y == '\n')
            y++;
        if (*x != *y)
            fail_msg("'%s' is not '%s'", a, b);
        if (!*x)
            return;
    }
}

#define U(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define A(text) "{\"role\":\"assistant\",\"content\":\"" text "\"}"

static void test_text(void **state)
{
    World *w = *state;
    Record r;
    Example e;
    parse(&r, "{\"text\":\"ab\"}", RECORD_TEXT);
    make(&e, &r, 0, &w->t[PLAIN]);
    const int32_t ids[] = {ID_BOS, id_of('a'), id_of('b'), ID_EOS};
    const uint8_t mask[] = {0, 1, 1, 1};
    assert_int_equal(e.n, 4);
    assert_memory_equal(e.ids, ids, sizeof ids);
    assert_memory_equal(e.mask, mask, sizeof mask);
    example_free(&e);
    example_free(&e);
    record_free(&r);
}

static void test_sft_mask(void **state)
{
    World *w = *state;
    Record r;
    parse(&r,
          "{\"messages\":[{\"role\":\"system\",\"content\":\"sys\"}," U("one") "," A("two") "," U(
              "three") "," A("four") "]}",
          RECORD_SFT);
    for (int k = 0; k < N_TEMPLATES; k++) {
        Example e;
        make(&e, &r, 0, &w->t[k]);
        char *trained = bytes_of(&e, 0, 1), *last = bytes_of(&e, e.n_prompt, 1);
        /* both answers with their closing tokens, and nothing else */
        assert_same_words(trained, "two#four#");
        assert_same_words(last, "four#");
        assert_int_equal(e.mask[e.n_prompt], 1);
        assert_int_equal(e.mask[e.n_prompt - 1], 0);
        /* the last trained token closes the answer */
        int end = e.n - 1;
        while (!e.mask[end])
            end--;
        assert_int_equal(e.ids[end], w->t[k].end);
        free(trained);
        free(last);
        example_free(&e);
    }
    record_free(&r);
}

/* As TRL's SFTTrainer: of {prompt, completion} the completion is trained on, whatever the prompt holds. */
static void test_completion_alone_is_trained(void **state)
{
    World *w = *state;
    Record r;
    parse(&r,
          "{\"prompt\":[" U("one") "," A("two") "," U("three") "],\"completion\":\"four\"}",
          RECORD_SFT);
    for (int k = 0; k < N_TEMPLATES; k++) {
        Example e;
        make(&e, &r, 0, &w->t[k]);
        char *trained = bytes_of(&e, 0, 1);
        assert_same_words(trained, "four#");
        free(trained);
        example_free(&e);
    }
    record_free(&r);
}

static void test_pair_continues_prompt(void **state)
{
    World *w = *state;
    Record pair, prompt;
    parse(&pair,
          "{\"prompt\":[" U("one") "," A("two") "," U(
              "three") "],\"chosen\":\"good\",\"rejected\":\"bad\"}",
          RECORD_PAIR);
    parse(&prompt, "{\"prompt\":[" U("one") "," A("two") "," U("three") "]}", RECORD_PROMPT);
    for (int k = 0; k < N_TEMPLATES; k++) {
        Example open, answer[2];
        make(&open, &prompt, 0, &w->t[k]);
        assert_int_equal(open.n_prompt, open.n);
        char *nothing = bytes_of(&open, 0, 1);
        assert_string_equal(nothing, "");
        free(nothing);
        for (int i = 0; i < 2; i++) {
            make(&answer[i], &pair, i, &w->t[k]);
            /* training sees what sampling continues: the same ids up to the answer */
            assert_int_equal(answer[i].n_prompt, open.n);
            assert_memory_equal(answer[i].ids, open.ids, (size_t)open.n * sizeof *open.ids);
            char *trained = bytes_of(&answer[i], 0, 1);
            assert_same_words(trained,
                              i ? "bad#" : "good#"); /* not the answer "two" of the prompt */
            free(trained);
            /* a score is read at the last token: the one that sampling ends with */
            assert_int_equal(answer[i].ids[answer[i].n - 1], w->t[k].end);
            example_free(&answer[i]);
        }
        example_free(&open);
    }
    record_free(&pair);
    record_free(&prompt);
}

static void test_labelled(void **state)
{
    World *w = *state;
    Record r;
    Example e;
    parse(&r, "{\"prompt\":\"one\",\"response\":\"four\",\"is_safe\":true}", RECORD_LABELLED);
    make(&e, &r, 0, &w->t[CHATML]);
    char *trained = bytes_of(&e, 0, 1);
    assert_same_words(trained, "four#");
    assert_int_equal(e.ids[e.n - 1], w->t[CHATML].end);
    free(trained);
    example_free(&e);
    record_free(&r);
}

static void test_long(void **state)
{
    World *w = *state;
    Record r;
    Example whole, e;
    bool dropped;
    parse(&r, "{\"prompt\":\"question\",\"completion\":\"answer\"}", RECORD_SFT);
    make(&whole, &r, 0, &w->t[PLAIN]);

    assert_int_equal(example_make(&e, &r, 0, &w->t[PLAIN], whole.n, LONG_ERROR, &dropped), 0);
    assert_false(dropped);
    example_free(&e);

    assert_int_equal(example_make(&e, &r, 0, &w->t[PLAIN], whole.n - 1, LONG_ERROR, &dropped),
                     ERR_DATA);
    assert_non_null(strstr(error_text(), "data.jsonl:4: the record has "));
    assert_non_null(strstr(error_text(), "on_long: drop"));
    assert_null(e.ids);

    assert_int_equal(example_make(&e, &r, 0, &w->t[PLAIN], whole.n - 1, LONG_DROP, &dropped), 0);
    assert_true(dropped);
    assert_null(e.ids);

    /* 4 tokens: the last ones, all of them of the answer */
    for (int keep = 4; keep <= whole.n; keep += whole.n - 5) {
        const int gone = whole.n - keep;
        assert_int_equal(example_make(&e, &r, 0, &w->t[PLAIN], keep, LONG_TRUNCATE_LEFT, &dropped),
                         0);
        assert_false(dropped);
        assert_int_equal(e.n, keep);
        assert_memory_equal(e.ids, whole.ids + gone, (size_t)keep * sizeof *e.ids);
        assert_memory_equal(e.mask, whole.mask + gone, (size_t)keep);
        assert_int_equal(e.n_prompt, whole.n_prompt > gone ? whole.n_prompt - gone : 0);
        example_free(&e);
    }
    example_free(&whole);
    record_free(&r);
}

static void test_set(void **state)
{
    World *w = *state;
    RecordSet records = {0};
    ExampleSet s = {0};
    char *path = path_join(w->dir, "sft.jsonl");
    static const char text[] = "{\"text\":\"ab\"}\n{\"text\":\"abcdefgh\"}\n{\"text\":\"abc\"}\n";
    assert_int_equal(file_write_atomic(path, text, sizeof text - 1), 0);
    assert_int_equal(record_set_read(&records, path, RECORD_TEXT, BAD_ROW_ERROR), 0);

    /* lengths with BOS and EOS: 4, 10, 5 */
    assert_int_equal(example_set_make(&s, &records, 0, &w->t[PLAIN], 5, LONG_DROP, BAD_ROW_ERROR), 0);
    assert_int_equal(s.n, 2);
    assert_int_equal(s.n_long, 1);
    assert_int_equal(s.n_tokens, 4 + 5);
    assert_int_equal(s.n_targets, 3 + 4); /* all but BOS */
    assert_int_equal(s.at[0].record, 0);
    assert_int_equal(s.at[1].record, 2);
    example_set_free(&s);
    example_set_free(&s);

    assert_int_equal(example_set_make(&s, &records, 0, &w->t[PLAIN], 5, LONG_TRUNCATE_LEFT, BAD_ROW_ERROR), 0);
    assert_int_equal(s.n, 3);
    assert_int_equal(s.n_long, 1);
    assert_int_equal(s.n_tokens, 4 + 5 + 5);
    assert_int_equal(s.n_targets, 3 + 4 + 4); /* nothing predicts the first token of what is left */
    example_set_free(&s);

    assert_int_equal(example_set_make(&s, &records, 0, &w->t[PLAIN], 3, LONG_DROP, BAD_ROW_ERROR), ERR_DATA);
    assert_non_null(strstr(error_text(), "all 3 records are longer than max_length 3"));
    example_set_free(&s);
    record_set_free(&records);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_sft_mask),
        cmocka_unit_test(test_completion_alone_is_trained),
        cmocka_unit_test(test_pair_continues_prompt),
        cmocka_unit_test(test_labelled),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_set),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
