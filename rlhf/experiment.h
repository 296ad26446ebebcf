/* experiment.h - an experiment file: variables and stages.
 *
 *   root: runs/demo                 folder of all stages (may be set with root=DIR)
 *   vars: {seed: 1}                 ${seed} anywhere below; vars.seed=2 on the command line wins
 *   stages:
 *     - name: sft
 *       program: rlhf-sft           a program beside rlhf, with its subcommand if it has one
 *       presets: [FILE, ...]        config files passed with -c before config, whose values win over theirs
 *       config: {...}               written to ${root}/configs/sft.yaml and passed with -c
 *       args: [...]                 further arguments
 *       inputs: [...]               files and folders that decide whether a done stage still holds; every
 *                                   value of config and args that names an existing path counts anyway
 *       if: ${flag}                 the stage is left out when this is false
 *
 * ${root}, ${name} (of the stage) and ${out} (${root}/${name}) are always there. */
#ifndef RLHF_RLHF_EXPERIMENT_H
#define RLHF_RLHF_EXPERIMENT_H

#include "common/base/mem.h"
#include "common/base/yaml.h"

#include <stdbool.h>

typedef struct {
    char *name;
    char **argv; /* program and its words, config, args; NULL-terminated */
    int argc;
    char *config;      /* YAML text, "" when there is none */
    char *config_path; /* where it goes */
    char **inputs;
    int n_inputs, cap_inputs;
    bool has_presets; /* argv holds -c of files, which are inputs */
    bool resumable; /* a trainer: gets --resume auto, or overwrite=true when its stage changed */
    int line;
} Stage;

/* What stands in for a value of config, or of args "KEY=VALUE"; NULL: nothing does. Borrowed until the next
 * call. */
typedef struct {
    const char *(*text)(void *ctx, const char *text);
    void *ctx;
} ExperimentStandIn;

typedef struct {
    YamlDoc *doc;
    const char *path;
    ExperimentStandIn stand_in; /* for stage `stand_in_at`; .text NULL: none */
    int stand_in_at;
    char *root;
    struct Var {
        char *name, *value;
    } *vars;
    int n_vars, cap_vars;
    Stage *stages;
    int n, cap;
} Experiment;

/* sets: "root=DIR", "vars.NAME=VALUE". All errors name file:line:column. */
int experiment_read(Experiment *e, const char *path, const char *const *sets, int n_sets);
/* Stages 0 to `index`, with values of the last replaced: for a plan of a stage whose inputs are not there
 * yet. */
int experiment_read_stage(Experiment *e, const char *path, const char *const *sets, int n_sets, int index,
                          ExperimentStandIn stand_in);
void experiment_free(Experiment *e);

/* Path of a stage's program: beside this one, unless it is a path itself. Caller frees. */
char *stage_program_path(const Stage *s);
/* Writes its config where its command expects it. */
int stage_write_config(const Experiment *e, const Stage *s);

#endif
