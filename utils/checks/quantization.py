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
    kind = getattr(got, "dtype", type(got).__name__)
    if kind != want:
        raise Miss(rule, f"{case}: the dtype", kind, want)


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
    wide = "1" + "0" * 40 + "1"  # more than a float32 or an int32 holds
    for pattern in ("0110", "1110", "1000", "10000001", "01", "1", wide):
        n = len(pattern)
        places = [2**k for k in reversed(range(n))]
        plain = sum(p for p, bit in zip(places, pattern) if bit == "1")
        signed = plain - 2 * places[0] * (pattern[0] == "1")
        rest = plain - places[0] * (pattern[0] == "1")
        got = answer(pattern, False)
        if isinstance(got, str):
            raise Miss("It returns a text; a whole number is asked for.",
                       f"{pattern!r}, signed=False", got, plain)  # fmt: skip
        same(
            f"{pattern!r}, signed=False",
            got,
            plain,
            rule="Each place is worth twice the one to its right, in whole numbers.",
            rtol=0,
        )
        same(
            f"{pattern!r}, signed=True",
            answer(pattern, True),
            signed,
            rule="Two's complement: the first place is worth minus its usual value.",
            rtol=0,
        )


X = _array([-1.343, -0.608, 0.0, 0.267, 0.934, 2.563])


@chapter.exercise(
    "Count steps from zero, move by the zero point, then think about the ends.",
    "torch.round(x / scale) + zero, held between low and high; only then a byte.",
    "q = (torch.round(x / scale) + zero).clamp(low, high); "
    "return q.to(torch.uint8 if low >= 0 else torch.int8)",
)
def quantize(answer):
    "Numbers to whole numbers of a grid."
    case = (
        "x = [-1.343, -0.608, 0, 0.267, 0.934, 2.563], scale 0.01, zero 100, 0 .. 255"
    )
    steps = np.round(X.numpy().astype(float) / 0.01)
    want = np.clip(steps + 100, 0, 255).astype(int)
    got = answer(X, 0.01, 100, 0, 255)
    same(
        case,
        got,
        want,
        rule="Steps from zero, plus the zero point, held at the ends.",
    )
    _dtype(case, got, torch.uint8, "From 0 up, a byte without a sign: torch.uint8.")
    x = _array([0.19, -0.19, 0.11, -0.11, 0.26, 5.0, -5.0])
    case = "x = [0.19, -0.19, 0.11, -0.11, 0.26, 5, -5], scale 0.1, zero 0, -7 .. 7"
    same(
        case,
        answer(x, 0.1, 0, -7, 7),
        [2, -2, 1, -1, 3, 7, -7],

        rule="Round to the nearest step, held between low and high.",
    )  # fmt: skip
    _dtype(
        case, answer(x, 0.1, 0, -7, 7), torch.int8, "With negative numbers: torch.int8."
    )
    for zero, low, high, kind in ((2, 0, 15, torch.uint8), (3, -8, 7, torch.int8)):
        case = f"the same x, scale 0.1, zero {zero}, {low} .. {high}"
        got = answer(x, 0.1, zero, low, high)
        want = np.clip(np.round(x.numpy() / 0.1) + zero, low, high).astype(int)
        same(case, got, want, rule="The codes may hold negative ones: look at `low`.")
        _dtype(
            case,
            got,
            kind,
            "`low` decides: uint8 where no code is negative, else int8.",
        )
    same("x = [1e9], scale 0.01, zero 100, 0 .. 255",
         answer(_array([1e9]), 0.01, 100, 0, 255), [255],
         rule="1e11 steps do not fit in 32 bits: clip while they are floats.")  # fmt: skip
    rows = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    scale = _array([[0.1], [0.2], [0.5]])
    want = np.clip(np.round(rows.numpy() / scale.numpy()), -7, 7)
    same("3 rows with a scale each, (3, 1)", answer(rows, scale, 0, -7, 7),
         want.astype(int), rule="`scale` may be a tensor that broadcasts.")  # fmt: skip


@chapter.exercise(
    "2**bits marks have 2**bits - 1 steps between them.",
    "First make sure that 0 is inside: low = min(low, 0), high = max(high, 0). A range "
    "without length has no scale of its own: give 1.0 and 0.",
    "scale = (high - low) / (2**bits - 1); zero = round(-low / scale)",
)
def affine(answer):
    "The scale and the zero point of a range."
    cases = ((-0.5, 3.5, 8), (-0.5, 3.5, 4), (-0.3, 0.9, 2), (-0.29, 0.71, 4))
    for low, high, bits in cases:
        case = f"affine({low}, {high}, {bits})"
        scale, zero = _two(case, answer(low, high, bits), "scale, zero")
        want = (high - low) / (2**bits - 1)
        same(
            f"{case}: scale",
            scale,
            want,
            rule="Between 2**bits marks lie 2**bits - 1 steps, from low to high.",
        )
        where = round(-low / want)
        same(
            f"{case}: zero",
            zero,
            where,
        )
        if not float(zero).is_integer():
            raise Miss("Not rounded: the zero point is a whole number.",
                       f"{case}: zero", zero, where)  # fmt: skip
    ranges = ((2.0, 6.0), (-6.0, -2.0), (3.0, 3.0), (-2.0, -2.0), (0.0, 1e-7))
    for low, high in ranges:
        lo, hi = min(low, 0), max(high, 0)
        case, scale = f"affine({low}, {high}, 8)", (hi - lo) / 255
        want = scale, round(-lo / scale)
        same(case, _of_range(answer, case, low, high, want), want, atol=0,  rule="A range on one side of 0: stretch it to 0, or 0 has no code.")  # fmt: skip
    case = "affine(0, 0, 8): a layer that was silent"
    got = _of_range(answer, case, 0.0, 0.0, (1.0, 0))
    same(case, got, (1.0, 0), rule="No length, no scale: 1.0 and 0.")


def _of_range(answer, case, low, high, want):
    "The answer for 8 bits; a division by zero is told with its case."
    try:
        return answer(low, high, 8)
    except ZeroDivisionError as error:
        raise Miss(
            "ZeroDivisionError: a range without length. Stretch it to 0 first; if there is "
            "nothing then but 0 itself, the answer is 1.0, 0.", case, error, want,
        ) from None  # fmt: skip


@chapter.exercise(
    "Try every share: quantise, go back, measure, keep the best.",
    "scale = share * x.abs().max() / top with top = 2 ** (bits - 1) - 1; the error is the "
    "mean of (scale * q - x) ** 2.",
    "errors = [((dequantize(quantize(x, s, 0, -top, top), s) - x) ** 2).mean() for s in "
    "scales]; return the scale of the smallest error, as a number",
)
def best_scale(answer):
    "The scale with the least squared error."
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4000, generator=generator)
    x[:3] = _array([9.0, -7.0, 8.0])
    shares = [k / 20 for k in range(2, 21)]
    errors, peaks, scales, unclipped, wider = {}, {}, {}, {}, {}
    for bits in (2, 3, 4, 8):
        top = 2 ** (bits - 1) - 1
        scales[bits] = [s * 9.0 / top for s in shares]
        a = x.numpy().astype(float)
        gaps = [s * np.clip(np.round(a / s), -top, top) - a for s in scales[bits]]
        errors[bits] = [(g**2).mean() for g in gaps]
        peaks[bits] = [np.abs(g).max() for g in gaps]
        unclipped[bits] = [
            ((s * np.round(a / s) - a) ** 2).mean() for s in scales[bits]
        ]
        wider[bits] = [
            ((s * np.clip(np.round(a / s), -top - 1, top) - a) ** 2).mean()
            for s in scales[bits]
        ]
    for bits in (4, 3, 2, 8):
        top = 2 ** (bits - 1) - 1

        def pick(table, b=bits):
            return scales[b][int(np.argmin(table[b]))]

        same(
            f"4,000 normal numbers and three outliers, {bits} bits, shares 0.1, 0.15 .. 1",
            answer(x, bits, shares),
            pick(errors),
            rule="Quantise, go back, mean squared error; the scale of the smallest.",
            rtol=1e-4,
        )
    same("the same numbers with the sign turned: the scale", answer(-x, 4, shares),
         scales[4][int(np.argmin(errors[4]))], rtol=1e-4,
         rule="The largest |x| counts: the longer tail may be the negative one.")  # fmt: skip
    W = _array([-1.0, 1.0] * 20 + [-4.0, 4.0] * 5).reshape(5, 10)
    same("a matrix (5, 10) of 1s and 4s, 2 bits, shares 0.2, 0.3, 0.4, 0.5, 0.7, 0.9",
         answer(W, 2, [0.2, 0.3, 0.4, 0.5, 0.7, 0.9]), 3.6, rtol=1e-4,  rule="The mean over all numbers of x, whatever its shape.")  # fmt: skip


# ---- a matrix ----


def _groups(W, group, top):
    "The slow way: -> q (H, D), scale (H, G)."
    H, D = W.shape
    q, scale = np.zeros((H, D)), np.ones((H, D // group))
    for h in range(H):
        for g in range(D // group):
            piece = slice(g * group, (g + 1) * group)
            size = np.abs(W[h, piece]).max()
            scale[h, g] = size / top if size else 1.0
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
    generator = torch.Generator().manual_seed(5)
    W = torch.randn(3, 8, generator=generator)
    W[1] *= 10
    W[:, 4:] *= 3
    for group, bits in ((4, 4), (8, 4), (2, 2), (8, 8)):
        top, case = 2 ** (bits - 1) - 1, f"W (3, 8), group {group}, {bits} bits"
        q, scale = _two(case, answer(W, group, bits), "q, scale")
        a = W.numpy().astype(float)
        want_q, want = _groups(a, group, top)
        same(
            f"{case}: the scales",
            scale,
            want,
            rule="Shape (H, D / group): the largest |w| in the group, over top.",
            rtol=1e-5,
        )
        _dtype(f"{case}: the scales", scale, torch.float32,
               "Scales are a torch.float32 tensor, like W: the layers compute in it.")  # fmt: skip
        strided = np.round(a / np.tile(want, group))
        same(
            f"{case}: the whole numbers",
            q,
            want_q,
            rule="Each weight over its own group's scale, rounded.",
            rtol=1e-4,
        )
        _dtype(
            f"{case}: q",
            q,
            torch.int8,
            "The whole numbers should be int8: use quantize.",
        )
    W = [[0.0] * 8, [0.0] * 4 + [14.0, 0.0, -4.0, 2.0], [1e-5, 0.0, 7e-5, 0.0] * 2]
    case = "a row of zeros, a group of zeros, a row of tiny weights; groups of 4"
    q, scale = _two(case, answer(_array(W), 4, 4), "q, scale")
    same(f"{case}: the scales", scale, [[1.0, 1.0], [1.0, 2.0], [1e-5, 1e-5]],  rule="A group of zeros has no size: give it the scale 1.", atol=1e-12)  # fmt: skip
    same(f"{case}: the whole numbers", q,
         [[0] * 8, [0, 0, 0, 0, 7, 0, -2, 1], [1, 0, 7, 0] * 2], rule="0 / 0 is nan.")  # fmt: skip


# ---- integers ----


def _hardware(calls, more=0):
    "A product that counts its calls; `more` is added to every sum, to know it again."

    def product(a_BD, b_DH):
        for q in (a_BD, b_DH):
            if q.dtype not in (torch.int8, torch.uint8):
                raise Miss(
                    "The hardware multiplies 8-bit numbers; a - a_zero needs nine. Multiply "
                    "the codes as they are, and correct afterwards.",
                    "product(a, b): the dtype", q.dtype, "torch.uint8 or torch.int8",
                )  # fmt: skip
        calls.append(1)
        return a_BD.to(torch.int32) @ b_DH.to(torch.int32) + more

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
    A, B = a.numpy().astype(np.int64), b.numpy().astype(np.int64)
    rows, columns = A.sum(1, keepdims=True), B.sum(0, keepdims=True)
    for za, zb in ((131, 0), (0, -9), (131, -9), (3, 5)):
        calls = []
        got = answer(a, za, b, zb, product=_hardware(calls))
        case = f"codes (5, 7) and (7, 3), zero points {za} and {zb}"
        AB = A @ B
        want = (A - za) @ (B - zb)
        same(
            case,
            got,
            want,
            rule="Sums over d (shape (1, H) for b's columns, (B, 1) for a's rows), in "
            "32 bits.",
        )
        if not calls:
            raise Miss(
                "Right, but not with `product`: the hardware has multipliers for 8 bits "
                "only. Multiply the codes with product(a, b).",
                case, "no call of product", "one call",
            )  # fmt: skip
        if getattr(got.dtype, "is_floating_point", False):
            raise Miss("Whole numbers stay whole: no float on the way.",
                       f"{case}: the dtype", got.dtype, torch.int32)  # fmt: skip
        _dtype(case, got, torch.int32, "The sums are torch.int32: without dtype=torch.int32, "
               "torch sums bytes in int64.")  # fmt: skip
    same("a `product` that adds 1,000 to each sum",
         answer(a, 3, b, 5, product=_hardware([], 1000)), (A - 3) @ (B - 5) + 1000,  rule="The first term is product(a, b).")  # fmt: skip
    D = 601  # a sum beyond 2**24, where float32 no longer holds every whole number
    wide_a = torch.full((2, D), 255, dtype=torch.uint8)
    wide_b = torch.full((D, 2), 127, dtype=torch.int8)
    wide_a[:, 0], wide_b[0] = 254, 126
    want = (254 - 7) * (126 + 9) + (D - 1) * (255 - 7) * (127 + 9)
    case = f"{D} inputs near 255, weights near 127, zero points 7 and -9"
    same(case, answer(wide_a, 7, wide_b, -9), np.full((2, 2), want), rtol=0,  rule="A sum ran over its 8 or 16 bits (sum with dtype=torch.int32), or it went "
         "through float32, which holds whole numbers up to 2**24 only.")  # fmt: skip
    twice = torch.full((2, 2), 1, dtype=torch.int8)
    some = torch.full((2, 2), 255, dtype=torch.uint8)
    same("called without `product`", answer(some, 0, twice, 0), [[510] * 2] * 2,
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
    batches = [
        _array([0.5, -0.5]),
        _array([[3.0, -1.0], [0.0, 1.0]]),
        _array([0.1, -0.2]),
    ]
    watcher = answer()
    for name in ("see", "affine"):
        if not hasattr(watcher, name):
            raise Miss(f"It has no method `{name}`.")
    for x in batches:
        watcher.see(x)
    case = "three batches from -1 to 3, affine(8)"
    try:
        got = watcher.affine(8)
    except (TypeError, AttributeError):
        if any(isinstance(end, torch.Tensor) for end in vars(watcher).values()):
            raise Miss("It noted tensors, and affine needs numbers: x.min().item().",
                       case, vars(watcher), "numbers") from None  # fmt: skip
        raise
    same(
        case,
        _two(case, got, "scale, zero"),
        (4 / 255, 64),
        rule="low and high over all batches, then affine.",
        rtol=1e-5,
    )
    same("affine(4) of the same", watcher.affine(4), (4 / 15, 4),  rule="The same range, with `bits` passed on to affine.", rtol=1e-5)  # fmt: skip
    other = answer()
    other.see(_array([0.0, 1.0]))
    same("a second observer that has seen [0, 1]", other.affine(8), (1 / 255, 0), rtol=1e-5,
         rule="Observers share a memory: set low and high in __init__.")  # fmt: skip
    one_sided = answer()
    one_sided.see(_array([2.0, 6.0]))
    same("one batch, [2, 6]: affine(8)", one_sided.affine(8), (6 / 255, 0),
         rule="0 belongs to every range.", rtol=1e-5)  # fmt: skip


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
    case = f"q = {q}"
    got = answer(_array(q, torch.int8))
    want = _bytes(q[0::2], q[1::2])
    raw = [((a | (b << 4)) & 255) for a, b in zip(q[0::2], q[1::2])]
    same(
        case,
        got,
        want,
        rule="first & 15, with second & 15 four places up.",
    )
    _dtype(case, got, torch.uint8, "Bytes are torch.uint8.")
    same("an odd count, q = [1, -2, 3]", answer(_array([1, -2, 3], torch.int8)),
         [0xE1, 0x03], rule="The last one has no neighbour: its upper half is 0.")  # fmt: skip
    every = list(itertools.product(range(-8, 8), repeat=2))
    flat = _array([n for pair in every for n in pair], torch.int8)
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
    q = [3, -3, -8, 7, 0, -1, 5]
    packed = _array(_bytes(q[0::2], q[1::2] + [0]), torch.uint8)
    nibbles = [n & 15 for n in q]
    got = answer(packed, 7)
    case = "7 numbers from 4 bytes"
    same(
        case,
        got,
        q,

        rule="Lower half, upper half, and so on; from 8 up subtract 16.",
    )  # fmt: skip
    if len(got) != 7:
        raise Miss("One too many: `count` says where to stop.", case, len(got), 7)
    _dtype(case, got, torch.int8, "With a sign: torch.int8.")
    every = list(itertools.product(range(-8, 8), repeat=2))
    flat = [n for pair in every for n in pair]
    same("all 256 bytes", answer(_array(_bytes(*zip(*every)), torch.uint8), 512), flat,

         rule="13 - 16 in a byte without a sign runs over: use int16.")  # fmt: skip


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
    values = [-0.9, -0.26, 0.0, 0.04, 0.13, 0.4, 2.0]
    x = torch.tensor(values, requires_grad=True)
    case = f"x = {values}, scale 0.1, top 3"
    got = answer(x, 0.1, 3)
    a = np.array(values)
    want = 0.1 * np.clip(np.round(a / 0.1), -3, 3)
    same(
        f"{case}: forward",
        got,
        want,
        rule="scale times the nearest whole number of steps, held at -top and top.",
        rtol=1e-5,
        atol=1e-7,
    )
    if not (isinstance(got, torch.Tensor) and got.requires_grad):
        raise Miss(
            "No slope gets through: everything was detached, or .item() / .data / int8 cut "
            "the graph.", case, "requires_grad False", True,
        )  # fmt: skip
    weights = _array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    (got * weights).sum().backward()
    inside = np.array([0, 1, 1, 1, 1, 0, 0.0])
    w = weights.numpy()
    same(
        f"{case}: the slopes, times 1 .. 7",
        x.grad,
        w * inside,
        rule="1 where |x| <= top * scale, else 0.",
        rtol=1e-5,
    )
    ends = torch.tensor([-1.5, 1.5, 0.2, 2.5], requires_grad=True)
    case = "x = [-1.5, 1.5, 0.2, 2.5], scale 0.5, top 3"
    answer(ends, 0.5, 3).sum().backward()
    same(f"{case}: the slopes", ends.grad, [1, 1, 1, 0],
         rule="The ends belong to the grid: |x| = top * scale is not clipped, so 1.")  # fmt: skip
    rows = _array([[0.12, -0.5, 0.28], [0.9, 0.33, -0.1], [0.0, -1.2, 4.0]])
    scale = _array([[0.1], [0.2], [0.5]])
    r, s = rows.numpy(), scale.numpy()
    x = rows.clone().requires_grad_()
    got = answer(x, scale, 3)
    same("3 rows with a scale each", got, s * np.clip(np.round(r / s), -3, 3),
         rule="`scale` may be a tensor that broadcasts.", rtol=1e-5, atol=1e-6)  # fmt: skip
    rule = "Where `scale` is a tensor, the slope is the same: 1 inside, 0 beyond."
    if not got.requires_grad:
        raise Miss(rule, "3 rows with a scale each", "requires_grad False", True)
    got.sum().backward()
    same("3 rows with a scale each: the slopes", x.grad,
         (np.abs(r) <= 3 * s).astype(int), rule=rule)  # fmt: skip


def _compensated(W, C, scale, top, order=None):
    """After each column, all later ones are the least-squares answer: -> q.

    Not the running repair of the exercise: each time it solves from the original weights.
    """
    H, D = W.shape
    q = np.zeros((H, D))
    now = W.copy()
    for n, d in enumerate(range(D)):
        q[:, d] = np.clip(np.round(now[:, d] / scale[:, d]), -top, top)
        done, rest = np.arange(n + 1), np.arange(n + 1, D)
        if len(rest):
            gap = (W - q * scale)[:, done]  # what the fixed columns get wrong
            right = gap @ C[np.ix_(done, rest)]
            now[:, rest] = (
                W[:, rest] + np.linalg.solve(C[np.ix_(rest, rest)], right.T).T
            )
    return q


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
    both = _array([[1.0, 1.0], [1.0, 1.0]]) + 1e-4 * torch.eye(2)
    case = "weights [0.4, 0.4], inputs that are always equal, steps of 1"
    same(
        case,
        answer(_array([[0.4, 0.4]]), both, torch.ones(1, 2), 7),
        [[0, 1]],
        rule="0.4 -> 0, so the second should become 0.8 -> 1.",
    )
    generator = torch.Generator().manual_seed(4)
    mix = torch.randn(6, 6, generator=generator)
    X = torch.randn(200, 6, generator=generator) @ (mix + 2)
    C = X.T @ X / 200
    W = torch.randn(5, 6, generator=generator)
    for bits in (4, 2):
        top = 2 ** (bits - 1) - 1
        scale = (W.abs().amax(1, keepdim=True) / top).repeat(1, 6)
        scale[:, :3] *= 0.45  # a finer scale for each first half: some weights clip
        arrays = [t.double().numpy() for t in (W, C, scale)]
        want = _compensated(*arrays, top).astype(int)
        nearest = np.clip(np.round(arrays[0] / arrays[2]), -top, top)
        first, mean = scale[:, :1].expand(5, 6), scale.mean(1, True).expand(5, 6)
        got = answer(W, C, scale, top)
        one = "A scale for every weight: column d has scale_HD[:, d]."
        same(
            f"W (5, 6), correlated inputs, a scale for each half of a row, {bits} bits",
            got,
            want,
            rule="Round column d, then W[:, rest] += error * solve(C[rest, rest], C[rest, d]).",
        )
        _dtype("q", got, torch.int8, "Return the whole numbers, int8.")


def _running(W, C, scale, top, sign=1, only_next=False, even=False, stale=False,
             diagonal=False, clips=True, low=None):  # fmt: skip
    "The running repair with a slip in it."
    first, W, q = W, W.copy(), np.zeros_like(W)
    D = W.shape[1]
    for d in range(D):
        steps = np.round(W[:, d] / scale[:, d])
        q[:, d] = np.clip(steps, -top if low is None else low, top)
        back = scale[:, d] * (q[:, d] if clips else steps)
        error = (first if stale else W)[:, d] - back
        rest = slice(d + 1, D)
        if d + 1 == D:
            break
        r = np.linalg.solve(C[rest, rest], C[rest, d])
        if diagonal:
            r = C[rest, d] / C[rest, rest].diagonal()
        if even:
            r = np.full(D - d - 1, 1 / (D - d - 1))
        if only_next:
            r = np.where(np.arange(len(r)) == 0, C[d + 1, d] / C[d + 1, d + 1], 0)
        W[:, rest] += sign * error[:, None] * r
    return q


# ---- other grids, other budgets ----


def _lloyd(w, k, rounds, moving=None):
    "The slow way: -> values, codes. `moving`: only the first so many values move."
    values = list(np.linspace(min(w), max(w), k))

    def nearest(x):
        return min(range(k), key=lambda j: abs(x - values[j]))

    for _ in range(rounds):
        codes = [nearest(x) for x in w]
        for j in range(k if moving is None else moving):
            mine = [x for x, c in zip(w, codes) if c == j]
            if mine:
                values[j] = sum(mine) / len(mine)
    return np.array(values), np.array([nearest(x) for x in w])


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
    few, uneven = [-2.0, -1.9, -1.7, 0.0, 0.1, 0.2, 0.4, 5.0], UNEVEN
    cases = ((few, 4, 1), (few, 6, 10), (uneven, 5, 1), (uneven, 5, 2), (uneven, 5, 5))
    for w, k, rounds in cases:
        told = f"w = {w}" if w is few else "30 uneven weights"
        case = f"{told}, k = {k}, rounds = {rounds}"
        got = _two(case, answer(_array(w), k, rounds), "values, codes")
        values, codes = _lloyd(w, k, rounds)
        even, early = _lloyd(w, k, 0)
        edges = np.quantile(w, np.linspace(0, 1, k))
        medians = [np.median(np.array(w)[early == j]) if (early == j).any() else even[j]
                   for j in range(k)]  # fmt: skip
        same(
            f"{case}: the values",
            got[0],
            values,
            rule="Start at torch.linspace(min, max, k); nearest, mean, nearest, mean; an "
            "empty one stays.",
            rtol=1e-5,
            atol=1e-6,
        )
        same(
            f"{case}: the codes",
            got[1],
            codes,
            rule="Each weight's code: the number of the nearest value, chosen once more "
            "after the last round.",
        )


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
    damage = {  # on these numbers every slip below ends with other bits
        "a": {8: 0.1, 4: 0.2, 3: 2.2, 2: 3.0},
        "b": {8: 0.0, 6: 0.3, 4: 1.3, 2: 2.1},
        "c": {4: 3.1, 8: 0.1, 2: 6.1},  # in no order
        "d": {8: 0.0, 3: 0.5, 2: 0.6},
    }
    sizes = {"a": 40, "b": 20, "c": 40, "d": 10}
    cases = (
        (880, "it fits already: nobody goes down"),
        (720, "a's first step costs least, and a total equal to the budget fits"),
        (528, "five steps; d goes twice"),
        (220, "down to the last step"),
    )
    for budget, why in cases:
        case = f"four layers, a budget of {budget} bits ({why})"
        want = _greedy(damage, sizes, budget, _per_bit)
        prices = {
            "Damage alone does not say what is saved: divide by the bits saved, size * "
            "(bits now - bits after).": lambda rise, now, then, size: rise,
            "The bits saved are size * (bits now - bits after), not only the step.": (
                lambda rise, now, then, size: rise / (now - then)
            ),
            "The bits saved are size * (bits now - bits after): the step counts, too.": (
                lambda rise, now, then, size: rise / size
            ),
            "Divide by the bits *saved*, not by those that are left.": (
                lambda rise, now, then, size: rise / (size * then)
            ),
            "Divide by the bits *saved*, not by those that were there.": (
                lambda rise, now, then, size: rise / (size * now)
            ),
            "The one that hurts most goes first: the least.": (
                lambda rise, now, then, size: -rise / (size * (now - then))
            ),
            "The largest layer goes first, whatever it hurts: look at the damage.": (
                lambda rise, now, then, size: -size
            ),
        }
        slips = {
            sentence: _greedy(damage, sizes, budget, price)
            for sentence, price in prices.items()
        } | {
            "It counts the whole damage of the step below, not what is added: minus the "
            "damage now.": _greedy(damage, sizes, budget, _per_bit, since=None),
            "The price is counted from the top: from where the layer is *now*.": _greedy(
                damage, sizes, budget, _per_bit, since=max
            ),
            "It stops too late: a total equal to the budget fits.": _greedy(
                damage, sizes, budget - 1, _per_bit
            ),
            "The next lower step is the largest below, in whatever order `damage` lists "
            "them.": _greedy(damage, sizes, budget, _per_bit, listed=True),
            "This is the best of all choices, found by trying them. Asked for are single "
            "steps, each the cheapest there is.": _exhaustive(damage, sizes, budget),
        }
        got = answer({n: dict(c) for n, c in damage.items()}, dict(sizes), budget)
        if not isinstance(got, Mapping):
            raise Miss("It should return {layer: bits}.", case, got, want)
        same(case, dict(got), want,
             rule="One step at a time: least added damage per bit saved.")  # fmt: skip


def _per_bit(rise, now, then, size):
    return rise / (size * (now - then))


def _greedy(damage, sizes, budget, price, since="now", listed=False):
    "The cheapest step, again and again. since: where the rise begins."
    bits = {layer: max(costs) for layer, costs in damage.items()}
    while sum(sizes[n] * bits[n] for n in bits) > budget:
        options = []
        for n, costs in damage.items():
            steps = list(costs) if listed else sorted(costs, reverse=True)
            lower = steps[steps.index(bits[n]) + 1 :]
            if lower:
                start = max(costs) if since is max else bits[n]
                rise = costs[lower[0]] - (0 if since is None else costs[start])
                options.append((price(rise, start, lower[0], sizes[n]), n, lower[0]))
        if not options:
            break
        _, layer, step = min(options)
        bits[layer] = step
    return bits


def _exhaustive(damage, sizes, budget):
    "The bits of least damage in all that fit, however many steps away."
    fits = [
        choice
        for choice in itertools.product(*damage.values())
        if sum(sizes[n] * b for n, b in zip(damage, choice)) <= budget
    ]
    total = [sum(damage[n][b] for n, b in zip(damage, choice)) for choice in fits]
    return dict(zip(damage, fits[int(np.argmin(total))]))
