#!/bin/sh
# controls.sh BUILD - what `make demo-controls` does: the demo again, each time with one thing broken, and a rule
# for each; exits with 1 when a rule does not hold. Stages that a change does not touch are taken from BUILD/demo.
#   shuffled   annotators who say nothing about the answers   -> no gain
#   random     a random one of the K answers                  -> below rejection sampling
#   switch     no switch to the safety model                  -> more violations
#   beta0      no KL penalty                                  -> reward-model score up, gold down
#   unanchored no safety classification loss                  -> unsafe answers told apart worse; one safety model
#              for each of SEEDS, since what is broken there is left to chance
# JOBS of them run at a time, each on one thread. Made ones are kept: again, only the verdicts are printed.
set -eu
SEEDS=${SEEDS-1 2 3 4} JOBS=${JOBS:-$(nproc 2>/dev/null || echo 1)}

run() { # ROOT ARGUMENTS...: quietly; the end of the log when it fails
    root=$1; shift
    "$BUILD/bin/rlhf" run configs/demo.yaml root="$root" "$@" >>"$root.log" 2>&1 || { tail -n 5 "$root.log" >&2; exit 1; }
}
take() { # FROM TO PARTS...: a copy that is there only when it is whole
    from=$1 to=$2; shift 2
    [ ! -e "$to" ] || return 0
    rm -rf "$to.tmp"; mkdir "$to.tmp"
    for part in "$@"; do cp -r "$from/$part" "$to.tmp/"; done
    mv "$to.tmp" "$to"
}
seed_root() { [ "$1" = 1 ] && echo "$BUILD/demo" || echo "$BUILD/demo-seed$1"; }

unanchored() { # SEED
    with=$(seed_root "$1") without=$BUILD/demo-control-unanchored-seed$1
    for stage in world base sft answers-cool answers-warm pairs reward-safety; do
        run "$with" vars.seed="$1" --only "$stage"
    done
    take "$with" "$without" world sft pairs stages configs
    run "$without" vars.seed="$1" vars.safety_loss=0 --only reward-safety
    "$BUILD/bin/rlhf-reward" eval model="$without/reward-safety/export" compare="$with/reward-safety/export" \
        "data=[{path: $with/pairs/safety_test.jsonl}]" on_bad_row=skip template=plain max_length=64 threads=1 \
        out_dir="$without/eval" >"$without/eval.txt"
}
one() { # NAME VARIABLES...
    root=$BUILD/demo-control-$1; shift
    take "$BUILD/demo" "$root" $(ls "$BUILD/demo")
    run "$root" "$@"
}

if [ "${1:-}" = --one ]; then # a child of the xargs below
    BUILD=$2; shift 2
    echo "== $*"
    "$@"
    exit
fi
BUILD=${1:-build}
[ -e "$BUILD/demo/evaluate/demo.json" ] || sh rlhf/demo/run.sh "$BUILD"
{
    for seed in $SEEDS; do echo "unanchored $seed"; done
    echo "one shuffled vars.shuffle_labels=true"
    echo "one random vars.select=random"
    echo "one switch vars.switch=false"
    echo "one beta0 vars.kl_coef=0"
} | xargs -P "$JOBS" -L 1 sh "$0" --one "$BUILD"

set --
for name in shuffled random switch beta0; do
    printf '\n== %s\n' "$name"
    cat "$BUILD/demo-control-$name/evaluate/table.txt"
    set -- "$@" "$name=$BUILD/demo-control-$name/evaluate/demo.json"
done
list=
for seed in $SEEDS; do
    list="$list{title: seed $seed, path: $BUILD/demo-control-unanchored-seed$seed/eval/eval.json}, "
done
printf '\n== verdicts\n'
"$BUILD/bin/rlhf-demo" controls whole="$BUILD/demo/evaluate/demo.json" "$@" "unanchored=[$list]" out="$BUILD/demo-controls.txt"
