/* ppo_config.c - the table behind ppo_config.h. Names are TRL's where the meaning is the same. */
#include "ppo/ppo_config.h"

#include "common/base/error.h"

#define AT(m) offsetof(PpoConfig, m)

const CfgField ppo_fields[] = {
    RUN_FIELDS(PpoConfig),
    {"model", CFG_STRING, AT(model), .flags = CFG_REQUIRED,
     .help = "policy to start from: a Hugging Face folder"},
    {"reference", CFG_STRING, AT(reference), "",
     .help = "policy of the KL penalty; empty = the starting policy"},
    {"reward.helpful", CFG_STRING, AT(reward_helpful), .flags = CFG_REQUIRED,
     .help = "helpfulness reward model"},
    {"reward.safety", CFG_STRING, AT(reward_safety), "",
     .help = "safety reward model; empty = none, every answer is scored by the helpful one"},
    {"reward.allow_unanchored", CFG_BOOL, AT(allow_unanchored), "false",
     .help = "accept a safety model trained without the classification loss: its 0.15 means nothing"},
    {"switch.enabled", CFG_BOOL, AT(switch_on), "true",
     .help = "safety model on tagged prompts and below the threshold"},
    {"switch.threshold", CFG_FLOAT, AT(switch_threshold), "0.15", 1e-6, 0.999999,
     .help = "sigmoid of the safety score under which the safety model speaks"},
    {"template", CFG_ENUM, AT(template_kind), "auto", .choices = "auto|llama2|chatml|plain",
     .help = "chat template; auto = the model's own"},
    {"data.train", CFG_STRING, AT(train_path), .flags = CFG_REQUIRED, .help = "prompt records"},
    {"data.eval", CFG_STRING, AT(eval_path), "", .help = "held-out prompts for early stopping"},
    {"data.on_bad_row", CFG_ENUM, AT(on_bad_row), "error", .choices = "error|skip",
     .help = "what a malformed record does"},
    {"data.on_long", CFG_ENUM, AT(on_long), "drop", .choices = "drop|truncate_left|error",
     .help = "prompts longer than max_prompt_length"},
    {"max_prompt_length", CFG_INT, AT(max_prompt_length), "1024", 1, 1e6, .help = "tokens"},
    {"max_new_tokens", CFG_INT, AT(max_new_tokens), "512", 1, 1e6, .help = "tokens of an answer"},
    {"temperature", CFG_FLOAT, AT(temperature), "1.0", 1e-3, 100,
     .help = "of the rollouts; divides the logits of policy and reference alike"},
    {"batch_size", CFG_INT, AT(batch_size), "512", 1, 1e6, .help = "answers per iteration"},
    {"minibatch_size", CFG_INT, AT(minibatch_size), "64", 1, 1e6,
     .help = "answers per gradient step; divides batch_size"},
    {"iterations", CFG_INT, AT(iterations), "200", 1, 1e9, .help = "rollouts of batch_size answers"},
    {"micro_batch_tokens", CFG_INT, AT(micro_batch_tokens), "4096", 1, 1e8,
     .flags = CFG_NO_RESULT, .help = "tokens per forward and backward; never changes a result"},
    {"slots", CFG_INT, AT(slots), "64", 1, 1e5, .flags = CFG_NO_RESULT,
     .help = "answers decoded at a time; never changes a result"},
    {"kl_coef", CFG_FLOAT, AT(kl_coef), "0.01", 0, 100, .help = "beta, per token, k1"},
    {"gamma", CFG_FLOAT, AT(gamma), "1.0", 0, 1, .help = "discount"},
    {"lam", CFG_FLOAT, AT(lam), "0.95", 0, 1, .help = "lambda of the advantage estimate"},
    {"cliprange", CFG_FLOAT, AT(clip), "0.2", 1e-6, 10, .help = "of the policy ratio"},
    {"cliprange_value", CFG_FLOAT, AT(clip_value), "0.2", 0, 1e6,
     .help = "of the value around the old one; 0 = off"},
    {"whiten_scores", CFG_BOOL, AT(whiten_scores), "true",
     .help = "whiten final scores over the batch, before the KL penalty"},
    {"whiten_advantages", CFG_BOOL, AT(whiten_advantages), "true",
     .help = "whiten advantages over the whole batch"},
    OPTIM_FIELDS(PpoConfig, policy, "optim", "1e-6", "constant", "1e-5"),
    {"critic.model", CFG_STRING, AT(critic_model), "",
     .help = "start of the value model; empty = reward.helpful"},
    {"critic.refit", CFG_BOOL, AT(critic_refit), "true",
     .help = "refit the value head to the first rollout's returns (ridge regression)"},
    {"critic.ridge", CFG_FLOAT, AT(critic_ridge), "1.0", 0, 1e9, .help = "ridge of that fit"},
    {"critic.warmup_iterations", CFG_INT, AT(critic_warmup), "0", 0, 1e6,
     .help = "first iterations that train the critic alone"},
    OPTIM_FIELDS(PpoConfig, critic, "critic.optim", "2e-6", "constant", "1e-5"),
    {"eval.iterations", CFG_INT, AT(eval_iterations), "10", 1, 1e9,
     .help = "iterations between evaluations on data.eval"},
    {"eval.prompts", CFG_INT, AT(eval_prompts), "256", 1, 1e9, .help = "first so many of data.eval"},
    {"eval.patience", CFG_INT, AT(patience), "0", 0, 1e9,
     .help = "stop after so many evaluations without a better score - beta KL; 0 = never"},
    {"eval.kl_max", CFG_FLOAT, AT(kl_max), "0", 0, 1e9,
     .help = "stop when the mean sequence KL of a rollout exceeds this (nats); 0 = never"},
    {"dump.dir", CFG_STRING, AT(dump_dir), "", .flags = CFG_NO_RESULT,
     .help = "write one iteration (inputs, every intermediate, weights) to this folder"},
    {"dump.iteration", CFG_INT, AT(dump_iteration), "0", 0, 1e9, .flags = CFG_NO_RESULT,
     .help = "which one"},
    {0},
};

const CliOption ppo_options[] = {
    {"--dump-iteration", "DIR", "dump.dir",
     "write iteration dump.iteration (0) with all intermediates to DIR"},
    {0},
};

int ppo_config_check(const PpoConfig *c, const Config *where)
{
    if (c->batch_size % c->minibatch_size)
        return error_set(ERR_CONFIG,
                         "%s: minibatch_size: %lld does not divide batch_size %lld; choose a divisor",
                         config_where(where, "minibatch_size"), (long long)c->minibatch_size,
                         (long long)c->batch_size);
    if (c->max_prompt_length + c->max_new_tokens > c->micro_batch_tokens)
        return error_set(ERR_CONFIG,
                         "%s: micro_batch_tokens: %lld cannot hold one sequence of "
                         "max_prompt_length + max_new_tokens = %lld; raise it or lower those",
                         config_where(where, "micro_batch_tokens"),
                         (long long)c->micro_batch_tokens,
                         (long long)(c->max_prompt_length + c->max_new_tokens));
    if (c->switch_on && !c->reward_safety[0])
        return error_set(ERR_CONFIG,
                         "%s: reward.safety: not given, but switch.enabled is true; name a safety "
                         "model or set switch.enabled: false",
                         config_where(where, "reward.safety"));
    return 0;
}
