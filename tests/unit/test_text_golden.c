/* test_text_golden.c - 100,000 generated strings and 10,000 conversations against the ids of tokenizers,
 * sentencepiece and transformers. tests/golden/make_strings.py gets the strings from this program
 * (`--strings FILE`, `--chats FILE`) and writes one hash for 100 of them; `--group NAME N` prints what this
 * program makes of a group, for a comparison with `make_strings.py --group NAME N`; `--gpt2 FOLDER gpt2|llama3`
 * writes the tokenizer.json that is tested with GPT-2's vocabulary.
 *
 * What is hashed of a string: the ids of user text, the ids with special tokens and post-processor, the text
 * of the latter, and the text of the former without its first and last id (cut characters). A string that is
 * not UTF-8 is refused, and counts with the place of its first bad byte. */
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/text/tokenizer_impl.h"
#include "tests/unit/text_strings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N_STRINGS = 100000, N_CHATS = 10000, GROUP = 100 };

/* Every fourth group; with CHECK (tests/e2e/test_text.sh in make check) all of them; under a sanitizer, which is
 * there for other faults than wrong ids, every tenth. */
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#ifdef __SANITIZE_ADDRESS__
enum { SANITIZED = 1 };
#else
enum { SANITIZED = __has_feature(address_sanitizer) };
#endif

static int group_step(void)
{
    return SANITIZED ? 10 : getenv("CHECK") ? 1 : 4;
}

#define GOLDEN "tests/golden/text/"

static void add_number(Str *b, int64_t x)
{
    int32_t v = (int32_t)x;
    str_add_bytes(b, &v, sizeof v); /* little-endian, as everything here */
}

static void add_ids(Str *b, const IdList *ids)
{
    add_number(b, ids->n);
    if (ids->n)
        str_add_bytes(b, ids->at, (size_t)ids->n * sizeof *ids->at);
}

static void add_text(Str *b, const Str *s)
{
    add_number(b, (int64_t)s->n);
    str_add_bytes(b, str_get(s), s->n);
}

/* ---- what is compared */

typedef struct {
    Tokenizer *tok;
    ChatTemplate chat;
    bool chats;
    IdList user, special; /* scratch of add_string */
    Str text, part;
} Subject;

static void subject_close(Subject *s)
{
    tokenizer_close(s->tok);
    id_list_free(&s->user);
    id_list_free(&s->special);
    str_free(&s->text);
    str_free(&s->part);
}

static void add_string(Subject *s, const char *string, size_t n, Str *b)
{
    Tokenizer *t = s->tok;
    size_t bad = utf8_find_invalid(string, n);
    s->user.n = s->special.n = 0;
    str_clear(&s->text);
    str_clear(&s->part);
    if (bad < n) {
        assert_int_equal(tokenizer_encode(t, string, n, true, &s->user), ERR_DATA);
        add_number(b, -1);
        add_number(b, (int64_t)bad);
        return;
    }
    if (tokenizer_encode(t, string, n, true, &s->user) < 0 ||
        tokenizer_encode_special(t, string, n, true, &s->special) < 0)
        fail_msg("%s", error_text());
    for (int i = 0; i < s->user.n; i++)
        if (tokenizer_is_special(t, s->user.at[i]) && s->user.at[i] != t->bpe.unk)
            fail_msg("a special token from user text");
    const IdList *whole = t->bpe.spm ? &s->user : &s->special;
    tokenizer_decode(t, whole->at, whole->n, false, &s->text);
    if (s->user.n > 2)
        tokenizer_decode(t, s->user.at + 1, s->user.n - 2, false, &s->part);
    add_ids(b, &s->user);
    add_ids(b, &s->special);
    add_text(b, &s->text);
    add_text(b, &s->part);
}

/* The ids of a conversation and the spans of its answers; -1 where the template refuses a system message. */
static void add_chat(const ChatTemplate *t, uint32_t index, Str *b)
{
    Message m[CHAT_MAX];
    Str texts[CHAT_MAX] = {{0}};
    Span spans[CHAT_MAX];
    IdList ids = {0};
    bool open_turn;
    int n = text_chat(index, m, texts, &open_turn), rc = template_render(t, m, n, open_turn, &ids, spans);
    if (rc < 0 && t->kind != TEMPLATE_MISTRAL)
        fail_msg("%s", error_text());
    if (rc < 0)
        add_number(b, -1);
    else
        add_ids(b, &ids);
    for (int i = 0; i < n && rc == 0; i++)
        if (m[i].role == ROLE_ASSISTANT) {
            add_number(b, spans[i].from);
            add_number(b, spans[i].to);
        }
    id_list_free(&ids);
    for (int i = 0; i < CHAT_MAX; i++)
        str_free(&texts[i]);
}

/* ---- groups and their hashes */

/* The strings one after another, made once: string i is all[from[i]] up to from[i + 1]. */
static struct {
    Str all;
    size_t from[N_STRINGS + 1];
} strings;

static void make_strings(void)
{
    Str s = {0};
    for (uint32_t i = 0; i < N_STRINGS && !strings.from[N_STRINGS]; i++) {
        strings.from[i] = strings.all.n;
        text_string(i, &s);
        str_add_bytes(&strings.all, str_get(&s), s.n);
    }
    strings.from[N_STRINGS] = strings.all.n;
    str_free(&s);
}

static void add_group(Subject *s, uint32_t group, Str *b)
{
    const size_t *from = strings.from;
    make_strings();
    str_clear(b);
    for (uint32_t i = GROUP * group; i < GROUP * (group + 1); i++) {
        if (s->chats)
            add_chat(&s->chat, i, b);
        else
            add_string(s, str_get(&strings.all) + from[i], from[i + 1] - from[i], b);
    }
}

/* Lines of 8 hex digits behind a line that says what made them. */
static int check_hashes(Subject *s, const char *path, int n_groups)
{
    char *text, *line, *rest;
    size_t n;
    Str b = {0};
    int group = 0, wrong = 0, step = group_step();
    if (file_read(path, &text, &n) < 0)
        fail_msg("%s", error_text());
    line = strtok_r(text, "\n", &rest);
    for (line = strtok_r(NULL, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), group++) {
        if (group % step)
            continue;
        add_group(s, (uint32_t)group, &b);
        if ((uint32_t)hash64(str_get(&b), b.n, 0) == strtoul(line, NULL, 16))
            continue;
        if (wrong++ == 0)
            print_message("%s: group %d differs: compare --group of both programs\n", path, group);
    }
    assert_int_equal(group, n_groups);
    str_free(&b);
    free(text);
    return wrong;
}

/* ---- the tokenizers and templates */

static const char *const small[] = {
    "byte_level", "byte_level_split", "fallback", "metaspace_first", "metaspace_always", "words", "llama3",
    "qwen2", "smollm2", "spm_llama2", "spm_trim", "spm_unused", "spm_inner",
};

static const struct {
    const char *name, *folder; /* the file of hashes; the tokenizer */
    TemplateKind kind;
} chats[] = {
    {"llama2", "fallback", TEMPLATE_LLAMA2},
    {"llama2_spm", "spm_llama2", TEMPLATE_LLAMA2},
    {"llama3", "llama3", TEMPLATE_LLAMA3},
    {"llama3.1", "llama3", TEMPLATE_LLAMA31},
    {"chatml", "byte_level", TEMPLATE_CHATML},
    {"qwen2", "qwen2", TEMPLATE_QWEN2},
    {"qwen2.5", "qwen2", TEMPLATE_QWEN25},
    {"smollm2", "smollm2", TEMPLATE_SMOLLM2},
    {"zephyr", "fallback", TEMPLATE_ZEPHYR},
    {"mistral", "metaspace_first", TEMPLATE_MISTRAL},
    {"plain", "byte_level_split", TEMPLATE_PLAIN},
};

static int subject_open(Subject *s, const char *name)
{
    const char *slash = strncmp(name, "chat/", 5) == 0 ? name + 5 : NULL;
    char *folder = NULL;
    int rc = -1;
    *s = (Subject){.chats = slash != NULL};
    for (size_t i = 0; slash && i < COUNT_OF(chats); i++)
        if (strcmp(slash, chats[i].name) == 0) {
            folder = path_join(GOLDEN, chats[i].folder);
            if ((rc = tokenizer_open(&s->tok, folder)) == 0)
                rc = template_init(&s->chat, chats[i].kind, s->tok);
        }
    if (!slash) {
        folder = strchr(name, '/') ? xstrdup(name) : path_join(GOLDEN, name);
        rc = tokenizer_open(&s->tok, folder);
    }
    free(folder);
    return rc;
}

/* How many groups differ. */
static int check_subject(const char *name, const char *hashes, int n_groups)
{
    Subject s;
    int wrong;
    if (subject_open(&s, name) < 0)
        fail_msg("%s", error_text());
    wrong = check_hashes(&s, hashes, n_groups);
    subject_close(&s);
    return wrong;
}

static void strings_give_the_ids_of_the_originals(void **state)
{
    int wrong = 0;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(small); i++) {
        char *path = xasprintf(GOLDEN "%s/strings.hash", small[i]);
        wrong += check_subject(small[i], path, N_STRINGS / GROUP);
        free(path);
    }
    assert_int_equal(wrong, 0);
}

static void chats_give_the_ids_of_the_originals(void **state)
{
    int wrong = 0;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(chats); i++) {
        char *path = xasprintf(GOLDEN "chat/%s.hash", chats[i].name), *name = xasprintf("chat/%s", chats[i].name);
        wrong += check_subject(name, path, N_CHATS / GROUP);
        free(path);
        free(name);
    }
    assert_int_equal(wrong, 0);
}

/* ---- tokenizers of real models, which are not in this repository */

#define SHARED "../shared/data/tokenizers/"

/* GPT-2's vocabulary and merges as a tokenizer.json, with its own split rule or with that of Llama 3. */
static int write_gpt2(const char *folder, bool llama3)
{
    static const char rule[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
                               " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    char *vocab = NULL, *merges = NULL, *line, *rest, *path = path_join(folder, "tokenizer.json");
    size_t n;
    Str out = {0}, list = {0};
    JsonWriter w;
    int rc;
    TRY(file_read(SHARED "vectors/gpt2_vocab.json", &vocab, &n));
    TRY(file_read(SHARED "vectors/gpt2_merges.txt", &merges, &n));
    TRY(dir_make(folder));
    jw_init(&w, &list, false);
    jw_array(&w);
    for (line = strtok_r(merges, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        jw_str(&w, line);
    jw_array_end(&w);
    str_add(&out, "{\"added_tokens\":[{\"id\":50256,\"content\":\"<|endoftext|>\",\"special\":true,\"lstrip\":false,"
                  "\"rstrip\":false,\"single_word\":false,\"normalized\":false}],\"normalizer\":null,"
                  "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
                  "\"trim_offsets\":true,\"use_regex\":true},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[");
    if (llama3) {
        str_add(&out, "{\"type\":\"Split\",\"pattern\":{\"Regex\":");
        jw_init(&w, &out, false);
        jw_str(&w, rule);
        str_add(&out, "},\"behavior\":\"Isolated\",\"invert\":false},");
    }
    str_addf(&out, "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":%s}]},"
                   "\"model\":{\"type\":\"BPE\",\"ignore_merges\":%s,\"merges\":%s,\"vocab\":",
             llama3 ? "false" : "true", llama3 ? "true" : "false", str_get(&list));
    str_add(&out, vocab);
    str_add(&out, "}}");
    rc = file_write_atomic(path, str_get(&out), out.n);
fail:
    str_free(&out);
    str_free(&list);
    free(vocab);
    free(merges);
    free(path);
    return rc;
}

/* The test files of llama.cpp: texts between marks, a line of ids for each. */
static void check_vectors(const char *folder, const char *name)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    char *inp = xasprintf(SHARED "vectors/ggml-vocab-%s.gguf.inp", name), *text = NULL, *at, *end;
    char *out = xasprintf(SHARED "vectors/ggml-vocab-%s.gguf.out", name), *want = NULL, *line;
    size_t n;
    Tokenizer *t;
    int count = 0;
    if (tokenizer_open(&t, folder) < 0 || file_read(inp, &text, &n) < 0 || file_read(out, &want, &n) < 0)
        fail_msg("%s", error_text());
    line = want;
    for (at = text; (end = strstr(at, mark)); at = end + sizeof mark - 1, count++) {
        IdList ids = {0};
        int i = 0;
        assert_int_equal(tokenizer_encode(t, at, (size_t)(end - at), true, &ids), 0);
        for (; *line == ' '; i++) {
            long id = strtol(line, &line, 10);
            if (i >= ids.n || ids.at[i] != id)
                fail_msg("%s, text %d: id %d is %d, expected %ld", name, count, i, i < ids.n ? ids.at[i] : -1, id);
        }
        assert_int_equal(i, ids.n);
        assert_int_equal(*line++, '\n');
        id_list_free(&ids);
    }
    assert_int_equal(count, 46);
    tokenizer_close(t);
    free(text);
    free(want);
    free(inp);
    free(out);
}

static void need(const char *path)
{
    if (!file_exists(path))
        skip();
}

static void vectors_of_llama2(void **state)
{
    (void)state;
    need(SHARED "llama2/tokenizer.model");
    check_vectors(SHARED "llama2", "llama-spm");
}

static void vectors_of_llama3(void **state)
{
    (void)state;
    need(SHARED "llama3/tokenizer.json");
    check_vectors(SHARED "llama3", "llama-bpe");
}

static void check_real(const char *folder, const char *name)
{
    char *path = xasprintf(GOLDEN "real/%s.hash", name);
    if (!file_is_dir(folder)) {
        free(path);
        skip();
    }
    assert_int_equal(check_subject(folder, path, N_STRINGS / GROUP), 0);
    free(path);
}

/* GPT-2's own texts and strings, then its vocabulary under the rule of Llama 3. */
static void vectors_and_strings_of_gpt2(void **state)
{
    char folder[] = "/tmp/test_text_golden_XXXXXX";
    (void)state;
    need(SHARED "vectors/gpt2_vocab.json");
    assert_non_null(mkdtemp(folder));
    assert_int_equal(write_gpt2(folder, false), 0);
    check_vectors(folder, "gpt-2");
    check_real(folder, "gpt2");
    assert_int_equal(write_gpt2(folder, true), 0);
    check_real(folder, "gpt2_llama3");
    dir_remove(folder);
}

static void strings_by_llama2(void **state)
{
    (void)state;
    check_real(SHARED "llama2", "llama2");
}

static void strings_by_minimind(void **state)
{
    (void)state;
    check_real(SHARED "minimind", "minimind");
}

static void strings_by_stories260k(void **state)
{
    (void)state;
    check_real("../shared/models/stories260k", "stories260k");
}

/* ---- for make_strings.py */

static int dump(const char *path, bool of_chats)
{
    Message m[CHAT_MAX];
    Str all = {0}, text = {0}, texts[CHAT_MAX] = {{0}};
    int rc;
    for (uint32_t i = 0; i < N_STRINGS && !of_chats; i++) {
        text_string(i, &text);
        add_text(&all, &text);
    }
    for (uint32_t i = 0; i < N_CHATS && of_chats; i++) {
        bool open_turn;
        int n = text_chat(i, m, texts, &open_turn);
        add_number(&all, n);
        add_number(&all, open_turn);
        for (int k = 0; k < n; k++) {
            add_number(&all, m[k].role);
            add_text(&all, &texts[k]);
        }
    }
    rc = file_write_atomic(path, str_get(&all), all.n);
    str_free(&all);
    str_free(&text);
    for (int i = 0; i < CHAT_MAX; i++)
        str_free(&texts[i]);
    return rc;
}

static int print_group(const char *name, const char *number)
{
    Subject s;
    Str b = {0};
    if (subject_open(&s, name) < 0)
        return ERR_DATA;
    add_group(&s, (uint32_t)atoi(number), &b);
    for (size_t i = 0; i < b.n; i++)
        printf("%02x", (unsigned char)b.s[i]);
    putchar('\n');
    str_free(&b);
    subject_close(&s);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_give_the_ids_of_the_originals),
        cmocka_unit_test(chats_give_the_ids_of_the_originals),
        cmocka_unit_test(vectors_and_strings_of_gpt2),
        cmocka_unit_test(vectors_of_llama2),
        cmocka_unit_test(vectors_of_llama3),
        cmocka_unit_test(strings_by_llama2),
        cmocka_unit_test(strings_by_minimind),
        cmocka_unit_test(strings_by_stories260k),
    };
    if (argc == 3 && strcmp(argv[1], "--strings") == 0)
        return -dump(argv[2], false);
    if (argc == 3 && strcmp(argv[1], "--chats") == 0)
        return -dump(argv[2], true);
    if (argc == 4 && strcmp(argv[1], "--gpt2") == 0)
        return -write_gpt2(argv[2], strcmp(argv[3], "llama3") == 0);
    if (argc == 4 && strcmp(argv[1], "--group") == 0)
        return -print_group(argv[2], argv[3]);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    str_free(&strings.all);
    return rc;
}
