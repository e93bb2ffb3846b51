"""Measure this machine, once, and keep every sample: python3 start.py measure [NAME]

Writes utils/data/measurements/NAME.json: matrix products and copies in each number
format, the naive and the right timer, transfers, training steps, memory, the cost of a
launch, the loader; beside them the machine, the versions, the date, the commit and the
command. Chapter 13 shows every such file beside the machine it runs on.

  NAME          of the file, in a-z, 0-9 and - (default: from the chip's name)
  --device D    cuda, mps or cpu (default: the fastest here)
  --only WHAT   one kind of measurement; may be given several times
  --quick       small sizes, a few seconds
  --print       write to standard output, no file
"""

import argparse
import datetime
import json
import os
import re
import shlex
import sys
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from utils.bench import machine, recordings
from utils.built import gpu, precision, profiling
from utils.built.train import pick_device  # built in chapter 05
from utils.files import ROOT, write_whole

SIZES = {  # of the measurements: (matrix products, numbers in a copy, timed product)
    "cuda": {"matmul": (1024, 4096, 8192), "copy": 2**26, "timer": 4096},
    "mps": {"matmul": (512, 1024, 2048), "copy": 2**24, "timer": 1024},
    "cpu": {"matmul": (256, 512, 1024), "copy": 2**23, "timer": 512},
}
NETWORKS = {  # widths and rows of the training step that is measured
    "cuda": ([1024, 4096, 4096, 1000], 4096),
    "mps": ([256, 1024, 1024, 10], 512),
    "cpu": ([256, 1024, 1024, 10], 128),
}


class Device:
    "What the measurements ask of a device; tests put a fake in its place."

    def __init__(self, asked=None):
        self.device = pick_device(asked)
        self.kind = self.device.type
        self.wait = gpu.waiter(self.device)

    def pin(self, tensor):
        "A copy of a CPU tensor in page-locked memory, from which the chip can read alone."
        return tensor.pin_memory()

    def allocated(self):
        return torch.cuda.memory_allocated(self.device)

    def peak(self):
        return torch.cuda.max_memory_allocated(self.device)

    def reset_peak(self):
        torch.cuda.reset_peak_memory_stats(self.device)

    def accelerator(self):
        return machine.accelerator(self.device)


# ---- rows: {what, labels ..., work, unit, seconds: [...]} ----


def _row(what, run, wait, work=None, unit=None, repeats=7, **labels):
    taken = gpu.samples(run, wait, repeats=repeats)
    row = {"what": what, **labels}
    if work is not None:
        row |= {"work": work, "unit": unit}
    return {**row, "seconds": [float(f"{t:.4g}") for t in taken]}


def _formats(dev):
    "Number formats to measure: (name, dtype)."
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if dev.kind != "mps":
        names = {"fp64": torch.float64, **names}
    if dev.kind == "cuda":
        names["tf32"] = torch.float32
    return names.items()


class _Precision:
    "TF32 in fp32 matrix products while this is open, on devices that have it."

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        self.before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if self.name == "tf32" else "highest")

    def __exit__(self, *error):
        torch.set_float32_matmul_precision(self.before)


def matmul(dev, quick=False):
    "Square matrix products in every format: FLOP."
    sizes = SIZES[dev.kind]["matmul"]
    for name, dtype in _formats(dev):
        for n in sizes[:2] if quick else sizes:
            a = torch.randn(n, n).to(dtype).to(dev.device)
            out = torch.empty_like(a)
            with _Precision(name):
                yield _row("matmul", lambda a=a, out=out: torch.mm(a, a, out=out), dev.wait,
                           2 * n**3, "FLOP", format=name, size=n)  # fmt: skip


def copy(dev, quick=False):
    "Copies within the device's own memory: bytes read and written."
    numbers = SIZES[dev.kind]["copy"]
    for name, dtype in _formats(dev):
        if name == "tf32":
            continue
        x = torch.zeros(numbers // (8 if quick else 1), dtype=dtype, device=dev.device)
        out = torch.empty_like(x)
        yield _row("copy", lambda x=x, out=out: out.copy_(x), dev.wait,
                   2 * x.numel() * x.element_size(), "byte", format=name)  # fmt: skip


def timer(dev, quick=False):
    "The same matrix product, timed the naive and the right way."
    n = SIZES[dev.kind]["timer"]
    a = torch.randn(n, n, device=dev.device)
    out = torch.empty_like(a)
    for way, wait in (("naive", lambda: None), ("right", dev.wait)):
        dev.wait()
        yield _row("timer", lambda: torch.mm(a, a, out=out), wait, 2 * n**3, "FLOP",
                   way=way, size=n)  # fmt: skip
    dev.wait()


def transfer(dev, quick=False):
    "Copies between the CPU's memory and the device's; on a CPU, from memory to memory."
    for size in [2**12, 2**16, 2**20, 2**24, *([] if quick else [2**26])]:
        plain = torch.zeros(size, dtype=torch.uint8)
        there = torch.empty(size, dtype=torch.uint8, device=dev.device)
        for pinned in (False, True) if dev.kind == "cuda" else (False,):
            here = dev.pin(plain) if pinned else plain
            ways = {
                "to the device": lambda h=here, t=there: t.copy_(h),
                "from the device": lambda h=here, t=there: h.copy_(t),
            }
            if dev.kind == "cpu":
                ways = {"memory to memory": ways["to the device"]}
            for way, run in ways.items():
                yield _row("transfer", run, dev.wait, size, "byte", way=way,
                           pinned=pinned)  # fmt: skip
            if dev.kind == "cuda":  # how long Python is held up
                dev.wait()
                run = lambda h=here, t=there: t.copy_(h, non_blocking=True)  # noqa: E731
                yield _row("transfer", run, lambda: None, size, "byte",
                           way="to the device, until non_blocking returns",
                           pinned=pinned)  # fmt: skip
                dev.wait()


def _model(dev, quick):
    "Widths, batch size, model, rows and labels of the training step that is measured."
    widths, B = ([64, 256, 256, 10], 128) if quick else NETWORKS[dev.kind]
    torch.manual_seed(0)
    layers = []
    for D, H in pairwise(widths[:-1]):
        layers += [nn.Linear(D, H), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1])).to(dev.device)
    X = torch.randn(B, widths[0]).to(dev.device)
    y = torch.randint(widths[-1], (B,)).to(dev.device)
    return widths, B, model, X, y


def step(dev, quick=False):
    "A training step in every precision: FLOP, and the loss after the same steps."
    for name, dtype in _formats(dev):
        if name == "fp64":
            continue
        widths, B, model, X, y = _model(dev, quick)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        scaler = precision.LossScaler() if name == "fp16" else None
        losses = []

        def run(name=name, dtype=dtype, model=model, X=X, y=y, optimizer=optimizer,
                scaler=scaler, losses=losses):  # fmt: skip
            if dtype == torch.float32:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(X), y)
                loss.backward()
                optimizer.step()
            else:
                loss = precision.amp_step(model, X, y, optimizer, dtype, scaler)
            losses.append(loss.detach())

        with _Precision(name):
            row = _row("step", run, dev.wait, profiling.step_flops(widths, B), "FLOP",
                       format=name, widths=widths, batch=B)  # fmt: skip
        yield {**row, "loss": [float(f"{v:.5g}") for v in torch.stack(losses).tolist()]}


def memory(dev, quick=False):
    "Bytes of a training step with Adam: predicted, and measured."
    widths, B, model, X, y = _model(dev, quick)
    predicted = profiling.step_bytes(widths, B, states=2)
    optimizer = torch.optim.Adam(model.parameters())
    cuda = dev.kind == "cuda"

    def one():
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(X), y).backward()
        optimizer.step()

    one()  # the libraries' own workspaces come with the first step
    size = lambda tensors: sum(t.numel() * t.element_size() for t in tensors)  # noqa: E731
    state = [v for s in optimizer.state.values() for v in s.values() if v.numel() > 1]
    measured = {
        "weights": size(model.parameters()),
        "gradients": size(p.grad for p in model.parameters()),
        "optimizer": size(state),
    }
    optimizer.zero_grad(set_to_none=True)
    if cuda:
        dev.wait()
        before = dev.allocated()
        loss = F.cross_entropy(model(X), y)
        measured["activations"] = dev.allocated() - before + size([X, y])
        del loss
        dev.reset_peak()
        one()
        dev.wait()
        peak = dev.peak()
    else:
        measured["activations"] = profiling.saved_bytes(_WithLoss(model, y), X)
        peak = None
    for part, amount in measured.items():
        yield {"what": "memory", "part": part, "predicted": predicted[part],
               "measured": int(amount), "widths": widths, "batch": B}  # fmt: skip
    if peak is not None:
        yield {"what": "memory", "part": "peak of a step", "predicted": sum(predicted.values()),
               "measured": int(peak), "widths": widths, "batch": B}  # fmt: skip


class _WithLoss(nn.Module):
    def __init__(self, model, y):
        super().__init__()
        self.model, self.y = model, y

    def forward(self, X):
        return F.cross_entropy(self.model(X), self.y)


def launch(dev, quick=False):
    "A thousand additions of one number: what an operator costs before it does any work."
    count = 100 if quick else 1000
    x = torch.zeros(1, device=dev.device)

    def run():
        for _ in range(count):
            x.add_(1)

    for way, wait in (("put into the queue", lambda: None), ("done", dev.wait)):
        dev.wait()
        yield _row("launch", run, wait, count, "launch", way=way)
    dev.wait()


def loader(dev, quick=False):
    "Rows a second: parsed one at a time, parsed once, and waiting for a slow disk."
    g = torch.Generator().manual_seed(0)
    rows = 256 if quick else 1024
    slow = gpu.TextDigits(torch.rand(rows, 64, generator=g).tolist(), [0] * rows)
    ready = gpu.Ready(slow)
    for way, dataset, options in (
        ("text, row by row", slow, {}),
        ("ready, batch by batch", ready, {"collate_fn": gpu.as_it_is}),
    ):
        taken = [gpu.drain(dataset, 64, **options)[0] for _ in range(5)]
        yield _passes(way, 0, rows, taken)
    disk = gpu.SlowDisk(128)
    for workers in (0, 2) if quick else (0, 2, 4):
        taken = [gpu.drain(disk, 16, workers, epochs=2)[0] for _ in range(3)]
        yield _passes("stand-in for a slow disk", workers, len(disk), taken)


def _passes(way, workers, rows, taken):
    seconds = [float(f"{t:.4g}") for t in taken]
    return {"what": "loader", "way": way, "workers": workers, "work": rows, "unit": "row",
            "seconds": seconds}  # fmt: skip


ALL = {
    f.__name__: f for f in (matmul, copy, timer, transfer, step, memory, launch, loader)
}


def record(dev=None, only=None, quick=False, tell=lambda text: None):
    "Measure -> the dictionary that the file holds."
    dev = dev or Device()
    unknown = set(only or ()) - set(ALL)
    if unknown:
        raise ValueError(
            f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(ALL)}"
        )
    rows, load = [], os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    for name, function in ALL.items():
        if only and name not in only:
            continue
        tell(f"{name} ...")
        rows += function(dev, quick)
    return {
        "format": recordings.FORMAT,
        "machine": machine.machine(dev),
        "date": f"{datetime.date.today():%Y-%m-%d}",
        "commit": machine.commit(),
        "quick": quick,
        "load_before": load
        and round(load, 1),  # processes that wanted a core: others' too
        "rows": rows,
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(
        "measure", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("name", nargs="?")
    parser.add_argument("--device")
    parser.add_argument("--only", action="append", choices=list(ALL))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--print", action="store_true")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    if options.name and not re.fullmatch(r"[a-z0-9-]+", options.name):
        parser.error(f"a name has a-z, 0-9 and - only, not {options.name!r}")
    try:
        dev = Device(options.device)
    except (ValueError, RuntimeError) as error:
        parser.error(str(error))
    told = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    data = record(dev, options.only, options.quick, told)
    data["command"] = shlex.join(["python3", "start.py", "measure", *arguments])
    if options.print:
        print(json.dumps(data, indent=1))
        return 0
    path = recordings.FOLDER / f"{options.name or recordings.name_of(data)}.json"
    path.parent.mkdir(exist_ok=True)
    write_whole(path, recordings.text_of(data))
    print(f"{recordings.describe(data)}\nwritten: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
