/* trainer_plan.c - what a training run will take, as --plan writes it: memory by the allocation code itself,
 * checkpoints by the list of what one holds, work by the program. Tested by tests/e2e/test_plan.sh. */
#include "common/train/trainer.h"

int64_t trainer_n_evals(const Trainer *t)
{
    int64_t every = t->run->eval_steps, n = every ? t->total_steps / every : 0;
    return t->def->eval ? n + (!every || t->total_steps % every != 0) : 0;
}

int trainer_write_plan(Trainer *t, const BlobList *blobs)
{
    const RunConfig *c = t->run;
    RunPlan p = {.steps = (double)t->total_steps, .save_steps = (double)c->save_steps, .keep = (double)c->keep};
    p.keeps_best = t->def->best_metric && c->keep_best && trainer_n_evals(t) > 1;
    for (int i = 0; i < blobs->n; i++)
        p.checkpoint += (double)blobs->at[i].bytes;
    run_plan_setting(&p, t->def->cli.program, c->out_dir, t->dev, c->device, c->threads, c->isa, c->dtype);
    run_plan_memory(&p, &t->plan);
    if (t->def->plan)
        t->def->plan(t, &p);
    int rc = run_plan_write(&p, t->cli.plan);
    run_plan_free(&p);
    return rc;
}
