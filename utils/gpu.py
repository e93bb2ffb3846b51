"""What chapter 13 builds: moving, timing, feeding and counting the work of a chip.

Everything runs on any device. Two things stand in for what a machine may lack and say so
in their names: `StandIn`, a thread in place of a GPU's queue, and `SlowDisk`, a pause in
place of a disk. Shapes: X (B, D) a batch of B rows, y (B,) its labels.
"""

import contextlib
import multiprocessing
import os
import queue
import statistics
import sys
import threading
import time
import warnings
from collections import namedtuple
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset

# ---- where ----


def to_device(thing, device):
    "Tensors inside nested dicts, lists and tuples, moved to `device`; the rest as it is."
    if isinstance(thing, torch.Tensor):
        return thing.to(device)
    if isinstance(thing, dict):
        return {name: to_device(value, device) for name, value in thing.items()}
    if isinstance(thing, tuple) and hasattr(thing, "_fields"):  # a namedtuple
        return type(thing)(*(to_device(value, device) for value in thing))
    if isinstance(thing, (list, tuple)):
        return type(thing)(to_device(value, device) for value in thing)
    return thing


class StandIn:
    """A stand-in for a GPU: a thread that works through a queue, in order.

    launch(call) returns at once, wait() when all is done, as on a real one. It is no
    faster than the CPU, for it is the CPU. An error of a call is raised by wait().
    """

    name = "stand-in (a thread on the CPU)"

    def __init__(self):
        self.orders, self.error = queue.SimpleQueue(), None
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self):
        while (call := self.orders.get()) is not None:
            try:
                call()
            except BaseException as error:
                self.error = self.error or error

    def launch(self, call):
        if not self.thread.is_alive():
            raise RuntimeError("this stand-in was closed: make a new one")
        self.orders.put(call)

    def wait(self):
        done = threading.Event()
        self.launch(done.set)
        done.wait()
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def close(self):
        self.orders.put(None)
        self.thread.join()


class Chip:
    "A real CUDA or MPS device behind the same three calls."

    def __init__(self, device):
        self.module = getattr(torch, device.type)
        self.name = device.type
        if device.type == "cuda":
            self.name = torch.cuda.get_device_name(device)

    def launch(self, call):
        call()  # PyTorch itself only puts it into the device's queue

    def wait(self):
        self.module.synchronize()

    def close(self):
        pass


def chip(device):
    "What launches and waits on `device`: a Chip, or on a CPU the StandIn."
    device = torch.device(device)
    return Chip(device) if device.type in ("cuda", "mps") else StandIn()


def waiter(device):
    "The call that returns once `device` has done all its work; on a CPU it always has."
    module = getattr(torch, torch.device(device).type)
    return module.synchronize if torch.device(device).type != "cpu" else lambda: None


# ---- time ----


def samples(run, wait, repeats=7, warm_up=2, clock=time.perf_counter):
    "Seconds of each of `repeats` calls, awaited, after `warm_up` that do not count."
    if repeats < 1:
        raise ValueError(f"repeats is at least 1, not {repeats}")
    for _ in range(warm_up):
        run()
    wait()
    taken = []
    for _ in range(repeats):
        start = clock()
        run()
        wait()
        taken.append(clock() - start)
    return taken


def seconds(run, wait, repeats=7, warm_up=2, clock=time.perf_counter):
    "Median time of one call of `run`, work on the chip included."
    return statistics.median(samples(run, wait, repeats, warm_up, clock))


# ---- feeding ----


def step_seconds(load, copy, compute, workers=0, overlap=False):
    """Time between two training steps, once the pipeline is full.

    load, copy, compute: seconds a batch. workers: processes that load ahead; 0: the
    training process loads, and waits for each step. overlap: the next batch is copied
    while the chip computes, if there is a next batch: not without workers.
    """
    if not workers:
        return load + copy + compute
    return max(load / workers, max(copy, compute) if overlap else copy + compute)


Span = namedtuple("Span", "lane batch start end")


def timeline(load, copy, compute, workers=0, overlap=False, batches=8, ahead=2):
    """Play `batches` through loader, wire and chip -> [Span(lane, batch, start, end)].

    ahead: batches that each worker may have ready. Lanes are "loader 0", ..., "wire",
    "chip".
    """
    free, spans, taken = [0.0] * max(workers, 1), [], []
    wire = chip = 0.0
    for batch in range(batches):
        lane = batch % max(workers, 1)
        start = free[lane] if workers else max(wire, chip)
        if workers and batch >= ahead * workers:
            start = max(start, taken[batch - ahead * workers])
        ready = free[lane] = start + load
        spans.append(Span(f"loader {lane}", batch, start, ready))
        start = max(ready, wire) if overlap else max(ready, wire, chip)
        taken.append(start)
        wire = start + copy
        spans.append(Span("wire", batch, start, wire))
        start = max(wire, chip)
        chip = start + compute
        spans.append(Span("chip", batch, start, chip))
    return spans


class SlowDisk(Dataset):
    "A stand-in for a slow disk: every row costs a pause, in which the CPU is free."

    def __init__(self, rows, pause=0.002):
        self.rows, self.pause = rows, pause

    def __len__(self):
        return self.rows

    def __getitem__(self, i):
        time.sleep(self.pause)
        return torch.full((64,), float(i)), i % 10


class TextDigits(Dataset):
    "Rows kept as text: each is parsed and scaled anew whenever it is asked for."

    def __init__(self, X_ND, y_N):
        if len(X_ND) != len(y_N):
            raise ValueError(f"{len(X_ND)} rows and {len(y_N)} labels: one label a row")
        self.lines = [" ".join(f"{x:.4f}" for x in row) for row in X_ND]
        self.y_N = torch.as_tensor(y_N)
        self.parsed = 0  # how many rows have been parsed so far

    def parse(self, i):
        "Row i as a tensor (D,), from its text."
        self.parsed += 1
        return torch.tensor([float(word) for word in self.lines[i].split()])

    def __len__(self):
        return len(self.lines)

    def __getitem__(self, i):
        return (self.parse(i) - 0.3) / 0.4, self.y_N[i]


class Ready(Dataset):
    "The rows of a TextDigits, parsed and scaled once; a whole batch in one indexing."

    def __init__(self, slow):
        X_ND = torch.stack([slow.parse(i) for i in range(len(slow))])
        self.X_ND, self.y_N = (X_ND - 0.3) / 0.4, slow.y_N

    def __len__(self):
        return len(self.y_N)

    def __getitem__(self, i):
        return self.X_ND[i], self.y_N[i]

    def __getitems__(self, rows):
        "What a DataLoader asks for when it wants a batch: (B, D), (B,)."
        return self.X_ND[rows], self.y_N[rows]


def as_it_is(batch):
    "A collate function for datasets whose __getitems__ returns a finished batch."
    return batch


def drain(dataset, batch_size, workers=0, step=None, epochs=1, **options):
    """Seconds of the last of `epochs` passes through a DataLoader -> (seconds, batches).

    step: called with each batch. The workers live as long as this call. They are forked
    on Linux (so a notebook's own classes would do, too) and spawned elsewhere.
    """
    if workers:
        way = "fork" if sys.platform == "linux" else "spawn"
        options |= {
            "multiprocessing_context": multiprocessing.get_context(way),
            "persistent_workers": True,
        }
    with warnings.catch_warnings():
        # more workers than cores are meant: they wait for a disk, not for a core
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        # Python 3.12 on: a worker never uses the threads that it did not inherit
        warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
        loader = DataLoader(
            dataset, batch_size=batch_size, num_workers=workers, **options
        )
        try:
            for _ in range(epochs):
                count, start = 0, time.perf_counter()
                for batch in loader:
                    count += 1
                    if step is not None:
                        step(batch)
                taken = time.perf_counter() - start
        finally:
            iterator = getattr(loader, "_iterator", None)
            if (
                iterator is not None
            ):  # the public way is to wait for the garbage collector
                iterator._shutdown_workers()
    return taken, count


# ---- numbers ----

FORMATS = {  # name: exponent bits, fraction bits
    "fp32": (8, 23),
    "tf32": (8, 10),
    "bf16": (8, 7),
    "fp16": (5, 10),
    "e5m2": (5, 2),
    "e4m3": (4, 3),
}


def value_of(bits, E, M):
    "The number that 1 sign, E exponent and M fraction bits (a whole number) stand for."
    if not 0 <= bits < 2 ** (1 + E + M):
        raise ValueError(f"{bits} does not fit into {1 + E + M} bits")
    sign = -1.0 if bits >> (E + M) else 1.0
    exponent, fraction = (bits >> M) % 2**E, bits % 2**M
    bias = 2 ** (E - 1) - 1
    if exponent == 2**E - 1:
        return sign * float("inf") if fraction == 0 else float("nan")
    if exponent == 0:
        return sign * fraction / 2**M * 2.0 ** (1 - bias)
    return sign * (1 + fraction / 2**M) * 2.0 ** (exponent - bias)


def round_to(x, E, M):
    "float64 tensor -> the nearest numbers with E exponent and M fraction bits, in float64."
    bias = 2 ** (E - 1) - 1
    exponent = torch.frexp(x).exponent.double() - 1
    spacing = 2.0 ** (exponent.clamp(min=1 - bias) - M)
    rounded = torch.round(x / spacing) * spacing
    largest = (2 - 2.0**-M) * 2.0**bias
    return torch.where(rounded.abs() > largest, x.sign() * torch.inf, rounded)


DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "e5m2": torch.float8_e5m2,
    "e4m3": torch.float8_e4m3fn,
}


def bits_of(number, name):
    """A number in a format -> ("sign exponent fraction" in bits, the value they say).

    tf32 is fp32 rounded to 10 bits of fraction, as matrix units do with their inputs.
    """
    E, M = FORMATS[name]
    x = torch.tensor([number], dtype=torch.float64)
    if name == "tf32":
        x = round_to(x, E, M)
    x = x.float().to(DTYPES.get(name, torch.float32))
    width = 8 * x.element_size()
    whole = {8: torch.uint8, 16: torch.int16, 32: torch.int32}[width]
    bits = f"{x.view(whole).item() % 2**width:0{width}b}"[: 1 + E + M]
    return f"{bits[0]} {bits[1 : 1 + E]} {bits[1 + E :]}", x.double().item()


class LossScaler:
    """Multiplies the loss before backward, divides the gradients after it.

    A step whose gradients are not finite is left out, and the scale halves; after
    `patience` good steps in a row it doubles.
    """

    def __init__(self, scale=2.0**16, patience=2000):
        if not scale > 0 or patience < 1:
            raise ValueError(f"scale {scale} and patience {patience} must be positive")
        self.scale, self.patience, self.good = float(scale), patience, 0

    def backward(self, loss):
        (loss * self.scale).backward()

    def step(self, optimizer):
        "Unscale, step if all gradients are finite, adapt: -> whether it stepped."
        grads = [
            p.grad
            for group in optimizer.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        for grad in grads:
            grad.div_(self.scale)
        if not all(bool(grad.isfinite().all()) for grad in grads):
            self.scale, self.good = self.scale / 2, 0
            return False
        optimizer.step()
        self.good += 1
        if self.good == self.patience:
            self.scale, self.good = self.scale * 2, 0
        return True


def amp_step(model, X_BD, y_B, optimizer, dtype, scaler=None):
    "One training step in mixed precision -> the loss, a tensor without a graph."
    optimizer.zero_grad()
    with torch.autocast(X_BD.device.type, dtype=dtype):
        loss = F.cross_entropy(model(X_BD), y_B)
    if scaler is None:
        loss.backward()
        optimizer.step()
    else:
        scaler.backward(loss)
        scaler.step(optimizer)
    return loss.detach()


# ---- memory and work ----


def saved_bytes(model, X_BD):
    "Bytes that model(X) keeps for backward: each tensor once, the weights left out."
    weights = {p.data_ptr() for p in model.parameters()}
    kept = {}

    def note(tensor):
        if tensor.data_ptr() not in weights:
            size = tensor.numel() * tensor.element_size()
            kept[tensor.data_ptr()] = max(kept.get(tensor.data_ptr(), 0), size)
        return tensor  # kept alive by the graph: no other tensor gets its address

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(X_BD)
    return sum(kept.values())


def step_bytes(widths, B, states=2):
    """Bytes in one fp32 training step of an MLP with ReLUs between its linear layers.

    widths: features, hidden widths, classes. states: numbers that the optimiser keeps a
    weight (SGD 0, momentum 1, Adam 2).
    """
    P = sum((D + 1) * H for D, H in pairwise(widths))
    return {
        "weights": 4 * P,
        "gradients": 4 * P,
        "optimizer": 4 * states * P,
        "activations": 4 * B * sum(widths),
    }


def step_flops(widths, B):
    "Operations of the matrix products in one training step of an MLP."
    products = [2 * B * D * H for D, H in pairwise(widths)]
    return 3 * sum(products) - products[0]  # nobody asks for the gradient of the input


class Tally(TorchDispatchMode):
    """Six counters, and `note`, which is called once an operator, still to be written.

    calls: operators; writes: numbers in their results (views included); copies and
    bytes: tensors copied as they are or to another device; syncs: values that Python
    waits for; kept: bytes saved for a backward pass, weights left out (filled in here).
    """

    def __init__(self):
        super().__init__()
        self.calls = self.writes = self.copies = self.bytes = self.syncs = self.kept = 0
        self.depth = 0

    def note(self, name, args, out):
        "Count one operator by its name, its arguments and its result."
        raise NotImplementedError

    def counts(self):
        "The six counters as a dict."
        names = ("calls", "writes", "copies", "bytes", "syncs", "kept")
        return {name: getattr(self, name) for name in names}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # where .item() arrives in one piece
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        self.note(func.overloadpacket.__name__, args, out)
        return out

    def __enter__(self):
        if self.depth == 0:
            self.hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, _same)
            self.hooks.__enter__()
        self.depth += 1
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.depth -= 1
        if self.depth == 0:
            self.hooks.__exit__(*error)

    def _keep(self, tensor):
        base = tensor if tensor._base is None else tensor._base
        if not isinstance(base, nn.Parameter):
            self.kept += tensor.numel() * tensor.element_size()
        return tensor


def _same(tensor):
    return tensor


class Work(Tally):
    "Counts what a block of code asks of a device: see Tally."

    def note(self, name, args, out):
        self.calls += 1
        if isinstance(out, torch.Tensor):
            self.writes += out.numel()
        if name == "_to_copy":
            moved = out.device != args[0].device
            if moved or out.dtype == args[0].dtype:
                self.copies += 1
                self.bytes += args[0].numel() * args[0].element_size()
        if name == "_local_scalar_dense":
            self.syncs += 1


def idle_share(spans):
    "Share of the time from the first start to the last end in which no span is open."
    spans = sorted(spans)
    if not spans:
        raise ValueError("an empty trace has no first start and no last end")
    first = until = spans[0][0]
    idle = 0.0
    for start, end in spans:
        idle += max(0.0, start - until)
        until = max(until, end)
    return idle / (until - first) if until > first else 0.0


def trace(run, name):
    "Spans [(start, end)] in seconds of every record_function(name) during `run`."
    from torch.profiler import ProfilerActivity, profile

    with _quiet(), profile(activities=[ProfilerActivity.CPU]) as seen:
        run()
    return sorted(
        (e.time_range.start / 1e6, e.time_range.end / 1e6)
        for e in seen.events()
        if e.name == name
    )


@contextlib.contextmanager
def _quiet():
    "The profiler writes two lines of its own straight to the file of standard error."
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
