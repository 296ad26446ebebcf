/* sampler.c - the sampler is the trainer: over answers to shared prompts, of drawn lengths and temperatures,
 * the recorded log-probabilities are those of a packed forward, and PPO's first ratio is exactly 1. */
#include "tests/exact/exact.h"

/* Answers of up to M tokens to n requests, which share prompts. */
typedef struct {
    int n, M, longest;
    double temperature;
    int32_t prompt[PROMPTS_MAX][LONG_TOKENS];
    GenRequest req[PROMPTS_MAX * SAMPLES_MAX];
    GenResult res[PROMPTS_MAX * SAMPLES_MAX];
    int32_t *ids;
    float *logp;
} Samples;

static void samples_draw(Case *c, Samples *s)
{
    static const double temperatures[] = {0.7, 1, 1.3};
    int prompts = (int)draw(c, 1, PROMPTS_MAX);
    s->M = draw_one_in(c, 10) ? (int)draw(c, KV_CHUNK - 20, KV_CHUNK + 20) : (int)draw(c, 2, 40);
    int K = s->M > 100 ? 1 : (int)draw(c, 1, 16);
    s->temperature = temperatures[draw(c, 0, 2)];
    for (int i = 0; i < prompts; i++) {
        int n = (int)(draw_one_in(c, 4) ? draw(c, 60, 90) : draw(c, 1, 40));
        s->longest = n > s->longest ? n : s->longest;
        for (int t = 0; t < n; t++)
            s->prompt[i][t] = (int32_t)draw(c, 0, c->config.V - 1);
        for (int k = 0; k < K; k++)
            s->req[s->n++] = (GenRequest){s->prompt[i], n, (uint64_t)i, (uint32_t)k, 0};
    }
    s->ids = xcalloc((size_t)(s->n * s->M), sizeof *s->ids);
    s->logp = xcalloc((size_t)(s->n * s->M), sizeof *s->logp);
    for (int i = 0; i < s->n; i++)
        s->res[i] = (GenResult){.ids = s->ids + i * s->M, .logp = s->logp + i * s->M};
}

/* Generates with drawn slots, rows and threads into s. */
static void samples_run(Case *c, Samples *s)
{
    Net n;
    int32_t stop = 2;
    GenOptions o = {.seed = c->seed,
                    .round = 1,
                    .temperature = s->temperature,
                    .max_new_tokens = s->M,
                    .stop = &stop,
                    .n_stop = 1};
    net_open_any(&n, c, 1);
    net_open_generator(&n, (int)draw(c, 1, 40), s->longest + s->M, (int)draw(c, 1, 200));
    CHECK(generate(n.gen, &n.f.p, s->req, s->n, &o, s->res, NULL, NULL, NULL) == 0, "%s", error_text());
    net_close(&n);
}

/* Request i behind the others of the pack, its answer's rows behind the R that are listed. */
static int64_t policy_rows(Net *n, Case *c, const Samples *s, int i, int64_t R)
{
    LmHead *h = &n->f.lm;
    const GenRequest *q = &s->req[i];
    const GenResult *a = &s->res[i];
    int32_t ids[LONG_TOKENS + 2 * KV_TILE];
    memcpy(ids, q->prompt, (size_t)q->n_prompt * sizeof *ids);
    memcpy(ids + q->n_prompt, a->ids, (size_t)a->n * sizeof *ids);
    int at = n->f.pack.n_tokens + q->n_prompt - 1;
    pack_add(&n->f.pack, ids, NULL, q->n_prompt + a->n, i);
    for (int t = 0; t < a->n; t++, R++) {
        ((int32_t *)h->rows.data)[R] = at + t;
        ((int32_t *)h->target.data)[R] = a->ids[t];
        ((float *)h->old_logp.data)[R] = a->logp[t];
        ((float *)h->adv.data)[R] = (float)draw(c, -8, 8) / 4;
        ((float *)h->weight.data)[R] = 1;
    }
    return R;
}

/* PPO's first look at requests [from, to): the log-probability is the recorded one, so the ratio is 1. */
static void policy_check(Net *n, Case *c, const Samples *s, int from, int to)
{
    Fixture *f = &n->f;
    int64_t R = 0;
    pack_clear(&f->pack);
    for (int i = from; i < to; i++)
        R = policy_rows(n, c, s, i, R);
    batch_set(&f->batch, &f->pack);
    model_forward(&f->m, &f->p, NULL, &f->batch, f->acts);
    Tensor hidden = acts_hidden(f->acts, &f->batch), dhidden = acts_dhidden(f->acts, &f->batch);
    lm_head_run(&f->lm, &f->m, &f->p, LM_POLICY, R, &hidden, &dhidden, &f->g, 1 / s->temperature, 0.2);
    const float *logp = f->lm.logp.data, *ratio = f->lm.ratio.data, *old = f->lm.old_logp.data;
    for (int64_t r = 0; r < R; r++) {
        case_same(c, &logp[r], &old[r], sizeof *old, "requests %d to %d: log-probability of row %lld", from, to - 1,
                  (long long)r);
        case_expect(c, ratio[r] == 1.0F, "requests %d to %d: ratio of row %lld is %.9g", from, to - 1, (long long)r,
                    (double)ratio[r]);
    }
    c->n_sampled += R;
}

void sampler(Case *c)
{
    Net n;
    Samples *s = xcalloc(1, sizeof *s);
    draw_model(c, false);
    samples_draw(c, s);
    samples_run(c, s);
    size_t bytes = (size_t)(s->n * s->M) * sizeof *s->ids;
    case_first(c, s->ids, bytes);
    case_first(c, s->logp, bytes);
    net_open_any(&n, c, TOKENS_MAX);
    net_plant(&n, c);
    for (int from = 0, to; from < s->n; from = to) {
        int T = 0, most = (int)draw(c, LONG_TOKENS, TOKENS_MAX);
        for (to = from; to < s->n && T + s->req[to].n_prompt + s->res[to].n <= most; to++)
            T += s->req[to].n_prompt + s->res[to].n;
        policy_check(&n, c, s, from, to);
    }
    net_close(&n);
    if (draw_one_in(c, 4)) { /* other slots, rows and threads: the same answers */
        int32_t *ids = memcpy(xmalloc(bytes), s->ids, bytes);
        samples_run(c, s);
        case_same(c, s->ids, ids, bytes, "answers with other slots");
        free(ids);
    }
    free(s->ids);
    free(s->logp);
    free(s);
}
