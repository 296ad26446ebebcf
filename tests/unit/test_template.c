/* test_template.c - chat templates against apply_chat_template of transformers (golden files, see
 * tests/golden/make_text.py), spans, the prefix property, and what is refused. */
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/text/template.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define GOLDEN "tests/golden/text/"

static const char *const folders[] = {"byte_level",      "byte_level_split", "fallback",
                                      "metaspace_first", "metaspace_always", "words"};
enum { N_FOLDERS = sizeof folders / sizeof folders[0], MAX_MESSAGES = 8 };

static Tokenizer *open_golden(const char *name)
{
    char *folder = path_join(GOLDEN, name);
    Tokenizer *t = NULL;
    if (tokenizer_open(&t, folder) < 0)
        fail_msg("%s", error_text());
    free(folder);
    return t;
}

static Message message(Role role, const char *text)
{
    return (Message){role, (char *)text, strlen(text)};
}

static void assert_same(const int32_t *a, const int32_t *b, int n)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(a[i], b[i]);
}

/* ---- golden */

static void check_conversation(const ChatTemplate *t, const Json *j, const char *name, int line)
{
    Message m[MAX_MESSAGES];
    const Json *list = json_get(j, "messages"), *want = json_get(j, "ids");
    int n = (int)json_len(list);
    IdList ids = {0};
    assert_true(n <= MAX_MESSAGES);
    for (int i = 0; i < n; i++) {
        const Json *one = json_at(list, (size_t)i);
        assert_int_equal(role_parse(json_str(json_get(one, "role")), &m[i].role), 0);
        m[i] = message(m[i].role, json_str(json_get(one, "content")));
    }
    assert_int_equal(template_render(t, m, n, json_bool(json_get(j, "open"), false), &ids, NULL),
                     0);
    if (ids.n != (int)json_len(want))
        fail_msg("%s, line %d: %d ids, expected %d", name, line, ids.n, (int)json_len(want));
    for (int i = 0; i < ids.n; i++)
        if (ids.at[i] != json_int(json_at(want, (size_t)i), -1))
            fail_msg("%s, line %d: id %d is %d (%s), expected %d", name, line, i, ids.at[i],
                     tokenizer_piece(t->tok, ids.at[i]),
                     (int)json_int(json_at(want, (size_t)i), -1));
    id_list_free(&ids);
}

static void ids_are_those_of_the_jinja_templates(void **s)
{
    static const TemplateKind kinds[N_FOLDERS] = {TEMPLATE_CHATML, TEMPLATE_CHATML, TEMPLATE_LLAMA2,
                                                  TEMPLATE_LLAMA2, TEMPLATE_LLAMA2, TEMPLATE_PLAIN};
    (void)s;
    for (int f = 0; f < N_FOLDERS; f++) {
        Tokenizer *tok = open_golden(folders[f]);
        char *path = xasprintf(GOLDEN "%s/chat.jsonl", folders[f]), *text, *line, *rest;
        ChatTemplate t;
        size_t bytes;
        int n = 0;
        assert_int_equal(template_init(&t, TEMPLATE_AUTO, tok), 0);
        assert_int_equal(t.kind, kinds[f]);
        assert_int_equal(file_read(path, &text, &bytes), 0);
        for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
            Json *j;
            assert_int_equal(json_parse(&j, line, strlen(line), path, ++n), 0);
            check_conversation(&t, j, folders[f], n);
            json_free(j);
        }
        assert_int_equal(n, 5);
        free(text);
        free(path);
        tokenizer_close(tok);
    }
}

/* ---- spans and prefixes: every template on every tokenizer that can have it */

static void check_answer(const ChatTemplate *t, Message *m, int n, const char *answer)
{
    IdList prompt = {0}, whole = {0};
    Span spans[MAX_MESSAGES] = {{0}};
    Str text = {0};
    assert_int_equal(template_render(t, m, n, true, &prompt, NULL), 0);
    m[n] = message(ROLE_ASSISTANT, answer);
    assert_int_equal(template_render(t, m, n + 1, false, &whole, spans), 0);
    /* the prompt's ids, then the answer's, then the closing token */
    assert_true(whole.n >= prompt.n);
    assert_same(whole.at, prompt.at, prompt.n);
    assert_int_equal(spans[n].from, prompt.n);
    assert_true(spans[n].to > spans[n].from && spans[n].to <= whole.n);
    assert_int_equal(whole.at[spans[n].to - 1], t->end);
    for (int i = spans[n].from; i < spans[n].to - 1; i++)
        assert_int_not_equal(whole.at[i], t->end);
    for (int i = 1; i <= n; i++)
        assert_true(spans[i].from >= spans[i - 1].to && spans[i].to >= spans[i].from);
    assert_int_equal(
        template_answer_text(t, whole.at + spans[n].from, spans[n].to - spans[n].from, &text), 0);
    assert_string_equal(str_get(&text), answer);
    for (int i = 0; i <= n; i++) {
        str_clear(&text);
        template_answer_text(t, whole.at + spans[i].from, spans[i].to - spans[i].from, &text);
        assert_string_equal(str_get(&text), m[i].text);
    }
    id_list_free(&prompt);
    id_list_free(&whole);
    str_free(&text);
}

static void prompts_never_depend_on_the_answer(void **s)
{
    static const char *const answers[] = {"hello", "copy a b", "The answer is 42.", ".", "]", "a"};
    (void)s;
    for (int f = 0; f < N_FOLDERS; f++) {
        Tokenizer *tok = open_golden(folders[f]);
        bool only_words = strcmp(folders[f], "words") == 0;
        for (TemplateKind kind = TEMPLATE_LLAMA2; kind < TEMPLATE_COUNT; kind++) {
            ChatTemplate t;
            if ((only_words && kind != TEMPLATE_PLAIN) || template_init(&t, kind, tok) < 0)
                continue;
            for (size_t a = 0; a < sizeof answers / sizeof answers[0] - (only_words ? 3u : 0u);
                 a++) {
                Message m[MAX_MESSAGES] = {message(ROLE_USER, "copy hello there"),
                                           message(ROLE_ASSISTANT, "hello"),
                                           message(ROLE_USER, "The answer")};
                check_answer(&t, m, 1, answers[a]);
                check_answer(&t, m, 1, answers[0]);
                m[1] = message(ROLE_ASSISTANT, "hello");
                check_answer(&t, m, 3, answers[a]);
            }
        }
        tokenizer_close(tok);
    }
}

static void a_system_message_has_its_span(void **s)
{
    static const char *const names[] = {"byte_level", "byte_level_split", "fallback"};
    (void)s;
    for (int f = 0; f < 3; f++) {
        Tokenizer *tok = open_golden(names[f]);
        for (TemplateKind kind = TEMPLATE_LLAMA2; kind < TEMPLATE_COUNT; kind++) {
            Message m[MAX_MESSAGES] = {message(ROLE_SYSTEM, "Be brief"),
                                       message(ROLE_USER, "hello")};
            ChatTemplate t;
            if (kind != TEMPLATE_MISTRAL && template_init(&t, kind, tok) == 0)
                check_answer(&t, m, 2, "hello there");
        }
        tokenizer_close(tok);
    }
}

/* The first trained token of a llama2 answer is the one with the space: the open turn ends right
 * behind "[/INST]", and the model makes the space itself. */
static void llama2_answers_begin_with_a_space(void **s)
{
    Tokenizer *tok = open_golden("fallback");
    Message m[2] = {message(ROLE_USER, " \n hello\xC2\xA0"), message(ROLE_ASSISTANT, "\thello  ")};
    Span spans[2];
    IdList ids = {0};
    Str text = {0};
    ChatTemplate t;
    (void)s;
    assert_int_equal(template_init(&t, TEMPLATE_LLAMA2, tok), 0);
    assert_int_equal(template_render(&t, m, 2, false, &ids, spans), 0);
    assert_int_equal(ids.at[0], tokenizer_bos(tok));
    assert_int_equal(strncmp(tokenizer_piece(tok, ids.at[spans[1].from]), "\xE2\x96\x81", 3), 0);
    tokenizer_decode(tok, ids.at, ids.n, false, &text);
    assert_string_equal(str_get(&text), "<s> [INST] hello [/INST] hello </s>");
    id_list_free(&ids);
    str_free(&text);
    tokenizer_close(tok);
}

/* The demo's kind of tokenizer: each marker one token, each word one token with its space. */
static void plain_on_whole_words(void **s)
{
    static const int32_t want[] = {3, 5, 6, 7,
                                   4, 8, 9, 2}; /* Human: copy a b Assistant: hello there EOS */
    Tokenizer *tok = open_golden("words");
    Message m[2] = {message(ROLE_USER, "copy a b"), message(ROLE_ASSISTANT, "hello there")};
    Span spans[2];
    IdList ids = {0};
    ChatTemplate t;
    (void)s;
    assert_int_equal(template_init(&t, TEMPLATE_PLAIN, tok), 0);
    assert_int_equal(template_render(&t, m, 2, false, &ids, spans), 0);
    assert_int_equal(ids.n, 8);
    assert_same(ids.at, want, 8);
    assert_int_equal(spans[0].from, 1);
    assert_int_equal(spans[0].to, 4);
    assert_int_equal(spans[1].from, 5);
    assert_int_equal(spans[1].to, 8);
    id_list_free(&ids);
    tokenizer_close(tok);
}

/* Where no token reaches over a border between marker and content, the ids are those of the whole
 * text, behind the id of BOS: nothing is put in front of the later parts. */
static void plain_is_the_natural_text(void **s)
{
    static const char natural[] = "Be brief\n\nHuman: hello\n\nAssistant: hello there";
    static const char *const names[] = {"byte_level", "fallback"};
    (void)s;
    for (int f = 0; f < 2; f++) {
        Tokenizer *tok = open_golden(names[f]);
        Message m[3] = {message(ROLE_SYSTEM, "Be brief"), message(ROLE_USER, "hello"),
                        message(ROLE_ASSISTANT, "hello there")};
        IdList ids = {0}, want = {0};
        ChatTemplate t;
        assert_int_equal(template_init(&t, TEMPLATE_PLAIN, tok), 0);
        assert_int_equal(template_render(&t, m, 3, false, &ids, NULL), 0);
        id_list_add(&want, t.bos);
        assert_int_equal(tokenizer_encode(tok, natural, sizeof natural - 1, true, &want), 0);
        id_list_add(&want, t.end);
        assert_int_equal(ids.n, want.n);
        assert_same(ids.at, want.at, ids.n);
        id_list_free(&ids);
        id_list_free(&want);
        tokenizer_close(tok);
    }
}

/* ---- what is refused */

static void assert_refused(const ChatTemplate *t, Message *m, int n, bool open_turn,
                           const char *want)
{
    IdList ids = {0};
    assert_int_equal(template_render(t, m, n, open_turn, &ids, NULL), ERR_DATA);
    assert_string_equal(error_text(), want);
    id_list_free(&ids);
}

static void conversations_are_checked(void **s)
{
    Tokenizer *bytes = open_golden("byte_level"), *fallback = open_golden("fallback");
    ChatTemplate chatml, llama2, plain;
    Message m[3];
    (void)s;
    assert_int_equal(template_init(&chatml, TEMPLATE_CHATML, bytes), 0);
    assert_int_equal(template_init(&plain, TEMPLATE_PLAIN, bytes), 0);
    assert_int_equal(template_init(&llama2, TEMPLATE_LLAMA2, fallback), 0);
    m[0] = message(ROLE_USER, "x<|im_end|>");
    assert_refused(&chatml, m, 1, true,
                   "message 1 (user) holds \"<|im_end|>\", a marker of template chatml; remove it");
    m[0] = message(ROLE_USER, "<</SYS>>");
    assert_refused(&llama2, m, 1, true,
                   "message 1 (user) holds \"<</SYS>>\", a marker of template llama2; remove it");
    m[0] = message(ROLE_USER, "hi");
    m[1] = message(ROLE_ASSISTANT, "a\n\nHuman: b");
    assert_refused(&plain, m, 2, false,
                   "message 2 (assistant) holds \"Human:\", a marker of template plain; remove it");
    m[1] = message(ROLE_USER, "hi");
    assert_refused(
        &plain, m, 2, false,
        "message 2 is of role user; expected assistant, since user and assistant alternate");
    m[0] = message(ROLE_ASSISTANT, "hi");
    assert_refused(
        &plain, m, 1, false,
        "message 1 is of role assistant; expected user, since user and assistant alternate");
    m[0] = message(ROLE_USER, "hi");
    m[1] = message(ROLE_ASSISTANT, "hi");
    assert_refused(&plain, m, 2, true,
                   "message 2 is of role assistant; a prompt ends with a user message");
    m[0] = message(ROLE_SYSTEM, "hi");
    assert_refused(&plain, m, 1, true, "a conversation needs a user message");
    assert_refused(&plain, m, 0, true, "a conversation needs a user message");
    tokenizer_close(bytes);
    tokenizer_close(fallback);
}

static void put(const char *folder, const char *name, const char *text)
{
    char *path = path_join(folder, name);
    assert_int_equal(file_write_atomic(path, text, strlen(text)), 0);
    free(path);
}

static void templates_are_recognised_or_refused(void **s)
{
    static const char tokenizer[] =
        "{\"added_tokens\":[{\"id\":2,\"content\":\"</s>\",\"special\":true}],"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}";
    char folder[] = "/tmp/test_template_XXXXXX";
    char *want;
    ChatTemplate t;
    Tokenizer *tok;
    (void)s;
    assert_non_null(mkdtemp(folder));
    put(folder, "tokenizer.json", tokenizer);
    assert_int_equal(tokenizer_open(&tok, folder), 0);
    assert_int_equal(template_init(&t, TEMPLATE_AUTO, tok), ERR_CONFIG);
    want = xasprintf("%s/tokenizer.json: the model has no chat template; "
                     "set `template` to one of those that --help lists",
                     folder);
    assert_string_equal(error_text(), want);
    assert_int_equal(template_init(&t, TEMPLATE_PLAIN, tok), 0);
    assert_int_equal(t.end, 2);
    assert_int_equal(template_init(&t, TEMPLATE_LLAMA2, tok), ERR_DATA);
    assert_non_null(strstr(error_text(), "template llama2 needs a BOS token"));
    assert_int_equal(template_init(&t, TEMPLATE_CHATML, tok), ERR_DATA);
    assert_non_null(strstr(error_text(), "template chatml needs the token <|im_end|>"));
    tokenizer_close(tok);

    /* [INST] without <<SYS>> is another family; a list of templates has a "default" */
    put(folder, "tokenizer_config.json",
        "{\"chat_template\":[{\"name\":\"rag\",\"template\":\"<|im_start|><|im_end|>\"},"
        "{\"name\":\"default\",\"template\":\"[INST]\"}]}");
    assert_int_equal(tokenizer_open(&tok, folder), 0);
    assert_string_equal(tokenizer_chat_template(tok), "[INST]");
    assert_int_equal(template_init(&t, TEMPLATE_AUTO, tok), ERR_CONFIG);
    assert_non_null(strstr(error_text(), "its text is none of those that are known"));
    tokenizer_close(tok);

    put(folder, "chat_template.jinja", "{{ '\\n\\nHuman: ' + m['content'] }}"
                                      "{{ '\\n\\nAssistant: ' + m['content'] + eos_token }}"); /* the file wins */
    assert_int_equal(tokenizer_open(&tok, folder), 0);
    assert_int_equal(template_init(&t, TEMPLATE_AUTO, tok), 0);
    assert_string_equal(template_name(t.kind), "plain");
    tokenizer_close(tok);
    dir_remove(folder);
    free(want);
}

/* ---- which template a model's own text is */

/* A tokenizer that has every marker, with the given chat template. */
static Tokenizer *with_template(const char *folder, const char *text)
{
    static const char *const tokens[] = {"<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>",
                                         "<|end_header_id|>", "<|eot_id|>"};
    Str out = {0};
    JsonWriter w;
    Tokenizer *tok;
    str_add(&out, "{\"added_tokens\":[");
    for (int i = 0; i < 7; i++)
        str_addf(&out, "%s{\"id\":%d,\"content\":\"%s\",\"special\":true}", i ? "," : "", 2 + i, tokens[i]);
    str_add(&out, "],\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}");
    put(folder, "tokenizer.json", str_get(&out));
    str_clear(&out);
    jw_init(&w, &out, false);
    jw_object(&w);
    jw_kstr(&w, "chat_template", text);
    jw_object_end(&w);
    put(folder, "tokenizer_config.json", str_get(&out));
    str_free(&out);
    if (tokenizer_open(&tok, folder) < 0)
        fail_msg("%s", error_text());
    return tok;
}

/* templates.json holds the texts that make_strings.py rendered with. */
static void known_texts_are_recognised(void **s)
{
    static const struct {
        const char *name;
        TemplateKind kind;
        const char *system;
    } known[] = {
        {"llama2", TEMPLATE_LLAMA2, NULL},
        {"llama3", TEMPLATE_LLAMA3, NULL},
        {"llama3.1", TEMPLATE_LLAMA31, NULL},
        {"chatml", TEMPLATE_CHATML, NULL},
        {"qwen2", TEMPLATE_CHATML, "You are a helpful assistant."},
        {"qwen2.5", TEMPLATE_CHATML, "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
        {"smollm2", TEMPLATE_CHATML, "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
        {"zephyr", TEMPLATE_ZEPHYR, NULL},
        {"mistral", TEMPLATE_MISTRAL, NULL},
        {"plain", TEMPLATE_PLAIN, NULL},
    };
    char folder[] = "/tmp/test_template_XXXXXX";
    Json *texts;
    (void)s;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(json_read_file(&texts, GOLDEN "templates.json"), 0);
    assert_int_equal(json_len(texts), sizeof known / sizeof known[0]);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        Tokenizer *tok = with_template(folder, json_str(json_get(texts, known[i].name)));
        ChatTemplate t, forced;
        if (template_init(&t, TEMPLATE_AUTO, tok) < 0)
            fail_msg("%s: %s", known[i].name, error_text());
        assert_string_equal(template_name(t.kind), template_name(known[i].kind));
        assert_int_equal(t.system_n, known[i].system ? strlen(known[i].system) : 0);
        if (known[i].system)
            assert_memory_equal(t.system, known[i].system, t.system_n);
        /* the name that forces it means the same */
        for (TemplateKind k = TEMPLATE_LLAMA2; k < TEMPLATE_COUNT; k++)
            if (strcmp(template_name(k), known[i].name) == 0) {
                assert_int_equal(template_init(&forced, k, tok), 0);
                assert_int_equal(forced.system_n, t.system_n);
                assert_int_equal(forced.end, t.end);
            }
        tokenizer_close(tok);
    }
    json_free(texts);
    dir_remove(folder);
}

#define MESSAGE "'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'"

static void other_texts_are_refused_with_a_reason(void **s)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"{{ " MESSAGE " }}{% set c = m.split('</think>')[-1] %}", "rewrites <think> blocks"},
        {"{{ '<|im_start|>' + message.role + '\n' + message.content | trim + '<|im_end|>' }}", "none of those that are known"}, /* strips */
        {"{% set default_system = 'Be nice.' %}{{ " MESSAGE " }}", "default system prompt is not plain text"},
        {"{{ " MESSAGE " }}{{ '<|im_start|>system\nYou are {{ name }}<|im_end|>' }}", "default system prompt is not plain text"},
        {"{{ '<|im_start|>system<|im_sep|>x<|im_end|>' }}", "none of those that are known"},
        {"{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] + '<|eot_id|>' }}",
         "none of those that are known"}, /* does not strip */
        {"{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + "
         "'<|eot_id|>' }}{{ 'Today Date: ' + strftime_now('%d') }}", "puts in a date"},
        {"{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{{ ' ' + content.strip() + ' ' + eos_token }}"
         "{% set system_message = 'You are nice.' %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n'"
         " + message['content'] %}", "puts in a default system prompt"},
        {"{{ 'Human: ' + message['content'] + '\\n\\nAssistant: ' + eos_token }}{{ message['content'] + eos_token }}",
         "none of those that are known"},
        {"{{ '[INST] <<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + content + ' [/INST]' }}",
         "none of those that are known"}, /* does not strip */
        {"{{ bos_token }}{{ '[INST] ' + message['content'] + '[/INST]' }}{{ message['content'] + eos_token }}",
         "none of those that are known"}, /* no space before [/INST] */
        {"{{ bos_token }}{{ '[INST] ' + message['content'] + ' [/INST]' }}{{ ' ' + message['content'] + eos_token }}",
         "none of those that are known"},
        {"{{ '<|user|>\n' + message['content'] + '\n' }}{{ '<|assistant|>\n' + message['content'] + eos_token }}",
         "none of those that are known"}, /* no EOS behind a user */
        {"{{ '<start_of_turn>user\n' + message['content'] }}", "none of those that are known"},
        {"", "none of those that are known"},
    };
    char folder[] = "/tmp/test_template_XXXXXX";
    (void)s;
    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Tokenizer *tok = with_template(folder, cases[i].text);
        ChatTemplate t;
        assert_int_equal(template_init(&t, TEMPLATE_AUTO, tok), ERR_CONFIG);
        if (!strstr(error_text(), cases[i].why))
            fail_msg("case %zu: %s", i, error_text());
        assert_non_null(strstr(error_text(), "tokenizer.json: "));
        assert_non_null(strstr(error_text(), "set `template` to force one of those that --help lists"));
        assert_int_equal(template_init(&t, TEMPLATE_CHATML, tok), 0); /* forced */
        tokenizer_close(tok);
    }
    dir_remove(folder);
}

static void a_default_prompt_stands_in_for_a_missing_one(void **s)
{
    char folder[] = "/tmp/test_template_XXXXXX";
    Tokenizer *tok;
    Message m[2] = {message(ROLE_SYSTEM, "aa"), message(ROLE_USER, "b")};
    IdList given = {0}, missing = {0};
    Span spans[2];
    ChatTemplate t;
    (void)s;
    assert_non_null(mkdtemp(folder));
    tok = with_template(folder, "{{ " MESSAGE " }}{{ '<|im_start|>system\\naa<|im_end|>\\n' }}");
    assert_int_equal(template_init(&t, TEMPLATE_AUTO, tok), 0);
    assert_int_equal(template_render(&t, m, 2, true, &given, NULL), 0);
    assert_int_equal(template_render(&t, m + 1, 1, true, &missing, spans), 0);
    assert_int_equal(given.n, missing.n);
    assert_same(given.at, missing.at, given.n);
    assert_int_equal(spans[0].to - spans[0].from, 1); /* "b"; letters of the roles have no ids here */
    assert_int_equal(missing.at[spans[0].from], 1);
    m[0] = message(ROLE_SYSTEM, ""); /* an empty one is one */
    missing.n = 0;
    assert_int_equal(template_render(&t, m, 2, true, &missing, NULL), 0);
    assert_int_equal(missing.n, given.n - 2);
    assert_int_equal(template_init(&t, TEMPLATE_MISTRAL, tok), 0);
    assert_refused(&t, m, 2, true, "template mistral has no system message; put its text into the first user message");
    id_list_free(&given);
    id_list_free(&missing);
    tokenizer_close(tok);
    dir_remove(folder);
}

static void roles_have_names(void **s)
{
    Role r;
    (void)s;
    assert_int_equal(role_parse("gpt", &r), 0);
    assert_string_equal(role_name(r), "assistant");
    assert_int_equal(role_parse("human", &r), 0);
    assert_string_equal(role_name(r), "user");
    assert_int_equal(role_parse("tool", &r), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_the_jinja_templates),
        cmocka_unit_test(prompts_never_depend_on_the_answer),
        cmocka_unit_test(a_system_message_has_its_span),
        cmocka_unit_test(llama2_answers_begin_with_a_space),
        cmocka_unit_test(plain_on_whole_words),
        cmocka_unit_test(plain_is_the_natural_text),
        cmocka_unit_test(conversations_are_checked),
        cmocka_unit_test(templates_are_recognised_or_refused),
        cmocka_unit_test(known_texts_are_recognised),
        cmocka_unit_test(other_texts_are_refused_with_a_reason),
        cmocka_unit_test(a_default_prompt_stands_in_for_a_missing_one),
        cmocka_unit_test(roles_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
