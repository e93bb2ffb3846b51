"""Chapter 24's slips: wrong answers that its checks must reject, and their names."""

import itertools

import numpy as np
import torch

from utils.built import packed as packing
from utils.built import quant
from utils.checks import quantization as ex

# ---- read_bits ----


@ex.read_bits.slip("`signed` makes no difference: the first place counts negative.")
def never_negative(pattern, signed):
    return int(pattern, 2)


@ex.read_bits.slip(
    "This is sign and magnitude: in two's complement the other bits still count upward."
)
def sign_and_size(pattern, signed):
    if signed and pattern[0] == "1":
        return -int(pattern[1:], 2)
    return int(pattern, 2)


@ex.read_bits.slip("This is one's complement, one off: 1111 is -1, not 0.")
def ones_complement(pattern, signed):
    value = int(pattern, 2)
    return value - 2 ** len(pattern) + 1 if signed and pattern[0] == "1" else value


@ex.read_bits.slip("The range is moved by half (an offset code): 0110 must stay 6.")
def offset_code(pattern, signed):
    return int(pattern, 2) - (2 ** (len(pattern) - 1) if signed else 0)


@ex.read_bits.slip("Read from the wrong end: the last bit is worth 1.")
def backwards(pattern, signed):
    return int(pattern[::-1], 2)


@ex.read_bits.slip(
    "Without a sign the first place counts like the others: it is not a minus."
)
def always_signed(pattern, signed):
    return int(pattern, 2) - (2 ** len(pattern) if pattern[0] == "1" else 0)


@ex.read_bits.slip("A first bit alone is negative, too: 1000 is -8, not 8.")
def minus_eight_stays(pattern, signed):
    n, half = int(pattern, 2), 2 ** (len(pattern) - 1)
    return n - 2 * half if signed and n > half else n


@ex.read_bits.slip("One bit is a first place as well: 1 is -1.")
def one_bit_has_no_sign(pattern, signed):
    n = int(pattern, 2)
    return (
        n - 2 ** len(pattern)
        if signed and len(pattern) > 1 and pattern[0] == "1"
        else n
    )


@ex.read_bits.slip(
    "It went through float32, which holds whole numbers up to 2**24 only."
)
def float32_sum(pattern, signed):
    n = np.float32(int(pattern, 2))
    return n - 2.0 ** len(pattern) if signed and pattern[0] == "1" else n


@ex.read_bits.slip("This is a text: a whole number is asked for.")
def text(pattern, signed):
    return str(int(pattern, 2))


@ex.read_bits.slip(
    "Each place is worth twice the one to its right: these are powers of ten."
)
def decimal(pattern, signed):
    return int(pattern)


@ex.read_bits.slip("Only eight bits are read: a pattern may have any length.")
def one_byte(pattern, signed):
    pattern = pattern[-8:]
    value = int(pattern, 2)
    return value - 2 ** len(pattern) if signed and pattern[0] == "1" else value


# ---- quantize ----


def _byte(q, low):
    return q.to(torch.uint8 if low >= 0 else torch.int8)


@ex.quantize.slip(
    "It clips before the zero point is added: the grid's ends belong to the final whole number."
)
def clips_first(x, scale, zero, low, high):
    return torch.round(x / scale).clamp(low, high) + zero


@ex.quantize.slip(
    "It clips before the zero point is added, and the byte then runs over."
)
def clips_first_in_a_byte(x, scale, zero, low, high):
    q = torch.round(x / scale).clamp(low, high) + zero
    return _byte(q.to(torch.int32), low)


@ex.quantize.slip("It cuts the decimals off: 26.7 steps are nearer to 27. Round first.")
def truncates(x, scale, zero, low, high):
    return _byte(((x / scale).trunc() + zero).clamp(low, high), low)


@ex.quantize.slip(
    "Nothing stops at the ends: as a byte, 356 became 100. Clip, then convert."
)
def never_clips(x, scale, zero, low, high):
    return _byte((torch.round(x / scale) + zero).to(torch.int32), low)


@ex.quantize.slip("Nothing stops at the ends: clip to low .. high.")
def never_clips_int32(x, scale, zero, low, high):
    return (torch.round(x / scale) + zero).to(torch.int32)


@ex.quantize.slip("The zero point is subtracted: real 0 must land on `zero`.")
def minus_zero(x, scale, zero, low, high):
    return _byte((torch.round(x / scale) - zero).clamp(low, high), low)


@ex.quantize.slip("It multiplies by the scale: how many steps *fit* into x?")
def multiplies(x, scale, zero, low, high):
    return _byte((torch.round(x * scale) + zero).clamp(low, high), low)


@ex.quantize.slip("The zero point is missing.")
def no_zero(x, scale, zero, low, high):
    return _byte(torch.round(x / scale).clamp(low, high), low)


@ex.quantize.slip("These are floats: a byte is asked for, from 0 up torch.uint8.")
def stays_float(x, scale, zero, low, high):
    return (torch.round(x / scale) + zero).clamp(low, high)


@ex.quantize.slip("These are 16 bits: with negative numbers, torch.int8.")
def sixteen_bits(x, scale, zero, low, high):
    q = (torch.round(x / scale) + zero).clamp(low, high)
    return q.to(torch.uint8 if low >= 0 else torch.int16)


def _codes(x, scale, zero, low, high):
    return (torch.round(x / scale) + zero).clamp(low, high)


@ex.quantize.slip("As a byte with a sign, 255 became -1: from 0 up, torch.uint8.")
def always_int8(x, scale, zero, low, high):
    return _codes(x, scale, zero, low, high).to(torch.int32).to(torch.int8)


@ex.quantize.slip(
    "As a byte without a sign, -2 became 254: with negative numbers, torch.int8."
)
def always_uint8(x, scale, zero, low, high):
    return _codes(x, scale, zero, low, high).to(torch.int32).to(torch.uint8)


@ex.quantize.slip(
    "`low` decides, not `high`: uint8 where no code is negative, else int8."
)
def dtype_by_high(x, scale, zero, low, high):
    return _codes(x, scale, zero, low, high).to(
        torch.uint8 if high > 127 else torch.int8
    )


@ex.quantize.slip("`low` decides, not `zero`: as a byte without a sign, -8 became 248.")
def dtype_by_zero(x, scale, zero, low, high):
    signed = zero == 0 and low < 0
    q = _codes(x, scale, zero, low, high).to(torch.int32)
    return q.to(torch.int8 if signed else torch.uint8)


@ex.quantize.slip("1e11 steps do not fit in 32 bits: clip while they are floats.")
def whole_before_clip(x, scale, zero, low, high):
    q = (torch.round(x / scale).to(torch.int32) + zero).clamp(low, high)
    return _byte(q, low)


@ex.quantize.slip(
    "-1 is a negative code, too: two bits run from -1 to 1, in torch.int8."
)
def unsigned_from_minus_one(x, scale, zero, low, high):
    q = _codes(x, scale, zero, low, high)
    return q.to(torch.int32).to(torch.uint8 if low >= -1 else torch.int8)


@ex.quantize.slip(
    "It rounds down (floor): 26.7 steps are nearer to 27. torch.round does it."
)
def rounds_down(x, scale, zero, low, high):
    return _byte((torch.floor(x / scale) + zero).clamp(low, high), low)


@ex.quantize.slip("Only the upper end is held: clip at `low`, too.")
def no_lower_end(x, scale, zero, low, high):
    q = (torch.round(x / scale) + zero).clamp(max=high)
    return _byte(q.to(torch.int32), low)


@ex.quantize.slip("`scale` may be a tensor, one per row: this takes its first for all.")
def one_scale(x, scale, zero, low, high):
    scale = scale.flatten()[0] if torch.is_tensor(scale) else scale
    return _byte(_codes(x, scale, zero, low, high), low)


# ---- affine ----


def _range(low, high):
    return min(low, 0.0), max(high, 0.0)


@ex.affine.slip("One step too many: between 2**bits marks lie 2**bits - 1 steps.")
def all_patterns(low, high, bits=8):
    scale = (high - low) / 2**bits
    return scale, round(-low / scale)


@ex.affine.slip("It uses max|x|, as a symmetric grid does: here both ends count.")
def symmetric(low, high, bits=8):
    return max(-low, high) / (2 ** (bits - 1) - 1), 0


@ex.affine.slip("The sign: low lies below 0, so 0 lies above the grid's first mark.")
def wrong_sign(low, high, bits=8):
    scale = (high - low) / (2**bits - 1)
    return scale, round(low / scale)


@ex.affine.slip("One off: mark 0 stands for low, so count the steps from low to 0.")
def one_off(low, high, bits=8):
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale) + 1


@ex.affine.slip("Not rounded: the zero point is a whole number.")
def fractional_zero(low, high, bits=8):
    scale = (high - low) / (2**bits - 1)
    return scale, -low / scale


@ex.affine.slip("A range on one side of 0: stretch it to 0, or 0 has no code.")
def without_zero(low, high, bits=8):
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale)


@ex.affine.slip(
    "A range without length has no scale: if there is nothing but 0 itself, the answer is 1.0, 0."
)
def no_silent_layer(low, high, bits=8):
    low, high = _range(low, high)
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale)


@ex.affine.slip(
    "It is moved by half the grid, as for signed codes: this grid begins at 0."
)
def signed_codes(low, high, bits=8):
    low, high = _range(low, high)
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale) - 2 ** (bits - 1)


@ex.affine.slip("It should return two things: scale, zero.")
def scale_only(low, high, bits=8):
    return (high - low) / (2**bits - 1)


@ex.affine.slip("Rounded up always (ceil): 4.35 steps are nearer to 4.")
def rounds_up(low, high, bits=8):
    low, high = _range(low, high)
    if low == high:
        return 1.0, 0
    scale = (high - low) / (2**bits - 1)
    return scale, int(np.ceil(-low / scale))


@ex.affine.slip(
    "1.0, 0 is for a range of nothing but 0: stretch to 0 first. A short range has a small scale."
)
def no_length_before_the_stretch(low, high, bits=8):
    return (1.0, 0) if low == high else quant.affine(low, high, bits)


@ex.affine.slip(
    "1.0, 0 is for a range of nothing but 0: stretch to 0 first. A short range has a small scale."
)
def short_is_nothing(low, high, bits=8):
    low, high = _range(low, high)
    return (1.0, 0) if high - low < 1e-6 else quant.affine(low, high, bits)


@ex.affine.slip("`bits` is ignored: these are the 255 steps of 8 bits.")
def always_eight_bits(low, high, bits=8):
    return quant.affine(low, high, 8)


@ex.affine.slip("The two are swapped: scale, zero.")
def zero_first(low, high, bits=8):
    return quant.affine(low, high, bits)[::-1]


# ---- best_scale ----


def _choose(x, bits, shares, error, pick=min, clip=True, size=None):
    top = quant.top_of(bits)
    size = x.abs().max().item() if size is None else size
    found = []
    for share in shares:
        s = share * size / top
        q = torch.round(x / s)
        q = q.clamp(-top, top) if clip else q
        found.append((error(s * q - x).item(), s))
    return pick(found)[1]


@ex.best_scale.slip(
    "This is max|x| / top: try every share, and keep the one with the least error."
)
def largest(x, bits, shares):
    return x.abs().max().item() / quant.top_of(bits)


@ex.best_scale.slip(
    "The finest grid wins: clip to -top .. top before the error is measured."
)
def unclipped(x, bits, shares):
    return _choose(x, bits, shares, lambda e: (e**2).mean(), clip=False)


@ex.best_scale.slip("This is the scale of the largest error: the smallest is wanted.")
def worst(x, bits, shares):
    return _choose(x, bits, shares, lambda e: (e**2).mean(), pick=max)


@ex.best_scale.slip("Judged by the largest error: the mean of the squares counts.")
def by_the_maximum(x, bits, shares):
    return _choose(x, bits, shares, lambda e: e.abs().max())


@ex.best_scale.slip("This is the share: return the scale.")
def returns_share(x, bits, shares):
    scale = _choose(x, bits, shares, lambda e: (e**2).mean())
    return scale * quant.top_of(bits) / x.abs().max().item()


@ex.best_scale.slip("The largest |x| counts: the longer tail may be the negative one.")
def positive_end(x, bits, shares):
    return _choose(x, bits, shares, lambda e: (e**2).mean(), size=x.max().item())


@ex.best_scale.slip("The grid is symmetric, -top .. top: one mark too many below.")
def one_mark_more(x, bits, shares):
    top, found = quant.top_of(bits), []
    for share in shares:
        s = share * x.abs().max().item() / top
        q = torch.round(x / s).clamp(-top - 1, top)
        found.append((((s * q - x) ** 2).mean().item(), s))
    return min(found)[1]


@ex.best_scale.slip(
    "It stops where the error first rises: a later share may still be better. Try them all."
)
def stops_early(x, bits, shares):
    top, best = quant.top_of(bits), None
    for share in shares:
        s = share * x.abs().max().item() / top
        error = ((s * torch.round(x / s).clamp(-top, top) - x) ** 2).mean().item()
        if best is not None and error > best[0]:
            break
        best = error, s
    return best[1]


@ex.best_scale.slip("x may be a matrix: .mean() takes all its numbers.")
def for_lists_only(x, bits, shares):
    return _choose(x, bits, shares, lambda e: sum(e**2) / len(e))


@ex.best_scale.slip("The first share is never tried, and here it is the best.")
def skips_the_first(x, bits, shares):
    return _choose(x, bits, shares[1:], lambda e: (e**2).mean())


@ex.best_scale.slip("Judged by the mean |error|: the mean of the squares counts.")
def by_the_mean_size(x, bits, shares):
    return _choose(x, bits, shares, lambda e: e.abs().mean())


@ex.best_scale.slip("`bits` is ignored: the grid ends at 7, as with four of them.")
def always_four_bits(x, bits, shares):
    return _choose(x, 4, shares, lambda e: (e**2).mean())


@ex.best_scale.slip(
    "A share of the largest |x| is asked for, not of the largest in each row."
)
def row_by_row(x, bits, shares):
    size = x.abs().amax(-1, keepdim=True).min().item()
    return _choose(x, bits, shares, lambda e: (e**2).mean(), size=size)


@ex.best_scale.slip("`shares` is ignored: these are shares of its own.")
def own_shares(x, bits, shares):
    shares = [k / 20 for k in range(2, 21)]
    return _choose(x, bits, shares, lambda e: (e**2).mean())


@ex.best_scale.slip("The largest |x| is asked for, not three standard deviations.")
def three_deviations(x, bits, shares):
    size = 3 * x.std().item()
    return _choose(x, bits, shares, lambda e: (e**2).mean(), size=size)


# ---- group_quantize ----


def _grouped(W_HD, group, bits, size):
    "With scales size(pieces (H, G, group)) / top."
    H, D = W_HD.shape
    pieces, top = W_HD.reshape(H, D // group, group), quant.top_of(bits)
    scale = size(pieces) / top
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    q = quant.quantize(pieces, scale[..., None], 0, -top, top)
    return q.reshape(H, D), scale


@ex.group_quantize.slip(
    "One scale for the whole matrix: each group of each row has its own."
)
def per_tensor(W_HD, group, bits):
    whole = lambda p: p.abs().max().expand(p.shape[:2])
    return _grouped(W_HD, group, bits, whole)


@ex.group_quantize.slip(
    "One scale for each column of groups: rows are outputs, and each has its own."
)
def wrong_axis(W_HD, group, bits):
    columns = lambda p: p.abs().amax((0, 2)).expand(p.shape[:2])
    return _grouped(W_HD, group, bits, columns)


@ex.group_quantize.slip(
    "The largest weight, not the largest size: a group may be negative."
)
def forgets_abs(W_HD, group, bits):
    return _grouped(W_HD, group, bits, lambda p: p.amax(-1))


@ex.group_quantize.slip(
    "Divide by top = 2 ** (bits - 1) - 1, so that the largest weight gets the last mark."
)
def half_the_patterns(W_HD, group, bits):
    top = quant.top_of(bits)
    return _grouped(W_HD, group, bits, lambda p: p.abs().amax(-1) * top / (top + 1))


@ex.group_quantize.slip(
    "Each weight got the scale of another group (repeat, not repeat_interleave?)."
)
def repeats(W_HD, group, bits):
    q, scale = quant.group_quantize(W_HD, group, bits)
    q = torch.round(W_HD / scale.repeat(1, group)).to(torch.int8)
    return q, scale


@ex.group_quantize.slip("A group of zeros has no size: give it the scale 1.")
def keeps_scale_zero(W_HD, group, bits):
    q, scale = quant.group_quantize(W_HD, group, bits)
    size = W_HD.reshape(len(W_HD), -1, group).abs().amax(-1) / quant.top_of(bits)
    return q, size


@ex.group_quantize.slip("The whole numbers should be int8: use quantize.")
def float_codes(W_HD, group, bits):
    q, scale = quant.group_quantize(W_HD, group, bits)
    return q.float(), scale


@ex.group_quantize.slip("It should return two things: q, scale.")
def weights_back(W_HD, group, bits):
    return quant.rounded(W_HD, bits, group)


def _where_empty(W_HD, group, bits, empty):
    "The right codes, and 1 as scale where `empty(pieces)` (H, G) says so."
    pieces, top = W_HD.reshape(len(W_HD), -1, group), quant.top_of(bits)
    scale = torch.where(empty(pieces), 1.0, pieces.abs().amax(-1) / top)
    q = torch.round(pieces / scale[..., None]).clamp(-top, top).to(torch.int8)
    return q.reshape(W_HD.shape), scale


@ex.group_quantize.slip(
    "A group of zeros has no size: give it the scale 1, though its row has weights."
)
def only_empty_rows(W_HD, group, bits):
    rows = lambda p: (p == 0).all(2).all(1, keepdim=True).expand(p.shape[:2])
    return _where_empty(W_HD, group, bits, rows)


@ex.group_quantize.slip("One zero among its weights does not make a group empty.")
def one_zero_is_enough(W_HD, group, bits):
    return _where_empty(W_HD, group, bits, lambda p: (p == 0).any(2))


@ex.group_quantize.slip(
    "Tiny weights need a tiny scale: 1 is for groups of zeros only."
)
def tiny_is_empty(W_HD, group, bits):
    return _where_empty(W_HD, group, bits, lambda p: p.abs().amax(-1) < 1e-3)


@ex.group_quantize.slip(
    "Scales are a torch.float32 tensor, like W: the layers compute in it."
)
def double_scales(W_HD, group, bits):
    q, scale = quant.group_quantize(W_HD.double(), group, bits)
    return q, scale


@ex.group_quantize.slip(
    "A group is a run of neighbours: this takes every so-manyth input."
)
def strided(W_HD, group, bits):
    H, D = W_HD.shape
    order = torch.arange(D).reshape(group, D // group).T.reshape(-1)
    q, scale = quant.group_quantize(W_HD[:, order], group, bits)
    return q[:, order.argsort()], scale


@ex.group_quantize.slip("A scale for every weight: one per group, (H, D / group).")
def scale_for_every_weight(W_HD, group, bits):
    q, scale = quant.group_quantize(W_HD, group, bits)
    return q, quant.spread(scale, group)


@ex.group_quantize.slip("The first group's scale is used for its whole row.")
def first_group_for_all(W_HD, group, bits):
    top = quant.top_of(bits)
    _, scale = quant.group_quantize(W_HD, group, bits)
    return quant.quantize(W_HD, scale[:, :1], 0, -top, top), scale


# ---- quantized_matmul ----


def _terms(a, b, product):
    rows = a.sum(1, keepdim=True, dtype=torch.int32)
    columns = b.sum(0, keepdim=True, dtype=torch.int32)
    return product(a, b), rows, columns, a.shape[1]


@ex.quantized_matmul.slip(
    "This is the bare product of the codes: the zero points are still in it."
)
def no_correction(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    return product(a_BD, b_DH)


@ex.quantized_matmul.slip(
    "The zero points are swapped: a_zero goes with the sums of b."
)
def swapped(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    p, rows, columns, D = _terms(a_BD, b_DH, product)
    return p - b_zero * columns - a_zero * rows + D * a_zero * b_zero


@ex.quantized_matmul.slip(
    "The last term is counted once: it stands under the sum, D times."
)
def last_term_once(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    p, rows, columns, _ = _terms(a_BD, b_DH, product)
    return p - a_zero * columns - b_zero * rows + a_zero * b_zero


@ex.quantized_matmul.slip(
    "The last term is missing: minus times minus, D * a_zero * b_zero."
)
def without_last_term(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    p, rows, columns, _ = _terms(a_BD, b_DH, product)
    return p - a_zero * columns - b_zero * rows


@ex.quantized_matmul.slip(
    "The hardware multiplies 8-bit numbers; a - a_zero needs nine. Multiply the codes as they are, and correct afterwards."
)
def subtracts_first(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    return product(a_BD.to(torch.int16) - a_zero, b_DH.to(torch.int16) - b_zero)


@ex.quantized_matmul.slip(
    "Right, but not with `product`: the hardware has multipliers for 8 bits only. Multiply the codes with product(a, b)."
)
def wide_numbers(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    return (a_BD.to(torch.int32) - a_zero) @ (b_DH.to(torch.int32) - b_zero)


@ex.quantized_matmul.slip("Whole numbers stay whole: the product went through float32.")
def through_floats(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    p, rows, columns, D = _terms(a_BD, b_DH, product)
    return p.float() - a_zero * columns - b_zero * rows + D * a_zero * b_zero


@ex.quantized_matmul.slip(
    "a_zero times a column's sum ran over 16 bits: sum with dtype=torch.int32."
)
def sums_in_a_byte(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    rows = a_BD.sum(1, keepdim=True, dtype=torch.int32)
    columns = b_DH.sum(0, keepdim=True, dtype=torch.int16)
    p = product(a_BD, b_DH) - (a_zero * columns).to(torch.int16)
    return p - b_zero * rows + a_BD.shape[1] * a_zero * b_zero


@ex.quantized_matmul.slip("D is the number of inputs, not a fixed 7.")
def seven_inputs(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    p, rows, columns, _ = _terms(a_BD, b_DH, product)
    return p - a_zero * columns - b_zero * rows + 7 * a_zero * b_zero


@ex.quantized_matmul.slip(
    "The sums went through float32, which holds whole numbers up to 2**24 only."
)
def float_in_the_middle(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    p, rows, columns, D = _terms(a_BD, b_DH, product)
    sums = p.float() - a_zero * columns - b_zero * rows + D * a_zero * b_zero
    return sums.to(torch.int32)


@ex.quantized_matmul.slip("A row's sum ran over 16 bits: sum with dtype=torch.int32.")
def rows_in_16_bits(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    p, _, columns, D = _terms(a_BD, b_DH, product)
    rows = a_BD.sum(1, keepdim=True, dtype=torch.int16)
    return p - a_zero * columns - (b_zero * rows.int()) + D * a_zero * b_zero


@ex.quantized_matmul.slip(
    "The sums are torch.int32: without dtype=torch.int32, torch sums bytes in int64."
)
def int64_sums(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    rows, columns = a_BD.sum(1, keepdim=True), b_DH.sum(0, keepdim=True)
    both = a_BD.shape[1] * a_zero * b_zero
    return product(a_BD, b_DH) - a_zero * columns - b_zero * rows + both


@ex.quantized_matmul.slip("`product` was called, but its result is not used.")
def product_thrown_away(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    product(a_BD, b_DH)
    return (a_BD.to(torch.int32) - a_zero) @ (b_DH.to(torch.int32) - b_zero)


@ex.quantized_matmul.slip(
    "Both zero points are added back: each is subtracted from its codes."
)
def wrong_signs(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    return quant.quantized_matmul(a_BD, -a_zero, b_DH, -b_zero, product)


@ex.quantized_matmul.slip("D is the number of inputs, a_BD.shape[1], not of rows.")
def rows_for_inputs(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    p, rows, columns, _ = _terms(a_BD, b_DH, product)
    return p - a_zero * columns - b_zero * rows + len(a_BD) * a_zero * b_zero


@ex.quantized_matmul.slip(
    "Weights may have a zero point of their own: b_zero is forgotten."
)
def symmetric_weights(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    return quant.quantized_matmul(a_BD, a_zero, b_DH, 0, product)


# ---- Observer ----


class _Base:
    def __init__(self):
        self.low, self.high = 0.0, 0.0

    def see(self, x):
        self.low = min(self.low, x.min().item())
        self.high = max(self.high, x.max().item())

    def affine(self, bits=8):
        return quant.affine(self.low, self.high, bits)


@ex.Observer.slip("It holds the last batch only.")
class LastBatch(_Base):
    def see(self, x):
        self.low, self.high = x.min().item(), x.max().item()


@ex.Observer.slip("The lower end is lost: activations may be negative.")
class OnlyHigh(_Base):
    def see(self, x):
        self.high = max(self.high, x.max().item())


@ex.Observer.slip(
    "The range is averaged over the batches: the largest value would be clipped."
)
class Averages(_Base):
    def __init__(self):
        self.lows, self.highs = [], []

    def see(self, x):
        self.lows.append(min(0, x.min().item()))
        self.highs.append(x.max().item())

    def affine(self, bits=8):
        return quant.affine(np.mean(self.lows), np.mean(self.highs), bits)


@ex.Observer.slip("Observers share a memory: set low and high in __init__.")
class Shared(_Base):
    low, high = 0.0, 0.0

    def __init__(self):
        pass

    def see(self, x):
        Shared.low = min(Shared.low, x.min().item())
        Shared.high = max(Shared.high, x.max().item())


@ex.Observer.slip("`bits` is passed on to affine.")
class AlwaysEight(_Base):
    def affine(self, bits=8):
        return quant.affine(self.low, self.high, 8)


@ex.Observer.slip("0 belongs to every range.")
class WithoutZero(_Base):
    def __init__(self):
        self.low, self.high = float("inf"), float("-inf")

    def affine(self, bits=8):
        scale = (self.high - self.low) / (2**bits - 1)
        return scale, round(-self.low / scale)


@ex.Observer.slip("It has no method `affine`.")
class NoAffine:
    def see(self, x):
        pass


@ex.Observer.slip("One batch can move both ends: two `if`s, not if and elif.")
class IfElif(_Base):
    def see(self, x):
        if x.min() < self.low:
            self.low = x.min().item()
        elif x.max() > self.high:
            self.high = x.max().item()


@ex.Observer.slip("It noted tensors, and affine needs numbers: x.min().item().")
class KeepsTensors(_Base):
    def see(self, x):
        self.low, self.high = min(self.low, x.min()), max(self.high, x.max())

    def affine(self, bits=8):
        scale = (self.high - self.low) / (2**bits - 1)
        return scale, round(-self.low / scale)


@ex.Observer.slip("The range was made symmetric: low and high are noted apart.")
class Symmetric(_Base):
    def see(self, x):
        self.high = max(self.high, x.abs().max().item())
        self.low = -self.high


@ex.Observer.slip("affine forgot what was seen: asking changes nothing.")
class Forgets(_Base):
    def affine(self, bits=8):
        answer = quant.affine(self.low, self.high, bits)
        self.low = self.high = 0.0
        return answer


@ex.Observer.slip("It holds the first batch only: every batch may stretch the range.")
class FirstBatch(_Base):
    seen = False

    def see(self, x):
        if not self.seen:
            super().see(x)
        self.seen = True


@ex.Observer.slip("The first row alone is looked at: x may have any shape.")
class FirstRow(_Base):
    def see(self, x):
        super().see(x[0] if x.dim() > 1 else x)


@ex.Observer.slip("The largest mean, not the largest value: one number may be far out.")
class Means(_Base):
    def see(self, x):
        super().see(x.mean(-1))


# ---- pack_int4 ----


def _even(q):
    q = q.to(torch.int16)
    return torch.cat([q, q.new_zeros(len(q) % 2)])


@ex.pack_int4.slip(
    "A negative number spilled over its neighbour: its upper bits are all 1. Keep four of them (& 15)."
)
def signed_packing(q_N):
    n = _even(q_N)
    return (n[0::2] | n[1::2] << 4).to(torch.uint8)


@ex.pack_int4.slip(
    "The halves are swapped: the first of each two goes into the lower half."
)
def swapped_halves(q_N):
    n = _even(q_N) & 15
    return (n[0::2] << 4 | n[1::2]).to(torch.uint8)


@ex.pack_int4.slip(
    "The first half of the list is paired with the second: pair neighbours."
)
def first_with_second_half(q_N):
    n = _even(q_N) & 15
    half = len(n) // 2
    return (n[:half] | n[half:] << 4).to(torch.uint8)


@ex.pack_int4.slip(
    "The numbers were moved up by 8 first: store the pattern itself, -1 as 1111."
)
def offset_packing(q_N):
    n = _even(q_N) + 8
    return (n[0::2] | n[1::2] << 4).to(torch.uint8)


@ex.pack_int4.slip("The sign is lost: & 15, not abs().")
def sizes_only(q_N):
    n = _even(q_N).abs() & 15
    return (n[0::2] | n[1::2] << 4).to(torch.uint8)


@ex.pack_int4.slip("One number per byte: nothing is saved yet.")
def one_a_byte(q_N):
    return (q_N.to(torch.int16) & 15).to(torch.uint8)


@ex.pack_int4.slip("The last one has no neighbour: its upper half is 0.")
def even_only(q_N):
    n = q_N.to(torch.int16) & 15
    return (n[0::2] | n[1::2] << 4).to(torch.uint8)


@ex.pack_int4.slip("Bytes are torch.uint8.")
def wide_bytes(q_N):
    n = _even(q_N) & 15
    return n[0::2] | n[1::2] << 4


@ex.pack_int4.slip("No numbers, no bytes: here is one.")
def at_least_one_byte(q_N):
    return packing.pack_int4(q_N if len(q_N) else torch.zeros(1, dtype=torch.int8))


@ex.pack_int4.slip("The last number of an odd count is lost: pair it with 0.")
def drops_the_odd_one(q_N):
    return packing.pack_int4(q_N[: len(q_N) // 2 * 2])


@ex.pack_int4.slip("A zero is added although the count is even.")
def always_one_more(q_N):
    return packing.pack_int4(torch.cat([q_N, q_N.new_zeros(2 - len(q_N) % 2)]))


# ---- unpack_int4 ----


def _halves(packed):
    return torch.stack([packed & 15, packed >> 4], 1).reshape(-1).to(torch.int16)


@ex.unpack_int4.slip("The sign is lost: patterns from 8 to 15 are -8 to -1.")
def no_sign(packed, count):
    return _halves(packed)[:count].to(torch.int8)


@ex.unpack_int4.slip("The halves are swapped: the lower half comes first.")
def upper_first(packed, count):
    n = torch.stack([packed >> 4, packed & 15], 1).reshape(-1)[:count].to(torch.int16)
    return torch.where(n > 7, n - 16, n).to(torch.int8)


@ex.unpack_int4.slip("Moved down by 8: that is an offset code, not two's complement.")
def minus_eight(packed, count):
    return (_halves(packed)[:count] - 8).to(torch.int8)


@ex.unpack_int4.slip(
    "All lower halves come first, then all upper ones: they alternate."
)
def not_interleaved(packed, count):
    n = torch.cat([packed & 15, packed >> 4])[:count].to(torch.int16)
    return torch.where(n > 7, n - 16, n).to(torch.int8)


@ex.unpack_int4.slip("8 became +8: four bits with a sign end at 7.")
def eight_is_positive(packed, count):
    n = _halves(packed)[:count]
    return torch.where(n > 8, n - 16, n).to(torch.int8)


@ex.unpack_int4.slip("All halves come back: `count` says where to stop.")
def ignores_count(packed, count):
    n = _halves(packed)
    return torch.where(n > 7, n - 16, n).to(torch.int8)


@ex.unpack_int4.slip("With a sign: torch.int8.")
def unsigned_bytes(packed, count):
    n = _halves(packed)[:count]
    return torch.where(n > 7, n - 16, n)


@ex.unpack_int4.slip("It always drops the last: `count` says where to stop.")
def drops_the_last(packed, count):
    return packing.unpack_int4(packed, 2 * len(packed))[:-1]


@ex.unpack_int4.slip("A byte without a sign ran over: 13 - 16 needs int16.")
def runs_over(packed, count):
    n = torch.stack([packed & 15, packed >> 4], 1).reshape(-1)[:count]
    return torch.where(n > 7, n - 16, n).to(torch.int16)


@ex.unpack_int4.slip("7 is still positive: from 8 up subtract 16.")
def seven_is_negative(packed, count):
    n = _halves(packed)[:count]
    return torch.where(n > 6, n - 16, n).to(torch.int8)


# ---- fake_quantize ----


@ex.fake_quantize.slip(
    "All slopes are 0: round() is flat. Hide the rounding from autograd with detach()."
)
def plain_rounding(x, scale, top):
    return scale * (x / scale).clamp(-top, top).round()


@ex.fake_quantize.slip(
    "A clipped value passes its slope on: nudging it changes nothing, so 0."
)
def slope_everywhere(x, scale, top):
    fake = scale * (x / scale).clamp(-top, top).round()
    return x + (fake - x).detach()


@ex.fake_quantize.slip(
    "No slope gets through: everything was detached, or .item() / .data / int8 cut the graph."
)
def detached(x, scale, top):
    return (scale * (x / scale).clamp(-top, top).round()).detach()


@ex.fake_quantize.slip("Nothing was rounded: forward must be the grid.")
def unrounded(x, scale, top):
    return scale * (x / scale).clamp(-top, top)


@ex.fake_quantize.slip("These are the whole numbers: multiply by the scale again.")
def whole_numbers(x, scale, top):
    steps = (x / scale).clamp(-top, top)
    return steps + (steps.round() - steps).detach()


@ex.fake_quantize.slip("It does not stop at top * scale.")
def without_clipping(x, scale, top):
    steps = x / scale
    return scale * (steps + (steps.round() - steps).detach())


@ex.fake_quantize.slip(
    "The ends belong to the grid: |x| = top * scale is not clipped, so 1."
)
def strict_ends(x, scale, top):
    inside = (x.detach().abs() < top * scale).float()
    fake = scale * (x / scale).clamp(-top, top).round()
    return x * inside + (fake - x * inside).detach()


@ex.fake_quantize.slip(
    "Where `scale` is a tensor, the slope is the same: 1 inside, 0 beyond."
)
def tensor_scale_without_slope(x, scale, top):
    if torch.is_tensor(scale):
        return (x / scale).round().clamp(-top, top) * scale
    steps = (x / scale).clamp(-top, top)
    return scale * (steps + (steps.round() - steps).detach())


@ex.fake_quantize.slip("The grid is symmetric: it ends at -top, not at -top - 1.")
def one_mark_below(x, scale, top):
    steps = (x / scale).clamp(-top - 1, top)
    return scale * (steps + (steps.round() - steps).detach())


@ex.fake_quantize.slip("It cuts the decimals off: 2.6 steps are nearer to 3.")
def truncated(x, scale, top):
    steps = (x / scale).clamp(-top, top)
    return scale * (steps + (steps.trunc() - steps).detach())


@ex.fake_quantize.slip(
    "The slope is that of the steps, 1 / scale: multiply by the scale outside."
)
def slope_of_the_steps(x, scale, top):
    steps = (x / scale).clamp(-top, top)
    return steps + (scale * steps.round() - steps).detach()


@ex.fake_quantize.slip("Everything is let through at the lower end: clip at -top, too.")
def held_above_alone(x, scale, top):
    steps = (x / scale).clamp(max=top)
    return scale * (steps + (steps.round() - steps).detach())


@ex.fake_quantize.slip("top is a number of steps: clip x / scale, not x.")
def clips_before_the_scale(x, scale, top):
    steps = x.clamp(-top, top) / scale
    return scale * (steps + (steps.round() - steps).detach())


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad


@ex.fake_quantize.slip(
    "3.3 steps round to 3, and are still beyond top: clip before rounding."
)
def clips_after_rounding(x, scale, top):
    return scale * _Straight.apply(x / scale).clamp(-top, top)


# ---- compensate ----


def _fix(W_HD, C_DD, scale_HD, top, share, sign=1):
    W_HD, q_HD = W_HD.clone(), torch.empty_like(W_HD, dtype=torch.int8)
    first = W_HD.clone()
    for d in range(W_HD.shape[1]):
        q_HD[:, d] = quant.quantize(W_HD[:, d], scale_HD[:, d], 0, -top, top)
        error_H = W_HD[:, d] - scale_HD[:, d] * q_HD[:, d]
        rest = slice(d + 1, None)
        if d + 1 < W_HD.shape[1]:
            r = share(C_DD[rest, rest], C_DD[rest, d])
            W_HD[:, rest] += sign * error_H[:, None] * r
    return q_HD


@ex.compensate.slip(
    "This is rounding to nearest: no column hears of the errors of those before it."
)
def nearest(W_HD, C_DD, scale_HD, top):
    return quant.quantize(W_HD, scale_HD, 0, -top, top)


@ex.compensate.slip(
    "The error has the wrong sign: 0.4 became 0, so the second should hear of 0.4 that is missing."
)
def wrong_way(W_HD, C_DD, scale_HD, top):
    return _fix(W_HD, C_DD, scale_HD, top, torch.linalg.solve, sign=-1)


@ex.compensate.slip(
    "The error is spread without asking C: inputs that say nothing alike cannot help."
)
def evenly(W_HD, C_DD, scale_HD, top):
    return _fix(W_HD, C_DD, scale_HD, top, lambda C, c: torch.ones_like(c) / len(c))


@ex.compensate.slip(
    "Only the next column was repaired: all later ones share the error."
)
def only_the_next(W_HD, C_DD, scale_HD, top):
    def share(C, c):
        r = torch.zeros_like(c)
        r[0] = c[0] / C[0, 0]
        return r

    return _fix(W_HD, C_DD, scale_HD, top, share)


@ex.compensate.slip(
    "C[rest, d] is there, but not solved with C[rest, rest]: the later inputs also imitate each other."
)
def diagonal_only(W_HD, C_DD, scale_HD, top):
    return _fix(W_HD, C_DD, scale_HD, top, lambda C, c: c / C.diagonal())


@ex.compensate.slip(
    "The error was taken from the first weights: use the repaired ones, from which you rounded."
)
def stale_error(W_HD, C_DD, scale_HD, top):
    W, q_HD = W_HD.clone(), torch.empty_like(W_HD, dtype=torch.int8)
    for d in range(W.shape[1]):
        q_HD[:, d] = quant.quantize(W[:, d], scale_HD[:, d], 0, -top, top)
        error_H = W_HD[:, d] - scale_HD[:, d] * q_HD[:, d]
        if d + 1 < W.shape[1]:
            r = torch.linalg.solve(C_DD[d + 1 :, d + 1 :], C_DD[d + 1 :, d])
            W[:, d + 1 :] += error_H[:, None] * r
    return q_HD


@ex.compensate.slip(told="changes its input in place")
def in_place(W_HD, C_DD, scale_HD, top):
    q_HD = quant.compensate(W_HD, C_DD, scale_HD, top)
    W_HD += 1
    return q_HD


@ex.compensate.slip("These are floats: return the whole numbers as int8.")
def float_answer(W_HD, C_DD, scale_HD, top):
    return quant.compensate(W_HD, C_DD, scale_HD, top).float()


@ex.compensate.slip("The last column was rounded first: go from left to right.")
def from_the_right(W_HD, C_DD, scale_HD, top):
    q = quant.compensate(W_HD.flip(1), C_DD.flip(0, 1), scale_HD.flip(1), top)
    return q.flip(1)


@ex.compensate.slip(
    "A scale for every weight: column d has scale_HD[:, d], not the first of its row."
)
def first_scale(W_HD, C_DD, scale_HD, top):
    return quant.compensate(W_HD, C_DD, scale_HD[:, :1].expand_as(W_HD), top)


@ex.compensate.slip(
    "A scale for every weight: column d has scale_HD[:, d], not the mean of its row."
)
def mean_scale(W_HD, C_DD, scale_HD, top):
    mean = scale_HD.mean(1, keepdim=True).expand_as(W_HD)
    return quant.compensate(W_HD, C_DD, mean, top)


def _columns(W_HD, C_DD, scale_HD, top, back=None, low=None):
    "The reference; back(steps, q): what the error is counted from."
    W_HD, q_HD = W_HD.clone(), torch.zeros_like(W_HD, dtype=torch.int8)
    for d in range(W_HD.shape[1]):
        steps = torch.round(W_HD[:, d] / scale_HD[:, d])
        q = steps.clamp(-top if low is None else low, top)
        q_HD[:, d] = q.to(torch.int8)
        error_H = W_HD[:, d] - scale_HD[:, d] * (back(steps, q) if back else q)
        share = torch.linalg.solve(C_DD[d + 1 :, d + 1 :], C_DD[d + 1 :, d])
        W_HD[:, d + 1 :] += error_H[:, None] * share
    return q_HD


@ex.compensate.slip(
    "A weight that was clipped has an error, too: what q stands for is missing, not what rounding alone would give."
)
def clipping_is_free(W_HD, C_DD, scale_HD, top):
    return _columns(W_HD, C_DD, scale_HD, top, back=lambda steps, q: steps)


@ex.compensate.slip("The grid is symmetric: it ends at -top, not at -top - 1.")
def one_more_mark(W_HD, C_DD, scale_HD, top):
    return _columns(W_HD, C_DD, scale_HD, top, low=-top - 1)


@ex.compensate.slip("The last column was left out: it is rounded, too.")
def skips_the_last(W_HD, C_DD, scale_HD, top):
    q_HD = _columns(W_HD, C_DD, scale_HD, top)
    q_HD[:, -1] = 0
    return q_HD


@ex.compensate.slip("It stops after as many columns as there are rows: D of them.")
def rows_instead_of_columns(W_HD, C_DD, scale_HD, top):
    q_HD = _columns(W_HD, C_DD, scale_HD, top)
    q_HD[:, len(W_HD) :] = 0
    return q_HD


@ex.compensate.slip(
    "The columns are not rounded one by one: each one hears of all errors before it."
)
def all_errors_at_once(W_HD, C_DD, scale_HD, top):
    q_HD = quant.quantize(W_HD, scale_HD, 0, -top, top)
    error_HD, W_HD = W_HD - scale_HD * q_HD, W_HD.clone()
    for d in range(W_HD.shape[1] - 1):
        rest = slice(d + 1, None)
        share = torch.linalg.solve(C_DD[rest, rest], C_DD[rest, d])
        W_HD[:, rest] += error_HD[:, d, None] * share
    return quant.quantize(W_HD, scale_HD, 0, -top, top)


@ex.compensate.slip(
    "The error is in steps: times the scale, it is what the weight lost."
)
def error_in_steps(W_HD, C_DD, scale_HD, top):
    W_HD, q_HD = W_HD.clone(), torch.zeros_like(W_HD, dtype=torch.int8)
    for d in range(W_HD.shape[1]):
        q_HD[:, d] = quant.quantize(W_HD[:, d], scale_HD[:, d], 0, -top, top)
        error_H = W_HD[:, d] / scale_HD[:, d] - q_HD[:, d]
        share = torch.linalg.solve(C_DD[d + 1 :, d + 1 :], C_DD[d + 1 :, d])
        W_HD[:, d + 1 :] += error_H[:, None] * share
    return q_HD


@ex.compensate.slip(
    "Divide by the later inputs, C[rest, rest], not by C[d, d] of this one."
)
def by_this_input(W_HD, C_DD, scale_HD, top):
    def share(W, d):
        return C_DD[d + 1 :, d] / C_DD[d, d]

    W_HD, q_HD = W_HD.clone(), torch.zeros_like(W_HD, dtype=torch.int8)
    for d in range(W_HD.shape[1]):
        q_HD[:, d] = quant.quantize(W_HD[:, d], scale_HD[:, d], 0, -top, top)
        error_H = W_HD[:, d] - scale_HD[:, d] * q_HD[:, d]
        W_HD[:, d + 1 :] += error_H[:, None] * share(W_HD, d)
    return q_HD


@ex.compensate.slip(
    "`top` is ignored: codes run beyond it. Hold them between -top and top."
)
def whole_bytes(W_HD, C_DD, scale_HD, top):
    return quant.compensate(W_HD, C_DD, scale_HD, 127)


@ex.compensate.slip(
    "The inverse of the whole C is used: columns that are done cannot help any more."
)
def one_inverse(W_HD, C_DD, scale_HD, top):
    W_HD, q_HD = W_HD.clone(), torch.zeros_like(W_HD, dtype=torch.int8)
    inverse = torch.linalg.inv(C_DD)
    for d in range(W_HD.shape[1]):
        q_HD[:, d] = quant.quantize(W_HD[:, d], scale_HD[:, d], 0, -top, top)
        error_H = W_HD[:, d] - scale_HD[:, d] * q_HD[:, d]
        W_HD[:, d + 1 :] -= error_H[:, None] * inverse[d, d + 1 :] / inverse[d, d]
    return q_HD


@ex.compensate.slip(
    "Only the first row is repaired: every output hears of its own errors."
)
def first_row_only(W_HD, C_DD, scale_HD, top):
    q_HD = quant.quantize(W_HD, scale_HD, 0, -top, top)
    q_HD[:1] = quant.compensate(W_HD[:1], C_DD, scale_HD[:1], top)
    return q_HD


# ---- codebook ----


def _means(w_N, values, codes, k, middle=torch.mean):
    mine = [w_N[codes == j] for j in range(k)]
    return torch.stack([middle(m) if len(m) else v for m, v in zip(mine, values)])


def _nearest(w_N, values):
    return (w_N[:, None] - values).abs().argmin(1)


def _even_values(w_N, k):
    return torch.linspace(w_N.min().item(), w_N.max().item(), k)


@ex.codebook.slip(
    "The values are still evenly spaced: move each to the mean of its weights."
)
def never_moves(w_N, k, rounds):
    values = _even_values(w_N, k)
    return values, _nearest(w_N, values)


@ex.codebook.slip("These are quantiles: as many weights each. K-means moves to means.")
def quantiles(w_N, k, rounds):
    values = torch.quantile(w_N, torch.linspace(0, 1, k))
    return values, _nearest(w_N, values)


@ex.codebook.slip(
    "The mean of nothing is nan: a value that nobody chose stays where it is."
)
def empty_means(w_N, k, rounds):
    values = _even_values(w_N, k)
    for _ in range(rounds):
        codes = _nearest(w_N, values)
        count = torch.bincount(codes, minlength=k)
        values = torch.zeros(k).index_add_(0, codes, w_N) / count
    return values, _nearest(w_N, values)


@ex.codebook.slip(
    "These codes belong to the evenly spaced values: choose again at the end."
)
def stale_codes(w_N, k, rounds):
    values, _ = quant.codebook(w_N, k, rounds)
    return values, _nearest(w_N, _even_values(w_N, k))


@ex.codebook.slip("These are the values: a code is the number of a value, 0 .. k - 1.")
def values_for_codes(w_N, k, rounds):
    values, codes = quant.codebook(w_N, k, rounds)
    return values, values[codes]


@ex.codebook.slip("These are medians: the mean of the weights that chose it.")
def medians(w_N, k, rounds):
    values = _even_values(w_N, k)
    middle = lambda m: m.quantile(0.5)
    values = _means(w_N, values, _nearest(w_N, values), k, middle)
    return values, _nearest(w_N, values)


@ex.codebook.slip("A value that nobody chose stays where it is: here it went to 0.")
def empties_to_zero(w_N, k, rounds):
    values = _even_values(w_N, k)
    for _ in range(rounds):
        codes = _nearest(w_N, values)
        count = torch.bincount(codes, minlength=k).clamp(min=1)
        values = torch.zeros(k).index_add_(0, codes, w_N) / count
    return values, _nearest(w_N, values)


def _rounds(w_N, k, rounds, last=True, moving=None):
    values = _even_values(w_N, k)
    codes = _nearest(w_N, values)
    for _ in range(rounds):
        codes = _nearest(w_N, values)
        new = _means(w_N, values, codes, k)
        values = torch.cat([new[:moving], values[moving:]]) if moving else new
    return values, _nearest(w_N, values) if last else codes


@ex.codebook.slip(
    "The values moved after these codes were chosen: choose once more after the last round."
)
def no_last_choice(w_N, k, rounds):
    return _rounds(w_N, k, rounds, last=False)


@ex.codebook.slip("This is one round more than `rounds`.")
def one_round_more(w_N, k, rounds):
    return _rounds(w_N, k, rounds + 1)


@ex.codebook.slip("These are always 20 rounds: `rounds` says how many.")
def always_twenty(w_N, k, rounds):
    return _rounds(w_N, k, 20)


@ex.codebook.slip("These are always 2 rounds: `rounds` says how many.")
def always_two(w_N, k, rounds):
    return _rounds(w_N, k, 2)


@ex.codebook.slip("It stops after 3 rounds: `rounds` says how many.")
def three_at_most(w_N, k, rounds):
    return _rounds(w_N, k, min(rounds, 3))


@ex.codebook.slip(
    "The last value never moves: every one goes to the mean of its weights."
)
def last_never_moves(w_N, k, rounds):
    return _rounds(w_N, k, rounds, moving=k - 1)


@ex.codebook.slip(
    "It starts at the first k weights: torch.linspace(min, max, k) is asked for."
)
def starts_at_weights(w_N, k, rounds):
    values = w_N[:k].clone()
    for _ in range(rounds):
        values = _means(w_N, values, _nearest(w_N, values), k)
    return values, _nearest(w_N, values)


@ex.codebook.slip("One round is missing: `rounds` of them.")
def one_round_fewer(w_N, k, rounds):
    return _rounds(w_N, k, rounds - 1)


@ex.codebook.slip("The range is made symmetric: start at linspace(min, max, k).")
def symmetric_start(w_N, k, rounds):
    size = w_N.abs().max().item()
    values = torch.linspace(-size, size, k)
    for _ in range(rounds):
        values = _means(w_N, values, _nearest(w_N, values), k)
    return values, _nearest(w_N, values)


@ex.codebook.slip("The two are swapped: values, codes.")
def codes_first(w_N, k, rounds):
    return quant.codebook(w_N, k, rounds)[::-1]


@ex.codebook.slip(
    "All choose first, then all values move: here each moves before the next chooses."
)
def one_value_at_a_time(w_N, k, rounds):
    values = _even_values(w_N, k)
    for _ in range(rounds):
        for j in range(k):
            mine = w_N[_nearest(w_N, values) == j]
            values[j] = mine.mean() if len(mine) else values[j]
    return values, _nearest(w_N, values)


@ex.codebook.slip("A value with a single weight moves to it as well: the mean of one.")
def lone_weights_are_left(w_N, k, rounds):
    values = _even_values(w_N, k)
    for _ in range(rounds):
        codes = _nearest(w_N, values)
        for j in range(k):
            if (codes == j).sum() > 1:
                values[j] = w_N[codes == j].mean()
    return values, _nearest(w_N, values)


# ---- choose_bits ----


def _greedy(damage, sizes, budget, price, over=lambda total, budget: total > budget):
    bits = {layer: max(costs) for layer, costs in damage.items()}
    while over(sum(sizes[n] * bits[n] for n in bits), budget):
        options = []
        for n in bits:
            lower = [b for b in damage[n] if b < bits[n]]
            if lower:
                now, then = damage[n][bits[n]], damage[n][max(lower)]
                options.append((price(now, then, sizes[n], bits[n] - max(lower)), n))
        if not options:
            break
        layer = min(options)[1]
        bits[layer] = max(b for b in damage[layer] if b < bits[layer])
    return bits


@ex.choose_bits.slip(
    "Damage alone does not say what is saved: divide by the bits saved, size * (bits now - bits after)."
)
def damage_alone(damage, sizes, budget):
    return _greedy(damage, sizes, budget, lambda now, then, size, step: then - now)


@ex.choose_bits.slip(
    "The bits saved are size * (bits now - bits after), not only the step."
)
def sizes_forgotten(damage, sizes, budget):
    price = lambda now, then, size, step: (then - now) / step
    return _greedy(damage, sizes, budget, price)


@ex.choose_bits.slip(
    "It counts the whole damage of the step below, not what is added: minus the damage now."
)
def whole_damage(damage, sizes, budget):
    price = lambda now, then, size, step: then / (size * step)
    return _greedy(damage, sizes, budget, price)


@ex.choose_bits.slip("The one that hurts most goes first: the least.")
def most_harmful(damage, sizes, budget):
    price = lambda now, then, size, step: -(then - now) / (size * step)
    return _greedy(damage, sizes, budget, price)


@ex.choose_bits.slip("It stops too late: a total equal to the budget fits.")
def too_strict(damage, sizes, budget):
    price = lambda now, then, size, step: (then - now) / (size * step)
    return _greedy(damage, sizes, budget, price, lambda total, b: total >= b)


@ex.choose_bits.slip("This is a list of bits: {layer: bits}.")
def a_list(damage, sizes, budget):
    return list(quant.choose_bits(damage, sizes, budget).values())


@ex.choose_bits.slip(
    "Which steps a layer has stands in `damage`: not every one can be halved."
)
def fixed_steps(damage, sizes, budget):
    bits = dict.fromkeys(damage, 8)
    while sum(sizes[n] * bits[n] for n in bits) > budget:
        price = lambda n: (
            (damage[n][bits[n] // 2] - damage[n][bits[n]]) / sizes[n] / (bits[n] // 2)
            if bits[n] > 2
            else float("inf")
        )
        bits[min(bits, key=price)] //= 2
    return bits


@ex.choose_bits.slip(
    "The bits saved are size * (bits now - bits after): the step counts, too."
)
def step_forgotten(damage, sizes, budget):
    return _greedy(
        damage, sizes, budget, lambda now, then, size, step: (then - now) / size
    )


def _by_state(damage, sizes, budget, price, lower=None):
    "Greedy with price(costs, bits now, bits after, size); lower(costs, now): the next step."
    bits = {layer: max(costs) for layer, costs in damage.items()}
    lower = lower or (
        lambda costs, now: max((b for b in costs if b < now), default=None)
    )
    while sum(sizes[n] * bits[n] for n in bits) > budget:
        steps = {n: lower(damage[n], bits[n]) for n in bits}
        steps = {n: b for n, b in steps.items() if b is not None}
        if not steps:
            break
        layer = min(steps, key=lambda n: price(damage[n], bits[n], steps[n], sizes[n]))
        bits[layer] = steps[layer]
    return bits


@ex.choose_bits.slip("Divide by the bits *saved*, not by those that are left.")
def by_bits_left(damage, sizes, budget):
    price = lambda costs, now, then, size: (costs[then] - costs[now]) / (size * then)
    return _by_state(damage, sizes, budget, price)


@ex.choose_bits.slip("Divide by the bits *saved*, not by those that were there.")
def by_bits_before(damage, sizes, budget):
    price = lambda costs, now, then, size: (costs[then] - costs[now]) / (size * now)
    return _by_state(damage, sizes, budget, price)


@ex.choose_bits.slip(
    "The price is counted from the top: from where the layer is *now*."
)
def from_the_top(damage, sizes, budget):
    price = lambda costs, now, then, size: (
        (costs[then] - costs[max(costs)]) / (size * (max(costs) - then))
    )
    return _by_state(damage, sizes, budget, price)


@ex.choose_bits.slip(
    "The largest layer goes first, whatever it hurts: look at the damage."
)
def largest_first(damage, sizes, budget):
    return _by_state(damage, sizes, budget, lambda costs, now, then, size: -size)


@ex.choose_bits.slip(
    "The next lower step is the largest below, in whatever order `damage` lists them."
)
def listed_order(damage, sizes, budget):
    def following(costs, now):
        steps = list(costs)
        return next(iter(steps[steps.index(now) + 1 :]), None)

    price = lambda costs, now, then, size: (
        (costs[then] - costs[now]) / (size * (now - then))
    )
    return _by_state(damage, sizes, budget, price, following)


@ex.choose_bits.slip(
    "This is the best of all choices, found by trying them. Asked for are single steps, each the cheapest there is."
)
def exhaustive(damage, sizes, budget):
    fits = [
        choice
        for choice in itertools.product(*damage.values())
        if sum(sizes[n] * b for n, b in zip(damage, choice)) <= budget
    ]
    cost = lambda choice: sum(damage[n][b] for n, b in zip(damage, choice))
    return dict(zip(damage, min(fits, key=cost)))


@ex.choose_bits.slip(
    "Each layer goes down once per round: the cheapest step may be the same layer's again."
)
def once_a_round(damage, sizes, budget):
    bits = {layer: max(costs) for layer, costs in damage.items()}
    waiting = set(bits)
    while sum(sizes[n] * bits[n] for n in bits) > budget:
        steps = {
            n: max((b for b in damage[n] if b < bits[n]), default=None) for n in bits
        }
        steps = {n: b for n, b in steps.items() if b is not None}
        waiting = waiting & set(steps) or set(steps)
        price = lambda n: (
            (damage[n][steps[n]] - damage[n][bits[n]]) / sizes[n] / (bits[n] - steps[n])
        )
        layer = min(sorted(waiting), key=price)
        bits[layer] = steps[layer]
        waiting.discard(layer)
    return bits


@ex.choose_bits.slip("All layers go down together: one at a time, the cheapest.")
def all_together(damage, sizes, budget):
    bits = {layer: max(costs) for layer, costs in damage.items()}
    while sum(sizes[n] * bits[n] for n in bits) > budget:
        bits = {
            n: max((b for b in damage[n] if b < bits[n]), default=bits[n]) for n in bits
        }
    return bits


@ex.choose_bits.slip("It goes down to the fewest bits at once: one step at a time.")
def straight_to_the_bottom(damage, sizes, budget):
    price = lambda costs, now, then, size: (
        (costs[then] - costs[now]) / (size * (now - then))
    )
    return _by_state(
        damage,
        sizes,
        budget,
        price,
        lambda costs, now: min(costs) if now > min(costs) else None,
    )


@ex.choose_bits.slip(
    "The last layer is left out of the total: the sum is over all layers."
)
def last_layer_is_free(damage, sizes, budget):
    bits = {layer: max(costs) for layer, costs in damage.items()}
    while sum(sizes[n] * bits[n] for n in list(bits)[:-1]) > budget:
        total = sum(sizes[n] * bits[n] for n in bits)
        bits = quant.choose_bits(damage, sizes, total - 1)
    return bits


@ex.choose_bits.slip(
    "It empties one layer after the other: the cheapest step of all layers goes."
)
def layer_after_layer(damage, sizes, budget):
    bits = {layer: max(costs) for layer, costs in damage.items()}
    for layer, costs in damage.items():
        for step in sorted(costs, reverse=True):
            if sum(sizes[n] * bits[n] for n in bits) > budget:
                bits[layer] = step
    return bits


@ex.choose_bits.slip("It climbs from the fewest bits: all layers begin at their most.")
def from_below(damage, sizes, budget):
    bits = {layer: min(costs) for layer, costs in damage.items()}
    while True:
        room, steps = budget - sum(sizes[n] * bits[n] for n in bits), {}
        for n, costs in damage.items():
            step = min((b for b in costs if b > bits[n]), default=None)
            if step and sizes[n] * (step - bits[n]) <= room:
                gain = costs[bits[n]] - costs[step]
                steps[n] = gain / (sizes[n] * (step - bits[n])), step
        if not steps:
            return bits
        layer = max(steps, key=steps.get)
        bits[layer] = steps[layer][1]
