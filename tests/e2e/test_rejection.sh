#!/usr/bin/env bash
# rlhf-rejection end to end on a tiny world: answers free of the batch, resume after kill -9, selection,
# curves by temperature, pools of earlier rounds.
. "$(dirname "$0")/lib.sh"
tiny_world
# the world asks some questions twice; here a prompt has one record
awk '{ p = $0; sub(/.*"prompt": */, "", p); if (!seen[p]++) print }' "$W/world/prompts_rejection.jsonl" >"$W/prompts.jsonl"
R=("$BIN/rlhf-rejection" model="$W/sft/export" reward.helpful="$W/helpful/export" reward.safety="$W/safety/export"
   template=plain data.prompts="$W/prompts.jsonl" k=4 max_prompt_length=40 max_new_tokens=12
   micro_batch_tokens=512 block_prompts=4 seed=9 save_steps=1)
check "runs" "${R[@]}" out_dir="$TMP/ref"
"${R[@]}" out_dir="$TMP/other" slots=3 block_prompts=7 threads=1 micro_batch_tokens=64 >/dev/null 2>&1
same "samples: other slots, blocks, threads, packs" "$TMP/ref/samples.jsonl" "$TMP/other/samples.jsonl"
same "selected: the same" "$TMP/ref/selected.jsonl" "$TMP/other/selected.jsonl"
n=$(grep -c . "$W/prompts.jsonl")
compares "k answers per prompt" "$(grep -c . "$TMP/ref/samples.jsonl") == 4 * $n"
compares "answers to read in the report" "$(sed -n '/<h2>samples/,/<.table>/p' "$TMP/ref/report.html" | grep -c "^<tr><td>") == 16"
compares "at most one choice per prompt" "$(grep -c . "$TMP/ref/selected.jsonl") <= $n && $(grep -c . "$TMP/ref/selected.jsonl") > 0"
check "an unfinished answer is never selected" sh -c "! grep '\"finished\": *false' $TMP/ref/samples.jsonl | grep -q '\"selected\": *true'"
# curves: one a temperature, against the samples. An answer without an end counts as the lowest finished one
# of its prompt; a prompt without any finished answer does not count.
check "a sweep" "${R[@]}" out_dir="$TMP/sweep" "temperatures=[0.6,1.4]"
# best_of_k TEMPERATURE: mean best of k of the untagged prompts
best_of_k() {
    awk -v T="$1" 'function value(key,  s) { if (!match($0, "\"" key "\": *[-0-9.e+a-z]+")) return ""
                       s = substr($0, RSTART, RLENGTH); sub(/.*: */, "", s); return s }
        !/"tags": *\["safety"\]/ {
            match($0, /"id": *"[^"]*"/); id = substr($0, RSTART, RLENGTH); seen[id] = 1
            if (value("finished") != "true") next
            x = value("reward_helpful") + 0
            if (!(id in low) || x < low[id]) low[id] = x
            if (value("temperature") == T && (!(id in best) || x > best[id])) best[id] = x }
        END { for (id in low) { sum += id in best ? best[id] : low[id]; n++ }; printf "%.9g", sum / n }' "$TMP/sweep/samples.jsonl"
}
at() { grep -A6 "\"temperature\": $1," "$TMP/sweep/curves.json" | grep -o '"best_of_k": [-0-9.e]*' | head -n 1 | sed 's/.*: //'; }
for t in 0.6 1.4; do
    compares "curve at temperature $t" "($(best_of_k $t) - $(at $t))^2 < 1e-10"
done
best=$(awk "BEGIN { print ($(at 0.6) >= $(at 1.4)) ? 0.6 : 1.4 }")
check "the last lines say which temperature is best" grep -q "untagged_by_helpful, .* highest at temperature $best\$" "$TMP/sweep/log.txt"
check "and so does curves.json" sh -c "grep -A2 best_temperature $TMP/sweep/curves.json | grep -q '\"untagged_by_helpful\": $best'"

# ---- pools: answers of earlier rounds compete again
gzip -c "$TMP/sweep/samples.jsonl" >"$TMP/pool.jsonl.gz"
{ head -n 3 "$TMP/ref/samples.jsonl"; echo '{"prompt": "of another run", "answer": "x", "finished": true}'; } >"$TMP/pool2.jsonl"
P=("${R[@]}" seed=10 "pools=[$TMP/pool.jsonl.gz, $TMP/pool2.jsonl]")
check "runs with pools" "${P[@]}" out_dir="$TMP/pooled"
check "answers to other prompts are counted" grep -q "left out: 1 to prompts not in this run" "$TMP/pooled/log.txt"
"${P[@]}" out_dir="$TMP/pooled_other" slots=3 block_prompts=7 threads=1 micro_batch_tokens=64 >/dev/null 2>&1
same "pools: other slots, blocks, threads, packs" "$TMP/pooled/samples.jsonl" "$TMP/pooled_other/samples.jsonl"
"${R[@]}" seed=10 out_dir="$TMP/fresh" >/dev/null 2>&1
n_pool=$(grep -c '"pool": ' "$TMP/pooled/samples.jsonl")
compares "answers of the pools compete" "$n_pool > 0 && $n_pool == $(metric "$TMP/pooled/metrics.jsonl" rejection/pool_answers)"
grep -v '"pool": ' "$TMP/pooled/samples.jsonl" | sed 's/, "selected": [a-z]*//' >"$TMP/fresh_of_pooled"
sed 's/, "selected": [a-z]*//' "$TMP/fresh/samples.jsonl" >"$TMP/fresh_only"
same "they change no fresh answer" "$TMP/fresh_only" "$TMP/fresh_of_pooled"
same "nor the curves" "$TMP/fresh/curves.json" "$TMP/pooled/curves.json"
check "an unfinished answer never competes" sh -c "! grep '\"pool\": ' $TMP/pooled/samples.jsonl | grep -q '\"finished\": *false'"
compares "some are selected" "$(grep -c '"pool": ' "$TMP/pooled/selected.jsonl") > 0 &&
    $(metric "$TMP/pooled/metrics.jsonl" rejection/selected_helpful) > $(metric "$TMP/fresh/metrics.jsonl" rejection/selected_helpful)"
zcat "$TMP/pool.jsonl.gz" | sed 's/"reward_\(helpful\|safety\)": *[-0-9.e]*/"reward_\1":77/g' | gzip >"$TMP/pool_scored.jsonl.gz"
mkdir -p "$TMP/moved" && cp "$TMP/pool2.jsonl" "$TMP/moved" && cp "$TMP/pool_scored.jsonl.gz" "$TMP/moved/pool.jsonl.gz"
(cd "$TMP/moved" && "${P[@]}" "pools=[pool.jsonl.gz, pool2.jsonl]" out_dir="$TMP/rescored") >/dev/null 2>&1
sed "s|\"pool\": *\"$TMP/|\"pool\":\"|" "$TMP/pooled/samples.jsonl" | sed 's/"pool": */"pool":/' >"$TMP/a.names"
sed 's/"pool": */"pool":/' "$TMP/rescored/samples.jsonl" >"$TMP/b.names"
same "the scores in a pool are not looked at" "$TMP/a.names" "$TMP/b.names"
"${R[@]}" "pools=[$TMP/ref/samples.jsonl]" out_dir="$TMP/again" >/dev/null 2>&1
same "answers given again compete once" "$TMP/ref/samples.jsonl" "$TMP/again/samples.jsonl"
check "and are counted" grep -qE "pools: 0 answers competed, 0 of them selected; [1-9][0-9]* were given again" "$TMP/again/log.txt"
check "k = 0 chooses among the pools" "${R[@]}" k=0 "pools=[$TMP/ref/samples.jsonl, $TMP/pool.jsonl.gz]" out_dir="$TMP/only"
compares "k = 0: every answer is a pool's" "$(grep -c . "$TMP/only/samples.jsonl") == $(grep -c '"pool": ' "$TMP/only/samples.jsonl") && $(grep -c . "$TMP/only/selected.jsonl") > 0"
check "choices of choices" "${R[@]}" k=0 "pools=[$TMP/ref/selected.jsonl]" out_dir="$TMP/twice"
completions() { grep -o '"completion":.*' "$TMP/$1/selected.jsonl" | grep -v -e Human: -e Assistant: >"$TMP/$1.completions"; }
completions ref; completions twice
same "a choice among one" "$TMP/ref.completions" "$TMP/twice.completions"
tail -n 1 "$TMP/pool2.jsonl" >"$TMP/lone.jsonl"
refuses "k = 0, and no pool answers these prompts" 65 "pools: of 1 lines" "${R[@]}" k=0 "pools=[$TMP/lone.jsonl]" out_dir="$TMP/x"
refuses "a pool that is not there" 66 "nowhere.jsonl" "${R[@]}" "pools=[$TMP/nowhere.jsonl]" out_dir="$TMP/x"

# for this program the answers are the result
FILES="samples.jsonl selected.jsonl curves.json metrics.jsonl STATUS"
kills_in rlhf-rejection "$TMP/ref" "$FILES" \
"- step_run while answers are sampled
checkpoint_save syscall while a checkpoint is written
reward_model_score model_forward while answers are scored
- metrics_write between an answer file and its checkpoint" "${R[@]}"
kills_at_files "kill -9 or a full disk, then resume" "$TMP/ref" "$FILES" "${R[@]}"
kills_at_files "the same with pools" "$TMP/pooled" "$FILES" "${P[@]}"
# a finished run put back to its last checkpoint
cp -r "$TMP/pooled" "$TMP/back"; echo running >"$TMP/back/STATUS"; rm "$TMP/back/samples.jsonl"
cp -r "$TMP/back" "$TMP/changed"
check "goes on from its last checkpoint" "${P[@]}" out_dir="$TMP/back" --resume auto
same "and ends the same" "$TMP/pooled/samples.jsonl" "$TMP/back/samples.jsonl"
head -n 2 "$TMP/ref/samples.jsonl" >"$TMP/pool2.jsonl"
refuses "a pool that changed" 65 "pools: .*pool2.jsonl: changed since this run began" "${P[@]}" out_dir="$TMP/changed" --resume auto

"${R[@]}" out_dir="$TMP/random" select.mode=random >/dev/null 2>&1
check "the random control picks others" sh -c "! cmp -s $TMP/ref/selected.jsonl $TMP/random/selected.jsonl"
refuses "N = 0 without pools" 78 "k: found 0, expected at least 1, or pools" "${R[@]}" out_dir="$TMP/x" k=0
refuses "an unanchored safety model" 65 "anchored" "${R[@]}" out_dir="$TMP/x" reward.safety="$W/helpful/export"
cp -r "$W/sft/export" "$TMP/small"; sed -i 's/"vocab_size": *[0-9]*/"vocab_size": 20/' "$TMP/small/config.json"
refuses "a tokenizer of another model" 65 "vocab_size is 20; the tokenizer belongs" "${R[@]}" out_dir="$TMP/x" model="$TMP/small"
refuses "prompt longer than the context" 65 "prompt|token" "${R[@]}" out_dir="$TMP/x" max_prompt_length=2
finish
