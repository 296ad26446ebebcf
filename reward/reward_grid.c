/* reward_grid.c - see reward_grid.h. */
#include "reward/reward_grid.h"

#include "common/base/error.h"
#include "common/train/plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void add_take(Grid *g, char *text)
{
    int at = VEC_GROW(g->cell, g->n, g->cap);
    g->cell[at] = text;
    if (g->n > g->cols)
        g->rows = (g->n - 1) / g->cols + 1;
}

void grid_column(Grid *g, const char *name)
{
    CHECK(g->n == g->cols, "column %s after the first row", name);
    g->cols++;
    add_take(g, xstrdup(name));
    g->rows = 1;
}

void grid_init(Grid *g, const char *title, const char *note, ...)
{
    va_list names;
    *g = (Grid){.title = xstrdup(title), .note = note ? xstrdup(note) : NULL};
    va_start(names, note);
    for (const char *name; (name = va_arg(names, const char *));)
        grid_column(g, name);
    va_end(names);
}

void grid_text(Grid *g, const char *text)
{
    add_take(g, xstrdup(text));
}

void grid_count(Grid *g, int64_t n)
{
    add_take(g, xasprintf("%lld", (long long)n));
}

/* Without a sign before a zero. */
static double rounded(double x, int digits)
{
    return fabs(x) < .5 * pow(10, -digits) ? 0 : x;
}

void grid_interval(Grid *g, Interval v, double factor, int digits, bool sign)
{
    const double value = rounded(factor * v.value, digits);
    const char *one = sign ? "%+.*f" : "%.*f", *three = sign ? "%+.*f [%+.*f, %+.*f]" : "%.*f [%.*f, %.*f]";
    Str s = {0};
    if (isnan(v.value))
        str_add(&s, "-");
    else if (isnan(v.low))
        str_addf(&s, one, digits, value);
    else
        str_addf(&s, three, digits, value, digits, rounded(factor * v.low, digits), digits,
                 rounded(factor * v.high, digits));
    add_take(g, str_take(&s));
}

void grid_free(Grid *g)
{
    for (int i = 0; i < g->n; i++)
        free(g->cell[i]);
    free(g->cell);
    free(g->title);
    free(g->note);
    *g = (Grid){0};
}

/* Characters, not bytes. */
static int width_of(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

void grid_print(const Grid *g, Str *out)
{
    str_addf(out, "%s\n", g->title);
    for (int r = 0; r < g->rows; r++) {
        for (int c = 0; c < g->cols; c++) {
            int width = 0;
            for (int k = 0; k < g->rows; k++) {
                int w = width_of(g->cell[k * g->cols + c]);
                width = w > width ? w : width;
            }
            const char *text = g->cell[r * g->cols + c];
            str_addf(out, "  %s%*s", text, c + 1 < g->cols ? width - width_of(text) : 0, "");
        }
        str_add(out, "\n");
    }
    str_add(out, "\n");
}

/* The interval in brackets is quieter than the value. */
static void put_cell(Str *out, const char *text)
{
    const char *bracket = strstr(text, " [");
    char *value = bracket ? xstrndup(text, (size_t)(bracket - text)) : xstrdup(text);
    html_escape(out, value);
    if (bracket) {
        str_add(out, " <span class=\"ci\">");
        html_escape(out, bracket + 1);
        str_add(out, "</span>");
    }
    free(value);
}

static bool is_number(const char *text)
{
    return text[0] && strchr("+-.0123456789", text[0]);
}

void grid_html(const Grid *g, Str *out)
{
    str_add(out, "<h3>");
    html_escape(out, g->title);
    str_add(out, "</h3>\n");
    if (g->note) {
        str_add(out, "<p class=\"quiet\">");
        html_escape(out, g->note);
        str_add(out, "</p>\n");
    }
    str_add(out, "<div class=\"wide\"><table>\n");
    for (int r = 0; r < g->rows; r++) {
        str_add(out, "<tr>");
        for (int c = 0; c < g->cols; c++) {
            const char *tag = r ? "td" : "th";
            /* names, then columns that are set like their first cell below the head */
            const char *first = c && g->rows > 1 ? g->cell[g->cols + c] : "";
            str_addf(out, "<%s%s>", tag, is_number(first) ? " class=\"n\"" : "");
            put_cell(out, g->cell[r * g->cols + c]);
            str_addf(out, "</%s>", tag);
        }
        str_add(out, "</tr>\n");
    }
    str_add(out, "</table></div>\n");
}
