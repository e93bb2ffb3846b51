"""The device that is measured: its clock, its memory, its number formats, its deadline."""

import math
import time

import torch

from utils.bench import machine
from utils.built import gpu
from utils.built.train import pick_device  # built in chapter 05

ENOUGH = 2e-3  # seconds of work in one sample, so that the clock's own cost is small
MOST = 64  # calls in one sample


class Device:
    "What the measurements ask of a device; tests put a fake in its place."

    def __init__(self, asked=None):
        self.device = pick_device(asked)
        self.kind = self.device.type
        self.wait = gpu.waiter(self.device)
        self.deadline = math.inf  # of time.monotonic()

    def left(self):
        "Seconds until the deadline."
        return self.deadline - time.monotonic()

    def samples(self, run, repeats=7):
        """Seconds of one call of run(), `repeats` times, after a warm-up.

        On CUDA by the device's own clock, with the launches queued up beforehand: what
        the work takes, not what it takes to ask for it. Elsewhere by the CPU's.
        """
        if self.kind == "cuda":
            return queued(run, repeats)
        return gpu.samples(run, self.wait, repeats=repeats)

    def pin(self, tensor):
        "A copy of a CPU tensor in page-locked memory, from which the chip can read alone."
        return tensor.pin_memory()

    def allocated(self):
        return torch.cuda.memory_allocated(self.device)

    def peak(self):
        return torch.cuda.max_memory_allocated(self.device)

    def reset_peak(self):
        torch.cuda.reset_peak_memory_stats(self.device)

    def free(self):
        "Bytes that can still be had, after giving back what PyTorch holds unused."
        if self.kind != "cuda":
            return 2**30
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self.device)[0]

    def accelerator(self):
        return machine.accelerator(self.device)

    def loaded_clocks(self):
        "Clocks and watts in the midst of a second of large bf16 products; None off CUDA."
        if self.kind != "cuda":
            return None
        a = torch.randn(8192, 8192, device=self.device).to(torch.bfloat16)
        out = torch.empty_like(a)
        for _ in range(700):
            torch.mm(a, a, out=out)
        seen = machine.clocks()
        self.wait()
        return seen


def queued(run, repeats):
    "Seconds of one call by CUDA's events: several calls a sample, behind a pause."
    for _ in range(2):
        run()
    torch.cuda.synchronize()
    ask, whole = math.inf, math.inf
    for _ in range(3):
        start = time.perf_counter()
        run()
        asked = time.perf_counter() - start
        torch.cuda.synchronize()
        whole, ask = min(whole, time.perf_counter() - start), min(ask, asked)
    calls = max(1, min(MOST, math.ceil(ENOUGH / whole)))
    pause = min(
        int((2 * ask * calls + 5e-5) * 2e9), 40_000_000
    )  # ticks of about 0.5 ns
    marks = [
        [torch.cuda.Event(enable_timing=True) for _ in "ab"] for _ in range(repeats)
    ]
    for before, after in marks:
        torch.cuda._sleep(pause)  # private: the queue fills while the chip waits
        before.record()
        for _ in range(calls):
            run()
        after.record()
        torch.cuda.synchronize()
    return [before.elapsed_time(after) / 1e3 / calls for before, after in marks]


def digits(taken):
    "Seconds as a recording keeps them: 4 digits."
    return [float(f"{t:.4g}") for t in taken]


def row(dev, what, run, work=None, unit=None, repeats=7, samples=None, **labels):
    "Measure run() -> a row; samples: another way to take its seconds."
    made = {"what": what, **labels}
    if work is not None:
        made |= {"work": work, "unit": unit}
    return {**made, "seconds": digits((samples or dev.samples)(run, repeats))}


def clocked(wait):
    "samples for row() by the CPU's clock: what a program sees that waits so."
    return lambda run, repeats: gpu.samples(run, wait, repeats=repeats)


def left_out(what, why, **labels):
    "A row for what was not measured, with the reason in a line."
    if isinstance(why, BaseException):
        first = str(why).strip().splitlines() or [""]
        why = f"{type(why).__name__}: {first[0]:.200}"
    return {"what": what, **labels, "why": why}


def in_turns(dev, runs, repeats=7):
    "{name: seconds}: every run() has its turn in each round, so that all share the heat."
    taken = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            taken[name] += dev.samples(run, 1)
    return {name: digits(seconds) for name, seconds in taken.items()}


def formats(dev):
    "Number formats to measure: (name, dtype)."
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if dev.kind != "mps":
        names = {"fp64": torch.float64, **names}
    if dev.kind == "cuda":
        names["tf32"] = torch.float32
    return names.items()


class Precision:
    "TF32 in fp32 matrix products while this is open, on devices that have it."

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        self.before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if self.name == "tf32" else "highest")

    def __exit__(self, *error):
        torch.set_float32_matmul_precision(self.before)
