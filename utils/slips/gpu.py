"""Chapter 13's slips: wrong answers that its checks must reject, and their names."""

import copy
import math
import statistics
import time

import torch
import torch.nn.functional as F

from utils.built import gpu, precision, profiling
from utils.checks import gpu as ex
from utils.checks.gpu import planted

# ---- to_device ----


@ex.to_device.slip(
    "The tensor did not move: x.to(device) changes nothing in x, it returns a new tensor. Return that."
)
def moves_nothing(thing, device):
    if isinstance(thing, torch.Tensor):
        thing.to(device)
    return thing


@ex.to_device.slip(
    "The batch comes back as it went in: look into dicts, lists and tuples."
)
def only_tensors(thing, device):
    return thing.to(device) if isinstance(thing, torch.Tensor) else thing


@ex.to_device.slip("A tensor deep inside did not move: the function must call itself.")
def one_level(thing, device):
    move = lambda t: t.to(device) if isinstance(t, torch.Tensor) else t
    if isinstance(thing, dict):
        return {k: move(v) for k, v in thing.items()}
    if isinstance(thing, (list, tuple)):
        return type(thing)(map(move, thing))
    return move(thing)


@ex.to_device.slip("A list goes in, so a list comes out: type(thing)(...).")
def lists_become_tuples(thing, device):
    if isinstance(thing, dict):
        return {k: lists_become_tuples(v, device) for k, v in thing.items()}
    if isinstance(thing, (list, tuple)):
        return tuple(lists_become_tuples(v, device) for v in thing)
    return thing.to(device) if isinstance(thing, torch.Tensor) else thing


@ex.to_device.slip("What is no tensor has no .to: return it as it is.")
def takes_all_for_tensors(thing, device):
    if isinstance(thing, dict):
        return {k: takes_all_for_tensors(v, device) for k, v in thing.items()}
    if isinstance(thing, (list, tuple)):
        return type(thing)(takes_all_for_tensors(v, device) for v in thing)
    return thing.to(device)


@ex.to_device.slip("The labels have changed their type: only the device changes.")
def to_float_as_well(thing, device):
    if isinstance(thing, dict):
        return {k: to_float_as_well(v, device) for k, v in thing.items()}
    if isinstance(thing, (list, tuple)):
        return type(thing)(to_float_as_well(v, device) for v in thing)
    return thing.to(device, torch.float32) if hasattr(thing, "dtype") else thing


@ex.to_device.slip("What is no tensor stays as it is.")
def numbers_become_tensors(thing, device):
    if isinstance(thing, dict):
        return {k: numbers_become_tensors(v, device) for k, v in thing.items()}
    if isinstance(thing, (list, tuple)):
        return type(thing)(numbers_become_tensors(v, device) for v in thing)
    return thing if isinstance(thing, str) else torch.as_tensor(thing).to(device)


@ex.to_device.slip("Move to the device that is handed in.")
def always_meta(thing, device):
    return gpu.to_device(thing, "meta")


@ex.to_device.slip("The tensor has lost its graph: only the device changes.")
def detaches(thing, device):
    if isinstance(thing, dict):
        return {k: detaches(v, device) for k, v in thing.items()}
    if isinstance(thing, (list, tuple)):
        return type(thing)(detaches(v, device) for v in thing)
    return thing.detach().to(device) if isinstance(thing, torch.Tensor) else thing


@ex.to_device.slip("What is no tensor is lost: return it as it is.")
def forgets_the_rest(thing, device):
    if isinstance(thing, dict):
        return {k: forgets_the_rest(v, device) for k, v in thing.items()}
    if isinstance(thing, (list, tuple)):
        return type(thing)(forgets_the_rest(v, device) for v in thing)
    return thing.to(device) if isinstance(thing, torch.Tensor) else None


@ex.to_device.slip("Tuples stay where they are: a tuple holds things like a list.")
def lists_and_dicts_alone(thing, device):
    if isinstance(thing, dict):
        return {k: lists_and_dicts_alone(v, device) for k, v in thing.items()}
    if isinstance(thing, list):
        return [lists_and_dicts_alone(v, device) for v in thing]
    return thing.to(device) if isinstance(thing, torch.Tensor) else thing


@ex.to_device.slip(
    "A dict is lost: {name: to_device(value, device) for ...} makes one."
)
def dicts_become_lists(thing, device):
    if isinstance(thing, dict):
        return [dicts_become_lists(v, device) for v in thing.values()]
    if isinstance(thing, (list, tuple)):
        return type(thing)(dicts_become_lists(v, device) for v in thing)
    return thing.to(device) if isinstance(thing, torch.Tensor) else thing


@ex.to_device.slip(told="changes its input in place")
def into_the_same_dict(thing, device):
    if isinstance(thing, dict):
        for name in thing:
            thing[name] = into_the_same_dict(thing[name], device)
        return thing
    if isinstance(thing, (list, tuple)):
        return type(thing)(into_the_same_dict(v, device) for v in thing)
    return thing.to(device) if isinstance(thing, torch.Tensor) else thing


# ---- seconds ----


def _seconds(
    run, wait, repeats, warm_up, clock, waits=(True, True), best=statistics.median
):
    for _ in range(warm_up):
        run()
    if waits[0]:
        wait()
    taken = []
    for _ in range(repeats):
        start = clock()
        run()
        if waits[1]:
            wait()
        taken.append(clock() - start)
    return best(taken)


@ex.seconds.slip(
    "This is the cost of putting the work into the queue: wait() before the second look at the clock."
)
def naive(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, warm_up, clock, waits=(True, False))


@ex.seconds.slip(
    "The work of the warm-up is still in the queue when the clock starts: wait() after the warm-up as well."
)
def warm_up_in_the_queue(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, warm_up, clock, waits=(False, True))


@ex.seconds.slip("This is the mean: one interruption moves it. Take the median.")
def mean(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, warm_up, clock, best=statistics.mean)


@ex.seconds.slip("This is the fastest call, not the median one.")
def fastest(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, warm_up, clock, best=min)


@ex.seconds.slip("This is the sum of all calls, not the time of one.")
def total(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, warm_up, clock, best=sum)


@ex.seconds.slip("The slow first calls are counted: warm up first.")
def no_warm_up(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, 0, clock, best=statistics.median)


@ex.seconds.slip("These are 3 counted calls, whatever `repeats` says.")
def three_calls_are_enough(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, 3, warm_up, clock)


@ex.seconds.slip("This is the slowest call, not the median one.")
def slowest(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, warm_up, clock, best=max)


@ex.seconds.slip("Read the clock that was handed in, clock(): this is another one.")
def own_clock(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, warm_up, time.perf_counter)


@ex.seconds.slip("All calls are timed as one: time each call, and take the median.")
def all_as_one(run, wait, repeats=7, warm_up=2, clock=None):
    for _ in range(warm_up):
        run()
    wait()
    start = clock()
    for _ in range(repeats):
        run()
    wait()
    return (clock() - start) / repeats


@ex.seconds.slip("It waits before run(), and not after: run() only fills the queue.")
def waits_too_early(run, wait, repeats=7, warm_up=2, clock=None):
    def both():
        wait()
        run()

    return _seconds(both, lambda: None, repeats, warm_up, clock)


@ex.seconds.slip(
    "The number of calls is off: `repeats` counts those after the warm-up."
)
def warm_up_among_the_repeats(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, max(1, repeats - warm_up), warm_up, clock)


@ex.seconds.slip("`warm_up` is ignored: these are its default number of calls.")
def two_warm_ups(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, 2, clock)


@ex.seconds.slip("`repeats` is ignored: this is its default number of calls.")
def seven_repeats(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, 7, warm_up, clock)


@ex.seconds.slip("Four samples have two in the middle: the median is the mean of both.")
def upper_middle(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, warm_up, clock, best=statistics.median_high)


@ex.seconds.slip("Four samples have two in the middle: the median is the mean of both.")
def lower_middle(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, warm_up, clock, best=statistics.median_low)


@ex.seconds.slip("The warm-up is among the samples: it must not count.")
def warm_up_counted(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, warm_up + repeats, 0, clock)


@ex.seconds.slip(
    "This is a mean without the ends: the median is the one in the middle."
)
def trimmed_mean(run, wait, repeats=7, warm_up=2, clock=None):
    inner = lambda taken: statistics.mean(sorted(taken)[1:-1] or taken)
    return _seconds(run, wait, repeats, warm_up, clock, best=inner)


# ---- step_seconds ----


@ex.step_seconds.slip(
    "Without workers nothing overlaps: load, copy and compute add up."
)
def always_the_slowest(load, copy, compute, workers=0, overlap=False):
    return max(load / max(workers, 1), copy + compute)


@ex.step_seconds.slip(
    "A worker loads beside the training: the slower side sets the pace, they do not add up."
)
def workers_add_up(load, copy, compute, workers=0, overlap=False):
    side = max(copy, compute) if overlap else copy + compute
    return load / max(workers, 1) + side


@ex.step_seconds.slip("Two workers hand over a batch every load / 2.")
def one_worker_is_enough(load, copy, compute, workers=0, overlap=False):
    side = max(copy, compute) if overlap else copy + compute
    return max(load, side) if workers else load + copy + compute


@ex.step_seconds.slip(
    "Without workers there is no next batch that could be copied ahead: all add up."
)
def overlap_without_workers(load, copy, compute, workers=0, overlap=False):
    side = max(copy, compute) if overlap else copy + compute
    return max(load / workers, side) if workers else load + side


@ex.step_seconds.slip("With overlap the wire and the chip work at the same time.")
def never_overlaps(load, copy, compute, workers=0, overlap=False):
    return max(load / workers, copy + compute) if workers else load + copy + compute


@ex.step_seconds.slip("Copy and compute add up as long as overlap is False.")
def always_overlaps(load, copy, compute, workers=0, overlap=False):
    if not workers:
        return load + copy + compute
    return max(load / workers, copy, compute)


@ex.step_seconds.slip("Without workers the loading still adds up.")
def overlap_hides_all(load, copy, compute, workers=0, overlap=False):
    side = max(copy, compute) if overlap else copy + compute
    if not workers:
        return max(load, side) if overlap else load + copy + compute
    return max(load / workers, side)


@ex.step_seconds.slip("The copy is missing.")
def without_the_wire(load, copy, compute, workers=0, overlap=False):
    return max(load / workers, compute) if workers else load + compute


@ex.step_seconds.slip("More than two workers help as well: load / workers.")
def two_workers_at_most(load, copy, compute, workers=0, overlap=False):
    return gpu.step_seconds(load, copy, compute, min(workers, 2), overlap)


@ex.step_seconds.slip("More than three workers help as well: load / workers.")
def three_workers_at_most(load, copy, compute, workers=0, overlap=False):
    return gpu.step_seconds(load, copy, compute, min(workers, 3), overlap)


@ex.step_seconds.slip(
    "load / workers: with workers, the training process does not load as well."
)
def one_worker_more(load, copy, compute, workers=0, overlap=False):
    return gpu.step_seconds(load, copy, compute, workers and workers + 1, overlap)


@ex.step_seconds.slip("load // workers drops the fraction: load / workers.")
def whole_seconds_a_batch(load, copy, compute, workers=0, overlap=False):
    side = max(copy, compute) if overlap else copy + compute
    return max(load // workers, side) if workers else load + copy + compute


@ex.step_seconds.slip(
    "The workers share the loading alone: the chip's side stays as it is."
)
def workers_share_all(load, copy, compute, workers=0, overlap=False):
    side = max(copy, compute) if overlap else copy + compute
    return max(load, side) / workers if workers else load + copy + compute


@ex.step_seconds.slip("The wire can be slower than the chip: max(copy, compute).")
def copy_is_hidden(load, copy, compute, workers=0, overlap=False):
    if not workers:
        return load + copy + compute
    return max(load / workers, compute if overlap else copy + compute)


# ---- Ready ----


@ex.Ready.slip(
    "__getitems__ is missing (mind the s): a DataLoader asks it for a whole batch."
)
class one_at_a_time(torch.utils.data.Dataset):
    def __init__(self, slow):
        self.X = (torch.stack([slow.parse(i) for i in range(len(slow))]) - 0.3) / 0.4
        self.y = slow.y_N

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.X[i], self.y[i]


@ex.Ready.slip("Nothing is parsed in __init__: the work still waits for the batches.")
class parses_in_the_batch(gpu.Ready):
    def __init__(self, slow):
        self.slow, self.y_N = slow, slow.y_N

    def __getitems__(self, rows):
        X = torch.stack([self.slow.parse(i) for i in rows])
        return (X - 0.3) / 0.4, self.y_N[rows]


@ex.Ready.slip("The rows are not scaled: (x - 0.3) / 0.4.")
class not_scaled(gpu.Ready):
    def __init__(self, slow):
        self.X_ND = torch.stack([slow.parse(i) for i in range(len(slow))])
        self.y_N = slow.y_N


@ex.Ready.slip(
    "This is a list of rows that somebody still has to stack: index once with the whole list, X_ND[rows]."
)
class list_of_rows(gpu.Ready):
    def __getitems__(self, rows):
        return [(self.X_ND[i], self.y_N[i]) for i in rows]


@ex.Ready.slip(
    "The operators grow with the batch: index once with the whole list, X_ND[rows]."
)
class stacks_rows(gpu.Ready):
    def __getitems__(self, rows):
        X = torch.stack([self.X_ND[i] for i in rows])
        return X, torch.stack([self.y_N[i] for i in rows])


@ex.Ready.slip("Rows are parsed more than once: once each, in __init__.")
class parses_twice(gpu.Ready):
    def __init__(self, slow):
        super().__init__(slow)
        super().__init__(slow)


@ex.Ready.slip("These are the first labels, not those of the rows: y_N[rows].")
class labels_in_order(gpu.Ready):
    def __getitems__(self, rows):
        return self.X_ND[rows], self.y_N[: len(rows)]


@ex.Ready.slip("The labels have changed their type: cross_entropy wants whole numbers.")
class float_labels(gpu.Ready):
    def __init__(self, slow):
        super().__init__(slow)
        self.y_N = self.y_N.float()


@ex.Ready.slip(
    "A batch is still scaled: the numbers written are more than its own. Scale in __init__."
)
class scales_each_batch(not_scaled):
    def __getitems__(self, rows):
        return (self.X_ND[rows] - 0.3) / 0.4, self.y_N[rows]


@ex.Ready.slip(
    "The rows are kept one by one, so that every batch must stack them: stack once, in __init__."
)
class keeps_a_list(gpu.Ready):
    def __init__(self, slow):
        super().__init__(slow)
        self.X_ND = list(self.X_ND)

    def __getitems__(self, rows):
        return torch.stack([self.X_ND[i] for i in rows]), self.y_N[rows]


@ex.Ready.slip("Ready changes the dataset that it was made from: others still read it.")
class takes_the_text_away(gpu.Ready):
    def __init__(self, slow):
        super().__init__(slow)
        slow.lines = None


@ex.Ready.slip("A batch still parses text: move the work into __init__.")
class parses_twice_over(gpu.Ready):
    def __init__(self, slow):
        super().__init__(slow)
        self.slow = slow

    def __getitems__(self, rows):
        X = torch.stack([self.slow.parse(i) for i in rows])
        return (X - 0.3) / 0.4, self.y_N[rows]


@ex.Ready.slip("Scale as the slow one does, (x - 0.3) / 0.4: this is its own mean.")
class scales_by_its_own_mean(gpu.Ready):
    def __init__(self, slow):
        super().__init__(slow)
        self.X_ND = (self.X_ND - self.X_ND.mean()) / self.X_ND.std()


@ex.Ready.slip("These are the first rows, not those that were asked for: X_ND[rows].")
class rows_in_order(gpu.Ready):
    def __getitems__(self, rows):
        return self.X_ND[: len(rows)], self.y_N[rows]


@ex.Ready.slip("The rows are float64: parse gives float32, and so does scaling it.")
class double_rows(gpu.Ready):
    def __init__(self, slow):
        super().__init__(slow)
        self.X_ND = (self.X_ND.double() * 0.4 + 0.3 - 0.3) / 0.4


@ex.Ready.slip("The last row is missing: len(slow) rows.")
class one_row_fewer(gpu.Ready):
    def __len__(self):
        return len(self.y_N) - 1


@ex.Ready.slip("These labels are a list: y_N[rows] is a tensor.")
class list_of_labels(gpu.Ready):
    def __getitems__(self, rows):
        return self.X_ND[rows], [self.y_N[i] for i in rows]


@ex.Ready.slip("The rows are sorted: keep the order in which they were asked for.")
class sorted_rows(gpu.Ready):
    def __getitems__(self, rows):
        return self.X_ND[sorted(rows)], self.y_N[sorted(rows)]


@ex.Ready.slip(
    "These are neighbours of the first row, not the rows that were asked for."
)
class a_slice(gpu.Ready):
    def __getitems__(self, rows):
        run = slice(rows[0], rows[0] + len(rows))
        return self.X_ND[run], self.y_N[run]


# ---- value_of ----


def _parts(bits, E, M):
    sign = -1.0 if bits >> (E + M) else 1.0
    return sign, (bits >> M) % 2**E, (bits % 2**M) / 2**M, 2 ** (E - 1) - 1


@ex.value_of.slip("The hidden 1 in front of the fraction is missing.")
def no_hidden_one(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    return sign * f * 2.0 ** (e - bias)


@ex.value_of.slip("The bias is off by one: it is 2**(E-1) - 1, here 15.")
def bias_too_large(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    return sign * (1 + f) * 2.0 ** (e - bias - 1)


@ex.value_of.slip("The bias is not subtracted from the exponent.")
def no_bias(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    return sign * (1 + f) * 2.0**e


@ex.value_of.slip("The sign bit is not used.")
def no_sign(bits, E, M):
    return abs(precision.value_of(bits, E, M))


@ex.value_of.slip(
    "An exponent field of 0 has no hidden 1: the numbers below are subnormal."
)
def no_subnormals(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    return sign * (1 + f) * 2.0 ** (e - bias)


@ex.value_of.slip("A subnormal's exponent is 1 - bias, that of the smallest normal.")
def subnormals_too_small(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    if e == 0:
        return sign * f * 2.0 ** (-bias)
    return precision.value_of(bits, E, M)


@ex.value_of.slip("Nothing is flushed to 0: fraction / 2**M * 2**(1 - bias).")
def flushes(bits, E, M):
    return 0.0 if (bits >> M) % 2**E == 0 else precision.value_of(bits, E, M)


@ex.value_of.slip("The largest exponent field is kept for inf and nan.")
def no_infinity(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    if e == 2**E - 1:
        return sign * (1 + f) * 2.0 ** (e - bias)
    return precision.value_of(bits, E, M)


@ex.value_of.slip("All exponent bits 1 and a fraction: that is no number, nan.")
def infinity_for_nan(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    return sign * math.inf if e == 2**E - 1 else precision.value_of(bits, E, M)


@ex.value_of.slip("Zero has a sign, too: -1.0 * 0 keeps it, -1 * 0 and + 0.0 lose it.")
def one_zero(bits, E, M):
    return precision.value_of(bits, E, M) + 0.0


@ex.value_of.slip("The bias is fp16's 15: it follows from E, 2**(E - 1) - 1.")
def bias_of_fp16(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    if e in (0, 2**E - 1):
        return precision.value_of(bits, E, M)
    return sign * (1 + f) * 2.0 ** (e - 15)


@ex.value_of.slip("The fraction is divided by fp16's 1024: divide by 2**M.")
def fraction_of_fp16(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    if e in (0, 2**E - 1):
        return precision.value_of(bits, E, M)
    return sign * (1 + bits % 2**M / 1024) * 2.0 ** (e - bias)


@ex.value_of.slip("Infinity is looked for at fp16's field, 31: it is 2**E - 1.")
def infinity_of_fp16(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    if e == 31:
        return sign * math.inf if f == 0 else math.nan
    return (f if e == 0 else 1 + f) * sign * 2.0 ** (max(e, 1) - bias)


@ex.value_of.slip("Subnormals have fp16's exponent, -14: it is 1 - bias.")
def subnormals_of_fp16(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    return sign * f * 2.0**-14 if e == 0 else precision.value_of(bits, E, M)


@ex.value_of.slip("Minus infinity lost its sign.")
def infinity_without_sign(bits, E, M):
    value = precision.value_of(bits, E, M)
    return math.inf if math.isinf(value) else value


@ex.value_of.slip("Exponent and fraction are swapped: the exponent field comes first.")
def fraction_first(bits, E, M):
    sign, bias = -1.0 if bits >> (E + M) else 1.0, 2 ** (E - 1) - 1
    f, e = (bits >> E) % 2**M, bits % 2**E
    return sign * (1 + f / 2**M) * 2.0 ** (e - bias)


# ---- round_to ----


def _round(x, E, M, step=torch.round, clamp=True, limit=True):
    bias = 2 ** (E - 1) - 1
    e = torch.frexp(x).exponent.double() - 1
    spacing = 2.0 ** ((e.clamp(min=1 - bias) if clamp else e) - M)
    y = step(x / spacing) * spacing
    largest = (2 - 2.0**-M) * 2.0**bias
    return torch.where(y.abs() > largest, x.sign() * torch.inf, y) if limit else y


@ex.round_to.slip("This always rounds down; the nearest is wanted: torch.round.")
def rounds_down(x, E, M):
    return _round(x, E, M, torch.floor)


@ex.round_to.slip(
    "A tie goes to the even neighbour (torch.round does so), not always up."
)
def half_up(x, E, M):
    return _round(x, E, M, lambda t: torch.floor(t + 0.5))


@ex.round_to.slip("This is one spacing for all: it doubles with every power of two.")
def one_spacing(x, E, M):
    return torch.round(x * 2**M) / 2**M


@ex.round_to.slip(
    "The spacing shrinks for ever here: below 2 ** (1 - bias) it stands still (clamp the exponent)."
)
def no_clamp(x, E, M):
    return _round(x, E, M, clamp=False)


@ex.round_to.slip("Subnormals are numbers, too: do not flush them to 0.")
def flush_to_zero(x, E, M):
    y = precision.round_to(x, E, M)
    return torch.where(y.abs() < 2.0 ** (2 - 2 ** (E - 1)), 0.0 * y, y)


@ex.round_to.slip("Beyond the largest number, 65504, comes infinity.")
def no_limit(x, E, M):
    return _round(x, E, M, limit=False)


@ex.round_to.slip("This stops at the largest number; the formats go on to infinity.")
def saturates(x, E, M):
    largest = (2 - 2.0**-M) * 2.0 ** (2 ** (E - 1) - 1)
    return _round(x, E, M, limit=False).clamp(-largest, largest)


@ex.round_to.slip("65519 still rounds down to 65504: compare after rounding.")
def limit_before_rounding(x, E, M):
    largest = (2 - 2.0**-M) * 2.0 ** (2 ** (E - 1) - 1)
    return torch.where(
        x.abs() > largest, x.sign() * torch.inf, precision.round_to(x, E, M)
    )


@ex.round_to.slip("Minus a billion overflows to minus infinity.")
def plus_infinity(x, E, M):
    y = precision.round_to(x, E, M)
    return torch.where(y.isinf(), torch.inf, y)


@ex.round_to.slip(
    "One bit too coarse: the spacing is 2 ** (exponent - M), and frexp counts the exponent from one half."
)
def one_bit_off(x, E, M):
    bias = 2 ** (E - 1) - 1
    spacing = 2.0 ** (
        torch.frexp(x).exponent.double().clamp(min=1 - bias) - M
    )  # from one half
    return torch.round(x / spacing) * spacing


@ex.round_to.slip(
    "Any E and M, not only those of torch's dtypes: compute the spacing from them."
)
def three_dtypes(x, E, M):
    known = {(8, 7): torch.bfloat16, (5, 10): torch.float16, (5, 2): torch.float8_e5m2}
    return x.to(known.get((E, M), torch.float32)).double()


@ex.round_to.slip("nan became 0: nan stays nan.")
def nan_to_zero(x, E, M):
    return precision.round_to(x, E, M).nan_to_num(
        nan=0.0, posinf=math.inf, neginf=-math.inf
    )


@ex.round_to.slip("The range is fp16's: the bias follows from E, 2 ** (E - 1) - 1.")
def range_of_fp16(x, E, M):
    bias = 15 if E > 5 else 2 ** (E - 1) - 1
    exponent = torch.frexp(x).exponent.double() - 1
    spacing = 2.0 ** (exponent.clamp(min=1 - bias) - M)
    y = torch.round(x / spacing) * spacing
    largest = (2 - 2.0**-M) * 2.0**bias
    return torch.where(y.abs() > largest, x.sign() * torch.inf, y)


@ex.round_to.slip(
    "Infinity begins at 65504 for every format here: (2 - 2**-M) * 2**bias."
)
def largest_of_fp16(x, E, M):
    y = _round(x, E, M, limit=False)
    return torch.where(y.abs() > 65504, x.sign() * torch.inf, y)


@ex.round_to.slip(
    "The spacing stands still below fp16's 2**-14: it is 2 ** (1 - bias)."
)
def smallest_of_fp16(x, E, M):
    bias = 2 ** (E - 1) - 1
    exponent = torch.frexp(x).exponent.double() - 1
    spacing = 2.0 ** (exponent.clamp(min=-14) - M)
    y = torch.round(x / spacing) * spacing
    largest = (2 - 2.0**-M) * 2.0**bias
    return torch.where(y.abs() > largest, x.sign() * torch.inf, y)


@ex.round_to.slip(
    "This cuts the bits off, towards 0; the nearest is wanted: torch.round."
)
def truncates(x, E, M):
    return _round(x, E, M, torch.trunc)


@ex.round_to.slip(
    "The largest number itself is finite: infinite is what rounds to more."
)
def largest_is_infinite(x, E, M):
    y = _round(x, E, M, limit=False)
    largest = (2 - 2.0**-M) * 2.0 ** (2 ** (E - 1) - 1)
    return torch.where(y.abs() >= largest, x.sign() * torch.inf, y)


@ex.round_to.slip("Subnormals begin one power too low: clamp the exponent at 1 - bias.")
def clamped_too_low(x, E, M):
    bias = 2 ** (E - 1) - 1
    spacing = 2.0 ** ((torch.frexp(x).exponent.double() - 1).clamp(min=-bias) - M)
    y = torch.round(x / spacing) * spacing
    return torch.where(y.isfinite(), precision.round_to(y, E, M), x)


# ---- LossScaler ----


@ex.LossScaler.slip("The loss is not multiplied by the scale.")
class never_scales(precision.LossScaler):
    def backward(self, loss):
        loss.backward()


@ex.LossScaler.slip("The loss is divided by the scale.")
class divides_the_loss(precision.LossScaler):
    def backward(self, loss):
        (loss / self.scale).backward()


@ex.LossScaler.slip("The step was taken with scaled gradients: divide them first.")
class never_unscales(precision.LossScaler):
    def step(self, optimizer):
        kept, self.scale = self.scale, 1.0
        stepped = super().step(optimizer)
        self.scale = kept
        return stepped


@ex.LossScaler.slip(
    "The step was taken although a gradient is not finite: leave it out."
)
class steps_anyway(precision.LossScaler):
    def step(self, optimizer):
        for p in optimizer.param_groups[0]["params"]:
            p.grad.div_(self.scale)
        optimizer.step()
        return True


@ex.LossScaler.slip("A step that was left out returns False.")
class says_nothing(precision.LossScaler):
    def step(self, optimizer):
        super().step(optimizer)
        return True


@ex.LossScaler.slip("The scale never halves.")
class never_halves(precision.LossScaler):
    def step(self, optimizer):
        scale = self.scale
        stepped = super().step(optimizer)
        if not stepped:
            self.scale = scale
        return stepped


@ex.LossScaler.slip("The scale never doubles.")
class never_doubles(precision.LossScaler):
    def step(self, optimizer):
        self.good = 0
        patience, self.patience = self.patience, 10**9
        stepped = super().step(optimizer)
        self.patience = patience
        return stepped


@ex.LossScaler.slip("`good` counts steps in a row: a bad one starts it anew.")
class counts_all_steps(precision.LossScaler):
    def step(self, optimizer):
        good = self.good
        stepped = super().step(optimizer)
        if not stepped:
            self.good = good
        return stepped


class _OwnTest(precision.LossScaler):
    def bad(self, grad):
        raise NotImplementedError

    def step(self, optimizer):
        groups = optimizer.param_groups[: self.groups]
        grads = [p.grad for g in groups for p in g["params"] if p.grad is not None]
        for grad in grads:
            grad.div_(self.scale)
        if any(self.bad(grad) for grad in grads):
            self.scale, self.good = self.scale / 2, 0
            return False
        optimizer.step()
        self.good += 1
        if self.good == self.patience:
            self.scale, self.good = self.scale * 2, 0
        return True

    groups = None


@ex.LossScaler.slip("Nan is not finite either: use isfinite.")
class only_infinities(_OwnTest):
    def bad(self, grad):
        return bool(grad.isinf().any())


@ex.LossScaler.slip(
    "Only the first group is looked at: go through all of optimizer.param_groups."
)
class first_group_only(_OwnTest):
    groups = 1

    def bad(self, grad):
        return not bool(grad.isfinite().all())


class _Grads(precision.LossScaler):
    def grads(self, optimizer):
        params = [p for group in optimizer.param_groups for p in group["params"]]
        return [p.grad for p in params if p.grad is not None]


@ex.LossScaler.slip("The last gradient alone decides: all of them must be finite.")
class last_gradient_decides(_Grads):
    def step(self, optimizer):
        ok = True
        for grad in self.grads(optimizer):
            grad.div_(self.scale)
            ok = bool(grad.isfinite().all())
        if not ok:
            self.scale, self.good = self.scale / 2, 0
            return False
        optimizer.step()
        self.good += 1
        if self.good == self.patience:
            self.scale, self.good = self.scale * 2, 0
        return True


@ex.LossScaler.slip(
    "backward changes the loss in place: the caller still reports it. (loss * self.scale) is a new tensor."
)
class scales_the_loss_itself(precision.LossScaler):
    def backward(self, loss):
        with torch.no_grad():
            value = loss.clone()
        super().backward(loss)
        loss.data.copy_(value * self.scale)


@ex.LossScaler.slip(
    "The loss was scaled in 16 bits, which end at 65,504: scale it in fp32."
)
class scales_in_half(precision.LossScaler):
    def backward(self, loss):
        (loss.half() * self.scale).backward()


@ex.LossScaler.slip("The scale may grow beyond 2 ** 16.")
class has_a_ceiling(precision.LossScaler):
    def step(self, optimizer):
        before = self.scale
        stepped = super().step(optimizer)
        if self.scale > before:
            self.scale = min(2.0**16, self.scale)
        return stepped


@ex.LossScaler.slip("The scale may fall below 1.")
class has_a_floor(precision.LossScaler):
    def step(self, optimizer):
        stepped = super().step(optimizer)
        self.scale = max(1.0, self.scale)
        return stepped


@ex.LossScaler.slip(
    "The gradients are cleared: that is zero_grad's work, not the scaler's."
)
class clears_gradients(precision.LossScaler):
    def step(self, optimizer):
        stepped = super().step(optimizer)
        if stepped:
            optimizer.zero_grad()
        return stepped


@ex.LossScaler.slip(
    "A weight that took no part in the loss has p.grad None: leave it out."
)
class expects_every_gradient(precision.LossScaler):
    def step(self, optimizer):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad /= 1.0
        return super().step(optimizer)


@ex.LossScaler.slip(
    "Only the first gradient is divided by the scale: divide every one."
)
class divides_the_first(precision.LossScaler):
    def step(self, optimizer):
        for p in optimizer.param_groups[0]["params"][1:]:
            if p.grad is not None:
                p.grad.mul_(self.scale)
        return super().step(optimizer)


@ex.LossScaler.slip("Only the first gradient is looked at: all of them must be finite.")
class looks_at_the_first(_OwnTest):
    first = None

    def step(self, optimizer):
        self.first = optimizer.param_groups[0]["params"][0].grad
        return super().step(optimizer)

    def bad(self, grad):
        return grad is self.first and not bool(grad.isfinite().all())


@ex.LossScaler.slip("Each bad gradient halves the scale: once per step is enough.")
class halves_for_each(precision.LossScaler):
    def step(self, optimizer):
        params = [p for group in optimizer.param_groups for p in group["params"]]
        grads = [p.grad for p in params if p.grad is not None]
        bad = sum(not bool(grad.isfinite().all()) for grad in grads)
        stepped = super().step(optimizer)
        self.scale /= 2 ** max(0, bad - 1)
        return stepped


@ex.LossScaler.slip("It doubles after every good step: only after `patience` of them.")
class doubles_every_time(precision.LossScaler):
    def step(self, optimizer):
        patience, self.patience, self.good = self.patience, 1, 0
        stepped = super().step(optimizer)
        self.patience = patience
        return stepped


@ex.LossScaler.slip("It doubles once: start counting anew after every doubling.")
class doubles_once(precision.LossScaler):
    def step(self, optimizer):
        doubled = getattr(self, "doubled", False)
        if doubled:
            self.good = 0
            patience, self.patience = self.patience, 10**9
        before = self.scale
        stepped = super().step(optimizer)
        if doubled:
            self.patience = patience
        self.doubled = stepped and (doubled or self.scale > before)
        return stepped


@ex.LossScaler.slip(
    "After `patience` good steps the scale doubles: this waits one more."
)
class one_step_late(precision.LossScaler):
    def __init__(self, scale=2.0**16, patience=2000):
        super().__init__(scale, patience + 1)


@ex.LossScaler.slip(told="is a `return` missing")
class returns_nothing(precision.LossScaler):
    def step(self, optimizer):
        super().step(optimizer)


@ex.LossScaler.slip(
    "The unscaled gradients are not written back: divide in place, grad.div_."
)
class divides_a_copy(precision.LossScaler):
    def step(self, optimizer):
        params = [p for group in optimizer.param_groups for p in group["params"]]
        kept = [None if p.grad is None else p.grad.clone() for p in params]
        stepped = super().step(optimizer)
        for p, grad in zip(params, kept):
            p.grad = grad
        return stepped


# ---- amp_step ----


def _amp(
    model, X, y, optimizer, dtype, scaler=None, zero=True, inside=False, keep=False
):
    if zero:
        optimizer.zero_grad()
    with torch.autocast(X.device.type, dtype=dtype):
        loss = F.cross_entropy(model(X), y)
        if inside:
            loss.backward()
    if scaler is None:
        if not inside:
            loss.backward()
        optimizer.step()
    else:
        scaler.backward(loss)
        scaler.step(optimizer)
    return loss if keep else loss.detach()


@ex.amp_step.slip(
    "The weights themselves are now short numbers: steps smaller than half their spacing would vanish. Autocast leaves the weights in fp32."
)
def whole_model(model, X, y, optimizer, dtype, scaler=None):
    model.to(dtype)
    return _amp(model, X, y, optimizer, dtype, scaler)


@ex.amp_step.slip(
    "The forward pass ran in fp32: it belongs under torch.autocast(X_BD.device.type, dtype=dtype)."
)
def no_autocast(model, X, y, optimizer, dtype, scaler=None):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(X), y)
    loss.backward()
    optimizer.step()
    return loss.detach()


@ex.amp_step.slip("The forward pass ran in float16, whatever was asked: dtype=dtype.")
def always_half(model, X, y, optimizer, dtype, scaler=None):
    return _amp(model, X, y, optimizer, torch.float16, scaler)


@ex.amp_step.slip(
    "A Python number: .item() waits for the chip in every step. Return loss.detach()."
)
def returns_a_number(model, X, y, optimizer, dtype, scaler=None):
    return _amp(model, X, y, optimizer, dtype, scaler).item()


@ex.amp_step.slip(
    "The loss still carries its graph: whoever keeps it keeps the graph. Return loss.detach()."
)
def returns_the_graph(model, X, y, optimizer, dtype, scaler=None):
    return _amp(model, X, y, optimizer, dtype, scaler, keep=True)


@ex.amp_step.slip("backward ran under autocast: only forward and loss belong there.")
def backward_inside(model, X, y, optimizer, dtype, scaler=None):
    return _amp(model, X, y, optimizer, dtype, scaler, inside=True)


@ex.amp_step.slip(
    "The old gradients are still in it: optimizer.zero_grad() comes first."
)
def no_zero_grad(model, X, y, optimizer, dtype, scaler=None):
    return _amp(model, X, y, optimizer, dtype, scaler, zero=False)


@ex.amp_step.slip(
    "The scaler is there to do both: scaler.backward(loss), then scaler.step(optimizer)."
)
def ignores_the_scaler(model, X, y, optimizer, dtype, scaler=None):
    return _amp(model, X, y, optimizer, dtype)


@ex.amp_step.slip(
    "The loss is in short numbers: cross_entropy belongs under autocast, which computes it in fp32."
)
def loss_in_short_numbers(model, X, y, optimizer, dtype, scaler=None):
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=dtype):
        z = model(X)
    loss = F.cross_entropy(z, y)
    loss.backward()
    optimizer.step()
    return loss.detach()


@ex.amp_step.slip("One step only: is optimizer.step() called once more?")
def steps_twice(model, X, y, optimizer, dtype, scaler=None):
    loss = _amp(model, X, y, optimizer, dtype, scaler)
    if scaler is not None:
        optimizer.step()
    return loss


@ex.amp_step.slip(
    "Python waits for the chip in every step: it asks for a value, as .item(), float(x) and `if x` do. Return loss.detach(), a tensor."
)
def fetches_and_wraps(model, X, y, optimizer, dtype, scaler=None):
    return torch.tensor(_amp(model, X, y, optimizer, dtype, scaler).item())


@ex.amp_step.slip(
    "Python waits for the chip in every step: it asks for a value, as .item(), float(x) and `if x` do. Return loss.detach(), a tensor."
)
def looks_for_nan(model, X, y, optimizer, dtype, scaler=None):
    loss = _amp(model, X, y, optimizer, dtype, scaler)
    if loss.isnan():
        raise ValueError("nan")
    return loss


@ex.amp_step.slip(
    "Python waits for the chip in every step: it asks for a value, as .item(), float(x) and `if x` do. Return loss.detach(), a tensor."
)
def keeps_a_history(model, X, y, optimizer, dtype, scaler=None):
    loss = _amp(model, X, y, optimizer, dtype, scaler)
    history = loss.tolist()
    return loss if history else None


@ex.amp_step.slip("The forward pass ran in bfloat16, whatever was asked: dtype=dtype.")
def always_bfloat(model, X, y, optimizer, dtype, scaler=None):
    return _amp(model, X, y, optimizer, torch.bfloat16, scaler)


@ex.amp_step.slip(
    "Autocast belongs to one kind of device, that of the batch: X_BD.device.type."
)
def always_the_cpu(model, X, y, optimizer, dtype, scaler=None):
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=dtype):
        loss = F.cross_entropy(model(X), y)
    loss.backward()
    optimizer.step()
    return loss.detach()


@ex.amp_step.slip("The loss itself is wanted, not the scaled one.")
def returns_the_scaled_loss(model, X, y, optimizer, dtype, scaler=None):
    loss = _amp(model, X, y, optimizer, dtype, scaler)
    return loss if scaler is None else loss * scaler.scale


@ex.amp_step.slip(
    "The old gradients are still in it: optimizer.zero_grad() comes first."
)
def clears_at_the_end(model, X, y, optimizer, dtype, scaler=None):
    loss = _amp(model, X, y, optimizer, dtype, scaler, zero=False)
    optimizer.zero_grad()
    return loss


@ex.amp_step.slip(
    "The old gradients are still added: optimizer.zero_grad() before backward."
)
def clears_after_backward(model, X, y, optimizer, dtype, scaler=None):
    with torch.autocast(X.device.type, dtype=dtype):
        loss = F.cross_entropy(model(X), y)
    (loss if scaler is None else loss * scaler.scale).backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.detach()


@ex.amp_step.slip(
    "The scaler's backward alone is used: its step divides the gradients again."
)
def steps_past_the_scaler(model, X, y, optimizer, dtype, scaler=None):
    if scaler is None:
        return _amp(model, X, y, optimizer, dtype)
    optimizer.zero_grad()
    with torch.autocast(X.device.type, dtype=dtype):
        loss = F.cross_entropy(model(X), y)
    scaler.backward(loss)
    optimizer.step()
    return loss.detach()


@ex.amp_step.slip("This is the sum over the batch: cross_entropy's mean is wanted.")
def sums_the_loss(model, X, y, optimizer, dtype, scaler=None):
    return _amp(model, X, y, optimizer, dtype, scaler) * len(X)


@ex.amp_step.slip(told="is a `return` missing")
def returns_none(model, X, y, optimizer, dtype, scaler=None):
    _amp(model, X, y, optimizer, dtype, scaler)


@ex.amp_step.slip(
    "Autocast was never opened: model.to(dtype) and back rounds the weights."
)
def there_and_back(model, X, y, optimizer, dtype, scaler=None):
    optimizer.zero_grad()
    model.to(dtype)
    loss = F.cross_entropy(model(X.to(dtype)), y)
    loss.backward()
    model.float()
    optimizer.step()
    return loss.detach().float()


@ex.amp_step.slip(
    "With a scaler the old gradients are still added: optimizer.zero_grad()."
)
def no_zero_grad_with_a_scaler(model, X, y, optimizer, dtype, scaler=None):
    return _amp(model, X, y, optimizer, dtype, scaler, zero=scaler is None)


@ex.amp_step.slip("The model is left in eval mode: this is a training step.")
def switches_to_eval_mode(model, X, y, optimizer, dtype, scaler=None):
    return _amp(model.eval(), X, y, optimizer, dtype, scaler)


@ex.amp_step.slip("No scaler was given, and one was made: its step waits for the chip.")
def makes_a_scaler(model, X, y, optimizer, dtype, scaler=None):
    scaler = scaler or precision.LossScaler(1024.0)
    return _amp(model, X, y, optimizer, dtype, scaler)


@ex.amp_step.slip(
    "This is the loss after the step: return that from which it was made."
)
def loss_afterwards(model, X, y, optimizer, dtype, scaler=None):
    _amp(model, X, y, optimizer, dtype, scaler)
    with torch.no_grad(), torch.autocast(X.device.type, dtype=dtype):
        return F.cross_entropy(model(X), y)


# ---- saved_bytes ----


def _saved(model, X):
    found = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: found.append(t) or t, lambda t: t
    ):
        out = model(X)
    return found, {p.data_ptr() for p in model.parameters()}, out


@ex.saved_bytes.slip("Twice counted, and the weights on top.")
def everything(model, X):
    return sum(t.nbytes for t in _saved(model, X)[0])


@ex.saved_bytes.slip(
    "The ReLU's result is counted twice: relu saves it, and the next layer saves the same memory as its input."
)
def each_time(model, X):
    found, weights, _ = _saved(model, X)
    return sum(t.nbytes for t in found if t.data_ptr() not in weights)


@ex.saved_bytes.slip(
    "The weights are counted as well: they were there before the step."
)
def with_weights(model, X):
    found, _, out = _saved(model, X)
    return sum({t.data_ptr(): t.nbytes for t in found}.values())


@ex.saved_bytes.slip("These are numbers, not bytes: times element_size().")
def numbers(model, X):
    found, weights, out = _saved(model, X)
    kept = {t.data_ptr(): t.numel() for t in found if t.data_ptr() not in weights}
    return sum(kept.values())


@ex.saved_bytes.slip("A bf16 number has 2 bytes: element_size().")
def four_bytes_always(model, X):
    return 4 * numbers(model, X)


@ex.saved_bytes.slip("Every layer's output is counted, also what nobody saves.")
def all_outputs(model, X):
    total = 0
    for layer in model:
        X = layer(X)
        total += X.nbytes
    return total


@ex.saved_bytes.slip(
    "The input is missing: the first layer needs it for its weights' gradient."
)
def without_the_input(model, X):
    found, weights, out = _saved(model, X)
    skip = weights | {X.data_ptr()}
    kept = {t.data_ptr(): t.nbytes for t in found if t.data_ptr() not in skip}
    return sum(kept.values())


@ex.saved_bytes.slip(
    "A view is the same memory as what it is a view of: know it by its storage."
)
def known_by_id(model, X):
    found, weights, _ = _saved(model, X)
    kept = {id(t): t.nbytes for t in found if t.data_ptr() not in weights}
    return sum(kept.values())


@ex.saved_bytes.slip(
    "A view that begins elsewhere is counted on its own: data_ptr() is where it begins. Ask its untyped_storage() for data_ptr()."
)
def known_by_its_first_number(model, X):
    found, weights, _ = _saved(model, X)
    kept = {}
    for t in found:
        if t.data_ptr() not in weights:
            kept[t.data_ptr()] = max(kept.get(t.data_ptr(), 0), t.nbytes)
    return sum(kept.values())


@ex.saved_bytes.slip(
    "Only the columns that the view shows are counted: it keeps its whole storage, untyped_storage().nbytes()."
)
def as_much_as_is_shown(model, X):
    found, weights, _ = _saved(model, X)
    kept = {}
    for t in found:
        at = t.untyped_storage().data_ptr()
        if at not in weights:
            kept[at] = max(kept.get(at, 0), t.nbytes)
    return sum(kept.values())


@ex.saved_bytes.slip("What is kept may have any number of axes.")
def matrices_only(model, X):
    found, weights, _ = _saved(model, X)
    found = [t for t in found if t.dim() == 2 and t.data_ptr() not in weights]
    return sum({t.data_ptr(): t.nbytes for t in found}.values())


@ex.saved_bytes.slip("The model is left in eval mode: it is the caller's.")
def switches_to_eval(model, X):
    return profiling.saved_bytes(model.eval(), X)


@ex.saved_bytes.slip(
    "Gradients are left in the caller's model: a forward pass is enough, nothing is asked of backward."
)
def runs_backward(model, X):
    model(X).sum().backward()
    return profiling.saved_bytes(model, X)


@ex.saved_bytes.slip(
    "Each tensor has its own element_size(): this takes the input's for all."
)
def size_of_the_input(model, X):
    return X.element_size() * numbers(model, X)


@ex.saved_bytes.slip(
    "Only the linear layers' inputs: tanh and sigmoid keep what they return."
)
def inputs_of_linear_layers(model, X):
    total = 0
    for layer in model:
        total += X.nbytes * isinstance(layer, torch.nn.Linear)
        X = layer(X)
    return total


@ex.saved_bytes.slip("Nothing is kept under no_grad: let the forward pass record.")
def records_nothing(model, X):
    with torch.no_grad():
        return profiling.saved_bytes(model, X)


@ex.saved_bytes.slip(
    "The weights are counted as well: they were there before the step."
)
def parameters_by_type(model, X):
    found = [t for t in _saved(model, X)[0] if not isinstance(t, torch.nn.Parameter)]
    return sum({t.data_ptr(): t.nbytes for t in found}.values())


# ---- step_bytes ----


def _bytes(widths, B, states=2, bias=1, size=4):
    P = sum((D + bias) * H for D, H in zip(widths, widths[1:]))
    return {
        "weights": size * P,
        "gradients": size * P,
        "optimizer": size * states * P,
        "activations": 4 * B * sum(widths),
    }


@ex.step_bytes.slip("The constants (biases) are missing: (D + 1) * H.")
def no_biases(widths, B, states=2):
    return _bytes(widths, B, states, bias=0)


@ex.step_bytes.slip("These are numbers, not bytes: 4 bytes each.")
def no_bytes(widths, B, states=2):
    return _bytes(widths, B, states, size=1)


@ex.step_bytes.slip("A gradient does not grow with the batch: one per weight.")
def gradient_a_row(widths, B, states=2):
    got = _bytes(widths, B, states)
    return {**got, "gradients": B * got["gradients"]}


@ex.step_bytes.slip("These are Adam's two numbers per weight: `states` says how many.")
def always_adam(widths, B, states=2):
    return _bytes(widths, B)


@ex.step_bytes.slip(
    "The loss keeps its log-probabilities, (B, C): the last width counts."
)
def without_the_loss(widths, B, states=2):
    return {**_bytes(widths, B, states), "activations": 4 * B * sum(widths[:-1])}


@ex.step_bytes.slip("The input is missing: the first layer keeps it.")
def input_left_out(widths, B, states=2):
    return {**_bytes(widths, B, states), "activations": 4 * B * sum(widths[1:])}


@ex.step_bytes.slip("The batch is missing: every row keeps its own.")
def one_row(widths, B, states=2):
    return {**_bytes(widths, B, states), "activations": 4 * sum(widths)}


@ex.step_bytes.slip(
    "ReLU's result and the next layer's input are the same memory: once."
)
def relu_twice(widths, B, states=2):
    act = 4 * B * (sum(widths) + sum(widths[1:-1]))
    return {**_bytes(widths, B, states), "activations": act}


@ex.step_bytes.slip("A dict with four names is wanted.")
def one_number(widths, B, states=2):
    return sum(_bytes(widths, B, states).values())


@ex.step_bytes.slip(
    "The labels are counted as well: the formula leaves these 8 bytes per row out."
)
def with_the_labels(widths, B, states=2):
    got = _bytes(widths, B, states)
    return {**got, "activations": got["activations"] + 8 * B}


@ex.step_bytes.slip("These are three layers at most: any number of widths.")
def three_widths_at_most(widths, B, states=2):
    return _bytes(widths[:3], B, states)


@ex.step_bytes.slip(
    "The optimiser keeps `states` numbers: the gradients are counted apart."
)
def gradients_among_the_states(widths, B, states=2):
    got = _bytes(widths, B, states)
    return {**got, "optimizer": got["optimizer"] + got["gradients"]}


# ---- step_flops ----


def _products(widths, B):
    return [2 * B * D * H for D, H in zip(widths, widths[1:])]


@ex.step_flops.slip(
    "Nobody asks for the gradient of the input: the first layer has one product fewer."
)
def three_for_all(widths, B):
    return 3 * sum(_products(widths, B))


@ex.step_flops.slip("This is the forward pass alone.")
def forward(widths, B):
    return sum(_products(widths, B))


@ex.step_flops.slip("A multiplication and an addition: two operations.")
def multiplications(widths, B):
    return profiling.step_flops(widths, B) // 2


@ex.step_flops.slip("The batch is missing: every row is multiplied.")
def of_one_row(widths, B):
    return profiling.step_flops(widths, 1)


@ex.step_flops.slip("It is the first layer that saves a product, not the last.")
def last_saves(widths, B):
    return 3 * sum(_products(widths, B)) - _products(widths, B)[-1]


@ex.step_flops.slip("This is the backward pass alone.")
def backward(widths, B):
    return profiling.step_flops(widths, B) - sum(_products(widths, B))


@ex.step_flops.slip("Only the first three layers are counted: any number of them.")
def three_layers_at_most(widths, B):
    pairs = _products(widths, B)
    return 2 * pairs[0] + 3 * sum(pairs[1:3])


@ex.step_flops.slip("It is the first layer that saves a product, not the largest.")
def largest_saves(widths, B):
    return 3 * sum(_products(widths, B)) - max(_products(widths, B))


@ex.step_flops.slip("The biases are counted as well: matrix products alone.")
def with_biases(widths, B):
    pairs = [2 * B * (D + 1) * H for D, H in zip(widths, widths[1:])]
    return 3 * sum(pairs) - pairs[0]


# ---- idle_share ----


@ex.idle_share.slip("This is the idle time, not its share.")
def idle_time(spans):
    return profiling.idle_share(spans) * (
        max(e for _, e in spans) - min(s for s, _ in spans)
    )


@ex.idle_share.slip(
    "Time in which two spans are open counts once: durations do not add up."
)
def adds_durations(spans):
    length = max(e for _, e in spans) - min(s for s, _ in spans)
    return max(0.0, 1 - sum(e - s for s, e in spans) / length)


@ex.idle_share.slip(
    "A short span inside a long one moved the end back: until = max(until, end)."
)
def forgets_the_long_one(spans):
    spans = sorted(spans)
    first = until = spans[0][0]
    idle = 0.0
    for start, end in spans:
        idle += max(0.0, start - until)
        until = end
    return idle / (until - first)


@ex.idle_share.slip("A trace need not be in order: sort by start first.")
def takes_the_order(spans):
    first = until = spans[0][0]
    idle = 0.0
    for start, end in spans:
        idle += max(0.0, start - until)
        until = max(until, end)
    return idle / (until - first)


@ex.idle_share.slip(
    "The clock starts anywhere: count from the first start, not from 0."
)
def from_zero(spans):
    return profiling.idle_share([(0.0, 0.0), *spans])


@ex.idle_share.slip("This is idle over busy: divide by last end - first start.")
def idle_over_busy(spans):
    idle = profiling.idle_share(spans)
    return 2 * idle / (1.5 - idle)


@ex.idle_share.slip(
    "Spans need not begin at whole seconds: add up the gaps themselves."
)
def whole_seconds(spans):
    first, last = min(s for s, _ in spans), max(e for _, e in spans)
    ticks = range(int(first), int(last))
    return 1 - sum(any(a <= t < b for a, b in spans) for t in ticks) / len(ticks)


@ex.idle_share.slip("This is the share in which something ran: one minus it.")
def busy_share(spans):
    return 1 - profiling.idle_share(spans)


@ex.idle_share.slip(
    "The trace ends with the last end: a span that started earlier may end later."
)
def until_the_last_start(spans):
    spans = sorted(spans)
    idle = profiling.idle_share(spans) * (max(e for _, e in spans) - spans[0][0])
    return 1 - (spans[-1][1] - spans[0][0] - idle) / (spans[-1][1] - spans[0][0] or 1)


@ex.idle_share.slip("Only the longest gap is counted: add all of them up.")
def longest_gap(spans):
    spans, gaps = sorted(spans), [0.0]
    first = until = spans[0][0]
    for start, end in spans:
        gaps.append(start - until)
        until = max(until, end)
    return max(gaps) / (until - first)


@ex.idle_share.slip(told="changes its input in place")
def sorts_the_callers(spans):
    spans.sort()
    return profiling.idle_share(spans)


@ex.idle_share.slip("This counts the gaps: add up how long they last.")
def number_of_gaps(spans):
    spans = sorted(spans)
    until, gaps = spans[0][0], 0
    for start, end in spans:
        gaps += start > until
        until = max(until, end)
    return gaps / len(spans)


# ---- Work ----


@ex.Work.slip("Nothing is counted.")
class counts_nothing(profiling.Work):
    def note(self, name, args, out):
        return None


@ex.Work.slip("These are the calls: count the numbers in each result, out.numel().")
class counts_results(profiling.Work):
    def note(self, name, args, out):
        super().note(name, args, torch.zeros(()) if name != "_to_copy" else out)


@ex.Work.slip("These are bytes: writes counts numbers.")
class writes_in_bytes(profiling.Work):
    def note(self, name, args, out):
        super().note(name, args, out)
        if isinstance(out, torch.Tensor):
            self.writes += out.numel() * (out.element_size() - 1)


@ex.Work.slip(
    "A conversion on the spot crosses no wire: a copy keeps the dtype or changes the device."
)
class casts_are_copies(profiling.Work):
    def note(self, name, args, out):
        super().note(name, args, out)
        if name == "_to_copy" and out.dtype != args[0].dtype:
            self.copies, self.bytes = self.copies + 1, self.bytes + args[0].nbytes


@ex.Work.slip("The device changes, so it is a copy, whatever the dtype does.")
class dtype_alone(profiling.Work):
    def note(self, name, args, out):
        copies, size = self.copies, self.bytes
        super().note(name, args, out)
        if name == "_to_copy" and out.dtype != args[0].dtype:
            self.copies, self.bytes = copies, size


@ex.Work.slip("These are numbers: times element_size().")
class copies_in_numbers(profiling.Work):
    def note(self, name, args, out):
        size = self.bytes
        super().note(name, args, out)
        if self.bytes > size:
            self.bytes = size + args[0].numel()


@ex.Work.slip("Count what leaves: the argument's bytes, not the result's.")
class bytes_of_the_result(profiling.Work):
    def note(self, name, args, out):
        size = self.bytes
        super().note(name, args, out)
        if self.bytes > size:
            self.bytes = size + out.numel() * out.element_size()


@ex.Work.slip('Python waits in "_local_scalar_dense", whoever calls it.')
class only_item(profiling.Work):
    def note(self, name, args, out):
        super().note(name.replace("_local_scalar_dense", "item_"), args, out)
        self.syncs += name == "item"


@ex.Work.slip("A result may be a tuple: ask isinstance(out, torch.Tensor) first.")
class takes_all_for_a_tensor(profiling.Work):
    def note(self, name, args, out):
        super().note(name, args, out)
        if name == "split":
            self.calls += len(out) - 1


@ex.Work.slip("A float64 number has 8 bytes: args[0].element_size().")
class four_bytes_a_number(profiling.Work):
    def note(self, name, args, out):
        size = self.bytes
        super().note(name, args, out)
        if self.bytes > size:
            self.bytes = size + 4 * args[0].numel()


@ex.Work.slip(
    'Not every result that is no tensor is a wait: ask for the name "_local_scalar_dense".'
)
class no_tensor_is_a_wait(profiling.Work):
    def note(self, name, args, out):
        super().note("" if name == "_local_scalar_dense" else name, args, out)
        self.syncs += not isinstance(out, torch.Tensor)


@ex.Work.slip("True and False are written, too: every tensor counts.")
class writes_of_floats(profiling.Work):
    def note(self, name, args, out):
        writes = self.writes
        super().note(name, args, out)
        if isinstance(out, torch.Tensor) and not out.is_floating_point():
            self.writes = writes


@ex.Work.slip("The second copy replaces the first: += in copies and bytes.")
class last_copy_only(profiling.Work):
    def note(self, name, args, out):
        copies, size = self.copies, self.bytes
        super().note(name, args, out)
        if self.copies > copies:
            self.copies, self.bytes = 1, self.bytes - size


@ex.Work.slip("The bytes of the last copy replace the others: self.bytes += ...")
class bytes_of_the_last(profiling.Work):
    def note(self, name, args, out):
        size = self.bytes
        super().note(name, args, out)
        if self.bytes > size:
            self.bytes -= size


@ex.Work.slip("tolist() arrives without arguments: look at args[0] only for a copy.")
class always_looks_at_the_argument(profiling.Work):
    def note(self, name, args, out):
        x = args[0]
        super().note(name, (x, *args[1:]), out)


@ex.Work.slip("Copies and waits are operators like others: they count as calls, too.")
class copies_are_no_calls(profiling.Work):
    def note(self, name, args, out):
        calls, writes = self.calls, self.writes
        super().note(name, args, out)
        if name in ("_to_copy", "_local_scalar_dense"):
            self.calls, self.writes = calls, writes


@ex.Work.slip("A view is a result like others: its numbers count.")
class views_are_free(profiling.Work):
    def note(self, name, args, out):
        writes = self.writes
        super().note(name, args, out)
        pair = [t for t in (out, *args[:1]) if isinstance(t, torch.Tensor)]
        if len(pair) == 2 and pair[0].device == pair[1].device:
            ours, theirs = (t.untyped_storage().data_ptr() for t in pair)
            self.writes = writes if ours == theirs else self.writes


@ex.Work.slip("Only a result that is a tensor counts for writes, not those in a tuple.")
class opens_tuples(profiling.Work):
    def note(self, name, args, out):
        super().note(name, args, out)
        if isinstance(out, (tuple, list)):
            self.writes += sum(t.numel() for t in out)


# ---- train_fast ----


def _left(*bugs):
    def train(model, train, valid, price_C, device, epochs=2, B=32):
        return planted(model, train, valid, price_C, device, epochs, B, bugs)

    train.__name__ = "still_" + "_".join(map(str, bugs))
    return train


PLANTED = {
    1: "scaling all rows in every step",
    2: "fetching rows one at a time",
    3: "sending float64",
    4: "sending what never changes",
    5: "fetching every loss by itself (stack, then fetch once)",
    6: "a graph for the validation",
}
for bug, what in PLANTED.items():
    ex.train_fast.slip(f"5 of 6 are repaired. Still there: {what}.")(_left(bug))
ex.train_fast.slip(f"0 of 6 are repaired. Still there: {'; '.join(PLANTED.values())}.")(
    _left(*PLANTED)
)


def _fast(model, train, valid, price_C, device, epochs=2, B=32):
    return planted(model, train, valid, price_C, device, epochs, B, ())


@ex.train_fast.slip(
    "Every batch is scaled by its own mean and deviation: take those of all training rows."
)
def scales_by_its_own_batch(model, train, valid, price_C, device, epochs=2, B=32):
    (X, y), (V, w) = train, valid
    X = torch.cat([(b - b.mean()) / b.std() for b in X.split(B)])
    return _fast(model, (X, y), valid, price_C, device, epochs, B)


@ex.train_fast.slip("The loss forgets price_C, the weights of the classes.")
def forgets_the_price(model, train, valid, price_C, device, epochs=2, B=32):
    return _fast(model, train, valid, torch.ones(10), device, epochs, B)


@ex.train_fast.slip(
    "The losses are still tensors: fetch them once, at the end, with torch.stack(losses).tolist()."
)
def tensors_come_back(model, train, valid, price_C, device, epochs=2, B=32):
    losses, right = _fast(model, train, valid, price_C, device, epochs, B)
    return [torch.tensor(v) for v in losses], right


@ex.train_fast.slip("The validation is gone: one accuracy per epoch.")
def no_validation(model, train, valid, price_C, device, epochs=2, B=32):
    losses, right = _fast(model, train, valid, price_C, device, epochs, B)
    return losses, [0.0] * epochs


@ex.train_fast.slip(
    "Nothing is sent to the device, nor the model moved: use send, also where it is the CPU."
)
def sends_nothing(model, train, valid, price_C, device, epochs=2, B=32):
    (X, y), (V, w) = train, valid
    X, V = ((t - X.mean()) / X.std() for t in (X, V))
    X, V = X.float(), V.float()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses, right = [], []
    for _ in range(epochs):
        for x_B, y_B in zip(X.split(B), y.split(B)):
            loss = F.cross_entropy(model(x_B), y_B, weight=price_C)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        with torch.inference_mode():
            right.append((model(V).argmax(1) == w).float().mean().item())
    return torch.stack(losses).tolist(), right


@ex.train_fast.slip("A copy was trained: the model that was handed in is as it was.")
def trains_a_copy(model, train, valid, price_C, device, epochs=2, B=32):
    return _fast(copy.deepcopy(model), train, valid, price_C, device, epochs, B)


@ex.train_fast.slip("`epochs` is ignored: these are two.")
def two_epochs(model, train, valid, price_C, device, epochs=2, B=32):
    return _fast(model, train, valid, price_C, device, 2, B)


@ex.train_fast.slip("`B` is ignored: these are steps of 32 rows.")
def thirty_two_rows(model, train, valid, price_C, device, epochs=2, B=32):
    return _fast(model, train, valid, price_C, device, epochs, 32)


@ex.train_fast.slip("The last, shorter batch is left out.")
def whole_batches(model, train, valid, price_C, device, epochs=2, B=32):
    (X, y), n = train, len(train[0]) // B * B
    return _fast(model, (X[:n], y[:n]), valid, price_C, device, epochs, B)


@ex.train_fast.slip(
    "The validation rows are scaled by their own mean and deviation: take those of the training rows."
)
def validation_by_itself(model, train, valid, price_C, device, epochs=2, B=32):
    (X, y), (V, w) = train, valid
    V = (V - V.mean()) / V.std() * X.std() + X.mean()
    return _fast(model, train, (V, w), price_C, device, epochs, B)


@ex.train_fast.slip("The caller's rows are changed in place: scale into a new tensor.")
def scales_in_place(model, train, valid, price_C, device, epochs=2, B=32):
    (X, y), (V, w) = train, valid
    mean, std = X.mean(), X.std()
    for rows in (X, V):
        rows.sub_(mean).div_(std)
    return _fast(model, train, valid, price_C, device, epochs, B)


def _fetching(name, fetch):
    "The repaired script, and every loss fetched in another way than .item()."

    def train(model, train, valid, price_C, device, epochs=2, B=32):
        losses, right = _fast(model, train, valid, price_C, device, epochs, B)
        for loss in losses:
            fetch(torch.tensor(loss))
        return losses, right

    train.__name__ = name
    return train


for name, fetch in {
    "tolist": torch.Tensor.tolist,
    "numpy": torch.Tensor.numpy,
    "cpu": torch.Tensor.cpu,
    "sends_it_back": lambda loss: loss.to("cpu", copy=True),
}.items():
    ex.train_fast.slip(f"5 of 6 are repaired. Still there: {PLANTED[5]}.")(
        _fetching(name, fetch)
    )


@ex.train_fast.slip("`device` is ignored: everything stays on the CPU.")
def stays_on_the_cpu(model, train, valid, price_C, device, epochs=2, B=32):
    return _fast(model, train, valid, price_C, "cpu", epochs, B)


@ex.train_fast.slip("The batches come in another order: keep the slow script's.")
def shuffles(model, train, valid, price_C, device, epochs=2, B=32):
    X, y = train
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    return _fast(model, (X[order], y[order]), valid, price_C, device, epochs, B)


@ex.train_fast.slip("Two lists come back: the losses and the accuracies.")
def losses_alone(model, train, valid, price_C, device, epochs=2, B=32):
    return _fast(model, train, valid, price_C, device, epochs, B)[0]


@ex.train_fast.slip("One accuracy per epoch: this is the last one alone.")
def judges_at_the_end(model, train, valid, price_C, device, epochs=2, B=32):
    losses, right = _fast(model, train, valid, price_C, device, epochs, B)
    return losses, right[-1:]


@ex.train_fast.slip("The validation rows are not scaled: as the training rows are.")
def raw_validation(model, train, valid, price_C, device, epochs=2, B=32):
    (X, y), (V, w) = train, valid
    return _fast(model, train, (V * X.std() + X.mean(), w), price_C, device, epochs, B)


@ex.train_fast.slip("One loss per step: these are the means of the epochs.")
def loss_per_epoch(model, train, valid, price_C, device, epochs=2, B=32):
    losses, right = _fast(model, train, valid, price_C, device, epochs, B)
    steps = len(losses) // epochs
    means = [sum(losses[i * steps :][:steps]) / steps for i in range(epochs)]
    return means, right
