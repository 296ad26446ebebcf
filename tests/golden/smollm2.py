"""What check_smollm2.py and check_smollm2_reward.py share: our programs run and their output read, the same model in
transformers, and a count of checks. Made for torch 2.5.1, transformers 4.57.3, trl 0.26.2."""
import json
import logging
import os
import re
import subprocess
import sys
import time

os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", HF_DATASETS_DISABLE_PROGRESS_BARS="1",
                  TOKENIZERS_PARALLELISM="false", TRL_EXPERIMENTAL_SILENCE="1")

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as hf_logging

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("BUILD", os.path.join(ROOT, "build"))
hf_logging.disable_progress_bar()
results = []


def check(name, good, text):
    results.append(bool(good))
    print(f"{'ok    ' if good else 'FAILED'} {name}: {text}", flush=True)


def finish():
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    sys.exit(not all(results))


def ours(program, *args, stdin=None, **keys):
    """Standard output of one of our programs; keys become KEY=VALUE."""
    command = [f"{BUILD}/bin/{program}", *args, *(f"{k}={v}" for k, v in keys.items())]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nexit {done.returncode}: {done.stderr}")
    return done.stdout


def write_jsonl(path, rows):
    with open(path, "w") as f:
        f.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    return path


def read_jsonl(path):
    return [json.loads(line) for line in open(path)]


def our_ids(model, data, kind, max_length=4096):
    """{line of the file: [ids of each sequence]} as `rlhf inspect` shows them; records that are too long are left out."""
    text, out, line = ours("rlhf", "inspect", model=model, data=data, kind=kind, count=10 ** 9, max_length=max_length), {}, 0
    for row in text.split("\n"):
        head, token = re.match(r"\S.*:(\d+)  id [0-9a-f]{16}", row), re.match(r"    [ \d]{5}  ([ \d]{7})  [ *]  ", row)
        if head:
            line = int(head[1])
        elif re.match(r"  (sequence|chosen|rejected): \d+ tokens", row):
            out.setdefault(line, []).append([])
        elif token:
            out[line][-1].append(int(token[1]))
    return {k: v for k, v in out.items() if len(v) == (2 if kind == "pair" else 1)}


def our_logits(model, sequences, work, threads=1):
    """[(T, V) float32] of sequences of ids, by dump_logits.c."""
    program = os.path.join(work, "dump_logits")
    libraries = "-lyaml -ljansson -lzstd -lz -lpcre2-8 -lutf8proc -lxxhash -lm -pthread".split()
    subprocess.run(["cc", "-std=gnu11", "-O2", "-I.", "-D_GNU_SOURCE", "tests/golden/dump_logits.c", f"{BUILD}/librlhf.a",
                    *libraries, "-o", program], cwd=ROOT, check=True)
    lines = "".join(" ".join(map(str, s)) + "\n" for s in sequences)
    raw = subprocess.run([program, model, str(threads)], input=lines.encode(), stdout=subprocess.PIPE, check=True).stdout
    flat = np.frombuffer(raw, np.float32).reshape(sum(map(len, sequences)), -1)
    return np.split(flat, np.cumsum([len(s) for s in sequences])[:-1])


class Warnings(logging.Handler):
    """What transformers says at the level of a warning or above while a folder is loaded."""

    def __enter__(self):
        self.said = []
        self.setLevel(logging.WARNING)
        hf_logging.get_logger("transformers").addHandler(self)
        return self

    def emit(self, record):
        self.said.append(record.getMessage())

    def __exit__(self, *_):
        hf_logging.get_logger("transformers").removeHandler(self)


def load(folder, dtype=torch.float32, cls=AutoModelForCausalLM):
    """Model, what the loading had to say of its keys, and warnings."""
    with Warnings() as w:
        model, info = cls.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    return model.eval(), {k: v for k, v in info.items() if v}, w.said


def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def machine_load():
    return f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores"


def timed(function, *args, **keys):
    start = time.perf_counter()
    value = function(*args, **keys)
    return time.perf_counter() - start, value
