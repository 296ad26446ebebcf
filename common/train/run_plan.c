/* run_plan.c - see run_plan.h: building a plan, and its JSON in both directions.
 *
 * Texts are copied, so that a plan outlives the config it speaks of. Tested by tests/unit/test_run_plan.c
 * and tests/e2e/test_plan.sh. */
#include "common/train/run_plan.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/runtime/device.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const work_names[WORK_KINDS] = {"train", "forward", "decode", "update"};

const char *work_name(WorkKind kind)
{
    return work_names[kind];
}

/* ---- building ---- */

static void set_text(char **to, const char *text)
{
    free(*to);
    *to = xstrdup(text ? text : "");
}

void run_plan_setting(RunPlan *p, const char *program, const char *out, const Device *dev, const char *device,
                      int64_t threads, int isa, int dtype)
{
    set_text(&p->program, program);
    set_text(&p->out, out);
    set_text(&p->device, device);
    set_text(&p->device_text, device_text(dev));
    p->threads = threads;
    p->isa = isa;
    p->dtype = dtype;
    p->have = (double)device_memory_bytes(dev);
}

static void drop_arenas(RunPlan *p)
{
    for (int i = 0; i < p->n_arenas; i++) {
        free(p->arena[i].name);
        free(p->arena[i].kind);
    }
    p->n_arenas = 0;
}

void run_plan_memory(RunPlan *p, const MemoryPlan *m)
{
    double before = run_plan_bytes(p, false) + run_plan_bytes(p, true), now = 0;
    for (int i = 0; i < m->n; i++)
        now += (double)arena_planned(m->arena[i]);
    if (now < before)
        return;
    drop_arenas(p);
    for (int i = 0; i < m->n; i++) {
        const Arena *a = m->arena[i];
        int k = VEC_GROW(p->arena, p->n_arenas, p->cap_arenas);
        p->arena[k] = (PlanArena){xstrdup(a->name), xstrdup(arena_kind_text(a)), arena_is_on_card(a),
                                  (double)arena_planned(a)};
    }
}

void run_plan_disk(RunPlan *p, const char *what, double bytes, bool exact)
{
    int k = VEC_GROW(p->disk, p->n_disk, p->cap_disk);
    p->disk[k] = (PlanDisk){xstrdup(what), bytes, exact};
}

void run_plan_work(RunPlan *p, const Work *w)
{
    if (w->tokens <= 0 && w->answers <= 0 && w->calls <= 0)
        return;
    int k = VEC_GROW(p->work, p->n_work, p->cap_work);
    p->work[k] = *w;
    p->work[k].model = xstrdup(w->model);
}

void run_plan_work_times(RunPlan *p, const Work *w, double times)
{
    Work all = *w;
    double *const counts[] = {&all.tokens, &all.rows, &all.sequences, &all.answers, &all.calls};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        *counts[i] *= times;
    run_plan_work(p, &all);
}

void run_plan_update(RunPlan *p, const ParamTable *t, const char *model, double calls)
{
    Work w = {.kind = WORK_UPDATE, .model = (char *)model, .scalar = t->config.head == HEAD_SCALAR, .calls = calls,
              .params = (double)param_table_count(t)};
    run_plan_work(p, &w);
}

void run_plan_model(RunPlan *p, const char *path, const char *from, const ParamTable *t, int element, bool anchored)
{
    int k = VEC_GROW(p->models, p->n_models, p->cap_models);
    p->models[k] = (MadeModel){xstrdup(path), xstrdup(from), t->config.head == HEAD_SCALAR, anchored};
    run_plan_disk(p, path_base(path), (double)param_table_count(t) * element, true);
}

void run_plan_data(RunPlan *p, const char *path, const MadeData *d)
{
    int k = VEC_GROW(p->data, p->n_data, p->cap_data);
    p->data[k] = *d;
    p->data[k].path = xstrdup(path);
    run_plan_disk(p, path_base(path), run_plan_data_bytes(d), false);
}

/* A line of samples.jsonl has about 200 bytes beside its texts (names, scores), a token of text about 5. */
double run_plan_data_bytes(const MadeData *d)
{
    double answer = d->answer_tokens > 0 ? d->answer_tokens : d->max_new;
    return d->records * (200 + 5 * (d->prompt_tokens + answer));
}

double run_plan_bytes(const RunPlan *p, bool on_card)
{
    double sum = 0;
    for (int i = 0; i < p->n_arenas; i++)
        sum += p->arena[i].on_card == on_card ? p->arena[i].bytes : 0;
    return sum;
}

double run_plan_checkpoints(const RunPlan *p)
{
    double saves = p->save_steps > 0 && p->steps > 0 ? floor((p->steps - 1) / p->save_steps) : 0;
    return p->checkpoint > 0 ? (saves < p->keep ? saves : p->keep) + 1 + p->keeps_best : 0;
}

double run_plan_disk_bytes(const RunPlan *p)
{
    double sum = p->checkpoint * run_plan_checkpoints(p);
    for (int i = 0; i < p->n_disk; i++)
        sum += p->disk[i].bytes;
    return sum;
}

void run_plan_free(RunPlan *p)
{
    drop_arenas(p);
    for (int i = 0; i < p->n_disk; i++)
        free(p->disk[i].what);
    for (int i = 0; i < p->n_work; i++)
        free(p->work[i].model);
    for (int i = 0; i < p->n_models; i++) {
        free(p->models[i].path);
        free(p->models[i].model);
    }
    for (int i = 0; i < p->n_data; i++)
        free(p->data[i].path);
    void *const owned[] = {p->program, p->out,  p->device, p->device_text, p->arena,
                           p->disk,    p->work, p->models, p->data};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        free(owned[i]);
    memset(p, 0, sizeof *p);
}

/* ---- one list of members, for both directions ---- */

typedef enum { M_TEXT, M_BOOL, M_INT, M_I64, M_NUM } MemberType;

typedef struct {
    const char *key;
    MemberType type;
    size_t at;
} Member;

#define TEXT(S, m) {#m, M_TEXT, offsetof(S, m)}
#define BOOL(S, m) {#m, M_BOOL, offsetof(S, m)}
#define NUM(S, m) {#m, M_NUM, offsetof(S, m)}

static const Member top_members[] = {
    TEXT(RunPlan, program),
    TEXT(RunPlan, out),
    TEXT(RunPlan, device),
    TEXT(RunPlan, device_text),
    {"threads", M_I64, offsetof(RunPlan, threads)},
    {"isa", M_INT, offsetof(RunPlan, isa)},
    {"dtype", M_INT, offsetof(RunPlan, dtype)},
    {"recompute", M_INT, offsetof(RunPlan, recompute)},
    NUM(RunPlan, have),
    NUM(RunPlan, micro_batch_tokens),
    NUM(RunPlan, steps),
    NUM(RunPlan, checkpoint),
    NUM(RunPlan, save_steps),
    NUM(RunPlan, keep),
    BOOL(RunPlan, keeps_best),
    NUM(RunPlan, answer_tokens),
    {0},
};
static const Member arena_members[] = {TEXT(PlanArena, name), TEXT(PlanArena, kind), BOOL(PlanArena, on_card),
                                       NUM(PlanArena, bytes), {0}};
static const Member disk_members[] = {TEXT(PlanDisk, what), NUM(PlanDisk, bytes), BOOL(PlanDisk, exact), {0}};
static const Member work_members[] = {
    {"kind", M_INT, offsetof(Work, kind)},
    TEXT(Work, model),
    BOOL(Work, scalar),
    NUM(Work, tokens),
    NUM(Work, rows),
    NUM(Work, sequences),
    NUM(Work, answers),
    NUM(Work, max_new),
    NUM(Work, calls),
    NUM(Work, slots),
    NUM(Work, params),
    {0},
};
static const Member model_members[] = {TEXT(MadeModel, path), TEXT(MadeModel, model), BOOL(MadeModel, scalar),
                                       BOOL(MadeModel, anchored), {0}};
static const Member data_members[] = {TEXT(MadeData, path),          NUM(MadeData, records),
                                      NUM(MadeData, prompt_tokens), NUM(MadeData, answer_tokens),
                                      NUM(MadeData, max_new),       {0}};

static void write_members(JsonWriter *w, const Member *m, const void *from)
{
    for (; m->key; m++) {
        const char *at = (const char *)from + m->at;
        jw_key(w, m->key);
        switch (m->type) {
        case M_TEXT:
            jw_str(w, *(char *const *)at);
            break;
        case M_BOOL:
            jw_bool(w, *(const bool *)at);
            break;
        case M_INT:
            jw_int(w, *(const int *)at);
            break;
        case M_I64:
            jw_int(w, *(const int64_t *)at);
            break;
        case M_NUM:
            jw_num(w, *(const double *)at);
            break;
        }
    }
}

/* False when a member is missing or of another type. Texts that were read are always set: _free works. */
static bool read_members(const Json *j, const Member *m, void *to)
{
    bool good = true;
    for (; m->key; m++) {
        char *at = (char *)to + m->at;
        const Json *v = json_get(j, m->key);
        JsonKind kind = json_kind(v);
        if (m->type == M_TEXT) {
            *(char **)at = xstrdup(json_str(v) ? json_str(v) : "");
            good = good && kind == JSON_STR;
        } else if (m->type == M_BOOL) {
            *(bool *)at = json_bool(v, false);
            good = good && kind == JSON_BOOLEAN;
        } else {
            good = good && (kind == JSON_INT || kind == JSON_NUM);
            if (m->type == M_INT)
                *(int *)at = (int)json_int(v, 0);
            else if (m->type == M_I64)
                *(int64_t *)at = json_int(v, 0);
            else
                *(double *)at = json_num(v, 0);
        }
    }
    return good;
}

/* ---- the lists ---- */

#define WRITE_LIST(key, array, n, members)                                                          \
    do {                                                                                            \
        jw_key(&w, key);                                                                            \
        jw_array(&w);                                                                               \
        for (int i = 0; i < (n); i++) {                                                             \
            jw_object(&w);                                                                          \
            write_members(&w, members, &(array)[i]);                                                \
            jw_object_end(&w);                                                                      \
        }                                                                                           \
        jw_array_end(&w);                                                                           \
    } while (0)

int run_plan_write(const RunPlan *p, const char *path)
{
    Str out = {0};
    JsonWriter w;
    jw_init(&w, &out, true);
    jw_object(&w);
    write_members(&w, top_members, p);
    WRITE_LIST("memory", p->arena, p->n_arenas, arena_members);
    WRITE_LIST("disk", p->disk, p->n_disk, disk_members);
    WRITE_LIST("work", p->work, p->n_work, work_members);
    WRITE_LIST("models", p->models, p->n_models, model_members);
    WRITE_LIST("data", p->data, p->n_data, data_members);
    jw_object_end(&w);
    str_add(&out, "\n");
    int rc = file_write_atomic(path, str_get(&out), out.n);
    str_free(&out);
    return rc;
}

#define READ_LIST(key, array, n, cap, members)                                                      \
    do {                                                                                            \
        const Json *list = json_get(j, key);                                                        \
        good = good && json_kind(list) == JSON_ARR;                                                 \
        for (size_t i = 0; i < json_len(list); i++) {                                               \
            int k = VEC_GROW(array, n, cap);                                                        \
            memset(&(array)[k], 0, sizeof(array)[k]);                                               \
            good = read_members(json_at(list, i), members, &(array)[k]) && good;                    \
        }                                                                                           \
    } while (0)

int run_plan_read(RunPlan *p, const char *path)
{
    Json *j = NULL;
    memset(p, 0, sizeof *p);
    int rc = json_read_file(&j, path);
    if (rc < 0)
        return rc;
    bool good = read_members(j, top_members, p);
    READ_LIST("memory", p->arena, p->n_arenas, p->cap_arenas, arena_members);
    READ_LIST("disk", p->disk, p->n_disk, p->cap_disk, disk_members);
    READ_LIST("work", p->work, p->n_work, p->cap_work, work_members);
    READ_LIST("models", p->models, p->n_models, p->cap_models, model_members);
    READ_LIST("data", p->data, p->n_data, p->cap_data, data_members);
    for (int i = 0; i < p->n_work; i++)
        good = good && (unsigned)p->work[i].kind < WORK_KINDS;
    json_free(j);
    if (good)
        return 0;
    run_plan_free(p);
    return error_set(ERR_DATA, "%s: no plan of a run: programs of one build belong together", path);
}
