#!/usr/bin/env bash
# rlhf-reward eval end to end on a tiny world: tables, comparisons, judge, curve; what may not change a number.
. "$(dirname "$0")/lib.sh"
tiny_world
P=$W/pairs
E=("$BIN/rlhf-reward" eval template=plain on_bad_row=skip)
ONE=("${E[@]}" model="$W/safety/export" "data=[{path: $P/safety_test.jsonl}]")
flat() { tr -d ' \n' <"$1"; }
# values of "KEY": NUMBER, in the order of the file
values() { flat "$1" | grep -o "\"$2\":[-0-9.e]*" | sed 's/.*://'; }

# ---- one model
check "one model, one set" "${ONE[@]}" out_dir="$TMP/e1"
"${ONE[@]}" out_dir="$TMP/e2" max_length=48 micro_batch_tokens=64 threads=1 >/dev/null 2>&1
same "eval does not depend on the pack or the threads" "$TMP/e1/eval.json" "$TMP/e2/eval.json"
trained=$(flat "$W/safety/eval.json"); trained=${trained#\{}; trained=${trained%\}}
case "$(flat "$TMP/e1/eval.json")" in
*"$trained"*) ok "and finds what training found at its end" ;;
*) not_ok "and finds what training found at its end" "eval.json has not the table of $W/safety/eval.json" ;;
esac
"${ONE[@]}" >"$TMP/one.txt" 2>/dev/null
check "the model is called by its run" grep -q "^  safety  *[0-9.]* \[" "$TMP/one.txt"
check "length stands beside it" grep -q "^  length  *[0-9.]* \[" "$TMP/one.txt"

# ---- two models
"${ONE[@]}" compare="$W/helpful/export" precision=0.6 out_dir="$TMP/made/e3" >"$TMP/e3.txt" 2>&1
check "a comparison: two columns and the difference" grep -q "ROC AUC.*\].*\].*\[[+-]" "$TMP/e3.txt"
check "a comparison in the JSON" grep -q recall_at_same_precision "$TMP/made/e3/eval.json"
check "the wished precision in the JSON" grep -q '"precision": 0.6' "$TMP/made/e3/eval.json"
echo '{}' >"$TMP/empty.json"
C=("$BIN/rlhf-demo" controls whole="$TMP/empty.json" shuffled="$TMP/empty.json" random="$TMP/empty.json" switch="$TMP/empty.json" beta0="$TMP/empty.json")
refuses "a control without numbers is a failure, not a pass" 1 "6 of 6 rules failed|5 of 6 rules failed|4 of 6 rules failed" \
    "${C[@]}" "unanchored=[{title: a, path: $TMP/made/e3/eval.json}]"
refuses "a control that was compared with nothing" 65 "e1/eval.json.*compare" "${C[@]}" "unanchored=[{title: a, path: $TMP/e1/eval.json}]"

MODELS="models=[{path: $W/helpful/export, name: helpfulness}, {path: $W/safety/export, name: safety}]"
SETS="data=[{path: $P/helpful_test.jsonl}, {path: $P/safety_test.jsonl, name: safe}]"
check "two models on two sets" "${E[@]}" "$MODELS" "$SETS" out_dir="$TMP/cross"
"${E[@]}" "$MODELS" "$SETS" >"$TMP/cross.txt" 2>/dev/null
check "the cross table: two sets and their mean" grep -q "^  helpfulness  *[0-9.]* \[.*\]  *[0-9.]* \[.*\]  *[0-9.]* \[.*\]" "$TMP/cross.txt"
check "a page without a request to anywhere" sh -c "grep -q '<svg' $TMP/cross/eval.html && ! grep -qE 'src=|href=|@import|url\(|<script' $TMP/cross/eval.html"
if command -v xmllint >/dev/null; then check "the page is well-formed" sh -c "xmllint --html --noout --recover $TMP/cross/eval.html 2>&1 | grep -v 'Tag svg\|Tag path\|Tag text\|Tag line\|Tag rect\|Tag circle\|Tag figure' | grep -c 'HTML parser error' | grep -qx 0"
else skip "the page is well-formed" "no xmllint"; fi
# one set alone gives what it gives beside another
on_safe() { flat "$1" | sed 's/"set":"safety_test"/"set":"safe"/g' | grep -o '"set":"safe","all":{[^}]*}' | tail -n 2 | head -n 1; }
[ -n "$(on_safe "$TMP/cross/eval.json")" ] && [ "$(on_safe "$TMP/cross/eval.json")" = "$(on_safe "$TMP/e1/eval.json")" ] &&
    ok "a set does not depend on the others" || not_ok "a set does not depend on the others" "$(on_safe "$TMP/cross/eval.json") and $(on_safe "$TMP/e1/eval.json")"
"${E[@]}" model="$W/safety/export" "data=[{path: $P/safety_test.jsonl, name: x}, {path: $P/helpful_test.jsonl, name: y}, {path: $P/safety_test.jsonl, name: x}]" \
    out_dir="$TMP/pooled" >/dev/null 2>&1
check "files of one name are one set" sh -c "grep -c '\"pairs\"' $TMP/pooled/eval.json | grep -qx 2"
compares "with the pairs of both" "$(values "$TMP/pooled/eval.json" pairs | head -n 1) == 2 * $(values "$TMP/e1/eval.json" pairs | head -n 1)"

# ---- another tokenizer file, the same tokens: read once more, the same numbers
cp -r "$W/safety/export" "$TMP/other"; echo >>"$TMP/other/tokenizer.json"
check "models of two tokenizers" "${ONE[@]}" compare="$TMP/other" out_dir="$TMP/two"
[ "$(flat "$TMP/two/eval.json" | grep -o '"accuracy_difference":{[^}]*}' | head -n 1)" = '"accuracy_difference":{"value":0,"low":0,"high":0}' ] &&
    ok "agree where the tokens do" || not_ok "agree where the tokens do" "$(grep -A 4 accuracy_difference "$TMP/two/eval.json" | tr -d '\n')"

sed -i 's/"max_position_embeddings": *[0-9]*/"max_position_embeddings": 18/' "$TMP/other/config.json"
"${ONE[@]}" compare="$TMP/other" out_dir="$TMP/short" >/dev/null 2>"$TMP/short.log"
"${ONE[@]}" max_length=18 out_dir="$TMP/short1" >/dev/null 2>&1
[ "$(flat "$TMP/short/eval.json" | grep -o '"all":{[^}]*}' | head -n 1)" = "$(flat "$TMP/short1/eval.json" | grep -o '"all":{[^}]*}' | head -n 1)" ] &&
    ok "what is too long for one of them is left out for both" || not_ok "what is too long for one of them is left out for both" "$(cat "$TMP/short.log")"
compares "some are left out, not all" "$(values "$TMP/short/eval.json" pairs | head -n 1) < $(values "$TMP/e1/eval.json" pairs | head -n 1) && $(values "$TMP/short/eval.json" pairs | head -n 1) > 0"
check "and it says so" grep -q "records are left out" "$TMP/short.log"

# ---- the judge: the policy itself, asked with words it has
JUDGE=(judge.model="$W/sft/export" judge.template=plain "judge.letters=[a, b]" "judge.prompt={prompt} , a is {a} , b is {b}")
check "a judge" "${ONE[@]}" "${JUDGE[@]}" out_dir="$TMP/j1"
"${ONE[@]}" "${JUDGE[@]}" out_dir="$TMP/j2" micro_batch_tokens=64 threads=1 >"$TMP/j2.txt" 2>&1
same "its answers do not depend on the pack or the threads" "$TMP/j1/eval.json" "$TMP/j2/eval.json"
check "its row stands with the models" grep -q "^  judge  *[0-9.]* \[" "$TMP/j2.txt"
check "agreement and liking for a place" sh -c "grep -q agreement $TMP/j1/eval.json && grep -q says_first $TMP/j1/eval.json"
sed 's/"chosen"/"x"/; s/"rejected"/"chosen"/; s/"x"/"rejected"/; s/"chosen_safe"/"x"/; s/"rejected_safe"/"chosen_safe"/; s/"x"/"rejected_safe"/' \
    "$P/safety_test.jsonl" >"$TMP/safety_test.jsonl"
"${E[@]}" model="$W/safety/export" "data=[{path: $TMP/safety_test.jsonl}]" "${JUDGE[@]}" out_dir="$TMP/mirror" >/dev/null 2>&1
judged() { flat "$1" | grep -o '"judge":{"prompt".*' | grep -o "\"$2\":{\"value\":[-0-9.e]*" | sed 's/.*://'; }
[ -n "$(judged "$TMP/j1/eval.json" says_first)" ] || not_ok "the judge's numbers" "none in $TMP/j1/eval.json"
compares "answers swapped: its accuracy is the mirror image" \
    "($(judged "$TMP/j1/eval.json" accuracy) + $(judged "$TMP/mirror/eval.json" accuracy) - 1) ^ 2 < 1e-20"
compares "and each order becomes the other" \
    "($(judged "$TMP/j1/eval.json" accuracy_chosen_first) + $(judged "$TMP/mirror/eval.json" accuracy_chosen_second) - 1) ^ 2 < 1e-20"
for key in agreement says_first log_odds_of_first mass_on_letters; do
    compares "and its $key stays" "($(judged "$TMP/j1/eval.json" $key) - $(judged "$TMP/mirror/eval.json" $key)) ^ 2 < 1e-20"
done
"${ONE[@]}" "${JUDGE[@]}" judge.max_pairs=5 out_dir="$TMP/j5" >/dev/null 2>&1
check "five pairs are enough when asked for five" sh -c "sed -n '/^  \"judge\"/,\$ p' $TMP/j5/eval.json | grep -q '\"pairs\": 5,'"
check "a judge that wants to say something else is named" grep -q "letters have a probability of 0.0" "$TMP/j2.txt"
refuses "a question longer than the judge can read" 78 "judge.max_length: .*max_position_embeddings 64" "${ONE[@]}" "${JUDGE[@]}" \
    judge.max_length=100
refuses "letters that the judge cannot tell apart" 78 "judge.letters: 'A' and 'B' begin with the same token" "${ONE[@]}" \
    judge.model="$W/sft/export" judge.template=plain
refuses "a question without the answers" 78 "judge.prompt: has no {b}" "${ONE[@]}" "${JUDGE[@]}" "judge.prompt={prompt} {a}"
refuses "a reward model as judge" 65 "expected a causal model as judge" "${ONE[@]}" "${JUDGE[@]}" judge.model="$W/helpful/export"

# ---- accuracy against training-set size
for f in 0.3 1; do
    "$BIN/rlhf-reward" train "data.train=[{path: $P/safety.jsonl}]" safety_loss.weight=1 data.fraction=$f max_steps=3 \
        "${REWARD[@]}" out_dir="$TMP/size-$f" >"$TMP/size.log" 2>&1 || not_ok "train on $f of the prompts" "$(tail -n 1 "$TMP/size.log")"
done
check "a curve" "${ONE[@]}" "curve=[{path: $TMP/size-1/export}, {path: $TMP/size-0.3/export}, {path: $W/helpful/export, examples: 7, name: other}]" \
    out_dir="$TMP/curve"
values "$TMP/curve/eval.json" examples >"$TMP/sizes"
compares "by ascending size, as config.json says" "$(sed -n 1p "$TMP/sizes") < $(sed -n 2p "$TMP/sizes") && $(sed -n 3p "$TMP/sizes") == 7"
check "and a plot of it" grep -q "All pairs: safety_test" "$TMP/curve/eval.html"
cp -r "$TMP/size-1/export" "$TMP/unsaid"; sed -i 's/rlhf_training/rlhf_nothing/' "$TMP/unsaid/config.json"
refuses "a model that does not say what it has learned from" 65 "unsaid/config.json.*examples" "${ONE[@]}" "curve=[{path: $TMP/unsaid}]"

# ---- refusals
check "configs/reward-eval.yaml" sh -c "$BIN/rlhf-reward eval -c $ROOT/configs/reward-eval.yaml --print-config | grep -q '^judge.max_pairs: 1000'"
refuses "no model" 78 "either model=DIR or models" "${E[@]}" "$SETS"
refuses "both forms" 78 "either model=DIR or models" "${E[@]}" "$SETS" "$MODELS" model="$W/safety/export"
refuses "two of one name" 78 "two are called 'a'" "${E[@]}" "$SETS" "models=[{path: $W/safety/export, name: a}, {path: $W/helpful/export, name: a}]"
refuses "a set of which nothing is left" 65 "no item of test set 'safety_test' is left" "${ONE[@]}" max_length=3
check "a dry run names each model and its memory" sh -c "\"\$@\" --dry-run | grep -c total | grep -qx 3" - "${ONE[@]}" "${JUDGE[@]}" compare="$W/helpful/export"
finish
