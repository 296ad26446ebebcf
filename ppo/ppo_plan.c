/* ppo_plan.c - what a PPO run will take, for --plan: the work of rollouts, updates and evaluations. An
 * answer's length is not known before it is sampled, so its work is counted in answers (run_plan.h).
 * Tested by tests/e2e/test_plan.sh. */
#include "ppo/ppo.h"

#include "common/base/file.h"

#include <stdlib.h>

/* Answers to prompts of `set`, n of them in all in `calls` rollouts, from the mean of its prompts. */
static Work answers_work(const Ppo *p, WorkKind kind, const char *model, const ExampleSet *set, double n,
                         double calls)
{
    double tokens = 0;
    for (int64_t i = 0; i < set->n; i++)
        tokens += set->at[i].n;
    return (Work){.kind = kind,
                  .model = (char *)model,
                  .tokens = tokens / (double)set->n * n,
                  .sequences = n,
                  .answers = n,
                  .max_new = (double)p->c->max_new_tokens,
                  .calls = calls,
                  .slots = (double)p->c->slots};
}

static void forward(RunPlan *plan, const Ppo *p, const char *model, bool scalar, const ExampleSet *set, double n)
{
    Work w = answers_work(p, WORK_FORWARD, model, set, n, 0);
    w.scalar = scalar;
    run_plan_work(plan, &w);
}

/* rollout_run: answers, their scores, their log-probabilities under the reference. */
static void plan_rollouts(RunPlan *plan, const Ppo *p, const ExampleSet *set, double n, double calls)
{
    const PpoConfig *c = p->c;
    Work decode = answers_work(p, WORK_DECODE, c->model, set, n, calls);
    run_plan_work(plan, &decode);
    forward(plan, p, c->reward_helpful, true, set, n);
    if (p->has_safety)
        forward(plan, p, c->reward_safety, true, set, n);
    forward(plan, p, ppo_reference_folder(c), false, set, n);
}

static void plan_ptx(RunPlan *plan, const Ppo *p, double updates)
{
    const PtxData *d = &p->ptx;
    Work w = {.kind = WORK_TRAIN, .model = (char *)p->c->model};
    if (p->c->ptx.coef == 0)
        return;
    w.sequences = updates * (double)p->c->ptx.batch_size;
    w.tokens = w.sequences * (double)d->examples.n_tokens / (double)d->examples.n;
    w.rows = w.sequences * (double)d->examples.n_targets / (double)d->examples.n;
    run_plan_work(plan, &w);
}

static void plan_updates(RunPlan *plan, const Ppo *p, double iterations)
{
    const PpoConfig *c = p->c;
    double per = (double)(c->batch_size / c->minibatch_size), policy = iterations - (double)ppo_warmup(c);
    policy = policy > 0 ? policy : 0;
    Work w = answers_work(p, WORK_TRAIN, c->model, &p->prompts, policy * (double)c->batch_size, 0);
    run_plan_work(plan, &w);
    plan_ptx(plan, p, policy * per);
    run_plan_update(plan, &p->model.table, c->model, policy * per);
    if (!ppo_has_critic(c))
        return;
    forward(plan, p, ppo_critic_folder(c), true, &p->prompts, iterations * (double)c->batch_size);
    w = answers_work(p, WORK_TRAIN, ppo_critic_folder(c), &p->prompts, iterations * (double)c->batch_size, 0);
    w.scalar = true;
    run_plan_work(plan, &w);
    run_plan_update(plan, &p->critic_model.table, ppo_critic_folder(c), iterations * per);
}

void ppo_plan(Trainer *t, RunPlan *plan)
{
    const Ppo *p = t->state;
    const PpoConfig *c = p->c;
    double per = (double)(c->batch_size / c->minibatch_size), iterations = (double)t->total_steps / per;
    plan->micro_batch_tokens = (double)c->micro_batch_tokens;
    plan->recompute = c->recompute;
    plan_rollouts(plan, p, &p->prompts, iterations * (double)c->batch_size, iterations);
    plan_updates(plan, p, iterations);
    double evals = p->held_out.n ? iterations / (double)c->eval_iterations : 0;
    if (p->held_out.n)
        plan_rollouts(plan, p, &p->held_out, (evals < 1 ? 1 : evals) * (double)p->held_out.n, evals < 1 ? 1 : evals);
    static const char *const folders[] = {"export", "best"};
    for (int i = 0; i < (p->held_out.n ? 2 : 1); i++) {
        char *folder = path_join(t->run->out_dir, folders[i]);
        run_plan_model(plan, folder, c->model, &p->model.table, run_element(t->run), false);
        free(folder);
    }
}
