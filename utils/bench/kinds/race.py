"""Check kernels against a reference, then time them beside the library's, in turns.

A launch is (kernel, grid, arguments, options); a candidate (by, config, launches).
"""

import math
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from utils.bench.kinds.device import in_turns, left_out

NEAR = 1e-2  # relative error of a bf16 result: rounding alone makes 2e-3


def _go(launches):
    "The call that makes these launches."

    def run():
        for fn, grid, arguments, options in launches:
            fn[grid](*arguments, **options)

    return run


def build(launches):
    "Compile all of them side by side, so that the first launch of each need not."
    import triton

    workers = max(2, min(12, (os.cpu_count() or 2) - 2))
    made = []
    # what does not compile is passed over here: it fails again, by name, at its launch
    with (
        suppress(Exception),
        ThreadPoolExecutor(workers) as pool,
        triton.AsyncCompileMode(pool, ignore_errors=True),
    ):
        for fn, grid, arguments, options in launches:
            made.append(fn.warmup(*arguments, grid=grid, **options))
    with suppress(Exception), ThreadPoolExecutor(workers) as pool:
        ready = [m.result(True) if hasattr(m, "result") else m for m in made]
        for each in ready:  # its launcher is compiled, too, by a C compiler
            pool.submit(getattr, each, "run", None)


def _compiler(launch):
    "What the compiler says of one launch: {registers, local_bytes, shared_bytes, ...}."
    fn, grid, arguments, options = launch
    made = fn[grid](*arguments, **options)
    if made is None or not hasattr(made, "metadata"):
        return {}
    ptx = made.asm.get("ptx", "")
    return {
        "registers": made.n_regs, "local_bytes": 4 * made.n_spills,
        "shared_bytes": made.metadata.shared, "wgmma": ptx.count("wgmma.mma_async"),
        "bulk_copies": ptx.count("cp.async.bulk.tensor"),
    }  # fmt: skip


def _error(got, want):
    "Relative error of tensors, as one; nan where a number was not written."
    gap = sum((g.float() - w.float()).square().sum().item() for g, w in zip(got, want))
    return math.sqrt(gap / sum(w.float().square().sum().item() for w in want))


def _checked(dev, launches, got, want, labels):
    "-> what the compiler says and the error, or a row of what is left out."
    try:
        for tensor in got:
            tensor.fill_(float("nan"))
        said = [_compiler(launch) for launch in launches]
        said = {"compiler": said} if len(said) > 1 else said[0]
        _go(launches)()
        dev.wait()
        error = _error(got, want)
    except Exception as problem:
        return left_out("kernel", problem, **labels)
    if not error < NEAR:
        return left_out("kernel", f"wrong: relative error {error:.2g}", **labels)
    return {**said, "relative_error": float(f"{error:.2g}")}


def _library(dev, runs):
    "Those of the library's runs that this machine can do."
    able = {}
    for name, run in runs.items():
        try:
            run()
            dev.wait()
            able[name] = run
        except RuntimeError:
            continue
    return able


def _rows(dev, runs, labels, work, unit, repeats=7):
    "Time all runs in turns -> their rows; labels: {name: labels}."
    turns = in_turns(dev, runs, repeats)
    return [
        {"what": "kernel", **labels[name], "work": work, "unit": unit, "seconds": taken}
        for name, taken in turns.items()
    ]


def best(rows, names):
    "The row with the least median among those whose `by` is in names; None without one."
    mine = [r for r in rows if r["by"] in names]
    return min(mine, key=lambda r: statistics.median(r["seconds"]), default=None)


def race(dev, candidates, theirs, got, want, labels, work, unit):
    """Check and time candidates [(by, config, launches)] and theirs {by: run}.

    -> rows, and the rows of what is left out. Shared by every part.
    """
    runs, told, out = {}, {}, []
    for number, (by, config, launches) in enumerate(candidates):
        mine = {**labels, "by": by, "config": config}
        said = _checked(dev, launches, got, want, mine)
        if "why" in said:
            out.append(said)
            continue
        runs[number], told[number] = _go(launches), {**mine, **said}
    for by, run in _library(dev, theirs).items():
        runs[by], told[by] = run, {**labels, "by": by}
    return _rows(dev, runs, told, work, unit), out
