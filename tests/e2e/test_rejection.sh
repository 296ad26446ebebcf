#!/usr/bin/env bash
# rlhf-rejection end to end on a tiny world: answers free of the batch, resume after kill -9, selection.
. "$(dirname "$0")/lib.sh"
tiny_world
R=("$BIN/rlhf-rejection" model="$W/sft/export" reward.helpful="$W/helpful/export" reward.safety="$W/safety/export"
   template=plain data.prompts="$W/world/prompts_rejection.jsonl" k=4 max_prompt_length=40 max_new_tokens=12
   micro_batch_tokens=512 block_prompts=4 seed=9 save_steps=1)
check "runs" "${R[@]}" out_dir="$TMP/ref"
"${R[@]}" out_dir="$TMP/other" slots=3 block_prompts=7 threads=1 micro_batch_tokens=64 >/dev/null 2>&1
same "samples: other slots, blocks, threads, packs" "$TMP/ref/samples.jsonl" "$TMP/other/samples.jsonl"
same "selected: the same" "$TMP/ref/selected.jsonl" "$TMP/other/selected.jsonl"
n=$(grep -c . "$W/world/prompts_rejection.jsonl")
compares "k answers per prompt" "$(grep -c . "$TMP/ref/samples.jsonl") == 4 * $n"
compares "at most one choice per prompt" "$(grep -c . "$TMP/ref/selected.jsonl") <= $n && $(grep -c . "$TMP/ref/selected.jsonl") > 0"
check "an unfinished answer is never selected" sh -c "! grep '\"finished\": *false' $TMP/ref/samples.jsonl | grep -q '\"selected\": *true'"
check "curves" grep -q max_of_n "$TMP/ref/curves.json"

# for this program the answers are the result
FILES="samples.jsonl selected.jsonl curves.json metrics.jsonl STATUS"
kills_in rlhf-rejection "$TMP/ref" "$FILES" \
"- model_extend while answers are sampled
checkpoint_save syscall while a checkpoint is written
reward_model_score model_forward while answers are scored
- metrics_write between an answer file and its checkpoint" "${R[@]}"
kills_at_files "kill -9 or a full disk, then resume" "$TMP/ref" "$FILES" "${R[@]}"

"${R[@]}" out_dir="$TMP/random" select.mode=random >/dev/null 2>&1
check "the random control picks others" sh -c "! cmp -s $TMP/ref/selected.jsonl $TMP/random/selected.jsonl"
refuses "N = 0" 78 "k: .*(1|range|expected)" "${R[@]}" out_dir="$TMP/x" k=0
refuses "an unanchored safety model" 65 "anchored" "${R[@]}" out_dir="$TMP/x" reward.safety="$W/helpful/export"
cp -r "$W/sft/export" "$TMP/small"; sed -i 's/"vocab_size": *[0-9]*/"vocab_size": 20/' "$TMP/small/config.json"
refuses "a tokenizer of another model" 65 "vocab_size is 20; the tokenizer belongs" "${R[@]}" out_dir="$TMP/x" model="$TMP/small"
refuses "prompt longer than the context" 65 "prompt|token" "${R[@]}" out_dir="$TMP/x" max_prompt_length=2
finish
