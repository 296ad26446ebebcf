#!/usr/bin/env python3
"""A real chat model through our programs and through transformers, side by side.

    python tests/golden/make_smollm2.py build/smollm2
    make && python tests/golden/check_smollm2.py COMMAND build/smollm2 WORK [LLAMA_CPP]     (WORK: a scratch folder)

  generate  greedy answers of `rlhf generate` to 20 prompts, 64 new tokens: prompt ids, answers, log-probabilities, and at
            every token our logits' largest, which makes the ids equal one by one
  chat      three turns of `rlhf chat`, the second and third about what was said before
  speed     tokens per second of both, one and two threads, one prompt and 20 at a time, run in turn
  export    folders that `rlhf-sft` and `rlhf-reward train` export, f32 and bf16, whole and in shards: transformers loads
            them without a word, with our logits and scores
  gguf      llama.cpp's converter (LLAMA_CPP: its source tree) takes an export of `export`, knows the tokenizer, and the
            weights come back from the GGUF as they were

The model is not part of the project; results of a run stand in tests/README.md. Made with torch 2.5.1, transformers 4.57.3.
"""
import glob
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from smollm2 import (ROOT, check, finish, load, machine_load, ours, our_ids, our_logits, read_jsonl, timed, tokenizer,
                     write_jsonl)

NEW = 64
PROMPTS = [
    "What is the capital of France?", "Why is the sky blue?", "Write a two-line poem about the sea.", "List three fruits.",
    "How do I boil an egg?", "Who wrote Hamlet?", "Explain gravity to a child.", "What is 7 times 8?",
    "Translate 'good morning' to Spanish.", "Schreibe einen Satz über den Winter.",
    "Give me a tip for learning to code.", "Name the planets of the solar system.",
    "Write a Python function that returns the sum of a list.", "Summarize the story of Cinderella in one sentence.",
    "Is it safe to mix bleach and ammonia?", "I feel sad today. What can I do?",
    "Complete: The quick brown fox", "What's the difference between a virus and a bacterium?",
    "Convert 3.5 km to miles; show your steps.", "¿Qué es una ballena?\n\nAnswer in English, please  (two spaces).",
]
TURNS = ["What is the capital of France?", "How many people live there?", "Name one famous building in that city."]


def prompt_ids(tok, text):
    return tok.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)


def greedy(model, ids, new):
    x = torch.tensor([ids])
    with torch.no_grad():
        return model.generate(x, attention_mask=torch.ones_like(x), max_new_tokens=new, do_sample=False)[0, len(ids):].tolist()


def text_of(tok, ids):
    return tok.decode(ids, skip_special_tokens=True).strip()


# ---- generate ---------------------------------------------------------------------------------------------------------


def token_logps(model, prompt, answer):
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1:-1]
    top = logits.topk(2).values
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(answer)[:, None])[:, 0], top[:, 0] - top[:, 1]


def run_generate(folder, work):
    torch.set_num_threads(1)
    data = write_jsonl(f"{work}/prompts.jsonl", [{"prompt": p} for p in PROMPTS])
    ours("rlhf", "generate", "--out", f"{work}/samples.jsonl", "--model", folder, temperature=0, max_new_tokens=NEW, threads=1,
         **{"data.prompts": data})
    samples, tok, (model, _, _) = read_jsonl(f"{work}/samples.jsonl"), tokenizer(folder), load(folder)
    prompts = [prompt_ids(tok, p) for p in PROMPTS]
    seen = our_ids(folder, data, "prompt")
    check("ids of the prompts", [seen[i + 1][0] for i in range(len(PROMPTS))] == prompts, f"{sum(map(len, prompts))} tokens")

    answers = [greedy(model, ids, NEW) for ids in prompts]
    logits = our_logits(folder, [p + a for p, a in zip(prompts, answers)], work)
    n = same_text = same_ids = 0
    worst_logp, gap = 0.0, 1e9
    for prompt, ids, answer, sample, x in zip(PROMPTS, prompts, answers, samples, logits):
        logp, gaps = token_logps(model, ids, answer)
        guess = x[len(ids) - 1:-1].argmax(-1)
        at = next((k for k in range(len(answer)) if guess[k] != answer[k]), None)
        if at is not None:
            two = np.sort(x[len(ids) - 1 + at])[-2:]
            print(f"'{prompt}' token {at}: transformers {answer[at]}, gap {gaps[at]:.2e}; ours {guess[at]}, gap {two[1] - two[0]:.2e}"
                  f"{'' if gaps[at] >= 1e-4 else ': a tie of rounding'}")
        n += len(answer)
        same_ids += at is None
        same_text += (sample["answer"], sample["tokens"]) == (text_of(tok, answer), len(answer))
        worst_logp = max(worst_logp, abs(sample["logp"] - logp.sum().item()) / len(answer))
        gap = min(gap, gaps.min().item())
    check("greedy texts", same_text == len(PROMPTS), f"{same_text} of {len(PROMPTS)} equal, {n} tokens")
    check("greedy ids", same_ids == len(PROMPTS), f"{same_ids} of {len(PROMPTS)} equal; the smallest gap of two largest logits is {gap:.1e}")
    check("log-probabilities", worst_logp < 2e-5, f"answers differ by {worst_logp:.1e} a token at most")


# ---- chat -------------------------------------------------------------------------------------------------------------


def run_chat(folder, work):
    torch.set_num_threads(1)
    said = ours("rlhf", "chat", "--model", folder, stdin="".join(t + "\n" for t in TURNS), temperature=0, max_new_tokens=NEW, threads=1)
    tok, (model, _, _) = tokenizer(folder), load(folder)
    messages, want = [], ""
    for turn in TURNS:
        messages.append({"role": "user", "content": turn})
        answer = greedy(model, tok.apply_chat_template(messages, add_generation_prompt=True), NEW)
        messages.append({"role": "assistant", "content": text_of(tok, answer)})
        want += messages[-1]["content"] + ("" if answer[-1] == tok.eos_token_id else " [...]") + "\n"
    for m in messages:
        print(f"{'>' if m['role'] == 'user' else ' '} {m['content']}")
    check("three turns", said == want, "what rlhf chat says is what transformers says" if said == want else said)
    check("context", all("Paris" in m["content"] for m in messages[1::2]), "the later answers speak of the city of the first")


# ---- speed ------------------------------------------------------------------------------------------------------------


def batch_greedy(model, tok, prompts, new):
    """Left padding, one call."""
    width = max(map(len, prompts))
    ids = torch.tensor([[tok.pad_token_id] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    with torch.no_grad():
        model.generate(ids, attention_mask=mask, max_new_tokens=new, do_sample=False)


def theirs_seconds(model, tok, prompts, batch, new):
    batches = [prompts[i:i + batch] for i in range(0, len(prompts), batch)]
    return timed(lambda: [batch_greedy(model, tok, b, new) for b in batches])[0]


def ours_seconds(folder, data, threads, batch, new):
    return timed(ours, "rlhf", "generate", "--model", folder, temperature=0, max_new_tokens=new, threads=threads, slots=batch,
                 **{"data.prompts": data})[0]


def run_speed(folder, work, repeat=3):
    """The time for NEW tokens less that for one: startup and prompts are left out on both sides, the best of `repeat`."""
    tok, (model, _, _) = tokenizer(folder), load(folder)
    print(f"{'threads':>7} {'batch':>5} {'ours':>8} {'transformers':>12}   tokens/s; {machine_load()}")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for batch in (1, 20):
            texts = PROMPTS if batch > 1 else PROMPTS[:4]
            data = write_jsonl(f"{work}/speed.jsonl", [{"prompt": p} for p in texts])
            prompts = [prompt_ids(tok, p) for p in texts]
            n = sum(len(greedy(model, p, NEW)) - 1 for p in prompts)
            best = [[1e9, 1e9], [1e9, 1e9]]
            for _ in range(repeat):
                for k, new in enumerate((1, NEW)):
                    best[0][k] = min(best[0][k], ours_seconds(folder, data, threads, batch, new))
                    best[1][k] = min(best[1][k], theirs_seconds(model, tok, prompts, batch, new))
            rate = [n / (b[1] - b[0]) for b in best]
            print(f"{threads:7d} {batch:5d} {rate[0]:8.1f} {rate[1]:12.1f}   {machine_load()}", flush=True)


# ---- export -----------------------------------------------------------------------------------------------------------

FORMATS = [("f32", 5), ("f32", 0.1), ("bf16", 5), ("bf16", 0.1)]  # export_dtype, max_shard_size in GB
COMMON = {"batch_size": 4, "max_steps": 3, "max_length": 160, "micro_batch_tokens": 1024, "save_steps": 0, "optim.learning_rate": 1e-5,
          "optim.schedule": "constant"}


def export(program, folder, work, kind, data, dtype, shard):
    out = f"{work}/{kind}-{dtype}-{shard}"
    shutil.rmtree(out, ignore_errors=True)
    ours(*program, model=folder, out_dir=out, export_dtype=dtype, max_shard_size=shard, threads=2,
         **{"data.train": f"[{{path: {data}}}]", "data.on_long": "drop"}, **COMMON)
    return out + "/export"


def check_loading(what, info, said):
    check(f"{what}: loads", not info and not said, "no missing, unexpected or mismatched key, no warning" if not info and not said else f"{info} {said}")


def check_weights(what, model, dtype, first):
    """first: the state of the f32 export, filled when it is empty."""
    state = {k: v for k, v in model.state_dict().items()}
    if not first:
        first.update(state)
    same = all(torch.equal(v, first[k] if dtype == "f32" else first[k].bfloat16().float()) for k, v in state.items())
    check(f"{what}: weights", same and state.keys() == first.keys(), "those of the f32 export" + (", rounded" if dtype == "bf16" else ""))


def their_logits(model, sequences):
    with torch.no_grad():
        return torch.cat([model(torch.tensor([s])).logits[0] for s in sequences]).numpy()


def relative(a, b):
    return (abs(a - b).max() / abs(b).max()).item()


def run_export(folder, work):
    torch.set_num_threads(2)
    imported = f"{work}/export-pairs.jsonl"
    ours("rlhf", "import", "hh-rlhf", f"{ROOT}/../shared/data/hh_rlhf/helpful-base.test.jsonl.gz", imported)
    lengths = our_ids(folder, imported, "pair", COMMON["max_length"])
    rows = [r for i, r in enumerate(read_jsonl(imported)) if i + 1 in lengths][:16]
    pairs = write_jsonl(f"{work}/pairs.jsonl", rows)
    sft = write_jsonl(f"{work}/sft.jsonl", [{"prompt": r["prompt"], "completion": r["chosen"]} for r in rows])
    sequences = [s for two in our_ids(folder, pairs, "pair").values() for s in two][:8]
    base = load(folder)[0].state_dict()

    first = {}
    for dtype, shard in FORMATS:
        what, out = f"causal {dtype} {shard} GB", export(("rlhf-sft",), folder, work, "sft", sft, dtype, shard)
        model, info, said = load(out)
        check_loading(f"{what} ({len(glob.glob(out + '/*.safetensors'))} files)", info, said)
        check_weights(what, model, dtype, first)
        moved = max((model.state_dict()[k] - base[k]).abs().max().item() for k in base)
        x = np.concatenate(our_logits(out, sequences, work, 2))
        y = their_logits(model, sequences)
        if shard > 1:
            exact = their_logits(model.double(), sequences)
            print(f"       of double precision's logits, {relative(x, exact):.1e} of the largest apart here, {relative(y, exact):.1e} in transformers")
        check(f"{what}: logits", relative(x, y) < 2e-5 and moved > 0,
              f"{abs(x - y).max():.1e} apart, {relative(x, y):.1e} of the largest, {abs(y).max():.1f}; weights moved by {moved:.1e}")

    first = {}
    lines = write_jsonl(f"{work}/answers.jsonl", [{"prompt": r["prompt"], "completion": r[k]} for r in rows for k in ("chosen", "rejected")])
    sequences = [s for two in our_ids(folder, pairs, "pair").values() for s in two]
    for dtype, shard in FORMATS:
        what, out = f"reward {dtype} {shard} GB", export(("rlhf-reward", "train"), folder, work, "reward", pairs, dtype, shard)
        model, info, said = load(out, cls=AutoModelForSequenceClassification)
        check_loading(f"{what} ({len(glob.glob(out + '/*.safetensors'))} files)", info, said)
        check_weights(what, model, dtype, first)
        ours("rlhf-reward", "score", helpful=out, **{"in": lines, "out": f"{work}/scores.jsonl"})
        x = np.array([r["reward_helpful"] for r in read_jsonl(f"{work}/scores.jsonl")])
        padded = tokenizer(out).pad({"input_ids": sequences}, return_tensors="pt")
        with torch.no_grad():
            y = model(**padded).logits[:, 0].numpy()
        check(f"{what}: scores", abs(x - y).max() < 2e-5 * max(1, abs(y).max()), f"{len(y)} answers, {abs(x - y).max():.1e} apart, the largest {abs(y).max():.2f}")


# ---- gguf -------------------------------------------------------------------------------------------------------------


def run_gguf(folder, work, llama_cpp):
    env = dict(os.environ, PYTHONPATH=f"{llama_cpp}/gguf-py:{os.environ.get('PYTHONPATH', '')}")
    sys.path.insert(0, f"{llama_cpp}/gguf-py")
    import gguf
    import make_smollm2
    for dtype, shard in FORMATS:
        out, kind = f"{work}/sft-{dtype}-{shard}/export", "f32" if dtype == "f32" else "bf16"
        path = f"{work}/{dtype}-{shard}.gguf"
        done = subprocess.run([sys.executable, f"{llama_cpp}/convert_hf_to_gguf.py", out, "--outfile", path, "--outtype", kind],
                              env=env, capture_output=True, text=True)
        check(f"{dtype} {shard} GB: converter", done.returncode == 0, "done" if done.returncode == 0 else done.stderr[-2000:])
        if done.returncode:
            continue
        reader = gguf.GGUFReader(path)
        get = lambda key: make_smollm2.field(reader, key)
        check(f"{dtype} {shard} GB: tokenizer", (get("tokenizer.ggml.model"), get("tokenizer.ggml.pre")) == ("gpt2", "smollm"),
              f"{get('tokenizer.ggml.model')}, {get('tokenizer.ggml.pre')}, {len(get('tokenizer.ggml.tokens'))} tokens, "
              f"bos {get('tokenizer.ggml.bos_token_id')}, eos {get('tokenizer.ggml.eos_token_id')}")
        want = load(out)[0].state_dict()
        back = dict(make_smollm2.tensors(reader))
        same = all(np.array_equal(w, want[name].numpy()) for name, w in back.items())
        check(f"{dtype} {shard} GB: weights", same and len(back) == 1 + 9 * 30 + 1, f"{len(back)} tensors come back as they were")


def main():
    command, folder, work = sys.argv[1], os.path.abspath(sys.argv[2]), os.path.abspath(sys.argv[3])
    os.makedirs(work, exist_ok=True)
    {"generate": run_generate, "chat": run_chat, "speed": run_speed, "export": run_export, "gguf": run_gguf}[command](folder, work, *sys.argv[4:])
    finish()


if __name__ == "__main__":
    main()
