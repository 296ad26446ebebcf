/* test_trl_data.c - against TRL's data utilities (tests/golden/make_trl_data.py): the prompt that
 * it finds inside a pair, the rows it unpairs one into, ShareGPT's fields, and the ids of its
 * rendered rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/error.h"
#include "common/data/example.h"

#include <stdlib.h>
#include <string.h>

static int setup(void **state)
{
    return json_read_file((Json **)state, "tests/golden/trl_data.json");
}

static int teardown(void **state)
{
    json_free(*state);
    return 0;
}

static void parse(Record *r, const Json *j, RecordKind kind)
{
    if (record_parse(r, j, kind, "trl_data.json", 1) < 0)
        fail_msg("%s", error_text());
}

/* Texts without the blanks at their ends: TRL keeps the one between a plain prompt and its answer.
 */
static void assert_text(const char *ours, const char *theirs)
{
    const size_t n = strlen(ours), skip = strspn(ours, " "), m = strlen(theirs),
                 skip_m = strspn(theirs, " ");
    if (n - skip != m - skip_m || memcmp(ours + skip, theirs + skip_m, n - skip))
        fail_msg("'%s', TRL has '%s'", ours, theirs);
}

static void assert_same_messages(const Record *a, const Record *b)
{
    assert_int_equal(a->n_messages, b->n_messages);
    for (int i = 0; i < a->n_messages; i++) {
        assert_int_equal(a->messages[i].role, b->messages[i].role);
        assert_text(a->messages[i].text, b->messages[i].text);
    }
}

/* Where TRL cuts inside a word, ours is cut in front of that word, and nothing is lost. */
static void check_inside_word(const Record *ours, const Json *row, const Json *extracted)
{
    static const char *const name[2] = {"chosen", "rejected"};
    const char *theirs = json_str(json_get(extracted, "prompt")), *prompt = ours->messages[0].text;
    const size_t n = strlen(prompt);
    assert_true(n < strlen(theirs) && !strncmp(theirs, prompt, n) && theirs[n] == ' ');
    assert_null(strchr(theirs + n + 1, ' '));
    for (int k = 0; k < 2; k++)
        assert_string_equal(ours->text[k], json_str(json_get(row, name[k])) + n + 1);
}

static void pairs(void **state)
{
    const Json *list = json_get(*state, "pairs");
    int n_inside = 0;
    assert_true(json_len(list) >= 12);
    for (size_t i = 0; i < json_len(list); i++) {
        const Json *one = json_at(list, i), *row = json_get(one, "row"),
                   *extracted = json_get(one, "extracted"), *unpaired = json_get(one, "unpaired");
        Record ours, theirs;
        parse(&ours, row, RECORD_PAIR);
        assert_int_equal(record_kind_of(row), RECORD_PAIR);
        if (json_bool(json_get(one, "inside_word"), false)) {
            check_inside_word(&ours, row, extracted);
            record_free(&ours);
            n_inside++;
            continue;
        }
        parse(&theirs, extracted, RECORD_PAIR);
        assert_same_messages(&ours, &theirs);
        assert_int_equal(json_len(unpaired), 2);
        for (int k = 0; k < 2; k++) {
            Record half;
            assert_text(ours.text[k], theirs.text[k]);
            assert_int_equal(record_kind_of(json_at(unpaired, (size_t)k)), RECORD_LABELLED);
            parse(&half, json_at(unpaired, (size_t)k), RECORD_LABELLED);
            assert_same_messages(&ours, &half);
            assert_text(ours.text[k], half.text[0]);
            assert_int_equal(half.safety[0],
                             k ? SAFETY_UNSAFE : SAFETY_SAFE); /* label: true, false */
            record_free(&half);
        }
        record_free(&ours);
        record_free(&theirs);
    }
    assert_int_equal(n_inside, 2);
}

static void converted(void **state)
{
    const Json *list = json_get(*state, "converted");
    assert_true(json_len(list) >= 4);
    for (size_t i = 0; i < json_len(list); i++) {
        const Json *row = json_get(json_at(list, i), "row"),
                   *chatml = json_get(json_at(list, i), "chatml");
        Record a, b;
        Str ours = {0}, theirs = {0};
        assert_int_equal(record_kind_of(row), record_kind_of(chatml));
        parse(&a, row, record_kind_of(row));
        parse(&b, chatml, record_kind_of(chatml));
        record_write(&a, &ours);
        record_write(&b, &theirs);
        assert_string_equal(ours.s, theirs.s);
        record_free(&a);
        record_free(&b);
        str_free(&ours);
        str_free(&theirs);
    }
}

/* behind: ids that the template puts after the token that closes an answer. TRL has them everywhere; here an answer
 * that is scored ends with the closing token. */
static void check_rendered(const Json *list, const char *tokenizer, int behind)
{
    Tokenizer *tok;
    ChatTemplate chat;
    int n_kinds[RECORD_LABELLED + 1] = {0};
    assert_int_equal(tokenizer_open(&tok, tokenizer), 0);
    assert_int_equal(template_init(&chat, TEMPLATE_AUTO, tok), 0);
    for (size_t i = 0; i < json_len(list); i++) {
        const Json *row = json_get(json_at(list, i), "row"),
                   *ids = json_get(json_at(list, i), "ids");
        const RecordKind kind = record_kind_of(row);
        const bool scored = kind == RECORD_PAIR || kind == RECORD_LABELLED;
        Record r;
        parse(&r, row, kind);
        n_kinds[kind]++;
        assert_int_equal(json_len(ids), kind == RECORD_PAIR ? 2 : 1);
        for (size_t which = 0; which < json_len(ids); which++) {
            Example e;
            bool dropped;
            assert_int_equal(example_make(&e, &r, (int)which, &chat, 4096, LONG_ERROR, &dropped),
                             0);
            assert_int_equal(e.n + (scored ? behind : 0), json_len(json_at(ids, which)));
            for (int k = 0; k < e.n; k++)
                assert_int_equal(e.ids[k], json_int(json_at(json_at(ids, which), (size_t)k), -1));
            example_free(&e);
        }
        record_free(&r);
    }
    for (RecordKind k = RECORD_PROMPT; k <= RECORD_LABELLED; k++)
        assert_true(n_kinds[k] > 0);
    tokenizer_close(tok);
}

static void rendered(void **state)
{
    const Json *all = json_get(*state, "rendered");
    check_rendered(json_get(all, "fallback"), "tests/golden/text/fallback", 0);     /* llama2 */
    check_rendered(json_get(all, "byte_level"), "tests/golden/text/byte_level", 1); /* chatml: a line end */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pairs, setup, teardown),
        cmocka_unit_test_setup_teardown(converted, setup, teardown),
        cmocka_unit_test_setup_teardown(rendered, setup, teardown),
    };
    return cmocka_run_group_tests_name("trl_data", tests, NULL, NULL);
}
