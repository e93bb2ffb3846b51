"""Chapter 24: fewer bits for weights and activations."""

import itertools
from collections.abc import Mapping

import numpy as np
import torch

from utils.exercises import Chapter, Miss, same

chapter = Chapter("24_quantization")


def _array(values, kind=torch.float32):
    return torch.tensor(values, dtype=kind)


def _dtype(case, got, want, rule):
    "The kind of number is part of the answer: a byte is a byte."
    same(f"{case}: the dtype", getattr(got, "dtype", type(got).__name__), want, rule)


def _two(case, got, what):
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        raise Miss(f"It should return two things: {what}.", case, got, f"({what})")
    return got


# ---- one number ----


@chapter.exercise(
    "Without a sign, the places are worth ..., 8, 4, 2, 1. Which place changes with one?",
    "In two's complement the first place is worth -8 instead of 8 (of four bits): the "
    "pattern's plain value, minus 16 if the first bit is 1.",
    "value = int(pattern, 2); if signed and pattern[0] == '1': value -= 2 ** len(pattern)",
)
def read_bits(answer):
    "What whole number a pattern of bits stands for."
    wide = "1" + "0" * 40 + "1"
    for pattern, plain, signed in [
        ("0110", 6, 6),
        ("1110", 14, -2),
        ("1000", 8, -8),
        ("10000001", 129, -127),
        ("01", 1, 1),
        ("1", 1, -1),
        (wide, 2**41 + 1, 1 - 2**41),
    ]:
        same(f"{pattern!r}, signed=False", answer(pattern, False), plain, rtol=0,
             rule="Each place is worth twice the one to its right, in whole numbers.")  # fmt: skip
        same(f"{pattern!r}, signed=True", answer(pattern, True), signed, rtol=0,
             rule="Two's complement: the first place is worth minus its usual value.")  # fmt: skip


@chapter.exercise(
    "Count steps from zero, move by the zero point, then think about the ends.",
    "torch.round(x / scale) + zero, held between low and high; only then a byte.",
    "q = (torch.round(x / scale) + zero).clamp(low, high); "
    "return q.to(torch.uint8 if low >= 0 else torch.int8)",
)
def quantize(answer):
    "Numbers to whole numbers of a grid."
    x = _array([-1.343, -0.608, 0.0, 0.267, 0.934, 2.563])
    case = (
        "x = [-1.343, -0.608, 0, 0.267, 0.934, 2.563], scale 0.01, zero 100, 0 .. 255"
    )
    got = answer(x, 0.01, 100, 0, 255)
    same(case, got, [0, 39, 100, 127, 193, 255],
         rule="round(x / scale) + zero, held between low and high.")  # fmt: skip
    _dtype(case, got, torch.uint8, "From 0 up, a byte without a sign: torch.uint8.")
    x = _array([0.19, -0.19, 0.11, -0.11, 0.26, 5.0, -5.0])
    for zero, low, high, want, kind in [
        (0, -7, 7, [2, -2, 1, -1, 3, 7, -7], torch.int8),
        (2, 0, 15, [4, 0, 3, 1, 5, 15, 0], torch.uint8),
        (3, -8, 7, [5, 1, 4, 2, 6, 7, -8], torch.int8),
        (0, -1, 1, [1, -1, 1, -1, 1, 1, -1], torch.int8),  # two bits
    ]:
        case = f"x = [0.19, -0.19, 0.11, -0.11, 0.26, 5, -5], scale 0.1, zero {zero}, "
        case += f"{low} .. {high}"
        got = answer(x, 0.1, zero, low, high)
        same(case, got, want, rule="Steps from zero, plus the zero point, held at the ends; "
             "negative codes need a byte with a sign.")  # fmt: skip
        _dtype(case, got, kind, "`low` decides: uint8 where no code is negative, else int8.")  # fmt: skip
    same("x = [1e9], scale 0.01, zero 100, 0 .. 255",
         answer(_array([1e9]), 0.01, 100, 0, 255), [255],
         rule="1e11 steps do not fit in 32 bits: clip while they are floats.")  # fmt: skip
    rows = _array([[0.14, -0.26, 0.92]] * 3)
    same("three equal rows, [0.14, -0.26, 0.92], with the scales 0.1, 0.2, 0.5",
         answer(rows, _array([[0.1], [0.2], [0.5]]), 0, -7, 7),
         [[1, -3, 7], [1, -1, 5], [0, -1, 2]],
         rule="`scale` may be a tensor that broadcasts, here (3, 1).")  # fmt: skip


@chapter.exercise(
    "2**bits marks have 2**bits - 1 steps between them.",
    "First make sure that 0 is inside: low = min(low, 0), high = max(high, 0). A range "
    "without length has no scale of its own: give 1.0 and 0.",
    "scale = (high - low) / (2**bits - 1); zero = round(-low / scale)",
)
def affine(answer):
    "The scale and the zero point of a range."
    for low, high, bits, zero in [
        (-0.5, 3.5, 8, 32), (-0.5, 3.5, 4, 2), (-0.3, 0.9, 2, 1), (-0.29, 0.71, 4, 4)
    ]:  # fmt: skip
        case = f"affine({low}, {high}, {bits})"
        got = _two(case, answer(low, high, bits), "scale, zero")
        same(f"{case}: scale", got[0], (high - low) / (2**bits - 1),
             rule="Between 2**bits marks lie 2**bits - 1 steps, from low to high.")  # fmt: skip
        same(f"{case}: zero", got[1], zero, rtol=0,
             rule="The steps from low up to 0, rounded: round(-low / scale).")  # fmt: skip
    same(
        "affine(-0.5, 3.5)",
        answer(-0.5, 3.5),
        (4 / 255, 32),
        "Without `bits`: 8 of them.",
    )
    for low, high, want in [
        (2.0, 6.0, (6 / 255, 0)), (-6.0, -2.0, (6 / 255, 255)),
        (3.0, 3.0, (3 / 255, 0)), (-2.0, -2.0, (2 / 255, 255)),
    ]:  # fmt: skip
        same(f"affine({low}, {high}, 8)", answer(low, high, 8), want,
             rule="A range on one side of 0: stretch it to 0, or 0 has no code.")  # fmt: skip
    same("affine(0, 1e-7, 8)", answer(0.0, 1e-7, 8), (1e-7 / 255, 0), atol=0,
         rule="A short range has a small scale.")  # fmt: skip
    same("affine(0, 0, 8): a layer that was silent", answer(0.0, 0.0, 8), (1.0, 0),
         rule="Nothing but 0 itself: 1.0 and 0.")  # fmt: skip


@chapter.exercise(
    "Try every share: quantise, go back, measure, keep the best.",
    "scale = share * x.abs().max() / top with top = 2 ** (bits - 1) - 1; the error is the "
    "mean of (scale * q - x) ** 2.",
    "errors = [((dequantize(quantize(x, s, 0, -top, top), s) - x) ** 2).mean() for s in "
    "scales]; return the scale of the smallest error, as a number",
)
def best_scale(answer):
    "The scale with the least squared error."

    def least(x, bits, shares):
        "The slow way, in float64."
        x, top = x.numpy().astype(float), 2 ** (bits - 1) - 1
        scales = [share * np.abs(x).max() / top for share in shares]
        errors = [
            ((s * np.clip(np.round(x / s), -top, top) - x) ** 2).mean() for s in scales
        ]
        return scales[int(np.argmin(errors))]

    W = _array([-1.0, 1.0] * 22 + [-4.0, 4.0] * 2).reshape(4, 12)
    for shares in (
        [0.2, 0.305, 0.4, 0.55, 0.9],
        [0.305, 0.2, 0.4, 0.55, 0.9],
        [0.55, 0.9, 0.4, 0.2, 0.305],
    ):
        same(f"a matrix (4, 12) of 1s and 4s, 2 bits, shares {shares}",
             answer(W, 2, shares), 1.22, rtol=1e-4,
             rule="Quantise, go back, take the mean square over all numbers of x; the scale "
                  "with the least wins, wherever it stands.")  # fmt: skip
    x = torch.randn(4000, generator=torch.Generator().manual_seed(3))
    x[:3] = _array([9.0, -7.0, 8.0])
    shares = [k / 20 for k in range(2, 21)]
    for bits in (4, 3, 2, 8):
        same(f"4,000 normal numbers and three outliers, {bits} bits, shares 0.1, 0.15 .. 1",
             answer(x, bits, shares), least(x, bits, shares), rtol=1e-4,
             rule="The least mean square, with the grid's end at share * max|x|: scale = "
                  "share * max|x| / top.")  # fmt: skip
    same("the same numbers with the sign turned, 4 bits", answer(-x, 4, shares),
         least(x, 4, shares), rtol=1e-4,
         rule="The largest |x| counts: the longer tail may be the negative one.")  # fmt: skip


# ---- a matrix ----


def _groups(W, group, top):
    "The slow way: -> q (H, D), scale (H, G)."
    W = W.numpy().astype(float)
    H, D = W.shape
    q, scale = np.zeros((H, D)), np.zeros((H, D // group))
    for h, g in np.ndindex(scale.shape):
        piece = slice(g * group, (g + 1) * group)
        scale[h, g] = np.abs(W[h, piece]).max() / top
        q[h, piece] = np.round(W[h, piece] / scale[h, g])
    return q, scale


@chapter.exercise(
    "Cut every row into pieces: (H, D) becomes (H, D / group, group). What is each "
    "piece's largest size?",
    "scale_HG = pieces.abs().amax(-1) / top; where it is 0, put 1. Then every weight needs "
    "the scale of its piece: scale_HG[..., None] over the pieces, or repeat_interleave.",
    "q = quantize(pieces, scale_HG[..., None], 0, -top, top).reshape(H, D); "
    "return q, scale_HG",
)
def group_quantize(answer):
    "A matrix in whole numbers, with a scale for each group of inputs."
    W = torch.randn(5, 12, generator=torch.Generator().manual_seed(5))
    W[1] *= 10
    W[:, 4:] *= 3
    for group, bits in ((4, 4), (12, 4), (3, 2), (6, 8)):
        case = f"W (5, 12), group {group}, {bits} bits"
        q, scale = _two(case, answer(W, group, bits), "q, scale")
        want_q, want = _groups(W, group, 2 ** (bits - 1) - 1)
        same(f"{case}: the scales", scale, want, rtol=1e-5,
             rule="Shape (H, D / group): the largest |w| in the group, over top.")  # fmt: skip
        _dtype(f"{case}: the scales", scale, torch.float32,
               "Scales are a torch.float32 tensor, like W: the layers compute in it.")  # fmt: skip
        same(f"{case}: the whole numbers", q, want_q,
             rule="Each weight over its own group's scale, rounded.")  # fmt: skip
        _dtype(f"{case}: q", q, torch.int8, "The whole numbers should be int8: use quantize.")  # fmt: skip
    W = [[0.0] * 8, [0.0] * 4 + [14.0, 0.0, -4.0, 2.0], [1e-5, 0.0, 7e-5, 0.0] * 2]
    case = "a row of zeros, a group of zeros, a row of tiny weights; groups of 4"
    q, scale = _two(case, answer(_array(W), 4, 4), "q, scale")
    same(f"{case}: the scales", scale, [[1.0, 1.0], [1.0, 2.0], [1e-5, 1e-5]], atol=1e-12,
         rule="A group of zeros has no size: give it the scale 1, and no other.")  # fmt: skip
    same(f"{case}: the whole numbers", q,
         [[0] * 8, [0, 0, 0, 0, 7, 0, -2, 1], [1, 0, 7, 0] * 2],
         rule="0 / 0 is nan: divide by the scale that was put right.")  # fmt: skip


# ---- integers ----


def _hardware(a, b, more=0):
    "A product that counts its calls; `more` is added to every sum of a @ b."

    def product(a_BD, b_DH):
        for q in (a_BD, b_DH):
            if q.dtype not in (torch.int8, torch.uint8):
                raise Miss(
                    "The hardware multiplies 8-bit numbers; a - a_zero needs nine. Multiply "
                    "the codes as they are, and correct afterwards.",
                    "product(a, b): the dtype", q.dtype, "torch.uint8 or torch.int8",
                )  # fmt: skip
        product.calls += 1
        sums = a_BD.to(torch.int32) @ b_DH.to(torch.int32)
        if torch.equal(b_DH, b):  # whole, or a few rows of a at a time
            sums += more * (a_BD[:, None] == a).all(2).any(1, keepdim=True)
        return sums

    product.calls = 0
    return product


@chapter.exercise(
    "Multiply (a - za)(b - zb) out, and sum each of the four terms over d.",
    "sum ab  -  za * (column sums of b)  -  zb * (row sums of a)  +  D * za * zb",
    "product(a, b) - a_zero * b.sum(0, keepdim=True, dtype=torch.int32) - b_zero * "
    "a.sum(1, keepdim=True, dtype=torch.int32) + D * a_zero * b_zero",
)
def quantized_matmul(answer):
    "A matrix product of codes, with the zero points taken out afterwards."
    generator = torch.Generator().manual_seed(1)
    a = torch.randint(0, 256, (5, 7), generator=generator, dtype=torch.uint8)
    b = torch.randint(-127, 128, (7, 3), generator=generator, dtype=torch.int8)
    A, B = a.numpy().astype(int), b.numpy().astype(int)
    for za, zb in ((131, 0), (0, -9), (131, -9), (3, 5)):
        case = f"codes (5, 7) and (7, 3), zero points {za} and {zb}"
        product = _hardware(a, b)
        got = answer(a, za, b, zb, product=product)
        same(case, got, (A - za) @ (B - zb),
             rule="The column sums of b times a_zero, (1, H), the row sums of a times b_zero, "
                  "(B, 1), and D * a_zero * b_zero.")  # fmt: skip
        same(f"{case}: is `product` called?", product.calls > 0, True,
             rule="The hardware has multipliers for 8 bits only: multiply the codes with "
                  "product(a, b).")  # fmt: skip
        _dtype(case, got, torch.int32, "The sums are torch.int32: without dtype=torch.int32, "
               "torch sums bytes in int64.")  # fmt: skip
    same("a `product` that adds 1,000 to each sum",
         answer(a, 3, b, 5, product=_hardware(a, b, 1000)), (A - 3) @ (B - 5) + 1000,
         rule="The first term is product(a, b).")  # fmt: skip
    D = 601  # a sum beyond 2**24, where float32 no longer holds every whole number
    a = torch.full((2, D), 255, dtype=torch.uint8)
    b = torch.full((D, 2), 127, dtype=torch.int8)
    a[:, 0], b[0] = 254, 126
    want = (254 - 7) * (126 + 9) + (D - 1) * (255 - 7) * (127 + 9)
    same(f"{D} inputs near 255, weights near 127, zero points 7 and -9",
         answer(a, 7, b, -9), np.full((2, 2), want), rtol=0,
         rule="Sums of many codes need 32 bits and whole numbers: dtype=torch.int32.")  # fmt: skip
    ones = torch.full((2, 2), 1, dtype=torch.int8)
    same("called without `product`", answer(a[:, 1:3], 0, ones, 0), [[510] * 2] * 2,
         rule="`product` has a value of its own, int_matmul.")  # fmt: skip


@chapter.exercise(
    "Two numbers are enough: the lowest and the highest value of all batches.",
    "They begin at 0.0, which every range must hold. min() and max() with what is there.",
    "self.low = min(self.low, x.min().item()), the same for high; affine(self.low, "
    "self.high, bits)",
    kind="class",
)
def Observer(answer):
    "Watches activations and says which grid holds them."

    def saw(*batches):
        watcher = answer()
        for x in batches:
            watcher.see(_array(x))
        return watcher

    watcher = saw([0.5, -0.5], [[0.0, 1.0], [3.0, -1.0]], [0.1, -0.2])
    case = "three batches, [0.5, -0.5], [[0, 1], [3, -1]], [0.1, -0.2]"
    for bits, want in ((8, (4 / 255, 64)), (4, (4 / 15, 4))):
        got = _two(f"{case}: affine({bits})", watcher.affine(bits), "scale, zero")
        same(f"{case}: affine({bits})", got, want, rtol=1e-5,
             rule="The lowest and the highest value of all batches, -1 and 3, then "
                  "affine(low, high, bits).")  # fmt: skip
    same("a second observer, which has seen [0, 1]: affine(8)", saw([0.0, 1.0]).affine(8),
         (1 / 255, 0), rtol=1e-5,
         rule="Each observer has its own range: set low and high in __init__.")  # fmt: skip
    for x, want in (([2.0, 6.0], (6 / 255, 0)), ([-6.0, -2.0], (6 / 255, 255))):
        same(f"one batch, {x}: affine(8)", saw(x).affine(8), want, rtol=1e-5,
             rule="0 belongs to every range: both ends begin at 0.0.")  # fmt: skip
    same("three batches, affine() without `bits`", watcher.affine(), (4 / 255, 64),
         rtol=1e-5, rule="Without `bits`: 8 of them.")  # fmt: skip


# ---- two to a byte ----


def _bytes(low, high):
    return [(a & 15) | ((b & 15) << 4) for a, b in zip(low, high)]


@chapter.exercise(
    "A half byte (nibble) holds 16 patterns: keep the last four bits of each number.",
    "q & 15 turns -3 into 13, its pattern. With an odd count, add a 0 at the end. Every "
    "second number is moved four places up: << 4.",
    "n = q.to(torch.int16) & 15; pad; return (n[0::2] | n[1::2] << 4).to(torch.uint8)",
)
def pack_int4(answer):
    "Whole numbers of four bits, two to a byte."
    q = [3, -3, -8, 7, 0, -1, 5, 2]
    got = answer(_array(q, torch.int8))
    same(f"q = {q}", got, [0xD3, 0x78, 0xF0, 0x25],
         rule="first & 15, with second & 15 four places up.")  # fmt: skip
    _dtype(f"q = {q}", got, torch.uint8, "Bytes are torch.uint8.")
    same("an odd count, q = [1, -2, 3]", answer(_array([1, -2, 3], torch.int8)),
         [0xE1, 0x03], rule="The last one has no neighbour: its upper half is 0.")  # fmt: skip
    every = list(itertools.product(range(-8, 8), repeat=2))
    flat = _array(every, torch.int8).reshape(-1)
    same("all 256 pairs", answer(flat), _bytes(*zip(*every)),
         rule="first & 15, with second & 15 four places up.")  # fmt: skip
    same("no numbers", answer(flat[:0]), np.zeros(0, int), rule="No numbers, no bytes.")


@chapter.exercise(
    "Take the halves apart: packed & 15 and packed >> 4. Then give the sign back.",
    "A pattern from 8 up is negative: subtract 16. Work in int16, or 13 - 16 runs over.",
    "n = torch.stack([p & 15, p >> 4], 1).reshape(-1)[:count].to(torch.int16); "
    "return torch.where(n > 7, n - 16, n).to(torch.int8)",
)
def unpack_int4(answer):
    "Bytes back to signed whole numbers."
    got = answer(_array([0xD3, 0x78, 0xF0, 0x05], torch.uint8), 7)
    same("7 numbers from 4 bytes", got, [3, -3, -8, 7, 0, -1, 5],
         rule="Lower half, upper half, and so on, `count` of them; from 8 up subtract 16.")  # fmt: skip
    _dtype("7 numbers from 4 bytes", got, torch.int8, "With a sign: torch.int8.")
    every = list(itertools.product(range(-8, 8), repeat=2))
    packed = _array(_bytes(*zip(*every)), torch.uint8)
    same("512 numbers, all 256 bytes", answer(packed, 512), np.ravel(every),
         rule="An even `count` has both halves of the last byte.")  # fmt: skip
    same(
        "no numbers",
        answer(packed[:0], 0),
        np.zeros(0, int),
        rule="No bytes, no numbers.",
    )


# ---- repairing ----


@chapter.exercise(
    "Forward: the grid. Backward: pretend that rounding was not there, but clipping was.",
    "detach() hides a value from the slope: steps + (steps.round() - steps).detach() is "
    "round(steps) forward and has the slope of steps.",
    "steps = (x / scale).clamp(-top, top); "
    "return scale * (steps + (steps.round() - steps).detach())",
)
def fake_quantize(answer):
    "Rounded values with a slope that learning can use."

    def slopes(x, got, weights):
        "What backward gives, each result weighted."
        same(f"{case}: does the result require grad?",
             getattr(got, "requires_grad", False), True,
             rule="No slope gets through: detach() only what is added to `steps`; .item(), "
                  ".data and int8 cut the graph.")  # fmt: skip
        (got * weights).sum().backward()
        return torch.zeros_like(x) if x.grad is None else x.grad

    values = [-0.9, -0.33, -0.26, 0.0, 0.04, 0.13, 0.4, 5.0]
    x = torch.tensor(values, requires_grad=True)
    case = f"x = {values}, scale 0.1, top 3"
    got = answer(x, 0.1, 3)
    same(f"{case}: forward", got, [-0.3, -0.3, -0.3, 0, 0, 0.1, 0.3, 0.3], atol=1e-6,
         rule="scale times the nearest whole number of steps, held at -top and top.")  # fmt: skip
    same(f"{case}: the slopes, times 1 .. 8", slopes(x, got, torch.arange(1.0, 9)),
         [0, 0, 3, 4, 5, 6, 0, 0], rule="1 where |x| <= top * scale, else 0.", rtol=1e-5)  # fmt: skip
    x = torch.tensor([-1.5, 1.5, 0.2, 2.5], requires_grad=True)
    case = "x = [-1.5, 1.5, 0.2, 2.5], scale 0.5, top 3"
    same(f"{case}: the slopes", slopes(x, answer(x, 0.5, 3), 1), [1, 1, 1, 0],
         rule="The ends belong to the grid: |x| = top * scale is not clipped, so 1.")  # fmt: skip
    x = torch.tensor([[0.12, -0.5, 0.28], [0.9, 0.33, -0.1]], requires_grad=True)
    case = "two rows, with the scales 0.1 and 0.2, top 3"
    got = answer(x, _array([[0.1], [0.2]]), 3)
    same(f"{case}: forward", got, [[0.1, -0.3, 0.3], [0.6, 0.4, 0]], atol=1e-6,
         rule="`scale` may be a tensor that broadcasts.")  # fmt: skip
    same(f"{case}: the slopes", slopes(x, got, 1), [[1, 0, 1], [0, 1, 1]], rtol=1e-5,
         rule="Where `scale` is a tensor, the slope is the same: 1 inside, 0 beyond.")  # fmt: skip


def _compensated(W, C, scale, top):
    """After each column, all later ones are the least-squares answer: -> q.

    Not the running repair of the exercise: each time it solves from the original weights.
    """
    W, C, scale = (t.double().numpy() for t in (W, C, scale))
    q, now = np.zeros_like(W), W.copy()
    for d in range(W.shape[1]):
        q[:, d] = np.clip(np.round(now[:, d] / scale[:, d]), -top, top)
        done, rest = slice(d + 1), slice(d + 1, None)
        gap = (W - q * scale)[:, done]  # what the fixed columns get wrong
        now[:, rest] = (
            W[:, rest] + np.linalg.solve(C[rest, rest], C[rest, done] @ gap.T).T
        )
    return q.astype(int)


@chapter.exercise(
    "Round one column. What it gets wrong, times its input, is an error of the output: "
    "which change of the later columns makes up for most of it?",
    "The later inputs, rest, imitate input d best with the coefficients a that solve "
    "C[rest, rest] a = C[rest, d]. Give every later column its share a of the error.",
    "for d: q[:, d] = quantize(W[:, d], scale[:, d], 0, -top, top); error = W[:, d] - "
    "scale[:, d] * q[:, d]; W[:, d + 1:] += error[:, None] * "
    "torch.linalg.solve(C[d + 1:, d + 1:], C[d + 1:, d])  (W: a copy)",
)
def compensate(answer):
    "Column by column, later weights make up for the rounding of earlier ones."
    same("weights [1, 2, 3], inputs that have nothing in common, steps of 1",
         answer(_array([[1.0, 2.0, 3.0]]), torch.eye(3), torch.ones(1, 3), 7), [[1, 2, 3]],
         rule="Each column is rounded, from the first to the last: D of them.")  # fmt: skip
    equal = torch.ones(2, 2) + 1e-4 * torch.eye(2)
    same("weights [0.4, 0.87], inputs that are always equal, steps of 1 and 0.25",
         answer(_array([[0.4, 0.87]]), equal, _array([[1.0, 0.25]]), 7), [[0, 5]],
         rule="0.4 -> 0, so the second should become 1.27, which is 5 of its steps.")  # fmt: skip
    generator = torch.Generator().manual_seed(4)
    mix = torch.randn(6, 6, generator=generator)
    X = torch.randn(200, 6, generator=generator) @ (mix + 2)
    C = X.T @ X / 200
    W = torch.randn(5, 6, generator=generator)
    for bits in (4, 2):
        top = 2 ** (bits - 1) - 1
        scale = (W.abs().amax(1, keepdim=True) / top).repeat(1, 6)
        scale[:, :3] *= 0.45  # a finer scale for each first half: some weights clip
        case = (
            f"W (5, 6), correlated inputs, a scale for each half of a row, {bits} bits"
        )
        got = answer(W, C, scale, top)
        same(case, got, _compensated(W, C, scale, top),
             rule="Round column d with scale_HD[:, d], then W[:, rest] += error * "
                  "solve(C[rest, rest], C[rest, d]).")  # fmt: skip
        _dtype(case, got, torch.int8, "Return the whole numbers, int8.")


# ---- other grids, other budgets ----


def _lloyd(w, k, rounds):
    "The slow way: -> values, codes."
    values = list(np.linspace(min(w), max(w), k))

    def nearest(x):
        return min(range(k), key=lambda j: abs(x - values[j]))

    for _ in range(rounds):
        codes = [nearest(x) for x in w]
        for j in range(k):
            mine = [x for x, c in zip(w, codes) if c == j]
            if mine:
                values[j] = sum(mine) / len(mine)
    return values, [nearest(x) for x in w]


# uneven on purpose: with k = 5 each of six rounds still moves a value
UNEVEN = [0.0, 0.2, -0.3, 9.3, -0.4, -39.8, -0.8, -0.2, -1.0, -0.7, 0.7, -0.1, 0.6, -8.4,
          -2.4, 4.1, -7.7, -1.9, 0.0, 6.2, -6.8, 0.0, -17.6, -0.2, -0.1, 1.8, 21.4, 2.6,
          23.4, 23.7]  # fmt: skip


@chapter.exercise(
    "Two steps in turns: every weight chooses the nearest value; every value moves to the "
    "mean of those who chose it.",
    "codes = (w_N[:, None] - values).abs().argmin(1). A value that nobody chose stays "
    "where it is: the mean of nothing is nan.",
    "for j in range(k): if (codes == j).any(): values[j] = w_N[codes == j].mean(); after "
    "the last round choose once more, and return values, codes",
)
def codebook(answer):
    "k values that stand for all weights, by k-means."
    few = [-2.0, -1.9, -1.7, 0.0, 0.1, 0.2, 0.4, 5.0]
    for told, w, k, rounds in [
        (f"w = {few}", few, 6, 10),
        ("30 uneven weights", UNEVEN, 5, 2),
        (f"w = {few}", few, 4, 1),
        ("30 uneven weights", UNEVEN, 5, 1),
        ("30 uneven weights", UNEVEN, 5, 5),
    ]:
        case = f"{told}, k = {k}, rounds = {rounds}"
        values, codes = _two(case, answer(_array(w), k, rounds), "values, codes")
        want_values, want_codes = _lloyd(w, k, rounds)
        same(f"{case}: the values", values, want_values, rtol=1e-5, atol=1e-6,
             rule="Start at torch.linspace(min, max, k); nearest, mean, nearest, mean; an "
                  "empty one stays.")  # fmt: skip
        same(f"{case}: the codes", codes, want_codes,
             rule="Each weight's code: the number of the nearest value, chosen once more "
                  "after the last round.")  # fmt: skip


@chapter.exercise(
    "All layers begin at their most bits. While the budget is exceeded, one layer goes one "
    "step down: which one hurts least for what it saves?",
    "For each layer that can go down: (damage after - damage now) / bits saved, where bits "
    "saved = size * (bits now - bits after). The smallest goes.",
    "bits = {layer: max(damage[layer])}; while sum(sizes * bits) > budget: layer = "
    "min(those with a lower step, key=price); bits[layer] = the next lower step",
)
def choose_bits(answer):
    "Bits for each layer, so that the whole fits a budget."
    damage = {  # on these numbers every slip ends with other bits
        "a": {8: 0.1, 4: 0.2, 3: 2.2, 2: 3.0},
        "b": {8: 0.0, 6: 0.3, 4: 1.3, 2: 2.7},
        "c": {4: 2.5, 8: 0.1, 2: 6.0},  # in no order
        "d": {8: 0.0, 3: 0.5, 2: 0.7},
    }
    sizes = {"a": 40, "b": 20, "c": 40, "d": 10}
    for budget, bits, why in [
        (880, (8, 8, 8, 8), "it fits already: nobody goes down"),
        (870, (4, 8, 8, 8), "10 too many, so somebody goes down"),
        (720, (4, 8, 8, 8), "a's first step costs least, and 720 fits"),
        (398, (4, 2, 4, 2), "b has gone three times, a only once"),
        (528, (4, 6, 4, 3), "one step each"),
        (220, (2, 2, 2, 2), "down to the last step"),
    ]:
        got = answer({n: dict(c) for n, c in damage.items()}, dict(sizes), budget)
        got = dict(got) if isinstance(got, Mapping) else got
        same(f"four layers, a budget of {budget} bits ({why})", got, dict(zip("abcd", bits)),
             rule="{layer: bits}; one step at a time, where the damage rises least per bit "
                  "saved.")  # fmt: skip
