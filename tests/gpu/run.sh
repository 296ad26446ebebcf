#!/usr/bin/env bash
# run.sh OUT - everything that needs a card, in one go of at most ten minutes: probe, build, every op
# against the CPU with guard zones, whole programs against the CPU byte for byte, the sampler against the
# trainer over a million tokens in each dtype, fifty equal runs, the sanitizer, the demo on device: cuda, figures with their
# ceilings, and PyTorch at the same work.
#
# Runs in the unpacked archive of `make gpu-bundle` or in a checkout with DEPS_DIR set. Writes OUT/run.log,
# OUT/ops.txt, OUT/peer.txt, OUT/summary.json. Needs nvcc and a driver; python3 with torch is used when it is there.
# ONLY="ops programs": some parts alone.
set -u
OUT=$(mkdir -p "${1:?usage: tests/gpu/run.sh OUT}" && cd "$1" && pwd)
cd "$(dirname "$0")/../.." || exit 1
DEPS=${DEPS_DIR:-$([ -d deps ] && echo deps || true)}
ONLY=${ONLY:-ops programs exact reruns sanitizer demo bench peer}
JOBS=$(nproc)
BUILD=build/gpu
passed=0 failed=0 skipped=0
exec > >(tee "$OUT/run.log") 2>&1

part() { case " $ONLY " in *" $1 "*) echo; echo "== $1"; started=$(date +%s); return 0 ;; esac; return 1; }
count() { # reads `N passed, N failed[, N skipped]` from the last line of a file
    local p f s
    read -r p f s < <(tail -n 1 "$1" | sed -nE 's/^([0-9]+) passed, ([0-9]+) failed(, ([0-9]+) skipped)?$/\1 \2 \4/p')
    if [ -z "${p:-}" ]; then failed=$((failed + 1)); echo "no total in $1: $(tail -n 3 "$1")"; return; fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + ${s:-0}))
    tail -n 1 "$1"
    grep -E '^(not ok|FAIL)' "$1" | head -n 20
}
ok() { passed=$((passed + 1)); echo "ok $1"; }
not_ok() { failed=$((failed + 1)); echo "not ok $1: ${2:-}"; }

card=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | head -n 1)
[ -n "$card" ] || { echo "no card"; exit 69; }
echo "$card"
cap=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
echo "== build (sm_$cap)"
make -s -j"$JOBS" BUILD=$BUILD CUDA=1 CUDA_ARCHS="$cap" ${DEPS:+DEPS_DIR=$DEPS} all tests >"$OUT/build.log" 2>&1 ||
    { grep -E 'error|\*\*\*' "$OUT/build.log" | head; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
tail -n 1 "$OUT/build.log"

if part ops; then
    timeout 200 $BUILD/tests/test_ops -b cuda test >"$OUT/ops-test.log" 2>&1; count "$OUT/ops-test.log"
    for t in test_cuda test_units; do
        timeout 60 $BUILD/tests/$t >"$OUT/$t.log" 2>&1 && ok $t || not_ok $t "$(tail -n 3 "$OUT/$t.log" | tr '\n' ' ')"
    done
fi
if part programs; then
    BUILD=$BUILD TMP=$(mktemp -d) timeout 200 tests/e2e/test_cuda.sh >"$OUT/programs.log" 2>&1; count "$OUT/programs.log"
fi
sampled() { # sampled DTYPE: the sampler's log-probabilities against the trainer's: the sequence KL of a model to itself
    local tokens=0 off=0 round
    $BUILD/bin/rlhf-sft out_dir="$W/$1" device=cuda dtype="$1" model="$W/world/model" init=random template=plain max_length=64 \
        "data.train=[{path: $W/world/sft.jsonl}]" max_steps=1 >>"$OUT/exact.log" 2>&1
    for round in 1 2; do
        $BUILD/bin/rlhf generate device=cuda dtype="$1" model="$W/$1/export" reference="$W/$1/export" template=plain round=$round \
            data.prompts="$W/world/prompts_ppo.jsonl" temperature=1.3 max_prompt_length=16 max_new_tokens=48 slots=512 \
            micro_batch_tokens=32768 --out "$W/s.jsonl" >>"$OUT/exact.log" 2>&1 || not_ok "generate in $1, round $round" "$(tail -n 1 "$OUT/exact.log")"
        tokens=$((tokens + $(grep -o '"tokens": *[0-9]*' "$W/s.jsonl" | awk '{ n += $2 } END { print n + 0 }')))
        off=$((off + $(grep -vc '"kl": 0[,}]' "$W/s.jsonl")))
    done
    [ "$tokens" -gt 1000000 ] && [ "$off" = 0 ] && ok "sampler = trainer in $1 over $tokens tokens" || not_ok "sampler = trainer in $1" "$off answers differ, $tokens tokens"
}
if part exact; then
    W=$(mktemp -d)
    $BUILD/bin/rlhf-demo world "$W/world" n_base=64 n_sft=64 n_rejection=64 n_ppo=16384 seed=5 >/dev/null 2>&1
    sampled f32
    sampled bf16
    rm -rf "$W"
fi
if part reruns; then
    # the same run fifty times, four at a time on one card
    W=$(mktemp -d)
    $BUILD/bin/rlhf-demo world "$W/world" n_base=64 n_sft=256 n_rejection=64 n_ppo=64 seed=5 >/dev/null 2>&1
    seq 50 | xargs -P 4 -I '{}' sh -c "$BUILD/bin/rlhf-sft out_dir=$W/run-{} device=cuda model=$W/world/model init=random template=plain \
        max_length=64 'data.train=[{path: $W/world/sft.jsonl}]' batch_size=32 seed=3 >/dev/null 2>&1; md5sum <$W/run-{}/export/model.safetensors >>$W/sums"
    [ "$(sort -u "$W/sums" | wc -l)" = 1 ] && [ "$(wc -l <"$W/sums")" = 50 ] && ok "50 runs, one result" || not_ok "50 runs, one result" "$(sort "$W/sums" | uniq -c | head -n 3 | tr '\n' ' ')"
    rm -rf "$W"
fi
if part sanitizer; then
    if command -v compute-sanitizer >/dev/null; then
        for op in linear linear_dw attention attention_backward attention_paged rmsnorm_backward embedding_backward sample; do
            timeout 100 compute-sanitizer --error-exitcode 9 $BUILD/tests/test_ops -b cuda -o $op test >"$OUT/sanitizer-$op.log" 2>&1
            case $? in 0) ok "memcheck $op" ;; 124) skipped=$((skipped + 1)); echo "skip memcheck $op: out of time" ;;
            *) not_ok "memcheck $op" "$(grep -m 3 -E '=====|not ok' "$OUT/sanitizer-$op.log" | tr '\n' ' ')" ;; esac
        done
    else
        skipped=$((skipped + 1)); echo "skip sanitizer: there is no compute-sanitizer"
    fi
fi
if part demo; then
    for d in cuda cpu; do
        rm -rf "$BUILD/demo-$d"
        t0=$(date +%s%N)
        $BUILD/bin/rlhf run configs/demo.yaml root="$BUILD/demo-$d" vars.device=$d >"$OUT/demo-$d.log" 2>&1 || not_ok "demo on $d" "$(tail -n 2 "$OUT/demo-$d.log" | tr '\n' ' ')"
        t1=$(date +%s%N); echo "demo on $d: $(((t1 - t0) / 1000000)) ms"
    done
    cmp -s "$BUILD/demo-cuda/evaluate/table.txt" "$BUILD/demo-cpu/evaluate/table.txt" && ok "the demo's table is the CPU's" || not_ok "the demo's table" "differs from the CPU's"
    cat "$BUILD/demo-cuda/evaluate/table.txt" 2>/dev/null | head -n 12
fi
if part bench; then
    timeout 200 $BUILD/tests/test_ops -b cuda perf >"$OUT/ops.txt" 2>&1; count "$OUT/ops.txt"
    timeout 300 $BUILD/tests/bench --device cuda --only steps,decode,ppo --repeat 3 --seconds 4 --out "$OUT" >"$OUT/bench.txt" 2>&1 || echo "bench: exit $?"
    timeout 240 $BUILD/tests/bench --device cuda --only products,attention --repeat 3 --out "$OUT/products" >"$OUT/products.txt" 2>&1 || echo "products: exit $?"
    [ -e "$OUT/products/bench.jsonl" ] && tail -n +2 "$OUT/products/bench.jsonl" >>"$OUT/bench.jsonl" # behind the machine's line
    cat "$OUT/bench.txt" "$OUT/products.txt"
    python3 tests/gpu/ceilings.py 2>"$OUT/ceilings.err" | tee "$OUT/ceilings.txt" || echo "no python3 with torch: no ceilings of PyTorch"
fi
if part peer; then # of the rows that a part "bench" left in OUT, in this call or in one before
    timeout 300 python3 tests/bench/peer_torch.py --device cuda --only steps,decode,ppo --shapes 15m,135m,1.5b,1.3b,7b --repeat 3 --seconds 3 \
        >"$OUT/peer.jsonl" 2>"$OUT/peer.err" || echo "peer_torch.py: exit $?: $(tail -n 1 "$OUT/peer.err")"
    [ -s "$OUT/peer.jsonl" ] && [ -e "$OUT/bench.jsonl" ] && $BUILD/tests/bench --from "$OUT/bench.jsonl" --peer "$OUT/peer.jsonl" >"$OUT/peer.txt" && sed -n '/torch/p' "$OUT/peer.txt"
fi
# rows: the lines of bench.jsonl; peer: those of peer_torch.py; probe: which shapes of bf16 products cuBLASLt may serve; torch: those of ceilings.py as they are
{
    printf '{"card": "%s", "nvcc": "%s", "commit": "%s", "passed": %d, "failed": %d, "skipped": %d, "seconds": %d,\n"rows": [' "$card" \
        "$(nvcc --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p')" "$(git rev-parse --short HEAD 2>/dev/null)" \
        "$passed" "$failed" "$skipped" "$SECONDS"
    [ -e "$OUT/bench.jsonl" ] && sed '$!s/$/,/' "$OUT/bench.jsonl"
    printf '],\n"probe": ['
    [ -e "$OUT/products.txt" ] && sed -n 's/^probe: //p' "$OUT/products.txt" | sed 's/.*/"&"/; $!s/$/,/'
    printf '],\n"peer": ['
    [ -e "$OUT/peer.jsonl" ] && sed '$!s/$/,/' "$OUT/peer.jsonl"
    printf '],\n"torch": ['
    [ -e "$OUT/ceilings.txt" ] && sed 's/"/\\"/g; s/.*/"&"/; $!s/$/,/' "$OUT/ceilings.txt"
    printf ']}\n'
} >"$OUT/summary.json"
echo
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
