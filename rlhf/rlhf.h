/* rlhf.h - the subcommands of rlhf. Each gets argv from its own name on and returns the exit code. */
#ifndef RLHF_RLHF_H
#define RLHF_RLHF_H

int rlhf_main(int argc, char **argv);

int generate_main(int argc, char **argv); /* generate.c: answers to prompts */
int chat_main(int argc, char **argv);     /* chat.c: a conversation */
int inspect_main(int argc, char **argv);  /* inspect.c: ids, loss mask and template of records */
int import_main(int argc, char **argv);   /* import_main.c: public data sets -> our records */
int run_main(int argc, char **argv);      /* run.c: an experiment file of stages */
int plan_main(int argc, char **argv);     /* plan.c: what it will take */

#endif
