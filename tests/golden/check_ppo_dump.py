#!/usr/bin/env python3
"""Recomputes an iteration that `rlhf-ppo --dump-iteration DIR` wrote, with PyTorch in float64.

    python3 tests/golden/check_ppo_dump.py DIR

Made for torch 2.5.1, transformers 4.46.3 to 4.57.3, safetensors. Checks, each to 1e-5 relative (of the
largest value of that kind): log-probabilities of policy and reference, values, reward scores, switch, the
scales of both models, whitening (of the batch, or by running mean and variance), clipping and the rule for
unfinished answers, KL estimates, the adaptive beta, GAE and returns or the advantages of groups, advantage
whitening, the gradients of the first minibatch (with the language-model loss) and the weights after all
AdamW steps. Ends with the worst relative error and `N passed, N failed`.
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
worst = 0.0


def check(name, ours, theirs, tol=TOL):
    global passed, failed, worst
    a = torch.as_tensor(ours, dtype=torch.float64).flatten()
    b = torch.as_tensor(theirs, dtype=torch.float64).flatten()
    scale = max(b.abs().max().item(), 1e-12) if b.numel() else 1.0
    err = ((a - b).abs().max().item() / scale) if b.numel() else 0.0
    ok = a.shape == b.shape and err <= tol
    worst = max(worst, err)
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
    global passed, failed, worst
    ok = err <= TOL
    worst = max(worst, err)
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


def spread(x):
    return x.var(unbiased=False).sqrt() if len(x) else torch.tensor(0.0)


def check_scale(d, answers, done):
    """The scales that put both models' scores on one: measured on the first rollout's finished answers."""
    if not d["normalize"]:
        check("no scale", d["scale"], [[0, 1], [0, 1]], 0)
        return
    if not d["first"]:
        return
    both = [torch.tensor([a[k] for a in answers], dtype=torch.float64)[done] for k in ("helpful", "safety")]
    known = all(len(x) >= 2 and spread(x) >= 1e-4 for x in both)
    check("scales of both models", d["scale"], [[x.mean(), spread(x)] if known else [0, 1] for x in both])


def shape_scores(d, scaled, done):
    """Whitening, clipping, the rule for unfinished answers."""
    f, shaped = scaled[done], scaled.clone()
    if d["scores"] == "running":
        old = d["running_before"]
        n = old["n"] + len(f)
        mean = (old["n"] * old["mean"] + f.sum()) / n
        m2 = old["m2"] + old["n"] * (old["mean"] - mean) ** 2 + ((f - mean) ** 2).sum()
    if done.any() and spread(f) < 1e-4:
        return shaped * 0
    if d["scores"] == "whiten":
        f = (f - f.mean()) / torch.sqrt(f.var(unbiased=False) + 1e-8)
    elif d["scores"] == "running":
        f = (f - mean) / torch.sqrt(m2 / n + 1e-8)
    if d["score_clip"] > 0:
        f = f.clamp(-d["score_clip"], d["score_clip"])
    shaped[done] = f
    shaped[~done] = min([-1.0] + f.tolist())
    return shaped


def gae(d, a, score):
    m = len(a["answer_ids"])
    r = [-d["kl_coef"] * (a["logp"][t] - a["ref"][t]) for t in range(m)]
    r[-1] += score
    nxt, nv, out = 0.0, 0.0, [0.0] * m
    for t in reversed(range(m)):
        nxt = r[t] + d["gamma"] * nv - a["value"][t] + d["gamma"] * d["lam"] * nxt
        out[t], nv = nxt, a["value"][t]
    return torch.tensor(out, dtype=torch.float64)


def group_advantages(d, answers, shaped):
    """One advantage an answer: against the other answers of its group, or the group's mean and deviation."""
    k1 = torch.tensor([sum(x - y for x, y in zip(a["logp"], a["ref"])) for a in answers], dtype=torch.float64)
    groups = (shaped - d["kl_coef"] * k1).view(-1, d["samples_per_prompt"])
    if d["advantage"] == "rloo":
        others = (groups.sum(1, keepdim=True) - groups) / (groups.shape[1] - 1)
        return (groups - others).flatten()
    adv = groups - groups.mean(1, keepdim=True)
    if d["scale_rewards"]:
        adv = adv / (groups.std(1, keepdim=True) + 1e-4)
    return adv.flatten()


def ptx_loss(policy, part):
    """Weighted mean of -log p over the target tokens of some sequences."""
    loss, weight = 0.0, 0.0
    for e in part:
        lp = torch.log_softmax(policy(torch.tensor([e["ids"]])).logits[0], -1)
        for t in range(1, len(e["ids"])):
            if e["mask"][t]:
                loss, weight = loss - e["weight"] * lp[t - 1, e["ids"][t]], weight + e["weight"]
    return loss / weight


def policy_loss(d, policy, part, T):
    loss, c = 0.0, d["cliprange"]
    for a in part:
        A = torch.tensor(a["adv"], dtype=torch.float64)
        ratio = torch.exp(logps(policy, a["prompt_ids"], a["answer_ids"], T) - torch.tensor(a["logp"], dtype=torch.float64))
        loss = loss - torch.minimum(ratio * A, ratio.clamp(1 - c, 1 + c) * A).sum()
    return loss


def value_loss(d, critic, part):
    loss, cv = 0.0, d["cliprange_value"]
    for a in part:
        v, old = values(critic, a["prompt_ids"], a["answer_ids"]), torch.tensor(a["value"], dtype=torch.float64)
        R = torch.tensor(a["ret"], dtype=torch.float64)
        e = (v - R) ** 2
        if cv > 0:
            e = torch.maximum(e, (old + (v - old).clamp(-cv, cv) - R) ** 2)
        loss = loss + 0.5 * e.sum()
    return loss


def main(folder):
    d = json.load(open(os.path.join(folder, "rollout.json")))
    answers, n = d["answers"], len(d["answers"])
    policy, reference = causal(os.path.join(folder, "policy-before")), causal(os.path.join(folder, "reference"))
    critic = scalar(os.path.join(folder, "critic-before")) if d["advantage"] == "gae" else None
    helpful = scalar(d["reward_helpful"])
    safety = scalar(d["reward_safety"]) if d["reward_safety"] and d["switch"] else None
    T = d["temperature"]

    with torch.no_grad():
        lp = [logps(policy, a["prompt_ids"], a["answer_ids"], T) for a in answers]
        rp = [logps(reference, a["prompt_ids"], a["answer_ids"], T) for a in answers]
        vs = [values(critic, a["prompt_ids"], a["answer_ids"]) for a in answers] if critic else None
        rh = torch.stack([hidden_scores(helpful, a["prompt_ids"] + a["answer_ids"])[-1] for a in answers])
        rs = torch.stack([hidden_scores(safety, a["prompt_ids"] + a["answer_ids"])[-1] for a in answers]) if safety else torch.zeros(n)
    cat = lambda k: [x for a in answers for x in a[k]]
    check("policy log-probabilities", cat("logp"), torch.cat(lp))
    check("reference log-probabilities", cat("ref"), torch.cat(rp))
    if critic:
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

    done = torch.tensor([a["finished"] for a in answers])
    check_scale(d, answers, done)
    scaled = torch.tensor([(x - d["scale"][b > 0][0]) / d["scale"][b > 0][1] for x, b in zip(raw, branch)], dtype=torch.float64)
    check("scores on the common scale", [a["scaled"] for a in answers], scaled)
    mapped = (limit - d["scale"][1][0]) / d["scale"][1][1]
    check("switch on the mapped threshold", [a["branch"] == 2 for a in answers],
          [d["switch"] and not a["tagged"] and (a["safety"] - d["scale"][1][0]) / d["scale"][1][1] < mapped for a in answers], 0)
    shaped = shape_scores(d, scaled, done)
    check("shaped scores", [a["shaped"] for a in answers], shaped)
    if d["kl_target"] > 0 and not d["first"]:
        e = min(max(d["kl_before"] / d["kl_target"] - 1, -0.2), 0.2)
        check("adaptive beta", [d["kl_coef"]], [d["kl_coef_before"] * (1 + e * n / d["kl_horizon"])])
    check("KL k1", [a["k1"] for a in answers], [(torch.tensor(a["logp"]).double() - torch.tensor(a["ref"]).double()).sum() for a in answers])
    k3 = [(torch.exp(r - l) - 1 - (r - l)).sum() for a in answers
          for l, r in [(torch.tensor(a["logp"]).double(), torch.tensor(a["ref"]).double())]]
    check("KL k3", [a["k3"] for a in answers], k3)

    if critic:
        adv = [gae(d, a, x.item()) for a, x in zip(answers, shaped)]
        check("returns", cat("ret"), torch.cat([x + torch.tensor(a["value"], dtype=torch.float64) for x, a in zip(adv, answers)]))
    else:
        adv = [x.repeat(len(a["answer_ids"])) for x, a in zip(group_advantages(d, answers, shaped), answers)]
    flat = torch.cat(adv)
    if d["whiten_advantages"]:
        mean, sd = flat.mean(), torch.sqrt(flat.var(unbiased=False) + 1e-8)
        adv = [(x - mean) / sd for x in adv]
    check("advantages", cat("adv"), torch.cat(adv))

    trained = [("policy", policy, optimizer(policy, d["optim"], folder, "policy"), d["optim"])]
    if critic:
        trained.append(("critic", critic, optimizer(critic, d["critic_optim"], folder, "critic"), d["critic_optim"]))
    size, ptx_size = d["minibatch_size"], d["ptx_batch_size"]
    for first in range(0, n, size):
        part = answers[first:first + size]
        total = sum(len(a["answer_ids"]) for a in part)
        for name, model, opt, o in trained:
            if not o["learning_rates"]:
                continue
            loss = (policy_loss(d, policy, part, T) if name == "policy" else value_loss(d, critic, part)) / total
            if name == "policy" and d["ptx"]:
                at_ptx = first // size * ptx_size
                loss = loss + d["ptx_coef"] * ptx_loss(policy, d["ptx"][at_ptx:at_ptx + ptx_size])
            opt.zero_grad()
            loss.backward()
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
    for name, model, _, _ in trained:
        ours = load_file(os.path.join(folder, f"{name}-after", "model.safetensors"))
        theirs = dict(model.named_parameters())
        result(f"{name} weights after {n // size} steps, worst tensor",
               max(apart(w, at(theirs, k).detach()) for k, w in ours.items()))
    print(f"worst relative error {worst:.2e}")
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
