"""Chapter 16: messages without deadlock, collectives out of them, and what they cost.

Every function runs on a simulated network (utils.practice.network), which counts what it sends and
says who waits for whom when it gets stuck.
"""

import math
import traceback

import numpy as np

from utils.built import collectives as known
from utils.exercises import Chapter, Miss, same
from utils.practice.network import Deadlock, Network, NetworkError

chapter = Chapter("16_collectives")


def _on_network(fn, inputs, case, views=None, ring=False):
    """fn(input, comm) on a simulated network: -> results by rank, the network.

    Who returns a view of its input is noted in `views`, for `_tell_views`: values come
    first. `ring`: a rank that does not exist was meant round the ring.
    """
    net = Network(len(inputs))

    def noted(value, comm):
        result = fn(value, comm)
        arrays = isinstance(result, np.ndarray) and views is not None
        if arrays and np.shares_memory(result, value):
            views.append((f"{case}: rank {comm.rank}", result))
        return result

    try:
        return net.run(noted, inputs), net
    except Deadlock as stuck:
        gone = any("returned" in what for what in stuck.waits.values())
        rule = (
            "Deadlock: a message that nobody takes, or that nobody sends."
            if gone
            else "Deadlock: the ranks wait for each other, and nobody can go on."
        )
        got = "; ".join(f"rank {r} {what}" for r, what in stuck.waits.items())
        raise Miss(rule, case, _Words(got), _Words("every rank returns")) from None
    except NetworkError as error:
        said = f"{error}."
        if ring and "there are ranks 0 to" in said:
            said += " Round the ring with % size."
        raise Miss(said, case, _Words("an error"), _Words("a message")) from None


def _tell_views(views):
    "Raise when a rank returned its input, or a view of it; asked when all else is right."
    for case, got in views:
        raise Miss(
            "Right values, but it returns a view: what it returns shares memory with its "
            "input, so changing one changes the other. Return an array of its own: a "
            "copy.", case, got, _Words("the same numbers in an array of their own"),
        )  # fmt: skip


def _keeps_dtype(fn, inputs):
    "Raise unless float32 goes in and comes out."
    case = f"{len(inputs)} ranks, float32"
    advice = (
        "float32 goes in, so float32 comes out: np.empty(N) makes float64, whatever "
        "comes; give it a dtype, or use np.empty_like."
    )
    try:
        results = Network(len(inputs)).run(fn, [x.astype(np.float32) for x in inputs])
    except NetworkError as error:
        raise Miss(f"{error}. {advice}", case, _Words("an error"), _Words("a message")) from None  # fmt: skip
    for rank, got in enumerate(results):
        kind = getattr(got, "dtype", None)
        if got is not None and kind != np.float32:
            raise Miss(advice, f"{case}: rank {rank}", kind, _Words("float32"))


class _Words(str):
    "Text that a report shows without quotation marks."

    def __repr__(self):
        return str(self)


def _ranks(n, N, seed=0):
    "n ranks' numbers, different on every rank, whole, so that every sum is exact."
    return list(np.random.default_rng(seed).integers(-50, 50, (n, N)).astype(float))


def _who(n, N):
    "Rank r brings 10**r: the digits of a sum say who is in it, and how often."
    return [np.full(N, 10.0**r) for r in range(n)]


def _digits(value, n):
    "How often each rank is in a sum of `_who`; None when it is no such sum."
    if not np.isfinite(value) or value != round(value) or not 0 <= value < 10.0**n:
        return None
    return [int(value // 10**r) % 10 for r in range(n)]


def _tell_who(got, n, rank, case):
    "Raise when a sum over ranks misses one or counts one twice."
    got = np.asarray(got, dtype=float).ravel()
    for value in got:
        counts = _digits(value, n)
        if counts is None or counts == [1] * n:
            continue
        missing = [str(r) for r in range(n) if counts[r] == 0]
        twice = [str(r) for r in range(n) if counts[r] > 1]
        said = f"rank {rank} leaves with a sum that"
        if missing:
            said += f" lacks the numbers of rank {' and '.join(missing)}"
        if twice:
            said += (
                " and" * bool(missing) + f" has rank {' and '.join(twice)} too often"
            )
        raise Miss(
            f"{said[0].upper()}{said[1:]}.", f"{case}, rank r brings 10**r",
            value, sum(10.0**r for r in range(n)),
        )  # fmt: skip


def _ring_only(net, case):
    "Every message goes to the right-hand neighbour, and nobody does more than others."
    n = net.n
    for message in net.log:
        if (message.to - message.source) % n != 1:
            side = "left" if (message.source - message.to) % n == 1 else "other"
            who = f"rank {message.source} sends to rank {message.to}"
            raise Miss(
                f"Wrong neighbour: {who}, {'its left one' if side == 'left' else 'across the ring'}"
                ". In a ring each rank sends to (rank + 1) % size only.",
                case, _Words(who), _Words(f"to rank {(message.source + 1) % n}"),
            )  # fmt: skip


def _counted(net, want, case, slips):
    "The numbers (8 bytes each) that each rank sends."
    sent = [count // 8 for count in net.sent]
    if sent == want:
        return
    for sentence, value in slips.items():
        if sent == value and value != want:
            raise Miss(sentence, f"{case}: numbers sent by each rank", sent, want)
    more = "more" if sum(sent) > sum(want) else "fewer"
    raise Miss(
        f"Right values, but {more} numbers travel than the ring needs.",
        f"{case}: numbers sent by each rank", sent, want,
    )  # fmt: skip


def _sizes(N, n):
    return [c.stop - c.start for c in known.cut(N, n)]


# ---- in a list ----


@chapter.exercise(
    "Rank 0 receives from the last rank, rank r from rank r - 1.",
    "Build a new list: what stands at place r of it? The old one must stay readable.",
    "held[r - 1] for r = 0, 1, ...; Python's held[-1] is already the last one.",
)
def pass_right(answer):
    "Every rank hands what it holds to the next one."
    for held in ([10.0, 20.0, 30.0, 40.0], [1.0, 2.0], [7.0]):
        given = list(held)
        same(
            f"pass_right({given})",
            answer(given),
            [held[-1], *held[:-1]],
            rule="Place r of the new list holds what place r - 1 of the old one held.",
        )


@chapter.exercise(
    "n + 1 borders: 0, then ..., then N. Chunk i lies between border i and i + 1.",
    "Border i is i/n of the way from 0 to N, rounded down: whole numbers only.",
    "ends = [N * i // n for i in range(n + 1)]; slice(ends[i], ends[i + 1])",
)
def cut(answer):
    "N numbers in n chunks as equal as can be."
    for N, n in ((12, 4), (10, 4), (7, 3), (2, 3), (5, 1), (1001, 8)):
        case = f"cut({N}, {n})"
        got = list(answer(N, n))
        if not all(isinstance(chunk, slice) for chunk in got):
            raise Miss("It should return slices: slice(start, stop).", case, got, [slice(0, 3)])  # fmt: skip
        if len(got) != n:
            raise Miss(f"{len(got)} chunks for {n} ranks.", case, got, f"{n} slices")
        rows = [np.arange(N)[chunk] for chunk in got]
        every = np.concatenate(rows)
        if len(every) < N:
            raise Miss(
                f"{N - len(every)} of the {N} numbers are in no chunk: N // n each leaves "
                "a rest.", case, [len(r) for r in rows], _sizes(N, n),
            )  # fmt: skip
        if len(every) > N:
            raise Miss(
                "A number is in two chunks.", case, got, f"{N} numbers, each once"
            )
        if every.tolist() != list(range(N)):
            raise Miss("The chunks are not in order: rank 0 has the first.", case, got, "0 first")  # fmt: skip
        sizes = [len(r) for r in rows]
        if max(sizes) - min(sizes) > 1:
            raise Miss(
                "Unequal: the ring waits for its largest chunk, so sizes may differ by 1 "
                "at most.", case, sizes, _sizes(N, n),
            )  # fmt: skip


# ---- messages ----


@chapter.exercise(
    "If all send first, nobody receives. Who could begin with receiving?",
    "Even ranks send first, odd ranks receive first. Two calls each.",
    "y = np.empty_like(x_N); if comm.rank % 2 == 0: send, recv; else: recv, send.",
)
def shift(answer):
    "What the left neighbour held, with send and recv alone."

    def refused(*_, **__):
        raise Miss(
            "It calls comm.sendrecv: this one is to be done with send and recv alone."
        )

    def alone(x_N, comm):
        comm.sendrecv = refused
        return answer(x_N, comm)

    views = []
    for n in (2, 4, 3, 5, 8):
        case = f"{n} ranks, rank r holds {n} times 10 r"
        held = [np.full(n, 10.0 * rank) for rank in range(n)]
        results, net = _on_network(alone, held, case, views, ring=True)
        for rank, got in enumerate(results):
            same(
                f"{case}: rank {rank}",
                got,
                held[rank - 1],
                rule="Every rank leaves with its left neighbour's numbers.",
            )
        if net.steps > 3:
            raise Miss(
                "Right, but a queue: the ranks send one after the other. Three rounds are "
                "enough for any number of ranks.", case, net.steps, "3 rounds or fewer",
            )  # fmt: skip
    _keeps_dtype(alone, _ranks(3, 4))
    _tell_views(views)


@chapter.exercise(
    "Whoever knows it can tell others: in each round twice as many ranks know it.",
    "Ranks below `reach` know it. Each tells rank + reach, if there is one; then reach "
    "doubles.",
    "while reach < size: rank < reach sends to rank + reach (if < size); reach <= rank < "
    "2 * reach receives from rank - reach.",
)
def broadcast(answer):
    "Rank 0's numbers, on every rank."
    views = []
    for n in (2, 4, 3, 8, 6, 1, 5):
        case, x = f"{n} ranks", _ranks(n, n + 1, seed=n)
        results, net = _on_network(answer, x, case, views)
        for rank, got in enumerate(results):
            same(
                f"{case}: rank {rank}",
                got,
                x[0],
                rule="Every rank leaves with rank 0's numbers.",
            )
        rounds = math.ceil(math.log2(n))
        if net.messages > n - 1:
            raise Miss(
                "Somebody is told twice: n - 1 messages tell everybody.",
                f"{case}: messages", net.messages, n - 1,
            )  # fmt: skip
        if net.steps > rounds:
            alone = net.sent[0] == (n - 1) * x[0].nbytes
            rule = (
                "Right, but rank 0 tells everybody itself. Let those who know it help."
                if alone
                else "Right, but slow: a chain. Let everybody who knows it tell somebody."
            )
            raise Miss(rule, f"{case}: rounds", net.steps, rounds)
    _keeps_dtype(answer, _ranks(3, 4))
    _tell_views(views)


@chapter.exercise(
    "Rank 0 sends, all others receive: two branches.",
    "chunks = cut(len(x_N), comm.size); rank 0 sends x_N[chunks[r]] to each r but itself.",
    "Elsewhere: mine = np.empty_like(x_N[chunks[comm.rank]]); comm.recv(mine, 0). Rank 0 "
    "returns a copy of its own chunk.",
)
def scatter(answer):
    "Chunk r of rank 0's numbers, on rank r."
    views = []
    for n, N in ((3, 6), (4, 10), (2, 7), (1, 4)):
        case, x = f"{n} ranks, {N} numbers", _ranks(n, N, seed=N)
        chunks = known.cut(N, n)
        results, net = _on_network(answer, x, case, views)
        for rank, got in enumerate(results):
            same(
                f"{case}: rank {rank}",
                got,
                x[0][chunks[rank]],
                rule=f"Rank {rank} leaves with chunk {rank} of rank 0's numbers.",
            )
        _counted(net, [N - _sizes(N, n)[0]] + [0] * (n - 1), case, {
            "The whole array goes to every rank: send each its chunk only.": [N * (n - 1)] + [0] * (n - 1),
        })  # fmt: skip
    _keeps_dtype(answer, _ranks(3, 6))
    _tell_views(views)


@chapter.exercise(
    "The mirror of scatter: all others send, rank 0 receives from each.",
    "Rank 0 makes room for N numbers, puts its own part there, and receives from ranks 1, "
    "2, ... into their chunks.",
    "comm.recv(y_N[chunks[source]], source): a slice of an array is the same memory, so "
    "what arrives stands in y_N.",
)
def gather(answer):
    "Every rank's chunk, put together on rank 0."
    views = []
    for n, N in ((2, 6), (4, 10), (3, 7), (1, 4)):
        case, whole = f"{n} ranks, {N} numbers", _ranks(1, N, seed=N)[0]
        parts = [whole[chunk] for chunk in known.cut(N, n)]
        results, net = _on_network(
            lambda part, comm, N=N: answer(part, N, comm), parts, case, views
        )
        same(
            f"{case}: rank 0",
            results[0],
            whole,
            rule="Rank 0 leaves with chunk 0, chunk 1, ... one after the other.",
        )
        for rank in range(1, n):
            if results[rank] is not None:
                raise Miss(
                    "Only rank 0 has it all; the others return None.",
                    f"{case}: rank {rank}", results[rank], None,
                )  # fmt: skip
        _counted(net, [0] + _sizes(N, n)[1:], case, {})
    _keeps_dtype(lambda part, comm: answer(part, 6, comm), _ranks(3, 2))
    _tell_views(views)


@chapter.exercise(
    "A partial sum travels: it arrives, you add your own numbers of that chunk, it moves "
    "on. It must end at its owner, so it starts at the owner's right neighbour.",
    "Rank r first sends its chunk r - 1. In step 1, 2, ... n - 1 the chunk r - 1 - step "
    "arrives from the left (all % n).",
    "mine = x_N[chunks[(rank - 1 - step) % n]]; arriving = np.empty_like(mine); "
    "comm.sendrecv(partial, right, arriving, left); partial = arriving + mine",
)
def reduce_scatter(answer):
    "The sum over all ranks of chunk r, on rank r."
    views = []
    for n, N in ((2, 4), (4, 8), (3, 7), (5, 13), (3, 2)):
        case = f"{n} ranks, {N} numbers"
        chunks, x = known.cut(N, n), _ranks(n, N, seed=n + N)
        who, _ = _on_network(answer, _who(n, N), case, ring=True)
        results, net = _on_network(answer, x, case, views, ring=True)
        total = sum(x)
        for rank, got in enumerate(results):
            size = _sizes(N, n)[rank]
            if got is not None and np.shape(got) == (size,):
                for other in range(n):
                    wrong = other != rank and total[chunks[other]].shape == (size,)
                    if wrong and size and np.array_equal(got, total[chunks[other]]):
                        raise Miss(
                            f"Off by {(other - rank) % n}: rank {rank} leaves with the sum "
                            f"of chunk {other}. Chunk {rank} must end here, so where does "
                            "it start?", f"{case}: rank {rank}", got, total[chunks[rank]],
                        )  # fmt: skip
                _tell_who(who[rank], n, rank, case)
            same(
                f"{case}: rank {rank}",
                got,
                total[chunks[rank]],
                rule=f"Rank {rank} leaves with the sum of everybody's chunk {rank}.",
            )
        _ring_only(net, case)
        sizes = _sizes(N, n)
        _counted(net, [N - sizes[r] for r in range(n)], case, {
            "The whole array travels in every step: one chunk is enough.": [N * (n - 1)] * n,
        })  # fmt: skip
        if net.steps > n - 1:
            raise Miss("Right, but a queue: all ranks can send at the same time "
                       "(comm.sendrecv).", f"{case}: rounds", net.steps, n - 1)  # fmt: skip
    _keeps_dtype(answer, _ranks(3, 6))
    _tell_views(views)


@chapter.exercise(
    "Everybody passes on what came last, beginning with its own chunk.",
    "In step 0 rank r sends chunk r and receives chunk r - 1; in the next it sends that "
    "one on. n - 1 steps.",
    "leaving = chunks[(rank - step) % n]; arriving = chunks[(rank - step - 1) % n]; "
    "comm.sendrecv(y_N[leaving], right, y_N[arriving], left)",
)
def all_gather(answer):
    "Every rank's chunk, on every rank."
    views = []
    for n, N in ((3, 6), (2, 4), (4, 8), (3, 7), (5, 13), (3, 2)):
        case, whole = f"{n} ranks, {N} numbers", _ranks(1, N, seed=N)[0] + 1000
        parts = [whole[chunk] for chunk in known.cut(N, n)]
        results, net = _on_network(
            lambda part, comm, N=N: answer(part, N, comm), parts, case, views, ring=True
        )
        chunks, sizes = known.cut(N, n), _sizes(N, n)
        for rank, got in enumerate(results):
            if got is not None and np.shape(got) == (N,):
                bad = [
                    i for i in range(n) if not np.array_equal(got[chunks[i]], parts[i])
                ]
                if bad and len(bad) < n:
                    raise Miss(
                        f"Rank {rank} has no right chunk {bad[0]}: which one do you send "
                        "in each step, and where do you put what arrives?",
                        f"{case}: rank {rank}", got, whole,
                    )  # fmt: skip
            same(
                f"{case}: rank {rank}",
                got,
                whole,
                rule="Every rank leaves with chunk 0, chunk 1, ... one after the other.",
            )
        _ring_only(net, case)
        _counted(net, [N - sizes[(r + 1) % n] for r in range(n)], case, {
            "One step too many: after n - 1 steps everything has been everywhere.": [N] * n,
            "The whole array travels in every step: one chunk is enough.": [N * (n - 1)] * n,
        })  # fmt: skip
        if net.steps > n - 1:
            raise Miss("Right, but a queue: all ranks can send at the same time "
                       "(comm.sendrecv).", f"{case}: rounds", net.steps, n - 1)  # fmt: skip
    _keeps_dtype(lambda part, comm: answer(part, 6, comm), _ranks(3, 2))
    _tell_views(views)


@chapter.exercise(
    "You have both halves: first everybody's chunk is summed at its owner, then the sums "
    "go round.",
    "part = reduce_scatter(x_N, comm), then all_gather(part, len(x_N), comm).",
    "For the mean, divide by comm.size where there is least to divide: the part.",
)
def ring_all_reduce(answer):
    "The sum or mean over all ranks, on every rank."
    answer, views = _blame_the_caller(answer), []
    for n, N in ((2, 6), (4, 8), (3, 6), (3, 7), (4, 10), (1, 5), (5, 3)):
        case, x = f"{n} ranks, {N} numbers", _ranks(n, N, seed=n * N)
        who, _ = _on_network(answer, _who(n, N), case, ring=True)
        results, net = _on_network(answer, x, case, views, ring=True)
        total = sum(x)
        for rank, got in enumerate(results):
            if np.shape(got) == (N,):
                _tell_who(who[rank], n, rank, case)
            same(
                f"{case}: rank {rank}",
                got,
                total,
                rule="Every rank leaves with the sum of everybody's numbers.",
            )
        _ring_only(net, case)
        sizes = _sizes(N, n)
        want = (
            [2 * N - sizes[r] - sizes[(r + 1) % n] for r in range(n)] if n > 1 else [0]
        )
        _counted(net, want, case, {
            "Whole arrays went round the ring: cut them first.": [N * (n - 1)] * n,
        })  # fmt: skip
        means, _ = _on_network(
            lambda v, comm: answer(v, comm, mean=True), x, f"{case}, mean=True"
        )
        for rank, got in enumerate(means):
            same(
                f"{case}, mean=True: rank {rank}",
                got,
                total / n,
                rule="Every rank leaves with the sum divided by the number of ranks.",
            )
    x = list(np.random.default_rng(1).normal(size=(4, 9)).astype(np.float32))
    for mean in (False, True):
        results, _ = _on_network(
            lambda v, comm, mean=mean: answer(v, comm, mean=mean), x, "float32"
        )
        for got in results:
            if got.dtype != np.float32:
                raise Miss("float32 goes in, so float32 comes out: gradients would double "
                           "their bytes.", f"4 ranks, mean={mean}", got.dtype, "float32")  # fmt: skip
            if got.tobytes() != results[0].tobytes():
                raise Miss("The ranks leave with sums that differ in the last digit.",
                           "4 ranks, random numbers", got, results[0])  # fmt: skip
    _tell_views(views)


def _blame_the_caller(answer):
    "`answer`; what the halves raise is told as a fault of the call, not of their cells."

    def called(x_N, comm, **options):
        try:
            return answer(x_N, comm, **options)
        except (NotImplementedError, AssertionError, NetworkError):
            raise
        except Exception as error:
            names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
            for half, takes in (
                ("all_gather", "(part, N, comm), with N = len(x_N)"),
                ("reduce_scatter", "(x_N, comm)"),
            ):
                if half in names:
                    raise Miss(
                        f"It calls {half} with something that it cannot use: {half} takes "
                        f"{takes}.", f"{comm.size} ranks, {len(x_N)} numbers",
                        _Words(f"{type(error).__name__}: {error}"), _Words("an array"),
                    ) from None  # fmt: skip
            raise

    return called


@chapter.exercise(
    "Round 1: swap with your neighbour and add. Round 2: swap with the one two away. Then "
    "four away.",
    "The partner at a distance of 1, 2, 4, ... is comm.rank ^ distance: one bit flipped.",
    "while distance < comm.size: comm.sendrecv(y_N, partner, theirs, partner); y_N = y_N + "
    "theirs; distance *= 2",
)
def doubling_all_reduce(answer):
    "The sum over all ranks in log2 n exchanges."
    views = []
    for n in (2, 4, 8, 1):
        case, x = f"{n} ranks, 5 numbers", _ranks(n, 5, seed=n)
        who, _ = _on_network(answer, _who(n, 5), case)
        results, net = _on_network(answer, x, case, views)
        for rank, got in enumerate(results):
            if np.shape(got) == (5,):
                _tell_who(who[rank], n, rank, case)
            same(
                f"{case}: rank {rank}",
                got,
                sum(x),
                rule="Every rank leaves with the sum of everybody's numbers.",
            )
        rounds = n.bit_length() - 1
        if net.steps > rounds:
            raise Miss("Right, but slow: each exchange should double how many ranks' "
                       "numbers you hold.", f"{case}: rounds", net.steps, rounds)  # fmt: skip
    x = list(np.random.default_rng(0).normal(size=(8, 50)))
    results, _ = _on_network(answer, x, "8 ranks, random numbers")
    for rank, got in enumerate(results):
        if got.tobytes() != results[0].tobytes():
            raise Miss(
                f"Ranks 0 and {rank} leave with sums that differ in the last digit: each adds in "
                "another order. Swap in pairs (rank ^ distance): a + b = b + a, exactly."
                , "8 ranks, 50 random numbers", got[:3], results[0][:3],
            )  # fmt: skip
    _keeps_dtype(answer, _ranks(4, 5))
    _tell_views(views)


# ---- what it costs ----


@chapter.exercise(
    "Two unknowns, one equation a measurement: alpha * 1 + beta * bytes = seconds. That is "
    "a line, so least squares.",
    "Plain least squares listens to the largest times alone. Divide each equation by its "
    "seconds: then it is the relative error that counts.",
    "A = np.c_[np.ones(S), bytes_S] / seconds_S[:, None]; np.linalg.lstsq(A, np.ones(S), "
    "rcond=None)[0]",
)
def fit(answer):
    "alpha and beta from measured times, in relative error."
    size = 4.0 ** np.arange(4, 12)
    exact = 5e-5 + 4e-10 * size
    alpha, beta = _two(answer(size, exact))
    slips = {
        "alpha and beta are swapped.": (4e-10, 5e-5),
        "beta is seconds a byte; this is bytes a second.": (5e-5, 1 / 4e-10),
    }
    same("exact times of alpha = 5e-05 s, beta = 4e-10 s/byte",
         (float(f"{alpha:.6g}"), float(f"{beta:.6g}")), (5e-5, 4e-10),
         atol=0, rtol=1e-4)  # fmt: skip
    off = np.array([1.1, 0.9, 1.05, 1.0, 0.9, 1.15, 0.95, 1.1])
    noisy = exact * off
    ones = np.ones(len(size))
    weighted = np.linalg.lstsq(np.c_[ones, size] / noisy[:, None], ones, rcond=None)[0]
    plain = np.polyfit(size, noisy, 1)[::-1]
    slope, start = np.polyfit(np.log(size), np.log(noisy), 1)
    same(
        "the same times, off by up to 15 % each: alpha in us, 1 / beta in GB/s",
        _units(_two(answer(size, noisy))),
        _units(weighted),

        rule="Least squares of (alpha + beta * bytes) / seconds = 1.",
        rtol=1e-4,
    )  # fmt: skip


def _line(size, seconds):
    beta = (seconds[1] - seconds[0]) / (size[1] - size[0])
    return seconds[0] - beta * size[0], beta


def _units(pair):
    return pair[0] * 1e6, 1e-9 / pair[1]


def _two(got):
    if not isinstance(got, (tuple, list, np.ndarray)) or len(got) != 2:
        raise Miss("It should return two numbers, alpha and beta.", "fit(bytes, seconds)",
                   got, _Words("(alpha, beta)"))  # fmt: skip
    if np.ndim(got[0]) or np.ndim(got[1]):
        raise Miss("alpha and beta are two numbers, not arrays.", "fit(bytes, seconds)",
                   got, _Words("(alpha, beta)"))  # fmt: skip
    return got


@chapter.exercise(
    "Count the rounds, and how many bytes one message of each round carries.",
    "star: 2 (n - 1) messages of the whole buffer, one after the other. ring: as many "
    "rounds, of 1/n of it. doubling: log2 n rounds of the whole.",
    "rounds * (alpha + beta * bytes_of_one_message); math.log2(n) counts the doublings.",
)
def cost(answer):
    "Seconds of an all-reduce by the alpha-beta model."
    functions = {
        "star": known.star_all_reduce,
        "ring": known.ring_all_reduce,
        "doubling": known.doubling_all_reduce,
    }
    for alpha, beta, n, N in (
        (1.0, 0.0, 4, 8), (0.0, 1.0, 4, 8), (2.0, 0.5, 8, 16), (3.0, 0.25, 2, 4),
    ):  # fmt: skip
        for name, function in functions.items():
            net = Network(n, alpha, beta)
            net.run(function, _ranks(n, N))
            B = 8 * N
            case = f"cost({name!r}, n={n}, size={B}, alpha={alpha:g}, beta={beta:g})"
            try:
                got = answer(name, n, B, alpha, beta)
            except ZeroDivisionError:
                raise Miss(
                    "It divides by zero. alpha is seconds and beta is seconds a byte: a "
                    "message takes alpha + beta * bytes, and nothing is divided by them.",
                    case, _Words("ZeroDivisionError"), net.time,
                ) from None  # fmt: skip
            same(
                f"{case}; the simulated network says so",
                got,
                net.time,
                rule="Rounds one after the other, each alpha + beta * bytes.",
            )


def _cost_slips(name, n, B, alpha, beta):
    whole, chunk = alpha + beta * B, alpha + beta * B / n
    if name == "star":
        return {
            "Through rank 0: it receives n - 1 and then sends n - 1.": (n - 1) * whole,
            "Rank 0 sends the whole buffer, not 1/n of it.": 2 * (n - 1) * chunk,
        }
    if name == "ring":
        return {
            "Only one half: reduce-scatter and all-gather take n - 1 rounds each.": (
                (n - 1) * chunk
            ),
            "One round too many in each half: n - 1, not n.": 2 * n * chunk,
            "In a ring a message is a chunk, 1/n of the buffer.": 2 * (n - 1) * whole,
            "The bytes are right, but every round pays alpha.": alpha
            + beta * 2 * (n - 1) * B / n,
        }
    return {
        "The bytes are right, but every round pays alpha.": alpha
        + math.log2(n) * beta * B,
        "In doubling every exchange carries the whole buffer.": math.log2(n) * chunk,
        "Doublings are counted by log2, not by the natural logarithm.": math.log(n)
        * whole,
    }


@chapter.exercise(
    "You have cost: ask it twice.",
    "Recursive doubling exists for 2, 4, 8 ... ranks only; for others there is the ring.",
    'if n & (n - 1): return "ring" (no power of two). Else the name with the smaller cost.',
)
def choose(answer):
    "The cheaper all-reduce for this size, number of ranks and network."
    rng = np.random.default_rng(0)
    cases = [(4, 1_000, 1e-4, 1e-9), (4, 10**8, 1e-4, 1e-9), (2, 10**8, 1e-4, 1e-9),
             (6, 100, 1e-4, 1e-9), (1024, 10**7, 1e-5, 2e-11), (8, 10**7, 1e-5, 2e-11)]  # fmt: skip
    for _ in range(60):
        n = int(2 ** rng.integers(1, 11)) + int(rng.integers(0, 2)) * 3
        size, alpha = int(10 ** rng.uniform(1, 10)), 10 ** rng.uniform(-6, -3)
        cases.append((n, size, alpha, 10 ** rng.uniform(-11, -8)))
    for n, size, alpha, beta in cases:
        ring = 2 * (n - 1) * (alpha + beta * size / n)
        power = n & (n - 1) == 0
        doubling = math.log2(n) * (alpha + beta * size)
        want = "doubling" if power and doubling <= ring else "ring"
        got = answer(n, size, alpha, beta)
        if got == want:
            continue
        case = f"choose(n={n}, size={size:,}, alpha={alpha:.2g}, beta={beta:.2g})"
        if got not in ("ring", "doubling"):
            raise Miss("It should return 'ring' or 'doubling'.", case, got, want)
        rule = (
            f"{n} is no power of two: doubling has no partner for everybody there."
            if not power
            else "The ring takes {} s, doubling {} s.".format(*_apart(ring, doubling))
        )
        raise Miss(rule, case, got, want)


def _apart(a, b):
    "Two numbers with as many digits as tell them apart."
    for digits in range(3, 17):
        texts = f"{a:.{digits}g}", f"{b:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts
