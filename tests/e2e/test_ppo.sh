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
level=(none none elementwise mlp layer)
for t in 1 2 3 4; do
    "${P[@]}" out_dir="$TMP/t$t" threads=$t micro_batch_tokens=$((64 * t)) slots=$((5 * t)) iterations=2 \
        gradient_checkpointing=${level[t]} >/dev/null 2>&1
done
for t in 2 3 4; do
    same "weights: $t threads and one, other micro-batches and slots, gradient_checkpointing=${level[t]}" \
        "$TMP/t1/export/model.safetensors" "$TMP/t$t/export/model.safetensors"
done
same "their metrics" "$TMP/t1/metrics.jsonl" "$TMP/t4/metrics.jsonl"
compares "answers to read in the report" "$(sed -n '/<h2>samples/,/<.table>/p' "$TMP/ref/report.html" | grep -c "^<tr><td>") > 3"
kills_in rlhf-ppo "$TMP/ref" "export/model.safetensors best/model.safetensors samples.jsonl metrics.jsonl STATUS" \
"rollout_run step_run in a rollout
- ppo_policy_gradients between minibatches
- ppo_critic_gradients between the steps of policy and critic
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

# the options: all of PPO-max, and groups without a critic. Each keeps state of its own in a checkpoint:
# scales and running moments, beta, the place in ptx.data.
refuses "there is no top_p" 78 "top_p: unknown key" "${P[@]}" out_dir="$TMP/x" top_p=0.9
MAX=("${P[@]}" keep=100 batch_size=16 scores=running score_clip=2 reward.normalize=per_model kl.target=0.05 kl.horizon=50
     "ptx.data=[{path: $W/world/sft.jsonl}]" ptx.coef=0.5 ptx.max_length=64 ptx.batch_size=5)
RLOO=("${P[@]}" keep=100 batch_size=16 advantage=rloo samples_per_prompt=4 switch.threshold=0.75)
GRPO=("${P[@]}" keep=100 batch_size=16 advantage=grpo samples_per_prompt=2 reward.normalize=per_model scores=none
      "ptx.data=[{path: $W/world/sft.jsonl}]" ptx.coef=0.5 ptx.max_length=64 ptx.batch_size=7 switch.threshold=0.75)
check "PPO-max runs" "${MAX[@]}" out_dir="$TMP/max"
check "GRPO runs" "${GRPO[@]}" out_dir="$TMP/grpo"
"${RLOO[@]}" out_dir="$TMP/rloo" >"$TMP/rloo.log" 2>&1
check "a group of two models' scores is noticed" grep -q "scores of both reward models" "$TMP/rloo.log"
compares "and counted" "$(sed 's/.*"branch.mixed_groups": //' "$TMP/rloo/metrics.jsonl" | awk '{ n += $1 } END { print n }') > 0"
check "a key of the critic is named" grep -q "trains no critic: critic.optim.learning_rate: no effect" "$TMP/rloo.log"
check "and nothing of a critic is kept" sh -c "! grep -q critic '$TMP/rloo/checkpoints'/*/manifest.json '$TMP/rloo/metrics.jsonl'"
"${P[@]}" out_dir="$TMP/x" --dry-run >"$TMP/plan" 2>/dev/null
"${RLOO[@]}" out_dir="$TMP/x" --dry-run >"$TMP/plan-rloo" 2>/dev/null
parts() { sed -n 's/.*one at a time in the same [0-9.]* [A-Za-z]*://p' "$1" | sed 's/ [0-9.]* [A-Za-z]*//g' | tr '\n' ';'; }
says() { [ "$2" = "$3" ] && ok "$1" || not_ok "$1" "'$2', not '$3'"; }
says "one part at a time is in memory, of the gradients and of the work" "$(parts "$TMP/plan")" " policy, critic; policy, answers, helpfulness, safety, critic;"
says "without a critic, none is planned" "$(parts "$TMP/plan-rloo")$(grep -c critic "$TMP/plan-rloo")" " policy, answers, helpfulness, safety;0"
for name in max rloo grpo; do
    declare -n command=${name^^}
    "${command[@]}" out_dir="$TMP/$name-other" threads=3 micro_batch_tokens=150 slots=3 >/dev/null 2>&1
    same "$name: weights with other threads, micro-batches and slots" "$TMP/$name/export/model.safetensors" "$TMP/$name-other/export/model.safetensors"
    kills "$name: kill -9 and resume" 3 "$TMP/$name" "${command[@]}"
    for at in 1 4 7; do # inside iterations and between two
        rm -rf "$TMP/cut"; cp -r "$TMP/$name" "$TMP/cut"
        "${command[@]}" out_dir="$TMP/cut" --resume "$TMP/cut/checkpoints/step-$at" >"$TMP/cut.log" 2>&1
        check "$name: went on from step $at" grep -q "resumed from .*step-$at" "$TMP/cut.log"
        same "$name: and ends with the same weights" "$TMP/$name/export/model.safetensors" "$TMP/cut/export/model.safetensors"
        same "$name: and the same metrics" "$TMP/$name/metrics.jsonl" "$TMP/cut/metrics.jsonl"
    done
done
compares "beta follows the KL" "$(first_metric "$TMP/max/metrics.jsonl" objective/kl_coef) == 0.1 && $(metric "$TMP/max/metrics.jsonl" objective/kl_coef) != 0.1"
"${MAX[@]}" out_dir="$TMP/ptx" ptx.coef=20 ptx.batch_size=96 iterations=3 >"$TMP/ptx.log" 2>&1
compares "the language-model loss falls" "$(metric "$TMP/ptx/metrics.jsonl" loss/ptx_avg) < 0.99 * $(first_metric "$TMP/ptx/metrics.jsonl" loss/ptx_avg)"

# data that changed since the run began
head -n 40 "$W/world/sft.jsonl" >"$TMP/ptx.jsonl"
changed=("${MAX[@]}" "ptx.data=[{path: $TMP/ptx.jsonl}]" out_dir="$TMP/fewer")
"${changed[@]}" keep=100 >/dev/null 2>&1
head -n 39 "$W/world/sft.jsonl" >"$TMP/ptx.jsonl"
refuses "records of ptx.data that changed" 65 "ptx.data: its records changed" "${changed[@]}" --resume "$TMP/fewer/checkpoints/step-1"
head -n 30 "$W/world/prompts_ppo.jsonl" >"$TMP/prompts.jsonl"
changed=("${P[@]}" data.train="$TMP/prompts.jsonl" out_dir="$TMP/prompts")
"${changed[@]}" keep=100 iterations=2 >/dev/null 2>&1
head -n 29 "$W/world/prompts_ppo.jsonl" >"$TMP/prompts.jsonl"
refuses "prompts that changed" 65 "data.train: its records changed" "${changed[@]}" iterations=2 --resume "$TMP/prompts/checkpoints/step-1"
"${P[@]}" out_dir="$TMP/equal" reward.normalize=per_model max_new_tokens=1 iterations=1 >"$TMP/equal.log" 2>&1
check "no answer ends: no scale, and it is said" grep -q "there is no scale to map" "$TMP/equal.log"

refuses "samples_per_prompt that does not divide the batch" 78 "samples_per_prompt" "${P[@]}" out_dir="$TMP/x" samples_per_prompt=5
refuses "RLOO with one answer a prompt" 78 "samples_per_prompt to 2" "${P[@]}" out_dir="$TMP/x" advantage=rloo
refuses "normalize without a second model" 78 "reward.normalize" "${P[@]}" out_dir="$TMP/x" reward.normalize=per_model switch.enabled=false
refuses "an adaptive beta of 0" 78 "kl.target" "${P[@]}" out_dir="$TMP/x" kl.target=1 kl_coef=0
refuses "ptx.coef without data" 78 "needs ptx.data" "${P[@]}" out_dir="$TMP/x" ptx.coef=1
refuses "ptx.max_length beyond the micro-batch" 78 "ptx.max_length" "${MAX[@]}" out_dir="$TMP/x" ptx.max_length=1000
refuses "held-out prompts in ptx.data" 65 "prompt" "${MAX[@]}" out_dir="$TMP/x" data.eval="$W/world/sft.jsonl"
"$BIN/rlhf-ppo" -c "$ROOT/configs/ppo.yaml" model=m reward.helpful=h reward.safety=s data.train=t out_dir="$TMP/x" --print-config >"$TMP/ppo.cfg" 2>&1
check "configs/ppo.yaml" grep -q '^scores: *"\?whiten' "$TMP/ppo.cfg"
"$BIN/rlhf-ppo" -c "$ROOT/configs/ppo-max.yaml" model=m reward.helpful=h reward.safety=s data.train=t out_dir="$TMP/x" --print-config >"$TMP/max.cfg" 2>&1
check "configs/ppo-max.yaml" grep -q '^scores: *"\?running' "$TMP/max.cfg"
finish
