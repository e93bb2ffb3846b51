"Chapter 20: small wrong programs, each with the sentence that names it."

import torch
import torch.nn.functional as F
from torch import distributed as dist

from utils.built import thin as course
from utils.checks import thin_wires as ex

# ---- talk_seconds ----


@ex.talk_seconds.slip("A ring sends twice: once to sum, once to share out.")
def half_an_all_reduce(call, n, size, rate):
    return (n - 1) / n * size / rate if call == "all_reduce" else (n - 1) * size / rate


@ex.talk_seconds.slip(
    "An all_gather's messages are not cut into n parts: each of n - 1 travels whole."
)
def gather_in_parts(call, n, size, rate):
    return (2 if call == "all_reduce" else 1) * (n - 1) / n * size / rate


@ex.talk_seconds.slip(
    "A ring's chunks are an n-th each: 2 (n - 1) of them are nearly two messages, "
    "however many ranks there are."
)
def whole_messages(call, n, size, rate):
    return (2 if call == "all_reduce" else 1) * (n - 1) * size / rate


@ex.talk_seconds.slip("The rate is in bytes already: no factor of 8.")
def in_bits(call, n, size, rate):
    return 8 * course.talk_seconds(call, n, size, rate)


@ex.talk_seconds.slip("A rank does not send to itself: n - 1, not n.")
def to_itself_as_well(call, n, size, rate):
    if call == "all_gather":
        return n * size / rate
    return course.talk_seconds(call, n, size, rate)


@ex.talk_seconds.slip("`size // n` loses what n does not divide: size / n.")
def whole_chunks(call, n, size, rate):
    chunk = size // n
    return 2 * (n - 1) * chunk / rate if call == "all_reduce" else (n - 1) * size / rate


# ---- quantise ----


def _round(v_P, bits, scale, generator):
    top = 2 ** (bits - 1) - 1
    draws_P = torch.rand(v_P.shape, generator=generator, dtype=v_P.dtype)
    return torch.floor(v_P / scale + draws_P).clamp(-top, top).to(torch.int8)


def _safe(v_P, bits):
    top = 2 ** (bits - 1) - 1
    return v_P.abs().max().clamp(min=1e-30) / top


@ex.quantise.slip(
    "This rounds to the nearest: what is below half a step is 0 on every rank, for ever. "
    "Up with a chance equal to the fraction."
)
def to_the_nearest(v_P, bits, generator=None):
    scale = _safe(v_P, bits)
    return (v_P / scale).round().to(torch.int8), scale


@ex.quantise.slip(
    "int8 cuts off towards zero, so that every number loses: floor(number + draw)."
)
def cuts_off(v_P, bits, generator=None):
    scale = _safe(v_P, bits)
    return (v_P / scale).to(torch.int8), scale


@ex.quantise.slip(
    "One draw for the whole vector: all numbers round up together. torch.rand(v_P.shape)."
)
def one_draw(v_P, bits, generator=None):
    scale = _safe(v_P, bits)
    draw = torch.rand(1, generator=generator, dtype=v_P.dtype)
    top = 2 ** (bits - 1) - 1
    return torch.floor(v_P / scale + draw).clamp(-top, top).to(torch.int8), scale


@ex.quantise.slip("The sign takes one of the bits: top is 2**(bits - 1) - 1.")
def forgets_the_sign_bit(v_P, bits, generator=None):
    scale = v_P.abs().max().clamp(min=1e-30) / (2**bits - 1)
    draws_P = torch.rand(v_P.shape, generator=generator, dtype=v_P.dtype)
    return torch.floor(v_P / scale + draws_P).to(torch.int8), scale


@ex.quantise.slip(
    "One code too many: 2**(bits - 1) - 1, so that both signs reach alike."
)
def one_too_many(v_P, bits, generator=None):
    scale = v_P.abs().max().clamp(min=1e-30) / 2 ** (bits - 1)
    return _round(v_P, bits, scale, generator), scale


@ex.quantise.slip(
    "The scale is of the largest |x|: a large negative number counts too."
)
def largest_with_sign(v_P, bits, generator=None):
    scale = v_P.max().clamp(min=1e-30) / (2 ** (bits - 1) - 1)
    draws_P = torch.rand(v_P.shape, generator=generator, dtype=v_P.dtype)
    return torch.floor(v_P / scale + draws_P).to(torch.int8), scale


@ex.quantise.slip(
    "The sign is lost: q goes from -top to top, so quantise v_P itself, not its size."
)
def without_sign(v_P, bits, generator=None):
    scale = _safe(v_P, bits)
    return _round(v_P.abs(), bits, scale, generator), scale


@ex.quantise.slip(
    "The draws are not from `generator`: torch.rand(..., generator=generator)."
)
def draws_of_its_own(v_P, bits, generator=None):
    scale = _safe(v_P, bits)
    return _round(v_P, bits, scale, None), scale


@ex.quantise.slip("q travels as int8: a float takes four bytes, whatever stands in it.")
def as_floats(v_P, bits, generator=None):
    q_P, scale = course.quantise(v_P, bits, generator)
    return q_P.float(), scale


@ex.quantise.slip("A cast cuts towards 0, and below 0 that is up: floor first.")
def casts_the_sum(v_P, bits, generator=None):
    scale = _safe(v_P, bits)
    draws_P = torch.rand(v_P.shape, generator=generator, dtype=v_P.dtype)
    return (v_P / scale + draws_P).to(torch.int8), scale


def _turned(v_P, bits, scale, generator):
    x_P = v_P / scale
    draws_P = torch.rand(v_P.shape, generator=generator, dtype=v_P.dtype)
    return x_P.floor() + (draws_P > x_P - x_P.floor())


@ex.quantise.slip(
    "The chance is turned round: up where the draw is below the fraction."
)
def chance_turned_round(v_P, bits, generator=None):
    scale = _safe(v_P, bits)
    return _turned(v_P, bits, scale, generator).to(torch.int8), scale


@ex.quantise.slip(
    "The chance is turned round: up where the draw is below the fraction."
)
def chance_turned_round_and_cut(v_P, bits, generator=None):
    scale, top = _safe(v_P, bits), 2 ** (bits - 1) - 1
    q_P = _turned(v_P, bits, scale, generator).clamp(-top, top)
    return q_P.to(torch.int8), scale


# ---- pack_bits ----


@ex.pack_bits.slip("The first bit is in the highest place: here it is worth 1.")
def highest_first(bits_P):
    bits = F.pad(bits_P.to(torch.uint8), (0, -len(bits_P) % 8)).view(-1, 8)
    places = torch.arange(7, -1, -1, dtype=torch.uint8)
    return (bits << places).sum(1, dtype=torch.uint8)


@ex.pack_bits.slip("One byte per bit: these are still 8 times as many bytes.")
def bytes_as_bits(bits_P):
    return bits_P.to(torch.uint8)


@ex.pack_bits.slip("The bits after the last full byte are lost.")
def drops_the_rest(bits_P):
    return course.pack_bits(bits_P[: len(bits_P) // 8 * 8])


@ex.pack_bits.slip(
    "A byte too many where P is a multiple of 8: fill up with -P % 8 zeros."
)
def one_byte_more(bits_P):
    bits = F.pad(bits_P.to(torch.uint8), (0, 8 - len(bits_P) % 8)).view(-1, 8)
    places = torch.arange(8, dtype=torch.uint8)
    return (bits << places).sum(1, dtype=torch.uint8)


@ex.pack_bits.slip(
    "The right numbers in int64, 8 bytes each: sum with dtype=torch.uint8."
)
def in_eight_bytes(bits_P):
    return course.pack_bits(bits_P).long()


@ex.pack_bits.slip("The zeros that fill up belong at the end, not at the beginning.")
def fills_in_front(bits_P):
    front = torch.zeros(-len(bits_P) % 8, dtype=torch.bool)
    return course.pack_bits(torch.cat([front, bits_P]))


# ---- half_hook ----


def _hook(bucket, before, after):
    flat = bucket.buffer()
    half = before(flat)
    work = dist.all_reduce(half, async_op=True)
    return work.get_future().then(lambda _: flat.copy_(after(half)))


@ex.half_hook.slip(
    "float16 ends at 65,504: the sum runs over before it is divided. Divide first."
)
def divides_after(state, bucket):
    n = dist.get_world_size()
    return _hook(bucket, lambda x: x.half(), lambda x: x / n)


@ex.half_hook.slip("This is the sum: divide by dist.get_world_size().")
def sums_only(state, bucket):
    return _hook(bucket, lambda x: x.half(), lambda x: x)


@ex.half_hook.slip(
    "Divided twice: DDP leaves it to the hook, and the hook does it once."
)
def divides_twice(state, bucket):
    n = dist.get_world_size()
    return _hook(bucket, lambda x: (x / n).half(), lambda x: x / n)


@ex.half_hook.slip("It still travels in float32: .half() before the all_reduce.")
def full_width(state, bucket):
    n = dist.get_world_size()
    return _hook(bucket, lambda x: x / n, lambda x: x)


@ex.half_hook.slip(
    "A tensor, and DDP wants a promise: return work.get_future().then(f)."
)
def returns_the_tensor(state, bucket):
    half = (bucket.buffer() / dist.get_world_size()).half()
    dist.all_reduce(half)
    return bucket.buffer().copy_(half)


@ex.half_hook.slip("The result is still float16, and DDP's bucket is float32.")
def leaves_it_half(state, bucket):
    half = (bucket.buffer() / dist.get_world_size()).half()
    work = dist.all_reduce(half, async_op=True)
    return work.get_future().then(lambda _: half)


@ex.half_hook.slip(
    "A work's future holds a list of tensors; DDP wants the tensor: "
    ".then(lambda future: future.value()[0]) or the like."
)
def a_list_in_it(state, bucket):
    half = (bucket.buffer() / dist.get_world_size()).half()
    return dist.all_reduce(half, async_op=True).get_future()


@ex.half_hook.slip("Nothing travels: each rank keeps its own gradient.")
def says_nothing(state, bucket):
    future = torch.futures.Future()
    future.set_result(bucket.buffer().half().float())
    return future


@ex.half_hook.slip(
    "The result is float32, and this bucket is not: flat.copy_(half) keeps "
    "the buffer's dtype."
)
def always_float32(state, bucket):
    half = (bucket.buffer() / dist.get_world_size()).half()
    work = dist.all_reduce(half, async_op=True)
    return work.get_future().then(lambda _: half.float())


@ex.half_hook.slip(
    "Without async_op=True backward stands still in this call, and the promise is empty."
)
def ready_made(state, bucket):
    half = (bucket.buffer() / dist.get_world_size()).half()
    dist.all_reduce(half)
    future = torch.futures.Future()
    future.set_result(bucket.buffer().copy_(half))
    return future


@ex.half_hook.slip(
    "work.wait() inside the hook, and backward stands still: leave the waiting to `then`."
)
def waits_itself(state, bucket):
    half = (bucket.buffer() / dist.get_world_size()).half()
    work = dist.all_reduce(half, async_op=True)
    work.wait()
    return work.get_future().then(lambda _: bucket.buffer().copy_(half))


@ex.half_hook.slip(
    "A gradient above 65,504 is inf before it is divided: divide first, then .half()."
)
def halves_before_it_divides(state, bucket):
    n = dist.get_world_size()
    return _hook(bucket, lambda x: x.half() / n, lambda x: x)


@ex.half_hook.slip(
    "f is called with the future, not with a tensor: f.value()[0], or the tensor that you "
    "gave to all_reduce."
)
def takes_the_future_for_a_tensor(state, bucket):
    half = (bucket.buffer() / dist.get_world_size()).half()
    work = dist.all_reduce(half, async_op=True)
    return work.get_future().then(lambda f: f.to(bucket.buffer().dtype))


@ex.half_hook.slip("The future's value is a list of one tensor: f.value()[0].")
def takes_the_list_for_a_tensor(state, bucket):
    half = (bucket.buffer() / dist.get_world_size()).half()
    work = dist.all_reduce(half, async_op=True)
    return work.get_future().then(lambda f: f.value().to(bucket.buffer().dtype))


# ---- top_k ----


@ex.top_k.slip("Large negative numbers are large as well: v_P.abs().topk(k).")
def largest_with_their_sign(v_P, k):
    values, places = v_P.topk(k)
    return values, places.to(torch.int32)


@ex.top_k.slip("The signs are lost: take the places from |v|, the values from v.")
def sizes_only(v_P, k):
    values, places = v_P.abs().topk(k)
    return values, places.to(torch.int32)


@ex.top_k.slip("topk gives places in int64: 8 bytes for each, twice what they need.")
def wide_places(v_P, k):
    places = v_P.abs().topk(k).indices
    return v_P[places], places


@ex.top_k.slip("These are the smallest: largest first, so sort in descending order.")
def the_smallest(v_P, k):
    places = v_P.abs().argsort()[:k]
    return v_P[places], places.to(torch.int32)


@ex.top_k.slip(
    "All P numbers would travel, most of them as zeros: k values and k places."
)
def with_zeros(v_P, k):
    places = v_P.abs().topk(k).indices
    dense_P = torch.zeros_like(v_P)
    dense_P[places] = v_P[places]
    return dense_P, torch.arange(len(v_P), dtype=torch.int32)


@ex.top_k.slip("Values and places are swapped: values first.")
def places_first(v_P, k):
    return course.top_k(v_P, k)[::-1]


@ex.top_k.slip(
    "A threshold lets more than k through where sizes are equal: take k places."
)
def by_a_threshold(v_P, k):
    least = v_P.abs().topk(k).values[-1]
    places = (v_P.abs() >= least).nonzero().flatten()
    return v_P[places], places.to(torch.int32)


# ---- ErrorFeedback ----


class _Feedback:
    def __init__(self, compress):
        self.compress, self.rest = compress, 0.0


@ex.ErrorFeedback.slip("What is owed is never sent: add self.rest before you compress.")
class never_pays(_Feedback):
    def __call__(self, v):
        sent = self.compress(v)
        self.rest = self.rest + v - sent
        return sent


@ex.ErrorFeedback.slip(
    "What was owed before and not sent now is forgotten: the rest is v plus the old rest, "
    "minus what was sent."
)
class owes_the_last_only(_Feedback):
    def __call__(self, v):
        sent = self.compress(v + self.rest)
        self.rest = v - sent
        return sent


@ex.ErrorFeedback.slip("The sign of the debt: what came minus what was sent.")
class sent_minus_owed(_Feedback):
    def __call__(self, v):
        owed = v + self.rest
        sent = self.compress(owed)
        self.rest = sent - owed
        return sent


@ex.ErrorFeedback.slip(
    "The rest is added after the compression: then all of it travels, at full length."
)
class adds_it_afterwards(_Feedback):
    def __call__(self, v):
        sent = self.compress(v) + self.rest
        self.rest = v - self.compress(v)
        return sent


@ex.ErrorFeedback.slip("It returns what was owed, not what was compressed.")
class sends_all(_Feedback):
    def __call__(self, v):
        owed = v + self.rest
        self.rest = owed - self.compress(owed)
        return owed


@ex.ErrorFeedback.slip("Nothing is remembered: self.rest stays as it was.")
class forgets(_Feedback):
    def __call__(self, v):
        return self.compress(v + self.rest)


@ex.ErrorFeedback.slip(
    "`v += self.rest` writes into the caller's tensor: owed = v + self.rest."
)
class writes_into_v(_Feedback):
    def __call__(self, v):
        v += self.rest
        sent = self.compress(v)
        self.rest = v - sent
        return sent


@ex.ErrorFeedback.slip(
    "All ErrorFeedbacks share one rest: it belongs to self, not to the class."
)
class shares_it(_Feedback):
    debt = {}

    def __init__(self, compress):
        self.compress = compress

    @property
    def rest(self):
        return self.debt.get("rest", 0.0)

    def __call__(self, v):
        before = self.rest
        if torch.is_tensor(before) and before.shape != v.shape:
            before = 0.0
        owed = v + before
        sent = self.compress(owed)
        self.debt["rest"] = owed - sent
        return sent


@ex.ErrorFeedback.slip(
    "self.compress is called twice: one that draws or talks to other ranks gives something "
    "else each time. Call it once, and keep what it gave."
)
class compresses_twice(_Feedback):
    def __call__(self, v):
        owed = v + self.rest
        self.rest = owed - self.compress(owed)
        return self.compress(owed)


# ---- power_step ----


def _sum(x):
    x = x.contiguous().clone()
    dist.all_reduce(x)
    return x / dist.get_world_size()


@ex.power_step.slip(
    "Each rank made its own columns orthonormal before the sum, and a mean of such is none: "
    "sum first, torch.linalg.qr then."
)
def orthonormal_too_early(grad_DN, Q_NK):
    P_DK = _sum(torch.linalg.qr(grad_DN @ Q_NK)[0])
    Q_NK = _sum(grad_DN.T @ P_DK)
    return P_DK @ Q_NK.T, Q_NK


@ex.power_step.slip(
    "P is never made orthonormal: P Q^T is then too large by the squares of its columns."
)
def never_orthonormal(grad_DN, Q_NK):
    P_DK = _sum(grad_DN @ Q_NK)
    Q_NK = _sum(grad_DN.T @ P_DK)
    return P_DK @ Q_NK.T, Q_NK


@ex.power_step.slip("The second product is a sum, too: divide both by n.")
def one_division(grad_DN, Q_NK):
    P_DK = torch.linalg.qr(_sum(grad_DN @ Q_NK))[0]
    Q_NK = _sum(grad_DN.T @ P_DK) * dist.get_world_size()
    return P_DK @ Q_NK.T, Q_NK


@ex.power_step.slip(
    "The first product is not summed: every rank has its own P, and the products mix "
    "different bases."
)
def own_directions(grad_DN, Q_NK):
    P_DK = torch.linalg.qr(grad_DN @ Q_NK)[0]
    Q_NK = _sum(grad_DN.T @ P_DK)
    return P_DK @ Q_NK.T, Q_NK


@ex.power_step.slip("Q is this rank's own: it needs a sum over the ranks, like P.")
def own_second_half(grad_DN, Q_NK):
    P_DK = torch.linalg.qr(_sum(grad_DN @ Q_NK))[0]
    Q_NK = grad_DN.T @ P_DK
    return P_DK @ Q_NK.T, Q_NK


@ex.power_step.slip(
    "The whole matrix travels: sum the products with Q and with P instead."
)
def sends_the_matrix(grad_DN, Q_NK):
    mean_DN = _sum(grad_DN)
    P_DK = torch.linalg.qr(mean_DN @ Q_NK)[0]
    Q_NK = mean_DN.T @ P_DK
    return P_DK @ Q_NK.T, Q_NK


@ex.power_step.slip(
    "The old Q comes back: return the new one, so that the next step goes on from it."
)
def stays_where_it_was(grad_DN, Q_NK):
    mean_DN, _ = course.power_step(grad_DN, Q_NK)
    return mean_DN, Q_NK


# ---- local_round ----


def _steps(model, optimizer, batches, zero=True, talk=lambda model: None):
    for X_BD, y_B in batches:
        if zero:
            optimizer.zero_grad()
        F.cross_entropy(model(X_BD), y_B).backward()
        optimizer.step()
        talk(model)


def _mean(model):
    for p in model.parameters():
        dist.all_reduce(p.data)
        p.data /= dist.get_world_size()


@ex.local_round.slip("This is the sum of all weights: divide by the number of ranks.")
def adds_weights_up(model, optimizer, batches):
    _steps(model, optimizer, batches)
    for p in model.parameters():
        dist.all_reduce(p.data)


@ex.local_round.slip("It talks after every batch: the mean comes once, after the loop.")
def talks_all_the_time(model, optimizer, batches):
    _steps(model, optimizer, batches, talk=_mean)


@ex.local_round.slip(
    "Gradients of the last batch are averaged, and nobody looks at them again: average the "
    "weights, p.data."
)
def averages_gradients(model, optimizer, batches):
    _steps(model, optimizer, batches)
    for p in model.parameters():
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


@ex.local_round.slip(
    "Old gradients add up: optimizer.zero_grad() before each backward."
)
def never_clears(model, optimizer, batches):
    _steps(model, optimizer, batches, zero=False)
    _mean(model)


@ex.local_round.slip("Only the last batch counted: one step for each.")
def only_the_last_step(model, optimizer, batches):
    _steps(model, optimizer, batches[-1:])
    _mean(model)


@ex.local_round.slip("The ranks never talk: after the loop, the mean of all weights.")
def never_talks(model, optimizer, batches):
    _steps(model, optimizer, batches)


@ex.local_round.slip(
    "The moments are averaged, too: more bytes than weights, and not asked for."
)
def averages_moments_too(model, optimizer, batches):
    _steps(model, optimizer, batches)
    _mean(model)
    for state in optimizer.state.values():
        for value in state.values():
            if torch.is_tensor(value) and value.ndim:
                dist.all_reduce(value)
                value /= dist.get_world_size()


@ex.local_round.slip(
    "The moments are thrown away with the round: the optimiser goes on where it was."
)
def forgets_the_moments(model, optimizer, batches):
    _steps(model, optimizer, batches)
    _mean(model)
    optimizer.state.clear()


@ex.local_round.slip("Only the last parameter is averaged: every one, in the loop.")
def last_parameter_only(model, optimizer, batches):
    _steps(model, optimizer, batches)
    for p in model.parameters():
        pass
    dist.all_reduce(p.data)
    p.data /= dist.get_world_size()


# ---- outer_step ----


@ex.outer_step.slip(
    "The sign: the way is start minus the mean of the ends, for a step against it to go "
    "forward."
)
def the_wrong_way(start_P, ends_RP, velocity_P, lr=0.7, momentum=0.9):
    way_P = ends_RP.mean(0) - start_P
    velocity_P = momentum * velocity_P + way_P
    return start_P - lr * (way_P + momentum * velocity_P), velocity_P


@ex.outer_step.slip(
    "This is momentum without Nesterov: the step is way + momentum * velocity."
)
def heavy_ball(start_P, ends_RP, velocity_P, lr=0.7, momentum=0.9):
    velocity_P = momentum * velocity_P + start_P - ends_RP.mean(0)
    return start_P - lr * velocity_P, velocity_P


@ex.outer_step.slip("The ways of all ranks are added up: take their mean.")
def adds_ways_up(start_P, ends_RP, velocity_P, lr=0.7, momentum=0.9):
    way_P = (start_P - ends_RP).sum(0)
    velocity_P = momentum * velocity_P + way_P
    return start_P - lr * (way_P + momentum * velocity_P), velocity_P


@ex.outer_step.slip(
    "lr belongs to the step alone: PyTorch's velocity does not hold it."
)
def lr_in_the_velocity(start_P, ends_RP, velocity_P, lr=0.7, momentum=0.9):
    way_P = lr * (start_P - ends_RP.mean(0))
    velocity_P = momentum * velocity_P + way_P
    return start_P - (way_P + momentum * velocity_P), velocity_P


@ex.outer_step.slip(
    "The step starts at the mean of the ends, and goes their way once more: it starts at "
    "start_P."
)
def from_the_ends(start_P, ends_RP, velocity_P, lr=0.7, momentum=0.9):
    way_P = start_P - ends_RP.mean(0)
    velocity_P = momentum * velocity_P + way_P
    return ends_RP.mean(0) - lr * (way_P + momentum * velocity_P), velocity_P


@ex.outer_step.slip("The old velocity comes back: return the new one.")
def keeps_the_velocity(start_P, ends_RP, velocity_P, lr=0.7, momentum=0.9):
    w_P, _ = course.outer_step(start_P, ends_RP, velocity_P, lr, momentum)
    return w_P, velocity_P


# ---- exchange_signs ----


def _letters(mine):
    letters = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(letters, mine)
    return letters


def _pm(bits):
    return 2 * bits.double() - 1


def _read(letter, P, size=None):
    own = letter[:4].clone().view(torch.float32)
    return _pm(course.unpack_bits(letter[4:], P)) * (own if size is None else size)


def _letter(v_P):
    size = v_P.abs().mean().float().view(1)
    return torch.cat([size.view(torch.uint8), course.pack_bits(v_P > 0)])


@ex.exchange_signs.slip(
    "Each rank has a size of its own, and this reads all letters with that of one."
)
def one_size_for_all(v_P):
    P, mine = len(v_P), _letter(v_P)
    read = [_read(x, P, v_P.abs().mean()) for x in _letters(mine)]
    return sum(read) / len(read), read[dist.get_rank()]


@ex.exchange_signs.slip(
    "The signs travel as one byte each: pack_bits makes an eighth of them."
)
def unpacked(v_P):
    size = v_P.abs().mean().float().view(1)
    mine = torch.cat([size.view(torch.uint8), (v_P > 0).to(torch.uint8)])
    read = [_pm(x[4:]) * x[:4].clone().view(torch.float32) for x in _letters(mine)]
    return sum(read) / len(read), read[dist.get_rank()]


@ex.exchange_signs.slip("This is the sum over the ranks: take the mean.")
def sum_of_letters(v_P):
    read = [_read(x, len(v_P)) for x in _letters(_letter(v_P))]
    return sum(read), read[dist.get_rank()]


@ex.exchange_signs.slip(
    "What it sent is not v: an error feedback needs sign * size, what others have read."
)
def returns_v_itself(v_P):
    read = [_read(x, len(v_P)) for x in _letters(_letter(v_P))]
    return sum(read) / len(read), v_P


@ex.exchange_signs.slip(
    "The second is rank 0's letter on every rank: your own is read[dist.get_rank()]."
)
def always_rank_0(v_P):
    read = [_read(x, len(v_P)) for x in _letters(_letter(v_P))]
    return sum(read) / len(read), read[0]


@ex.exchange_signs.slip("A bit that is 0 means minus, not nothing: 2 * bit - 1.")
def zeros_and_ones(v_P):
    P = len(v_P)
    read = [
        course.unpack_bits(x[4:], P).double() * x[:4].clone().view(torch.float32)
        for x in _letters(_letter(v_P))
    ]
    return sum(read) / len(read), read[dist.get_rank()]


@ex.exchange_signs.slip(
    "Two calls, one for sizes and one for signs: one letter is enough."
)
def two_letters(v_P):
    P, size = len(v_P), v_P.abs().mean().float().view(1)
    sizes = _letters(size)
    bits = _letters(course.pack_bits(v_P > 0))
    read = [_pm(course.unpack_bits(b, P)) * s for s, b in zip(sizes, bits)]
    return sum(read) / len(read), read[dist.get_rank()]


@ex.exchange_signs.slip(
    "The size is the mean of |v|; the largest |v| makes every small number large."
)
def largest_size(v_P):
    size = v_P.abs().max().float().view(1)
    mine = torch.cat([size.view(torch.uint8), course.pack_bits(v_P > 0)])
    read = [_read(x, len(v_P)) for x in _letters(mine)]
    return sum(read) / len(read), read[dist.get_rank()]


@ex.exchange_signs.slip(
    "All letters are one tensor, and the last to arrive fills it: make n of them."
)
def one_letter_n_times(v_P):
    mine = _letter(v_P)
    letters = [torch.empty_like(mine)] * dist.get_world_size()
    dist.all_gather(letters, mine)
    read = [_read(x, len(v_P)) for x in letters]
    return sum(read) / len(read), read[dist.get_rank()]


@ex.exchange_signs.slip(
    "The second is the mean again: what this rank itself has sent is read[dist.get_rank()]."
)
def the_mean_twice(v_P):
    mean_P, _ = course.exchange_signs(v_P)
    return mean_P, mean_P


@ex.exchange_signs.slip("The size is the mean of |v|, not their sum.")
def sum_as_size(v_P):
    size = v_P.abs().sum().float().view(1)
    mine = torch.cat([size.view(torch.uint8), course.pack_bits(v_P > 0)])
    read = [_read(x, len(v_P)) for x in _letters(mine)]
    return sum(read) / len(read), read[dist.get_rank()]


# ---- two_level_sum ----


@ex.two_level_sum.slip(
    "The right sum, and every rank sends all of it to the other boxes: reduce_scatter "
    "inside first, so that each goes across with a k-th."
)
def all_of_it_twice(x_N, inside, across):
    x_N = x_N.clone()
    dist.all_reduce(x_N, group=inside)
    dist.all_reduce(x_N, group=across)
    return x_N


@ex.two_level_sum.slip(
    "A flat ring over all ranks: the groups are not used, and every hop between boxes "
    "carries nearly two sums."
)
def flat(x_N, inside, across):
    x_N = x_N.clone()
    dist.all_reduce(x_N)
    return x_N


@ex.two_level_sum.slip("These are sums of single boxes: the part must go across.")
def never_across(x_N, inside, across):
    x_N = x_N.clone()
    dist.all_reduce(x_N, group=inside)
    return x_N


def _scattered(x_N, inside):
    k = dist.get_world_size(inside)
    parts = list(F.pad(x_N, (0, -len(x_N) % k)).view(k, -1))
    mine = torch.empty_like(parts[0])
    dist.reduce_scatter(mine, parts, group=inside)
    return mine, k


@ex.two_level_sum.slip("The parts never come together: all_gather inside, at the end.")
def one_part_only(x_N, inside, across):
    mine, _ = _scattered(x_N, inside)
    dist.all_reduce(mine, group=across)
    return mine


@ex.two_level_sum.slip("The zeros that filled up are still there: cut off at len(x_N).")
def leaves_the_padding(x_N, inside, across):
    mine, k = _scattered(x_N, inside)
    dist.all_reduce(mine, group=across)
    whole = [torch.empty_like(mine) for _ in range(k)]
    dist.all_gather(whole, mine, group=inside)
    return torch.cat(whole)


@ex.two_level_sum.slip(
    "What k does not divide is lost: fill up with zeros, do not cut."
)
def loses_the_end(x_N, inside, across):
    k = dist.get_world_size(inside)
    even = x_N[: max(len(x_N) // k * k, 1)]
    if len(even) % k:
        return even
    return course.two_level_sum(even.contiguous(), inside, across)


@ex.two_level_sum.slip(
    "One rank of each box carries the whole sum across, the others wait: with "
    "reduce_scatter all k share that work."
)
def one_leader(x_N, inside, across):
    x_N, leader = x_N.clone(), dist.get_global_rank(inside, 0)
    dist.reduce(x_N, dst=leader, group=inside)
    if dist.get_rank(inside) == 0:
        dist.all_reduce(x_N, group=across)
    dist.broadcast(x_N, src=leader, group=inside)
    return x_N


@ex.two_level_sum.slip(told="The ranks hang")
def only_the_leaders_gather(x_N, inside, across):
    mine, k = _scattered(x_N, inside)
    dist.all_reduce(mine, group=across)
    whole = [torch.empty_like(mine) for _ in range(k)]
    if dist.get_rank(inside) == 0:
        dist.all_gather(whole, mine, group=inside)
    return torch.cat(whole)[: len(x_N)]


@ex.two_level_sum.slip(
    "An all_reduce without `group=` adds different parts together: across only."
)
def across_forgotten(x_N, inside, across):
    mine, k = _scattered(x_N, inside)
    dist.all_reduce(mine)
    whole = [torch.empty_like(mine) for _ in range(k)]
    dist.all_gather(whole, mine, group=inside)
    return torch.cat(whole)[: len(x_N)]


@ex.two_level_sum.slip(
    "A reduce_scatter without `group=` is one of all ranks and wants a part for each: "
    "group=inside."
)
def inside_forgotten_at_first(x_N, inside, across):
    k = dist.get_world_size(inside)
    parts = list(F.pad(x_N, (0, -len(x_N) % k)).view(k, -1))
    mine = torch.empty_like(parts[0])
    dist.reduce_scatter(mine, parts)
    dist.all_reduce(mine, group=across)
    whole = [torch.empty_like(mine) for _ in range(k)]
    dist.all_gather(whole, mine, group=inside)
    return torch.cat(whole)[: len(x_N)]


@ex.two_level_sum.slip(
    "An all_gather without `group=` is one of all ranks and brings a part from each: "
    "group=inside."
)
def inside_forgotten_at_last(x_N, inside, across):
    mine, k = _scattered(x_N, inside)
    dist.all_reduce(mine, group=across)
    whole = [torch.empty_like(mine) for _ in range(k)]
    dist.all_gather(whole, mine)
    return torch.cat(whole)[: len(x_N)]


@ex.two_level_sum.slip("This is the mean over the ranks: the sum is asked for.")
def mean_of_all(x_N, inside, across):
    return course.two_level_sum(x_N, inside, across) / dist.get_world_size()


@ex.two_level_sum.slip(
    "The groups are swapped: reduce_scatter and all_gather inside, all_reduce across."
)
def groups_swapped(x_N, inside, across):
    return course.two_level_sum(x_N, across, inside)
