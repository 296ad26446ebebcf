#!/usr/bin/env bash
# dtype: bf16 from the base model to PPO on a tiny world that was itself made in bf16: everything that is exact
# in f32 is exact here, and the two dtypes are two runs.
DTYPE=bf16
. "$(dirname "$0")/lib.sh"
tiny_world
ok "a world, an SFT model and both reward models in bf16"

# ---- SFT: bytes that nothing but the config decides; the plan; the other dtype
S=("$BIN/rlhf-sft" model="$W/world/model" init=random template=plain max_length=64 "data.train=[{path: $W/world/sft.jsonl}]"
   epochs=2 batch_size=16 optim.learning_rate=5e-3 micro_batch_tokens=1024 unit_tokens=64 seed=3 save_steps=3 log_steps=1)
check "sft" "${S[@]}" out_dir="$TMP/sft" dtype=bf16
cp "$TMP/check.log" "$TMP/sft.log"
for t in 1 2 3; do
    "${S[@]}" out_dir="$TMP/sft$t" dtype=bf16 threads=$t micro_batch_tokens=$((100 * t)) >/dev/null 2>&1
    same "sft: $t threads, micro-batches of $((100 * t)) tokens: weights" "$TMP/sft/export/model.safetensors" "$TMP/sft$t/export/model.safetensors"
    same "sft: the same metrics" "$TMP/sft/metrics.jsonl" "$TMP/sft$t/metrics.jsonl"
done
for isa in plain avx2 avx512; do
    "${S[@]}" out_dir="$TMP/sft-$isa" dtype=bf16 isa=$isa >"$TMP/isa.log" 2>&1
    if grep -q "this CPU has no" "$TMP/isa.log"; then skip "sft: bodies for $isa" "this CPU has none"
    else same "sft: bodies for $isa give the same weights" "$TMP/sft/export/model.safetensors" "$TMP/sft-$isa/export/model.safetensors"; fi
done
check "sft in f32" "${S[@]}" out_dir="$TMP/f32"
M=$TMP/sft/metrics.jsonl F=$TMP/f32/metrics.jsonl
compares "the first losses are near: within 1 %" "($(first_metric "$M" loss) / $(first_metric "$F" loss) - 1)^2 < 1e-4 && $(first_metric "$M" loss) != $(first_metric "$F" loss)"
compares "so are the last: within 3 %" "($(metric "$M" loss) / $(metric "$F" loss) - 1)^2 < 9e-4"
kills_in rlhf-sft "$TMP/sft" "export/model.safetensors metrics.jsonl STATUS" "optim_step op_adamw inside an update" "${S[@]}" dtype=bf16
refuses "dtype: f16" 78 "dtype: .*(f32|bf16)" "${S[@]}" out_dir="$TMP/x" dtype=f16
rm -rf "$TMP/half"; "${S[@]}" out_dir="$TMP/half" dtype=bf16 max_steps=4 >/dev/null 2>&1
grep -q '^dtype: "\?bf16' "$TMP"/half/checkpoints/step-3/config.yaml && ok "a checkpoint records the dtype" || not_ok "a checkpoint records the dtype" "$(grep -n dtype "$TMP"/half/checkpoints/*/config.yaml)"
echo stopped >"$TMP/half/STATUS"
"${S[@]}" out_dir="$TMP/half" max_steps=4 --resume auto >/dev/null 2>"$TMP/diff.err"; rc=$?
[ $rc = 78 ] && grep -q 'dtype (was "\?bf16' "$TMP/diff.err" && ok "resuming in f32 is refused and named" || not_ok "resuming in f32 is refused and named" "exit $rc: $(tail -n 1 "$TMP/diff.err")"

# plan NAME COMMAND...: bytes of --dry-run are the bytes in use; $planned, and $weights of the first arena
plan() {
    local name=$1; shift
    "$@" --dry-run >"$TMP/dry.log" 2>&1
    planned=$(awk '$1 == "total" { print $2 }' "$TMP/dry.log") weights=$(awk '$1 ~ /^weights/ { for (i = 2; i <= NF; i++) if ($i ~ /^[0-9]+$/) { print $i; exit } }' "$TMP/dry.log")
    used=$("$@" 2>/dev/null | sed -n 's/.*memory in use: \([0-9]*\) bytes.*/\1/p')
    [ -n "$planned" ] && [ "$planned" = "$used" ] && ok "$name: plan and use are $used bytes" || not_ok "$name: plan and use" "planned '$planned', used '$used'"
}
plan "sft" "${S[@]}" out_dir="$TMP/plan-sft" dtype=bf16 max_steps=1

# ---- reward models: eval and score
tail -n 1 "$W/helpful/metrics.jsonl" | grep -q '"eval_accuracy"' && ok "reward models were trained and evaluated" || not_ok "reward models" "$(tail -n 1 "$W/helpful/metrics.jsonl")"
E=("$BIN/rlhf-reward" eval model="$W/safety/export" "data=[{path: $W/pairs/safety_test.jsonl}]" template=plain dtype=bf16)
"${E[@]}" out_dir="$TMP/e1" >/dev/null 2>&1; "${E[@]}" out_dir="$TMP/e2" threads=1 micro_batch_tokens=64 max_length=64 >/dev/null 2>&1
same "eval: other packs and threads" "$TMP/e1/eval.json" "$TMP/e2/eval.json"

# ---- answers: reference and model hold copies alone, and agree to the bit
G=("$BIN/rlhf" generate model="$W/sft/export" data.prompts="$W/world/prompts_eval.jsonl" template=plain samples=3
   max_prompt_length=40 max_new_tokens=12 seed=11 dtype=bf16)
"${G[@]}" --out "$TMP/a.jsonl" reference="$W/sft/export" >/dev/null 2>&1
"${G[@]}" --out "$TMP/b.jsonl" reference="$W/sft/export" slots=2 threads=1 micro_batch_tokens=52 >/dev/null 2>&1
same "answers do not depend on slots, threads, prefill chunks" "$TMP/a.jsonl" "$TMP/b.jsonl"
check "KL of a model to itself is exactly 0" sh -c "grep -q '\"kl\"' $TMP/a.jsonl && ! grep -v '\"kl\": *-\\?0[,.}]' $TMP/a.jsonl | grep -q ."
C=("$BIN/rlhf-reward" score helpful="$W/helpful/export" template=plain on_bad_row=skip dtype=bf16)
"${C[@]}" in="$TMP/a.jsonl" out="$TMP/s1.jsonl" >/dev/null 2>&1; "${C[@]}" in="$TMP/a.jsonl" out="$TMP/s2.jsonl" micro_batch_tokens=64 max_length=64 threads=3 >/dev/null 2>&1
check "score adds rewards" grep -q reward_helpful "$TMP/s1.jsonl"
same "score: other packs and threads" "$TMP/s1.jsonl" "$TMP/s2.jsonl"

# ---- rejection sampling
R=("$BIN/rlhf-rejection" model="$W/sft/export" reward.helpful="$W/helpful/export" reward.safety="$W/safety/export"
   template=plain data.prompts="$W/world/prompts_rejection.jsonl" k=4 max_prompt_length=40 max_new_tokens=12
   micro_batch_tokens=512 block_prompts=8 seed=9)
plan "rejection" "${R[@]}" out_dir="$TMP/rs" dtype=bf16; half=$weights
"${R[@]}" out_dir="$TMP/rs2" dtype=bf16 slots=3 threads=1 micro_batch_tokens=64 >/dev/null 2>&1
same "rejection: other slots, threads, packs" "$TMP/rs/samples.jsonl" "$TMP/rs2/samples.jsonl"
plan "rejection in f32" "${R[@]}" out_dir="$TMP/rs32"
compares "three frozen models take half the bytes: $half of $weights" "$half < 0.62 * $weights && $half > 0.5 * $weights"

# ---- PPO: sampler and trainer, policy and reference agree to the bit
P=("$BIN/rlhf-ppo" model="$W/sft/export" reward.helpful="$W/helpful/export" reward.safety="$W/safety/export"
   template=plain data.train="$W/world/prompts_ppo.jsonl" data.eval="$W/world/prompts_eval.jsonl"
   max_prompt_length=40 max_new_tokens=12 batch_size=32 minibatch_size=8 micro_batch_tokens=512 unit_tokens=64 iterations=3
   eval.iterations=2 kl_coef=0.1 optim.learning_rate=1e-3 critic.optim.learning_rate=1e-3 seed=4 save_steps=1 dtype=bf16)
plan "ppo" "${P[@]}" out_dir="$TMP/ppo"
M=$TMP/ppo/metrics.jsonl
compares "KL is exactly 0 while policy and reference are equal" "$(first_metric "$M" objective/kl) == 0"
compares "the first ratio is exactly 1" "$(first_metric "$M" val/ratio) == 1 && $(first_metric "$M" policy/approxkl_avg) == 0"
compares "and the policy moves" "$(metric "$M" objective/kl) != 0"
"${P[@]}" out_dir="$TMP/ppo2" threads=3 micro_batch_tokens=64 slots=5 >/dev/null 2>&1
same "ppo: other threads, micro-batches, slots: weights" "$TMP/ppo/export/model.safetensors" "$TMP/ppo2/export/model.safetensors"
same "ppo: the same metrics" "$M" "$TMP/ppo2/metrics.jsonl"
kills_in rlhf-ppo "$TMP/ppo" "export/model.safetensors best/model.safetensors metrics.jsonl STATUS" \
"- ppo_policy_gradients between minibatches
optim_step op_adamw inside an update" "${P[@]}"
finish
