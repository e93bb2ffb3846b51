"""Collective calls of torch.distributed, as a rank of a rehearsal makes them.

Each says what it brings to the meeting of its group, how the result is written (`put`)
and what would travel (`rounds`, of costs.py). `me` is the rank that calls. Ranks are named
by their number among all, `place` is one's own place in the group.
"""

import pickle

import torch
from torch import distributed as dist

from utils.practice import costs
from utils.practice.groups import fit, members, peer
from utils.practice.simulator import Mismatch

SUM = dist.ReduceOp.SUM


def _all_reduce(me, tensor, op=SUM, group=None, async_op=False):
    name, reduce = _reduction(op)

    def put(values):
        tensor.detach().copy_(reduce(values))

    fit(tensor, [tensor])
    options = {"wait": not async_op, "group": group}
    return me.call("all_reduce", put, costs.ring_sum, tensor, **options, op=name)


def _reduce(me, tensor, dst=None, op=SUM, group=None, async_op=False, group_dst=None):
    (name, reduce), dst = _reduction(op), peer(me, group, dst, group_dst)
    root = _place(me, group, dst)

    def put(values):
        if me.number == dst:
            tensor.detach().copy_(reduce(values))

    def rounds(values):
        return costs.backwards(costs.tree(values, root))

    fit(tensor, [tensor])
    key = {"op": name, "to_rank": dst, "group": group}
    return me.call("reduce", put, rounds, tensor, wait=not async_op, **key)


def _broadcast(me, tensor, src=None, group=None, async_op=False, group_src=None):
    src = peer(me, group, src, group_src)
    root = _place(me, group, src)

    def put(values):
        tensor.detach().copy_(values[root])

    def rounds(values):
        return costs.tree(values, root)

    fit(tensor, [tensor])
    options = {"wait": not async_op, "group": group}
    return me.call("broadcast", put, rounds, tensor, **options, from_rank=src)


def _all_gather(me, tensor_list, tensor, group=None, async_op=False):
    _one_each(me, "all_gather fills", tensor_list, group)

    def put(values):
        for into, value in zip(tensor_list, values):
            into.detach().copy_(value)

    fit(tensor, tensor_list)
    options = {"wait": not async_op, "group": group}
    return me.call("all_gather", put, costs.ring_gather, tensor, **options)


def _all_gather_flat(name):
    def call(me, output_tensor, input_tensor, group=None, async_op=False):
        fit(input_tensor, [output_tensor])
        n = len(members(me, group)[0])
        _holds(name, output_tensor, n * input_tensor.numel())

        def put(values):
            whole = torch.cat([x.flatten() for x in values])
            output_tensor.detach().copy_(whole.view_as(output_tensor))

        options = {"wait": not async_op, "group": group}
        return me.call(name, put, costs.ring_gather, input_tensor, **options)

    return call


def _reduce_scatter(me, output, input_list, op=SUM, group=None, async_op=False):
    _one_each(me, "reduce_scatter takes", input_list, group)
    for x in input_list:
        fit(x)
    return _scatter_sum(me, "reduce_scatter", output, input_list, op, group, async_op)


def _reduce_scatter_flat(name):
    def call(me, output, input, op=SUM, group=None, async_op=False):
        fit(input)
        n = len(members(me, group)[0])
        _holds(name, input, n * output.numel())
        parts = input.reshape(n, -1).unbind()
        return _scatter_sum(me, name, output, parts, op, group, async_op)

    return call


def _scatter_sum(me, name, output, parts, op, group, async_op):
    "parts[r]: what this rank adds to the sum that rank r of the group gets."
    (op_name, reduce), (_, place) = _reduction(op), members(me, group)
    fit(output, [output])
    _holds(f"{name} on rank {me.number}: output", output, parts[place].numel())
    sizes = [x.nbytes for x in parts]

    def put(values):
        mine = reduce([x.split([p.numel() for p in parts])[place] for x in values])
        output.detach().copy_(mine.view_as(output))

    whole = torch.cat([x.detach().flatten() for x in parts])
    options = {"wait": not async_op, "group": group, "op": op_name}
    return me.call(
        name, put, lambda values: costs.ring_scatter(sizes), whole, **options
    )


def _all_to_all(me, output_tensor_list, input_tensor_list, group=None, async_op=False):
    for tensors in (output_tensor_list, input_tensor_list):
        _one_each(me, "all_to_all takes", tensors, group)
        for x in tensors:
            fit(x)
    options = {"wait": not async_op, "group": group}
    return _exchange(me, "all_to_all", output_tensor_list, input_tensor_list, **options)


def _all_to_all_single(
    me, output, input, output_split_sizes=None, input_split_sizes=None, group=None,
    async_op=False,
):  # fmt: skip
    fit(input, [output])
    n = len(members(me, group)[0])
    into = output.detach().split(_rows("output", output, output_split_sizes, n))
    leaving = input.split(_rows("input", input, input_split_sizes, n))
    options = {"wait": not async_op, "group": group}
    return _exchange(me, "all_to_all_single", into, leaving, **options)


def _exchange(me, name, into, leaving, **options):
    "Entry r of `leaving` goes to rank r of the group, entry r of `into` comes from it."
    ranks, place = members(me, options["group"])
    whole = torch.cat([x.detach().flatten() for x in leaving])
    sizes = [x.numel() for x in leaving]

    def rounds(values):
        for to, (_, _, room) in enumerate(values):
            for source, (_, sent, _) in enumerate(values):
                if sent[to] != room[source]:
                    raise Mismatch(
                        f"in {name} rank {ranks[source]} sends {sent[to]} numbers to "
                        f"rank {ranks[to]}, which made room for {room[source]}"
                    )
        bytes_each = whole.element_size()
        return costs.pairwise([[k * bytes_each for k in sent] for _, sent, _ in values])

    def put(values):
        for mine, (x, sent, _) in zip(into, values):
            mine.detach().copy_(x.split(sent)[place].view_as(mine))

    value = whole, sizes, [x.numel() for x in into]
    kind = f"{name} of {str(whole.dtype).removeprefix('torch.')} numbers"
    return me.call(name, put, rounds, whole, value=value, said=kind, **options)


def _gather(
    me, tensor, gather_list=None, dst=None, group=None, async_op=False, group_dst=None
):
    dst = peer(me, group, *_or_first(me, group, dst, group_dst))
    root = _place(me, group, dst)
    if me.number == dst:
        _one_each(me, f"gather on rank {dst} fills", gather_list, group)

    def put(values):
        for into, value in zip(gather_list or (), values):
            into.detach().copy_(value)

    def rounds(values):
        return costs.backwards(costs.star([x.nbytes for x in values], root))

    fit(tensor, gather_list if me.number == dst else ())
    options = {"wait": not async_op, "group": group}
    return me.call("gather", put, rounds, tensor, **options, to_rank=dst)


def _scatter(
    me, tensor, scatter_list=None, src=None, group=None, async_op=False, group_src=None
):
    src = peer(me, group, *_or_first(me, group, src, group_src))
    root, (_, place) = _place(me, group, src), members(me, group)
    if me.number == src:
        _one_each(me, f"scatter on rank {src} takes", scatter_list, group)
        for x in scatter_list:
            fit(x)
            _holds("every tensor of scatter's list", x, tensor.numel())

    def put(values):
        tensor.detach().copy_(values[root][place])

    def rounds(values):
        return costs.star([x.nbytes for x in values[root]], root)

    fit(tensor, [tensor])
    value = [x.detach().clone() for x in scatter_list] if me.number == src else None
    options = {"wait": not async_op, "group": group, "value": value}
    return me.call("scatter", put, rounds, tensor, **options, from_rank=src)


def _all_gather_object(me, object_list, obj, group=None):
    def put(values):
        object_list[:] = map(pickle.loads, values)

    data = pickle.dumps(obj)
    name = "all_gather_object"
    return me.call(name, put, costs.ring_gather, pickled=data, group=group)


def _broadcast_object_list(
    me, object_list, src=None, group=None, device=None, group_src=None
):
    src = peer(me, group, src, group_src)
    root = _place(me, group, src)

    def put(values):
        object_list[:] = pickle.loads(values[root])

    def rounds(values):
        return costs.tree(values, root)

    data = pickle.dumps(list(object_list)) if me.number == src else b""
    options = {"pickled": data, "group": group, "from_rank": src}
    return me.call("broadcast_object_list", put, rounds, **options)


def _barrier(me, group=None, async_op=False, device_ids=None, timeout=None):
    options = {"wait": not async_op, "group": group}
    return me.call("barrier", lambda values: None, lambda values: [], **options)


CALLS = {
    "all_reduce": _all_reduce, "reduce": _reduce, "broadcast": _broadcast,
    "all_gather": _all_gather, "all_gather_object": _all_gather_object,
    "broadcast_object_list": _broadcast_object_list, "barrier": _barrier,
    "reduce_scatter": _reduce_scatter, "all_to_all": _all_to_all,
    "all_to_all_single": _all_to_all_single, "gather": _gather, "scatter": _scatter,
    **{name: _all_gather_flat(name)
       for name in ("all_gather_into_tensor", "all_gather_single")},
    **{name: _reduce_scatter_flat(name)
       for name in ("reduce_scatter_tensor", "reduce_scatter_single")},
}  # fmt: skip


# ---- what they are given ----


def _place(me, group, rank):
    return members(me, group)[0].index(rank)


def _or_first(me, group, rank, group_rank):
    "Rank 0 where a call names none, as torch does."
    return (0, None) if rank is None and group_rank is None else (rank, group_rank)


def _one_each(me, what, tensors, group):
    n = len(members(me, group)[0])
    if not isinstance(tensors, (list, tuple)) or len(tensors) != n:
        raise ValueError(f"{what} a list of {n} tensors")


def _holds(what, tensor, numbers):
    if tensor.numel() != numbers:
        raise ValueError(
            f"{what} has {tensor.numel()} numbers, and {numbers} are needed"
        )


def _rows(name, tensor, splits, n):
    "How many rows each rank of the group gets or gives."
    rows = len(tensor)
    if splits is None or len(splits) == 0:
        if rows % n:
            raise ValueError(
                f"{name} has {rows} rows, which {n} ranks cannot share equally: give "
                f"{name}_split_sizes"
            )
        return [rows // n] * n
    if len(splits) != n or sum(splits) != rows or min(splits) < 0:
        raise ValueError(
            f"{name}_split_sizes are {n} numbers that add up to {rows}, not {splits}"
        )
    return list(splits)


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
