"""Calls of torch.distributed, as a rank of a rehearsal makes them.

Each says what it brings to the meeting of all ranks, how the result is written (`put`),
and what would travel if chapter 16's algorithms did it (`rounds`: lists of messages
(source, to, bytes) that leave at the same time). `me` is the rank that calls.
"""

import pickle
import threading
from contextlib import contextmanager

import torch
from torch import distributed as dist

from utils.built.collectives import cut

# ---- what travels ----


def _ring(sizes, steps, first=0):
    "In step k rank r passes chunk r + first - k on to its right neighbour."
    n = len(sizes)
    return [
        [(r, (r + 1) % n, sizes[(r + first - k) % n]) for r in range(n)]
        for k in range(steps)
    ]


def _ring_sum(values):
    x, n = values[0], len(values)
    sizes = [(c.stop - c.start) * x.element_size() for c in cut(x.numel(), n)]
    return _ring(sizes, 2 * (n - 1), first=-1)


def _ring_gather(values):
    sizes = [x.nbytes if isinstance(x, torch.Tensor) else len(x) for x in values]
    return _ring(sizes, len(values) - 1)


def _tree(values, root):
    "Rank `root` tells one, both tell one each, ..."
    n, x, reach, rounds = len(values), values[root], 1, []
    size = x.nbytes if isinstance(x, torch.Tensor) else len(x)
    while reach < n:
        pairs = [(root + r, root + r + reach) for r in range(min(reach, n - reach))]
        rounds.append([(source % n, to % n, size) for source, to in pairs])
        reach *= 2
    return rounds


# ---- the calls ----


def _all_reduce(me, tensor, op=dist.ReduceOp.SUM, group=None, async_op=False):
    name, reduce = _reduction(op)

    def put(values):
        tensor.detach().copy_(reduce(values))

    _fit(tensor, group, written=[tensor])
    return me.call("all_reduce", put, _ring_sum, tensor, wait=not async_op, op=name)


def _reduce(me, tensor, dst=None, op=dist.ReduceOp.SUM, group=None, async_op=False):
    (name, reduce), dst = _reduction(op), _peer(me, dst)

    def put(values):
        if me.number == dst:
            tensor.detach().copy_(reduce(values))

    def rounds(values):
        return [[(b, a, size) for a, b, size in r] for r in _tree(values, dst)[::-1]]

    _fit(tensor, group, written=[tensor])
    key = {"op": name, "to_rank": dst}
    return me.call("reduce", put, rounds, tensor, wait=not async_op, **key)


def _broadcast(me, tensor, src=None, group=None, async_op=False):
    src = _peer(me, src)

    def put(values):
        tensor.detach().copy_(values[src])

    def rounds(values):
        return _tree(values, src)

    _fit(tensor, group, written=[tensor])
    wait = not async_op
    return me.call("broadcast", put, rounds, tensor, wait=wait, from_rank=src)


def _all_gather(me, tensor_list, tensor, group=None, async_op=False):
    if len(tensor_list) != me.simulator.n:
        raise ValueError(f"all_gather fills a list of {me.simulator.n} tensors")

    def put(values):
        for into, value in zip(tensor_list, values):
            into.detach().copy_(value)

    _fit(tensor, group, written=tensor_list)
    return me.call("all_gather", put, _ring_gather, tensor, wait=not async_op)


def _all_gather_object(me, object_list, obj, group=None):
    def put(values):
        object_list[:] = map(pickle.loads, values)

    data = pickle.dumps(obj)
    return me.call("all_gather_object", put, _ring_gather, pickled=data)


def _broadcast_object_list(me, object_list, src=None, group=None, device=None):
    src = _peer(me, src)

    def put(values):
        object_list[:] = pickle.loads(values[src])

    def rounds(values):
        return _tree(values, src)

    data = pickle.dumps(list(object_list)) if me.number == src else b""
    return me.call("broadcast_object_list", put, rounds, pickled=data, from_rank=src)


def _barrier(me, group=None, async_op=False, device_ids=None):
    return me.call("barrier", lambda values: None, lambda values: [], wait=not async_op)


CALLS = {
    "all_reduce": _all_reduce, "reduce": _reduce, "broadcast": _broadcast,
    "all_gather": _all_gather, "all_gather_object": _all_gather_object,
    "broadcast_object_list": _broadcast_object_list, "barrier": _barrier,
    "get_rank": lambda me, group=None: me.number,
    "get_world_size": lambda me, group=None: me.simulator.n,
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
def stand_ins(actor):
    "Calls of torch.distributed that come from a thread of this class go to its rehearsal."
    calls = CALLS | {name: _refuse(name) for name in NOT_HERE if hasattr(dist, name)}
    originals = {name: getattr(dist, name) for name in calls}
    try:
        for name, call in calls.items():
            setattr(dist, name, _switch(actor, call, originals[name]))
        yield
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)


def _switch(actor, call, original):
    def switch(*arguments, **options):
        me = threading.current_thread()
        if isinstance(me, actor):
            return call(me, *arguments, **options)
        return original(*arguments, **options)

    return switch


def _fit(tensor, group, written):
    "Refuse what cannot travel, and what cannot be `written`."
    if group is not None and group is not getattr(dist.group, "WORLD", None):
        raise RuntimeError("a rehearsal has one group, that of all ranks")
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"what travels is a tensor, not {type(tensor).__name__}")
    if not tensor.is_contiguous():
        raise ValueError(
            "a tensor that travels is contiguous: call .contiguous() first"
        )
    leaves = [x for x in written if x.is_leaf and x.requires_grad]
    if leaves and torch.is_grad_enabled():
        raise RuntimeError(
            "a parameter (a leaf that requires grad) is written here: do that under "
            "torch.no_grad(), or every backward after it warns"
        )


def _peer(me, rank):
    if not isinstance(rank, int) or not 0 <= rank < me.simulator.n:
        raise ValueError(
            f"there are ranks 0 to {me.simulator.n - 1}, and no {rank!r:.40}"
        )
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
