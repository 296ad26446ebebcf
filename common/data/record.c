/* record.c - record sets: reading a file of records, margins, and the overlap of prompts.
 *
 * Prompts are compared by their 64-bit hashes, sorted: the same hashes are kept in a file beside a
 * stage's run, so that a later stage can be held against an earlier one. Tested by
 * tests/unit/test_record.c. */
#include "common/data/record.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/data/rows.h"

#include <stdlib.h>
#include <string.h>

const char *record_kind_name(RecordKind kind)
{
    static const char *const names[] = {"text", "prompt", "sft", "preference", "labelled"};
    return names[kind];
}

const char *strength_name(Strength s)
{
    static const char *const names[] = {"significant", "better", "slight",
                                        "negligible",  "unsure", "unknown"};
    return names[s];
}

double strength_margin(Strength s, MarginKind kind)
{
    /* Llama 2, table 27; the last level is "negligibly better or unsure" */
    static const double table[][STRENGTH_COUNT] = {
        [MARGIN_NONE] = {0},
        [MARGIN_SMALL] = {1.0, 2.0 / 3.0, 1.0 / 3.0},
        [MARGIN_LARGE] = {3.0, 2.0, 1.0},
    };
    return table[kind][s];
}

void record_free(Record *r)
{
    for (int i = 0; i < r->n_messages; i++)
        free(r->messages[i].text);
    free(r->messages);
    free(r->text[0]);
    free(r->text[1]);
    free(r->id_text);
    free(r->source);
    memset(r, 0, sizeof *r);
}

/* Adds to the last error what the reader of a log can do about it. */
static int add_hint(int rc)
{
    char *text = xstrdup(error_text());
    error_set(rc, "%s; remove the row or set on_bad_row: skip", text);
    free(text);
    return rc;
}

int record_set_read(RecordSet *s, const char *path, RecordKind want, BadRow on_bad)
{
    int rc = 0, got;
    Rows rows = {0};
    const Json *j;
    int cap = s->n_files;
    const int64_t n_before = s->n;
    const int f = VEC_GROW(s->files, s->n_files, cap);
    s->files[f] = xstrdup(!strcmp(path, "-") ? "<stdin>" : path);
    TRY(rows_open(&rows, path));
    while ((got = rows_next(&rows, &j)) > 0) {
        Record r;
        RecordFault fault;
        rows.from.file = s->files[f]; /* outlives the rows */
        rc = j ? record_parse_at(&r, j, want, &rows.from, &fault) : ERR_DATA;
        if (rc < 0 && on_bad == BAD_ROW_SKIP) {
            log_debug("skipped: %s", error_text());
            s->n_bad++;
            rc = 0;
            continue;
        }
        if (rc < 0) {
            rc = add_hint(rc);
            goto fail;
        }
        const int64_t i = VEC_GROW(s->at, s->n, s->cap);
        s->at[i] = r;
    }
    TRY(got);
    if (s->n == n_before)
        rc = error_set(ERR_DATA, "%s: holds no %s record%s", s->files[f], record_kind_name(want),
                       s->n_bad ? " that could be read (on_bad_row: skip hid the reasons)" : "");
fail:
    rows_close(&rows);
    return rc;
}

void record_set_free(RecordSet *s)
{
    for (int64_t i = 0; i < s->n; i++)
        record_free(&s->at[i]);
    for (int i = 0; i < s->n_files; i++)
        free(s->files[i]);
    free(s->at);
    free(s->files);
    memset(s, 0, sizeof *s);
}

/* ---- overlap of prompts */

typedef struct {
    uint64_t hash;
    int64_t record;
} HashAt;

static int compare_hash_at(const void *a, const void *b)
{
    const HashAt *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return (x->record > y->record) - (x->record < y->record);
}

static int compare_u64(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The beginning of the prompt's last message, for messages. */
static void quote_prompt(const Record *r, char out[64])
{
    const char *s = r->n_messages ? r->messages[r->n_messages - 1].text : r->text[0];
    if (r->kind == RECORD_SFT && r->n_messages > 1)
        s = r->messages[r->n_messages - 2].text;
    size_t n = strnlen(s, 48);
    while (n && n == 48 && ((unsigned char)s[n] & 0xc0) == 0x80)
        n--; /* no cut inside a character */
    memcpy(out, s, n);
    strcpy(out + n, s[n] ? "..." : "");
    for (char *c = out; *c; c++)
        if ((unsigned char)*c < ' ')
            *c = ' ';
}

int record_check_overlap(const RecordSet *a, const char *a_name, const RecordSet *b,
                         const char *b_name)
{
    HashAt *at = xmalloc((size_t)a->n * sizeof *at);
    const HashAt *first = NULL;
    int64_t n_both = 0, first_b = 0;
    char quote[64];
    for (int64_t i = 0; i < a->n; i++)
        at[i] = (HashAt){a->at[i].prompt_hash, i};
    qsort(at, (size_t)a->n, sizeof *at, compare_hash_at);
    for (int64_t i = 0; i < b->n; i++) {
        /* the first record of `a` with this hash or a larger one */
        const uint64_t hash = b->at[i].prompt_hash;
        int64_t lo = 0, hi = a->n;
        while (lo < hi) {
            const int64_t mid = lo + (hi - lo) / 2;
            if (at[mid].hash < hash)
                lo = mid + 1;
            else
                hi = mid;
        }
        if (lo == a->n || at[lo].hash != hash)
            continue;
        if (n_both++ == 0) {
            first = &at[lo];
            first_b = i;
        }
    }
    int rc = 0;
    if (n_both) {
        const Record *x = &a->at[first->record], *y = &b->at[first_b];
        quote_prompt(y, quote);
        rc = error_set(
            ERR_DATA,
            "%s:%lld (%s) and %s:%lld (%s) hold the same prompt '%s'; %lld record%s of %s in all: "
            "remove them from one of the two, or split by prompt (rlhf import held_out=FILE)",
            x->file, (long long)x->line, a_name, y->file, (long long)y->line, b_name, quote,
            (long long)n_both, n_both == 1 ? "" : "s", b_name);
    }
    free(at);
    return rc;
}

enum { HASHES_HEADER = 3 };
static const char hashes_magic[9] = "prompts1";

int prompt_hashes_write(const char *path, const RecordSet *s)
{
    uint64_t *all = xmalloc(((size_t)s->n + HASHES_HEADER) * sizeof *all), *h = all + HASHES_HEADER;
    size_t n = 0;
    for (int64_t i = 0; i < s->n; i++)
        h[i] = s->at[i].prompt_hash;
    qsort(h, (size_t)s->n, sizeof *h, compare_u64);
    for (int64_t i = 0; i < s->n; i++)
        if (i == 0 || h[i] != h[n - 1])
            h[n++] = h[i];
    memcpy(&all[0], hashes_magic, 8);
    all[1] = n;
    all[2] = hash64(h, n * sizeof *h, 0);
    const int rc = file_write_atomic(path, all, (n + HASHES_HEADER) * sizeof *all);
    free(all);
    return rc;
}

int prompt_hashes_check(const char *path, const RecordSet *held_out, const char *held_out_name)
{
    char *data = NULL, quote[64];
    size_t n_bytes = 0;
    int rc = 0;
    int64_t n_both = 0, first = 0;
    TRY(file_read(path, &data, &n_bytes));
    uint64_t head[HASHES_HEADER] = {0};
    const size_t head_bytes = sizeof head;
    if (n_bytes >= head_bytes)
        memcpy(head, data, head_bytes);
    if (n_bytes < head_bytes || memcmp(head, hashes_magic, 8) ||
        head[1] != (n_bytes - head_bytes) / 8 || n_bytes % 8 ||
        head[2] != hash64(data + head_bytes, n_bytes - head_bytes, 0)) {
        rc = error_set(
            ERR_DATA,
            "%s: not a file of prompt hashes, or damaged; run the stage that wrote it again", path);
        goto fail;
    }
    /* malloc'ed memory plus 24 bytes: aligned for u64 */
    const uint64_t *h = (const uint64_t *)(const void *)(data + head_bytes);
    for (int64_t i = 0; i < held_out->n; i++)
        if (bsearch(&held_out->at[i].prompt_hash, h, head[1], sizeof *h, compare_u64) &&
            n_both++ == 0)
            first = i;
    if (n_both) {
        const Record *r = &held_out->at[first];
        quote_prompt(r, quote);
        rc = error_set(ERR_DATA,
                       "%s:%lld (%s): the prompt '%s' was trained on (%s); %lld held-out record%s "
                       "in all: remove "
                       "them, or hold out other prompts",
                       r->file, (long long)r->line, held_out_name, quote, path, (long long)n_both,
                       n_both == 1 ? "" : "s");
    }
fail:
    free(data);
    return rc;
}
