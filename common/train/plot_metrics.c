/* plot_metrics.c - curves of a metrics.jsonl: one plot per key, keys in groups by the part before '/'.
 * Long runs are drawn as means of runs of steps, with a band from the least to the greatest value.
 * Tested by tests/unit/test_plot.c. */
#include "common/train/plot.h"

#include "common/base/error.h"
#include "common/base/json.h"
#include "common/base/stream.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { POINTS = 400 }; /* drawn per curve at most */

typedef struct {
    char *name;
    double *x, *y;
    int n, cap, cap_y, n_y;
} Curve;

typedef struct {
    Curve *at;
    int n, cap;
} Curves;

static Curve *curve_of(Curves *c, const char *name)
{
    for (int i = 0; i < c->n; i++) {
        if (!strcmp(c->at[i].name, name))
            return &c->at[i];
    }
    int i = VEC_GROW(c->at, c->n, c->cap);
    c->at[i] = (Curve){.name = xstrdup(name)};
    return &c->at[i];
}

static void curve_add(Curve *c, double x, double y)
{
    int i = VEC_GROW(c->x, c->n, c->cap), k = VEC_GROW(c->y, c->n_y, c->cap_y);
    c->x[i] = x;
    c->y[k] = y;
}

static void curves_free(Curves *c)
{
    for (int i = 0; i < c->n; i++) {
        free(c->at[i].name);
        free(c->at[i].x);
        free(c->at[i].y);
    }
    free(c->at);
}

static void add_row(Curves *c, Json *row)
{
    double step = json_num(json_get(row, "step"), NAN);
    for (void *it = json_iter(row); it; it = json_iter_next(row, it)) {
        const char *key = json_iter_key(it);
        JsonKind kind = json_kind(json_iter_value(it));
        if (strcmp(key, "step") != 0 && (kind == JSON_INT || kind == JSON_NUM || kind == JSON_NIL))
            curve_add(curve_of(c, key), step, json_num(json_iter_value(it), NAN));
    }
}

static int read_curves(Curves *c, const char *path)
{
    Reader *r = NULL;
    char *line;
    size_t n;
    int rc = 0, more;
    TRY(reader_open(&r, path));
    while ((more = reader_line(r, &line, &n)) > 0) {
        Json *row = NULL;
        if (n == 0)
            continue;
        TRY(json_parse(&row, line, n, path, reader_line_number(r)));
        add_row(c, row);
        json_free(row);
    }
    rc = more;
fail:
    reader_close(r);
    return rc;
}

static void draw(Str *out, const Curve *c)
{
    double x[POINTS], y[POINTS], low[POINTS], high[POINTS];
    int n = c->n < POINTS ? c->n : POINTS;
    for (int k = 0; k < n; k++) {
        int from = (int)((int64_t)c->n * k / n), to = (int)((int64_t)c->n * (k + 1) / n), used = 0;
        double sum = 0;
        low[k] = INFINITY;
        high[k] = -INFINITY;
        for (int i = from; i < to; i++) {
            if (!isfinite(c->y[i]))
                continue;
            sum += c->y[i];
            low[k] = fmin(low[k], c->y[i]);
            high[k] = fmax(high[k], c->y[i]);
            used++;
        }
        x[k] = (c->x[from] + c->x[to - 1]) / 2;
        y[k] = used ? sum / used : NAN;
    }
    bool whole = n == c->n;
    PlotSeries s = {c->name, x, y, whole ? NULL : low, whole ? NULL : high, n};
    plot_svg(out, &(Plot){.title = c->name, .x_label = "step", .series = &s, .n_series = 1, .width = 370,
                          .height = 240});
}

static size_t group_length(const char *name)
{
    const char *slash = strchr(name, '/');
    return slash ? (size_t)(slash - name) : 0;
}

static bool same_group(const char *a, const char *b)
{
    size_t n = group_length(a);
    return n == group_length(b) && !strncmp(a, b, n);
}

int plot_metrics(Str *out, const char *metrics_path)
{
    Curves c = {0};
    int rc = 0;
    TRY(read_curves(&c, metrics_path));
    for (int i = 0; i < c.n; i++) {
        bool first = true;
        for (int k = 0; k < i; k++)
            first = first && !same_group(c.at[i].name, c.at[k].name);
        if (!first)
            continue;
        char *group = xstrndup(c.at[i].name, group_length(c.at[i].name));
        str_add(out, "<h2>");
        html_escape(out, *group ? group : "training");
        str_add(out, "</h2>\n<div class=\"plots\">\n");
        free(group);
        for (int k = i; k < c.n; k++) {
            if (same_group(c.at[i].name, c.at[k].name))
                draw(out, &c.at[k]);
        }
        str_add(out, "</div>\n");
    }
fail:
    curves_free(&c);
    return rc;
}
