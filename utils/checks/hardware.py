"""Chapter 11: what a machine can do at most, and what a program may expect of it."""

import random

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from utils.exercises import Chapter, Miss, same

chapter = Chapter("11_hardware")


class Busy:
    "A program on a busy machine, and its clock, which only the program moves on."

    def __init__(self, first, durations):
        self.now, self.calls, self.first, self.durations = 1000.0, 0, first, durations

    def clock(self):
        return self.now

    def run(self):
        at = self.calls - 1
        self.now += self.first if at < 0 else self.durations[at % len(self.durations)]
        self.calls += 1


@chapter.exercise(
    "Call run() once and forget it. Then time every single call until the budget is used.",
    "Sort the times. The best tenth ends at place len(taken) // 10.",
    "run(); taken, end = [], clock() + budget; while not taken or clock() < end: start = "
    "clock(); run(); taken.append(clock() - start). return work / sorted(taken)[...]",
)
def rate(answer):
    "Work per second, from the best tenth of many short calls."
    slow = [11.0, 11.0, 2.0, 11.0, 3.0, 11.0, 11.0, 11.0, 2.5, 2.0]
    for case, first, durations, budget, want, rule in [
        ("every call takes 2 s", 2.0, [2.0], 50.0, 50.5, "Work over seconds of a call."),
        ("six calls of ten are interrupted", 2.0, slow, 500.0, 50.5,
         "Sort the single calls' times; the best tenth ends at place len(taken) // 10."),
        ("one call of thirty is a glitch of 0.1 s", 2.0, [0.1, *[2.0] * 19, *[5.0] * 10],
         600.0, 50.5, "The very best call may be a glitch: take place len(taken) // 10."),
        ("the first call takes 100 s, the others 2 s; budget 50 s", 100.0, [2.0], 50.0,
         50.5, "The first call warms up: neither its time nor its budget counts."),
        ("100 s for the first call, 20 s for the next, then 2 s; budget 50 s", 100.0,
         [20.0, *[2.0] * 20], 50.0, 50.5, "The clock of the budget starts after warm-up."),
        ("calls of 1, 2, 3 ... 90 s; budget 4,090 s", 1.0, [float(k) for k in range(1, 91)],
         4090.0, 10.1, "The best tenth ends at place len(taken) // 10 of the sorted times."),
        ("a budget of 0", 2.0, [4.0], 0.0, 25.25, "At least one call is timed."),
    ]:  # fmt: skip
        machine = Busy(first, durations)
        same(f"{case}: 101 units of work per call",
             answer(machine.run, 101, clock=machine.clock, budget=budget), want, rule)  # fmt: skip


def _counted(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@chapter.exercise(
    "Begin with relu: n operations, n numbers read, n written.",
    "A matrix product: M K + K N + M N numbers, and one multiplication and one addition "
    "for each of M K N pairs.",
    "conv: each of B O H W results takes C k k multiply-adds; numbers: B C H W + O C k k + "
    "B O H W.",
)
def work_of(answer):
    "FLOP and bytes of five operators."
    for kind, shape, want, rule in [
        ("relu", (1000,), (1000, 8000), "relu: n operations; n numbers read, n written."),
        ("add", (1000,), (1000, 12000), "add: two numbers are read and one is written."),
        ("sum", (1000,), (1000, 4004), "sum: n numbers are read, and one is written."),
    ]:  # fmt: skip
        got = answer(kind, shape)
        same(f"{kind}, n = 1000, 4 bytes per number", got, want, rule)
    for M, K, N in [(5, 7, 3), (64, 2048, 512), (33, 17, 1)]:
        a, b = torch.ones(M, K), torch.ones(K, N)
        flop = _counted(lambda a=a, b=b: a @ b)
        byte = sum(x.nbytes for x in (a, b, a @ b))
        same(f"matmul {(M, K, N)}", answer("matmul", (M, K, N)), (flop, byte),
             "matmul: 2 M K N operations; M K + K N numbers are read, M N written.")  # fmt: skip
    conv = torch.nn.functional.conv2d
    for shape in [(2, 3, 5, 7, 4, 3), (1, 8, 6, 6, 8, 1), (3, 2, 9, 4, 5, 5)]:
        B, C, H, W, out, k = shape
        x, w = torch.ones(B, C, H, W), torch.ones(out, C, k, k)
        flop = _counted(lambda x=x, w=w, k=k: conv(x, w, padding=k // 2))
        byte = sum(t.nbytes for t in (x, w, conv(x, w, padding=k // 2)))
        same(f"conv {shape}", answer("conv", shape), (flop, byte),
             "conv: each of B O H W results takes C k k multiply-adds; the weights are "
             "read once.")  # fmt: skip
    same("add, n = 10, 2 bytes per number", answer("add", (10,), 2), (10, 60),
         "`size` is the bytes of one number.")  # fmt: skip
    same("conv in 2 bytes per number", answer("conv", (2, 3, 5, 7, 4, 3), 2)[1],
         2 * (210 + 108 + 280), "`size` is the bytes of one number.")  # fmt: skip
    same("matmul in 1 byte per number", answer("matmul", (5, 7, 3), 1)[1], 71,
         "`size` is the bytes of one number.")  # fmt: skip


@chapter.exercise(
    "Two things take time. They go on side by side: which one is waited for?",
    "flop / P and byte / beta; the longer one.",
    "compute, memory = flop / P, byte / beta; return max(...), 'compute' if ...",
)
def predicted(answer):
    "Seconds by the roofline, and who sets them."
    for flop, byte, P, beta, want in [
        (200, 30, 100, 20, (2.0, "compute")),
        (100, 40, 100, 10, (4.0, "memory")),
        (0, 64, 100, 16, (4.0, "memory")),
        (1e9, 12e9, 1e11, 3e10, (0.4, "memory")),
        (3.3e7, 8e5, 1e11, 3e10, (3.3e-4, "compute")),
    ]:
        got = answer(flop, byte, P, beta)
        case = f"{flop:g} FLOP, {byte:g} bytes, P = {P:g}, beta = {beta:g}"
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise Miss("Return two things: the seconds, and a word.", case, got, want)
        same(f"{case}: seconds", got[0], want[0],
             "They go on side by side: the longer of flop / P and byte / beta.")  # fmt: skip
        same(f"{case}: who", got[1], want[1],
             "'compute' where the arithmetic takes longer, 'memory' where the bytes do.")  # fmt: skip


def _critical(D, H, size, P, beta, most=5000):
    "By trying every batch."
    for B in range(1, most):
        if 2 * B * D * H * beta >= size * (B * D + D * H + B * H) * P:
            return B
    return None


@chapter.exercise(
    "Write down both times for B rows and set them equal: solve for B.",
    "2 B D H / P >= size (B D + D H + B H) / beta. Bring everything with B to one side.",
    "gain = 2 D H beta - size P (D + H); without a gain above 0: None; else "
    "ceil(size P D H / gain).",
)
def critical_batch(answer):
    "The fewest rows for which a layer waits for arithmetic."
    for D, H, size, P, beta in [
        (64, 64, 4, 100, 10), (512, 2048, 4, 1000, 100), (512, 2048, 2, 1000, 100),
        (100, 30, 1, 50, 10), (16, 16, 4, 100, 10), (16, 16, 4, 16, 4),
        (1000, 40, 4, 160, 10), (40, 40, 4, 100, 10), (8, 3, 4, 1, 40), (30, 70, 4, 64, 16),
        (4, 4, 1, 2, 1), (1, 1, 1, 0.5, 1),
    ]:  # fmt: skip
        want = _critical(D, H, size, P, beta)
        got = answer(D, H, size, P, beta)
        case = f"(B, {D})({D}, {H}), {size} bytes, P = {P}, beta = {beta}"
        if want is None:
            same(f"{case}: no batch is large enough", "None" if got is None else got, "None",
                 "Inputs and outputs grow with B, too: narrow layers never get there.")  # fmt: skip
        else:
            same(case, got, want, "The fewest whole rows B with 2 B D H / P >= "
                 "size (B D + D H + B H) / beta.", rtol=1e-12)  # fmt: skip


def _misses(addresses, lines, line):
    held, count = [], 0
    for address in addresses:
        at = address // line
        if at in held:
            held.remove(at)
        else:
            count += 1
        held.append(at)
        held = held[-lines:]
    return count


@chapter.exercise(
    "A cache knows lines, not bytes: address // line.",
    "Keep the lines in the order of their last use; a hit moves its line to the end.",
    "held = []; for each: at = address // line; if at in held: held.remove(at), else count "
    "it; held.append(at); then drop the first while there are more than `lines`.",
)
def misses(answer):
    "How often a cache that forgets the oldest use must fetch a line."
    rows = [64 * 4 * r + 4 * c for r in range(64) for c in range(64)]
    columns = [64 * 4 * r + 4 * c for c in range(64) for r in range(64)]
    dice = random.Random(0)
    wild = [dice.randrange(2000) for _ in range(400)]
    for case, addresses, lines, line, rule in [
        ("one line, read twice", [0, 63], 4, 64, "The bytes of one line come together."),
        ("two neighbours across a border", [63, 64], 4, 64, "64 is in the next line."),
        ("64 x 64 numbers of 4 bytes, row by row", rows, 8, 64,
         "16 numbers of 4 bytes share a line."),
        ("the same, column by column", columns, 8, 64,
         "With 8 lines a column of 64 rows pushes each line out before its next use."),
        ("the same, with 64 lines", columns, 64, 64, "64 lines hold a whole column: any line may lie in any place."),
        ("A B A C A with two lines", [0, 64, 0, 128, 0], 2, 64,
         "A was used last: B is pushed out, not A."),
        ("A B C A with two lines", [0, 64, 128, 0], 2, 64, "Two lines hold two."),
        ("A B A B with two lines", [0, 64, 0, 64], 2, 64, "Two lines hold two."),
        ("400 thrown addresses, lines of 32 bytes", wild, 17, 32,
         "`line` is the size of a line in bytes."),
        ("the same, lines of 64 bytes", wild, 17, 64, "`lines` lines are held."),
        ("no address", [], 4, 64, "Nothing is asked, nothing is missed."),
    ]:  # fmt: skip
        got = answer(list(addresses), lines, line)
        same(case, got, _misses(addresses, lines, line), rule)


@chapter.exercise(
    "Write down the seconds for each file on a disk of B bytes per second.",
    "raw / B against packed / B + raw / unpack; with overlap: max(packed / B, raw / unpack).",
    "Equal at B = (raw - packed) * unpack / raw; with overlap at B = unpack.",
)
def break_even(answer):
    "From which disk on the raw file is read sooner."
    for raw, packed, unpack, overlap, want, rule in [
        (100, 25, 40, False, 30.0, "raw / B = packed / B + raw / unpack at the break."),
        (64e6, 16e6, 4e8, False, 3e8, "raw / B = packed / B + raw / unpack at the break."),
        (100, 99, 40, False, 0.4, "raw / B = packed / B + raw / unpack at the break."),
        (100, 100, 40, False, 0.0, "Nothing is saved: the raw file always wins, 0."),
        (100, 120, 40, False, 0.0, "A packed file that is larger never pays: 0."),
        (100, 25, 40, True, 40.0,
         "With overlap the longer counts: unpacking sets the pace from B = unpack on."),
        (100, 90, 40, True, 40.0,
         "With overlap the longer counts: unpacking sets the pace from B = unpack on."),
        (100, 120, 40, True, 0.0, "A packed file that is larger never pays: 0."),
        (100, 100, 40, True, 0.0, "Nothing is saved: 0."),
    ]:  # fmt: skip
        case = (
            f"{raw:g} bytes, packed {packed:g}, unpack {unpack:g}/s, overlap={overlap}"
        )
        same(case, answer(raw, packed, unpack, overlap), want, rule)


def _events(warps, compute, latency, steps):
    "Share of `steps` cycles in which one of the warps computes, in turns."
    ready, now, worked = [0] * warps, 0, 0
    while now < steps:
        first = min(range(warps), key=lambda w: ready[w])
        start = max(now, ready[first])
        now = start + compute
        worked += compute
        ready[first] = now + latency
    return worked / now


@chapter.exercise(
    "One warp works `compute` of every compute + latency cycles.",
    "Two warps work twice as much, as long as they fit into the gap.",
    "min(1, warps * compute / (compute + latency))",
)
def busy(answer):
    "How many warps hide a latency."
    for warps, compute, latency in [
        (1, 20, 400), (8, 20, 400), (16, 20, 400), (21, 20, 400), (32, 20, 400),
        (64, 20, 400), (3, 10, 5), (1, 7, 0), (2, 30, 31),
    ]:  # fmt: skip
        want = _events(warps, compute, latency, 200_000)
        case = f"{warps} warps, {compute} cycles of work, {latency} of waiting"
        same(case, answer(warps, compute, latency), want, "Warps share of the cycle, and "
             "a core is never more than wholly busy.", atol=2e-3)  # fmt: skip


@chapter.exercise(
    "Numbers of A move one cell to the right, numbers of B one cell down, then multiply.",
    "The new a is `left` as its first column, then all but the last column of the old a.",
    "a = np.column_stack([left, a[:, :-1]]); b = np.vstack([top, b[:-1]]); return a, b, "
    "sums + a * b",
)
def pulse(answer):
    "One cycle of a systolic array."
    rng = np.random.default_rng(0)
    for M, N in [(3, 4), (4, 2), (1, 3), (3, 1)]:
        a, b, total = (rng.integers(-9, 9, (M, N)).astype(float) for _ in range(3))
        left = rng.integers(1, 9, M).astype(float)
        top = rng.integers(1, 9, N).astype(float)
        got = answer(a, b, total, left, top)
        case = f"a grid of {M} x {N}"
        if not isinstance(got, (tuple, list)) or len(got) != 3:
            raise Miss(
                "Return three grids: a, b and the sums.", case, got, "three grids"
            )
        right = np.concatenate([left[:, None], a[:, :-1]], axis=1)
        down = np.concatenate([top[None], b[:-1]])
        same(f"{case}: a", got[0], right, "Every row moves one cell to the right; left "
             "enters, the last column leaves.")  # fmt: skip
        same(f"{case}: b", got[1], down, "Every column moves one cell down; top enters, "
             "the last row leaves.")  # fmt: skip
        same(f"{case}: sums", got[2], total + right * down,
             "First all numbers move, then each cell adds the product to its sum.")  # fmt: skip


@chapter.exercise(
    "Multiply and add in wide whole numbers first: q_BD @ W_HD.T with int64.",
    "A product of two numbers with f fraction bits has 2 f of them, so the bias must be "
    "shifted up by f before it is added.",
    "sums = q @ W.T + (b << frac); half = 1 << (frac - 1) if frac else 0; "
    "np.clip((sums + half) >> frac, -2**(bits - 1), 2**(bits - 1) - 1)",
)
def fixed_layer(answer):
    "A layer in whole numbers, as an FPGA computes it."

    def layer(q, W, b, bits, frac):
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        half = 2**frac // 2
        dot = [[sum(int(x) * int(w) for x, w in zip(r, c)) for c in W] for r in q]
        dot = [[s + int(c) * 2**frac for s, c in zip(r, b)] for r in dot]
        return [[min(max((s + half) // 2**frac, low), high) for s in r] for r in dot]

    def case(text, q, W, b, bits, frac, rule, kind=np.int64):
        q, W, b = (np.array(x, dtype=kind) for x in (q, W, b))
        same(text, answer(q, W, b, bits, frac), layer(q, W, b, bits, frac), rule)

    case("2.0 x 1.5 + 0.25 with 4 fraction bits, 8 bits: 32, 24, 4", [[32]], [[24]], [4],
         8, 4, "The product of two numbers with f fraction bits has 2 f: shift the bias "
         "up by f, the sum down by f.")  # fmt: skip
    for q, word in [
        (5, "rounds down"),
        (11, "rounds up"),
        (8, "is a half and rounds up"),
    ]:
        case(f"a sum of {q} sixteenths {word}", [[q]], [[1]], [0], 8, 4,
             "Round to the nearest, a half upwards: add half of the last bit, then >>.")  # fmt: skip
    case("a sum of -8 sixteenths is a half and rounds up to 0", [[-8]], [[1]], [0], 8, 4,
         "A half rounds upwards, below zero, too.")  # fmt: skip
    up = "Saturate: what is too large becomes the largest that fits, 2**(bits - 1) - 1."
    case("a result above the largest", [[100, 100]], [[100, 90]], [3], 8, 4, up)
    case("a result below the least", [[100, 100]], [[-100, -90]], [3], 8, 4,
         "Saturate at -2**(bits - 1), which is one further out than the largest.")  # fmt: skip
    case("a sum that is too large on its way and fits at its end", [[100, 100, -100]],
         [[100, 90, 95]], [0], 16, 4, "Saturate once, at the end: the sum is wide.")  # fmt: skip
    case("sums that go far out and come back, 8 bits", [[100, 100, -100]],
         [[90, 90, 89]], [-8], 8, 7, "Saturate once, at the end: the sum is wide.")  # fmt: skip
    case("no fraction bits", [[3, -2]], [[5, 4]], [2], 8, 0,
         "frac = 0 is whole numbers: nothing to round, nothing to shift.")  # fmt: skip
    rng = np.random.default_rng(1)
    q, W, b = (rng.integers(-128, 128, shape) for shape in ((5, 7), (3, 7), 3))
    case("random 8-bit numbers, (5, 7) and (3, 7)", q, W, b, 8, 6,
         "Wide sum, bias shifted, rounded, saturated, for every row and output.")  # fmt: skip
    case("the same numbers, kept as int8", q, W, b, 8, 6,
         "Arrays of int8 multiply in int8 and go round: make them int64 first.", np.int8)  # fmt: skip
    case("12 bits", 9 * q, 9 * W, 9 * b, 12, 9, "`bits` sets the limits.")


@chapter.exercise(
    "A row is beaten when another is at least as good in every key and better in one.",
    "Multiply each figure by its sign: then more is always better.",
    "known = rows without None; keep a row if no other has all figures >= and one >.",
)
def pareto(answer):
    "The rows that no other beats."
    rows = [
        {"name": "A", "rate": 10.0, "watts": 100.0, "price": None},
        {"name": "B", "rate": 20.0, "watts": 200.0, "price": 5.0},
        {"name": "C", "rate": 10.0, "watts": 150.0, "price": 4.0},
        {"name": "D", "rate": 20.0, "watts": 200.0, "price": 9.0},
        {"name": "E", "rate": None, "watts": 1.0, "price": 1.0},
        {"name": "F", "rate": 5.0, "watts": 100.0, "price": 1.0},
        {"name": "G", "rate": 0.0, "watts": 60.0, "price": 3.0},
    ]
    for better, want, rule in [
        ({"rate": 1}, "BD", "Equals stay together: neither beats the other."),
        ({"watts": -1}, "E", "-1: less is better."),
        ({"rate": 1, "watts": -1}, "ABDG", "A row is beaten by one that is at least as "
         "good in every key and better in one; a row without a figure is left out, and a "
         "figure of 0 is a figure."),
        ({"rate": 1, "watts": -1, "price": -1}, "BCFG",
         "A row without one of the figures is left out; each key counts."),
    ]:  # fmt: skip
        got = answer([dict(row) for row in rows], better)
        if not isinstance(got, (list, tuple)) or not all(
            hasattr(r, "keys") for r in got
        ):
            raise Miss("Return a list of the rows.", str(better), got, list(want))
        same(f"better: {better}", "".join(r["name"] for r in got), want, rule)
    got = answer([dict(row) for row in rows[::-1]], {"rate": 1, "watts": -1})
    same("the same rows in the other order, rate and watts",
         "".join(r["name"] for r in got), "GDBA", "Each row is held against every other, "
         "and the order is kept.")  # fmt: skip
    same("no row", len(answer([], {"rate": 1})), 0, "No rows, no front.")
