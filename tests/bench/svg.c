/* svg.c - the rows that have a roof as bars: median of the fraction, a line from the smallest to the
 * largest measurement, a tick at the target. */
#include "tests/bench/bench.h"

#include "common/base/file.h"
#include "common/train/plot.h"

#include <math.h>
#include <string.h>

enum { LABEL_PX = 300, BAR_PX = 480, NOTE_PX = 190, LINE_PX = 20, TOP_PX = 70, GAP_PX = 14 };
static const char *const colours[] = {"#2563b0", "#7fa7d8"}; /* most threads; fewer */

static bool is_drawn(const Row *r)
{
    return r->roof > 0;
}

/* The first word: rows of one kind stand together. */
static bool same_kind(const Row *a, const Row *b)
{
    size_t n = strcspn(a->name, " ");
    return strncmp(a->name, b->name, n + 1) == 0;
}

static double x_of(double fraction)
{
    double f = fraction < 0 ? 0 : fraction > 1.1 ? 1.1 : fraction;
    return LABEL_PX + f / 1.1 * BAR_PX;
}

static void draw_axis(Str *out, int height)
{
    for (int i = 0; i <= 10; i += 2) {
        double x = x_of(i / 10.0);
        str_addf(out, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"%s\"/>\n", x, TOP_PX - 6, x,
                 height - 8, i == 10 ? "#8a94a3" : "#e3e6ea");
        str_addf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.1f</text>\n", x, TOP_PX - 12, i / 10.0);
    }
}

static void draw_row(Str *out, const Row *r, int y, int most_threads)
{
    double median = row_fraction(r), low = x_of(r->fraction[0]), high = x_of(r->fraction[r->n - 1]);
    str_addf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">", LABEL_PX - 8, y + 13);
    html_escape(out, r->name);
    if (strcmp(r->dtype, "bf16") == 0)
        str_add(out, " bf16");
    if (r->threads)
        str_addf(out, ", %d thread%s", r->threads, r->threads == 1 ? "" : "s");
    str_add(out, "</text>\n");
    str_addf(out, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", LABEL_PX, y + 3,
             x_of(median) - LABEL_PX, LINE_PX - 6, colours[r->threads < most_threads]);
    str_addf(out, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#1c2430\"/>\n", low, y + LINE_PX / 2,
             high, y + LINE_PX / 2);
    if (r->target > 0)
        str_addf(out, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#d1602b\" stroke-width=\"3\"/>\n",
                 x_of(r->target), y + 1, x_of(r->target), y + LINE_PX - 1);
    char value[32];
    row_number(value, row_median(r));
    str_addf(out, "<text x=\"%d\" y=\"%d\">%.2f   %s %s</text>\n", LABEL_PX + BAR_PX + 8, y + 13, median, value, r->unit);
}

/* Whether an earlier row has this one's kind: it was drawn with that one. */
static bool drawn_before(const Rows *rows, int i)
{
    for (int k = 0; k < i; k++)
        if (is_drawn(&rows->at[k]) && same_kind(&rows->at[k], &rows->at[i]))
            return true;
    return false;
}

/* All rows from `y` on, kind by kind; returns the y below them. */
static int draw_rows(Str *out, const Rows *rows, int y)
{
    int most = 0;
    for (int i = 0; i < rows->n; i++)
        most = rows->at[i].threads > most ? rows->at[i].threads : most;
    for (int i = 0; i < rows->n; i++) {
        if (!is_drawn(&rows->at[i]) || drawn_before(rows, i))
            continue;
        for (int k = i; k < rows->n; k++) {
            if (!is_drawn(&rows->at[k]) || !same_kind(&rows->at[i], &rows->at[k]))
                continue;
            draw_row(out, &rows->at[k], y, most);
            y += LINE_PX;
        }
        y += GAP_PX;
    }
    return y;
}

int rows_write_svg(const Rows *rows, const char *path)
{
    const int width = LABEL_PX + BAR_PX + NOTE_PX;
    Str out = {0}, bars = {0};
    int height = draw_rows(&bars, rows, TOP_PX);
    str_addf(&out, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"system-ui,"
                   "sans-serif\" font-size=\"12\" fill=\"#3a4452\">\n<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n",
             width, height, width, height);
    str_add(&out, "<text x=\"8\" y=\"18\" font-size=\"14\" font-weight=\"600\" fill=\"#1c2430\">Fraction of the roof "
                  "(bar: median; black: all measurements; orange: target)</text>\n<text x=\"8\" y=\"36\">");
    html_escape(&out, rows->machine ? rows->machine : "");
    str_add(&out, "</text>\n");
    draw_axis(&out, height);
    str_add(&out, str_get(&bars));
    str_add(&out, "</svg>\n");
    int rc = file_write_atomic(path, out.s, out.n);
    str_free(&out);
    str_free(&bars);
    return rc;
}
