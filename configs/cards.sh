#!/usr/bin/env bash
# cards.sh [--write] [BUILD] - which cards train which models: the table of configs/README.md, from the plans of
# configs/round.yaml at each size. Only shapes and a tokenizer are needed, so it runs anywhere. --write puts the table
# into the README; tests/e2e/test_presets.sh compares the two.
set -eu
write=; [ "${1:-}" = --write ] && { write=1; shift; }
BUILD=${1:-build}
cd "$(dirname "$0")/.."
bin=$(cd "$BUILD/bin" && pwd)
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
"$bin/rlhf-demo" world "$tmp/w" seed=5 n_base=8 n_sft=96 n_helpful=8 n_safety=8 n_test=8 n_rejection=8 n_ppo=8 n_eval=256 hidden_size=32 layers=1 >/dev/null

# shape SIZE NAME FIELD...: a folder with the config.json of a published model, its weights neither there nor needed
shape() {
    local dir=$tmp/$1; mkdir "$dir"
    cp "$tmp"/w/model/tokenizer* "$dir"
    touch "$dir/model.safetensors"
    printf '{"architectures": ["%s"], "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2, %s}\n' "$2" "$3" >"$dir/config.json"
}
shape 135m LlamaForCausalLM '"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192, "rope_theta": 100000, "rms_norm_eps": 1e-5, "tie_word_embeddings": true'
shape 1.5b Qwen2ForCausalLM '"model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 131072, "rope_theta": 1000000, "rms_norm_eps": 1e-6, "tie_word_embeddings": true'
shape 7b LlamaForCausalLM '"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000, "max_position_embeddings": 4096, "rope_theta": 10000, "rms_norm_eps": 1e-5, "tie_word_embeddings": false'

pairs() { for i in $(seq "$2"); do echo "{\"prompt\": \"$1 $i\", \"chosen\": \"a b\", \"rejected\": \"b\", \"chosen_safe\": true, \"rejected_safe\": false}"; done; }
pairs h 8 >"$tmp/h"; pairs i 8 >"$tmp/ht"; pairs s 8 >"$tmp/s"; pairs t 8 >"$tmp/st"
head -n 80 "$tmp/w/sft.jsonl" >"$tmp/sft"; tail -n 8 "$tmp/w/sft.jsonl" >"$tmp/sft-test"

plan() { # plan SIZE: STAGE BYTES YES-OR-NO... of each stage
    "$bin/rlhf" plan configs/round.yaml --cards --json root="$tmp/root" vars.size="$1" vars.model="$tmp/$1" vars.template=plain \
        vars.sft="$tmp/sft" vars.sft_test="$tmp/sft-test" vars.helpful="$tmp/h" vars.helpful_test="$tmp/ht" vars.safety="$tmp/s" \
        vars.safety_test="$tmp/st" vars.prompts="$tmp/w/prompts_ppo.jsonl" vars.prompts_test="$tmp/w/prompts_eval.jsonl" |
        awk -F '[:,] *' '/"stage"/ { gsub(/"/, "", $2); stage = $2; cards = "" } /"parameters"/ { n = $2 } /"card_bytes"/ { bytes = $2 }
             /"holds"/ { cards = cards " " ($2 ~ /true/ ? "yes" : "no"); if (split(cards, c, " ") == 3) print stage, n, bytes, cards }'
}

table() {
    echo '| program | parameters | on the card | 24 GB | 80 GB | 141 GB |'
    echo '|---|---|---|---|---|---|'
    for size in 135m 1.5b 7b; do plan "$size"; done | awk '
        BEGIN { name["sft"] = "rlhf-sft"; name["reward-helpful"] = "rlhf-reward train"; name["rejection"] = "rlhf-rejection"; name["ppo"] = "rlhf-ppo" }
        $1 in name { printf "| `%s` | %s | %.1f GiB | %s | %s | %s |\n", name[$1], $2 < 1e9 ? sprintf("%.0fM", $2 / 1e6) : sprintf("%.2fB", $2 / 1e9), $3 / 1073741824, $4, $5, $6 }'
}

if [ -n "$write" ]; then
    table >"$tmp/table"
    awk -v table="$tmp/table" '/^<!-- cards/ { print; while ((getline line < table) > 0) print line; skip = 1; next }
        /^<!-- end/ { skip = 0 } !skip' configs/README.md >"$tmp/README.md"
    cp "$tmp/README.md" configs/README.md
else
    table
fi
