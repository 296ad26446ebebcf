/* import.c - public data sets -> records, with a report of what was kept and why the rest was not.
 *
 * The split by prompt hash puts all records of one prompt on the same side, and does so again when
 * the set is imported again or grows. Tested by tests/unit/test_import.c. */
#include "common/data/import.h"

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/stream.h"
#include "common/data/rows.h"

#include <math.h>
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

static bool hash_set_add(HashSet *s, uint64_t h)
{
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
    while (s->at[i] && s->at[i] != h)
        i = (i + 1) & (s->cap - 1);
    if (s->at[i])
        return false;
    s->at[i] = h;
    s->n++;
    return true;
}

/* Over prompt, answers and labels, not over id, source and tags. */
static uint64_t content_hash(const Record *r)
{
    Str all = {0};
    str_addf(&all, "%d %016llx %d %d ", (int)r->kind, (unsigned long long)r->prompt_hash,
             (int)r->safety[0], (int)r->safety[1]);
    for (int k = 0; k < 2; k++)
        if (r->text[k])
            str_add_bytes(&all, r->text[k], strlen(r->text[k]) + 1);
    if (r->kind == RECORD_SFT)
        str_add(&all, r->messages[r->n_messages - 1].text);
    const uint64_t h = hash64(all.s, all.n, 0);
    str_free(&all);
    return h;
}

/* ---- the report */

static int64_t count_chars(const char *s, size_t n)
{
    int64_t chars = 0;
    for (size_t i = 0; i < n; i++)
        chars += ((unsigned char)s[i] & 0xc0) != 0x80; /* UTF-8 continuation bytes */
    return chars;
}

static void add_length(ImportReport *rep, int which, int64_t chars)
{
    if (rep->chars[which].n++ == 0 || chars < rep->chars[which].min)
        rep->chars[which].min = chars;
    if (chars > rep->chars[which].max)
        rep->chars[which].max = chars;
    rep->chars[which].sum += chars;
}

static void count_kept(ImportReport *rep, const Record *r)
{
    int64_t prompt = 0;
    const int n_prompt = r->n_messages - (r->kind == RECORD_SFT);
    for (int i = 0; i < n_prompt; i++) {
        prompt += count_chars(r->messages[i].text, r->messages[i].n);
        rep->n_turns += r->messages[i].role == ROLE_USER;
        rep->n_system += r->messages[i].role == ROLE_SYSTEM;
    }
    if (r->n_messages)
        add_length(rep, 0, prompt);
    if (r->kind == RECORD_SFT)
        add_length(rep, 1, count_chars(r->messages[n_prompt].text, r->messages[n_prompt].n));
    for (int k = 0; k < 2; k++)
        if (r->text[k])
            add_length(rep, 1 + k, count_chars(r->text[k], strlen(r->text[k])));
    if (r->kind == RECORD_PAIR) {
        rep->strength[r->strength]++;
        rep->n_margin += !isnan(r->margin);
        if (r->safety[0] != SAFETY_UNKNOWN && r->safety[1] != SAFETY_UNKNOWN) {
            const bool chosen = r->safety[0] == SAFETY_SAFE, rejected = r->safety[1] == SAFETY_SAFE;
            rep->safety_bins[chosen ? (rejected ? 1 : 0) : (rejected ? 3 : 2)]++;
        }
    } else if (r->kind == RECORD_LABELLED) {
        rep->n_safe += r->safety[0] == SAFETY_SAFE;
        rep->n_unsafe += r->safety[0] == SAFETY_UNSAFE;
    }
    rep->n_kept++;
}

static void print_reason(Str *out, const char *what, int64_t n)
{
    if (n)
        str_addf(out, "  %-28s %9lld\n", what, (long long)n);
}

static void print_pairs(const ImportReport *r, Str *out)
{
    static const char *const bins[] = {"chosen safe, rejected unsafe", "both safe", "both unsafe",
                                       "chosen unsafe, rejected safe"};
    int64_t labelled = 0;
    str_add(out, "strength\n");
    for (int s = 0; s < STRENGTH_COUNT; s++)
        print_reason(out, s == STRENGTH_UNKNOWN ? "unknown (margin 0)" : strength_name((Strength)s),
                     r->strength[s]);
    print_reason(out, "with a margin of its own", r->n_margin);
    for (int b = 0; b < 4; b++)
        labelled += r->safety_bins[b];
    if (!labelled)
        return;
    str_add(out, "safety\n");
    for (int b = 0; b < 4; b++)
        print_reason(out, bins[b], r->safety_bins[b]);
    print_reason(out, "without both labels", r->n_kept - labelled);
}

void import_report_print(const ImportReport *r, Str *out)
{
    const char *names[3] = {"prompt", r->kind == RECORD_PAIR ? "chosen" : "answer", "rejected"};
    if (r->kind == RECORD_TEXT)
        names[1] = "text";
    str_addf(out, "read      %lld\n", (long long)r->n_read);
    str_addf(out, "kept      %lld %s records", (long long)r->n_kept, record_kind_name(r->kind));
    if (r->n_held_out)
        str_addf(out, ", %lld of them held out", (long long)r->n_held_out);
    str_addf(out, "\ndropped   %lld\n", (long long)(r->n_read - r->n_kept));
    print_reason(out, "identical answers", r->n_identical);
    print_reason(out, "empty message or answer", r->n_empty);
    print_reason(out, "no common prompt", r->n_no_common_prompt);
    print_reason(out, "tie", r->n_tie);
    print_reason(out, "repeats an earlier record", r->n_duplicate);
    print_reason(out, "bad row", r->n_bad);
    if (r->n_kept == 0)
        return;
    if (r->kind == RECORD_PAIR)
        print_pairs(r, out);
    if (r->kind == RECORD_LABELLED) {
        str_add(out, "label\n");
        print_reason(out, "safe", r->n_safe);
        print_reason(out, "unsafe", r->n_unsafe);
    }
    str_add(out, "length in characters              mean       min       max\n");
    for (int k = 0; k < 3; k++)
        if (r->chars[k].n)
            str_addf(out, "  %-26s %9.1f %9lld %9lld\n", names[k],
                     (double)r->chars[k].sum / (double)r->chars[k].n, (long long)r->chars[k].min,
                     (long long)r->chars[k].max);
    if (r->n_turns)
        str_addf(out, "  %.2f messages of the user per record; %lld with a system message\n",
                 (double)r->n_turns / (double)r->n_kept, (long long)r->n_system);
}

/* ---- the run */

typedef struct {
    Writer *out, *held_out;
    HashSet seen;
    Str line;
} Import;

static int write_record(Import *im, const Record *r, bool hold_out, ImportReport *report)
{
    str_clear(&im->line);
    record_write(r, &im->line);
    str_add(&im->line, "\n");
    report->n_held_out += hold_out;
    return writer_write(hold_out ? im->held_out : im->out, im->line.s, im->line.n);
}

/* 1 kept, 0 dropped, negative: this row is bad. */
static int take_row(const Importer *imp, Record *r, const Json *j, const char *file, int64_t line,
                    ImportReport *report)
{
    memset(r, 0, sizeof *r);
    if (!j)
        return ERR_DATA;
    const int rc = imp->row(r, j, file, line, report);
    if (rc == 1 && report->n_kept == 0)
        report->kind = r->kind;
    if (rc == 1 && r->kind != report->kind) {
        error_set(ERR_DATA, "%s:%lld: a %s record among %s records; a file holds one kind", file,
                  (long long)line, record_kind_name(r->kind), record_kind_name(report->kind));
        record_free(r);
        return ERR_DATA;
    }
    return rc;
}

int import_run(const Importer *imp, const char *in, const char *out, const char *held_out_path,
               int held_out_every, bool tagged, BadRow on_bad, ImportReport *report)
{
    int rc = 0, got;
    Import im = {0};
    Rows rows = {0};
    Record r = {0};
    const Json *j;
    memset(report, 0, sizeof *report);
    report->kind = imp->kind;
    TRY(rows_open(&rows, in));
    TRY(writer_open(&im.out, out));
    if (held_out_every > 0)
        TRY(writer_open(&im.held_out, held_out_path));
    while ((got = rows_next(&rows, &j)) > 0) {
        report->n_read++;
        rc = take_row(imp, &r, j, reader_path(rows.reader), rows.line, report);
        if (rc < 0 && on_bad == BAD_ROW_SKIP) {
            log_debug("skipped: %s", error_text());
            report->n_bad++;
            continue;
        }
        TRY(rc);
        if (rc == 0)
            continue;
        if (!hash_set_add(&im.seen, content_hash(&r))) {
            report->n_duplicate++;
        } else {
            r.tagged |= tagged;
            count_kept(report, &r);
            TRY(write_record(&im, &r,
                             held_out_every > 0 && r.prompt_hash % (uint64_t)held_out_every == 0,
                             report));
        }
        record_free(&r);
    }
    TRY(got);
    if (report->n_kept == 0) {
        rc = error_set(ERR_DATA,
                       "%s: none of %lld rows could be kept as %s; is it the right format?", in,
                       (long long)report->n_read, imp->name);
        goto fail;
    }
    Writer *w = im.out;
    im.out = NULL;
    TRY(writer_close(w));
    w = im.held_out;
    im.held_out = NULL;
    if (w)
        TRY(writer_close(w));
    rc = 0;
fail:
    record_free(&r);
    writer_abort(im.out);
    writer_abort(im.held_out);
    rows_close(&rows);
    free(im.seen.at);
    str_free(&im.line);
    return rc;
}
