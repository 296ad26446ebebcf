/* controls.h - what `make demo-controls` must show: one thing broken at a time, and a rule for each that can
 * fail. Rules speak about demo.json of 'rlhf-demo evaluate', of the whole run and of the broken ones, and about
 * what 'rlhf-reward eval' says of a safety model without classification loss compared with the one that has it.
 * Tested by tests/unit/test_demo_controls.c. */
#ifndef RLHF_DEMO_CONTROLS_H
#define RLHF_DEMO_CONTROLS_H

#include "rlhf/demo/measures.h"

typedef enum {
    CONTROL_SHUFFLED, /* annotators without knowledge: no gain */
    CONTROL_RANDOM,   /* a random one of the K answers: below rejection sampling */
    CONTROL_SWITCH,   /* no switch to the safety model: more violations */
    CONTROL_BETA0,    /* no KL penalty: the reward model's score rises, gold falls */
    CONTROL_DEMOS
} Control;

enum { CONTROL_RULES = CONTROL_DEMOS + 2 };

/* demo[c]: demo.json of control c. compare[0..n): one per seed, the comparison in eval.json with the anchored model.
 * Fills all of out; a number that is missing fails its rule. */
void controls_rules(Rule out[CONTROL_RULES], const Json *whole, const Json *const demo[CONTROL_DEMOS],
                    const Json *const *compare, int n);

/* What the two rules of the classification loss rest on, and what they do not: one row per seed, their mean with
 * its interval over prompts and, for two seeds or more, over seeds (Student). */
void controls_table(Str *out, const char *const *title, const Json *const *compare, int n);

#endif
