/* report.c - see report.h; the plots are plot.c's. Tested by tests/e2e/test_sft.sh, test_ppo.sh and
 * test_rejection.sh. */
#include "common/train/report.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/stream.h"
#include "common/train/plot.h"

#include <stdlib.h>
#include <string.h>

enum { SAMPLES_SHOWN = 16 };

/* ---- answers, for people to read ---------------------------------------------------------------- */

static bool is_number(const Json *j)
{
    return json_kind(j) == JSON_INT || json_kind(j) == JSON_NUM;
}

/* A text, or the last message of a conversation. */
static const char *last_text(const Json *prompt)
{
    if (json_kind(prompt) == JSON_ARR && json_len(prompt))
        prompt = json_get(json_at(prompt, json_len(prompt) - 1), "content");
    const char *text = json_str(prompt);
    return text ? text : "";
}

static void put_cell(Str *out, const char *text)
{
    str_add(out, "<td>");
    html_escape(out, text);
    str_add(out, "</td>");
}

/* Columns: prompt, answer, and the numbers of the first line, which is `first`. */
static void put_sample(Str *out, const Json *first, const Json *j, bool head)
{
    str_add(out, "<tr>");
    if (head) {
        str_add(out, "<th>prompt</th><th>answer</th>");
    } else {
        put_cell(out, last_text(json_get(j, "prompt")));
        put_cell(out, last_text(json_get(j, "answer")));
    }
    for (void *it = json_iter(first); it; it = json_iter_next(first, it)) {
        const char *key = json_iter_key(it);
        if (!is_number(json_iter_value(it)) || !strcmp(key, "step"))
            continue;
        if (head) {
            str_add(out, "<th class=\"n\">");
            html_escape(out, key);
            str_add(out, "</th>");
        } else if (is_number(json_get(j, key))) {
            str_addf(out, "<td class=\"n\">%.3g</td>", json_num(json_get(j, key), 0));
        } else {
            str_add(out, "<td></td>");
        }
    }
    str_add(out, "</tr>\n");
}

/* The first answers of samples.jsonl, where there is one. */
static int put_samples(Str *out, const char *path)
{
    Reader *r = NULL;
    Json *line[SAMPLES_SHOWN] = {NULL};
    char *text;
    size_t n;
    int rc = 0, k = 0;
    if (!file_exists(path))
        return 0;
    TRY(reader_open(&r, path));
    while (k < SAMPLES_SHOWN && (rc = reader_line(r, &text, &n)) > 0) {
        TRY(json_parse(&line[k], text, n, path, reader_line_number(r)));
        k++;
    }
    if (rc < 0 || !k)
        goto fail;
    rc = 0;
    str_addf(out, "<h2>samples</h2>\n<p>The first %d of samples.jsonl; of a conversation its last message.</p>\n<table>\n", k);
    put_sample(out, line[0], NULL, true);
    for (int i = 0; i < k; i++)
        put_sample(out, line[0], line[i], false);
    str_add(out, "</table>\n");
fail:
    for (int i = 0; i < k; i++)
        json_free(line[i]);
    reader_close(r);
    return rc;
}

int report_write(const char *run_dir, const char *title, const char *summary, const char *config_yaml)
{
    char *metrics = path_join(run_dir, "metrics.jsonl"), *path = path_join(run_dir, "report.html");
    char *samples = path_join(run_dir, "samples.jsonl");
    Str page = {0};
    html_begin(&page, title);
    str_add(&page, "<p>");
    html_escape(&page, summary);
    str_add(&page, "</p>\n");
    int rc = plot_metrics(&page, metrics);
    if (rc >= 0)
        rc = put_samples(&page, samples);
    str_add(&page, "<details><summary>config.yaml</summary><pre>");
    html_escape(&page, config_yaml);
    str_add(&page, "</pre></details>\n");
    html_end(&page);
    if (rc >= 0)
        rc = file_write_atomic(path, str_get(&page), page.n);
    str_free(&page);
    free(metrics);
    free(samples);
    free(path);
    return rc;
}
