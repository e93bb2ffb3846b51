"""What chapter 24 builds: fewer bits for weights and activations, files, kernels.

Shapes: W (H, D) as torch.nn.Linear keeps it, one row an output; x (..., D). A scale is
what one step of the integer grid is worth: x is about scale * (q - zero). Grids of
weights are symmetric, -top .. top with zero 0; those of activations run from 0 to
2**bits - 1. Groups are runs of `group` inputs within a row; group = D is per channel.
"""

import copy
import json
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils import data, train  # chapter 05 built the loop
from utils.files import write_whole

# ---- one number ----


def read_bits(pattern, signed):
    "The whole number a pattern stands for: '1110' -> 14, signed -> -2."
    if not pattern or set(pattern) - {"0", "1"}:
        raise ValueError(f"a pattern is made of 0 and 1, not {pattern!r}")
    value = int(pattern, 2)
    return value - 2 ** len(pattern) if signed and pattern[0] == "1" else value


def top_of(bits):
    "The largest whole number of a symmetric grid: 8 -> 127, 4 -> 7, 2 -> 1."
    if not isinstance(bits, int) or not 2 <= bits <= 8:
        raise ValueError(f"bits is a whole number from 2 to 8, not {bits!r}")
    return 2 ** (bits - 1) - 1


def quantize(x, scale, zero, low, high):
    "Numbers -> whole numbers low .. high (uint8 where low >= 0, else int8)."
    q = (torch.round(x / scale) + zero).clamp(low, high)
    return q.to(torch.uint8 if low >= 0 else torch.int8)


def dequantize(q, scale, zero=0):
    "Whole numbers -> the numbers that they stand for."
    return scale * (q.to(torch.float32) - zero)


def affine(low, high, bits=8):
    "Scale and zero point that lay 0 .. 2**bits - 1 over low .. high and over 0."
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
    for share in shares:
        scale = share * x.abs().max().item() / top or 1.0
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
    H, D = W_HD.shape
    if not 0 < group <= D or D % group:
        raise ValueError(f"groups of {group} do not divide {D} inputs")
    size_HG = W_HD.reshape(H, D // group, group).abs().amax(-1)
    return torch.where(size_HG > 0, size_HG / top_of(bits), torch.ones_like(size_HG))


def group_quantize(W_HD, group, bits):
    "Rounded to nearest on a scale a group: -> q (H, D) int8, scale (H, D / group)."
    scale_HG, top = group_scales(W_HD, group, bits), top_of(bits)
    return quantize(W_HD, spread(scale_HG, group), 0, -top, top), scale_HG


def spread(scale_HG, group):
    "A scale for every weight: (H, D / group) -> (H, D)."
    return scale_HG.repeat_interleave(group, 1)


def group_dequantize(q_HD, scale_HG):
    "(H, D) int8 and (H, G) scales -> weights (H, D)."
    return q_HD.to(torch.float32) * spread(scale_HG, q_HD.shape[1] // scale_HG.shape[1])


def rounded(W_HD, bits, group=None):
    "The weights that `bits` bits leave; a scale a row, or a group of inputs."
    return group_dequantize(*group_quantize(W_HD, group or W_HD.shape[1], bits))


# ---- integers ----


def int_matmul(a_BD, b_DH):
    "What the hardware offers: 8-bit whole numbers in, sums of products in 32 bits out."
    for q in (a_BD, b_DH):
        if q.dtype not in (torch.int8, torch.uint8):
            raise TypeError(f"int_matmul multiplies int8 and uint8, not {q.dtype}")
    return a_BD.to(torch.int32) @ b_DH.to(torch.int32)


def quantized_matmul(a_BD, a_zero, b_DH, b_zero, product=int_matmul):
    "The sums of (a - a_zero) * (b - b_zero), from 8-bit products: -> int32 (B, H)."
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
        "Note one batch."
        self.low = min(self.low, x.min().item())
        self.high = max(self.high, x.max().item())

    def affine(self, bits=8):
        "-> scale, zero."
        return affine(self.low, self.high, bits)


def calibrate(model, run):
    "Watch the input of every nn.Linear while run(model) runs: -> {name: Observer}."
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


# ---- two to a byte ----


def pack_int4(q_N):
    "Whole numbers -8 .. 7 -> bytes, the first of each two in the lower half."
    q_N = q_N.reshape(-1)
    if q_N.numel() and not (q_N.min() >= -8 and q_N.max() <= 7):
        raise ValueError("four bits hold -8 .. 7")
    nibbles = F.pad(q_N.to(torch.int16) & 15, (0, q_N.numel() % 2))
    return (nibbles[0::2] | nibbles[1::2] << 4).to(torch.uint8)


def unpack_int4(packed, count):
    "Bytes -> the first `count` whole numbers -8 .. 7 in them, int8."
    if packed.numel() != (count + 1) // 2:
        raise ValueError(f"{count} numbers take {(count + 1) // 2} bytes")
    nibbles = torch.stack([packed & 15, packed >> 4], 1).reshape(-1)[:count]
    return ((nibbles.to(torch.int16) ^ 8) - 8).to(torch.int8)


# ---- repairing ----


def fake_quantize(x, scale, top):
    "Values on the grid -top .. top times scale; slope 1 inside it, 0 where it clips."
    steps = (x / scale).clamp(-top, top)
    return scale * (steps + (steps.round() - steps).detach())


def input_products(X_ND, damping=0.01):
    "X'X / N with a share of its mean diagonal added to the diagonal: -> (D, D)."
    C_DD = X_ND.T @ X_ND / len(X_ND)
    return C_DD + damping * C_DD.diagonal().mean() * torch.eye(len(C_DD))


def compensate(W_HD, C_DD, scale_HD, top):
    """Round column by column; what is still to come makes up for each error: -> int8.

    The least-squares repair of the later columns is a row of the Cholesky factor of the
    inverse of C (Frantar and others, 2023), so a column costs H * D, not D**3.
    """
    inverse = torch.linalg.inv(C_DD.double())
    U_DD = torch.linalg.cholesky((inverse + inverse.T) / 2, upper=True).to(W_HD.dtype)
    U_DD = U_DD / U_DD.diagonal()[:, None]
    W_HD, q_HD = W_HD.clone(), torch.empty_like(W_HD, dtype=torch.int8)
    for d in range(W_HD.shape[1]):
        q_HD[:, d] = quantize(W_HD[:, d], scale_HD[:, d], 0, -top, top)
        error_H = W_HD[:, d] - q_HD[:, d] * scale_HD[:, d]
        W_HD[:, d + 1 :] -= error_H[:, None] * U_DD[d, d + 1 :]
    return q_HD


def codebook(w_N, k, rounds=20):
    "k values by k-means, from k evenly spaced ones: -> values (k,), codes (N,)."
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
    """
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


# ---- a file ----

MAGIC = b"BPQ1"


class Packed(NamedTuple):
    "One matrix as it lies on disk: whole numbers, a scale a group."

    q: torch.Tensor  # (H, D) int8
    scale: torch.Tensor  # (H, D / group)
    bits: int  # 8 or 4

    @property
    def weight(self):
        return group_dequantize(self.q, self.scale)


def pack(W_HD, bits, group=None, q=None):
    "A matrix as Packed: rounded to nearest, or the `q` that was found elsewhere."
    group = group or W_HD.shape[1]
    # the scale is stored in 16 bits: round with the scale that will be read back
    scale_HG = group_scales(W_HD, group, bits).half().float()
    if not (scale_HG > 0).all() or not scale_HG.isfinite().all():
        raise ValueError("a scale does not fit in 16 bits: rescale the weights")
    top = top_of(bits)
    q = quantize(W_HD, spread(scale_HG, group), 0, -top, top) if q is None else q
    return Packed(q, scale_HG, bits)


def save_packed(path, tensors):
    """Write {name: Packed or float tensor} -> bytes written; `path` is whole or absent.

    Layout: BPQ1, length of a JSON header, the header (what each tensor is), the bytes of
    all tensors, and a CRC-32 of everything before it.
    """
    header, parts = {}, []
    for name, tensor in tensors.items():
        if isinstance(tensor, Packed):
            if tensor.bits not in (4, 8):
                raise ValueError(f"{name}: files hold 8 or 4 bits, not {tensor.bits}")
            header[name] = [tensor.bits, *tensor.q.shape, tensor.scale.shape[1]]
            q = pack_int4(tensor.q) if tensor.bits == 4 else tensor.q
            parts += [q.contiguous(), tensor.scale.half()]
        else:
            header[name] = [32, *tensor.shape]
            parts.append(tensor.detach().to(torch.float32).contiguous())
    head = json.dumps(header, separators=(",", ":")).encode()
    body = b"".join(part.numpy().tobytes() for part in parts)
    blob = MAGIC + struct.pack("<I", len(head)) + head + body
    blob += struct.pack("<I", zlib.crc32(blob))
    write_whole(path, blob)
    return len(blob)


def load_packed(path):
    "What save_packed wrote; a damaged or truncated file is refused (ValueError)."
    path = Path(path)
    blob = path.read_bytes()
    if blob[:4] != MAGIC:
        raise ValueError(f"{path.name} is no packed model: it does not begin with BPQ1")
    if len(blob) < 12:
        raise ValueError(
            f"{path.name} is damaged: it breaks off after {len(blob)} bytes"
        )
    if zlib.crc32(blob[:-4]) != struct.unpack("<I", blob[-4:])[0]:
        raise ValueError(
            f"{path.name} is damaged: its {len(blob):,} bytes do not match their checksum "
            "(cut off, or changed)"
        )
    start = 8 + struct.unpack("<I", blob[4:8])[0]
    try:
        tensors, end = _read(json.loads(blob[8:start]), blob, start)
    except (
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        RuntimeError,
    ) as error:
        raise ValueError(f"{path.name} has a header that makes no sense") from error
    if end != len(blob) - 4:
        raise ValueError(f"{path.name}: header and bytes disagree about the length")
    return tensors


def _read(header, blob, at):
    tensors = {}

    def take(count, kind):
        nonlocal at
        if count < 0:
            raise ValueError("a negative size")
        array = np.frombuffer(blob, kind, count, at)
        at += array.nbytes
        return torch.from_numpy(array.copy())

    for name, (bits, *shape) in header.items():
        if bits == 32:
            tensors[name] = take(math.prod(shape), np.float32).reshape(shape)
            continue
        H, D, groups = shape
        if bits not in (4, 8) or groups < 1 or D % groups:
            raise ValueError(f"{name}: {bits} bits, {D} inputs, {groups} groups")
        if bits == 4:
            q = unpack_int4(take((H * D + 1) // 2, np.uint8), H * D)
        else:
            q = take(H * D, np.int8)
        scale = take(H * groups, np.float16).float().reshape(H, groups)
        tensors[name] = Packed(q.reshape(H, D), scale, bits)
    return tensors, at


# ---- what the chapter measures on ----


class Folds:
    """Five networks on the 1,797 digits; each image is judged by the one that never saw it.

    Accuracy on a test set of 360 moves in steps of 0.28 points; here a step is 0.06.
    """

    def __init__(self, epochs=15, count=5, widths=(256, 128)):
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


def fit(net, X_ND, y_N, epochs, lr, seed=0):
    "Chapter 05's loop with AdamW and one cycle of the rate: -> the net, trained in place."
    batches = train.loader(X_ND, y_N, 128, seed=seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, epochs * len(batches))
    train.fit(net, batches, optimizer, epochs, scheduler=cycle)
    return net


# ---- kernels: torch's own, where this machine has them ----


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


class Int8Linear(nn.Module):
    """A linear layer in 8-bit integers: weights a scale a row, inputs one for all.

    reduced: weights on -63 .. 63, for processors that add two products in 16 bits
    (255 * 63 * 2 fits, 255 * 127 * 2 does not).
    """

    def __init__(self, linear, scale, zero, reduced=False):
        super().__init__()
        W_HD = linear.weight.detach()
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
        W_HD = linear.weight.detach()
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
        W_HD = linear.weight.detach()
        self.q_HD, self.scale_H1 = group_quantize(W_HD, W_HD.shape[1], 8)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x):
        return F.linear(x, self.q_HD.to(torch.float32) * self.scale_H1, self.bias)


def works(make, D=64, H=32):
    "Does a kernel run on this machine, and right? make(linear) -> module."
    try:
        linear, x = nn.Linear(D, H), torch.rand(3, D)
        gap = (make(linear)(x) - linear(x)).abs().max().item()
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return gap < 0.2


def swap_linears(model, make):
    "Replace every nn.Linear in place by make(name, linear) -> the model."
    for name, part in list(model.named_modules()):
        if isinstance(part, nn.Linear):
            owner, _, last = name.rpartition(".")
            setattr(model.get_submodule(owner), last, make(name, part))
    return model
