"Chapter 11: small wrong programs, each with the sentence that names it."

import math
import statistics
import time

import numpy as np

from utils.checks import hardware as ex


def _timed(run, clock, budget, warm=True):
    "Single calls' times, sorted."
    if warm:
        run()
    taken, end = [], clock() + budget
    while not taken or clock() < end:
        start = clock()
        run()
        taken.append(clock() - start)
    return sorted(taken)


# ---- rate ----


@ex.rate.slip(
    "This is the mean, of single calls or of one long stretch: every interruption counts. Take the best tenth."
)
def mean(run, work, clock=time.perf_counter, budget=0.3):
    return work / statistics.mean(_timed(run, clock, budget))


NOT_BEST = (
    "This is not the best tenth but the median or worse: on a busy machine more than half "
    "of the calls are interrupted."
)


@ex.rate.slip(NOT_BEST)
def median(run, work, clock=time.perf_counter, budget=0.3):
    return work / statistics.median(_timed(run, clock, budget))


@ex.rate.slip("The warm-up has used up the budget: read the clock after it.")
def budget_with_warm_up(run, work, clock=time.perf_counter, budget=0.3):
    end = clock() + budget
    run()
    taken = _timed(run, clock, end - clock(), warm=False)
    return work / taken[len(taken) // 10]


@ex.rate.slip(NOT_BEST)
def slowest_tenth(run, work, clock=time.perf_counter, budget=0.3):
    taken = _timed(run, clock, budget)[::-1]
    return work / taken[len(taken) // 10]


@ex.rate.slip(
    "This is the shortest call, which may be a glitch of the clock: take the tenth."
)
def shortest(run, work, clock=time.perf_counter, budget=0.3):
    return work / _timed(run, clock, budget)[0]


@ex.rate.slip("The first call warms up: call run() once before the clock is read.")
def cold(run, work, clock=time.perf_counter, budget=0.3):
    taken = _timed(run, clock, budget, warm=False)
    return work / taken[len(taken) // 10]


@ex.rate.slip(
    "This is the mean, of single calls or of one long stretch: every interruption counts. Take the best tenth."
)
def one_stretch(run, work, clock=time.perf_counter, budget=0.3):
    run()
    begin, calls = clock(), 0
    while not calls or clock() < begin + budget:
        run()
        calls += 1
    return calls * work / (clock() - begin)


@ex.rate.slip("These are seconds per call: the rate is the work over them.")
def seconds(run, work, clock=time.perf_counter, budget=0.3):
    taken = _timed(run, clock, budget)
    return taken[len(taken) // 10]


@ex.rate.slip("With a budget of 0 nothing was timed: time at least one call.")
def none_timed(run, work, clock=time.perf_counter, budget=0.3):
    run()
    taken, end = [], clock() + budget
    while clock() < end:
        start = clock()
        run()
        taken.append(clock() - start)
    return work / sorted(taken)[len(taken) // 10]


# ---- work_of ----


def _work(kind, shape, size=4, add=3, relu=2, total=1, factor=2, out=1, again=False,
          halo=0):  # fmt: skip
    if kind in ("add", "relu", "sum"):
        n = shape[0]
        return n, size * {"add": add * n, "relu": relu * n, "sum": n + total}[kind]
    if kind == "matmul":
        M, K, N = shape
        weights = K * N * (M if again else 1)
        return factor * M * K * N, size * (M * K + weights + out * M * N)
    B, C, H, W, O, k = shape  # noqa: E741
    weights = O * C * k * k * (B if again else 1)
    read = B * C * (H + halo * (k - 1)) * (W + halo * (k - 1))
    return factor * B * O * H * W * C * k * k, size * (
        read + weights + out * B * O * H * W
    )


@ex.work_of.slip("A multiply-add is two operations: one product, one sum.")
def one_operation(kind, shape, size=4):
    return _work(kind, shape, size, factor=1)


@ex.work_of.slip("The result must be written, too: its numbers are missing.")
def nothing_written(kind, shape, size=4):
    return _work(kind, shape, size, add=2, relu=1, total=0, out=0)


@ex.work_of.slip(
    "add reads two arrays and writes a third: three numbers per operation."
)
def add_in_place(kind, shape, size=4):
    return _work(kind, shape, size, add=2)


@ex.work_of.slip(
    "The weights were counted once per row of the batch; the model reads them once."
)
def weights_again(kind, shape, size=4):
    return _work(kind, shape, size, again=True)


@ex.work_of.slip("The border of zeros is in no memory: it costs no bytes.")
def padded(kind, shape, size=4):
    return _work(kind, shape, size, halo=1)


@ex.work_of.slip("These are numbers, not bytes: multiply by `size`.")
def numbers(kind, shape, size=4):
    return _work(kind, shape, 1)


@ex.work_of.slip("`size` is given: not every number has 4 bytes.")
def always_four(kind, shape, size=4):
    return _work(kind, shape, 4)


# ---- predicted ----


@ex.predicted.slip(
    "This is the sum: arithmetic and memory work side by side, the longer one counts."
)
def in_turn(flop, byte, P, beta):
    a, b = flop / P, byte / beta
    return a + b, "compute" if a > b else "memory"


@ex.predicted.slip("This is the shorter of the two: the one that is waited for counts.")
def shorter(flop, byte, P, beta):
    a, b = flop / P, byte / beta
    return min(a, b), "compute" if a > b else "memory"


@ex.predicted.slip("The words are swapped: who takes longer is waited for.")
def swapped(flop, byte, P, beta):
    a, b = flop / P, byte / beta
    return max(a, b), "memory" if a > b else "compute"


@ex.predicted.slip(
    "These are rates, not seconds: divide the work by what is done per second."
)
def upside_down(flop, byte, P, beta):
    a, b = P / max(flop, 1), beta / byte
    return max(a, b), "compute" if a > b else "memory"


@ex.predicted.slip("Only the arithmetic is counted: the bytes take time, too.")
def arithmetic_only(flop, byte, P, beta):
    return flop / P, "compute"


# ---- critical_batch ----


@ex.critical_batch.slip(
    "This takes the intensity for 2 B / size: inputs and outputs are bytes, too."
)
def weights_only(D, H, size, P, beta):
    return math.ceil(P / beta * size / 2)


def _batch(D, H, size, P, beta, sides=1, flops=2):
    gain = flops * D * H * beta - sides * size * P * (D + H)
    return math.ceil(size * P * D * H / gain) if gain > 0 else None


@ex.critical_batch.slip("A multiply-add is two operations: 2 B D H of them.")
def single(D, H, size, P, beta):
    return _batch(D, H, size, P, beta, flops=1)


@ex.critical_batch.slip(
    "There is no such batch here: below a width of about size * P / beta the inputs and "
    "outputs alone take longer. Return None."
)
def always_some(D, H, size, P, beta):
    gain = 2 * D * H * beta - size * P * (D + H)
    return max(1, math.ceil(size * P * D * H / gain)) if gain else 1


@ex.critical_batch.slip("Rows are whole: round up to the first batch that reaches it.")
def not_whole(D, H, size, P, beta):
    gain = 2 * D * H * beta - size * P * (D + H)
    return size * P * D * H / gain if gain > 0 else None


@ex.critical_batch.slip("Rounded down, the arithmetic is still the shorter of the two.")
def rounded_down(D, H, size, P, beta):
    gain = 2 * D * H * beta - size * P * (D + H)
    return int(size * P * D * H / gain) if gain > 0 else None


@ex.critical_batch.slip("The outputs, B H numbers, are written: they count, too.")
def no_outputs(D, H, size, P, beta):
    gain = 2 * D * H * beta - size * P * D
    return math.ceil(size * P * D * H / gain) if gain > 0 else None


@ex.critical_batch.slip("A gain of 0 divides by 0: no batch is large enough, so None.")
def divides_by_nothing(D, H, size, P, beta):
    gain = 2 * D * H * beta - size * P * (D + H)
    rows = math.ceil(size * P * D * H / gain)
    return rows if gain > 0 else None


# ---- misses ----


@ex.misses.slip(
    "This forgets what came first. A hit makes a line young again: move it to the end."
)
def first_in_first_out(addresses, lines, line=64):
    held, count = [], 0
    for address in addresses:
        if address // line not in held:
            count += 1
            held = [*held, address // line][-lines:]
    return count


@ex.misses.slip("Bytes were looked up, not lines: address // line.")
def by_bytes(addresses, lines, line=64):
    return ex._misses(addresses, lines, 1)


EARLY = (
    "Some lines were pushed out early: the cache holds `lines` lines, each in any place, "
    "and the one whose last use is oldest goes."
)


@ex.misses.slip(EARLY)
def one_place_each(addresses, lines, line=64):
    held, count = {}, 0
    for address in addresses:
        at = address // line
        count += held.get(at % lines) != at
        held[at % lines] = at
    return count


@ex.misses.slip(EARLY)
def one_less(addresses, lines, line=64):
    held, count = [], 0
    for address in addresses:
        at = address // line
        held = held[-(lines - 1) :]
        if at in held:
            held.remove(at)
        else:
            count += 1
        held.append(at)
    return count


@ex.misses.slip("These are the hits.")
def hits(addresses, lines, line=64):
    return len(addresses) - ex._misses(addresses, lines, line)


@ex.misses.slip("Nothing was ever pushed out: the cache holds `lines` lines.")
def endless(addresses, lines, line=64):
    return len({address // line for address in addresses})


@ex.misses.slip("Lines are not always 64 bytes: use `line`.")
def always_64(addresses, lines, line=64):
    return ex._misses(addresses, lines, 64)


# ---- break_even ----


@ex.break_even.slip("Unpacking was forgotten: it takes raw / unpack seconds.")
def free_unpacking(raw, packed, unpack, overlap=False):
    return math.inf if packed < raw else 0.0


@ex.break_even.slip(
    "unpack counts bytes that come out, raw ones: it takes raw / unpack seconds."
)
def packed_rate(raw, packed, unpack, overlap=False):
    if packed >= raw:
        return 0.0
    return unpack if overlap else (raw - packed) * unpack / packed


@ex.break_even.slip("A packed file that is not smaller never pays: return 0.")
def below_zero(raw, packed, unpack, overlap=False):
    return unpack if overlap else (raw - packed) * unpack / raw


@ex.break_even.slip(
    "overlap: the longer of reading and unpacking counts, not their sum."
)
def never_overlaps(raw, packed, unpack, overlap=False):
    return max(0.0, (raw - packed) * unpack / raw)


@ex.break_even.slip("Without overlap the seconds add up: packed / B + raw / unpack.")
def always_overlaps(raw, packed, unpack, overlap=False):
    return unpack if packed < raw else 0.0


# ---- busy ----


@ex.busy.slip("More than wholly busy: cap it at 1.")
def uncapped(warps, compute, latency):
    return warps * compute / (compute + latency)


@ex.busy.slip("A warp's round is its work and its wait: compute + latency.")
def wait_only(warps, compute, latency):
    return min(1.0, warps * compute / latency) if latency else 1.0


@ex.busy.slip("This is one warp's share: the others work while it waits.")
def alone(warps, compute, latency):
    return compute / (compute + latency)


@ex.busy.slip("This is the idle share.")
def idle(warps, compute, latency):
    return 1 - min(1.0, warps * compute / (compute + latency))


# ---- pulse ----


@ex.pulse.slip("Each cell multiplied before the numbers had moved: move first.")
def multiply_first(a_MN, b_MN, sum_MN, left_M, top_N):
    a = np.column_stack([left_M, a_MN[:, :-1]])
    b = np.vstack([top_N, b_MN[:-1]])
    return a, b, sum_MN + a_MN * b_MN


@ex.pulse.slip(
    "One number ran through the whole row in a single cycle: each cell takes its "
    "neighbour's old number."
)
def runs_through(a_MN, b_MN, sum_MN, left_M, top_N):
    a, b = a_MN.copy(), b_MN.copy()
    a[:, 0], b[0] = left_M, top_N
    for n in range(1, a.shape[1]):
        a[:, n] = a[:, n - 1]
    for m in range(1, len(b)):
        b[m] = b[m - 1]
    return a, b, sum_MN + a * b


@ex.pulse.slip("The last column came in again at the left: `left` enters there.")
def round_the_ring(a_MN, b_MN, sum_MN, left_M, top_N):
    a, b = np.roll(a_MN, 1, axis=1), np.roll(b_MN, 1, axis=0)
    return a, b, sum_MN + a * b


@ex.pulse.slip("A cell keeps its sum: add the product to it.")
def forgets(a_MN, b_MN, sum_MN, left_M, top_N):
    a = np.column_stack([left_M, a_MN[:, :-1]])
    b = np.vstack([top_N, b_MN[:-1]])
    return a, b, a * b


@ex.pulse.slip("Numbers of A moved to the left: `left` enters at column 0.")
def to_the_left(a_MN, b_MN, sum_MN, left_M, top_N):
    a = np.column_stack([a_MN[:, 1:], left_M])
    b = np.vstack([top_N, b_MN[:-1]])
    return a, b, sum_MN + a * b


@ex.pulse.slip(told="changes its input in place")
def in_place(a_MN, b_MN, sum_MN, left_M, top_N):
    a_MN[:, 1:], b_MN[1:] = a_MN[:, :-1].copy(), b_MN[:-1].copy()
    a_MN[:, 0], b_MN[0] = left_M, top_N
    return a_MN, b_MN, sum_MN + a_MN * b_MN


# ---- fixed_layer ----


def _sums(q, W, b, frac, shift=True):
    q, W, b = (np.asarray(x).astype(np.int64) for x in (q, W, b))
    return q @ W.T + (b << frac if shift else b)


def _half(frac):
    return 2**frac // 2


@ex.fixed_layer.slip("What is too large went round, as in chapter 05's uint8: clip it.")
def wraps(q_BD, W_HD, b_H, bits, frac):
    s, low = (_sums(q_BD, W_HD, b_H, frac) + _half(frac)) >> frac, -(2 ** (bits - 1))
    return (s - low) % 2**bits + low


@ex.fixed_layer.slip(
    "The bias was added with f fraction bits to a sum with 2 f: shift it up by frac."
)
def small_bias(q_BD, W_HD, b_H, bits, frac):
    s = (_sums(q_BD, W_HD, b_H, frac, False) + _half(frac)) >> frac
    return np.clip(s, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@ex.fixed_layer.slip(
    "np.round and np.rint take a half to the even neighbour: here a half goes upwards."
)
def half_to_even(q_BD, W_HD, b_H, bits, frac):
    s = np.rint(_sums(q_BD, W_HD, b_H, frac) / 2**frac).astype(np.int64)
    return np.clip(s, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@ex.fixed_layer.slip("This cuts bits off: add half of the last bit before the shift.")
def truncates(q_BD, W_HD, b_H, bits, frac):
    s = _sums(q_BD, W_HD, b_H, frac) >> frac
    return np.clip(s, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@ex.fixed_layer.slip(
    "The sums were never brought back to frac fraction bits: shift down."
)
def not_shifted(q_BD, W_HD, b_H, bits, frac):
    s = _sums(q_BD, W_HD, b_H, frac)
    return np.clip(s, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@ex.fixed_layer.slip(
    "The sum was saturated before its fraction was cut: clip at the end."
)
def saturates_early(q_BD, W_HD, b_H, bits, frac):
    s = np.clip(_sums(q_BD, W_HD, b_H, frac), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return (s + _half(frac)) >> frac


@ex.fixed_layer.slip(
    "Two's complement reaches one further below zero: the least is -2**(bits - 1)."
)
def symmetric(q_BD, W_HD, b_H, bits, frac):
    s = (_sums(q_BD, W_HD, b_H, frac) + _half(frac)) >> frac
    return np.clip(s, 1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)


@ex.fixed_layer.slip(
    "Multiplied in int8, the products went round before they were added: make the arrays "
    "int64 first."
)
def narrow_sum(q_BD, W_HD, b_H, bits, frac):
    s = q_BD @ W_HD.T
    s = s.astype(np.int64) + (b_H.astype(np.int64) << frac) + _half(frac)
    return np.clip(s >> frac, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


# ---- pareto ----


def _front(rows, better, known=None, beats=None):
    known = known or (lambda row: all(row[key] is not None for key in better))
    rows = [row for row in rows if known(row)]
    points = [[s * (row[key] or 0) for key, s in better.items()] for row in rows]
    beats = beats or (lambda a, b: a != b and all(x >= y for x, y in zip(a, b)))
    return [r for r, p in zip(rows, points) if not any(beats(q, p) for q in points)]


@ex.pareto.slip("Equals beat each other here: one must be better in some key.")
def ties_out(rows, better):
    kept = []
    for row in _front(rows, better):
        point = [row[key] for key in better]
        if all([k[key] for key in better] != point for k in kept):
            kept.append(row)
    return kept


@ex.pareto.slip("A missing figure was read as 0: leave such a row out.")
def none_is_zero(rows, better):
    return _front(rows, better, known=lambda row: True)


@ex.pareto.slip("A figure of 0 is a figure: ask for `is not None`.")
def zero_is_none(rows, better):
    return _front(rows, better, known=lambda row: all(row[key] for key in better))


@ex.pareto.slip("The sign was ignored: -1 says that less is better.")
def more_is_better(rows, better):
    return _front(rows, dict.fromkeys(better, 1))


@ex.pareto.slip(
    "A row is beaten only where another is better in every key: as good in one and better "
    "in another is enough."
)
def strictly(rows, better):
    return _front(rows, better, beats=lambda a, b: all(x > y for x, y in zip(a, b)))


@ex.pareto.slip("The rows are sorted: keep the order in which they came.")
def sorted_rows(rows, better):
    return sorted(_front(rows, better), key=lambda row: -(row["rate"] or 0))


@ex.pareto.slip(
    "A row with None in one of the keys is left out before rows are compared."
)
def none_compared(rows, better):
    points = [[sign * row[key] for key, sign in better.items()] for row in rows]
    return [rows[i] for i in range(len(points))]


@ex.pareto.slip("These are the rows that are beaten.")
def beaten(rows, better):
    front = _front(rows, better)
    return [row for row in rows if row not in front]
