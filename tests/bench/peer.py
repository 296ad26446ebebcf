"""What the peer scripts share: the shapes and loads of `make bench`, their options, and a row of its JSON lines.

peer_torch.py and peer_llama.py import it; a developer's tools, no test needs them."""
import argparse
import json
import time

SHAPES = {  # C, L, H, K, F, V, sequences, tokens of a step; the same as in bench.c
    "15m": (288, 6, 6, 6, 768, 32000, 8, 256),
    "135m": (576, 30, 9, 3, 1536, 49152, 8, 256),
    "tiny": (64, 2, 4, 2, 96, 160, 4, 24),
    "1.5b": (1536, 28, 12, 2, 8960, 151936, 8, 1024),
    "7b": (4096, 32, 32, 32, 11008, 32000, 4, 1024),
    "1.3b": (2048, 24, 32, 32, 5440, 50272, 0, 0),  # of PPO alone
}
OF_CARDS = ("1.5b", "7b", "1.3b")  # in bf16 on a card
PPO = {"15m": (32, 64, 64), "135m": (32, 64, 64), "tiny": (4, 16, 16), "1.3b": (64, 256, 256)}  # answers, tokens of prompt and answer


def options(doc):
    """A parser with what every peer takes."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--threads", type=int, default=0, help="0 = all cores")
    p.add_argument("--shapes", default="15m,135m")
    p.add_argument("--variants", default="f32,bf16")
    p.add_argument("--match", default="", help="of steps and decode only rows whose name holds it")
    p.add_argument("--repeat", type=int, default=5)
    p.add_argument("--seconds", type=float, default=8, help="a row is not repeated for longer, but measured twice")
    p.add_argument("--quick", action="store_true")
    p.add_argument("--full", action="store_true")
    return p


def parsed(parser):
    o = parser.parse_args()
    if o.quick:
        o.shapes, o.repeat, o.seconds = "tiny", 2, 1
    return o


def decode_name(shape, B, n, new):
    return f"decode {shape} B={B} {n}+{new}"


def decode_loads(o, name):
    """(sequences, tokens of a prompt, new tokens) of the decoding rows that are asked for; the same as in decode.c."""
    loads = [(1, 16, 64), (16, 16, 64), (64, 16, 64), (1, 256, 256), (16, 256, 256), (64, 256, 256)]
    if SHAPES[name][0] > 512 and not o.full:
        loads = [(1, 16, 32), (16, 16, 32), (64, 16, 32), (1, 256, 32), (16, 256, 32)][:3 if name in OF_CARDS else 5]
    if o.quick:
        loads = [(1, 16, 16), (4, 16, 16)]
    return [load for load in loads if o.match in decode_name(name, *load)]


def repeat(o, fn):
    """Calls fn up to --repeat times within --seconds, at least twice; a list of its results."""
    got, started = [], time.perf_counter()
    while len(got) < 2 or (len(got) < o.repeat and time.perf_counter() - started < o.seconds):
        got.append(fn())
    return got


def print_row(name, threads, unit, values, variant):
    v = sorted(values)
    median = (v[(len(v) - 1) // 2] + v[len(v) // 2]) / 2
    print(json.dumps({"name": name, "threads": threads, "unit": unit, "min": v[0], "median": median, "max": v[-1],
                      "variant": variant}), flush=True)
