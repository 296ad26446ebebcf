/* import_row.c - what the row functions are made of: fields by path, and records out of pairs,
 * labelled answers and groups of scored answers, each kept or counted as dropped. */
#include "common/data/import_impl.h"

#include "common/base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- fields */

const Json *import_get(const Json *j, const char *path)
{
    char key[64];
    while (j && *path) {
        const size_t n = strcspn(path, ".[");
        char *rest = (char *)(uintptr_t)path + n;
        if (n) {
            CHECK(n < sizeof key, "path '%s'", path);
            memcpy(key, path, n);
            key[n] = 0;
            j = json_get(j, key);
        } else {
            j = json_at(j, (size_t)strtoull(path + 1, &rest, 10));
        }
        path = rest + (*rest == ']');
        path += *path == '.';
    }
    return json_kind(j) == JSON_NIL ? NULL : j;
}

int import_missing(Import *im, const Json *j, const char *path)
{
    Str have = {0};
    int n = 0;
    for (void *it = json_iter(j); it && n < 12; it = json_iter_next(j, it), n++)
        str_addf(&have, "%s%.40s", n ? ", " : "", json_iter_key(it));
    const int rc =
        row_error(&im->place, FAULT_OTHER, path, "missing; a row of %s has %s (found: %s)",
                  im->imp->set, im->imp->fields, have.n ? have.s : "no fields");
    str_free(&have);
    return rc;
}

static int wrong(Import *im, const Json *v, const char *path, const char *expected)
{
    return row_error(&im->place, FAULT_OTHER, path, "found %s, expected %s",
                     json_kind_name(json_kind(v)), expected);
}

int import_str(Import *im, const Json *j, const char *path, const char **out)
{
    const Json *v = import_get(j, path);
    *out = json_str(v);
    return *out ? 0 : v ? wrong(im, v, path, "a string") : import_missing(im, j, path);
}

int import_num(Import *im, const Json *j, const char *path, double min, double max, double *out)
{
    const Json *v = import_get(j, path);
    if (!v)
        return import_missing(im, j, path);
    if (json_kind(v) != JSON_INT && json_kind(v) != JSON_NUM)
        return wrong(im, v, path, "a number");
    *out = json_num(v, NAN);
    return *out >= min && *out <= max ? 0
                                      : row_error(&im->place, FAULT_OTHER, path,
                                                  "found %g, expected %g to %g", *out, min, max);
}

int import_int(Import *im, const Json *j, const char *path, int min, int max, int *out)
{
    double v;
    const int rc = import_num(im, j, path, min, max, &v);
    if (rc < 0)
        return rc;
    *out = (int)v;
    return v == *out ? 0
                     : row_error(&im->place, FAULT_OTHER, path, "found %g, expected an integer", v);
}

int import_bool(Import *im, const Json *j, const char *path, bool needed, SafetyLabel *out)
{
    const Json *v = import_get(j, path);
    *out = SAFETY_UNKNOWN;
    if (!v)
        return needed ? import_missing(im, j, path) : 0;
    if (json_kind(v) != JSON_BOOLEAN)
        return wrong(im, v, path, "true or false");
    *out = json_bool(v, false) ? SAFETY_SAFE : SAFETY_UNSAFE;
    return 0;
}

int import_talk(Import *im, const Json *j, const char *path, Role lone, Talk *out)
{
    const Json *v = import_get(j, path);
    return v ? talk_read(&im->place, out, v, path, lone) : import_missing(im, j, path);
}

/* ---- records */

void import_drop(Import *im, ImportDrop why)
{
    im->report->dropped[why]++;
}

/* What is common in public sets is counted, what is not is an error. */
static int drop_fault(Import *im, int rc)
{
    const RecordFault f = im->place.fault;
    if (f != FAULT_EMPTY && f != FAULT_IDENTICAL && f != FAULT_NO_COMMON_PROMPT)
        return rc;
    import_drop(im, f == FAULT_EMPTY       ? DROP_EMPTY
                    : f == FAULT_IDENTICAL ? DROP_IDENTICAL
                                           : DROP_NO_COMMON_PROMPT);
    return 0;
}

static void push_take(Import *im, Record *r)
{
    const int i = VEC_GROW(im->made, im->n_made, im->cap_made);
    im->made[i] = *r;
}

static void set_source(const Import *im, Record *r, const char *source)
{
    free(r->source);
    r->source = source ? xasprintf("%s/%s", im->imp->name, source) : xstrdup(im->imp->name);
}

static Strength level_of(const Import *im, double rating)
{
    const double *from = im->o->n_levels ? im->o->levels : im->imp->levels;
    if (isnan(rating))
        return STRENGTH_UNKNOWN;
    for (int s = STRENGTH_SIGNIFICANT; s <= STRENGTH_SLIGHT; s++)
        if (rating >= from[s])
            return (Strength)s;
    return STRENGTH_NEGLIGIBLE;
}

int import_add_pair(Import *im, const ImportPair *q)
{
    int rc = 0;
    Record r;
    Talk prompt = {0}, answer[2] = {{0}, {0}};
    const int a = q->better, b = 1 - a;
    const char *const name[2] = {q->name[a], q->name[b]};
    record_begin(&r, RECORD_PAIR, im->place.from);
    if (q->rating < im->o->min_rating) { /* not when NAN */
        import_drop(im, DROP_CLOSE);
        return 0;
    }
    talk_copy(&prompt, q->prompt, q->prompt->n);
    talk_copy(&answer[0], q->answer[a], q->answer[a]->n);
    talk_copy(&answer[1], q->answer[b], q->answer[b]->n);
    TRY(record_check_prompt(&im->place, &prompt, q->prompt_name));
    TRY(record_set_pair(&r, &im->place, &prompt, answer, name));
    r.safety[0] = q->safety[a];
    r.safety[1] = q->safety[b];
    r.strength = level_of(im, q->rating);
    set_source(im, &r, q->source);
    record_end(&r);
    push_take(im, &r);
    memset(&r, 0, sizeof r);
fail:
    if (rc < 0)
        rc = drop_fault(im, rc);
    record_free(&r);
    talk_free(&prompt);
    talk_free(&answer[0]);
    talk_free(&answer[1]);
    return rc;
}

int import_add_labelled(Import *im, Talk *prompt, const char *prompt_name, Talk *answer,
                        const char *name, SafetyLabel label)
{
    int rc = 0;
    Record r;
    record_begin(&r, RECORD_LABELLED, im->place.from);
    TRY(record_check_prompt(&im->place, prompt, prompt_name));
    TRY(record_set_labelled(&r, &im->place, prompt, answer, name));
    r.safety[0] = label;
    set_source(im, &r, NULL);
    record_end(&r);
    push_take(im, &r);
    memset(&r, 0, sizeof r);
fail:
    if (rc < 0)
        rc = drop_fault(im, rc);
    record_free(&r);
    return rc;
}

int import_add_parsed(Import *im, const Json *j, RecordKind kind)
{
    Record r;
    const int rc = record_parse_at(&r, j, kind, im->place.from, &im->place.fault);
    if (rc < 0)
        return drop_fault(im, rc);
    set_source(im, &r, NULL);
    push_take(im, &r);
    return 0;
}

/* ---- groups */

static int add_group_pair(Import *im, int i, int j)
{
    ImportGroup *g = &im->group;
    const int better = g->score[i] >= g->score[j] ? i : j, worse = i + j - better;
    if (g->score[i] == g->score[j]) {
        import_drop(im, DROP_TIE);
        return 0;
    }
    return import_add_pair(im, &(ImportPair){.prompt = &g->prompt,
                                             .prompt_name = g->prompt_name,
                                             .answer = {&g->answer[better], &g->answer[worse]},
                                             .name = {g->answer_name, g->answer_name},
                                             .rating = g->score[better] - g->score[worse]});
}

void import_drop_group(Import *im)
{
    ImportGroup *g = &im->group;
    for (int i = 0; i < g->n; i++)
        talk_free(&g->answer[i]);
    g->n = 0;
    talk_free(&g->prompt);
}

int import_add_group(Import *im)
{
    int rc = 0, best = 0, worst = 0;
    ImportGroup *g = &im->group;
    const JsonSource *now = im->place.from;
    im->place.from = &g->from;
    for (int i = 1; i < g->n; i++) {
        best = g->score[i] > g->score[best] ? i : best;
        worst = g->score[i] < g->score[worst] ? i : worst;
    }
    if (g->n == 1)
        import_drop(im, DROP_ALONE);
    if (im->o->pairs == PAIRS_BEST_WORST && g->n > 1) {
        if (worst == best) /* all alike */
            worst = best ? 0 : 1;
        rc = add_group_pair(im, best, worst);
    } else {
        for (int i = 0; i < g->n && rc >= 0; i++)
            for (int k = i + 1; k < g->n && rc >= 0; k++)
                if (im->o->pairs == PAIRS_ALL || i == best || k == best)
                    rc = add_group_pair(im, i, k);
    }
    im->place.from = now;
    import_drop_group(im);
    return rc;
}
