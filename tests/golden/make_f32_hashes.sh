#!/bin/sh
# make_f32_hashes.sh - made f32_hashes.txt: builds tests/unit/test_hashes.c against the commit that ended
# the first round, and prints what it prints. Some calls had another form then and are edited into it.
#   sh tests/golden/make_f32_hashes.sh [COMMIT] > tests/golden/f32_hashes.txt
set -eu
commit=${1:-3fbdb9c}
root=$(cd "$(dirname "$0")/../.." && pwd)
tree=$(mktemp -d)/first
trap 'git -C "$root" worktree remove --force "$tree"' EXIT
git -C "$root" worktree add --quiet --detach "$tree" "$commit"
sed -e 's/\(op_linear_dw(.*\), DTYPE_REAL, /\1, /' -e 's/\(op_logprob(.*\)&hit, /\1/' -e 's/\(op_adamw(.*\)NULL, /\1/' \
    -e 's/{\.isa = isa, /{/' \
    -e 's/&keys, &inv)/\&keys, inv_temp[i])/' -e 's/ISA_COUNT/ISA_AVX512 + 1/' -e 's/\(&rstd, &start\), 1)/\1)/' "$root/tests/unit/test_hashes.c" >"$tree/tests/unit/test_hashes.c"
make -s -C "$tree" build/tests/test_hashes >&2
echo "# f32 results of commit $(git -C "$root" rev-parse --short=9 "$commit"), which ended the first round: test_hashes print, by make_f32_hashes.sh."
echo "# ops and models of tests/unit/test_hashes.c; gcc $(gcc -dumpfullversion), $(uname -m). Later ops have no line here."
"$tree/build/tests/test_hashes" print
