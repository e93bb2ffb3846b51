"""What chapter 24 builds: two codes to a byte, and a file of quantised weights.

A file holds {name: Packed or float tensor}; it is written whole or not at all, and a
damaged one is refused with ValueError. Shapes: q (H, D), scale (H, D / group).
"""

import json
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from utils import given
from utils.built import quant
from utils.files import write_whole


def pack_int4(q_N):
    "Whole numbers -8 .. 7 -> bytes, the first of each two in the lower half."
    if not torch.is_tensor(q_N) or q_N.is_floating_point():
        what = q_N.dtype if torch.is_tensor(q_N) else given.kind(q_N)
        raise TypeError(f"q_N is a tensor of whole numbers, not {what}")
    q_N = q_N.reshape(-1)
    if q_N.numel() and not (q_N.min() >= -8 and q_N.max() <= 7):
        raise ValueError(f"four bits hold -8 .. 7, not {q_N.min()} .. {q_N.max()}")
    nibbles = F.pad(q_N.to(torch.int16) & 15, (0, q_N.numel() % 2))
    return (nibbles[0::2] | nibbles[1::2] << 4).to(torch.uint8)


def unpack_int4(packed, count):
    "Bytes -> the first `count` whole numbers -8 .. 7 in them, int8."
    count = given.whole("count", count, 0)
    if not torch.is_tensor(packed) or packed.dtype != torch.uint8:
        what = packed.dtype if torch.is_tensor(packed) else given.kind(packed)
        raise TypeError(f"packed is a tensor of torch.uint8, not {what}")
    if packed.numel() != (count + 1) // 2:
        takes = f"{count} numbers take {(count + 1) // 2} bytes"
        raise ValueError(f"{takes}, not {packed.numel()}")
    nibbles = torch.stack([packed & 15, packed >> 4], 1).reshape(-1)[:count]
    return ((nibbles.to(torch.int16) ^ 8) - 8).to(torch.int8)


MAGIC = b"BPQ1"


class Packed(NamedTuple):
    "One matrix as it lies on disk: whole numbers, a scale a group."

    q: torch.Tensor  # (H, D) int8
    scale: torch.Tensor  # (H, D / group)
    bits: int  # 8 or 4

    @property
    def weight(self):
        return quant.group_dequantize(self.q, self.scale)


def pack(W_HD, bits, group=None, q=None):
    """A matrix (H, D) as Packed: rounded to nearest, or the `q` that was found elsewhere.

    ValueError where a scale does not fit in 16 bits, or q not in `bits` bits.
    """
    group = group or W_HD.shape[1]
    # the scale is stored in 16 bits: round with the scale that will be read back
    scale_HG = quant.group_scales(W_HD, group, bits).half().float()
    if not (scale_HG > 0).all() or not scale_HG.isfinite().all():
        raise ValueError("a scale does not fit in 16 bits: rescale the weights")
    top = quant.top_of(bits)
    q = (
        quant.quantize(W_HD, quant.spread(scale_HG, group), 0, -top, top)
        if q is None
        else q
    )
    if q.shape != W_HD.shape or q.dtype != torch.int8 or (q.abs() > top).any():
        raise ValueError(
            f"q has the shape {tuple(W_HD.shape)} and int8 codes -{top} .. {top}, not "
            f"{tuple(q.shape)}, {q.dtype}, {q.min()} .. {q.max()}"
        )
    return Packed(q, scale_HG, bits)


def save_packed(path, tensors):
    """Write {name: Packed or float tensor} -> bytes written; `path` is whole or absent.

    Layout: BPQ1, length of a JSON header, the header (what each tensor is), the bytes of
    all tensors, and a CRC-32 of everything before it.
    """
    if not isinstance(tensors, dict):
        raise TypeError(f"tensors is {{name: tensor}}, not {given.kind(tensors)}")
    header, parts = {}, []
    for name, tensor in tensors.items():
        if isinstance(tensor, Packed):
            if tensor.bits not in (4, 8):
                raise ValueError(f"{name}: files hold 8 or 4 bits, not {tensor.bits}")
            header[name] = [tensor.bits, *tensor.q.shape, tensor.scale.shape[1]]
            q = pack_int4(tensor.q) if tensor.bits == 4 else tensor.q
            parts += [q.contiguous(), tensor.scale.half()]
        elif not torch.is_tensor(tensor):
            what = given.kind(tensor)
            raise TypeError(f"{name} is a Packed matrix or a tensor, not {what}")
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
    "What save_packed wrote, {name: Packed or tensor}; a damaged file is refused (ValueError)."
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
