"""torch.distributed rehearsed in one process: the simulator's face from chapter 17 on.

    results = rehearse(fn, 4)      # fn(rank, 4) with dist.all_reduce ..., as in ranks.run

It has the collective calls, send and recv and their asynchronous kin, and groups.

The same function then runs on real processes. The rehearsal is quick, comes out alike
every time, and says at once what real processes would only hang on: a rank that nobody
answers (Deadlock), or ranks that make different calls (Mismatch). A result is written at
`wait()` and no sooner, so that a forgotten wait shows.
"""

import random
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from utils.practice.groups import members, whole_group
from utils.practice.simulator import Rank, Simulator
from utils.practice.stand_ins import stand_ins


@dataclass
class Call:
    "One call of one rank that sends or receives, in the order in which they were made."

    rank: int
    name: str
    numbers: int  # of the tensor
    bytes: int  # of the tensor, or of the pickled object
    asynchronous: bool
    in_backward: bool
    waited_in_backward: bool = False  # backward stood still until all ranks had come


def rehearse(fn, n=4, seed=0, calls=None):
    """Call fn(rank, n) in `n` threads, joined by a stand-in of torch.distributed: [results].

    seed   rank r has random numbers of its own, from seed + r, as in ranks.run
    calls  a list: every call that sends or receives is noted in it, as a Call

    Raises what a rank raised first, Deadlock, or Mismatch. Tensors live on the CPU. Only
    calls written as dist.NAME are played; what a library calls by itself (DDP, FSDP,
    DTensor) is for real processes (ranks.run).

    Stricter than gloo. A tensor that travels is contiguous: of one with gaps (a slice of
    columns) gloo sums the wrong numbers and says nothing; NCCL, on GPUs, refuses it. And
    a parameter is written under torch.no_grad(): otherwise torch warns in every backward
    after it, and says that it will refuse it one day.
    """
    return Rehearsal(n, seed, calls).run(fn)


class Rehearsal(Simulator):
    """What `rehearse` holds, with its count: `sent`, `bytes`, `messages`, `steps`.

    A collective call costs what chapter 16's algorithms cost: rings (all_reduce,
    all_gather, reduce_scatter), trees (broadcast, reduce), rank by rank (gather, scatter)
    and pairwise exchanges (all_to_all). Barriers carry nothing and are not counted. A
    message costs itself; a rank sends one and receives one at a time.
    """

    MOST = 64
    at_a_time = threading.Lock()

    def __init__(self, n, seed=0, calls=None, alpha=1.0, beta=0.0):
        if type(n) is not int or not 1 <= n <= self.MOST:
            raise ValueError(
                f"n is the number of ranks, 1 to {self.MOST}, not {n!r:.60}"
            )
        if type(seed) is not int or not 0 <= seed < 2**32 - self.MOST:
            raise ValueError(f"seed is a whole number from 0 on, not {seed!r:.60}")
        if calls is not None and not isinstance(calls, list):
            said = f"{calls!r:.60}"
            raise TypeError(f"calls is a list that is filled, or None, not {said}")
        super().__init__(n, alpha, beta)
        self.seed, self.calls = seed, [] if calls is None else calls
        self.groups, self.compared = {}, {}

    def run(self, fn):
        "Call fn(rank, n) in every rank: -> [results]."
        if not callable(fn):
            raise TypeError(f"rehearse(fn, n) calls fn(rank, n); {fn!r:.60} is no function")  # fmt: skip
        if isinstance(threading.current_thread(), _Actor):
            raise RuntimeError("a rank of a rehearsal cannot hold another rehearsal")
        self.groups, self.compared = {}, {}
        with self.at_a_time, stand_ins(_Actor), _own_random_numbers():
            return self.play([_Actor(self, rank, fn) for rank in range(self.n)])


class _Actor(Rank):
    "A rank with random numbers of its own, which makes collective calls."

    def __init__(self, rehearsal, number, fn):
        super().__init__(rehearsal, number)
        self.fn = fn
        _seed(rehearsal.seed + number)
        self.random, self.places = _random_state(), Counter()

    def work(self):
        return self.fn(self.number, self.simulator.n)

    def turn(self):
        _set_random_state(self.random)
        super().turn()
        self.random = _random_state()

    def call(
        self, name, put, rounds, tensor=None, pickled=b"", wait=True, group=None,
        said=None, value=None, **key,
    ):  # fmt: skip
        """Join the group's next meeting; come back when it is over, or with a Work.

        put(values) writes the result, rounds(values) says what travels. `said`, else a
        sentence made of tensor and `key`, must be the same on every rank; `value`, else
        the tensor, is what this one brings.
        """
        members(self, group)
        numbers = 0 if tensor is None else tensor.numel()
        size = len(pickled) if tensor is None else tensor.nbytes
        if value is None:
            value = pickled if tensor is None else tensor.detach().clone()
        call = Call(self.number, name, numbers, size, not wait, _in_backward())
        said = said or _describe(name, tensor, key)
        meeting = self.meet(said, value, rounds, whole_group(group))
        self.simulator.calls.append(call)
        work = Work(self, meeting, lambda: put(meeting.values()), call, tensor)
        if not wait:
            return work
        work.wait()

    def point(self, name, half, put, tensor):
        "Open one end of a message: -> a Work. put() writes what has arrived."
        call = Call(
            self.number, name, tensor.numel(), tensor.nbytes, name[0] == "i",
            _in_backward(),
        )  # fmt: skip
        self.post(half)
        self.simulator.calls.append(call)
        return Work(self, half, put, call, tensor)

    def compare(self, what, mine, differ):
        """ValueError if the ranks that have come to this place brought something else.

        differ({rank: brought}) -> a sentence, or "". Nobody waits, and nothing counts.
        """
        place = what, self.places[what]
        self.places[what] += 1
        brought = self.simulator.compared.setdefault(place, {})
        brought[self.number] = mine
        if said := differ(brought):
            raise ValueError(f"{what}: {said}")
        if len(brought) == self.simulator.n:
            del self.simulator.compared[place]


class Work:
    "What an asynchronous call returns; `event` is what it waits for."

    def __init__(self, rank, event, put, call, tensor=None):
        self.rank, self.event, self.put, self.call = rank, event, put, call
        self.tensor, self.done = tensor, False

    def wait(self, timeout=None):
        if not self.done:
            self.call.waited_in_backward = _in_backward()
            self.rank.wait(self.event)
            with torch.no_grad():
                self.put()
            self.done = True
        return True

    def is_completed(self):
        return self.event.end is not None

    def get_future(self):
        "A promise of [tensor], for calls that write into the tensor they were given."
        if self.call.name not in ("all_reduce", "broadcast", "irecv"):
            raise RuntimeError(
                f"a rehearsal has get_future() of all_reduce, broadcast and irecv, "
                f"not of {self.call.name}"
            )
        return Promise(lambda: self.wait() and [self.tensor])


class Promise:
    "Stands in for torch.futures.Future: what `then` is given runs when it is waited for."

    def __init__(self, make):
        self.make, self.made = make, []

    def wait(self):
        if not self.made:
            self.made.append(self.make())
        return self.made[0]

    value = wait

    def then(self, callback):
        def make():
            self.wait()
            return callback(self)

        return Promise(make)


def _in_backward():
    return torch._C._current_graph_task_id() != -1


def _describe(name, tensor, key):
    if tensor is not None:
        kind = str(tensor.dtype).removeprefix("torch.")
        name += f" of {tensor.numel()} {kind} numbers"
    return name + "".join(f", {k.replace('_', ' ')} {v}" for k, v in key.items())


# ---- random numbers of each rank ----


@contextmanager
def _own_random_numbers():
    "Inside, ranks draw numbers of their own; outside nobody notices."
    before = _random_state()
    try:
        yield
    finally:
        _set_random_state(before)


def _random_state():
    return torch.get_rng_state(), np.random.get_state(), random.getstate()


def _set_random_state(state):
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])


def _seed(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
