/* trainer.c - see trainer.h: the loop of every training program, one function per stage.
 *
 * The one idea: all that a run will still do follows from (config, data, checkpoint). A stage returns
 * 0 = go on, RUN_ENDED = the program is done well, a negative error, or EXIT_STOPPED; nothing is
 * written to out_dir before inputs are read, checked and found to fit into memory.
 * Tested by tests/e2e/test_sft.sh: kills at any moment, stops, resumes, refusals. */
#include "common/train/trainer.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/progress.h"
#include "common/train/events.h"
#include "common/train/report.h"
#include "common/train/run_folder.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RUN_ENDED = 1, COMM_DEADLINE_S = 600 };

typedef struct {
    Trainer t;
    RunFolder folder;
    bool open;             /* out_dir is ours: STATUS is to be kept true */
    char *yaml;            /* resolved config */
    BlobList blobs;
    int64_t metrics_offset; /* as saved */
    int64_t saved_step;    /* of the newest checkpoint; -1 = none */
    int64_t best_step;     /* of the best evaluation; -1 = none */
    double best_value;     /* its def->best_metric */
    int64_t first_step;    /* of this process */
    FILE *timing;
    Events events;
    Progress progress;
    double started, tokens_before;
    double tokens_per_s;
} Run;

HfFormat run_format(const RunConfig *run)
{
    return (HfFormat){run->export_dtype ? ST_BF16 : ST_F32, (int64_t)(run->max_shard_size * 1e9)};
}

int trainer_unit_tokens(const Trainer *t)
{
    return device_sums_by_unit(t->dev, trainer_dtype(t)) ? (int)t->run->unit_tokens : 0;
}

int trainer_check_units(const Trainer *t, int64_t micro_batch_tokens)
{
    if (trainer_unit_tokens(t) <= micro_batch_tokens)
        return 0;
    return error_set(ERR_CONFIG, "%s: micro_batch_tokens: %lld cannot hold a unit of unit_tokens %lld; raise it, or "
                                 "lower unit_tokens (in bf16 on a card that changes results)",
                     config_where(t->cli.config, "micro_batch_tokens"), (long long)micro_batch_tokens,
                     (long long)t->run->unit_tokens);
}

int run_element(const RunConfig *run)
{
    return run->export_dtype ? 2 : 4;
}

/* ---- signals: a handler can reach nothing but these ---- */

static volatile int stop_flag;
static volatile sig_atomic_t stop_at_s;

/* A terminal's Ctrl-C reaches a child twice when its driver passes the signal on, so a repeat within
 * a second is the same request. */
static void on_signal(int sig)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (stop_flag && now.tv_sec > stop_at_s + 1)
        _exit(128 + sig);
    if (!stop_flag)
        stop_at_s = (sig_atomic_t)now.tv_sec;
    stop_flag = 1;
}

static void catch_signals(void)
{
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    /* a full disk quota and a closed pipe are errors of a write, not the end of the process */
    sigaction(SIGXFSZ, &ignore, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
}

static bool stop_wanted(Trainer *t)
{
    int64_t stop = *t->stop;
    if (comm_world(t->comm) > 1 && comm_max_i64(t->comm, &stop) == 0 && stop)
        *t->stop = 1;
    return stop != 0;
}

/* ---- before the first step ---- */

static int stage_arguments(Run *r, int argc, char **argv)
{
    Trainer *t = &r->t;
    int rc = cli_parse(&t->cli, &t->def->cli, argc, argv);
    if (rc != 0)
        return rc < 0 ? rc : RUN_ENDED;
    t->config = config_data(t->cli.config);
    t->run = t->config;
    t->dry_run = t->cli.dry_run;
    Str yaml = {0};
    config_print(t->cli.config, &yaml, true);
    r->yaml = str_take(&yaml);
    return 0;
}

static int stage_devices(Run *r)
{
    Trainer *t = &r->t;
    DeviceOptions o = {.name = t->run->device, .threads = (int)t->run->threads, .isa = (CpuIsa)t->run->isa};
    int rc = 0;
    TRY(comm_open(&t->comm, COMM_DEADLINE_S));
    log_init(comm_rank(t->comm));
    if (!t->dry_run) {
        TRY(run_folder_check(&r->folder, t->run->out_dir, t->run->overwrite, t->cli.resume, t->cli.config));
        if (r->folder.mode == RUN_DONE) {
            log_info("%s: %s is done already", t->def->cli.program, t->run->out_dir);
            return RUN_ENDED;
        }
    }
    TRY(t->dry_run ? device_open_to_plan(&t->dev, &o) : device_open(&t->dev, &o));
    TRY(device_check_dtype(t->dev, trainer_dtype(t), config_where(t->cli.config, "dtype")));
fail:
    return rc;
}

static int stage_inputs(Run *r)
{
    Trainer *t = &r->t;
    int rc = 0;
    if (t->run->export_from == EXPORT_BEST && !t->run->keep_best)
        return error_set(ERR_CONFIG, "%s: export: best needs keep_best: true", config_where(t->cli.config, "export"));
    t->state = xcalloc(1, t->def->state_bytes);
    TRY(t->def->init(t));
    if (t->run->max_steps && t->run->max_steps < t->total_steps)
        t->total_steps = t->run->max_steps;
fail:
    return rc;
}

static size_t plan_bytes(const MemoryPlan *p, size_t (*bytes)(const Arena *))
{
    size_t sum = 0;
    for (int i = 0; i < p->n; i++)
        sum += bytes(p->arena[i]);
    return sum;
}

static int list_blobs(Run *r)
{
    Trainer *t = &r->t;
    blob_add(&r->blobs, "trainer.step", &t->step, sizeof t->step);
    blob_add(&r->blobs, "trainer.metrics_offset", &r->metrics_offset, sizeof r->metrics_offset);
    blob_add(&r->blobs, "trainer.best_step", &r->best_step, sizeof r->best_step);
    blob_add(&r->blobs, "trainer.best_value", &r->best_value, sizeof r->best_value);
    return t->def->state ? t->def->state(t, &r->blobs) : 0;
}

static int stage_memory(Run *r)
{
    Trainer *t = &r->t;
    int rc = 0;
    t->planning = true;
    TRY(t->def->alloc(t));
    t->planning = false;
    if (t->cli.plan) {
        TRY(list_blobs(r));
        TRY(trainer_write_plan(t, &r->blobs));
    }
    if (t->dry_run) {
        log_info("%s: %lld steps on %s; nothing was written", t->def->cli.program, (long long)t->total_steps,
                 device_text(t->dev));
        memory_plan_print(&t->plan);
        return RUN_ENDED;
    }
    TRY(memory_plan_commit(&t->plan, t->memory_advice));
    TRY(t->def->alloc(t));
fail:
    return rc;
}

static int stage_outputs(Run *r)
{
    Trainer *t = &r->t;
    const char *dir = t->run->out_dir;
    int rc = 0;
    TRY(run_folder_open(&r->folder, dir, r->yaml));
    r->open = true;
    char *log = path_join(dir, "log.txt"), *timing = path_join(dir, "timing.jsonl");
    log_set_file(log);
    r->timing = fopen(timing, "ae");
    free(log);
    free(timing);
    if (!r->timing)
        rc = error_set(ERR_CANTCREATE, "%s/timing.jsonl: cannot be opened for writing", dir);
fail:
    return rc;
}

static void prune(const Run *r)
{
    const RunConfig *c = r->t.run;
    checkpoint_prune(c->out_dir, (int)c->keep, &r->best_step, c->keep_best && r->best_step >= 0);
}

/* best.json says what r->best_step says; nothing when there is none. */
static int write_best(const Run *r)
{
    const Trainer *t = &r->t;
    Str out = {0};
    JsonWriter w;
    char *path = path_join(t->run->out_dir, "best.json");
    jw_init(&w, &out, true);
    jw_object(&w);
    jw_kint(&w, "step", r->best_step);
    jw_kstr(&w, "metric", t->def->best_metric ? t->def->best_metric : "");
    jw_knum(&w, "value", r->best_value);
    jw_object_end(&w);
    str_add(&out, "\n");
    int rc = r->best_step >= 0 ? file_write_atomic(path, out.s, out.n) : dir_remove(path);
    str_free(&out);
    free(path);
    return rc;
}

/* Loads the newest checkpoint, or the one named; none is fine when the run may start again. */
static int load_checkpoint(Run *r)
{
    Trainer *t = &r->t;
    const char *dir = t->run->out_dir;
    int64_t step = r->folder.from_step;
    int rc = step < 0 ? checkpoint_find(dir, &step) : 0;
    if (rc == ERR_NOINPUT && !r->folder.must_resume) {
        log_info("no checkpoint yet: starting again from the first step");
        return checkpoint_remove_after(dir, -1);
    }
    TRY(rc);
    TRY(checkpoint_load(dir, step, &r->blobs));
    TRY(checkpoint_remove_after(dir, step));
    if (t->step != step || t->step > t->total_steps) {
        rc = error_set(ERR_DATA, "%s/checkpoints/step-%lld: says it is step %lld of %lld", dir,
                       (long long)step, (long long)t->step, (long long)t->total_steps);
        goto fail;
    }
    r->saved_step = step;
    prune(r); /* what a kill left half removed */
    TRY(write_best(r));
    log_info("resumed from %s/checkpoints/step-%lld", dir, (long long)step);
fail:
    return rc;
}

static int stage_load(Run *r)
{
    Trainer *t = &r->t;
    int rc = 0;
    TRY(t->def->load(t));
    TRY(list_blobs(r));
    if (r->folder.mode == RUN_RESUME)
        TRY(load_checkpoint(r));
    TRY(metrics_open(&t->metrics, t->run->out_dir, r->metrics_offset));
    if (t->run->tensorboard)
        TRY(events_open(&r->events, t->run->out_dir, t->step));
    r->first_step = t->step;
    log_info("%s: %lld steps on %s, into %s", t->def->cli.program, (long long)(t->total_steps - t->step),
             device_text(t->dev), t->run->out_dir);
fail:
    return rc;
}

/* ---- the loop ---- */

static int save(Run *r)
{
    Trainer *t = &r->t;
    int rc = 0;
    if (r->saved_step == t->step)
        return 0;
    TRY(metrics_sync(&t->metrics));
    TRY(events_sync(&r->events));
    r->metrics_offset = t->metrics.offset;
    TRY(checkpoint_save(t->run->out_dir, t->step, &r->blobs, r->yaml));
    r->saved_step = t->step;
    prune(r);
fail:
    return rc;
}

static int stop(Run *r)
{
    Trainer *t = &r->t;
    int rc = 0;
    t->metrics.n = 0;
    progress_done(&r->progress);
    TRY(save(r));
    log_info("%s: stopped after step %lld of %lld, saved; go on with --resume auto", t->def->cli.program,
             (long long)t->step, (long long)t->total_steps);
    return EXIT_STOPPED;
fail:
    return rc;
}

static void write_timing(Run *r, double seconds, double tokens)
{
    r->tokens_per_s = (tokens - r->tokens_before) / seconds;
    r->tokens_before = tokens;
    fprintf(r->timing, "{\"step\":%lld,\"time\":%lld,\"seconds\":%.6g", (long long)r->t.step + 1,
            (long long)time(NULL), seconds);
    if (isfinite(r->tokens_per_s))
        fprintf(r->timing, ",\"tokens_per_second\":%.6g", r->tokens_per_s);
    fputs("}\n", r->timing);
    fflush(r->timing);
}

static void add_time_left(Str *line, const Run *r)
{
    double done = (double)(r->t.step - r->first_step), todo = (double)(r->t.total_steps - r->t.step);
    long long s = (long long)((time_now() - r->started) / done * todo + 0.5);
    if (s >= 3600)
        str_addf(line, "  %lldh%02lldm left", s / 3600, s / 60 % 60);
    else if (s >= 60)
        str_addf(line, "  %lldm%02llds left", s / 60, s % 60);
    else if (todo > 0)
        str_addf(line, "  %llds left", s);
}

static void show_progress(Run *r)
{
    const Trainer *t = &r->t;
    Str line = {0};
    str_add(&line, t->progress);
    if (isfinite(r->tokens_per_s))
        str_addf(&line, "  %.0f tokens/s", r->tokens_per_s);
    if (r->progress.tty) {
        progress_update(&r->progress, t->step, str_get(&line));
    } else if (t->step % t->run->log_steps == 0 || t->step == t->total_steps || t->step == 1) {
        add_time_left(&line, r);
        log_info("step %lld/%lld  %s", (long long)t->step, (long long)t->total_steps, str_get(&line));
    }
    str_free(&line);
}

static bool eval_due(const Trainer *t, bool last)
{
    int64_t every = t->run->eval_steps;
    return t->def->eval && (last || (every && (t->step + 1) % every == 0));
}

/* Whether the evaluation just made is the best so far: a later one must be better, not equal. */
static bool note_best(Run *r)
{
    const Trainer *t = &r->t;
    const char *name = t->run->keep_best ? t->def->best_metric : NULL;
    double value = name ? metrics_get(&t->metrics, name) : NAN;
    bool better = t->def->best_is_highest ? value > r->best_value : value < r->best_value;
    if (!isfinite(value) || (r->best_step >= 0 && !better))
        return false;
    r->best_step = t->step + 1;
    r->best_value = value;
    return true;
}

/* One step of the program and what belongs to it. RUN_ENDED = done early. */
static int one_step(Run *r)
{
    Trainer *t = &r->t;
    double start = time_now();
    int rc = t->def->step(t);
    double seconds = time_now() - start + 1e-9; /* an evaluation is no part of the training rate */
    if (rc < 0)
        return rc;
    if (rc == TRAINER_ABANDONED)
        return stop(r);
    bool early = rc == 1, last = early || t->step + 1 == t->total_steps, best = false;
    if (eval_due(t, last)) {
        TRY(t->def->eval(t));
        best = note_best(r);
    }
    double tokens = metrics_get(&t->metrics, "num_tokens");
    TRY(events_write(&r->events, t->step + 1, &t->metrics));
    TRY(metrics_write(&t->metrics, t->step + 1));
    write_timing(r, seconds, tokens);
    t->step++;
    if (t->step == r->first_step + 1) {
        memory_plan_verify(&t->plan);
        log_info("memory in use: %zu bytes, as planned", plan_bytes(&t->plan, arena_high));
    }
    show_progress(r);
    if (best && !last)
        TRY(save(r));
    if (best)
        TRY(write_best(r));
    return early ? RUN_ENDED : 0;
fail:
    return rc;
}

static int stage_loop(Run *r)
{
    Trainer *t = &r->t;
    int rc = 0;
    r->started = time_now();
    r->tokens_before = NAN;
    progress_init(&r->progress, t->def->cli.program, "steps", t->step, t->total_steps);
    while (t->step < t->total_steps) {
        if (stop_wanted(t))
            return stop(r);
        rc = one_step(r);
        if (rc != 0)
            return rc == RUN_ENDED ? 0 : rc;
        if (t->run->save_steps && t->step % t->run->save_steps == 0 && t->step < t->total_steps)
            TRY(save(r));
    }
    if (stop_wanted(t))
        return stop(r);
fail:
    return rc;
}

/* ---- after the last step ---- */

/* With export: best, the weights go back to the best evaluation. */
static int load_best(Run *r)
{
    Trainer *t = &r->t;
    int64_t step = t->step;
    if (t->run->export_from != EXPORT_BEST || r->best_step == step)
        return 0;
    if (r->best_step < 0) {
        log_warn("export: best, but nothing was evaluated: the last weights are exported");
        return 0;
    }
    int rc = checkpoint_load(t->run->out_dir, r->best_step, &r->blobs);
    t->step = step; /* of the run, which is over */
    if (rc < 0)
        return rc;
    log_info("exporting step %lld, whose %s of %.6g is the best", (long long)r->best_step, t->def->best_metric,
             r->best_value);
    return 0;
}

static int stage_finish(Run *r)
{
    Trainer *t = &r->t;
    const char *dir = t->run->out_dir, *program = t->def->cli.program;
    int rc = 0;
    progress_done(&r->progress);
    char *summary = xasprintf("%s: %lld steps done%s%s", program, (long long)t->step,
                              t->progress[0] ? "; last: " : "", t->progress);
    char *export = path_join(dir, "export");
    TRY(load_best(r));
    if (t->def->finish)
        TRY(t->def->finish(t));
    TRY(metrics_sync(&t->metrics));
    TRY(report_write(dir, program, summary, r->yaml));
    TRY(run_folder_status(dir, "done"));
    log_info("%s", summary);
    log_info("result: %s; curves: %s/report.html", file_is_dir(export) ? export : dir, dir);
fail:
    free(summary);
    free(export);
    return rc;
}

/* The error that ended the run stays the last error, whatever happens to STATUS. */
static int leave_status(const Run *r, int rc)
{
    if (!r->open || rc == 0)
        return rc;
    char *why = xstrdup(error_text());
    int failed = run_folder_status(r->t.run->out_dir, rc == EXIT_STOPPED ? "stopped" : "failed");
    if (failed < 0 && rc < 0)
        log_debug("%s", error_text());
    if (rc < 0)
        rc = error_set(rc, "%s", why);
    else if (failed < 0)
        rc = failed;
    free(why);
    return rc;
}

static void run_free(Run *r)
{
    Trainer *t = &r->t;
    if (t->state && t->def->free)
        t->def->free(t);
    free(t->state);
    blob_list_free(&r->blobs);
    metrics_close(&t->metrics);
    events_close(&r->events);
    if (r->timing)
        fclose(r->timing);
    log_set_file(NULL);
    device_close(t->dev);
    comm_close(t->comm);
    run_folder_close(&r->folder);
    cli_free(&t->cli);
    free(r->yaml);
}

int trainer_main(const TrainerDef *def, int argc, char **argv)
{
    static int (*const stages[])(Run *) = {stage_devices, stage_inputs, stage_memory, stage_outputs,
                                           stage_load,    stage_loop,   stage_finish};
    Run r = {.t = {.def = def, .stop = &stop_flag}, .folder = {.lock = -1}, .saved_step = -1, .best_step = -1};
    int rc = stage_arguments(&r, argc, argv);
    if (rc == 0)
        catch_signals();
    for (size_t i = 0; rc == 0 && i < sizeof stages / sizeof *stages; i++)
        rc = stages[i](&r);
    if (rc == RUN_ENDED)
        rc = 0;
    rc = leave_status(&r, rc);
    int code = rc < 0 ? cli_fail(def->cli.program, rc) : rc;
    run_free(&r);
    return code;
}
