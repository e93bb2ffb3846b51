"""What chapter 12 builds: weights, operations, bytes, hours and money of a GPT, counted.

The formulas are those of GPT-2's block: layer norms and biases, heads of their own for
keys and values, GELU over 4 E, learned positions, a tied head, no dropout, float32.

Letters: V vocabulary, C context (positions), E width, H heads, L blocks, B rows, T tokens
of a row, D = E / H. FLOPs are those of the matrix products, two per weight and token.
Each count equals what a counter says of utils/built/gpt.py; tests/test_budget.py holds it.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from utils import given
from utils.built.gpt import Places

HOUR = 3600  # seconds
TRAINING = 16  # bytes per weight: weight, gradient and Adam's two moments in float32


# ---- formulas ----


def parameters(V, C, E, L, tied=True):
    "Weights of the whole model."
    _whole(V=V, C=C, E=E, L=L)
    return (1 if tied else 2) * V * E + C * E + L * (12 * E * E + 13 * E) + 2 * E


def forward_flops(V, E, L, B, T):
    "Operations of one forward pass; a training step has three times as many."
    _whole(V=V, E=E, L=L, B=B, T=T)
    return 2 * B * T * (12 * E * E * L + V * E) + 4 * L * B * T * T * E


def recompute_flops(E, L, B, T):
    "What checkpointing adds to a step: each block again, but for its last product."
    _whole(E=E, L=L, B=B, T=T)
    return L * (16 * B * T * E * E + 4 * B * T * T * E)


def activation_bytes(V, E, H, L, B, T, naive=False, checkpointing=False):
    "Bytes that a forward pass with its loss keeps for backward, ids and labels included."
    _whole(V=V, E=E, H=H, L=L, B=B, T=T)
    block, mask = 16 * E + 4 + (H * T if naive else H), T * T if naive else 0
    if checkpointing:
        block, mask = E, 0
    return 4 * B * T * (L * block + 2 * E + V + 2) + L * mask + 16 * B * T + 4


def kv_bytes(L, groups, D, B, T, size=2):
    "Bytes of the keys and values of B texts of T tokens."
    _whole(L=L, groups=groups, D=D, B=B, T=T, size=size)
    return 2 * L * groups * D * B * T * size


def chip_hours(N, tokens, peak, mfu=0.4):
    "Hours of one chip for 6 N tokens operations. peak: FLOP/s, dense; mfu: the share used."
    for name, value in {"N": N, "tokens": tokens, "peak": peak, "mfu": mfu}.items():
        given.number(name, value, above=0)
    if mfu > 1:
        raise ValueError(f"mfu is a share of the peak, at most 1, not {mfu!r:.60}")
    return 6 * N * tokens / (mfu * peak) / HOUR


def bill(hours, watts, price, pue=1.1):
    "Energy in MWh and money: -> (MWh, dollars). price: dollars per chip-hour."
    for name, value in {"hours": hours, "watts": watts, "price": price}.items():
        given.number(name, value)
    given.number("pue", pue, least=1)
    return hours * watts * pue / 1e6, hours * price


def chips_for(need, memory_gb, spare=0.1):
    "The smallest number of chips that hold `need` bytes, a share of each left free."
    given.number("need", need)
    given.number("memory_gb", memory_gb, above=0)
    if not 0 <= given.number("spare", spare) < 1:
        raise ValueError(f"spare is a share from 0 to below 1, not {spare!r:.60}")
    return max(1, math.ceil(need / (memory_gb * 1e9 * (1 - spare))))


def smallest(chips, need, most=8):
    "(name, count) of the chip that needs fewest, then least power; None if none fits."
    given.whole("most", most)
    fits = [
        (chips_for(need, row["memory_gb"]), row["watts"], row["name"])
        for row in chips
        if row["memory_gb"] and row["watts"]
    ]
    count, _, name = min(fits, default=(math.inf, 0, None))
    return (name, count) if count <= most else None


def mfu(V, E, L, B, T, seconds, peak):
    "The model's own operations of a training step over what the peak could do meanwhile."
    given.number("seconds", seconds, above=0)
    given.number("peak", peak, above=0)
    return 3 * forward_flops(V, E, L, B, T) / (seconds * peak)


def _whole(**sizes):
    for name, size in sizes.items():
        given.whole(name, size)


# ---- counters ----


class LossOf(nn.Module):
    """A GPT with learned positions and its loss as one module: ids (B, T) -> mean loss.

    checkpointing  True: of each block only its input is kept, the rest made again
    """

    def __init__(self, model, y_BT, checkpointing=False):
        super().__init__()
        if getattr(model, "spots", None) is None:
            raise ValueError("the model has learned positions: GPT(..., **GPT2)")
        self.model, self.y_BT, self.checkpointing = model, y_BT, checkpointing

    def forward(self, ids_BT):
        model, places = self.model, Places(None, True, None)
        x_BTE = model.tokens(ids_BT) + model.spots.weight[: ids_BT.shape[1]]
        for block in model.blocks:
            if self.checkpointing:
                x_BTE = checkpoint(block, x_BTE, places, use_reentrant=False)
            else:
                x_BTE = block(x_BTE, places)
        logits_BTV = model.logits(model.norm(x_BTE))
        return F.cross_entropy(logits_BTV.flatten(0, 1), self.y_BT.flatten())


def counted_flops(loss_of, ids_BT):
    """PyTorch's own count of a step: -> (forward, backward).

    Fused attention on a CPU counts as nothing, so the plain one runs here.
    """
    if not torch.is_tensor(ids_BT) or ids_BT.is_floating_point():
        raise TypeError(f"ids are whole numbers (B, T), not {given.kind(ids_BT)}")
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            loss = loss_of(ids_BT)
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()
