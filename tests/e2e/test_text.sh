#!/usr/bin/env bash
# Templates by name through rlhf inspect, and with CHECK=1 every generated string and conversation.
. "$(dirname "$0")/lib.sh"

printf '%s\n' '{"prompt": [{"role": "user", "content": "Hello"}], "completion": [{"role": "assistant", "content": "the answer"}]}' \
    >"$TMP/r.jsonl"
inspect() { "$BIN/rlhf" inspect model="$ROOT/tests/golden/text/$1" data="$TMP/r.jsonl" count=1 "${@:2}" >"$TMP/out" 2>&1; }

while read -r folder name; do
    check "$name on $folder" inspect "$folder" template="$name"
    compares "$name names itself and trains on an answer" "$(grep -c "^template $name;" "$TMP/out") == 1 && $(grep -c ' \* ' "$TMP/out") > 0"
done <<'END'
fallback llama2
spm_llama2 llama2
llama3 llama3
llama3 llama3.1
byte_level chatml
qwen2 qwen2
qwen2 qwen2.5
smollm2 smollm2
fallback zephyr
spm_llama2 mistral
spm_trim plain
END
check "the model's own is taken" inspect qwen2
compares "with its system prompt" "$(grep -c '<|im_start|>' "$TMP/out") == 3"
check "chatml by name has none" inspect qwen2 template=chatml
compares "so there are two messages" "$(grep -c '<|im_start|>' "$TMP/out") == 2"
refuses "a template without its tokens" 65 "template llama3 needs the token <\|eot_id\|>" "$BIN/rlhf" inspect \
    model="$ROOT/tests/golden/text/qwen2" data="$TMP/r.jsonl" template=llama3
refuses "a name that is none" 78 "template.*expected one of.*qwen2" "$BIN/rlhf" inspect \
    model="$ROOT/tests/golden/text/qwen2" data="$TMP/r.jsonl" template=qwen9
mkdir -p "$TMP/m"
cp "$ROOT/tests/golden/text/qwen2/tokenizer.json" "$TMP/m"
echo '{"chat_template": "{{ messages }}"}' >"$TMP/m/tokenizer_config.json"
refuses "a text that is not known" 78 "its text is none of those that are known; set .template. to force one" "$BIN/rlhf" inspect \
    model="$TMP/m" data="$TMP/r.jsonl"
[ -z "${CHECK:-}" ] || check "all strings and conversations" "$BUILD/tests/test_text_golden"
finish
