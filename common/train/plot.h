/* plot.h - self-contained HTML pages with SVG line and interval plots; no script, no download. */
#ifndef RLHF_TRAIN_PLOT_H
#define RLHF_TRAIN_PLOT_H

#include "common/base/mem.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    const char *name;
    const double *x, *y;       /* n points; NaN breaks the line */
    const double *low, *high;  /* intervals, or NULL */
    int n;
} PlotSeries;

typedef struct {
    const char *title, *x_label, *y_label;
    const PlotSeries *series;
    int n_series;
    const char *const *x_ticks; /* category names at x = 0, 1, 2, ...; NULL = numeric axis */
    int n_x_ticks;
    int width, height;          /* 0 = 560 x 320 */
} Plot;

void html_escape(Str *out, const char *s);
void html_begin(Str *out, const char *title);
void html_end(Str *out);
void plot_svg(Str *out, const Plot *p);
/* Plots of every numeric key of a metrics.jsonl against step, in groups by the part before '/'. */
int plot_metrics(Str *out, const char *metrics_path);

#endif
