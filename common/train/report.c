/* report.c - see report.h; the plots are plot.c's. Tested by tests/e2e/test_sft.sh. */
#include "common/train/report.h"

#include "common/base/file.h"
#include "common/train/plot.h"

#include <stdlib.h>

int report_write(const char *run_dir, const char *title, const char *summary, const char *config_yaml)
{
    char *metrics = path_join(run_dir, "metrics.jsonl"), *path = path_join(run_dir, "report.html");
    Str page = {0};
    html_begin(&page, title);
    str_add(&page, "<p>");
    html_escape(&page, summary);
    str_add(&page, "</p>\n");
    int rc = plot_metrics(&page, metrics);
    str_add(&page, "<details><summary>config.yaml</summary><pre>");
    html_escape(&page, config_yaml);
    str_add(&page, "</pre></details>\n");
    html_end(&page);
    if (rc >= 0)
        rc = file_write_atomic(path, str_get(&page), page.n);
    str_free(&page);
    free(metrics);
    free(path);
    return rc;
}
