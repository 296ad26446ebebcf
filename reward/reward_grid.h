/* reward_grid.h - a table of texts, for a terminal and for a page. Tested by tests/unit/test_reward_report.c. */
#ifndef RLHF_REWARD_GRID_H
#define RLHF_REWARD_GRID_H

#include "common/base/interval.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    char *title, *note; /* note: NULL or what the reader has to know */
    char **cell;        /* row by row, the first one is the head; owned */
    int rows, cols, cap, n;
} Grid;

/* Columns named by the variable arguments, which end with NULL; more by grid_column before the first row. */
void grid_init(Grid *g, const char *title, const char *note, ...) __attribute__((sentinel));
void grid_column(Grid *g, const char *name);
/* Cells from left to right, row after row. */
void grid_text(Grid *g, const char *text);
void grid_count(Grid *g, int64_t n);
/* value [low, high], times `factor`; a dash for NaN, no brackets without an interval. */
void grid_interval(Grid *g, Interval v, double factor, int digits, bool sign);
void grid_free(Grid *g);

void grid_print(const Grid *g, Str *out);
void grid_html(const Grid *g, Str *out);

#endif
