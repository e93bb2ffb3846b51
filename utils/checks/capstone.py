"""Chapter 29: a plan, and what judges it. The oracles of sizes are real, small models."""

import copy
import math
from collections.abc import Mapping
from numbers import Integral
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from utils.built import gpt, muon, packed
from utils.built.plan import Job, Machine, Shape
from utils.exercises import Chapter, Miss, same

chapter = Chapter("29_capstone")
keeps_random = torch.random.fork_rng(devices=[])
EXACT = {"rtol": 0, "atol": 0}


def model_of(shape, **options):
    "The GPT that a Shape describes."
    return gpt.GPT(
        shape.V, 16, shape.L, shape.H, shape.E, groups=shape.G, hidden=shape.F,
        activation="swiglu" if shape.gated else "relu2", tied=shape.tied,
        gain=shape.gains, **options,
    )  # fmt: skip


def counted(shape, rows, tokens):
    "Weights and FLOPs of a training step, by PyTorch's own counters."
    model = model_of(shape)
    ids = torch.zeros(rows, tokens, dtype=torch.long)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops:
        F.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
    return sum(p.numel() for p in model.parameters()), flops.get_total_flops()


@chapter.exercise(
    "Count one layer's matrices first; the FLOPs need the same number.",
    "A layer has two matrices E x E (queries, output), two of E G / H x E (keys, values), "
    "and two or three of F x E. A token meets all of them and the head, two FLOPs per "
    "weight, and attention's 4 T E per layer; a step is three forward passes.",
    "layer = 2*E*E + 2*E*(E*G//H) + (3 if gated else 2)*E*F; weights = L*layer + V*E or "
    "2*V*E, + (2*L + 1)*E with gains; flops = 3 * (2*B*T*(L*layer + V*E) + 4*L*B*T*T*E)",
)
@keeps_random
def size_up(answer):
    "Weights and operations of a plan."
    cases = [
        (Shape(11, 12, 3, 3, 3, 20), "A layer: queries, keys, values and output E x E, "
         "and an MLP of two matrices F x E. No biases; embedding and head V x E each."),
        (Shape(7, 12, 2, 6, 2, 10), "With G groups for H heads, keys and values have "
         "E G / H rows each, not E."),
        (Shape(7, 8, 2, 2, 1, 5, gated=True), "A gated MLP has three matrices F x E."),
        (Shape(9, 8, 3, 2, 2, 6, tied=True), "Tied: the head is the embedding's own "
         "matrix, counted once. It still multiplies."),
        (Shape(9, 8, 3, 2, 2, 6, gains=True), "Gains: E numbers for each of the 2 L + 1 "
         "norms. They are no products of matrices."),
    ]  # fmt: skip
    for shape, rule in cases:
        for rows, tokens in ((2, 5), (3, 7)):
            weights, flops = counted(shape, rows, tokens)
            got = _pair(answer(shape, rows, tokens), "(weights, FLOPs)")
            case = f"{shape}, {rows} rows of {tokens} tokens"
            same(f"weights of {case}", got[0], weights, rule, **EXACT)
            same(f"FLOPs of {case}", got[1], flops, "Three forward passes: 2 per token "
                 "and weight of the layers' matrices and the head, and 4 T E per token and "
                 "layer inside attention. Look-up and gains count nothing.", **EXACT)  # fmt: skip
            for what, value in zip(("weights", "FLOPs"), got):
                if not isinstance(value, Integral):
                    raise Miss("Both are counts, so an int each: `//` divides without a "
                               "fraction.", f"{what} of {case}", type(value).__name__,
                               "int")  # fmt: skip


def _pair(got, names):
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        raise Miss(
            f"It returns two numbers, {names}.", "", type(got).__name__, "a pair"
        )
    return got


def _line(points):
    "(rate, overhead) by the weighted normal equations, for one repeat per size."
    rows = [(x, t, 1 / t**2) for x, (t,) in points]
    W, X, T = (sum(w * (1, x, t)[i] for x, t, w in rows) for i in range(3))
    XX, XT = (sum(w * x * (x, t)[i] for x, t, w in rows) for i in range(2))
    each = (W * XT - X * T) / (W * XX - X * X)
    return 1 / each, (T - each * X) / W


def _through_zero(points):
    rows = [(x, t, 1 / t**2) for x, (t,) in points]
    each = sum(w * x * t for x, t, w in rows) / sum(w * x * x for x, t, w in rows)
    return 1 / each, 0.0


@chapter.exercise(
    "Two unknowns, three points: a line.",
    "Per size the median of its seconds. Then least squares of seconds = overhead + work "
    "/ rate, each row divided by its own seconds, so that all errors are relative.",
    "A = np.c_[np.ones(S), work] / seconds[:, None]; overhead, each = np.linalg.lstsq(A, "
    "np.ones(S), rcond=None)[0]; if overhead < 0: overhead = 0 and each = (x).sum() / "
    "(x*x).sum() with x = work / seconds; return 1 / each, overhead",
)
def fit_machine(answer):
    "A machine out of three measured steps."
    line = [(w, [2.0 + w / 8.0]) for w in (1.0, 2.0, 7.0)]
    same("three points of 2 + work / 8", answer(line), (8.0, 2.0),
         "rate is work per second, the inverse of the slope; overhead the start.")  # fmt: skip
    late = [(w, [t, 9 * t, 0.9 * t]) for w, (t,) in line]
    same("the same, one of three repeats nine times as long", answer(late), (8.0, 2.0),
         "Of each size the median counts: one late repeat must not move it.")  # fmt: skip
    off = [(1.0, [0.5]), (2.0, [1.0]), (4.0, [1.5]), (50.0, [20.0])]
    same("four points on no line", answer(off), _line(off),
         "Least squares of *relative* errors: divide each row by its own seconds, or the "
         "longest step decides alone.", rtol=1e-6)  # fmt: skip
    below = [(2.0, [1.0]), (4.0, [2.5]), (8.0, [5.5])]
    same("a line that would start at -0.5", answer(below), _through_zero(below),
         "No step takes less than 0 seconds without work: then the line through the origin "
         "with the least relative error.", rtol=1e-6)  # fmt: skip


@chapter.exercise(
    "A ring passes pieces of 1 / n round, twice.",
    "2 (n - 1) messages of numbers * size / n bytes: once to add up, once to hand out.",
    "messages = 2 * (ranks - 1); sent = messages * numbers * size / ranks; return sent, "
    "messages * alpha + sent * beta",
)
def wire(answer):
    "What a step sends."
    ring = "2 (n - 1) messages, each of numbers * size / n bytes."
    for numbers, n, alpha, beta, size in (
        (640, 5, 0.5, 1.0, 16), (1000, 2, 0.5, 0.25, 4), (999, 3, 2.0, 0.0, 2),
        (77, 1, 3.0, 5.0, 4),
    ):  # fmt: skip
        got = _pair(answer(numbers, n, alpha, beta, size), "(bytes, seconds)")
        sent = 2 * (n - 1) * numbers * size / n
        case = f"{numbers} numbers of {size} bytes, {n} ranks"
        same(f"bytes: {case}", got[0], sent, ring)
        same(f"seconds: {case}, alpha {alpha}, beta {beta}", got[1],
             2 * (n - 1) * alpha + sent * beta,
             "alpha once per message, beta once per byte sent.")  # fmt: skip
    same("bytes: size not given", answer(10, 2, 1.0, 1.0)[0], 40.0,
         "A number has 4 bytes, if not said otherwise.")  # fmt: skip


@chapter.exercise(
    "Two kinds of tensors, and a matrix has two parts: codes and scales.",
    "Codes: H * D * bits / 8 bytes, rounded up to a whole byte for each matrix. Scales: two "
    "bytes per group of a row. What is no matrix stays in four bytes per number.",
    "-(-H * D * bits // 8) + 2 * H * D // group for (H, D); 4 * math.prod(shape) else",
)
def file_bytes(answer):
    "Bytes of a compressed file."
    codes = "Codes take `bits` bits per weight, each matrix filled up to a whole byte."
    for bits, group, shapes, want, rule in [
        (8, 4, [(3, 8)], 36, "Two bytes per scale, one for each `group` weights of a row."),
        (4, 8, [(3, 8)], 18, codes),
        (4, 3, [(3, 3), (5, 3), (1, 3)], 33, codes + " Round up, for each matrix."),
        (3, 5, [(7, 5), (2, 10)], 44, codes + " Three bits are no special case."),
        (4, 2, [(6, 2), (9,), (2, 2, 2)], 86, "What has not two axes is no matrix: four "
         "bytes per number, no scales."),
    ]:  # fmt: skip
        same(f"{bits} bits, groups of {group}, {shapes}", answer(shapes, bits, group),
             want, rule, **EXACT)  # fmt: skip
    W = torch.arange(84.0).view(7, 12) - 40.5
    for bits in (8, 4):
        held = packed.pack(W, bits, 6)
        codes_ = held.q.numel() if bits == 8 else packed.pack_int4(held.q).numel()
        want = codes_ + 2 * held.scale.numel()
        same(f"a matrix (7, 12), packed by chapter 24, {bits} bits, groups of 6",
             answer([(7, 12)], bits, 6), want, codes, **EXACT)  # fmt: skip


@chapter.exercise(
    "What does each kill cost in steps?",
    "Dead in step k, before its checkpoint: the newest one stands at the last multiple of "
    "`every` below k. All steps from there to k are computed twice.",
    "lost = sum(k - (k - 1) // every * every for k in kills); return steps + lost, (steps + "
    "lost) * step + steps // every * save + len(kills) * restart",
)
def with_kills(answer):
    "Steps and seconds of a run that is killed."
    saves = "One checkpoint after each `every` steps; none is written twice."
    taken = ("Seconds: of all steps computed, the lost ones too; of steps // every "
             "checkpoints, none of which is written twice; of a restart per kill.")  # fmt: skip
    rows = [
        (20, 5, (), (20, 2.0 * 20 + 4 * 10), saves),
        (23, 5, (), (23, 2.0 * 23 + 4 * 10), "The last stretch is shorter than `every` and "
         "ends without a checkpoint."),
        (20, 5, (13,), (23, 2.0 * 23 + 4 * 10 + 100), "Dead in step 13: steps 11, 12 and 13 "
         "are computed again, behind checkpoint 10."),
        (20, 5, (15,), (25, 2.0 * 25 + 4 * 10 + 100), "Dead in step 15, before its "
         "checkpoint: the newest one stands at 10, so 5 steps are lost."),
        (20, 5, (16,), (21, 2.0 * 21 + 4 * 10 + 100), "Dead in step 16: checkpoint 15 is "
         "there, one step is lost."),
        (20, 7, (3, 12, 20), (34, 2.0 * 34 + 2 * 10 + 300), "Every kill costs its own steps "
         "and its own restart."),
        (20, 5, (13, 13), (26, 2.0 * 26 + 4 * 10 + 200), "Killed twice in the same step: "
         "both kills cost their steps and a restart."),
        (9, 50, (9,), (18, 2.0 * 18 + 100), "Without any checkpoint the run begins anew."),
    ]  # fmt: skip
    for steps, every, kills, want, rule in rows:
        got = _pair(answer(steps, every, kills, (2.0, 10.0, 100.0)), "(steps, seconds)")
        case = f"{steps} steps, a checkpoint every {every}, killed in {kills or 'none'}"
        same(f"steps: {case}", got[0], want[0], rule, **EXACT)
        same(f"seconds: {case}", got[1], want[1], taken if kills else rule)


JOBS = [
    (Shape(11, 12, 3, 3, 3, 24), Job(6, 5, 20, 2, 8, (13,), 4, 3, 16),
     Machine(1e6, 0.25, 0.01, 1e-5, 40.0, 0.05, 0.5)),
    (Shape(7, 12, 2, 6, 2, 12, gated=True, gains=True),
     Job(10, 4, 33, 5, 10, (3, 29), 6, 7, 33, 2),
     Machine(3e5, 0.0, 0.0, 0.0, 9.0, 0.2, 2.0)),
    (Shape(9, 8, 1, 2, 1, 8, tied=True), Job(4, 3, 7, 1, 3, (), 8, 1, 15),
     Machine(2e5, 0.1, 5.0, 5.0, 100.0, 0.0, 4.0)),
]  # fmt: skip

RULES = {
    "weights": "The first of size_up.",
    "FLOPs of a step": "The second of size_up, for all rows of the step.",
    "seconds": "job.steps times one step: overhead, the FLOPs of one rank (all FLOPs / "
    "ranks) at its rate, and the seconds on the wire. No kill in it.",
    "steps, with the kill": "The first of with_kills, for job.kills.",
    "bytes sent": "What one rank sends for one number per weight, of job.size bytes, in all "
    "job.steps.",
    "file, 8 bits": "file_bytes of all matrices(shape), with job.group.",
    "file, 4 bits": "file_bytes of all matrices(shape), with job.group.",
    "KV bytes": "kv_bytes of job.users texts; each takes whole blocks of 16 tokens; "
    "job.size bytes per number, E // H numbers per head.",
    "tokens per second": "Each decoding step writes one token per user, and takes "
    "machine.begin + users / machine.serving seconds.",
    "dollars": "Hours of all ranks together, for the steps with the kill, times the price; "
    "checkpoints and restarts take no time here.",
}


def planned(shape, job, machine):
    "The ten, written out once more in another way."
    weights, flops = counted(shape, job.rows, job.tokens)
    n, size = job.ranks, job.size
    sent = 2 * (n - 1) * weights * size / n
    step = machine.overhead + flops / n / machine.rate
    step += 2 * (n - 1) * machine.alpha + sent * machine.beta
    lost = sum((k - 1) % job.every + 1 for k in job.kills)
    files = {}
    for bits in (8, 4):
        files[bits] = 0
        for p in model_of(shape).parameters():
            if p.ndim == 2:
                files[bits] += math.ceil(p.numel() * bits / 8)
                files[bits] += 2 * p.shape[0] * (p.shape[1] // job.group)
            else:
                files[bits] += 4 * p.numel()
    blocks = math.ceil(job.length / 16)
    held = 2 * shape.L * shape.G * (shape.E // shape.H) * size * 16 * blocks
    return {
        "weights": weights, "FLOPs of a step": flops, "seconds": job.steps * step,
        "steps, with the kill": job.steps + lost, "bytes sent": job.steps * sent,
        "file, 8 bits": files[8], "file, 4 bits": files[4],
        "KV bytes": held * job.users,
        "tokens per second": job.users / (machine.begin + job.users / machine.serving),
        "dollars": (job.steps + lost) * step * n / 3600 * machine.price,
    }  # fmt: skip


@chapter.exercise(
    "How long is one step?",
    "One step is overhead + FLOPs / ranks / rate + the wire's seconds, which is `wait`. The "
    "run is job.steps of them; the dollars are for `computed` of them, on all ranks.",
    "step = machine.overhead + flops / job.ranks / machine.rate + wait; seconds job.steps * "
    "step; dollars computed * step * job.ranks / 3600 * machine.price; tokens per second "
    "job.users / (machine.begin + job.users / machine.serving)",
)
@keeps_random
def plan(answer):
    "Ten predictions."
    for number, (shape, job, machine) in enumerate(JOBS, 1):
        got, want = answer(shape, job, machine), planned(shape, job, machine)
        if not isinstance(got, dict) or set(got) != set(want):
            names = sorted(got) if isinstance(got, dict) else type(got).__name__
            raise Miss(f"It returns a dict with these names: {', '.join(want)}.",
                       "the names", str(names), ", ".join(sorted(want)))  # fmt: skip
        for name, value in want.items():
            same(f"{name!r} of plan {number}: {job}, {machine}", got[name], value,
                 RULES[name])  # fmt: skip


@keeps_random
def _a_run():
    "A tiny model that has learnt for three steps, its optimizers, and how to go on."
    torch.manual_seed(0)
    model = gpt.GPT(5, 8, 1, 2, 8)
    pair = muon.for_model(model)

    def step(model, pair, number):
        torch_dice = torch.Generator().manual_seed(number)
        ids = torch.randint(5, (2, 7), generator=torch_dice)
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        for optimizer in pair:
            for group in optimizer.param_groups:
                group["lr"] = group["first"] * (1 - number / 9)
            optimizer.step()
            optimizer.zero_grad()

    for number in range(3):
        step(model, pair, number)
    return model, pair, step


def restore(saved, model, optimizers):
    "Put a snapshot back: -> the step that comes next."
    model.load_state_dict(saved["model"])
    for optimizer, state in zip(optimizers, saved["optimizers"]):
        optimizer.load_state_dict(state)
    return saved["step"]


@chapter.exercise(
    "What does the next step read?",
    "Weights; of each optimizer its moments and rates; the number of the step, from which "
    "rate and batch follow. state_dict() holds the very tensors that the next step changes.",
    "copy.deepcopy({'model': model.state_dict(), 'optimizers': [o.state_dict() for o in "
    "optimizers], 'step': step})",
    mutates=True,
)
@keeps_random
def snapshot(answer):
    "All that a step reads."
    model, pair, step = _a_run()
    saved = answer(model, pair, 3)
    if not isinstance(saved, dict) or set(saved) != {"model", "optimizers", "step"}:
        names = sorted(saved) if isinstance(saved, dict) else type(saved).__name__
        raise Miss("It is a dict with 'model', 'optimizers' and 'step'.", "the names",
                   str(names), "model, optimizers, step")  # fmt: skip
    same(
        "the step",
        saved["step"],
        3,
        "The step that comes next, as it was given.",
        **EXACT,
    )
    _states(saved, model)
    same("optimizers", len(saved["optimizers"]), len(pair),
         "One state for each optimizer, in their order.", **EXACT)  # fmt: skip
    then = _flat(model)
    for number in (3, 4, 5):
        step(model, pair, number)
    end = _flat(model)
    same("weights in the snapshot, three steps later",
         torch.cat([saved["model"][n].flatten() for n, _ in model.named_parameters()]),
         then, "A snapshot does not change when the run goes on: copy the tensors "
         "(state_dict() holds the very ones that are trained).", **EXACT)  # fmt: skip
    other = gpt.GPT(5, 8, 1, 2, 8)
    others = muon.for_model(other)
    number = restore(copy.deepcopy(saved), other, others)
    same("weights of a fresh model that was restored", _flat(other), then,
         "All weights of the model.", **EXACT)  # fmt: skip
    while number < 6:
        step(other, others, number)
        number += 1
    same("weights after three more steps from the snapshot", _flat(other), end,
         "The run that goes on has the bits of the one that never stopped: the optimizers' "
         "moments belong to it, copied.", **EXACT)  # fmt: skip


def _states(saved, model):
    "Miss unless these are the states of a model and of optimizers, so that they load."
    rule = "'model' is `model.state_dict()`, 'optimizers' a list of each one's `state_dict()`."
    state, optimizers = saved["model"], saved["optimizers"]
    if not isinstance(state, Mapping):
        raise Miss(rule, "'model'", type(state).__name__, "a dict {name: tensor}")
    if missing := [name for name in model.state_dict() if name not in state]:
        raise Miss(rule, "names that 'model' lacks", ", ".join(missing), "none")
    if not isinstance(optimizers, (list, tuple)):
        raise Miss(rule, "'optimizers'", type(optimizers).__name__, "list")
    for number, one in enumerate(optimizers):
        if not isinstance(one, Mapping) or not {"state", "param_groups"} <= set(one):
            raise Miss(rule, f"'optimizers'[{number}]", type(one).__name__,
                       "a dict with 'state' and 'param_groups'")  # fmt: skip


def _flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


@chapter.exercise(
    "How far off is a ratio of 0.5, and how far is 2?",
    "Both are off by a factor of two: the absolute value of the logarithm. The geometric "
    "mean is exp of the mean of those.",
    "errors = {name: abs(math.log(ratio)) ...}; return ratios, math.exp(sum(errors.values()) "
    "/ len(errors)), max(errors, key=errors.get)",
)
def score(answer):
    "Ratios, a score, the worst."
    ratio = "A ratio is measured / predicted."
    mean = "The geometric mean of the errors as factors: exp of the mean of |ln ratio|."
    worst = "The name whose ratio is farthest from 1, in either direction."
    rows = [
        ({"a": 4.0, "b": 10.0}, {"a": 6.0, "b": 2.5}, {"a": 1.5, "b": 0.25}, 6**0.5, "b",
         mean),
        ({"a": 1.0, "b": 2.0}, {"a": 9.0, "b": 4.0}, {"a": 9.0, "b": 2.0}, 18**0.5, "a",
         mean),
        ({"a": 3.0, "b": 7.0, "c": 1.0}, {"c": 0.1, "b": 7.0, "a": 6.0},
         {"a": 2.0, "b": 1.0, "c": 0.1}, 20 ** (1 / 3), "c", mean),
        ({"a": 2.0, "b": 1.0, "c": 5.0}, {"a": 2.0, "c": 4.0, "d": 9.0},
         {"a": 1.0, "c": 0.8}, 1.25 ** 0.5, "c", "Only what was predicted *and* measured."),
    ]  # fmt: skip
    for predicted, measured, ratios, factor, name, rule in rows:
        got = answer(MappingProxyType(predicted), measured)  # sealed, as in the chapter
        if not isinstance(got, (tuple, list)) or len(got) != 3:
            raise Miss("It returns three things: ratios, the factor, the worst name.", "",
                       type(got).__name__, "three")  # fmt: skip
        case = f"predicted {predicted}, measured {measured}"
        if not isinstance(got[0], dict):
            raise Miss("The ratios are a dict {name: ratio}.", case,
                       type(got[0]).__name__, "dict")  # fmt: skip
        same(f"names: {case}", ", ".join(sorted(got[0])), ", ".join(ratios),
             "Only what was predicted *and* measured.")  # fmt: skip
        same(
            f"ratios: {case}", [got[0][n] for n in ratios], list(ratios.values()), ratio
        )
        same(f"factor: {case}", got[1], factor, rule)
        same(f"worst: {case}", got[2], name, worst)


CHIPS = [
    {"name": "one", "bf16_tflops": 100.0, "fp32_tflops": 10.0, "bandwidth_gb_s": 500.0},
    {
        "name": "two",
        "bf16_tflops": 312.0,
        "fp32_tflops": 19.5,
        "bandwidth_gb_s": 2039.0,
    },
]


@chapter.exercise(
    "Which limit of chapter 11 holds a training step, and which a decoding step?",
    "Training: the share mfu of the bf16 peak. Decoding: all weights are read once per step, "
    "whoever is served, and each user costs 2 FLOPs per weight; the chips share both.",
    "rate = mfu * chip['bf16_tflops'] * 1e12; serving = chips * rate / (2 * weights); begin = "
    "size * weights / (chips * chip['bandwidth_gb_s'] * 1e9); the other three are 0",
)
def machine_of(answer):
    "A machine from a data sheet."
    for chip, weights, options in (
        (CHIPS[0], 1e9, {"mfu": 0.5, "chips": 4, "price": 3.0, "size": 1}),
        (CHIPS[1], 7e10, {"mfu": 0.3, "chips": 8, "price": 1.5, "size": 2}),
        (CHIPS[1], 7e10, {}),
    ):
        full = {"mfu": 0.4, "chips": 8, "price": 2.0, "size": 2} | options
        got = answer(dict(chip), weights, **options)
        if not isinstance(got, Machine):
            raise Miss("It returns a Machine(rate, overhead, alpha, beta, serving, begin, "
                       "price).", "", type(got).__name__, "Machine")  # fmt: skip
        rate = full["mfu"] * chip["bf16_tflops"] * 1e12
        said = ", ".join(f"{k} {v}" for k, v in options.items()) or "nothing else given"
        case = f"{chip['name']}, {weights:g} weights, {said}"
        wants = [
            ("rate", rate, "FLOP per second of one chip: mfu of its bf16 peak (the column "
             "is in 10^12)."),
            ("overhead", 0.0, "mfu holds everything: overhead, alpha and beta are 0."),
            ("alpha", 0.0, "mfu holds everything: overhead, alpha and beta are 0."),
            ("beta", 0.0, "mfu holds everything: overhead, alpha and beta are 0."),
            ("serving", full["chips"] * rate / 2 / weights, "2 FLOPs per weight and user, by "
             "all chips at the same rate."),
            ("begin", weights * full["size"] / chip["bandwidth_gb_s"] / 1e9 / full["chips"],
             "All weights, of `size` bytes, read once, with the bandwidth of all chips (the "
             "column is in 10^9 bytes per second)."),
            ("price", full["price"], "The price as it was given."),
        ]  # fmt: skip
        for name, want, rule in wants:
            same(f"{name}: {case}", getattr(got, name), want, rule, atol=0)


FACTS = {
    "data": "Nine plays.",
    "licence": "Public domain.",
    "numbers": {"weights": 106368, "nats": 2.03161, "tokens per second": 5230.0},
    "limits": "It writes no sense.",
}
CARD = """# tiny

## data

Nine plays.

## licence

Public domain.

## numbers

| what | measured |
|---|---|
| weights | 106,368 |
| nats | 2.03 |
| tokens per second | 5.23e+03 |

## limits

It writes no sense.
"""


@chapter.exercise(
    "Refuse first, then write.",
    "A section is missing when it is not in facts, and when it is empty: not facts.get("
    "section). Collect all of them before you raise.",
    "lacking = [s for s in SECTIONS if not facts.get(s)]; if lacking: raise ValueError(', '."
    "join(lacking)); for a number f'{value:,}' if isinstance(value, int), else f'{value:.3g}'",
)
def card(answer):
    "The card of a model."
    lines = "The lines of the text are a title, then each section's heading and text."
    got = answer("tiny", FACTS)
    if not isinstance(got, str):
        raise Miss("It returns a text.", "", type(got).__name__, "str")
    want = [line for line in CARD.splitlines() if line]
    same("lines of a card", "\n".join(_lines(got)), "\n".join(want), lines + " An int "
         "has commas, a float three digits.")  # fmt: skip
    rows = "\n".join(
        CARD.splitlines()[CARD.splitlines().index("| what | measured |") :][:5]
    )
    tidy = "\n".join(line.strip() for line in got.splitlines())
    if rows not in tidy:
        raise Miss("A blank line ends a table in Markdown: its lines follow each other.",
                   "the table", tidy.partition("## numbers")[2].partition("##")[0].strip(),
                   rows)  # fmt: skip
    more = {**FACTS, "author": "somebody"}
    same("facts with a fifth entry", "\n".join(_lines(answer("tiny", more))),
         "\n".join(want), "The four sections and nothing else.")  # fmt: skip
    turned = dict(reversed(FACTS.items()))
    same("facts in another order", "\n".join(_lines(answer("tiny", turned))),
         "\n".join(want), "data, licence, numbers, limits: always in this order.")  # fmt: skip
    for facts, missing in (
        ({**FACTS, "limits": ""}, ("limits",)),
        ({k: v for k, v in FACTS.items() if k != "licence"}, ("licence",)),
        ({**FACTS, "numbers": {}}, ("numbers",)),
        ({"licence": "MIT"}, ("data", "numbers", "limits")),
    ):
        case = f"facts with nothing of {', '.join(missing)}"
        told = _told(answer, facts, case)
        found = [section for section in FACTS if section in told]
        same(case, ", ".join(found), ", ".join(missing), "The ValueError names every "
             "section that is missing or empty, and no other.")  # fmt: skip


def _lines(text):
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def _told(answer, facts, case):
    try:
        answer("tiny", facts)
    except ValueError as error:
        return str(error)
    raise Miss("A section that is missing or empty: raise ValueError.", case,
               "a card", "ValueError")  # fmt: skip
