/* ppo_eval.c - early stopping on fixed held-out prompts: the score before whitening, on the common scale
 * where reward.normalize asks for one, minus beta KL. The draws are the same at every evaluation. Tested by
 * tests/e2e/test_ppo.sh. */
#include "ppo/ppo.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/model/safetensors.h"

#include <stdlib.h>

enum { EVAL_ROUND = 0x7e5a1 };

static int write_samples(const Trainer *t, Ppo *p)
{
    Str out = {0}, text = {0};
    JsonWriter w;
    int rc = 0;
    const Rollout *r = &p->probe;
    for (int64_t b = 0; b < r->n_used; b++) {
        const Record *rec = &p->eval.at[p->held_out.at[r->prompt[b]].record];
        str_clear(&text);
        TRY(template_answer_text(&p->chat, r->ids + b * r->M, r->n[b], &text));
        jw_init(&w, &out, false);
        jw_object(&w);
        jw_kint(&w, "step", t->step + 1);
        jw_kstr(&w, "prompt", rec->messages[rec->n_messages - 1].text);
        jw_kstr(&w, "answer", str_get(&text));
        jw_kbool(&w, "finished", r->finished[b]);
        jw_knum(&w, "helpful", r->helpful[b]);
        jw_knum(&w, "safety", r->safety[b]);
        jw_knum(&w, "kl", r->k1[b]);
        jw_object_end(&w);
        str_add(&out, "\n");
    }
    char *path = path_join(t->run->out_dir, "samples.jsonl");
    rc = file_write_atomic(path, str_get(&out), out.n);
    free(path);
fail:
    str_free(&out);
    str_free(&text);
    return rc;
}

int ppo_evaluate(Trainer *t, Ppo *p)
{
    Rollout *r = &p->probe;
    int64_t n = p->held_out.n;
    for (int64_t b = 0; b < n; b++)
        r->prompt[b] = b;
    int rc = rollout_run(p, r, &p->held_out, &p->eval, n, EVAL_ROUND, (uint64_t)t->run->seed, NULL);
    if (rc < 0)
        return rc;
    rollout_scale(p, r);
    /* beta as configured: under an adaptive one evaluations could not be compared */
    double kl = ppo_mean(r->k1, n), score = ppo_mean(r->scaled, n) - p->c->kl_coef * kl;
    metrics_set(&t->metrics, "eval/scores", ppo_mean(r->raw, n));
    metrics_set(&t->metrics, "eval/scores_helpful", ppo_mean(r->helpful, n));
    metrics_set(&t->metrics, "eval/scores_safety", ppo_mean(r->safety, n));
    metrics_set(&t->metrics, "eval/kl", kl);
    metrics_set(&t->metrics, "eval/objective", score);
    if ((rc = write_samples(t, p)) < 0)
        return rc;
    if (score > p->best_score) {
        p->best_score = score;
        p->best_step = t->step + 1;
        p->evals_without_gain = 0;
        char *best = path_join(t->run->out_dir, "best");
        rc = hf_save(&p->policy, best, p->c->model, run_format(t->run), NULL, 0);
        free(best);
        return rc;
    }
    p->evals_without_gain++;
    if (p->c->patience && p->evals_without_gain >= p->c->patience) {
        log_info("no better score - beta KL on held-out prompts for %lld evaluations: stopping",
                 (long long)p->evals_without_gain);
        return 1;
    }
    return 0;
}
