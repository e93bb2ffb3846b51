"""What chapter 16 builds: collectives out of send and receive, and what they cost.

A collective is a function of every rank's own array and its end of the network, `comm`:
a `Comm` of utils.practice to practise on, or a `Wire` between real processes. x_N is a
flat array of N numbers; `cut` says which chunk of it is whose. Inputs are left as they are.
What is no flat array raises TypeError or ValueError on the rank that passed it.

The ring is Patarasuk and Yuan's (2009); tree, doubling and the alpha-beta costs are as
in Thakur, Rabenseifner and Gropp (2005).
"""

import json
import math
import shutil
import tempfile
import time
from itertools import pairwise

import numpy as np

from utils import given
from utils.files import ROOT, temporary
from utils.ranks import left


class Wire:
    """One rank's end of torch.distributed: send, recv and sendrecv of NumPy arrays.

    Made inside a function that `ranks.run` calls: `comm = Wire(rank, n)`.
    """

    def __init__(self, rank, size):
        self.size = given.whole("size", size)
        self.rank = given.whole("rank", rank, 0, self.size - 1)

    def send(self, x, to):
        "Send x to rank `to`; returns when it is on its way."
        from torch import distributed as dist

        dist.send(_tensor(x), to)

    def recv(self, into, source):
        "Wait for an array from rank `source` and fill `into` with it."
        from torch import distributed as dist

        dist.recv(_tensor(into), source)

    def sendrecv(self, x, to, into, source):
        "Send x to rank `to` and fill `into` from rank `source`, both at the same time."
        from torch import distributed as dist

        leaving = dist.isend(_tensor(x), to)
        dist.recv(_tensor(into), source)
        leaving.wait()


def _tensor(array):
    "The same memory as a tensor; a strided array would be copied, and what arrives lost."
    import torch

    if not isinstance(array, np.ndarray):
        kind = given.kind(array)
        raise TypeError(f"what travels is a NumPy array, not {kind}")
    if not array.flags.c_contiguous:
        raise ValueError("only contiguous arrays travel: pass a copy, x.copy()")
    return torch.from_numpy(array)


# ---- in one process: a rank is an entry in a list ----


def pass_right(held):
    "Every rank hands what it holds to the next, the last to rank 0: list -> new list."
    if not isinstance(held, (list, tuple, np.ndarray)):
        raise TypeError(f"held is a list, one entry a rank, not {type(held).__name__}")
    return [held[rank - 1] for rank in range(len(held))]


def cut(N, n):
    "N numbers in n chunks as equal as can be, in order: -> n slices."
    try:
        N, n = given.whole("N", N, least=0), given.whole("n", n)
    except ValueError:
        raise ValueError(
            "cut(N, n) needs N >= 0 and n >= 1, whole numbers, not "
            f"{N!r:.40} and {n!r:.40}"
        ) from None
    ends = [N * i // n for i in range(n + 1)]
    return [slice(a, b) for a, b in pairwise(ends)]


# ---- with messages ----


def _flat(x_N, name="x_N"):
    "x_N, a flat array: of rows, only the first axis would be cut."
    if not isinstance(x_N, np.ndarray):
        kind = given.kind(x_N)
        raise TypeError(f"{name} is a NumPy array on every rank, not {kind}")
    if x_N.ndim != 1:
        raise ValueError(f"{name} is flat, x.ravel(), not of shape {x_N.shape}")
    return x_N


def _room(part, N, comm):
    "An empty (N,) with this rank's chunk of it filled by `part`, and all chunks."
    chunks, y_N = cut(N, comm.size), np.empty(N, _flat(part, "part").dtype)
    mine = y_N[chunks[comm.rank]]
    if len(part) != len(mine):  # one number would be stretched over the chunk
        raise ValueError(
            f"rank {comm.rank}'s chunk of N = {N} has {len(mine)} numbers, "
            f"not {len(part)}"
        )
    mine[:] = part
    return y_N, chunks


def shift(x_N, comm):
    "pass_right with send and recv alone: -> what the left neighbour held."
    left, right = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
    y_N = np.empty_like(x_N)
    if comm.rank % 2 == 0:
        comm.send(x_N, right)
        comm.recv(y_N, left)
    else:
        comm.recv(y_N, left)
        comm.send(x_N, right)
    return y_N


def broadcast(x_N, comm):
    "Rank 0's numbers, on every rank, in ceil(log2 n) rounds: -> (N,)."
    y_N, reach = _flat(x_N).copy(), 1
    while reach < comm.size:
        if comm.rank < reach and comm.rank + reach < comm.size:
            comm.send(y_N, comm.rank + reach)
        elif reach <= comm.rank < 2 * reach:
            comm.recv(y_N, comm.rank - reach)
        reach *= 2
    return y_N


def scatter(x_N, comm):
    "Chunk r of rank 0's numbers, on rank r: -> (N/n,)."
    chunks = cut(len(_flat(x_N)), comm.size)
    if comm.rank == 0:
        for to in range(1, comm.size):
            comm.send(x_N[chunks[to]], to)
        return x_N[chunks[0]].copy()
    mine = np.empty_like(x_N[chunks[comm.rank]])
    comm.recv(mine, 0)
    return mine


def gather(part, N, comm):
    "Every rank's chunk, put together on rank 0: -> (N,) there, None elsewhere."
    y_N, chunks = _room(part, N, comm)
    if comm.rank != 0:
        comm.send(part, 0)
        return None
    for source in range(1, comm.size):
        comm.recv(y_N[chunks[source]], source)
    return y_N


def reduce_scatter(x_N, comm):
    "The sum over all ranks of chunk r, on rank r, round a ring: -> (N/n,)."
    n, rank = comm.size, comm.rank
    chunks = cut(len(_flat(x_N)), n)
    partial = x_N[chunks[(rank - 1) % n]].copy()
    for step in range(1, n):
        mine = x_N[chunks[(rank - 1 - step) % n]]
        arriving = np.empty_like(mine)
        comm.sendrecv(partial, (rank + 1) % n, arriving, (rank - 1) % n)
        arriving += mine
        partial = arriving
    return partial


def all_gather(part, N, comm):
    "Every rank's chunk, put together on every rank, round a ring: -> (N,)."
    n, rank = comm.size, comm.rank
    y_N, chunks = _room(part, N, comm)
    for step in range(n - 1):
        leaving, arriving = chunks[(rank - step) % n], chunks[(rank - step - 1) % n]
        comm.sendrecv(y_N[leaving], (rank + 1) % n, y_N[arriving], (rank - 1) % n)
    return y_N


def ring_all_reduce(x_N, comm, mean=False):
    "The sum (or mean) over all ranks, on every rank, round a ring: -> (N,)."
    part = reduce_scatter(x_N, comm)
    if mean:
        part = part / comm.size
    return all_gather(part, len(x_N), comm)


def ring_in_place(x_N, comm, spare_N):
    "ring_all_reduce without new memory: the sum replaces x_N; spare_N has N // n + 1."
    n, rank = comm.size, comm.rank
    chunks, right, left = cut(len(_flat(x_N)), n), (rank + 1) % n, (rank - 1) % n
    if len(_flat(spare_N, "spare_N")) * n < len(x_N) or spare_N.dtype != x_N.dtype:
        raise ValueError(
            f"spare_N has N // n + 1 = {len(x_N) // n + 1} numbers of {x_N.dtype}, not "
            f"{len(spare_N)} of {spare_N.dtype}"
        )
    for step in range(n - 1):
        mine = x_N[chunks[(rank - 2 - step) % n]]
        arriving = spare_N[: len(mine)]
        comm.sendrecv(x_N[chunks[(rank - 1 - step) % n]], right, arriving, left)
        mine += arriving
    for step in range(n - 1):
        leaving, arriving = chunks[(rank - step) % n], chunks[(rank - step - 1) % n]
        comm.sendrecv(x_N[leaving], right, x_N[arriving], left)


def doubling_all_reduce(x_N, comm):
    "The sum over all ranks, on every rank, in log2 n exchanges: -> (N,)."
    if comm.size & (comm.size - 1):
        raise ValueError(f"recursive doubling needs 2, 4, 8 ... ranks, not {comm.size}")
    y_N, theirs, distance = _flat(x_N).copy(), np.empty_like(x_N), 1
    while distance < comm.size:
        partner = comm.rank ^ distance
        comm.sendrecv(y_N, partner, theirs, partner)
        y_N += theirs
        distance *= 2
    return y_N


def star_all_reduce(x_N, comm):
    "The sum over all ranks, on every rank, by way of rank 0: -> (N,)."
    y_N = _flat(x_N).copy()
    if comm.rank == 0:
        theirs = np.empty_like(x_N)
        for source in range(1, comm.size):
            comm.recv(theirs, source)
            y_N += theirs
        for to in range(1, comm.size):
            comm.send(y_N, to)
    else:
        comm.send(x_N, 0)
        comm.recv(y_N, 0)
    return y_N


# ---- what it costs ----


def fit(bytes_S, seconds_S):
    """alpha (s), beta (s a byte) of seconds = alpha + beta * bytes, in relative error.

    (S,), (S,) -> two numbers; seconds above 0, at least two different sizes.
    """
    bytes_S, seconds_S = given.arrays(bytes_S=bytes_S, seconds_S=seconds_S)
    if not np.isfinite(bytes_S).all():
        raise ValueError(f"bytes are finite numbers, not {bytes_S!r:.60}")
    if len(set(bytes_S.tolist())) < 2:
        raise ValueError("a line needs messages of at least two different sizes")
    if not (np.isfinite(seconds_S).all() and seconds_S.min() > 0):
        raise ValueError(f"seconds are above 0, not {seconds_S!r:.60}")
    A = np.c_[np.ones(len(bytes_S)), bytes_S] / seconds_S[:, None]
    alpha, beta = np.linalg.lstsq(A, np.ones(len(A)), rcond=None)[0]
    return alpha, beta


def cost(algorithm, n, size, alpha, beta):
    """Seconds of an all-reduce of `size` bytes on n ranks, 'star', 'ring', 'doubling'.

    alpha: seconds a message, beta: seconds a byte; size may be an array.
    """
    given.whole("n", n)
    if not all((x >= 0).all() for x in map(np.asarray, (size, alpha, beta))):  # not nan
        raise ValueError("size, alpha and beta are at least 0")
    if algorithm == "star":
        return 2 * (n - 1) * (alpha + beta * size)
    if algorithm == "ring":
        return 2 * (n - 1) * (alpha + beta * size / n)
    if algorithm == "doubling":
        return math.log2(n) * (alpha + beta * size)
    raise ValueError(f"'star', 'ring' or 'doubling', not {algorithm!r}")


def choose(n, size, alpha, beta):
    "The cheaper of 'ring' and 'doubling'; doubling needs a power of two."
    names = ("ring", "doubling") if given.whole("n", n).bit_count() == 1 else ("ring",)
    return min(names, key=lambda name: cost(name, n, size, alpha, beta))


# ---- without messages: ranks of one machine that share memory ----


def share(folder, rank, n, N, dtype=np.float32):
    """n arrays of N numbers that n ranks of one machine all see: -> [(N,)], by rank.

    Call it in every rank, with a folder that they share (`shared_folder`). Entry `rank`
    is this rank's own to write; they begin with zeros.
    """
    n, N = given.whole("n", n), given.whole("N", N)
    rank = given.whole("rank", rank, 0, n - 1)
    from torch import distributed as dist

    files = [f"{folder}/{r}" for r in range(n)]
    np.memmap(files[rank], dtype, "w+", shape=N).flush()
    dist.barrier()
    maps = [np.memmap(file, dtype, "r+", shape=N) for file in files]
    return [np.asarray(one) for one in maps]  # plain arrays: a memmap is slow to slice


def shared_add(all_RN, rank, block=16_384):
    """All-reduce in place of arrays from `share`: rank r adds chunk r of everybody's.

    `block` numbers at a time, few enough for a core's cache.
    """
    rank = given.whole("rank", rank, 0, len(all_RN) - 1)
    block = given.whole("block", block)
    from torch import distributed as dist

    first_N, *rest_RN = all_RN
    mine = cut(len(first_N), len(all_RN))[rank]
    dist.barrier()  # everybody has written
    for start in range(mine.start, mine.stop, block):
        here = slice(start, min(start + block, mine.stop))
        for theirs_N in rest_RN:
            first_N[here] += theirs_N[here]
        for theirs_N in rest_RN:
            theirs_N[here] = first_N[here]
    dist.barrier()  # everybody has added


def shared_folder(needed):
    """A temporary folder in memory where it has room for `needed` bytes, else on disk.

    -> tempfile.TemporaryDirectory. Those that killed processes left are removed first.
    """
    needed = given.number("needed", needed)
    left.sweep(tempfile.gettempdir())
    memory = left.MEMORY
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2 * needed
    return temporary(left.SHARED, memory if roomy else None)


# ---- timing ----


def in_turns(racers, repeats):
    """Inside a rank: seconds of each function, in turns: -> {name: (repeats,)}.

    Every rank passes the same names; a barrier before each call lets all begin together.
    The first round warms up and is not counted.
    """
    repeats = given.whole("repeats", repeats)
    if not isinstance(racers, dict):
        raise TypeError(f"racers is {{name: function}}, not {type(racers).__name__}")
    from torch import distributed as dist

    seconds = {name: [] for name in racers}
    for _ in range(repeats + 1):
        for name, run in racers.items():
            dist.barrier()
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(times[1:]) for name, times in seconds.items()}


def slowest(by_rank):
    "What `in_turns` gave on each rank -> the slowest rank's seconds, {name: (repeats,)}."
    if not isinstance(by_rank, (list, tuple)) or not by_rank:
        raise ValueError("by_rank is a list, one {name: seconds} of each rank")
    return {name: np.max([r[name] for r in by_rank], axis=0) for name in by_rank[0]}


# ---- sourced figures ----


def links():
    "Networks and what a message costs on them: [{name, alpha (s), beta (s/byte), ...}]."
    file = ROOT / "utils" / "data" / "links.json"
    return [
        {**link, "alpha": link["alpha_us"] * 1e-6, "beta": 1e-9 / link["gb_per_s"]}
        for link in json.loads(file.read_text(encoding="utf-8"))["links"]
    ]
