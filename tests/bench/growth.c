/* growth.c - how speed and memory grow: a training step and decoding against the length of a sequence, the
 * number of sequences, the vocabulary and the number of layers of one small model. Every point is measured
 * in a process of its own, so that its peak of resident memory can be set beside the bytes that its arenas
 * planned, and with the first thread count: one thread is timed by its CPU time, which a neighbour does not
 * stretch. Writes growth.json and growth.svg. */
#include "tests/bench/rig.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/train/plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { VALUES_MAX = 10, N_AXES = 4, N_KINDS = 2, NEW = 32 };
typedef enum { LENGTH, BATCH, VOCABULARY, LAYERS } AxisId;
static const char *const kind_names[N_KINDS] = {"step", "decode"};

/* A few values, and all of them with --full. */
static const struct {
    const char *name, *text; /* of --point; of the plots */
    int64_t few[4], all[VALUES_MAX];
} axes[N_AXES] = {
    [LENGTH] = {"length", "tokens of a sequence", {128, 512, 2048}, {128, 256, 512, 1024, 2048, 4096, 8192, 16384}},
    [BATCH] = {"batch", "sequences at a time", {1, 8, 64}, {1, 2, 4, 8, 16, 32, 64, 128, 256}},
    [VOCABULARY] = {"vocabulary",
                    "vocabulary",
                    {1024, 8192, 32768},
                    {512, 1024, 4096, 8192, 16384, 32768, 65536, 131072}},
    [LAYERS] = {"layers", "layers", {1, 4, 16}, {1, 2, 4, 8, 16, 32}},
};
static const Shape base = {.name = "growth",
                           .config = {.architecture = "Llama",
                                      .head = HEAD_LM,
                                      .C = 192,
                                      .F = 512,
                                      .V = 4096,
                                      .L = 4,
                                      .H = 6,
                                      .K = 3,
                                      .D = 32,
                                      .norm_eps = 1e-5,
                                      .rope_theta = 1e4,
                                      .tied = true,
                                      .max_position = 1 << 15,
                                      .bos = -1,
                                      .pad = -1},
                           .S = 4,
                           .T = 128};

/* What a process tells of its point. */
typedef struct {
    double rate[REPEATS_MAX]; /* tokens/s, ascending */
    int n;
    double planned, peak; /* bytes; peak: of its resident memory */
} Point;

typedef struct {
    int64_t value[VALUES_MAX];
    int n;
    Point point[N_KINDS][VALUES_MAX];
} Growth;

/* ---- one point ---------------------------------------------------------------------------------- */

static double planned_bytes(const Rig *r)
{
    return (double)(arena_planned(&r->weights) + arena_planned(&r->work) + arena_planned(&r->host));
}

static void take_rate(Point *p, double rate)
{
    int i = p->n++;
    for (; i > 0 && p->rate[i - 1] > rate; i--)
        p->rate[i] = p->rate[i - 1];
    p->rate[i] = rate;
}

static void measure_step(Bench *b, const Shape *s, int threads, Point *p)
{
    Rig rig;
    CHECK(rig_open_training(&rig, b, s, HEAD_LM, threads, "a point"), "%s", error_text());
    steps_fill(&rig, s, s->S);
    steps_sft(&rig);
    for (double from = bench_now(0); bench_again(b, p->n, from);) {
        double started = bench_now(threads);
        steps_sft(&rig);
        take_rate(p, (double)s->S * s->T / (bench_now(threads) - started));
    }
    p->planned = planned_bytes(&rig);
    rig_close(&rig);
}

static void measure_decode(Bench *b, const Shape *s, int threads, Point *p)
{
    Decoding d;
    CHECK(decoding_open(&d, b, s, (Load){s->S, s->T, NEW}, threads, "a point"), "%s", error_text());
    for (double from = bench_now(0); bench_again(b, p->n, from);) {
        double prompts, alone = decoding_alone(&d, &prompts);
        take_rate(p, (double)s->S * (NEW - 1) / alone);
    }
    p->planned = planned_bytes(&d.rig);
    decoding_close(&d);
}

/* The small model with one thing changed. Decoding has prompts that leave its answers within the length. */
static Shape shape_at(AxisId axis, int64_t value, int kind)
{
    Shape s = base;
    switch (axis) {
    case LENGTH:
        s.S = 1;
        s.T = (int)value - (kind ? NEW : 0);
        break;
    case BATCH:
        s.S = (int)value;
        s.T = 64;
        break;
    case VOCABULARY:
        s.config.V = value;
        break;
    case LAYERS:
        s.config.L = value;
        break;
    }
    return s;
}

/* Bytes of resident memory at its peak: of this program alone, unlike getrusage, which remembers who
 * started it. */
static double peak_bytes(void)
{
    char *text = NULL;
    size_t n;
    CHECK(file_read("/proc/self/status", &text, &n) == 0, "%s", error_text());
    const char *at = strstr(text, "VmHWM:");
    double kib = at ? strtod(at + 6, NULL) : NAN;
    free(text);
    return 1024 * kib;
}

/* "decode length 2048" in a process that was started for it: prints what growth_point reads. */
int growth_child(Bench *b)
{
    char kind_name[16], axis_name[16];
    long long value;
    int kind = 0, axis = 0;
    if (sscanf(b->point, "%15s %15s %lld", kind_name, axis_name, &value) != 3)
        return error_set(ERR_USAGE, "--point '%s': no such point", b->point);
    while (kind < N_KINDS && strcmp(kind_names[kind], kind_name) != 0)
        kind++;
    while (axis < N_AXES && strcmp(axes[axis].name, axis_name) != 0)
        axis++;
    if (kind == N_KINDS || axis == N_AXES || value < 1)
        return error_set(ERR_USAGE, "--point '%s': no such point", b->point);
    Shape s = shape_at((AxisId)axis, value, kind);
    Point p = {0};
    (kind ? measure_decode : measure_step)(b, &s, b->threads[0], &p);
    printf("point %.17g %.17g", p.planned, peak_bytes());
    for (int i = 0; i < p.n; i++)
        printf(" %.17g", p.rate[i]);
    putchar('\n');
    return 0;
}

static Point growth_point(const Bench *b, AxisId axis, int64_t value, int kind)
{
    char line[2048] = "";
    Point p = {0};
    char *command = xasprintf("'%s' --point '%s %s %lld' --device '%s' --threads %d --repeat %d --seconds %g%s",
                              b->self, kind_names[kind], axes[axis].name, (long long)value, b->device_name,
                              b->threads[0], b->repeat, b->seconds, b->quick ? " --quick" : "");
    FILE *f = popen(command, "r");
    CHECK(f, "%s cannot be started", command);
    char *got = fgets(line, sizeof line, f), *at = line + 6;
    CHECK(pclose(f) == 0 && got && strncmp(line, "point ", 6) == 0, "%s failed; run it by hand", command);
    p.planned = strtod(at, &at);
    p.peak = strtod(at, &at);
    for (char *next; p.n < REPEATS_MAX; at = next) {
        double rate = strtod(at, &next);
        if (next == at)
            break;
        p.rate[p.n++] = rate;
    }
    free(command);
    return p;
}

/* ---- results ------------------------------------------------------------------------------------ */

static void write_point(JsonWriter *w, AxisId axis, int64_t value, int kind, const Point *p)
{
    jw_object(w);
    jw_kstr(w, "axis", axes[axis].name);
    jw_kint(w, "value", value);
    jw_kstr(w, "kind", kind_names[kind]);
    jw_knum(w, "min", p->rate[0]);
    jw_knum(w, "median", (p->rate[(p->n - 1) / 2] + p->rate[p->n / 2]) / 2);
    jw_knum(w, "max", p->rate[p->n - 1]);
    jw_knum(w, "planned_bytes", p->planned);
    jw_knum(w, "peak_rss_bytes", p->peak);
    jw_object_end(w);
}

static int write_json(const Bench *b, const Growth *g, const char *path)
{
    Str out = {0};
    JsonWriter w;
    jw_init(&w, &out, true);
    jw_object(&w);
    jw_kstr(&w, "machine", b->rows.machine);
    jw_kint(&w, "threads", b->threads[0]);
    jw_key(&w, "points");
    jw_array(&w);
    for (int a = 0; a < N_AXES; a++)
        for (int k = 0; k < N_KINDS; k++)
            for (int i = 0; i < g[a].n; i++)
                write_point(&w, (AxisId)a, g[a].value[i], k, &g[a].point[k][i]);
    jw_array_end(&w);
    jw_object_end(&w);
    str_add(&out, "\n");
    int rc = file_write_atomic(path, out.s, out.n);
    str_free(&out);
    return rc;
}

/* A series' numbers, and the values of an axis as names of its ticks. */
typedef struct {
    double x[VALUES_MAX], y[VALUES_MAX], low[VALUES_MAX], high[VALUES_MAX];
} Series;

static void plot(Str *out, const Growth *g, AxisId axis, const char *title, const char *unit, const PlotSeries *s,
                 int n)
{
    char text[VALUES_MAX][24];
    const char *ticks[VALUES_MAX];
    for (int i = 0; i < g->n; i++) {
        int64_t v = g->value[i];
        snprintf(text[i], sizeof text[i], v >= 1024 && v % 1024 == 0 ? "%lldk" : "%lld",
                 (long long)(v >= 1024 && v % 1024 == 0 ? v / 1024 : v));
        ticks[i] = text[i];
    }
    plot_svg(out, &(Plot){.title = title,
                          .x_label = axes[axis].text,
                          .y_label = unit,
                          .series = s,
                          .n_series = n,
                          .x_ticks = ticks,
                          .n_x_ticks = g->n,
                          .width = 420,
                          .height = 260});
}

static void plot_speed(Str *out, const Growth *g, AxisId axis, int kind)
{
    Series s;
    for (int i = 0; i < g->n; i++) {
        const Point *p = &g->point[kind][i];
        s.x[i] = i;
        s.y[i] = (p->rate[(p->n - 1) / 2] + p->rate[p->n / 2]) / 2;
        s.low[i] = p->rate[0];
        s.high[i] = p->rate[p->n - 1];
    }
    plot(out, g, axis, kind ? "decoding" : "training step", "tokens/s",
         &(PlotSeries){kind_names[kind], s.x, s.y, s.low, s.high, g->n}, 1);
}

static void plot_memory(Str *out, const Growth *g, AxisId axis)
{
    static const char *const names[] = {"step, planned", "step, peak", "decoding, planned", "decoding, peak"};
    Series s[2 * N_KINDS];
    PlotSeries series[2 * N_KINDS];
    for (int k = 0; k < 2 * N_KINDS; k++) {
        for (int i = 0; i < g->n; i++) {
            const Point *p = &g->point[k / 2][i];
            s[k].x[i] = i;
            s[k].y[i] = (k % 2 ? p->peak : p->planned) / (1 << 20);
        }
        series[k] = (PlotSeries){names[k], s[k].x, s[k].y, NULL, NULL, g->n};
    }
    plot(out, g, axis, "memory", "MiB", series, 2 * N_KINDS);
}

/* Three plots a row: each is a picture of its own, moved to its place. */
static int write_svg(const Bench *b, const Growth *g, const char *path)
{
    enum { WIDTH = 430, HEIGHT = 270, TOP = 34 };
    Str out = {0};
    str_addf(
        &out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"system-ui,sans-serif\" "
        "font-size=\"12\" fill=\"#3a4452\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n<text x=\"8\" "
        "y=\"20\">",
        3 * WIDTH, N_AXES * HEIGHT + TOP);
    html_escape(&out, b->rows.machine ? b->rows.machine : "");
    str_add(&out, "</text>\n");
    for (int i = 0; i < 3 * N_AXES; i++) {
        int axis = i / 3, column = i % 3;
        if (!g[axis].n)
            continue;
        str_addf(&out, "<g transform=\"translate(%d %d)\">\n", column * WIDTH, axis * HEIGHT + TOP);
        if (column < N_KINDS)
            plot_speed(&out, &g[axis], (AxisId)axis, column);
        else
            plot_memory(&out, &g[axis], (AxisId)axis);
        str_add(&out, "</g>\n");
    }
    str_add(&out, "</svg>\n");
    int rc = file_write_atomic(path, out.s, out.n);
    str_free(&out);
    return rc;
}

static void print_point(AxisId axis, int64_t value, int kind, const Point *p)
{
    char name[64], low[32], middle[32], high[32];
    snprintf(name, sizeof name, "growth %s %s %lld", kind_names[kind], axes[axis].name, (long long)value);
    row_number(low, p->rate[0]);
    row_number(middle, (p->rate[(p->n - 1) / 2] + p->rate[p->n / 2]) / 2);
    row_number(high, p->rate[p->n - 1]);
    printf("%-44s     %10s %10s %10s tok/s   %8.1f MiB planned %8.1f MiB peak\n", name, low, middle, high,
           p->planned / (1 << 20), p->peak / (1 << 20));
    fflush(stdout);
}

int growth_run(Bench *b)
{
    Growth *g = xcalloc(N_AXES, sizeof *g);
    for (int a = 0; a < N_AXES; a++) {
        const int64_t *values = b->full ? axes[a].all : axes[a].few;
        for (int n = !bench_wanted(b, axes[a].name) ? 0 : b->quick ? 1 : VALUES_MAX; g[a].n < n && values[g[a].n]; g[a].n++) {
            int i = g[a].n;
            g[a].value[i] = values[i];
            for (int k = 0; k < N_KINDS; k++) {
                g[a].point[k][i] = growth_point(b, (AxisId)a, values[i], k);
                print_point((AxisId)a, values[i], k, &g[a].point[k][i]);
            }
        }
    }
    char *json = path_join(b->out, "growth.json"), *svg = path_join(b->out, "growth.svg");
    int rc = 0;
    TRY(write_json(b, g, json));
    TRY(write_svg(b, g, svg));
    printf("wrote %s and %s\n", json, svg);
fail:
    free(json);
    free(svg);
    free(g);
    return rc;
}
