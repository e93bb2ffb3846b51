"""A link that is really slow: the kernel paces what a rank sends (Linux), without root.

SO_MAX_PACING_RATE, socket(7) and tc-fq(8): a TCP socket sends no faster than so many
bytes a second. Measured times of gloo's all_reduce are those of the textbook,
2 (n - 1) / n * bytes / rate, within some per cent.
"""

import socket
import struct
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass

from utils.ranks import sockets

PACING = 47  # SO_MAX_PACING_RATE of asm-generic/socket.h; its value is 8 bytes
LEAST = 10_000  # bytes a second: below that a link is as good as cut


@dataclass(eq=False)
class Link:
    """What `slow_link` gives.

    rate     bytes a second that each of this rank's connections may send
    connections  how many are slow
    by       "kernel": every byte is really held back. "sleep": a substitute where the
             system cannot do that; each call of torch.distributed first sleeps for as
             long as the textbook says that its bytes take
    """

    rate: int
    connections: int
    by: str


@contextmanager
def slow_link(bytes_per_s):
    """Inside a rank: `with ranks.slow_link(1.25e6):` everything this rank sends is slow.

    Each rank slows what it sends itself: call it in all ranks for slow cables, in one for
    one weak machine. The limit holds for each connection between two ranks, from block to
    block, and is lifted at the end; blocks may be nested, the innermost counts.

    Yields a Link; where it is only a substitute (no Linux), the rank prints that. Time
    gloo's collectives with it: a send waits for its receiver's answer, which queues behind
    data that go the other way.

    TypeError, ValueError: bytes_per_s is no number, or below 10,000. RuntimeError: this
    process has no connection yet, because it is no rank, or n is 1.
    """
    rate = _rate(bytes_per_s)
    if not sockets.HERE:
        with _asleep(rate):
            yield Link(rate, 0, "sleep")
        return
    before = _pace(dict.fromkeys(sockets.numbers(), rate))
    if not before:
        raise RuntimeError(
            "slow_link slows the connections to other ranks, and there are none: use it "
            "inside ranks.run(fn, n) with n of at least 2"
        )
    try:
        yield Link(rate, len(before), "kernel")
    finally:
        _pace(before)


def _rate(bytes_per_s):
    if isinstance(bytes_per_s, bool) or not isinstance(bytes_per_s, (int, float)):
        raise TypeError(f"bytes_per_s is a number, not {bytes_per_s!r:.60}")
    if not LEAST <= bytes_per_s < 2**63:
        raise ValueError(
            f"bytes_per_s is a rate of at least {LEAST:,} bytes a second, not "
            f"{bytes_per_s!r:.60}"
        )
    return int(bytes_per_s)


def _pace(rates):
    "Set {socket: rate} on the connections that still are; -> their rates before."
    before, numbers = {}, sockets.numbers()
    for name in rates.keys() & numbers.keys():
        try:
            with sockets.opened(numbers[name]) as tcp:
                tcp.getpeername()  # one that only listens has no peer
                now = tcp.getsockopt(socket.SOL_SOCKET, PACING, 8)
                new = struct.pack("=Q", rates[name])  # an int would be cut to 32 bits
                tcp.setsockopt(socket.SOL_SOCKET, PACING, new)
        except OSError:  # no TCP connection
            continue
        before[name] = int.from_bytes(now, sys.byteorder)
    return before


# ---- where no kernel helps ----

SHARE = {  # of a call's bytes that go over a rank's own link, for n ranks
    "send": lambda n: 1.0,
    "broadcast": lambda n: 1.0,
    "reduce": lambda n: 1.0,
    "allreduce": lambda n: 2 * (n - 1) / n,
    "allgather": lambda n: n - 1.0,
    "_allgather_base": lambda n: n - 1.0,
    "reduce_scatter": lambda n: (n - 1) / n,
    "_reduce_scatter_base": lambda n: (n - 1) / n,
    "alltoall": lambda n: (n - 1) / n,
    "alltoall_base": lambda n: (n - 1) / n,
}


@contextmanager
def _asleep(rate):
    "Every call of torch.distributed sleeps first; asynchronous ones, too."
    from torch.distributed import ProcessGroup

    print(
        f"(This system cannot slow a connection down: each call sleeps instead, for as "
        f"long as the textbook says its bytes take at {rate:,} bytes/s.)"
    )
    known = vars(ProcessGroup)
    originals = {road: known[road] for road in SHARE if road in known}
    try:
        for road in originals:
            call = _sleeping(getattr(ProcessGroup, road), SHARE[road], rate)
            setattr(ProcessGroup, road, call)
        yield
    finally:
        for road, original in originals.items():
            setattr(ProcessGroup, road, original)


def _sleeping(call, share, rate):
    def sleeping(group, *arguments, **options):
        time.sleep(share(group.size()) * _bytes(arguments) / rate)
        return call(group, *arguments, **options)

    return sleeping


def _bytes(arguments):
    "Of the tensors that leave: the last one given, or the last list of them."
    import torch

    def size(x):
        if isinstance(x, torch.Tensor):
            return x.nbytes
        if isinstance(x, (list, tuple)):
            return sum(map(size, x))
        return 0

    sizes = [size(x) for x in arguments]
    return next((s for s in reversed(sizes) if s), 0)
