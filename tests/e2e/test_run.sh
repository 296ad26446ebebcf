#!/usr/bin/env bash
# rlhf run: stages in order, done ones skipped, changed ones run again, a failing one reported.
. "$(dirname "$0")/lib.sh"
cat >"$TMP/e.yaml" <<Y
root: $TMP/root
vars: {seed: 3, extra: true}
stages:
  - name: world
    program: rlhf-demo world
    config: {out: "\${out}", seed: "\${seed}", n_base: 64, n_sft: 32, n_helpful: 4, n_safety: 4, n_test: 4, n_rejection: 4, n_ppo: 4, n_eval: 4, hidden_size: 32, layers: 1}
  - name: sft
    program: rlhf-sft
    presets: ["$TMP/preset.yaml"]
    config:
      out_dir: "\${out}"
      model: \${root}/world/model
      init: random
      template: plain
      max_length: 64
      batch_size: 8
      micro_batch_tokens: 512
      epochs: 2
      data: {train: [{path: "\${root}/world/sft.jsonl"}]}
      seed: \${seed}
  - name: answers
    program: rlhf generate
    if: \${extra}
    config: {model: "\${root}/sft/export", data: {prompts: "\${root}/world/prompts_eval.jsonl"}, template: plain, max_prompt_length: 40, max_new_tokens: 6, out: "\${out}/samples.jsonl"}
Y
printf 'batch_size: 4\nlog_steps: 7\nkeep: 2\n' >"$TMP/preset.yaml"
R=("$BIN/rlhf" run "$TMP/e.yaml")
check "--dry-run" "${R[@]}" --dry-run
check "--dry-run runs nothing" test ! -e "$TMP/root"
check "all stages" "${R[@]}"
check "results are there" test -s "$TMP/root/answers/samples.jsonl"
check "a preset's value" grep -qx "log_steps: 7" "$TMP/root/sft/config.yaml"
check "config wins over a preset" grep -qx "batch_size: 8" "$TMP/root/sft/config.yaml"
sum=$(md5sum "$TMP/root/sft/export/model.safetensors")
"${R[@]}" >"$TMP/log" 2>&1
compares "done stages are skipped" "$(grep -c ': done' "$TMP/log") == 3"
sed 's/micro_batch_tokens: 512/micro_batch_tokens: 256/' "$TMP/e.yaml" >"$TMP/e5.yaml"
"$BIN/rlhf" run "$TMP/e5.yaml" --dry-run >"$TMP/log" 2>&1
compares "keys that change no result" "$(grep -c ': done' "$TMP/log") == 3"
touch "$TMP/root/world/sft.jsonl"; "${R[@]}" >"$TMP/log" 2>&1
compares "contents count, not times" "$(grep -c ': done' "$TMP/log") == 3"
head -n 20 "$TMP/root/world/sft.jsonl" >"$TMP/short" && cp "$TMP/short" "$TMP/root/world/sft.jsonl"
"${R[@]}" >"$TMP/log" 2>&1
compares "a changed input runs its stage and those after it" "$(grep -c ': done' "$TMP/log") == 1"
check "with another result" sh -c "test '$sum' != \"\$(md5sum $TMP/root/sft/export/model.safetensors)\""
# what a model folder is: its weights in shards too, and what says how to talk to it
sed 's/micro_batch_tokens: 512/micro_batch_tokens: 512\n      max_shard_size: 1e-5/' "$TMP/e.yaml" >"$TMP/shards.yaml"
S=("$BIN/rlhf" run "$TMP/shards.yaml" root="$TMP/shards")
check "a model in shards" "${S[@]}"
check "it is in shards" test -s "$TMP/shards/sft/export/model.safetensors.index.json"
sed -i 's/epochs: 2/epochs: 1/' "$TMP/shards.yaml"; "${S[@]}" >"$TMP/log" 2>&1
compares "other weights in shards run the stages behind them" "$(grep -c ': done' "$TMP/log") == 1"
echo ' ' >>"$TMP/shards/sft/export/tokenizer_config.json"; "${S[@]}" >"$TMP/log" 2>&1
compares "so does another tokenizer_config.json" "$(grep -c ': done' "$TMP/log") == 2"
"${R[@]}" vars.extra=false >"$TMP/log" 2>&1
compares "a stage left out by its condition" "$(grep -c '\[' "$TMP/log") == 2"
cp -r "$TMP/root" "$TMP/moved"; "${R[@]}" root="$TMP/moved" >"$TMP/log" 2>&1
compares "a copied experiment keeps its done stages" "$(grep -c ': done' "$TMP/log") >= 2"
check "--only" "${R[@]}" --only answers --force
printf 'batch_size: 4\nlog_steps: 7\nkeep: 1\n' >"$TMP/preset.yaml"; "${R[@]}" >"$TMP/log" 2>&1
compares "a changed preset runs its stage again" "$(grep -c 'sft: resuming\|sft: done' "$TMP/log") == 0"
printf 'root: %s\nstages:\n  - name: none\n    program: rlhf-demo world\n    args: ["out=%s/none", n_base=8, n_sft=8]\n' "$TMP/root5" "$TMP" >"$TMP/none.yaml"
check "a stage without a config" "$BIN/rlhf" run "$TMP/none.yaml"
refuses "unknown variable" 2 "vars.sed|no such variable|root=DIR" "${R[@]}" sed=1
refuses "unknown stage" 2 "there is no stage" "${R[@]}" --from nothing
sed 's/program: rlhf-sft/program: rlhf-sft\n    progam: x/' "$TMP/e.yaml" >"$TMP/e2.yaml"
refuses "unknown key" 78 "e2.yaml:[0-9]+:[0-9]+: unknown key 'progam'" "$BIN/rlhf" run "$TMP/e2.yaml"
sed 's/batch_size: 8/batch_size: -8/' "$TMP/e.yaml" >"$TMP/e3.yaml"
"$BIN/rlhf" run "$TMP/e3.yaml" root="$TMP/root3" >"$TMP/log" 2>&1; rc=$?
[ $rc = 78 ] && ok "a failing stage gives its exit code" || not_ok "a failing stage gives its exit code" "$rc"

# unit_tokens counts where products may be in bf16
units() { sed "/presets:/d; s/micro_batch_tokens: 512/micro_batch_tokens: 256\n      unit_tokens: $1\n      dtype: $2/" "$TMP/e.yaml"; }
for dtype in f32 bf16; do
    units 64 $dtype >"$TMP/units64.yaml"; units 128 $dtype >"$TMP/units128.yaml"
    check "a run in $dtype" "$BIN/rlhf" run "$TMP/units64.yaml" root="$TMP/units"
    "$BIN/rlhf" run "$TMP/units128.yaml" root="$TMP/units" --dry-run >"$TMP/log-$dtype" 2>&1
done
compares "unit_tokens is part of the result in bf16, not in f32" "$(grep -c 'sft: done' "$TMP/log-f32") == 1 && $(grep -c 'sft: done' "$TMP/log-bf16") == 0"

sed 's/epochs: 2/epochs: 4000/' "$TMP/e.yaml" >"$TMP/e4.yaml"
"$BIN/rlhf" run "$TMP/e4.yaml" root="$TMP/root4" >"$TMP/log" 2>&1 & pid=$!
for i in $(seq 100); do [ -s "$TMP/root4/sft/metrics.jsonl" ] && break; sleep 0.1; done
kill -TERM $pid; wait $pid; rc=$?
[ $rc = 75 ] && ok "SIGTERM reaches the stage: exit 75" || not_ok "SIGTERM reaches the stage: exit 75" "exit $rc: $(tail -n 2 "$TMP/log" | tr '\n' ' ')"
finish
