#!/bin/sh
# run.sh - runs the tests and adds them up; see tests/README.md for the tiers.
#   tests/run.sh test BUILD        what is built in BUILD, and the end-to-end scripts
#   tests/run.sh check BUILD       sanitizers, both compilers with -Werror, full counts, seeded bugs, kernels
#   tests/run.sh check-emu BUILD   the CUDA kernels alone, on the CPU
#   tests/run.sh check-long BUILD  the same with LONG=1; adds a line to tests/RECORD.md
#
# Every test is a job with a time limit that leaves three counts in a file; two jobs run at a time.
# The very last line is `N passed, N failed, N skipped`; the exit status is 0 only without failures.
# A test that crashes, runs out of time or prints no summary counts as one failed.
set -u
self=$0
ROOT=$(cd "$(dirname "$0")/.." && pwd)
JOBS=${JOBS:-2}

now() { date +%s.%N; }
seconds() { echo "$1 $(now)" | awk '{ printf "%.1f", $2 - $1 }'; }

# ---- one job: run.sh job NAME LIMIT COMMAND...   (SCRATCH, BUILD in the environment)

# COUNTS of the log as "passed failed skipped", or nothing when there is no summary. Either a last line
# `N passed, N failed[, N skipped]`, or the summaries of cmocka's groups.
read_counts() {
    tail -n 1 "$1" | sed -nE 's/^(lint: )?([0-9]+) passed, ([0-9]+) failed(, ([0-9]+) skipped)?$/\2 \3 \5/p' |
        awk '{ print $1, $2, $3 + 0; found = 1 } END { exit !found }' && return
    awk '/^\[  (PASSED|FAILED|SKIPPED) ? ?\] [0-9]+ test\(s\)/ { gsub(/[][]/, ""); n[$1] += $2; found = 1 }
         END { if (found) print n["PASSED"] + 0, n["FAILED"] + 0, n["SKIPPED"] + 0 }' "$1"
}

job() {
    name=$1 limit=$2; shift 2
    id=$(echo "$name" | tr -c 'A-Za-z0-9\n' '_')
    log=$SCRATCH/$id.log start=$(now)
    TMP=$SCRATCH/tmp_$id; export TMP; mkdir -p "$TMP"
    timeout -k 10 "$limit" "$@" >"$log" 2>&1 </dev/null
    status=$? why=
    counts=$(read_counts "$log")
    if [ -z "$counts" ]; then
        counts="0 1 0" why=" (no summary, exit $status)"
    elif [ $status != 0 ] && [ "$(echo "$counts" | cut -d' ' -f2)" = 0 ]; then
        counts=$(echo "$counts" | awk '{ print $1, 1, $3 }') why=" (exit $status)"
    fi
    [ $status != 124 ] && [ $status != 137 ] || why=" (stopped after $limit s)"
    echo "$counts" >"$SCRATCH/$id.counts"
    {
        # shellcheck disable=SC2086  # three words
        set -- $counts
        word=ok; [ "$2" = 0 ] || word=FAILED
        printf '%-7s %-44s %5d passed %3d failed %3d skipped %7s s%s\n' "$word" "$name" "$1" "$2" "$3" "$(seconds "$start")" "$why"
        if [ "$2" != 0 ]; then
            tail -n "${SHOW_LINES:-60}" "$log" | sed 's/^/    | /'
        else
            grep -E '^(skip|device code:) ?' "$log" | sed 's/^/        /'
            rm -rf "$TMP"
        fi
    } >"$SCRATCH/$id.line"
    flock "$SCRATCH/lock" cat "$SCRATCH/$id.line"
}

if [ "${1:-}" = job ]; then
    shift
    job "$@"
    exit 0
fi

# ---- lists of jobs: one a line, "NAME LIMIT COMMAND..."

# The longest first, so that the last to end has no core to itself.
LONGEST='mutants emu_programs sanitized_test_ops test_real.sh emu_lines emu_test_generate exact test_sft.sh
         sanitized_test_hashes emu_test_units emu_sanitized_ops_random:3 emu_races_test_faults sanitized_test_exact'
run_jobs() {
    awk -v longest="$LONGEST" 'BEGIN { n = split(longest, name); for (i = 1; i <= n; i++) place[name[i]] = i }
        { print ($1 in place ? place[$1] : n + 1), $0 }' | sort -s -n -k1,1 | cut -d' ' -f2- |
        xargs -P "$JOBS" -I '{}' sh -c "exec sh '$self' job {}"
}

# What check runs when everything is built: in one list, both cores have work to the end.
later() { cat >>"$SCRATCH/jobs"; }

# binaries PREFIX LIMIT: the test programs of BUILD
binaries() {
    for t in "$BUILD"/tests/test_*; do
        [ -x "$t" ] && [ -f "$t" ] || continue
        case ${t##*/} in
        test_ops) echo "$1${t##*/} $(($2 * 3)) $t test" ;;
        test_grad) echo "$1${t##*/} $(($2 * 3)) $t grad" ;;
        *) echo "$1${t##*/} $2 env BUILD=$BUILD $t" ;;
        esac
    done
}

# The fuzz targets of BUILD, 10 seconds each (LONG: an hour); FUZZ_SEED draws other inputs.
fuzz_jobs() {
    seconds=10; [ -z "${LONG:-}" ] || seconds=3600
    for t in "$BUILD"/tests/fuzz_*; do
        [ -x "$t" ] && [ -f "$t" ] && echo "${t##*/} $((seconds * 2 + 60)) $t $seconds ${FUZZ_SEED:-1}"
    done
}

scripts() { # PREFIX LIMIT
    for t in "${E2E_DIR:-tests/e2e}"/test_*.sh; do
        [ -x "$t" ] && echo "$1${t##*/} $2 env BUILD=$BUILD $t"
    done
}

# build NAME MAKE-ARGUMENTS...: counts as one test
build() {
    name=$1 start=$(now); shift
    id=build_$(echo "$name" | tr -c 'A-Za-z0-9\n' '_')
    # the caller's make hands down its own variables, which must not leak into this build
    if env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make -s -j"$JOBS" "$@" >"$SCRATCH/$id.log" 2>&1; then
        echo "1 0 0" >"$SCRATCH/$id.counts"
        printf '%-7s %-44s %49s s\n' ok "build $name" "$(seconds "$start")"
        return 0
    fi
    echo "0 1 0" >"$SCRATCH/$id.counts"
    printf '%-7s %-44s %49s s\n' FAILED "build $name" "$(seconds "$start")"
    grep -E 'error|warning|undefined|\*\*\*' "$SCRATCH/$id.log" | head -n 30 | sed 's/^/    | /'
    return 1
}

run_test() {
    limit=${TIMEOUT:-100}
    { echo "lint 20 sh ${LINT:-tests/lint.sh}"; binaries '' "$limit"; scripts '' "$limit"; } | run_jobs
}

# The real thing compiles for every architecture and spills no register; e2e finds it beside the programs.
run_cuda() {
    if make -s config | grep -q 'cuda=no'; then
        echo "skip    build cuda: there is no nvcc"
        echo "0 0 1" >"$SCRATCH/build_cuda.counts"
        return
    fi
    rm -rf build/cuda
    if build "cuda" CUDA=1 RESOURCES=1 BUILD=build/cuda build/cuda/bin/librlhf_cuda.so; then
        cp -p build/cuda/bin/librlhf_cuda.so "$BUILD/bin/"
        echo "cuda_resources 60 sh tests/gpu/resources.sh $SCRATCH/build_cuda.log build/cuda/bin/librlhf_cuda.so" | later
    fi
}

# Equal bits in random cases, of gcc's build and of clang's; with LONG the full counts.
exact_job() { # LIMIT GCC-BUILD
    counts="-n 30"
    [ -z "${LONG:-}" ] || counts="-n 2000 -t 1000000"
    [ ! -x "$ROOT/build/clang/tests/test_exact" ] || echo "exact $1 tests/exact/same.sh $2 $ROOT/build/clang $counts"
}

run_check() {
    limit=${TIMEOUT:-400}
    [ -z "${LONG:-}" ] || limit=${TIMEOUT:-14400}
    CHECK=1 WERROR=1; export CHECK WERROR # of every build, so that none compiles again what another has
    build "gcc -Werror" CC=gcc CUDA=0 BUILD="$given" all tests || return
    if command -v clang >/dev/null; then
        build "clang -Werror" CC=clang CUDA=0 BUILD=build/clang all tests
    else
        echo "skip    build clang: clang is not installed"
        echo "0 0 1" >"$SCRATCH/build_clang.counts"
    fi
    if build "address,undefined" SAN=address,undefined CUDA=0 all tests; then
        plain=$BUILD
        BUILD=$ROOT/build/san-address-undefined
        { exact_job "$limit" "$plain"; binaries sanitized_ "$limit"; fuzz_jobs; } | later
        [ -z "${LONG:-}" ] || scripts sanitized_ "$limit" | later
        BUILD=$plain
    fi
    { [ ! -f tests/mutants/run.sh ] || echo "mutants $((limit * 2)) env -u WERROR SAMPLE=$([ -n "${LONG:-}" ] || echo 14) sh tests/mutants/run.sh"
      scripts '' "$limit"; } | later
    run_cuda
    run_emu
}

# The CUDA kernels on the CPU (tests/emu): every op in several orders of threads and blocks, under
# address and undefined sanitizers, under the race checker (an op a job: switches are slow there),
# planted faults in each build, and the lines that all this runs.
emu_own() { # PREFIX DIR LIMIT
    for t in test_emu test_faults test_cuda; do
        echo "$1$t $3 $2/tests/$t"
    done
}

emu_ops() { # PREFIX DIR LIMIT EVERY ORDER...
    prefix=$1 dir=$2 long=$3 every=$4; shift 4
    for order in "$@"; do
        echo "${prefix}ops_$order $long env EMU_ORDER=$order $dir/tests/test_ops -b cuda -e $every test"
    done
}

run_emu() {
    limit=${TIMEOUT:-400}
    lines=
    build "emu lines" BUILD="$given" COV=1 emu-tests && lines="emu_lines $limit tests/emu/coverage.sh $BUILD" # forward
    if build "emu" BUILD="$given" emu emu-tests; then
        { [ -z "$lines" ] || echo "$lines"
          emu_own emu_ "$BUILD/emu" "$limit"
          echo "emu_test_generate $limit env EMU_PROTECT=1 $BUILD/emu/tests/test_generate"
          echo "emu_test_units $limit env EMU_PROTECT=1 $BUILD/emu/tests/test_units"
          echo "emu_protected_test_cuda $limit env EMU_PROTECT=1 $BUILD/emu/tests/test_cuda"
          emu_ops emu_ "$BUILD/emu" "$limit" 1 reverse ${LONG:+random:1 random:2}
          echo "emu_programs $limit env BUILD=$BUILD/emu tests/e2e/test_cuda.sh"; } | later
    fi
    if build "emu address,undefined" SAN=address,undefined emu-tests; then
        dir=$ROOT/build/san-address-undefined/emu
        { emu_own emu_sanitized_ "$dir" "$limit"; emu_ops emu_sanitized_ "$dir" "$limit" "$([ -n "${LONG:-}" ] && echo 1 || echo 3)" random:3; } | later
    fi
    if build "emu races" BUILD="$given" RACES=1 emu-tests; then
        dir=$BUILD/emu-races
        { emu_own emu_races_ "$dir" "$limit"
          # the large ones: one variant in five, all of them with LONG
          "$dir/tests/test_ops" list | awk -v dir="$dir" -v limit="$limit" -v long="${LONG:-}" '/ cpu: / {
              every = $1 ~ /^(attention|linear)/ && long == "" ? 5 : 1
              print "emu_races_" $1, limit, dir "/tests/test_ops -b cuda -e", every, "-o", $1, "test" }'; } | later
    fi
}

# ---- a whole run

mode=${1:-} BUILD=${2:-build}
case $mode in
test|check|check-emu) ;;
check-long) LONG=1; export LONG ;;
*) echo "usage: tests/run.sh test|check|check-emu|check-long [BUILD]" >&2; exit 2 ;;
esac
case $self in /*) ;; *) self=$(pwd)/$self ;; esac
cd "$ROOT" || exit 1
given=$BUILD # make keeps its dependencies under the name it was given
case $BUILD in /*) ;; *) BUILD=$ROOT/$BUILD ;; esac
SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/rlhf-test.XXXXXX") || exit 1
trap 'rm -rf "$SCRATCH"' EXIT
trap 'exit 130' INT TERM
ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:detect_stack_use_after_return=1}
UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
export SCRATCH BUILD ASAN_OPTIONS UBSAN_OPTIONS
begin=$(now)
case $mode in
test) run_test ;;
check-emu) run_emu ;;
*) run_check ;;
esac
[ ! -f "$SCRATCH/jobs" ] || run_jobs <"$SCRATCH/jobs"

total=$(cat "$SCRATCH"/*.counts 2>/dev/null | awk '{ p += $1; f += $2; s += $3 } END { print p + 0, f + 0, s + 0 }')
# shellcheck disable=SC2086  # three words
set -- $total
if [ "$mode" = check-long ]; then
    [ -f tests/RECORD.md ] || printf '# Runs of make check-long\n\n| date | commit | passed | failed | skipped | hours |\n|---|---|---|---|---|---|\n' >tests/RECORD.md
    echo "| $(date -u +%Y-%m-%d) | $(git rev-parse --short=9 HEAD 2>/dev/null || echo unknown) | $1 | $2 | $3 | $(seconds "$begin" | awk '{ printf "%.1f", $1 / 3600 }') |" >>tests/RECORD.md
fi
echo "$mode took $(seconds "$begin") s"
echo "$1 passed, $2 failed, $3 skipped"
[ "$2" = 0 ] && [ "$1" != 0 ]
