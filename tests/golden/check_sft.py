#!/usr/bin/env python3
"""check_sft.py - recomputes a run of rlhf-sft with PyTorch and transformers, in double precision.

usage: check_sft.py RUN        a finished run whose batch holds all records (one step per epoch), template plain

With the whole data in every batch the order of the records does not matter, so nothing of ours is needed but the
config and the metrics: tokens and loss mask are made by `tokenizers`, gradients by autograd, updates by torch.optim.AdamW,
clipping by clip_grad_norm_. Compared: loss, entropy, mean_token_accuracy, grad_norm of every step, and the exported weights.
"""
import json
import sys

import torch
import yaml
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

run = sys.argv[1]
config = yaml.safe_load(open(f"{run}/config.yaml"))
metrics = [json.loads(line) for line in open(f"{run}/metrics.jsonl")]
o = {key[6:]: float(value) for key, value in config.items()
     if key.startswith("optim.") and key != "optim.schedule"}  # PyYAML reads 1e-05 as text
assert config["template"] == "plain" and config["init"] == "checkpoint", "plain template, init: checkpoint"

tok = Tokenizer.from_file(config["model"] + "/tokenizer.json")
bos, eos = tok.token_to_id("<s>"), tok.token_to_id("</s>")


def encode(text):
    return tok.encode(text, add_special_tokens=False).ids


sequences = []
for source in config["data.train"]:
    for line in open(source["path"]):
        r = json.loads(line)
        prompt = [bos] + encode("\n\nHuman: " + r["prompt"] + "\n\nAssistant:")
        answer = encode(" " + r["completion"]) + [eos]
        sequences.append((prompt + answer, len(prompt)))
assert config["batch_size"] >= len(sequences), "the batch must hold all records"

torch.set_default_dtype(torch.float64)
model = AutoModelForCausalLM.from_pretrained(config["model"], torch_dtype=torch.float64, attn_implementation="eager")
groups = [{"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": o["weight_decay"]},
          {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0}]
adam = torch.optim.AdamW(groups, lr=1.0, betas=(o["beta1"], o["beta2"]), eps=o["eps"])
worst = 0.0


def compare(step, name, ours, theirs, tolerance):
    global worst
    error = abs(ours - theirs) / max(abs(theirs), 1e-12)
    worst = max(worst, error / tolerance)
    if error > tolerance:
        print(f"step {step}: {name} is {ours}, PyTorch says {theirs}")


for m in metrics:
    total, entropy, hits, n = 0.0, 0.0, 0, 0
    for ids, n_prompt in sequences:
        logp = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)[n_prompt - 1:-1]
        total = total - logp.gather(1, torch.tensor(ids[n_prompt:])[:, None]).sum()
        entropy -= (logp.exp() * logp).sum().item()
        hits += (logp.argmax(-1) == torch.tensor(ids[n_prompt:])).sum().item()
        n += len(ids) - n_prompt
    loss = total / n
    adam.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), o["max_grad_norm"]).item()
    for g in adam.param_groups:
        g["lr"] = m["learning_rate"]
    adam.step()
    compare(m["step"], "loss", m["loss"], loss.item(), 1e-4)
    compare(m["step"], "entropy", m["entropy"], entropy / n, 1e-4)
    compare(m["step"], "mean_token_accuracy", m["mean_token_accuracy"], hits / n, 1e-9)
    compare(m["step"], "grad_norm", m["grad_norm"], norm, 1e-3)

ours = AutoModelForCausalLM.from_pretrained(f"{run}/export", torch_dtype=torch.float64).state_dict()
for name, w in model.state_dict().items():
    distance = (ours[name] - w).norm().item() / w.norm().item()
    compare("last", name, 1 + distance, 1.0, 1e-3)
print(f"{len(metrics)} steps, {len(sequences)} records: worst deviation is {worst:.3f} of its tolerance")
sys.exit(worst > 1)
