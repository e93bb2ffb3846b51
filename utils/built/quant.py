"""What chapter 24 builds: fewer bits for weights and activations, and what repairs them.

Shapes: W (H, D) as torch.nn.Linear keeps it, one row an output; x (..., D). A scale is
what one step of the integer grid is worth: x is about scale * (q - zero). Grids of
weights are symmetric, -top .. top with zero 0; those of activations run from 0 to
2**bits - 1. Groups are runs of `group` inputs within a row; group = D is per channel.
A number that cannot be raises ValueError, what is no tensor of the right kind TypeError.
utils.built.packed has the files, utils.built.int8 what computes with the codes as they are.
"""

import copy
import math

import numpy as np
import torch
from torch import nn

from utils import data, given
from utils.built import train  # chapter 05 built the loop


def _floats(name, x):
    "x, if it is a tensor of floats whose axes are the letters of its name, if it has any."
    if not torch.is_tensor(x) or not x.is_floating_point():
        what = f"a tensor of {x.dtype}" if torch.is_tensor(x) else given.kind(x)
        raise TypeError(f"{name} is a tensor of floats, not {what}")
    return given.tensors(**{name: x}) if "_" in name else x


def _finite(name, x):
    "x, if it holds numbers, and neither nan nor inf."
    if not _floats(name, x).numel():
        raise ValueError(f"{name} holds no number: its shape is {tuple(x.shape)}")
    if not x.isfinite().all():
        raise ValueError(f"{name} holds nan or inf")
    return x


def _scale(scale):
    "A number or a tensor above 0."
    if torch.is_tensor(scale):
        if not (scale > 0).all():
            raise ValueError(f"every scale is above 0, not {scale.min().item():g}")
    else:
        given.number("scale", scale, above=0)


# ---- one number ----


def read_bits(pattern, signed):
    "The whole number a pattern stands for: '1110' -> 14, signed -> -2."
    if not isinstance(pattern, str) or not pattern or set(pattern) - {"0", "1"}:
        raise ValueError(f"a pattern is a text of 0 and 1, not {pattern!r}")
    value = int(pattern, 2)
    return value - 2 ** len(pattern) if signed and pattern[0] == "1" else value


def top_of(bits):
    "The largest whole number of a symmetric grid: 8 -> 127, 4 -> 7, 2 -> 1."
    return 2 ** (given.whole("bits", bits, 2, 8) - 1) - 1


def quantize(x, scale, zero, low, high):
    """Numbers -> whole numbers low .. high (uint8 where low >= 0, else int8).

    `scale` is a number or a tensor that broadcasts over x. ValueError for a scale that is
    not above 0 and for ends that no byte holds; nan in x is not looked for.
    """
    _floats("x", x)
    _scale(scale)
    if not torch.is_tensor(zero):
        given.whole("zero", zero, -math.inf)
    least, most = (0, 255) if low >= 0 else (-128, 127)
    if not least <= low <= high <= most:
        raise ValueError(
            f"codes lie in 0 .. 255 or in -128 .. 127, low below high: {low} .. {high}"
        )
    q = (torch.round(x / scale) + zero).clamp(low, high)
    return q.to(torch.uint8 if low >= 0 else torch.int8)


def dequantize(q, scale, zero=0):
    "Whole numbers -> the numbers that they stand for, float32."
    if not torch.is_tensor(q):
        raise TypeError(f"q is a tensor of codes, not {given.kind(q)}")
    return scale * (q.to(torch.float32) - zero)


def affine(low, high, bits=8):
    """Scale and zero point that lay 0 .. 2**bits - 1 over low .. high and over 0.

    ValueError where an end is not finite, or low lies above high.
    """
    given.whole("bits", bits, 1, 8)
    if float(low) > float(high):
        raise ValueError(f"low is at most high, not {low} and {high}")
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    if not math.isfinite(high - low):
        raise ValueError(f"a range has finite ends, not {low} and {high}")
    if high - low < 1e-30:  # nothing but 0, as far as float32 can tell
        return 1.0, 0
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale)


def best_scale(x, bits, shares):
    "Of share * max|x| / top for each share: the scale with the least squared error."
    top, best = top_of(bits), None
    _finite("x", x)
    for share in shares:
        given.number("a share", share, above=0)
        scale = share * x.abs().max().item() / top or 1.0  # 1 where all x are 0
        back = dequantize(quantize(x, scale, 0, -top, top), scale)
        error = ((back - x) ** 2).mean().item()
        if best is None or error < best[0]:
            best = error, scale
    if best is None:
        raise ValueError("there is nothing to choose from: shares is empty")
    return best[1]


# ---- a matrix ----


def group_scales(W_HD, group, bits):
    "max|w| / top of every group: -> (H, D / group); 1 where a group is all zeros."
    H, D = _finite("W_HD", W_HD).shape
    group = given.whole("group", group, 1)
    if D % group:
        raise ValueError(f"groups of {group} do not divide {D} inputs")
    scale_HG = W_HD.reshape(H, D // group, group).abs().amax(-1) / top_of(bits)
    return torch.where(scale_HG > 0, scale_HG, torch.ones_like(scale_HG))


def group_quantize(W_HD, group, bits):
    "Rounded to nearest on a scale a group: -> q (H, D) int8, scale (H, D / group)."
    scale_HG, top = group_scales(W_HD, group, bits), top_of(bits)
    return quantize(W_HD, spread(scale_HG, group), 0, -top, top), scale_HG


def spread(scale_HG, group):
    "A scale for every weight: (H, D / group) -> (H, D)."
    _floats("scale_HG", scale_HG)
    given.whole("group", group, 1)
    return scale_HG.repeat_interleave(group, 1)


def group_dequantize(q_HD, scale_HG):
    "(H, D) int8 and (H, G) scales -> weights (H, D)."
    (H, D), shape = q_HD.shape, tuple(scale_HG.shape)
    if len(shape) != 2 or shape[0] != H or D % shape[1]:
        raise ValueError(f"scales of shape {shape} do not fit codes of shape {(H, D)}")
    return q_HD.to(torch.float32) * spread(scale_HG, q_HD.shape[1] // scale_HG.shape[1])


def rounded(W_HD, bits, group=None):
    "The weights that `bits` bits leave; a scale a row, or a group of inputs."
    return group_dequantize(*group_quantize(W_HD, group or W_HD.shape[1], bits))


# ---- integers ----


def int_matmul(a_BD, b_DH):
    "What the hardware offers: 8-bit whole numbers in, sums of products in 32 bits out."
    _codes(a_BD, b_DH)
    return a_BD.to(torch.int32) @ b_DH.to(torch.int32)


def _codes(a_BD, b_DH):
    for q in (a_BD, b_DH):
        if not torch.is_tensor(q) or q.dtype not in (torch.int8, torch.uint8):
            what = q.dtype if torch.is_tensor(q) else given.kind(q)
            raise TypeError(f"int_matmul multiplies int8 and uint8, not {what}")
    if a_BD.ndim != 2 or b_DH.ndim != 2 or a_BD.shape[1] != len(b_DH):
        shapes = f"{tuple(a_BD.shape)} and {tuple(b_DH.shape)}"
        raise ValueError(f"codes of shapes (B, D) and (D, H), not {shapes}")


def quantized_matmul(a_BD, a_zero, b_DH, b_zero, product=int_matmul):
    """The sums of (a - a_zero) * (b - b_zero), from 8-bit products: -> int32 (B, H).

    Multiplied out as in Jacob and others (2018), section 2.3. Zero points are whole numbers.
    """
    a_zero = given.whole("a_zero", a_zero, -math.inf)
    b_zero = given.whole("b_zero", b_zero, -math.inf)
    _codes(a_BD, b_DH)
    D = a_BD.shape[1]
    rows_B1 = a_BD.sum(1, keepdim=True, dtype=torch.int32)
    columns_1H = b_DH.sum(0, keepdim=True, dtype=torch.int32)
    sums_BH = product(a_BD, b_DH)
    return sums_BH - a_zero * columns_1H - b_zero * rows_B1 + D * a_zero * b_zero


class Observer:
    "Watches activations; says which scale and zero point hold all it has seen."

    def __init__(self):
        self.low, self.high = 0.0, 0.0

    def see(self, x):
        "Note one batch, of any shape; ValueError where it is empty or holds nan or inf."
        _finite("x", x)
        self.low = min(self.low, x.min().item())
        self.high = max(self.high, x.max().item())

    def affine(self, bits=8):
        "-> scale, zero."
        return affine(self.low, self.high, bits)


def calibrate(model, run):
    "Watch the input of every nn.Linear while run(model) runs: -> {name: Observer}."
    given.function("run", run)
    watchers, hooks = {}, []
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear):
            watcher = watchers[name] = Observer()

            def see(_, inputs, w=watcher):
                return w.see(inputs[0].detach())

            hooks.append(part.register_forward_pre_hook(see))
    try:
        with torch.no_grad():
            run(model)
    finally:
        for hook in hooks:
            hook.remove()
    return watchers


# ---- repairing ----


def fake_quantize(x, scale, top):
    """Values on the grid -top .. top times scale; slope 1 inside it, 0 where it clips.

    The straight-through estimator (Bengio and others, 2013, arXiv:1308.3432).
    """
    _floats("x", x)
    _scale(scale)
    given.whole("top", top, 1)
    steps = (x / scale).clamp(-top, top)
    return scale * (steps + (steps.round() - steps).detach())


def input_products(X_ND, damping=0.01):
    "X'X / N with a share of its mean diagonal added to the diagonal: -> (D, D)."
    _finite("X_ND", X_ND)
    given.number("damping", damping)
    C_DD = X_ND.T @ X_ND / len(X_ND)
    return C_DD + damping * C_DD.diagonal().mean() * torch.eye(len(C_DD))


def compensate(W_HD, C_DD, scale_HD, top):
    """Round column by column; what is still to come makes up for each error: -> int8.

    The least-squares repair of the later columns is a row of the Cholesky factor of the
    inverse of C (Frantar and others, 2023), so a column costs H * D, not D**3. Shapes:
    C (D, D), scale_HD (H, D), one for every weight: spread() makes it of (H, G).
    ValueError where C is singular: input_products adds what it needs.
    """
    H, D = _finite("W_HD", W_HD).shape
    if _finite("C_DD", C_DD).shape != (D, D):
        raise ValueError(f"C_DD has the shape {(D, D)}, not {tuple(C_DD.shape)}")
    if _floats("scale_HD", scale_HD).shape != (H, D):
        raise ValueError(
            f"scale_HD has the shape {(H, D)}, a scale for every weight, not "
            f"{tuple(scale_HD.shape)}: spread(scale_HG, group)"
        )
    given.whole("top", top, 1, 127)
    try:
        U_DD = _later_shares(C_DD).to(W_HD.dtype)
    except RuntimeError:  # torch.linalg's own kind of it
        raise ValueError(
            "C_DD is singular: some input is always 0, or the sum of others; "
            "input_products(X, damping) adds a little to the diagonal"
        ) from None
    return _column_by_column(W_HD, U_DD, scale_HD, top)


def _later_shares(C_DD):
    "Row d: minus how much of input d each later input can stand in for."
    inverse = torch.linalg.inv(C_DD.double())
    U_DD = torch.linalg.cholesky((inverse + inverse.T) / 2, upper=True)
    return U_DD / U_DD.diagonal()[:, None]


def _column_by_column(W_HD, U_DD, scale_HD, top):
    W_HD, q_HD = W_HD.clone(), torch.empty_like(W_HD, dtype=torch.int8)
    for d in range(W_HD.shape[1]):
        q_HD[:, d] = quantize(W_HD[:, d], scale_HD[:, d], 0, -top, top)
        error_H = W_HD[:, d] - q_HD[:, d] * scale_HD[:, d]
        W_HD[:, d + 1 :] -= error_H[:, None] * U_DD[d, d + 1 :]
    return q_HD


def codebook(w_N, k, rounds=20):
    "k values by k-means, from k evenly spaced ones: -> values (k,), codes (N,)."
    _finite("w_N", w_N)
    k, rounds = given.whole("k", k, 1), given.whole("rounds", rounds, 0)
    values = torch.linspace(w_N.min().item(), w_N.max().item(), k, dtype=w_N.dtype)
    for _ in range(rounds):
        codes = (w_N[:, None] - values).abs().argmin(1)
        count = torch.bincount(codes, minlength=k)
        sums = torch.zeros_like(values).index_add_(0, codes, w_N)
        values = torch.where(count > 0, sums / count.clamp(min=1), values)
    return values, (w_N[:, None] - values).abs().argmin(1)


def choose_bits(damage, sizes, budget):
    """Bits for each layer within a budget, from a sensitivity scan.

    damage  {layer: {bits: what it costs to have this layer alone at these bits}}
    sizes   {layer: weights}; budget: bits in all

    Greedy: one step down at a time, the least damage per bit saved. ValueError where the
    layers of the two differ, or the budget is too small for any choice.
    """
    if set(damage) != set(sizes) or not all(damage.values()):
        raise ValueError(
            f"damage and sizes name the same layers, each with its bits: {list(damage)} "
            f"and {list(sizes)}"
        )
    given.number("budget", budget)
    bits = {layer: max(costs) for layer, costs in damage.items()}

    def price(layer):
        "Damage per bit saved, one step down; infinite at the bottom."
        fewer = [b for b in damage[layer] if b < bits[layer]]
        if not fewer:
            return math.inf
        now, then = damage[layer][bits[layer]], damage[layer][max(fewer)]
        return (then - now) / (sizes[layer] * (bits[layer] - max(fewer)))

    while sum(sizes[layer] * bits[layer] for layer in bits) > budget:
        layer = min(bits, key=price)
        if price(layer) == math.inf:
            raise ValueError(f"a budget of {budget:,} bits is too small for any choice")
        bits[layer] = max(b for b in damage[layer] if b < bits[layer])
    return bits


# ---- what the chapter measures on ----


class Folds:
    """Five networks on the 1,797 digits; each image is judged by the one that never saw it.

    Accuracy on a test set of 360 moves in steps of 0.28 points; here a step is 0.06.
    """

    def __init__(self, epochs=15, count=5, widths=(256, 128)):
        count = given.whole("count", count, 2, 20)
        X_ND, y_N, X_test, y_test = data.digits()
        self.X_ND = torch.from_numpy(np.concatenate([X_ND, X_test])).float()
        self.y_N = torch.from_numpy(np.concatenate([y_N, y_test]))
        self.fold_N = torch.arange(len(self.y_N)) % count
        self.nets = []
        for k in range(count):
            seen = self.fold_N != k
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(k)
                net = self.net(widths)
            self.nets.append(fit(net, self.X_ND[seen], self.y_N[seen], epochs, 6e-3, k))

    @staticmethod
    def net(widths=(256, 128)):
        "Chapter 05's network: 64 pixels -> 10 logits."
        first, second = widths
        return nn.Sequential(
            nn.Linear(64, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(),
            nn.Linear(second, 10),
        )  # fmt: skip

    def accuracy(self, change=None):
        "Percent right; change(net, X, y) -> what is judged, given a copy and its own rows."
        right = 0
        for k, net in enumerate(self.nets):
            seen, new = self.fold_N != k, self.fold_N == k
            if change is not None:
                net = change(copy.deepcopy(net), self.X_ND[seen], self.y_N[seen])
            with torch.no_grad():
                right += (net(self.X_ND[new]).argmax(1) == self.y_N[new]).sum().item()
        return 100 * right / len(self.y_N)


def fit(net, X_ND, y_N, epochs, lr, seed=0, on_step=None):
    """Chapter 05's loop with AdamW and one cycle of the rate: -> the net, trained in place.

    on_step(step, loss) is called after every step.
    """
    given.number("lr", lr, above=0)
    batches = train.loader(X_ND, y_N, 128, seed=seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, epochs * len(batches))
    train.fit(net, batches, optimizer, epochs, scheduler=cycle, on_step=on_step)
    return net
