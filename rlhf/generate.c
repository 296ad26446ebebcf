/* generate.c - `rlhf generate`: answers to prompts, as text or as samples.jsonl.
 *
 * Prompts come from a record file or from the command line (--prompt). --raw skips the chat template: BOS
 * and the text alone, for base models. With `reference` every sampled answer also gets its log-probability
 * under that model and the KL estimate. Tested by tests/e2e/test_generate.sh. */
#include "rlhf/rlhf.h"

#include "common/base/cli.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/progress.h"
#include "common/base/stream.h"
#include "common/generate/generate.h"
#include "common/generate/logp.h"
#include "common/generate/samples.h"
#include "common/model/hf.h"
#include "common/runtime/device.h"
#include "common/train/run_plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *model, *reference, *prompts_path, *prompt, *out, *device;
    bool raw;
    int template_kind, on_bad_row, on_long, isa, dtype;
    double temperature;
    int64_t samples, max_prompt_length, max_new_tokens, seed, round, slots, micro_batch_tokens, threads;
} GenerateConfig;

#define AT(m) offsetof(GenerateConfig, m)

static const CfgField fields[] = {
    {"model", CFG_STRING, AT(model), .flags = CFG_REQUIRED, .help = "Hugging Face folder of a causal model"},
    {"reference", CFG_STRING, AT(reference), "", .help = "also log-probabilities under this model, and the KL"},
    {"data.prompts", CFG_STRING, AT(prompts_path), "", .help = "prompt records; or use prompt"},
    {"prompt", CFG_STRING, AT(prompt), "", .help = "one prompt from the command line"},
    {"out", CFG_STRING, AT(out), "", .flags = CFG_NO_RESULT, .help = "samples.jsonl to write; empty = text on stdout"},
    {"raw", CFG_BOOL, AT(raw), "false", .help = "no chat template: BOS and the text"},
    {"template", CFG_ENUM, AT(template_kind), "auto", .choices = TEMPLATE_CHOICES, .help = "chat template; auto = the model's own"},
    {"data.on_bad_row", CFG_ENUM, AT(on_bad_row), "error", .choices = "error|skip", .help = "what a malformed record does"},
    {"data.on_long", CFG_ENUM, AT(on_long), "drop", .choices = "drop|truncate_left|error", .help = "prompts longer than max_prompt_length"},
    {"temperature", CFG_FLOAT, AT(temperature), "1.0", 0, 100, .help = "0 = greedy"},
    {"samples", CFG_INT, AT(samples), "1", 1, 1e6, .help = "answers per prompt"},
    {"max_prompt_length", CFG_INT, AT(max_prompt_length), "512", 1, 1e6, .help = "tokens"},
    {"max_new_tokens", CFG_INT, AT(max_new_tokens), "256", 1, 1e6, .help = "tokens of an answer"},
    {"seed", CFG_INT, AT(seed), "1", 0, 9e15, .help = "same seed, same answers"},
    {"round", CFG_INT, AT(round), "0", 0, 4e9, .help = "another round, other draws under the same seed"},
    {"slots", CFG_INT, AT(slots), "64", 1, 1e5, .flags = CFG_NO_RESULT, .help = "answers decoded at a time; never changes one"},
    {"micro_batch_tokens", CFG_INT, AT(micro_batch_tokens), "4096", 1, 1e8, .flags = CFG_NO_RESULT, .help = "tokens per forward; never changes an answer"},
    {"device", CFG_STRING, AT(device), "auto", .flags = CFG_NO_RESULT, .help = "auto, cpu, cuda or cuda:N"},
    {"threads", CFG_INT, AT(threads), "0", 0, 1024, .flags = CFG_NO_RESULT, .help = "CPU threads; 0 = all"},
    {"isa", CFG_ENUM, AT(isa), "auto", .choices = "auto|plain|avx2|avx512|avx512bf16", .flags = CFG_NO_RESULT, .help = "CPU bodies; never changes a result"},
    DTYPE_FIELD(GenerateConfig, dtype),
    {0},
};

static const CliOption options[] = {
    {"--model", "DIR", "model", "same as --set model=DIR"},
    {"--prompt", "TEXT", "prompt", "one prompt from the command line"},
    {"--raw", NULL, "raw", "no chat template: BOS and the text"},
    {"--out", "FILE", "out", "write samples.jsonl instead of text"},
    {0},
};

static const CliSpec spec = {
    .program = "rlhf generate",
    .summary = "answer prompts with a model",
    .examples = "  rlhf generate --model runs/ppo/export --prompt 'how to wash the car' temperature=0\n"
                "  rlhf generate --model M data.prompts=p.jsonl samples=4 --out samples.jsonl\n",
    .fields = fields,
    .config_bytes = sizeof(GenerateConfig),
    .options = options,
    .plans = true,
};

typedef struct {
    const GenerateConfig *c;
    const char *dtype_where; /* file:line of key dtype */
    Device *dev;
    Tokenizer *tok;
    ChatTemplate chat;
    RecordSet records;
    ExampleSet prompts;
    ModelConfig config;
    Model model;
    ParamSet policy, reference;
    Generator *gen;
    LogpWork logp;
    Arena weights, work, host;
    MemoryPlan plan;
    int32_t stop[MODEL_MAX_EOS + 1];
    int n_stop;
    int64_t longest; /* tokens of the longest prompt and max_new_tokens: the positions that are needed */
} Generate;

/* --prompt as a record; --raw as plain ids. */
static int read_prompts(Generate *g)
{
    const GenerateConfig *c = g->c;
    int rc = 0;
    Json *j = NULL;
    Str line = {0};
    if (!c->prompts_path[0] == !c->prompt[0])
        return error_set(ERR_USAGE, "give either data.prompts=FILE or --prompt TEXT");
    if (c->prompts_path[0]) {
        TRY(record_set_read(&g->records, c->prompts_path, RECORD_PROMPT, (BadRow)c->on_bad_row));
    } else {
        JsonWriter w;
        jw_init(&w, &line, false);
        jw_object(&w);
        jw_kstr(&w, "prompt", c->prompt);
        jw_object_end(&w);
        TRY(json_parse(&j, str_get(&line), line.n, "--prompt", 1));
        int64_t i = VEC_GROW(g->records.at, g->records.n, g->records.cap);
        TRY(record_parse(&g->records.at[i], j, RECORD_PROMPT, "--prompt", 1));
    }
    if (!c->raw) {
        TRY(example_set_make(&g->prompts, &g->records, 0, &g->chat, (int)c->max_prompt_length,
                             (OnLong)c->on_long, (BadRow)c->on_bad_row));
        goto fail;
    }
    for (int64_t i = 0; i < g->records.n; i++) {
        const Message *m = &g->records.at[i].messages[g->records.at[i].n_messages - 1];
        IdList ids = {0};
        if (tokenizer_bos(g->tok) >= 0)
            id_list_add(&ids, tokenizer_bos(g->tok));
        TRY(tokenizer_encode(g->tok, m->text, m->n, true, &ids));
        if (ids.n > c->max_prompt_length) {
            rc = error_set(ERR_DATA, "prompt %lld: %d tokens, max_prompt_length is %lld; raise it",
                           (long long)i + 1, ids.n, (long long)c->max_prompt_length);
            id_list_free(&ids);
            goto fail;
        }
        int64_t at = VEC_GROW(g->prompts.at, g->prompts.n, g->prompts.cap);
        g->prompts.at[at] = (Example){.ids = ids.at, .n = ids.n, .n_prompt = ids.n, .record = i};
    }
fail:
    str_free(&line);
    json_free(j);
    return rc;
}

static int open_inputs(Generate *g, bool dry_run)
{
    const GenerateConfig *c = g->c;
    int rc = 0;
    DeviceOptions o = {c->device, (int)c->threads, (CpuIsa)c->isa};
    TRY(dry_run ? device_open_to_plan(&g->dev, &o) : device_open(&g->dev, &o));
    TRY(device_check_dtype(g->dev, (DType)c->dtype, g->dtype_where));
    TRY(tokenizer_open(&g->tok, c->model));
    TRY(hf_read_causal(&g->config, c->model, g->tok, ""));
    if (!c->raw)
        TRY(template_init(&g->chat, (TemplateKind)c->template_kind, g->tok));
    g->n_stop = generate_stop_ids(g->stop, c->raw ? -1 : g->chat.end, &g->config);
    TRY(read_prompts(g));
    for (int64_t i = 0; i < g->prompts.n; i++)
        g->longest = g->prompts.at[i].n > g->longest ? g->prompts.at[i].n : g->longest;
    if (g->longest + c->max_new_tokens > g->config.max_position)
        rc = error_set(ERR_DATA, "a prompt of %lld tokens and max_new_tokens %lld are more than "
                                 "max_position_embeddings %lld of the model; lower max_new_tokens or "
                                 "max_prompt_length",
                       (long long)g->longest, (long long)c->max_new_tokens, (long long)g->config.max_position);
    g->longest += c->max_new_tokens;
fail:
    return rc;
}

static int alloc(Generate *g, bool planning)
{
    const GenerateConfig *c = g->c;
    int64_t longest = g->longest;
    int64_t tokens = c->micro_batch_tokens > longest ? c->micro_batch_tokens : longest;
    int rc = 0;
    if (planning) {
        arena_init(&g->weights, g->dev, ARENA_DEVICE, "weights");
        arena_init(&g->work, g->dev, ARENA_DEVICE, "activations and KV cache");
        arena_init(&g->host, g->dev, ARENA_HOST, "host");
        memory_plan_add(&g->plan, &g->weights);
        memory_plan_add(&g->plan, &g->work);
        memory_plan_add(&g->plan, &g->host);
    }
    TRY(model_init(&g->model, &g->config, (DType)c->dtype, g->dev, &g->weights, longest));
    params_alloc(&g->policy, &g->model.table, &g->weights, "model", true);
    if (!g->gen)
        g->gen = generator_new(&g->model, c->slots, longest, tokens);
    ArenaShare share = arena_share(&g->work);
    arena_share_part(&share, "answers");
    generator_alloc(g->gen, &g->work, &g->host);
    if (c->reference[0]) {
        params_alloc(&g->reference, &g->model.table, &g->weights, "reference", true);
        arena_share_part(&share, "reference");
        logp_alloc(&g->logp, &g->model, &g->work, &g->host, tokens);
    }
    arena_share_end(&share);
    if (planning)
        memory_plan_note_share(&g->plan, &share);
fail:
    return rc;
}

static void progress(void *ctx, int64_t done)
{
    progress_update(ctx, done, NULL);
}

static double sum(const float *x, int n)
{
    double s = 0;
    for (int i = 0; i < n; i++)
        s += (double)x[i];
    return s;
}

/* ref[i]: log-probabilities of answer i under the reference. */
static void reference_logp(Generate *g, const GenRequest *req, const GenResult *res, int64_t n, double *ref)
{
    int64_t longest = g->longest;
    LogpItem *items = xcalloc((size_t)n, sizeof *items);
    int32_t *ids = xmalloc((size_t)(n * longest) * sizeof *ids);
    float *out = xmalloc((size_t)(n * g->c->max_new_tokens) * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        int32_t *at = ids + i * longest;
        memcpy(at, req[i].prompt, (size_t)req[i].n_prompt * sizeof *at);
        memcpy(at + req[i].n_prompt, res[i].ids, (size_t)res[i].n * sizeof *at);
        items[i] = (LogpItem){at, req[i].n_prompt + res[i].n, req[i].n_prompt,
                              out + i * g->c->max_new_tokens};
    }
    logp_run(&g->logp, &g->model, &g->reference, items, n, g->c->temperature > 0 ? g->c->temperature : 1);
    for (int64_t i = 0; i < n; i++)
        ref[i] = sum(items[i].logp, res[i].n);
    free(items);
    free(ids);
    free(out);
}

static int answer_text(Generate *g, const GenResult *r, Str *text)
{
    str_clear(text);
    return g->c->raw ? tokenizer_decode(g->tok, r->ids, r->n, true, text)
                     : template_answer_text(&g->chat, r->ids, r->n, text);
}

/* Prompt and answer decoded as one text, so that the space between them is the model's own. */
static int raw_text(Generate *g, const Example *prompt, const GenResult *r, Str *text)
{
    IdList ids = {0};
    id_list_add_all(&ids, prompt->ids, prompt->n);
    id_list_add_all(&ids, r->ids, r->n);
    str_clear(text);
    int rc = tokenizer_decode(g->tok, ids.at, ids.n, true, text);
    id_list_free(&ids);
    return rc;
}

static int write_results(Generate *g, const GenResult *res, const double *ref)
{
    const GenerateConfig *c = g->c;
    Writer *w = NULL;
    Str text = {0}, line = {0};
    int rc = 0;
    if (c->out[0]) {
        TRY(dir_make_parent(c->out));
        TRY(writer_open(&w, c->out));
    }
    for (int64_t i = 0; i < g->prompts.n * c->samples; i++) {
        const Example *prompt = &g->prompts.at[i / c->samples];
        const Record *rec = &g->records.at[prompt->record];
        TRY(c->raw && !w ? raw_text(g, prompt, &res[i], &text) : answer_text(g, &res[i], &text));
        if (!w) {
            printf("%s\n", str_get(&text));
            continue;
        }
        Sample s = {.record = rec, .sample = (int)(i % c->samples), .temperature = c->temperature,
                    .answer = str_get(&text), .finished = res[i].finished, .tokens = res[i].n,
                    .logp = sum(res[i].logp, res[i].n), .ref_logp = ref ? ref[i] : NAN, .helpful = NAN,
                    .safety = NAN, .selected = -1};
        str_clear(&line);
        sample_write(&s, &line);
        TRY(writer_write(w, str_get(&line), line.n));
    }
    if (w) {
        rc = writer_close(w);
        w = NULL;
    }
fail:
    writer_abort(w);
    str_free(&text);
    str_free(&line);
    return rc;
}

static int answer_all(Generate *g)
{
    const GenerateConfig *c = g->c;
    int64_t n = g->prompts.n * c->samples, M = c->max_new_tokens;
    GenRequest *req = xcalloc((size_t)n, sizeof *req);
    GenResult *res = xcalloc((size_t)n, sizeof *res);
    int32_t *ids = xmalloc((size_t)(n * M) * sizeof *ids);
    float *logp = xmalloc((size_t)(n * M) * sizeof *logp);
    double *ref = c->reference[0] ? xcalloc((size_t)n, sizeof *ref) : NULL;
    Progress p;
    int rc = 0;
    for (int64_t i = 0; i < n; i++) {
        const Example *e = &g->prompts.at[i / c->samples];
        req[i] = (GenRequest){e->ids, e->n, g->records.at[e->record].id, (uint32_t)(i % c->samples), 0};
        res[i] = (GenResult){.ids = ids + i * M, .logp = logp + i * M};
    }
    GenOptions o = {.seed = (uint64_t)c->seed, .round = (uint32_t)c->round, .temperature = c->temperature,
                    .max_new_tokens = (int)M, .stop = g->stop, .n_stop = g->n_stop};
    progress_init(&p, "generate", "answers", 0, n);
    TRY(generate(g->gen, &g->policy, req, n, &o, res, NULL, c->out[0] ? progress : NULL, &p));
    progress_done(&p);
    if (ref)
        reference_logp(g, req, res, n, ref);
    TRY(write_results(g, res, ref));
    if (c->out[0])
        log_info("%lld answers to %lld prompts in %s", (long long)n, (long long)g->prompts.n, c->out);
fail:
    free(req);
    free(res);
    free(ids);
    free(logp);
    free(ref);
    return rc;
}

/* For --plan: prompts through the model once, answers token by token, all of it through the reference. */
static int write_plan(const Generate *g, const char *path)
{
    const GenerateConfig *c = g->c;
    double prompts = (double)g->prompts.n, tokens = 0, answers = prompts * (double)c->samples;
    RunPlan p = {.micro_batch_tokens = (double)c->micro_batch_tokens, .steps = 1};
    for (int64_t i = 0; i < g->prompts.n; i++)
        tokens += g->prompts.at[i].n;
    run_plan_setting(&p, spec.program, c->out, g->dev, c->device, c->threads, c->isa, c->dtype);
    run_plan_memory(&p, &g->plan);
    Work w = {.kind = WORK_DECODE, .model = (char *)c->model, .tokens = tokens, .sequences = prompts,
              .answers = answers, .max_new = (double)c->max_new_tokens, .calls = 1, .slots = (double)c->slots};
    run_plan_work(&p, &w);
    if (c->reference[0]) {
        w = (Work){.kind = WORK_FORWARD, .model = (char *)c->reference, .tokens = tokens * (double)c->samples,
                   .sequences = answers, .answers = answers, .max_new = (double)c->max_new_tokens};
        run_plan_work(&p, &w);
    }
    if (c->out[0]) {
        MadeData d = {.records = answers, .prompt_tokens = prompts > 0 ? tokens / prompts : 0,
                      .max_new = (double)c->max_new_tokens};
        run_plan_data(&p, c->out, &d);
    }
    int rc = run_plan_write(&p, path);
    run_plan_free(&p);
    return rc;
}

static int run(Generate *g, bool dry_run, const char *plan)
{
    int rc = 0;
    TRY(open_inputs(g, dry_run));
    TRY(alloc(g, true));
    if (plan)
        TRY(write_plan(g, plan));
    if (dry_run) {
        memory_plan_print(&g->plan);
        return 0;
    }
    TRY(memory_plan_commit(&g->plan, "slots, micro_batch_tokens, max_new_tokens"));
    TRY(alloc(g, false));
    TRY(hf_load_params(&g->policy, g->c->model, HEAD_AS_STORED, 0));
    if (g->c->reference[0])
        TRY(hf_load_params(&g->reference, g->c->reference, HEAD_AS_STORED, 0));
    TRY(answer_all(g));
fail:
    return rc;
}

static void generate_free(Generate *g)
{
    logp_free(&g->logp);
    generator_free(g->gen);
    params_free(&g->policy);
    params_free(&g->reference);
    model_free(&g->model);
    example_set_free(&g->prompts);
    record_set_free(&g->records);
    tokenizer_close(g->tok);
    arena_free(&g->weights);
    arena_free(&g->work);
    arena_free(&g->host);
    device_close(g->dev);
}

int generate_main(int argc, char **argv)
{
    Cli cli = {0};
    Generate g = {0};
    log_init(0);
    int rc = cli_parse(&cli, &spec, argc, argv);
    if (rc == 0) {
        g.c = config_data(cli.config);
        g.dtype_where = config_where(cli.config, "dtype");
        rc = run(&g, cli.dry_run, cli.plan);
    }
    int code = rc < 0 ? cli_fail(spec.program, rc) : 0;
    generate_free(&g);
    cli_free(&cli);
    return code;
}
