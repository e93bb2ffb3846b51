"""Chapter 13: a chip that is moved to, timed, fed, rounded on, and counted."""

import contextlib
import math
from itertools import pairwise

import numpy as np
import torch
import torch._dynamo  # optimisers need it: import it here, not in a check's time limit
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from utils.built import gpu, precision, profiling
from utils.exercises import Chapter, Miss, same

chapter = Chapter("13_gpu")
keeps_random = torch.random.fork_rng(devices=[])  # leave the reader's dice alone


def _at_most(case, got, most, rule):
    "Assert that a cost stays within its limit."
    if got > most:
        raise Miss(rule, case, got, f"at most {most:,}")


def _dtype(thing):
    return getattr(thing, "dtype", type(thing).__name__)


def _pair(case, got, rule):
    "Two things that an answer returns; Miss where there are not two."
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        size = f" of {len(got)}" if isinstance(got, (tuple, list)) else ""
        raise Miss(rule, case, f"{type(got).__name__}{size}", "two things")
    return got


# ---- where ----


def _places(thing):
    "A nested batch with a word for each tensor: where it is, its type, its shape."
    if isinstance(thing, torch.Tensor):
        dtype = str(thing.dtype).removeprefix("torch.")
        return f"{thing.device.type} {dtype} {tuple(thing.shape)}"
    if isinstance(thing, dict):
        return {name: _places(value) for name, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return type(thing)(_places(value) for value in thing)
    return thing


@chapter.exercise(
    "A tensor moves with .to(device). A dict, a list or a tuple holds things that move "
    "the same way: the function may call itself.",
    "Four cases, in this order: tensor, dict, list or tuple, anything else. A dict gives "
    "{name: to_device(value, device) for ...}.",
    "return type(thing)(to_device(v, device) for v in thing) keeps a list a list; "
    "whatever is none of these goes back as it is.",
)
def to_device(answer):
    "A nested batch, moved to a device."
    meta = torch.device("meta")
    same("a tensor (2, 3), to the device 'meta'",
         _places(answer(torch.ones(2, 3), meta)), "meta float32 (2, 3)",
         rule="A tensor moves with thing.to(device), which returns a new one.")  # fmt: skip
    flat = {"x": torch.ones(2), "y": torch.tensor([1, 2]), "name": "train", "size": 4}
    same("{'x': tensor, 'y': tensor, 'name': 'train', 'size': 4}",
         _places(answer(flat, meta)),
         {"x": "meta float32 (2,)", "y": "meta int64 (2,)", "name": "train", "size": 4},
         rule="A dict keeps its names; every tensor in it moves, the rest stays.")  # fmt: skip
    word = torch.ones(4), "a word"
    deep = {"more": [torch.tensor([True]), {"z": word}, word], "left": None}
    moved = "meta float32 (4,)", "a word"
    same("{'more': [tensor, {'z': (tensor, 'a word')}, (tensor, 'a word')], 'left': None}",
         _places(answer(deep, meta)),
         {"more": ["meta bool (1,)", {"z": moved}, moved], "left": None},
         rule="Dicts in lists, tuples in dicts: the function calls itself, and a list "
              "stays a list, a tuple a tuple.")  # fmt: skip
    case = "[tensor([5., 6.], requires_grad=True)], to the device 'cpu'"
    there = answer([torch.tensor([5.0, 6.0], requires_grad=True)], "cpu")[0]
    same(f"{case}: where it is", there.device.type, "cpu",
         rule="Move to the device that is handed in.")  # fmt: skip
    same(case, there, [5, 6], rule="Moving changes no number.")
    same(f"{case}: requires_grad", there.requires_grad, True,
         rule="The tensor has lost its graph: only the device changes.")  # fmt: skip


# ---- time ----


class _FakeChip:
    "A queue and a clock that only move when they are asked to: launching costs 1."

    def __init__(self, work):
        self.work, self.now, self.done = list(work), 0.0, 0.0
        self.calls = self.looks = 0

    def run(self):
        self.calls, self.now = self.calls + 1, self.now + 1
        self.done = max(self.now, self.done) + (self.work.pop(0) if self.work else 10)

    def wait(self):
        self.now = max(self.now, self.done)

    def clock(self):
        self.looks += 1
        return self.now


@chapter.exercise(
    "run() only puts work into a queue. When is the queue empty?",
    "Three parts: call run warm_up times and wait; then, repeats times, read the clock, "
    "run, wait, read the clock; then the median of the differences.",
    "start = clock(); run(); wait(); taken.append(clock() - start). At the end: "
    "statistics.median(taken).",
)
def seconds(answer):
    "The time of one call, work on the chip included."

    def timed(work, **options):
        chip = _FakeChip(work)
        return answer(chip.run, chip.wait, clock=lambda: chip.clock(), **options), chip

    case = "launching costs 1, the work 90, 40, then 10, 10, 50, 10, 10; warm_up=2, repeats=5"
    got, chip = timed([90, 40, 10, 10, 50, 10, 10], warm_up=2, repeats=5)
    same(f"{case}: is the clock read?", chip.looks > 0, True,
         rule="Read the clock that was handed in, clock().")  # fmt: skip
    same(case, got, 11, rule="The median over `repeats` awaited calls: 1 + 10.")
    case = "the work 70, 90, 40, then 10; warm_up=3, repeats=1"
    got, chip = timed([70, 90, 40, 10], warm_up=3, repeats=1)
    same(f"{case}: calls of run()", chip.calls, 4,
         rule="`warm_up` calls that do not count, then `repeats` that do.")  # fmt: skip
    same(case, got, 11, rule="Warm up, wait, and only then start the clock.")
    case = "the work 4 times 7, then 30, 20, 90, 40, 10, 80; warm_up=4, repeats=6"
    got, chip = timed([7, 7, 7, 7, 30, 20, 90, 40, 10, 80], warm_up=4, repeats=6)
    same(f"{case}: calls of run()", chip.calls, 10,
         rule="`warm_up` calls that do not count, then `repeats` that do.")  # fmt: skip
    same(case, got, 36, rule="Half of 11 .. 91 is faster, half slower: the median is the "
         "mean of 31 and 41.")  # fmt: skip
    case = "the work 30, 20, 90, 40; warm_up=0, repeats=4"
    same(case, timed([30, 20, 90, 40], warm_up=0, repeats=4)[0], 36,
         rule="Of four calls, too, the median is the mean of the two in the middle.")  # fmt: skip
    same("called without `repeats` and `warm_up`: calls of run()", timed([])[1].calls, 9,
         rule="They have values of their own: 7 repeats after 2 calls to warm up.")  # fmt: skip


# ---- feeding ----


def _steady(load, copy, compute, workers, overlap):
    "The time between two batches, from playing 120 of them."
    spans = gpu.timeline(load, copy, compute, workers, overlap, 120)
    ends = [span.end for span in spans if span.lane == "chip"]
    return (ends[-1] - ends[59]) / 60


@chapter.exercise(
    "Which of the three can happen at the same time as another? What does not overlap "
    "adds up; what does is as slow as its slowest part.",
    "Without workers all three add up. With them, loading runs beside the chip's side: "
    "copy + compute, or max(copy, compute) if they overlap.",
    "if not workers: return load + copy + compute. Else max(load / workers, side), where "
    "side = max(copy, compute) if overlap else copy + compute.",
)
def step_seconds(answer):
    "The time between two training steps, from its three parts."
    same("load 6, copy 2, compute 3", answer(6, 2, 3), 11,
         rule="One process does one thing after the other: the three add up.")  # fmt: skip
    for case, want, rule in [
        ((12, 2, 3, 1, False), 12, "A worker loads beside the training: the slower of load "
         "and copy + compute sets the pace."),
        ((6, 1, 4, 2, False), 5, "Two workers hand over a batch every load / 2; here the "
         "chip's side is slower."),
        ((6, 2, 3, 3, True), 3, "With overlap, copy and compute run at the same time: the "
         "slowest of load / workers, copy and compute."),
        ((6, 4, 3, 0, True), 13, "Without workers there is no next batch that could be "
         "copied ahead: all add up."),
        ((0.005, 0.0005, 0.0012, 2, False), 0.0025, "load / workers is no whole number: "
         "a batch every 0.0025 s."),
        ((1, 9, 7, 3, True), 9, "The wire can be the slowest as well."),
    ]:  # fmt: skip
        told = "load {}, copy {}, compute {}, {} workers, overlap {}".format(*case)
        same(told, answer(*case), want, rule)
    for case in [(40, 2, 3, 4, False), (40, 2, 3, 5, True), (0.5, 3, 1, 1, True)]:
        told = "load {}, copy {}, compute {}, {} workers, overlap {}".format(*case)
        same(f"{told}: 120 batches played through", answer(*case), _steady(*case),
             rule="The slowest stage sets the pace, and every worker counts: load / "
                  "workers.", rtol=1e-3)  # fmt: skip


@chapter.exercise(
    "What depends on the row alone, and not on the epoch, can be done once, in __init__.",
    "__init__: parse every row (slow.parse(i) gives the row alone), stack, scale; the "
    "labels are slow.y_N. __getitems__ gets a list of row numbers.",
    "X_ND = torch.stack([slow.parse(i) for i in range(len(slow))]); self.X_ND = (X_ND - "
    "0.3) / 0.4; self.y_N = slow.y_N; __getitems__: self.X_ND[rows], self.y_N[rows].",
    kind="class",
)
@keeps_random
def Ready(answer):
    "A dataset that has done its work before the first batch."
    rng = np.random.default_rng(0)
    X_ND, y_N = rng.random((23, 6)).round(2), rng.integers(0, 10, 23)
    slow = gpu.TextDigits(X_ND, y_N)
    lines = list(slow.lines)
    ready = answer(slow)
    same("Ready(slow): is slow as it was?",
         slow.lines == lines and torch.equal(slow.y_N, torch.as_tensor(y_N)), True,
         rule="Ready changes the dataset that it was made from: others still read it.")  # fmt: skip
    same("Ready(slow) of 23 rows: rows parsed", slow.parsed, 23,
         rule="Parse every row once, in __init__.")  # fmt: skip
    same("len(Ready(slow)) of 23 rows", len(ready), 23, rule="As many as slow has.")
    same("Ready(slow): does it have __getitems__?", hasattr(ready, "__getitems__"), True,
         rule="__getitems__ is missing (mind the s): a DataLoader asks it for a whole "
              "batch.")  # fmt: skip
    lists = [name for name, kept in vars(ready).items()
             if isinstance(kept, (list, tuple)) and any(map(torch.is_tensor, kept))]  # fmt: skip
    same("Ready(slow): lists of tensors that it keeps", len(lists), 0,
         rule="Stack the rows once, in __init__: X_ND is one tensor.")  # fmt: skip
    rows = [5, 0, 17, 3]
    with profiling.Work() as work:
        got = ready.__getitems__(rows)
    case = f"__getitems__({rows})"
    x_BD, y_B = _pair(case, got, "A batch is a pair: rows (B, D) and labels (B,).")
    same(f"{case}: the rows", x_BD, (X_ND[rows] - 0.3) / 0.4, rtol=1e-5, atol=1e-6,
         rule="The same numbers as slow[i], one row each, in this order.")  # fmt: skip
    same(f"{case}: the labels", y_B, y_N[rows],
         rule="One label per row, in the order of the rows.")  # fmt: skip
    same(f"{case}: the rows' dtype", _dtype(x_BD), torch.float32,
         rule="parse gives float32, and so does scaling it.")  # fmt: skip
    same(f"{case}: the labels' dtype", _dtype(y_B), torch.int64,
         rule="Labels stay a tensor of whole numbers: cross_entropy wants it so.")  # fmt: skip
    same(f"{case}: rows parsed for it", slow.parsed - 23, 0,
         rule="A batch still parses text: move the work into __init__.")  # fmt: skip
    _at_most(f"{case}: numbers written", work.writes, 2 * (4 * 6 + 4 + 4),
             "A batch is still scaled or copied: do it once, in __init__.")  # fmt: skip
    with profiling.Work() as work:
        ready.__getitems__(list(range(23)))
    _at_most("__getitems__ of all 23 rows: operators", work.calls, 8,
             "Too many operators for one batch: index once with the whole list.")  # fmt: skip
    same("a DataLoader, 9 rows per batch: batches",
         gpu.drain(ready, 9, collate_fn=gpu.as_it_is)[1], 3,
         rule="Two full batches and one of 5: __getitems__ takes lists of any length.")  # fmt: skip


# ---- formats ----


@chapter.exercise(
    "Cut the bits into three whole numbers first: sign, exponent field, fraction field.",
    "bits >> (E + M) is the sign, (bits >> M) % 2**E the exponent field, bits % 2**M the "
    "fraction field. Then the three rows of the table.",
    "field 0: fraction / 2**M * 2.0**(1 - bias); field 2**E - 1: inf, or nan if the "
    "fraction is not 0; else (1 + fraction / 2**M) * 2.0**(field - bias).",
)
def value_of(answer):
    "The number behind a pattern of bits."

    def told(bits, E, M):
        text = f"{bits:0{1 + E + M}b}"
        return f"E = {E}, M = {M}, bits {text[0]} {text[1 : 1 + E]} {text[1 + E :]}"

    for bits, want, rule in [
        (0b0_10000_1000000000, 3.0, "(1 + fraction / 2**M) * 2**(field - bias)."),
        (0b1_10000_1000000000, -3.0, "The first bit is the sign: 1 means minus."),
        (0b0_00000_0000000001, 2.0**-24, "Subnormal: fraction / 2**M * 2**(1 - bias)."),
        (0b0_11111_0000000000, math.inf, "All exponent bits 1, fraction 0: infinity."),
        (0b1_11111_0000000000, -math.inf, "Infinity has a sign, too."),
        (0b0_11111_0000000001, math.nan, "All exponent bits 1 and a fraction: nan."),
        (0b1_00000_0000000000, 0.0, "The smallest exponent and no fraction: zero."),
    ]:
        same(f"fp16: {told(bits, 5, 10)}", answer(bits, 5, 10), want, rule)
    same(f"fp16: {told(1 << 15, 5, 10)}, its sign",
         math.copysign(1, answer(1 << 15, 5, 10)), -1,
         rule="Zero has a sign, too: -1.0 * 0 is -0.0, while -1 * 0 is 0.")  # fmt: skip
    for bits, want, rule in [
        (0b0_10000001_0100000, 5.0, "E and M differ here: bias and 2**M follow from them."),
        (0b0_11111111_0000000, math.inf, "Infinity has the field 2**E - 1, here 255."),
        (0b0_00011111_0000000, 2.0**-96, "31 is a field like any other where E is 8."),
    ]:  # fmt: skip
        same(f"bf16: {told(bits, 8, 7)}", answer(bits, 8, 7), want, rule, atol=0)
    same(f"bf16: {told(1, 8, 7)}, in units of 2**-133", answer(1, 8, 7) * 2.0**133, 1,
         rule="Subnormal: fraction / 2**M * 2**(1 - bias), with the bias of this E.")  # fmt: skip
    rng = np.random.default_rng(0)
    for name, E, M, dtype in [
        ("fp16", 5, 10, torch.float16),
        ("bf16", 8, 7, torch.bfloat16),
        ("e5m2", 5, 2, torch.float8_e5m2),
    ]:
        size = dtype.itemsize
        for bits in rng.integers(0, 2 ** (1 + E + M), 120).tolist():
            pattern = np.array([bits], f"u{size}").view(f"i{size}")
            want = torch.from_numpy(pattern).view(dtype)
            same(f"{name}: {told(bits, E, M)}", answer(bits, E, M), want.double().item(),
                 rule="Sign, exponent and fraction lie in this order, from the left.",
                 atol=0)  # fmt: skip


def _rounded(x, E, M):
    "Round by brute force over the exponents, with Python's own half-to-even `round`."
    bias, out = 2 ** (E - 1) - 1, []
    for v in x.tolist():
        if v == 0 or not math.isfinite(v):
            out.append(v)
            continue
        e = max(math.frexp(v)[1] - 1, 1 - bias)
        near = math.ldexp(round(math.ldexp(v, M - e)), e - M)
        largest = (2 - 2.0**-M) * 2.0**bias
        out.append(math.copysign(math.inf, v) if abs(near) > largest else near)
    return torch.tensor(out, dtype=torch.float64)


@chapter.exercise(
    "Find the spacing of the numbers around each x. Then it is: divide by the spacing, "
    "round, multiply.",
    "torch.frexp(x).exponent - 1 is the exponent of x's leading bit. Below 1 - bias the "
    "spacing stops shrinking: clamp. The spacing is 2.0 ** (exponent - M).",
    "spacing = 2.0 ** (exponent.double().clamp(min=1 - bias) - M); y = torch.round(x / "
    "spacing) * spacing; inf with x's sign where |y| > (2 - 2.0**-M) * 2.0**bias.",
)
def round_to(answer):
    "The nearest number that a format of E exponent and M fraction bits has."
    exact = {"atol": 0, "rtol": 1e-12}

    def wide(*numbers):
        return torch.tensor(numbers, dtype=torch.float64)

    for name, x, rule in [
        ("1, 1.0004, -3.1, 0.1, 1000.8, 0", wide(1, 1.0004, -3.1, 0.1, 1000.8, 0),
         "torch.round(x / spacing) * spacing."),
        ("two ties, 1 + 1/2048 and 1 + 3/2048", wide(1 + 2**-11, 1 + 3 * 2**-11),
         "A tie goes to the even neighbour: torch.round does so."),
    ]:  # fmt: skip
        same(f"fp16 (E = 5, M = 10) of {name}", answer(x, 5, 10), x.half().double(), rule,
             **exact)  # fmt: skip
    small = wide(3e-5, 1e-7, 2e-8, -4e-8, 2.0**-24)
    same("fp16 of 3e-5, 1e-7, 2e-8, -4e-8, 2**-24, shown in units of 2**-24",
         answer(small, 5, 10) * 2**24, small.half().double() * 2**24,
         rule="Below the smallest normal the spacing is 2 ** (1 - bias - M).", **exact)  # fmt: skip
    large = wide(65504, 65519, 65520, 7e4, -1e9)
    same("fp16 of 65504, 65519, 65520, 70000, -1e9", answer(large, 5, 10),
         large.half().double(),
         rule="What rounds to more than (2 - 2**-M) * 2**bias is infinite.", **exact)  # fmt: skip
    odd = wide(math.inf, -math.inf, math.nan)
    same("fp16 of infinity, minus infinity, nan", answer(odd, 5, 10), odd,
         rule="Infinity stays infinity, and nan stays nan.")  # fmt: skip
    far = wide(1e20, -1e-6, 3.3e38, 3.4e38)
    same("bf16 (E = 8, M = 7) of 1e20, -1e-6, 3.3e38, 3.4e38", answer(far, 8, 7),
         far.bfloat16().double(),
         rule="The range follows from E: bf16 ends at 3.39e38, not at 65,504.", **exact)  # fmt: skip
    tiny = wide(1e-20, 1e-38, 1e-40, -3e-41)
    same("bf16 of 1e-20, 1e-38, 1e-40, -3e-41, shown in units of 2**-133",
         answer(tiny, 8, 7) * 2.0**133, tiny.bfloat16().double() * 2.0**133,
         rule="Below 2 ** (1 - bias), with the bias of this E, the spacing stands still.",
         **exact)  # fmt: skip
    g = torch.Generator().manual_seed(0)
    sizes = torch.randint(-42, 38, (400,), generator=g)
    x = (torch.randn(400, generator=g) * 10.0**sizes).double()
    x[::2] = torch.randn(200, generator=g, dtype=torch.float64).float()
    for name, E, M, dtype in [
        ("fp16", 5, 10, torch.float16),
        ("bf16", 8, 7, torch.bfloat16),
        ("e5m2", 5, 2, torch.float8_e5m2),
        ("TF32", 8, 10, None),  # formats without a dtype
        ("seven bits", 3, 3, None),
        ("float64's exponents", 11, 20, None),
    ]:
        want = x.to(dtype).double() if dtype else _rounded(x, E, M)
        same(f"400 numbers of all sizes in {name} (E = {E}, M = {M})", answer(x, E, M),
             want, rule="E and M may be any: the bias, the spacing and the largest number "
                        "follow from them.", **exact)  # fmt: skip


# ---- mixed precision ----


def _weights(*sizes):
    "Weights of 0, a tensor of each size, and an SGD optimiser (lr = 1) for them."
    weights = [nn.Parameter(torch.zeros(size)) for size in sizes]
    return weights, torch.optim.SGD(weights, lr=1.0)


def _flat(tensors):
    return torch.cat([t.detach().flatten() for t in tensors])


def _grads(weights):
    "All gradients in a row; 0 where a weight has none."
    return _flat(torch.zeros_like(w) if w.grad is None else w.grad for w in weights)


@chapter.exercise(
    "backward: the loss times the scale. step: the gradients divided by it, a look at "
    "whether they are finite, and only then the optimiser.",
    "The optimiser knows its weights: for group in optimizer.param_groups, for p in "
    "group['params'], p.grad (None if it took no part). grad.div_(self.scale) in place.",
    "not finite: scale / 2, good = 0, return False. Else optimizer.step(), good += 1, and "
    "at good == patience: scale * 2, good = 0; return True.",
    kind="class",
)
@keeps_random
def LossScaler(answer):
    "A loss scaler: scaled backward, unscaled step, steps left out, a scale that adapts."
    slopes = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0])
    weights, optimizer = _weights(3, 2)
    scaler = answer(scale=1024.0, patience=2)
    loss = sum((w * s).sum() for w, s in zip(weights, slopes)) + 5
    scaler.backward(loss)
    case = "scale 1024, weights (3,) and (2,) with the slopes 1, 2, 3 and 4, 5"
    same(f"{case}: the loss after backward", loss, 5,
         rule="The caller still reports the loss: loss * self.scale is a new tensor.")  # fmt: skip
    same(f"{case}: the gradients after backward", _grads(weights),
         1024 * _flat(slopes), rule="(loss * self.scale).backward().")  # fmt: skip
    stepped = scaler.step(optimizer)
    same(f"{case}: the weights after a step with lr = 1", _flat(weights), -_flat(slopes),
         rule="Divide every gradient by the scale, then optimizer.step().")  # fmt: skip
    same(f"{case}: what step returns", stepped, True,
         rule="step says whether it stepped: return True.")  # fmt: skip
    same(f"{case}: the gradients after step", _grads(weights), _flat(slopes),
         rule="Divide in place, grad.div_(self.scale), and leave them there.")  # fmt: skip
    for name, bad in [("both", weights), ("the first", weights[:1]),
                      ("the second", weights[1:])]:  # fmt: skip
        for w in weights:
            w.grad = torch.ones_like(w)
        for w in bad:
            w.grad[0] = math.inf
        stepped = scaler.step(optimizer)
        case = f"then an inf in {name} of the two gradients"
        same(f"{case}: the weights", _flat(weights), -_flat(slopes),
             rule="One gradient that is not finite leaves out the whole step.")  # fmt: skip
        same(f"{case}: what step returns", stepped, False,
             rule="A step that was left out returns False.")  # fmt: skip
    same("LossScaler(): its scale", answer().scale, 2.0**16,
         rule="Without `scale`, it starts high: at 2.0**16.")  # fmt: skip
    weights, _ = _weights(1)
    answer(scale=2.0**20).backward(weights[0].sum())
    same("scale 2**20: the gradient of a loss with slope 1", _grads(weights), [2.0**20],
         rule="Scale in fp32: 16 bits end at 65,504.")  # fmt: skip
    for kind, bad, first in [
        ("inf", math.inf, 256.0), ("nan", math.nan, 2.0**17), ("-inf", -math.inf, 2.0)
    ]:  # fmt: skip
        ours = answer(scale=first, patience=3)
        theirs = torch.amp.GradScaler("cpu", init_scale=first, growth_interval=3)
        (mine, our_sgd), (yours, their_sgd) = _weights(3, 2), _weights(3, 2)
        g, scales = torch.Generator().manual_seed(0), []
        for step in range(22):
            slopes = [torch.randn(3, generator=g), torch.randn(2, generator=g)]
            if step in (4, 11, 14):
                slopes[0][step % 3] = bad
            if step in (5, 11):
                slopes[1][1] = bad
            for weights, scale in [(mine, ours.backward), (yours, theirs.scale)]:
                for w in weights:
                    w.grad = None
                scaled = scale(sum((w * s).sum() for w, s in zip(weights, slopes)))
                if weights is yours:
                    scaled.backward()
            ours.step(our_sgd)
            theirs.step(their_sgd)
            theirs.update()
            scales.append((float(ours.scale), theirs.get_scale()))
        case = f"22 steps, {kind} at 4, 5, 11, 14, scale {first:g}, patience 3"
        got, want = np.log2(scales).T
        same(f"{case}: log2 of the scale", got, want,
             rule="Half after a bad step, double after `patience` good ones in a row: "
                  "torch.amp.GradScaler's rule.")  # fmt: skip
        same(f"{case}: the weights", _flat(mine), _flat(yours), rtol=1e-5,
             rule="Step for step as with torch.amp.GradScaler.")  # fmt: skip
    (first, second), _ = _weights(3, 2)
    optimizer = torch.optim.SGD([{"params": [first]}, {"params": [second]}], lr=1.0)
    scaler = answer(scale=4.0)
    scaler.backward(first.sum())
    scaler.step(optimizer)
    same("two groups, the second took no part in the loss", _flat([first, second]),
         [-1, -1, -1, 0, 0], rule="Go through all groups; a grad of None is left alone.")  # fmt: skip
    for name, one in [("first", first), ("second", second)]:
        optimizer.zero_grad()
        scaler.backward(first.sum() + second.sum())
        one.grad[0] = math.inf
        scaler.step(optimizer)
        same(f"two groups, an inf in the {name}: the weights", _flat([first, second]),
             [-1, -1, -1, 0, 0],
             rule="One gradient that is not finite, in any group, leaves out the whole "
                  "step.")  # fmt: skip


class _Spy(nn.Module):
    "A small network that notes what reaches it."

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        self.logits = self.inside = None

    def forward(self, x):
        self.logits = self.second(self.first(x).relu())
        if self.logits.requires_grad:
            self.logits.register_hook(self._look)
        return self.logits

    def _look(self, grad):
        self.inside = torch.is_autocast_enabled("cpu")


@contextlib.contextmanager
def _asked_devices():
    "A list of the devices that autocast is opened for; each becomes the CPU's."
    real, seen = torch.autocast.__init__, []

    def opened(self, device_type, *args, **options):
        seen.append(device_type)
        real(self, "cpu", *args, **options)

    torch.autocast.__init__ = opened
    try:
        yield seen
    finally:
        torch.autocast.__init__ = real


class _AskedScaler(precision.LossScaler):
    "A loss scaler that notes what it is asked for."

    def __init__(self, scale):
        super().__init__(scale)
        self.asked = []

    def backward(self, loss):
        self.asked.append("backward")
        super().backward(loss)

    def step(self, optimizer):
        self.asked.append("step")
        return super().step(optimizer)


def _stale(model):
    "Leaves gradients of an earlier batch behind: ones."
    for p in model.parameters():
        p.grad = torch.ones_like(p)


def _sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.5)


def _amp_by_hand(X, y, steps):
    "The weights after steps in bf16."
    model = _Spy()
    optimizer = _sgd(model)
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(model(X), y)
        loss.backward()
        optimizer.step()
    return _flat(model.parameters())


@chapter.exercise(
    "Only the forward pass and the loss belong under torch.autocast; what follows is as "
    "always.",
    "with torch.autocast(X_BD.device.type, dtype=dtype): loss = F.cross_entropy(...). "
    "Out of it: backward and step, both through the scaler if there is one.",
    "optimizer.zero_grad() first; loss.backward(); optimizer.step() or "
    "scaler.backward(loss); scaler.step(optimizer); return loss.detach().",
    mutates=True,
)
@keeps_random
def amp_step(answer):
    "One training step in mixed precision."
    g = torch.Generator().manual_seed(1)
    X, y = torch.randn(13, 6, generator=g), torch.randint(3, (13,), generator=g)
    near = {"rtol": 0.01, "atol": 1e-3}  # what bf16 leaves
    mean = F.cross_entropy(_Spy()(X), y)
    model = _Spy()
    optimizer = _sgd(model)
    _stale(model)
    case = "a bf16 step of a network 6-8-3 on 13 rows"
    loss = answer(model, X, y, optimizer, torch.bfloat16)
    same(f"{case}: the loss", loss, mean, rtol=0.02,
         rule="The mean cross-entropy of the batch.")  # fmt: skip
    same(f"{case}: the weights' types", {p.dtype for p in model.parameters()},
         {torch.float32}, rule="Autocast leaves the weights in fp32, and so do we.")  # fmt: skip
    same(f"{case}: the logits' type", getattr(model.logits, "dtype", None), torch.bfloat16,
         rule="The forward pass belongs under torch.autocast(X_BD.device.type, "
              "dtype=dtype).")  # fmt: skip
    same(f"{case}: what comes back", type(loss).__name__, "Tensor",
         rule="Return the loss as a tensor: loss.detach().")  # fmt: skip
    same(f"{case}: does the loss require grad?", loss.requires_grad, False,
         rule="Whoever keeps the loss keeps its graph: return loss.detach().")  # fmt: skip
    same(f"{case}: the loss's type", loss.dtype, torch.float32,
         rule="cross_entropy belongs under autocast, which computes it in fp32.")  # fmt: skip
    same(f"{case}: did backward run under autocast?", model.inside, False,
         rule="Only forward and loss belong there; backward follows their types.")  # fmt: skip
    same(f"{case}, old gradients of 1 left behind: the weights", _flat(model.parameters()),
         _amp_by_hand(X, y, 1), **near, rule="zero_grad, forward, backward, one step.")  # fmt: skip
    # the guard round an answer looks at what comes back, which would count as a wait
    bare = getattr(answer, "__wrapped__", answer)
    with profiling.Work() as work:
        bare(model, X, y, optimizer, torch.bfloat16)
    same(f"{case}: values that Python waited for", work.syncs, 0,
         rule="Python waits for the chip where it asks for a value, as .item(), float(x), "
              "`if x` and .tolist() do. Return loss.detach(), a tensor.")  # fmt: skip
    answer(model, X, y, optimizer, torch.bfloat16)
    same("three steps on the same batch: the weights", _flat(model.parameters()),
         _amp_by_hand(X, y, 3), rtol=0.01, atol=2e-3,
         rule="From the second step on it goes astray: are old gradients still added? "
              "optimizer.zero_grad().")  # fmt: skip
    answer(model, X, y, optimizer, torch.float16)
    same("a step in float16: the logits' type", model.logits.dtype, torch.float16,
         rule="The type is the one that is asked for: dtype=dtype.")  # fmt: skip
    there, nowhere = _Spy().to("meta"), X.to("meta")
    with _asked_devices() as seen:
        answer(there, nowhere, y.to("meta"), _sgd(there), torch.bfloat16)
    same("a batch on the device 'meta': autocast is for", seen, ["meta"],
         rule="Autocast is opened once, for the kind of device that the batch is on: "
              "X_BD.device.type.")  # fmt: skip
    same("is the model in training mode, as before?", model.training, True,
         rule="A training step leaves the model in training mode.")  # fmt: skip
    model, scaler = _Spy(), _AskedScaler(8.0)
    _stale(model)
    loss = answer(model, X, y, _sgd(model), torch.bfloat16, scaler)
    case = "a step with a scaler of 8, old gradients of 1 left behind"
    same(f"{case}: what it was asked for", scaler.asked, ["backward", "step"],
         rule="The scaler does both: scaler.backward(loss), then scaler.step(optimizer).")  # fmt: skip
    same(f"{case}: the weights", _flat(model.parameters()), _amp_by_hand(X, y, 1),
         **near, rule="zero_grad with a scaler, too, and one step: the scaler's own.")  # fmt: skip
    same(f"{case}: the loss", loss, mean, rtol=0.02,
         rule="The loss itself is wanted, not the scaled one.")  # fmt: skip


# ---- memory and work ----


class _Double(nn.Module):
    def forward(self, x):
        return x.double()


class _LastSquared(nn.Module):
    "The squares of the last ten columns, which are a view."

    def forward(self, x):
        return x[..., -10:] ** 2


@chapter.exercise(
    "torch.autograd.graph.saved_tensors_hooks(pack, unpack) calls pack with every tensor "
    "that backward will need.",
    "The same memory can be saved twice (relu's result is the next layer's input): keep a "
    "dict by the storage's data_ptr(). Weights are saved, too, but were there before.",
    "def note(t): s = t.untyped_storage(); kept[s.data_ptr()] = s.nbytes(); return t. Skip "
    "the storages of model.parameters().",
)
@keeps_random
def saved_bytes(answer):
    "What a forward pass keeps for the backward pass."
    torch.manual_seed(0)

    def network():
        return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 7))

    X = torch.randn(50, 20)
    same("Linear(20, 30), ReLU, Linear(30, 7) on 50 rows of fp32", answer(network(), X),
         4 * 50 * (20 + 30),
         rule="Each layer's input, 20 and 30 wide, once, without the weights.")  # fmt: skip
    deep = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 9), nn.Sigmoid())
    for shape in ((10, 8), (5, 2, 8)):
        case = f"Linear(8, 6), Tanh, Linear(6, 9), Sigmoid on a batch {shape}"
        same(case, answer(deep, torch.randn(shape)), 4 * 10 * (8 + 6 + 9),
             rule="The input, and what tanh and sigmoid return: any number of axes, each "
                  "memory once.")  # fmt: skip
    same(f"{case}: is the model in training mode, as before?", deep.training, True,
         rule="The model is left in eval mode: it is the caller's.")  # fmt: skip
    same(f"{case}: gradients in the model", sum(p.grad is not None for p in
         deep.parameters()), 0,
         rule="A forward pass is enough: nothing is asked of backward.")  # fmt: skip
    same("the first network in bf16", answer(network().bfloat16(), X.bfloat16()),
         2 * 50 * (20 + 30), rule="A bf16 number has 2 bytes: element_size().")  # fmt: skip
    mixed = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), _Double(), nn.Sigmoid())
    same("Linear(20, 30), Tanh, from here in float64, Sigmoid", answer(mixed, X),
         4 * 50 * (20 + 30) + 8 * 50 * 30,
         rule="Each tensor has its own size of a number: t.element_size().")  # fmt: skip
    bent = nn.Sequential(nn.PReLU(), nn.Linear(20, 30), nn.PReLU())
    same("PReLU, Linear(20, 30), PReLU on 50 rows", answer(bent, X),
         4 * 50 * (20 + 20 + 30),
         rule="What each of the three is given. The weights of all layers stay out, the "
              "single number of a PReLU, too.")  # fmt: skip
    cut = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), _LastSquared())
    same("Linear(20, 30), Tanh, the squares of its last 10 columns", answer(cut, X),
         4 * 50 * (20 + 30),
         rule="The last columns are a view: they lie in tanh's result, which is kept "
              "anyway.")  # fmt: skip
    cut = nn.Sequential(nn.Linear(20, 30), _LastSquared())
    same("Linear(20, 30), the squares of its last 10 columns", answer(cut, X),
         4 * 50 * (20 + 30),
         rule="The view keeps all 30 columns alive: t.untyped_storage().nbytes().")  # fmt: skip
    flat = torch.randn(5 + 30 * 20)  # as a wrapper lays weights end to end
    tight = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 30))
    tight[1].weight = nn.Parameter(flat[5:].view(30, 20))
    same("two layers, the second one's weights from place 5 of a longer storage",
         answer(tight, X), 4 * 50 * (20 + 20),
         rule="A weight, too, is known by its storage.")  # fmt: skip
    many = nn.Sequential(*[nn.Linear(16, 16) for _ in range(12)])
    same("twelve layers of 16 in a row, 32 rows", answer(many, torch.randn(32, 16)),
         4 * 32 * 16 * 12,
         rule="Twelve layers keep twelve inputs. Does pack return the tensor? Else its "
              "memory is used again.")  # fmt: skip


@chapter.exercise(
    "P counts the weights and constants of all layers: (D + 1) * H each.",
    "Four bytes per number. Gradients: one per weight. Optimiser: `states` per weight. "
    "Activations: each layer's input, and the loss's (B, C) at the end.",
    "activations = 4 * B * sum(widths): all inputs, the ReLUs' results among them, plus "
    "the log-probabilities of the last width.",
)
def step_bytes(answer):
    "The memory of a training step, from its widths."
    rules = {
        "weights": "4 bytes for each of the (D + 1) * H numbers of every layer.",
        "gradients": "One gradient per weight, in fp32, whatever the batch.",
        "optimizer": "`states` numbers per weight, 4 bytes each.",
        "activations": "4 * B * (every layer's input, and the log-probabilities).",
    }
    for widths, B, states, want in [
        ([30, 50, 200], 64, 2, (4 * 11_750, 4 * 11_750, 8 * 11_750, 4 * 64 * 280)),
        ([30, 50, 200], 64, 0, (4 * 11_750, 4 * 11_750, 0, 4 * 64 * 280)),
        ([30, 50, 200], 64, 1, (4 * 11_750, 4 * 11_750, 4 * 11_750, 4 * 64 * 280)),
        ([10, 20, 20, 20, 4], 8, 2, (4 * 1_144, 4 * 1_144, 8 * 1_144, 4 * 8 * 74)),
        ([7, 3], 5, 2, (4 * 24, 4 * 24, 8 * 24, 4 * 5 * 10)),
    ]:
        case = f"widths {widths}, B = {B}, states = {states}"
        got = answer(widths, B, states)
        if not isinstance(got, dict) or set(got) != set(rules):
            raise Miss("A dict with four names is wanted.", case, got, list(rules))
        for (name, rule), bytes_ in zip(rules.items(), want):
            same(f"{case}: {name}", got[name], bytes_, rule)
    same("widths [7, 3], B = 5: optimizer", answer([7, 3], 5)["optimizer"], 8 * 24,
         rule="Without `states`, Adam's two.")  # fmt: skip


@chapter.exercise(
    "A product (B, D) @ (D, H) has B * D * H multiplications and as many additions.",
    "Backward has two products of the same size for each layer: one for the weights, one "
    "for the layer's input. Whose input needs no gradient?",
    "products = [2 * B * D * H for D, H in pairwise(widths)]; "
    "return 3 * sum(products) - products[0].",
)
@keeps_random
def step_flops(answer):
    "The operations of a training step, from its widths."
    first, second = 2 * 16 * 64 * 32, 2 * 16 * 32 * 10
    same("widths [64, 32, 10], B = 16", answer([64, 32, 10], 16), 2 * first + 3 * second,
         rule="Three products per layer, two for the first.")  # fmt: skip
    for widths, B in [([5, 7], 3), ([5, 7, 11], 4), ([6, 5, 4, 3, 2, 8], 2)]:
        layers = [nn.Linear(D, H) for D, H in pairwise(widths)]
        with FlopCounterMode(display=False) as counter:
            nn.Sequential(*layers)(torch.zeros(B, widths[0])).sum().backward()
        same(f"widths {widths}, B = {B}: PyTorch's counter", answer(widths, B),
             counter.get_total_flops(),
             rule="Any number of layers: three products each, two for the first.")  # fmt: skip


@chapter.exercise(
    "Sort the spans by their start. Walk through them with one number: until when has "
    "something been running so far?",
    "A span that starts after `until` leaves a gap of start - until. Then until = "
    "max(until, end): a short span inside a long one must not move it back.",
    "spans = sorted(spans); first = until = spans[0][0]; for start, end in spans: idle += "
    "max(0, start - until); until = max(until, end). Return idle / (until - first).",
)
def idle_share(answer):
    "The share of a trace in which nothing ran."
    for spans, want, rule in [
        ([(0.0, 2.0), (5.0, 6.0), (8.0, 10.0)], 0.5, "3 + 2 of 10 are idle."),
        ([(0.0, 4.0), (2.0, 6.0), (8.0, 10.0)], 0.2, "Only 6 to 8 is idle: where two spans "
         "are open at once, durations do not add up."),
        ([(0.0, 9.0), (1.0, 2.0), (9.0, 10.0)], 0.0, "A short span inside a long one moves "
         "no end back: nothing is idle here."),
        ([(8.0, 10.0), (0.0, 2.0), (5.0, 6.0)], 0.5, "A trace need not be in order: sort "
         "by start first."),
        ([(100.25, 100.5), (100.75, 101.25)], 0.25, "The clock starts anywhere, and not at "
         "whole seconds: count from the first start."),
        ([(3.0, 9.0), (4.0, 5.0)], 0.0, "The trace ends where the last span ends, not "
         "where the last one to start does."),
    ]:  # fmt: skip
        same(f"spans {', '.join(f'({a:g}, {b:g})' for a, b in spans)}", answer(spans),
             want, rule)  # fmt: skip
    rng = np.random.default_rng(0)
    for number in range(5):
        start = rng.integers(0, 60, 12)
        end = start + rng.integers(1, 8, 12)
        busy = np.zeros(100, bool)
        for a, b in zip(start, end):
            busy[a:b] = True
        same(f"twelve random spans ({number + 1} of 5), against a clock that ticks",
             answer(list(zip(start.tolist(), end.tolist()))),
             1 - busy[start.min() : end.max()].mean(),
             rule="Count the time in which no span is open.")  # fmt: skip


@chapter.exercise(
    "note sees the name, the arguments and the result of every operator. Four ifs, or "
    "fewer.",
    'name == "_to_copy" is a copy if the device changes or the dtype does not (else it is '
    'a conversion in place); "_local_scalar_dense" is what .item() calls.',
    "self.calls += 1; self.writes += out.numel() if it is a tensor; self.bytes += "
    "args[0].numel() * args[0].element_size() with each copy; self.syncs += 1.",
    kind="class",
)
@keeps_random
def Work(answer):
    "A counter for what a block of code asks of the chip."
    x = torch.arange(6.0).reshape(2, 3)

    def count(run):
        with answer() as work:
            run()
        return work

    work = count(lambda: x.add(1).gt(2))
    case = "x.add(1).gt(2) on 6 numbers"
    same(f"{case}: calls", work.calls, 2, rule="One call each time note runs.")
    same(f"{case}: writes", work.writes, 12,
         rule="The numbers in the results: out.numel(), whatever their type.")  # fmt: skip
    same(f"{case}: copies, bytes, syncs", [work.copies, work.bytes, work.syncs], [0, 0, 0],
         rule="Arithmetic is neither a copy nor a synchronisation.")  # fmt: skip
    double = x.double()
    for case, run, want, rule in [
        ("x.to('cpu', copy=True)", lambda: x.to("cpu", copy=True), [1, 24],
         'A copy is an operator of the name "_to_copy": 6 numbers of 4 bytes.'),
        ("six float64 numbers, copied", lambda: double.to("cpu", copy=True), [1, 48],
         "6 numbers of args[0].element_size() bytes."),
        ("x.double(), on the same device", lambda: x.double(), [0, 0],
         "A conversion on the spot crosses no wire: a copy keeps the dtype or changes the "
         "device."),
        ("x to another device, and to float64 on the way",
         lambda: x.to("meta", torch.float64), [1, 24],
         "The device changes, so it is a copy; the bytes are those of args[0]."),
        ("x copied twice, and six float64 numbers",
         lambda: [t.to("cpu", copy=True) for t in (x, x, double)], [3, 96],
         "Each copy adds its own: += in both counters."),
    ]:  # fmt: skip
        work = count(run)
        same(f"{case}: copies and bytes", [work.copies, work.bytes], want, rule)
    work = count(lambda: [x.sum().item(), bool((x > 2).any()), float(x[0, 1])])
    case = "x.sum().item(), bool((x > 2).any()), float(x[0, 1])"
    same(f"{case}: syncs and copies", [work.syncs, work.copies], [3, 0],
         rule='Python waits in "_local_scalar_dense", whoever calls it.')  # fmt: skip
    same("x.tolist(): syncs", count(lambda: x.tolist()).syncs, 1,
         rule="Tally passes it on without arguments: look at args[0] only for a copy.")  # fmt: skip
    weight = nn.Parameter(torch.ones(3))
    work = count(lambda: (x * weight).sum().backward())
    with profiling.Work() as want:
        (x * weight).sum().backward()
    same("a forward and a backward pass: calls and writes", [work.calls, work.writes],
         [want.calls, want.writes], rule="Every operator once, also those of backward.")  # fmt: skip
    work = count(lambda: x.to("cpu", copy=True).sum().item())
    same("x.to('cpu', copy=True).sum().item(): calls and writes",
         [work.calls, work.writes], [3, 7],
         rule="A copy is a call that writes, and a wait is a call as well.")  # fmt: skip
    work = count(lambda: x[1])
    same("x[1], a view: calls and writes", [work.calls, work.writes], [1, 3],
         rule="Every result that is a tensor counts with its numbers, a view too.")  # fmt: skip
    work = count(lambda: x.split(1))
    same("x.split(1), which returns a tuple: calls, writes, syncs",
         [work.calls, work.writes, work.syncs], [1, 0, 0],
         rule="A result may be a tuple: a call that writes no tensor, and nobody waits.")  # fmt: skip


# ---- the planted script ----


class _Watch(profiling.Work):
    "Work, and which copies: the class weights, and rows in float64."

    def __init__(self):
        super().__init__()
        self.prices = self.wide = 0

    def note(self, name, args, out):
        size = self.bytes
        super().note(name, args, out)
        if self.bytes > size:
            x = args[0]
            self.prices += x.shape == (10,) and x.is_floating_point()
            self.syncs += x.numel() == 1  # fetched, if not with .item()
            if x.dtype == torch.float64 and x.numel() > 64:
                self.wide += self.bytes - size


class _FetchesZeros(TorchFunctionMode):
    "What is fetched from the device 'meta', which holds no numbers, is 0."

    ways = "item tolist numpy cpu to __float__ __int__ __bool__ __array__".split()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in self.ways and args[0].is_meta:
            args = (torch.zeros(args[0].shape, dtype=args[0].dtype), *args[1:])
        return func(*args, **(kwargs or {}))


def planted(model, train, valid, price_C, device, epochs=2, B=32, bugs=range(1, 7)):
    "The script with any of its six bottlenecks left in -> losses, accuracies."
    (X_ND, y_N), (X_val, y_val) = train, valid
    send = lambda t: t.to(device, copy=True)  # noqa: E731
    model = model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses, accuracies = [], []
    mean, std = X_ND.mean(), X_ND.std()
    Z_ND, Z_val = (X_ND - mean) / std, (X_val - mean) / std
    if 3 not in bugs:
        Z_ND, Z_val = Z_ND.float(), Z_val.float()
    price = send(price_C)
    for _ in range(epochs):
        for start in range(0, len(X_ND), B):
            if 1 in bugs:
                Z_ND = (X_ND - X_ND.mean()) / X_ND.std()
                Z_ND = Z_ND if 3 in bugs else Z_ND.float()
            rows = range(start, min(start + B, len(X_ND)))
            x_BD = (
                torch.stack([Z_ND[i] for i in rows])
                if 2 in bugs
                else Z_ND[start : start + B]
            )
            x_BD, y_B = send(x_BD).float(), send(y_N[start : start + B])
            price = send(price_C) if 4 in bugs else price
            loss = F.cross_entropy(model(x_BD), y_B, weight=price)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item() if 5 in bugs else loss.detach())
        with contextlib.nullcontext() if 6 in bugs else torch.inference_mode():
            right = model(send(Z_val).float()).argmax(1) == send(y_val)
        accuracies.append(right.float().mean().item())
    losses = losses if 5 in bugs else torch.stack(losses).tolist()
    return losses, accuracies


def _task():
    "A small task: 250 rows to train, 134 of another scale to judge, a price per class."
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(10, 64))
    y = rng.integers(0, 10, 384)
    X = torch.tensor(centre[y] + rng.normal(size=(384, 64)) + 3)
    y = torch.tensor(y)
    price_C = torch.linspace(0.5, 1.5, 10)
    return (X[:250], y[:250]), (1.5 * X[250:] + 1, y[250:]), price_C


def _network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


@chapter.exercise(
    "One at a time, and count after each: what in the loop is the same in every turn? What "
    "is done row by row? Where does Python wait?",
    "Before the loop: scale once, as float32, and send price_C once. In it: slice the batch "
    "instead of stacking rows, and append loss.detach(). Validation builds a graph.",
    "Z_ND = ((X_ND - mean) / std).float() before the loops; send(Z_ND[start : start + B], "
    "device); losses.append(loss.detach()), at the end torch.stack(losses).tolist(); with "
    "torch.inference_mode(): around the validation.",
    mutates=True,
)
@keeps_random
def train_fast(answer):
    "The planted script without its six bottlenecks."
    train, valid, price_C = task = _task()
    how = {"epochs": 3, "B": 48}
    want_losses, want_right = planted(_network(), *task, "cpu", **how)
    clean, best = _network(), _Watch()
    with best:
        planted(clean, *task, "cpu", **how, bugs=())
    model, work = _network(), _Watch()
    before = [t.clone() for t in (*train, *valid, price_C)]
    with work:
        got = answer(model, *task, device="cpu", **how)
    case = "250 rows of 64 features, B = 48, 3 epochs"
    same(f"{case}: are the rows as they were handed in?",
         all(map(torch.equal, before, (*train, *valid, price_C))), True,
         rule="The caller's rows are changed in place: scale into a new tensor.")  # fmt: skip
    losses, right = _pair(case, got, "Two lists come back: the losses, one per step, and "
                          "the accuracies, one per epoch.")  # fmt: skip
    same(f"{case}: losses that are tensors", sum(torch.is_tensor(v) for v in losses), 0,
         rule="Fetch the losses once, at the end, with torch.stack(losses).tolist().")  # fmt: skip
    same(f"{case}: number of losses", len(losses), 18,
         rule="One loss per step: six steps per epoch (the last has 10 rows), three epochs.")  # fmt: skip
    same(f"{case}: the losses", losses, want_losses, rtol=2e-3, atol=1e-4,
         rule="The same batches, in the same order, scaled by the training rows' mean and "
              "deviation, weighted by price_C.")  # fmt: skip
    same(f"{case}: the accuracies", right, want_right, atol=0.02,
         rule="One accuracy per epoch, on rows scaled like the training rows.")  # fmt: skip
    same(f"{case}: the weights", _flat(model.parameters()), _flat(clean.parameters()),
         rtol=0, atol=1e-3, rule="Train the model that was handed in.")  # fmt: skip
    if work.bytes < 0.9 * 4 * 250 * 64:
        raise Miss("What the model sees has to cross the wire with `send`, also where the "
                   "device is the CPU.", f"{case}: bytes copied", work.bytes,
                   f"{4 * 250 * 64:,} or more")  # fmt: skip
    there, seen = _network(), set()
    there.register_forward_pre_hook(lambda _, x: seen.add(x[0].device.type))
    with _FetchesZeros():
        answer(there, *task, device=torch.device("meta"), **how)
    same("on the device 'meta': where the rows were that the model saw", seen, {"meta"},
         rule="`device` is ignored: send the rows there, and the model, too.")  # fmt: skip
    limits = [
        ("scaling all rows in every step", work.writes, 1.5 * best.writes,
         "numbers written"),
        ("fetching rows one at a time", work.calls, best.calls + 256, "operators"),
        ("sending float64", work.wide, 0, "bytes in float64"),
        ("sending what never changes", work.prices, 3, "copies of price_C"),
        ("sending what never changes", work.bytes - work.wide, 1.3 * best.bytes, "bytes"),
        ("fetching every loss by itself (stack, then fetch once)", work.syncs, 6,
         "synchronisations"),
        ("a graph for the validation", work.kept, 1.1 * best.kept, "bytes kept"),
    ]  # fmt: skip
    over = [row for row in limits if row[1] > row[2]]
    left = dict.fromkeys(what for what, *_ in over)
    if left:
        raise Miss(f"{6 - len(left)} of 6 are repaired. Still there: {'; '.join(left)}.",
                   f"{case}: what it costs now",
                   "; ".join(f"{int(now):,} {unit}" for _, now, _, unit in over),
                   "; ".join(f"at most {int(most):,}" for _, _, most, _ in over))  # fmt: skip
