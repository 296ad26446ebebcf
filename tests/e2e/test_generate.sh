#!/usr/bin/env bash
# rlhf generate and inspect on a tiny world, and on the real stories260k where it is at hand.
. "$(dirname "$0")/lib.sh"
tiny_world
G=("$BIN/rlhf" generate model="$W/sft/export" data.prompts="$W/world/prompts_eval.jsonl" template=plain samples=3
   max_prompt_length=40 max_new_tokens=12 seed=11)
check "runs" "${G[@]}" --out "$TMP/a.jsonl"
"${G[@]}" --out "$TMP/b.jsonl" slots=2 threads=1 micro_batch_tokens=52 >/dev/null 2>&1
same "answers do not depend on slots, threads, prefill chunks" "$TMP/a.jsonl" "$TMP/b.jsonl"
"${G[@]}" --out "$TMP/c.jsonl" reference="$W/sft/export" temperature=0.7 >/dev/null 2>&1
check "KL of a model to itself is exactly 0, also at temperature 0.7" sh -c "! grep -v '\"kl\": *-\\?0[,.}]' $TMP/c.jsonl | grep -q ."
check "inspect shows ids and mask" sh -c "'$BIN/rlhf' inspect model='$W/sft/export' data='$W/world/sft.jsonl' template=plain count=2 | grep -q ' \\* '"
"$BIN/rlhf" inspect model="$W/sft/export" data="$W/world/sft.jsonl" template=plain count=5 >"$TMP/inspect" 2>&1
check "one BOS a sequence" sh -c "test \$(grep -c '<s>' $TMP/inspect) = 5"

S=$SHARED/models/stories260k
if [ -d "$S" ]; then
    grep -A2 '^### prompt: \[Once upon a time\] -t 0' "$S/reference_greedy.txt" | tail -n +2 | head -n 1 >"$TMP/want"
    "$BIN/rlhf" generate --raw --model "$S" --prompt "Once upon a time" temperature=0 max_new_tokens=250 >"$TMP/got" 2>&1
    check "stories260k: greedy text" sh -c "head -n 1 '$TMP/got' | cmp -s - '$TMP/want'"
else
    skip "stories260k: greedy text" "../shared is not there"
fi
finish
