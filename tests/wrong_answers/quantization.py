import itertools

import numpy as np
import torch

from tests.wrong_answers import WrongAnswers
from utils import packed as packing
from utils import quant

wrong = WrongAnswers("quantization")


# ---- read_bits ----


@wrong("read_bits", says="makes no difference")
def never_negative(pattern, signed):
    return int(pattern, 2)


@wrong("read_bits", says="sign and magnitude")
def sign_and_size(pattern, signed):
    if signed and pattern[0] == "1":
        return -int(pattern[1:], 2)
    return int(pattern, 2)


@wrong("read_bits", says="one's complement")
def ones_complement(pattern, signed):
    value = int(pattern, 2)
    return value - 2 ** len(pattern) + 1 if signed and pattern[0] == "1" else value


@wrong("read_bits", says="moved by half")
def offset_code(pattern, signed):
    return int(pattern, 2) - (2 ** (len(pattern) - 1) if signed else 0)


@wrong("read_bits", says="wrong end")
def backwards(pattern, signed):
    return int(pattern[::-1], 2)


@wrong("read_bits", says="not a minus")
def always_signed(pattern, signed):
    return int(pattern, 2) - (2 ** len(pattern) if pattern[0] == "1" else 0)


@wrong("read_bits", says="A first bit alone is negative")
def minus_eight_stays(pattern, signed):
    n, half = int(pattern, 2), 2 ** (len(pattern) - 1)
    return n - 2 * half if signed and n > half else n


@wrong("read_bits", says="One bit is a first place as well")
def one_bit_has_no_sign(pattern, signed):
    n = int(pattern, 2)
    return (
        n - 2 ** len(pattern)
        if signed and len(pattern) > 1 and pattern[0] == "1"
        else n
    )


@wrong("read_bits", says="in whole numbers")
def float32_sum(pattern, signed):
    n = np.float32(int(pattern, 2))
    return n - 2.0 ** len(pattern) if signed and pattern[0] == "1" else n


@wrong("read_bits", says="It returns a text")
def text(pattern, signed):
    return str(int(pattern, 2))


# ---- quantize ----


def _byte(q, low):
    return q.to(torch.uint8 if low >= 0 else torch.int8)


@wrong("quantize", says="clips before the zero point")
def clips_first(x, scale, zero, low, high):
    return torch.round(x / scale).clamp(low, high) + zero


@wrong("quantize", says="byte then runs over")
def clips_first_in_a_byte(x, scale, zero, low, high):
    q = torch.round(x / scale).clamp(low, high) + zero
    return _byte(q.to(torch.int32), low)


@wrong("quantize", says="cuts the decimals off")
def truncates(x, scale, zero, low, high):
    return _byte(((x / scale).trunc() + zero).clamp(low, high), low)


@wrong("quantize", says="as a byte, 356 became 100")
def never_clips(x, scale, zero, low, high):
    return _byte((torch.round(x / scale) + zero).to(torch.int32), low)


@wrong("quantize", says="clip to low .. high")
def never_clips_int32(x, scale, zero, low, high):
    return (torch.round(x / scale) + zero).to(torch.int32)


@wrong("quantize", says="must land on `zero`")
def minus_zero(x, scale, zero, low, high):
    return _byte((torch.round(x / scale) - zero).clamp(low, high), low)


@wrong("quantize", says="multiplies by the scale")
def multiplies(x, scale, zero, low, high):
    return _byte((torch.round(x * scale) + zero).clamp(low, high), low)


@wrong("quantize", says="zero point is missing")
def no_zero(x, scale, zero, low, high):
    return _byte(torch.round(x / scale).clamp(low, high), low)


@wrong("quantize", says="torch.uint8")
def stays_float(x, scale, zero, low, high):
    return (torch.round(x / scale) + zero).clamp(low, high)


@wrong("quantize", says="torch.int8")
def always_unsigned(x, scale, zero, low, high):
    q = (torch.round(x / scale) + zero).clamp(low, high)
    return q.to(torch.uint8 if low >= 0 else torch.int16)


def _codes(x, scale, zero, low, high):
    return (torch.round(x / scale) + zero).clamp(low, high)


@wrong("quantize", says="255 became -1")
def always_int8(x, scale, zero, low, high):
    return _codes(x, scale, zero, low, high).to(torch.int32).to(torch.int8)


@wrong("quantize", says="-2 became 254")
def always_uint8(x, scale, zero, low, high):
    return _codes(x, scale, zero, low, high).to(torch.int32).to(torch.uint8)


@wrong("quantize", says="`low` decides")
def dtype_by_high(x, scale, zero, low, high):
    return _codes(x, scale, zero, low, high).to(
        torch.uint8 if high > 127 else torch.int8
    )


@wrong("quantize", says="look at `low`")
def dtype_by_zero(x, scale, zero, low, high):
    signed = zero == 0 and low < 0
    q = _codes(x, scale, zero, low, high).to(torch.int32)
    return q.to(torch.int8 if signed else torch.uint8)


@wrong("quantize", says="clip while they are floats")
def whole_before_clip(x, scale, zero, low, high):
    q = (torch.round(x / scale).to(torch.int32) + zero).clamp(low, high)
    return _byte(q, low)


# ---- affine ----


def _range(low, high):
    return min(low, 0.0), max(high, 0.0)


@wrong("affine", says="One step too many")
def all_patterns(low, high, bits=8):
    scale = (high - low) / 2**bits
    return scale, round(-low / scale)


@wrong("affine", says="symmetric grid")
def symmetric(low, high, bits=8):
    return max(-low, high) / (2 ** (bits - 1) - 1), 0


@wrong("affine", says="so 0 lies above")
def wrong_sign(low, high, bits=8):
    scale = (high - low) / (2**bits - 1)
    return scale, round(low / scale)


@wrong("affine", says="One off")
def one_off(low, high, bits=8):
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale) + 1


@wrong("affine", says="Not rounded")
def fractional_zero(low, high, bits=8):
    scale = (high - low) / (2**bits - 1)
    return scale, -low / scale


@wrong("affine", says="stretch it to 0")
def without_zero(low, high, bits=8):
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale)


@wrong("affine", says="ZeroDivisionError")
def no_silent_layer(low, high, bits=8):
    low, high = _range(low, high)
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale)


@wrong("affine", says="begins at 0")
def signed_codes(low, high, bits=8):
    low, high = _range(low, high)
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale) - 2 ** (bits - 1)


@wrong("affine", says="two things")
def scale_only(low, high, bits=8):
    return (high - low) / (2**bits - 1)


@wrong("affine", says="Rounded up always")
def rounds_up(low, high, bits=8):
    low, high = _range(low, high)
    if low == high:
        return 1.0, 0
    scale = (high - low) / (2**bits - 1)
    return scale, int(np.ceil(-low / scale))


@wrong("affine", says="stretch to 0 first")
def no_length_before_the_stretch(low, high, bits=8):
    return (1.0, 0) if low == high else quant.affine(low, high, bits)


@wrong("affine", says="A short range")
def short_is_nothing(low, high, bits=8):
    low, high = _range(low, high)
    return (1.0, 0) if high - low < 1e-6 else quant.affine(low, high, bits)


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


@wrong("best_scale", says="try every share")
def largest(x, bits, shares):
    return x.abs().max().item() / quant.top_of(bits)


@wrong("best_scale", says="finest grid")
def unclipped(x, bits, shares):
    return _choose(x, bits, shares, lambda e: (e**2).mean(), clip=False)


@wrong("best_scale", says="finest grid")
def worst(x, bits, shares):
    return _choose(x, bits, shares, lambda e: (e**2).mean(), pick=max)


@wrong("best_scale", says="largest error")
def by_the_maximum(x, bits, shares):
    return _choose(x, bits, shares, lambda e: e.abs().max())


@wrong("best_scale", says="This is the share")
def returns_share(x, bits, shares):
    scale = _choose(x, bits, shares, lambda e: (e**2).mean())
    return scale * quant.top_of(bits) / x.abs().max().item()


@wrong("best_scale", says="largest |x| counts")
def positive_end(x, bits, shares):
    return _choose(x, bits, shares, lambda e: (e**2).mean(), size=x.max().item())


@wrong("best_scale", says="one mark too many below")
def one_mark_more(x, bits, shares):
    top, found = quant.top_of(bits), []
    for share in shares:
        s = share * x.abs().max().item() / top
        q = torch.round(x / s).clamp(-top - 1, top)
        found.append((((s * q - x) ** 2).mean().item(), s))
    return min(found)[1]


@wrong("best_scale", says="stops where the error first rises")
def stops_early(x, bits, shares):
    top, best = quant.top_of(bits), None
    for share in shares:
        s = share * x.abs().max().item() / top
        error = ((s * torch.round(x / s).clamp(-top, top) - x) ** 2).mean().item()
        if best is not None and error > best[0]:
            break
        best = error, s
    return best[1]


@wrong("best_scale", says="raised")
def for_lists_only(x, bits, shares):
    return _choose(x, bits, shares, lambda e: sum(e**2) / len(e))


# ---- group_quantize ----


def _grouped(W_HD, group, bits, size):
    "With scales size(pieces (H, G, group)) / top."
    H, D = W_HD.shape
    pieces, top = W_HD.reshape(H, D // group, group), quant.top_of(bits)
    scale = size(pieces) / top
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    q = quant.quantize(pieces, scale[..., None], 0, -top, top)
    return q.reshape(H, D), scale


@wrong("group_quantize", says="One scale for the whole matrix")
def per_tensor(W_HD, group, bits):
    whole = lambda p: p.abs().max().expand(p.shape[:2])
    return _grouped(W_HD, group, bits, whole)


@wrong("group_quantize", says="for each column of groups")
def wrong_axis(W_HD, group, bits):
    columns = lambda p: p.abs().amax((0, 2)).expand(p.shape[:2])
    return _grouped(W_HD, group, bits, columns)


@wrong("group_quantize", says="a group may be negative")
def forgets_abs(W_HD, group, bits):
    return _grouped(W_HD, group, bits, lambda p: p.amax(-1))


@wrong("group_quantize", says="largest weight gets the last mark")
def half_the_patterns(W_HD, group, bits):
    top = quant.top_of(bits)
    return _grouped(W_HD, group, bits, lambda p: p.abs().amax(-1) * top / (top + 1))


@wrong("group_quantize", says="repeat_interleave")
def repeats(W_HD, group, bits):
    q, scale = quant.group_quantize(W_HD, group, bits)
    q = torch.round(W_HD / scale.repeat(1, group)).to(torch.int8)
    return q, scale


@wrong("group_quantize", says="of zeros has no size")
def keeps_scale_zero(W_HD, group, bits):
    q, scale = quant.group_quantize(W_HD, group, bits)
    size = W_HD.reshape(len(W_HD), -1, group).abs().amax(-1) / quant.top_of(bits)
    return q, size


@wrong("group_quantize", says="should be int8")
def float_codes(W_HD, group, bits):
    q, scale = quant.group_quantize(W_HD, group, bits)
    return q.float(), scale


@wrong("group_quantize", says="two things")
def weights_back(W_HD, group, bits):
    return quant.rounded(W_HD, bits, group)


def _where_empty(W_HD, group, bits, empty):
    "The right codes, and 1 as scale where `empty(pieces)` (H, G) says so."
    pieces, top = W_HD.reshape(len(W_HD), -1, group), quant.top_of(bits)
    scale = torch.where(empty(pieces), 1.0, pieces.abs().amax(-1) / top)
    q = torch.round(pieces / scale[..., None]).clamp(-top, top).to(torch.int8)
    return q.reshape(W_HD.shape), scale


@wrong("group_quantize", says="though its row has")
def only_empty_rows(W_HD, group, bits):
    rows = lambda p: (p == 0).all(2).all(1, keepdim=True).expand(p.shape[:2])
    return _where_empty(W_HD, group, bits, rows)


@wrong("group_quantize", says="One zero among its weights")
def one_zero_is_enough(W_HD, group, bits):
    return _where_empty(W_HD, group, bits, lambda p: (p == 0).any(2))


@wrong("group_quantize", says="Tiny weights need a tiny scale")
def tiny_is_empty(W_HD, group, bits):
    return _where_empty(W_HD, group, bits, lambda p: p.abs().amax(-1) < 1e-3)


@wrong("group_quantize", says="torch.float32 tensor")
def double_scales(W_HD, group, bits):
    q, scale = quant.group_quantize(W_HD.double(), group, bits)
    return q, scale


# ---- quantized_matmul ----


def _terms(a, b, product):
    rows = a.sum(1, keepdim=True, dtype=torch.int32)
    columns = b.sum(0, keepdim=True, dtype=torch.int32)
    return product(a, b), rows, columns, a.shape[1]


@wrong("quantized_matmul", says="bare product")
def no_correction(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    return product(a_BD, b_DH)


@wrong("quantized_matmul", says="are swapped")
def swapped(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    p, rows, columns, D = _terms(a_BD, b_DH, product)
    return p - b_zero * columns - a_zero * rows + D * a_zero * b_zero


@wrong("quantized_matmul", says="D times")
def last_term_once(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    p, rows, columns, _ = _terms(a_BD, b_DH, product)
    return p - a_zero * columns - b_zero * rows + a_zero * b_zero


@wrong("quantized_matmul", says="last term is missing")
def without_last_term(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    p, rows, columns, _ = _terms(a_BD, b_DH, product)
    return p - a_zero * columns - b_zero * rows


@wrong("quantized_matmul", says="needs nine")
def subtracts_first(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    return product(a_BD.to(torch.int16) - a_zero, b_DH.to(torch.int16) - b_zero)


@wrong("quantized_matmul", says="not with `product`")
def wide_numbers(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    return (a_BD.to(torch.int32) - a_zero) @ (b_DH.to(torch.int32) - b_zero)


@wrong("quantized_matmul", says="no float on the way")
def through_floats(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    p, rows, columns, D = _terms(a_BD, b_DH, product)
    return p.float() - a_zero * columns - b_zero * rows + D * a_zero * b_zero


@wrong("quantized_matmul", says="ran over its 8 or 16 bits")
def sums_in_a_byte(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    rows = a_BD.sum(1, keepdim=True, dtype=torch.int32)
    columns = b_DH.sum(0, keepdim=True, dtype=torch.int16)
    p = product(a_BD, b_DH) - (a_zero * columns).to(torch.int16)
    return p - b_zero * rows + a_BD.shape[1] * a_zero * b_zero


@wrong("quantized_matmul", says="not a fixed 7")
def seven_inputs(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    p, rows, columns, _ = _terms(a_BD, b_DH, product)
    return p - a_zero * columns - b_zero * rows + 7 * a_zero * b_zero


@wrong("quantized_matmul", says="through float32")
def float_in_the_middle(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    p, rows, columns, D = _terms(a_BD, b_DH, product)
    sums = p.float() - a_zero * columns - b_zero * rows + D * a_zero * b_zero
    return sums.to(torch.int32)


@wrong("quantized_matmul", says="ran over its 8 or 16 bits")
def rows_in_16_bits(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    p, _, columns, D = _terms(a_BD, b_DH, product)
    rows = a_BD.sum(1, keepdim=True, dtype=torch.int16)
    return p - a_zero * columns - (b_zero * rows.int()) + D * a_zero * b_zero


@wrong("quantized_matmul", says="sums bytes in int64")
def int64_sums(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    rows, columns = a_BD.sum(1, keepdim=True), b_DH.sum(0, keepdim=True)
    both = a_BD.shape[1] * a_zero * b_zero
    return product(a_BD, b_DH) - a_zero * columns - b_zero * rows + both


@wrong("quantized_matmul", says="its result is not used")
def product_thrown_away(a_BD, a_zero, b_DH, b_zero, product=quant.int_matmul):
    product(a_BD, b_DH)
    return (a_BD.to(torch.int32) - a_zero) @ (b_DH.to(torch.int32) - b_zero)


# ---- Observer ----


class _Base:
    def __init__(self):
        self.low, self.high = 0.0, 0.0

    def see(self, x):
        self.low = min(self.low, x.min().item())
        self.high = max(self.high, x.max().item())

    def affine(self, bits=8):
        return quant.affine(self.low, self.high, bits)


@wrong("Observer", says="last batch only")
class LastBatch(_Base):
    def see(self, x):
        self.low, self.high = x.min().item(), x.max().item()


@wrong("Observer", says="lower end is lost")
class OnlyHigh(_Base):
    def see(self, x):
        self.high = max(self.high, x.max().item())


@wrong("Observer", says="averaged over the batches")
class Averages(_Base):
    def __init__(self):
        self.lows, self.highs = [], []

    def see(self, x):
        self.lows.append(min(0, x.min().item()))
        self.highs.append(x.max().item())

    def affine(self, bits=8):
        return quant.affine(np.mean(self.lows), np.mean(self.highs), bits)


@wrong("Observer", says="share a memory")
class Shared(_Base):
    low, high = 0.0, 0.0

    def __init__(self):
        pass

    def see(self, x):
        Shared.low = min(Shared.low, x.min().item())
        Shared.high = max(Shared.high, x.max().item())


@wrong("Observer", says="passed on")
class AlwaysEight(_Base):
    def affine(self, bits=8):
        return quant.affine(self.low, self.high, 8)


@wrong("Observer", says="0 belongs to every range")
class WithoutZero(_Base):
    def __init__(self):
        self.low, self.high = float("inf"), float("-inf")

    def affine(self, bits=8):
        scale = (self.high - self.low) / (2**bits - 1)
        return scale, round(-self.low / scale)


@wrong("Observer", says="no method `affine`")
class NoAffine:
    def see(self, x):
        pass


@wrong("Observer", says="two `if`s")
class IfElif(_Base):
    def see(self, x):
        if x.min() < self.low:
            self.low = x.min().item()
        elif x.max() > self.high:
            self.high = x.max().item()


@wrong("Observer", says="It noted tensors")
class KeepsTensors(_Base):
    def see(self, x):
        self.low, self.high = min(self.low, x.min()), max(self.high, x.max())

    def affine(self, bits=8):
        scale = (self.high - self.low) / (2**bits - 1)
        return scale, round(-self.low / scale)


@wrong("Observer", says="made symmetric")
class Symmetric(_Base):
    def see(self, x):
        self.high = max(self.high, x.abs().max().item())
        self.low = -self.high


@wrong("Observer", says="asking changes nothing")
class Forgets(_Base):
    def affine(self, bits=8):
        answer = quant.affine(self.low, self.high, bits)
        self.low = self.high = 0.0
        return answer


# ---- pack_int4 ----


def _even(q):
    q = q.to(torch.int16)
    return torch.cat([q, q.new_zeros(len(q) % 2)])


@wrong("pack_int4", says="spilled over its neighbour")
def signed_packing(q_N):
    n = _even(q_N)
    return (n[0::2] | n[1::2] << 4).to(torch.uint8)


@wrong("pack_int4", says="halves are swapped")
def swapped_halves(q_N):
    n = _even(q_N) & 15
    return (n[0::2] << 4 | n[1::2]).to(torch.uint8)


@wrong("pack_int4", says="pair neighbours")
def first_with_second_half(q_N):
    n = _even(q_N) & 15
    half = len(n) // 2
    return (n[:half] | n[half:] << 4).to(torch.uint8)


@wrong("pack_int4", says="moved up by 8")
def offset_packing(q_N):
    n = _even(q_N) + 8
    return (n[0::2] | n[1::2] << 4).to(torch.uint8)


@wrong("pack_int4", says="sign is lost")
def sizes_only(q_N):
    n = _even(q_N).abs() & 15
    return (n[0::2] | n[1::2] << 4).to(torch.uint8)


@wrong("pack_int4", says="One number a byte")
def one_a_byte(q_N):
    return (q_N.to(torch.int16) & 15).to(torch.uint8)


@wrong("pack_int4", says="no neighbour")
def even_only(q_N):
    n = q_N.to(torch.int16) & 15
    return (n[0::2] | n[1::2] << 4).to(torch.uint8)


@wrong("pack_int4", says="Bytes are torch.uint8")
def wide_bytes(q_N):
    n = _even(q_N) & 15
    return n[0::2] | n[1::2] << 4


@wrong("pack_int4", says="no bytes")
def at_least_one_byte(q_N):
    return packing.pack_int4(q_N if len(q_N) else torch.zeros(1, dtype=torch.int8))


# ---- unpack_int4 ----


def _halves(packed):
    return torch.stack([packed & 15, packed >> 4], 1).reshape(-1).to(torch.int16)


@wrong("unpack_int4", says="sign is lost")
def no_sign(packed, count):
    return _halves(packed)[:count].to(torch.int8)


@wrong("unpack_int4", says="lower half comes first")
def upper_first(packed, count):
    n = torch.stack([packed >> 4, packed & 15], 1).reshape(-1)[:count].to(torch.int16)
    return torch.where(n > 7, n - 16, n).to(torch.int8)


@wrong("unpack_int4", says="offset code")
def minus_eight(packed, count):
    return (_halves(packed)[:count] - 8).to(torch.int8)


@wrong("unpack_int4", says="they alternate")
def not_interleaved(packed, count):
    n = torch.cat([packed & 15, packed >> 4])[:count].to(torch.int16)
    return torch.where(n > 7, n - 16, n).to(torch.int8)


@wrong("unpack_int4", says="8 became +8")
def eight_is_positive(packed, count):
    n = _halves(packed)[:count]
    return torch.where(n > 8, n - 16, n).to(torch.int8)


@wrong("unpack_int4", says="where to stop")
def ignores_count(packed, count):
    n = _halves(packed)
    return torch.where(n > 7, n - 16, n).to(torch.int8)


@wrong("unpack_int4", says="torch.int8")
def unsigned_bytes(packed, count):
    n = _halves(packed)[:count]
    return torch.where(n > 7, n - 16, n)


@wrong("unpack_int4", says="always drops the last")
def drops_the_last(packed, count):
    return packing.unpack_int4(packed, 2 * len(packed))[:-1]


# ---- fake_quantize ----


@wrong("fake_quantize", says="round() is flat")
def plain_rounding(x, scale, top):
    return scale * (x / scale).clamp(-top, top).round()


@wrong("fake_quantize", says="clipped value passes its slope on")
def slope_everywhere(x, scale, top):
    fake = scale * (x / scale).clamp(-top, top).round()
    return x + (fake - x).detach()


@wrong("fake_quantize", says="No slope gets through")
def detached(x, scale, top):
    return (scale * (x / scale).clamp(-top, top).round()).detach()


@wrong("fake_quantize", says="forward must be the grid")
def unrounded(x, scale, top):
    return scale * (x / scale).clamp(-top, top)


@wrong("fake_quantize", says="multiply by the scale again")
def whole_numbers(x, scale, top):
    steps = (x / scale).clamp(-top, top)
    return steps + (steps.round() - steps).detach()


@wrong("fake_quantize", says="does not stop at top")
def without_clipping(x, scale, top):
    steps = x / scale
    return scale * (steps + (steps.round() - steps).detach())


@wrong("fake_quantize", says="The ends belong to the grid")
def strict_ends(x, scale, top):
    inside = (x.detach().abs() < top * scale).float()
    fake = scale * (x / scale).clamp(-top, top).round()
    return x * inside + (fake - x * inside).detach()


@wrong("fake_quantize", says="the slope is the same")
def tensor_scale_without_slope(x, scale, top):
    if torch.is_tensor(scale):
        return (x / scale).round().clamp(-top, top) * scale
    steps = (x / scale).clamp(-top, top)
    return scale * (steps + (steps.round() - steps).detach())


@wrong("fake_quantize", says="not at -top - 1")
def one_mark_below(x, scale, top):
    steps = (x / scale).clamp(-top - 1, top)
    return scale * (steps + (steps.round() - steps).detach())


@wrong("fake_quantize", says="cuts the decimals off")
def truncated(x, scale, top):
    steps = (x / scale).clamp(-top, top)
    return scale * (steps + (steps.trunc() - steps).detach())


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


@wrong("compensate", says="was not passed on")
def nearest(W_HD, C_DD, scale_HD, top):
    return quant.quantize(W_HD, scale_HD, 0, -top, top)


@wrong("compensate", says="was not passed on")
def wrong_way(W_HD, C_DD, scale_HD, top):
    return _fix(W_HD, C_DD, scale_HD, top, torch.linalg.solve, sign=-1)


@wrong("compensate", says="without asking C")
def evenly(W_HD, C_DD, scale_HD, top):
    return _fix(W_HD, C_DD, scale_HD, top, lambda C, c: torch.ones_like(c) / len(c))


@wrong("compensate", says="Only the next column")
def only_the_next(W_HD, C_DD, scale_HD, top):
    def share(C, c):
        r = torch.zeros_like(c)
        r[0] = c[0] / C[0, 0]
        return r

    return _fix(W_HD, C_DD, scale_HD, top, share)


@wrong("compensate", says="also imitate each other")
def diagonal_only(W_HD, C_DD, scale_HD, top):
    return _fix(W_HD, C_DD, scale_HD, top, lambda C, c: c / C.diagonal())


@wrong("compensate", says="first weights")
def stale_error(W_HD, C_DD, scale_HD, top):
    W, q_HD = W_HD.clone(), torch.empty_like(W_HD, dtype=torch.int8)
    for d in range(W.shape[1]):
        q_HD[:, d] = quant.quantize(W[:, d], scale_HD[:, d], 0, -top, top)
        error_H = W_HD[:, d] - scale_HD[:, d] * q_HD[:, d]
        if d + 1 < W.shape[1]:
            r = torch.linalg.solve(C_DD[d + 1 :, d + 1 :], C_DD[d + 1 :, d])
            W[:, d + 1 :] += error_H[:, None] * r
    return q_HD


@wrong("compensate", says="changes its input in place")
def in_place(W_HD, C_DD, scale_HD, top):
    q_HD = quant.compensate(W_HD, C_DD, scale_HD, top)
    W_HD += 1
    return q_HD


@wrong("compensate", says="Return the whole numbers")
def float_answer(W_HD, C_DD, scale_HD, top):
    return quant.compensate(W_HD, C_DD, scale_HD, top).float()


@wrong("compensate", says="from left to right")
def from_the_right(W_HD, C_DD, scale_HD, top):
    q = quant.compensate(W_HD.flip(1), C_DD.flip(0, 1), scale_HD.flip(1), top)
    return q.flip(1)


@wrong("compensate", says="column d has scale_HD[:, d]")
def first_scale(W_HD, C_DD, scale_HD, top):
    return quant.compensate(W_HD, C_DD, scale_HD[:, :1].expand_as(W_HD), top)


@wrong("compensate", says="Not their mean")
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


@wrong("compensate", says="that was clipped has an error")
def clipping_is_free(W_HD, C_DD, scale_HD, top):
    return _columns(W_HD, C_DD, scale_HD, top, back=lambda steps, q: steps)


@wrong("compensate", says="not at -top - 1")
def one_more_mark(W_HD, C_DD, scale_HD, top):
    return _columns(W_HD, C_DD, scale_HD, top, low=-top - 1)


@wrong("compensate", says="the first to the last")
def skips_the_last(W_HD, C_DD, scale_HD, top):
    q_HD = _columns(W_HD, C_DD, scale_HD, top)
    q_HD[:, -1] = 0
    return q_HD


@wrong("compensate", says="the first to the last")
def rows_instead_of_columns(W_HD, C_DD, scale_HD, top):
    q_HD = _columns(W_HD, C_DD, scale_HD, top)
    q_HD[:, len(W_HD) :] = 0
    return q_HD


# ---- codebook ----


def _means(w_N, values, codes, k, middle=torch.mean):
    mine = [w_N[codes == j] for j in range(k)]
    return torch.stack([middle(m) if len(m) else v for m, v in zip(mine, values)])


def _nearest(w_N, values):
    return (w_N[:, None] - values).abs().argmin(1)


def _even_values(w_N, k):
    return torch.linspace(w_N.min().item(), w_N.max().item(), k)


@wrong("codebook", says="still evenly spaced")
def never_moves(w_N, k, rounds):
    values = _even_values(w_N, k)
    return values, _nearest(w_N, values)


@wrong("codebook", says="quantiles")
def quantiles(w_N, k, rounds):
    values = torch.quantile(w_N, torch.linspace(0, 1, k))
    return values, _nearest(w_N, values)


@wrong("codebook", says="nan or inf")
def empty_means(w_N, k, rounds):
    values = _even_values(w_N, k)
    for _ in range(rounds):
        codes = _nearest(w_N, values)
        count = torch.bincount(codes, minlength=k)
        values = torch.zeros(k).index_add_(0, codes, w_N) / count
    return values, _nearest(w_N, values)


@wrong("codebook", says="choose again at the end")
def stale_codes(w_N, k, rounds):
    values, _ = quant.codebook(w_N, k, rounds)
    return values, _nearest(w_N, _even_values(w_N, k))


@wrong("codebook", says="number of a value")
def values_for_codes(w_N, k, rounds):
    values, codes = quant.codebook(w_N, k, rounds)
    return values, values[codes]


@wrong("codebook", says="medians")
def medians(w_N, k, rounds):
    values = _even_values(w_N, k)
    middle = lambda m: m.quantile(0.5)
    values = _means(w_N, values, _nearest(w_N, values), k, middle)
    return values, _nearest(w_N, values)


@wrong("codebook", says="empty one stays")
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


@wrong("codebook", says="choose once more after")
def no_last_choice(w_N, k, rounds):
    return _rounds(w_N, k, rounds, last=False)


@wrong("codebook", says="`rounds` says how")
def one_round_more(w_N, k, rounds):
    return _rounds(w_N, k, rounds + 1)


@wrong("codebook", says="after 20 rounds")
def always_twenty(w_N, k, rounds):
    return _rounds(w_N, k, 20)


@wrong("codebook", says="after 2 rounds")
def always_two(w_N, k, rounds):
    return _rounds(w_N, k, 2)


@wrong("codebook", says="after 3 rounds")
def three_at_most(w_N, k, rounds):
    return _rounds(w_N, k, min(rounds, 3))


@wrong("codebook", says="the last as well")
def last_never_moves(w_N, k, rounds):
    return _rounds(w_N, k, rounds, moving=k - 1)


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


@wrong("choose_bits", says="size * (bits now - bits after)")
def damage_alone(damage, sizes, budget):
    return _greedy(damage, sizes, budget, lambda now, then, size, step: then - now)


@wrong("choose_bits", says="size * (bits now - bits after)")
def sizes_forgotten(damage, sizes, budget):
    price = lambda now, then, size, step: (then - now) / step
    return _greedy(damage, sizes, budget, price)


@wrong("choose_bits", says="minus the damage now")
def whole_damage(damage, sizes, budget):
    price = lambda now, then, size, step: then / (size * step)
    return _greedy(damage, sizes, budget, price)


@wrong("choose_bits", says="The one that hurts most")
def most_harmful(damage, sizes, budget):
    price = lambda now, then, size, step: -(then - now) / (size * step)
    return _greedy(damage, sizes, budget, price)


@wrong("choose_bits", says="equal to the budget fits")
def too_strict(damage, sizes, budget):
    price = lambda now, then, size, step: (then - now) / (size * step)
    return _greedy(damage, sizes, budget, price, lambda total, b: total >= b)


@wrong("choose_bits", says="{layer: bits}")
def a_list(damage, sizes, budget):
    return list(quant.choose_bits(damage, sizes, budget).values())


@wrong("choose_bits", says="raised KeyError")
def fixed_steps(damage, sizes, budget):
    bits = {layer: 8 for layer in damage}
    while sum(sizes[n] * bits[n] for n in bits) > budget:
        price = lambda n: (
            (damage[n][bits[n] // 2] - damage[n][bits[n]]) / sizes[n] / (bits[n] // 2)
            if bits[n] > 2
            else float("inf")
        )
        bits[min(bits, key=price)] //= 2
    return bits


@wrong("choose_bits", says="the step counts, too")
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


@wrong("choose_bits", says="not by those that are left")
def by_bits_left(damage, sizes, budget):
    price = lambda costs, now, then, size: (costs[then] - costs[now]) / (size * then)
    return _by_state(damage, sizes, budget, price)


@wrong("choose_bits", says="not by those that were there")
def by_bits_before(damage, sizes, budget):
    price = lambda costs, now, then, size: (costs[then] - costs[now]) / (size * now)
    return _by_state(damage, sizes, budget, price)


@wrong("choose_bits", says="counted from the top")
def from_the_top(damage, sizes, budget):
    price = lambda costs, now, then, size: (
        (costs[then] - costs[max(costs)]) / (size * (max(costs) - then))
    )
    return _by_state(damage, sizes, budget, price)


@wrong("choose_bits", says="The largest layer goes first")
def largest_first(damage, sizes, budget):
    return _by_state(damage, sizes, budget, lambda costs, now, then, size: -size)


@wrong("choose_bits", says="in whatever order")
def listed_order(damage, sizes, budget):
    def following(costs, now):
        steps = list(costs)
        return next(iter(steps[steps.index(now) + 1 :]), None)

    price = lambda costs, now, then, size: (
        (costs[then] - costs[now]) / (size * (now - then))
    )
    return _by_state(damage, sizes, budget, price, following)


@wrong("choose_bits", says="best of all choices")
def exhaustive(damage, sizes, budget):
    fits = [
        choice
        for choice in itertools.product(*damage.values())
        if sum(sizes[n] * b for n, b in zip(damage, choice)) <= budget
    ]
    cost = lambda choice: sum(damage[n][b] for n, b in zip(damage, choice))
    return dict(zip(damage, min(fits, key=cost)))
