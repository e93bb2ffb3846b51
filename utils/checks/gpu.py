"""Chapter 13: a chip that is moved to, timed, fed, rounded on, and counted."""

import contextlib
import math
from itertools import pairwise

import numpy as np
import torch
import torch._dynamo  # optimisers need it: import it here, not in a check's time limit
import torch.nn.functional as F
from torch import nn

from utils.built import gpu, precision, profiling
from utils.exercises import Chapter, Miss, same, telling

chapter = Chapter("13_gpu")
keeps_random = torch.random.fork_rng(devices=[])  # leave the reader's dice alone


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
    case = "a tensor, to the device 'meta'"
    moved = answer(torch.ones(2, 3), meta)
    if not isinstance(moved, torch.Tensor):
        raise Miss("A tensor becomes a tensor: return thing.to(device).", case, moved,
                   "a tensor on meta")  # fmt: skip
    if moved.device.type != "meta":
        raise Miss("The tensor did not move: x.to(device) changes nothing in x, it "
                   "returns a new tensor. Return that.", case, moved.device, meta)  # fmt: skip
    batch = {
        "image": torch.ones(4, 3),
        "more": [torch.tensor([1, 2]), (torch.zeros(1), "a word")],
        "name": "train",
        "size": 4,
    }
    case = "{'image': tensor, 'more': [tensor, (tensor, 'a word')], 'name': 'train', 'size': 4}"
    got = answer(batch, meta)
    if got is batch:
        raise Miss("The batch comes back as it went in: look into dicts, lists and tuples.",
                   case, got, "every tensor on meta")  # fmt: skip
    if not isinstance(got, dict) or list(got) != list(batch):
        raise Miss("A dict goes in, so a dict with the same names comes out.", case,
                   got, list(batch))  # fmt: skip
    for name in ("name", "size"):
        if type(got[name]) is not type(batch[name]) or got[name] != batch[name]:
            raise Miss("What is no tensor stays as it is.", f"{case}: {name!r}",
                       telling.kind(got[name]), repr(batch[name]))  # fmt: skip
    more = got["more"]
    if not isinstance(more, list) or len(more) != 2:
        raise Miss("A list goes in, so a list comes out: type(thing)(...).", case,
                   type(more).__name__, "list")  # fmt: skip
    if not isinstance(more[1], tuple) or more[1][1] != "a word":
        raise Miss("A tuple in a list in a dict: the function must call itself, and a "
                   "tuple stays a tuple.", case, more[1], "(tensor on meta, 'a word')")  # fmt: skip
    for place, tensor in [("image", got["image"]), ("more[0]", more[0]),
                          ("more[1][0]", more[1][0])]:  # fmt: skip
        if tensor.device.type != "meta":
            raise Miss("A tensor deep inside did not move: the function must call itself.",
                       f"{case}: {place}", tensor.device, meta)  # fmt: skip
    if more[0].dtype != torch.int64:
        raise Miss("The labels have changed their type: only the device changes.",
                   f"{case}: more[0].dtype", more[0].dtype, torch.int64)  # fmt: skip
    case = "[tensor([5., 6.], requires_grad=True)], to the CPU by its name 'cpu'"
    there = answer([torch.tensor([5.0, 6.0], requires_grad=True)], "cpu")[0]
    if there.device.type != "cpu":
        raise Miss("Move to the device that is handed in.", case, there.device, "cpu")
    if not there.requires_grad:
        raise Miss("The tensor has lost its graph: only the device changes.", case,
                   "no gradient", "requires_grad")  # fmt: skip
    same(case, there, [5, 6])


class _FakeChip:
    "A queue and a clock that only move when they are asked to: launching costs 1."

    def __init__(self, work):
        self.work, self.now, self.done, self.waits = list(work), 0.0, 0.0, 0

    def run(self):
        self.now += 1
        self.done = max(self.now, self.done) + (self.work.pop(0) if self.work else 10)

    def wait(self):
        self.waits += 1
        self.now = max(self.now, self.done)

    def clock(self):
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

    def timed(work, repeats, warm_up):
        chip = _FakeChip(work)
        got = answer(chip.run, chip.wait, repeats=repeats, warm_up=warm_up,
                     clock=chip.clock)  # fmt: skip
        calls = len(work) - len(chip.work)
        for name, value in [("warm_up", 2 + repeats), ("repeats", 7 + warm_up)]:
            if calls == min(value, len(work)) != warm_up + repeats:
                raise Miss(f"`{name}` is ignored: this is its default number of calls.",
                           f"repeats={repeats}, warm_up={warm_up}: calls of run()",
                           calls, warm_up + repeats)  # fmt: skip
        return got, calls

    case = "launching costs 1, the work 90, 40, then 10, 10, 50, 10, 10; warm_up=2, repeats=5"
    got, calls = timed([90, 40, 10, 10, 50, 10, 10, *[10] * 9], 5, 2)
    mean = (4 * 11 + 51) / 5
    same(
        case,
        got,
        11.0,
        rule="The median over `repeats` awaited calls.",
    )
    if calls != 7:
        raise Miss("The number of calls is off: warm_up and then repeats of them.", case,
                   calls, 7)  # fmt: skip
    same("the same, repeats=1: a single counted call", timed([90, 40, *[10] * 9], 1, 2)[0],
         11.0,

         rule="Warm up, wait, and only then start the clock.")  # fmt: skip
    even = "Four samples have two in the middle: the median is the mean of both."
    same("work 30, 20, 60, 40 after a warm-up of 7", timed([7, 30, 20, 60, 40, *[9] * 9], 4, 1)[0],
         36.0,

         rule="The median: as many calls are faster as are slower.")  # fmt: skip
    ours = iter(range(0, 1000, 3))
    got = answer(
        lambda: None, lambda: None, repeats=3, warm_up=0, clock=lambda: next(ours)
    )
    same("a clock that moves by 3 whenever it is read", got, 3,
         rule="Read the clock that was handed in, twice a call.")  # fmt: skip


def _steady(load, copy, compute, workers, overlap):
    "The time between two batches, from playing sixty of them."
    ends = [s.end for s in gpu.timeline(load, copy, compute, workers, overlap, 120)
            if s.lane == "chip"]  # fmt: skip
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
    sums = {
        "Without workers the training process loads: nothing overlaps, all three add up.": 8,
        "The copy is missing.": 9,
    }
    same("load 6, copy 2, compute 3", answer(6, 2, 3), 11,
         rule="Nothing overlaps: the parts add up.")  # fmt: skip
    same(
        "load 12, copy 2, compute 3, one worker",
        answer(12, 2, 3, workers=1),
        12,
        rule="max(load / workers, the chip's side).",
    )
    same(
        "load 6, copy 2, compute 3, two workers",
        answer(6, 2, 3, workers=2),
        5,
        rule="max(load / workers, the chip's side).",
    )
    same(
        "load 6, copy 2, compute 3, three workers, overlap",
        answer(6, 2, 3, workers=3, overlap=True),
        3,
        rule="The slowest of load / workers, copy and compute.",
    )
    none = (
        "Without workers there is no next batch that could be copied ahead: all add up."
    )
    same("load 6, copy 4, compute 3, overlap, no worker",
         answer(6, 4, 3, workers=0, overlap=True), 13,
         rule="Without workers the loading still adds up.")  # fmt: skip
    for case in [
        (40, 2, 3, 4, False),
        (40, 2, 3, 5, True),
        (0.5, 3, 1, 1, True),
        (2, 2, 2, 0, True),
    ]:
        same("load {}, copy {}, compute {}, {} workers, overlap {}: 120 batches played "
             "through".format(*case), answer(*case), _steady(*case), rtol=1e-3,
             rule="The slowest stage sets the pace, and every worker counts: load / "
                  "workers.")  # fmt: skip


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
    X_ND, y_N = rng.random((24, 6)).round(2), rng.integers(0, 10, 24)
    slow = gpu.TextDigits(X_ND, y_N)
    lines = list(slow.lines)
    ready = answer(slow)
    if slow.lines != lines or not torch.equal(slow.y_N, torch.as_tensor(y_N)):
        raise Miss("Ready changes the dataset that it was made from: others still read "
                   "it.", "Ready(slow): slow.lines, slow.y_N", "changed", "as before")  # fmt: skip
    if slow.parsed > 24:
        raise Miss("Rows are parsed more than once: once each, in __init__.",
                   "24 rows, Ready(slow): rows parsed", slow.parsed, 24)  # fmt: skip
    same("len of 24 rows", len(ready), 24)
    if not hasattr(ready, "__getitems__"):
        raise Miss("__getitems__ is missing (mind the s): a DataLoader asks it for a whole "
                   "batch.", "Ready(slow).__getitems__", "nothing", "a method")  # fmt: skip
    for name, kept in vars(ready).items():
        if isinstance(kept, (list, tuple)) and isinstance(kept[0], torch.Tensor):
            raise Miss("The rows are kept one by one, so that every batch must stack them: "
                       "stack once, in __init__.", f"Ready(slow).{name}",
                       f"{telling.kind(kept)} of {len(kept)}", "one tensor")  # fmt: skip
    parsed, rows = slow.parsed, [5, 0, 17, 3]
    with profiling.Work() as work:
        batch = ready.__getitems__(rows)
    if isinstance(batch, list) and len(batch) == len(rows) != 2:
        raise Miss("This is a list of rows that somebody still has to stack: index once "
                   "with the whole list, X_ND[rows].", "__getitems__([5, 0, 17, 3])",
                   f"a list of {len(batch)}", "a pair of tensors (4, 6), (4,)")  # fmt: skip
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise Miss("A batch is a pair: rows and labels.", "__getitems__([5, 0, 17, 3])",
                   type(batch).__name__, "(X_BD, y_B)")  # fmt: skip
    want = torch.tensor((X_ND[rows] - 0.3) / 0.4).float()
    same(
        "__getitems__([5, 0, 17, 3]): the rows",
        batch[0],
        want,
        rule="The same numbers as slow[i], one row each, in this order.",
        rtol=1e-5,
        atol=1e-6,
    )
    same("__getitems__([5, 0, 17, 3]): the labels", batch[1], y_N[rows],
         rule="One label a row, in the order of the rows.")  # fmt: skip
    if batch[0].dtype != torch.float32:
        raise Miss("The rows are not float32.", "dtype", batch[0].dtype, torch.float32)  # fmt: skip
    if batch[1].dtype != torch.int64:
        raise Miss("The labels have changed their type: cross_entropy wants whole numbers.",
                   "the labels' dtype", batch[1].dtype, torch.int64)  # fmt: skip
    if slow.parsed > parsed:
        raise Miss("A batch still parses text: move the work into __init__.",
                   "rows parsed for a batch of 4", slow.parsed - parsed, 0)  # fmt: skip
    if work.calls > 8:
        raise Miss("Too many operators for one batch: index once with the whole list and "
                   "scale in __init__.", "operators for a batch of 4 rows", work.calls,
                   "8 or fewer")  # fmt: skip
    if work.writes > 2 * (4 * 6 + 4 + 4):
        raise Miss("A batch is still scaled: the numbers written are more than its own. "
                   "Scale in __init__.", "numbers written for a batch (4, 6)", work.writes,
                   "about 32")  # fmt: skip
    many = profiling.Work()
    with many:
        ready.__getitems__(list(range(24)))
    if many.calls > work.calls:
        raise Miss("The operators grow with the batch: index once with the whole list.",
                   "operators for 24 rows, and for 4", [many.calls, work.calls],
                   "as many")  # fmt: skip
    parsed = slow.parsed
    batches = gpu.drain(ready, 8, collate_fn=gpu.as_it_is)[1]
    same("a DataLoader with 24 rows, 8 a batch: batches", batches, 3)
    same(
        "and the rows parsed in that epoch",
        slow.parsed - parsed,
        0,
        rule="Parse in __init__ only.",
    )


def _bits(number, dtype):
    "A torch number's bits as a whole number."
    wide = {2: torch.int16, 1: torch.uint8}[dtype.itemsize]
    return torch.tensor(number, dtype=dtype).view(wide).item() % 2 ** (
        8 * dtype.itemsize
    )


@chapter.exercise(
    "Cut the bits into three whole numbers first: sign, exponent field, fraction field.",
    "bits >> (E + M) is the sign, (bits >> M) % 2**E the exponent field, bits % 2**M the "
    "fraction field. Then the three rows of the table.",
    "field 0: fraction / 2**M * 2.0**(1 - bias); field 2**E - 1: inf, or nan if the "
    "fraction is not 0; else (1 + fraction / 2**M) * 2.0**(field - bias).",
)
def value_of(answer):
    "The number behind a pattern of bits."
    plain = 0b0_10000_1000000000  # 3.0 in fp16
    same(
        "fp16 (E = 5, M = 10), bits 0 10000 1000000000",
        answer(plain, 5, 10),
        3.0,
        rule="(1 + fraction / 2**M) * 2**(field - bias).",
    )
    same("fp16, bits 1 10000 1000000000", answer(plain | 1 << 15, 5, 10), -3.0,

         rule="The first bit is the sign: 1 means minus.")  # fmt: skip
    same(
        "fp16, bits 0 00000 0000000001",
        answer(1, 5, 10),
        2.0**-24,
        rule="A subnormal is fraction / 2**M * 2**(1 - bias).",
    )
    same("fp16, bits 0 11111 0000000000", answer(0b11111 << 10, 5, 10), math.inf,

         rule="All exponent bits 1, fraction 0: infinity.")  # fmt: skip
    same("fp16, bits 1 11111 0000000000", answer(0b111111 << 10, 5, 10), -math.inf,
         rule="Infinity has a sign, too.")  # fmt: skip
    same("fp16, bits 0 11111 0000000001", answer(0b0_11111_0000000001, 5, 10), math.nan,
         rule="All exponent bits 1 and a fraction: that is no number, nan.")  # fmt: skip
    zero = answer(1 << 15, 5, 10)
    same("fp16, bits 1 00000 0000000000", zero, 0.0, rule="Zero, with a sign.")
    if math.copysign(1, zero) != -1:
        raise Miss("Zero has a sign, too: here it is -0.0.",
                   "fp16, bits 1 00000 0000000000", zero, -0.0)  # fmt: skip
    rng = np.random.default_rng(0)
    for name, E, M, dtype in [
        ("fp16", 5, 10, torch.float16),
        ("bf16", 8, 7, torch.bfloat16),
        ("e5m2", 5, 2, torch.float8_e5m2),
    ]:
        wide = {2: torch.int16, 1: torch.uint8}[dtype.itemsize]
        for bits in rng.integers(0, 2 ** (1 + E + M), 120).tolist():
            whole = bits - 2**16 if dtype.itemsize == 2 and bits >= 2**15 else bits
            want = torch.tensor([whole], dtype=wide).view(dtype).double().item()
            rule = "A constant of fp16 left in? E and M differ here."
            if name == "fp16":
                rule = "Sign, exponent and fraction lie in this order, from the left."
            same(f"{name} (E = {E}, M = {M}), bits {bits:0{1 + E + M}b}",
                 answer(bits, E, M), want, atol=0, rule=rule)  # fmt: skip


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
    x = torch.tensor([1.0, 1.0004, -3.1, 0.1, 1000.8, 0.0], dtype=torch.float64)
    fine = torch.tensor([2.0**-10, 2.0**-10, 2.0**-9, 2.0**-14, 0.5, 1.0])
    down = torch.floor(x / fine) * fine
    same(
        "fp16 (E = 5, M = 10) of 1, 1.0004, -3.1, 0.1, 1000.8, 0",
        answer(x, 5, 10),
        x.half().double(),
        atol=0,
        rtol=1e-12,
        rule="torch.round(x / spacing) * spacing.",
    )
    ties = torch.tensor([1 + 2.0**-11, 1 + 3 * 2.0**-11], dtype=torch.float64)
    same("two ties, 1 + 1/2048 and 1 + 3/2048", answer(ties, 5, 10), ties.half().double(),
         rtol=1e-12,

         rule="Half to even: torch.round.")  # fmt: skip
    small = torch.tensor([3e-5, 1e-7, 2e-8, -4e-8, 2.0**-24], dtype=torch.float64)
    same(
        "small ones: 3e-5, 1e-7, 2e-8, -4e-8, 2**-24, shown in units of 2**-24",
        torch.as_tensor(answer(small, 5, 10)) * 2**24,
        small.half().double() * 2**24,
        atol=0,
        rtol=1e-9,
        rule="Below the smallest normal the spacing is 2 ** (1 - bias - M).",
    )
    large = torch.tensor([65504.0, 65519.0, 65520.0, 7e4, -1e9], dtype=torch.float64)
    same(
        "large ones: 65504, 65519, 65520, 70000, -1e9",
        answer(large, 5, 10),
        large.half().double(),
        rule="What rounds to more than (2 - 2**-M) * 2**bias is infinite.",
    )
    odd = torch.tensor([math.inf, -math.inf, math.nan], dtype=torch.float64)
    same("infinity, minus infinity, nan", answer(odd, 5, 10), odd,
         rule="Infinity stays infinity, and nan stays nan.")  # fmt: skip
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400, generator=g) * 10.0 ** torch.randint(
        -8, 5, (400,), generator=g
    )
    for name, E, M, dtype in [
        ("fp16", 5, 10, torch.float16),
        ("bf16", 8, 7, torch.bfloat16),
        ("e5m2", 5, 2, torch.float8_e5m2),
        ("TF32", 8, 10, None),  # two formats without a dtype
        ("seven bits", 3, 3, None),
    ]:
        got = answer(x.double(), E, M)
        want = x.to(dtype).double() if dtype else _rounded(x.double(), E, M)
        if torch.equal(torch.as_tensor(got), want):
            continue
        same(f"400 numbers of all sizes in {name} (E = {E}, M = {M})", got, want, atol=0,
             rtol=1e-12, rule="E and M may be any: the bias, the spacing and the largest "
                              "number follow from them.")  # fmt: skip


def _weights(n):
    "n weights of 0 and an SGD optimiser (lr = 1) for them."
    weight = nn.Parameter(torch.zeros(n))
    return weight, torch.optim.SGD([weight], lr=1.0)


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
    weight, optimizer = _weights(3)
    scaler = answer(scale=1024.0, patience=2)
    loss = (weight * torch.tensor([1.0, 2.0, 3.0])).sum() + 5
    scaler.backward(loss)
    same("scale 1024: the loss itself, after backward", loss, 5.0,
         )  # fmt: skip
    same(
        "scale 1024: the gradient of a loss with slopes 1, 2, 3 after backward",
        weight.grad,
        [1024.0, 2048.0, 3072.0],
        rule="(loss * self.scale).backward().",
    )
    stepped = scaler.step(optimizer)
    same(
        "then a step of SGD with lr = 1: the weights",
        weight,
        [-1.0, -2.0, -3.0],
        rule="Divide each gradient by the scale, then optimizer.step().",
    )
    if _truth(stepped) is not True:
        raise Miss("step says whether it stepped: return True.", "after a good step",
                   telling.kind(stepped), True)  # fmt: skip
    after = torch.zeros(3) if weight.grad is None else weight.grad
    same("the gradients after that step", after, [1.0, 2.0, 3.0],

         rule="Divide in place: grad.div_(self.scale).")  # fmt: skip
    wide, large = _weights(1)[0], answer(scale=2.0**20)
    large.backward(wide.sum())
    same("scale 2 ** 20: the gradient of a loss with slope 1", wide.grad, [2.0**20],
         rule="Scale in fp32: 16 bits end at 65,504.")  # fmt: skip
    weight.grad = torch.tensor([1.0, math.inf, 1.0])
    before = weight.detach().clone()
    stepped = scaler.step(optimizer)
    same("a gradient with one inf: the weights", weight, before,
         rule="The step was taken although a gradient is not finite: leave it out.")  # fmt: skip
    if _truth(stepped) is not False:
        raise Miss("A step that was left out returns False.", "a gradient with one inf",
                   telling.kind(stepped), False)  # fmt: skip
    for kind, bad, first in [("inf", math.inf, 256.0), ("nan", math.nan, 2.0**17),
                             ("-inf", -math.inf, 2.0)]:  # fmt: skip
        ours, theirs = answer(scale=first, patience=3), torch.amp.GradScaler(
            "cpu", init_scale=first, growth_interval=3
        )  # fmt: skip
        p, a = _weights(3)
        q, b = _weights(3)
        g = torch.Generator().manual_seed(0)
        trace_ours, trace_theirs = [], []
        for i in range(22):
            slope = torch.randn(3, generator=g)
            if i in (1, 2, 8, 11):
                slope[i % 3] = bad
            for weights, act in ((p, ours), (q, theirs)):
                weights.grad = None
                loss = (weights * slope).sum()
                (act.backward(loss) if act is ours else act.scale(loss).backward())
            ours.step(a)
            theirs.step(b)
            theirs.update()
            trace_ours.append(float(ours.scale))
            trace_theirs.append(theirs.get_scale())
        case = (
            f"22 steps, {kind} at 1, 2, 8, 11; scale {first:g}, patience 3: "
            "log2 of the scale"
        )
        rule = lambda first=first, **how: np.log2(  # noqa: E731
            _scales(first, 3, (1, 2, 8, 11), **how)
        )
        same(
            case,
            np.log2(trace_ours),
            np.log2(trace_theirs),
            rule="Half after a bad step, double after `patience` good ones in a row.",
        )
        same(f"{case}: the weights", p, q, rtol=1e-5,
             rule="The weights differ from torch.amp.GradScaler's.")  # fmt: skip
    frozen = nn.Parameter(torch.zeros(2))
    weight, _ = _weights(3)
    optimizer = torch.optim.SGD([{"params": [weight]}, {"params": [frozen]}], lr=1.0)
    scaler = answer(scale=4.0, patience=9)
    scaler.backward(weight.sum())
    try:
        scaler.step(optimizer)
    except (TypeError, AttributeError) as error:
        raise Miss("A weight that took no part in the loss has p.grad None: leave it out.",
                   "two groups, the second without gradients", str(error),
                   "a step of the first") from None  # fmt: skip
    same("two groups, the second without gradients", weight, [-1.0, -1.0, -1.0],
         rule="Go through all groups; a grad of None is left alone.")  # fmt: skip
    second = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([{"params": [weight]}, {"params": [second]}], lr=1.0)
    for name, one in [("first", weight), ("second", second)]:
        optimizer.zero_grad()
        scaler.backward(second.sum() + weight.sum())
        one.grad[0] = math.inf
        before = torch.cat([weight, second]).detach()
        scaler.step(optimizer)
        same(f"two groups, an inf in the {name}: all weights", torch.cat([weight, second]),
             before, rule="One gradient that is not finite, in any group, leaves out the "
                          "whole step.")  # fmt: skip


def _truth(said):
    "True or False, also said by NumPy or by a tensor; anything else is None."
    if isinstance(said, (bool, np.bool_)) or (
        isinstance(said, torch.Tensor) and said.numel() == 1
    ):
        return bool(said)
    return None


def _scales(scale, patience, bad, down=0.5, up=2.0, reset=True, again=True,
            low=0.0, high=math.inf):  # fmt: skip
    "The scale after each of 22 steps, with a slip."
    good, out = 0, []
    for i in range(22):
        if i in bad:
            scale, good = max(low, scale * down), 0 if reset else good
        else:
            good += 1
            if good == patience or (not again and good > patience):
                scale, good = min(high, scale * up), 0 if again else good
        out.append(scale)
    return out


class _Spy(nn.Module):
    "A small network that notes what reaches it."

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        self.logits = self.inside = None

    def forward(self, x):
        self.calls = getattr(self, "calls", 0) + 1
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


def _stale(model):
    "Leaves gradients of an earlier batch behind: ones."
    for p in model.parameters():
        p.grad = torch.ones_like(p)


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
    X, y = torch.randn(16, 6, generator=g), torch.randint(3, (16,), generator=g)
    model = _Spy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    start = [p.detach().clone() for p in model.parameters()]
    _stale(model)
    bare = getattr(
        answer, "__wrapped__", answer
    )  # the guard around an answer looks at what comes back
    with profiling.Work() as work:
        loss = bare(model, X, y, optimizer, torch.bfloat16)
    case = "a bf16 step of a network 6-8-3"
    if loss is None:
        raise Miss("The function returns nothing: return loss.detach().", case, None,
                   "the loss")  # fmt: skip
    kinds = {p.dtype for p in model.parameters()}
    if kinds != {torch.float32}:
        raise Miss("The weights themselves are now short numbers: steps smaller than half "
                   "their spacing would vanish. Autocast leaves the weights in fp32.",
                   case, kinds, torch.float32)  # fmt: skip
    if model.logits is None or model.logits.dtype != torch.bfloat16:
        raise Miss("The forward pass did not run in the asked dtype: "
                   "torch.autocast(X_BD.device.type, dtype=dtype).", f"{case}: the logits",
                   None if model.logits is None else model.logits.dtype, torch.bfloat16)  # fmt: skip
    if not isinstance(loss, torch.Tensor):
        raise Miss("A Python number: .item() waits for the chip in every step. Return "
                   "loss.detach().", case, type(loss).__name__, "a tensor")  # fmt: skip
    if work.syncs:
        raise Miss("Python waits for the chip in every step: it asks for a value, as "
                   ".item(), float(x) and `if x` do. Return loss.detach(), a tensor.",
                   f"{case}, no scaler: values fetched", work.syncs, 0)  # fmt: skip
    if loss.requires_grad:
        raise Miss("The loss still carries its graph: whoever keeps it keeps the graph. "
                   "Return loss.detach().", case, "requires_grad", "no graph")  # fmt: skip
    if loss.dtype != torch.float32:
        raise Miss("The loss is in short numbers: cross_entropy belongs under autocast, "
                   "which computes it in fp32.", case, loss.dtype, torch.float32)  # fmt: skip
    if model.inside:
        raise Miss("backward ran under autocast: only forward and loss belong there.",
                   case, "inside", "outside")  # fmt: skip
    twin = _Spy()
    ours = torch.optim.SGD(twin.parameters(), lr=0.5)
    wants = []
    for _ in range(3):
        ours.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = F.cross_entropy(twin(X), y)
        value.backward()
        ours.step()
        wants.append([p.detach().clone() for p in twin.parameters()])
    same(f"{case}: the loss", loss, F.cross_entropy(_Spy()(X), y), rtol=0.02,
         rule="The mean cross-entropy of the batch.")  # fmt: skip
    flat = lambda ps: torch.cat([p.detach().flatten() for p in ps])  # noqa: E731
    same(f"{case}, old gradients of 1 left behind: the weights", flat(model.parameters()),
         flat(wants[0]), rtol=0.01, atol=1e-3,

         rule="zero_grad, forward, backward, one step.")  # fmt: skip
    for _ in range(2):
        answer(model, X, y, optimizer, torch.bfloat16)
    same("three steps on the same batch: the weights", flat(model.parameters()),
         flat(wants[2]), rtol=0.01, atol=2e-3,
         rule="From the second step on it goes astray: are old gradients still added? "
              "optimizer.zero_grad().")  # fmt: skip
    answer(model, X, y, optimizer, torch.float16)
    if model.logits.dtype != torch.float16:
        raise Miss("The forward pass did not run in the asked dtype: dtype=dtype.",
                   "a step in float16: the logits", model.logits.dtype, torch.float16)  # fmt: skip
    with _asked_devices() as seen:
        there = _Spy().to("meta")
        answer(there, X.to("meta"), y.to("meta"),
               torch.optim.SGD(there.parameters(), lr=0.5), torch.bfloat16)  # fmt: skip
    if seen != ["meta"]:
        raise Miss("Autocast belongs to one kind of device, that of the batch: "
                   "X_BD.device.type.", "a batch on the device 'meta': autocast is for",
                   seen, ["meta"])  # fmt: skip
    model, seen = _Spy(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    class Scaler(precision.LossScaler):
        def backward(self, loss):
            seen.append("backward")
            super().backward(loss)

        def step(self, optimizer):
            seen.append("step")
            return super().step(optimizer)

    loss = answer(model, X, y, optimizer, torch.bfloat16, Scaler(1024.0))
    if seen != ["backward", "step"]:
        raise Miss("The scaler is there to do both: scaler.backward(loss), then "
                   "scaler.step(optimizer).", "a step with a scaler: what it was asked for",
                   seen, ["backward", "step"])  # fmt: skip
    same("a step with a scaler of 1024: the weights", flat(model.parameters()),
         flat(wants[0]), rtol=0.02, atol=1e-3,
         rule="One step only: is optimizer.step() called once more?")  # fmt: skip
    same("a step with a scaler of 1024: the loss", loss, F.cross_entropy(_Spy()(X), y),
         rtol=0.02, rule="The loss itself is wanted, not the scaled one.")  # fmt: skip


@chapter.exercise(
    "torch.autograd.graph.saved_tensors_hooks(pack, unpack) calls pack with every tensor "
    "that backward will need.",
    "The same memory can be saved twice (relu's result is the next layer's input): keep a "
    "dict by tensor.data_ptr(). Weights are saved, too, but were there before.",
    "def note(t): kept[t.data_ptr()] = t.numel() * t.element_size(); return t. Skip "
    "pointers of model.parameters().",
)
@keeps_random
def saved_bytes(answer):
    "What a forward pass keeps for the backward pass."
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 7))
    X = torch.randn(50, 20)
    want = 4 * 50 * (20 + 30)
    weights = 4 * sum(p.numel() for p in model.parameters())
    same(
        "Linear(20, 30), ReLU, Linear(30, 7) on 50 rows of fp32: bytes",
        answer(model, X),
        want,
        rule="Each saved tensor once, without the weights.",
    )
    deep = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Sigmoid())
    X = torch.randn(5, 2, 8)
    case = "two layers of 8 with Tanh and Sigmoid on a batch (5, 2, 8)"
    kept = 4 * 10 * 8
    same(case, answer(deep, X), 3 * kept,

         rule="Sigmoid and tanh need their own result, each once: (input, tanh, sigmoid).")  # fmt: skip
    if not deep.training:
        raise Miss("The model is left in eval mode: it is the caller's.", case, "eval",
                   "training, as before")  # fmt: skip
    if any(p.grad is not None for p in deep.parameters()):
        raise Miss("Gradients are left in the caller's model: a forward pass is enough, "
                   "nothing is asked of backward.", case, "p.grad", None)  # fmt: skip
    half = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 7)).bfloat16()
    same("the first network in bf16", answer(half, torch.randn(50, 20).bfloat16()),
         want // 2, rule="A bf16 number has 2 bytes: element_size().")  # fmt: skip
    many = nn.Sequential(*[nn.Linear(16, 16) for _ in range(12)])
    same("twelve layers in a row, nothing between them",
         answer(many, torch.randn(32, 16)), 4 * 32 * 16 * 12,
         rule="Twelve layers keep twelve inputs, each of them once.")  # fmt: skip


@chapter.exercise(
    "P counts the weights and constants of all layers: (D + 1) * H each.",
    "Four bytes a number. Gradients: one a weight. Optimiser: `states` a weight. "
    "Activations: each layer's input, and the loss's (B, C) at the end.",
    "activations = 4 * B * sum(widths): all inputs, the ReLUs' results among them, plus "
    "the log-probabilities of the last width.",
)
def step_bytes(answer):
    "The memory of a training step, from its widths."
    D, H, C, B = 30, 50, 200, 64
    P = 31 * 50 + 51 * 200
    got = answer([D, H, C], B)
    names = ["weights", "gradients", "optimizer", "activations"]
    case = "widths [30, 50, 200], B = 64, Adam"
    if not isinstance(got, dict) or sorted(got) != sorted(names):
        raise Miss("A dict with four names is wanted.", case, got, names)
    same(
        f"{case}: weights",
        got["weights"],
        4 * P,
        rule="4 * the sum of (D + 1) * H.",
    )
    same(f"{case}: gradients", got["gradients"], 4 * P,

         rule="One gradient a weight, in fp32.")  # fmt: skip
    same(f"{case}: optimizer", got["optimizer"], 8 * P,

         rule="states numbers a weight, 4 bytes each.")  # fmt: skip
    right = 4 * B * (D + H + C)
    same(
        f"{case}: activations",
        got["activations"],
        right,
        rtol=0.01,
        rule="4 * B * (every layer's input, and the log-probabilities).",
    )
    for states, rule in [(0, "SGD"), (1, "momentum")]:
        same(f"the same with {rule}: optimizer", answer([D, H, C], B, states)["optimizer"],
             4 * P * states, rule="It depends on `states`.")  # fmt: skip
    deep = answer([10, 20, 20, 20, 4], 8)
    same("widths [10, 20, 20, 20, 4], B = 8: all four", [deep[n] for n in names],
         [4 * 1144, 4 * 1144, 8 * 1144, 4 * 8 * 74], rtol=0.01,
         rule="Any number of layers.")  # fmt: skip


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
    widths, B = [64, 32, 10], 16
    first, second = 2 * 16 * 64 * 32, 2 * 16 * 32 * 10
    same(
        "widths [64, 32, 10], B = 16",
        answer(widths, B),
        3 * (first + second) - first,
        rule="Three products a layer, two for the first.",
    )
    from torch.utils.flop_counter import FlopCounterMode

    for widths, B in [([5, 7], 3), ([6, 5, 4, 3, 2, 8], 2), ([12, 1, 12], 9)]:
        layers = [nn.Linear(D, H) for D, H in pairwise(widths)]
        with FlopCounterMode(display=False) as counter:
            nn.Sequential(*layers)(torch.zeros(B, widths[0])).sum().backward()
        same(f"widths {widths}, B = {B}: PyTorch's counter", answer(widths, B),
             counter.get_total_flops(),
             rule="Three products a layer, two for the first.")  # fmt: skip


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
    same(
        "spans (0, 2), (5, 6), (8, 10)",
        answer([(0.0, 2.0), (5.0, 6.0), (8.0, 10.0)]),
        0.5,
        rule="5 of 10 are idle.",
    )
    same(
        "two at once: (0, 4), (2, 6), (8, 10)",
        answer([(0.0, 4.0), (2.0, 6.0), (8.0, 10.0)]),
        0.2,
        rule="Only 6 to 8 is idle. Where two spans are open at once, nothing is idle, and "
        "durations do not add up.",
    )
    same("one inside another: (0, 9), (1, 2), (9, 10)",
         answer([(0.0, 9.0), (1.0, 2.0), (9.0, 10.0)]), 0.0,

         rule="Nothing is idle here.")  # fmt: skip
    same("not in order: (8, 10), (0, 2), (5, 6)",
         answer([(8.0, 10.0), (0.0, 2.0), (5.0, 6.0)]), 0.5,
         rule="A trace need not be in order: sort by start first.")  # fmt: skip
    same("fractions of a second, from 100: (100.25, 100.5), (100.75, 101.25)",
         answer([(100.25, 100.5), (100.75, 101.25)]), 0.25,
         rule="The clock starts anywhere, and not at whole seconds: count from the first "
              "start.")  # fmt: skip
    rng = np.random.default_rng(0)
    for _ in range(5):
        start = rng.integers(0, 60, 12)
        end = start + rng.integers(1, 8, 12)
        ticks = np.zeros(100, bool)
        for a, b in zip(start, end):
            ticks[a:b] = True
        inside = ticks[start.min() : end.max()]
        same("twelve random spans, against a clock that ticks",
             answer(list(zip(start.tolist(), end.tolist()))), 1 - inside.mean(),
             rule="Count where no span is open.")  # fmt: skip


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

    plain = count(lambda: x.add(1).gt(2))
    same("x.add(1).gt(2): calls", plain.calls, 2,
          rule="One call each time note runs.")  # fmt: skip
    same(
        "x.add(1).gt(2) on 6 numbers: writes",
        plain.writes,
        12,
        rule="The numbers in the results: out.numel().",
    )
    same("x.add(1).gt(2): copies, bytes, syncs",
         [plain.copies, plain.bytes, plain.syncs], [0, 0, 0],
         rule="Arithmetic is neither a copy nor a synchronisation.")  # fmt: skip
    copy = count(lambda: x.to("cpu", copy=True))
    same("x.to('cpu', copy=True): copies", copy.copies, 1,
         rule='A copy is an operator of the name "_to_copy".')  # fmt: skip
    same("and its bytes", copy.bytes, 24,
          rule="6 numbers of 4 bytes.")  # fmt: skip
    double = x.double()
    same("six float64 numbers, copied: bytes",
         count(lambda: double.to("cpu", copy=True)).bytes, 48,

         rule="6 numbers of 8 bytes.")  # fmt: skip
    cast = count(lambda: x.double())
    same("x.double(), the same device: copies and bytes", [cast.copies, cast.bytes], [0, 0],
         rule="A conversion on the spot crosses no wire: a copy keeps the dtype or changes "
              "the device.")  # fmt: skip
    away = count(lambda: x.to("meta", torch.float64))
    same("x to another device, and to float64 on the way: copies", away.copies, 1,
         rule="The device changes, so it is a copy, whatever the dtype does.")  # fmt: skip
    same("and its bytes", away.bytes, 24,

         rule="6 numbers of 4 bytes.")  # fmt: skip
    wait = count(lambda: [x.sum().item(), bool((x > 2).any()), float(x[0, 1])])
    same("x.sum().item(), bool((x > 2).any()), float(x[0, 1]): syncs", wait.syncs, 3,
         rule='Python waits in "_local_scalar_dense", whoever calls it.')  # fmt: skip
    same("and copies", wait.copies, 0,
         rule="A value that Python fetches counts as a synchronisation alone.")  # fmt: skip
    weight = nn.Parameter(torch.ones(3))
    backward = count(lambda: (x * weight).sum().backward())
    with profiling.Work() as want:
        (x * weight).sum().backward()
    same("a forward and a backward pass: calls and writes",
         [backward.calls, backward.writes], [want.calls, want.writes],
         rule="Every operator once, also those of backward.")  # fmt: skip
    split = count(lambda: x.split(1))
    same("split returns a tuple: calls", split.calls, 1,
         rule="A result may be a tuple: ask isinstance(out, torch.Tensor) first.")  # fmt: skip
    same("split returns a tuple: syncs", split.syncs, 0,
         rule='Not every result that is no tensor is a wait: ask for the name '
              '"_local_scalar_dense".')  # fmt: skip


class _Watch(profiling.Work):
    "Work, and which copies: the class weights, and anything in float64."

    def __init__(self, shape):
        super().__init__()
        self.shape, self.prices, self.wide = shape, 0, 0

    def note(self, name, args, out):
        copies, size = self.copies, self.bytes
        super().note(name, args, out)
        if self.copies > copies:
            same_shape = tuple(args[0].shape) == self.shape
            self.prices += same_shape and args[0].is_floating_point()
            self.syncs += args[0].numel() == 1  # fetched, if not with .item()
            if args[0].dtype == torch.float64 and args[0].numel() > 64:
                self.wide += self.bytes - size


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
    "A small task: 250 rows to train, 134 of another scale to judge, a price a class."
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
    train, valid, price_C = _task()
    (X_ND, _), (X_val, y_val) = train, valid
    how = {"device": "cpu", "epochs": 3, "B": 48}
    want_losses, want_right = planted(_network(), train, valid, price_C, **how)
    own = (X_val - X_val.mean()) / X_val.std() * X_ND.std() + X_ND.mean()
    own_right = planted(_network(), train, (own, y_val), price_C, **how)[1]
    reference = _Watch((10,))
    clean = _network()
    with reference:
        planted(clean, train, valid, price_C, **how, bugs=())
    model, work = _network(), _Watch((10,))
    before = [t.clone() for t in (*train, *valid, price_C)]
    with work:
        got = answer(model, train, valid, price_C, **how)
    case = "250 rows of 64 features, B = 48, 3 epochs"
    if not all(map(torch.equal, before, (*train, *valid, price_C))):
        raise Miss("The caller's rows are changed in place: scale into a new tensor.",
                   case, "changed", "as they were handed in")  # fmt: skip
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        raise Miss("Two lists come back: the losses, one a step, and the accuracies, one "
                   "an epoch.", case, got, "losses, accuracies")  # fmt: skip
    losses, right = got
    if isinstance(losses, list) and losses and isinstance(losses[0], torch.Tensor):
        raise Miss("The losses are still tensors: fetch them once, at the end, with "
                   "torch.stack(losses).tolist().", case, "tensors", "numbers")  # fmt: skip
    many = {
        12: "`epochs` is ignored: these are two.",
        24: "`B` is ignored: these are steps of 32 rows.",
        15: "The last, shorter batch is left out.",
    }
    if len(losses) != 18:
        rule = many.get(
            len(losses), "One loss a step: six steps an epoch, three epochs."
        )
        raise Miss(rule, f"{case}: number of losses", len(losses), 18)
    same(f"{case}: the losses", losses, want_losses, rtol=2e-3, atol=1e-4,
         rule="The script computes something else now. The same batches, in the same "
              "order, scaled by the training rows' mean and deviation, one loss a step.")  # fmt: skip
    same(f"{case}: the accuracies", right, want_right, atol=0.02,

         rule="The validation says something else now: one accuracy an epoch, rows scaled "
              "like the training rows.")  # fmt: skip
    moved = sum(
        (a - b).abs().sum() for a, b in zip(model.parameters(), clean.parameters())
    )
    if not moved < 1e-2:
        raise Miss("The weights of the model that was handed in differ from the slow "
                   "script's.", case, moved, 0)  # fmt: skip
    once = 4 * 250 * 64
    if work.bytes < 0.9 * once:
        raise Miss("The rows never crossed the wire: what the model sees has to be sent "
                   "to the device, also where that is the CPU.",
                   f"{case}: bytes copied", work.bytes, f"{once} or more")  # fmt: skip
    never, wide = "sending what never changes", work.wide > 0
    limits = [
        ("scaling all rows in every step", "numbers written",
         work.writes, 1.5 * reference.writes),
        ("fetching rows one at a time", "operator calls",
         work.calls, reference.calls + 256),
        ("sending float64", "bytes sent in float64", work.wide, 0) if wide else
        ("sending the same rows again", "bytes copied",
         work.bytes, 1.3 * reference.bytes),
        (never, "copies of price_C", work.prices, 3) if work.prices > 3 else
        (never, "copies", work.copies, reference.copies + 8),
        ("fetching every loss by itself (stack, then fetch once)", "synchronisations",
         work.syncs, 6),
        ("a graph for the validation", "bytes kept", work.kept, 1.1 * reference.kept),
    ]  # fmt: skip
    left = [row for row in limits if row[2] > row[3]]
    if left:
        raise Miss(
            f"{6 - len(left)} of 6 are repaired. Still there: "
            + "; ".join(what for what, *_ in left) + ".",
            f"{case}: what it costs now",
            "; ".join(f"{int(now):,} {counter}" for _, counter, now, _ in left),
            "; ".join(f"at most {int(most):,}" for *_, most in left),
        )  # fmt: skip
