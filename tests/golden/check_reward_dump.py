#!/usr/bin/env python3
"""Recomputes the step that `rlhf-reward train --dump-step DIR` wrote, with PyTorch in float64.

    python3 tests/golden/check_reward_dump.py DIR

Made for torch 2.5.1, transformers 4.46.3, safetensors. Checks to 1e-5 relative: ranking loss with margins,
classification loss, gradients, weights after the AdamW step. Ends with `N passed, N failed`.
"""
import json
import os
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

TOL = 1e-5
results = []


def check(name, err):
    results.append(err <= TOL)
    print(f"{'ok    ' if err <= TOL else 'FAILED'} {name}: relative error {err:.2e}")


def main(folder):
    d = json.load(open(os.path.join(folder, "step.json")))
    model = AutoModelForSequenceClassification.from_pretrained(
        os.path.join(folder, "before"), torch_dtype=torch.float32, attn_implementation="eager").double()
    model.model.embed_tokens.padding_idx = None  # a gradient for the padding token too: answers may hold it
    score = lambda ids: model.score(model.model(torch.tensor([ids])).last_hidden_state[0, -1])[0]
    rank, bce = [], []
    for item in d["items"]:
        s = [score(ids) for ids in item["sequences"]]
        if len(s) == 2:
            rank.append(-F.logsigmoid(s[0] - s[1] - item["margin"]))
        bce += [F.binary_cross_entropy_with_logits(x, torch.tensor(float(y), dtype=torch.float64))
                for x, y in zip(s, item["labels"]) if y is not None]
    zero = torch.zeros((), dtype=torch.float64)
    rank = torch.stack(rank).mean() if rank else zero
    bce = torch.stack(bce).mean() if bce else zero
    check("ranking loss", abs(d["rank_loss"] - rank.item()) / max(abs(rank.item()), 1e-12))
    if d["safety_weight"] > 0:
        check("classification loss", abs(d["safety_loss"] - bce.item()) / max(abs(bce.item()), 1e-12))
    params = list(model.parameters())
    opt = torch.optim.AdamW([{"params": [p for p in params if p.dim() == 2], "weight_decay": d["weight_decay"]},
                             {"params": [p for p in params if p.dim() != 2], "weight_decay": 0.0}],
                            lr=d["learning_rate"], betas=(d["beta1"], d["beta2"]), eps=d["eps"])
    (rank + d["safety_weight"] * bce).backward()
    theirs = dict(model.named_parameters())
    for key, g in sorted(load_file(os.path.join(folder, "gradients.safetensors")).items()):
        t = theirs[key].grad
        check(f"gradient {key}", ((g.double() - t).norm() / t.norm()).item())
    if d["max_grad_norm"] > 0:
        torch.nn.utils.clip_grad_norm_(params, d["max_grad_norm"])
    opt.step()
    ours = load_file(os.path.join(folder, "after", "model.safetensors"))
    check("weights after the step (worst tensor)",
          max(((w.double() - theirs[k].detach()).norm() / theirs[k].norm()).item() for k, w in ours.items()))
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return not all(results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
