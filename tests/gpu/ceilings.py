#!/usr/bin/env python3
"""Ceilings of the card and the same work by PyTorch, for tests/gpu/run.sh: a developer's tool, needed by nothing.

Prints one line per quantity: `name value unit`. f32 products run without TF32, as this project's do. Times are medians
of CUDA events over at least 20 repetitions after warm-up; inputs are random and larger than the L2 cache where a
rate of memory is meant.
"""
import torch

torch.backends.cuda.matmul.allow_tf32 = False
torch.manual_seed(1)
dev = "cuda"


def seconds(fn, reps=20):
    for _ in range(3):
        fn()
    times = []
    for _ in range(reps):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        fn()
        b.record()
        torch.cuda.synchronize()
        times.append(a.elapsed_time(b) / 1e3)
    return sorted(times)[len(times) // 2]


print("torch", torch.__version__, torch.cuda.get_device_name())
x, y = torch.randn(1 << 28, device=dev), torch.empty(1 << 28, device=dev)
print("copy %.2f TB/s" % (2 * x.numel() * 4 / seconds(lambda: y.copy_(x)) / 1e12))
del x, y
for name, dtype, n in (("f32", torch.float32, 8192), ("bf16", torch.bfloat16, 8192)):
    a, b = torch.randn(n, n, device=dev, dtype=dtype), torch.randn(n, n, device=dev, dtype=dtype)
    print("product %s %d %.1f TFLOP/s" % (name, n, 2 * n**3 / seconds(lambda: a @ b) / 1e12))
# the shapes of test_ops perf: (rows, out, in)
for m, n, k in ((2048, 576, 576), (2048, 1536, 576), (2048, 576, 1536), (4096, 4096, 4096), (16, 4096, 4096), (1, 4096, 4096), (128, 49152, 576)):
    a, w = torch.randn(m, k, device=dev), torch.randn(n, k, device=dev)
    t = seconds(lambda: torch.nn.functional.linear(a, w))
    print("linear f32 M=%d N=%d K=%d %.2f us %.2f TFLOP/s" % (m, n, k, t * 1e6, 2 * m * n * k / t / 1e12))
for t_len, heads, kv, d in ((1024, 9, 3, 64), (4096, 32, 8, 128)):
    q = torch.randn(1, heads, t_len, d, device=dev, requires_grad=True)
    k, v = (torch.randn(1, heads, t_len, d, device=dev, requires_grad=True) for _ in range(2))
    fwd = lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    t = seconds(fwd)
    flops = 2 * heads * t_len * t_len * d
    o = fwd()
    do = torch.randn_like(o)
    tb = seconds(lambda: o.backward(do, retain_graph=True))
    print("attention f32 T=%d H=%d D=%d forward %.2f TFLOP/s, backward %.2f TFLOP/s" % (t_len, heads, d, flops / t / 1e12, 2.5 * flops / tb / 1e12))
