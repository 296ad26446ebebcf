#!/bin/sh
# run.sh BUILD - what `make demo` does: the round of configs/demo.yaml in BUILD/demo, then where to look.
# SEED=n picks another world, other weights and other draws; DTYPE=bf16 multiplies in bf16. Done stages are kept: `make demo` again goes
# on where it stopped, or shows the table of a finished run.
set -eu
BUILD=${1:-build} SEED=${SEED:-1} DTYPE=${DTYPE:-f32}
root=$BUILD/demo; [ "$SEED" = 1 ] || root=$BUILD/demo-seed$SEED
[ "$DTYPE" = f32 ] || root=$root-$DTYPE
start=$(date +%s)
"$BUILD/bin/rlhf" run configs/demo.yaml root="$root" vars.seed="$SEED" vars.dtype="$DTYPE"
# a finished run made before shows its table again; a new one has just printed it
[ "$(stat -c %Y "$root/evaluate/table.txt")" -ge "$start" ] || cat "$root/evaluate/table.txt"
echo
echo "made in $(($(date +%s) - start)) s.  Report: $root/report/report.html   numbers: $root/evaluate/demo.json"
echo "every answer with its scores: $root/evaluate/generations.jsonl"
