#!/usr/bin/env bash
# The presets of configs/: every recipe with every size is taken by its program, every value says where it comes
# from, and configs/round.yaml is a round that `rlhf run` and `rlhf plan` accept.
. "$(dirname "$0")/lib.sh"
cd "$ROOT" || exit 1
sizes="135m 1.5b 7b"

# taken PROGRAM RECIPE FAMILY KEY=VALUE...: with each size, and each size's values win
taken() {
    local program=$1 recipe=$2 family=$3 size; shift 3
    for size in $sizes; do
        # shellcheck disable=SC2086  # a program may be two words
        if "$BIN"/$program -c "configs/$recipe.yaml" -c "configs/$family-$size.yaml" "$@" out_dir=x --print-config >"$TMP/$recipe-$size.yaml" 2>"$TMP/err"; then
            ok "$recipe, $size"
        else
            not_ok "$recipe, $size" "$(head -n 2 "$TMP/err" | tr '\n' ' ')"
        fi
        # shellcheck disable=SC2086
        "$BIN"/$program -c "$TMP/$recipe-$size.yaml" --print-config 2>/dev/null | cmp -s - "$TMP/$recipe-$size.yaml" &&
            ok "$recipe, $size: as one complete file" || not_ok "$recipe, $size: as one complete file" "it resolves to something else"
    done
}
rewards=(model=m reward.helpful=h reward.safety=s)
taken rlhf-sft sft sft model=m 'data.train=[{path: f}]'
taken "rlhf-reward train" reward-helpful reward model=m
taken "rlhf-reward train" reward-safety reward model=m
taken rlhf-rejection rejection rejection "${rewards[@]}" data.prompts=p
taken rlhf-ppo ppo ppo "${rewards[@]}" data.train=p
taken rlhf-ppo ppo-max ppo "${rewards[@]}" data.train=p

# the paper's values at 7B (Llama 2, sections 3.1, 3.2.2, 3.2.3)
has() { for line in "${@:2}"; do grep -qxF "$line" "$TMP/$1.yaml" || { not_ok "$1: $line" "$(grep -F "${line%%:*}:" "$TMP/$1.yaml")"; continue; }; ok "$1: $line"; done; }
has sft-7b "optim.learning_rate: 2e-05" "epochs: 2" "batch_size: 64" "optim.weight_decay: 0.1" "dtype: bf16"
has reward-helpful-7b "optim.learning_rate: 1e-05" "epochs: 1" "batch_size: 512" "margin: small"
has reward-safety-7b "safety_loss.weight: 1" "data.safety_filter: true"
has ppo-7b "optim.learning_rate: 1e-06" "batch_size: 512" "minibatch_size: 64" "kl_coef: 0.01" "cliprange: 0.2" "switch.threshold: 0.15"
has ppo-max-7b "optim.learning_rate: 5e-07" "scores: running"

# every value has a comment that names its source
bad=$(for f in configs/*.yaml; do
    case $f in configs/demo.yaml|configs/round.yaml) continue ;; esac
    grep -nE '^ *(- )?[a-z_0-9.]+: *[^ #]' "$f" | grep -vE '# ?(paper|TRL|N\+|SmolLM2|MOSS|secrets|choice|measured)' | sed "s|^|$f:|"
done)
[ -z "$bad" ] && ok "every value says where it comes from" || not_ok "every value says where it comes from" "$(echo "$bad" | head -n 3 | tr '\n' ' ')"
bad=$(for f in configs/*.yaml; do grep -qF "\`$(basename "$f")\`" configs/README.md || echo " $f"; done)
[ -z "$bad" ] && ok "configs/README.md names every file" || not_ok "configs/README.md names every file" "$bad"

# the table of what cards hold is what the plans say today
sed -n '/^<!-- cards/,/^<!-- end/{//!p}' configs/README.md >"$TMP/readme_table"
configs/cards.sh "$BIN/.." >"$TMP/table" 2>"$TMP/cards.err"
[ -s "$TMP/table" ] && cmp -s "$TMP/table" "$TMP/readme_table" && ok "configs/README.md: cards as configs/cards.sh prints them" ||
    not_ok "configs/README.md: cards as configs/cards.sh prints them" "run configs/cards.sh --write; $(diff "$TMP/table" "$TMP/readme_table" | head -n 2 | tr '\n' ' ')$(head -n 1 "$TMP/cards.err")"

# --- the round, on a tiny model with room for its sequences
W=$TMP/world
"$BIN/rlhf-demo" world "$W" seed=5 n_base=8 n_sft=96 n_helpful=48 n_safety=48 n_test=24 n_rejection=24 n_ppo=24 n_eval=16 hidden_size=32 layers=1 >/dev/null 2>&1
sed -i -E 's/"max_position_embeddings": *[0-9]+/"max_position_embeddings": 8192/' "$W/model/config.json"
touch "$W/model/model.safetensors"
pair() { awk -v n="$1" -v k="$2" 'BEGIN { for (i = 0; i < n; i++) printf "{\"prompt\": \"%s %d\", \"chosen\": \"a b\", \"rejected\": \"b\", \"chosen_safe\": true, \"rejected_safe\": false}\n", k, i }'; }
pair 40 h >"$TMP/h.jsonl"; pair 8 ht >"$TMP/ht.jsonl"; pair 40 s >"$TMP/s.jsonl"; pair 8 st >"$TMP/st.jsonl"
head -n 80 "$W/sft.jsonl" >"$TMP/sft.jsonl"; tail -n 8 "$W/sft.jsonl" >"$TMP/sft-test.jsonl"
for size in $sizes; do
    vars=(root="$TMP/round" vars.size=$size vars.model="$W/model" vars.template=plain vars.device=cpu vars.sft="$TMP/sft.jsonl" vars.sft_test="$TMP/sft-test.jsonl"
          vars.helpful="$TMP/h.jsonl" vars.helpful_test="$TMP/ht.jsonl" vars.safety="$TMP/s.jsonl" vars.safety_test="$TMP/st.jsonl"
          vars.prompts="$W/prompts_ppo.jsonl" vars.prompts_test="$W/prompts_eval.jsonl")
    check "round.yaml, $size: rlhf run --dry-run" "$BIN/rlhf" run configs/round.yaml "${vars[@]}" --dry-run
    "$BIN/rlhf" plan configs/round.yaml "${vars[@]}" --seconds 0 >"$TMP/round.txt" 2>&1; rc=$?
    [ $rc = 0 ] && ! grep -qE 'waits|refused' "$TMP/round.txt" && ok "round.yaml, $size: rlhf plan" || not_ok "round.yaml, $size: rlhf plan" "exit $rc: $(grep -E 'waits|refused|error' "$TMP/round.txt" | head -n 2 | tr '\n' ' ')"
done
finish
