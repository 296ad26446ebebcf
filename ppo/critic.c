/* critic.c - the value model: its own weights, started from the helpfulness reward model. The value of
 * answer token t is read at the position before it. The head is refitted once to the first rollout,
 * because a reward model's head speaks in reward units, not in whitened ones. */
#include "ppo/ppo.h"

#include "common/base/error.h"
#include "common/runtime/device.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void critic_values(Ppo *p, Rollout *r, const ExampleSet *set)
{
    int64_t next = 0, rows, first = 0;
    while (ppo_next_pack(p, r, set, &next, r->n_used, &rows)) {
        batch_set(&p->batch, &p->pack);
        model_forward(&p->critic_model, &p->critic, NULL, &p->batch, p->critic_acts);
        Tensor hidden = acts_hidden(p->critic_acts, &p->batch);
        device_upload(&p->value_head.rows, p->stage_rows, (size_t)rows * sizeof *p->stage_rows);
        scalar_head_forward(&p->value_head, &p->critic_model, &p->critic, rows, &hidden);
        device_download(p->stage, &p->value_head.score, (size_t)rows * sizeof *p->stage);
        int64_t at = 0;
        for (int64_t b = first; b < next; b++) {
            memcpy(r->value + b * r->M, p->stage + at, (size_t)r->n[b] * sizeof *p->stage);
            at += r->n[b];
        }
        first = next;
    }
}

/* Solves A x = y for symmetric positive definite A (n, n) by Cholesky, in place; x overwrites y.
 * Returns false when A is not positive definite. */
static bool solve_spd(double *A, double *y, int64_t n)
{
    for (int64_t j = 0; j < n; j++) {
        double d = A[j * n + j];
        for (int64_t k = 0; k < j; k++)
            d -= A[j * n + k] * A[j * n + k];
        if (!(d > 0))
            return false;
        d = sqrt(d);
        A[j * n + j] = d;
        for (int64_t i = j + 1; i < n; i++) {
            double s = A[i * n + j];
            for (int64_t k = 0; k < j; k++)
                s -= A[i * n + k] * A[j * n + k];
            A[i * n + j] = s / d;
        }
    }
    for (int64_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < i; k++)
            y[i] -= A[i * n + k] * y[k];
        y[i] /= A[i * n + i];
    }
    for (int64_t i = n - 1; i >= 0; i--) {
        for (int64_t k = i + 1; k < n; k++)
            y[i] -= A[k * n + i] * y[k];
        y[i] /= A[i * n + i];
    }
    return true;
}

/* Adds the rows of one pack to the normal equations A += h h^T (lower triangle), y += h target. */
static void add_rows(double *A, double *y, const float *h, const double *target, int64_t rows,
                     int64_t C)
{
    for (int64_t i = 0; i < rows; i++) {
        const float *x = h + i * C;
        for (int64_t a = 0; a < C; a++) {
            double xa = (double)x[a];
            y[a] += xa * target[i];
            for (int64_t b = 0; b <= a; b++)
                A[a * C + b] += xa * (double)x[b];
        }
    }
}

/* Monte Carlo returns of an answer: everything still to come, in whitened units. */
static void monte_carlo(double *target, const Ppo *p, const Rollout *r, int64_t b, double *reward)
{
    int n = r->n[b];
    ppo_rewards(reward, r->logp + b * r->M, r->ref + b * r->M, n, p->kl_coef, r->shaped[b]);
    double sum = 0;
    for (int t = n - 1; t >= 0; t--) {
        sum = reward[t] + p->c->gamma * sum;
        target[t] = sum;
    }
}

int critic_refit(Ppo *p, const Rollout *r, const ExampleSet *set)
{
    int64_t C = p->critic_config.C, next = 0, rows, first = 0;
    double *A = xcalloc((size_t)(C * C), sizeof *A), *y = xcalloc((size_t)C, sizeof *y);
    double *target = xmalloc((size_t)p->max_tokens * sizeof *target);
    double *reward = xmalloc((size_t)r->M * sizeof *reward);
    float *h = xmalloc((size_t)(p->max_tokens * C) * sizeof *h);
    int rc = 0;
    while (ppo_next_pack(p, r, set, &next, r->n_used, &rows)) {
        batch_set(&p->batch, &p->pack);
        model_forward(&p->critic_model, &p->critic, NULL, &p->batch, p->critic_acts);
        Tensor hidden = acts_hidden(p->critic_acts, &p->batch);
        device_upload(&p->value_head.rows, p->stage_rows, (size_t)rows * sizeof *p->stage_rows);
        scalar_head_forward(&p->value_head, &p->critic_model, &p->critic, rows, &hidden);
        Tensor gathered = tensor_slice(&p->value_head.hidden, 0, rows);
        device_download(h, &gathered, (size_t)(rows * C) * sizeof *h);
        int64_t at = 0;
        for (int64_t b = first; b < next; b++) {
            monte_carlo(target + at, p, r, b, reward);
            at += r->n[b];
        }
        add_rows(A, y, h, target, rows, C);
        first = next;
    }
    for (int64_t i = 0; i < C; i++)
        A[i * C + i] += p->c->critic_ridge;
    if (!solve_spd(A, y, C)) {
        rc = error_set(ERR_DIVERGED, "critic.refit: the normal equations are singular; raise "
                                     "critic.ridge (now %g) or set critic.refit: false",
                       p->c->critic_ridge);
        goto done;
    }
    Tensor *w = &p->critic.w[p->critic_model.table.head]; /* PANEL (1, C): lane 0 of C rows */
    float *panel = xcalloc((size_t)tensor_slots(w), sizeof *panel);
    for (int64_t i = 0; i < C; i++)
        panel[i * PANEL_N] = (float)y[i];
    device_upload(w, panel, tensor_bytes(w));
    free(panel);
done:
    free(A);
    free(y);
    free(target);
    free(reward);
    free(h);
    return rc;
}
