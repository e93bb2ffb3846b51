"""torch.distributed rehearsed in one process: ranks are threads that take turns.

    results = rehearse(fn, 4)      # fn(rank, 4) with dist.all_reduce ..., as in ranks.run

The same function then runs on real processes. The rehearsal is quick, comes out alike
every time, and says at once what real processes would only hang on: a rank that nobody
answers (Deadlock), or ranks that make different calls (Mismatch). A result is written at
`wait()` and no sooner, so that a forgotten wait shows.
"""

import random
import threading
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import distributed as dist

from utils.practice.turns import Deadlock, Player, Stop, Table

MOST = 64  # ranks


class Mismatch(RuntimeError):
    "Ranks make different calls at the same place in their order of calls."


@dataclass
class Call:
    "One collective call of one rank, in the order in which they were made."

    rank: int
    name: str
    numbers: int  # of the tensor
    bytes: int
    asynchronous: bool
    in_backward: bool
    waited_in_backward: bool = False  # backward stood still until all ranks had come


def rehearse(fn, n=4, seed=0, calls=None):
    """Call fn(rank, n) in `n` threads, joined by a stand-in of torch.distributed: [results].

    seed   rank r has random numbers of its own, from seed + r, as in ranks.run
    calls  a list: every collective call is noted in it, as a Call

    Raises what a rank raised first, Deadlock, or Mismatch. Tensors live on the CPU;
    groups within the group, send and recv are for real processes (ranks.run).

    Stricter than gloo: a tensor that travels is contiguous. gloo takes a transposed one,
    too, and of one with gaps (a slice of columns) it sums the wrong numbers and says
    nothing; NCCL, on GPUs, refuses both.
    """
    if not callable(fn):
        raise TypeError(f"rehearse(fn, n) calls fn(rank, n); {fn!r:.60} is no function")
    if type(n) is not int or not 1 <= n <= MOST:
        raise ValueError(f"n is the number of ranks, 1 to {MOST}, not {n!r:.60}")
    if type(seed) is not int or not 0 <= seed < 2**32 - MOST:
        raise ValueError(f"seed is a whole number from 0 on, not {seed!r:.60}")
    if calls is not None and not isinstance(calls, list):
        raise TypeError(f"calls is a list that is filled, or None, not {calls!r:.60}")
    if isinstance(threading.current_thread(), _Rank):
        raise RuntimeError("a rank of a rehearsal cannot hold another rehearsal")
    with _one_rehearsal, _stand_ins():
        return _Stage(fn, n, seed, [] if calls is None else calls).play()


_one_rehearsal = threading.Lock()


class _Stage(Table):
    "The ranks, and what each of their calls has brought so far."

    def __init__(self, fn, n, seed, calls):
        super().__init__()
        self.n, self.calls, self.meetings = n, calls, []
        self.ranks = [_Rank(self, fn, rank, seed) for rank in range(n)]

    def play(self):
        mine = _random_state()
        try:
            for rank in self.ranks:
                rank.begin()
            while ready := [r for r in self.ranks if r.can_go_on()]:
                for rank in ready:
                    self._turn(rank)
            if stuck := [r for r in self.ranks if not r.over]:
                waits = {r.rank: f"waits in {r.waits_for.said()}" for r in stuck}
                raise Deadlock(self._why(waits), waits)
        finally:
            self.stop(self.ranks)
            _set_random_state(mine)
        return [rank.result for rank in self.ranks]

    def _turn(self, rank):
        _set_random_state(rank.random)
        rank.turn()
        rank.random = _random_state()

    def _why(self, waits):
        said = [f"rank {rank} {what}" for rank, what in waits.items()]
        said += [
            f"rank {r.rank} has returned after {r.count} call{'s' * (r.count != 1)}"
            for r in self.ranks
            if r.over
        ]
        return "no rank can go on: " + ", ".join(said)


class _Rank(Player):
    "The thread of one rank, with its random numbers and the meeting that it waits for."

    def __init__(self, stage, fn, rank, seed):
        super().__init__(stage, f"rank {rank}")
        self.stage, self.fn, self.rank, self.seed = stage, fn, rank, seed + rank
        self.waits_for = self.random = None
        self.count = 0

    def begin(self):
        _seed(self.seed)
        self.random = _random_state()
        self.start()

    def work(self):
        return self.fn(self.rank, self.stage.n)

    def can_go_on(self):
        return not self.over and (self.waits_for is None or self.waits_for.complete())

    def call(self, name, tensor, key, put, asynchronous, value=None):
        "Join the next meeting; come back when it is over, or with a Work to wait for."
        stage, number = self.stage, self.count
        if stage.stopped:
            raise Stop
        if len(stage.meetings) == number:
            stage.meetings.append(_Meeting(stage.n, number))
        numbers = 0 if tensor is None else tensor.numel()
        size = 0 if tensor is None else numbers * tensor.element_size()
        call = Call(self.rank, name, numbers, size, asynchronous, _in_backward())
        stage.calls.append(call)
        meeting = stage.meetings[number]
        meeting.join(self.rank, name, tensor, key, value)
        self.count += 1
        work = Work(self, meeting, put, call)
        return work if asynchronous else work.wait() and None

    def wait_for(self, meeting):
        "Let others have their turn until all have come to this meeting."
        self.waits_for = meeting
        self.pause()
        self.waits_for = None


class Work:
    "What an asynchronous call returns."

    def __init__(self, rank, meeting, put, call):
        self.rank, self.meeting, self.put, self.call = rank, meeting, put, call
        self.done = False

    def wait(self, timeout=None):
        if not self.done:
            self.call.waited_in_backward = _in_backward()
            if not self.meeting.complete():
                self.rank.wait_for(self.meeting)
            with torch.no_grad():
                self.put(self.meeting)
            self.done = True
        return True

    def is_completed(self):
        return self.meeting.complete()


def _in_backward():
    return torch._C._current_graph_task_id() != -1


class _Meeting:
    "The k-th call of every rank: they must be the same call."

    def __init__(self, n, number):
        self.n, self.number, self.brought = n, number, {}

    def join(self, rank, name, tensor, key, value):
        what = _describe(name, tensor, key)
        for other, (said, _) in self.brought.items():
            if said != what:
                raise Mismatch(
                    f"call {self.number + 1} of rank {other} is {said}, of rank {rank} "
                    f"{what}: all ranks make the same calls in the same order"
                )
        if tensor is not None:
            value = tensor.detach().clone()
        self.brought[rank] = what, value

    def complete(self):
        return len(self.brought) == self.n

    def values(self):
        return [self.brought[rank][1] for rank in range(self.n)]

    def said(self):
        return f"its call {self.number + 1}, {next(iter(self.brought.values()))[0]}"


def _describe(name, tensor, key):
    if tensor is not None:
        kind = str(tensor.dtype).removeprefix("torch.")
        name += f" of {tensor.numel()} {kind} numbers"
    return name + "".join(f", {k} {v}" for k, v in key.items())


# ---- the calls ----


def _all_reduce(me, tensor, op=dist.ReduceOp.SUM, group=None, async_op=False):
    name, reduce = _reduction(op)

    def put(meeting):
        tensor.detach().copy_(reduce(meeting.values()))

    return me.call("all_reduce", _fit(tensor, group), {"op": name}, put, async_op)


def _reduce(me, tensor, dst=None, op=dist.ReduceOp.SUM, group=None, async_op=False):
    name, reduce = _reduction(op)
    dst = _peer(me, dst)

    def put(meeting):
        if me.rank == dst:
            tensor.detach().copy_(reduce(meeting.values()))

    key = {"op": name, "to rank": dst}
    return me.call("reduce", _fit(tensor, group), key, put, async_op)


def _broadcast(me, tensor, src=None, group=None, async_op=False):
    src = _peer(me, src)

    def put(meeting):
        tensor.detach().copy_(meeting.values()[src])

    return me.call("broadcast", _fit(tensor, group), {"from rank": src}, put, async_op)


def _all_gather(me, tensor_list, tensor, group=None, async_op=False):
    if len(tensor_list) != me.stage.n:
        raise ValueError(f"all_gather fills a list of {me.stage.n} tensors")

    def put(meeting):
        for into, value in zip(tensor_list, meeting.values()):
            into.copy_(value)

    return me.call("all_gather", _fit(tensor, group), {}, put, async_op)


def _all_gather_object(me, object_list, obj, group=None):
    def put(meeting):
        object_list[:] = meeting.values()

    return me.call("all_gather_object", None, {}, put, False, value=obj)


def _broadcast_object_list(me, object_list, src=None, group=None, device=None):
    src = _peer(me, src)

    def put(meeting):
        object_list[:] = meeting.values()[src]

    value, key = list(object_list), {"from rank": src}
    return me.call("broadcast_object_list", None, key, put, False, value=value)


def _barrier(me, group=None, async_op=False, device_ids=None):
    return me.call("barrier", None, {}, lambda meeting: None, async_op)


CALLS = {
    "all_reduce": _all_reduce, "reduce": _reduce, "broadcast": _broadcast,
    "all_gather": _all_gather, "all_gather_object": _all_gather_object,
    "broadcast_object_list": _broadcast_object_list, "barrier": _barrier,
    "get_rank": lambda me, group=None: me.rank,
    "get_world_size": lambda me, group=None: me.stage.n,
    "get_backend": lambda me, group=None: "rehearsal",
    "is_initialized": lambda me: True,
}  # fmt: skip
NOT_HERE = (
    "send recv isend irecv batch_isend_irecv gather scatter reduce_scatter all_to_all "
    "init_process_group destroy_process_group new_group"
).split()


def _refuse(name):
    def refuse(me, *arguments, **options):
        raise RuntimeError(
            f"dist.{name} is for real processes (ranks.run); a rehearsal has "
            f"{', '.join(list(CALLS)[:7])}"
        )

    return refuse


@contextmanager
def _stand_ins():
    "Calls of torch.distributed that come from a rank's thread go to its rehearsal."
    calls = CALLS | {name: _refuse(name) for name in NOT_HERE if hasattr(dist, name)}
    originals = {name: getattr(dist, name) for name in calls}
    try:
        for name, call in calls.items():
            setattr(dist, name, _switch(call, originals[name]))
        yield
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)


def _switch(call, original):
    def switch(*arguments, **options):
        me = threading.current_thread()
        if isinstance(me, _Rank):
            return call(me, *arguments, **options)
        return original(*arguments, **options)

    return switch


def _fit(tensor, group):
    if group is not None and group is not getattr(dist.group, "WORLD", None):
        raise RuntimeError("a rehearsal has one group, that of all ranks")
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"what travels is a tensor, not {type(tensor).__name__}")
    if not tensor.is_contiguous():
        raise ValueError(
            "a tensor that travels is contiguous: call .contiguous() first"
        )
    return tensor


def _peer(me, rank):
    if not isinstance(rank, int) or not 0 <= rank < me.stage.n:
        raise ValueError(f"there are ranks 0 to {me.stage.n - 1}, and no {rank!r:.40}")
    return rank


def _reduction(op):
    reductions = {
        "SUM": lambda xs: sum(xs[1:], xs[0]),
        "AVG": lambda xs: sum(xs[1:], xs[0]) / len(xs),
        "PRODUCT": lambda xs: torch.stack(xs).prod(0),
        "MAX": lambda xs: torch.stack(xs).amax(0),
        "MIN": lambda xs: torch.stack(xs).amin(0),
    }
    for name, reduce in reductions.items():
        if op == getattr(dist.ReduceOp, name):
            return name, reduce
    raise RuntimeError(f"a rehearsal reduces by {', '.join(reductions)}, not by {op}")


# ---- random numbers of each rank ----


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
