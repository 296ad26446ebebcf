#!/bin/sh
# run.sh - seeded bugs: every NAME.patch of this folder breaks one rule of the method, and the test that its
# first line names must fail. Works on a scratch copy of the tree; the real one is never touched.
#   tests/mutants/run.sh               all of them; with SAMPLE=N only N, others for every commit
#   tests/mutants/run.sh NAME...       these
# BUILD names a finished build, which is taken over so that only changed files are compiled.
# Prints `ok NAME: killed by TEST` or `not ok NAME: why` for each and `N passed, N failed, N skipped` last.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
base=$(mktemp -d "${TMP:-${TMPDIR:-/tmp}}/mutants.XXXXXX") || exit 1
trap 'rm -rf "$base"' EXIT
trap 'exit 130' INT TERM
tree=$base/tree log=$base/log
passed=0 failed=0

# ---- a copy of the sources, and of the objects with their times
build=${BUILD:-build}
build=${build#"$root"/}
mkdir "$tree" || exit 1
tar -C "$root" --exclude='./.git' --exclude='./build*' --exclude='./runs' -cf - . | tar -C "$tree" -xf -
case $build in
/*) build=build ;; # made elsewhere: its dependencies are noted under other names
*)
    if [ -d "$root/$build/common" ]; then
        mkdir -p "$tree/$build/tests"
        tar -C "$root/$build" -cf - common rlhf reward rejection ppo flags librlhf.a | tar -C "$tree/$build" -xf -
        ! [ -d "$root/$build/tests" ] ||
            tar -C "$root/$build" --exclude='tests/test_*' -cf - tests | tar -C "$tree/$build" -xf -
        ! [ -d "$root/$build/emu/common" ] ||
            tar -C "$root/$build" -cf - emu/common emu/flags emu/tests/emu | tar -C "$tree/$build" -xf -
        # what was compiled with -Werror serves those that may warn
        for flags in "$tree/$build/flags" "$tree/$build/emu/flags"; do
            [ ! -f "$flags" ] || { sed 's/-Werror//' "$flags" >"$log" && touch -r "$flags" "$log" && cp -p "$log" "$flags"; }
        done
    fi ;;
esac
# git must not take a repository around the copy for the tree
GIT_CEILING_DIRECTORIES=$base
export GIT_CEILING_DIRECTORIES
unset GIT_DIR GIT_WORK_TREE

cd "$tree" || exit 1

# killer NAME: what stands behind `# kills:`, a test program of BUILD/tests and its arguments
killer() { sed -n '1s/^# kills: //p' "$here/$1.patch"; }

# where a test stands; of emu/test_X, which runs the kernels on the host shim (tests/emu), in the shim's build
path() { case $1 in emu/*) echo "$build/emu/tests/${1#emu/}" ;; *) echo "$build/tests/$1" ;; esac; }

make_test() {
    library=; case $1 in emu/*) library=$build/emu/bin/librlhf_cuda.so ;; esac
    # shellcheck disable=SC2086  # nothing or one word
    env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make -s -j"${JOBS:-2}" BUILD="$build" "$(path "$1")" $library >"$log" 2>&1
}

# run_test NAME ARGUMENTS...
run_test() {
    test=$1; shift
    timeout -k 5 "${TIMEOUT:-100}" "$(path "$test")" "$@" >"$log" 2>&1 </dev/null
}

not_ok() {
    failed=$((failed + 1))
    echo "not ok $1: $2"
    tail -n 5 "$log" | sed 's/^/# /'
}

# ---- which ones
every=$(cd "$here" && ls ./*.patch | sed 's|^\./||; s|\.patch$||')
if [ $# -gt 0 ]; then
    names=$*
elif [ -n "${SAMPLE:-}" ]; then
    seed=$(git -C "$root" rev-parse HEAD 2>/dev/null || echo none)
    names=$(for n in $every; do echo "$(printf '%s' "$seed $n" | md5sum | cut -c1-8) $n"; done | sort | head -n "$SAMPLE" | cut -d' ' -f2)
else
    names=$every
fi
for name in $every; do # the others too are to be of use when their turn comes
    git apply --check "$here/$name.patch" >"$log" 2>&1 || not_ok "$name" "patch does not apply"
done

# ---- a test that fails anyway would kill everything
for test in $(for n in $names; do killer "$n" | sed 's/ .*//'; done | sort -u); do
    # shellcheck disable=SC2086  # the arguments of the first bug that names this test
    set -- $(for n in $names; do killer "$n"; done | grep "^$test\( \|\$\)" | head -n 1)
    if ! make_test "$test"; then
        not_ok "$test without a bug" "does not build"
    elif ! run_test "$@"; then
        not_ok "$test without a bug" "fails"
    else
        passed=$((passed + 1))
        echo "ok $test without a bug"
        continue
    fi
    echo "$passed passed, $failed failed, 0 skipped"
    exit 1
done

for name in $names; do
    command=$(killer "$name")
    git apply "$here/$name.patch" >"$log" 2>&1 || continue # counted above
    # shellcheck disable=SC2086  # words
    if ! make_test "${command%% *}"; then
        not_ok "$name" "does not build"
    elif run_test $command; then
        not_ok "$name" "survived $command"
    else
        passed=$((passed + 1))
        echo "ok $name: killed by $command ($(grep -aoE '[a-z_./]*test_[a-z_]+\.c:[0-9]+: error|^FAIL .*' "$log" | head -n 1))"
    fi
    git apply -R "$here/$name.patch" || exit 1
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
