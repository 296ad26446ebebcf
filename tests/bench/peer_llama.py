#!/usr/bin/env python3
"""llama.cpp on the decoding shapes of `make bench`: JSON lines with the same row names.

    python3 tests/bench/peer_llama.py --checkout DIR [--threads N] [--shapes 15m,135m] [--variants f32,bf16]
        [--repeat 5] [--seconds 8] [--quick] [--full] [--match TEXT] > peer.jsonl
    build/tests/bench --from build/bench.jsonl --peer peer.jsonl

DIR is a checkout of llama.cpp; llama-batched-bench is built in DIR/build where it is not there yet (cmake, a
C++ compiler). Models of random weights are written there as GGUF by DIR/gguf-py (needs numpy), tied heads, f32
or bf16; keys and values are f32 beside f32 weights, else f16 as llama.cpp has it by default. It is timed by the
wall clock and samples nothing.

Made with the sources of llama-cpp-python 0.3.9; a comparison only, no test needs it."""
import json
import os
import subprocess
import sys

import peer


def bench_program(checkout):
    if not os.path.isdir(os.path.join(checkout, "tools", "batched-bench")):
        sys.exit(f"peer_llama.py: {checkout}: no checkout of llama.cpp, it has no tools/batched-bench")
    program = os.path.join(checkout, "build", "bin", "llama-batched-bench")
    if not os.path.exists(program):
        build = os.path.join(checkout, "build")
        for command in (["cmake", "-S", checkout, "-B", build, "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON",
                         "-DLLAMA_CURL=OFF", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=OFF"],
                        ["cmake", "--build", build, "--target", "llama-batched-bench", "-j", str(os.cpu_count())]):
            subprocess.run(command, check=True, stdout=sys.stderr)
    return program


def write_model(checkout, path, shape, dtype):
    sys.path.insert(0, os.path.join(checkout, "gguf-py"))
    import gguf
    import numpy
    C, L, H, K, F, V = shape[:6]
    D = C // H
    random = numpy.random.default_rng(1)
    kind = {"f32": gguf.GGMLQuantizationType.F32, "bf16": gguf.GGMLQuantizationType.BF16}[dtype]
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(1024)
    w.add_embedding_length(C)
    w.add_block_count(L)
    w.add_feed_forward_length(F)
    w.add_head_count(H)
    w.add_head_count_kv(K)
    w.add_rope_dimension_count(D)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(V)
    w.add_tokenizer_model("no_vocab")

    def matrix(name, rows, cols):
        x = (0.1 * (random.random((rows, cols), dtype=numpy.float32) - 0.5)).astype(numpy.float32)
        w.add_tensor(name, gguf.quants.quantize(x, kind), raw_dtype=kind)

    def norm(name):
        w.add_tensor(name, numpy.ones(C, dtype=numpy.float32))

    matrix("token_embd.weight", V, C)
    norm("output_norm.weight")
    for i in range(L):
        at = f"blk.{i}."
        norm(at + "attn_norm.weight")
        norm(at + "ffn_norm.weight")
        for name, rows, cols in (("attn_q", H * D, C), ("attn_k", K * D, C), ("attn_v", K * D, C), ("attn_output", C, H * D),
                                 ("ffn_gate", F, C), ("ffn_up", F, C), ("ffn_down", C, F)):
            matrix(f"{at}{name}.weight", rows, cols)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def decode(program, model, threads, dtype, B, n, new):
    """tok/s of the prompts and of decoding."""
    keys = "f32" if dtype == "f32" else "f16"
    got = subprocess.run([program, "-m", model, "-c", str(B * (n + new)), "-npp", str(n), "-ntg", str(new), "-npl", str(B),
                          "-t", str(threads), "-tb", str(threads), "-ctk", keys, "-ctv", keys, "--output-format", "jsonl"],
                         capture_output=True, text=True)
    for line in got.stdout.splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            return row["speed_pp"], row["speed_tg"]
    sys.exit(f"peer_llama.py: {program} says nothing of {B} x ({n} + {new}):\n{got.stderr[-2000:]}")


def main():
    p = peer.options(__doc__)
    p.add_argument("--checkout", required=True, help="of llama.cpp")
    o = peer.parsed(p)
    program, threads = bench_program(o.checkout), o.threads or os.cpu_count()
    for dtype in o.variants.split(","):
        for name in o.shapes.split(","):
            loads = peer.decode_loads(o, name)
            model = os.path.join(o.checkout, "build", f"bench_{name}_{dtype}.gguf")
            if loads and not os.path.exists(model):
                write_model(o.checkout, model, peer.SHAPES[name], dtype)
            for B, n, new in loads:
                got = peer.repeat(o, lambda: decode(program, model, threads, dtype, B, n, new))
                if n >= 256:
                    peer.print_row(f"prompt {name} B={B} {n}", threads, "tok/s", [g[0] for g in got], f"llama.cpp {dtype}")
                peer.print_row(peer.decode_name(name, B, n, new), threads, "tok/s", [g[1] for g in got], f"llama.cpp {dtype}")


main()
