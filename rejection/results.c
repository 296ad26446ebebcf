/* results.c - what a finished run leaves: parts joined to samples.jsonl, their choices as training
 * records in selected.jsonl, and curves.json with the temperature that a user would choose from it.
 * Tested by tests/e2e/test_rejection.sh. */
#include "rejection/rejection.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/stream.h"

#include <math.h>
#include <stdlib.h>

/* ---- samples and choices ------------------------------------------------------------------------- */

/* One line of samples.jsonl that is selected -> a training record. */
static int write_selected(Writer *w, const Json *j)
{
    static const char *const keep[] = {"id", "prompt", "tags", "pool", "reward_helpful", "reward_safety"};
    Str out = {0};
    JsonWriter jw;
    jw_init(&jw, &out, false);
    jw_object(&jw);
    for (size_t i = 0; i < sizeof keep / sizeof *keep; i++) {
        const Json *v = json_get(j, keep[i]);
        if (v) {
            jw_key(&jw, keep[i]);
            jw_json(&jw, v);
        }
    }
    jw_key(&jw, "completion");
    jw_json(&jw, json_get(j, "answer"));
    jw_object_end(&jw);
    str_add(&out, "\n");
    int rc = writer_write(w, str_get(&out), out.n);
    str_free(&out);
    return rc;
}

static int append_part(const char *path, Writer *samples, Writer *selected, int64_t *n_empty)
{
    Reader *r = NULL;
    char *line;
    size_t n;
    int rc = 0, more;
    TRY(reader_open(&r, path));
    while ((more = reader_line(r, &line, &n)) > 0) {
        Json *j = NULL;
        TRY(writer_write(samples, line, n));
        TRY(writer_write(samples, "\n", 1));
        TRY(json_parse(&j, line, n, path, reader_line_number(r)));
        if (json_bool(json_get(j, "selected"), false)) {
            if (json_str_len(json_get(j, "answer")) == 0)
                (*n_empty)++; /* an empty answer cannot be trained on */
            else
                rc = write_selected(selected, j);
        }
        json_free(j);
        TRY(rc);
    }
    rc = more;
fail:
    reader_close(r);
    return rc;
}

static int merge_parts(Trainer *t, int64_t *n_empty)
{
    Writer *samples = NULL, *selected = NULL;
    char *all = path_join(t->run->out_dir, "samples.jsonl");
    char *best = path_join(t->run->out_dir, "selected.jsonl");
    int rc = 0;
    TRY(writer_open(&samples, all));
    TRY(writer_open(&selected, best));
    for (int64_t i = 0; i < t->total_steps; i++) {
        char *name = xasprintf("%s/parts/part-%06lld.jsonl", t->run->out_dir, (long long)i);
        rc = append_part(name, samples, selected, n_empty);
        free(name);
        TRY(rc);
    }
    rc = writer_close(samples);
    samples = NULL;
    TRY(rc);
    rc = writer_close(selected);
    selected = NULL;
fail:
    writer_abort(samples);
    writer_abort(selected);
    free(all);
    free(best);
    return rc;
}

/* ---- curves -------------------------------------------------------------------------------------- */

/* The model that decides a kind of prompt is part of the name: its scores are not the other's. */
static const char *kind_name(const Rejection *p, int kind)
{
    if (kind == CURVE_UNTAGGED)
        return "untagged_by_helpful";
    return p->has_safety ? "tagged_by_safety" : "tagged_by_helpful";
}

static int highest(const Rejection *p, int kind)
{
    return curve_highest(p->curves + kind, p->c->k ? p->c->temperatures.n : 0, CURVE_KINDS);
}

static void curves_json(const Rejection *p, Str *out)
{
    const ConfigFloats *T = &p->c->temperatures;
    JsonWriter w;
    jw_init(&w, out, true);
    jw_object(&w);
    jw_kint(&w, "k", p->c->k);
    jw_key(&w, "temperatures");
    jw_array(&w);
    for (int j = 0; j < T->n && p->c->k; j++) {
        jw_object(&w);
        jw_knum(&w, "temperature", T->at[j]);
        for (int kind = 0; kind < CURVE_KINDS; kind++) {
            jw_key(&w, kind_name(p, kind));
            curve_write(&p->curves[j * CURVE_KINDS + kind], (int)p->c->k, &w);
        }
        jw_object_end(&w);
    }
    jw_array_end(&w);
    jw_key(&w, "best_temperature");
    jw_object(&w);
    for (int kind = 0; kind < CURVE_KINDS; kind++) {
        int best = highest(p, kind);
        jw_knum(&w, kind_name(p, kind), best < 0 ? NAN : T->at[best]);
    }
    jw_object_end(&w);
    jw_object_end(&w);
    str_add(out, "\n");
}

static int write_curves(const Trainer *t, const Rejection *p)
{
    Str out = {0};
    curves_json(p, &out);
    char *path = path_join(t->run->out_dir, "curves.json");
    int rc = file_write_atomic(path, str_get(&out), out.n);
    free(path);
    str_free(&out);
    return rc;
}

/* ---- last lines ---------------------------------------------------------------------------------- */

/* "untagged_by_helpful, 200 prompts: best of 16 is 0.41 at 0.8, 0.52 at 1.2: highest at 1.2" */
static void log_temperatures(const Rejection *p, int kind)
{
    const ConfigFloats *T = &p->c->temperatures;
    int best = highest(p, kind);
    if (best < 0 || T->n < 2)
        return;
    Str line = {0};
    for (int j = 0; j < T->n; j++)
        str_addf(&line, "%s%.4g at %g", j ? ", " : "", curve_best(&p->curves[j * CURVE_KINDS + kind]),
                 T->at[j]);
    log_info("%s, %lld prompts: mean best of %lld is %s: highest at temperature %g", kind_name(p, kind),
             (long long)p->curves[kind].prompts, (long long)p->c->k, str_get(&line), T->at[best]);
    str_free(&line);
}

int results_write(Trainer *t, Rejection *p)
{
    int64_t n_empty = 0;
    int rc = 0;
    TRY(merge_parts(t, &n_empty));
    TRY(write_curves(t, p));
    log_info("%lld prompts, %lld answers (%lld without an end, never chosen), %lld selected, %lld prompts "
             "without a choice, %lld with no safe answer, %lld chosen answers empty and left out",
             (long long)p->total.n_prompts, (long long)p->total.n_answers,
             (long long)p->total.n_unfinished, (long long)(p->total.n_selected - n_empty),
             (long long)p->total.n_none, (long long)p->total.n_all_unsafe, (long long)n_empty);
    if (p->c->pools.n)
        log_info("pools: %lld answers competed, %lld of them selected; %lld were given again in this run",
                 (long long)p->total.n_pool, (long long)p->total.n_pool_selected,
                 (long long)p->total.n_pool_same);
    for (int kind = 0; kind < CURVE_KINDS; kind++)
        log_temperatures(p, kind);
    log_info("training records: %s/selected.jsonl; every answer with its scores: %s/samples.jsonl",
             t->run->out_dir, t->run->out_dir);
fail:
    return rc;
}
