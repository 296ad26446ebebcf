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
    # the reference stops after 256 tokens of prompt and answer, so ours must begin with it
    grep '^### prompt:.* -t 0 ' "$S/reference_greedy.txt" | sed 's/^### prompt: \[\(.*\)\] -t 0.*/\1/' >"$TMP/starts"
    while IFS= read -r start; do
        awk -v head="### prompt: [$start] -t 0 -n 256" 'index($0, "### ") == 1 { on = $0 == head; next } on' \
            "$S/reference_greedy.txt" >"$TMP/want"
        want=$(cat "$TMP/want")
        got=$("$BIN/rlhf" generate --raw --model "$S" --prompt "$start" temperature=0 max_new_tokens=256 2>&1)
        if [ -n "$want" ] && [ "${got:0:${#want}}" = "$want" ]; then ok "stories260k: greedy text of '$start'"
        else not_ok "stories260k: greedy text of '$start'" "${got:0:200}"; fi
    done <"$TMP/starts"
    check "stories260k: there are reference texts" test -s "$TMP/starts"
else
    skip "stories260k: greedy text" "../shared is not there"
fi
finish
