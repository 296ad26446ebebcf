/* rows.c - what was measured: printed as a table, written and read as JSON lines, joined with the rows of
 * another program. */
#include "tests/bench/bench.h"

#include "common/base/error.h"
#include "common/base/file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *ascending, int n)
{
    return n ? (ascending[(n - 1) / 2] + ascending[n / 2]) / 2 : NAN;
}

double row_median(const Row *r)
{
    return median(r->value, r->n);
}

double row_fraction(const Row *r)
{
    return r->roof > 0 ? median(r->fraction, r->n) : NAN;
}

bool row_less_is_better(const Row *r)
{
    return strcmp(r->unit, "s") == 0 || strcmp(r->unit, "x") == 0;
}

void rows_free(Rows *rows)
{
    free(rows->at);
    free(rows->machine);
    *rows = (Rows){0};
}

/* ---- table -------------------------------------------------------------------------------------- */

void rows_print_header(void)
{
    printf("%-44s %-4s %3s %10s %10s %10s %-7s %6s %9s %6s %7s\n", "", "", "thr", "min", "median", "max", "",
           "spread", "roof", "of it", "target");
}

void row_number(char out[32], double value)
{
    snprintf(out, 32, value >= 1000 && value < 1e9 ? "%.0f" : "%.4g", value);
}

/* What a target is compared with: the fraction of the roof, or the value where there is none. */
static double row_figure(const Row *r)
{
    return r->roof > 0 ? row_fraction(r) : row_median(r);
}

bool row_misses(const Row *r)
{
    return r->target > 0 && (row_less_is_better(r) ? row_figure(r) > r->target : row_figure(r) < r->target);
}

static void print_row(const Row *r)
{
    double spread = r->value[r->n - 1] / r->value[0] - 1;
    char low[32], middle[32], high[32], roof[32];
    row_number(low, r->value[0]);
    row_number(middle, row_median(r));
    row_number(high, r->value[r->n - 1]);
    row_number(roof, r->roof);
    printf("%-44s %-4s %3d %10s %10s %10s %-7s %5.0f%%", r->name, r->dtype, r->threads, low, middle, high, r->unit, 100 * spread);
    if (r->roof > 0)
        printf(" %9s %6.3f", roof, row_fraction(r));
    else
        printf(" %9s %6s", "", "");
    if (r->target > 0)
        printf(" %7.2f %s", r->target, row_misses(r) ? "missed" : "met");
    putchar('\n');
    fflush(stdout);
}

bool row_add(Rows *rows, Row row)
{
    CHECK(row.n > 0, "%s: nothing was measured", row.name);
    qsort(row.value, (size_t)row.n, sizeof *row.value, by_value);
    qsort(row.fraction, (size_t)row.n, sizeof *row.fraction, by_value);
    if (rows->without_targets && row.roof > 0 && !row.of_card)
        row.target = 0;
    int i = VEC_GROW(rows->at, rows->n, rows->cap);
    rows->at[i] = row;
    print_row(&row);
    return row_misses(&row);
}

void rows_print_targets(const Rows *rows)
{
    int n = 0, missed = 0;
    for (int i = 0; i < rows->n; i++) {
        const Row *r = &rows->at[i];
        const double *all = r->roof > 0 ? r->fraction : r->value;
        if (!(r->target > 0))
            continue;
        if (n++ == 0)
            printf("\n%-44s %-4s %3s %7s %9s %17s\n", "targets", "", "thr", "target", "measured", "smallest, largest");
        missed += row_misses(r);
        printf("%-44s %-4s %3d %7.2f %9.3f %8.3f %8.3f %s\n", r->name, r->dtype, r->threads, r->target, row_figure(r), all[0],
               all[r->n - 1], row_misses(r) ? "missed" : "met");
    }
    if (n)
        printf("%d of %d targets met\n", n - missed, n);
}

/* ---- JSON lines --------------------------------------------------------------------------------- */

static void write_numbers(JsonWriter *w, const char *key, const double *x, int n)
{
    jw_key(w, key);
    jw_array(w);
    for (int i = 0; i < n; i++)
        jw_num(w, x[i]);
    jw_array_end(w);
}

static void write_row(JsonWriter *w, const Row *r)
{
    jw_object(w);
    jw_kstr(w, "name", r->name);
    jw_kint(w, "threads", r->threads);
    jw_kstr(w, "dtype", r->dtype);
    jw_kstr(w, "unit", r->unit);
    jw_knum(w, "min", r->value[0]);
    jw_knum(w, "median", row_median(r));
    jw_knum(w, "max", r->value[r->n - 1]);
    if (r->roof > 0) {
        jw_knum(w, "roof", r->roof);
        jw_knum(w, "fraction", row_fraction(r));
    }
    if (r->target > 0)
        jw_knum(w, "target", r->target);
    if (r->floor > 0)
        jw_knum(w, "floor", r->floor);
    write_numbers(w, "values", r->value, r->n);
    if (r->roof > 0)
        write_numbers(w, "fractions", r->fraction, r->n);
    jw_object_end(w);
}

int rows_write(const Rows *rows, const char *path)
{
    Str out = {0};
    JsonWriter w;
    jw_init(&w, &out, false);
    jw_object(&w);
    jw_kstr(&w, "machine", rows->machine);
    jw_object_end(&w);
    str_add(&out, "\n");
    for (int i = 0; i < rows->n; i++) {
        jw_init(&w, &out, false);
        write_row(&w, &rows->at[i]);
        str_add(&out, "\n");
    }
    int rc = file_write_atomic(path, out.s, out.n);
    str_free(&out);
    return rc;
}

static void read_text(char *dst, size_t room, const Json *j, const char *key)
{
    const char *s = json_str(json_get(j, key));
    snprintf(dst, room, "%s", s ? s : "");
}

static Row read_row(const Json *j)
{
    Row r = {.threads = (int)json_int(json_get(j, "threads"), 0),
             .roof = json_num(json_get(j, "roof"), 0),
             .target = json_num(json_get(j, "target"), 0),
             .floor = json_num(json_get(j, "floor"), 0)};
    read_text(r.name, sizeof r.name, j, "name");
    read_text(r.dtype, sizeof r.dtype, j, "dtype");
    read_text(r.unit, sizeof r.unit, j, "unit");
    const Json *values = json_get(j, "values"), *fractions = json_get(j, "fractions");
    for (; r.n < (int)json_len(values) && r.n < REPEATS_MAX; r.n++) {
        r.value[r.n] = json_num(json_at(values, (size_t)r.n), NAN);
        r.fraction[r.n] = json_num(json_at(fractions, (size_t)r.n), NAN);
    }
    return r;
}

/* Calls fn for each object of a file of JSON lines. */
static int each_line(const char *path, void (*fn)(void *ctx, const Json *j), void *ctx)
{
    char *text = NULL;
    size_t n;
    int rc = file_read(path, &text, &n);
    int64_t number = 1;
    for (char *line = text, *end; rc == 0 && line && *line; line = end + (*end == '\n'), number++) {
        end = line + strcspn(line, "\n");
        Json *j = NULL;
        if (end > line)
            rc = json_parse(&j, line, (size_t)(end - line), path, number);
        if (rc == 0 && j)
            fn(ctx, j);
        json_free(j);
    }
    free(text);
    return rc;
}

static void take_row(void *ctx, const Json *j)
{
    Rows *rows = ctx;
    const char *machine = json_str(json_get(j, "machine"));
    Row row = read_row(j);
    if (machine) {
        free(rows->machine);
        rows->machine = xstrdup(machine);
    } else if (row.n) {
        row_add(rows, row);
    }
}

int rows_read(Rows *rows, const char *path)
{
    return each_line(path, take_row, rows);
}

/* ---- a peer ------------------------------------------------------------------------------------- */

typedef struct {
    const Rows *rows;
    int n_joined;
} Join;

/* Own work in f32 is set beside the peer's in f32, that in bf16 beside both. */
static bool comparable(const Row *r, bool peer_is_bf16)
{
    return !peer_is_bf16 || strcmp(r->dtype, "bf16") == 0 || !r->dtype[0];
}

static void print_ratio(Join *join, const Row *r, const char *variant, double peer)
{
    double own = row_median(r), ratio = row_less_is_better(r) ? peer / own : own / peer;
    char here[32], there[32];
    row_number(here, own);
    row_number(there, peer);
    printf("%-44s %-4s %3d %-32s %10s %10s %-7s %6.2fx", r->name, r->dtype, r->threads, variant, here, there, r->unit, ratio);
    if (strstr(variant, "torch") && strstr(variant, "f32") && r->floor > 0)
        printf("  floor %.2fx %s", r->floor, ratio >= r->floor ? "met" : "missed");
    putchar('\n');
    join->n_joined++;
}

static void print_joined(void *ctx, const Json *j)
{
    Join *join = ctx;
    char name[88], unit[12], variant[64];
    read_text(name, sizeof name, j, "name");
    read_text(unit, sizeof unit, j, "unit");
    read_text(variant, sizeof variant, j, "variant");
    double peer = json_num(json_get(j, "median"), NAN);
    int threads = (int)json_int(json_get(j, "threads"), 0);
    for (int i = 0; i < join->rows->n && peer > 0; i++) {
        const Row *r = &join->rows->at[i];
        if (strcmp(r->name, name) == 0 && r->threads == threads && strcmp(r->unit, unit) == 0 &&
            comparable(r, strstr(variant, "bf16") != NULL))
            print_ratio(join, r, variant, peer);
    }
}

int rows_print_peer(const Rows *rows, const char *path)
{
    Join join = {rows, 0};
    printf("\n%-44s %-4s %3s %-32s %10s %10s %-7s %7s\n", "against a peer", "", "thr", "", "here", "peer", "",
           "ratio");
    int rc = each_line(path, print_joined, &join);
    if (rc == 0 && !join.n_joined)
        rc = error_set(ERR_DATA, "%s: no row has the name, threads and unit of one measured here", path);
    return rc;
}
