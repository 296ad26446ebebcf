/* ppo_config.c - the table behind ppo_config.h. Names are TRL's where the meaning is the same. */
#include "ppo/ppo_config.h"

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/model/llama.h"
#include "common/text/template.h"

#include <string.h>

#define AT(m) offsetof(PpoConfig, m)

const CfgField ppo_fields[] = {
    RUN_FIELDS(PpoConfig),
    UNIT_FIELDS(PpoConfig),
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
    {"reward.normalize", CFG_ENUM, AT(normalize), "none", .choices = "none|per_model",
     .help = "per_model: each model's scores minus their mean, over their standard deviation, both measured once "
             "on the finished answers of the first rollout"},
    {"switch.enabled", CFG_BOOL, AT(switch_on), "true",
     .help = "safety model on tagged prompts and below the threshold"},
    {"switch.threshold", CFG_FLOAT, AT(switch_threshold), "0.15", 1e-6, 0.999999,
     .help = "sigmoid of the safety score under which the safety model speaks"},
    {"template", CFG_ENUM, AT(template_kind), "auto", .choices = TEMPLATE_CHOICES,
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
    {"samples_per_prompt", CFG_INT, AT(samples_per_prompt), "1", 1, 1e6,
     .help = "answers to each prompt of an iteration; divides batch_size"},
    {"iterations", CFG_INT, AT(iterations), "200", 1, 1e9, .help = "rollouts of batch_size answers"},
    {"micro_batch_tokens", CFG_INT, AT(micro_batch_tokens), "4096", 1, 1e8,
     .flags = CFG_NO_RESULT, .help = "tokens per forward and backward; never changes a result"},
    RECOMPUTE_FIELD(PpoConfig, recompute),
    {"slots", CFG_INT, AT(slots), "64", 1, 1e5, .flags = CFG_NO_RESULT,
     .help = "answers decoded at a time; never changes a result"},
    {"kl_coef", CFG_FLOAT, AT(kl_coef), "0.01", 0, 100, .help = "beta, per token, k1"},
    {"kl.target", CFG_FLOAT, AT(kl_target), "0", 0, 1e6,
     .help = "adapt beta after each iteration towards this mean sequence KL (nats); 0 = beta stays kl_coef"},
    {"kl.horizon", CFG_FLOAT, AT(kl_horizon), "10000", 1, 1e12,
     .help = "answers over which the adaptive beta may change by 20 %"},
    {"advantage", CFG_ENUM, AT(advantage), "gae", .choices = "gae|rloo|grpo",
     .help = "gae: a critic; rloo, grpo: none, an answer is compared with the others to its prompt"},
    {"scale_rewards", CFG_BOOL, AT(scale_rewards), "true",
     .help = "grpo: divide by the standard deviation of the group"},
    {"gamma", CFG_FLOAT, AT(gamma), "1.0", 0, 1, .help = "gae: discount"},
    {"lam", CFG_FLOAT, AT(lam), "0.95", 0, 1, .help = "gae: lambda of the advantage estimate"},
    {"cliprange", CFG_FLOAT, AT(clip), "0.2", 1e-6, 10, .help = "of the policy ratio"},
    {"cliprange_value", CFG_FLOAT, AT(clip_value), "0.2", 0, 1e6,
     .help = "of the value around the old one; 0 = off"},
    {"scores", CFG_ENUM, AT(scores), "whiten", .choices = "whiten|running|none",
     .help = "final scores before the KL penalty: whitened over the batch, or by the mean and variance of all "
             "batches so far, or as they are"},
    {"score_clip", CFG_FLOAT, AT(score_clip), "0", 0, 1e6, .help = "cut them to +- this afterwards; 0 = off"},
    {"whiten_advantages", CFG_ENUM, AT(whiten_advantages), "auto", .choices = "auto|true|false",
     .help = "whiten advantages over the whole batch; auto = with gae only"},
    {"ptx.coef", CFG_FLOAT, AT(ptx.coef), "0", 0, 1e6,
     .help = "weight of a language-model loss (mean over target tokens) added to each minibatch; 0 = none"},
    {"ptx.data", CFG_LIST, AT(ptx.data), .item_fields = data_source_fields, .item_bytes = sizeof(DataSource),
     .help = "its sources: {path, weight}"},
    {"ptx.pretrain", CFG_BOOL, AT(ptx.pretrain), "false",
     .help = "they are {text}, loss on every token; else conversations, loss on the answers"},
    {"ptx.max_length", CFG_INT, AT(ptx.max_length), "1024", 2, 1e9,
     .help = "longer sequences are dropped (data.on_long)"},
    {"ptx.batch_size", CFG_INT, AT(ptx.batch_size), "64", 1, 1e6, .help = "sequences per minibatch"},
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

bool ppo_has_critic(const PpoConfig *c)
{
    return c->advantage == ADV_GAE;
}

int64_t ppo_warmup(const PpoConfig *c)
{
    return ppo_has_critic(c) ? c->critic_warmup : 0;
}

bool ppo_whitens_advantages(const PpoConfig *c)
{
    return c->whiten_advantages == CHOICE_TRUE || (c->whiten_advantages == CHOICE_AUTO && ppo_has_critic(c));
}

/* "critic.refit, critic.ridge, gamma and 3 more": keys that were given and that only a critic reads. */
static void warn_of_idle_keys(const PpoConfig *c, const Config *where)
{
    static const char *const others[] = {"gamma", "lam", "cliprange_value"};
    Str names = {0};
    int n = 0;
    for (const CfgField *f = ppo_fields; f->key; f++) {
        bool idle = strncmp(f->key, "critic.", 7) == 0;
        for (size_t i = 0; i < sizeof others / sizeof *others; i++)
            idle = idle || strcmp(f->key, others[i]) == 0;
        if (idle && config_is_set(where, f->key) && ++n <= 3)
            str_addf(&names, "%s%s", n > 1 ? ", " : "", f->key);
    }
    if (n > 3)
        str_addf(&names, " and %d more", n - 3);
    if (n && !ppo_has_critic(c))
        log_warn("advantage: %s trains no critic: %s: no effect", c->advantage == ADV_RLOO ? "rloo" : "grpo",
                 str_get(&names));
    str_free(&names);
}

static int check_groups(const PpoConfig *c, const Config *where)
{
    if (c->batch_size % c->samples_per_prompt)
        return error_set(ERR_CONFIG,
                         "%s: samples_per_prompt: %lld does not divide batch_size %lld; choose a divisor",
                         config_where(where, "samples_per_prompt"), (long long)c->samples_per_prompt,
                         (long long)c->batch_size);
    if (!ppo_has_critic(c) && c->samples_per_prompt < 2)
        return error_set(ERR_CONFIG,
                         "%s: advantage: rloo and grpo compare the answers to one prompt; set "
                         "samples_per_prompt to 2 or more (4 is usual)",
                         config_where(where, "advantage"));
    return 0;
}

static int check_ptx(const PpoConfig *c, const Config *where)
{
    if (c->ptx.coef > 0 && !c->ptx.data.n)
        return error_set(ERR_CONFIG, "%s: ptx.coef: needs ptx.data; name records or set it to 0",
                         config_where(where, "ptx.coef"));
    if (c->ptx.coef > 0 && c->ptx.max_length > c->micro_batch_tokens)
        return error_set(ERR_CONFIG,
                         "%s: ptx.max_length: %lld does not fit micro_batch_tokens %lld; lower it or raise "
                         "that",
                         config_where(where, "ptx.max_length"), (long long)c->ptx.max_length,
                         (long long)c->micro_batch_tokens);
    if (c->ptx.data.n && c->ptx.coef == 0)
        log_warn("ptx.data is given but ptx.coef is 0: it is not read");
    return mix_check(c->ptx.data.at, c->ptx.data.n, "ptx.data");
}

static int check_rewards(const PpoConfig *c, const Config *where)
{
    if (c->switch_on && !c->reward_safety[0])
        return error_set(ERR_CONFIG,
                         "%s: reward.safety: not given, but switch.enabled is true; name a safety "
                         "model or set switch.enabled: false",
                         config_where(where, "reward.safety"));
    if (c->normalize == NORMALIZE_PER_MODEL && !c->switch_on)
        return error_set(ERR_CONFIG,
                         "%s: reward.normalize: per_model puts two models on one scale, but "
                         "switch.enabled is false; set it to none",
                         config_where(where, "reward.normalize"));
    if (c->kl_target > 0 && c->kl_coef == 0)
        return error_set(ERR_CONFIG,
                         "%s: kl.target: the adaptive beta starts at kl_coef, and 0 stays 0; raise kl_coef",
                         config_where(where, "kl.target"));
    return 0;
}

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
    int rc = check_rewards(c, where);
    if (rc == 0)
        rc = check_groups(c, where);
    if (rc == 0)
        rc = check_ptx(c, where);
    if (rc == 0)
        warn_of_idle_keys(c, where);
    return rc;
}
