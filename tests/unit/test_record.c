/* test_record.c - records: every accepted form, one clear line for every refused one, writing and
 * reading back, margins, overlap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/data/record.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int parse(Record *r, const char *text, RecordKind kind)
{
    Json *j;
    assert_int_equal(json_parse(&j, text, strlen(text), "pairs.jsonl", 17), 0);
    const int rc = record_parse(r, j, kind, "pairs.jsonl", 17);
    json_free(j);
    return rc;
}

/* The conversation as "role:text|role:text". */
static void assert_talk(const Record *r, const char *expected)
{
    Str s = {0};
    for (int i = 0; i < r->n_messages; i++) {
        assert_int_equal(strlen(r->messages[i].text), r->messages[i].n);
        str_addf(&s, "%s%s:%s", i ? "|" : "", role_name(r->messages[i].role), r->messages[i].text);
    }
    assert_string_equal(str_get(&s), expected);
    str_free(&s);
}

#define U(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define A(text) "{\"role\":\"assistant\",\"content\":\"" text "\"}"

static void test_accepted(void **state)
{
    (void)state;
    static const struct {
        RecordKind kind;
        const char *json, *talk, *text0, *text1;
    } rows[] = {
        {RECORD_TEXT, "{\"text\":\"once\"}", "", "once", NULL},
        {RECORD_PROMPT, "{\"prompt\":\"q\"}", "user:q", NULL, NULL},
        {RECORD_PROMPT, "{\"prompt\":[" U("q") "," A("a") "," U("r") "]}",
         "user:q|assistant:a|user:r", NULL, NULL},
        {RECORD_PROMPT, "{\"prompt\":\"\\n\\nHuman: q\\n\\nAssistant:\"}", "user:q", NULL, NULL},
        {RECORD_PROMPT, "{\"messages\":[" U("q") "," A("a") "]}", "user:q", NULL, NULL},
        {RECORD_PROMPT, "{\"chosen\":[" U("q") "," A("a") "],\"rejected\":[" U("q") "," A("b") "]}",
         "user:q", NULL, NULL},
        {RECORD_SFT,
         "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"}," U("q") "," A("a") "]}",
         "system:s|user:q|assistant:a", NULL, NULL},
        {RECORD_SFT,
         "{\"messages\":[{\"role\":\"system\",\"content\":\" \"}," U("q") "," A(
             "a") "],\"tools\":[]}",
         "user:q|assistant:a", NULL, NULL},
        {RECORD_SFT, "{\"prompt\":\"q\",\"completion\":\"a\"}", "user:q|assistant:a", NULL, NULL},
        {RECORD_SFT,
         "{\"conversations\":[{\"from\":\"human\",\"value\":\"q\"},{\"from\":\"gpt\",\"value\":"
         "\"a\"}]}",
         "user:q|assistant:a", NULL, NULL},
        {RECORD_SFT,
         "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"q1\"},{"
         "\"type\":\"text\","
         "\"value\":\"q2\"}]}," A("a") "]}",
         "user:q1q2|assistant:a", NULL, NULL},
        {RECORD_PAIR, "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\"}", "user:q", "a", "b"},
        {RECORD_PAIR, "{\"prompt\":[" U("q") "],\"chosen\":[" A("a") "],\"rejected\":" A("b") "}",
         "user:q", "a", "b"},
        /* the prompt stands apart and once more inside both answers */
        {RECORD_PAIR,
         "{\"prompt\":\"q\",\"chosen\":[" U("q") "," A("a") "],\"rejected\":[" U("q") "," A(
             "b") "]}",
         "user:q", "a", "b"},
        /* the longest common start, not the first question only */
        {RECORD_PAIR,
         "{\"chosen\":[" U("q") "," A("x") "," U("r") "," A("a") "],\"rejected\":[" U("q") "," A(
             "x") "," U("r") "," A("b") "]}",
         "user:q|assistant:x|user:r", "a", "b"},
        {RECORD_PAIR,
         "{\"chosen\":\"\\n\\nHuman: q\\n\\nAssistant: x\\n\\nHuman: r\\n\\nAssistant: a\","
         "\"rejected\":\"\\n\\nHuman: q\\n\\nAssistant: x\\n\\nHuman: r\\n\\nAssistant: a b\"}",
         "user:q|assistant:x|user:r", "a", "a b"},
        /* turns of one speaker in a row are joined */
        {RECORD_PAIR,
         "{\"chosen\":\"\\n\\nHuman: q\\n\\nAssistant: x\\n\\nAssistant: y\","
         "\"rejected\":\"\\n\\nHuman: q\\n\\nAssistant: z\"}",
         "user:q", "x\n\ny", "z"},
        /* plain strings: the common start in whole words, blanks at the cut left out */
        {RECORD_PAIR, "{\"chosen\":\"The sky is blue.\",\"rejected\":\"The sky is green.\"}",
         "user:The sky is", "blue.", "green."},
        {RECORD_PAIR, "{\"chosen\":\"I have a cat\",\"rejected\":\"I have a car\"}",
         "user:I have a", "cat", "car"},
        {RECORD_PAIR, "{\"chosen\":\"one two\",\"rejected\":\"one two three\"}", "user:one", "two",
         "two three"},
        {RECORD_PAIR, "{\"chosen\":\"one  \",\"rejected\":\"one two\",\"prompt\":\"q\"}", "user:q",
         "one  ", "one two"},
        /* Alpaca and ShareGPT, as instruction data and as preferences */
        {RECORD_SFT, "{\"instruction\":\"do\",\"input\":\"this\",\"output\":\"a\"}",
         "user:do\n\nthis|assistant:a", NULL, NULL},
        {RECORD_SFT,
         "{\"instruction\":\"do\",\"input\":\" \",\"output\":\"a\",\"system\":\"s\","
         "\"history\":[[\"x\",\"y\"]]}",
         "system:s|user:x|assistant:y|user:do|assistant:a", NULL, NULL},
        {RECORD_SFT, "{\"instruction\":\"\",\"input\":\"q\",\"output\":\"a\"}",
         "user:q|assistant:a", NULL, NULL},
        {RECORD_PROMPT, "{\"instruction\":\"do\",\"input\":\"this\",\"output\":\"a\"}",
         "user:do\n\nthis", NULL, NULL},
        {RECORD_PAIR, "{\"instruction\":\"q\",\"input\":\"\",\"chosen\":\"a\",\"rejected\":\"b\"}",
         "user:q", "a", "b"},
        {RECORD_PAIR,
         "{\"conversations\":[{\"from\":\"human\",\"value\":\"q\"}],\"chosen\":{\"from\":\"gpt\","
         "\"value\":\"a\"},\"rejected\":{\"from\":\"gpt\",\"value\":\"b\"},\"system\":\"s\"}",
         "system:s|user:q", "a", "b"},
        {RECORD_SFT,
         "{\"conversations\":[{\"from\":\"system\",\"value\":\"own\"},{\"from\":\"human\","
         "\"value\":\"q\"},{\"from\":\"gpt\",\"value\":\"a\"}],\"system\":\"s\"}",
         "system:own|user:q|assistant:a", NULL, NULL},
        /* TRL's forms have no column system: others are ignored */
        {RECORD_SFT, "{\"prompt\":\"q\",\"completion\":\"a\",\"system\":\"s\"}",
         "user:q|assistant:a", NULL, NULL},
        {RECORD_LABELLED, "{\"completion\":[" U("q") "," A("a") "],\"label\":false}", "user:q", "a",
         NULL},
        {RECORD_LABELLED, "{\"prompt\":\"q\",\"response\":\"a\",\"is_safe\":false}", "user:q", "a",
         NULL},
        {RECORD_LABELLED, "{\"prompt\":[" U("q") "],\"completion\":[" A("a") "],\"label\":true}",
         "user:q", "a", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        Record r;
        if (parse(&r, rows[i].json, rows[i].kind) < 0)
            fail_msg("%s\n%s", rows[i].json, error_text());
        assert_talk(&r, rows[i].talk);
        const char *expected[2] = {rows[i].text0, rows[i].text1};
        for (int k = 0; k < 2; k++) {
            assert_int_equal(!r.text[k], !expected[k]);
            if (expected[k])
                assert_string_equal(r.text[k], expected[k]);
        }
        assert_int_equal(r.line, 17);
        record_free(&r);
        record_free(&r);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        RecordKind kind;
        const char *json, *error;
    } rows[] = {
        {RECORD_TEXT, "{\"texts\":\"x\"}", "text: missing; a text record has text (found: texts)"},
        {RECORD_TEXT, "{\"text\":null}", "text: missing"},
        {RECORD_TEXT, "{\"text\":\" \\n\"}", "text: empty text"},
        {RECORD_TEXT, "{\"text\":5}", "text: found "},
        {RECORD_TEXT, "{\"text\":\"a\\u0000b\"}", "text: holds a NUL character"},
        {RECORD_PROMPT, "{\"prompt\":\"\"}", "prompt: message 1 (user) is empty"},
        {RECORD_PROMPT, "{\"prompt\":[]}", "prompt: holds no messages"},
        {RECORD_PROMPT, "{\"prompt\":[" U("q") "," A("a") "]}",
         "prompt: the last message is of the assistant"},
        {RECORD_SFT, "{\"messages\":[{\"role\":\"robot\",\"content\":\"x\"}]}",
         "messages[0]: unknown role 'robot', expected system, user or assistant"},
        {RECORD_SFT, "{\"messages\":[{\"content\":\"x\"}]}", "messages[0]: has no field 'role'"},
        {RECORD_SFT, "{\"messages\":[{\"role\":\"user\"}]}", "messages[0]: has no field 'content'"},
        {RECORD_SFT, "{\"messages\":[\"x\"]}", "messages[0]: found a string, expected a message"},
        {RECORD_SFT, "{\"messages\":[" U("q") "," U("r") "]}",
         "messages: message 2 is of the user, expected the assistant"},
        {RECORD_SFT, "{\"messages\":[" U("q") "]}", "messages: the last message is of the user"},
        {RECORD_SFT, "{\"messages\":[" U("q") "," A(" ") "]}", "messages: empty answer"},
        {RECORD_SFT, "{\"messages\":[" U("") "," A("a") "]}", "messages: message 1 (user) is empty"},
        {RECORD_SFT, "{\"messages\":[" A("a") "]}",
         "messages: message 1 is of the assistant, expected the user"},
        {RECORD_SFT, "{\"prompt\":\"q\"}",
         "completion: missing; a sft record has messages, or prompt and completion"},
        {RECORD_SFT, "{\"messages\":[" U("q") "," A("a") "],\"tools\":[{}]}",
         "tools: tools are not supported"},
        {RECORD_SFT,
         "{\"messages\":[" U(
             "q") ",{\"role\":\"assistant\",\"tool_calls\":[{}],\"content\":\"\"}]}",
         "messages[1]: holds tool_calls"},
        {RECORD_SFT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
         "messages[0]: part 1 is of type 'image'"},
        {RECORD_PAIR, "{\"prompt\":\"q\",\"chosen\":\"\",\"rejected\":\"b\"}",
         "chosen: empty answer"},
        {RECORD_PAIR, "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"a \"}",
         "chosen: is the same as rejected"},
        {RECORD_PAIR, "{\"prompt\":\"q\",\"chosen\":\"a\"}",
         "rejected: missing; a preference record has"},
        {RECORD_PAIR, "{\"chosen\":\"a\",\"rejected\":\"b\"}",
         "prompt: missing, and chosen and rejected have no first word in common"},
        {RECORD_PAIR, "{\"chosen\":\" a x\",\"rejected\":\" b x\"}",
         "prompt: missing, and chosen and rejected have no first word in common"},
        {RECORD_PAIR, "{\"chosen\":\"\\n\\nHuman: q\\n\\nAssistant: a\",\"rejected\":\"b\"}",
         "chosen: does not begin with the same prompt as rejected"},
        {RECORD_SFT, "{\"instruction\":5,\"output\":\"a\"}", "instruction: found an integer"},
        {RECORD_SFT, "{\"instruction\":\"q\",\"input\":[1],\"output\":\"a\"}",
         "input: part 1 has no text"},
        {RECORD_SFT, "{\"instruction\":\" \",\"input\":\"\",\"output\":\"a\"}",
         "instruction: message 1 (user) is empty"},
        {RECORD_SFT, "{\"instruction\":\"q\",\"history\":[[\"x\",7]],\"output\":\"a\"}",
         "history[0][1]: found an integer"},
        {RECORD_SFT, "{\"instruction\":\"q\",\"history\":[[\"x\"]],\"output\":\"a\"}",
         "history[0][1]: found nothing"},
        {RECORD_SFT, "{\"conversations\":[{\"from\":\"tool\",\"value\":\"q\"}]}",
         "conversations[0]: unknown role 'tool'"},
        {RECORD_SFT, "{\"conversations\":[{\"from\":\"human\",\"value\":\"q\"}],\"system\":1}",
         "system: found an integer"},
        {RECORD_LABELLED, "{\"completion\":\"a\",\"label\":true}",
         "prompt: missing; a labelled record has"},
        {RECORD_PAIR, "{\"prompt\":\"q\",\"chosen\":7,\"rejected\":\"b\"}", "chosen: found "},
        {RECORD_PAIR, "{\"chosen\":[" U("q") "," A("a") "],\"rejected\":[" U("r") "," A("b") "]}",
         "chosen: does not begin with the same prompt as rejected"},
        {RECORD_PAIR,
         "{\"chosen\":[" U("q") "," A("a") "],\"rejected\":[" U("q") "," A("b") "," U("r") "," A(
             "c") "]}",
         "rejected: 3 messages follow the common prompt"},
        {RECORD_PAIR, "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\",\"strength\":\"big\"}",
         "strength: found 'big', expected significant, better"},
        {RECORD_PAIR, "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\",\"strength\":3}",
         "strength: found "},
        {RECORD_PAIR, "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\",\"margin\":\"1\"}",
         "margin: found a string, expected a number"},
        {RECORD_PAIR, "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\",\"chosen_safe\":1}",
         "chosen_safe: found "},
        {RECORD_PAIR, "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\",\"weight\":0}",
         "weight: "},
        {RECORD_PAIR, "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\",\"tags\":\"safety\"}",
         "tags: found a string, expected a list"},
        {RECORD_PAIR, "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\",\"id\":1.5}",
         "id: found "},
        {RECORD_LABELLED, "{\"prompt\":\"q\",\"response\":\"a\"}",
         "is_safe: missing; a labelled record has"},
        {RECORD_LABELLED, "{\"prompt\":\"q\",\"response\":\"a\",\"label\":\"Safe\"}",
         "label: found a string"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        Record r;
        const int rc = parse(&r, rows[i].json, rows[i].kind);
        if (rc != ERR_DATA)
            fail_msg("row %zu was accepted: %s", i, rows[i].json);
        if (strncmp(error_text(), "pairs.jsonl:17: ", 16) ||
            strncmp(error_text() + 16, rows[i].error, strlen(rows[i].error)) ||
            strchr(error_text(), '\n'))
            fail_msg("%s\nfound    %s\nexpected pairs.jsonl:17: %s", rows[i].json, error_text(),
                     rows[i].error);
        record_free(&r);
    }
}

static void test_hash_and_id(void **state)
{
    (void)state;
    Record a, b, c, d, e;
    parse(&a, "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\"}", RECORD_PAIR);
    parse(&b, "{\"prompt\":[" U(" q\\n") "],\"completion\":\"other\",\"id\":7}", RECORD_SFT);
    parse(&c, "{\"prompt\":[{\"role\":\"system\",\"content\":\"q\"}," U("q") "]}", RECORD_PROMPT);
    parse(&d, "{\"prompt\":[" U("q") "," A("qa") "," U("b") "]}", RECORD_PROMPT);
    parse(&e, "{\"prompt\":[" U("q") "," A("q") "," U("ab") "],\"id\":\"7\"}", RECORD_PROMPT);
    /* the same prompt in a pair and in an SFT record, blanks aside */
    assert_true(a.prompt_hash == b.prompt_hash);
    assert_true(a.prompt_hash != c.prompt_hash);
    assert_true(d.prompt_hash != e.prompt_hash); /* the border between messages counts */
    assert_true(a.id == a.prompt_hash && !a.id_text);
    assert_string_equal(b.id_text, "7");
    assert_true(b.id == e.id && b.id != b.prompt_hash);
    record_free(&a), record_free(&b), record_free(&c), record_free(&d), record_free(&e);
}

static void test_write_reads_back(void **state)
{
    (void)state;
    static const struct {
        RecordKind kind;
        const char *json;
    } rows[] = {
        {RECORD_PAIR,
         "{\"id\":\"x1\",\"prompt\":[" U("q\\n\\\"") "],\"chosen\":[" A(
             "a\xc3\xa9") "],\"rejected\":[" A("b") "],"
                                                    "\"strength\":\"slight\",\"margin\":0.25,"
                                                    "\"chosen_safe\":true,\"rejected_safe\":false,"
                                                    "\"tags\":[\"safety\"],\"weight\":0.5,"
                                                    "\"source\":\"s\"}"},
        {RECORD_PAIR,
         "{\"prompt\":[" U("q") "],\"chosen\":[" A("a") "],\"rejected\":[" A("b") "]}"},
        {RECORD_SFT, "{\"messages\":[" U("q") "," A("a") "]}"},
        {RECORD_SFT, "{\"prompt\":[" U("q") "," A("a") "," U("r") "],\"completion\":[" A("b") "]}"},
        {RECORD_PROMPT, "{\"prompt\":[" U("q") "],\"tags\":[\"safety\"]}"},
        {RECORD_TEXT, "{\"text\":\"once\"}"},
        {RECORD_LABELLED, "{\"prompt\":[" U("q") "],\"response\":[" A("a") "],\"is_safe\":false}"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        Record r;
        Str out = {0}, plain = {0};
        assert_int_equal(parse(&r, rows[i].json, rows[i].kind), 0);
        record_write(&r, &out);
        /* our writer may put blanks behind separators; none of the texts here holds ": " or ", " */
        for (const char *c = str_get(&out); *c; c++)
            if (!(*c == ' ' && (c[-1] == ':' || c[-1] == ',')))
                str_add_bytes(&plain, c, 1);
        assert_string_equal(str_get(&plain), rows[i].json);
        Json *j;
        assert_int_equal(json_parse(&j, out.s, out.n, "out", 1), 0);
        assert_int_equal(record_kind_of(j), rows[i].kind);
        json_free(j);
        str_free(&out);
        str_free(&plain);
        record_free(&r);
    }
}

static void test_rating(void **state)
{
    (void)state;
    Record r;
    parse(&r,
          "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\",\"strength\":\"better\","
          "\"rejected_safe\":false,"
          "\"tags\":[\"x\",\"safety\"]}",
          RECORD_PAIR);
    assert_int_equal(r.strength, STRENGTH_BETTER);
    assert_true(isnan(r.margin) && r.weight == 1 && r.tagged);
    assert_int_equal(r.safety[0], SAFETY_UNKNOWN);
    assert_int_equal(r.safety[1], SAFETY_UNSAFE);
    record_free(&r);

    /* Llama 2, table 27: significantly, better, slightly, negligibly better or unsure */
    static const double small[] = {1, 2.0 / 3, 1.0 / 3, 0, 0, 0}, large[] = {3, 2, 1, 0, 0, 0};
    for (int s = 0; s < STRENGTH_COUNT; s++) {
        assert_true(strength_margin((Strength)s, MARGIN_NONE) == 0);
        assert_true(strength_margin((Strength)s, MARGIN_SMALL) == small[s]);
        assert_true(strength_margin((Strength)s, MARGIN_LARGE) == large[s]);
    }
    assert_string_equal(strength_name(STRENGTH_SIGNIFICANT), "significant");
    assert_string_equal(strength_name(STRENGTH_UNKNOWN), "unknown");
}

/* ---- files */

typedef struct {
    char dir[64];
    char path[3][80];
} Folder;

static int setup(void **state)
{
    static Folder f;
    strcpy(f.dir, "/tmp/test_record.XXXXXX");
    if (!mkdtemp(f.dir))
        return -1;
    for (int i = 0; i < 3; i++)
        snprintf(f.path[i], sizeof f.path[i], "%s/%c.jsonl", f.dir, 'a' + i);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    return dir_remove(((Folder *)*state)->dir);
}

static void put(const char *path, const char *text)
{
    assert_int_equal(file_write_atomic(path, text, strlen(text)), 0);
}

static void assert_error_has(int rc, int code, const char *a, const char *b)
{
    assert_int_equal(rc, code);
    if (!strstr(error_text(), a) || !strstr(error_text(), b))
        fail_msg("'%s' has not both '%s' and '%s'", error_text(), a, b);
}

static void test_read_lines(void **state)
{
    Folder *f = *state;
    RecordSet s = {0};
    put(f->path[0], "\xef\xbb\xbf{\"prompt\":\"one\"}\r\n\n{\"prompt\":\"two\"}\n{\"prompt\":\"\"}"
                    "\n{oops\n[1]\n"
                    "{\"prompt\":\"three\"}");
    assert_error_has(record_set_read(&s, f->path[0], RECORD_PROMPT, BAD_ROW_ERROR), ERR_DATA,
                     "a.jsonl:4:11: prompt: message 1 (user) is empty",
                     "; remove the row or set on_bad_row: skip");
    record_set_free(&s);
    assert_int_equal(record_set_read(&s, f->path[0], RECORD_PROMPT, BAD_ROW_SKIP), 0);
    assert_int_equal(s.n, 3);
    assert_int_equal(s.n_bad, 3);
    assert_int_equal(s.at[0].line, 1);
    assert_int_equal(s.at[1].line, 3);
    assert_int_equal(s.at[2].line, 7);
    assert_talk(&s.at[2], "user:three");
    record_set_free(&s);
    record_set_free(&s);

    put(f->path[0], "\n");
    assert_error_has(record_set_read(&s, f->path[0], RECORD_PROMPT, BAD_ROW_SKIP), ERR_DATA,
                     f->path[0], "holds no prompt record");
    record_set_free(&s);
    assert_int_equal(record_set_read(&s, "/no/such/file", RECORD_PROMPT, BAD_ROW_SKIP),
                     ERR_NOINPUT);
    record_set_free(&s);
}

static void test_read_array(void **state)
{
    Folder *f = *state;
    RecordSet s = {0};
    put(f->path[0], "\n [\n {\"prompt\": \"a ] , } \\\" b\"},\n {\"prompt\":\n [" U(
                        "two") "]}\n,{\"prompt\":\"x\"}]\n");
    assert_int_equal(record_set_read(&s, f->path[0], RECORD_PROMPT, BAD_ROW_ERROR), 0);
    assert_int_equal(s.n, 3);
    assert_talk(&s.at[0], "user:a ] , } \" b");
    assert_int_equal(s.at[0].line, 3);
    assert_int_equal(s.at[1].line, 4);
    assert_int_equal(s.at[2].line, 6);
    record_set_free(&s);

    put(f->path[0], "[{\"prompt\":\"a\"},\n{\"prompt\":\"b\"}");
    assert_error_has(record_set_read(&s, f->path[0], RECORD_PROMPT, BAD_ROW_SKIP), ERR_DATA,
                     "a.jsonl:2", "ends inside its JSON array");
    record_set_free(&s);
    put(f->path[0], "[{\"prompt\":\"a\"}] []");
    assert_error_has(record_set_read(&s, f->path[0], RECORD_PROMPT, BAD_ROW_SKIP), ERR_DATA,
                     "a.jsonl:1", "text follows the end");
    record_set_free(&s);
    put(f->path[0], "[ ]");
    assert_error_has(record_set_read(&s, f->path[0], RECORD_PROMPT, BAD_ROW_SKIP), ERR_DATA,
                     "a.jsonl", "holds no");
    record_set_free(&s);
}

static void test_overlap(void **state)
{
    Folder *f = *state;
    RecordSet train = {0}, held = {0};
    put(f->path[0], "{\"prompt\":\"one\"}\n{\"prompt\":\"two\"}\n{\"prompt\":\"three\"}\n{"
                    "\"prompt\":\"two\"}\n");
    put(f->path[1], "{\"prompt\":\"four\"}\n{\"prompt\":\"five\"}\n");
    assert_int_equal(record_set_read(&train, f->path[0], RECORD_PROMPT, BAD_ROW_ERROR), 0);
    assert_int_equal(record_set_read(&held, f->path[1], RECORD_PROMPT, BAD_ROW_ERROR), 0);
    assert_int_equal(record_check_overlap(&train, "train", &held, "held out"), 0);
    assert_int_equal(prompt_hashes_write(f->path[2], &train), 0);
    assert_int_equal(file_bytes(f->path[2]), 24 + 3 * 8); /* "two" once */
    assert_int_equal(prompt_hashes_check(f->path[2], &held, "held out"), 0);

    put(f->path[1], "{\"prompt\":\"six\",\"chosen\":\"a\",\"rejected\":\"b\"}\n"
                    "{\"prompt\":\"two\",\"chosen\":\"a\",\"rejected\":\"b\"}\n");
    assert_int_equal(record_set_read(&held, f->path[1], RECORD_PAIR, BAD_ROW_ERROR), 0);
    assert_error_has(record_check_overlap(&train, "train", &held, "held out"), ERR_DATA,
                     "a.jsonl:2 (train)", "b.jsonl:2 (held out)");
    assert_error_has(prompt_hashes_check(f->path[2], &held, "held out"), ERR_DATA,
                     "b.jsonl:2 (held out)", "c.jsonl");

    char *data;
    size_t n;
    assert_int_equal(file_read(f->path[2], &data, &n), 0);
    data[30] ^= 1;
    assert_int_equal(file_write_atomic(f->path[2], data, n), 0);
    free(data);
    assert_error_has(prompt_hashes_check(f->path[2], &held, "held out"), ERR_DATA, "c.jsonl",
                     "damaged");
    record_set_free(&train);
    record_set_free(&held);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_hash_and_id),
        cmocka_unit_test(test_write_reads_back),
        cmocka_unit_test(test_rating),
        cmocka_unit_test_setup_teardown(test_read_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_array, setup, teardown),
        cmocka_unit_test_setup_teardown(test_overlap, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
