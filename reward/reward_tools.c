/* reward_tools.c - see reward_tools.h. Tested by tests/e2e/test_reward.sh. */
#include "reward/reward_tools.h"

#include "common/base/error.h"
#include "common/base/log.h"

int64_t tool_default_length(const ModelConfig *c)
{
    return c->max_position < 4096 ? c->max_position : 4096;
}

int tool_resolve_max_length(ToolConfig *c, const char *folder)
{
    ModelConfig config;
    if (c->max_length)
        return 0;
    int rc = model_config_read(&config, folder);
    if (rc == 0)
        c->max_length = tool_default_length(&config);
    return rc;
}

int tool_open_device(Device **dev, const ToolConfig *c, bool dry_run)
{
    DeviceOptions o = {c->device, (int)c->threads, (CpuIsa)c->isa};
    int rc = dry_run ? device_open_to_plan(dev, &o) : device_open(dev, &o);
    return rc < 0 ? rc : device_check_dtype(*dev, (DType)c->dtype, config_where(c->config, "dtype"));
}

int tool_load(LoadedModel *l, const char *folder, const Tokenizer *tok, Device *dev, const ToolConfig *c, bool dry_run)
{
    const int length = (int)c->max_length;
    const int tokens = c->micro_batch_tokens > length ? (int)c->micro_batch_tokens : length;
    int rc = 0;
    TRY(reward_model_open(&l->rm, folder, dev, tokenizer_hash(tok)));
    arena_init(&l->weights, dev, ARENA_DEVICE, "weights");
    arena_init(&l->work, dev, ARENA_DEVICE, "activations");
    memory_plan_add(&l->plan, &l->weights);
    memory_plan_add(&l->plan, &l->work);
    TRY(reward_model_alloc(&l->rm, &l->weights, &l->work, tokens, length, false, (DType)c->dtype));
    if (c->plan) {
        run_plan_memory(c->plan, &l->plan);
        c->plan->micro_batch_tokens = tokens;
    }
    if (dry_run) {
        memory_plan_print(&l->plan);
        return 0;
    }
    TRY(memory_plan_commit(&l->plan, "micro_batch_tokens, max_length"));
    TRY(reward_model_alloc(&l->rm, &l->weights, &l->work, tokens, length, false, (DType)c->dtype));
    TRY(reward_model_load(&l->rm));
fail:
    return rc;
}

void tool_unload(LoadedModel *l)
{
    reward_model_free(&l->rm);
    arena_free(&l->weights);
    arena_free(&l->work);
}

void tool_plan(const ToolConfig *c, const CliSpec *spec, const char *out, const Device *dev)
{
    if (c->plan)
        run_plan_setting(c->plan, spec->program, out, dev, c->device, c->threads, c->isa, c->dtype);
}

void tool_plan_scores(const ToolConfig *c, const char *model, double tokens, double n)
{
    Work w = {.kind = WORK_FORWARD, .model = (char *)model, .scalar = true, .tokens = tokens, .sequences = n};
    if (c->plan)
        run_plan_work(c->plan, &w);
}

int tool_main(const CliSpec *spec, int (*run)(void *, bool), int argc, char **argv)
{
    Cli cli = {0};
    RunPlan plan = {.steps = 1};
    log_init(0);
    int rc = cli_parse(&cli, spec, argc, argv);
    if (rc == 0) {
        ToolConfig *c = config_data(cli.config);
        c->config = cli.config;
        c->plan = cli.plan ? &plan : NULL;
        rc = run(c, cli.dry_run);
        if (rc == 0 && cli.plan)
            rc = run_plan_write(&plan, cli.plan);
    }
    int code = rc < 0 ? cli_fail(spec->program, rc) : 0;
    run_plan_free(&plan);
    cli_free(&cli);
    return code;
}
