"""Golden values of the model: tiny random models of every family run by PyTorch and transformers in double precision.

    python tests/golden/make_model.py tests/golden/model [NAME ...]      (all unless named)

For each model a Hugging Face folder, and golden.safetensors beside its weights:
  ids, starts           packed sequences
  logits                (T, V); of a sequence-classification model: scores (T, 1) after every token
  loss, grad.NAME       mean cross-entropy over all next tokens of all sequences, its gradients:
                        whole up to 600 elements, else as probe.NAME: its norm and its products with
                        cos(0.37 e + k) over elements e in row-major order, k = 0, 1, 2
                        (of the classifier: sum over sequences of (i + 1) * score of the last token)
  losses                11 losses: before and after each of 10 AdamW steps (lr 1e-3, betas 0.9, 0.95,
                        eps 1e-5, decay 0.1 on matrices only, no clipping)
Weights are stored in BF16 (gqa_tied in F32) and used as stored. Everything is computed in double and stored in f32 (losses in double as two f32: value and rest).
Made with torch 2.5.1, transformers 4.46.3; the families beside plain Llama with transformers 4.57.3.
"""
import os
import sys

import torch
from safetensors.torch import save_file
import transformers

MODELS = {
    "gqa_tied": dict(hidden_size=32, intermediate_size=56, num_attention_heads=4, num_key_value_heads=2,
                     vocab_size=65, tie_word_embeddings=True, rope_theta=500.0),
    "gqa_untied": dict(hidden_size=32, intermediate_size=40, num_attention_heads=4,
                       num_key_value_heads=1, vocab_size=70, head_dim=12, tie_word_embeddings=False),
    "mha": dict(hidden_size=40, intermediate_size=36, num_attention_heads=4, num_key_value_heads=4,
                vocab_size=50, tie_word_embeddings=False),
    "score": dict(hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2,
                  vocab_size=64, num_labels=1, pad_token_id=0),
    "llama3": dict(hidden_size=32, intermediate_size=40, num_attention_heads=4, num_key_value_heads=2,
                   vocab_size=50, head_dim=16, rope_theta=500.0,
                   rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                     original_max_position_embeddings=16)),
    "linear_bias": dict(hidden_size=32, intermediate_size=40, num_attention_heads=4, num_key_value_heads=2,
                        vocab_size=50, attention_bias=True, rope_scaling=dict(rope_type="linear", factor=4.0)),
    "mistral": dict(family="Mistral", hidden_size=32, intermediate_size=40, num_attention_heads=4,
                    num_key_value_heads=2, vocab_size=50, head_dim=10, sliding_window=None),
    "qwen2": dict(family="Qwen2", hidden_size=32, intermediate_size=40, num_attention_heads=4,
                  num_key_value_heads=2, vocab_size=50, tie_word_embeddings=True),
    "qwen2_score": dict(family="Qwen2", hidden_size=32, intermediate_size=40, num_attention_heads=4,
                        num_key_value_heads=2, vocab_size=50, num_labels=1, pad_token_id=0),
    "qwen3": dict(family="Qwen3", hidden_size=32, intermediate_size=40, num_attention_heads=4,
                  num_key_value_heads=2, vocab_size=50, head_dim=12, tie_word_embeddings=True),
}
LENGTHS = [9, 1, 17, 5]


def split(value):
    """A double as two floats whose sum it is, to 48 bits."""
    high = value.float()
    return torch.stack([high, (value - high.double()).float()], -1)


def sequences(ids):
    at = 0
    for n in LENGTHS:
        yield ids[at : at + n]
        at += n


def causal_loss(model, ids):
    total, count = 0.0, 0
    for seq in sequences(ids):
        if len(seq) < 2:
            continue
        logits = model(seq[None]).logits[0]
        total = total + torch.nn.functional.cross_entropy(logits[:-1], seq[1:], reduction="sum")
        count += len(seq) - 1
    return total / count


def score_rows(model, seq):
    return model.score(model.model(seq[None]).last_hidden_state[0])


def score_loss(model, ids):
    return sum((i + 1) * score_rows(model, s)[-1, 0] for i, s in enumerate(sequences(ids)))


def make(out, name, settings):
    torch.manual_seed(sum(map(ord, name)))
    scalar = name.endswith("score")
    family = settings.pop("family", "Llama")
    config = getattr(transformers, family + "Config")(
        num_hidden_layers=2, max_position_embeddings=64, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
        initializer_range=0.2, **settings)
    kind = getattr(transformers, family + ("ForSequenceClassification" if scalar else "ForCausalLM"))
    model = kind(config)
    for k, p in model.named_parameters():
        if "norm" in k or "bias" in k:
            p.data += 0.3 * torch.randn_like(p)
    folder = os.path.join(out, name)
    if name != "gqa_tied":
        model = model.bfloat16()
    model.save_pretrained(folder)

    # read again: casting would have rounded the rotary frequencies too
    model = kind.from_pretrained(folder, torch_dtype=torch.float64)
    loss_of = score_loss if scalar else causal_loss
    g = torch.Generator().manual_seed(7)
    ids = torch.randint(3, config.vocab_size, (sum(LENGTHS),), generator=g)
    starts = [0]
    for n in LENGTHS:
        starts.append(starts[-1] + n)
    with torch.no_grad():
        rows = [score_rows(model, s) if scalar else model(s[None]).logits[0] for s in sequences(ids)]
    golden = {"ids": ids.float(), "starts": torch.tensor(starts).float(), "logits": torch.cat(rows).float()}

    loss = loss_of(model, ids)
    loss.backward()
    golden["loss"] = split(loss.detach())
    for k, p in model.named_parameters():
        if p.numel() <= 600:
            golden["grad." + k] = p.grad.float()
        else:
            e = torch.arange(p.numel(), dtype=torch.float64)
            flat = p.grad.flatten()
            golden["probe." + k] = torch.stack(
                [flat.norm()] + [flat @ torch.cos(0.37 * e + i) for i in range(3)]).float()

    if not scalar:
        groups = [{"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
                  {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0}]
        adam = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-5)
        losses = [loss.detach()]
        for _ in range(10):
            adam.step()
            adam.zero_grad()
            loss = loss_of(model, ids)
            loss.backward()
            losses.append(loss.detach())
        golden["losses"] = split(torch.stack(losses))
    save_file({k: v.contiguous() for k, v in golden.items()}, os.path.join(folder, "golden.safetensors"))


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)
    for key in sys.argv[2:] or MODELS:
        make(sys.argv[1], key, MODELS[key])
