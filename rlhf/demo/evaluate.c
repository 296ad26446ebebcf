/* evaluate.c - `rlhf-demo evaluate`: answers of the three versions -> table, demo.json,
 * generations.jsonl. The numbers come from measures.c. Tested by tests/unit/test_demo_stats.c. */
#include "rlhf/demo/measures.h"

#include "common/base/cli.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/stream.h"
#include "rlhf/demo/demo.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    const char *path[V_COUNT], *out;
    int64_t seed, draws;
    bool strict;
} EvaluateConfig;

#define AT(m) offsetof(EvaluateConfig, m)

static const CfgField fields[] = {
    {"sft", CFG_STRING, AT(path[V_SFT]), .flags = CFG_REQUIRED, .help = "samples.jsonl of the SFT model"},
    {"rs", CFG_STRING, AT(path[V_RS]), .flags = CFG_REQUIRED, .help = "samples.jsonl after rejection sampling"},
    {"ppo", CFG_STRING, AT(path[V_PPO]), .flags = CFG_REQUIRED, .help = "samples.jsonl after PPO"},
    {"out", CFG_STRING, AT(out), .flags = CFG_REQUIRED | CFG_NO_RESULT, .help = "folder for demo.json and generations.jsonl"},
    {"seed", CFG_INT, AT(seed), "1", 0, 9e15, .help = "of the bootstrap"},
    {"draws", CFG_INT, AT(draws), "1000", 2, 1e6, .help = "of the bootstrap"},
    {"strict", CFG_BOOL, AT(strict), "false", .flags = CFG_NO_RESULT, .help = "exit with 1 when a rule fails"},
    {0},
};

static const CliSpec spec = {
    .program = "rlhf-demo evaluate",
    .summary = "score the answers of SFT, RS and PPO with the gold rules",
    .description = "Lines of 'rlhf generate', if wished with kl, reward_helpful and reward_safety.\n"
                   "Prints a table with 95 % intervals (bootstrap over prompts) and the verdicts.",
    .examples = "  rlhf-demo evaluate sft=s.jsonl rs=r.jsonl ppo=p.jsonl out=runs/demo/evaluation\n",
    .fields = fields,
    .config_bytes = sizeof(EvaluateConfig),
};

typedef struct {
    int version, minus;
    const char *key, *label;
} Change;

static const Change changes[] = {{V_RS, V_SFT, "rs_sft", "RS - SFT"},
                                 {V_PPO, V_RS, "ppo_rs", "PPO - RS"},
                                 {V_PPO, V_SFT, "ppo_sft", "PPO - SFT"}};
enum { N_CHANGES = sizeof changes / sizeof *changes };

/* ---- the table */

static void put_interval(Str *out, const MeasureInfo *info, Interval v, bool sign)
{
    double f = info->percent ? 100 : 1;
    char text[64];
    if (isnan(v.value))
        snprintf(text, sizeof text, "-");
    else if (sign)
        snprintf(text, sizeof text, "%+.*f [%+.*f, %+.*f]", info->digits, f * v.value, info->digits,
                 f * v.low, info->digits, f * v.high);
    else
        snprintf(text, sizeof text, "%.*f [%.*f, %.*f]", info->digits, f * v.value, info->digits,
                 f * v.low, info->digits, f * v.high);
    str_addf(out, "  %-23s", text);
}

static void end_line(Str *out)
{
    while (out->n && out->s[out->n - 1] == ' ')
        out->s[--out->n] = 0;
    str_add(out, "\n");
}

static void put_label(Str *out, const MeasureInfo *info)
{
    char label[48];
    snprintf(label, sizeof label, "%s%s", info->label, info->percent ? ", %" : "");
    str_addf(out, "%-34s", label);
}

static void put_kinds(Str *out, const Evaluation *e)
{
    static const MeasureInfo gold = {.digits = 3};
    str_addf(out, "\n%-34s  %-23s  %-23s  %-23s  right content, %%\n", "gold by kind of prompt", "SFT",
             "RS", "PPO");
    for (int k = 0; k < WORLD_KINDS; k++) {
        str_addf(out, "  %-32s", world_kind_name((WorldKind)k));
        for (int v = 0; v < V_COUNT; v++)
            put_interval(out, &gold, evaluation_mean(e, v, M_KIND_GOLD + k), false);
        for (int v = 0; v < V_COUNT && k != WORLD_UNSAFE; v++)
            str_addf(out, "%s%3.0f", v ? " ->" : "  ",
                     100 * evaluation_mean(e, v, M_KIND_EXACT + k).value);
        end_line(out);
    }
}

static void put_table(Str *out, const Evaluation *e, const Rule *rules, int n_rules)
{
    str_addf(out, "%lld answers of each version to %d distinct held-out prompts; [95 %% interval, "
             "bootstrap over prompts, %d draws]\n\n%-34s  %-23s  %-23s  PPO\n",
             (long long)e->answers[0], e->n_prompts, e->boot.n_draws, "", "SFT", "RS");
    for (int m = 0; m < M_COUNT; m++) {
        put_label(out, &measures[m]);
        for (int v = 0; v < V_COUNT; v++)
            put_interval(out, &measures[m], evaluation_mean(e, v, m), false);
        end_line(out);
    }
    str_addf(out, "\n%-34s", "paired differences");
    for (int c = 0; c < N_CHANGES; c++)
        str_addf(out, "  %-23s", changes[c].label);
    end_line(out);
    for (int m = 0; m <= M_REFUSED_LOOK; m++) {
        put_label(out, &measures[m]);
        for (int c = 0; c < N_CHANGES; c++)
            put_interval(out, &measures[m],
                         evaluation_difference(e, changes[c].version, changes[c].minus, m), true);
        end_line(out);
    }
    static const MeasureInfo share = {"", "share of the gap to the best", true, 1};
    put_label(out, &share);
    for (int c = 0; c < N_CHANGES; c++)
        put_interval(out, &share, evaluation_gap_share(e, changes[c].version, changes[c].minus), true);
    end_line(out);
    str_addf(out, "  (best answers: gold %.3f)\n", evaluation_mean(e, V_SFT, M_ORACLE).value);
    put_kinds(out, e);
    str_add(out, "\n");
    for (int i = 0; i < n_rules; i++)
        str_addf(out, "%s  %s: %s\n", rules[i].pass ? "pass" : "FAIL", rules[i].rule, rules[i].found);
}

/* ---- files */

static void version_json(JsonWriter *w, const Evaluation *e, int v)
{
    jw_key(w, version_keys[v]);
    jw_object(w);
    for (int m = 0; m < M_COUNT; m++)
        interval_json(w, measures[m].key, evaluation_mean(e, v, m));
    jw_key(w, "kinds");
    jw_object(w);
    for (int k = 0; k < WORLD_KINDS; k++) {
        jw_key(w, world_kind_name((WorldKind)k));
        jw_object(w);
        interval_json(w, "gold", evaluation_mean(e, v, M_KIND_GOLD + k));
        if (k != WORLD_UNSAFE)
            interval_json(w, "exact", evaluation_mean(e, v, M_KIND_EXACT + k));
        jw_object_end(w);
    }
    jw_object_end(w);
    jw_object_end(w);
}

static void evaluation_json(JsonWriter *w, const Evaluation *e, const Rule *rules, int n_rules)
{
    bool pass = true;
    jw_object(w);
    jw_kint(w, "prompts", e->n_prompts);
    jw_kint(w, "answers", e->answers[0]);
    jw_kint(w, "draws", e->boot.n_draws);
    interval_json(w, "oracle", evaluation_mean(e, V_SFT, M_ORACLE));
    jw_key(w, "versions");
    jw_object(w);
    for (int v = 0; v < V_COUNT; v++)
        version_json(w, e, v);
    jw_object_end(w);
    jw_key(w, "differences");
    jw_object(w);
    for (int c = 0; c < N_CHANGES; c++) {
        jw_key(w, changes[c].key);
        jw_object(w);
        for (int m = 0; m < M_COUNT; m++)
            interval_json(w, measures[m].key,
                          evaluation_difference(e, changes[c].version, changes[c].minus, m));
        interval_json(w, "gap_share",
                      evaluation_gap_share(e, changes[c].version, changes[c].minus));
        jw_object_end(w);
    }
    jw_object_end(w);
    jw_key(w, "rules");
    jw_array(w);
    for (int i = 0; i < n_rules; i++) {
        jw_object(w);
        jw_kstr(w, "rule", rules[i].rule);
        jw_kbool(w, "pass", rules[i].pass);
        jw_kstr(w, "found", rules[i].found);
        jw_object_end(w);
        pass &= rules[i].pass;
    }
    jw_array_end(w);
    jw_kbool(w, "pass", pass);
    jw_object_end(w);
}

static void known(JsonWriter *w, const char *key, double v)
{
    if (!isnan(v))
        jw_knum(w, key, v);
}

static void answer_json(JsonWriter *w, const Answer *a, const char *version)
{
    jw_object(w);
    jw_kstr(w, "id", a->id);
    jw_kstr(w, "version", version);
    jw_kint(w, "sample", a->sample);
    jw_kstr(w, "kind", world_kind_name(a->kind));
    jw_kstr(w, "style", world_style_name(a->style));
    jw_kbool(w, "tagged", a->tagged);
    jw_kstr(w, "prompt", a->prompt);
    jw_kstr(w, "answer", a->answer);
    jw_kbool(w, "finished", a->gold.finished);
    jw_kint(w, "tokens", a->tokens);
    jw_knum(w, "gold", a->gold.gold);
    jw_knum(w, "gold_helpful", a->gold.helpful);
    jw_knum(w, "gold_safe", a->gold.safe);
    jw_kbool(w, "exact", a->gold.exact);
    jw_kbool(w, "refused", a->gold.refused);
    jw_kbool(w, "violation", a->kind == WORLD_UNSAFE && a->gold.complied);
    known(w, "reward_helpful", a->reward_helpful);
    known(w, "reward_safety", a->reward_safety);
    known(w, "kl", a->kl);
    jw_object_end(w);
}

static int write_generations(const char *path, const AnswerSet version[V_COUNT])
{
    Writer *out = NULL;
    Str line = {0};
    JsonWriter w;
    int rc;
    TRY(writer_open(&out, path));
    for (int64_t i = 0; i < version[0].n; i++) {
        for (int v = 0; v < V_COUNT; v++) { /* the versions of one prompt stand together */
            str_clear(&line);
            jw_init(&w, &line, false);
            answer_json(&w, &version[v].at[i], version_keys[v]);
            str_add(&line, "\n");
            TRY(writer_write(out, line.s, line.n));
        }
    }
    Writer *done = out;
    out = NULL;
    TRY(writer_close(done));
fail:
    writer_abort(out);
    str_free(&line);
    return rc;
}

static int write_outputs(const EvaluateConfig *c, const Evaluation *e, const AnswerSet *version,
                         const Rule *rules, int n_rules)
{
    Str json = {0}, table = {0};
    JsonWriter w;
    char *demo = path_join(c->out, "demo.json"), *text = path_join(c->out, "table.txt");
    char *generations = path_join(c->out, "generations.jsonl");
    int rc;
    TRY(dir_make(c->out));
    TRY(write_generations(generations, version));
    jw_init(&w, &json, true);
    evaluation_json(&w, e, rules, n_rules);
    str_add(&json, "\n");
    TRY(file_write_atomic(demo, json.s, json.n));
    put_table(&table, e, rules, n_rules);
    TRY(file_write_atomic(text, table.s, table.n));
    fputs(table.s, stdout);
fail:
    str_free(&json);
    str_free(&table);
    free(demo);
    free(text);
    free(generations);
    return rc;
}

static int evaluate(const EvaluateConfig *c)
{
    AnswerSet version[V_COUNT] = {0};
    Evaluation e = {0};
    Rule rules[RULES_MAX];
    int rc = 0;
    for (int v = 0; v < V_COUNT; v++) {
        TRY(answer_set_read(&version[v], c->path[v]));
        TRY(answer_set_sort(&version[v]));
    }
    TRY(evaluation_make(&e, version, (int)c->draws, (uint64_t)c->seed));
    int n = evaluation_rules(&e, rules);
    TRY(write_outputs(c, &e, version, rules, n));
    for (int i = 0; i < n && c->strict; i++) {
        if (!rules[i].pass) {
            rc = error_set(ERR_UNEXPECTED, "rule failed: %s: %s", rules[i].rule, rules[i].found);
            goto fail;
        }
    }
fail:
    evaluation_free(&e);
    for (int v = 0; v < V_COUNT; v++)
        answer_set_free(&version[v]);
    return rc;
}

int evaluate_main(int argc, char **argv)
{
    Cli cli = {0};
    int rc = cli_parse(&cli, &spec, argc, argv);
    if (rc == 0 && !cli.dry_run)
        rc = evaluate(config_data(cli.config));
    cli_free(&cli);
    return rc < 0 ? cli_fail(spec.program, rc) : 0;
}
