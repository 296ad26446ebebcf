/* plan.c - `rlhf plan`: memory, disk and time of the stages of an experiment, or of one program, before
 * anything runs.
 *
 * A stage states its own plan: it is started with --plan, which is --dry-run for programs. What earlier
 * stages are still to make is stood in for (stand_in.h). Seconds are its counted work (train/run_plan.h)
 * times rates measured here (calibrate.h). Tested by tests/e2e/test_plan.sh, its arithmetic by
 * tests/unit/test_estimate.c. */
#include "rlhf/plan.h"

#include "common/base/cli.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/progress.h"
#include "rlhf/rlhf.h"
#include "rlhf/stand_in.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static const char help[] =
    "usage: rlhf plan EXPERIMENT.yaml [options] [root=DIR] [vars.NAME=VALUE ...]\n"
    "       rlhf plan [options] PROGRAM [its arguments ...]\n\n"
    "What each stage of an experiment, or one program, will take: memory to the byte, disk, tokens and\n"
    "time. Nothing is run and nothing written but in a temporary folder. Every stage is checked as its\n"
    "program would check it; models and data that earlier stages will make are stood in for.\n\n"
    "options (before PROGRAM):\n"
    "  -c FILE            the experiment, as well\n"
    "  --set A=B          root or a variable of the experiment\n"
    "  --seconds S        time to measure this machine in; 0 = no times (default 2)\n"
    "  --answer-tokens N  length of sampled answers; default: that of the answers trained on by the stage\n"
    "                     that makes the model, else max_new_tokens\n"
    "  --cards            the memory on a card, and whether cards of 24, 80 and 141 GB hold it; no card is\n"
    "                     needed for that, and none measured\n"
    "  --json             the plan as JSON\n"
    "  -h, --help         this text\n\n"
    "exit codes: 0 planned (a stage may wait for an input that another is to make); otherwise the code of\n"
    "the first stage that was refused.\n\n"
    "examples:\n"
    "  rlhf plan configs/demo.yaml\n"
    "  rlhf plan rlhf-sft -c configs/sft.yaml model=DIR 'data.train=[{path: F}]' out_dir=runs/sft\n";

typedef struct {
    const char *path;
    char **program; /* and its arguments; NULL: an experiment */
    int n_program;
    bool json, cards;
    double seconds, answer;
    const char *sets[64];
    int n_sets;
} Args;

enum { RECORDS_MOST = 4096 }; /* of stand-ins in one plan; of more, two plans are stretched */

/* ---- the command line ---- */

static int number(const char *option, const char *text, double least, double *out)
{
    char *end;
    *out = strtod(text, &end);
    if (end == text || *end || !(*out >= least) || !isfinite(*out))
        return error_set(ERR_USAGE, "%s: found '%s', expected a number of at least %g", option, text, least);
    return 0;
}

static int parse(Args *a, int argc, char **argv)
{
    int rc = 0;
    for (int i = 1; i < argc && rc == 0; i++) {
        const char *w = argv[i];
        bool more = i + 1 < argc;
        if (!strcmp(w, "-h") || !strcmp(w, "--help")) {
            fputs(help, stdout);
            return 1;
        }
        if (!strcmp(w, "--json"))
            a->json = true;
        else if (!strcmp(w, "--cards"))
            a->cards = true;
        else if (!strcmp(w, "--seconds") && more)
            rc = number(w, argv[++i], 0, &a->seconds);
        else if (!strcmp(w, "--answer-tokens") && more)
            rc = number(w, argv[++i], 1, &a->answer);
        else if (!strcmp(w, "--set") && more && a->n_sets < 64)
            a->sets[a->n_sets++] = argv[++i];
        else if ((!strcmp(w, "-c") || !strcmp(w, "--config")) && more && !a->path)
            a->path = argv[++i];
        else if (!a->path && !strncmp(path_base(w), "rlhf", 4) && !strstr(w, ".y")) {
            a->program = argv + i;
            a->n_program = argc - i;
            return 0;
        } else if (w[0] != '-' && strchr(w, '=') && a->n_sets < 64)
            a->sets[a->n_sets++] = w;
        else if (w[0] != '-' && !a->path)
            a->path = w;
        else
            return error_set(ERR_USAGE, "unknown argument '%s'; see 'rlhf plan --help'", w);
    }
    if (rc < 0 || a->path)
        return rc;
    return error_set(ERR_USAGE, "no experiment file and no program given; see 'rlhf plan --help'");
}

/* ---- one stage's own plan ---- */

/* Programs that take --plan. */
static bool plans(const Stage *s)
{
    static const char *const programs[] = {"rlhf-sft", "rlhf-rejection", "rlhf-ppo"};
    const char *program = path_base(s->argv[0]), *command = s->argc > 1 ? s->argv[1] : "";
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        if (!strcmp(program, programs[i]))
            return true;
    }
    if (!strcmp(program, "rlhf"))
        return !strcmp(command, "generate");
    return !strcmp(program, "rlhf-reward") &&
           (!strcmp(command, "train") || !strcmp(command, "eval") || !strcmp(command, "score"));
}

/* The last line of its errors, without "PROGRAM: error: ", and with the config's name as `rlhf run` has it. */
static char *last_error(const char *path, const char *config, const char *config_path)
{
    char *text = NULL, *line;
    size_t n;
    if (file_read(path, &text, &n) < 0)
        return xstrdup("it failed without a word");
    while (n && text[n - 1] == '\n')
        text[--n] = 0;
    line = strrchr(text, '\n');
    line = line ? line + 1 : text;
    char *error = strstr(line, ": error: ");
    Str out = {0};
    str_add_replaced(&out, error ? error + 9 : *line ? line : "it failed without a word", config,
                     config_path ? config_path : config);
    free(text);
    return str_take(&out);
}

/* Starts argv with standard output thrown away and errors into a file; its exit code, or a negative error. */
static int run_child(const char *path, char **argv, const char *errors)
{
    posix_spawn_file_actions_t files;
    pid_t pid;
    int status = 0;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&files, 2, errors, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int e = posix_spawn(&pid, path, &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    if (e)
        return error_set(ERR_NOINPUT, "%s: cannot be started: %s", path, strerror(e));
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -ERR_INTERNAL;
}

/* The stage's plan into p->plan, or the reason why there is none into p->state, p->why. `dir` is temporary. */
static int ask_stage(PlannedStage *p, const Stage *s, const char *dir, bool on_card)
{
    char *file = path_join(dir, "plan.json"), *errors = path_join(dir, "errors.txt");
    char *config = path_join(dir, "config.yaml"), *path = stage_program_path(s);
    char **argv = xcalloc((size_t)s->argc + 4, sizeof *argv);
    int rc = 0, n = 0;
    for (; n < s->argc; n++)
        argv[n] = s->config_path && !strcmp(s->argv[n], s->config_path) ? config : s->argv[n];
    argv[n++] = (char *)"--plan";
    argv[n++] = file;
    if (on_card)
        argv[n] = (char *)"device=cuda";
    if (s->config_path)
        TRY(file_write_atomic(config, s->config, strlen(s->config)));
    double start = time_now();
    TRY(run_child(path, argv, errors));
    p->startup = time_now() - start;
    if (rc == 0) {
        run_plan_free(&p->plan);
        TRY(run_plan_read(&p->plan, file));
        p->state = STAGE_PLANNED;
    } else {
        p->state = STAGE_FAILED;
        p->code = rc;
        p->why = last_error(errors, config, s->config_path);
        rc = 0;
    }
fail:
    free(file);
    free(errors);
    free(config);
    free(path);
    free(argv);
    return rc;
}

/* Counts of plans with fractions a < b of the records, carried on to all of them. */
static void stretch_count(double *at_b, double at_a, double a, double b)
{
    double all = *at_b + (*at_b - at_a) * (1 - b) / (b - a);
    *at_b = all > *at_b ? all : *at_b;
}

static void stretch(RunPlan *p, const RunPlan *few, double a, double b)
{
    stretch_count(&p->steps, few->steps, a, b);
    for (int i = 0; i < p->n_work && i < few->n_work; i++) {
        Work *w = &p->work[i];
        const Work *f = &few->work[i];
        stretch_count(&w->tokens, f->tokens, a, b);
        stretch_count(&w->rows, f->rows, a, b);
        stretch_count(&w->sequences, f->sequences, a, b);
        stretch_count(&w->answers, f->answers, a, b);
        stretch_count(&w->calls, f->calls, a, b);
    }
    for (int i = 0; i < p->n_data && i < few->n_data; i++)
        stretch_count(&p->data[i].records, few->data[i].records, a, b);
}

/* Reads the experiment up to stage i with stand-ins for that stage's inputs. */
static int read_stage(Experiment *e, const Args *a, int i, StandIns *in, double fraction)
{
    stand_ins_begin(in, fraction);
    int rc = experiment_read_stage(e, a->path, a->sets, a->n_sets, i, stand_ins_hook(in));
    return rc < 0 ? rc : in->rc;
}

/* Its plan with that fraction of the records that are stood in for. */
static int plan_fraction(PlannedStage *p, const Args *a, int i, StandIns *in, double fraction)
{
    Experiment e = {0};
    int rc = read_stage(&e, a, i, in, fraction);
    if (rc == 0)
        rc = ask_stage(p, &e.stages[e.n - 1], in->dir, a->cards);
    experiment_free(&e);
    return rc;
}

/* Plans stage i; in->missing says when it cannot be. */
static int plan_records(PlannedStage *p, const Args *a, int i, StandIns *in)
{
    Experiment e = {0};
    RunPlan few = {0};
    int rc = read_stage(&e, a, i, in, 0);
    double all = in->records, most = RECORDS_MOST / all, half = most / 2;
    experiment_free(&e);
    if (rc < 0 || in->missing)
        return rc;
    if (all <= RECORDS_MOST) {
        TRY(plan_fraction(p, a, i, in, 1));
    } else {
        TRY(plan_fraction(p, a, i, in, half));
        few = p->plan;
        memset(&p->plan, 0, sizeof p->plan);
        if (p->state == STAGE_PLANNED)
            TRY(plan_fraction(p, a, i, in, most));
        if (p->state == STAGE_PLANNED)
            stretch(&p->plan, &few, half, most);
    }
    p->approx = in->approx;
fail:
    run_plan_free(&few);
    return rc;
}

/* ---- what it means ---- */

/* Of the file system that will hold `path`. */
static double free_bytes(const char *path)
{
    struct statvfs v;
    char *at = xstrdup(path[0] ? path : ".");
    while (statvfs(at, &v) < 0) {
        char *up = path_dir(at);
        bool top = !strcmp(up, at);
        free(at);
        at = up;
        if (top) {
            free(at);
            return NAN;
        }
    }
    free(at);
    return (double)v.f_bavail * (double)v.f_frsize;
}

/* Length of answers: asked for, or those the policy was trained on, or at most. */
static void choose_answer(PlannedStage *p, const Args *a, const StandIns *in)
{
    for (int i = 0; i < p->plan.n_work; i++) {
        const Work *w = &p->plan.work[i];
        if (w->kind != WORK_DECODE)
            continue;
        double known = a->answer > 0 ? a->answer : stand_ins_answer(in, w->model);
        p->answer = known > 0 && known < w->max_new ? known : w->max_new;
        p->answer_is_most = known <= 0;
        return;
    }
}

static int model_params(const char *folder, bool scalar, double *params)
{
    ModelConfig c;
    ParamTable t = {0};
    int rc = model_config_read(&c, folder);
    if (rc < 0)
        return rc;
    c.head = scalar ? HEAD_SCALAR : HEAD_LM;
    c.tied = c.tied && !scalar;
    param_table_init(&t, &c, DTYPE_F32, false);
    *params = (double)param_table_count(&t);
    param_table_free(&t);
    return 0;
}

double planned_tokens(const PlannedStage *s, WorkKind kind)
{
    double sum = 0;
    for (int i = 0; i < s->plan.n_work; i++) {
        const Work *w = &s->plan.work[i];
        if (w->kind == kind)
            sum += kind == WORK_DECODE ? w->answers * s->answer : work_tokens(w, s->answer);
    }
    return sum;
}

/* Seconds of a stage that `rlhf run` has done. */
static double seconds_taken(const char *root, const char *name)
{
    Json *j = NULL;
    char *path = xasprintf("%s/stages/%s.json", root, name);
    double s = NAN;
    if (file_exists(path) && json_read_file(&j, path) == 0) {
        const char *state = json_str(json_get(j, "state"));
        s = state && !strcmp(state, "done") ? json_num(json_get(j, "seconds"), NAN) : NAN;
    }
    json_free(j);
    free(path);
    return s;
}

/* After p->plan is there. */
static int finish_stage(PlannedStage *p, const Args *a, StandIns *in)
{
    choose_answer(p, a, in);
    double answer = p->plan.answer_tokens > 0 ? p->plan.answer_tokens : p->answer_is_most ? 0 : p->answer;
    stand_ins_add_plan(in, p->name, &p->plan, answer);
    p->free_bytes = free_bytes(p->plan.out);
    return p->plan.n_work ? model_params(p->plan.work[0].model, p->plan.work[0].scalar, &p->params) : 0;
}

static PlannedStage *add_stage(Plan *plan, const Stage *s)
{
    int i = VEC_GROW(plan->at, plan->n, plan->cap);
    PlannedStage *p = &plan->at[i];
    bool two = s->argc > 1 && s->argv[1][0] != '-' && !strchr(s->argv[1], '=');
    *p = (PlannedStage){.name = xstrdup(s->name ? s->name : ""), .seconds = NAN, .took = NAN};
    p->program = xasprintf("%s%s%s", path_base(s->argv[0]), two ? " " : "", two ? s->argv[1] : "");
    p->state = plans(s) ? STAGE_PLANNED : STAGE_OTHER;
    return p;
}

static bool plans_nothing(const Plan *plan, const char *stage)
{
    for (int i = 0; i < plan->n; i++) {
        if (!strcmp(plan->at[i].name, stage))
            return plan->at[i].state == STAGE_OTHER;
    }
    return false;
}

static int plan_stage(Plan *plan, const Experiment *all, int i, const Args *a, StandIns *in)
{
    PlannedStage *p = add_stage(plan, &all->stages[i]);
    Experiment e = {0};
    char *dir = path_join(all->root, p->name);
    int rc = 0;
    p->took = seconds_taken(all->root, p->name);
    if (p->state == STAGE_OTHER) {
        TRY(read_stage(&e, a, i, in, 0)); /* notes what it reads */
        stand_ins_add_unknown(in, p->name, dir, true);
        goto fail;
    }
    TRY(plan_records(p, a, i, in));
    if (in->missing) {
        p->state = STAGE_WAITS;
        p->why = xasprintf("needs %s, which stage %s makes%s", in->missing, in->missing_stage,
                           plans_nothing(plan, in->missing_stage) ? ": run that first" : "");
    }
    if (p->state == STAGE_PLANNED)
        TRY(finish_stage(p, a, in));
    else
        stand_ins_add_unknown(in, p->name, dir, false);
fail:
    experiment_free(&e);
    free(dir);
    return rc;
}

static int plan_experiment(Plan *plan, const Args *a, StandIns *in)
{
    Experiment e = {0};
    int rc = 0;
    TRY(experiment_read(&e, a->path, a->sets, a->n_sets));
    for (int i = 0; i < e.n; i++)
        TRY(plan_stage(plan, &e, i, a, in));
fail:
    experiment_free(&e);
    return rc;
}

static int plan_program(Plan *plan, const Args *a, StandIns *in)
{
    Stage s = {.argv = a->program, .argc = a->n_program};
    if (!plans(&s))
        return error_set(ERR_USAGE, "%s: no program that plans; rlhf-sft, rlhf-reward train|eval|score, "
                                    "rlhf-rejection, rlhf-ppo and rlhf generate do", a->program[0]);
    PlannedStage *p = add_stage(plan, &s);
    int rc = ask_stage(p, &s, in->dir, a->cards);
    return rc == 0 && p->state == STAGE_PLANNED ? finish_stage(p, a, in) : rc;
}

/* ---- the whole ---- */

static void plan_free(Plan *p)
{
    for (int i = 0; i < p->n; i++) {
        free(p->at[i].name);
        free(p->at[i].program);
        free(p->at[i].why);
        run_plan_free(&p->at[i].plan);
    }
    free(p->at);
    free(p->calibrated);
    free(p->not_calibrated);
}

/* Exit code: of the first stage that was refused. */
static int plan_code(const Plan *p)
{
    for (int i = 0; i < p->n; i++) {
        if (p->at[i].state == STAGE_FAILED)
            return p->at[i].code;
    }
    return 0;
}

int plan_main(int argc, char **argv)
{
    Args a = {.seconds = 2};
    Plan plan = {0};
    StandIns in = {0};
    log_init(0);
    int rc = parse(&a, argc, argv);
    if (rc > 0)
        return 0;
    TRY(rc);
    TRY(stand_ins_open(&in));
    TRY(a.program ? plan_program(&plan, &a, &in) : plan_experiment(&plan, &a, &in));
    if (a.seconds > 0 && !a.cards)
        TRY(plan_time(&plan, a.seconds));
    if (a.json)
        plan_print_json(&plan);
    else if (a.cards)
        plan_print_cards(&plan);
    else
        plan_print(&plan);
fail:
    rc = rc < 0 ? cli_fail("rlhf plan", rc) : plan_code(&plan);
    stand_ins_close(&in);
    plan_free(&plan);
    return rc;
}
