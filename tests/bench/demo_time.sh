#!/bin/sh
# demo_time.sh - seconds of `make demo` at two commits: both are built in scratch folders and run in turn
# (A B, B A, A B, ...), so that a neighbour or a warm machine weighs on both alike. Prints every run, the
# medians, and the median of the ratios of pairs. The demo's configuration is each commit's own.
#   tests/bench/demo_time.sh COMMIT COMMIT [PAIRS]     (3; THREADS of the demo are its own)
# Wall time, and the CPU time of the whole run, which a busy machine stretches less.
set -eu
[ $# -ge 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
root=$(cd "$(dirname "$0")/../.." && pwd)
a=$(git -C "$root" rev-parse --verify --short=9 "$1^{commit}")
b=$(git -C "$root" rev-parse --verify --short=9 "$2^{commit}")
pairs=${3:-3}
base=$(mktemp -d "${TMPDIR:-/tmp}/demo_time.XXXXXX")
cleanup() {
    for side in a b; do git -C "$root" worktree remove --force "$base/$side" 2>/dev/null || true; done
    rm -rf "$base"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

for side in a b; do
    [ $side = a ] && commit=$a || commit=$b
    git -C "$root" worktree add --quiet --detach "$base/$side" "$commit"
    ln -s "$root/../shared" "$base/shared" 2>/dev/null || true
    make -s -C "$base/$side" -j"$(nproc)" CUDA=0 all >"$base/build.log" 2>&1 || { tail -n 5 "$base/build.log" >&2; exit 1; }
done

# run SIDE: "wall cpu" of one demo from nothing
run() {
    rm -rf "$base/$1/build/demo"
    (cd "$base/$1" && bash -c 'TIMEFORMAT="%R %U %S"; time make -s demo >../demo.log 2>&1') 2>"$base/time" ||
        { tail -n 5 "$base/demo.log" >&2; exit 1; }
    awk '{ printf "%.1f %.1f\n", $1, $2 + $3 }' "$base/time"
}

: >"$base/times"
pair=1
while [ "$pair" -le "$pairs" ]; do
    [ $((pair % 2)) = 1 ] && order="a b" || order="b a"
    for side in $order; do
        [ $side = a ] && commit=$a || commit=$b
        seconds=$(run $side)
        echo "$pair $side $seconds" >>"$base/times"
        echo "pair $pair: $commit takes $seconds s (wall, CPU)"
    done
    pair=$((pair + 1))
done
awk -v a="$a" -v b="$b" '
    function median(x, n,  i, k, t) {
        for (i = 2; i <= n; i++) { t = x[i]; for (k = i - 1; k >= 1 && x[k] > t; k--) x[k + 1] = x[k]; x[k + 1] = t }
        return n % 2 ? x[(n + 1) / 2] : (x[n / 2] + x[n / 2 + 1]) / 2
    }
    { wall[$2, $1] = $3; cpu[$2, $1] = $4; if ($1 > n) n = $1 }
    END {
        for (i = 1; i <= n; i++) {
            wa[i] = wall["a", i]; wb[i] = wall["b", i]; ca[i] = cpu["a", i]; cb[i] = cpu["b", i]
            rw[i] = wa[i] / wb[i]; rc[i] = ca[i] / cb[i]
        }
        printf "%s: median %.1f s wall, %.1f s CPU; %s: %.1f s wall, %.1f s CPU\n", a, median(wa, n), median(ca, n), b, median(wb, n), median(cb, n)
        printf "%s is %.2f times as fast by the wall, %.2f times by CPU time (medians of %d pairs)\n", b, median(rw, n), median(rc, n), n
    }' "$base/times"
