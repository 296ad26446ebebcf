/* demo.h - the subcommands of rlhf-demo. Each gets argv from its own name on and returns the exit
 * code. */
#ifndef RLHF_DEMO_DEMO_H
#define RLHF_DEMO_DEMO_H

int demo_main(int argc, char **argv);

int world_main(int argc, char **argv);    /* world_files.c: model folder, texts and prompts */
int annotate_main(int argc, char **argv); /* annotate.c: samples -> rated pairs */
int evaluate_main(int argc, char **argv); /* evaluate.c: generations -> table, rules, demo.json */
int report_main(int argc, char **argv);   /* report.c: report.html */
int controls_main(int argc, char **argv); /* controls.c: verdicts on the controls */

#endif
