/* ppo_config.h - the keys of rlhf-ppo. Defaults are the paper's (Llama 2, section 3.2.3 and 5.1). */
#ifndef RLHF_PPO_CONFIG_H
#define RLHF_PPO_CONFIG_H

#include "common/train/mix.h"
#include "common/train/optim.h"
#include "common/train/trainer.h"
#include "ppo/ppo_math.h"

typedef enum { NORMALIZE_NONE, NORMALIZE_PER_MODEL } NormalizeKind; /* "none|per_model" */
typedef enum { CHOICE_AUTO, CHOICE_TRUE, CHOICE_FALSE } Choice;      /* "auto|true|false" */

typedef struct {
    RunConfig run;
    const char *model, *reference, *critic_model;
    const char *reward_helpful, *reward_safety;
    bool allow_unanchored;
    int normalize; /* NormalizeKind */
    int template_kind; /* TemplateKind */
    const char *train_path, *eval_path;
    int on_bad_row; /* BadRow */
    int on_long;    /* OnLong */
    int64_t max_prompt_length, max_new_tokens;
    double temperature;
    int64_t batch_size, minibatch_size, iterations, samples_per_prompt;
    int64_t micro_batch_tokens, slots;
    int recompute; /* Recompute */
    double kl_coef, kl_target, kl_horizon, gamma, lam, clip, clip_value;
    int advantage; /* AdvantageKind */
    bool scale_rewards;
    int scores; /* ScoresKind */
    double score_clip;
    int whiten_advantages; /* Choice */
    struct {
        double coef;
        ConfigList data; /* DataSource */
        bool pretrain;
        int64_t max_length, batch_size;
    } ptx;
    bool switch_on;
    double switch_threshold;
    OptimConfig policy, critic;
    bool critic_refit;
    double critic_ridge;
    int64_t critic_warmup;
    int64_t eval_iterations, eval_prompts, patience;
    double kl_max;
    const char *dump_dir;
    int64_t dump_iteration;
} PpoConfig;

extern const CfgField ppo_fields[];
extern const CliOption ppo_options[];

/* What the table cannot say: two keys that contradict each other. ERR_CONFIG. Keys that were given but
 * have no effect are named in one warning. */
int ppo_config_check(const PpoConfig *c, const Config *where);

/* advantage: gae has a critic, the others have none. */
bool ppo_has_critic(const PpoConfig *c);
/* The first iterations that train the critic alone. */
int64_t ppo_warmup(const PpoConfig *c);
bool ppo_whitens_advantages(const PpoConfig *c);

#endif
