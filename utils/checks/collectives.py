"""Chapter 16: messages without deadlock, collectives out of them, and what they cost.

Every function runs on a practice network (utils.practice), which counts what it sends and
says who waits for whom when it gets stuck.
"""

import contextlib
import inspect

import numpy as np

from utils.built import collectives as known
from utils.exercises import Chapter, Miss, same
from utils.practice import Deadlock, Network, NetworkError

chapter = Chapter("16_collectives")


def network(case, fn, inputs, hint=""):
    """fn(input, comm) on as many ranks as there are inputs: -> results by rank, the network.

    A Miss where no rank can go on, or where a call makes no sense: `hint` is added.
    """
    net = Network(len(inputs))
    try:
        return net.run(fn, inputs), net
    except Deadlock as stuck:
        rule = "Deadlock: a message that nobody takes, or that nobody sends."
        if stuck.circle:
            rule = "Deadlock: the ranks wait for each other, and nobody can go on."
        got = "; ".join(f"rank {rank} {what}" for rank, what in stuck.waits.items())
        raise Miss(rule, case, Words(got), Words("every rank returns")) from None
    except NetworkError as error:
        rule = f"No network can carry this out. {hint}".strip()
        raise Miss(rule, case, Words(error), Words("a message that fits")) from None


class Words(str):
    "Text that a report shows without quotation marks."

    def __repr__(self):
        return str(self)


def numbers(n, N):
    "n ranks' numbers, different on every rank, whole, so that every sum is exact."
    return list(np.random.default_rng(n * N).integers(-50, 50, (n, N)).astype(float))


def digits(n, N):
    "Rank r brings 10**r: the digits of a sum say who is in it, and how often."
    return [np.full(N, 10.0**rank) for rank in range(n)]


def chunks_of(answer, N, n):
    "The chunks by the reader's own `cut`, where it is right: borders may round up or down."
    chunks = known.cut(N, n)
    cut = getattr(inspect.unwrap(answer), "__globals__", {}).get("cut")
    with contextlib.suppress(Exception):
        own = list(cut(N, n))
        rows = [np.arange(N)[chunk] for chunk in own]
        sizes = [len(row) for row in rows]
        whole = np.concatenate(rows).tolist() == list(range(N)) and len(rows) == n
        if whole and max(sizes) - min(sizes) <= 1:
            chunks = own
    return chunks


def each_rank(case, results, want, rule):
    "From the last rank on: rank 0 is the one that special cases get right."
    for rank in reversed(range(len(results))):
        same(f"{case}: rank {rank}", results[rank], want[rank], rule)


def sends(case, net, want, rule):
    "How many numbers (of 8 bytes) each rank sends."
    sent = [size // 8 for size in net.sent]
    same(f"{case}: numbers that each rank sends", sent, want, rule)


def keeps_dtype(fn, inputs):
    "float32 in, float32 out."
    rule = (
        "float32 goes in, so float32 comes out: np.empty(N) makes float64, whatever "
        "comes. Give it a dtype, or use np.empty_like."
    )
    case = f"{len(inputs)} ranks, float32"
    inputs = [x.astype(np.float32) for x in inputs]
    results, _ = network(case, fn, inputs, hint=rule)
    kinds = [
        str(getattr(x, "dtype", type(x).__name__)) for x in results if x is not None
    ]
    same(f"{case}: dtypes of the results", kinds, ["float32"] * len(kinds), rule)


def in_a_ring(case, net, sent, rounds):
    "Every message goes to the right neighbour, no larger or later than needed."
    wrong = [
        f"rank {m.source} sends to rank {m.to}"
        for m in net.log
        if (m.to - m.source) % net.n != 1
    ]
    same(f"{case}: messages to others than the right neighbour", wrong[:3], [],
         "In a ring each rank sends to (rank + 1) % size only.")  # fmt: skip
    sends(case, net, sent, "Right, and too much travels: one chunk in each step, and n - 1 "
          "steps for each half.")  # fmt: skip
    if net.steps > rounds:
        raise Miss("Right, but a queue: all ranks can send at the same time "
                   "(comm.sendrecv).", f"{case}: rounds", net.steps, rounds)  # fmt: skip


# ---- in a list ----


@chapter.exercise(
    "Rank 0 receives from the last rank, rank r from rank r - 1.",
    "Build a new list: what stands at place r of it? The old one must stay readable.",
    "held[r - 1] for r = 0, 1, ...; Python's held[-1] is already the last one.",
)
def pass_right(answer):
    "Every rank hands what it holds to the next one."
    for held in ([10.0, 20.0, 30.0, 40.0], [1.0, 2.0], [7.0], [5.0, 6.0, 5.0]):
        same(
            f"pass_right({held})", answer(list(held)), [held[-1], *held[:-1]],
            "Place r of the new list holds what place r - 1 of the old one held; place 0 "
            "what the last one held.",
        )  # fmt: skip


@chapter.exercise(
    "n + 1 borders: 0, then ..., then N. Chunk i lies between border i and i + 1.",
    "Border i is i/n of the way from 0 to N, rounded down: whole numbers only.",
    "ends = [N * i // n for i in range(n + 1)]; slice(ends[i], ends[i + 1])",
)
def cut(answer):
    "N numbers in n chunks as equal as can be."
    for N, n in ((12, 4), (10, 4), (7, 3), (2, 3), (5, 1), (1001, 8), (15, 11), (0, 2)):
        case = f"cut({N}, {n})"
        got = list(answer(N, n))
        if not all(isinstance(chunk, slice) for chunk in got):
            raise Miss(
                "It returns slices: slice(start, stop).", case, got, [slice(0, 3)]
            )
        rows = [np.arange(N)[chunk] for chunk in got]
        sizes = [len(row) for row in rows]
        same(f"{case}: number of chunks", len(got), n, "One chunk for each rank.")
        same(f"{case}: how many numbers they hold", sum(sizes), N,
             "Every number is in one chunk: N // n each would leave a rest, and a border "
             "belongs to one side.")  # fmt: skip
        same(f"{case}: all numbers, chunk by chunk", np.concatenate(rows), np.arange(N),
             "The chunks are in order: rank 0 has the first.")  # fmt: skip
        if max(sizes) - min(sizes) > 1:
            raise Miss("Sizes differ by 1 at most: the ring waits for its largest chunk.",
                       f"{case}: sizes", sizes, [N * (i + 1) // n - N * i // n for i in range(n)])  # fmt: skip


# ---- messages ----


@chapter.exercise(
    "If all send first, nobody receives. Who could begin with receiving?",
    "Even ranks send first, odd ranks receive first. Two calls each.",
    "y = np.empty_like(x_N); if comm.rank % 2 == 0: send, recv; else: recv, send.",
    fresh=True,
)
def shift(answer):
    "What the left neighbour held, with send and recv alone."

    def refused(*_, **__):
        raise Miss("It calls comm.sendrecv: here send and recv alone do it.")

    def alone(x_N, comm):
        comm.sendrecv = refused
        return answer(x_N, comm)

    for n, N in ((2, 3), (4, 1), (3, 5), (5, 2), (8, 7)):
        case = f"{n} ranks, rank r holds {N} times 10 r"
        held = [np.full(N, 10.0 * rank) for rank in range(n)]
        results, net = network(case, alone, held, "Round the ring with % size.")
        each_rank(case, results, [held[-1], *held[:-1]],
                  "Every rank leaves with its left neighbour's numbers.")  # fmt: skip
        if net.steps > 3:
            raise Miss("Right, but slow: three rounds are enough for any number of ranks. "
                       "Who could send at the same time?", f"{case}: rounds", net.steps,
                       Words("3 or fewer"))  # fmt: skip
    keeps_dtype(alone, numbers(3, 4))


@chapter.exercise(
    "Whoever knows it can tell others: in each round twice as many ranks know it.",
    "Ranks below `reach` know it. Each tells rank + reach, if there is one; then reach "
    "doubles.",
    "while reach < size: rank < reach sends to rank + reach (if < size); reach <= rank < "
    "2 * reach receives from rank - reach.",
    fresh=True,
)
def broadcast(answer):
    "Rank 0's numbers, on every rank."
    for n, N in ((2, 3), (4, 1), (3, 5), (8, 2), (6, 7), (1, 4), (5, 9)):
        case = f"{n} rank{'s' * (n > 1)}, {N} number{'s' * (N > 1)}"
        x, rounds = numbers(n, N), (n - 1).bit_length()
        results, net = network(case, answer, x, "Is there a rank + reach? Only if it is "
                               "below size.")  # fmt: skip
        each_rank(case, results, [x[0]] * n, "Every rank leaves with rank 0's numbers.")
        same(f"{case}: messages", net.messages, n - 1,
             "Somebody is told twice: n - 1 messages tell everybody.")  # fmt: skip
        busiest = max(net.sent) // x[0].nbytes
        if busiest > rounds:
            raise Miss("Right, but one rank tells too many. Let those who know it help.",
                       f"{case}: messages of the busiest rank", busiest,
                       Words(f"{rounds} or fewer"))  # fmt: skip
        same(f"{case}: rounds", net.steps, rounds,
             "Right, but slow: in every round everybody who knows it can tell one more.")  # fmt: skip
    keeps_dtype(answer, numbers(3, 4))


@chapter.exercise(
    "Rank 0 sends, all others receive: two branches.",
    "chunks = cut(len(x_N), comm.size); rank 0 sends x_N[chunks[r]] to each r but itself.",
    "Elsewhere: mine = np.empty_like(x_N[chunks[comm.rank]]); comm.recv(mine, 0). Rank 0 "
    "returns a copy of its own chunk.",
    fresh=True,
)
def scatter(answer):
    "Chunk r of rank 0's numbers, on rank r."
    for n, N in ((3, 6), (4, 10), (2, 7), (5, 3), (1, 4)):
        case, x = f"{n} rank{'s' * (n > 1)}, {N} numbers", numbers(n, N)
        chunks = chunks_of(answer, N, n)
        results, net = network(case, answer, x, "Rank 0 keeps its own chunk.")
        each_rank(case, results, [x[0][chunk] for chunk in chunks],
                  "Rank r leaves with chunk r of rank 0's numbers.")  # fmt: skip
        sends(case, net, [N - len(x[0][chunks[0]])] + [0] * (n - 1),
              "Right, and too much travels: rank 0 sends every other rank its chunk only.")  # fmt: skip
    keeps_dtype(answer, numbers(3, 6))


@chapter.exercise(
    "The mirror of scatter: all others send, rank 0 receives from each.",
    "Rank 0 makes room for N numbers, puts its own part there, and receives from ranks 1, "
    "2, ... into their chunks.",
    "comm.recv(y_N[chunks[source]], source): a slice of an array is the same memory, so "
    "what arrives stands in y_N.",
    fresh=True,
)
def gather(answer):
    "Every rank's chunk, put together on rank 0."
    for n, N in ((2, 6), (4, 10), (3, 7), (5, 3), (1, 4)):
        case, whole = f"{n} rank{'s' * (n > 1)}, {N} numbers", np.arange(1.0, N + 1)
        parts = [whole[chunk] for chunk in chunks_of(answer, N, n)]
        results, net = network(
            case, lambda part, comm, N=N: answer(part, N, comm), parts,
            "Rank 0 makes as much room as chunk r needs, and sends nothing to itself.",
        )  # fmt: skip
        same(f"{case}: rank 0", results[0], whole,
             "Rank 0 leaves with chunk 0, chunk 1, ... one after the other.")  # fmt: skip
        for rank, got in enumerate(results[1:], 1):
            if got is not None:
                raise Miss("Only rank 0 has it all; the others return None.",
                           f"{case}: rank {rank}", got, None)  # fmt: skip
        sends(case, net, [0] + [len(part) for part in parts[1:]],
              "Right, and too much travels: every rank but 0 sends its chunk, once.")  # fmt: skip
    keeps_dtype(lambda part, comm: answer(part, 6, comm), numbers(3, 2))


@chapter.exercise(
    "A partial sum travels: it arrives, you add your own numbers of that chunk, it moves "
    "on. It must end at its owner, so it starts at the owner's right neighbour.",
    "Rank r first sends its chunk r - 1. In step 1, 2, ... n - 1 the chunk r - 1 - step "
    "arrives from the left (all % n).",
    "mine = x_N[chunks[(rank - 1 - step) % n]]; arriving = np.empty_like(mine); "
    "comm.sendrecv(partial, right, arriving, left); partial = arriving + mine",
    fresh=True,
)
def reduce_scatter(answer):
    "The sum over all ranks of chunk r, on rank r."
    for n, N in ((4, 8), (2, 4), (3, 7), (5, 13), (3, 2), (1, 5)):
        case = f"{n} rank{'s' * (n > 1)}, {N} numbers"
        x, chunks = numbers(n, N), chunks_of(answer, N, n)
        sizes = [len(x[0][chunk]) for chunk in chunks]
        who, _ = network(case, answer, digits(n, N), "Round the ring with % size.")
        each_rank(f"{case}, rank r brings 10**r", who,
                  [np.full(size, sum(10.0**r for r in range(n))) for size in sizes],
                  "The digits of the sum say who is in it: 0 where a rank is missing, 2 "
                  "where it came twice.")  # fmt: skip
        results, net = network(case, answer, x)
        each_rank(case, results, [sum(x)[chunk] for chunk in chunks],
                  "Everybody is in the sum, but of another chunk: rank r leaves with that "
                  "of chunk r, so where does it start?")  # fmt: skip
        in_a_ring(case, net, [N - size for size in sizes], rounds=n - 1)
    keeps_dtype(answer, numbers(3, 6))


@chapter.exercise(
    "Everybody passes on what came last, beginning with its own chunk.",
    "In step 0 rank r sends chunk r and receives chunk r - 1; in the next it sends that "
    "one on. n - 1 steps.",
    "leaving = chunks[(rank - step) % n]; arriving = chunks[(rank - step - 1) % n]; "
    "comm.sendrecv(y_N[leaving], right, y_N[arriving], left)",
    fresh=True,
)
def all_gather(answer):
    "Every rank's chunk, on every rank."
    for n, N in ((4, 8), (2, 4), (3, 7), (5, 13), (3, 2), (1, 5)):
        case, whole = f"{n} rank{'s' * (n > 1)}, {N} numbers", np.arange(1.0, N + 1)
        parts = [whole[chunk] for chunk in chunks_of(answer, N, n)]
        results, net = network(
            case, lambda part, comm, N=N: answer(part, N, comm), parts,
            "Round the ring with % size; chunk r has room for what rank r began with.",
        )  # fmt: skip
        each_rank(case, results, [whole] * n,
                  "Every rank leaves with chunk 0, chunk 1, ...: which one do you send in "
                  "each step, and where do you put what arrives?")  # fmt: skip
        sent = [N - len(parts[(rank + 1) % n]) for rank in range(n)]
        in_a_ring(case, net, sent, rounds=n - 1)
    keeps_dtype(lambda part, comm: answer(part, 6, comm), numbers(3, 2))


@chapter.exercise(
    "You have both halves: first everybody's chunk is summed at its owner, then the sums "
    "go round.",
    "part = reduce_scatter(x_N, comm), then all_gather(part, len(x_N), comm).",
    "For the mean, divide by comm.size where there is least to divide: the part.",
    fresh=True,
)
def ring_all_reduce(answer):
    "The sum or mean over all ranks, on every rank."
    for n, N in ((2, 6), (4, 8), (3, 7), (4, 10), (1, 5), (5, 3)):
        case, x = f"{n} rank{'s' * (n > 1)}, {N} numbers", numbers(n, N)
        who, _ = network(case, answer, digits(n, N), "Round the ring with % size.")
        each_rank(f"{case}, rank r brings 10**r", who,
                  [np.full(N, sum(10.0**r for r in range(n)))] * n,
                  "The digits of the sum say who is in it: 0 where a rank is missing, 2 "
                  "where it came twice.")  # fmt: skip
        results, net = network(case, answer, x)
        each_rank(case, results, [sum(x)] * n,
                  "Every rank leaves with the sum of everybody's numbers, in order.")  # fmt: skip
        sizes = [len(x[0][chunk]) for chunk in chunks_of(answer, N, n)]
        sent = [2 * N - sizes[rank] - sizes[(rank + 1) % n] for rank in range(n)]
        in_a_ring(case, net, sent if n > 1 else [0], rounds=2 * (n - 1))
        means, _ = network(case, lambda v, comm: answer(v, comm, mean=True), x)
        each_rank(f"{case}, mean=True", means, [sum(x) / n] * n,
                  "Every rank leaves with the sum divided by the number of ranks.")  # fmt: skip
    for mean in (False, True):
        keeps_dtype(
            lambda v, comm, mean=mean: answer(v, comm, mean=mean), numbers(4, 9)
        )
    equal_bits(answer, 4)


def equal_bits(answer, n):
    x = list(np.random.default_rng(0).normal(size=(n, 50)))
    case = f"{n} ranks, 50 random numbers"
    results, _ = network(case, answer, x)
    for rank, got in enumerate(results):
        same(f"{case}: largest difference between ranks 0 and {rank}",
             abs(got - results[0]).max(), 0.0, atol=0.0,
             rule="The ranks leave with sums that differ in the last digit: each adds in "
             "another order.")  # fmt: skip


@chapter.exercise(
    "Round 1: swap with your neighbour and add. Round 2: swap with the one two away. Then "
    "four away.",
    "The partner at a distance of 1, 2, 4, ... is comm.rank ^ distance: one bit flipped.",
    "while distance < comm.size: comm.sendrecv(y_N, partner, theirs, partner); y_N = y_N + "
    "theirs; distance *= 2",
    fresh=True,
)
def doubling_all_reduce(answer):
    "The sum over all ranks in log2 n exchanges."
    for n, N in ((2, 3), (4, 5), (8, 1), (1, 4)):
        case = f"{n} rank{'s' * (n > 1)}, {N} number{'s' * (N > 1)}"
        x = numbers(n, N)
        who, _ = network(case, answer, digits(n, N), "Your partner is rank ^ distance.")
        each_rank(f"{case}, rank r brings 10**r", who,
                  [np.full(N, sum(10.0**r for r in range(n)))] * n,
                  "The digits of the sum say who is in it: 0 where a rank is missing, 2 "
                  "where it came twice.")  # fmt: skip
        results, net = network(case, answer, x)
        each_rank(case, results, [sum(x)] * n,
                  "Every rank leaves with the sum of everybody's numbers.")  # fmt: skip
        same(f"{case}: rounds", net.steps, n.bit_length() - 1,
             "Right, but slow: each exchange doubles how many ranks' numbers you hold.")  # fmt: skip
    equal_bits(answer, 8)
    keeps_dtype(answer, numbers(4, 5))


# ---- what it costs ----


@chapter.exercise(
    "Two unknowns, one equation per measurement: alpha * 1 + beta * bytes = seconds. That "
    "is a line, so least squares.",
    "Plain least squares listens to the largest times alone. Divide each equation by its "
    "seconds: then it is the relative error that counts.",
    "A = np.c_[np.ones(S), bytes_S] / seconds_S[:, None]; np.linalg.lstsq(A, np.ones(S), "
    "rcond=None)[0]",
)
def fit(answer):
    "alpha and beta from measured times, in relative error."
    size = 4.0 ** np.arange(4, 12)
    off = np.array([1.1, 0.9, 1.05, 1.0, 0.9, 1.15, 0.95, 1.1])
    for alpha, beta in ((5e-5, 4e-10), (0.5, 2e-6)):
        exact = alpha + beta * size
        case = f"times of alpha = {alpha:g} s, beta = {beta:g} s per byte"
        for what, seconds in (
            (f"exact {case}", exact),
            (f"{case}, each off by up to 15 %", exact * off),
        ):
            fresh_nans(len(size))
            same(
                f"{what}: alpha in us, beta in ns per byte",
                _units(answer(size.copy(), seconds.copy()), what),
                _units(known.fit(size, seconds), what),
                "Least squares of (alpha + beta * bytes) / seconds = 1.",
                rtol=1e-4,
            )


def fresh_nans(size):
    "Leave nan in the memory that np.empty hands out next."
    blocks = [np.full(size, np.nan) for _ in range(20)]
    del blocks


def _units(got, case):
    if np.shape(got) != (2,):
        raise Miss("It returns two numbers, alpha and beta.", case, got,
                   Words("(alpha, beta)"))  # fmt: skip
    return float(got[0]) * 1e6, float(got[1]) * 1e9


@chapter.exercise(
    "Count the rounds, and how many bytes one message of each round carries.",
    "star: 2 (n - 1) messages of the whole buffer, one after the other. ring: as many "
    "rounds, of 1/n of it. doubling: log2 n rounds of the whole.",
    "rounds * (alpha + beta * bytes_of_one_message); math.log2(n) counts the doublings.",
)
def cost(answer):
    "Seconds of an all-reduce by the alpha-beta model."
    for n, N, alpha, beta in (
        (4, 8, 1.0, 0.0), (4, 8, 0.0, 1.0), (8, 16, 2.0, 0.5), (2, 4, 3.0, 0.25),
    ):  # fmt: skip
        for name in ("star", "ring", "doubling"):
            net = Network(n, alpha, beta)
            net.run(getattr(known, f"{name}_all_reduce"), numbers(n, N))
            case = (
                f"cost({name!r}, n={n}, size={8 * N}, alpha={alpha:g}, beta={beta:g})"
            )
            same(f"{case}; the network's clock says so",
                 answer(name, n, 8 * N, alpha, beta), net.time,
                 "Rounds one after the other, each alpha + beta * bytes of one message.")  # fmt: skip
    for name, rounds, share in (("star", 14, 1), ("ring", 14, 8), ("doubling", 3, 1)):
        odd = 10_000_001
        same(f"cost({name!r}, n=8, size={odd:,}, alpha=1e-4, beta=1e-9)",
             answer(name, 8, odd, 1e-4, 1e-9), rounds * (1e-4 + 1e-9 * odd / share),
             "Bytes need not divide by n, and seconds are fractions: / and not //.",
             rtol=1e-9)  # fmt: skip
        sizes = np.array([8e3, 4e6])
        same(f"cost({name!r}, n=8, an array of sizes [8e3, 4e6], alpha=1e-4, beta=1e-9)",
             answer(name, 8, sizes, 1e-4, 1e-9), rounds * (1e-4 + 1e-9 * sizes / share),
             "Plain arithmetic works for an array of sizes, too: a figure asks for one.")  # fmt: skip


@chapter.exercise(
    "You have cost: ask it twice.",
    "Recursive doubling exists for 2, 4, 8 ... ranks only; for others there is the ring.",
    'if n & (n - 1): return "ring" (no power of two). Else the name with the smaller cost.',
)
def choose(answer):
    "The cheaper all-reduce for this size, number of ranks and network."
    cases = [
        (4, 10**8, 1e-4, 1e-9), (5, 100, 1e-4, 1e-9), (6, 100, 1e-4, 1e-9),
        (2, 50_000, 1e-4, 1e-9), (4, 1_000, 1e-4, 1e-9), (4, 50_000, 1e-4, 1e-8),
        (2, 10**8, 1e-4, 1e-9), (1024, 25e6, 1e-5, 2e-11), (8, 25e6, 1e-5, 2e-11),
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    for n in (2, 4, 5, 8, 12, 16, 64, 67, 256, 1024):
        for wire in zip(10 ** rng.uniform(-6, -3, 6), 10 ** rng.uniform(-11, -8, 6)):
            cases.append((n, int(10 ** rng.uniform(1, 10)), *wire))
    for n, size, alpha, beta in cases:
        ring, doubling = (
            known.cost(a, n, size, alpha, beta) for a in ("ring", "doubling")
        )
        rule = f"The ring takes {ring:.4g} s, doubling {doubling:.4g} s."
        got = answer(n, size, alpha, beta)
        want = "ring" if ring < doubling else "doubling"
        if abs(ring - doubling) <= 1e-12 * ring:
            want = got  # a tie
        if n & (n - 1):
            want, rule = "ring", f"{n} is no power of two: there is no doubling."
        case = f"choose(n={n}, size={size:,}, alpha={alpha:.2g}, beta={beta:.2g})"
        if got not in ("ring", "doubling"):
            raise Miss("It returns 'ring' or 'doubling'.", case, got, want)
        same(case, str(got), str(want), rule)
