/* reward_tables.c - the tables of an evaluation, for text and page alike: one function each, in the order in which
 * they are shown at the end of the file. Tested by tests/unit/test_reward_report.c. */
#include "reward/reward_report.h"

#include <math.h>
#include <stdlib.h>

static Grid *new_grid(GridList *l)
{
    int at = VEC_GROW(l->at, l->n, l->cap);
    return &l->at[at];
}

static void put_share(Grid *g, Accuracy a)
{
    grid_interval(g, accuracy_interval(a), 100, 1, false);
}

static const EvalComparison *comparison_of(const RewardReport *e, int row, int set)
{
    return &e->comparison[(row - 1) * e->n_sets + set];
}

static int sets_with_pairs(const RewardReport *e)
{
    int n = 0;
    for (int k = 0; k < e->n_sets; k++)
        n += e->set[k].n_pairs > 0;
    return n;
}

static void columns_of_sets(Grid *g, const RewardReport *e)
{
    for (int k = 0; k < e->n_sets; k++) {
        if (e->set[k].n_pairs)
            grid_column(g, e->set[k].name);
    }
    if (sets_with_pairs(e) > 1)
        grid_column(g, "mean of the sets");
}

static void grid_sets(GridList *l, const RewardReport *e)
{
    Grid *g = new_grid(l);
    grid_init(g, "Test sets", NULL, "set", "pairs", "answers", "prompts", "labels", "unsafe", NULL);
    for (int k = 0; k < e->n_sets; k++) {
        const EvalSet *s = &e->set[k];
        grid_text(g, s->name);
        grid_count(g, s->n_pairs);
        grid_count(g, s->n_answers);
        grid_count(g, s->n_prompts);
        grid_count(g, e->row[0].table[k].n_labels);
        grid_count(g, e->row[0].table[k].n_unsafe);
    }
}

/* Llama 2, table 7. */
static void grid_accuracy(GridList *l, const RewardReport *e)
{
    Grid *g = new_grid(l);
    grid_init(g, "Accuracy, %: the chosen answer above the rejected one",
              "The mean counts every set the same; its interval takes the sets as independent.", "", NULL);
    columns_of_sets(g, e);
    for (int i = 0; i < e->n_rows; i++) {
        grid_text(g, e->row[i].name);
        for (int k = 0; k < e->n_sets; k++) {
            if (e->set[k].n_pairs)
                put_share(g, e->row[i].table[k].all);
        }
        if (sets_with_pairs(e) > 1)
            grid_interval(g, e->row[i].mean, 100, 1, false);
    }
}

static void grid_differences(GridList *l, const RewardReport *e)
{
    Grid *g = new_grid(l);
    char *title = xasprintf("Accuracy of %s minus that of each other, points, paired", e->row[0].name);
    grid_init(g, title,
              "On the pairs that both looked at. An interval without 0: the difference is not chance.", "",
              NULL);
    free(title);
    columns_of_sets(g, e);
    for (int i = 1; i < e->n_rows; i++) {
        Interval *v = xcalloc((size_t)e->n_sets + 1, sizeof *v);
        int n = 0;
        grid_text(g, e->row[i].name);
        for (int k = 0; k < e->n_sets; k++) {
            if (!e->set[k].n_pairs)
                continue;
            v[n++] = comparison_of(e, i, k)->accuracy;
            grid_interval(g, v[n - 1], 100, 1, true);
        }
        if (n > 1)
            grid_interval(g, interval_mean(v, n), 100, 1, true);
        free(v);
    }
}

/* A row per set and row of e, named in the first two columns. */
static bool next_line(Grid *g, const RewardReport *e, int i, int k)
{
    if (!e->set[k].n_pairs)
        return false;
    grid_text(g, e->row[i].name);
    grid_text(g, e->set[k].name);
    return true;
}

static bool has_ratings(const RewardReport *e)
{
    for (int k = 0; k < e->n_sets; k++) {
        if (e->row[0].table[k].strength[STRENGTH_UNKNOWN].n < e->set[k].n_pairs)
            return true;
    }
    return false;
}

/* Llama 2, table 8. */
static void grid_ratings(GridList *l, const RewardReport *e)
{
    bool used[STRENGTH_COUNT] = {false};
    Grid *g = new_grid(l);
    grid_init(g, "Accuracy by rating, %", "How much better the annotators called the chosen answer.", "",
              "test set", NULL);
    for (int s = 0; s < STRENGTH_COUNT; s++) {
        for (int k = 0; k < e->n_sets; k++)
            used[s] = used[s] || e->row[0].table[k].strength[s].n;
        if (used[s])
            grid_column(g, s == STRENGTH_UNKNOWN ? "not rated" : strength_name((Strength)s));
    }
    grid_column(g, "all");
    for (int k = 0; k < e->n_sets; k++) {
        for (int i = 0; i < e->n_rows; i++) {
            if (!next_line(g, e, i, k))
                continue;
            for (int s = 0; s < STRENGTH_COUNT; s++) {
                if (used[s])
                    put_share(g, e->row[i].table[k].strength[s]);
            }
            put_share(g, e->row[i].table[k].all);
        }
    }
}

/* Llama 2, table 29. */
static void grid_safety(GridList *l, const RewardReport *e)
{
    Grid *g = new_grid(l);
    grid_init(g, "Accuracy by safety, %",
              "By the labels of the chosen and the rejected answer. Recall: of the unsafe answers, those "
              "with sigmoid(score) below 0.5.",
              "", "test set", NULL);
    for (int b = 0; b < BIN_COUNT; b++)
        grid_column(g, safety_bin_name((SafetyBin)b));
    grid_column(g, "recall of unsafe");
    for (int k = 0; k < e->n_sets; k++) {
        for (int i = 0; i < e->n_rows; i++) {
            if (!e->row[0].table[k].n_labels || !next_line(g, e, i, k))
                continue;
            for (int b = 0; b < BIN_COUNT; b++)
                put_share(g, e->row[i].table[k].bin[b]);
            if (e->row[i].who == EVAL_MODEL)
                grid_interval(g, e->row[i].table[k].detect.at[DETECT_RECALL_50], 100, 1, false);
            else
                grid_text(g, "-");
        }
    }
}

static void put_threshold(Grid *g, const Detect *d)
{
    char *text = isnan(d->threshold) ? xstrdup("none")
                                     : xasprintf("score < %.3f, sigmoid < %.3g", d->threshold,
                                                 1 / (1 + exp(-d->threshold)));
    grid_text(g, text);
    free(text);
}

static int count_models(const RewardReport *e)
{
    int n = 0;
    while (n < e->n_rows && e->row[n].who == EVAL_MODEL)
        n++;
    return n;
}

/* Threshold that has the wished precision, above the line of its recall. */
static void line_threshold(Grid *g, const RewardReport *e, int k, int models)
{
    char *label = xasprintf("threshold with precision %g", e->precision);
    grid_text(g, label);
    free(label);
    for (int i = 0; i < models; i++)
        put_threshold(g, &e->row[i].table[k].detect);
    for (int i = 1; i < models; i++)
        grid_text(g, "");
}

/* Recall of model 0 at the precision that model i has at sigmoid 0.5. */
static void line_same_precision(Grid *g, const RewardReport *e, int k, int models, int i)
{
    const DetectComparison *c = &comparison_of(e, i, k)->detect;
    char *label = xasprintf("recall at precision %.3f (%s's)", c->other.at[DETECT_PRECISION_50].value,
                            e->row[i].name);
    grid_text(g, label);
    free(label);
    grid_interval(g, c->recall_at_same, 1, 3, false);
    for (int part = 0; part < 2; part++) { /* the other model's column, then that of the difference */
        for (int m = 1; m < models; m++) {
            if (m == i)
                grid_interval(g, part ? c->recall_difference_at_same : c->other.at[DETECT_RECALL_50], 1, 3,
                              part);
            else
                grid_text(g, "");
        }
    }
}

static void grid_detect(GridList *l, const RewardReport *e, int k)
{
    const int models = count_models(e);
    Grid *g = new_grid(l);
    char *title = xasprintf("Calling an answer unsafe: %s", e->set[k].name);
    grid_init(g, title,
              "Over all prompts together: what a threshold does, as switch.threshold of rlhf-ppo. Unsafe "
              "is a low score.",
              "", NULL);
    free(title);
    for (int i = 0; i < models; i++)
        grid_column(g, e->row[i].name);
    for (int i = 1; i < models; i++) {
        char *name = xasprintf("%s - %s", e->row[0].name, e->row[i].name);
        grid_column(g, name);
        free(name);
    }
    for (int m = 0; m < DETECT_COUNT; m++) {
        if (m == DETECT_RECALL_AT)
            line_threshold(g, e, k, models);
        grid_text(g, detect_label((DetectMeasure)m));
        for (int i = 0; i < models; i++)
            grid_interval(g, e->row[i].table[k].detect.at[m], 1, 3, false);
        for (int i = 1; i < models; i++)
            grid_interval(g, comparison_of(e, i, k)->detect.difference[m], 1, 3, true);
    }
    for (int i = 1; i < models; i++) {
        if (!isnan(comparison_of(e, i, k)->detect.recall_at_same.value))
            line_same_precision(g, e, k, models, i);
    }
}

static void grid_length(GridList *l, const RewardReport *e)
{
    Grid *g = new_grid(l);
    grid_init(g, "Accuracy by length, %",
              "Who follows length is right where the chosen answer is longer and wrong where it is "
              "shorter.",
              "", "test set", "chosen longer", "pairs", "chosen shorter", "pairs", NULL);
    for (int k = 0; k < e->n_sets; k++) {
        for (int i = 0; i < e->n_rows; i++) {
            const EvalTable *t = &e->row[i].table[k];
            if (e->row[i].who == EVAL_LENGTH || !next_line(g, e, i, k))
                continue;
            put_share(g, t->chosen_longer);
            grid_count(g, t->chosen_longer.n);
            put_share(g, t->chosen_shorter);
            grid_count(g, t->chosen_shorter.n);
        }
    }
}

static void grid_calibration(GridList *l, const RewardReport *e)
{
    Grid *g = new_grid(l);
    grid_init(g, "Calibration",
              "Pairs: sigmoid of the difference of two scores against how often the higher one was "
              "chosen. Labels: sigmoid of a score against how often the answer is safe. Error: mean "
              "distance of the two over ten bins, above 0 by chance alone in small sets. Brier score: "
              "mean squared error, 0.25 for always saying one half.",
              "", "test set", "error, pairs", "Brier, pairs", "error, labels", "Brier, labels", NULL);
    for (int k = 0; k < e->n_sets; k++) {
        for (int i = 0; i < e->n_rows; i++) {
            const EvalTable *t = &e->row[i].table[k];
            if (e->row[i].who == EVAL_LENGTH || !(t->pairs.n + t->labels.n > 0))
                continue;
            grid_text(g, e->row[i].name);
            grid_text(g, e->set[k].name);
            const Reliability *const part[2] = {&t->pairs, &t->labels};
            for (int p = 0; p < 2; p++) {
                Interval none = {NAN, NAN, NAN};
                grid_interval(g, part[p]->n > 0 ? part[p]->error : none, 1, 3, false);
                grid_interval(g, part[p]->n > 0 ? part[p]->brier : none, 1, 3, false);
            }
        }
    }
}

static void grid_judge(GridList *l, const RewardReport *e)
{
    Grid *g = new_grid(l);
    grid_init(g, "The judge",
              "Asked twice about a pair, the chosen answer once as A and once as B. Its verdict is the "
              "mean of both log odds. Agreement: both orders prefer the same answer. Says A: 50 % "
              "without a liking for a place; log odds of A: that liking. Mass: probability of the two "
              "letters together; when it is small the judge does not answer the question.",
              "test set", "pairs", "too long", "accuracy, %", "chosen is A, %", "chosen is B, %",
              "agreement, %", "says A, %", "log odds of A", "mass, %", NULL);
    for (int k = 0; k < e->n_sets; k++) {
        const JudgeStats *s = &e->judge[k];
        grid_text(g, e->set[k].name);
        grid_count(g, s->both.n);
        grid_count(g, s->n_long);
        put_share(g, s->both);
        put_share(g, s->order[0]);
        put_share(g, s->order[1]);
        grid_interval(g, s->agreement, 100, 1, false);
        grid_interval(g, s->says_first, 100, 1, false);
        grid_interval(g, s->liking, 1, 2, true);
        grid_interval(g, s->mass, 100, 1, false);
    }
}

/* Llama 2, figure 6. */
static void grid_curve(GridList *l, const RewardReport *e)
{
    Grid *g = new_grid(l);
    grid_init(g, "Accuracy against training-set size, %",
              "Separate trainings; on nested sets when made with data.fraction.", "", "trained on", NULL);
    columns_of_sets(g, e);
    for (int i = 0; i < e->n_curve; i++) {
        const EvalRow *r = &e->curve[i];
        grid_text(g, r->name);
        grid_count(g, (int64_t)r->examples);
        for (int k = 0; k < e->n_sets; k++) {
            if (e->set[k].n_pairs)
                put_share(g, r->table[k].all);
        }
        if (sets_with_pairs(e) > 1)
            grid_interval(g, r->mean, 100, 1, false);
    }
}

void reward_report_grids(const RewardReport *e, GridList *out)
{
    bool labelled_pairs = false, pairs = sets_with_pairs(e) > 0;
    for (int k = 0; k < e->n_sets; k++)
        labelled_pairs = labelled_pairs || (e->set[k].n_pairs && e->row[0].table[k].n_labels);
    grid_sets(out, e);
    if (pairs) {
        grid_accuracy(out, e);
        if (e->n_rows > 1)
            grid_differences(out, e);
        if (has_ratings(e))
            grid_ratings(out, e);
    }
    if (labelled_pairs)
        grid_safety(out, e);
    for (int k = 0; k < e->n_sets; k++) {
        if (e->row[0].table[k].n_labels)
            grid_detect(out, e, k);
    }
    if (pairs)
        grid_length(out, e);
    grid_calibration(out, e);
    if (e->answer)
        grid_judge(out, e);
    if (e->n_curve)
        grid_curve(out, e);
}
