#!/usr/bin/env bash
# PPO against the optimum that is known in closed form: the best policy under reward r and KL penalty beta
# is pi0 * exp(r / beta) / Z. A vocabulary of four tokens, each of which ends an answer, makes the whole
# policy measurable: rlhf-rejection names the log-probability and the reward of every answer there is.
. "$(dirname "$0")/lib.sh"
cd "$TMP" || exit 1

added() { # ID TEXT SPECIAL
    printf '{"id": %d, "content": "%s", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": %s}' "$@"
}
mkdir -p base
cat >base/tokenizer.json <<END
{"version": "1.0", "truncation": null, "padding": null,
 "added_tokens": [$(added 0 '<s>' true), $(added 1 '</s>' true),
                  $(added 2 '\n\nHuman:' false), $(added 3 '\n\nAssistant:' false)],
 "normalizer": null, "post_processor": null,
 "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": true},
 "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": true},
 "model": {"type": "BPE", "dropout": null, "unk_token": "<s>", "continuing_subword_prefix": null,
           "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": false, "ignore_merges": true,
           "vocab": {"<s>": 0, "</s>": 1, "\n\nHuman:": 2, "\n\nAssistant:": 3}, "merges": []}}
END
echo '{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<s>"}' \
    >base/tokenizer_config.json
cat >base/config.json <<'END'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 4, "hidden_size": 32,
 "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
 "head_dim": 16, "hidden_act": "silu", "max_position_embeddings": 16, "rms_norm_eps": 1e-05,
 "rope_theta": 10000, "tie_word_embeddings": false, "attention_bias": false, "mlp_bias": false,
 "bos_token_id": 0, "eos_token_id": [1, 0, 2, 3], "torch_dtype": "float32"}
END
# words the tokenizer does not know are <s>
for _ in 1 2 3 4; do
    echo '{"prompt": "a", "completion": "b"}' >>sft.jsonl
    echo '{"prompt": "a", "chosen": "b", "rejected": "b b"}' >>pairs.jsonl
done
echo '{"id": "p", "prompt": "a"}' >prompts.jsonl

T=(template=plain batch_size=4 max_length=16)
check "a policy" "$BIN/rlhf-sft" out_dir=sft model=base init=random "data.train=[{path: sft.jsonl}]" "${T[@]}" \
    max_steps=1 optim.learning_rate=1e-3
# barely trained: the rewards shall differ by less than one, so that no beta gives all to one token
check "a reward model" "$BIN/rlhf-reward" train out_dir=reward model=sft/export "${T[@]}" \
    "data.train=[{path: pairs.jsonl}]" epochs=2 optim.learning_rate=1e-4 optim.schedule=constant

# measure MODEL FILE: "logp reward" of every token as the first of an answer
measure() {
    "$BIN/rlhf-rejection" out_dir=answers overwrite=true model="$1" reward.helpful=reward/export template=plain \
        data.prompts=prompts.jsonl k=1024 max_prompt_length=8 max_new_tokens=1 >/dev/null 2>&1
    sed 's/.*"logp": \([^,]*\), "reward_helpful": \([^,}]*\).*/\1 \2/' answers/samples.jsonl | sort -u >"$2"
}
measure sft/export start.txt
compares "four answers there are" "$(grep -c . start.txt) == 4"
compares "and their probabilities add up to one" \
    "$(awk '{ s += exp($1) } END { printf "%.9f", s - 1 }' start.txt) ^ 2 < 1e-12"

# Total variation between what was trained and the optimum, and between optimum and start. Rewards, being
# the same numbers in both files, name the tokens. A token too rare to be sampled counts with all that the
# sampled ones leave, so the figure is never too small.
distance() { # BETA
    awk -v beta="$1" 'FNR == NR { start[$2] = exp($1); next } { got[$2] = exp($1) }
        END { for (r in start) z += start[r] * exp(r / beta)
              for (r in start) {
                  best = start[r] * exp(r / beta) / z
                  d = best - got[r]; off += d < 0 ? -d : d
                  d = best - start[r]; moved += d < 0 ? -d : d
                  rest += got[r]
              }
              printf "%.6f %.6f\n", (off + (rest < 1 ? 1 - rest : 0)) / 2, moved / 2 }' start.txt trained.txt
}
# optimum NAME BETA KEY=VALUE...: trains, and asks how far from the optimum that ended
optimum() {
    local name=$1 beta=$2; shift 2
    check "$name, beta $beta" "$BIN/rlhf-ppo" out_dir="$name-$beta" model=sft/export reward.helpful=reward/export \
        template=plain data.train=prompts.jsonl switch.enabled=false scores=none whiten_advantages=false \
        max_prompt_length=8 max_new_tokens=1 batch_size=512 minibatch_size=512 iterations=120 kl_coef="$beta" \
        optim.learning_rate=3e-3 optim.schedule=cosine optim.min_lr_ratio=0 optim.weight_decay=0 save_steps=0 seed=2 "$@"
    measure "$name-$beta/export" trained.txt
    read -r off moved <<<"$(distance "$beta")"
    echo "# $name, beta $beta: $off from the optimum, which is $moved from the start"
    compares "$name, beta $beta: within 0.02 of the optimum" "$off < 0.02"
    compares "$name, beta $beta: which is not where it began" "$moved > 0.08"
}
for beta in 0.1 0.5 1; do
    optimum ppo $beta critic.optim.learning_rate=1e-3 cliprange_value=0
done
# without a critic: against the other samples of the prompt
for beta in 0.1 0.5; do
    optimum rloo $beta advantage=rloo samples_per_prompt=4
    # divided by the group's standard deviation: another way there, the same place
    optimum grpo $beta advantage=grpo samples_per_prompt=8
done
finish
