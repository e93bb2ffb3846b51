"""How fast this chip is, and what a program on it waits for: chapter 13's measurements."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from utils.bench.kinds.device import Precision, clocked, digits, formats, left_out, row
from utils.built import gpu, precision, profiling

SIZES = {  # of the measurements: (matrix products, numbers in a copy, timed product)
    "cuda": {
        "matmul": (256, 512, 1024, 2048, 4096, 8192),
        "copy": 2**26,
        "timer": 4096,
    },
    "mps": {"matmul": (256, 512, 1024, 2048), "copy": 2**24, "timer": 1024},
    "cpu": {"matmul": (256, 512, 1024), "copy": 2**23, "timer": 512},
}
NETWORKS = {  # widths and rows of the training step that is measured
    "cuda": ([1024, 4096, 4096, 1000], 4096),
    "mps": ([256, 1024, 1024, 10], 512),
    "cpu": ([256, 1024, 1024, 10], 128),
}


def matmul(dev, quick=False):
    "Square matrix products in every format: FLOP."
    sizes = SIZES[dev.kind]["matmul"]
    sizes = sizes[:2] if quick else sizes
    for name, dtype in formats(dev):
        for n in sizes:
            a = torch.randn(n, n, device=dev.device).to(dtype)
            out = torch.empty_like(a)
            with Precision(name):
                yield row(dev, "matmul", lambda a=a, out=out: torch.mm(a, a, out=out),
                          2 * n**3, "FLOP", format=name, size=n)  # fmt: skip
    for n in sizes:
        try:
            run = _fp8(dev, n)
            yield row(dev, "matmul", run, 2 * n**3, "FLOP", format="fp8", size=n)
        except (RuntimeError, NotImplementedError, AttributeError) as error:
            yield left_out("matmul", error, format="fp8")
            break


def _fp8(dev, n):
    "A product of two fp8 (e4m3) matrices with a bf16 result, on chips that have it."
    if dev.kind == "cpu":
        raise NotImplementedError("no fp8 matrix units are used on a CPU")
    a, b = (torch.randn(n, n, device=dev.device).to(torch.float8_e4m3fn) for _ in "ab")
    one = torch.ones((), device=dev.device)
    return lambda: torch._scaled_mm(
        a,
        b.t(),
        scale_a=one,
        scale_b=one,
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )


def copy(dev, quick=False):
    "Copies within the device's own memory: bytes read and written."
    numbers = SIZES[dev.kind]["copy"]
    for name, dtype in formats(dev):
        if name == "tf32":
            continue
        x = torch.rand(numbers // (8 if quick else 1), device=dev.device).to(dtype)
        out = torch.empty_like(x)
        yield row(dev, "copy", lambda x=x, out=out: out.copy_(x),
                  2 * x.numel() * x.element_size(), "byte", format=name)  # fmt: skip


def timer(dev, quick=False):
    "The same matrix product, timed the naive and the right way."
    n = SIZES[dev.kind]["timer"]
    a = torch.randn(n, n, device=dev.device)
    out = torch.empty_like(a)
    for way, wait in (("naive", lambda: None), ("right", dev.wait)):
        dev.wait()
        yield row(dev, "timer", lambda: torch.mm(a, a, out=out), 2 * n**3, "FLOP",
                  samples=clocked(wait), way=way, size=n)  # fmt: skip
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
                yield row(dev, "transfer", run, size, "byte", way=way, pinned=pinned,
                          samples=clocked(dev.wait))  # fmt: skip
            if dev.kind == "cuda":  # how long Python is held up
                dev.wait()
                run = lambda h=here, t=there: t.copy_(h, non_blocking=True)  # noqa: E731
                yield row(dev, "transfer", run, size, "byte", pinned=pinned,
                          way="to the device, until non_blocking returns",
                          samples=clocked(lambda: None))  # fmt: skip
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
    for name, dtype in formats(dev):
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

        with Precision(name):
            made = row(dev, "step", run, profiling.step_flops(widths, B), "FLOP",
                       samples=clocked(dev.wait), format=name, widths=widths, batch=B)  # fmt: skip
        yield {
            **made,
            "loss": [float(f"{v:.5g}") for v in torch.stack(losses).tolist()],
        }


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
        yield row(dev, "launch", run, count, "launch", samples=clocked(wait), way=way)
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
    return {"what": "loader", "way": way, "workers": workers, "work": rows, "unit": "row",
            "seconds": digits(taken)}  # fmt: skip
