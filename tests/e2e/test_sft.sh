#!/bin/bash
# test_sft.sh - rlhf-sft as its users meet it: equal runs have equal bytes, whatever the threads, the
# micro-batches, the kills and stops in between; refusals are one line. The model and the data are made
# here: a tokenizer of single characters, random weights, sums as conversations.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"

M=$TMP/model
mkdir -p "$M"
awk 'BEGIN {
    split("Ġ Ċ 0 1 2 3 4 5 6 7 8 9 + = : . A H a i m n s t u w h e r k l o f", piece, " ")
    printf "{\"version\": \"1.0\", \"added_tokens\": ["
    for (i = 0; i < 2; i++)
        printf "%s{\"id\": %d, \"content\": \"%s\", \"special\": true, \"normalized\": false, \"lstrip\": false, \"rstrip\": false, \"single_word\": false}", i ? ", " : "", i, i ? "</s>" : "<s>"
    printf "], \"normalizer\": null, \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}, "
    printf "\"post_processor\": null, \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}, \"model\": {\"type\": \"BPE\", \"vocab\": {\"<s>\": 0, \"</s>\": 1"
    for (i = 1; i in piece; i++) printf ", \"%s\": %d", piece[i], i + 1
    printf "}, \"merges\": []}}\n"
}' >"$M/tokenizer.json"
echo '{"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}' >"$M/tokenizer_config.json"
cat >"$M/config.json" <<'J'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 48,
 "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 40, "rms_norm_eps": 1e-5,
 "rope_theta": 10000.0, "max_position_embeddings": 128, "tie_word_embeddings": true, "hidden_act": "silu",
 "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float32"}
J
sums() { awk -v from="$1" -v n="$2" 'BEGIN { for (i = from; i < from + n; i++) { a = i % 31; b = int(i / 31) % 29
    printf "{\"prompt\": \"what is %d + %d\", \"completion\": \"%d + %d = %d.\"}\n", a, b, a, b, a + b } }'; }
sums 0 160 >"$TMP/train.jsonl"
sums 160 24 >"$TMP/other.jsonl"
sums 400 24 >"$TMP/eval.jsonl"
awk 'BEGIN { for (i = 0; i < 60; i++) printf "{\"text\": \"the sum of %d + %d is %d\"}\n", i, i + 1, 2 * i + 1 }' >"$TMP/text.jsonl"

S=("$BIN/rlhf-sft" model="$M" init=random template=plain "data.train=[{path: $TMP/train.jsonl}]"
   data.eval="$TMP/eval.jsonl" max_length=64 epochs=2 batch_size=8 micro_batch_tokens=256
   optim.learning_rate=1e-2 save_steps=7 eval_steps=11 seed=3)
REF=$TMP/ref

check "trains from a model folder without weights" "${S[@]}" out_dir="$REF"
cp "$TMP/check.log" "$TMP/ref.log"
for f in config.yaml log.txt metrics.jsonl events.out.tfevents timing.jsonl report.html prompts.bin checkpoints export/model.safetensors \
         export/config.json export/tokenizer.json; do
    [ -e "$REF/$f" ] || not_ok "run folder" "no $f"
done
[ "$(cat "$REF/STATUS" 2>/dev/null)" = done ] && ok "STATUS is done" || not_ok "STATUS is done" "$(cat "$REF/STATUS" 2>&1)"
[ "$(wc -l <"$REF/metrics.jsonl")" = 40 ] && ok "160 records, batch 8, 2 epochs: 40 steps" || not_ok "40 steps" "$(wc -l <"$REF/metrics.jsonl")"
compares "the loss falls" "$(metric "$REF/metrics.jsonl" loss) < 0.7 * $(first_metric "$REF/metrics.jsonl" loss)"
compares "the held-out loss falls" "$(metric "$REF/metrics.jsonl" eval_loss) < $(first_metric "$REF/metrics.jsonl" eval_loss)"
# uniform over 40 entries is ln 40 = 3.69; random weights are close to it
compares "the first loss is near ln 40" "$(first_metric "$REF/metrics.jsonl" loss) > 3.2 && $(first_metric "$REF/metrics.jsonl" loss) < 4.3"
compares "more of the tokens are guessed" "$(metric "$REF/metrics.jsonl" mean_token_accuracy) > $(first_metric "$REF/metrics.jsonl" mean_token_accuracy) + 0.1"
compares "of the held-out ones too" "$(metric "$REF/metrics.jsonl" eval_mean_token_accuracy) > $(first_metric "$REF/metrics.jsonl" mean_token_accuracy) + 0.1"
head -n 1 "$TMP/train.jsonl" >"$TMP/one.jsonl"
"${S[@]}" out_dir="$TMP/one" "data.train=[{path: $TMP/one.jsonl}]" epochs=60 >/dev/null 2>&1
# one record by heart: each of its tokens has more than half of the probability, so all are guessed
compares "mean_token_accuracy is 1 for a record known by heart" "$(metric "$TMP/one/metrics.jsonl" mean_token_accuracy) == 1 && $(metric "$TMP/one/metrics.jsonl" loss) < 0.05"
cmp -s "$M/tokenizer.json" "$REF/export/tokenizer.json" && ok "tokenizer copied byte for byte" || not_ok "tokenizer copied byte for byte" differs
same_run() { same "$1: weights" "$REF/export/model.safetensors" "$2/export/model.safetensors"; same "$1: metrics" "$REF/metrics.jsonl" "$2/metrics.jsonl"; }

# ---- the same bits
"${S[@]}" out_dir="$TMP/again" >/dev/null 2>&1; same_run "the same again" "$TMP/again"
for t in 1 2 3; do
    "${S[@]}" out_dir="$TMP/t$t" threads=$t >/dev/null 2>&1; same_run "threads=$t" "$TMP/t$t"
done
for n in 64 100 4096; do
    "${S[@]}" out_dir="$TMP/m$n" micro_batch_tokens=$n >/dev/null 2>&1; same_run "micro_batch_tokens=$n" "$TMP/m$n"
done
for level in elementwise mlp layer; do
    "${S[@]}" out_dir="$TMP/$level" gradient_checkpointing=$level >/dev/null 2>&1; same_run "gradient_checkpointing=$level" "$TMP/$level"
done
"${S[@]}" out_dir="$TMP/plain" isa=plain >/dev/null 2>&1; same_run "isa=plain" "$TMP/plain"
"${S[@]}" out_dir="$TMP/seed" seed=4 >/dev/null 2>&1
cmp -s "$REF/export/model.safetensors" "$TMP/seed/export/model.safetensors" && not_ok "another seed" "same weights" || ok "another seed gives other weights"

# ---- kills, stops, resumes
kills "kill -9 at any moment, then --resume auto" $KILLS "$REF" "${S[@]}"
kills_in rlhf-sft "$REF" "export/model.safetensors export/config.json metrics.jsonl prompts.bin STATUS" \
"checkpoint_save syscall while a checkpoint is written
optim_step op_adamw inside an update
- optim_step between gradients and update
hf_save syscall while the result is written" "${S[@]}" save_steps=1 keep=1
terms=0
for at in 0.02 0.05 0.1 0.2 0.4; do
    D=$TMP/term; rm -rf "$D"
    "${S[@]}" out_dir="$D" --resume auto >"$TMP/term.log" 2>&1 & pid=$!
    sleep $at; kill -TERM $pid 2>/dev/null; wait $pid; rc=$?
    if [ $rc = 75 ]; then
        terms=$((terms + 1))
        [ "$(cat "$D/STATUS")" = stopped ] || not_ok "STATUS after SIGTERM" "$(cat "$D/STATUS")"
        [ -n "$(ls "$D/checkpoints")" ] || not_ok "checkpoint after SIGTERM" "none"
    elif [ $rc != 0 ] && [ $rc != 143 ]; then
        not_ok "SIGTERM after $at s" "exit $rc: $(tail -n 1 "$TMP/term.log")"
    fi
    "${S[@]}" out_dir="$D" --resume auto >/dev/null 2>&1
    cmp -s "$REF/export/model.safetensors" "$D/export/model.safetensors" && cmp -s "$REF/metrics.jsonl" "$D/metrics.jsonl" ||
        not_ok "SIGTERM after $at s, resumed" "weights or metrics differ"
done
[ $terms -gt 0 ] && ok "SIGTERM: checkpoint, exit 75, the same run when resumed ($terms stops)" || not_ok "SIGTERM: exit 75" "no run was stopped in time"

K=("${S[@]}" max_steps=6 save_steps=2 keep=1 threads=1)
"${K[@]}" out_dir="$TMP/kref" >/dev/null 2>&1
kills_at_files "kill -9 or a full disk while files are written, then resume" "$TMP/kref" \
    "export/model.safetensors export/config.json metrics.jsonl prompts.bin STATUS" "${K[@]}"

# ---- the best evaluation: one record by heart is soon bad at the others, so the best is an early one
B=("${S[@]}" "data.train=[{path: $TMP/one.jsonl}]" epochs=30 eval_steps=2 save_steps=8 keep=1 optim.schedule=constant)
check "a run that gets worse" "${B[@]}" out_dir="$TMP/last"
best=$(grep eval_loss "$TMP/last/metrics.jsonl" | sed 's/.*"step": \([0-9]*\),.*"eval_loss": \([-0-9.e]*\).*/\1 \2/' | sort -g -k 2 | head -n 1)
step=${best% *} value=${best#* }
compares "the best step is none of the last" "$step < 24"
[ "$(ls "$TMP/last/checkpoints" | sort | tr '\n' ' ')" = "$(printf 'step-%s\n' 24 "$step" | sort | tr '\n' ' ')" ] &&
    ok "the newest and the best checkpoint are kept" || not_ok "the newest and the best checkpoint are kept" "best $step: $(ls "$TMP/last/checkpoints" | tr '\n' ' ')"
grep -q "\"step\": $step," "$TMP/last/best.json" && grep -q "\"value\": $value" "$TMP/last/best.json" &&
    ok "best.json has its step and value" || not_ok "best.json has its step and value" "$best: $(tr '\n' ' ' <"$TMP/last/best.json")"
"${B[@]}" out_dir="$TMP/until" max_steps="$step" >/dev/null 2>&1
check "export=best" "${B[@]}" out_dir="$TMP/best" export=best
same "exports the weights of that step" "$TMP/until/export/model.safetensors" "$TMP/best/export/model.safetensors"
same "and trains on to the end" "$TMP/last/metrics.jsonl" "$TMP/best/metrics.jsonl"
cmp -s "$TMP/last/export/model.safetensors" "$TMP/best/export/model.safetensors" && not_ok "export=last has others" same || ok "export=last has others"
kills_in "rlhf-sft with a best" "$TMP/best" "export/model.safetensors best.json metrics.jsonl" \
"checkpoint_save syscall while a checkpoint is written
hf_save syscall while the best is exported" "${B[@]}" export=best
same "its checkpoints are the same: best" "$TMP/best/checkpoints/step-$step/state.bin" "$TMP/in/checkpoints/step-$step/state.bin"
"${B[@]}" out_dir="$TMP/nobest" keep_best=false >/dev/null 2>&1
[ "$(ls "$TMP/nobest/checkpoints")" = step-24 ] && [ ! -e "$TMP/nobest/best.json" ] && ok "keep_best=false" || not_ok "keep_best=false" "$(ls "$TMP/nobest" "$TMP/nobest/checkpoints" | tr '\n' ' ')"
refuses "export=best without keep_best" 78 "export: best needs keep_best" "${B[@]}" out_dir="$TMP/x" export=best keep_best=false

D=$TMP/broken
"${S[@]}" out_dir="$D" keep=9 keep_best=false >/dev/null 2>&1
rm -rf "$D/export" "$D/STATUS"; echo failed >"$D/STATUS"
printf x | dd of="$D/checkpoints/step-35/state.bin" bs=1 seek=5000 conv=notrunc 2>/dev/null
rm -f "$D/checkpoints/step-28/manifest.json"
mkdir -p "$D/checkpoints/step-99.tmp"
check "broken checkpoints are passed over" "${S[@]}" out_dir="$D" --resume auto keep_best=false
grep -q "step-35.*checksum" "$TMP/check.log" && grep -q "resumed from .*step-21" "$TMP/check.log" && ok "and named" || not_ok "and named" "$(head -n 3 "$TMP/check.log")"
same_run "after broken checkpoints" "$D"
echo failed >"$D/STATUS"
check "resume from a named checkpoint" "${S[@]}" out_dir="$D" --resume "$D/checkpoints/step-21"
same_run "from a named checkpoint" "$D"
echo failed >"$D/STATUS"
check "and with other activations kept" "${S[@]}" out_dir="$D" --resume "$D/checkpoints/step-28" gradient_checkpointing=layer
same_run "with other activations kept" "$D"

cp "$TMP/train.jsonl" "$TMP/own.jsonl"
O=("${S[@]}" "data.train=[{path: $TMP/own.jsonl}]" out_dir="$TMP/own")
"${O[@]}" >/dev/null 2>&1; echo failed >"$TMP/own/STATUS"
sed -i '5s/what is/what was/' "$TMP/own.jsonl"
refuses "records that changed since the run began" 65 "data.train" "${O[@]}" --resume auto

# ---- run folder
check "a finished run is left alone" "${S[@]}" out_dir="$REF" --resume auto
grep -q "done already" "$TMP/check.log" && ok "and says so" || not_ok "and says so" "$(cat "$TMP/check.log")"
refuses "a folder in use" 73 "not empty.*--resume auto" "${S[@]}" out_dir="$REF"
mkdir -p "$TMP/mine"; echo precious >"$TMP/mine/thesis.txt"
refuses "a folder that is no run folder" 73 "no run folder" "${S[@]}" out_dir="$TMP/mine" overwrite=true
[ "$(cat "$TMP/mine/thesis.txt")" = precious ] && ok "and it is left alone" || not_ok "and it is left alone" gone
check "overwrite=true starts again" "${S[@]}" out_dir="$TMP/seed" overwrite=true
same_run "overwrite=true" "$TMP/seed"
echo stopped >"$TMP/seed/STATUS"
"${S[@]}" out_dir="$TMP/seed" --resume auto optim.learning_rate=2e-2 >/dev/null 2>"$TMP/diff.err"; rc=$?
[ $rc = 78 ] && grep -q "optim.learning_rate" "$TMP/diff.err" && ok "another learning rate is refused and named" ||
    not_ok "another learning rate is refused and named" "exit $rc: $(head -n 2 "$TMP/diff.err" | tr '\n' ' ')"
check "other threads are welcome" "${S[@]}" out_dir="$TMP/seed" --resume auto threads=1
check "tensorboard=false" "${S[@]}" out_dir="$TMP/plain" tensorboard=false overwrite=true
[ ! -e "$TMP/plain/events.out.tfevents" ] && ok "writes no events" || not_ok "writes no events" "it did"
"${S[@]}" out_dir="$TMP/busy" epochs=200 >/dev/null 2>&1 & pid=$!
for _ in $(seq 100); do [ -e "$TMP/busy/STATUS" ] && break; sleep 0.02; done; sleep 0.1
refuses "two processes in one folder" 73 "another process" "${S[@]}" out_dir="$TMP/busy" epochs=200 --resume auto
kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null

# ---- memory and disk
"${S[@]}" out_dir="$TMP/dry" --dry-run >"$TMP/dry.log" 2>&1
planned=$(awk '$1 == "total" { print $2 }' "$TMP/dry.log"); used=$(sed -n 's/.*memory in use: \([0-9]*\) bytes.*/\1/p' "$TMP/ref.log")
[ -n "$planned" ] && [ "$planned" = "$used" ] && ok "--dry-run names the bytes in use ($used)" || not_ok "--dry-run names the bytes in use" "planned '$planned', used '$used'"
[ ! -e "$TMP/dry" ] && ok "--dry-run writes nothing" || not_ok "--dry-run writes nothing" "made out_dir"
refuses "more memory than there is" 69 "micro_batch_tokens" "${S[@]}" out_dir="$TMP/big" micro_batch_tokens=400000000
[ ! -e "$TMP/big" ] && ok "before out_dir is made" || not_ok "before out_dir is made" "made out_dir"
D=$TMP/full
refuses "a full disk" 73 "state.bin|metrics.jsonl|log.txt" bash -c 'ulimit -f 64; exec "$@"' - "${S[@]}" out_dir="$D"
check "goes on when there is room" "${S[@]}" out_dir="$D" --resume auto
same_run "after a full disk" "$D"

# ---- data
refuses "training and held-out prompts overlap" 65 "data.eval" "${S[@]}" out_dir="$TMP/x" data.eval="$TMP/train.jsonl"
refuses "a missing file" 66 "nothere.jsonl" "${S[@]}" out_dir="$TMP/x" "data.train=[{path: $TMP/nothere.jsonl}]"
{ head -n 3 "$TMP/train.jsonl"; echo '{"prompt": "what is 1 + 1"}'; } >"$TMP/bad.jsonl"
refuses "a record without an answer" 65 "bad.jsonl:4" "${S[@]}" out_dir="$TMP/x" "data.train=[{path: $TMP/bad.jsonl}]"
check "on_bad_row: skip" "${S[@]}" out_dir="$TMP/skip" "data.train=[{path: $TMP/bad.jsonl}]" data.on_bad_row=skip
refuses "max_length beyond the model" 78 "max_length.*128" "${S[@]}" out_dir="$TMP/x" max_length=256
refuses "a weight for one source only" 78 "weight" "${S[@]}" out_dir="$TMP/x" "data.train=[{path: $TMP/train.jsonl, weight: 1}, {path: $TMP/other.jsonl}]"
check "weighted sources" "${S[@]}" out_dir="$TMP/mix" "data.train=[{path: $TMP/train.jsonl, weight: 3}, {path: $TMP/other.jsonl, weight: 1}]" epochs=1
[ "$(wc -l <"$TMP/mix/metrics.jsonl")" = 23 ] && ok "184 records in all: 23 steps" || not_ok "184 records: 23 steps" "$(wc -l <"$TMP/mix/metrics.jsonl")"
refuses "no weights" 66 "init: random" "${S[@]}" out_dir="$TMP/x" init=checkpoint
check "goes on from an exported folder" "${S[@]}" out_dir="$TMP/next" model="$REF/export" init=checkpoint epochs=1 optim.learning_rate=1e-3
compares "at its loss" "$(first_metric "$TMP/next/metrics.jsonl" loss) < 1.5 * $(metric "$REF/metrics.jsonl" loss) + 0.2"
check "--pretrain on text" "${S[@]}" --pretrain out_dir="$TMP/base" "data.train=[{path: $TMP/text.jsonl}]" data.eval=
check "max_steps" "${S[@]}" out_dir="$TMP/short" max_steps=3 export_dtype=bf16
[ "$(wc -l <"$TMP/short/metrics.jsonl")" = 3 ] && ok "max_steps ends the run" || not_ok "max_steps ends the run" "$(wc -l <"$TMP/short/metrics.jsonl")"
finish
