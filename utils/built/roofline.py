"""What chapter 11 builds: what a machine can do at most, and what a program may expect.

P is a chip's rate in FLOP per second, beta its bandwidth in bytes per second, `size` the
bytes of one number. Bytes are counted as a model counts them: each input is read once, each
output written once. What cannot be raises ValueError, what cannot be called TypeError.

The roofline is Williams, Waterman and Patterson's (2009).
"""

import math
import time
from collections import OrderedDict

from utils import given


def rate(run, work, clock=time.perf_counter, budget=0.3):
    "Work per second in the best tenth of many short calls of run()."
    given.function("run", run)
    given.number("work", work, above=0)
    given.number("budget", budget)
    run()
    taken, end = [], clock() + budget
    while not taken or clock() < end:
        start = clock()
        run()
        taken.append(clock() - start)
    best = sorted(taken)[len(taken) // 10]
    if not best > 0:
        raise ValueError("the clock did not move during a call: call something longer")
    return work / best


PIECE, PIECES = 2**18, 32  # numbers in a piece, pieces in an array: 32 MiB


def limits(budget=0.2):
    "This machine's FLOP/s (a product of 256) and bytes/s (add through 96 MiB), fp32."
    import torch

    a, out = torch.randn(256, 256), torch.empty(256, 256)
    x, y, z = (torch.randn(PIECES, PIECE) for _ in range(3))
    at = iter(range(10**9))

    def add():
        i = next(at) % PIECES
        torch.add(x[i], y[i], out=z[i])

    P = rate(lambda: torch.mm(a, a, out=out), 2 * 256**3, budget=budget)
    return P, rate(add, 12 * PIECE, budget=budget)


KINDS = {"add": 1, "relu": 1, "sum": 1, "matmul": 3, "conv": 6}  # sizes in a shape


def work_of(kind, shape, size=4):
    """(FLOP, bytes) of an operator on numbers of `size` bytes.

    add, relu, sum (n,); matmul (M, K, N); conv (B, C, H, W, O, k), which keeps H and W.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    if len(shape) != KINDS[kind]:
        raise ValueError(f"{kind} has a shape of {KINDS[kind]} sizes, not {shape!r}")
    for number in (*shape, size):
        given.whole("each size", number)
    if kind in ("add", "relu", "sum"):
        (n,) = shape
        return n, size * {"add": 3 * n, "relu": 2 * n, "sum": n + 1}[kind]
    if kind == "matmul":
        M, K, N = shape
        return 2 * M * K * N, size * (M * K + K * N + M * N)
    B, C, H, W, out, k = shape
    numbers = B * C * H * W + out * C * k * k + B * out * H * W
    return 2 * B * out * H * W * C * k * k, size * numbers


def predicted(flop, byte, P, beta):
    "(seconds, who sets them: 'compute' or 'memory'): the roofline."
    for name, value in {"flop": flop, "byte": byte}.items():
        given.number(name, value)
    for name, value in {"P": P, "beta": beta}.items():
        given.number(name, value, above=0)
    compute, memory = flop / P, byte / beta
    return max(compute, memory), "compute" if compute > memory else "memory"


def critical_batch(D, H, size, P, beta):
    "The fewest rows B for which (B, D)(D, H) waits for arithmetic; None where none do."
    for name, value in {"D": D, "H": H, "size": size}.items():
        given.whole(name, value)
    for name, value in {"P": P, "beta": beta}.items():
        given.number(name, value, above=0)
    gain = 2 * D * H * beta - size * P * (D + H)
    return math.ceil(size * P * D * H / gain) if gain > 0 else None


def misses(addresses, lines, line=64):
    "How many addresses a cache of `lines` lines does not hold; the oldest use goes."
    given.whole("lines", lines)
    given.whole("line", line)
    held, count = OrderedDict(), 0
    for address in addresses:
        at = address // line
        if at in held:
            held.move_to_end(at)
            continue
        count += 1
        held[at] = True
        if len(held) > lines:
            held.popitem(last=False)
    return count


def break_even(raw, packed, unpack, overlap=False):
    """Bytes per second of a disk above which the raw file is read sooner than the packed.

    raw, packed: bytes of the two files; unpack: raw bytes made per second; overlap: one
    part is unpacked while the next is read. 0.0 where packing never pays.
    """
    for name, value in {"raw": raw, "packed": packed, "unpack": unpack}.items():
        given.number(name, value, above=0)
    if packed >= raw:
        return 0.0
    return float(unpack) if overlap else (raw - packed) * unpack / raw


def busy(warps, compute, latency):
    "Share of its time that a core works: warps take turns of `compute`, then wait."
    given.whole("warps", warps)
    given.number("compute", compute, above=0)
    given.number("latency", latency)
    return min(1.0, warps * compute / (compute + latency))


def pareto(rows, better):
    """The rows that no other beats: as good in every key, and better in one.

    better: {key: +1 where more is better, -1 where less is}. A row without one of the
    figures (None) is left out; equals stay together.
    """
    if not better or any(sign not in (1, -1) for sign in better.values()):
        raise ValueError(f"better is {{key: +1 or -1}}, not {better!r:.60}")
    known = [row for row in rows if all(row[key] is not None for key in better)]
    points = [[sign * row[key] for key, sign in better.items()] for row in known]

    def beaten(p):
        return any(q != p and all(b >= a for a, b in zip(p, q)) for q in points)

    return [row for row, p in zip(known, points) if not beaten(p)]
