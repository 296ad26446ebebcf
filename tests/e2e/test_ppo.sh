#!/usr/bin/env bash
# rlhf-ppo end to end on a tiny world: exact ratio and KL, determinism, resume after kill -9.
# test_closed_form.sh looks at where it converges.
. "$(dirname "$0")/lib.sh"
tiny_world
P=("$BIN/rlhf-ppo" model="$W/sft/export" reward.helpful="$W/helpful/export" reward.safety="$W/safety/export"
   template=plain data.train="$W/world/prompts_ppo.jsonl" data.eval="$W/world/prompts_eval.jsonl"
   max_prompt_length=40 max_new_tokens=12 batch_size=32 minibatch_size=8 micro_batch_tokens=512 iterations=4
   eval.iterations=2 kl_coef=0.1 optim.learning_rate=1e-3 critic.optim.learning_rate=1e-3 seed=4 save_steps=1)
check "runs" "${P[@]}" out_dir="$TMP/ref"
M=$TMP/ref/metrics.jsonl
compares "KL is exactly 0 while policy and reference are equal" "$(first_metric "$M" objective/kl) == 0"
compares "the first ratio is exactly 1" "$(first_metric "$M" val/ratio) == 1 && $(first_metric "$M" policy/approxkl_avg) == 0"
compares "and the policy moves" "$(metric "$M" objective/kl) != 0"
check "best and last are kept" test -e "$TMP/ref/best/model.safetensors" -a -e "$TMP/ref/export/model.safetensors"
check "at temperature 0.7 too" "${P[@]}" out_dir="$TMP/cool" temperature=0.7 iterations=2
compares "KL exactly 0 at temperature 0.7" "$(first_metric "$TMP/cool/metrics.jsonl" objective/kl) == 0"
for t in 1 2 3; do
    "${P[@]}" out_dir="$TMP/t$t" threads=$t micro_batch_tokens=$((64 * t)) slots=$((5 * t)) iterations=2 >/dev/null 2>&1
done
same "weights: threads 1 and 2, other micro-batches and slots" "$TMP/t1/export/model.safetensors" "$TMP/t2/export/model.safetensors"
same "weights: threads 1 and 3" "$TMP/t1/export/model.safetensors" "$TMP/t3/export/model.safetensors"
kills_in rlhf-ppo "$TMP/ref" "export/model.safetensors best/model.safetensors samples.jsonl metrics.jsonl STATUS" \
"rollout_run model_extend in a rollout
- ppo_gradients between minibatches
checkpoint_save syscall while a checkpoint is written
optim_step op_adamw inside an update" "${P[@]}"
# every checkpoint of this run is written between minibatches, some inside an iteration
SHORT=("${P[@]}" iterations=2 batch_size=16)
"${SHORT[@]}" out_dir="$TMP/short" >/dev/null 2>&1
kills_at_files "kill -9 or a full disk while files are written, then resume" "$TMP/short" \
    "export/model.safetensors best/model.safetensors metrics.jsonl STATUS" "${SHORT[@]}"

# early stopping: patience on held-out prompts, and the hard stop on the KL
"${P[@]}" out_dir="$TMP/patient" iterations=40 eval.iterations=1 eval.patience=1 optim.learning_rate=1e-9 >"$TMP/patient.log" 2>&1
check "patience stops a run that does not gain" grep -q "no better score" "$TMP/patient.log"
compares "after few iterations" "$(metric "$TMP/patient/metrics.jsonl" iteration) < 39"
"${P[@]}" out_dir="$TMP/far" iterations=40 kl_coef=0 eval.kl_max=0.05 optim.learning_rate=5e-3 >"$TMP/far.log" 2>&1
check "kl_max stops a run that went too far" grep -q "exceeds eval.kl_max" "$TMP/far.log"
check "and its weights are exported" test -e "$TMP/far/export/model.safetensors"

cp -r "$W/sft/export" "$TMP/reference"
"${P[@]}" out_dir="$TMP/changed" reference="$TMP/reference" iterations=400 >/dev/null 2>&1 & pid=$!
for i in $(seq 100); do [ -n "$(ls "$TMP/changed/checkpoints" 2>/dev/null)" ] && break; sleep 0.1; done # step-2 may be gone again
kill -TERM $pid; wait $pid; rc=$?
[ $rc = 75 ] && ok "SIGTERM: exit 75 after a checkpoint" || not_ok "SIGTERM: exit 75 after a checkpoint" "exit $rc"
cp "$TMP/ref/export/model.safetensors" "$TMP/reference/model.safetensors"
refuses "a reference that changed since the run began" 65 "reference" "${P[@]}" out_dir="$TMP/changed" \
    reference="$TMP/reference" iterations=400 --resume auto

refuses "minibatch that does not divide the batch" 78 "minibatch_size" "${P[@]}" out_dir="$TMP/x" minibatch_size=7
refuses "an unanchored safety model" 65 "anchored" "${P[@]}" out_dir="$TMP/x" reward.safety="$W/helpful/export"
refuses "training and held-out prompts overlap" 65 "prompt" "${P[@]}" out_dir="$TMP/x" data.eval="$W/world/prompts_ppo.jsonl"
refuses "a policy that is a reward model" 65 "scalar head" "${P[@]}" out_dir="$TMP/x" model="$W/helpful/export"
finish
