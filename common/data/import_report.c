/* import_report.c - what an import says about itself, for a reader and as JSON.
 *
 * Tested by tests/unit/test_import.c. */
#include "common/data/import_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- counting */

/* In tokens of `tok`, or in characters without one. */
static int64_t length_of(const char *s, size_t n, bool first, Tokenizer *tok)
{
    int64_t length = 0;
    if (tok) {
        IdList ids = {0};
        tokenizer_encode(tok, s, n, first, &ids); /* jansson let only UTF-8 through */
        length = ids.n;
        id_list_free(&ids);
        return length;
    }
    for (size_t i = 0; i < n; i++)
        length += ((unsigned char)s[i] & 0xc0) != 0x80; /* UTF-8 continuation bytes */
    return length;
}

static void add_length(ImportLengths *l, int64_t length)
{
    const int64_t i = VEC_GROW(l->at, l->n, l->cap);
    l->at[i] = (int32_t)length; /* a line has at most 64 MiB */
}

static void add_lengths(ImportLengths *l, const Record *r, Tokenizer *tok)
{
    int64_t prompt = 0, longest = 0;
    const int n_prompt = r->n_messages - (r->kind == RECORD_SFT);
    for (int i = 0; i < n_prompt; i++)
        prompt += length_of(r->messages[i].text, r->messages[i].n, i == 0, tok);
    if (r->n_messages)
        add_length(&l[LENGTH_PROMPT], prompt);
    for (int k = 0; k < 2; k++) {
        const char *text =
            k == 0 && r->kind == RECORD_SFT ? r->messages[n_prompt].text : r->text[k];
        if (!text)
            continue;
        const int64_t n = length_of(text, strlen(text), r->kind == RECORD_TEXT, tok);
        add_length(&l[LENGTH_ANSWER + k], n);
        longest = n > longest ? n : longest;
    }
    add_length(&l[LENGTH_WHOLE], prompt + longest);
}

void import_count(ImportReport *rep, const Record *r, Tokenizer *tok)
{
    const int n_prompt = r->n_messages - (r->kind == RECORD_SFT);
    for (int i = 0; i < n_prompt; i++) {
        rep->n_turns += r->messages[i].role == ROLE_USER;
        rep->n_system += r->messages[i].role == ROLE_SYSTEM;
    }
    add_lengths(rep->chars, r, NULL);
    if (tok)
        add_lengths(rep->tokens, r, tok);
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

void import_report_free(ImportReport *r)
{
    for (int k = 0; k < LENGTH_COUNT; k++) {
        free(r->chars[k].at);
        free(r->tokens[k].at);
    }
    free(r->first_bad);
    memset(r, 0, sizeof *r);
}

/* ---- names, those of the JSON report first */

static const char *const drop_keys[DROP_COUNT] = {
    "empty", "identical", "no_common_prompt", "tie",     "close",
    "alone", "split",     "duplicate",        "overlap", "bad_row",
};
static const char *const drop_names[DROP_COUNT] = {
    "empty message or answer",  "identical answers",
    "no common prompt",         "tie",
    "rating below min_rating",  "single answer to a prompt",
    "of another split",         "repeats an earlier record",
    "prompt stands in against", "bad row",
};
static const char *const bin_keys[4] = {"chosen_safe_rejected_unsafe", "both_safe", "both_unsafe",
                                        "chosen_unsafe_rejected_safe"};
static const char *const bin_names[4] = {"chosen safe, rejected unsafe", "both safe", "both unsafe",
                                         "chosen unsafe, rejected safe"};

static int64_t sum(const int64_t *n, int count)
{
    int64_t all = 0;
    for (int i = 0; i < count; i++)
        all += n[i];
    return all;
}

/* ---- lengths */

typedef struct {
    double mean;
    int32_t median, p90, p99, max;
} LengthStats;

static int compare_i32(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* The smallest length that at least that share of the records does not exceed. */
static int32_t quantile(const ImportLengths *l, double q)
{
    const int64_t i = (int64_t)ceil(q * (double)l->n) - 1;
    return l->at[i < 0 ? 0 : i];
}

static LengthStats length_stats(ImportLengths *l)
{
    double total = 0;
    qsort(l->at, (size_t)l->n, sizeof *l->at, compare_i32);
    for (int64_t i = 0; i < l->n; i++)
        total += l->at[i];
    return (LengthStats){total / (double)l->n, quantile(l, 0.5), quantile(l, 0.9),
                         quantile(l, 0.99), l->at[l->n - 1]};
}

static const char *length_name(const ImportReport *r, int which, bool key)
{
    const bool pair = r->kind == RECORD_PAIR;
    switch (which) {
    case LENGTH_PROMPT:
        return "prompt";
    case LENGTH_ANSWER:
        return r->kind == RECORD_TEXT ? "text" : pair ? "chosen" : "answer";
    case LENGTH_REJECTED:
        return "rejected";
    default:
        return key ? "whole" : pair ? "prompt and longer answer" : "prompt and answer";
    }
}

/* The whole is said only of records that have two parts. */
static bool has_length(const ImportReport *r, const ImportLengths *l, int which)
{
    return l[which].n && (which != LENGTH_WHOLE || (l[LENGTH_PROMPT].n && l[LENGTH_ANSWER].n)) &&
           r->n_kept;
}

/* ---- text */

static void print_share(Str *out, const char *what, int64_t n, int64_t of, bool bar)
{
    static const char full[] = "########################################";
    const double share = of ? (double)n / (double)of : 0;
    char percent[16] = "<0.1";
    if (share >= 0.0005)
        snprintf(percent, sizeof percent, "%.1f", 100 * share);
    if (n)
        str_addf(out, "  %-28s %9lld  %5s %%%s%.*s\n", what, (long long)n, percent, bar ? "  " : "",
                 bar ? (int)(share * 40 + 0.5) : 0, full);
}

static void print_count(Str *out, const char *what, int64_t n, int64_t of)
{
    print_share(out, what, n, of, false);
}

static void print_bar(Str *out, const char *what, int64_t n, int64_t of)
{
    print_share(out, what, n, of, true);
}

static void print_pairs(const ImportReport *r, Str *out)
{
    const int64_t labelled = sum(r->safety_bins, 4);
    str_add(out, "strength\n");
    for (int s = 0; s < STRENGTH_COUNT; s++)
        print_bar(out, s == STRENGTH_UNKNOWN ? "unknown (margin 0)" : strength_name((Strength)s),
                  r->strength[s], r->n_kept);
    print_count(out, "with a margin of its own", r->n_margin, r->n_kept);
    if (!labelled)
        return;
    str_add(out, "safety\n");
    for (int b = 0; b < 4; b++)
        print_bar(out, bin_names[b], r->safety_bins[b], r->n_kept);
    print_bar(out, "without both labels", r->n_kept - labelled, r->n_kept);
}

static void print_lengths(const ImportReport *r, ImportLengths *l, const char *unit, Str *out)
{
    if (!l[LENGTH_WHOLE].n)
        return;
    str_addf(out, "length in %-21s %9s %9s %9s %9s %9s\n", unit, "mean", "median", "90 %", "99 %",
             "max");
    for (int k = 0; k < LENGTH_COUNT; k++) {
        if (!has_length(r, l, k))
            continue;
        const LengthStats s = length_stats(&l[k]);
        str_addf(out, "  %-29s %9.1f %9d %9d %9d %9d\n", length_name(r, k, false), s.mean, s.median,
                 s.p90, s.p99, s.max);
    }
}

void import_report_print(ImportReport *r, Str *out)
{
    const int64_t n_dropped = sum(r->dropped, DROP_COUNT), n_made = r->n_kept + n_dropped;
    str_addf(out, "%s: %s\n", r->format, strcmp(r->in, "-") ? r->in : "standard input");
    str_addf(out, "read      %lld\n", (long long)r->n_read);
    str_addf(out, "kept      %lld %s records", (long long)r->n_kept, record_kind_name(r->kind));
    if (r->n_held_out)
        str_addf(out, ", %lld of them held out", (long long)r->n_held_out);
    str_addf(out, "\ndropped   %lld\n", (long long)n_dropped);
    for (int d = 0; d < DROP_COUNT; d++)
        print_count(out, drop_names[d], r->dropped[d], n_made);
    if (r->first_bad)
        str_addf(out, "  the first bad row: %s\n", r->first_bad);
    if (r->n_kept == 0)
        return;
    str_addf(out, "prompts   %lld different\n", (long long)r->n_prompts);
    print_count(out, "kept, stand in against", r->n_overlap, r->n_kept);
    print_count(out, "contradict an earlier record", r->n_contradict, r->n_kept);
    if (r->kind == RECORD_PAIR)
        print_pairs(r, out);
    if (r->kind == RECORD_LABELLED) {
        str_add(out, "label\n");
        print_bar(out, "safe", r->n_safe, r->n_kept);
        print_bar(out, "unsafe", r->n_unsafe, r->n_kept);
    }
    print_lengths(r, r->chars, "characters", out);
    print_lengths(r, r->tokens, "tokens, no template", out);
    if (r->n_turns)
        str_addf(out, "  %.2f messages of the user per record; %lld with a system message\n",
                 (double)r->n_turns / (double)r->n_kept, (long long)r->n_system);
}

/* ---- JSON */

static void json_lengths(JsonWriter *w, const ImportReport *r, ImportLengths *l, const char *key)
{
    if (!l[LENGTH_WHOLE].n)
        return;
    jw_key(w, key);
    jw_object(w);
    for (int k = 0; k < LENGTH_COUNT; k++) {
        if (!has_length(r, l, k))
            continue;
        const LengthStats s = length_stats(&l[k]);
        jw_key(w, length_name(r, k, true));
        jw_object(w);
        jw_knum(w, "mean", s.mean);
        jw_kint(w, "median", s.median);
        jw_kint(w, "p90", s.p90);
        jw_kint(w, "p99", s.p99);
        jw_kint(w, "max", s.max);
        jw_object_end(w);
    }
    jw_object_end(w);
}

static void json_counts(JsonWriter *w, const char *key, const int64_t *n, const char *const *names,
                        int count)
{
    jw_key(w, key);
    jw_object(w);
    for (int i = 0; i < count; i++)
        jw_kint(w, names[i], n[i]);
    jw_object_end(w);
}

void import_report_json(ImportReport *r, Str *out)
{
    JsonWriter w;
    const char *strengths[STRENGTH_COUNT];
    for (int s = 0; s < STRENGTH_COUNT; s++)
        strengths[s] = strength_name((Strength)s);
    jw_init(&w, out, true);
    jw_object(&w);
    jw_kstr(&w, "format", r->format);
    jw_kstr(&w, "in", r->in);
    jw_kstr(&w, "kind", record_kind_name(r->kind));
    jw_kint(&w, "read", r->n_read);
    jw_kint(&w, "kept", r->n_kept);
    jw_kint(&w, "held_out", r->n_held_out);
    json_counts(&w, "dropped", r->dropped, drop_keys, DROP_COUNT);
    if (r->first_bad)
        jw_kstr(&w, "first_bad_row", r->first_bad);
    jw_kint(&w, "prompts", r->n_prompts);
    jw_kint(&w, "overlap_kept", r->n_overlap);
    jw_kint(&w, "contradict", r->n_contradict);
    if (r->kind == RECORD_PAIR) {
        json_counts(&w, "strength", r->strength, strengths, STRENGTH_COUNT);
        jw_kint(&w, "with_margin", r->n_margin);
        json_counts(&w, "safety", r->safety_bins, bin_keys, 4);
    }
    if (r->kind == RECORD_LABELLED)
        json_counts(&w, "label", (const int64_t[]){r->n_safe, r->n_unsafe},
                    (const char *const[]){"safe", "unsafe"}, 2);
    json_lengths(&w, r, r->chars, "chars");
    json_lengths(&w, r, r->tokens, "tokens");
    jw_kint(&w, "user_messages", r->n_turns);
    jw_kint(&w, "with_system", r->n_system);
    jw_object_end(&w);
    str_add(out, "\n");
}
