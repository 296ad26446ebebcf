/* plot.c - line and interval plots as SVG inside a page without scripts. The one idea: everything is
 * placed by two linear maps from data to pixels (x and y), made from ticks that are multiples of
 * 1, 2 or 5 times a power of ten. Tested by tests/unit/test_plot.c. */
#include "common/train/plot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const colours[] = {"#2563b0", "#d1602b", "#2f8f4e", "#8e4ba8", "#b3892c", "#c23b5a",
                                      "#2e9aa8", "#6b6b6b"};
enum { N_COLOURS = 8, TICK_CHAR_PX = 6, LEGEND_LINE_PX = 16 };

/* ---- the page ---- */

void html_escape(Str *out, const char *s)
{
    for (; *s; s++) {
        switch (*s) {
        case '&': str_add(out, "&amp;"); break;
        case '<': str_add(out, "&lt;"); break;
        case '>': str_add(out, "&gt;"); break;
        case '"': str_add(out, "&quot;"); break;
        case '\'': str_add(out, "&#39;"); break;
        default: str_add_bytes(out, s, 1);
        }
    }
}

void html_begin(Str *out, const char *title)
{
    str_add(out, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<title>");
    html_escape(out, title);
    str_add(out,
            "</title>\n<meta name=\"viewport\" content=\"width=device-width\">\n<style>\n"
            "body{font:15px/1.5 system-ui,sans-serif;color:#1c2430;background:#fff;max-width:1180px;"
            "margin:2em auto;padding:0 1em}\n"
            "h1{font-size:1.6em}h2{font-size:1.2em;margin-top:1.8em;border-bottom:1px solid #e3e6ea}\n"
            "table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .7em;text-align:left;"
            "border-bottom:1px solid #e3e6ea;vertical-align:top}th{background:#f5f7f9}\n"
            "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}\n"
            "pre{background:#f5f7f9;padding:.8em;overflow:auto;font-size:13px}\n"
            ".plots{display:flex;flex-wrap:wrap;gap:12px}\nsvg{max-width:100%;height:auto}\n"
            "svg text{font:12px system-ui,sans-serif;fill:#3a4452}svg .title{font-size:14px;font-weight:600;"
            "fill:#1c2430}\n</style></head><body>\n<h1>");
    html_escape(out, title);
    str_add(out, "</h1>\n");
}

void html_end(Str *out)
{
    str_add(out, "</body></html>\n");
}

/* ---- axes ---- */

typedef struct {
    double low, high;   /* data */
    double step;        /* between ticks; 0 = categories */
    double from, to;    /* pixels; from > to for y */
} Axis;

static double map(const Axis *a, double v)
{
    return a->from + (v - a->low) / (a->high - a->low) * (a->to - a->from);
}

static double nice_step(double range, int most)
{
    double raw = range / most, unit = pow(10, floor(log10(raw)));
    double f = raw / unit;
    return unit * (f <= 1 ? 1 : f <= 2 ? 2 : f <= 5 ? 5 : 10);
}

static void widen(double v, double *low, double *high)
{
    if (!isfinite(v))
        return;
    *low = v < *low ? v : *low;
    *high = v > *high ? v : *high;
}

/* Range and tick step for values in [low, high]; a single value gets room around it. */
static void axis_fit(Axis *a, double low, double high, int most, bool pad)
{
    if (!(low <= high)) {
        low = 0;
        high = 1;
    }
    if (high - low <= 1e-9 * (fabs(low) + fabs(high)) || high == low) {
        double room = fabs(low) > 1e-300 ? 0.1 * fabs(low) : 1;
        low -= room;
        high += room;
    }
    a->step = nice_step(high - low, most);
    if (pad) {
        a->low = floor(low / a->step + 1e-9) * a->step;
        a->high = ceil(high / a->step - 1e-9) * a->step;
    } else {
        a->low = low;
        a->high = high;
    }
}

static void tick_text(char text[32], double v, double step)
{
    double size = fabs(v) > step ? fabs(v) : step;
    int digits = step < 1 ? (int)ceil(-log10(step) - 1e-9) : 0;
    if (fabs(v) < 1e-9 * step)
        snprintf(text, 32, "0");
    else if (size >= 1e7 || size < 1e-3)
        snprintf(text, 32, "%.3g", v);
    else if (step >= 1000 && fmod(fabs(v), 100) < 1e-6)
        snprintf(text, 32, "%gk", v / 1000);
    else
        snprintf(text, 32, "%.*f", digits, v);
}

static int y_label_width(const Axis *y)
{
    size_t most = 1;
    for (int64_t i = (int64_t)ceil(y->low / y->step - 1e-9); (double)i * y->step <= y->high + 1e-9 * y->step; i++) {
        char text[32];
        tick_text(text, (double)i * y->step, y->step);
        most = strlen(text) > most ? strlen(text) : most;
    }
    return (int)most * TICK_CHAR_PX + 10;
}

static void text_at(Str *out, double x, double y, const char *attributes, const char *text)
{
    str_addf(out, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, attributes);
    html_escape(out, text);
    str_add(out, "</text>\n");
}

static void draw_y_axis(Str *out, const Axis *x, const Axis *y)
{
    for (int64_t i = (int64_t)ceil(y->low / y->step - 1e-9); (double)i * y->step <= y->high + 1e-9 * y->step; i++) {
        char text[32];
        double v = (double)i * y->step, at = map(y, v);
        str_addf(out, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x->from, x->to, at,
                 at, i == 0 ? "#9aa3ad" : "#e8ebee");
        tick_text(text, v, y->step);
        text_at(out, x->from - 6, at + 4, "text-anchor=\"end\"", text);
    }
}

static void draw_x_axis(Str *out, const Plot *p, const Axis *x, const Axis *y, bool slanted)
{
    double base = y->from;
    str_addf(out, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#5b6673\"/>\n", x->from, x->to,
             base, base);
    for (int k = 0; p->x_ticks && k < p->n_x_ticks; k++) {
        char place[96] = "text-anchor=\"middle\"";
        double at = map(x, k);
        if (slanted)
            snprintf(place, sizeof place, "text-anchor=\"end\" transform=\"rotate(-28 %.1f %.1f)\"", at, base + 14);
        text_at(out, at, base + (slanted ? 14 : 17), place, p->x_ticks[k]);
    }
    if (p->x_ticks)
        return;
    for (int64_t i = (int64_t)ceil(x->low / x->step - 1e-9); (double)i * x->step <= x->high + 1e-9 * x->step; i++) {
        char text[32];
        double at = map(x, (double)i * x->step);
        tick_text(text, (double)i * x->step, x->step);
        str_addf(out, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#5b6673\"/>\n", at, at, base,
                 base + 4);
        text_at(out, at, base + 17, "text-anchor=\"middle\"", text);
    }
}

/* ---- series ---- */

static bool is_point(const PlotSeries *s, int i)
{
    return i >= 0 && i < s->n && isfinite(s->x[i]) && isfinite(s->y[i]);
}

static bool is_interval(const PlotSeries *s, int i)
{
    return s->low && s->high && is_point(s, i) && isfinite(s->low[i]) && isfinite(s->high[i]);
}

static void draw_band(Str *out, const PlotSeries *s, const Axis *x, const Axis *y, const char *colour)
{
    for (int i = 0; i < s->n;) {
        int to = i;
        while (to < s->n && is_interval(s, to))
            to++;
        if (to > i + 1) {
            str_addf(out, "<path fill=\"%s\" fill-opacity=\".16\" d=\"M", colour);
            for (int k = i; k < to; k++)
                str_addf(out, "%.1f %.1f ", map(x, s->x[k]), map(y, s->high[k]));
            for (int k = to - 1; k >= i; k--)
                str_addf(out, "L%.1f %.1f", map(x, s->x[k]), map(y, s->low[k]));
            str_add(out, "Z\"/>\n");
        }
        i = to + 1;
    }
}

static void draw_whiskers(Str *out, const PlotSeries *s, const Axis *x, const Axis *y, const char *colour)
{
    for (int i = 0; i < s->n; i++) {
        if (!is_interval(s, i))
            continue;
        double at = map(x, s->x[i]), low = map(y, s->low[i]), high = map(y, s->high[i]);
        str_addf(out, "<path stroke=\"%s\" stroke-width=\"1.4\" fill=\"none\" d=\"M%.1f %.1fV%.1fM%.1f %.1fh8M%.1f "
                      "%.1fh8\"/>\n", colour, at, low, high, at - 4, low, at - 4, high);
    }
}

static void draw_line(Str *out, const PlotSeries *s, const Axis *x, const Axis *y, const char *colour, bool marks)
{
    bool pen = false;
    str_addf(out, "<path stroke=\"%s\" stroke-width=\"1.8\" stroke-linejoin=\"round\" fill=\"none\" d=\"", colour);
    for (int i = 0; i < s->n; i++) {
        if (is_point(s, i))
            str_addf(out, "%c%.1f %.1f", pen ? 'L' : 'M', map(x, s->x[i]), map(y, s->y[i]));
        pen = is_point(s, i);
    }
    str_add(out, "\"/>\n");
    for (int i = 0; i < s->n; i++) {
        bool alone = !is_point(s, i - 1) && !is_point(s, i + 1);
        if (is_point(s, i) && (marks || alone))
            str_addf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.2\" fill=\"%s\"/>\n", map(x, s->x[i]),
                     map(y, s->y[i]), colour);
    }
}

static void fit_axes(const Plot *p, Axis *x, Axis *y, int width)
{
    double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY;
    for (int k = 0; k < p->n_series; k++) {
        const PlotSeries *s = &p->series[k];
        for (int i = 0; i < s->n; i++) {
            if (!is_point(s, i))
                continue;
            widen(s->x[i], &x0, &x1);
            widen(s->y[i], &y0, &y1);
            if (is_interval(s, i)) {
                widen(s->low[i], &y0, &y1);
                widen(s->high[i], &y0, &y1);
            }
        }
    }
    axis_fit(y, y0, y1, 6, true);
    axis_fit(x, x0, x1, width / 80 > 1 ? width / 80 : 1, false);
    if (p->x_ticks)
        *x = (Axis){.low = -0.5, .high = p->n_x_ticks - 0.5};
}

/* Names beside short strokes, in lines that fit the width; returns the lines used. Drawn when out is
 * not NULL. */
static int legend(Str *out, const Plot *p, double left, double top, double width)
{
    double x = left;
    int line = 0;
    if (p->n_series < 2)
        return 0;
    for (int k = 0; k < p->n_series; k++) {
        double w = 30 + 6.6 * (double)strlen(p->series[k].name);
        if (x > left && x + w > left + width) {
            x = left;
            line++;
        }
        double y = top + LEGEND_LINE_PX * line;
        if (out) {
            str_addf(out, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"3\"/>\n",
                     x, x + 14, y - 4, y - 4, colours[k % N_COLOURS]);
            text_at(out, x + 18, y, "", p->series[k].name);
        }
        x += w;
    }
    return line + 1;
}

static bool labels_collide(const Plot *p, double width)
{
    for (int k = 0; p->x_ticks && k < p->n_x_ticks; k++) {
        if (6.8 * (double)strlen(p->x_ticks[k]) > width / p->n_x_ticks)
            return true;
    }
    return false;
}

void plot_svg(Str *out, const Plot *p)
{
    int width = p->width ? p->width : 560, height = p->height ? p->height : 320;
    Axis x, y;
    fit_axes(p, &x, &y, width);
    bool has_x = p->x_label && *p->x_label, has_y = p->y_label && *p->y_label;
    double left = y_label_width(&y) + (has_y ? 20 : 6), right = width - 16;
    bool slanted = labels_collide(p, right - left);
    double top = 34 + LEGEND_LINE_PX * legend(NULL, p, left, 0, right - left);
    double bottom = height - 24 - (has_x ? 18 : 0) - (slanted ? 34 : 0);
    x.from = left;
    x.to = right;
    y.from = bottom;
    y.to = top;
    str_addf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
                  "role=\"img\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
             width, height, width, height);
    text_at(out, left, 18, "class=\"title\"", p->title ? p->title : "");
    legend(out, p, left, 38, right - left);
    draw_y_axis(out, &x, &y);
    draw_x_axis(out, p, &x, &y, slanted);
    int n_beside = 0, beside = 0;
    for (int k = 0; k < p->n_series; k++)
        n_beside += p->series[k].x == p->series[0].x;
    for (int k = 0; k < p->n_series; k++) {
        const PlotSeries *s = &p->series[k];
        const char *colour = colours[k % N_COLOURS];
        Axis own = x;
        if (p->x_ticks && s->x == p->series[0].x) { /* same categories: side by side */
            const double moved = 9 * (beside++ - 0.5 * (n_beside - 1));
            own.from += moved;
            own.to += moved;
        }
        if (p->x_ticks)
            draw_whiskers(out, s, &own, &y, colour);
        else
            draw_band(out, s, &own, &y, colour);
        draw_line(out, s, &own, &y, colour, p->x_ticks || s->n <= 12);
    }
    if (has_x)
        text_at(out, (left + right) / 2, height - 6, "text-anchor=\"middle\"", p->x_label);
    if (has_y) {
        char turn[96];
        snprintf(turn, sizeof turn, "text-anchor=\"middle\" transform=\"rotate(-90 13 %.1f)\"", (top + bottom) / 2);
        text_at(out, 13, (top + bottom) / 2, turn, p->y_label);
    }
    str_add(out, "</svg>\n");
}
