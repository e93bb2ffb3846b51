"""What chapter 13 builds: moving, timing and feeding a chip.

Everything runs on any device. Two things stand in for what a machine may lack and say so
in their names: `StandIn`, a thread in place of a GPU's queue, and `SlowDisk`, a pause in
place of a disk. Shapes: X (B, D) a batch of B rows, y (B,) its labels. A time or a number
that cannot be raises ValueError, what cannot be called TypeError.
"""

import multiprocessing
import queue
import statistics
import sys
import threading
import time
import warnings
from collections import namedtuple

import torch
from torch.utils.data import DataLoader, Dataset

from utils import given

# ---- where ----


def to_device(thing, device):
    "Tensors inside nested dicts, lists and tuples, moved to `device`; the rest as it is."
    device = _device(device)
    if isinstance(thing, torch.Tensor):
        return thing.to(device)
    if isinstance(thing, dict):
        return {name: to_device(value, device) for name, value in thing.items()}
    if isinstance(thing, tuple) and hasattr(thing, "_fields"):  # a namedtuple
        return type(thing)(*(to_device(value, device) for value in thing))
    if isinstance(thing, (list, tuple)):
        return type(thing)(to_device(value, device) for value in thing)
    return thing


def _device(asked):
    "A torch.device, or ValueError for what is none."
    try:
        return torch.device(asked)
    except (RuntimeError, TypeError):
        raise ValueError(f"{asked!r} is no device: cpu, cuda, mps, ...") from None


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
        given.function("call", call)
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
    device = _device(device)
    return Chip(device) if device.type in ("cuda", "mps") else StandIn()


def waiter(device):
    "The call that returns once `device` has done all its work; on a CPU it always has."
    device = _device(device)
    if device.type == "cpu":
        return lambda: None
    module = getattr(torch, device.type, None)
    if not hasattr(module, "synchronize"):
        raise ValueError(f"the device {device.type!r} has no queue to wait for")
    return module.synchronize


# ---- time ----


def samples(run, wait, repeats=7, warm_up=2, clock=time.perf_counter):
    """Seconds of each of `repeats` calls, awaited, after `warm_up` that do not count.

    run() launches, wait() returns when all is done, clock() is read in seconds.
    """
    given.whole("repeats", repeats)
    given.whole("warm_up", warm_up, least=0)
    for name, call in {"run": run, "wait": wait, "clock": clock}.items():
        given.function(name, call)
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
    "Median seconds of one call of `run`, work on the chip included: see samples."
    return statistics.median(samples(run, wait, repeats, warm_up, clock))


# ---- feeding ----


def step_seconds(load, copy, compute, workers=0, overlap=False):
    """Time between two training steps, once the pipeline is full.

    load, copy, compute: seconds a batch. workers: processes that load ahead; 0: the
    training process loads, and waits for each step. overlap: the next batch is copied
    while the chip computes, if there is a next batch: not without workers.
    """
    _parts(load, copy, compute, workers)
    if not workers:
        return load + copy + compute
    return max(load / workers, max(copy, compute) if overlap else copy + compute)


def _parts(load, copy, compute, workers):
    "ValueError for a negative time or a number of workers that is not whole."
    for name, value in {"load": load, "copy": copy, "compute": compute}.items():
        given.number(name, value)
    given.whole("workers", workers, least=0)


Span = namedtuple("Span", "lane batch start end")


def timeline(load, copy, compute, workers=0, overlap=False, batches=8, ahead=2):
    """Play `batches` through loader, wire and chip -> [Span(lane, batch, start, end)].

    Times as in step_seconds. ahead: batches that each worker may have ready. Lanes are
    "loader 0", ..., "wire", "chip".
    """
    _parts(load, copy, compute, workers)
    given.whole("batches", batches)
    given.whole("ahead", ahead)
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
        self.rows, self.pause = given.whole("rows", rows), given.number("pause", pause)

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

    step: called with each batch; options: the DataLoader's own. The workers live as long
    as this call. They are forked on Linux (so a notebook's own classes would do, too) and
    spawned elsewhere.
    """
    given.whole("batch_size", batch_size)
    given.whole("workers", workers, least=0)
    given.whole("epochs", epochs)
    if step is not None:
        given.function("step", step)
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
            # private: the public way is to wait for the garbage collector
            iterator = getattr(loader, "_iterator", None)
            if iterator is not None:
                iterator._shutdown_workers()
    return taken, count
