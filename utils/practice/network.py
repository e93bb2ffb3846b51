"""A network to practise on: n ranks in one process, which notices when they get stuck.

    net = Network(4)
    results = net.run(fn, inputs)      # fn(inputs[rank], comm) in each rank
    net.steps, net.bytes, net.log      # what it cost

Every rank is a thread, and one runs at a time, in a fixed order: the same run each time.
A send waits until its receiver asks for it, as a large message does on a real network. So
a rank goes on until it must wait; when all wait, messages move, as late as they can.
"""

import math
import threading
from typing import NamedTuple

import numpy as np

from utils.practice.turns import Deadlock, Player, Stop, Table

MOST = 256  # ranks
MOST_MESSAGES = 100_000


class NetworkError(ValueError):
    "A call that no network can carry out: no such rank, a buffer that does not fit."


class Message(NamedTuple):
    "One message of the log: when it left and arrived, from which rank to which."

    left: float
    arrived: float
    source: int
    to: int
    bytes: int


class Comm:
    """One rank's end of the network: `rank`, `size`, and three ways to talk.

    Arrays are NumPy arrays; one that is received into is filled in place and must have
    the size and dtype of what was sent.
    """

    def __init__(self, network, rank):
        self._network, self.rank, self.size = network, rank, network.n

    def __repr__(self):
        return f"<rank {self.rank} of {self.size}>"

    def send(self, x, to):
        "Send x to rank `to`; returns when that rank has it."
        self._network._post(self, _Send(self._array(x), self._peer(to)), None)

    def recv(self, into, source):
        "Wait for an array from rank `source` and fill `into` with it."
        self._network._post(self, None, _Recv(self._buffer(into), self._peer(source)))

    def sendrecv(self, x, to, into, source):
        "Send x to rank `to` and fill `into` from rank `source`, both at the same time."
        send = _Send(self._array(x), self._peer(to))
        recv = _Recv(self._buffer(into), self._peer(source))
        if np.shares_memory(send.array, recv.array):
            raise NetworkError(
                f"rank {self.rank} receives into memory that it is sending: what "
                "arrives would overwrite what has not left yet"
            )
        self._network._post(self, send, recv)

    def _peer(self, rank):
        if not isinstance(rank, (int, np.integer)) or isinstance(rank, bool):
            raise NetworkError(f"a rank is a whole number, not {rank!r:.60}")
        if not 0 <= rank < self.size:
            raise NetworkError(
                f"rank {self.rank} talks to rank {rank}; there are ranks 0 to "
                f"{self.size - 1}"
            )
        if rank == self.rank:
            raise NetworkError(f"rank {rank} talks to itself")
        return int(rank)

    def _array(self, x):
        if not isinstance(x, np.ndarray):
            raise NetworkError(f"what travels is an array, not {type(x).__name__}")
        return x

    def _buffer(self, into):
        if not self._array(into).flags.writeable:
            raise NetworkError(f"rank {self.rank} receives into a read-only array")
        return into


class _Send:
    def __init__(self, array, to):
        self.array, self.peer, self.end = array, to, None

    def __str__(self):
        return f"waits to send to rank {self.peer}"


class _Recv:
    def __init__(self, array, source):
        self.array, self.peer, self.end = array, source, None

    def __str__(self):
        return f"waits to receive from rank {self.peer}"


class _Rank(Player):
    "The thread of one rank, with its clock and the call that it has open."

    def __init__(self, network, number, fn, value):
        super().__init__(network.table, f"rank {number}")
        self.fn, self.value = fn, value
        self.comm, self.clock = Comm(network, number), 0.0
        self.send = self.recv = None

    def work(self):
        return self.fn(self.value, self.comm)

    def waits(self):
        "The halves of its call that are still open."
        return [half for half in (self.send, self.recv) if half and half.end is None]


class Network:
    """`n` ranks joined pairwise; a message of `size` bytes takes alpha + beta * size.

    A rank sends one message and receives one at a time, in both directions at once. With
    the usual alpha = 1 and beta = 0 time counts rounds of messages.

    After `run`: `time` (of the last rank), `steps` (the same, as a whole number of
    messages one after the other, when alpha = 1 and beta = 0), `sent` and `received`
    (bytes of each rank), `bytes` (in all), `messages` and `log`.
    """

    def __init__(self, n, alpha=1.0, beta=0.0):
        if not isinstance(n, (int, np.integer)) or not 1 <= n <= MOST:
            raise ValueError(f"a network has 1 to {MOST} ranks, not {n!r:.60}")
        if alpha < 0 or beta < 0:
            raise ValueError(
                "alpha and beta are seconds, and seconds a byte: 0 or more"
            )
        self.n, self.alpha, self.beta = int(n), alpha, beta
        self._reset()

    def _reset(self):
        self.log, self.time, self.table = [], 0.0, Table()
        self.sent, self.received = [0] * self.n, [0] * self.n

    @property
    def steps(self):
        "Messages that had to wait for each other, one after the other."
        return math.ceil(self.time / self.alpha - 1e-9) if self.alpha else 0

    @property
    def messages(self):
        return len(self.log)

    @property
    def bytes(self):
        "Bytes of payload that all ranks sent."
        return sum(self.sent)

    def run(self, fn, inputs=None):
        """Call fn(inputs[rank], comm) in every rank: -> [results].

        Arrays among the inputs are copied: no rank can reach another's memory. Raises
        Deadlock when no rank can go on, NetworkError for a call that makes no sense, and
        whatever fn raised first. No thread stays (one that sleeps ends when it wakes).
        """
        inputs = [None] * self.n if inputs is None else list(inputs)
        if len(inputs) != self.n:
            raise ValueError(f"{self.n} ranks need {self.n} inputs, not {len(inputs)}")
        self._reset()
        ranks = [_Rank(self, r, fn, _own(value)) for r, value in enumerate(inputs)]
        try:
            for rank in ranks:
                rank.start()
            self._work(ranks)
        finally:
            self.table.stop(ranks)
        self.time = max(rank.clock for rank in ranks)
        return [rank.result for rank in ranks]

    def _work(self, ranks):
        ready = ranks
        while ready:
            for rank in ready:
                rank.turn()
            for rank in ranks:
                if half := rank.send if rank.waits() else None:
                    self._move(rank, half, ranks[half.peer])
            ready = [r for r in ranks if not r.over and not r.waits()]
            for rank in ready:
                ends = [half.end for half in (rank.send, rank.recv) if half]
                rank.clock = max(ends)
        stuck = {
            rank.comm.rank: " and ".join(_why(half, ranks) for half in rank.waits())
            for rank in ranks
            if not rank.over
        }
        if stuck:
            said = "; ".join(f"rank {rank} {what}" for rank, what in stuck.items())
            raise Deadlock(f"deadlock: {said}", stuck)

    def _move(self, rank, send, other):
        "Let `send` arrive if the other rank waits for it."
        recv = other.recv
        if send.end is not None or recv not in other.waits():
            return
        if recv is None or recv.peer != rank.comm.rank:
            return
        x, into = send.array, recv.array
        if x.size != into.size or x.dtype != into.dtype:
            raise NetworkError(
                f"rank {rank.comm.rank} sends {x.size} numbers of {x.dtype} to rank "
                f"{other.comm.rank}, which made room for {into.size} of {into.dtype}"
            )
        into[...] = x.reshape(into.shape)
        left = max(rank.clock, other.clock)
        send.end = recv.end = left + self.alpha + self.beta * x.nbytes
        message = Message(left, send.end, rank.comm.rank, other.comm.rank, x.nbytes)
        self.log.append(message)
        self.sent[message.source] += x.nbytes
        self.received[message.to] += x.nbytes
        if len(self.log) > MOST_MESSAGES:
            raise NetworkError(
                f"more than {MOST_MESSAGES:,} messages: an endless loop?"
            )

    def _post(self, comm, send, recv):
        "Called in a rank's thread: leave a call open and wait until it has happened."
        me = threading.current_thread()
        if self.table.stopped:
            raise Stop
        if getattr(me, "comm", None) is not comm:
            raise NetworkError(f"{comm!r} is used by somebody else: use your own comm")
        me.send, me.recv = send, recv
        me.pause()


def _why(half, ranks):
    "Why one half of a call can't happen."
    gone = ranks[half.peer].over
    return f"{half}, which has returned" if gone else str(half)


def _own(value):
    "A copy of what a rank is given, lists and tuples of arrays included."
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, (list, tuple)):
        return type(value)(_own(item) for item in value)
    return value
