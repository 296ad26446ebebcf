#!/bin/sh
# coverage.sh BUILD - how many lines of common/runtime/cuda the tests of ops and test_cuda run, on the shim
# built with COV=1. Prints "device code: N of M lines, P %"; fails below 90, naming the lines not run.
set -u
EMU=$1/emu-cov GCOV=${GCOV:-gcov} TMP=${TMP:-/tmp} LEAST=90
find "$EMU" -name '*.gcda' -delete
for t in "$EMU/tests/test_ops -b cuda test" "$EMU/tests/test_cuda"; do
    # shellcheck disable=SC2086  # a command and its arguments
    $t >"$TMP/coverage.log" 2>&1 || { tail -n 20 "$TMP/coverage.log"; echo "0 passed, 1 failed"; exit 1; }
done

# "count: line: text"; count ##### when it was not run, - when there is no code. A header's lines come
# once an object, and a line counts as run when one of them ran it.
"$GCOV" -t -p "$EMU"/common/runtime/cuda/*.gcda 2>"$TMP/gcov.log" | awk -F: '
    $2 + 0 == 0 && $3 == "Source" { file = $4; wanted = file ~ /common\/runtime\/cuda\/[^\/]*$/; next }
    wanted && $2 + 0 > 0 {
        count = $1; gsub(/[ *]/, "", count)
        if (count == "-" || count == "") next
        line = file ":" $2 + 0
        run[line] = run[line] || count !~ /^[#=]/
    }
    END { for (line in run) print run[line], line }' | sort -t: -k1,1 -k2,2n >"$TMP/lines"
all=$(wc -l <"$TMP/lines") ran=$(grep -c '^1' "$TMP/lines")
percent=$(echo "$ran $all" | awk '{ printf "%.1f", $2 ? 100 * $1 / $2 : 0 }')
enough=$(echo "$percent $LEAST" | awk '{ print ($1 >= $2) }')
[ "$enough${VERBOSE:-}" = 1 ] || sed -n 's/^0/not run:/p' "$TMP/lines"
echo "device code: $ran of $all lines, $percent %"
[ "$enough" = 1 ] && echo "1 passed, 0 failed" || { echo "0 passed, 1 failed"; exit 1; }
