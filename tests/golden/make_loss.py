#!/usr/bin/env python3
"""Golden values of the ranking loss, the classification loss and PPO's two losses, made with torch 2.5.1 in
float64 from inputs rounded to float32:  python3 tests/golden/make_loss.py > tests/golden/loss.json

The ranking loss is TRL's and OpenRLHF's expression, -logsigmoid(chosen - rejected - margin), with every margin
of Llama 2's table 27.
"""
import json

import torch
import torch.nn.functional as F

torch.manual_seed(11)
f32 = lambda t: t.float().double()
out = {}

margins = {"none": [0, 0, 0, 0], "small": [1, 2 / 3, 1 / 3, 0], "large": [3, 2, 1, 0]}
for kind, m in margins.items():
    s = f32(torch.randn(16) * 3).requires_grad_()
    m = f32(torch.tensor(m * 2))
    loss = -F.logsigmoid(s[0::2] - s[1::2] - m)
    (loss / 8).sum().backward()
    out["rank_" + kind] = {"scores": s.tolist(), "margin": m.tolist(), "loss": loss.tolist(), "grad": s.grad.tolist()}

s, y = f32(torch.cat([torch.randn(6) * 4, torch.tensor([-30.0, 30.0])])).requires_grad_(), torch.tensor([1.0, 0, 1, 0, 1, 0, 1, 0]).double()
loss = F.binary_cross_entropy_with_logits(s, y, reduction="none")
(loss / 8).sum().backward()
out["bce"] = {"scores": s.tolist(), "labels": y.tolist(), "loss": loss.tolist(), "grad": s.grad.tolist()}

lp, old, adv = f32(-torch.rand(12) * 3).requires_grad_(), f32(-torch.rand(12) * 3), f32(torch.randn(12))
ratio = torch.exp(lp - old)
loss = -torch.minimum(ratio * adv, ratio.clamp(0.8, 1.2) * adv)
(loss / 12).sum().backward()
out["policy"] = {"logp": lp.tolist(), "old": old.tolist(), "adv": adv.tolist(), "ratio": ratio.tolist(), "loss": loss.tolist(), "grad": lp.grad.tolist()}

v, old, ret = f32(torch.randn(12)).requires_grad_(), f32(torch.randn(12)), f32(torch.randn(12))
loss = 0.5 * torch.maximum((v - ret) ** 2, (old + (v - old).clamp(-0.2, 0.2) - ret) ** 2)
(loss / 12).sum().backward()
out["value"] = {"value": v.tolist(), "old": old.tolist(), "ret": ret.tolist(), "loss": loss.tolist(), "grad": v.grad.tolist()}
print(json.dumps(out, indent=0))
