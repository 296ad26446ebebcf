"""Golden values of bf16 mode: tiny random Llamas in PyTorch, in double, that round to bf16 what products read.

    python tests/golden/make_bf16.py tests/golden/bf16

The rule, and the only thing that differs from f32: a matrix product reads its operands rounded to bf16 (nearest
even) and adds in double here, in f32 there. Forward: y = r(x) r(w)^T; backward: dx = r(dy) r(w), dw = r(dy)^T r(x);
the rounding itself has slope 1. The embedding reads r(w). Norms, biases, rope, attention, the loss and a scalar head are
not rounded.

An activation or gradient that lies next to a boundary of the rounding may fall to either side in f32, and one such
flip is worth a relative 2^-8. So seeds are tried until each of them keeps MARGIN from its boundary (but for those so
small beside the others of their tensor that a flip does not show): then f32 and double round alike, and agree to
what f32 sums lose. For each model a Hugging Face folder (weights in F32), and
golden.safetensors beside its weights:
  ids, starts           packed sequences
  logits                (T, V); of the classifier: scores (T, 1) after every token
  loss, grad.NAME       mean cross-entropy over all next tokens of all sequences, its gradients
                        (of the classifier: sum over sequences of (i + 1) * score of the last token)
  losses                11 losses: before and after each of 10 AdamW steps (as make_model.py) on f64 masters whose
                        rounded copies the products read
Losses are stored as two f32: value and rest. Made with torch 2.5.1; transformers 4.57.3 checks the model itself, with
rounding off, at every run.
"""
import json
import os
import sys

import torch
from safetensors.torch import save_file

MODELS = {
    "tied": dict(hidden_size=16, intermediate_size=23, num_attention_heads=2, num_key_value_heads=1,
                 vocab_size=29, tie_word_embeddings=True),
    "untied": dict(hidden_size=15, intermediate_size=20, num_attention_heads=2, num_key_value_heads=2,
                   head_dim=6, vocab_size=24, tie_word_embeddings=False),
    "qwen2": dict(hidden_size=16, intermediate_size=20, num_attention_heads=2, num_key_value_heads=1,
                  vocab_size=24, tie_word_embeddings=True, model_type="qwen2"),  # biases on q, k, v
    "qwen3": dict(hidden_size=16, intermediate_size=20, num_attention_heads=2, num_key_value_heads=2, head_dim=10,
                  vocab_size=24, tie_word_embeddings=False, model_type="qwen3"),  # a norm of each head of q and k
    "score": dict(hidden_size=16, intermediate_size=20, num_attention_heads=2, num_key_value_heads=1,
                  vocab_size=24, tie_word_embeddings=False),
}
LENGTHS, THETA, EPS = [4, 1, 3], 10000.0, 1e-5
MARGIN, SMALL = 2e-7, 0.02  # of a number and its tensor's rms: a few ulp of f32
rounding, margins = True, []


def r(x, exact=False):
    """x rounded to bf16. f64 -> f32 -> bf16 would round twice; here one rounding of the double. exact: f32 has
    the same number, as of a weight before any step."""
    if not rounding:
        return x
    m, e = torch.frexp(x.detach())
    scaled = m * 256  # 8 bits of mantissa: a bf16 is a whole number of these
    if not exact:
        size, rms = x.detach().abs(), x.detach().pow(2).mean().sqrt()
        away = (scaled - scaled.floor() - 0.5).abs() * torch.exp2(e.double() - 8)
        margins.extend((away / (size + rms))[size > SMALL * rms].tolist())
    return torch.ldexp(torch.round(scaled), e - 8)  # round: ties to even


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return r(x) @ r(w, True).T

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        dy = r(dy)
        return dy @ r(w, True), dy.T @ r(x)


class Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, ids):
        ctx.save_for_backward(ids)
        ctx.shape = w.shape
        return r(w, True)[ids]

    @staticmethod
    def backward(ctx, dy):
        (ids,) = ctx.saved_tensors
        return torch.zeros(ctx.shape, dtype=dy.dtype).index_add_(0, ids, dy), None


def norm(x, w):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * w


def rope(x):  # (T, heads, D)
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[0])[:, None] * THETA ** (-torch.arange(half, dtype=torch.float64) / half)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def hidden(p, c, ids):
    H, K, D = c["num_attention_heads"], c["num_key_value_heads"], c.get("head_dim", c["hidden_size"] // c["num_attention_heads"])
    x = Rows.apply(p["model.embed_tokens.weight"], ids)
    mask = torch.full((len(ids), len(ids)), float("-inf"), dtype=torch.float64).triu(1)
    for layer in range(2):
        w = lambda name: p[f"model.layers.{layer}.{name}.weight"]
        bias = lambda name: p.get(f"model.layers.{layer}.{name}.bias", 0)
        n = norm(x, w("input_layernorm"))
        q, k, v = (Product.apply(n, w(f"self_attn.{i}_proj")) + bias(f"self_attn.{i}_proj") for i in "qkv")
        q, k, v = q.view(-1, H, D), k.view(-1, K, D), v.view(-1, K, D)
        if c["model_type"] == "qwen3":
            q, k = norm(q, w("self_attn.q_norm")), norm(k, w("self_attn.k_norm"))
        q, k, v = rope(q), rope(k).repeat_interleave(H // K, 1), v.repeat_interleave(H // K, 1)
        scores = torch.einsum("thd,shd->hts", q, k) / D ** 0.5 + mask
        o = torch.einsum("hts,shd->thd", scores.softmax(-1), v).reshape(-1, H * D)
        x = x + Product.apply(o, w("self_attn.o_proj"))
        n = norm(x, w("post_attention_layernorm"))
        gate, up = Product.apply(n, w("mlp.gate_proj")), Product.apply(n, w("mlp.up_proj"))
        x = x + Product.apply(torch.nn.functional.silu(gate) * up, w("mlp.down_proj"))
    return norm(x, p["model.norm.weight"])


def outputs(p, c, ids):
    h = hidden(p, c, ids)
    if "score.weight" in p:
        return h @ p["score.weight"].T
    return Product.apply(h, p["model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"])


def sequences(ids):
    at = 0
    for n in LENGTHS:
        yield ids[at : at + n]
        at += n


def loss_of(p, c, ids):
    if "score.weight" in p:
        return sum((i + 1) * outputs(p, c, s)[-1, 0] for i, s in enumerate(sequences(ids)))
    total, count = 0.0, 0
    for s in sequences(ids):
        if len(s) > 1:
            total = total + torch.nn.functional.cross_entropy(outputs(p, c, s)[:-1], s[1:], reduction="sum")
            count += len(s) - 1
    return total / count


def check_against_transformers(p, c, ids, folder):
    """With rounding off this is Llama."""
    global rounding
    import transformers
    rounding = False
    model = getattr(transformers, c["architectures"][0]).from_pretrained(folder, torch_dtype=torch.float64, attn_implementation="eager")
    head = model.score if "score.weight" in p else model.lm_head
    for s in sequences(ids):
        theirs = head(model.model(s[None]).last_hidden_state[0])
        assert (outputs(p, c, s) - theirs).abs().max() < 1e-5 * theirs.abs().max(), folder
    rounding = True


def make_params(c, scalar, seed):
    g = torch.Generator().manual_seed(seed)
    C, F, V, H, K = (c[k] for k in ("hidden_size", "intermediate_size", "vocab_size", "num_attention_heads", "num_key_value_heads"))
    D = c.get("head_dim", C // H)
    shapes = {"model.embed_tokens.weight": (V, C), "model.norm.weight": (C,)}
    for i in range(2):
        for name, shape in {"input_layernorm": (C,), "post_attention_layernorm": (C,), "self_attn.q_proj": (H * D, C),
                            "self_attn.k_proj": (K * D, C), "self_attn.v_proj": (K * D, C), "self_attn.o_proj": (C, H * D),
                            "mlp.gate_proj": (F, C), "mlp.up_proj": (F, C), "mlp.down_proj": (C, F)}.items():
            shapes[f"model.layers.{i}.{name}.weight"] = shape
        if c["model_type"] == "qwen2":
            shapes.update({f"model.layers.{i}.self_attn.{n}_proj.bias": (s * D,) for n, s in zip("qkv", (H, K, K))})
        if c["model_type"] == "qwen3":
            shapes.update({f"model.layers.{i}.self_attn.{n}_norm.weight": (D,) for n in "qk"})
    if scalar:
        shapes["score.weight"] = (1, C)
    elif not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (V, C)
    return {k: (0.25 * torch.randn(s, generator=g) + ("norm" in k)).float() for k, s in shapes.items()}


def split(value):
    high = value.float()
    return torch.stack([high, (value - high.double()).float()], -1)


def attempt(c, scalar, seed):
    """Golden values of one seed; None when a rounded number is too near a boundary."""
    margins.clear()
    stored = make_params(c, scalar, seed)
    p = {k: w.double().requires_grad_() for k, w in stored.items()}
    ids = torch.randint(3, c["vocab_size"], (sum(LENGTHS),), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        logits = torch.cat([outputs(p, c, s) for s in sequences(ids)])
    loss = loss_of(p, c, ids)
    loss.backward()
    if min(margins) < MARGIN:
        return None
    golden = {"ids": ids.float(), "starts": torch.tensor([0] + LENGTHS).cumsum(0).float(), "logits": logits.float(),
              "loss": split(loss.detach())}
    golden.update({"grad." + k: w.grad.float() for k, w in p.items()})
    if not scalar:
        groups = [{"params": [w for w in p.values() if w.dim() > 1], "weight_decay": 0.1},
                  {"params": [w for w in p.values() if w.dim() == 1], "weight_decay": 0.0}]
        adam = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-5)
        losses = [loss.detach()]
        for _ in range(10):
            adam.step()
            adam.zero_grad()
            loss = loss_of(p, c, ids)
            loss.backward()
            losses.append(loss.detach())
        golden["losses"] = split(torch.stack(losses))
    return stored, ids, golden


def make(out, name, settings):
    scalar = name == "score"
    c = dict({"model_type": "llama", **settings}, num_hidden_layers=2, max_position_embeddings=64, rms_norm_eps=EPS,
             rope_theta=THETA, hidden_act="silu", bos_token_id=1, eos_token_id=2, torch_dtype="float32")
    c["architectures"] = [c["model_type"].capitalize() + ("ForSequenceClassification" if scalar else "ForCausalLM")]
    if scalar:
        c.update(id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0}, pad_token_id=0)
    seed, made = 1, None
    while made is None:
        made = attempt(c, scalar, seed)
        seed += 1
    stored, ids, golden = made
    folder = os.path.join(out, name)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(c, f, indent=1)
        f.write("\n")
    save_file(stored, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    save_file({k: v.contiguous() for k, v in golden.items()}, os.path.join(folder, "golden.safetensors"))
    check_against_transformers({k: w.double() for k, w in stored.items()}, c, ids, folder)
    print(f"{name}: seed {seed - 1}, loss {golden['loss'].sum():.6f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for key, value in MODELS.items():
        make(sys.argv[1], key, value)
