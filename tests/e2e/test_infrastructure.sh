#!/bin/bash
# test_infrastructure.sh - the tests' own tools: lint finds each planted violation, run.sh counts each way
# in which a test can end.
set -u
cd "$(dirname "$0")/../.." || exit 1
TMP=${TMP:-$(mktemp -d)}
mkdir -p "$TMP"
passed=0 failed=0
expect() { # NAME PATTERN TEXT
    if grep -qE -- "$2" <<<"$3"; then passed=$((passed + 1)); echo "ok $1"
    else failed=$((failed + 1)); echo "not ok $1: no '$2' in: $(tail -n 4 <<<"$3" | tr '\n' ' ')"; fi
}

# ---- lint: a small tree that is in order, then one violation at a time
tree() {
    rm -rf "$TMP/tree"; mkdir -p "$TMP/tree"; cd "$TMP/tree" || exit 1
    mkdir -p common/base common/runtime/cpu common/runtime/cuda common/text common/data rlhf reward ppo tests/ops
    for d in common/base common/runtime common/text common/data rlhf reward ppo tests; do echo "# $d" >$d/README.md; done
    printf '#define OPS(X) \\\n    X(add) X(rope)\n' >common/runtime/ops.h
    printf 'void CPU_OP(add)(void)\nvoid CPU_OP(rope)(void)\n' >common/runtime/cpu/elementwise.c
    printf 'void cuda_add(void)\nvoid cuda_rope(void)\n' >common/runtime/cuda/elementwise.cu
    echo '#include <cuda_runtime.h>' >common/runtime/cuda/cuda_shim.h
    printf 'bool test_add(Case *c, int v)\nbool test_rope(Case *c, int v)\n' >tests/ops/elementwise.c
    echo '#include "common/base/error.h"' >common/text/tokenizer.c
    echo '#include "reward/reward_model.h"' >ppo/ppo.c
    echo 'int main(void);' >ppo/main.c
    cd - >/dev/null || exit 1
}
lint() { sh tests/lint.sh "$TMP/tree"; }
tree
expect "lint: a tree in order" '^lint: [0-9]+ passed, 0 failed$' "$(lint)"
plant() { # NAME PATTERN FILE TEXT
    tree
    printf '%b' "$4" >>"$TMP/tree/$3"
    expect "lint: $1" "^lint: $2" "$(lint)"
    expect "lint: $1 counts" '^lint: [0-9]+ passed, 1 failed$' "$(lint)"
}
plant "include upwards" 'include-direction: common/base/a.c:1' common/base/a.c '#include "common/data/record.h"\n'
plant "include of another program" 'include-direction: ppo/b.c:1' ppo/b.c '#include "reward/reward.h"\n'
plant "include of the scoring interface by rlhf" 'include-direction: rlhf/b.c:1' rlhf/b.c '#include "reward/reward_model.h"\n'
plant "include of tests" 'include-direction: common/data/a.h:1' common/data/a.h '#include "tests/ops/test_ops.h"\n'
plant "include from the folder" 'include-form: common/base/a.c:1' common/base/a.c '#include "error.h"\n'
plant "a long file" 'size: common/base/a.c: 1001 lines' common/base/a.c "$(printf '%1001s' | sed 's/ /x\\n/g')"
plant "a long main" 'main: ppo/main.c: 32 lines' ppo/main.c "$(printf '%31s' | sed 's/ /x\\n/g')"
plant "a tab" 'tabs: common/base/a.c:1' common/base/a.c '\tint x;\n'
plant "an open end" 'todo: common/base/a.c:1' common/base/a.c "/* TO""DO later */\n"
plant "a thread" 'threads: common/base/a.c:1' common/base/a.c 'pthread_create(0);\n'
plant "OpenMP" 'threads: common/runtime/cpu/a.c:1' common/runtime/cpu/a.c '#pragma omp parallel\n'
plant "getenv" 'getenv: common/base/a.c:1' common/base/a.c 'x = getenv("HOME");\n'
k=common/runtime/cuda/k.cu
plant "CUDA beside the shim" "cuda-include: $k:1" $k '#include <cuda_runtime.h>\n'
plant "CUDA in a C file" 'cuda-include: common/base/a.c:1' common/base/a.c '#include <cuda.h>\n'
plant "a bare launch" "cuda-launch: $k:2" $k '/* <<<1, 32>>> is not written */\nk<<<1, 32>>>(x);\n'
plant "asm in a kernel" "cuda-asm: $k:1" $k 'asm volatile("bar.sync 0;");\n'
plant "a template" "cuda-dialect: $k:1" $k 'template <int N> void f(void);\n'
plant "a lambda" "cuda-dialect: $k:1" $k 'auto f = [&](int i) { return i; };\n'
plant "the standard library" "cuda-dialect: $k:4" $k '/* no std::sort\n std::sort */\nsay("std::sort"); // std::sort\nstd::sort(a, b);\n'
plant "bare dynamic shared memory" "cuda-shared: $k:1" $k 'extern __shared__ float s[];\n'
plant "a float atomic" "cuda-atomics: $k:1" $k 'atomicAdd((float *)p, x);\n'
plant "a warp operation without mask" "cuda-masks: $k:1" $k 'a = __shfl_down(a, 1);\n'
plant "libm in a kernel" "cuda-libm: $k:1" $k 'y = k_exp(x) + expf(x);\n'
plant "a machine's path" 'machine-paths: common/base/a.c:1' common/base/a.c 'open("/h''ome/joe/x");\n'
plant "a broken script" 'scripts: tests/x.sh' tests/x.sh 'if true\n'
tree; mkdir "$TMP/tree/common/model"; echo 'int x;' >"$TMP/tree/common/model/a.c"
expect "lint: a folder without README" '^lint: readme: common/model: no README' "$(lint)"
tree; sed -i 's/X(rope)/X(rope) X(scale)/' "$TMP/tree/common/runtime/ops.h"
expect "lint: an op without a body" '^lint: ops-body: .* scale$' "$(lint)"
expect "lint: an op without a kernel" '^lint: ops-kernel: .* scale$' "$(lint)"
expect "lint: an op without a test" '^lint: ops-test: .* scale$' "$(lint)"

# ---- run.sh: made-up tests that end in every way
fake() { printf '#!/bin/sh\n%b\n' "$2" >"$TMP/build/tests/test_$1"; chmod +x "$TMP/build/tests/test_$1"; }
run() { LINT=$TMP/lint.sh E2E_DIR=$TMP/e2e TIMEOUT=${TIMEOUT:-20} sh tests/run.sh test "$TMP/build" 2>&1; echo "exit $?"; }
start() {
    rm -rf "$TMP/build" "$TMP/e2e"; mkdir -p "$TMP/build/tests" "$TMP/e2e"
    echo 'echo "lint: 3 passed, 0 failed"' >"$TMP/lint.sh"
}
last() { tail -n 2 <<<"$1" | tr '\n' ' '; }
start
fake good 'echo "[  PASSED  ] 4 test(s)." >&2'
fake groups 'echo "[  PASSED  ] 2 test(s)."; echo "[  PASSED  ] 1 test(s)."; echo "[  SKIPPED ] 2 test(s), listed below:"; echo "[  SKIPPED ] test_a"'
fake ops 'echo "$1"; echo "5 passed, 0 failed"'
fake grad '[ "$1" = grad ] && echo "6 passed, 0 failed, 1 skipped"'
printf '#!/bin/sh\n[ -d "$TMP" ] && [ -d "$BUILD" ] && echo "1 passed, 0 failed, 0 skipped"\n' >"$TMP/e2e/test_x.sh"
chmod +x "$TMP/e2e/test_x.sh"
out=$(run)
# 3 lint + 4 + (2 + 1) + 5 + 6 + 1 = 22; skipped 2 + 1
expect "run: every kind of summary is added" '^22 passed, 0 failed, 3 skipped exit 0' "$(last "$out")"
ends() { # NAME BODY TOTALS
    start; fake bad "$2"; out=$(run)
    expect "run: $1" "^$3 exit 1" "$(last "$out")"
    expect "run: $1 is shown" '^FAILED +test_bad' "$out"
}
ends "a failed test" 'echo "the reason"; echo "[  PASSED  ] 1 test(s)."; echo "[  FAILED  ] 2 test(s), listed below:"; echo "[  FAILED  ] test_a"; exit 2' '4 passed, 2 failed, 0 skipped'
expect "run: output of a failed test" '\| the reason' "$out"
ends "a crash" 'kill -SEGV $$' '3 passed, 1 failed, 0 skipped'
ends "no summary" 'echo fine' '3 passed, 1 failed, 0 skipped'
ends "a crash after a good summary" 'echo "[  PASSED  ] 2 test(s)."; kill -ABRT $$' '5 passed, 1 failed, 0 skipped'
TIMEOUT=1 ends "a test without end" 'sleep 30' '3 passed, 1 failed, 0 skipped'
expect "run: says that time is over" 'stopped after 1 s' "$out"

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
