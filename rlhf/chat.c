/* chat.c - `rlhf chat`: a conversation with a model, answers shown as they are drawn.
 *
 * Standard input is read line by line: a line is a message, a line that begins with / a command. What was
 * said stays in the conversation until it no longer fits the context; then the oldest pair is left out and a
 * line says so. Ctrl-C ends an answer, not the conversation. Tested by tests/e2e/test_chat.sh. */
#include "rlhf/rlhf.h"

#include "common/base/cli.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "common/generate/generate.h"
#include "common/model/hf.h"
#include "common/runtime/device.h"
#include "common/text/template.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    const char *model, *system, *device;
    int template_kind, isa, dtype;
    double temperature;
    int64_t max_length, max_new_tokens, seed, threads;
} ChatConfig;

#define AT(m) offsetof(ChatConfig, m)

static const CfgField fields[] = {
    {"model", CFG_STRING, AT(model), .flags = CFG_REQUIRED, .help = "Hugging Face folder of a causal model"},
    {"system", CFG_STRING, AT(system), "", .help = "system message; empty = the template's own, if it has one"},
    {"template", CFG_ENUM, AT(template_kind), "auto", .choices = TEMPLATE_CHOICES, .help = "chat template; auto = the model's own"},
    {"temperature", CFG_FLOAT, AT(temperature), "0.7", 0, 100, .help = "0 = greedy"},
    {"max_length", CFG_INT, AT(max_length), "2048", 2, 1e6, .help = "tokens of the conversation that the model sees, the answer included; at most the model's"},
    {"max_new_tokens", CFG_INT, AT(max_new_tokens), "512", 1, 1e6, .help = "tokens of an answer"},
    {"seed", CFG_INT, AT(seed), "1", 0, 9e15, .help = "same seed and messages, same answers"},
    {"device", CFG_STRING, AT(device), "auto", .help = "auto, cpu, cuda or cuda:N"},
    {"threads", CFG_INT, AT(threads), "0", 0, 1024, .help = "CPU threads; 0 = all"},
    {"isa", CFG_ENUM, AT(isa), "auto", .choices = "auto|plain|avx2|avx512|avx512bf16", .help = "CPU bodies; never changes a result"},
    DTYPE_FIELD(ChatConfig, dtype),
    {0},
};

static const CliOption options[] = {
    {"--model", "DIR", "model", "same as --set model=DIR"},
    {"--system", "TEXT", "system", "system message"},
    {0},
};

static const CliSpec spec = {
    .program = "rlhf chat",
    .summary = "hold a conversation with a model",
    .examples = "  rlhf chat --model runs/ppo/export\n"
                "  rlhf chat --model M --system 'Answer in one sentence.' temperature=0\n"
                "At the prompt: /reset forgets the conversation, /system TEXT does so under another system\n"
                "message, /exit or Ctrl-D ends; Ctrl-C ends an answer.\n",
    .fields = fields,
    .config_bytes = sizeof(ChatConfig),
    .options = options,
};

typedef struct {
    const ChatConfig *c;
    const char *dtype_where; /* file:line of key dtype */
    Device *dev;
    Tokenizer *tok;
    ChatTemplate chat;
    ModelConfig config;
    Model model;
    ParamSet params;
    Generator *gen;
    Arena weights, work, host;
    MemoryPlan plan;
    int32_t stop[MODEL_MAX_EOS + 1];
    int n_stop;
    int64_t length; /* positions that there are */
    bool terminal;  /* somebody types */
    Message *said;  /* texts owned; said[0] is the system message where there is one */
    int64_t n_said, cap_said;
    uint64_t n_answers;
    /* the answer that is being drawn */
    IdList answer;
    Str text;
    size_t n_shown;
} Chat;

static volatile sig_atomic_t interrupted;
static volatile int stop_flag;

static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
    stop_flag = 1;
}

/* ---- the conversation ----------------------------------------------------------------------- */

static void say(Chat *t, Role role, const char *text, size_t n)
{
    int64_t i = VEC_GROW(t->said, t->n_said, t->cap_said);
    t->said[i] = (Message){role, xstrndup(text, n), n};
}

static void unsay_from(Chat *t, int64_t first, int64_t n)
{
    if (n == 0)
        return;
    for (int64_t i = first; i < first + n; i++)
        free(t->said[i].text);
    memmove(t->said + first, t->said + first + n, (size_t)(t->n_said - first - n) * sizeof *t->said);
    t->n_said -= n;
}

static void start_over(Chat *t, const char *system)
{
    unsay_from(t, 0, t->n_said);
    if (system[0])
        say(t, ROLE_SYSTEM, system, strlen(system));
}

/* Ids of the conversation, cut at its old end until an answer of max_new_tokens fits, or one of at least a
 * token when the last message alone leaves no more room. */
static int render(Chat *t, IdList *ids)
{
    int64_t first = t->n_said > 0 && t->said[0].role == ROLE_SYSTEM, dropped = 0;
    for (;;) {
        ids->n = 0;
        int rc = template_render(&t->chat, t->said, (int)t->n_said, true, ids, NULL);
        if (rc < 0)
            return rc;
        bool last = t->n_said - first < 3;
        if (ids->n + (last ? 1 : t->c->max_new_tokens) <= t->length)
            break;
        if (last)
            return error_set(ERR_DATA, "the message takes %d tokens, max_length is %lld: shorten it or raise "
                                       "max_length",
                             ids->n, (long long)t->length);
        unsay_from(t, first, 2);
        dropped += 2;
    }
    if (dropped)
        fprintf(stderr, "the context is full: the %lld oldest messages are forgotten\n", (long long)dropped);
    return 0;
}

/* ---- showing an answer ---------------------------------------------------------------------- */

/* Bytes of the text that will not change when more tokens come: a character may still be in the middle, which
 * decodes as U+FFFD, and blanks at the end may be the answer's last. */
static size_t settled(const Str *s)
{
    static const char unknown[] = "\xef\xbf\xbd";
    size_t n = s->n;
    while (n >= 3 && !memcmp(s->s + n - 3, unknown, 3))
        n -= 3;
    while (n > 0 && (s->s[n - 1] == ' ' || s->s[n - 1] == '\n'))
        n--;
    return n;
}

static void show(Chat *t, size_t n)
{
    if (n > t->n_shown) {
        fwrite(t->text.s + t->n_shown, 1, n - t->n_shown, stdout);
        fflush(stdout);
        t->n_shown = n;
    }
}

static void on_token(void *ctx, int64_t request, int32_t id)
{
    Chat *t = ctx;
    (void)request;
    id_list_add(&t->answer, id);
    str_clear(&t->text);
    if (template_answer_text(&t->chat, t->answer.at, t->answer.n, &t->text) == 0)
        show(t, settled(&t->text));
}

/* ---- one turn ------------------------------------------------------------------------------- */

static int answer(Chat *t)
{
    const ChatConfig *c = t->c;
    IdList ids = {0};
    int rc = 0;
    int32_t *drawn = xmalloc((size_t)c->max_new_tokens * sizeof *drawn);
    TRY(render(t, &ids));
    GenRequest req = {ids.at, ids.n, t->n_answers++, 0, 0};
    GenResult res = {.ids = drawn};
    GenOptions o = {.seed = (uint64_t)c->seed, .temperature = c->temperature,
                    .max_new_tokens = (int)c->max_new_tokens, .stop = t->stop, .n_stop = t->n_stop,
                    .on_token = on_token, .ctx = t};
    t->answer.n = 0;
    t->n_shown = 0;
    str_clear(&t->text);
    TRY(generate(t->gen, &t->params, &req, 1, &o, &res, &stop_flag, NULL, NULL));
    rc = 0; /* 1: interrupted; what was said so far stands */
    show(t, t->text.n);
    printf("%s\n", res.finished ? "" : " [...]");
    fflush(stdout);
    if (t->text.n > 0)
        say(t, ROLE_ASSISTANT, t->text.s, t->text.n);
    else
        unsay_from(t, t->n_said - 1, 1); /* no answer: as if the message had not been sent */
fail:
    if (rc < 0)
        unsay_from(t, t->n_said - 1, 1);
    free(drawn);
    id_list_free(&ids);
    return rc;
}

/* A line that begins with /; false: the end. */
static bool command(Chat *t, const char *line)
{
    if (!strcmp(line, "/exit") || !strcmp(line, "/quit"))
        return false;
    if (!strcmp(line, "/reset"))
        start_over(t, t->c->system);
    else if (!strncmp(line, "/system ", 8))
        start_over(t, line + 8);
    else
        fprintf(stderr, "no such command: %s; there are /reset, /system TEXT and /exit\n", line);
    return true;
}

/* A message that the model cannot be given is no reason to end. */
static int converse(Chat *t)
{
    char *line = NULL;
    size_t room = 0;
    int rc = 0;
    bool on = true;
    start_over(t, t->c->system);
    while (on) {
        if (t->terminal) {
            printf("> ");
            fflush(stdout);
        }
        interrupted = 0;
        stop_flag = 0;
        ssize_t n = getline(&line, &room, stdin);
        if (n < 0 && interrupted) { /* Ctrl-C at the prompt: a fresh one */
            clearerr(stdin);
            printf("\n");
            continue;
        }
        if (n < 0)
            break;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            line[--n] = 0;
        if (n == 0)
            continue;
        if (line[0] == '/') {
            on = command(t, line);
            continue;
        }
        say(t, ROLE_USER, line, (size_t)n);
        rc = answer(t);
        if (rc < 0 && rc != ERR_DATA)
            break;
        if (rc < 0)
            fprintf(stderr, "%s\n", error_text());
        rc = rc == ERR_DATA && !t->terminal ? rc : 0;
        on = rc == 0;
    }
    free(line);
    return rc;
}

/* ---- the model ------------------------------------------------------------------------------ */

static int open_inputs(Chat *t)
{
    const ChatConfig *c = t->c;
    int rc = 0;
    TRY(device_open(&t->dev, &(DeviceOptions){c->device, (int)c->threads, (CpuIsa)c->isa}));
    TRY(device_check_dtype(t->dev, (DType)c->dtype, t->dtype_where));
    TRY(tokenizer_open(&t->tok, c->model));
    TRY(hf_read_causal(&t->config, c->model, t->tok, ""));
    TRY(template_init(&t->chat, (TemplateKind)c->template_kind, t->tok));
    t->n_stop = generate_stop_ids(t->stop, t->chat.end, &t->config);
    t->length = c->max_length < t->config.max_position ? c->max_length : t->config.max_position;
fail:
    return rc;
}

static int alloc(Chat *t, bool planning)
{
    int rc = 0;
    if (planning) {
        arena_init(&t->weights, t->dev, ARENA_DEVICE, "weights");
        arena_init(&t->work, t->dev, ARENA_DEVICE, "activations and KV cache");
        arena_init(&t->host, t->dev, ARENA_HOST, "host");
        memory_plan_add(&t->plan, &t->weights);
        memory_plan_add(&t->plan, &t->work);
        memory_plan_add(&t->plan, &t->host);
    }
    TRY(model_init(&t->model, &t->config, (DType)t->c->dtype, t->dev, &t->weights, t->length));
    params_alloc(&t->params, &t->model.table, &t->weights, "model", true);
    if (!t->gen)
        t->gen = generator_new(&t->model, 1, t->length, t->length);
    generator_alloc(t->gen, &t->work, &t->host);
fail:
    return rc;
}

static int run(Chat *t, bool dry_run)
{
    int rc = 0;
    TRY(open_inputs(t));
    TRY(alloc(t, true));
    if (dry_run) {
        memory_plan_print(&t->plan);
        return 0;
    }
    TRY(memory_plan_commit(&t->plan, "max_length"));
    TRY(alloc(t, false));
    TRY(hf_load_params(&t->params, t->c->model, HEAD_AS_STORED, 0));
    t->terminal = isatty(STDIN_FILENO);
    struct sigaction act = {.sa_handler = on_interrupt}; /* no SA_RESTART: getline comes back */
    sigemptyset(&act.sa_mask);
    sigaction(SIGINT, &act, NULL);
    if (t->terminal)
        printf("%s on %s. /reset, /system TEXT, /exit.\n", t->c->model, device_text(t->dev));
    TRY(converse(t));
fail:
    return rc;
}

static void chat_free(Chat *t)
{
    unsay_from(t, 0, t->n_said);
    free(t->said);
    id_list_free(&t->answer);
    str_free(&t->text);
    generator_free(t->gen);
    params_free(&t->params);
    model_free(&t->model);
    tokenizer_close(t->tok);
    arena_free(&t->weights);
    arena_free(&t->work);
    arena_free(&t->host);
    device_close(t->dev);
}

int chat_main(int argc, char **argv)
{
    Cli cli = {0};
    Chat t = {0};
    log_init(0);
    int rc = cli_parse(&cli, &spec, argc, argv);
    if (rc == 0) {
        t.c = config_data(cli.config);
        t.dtype_where = config_where(cli.config, "dtype");
        rc = run(&t, cli.dry_run);
    }
    int code = rc < 0 ? cli_fail(spec.program, rc) : 0;
    chat_free(&t);
    cli_free(&cli);
    return code;
}
