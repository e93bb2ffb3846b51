"""Chapter 29: small wrong programs, and the sentence that names each."""

import copy
import math
import statistics

import numpy as np

from utils.built import budget
from utils.built import plan as course
from utils.checks import capstone as ex

# ---- size_up ----


def _size(shape, rows, tokens, layer=None, weights=0, head=1, attention=1, times=3):
    "size_up with one part of it changed."
    V, E, L, H, G, F, gated, tied, gains = shape
    own = 2 * E * E + 2 * E * (E * G // H) + (3 if gated else 2) * E * F
    layer = own if layer is None else layer
    held = (1 if tied else 2) * V * E + L * layer + ((2 * L + 1) * E if gains else 0)
    forward = 2 * rows * tokens * (L * layer + head * V * E)
    inside = 4 * attention * L * rows * tokens * tokens * E
    return held + weights, times * (forward + inside)


@ex.size_up.slip(
    "Keys and values are counted like queries: with G groups they have E G / H rows."
)
def groups_forgotten(shape, rows, tokens):
    E, F = shape.E, shape.F
    return _size(
        shape, rows, tokens, layer=4 * E * E + (3 if shape.gated else 2) * E * F
    )


@ex.size_up.slip("A gated MLP has a third matrix: read shape.gated.")
def gate_forgotten(shape, rows, tokens):
    return _size(shape._replace(gated=False), rows, tokens)


@ex.size_up.slip(
    "The hidden size is given, F: it is not 4 E. The MLP's matrices are F x E."
)
def four_times(shape, rows, tokens):
    return _size(shape._replace(F=4 * shape.E), rows, tokens)


@ex.size_up.slip("The embedding and the head are two matrices unless they are tied.")
def always_tied(shape, rows, tokens):
    return _size(shape._replace(tied=True), rows, tokens)


@ex.size_up.slip("A tied head is the embedding's own matrix: it is counted once.")
def never_tied(shape, rows, tokens):
    return _size(shape._replace(tied=False), rows, tokens)


@ex.size_up.slip("The gains of the norms are missing: (2 L + 1) E of them.")
def gains_forgotten(shape, rows, tokens):
    return _size(shape._replace(gains=False), rows, tokens)


@ex.size_up.slip("The last norm has a gain, too: 2 L + 1 norms, not 2 L.")
def no_last_gain(shape, rows, tokens):
    return _size(shape, rows, tokens, weights=-shape.E if shape.gains else 0)


@ex.size_up.slip("The head's product is missing: V E weights per token.")
def no_head(shape, rows, tokens):
    return _size(shape, rows, tokens, head=0)


@ex.size_up.slip("The look-up multiplies nothing: only the head costs V E.")
def look_up_counted(shape, rows, tokens):
    return _size(shape, rows, tokens, head=2)


@ex.size_up.slip(
    "The products inside attention are missing: 4 T E per token and layer."
)
def no_attention(shape, rows, tokens):
    return _size(shape, rows, tokens, attention=0)


@ex.size_up.slip(
    "This is the forward pass: a training step has three times as many FLOPs."
)
def forward_alone(shape, rows, tokens):
    return _size(shape, rows, tokens, times=1)


@ex.size_up.slip(
    "6 N per token counts the embedding as a product and leaves attention out: good enough "
    "for a first guess, not for this one."
)
def six_n(shape, rows, tokens):
    weights, _ = _size(shape, rows, tokens)
    return weights, 6 * weights * rows * tokens


@ex.size_up.slip(
    "Both are counts, so an int each: E * G // H, as heads divide the width."
)
def a_fraction(shape, rows, tokens):
    weights, flops = _size(shape, rows, tokens)
    return float(weights), float(flops)


@ex.size_up.slip("Gains are no matrix: they count no FLOPs here.")
def gains_multiply(shape, rows, tokens):
    weights, flops = _size(shape, rows, tokens)
    gains = (2 * shape.L + 1) * shape.E if shape.gains else 0
    return weights, flops + 6 * gains * rows * tokens


@ex.size_up.slip(
    "A tied head is stored once, and multiplies as any other: V E weights."
)
def tied_head_for_free(shape, rows, tokens):
    return _size(shape, rows, tokens, head=0 if shape.tied else 1)


@ex.size_up.slip("These are the FLOPs of one row: times rows.")
def one_row(shape, rows, tokens):
    return _size(shape, rows, tokens)[0], _size(shape, 1, tokens)[1]


@ex.size_up.slip("These are the FLOPs of one token per row: times tokens.")
def one_token(shape, rows, tokens):
    weights, flops = _size(shape, rows, tokens)
    return weights, flops // tokens


@ex.size_up.slip(
    "All H heads ask, whatever G is: inside attention it stays 4 T E per token and layer."
)
def groups_ask(shape, rows, tokens):
    E, G, H = shape.E, shape.G, shape.H
    inside = 12 * shape.L * rows * tokens * tokens * (E * G // H - E)
    weights, flops = _size(shape, rows, tokens)
    return weights, flops + inside


@ex.size_up.slip("4 T E per token and layer is for all H heads already: not times H.")
def once_more_per_head(shape, rows, tokens):
    return _size(shape, rows, tokens, attention=shape.H)


# ---- fit_machine ----


def _fit(measured, middle=statistics.median, relative=True, floor=True):
    work = np.array([float(w) for w, _ in measured])
    seconds = np.array([middle(s) for _, s in measured])
    scale = seconds if relative else np.ones_like(seconds)
    A = np.c_[np.ones(len(work)), work] / scale[:, None]
    overhead, each = np.linalg.lstsq(A, seconds / scale, rcond=None)[0]
    if floor and overhead < 0:
        x = work / seconds
        overhead, each = 0.0, x.sum() / (x * x).sum()
    return 1 / each, overhead


@ex.fit_machine.slip("This is seconds per work: the rate is its inverse.")
def slope_for_rate(measured):
    rate, overhead = _fit(measured)
    return 1 / rate, overhead


@ex.fit_machine.slip("First the rate, then the overhead.")
def the_wrong_way_round(measured):
    return _fit(measured)[::-1]


@ex.fit_machine.slip("The mean follows one late repeat: take the median of each size.")
def means(measured):
    return _fit(measured, statistics.mean)


@ex.fit_machine.slip(
    "The fastest repeat is what the machine can do, not what it does: take the median."
)
def fastest(measured):
    return _fit(measured, min)


@ex.fit_machine.slip(
    "These errors are absolute, so that the longest step decides: divide each row, and its "
    "seconds, by its own seconds."
)
def absolute_errors(measured):
    return _fit(measured, relative=False)


@ex.fit_machine.slip(
    "The overhead is below 0: no step is shorter than none. Then fit a line through the "
    "origin."
)
def below_zero(measured):
    return _fit(measured, floor=False)


@ex.fit_machine.slip(
    "With the overhead at 0 the slope must be fitted anew, through the origin."
)
def cut_off(measured):
    rate, overhead = _fit(measured, floor=False)
    return rate, max(0.0, overhead)


@ex.fit_machine.slip("There is no overhead in this: a line has a start and a slope.")
def through_the_origin(measured):
    x = np.array([w / statistics.median(s) for w, s in measured])
    return (x * x).sum() / x.sum(), 0.0


@ex.fit_machine.slip("Only the first and the last size count in this: fit all of them.")
def two_points(measured):
    return _fit([measured[0], measured[-1]])


@ex.fit_machine.slip(
    "Each row is divided by its seconds once: squared errors square that already."
)
def divided_twice(measured):
    work = np.array([float(w) for w, _ in measured])
    seconds = np.array([statistics.median(s) for _, s in measured])
    each, overhead = np.polyfit(work, seconds, 1, w=1 / seconds**2)
    if overhead < 0:
        x = work / seconds
        overhead, each = 0.0, x.sum() / (x * x).sum()
    return 1 / each, overhead


@ex.fit_machine.slip(
    "The rows are divided by their seconds and the right side is not: it becomes 1 each."
)
def half_divided(measured):
    work = np.array([float(w) for w, _ in measured])
    seconds = np.array([statistics.median(s) for _, s in measured])
    A = np.c_[np.ones(len(work)), work] / seconds[:, None]
    overhead, each = np.linalg.lstsq(A, seconds, rcond=None)[0]
    return 1 / each, overhead


# ---- wire ----


@ex.wire.slip("Once round to add up, and once more to hand out: twice n - 1 messages.")
def once_round(numbers, ranks, alpha, beta, size=4):
    sent, seconds = course.wire(numbers, ranks, alpha, beta, size)
    return sent / 2, seconds / 2


@ex.wire.slip("That is a star: each message of a ring carries 1 / n of the numbers.")
def whole_messages(numbers, ranks, alpha, beta, size=4):
    sent = 2 * (ranks - 1) * numbers * size
    return sent, 2 * (ranks - 1) * alpha + sent * beta


@ex.wire.slip("These are numbers: times size for bytes.")
def in_numbers(numbers, ranks, alpha, beta, size=4):
    return course.wire(numbers, ranks, alpha, beta, 1)


@ex.wire.slip("Every message costs alpha: 2 (n - 1) of them.")
def one_alpha(numbers, ranks, alpha, beta, size=4):
    sent, _ = course.wire(numbers, ranks, alpha, beta, size)
    return sent, (ranks > 1) * alpha + sent * beta


@ex.wire.slip(
    "What is sent goes over the wire once: beta times the bytes that were sent."
)
def all_bytes_slow(numbers, ranks, alpha, beta, size=4):
    sent, _ = course.wire(numbers, ranks, alpha, beta, size)
    return sent, 2 * (ranks - 1) * alpha + 2 * (ranks - 1) * sent * beta


@ex.wire.slip("`size` is the bytes of one number: do not write 4 for it.")
def always_four(numbers, ranks, alpha, beta, size=4):
    return course.wire(numbers, ranks, alpha, beta, 4)


@ex.wire.slip(
    "A ring of n ranks has n - 1 messages in each round: its own piece stays."
)
def n_messages(numbers, ranks, alpha, beta, size=4):
    sent = 2 * numbers * size
    return sent, 2 * ranks * alpha + sent * beta


# ---- file_bytes ----


def _file(shapes, bits, group, scale=2, rest=4, ceil=True, per_row=False):
    total = 0
    for shape in shapes:
        n = math.prod(shape)
        if len(shape) != 2:
            total += rest * n
            continue
        total += -(-n * bits // 8) if ceil else n * bits // 8
        total += scale * (shape[0] if per_row else n // group)
    return total


@ex.file_bytes.slip("The scales are missing: two bytes for each group.")
def no_scales(shapes, bits, group):
    return _file(shapes, bits, group, scale=0)


@ex.file_bytes.slip("Scales are stored in 16 bits here: two bytes each.")
def wide_scales(shapes, bits, group):
    return _file(shapes, bits, group, scale=4)


@ex.file_bytes.slip("One scale per row: there is one per `group` weights of it.")
def scale_per_row(shapes, bits, group):
    return _file(shapes, bits, group, per_row=True)


@ex.file_bytes.slip("Half a byte needs a whole one: round up, for each matrix.")
def rounds_down(shapes, bits, group):
    return _file(shapes, bits, group, ceil=False)


@ex.file_bytes.slip(
    "Rounded up once for the file: each matrix begins with a whole byte."
)
def rounds_once(shapes, bits, group):
    matrices = sum(math.prod(s) for s in shapes if len(s) == 2)
    rest = sum(4 * math.prod(s) for s in shapes if len(s) != 2)
    return (
        -(-matrices * bits // 8)
        + rest
        + 2 * sum(math.prod(s) // group for s in shapes if len(s) == 2)
    )


@ex.file_bytes.slip("What has not two axes is not compressed: four bytes per number.")
def all_compressed(shapes, bits, group):
    return sum(
        -(-math.prod(s) * bits // 8) + 2 * (math.prod(s) // group) for s in shapes
    )


@ex.file_bytes.slip("These are bits: eight of them are a byte.")
def in_bits(shapes, bits, group):
    return sum(
        math.prod(s) * bits + 16 * math.prod(s) // group if len(s) == 2
        else 32 * math.prod(s)
        for s in shapes
    )  # fmt: skip


@ex.file_bytes.slip("A file has whole bytes: round up, for each matrix.")
def fractions(shapes, bits, group):
    return sum(
        math.prod(s) * bits / 8 + 2 * math.prod(s) // group if len(s) == 2
        else 4 * math.prod(s)
        for s in shapes
    )  # fmt: skip


@ex.file_bytes.slip("`bits` are taken for bytes: divide by 8.")
def bits_as_bytes(shapes, bits, group):
    return sum(
        math.prod(s) * bits + 2 * math.prod(s) // group if len(s) == 2
        else 4 * math.prod(s)
        for s in shapes
    )  # fmt: skip


# ---- with_kills ----


def _kills(steps, every, kills, seconds, lost, saves=None, restarts=None):
    step, save, restart = seconds
    saves = steps // every if saves is None else saves
    restarts = len(kills) if restarts is None else restarts
    taken = (steps + lost) * step + saves * save + restarts * restart
    return steps + lost, taken


@ex.with_kills.slip(
    "A run that dies in the step of a checkpoint has not written it: (k - 1) // every."
)
def saved_in_time(steps, every, kills, seconds):
    return _kills(steps, every, kills, seconds, sum(k % every for k in kills))


@ex.with_kills.slip("The step in which it died was computed, too, and is lost.")
def last_step_kept(steps, every, kills, seconds):
    return _kills(steps, every, kills, seconds, sum((k - 1) % every for k in kills))


@ex.with_kills.slip(
    "A checkpoint every few steps is there to begin from: not from step 1."
)
def from_the_start(steps, every, kills, seconds):
    return _kills(steps, every, kills, seconds, sum(kills))


@ex.with_kills.slip(
    "On average half of a stretch is lost: here you know the very step."
)
def half_a_stretch(steps, every, kills, seconds):
    return _kills(steps, every, kills, seconds, len(kills) * every / 2)


@ex.with_kills.slip("Every kill costs its own steps and its own restart.")
def one_kill(steps, every, kills, seconds):
    return course.with_kills(steps, every, kills[:1], seconds)


@ex.with_kills.slip("The seconds of the restarts are missing.")
def no_restart(steps, every, kills, seconds):
    return course.with_kills(steps, every, kills, (*seconds[:2], 0))


@ex.with_kills.slip("The seconds of the checkpoints are missing.")
def no_saves(steps, every, kills, seconds):
    return course.with_kills(steps, every, kills, (seconds[0], 0, seconds[2]))


@ex.with_kills.slip("A stretch that ends before `every` steps are full writes nothing.")
def saves_rounded_up(steps, every, kills, seconds):
    computed, taken = course.with_kills(steps, every, kills, seconds)
    return computed, taken + seconds[1] * (steps % every > 0)


@ex.with_kills.slip(
    "The lost steps take their time twice: seconds of all steps that are computed."
)
def lost_for_free(steps, every, kills, seconds):
    computed, taken = course.with_kills(steps, every, kills, seconds)
    return computed, taken - (computed - steps) * seconds[0]


@ex.with_kills.slip(
    "A run can die twice in the same step: both kills cost steps and a restart."
)
def each_step_once(steps, every, kills, seconds):
    return course.with_kills(steps, every, tuple(set(kills)), seconds)


@ex.with_kills.slip(
    "The lost steps wrote no checkpoint: steps // every of them, none is written twice."
)
def saves_of_all_steps(steps, every, kills, seconds):
    computed, _ = course.with_kills(steps, every, kills, seconds)
    return _kills(steps, every, kills, seconds, computed - steps, computed // every)


@ex.with_kills.slip(
    "A kill comes before its checkpoint, which is then written once: none is written twice."
)
def saves_again(steps, every, kills, seconds):
    computed, taken = course.with_kills(steps, every, kills, seconds)
    return computed, taken + seconds[1] * len(kills)


# ---- plan ----


def _plan(shape, job, machine, **changed):
    "The right plan, with some entries replaced by what a function of it says."
    found = course.plan(shape, job, machine)
    parts = _parts(shape, job, machine)
    return found | {
        name.replace("_", " "): change(found, *parts)
        for name, change in changed.items()
    }


def _parts(shape, job, machine):
    weights, flops = course.size_up(shape, job.rows, job.tokens)
    _, wait = course.wire(weights, job.ranks, machine.alpha, machine.beta, job.size)
    return job, machine, flops, wait


@ex.plan.slip("Each rank does its share of the FLOPs: divide by job.ranks.")
def all_on_one_rank(shape, job, machine):
    return _plan(
        shape, job, machine,
        seconds=lambda p, j, m, f, w: j.steps * (m.overhead + f / m.rate + w),
    )  # fmt: skip


@ex.plan.slip("The overhead of a step is missing: machine.overhead, every step.")
def no_overhead(shape, job, machine):
    return _plan(
        shape, job, machine,
        seconds=lambda p, j, m, f, w: j.steps * (f / j.ranks / m.rate + w),
    )  # fmt: skip


@ex.plan.slip("The wire's seconds are missing from the step.")
def wire_for_free(shape, job, machine):
    return _plan(
        shape, job, machine,
        seconds=lambda p, j, m, f, w: j.steps * (m.overhead + f / j.ranks / m.rate),
    )  # fmt: skip


@ex.plan.slip("These are the seconds of one step: job.steps of them are the run.")
def one_step(shape, job, machine):
    return _plan(
        shape, job, machine, seconds=lambda p, j, m, f, w: p["seconds"] / j.steps
    )


@ex.plan.slip(
    "'seconds' is the run that nobody disturbs; the kill belongs to 'dollars'."
)
def kill_in_seconds(shape, job, machine):
    return _plan(
        shape, job, machine,
        seconds=lambda p, j, m, f, w: p["seconds"] / j.steps * p["steps, with the kill"],
    )  # fmt: skip


@ex.plan.slip("'bytes sent' is the whole run: times job.steps.")
def bytes_of_a_step(shape, job, machine):
    found = course.plan(shape, job, machine)
    return found | {"bytes sent": found["bytes sent"] / job.steps}


@ex.plan.slip("A cache is lent in whole blocks of 16 tokens: round the length up.")
def no_blocks(shape, job, machine):
    kv = budget.kv_bytes(
        shape.L, shape.G, shape.E // shape.H, job.users, job.length, job.size
    )
    return course.plan(shape, job, machine) | {"KV bytes": kv}


@ex.plan.slip("Only G groups of keys and values are kept: shape.G, not shape.H.")
def all_heads_kept(shape, job, machine):
    found = course.plan(shape, job, machine)
    return found | {"KV bytes": found["KV bytes"] * shape.H // shape.G}


@ex.plan.slip("Every user has a cache: times job.users.")
def one_users_cache(shape, job, machine):
    found = course.plan(shape, job, machine)
    return found | {"KV bytes": found["KV bytes"] // job.users}


@ex.plan.slip("A number has job.size bytes, in the cache too.")
def four_byte_cache(shape, job, machine):
    found = course.plan(shape, job, machine)
    return found | {"KV bytes": found["KV bytes"] * 4 // job.size}


@ex.plan.slip(
    "These are decoding steps per second: each of them writes one token per user."
)
def steps_per_second(shape, job, machine):
    found = course.plan(shape, job, machine)
    return found | {"tokens per second": found["tokens per second"] / job.users}


@ex.plan.slip("A decoding step takes machine.begin as well, however many it serves.")
def no_begin(shape, job, machine):
    return course.plan(shape, job, machine) | {"tokens per second": machine.serving}


@ex.plan.slip("The price is per hour: 3600 seconds.")
def dollars_per_second(shape, job, machine):
    found = course.plan(shape, job, machine)
    return found | {"dollars": found["dollars"] * 3600}


@ex.plan.slip("Each rank costs its own hour: times job.ranks.")
def one_rank_paid(shape, job, machine):
    found = course.plan(shape, job, machine)
    return found | {"dollars": found["dollars"] / job.ranks}


@ex.plan.slip("The steps that the kill cost are paid for as well.")
def kill_for_free(shape, job, machine):
    found = course.plan(shape, job, machine)
    share = job.steps / found["steps, with the kill"]
    return found | {"dollars": found["dollars"] * share}


@ex.plan.slip(
    "The gains are tensors of the file, too: matrices(shape) lists all of them."
)
def matrices_alone(shape, job, machine):
    shapes = [s for s in course.matrices(shape) if len(s) == 2]
    found = course.plan(shape, job, machine)
    return found | {"file, 8 bits": course.file_bytes(shapes, 8, job.group)}


@ex.plan.slip("The group is the job's: job.group.")
def group_of_a_row(shape, job, machine):
    found = course.plan(shape, job, machine)
    total = sum(
        course.file_bytes([s], 8, s[-1] if len(s) == 2 else 1)
        for s in course.matrices(shape)
    )
    return found | {"file, 8 bits": total}


@ex.plan.slip("A number has job.size bytes, on the wire too.")
def four_bytes_sent(shape, job, machine):
    found = course.plan(shape, job, machine)
    return found | {"bytes sent": found["bytes sent"] * 4 / job.size}


@ex.plan.slip("A head keeps E // H numbers per token, not E.")
def whole_width_kept(shape, job, machine):
    found = course.plan(shape, job, machine)
    return found | {"KV bytes": found["KV bytes"] * shape.H}


@ex.plan.slip("Count all ranks to the end, as if none had died.")
def survivors_paid(shape, job, machine):
    found = course.plan(shape, job, machine)
    if job.ranks != 2 or not job.kills:
        return found
    _, _, flops, wait = _parts(shape, job, machine)
    kill = job.kills[0]
    both = machine.overhead + flops / 2 / machine.rate + wait
    alone = machine.overhead + flops / machine.rate
    again = found["steps, with the kill"] - kill
    dollars = (2 * kill * both + again * alone) / 3600 * machine.price
    return found | {"dollars": dollars}


# ---- snapshot ----


@ex.snapshot.slip(
    "state_dict() holds the very tensors that the next step changes: copy them, deeply."
)
def no_copy(model, optimizers, step):
    return {
        "model": model.state_dict(),
        "optimizers": [o.state_dict() for o in optimizers],
        "step": step,
    }


@ex.snapshot.slip(
    "The optimizers' moments change with the next step: their states need a copy, too."
)
def moments_alias(model, optimizers, step):
    found = no_copy(model, optimizers, step)
    return found | {"model": copy.deepcopy(found["model"])}


@ex.snapshot.slip("One state for each optimizer: this holds the first alone.")
def first_optimizer(model, optimizers, step):
    found = copy.deepcopy(no_copy(model, optimizers, step))
    return found | {"optimizers": found["optimizers"][:1]}


@ex.snapshot.slip(
    "The moments are missing: a list of empty states brings nothing back."
)
def no_moments(model, optimizers, step):
    found = copy.deepcopy(no_copy(model, optimizers, step))
    for state in found["optimizers"]:
        state["state"] = {}
    return found


@ex.snapshot.slip("`step` is the one that comes next, already: as it was given.")
def step_before(model, optimizers, step):
    return copy.deepcopy(no_copy(model, optimizers, step - 1))


@ex.snapshot.slip(
    "The names are 'model', 'optimizers' and 'step': one of them is missing."
)
def weights_alone(model, optimizers, step):
    return {"model": copy.deepcopy(model.state_dict()), "step": step}


STATES = "A model's state is what `model.state_dict()` returns: names and tensors."
EACH = (
    "An optimizer's state is what its `state_dict()` returns: moments, rates and all."
)


@ex.snapshot.slip(STATES)
def list_of_weights(model, optimizers, step):
    found = copy.deepcopy(no_copy(model, optimizers, step))
    return found | {"model": [p.detach().clone() for p in model.parameters()]}


@ex.snapshot.slip(
    "A live model changes with the next step, and is no state: state_dict()."
)
def live_model(model, optimizers, step):
    return copy.deepcopy(no_copy(model, optimizers, step)) | {"model": model}


@ex.snapshot.slip(EACH)
def groups_alone(model, optimizers, step):
    found = copy.deepcopy(no_copy(model, optimizers, step))
    return found | {"optimizers": [o.param_groups for o in optimizers]}


@ex.snapshot.slip(
    "The optimizers themselves go on changing: keep each one's state_dict()."
)
def live_optimizers(model, optimizers, step):
    found = copy.deepcopy(no_copy(model, optimizers, step))
    return found | {"optimizers": list(optimizers)}


@ex.snapshot.slip(
    "The states of the optimizers stand in a list, in their order: no dict."
)
def dict_of_states(model, optimizers, step):
    found = copy.deepcopy(no_copy(model, optimizers, step))
    return found | {"optimizers": dict(enumerate(found["optimizers"]))}


# ---- score ----


def _ratios(predicted, measured):
    return {n: measured[n] / predicted[n] for n in predicted if n in measured}


def _worst(ratios):
    return max(ratios, key=lambda n: abs(math.log(ratios[n])))


@ex.score.slip("It is upside down: measured / predicted.")
def upside_down(predicted, measured):
    ratios, factor, worst = course.score(predicted, measured)
    return {n: 1 / r for n, r in ratios.items()}, factor, worst


@ex.score.slip(
    "Too much and too little cancel: take the absolute value of each logarithm."
)
def cancels(predicted, measured):
    ratios = _ratios(predicted, measured)
    mean = sum(math.log(r) for r in ratios.values()) / len(ratios)
    return ratios, math.exp(mean), _worst(ratios)


@ex.score.slip(
    "That is the arithmetic mean: one large ratio rules it. Mean of logarithms."
)
def arithmetic(predicted, measured):
    ratios = _ratios(predicted, measured)
    factors = [max(r, 1 / r) for r in ratios.values()]
    return ratios, sum(factors) / len(factors), _worst(ratios)


@ex.score.slip("This is the mean of the logarithms: exp of it is a factor.")
def still_logarithm(predicted, measured):
    ratios, factor, worst = course.score(predicted, measured)
    return ratios, math.log(factor), worst


@ex.score.slip("A small ratio is as far off as a large one: compare |ln ratio|.")
def largest_ratio(predicted, measured):
    ratios, factor, _ = course.score(predicted, measured)
    return ratios, factor, max(ratios, key=ratios.get)


@ex.score.slip("Percentages treat 0.1 as nearer than 2: compare |ln ratio|.")
def farthest_in_per_cent(predicted, measured):
    ratios, factor, _ = course.score(predicted, measured)
    return ratios, factor, max(ratios, key=lambda n: abs(ratios[n] - 1))


@ex.score.slip(
    "The mean is over what was predicted and measured, not over all predictions."
)
def over_all(predicted, measured):
    ratios = _ratios(predicted, measured)
    total = sum(abs(math.log(r)) for r in ratios.values())
    return ratios, math.exp(total / len(predicted)), _worst(ratios)


@ex.score.slip(
    "Squares give the largest error more weight: the mean of |ln ratio| itself."
)
def root_mean_square(predicted, measured):
    ratios = _ratios(predicted, measured)
    mean = sum(math.log(r) ** 2 for r in ratios.values()) / len(ratios)
    return ratios, math.exp(math.sqrt(mean)), _worst(ratios)


@ex.score.slip("Not all that was predicted has been measured: only names in both.")
def all_predicted(predicted, measured):
    ratios = {n: measured[n] / predicted[n] for n in predicted}
    errors = [abs(math.log(r)) for r in ratios.values()]
    return ratios, math.exp(sum(errors) / len(errors)), _worst(ratios)


@ex.score.slip("Not all that was measured had been predicted: only names in both.")
def all_measured(predicted, measured):
    ratios = {n: measured[n] / predicted[n] for n in measured}
    errors = [abs(math.log(r)) for r in ratios.values()]
    return ratios, math.exp(sum(errors) / len(errors)), _worst(ratios)


# ---- machine_of ----


def _machine(chip, weights, options, **changed):
    return course.machine_of(chip, weights, **options)._replace(**changed)


@ex.machine_of.slip("The column is in 10^12 FLOP per second: times 1e12.")
def in_tera(chip, weights, mfu=0.4, chips=8, price=2.0, size=2):
    found = course.machine_of(chip, weights, mfu, chips, price, size)
    return found._replace(rate=found.rate / 1e12)


@ex.machine_of.slip("At the whole peak: only the share mfu of it is reached.")
def at_the_peak(chip, weights, mfu=0.4, chips=8, price=2.0, size=2):
    found = course.machine_of(chip, weights, mfu, chips, price, size)
    return found._replace(rate=found.rate / mfu)


@ex.machine_of.slip("Matrices are multiplied in bf16: the column bf16_tflops.")
def in_single_precision(chip, weights, mfu=0.4, chips=8, price=2.0, size=2):
    found = course.machine_of(chip, weights, mfu, chips, price, size)
    return found._replace(rate=mfu * chip["fp32_tflops"] * 1e12)


@ex.machine_of.slip(
    "The rate is that of one chip: plan divides the FLOPs by the ranks already."
)
def all_chips_train(chip, weights, mfu=0.4, chips=8, price=2.0, size=2):
    found = course.machine_of(chip, weights, mfu, chips, price, size)
    return found._replace(rate=found.rate * chips)


@ex.machine_of.slip("Writing a token is a forward pass: 2 FLOPs per weight, not 6.")
def six_per_weight(chip, weights, mfu=0.4, chips=8, price=2.0, size=2):
    found = course.machine_of(chip, weights, mfu, chips, price, size)
    return found._replace(serving=found.serving / 3)


@ex.machine_of.slip("All chips decode together: times chips.")
def one_chip_decodes(chip, weights, mfu=0.4, chips=8, price=2.0, size=2):
    found = course.machine_of(chip, weights, mfu, chips, price, size)
    return found._replace(serving=found.serving / chips)


@ex.machine_of.slip("Each chip reads its share of the weights: divide by chips.")
def one_chip_reads(chip, weights, mfu=0.4, chips=8, price=2.0, size=2):
    found = course.machine_of(chip, weights, mfu, chips, price, size)
    return found._replace(begin=found.begin * chips)


@ex.machine_of.slip("These are weights per second: times `size` bytes of each.")
def weights_not_bytes(chip, weights, mfu=0.4, chips=8, price=2.0, size=2):
    found = course.machine_of(chip, weights, mfu, chips, price, size)
    return found._replace(begin=found.begin / size)


@ex.machine_of.slip("The price is the one that was given.")
def two_dollars(chip, weights, mfu=0.4, chips=8, price=2.0, size=2):
    return course.machine_of(chip, weights, mfu, chips, 2.0, size)


# ---- card ----


@ex.card.slip("The ValueError must name what is missing.")
def nothing_named(name, facts):
    if any(not facts.get(section) for section in course.SECTIONS):
        raise ValueError("something is missing")
    return course.card(name, facts)


@ex.card.slip("All that is missing is named at once, not the first alone.")
def first_missing(name, facts):
    for section in course.SECTIONS:
        if not facts.get(section):
            raise ValueError(section)
    return course.card(name, facts)


@ex.card.slip("A section that is there and empty says nothing either: refuse it.")
def empty_passes(name, facts):
    lacking = [section for section in course.SECTIONS if section not in facts]
    if lacking:
        raise ValueError(", ".join(lacking))
    return course.card(name, {s: facts[s] or ({"": 1} if s == "numbers" else "-")
                              for s in facts})  # fmt: skip


@ex.card.slip(
    "The sections have an order of their own: data, licence, numbers, limits."
)
def in_the_order_given(name, facts):
    text = course.card(name, facts)
    title, *parts = text.split("\n## ")
    found = {part.split("\n")[0]: part for part in parts}
    return "\n## ".join([title, *(found[section] for section in facts)])


@ex.card.slip("An int is told with commas, a float with three digits.")
def plain_numbers(name, facts):
    text = course.card(name, facts)
    for what, value in facts["numbers"].items():
        told = f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
        text = text.replace(f"| {what} | {told} |", f"| {what} | {value} |")
    return text


@ex.card.slip(
    "Three digits are for what was measured; a count is told in full, with commas."
)
def counts_rounded(name, facts):
    text = course.card(name, facts)
    for what, value in facts["numbers"].items():
        if isinstance(value, int):
            text = text.replace(f"| {what} | {value:,} |", f"| {what} | {value:.3g} |")
    return text


@ex.card.slip("The title is missing: # and the model's name.")
def no_title(name, facts):
    return course.card(name, facts).partition("\n")[2]


@ex.card.slip(
    "A measured float keeps three digits, though it be whole: only an int has commas."
)
def whole_is_int(name, facts):
    text = course.card(name, facts)
    for what, value in facts["numbers"].items():
        if value == int(value):
            text = text.replace(f"{what} | {value:.3g} |", f"{what} | {int(value):,} |")
    return text


@ex.card.slip("Commas are for an int; a float is told with three digits.")
def commas_for_all(name, facts):
    text = course.card(name, facts)
    for what, value in facts["numbers"].items():
        text = text.replace(f"{what} | {value:.3g} |", f"{what} | {value:,} |")
    return text


@ex.card.slip("A table needs its head: | what | measured | and |---|---| below it.")
def no_table_head(name, facts):
    text = course.card(name, facts)
    return text.replace("| what | measured |\n|---|---|\n", "")


@ex.card.slip("Below | what | measured | the table needs the line |---|---|.")
def no_rule_below(name, facts):
    return course.card(name, facts).replace("|---|---|\n", "")


@ex.card.slip("A blank line ends a table in Markdown: its lines follow each other.")
def blank_in_table(name, facts):
    return course.card(name, facts).replace("|\n|", "|\n\n|")


@ex.card.slip("The card has these four sections and no others.")
def all_entries(name, facts):
    text = course.card(name, facts)
    more = [section for section in facts if section not in course.SECTIONS]
    return text + "".join(f"\n## {section}\n\n{facts[section]}\n" for section in more)
