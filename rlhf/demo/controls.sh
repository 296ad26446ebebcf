#!/bin/sh
# controls.sh BUILD - what `make demo-controls` does: the demo again, each time with one thing broken.
# Stages that the change does not touch are taken from BUILD/demo, which must be there.
#   shuffled   annotators who say nothing about the answers   -> no gain
#   random     a random one of the K answers                  -> below rejection sampling
#   switch     no switch to the safety model                  -> more violations
#   beta0      no KL penalty                                  -> reward-model score up, gold down
#   unanchored no safety classification loss                  -> worse recall of unsafe answers
set -eu
BUILD=${1:-build}
[ -e "$BUILD/demo/evaluate/demo.json" ] || sh rlhf/demo/run.sh "$BUILD"
one() { # NAME FIRST-STAGE-THAT-CHANGES VARIABLES...
    name=$1 root=$BUILD/demo-control-$1; shift
    if [ ! -e "$root" ]; then
        cp -r "$BUILD/demo" "$root.tmp"
        mv "$root.tmp" "$root"
    fi
    echo "== control: $name ($*)"
    "$BUILD/bin/rlhf" run configs/demo.yaml root="$root" "$@" >"$root.log" 2>&1 || { tail -n 5 "$root.log"; exit 1; }
    cat "$root/evaluate/table.txt"
    echo
}
one shuffled vars.shuffle_labels=true
one random vars.select=random
one switch vars.switch=false
one beta0 vars.kl_coef=0
one unanchored vars.safety_loss=0 vars.allow_unanchored=true
