/* experiment.h - an experiment file: variables and stages.
 *
 *   root: runs/demo                 folder of all stages (may be set with root=DIR)
 *   vars: {seed: 1}                 ${seed} anywhere below; vars.seed=2 on the command line wins
 *   stages:
 *     - name: sft
 *       program: rlhf-sft           a program beside rlhf, with its subcommand if it has one
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
    bool resumable; /* a trainer: gets --resume auto, or overwrite=true when its stage changed */
    int line;
} Stage;

typedef struct {
    YamlDoc *doc;
    const char *path;
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
void experiment_free(Experiment *e);

#endif
