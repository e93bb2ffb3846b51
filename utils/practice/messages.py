"""Messages between ranks in one process: chapter 16's network to practise on.

    net = Network(4)
    results = net.run(fn, inputs)      # fn(inputs[rank], comm) in each rank
    net.steps, net.bytes, net.log      # what it cost

A send waits until its receiver asks for it, as a large message does on a real network.
"""

import threading

import numpy as np

from utils.practice.simulator import NetworkError, Rank, Recv, Send, Simulator


class Comm:
    """One rank's end of the network: `rank`, `size`, and three ways to talk.

    Arrays are NumPy arrays; one that is received into is filled in place and must have
    the size and dtype of what was sent.
    """

    def __init__(self, rank):
        self._own, self.rank, self.size = rank, rank.number, rank.simulator.n

    def __repr__(self):
        return f"<rank {self.rank} of {self.size}>"

    def send(self, x, to):
        "Send x to rank `to`; returns when that rank has it."
        self._wait(self._leaving(x, to))

    def recv(self, into, source):
        "Wait for an array from rank `source` and fill `into` with it."
        self._wait(self._arriving(into, source))

    def sendrecv(self, x, to, into, source):
        "Send x to rank `to` and fill `into` from rank `source`, both at the same time."
        send, recv = self._leaving(x, to), self._arriving(into, source)
        if np.shares_memory(x, into):
            raise NetworkError(
                f"rank {self.rank} receives into memory that it is sending: what "
                "arrives would overwrite what has not left yet"
            )
        self._wait(send, recv)

    def _wait(self, *halves):
        rank = self._own
        if threading.current_thread() is not rank and not rank.simulator.stopped:
            raise NetworkError(f"{self!r} is used by somebody else: use your own comm")
        rank.post(*halves)
        rank.wait(*halves)

    def _leaving(self, x, to):
        return Send(self._own, self._peer(to), self._array(x), x.nbytes)

    def _arriving(self, into, source):
        source = self._peer(source)
        if not self._array(into).flags.writeable:
            raise NetworkError(f"rank {self.rank} receives into a read-only array")

        def fill(send):
            x = send.value
            if x.size != into.size or x.dtype != into.dtype:
                raise NetworkError(
                    f"rank {source} sends {x.size} numbers of {x.dtype} to rank "
                    f"{self.rank}, which made room for {into.size} of {into.dtype}"
                )
            into[...] = x.reshape(into.shape)

        return Recv(self._own, source, fill)

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


class _Talker(Rank):
    def __init__(self, network, number, fn, value):
        super().__init__(network, number)
        self.fn, self.value = fn, value

    def work(self):
        return self.fn(self.value, Comm(self))


class Network(Simulator):
    """`n` ranks joined pairwise; a message of `size` bytes takes alpha + beta * size.

    A rank sends one message and receives one at a time, in both directions at once. With
    the usual alpha = 1 and beta = 0 time counts rounds of messages.

    After `run`: `time` (of the last rank), `steps` (the same, as a whole number of
    messages one after the other, when alpha = 1 and beta = 0), `sent` and `received`
    (bytes of each rank), `bytes` (in all), `messages` and `log`.
    """

    def __init__(self, n, alpha=1.0, beta=0.0):
        if not isinstance(n, (int, np.integer)) or not 1 <= n <= self.MOST:
            raise ValueError(f"a network has 1 to {self.MOST} ranks, not {n!r:.60}")
        if alpha < 0 or beta < 0:
            raise ValueError(
                "alpha and beta are seconds, and seconds per byte: 0 or more"
            )
        super().__init__(int(n), alpha, beta)

    def run(self, fn, inputs=None):
        """Call fn(inputs[rank], comm) in every rank: -> [results].

        Arrays among the inputs are copied: no rank can reach another's memory. Raises
        Deadlock when no rank can go on, NetworkError for a call that makes no sense, and
        whatever fn raised first. No thread stays (one that sleeps ends when it wakes).
        """
        inputs = [None] * self.n if inputs is None else list(inputs)
        if len(inputs) != self.n:
            raise ValueError(f"{self.n} ranks need {self.n} inputs, not {len(inputs)}")
        return self.play([_Talker(self, r, fn, _own(x)) for r, x in enumerate(inputs)])


def _own(value):
    "A copy of what a rank is given, lists and tuples of arrays included."
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, (list, tuple)):
        return type(value)(_own(item) for item in value)
    return value
