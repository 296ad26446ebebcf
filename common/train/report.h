/* report.h - report.html of a run: its result line, its training curves, some of its answers, its config. */
#ifndef RLHF_TRAIN_REPORT_H
#define RLHF_TRAIN_REPORT_H

/* Writes run_dir/report.html from run_dir/metrics.jsonl and, where there is one, run_dir/samples.jsonl. */
int report_write(const char *run_dir, const char *title, const char *summary, const char *config_yaml);

#endif
