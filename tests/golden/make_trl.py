#!/usr/bin/env python3
"""Golden values from TRL itself, not from formulas copied out of it: its trainers' compute_loss, their data
preparation and PPO's whitening, run on models and tokenizers of this folder.

    python tests/golden/make_trl.py > tests/golden/trl.json        (from the root of the project)

Made with trl 0.26.2, transformers 4.57.3, torch 2.5.1, tokenizers 0.22.2. Checked by tests/unit/test_trl.c.

  reward   RewardTrainer.compute_loss on model/score: pairs of random ids, with no margin column and with the
           margins of Llama 2's table 27
  sft      what SFTTrainer makes of records: input_ids and completion_mask of {prompt, completion}, input_ids and
           assistant_masks of {messages} under assistant_only_loss (the chat template is the tokenizer's own,
           for the second with its {% generation %} marks), for a tokenizer and a template of each kind
  sft_loss SFTTrainer.compute_loss on model/mha over the batch of all records of `words`, for both
  whiten   masked_mean, masked_var and masked_whiten of trl.experimental.ppo. TRL whitens with the unbiased variance;
           Llama 2's formula, and ours, takes the biased one, which is given beside it
"""
import contextlib
import json
import os
import sys
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", TRANSFORMERS_VERBOSITY="error", HF_DATASETS_DISABLE_PROGRESS_BARS="1",
                  TRL_EXPERIMENTAL_SILENCE="1")

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast
from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from trl.experimental.ppo.ppo_trainer import masked_mean, masked_var, masked_whiten

HERE = "tests/golden/"
COMMON = dict(use_cpu=True, report_to=[], bf16=False, gradient_checkpointing=False)
MARGINS = {"none": None, "small": [1, 2 / 3, 1 / 3, 0], "large": [3, 2, 1, 0]}
PLAIN = ("{% for m in messages %}{% if m['role'] == 'user' %}{{ '\n\nHuman: ' + m['content'] }}"
         "{% elif m['role'] == 'assistant' %}{{ '\n\nAssistant:' }}"
         "{% generation %}{{ ' ' + m['content'] + eos_token }}{% endgeneration %}"
         "{% else %}{{ m['content'] }}{% endif %}{% endfor %}")
TEXTS = {  # by tokenizer: turns of user and assistant in turn, after a system message if the number is odd
    "words": [["copy a b", "a b"], ["hello there", "The answer is 42."], ["is a word there", "hello"]],
    "fallback": [["What is the answer?", "The answer is 42."], ["Be brief.", "Hello there!", "Hello, how are you?"]],
    "byte_level": [["Qu'est-ce que c'est?", "The lazy dog  doesn't mind."], ["Be brief.", "hello", "Привет"]],
}
DIALOGUES = [["hello", "hello there", "copy a", "a"], ["copy b a", "b a"], ["a", "b", "a", "b", "is The word 42.", "word is a"]]


def conversation(turns):
    roles = ["system"] * (len(turns) % 2) + ["user", "assistant"] * (len(turns) // 2)
    return [{"role": r, "content": c} for r, c in zip(roles, turns)]


def tokenizer(name):
    config = json.load(open(f"{HERE}text/{name}/tokenizer_config.json"))
    pad = {"words": "<unk>", "fallback": "<unk>", "byte_level": "<|endoftext|>"}[name]
    tok = PreTrainedTokenizerFast(tokenizer_file=f"{HERE}text/{name}/tokenizer.json", eos_token=config["eos_token"],
                                  bos_token=config["bos_token"], pad_token=pad)
    tok.chat_template = config["chat_template"]
    return tok


def reward(out):
    g = torch.Generator().manual_seed(5)
    ids = lambda: torch.randint(3, 64, (int(torch.randint(2, 20, (), generator=g)),), generator=g).tolist()
    rows = [{"chosen_input_ids": ids(), "rejected_input_ids": ids()} for _ in range(8)]
    result = {"chosen": [r["chosen_input_ids"] for r in rows], "rejected": [r["rejected_input_ids"] for r in rows]}
    for kind, margin in MARGINS.items():
        model = AutoModelForSequenceClassification.from_pretrained(HERE + "model/score", dtype=torch.float64)
        data = [dict(r, **({"margin": margin[i % 4]} if margin else {})) for i, r in enumerate(rows)]
        trainer = RewardTrainer(model, RewardConfig(out, **COMMON), train_dataset=Dataset.from_list(data),
                                processing_class=tokenizer("words"))
        batch = trainer.data_collator(list(trainer.train_dataset))
        with torch.no_grad():
            loss = trainer.compute_loss(trainer.model, batch)
        result[kind] = {"margin": (margin or [0, 0, 0, 0]) * 2, "loss": loss.item()}
    return result


def sft_trainer(out, name, records, template=None, **config):
    """The model is used for `words` alone, whose ids are below its vocabulary."""
    tok = tokenizer(name)
    tok.chat_template = template or tok.chat_template
    model = AutoModelForCausalLM.from_pretrained(HERE + "model/mha", dtype=torch.float64)
    return SFTTrainer(model, SFTConfig(out, **config, **COMMON), train_dataset=Dataset.from_list(records), processing_class=tok)


def sft_loss(trainer):
    batch = trainer.data_collator(list(trainer.train_dataset))
    with torch.no_grad():
        return trainer.compute_loss(trainer.model, batch).item()


def sft(out):
    masks, losses = {}, {}
    for name, texts in TEXTS.items():
        records = [{"prompt": conversation(t)[:-1], "completion": conversation(t)[-1:]} for t in texts]
        trainer = sft_trainer(out, name, records)
        masks[name] = [{"record": r, "ids": row["input_ids"], "mask": row["completion_mask"]}
                       for r, row in zip(records, trainer.train_dataset)]
        if name == "words":
            losses["completion"] = sft_loss(trainer)
    records = [{"messages": conversation(t)} for t in DIALOGUES]
    trainer = sft_trainer(out, "words", records, PLAIN, assistant_only_loss=True)
    masks["words_dialogues"] = [{"record": r, "ids": row["input_ids"], "mask": row["assistant_masks"]}
                                for r, row in zip(records, trainer.train_dataset)]
    losses["assistant"] = sft_loss(trainer)
    return masks, losses


def whiten():
    published = torch.tensor([[1.2, 1.3, 1.4], [1.5, 1.6, 1.7], [1.8, 1.9, 2.0]], dtype=torch.float64)
    g = torch.Generator().manual_seed(6)
    random = torch.randn(4, 5, generator=g, dtype=torch.float64) * 3 + 1
    some = torch.rand(4, 5, generator=g) < 0.6
    cases = []
    for values, mask in ((published, torch.ones_like(published, dtype=torch.bool)), (random, some)):
        for shift in (True, False):
            cases.append({"values": values.flatten().tolist(), "use": mask.flatten().tolist(), "shift_mean": shift,
                          "mean": masked_mean(values, mask).item(), "var_biased": masked_var(values, mask, unbiased=False).item(),
                          "var_unbiased": masked_var(values, mask).item(),
                          "whitened": masked_whiten(values, mask, shift_mean=shift).flatten().tolist()})
    return cases


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(sys.stderr):
        masks, losses = sft(out)
        result = {"reward": reward(out), "sft": masks, "sft_loss": losses, "whiten": whiten()}
    print(json.dumps(result, ensure_ascii=False))
