#!/usr/bin/env bash
# Memory: the plan of --dry-run is what a run uses, to the byte, and the process adds at most 64 MiB to it.
. "$(dirname "$0")/lib.sh"
tiny_world
${CC:-gcc} -O1 -o "$TMP/peak" "$ROOT/tests/e2e/peak.c" || { not_ok "peak.c" "does not compile"; finish; }

# memory NAME COMMAND...: out_dir is appended; $plan: bytes planned
memory() {
    local name=$1 used peak; shift
    plan=$("$@" out_dir="$TMP/dry" --dry-run 2>/dev/null | sed -nE 's/^ *total +([0-9]+).*/\1/p' | tail -n 1)
    used=$("$TMP/peak" "$@" out_dir="$TMP/run-$name" 3>"$TMP/bytes" | sed -nE 's/^memory in use: ([0-9]+) bytes.*/\1/p')
    peak=$(cat "$TMP/bytes")
    compares "$name: planned ${plan:-?} bytes, used ${used:-?}" "${plan:--1} == ${used:--2}"
    case $BUILD in *san-*) skip "$name: process overhead" "sanitizers keep memory of their own" ;;
    *) compares "$name: $(((peak - ${used:-0}) / 1048576)) MiB beside the plan" "$peak - ${used:-0} <= 64 * 1048576" ;;
    esac
}

SFT=("$BIN/rlhf-sft" model="$W/world/model" init=random template=plain max_length=64
     "data.train=[{path: $W/world/sft.jsonl}]" max_steps=3 micro_batch_tokens=4096)
memory sft "${SFT[@]}"
none=$plan
memory sft-layer "${SFT[@]}" gradient_checkpointing=layer
# once and not for each of the 2 layers, 4,096 tokens: n1, n2, mid of C, q, o of H D, k, v of K D, gate, up, act of
# F, rstd1, rstd2 and, a head, lse
shape() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$W/world/model/config.json"; }
C=$(shape hidden_size) H=$(shape num_attention_heads) K=$(shape num_key_value_heads) F=$(shape intermediate_size) D=$(shape head_dim)
compares "gradient_checkpointing=layer takes $((none - plan)) bytes less" \
    "$none - $plan == 4 * 4096 * (3 * $C + 2 * ($H + $K) * $D + 3 * $F + 2 + $H)"
"${SFT[@]}" out_dir="$TMP/dry" --dry-run >"$TMP/dry.log" 2>/dev/null
check "the plan says what is kept" grep -q "kept for every layer: .*, x .* gate up act" "$TMP/dry.log"
check "and what every level takes" grep -qE "gradient_checkpointing: none [0-9.]+ MiB, elementwise [0-9.]+ MiB, mlp [0-9.]+ MiB, layer [0-9.]+ MiB" "$TMP/dry.log"
memory reward "$BIN/rlhf-reward" train "data.train=[{path: $W/pairs/safety.jsonl}]" safety_loss.weight=1 "${REWARD[@]}" max_steps=3
memory rejection "$BIN/rlhf-rejection" model="$W/sft/export" reward.helpful="$W/helpful/export" \
    reward.safety="$W/safety/export" template=plain data.prompts="$W/world/prompts_rejection.jsonl" k=4 \
    max_prompt_length=40 max_new_tokens=12
memory ppo "$BIN/rlhf-ppo" model="$W/sft/export" reward.helpful="$W/helpful/export" reward.safety="$W/safety/export" \
    template=plain data.train="$W/world/prompts_ppo.jsonl" max_prompt_length=40 max_new_tokens=12 batch_size=16 \
    minibatch_size=8 iterations=2 gradient_checkpointing=mlp
refuses "a plan that does not fit" 69 "gradient_checkpointing, micro_batch_tokens" "$BIN/rlhf-sft" model="$W/world/model" init=random template=plain \
    max_length=64 "data.train=[{path: $W/world/sft.jsonl}]" micro_batch_tokens=900000000 out_dir="$TMP/huge"
finish
