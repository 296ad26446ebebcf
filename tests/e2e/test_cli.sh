#!/usr/bin/env bash
# What every program answers to --help, --version, --dry-run and bad input: one clear line, a documented exit
# code, nothing lost.
. "$(dirname "$0")/lib.sh"
tiny_world
SFT=("$BIN/rlhf-sft" model="$W/world/model" init=random template=plain max_length=64 "data.train=[{path: $W/world/sft.jsonl}]"
     max_steps=2 batch_size=8 micro_batch_tokens=1024)

for p in rlhf rlhf-sft rlhf-reward rlhf-rejection rlhf-ppo rlhf-demo; do
    check "$p --help" "$BIN/$p" --help
    check "$p --version" "$BIN/$p" --version
done
# the best of 20 starts, so that a busy machine cannot make it fail for nothing
best=$(for _ in $(seq 20); do a=$(date +%s%N); "$BIN/rlhf-ppo" --help >/dev/null; b=$(date +%s%N); echo $(((b - a) / 1000)); done | sort -n | head -n 1)
case $BUILD in *san-*) best=0 ;; esac # a sanitizer alone takes longer to start
compares "rlhf-ppo --help in under 10 ms ($best us)" "$best < 10000"

refuses "unknown key" 78 "learning_rat.*did you mean.*learning_rate" "${SFT[@]}" out_dir="$TMP/o" optim.learning_rat=1
printf 'optim:\n  learning_rate: fast\n' >"$TMP/c.yaml"
refuses "wrong type" 78 "c.yaml:2:18.*expected a number.*fast" "${SFT[@]}" out_dir="$TMP/o" -c "$TMP/c.yaml"
printf 'batch_size: 0\n' >"$TMP/c.yaml"
refuses "value out of range" 78 "c.yaml:1:13.*batch_size" "$BIN/rlhf-sft" model="$W/world/model" "data.train=[{path: $W/world/sft.jsonl}]" \
    out_dir="$TMP/o" -c "$TMP/c.yaml"
refuses "missing config file" 66 "nowhere.yaml" "${SFT[@]}" out_dir="$TMP/o" -c "$TMP/nowhere.yaml"
refuses "missing data file" 66 "nowhere.jsonl" "${SFT[@]}" out_dir="$TMP/o" "data.train=[{path: $TMP/nowhere.jsonl}]"
refuses "missing model" 66 "nowhere" "${SFT[@]}" out_dir="$TMP/o" model="$TMP/nowhere"
refuses "unknown option" 2 "--frobnicate" "${SFT[@]}" out_dir="$TMP/o" --frobnicate
refuses "a device that is not there" 69 "cuda" "${SFT[@]}" out_dir="$TMP/o" device=cuda

broken() { rm -rf "$TMP/broken"; cp -r "$W/sft/export" "$TMP/broken"; }
GEN=("$BIN/rlhf" generate --prompt "copy a b c" template=plain max_prompt_length=40 max_new_tokens=4 --model "$TMP/broken")
broken; check "generate" "${GEN[@]}"
broken; truncate -s -100 "$TMP/broken/model.safetensors"
refuses "truncated safetensors" 65 "model.safetensors" "${GEN[@]}"
broken; sed -i 's/"intermediate_size": *[0-9]*/"intermediate_size": 48/' "$TMP/broken/config.json"
refuses "wrong shape" 65 "mlp.* is \\([0-9]+, 32\\), config.json asks for \\(48, 32\\)" "${GEN[@]}"
broken; sed -i 's/"num_hidden_layers": *[0-9]*/"num_hidden_layers": 3/' "$TMP/broken/config.json"
refuses "missing tensor" 65 "layers.2" "${GEN[@]}"
broken; sed -i 's/"num_hidden_layers": *[0-9]*/"num_hidden_layers": 1/' "$TMP/broken/config.json"
refuses "extra tensor" 65 "layers.1" "${GEN[@]}"
broken; sed -i 's/"vocab_size": *[0-9]*/"vocab_size": 20/' "$TMP/broken/config.json"
refuses "tokenizer of another vocabulary size" 65 "vocab_size" "${GEN[@]}"
broken; head -c 500 "$W/sft/export/tokenizer.json" >"$TMP/broken/tokenizer.json"
refuses "truncated tokenizer.json" 65 "tokenizer.json" "${GEN[@]}"
broken; sed -i 's/"rope_scaling": null/"rope_scaling": {"type": "yarn", "factor": 2}/; s/"hidden_act": "silu"/"hidden_act": "gelu"/' "$TMP/broken/config.json"
refuses "a config that this code cannot honour" 65 "config.json" "${GEN[@]}"
refuses "prompt longer than the context" 65 "prompt|token" "$BIN/rlhf" generate --raw --prompt "copy a b c d e f g" max_prompt_length=3 \
    max_new_tokens=4 --model "$W/sft/export"
refuses "answers longer than the context" 65 "max_new_tokens 1000 .*max_position_embeddings 64" "$BIN/rlhf" generate --prompt "copy a" \
    template=plain max_new_tokens=1000 --model "$W/sft/export"

printf '{"prompt": "copy a", "completion": "a"}\n{"prompt": "copy b", "completion": }\n' >"$TMP/r.jsonl"
refuses "malformed JSON line" 65 "r.jsonl:2" "${SFT[@]}" out_dir="$TMP/o" "data.train=[{path: $TMP/r.jsonl}]"
printf '{"prompt": "copy a", "completion": ""}\n' >"$TMP/r.jsonl"
refuses "empty answer" 65 "r.jsonl:1.*empty" "${SFT[@]}" out_dir="$TMP/o" "data.train=[{path: $TMP/r.jsonl}]"
refuses "overlap of training and held-out prompts" 65 "prompt" "${SFT[@]}" out_dir="$TMP/o" data.eval="$W/world/sft.jsonl"

"${SFT[@]}" out_dir="$TMP/used" >/dev/null 2>&1
refuses "a run folder that is not empty" 73 "used.*(resume|overwrite)" "${SFT[@]}" out_dir="$TMP/used"
if mkdir -p "$TMP/small" && mount -t tmpfs -o size=300k tmpfs "$TMP/small" 2>/dev/null; then
    refuses "full disk" 73 "space|full" "${SFT[@]}" out_dir="$TMP/small/run" save_steps=1
    umount "$TMP/small"
else
    skip "full disk" "cannot mount a small file system here"
fi

# the dynamic linker's own account of what a process opened
LD_DEBUG=files "${SFT[@]}" out_dir="$TMP/mapped" device=cpu max_steps=1 >/dev/null 2>"$TMP/mapped.err"
check "a run on the CPU opens no CUDA library" sh -c "grep -q 'calling init' $TMP/mapped.err && ! grep -qiE 'librlhf_cuda|libcuda' $TMP/mapped.err"

check "--print-config can be loaded again" sh -c "'$BIN/rlhf-sft' $(printf "'%s' " "${SFT[@]:1}") out_dir='$TMP/o' --print-config >'$TMP/p1.yaml' && '$BIN/rlhf-sft' -c '$TMP/p1.yaml' --print-config >'$TMP/p2.yaml' && cmp '$TMP/p1.yaml' '$TMP/p2.yaml'"
check "--dry-run leaves nothing behind" sh -c "'$BIN/rlhf-sft' $(printf "'%s' " "${SFT[@]:1}") out_dir='$TMP/dry' --dry-run && ! test -e '$TMP/dry'"
finish
