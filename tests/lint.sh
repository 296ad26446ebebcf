#!/bin/sh
# lint.sh - the rules of the source tree that a compiler does not check. One pass of awk over all
# sources, a few greps, a second. Prints every violation and `lint: N passed, N failed`.
# usage: tests/lint.sh [ROOT]   (another root is for tests/e2e/test_infrastructure.sh)
cd "${1:-$(dirname "$0")/..}" || exit 1
LC_ALL=C; export LC_ALL
passed=0 failed=0

if [ "$(git rev-parse --show-toplevel 2>/dev/null)" = "$(pwd -P)" ]; then
    all=$(git ls-files -co --exclude-standard | while read -r f; do [ -f "$f" ] && echo "$f"; done)
else
    all=$(find . -path ./build -prune -o -path ./runs -prune -o -path ./.git -prune -o -type f -print | sed 's|^\./||')
fi
sources=$(echo "$all" | grep -E '\.(c|h|cu|cpp)$')

# rule NAME VIOLATIONS: passes when there are none
rule() {
    if [ -z "$2" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "$2" | sed "s|^|lint: $1: |"
    fi
}

# one line per violation: RULE<tab>FILE:LINE: text
# shellcheck disable=SC2086  # file names of this project have no blanks
found=$(awk '
    function say(rule, text) { printf "%s\t%s:%d: %s\n", rule, FILENAME, FNR, text }
    # where a file stands: common/base -> 0 ... programs -> 7, tests -> 8
    function layer(path, p) {
        split(path, p, "/")
        if (p[1] == "common") return p[2] in order ? order[p[2]] : -1
        if (p[1] == "tests") return 8
        return (p[1] in program) ? 7 : -1
    }
    function end_of_file() {
        if (last == "") return
        if (lines > 1000) printf "size\t%s: %d lines, the limit is 1000: split it\n", last, lines
        else if (lines > 500) printf "warn\t%s: %d lines, aim at 500\n", last, lines
        if (last ~ /(^|\/)main\.c$/ && lines > 30) printf "main\t%s: %d lines, a main.c has at most 30\n", last, lines
    }
    BEGIN {
        n = split("base runtime text data model train generate", names, " ")
        for (i = 1; i <= n; i++) order[names[i]] = i - 1
        program["rlhf"]; program["reward"]; program["rejection"]; program["ppo"]
    }
    FNR == 1 { end_of_file(); last = FILENAME; mine = layer(FILENAME); split(FILENAME, part, "/"); in_tests = part[1] == "tests" }
    { lines = FNR }
    /\t/ { say("tabs", "a tab; indent with 4 spaces") }
    length($0) > 120 { say("warn", length($0) " columns, aim at 100") }
    /(^|[^A-Za-z_])(TOD[O]|FIXM[E]|XX[X])([^A-Za-z_]|$)/ { say("todo", "an open end; finish it or write an issue") }
    /^[ ]*#[ ]*include[ ]*"/ {
        path = $0; sub(/^[^"]*"/, "", path); sub(/".*/, "", path)
        split(path, to, "/")
        target = layer(path)
        if (path == "emu.h" && FILENAME == "common/runtime/cuda/cuda_shim.h") next # tests/emu instead of CUDA
        if (target < 0) { say("include-form", "\"" path "\": written from the root, as \"common/base/error.h\""); next }
        if (in_tests) next
        if (target == 8) say("include-direction", "\"" path "\": nothing includes tests/")
        else if (mine == 7 && target == 7) {
            if (to[1] != part[1] && !(path == "reward/reward_model.h" && (part[1] == "rejection" || part[1] == "ppo")))
                say("include-direction", "\"" path "\": program folders do not include each other")
        } else if (target > mine)
            say("include-direction", "\"" path "\": includes go down only: base, runtime, text, data, model, train, generate, programs")
    }
    /#[ ]*pragma[ ]+omp|pthread_|<pthread.h>|<threads.h>|thrd_create/ {
        if (FILENAME != "common/runtime/thread.c" && !in_tests &&
            !(FILENAME == "common/base/log.c" && /pthread.h|pthread_mutex|PTHREAD_MUTEX/))
            say("threads", "threads live in common/runtime/thread.c (log.c may hold a mutex)")
    }
    /(^|[^A-Za-z_])(secure_)?getenv[ ]*\(/ {
        if (FILENAME !~ /^common\/base\/log\.c$|^common\/runtime\/comm\/comm\.c$/ && !in_tests)
            say("getenv", "the environment is read in log.c and comm.c only; make it a config key")
    }
    END { end_of_file() }
' $sources </dev/null)

for r in include-form include-direction size main tabs todo threads getenv; do
    rule "$r" "$(echo "$found" | awk -F '\t' -v r="$r" '$1 == r { print $2 }')"
done
warnings=$(echo "$found" | awk -F '\t' '$1 == "warn"' | wc -l)
[ -z "${VERBOSE:-}" ] || echo "$found" | awk -F '\t' '$1 == "warn" { print "lint: warning: " $2 }'

# every op of OPS has a CPU body and a test
ops=$(awk '/^#define OPS\(X\)/ { on = 1 } on { print } on && !/\\$/ { exit }' common/runtime/ops.h 2>/dev/null |
      grep -oE 'X\([a-z0-9_]+\)' | sed 's/X(//; s/)//')
bodies=$(grep -ohE 'CPU_OP\([a-z0-9_]+\)' common/runtime/cpu/*.c 2>/dev/null | sed 's/.*(//; s/)//' | sort -u)
tests=$(grep -ohE '^bool test_[a-z0-9_]+\(' tests/ops/*.c 2>/dev/null | sed 's/.*test_//; s/(//' | sort -u)
rule ops-list "$([ -n "$ops" ] || echo 'common/runtime/ops.h: no OPS(X) list found')"
lacking() { # WHAT NAMES: the ops that are not among the names, on one line
    gone=$(for op in $ops; do echo "$2" | grep -qx "$op" || printf ' %s' "$op"; done)
    [ -z "$gone" ] || echo "no $1 of$gone"
}
rule ops-body "$(lacking 'CPU_OP(...) in common/runtime/cpu' "$bodies")"
kernels=$(grep -ohE '^(extern "C" )?void cuda_[a-z0-9_]+\(' common/runtime/cuda/*.cu 2>/dev/null | sed 's/.*cuda_//; s/(//' | sort -u)
rule ops-kernel "$(lacking 'cuda_... in common/runtime/cuda' "$kernels")"
rule ops-test "$(lacking 'test_... in tests/ops' "$tests")"

# kernels (cuda_shim.h has the rules). text BUT PATTERN: lines of them that match outside comments and strings,
# in files whose names do not match BUT
cuda=$(echo "$all" | grep -E '\.cu$|^common/runtime/cuda/.*\.h$')
text() {
    echo "$cuda" | grep -vE "$1" | xargs awk -v pattern="$2" '
        FNR == 1 { inside = 0 }
        { line = $0; gsub(/"[^"]*"/, "\"\"", line)
          if (inside) { if (!sub(/^.*\*\//, "", line)) next; inside = 0 }
          gsub(/\/\*([^*]|\*[^\/])*\*\//, "", line); sub(/\/\/.*/, "", line)
          if (sub(/\/\*.*/, "", line)) inside = 1 }
        line ~ pattern { printf "%s:%d: %s\n", FILENAME, FNR, $0 }' /dev/null
}
none='^$' shim='common/runtime/cuda/cuda_shim\.h$'
rule cuda-include "$(echo "$sources" | grep -vE "$shim" | xargs grep -nE '^ *# *include *[<"](cuda|cublas|nccl|cooperative|thrust|cub/)[a-z_/]*\.h' /dev/null)"
rule cuda-launch "$(text "$shim" '<<<|cudaLaunchKernel')"
rule cuda-asm "$(text '(^|/)ptx\.h$' '(^|[^a-z_])(asm|__asm__)([^a-z_]|$)')"
rule cuda-dialect "$(text "$none" '(^|[^a-zA-Z_])(std::|(template|class|new|delete|virtual|throw|catch)([^a-zA-Z_]|$))|\[[&=]?\] *\(')"
rule cuda-shared "$(text "$shim" 'extern +__shared__')"
rule cuda-atomics "$(text "$none" 'atomic[A-Z][A-Za-z]*\(.*(float|double|[0-9]\.[0-9]*f)')"
rule cuda-masks "$(text "$none" '__(shfl|ballot|any|all)(_up|_down|_xor)? *\(|__activemask')"
rule cuda-libm "$(text "$none" '(^|[^a-zA-Z_])(__expf|__logf|expf?|logf?|exp2f?|log2f?|powf?|tanhf?|sinf?|cosf?|rsqrtf?) *\(')"

# a folder of sources says what lives in it, or its parent does
rule readme "$(echo "$sources" | sed 's|/[^/]*$||' | sort -u | while read -r d; do
    [ -z "$d" ] || [ -f "$d/README.md" ] || { case $d in */*/*|rlhf/*|tests/*) [ -f "${d%/*}/README.md" ];; *) false;; esac; } ||
        echo "$d: no README.md"
done)"

# no paths of somebody's machine; the brackets keep this line from finding itself
rule machine-paths "$(echo "$all" | grep -vE '\.(gz|zst|png|safetensors|bin)$' | xargs grep -nE '(^|[^A-Za-z0-9_.}$/*])/(wor[k]|hom[e]/[a-z]+|tmp/w[t])/' /dev/null | head -20)"
rule scripts "$(echo "$all" | grep -E '\.sh$|^\.ci/run$' | while read -r f; do
    case $(head -n 1 "$f") in "#!/bin/sh"*) sh=sh;; *) sh=bash;; esac # a file to be sourced has no such line
    $sh -n "$f" 2>&1 | head -n 1
done)"

[ "$warnings" = 0 ] || echo "lint: $warnings warnings (VERBOSE=1 shows them)"
echo "lint: $passed passed, $failed failed"
[ "$failed" = 0 ]
