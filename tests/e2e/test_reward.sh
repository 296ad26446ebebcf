#!/usr/bin/env bash
# rlhf-reward end to end on a tiny world: determinism, resume after kill -9, scores free of the batch.
. "$(dirname "$0")/lib.sh"
tiny_world
R=("$BIN/rlhf-reward" train "data.train=[{path: $W/pairs/safety.jsonl}]" "data.eval=[{path: $W/pairs/safety_test.jsonl}]"
   safety_loss.weight=1 epochs=3 save_steps=2 "${REWARD[@]}")

check "train" "${R[@]}" out_dir="$TMP/ref"
level=(none elementwise mlp layer)
for t in 1 2 3; do
    "${R[@]}" threads=$t micro_batch_tokens=$((128 * t)) gradient_checkpointing=${level[t]} out_dir="$TMP/t$t" >/dev/null 2>&1
    same "weights: $t threads, micro-batch of $((128 * t)) tokens, gradient_checkpointing=${level[t]}" "$TMP/ref/export/model.safetensors" "$TMP/t$t/export/model.safetensors"
done
same "metrics are the same file" "$TMP/ref/metrics.jsonl" "$TMP/t2/metrics.jsonl"
for isa in plain avx2 avx512 avx512bf16; do
    grep -q "\b$(echo $isa | sed s/bf16/_bf16/)" /proc/cpuinfo || [ $isa = plain ] || { skip "weights: isa=$isa" "this CPU lacks it"; continue; }
    "${R[@]}" max_steps=2 isa=$isa out_dir="$TMP/isa-$isa" >/dev/null 2>&1
    "${R[@]}" max_steps=2 out_dir="$TMP/isa-auto" overwrite=true >/dev/null 2>&1
    same "weights: isa=$isa" "$TMP/isa-auto/export/model.safetensors" "$TMP/isa-$isa/export/model.safetensors"
done
FILES="export/model.safetensors export/config.json eval.json metrics.jsonl STATUS"
kills_in rlhf-reward "$TMP/ref" "$FILES" \
"checkpoint_save syscall while a checkpoint is written
optim_step op_adamw inside an update
- optim_step between gradients and update
hf_save syscall while the result is written" "${R[@]}" save_steps=1
kills_at_files "kill -9 or a full disk, then resume" "$TMP/ref" "$FILES" "${R[@]}" threads=1

check "the best evaluation is chosen by accuracy" grep -q '"metric": *"eval_accuracy"' "$TMP/ref/best.json"
"${R[@]}" epochs=6 eval_steps=1 keep=1 out_dir="$TMP/best" >/dev/null 2>&1
best=$(grep -o '"eval_accuracy": [0-9.]*' "$TMP/best/metrics.jsonl" | awk '{ if (NR == 1 || $2 > top) { top = $2; at = NR } } END { print at }')
check "the first of the highest" grep -q "\"step\": $best," "$TMP/best/best.json"
check "the calibration is in config.json" grep -q '"anchored": *true' "$TMP/ref/export/config.json"
check "eval.json has the bins" grep -q both_unsafe "$TMP/ref/eval.json"
check "the export says what it has learned from" grep -q '"items_seen"' "$TMP/ref/export/config.json"
"${R[@]}" data.fraction=0.5 out_dir="$TMP/half" >"$TMP/half.log" 2>&1
check "half the prompts: fewer items" sh -c "grep -o '\"items\": [0-9]*' $TMP/half/export/config.json $TMP/ref/export/config.json |
    sed 's/.*: //' | paste -s | awk '{ exit !(\$1 > 0.2 * \$2 && \$1 < 0.8 * \$2) }'"
"$BIN/rlhf-reward" score helpful="$W/helpful/export" safety="$TMP/ref/export" in="$W/a.jsonl" out="$TMP/s1.jsonl" template=plain >/dev/null 2>&1
"$BIN/rlhf-reward" score helpful="$W/helpful/export" safety="$TMP/ref/export" in="$W/a.jsonl" out="$TMP/s2.jsonl" template=plain \
    max_length=48 micro_batch_tokens=64 threads=1 >/dev/null 2>&1
same "a score does not depend on the pack or the threads" "$TMP/s1.jsonl" "$TMP/s2.jsonl"
# zephyr puts a line end behind the closing token: no score is read there. Training's pairs and the answers of score end alike
grep -v -e Human: -e Assistant: "$W/pairs/helpful_test.jsonl" >"$TMP/pairs.jsonl"
for side in chosen rejected; do
    sed -E 's/"'"$side"'": /"completion": /' "$TMP/pairs.jsonl" >"$TMP/$side.jsonl"
    "$BIN/rlhf-reward" score helpful="$W/helpful/export" in="$TMP/$side.jsonl" out="$TMP/$side.scored" template=zephyr >/dev/null 2>&1
    grep -o '"reward_helpful": *[-0-9.e]*' "$TMP/$side.scored" | sed 's/.*: *//' >"$TMP/$side.scores"
done
"$BIN/rlhf-reward" eval model="$W/helpful/export" "data=[{path: $TMP/pairs.jsonl}]" out_dir="$TMP/zephyr" template=zephyr >/dev/null 2>&1
loss=$(paste "$TMP/chosen.scores" "$TMP/rejected.scores" | awk '{ s += log(1 + exp($2 - $1)); n++ } END { printf "%.9g", s / n }')
compares "score and eval read an answer at the same token" "($loss - $(first_metric "$TMP/zephyr/eval.json" loss))^2 < 1e-10"
cp -r "$TMP/ref/export" "$TMP/stranger"; echo >>"$TMP/stranger/tokenizer.json"
refuses "two models with two tokenizers" 65 "stranger/tokenizer.json: differs" "$BIN/rlhf-reward" score helpful="$W/helpful/export" \
    safety="$TMP/stranger" in="$W/a.jsonl" out="$TMP/s3.jsonl" template=plain
sed -i 's/"vocab_size": *[0-9]*/"vocab_size": 20/' "$TMP/stranger/config.json"
refuses "a tokenizer of another model" 65 "vocab_size is 20; the tokenizer belongs" "$BIN/rlhf-reward" eval model="$TMP/stranger" \
    "data=[{path: $W/pairs/safety_test.jsonl}]" template=plain
grep -v '"answer": ""' "$TMP/s1.jsonl" >"$TMP/answered"; grep '"answer": ""' "$TMP/s1.jsonl" >"$TMP/unanswered"
check "every line is there" sh -c "test \$(grep -c . $TMP/s1.jsonl) = \$(grep -c . $W/a.jsonl)"
check "every answer has both scores" sh -c "test -s $TMP/answered && ! grep -v '\"reward_helpful\": .*\"reward_safety\": ' $TMP/answered"
check "an empty answer has none" sh -c "! grep reward_ $TMP/unanswered"

"${R[@]}" out_dir="$TMP/stop" max_steps=100000 epochs=5000 >"$TMP/stop.log" 2>&1 & pid=$!
sleep 1.5; kill -TERM $pid; wait $pid; rc=$?
[ $rc = 75 ] && ok "SIGTERM: exit 75 after a checkpoint" || not_ok "SIGTERM: exit 75 after a checkpoint" "exit $rc: $(tail -n 1 "$TMP/stop.log")"

refuses "no labels for the safety loss" 65 "safety label" "$BIN/rlhf-reward" train out_dir="$TMP/x1" \
    "data.train=[{path: $W/pairs/helpful.jsonl}]" safety_loss.weight=1 "${REWARD[@]}"
refuses "training and held-out prompts overlap" 65 "held|eval|overlap" "$BIN/rlhf-reward" train out_dir="$TMP/x2" \
    "data.train=[{path: $W/pairs/helpful.jsonl}]" "data.eval=[{path: $W/pairs/helpful.jsonl}]" "${REWARD[@]}"
head -n 3 "$W/pairs/helpful.jsonl" >"$TMP/bad.jsonl"; echo '{"prompt": "copy a b c", "chosen": "a b c", "rejected": "a b c"}' >>"$TMP/bad.jsonl"
refuses "identical pair" 65 "bad.jsonl:4" "$BIN/rlhf-reward" train out_dir="$TMP/x3" "data.train=[{path: $TMP/bad.jsonl}]" "${REWARD[@]}"
head -n 3 "$W/pairs/helpful.jsonl" >"$TMP/bad.jsonl"; echo '{"prompt": "copy a b c", "chosen": "", "rejected": "a b c"}' >>"$TMP/bad.jsonl"
refuses "empty answer" 65 "bad.jsonl:4.*empty" "$BIN/rlhf-reward" train out_dir="$TMP/x4" "data.train=[{path: $TMP/bad.jsonl}]" "${REWARD[@]}"
head -n 3 "$W/pairs/helpful.jsonl" >"$TMP/bad.jsonl"; echo '{"prompt": "copy a b c", "chosen": "a' >>"$TMP/bad.jsonl"
refuses "malformed JSON line" 65 "bad.jsonl:4" "$BIN/rlhf-reward" train out_dir="$TMP/x5" "data.train=[{path: $TMP/bad.jsonl}]" "${REWARD[@]}"
finish
