"""torch's own low-bit kernels, where this machine has them, and what times them.

Each layer here is made of an nn.Linear (D -> H) and takes x (..., D) in float32 to
(..., H). `works(make)` says whether a kernel runs on this machine.
"""

import time

import torch
import torch.nn.functional as F
from torch import nn

from utils import given
from utils.built.quant import group_quantize, quantize


def saturates():
    "Does the 8-bit kernel here add two products in 16 bits (x86 without VNNI)? None: no kernel."
    x, w = (
        torch.full((4, 64), 255, dtype=torch.uint8),
        torch.full((16, 64), 127).to(torch.int8),
    )
    try:
        y = _int8_kernel(x, 1.0, 0, _prepack(w), torch.ones(16), None)
    except (RuntimeError, AttributeError, NotImplementedError):
        return None
    return bool((y != 255 * 127 * 64).any())


def _prepack(q_HD):
    return torch.ops.onednn.qlinear_prepack(q_HD, None)


def _int8_kernel(q_BD, scale, zero, packed, scale_H, bias):
    zeros_H = torch.zeros(len(scale_H), dtype=torch.int32)
    return torch.ops.onednn.qlinear_pointwise(
        q_BD, scale, zero, packed, scale_H, zeros_H, bias, 1.0, 0, torch.float32,
        "none", [], "",
    )  # fmt: skip


def _weights(linear):
    "The weights (H, D) of an nn.Linear, or TypeError."
    if not isinstance(linear, nn.Linear):
        raise TypeError(f"a kernel is made of a torch.nn.Linear, not {linear!r:.60}")
    return linear.weight.detach()


class Int8Linear(nn.Module):
    """A linear layer in 8-bit integers: weights a scale a row, inputs one for all.

    reduced: weights on -63 .. 63, for processors that add two products in 16 bits
    (255 * 63 * 2 fits, 255 * 127 * 2 does not).
    """

    def __init__(self, linear, scale, zero, reduced=False):
        super().__init__()
        W_HD = _weights(linear)
        scale = given.number("scale", float(scale), above=0)
        zero = given.whole("zero", int(zero) if zero == int(zero) else zero, 0, 255)
        q_HD, scale_H1 = group_quantize(W_HD, W_HD.shape[1], 7 if reduced else 8)
        self.packed, self.scale_H = _prepack(q_HD), scale_H1[:, 0].contiguous()
        self.bias = None if linear.bias is None else linear.bias.detach()
        self.scale, self.zero = scale, zero

    def forward(self, x):
        q = quantize(x, self.scale, self.zero, 0, 255)
        flat = q.reshape(-1, q.shape[-1])
        y = _int8_kernel(
            flat, self.scale, self.zero, self.packed, self.scale_H, self.bias
        )
        return y.reshape(*x.shape[:-1], -1)


class Int4Linear(nn.Module):
    "A linear layer with weights in 4 bits, a scale a group; inputs in bfloat16."

    def __init__(self, linear, group=64):
        super().__init__()
        W_HD = _weights(linear)
        self.H, self.group = len(W_HD), group
        q_HD, scale_HG = group_quantize(W_HD, group, 4)
        rows = -self.H % 16  # the kernel wants 16 outputs at a time
        q_HD, scale_HG = F.pad(q_HD, (0, 0, 0, rows)), F.pad(scale_HG, (0, 0, 0, rows))
        codes = q_HD.to(torch.int32) + 8  # it counts from 0; 8 stands for 0
        self.packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        pair = torch.stack([scale_HG.T, torch.zeros_like(scale_HG.T)], -1)
        self.scales = pair.to(torch.bfloat16).contiguous()
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(
            flat, self.packed, self.group, self.scales
        )
        y = y[:, : self.H].to(torch.float32).reshape(*x.shape[:-1], self.H)
        return y if self.bias is None else y + self.bias


class UnpackEachTime(nn.Module):
    "8-bit weights that become float32 again at every call: small in memory, slow."

    def __init__(self, linear):
        super().__init__()
        W_HD = _weights(linear)
        self.q_HD, self.scale_H1 = group_quantize(W_HD, W_HD.shape[1], 8)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x):
        return F.linear(x, self.q_HD.to(torch.float32) * self.scale_H1, self.bias)


def works(make, D=64, H=32):
    """Does a kernel run on this machine, and right? make(linear) -> module.

    Tried on a random layer from D to H; right is within 0.2 of its float32 answer.
    """
    given.function("make", make)
    try:
        linear, x = nn.Linear(D, H), torch.rand(3, D)
        gap = (make(linear)(x) - linear(x)).abs().max().item()
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return gap < 0.2


def swap_linears(model, make):
    "Replace every nn.Linear inside, in place, by make(name, linear) -> the model."
    if not isinstance(model, nn.Module) or isinstance(model, nn.Linear):
        raise TypeError(f"a model with layers inside, not {model!r:.60}")
    given.function("make", make)
    for name, part in list(model.named_modules()):
        if isinstance(part, nn.Linear):
            owner, _, last = name.rpartition(".")
            setattr(model.get_submodule(owner), last, make(name, part))
    return model


def cpu_seconds(runs, calls=1, rounds=7):
    """{name: CPU seconds of each round} of functions without arguments, `calls` a round.

    They take turns, so that a busy machine slows all alike; a first round warms up. On
    Windows, whose CPU clock ticks every 16 ms, seconds of the clock on the wall.
    """
    given.whole("calls", calls, 1)
    given.whole("rounds", rounds, 1)
    if not isinstance(runs, dict):
        raise TypeError(f"runs is {{name: function}}, not {given.kind(runs)}")
    coarse = time.get_clock_info("process_time").resolution > 1e-3
    now = time.perf_counter if coarse else time.process_time
    seconds = {name: [] for name in runs}
    with torch.inference_mode():
        for k in range(rounds + 1):
            for name, run in runs.items():
                given.function(f"runs[{name!r}]", run)
                began = now()
                for _ in range(calls):
                    run()
                if k:
                    seconds[name].append(now() - began)
    return seconds
