/* plan_print.c - the plan as a table for people and as JSON for tools. Tested by tests/e2e/test_plan.sh. */
#include "rlhf/plan.h"

#include "common/base/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const state_name[] = {"planned", "waits", "not planned", "refused"};

static double host_bytes(const PlannedStage *s)
{
    return run_plan_bytes(&s->plan, false);
}

static double card_bytes(const PlannedStage *s)
{
    return run_plan_bytes(&s->plan, true);
}

/* Whether what it needs is more than there is. */
static bool too_large(const PlannedStage *s)
{
    double need = card_bytes(s) > 0 ? card_bytes(s) : host_bytes(s);
    return s->state == STAGE_PLANNED && s->plan.have > 0 && need > s->plan.have;
}

/* "~" an estimate, "<" at most, before a number of tokens or seconds. */
static const char *mark(const PlannedStage *s)
{
    return s->answer_is_most ? "<" : s->approx || s->answer > 0 ? "~" : "";
}

/* "1.20 M trained, 96 k sampled, 400 k scored" */
static void add_work(Str *out, const PlannedStage *s)
{
    static const struct {
        WorkKind kind;
        const char *what;
    } kinds[] = {{WORK_TRAIN, "trained"}, {WORK_DECODE, "sampled"}, {WORK_FORWARD, "scored"}};
    char n[QUANTITY_TEXT];
    const char *between = "";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        double tokens = planned_tokens(s, kinds[i].kind);
        if (tokens <= 0)
            continue;
        str_addf(out, "%s%s%s %s", between, mark(s), count_text(n, tokens), kinds[i].what);
        between = ", ";
    }
}

static void add_seconds(Str *out, const char *before, double s)
{
    char text[QUANTITY_TEXT], all[QUANTITY_TEXT + 4];
    snprintf(all, sizeof all, "%s%s", isnan(s) ? "" : before, isnan(s) ? "-" : seconds_text(text, s));
    str_addf(out, "  %8s", all);
}

static void add_stage(Str *out, const PlannedStage *s, int name, int program)
{
    char n[QUANTITY_TEXT], m[QUANTITY_TEXT], d[QUANTITY_TEXT];
    str_addf(out, "%-*s  %-*s", name, s->name, program, s->program);
    if (s->state != STAGE_PLANNED) {
        str_addf(out, "  %s%s%s\n", state_name[s->state], s->why ? ": " : "", s->why ? s->why : "");
        return;
    }
    double card = card_bytes(s), disk = run_plan_disk_bytes(&s->plan);
    str_addf(out, "  %7s  %9s%c %9s", count_text(n, s->params), bytes_text(m, card > 0 ? card : host_bytes(s)),
             too_large(s) ? '!' : ' ', disk > 0 ? bytes_text(d, disk) : "-");
    add_seconds(out, s->answer_is_most ? "<" : "~", s->seconds);
    add_seconds(out, "", s->took);
    str_add(out, "  ");
    add_work(out, s);
    str_add(out, "\n");
}

/* Sums over the stages; NaN stays out of them. */
typedef struct {
    double disk, left, seconds, took;
    const PlannedStage *largest;
    bool most;
} Totals;

static Totals totals(const Plan *p)
{
    Totals t = {0};
    for (int i = 0; i < p->n; i++) {
        const PlannedStage *s = &p->at[i];
        t.took += isnan(s->took) ? 0 : s->took;
        if (s->state != STAGE_PLANNED)
            continue;
        double bytes = run_plan_disk_bytes(&s->plan), memory = card_bytes(s) + host_bytes(s);
        t.disk += bytes;
        t.left += isnan(s->took) ? bytes : 0;
        t.seconds += isnan(s->seconds) ? 0 : s->seconds;
        t.most = t.most || s->answer_is_most;
        if (!t.largest || memory > card_bytes(t.largest) + host_bytes(t.largest))
            t.largest = s;
    }
    return t;
}

static void add_memory(Str *out, const Plan *p, const Totals *t)
{
    char a[QUANTITY_TEXT], b[QUANTITY_TEXT];
    const PlannedStage *s = t->largest;
    double card = card_bytes(s);
    str_addf(out, "memory: at most %s%s%s", bytes_text(a, card > 0 ? card : host_bytes(s)), p->n > 1 ? ", in " : "",
             p->n > 1 ? s->name : "");
    if (s->plan.have > 0)
        str_addf(out, "; %s has %s", s->plan.device_text, bytes_text(b, s->plan.have));
    str_add(out, "\n");
    for (int i = 0; i < p->n; i++)
        if (too_large(&p->at[i]))
            str_addf(out, "! %s does not fit into memory\n", p->n > 1 ? p->at[i].name : "this");
}

static void add_disk(Str *out, const Plan *p, const Totals *t)
{
    char a[QUANTITY_TEXT], b[QUANTITY_TEXT];
    double room = NAN;
    const char *where = "";
    for (int i = 0; i < p->n; i++) {
        const PlannedStage *s = &p->at[i];
        if (s->state == STAGE_PLANNED && s->plan.out[0] && (isnan(room) || s->free_bytes < room)) {
            room = s->free_bytes;
            where = s->plan.out;
        }
    }
    if (isnan(room))
        return;
    str_addf(out, "disk: %s still to be written at most; %s are free at %s\n", bytes_text(a, t->left),
             bytes_text(b, room), where);
    if (t->left > room)
        str_add(out, "! the disk is too small: lower keep, set export_dtype: bf16, or use another out_dir\n");
}

static void add_notes(Str *out, const Plan *p)
{
    bool approx = false, most = false;
    double answer = 0;
    for (int i = 0; i < p->n; i++) {
        const PlannedStage *s = &p->at[i];
        approx = approx || s->approx;
        most = most || s->answer_is_most;
        answer = s->answer > 0 && !s->answer_is_most ? s->answer : answer;
    }
    if (p->calibrated && p->calibrated[0])
        str_addf(out, "measured in %.1f s: %s\n", p->calibration_s, p->calibrated);
    if (p->not_calibrated)
        str_addf(out, "no times: %s\n", p->not_calibrated);
    if (answer > 0)
        str_addf(out, "~ answers are taken to have %.3g tokens, as those that the model is trained on\n", answer);
    if (approx)
        str_add(out, "~ records that an earlier stage is to make are taken to be as many as it can make\n");
    if (most)
        str_add(out, "< answers are taken to have max_new_tokens; --answer-tokens N says how long they are\n");
}

void plan_print(const Plan *p)
{
    Str out = {0};
    int name = 5, program = 7;
    Totals t = totals(p);
    for (int i = 0; i < p->n; i++) {
        int a = (int)strlen(p->at[i].name), b = (int)strlen(p->at[i].program);
        name = a > name ? a : name;
        program = b > program ? b : program;
    }
    str_addf(&out, "%-*s  %-*s  %7s  %9s  %9s  %8s  %8s  %s\n", name, "stage", program, "program", "params", "memory",
             "disk", "time", "took", "tokens");
    for (int i = 0; i < p->n; i++)
        add_stage(&out, &p->at[i], name, program);
    if (t.largest && p->n > 1) {
        char d[QUANTITY_TEXT];
        str_addf(&out, "%-*s  %-*s  %7s  %9s  %9s", name, "total", program, "", "", "", bytes_text(d, t.disk));
        add_seconds(&out, t.most ? "<" : "~", p->calibrated ? t.seconds : NAN);
        add_seconds(&out, "", t.took > 0 ? t.took : NAN);
        str_add(&out, "\n");
    }
    if (t.largest) {
        str_add(&out, "\n");
        add_memory(&out, p, &t);
        add_disk(&out, p, &t);
    }
    add_notes(&out, p);
    fputs(str_get(&out), stdout);
    str_free(&out);
}

/* ---- cards ---- */

/* Sold as so many GB, and what is left of them for a process, in GiB: an L4 or A10 has 22.5, an H100 79.6, an H200
 * 140.4, less half to one and a half for the driver, the kernels and the vendor's library. */
static const struct {
    int gb;
    double gib;
} cards[] = {{24, 22}, {80, 78}, {141, 139}};
enum { CARDS = sizeof cards / sizeof *cards };

static bool card_holds(int i, const PlannedStage *s)
{
    return card_bytes(s) <= cards[i].gib * 1073741824.0;
}

void plan_print_cards(const Plan *p)
{
    Str out = {0};
    char a[QUANTITY_TEXT], b[QUANTITY_TEXT], c[QUANTITY_TEXT];
    str_addf(&out, "%-20s %-16s %8s %10s %10s ", "stage", "program", "params", "card", "host");
    for (int i = 0; i < CARDS; i++)
        str_addf(&out, "%4d GB", cards[i].gb);
    str_add(&out, "\n");
    for (int k = 0; k < p->n; k++) {
        const PlannedStage *s = &p->at[k];
        str_addf(&out, "%-20s %-16s", s->name, s->program);
        if (s->state != STAGE_PLANNED) {
            str_addf(&out, " %s%s%s\n", state_name[s->state], s->why ? ": " : "", s->why ? s->why : "");
            continue;
        }
        str_addf(&out, " %8s %10s %10s ", count_text(a, s->params), bytes_text(b, card_bytes(s)),
                 bytes_text(c, host_bytes(s)));
        for (int i = 0; i < CARDS; i++)
            str_addf(&out, "%7s", card_holds(i, s) ? "yes" : "no");
        str_add(&out, "\n");
    }
    fputs(str_get(&out), stdout);
    str_free(&out);
}

/* ---- JSON ---- */

static void json_parts(JsonWriter *w, const PlannedStage *s)
{
    jw_key(w, "memory");
    jw_array(w);
    for (int i = 0; i < s->plan.n_arenas; i++) {
        const PlanArena *a = &s->plan.arena[i];
        jw_object(w);
        jw_kstr(w, "name", a->name);
        jw_kstr(w, "kind", a->kind);
        jw_kint(w, "bytes", (int64_t)a->bytes);
        jw_object_end(w);
    }
    jw_array_end(w);
    jw_key(w, "work");
    jw_array(w);
    for (int i = 0; i < s->plan.n_work; i++) {
        const Work *k = &s->plan.work[i];
        jw_object(w);
        jw_kstr(w, "kind", work_name(k->kind));
        jw_kstr(w, "head", k->scalar ? "scalar" : "lm");
        jw_knum(w, "tokens", work_tokens(k, s->answer));
        jw_knum(w, "answers", k->answers);
        jw_object_end(w);
    }
    jw_array_end(w);
}

static void json_cards(JsonWriter *w, const PlannedStage *s)
{
    jw_key(w, "cards");
    jw_array(w);
    for (int i = 0; i < CARDS; i++) {
        jw_object(w);
        jw_kint(w, "gb", cards[i].gb);
        jw_kbool(w, "holds", card_holds(i, s));
        jw_object_end(w);
    }
    jw_array_end(w);
}

static void json_stage(JsonWriter *w, const PlannedStage *s)
{
    const RunPlan *p = &s->plan;
    jw_object(w);
    jw_kstr(w, "stage", s->name);
    jw_kstr(w, "program", s->program);
    jw_kstr(w, "state", state_name[s->state]);
    if (s->why)
        jw_kstr(w, "why", s->why);
    jw_knum(w, "took_seconds", s->took);
    if (s->state == STAGE_PLANNED) {
        jw_kstr(w, "device", p->device_text);
        jw_knum(w, "parameters", s->params);
        jw_knum(w, "steps", p->steps);
        jw_kint(w, "host_bytes", (int64_t)host_bytes(s));
        jw_kint(w, "card_bytes", (int64_t)card_bytes(s));
        jw_kint(w, "memory_bytes", (int64_t)p->have);
        jw_kint(w, "checkpoint_bytes", (int64_t)p->checkpoint);
        jw_kint(w, "checkpoints", (int64_t)run_plan_checkpoints(p));
        jw_kint(w, "disk_bytes", (int64_t)run_plan_disk_bytes(p));
        jw_knum(w, "free_bytes", s->free_bytes);
        jw_knum(w, "trained_tokens", planned_tokens(s, WORK_TRAIN));
        jw_knum(w, "sampled_tokens", planned_tokens(s, WORK_DECODE));
        jw_knum(w, "scored_tokens", planned_tokens(s, WORK_FORWARD));
        jw_kbool(w, "estimated_data", s->approx);
        jw_kbool(w, "longest_answers", s->answer_is_most);
        jw_knum(w, "seconds", s->seconds);
        json_parts(w, s);
        if (card_bytes(s) > 0)
            json_cards(w, s);
    }
    jw_object_end(w);
}

void plan_print_json(const Plan *p)
{
    Str out = {0};
    JsonWriter w;
    Totals t = totals(p);
    jw_init(&w, &out, true);
    jw_object(&w);
    jw_key(&w, "stages");
    jw_array(&w);
    for (int i = 0; i < p->n; i++)
        json_stage(&w, &p->at[i]);
    jw_array_end(&w);
    jw_knum(&w, "seconds", p->calibrated ? t.seconds : NAN);
    jw_knum(&w, "disk_bytes", t.disk);
    jw_knum(&w, "disk_bytes_to_write", t.left);
    jw_knum(&w, "calibration_seconds", p->calibration_s);
    jw_object_end(&w);
    fputs(str_get(&out), stdout);
    fputs("\n", stdout);
    str_free(&out);
}
