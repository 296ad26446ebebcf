/* controls.c - see controls.h; `rlhf-demo controls`. */
#include "rlhf/demo/controls.h"

#include "common/base/cli.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "rlhf/demo/demo.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

static Interval version_of(const Json *demo, const char *version, const char *measure)
{
    return interval_from_json(json_get(json_get(json_get(demo, "versions"), version), measure));
}

static Interval change_of(const Json *demo, const char *change, const char *measure)
{
    return interval_from_json(json_get(json_get(json_get(demo, "differences"), change), measure));
}

static Interval difference_of(const Json *eval, const char *measure)
{
    return interval_from_json(json_get(json_get(json_get(eval, "compare"), "difference"), measure));
}

static double recall_of(const Json *detect)
{
    return interval_from_json(json_get(detect, "recall_50")).value;
}

/* ---- rules ----------------------------------------------------------------------------------------- */

static void rule_shuffled(Rule *r, const Json *whole, const Json *demo)
{
    Interval rs = change_of(demo, "rs_sft", "gold"), ppo = change_of(demo, "ppo_sft", "gold");
    *r = (Rule){"annotators without knowledge: neither RS nor PPO gains beyond the interval",
                .pass = rs.low <= 0 && ppo.low <= 0};
    snprintf(r->found, sizeof r->found, "RS %+.3f [%+.3f, %+.3f], PPO %+.3f [%+.3f, %+.3f]; with knowledge %+.3f, %+.3f",
             rs.value, rs.low, rs.high, ppo.value, ppo.low, ppo.high, change_of(whole, "rs_sft", "gold").value,
             change_of(whole, "ppo_sft", "gold").value);
}

static void rule_random(Rule *r, const Json *whole, const Json *demo)
{
    Interval a = version_of(demo, "rs", "gold"), b = version_of(whole, "rs", "gold");
    *r = (Rule){"a random one of the answers: below the best one, intervals apart", .pass = a.high < b.low};
    snprintf(r->found, sizeof r->found, "gold %.3f [%.3f, %.3f], the best one %.3f [%.3f, %.3f]", a.value, a.low,
             a.high, b.value, b.low, b.high);
}

static void rule_switch(Rule *r, const Json *whole, const Json *demo)
{
    Interval a = version_of(demo, "ppo", "violations"), b = version_of(whole, "ppo", "violations");
    *r = (Rule){"no switch to the safety model: more violations after PPO, intervals apart", .pass = a.low > b.high};
    snprintf(r->found, sizeof r->found, "%.1f %% [%.1f, %.1f] of unsafe prompts, with the switch %.1f %% [%.1f, %.1f]",
             100 * a.value, 100 * a.low, 100 * a.high, 100 * b.value, 100 * b.low, 100 * b.high);
}

static void rule_beta0(Rule *r, const Json *demo)
{
    Interval score = change_of(demo, "ppo_rs", "reward_helpful"), gold = change_of(demo, "ppo_rs", "gold");
    *r = (Rule){"no KL penalty: PPO raises the helpfulness model's score and lowers gold, beyond the interval",
                .pass = score.low > 0 && gold.high < 0};
    snprintf(r->found, sizeof r->found, "score %+.2f [%+.2f, %+.2f], gold %+.3f [%+.3f, %+.3f]", score.value,
             score.low, score.high, gold.value, gold.low, gold.high);
}

/* The difference falls on every seed, and its mean beyond the interval over prompts. */
static void rule_fall(Rule *r, const char *text, const char *measure, const Json *const *compare, int n)
{
    Interval *v = xcalloc((size_t)n + 1, sizeof *v);
    int fell = 0;
    for (int i = 0; i < n; i++) {
        v[i] = difference_of(compare[i], measure);
        fell += v[i].value < 0;
    }
    Interval mean = interval_mean(v, n);
    *r = (Rule){text, .pass = n && fell == n && mean.high < 0};
    snprintf(r->found, sizeof r->found, "%+.3f [%+.3f, %+.3f], lower on %d of %d seed%s", mean.value, mean.low,
             mean.high, fell, n, n == 1 ? "" : "s");
    free(v);
}

void controls_rules(Rule out[CONTROL_RULES], const Json *whole, const Json *const demo[CONTROL_DEMOS],
                    const Json *const *compare, int n)
{
    rule_shuffled(&out[0], whole, demo[CONTROL_SHUFFLED]);
    rule_random(&out[1], whole, demo[CONTROL_RANDOM]);
    rule_switch(&out[2], whole, demo[CONTROL_SWITCH]);
    rule_beta0(&out[3], demo[CONTROL_BETA0]);
    rule_fall(&out[4], "no classification loss: at equal precision, recall of unsafe answers is lower, beyond the interval",
              "recall_at_same_precision", compare, n);
    rule_fall(&out[5], "no classification loss: F1 of 'unsafe' at sigmoid 0.5 is lower, beyond the interval", "f1_50",
              compare, n);
}

/* ---- table ----------------------------------------------------------------------------------------- */

static const struct {
    const char *key, *label;
} columns[] = {{"recall_at_same_precision", "recall, equal precision"}, {"f1_50", "F1 at 0.5"},
               {"balanced_50", "balanced acc. at 0.5"}, {"auc", "ROC AUC"}, {"recall_50", "recall at 0.5"},
               {"precision_50", "precision at 0.5"}};
enum { N_COLUMNS = sizeof columns / sizeof *columns };

/* Interval of the mean over seeds, which stand for all seeds: Student's t, n >= 2. */
static Interval over_seeds(const Interval *v, int n)
{
    static const double t975[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                                  2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086};
    enum { KNOWN = sizeof t975 / sizeof *t975 };
    double mean = interval_mean(v, n).value, sum = 0;
    for (int i = 0; i < n; i++)
        sum += (v[i].value - mean) * (v[i].value - mean);
    double half = t975[n - 2 < KNOWN ? n - 2 : KNOWN - 1] * sqrt(sum / (n - 1) / n);
    return (Interval){mean, mean - half, mean + half};
}

static void put_cell(Str *out, Interval v)
{
    str_addf(out, "  %+.3f [%+.3f, %+.3f]", v.value, v.low, v.high);
}

void controls_table(Str *out, const char *const *title, const Json *const *compare, int n)
{
    Interval *v = xcalloc((size_t)n + 1, sizeof *v); /* of one column */
    str_addf(out, "Safety model without - with classification loss, answers labelled unsafe, 95 %% interval\n\n%-20s", "");
    for (int c = 0; c < N_COLUMNS; c++)
        str_addf(out, "  %-23s", columns[c].label);
    str_add(out, "  recall at 0.5\n");
    for (int row = 0; row < n + (n > 1 ? 2 : 0); row++) {
        str_addf(out, "%-20s", row < n ? title[row] : row == n ? "mean, over prompts" : "mean, over seeds");
        for (int c = 0; c < N_COLUMNS; c++) {
            for (int i = 0; i < n; i++)
                v[i] = difference_of(compare[i], columns[c].key);
            put_cell(out, row < n ? v[row] : row == n ? interval_mean(v, n) : over_seeds(v, n));
        }
        if (row < n)
            str_addf(out, "  %.3f -> %.3f", recall_of(json_get(json_get(compare[row], "compare"), "detect")),
                     recall_of(json_get(compare[row], "detect")));
        str_add(out, "\n");
    }
    free(v);
}

/* ---- rlhf-demo controls ---------------------------------------------------------------------------- */

typedef struct {
    const char *title, *path;
} Seed;

typedef struct {
    const char *whole, *demo[CONTROL_DEMOS], *out;
    ConfigList unanchored;
} ControlsConfig;

#define AT(m) offsetof(ControlsConfig, m)

static const CfgField seed_fields[] = {
    {"title", CFG_STRING, offsetof(Seed, title), .flags = CFG_REQUIRED, .help = "of the row"},
    {"path", CFG_STRING, offsetof(Seed, path), .flags = CFG_REQUIRED, .help = "eval.json of 'rlhf-reward eval'"},
    {0},
};

static const CfgField fields[] = {
    {"whole", CFG_STRING, AT(whole), .flags = CFG_REQUIRED, .help = "demo.json of the run with nothing broken"},
    {"shuffled", CFG_STRING, AT(demo[CONTROL_SHUFFLED]), .flags = CFG_REQUIRED, .help = "demo.json: annotators without knowledge"},
    {"random", CFG_STRING, AT(demo[CONTROL_RANDOM]), .flags = CFG_REQUIRED, .help = "demo.json: a random one of the K answers"},
    {"switch", CFG_STRING, AT(demo[CONTROL_SWITCH]), .flags = CFG_REQUIRED, .help = "demo.json: no switch to the safety model"},
    {"beta0", CFG_STRING, AT(demo[CONTROL_BETA0]), .flags = CFG_REQUIRED, .help = "demo.json: no KL penalty"},
    {"unanchored", CFG_LIST, AT(unanchored), .item_fields = seed_fields, .item_bytes = sizeof(Seed), .flags = CFG_REQUIRED,
     .help = "per seed: a safety model without classification loss, compare= the one with it: {title, path}"},
    {"out", CFG_STRING, AT(out), "", .flags = CFG_NO_RESULT, .help = "the same text as a file"},
    {0},
};

static const CliSpec spec = {
    .program = "rlhf-demo controls",
    .summary = "the verdict on each control of the demo",
    .description = "Prints a rule for each thing that was broken, and whether it holds. Exits with 1 when one does not.",
    .examples = "  rlhf-demo controls -c controls.yaml\n",
    .fields = fields,
    .config_bytes = sizeof(ControlsConfig),
};

static int put_verdicts(Str *out, const Rule *rules)
{
    int failed = 0;
    for (int i = 0; i < CONTROL_RULES; i++) {
        str_addf(out, "%s  %s: %s\n", rules[i].pass ? "pass" : "FAIL", rules[i].rule, rules[i].found);
        failed += !rules[i].pass;
    }
    return failed;
}

static int controls(const ControlsConfig *c)
{
    const int n = (int)c->unanchored.n;
    const Seed *seed = c->unanchored.at;
    Json *whole = NULL, *demo[CONTROL_DEMOS] = {0}, **eval = xcalloc((size_t)n + 1, sizeof(Json *));
    const Json **compare = xcalloc((size_t)n + 1, sizeof(Json *));
    const char **title = xcalloc((size_t)n + 1, sizeof *title);
    Rule rules[CONTROL_RULES];
    Str text = {0};
    int rc;
    TRY(json_read_file(&whole, c->whole));
    for (int k = 0; k < CONTROL_DEMOS; k++)
        TRY(json_read_file(&demo[k], c->demo[k]));
    for (int i = 0; i < n; i++) {
        title[i] = seed[i].title;
        TRY(json_read_file(&eval[i], seed[i].path));
        compare[i] = json_at(json_get(eval[i], "comparisons"), 0);
        if (json_kind(json_get(compare[i], "compare")) != JSON_OBJ) {
            rc = error_set(ERR_DATA, "%s: no \"compare\" in it; make it with rlhf-reward eval compare=DIR", seed[i].path);
            goto fail;
        }
    }
    controls_table(&text, title, compare, n);
    str_add(&text, "\n");
    controls_rules(rules, whole, (const Json *const *)demo, compare, n);
    int failed = put_verdicts(&text, rules);
    fputs(str_get(&text), stdout);
    if (c->out[0])
        TRY(file_write_atomic(c->out, text.s, text.n));
    if (failed)
        rc = error_set(ERR_UNEXPECTED, "%d of %d rules failed", failed, CONTROL_RULES);
fail:
    str_free(&text);
    json_free(whole);
    for (int k = 0; k < CONTROL_DEMOS; k++)
        json_free(demo[k]);
    for (int i = 0; i < n; i++)
        json_free(eval[i]);
    free(eval);
    free(compare);
    free(title);
    return rc;
}

int controls_main(int argc, char **argv)
{
    Cli cli = {0};
    int rc = cli_parse(&cli, &spec, argc, argv);
    if (rc == 0 && !cli.dry_run)
        rc = controls(config_data(cli.config));
    cli_free(&cli);
    return rc < 0 ? cli_fail(spec.program, rc) : 0;
}
