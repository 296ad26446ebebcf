/* import.c - public data sets -> records: reading, writing, duplicates, overlap and the split.
 *
 * The split by prompt hash puts all records of one prompt on the same side, and does so again when
 * the set is imported again or grows. Row functions are in import_formats.c and import_rated.c,
 * what they call in import_row.c. Tested by tests/unit/test_import.c. */
#include "common/data/import_impl.h"

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/stream.h"
#include "common/data/rows.h"

#include <stdlib.h>
#include <string.h>

const Importer *importer_find(const char *name)
{
    for (const Importer *i = importers; i->name; i++)
        if (!strcmp(i->name, name))
            return i;
    return NULL;
}

/* ---- a set of hashes: open addressing, at most half full, 0 stands for empty */

typedef struct {
    uint64_t *at;
    size_t n, cap;
} HashSet;

static bool hash_set_has(const HashSet *s, uint64_t h)
{
    h = h ? h : 1;
    for (size_t i = h & (s->cap - 1); s->n && s->at[i]; i = (i + 1) & (s->cap - 1))
        if (s->at[i] == h)
            return true;
    return false;
}

static bool hash_set_add(HashSet *s, uint64_t h)
{
    if (hash_set_has(s, h))
        return false;
    if (2 * (s->n + 1) > s->cap) {
        HashSet bigger = {.cap = s->cap ? 2 * s->cap : 1024};
        bigger.at = xcalloc(bigger.cap, sizeof *bigger.at);
        for (size_t i = 0; i < s->cap; i++)
            if (s->at[i])
                hash_set_add(&bigger, s->at[i]);
        free(s->at);
        *s = bigger;
    }
    h = h ? h : 1;
    size_t i = h & (s->cap - 1);
    while (s->at[i])
        i = (i + 1) & (s->cap - 1);
    s->at[i] = h;
    s->n++;
    return true;
}

/* Over prompt, answers and labels, not over id, source and tags. `opposite`: of the record that
 * would say the contrary: answers exchanged, or the other label. */
static uint64_t content_hash(const Record *r, bool opposite)
{
    Str all = {0};
    SafetyLabel safety[2] = {r->safety[opposite], r->safety[!opposite]};
    if (r->kind == RECORD_LABELLED)
        safety[0] = opposite == (r->safety[0] == SAFETY_SAFE) ? SAFETY_UNSAFE : SAFETY_SAFE;
    if (r->kind != RECORD_PAIR)
        safety[1] = SAFETY_UNKNOWN;
    str_addf(&all, "%d %016llx %d %d ", (int)r->kind, (unsigned long long)r->prompt_hash,
             (int)safety[0], (int)safety[1]);
    for (int k = 0; k < 2; k++) {
        const char *text = r->text[r->kind == RECORD_PAIR && opposite ? 1 - k : k];
        if (text)
            str_add_bytes(&all, text, strlen(text) + 1);
    }
    if (r->kind == RECORD_SFT)
        str_add(&all, r->messages[r->n_messages - 1].text);
    const uint64_t h = hash64(all.s, all.n, 0);
    str_free(&all);
    return h;
}

/* ---- the run */

typedef struct {
    Import im;
    Rows rows;
    Writer *out, *held_out;
    HashSet seen, prompts, against;
    Str line;
} Run;

static int check_options(const Importer *imp, const ImportOptions *o)
{
    const bool rated = imp->flags & IMPORT_RATED;
    if (!rated && (o->n_levels || o->min_rating > 0))
        return error_set(ERR_CONFIG, "%s: %s rates no pairs; leave it out",
                         o->n_levels ? "levels" : "min_rating", imp->name);
    if (o->n_levels && (o->n_levels != 3 || !(o->levels[0] > o->levels[1] &&
                                              o->levels[1] > o->levels[2] && o->levels[2] > 0)))
        return error_set(ERR_CONFIG, "levels: expected three falling numbers above 0, from which a "
                                     "pair is significant, better, slight");
    if (o->task != TASK_HELPFUL && !(imp->flags & IMPORT_TASK))
        return error_set(ERR_CONFIG, "task: %s holds one preference per row; leave it out",
                         imp->name);
    if (o->pairs != PAIRS_ALL && !(imp->flags & IMPORT_SCORED))
        return error_set(ERR_CONFIG, "pairs: %s holds pairs already; leave it out", imp->name);
    if ((o->held_out_every > 0) != (o->held_out && o->held_out[0]))
        return error_set(ERR_CONFIG,
                         "held_out and held_out_every belong together; give both or none");
    return 0;
}

/* The prompts of a file of records, of whatever kind each is. */
static int read_prompts(HashSet *s, const char *path)
{
    int rc = 0, got;
    Rows rows = {0};
    const Json *j;
    TRY(rows_open(&rows, path));
    while ((got = rows_next(&rows, &j)) > 0) {
        Record r;
        RecordFault fault;
        TRY(j ? record_parse_at(&r, j, record_kind_of(j), &rows.from, &fault) : ERR_DATA);
        hash_set_add(s, r.prompt_hash);
        record_free(&r);
    }
    TRY(got);
fail:
    rows_close(&rows);
    return rc < 0 ? error_prefix("against") : 0;
}

static int check_kind(const Run *run, const Record *r)
{
    ImportReport *report = run->im.report;
    if (report->n_kept == 0)
        report->kind = r->kind;
    return r->kind == report->kind
               ? 0
               : error_set(ERR_DATA, "%s:%lld: a %s record among %s records; a file holds one kind",
                           r->file, (long long)r->line, record_kind_name(r->kind),
                           record_kind_name(report->kind));
}

/* 1: to be written; 0: dropped; negative: on_overlap says error. */
static int judge(Run *run, const Record *r)
{
    Import *im = &run->im;
    const bool overlaps = hash_set_has(&run->against, r->prompt_hash);
    if (overlaps && im->o->on_overlap == OVERLAP_ERROR)
        return error_set(ERR_DATA,
                         "%s:%lld: its prompt also stands in a file of against; remove it from one "
                         "of them or set on_overlap: drop",
                         r->file, (long long)r->line);
    if (overlaps && im->o->on_overlap == OVERLAP_DROP) {
        import_drop(im, DROP_OVERLAP);
        return 0;
    }
    if (!hash_set_add(&run->seen, content_hash(r, false))) {
        import_drop(im, DROP_DUPLICATE);
        return 0;
    }
    im->report->n_contradict += (r->kind == RECORD_PAIR || r->kind == RECORD_LABELLED) &&
                                hash_set_has(&run->seen, content_hash(r, true));
    im->report->n_prompts += hash_set_add(&run->prompts, r->prompt_hash);
    im->report->n_overlap += overlaps;
    return 1;
}

static int write_record(Run *run, const Record *r)
{
    const int64_t every = run->im.o->held_out_every;
    const bool hold_out = every > 0 && r->prompt_hash % (uint64_t)every == 0;
    str_clear(&run->line);
    record_write(r, &run->line);
    str_add(&run->line, "\n");
    run->im.report->n_held_out += hold_out;
    return writer_write(hold_out ? run->held_out : run->out, run->line.s, run->line.n);
}

/* Everything that the row in hand gave. */
static int take_made(Run *run)
{
    Import *im = &run->im;
    int rc = 0;
    for (int i = 0; i < im->n_made && rc >= 0; i++) {
        Record *r = &im->made[i];
        if ((rc = check_kind(run, r)) < 0 || (rc = judge(run, r)) <= 0)
            continue;
        r->tagged |= im->o->tagged;
        import_count(im->report, r, im->o->tokenizer);
        rc = write_record(run, r);
    }
    for (int i = 0; i < im->n_made; i++)
        record_free(&im->made[i]);
    im->n_made = 0;
    return rc < 0 ? rc : 0;
}

static int take_row(Run *run, const Json *j)
{
    Import *im = &run->im;
    ImportReport *report = im->report;
    const char *split = im->o->split;
    report->n_read++;
    im->place.from = &run->rows.from;
    if (j && split && *split) {
        const char *have = json_str(json_get(j, "split"));
        if (!have)
            return import_missing(im, j, "split");
        if (strcmp(have, split)) {
            import_drop(im, DROP_SPLIT);
            return 0;
        }
    }
    return j ? im->imp->row(im, j) : ERR_DATA;
}

static int run_rows(Run *run)
{
    int rc, got;
    const Json *j;
    ImportReport *report = run->im.report;
    while ((got = rows_next(&run->rows, &j)) > 0) {
        rc = take_row(run, j);
        if (rc < 0 && run->im.o->on_bad == BAD_ROW_SKIP) {
            log_debug("skipped: %s", error_text());
            if (!report->first_bad)
                report->first_bad = xstrdup(error_text());
            import_drop(&run->im, DROP_BAD_ROW);
            rc = 0;
        }
        if (rc < 0 || (rc = take_made(run)) < 0)
            return rc;
    }
    if (got < 0)
        return got;
    if ((rc = import_add_group(&run->im)) < 0 || (rc = take_made(run)) < 0)
        return rc;
    if (report->n_kept == 0)
        return error_set(
            ERR_DATA, "%s: none of %lld rows could be kept as %s; is it the right format?%s%s",
            report->in, (long long)report->n_read, report->format,
            report->first_bad ? " The first: " : "", report->first_bad ? report->first_bad : "");
    return 0;
}

static void run_free(Run *run)
{
    Import *im = &run->im;
    for (int i = 0; i < im->n_made; i++)
        record_free(&im->made[i]);
    free(im->made);
    import_drop_group(im);
    free(im->group.answer);
    free(im->group.score);
    writer_abort(run->out);
    writer_abort(run->held_out);
    rows_close(&run->rows);
    free(run->seen.at);
    free(run->prompts.at);
    free(run->against.at);
    str_free(&run->line);
}

int import_run(const Importer *imp, const char *in, const char *out, const ImportOptions *o,
               ImportReport *report)
{
    int rc = 0;
    Run run = {.im = {.imp = imp, .o = o, .report = report}};
    *report = (ImportReport){.format = imp->name, .in = in, .kind = imp->kind};
    TRY(check_options(imp, o));
    for (int i = 0; i < o->n_against; i++)
        TRY(read_prompts(&run.against, o->against[i]));
    TRY(rows_open(&run.rows, in));
    TRY(writer_open(&run.out, out));
    if (o->held_out_every > 0)
        TRY(writer_open(&run.held_out, o->held_out));
    TRY(run_rows(&run));
    Writer *w = run.out;
    run.out = NULL;
    TRY(writer_close(w));
    w = run.held_out;
    run.held_out = NULL;
    if (w)
        TRY(writer_close(w));
fail:
    run_free(&run);
    return rc;
}
