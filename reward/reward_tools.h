/* reward_tools.h - what `rlhf-reward eval` and `rlhf-reward score` share: their common keys, and a reward model
 * loaded for scoring. */
#ifndef RLHF_REWARD_TOOLS_H
#define RLHF_REWARD_TOOLS_H

#include "common/base/cli.h"
#include "common/runtime/device.h"
#include "common/train/run_plan.h"
#include "reward/reward_model.h"

/* First member, `tool`, of a tool's config struct. */
typedef struct {
    int template_kind, on_bad_row, isa, dtype;
    int64_t max_length, micro_batch_tokens, threads;
    const char *device;
    /* set by tool_main */
    const Config *config; /* for config_where */
    RunPlan *plan;        /* of --plan; NULL = none */
} ToolConfig;

#define TOOL_AT(S, m) offsetof(S, tool.m)
#define TOOL_FIELDS(S)                                                                               \
    {"template", CFG_ENUM, TOOL_AT(S, template_kind), "auto", .choices = TEMPLATE_CHOICES, .help = "chat template; auto = the model's own"}, \
    {"max_length", CFG_INT, TOOL_AT(S, max_length), "0", 0, 1e9, .help = "tokens of prompt and answer; 0 = what the model takes, at most 4096"}, \
    {"micro_batch_tokens", CFG_INT, TOOL_AT(S, micro_batch_tokens), "8192", 2, 1e9, .flags = CFG_NO_RESULT, .help = "tokens per forward; never changes a score"}, \
    {"device", CFG_STRING, TOOL_AT(S, device), "auto", .flags = CFG_NO_RESULT, .help = "auto, cpu, cuda or cuda:N"}, \
    {"threads", CFG_INT, TOOL_AT(S, threads), "0", 0, 1024, .flags = CFG_NO_RESULT, .help = "CPU threads; 0 = all"}, \
    {"isa", CFG_ENUM, TOOL_AT(S, isa), "auto", .choices = "auto|plain|avx2|avx512|avx512bf16", .flags = CFG_NO_RESULT, .help = "CPU bodies; never changes a result"}, \
    DTYPE_FIELD(S, tool.dtype)

/* max_length: 0 becomes what the model in the folder was made for: a tool has no reason to ask for more, and one
 * number cannot be right for every model. */
int tool_resolve_max_length(ToolConfig *c, const char *folder);
int64_t tool_default_length(const ModelConfig *c); /* that number: what it was made for, at most 4096 */
int tool_open_device(Device **dev, const ToolConfig *c, bool dry_run);
/* Command line, config, run(config struct, dry_run), exit code. */
int tool_main(const CliSpec *spec, int (*run)(void *config, bool dry_run), int argc, char **argv);

/* A model with its arenas, ready to score; zeroed before tool_load, which it may fail. dry_run: prints the memory
 * plan and loads nothing. */
typedef struct {
    RewardModel rm;
    Arena weights, work;
    MemoryPlan plan;
} LoadedModel;

int tool_load(LoadedModel *l, const char *folder, const Tokenizer *tok, Device *dev, const ToolConfig *c, bool dry_run);
void tool_unload(LoadedModel *l);

/* These say for --plan, if it is asked for: where results go; that a reward model runs over n sequences. */
void tool_plan(const ToolConfig *c, const CliSpec *spec, const char *out, const Device *dev);
void tool_plan_scores(const ToolConfig *c, const char *model, double tokens, double n);

#endif
