#!/usr/bin/env python3
"""PyTorch on the shapes of `make bench`: JSON lines with the same row names.

    python3 tests/bench/peer_torch.py [--device cpu|cuda] [--threads N] [--only steps,decode,ppo,ops]
        [--shapes 15m,135m,1.5b,7b,1.3b] [--variants f32,bf16] [--compile] [--repeat 5] [--seconds 8] [--quick]
        [--match TEXT] > peer.jsonl
    build/tests/bench --from build/bench.jsonl --peer peer.jsonl

The model is written here with torch.nn.functional alone (scaled_dot_product_attention, fused AdamW, a KV
cache laid out once), so it costs less per step than a model of transformers does: what it is beaten by,
that is beaten by too. bf16 is autocast in training and bf16 weights in generation.

Made with PyTorch 2.5.1; a comparison only, no test needs it."""
import sys
import time

import torch
import torch.nn.functional as F

import peer


class Model(torch.nn.Module):
    def __init__(self, shape, scalar=False):
        super().__init__()
        self.C, self.L, self.H, self.K, self.F, self.V = shape[:6]
        self.D = self.C // self.H
        C, D, K = self.C, self.D, self.K
        matrix = lambda n, k: torch.nn.Parameter(0.1 * (torch.rand(n, k) - 0.5))
        self.embed = matrix(self.V, C)
        self.score = matrix(1, C) if scalar else None  # else the head is the embedding, tied
        self.layers = torch.nn.ModuleList()
        for _ in range(self.L):
            layer = torch.nn.ParameterDict({
                "n1": torch.nn.Parameter(torch.ones(C)), "q": matrix(self.H * D, C), "k": matrix(K * D, C),
                "v": matrix(K * D, C), "o": matrix(C, self.H * D), "n2": torch.nn.Parameter(torch.ones(C)),
                "gate": matrix(self.F, C), "up": matrix(self.F, C), "down": matrix(C, self.F)})
            self.layers.append(layer)
        self.norm = torch.nn.Parameter(torch.ones(C))
        angle = torch.arange(1024)[:, None] / 10000 ** (torch.arange(D // 2) * 2 / D)[None, :]
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def rms(self, x, w):
        return F.rms_norm(x, (self.C,), w, 1e-5)

    def rope(self, x, at, n):
        cos, sin = self.cos[at:at + n].to(x.dtype), self.sin[at:at + n].to(x.dtype)
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    def forward(self, ids, cache=None, at=0):
        """(B, T) -> hidden (B, T, C); with a cache: positions at.. of it are written first."""
        B, T = ids.shape
        x = F.embedding(ids, self.embed)
        for i, w in enumerate(self.layers):
            n = self.rms(x, w["n1"])
            q = self.rope(F.linear(n, w["q"]).view(B, T, self.H, self.D).transpose(1, 2), at, T)
            k = self.rope(F.linear(n, w["k"]).view(B, T, self.K, self.D).transpose(1, 2), at, T)
            v = F.linear(n, w["v"]).view(B, T, self.K, self.D).transpose(1, 2)
            if cache is not None:
                cache[i, 0][:, :, at:at + T] = k
                cache[i, 1][:, :, at:at + T] = v
                k, v = cache[i, 0][:, :, :at + T], cache[i, 1][:, :, :at + T]
            if self.K < self.H:
                k = k.repeat_interleave(self.H // self.K, 1)
                v = v.repeat_interleave(self.H // self.K, 1)
            a = F.scaled_dot_product_attention(q, k, v, is_causal=T > 1)
            x = x + F.linear(a.transpose(1, 2).reshape(B, T, -1), w["o"])
            n = self.rms(x, w["n2"])
            x = x + F.linear(F.silu(F.linear(n, w["gate"])) * F.linear(n, w["up"]), w["down"])
        return self.rms(x, self.norm)

    def head(self, hidden):
        return F.linear(hidden, self.embed if self.score is None else self.score)


class Runs:
    def __init__(self, options):
        self.o = options
        self.device = torch.device(options.device)
        self.threads = torch.get_num_threads() if options.device == "cpu" else 0

    def sync(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def now(self):
        """As bench_now: one thread is timed by its CPU time."""
        self.sync()
        return time.process_time() if self.threads == 1 else time.perf_counter()

    def clock(self, fn):
        started = self.now()
        fn()
        return self.now() - started

    def repeat(self, fn):
        return peer.repeat(self.o, fn)

    def row(self, name, unit, values, variant):
        peer.print_row(name, self.threads, unit, values, f"torch {torch.__version__} {variant}")

    def ids(self, shape, B, T):
        return torch.randint(0, shape[5], (B, T), device=self.device)

    def model(self, shape, scalar=False, dtype=None):
        with self.device:
            m = Model(shape, scalar)
        return m.to(dtype) if dtype else m

    def autocast(self, bf16):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bf16)

    def optimizer(self, model):
        return torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def update(self, model, optimizer):
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    # ---- training steps

    def steps(self, name, shape, variant):
        S, T = shape[6:]
        for kind in ("sft", "reward"):
            if self.o.match not in f"{kind} {name} {S}x{T}":
                continue
            model = self.model(shape, kind == "reward")
            optimizer, ids = self.optimizer(model), self.ids(shape, S, T)

            def loss_of(ids):
                hidden = model(ids)
                if kind == "sft":
                    return F.cross_entropy(model.head(hidden[:, :-1]).flatten(0, 1).float(), ids[:, 1:].flatten())
                score = model.head(hidden[:, -1]).float()[:, 0]
                return -F.logsigmoid(score[0::2] - score[1::2]).mean()

            run = torch.compile(loss_of) if "compile" in variant else loss_of

            def step():
                with self.autocast("bf16" in variant):
                    loss = run(ids)
                loss.backward()
                self.update(model, optimizer)

            step()
            step()
            self.row(f"{kind} {name} {S}x{T}", "tok/s", self.repeat(lambda: S * T / self.clock(step)), variant)

    # ---- generation

    @torch.no_grad()
    def generate(self, model, prompt, n_new, forward=None, room=0):
        """Answers (B, n_new), their log-probabilities, and when the first tokens stood there (self.now). The
        cache has room for as many tokens, or more: a compiled model is compiled for its length."""
        forward, (B, n) = forward or model, prompt.shape
        size = (model.L, 2, B, model.K, n + max(n_new, room), model.D)
        cache = torch.zeros(size, device=self.device, dtype=model.embed.dtype)
        out, logps, first, hidden = [], [], None, forward(prompt, cache, 0)
        for t in range(n_new):
            logits = model.head(hidden[:, -1]).float()
            out.append(torch.multinomial(logits.softmax(-1), 1))
            logps.append(logits.log_softmax(-1).gather(1, out[-1]))
            first = first or self.now()
            if t + 1 < n_new:
                hidden = forward(out[-1], cache, n + t)
        return torch.cat(out, 1), torch.cat(logps, 1), first

    def decode(self, name, shape, variant):
        model, compiled = self.model(shape, dtype=torch.bfloat16 if "bf16" in variant else None), "compile" in variant
        for B, n, new in peer.decode_loads(self.o, name):
            torch._dynamo.reset()
            prompt, forward = self.ids(shape, B, n), torch.compile(model) if compiled else None
            self.generate(model, prompt, 4, forward, new)

            def once():
                started = self.now()
                first = self.generate(model, prompt, new, forward)[2]
                return first - started, self.now() - first

            got = self.repeat(once)
            if n >= 256:
                self.row(f"prompt {name} B={B} {n}", "tok/s", [B * n / prompts for prompts, _ in got], variant)
            self.row(peer.decode_name(name, B, n, new), "tok/s", [B * (new - 1) / alone for _, alone in got], variant)

    # ---- one PPO iteration

    def ppo(self, name, shape, variant):
        B, n, M = peer.PPO[name]
        policy, reference = self.model(shape), self.model(shape)
        critic, helpful, safety = (self.model(shape, True) for _ in range(3))
        opt_p, opt_c = self.optimizer(policy), self.optimizer(critic)
        compiled = "compile" in variant
        torch._dynamo.reset()
        call = {m: torch.compile(m) if compiled else m for m in (policy, reference, critic, helpful, safety)}
        prompt, micro, bf16 = self.ids(shape, B, n), max(1, 2048 // (n + M)), "bf16" in variant
        phases = ("rollout", "scoring", "reference", "values", "update", "iteration")

        def logp_of(model, seq):
            logits = model.head(call[model](seq)[:, n - 1:-1]).float()
            return logits.log_softmax(-1).gather(2, seq[:, n:, None])[..., 0]

        def chunks(fn, seq):
            return torch.cat([fn(part) for part in seq.split(micro)])

        def advantages(value, logp, ref, score):
            reward = -0.01 * (logp - ref)
            reward[:, -1] += (score - score.mean()) / (score.std() + 1e-8)
            adv, last = torch.zeros_like(reward), torch.zeros(B, device=self.device)
            for t in reversed(range(M)):
                follow = value[:, t + 1] if t + 1 < M else 0
                last = reward[:, t] + follow - value[:, t] + 0.95 * last
                adv[:, t] = last
            return (adv - adv.mean()) / (adv.std() + 1e-8), adv + value

        def learn(seq, logp, adv, ret, value):
            for part in range(0, B, micro):
                at = slice(part, part + micro)
                with self.autocast(bf16):
                    ratio = (logp_of(policy, seq[at]) - logp[at]).exp()
                    loss = -torch.min(ratio * adv[at], ratio.clamp(0.8, 1.2) * adv[at]).sum() / (B * M)
                loss.backward()
                with self.autocast(bf16):
                    v = critic.head(call[critic](seq[at])[:, n - 1:-1])[..., 0].float()
                    near = value[at] + (v - value[at]).clamp(-0.2, 0.2)
                    loss = 0.5 * torch.max((v - ret[at]) ** 2, (near - ret[at]) ** 2).sum() / (B * M)
                loss.backward()
            self.update(policy, opt_p)
            self.update(critic, opt_c)

        def iteration():
            at, state = [], {}

            def mark():
                at.append(self.now())

            mark()
            with torch.no_grad(), self.autocast(bf16):
                answer, logp, _ = self.generate(policy, prompt, M, call[policy])
                seq = torch.cat((prompt, answer), 1)
                mark()
                scores = [chunks(lambda s: m.head(call[m](s)[:, -1])[:, 0].float(), seq) for m in (safety, helpful)]
                mark()
                ref = chunks(lambda s: logp_of(reference, s), seq)
                mark()
                value = chunks(lambda s: critic.head(call[critic](s)[:, n - 1:-1])[..., 0].float(), seq)
                adv, ret = advantages(value, logp, ref, scores[1])
                mark()
            learn(seq, logp, adv, ret, value)
            mark()
            return [b - a for a, b in zip(at, at[1:])] + [at[-1] - at[0]]

        iteration()
        if compiled:
            iteration()  # what was compiled for lengths that change
        got = self.repeat(iteration)
        for i, phase in enumerate(phases):
            self.row(f"ppo {phase} {name} {B}x({n}+{M})", "s", [g[i] for g in got], variant)
        self.row(f"ppo samples {name} {B}x({n}+{M})", "samples/s", [B / g[-1] for g in got], variant)

    # ---- products

    def ops(self, variant):
        dtype = torch.bfloat16 if "bf16" in variant else torch.float32
        M, N, K = 2048, 576, 1536  # the largest perf case of tests/ops/linear.c
        x = torch.randn(M, K, device=self.device, dtype=dtype)
        w = torch.randn(N, K, device=self.device, dtype=dtype)
        dy = torch.randn(M, N, device=self.device, dtype=dtype)
        products = {f"op linear {M}x{K} {N}x{K}": lambda: F.linear(x, w),
                    f"op linear_dx {M}x{N} {N}x{K}": lambda: dy @ w,
                    f"op linear_dw {M}x{N} {M}x{K}": lambda: dy.T @ x}
        for name, fn in products.items():
            many = lambda: [fn() for _ in range(20)]
            many()
            self.row(name, "GFLOP/s", self.repeat(lambda: 20 * 2e-9 * M * N * K / self.clock(many)), variant)


def main():
    p = peer.options(__doc__)
    p.add_argument("--device", default="cpu")
    p.add_argument("--only", default="ops,steps,decode,ppo")
    p.add_argument("--compile", action="store_true", help="training, decoding and PPO with torch.compile too")
    o = peer.parsed(p)
    if o.threads:
        torch.set_num_threads(o.threads)
    torch.manual_seed(1)
    torch._dynamo.config.cache_size_limit = 64  # behind it a shape runs uncompiled, without a word
    runs, only = Runs(o), o.only.split(",")
    for kind in o.variants.split(","):
        if "ops" in only:
            runs.ops(f"{kind} eager")
        for name in o.shapes.split(","):
            shape = peer.SHAPES[name]
            if name in peer.OF_CARDS and (o.device == "cpu" or kind != "bf16"):
                continue
            for mode in ("eager", "compile") if o.compile else ("eager",):
                for section in sections(o, runs, name, only):
                    try:
                        section(name, shape, f"{kind} {mode}")
                    except torch.cuda.OutOfMemoryError:
                        print(f"peer_torch.py: {section.__name__} {name} {kind} {mode}: the card has too little memory", file=sys.stderr)
                    except Exception as e:  # no compiler, no such backend: said, and the rest goes on
                        if mode == "eager":
                            raise
                        print(f"peer_torch.py: {section.__name__} {name} {kind}: torch.compile does not work here: {e}",
                              file=sys.stderr)
                    if o.device != "cpu":
                        torch.cuda.empty_cache()


def sections(o, runs, name, only):
    """Those of `only` that bench.c runs for this shape."""
    asked = {runs.steps: peer.SHAPES[name][6] > 0, runs.decode: peer.SHAPES[name][6] > 0,
             runs.ppo: name in peer.PPO and (name != "135m" or o.full or o.device != "cpu")}
    return [section for section, has in asked.items() if has and section.__name__ in only]


main()
