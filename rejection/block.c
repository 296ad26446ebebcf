/* block.c - a step of rlhf-rejection: a block of prompts, from answers to the lines of its part.
 *
 * A part is written whole or not at all, and all that goes into it depends on the config, the seed and
 * the prompts alone, so a block that is made again after a kill is the same file. Tested by
 * tests/e2e/test_rejection.sh. */
#include "rejection/rejection.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/generate/samples.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- room ---------------------------------------------------------------------------------------- */

void block_plan(Rejection *p)
{
    const RejectionConfig *c = p->c;
    Block *b = &p->block;
    b->max_fresh = p->per_prompt * (p->prompts.n < c->block_prompts ? p->prompts.n : c->block_prompts);
    for (int64_t first = 0; first < p->prompts.n; first += c->block_prompts) {
        int64_t all = 0, tokens = 0;
        for (int64_t i = first; i < first + c->block_prompts && i < p->prompts.n; i++) {
            int64_t n_pool = p->pool.first[i + 1] - p->pool.first[i];
            all += p->per_prompt + n_pool;
            tokens += (p->per_prompt + n_pool) * p->prompts.at[i].n + p->per_prompt * c->max_new_tokens;
            for (int64_t a = p->pool.first[i]; a < p->pool.first[i + 1]; a++)
                tokens += p->pool.at[a].n;
        }
        b->max_all = all > b->max_all ? all : b->max_all;
        b->max_tokens = tokens > b->max_tokens ? tokens : b->max_tokens;
    }
}

void block_alloc(Rejection *p)
{
    Block *b = &p->block;
    Arena *a = &p->host;
    size_t fresh = (size_t)b->max_fresh, all = (size_t)b->max_all, new = (size_t)p->c->max_new_tokens;
    b->from = arena_bytes(a, (size_t)(p->c->block_prompts + 1) * sizeof *b->from);
    b->req = arena_bytes(a, fresh * sizeof *b->req);
    b->res = arena_bytes(a, fresh * sizeof *b->res);
    b->ids = arena_bytes(a, fresh * new * sizeof *b->ids);
    b->logp = arena_bytes(a, fresh * new * sizeof *b->logp);
    b->answer = arena_bytes(a, all * sizeof *b->answer);
    b->cand = arena_bytes(a, all * sizeof *b->cand);
    b->flat = arena_bytes(a, (size_t)b->max_tokens * sizeof *b->flat);
    b->seq = arena_bytes(a, all * sizeof *b->seq);
    b->len = arena_bytes(a, all * sizeof *b->len);
    b->score = arena_bytes(a, all * sizeof *b->score);
    b->sorted = arena_bytes(a, (size_t)p->c->k * sizeof *b->sorted);
}

void block_free(Block *b)
{
    str_free(&b->text);
}

/* ---- candidates ---------------------------------------------------------------------------------- */

/* Answers of this run: prompt i, temperature j, sample s is request (i * nt + j) * k + s, so that the
 * answers to one prompt are neighbours and share its keys. */
static int sample_answers(Trainer *t, Rejection *p)
{
    const RejectionConfig *c = p->c;
    Block *b = &p->block;
    int64_t rows = b->n * p->per_prompt;
    for (int64_t row = 0; row < rows; row++) {
        int64_t prompt = b->first + row / p->per_prompt;
        const Example *e = &p->prompts.at[prompt];
        b->req[row] = (GenRequest){.prompt = e->ids,
                                   .n_prompt = e->n,
                                   .prompt_id = rejection_record(p, prompt)->id,
                                   .sample = (uint32_t)(row % c->k),
                                   .option = (int)(row / c->k % c->temperatures.n)};
        b->res[row] = (GenResult){.ids = b->ids + row * c->max_new_tokens,
                                  .logp = b->logp + row * c->max_new_tokens};
    }
    return rows ? generate(p->gen, &p->policy, b->req, rows, p->options, b->res, t->stop, NULL, NULL) : 0;
}

static const char *answer_text(const Block *b, int64_t row)
{
    return b->text.s + b->answer[row].text;
}

static int64_t row_add(Block *b, int64_t row, Answer a, bool finished)
{
    b->answer[row] = a;
    b->cand[row] = (Candidate){.helpful = NAN, .safety = NAN, .finished = finished};
    return row + 1;
}

/* The answers of the pools to prompt i of the block, but for those that this run gave again. */
static int64_t add_pool(Rejection *p, int64_t i, int64_t row)
{
    Block *b = &p->block;
    int64_t fresh = b->from[i], fresh_end = row;
    for (int64_t a = p->pool.first[b->first + i]; a < p->pool.first[b->first + i + 1]; a++) {
        const PoolAnswer *old = &p->pool.at[a];
        int64_t same = fresh;
        while (same < fresh_end && !(b->cand[same].finished && strcmp(answer_text(b, same), old->text) == 0))
            same++;
        if (same < fresh_end) {
            p->total.n_pool_same++;
            continue;
        }
        Answer add = {.ids = old->ids, .n = old->n, .text = b->text.n, .pool = old};
        str_add_bytes(&b->text, old->text, strlen(old->text) + 1);
        row = row_add(b, row, add, true);
        p->total.n_pool++;
    }
    return row;
}

static int gather(Rejection *p)
{
    Block *b = &p->block;
    int64_t row = 0;
    str_clear(&b->text);
    for (int64_t i = 0; i < b->n; i++) {
        b->from[i] = row;
        for (int64_t s = 0; s < p->per_prompt; s++) {
            const GenResult *r = &b->res[i * p->per_prompt + s];
            Answer add = {.ids = r->ids, .n = r->n, .text = b->text.n, .logp = r->logp};
            int rc = template_answer_text(&p->chat, r->ids, r->n, &b->text);
            if (rc < 0)
                return rc;
            str_add_bytes(&b->text, "", 1);
            row = row_add(b, row, add, r->finished);
        }
        row = add_pool(p, i, row);
    }
    b->from[b->n] = row;
    return 0;
}

static void score(Rejection *p)
{
    Block *b = &p->block;
    int64_t rows = b->from[b->n];
    int32_t *at = b->flat;
    for (int64_t i = 0; i < b->n; i++) {
        const Example *e = &p->prompts.at[b->first + i];
        for (int64_t r = b->from[i]; r < b->from[i + 1]; r++) {
            b->seq[r] = at;
            b->len[r] = e->n + b->answer[r].n;
            memcpy(at, e->ids, (size_t)e->n * sizeof *at);
            memcpy(at + e->n, b->answer[r].ids, (size_t)b->answer[r].n * sizeof *at);
            at += b->len[r];
        }
    }
    reward_model_score(&p->helpful, b->seq, b->len, rows, b->score);
    for (int64_t r = 0; r < rows; r++)
        b->cand[r].helpful = (double)b->score[r];
    if (!p->has_safety)
        return;
    reward_model_score(&p->safety, b->seq, b->len, rows, b->score);
    for (int64_t r = 0; r < rows; r++)
        b->cand[r].safety = (double)b->score[r];
}

/* ---- choice and statistics ----------------------------------------------------------------------- */

/* The curves of one prompt's fresh answers, by the model that decides it. A prompt none of whose
 * answers ended has no score to count. */
static void add_curves(Rejection *p, const Candidate *c, bool tagged)
{
    bool by_safety = tagged && p->has_safety;
    int k = (int)p->c->k;
    double *x = p->block.sorted, floor = INFINITY;
    for (int64_t i = 0; i < p->per_prompt; i++) {
        double s = by_safety ? c[i].safety : c[i].helpful;
        if (c[i].finished && s < floor)
            floor = s;
    }
    for (int j = 0; j < p->c->temperatures.n && floor < INFINITY; j++, c += k) {
        for (int i = 0; i < k; i++)
            x[i] = !c[i].finished ? NAN : by_safety ? c[i].safety : c[i].helpful;
        curve_add(&p->curves[j * CURVE_KINDS + (tagged ? CURVE_TAGGED : CURVE_UNTAGGED)], x, k, floor);
    }
}

static int choose(Rejection *p, const Record *rec, const Candidate *c, int n, uint64_t seed)
{
    double threshold = log(p->c->threshold / (1 - p->c->threshold));
    bool any_safe = !p->has_safety || rec->tagged;
    for (int i = 0; i < n && !any_safe; i++)
        any_safe = c[i].finished && c[i].safety >= threshold;
    p->total.n_all_unsafe += !any_safe;
    if (p->c->select_mode == SELECT_RANDOM) {
        RngKey key = rng_key(seed, RNG_MIX, 0, rec->id, 0, 0);
        return select_random(c, n, rng_uniform(&key));
    }
    return select_best(c, n, rec->tagged, p->has_safety, threshold, (AllUnsafe)p->c->all_unsafe);
}

static void count_choice(Rejection *p, const Candidate *best, const Answer *a)
{
    p->total.n_prompts++;
    p->total.n_selected += best != NULL;
    p->total.n_none += best == NULL;
    if (!best)
        return;
    p->total.n_pool_selected += a->pool != NULL;
    p->total.sum_selected_helpful += best->helpful;
    p->total.sum_selected_safety += p->has_safety ? best->safety : 0;
}

static void write_answer(Rejection *p, const Record *rec, int64_t row, int64_t index, bool selected,
                         Str *out)
{
    const Block *b = &p->block;
    const Answer *a = &b->answer[row];
    const Candidate *c = &b->cand[row];
    Sample s = {.record = rec, .answer = answer_text(b, row), .finished = c->finished, .tokens = a->n,
                .logp = a->pool ? NAN : 0, .ref_logp = NAN, .helpful = c->helpful, .safety = c->safety,
                .selected = selected};
    if (a->pool) {
        s.pool = a->pool->file;
        s.sample = a->pool->sample;
        s.temperature = a->pool->temperature;
    } else {
        s.sample = (int)(index % p->c->k);
        s.temperature = p->c->temperatures.at[index / p->c->k];
        for (int i = 0; i < a->n; i++)
            s.logp += (double)a->logp[i];
        p->total.n_answers++;
        p->total.n_unfinished += !c->finished;
    }
    sample_write(&s, out);
}

static int part_write(Trainer *t, const Str *lines)
{
    char *dir = path_join(t->run->out_dir, "parts");
    char *path = xasprintf("%s/part-%06lld.jsonl", dir, (long long)t->step);
    int rc = dir_make(dir);
    if (rc == 0)
        rc = file_write_atomic(path, str_get(lines), lines->n);
    free(dir);
    free(path);
    return rc;
}

int block_run(Trainer *t, Rejection *p, int64_t first, int64_t n)
{
    Block *b = &p->block;
    Str lines = {0};
    int rc = 0;
    b->first = first;
    b->n = n;
    TRY(sample_answers(t, p));
    if (rc > 0)
        return rc;
    TRY(gather(p));
    score(p);
    for (int64_t i = 0; i < n; i++) {
        const Record *rec = rejection_record(p, first + i);
        int64_t from = b->from[i], to = b->from[i + 1];
        int best = choose(p, rec, b->cand + from, (int)(to - from), (uint64_t)t->run->seed);
        add_curves(p, b->cand + from, rec->tagged);
        count_choice(p, best < 0 ? NULL : &b->cand[from + best], &b->answer[from + (best < 0 ? 0 : best)]);
        for (int64_t row = from; row < to; row++)
            write_answer(p, rec, row, row - from, row - from == best, &lines);
    }
    rc = part_write(t, &lines);
fail:
    str_free(&lines);
    return rc;
}
