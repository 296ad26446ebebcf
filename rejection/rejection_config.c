/* rejection_config.c - the table behind rejection_config.h. */
#include "rejection/rejection_config.h"

#include "common/text/template.h"

#define AT(m) offsetof(RejectionConfig, m)

const CfgField rejection_fields[] = {
    RUN_FIELDS(RejectionConfig),
    {"model", CFG_STRING, AT(model), .flags = CFG_REQUIRED, .help = "policy that answers"},
    {"reward.helpful", CFG_STRING, AT(reward_helpful), .flags = CFG_REQUIRED,
     .help = "helpfulness reward model"},
    {"reward.safety", CFG_STRING, AT(reward_safety), "",
     .help = "safety reward model; empty = helpfulness alone decides"},
    {"reward.allow_unanchored", CFG_BOOL, AT(allow_unanchored), "false",
     .help = "accept a safety model trained without the classification loss"},
    {"template", CFG_ENUM, AT(template_kind), "auto", .choices = TEMPLATE_CHOICES,
     .help = "chat template; auto = the model's own"},
    {"data.prompts", CFG_STRING, AT(prompts_path), .flags = CFG_REQUIRED, .help = "prompt records"},
    {"data.on_bad_row", CFG_ENUM, AT(on_bad_row), "error", .choices = "error|skip",
     .help = "what a malformed record does"},
    {"data.on_long", CFG_ENUM, AT(on_long), "drop", .choices = "drop|truncate_left|error",
     .help = "prompts longer than max_prompt_length"},
    {"max_prompt_length", CFG_INT, AT(max_prompt_length), "1024", 1, 1e6, .help = "tokens"},
    {"max_new_tokens", CFG_INT, AT(max_new_tokens), "512", 1, 1e6, .help = "tokens of an answer"},
    {"k", CFG_INT, AT(k), "16", 0, 1e5,
     .help = "answers per prompt and temperature; 0 = choose among the pools' answers alone"},
    {"temperatures", CFG_FLOATS, AT(temperatures), "[1.0]", 1e-3, 100,
     .help = "k answers at each; all compete; curves.json compares them"},
    {"pools", CFG_STRINGS, AT(pools),
     .help = "samples.jsonl (or selected.jsonl) of earlier rounds: their finished answers to the same "
             "prompts are scored anew and compete"},
    {"switch.threshold", CFG_FLOAT, AT(threshold), "0.15", 1e-6, 0.999999,
     .help = "sigmoid of the safety score under which an answer counts as unsafe"},
    {"select.all_unsafe", CFG_ENUM, AT(all_unsafe), "safest", .choices = "safest|drop",
     .help = "an untagged prompt without a safe answer: keep the safest, or drop the prompt"},
    {"select.mode", CFG_ENUM, AT(select_mode), "best", .choices = "best|random",
     .help = "random: a control at equal budget, ignores the scores"},
    {"block_prompts", CFG_INT, AT(block_prompts), "64", 1, 1e6,
     .help = "prompts per step and part file; never changes an answer, but a run keeps its own"},
    {"slots", CFG_INT, AT(slots), "64", 1, 1e5, .flags = CFG_NO_RESULT,
     .help = "answers decoded at a time; never changes a result"},
    {"micro_batch_tokens", CFG_INT, AT(micro_batch_tokens), "4096", 1, 1e8, .flags = CFG_NO_RESULT,
     .help = "tokens per forward; never changes a result"},
    {0},
};
