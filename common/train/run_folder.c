/* run_folder.c - see run_folder.h. A folder is emptied only when it is one of ours, and STATUS says
 * "emptying" meanwhile, so that a kill in the middle cannot leave half an old run that looks whole.
 * Tested by tests/e2e/test_sft.sh. */
#include "common/train/run_folder.h"

#include "common/base/error.h"
#include "common/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* The word in STATUS, "" when there is none. */
static void read_status(const char *out_dir, char status[16])
{
    char *path = path_join(out_dir, "STATUS"), *text = NULL;
    size_t n = 0;
    status[0] = 0;
    if (file_exists(path) && file_read(path, &text, &n) == 0)
        sscanf(text, "%15s", status);
    free(text);
    free(path);
}

static bool has_file(const char *dir, const char *name)
{
    char *path = path_join(dir, name);
    bool yes = file_exists(path);
    free(path);
    return yes;
}

/* 1 = nothing in it but what a killed start leaves. */
static int is_empty(const char *out_dir)
{
    char **names;
    int n, rc, used = 0;
    if (!file_exists(out_dir))
        return 1;
    if ((rc = dir_list(out_dir, &names, &n)) < 0)
        return rc;
    for (int i = 0; i < n; i++) {
        size_t len = strlen(names[i]);
        used += len < 4 || strcmp(names[i] + len - 4, ".tmp") != 0;
    }
    dir_list_free(names, n);
    return used == 0;
}

static int check_config(const char *out_dir, const Config *config)
{
    char *path = path_join(out_dir, "config.yaml");
    Str lines = {0};
    int rc = file_exists(path) ? config_diff(config, path, &lines) : 0;
    if (rc == 0 && lines.n) {
        while (lines.n && lines.s[lines.n - 1] == '\n')
            lines.s[--lines.n] = 0;
        rc = error_set(ERR_CONFIG, "%s: the run cannot go on with another config; put these keys back, or "
                                   "give another out_dir:\n%s", out_dir, str_get(&lines));
    }
    str_free(&lines);
    free(path);
    return rc;
}

/* --resume DIR: the run folder itself or one of its checkpoints. */
static int find_named(RunFolder *f, const char *out_dir, const char *resume)
{
    char *run = realpath(out_dir, NULL), *named = realpath(resume, NULL), *dir = NULL;
    long long step = -1;
    int rc = 0, end = 0;
    if (!named)
        rc = error_set(ERR_NOINPUT, "--resume %s: cannot be opened: %s", resume, strerror(errno));
    else if (run && strcmp(run, named) != 0) {
        dir = xasprintf("%s/checkpoints/step-", run);
        size_t n = strlen(dir);
        if (strncmp(named, dir, n) != 0 || sscanf(named + n, "%lld%n", &step, &end) != 1 || named[n + (size_t)end])
            rc = error_set(ERR_USAGE, "--resume %s: expected auto, out_dir (%s) or a folder of "
                                      "%s/checkpoints; to go on elsewhere, copy the run folder",
                           resume, out_dir, out_dir);
    } else if (!run) {
        rc = error_set(ERR_NOINPUT, "--resume %s: out_dir %s is not there", resume, out_dir);
    }
    f->from_step = step;
    f->must_resume = true;
    free(run);
    free(named);
    free(dir);
    return rc;
}

int run_folder_check(RunFolder *f, const char *out_dir, bool overwrite, const char *resume,
                     const Config *config)
{
    char status[16];
    int rc;
    *f = (RunFolder){.mode = RUN_FRESH, .from_step = -1, .lock = -1};
    if (file_exists(out_dir) && !file_is_dir(out_dir))
        return error_set(ERR_CANTCREATE, "out_dir %s: is a file, expected a folder", out_dir);
    if (resume && strcmp(resume, "auto") != 0 && (rc = find_named(f, out_dir, resume)) < 0)
        return rc;
    read_status(out_dir, status);
    if ((rc = is_empty(out_dir)) < 0)
        return rc;
    if (!f->must_resume && (rc == 1 || !strcmp(status, "emptying")))
        return 0;
    bool ours = status[0] || has_file(out_dir, "config.yaml");
    if (!resume && !overwrite)
        return error_set(ERR_CANTCREATE, "out_dir %s: is not empty; go on with --resume auto, start again "
                                         "with overwrite=true, or give another folder", out_dir);
    if (!ours)
        return error_set(ERR_CANTCREATE, "out_dir %s: is not empty and no run folder (no STATUS, no "
                                         "config.yaml); give another folder", out_dir);
    if (!resume)
        return 0;
    if ((rc = check_config(out_dir, config)) < 0)
        return rc;
    f->mode = !strcmp(status, "done") && !f->must_resume ? RUN_DONE : RUN_RESUME;
    return 0;
}

static int empty_folder(const char *out_dir)
{
    char **names = NULL;
    int n = 0, rc = 0;
    TRY(run_folder_status(out_dir, "emptying"));
    TRY(dir_list(out_dir, &names, &n));
    for (int i = 0; i < n && rc == 0; i++) {
        char *path = path_join(out_dir, names[i]);
        if (strcmp(names[i], "STATUS") != 0)
            rc = dir_remove(path);
        free(path);
    }
fail:
    if (names)
        dir_list_free(names, n);
    return rc;
}

int run_folder_open(RunFolder *f, const char *out_dir, const char *config_yaml)
{
    int rc = 0;
    char *path = path_join(out_dir, "config.yaml");
    TRY(dir_make(out_dir));
    f->lock = open(out_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* file systems without locks (ENOLCK, ENOSYS, ...) are used unlocked */
    if (f->lock >= 0 && flock(f->lock, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK) {
        rc = error_set(ERR_CANTCREATE, "out_dir %s: another process is writing into it; wait for it or "
                                       "end it", out_dir);
        goto fail;
    }
    if (f->mode == RUN_FRESH)
        TRY(empty_folder(out_dir));
    TRY(file_write_atomic(path, config_yaml, strlen(config_yaml)));
    TRY(run_folder_status(out_dir, "running"));
fail:
    free(path);
    return rc;
}

void run_folder_close(RunFolder *f)
{
    if (f->lock >= 0)
        close(f->lock);
    f->lock = -1;
}

int run_folder_status(const char *out_dir, const char *status)
{
    char *path = path_join(out_dir, "STATUS"), line[32];
    int n = snprintf(line, sizeof line, "%s\n", status);
    int rc = file_write_atomic(path, line, (size_t)n);
    free(path);
    return rc;
}
