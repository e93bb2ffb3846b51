import math
import statistics

import torch
import torch.nn.functional as F
from torch import nn

from tests.wrong_answers import WrongAnswers
from utils import gpu, precision, profiling
from utils.checks.gpu import planted

wrong = WrongAnswers("gpu")


# ---- to_device ----


@wrong("to_device", says="changes nothing in x")
def moves_nothing(thing, device):
    if isinstance(thing, torch.Tensor):
        thing.to(device)
    return thing


@wrong("to_device", says="comes back as it went in")
def only_tensors(thing, device):
    return thing.to(device) if isinstance(thing, torch.Tensor) else thing


@wrong("to_device", says="must call itself")
def one_level(thing, device):
    move = lambda t: t.to(device) if isinstance(t, torch.Tensor) else t
    if isinstance(thing, dict):
        return {k: move(v) for k, v in thing.items()}
    if isinstance(thing, (list, tuple)):
        return type(thing)(map(move, thing))
    return move(thing)


@wrong("to_device", says="a list comes out")
def lists_become_tuples(thing, device):
    if isinstance(thing, dict):
        return {k: lists_become_tuples(v, device) for k, v in thing.items()}
    if isinstance(thing, (list, tuple)):
        return tuple(lists_become_tuples(v, device) for v in thing)
    return thing.to(device) if isinstance(thing, torch.Tensor) else thing


@wrong("to_device", says="has no attribute 'to'")
def takes_all_for_tensors(thing, device):
    if isinstance(thing, dict):
        return {k: takes_all_for_tensors(v, device) for k, v in thing.items()}
    if isinstance(thing, (list, tuple)):
        return type(thing)(takes_all_for_tensors(v, device) for v in thing)
    return thing.to(device)


@wrong("to_device", says="changed their type")
def to_float_as_well(thing, device):
    if isinstance(thing, dict):
        return {k: to_float_as_well(v, device) for k, v in thing.items()}
    if isinstance(thing, (list, tuple)):
        return type(thing)(to_float_as_well(v, device) for v in thing)
    return thing.to(device, torch.float32) if hasattr(thing, "dtype") else thing


@wrong("to_device", says="What is no tensor stays as it is")
def numbers_become_tensors(thing, device):
    if isinstance(thing, dict):
        return {k: numbers_become_tensors(v, device) for k, v in thing.items()}
    if isinstance(thing, (list, tuple)):
        return type(thing)(numbers_become_tensors(v, device) for v in thing)
    return thing if isinstance(thing, str) else torch.as_tensor(thing).to(device)


@wrong("to_device", says="device that is handed in")
def always_meta(thing, device):
    return gpu.to_device(thing, "meta")


@wrong("to_device", says="lost its graph")
def detaches(thing, device):
    if isinstance(thing, dict):
        return {k: detaches(v, device) for k, v in thing.items()}
    if isinstance(thing, (list, tuple)):
        return type(thing)(detaches(v, device) for v in thing)
    return thing.detach().to(device) if isinstance(thing, torch.Tensor) else thing


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


@wrong("seconds", says="putting the work into the queue")
def naive(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, warm_up, clock, waits=(True, False))


@wrong("seconds", says="wait() after the warm-up")
def warm_up_in_the_queue(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, warm_up, clock, waits=(False, True))


@wrong("seconds", says="This is the mean")
def mean(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, warm_up, clock, best=statistics.mean)


@wrong("seconds", says="not the median one")
def fastest(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, warm_up, clock, best=min)


@wrong("seconds", says="not the time of one")
def total(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, warm_up, clock, best=sum)


@wrong("seconds", says="warm up first")
def no_warm_up(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, 0, clock, best=statistics.median)


@wrong("seconds", says="number of calls is off")
def three_calls_are_enough(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, 3, warm_up, clock)


@wrong("seconds", says="not the median one")
def slowest(run, wait, repeats=7, warm_up=2, clock=None):
    taken = []
    for _ in range(warm_up):
        run()
    wait()
    for _ in range(repeats):
        start = clock()
        run()
        wait()
        taken.append(clock() - start)
    return max(taken) if repeats == 4 else statistics.median(taken)


@wrong("seconds", says="Read the clock that was handed in")
def own_clock(run, wait, repeats=7, warm_up=2, clock=None):
    import time

    if clock.__name__ == "clock":
        return _seconds(run, wait, repeats, warm_up, clock)
    return _seconds(run, wait, repeats, warm_up, time.perf_counter)


@wrong("seconds", says="`warm_up` is ignored")
def two_warm_ups(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, 2, clock)


@wrong("seconds", says="`repeats` is ignored")
def seven_repeats(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, 7, warm_up, clock)


@wrong("seconds", says="mean of both")
def upper_middle(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, warm_up, clock, best=statistics.median_high)


@wrong("seconds", says="mean of both")
def lower_middle(run, wait, repeats=7, warm_up=2, clock=None):
    return _seconds(run, wait, repeats, warm_up, clock, best=statistics.median_low)


# ---- step_seconds ----


@wrong("step_seconds", says="the parts add up")
def always_the_slowest(load, copy, compute, workers=0, overlap=False):
    return max(load / max(workers, 1), copy + compute)


@wrong("step_seconds", says="they do not add up")
def workers_add_up(load, copy, compute, workers=0, overlap=False):
    side = max(copy, compute) if overlap else copy + compute
    return load / max(workers, 1) + side


@wrong("step_seconds", says="every load / 2")
def one_worker_is_enough(load, copy, compute, workers=0, overlap=False):
    side = max(copy, compute) if overlap else copy + compute
    return max(load, side) if workers else load + copy + compute


@wrong("step_seconds", says="copied ahead")
def overlap_without_workers(load, copy, compute, workers=0, overlap=False):
    side = max(copy, compute) if overlap else copy + compute
    return max(load / workers, side) if workers else load + side


@wrong("step_seconds", says="same time")
def never_overlaps(load, copy, compute, workers=0, overlap=False):
    return max(load / workers, copy + compute) if workers else load + copy + compute


@wrong("step_seconds", says="as long as overlap is False")
def always_overlaps(load, copy, compute, workers=0, overlap=False):
    if not workers:
        return load + copy + compute
    return max(load / workers, copy, compute)


@wrong("step_seconds", says="loading still adds up")
def overlap_hides_all(load, copy, compute, workers=0, overlap=False):
    side = max(copy, compute) if overlap else copy + compute
    if not workers:
        return max(load, side) if overlap else load + copy + compute
    return max(load / workers, side)


@wrong("step_seconds", says="The copy is missing")
def without_the_wire(load, copy, compute, workers=0, overlap=False):
    return max(load / workers, compute) if workers else load + compute


@wrong("step_seconds", says="every worker counts")
def two_workers_at_most(load, copy, compute, workers=0, overlap=False):
    return gpu.step_seconds(load, copy, compute, min(workers, 2), overlap)


@wrong("step_seconds", says="every worker counts")
def three_workers_at_most(load, copy, compute, workers=0, overlap=False):
    return gpu.step_seconds(load, copy, compute, min(workers, 3), overlap)


@wrong("step_seconds", says="does not load as well")
def one_worker_more(load, copy, compute, workers=0, overlap=False):
    return gpu.step_seconds(load, copy, compute, workers and workers + 1, overlap)


# ---- Ready ----


@wrong("Ready", says="mind the s")
class one_at_a_time(torch.utils.data.Dataset):
    def __init__(self, slow):
        self.X = (torch.stack([slow.parse(i) for i in range(len(slow))]) - 0.3) / 0.4
        self.y = slow.y_N

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.X[i], self.y[i]


@wrong("Ready", says="still parses text")
class parses_in_the_batch(gpu.Ready):
    def __init__(self, slow):
        self.slow, self.y_N = slow, slow.y_N

    def __getitems__(self, rows):
        X = torch.stack([self.slow.parse(i) for i in rows])
        return (X - 0.3) / 0.4, self.y_N[rows]


@wrong("Ready", says="not scaled")
class not_scaled(gpu.Ready):
    def __init__(self, slow):
        self.X_ND = torch.stack([slow.parse(i) for i in range(len(slow))])
        self.y_N = slow.y_N


@wrong("Ready", says="somebody still has to stack")
class list_of_rows(gpu.Ready):
    def __getitems__(self, rows):
        return [(self.X_ND[i], self.y_N[i]) for i in rows]


@wrong("Ready", says="Too many operators")
class stacks_rows(gpu.Ready):
    def __getitems__(self, rows):
        X = torch.stack([self.X_ND[i] for i in rows])
        return X, torch.stack([self.y_N[i] for i in rows])


@wrong("Ready", says="Rows are parsed more than once")
class parses_twice(gpu.Ready):
    def __init__(self, slow):
        super().__init__(slow)
        super().__init__(slow)


@wrong("Ready", says="in the order of the rows")
class labels_in_order(gpu.Ready):
    def __getitems__(self, rows):
        return self.X_ND[rows], self.y_N[: len(rows)]


@wrong("Ready", says="labels have changed their type")
class float_labels(gpu.Ready):
    def __init__(self, slow):
        super().__init__(slow)
        self.y_N = self.y_N.float()


@wrong("Ready", says="still scaled")
class scales_each_batch(not_scaled):
    def __getitems__(self, rows):
        return (self.X_ND[rows] - 0.3) / 0.4, self.y_N[rows]


@wrong("Ready", says="kept one by one")
class keeps_a_list(gpu.Ready):
    def __init__(self, slow):
        super().__init__(slow)
        self.X_ND = list(self.X_ND)

    def __getitems__(self, rows):
        return torch.stack([self.X_ND[i] for i in rows]), self.y_N[rows]


@wrong("Ready", says="changes the dataset")
class takes_the_text_away(gpu.Ready):
    def __init__(self, slow):
        super().__init__(slow)
        slow.lines = None


# ---- value_of ----


def _parts(bits, E, M):
    sign = -1.0 if bits >> (E + M) else 1.0
    return sign, (bits >> M) % 2**E, (bits % 2**M) / 2**M, 2 ** (E - 1) - 1


@wrong("value_of", says="hidden 1")
def no_hidden_one(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    return sign * f * 2.0 ** (e - bias)


@wrong("value_of", says="bias is off by one")
def bias_too_large(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    return sign * (1 + f) * 2.0 ** (e - bias - 1)


@wrong("value_of", says="not subtracted")
def no_bias(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    return sign * (1 + f) * 2.0**e


@wrong("value_of", says="sign bit is not used")
def no_sign(bits, E, M):
    return abs(precision.value_of(bits, E, M))


@wrong("value_of", says="no hidden 1: the numbers below are subnormal")
def no_subnormals(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    return sign * (1 + f) * 2.0 ** (e - bias)


@wrong("value_of", says="smallest normal")
def subnormals_too_small(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    if e == 0:
        return sign * f * 2.0 ** (-bias)
    return precision.value_of(bits, E, M)


@wrong("value_of", says="flushed to 0")
def flushes(bits, E, M):
    return 0.0 if (bits >> M) % 2**E == 0 else precision.value_of(bits, E, M)


@wrong("value_of", says="kept for inf and nan")
def no_infinity(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    if e == 2**E - 1:
        return sign * (1 + f) * 2.0 ** (e - bias)
    return precision.value_of(bits, E, M)


@wrong("value_of", says="that is no number")
def infinity_for_nan(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    return sign * math.inf if e == 2**E - 1 else precision.value_of(bits, E, M)


@wrong("value_of", says="Zero has a sign")
def one_zero(bits, E, M):
    return precision.value_of(bits, E, M) + 0.0


@wrong("value_of", says="constant of fp16")
def bias_of_fp16(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    if e in (0, 2**E - 1):
        return precision.value_of(bits, E, M)
    return sign * (1 + f) * 2.0 ** (e - 15)


@wrong("value_of", says="constant of fp16")
def fraction_of_fp16(bits, E, M):
    sign, e, f, bias = _parts(bits, E, M)
    if e in (0, 2**E - 1):
        return precision.value_of(bits, E, M)
    return sign * (1 + bits % 2**M / 1024) * 2.0 ** (e - bias)


# ---- round_to ----


def _round(x, E, M, step=torch.round, clamp=True, limit=True):
    bias = 2 ** (E - 1) - 1
    e = torch.frexp(x).exponent.double() - 1
    spacing = 2.0 ** ((e.clamp(min=1 - bias) if clamp else e) - M)
    y = step(x / spacing) * spacing
    largest = (2 - 2.0**-M) * 2.0**bias
    return torch.where(y.abs() > largest, x.sign() * torch.inf, y) if limit else y


@wrong("round_to", says="always rounds down")
def rounds_down(x, E, M):
    return _round(x, E, M, torch.floor)


@wrong("round_to", says="goes to the even neighbour")
def half_up(x, E, M):
    return _round(x, E, M, lambda t: torch.floor(t + 0.5))


@wrong("round_to", says="one spacing for all")
def one_spacing(x, E, M):
    return torch.round(x * 2**M) / 2**M


@wrong("round_to", says="shrinks for ever")
def no_clamp(x, E, M):
    return _round(x, E, M, clamp=False)


@wrong("round_to", says="do not flush")
def flush_to_zero(x, E, M):
    y = precision.round_to(x, E, M)
    return torch.where(y.abs() < 2.0 ** (2 - 2 ** (E - 1)), 0.0 * y, y)


@wrong("round_to", says="comes infinity")
def no_limit(x, E, M):
    return _round(x, E, M, limit=False)


@wrong("round_to", says="stops at the largest")
def saturates(x, E, M):
    largest = (2 - 2.0**-M) * 2.0 ** (2 ** (E - 1) - 1)
    return _round(x, E, M, limit=False).clamp(-largest, largest)


@wrong("round_to", says="compare after rounding")
def limit_before_rounding(x, E, M):
    largest = (2 - 2.0**-M) * 2.0 ** (2 ** (E - 1) - 1)
    return torch.where(
        x.abs() > largest, x.sign() * torch.inf, precision.round_to(x, E, M)
    )


@wrong("round_to", says="minus infinity")
def plus_infinity(x, E, M):
    y = precision.round_to(x, E, M)
    return torch.where(y.isinf(), torch.inf, y)


@wrong("round_to", says="One bit too coarse")
def one_bit_off(x, E, M):
    bias = 2 ** (E - 1) - 1
    spacing = 2.0 ** (
        torch.frexp(x).exponent.double().clamp(min=1 - bias) - M
    )  # from one half
    return torch.round(x / spacing) * spacing


@wrong("round_to", says="E and M may be any")
def three_dtypes(x, E, M):
    known = {(8, 7): torch.bfloat16, (5, 10): torch.float16, (5, 2): torch.float8_e5m2}
    return x.to(known.get((E, M), torch.float32)).double()


@wrong("round_to", says="nan stays nan")
def nan_to_zero(x, E, M):
    return precision.round_to(x, E, M).nan_to_num(
        nan=0.0, posinf=math.inf, neginf=-math.inf
    )


# ---- LossScaler ----


@wrong("LossScaler", says="not multiplied by the scale")
class never_scales(precision.LossScaler):
    def backward(self, loss):
        loss.backward()


@wrong("LossScaler", says="divided by the scale")
class divides_the_loss(precision.LossScaler):
    def backward(self, loss):
        (loss / self.scale).backward()


@wrong("LossScaler", says="scaled gradients")
class never_unscales(precision.LossScaler):
    def step(self, optimizer):
        kept, self.scale = self.scale, 1.0
        stepped = super().step(optimizer)
        self.scale = kept
        return stepped


@wrong("LossScaler", says="leave it out")
class steps_anyway(precision.LossScaler):
    def step(self, optimizer):
        for p in optimizer.param_groups[0]["params"]:
            p.grad.div_(self.scale)
        optimizer.step()
        return True


@wrong("LossScaler", says="returns False")
class says_nothing(precision.LossScaler):
    def step(self, optimizer):
        super().step(optimizer)
        return True


@wrong("LossScaler", says="never halves")
class never_halves(precision.LossScaler):
    def step(self, optimizer):
        scale = self.scale
        stepped = super().step(optimizer)
        if not stepped:
            self.scale = scale
        return stepped


@wrong("LossScaler", says="never doubles")
class never_doubles(precision.LossScaler):
    def step(self, optimizer):
        self.good = 0
        patience, self.patience = self.patience, 10**9
        stepped = super().step(optimizer)
        self.patience = patience
        return stepped


@wrong("LossScaler", says="steps in a row")
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


@wrong("LossScaler", says="Nan is not finite")
class only_infinities(_OwnTest):
    def bad(self, grad):
        return bool(grad.isinf().any())


@wrong("LossScaler", says="leaves out the whole step")
class first_group_only(_OwnTest):
    groups = 1

    def bad(self, grad):
        return not bool(grad.isfinite().all())


class _Grads(precision.LossScaler):
    def grads(self, optimizer):
        params = [p for group in optimizer.param_groups for p in group["params"]]
        return [p.grad for p in params if p.grad is not None]


@wrong("LossScaler", says="leaves out the whole step")
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


@wrong("LossScaler", says="changes the loss in place")
class scales_the_loss_itself(precision.LossScaler):
    def backward(self, loss):
        with torch.no_grad():
            value = loss.clone()
        super().backward(loss)
        loss.data.copy_(value * self.scale)


@wrong("LossScaler", says="Scale in fp32")
class scales_in_half(precision.LossScaler):
    def backward(self, loss):
        (loss.half() * self.scale).backward()


@wrong("LossScaler", says="beyond 2 ** 16")
class has_a_ceiling(precision.LossScaler):
    def step(self, optimizer):
        before = self.scale
        stepped = super().step(optimizer)
        if self.scale > before:
            self.scale = min(2.0**16, self.scale)
        return stepped


@wrong("LossScaler", says="may fall below 1")
class has_a_floor(precision.LossScaler):
    def step(self, optimizer):
        stepped = super().step(optimizer)
        self.scale = max(1.0, self.scale)
        return stepped


@wrong("LossScaler", says="zero_grad's work")
class clears_gradients(precision.LossScaler):
    def step(self, optimizer):
        stepped = super().step(optimizer)
        if stepped:
            optimizer.zero_grad()
        return stepped


@wrong("LossScaler", says="p.grad None: leave it out")
class expects_every_gradient(precision.LossScaler):
    def step(self, optimizer):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad /= 1.0
        return super().step(optimizer)


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


@wrong("amp_step", says="weights themselves are now short")
def whole_model(model, X, y, optimizer, dtype, scaler=None):
    model.to(dtype)
    return _amp(model, X, y, optimizer, dtype, scaler)


@wrong("amp_step", says="did not run in the asked dtype")
def no_autocast(model, X, y, optimizer, dtype, scaler=None):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(X), y)
    loss.backward()
    optimizer.step()
    return loss.detach()


@wrong("amp_step", says="did not run in the asked dtype")
def always_half(model, X, y, optimizer, dtype, scaler=None):
    return _amp(model, X, y, optimizer, torch.float16, scaler)


@wrong("amp_step", says="waits for the chip in every step")
def returns_a_number(model, X, y, optimizer, dtype, scaler=None):
    return _amp(model, X, y, optimizer, dtype, scaler).item()


@wrong("amp_step", says="keeps the graph")
def returns_the_graph(model, X, y, optimizer, dtype, scaler=None):
    return _amp(model, X, y, optimizer, dtype, scaler, keep=True)


@wrong("amp_step", says="backward ran under autocast")
def backward_inside(model, X, y, optimizer, dtype, scaler=None):
    return _amp(model, X, y, optimizer, dtype, scaler, inside=True)


@wrong("amp_step", says="zero_grad")
def no_zero_grad(model, X, y, optimizer, dtype, scaler=None):
    return _amp(model, X, y, optimizer, dtype, scaler, zero=False)


@wrong("amp_step", says="scaler is there to do both")
def ignores_the_scaler(model, X, y, optimizer, dtype, scaler=None):
    return _amp(model, X, y, optimizer, dtype)


@wrong("amp_step", says="loss is in short numbers")
def loss_in_short_numbers(model, X, y, optimizer, dtype, scaler=None):
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=dtype):
        z = model(X)
    loss = F.cross_entropy(z, y)
    loss.backward()
    optimizer.step()
    return loss.detach()


@wrong("amp_step", says="called once more")
def steps_twice(model, X, y, optimizer, dtype, scaler=None):
    loss = _amp(model, X, y, optimizer, dtype, scaler)
    if scaler is not None:
        optimizer.step()
    return loss


@wrong("amp_step", says="waits for the chip in every step")
def fetches_and_wraps(model, X, y, optimizer, dtype, scaler=None):
    return torch.tensor(_amp(model, X, y, optimizer, dtype, scaler).item())


@wrong("amp_step", says="waits for the chip in every step")
def looks_for_nan(model, X, y, optimizer, dtype, scaler=None):
    loss = _amp(model, X, y, optimizer, dtype, scaler)
    if loss.isnan():
        raise ValueError("nan")
    return loss


@wrong("amp_step", says="waits for the chip in every step")
def keeps_a_history(model, X, y, optimizer, dtype, scaler=None):
    loss = _amp(model, X, y, optimizer, dtype, scaler)
    history = loss.tolist()
    return loss if history else None


@wrong("amp_step", says="asked dtype")
def always_bfloat(model, X, y, optimizer, dtype, scaler=None):
    return _amp(model, X, y, optimizer, torch.bfloat16, scaler)


@wrong("amp_step", says="X_BD.device.type")
def always_the_cpu(model, X, y, optimizer, dtype, scaler=None):
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=dtype):
        loss = F.cross_entropy(model(X), y)
    loss.backward()
    optimizer.step()
    return loss.detach()


@wrong("amp_step", says="not the scaled one")
def returns_the_scaled_loss(model, X, y, optimizer, dtype, scaler=None):
    loss = _amp(model, X, y, optimizer, dtype, scaler)
    return loss if scaler is None else loss * scaler.scale


@wrong("amp_step", says="zero_grad() comes first")
def clears_at_the_end(model, X, y, optimizer, dtype, scaler=None):
    loss = _amp(model, X, y, optimizer, dtype, scaler, zero=False)
    optimizer.zero_grad()
    return loss


# ---- saved_bytes ----


def _saved(model, X):
    found = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: found.append(t) or t, lambda t: t
    ):
        out = model(X)
    return found, {p.data_ptr() for p in model.parameters()}, out


@wrong("saved_bytes", says="Twice counted, and the weights")
def everything(model, X):
    return sum(t.nbytes for t in _saved(model, X)[0])


@wrong("saved_bytes", says="counted twice")
def each_time(model, X):
    found, weights, _ = _saved(model, X)
    return sum(t.nbytes for t in found if t.data_ptr() not in weights)


@wrong("saved_bytes", says="weights are counted as well")
def with_weights(model, X):
    found, _, out = _saved(model, X)
    return sum({t.data_ptr(): t.nbytes for t in found}.values())


@wrong("saved_bytes", says="numbers, not bytes")
def numbers(model, X):
    found, weights, out = _saved(model, X)
    kept = {t.data_ptr(): t.numel() for t in found if t.data_ptr() not in weights}
    return sum(kept.values())


@wrong("saved_bytes", says="element_size()")
def four_bytes_always(model, X):
    return 4 * numbers(model, X)


@wrong("saved_bytes", says="what nobody saves")
def all_outputs(model, X):
    total = 0
    for layer in model:
        X = layer(X)
        total += X.nbytes
    return total


@wrong("saved_bytes", says="input is missing")
def without_the_input(model, X):
    found, weights, out = _saved(model, X)
    skip = weights | {X.data_ptr()}
    kept = {t.data_ptr(): t.nbytes for t in found if t.data_ptr() not in skip}
    return sum(kept.values())


@wrong("saved_bytes", says="know it by its data_ptr()")
def known_by_id(model, X):
    found, weights, _ = _saved(model, X)
    kept = {id(t): t.nbytes for t in found if t.data_ptr() not in weights}
    return sum(kept.values())


@wrong("saved_bytes", says="any number of axes")
def matrices_only(model, X):
    found, weights, _ = _saved(model, X)
    found = [t for t in found if t.dim() == 2 and t.data_ptr() not in weights]
    return sum({t.data_ptr(): t.nbytes for t in found}.values())


@wrong("saved_bytes", says="left in eval mode")
def switches_to_eval(model, X):
    return profiling.saved_bytes(model.eval(), X)


@wrong("saved_bytes", says="nothing is asked of backward")
def runs_backward(model, X):
    model(X).sum().backward()
    return profiling.saved_bytes(model, X)


# ---- step_bytes ----


def _bytes(widths, B, states=2, bias=1, size=4):
    P = sum((D + bias) * H for D, H in zip(widths, widths[1:]))
    return {
        "weights": size * P,
        "gradients": size * P,
        "optimizer": size * states * P,
        "activations": 4 * B * sum(widths),
    }


@wrong("step_bytes", says="constants (biases) are missing")
def no_biases(widths, B, states=2):
    return _bytes(widths, B, states, bias=0)


@wrong("step_bytes", says="numbers, not bytes")
def no_bytes(widths, B, states=2):
    return _bytes(widths, B, states, size=1)


@wrong("step_bytes", says="does not grow with the batch")
def gradient_a_row(widths, B, states=2):
    got = _bytes(widths, B, states)
    return {**got, "gradients": B * got["gradients"]}


@wrong("step_bytes", says="depends on `states`")
def always_adam(widths, B, states=2):
    return _bytes(widths, B)


@wrong("step_bytes", says="last width counts")
def without_the_loss(widths, B, states=2):
    return {**_bytes(widths, B, states), "activations": 4 * B * sum(widths[:-1])}


@wrong("step_bytes", says="first layer keeps it")
def input_left_out(widths, B, states=2):
    return {**_bytes(widths, B, states), "activations": 4 * B * sum(widths[1:])}


@wrong("step_bytes", says="batch is missing")
def one_row(widths, B, states=2):
    return {**_bytes(widths, B, states), "activations": 4 * sum(widths)}


@wrong("step_bytes", says="same memory")
def relu_twice(widths, B, states=2):
    act = 4 * B * (sum(widths) + sum(widths[1:-1]))
    return {**_bytes(widths, B, states), "activations": act}


@wrong("step_bytes", says="four names")
def one_number(widths, B, states=2):
    return sum(_bytes(widths, B, states).values())


# ---- step_flops ----


def _products(widths, B):
    return [2 * B * D * H for D, H in zip(widths, widths[1:])]


@wrong("step_flops", says="Nobody asks for the gradient of the input")
def three_for_all(widths, B):
    return 3 * sum(_products(widths, B))


@wrong("step_flops", says="forward pass alone")
def forward(widths, B):
    return sum(_products(widths, B))


@wrong("step_flops", says="two operations")
def multiplications(widths, B):
    return profiling.step_flops(widths, B) // 2


@wrong("step_flops", says="batch is missing")
def of_one_row(widths, B):
    return profiling.step_flops(widths, 1)


@wrong("step_flops", says="first layer that saves")
def last_saves(widths, B):
    return 3 * sum(_products(widths, B)) - _products(widths, B)[-1]


@wrong("step_flops", says="backward pass alone")
def backward(widths, B):
    return profiling.step_flops(widths, B) - sum(_products(widths, B))


@wrong("step_flops", says="Three products a layer")
def three_layers_at_most(widths, B):
    pairs = _products(widths, B)
    return 2 * pairs[0] + 3 * sum(pairs[1:3])


# ---- idle_share ----


@wrong("idle_share", says="not its share")
def idle_time(spans):
    return profiling.idle_share(spans) * (
        max(e for _, e in spans) - min(s for s, _ in spans)
    )


@wrong("idle_share", says="durations do not add up")
def adds_durations(spans):
    length = max(e for _, e in spans) - min(s for s, _ in spans)
    return max(0.0, 1 - sum(e - s for s, e in spans) / length)


@wrong("idle_share", says="moved the end back")
def forgets_the_long_one(spans):
    spans = sorted(spans)
    first = until = spans[0][0]
    idle = 0.0
    for start, end in spans:
        idle += max(0.0, start - until)
        until = end
    return idle / (until - first)


@wrong("idle_share", says="need not be in order")
def takes_the_order(spans):
    first = until = spans[0][0]
    idle = 0.0
    for start, end in spans:
        idle += max(0.0, start - until)
        until = max(until, end)
    return idle / (until - first)


@wrong("idle_share", says="count from the first start")
def from_zero(spans):
    return profiling.idle_share([(0.0, 0.0), *spans])


@wrong("idle_share", says="idle over busy")
def idle_over_busy(spans):
    idle = profiling.idle_share(spans)
    return 2 * idle / (1.5 - idle)


@wrong("idle_share", says="not at whole seconds")
def whole_seconds(spans):
    first, last = min(s for s, _ in spans), max(e for _, e in spans)
    ticks = range(int(first), int(last))
    return 1 - sum(any(a <= t < b for a, b in spans) for t in ticks) / len(ticks)


# ---- Work ----


@wrong("Work", says="Nothing is counted")
class counts_nothing(profiling.Work):
    def note(self, name, args, out):
        return None


@wrong("Work", says="These are the calls")
class counts_results(profiling.Work):
    def note(self, name, args, out):
        super().note(name, args, torch.zeros(()) if name != "_to_copy" else out)


@wrong("Work", says="These are bytes: writes")
class writes_in_bytes(profiling.Work):
    def note(self, name, args, out):
        super().note(name, args, out)
        if isinstance(out, torch.Tensor):
            self.writes += out.numel() * (out.element_size() - 1)


@wrong("Work", says="crosses no wire")
class casts_are_copies(profiling.Work):
    def note(self, name, args, out):
        super().note(name, args, out)
        if name == "_to_copy" and out.dtype != args[0].dtype:
            self.copies, self.bytes = self.copies + 1, self.bytes + args[0].nbytes


@wrong("Work", says="whatever the dtype does")
class dtype_alone(profiling.Work):
    def note(self, name, args, out):
        copies, size = self.copies, self.bytes
        super().note(name, args, out)
        if name == "_to_copy" and out.dtype != args[0].dtype:
            self.copies, self.bytes = copies, size


@wrong("Work", says="times element_size()")
class copies_in_numbers(profiling.Work):
    def note(self, name, args, out):
        size = self.bytes
        super().note(name, args, out)
        if self.bytes > size:
            self.bytes = size + args[0].numel()


@wrong("Work", says="Count what leaves")
class bytes_of_the_result(profiling.Work):
    def note(self, name, args, out):
        size = self.bytes
        super().note(name, args, out)
        if self.bytes > size:
            self.bytes = size + out.numel() * out.element_size()


@wrong("Work", says="whoever calls it")
class only_item(profiling.Work):
    def note(self, name, args, out):
        super().note(name.replace("_local_scalar_dense", "item_"), args, out)
        self.syncs += name == "item"


@wrong("Work", says="may be a tuple")
class takes_all_for_a_tensor(profiling.Work):
    def note(self, name, args, out):
        super().note(name, args, out)
        if name == "split":
            self.calls += len(out) - 1


@wrong("Work", says="has 8 bytes")
class four_bytes_a_number(profiling.Work):
    def note(self, name, args, out):
        size = self.bytes
        super().note(name, args, out)
        if self.bytes > size:
            self.bytes = size + 4 * args[0].numel()


@wrong("Work", says="Not every result that is no tensor is a wait")
class no_tensor_is_a_wait(profiling.Work):
    def note(self, name, args, out):
        super().note("" if name == "_local_scalar_dense" else name, args, out)
        self.syncs += not isinstance(out, torch.Tensor)


@wrong("Work", says="True and False are written")
class writes_of_floats(profiling.Work):
    def note(self, name, args, out):
        writes = self.writes
        super().note(name, args, out)
        if isinstance(out, torch.Tensor) and not out.is_floating_point():
            self.writes = writes


# ---- train_fast ----


def _left(*bugs):
    def train(model, train, valid, price_C, device, epochs=2, B=32):
        return planted(model, train, valid, price_C, device, epochs, B, bugs)

    train.__name__ = "still_" + "_".join(map(str, bugs))
    return train


for bugs, says in [
    ((1,), "5 of 6 are repaired. Still there: scaling all rows"),
    ((2,), "5 of 6 are repaired. Still there: fetching rows one at a time"),
    ((3,), "5 of 6 are repaired. Still there: sending float64"),
    ((4,), "5 of 6 are repaired. Still there: sending what never changes"),
    ((5,), "5 of 6 are repaired. Still there: fetching every loss"),
    ((6,), "5 of 6 are repaired. Still there: a graph for the validation"),
    ((1, 2, 3, 4, 5, 6), "0 of 6 are repaired"),
]:
    wrong("train_fast", says=says)(_left(*bugs))


def _fast(model, train, valid, price_C, device, epochs=2, B=32):
    return planted(model, train, valid, price_C, device, epochs, B, ())


@wrong("train_fast", says="scaled by the training rows")
def scales_by_its_own_batch(model, train, valid, price_C, device, epochs=2, B=32):
    (X, y), (V, w) = train, valid
    X = torch.cat([(b - b.mean()) / b.std() for b in X.split(B)])
    return _fast(model, (X, y), valid, price_C, device, epochs, B)


@wrong("train_fast", says="computes something else now")
def forgets_the_price(model, train, valid, price_C, device, epochs=2, B=32):
    return _fast(model, train, valid, torch.ones(10), device, epochs, B)


@wrong("train_fast", says="still tensors")
def tensors_come_back(model, train, valid, price_C, device, epochs=2, B=32):
    losses, right = _fast(model, train, valid, price_C, device, epochs, B)
    return [torch.tensor(v) for v in losses], right


@wrong("train_fast", says="validation says something else")
def no_validation(model, train, valid, price_C, device, epochs=2, B=32):
    losses, right = _fast(model, train, valid, price_C, device, epochs, B)
    return losses, [0.0] * epochs


@wrong("train_fast", says="never crossed the wire")
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


@wrong("train_fast", says="that was handed in")
def trains_a_copy(model, train, valid, price_C, device, epochs=2, B=32):
    import copy

    return _fast(copy.deepcopy(model), train, valid, price_C, device, epochs, B)


@wrong("train_fast", says="`epochs` is ignored")
def two_epochs(model, train, valid, price_C, device, epochs=2, B=32):
    return _fast(model, train, valid, price_C, device, 2, B)


@wrong("train_fast", says="`B` is ignored")
def thirty_two_rows(model, train, valid, price_C, device, epochs=2, B=32):
    return _fast(model, train, valid, price_C, device, epochs, 32)


@wrong("train_fast", says="last, shorter batch")
def whole_batches(model, train, valid, price_C, device, epochs=2, B=32):
    (X, y), n = train, len(train[0]) // B * B
    return _fast(model, (X[:n], y[:n]), valid, price_C, device, epochs, B)


@wrong("train_fast", says="their own mean and deviation")
def validation_by_itself(model, train, valid, price_C, device, epochs=2, B=32):
    (X, y), (V, w) = train, valid
    V = (V - V.mean()) / V.std() * X.std() + X.mean()
    return _fast(model, train, (V, w), price_C, device, epochs, B)


@wrong("train_fast", says="changed in place")
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
    wrong("train_fast", says="fetching every loss by itself")(_fetching(name, fetch))
