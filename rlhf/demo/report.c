/* report.c - `rlhf-demo report`: one self-contained page of a whole round, from demo.json,
 * generations.jsonl, the reward models' tables and the stages' metrics. It computes nothing: every
 * number stands in one of these files. */
#include "common/base/cli.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/data/rows.h"
#include "common/train/plot.h"
#include "rlhf/demo/demo.h"
#include "rlhf/demo/measures.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *title, *path;
} Source;

typedef struct {
    const char *demo, *generations, *out;
    ConfigList rewards, metrics;
    int64_t samples;
} ReportConfig;

#define AT(m) offsetof(ReportConfig, m)

static const CfgField source_fields[] = {
    {"title", CFG_STRING, offsetof(Source, title), .flags = CFG_REQUIRED, .help = "heading"},
    {"path", CFG_STRING, offsetof(Source, path), .flags = CFG_REQUIRED, .help = "file"},
    {0},
};

static const CfgField fields[] = {
    {"demo", CFG_STRING, AT(demo), .flags = CFG_REQUIRED, .help = "demo.json of 'rlhf-demo evaluate'"},
    {"generations", CFG_STRING, AT(generations), .flags = CFG_REQUIRED, .help = "generations.jsonl of the same"},
    {"rewards", CFG_LIST, AT(rewards), .item_fields = source_fields, .item_bytes = sizeof(Source), .help = "eval.json of 'rlhf-reward train': {title, path}"},
    {"metrics", CFG_LIST, AT(metrics), .item_fields = source_fields, .item_bytes = sizeof(Source), .help = "metrics.jsonl of the stages: {title, path}"},
    {"samples", CFG_INT, AT(samples), "3", 0, 1000, .help = "prompts shown of each kind"},
    {"out", CFG_STRING, AT(out), .flags = CFG_REQUIRED | CFG_NO_RESULT, .help = "the page"},
    {0},
};

static const CliSpec spec = {
    .program = "rlhf-demo report",
    .summary = "one HTML page of the whole round",
    .examples = "  rlhf-demo report -c report.yaml out=runs/demo/report.html\n",
    .fields = fields,
    .config_bytes = sizeof(ReportConfig),
};

static const char *const version_labels[V_COUNT] = {"SFT", "RS", "PPO"};

static const char style[] =
    "<style>\n"
    "body{font:15px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif;color:#1d2430;background:#f5f6f8;"
    "margin:0 auto;max-width:1180px;padding:24px}\n"
    "h1{font-size:27px;margin:0 0 4px;border:0}h2{font-size:19px;margin:34px 0 8px}p{margin:6px 0;max-width:80ch}\n"
    ".quiet{color:#667085}.num{font-variant-numeric:tabular-nums}\n"
    ".card{background:#fff;border:1px solid #e3e6eb;border-radius:10px;padding:16px 18px;margin:10px 0;"
    "overflow-x:auto}\n"
    ".steps{display:flex;gap:14px;flex-wrap:wrap}.step{flex:1;min-width:200px;background:#fff;"
    "border:1px solid #e3e6eb;border-radius:10px;padding:14px 18px}\n"
    ".step b{display:block;font-size:30px;line-height:1.2;font-variant-numeric:tabular-nums}\n"
    "table.t{border-collapse:collapse;width:100%;margin:0}table.t td,table.t th{padding:5px 10px;text-align:left;"
    "border-bottom:1px solid #eceef2;vertical-align:top;font-variant-numeric:tabular-nums}\n"
    "table.t th{color:#667085;font-weight:600;font-size:13px}table.t tr:last-child td{border-bottom:0}\n"
    ".ci{color:#8a93a3;font-size:13px;white-space:nowrap}\n"
    ".plots{display:flex;gap:14px;flex-wrap:wrap}.plots .card{margin:0;padding:10px;flex:1 1 440px;min-width:0}"
    ".plots svg{width:100%}.plots p{max-width:540px}.steps{margin:14px 0}table.t td .ci{display:block}\n"
    ".yes,.no{display:inline-block;border-radius:4px;padding:0 7px;font-size:13px;font-weight:600}\n"
    ".yes{background:#dcf5e4;color:#14693a}.no{background:#fde2e1;color:#a3211b}\n"
    ".gold{display:inline-block;min-width:34px;text-align:center;border-radius:4px;padding:0 5px;"
    "font-size:13px;font-weight:600;margin-right:6px}\n"
    ".rm{color:#8a93a3;font-size:12px;white-space:nowrap}.tag{background:#fff1d6;color:#8a5a00;border-radius:4px;"
    "padding:0 6px;font-size:12px}\n"
    "details{margin:8px 0}summary{cursor:pointer;font-weight:600}svg{max-width:100%;height:auto}\n"
    "</style>\n";

/* ---- numbers of demo.json */

static Interval number_at(const Json *j, const char *key)
{
    return interval_from_json(json_get(j, key));
}

static const Json *version_of(const Json *demo, int v)
{
    return json_get(json_get(demo, "versions"), version_keys[v]);
}

/* x as it is printed with so many digits, without a sign before zero. */
static double rounded(double x, int digits)
{
    return fabs(x) < .5 * pow(10, -digits) ? 0 : x;
}

static void put_number(Str *out, Interval v, const MeasureInfo *info, bool sign)
{
    double f = info->percent ? 100 : 1;
    if (isnan(v.value)) {
        str_add(out, "<td class=quiet>-</td>");
        return;
    }
    str_addf(out, sign ? "<td>%+.*f" : "<td>%.*f", info->digits, rounded(f * v.value, info->digits));
    str_addf(out, " <span class=ci>[%.*f, %.*f]</span></td>", info->digits, rounded(f * v.low, info->digits),
             info->digits, rounded(f * v.high, info->digits));
}

/* ---- parts of the page */

static void put_head(Str *out, const Json *demo)
{
    static const char *const what[V_COUNT] = {"supervised fine-tuning", "rejection sampling on SFT",
                                             "reinforcement on RS"};
    bool pass = json_bool(json_get(demo, "pass"), false);
    str_add(out, "<p class=quiet>Gold is the true reward of this world, from 0 to 1; no model sees it. Harmless prompts "
            "want the right content in the asked style, unsafe ones a good refusal; look-alikes only sound unsafe, and "
            "refusing them is a fault. A violation obeys an unsafe prompt.</p>");
    str_addf(out, "<p class=quiet>%lld answers of each version"
             " to %lld distinct held-out prompts. Brackets are 95 %% intervals from %lld bootstrap "
             "draws over prompts. <span class=%s>%s</span></p><div class=steps>",
             (long long)json_int(json_get(demo, "answers"), 0),
             (long long)json_int(json_get(demo, "prompts"), 0),
             (long long)json_int(json_get(demo, "draws"), 0), pass ? "yes" : "no",
             pass ? "all rules passed" : "a rule failed");
    for (int v = 0; v < V_COUNT; v++) {
        Interval g = number_at(version_of(demo, v), "gold");
        str_addf(out, "<div class=step><span class=quiet>%s: %s</span><b>%.3f</b><span class=ci>gold reward "
                 "[%.3f, %.3f]</span></div>", version_labels[v], what[v], g.value, g.low, g.high);
    }
    str_addf(out, "<div class=step><span class=quiet>best answers</span><b>%.3f</b><span class=ci>what is "
             "possible</span></div></div>", number_at(demo, "oracle").value);
}

static void put_rules(Str *out, const Json *demo)
{
    const Json *rules = json_get(demo, "rules");
    str_add(out, "<h2>Rules</h2><div class=card><table class=t>");
    for (size_t i = 0; i < json_len(rules); i++) {
        const Json *r = json_at(rules, i);
        bool pass = json_bool(json_get(r, "pass"), false);
        str_addf(out, "<tr><td><span class=%s>%s</span></td><td>", pass ? "yes" : "no", pass ? "pass" : "fail");
        html_escape(out, json_str(json_get(r, "rule")) ? json_str(json_get(r, "rule")) : "");
        str_add(out, "</td><td>");
        html_escape(out, json_str(json_get(r, "found")) ? json_str(json_get(r, "found")) : "");
        str_add(out, "</td></tr>");
    }
    str_add(out, "</table></div>");
}

static void put_measures(Str *out, const Json *demo)
{
    static const char *const pairs[] = {"rs_sft", "ppo_rs"};
    const Json *differences = json_get(demo, "differences");
    str_add(out, "<h2>Measures</h2><div class=card><table class=t><tr><th></th><th>SFT</th><th>RS</th><th>PPO</th>"
                 "<th>RS - SFT</th><th>PPO - RS</th></tr>");
    for (int m = 0; m < M_COUNT; m++) {
        str_add(out, "<tr><td>");
        html_escape(out, measures[m].label);
        str_addf(out, "%s</td>", measures[m].percent ? ", %" : "");
        for (int v = 0; v < V_COUNT; v++)
            put_number(out, number_at(version_of(demo, v), measures[m].key), &measures[m], false);
        for (int k = 0; k < 2; k++)
            put_number(out, number_at(json_get(differences, pairs[k]), measures[m].key), &measures[m], true);
        str_add(out, "</tr>");
    }
    static const MeasureInfo share = {"gap_share", "", true, 1};
    str_add(out, "<tr><td>share of the gap between SFT and the best, %</td><td></td><td></td><td></td>");
    for (int k = 0; k < 2; k++)
        put_number(out, number_at(json_get(differences, pairs[k]), share.key), &share, true);
    str_add(out, "</tr></table></div>");
}

static void put_plot(Str *out, const Plot *p)
{
    str_add(out, "<div class=card>");
    plot_svg(out, p);
    str_add(out, "</div>");
}

enum { SERIES_MAX = 4 };

/* One line per measure over SFT, RS, PPO. */
static void plot_versions(Str *out, const Json *demo, const char *title, const char *y_label,
                          const int *shown, const char *const *names, int n)
{
    static const double x[V_COUNT] = {0, 1, 2};
    double y[SERIES_MAX][3][V_COUNT];
    PlotSeries series[SERIES_MAX];
    CHECK(n <= SERIES_MAX, "%d series", n);
    for (int k = 0; k < n; k++) {
        const MeasureInfo *info = &measures[shown[k]];
        double f = info->percent ? 100 : 1;
        for (int v = 0; v < V_COUNT; v++) {
            Interval a = number_at(version_of(demo, v), info->key);
            y[k][0][v] = f * a.value;
            y[k][1][v] = f * a.low;
            y[k][2][v] = f * a.high;
        }
        series[k] = (PlotSeries){names[k], x, y[k][0], y[k][1], y[k][2], V_COUNT};
    }
    put_plot(out, &(Plot){.title = title, .y_label = y_label, .series = series, .n_series = n,
                          .x_ticks = version_labels, .n_x_ticks = V_COUNT, .width = 540, .height = 320});
}

static void plot_kinds(Str *out, const Json *demo)
{
    double x[WORLD_KINDS], y[V_COUNT][3][WORLD_KINDS];
    const char *ticks[WORLD_KINDS];
    PlotSeries series[V_COUNT];
    for (int v = 0; v < V_COUNT; v++) {
        for (int k = 0; k < WORLD_KINDS; k++) {
            ticks[k] = world_kind_name((WorldKind)k);
            Interval a = number_at(json_get(json_get(version_of(demo, v), "kinds"), ticks[k]), "gold");
            x[k] = k;
            y[v][0][k] = a.value;
            y[v][1][k] = a.low;
            y[v][2][k] = a.high;
        }
        series[v] = (PlotSeries){version_labels[v], x, y[v][0], y[v][1], y[v][2], WORLD_KINDS};
    }
    put_plot(out, &(Plot){.title = "Gold by kind of prompt", .y_label = "gold", .series = series,
                          .n_series = V_COUNT, .x_ticks = ticks, .n_x_ticks = WORLD_KINDS, .width = 1100,
                          .height = 340});
}

static void put_plots(Str *out, const Json *demo)
{
    str_add(out, "<h2>What changed</h2><div class=plots>");
    plot_versions(out, demo, "Gold reward", "gold", (int[]){M_GOLD, M_GOLD_HELPFUL, M_GOLD_SAFE},
                  (const char *const[]){"all prompts", "helpfulness, harmless", "safety, unsafe"}, 3);
    plot_versions(out, demo, "Refusals and violations", "%",
                  (int[]){M_VIOLATION, M_REFUSED_LOOK, M_REFUSED_HARMLESS, M_EXACT},
                  (const char *const[]){"violations, unsafe", "refused, look-alikes", "refused, harmless",
                                        "right content, harmless"}, 4);
    plot_versions(out, demo, "What the reward models say", "score",
                  (int[]){M_REWARD_HELPFUL, M_REWARD_SAFETY},
                  (const char *const[]){"helpfulness model, untagged", "safety model, tagged"}, 2);
    plot_versions(out, demo, "Distance and length", "nats, tokens", (int[]){M_KL, M_TOKENS},
                  (const char *const[]){"KL to SFT", "answer length"}, 2);
    plot_kinds(out, demo);
    str_add(out, "</div>");
}

/* ---- reward models */

static int put_reward(Str *out, const Source *source)
{
    static const char *const ratings[] = {"significant", "better", "slight", "negligible"};
    static const char *const ticks[] = {"all", "significant", "better", "slight", "negligible"};
    static const double x[5] = {0, 1, 2, 3, 4};
    double y[3][5];
    Json *j = NULL;
    int rc = json_read_file(&j, source->path);
    if (rc < 0)
        return rc;
    for (int k = 0; k < 5; k++) {
        const Json *a = k ? json_get(json_get(j, "by_rating"), ratings[k - 1]) : json_get(j, "all");
        y[0][k] = 100 * json_num(json_get(a, "accuracy"), NAN);
        y[1][k] = 100 * json_num(json_get(a, "low"), NAN);
        y[2][k] = 100 * json_num(json_get(a, "high"), NAN);
    }
    str_add(out, "<div class=card>");
    plot_svg(out, &(Plot){.title = source->title, .y_label = "accuracy, %",
                          .series = &(PlotSeries){"chosen above rejected", x, y[0], y[1], y[2], 5},
                          .n_series = 1, .x_ticks = ticks, .n_x_ticks = 5, .width = 540, .height = 300});
    if (json_int(json_get(j, "n_labels"), 0)) {
        Interval auc = number_at(json_get(j, "detect"), "auc");
        str_addf(out, "<p class=quiet>Calling an answer unsafe (%lld labels): ROC AUC %.3f [%.3f, %.3f]; precision "
                 "%.3f, recall %.3f at 0.5; %.3f, %.3f at 0.15.</p>", (long long)json_int(json_get(j, "n_labels"), 0),
                 auc.value, auc.low, auc.high,
                 json_num(json_get(j, "precision_50"), NAN), json_num(json_get(j, "recall_50"), NAN),
                 json_num(json_get(j, "precision_15"), NAN), json_num(json_get(j, "recall_15"), NAN));
    }
    str_add(out, "</div>");
    json_free(j);
    return 0;
}

/* ---- samples */

static void put_cell(Str *out, const Json *a)
{
    double gold = json_num(json_get(a, "gold"), NAN);
    double helpful = json_num(json_get(a, "reward_helpful"), NAN);
    double safety = json_num(json_get(a, "reward_safety"), NAN);
    int hue = (int)(130 * gold); /* red to green */
    str_addf(out, "<td><span class=gold style='background:hsl(%d 70%% 90%%);color:hsl(%d 70%% 26%%)'>%.2f"
             "</span>", hue, hue, gold);
    html_escape(out, json_str(json_get(a, "answer")) ? json_str(json_get(a, "answer")) : "");
    if (!json_bool(json_get(a, "finished"), true))
        str_add(out, " <span class=quiet>(cut)</span>");
    if (!isnan(helpful) || !isnan(safety))
        str_add(out, "<br>");
    if (!isnan(helpful))
        str_addf(out, "<span class=rm>helpful %+.2f</span> ", helpful);
    if (!isnan(safety))
        str_addf(out, "<span class=rm>safety %+.2f</span>", safety);
    str_add(out, "</td>");
}

/* The versions of one prompt stand on consecutive lines. */
static int put_samples(Str *out, const ReportConfig *c)
{
    Rows rows = {0};
    const Json *j;
    Str kinds[WORLD_KINDS] = {0};
    int64_t shown[WORLD_KINDS] = {0};
    int rc, kind = 0, column = 0;
    TRY(rows_open(&rows, c->generations));
    for (bool use = false; (rc = rows_next(&rows, &j)) > 0; column = (column + 1) % V_COUNT) {
        const char *name = json_str(json_get(j, "kind")), *prompt = json_str(json_get(j, "prompt"));
        const char *version = json_str(json_get(j, "version"));
        if (!name || !prompt || !version || strcmp(version, version_keys[column])) {
            rc = error_set(ERR_DATA, "%s:%lld: expected the generations.jsonl of 'rlhf-demo evaluate'",
                           c->generations, (long long)rows.line);
            goto fail;
        }
        for (kind = 0; kind < WORLD_KINDS - 1 && strcmp(name, world_kind_name((WorldKind)kind)); kind++)
            ;
        if (column == 0) {
            use = json_int(json_get(j, "sample"), 0) == 0 && shown[kind] < c->samples;
            shown[kind] += use;
            if (use) {
                str_add(&kinds[kind], "<tr><td>");
                html_escape(&kinds[kind], prompt);
                if (json_bool(json_get(j, "tagged"), false))
                    str_add(&kinds[kind], " <span class=tag>safety</span>");
                str_add(&kinds[kind], "</td>");
            }
        }
        if (use)
            put_cell(&kinds[kind], j);
        if (use && column == V_COUNT - 1)
            str_add(&kinds[kind], "</tr>");
    }
    str_add(out, "<h2>Answers side by side</h2><p class=quiet>The first prompts of each kind, not chosen. The coloured "
                 "number is the gold reward, below the answer stand the scores of the reward models.</p>");
    for (int k = 0; k < WORLD_KINDS; k++) {
        if (!kinds[k].n)
            continue;
        str_addf(out, "<div class=card><table class=t><tr><th style='width:22%%'>%s</th><th style='width:26%%'>SFT"
                 "</th><th style='width:26%%'>RS</th><th style='width:26%%'>PPO</th></tr>",
                 world_kind_name((WorldKind)k));
        str_add_bytes(out, kinds[k].s, kinds[k].n);
        str_add(out, "</table></div>");
    }
fail:
    for (int k = 0; k < WORLD_KINDS; k++)
        str_free(&kinds[k]);
    rows_close(&rows);
    return rc;
}

/* ---- the page */

static int report(const ReportConfig *c)
{
    Json *demo = NULL;
    Str out = {0};
    const Source *source = c->rewards.at;
    char *folder = path_dir(c->out);
    int rc;
    TRY(json_read_file(&demo, c->demo));
    TRY(dir_make(folder));
    html_begin(&out, "An RLHF round in a world with a known reward");
    str_add(&out, style);
    put_head(&out, demo);
    put_plots(&out, demo);
    put_measures(&out, demo);
    put_rules(&out, demo);
    if (c->rewards.n)
        str_add(&out, "<h2>Reward models on held-out pairs</h2><p class=quiet>The clearer the annotators' preference, "
                      "the more often the model agrees.</p><div class=plots>");
    for (int i = 0; i < c->rewards.n; i++)
        TRY(put_reward(&out, &source[i]));
    if (c->rewards.n)
        str_add(&out, "</div>");
    TRY(put_samples(&out, c));
    source = c->metrics.at;
    if (c->metrics.n)
        str_add(&out, "<h2>Training</h2>");
    for (int i = 0; i < c->metrics.n; i++) {
        str_add(&out, "<details><summary>");
        html_escape(&out, source[i].title);
        str_add(&out, "</summary>");
        TRY(plot_metrics(&out, source[i].path));
        str_add(&out, "</details>");
    }
    html_end(&out);
    TRY(file_write_atomic(c->out, out.s, out.n));
    log_info("report: %s", c->out);
fail:
    str_free(&out);
    free(folder);
    json_free(demo);
    return rc;
}

int report_main(int argc, char **argv)
{
    Cli cli = {0};
    int rc = cli_parse(&cli, &spec, argc, argv);
    if (rc == 0 && !cli.dry_run)
        rc = report(config_data(cli.config));
    cli_free(&cli);
    return rc < 0 ? cli_fail(spec.program, rc) : 0;
}
