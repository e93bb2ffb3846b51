"""Chapter 20: fewer bits, fewer numbers, fewer talks, and two kinds of link.

Ranks are rehearsed in this process (utils.practice), so that a call that nobody answers
is told at once and nothing hangs.
"""

from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F
from torch import distributed as dist
from torch import nn

from utils.built import thin as course
from utils.check import as_array
from utils.exercises import Chapter, Miss, same
from utils.exercises.rehearsed import normal, told
from utils.practice import Rehearsal

chapter = Chapter("20_thin_wires")


class _Counted(Rehearsal):
    "A rehearsal that counts the bytes from each rank to each other."

    def __init__(self, n, calls):
        super().__init__(n, 0, calls)
        self.links = Counter()

    def count(self, start, rounds):
        rounds = [list(messages) for messages in rounds]
        for messages in rounds:
            for source, to, size in messages:
                self.links[source, to] += size
        return super().count(start, rounds)


def _play(case, fn, n=3, rule=""):
    "-> results, calls, {(from, to): bytes}; where real ranks would hang, a Miss."
    stage = _Counted(n, calls := [])
    with told(case, rule):
        return stage.run(fn), calls, stage.links


def _pair(case, got, what, rule):
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        raise Miss(f"It returns two things, {what}. {rule}".strip(), case, got)
    return got


def _tensor(case, got, rule, dtype=None):
    if not isinstance(got, torch.Tensor) or (dtype and got.dtype != dtype):
        found = got.dtype if isinstance(got, torch.Tensor) else type(got).__name__
        raise Miss(rule, case, found, dtype or torch.tensor([1.0]))
    return got


# ---- what a link costs ----


@chapter.exercise(
    "How many times does each byte leave a rank?",
    "A ring's all_reduce sends 2 (n - 1) chunks of size / n. In an all_gather each rank "
    "sends n - 1 whole messages.",
    'if call == "all_reduce":\n    return 2 * (n - 1) / n * size / rate\n...',
)
def talk_seconds(answer):
    "Seconds of a call on a link, by its bytes."
    ring = "A ring's all_reduce: every rank sends 2 (n - 1) chunks of size / n bytes."
    gather = "all_gather: every rank sends n - 1 whole messages of `size` bytes."
    for n, size, rate in ((2, 68_904, 1.25e6), (4, 1001, 500.0), (3, 9e6, 1e9), (1, 5.0, 2.0)):  # fmt: skip
        for call, want, rule in (
            ("all_reduce", 2 * (n - 1) / n * size / rate, ring),
            ("all_gather", (n - 1) * size / rate, gather),
        ):
            case = f"{call} of {size:,.0f} bytes on {n} ranks at {rate:,.0f} bytes/s"
            same(case, answer(call, n, size, rate), want, rule)


# ---- fewer bits ----


@chapter.exercise(
    "How large may |q| be with so many bits and one of them for the sign?",
    "scale = the largest |x| / top, top = 2**(bits - 1) - 1. Then x / scale lies between "
    "two whole numbers; take the upper one with a chance that is its fraction.",
    "floor(number + draw), with a draw from 0 to 1 for each number, is the upper one "
    "exactly as often as it should:\n"
    "scale = v_P.abs().max() / (2 ** (bits - 1) - 1)\n"
    "draws_P = torch.rand(v_P.shape, generator=generator, dtype=v_P.dtype)\n"
    "...",
)
def quantise(answer):
    "Stochastic rounding: right on average."
    what = "q (P,) in int8 and the scale"

    def draw(case, v_P, bits, seed=0):
        generator = torch.Generator().manual_seed(seed)
        q_P, scale = _pair(case, answer(v_P.clone(), bits, generator), what, "")
        _tensor(f"{case}: q", q_P, "q is a tensor of torch.int8.", torch.int8)
        if np.size(as_array(scale)) != 1:
            raise Miss("One scale for the whole vector.", f"{case}: scale", scale, 0.5)
        return q_P, float(scale)

    for bits, top in ((2, 1), (3, 3), (4, 7), (8, 127)):
        case = f"[0, 6, -3, 0.5] in {bits} bits"
        v_P = torch.tensor([0.0, 6.0, -3.0, 0.5], dtype=torch.float64)
        q_P, scale = draw(case, v_P, bits)
        same(f"{case}: the scale", scale, 6 / top,
             f"{bits} bits, one of them for the sign: q reaches top = 2**({bits} - 1) - 1 "
             f"= {top}, and the largest |x| becomes top.")  # fmt: skip
        same(f"{case}: q of 0 and of 6", q_P[:2], [0, top],
             "What is whole after the division stays what it is.")  # fmt: skip
        miss = float((q_P * scale - v_P).abs().max())
        if not miss < scale:
            raise Miss("Every number goes to one of its two neighbours on the grid, less "
                       "than one step away.", f"{case}: largest |q * scale - x|", miss,
                       f"below {scale:.3g}")  # fmt: skip
    for x in (0.2, -0.1, 0.05, -0.95):
        case = f"1, and 4,000 times {x}, in 3 bits"
        v_P = torch.cat([torch.ones(1), torch.full((4000,), x)]).double()
        pairs = [draw(case, v_P, 3, seed) for seed in range(8)]
        means = [float((q_P[1:].double() * scale).mean()) for q_P, scale in pairs]
        q_P, scale = pairs[0]
        near, part = q_P[1:].double() * scale, x / scale % 1
        error = scale * np.sqrt(part * (1 - part) / 4000)
        if not all(abs(mean - x) < 5 * error for mean in means):
            raise Miss("On average q * scale is x: round up with a chance equal to the "
                       "fraction, a draw of its own for each number.",
                       f"{case}: mean of q * scale, from eight seeds", means,
                       f"{x} +- {5 * error:.3f}")  # fmt: skip
        if len(near.unique()) != 2:
            raise Miss("Equal numbers must not all round alike: each has its own draw.",
                       f"{case}: different values of q", len(near.unique()), 2)  # fmt: skip
    q_P, scale = draw("three zeros in 8 bits", torch.zeros(3, dtype=torch.float64), 8)
    if q_P.any() or not np.isfinite(scale):
        raise Miss("Zeros stay zeros: 0 / 0 is nan. Look for a scale of 0 first.",
                   "three zeros in 8 bits", (q_P, scale), "q = 0, a finite scale")  # fmt: skip
    v_P = normal(50)
    first, again, other = (draw("50 numbers", v_P, 4, seed)[0] for seed in (1, 1, 2))
    if not torch.equal(first, again) or torch.equal(first, other):
        raise Miss("The draws come from `generator`: the same seed, the same q, another "
                   "seed, another q.", "50 numbers, seeds 1, 1, 2",
                   (torch.equal(first, again), torch.equal(first, other)), (True, False))  # fmt: skip
    q_P, scale = draw("[1, -7] in float32, 4 bits", torch.tensor([1.0, -7.0]), 4)
    same("[1, -7] in float32, 4 bits: the scale", scale, 1.0,
         "The largest |x| counts, whatever its sign.")  # fmt: skip
    same("[1, -7] in float32, 4 bits: q * scale", q_P * scale, [1.0, -7.0],
         "float32 works as well, and a scale of 1 is a scale.")  # fmt: skip


@chapter.exercise(
    "Eight bits are a number from 0 to 255. What is each bit worth?",
    "Fill up with False to a multiple of 8, view as (bytes, 8), and add up bit i times "
    "2**i, the first bit counting 1.",
    "bits = F.pad(bits_P.to(torch.uint8), (0, -len(bits_P) % 8)).view(-1, 8)\n"
    "...  # shift each by 0, 1 ... 7 and sum in uint8",
)
def pack_bits(answer):
    "Eight bits to a byte."
    worth = "Within a byte the first bit is worth 1, the second 2, the eighth 128."
    for P in (8, 1, 9, 16, 21):
        bits_P = normal(P, seed=P) > 0
        bits_P[0] = True
        case = f"{P} bits, {bits_P.int().tolist()}"
        got = _tensor(case, answer(bits_P.clone()), "Bytes are a tensor of torch.uint8.", torch.uint8)  # fmt: skip
        same(f"{case}: how many bytes", got.numel(), -(-P // 8),
             "ceil(P / 8) bytes: fill the last one up with zeros, and add none where P is "
             "a multiple of 8.")  # fmt: skip
        same(case, got, course.pack_bits(bits_P), worth)
    for place in range(8):
        bits_P = torch.arange(8) == place
        same(f"only bit {place} of 8", answer(bits_P), [2**place], worth)


# ---- fewer numbers ----


@chapter.exercise(
    "The largest in size, and a gradient may be negative.",
    "v_P.abs().topk(k).indices gives the places; the values keep their signs.",
    "Places below 2**31 fit in 4 bytes:\n"
    "places = v_P.abs().topk(k).indices\n"
    "return v_P[...], places.to(torch.int32)",
)
def top_k(answer):
    "The k largest numbers and where they stand."
    for v_P, k in (
        (torch.tensor([0.1, -5.0, 2.0, 0.0, 3.0]), 2),
        (normal(40, seed=3), 7), (torch.tensor([-1.0, -2.0, -3.0]), 3), (normal(9), 1),
    ):  # fmt: skip
        case = f"{len(v_P)} numbers, k = {k}"
        values, places = _pair(case, answer(v_P.clone(), k), "values and places", "")
        _tensor(f"{case}: values", values, "The values keep v's dtype.", v_P.dtype)
        _tensor(f"{case}: places", places,
                "Places travel, too: as torch.int32 they cost 4 bytes, as int64 they cost "
                "8.", torch.int32)  # fmt: skip
        same(f"{case}: how many", [values.numel(), places.numel()], [k, k],
             "k values and k places.")  # fmt: skip
        if not ((places >= 0) & (places < len(v_P))).all() or len(places.unique()) < k:
            raise Miss("k different places of v.", f"{case}: places", places)
        back_P = torch.zeros_like(v_P)
        back_P[places.long()] = values
        order = v_P.abs().argsort(descending=True)[:k]
        want_P = torch.zeros_like(v_P)
        want_P[order] = v_P[order]
        same(f"{case}: put back into zeros", back_P, want_P,
             "The k numbers of largest |v|, with their own signs, at their own places.")  # fmt: skip
    case, v_P = "[1, -1, 1, -1, 0], k = 2", torch.tensor([1.0, -1.0, 1.0, -1.0, 0.0])
    values, places = _pair(case, answer(v_P.clone(), 2), "values and places", "")
    same(f"{case}: how many", [values.numel(), places.numel()], [2, 2],
         "k values and k places, any two of the four that are equally large.")  # fmt: skip
    same(f"{case}: |v| at its places", v_P[places.long()].abs(), [1.0, 1.0],
         "Any two of the four that are equally large.")  # fmt: skip
    same(f"{case}: the values", values, v_P[places.long()],
         "The values are v's at those places.")  # fmt: skip


def _one_largest(v):
    "A rough compressor: only the largest number of each row travels."
    keep = v.abs() == v.abs().amax(-1, keepdim=True)
    return torch.where(keep, v, torch.zeros_like(v))


def _signs(v):
    return v.sign() * v.abs().mean(-1, keepdim=True)


@chapter.exercise(
    "What is owed before this step, what is sent, and what is owed after it?",
    "Add the rest to v, compress the sum, keep what the compressor left out, return what "
    "it sent.",
    "owed = v + self.rest\nsent = self.compress(owed)\n...",
    kind="class",
)
def ErrorFeedback(answer):
    "What is not sent is owed, not lost."
    one = answer(_one_largest)
    v = torch.tensor([3.0, 2.0, -1.0], dtype=torch.float64)
    same("only the largest is sent, of [3, 2, -1], first call", one(v.clone()),
         [3.0, 0, 0], "Nothing is owed at first: compress(v) is sent.")  # fmt: skip
    same("... self.rest after it", one.rest, [0.0, 2.0, -1.0],
         "The rest is what should have been sent minus what was.")  # fmt: skip
    same("... second call, with [3, 2, -1] again", one(v.clone()), [0.0, 4.0, 0],
         "The rest is added to v before the compression: 2 + 2 is now the largest.")  # fmt: skip
    same("... self.rest after it", one.rest, [3.0, 0.0, -2.0],
         "The rest is v plus the old rest, minus what was sent.")  # fmt: skip
    for name, compress, shape in (
        ("largest", _one_largest, (11,)), ("sign", _signs, (11,)),
        ("sign, 3 ranks in rows", _signs, (3, 7)), ("everything", lambda v: v.clone(), (5,)),
    ):  # fmt: skip
        feedback, came, went = answer(compress), 0.0, 0.0
        for step in range(6):
            v = normal(*shape, seed=step)
            before = v.clone()
            sent = feedback(v)
            if not torch.equal(v, before):
                raise Miss("It changes v, and v is the caller's: owed = v + self.rest "
                           "makes a new tensor.", f"compress: {name}; v after the call",
                           v, before)  # fmt: skip
            came, went = came + v, went + sent
        same(f"compress: {name}; six calls: all that was sent, plus the rest",
             went + feedback.rest, came,
             "Nothing is lost: the sum of what was sent, plus self.rest, is the sum of "
             "what came.")  # fmt: skip
    first, second = answer(_one_largest), answer(_one_largest)
    first(torch.tensor([3.0, 2.0, -1.0]))
    same("a second ErrorFeedback, after the first has been called",
         second(torch.tensor([0.0, 1.0, 0.5])), [0.0, 1.0, 0.0],
         "Every one has a rest of its own: self.rest, set in __init__.")  # fmt: skip
    count = []
    answer(lambda v: count.append(1) or v / 2)(torch.ones(3))
    same("calls of self.compress in one call", len(count), 1,
         "self.compress is called once: keep what it gave.")  # fmt: skip


# ---- low rank ----


def _power_reference(grads, Q, steps):
    "The same in one process, from the mean of all matrices."
    mean, seen = sum(grads) / len(grads), []
    for _ in range(steps):
        P, _ = torch.linalg.qr(mean @ Q)
        Q = mean.T @ P
        seen.append(P @ Q.T)
    return seen


@chapter.exercise(
    "Matrix products are linear: the sum of grad @ Q is (the sum of grads) @ Q.",
    "P = the mean over ranks of grad @ Q; make its columns orthonormal; Q = the mean over "
    "ranks of grad.T @ P; the result is P @ Q.T.",
    "P_DK = grad_DN @ Q_NK\n"
    "dist.all_reduce(P_DK)\n"
    "P_DK, _ = torch.linalg.qr(P_DK / n)  # only now\n"
    "...",
)
def power_step(answer):
    "The rank-K mean of all ranks' matrices by two small sums."

    def steps(grads, Q, count):
        def fn(rank, n):
            now, seen = Q.clone(), []
            for _ in range(count):
                case = f"rank {rank} of {n}"
                mean, now = _pair(case, answer(grads[rank].clone(), now), "the mean and Q", "")  # fmt: skip
                seen.append(mean)
            return seen

        return fn

    for M, N, K, n in ((6, 4, 1, 3), (5, 7, 2, 2), (4, 3, 3, 2)):
        case = f"{n} ranks, matrices {M} x {N}, rank {K}"
        low = normal(M, K, seed=1) @ normal(K, N, seed=2)
        noise = [normal(M, N, seed=10 + r) for r in range(n - 1)]
        noise.append(-sum(noise))
        grads = [low + each for each in noise]
        Q = normal(N, K, seed=3)
        results, calls, _ = _play(case, steps(grads, Q, 1), n)
        for rank in range(n):
            same(f"{case}: a mean of that very rank, on rank {rank}", results[rank][0], low,
                 "If the mean of all ranks' matrices has rank K, it comes out exactly: sum "
                 "over the ranks first, make orthonormal then, and divide each sum by "
                 "n.")  # fmt: skip
        same(f"{case}: numbers in rank 0's calls", sorted(c.numbers for c in calls if c.rank == 0),
             sorted([M * K, N * K]),
             "Two calls, of D x K and N x K numbers: the matrix itself never travels.")  # fmt: skip
        grads = [normal(M, N, seed=20 + r) for r in range(n)]
        results, _, _ = _play(case, steps(grads, Q, 3), n)
        want = _power_reference(grads, Q, 3)
        for step in range(3):
            same(f"{case}: any matrices, step {step + 1}, on rank {n - 1}",
                 results[n - 1][step], want[step],
                 "Every step begins with the Q that the last one returned, Q = mean of "
                 "grad.T @ P, as it is.")  # fmt: skip


# ---- the library's door ----


class _Bucket:
    "What DDP hands to a hook."

    def __init__(self, flat):
        self.flat = flat

    def buffer(self):
        return self.flat

    def index(self):
        return 0


@chapter.exercise(
    "Which is larger: the largest gradient, or the sum of n of them? float16 ends at "
    "65,504.",
    "Divide by n first, then .half(), then all_reduce with async_op=True; "
    "work.get_future().then(f) calls f when the sum is there.",
    "half = (bucket.buffer() / dist.get_world_size()).half()\n"
    "work = dist.all_reduce(half, async_op=True)\n"
    "...  # in `then`: write half into the bucket's buffer, and give that back",
    mutates=True,
)
def half_hook(answer):
    "The mean over ranks, travelling in 16 bits."

    def hook(flats):
        def fn(rank, n):
            # inside a backward, as DDP calls it: a wait in there is noted
            x, given = torch.ones(1, requires_grad=True), []
            x.register_hook(
                lambda _: given.append(answer(None, _Bucket(flats[rank].clone())))
            )
            x.sum().backward()
            (future,) = given
            if not hasattr(future, "wait"):
                raise Miss("A hook returns a Future, work.get_future().then(...), so that "
                           "backward can go on.", f"rank {rank}", future)  # fmt: skip
            got = future.wait()
            if isinstance(got, (list, tuple)):
                raise Miss("Its Future holds the bucket's tensor, not a list: .then(f) "
                           "with an f that returns the buffer.", f"rank {rank}", got)  # fmt: skip
            return got

        return fn

    for n, seed in ((3, 0), (2, 5)):
        case = f"{n} ranks, 10 float32 gradients"
        flats = [normal(10, seed=seed + r).float() for r in range(n)]
        results, calls, _ = _play(case, hook(flats), n)
        _tensor(f"{case}: on rank 0", results[0], "DDP wants its own dtype back: float32.", torch.float32)  # fmt: skip
        same(f"{case}: bytes of each call", [c.bytes for c in calls], [20] * n,
             "One call with the whole bucket in float16: 2 bytes per number.")  # fmt: skip
        want = sum(flats) / n
        gap = float((results[-1] - want).abs().max())
        if not gap < 4e-3:
            raise Miss("The mean over ranks, to float16's three digits: divide by the "
                       "number of ranks, once.", f"{case}: on rank {n - 1}", results[-1],
                       want)  # fmt: skip
        same(f"{case}: alike on all ranks", results[0], results[-1], "All leave alike.")
        same(f"{case}: asynchronous calls", [c.asynchronous for c in calls], [True] * n,
             "async_op=True: the hook comes back at once, so that backward can go on.")  # fmt: skip
        same(f"{case}: waits inside the hook", [c.waited_in_backward for c in calls],
             [False] * n, "Inside the hook nobody waits: `then` does, so that backward can "
             "go on.")  # fmt: skip
    case = "2 ranks, 3 float64 gradients"
    flats = [normal(3, seed=r) for r in range(2)]
    results, _, _ = _play(case, hook(flats), 2)
    _tensor(f"{case}: on rank 0", results[0], "DDP wants its own dtype back, the "
            "buffer's, here float64.", torch.float64)  # fmt: skip
    case = "3 ranks, each with the gradients [40000, -30000]"
    results, _, _ = _play(case, hook([torch.tensor([4e4, -3e4])] * 3), 3)
    if not torch.allclose(results[0], torch.tensor([4e4, -3e4]), rtol=2e-3):
        raise Miss("float16 ends at 65,504, and 3 x 40,000 is inf: divide by n before the "
                   "sum, not after it.", case, results[0], torch.tensor([4e4, -3e4]))  # fmt: skip
    case, flats = (
        "3 ranks, gradients [90000], [0] and [0]",
        torch.tensor([[9e4], [0], [0]]),
    )
    results, _, _ = _play(case, hook(list(flats)), 3)
    if not torch.allclose(results[0], torch.tensor([3e4]), rtol=2e-3):
        raise Miss("float16 ends at 65,504: divide in the buffer's own dtype, and make it "
                   "float16 then.", case, results[0], torch.tensor([3e4]))  # fmt: skip


# ---- fewer talks ----


def _net(seed=0):
    "Two layers in float64."
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        for number, p in enumerate(model.parameters()):
            p.copy_(normal(*p.shape, seed=100 * seed + number))
    return model


def _batches(rank, count, rows=5):
    return [
        (
            normal(rows, 3, seed=1000 * rank + b),
            torch.arange(rows) * (rank + b + 1) % 2,
        )
        for b in range(count)
    ]


def _flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


OPTIMIZERS = {
    "SGD": lambda ps: torch.optim.SGD(ps, lr=0.5),
    "SGD with momentum": lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9),
    "Adam": lambda ps: torch.optim.Adam(ps, lr=0.05),
}


def _rounds_alone(make, counts):
    "The same rounds without ranks: -> the weights after each."
    models = [_net() for _ in counts]
    movers, seen = [make(m.parameters()) for m in models], []
    for turn in range(2):
        for rank, count in enumerate(counts):
            for X, y in _batches(rank + 7 * turn, count):
                movers[rank].zero_grad()
                F.cross_entropy(models[rank](X), y).backward()
                movers[rank].step()
        mean = sum(_flat(m) for m in models) / len(models)
        for model in models:
            nn.utils.vector_to_parameters(mean.clone(), model.parameters())
        seen.append(mean)
    return seen


@chapter.exercise(
    "A loop that says nothing, and then one mean.",
    "For every batch: zero_grad, backward, step. After the loop: all_reduce each "
    "parameter, and divide by the number of ranks, in place.",
    "...  # the usual loop\n"
    "for p in model.parameters():\n"
    "    dist.all_reduce(p.data)\n"
    "    ...",
    mutates=True,
)
def local_round(answer):
    "Some steps alone, then the mean of all weights."

    def rounds(make, counts):
        def fn(rank, n):
            model, seen = _net(), []
            mover = make(model.parameters())
            objects = [id(p) for p in model.parameters()]
            for turn in range(2):
                answer(model, mover, _batches(rank + 7 * turn, counts[rank]))
                seen.append(_flat(model))
            if [id(p) for p in model.parameters()] != objects:
                raise Miss("The parameters are new objects: the optimizer still moves the "
                           "old ones. Fill them in place.", f"rank {rank}")  # fmt: skip
            return seen

        return fn

    for name, counts in (
        ("SGD", [1, 1, 1]), ("SGD", [3, 3]), ("SGD with momentum", [4, 4, 4]),
        ("Adam", [2, 2]), ("Adam", [3, 1, 2]),
    ):  # fmt: skip
        case = f"{len(counts)} ranks, {name}, {counts} batches"
        results, calls, _ = _play(case, rounds(OPTIMIZERS[name], counts), len(counts))
        want = _rounds_alone(OPTIMIZERS[name], counts)
        sent = sum(c.numbers for c in calls if c.rank == 0)
        same(f"{case}: numbers that rank 0 sent in two rounds", sent, 2 * len(want[0]),
             "The ranks talk once per round, after the last batch, about their weights and "
             "nothing else.")  # fmt: skip
        for rank, seen in enumerate(results):
            same(f"{case}: weights of rank {rank} after one round", seen[0], want[0],
                 "One step per batch with this rank's own gradients, old ones cleared; "
                 "then the mean of all ranks' weights.")  # fmt: skip
            same(f"{case}: weights of rank {rank} after two rounds", seen[1], want[1],
                 "Only weights are averaged: momentum and Adam's moments stay each rank's "
                 "own.")  # fmt: skip


@chapter.exercise(
    "Where from, where to: the way back is a gradient's direction.",
    "way = start - the mean of ends; velocity = momentum * velocity + way; Nesterov then "
    "looks one step ahead: the step is way + momentum * velocity.",
    "way_P = start_P - ends_RP.mean(0)\n"
    "velocity_P = momentum * velocity_P + way_P\n"
    "return ..., velocity_P",
)
def outer_step(answer):
    "Nesterov's momentum along the way that the ranks went."
    what = "the new weights and the new velocity"

    def go(case, *given):
        return _pair(case, answer(*(x.clone() if torch.is_tensor(x) else x for x in given)), what, "")  # fmt: skip

    start_P = normal(5)
    for R in (1, 3):
        ends_RP = normal(R, 5, seed=R)
        zero_P = torch.zeros(5, dtype=torch.float64)
        case = f"{R} ranks, lr 1, momentum 0"
        w_P, velocity_P = go(case, start_P, ends_RP, zero_P, 1.0, 0.0)
        same(f"{case}: the weights", w_P, ends_RP.mean(0),
             "With lr 1 and no momentum it is the mean of the ends: w = start - lr * (start "
             "- mean).")  # fmt: skip
        same(f"{case}: the velocity", velocity_P, start_P - ends_RP.mean(0),
             "The way is start minus the mean of the ends, so that a step *against* it goes "
             "forward.")  # fmt: skip
    for lr, momentum in ((0.7, 0.9), (0.5, 0.3)):
        p = nn.Parameter(start_P.clone())
        mover = torch.optim.SGD([p], lr=lr, momentum=momentum, nesterov=True)
        w_P, velocity_P = start_P, torch.zeros(5, dtype=torch.float64)
        for turn in range(3):
            case = f"3 ranks, lr {lr}, momentum {momentum}, turn {turn + 1}"
            ends_RP = w_P + normal(3, 5, seed=50 + turn)
            p.grad = w_P - ends_RP.mean(0)
            mover.step()
            w_P, velocity_P = go(case, w_P, ends_RP, velocity_P, lr, momentum)
            same(f"{case}, beside torch.optim.SGD(nesterov=True)", w_P, p.detach(),
                 "velocity = momentum * velocity + way, then w = start - lr * (way + "
                 "momentum * velocity).")  # fmt: skip
            same(f"{case}: the velocity", velocity_P, mover.state[p]["momentum_buffer"],
                 "The velocity that is returned is momentum * velocity + way, without "
                 "lr.")  # fmt: skip


@chapter.exercise(
    "What does a receiver need to write down sign * size for P numbers?",
    "One letter: the mean of |v| as float32 (4 bytes), and pack_bits(v > 0). All-gather the "
    "letters, unpack each, and take the mean.",
    "size = v_P.abs().mean().float().view(1)\n"
    "mine = torch.cat([size.view(torch.uint8), pack_bits(v_P > 0)])\n"
    "letters = [torch.empty_like(mine) for _ in range(dist.get_world_size())]\n"
    "dist.all_gather(letters, mine)\n"
    "...  # read each: letter[:4].clone().view(torch.float32), unpack_bits(letter[4:], P)",
    seconds=10,
)
def exchange_signs(answer):
    "One bit per number, between ranks."
    for n, P, dtype in ((3, 11, torch.float64), (2, 16, torch.float32), (4, 5, torch.float32)):  # fmt: skip
        case = f"{n} ranks, {P} numbers"
        v_RP = normal(n, P, seed=P).to(dtype) * torch.arange(1, n + 1)[:, None]
        v_RP[:, 2] = 0.0
        sent_RP = torch.where(v_RP > 0, 1.0, -1.0) * v_RP.abs().mean(1, keepdim=True)
        what = "the mean of all and its own"

        def fn(rank, n, v_RP=v_RP, what=what):
            return _pair(f"rank {rank}", answer(v_RP[rank].clone()), what, "")

        results, calls, _ = _play(case, fn, n)
        for rank, (mean_P, mine_P) in enumerate(results):
            same(f"{case}: what rank {rank} sent", mine_P, sent_RP[rank],
                 "Every number becomes its sign times this rank's mean |v|, a size of its "
                 "own for each rank; 0 counts as minus.", rtol=1e-5)  # fmt: skip
            same(f"{case}: the mean on rank {rank}", mean_P, sent_RP.mean(0),
                 "Read each rank's letter with *its* size, and take the mean over ranks.",
                 rtol=1e-5)  # fmt: skip
        bytes_of = sum(c.bytes for c in calls if c.rank == 0)
        same(f"{case}: bytes that rank 0 brings", bytes_of, -(-P // 8) + 4,
             "ceil(P / 8) bytes of packed signs and 4 for the size as float32: no more "
             "travels.")  # fmt: skip
        same(f"{case}: calls of rank 0", sum(c.rank == 0 for c in calls), 1,
             "One letter, one call: torch.cat the size's 4 bytes and the packed signs.")  # fmt: skip


# ---- two kinds of link ----


@chapter.exercise(
    "First make the message small where bytes are cheap.",
    "reduce_scatter inside the box leaves each rank with the box's sum of one k-th; "
    "all_reduce across the boxes; all_gather inside.",
    "k = dist.get_world_size(inside)\n"
    "parts = list(F.pad(x_N, (0, -len(x_N) % k)).view(k, -1))\n"
    "mine = torch.empty_like(parts[0])\n"
    "dist.reduce_scatter(mine, parts, group=inside)\n"
    "...",
    seconds=10,
)
def two_level_sum(answer):
    "The sum over all ranks, most of it inside the boxes."
    for boxes, k, N in ((2, 3, 12), (3, 2, 7), (2, 2, 1), (2, 1, 5), (1, 3, 8)):
        n = boxes * k
        case = f"{boxes} boxes of {k} ranks, {N} numbers"
        x_RN = normal(n, N, seed=N)

        def fn(rank, n, boxes=boxes, k=k, x_RN=x_RN):
            inside = [
                dist.new_group([b * k + i for i in range(k)]) for b in range(boxes)
            ]
            across = [
                dist.new_group([b * k + i for b in range(boxes)]) for i in range(k)
            ]
            return answer(x_RN[rank].clone(), inside[rank // k], across[rank % k])

        results, _, links = _play(case, fn, n)
        for rank in range(n):
            same(f"{case}: on rank {rank}", results[rank], x_RN.sum(0),
                 "Every rank leaves with the sum over all ranks, in x's own length: fill up "
                 "with zeros where k does not divide it, and cut them off at the end.")  # fmt: skip
        part = -(-N // k) * 8
        limit = 2 * (boxes - 1) / boxes * part + 8 * boxes
        slow, fast = Counter(), Counter()
        for (source, to), size in links.items():
            (fast if source // k == to // k else slow)[source] += size
        sent = [[slow[rank], fast[rank]] for rank in range(n)]
        if max(slow.values(), default=0) > limit:
            raise Miss("Too much goes from box to box. Across, a rank takes part with its "
                       "k-th of the sum only: reduce_scatter inside comes first, and all "
                       "k ranks of a box share the work.",
                       f"{case}: bytes that each rank sends [to other boxes, inside]",
                       sent, f"at most {limit:.0f} to other boxes")  # fmt: skip
