"""What chapter 20 builds: fewer bytes between ranks, and what each kind of call costs.

v_P is a vector of P numbers, such as a gradient or a way (weights before minus weights
after some steps of one rank). The functions that talk are called by all ranks of a
torch.distributed group, inside `ranks.run(fn, n)`, under torchrun, or in a rehearsal
(utils.practice); elsewhere they raise RuntimeError.

Stochastic rounding with a scale: D. Alistarh et al., QSGD (2017). Error feedback:
F. Seide et al. (2014), S. P. Karimireddy et al. (2019). power_step: T. Vogels et al.,
PowerSGD (2019). Outer step: A. Douillard et al., DiLoCo (2023).
"""

import torch
import torch.nn.functional as F
from torch import distributed as dist

from utils import given
from utils.built.collectives import cost  # chapter 16
from utils.ranks.agree import joined


def _vector(name, v):
    if not torch.is_tensor(v) or v.ndim != 1:
        said = tuple(v.shape) if torch.is_tensor(v) else given.kind(v)
        raise ValueError(f"{name} is a tensor with one axis, (P,), not {said}")
    return v


def _floats(name, v):
    if not _vector(name, v).is_floating_point():
        raise TypeError(f"{name} holds floating-point numbers, not {v.dtype}")
    return v


# ---- fewer bits ----


def quantise(v_P, bits, generator=None):
    """Stochastic rounding to `bits` bits (2 to 8): -> q (P,) int8, scale.

    q * scale is v_P on average over draws; q is from -top to top, top = 2**(bits - 1) - 1.
    """
    _floats("v_P", v_P)
    top = 2 ** (given.whole("bits", bits, 2, 8) - 1) - 1
    if not torch.isfinite(v_P).all():
        raise ValueError("v_P holds nan or inf: it has no scale")
    scale = v_P.abs().max() / top if len(v_P) else v_P.new_tensor(0.0)
    if scale == 0:
        return torch.zeros_like(v_P, dtype=torch.int8), scale
    draws_P = torch.rand(v_P.shape, generator=generator, dtype=v_P.dtype)
    q_P = torch.floor(v_P / scale + draws_P).clamp(-top, top)
    return q_P.to(torch.int8), scale


def pack_bits(bits_P):
    "P yes or no, (P,) bool -> bytes, (ceil(P / 8),) uint8, the first bit lowest."
    if _vector("bits_P", bits_P).dtype != torch.bool:
        raise TypeError(f"bits_P holds True and False, not {bits_P.dtype}")
    bits = F.pad(bits_P.to(torch.uint8), (0, -len(bits_P) % 8)).view(-1, 8)
    return (bits << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def unpack_bits(packed, P):
    "Bytes of `pack_bits` -> (P,) bool."
    P = given.whole("P", P, 0)
    if not torch.is_tensor(packed) or packed.dtype != torch.uint8:
        said = packed.dtype if torch.is_tensor(packed) else given.kind(packed)
        raise TypeError(f"packed is a tensor of torch.uint8, not {said}")
    if packed.shape != (-(-P // 8),):
        raise ValueError(f"{P} bits take {-(-P // 8)} bytes, not {tuple(packed.shape)}")
    bits = packed[:, None] >> torch.arange(8, dtype=torch.uint8) & 1
    return bits.flatten()[:P].bool()


# ---- fewer numbers ----


def top_k(v_P, k):
    "The k numbers of largest size: -> values (k,) with their signs, places (k,) int32."
    k = given.whole("k", k, 1, len(_floats("v_P", v_P)))
    places = v_P.abs().topk(k).indices
    return v_P[places], places.to(torch.int32)


def spread(values, places, P):
    "k values at their places, zeros elsewhere: -> (P,)."
    P = given.whole("P", P)
    if len(_vector("values", values)) != len(_vector("places", places)):
        raise ValueError(f"{len(values)} values and {len(places)} places")
    if len(places) and not 0 <= places.min() <= places.max() < P:
        raise ValueError(f"places are from 0 to {P - 1}")
    v_P = values.new_zeros(P)
    v_P[places.long()] = values
    return v_P


class ErrorFeedback:
    """compress(v) with a memory: what was not sent is added to what comes next.

    The sum of all that was sent, plus `rest`, is the sum of all that came.
    """

    def __init__(self, compress):
        self.compress, self.rest = given.function("compress", compress), 0.0

    def __call__(self, v):
        if torch.is_tensor(self.rest) and self.rest.shape != v.shape:
            raise ValueError(
                f"what is owed has shape {tuple(self.rest.shape)}, v {tuple(v.shape)}: "
                "one ErrorFeedback for each tensor"
            )
        owed = v + self.rest
        sent = self.compress(owed)
        self.rest = owed - sent
        return sent


def power_step(grad_DN, Q_NK):
    """Rank-K mean of all ranks' matrices by two small sums: -> mean (D, N), Q (N, K).

    Q_NK is the same on all ranks, and from the second step on what the last one gave.
    """
    joined("power_step")
    if grad_DN.ndim != 2 or Q_NK.ndim != 2 or grad_DN.shape[1] != Q_NK.shape[0]:
        shapes = f"{tuple(grad_DN.shape)} and {tuple(Q_NK.shape)}"
        raise ValueError(
            f"grad_DN and Q_NK have shapes (D, N) and (N, K), not {shapes}"
        )
    n = dist.get_world_size()
    P_DK = grad_DN @ Q_NK
    dist.all_reduce(P_DK)
    P_DK, _ = torch.linalg.qr(P_DK / n)
    Q_NK = grad_DN.T @ P_DK
    dist.all_reduce(Q_NK)
    Q_NK /= n
    return P_DK @ Q_NK.T, Q_NK


def half_hook(state, bucket):
    "A DDP hook: the mean over ranks, travelling in float16; -> a Future of the bucket."
    joined("half_hook")
    flat = bucket.buffer()
    half = (flat / dist.get_world_size()).half()
    work = dist.all_reduce(half, async_op=True)
    return work.get_future().then(lambda _: flat.copy_(half))


# ---- fewer talks ----


def local_round(model, optimizer, batches, loss=F.cross_entropy):
    "One step per batch [(X, y), ...] without a word, then the mean of all ranks' weights."
    joined("local_round")
    for X_BD, y_B in batches:
        optimizer.zero_grad()
        loss(model(X_BD), y_B).backward()
        optimizer.step()
    for p in model.parameters():
        dist.all_reduce(p.data)
        p.data /= dist.get_world_size()


def outer_step(start_P, ends_RP, velocity_P, lr=0.7, momentum=0.9):
    """A step of Nesterov's momentum along start - end: -> weights (P,), velocity (P,).

    ends_RP: the weights of R ranks after their local steps; velocity_P: zeros at first.
    """
    _floats("start_P", start_P)
    if not len(ends_RP) or ends_RP.ndim != 2 or ends_RP.shape[1:] != start_P.shape:
        raise ValueError(
            f"ends_RP has a row of {len(start_P)} weights for each rank, not "
            f"{tuple(ends_RP.shape)}"
        )
    if velocity_P.shape != start_P.shape:
        raise ValueError(
            f"velocity_P has {len(start_P)} numbers, not {tuple(velocity_P.shape)}"
        )
    lr, momentum = given.number("lr", lr), given.number("momentum", momentum)
    way_P = start_P - ends_RP.mean(0)
    velocity_P = momentum * velocity_P + way_P
    return start_P - lr * (way_P + momentum * velocity_P), velocity_P


def exchange_signs(v_P):
    """Every rank tells its P signs and one size, ceil(P / 8) + 4 bytes, in one call.

    -> the mean over ranks of sign * size (P,), and this rank's own sign * size (P,). The
    size is the mean of |v_P|, in float32; 0 has the sign -.
    """
    joined("exchange_signs")
    P, size = len(_floats("v_P", v_P)), v_P.abs().mean().float()
    mine = torch.cat([size.view(1).view(torch.uint8), pack_bits(v_P > 0)])
    letters = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(letters, mine)
    read = [
        (2 * unpack_bits(letter[4:], P).to(v_P.dtype) - 1)
        * letter[:4].clone().view(torch.float32)
        for letter in letters
    ]
    own = read[dist.get_rank()]
    return sum(read) / len(read), own


# ---- two kinds of link ----


def two_level_sum(x_N, inside, across):
    """The sum over all ranks, with a k-th of x over each slow connection: -> (N,).

    inside: the group of the k ranks of this rank's box; across: the group of the ranks
    that have the same place in each box.
    """
    joined("two_level_sum")
    _vector("x_N", x_N)
    k = dist.get_world_size(inside)
    padded = F.pad(x_N, (0, -len(x_N) % k))
    parts = list(padded.view(k, -1))
    mine = torch.empty_like(parts[0])
    dist.reduce_scatter(mine, parts, group=inside)
    dist.all_reduce(mine, group=across)
    whole = [torch.empty_like(mine) for _ in range(k)]
    dist.all_gather(whole, mine, group=inside)
    return torch.cat(whole)[: len(x_N)]


def talk_seconds(call, n, size, rate):
    """Seconds of one "all_reduce" or "all_gather" of n ranks, by its bytes alone.

    size: bytes that each rank brings; rate: bytes per second that a rank can send.
    """
    n, size = given.whole("n", n), given.number("size", size)
    rate = given.number("rate", rate, above=0)
    if call == "all_reduce":
        return cost("ring", n, size, 0, 1 / rate)
    if call == "all_gather":
        return (n - 1) * size / rate
    raise ValueError(f"call is 'all_reduce' or 'all_gather', not {call!r:.60}")
