"""What chapter 29 builds: what a model will cost, in ten numbers, before it exists.

    plan(shape, job, machine)            -> {name: prediction}, see TEN
    score(predicted, measured)           -> ratios, the mean factor of error, the worst

A Shape says what is built, a Job what is done with it, a Machine how fast this happens:
three measured steps (`fit_machine`), or a data sheet (`machine_of`). Built on chapters
11, 12, 16 and 21.

Letters: V vocabulary, E width, L layers, H heads, G heads that are read, F hidden size.
"""

import math
import statistics
from typing import NamedTuple

import numpy as np

from utils import given
from utils.built import budget, collectives

HOUR = 3600  # seconds
BLOCK = 16  # tokens in a block of the served cache (chapter 28)


class Shape(NamedTuple):
    """A GPT of chapter 09: rotary positions, no biases.

    gated   the MLP has a gate, a third matrix (SwiGLU)
    tied    the head is the embedding's own matrix
    gains   each norm has a learned gain
    """

    V: int
    E: int
    L: int
    H: int
    G: int
    F: int
    gated: bool = False
    tied: bool = False
    gains: bool = False


class Job(NamedTuple):
    """What is done with a model: trained, killed now and then, compressed, served.

    rows, tokens   of one step, over all ranks; tokens of each row
    every, kills   a checkpoint after so many steps; the steps in which the run dies
    group          weights that share a scale in a compressed file
    users, length  texts that are written at once, and their tokens, prompt included
    size           bytes of a number in training and in the cache
    """

    rows: int
    tokens: int
    steps: int
    ranks: int
    every: int
    kills: tuple = ()
    group: int = 32
    users: int = 8
    length: int = 64
    size: int = 4


class Machine(NamedTuple):
    """How fast one rank is, and what it costs.

    rate, overhead      FLOP per second, and seconds of a step that no FLOP explains
    alpha, beta         seconds per message and per byte on the wire
    serving, begin      users per second, and seconds of a decoding step that no user
                        explains
    price               dollars per hour of one rank
    """

    rate: float
    overhead: float
    alpha: float
    beta: float
    serving: float
    begin: float
    price: float


# Llama 2 70B: 8 groups for 64 heads, SwiGLU, a head of its own, gains in its norms
LLAMA_2_70B = Shape(32_000, 8192, 80, 64, 8, 28_672, gated=True, gains=True)
LLAMA_65B = Shape(32_000, 8192, 80, 64, 64, 22_016, gated=True, gains=True)


def size_up(shape, rows, tokens):
    "Weights of the model, and FLOPs of one training step: -> (weights, FLOPs)."
    _shape(shape)
    given.whole("rows", rows), given.whole("tokens", tokens)
    V, E, L, H, G, F, gated, tied, gains = shape
    layer = 2 * E * E + 2 * E * (E * G // H) + (3 if gated else 2) * E * F
    weights = (1 if tied else 2) * V * E + L * layer
    weights += (2 * L + 1) * E if gains else 0
    forward = 2 * rows * tokens * (L * layer + V * E)
    return weights, 3 * (forward + 4 * L * rows * tokens * tokens * E)


def fit_machine(measured):
    """Work per second, and seconds that no work explains: -> (rate, overhead).

    measured: [(work, [seconds, ...]), ...], at least two different amounts. Of each the
    median counts; the line through them is the one of least relative error, and its
    start is not below 0. ValueError where more work does not take longer.
    """
    work_S = np.array([given.number("work", work, above=0) for work, _ in measured])
    seconds_S = np.array([statistics.median(seconds) for _, seconds in measured])
    if len(set(work_S.tolist())) < 2:
        raise ValueError("a line needs at least two different amounts of work")
    if not (seconds_S > 0).all():
        raise ValueError("each step takes more than 0 seconds")
    overhead, each = collectives.fit(work_S, seconds_S)
    if overhead < 0:
        x = work_S / seconds_S
        overhead, each = 0.0, x.sum() / (x * x).sum()
    if each <= 0:
        raise ValueError("more work did not take longer: measure again")
    return 1 / float(each), float(overhead)


def wire(numbers, ranks, alpha, beta, size=4):
    """A ring all-reduce of so many numbers: -> (bytes, seconds) of one rank.

    alpha, beta: seconds per message and per byte; size: bytes of a number.
    """
    given.whole("numbers", numbers), given.whole("ranks", ranks)
    given.number("alpha", alpha), given.number("beta", beta)
    sent = 2 * (ranks - 1) * numbers * size / ranks
    return sent, collectives.cost("ring", ranks, numbers * size, alpha, beta)


def file_bytes(shapes, bits, group):
    """Bytes of a file's tensors, names and sizes not counted.

    shapes: of all tensors. A matrix (H, D) takes `bits` bits per weight, filled up to a
    whole byte, and two bytes per `group` weights of a row; anything else four bytes per
    number. ValueError where a group does not divide a row.
    """
    given.whole("bits", bits, most=8), given.whole("group", group)
    total = 0
    for shape in shapes:
        numbers = math.prod(shape)
        if len(shape) != 2:
            total += 4 * numbers
            continue
        if shape[1] % group:
            raise ValueError(f"groups of {group} do not divide rows of {shape[1]}")
        total += -(-numbers * bits // 8) + 2 * numbers // group
    return total


def with_kills(steps, every, kills, seconds):
    """A run that is killed and goes on from its newest checkpoint: -> (steps, seconds).

    steps    of the whole run; a checkpoint after each `every` of them
    kills    the steps, from 1, after whose work, and before whose checkpoint, it dies
    seconds  of a step, of a checkpoint, of a restart

    -> how many steps are computed in all, and how long it takes
    """
    given.whole("steps", steps), given.whole("every", every)
    if not isinstance(seconds, (tuple, list)) or len(seconds) != 3:
        raise ValueError(
            f"seconds are three: of a step, a checkpoint, a restart; not {seconds!r:.60}"
        )
    step, save, restart = (given.number("seconds", taken) for taken in seconds)
    lost = 0
    for kill in kills:
        given.whole("a kill", kill, most=steps)
        lost += kill - (kill - 1) // every * every
    saves = steps // every
    taken = (steps + lost) * step + saves * save + len(kills) * restart
    return steps + lost, taken


def plan(shape, job, machine):
    "The ten predictions: {name: number}. A Shape, a Job and a Machine."
    for name, value, kind in (("shape", shape, Shape), ("job", job, Job),
                              ("machine", machine, Machine)):  # fmt: skip
        if not isinstance(value, kind):
            raise TypeError(f"{name} is a {kind.__name__}, not {given.kind(value)}")
    weights, flops = size_up(shape, job.rows, job.tokens)
    sent, wait = wire(weights, job.ranks, machine.alpha, machine.beta, job.size)
    step = machine.overhead + flops / job.ranks / machine.rate + wait
    computed, _ = with_kills(job.steps, job.every, job.kills, (step, 0, 0))
    decoding = machine.begin + job.users / machine.serving
    held = math.ceil(job.length / BLOCK) * BLOCK
    return {
        "weights": weights,
        "FLOPs of a step": flops,
        "seconds": job.steps * step,
        "steps, with the kill": computed,
        "bytes sent": job.steps * sent,
        "file, 8 bits": file_bytes(matrices(shape), 8, job.group),
        "file, 4 bits": file_bytes(matrices(shape), 4, job.group),
        "KV bytes": budget.kv_bytes(
            shape.L, shape.G, shape.E // shape.H, job.users, held, job.size
        ),
        "tokens per second": job.users / decoding,
        "dollars": computed * step * job.ranks / HOUR * machine.price,
    }


TEN = (
    "weights", "FLOPs of a step", "seconds", "steps, with the kill", "bytes sent",
    "file, 8 bits", "file, 4 bits", "KV bytes", "tokens per second", "dollars",
)  # fmt: skip


def matrices(shape):
    "The shapes of all tensors of a model, in no order: [(rows, columns), ..., (E,)]."
    V, E, L, H, G, F, gated, tied, gains = _shape(shape)
    layer = [(E, E), (E * G // H, E), (E * G // H, E), (E, E), (F, E), (E, F)]
    layer += [(F, E)] * gated + [(E,)] * (2 * gains)
    return [(V, E)] * (1 if tied else 2) + layer * L + [(E,)] * gains


def score(predicted, measured):
    """How good a plan was: -> ({name: measured / predicted}, factor, worst name).

    Only names that are in both. factor: the geometric mean of the errors, each as a
    factor of at least 1. ValueError for what is not above 0.
    """
    ratios = {}
    for name in predicted:
        if name in measured:
            given.number(f"predicted {name}", predicted[name], above=0)
            given.number(f"measured {name}", measured[name], above=0)
            ratios[name] = measured[name] / predicted[name]
    if not ratios:
        raise ValueError("nothing that was predicted has been measured")
    errors = {name: abs(math.log(ratio)) for name, ratio in ratios.items()}
    factor = math.exp(sum(errors.values()) / len(errors))
    return ratios, factor, max(errors, key=errors.get)


def machine_of(chip, weights, mfu=0.4, chips=8, price=2.0, size=2):
    """A Machine from a data sheet: a row of data.accelerators().

    Training reaches the share `mfu` of the peak, what is sent included. `chips` of it serve
    together: a decoding step reads all weights once, of `size` bytes, and computes 2 FLOPs
    per weight and user at the same share.
    """
    if not chip.get("bf16_tflops") or not chip.get("bandwidth_gb_s"):
        raise ValueError(f"{chip.get('name')} has no bf16 peak, or no bandwidth")
    given.number("weights", weights, above=0), given.whole("chips", chips)
    if not 0 < given.number("mfu", mfu, above=0) <= 1:
        raise ValueError(f"mfu is a share of the peak, at most 1, not {mfu!r:.60}")
    rate = mfu * chip["bf16_tflops"] * 1e12
    return Machine(
        rate=rate, overhead=0.0, alpha=0.0, beta=0.0,
        serving=chips * rate / (2 * weights),
        begin=size * weights / (chips * chip["bandwidth_gb_s"] * 1e9),
        price=price,
    )  # fmt: skip


SECTIONS = "data", "licence", "numbers", "limits"


def card(name, facts):
    """A model's card as Markdown: a title and the sections data, licence, numbers, limits.

    facts: {section: text}; "numbers" is {name: number}, one row of a table each: whole
    numbers with commas, others with three digits. ValueError that names every section
    that is missing or empty.
    """
    lacking = [section for section in SECTIONS if not facts.get(section)]
    if lacking:
        raise ValueError(f"the card of {name} says nothing of: {', '.join(lacking)}")
    lines = [f"# {name}"]
    for section in SECTIONS:
        lines += ["", f"## {section}", ""]
        if section != "numbers":
            lines.append(facts[section])
            continue
        lines += ["| what | measured |", "|---|---|"]
        for what, value in facts["numbers"].items():
            told = f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
            lines.append(f"| {what} | {told} |")
    return "\n".join(lines) + "\n"


def _shape(shape):
    if not isinstance(shape, Shape):
        raise TypeError(f"shape is a Shape(V, E, L, H, G, F), not {given.kind(shape)}")
    for name, value in zip("VELHGF", shape):
        given.whole(name, value)
    if shape.E % shape.H or shape.H % shape.G:
        raise ValueError(f"heads divide the width, groups the heads: not {shape!r:.60}")
    return shape
