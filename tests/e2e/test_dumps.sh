#!/usr/bin/env bash
# What --dump-iteration and --dump-step write is recomputed by the scripts of tests/golden, to 1e-5.
# PYTHON=FILE names a Python with torch, transformers and safetensors for that (two minutes); without it
# only the dumps are made.
. "$(dirname "$0")/lib.sh"
tiny_world
PYTHON=${PYTHON:-}

# agrees NAME SCRIPT DIR
agrees() {
    if [ -n "$PYTHON" ]; then check "$1: PyTorch agrees" "$PYTHON" "$ROOT/tests/golden/$2" "$3"
    else skip "$1: PyTorch agrees" "PYTHON is not set"; fi
}

# ppo NAME KEY=VALUE...
ppo() {
    local name=$1; shift
    check "$name: dumped" "$BIN/rlhf-ppo" model="$W/sft/export" reward.helpful="$W/helpful/export" \
        reward.safety="$W/safety/export" template=plain data.train="$W/world/prompts_ppo.jsonl" max_prompt_length=40 \
        max_new_tokens=12 batch_size=32 minibatch_size=8 micro_batch_tokens=512 kl_coef=0.1 seed=4 \
        optim.learning_rate=1e-3 critic.optim.learning_rate=1e-3 iterations=3 max_steps=12 save_steps=0 "$@" \
        out_dir="$TMP/run" overwrite=true --dump-iteration "$TMP/$name"
    agrees "$name" check_ppo_dump.py "$TMP/$name"
}
ppo first dump.iteration=0
ppo second dump.iteration=1 temperature=0.7 optim.schedule=cosine critic.optim.schedule=cosine
ppo unfinished dump.iteration=1 max_new_tokens=3
ppo clipped dump.iteration=2 cliprange=0.01 cliprange_value=0 scores=none switch.enabled=false \
    optim.learning_rate=1e-2
ppo critic-first dump.iteration=0 critic.warmup_iterations=1
PTX=(ptx.coef=0.5 "ptx.data=[{path: $W/world/sft.jsonl}]" ptx.max_length=64 ptx.batch_size=5)
MAX=(scores=running score_clip=1.5 reward.normalize=per_model switch.threshold=0.75 kl.target=0.1 kl.horizon=100 "${PTX[@]}")
ppo max-first dump.iteration=0 "${MAX[@]}"
ppo max-later dump.iteration=2 "${MAX[@]}" temperature=0.8
ppo rloo dump.iteration=1 advantage=rloo samples_per_prompt=4
ppo grpo dump.iteration=1 advantage=grpo samples_per_prompt=2 reward.normalize=per_model switch.threshold=0.75 scores=none "${PTX[@]}"
ppo grpo-unscaled dump.iteration=0 advantage=grpo samples_per_prompt=8 scale_rewards=false whiten_advantages=true

check "reward: dumped" "$BIN/rlhf-reward" train out_dir="$TMP/reward" "data.train=[{path: $W/pairs/safety.jsonl}]" \
    safety_loss.weight=1 "${REWARD[@]}" --dump-step "$TMP/step"
agrees reward check_reward_dump.py "$TMP/step"

if [ -n "$PYTHON" ]; then # the scripts can say no
    sed -i 's/"kl_coef": *0.1,/"kl_coef":0.11,/' "$TMP/second/rollout.json"
    check "another beta is noticed" sh -c "! '$PYTHON' '$ROOT/tests/golden/check_ppo_dump.py' '$TMP/second' >'$TMP/no.log' &&
        grep -q 'FAILED advantages' '$TMP/no.log'"
fi
finish
