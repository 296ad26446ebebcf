/* run.c - `rlhf run EXPERIMENT.yaml`: stages as child processes, so that memory and crashes stay theirs,
 * and any stage can be started by hand exactly as the driver starts it (its command is printed).
 *
 * A stage is done when its record ROOT/stages/NAME.json holds the hash of its command, config and
 * inputs. A changed hash runs it again; an interrupted trainer is resumed. Inputs are hashed when the
 * stage's turn comes, since earlier stages make them. Tested by tests/e2e/test_run.sh. */
#include "rlhf/rlhf.h"

#include "common/base/cli.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/progress.h"
#include "common/model/weights.h"
#include "rlhf/experiment.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static const char help[] =
    "usage: rlhf run EXPERIMENT.yaml [options] [root=DIR] [vars.NAME=VALUE ...]\n\n"
    "Runs the stages of an experiment in order. Done stages whose command, config and inputs are\n"
    "unchanged are skipped; an interrupted one is resumed.\n\n"
    "options:\n"
    "  --from STAGE     run this stage and all later ones again\n"
    "  --only STAGE     run this stage alone\n"
    "  --force          run every chosen stage again\n"
    "  --dry-run        print the commands and which stages are done; run nothing\n"
    "  --set A=B        root or a variable of the experiment\n"
    "  -h, --help       this text\n\n"
    "exit codes: 0 all stages done; 10 a stage waits for a file; 75 stopped after a checkpoint, run\n"
    "again; otherwise the code of the stage that failed.\n";

typedef struct {
    const char *path, *from, *only;
    bool force, dry_run;
    const char *sets[64];
    int n_sets;
} Args;

/* The running child and the signal to pass on: a handler can reach nothing else. */
static volatile sig_atomic_t child_pid, stop_signal;

static void pass_on(int sig)
{
    stop_signal = sig;
    if (child_pid > 0)
        kill((pid_t)child_pid, sig);
}

static int parse(Args *a, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *w = argv[i];
        bool more = i + 1 < argc;
        if (!strcmp(w, "-h") || !strcmp(w, "--help")) {
            fputs(help, stdout);
            return 1;
        }
        if (!strcmp(w, "--force"))
            a->force = true;
        else if (!strcmp(w, "--dry-run"))
            a->dry_run = true;
        else if (!strcmp(w, "--from") && more)
            a->from = argv[++i];
        else if (!strcmp(w, "--only") && more)
            a->only = argv[++i];
        else if (!strcmp(w, "--set") && more && a->n_sets < 64)
            a->sets[a->n_sets++] = argv[++i];
        else if (w[0] != '-' && strchr(w, '=') && a->n_sets < 64)
            a->sets[a->n_sets++] = w;
        else if (w[0] != '-' && !a->path)
            a->path = w;
        else
            return error_set(ERR_USAGE, "unknown argument '%s'; see 'rlhf run --help'", w);
    }
    return a->path ? 0 : error_set(ERR_USAGE, "no experiment file given; see 'rlhf run --help'");
}

static void add_hash(Str *out, const char *path, const Hash128 *h)
{
    char hex[33];
    hash128_hex(*h, hex);
    str_addf(out, "%s %s\n", path, hex);
}

/* Content of a file; of a folder, what makes it a model: programs read no other folders. Its metrics and checkpoints
 * do not count. */
static int hash_input(const char *path, Str *out)
{
    static const char *const parts[] = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer.model",
                                        "tokenizer_config.json", "chat_template.jinja"};
    Hash128 h;
    int rc = 0;
    if (!file_is_dir(path)) {
        if ((rc = hash128_file(path, &h)) == 0)
            add_hash(out, path, &h);
        return rc;
    }
    if (weights_exist(path)) {
        if ((rc = weights_hash(path, &h)) < 0)
            return rc;
        add_hash(out, path, &h);
    }
    for (size_t i = 0; i < sizeof parts / sizeof *parts && rc == 0; i++) {
        char *p = path_join(path, parts[i]);
        if (file_exists(p))
            rc = hash_input(p, out);
        free(p);
    }
    return rc;
}

static bool has_line(const char *text, const char *line)
{
    const size_t n = strlen(line);
    while (strncmp(text, line, n) != 0 || (text[n] && text[n] != '\n')) {
        text += strcspn(text, "\n");
        if (!*text++)
            return false;
    }
    return true;
}

/* Keys that never change a result; a line of the config with one of them is left out of the hash. unit_tokens is
 * one where products are not in bf16; a preset may say that they are. */
static bool changes_results(const char *line, const Stage *s)
{
    static const char *const keys[] = {"threads:", "isa:", "device:", "slots:", "micro_batch_tokens:",
                                       "save_steps:", "keep:", "log_steps:", "gradient_checkpointing:"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!strncmp(line, keys[i], strlen(keys[i])))
            return false;
    }
    return strncmp(line, "unit_tokens:", 12) != 0 || s->has_presets || has_line(s->config, "dtype: bf16");
}

static int stage_hash(const Experiment *e, const Stage *s, char hex[33])
{
    Str all = {0}, moved = {0};
    int rc = 0;
    for (int i = 0; i < s->argc; i++)
        str_addf(&all, "%s\n", s->argv[i]);
    for (const char *line = s->config; *line;) {
        size_t n = strcspn(line, "\n");
        if (changes_results(line, s))
            str_add_bytes(&all, line, n + (line[n] == '\n'));
        line += n + (line[n] == '\n');
    }
    for (int i = 0; i < s->n_inputs; i++)
        TRY(hash_input(s->inputs[i], &all));
    str_add_replaced(&moved, str_get(&all), e->root, "${root}"); /* so that a moved experiment keeps its done stages */
    hash128_hex(hash128(str_get(&moved), moved.n), hex);
fail:
    str_free(&all);
    str_free(&moved);
    return rc;
}

/* state "" when there is no record. */
static void record_read(const char *path, char hash[33], char state[16])
{
    Json *j = NULL;
    hash[0] = state[0] = 0;
    if (file_exists(path) && json_read_file(&j, path) == 0) {
        const char *h = json_str(json_get(j, "hash")), *st = json_str(json_get(j, "state"));
        snprintf(hash, 33, "%s", h ? h : "");
        snprintf(state, 16, "%s", st ? st : "");
    }
    json_free(j);
}

static int record_write_stage(const char *path, const Stage *s, const char *hash, const char *state,
                              double seconds)
{
    Str out = {0};
    JsonWriter w;
    jw_init(&w, &out, true);
    jw_object(&w);
    jw_kstr(&w, "stage", s->name);
    jw_kstr(&w, "state", state);
    jw_kstr(&w, "hash", hash);
    jw_knum(&w, "seconds", seconds);
    jw_key(&w, "command");
    jw_array(&w);
    for (int i = 0; i < s->argc; i++)
        jw_str(&w, s->argv[i]);
    jw_array_end(&w);
    jw_object_end(&w);
    str_add(&out, "\n");
    int rc = file_write_atomic(path, str_get(&out), out.n);
    str_free(&out);
    return rc;
}

static int spawn_wait(const Stage *s, const char *extra, int *status)
{
    char **argv = xcalloc((size_t)s->argc + 4, sizeof *argv);
    char *path = stage_program_path(s);
    pid_t pid;
    int n = 0;
    for (; n < s->argc; n++)
        argv[n] = s->argv[n];
    if (s->resumable && !extra) {
        argv[n++] = (char *)"--resume";
        argv[n++] = (char *)"auto";
    } else if (extra) {
        argv[n++] = (char *)extra;
    }
    fflush(NULL);
    int e = posix_spawn(&pid, path, NULL, NULL, argv, environ);
    int rc = e ? error_set(ERR_NOINPUT, "%s: cannot be started: %s", path, strerror(e)) : 0;
    if (rc == 0) {
        child_pid = pid;
        while (waitpid(pid, status, 0) < 0 && errno == EINTR) {
        }
        child_pid = 0;
    }
    free(path);
    free(argv);
    return rc;
}

static void print_command(const Stage *s)
{
    Str line = {0};
    for (int i = 0; i < s->argc; i++)
        str_addf(&line, "%s%s", i ? " " : "", s->argv[i]);
    log_info("    %s", str_get(&line));
    str_free(&line);
}

/* 0 done or skipped, > 0 the stage's exit code, < 0 an error of the driver. */
static int run_stage(const Experiment *e, const Stage *s, int number, const Args *a, bool again)
{
    char hash[33], old_hash[33], state[16];
    char *record = xasprintf("%s/stages/%s.json", e->root, s->name);
    int rc = 0, status = 0;
    TRY(stage_hash(e, s, hash));
    record_read(record, old_hash, state);
    bool same = !strcmp(hash, old_hash);
    if (same && !strcmp(state, "done") && !again) {
        log_info("[%d/%d] %s: done", number, e->n, s->name);
        goto fail;
    }
    bool resumed = same && state[0] && !again;
    log_info("[%d/%d] %s%s", number, e->n, s->name, resumed && s->resumable ? ": resuming" : "");
    print_command(s);
    if (a->dry_run)
        goto fail;
    TRY(stage_write_config(e, s));
    TRY(record_write_stage(record, s, hash, "started", 0));
    double start = time_now();
    TRY(spawn_wait(s, s->resumable && !resumed && state[0] ? "overwrite=true" : NULL, &status));
    if (WIFSIGNALED(status)) {
        rc = error_set(ERR_UNEXPECTED, "stage %s: ended by signal %d (%s); run again to go on", s->name,
                       WTERMSIG(status), strsignal(WTERMSIG(status)));
        goto fail;
    }
    rc = WEXITSTATUS(status);
    if (rc == 0)
        rc = record_write_stage(record, s, hash, "done", time_now() - start);
fail:
    free(record);
    return rc;
}

static int find_stage(const Experiment *e, const char *name, int *index)
{
    for (int i = 0; i < e->n; i++) {
        if (!strcmp(e->stages[i].name, name)) {
            *index = i;
            return 0;
        }
    }
    return error_set(ERR_USAGE, "%s: there is no stage '%s'", e->path, name);
}

/* Input paths are looked for again when a stage's turn comes: earlier stages make them. */
static int run_all(Experiment *e, const Args *a)
{
    int first = 0, last = e->n - 1, rc = 0;
    char *dir = path_join(e->root, "stages");
    if (a->from)
        TRY(find_stage(e, a->from, &first));
    if (a->only) {
        TRY(find_stage(e, a->only, &first));
        last = first;
    }
    if (!a->dry_run)
        TRY(dir_make(dir));
    int begin = a->from ? 0 : first;
    for (int i = begin; i <= last && rc == 0; i++) {
        Experiment fresh = {0};
        TRY(experiment_read(&fresh, a->path, a->sets, a->n_sets));
        bool again = a->force || (a->from && i >= first);
        rc = run_stage(&fresh, &fresh.stages[i], i + 1, a, again);
        experiment_free(&fresh);
        if (stop_signal && rc == 0 && i < last)
            rc = EXIT_STOPPED;
        if (rc == EXIT_WAITING)
            log_info("stage %s waits for a file; run again when it is there", e->stages[i].name);
        else if (rc == EXIT_STOPPED)
            log_info("stopped at stage %s; run again to go on", e->stages[i].name);
        else if (rc > 0)
            log_error("stage %s ended with exit code %d", e->stages[i].name, rc);
    }
fail:
    free(dir);
    return rc;
}

int run_main(int argc, char **argv)
{
    Args a = {0};
    Experiment e = {0};
    struct sigaction sa = {.sa_handler = pass_on};
    log_init(0);
    int rc = parse(&a, argc, argv);
    if (rc > 0)
        return 0;
    if (rc == 0)
        rc = experiment_read(&e, a.path, a.sets, a.n_sets);
    if (rc == 0) {
        sigaction(SIGTERM, &sa, NULL);
        sigaction(SIGINT, &sa, NULL);
        rc = run_all(&e, &a);
    }
    int code = rc < 0 ? cli_fail("rlhf run", rc) : rc;
    experiment_free(&e);
    return code;
}
