"""One rank to another: send, recv and their asynchronous kin, as a rehearsal plays them.

A send waits until its receiver asks, as on gloo; what an isend carries is read when it
moves, and what an irecv brings is written at wait(): who changes a tensor in between, or
forgets to wait, sees it. Messages between two ranks stay in order, by tag and group.
"""

from dataclasses import dataclass
from typing import Any

import torch

from utils.practice.groups import fit, peer, whole_group
from utils.practice.simulator import Mismatch, Recv, Send


@dataclass
class P2POp:
    "One of the messages of batch_isend_irecv; op is dist.isend or dist.irecv."

    op: Any
    tensor: torch.Tensor
    peer: int | None = None
    group: Any = None
    tag: int = 0
    group_peer: int | None = None

    def __post_init__(self):
        if getattr(self.op, "__name__", None) not in ("isend", "irecv"):
            raise ValueError(f"op is dist.isend or dist.irecv, not {self.op!r:.60}")


def _isend(me, tensor, dst=None, group=None, tag=0, group_dst=None):
    return _leave(me, "isend", tensor, dst, group, tag, group_dst)


def _irecv(me, tensor, src=None, group=None, tag=0, group_src=None):
    return _arrive(me, "irecv", tensor, src, group, tag, group_src)


def _send(me, tensor, dst=None, group=None, tag=0, group_dst=None):
    _leave(me, "send", tensor, dst, group, tag, group_dst).wait()


def _recv(me, tensor, src=None, group=None, tag=0, group_src=None):
    work = _arrive(me, "recv", tensor, src, group, tag, group_src)
    work.wait()
    return work.event.peer


def _batch(me, p2p_op_list):
    "All of them are opened at once, so that no order among them can wait in a circle."
    ops = list(p2p_op_list)
    if not ops or not all(isinstance(op, P2POp) for op in ops):
        raise ValueError("batch_isend_irecv takes a list of dist.P2POp, at least one")
    begin = {"isend": _leave, "irecv": _arrive}
    return [
        begin[o.op.__name__](
            me, o.op.__name__, o.tensor, o.peer, o.group, o.tag, o.group_peer
        )
        for o in ops
    ]


CALLS = {
    "send": _send, "recv": _recv, "isend": _isend, "irecv": _irecv,
    "batch_isend_irecv": _batch, "P2POp": lambda me, *args, **named: P2POp(*args, **named),
}  # fmt: skip


# ---- the two ends ----


def _leave(me, name, tensor, dst, group, tag, place):
    fit(tensor)
    to, group = _other(me, group, dst, place, tag), whole_group(group)
    half = Send(me, to, tensor.detach(), tensor.nbytes, tag, group)
    return me.point(name, half, lambda: None, tensor)


def _arrive(me, name, tensor, src, group, tag, place):
    fit(tensor, [tensor])
    source = _other(me, group, src, place, tag)
    arrived = []

    def fill(send):
        x = send.value
        if x.numel() != tensor.numel() or x.dtype != tensor.dtype:
            raise Mismatch(
                f"rank {source} sends {_said(x)} to rank {me.number}, which made room "
                f"for {_said(tensor)}"
            )
        arrived.append(x.clone())

    def put():
        tensor.detach().copy_(arrived[0].view_as(tensor))

    half = Recv(me, source, fill, tag, whole_group(group))
    return me.point(name, half, put, tensor)


def _other(me, group, rank, place, tag):
    if rank is None and place is None:
        raise ValueError("name the rank at the other end: a rehearsal takes no message from just anybody")  # fmt: skip
    if not isinstance(tag, int) or isinstance(tag, bool) or tag < 0:
        raise ValueError(f"a tag is a whole number from 0, not {tag!r:.40}")
    other = peer(me, group, rank, place)
    if other == me.number:
        raise ValueError(f"rank {other} sends to itself, or receives from itself")
    return other


def _said(x):
    return f"{x.numel()} {str(x.dtype).removeprefix('torch.')} numbers"
