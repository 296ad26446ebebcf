/* test_pool.c - answers of earlier rounds: which compete, for which prompt, and with which tokens. */
#include "rejection/pool.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/stream.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

typedef struct {
    char dir[64];
    Tokenizer *tok;
    ChatTemplate chat; /* chatml */
    RecordSet records;
    ExampleSet prompts; /* 0: "Hi"; 1: two turns; 2: "Hi" again, under another id */
} World;

static const char prompts[] =
    "{\"id\": \"a\", \"prompt\": \"Hi\"}\n"
    "{\"id\": \"b\", \"prompt\": [{\"role\": \"user\", \"content\": \"One\"}, {\"role\": \"assistant\", "
    "\"content\": \"Two\"}, {\"role\": \"user\", \"content\": \"Three\"}]}\n"
    "{\"id\": \"c\", \"prompt\": \"Hi\"}\n";

/* The file NAME of the folder, compressed as its suffix says. Caller frees. */
static char *put(const World *w, const char *name, const char *text)
{
    Writer *out;
    char *path = path_join(w->dir, name);
    assert_int_equal(writer_open(&out, path), 0);
    assert_int_equal(writer_write(out, text, strlen(text)), 0);
    assert_int_equal(writer_close(out), 0);
    return path;
}

static int setup(void **state)
{
    static World w;
    strcpy(w.dir, "/tmp/test_pool.XXXXXX");
    if (!mkdtemp(w.dir))
        return -1;
    char *path = put(&w, "prompts.jsonl", prompts);
    int rc = 0;
    TRY(tokenizer_open(&w.tok, "tests/golden/text/byte_level"));
    TRY(template_init(&w.chat, TEMPLATE_CHATML, w.tok));
    TRY(record_set_read(&w.records, path, RECORD_PROMPT, BAD_ROW_ERROR));
    TRY(example_set_make(&w.prompts, &w.records, 0, &w.chat, 100, LONG_ERROR, BAD_ROW_ERROR));
fail:
    if (rc)
        print_error("%s\n", error_text());
    free(path);
    *state = &w;
    return rc;
}

static int teardown(void **state)
{
    World *w = *state;
    example_set_free(&w->prompts);
    record_set_free(&w->records);
    tokenizer_close(w->tok);
    return dir_remove(w->dir);
}

static int read_files(Pool *p, World *w, const char *a, const char *b, int max_tokens, BadRow on_bad)
{
    const char *files[2] = {a, b};
    ConfigStrings list = {files, (a != NULL) + (b != NULL)};
    memset(p, 0, sizeof *p);
    return pool_read(p, &list, &w->records, &w->prompts, &w->chat, max_tokens, on_bad);
}

static void matched_by_the_messages(void **state)
{
    World *w = *state;
    Pool p;
    char *one = put(w, "one.jsonl.gz",
        /* an id of another prompt does not count; blanks around the prompt do not either */
        "{\"id\": \"b\", \"prompt\": \" Hi\", \"sample\": 3, \"temperature\": 0.5, \"answer\": \"Hello\", "
        "\"finished\": true, \"reward_helpful\": 99}\n"
        "{\"id\": \"a\", \"prompt\": \"Ho\", \"answer\": \"Hello\", \"finished\": true}\n"
        "{\"id\": \"a\", \"prompt\": \"Hi\", \"answer\": \"cut\", \"finished\": false}\n"
        "{\"prompt\": \"Hi\", \"answer\": \"Good day\", \"finished\": true}\n");
    char *two = put(w, "two.jsonl.zst",
        "{\"prompt\": [{\"role\": \"user\", \"content\": \"One\"}, {\"role\": \"assistant\", \"content\": "
        "\"Two\"}, {\"role\": \"user\", \"content\": \"Three\"}], \"completion\": \"Four\"}\n"
        "{\"prompt\": \"Hi\", \"answer\": \"Hello\", \"finished\": true}\n" /* a second time */
        "{\"prompt\": \"Hi\", \"answer\": \"Hello again\", \"finished\": true}\n");
    assert_int_equal(read_files(&p, w, one, two, 50, BAD_ROW_ERROR), 0);
    static const char *const want[][2] = {{"Hello", "1"}, {"Good day", "1"}, {"Hello again", "2"},
                                          {"Four", "2"},
                                          {"Hello", "1"}, {"Good day", "1"}, {"Hello again", "2"}};
    assert_int_equal(p.n, 7);
    assert_int_equal(p.first[0], 0);
    assert_int_equal(p.first[1], 3);
    assert_int_equal(p.first[2], 4);
    assert_int_equal(p.first[3], 7);
    for (int i = 0; i < 7; i++) {
        assert_string_equal(p.at[i].text, want[i][0]);
        assert_ptr_equal(p.at[i].file, want[i][1][0] == '1' ? one : two);
    }
    assert_int_equal(p.at[0].sample, 3);
    assert_true(p.at[0].temperature == 0.5);
    assert_int_equal(p.at[1].sample, -1);
    assert_true(isnan(p.at[1].temperature));
    assert_int_equal(p.n_lines, 7);
    assert_int_equal(p.n_elsewhere, 1);
    assert_int_equal(p.n_unfinished, 1);
    assert_int_equal(p.n_twice, 2); /* for both records of the prompt */
    assert_int_equal(p.n_bad + p.n_long + p.n_refused, 0);
    pool_free(&p);
    pool_free(&p);
    free(one);
    free(two);
}

/* prompt + tokens of the answer = the rendered conversation up to the closing token. */
static void tokens_are_the_templates(void **state)
{
    World *w = *state;
    Pool p;
    char *file = put(w, "tokens.jsonl", "{\"prompt\": \"Hi\", \"answer\": \"Hello there\"}\n");
    assert_int_equal(read_files(&p, w, file, NULL, 50, BAD_ROW_ERROR), 0);
    Message all[2] = {w->records.at[0].messages[0], {ROLE_ASSISTANT, "Hello there", 11}};
    IdList ids = {0};
    Span spans[2];
    assert_int_equal(template_render(&w->chat, all, 2, false, &ids, spans), 0);
    const Example *e = &w->prompts.at[0];
    assert_int_equal(e->n + p.at[0].n, spans[1].to);
    assert_memory_equal(ids.at, e->ids, (size_t)e->n * sizeof *ids.at);
    assert_memory_equal(ids.at + e->n, p.at[0].ids, (size_t)p.at[0].n * sizeof *ids.at);
    assert_int_equal(p.at[0].ids[p.at[0].n - 1], w->chat.end);
    int n = p.at[0].n;
    pool_free(&p);

    assert_int_equal(read_files(&p, w, file, NULL, n, BAD_ROW_ERROR), 0);
    assert_int_equal(p.n, 2);
    pool_free(&p);
    assert_int_equal(read_files(&p, w, file, NULL, n - 1, BAD_ROW_ERROR), 0);
    assert_int_equal(p.n, 0);
    assert_int_equal(p.n_long, 2);
    pool_free(&p);
    id_list_free(&ids);
    free(file);
}

static void what_no_record_can_hold(void **state)
{
    World *w = *state;
    Pool p;
    char *file = put(w, "markers.jsonl",
        "{\"prompt\": \"Hi\", \"answer\": \"x<|im_end|>\\n<|im_start|>user\\ny\"}\n"
        "{\"prompt\": \"Hi\", \"answer\": \"\"}\n");
    assert_int_equal(read_files(&p, w, file, NULL, 50, BAD_ROW_ERROR), 0);
    assert_int_equal(p.n, 0);
    assert_int_equal(p.n_refused, 4);
    pool_free(&p);
    free(file);
}

static void malformed_lines(void **state)
{
    World *w = *state;
    static const struct {
        const char *line, *error;
    } bad[] = {
        {"{\"prompt\": \"Hi\"}", "bad.jsonl:2: answer: found none"},
        {"{\"prompt\": \"Hi\", \"answer\": 3}", "bad.jsonl:2: answer: found "},
        {"{\"prompt\": \"Hi\", \"answer\": \"a\\u0000b\"}", "bad.jsonl:2: answer: "},
        {"{\"answer\": \"a\"}", "bad.jsonl:2: "},
        {"{\"prompt\": ", "bad.jsonl:2"},
    };
    Pool p;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Str text = {0};
        str_addf(&text, "{\"prompt\": \"Hi\", \"answer\": \"fine\"}\n%s\n", bad[i].line);
        char *file = put(w, "bad.jsonl", str_get(&text));
        assert_int_equal(read_files(&p, w, file, NULL, 50, BAD_ROW_ERROR), ERR_DATA);
        if (!strstr(error_text(), bad[i].error))
            fail_msg("%s: %s", bad[i].line, error_text());
        pool_free(&p);
        assert_int_equal(read_files(&p, w, file, NULL, 50, BAD_ROW_SKIP), 0);
        assert_int_equal(p.n, 2);
        assert_int_equal(p.n_bad, 1);
        pool_free(&p);
        str_free(&text);
        free(file);
    }
    assert_int_equal(read_files(&p, w, "/nonexistent/pool.jsonl", NULL, 50, BAD_ROW_SKIP), ERR_NOINPUT);
    pool_free(&p);
    assert_int_equal(read_files(&p, w, NULL, NULL, 50, BAD_ROW_ERROR), 0);
    assert_int_equal(p.first[3], 0);
    pool_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matched_by_the_messages),
        cmocka_unit_test(tokens_are_the_templates),
        cmocka_unit_test(what_no_record_can_hold),
        cmocka_unit_test(malformed_lines),
    };
    return cmocka_run_group_tests_name("pool", tests, setup, teardown);
}
