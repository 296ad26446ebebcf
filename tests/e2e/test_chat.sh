#!/usr/bin/env bash
# rlhf chat on a tiny world: what it says is what rlhf generate says, turns add up, commands, limits, Ctrl-C.
. "$(dirname "$0")/lib.sh"
tiny_world
M=$W/sft/export
C=("$BIN/rlhf" chat model="$M" template=plain temperature=0 max_new_tokens=12)
prompt=$(grep -o '"prompt": *"[^"]*"' "$W/world/prompts_eval.jsonl" | head -n 1 | sed 's/.*: *"\(.*\)"/\1/')

printf '%s\n' "$prompt" | "${C[@]}" >"$TMP/one" 2>"$TMP/err"
check "a message is answered, nothing on stderr" sh -c "test -s '$TMP/one' && ! test -s '$TMP/err'"
"$BIN/rlhf" generate model="$M" template=plain temperature=0 max_new_tokens=12 --prompt "$prompt" >"$TMP/generated" 2>&1
check "it is what rlhf generate answers" sh -c "sed 's/ \[\.\.\.\]\$//' '$TMP/one' | diff - '$TMP/generated'"

printf '%s\n%s\n' "$prompt" "$prompt" | "${C[@]}" >"$TMP/two" 2>&1
printf '%s\n/reset\n%s\n\n/exit\n%s\n' "$prompt" "$prompt" "$prompt" | "${C[@]}" >"$TMP/reset" 2>&1
check "a line per answer" sh -c "test \$(wc -l <'$TMP/two') = 2"
check "/reset forgets, an empty line says nothing, /exit ends" sh -c "test \$(wc -l <'$TMP/reset') = 2 && test \$(sort -u '$TMP/reset' | wc -l) = 1"
for run in a b; do
    printf '%s\n%s\n' "$prompt" "$prompt" | "${C[@]}" temperature=1 seed=3 threads=$([ $run = a ] && echo 1 || echo 2) >"$TMP/$run" 2>&1
done
same "same seed and messages, same answers" "$TMP/a" "$TMP/b"

printf '/nothing\n%s\n' "$prompt" | "${C[@]}" >"$TMP/out" 2>"$TMP/err"
check "an unknown command is told, and no end" sh -c "grep -q 'no such command: /nothing' '$TMP/err' && cmp '$TMP/out' '$TMP/one'"
for i in 1 2 3 4 5 6; do printf '%s\n' "$prompt"; done | "${C[@]}" max_length=60 >"$TMP/out" 2>"$TMP/err"
check "a full context forgets the oldest, and says so" sh -c "grep -q 'oldest messages are forgotten' '$TMP/err' && test \$(wc -l <'$TMP/out') = 6"
long=$(for i in $(seq 40); do printf '%s ' "$prompt"; done)
printf '%s\n' "$long" >"$TMP/long"
"${C[@]}" max_length=60 <"$TMP/long" >"$TMP/out" 2>"$TMP/err"; rc=$?
check "a message longer than the context: exit 65, one reason" sh -c "test $rc = 65 && grep -q 'raise max_length' '$TMP/err'"
refuses "no model" 78 "model" "$BIN/rlhf" chat
check "--dry-run prints the plan" sh -c "'$BIN/rlhf' chat model='$M' template=plain --dry-run | grep -q 'KV cache'"

# Ctrl-C while an answer is drawn: it ends there, and the next message is answered
mkfifo "$TMP/in"
"${C[@]}" max_new_tokens=200 max_length=256 <"$TMP/in" >"$TMP/out" 2>"$TMP/err" &
pid=$!
exec 9>"$TMP/in"
printf '%s\n' "$prompt" >&9
for _ in $(seq 100); do [ -s "$TMP/out" ] && break; sleep 0.02; done
kill -INT $pid
sleep 0.2
printf '%s\n' "$prompt" >&9
exec 9>&-
wait $pid; rc=$?
check "Ctrl-C leaves the conversation on" sh -c "test $rc = 0 && test \$(wc -l <'$TMP/out') -ge 2"
finish
