#!/bin/sh
# same.sh - test_exact in two builds, of two compilers: every family passes in both, and they print the
# same lines, hashes of all results included; so do the hashes of test_hashes.
#   tests/exact/same.sh BUILD BUILD [ARGUMENTS of test_exact...]
set -u
a=$1 b=$2; shift 2
TMP=${TMP:-$(mktemp -d)}
passed=0 failed=0

check() { # NAME COMMAND...
    name=$1; shift
    if "$@"; then passed=$((passed + 1)); echo "ok $name"; else failed=$((failed + 1)); echo "not ok $name"; fi
}

for build in "$a" "$b"; do
    out=$TMP/$(echo "$build" | tr / _)
    "$build/tests/test_exact" "$@" >"$out"; rc=$?
    cat "$out"
    check "every family in ${build##*/}" [ $rc = 0 ]
    "$build/tests/test_hashes" print >>"$out"
done
check "both print the same" cmp "$TMP/$(echo "$a" | tr / _)" "$TMP/$(echo "$b" | tr / _)"
echo "$passed passed, $failed failed, 0 skipped"
[ $failed = 0 ]
