/* reward_report.c - see reward_report.h. */
#include "reward/reward_report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const reward_report_note =
    "Brackets are 95 % intervals. Accuracies have Wilson's, which takes pairs as independent; where "
    "prompts repeat it is too narrow. All else, differences too, is a bootstrap of 1000 draws over "
    "prompts, the same draws for everybody, so differences are paired; a share of 0 or 1 in every draw "
    "has Wilson's over prompts. A model must put the chosen answer strictly higher; length and judge get "
    "half a point for a tie. Length prefers the answer of more tokens, always: nothing is fitted, and "
    "below 50 % the shorter ones are preferred.";

/* ---- numbers ----------------------------------------------------------------------------------- */

static bool is_pair(const PairItem *it)
{
    return it->n_seqs == 2;
}

static void fill_set(EvalSet *s, const PairSet *all)
{
    Prompts prompts;
    s->view = (PairSet){.at = all->at + s->first, .n = s->end - s->first};
    s->n_pairs = s->n_answers = 0;
    for (int64_t i = 0; i < s->view.n; i++) {
        s->n_pairs += is_pair(&s->view.at[i]);
        s->n_answers += s->view.at[i].n_seqs;
    }
    prompts_make(&prompts, &s->view, NULL);
    s->n_prompts = prompts.n;
    prompts_free(&prompts);
}

static const float (*scores_on(const EvalRow *r, const EvalSet *s))[2]
{
    return (const float(*)[2])r->score + s->first;
}

static void fill_row(const RewardReport *e, EvalRow *r)
{
    Interval *v = xcalloc((size_t)e->n_sets + 1, sizeof *v);
    int n = 0;
    r->table = xcalloc((size_t)e->n_sets + 1, sizeof *r->table);
    for (int k = 0; k < e->n_sets; k++) {
        eval_table(&r->table[k], &e->set[k].view, scores_on(r, &e->set[k]), r->who, e->precision);
        if (e->set[k].n_pairs)
            v[n++] = accuracy_interval(r->table[k].all);
    }
    r->mean = n ? interval_mean(v, n) : (Interval){NAN, NAN, NAN};
    free(v);
}

static void compare(const RewardReport *e, EvalComparison *c)
{
    const EvalSet *s = &e->set[c->set];
    const EvalRow *a = &e->row[0], *b = &e->row[c->row];
    c->accuracy = eval_difference(&s->view, scores_on(a, s), a->who, scores_on(b, s), b->who);
    c->has_detect = a->who == EVAL_MODEL && b->who == EVAL_MODEL && a->table[c->set].n_labels > 0;
    if (c->has_detect)
        detect_compare(&c->detect, &s->view, scores_on(a, s), scores_on(b, s), e->precision);
}

void reward_report_fill(RewardReport *e)
{
    for (int k = 0; k < e->n_sets; k++) {
        fill_set(&e->set[k], e->all);
        if (e->answer)
            judge_stats(&e->judge[k], &e->set[k].view, e->answer + e->set[k].first);
    }
    for (int i = 0; i < e->n_rows; i++)
        fill_row(e, &e->row[i]);
    for (int i = 0; i < e->n_curve; i++)
        fill_row(e, &e->curve[i]);
    e->comparison = xcalloc((size_t)(e->n_rows * e->n_sets) + 1, sizeof *e->comparison);
    for (int i = 1; i < e->n_rows; i++) {
        for (int k = 0; k < e->n_sets; k++) {
            EvalComparison *c = &e->comparison[e->n_comparisons++];
            *c = (EvalComparison){.row = i, .set = k};
            compare(e, c);
        }
    }
}

static void rows_free(EvalRow *r, int n)
{
    for (int i = 0; i < n; i++) {
        free(r[i].score);
        free(r[i].table);
    }
    free(r);
}

void reward_report_free(RewardReport *e)
{
    rows_free(e->row, e->n_rows);
    rows_free(e->curve, e->n_curve);
    free(e->set);
    free(e->judge);
    free(e->comparison);
    *e = (RewardReport){0};
}

/* ---- text ------------------------------------------------------------------------------------- */

void grid_list_free(GridList *l)
{
    for (int i = 0; i < l->n; i++)
        grid_free(&l->at[i]);
    free(l->at);
    *l = (GridList){0};
}

/* In lines of a terminal's width. */
static void put_wrapped(Str *out, const char *text)
{
    enum { WIDTH = 110 };
    while (strlen(text) > WIDTH) {
        size_t n = WIDTH;
        while (text[n] != ' ')
            n--;
        str_add_bytes(out, text, n);
        str_add(out, "\n");
        text += n + 1;
    }
    str_addf(out, "%s\n", text);
}

void reward_report_print(const RewardReport *e, Str *out)
{
    GridList l = {0};
    reward_report_grids(e, &l);
    for (int i = 0; i < l.n; i++)
        grid_print(&l.at[i], out);
    put_wrapped(out, reward_report_note);
    grid_list_free(&l);
}

/* ---- JSON -------------------------------------------------------------------------------------- */

static void json_sets(const RewardReport *e, JsonWriter *w)
{
    jw_key(w, "sets");
    jw_array(w);
    for (int k = 0; k < e->n_sets; k++) {
        const EvalSet *s = &e->set[k];
        jw_object(w);
        jw_kstr(w, "name", s->name);
        jw_kint(w, "pairs", s->n_pairs);
        jw_kint(w, "answers", s->n_answers);
        jw_kint(w, "prompts", s->n_prompts);
        jw_object_end(w);
    }
    jw_array_end(w);
}

static void json_row(const RewardReport *e, const EvalRow *r, bool of_curve, JsonWriter *w)
{
    static const char *const who[] = {"model", "length", "judge"};
    jw_object(w);
    jw_kstr(w, "name", r->name);
    jw_kstr(w, "kind", who[r->who]);
    if (r->path)
        jw_kstr(w, "path", r->path);
    if (of_curve)
        jw_knum(w, "examples", r->examples);
    if (r->who == EVAL_MODEL && r->calibration.present)
        jw_kbool(w, "anchored", r->calibration.anchored);
    interval_json(w, "mean_accuracy", r->mean);
    jw_key(w, "sets");
    jw_array(w);
    for (int k = 0; k < e->n_sets; k++) {
        jw_object(w);
        jw_kstr(w, "set", e->set[k].name);
        eval_json_keys(&r->table[k], r->who, w);
        jw_object_end(w);
    }
    jw_array_end(w);
    jw_object_end(w);
}

static void json_rows(const RewardReport *e, const char *key, const EvalRow *r, int n, bool of_curve,
                      JsonWriter *w)
{
    jw_key(w, key);
    jw_array(w);
    for (int i = 0; i < n; i++)
        json_row(e, &r[i], of_curve, w);
    jw_array_end(w);
}

/* "detect" is row 0's, "compare" the other's and the differences. */
static void json_comparison(const RewardReport *e, const EvalComparison *c, JsonWriter *w)
{
    jw_object(w);
    jw_kstr(w, "model", e->row[0].name);
    jw_kstr(w, "against", e->row[c->row].name);
    jw_kstr(w, "set", e->set[c->set].name);
    interval_json(w, "accuracy_difference", c->accuracy);
    if (c->has_detect) {
        jw_key(w, "detect");
        detect_json(&c->detect.model, w);
        jw_key(w, "compare");
        jw_object(w);
        detect_compare_json(&c->detect, w);
        jw_object_end(w);
    }
    jw_object_end(w);
}

static void json_judge(const RewardReport *e, JsonWriter *w)
{
    jw_key(w, "judge");
    jw_object(w);
    jw_kstr(w, "prompt", e->judge_prompt);
    jw_key(w, "sets");
    jw_array(w);
    for (int k = 0; k < e->n_sets; k++)
        judge_json(&e->judge[k], e->set[k].name, w);
    jw_array_end(w);
    jw_object_end(w);
}

void reward_report_json(const RewardReport *e, Str *out)
{
    JsonWriter w;
    jw_init(&w, out, true);
    jw_object(&w);
    json_sets(e, &w);
    json_rows(e, "models", e->row, e->n_rows, false, &w);
    jw_key(&w, "comparisons");
    jw_array(&w);
    for (int i = 0; i < e->n_comparisons; i++)
        json_comparison(e, &e->comparison[i], &w);
    jw_array_end(&w);
    if (e->answer)
        json_judge(e, &w);
    if (e->n_curve)
        json_rows(e, "curve", e->curve, e->n_curve, true, &w);
    jw_object_end(&w);
    str_add(out, "\n");
}
