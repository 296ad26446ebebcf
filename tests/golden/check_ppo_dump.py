#!/usr/bin/env python3
"""Recomputes an iteration that `rlhf-ppo --dump-iteration DIR` wrote, with PyTorch in float64.

    python3 tests/golden/check_ppo_dump.py DIR

Made for torch 2.5.1, transformers 4.46.3, safetensors. Checks, each to 1e-5 relative (of the largest
value of that kind): log-probabilities of policy and reference, values, reward scores, switch, whitening
and the rule for unfinished answers, KL estimates, GAE and returns, advantage whitening, the gradients of
the first minibatch and the weights after all AdamW steps. Ends with `N passed, N failed`.
"""
import json
import math
import os
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

TOL = 1e-5
passed = failed = 0


def check(name, ours, theirs, tol=TOL):
    global passed, failed
    a = torch.as_tensor(ours, dtype=torch.float64).flatten()
    b = torch.as_tensor(theirs, dtype=torch.float64).flatten()
    scale = max(b.abs().max().item(), 1e-12) if b.numel() else 1.0
    err = ((a - b).abs().max().item() / scale) if b.numel() else 0.0
    ok = a.shape == b.shape and err <= tol
    passed, failed = passed + ok, failed + (not ok)
    print(f"{'ok    ' if ok else 'FAILED'} {name}: relative error {err:.2e} over {b.numel()} values")


def prepared(model):
    """In float64, and with a gradient for the padding token like for any other: a policy may sample it."""
    model.model.embed_tokens.padding_idx = None
    return model.double()


def causal(path):
    return prepared(AutoModelForCausalLM.from_pretrained(path, torch_dtype=torch.float32, attn_implementation="eager"))


def scalar(path):
    return prepared(AutoModelForSequenceClassification.from_pretrained(path, torch_dtype=torch.float32, attn_implementation="eager"))


def hidden_scores(model, ids):
    """Linear score after every token."""
    h = model.model(torch.tensor([ids])).last_hidden_state[0]
    return model.score(h)[:, 0]


def logps(model, prompt, answer, temperature):
    logits = model(torch.tensor([prompt + answer])).logits[0] / temperature
    lp = torch.log_softmax(logits, -1)
    at = torch.arange(len(prompt) - 1, len(prompt) + len(answer) - 1)
    return lp[at, torch.tensor(answer)]


def values(model, prompt, answer):
    v = hidden_scores(model, prompt + answer)
    return v[len(prompt) - 1:len(prompt) + len(answer) - 1]


def apart(ours, theirs):
    """|ours - theirs| / |theirs|; equal zeros are 0 apart."""
    return ((ours.double() - theirs).norm() / theirs.norm().clamp_min(1e-30)).item()


def result(name, err):
    global passed, failed
    ok = err <= TOL
    passed, failed = passed + ok, failed + (not ok)
    print(f"{'ok    ' if ok else 'FAILED'} {name}: relative error {err:.2e}")


def optimizer(model, o, folder, name):
    """AdamW in the state that the dump says it was in."""
    decay = [p for p in model.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if p.dim() != 2]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": o["weight_decay"]}, {"params": rest, "weight_decay": 0.0}],
                            lr=1.0, betas=(o["beta1"], o["beta2"]), eps=o["eps"])
    m, v = (load_file(os.path.join(folder, f"moments-{name}-{k}.safetensors")) for k in "mv")
    theirs = dict(model.named_parameters())
    for key in m:
        opt.state[at(theirs, key)] = {"step": torch.tensor(float(o["updates"])), "exp_avg": m[key].double(),
                                      "exp_avg_sq": v[key].double()}
    return opt


def at(params, key):
    """The parameter of that name; a tied head goes by the name of the embedding."""
    return params[key if key in params else "model.embed_tokens.weight"]


def main(folder):
    d = json.load(open(os.path.join(folder, "rollout.json")))
    answers, n = d["answers"], len(d["answers"])
    policy, reference = causal(os.path.join(folder, "policy-before")), causal(os.path.join(folder, "reference"))
    critic = scalar(os.path.join(folder, "critic-before"))
    helpful = scalar(d["reward_helpful"])
    safety = scalar(d["reward_safety"]) if d["reward_safety"] and d["switch"] else None
    T = d["temperature"]

    with torch.no_grad():
        lp = [logps(policy, a["prompt_ids"], a["answer_ids"], T) for a in answers]
        rp = [logps(reference, a["prompt_ids"], a["answer_ids"], T) for a in answers]
        vs = [values(critic, a["prompt_ids"], a["answer_ids"]) for a in answers]
        rh = torch.stack([hidden_scores(helpful, a["prompt_ids"] + a["answer_ids"])[-1] for a in answers])
        rs = torch.stack([hidden_scores(safety, a["prompt_ids"] + a["answer_ids"])[-1] for a in answers]) if safety else torch.zeros(n)
    cat = lambda k: [x for a in answers for x in a[k]]
    check("policy log-probabilities", cat("logp"), torch.cat(lp))
    check("reference log-probabilities", cat("ref"), torch.cat(rp))
    check("values", cat("value"), torch.cat(vs))
    check("helpful scores", [a["helpful"] for a in answers], rh)
    if safety:
        check("safety scores", [a["safety"] for a in answers], rs)

    # the switch, on the recorded scores so that a score at the threshold cannot flip between programs
    limit = math.log(d["threshold"] / (1 - d["threshold"]))
    branch, raw = [], []
    for a in answers:
        b = 0 if not d["switch"] else 1 if a["tagged"] else 2 if a["safety"] < limit else 0
        branch.append(b)
        raw.append(a["helpful"] if b == 0 else a["safety"])
    check("switch", [a["branch"] for a in answers], branch, 0)
    check("score of the branch", [a["raw"] for a in answers], raw, 0)

    raw = torch.tensor(raw, dtype=torch.float64)
    done = torch.tensor([a["finished"] for a in answers])
    shaped = raw.clone()
    if done.any() and raw[done].std(unbiased=False) < 1e-4:
        shaped[:] = 0
    else:
        if d["whiten_scores"] and done.any():
            f = raw[done]
            shaped[done] = (f - f.mean()) / torch.sqrt(f.var(unbiased=False) + 1e-8)
        low = min([-1.0] + shaped[done].tolist())
        shaped[~done] = low
    check("whitened scores", [a["shaped"] for a in answers], shaped)
    check("KL k1", [a["k1"] for a in answers], [(torch.tensor(a["logp"]).double() - torch.tensor(a["ref"]).double()).sum() for a in answers])
    k3 = [(torch.exp(r - l) - 1 - (r - l)).sum() for a in answers
          for l, r in [(torch.tensor(a["logp"]).double(), torch.tensor(a["ref"]).double())]]
    check("KL k3", [a["k3"] for a in answers], k3)

    adv, ret = [], []
    for a, s in zip(answers, shaped):
        m = len(a["answer_ids"])
        r = [-d["kl_coef"] * (a["logp"][t] - a["ref"][t]) for t in range(m)]
        r[-1] += s.item()
        nxt, nv, out = 0.0, 0.0, [0.0] * m
        for t in reversed(range(m)):
            nxt = r[t] + d["gamma"] * nv - a["value"][t] + d["gamma"] * d["lam"] * nxt
            out[t], nv = nxt, a["value"][t]
        adv.append(torch.tensor(out, dtype=torch.float64))
        ret.append(adv[-1] + torch.tensor(a["value"], dtype=torch.float64))
    flat = torch.cat(adv)
    if d["whiten_advantages"]:
        mean, sd = flat.mean(), torch.sqrt(flat.var(unbiased=False) + 1e-8)
        adv = [(x - mean) / sd for x in adv]
    check("advantages", cat("adv"), torch.cat(adv))
    check("returns", cat("ret"), torch.cat(ret))

    popt, copt = optimizer(policy, d["optim"], folder, "policy"), optimizer(critic, d["critic_optim"], folder, "critic")
    size = d["minibatch_size"]
    for first in range(0, n, size):
        part = range(first, first + size)
        ploss = vloss = 0.0
        total = sum(len(answers[i]["answer_ids"]) for i in part)
        for i in part:
            a = answers[i]
            A = torch.tensor(a["adv"], dtype=torch.float64)
            ratio = torch.exp(logps(policy, a["prompt_ids"], a["answer_ids"], T) - torch.tensor(a["logp"], dtype=torch.float64))
            c = d["cliprange"]
            ploss = ploss - torch.minimum(ratio * A, ratio.clamp(1 - c, 1 + c) * A).sum()
            v, old = values(critic, a["prompt_ids"], a["answer_ids"]), torch.tensor(a["value"], dtype=torch.float64)
            R, cv = torch.tensor(a["ret"], dtype=torch.float64), d["cliprange_value"]
            e = (v - R) ** 2
            if cv > 0:
                e = torch.maximum(e, (old + (v - old).clamp(-cv, cv) - R) ** 2)
            vloss = vloss + 0.5 * e.sum()
        for model, opt, loss, o, name in ((policy, popt, ploss, d["optim"], "policy"), (critic, copt, vloss, d["critic_optim"], "critic")):
            if not o["learning_rates"]:
                continue
            opt.zero_grad()
            (loss / total).backward()
            if first == 0:
                ours = load_file(os.path.join(folder, f"gradients-{name}.safetensors"))
                theirs = dict(model.named_parameters())
                for key, g in sorted(ours.items()):
                    result(f"{name} gradient {key}", apart(g, at(theirs, key).grad))
            if o["max_grad_norm"] > 0:
                torch.nn.utils.clip_grad_norm_(model.parameters(), o["max_grad_norm"])
            for group in opt.param_groups:
                group["lr"] = o["learning_rates"][first // size]
            opt.step()
    for model, name in ((policy, "policy"), (critic, "critic")):
        ours = load_file(os.path.join(folder, f"{name}-after", "model.safetensors"))
        theirs = dict(model.named_parameters())
        result(f"{name} weights after {n // size} steps, worst tensor",
               max(apart(w, at(theirs, k).detach()) for k, w in ours.items()))
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
