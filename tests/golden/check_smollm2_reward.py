#!/usr/bin/env python3
"""Reward training on a real chat model and hh-rlhf, by `rlhf-reward train` and by TRL's RewardTrainer: the same start, the
same ids, order and AdamW; compared step by step, then on held-out pairs.

    python tests/golden/make_smollm2.py build/smollm2
    make && python tests/golden/check_smollm2_reward.py COMMAND build/smollm2 WORK [SIZE]     (WORK: a scratch folder)

  prepare   training and held-out pairs, the start, ids and order
  ours      rlhf-reward train, then eval on the held-out pairs
  trl       RewardTrainer, then its scores of them
  compare   what `ours` and `trl` left in WORK
  all       one after another

Half of the training pairs are helpful-base, half harmless-base; all are short, so that a run takes minutes on two cores. SIZE
is small, middle (unless said) or large; THREADS=1 in the environment where other work shares the cores. What is set alike where the
programs' defaults differ: constant learning rate, decay 0.1 on matrices alone, beta2 0.95, eps, clipping at 1, no margin.
TRL is given our ids in our order; that they are those of its own tokenization, without the line end behind the token that closes
an answer, is checked. The order is that of one step of a
tiny model over all pairs, which --dump-step writes. The start is a sequence classifier made here, its padding token one
that no text holds: transformers has no gradient for the embedding of the padding token.

The result of a run stands in tests/README.md. Made with torch 2.5.1, transformers 4.57.3, trl 0.26.2.
"""
import contextlib
import json
import os
import shutil
import sys

import numpy as np
import torch
from smollm2 import (ROOT, check, finish, machine_load, ours, our_ids, read_jsonl, timed, tokenizer, write_jsonl)

from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM
from trl import RewardConfig, RewardTrainer

THREADS = int(os.environ.get("THREADS", "2"))
SIZES = {"small": (10, 4, 80, 50), "middle": (20, 8, 112, 200), "large": (40, 8, 256, 200)}
STEPS, PAIRS, MAX_LENGTH, HELD_OUT = SIZES[sys.argv[4] if len(sys.argv) > 4 else "middle"]
PAD = "<|endoftext|>"
OPTIM = {"learning_rate": 1e-5, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95, "eps": 1e-5, "max_grad_norm": 1.0}
SETS = {"helpful": "helpful-base.test.jsonl.gz", "harmless": "harmless-base.test.jsonl.gz"}


def split(folder, work, name, n_train):
    """Training and held-out pairs of a set: no prompt is in both (`held_out_every` goes by the prompt)."""
    paths = f"{work}/{name}-all.jsonl", f"{work}/{name}-rest.jsonl"
    ours("rlhf", "import", "hh-rlhf", f"{ROOT}/../shared/data/hh_rlhf/{SETS[name]}", paths[0], held_out=paths[1], held_out_every=2)
    out = []
    for path, n in zip(paths, (n_train, HELD_OUT)):
        fits = our_ids(folder, path, "pair", MAX_LENGTH)
        rows = [r for i, r in enumerate(read_jsonl(path)) if i + 1 in fits][:n]
        assert len(rows) == n, f"{path}: {len(rows)} pairs of at most {MAX_LENGTH} tokens"
        out.append(rows)
    return out


def make_start(folder, work, tok):
    """The chat model under a fresh head, as transformers saves it; our tokenizer files beside it."""
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, pad_token_id=tok.convert_tokens_to_ids(PAD),
                                                               dtype=torch.float32)
    torch.nn.init.normal_(model.score.weight, std=(model.config.hidden_size + 1) ** -0.5)
    out = f"{work}/start"
    model.save_pretrained(out)
    copy_tokenizer(folder, out)
    return out


def copy_tokenizer(folder, out):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"{folder}/{name}", out)


def order_of(folder, work, data, n):
    """Ids of the pairs of an epoch, in the order of training."""
    tiny = f"{work}/tiny"
    vocab = json.load(open(f"{folder}/config.json"))["vocab_size"]
    LlamaForCausalLM(LlamaConfig(vocab_size=vocab, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
                                 bos_token_id=1, eos_token_id=2, pad_token_id=2)).save_pretrained(tiny)
    copy_tokenizer(folder, tiny)
    dump = f"{work}/order"
    shutil.rmtree(f"{work}/tiny-run", ignore_errors=True)
    ours("rlhf-reward", "train", model=tiny, out_dir=f"{work}/tiny-run", batch_size=n, max_length=MAX_LENGTH, max_steps=1,
         **{"data.train": f"[{{path: {data}}}]", "dump.dir": dump})
    return [item["sequences"] for item in json.load(open(f"{dump}/step.json"))["items"]]


def prepare(folder, work):
    tok, train = tokenizer(folder), []
    for name in SETS:
        rows, rest = split(folder, work, name, STEPS * PAIRS // 2)
        train += rows
        write_jsonl(f"{work}/{name}.jsonl", rest)
    data = write_jsonl(f"{work}/train.jsonl", train)
    ids = list(our_ids(folder, data, "pair", MAX_LENGTH).values())
    trl_ids = [[tok.apply_chat_template(r["prompt"] + r[k]) for k in ("chosen", "rejected")] for r in train]
    line_end = tok.encode("\n")
    check("ids", [[s + line_end for s in two] for two in ids] == trl_ids,
          f"{len(train)} pairs, {sum(len(s) for two in ids for s in two)} tokens: apply_chat_template's but for the last line end")
    items = order_of(folder, work, data, len(train))
    check("order", sorted(items) == sorted(ids) and items != ids, "a permutation of the file")
    write_jsonl(f"{work}/items.jsonl", items)
    make_start(folder, work, tok)


# ---- ours -------------------------------------------------------------------------------------------------------------


def run_ours(folder, work):
    out, before = f"{work}/ours", machine_load()
    shutil.rmtree(out, ignore_errors=True)
    seconds, _ = timed(ours, "rlhf-reward", "train", model=f"{work}/start", out_dir=out, batch_size=PAIRS, max_length=MAX_LENGTH,
                       margin="none", micro_batch_tokens=2048, threads=THREADS, save_steps=0,
                       **{"data.train": f"[{{path: {work}/train.jsonl}}]", "optim.schedule": "constant",
                          **{f"optim.{k}": v for k, v in OPTIM.items()}})
    print(f"       ours: {seconds:.0f} s with starting up, {THREADS} threads, {before}")
    for name in SETS:
        ours("rlhf-reward", "eval", model=f"{out}/export", data=f"[{{path: {work}/{name}.jsonl}}]", out_dir=f"{out}/{name}", threads=THREADS)


# ---- TRL --------------------------------------------------------------------------------------------------------------


class InOrder(RewardTrainer):
    """RewardTrainer that takes rows in their order and keeps unrounded losses, one a micro-batch."""
    losses = ()

    def _get_train_sampler(self, dataset=None):
        return SequentialSampler(dataset if dataset is not None else self.train_dataset)

    def compute_loss(self, model, inputs, **keys):
        loss = super().compute_loss(model, inputs, **keys)
        self.losses = (*self.losses, loss.item())
        return loss


def scores(model, sequences):
    out, pad = [], model.config.pad_token_id
    with torch.no_grad():
        for i in range(0, len(sequences), 16):
            part = sequences[i:i + 16]
            ids = torch.tensor([s + [pad] * (max(map(len, part)) - len(s)) for s in part])
            out += model(ids, attention_mask=(ids != pad).long()).logits[:, 0].tolist()
    return out


def run_trl(folder, work):
    cut, before = 2, machine_load()  # micro-batches of a step
    torch.set_num_threads(THREADS)
    tok = tokenizer(folder)
    tok.pad_token = PAD
    model = AutoModelForSequenceClassification.from_pretrained(f"{work}/start", dtype=torch.float32)
    rows = Dataset.from_list([{"chosen_input_ids": c, "rejected_input_ids": r} for c, r in read_jsonl(f"{work}/items.jsonl")])
    config = RewardConfig(f"{work}/trl", use_cpu=True, report_to=[], bf16=False, gradient_checkpointing=False, max_length=MAX_LENGTH,
                          per_device_train_batch_size=PAIRS // cut, gradient_accumulation_steps=cut, num_train_epochs=1, logging_steps=1,
                          save_strategy="no", pad_token=PAD, lr_scheduler_type="constant", warmup_steps=0, disable_tqdm=True,
                          learning_rate=OPTIM["learning_rate"], weight_decay=OPTIM["weight_decay"], adam_beta1=OPTIM["beta1"],
                          adam_beta2=OPTIM["beta2"], adam_epsilon=OPTIM["eps"], max_grad_norm=OPTIM["max_grad_norm"])
    trainer = InOrder(model, config, train_dataset=rows, processing_class=tok)
    with contextlib.redirect_stdout(sys.stderr):
        seconds, _ = timed(trainer.train)
    print(f"       TRL: {seconds:.0f} s, {THREADS} threads, {before}")
    model.eval()
    held_out = {}
    for name in SETS:
        pairs = our_ids(folder, f"{work}/{name}.jsonl", "pair", MAX_LENGTH)
        held_out[name] = scores(model, [s for two in pairs.values() for s in two])
    with open(f"{work}/trl.json", "w") as f:
        json.dump({"losses": np.array(trainer.losses).reshape(-1, cut).mean(1).tolist(),
                   "logs": [r for r in trainer.state.log_history if "accuracy" in r], "held_out": held_out}, f)


# ---- both -------------------------------------------------------------------------------------------------------------


def compare(folder, work):
    metrics, trl = read_jsonl(f"{work}/ours/metrics.jsonl"), json.load(open(f"{work}/trl.json"))
    mine, losses, logs = np.array([m["loss"] for m in metrics]), np.array(trl["losses"]), trl["logs"]
    assert len(mine) == len(losses) == len(logs) == STEPS
    gap = abs(mine - losses)
    for i in range(0, STEPS, STEPS // 10):
        print(f"       step {i + 1:3d}: loss {mine[i]:.6f} and {losses[i]:.6f}, grad_norm {metrics[i]['grad_norm']:.4f} and {logs[i]['grad_norm']:.4f}")
    check("loss of every step", gap.max() < 1e-4, f"{STEPS} steps, {gap.max():.1e} apart at most (step {gap.argmax() + 1})")
    accuracy = [100 * np.mean([m["accuracy"] for m in rows]) for rows in (metrics, logs)]
    check("accuracy in training", abs(accuracy[0] - accuracy[1]) < 1, f"{accuracy[0]:.2f} % and {accuracy[1]:.2f} %")
    for name in SETS:
        two = np.array(trl["held_out"][name]).reshape(-1, 2)
        good, loss = 100 * (two[:, 0] > two[:, 1]).mean(), np.logaddexp(0, two[:, 1] - two[:, 0]).mean()
        table = json.load(open(f"{work}/ours/{name}/eval.json"))["models"][0]["sets"][0]
        check(f"held out, {name}", table["all"]["n"] == len(two) == HELD_OUT and abs(100 * table["all"]["accuracy"] - good) < 1,
              f"{len(two)} pairs: accuracy {100 * table['all']['accuracy']:.1f} % and {good:.1f} %, loss {table['loss']:.5f} and {loss:.5f}")


def main():
    commands = {"prepare": prepare, "ours": run_ours, "trl": run_trl, "compare": compare}
    folder, work = os.path.abspath(sys.argv[2]), os.path.abspath(sys.argv[3])
    os.makedirs(work, exist_ok=True)
    for name in commands if sys.argv[1] == "all" else [sys.argv[1]]:
        commands[name](folder, work)
    finish()


if __name__ == "__main__":
    main()
