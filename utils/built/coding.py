"""What chapter 23 builds: few weights in few bytes.

gaps            where the survivors are, as run lengths in bytes
Encoder, Decoder   a range coder for bits that counts what it has seen in each context
write_small     a network of small whole numbers as one file; read_small gives it back

The coder needs no table: both sides count as they go. It is the range coder of Martin
(1979), with unlimited whole numbers in place of the handling of carries.
"""

import itertools
import math
import struct
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from utils import given
from utils.files import write_whole

# ---- where the survivors are ----


def gaps(mask):
    """Zeros before each survivor, 0 .. 254; 255: so many zeros, and no survivor yet.

    Row by row; what follows the last survivor is not written.
    """
    if not torch.is_tensor(mask) or mask.dtype != torch.bool:
        what = mask.dtype if torch.is_tensor(mask) else given.kind(mask)
        raise TypeError(f"mask is a tensor of torch.bool, not {what}")
    found, last = [], -1
    for place in mask.flatten().nonzero().flatten().tolist():
        zeros = place - last - 1
        found += [255] * (zeros // 255) + [zeros % 255]
        last = place
    return found


def from_gaps(found, shape):
    "Back again: -> a mask of this shape; ValueError where the gaps run past its end."
    mask, place = torch.zeros(math.prod(shape), dtype=torch.bool), -1
    for gap in found:
        place += gap + (gap < 255)
        if place >= len(mask):
            raise ValueError(f"the gaps run past the end of {len(mask)} weights")
        mask[place] |= gap < 255
    return mask.reshape(shape)


# ---- a range coder ----

TOP, LEAST = 2**32 - 1, 2**24  # the widest interval, and when it is made wider again


def chance(zeros, ones):
    "The chance of a 0 after so many, in 4096ths: 1 .. 4095."
    return max(1, 4096 * (2 * zeros + 1) // (2 * (zeros + ones + 1)))


class Seen(defaultdict):
    "{context: [zeros, ones]} seen so far."

    def __init__(self):
        super().__init__(lambda: [0, 0])


class Encoder:
    "Bits -> bytes: each bit narrows the interval low .. low + width."

    def __init__(self):
        self.low, self.width, self.shifts, self.seen = 0, TOP, 0, Seen()

    def bit(self, bit, context=None):
        "Encode one bit, 0 or 1."
        counts = self.seen[context]
        part = (self.width >> 12) * chance(*counts)  # the share of a 0
        if bit:
            self.low, self.width = self.low + part, self.width - part
        else:
            self.width = part
        counts[int(bit)] += 1
        while self.width < LEAST:
            self.low, self.width = self.low << 8, self.width << 8
            self.shifts += 1

    def done(self):
        "The shortest bytes of a number inside the interval."
        number = (self.low + self.width - 1) // LEAST * LEAST
        return number.to_bytes(4 + self.shifts, "big").rstrip(b"\0")


class Decoder:
    "Bytes -> the same bits, asked for in the same contexts."

    def __init__(self, blob):
        if not isinstance(blob, (bytes, bytearray)):
            raise TypeError(f"blob is bytes, not {given.kind(blob)}")
        self.blob = iter(blob)
        self.code = int.from_bytes([next(self.blob, 0) for _ in range(4)], "big")
        self.width, self.seen = TOP, Seen()

    def bit(self, context=None):
        "The next bit."
        counts = self.seen[context]
        part = (self.width >> 12) * chance(*counts)
        bit = int(self.code >= part)
        if bit:
            self.code, self.width = self.code - part, self.width - part
        else:
            self.width = part
        counts[bit] += 1
        while self.width < LEAST:
            self.code = self.code << 8 | next(self.blob, 0)
            self.width <<= 8
        return bit


def entropy(bits):
    "What bits of this mixture cost at least, in bits in all."
    bits = np.asarray(bits)
    shares = [(bits == b).mean() for b in (0, 1)]
    return -len(bits) * sum(p * math.log2(p) for p in shares if p > 0)


# ---- a file ----


def code_weights(coder, q_HD, layer=0):
    """Encode q (H, D), small whole numbers, or fill it in where coder is a Decoder.

    First "is it 0?", in the context of how full its row and its column are so far; then
    the sign, then the size, one step at a time.
    """
    reads = isinstance(coder, Decoder)
    H, D = q_HD.shape
    column_D = [0] * D

    def pass_on(bit, context):
        return coder.bit(context) if reads else coder.bit(bit, context) or bit

    for h in range(H):
        row = 0
        for d in range(D):
            value = int(q_HD[h, d])
            where = _level(row, d), _level(column_D[d], h)
            if pass_on(int(value != 0), (layer, *where)):
                minus = pass_on(int(value < 0), (layer, "sign"))
                size = 1
                while pass_on(int(abs(value) > size), (layer, "size", size)):
                    size += 1
                q_HD[h, d] = -size if minus else size
                row, column_D[d] = row + 1, column_D[d] + 1
    return q_HD


def _level(full, of):
    "How full: 0 .. 3, or 4 while too few were seen."
    return min(3, 6 * full // (of + 1)) if of > 3 else 4


def write_small(path, codes, scales, biases):
    """One file of a network 64 -> ... -> 10 in small whole numbers: -> its bytes.

    codes   [q (H, D)] for each layer, whole numbers; scales [what one step is worth]
    biases  [b (H,)], stored in 8 bits on a scale per layer

    Layout: layers, widths, two 16-bit scales per layer, biases, coded weights, CRC-32.
    """
    if not len(codes) == len(scales) == len(biases) > 0:
        raise ValueError("codes, scales and biases have one entry per layer")
    widths = [codes[0].shape[1], *(len(q) for q in codes)]
    blob = struct.pack(f"<B{len(widths)}H", len(codes), *widths)
    encoder = Encoder()
    for k, (q, scale, b) in enumerate(zip(codes, scales, biases)):
        if q.is_floating_point() or tuple(q.shape) != (widths[k + 1], widths[k]):
            raise ValueError(f"layer {k}: codes are whole numbers, (H, D) of {widths}")
        step = np.float16(max(b.abs().max().item() / 127, 1e-6))
        blob += struct.pack("<2e", scale, step)
        rounded = (b.detach() / float(step)).round().clamp(-127, 127)
        blob += rounded.to(torch.int8).numpy().tobytes()
        code_weights(encoder, q.clone(), k)
    blob += encoder.done()
    blob += struct.pack("<I", zlib.crc32(blob))
    write_whole(path, blob)
    return blob


def read_small(path):
    "The network of a file, or of its bytes; ValueError where one bit was changed."
    blob = path if isinstance(path, bytes) else Path(path).read_bytes()
    if len(blob) < 12 or zlib.crc32(blob[:-4]) != struct.unpack("<I", blob[-4:])[0]:
        raise ValueError(f"{len(blob)} bytes do not match their checksum: damaged")
    count = blob[0]
    widths = struct.unpack_from(f"<{count + 1}H", blob, 1)
    at, parts, scales = 1 + 2 * (count + 1), [], []
    for D, H in itertools.pairwise(widths):
        scale, step = struct.unpack_from("<2e", blob, at)
        layer = nn.Linear(D, H)
        b = torch.from_numpy(np.frombuffer(blob, np.int8, H, at + 4).copy())
        layer.bias.data = b.float() * step
        at += 4 + H
        parts, scales = [*parts, layer, nn.ReLU()], [*scales, scale]
    decoder = Decoder(blob[at:-4])
    for k, (layer, scale) in enumerate(zip(parts[::2], scales)):
        q = torch.zeros(layer.weight.shape, dtype=torch.int8)
        layer.weight.data = code_weights(decoder, q, k).float() * scale
    return nn.Sequential(*parts[:-1])
