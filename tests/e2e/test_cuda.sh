#!/usr/bin/env bash
# Whole programs on device: cuda against the CPU: the same weights, scores and answers to the byte.
# In a build without a card it checks the refusal and counts the rest as skipped; in BUILD/emu the same
# programs run on the host shim (make check-emu), on a machine with a card on the card.
. "$(dirname "$0")/lib.sh"
tiny_world
SFT=("$BIN/rlhf-sft" model="$W/world/model" init=random template=plain max_length=64
     "data.train=[{path: $W/world/sft.jsonl}]" batch_size=16 optim.learning_rate=5e-3 micro_batch_tokens=512 seed=3 max_steps=3)
"${SFT[@]}" out_dir="$TMP/sft-cuda" device=cuda >"$TMP/cuda.out" 2>"$TMP/cuda.err"; rc=$?
if [ $rc = 69 ]; then
    [ "$(wc -l <"$TMP/cuda.err")" = 1 ] && grep -q "cuda:0 asked for" "$TMP/cuda.err" && ok "device: cuda without a card is one line and exit 69" ||
        not_ok "device: cuda without a card is one line and exit 69" "$(head -n 3 "$TMP/cuda.err" | tr '\n' ' ')"
    [ ! -e "$TMP/sft-cuda" ] && ok "and leaves nothing behind" || not_ok "and leaves nothing behind" "$(ls "$TMP/sft-cuda")"
    skip "programs on a card" "$(sed 's/.*there is //; s/; set.*//' "$TMP/cuda.err")"
    finish
fi
[ $rc = 0 ] && ok "sft on the card" || { not_ok "sft on the card" "exit $rc: $(tail -n 2 "$TMP/cuda.err" | tr '\n' ' ')"; finish; }

# both NAME FILES COMMAND...: runs it on both devices; FILES must have equal bytes
both() {
    local name=$1 files=$2 d f bad=0; shift 2
    for d in cpu cuda; do
        [ -e "$TMP/$name-$d" ] || "$@" out_dir="$TMP/$name-$d" device=$d >"$TMP/both.log" 2>&1 ||
            { not_ok "$name on $d" "exit $?: $(tail -n 2 "$TMP/both.log" | tr '\n' ' ')"; return; }
    done
    for f in $files; do
        cmp -s "$TMP/$name-cpu/$f" "$TMP/$name-cuda/$f" || { bad=1; not_ok "$name: $f" "differs between cpu and cuda"; }
    done
    [ $bad = 1 ] || ok "$name: $files equal on both devices"
}
both sft "export/model.safetensors metrics.jsonl" "${SFT[@]}"
check "sft on the card, layers computed again" "${SFT[@]}" out_dir="$TMP/sft-layer" device=cuda gradient_checkpointing=layer
same "the same weights" "$TMP/sft-cpu/export/model.safetensors" "$TMP/sft-layer/export/model.safetensors"
both reward "export/model.safetensors metrics.jsonl" "$BIN/rlhf-reward" train "data.train=[{path: $W/pairs/safety.jsonl}]" \
    "data.eval=[{path: $W/pairs/safety_test.jsonl}]" safety_loss.weight=1 "${REWARD[@]}" batch_size=8 max_steps=3
both rejection "samples.jsonl selected.jsonl" "$BIN/rlhf-rejection" model="$W/sft/export" reward.helpful="$W/helpful/export" \
    reward.safety="$W/safety/export" template=plain data.prompts="$W/world/prompts_rejection.jsonl" max_prompt_length=40 \
    max_new_tokens=12 k=3 micro_batch_tokens=512 block_prompts=8 max_steps=2 seed=4
PPO=("$BIN/rlhf-ppo" model="$W/sft/export" reward.helpful="$W/helpful/export" reward.safety="$W/safety/export"
     template=plain data.train="$W/world/prompts_ppo.jsonl" data.eval="$W/world/prompts_eval.jsonl" eval.prompts=8
     max_prompt_length=40 max_new_tokens=12 batch_size=16 minibatch_size=8 micro_batch_tokens=512 iterations=2
     kl_coef=0.1 optim.learning_rate=1e-3 critic.optim.learning_rate=1e-3 seed=4 save_steps=1)
both ppo "export/model.safetensors metrics.jsonl" "${PPO[@]}"
compares "the first ratio is exactly 1 on the card" "$(first_metric "$TMP/ppo-cuda/metrics.jsonl" val/ratio) == 1"
compares "and the KL exactly 0" "$(first_metric "$TMP/ppo-cuda/metrics.jsonl" objective/kl) == 0"
kills "kill -9 and resume on the card, against the CPU" "$KILLS" "$TMP/ppo-cpu" "${PPO[@]}" device=cuda

# bf16: a card has sums of its own, so losses are near the CPU's bf16 and the rules hold among the card's own runs
BF16=(dtype=bf16 unit_tokens=128)
near() { # near NAME KEY LIMIT FILE FILE: the last value of KEY, relative
    compares "$1" "($(metric "$4" "$2") - $(metric "$5" "$2"))^2 <= ($3 * $(metric "$5" "$2"))^2"
}
for d in cpu cuda; do
    "${SFT[@]}" out_dir="$TMP/sft16-$d" device=$d "${BF16[@]}" >"$TMP/sft16.log" 2>&1 || not_ok "sft in bf16 on $d" "$(tail -n 1 "$TMP/sft16.log")"
    "$BIN/rlhf-reward" train "data.train=[{path: $W/pairs/safety.jsonl}]" "data.eval=[{path: $W/pairs/safety_test.jsonl}]" safety_loss.weight=1 \
        "${REWARD[@]}" batch_size=8 max_steps=3 out_dir="$TMP/reward16-$d" device=$d "${BF16[@]}" >"$TMP/reward16.log" 2>&1 || not_ok "reward in bf16 on $d" "$(tail -n 1 "$TMP/reward16.log")"
done
near "sft in bf16: the loss is the CPU's within 0.1 %" loss 1e-3 "$TMP/sft16-cuda/metrics.jsonl" "$TMP/sft16-cpu/metrics.jsonl"
near "reward in bf16: the loss is the CPU's within 0.5 %" loss 5e-3 "$TMP/reward16-cuda/metrics.jsonl" "$TMP/reward16-cpu/metrics.jsonl"
check "ppo in bf16 on the card" "${PPO[@]}" out_dir="$TMP/ppo16-cuda" device=cuda "${BF16[@]}"
compares "its first ratio is exactly 1" "$(first_metric "$TMP/ppo16-cuda/metrics.jsonl" val/ratio) == 1"
compares "and its KL exactly 0" "$(first_metric "$TMP/ppo16-cuda/metrics.jsonl" objective/kl) == 0"
kills "kill -9 and resume in bf16 on the card" 1 "$TMP/ppo16-cuda" "${PPO[@]}" device=cuda "${BF16[@]}"

# There a gradient is a sum over each unit of unit_tokens, whatever a micro-batch holds: one, two, or more of them.
cuts() { # cuts NAME COMMAND...: against the run of this name
    local name=$1 n f bad=0; shift
    for n in 128 256; do
        "$@" out_dir="$TMP/$name-$n" device=cuda "${BF16[@]}" micro_batch_tokens=$n >"$TMP/cuts.log" 2>&1 ||
            { not_ok "$name in micro-batches of $n tokens" "exit $?: $(tail -n 1 "$TMP/cuts.log")"; return; }
        for f in export/model.safetensors metrics.jsonl; do
            cmp -s "$TMP/$name-cuda/$f" "$TMP/$name-$n/$f" || { bad=1; not_ok "$name in micro-batches of $n tokens: $f" differs; }
        done
    done
    [ $bad = 1 ] || ok "$name: micro_batch_tokens changes no bit"
}
cuts sft16 "${SFT[@]}"
cuts reward16 "$BIN/rlhf-reward" train "data.train=[{path: $W/pairs/safety.jsonl}]" "data.eval=[{path: $W/pairs/safety_test.jsonl}]" \
    safety_loss.weight=1 "${REWARD[@]}" batch_size=8 max_steps=3
cuts ppo16 "${PPO[@]}"
"${SFT[@]}" out_dir="$TMP/sft16-other" device=cuda dtype=bf16 unit_tokens=256 >"$TMP/cuts.log" 2>&1
cmp -s "$TMP/sft16-cuda/export/model.safetensors" "$TMP/sft16-other/export/model.safetensors" &&
    not_ok "unit_tokens is part of the result" "256 gives what 128 gives" || ok "unit_tokens is part of the result"
refuses "a micro-batch without room for a unit" 78 "micro_batch_tokens: 512 cannot hold a unit of unit_tokens 4096" \
    "${SFT[@]}" out_dir="$TMP/small" device=cuda dtype=bf16
"${SFT[@]}" out_dir="$TMP/sft16-cuda" device=cuda dtype=bf16 unit_tokens=256 --resume auto >"$TMP/cuts.log" 2>&1; rc=$?
[ $rc = 78 ] && grep -q "unit_tokens (was 128, is 256)" "$TMP/cuts.log" && ok "and a run cannot go on with another" ||
    not_ok "and a run cannot go on with another" "exit $rc: $(tail -n 2 "$TMP/cuts.log" | tr '\n' ' ')"
check "but in f32 it can" "${SFT[@]}" out_dir="$TMP/sft-cuda" device=cuda unit_tokens=7 --resume auto
for level in elementwise mlp layer; do
    "${SFT[@]}" out_dir="$TMP/sft16-$level" device=cuda "${BF16[@]}" gradient_checkpointing=$level >/dev/null 2>&1
    same "sft in bf16 on the card, gradient_checkpointing=$level" "$TMP/sft16-cuda/export/model.safetensors" "$TMP/sft16-$level/export/model.safetensors"
done
# heads that bf16 attention has no kernel for
cp -r "$W/world/model" "$TMP/wide"
sed -i 's/"head_dim": *[0-9]*/"head_dim": 136/' "$TMP/wide/config.json"
refuses "heads of 136 in bf16 on a card" 78 "wide/config.json: head_dim: heads of 136.*up to 128; set dtype: f32" "${SFT[@]}" model="$TMP/wide" out_dir="$TMP/x" device=cuda "${BF16[@]}"
check "leaves nothing behind" test ! -e "$TMP/x"
check "in f32 they train" "${SFT[@]}" model="$TMP/wide" out_dir="$TMP/wide-f32" device=cuda max_steps=1

plan=$("${SFT[@]}" out_dir="$TMP/plan" device=cuda --dry-run 2>&1 | grep -c "device ")
compares "the plan lists what lies on the card" "$plan > 0"

# without the library beside it a program plans for a card that is not there: the same bytes
mkdir -p "$TMP/bare"
for program in rlhf-sft rlhf-reward rlhf-ppo; do cp -L "$BIN/$program" "$TMP/bare/"; done
card_plan() { # card_plan PROGRAM ARGUMENT...: memory of the card, of the host
    "$@" device=cuda "${BF16[@]}" out_dir="$TMP/plan" --plan "$TMP/plan.json" >/dev/null 2>"$TMP/plan.err" || cat "$TMP/plan.err"
    [ ! -e "$TMP/plan.json" ] || sed -n '/"memory"/,/]/p' "$TMP/plan.json"; rm -f "$TMP/plan.json"
}
planned() { # planned NAME ARGUMENT...
    local name=$1 here bare; shift
    here=$(card_plan "$@") bare=$(card_plan "$TMP/bare/$(basename "$1")" "${@:2}")
    [ "${here#*'"memory"'}" != "$here" ] && [ "$here" = "$bare" ] && ok "$name: planned without a card as with one" || not_ok "$name: planned without a card as with one" "$(echo "$here $bare" | head -n 4 | tr '\n' ' ')"
}
planned sft "${SFT[@]}"
planned ppo "${PPO[@]}"
planned reward "$BIN/rlhf-reward" train "data.train=[{path: $W/pairs/safety.jsonl}]" safety_loss.weight=1 "${REWARD[@]}" batch_size=8
finish
