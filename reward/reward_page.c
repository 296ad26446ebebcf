/* reward_page.c - the page of an evaluation: what was measured, plots, tables, notes. It computes nothing
 * but histograms. */
#include "common/train/plot.h"
#include "reward/reward_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HISTOGRAM_BINS = 24, PLOT_WIDTH = 560, PLOT_HEIGHT = 330 };

static const char style[] =
    "<style>h3{font-size:1.02em;margin:1.6em 0 .2em}.quiet{color:#667085;max-width:90ch;margin:.2em 0}"
    ".ci{color:#8a93a3;font-size:.88em;white-space:nowrap}.wide{overflow-x:auto}table{margin:.5em 0 1em}"
    "td{white-space:nowrap}.plots figure{margin:0}</style>\n";

/* ---- data of plots: columns for PlotSeries ----------------------------------------------------- */

typedef struct {
    double *x, *y, *low, *high;
    int n;
} Points;

static Points points_make(int n)
{
    double *at = xcalloc(4 * (size_t)n + 1, sizeof *at);
    return (Points){at, at + n, at + 2 * n, at + 3 * n, 0};
}

static void points_add(Points *p, double x, Interval v, double factor)
{
    p->x[p->n] = x;
    p->y[p->n] = factor * v.value;
    p->low[p->n] = factor * v.low;
    p->high[p->n++] = factor * v.high;
}

static void points_free(Points *p)
{
    free(p->x);
}

static PlotSeries series_of(const char *name, const Points *p, bool intervals)
{
    return (PlotSeries){name, p->x, p->y, intervals ? p->low : NULL, intervals ? p->high : NULL, p->n};
}

static void put_plot(Str *out, const char *kind, const char *of, Plot p)
{
    char *title = xasprintf("%s: %s", kind, of);
    p.title = title;
    p.width = PLOT_WIDTH;
    p.height = PLOT_HEIGHT;
    str_add(out, "<figure>");
    plot_svg(out, &p);
    str_add(out, "</figure>\n");
    free(title);
}

/* ---- accuracy in bins -------------------------------------------------------------------------- */

typedef struct {
    const char *name[STRENGTH_COUNT + BIN_COUNT + 1];
    int at[STRENGTH_COUNT + BIN_COUNT + 1]; /* strength, or safety bin */
    int n;
} Categories;

static const Accuracy *bin_of(const EvalTable *t, bool safety, int at)
{
    return safety ? &t->bin[at] : &t->strength[at];
}

/* As long as fits below a plot. */
static const char *const bin_ticks[BIN_COUNT] = {"safe, unsafe", "both safe", "both unsafe",
                                                 "unsafe, safe"};

static Categories categories(const EvalTable *t, bool safety)
{
    Categories c = {.n = 0};
    for (int i = 0; i < (safety ? BIN_COUNT : STRENGTH_COUNT); i++) {
        if (!bin_of(t, safety, i)->n)
            continue;
        c.at[c.n] = i;
        c.name[c.n++] = safety                  ? bin_ticks[i]
                        : i == STRENGTH_UNKNOWN ? "not rated"
                                                : strength_name((Strength)i);
    }
    return c;
}

static void plot_bins(Str *out, const RewardReport *e, int k, bool safety)
{
    Categories c = categories(&e->row[0].table[k], safety);
    Points *p = xcalloc((size_t)e->n_rows + 1, sizeof *p);
    PlotSeries *s = xcalloc((size_t)e->n_rows + 1, sizeof *s);
    for (int i = 0; i < e->n_rows; i++) {
        p[i] = points_make(c.n);
        for (int b = 0; b < c.n; b++)
            points_add(&p[i], b, accuracy_interval(*bin_of(&e->row[i].table[k], safety, c.at[b])), 100);
        s[i] = series_of(e->row[i].name, &p[i], true);
        s[i].x = p[0].x; /* the same places: drawn side by side */
    }
    if (c.n && (safety || c.n > 1 || c.at[0] != STRENGTH_UNKNOWN))
        put_plot(out, safety ? "Accuracy by safety" : "Accuracy by rating", e->set[k].name,
                 (Plot){.x_label = safety ? "labels of the chosen and the rejected answer" : "",
                        .y_label = "accuracy, %",
                        .series = s,
                        .n_series = e->n_rows,
                        .x_ticks = c.name,
                        .n_x_ticks = c.n});
    for (int i = 0; i < e->n_rows; i++)
        points_free(&p[i]);
    free(p);
    free(s);
}

/* ---- reliability ------------------------------------------------------------------------------- */

static void plot_reliability(Str *out, const RewardReport *e, int k, bool labels)
{
    const double low = labels ? 0 : .5, diagonal[2] = {low, 1};
    Points *p = xcalloc((size_t)e->n_rows + 1, sizeof *p);
    PlotSeries *s = xcalloc((size_t)e->n_rows + 1, sizeof *s);
    int n = 0;
    for (int i = 0; i < e->n_rows; i++) {
        const Reliability *r = labels ? &e->row[i].table[k].labels : &e->row[i].table[k].pairs;
        p[i] = points_make(RELIABILITY_BINS);
        if (!(r->n > 0))
            continue;
        for (int b = 0; b < RELIABILITY_BINS; b++) {
            if (r->bin[b].n > 0)
                points_add(&p[i], r->bin[b].predicted, r->bin[b].observed, 1);
        }
        s[n++] = series_of(e->row[i].name, &p[i], true);
    }
    s[n] = (PlotSeries){"exact", diagonal, diagonal, NULL, NULL, 2};
    if (n)
        put_plot(out, labels ? "Reliability, labels" : "Reliability, pairs", e->set[k].name,
                 (Plot){.x_label = labels ? "sigmoid(score)" : "sigmoid(difference of scores)",
                        .y_label = labels ? "share that is safe" : "share chosen",
                        .series = s,
                        .n_series = n + 1});
    for (int i = 0; i < e->n_rows; i++)
        points_free(&p[i]);
    free(p);
    free(s);
}

/* Figure 29's counterpart where the ratings are of pairs: how far apart the scores are, by how sure people
 * were. */
static void plot_differences(Str *out, const RewardReport *e, int k)
{
    Categories c = categories(&e->row[0].table[k], false);
    Points *p = xcalloc((size_t)e->n_rows + 1, sizeof *p);
    PlotSeries *s = xcalloc((size_t)e->n_rows + 1, sizeof *s);
    int n = 0;
    for (int i = 0; i < e->n_rows && e->row[i].who == EVAL_MODEL; i++, n++) {
        p[i] = points_make(c.n);
        for (int b = 0; b < c.n; b++)
            points_add(&p[i], b, e->row[i].table[k].difference[c.at[b]], 1);
        s[i] = series_of(e->row[i].name, &p[i], true);
        s[i].x = p[0].x;
    }
    if (c.n > 1)
        put_plot(out, "Difference of the scores by rating", e->set[k].name,
                 (Plot){.y_label = "chosen - rejected",
                        .series = s,
                        .n_series = n,
                        .x_ticks = c.name,
                        .n_x_ticks = c.n});
    for (int i = 0; i < n; i++)
        points_free(&p[i]);
    free(p);
    free(s);
}

/* ---- distributions of scores ------------------------------------------------------------------- */

/* Class of an answer: 0 or 1 as in the names of plot_scores, -1 none. */
static int class_of(const PairItem *it, int q, bool labels)
{
    if (!labels)
        return it->n_seqs == 2 ? q : -1;
    return it->label[q] == SAFETY_UNKNOWN ? -1 : it->label[q] == SAFETY_UNSAFE;
}

static void histogram(const EvalSet *set, const float (*score)[2], bool labels, double from, double to,
                      Points p[2])
{
    double total[2] = {0};
    for (int h = 0; h < 2; h++) {
        for (int b = 0; b < HISTOGRAM_BINS; b++)
            points_add(&p[h], from + (b + .5) * (to - from) / HISTOGRAM_BINS, (Interval){0, 0, 0}, 1);
    }
    for (int64_t i = 0; i < set->view.n; i++) {
        for (int q = 0; q < set->view.at[i].n_seqs; q++) {
            int h = class_of(&set->view.at[i], q, labels);
            int b = (int)(((double)score[i][q] - from) / (to - from) * HISTOGRAM_BINS);
            if (h < 0)
                continue;
            p[h].y[b < HISTOGRAM_BINS ? b : HISTOGRAM_BINS - 1]++;
            total[h]++;
        }
    }
    for (int h = 0; h < 2; h++) {
        for (int b = 0; b < HISTOGRAM_BINS; b++)
            p[h].y[b] *= total[h] ? 100 / total[h] : 0;
    }
}

static void plot_scores(Str *out, const RewardReport *e, int i, int k)
{
    const EvalSet *set = &e->set[k];
    const EvalTable *t = &e->row[i].table[k];
    const bool labels = t->n_labels > 0;
    double from = t->min_reward, to = t->max_reward > t->min_reward ? t->max_reward : t->min_reward + 1;
    Points p[2] = {points_make(HISTOGRAM_BINS), points_make(HISTOGRAM_BINS)};
    if (set->view.n)
        histogram(set, (const float(*)[2])e->row[i].score + set->first, labels, from, to, p);
    PlotSeries s[2] = {series_of(labels ? "safe" : "chosen", &p[0], false),
                       series_of(labels ? "unsafe" : "rejected", &p[1], false)};
    char *of = xasprintf("%s on %s", e->row[i].name, set->name);
    put_plot(out, "Scores", of,
             (Plot){.x_label = "score", .y_label = "% of the answers", .series = s, .n_series = 2});
    free(of);
    points_free(&p[0]);
    points_free(&p[1]);
}

/* ---- accuracy against training-set size -------------------------------------------------------- */

/* Lines by name of the curve's points, then flat ones of the rows that are no model. */
static void plot_curve(Str *out, const RewardReport *e, int k, bool significant)
{
    const int most = e->n_curve + e->n_rows;
    Points *p = xcalloc((size_t)most + 1, sizeof *p);
    PlotSeries *s = xcalloc((size_t)most + 1, sizeof *s);
    double from = INFINITY, to = 0;
    int n = 0;
    for (int i = 0; i < e->n_curve; i++) {
        const EvalTable *t = &e->curve[i].table[k];
        if (!i || strcmp(e->curve[i].name, e->curve[i - 1].name) != 0)
            p[n++] = points_make(e->n_curve);
        points_add(&p[n - 1], e->curve[i].examples,
                   accuracy_interval(significant ? t->strength[STRENGTH_SIGNIFICANT] : t->all), 100);
        s[n - 1] = series_of(e->curve[i].name, &p[n - 1], true);
        from = fmin(from, e->curve[i].examples);
        to = fmax(to, e->curve[i].examples);
    }
    for (int i = 0; i < e->n_rows; i++) {
        const EvalTable *t = &e->row[i].table[k];
        if (e->row[i].who == EVAL_MODEL)
            continue;
        p[n] = points_make(2);
        Interval v = accuracy_interval(significant ? t->strength[STRENGTH_SIGNIFICANT] : t->all);
        points_add(&p[n], from, v, 100);
        points_add(&p[n], to, v, 100);
        s[n] = series_of(e->row[i].name, &p[n], false);
        n++;
    }
    put_plot(out, significant ? "Significantly better pairs" : "All pairs", e->set[k].name,
             (Plot){.x_label = "pairs and labelled answers trained on", .y_label = "accuracy, %", .series = s, .n_series = n});
    for (int i = 0; i < n; i++)
        points_free(&p[i]);
    free(p);
    free(s);
}

/* ---- the page ---------------------------------------------------------------------------------- */

static void put_heading(Str *out, const char *title, const char *text)
{
    str_addf(out, "<h2>%s</h2>\n<p class=\"quiet\">%s</p>\n<div class=\"plots\">\n", title, text);
}

static void put_plots(Str *out, const RewardReport *e)
{
    Str bins = {0};
    for (int k = 0; k < e->n_sets; k++) {
        if (e->set[k].n_pairs) {
            plot_bins(&bins, e, k, false);
            plot_bins(&bins, e, k, true);
        }
    }
    if (bins.n) {
        put_heading(
            out, "Accuracy",
            "How often the chosen answer has the higher score, by what the annotators said of the pair.");
        str_addf(out, "%s</div>\n", str_get(&bins));
    }
    str_free(&bins);
    if (e->n_curve) {
        put_heading(out, "Accuracy against training-set size",
                    "Each point is a training of its own. Bands are 95 % intervals.");
        for (int k = 0; k < e->n_sets; k++) {
            if (!e->set[k].n_pairs)
                continue;
            plot_curve(out, e, k, false);
            if (e->row[0].table[k].strength[STRENGTH_SIGNIFICANT].n)
                plot_curve(out, e, k, true);
        }
        str_add(out, "</div>\n");
    }
    put_heading(
        out, "Calibration",
        "Below the diagonal a model is surer than it should be; each point is a tenth of the range, "
        "empty ones are left out. The difference of two scores should grow with the annotators' "
        "preference.");
    for (int k = 0; k < e->n_sets; k++) {
        plot_reliability(out, e, k, false);
        plot_reliability(out, e, k, true);
        plot_differences(out, e, k);
    }
    str_add(out, "</div>\n");
    put_heading(out, "Scores",
                "The linear outputs of the models. A threshold at sigmoid 0.5 is a score of 0, at 0.15 "
                "one of -1.73.");
    for (int k = 0; k < e->n_sets; k++) {
        for (int i = 0; i < e->n_rows && e->row[i].who == EVAL_MODEL; i++)
            plot_scores(out, e, i, k);
    }
    str_add(out, "</div>\n");
}

static void put_who(Str *out, const RewardReport *e)
{
    str_add(out, "<ul>\n");
    for (int i = 0; i < e->n_rows; i++) {
        const EvalRow *r = &e->row[i];
        str_add(out, "<li><b>");
        html_escape(out, r->name);
        str_add(out, "</b>: ");
        html_escape(out, r->path ? r->path : "the longer answer wins");
        if (r->who == EVAL_JUDGE)
            str_add(out, ", asked which of two answers is better");
        if (r->who == EVAL_MODEL && r->calibration.present)
            str_add(out, r->calibration.anchored ? ", its zero anchored by safety labels"
                                                 : ", its zero not anchored: thresholds "
                                                   "on its score mean little");
        str_add(out, "</li>\n");
    }
    str_add(out, "</ul>\n");
}

void reward_report_html(const RewardReport *e, Str *out)
{
    GridList l = {0};
    reward_report_grids(e, &l);
    html_begin(out, "Evaluation of reward models");
    str_add(out, style);
    put_who(out, e);
    for (int i = 0; i < l.n && i < 2; i++) /* sets and accuracies, the essence, come first */
        grid_html(&l.at[i], out);
    put_plots(out, e);
    str_add(out, "<h2>Tables</h2>\n");
    for (int i = 2; i < l.n; i++)
        grid_html(&l.at[i], out);
    if (e->answer) {
        str_add(out, "<details><summary>What the judge was asked</summary><pre>");
        html_escape(out, e->judge_prompt);
        str_add(out, "</pre></details>\n");
    }
    str_add(out, "<h2>Notes</h2>\n<p>");
    html_escape(out, reward_report_note);
    str_add(out, "</p>\n");
    html_end(out);
    grid_list_free(&l);
}
