#!/usr/bin/env bash
# rlhf plan: every stage of a round planned before anything but its first data is there; then the round is run, and
# memory and checkpoints are what was planned, to the byte.
. "$(dirname "$0")/lib.sh"
R=$TMP/root
common='template: plain, micro_batch_tokens: 512, threads: 1, seed: 3'
cat >"$TMP/e.yaml" <<Y
root: $R
vars: {n_rejection: 12, keep: 3}
stages:
  - name: world
    program: rlhf-demo world
    config: {out: "\${out}", seed: 5, n_base: 64, n_sft: 48, n_helpful: 48, n_safety: 48, n_test: 24, n_rejection: "\${n_rejection}", n_ppo: 16, n_eval: 8, hidden_size: 32, layers: 1}
  - name: sft
    program: rlhf-sft
    config: {out_dir: "\${out}", model: "\${root}/world/model", init: random, data: {train: [{path: "\${root}/world/sft.jsonl"}]}, max_length: 64, batch_size: 8, epochs: 6, optim: {learning_rate: 5e-3}, save_steps: 10, keep: "\${keep}", $common}
  - name: answers
    program: rlhf generate
    config: {model: "\${root}/sft/export", data: {prompts: "\${root}/world/prompts_pairs.jsonl"}, out: "\${out}/samples.jsonl", temperature: 0.8, max_prompt_length: 40, max_new_tokens: 12, slots: 8, $common}
  - name: answers-warm
    program: rlhf generate
    config: {model: "\${root}/sft/export", data: {prompts: "\${root}/world/prompts_pairs.jsonl"}, out: "\${out}/samples.jsonl", round: 2, temperature: 1.2, max_prompt_length: 40, max_new_tokens: 12, slots: 8, $common}
  - name: pairs
    program: rlhf-demo annotate
    config: {a: ["\${root}/answers/samples.jsonl"], b: ["\${root}/answers-warm/samples.jsonl"], out: "\${out}", seed: 5}
  - name: helpful
    program: rlhf-reward train
    config: {out_dir: "\${out}", model: "\${root}/sft/export", data: {train: [{path: "\${root}/pairs/helpful.jsonl"}], eval: [{path: "\${root}/pairs/helpful_test.jsonl"}], on_bad_row: skip}, max_length: 64, batch_size: 16, optim: {learning_rate: 3e-3}, $common}
  - name: safety
    program: rlhf-reward train
    config: {out_dir: "\${out}", model: "\${root}/sft/export", data: {train: [{path: "\${root}/pairs/safety.jsonl"}], eval: [{path: "\${root}/pairs/safety_test.jsonl"}], on_bad_row: skip}, safety_loss: {weight: 1}, max_length: 64, batch_size: 16, optim: {learning_rate: 3e-3}, $common}
  - name: rejection
    program: rlhf-rejection
    config: {out_dir: "\${out}", model: "\${root}/sft/export", reward: {helpful: "\${root}/helpful/export", safety: "\${root}/safety/export"}, data: {prompts: "\${root}/world/prompts_rejection.jsonl"}, k: 4, max_prompt_length: 40, max_new_tokens: 12, slots: 8, $common}
  - name: rs
    program: rlhf-sft
    config: {out_dir: "\${out}", model: "\${root}/sft/export", data: {train: [{path: "\${root}/rejection/selected.jsonl"}], on_bad_row: skip}, max_length: 64, batch_size: 8, $common}
  - name: ppo
    program: rlhf-ppo
    config: {out_dir: "\${out}", model: "\${root}/rs/export", reward: {helpful: "\${root}/helpful/export", safety: "\${root}/safety/export"}, data: {train: "\${root}/world/prompts_ppo.jsonl"}, max_prompt_length: 40, max_new_tokens: 12, batch_size: 8, minibatch_size: 4, iterations: 2, slots: 8, $common}
  - name: scores
    program: rlhf-reward score
    config: {helpful: "\${root}/helpful/export", in: "\${root}/answers/samples.jsonl", out: "\${out}/samples.jsonl", on_bad_row: skip, max_length: 64, template: plain, threads: 1}
Y
P=("$BIN/rlhf" plan "$TMP/e.yaml")

# value STAGE KEY FILE: a number, text or truth of one stage in a plan as JSON
value() { awk -v stage="\"$1\"" -v key="\"$2\":" '$1 == "\"stage\":" { on = $2 == stage "," } on && $1 == key { sub(/^[^:]*: */, ""); gsub(/[",]/, ""); print; exit }' "$3"; }
says() { if grep -qE -- "$2" "$3"; then ok "$1"; else not_ok "$1" "no '$2' in: $(head -n 3 "$3" | tr '\n' ' ')"; fi; }

check "a plan before anything is there" "${P[@]}" --seconds 0
"${P[@]}" --seconds 0 >"$TMP/plan.txt" 2>&1
says "names what a stage waits for" "sft +rlhf-sft +waits: needs $R/world/model, which stage world makes: run that first" "$TMP/plan.txt"
check "and makes nothing" test ! -e "$R"

"$BIN/rlhf" run "$TMP/e.yaml" --only world >"$TMP/world.log" 2>&1 || not_ok "world" "$(tail -n 2 "$TMP/world.log")"
find "$R" -type f | sort >"$TMP/before"
check "a plan of all stages" "${P[@]}" --seconds 0 --json
"${P[@]}" --seconds 0 --json >"$TMP/plan.json" 2>"$TMP/plan.err" & pid=$!
wait $pid
[ ! -s "$TMP/plan.err" ] && ok "without a warning" || not_ok "without a warning" "$(head -n 2 "$TMP/plan.err")"
find "$R" -type f | sort | cmp -s - "$TMP/before" && ok "writes nothing" || not_ok "writes nothing" "root has other files"
[ -z "$(ls -d /tmp/rlhf-plan.$pid.* 2>/dev/null)" ] && ok "leaves no temporary folder" || not_ok "leaves no temporary folder" "$(ls -d /tmp/rlhf-plan.$pid.*)"
bad=$(for s in sft answers answers-warm helpful safety rejection rs ppo scores; do [ "$(value $s state "$TMP/plan.json")" = planned ] || echo " $s"; done)
[ -z "$bad" ] && ok "models and data that are not there yet are stood in for" || not_ok "models and data that are not there yet are stood in for" "$bad: $("${P[@]}" --seconds 0 2>&1 | grep -E 'refused|waits' | head -n 2)"
[ "$(value pairs state "$TMP/plan.json")" = "not planned" ] && ok "a program that plans nothing is named" || not_ok "a program that plans nothing is named" "$(value pairs state "$TMP/plan.json")"
[ "$(value rs estimated_data "$TMP/plan.json")" = true ] && [ "$(value sft estimated_data "$TMP/plan.json")" = false ] && ok "stood-in data are said to be" || not_ok "stood-in data are said to be"
compares "steps of data that are there" "$(value sft steps "$TMP/plan.json") == 36"
compares "at most as many selected records as prompts" "$(value rs steps "$TMP/plan.json") == 4"
compares "answers are as long as those trained on" "$(value ppo sampled_tokens "$TMP/plan.json") < 16 * 12"
[ "$(value ppo longest_answers "$TMP/plan.json")" = false ] && ok "known from the stage that makes the model" || not_ok "known from the stage that makes the model"
"${P[@]}" --seconds 0 --json --answer-tokens 5 >"$TMP/five.json" 2>&1
compares "--answer-tokens" "$(value ppo sampled_tokens "$TMP/five.json") == 80"

# two plans stretched: 5000 prompts in batches of 8, two epochs
"$BIN/rlhf-demo" world "$TMP/many" seed=5 n_base=8 n_sft=8 n_helpful=8 n_safety=8 n_test=8 n_rejection=5000 n_ppo=8 n_eval=8 hidden_size=32 layers=1 >/dev/null 2>&1
sed "s|\${root}/world/prompts_rejection|$TMP/many/prompts_rejection|" "$TMP/e.yaml" >"$TMP/many.yaml"
"$BIN/rlhf" plan "$TMP/many.yaml" --seconds 0 --json >"$TMP/many.json" 2>&1
compares "a plan of 5000 records is that of fewer, stretched" "$(value rs steps "$TMP/many.json") == 1250"

# --- the truth
"$BIN/rlhf" run "$TMP/e.yaml" >"$TMP/run.log" 2>&1 || not_ok "the round" "$(tail -n 3 "$TMP/run.log" | tr '\n' ' ')"
for s in sft helpful safety rejection rs ppo; do
    used=$(sed -nE 's/.*memory in use: ([0-9]+) bytes.*/\1/p' "$R/$s/log.txt" | head -n 1)
    [ -n "$used" ] && [ "$used" = "$(value $s host_bytes "$TMP/plan.json")" ] && ok "memory of $s, to the byte ($used)" || not_ok "memory of $s, to the byte" "planned $(value $s host_bytes "$TMP/plan.json"), used '$used'"
done
state=$(find "$R/sft/checkpoints" -name state.bin | head -n 1)
compares "bytes of a checkpoint" "$(stat -c %s "$state") == $(value sft checkpoint_bytes "$TMP/plan.json")"
compares "number of checkpoints, one being written" "$(find "$R/sft/checkpoints" -name state.bin | wc -l) + 1 == $(value sft checkpoints "$TMP/plan.json")"
export=$(($(value rs disk_bytes "$TMP/plan.json") - $(value rs checkpoint_bytes "$TMP/plan.json") * $(value rs checkpoints "$TMP/plan.json"))) # of weights, without names
compares "bytes of the export" "$(stat -c %s "$R/rs/export/model.safetensors") - $export >= 0 && $(stat -c %s "$R/rs/export/model.safetensors") - $export < 4096"
"${P[@]}" --seconds 0 --json >"$TMP/after.json" 2>&1
compares "what a done stage took" "$(value ppo took_seconds "$TMP/after.json") > 0"
compares "tokens trained, planned from the data" "$(value sft trained_tokens "$TMP/plan.json") == $(metric "$R/sft/metrics.jsonl" num_tokens)"

# --- time
check "with times" "${P[@]}" --seconds 1
"${P[@]}" --seconds 1 >"$TMP/plan.txt" 2>&1
says "a time for each stage" "ppo +rlhf-ppo .* ~[0-9.]+ (s|min)" "$TMP/plan.txt"
says "and what was measured" "measured in [0-9.]+ s: .* tokens/s trained" "$TMP/plan.txt"
says "a total" "total .*~[0-9.]+ (s|min)" "$TMP/plan.txt"
"${P[@]}" --seconds 1 --json >"$TMP/time.json" 2>&1
compares "ten times the epochs take longer" "$(sed 's/epochs: 6/epochs: 60000/' "$TMP/e.yaml" >"$TMP/long.yaml"; "$BIN/rlhf" plan "$TMP/long.yaml" --seconds 1 --json >"$TMP/long.json" 2>&1; value sft seconds "$TMP/long.json") > 20 * $(value sft seconds "$TMP/time.json")"

# --- what does not fit
sed 's/epochs: 6/epochs: 1000000/' "$TMP/e.yaml" >"$TMP/disk.yaml"
cp -r "$R" "$TMP/disk"; rm -rf "$TMP/disk/stages" # none is done: all is still to be written
"$BIN/rlhf" plan "$TMP/disk.yaml" --seconds 0 vars.keep=1000000 root="$TMP/disk" >"$TMP/plan.txt" 2>&1
says "a disk that is too small" "^! the disk is too small: lower keep" "$TMP/plan.txt"
sed 's/micro_batch_tokens: 512/micro_batch_tokens: 900000000/' "$TMP/e.yaml" >"$TMP/memory.yaml"
"$BIN/rlhf" plan "$TMP/memory.yaml" --seconds 0 >"$TMP/plan.txt" 2>&1
says "memory that is too small" "^! sft does not fit into memory" "$TMP/plan.txt"
sed 's/batch_size: 16/batch_size: -16/' "$TMP/e.yaml" >"$TMP/bad.yaml"
"$BIN/rlhf" plan "$TMP/bad.yaml" --seconds 0 >"$TMP/plan.txt" 2>&1; rc=$?
[ $rc = 78 ] && ok "a stage that is refused gives its exit code" || not_ok "a stage that is refused gives its exit code" "$rc"
rm -rf "$TMP/fresh"; mkdir "$TMP/fresh"; cp -r "$R/world" "$TMP/fresh/"
"$BIN/rlhf" plan "$TMP/bad.yaml" --seconds 0 root="$TMP/fresh" 2>&1 | sed "s|$TMP/fresh|$R|" >"$TMP/bad.txt"
says "and its sentence" "helpful +rlhf-reward train +refused: $R/configs/helpful.yaml:[0-9:]+ batch_size: expected .*-16" "$TMP/plan.txt"
says "and what goes on from it waits" "rejection +rlhf-rejection +waits: needs $R/helpful/export, which stage helpful makes$" "$TMP/bad.txt"

# --- one program, cards, the command line
SFT=(rlhf-sft model="$R/world/model" init=random template=plain max_length=64 micro_batch_tokens=512 threads=1 "data.train=[{path: $R/world/sft.jsonl}]" out_dir="$TMP/one")
check "one program" "$BIN/rlhf" plan "${SFT[@]}"
"$BIN/rlhf" plan --seconds 0 --cards --json "${SFT[@]}" dtype=bf16 unit_tokens=512 >"$TMP/card.json" 2>&1
compares "a card that is not here is planned for" "$(value '' card_bytes "$TMP/card.json") > 0"
"$BIN/rlhf" plan --cards "${SFT[@]}" dtype=bf16 unit_tokens=512 >"$TMP/plan.txt" 2>&1
says "which cards hold it" "rlhf-sft .* yes +yes +yes$" "$TMP/plan.txt"
"$BIN/rlhf" plan --cards "${SFT[@]}" dtype=bf16 unit_tokens=512 micro_batch_tokens=80000000 >"$TMP/plan.txt" 2>&1
says "and which do not" "rlhf-sft .* no +no +(no|yes)$" "$TMP/plan.txt"
refuses "no file" 2 "no experiment file and no program given" "$BIN/rlhf" plan
refuses "a number" 2 "--seconds: found 'x', expected a number" "$BIN/rlhf" plan --seconds x "$TMP/e.yaml"
refuses "a program that plans nothing" 2 "rlhf-demo: no program that plans" "$BIN/rlhf" plan rlhf-demo world
refuses "--plan where there is none" 2 "--plan: unknown option" "$BIN/rlhf" inspect --plan "$TMP/x"
refuses "an experiment that is not there" 66 "none.yaml" "$BIN/rlhf" plan "$TMP/none.yaml"
finish
