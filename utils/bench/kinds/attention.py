"""Scaled dot-product attention by each of PyTorch's backends, forward and backward.

Work: 4 B H T^2 D FLOP forward and 2.5 times that backward, half of it when causal: the
count of the FlashAttention papers, whatever a backend really does.
"""

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from utils.bench.kinds.device import left_out, row

BACKENDS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
SHAPES = {  # tokens in all, width of all heads together, tokens of a row
    "cuda": (16384, 2048, (1024, 2048, 4096, 8192, 16384)),
    "mps": (1024, 256, (256, 512)),
    "cpu": (256, 64, (64, 128)),
}


def inputs(dev, B, H, T, D, dtype):
    "q, k, v that want gradients, and a gradient of the output."
    make = lambda: torch.randn(B, H, T, D, device=dev.device).to(dtype)  # noqa: E731
    return [make().requires_grad_() for _ in "qkv"], make()


def flop(B, H, T, D, causal, backward):
    "The papers' count of one pass."
    return int(
        4 * B * H * T * T * D * (2.5 if backward else 1) * (0.5 if causal else 1)
    )


def attention(dev, quick=False):
    "FLOP/s of each backend, causal and full, for rows of growing length."
    tokens, width, lengths = SHAPES[dev.kind]
    dtype = torch.float32 if dev.kind == "cpu" else torch.bfloat16
    names = list(BACKENDS) if dev.kind == "cuda" else ["math", "flash"]
    for D in (64, 128) if dev.kind == "cuda" else (32,):
        for T in lengths[:1] if quick else lengths:
            B, H = tokens // T, width // D
            if dev.left() < 2:
                yield left_out("attention", "no time was left", T=T, D=D)
                continue
            for causal in (True, False):
                for name in names:
                    yield from _passes(dev, name, B, H, T, D, dtype, causal)


def _passes(dev, name, B, H, T, D, dtype, causal):
    "Rows of one backend and one shape: forward, then backward; or why not."
    labels = {"backend": name, "T": T, "D": D, "H": H, "B": B, "causal": causal}
    scores = B * H * T * T
    if name == "math" and 20 * scores > dev.free():  # five tables of them, in fp32
        why = f"the tables of weights need {20 * scores / 2**30:.0f} GiB"
        yield left_out("attention", why, **labels)
        return
    (q, k, v), do = inputs(dev, B, H, T, D, dtype)
    run = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal)  # noqa: E731
    try:
        with sdpa_kernel(BACKENDS[name]):
            with torch.no_grad():
                yield row(dev, "attention", run, flop(B, H, T, D, causal, False), "FLOP",
                          way="forward", **labels)  # fmt: skip
            held = _peak(dev, lambda: torch.autograd.grad(run(), (q, k, v), do))
            o = run()
            back = lambda: torch.autograd.grad(o, (q, k, v), do, retain_graph=True)  # noqa: E731
            yield row(dev, "attention", back, flop(B, H, T, D, causal, True), "FLOP",
                      way="backward", peak_bytes=held, **labels)  # fmt: skip
    except (RuntimeError, torch.OutOfMemoryError) as error:
        yield left_out("attention", error, **labels)


def _peak(dev, run):
    "Bytes that forward and backward hold at most beyond their inputs; None off CUDA."
    if dev.kind != "cuda":
        return None
    dev.wait()
    before = dev.allocated()
    dev.reset_peak()
    run()
    dev.wait()
    return int(dev.peak() - before)
